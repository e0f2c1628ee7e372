"""HumanEval in other languages: the prompts and tests of MultiPL-E, asked as the paper asks them.

In:  DeepSeek-Coder's humaneval-LANGUAGE.jsonl.  Out: the task multipl-e, one problem a language and item.
Source: DeepSeek-Coder-V2 Table 3 and its footnote 4; MultiPL-E for how prompt, completion and tests are joined.

Unusual: in half of the languages the tests open with the brace that closes the answer's function, and in Java, C# and
Scala they stand inside the answer's class: a chat answer that is a whole program is taken apart for that. The word that
names the language, in the prompt and behind its fence, is our guess for all but Python.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from codeweft.base.config import nearest
from codeweft.base.errors import ConfigError, InputError
from codeweft.base.records import Problem, Test
from codeweft.sandbox.config import Submission
from codeweft.tasks import programs
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.extraction import until
from codeweft.tasks.files import Record, read_records
from codeweft.tasks.task import Answer, Ask, Data, Files, Room, Style, Task

CHAT = (
    "Please complete the {word} function below. The final complete version of your function must be returned within a "
    "code block. Here is the unfinished function:\n ```{word}\n{prompt}\n\n"
)
URL = (
    "https://raw.githubusercontent.com/deepseek-ai/DeepSeek-Coder/2f9fd85927c669dae3c0fbb2d607274023af243e/"
    "Evaluation/HumanEval/data/humaneval-{tag}.jsonl"
)
BASE_TOKENS, CHAT_TOKENS = 500, 1024  # as DeepSeek-Coder's harness
FIELDS = ("prompt", "tests", "name", "stop_tokens")


@dataclass(frozen=True, slots=True)
class Row:
    """A language: the word of its file, and what sets the joining of prompt, answer and tests apart.

    `closes`: the tests begin with the brace that ends the answer's function. `held`: they go on inside its class.
    `stops`: more strings that end a continuation than the file has.
    """

    tag: str
    sha256: str
    closes: bool = False
    held: bool = False
    stops: tuple[str, ...] = ()


# those of the paper's table in its order, then the others that there is a file for
ROWS = {
    "python": Row(
        "python", "0eae07adadbb00d51962fdb78b9e2a26bfa8ade85dc54eb57cae9bffed2f5c54",
        stops=("\ndef", "\nclass", "\nif", "\n#", "\nprint"),
    ),
    "java": Row("java", "b21b015763452ec4f9f4e0e6425148ec331ace4da1232c8b4d441186185f6265", closes=True, held=True),
    "cpp": Row("cpp", "8717eabdf202137158c84506144b0fb1e73d5ecccbe5363ec79009ca014df629", closes=True),
    "csharp": Row("cs", "1c3fe18be10addc2d0b96311f4db192ae3232e08628d17768d889d6ab87be224", closes=True, held=True),
    "typescript": Row(
        "ts", "4b1af1050c9f226335d54a8c80553c39454a525cace3e67bdcfcc9092ba02637",
        stops=("\nexport", "\nimport", "\nconsole.log"),
    ),
    "javascript": Row("js", "634e2eee8d6e22de07c121b972207683dd96be76256bf44bdfc1a3386b739287"),
    "php": Row("php", "bebd86875b1d8e65a8b7e692ed7bdf64612b44aa388825ea4dab40c7047c786b"),
    "bash": Row("sh", "2f702106e9ce4aa7385de568d9248d6c57c90382d782b162cb9e072fbd01ccf8", closes=True),
    "swift": Row("swift", "e4418d6f532e4298969e727690cda80dc88b94e4abf836f8ff79ac18a737eaaa", closes=True),
    "r": Row("r", "c2a3268ea54d2bfb8ce65bb2c808437ac0d9934c6caf99fcf75d6b6a4fb3f911"),
    "julia": Row("jl", "ef21bd920889c9c1ab0e87a825cc26bd895e7a715f569f8ba7de577f870b6815"),
    "d": Row("d", "226938c015f90d713a3e30d8f174f4a6d2c88820cf50512379a16890dda70332"),
    "rust": Row("rs", "e33f562838e973b7e6b8d76dbc1fb84b076d7426629b4cdc624f12678778d2fa", closes=True),
    "racket": Row("rkt", "083325daf55daf431ae6d6d17cf017afb18a6ec790d4c841b7c2b4752c5807ff"),
    "go": Row("go", "7f5dfe3ff001049b1221e9d21a8119b5cbc38eb87c97fefc5d57fa7adc1df888"),
    "lua": Row("lua", "d2e91f3603f6aee63db2c2d5754d165397603a8c9bd6130842af7988b27a96fc"),
    "perl": Row("pl", "949048bff3eaea7ae47cd5759042c088a7c227d53c74fe95a80728fd5aefbf77"),
    "ruby": Row("rb", "4204395b835019e32d55513325a0fad01c6d382fd1eb97b516f0458d00058302"),
    "scala": Row("scala", "482b72a16613a563755d642e37792da68471399789b069fba5b1249e831445f3", closes=True, held=True),
}  # fmt: skip
PAPER = tuple(ROWS)[:14]


def data_of(language: str) -> Data:
    """The file of a language."""
    tag = ROWS[language].tag
    return Data(
        (f"multipl-e-humaneval/humaneval-{tag}.jsonl", f"humaneval-{tag}.jsonl"),
        url=URL.format(tag=tag),
        sha256=ROWS[language].sha256,
        licence="BSD-3-Clause with Machine Learning Restriction: never to be trained on",
    )


def chosen(names: tuple[str, ...], known: Mapping[str, str], default: tuple[str, ...]) -> tuple[str, ...]:
    """Languages by their names or other words for them; ConfigError names the nearest of an unknown one.

    >>> chosen(("CS", "java"), {"cs": "csharp", "csharp": "csharp", "java": "java"}, ())
    ('csharp', 'java')
    """
    for name in names:
        if name.lower() not in known:
            raise ConfigError(f"languages: there is no file for {name}.", nearest(name.lower(), known))
    return tuple(dict.fromkeys(known[name.lower()] for name in names)) or default


def load(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """Problems of each language in turn."""
    known = {word: language for language, row in ROWS.items() for word in (row.tag, language)}
    for language in chosen(options.languages, known, PAPER):
        read = _of_python if language == "python" else _of_others
        required = ("task_id", "prompt", "test", "canonical_solution") if language == "python" else FIELDS
        for place, record in read_records(files.path(data_of(language)), required):
            yield read(language, place, record)


def _of_python(language: str, place: str, record: Record) -> Problem:
    called = re.findall(r"(?m)^check\((\w+)\)", record["test"])
    if not called:
        raise InputError(f"{place}: the field test calls no check.", "Mend that line or fetch the file again.")
    number = str(record["task_id"]).rpartition("/")[2]
    reference = record["prompt"] + record["canonical_solution"]
    return _problem(language, f"HumanEval_{number}_{called[-1]}", record, called[-1], record["test"], reference)


def _of_others(language: str, place: str, record: Record) -> Problem:
    entry_point = entry_point_of(language, record["prompt"])
    if not entry_point or entry_point not in record["tests"]:
        raise InputError(f"{place}: the tests call no function of the prompt.", "Fetch the file again.")
    return _problem(language, record["name"], record, entry_point, record["tests"], "")


def _problem(language: str, name: str, record: Record, entry_point: str, tests: str, reference: str) -> Problem:
    return Problem(
        f"{language}/{name}", "multipl-e", language=language, prompt=record["prompt"], entry_point=entry_point,
        tests_hidden=(Test("assert", code=tests),), reference=reference,
        facts={"stop": [*(record.get("stop_tokens") or ()), *ROWS[language].stops]},
    )  # fmt: skip


def entry_point_of(language: str, prompt: str) -> str:
    """The function that a prompt begins; empty where none is found.

    >>> entry_point_of("d", "Tuple!(long, long) even(long n) "), entry_point_of("racket", "(define (f? a b)")
    ('even', 'f?')
    """
    last = prompt.rstrip().split("\n")[-1]
    patterns = {
        "r": (r"([\w.]+)\s*<-", last), "racket": (r"\(define \(([^\s()]+)", last),
        "perl": (r"sub (\w+)", prompt), "ruby": (r"def (\w+)", last),
    }  # fmt: skip
    pattern, text = patterns.get(language, (r"(\w+)\s*\(", last))
    found = re.search(pattern, text)
    return found[1] if found else ""


def ask(problem: Problem, style: Style, room: Room) -> Ask:
    """The question; for base models the prompt without white space at its end, which would split their tokens oddly."""
    if style == "base":
        return Ask(problem.prompt.strip(), stop=tuple(problem.facts["stop"]), max_tokens=BASE_TOKENS)
    content = CHAT.format(word=problem.language, prompt=problem.prompt)
    return Ask(messages=({"role": "user", "content": content},), max_tokens=CHAT_TOKENS)


def grade(problem: Problem, style: Style, text: str) -> Answer:
    """The program of prompt, answer and tests: in `compat` mode, but for Python, whose functions tests can call."""
    if style == "base":
        return _answer(problem, *_continued(problem, text))
    code = programs.answer_code(problem.language, problem.entry_point, text)
    place = programs.defined_at(problem.language, problem.entry_point, code)
    return _answer(problem, *(_whole(problem, code) if place >= 0 else _continued(problem, _body(problem, code))))


def _body(problem: Problem, code: str) -> str:
    """A chat answer that only goes on, on a line of its own."""
    if problem.language == "python" and not re.match(r"\s*\n?[ \t]", code):
        code = re.sub(r"(?m)^(?=.)", "    ", code)
    return "\n" + code.lstrip("\n")


def _continued(problem: Problem, text: str) -> tuple[str, str]:
    """(program, tests) where the answer goes on from the prompt."""
    code = problem.prompt.rstrip() + until(text.replace("\r\n", "\n"), problem.facts["stop"]) + "\n"
    return code, problem.tests_hidden[0].code


def _whole(problem: Problem, code: str) -> tuple[str, str]:
    """(program, tests) where the answer has the whole function."""
    language, tests = problem.language, problem.tests_hidden[0].code
    code = programs.without_unwanted(language, code)
    if ROWS[language].closes:
        tests = re.sub(r"\A\s*\}\n", "", tests)
    if ROWS[language].held:
        return _held(problem, code), tests
    if language == "go":
        given, _ = programs.go_imports(problem.prompt)
        own, body = programs.go_imports(code)
        package = re.findall(r"(?m)^package (\w+)", problem.prompt)
        return programs.go_file(package[0] if package else "main", [*given, *own], body, tests), tests
    if language in ("javascript", "typescript"):
        code = re.sub(r"(?m)^export\s+(?:default\s+)?(?=(?:async\s+)?function\b|const\b|let\b|class\b)", "", code)
        # A block of their own: an answer may have asserted something itself.
        tests = "{\n" + re.sub(r"(?m)^declare var require: any;$", "", tests) + "\n}\n"
    if language == "php":
        code = re.sub(r"\?>\s*\Z", "", re.sub(r"<\?php", "", code, count=1))
    if language == "racket":
        code = re.sub(r"(?m)^#lang\b[^\n]*$", "", code)
    code = programs.with_helpers(language, problem.entry_point, problem.prompt, code)
    return programs.with_headers(language, problem.prompt, code) + "\n", tests


def _held(problem: Problem, code: str) -> str:
    """A class that is still open at the end of its last method; all else stands before it."""
    opened = problem.prompt[: problem.prompt.find("{") + 1]
    if problem.language == "csharp":
        code = re.sub(r"(?m)^[ \t]*namespace\s+[\w.]+\s*;", "", code)
        if space := re.search(r"(?m)^[ \t]*namespace\s+[\w.]+\s*\{", code):
            end = programs.block_end("csharp", code, space.end() - 1)
            code = code[: space.start()] + code[space.end() : end].removesuffix("}") + code[end:]
    place = programs.defined_at(problem.language, problem.entry_point, code)
    held = programs.held_at(problem.language, code, place)
    if held is None:
        return programs.with_headers(problem.language, opened, _below(opened, code)) + "\n"
    code = held.before + held.after + "\n" + held.holder.rstrip().removesuffix("}")
    return programs.with_headers(problem.language, opened, code) + "\n"


def _below(opened: str, code: str) -> str:
    """Methods without a class inside the prompt's; the answer's own imports stay above."""
    top = re.compile(r"[ \t]*(?:import|using)\s[^\n(]*;?\s*$")
    lines = code.split("\n")
    imports = [line for line in lines if top.match(line)]
    rest = [line for line in lines if not top.match(line)]
    return "\n".join([*imports, opened.rstrip().split("\n")[-1], *rest])


def _answer(problem: Problem, code: str, tests: str) -> Answer:
    language = problem.language
    if language == "python":
        setup = problem.prompt  # the tests' own helpers (problems 32, 38, 50)
        code, test = programs.python_program(code), (Test("assert", code=tests),)
        return Answer(code, submission=Submission(language, code, test, problem.entry_point, setup))
    if language == "java":
        code = programs.with_tuples(code, tests)
    if language == "cpp":
        code = programs.with_openssl(code)
    if language == "bash":
        code = f"set +e\n{code}"  # the tests set it themselves, behind the answer
    setup = {"lua": "luaunit.lua", "perl": "Deep.pm"}.get(language, "")
    setup = programs.stand_in(setup) if setup else ""
    submission = Submission(language, code, (Test("assert", code=tests),), "", setup, mode="compat")
    return Answer(code, submission=submission)


TASKS = (
    Task(
        name="multipl-e",
        title="HumanEval in 14 languages (MultiPL-E)",
        group="code generation",
        styles=("chat", "base"),
        data=tuple(map(data_of, ROWS)),
        protocol="0-shot, greedy, one completion; chat: the question of DeepSeek-Coder-V2's footnote 4 with the "
        "language's name, 1,024 tokens; base: the prompt, the file's stop tokens, 500 tokens; mean over languages",
        load=load,
        ask=ask,
        grade=grade,
        average="language",
        columns=("human-eval.python", *(f"multipl-e.{language}" for language in PAPER[1:])),
    ),
)
