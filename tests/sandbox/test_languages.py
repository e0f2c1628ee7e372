"""Programs of every tested language, and what the sandbox says of them."""

from collections.abc import Iterator

import pytest
from sandbox.opened import Opened, check, opened

from codeweft.base.records import Verdict
from codeweft.sandbox.config import Limits, Program, Ran, Submission
from codeweft.sandbox.toolchains import detect, find

# Each language: a program that prints the sum of two numbers, one that does not compile (or parse), one that ends with
# an error while it runs, one that never ends.
PROGRAMS = {
    "python": (
        "print(sum(map(int, input().split())))",
        "def broken(:",
        "raise SystemExit(3)",
        "while True: pass",
    ),
    "c": (
        '#include <stdio.h>\nint main(void) { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b); return 0; }',
        "int main(void) { return x; }",
        "#include <stdlib.h>\nint main(void) { abort(); }",
        "int main(void) { for (volatile int i = 0;; i++); }",
    ),
    "cpp": (
        "#include <bits/stdc++.h>\nusing namespace std;\nint main() { int a, b; "
        "cin >> a >> b; cout << a + b << endl; }",
        "#include <bits/stdc++.h>\nint main() { return x; }",
        '#include <bits/stdc++.h>\nint main() { throw std::runtime_error("no"); }',
        "int main() { for (volatile int i = 0;; i++); }",
    ),
    "java": (
        "import java.util.Scanner;\npublic class Sum {\n  public static void main(String[] words) {\n"
        "    Scanner in = new Scanner(System.in);\n    System.out.println(in.nextInt() + in.nextInt());\n  }\n}",
        "public class Sum { int x = ; }",
        'class Main { public static void main(String[] words) { throw new RuntimeException("no"); } }',
        "class Main { public static void main(String[] words) { while (true) ; } }",
    ),
    "javascript": (
        "const [a, b] = require('fs').readFileSync(0, 'utf8').split(' ').map(Number);\nconsole.log(a + b);",
        "const = 1;",
        "throw new Error('no');",
        "while (true) ;",
    ),
    "typescript": (
        "import * as fs from 'fs';\nconst [a, b]: number[] = fs.readFileSync(0, 'utf8').split(' ').map(Number);\n"
        "console.log(a + b);",
        "const a: number = 'text';",
        "throw new Error('no');",
        "while (true) ;",
    ),
    "go": (
        'package main\n\nimport "fmt"\n\nfunc main() {\n\tvar a, b int\n\tfmt.Scan(&a, &b)\n\tfmt.Println(a + b)\n}\n',
        "package main\n\nfunc main() {\n\tx := 1\n}\n",
        'package main\n\nfunc main() {\n\tpanic("no")\n}\n',
        "package main\n\nfunc main() {\n\tfor {\n\t}\n}\n",
    ),
    "rust": (
        "fn main() {\n    let mut line = String::new();\n    std::io::stdin().read_line(&mut line).unwrap();\n"
        "    let sum: i64 = line.split_whitespace().map(|word| word.parse::<i64>().unwrap()).sum();\n"
        '    println!("{}", sum);\n}\n',
        'fn main() { let x: i32 = "text"; }',
        'fn main() { panic!("no"); }',
        "fn main() { let mut i = 0u64; loop { i = std::hint::black_box(i.wrapping_add(1)); } }",
    ),
    "csharp": (
        "using System;\nclass Program {\n  static void Main() {\n    var words = Console.ReadLine().Split();\n"
        "    Console.WriteLine(int.Parse(words[0]) + int.Parse(words[1]));\n  }\n}",
        "class Program { static void Main() { int x = ; } }",
        'class Program { static void Main() { throw new System.Exception("no"); } }',
        "class Program { static void Main() { while (true) ; } }",
    ),
    "php": (
        '<?php\n[$a, $b] = explode(" ", fgets(STDIN));\necho $a + $b, "\\n";',
        "<?php\n$x = ;",
        '<?php\nthrow new Exception("no");',
        "<?php\nwhile (true) ;",
    ),
    "ruby": ("puts gets.split.sum(&:to_i)", "def broken(", 'raise "no"', "loop {}"),
    "perl": (
        'my ($a, $b) = split " ", <STDIN>;\nprint $a + $b, "\\n";',
        "my $x = ;",
        'die "no";',
        "1 while 1;",
    ),
    "lua": (
        'local a, b = io.read("n", "n")\nprint(a + b)',
        "local = 1",
        'error("no")',
        "while true do end",
    ),
    "bash": ("read -r a b\necho $((a + b))", "if then", "exit 3", "while :; do :; done"),
    "r": (
        'cat(sum(scan(file("stdin"), quiet = TRUE)), "\\n", sep = "")',
        "x <- <- 1",
        'stop("no")',
        "repeat {}",
    ),
}

