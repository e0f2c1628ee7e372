"""The table of toolchains, what is found of them on a machine, and the recipes made from both."""

import contextlib
import dataclasses
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codeweft.base.errors import UserError
from codeweft.sandbox import toolchains
from codeweft.sandbox.config import Limits
from codeweft.sandbox.preparing import READY, Preparation, folder_for, make
from codeweft.sandbox.toolchains import Installed, Toolchain, all_toolchains, commands, detect, find, with_closing

TESTED = {
    "python", "c", "cpp", "java", "javascript", "typescript", "go", "rust", "csharp", "php", "ruby", "perl", "lua",
    "bash", "r",
}  # fmt: skip
ENTRIES = {"julia", "swift", "d", "racket", "kotlin", "scala"}
# The languages of SandboxFusion's /run_code and of MultiPL-E that we have, as they are spelt there.
FUSION = (
    "python cpp nodejs go go_test java php csharp bash typescript rust lua R perl D_ut ruby scala julia pytest jest"
)
MULTIPL_E = "cpp cs d go_test.go java jl js lua php pl py r rb rkt rs scala sh swift ts"


@pytest.fixture
def fresh_detection():
    """Detection that has forgotten what it found, before the test and after it."""
    detect.cache_clear()
    yield
    detect.cache_clear()


