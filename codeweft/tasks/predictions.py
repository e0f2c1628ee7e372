"""SWE-bench Lite and Defects4J: answers in the form that their own harnesses read; this program gives them no score.

In:  SWE-bench's records; for Defects4J a file of JSON lines, described at `load_defects`.
Out: predictions.jsonl for SWE-bench, a file a fixed method with an index for Defects4J.
Source: DeepSeek-Coder-V2 Table 7 (300 issues by the agent CodeAct v1.3, T = 0.5, top_p = 0.95; 238 bugs of one method).

Unusual: both harnesses need the projects themselves, which are no part of this program. There is no agent here: each
issue is answered once, from its text and from what code the record shows, so that scores are below those of the paper.
"""

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from codeweft.base.errors import InputError
from codeweft.base.records import Problem
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.files import read_records
from codeweft.tasks.programs import block_end
from codeweft.tasks.task import Answer, Ask, Data, Exported, Files, Room, Style, Task

SWE = Data(
    (
        "swe-bench-lite.jsonl", "swe-bench-lite.parquet", "swe-bench-lite/test.jsonl", "swe-bench-lite/test.parquet",
        "SWE-bench_Lite/data/test-00000-of-00001.parquet", "SWE-bench_Lite_oracle/data/test-00000-of-00001.parquet",
    ),
    licence="MIT",
    note="it is the test file of SWE-bench_Lite, or of SWE-bench_Lite_oracle with code in its prompts, at Hugging Face",
)  # fmt: skip
DEFECTS = Data(
    ("defects4j.jsonl", "defects4j/bugs.jsonl"),
    licence="MIT (the harness; each project has its own)",
    note="write it from a checkout of Defects4J; docs/evaluation.md says which fields each line has",
)
ISSUE = """Below is an issue of the repository {repo} at commit {commit}. Solve it.

<issue>
{issue}
</issue>

Answer with one patch in the unified format of `git diff`, paths from the root of the repository, inside a block that \
begins with ```diff. Leave tests as they are."""
SHOWN = """{text}

Put the patch, in the unified format of `git diff`, inside a block that begins with ```diff."""
BUG = """A method of the Java project {project}, in {file}, has a bug. {failure}

```java
{method}
```

Answer with the whole corrected method, from its first line to its last, inside a block that begins with ```java. Keep \
its name and parameters; write nothing else into the block."""
FAILING = "The test {test} fails{message}."
TOKENS = 2048
ISSUE_FIELDS = ("instance_id", "repo", "base_commit", "problem_statement")


