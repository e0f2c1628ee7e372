"""Languages: the table against the published list and Linguist, detection against files whose language is known."""

from pathlib import Path

import pytest

from codeweft.source import languages

KNOWN = (
    ("include/a.h", b"class A {\npublic:\n  int x;\n};\n", "C++"),
    ("include/a.h", b"int f(void);\n", "C"),
    ("a.h", b"#import <Foundation/Foundation.h>\n@interface A : NSObject\n@end\n", "Objective-C"),
    ("f.m", b"function y = f(x)\n% doubles\ny = 2*x;\nend\n", "MATLAB"),
    ("f.m", b"#import <Foundation/Foundation.h>\n@implementation A\n@end\n", "Objective-C"),
    ("a.ts", b"const x: number = 1;\n", "TypeScript"),
    ("a.ts", b"<?xml version='1.0'?>\n<TS>\n</TS>\n", "XML"),
    ("a.tsx", b"export const A = () => <b/>;\n", "TypeScript"),
    ("a.pl", b"use strict;\nmy $x = 1;\n", "Perl"),
    ("a.v", b"module top(input a);\nendmodule\n", "Verilog"),
    ("a.jsx", b"", "JSX"),
    ("a.nim", b"echo 1", "Nimrod"),
    ("a.S", b"", "Assembly"),
    ("kernel.cu", b"", "CUDA"),
    ("page.html", b"<html></html>", "HTML"),
    ("data.json", b"{}", "JSON"),
    ("settings.yaml", b"a: 1\n", "YAML"),
    ("README.md", b"# Title\n", "Markdown"),
    ("CMakeLists.txt", b"", "CMake"),
    ("Dockerfile", b"", "Dockerfile"),
    ("deep/Makefile", b"", "Makefile"),
    ("main.PY", b"", "Python"),
    ("run", b"#!/usr/bin/env -S python3 -u\n", "Python"),
    ("run", b"#!/usr/bin/python3.11\n", "Python"),
    ("run", b"#!/bin/bash -e\n", "Shell"),
    ("run", b"#!/usr/bin/env FOO=1 node\n", "JavaScript"),
    ("run", b"#!\n", None),
    ("LICENSE", b"Permission is hereby granted", None),
    ("picture.xcf7", b"#!/bin/sh\n", None),
    ("dots.", b"", None),
    (".", b"", None),
    ("", b"", None),
)


@pytest.mark.parametrize(("path", "head", "expected"), KNOWN)
def test_files_of_known_language_are_recognised(path: str, head: bytes, expected: str | None):
    assert languages.detect(path, head) == expected


def test_every_extension_of_one_language_alone_leads_back_to_it():
    table = languages._table()
    for name, row in table.languages.items():
        for extension in row.extensions:
            if extension not in table.ambiguous:
                assert languages.detect("file" + extension, b"") == name


def test_every_listed_language_can_be_recognised_by_some_name():
    nowhere = [n for n in languages.names() if (row := languages.language(n)) and not row.extensions + row.filenames]
    assert nowhere == []


def test_the_names_are_the_published_ones_in_their_order(shared_data: Path):
    published = (shared_data / "eval" / "dscoder-v2-langs" / "supported_langs.txt").read_text().split("\n")
    assert list(languages.names()) == [name.strip() for name in published if name.strip()]


def test_names_are_found_as_people_write_them():
    written = {"js": "JavaScript", "golang": "Go", "viml": "VimL", "C++": "C++", "cpp": "C++", "Awk": "AWK"}
    assert {word: languages.by_alias(word) for word in written} == written


def test_the_table_says_what_linguist_says(shared_data: Path):
    """Extensions of languages that Linguist has under the same name, against Linguist's own file (another release)."""
    yaml = pytest.importorskip("yaml", reason="toolchain: yaml")
    linguist = yaml.safe_load((shared_data / "eval" / "linguist" / "languages.yml").read_text())
    ours = {name: set(row.extensions) for name, row in languages._table().languages.items() if name in linguist}
    missing = sum(
        len({e.lower() for e in linguist[n].get("extensions", [])} - {e.lower() for e in ours[n]}) for n in ours
    )
    total = sum(len(linguist[name].get("extensions", [])) for name in ours)
    assert total > 600
    assert missing <= 0.03 * total