# Each language: a function, and assertions about it, for which {body} returns 2, 3 or ends the program.
ASSERTIONS = {
    "python": ("def two():\n    {body}\n", "assert two() == 2\n", ("return 2", "return 3", "raise SystemExit(0)")),
    "c": (
        "#include <stdlib.h>\nint two(void) { {body} }\n",
        "#include <assert.h>\nint main(void) {\n  assert(two() == 2);\n  return 0;\n}\n",
        ("return 2;", "return 3;", "exit(0);"),
    ),
    "cpp": (
        "#include <bits/stdc++.h>\nint two() { {body} }\n",
        "#undef NDEBUG\n#include<assert.h>\nint main(){\n  assert (two()==2);\n\n}\n",
        ("return 2;", "return 3;", "exit(0);"),
    ),
    "java": (
        "import java.util.*;\nclass Problem {\n    public static int two() { {body} }\n",
        "    public static void main(String[] args) {\n    assert(two() == 2);\n    }\n\n}\n",
        ("return 2;", "return 3;", "System.exit(0); return 0;"),
    ),
    "javascript": (
        "const two = () => { {body} };\n",
        "const test = () => { console.assert(two() === 2) }\n\ntest()\n",
        ("return 2", "return 3", "process.exit(0)"),
    ),
    "typescript": (
        "function two(): number { {body} }\n",
        "declare var require: any;\nconst assert = require('node:assert');\n\n\nfunction test() {\n"
        "  let candidate = two;\n  assert.deepEqual(candidate(), 2);\n}\n\ntest();",
        ("return 2;", "return 3;", "process.exit(0); return 0;"),
    ),
    "go": (
        'package two_test\n\nimport (\n\t"os"\n\t"testing"\n)\n\nfunc two() int {\n\t{body}\n}\n\nvar _ = os.Args\n\n',
        'func TestTwo(t *testing.T) {\n\tif two() != 2 {\n\t\tt.Errorf("no")\n\t}\n}\n',
        ("return 2", "return 3", "os.Exit(0)\n\treturn 0"),
    ),
    "rust": (
        "fn two() -> i32 { {body} }\n",
        "fn main() {\n    let candidate = two;\n    assert_eq!(candidate(), 2);\n}\n",
        ("2", "3", "std::process::exit(0)"),
    ),
    "csharp": (
        "using System;\nusing System.Diagnostics;\nclass Problem {\n    public static long Two() { {body} }\n",
        "    public static void Main(string[] args) {\n    Debug.Assert(Two() == (2L));\n    }\n\n}\n",
        ("return 2;", "return 3;", "Environment.Exit(0); return 0;"),
    ),
    "php": (
        "<?php\nfunction two() { {body} }\n",
        'assert(two() === 2);\nif (two() !== 2) { throw new Exception("no"); }\n',
        ("return 2;", "return 3;", "exit(0);"),
    ),
    "ruby": ("def two()\n  {body}\nend\n", 'raise "no" unless two() == 2\n', ("2", "3", "exit(0)")),
    "perl": ("sub two { {body} }\n", "if (two() != 2) { exit 1; }\n", ("return 2;", "return 3;", "exit 0;")),
    "lua": ("local function two()\n  {body}\nend\n", "assert(two() == 2)\n", ("return 2", "return 3", "os.exit(0)")),
    "bash": (
        "two() {\n  {body}\n}\n",
        'candidate() {\n    two "$@"\n}\n\nset -e\n'
        'run_test() {\n    two > /tmp/out\n    [[ $(cat /tmp/out) = "2" ]]\n}\n'
        "\nrun_test\n",
        ("echo 2", "echo 3", "exit 0"),
    ),
    "r": ("two <- function() { {body} }\n", "stopifnot(two() == 2)\n", ("2", "3", "quit(status = 0)")),
}


@pytest.fixture(scope="module")
def box() -> Iterator[Opened]:
    with opened() as sandbox:
        yield sandbox


@pytest.fixture(params=PROGRAMS)
def language(request: pytest.FixtureRequest) -> str:
    """Each tested language whose toolchain is here."""
    installed = detect(find(request.param))
    if installed.missing:
        pytest.skip(f"toolchain: {installed.toolchain.label}")
    return request.param


def ran(box: Opened, language: str, program: str, stdin: bytes = b"", limits: Limits | None = None) -> Ran:
    return box.run(Program(language, program, stdin, limits=limits))