FENCED = re.compile(r"^([ \t]*)```[^\n`]*\n(.*?)(?:^\1```[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[str]:
    r"""The contents of fenced blocks, every space in them kept: in a diff, a line of one space is an empty line.

    >>> blocks("1.\n  ```diff\n  -a\n   \n  ```")
    ['-a\n \n']
    """
    found = [(match[1], match[2]) for match in FENCED.finditer(text)]
    return [re.sub(rf"(?m)^{indent}", "", content) if indent else content for indent, content in found]


# --- SWE-bench -----------------------------------------------------------------------------------------------------


def load_issues(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """SWE-bench's records; a field `text` (the official prompt with retrieved code) is asked as it is."""
    for place, record in read_records(files.path(SWE), ISSUE_FIELDS):
        name = record["instance_id"]
        if not all(isinstance(record[key], str) and record[key] for key in ISSUE_FIELDS):
            raise InputError(f"{place}: one of {', '.join(ISSUE_FIELDS)} is no text.", "Fetch the file again.")
        given = {"repo": record["repo"], "commit": record["base_commit"], "issue": record["problem_statement"].strip()}
        shown = str(record.get("text") or "")
        yield Problem(
            name, "swe-bench-lite", family=record["repo"], language="python",
            prompt=SHOWN.format(text=shown.strip()) if shown else ISSUE.format(**given),
            reference=str(record.get("patch") or ""),
        )  # fmt: skip


def ask_issue(problem: Problem, style: Style, room: Room) -> Ask:
    """The issue; code of a prompt that does not fit loses its last lines."""
    prompt = problem.prompt
    inside = re.search(r"<code>\n(.*?)</code>", prompt, re.DOTALL)
    if inside and room.count(prompt) > room.tokens:
        lines = inside[1].split("\n")
        low, high = 0, len(lines)
        while low < high:  # the most lines that fit
            middle = (low + high + 1) // 2
            fits = room.count(_with_lines(prompt, inside, lines[:middle])) <= room.tokens
            low, high = (middle, high) if fits else (low, middle - 1)
        prompt = _with_lines(prompt, inside, lines[:low])
    return Ask(messages=({"role": "user", "content": prompt},), max_tokens=TOKENS)


def _with_lines(prompt: str, inside: re.Match[str], lines: Sequence[str]) -> str:
    return prompt[: inside.start(1)] + "".join(f"{line}\n" for line in lines) + prompt[inside.end(1) :]


def grade_issue(problem: Problem, style: Style, text: str) -> Answer:
    """The patch; an answer without a usable one is exported as an empty one."""
    patch, failure = unified_diff(text)
    return Answer(patch, detail=failure, metrics={"well_formed": float(bool(patch))})


HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@.*")


HEADER = re.compile(
    r"(?:diff --git |index [0-9a-f]+\.\.|--- |\+\+\+ |@@|new file mode |deleted file mode |old mode |new mode |rename |"
    r"similarity index )"
)


def unified_diff(text: str) -> tuple[str, str]:
    """The patch in an answer with the numbers of lines in its hunks made right, or why there is none.

    Taken from <patch> tags, else from the fenced blocks that hold one, else from the text itself.
    """
    text = text.replace("\r\n", "\n")
    tagged = re.findall(r"<patch>\n?(.*?)(?:</patch>|\Z)", text, re.DOTALL)
    sources = [part for tag in tagged for part in (blocks(tag) or [tag])] or blocks(text) or [text]
    holding = [source for source in sources if re.search(r"(?m)^--- \S.*\n\+\+\+ \S", source)]
    if not holding:
        return "", "no unified diff"
    parts = []
    for source in holding:
        patch, failure = _mended(source)
        if failure:
            return "", failure
        parts.append(patch)
    return "".join(parts), ""


def _mended(source: str) -> tuple[str, str]:
    """A patch whose hunks count their own lines; prose around files and hunks is left out."""
    lines, number, out, hunks = source.removesuffix("\n").split("\n"), 0, [], 0
    while number < len(lines):
        line = lines[number]
        if HUNK.fullmatch(line):
            end = number + 1
            while end < len(lines) and _is_body(lines, end):
                end += 1
            body = lines[number + 1 : end]
            after = lines[end] if end < len(lines) else ""
            if body and body[-1] and after and not HEADER.match(after):
                return "", "a hunk with a line that is neither context nor change"
            while body and not body[-1] and not _wants(line, body):
                body.pop()  # an empty line between hunks, or behind the last
            if not any(each[:1] in ("+", "-") for each in body):
                return "", "a hunk that changes nothing"
            body = [each or " " for each in body]
            out += [_counted(line, body), *body]
            hunks, number = hunks + 1, end
        elif line.startswith("@@"):
            return "", "a hunk without line numbers"
        else:
            if HEADER.match(line):
                out.append(line)
            number += 1
    return ("".join(f"{line}\n" for line in out), "") if hunks else ("", "a diff without a hunk")


def _is_body(lines: Sequence[str], number: int) -> bool:
    """Whether a line goes on with a hunk; an empty one does, since models leave out the space of an empty line."""
    line = lines[number]
    header = line.startswith("--- ") and number + 1 < len(lines) and lines[number + 1].startswith("+++ ")
    return not header and (not line or line[0] in " +-\\")


def _wants(header: str, body: Sequence[str]) -> bool:
    """Whether the header counts as many lines of the old file; without them git takes the hunk for the file's end."""
    said = HUNK.fullmatch(header)
    assert said is not None
    return sum(line[:1] in ("", " ", "-") for line in body) <= int(said[1] or 1)


def _counted(header: str, body: Sequence[str]) -> str:
    old, new = (sum(line[0] in signs for line in body) for signs in (" -", " +"))
    return re.sub(r"@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@", rf"@@ -\1,{old} +\2,{new} @@", header, count=1)


def export_issues(samples: Sequence[Exported]) -> dict[str, str]:
    """predictions.jsonl as SWE-bench's harness reads it; further samples of an issue in files of their own.

    summary.json counts predictions, and those that are empty because the answer held no patch.
    """
    files: dict[str, list[str]] = {}
    for number, sample in _numbered(samples):
        line = {
            "instance_id": sample.problem.id, "model_name_or_path": sample.model, "model_patch": sample.extracted
        }  # fmt: skip
        name = "predictions.jsonl" if number == 0 else f"predictions-{number + 1}.jsonl"
        files.setdefault(name, []).append(json.dumps(line, ensure_ascii=False) + "\n")
    return {**{name: "".join(lines) for name, lines in files.items()}, "summary.json": _summary(samples)}


def _numbered(samples: Sequence[Exported]) -> Iterator[tuple[int, Exported]]:
    """Each sample with its number among those of its problem."""
    seen: dict[str, int] = {}
    for sample in samples:
        number = seen.get(sample.problem.id, 0)
        seen[sample.problem.id] = number + 1
        yield number, sample


def _summary(samples: Sequence[Exported]) -> str:
    empty = sum(not sample.extracted for sample in samples)
    found = {"predictions": len(samples), "empty": empty, "model": samples[0].model if samples else ""}
    return json.dumps(found, indent=1) + "\n"


# --- Defects4J -----------------------------------------------------------------------------------------------------


def load_defects(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """One bug a line: `project` (Chart), `bug_id` (1), `file` (path from the project's root), `method` (its text).

    Optional: `start_line` and `end_line` of the method in that file; `failing_test` (Class::method) and
    `failing_message` (the first line of what it says).
    """
    for place, record in read_records(files.path(DEFECTS), ("project", "bug_id", "file", "method")):
        method = record["method"]
        if not isinstance(method, str) or not method_name(method):
            raise InputError(f"{place}: the method is no Java method.", "Mend that line.")
        message = record.get("failing_message") or ""
        failure = ""
        if record.get("failing_test"):
            failure = FAILING.format(test=record["failing_test"], message=f" with: {message}" if message else "")
        given = {"project": record["project"], "file": record["file"], "method": method.strip("\n")}
        facts = {key: record.get(key) for key in ("project", "bug_id", "file", "start_line", "end_line", "method")}
        yield Problem(
            f"{record['project']}-{record['bug_id']}", "defects4j", str(record["project"]), "java",
            prompt=BUG.format(**given, failure=failure), entry_point=method_name(method), facts=facts,
        )  # fmt: skip


def method_name(method: str) -> str:
    """The name of the method or constructor that some Java text defines, or nothing.

    >>> method_name('@Override(x = "a(b)")\\npublic static <T> List<T> all(T... each) throws E {')
    'all'
    """
    # annotations with their arguments, comments and strings may hold parentheses as well
    bare = re.sub(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"", "", method, flags=re.DOTALL)
    bare = re.sub(r"@\w[\w.]*(?:\s*\([^()]*\))?", "", bare)
    found = re.search(r"(\w+)\s*\(", bare)
    return found[1] if found else ""


def ask_bug(problem: Problem, style: Style, room: Room) -> Ask:
    """Chat: what fails, and the method. Base: the buggy method as a comment says, then where the fixed one goes."""
    if style == "chat":
        return Ask(messages=({"role": "user", "content": problem.prompt},), max_tokens=TOKENS)
    method = problem.facts["method"].strip("\n")
    return Ask(f"// Buggy method\n{method}\n\n// Fixed method\n", stop=("\n// ",), max_tokens=TOKENS)


def grade_bug(problem: Problem, style: Style, text: str) -> Answer:
    """The fixed method: the first one of the buggy one's name in a block (base: in the text)."""
    text = text.replace("\r\n", "\n")
    parts = [text] if style == "base" else blocks(text) or [text]
    name, detail = problem.entry_point, "no method of that name"
    for block in parts:
        for found in re.finditer(DEFINED.replace("NAME", re.escape(name)), block):
            brace = found.end() - 1
            if block_end("java", block + "\n}", brace) > len(block):  # it takes a brace of ours to close it
                detail = "a method without an end"
                continue
            method = block[_beginning(block, found.start(1)) : block_end("java", block, brace)]
            return Answer(method.strip("\n") + "\n", metrics={"well_formed": 1.0})
    return Answer("", detail=detail, metrics={"well_formed": 0.0})


# a definition, but no call before a brace: if (NAME(x)) {, return NAME(new X() {
DEFINED = r"(?:\A\s*|[\w>\]](?<!\breturn)(?<!\bnew)(?<!\belse)\s+)(NAME)\s*\([^;{}]*\)[^;{}()]*\{"


def _beginning(block: str, place: int) -> int:
    """Where the method that is named at a place begins: behind the member, or the class line, before it."""
    bare = re.sub(r"/\*.*?\*/|//[^\n]*", lambda m: re.sub(r"[^\n]", " ", m[0]), block[:place], flags=re.DOTALL)
    ends = [match.end() for match in re.finditer(r"[;{}][ \t]*(?:\n|$)", bare)]
    return ends[-1] if ends else 0


def export_bugs(samples: Sequence[Exported]) -> dict[str, str]:
    """methods/PROJECT-ID.java, the fixed method alone, and index.json that says where each belongs.

    A bug whose answer held no method has an empty file; summary.json counts them.
    """
    files: dict[str, str] = {}
    index: list[dict[str, Any]] = []
    for number, sample in _numbered(samples):
        name = f"methods/{sample.problem.id}{f'.{number + 1}' if number else ''}.java"
        files[name] = sample.extracted
        facts = {key: sample.problem.facts[key] for key in ("project", "bug_id", "file", "start_line", "end_line")}
        index.append({**facts, "sample": number, "method": name, "empty": not sample.extracted})
    return {**files, "index.json": json.dumps(index, indent=1) + "\n", "summary.json": _summary(samples)}


UNSCORED = "Exported for the official harness, not scored here."
TASKS = (
    Task(
        "swe-bench-lite", "SWE-bench Lite", "code repair", ("chat",), (SWE,),
        "300 issues, one answer each without an agent (the paper's figures are an agent's, CodeAct v1.3 at temperature "
        f"0.5): the issue, with retrieved code where the file has it, is answered by a unified diff. {UNSCORED}",
        load_issues, ask_issue, grade_issue, "score", columns=("swe-bench-lite",), export=export_issues,
    ),
    Task(
        "defects4j", "Defects4J", "code repair", ("chat", "base"), (DEFECTS,),
        "The paper's 238 bugs of one method, as far as the file given has them: the buggy method and its failing test, "
        f"one whole fixed method. {UNSCORED}",
        load_defects, ask_bug, grade_bug, "score", columns=("defects4j",), export=export_bugs,
    ),
)  # fmt: skip