def command(folder: Path, name: str, script: str) -> Path:
    """A command made of a shell script."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def installed(toolchain: Toolchain) -> Installed:
    """A toolchain as if all of it were installed under /usr/bin."""
    words = {program: (f"/usr/bin/{names[0]}",) for program, names in toolchain.programs.items()}
    return Installed(toolchain, words, words, (), {})


def test_the_table_holds_the_languages_we_promise():
    table = all_toolchains()
    assert {name for name, toolchain in table.items() if toolchain.tested} == TESTED
    assert set(table) - TESTED == ENTRIES


def test_no_two_languages_share_a_name():
    names = [
        name for toolchain in all_toolchains().values() for name in (toolchain.name, *dict.fromkeys(toolchain.aliases))
    ]
    assert len(names) == len(set(names))
    assert all(name == name.lower() for name in names)


@pytest.mark.parametrize("language", [*FUSION.split(), *MULTIPL_E.split(), "C++", "C#", "Rust", "JavaScript"])
def test_names_used_elsewhere_are_known(language: str):
    assert find(language).name in TESTED | ENTRIES


@pytest.mark.parametrize("name", sorted(TESTED | ENTRIES))
def test_every_entry_is_complete(name: str):
    """A recipe fills all its braces, gives limits that hold, can be closed, and says how to be installed."""
    toolchain = all_toolchains()[name]
    assert toolchain.programs
    assert toolchain.closing
    assert toolchain.fatal
    assert toolchain.install
    assert set(toolchain.install) <= {"debian", "fedora", "arch", "alpine", "macos", "any"}
    for suited in (toolchain, *(toolchain.suited_to(sample) for sample in SAMPLES_OF_VARIANTS.get(name, []))):
        recipe = commands(dataclasses.replace(installed(toolchain), toolchain=suited), "")
        for argv in (*recipe.compile, recipe.run):
            assert argv
            assert not any(re.search(r"\{\w+\}", word) for word in argv), argv
        assert isinstance(recipe.limits, Limits)
        assert recipe.compile_limits.cpu_seconds >= recipe.limits.cpu_seconds
        assert recipe.environment["HOME"] == "/tmp"
        assert "{" not in recipe.file
    re.compile(toolchain.closing_before)


SAMPLES_OF_VARIANTS = {
    "go": ["func TestTwo(t *testing.T) {\n}", "func main() { codeweftClosing() }"],
    "rust": ["#[test]\nfn two() {}"],
    "csharp": ["class CodeweftFatal {}"],
    "ruby": ["require 'test/unit'", 'require "minitest/autorun"'],
    "lua": ["lu = require('luaunit')\nos.exit(lu.LuaUnit.run())\n"],
    "d": ["unittest\n{\n}\nvoid main(){}"],
    "racket": ["(require rackunit)"],
}


@pytest.mark.parametrize("name", sorted(TESTED | ENTRIES))
def test_every_variant_is_reached_by_its_sample(name: str):
    toolchain = all_toolchains()[name]
    reached = {index for sample in SAMPLES_OF_VARIANTS.get(name, []) for index in variants_in(toolchain, sample)}
    assert reached == set(range(len(toolchain.variants)))


def variants_in(toolchain: Toolchain, sample: str) -> list[int]:
    """The variants whose pattern is found in the sample, the one that is chosen first."""
    return [i for i, variant in enumerate(toolchain.variants) if re.search(variant["when"], sample)][:1]


def test_an_unknown_language_names_the_nearest():
    with pytest.raises(UserError, match=r"'pyton'.*Did you mean python\?"):
        find("pyton")


def test_a_missing_program_is_named_with_what_to_install(monkeypatch: pytest.MonkeyPatch, fresh_detection: None):
    monkeypatch.setenv("PATH", "")
    found = detect(find("typescript"))
    assert found.missing == ("node or nodejs", "tsc")
    assert found.version == ""
    assert found.hint == "npm install -g typescript"
    assert found.binds == {}
    assert detect(find("python")).missing == ()
    rows = {label: (version, hint) for label, version, hint in toolchains.as_table()}
    assert rows["Go"][0] == "missing"
    assert "go" in rows["Go"][1]


@pytest.mark.parametrize(
    ("release", "hint"),
    [
        ("ID=debian\n", "apt install g++"),
        ('NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n', "apt install g++"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "dnf install gcc-c++"),
        ("ID=alpine\n", "apk add g++"),
    ],
)
def test_the_hint_is_the_distributions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, hint: str):
    file = tmp_path / "os-release"
    file.write_text(release, encoding="utf-8")
    monkeypatch.setattr(toolchains, "RELEASE", file)
    assert toolchains.install_hint(find("c++")) == hint


def test_a_distribution_we_do_not_know_gets_every_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(toolchains, "RELEASE", tmp_path / "none")
    assert "debian: apt install g++" in toolchains.install_hint(find("c++"))
    assert toolchains.install_hint(find("swift")) == "https://www.swift.org/install"


def test_the_version_is_read_from_what_the_command_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_detection: None
):
    command(tmp_path / "bin", "perl", "echo; echo 'This is perl 5, version 36, subversion 0 (v5.36.0) built for x'")
    command(tmp_path / "bin", "lua", "echo 'Lua 5.4.4  Copyright' >&2")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert detect(find("perl")).version == "5.36.0"
    assert detect(find("lua")).version == "5.4.4"


def test_a_toolchain_in_a_home_is_bound_and_renamed_in_its_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_detection: None
):
    """Like rustup: the command on PATH is a proxy that only names the folder of the real one."""
    real = tmp_path / "rustup" / "stable"
    command(real / "bin", "rustc", "echo rustc 1.95.0")
    command(tmp_path / "cargo", "rustc", f"echo {real}")
    command(tmp_path / "cargo", "cc", "true")
    monkeypatch.setenv("PATH", f"{tmp_path / 'cargo'}")
    found = detect(find("rust"))
    place = found.binds[str(real)]
    assert place.startswith("/opt/toolchains/stable-")
    recipe = commands(found, "fn main() {}")
    assert recipe.compile[0][0] == f"{place}/bin/rustc"
    assert recipe.file == "main.rs"
    assert not any(str(tmp_path) in word for word in (*recipe.compile[0], *recipe.run))
    assert found.version == "1.95.0"


def test_a_folder_that_holds_other_things_too_is_never_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_detection: None
):
    monkeypatch.setenv("HOME", str(tmp_path))
    lua = command(tmp_path / ".local" / "bin", "lua5.4", "true")
    monkeypatch.setenv("PATH", str(lua.parent))
    assert list(detect(find("lua")).binds) == [str(lua)]


def test_a_compiler_that_is_a_script_is_run_by_its_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_detection: None
):
    """Npm's tsc is a script of node; where the package brings a native compiler, that one is started."""
    modules = tmp_path / "lib" / "node_modules"
    script = command(modules / "typescript" / "bin", "tsc", "exit 1")
    command(tmp_path / "bin", "node", "true")
    (tmp_path / "bin" / "tsc").symlink_to(script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    node, compiler = commands(detect(find("ts")), "").compile[0][:2]
    assert (Path(node).name, Path(compiler).name) == ("node", "tsc")
    native = modules / "@typescript" / "typescript-linux-x64" / "lib"
    native.mkdir(parents=True)
    (native / "tsc").write_bytes(b"\x7fELF")
    detect.cache_clear()
    compile_argv = commands(detect(find("ts")), "").compile[0]
    assert compile_argv[0].startswith("/opt/toolchains/typescript-linux-x64-")
    assert compile_argv[1] == "--target"


@pytest.mark.parametrize(
    ("program", "file", "main"),
    [
        ("public class Sum { public static void main(String[] a) {} }", "Sum.java", "Sum"),
        ("class Problem {\n  public static void main(String[] a) {}\n}", "Main.java", "Problem"),
        ("class A {}\npublic final class B {\n  public static void main(String[] a) {}\n}\n", "B.java", "B"),
        ("package a.b;\npublic class C {\n  public static void main(String[] a) {}\n}", "C.java", "a.b.C"),
        ("import java.util.*; public class D { public static void main(String[] a) {} }", "D.java", "D"),
        ("import java.util.*; class K { public static void main(String[] a) {} }", "Main.java", "K"),
        ("class E {\n  static class F {}\n  public static void main(String... a) {}\n}\nclass G {}", "Main.java", "E"),
        ("interface H {}\nclass I {\n}\nclass J {\n  static void main(String[] a) {}\n}", "Main.java", "J"),
    ],
)
def test_the_class_of_a_java_program_names_file_and_start(program: str, file: str, main: str):
    recipe = commands(installed(find("java")), program)
    assert (recipe.file, recipe.run[-1]) == (file, main)


def test_limits_given_by_the_caller_reach_the_runtimes_own():
    recipe = commands(installed(find("node")), "", Limits(memory_mib=2048))
    assert "--max-old-space-size=1024" in recipe.run
    assert recipe.limits.memory_mib == 2048


def test_the_options_of_the_prepared_header_are_those_of_the_compilation():
    """A header compiled with other options is silently not used, which costs 2 s a program."""
    cpp = find("c++")
    assert cpp.prepare is not None
    options = cpp.compile[0][1 : cpp.compile[0].index("-I{prepared}")]
    words = cpp.prepare.commands[0]
    assert words[words.index("{gxx}") + 1 : words.index("-x")] == options


@pytest.mark.parametrize("name", ["C", "Java", "Rust", "C#", "D"])
def test_a_closing_goes_before_the_end_of_main(name: str):
    head = "class A { void main() { work(); return 0; } }" if name in ("Java", "C#") else "main() { work(); }"
    closed = with_closing(find(name), head)
    place = closed.index(find(name).closing)
    assert closed.index("work();") < place < closed.rindex("}") or find(name).ending
    assert re.sub(r"\s", "", closed.replace(find(name).closing, "").replace(find(name).ending, "")).endswith(
        re.sub(r"\s", "", head)
    )


def test_a_program_without_a_place_for_the_closing_is_refused():
    with pytest.raises(ValueError, match="no place"):
        with_closing(find("java"), "class A { }")


HOSTILE = (
    "\n", " ", "\t", "}", "} ", "}\n", ";", "; ", "class a", "\nclass a {", ";class a{", "}class a", "public ",
    "\npublic ",
    "static ", "static\n", "static void ", "final ", "package ", "\npackage a", "return 0;", "return ", "return 0 ",
    "?>", "?> ", "#[test]", "func Test(", "func Test( t *testing.T", "require ", "os.exit(", "\nos.exit( ", "\nobject ",
    "a", "a.", "class a static void main", "record\t", "\x00", "}\n\n", "{", "case ",
)  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_no_program_keeps_the_patterns_busy(piece: str):
    """The patterns are searched in untrusted programs, outside the box: quadratic time would hang everybody."""
    program = piece * (40_000 // len(piece))
    started = time.process_time()
    for toolchain in all_toolchains().values():
        for ending in ("", "x", "}"):
            with contextlib.suppress(ValueError):
                with_closing(toolchain, program + ending)
            commands(installed(toolchain), program + ending)
    assert time.process_time() - started < 5


def test_preparing_twice_makes_it_once_and_leaves_it_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two processes at the same time: one makes it, the other goes on without."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    log = tmp_path / "log"
    argv = ("sh", "-c", f"echo made >> {log}; sleep 0.5; cat input > {{prepared}}/output")
    preparation = Preparation((argv, ("false",)), {"input": "text"})
    folder = folder_for("sh", preparation, {"sh": ("/bin/sh",)})
    assert folder is not None
    assert folder.is_relative_to(tmp_path)
    code = (
        "import sys; from pathlib import Path; from codeweft.sandbox.preparing import Preparation, make\n"
        f"make(Preparation(({argv!r}, ('false',)), {{'input': 'text'}}), Path({str(folder)!r}), {{}}, {{}})"
    )
    both = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    make(preparation, folder, {}, {})
    assert log.read_text() == "made\n"
    made = folder / READY / "output"
    assert made.read_text() == "text"
    assert made.stat().st_mode & 0o777 == 0o644
    assert (folder / READY).stat().st_mode & 0o777 == 0o755
    assert sorted(path.name for path in folder.iterdir()) == ["lock", READY]


def test_a_preparation_that_fails_leaves_nothing(tmp_path: Path):
    (tmp_path / "tmpleft").mkdir()  # by one that was killed
    make(Preparation((("false",),), {}), tmp_path, {}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_a_home_that_cannot_be_written_prepares_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert folder_for("sh", Preparation((), {}), {"sh": ("/bin/sh",)}) is None