def judged(box: Opened, language: str, body: int) -> Verdict:
    """The verdict of the language's assertions on one of the three bodies."""
    head, tests, bodies = ASSERTIONS[language]
    code = head.replace("{body}", bodies[body])
    submission = Submission(language, code, (check(tests),), entry_point="two", mode="compat")
    return box.do(box.sandbox.judge(submission))


def test_a_program_reads_and_prints(box: Opened, language: str):
    outcome = ran(box, language, PROGRAMS[language][0], b"20 22\n")
    assert (outcome.status, outcome.stdout.strip()) == ("ok", b"42"), (outcome.detail, outcome.stderr, outcome.compiled)
    assert (outcome.compiled is not None) == bool(find(language).compile)


def test_a_program_that_is_no_program_is_told_from_one_that_fails(box: Opened, language: str):
    """Languages that are not compiled beforehand say so by their exit code only, but for Python."""
    outcome = ran(box, language, PROGRAMS[language][1])
    wanted = "compile_error" if find(language).compile or language == "python" else "runtime_error"
    assert outcome.status == wanted
    said = outcome.compiled or outcome
    assert (said.stderr + said.stdout).strip()


@pytest.mark.slow
def test_a_program_that_fails_says_so(box: Opened, language: str):
    outcome = ran(box, language, PROGRAMS[language][2])
    assert outcome.status == "runtime_error", (outcome.detail, outcome.stderr)
    assert outcome.exit_code not in (0, None)


@pytest.mark.slow
def test_a_program_that_never_ends_is_ended(box: Opened, language: str):
    limits = Limits(**{**vars(find(language).limits), "cpu_seconds": 0.7})
    outcome = ran(box, language, PROGRAMS[language][3], limits=limits)
    assert outcome.status == "time_limit", (outcome.detail, outcome.stderr)
    assert outcome.cpu_seconds < 3


def test_assertions_that_hold_pass(box: Opened, language: str):
    verdict = judged(box, language, 0)
    assert (verdict.status, verdict.passed, verdict.total) == ("ok", 1, 1), verdict.detail


@pytest.mark.slow
def test_an_assertion_that_does_not_hold_fails(box: Opened, language: str):
    verdict = judged(box, language, 1)
    assert verdict.status in ("wrong", "runtime_error"), verdict
    assert verdict.passed == 0


def test_leaving_before_the_assertions_is_no_pass(box: Opened, language: str):
    """exit(0) is all it takes in runners that look at the exit code alone."""
    verdict = judged(box, language, 2)
    assert verdict.status in ("incomplete", "wrong", "runtime_error"), verdict
    assert verdict.passed == 0


FRAMEWORKS = {
    "rust": (
        "fn two() -> i32 { {body} }\n#[cfg(test)]\nmod tests {\n  use super::*;\n"
        "  #[test]\n  fn test_two() {\n    assert_eq!(two(), 2);\n  }\n}\n",
        ("2", "3", "std::process::exit(0)"),
    ),
    "ruby": (
        "require 'test/unit'\ndef two()\n  {body}\nend\n"
        "class TestTwo < Test::Unit::TestCase\n  def test_two\n    assert_equal(2, two)\n  end\nend\n",
        ("2", "3", "exit!(0)"),
    ),
    "go": (
        'package main\n\nimport "os"\n\nfunc two() int {\n\t{body}\n}\n\n'
        'func main() {\n\tif two() != 2 {\n\t\tpanic("no")\n\t}\n\tif false {\n\t\tos.Exit(1)\n\t}\n}\n',
        ("return 2", "return 3", "os.Exit(0)\n\treturn 0"),
    ),
}


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_frameworks_own_last_words_do_not_matter(box: Opened, name: str):
    """The other shape of assertions in these languages: run by a harness that prints after them, or in a main."""
    if detect(find(name)).missing:
        pytest.skip(f"toolchain: {name}")
    code, bodies = FRAMEWORKS[name]
    tests = (check(""),)
    submissions = [Submission(name, code.replace("{body}", body), tests, mode="compat") for body in bodies]
    statuses = [box.do(box.sandbox.judge(submission)).status for submission in submissions]
    assert statuses == ["ok", "runtime_error", "incomplete"]


def test_a_language_that_is_not_installed_is_unsupported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    with opened() as sandbox:
        outcome = ran(sandbox, "rust", PROGRAMS["rust"][0])
        assert outcome.status == "unsupported"
        assert "rust" in outcome.detail
        verdict = judged(sandbox, "rust", 0)
        assert (verdict.status, verdict.passed, verdict.total) == ("unsupported", 0, 1)
        assert ran(sandbox, "python", PROGRAMS["python"][0], b"20 22").stdout == b"42\n"
