"""The final answer in a solution, and whether two answers are the same in value.

In:  generated text, a reference.  Out: the answer's text; yes or no.
Source: the package math-verify decides what is equal; DeepSeek-Coder-V2 §4.5 for where the answer stands (\\boxed).

Unusual: an answer can be made so that a computer algebra system never comes back from it. Comparisons run in a process
of their own that is ended, and replaced, when it takes too long; such an answer is wrong.
"""

import logging
import multiprocessing
import re
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing.connection import Connection
from typing import Any

from codeweft.base.errors import UserError

SECONDS = 5.0  # for one comparison
STARTING = 60.0  # for the process that compares, on a busy machine
LONGEST = 400  # characters of an answer; a longer one is no answer
SAID = re.compile(
    r"(?:final answer is|answer is|answer\s*[:=]|答案是|答案为|答案[:：]|####)\s*:?\s*\$*\s*(?P<answer>.+)",
    re.IGNORECASE,
)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:\s*/\s*-?\d[\d,]*)?|-?\.\d+")


def final_answer(text: str) -> str:
    r"""The last boxed expression, else what is said to be the answer, else the last number, else nothing.

    >>> final_answer(r"so $x = \boxed{\frac{1}{2}}$."), final_answer("The answer is $18.00 per day.")
    ('\\frac{1}{2}', '18.00')
    """
    box = last_boxed(text)
    if box is not None:
        return box.strip()
    said = list(SAID.finditer(text.replace("**", "")))  # answers in bold type
    if said:
        return _of_sentence(said[-1]["answer"])
    numbers = NUMBER.findall(text)
    return numbers[-1].strip() if numbers else ""


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}` whose braces close, nested ones included.

    >>> last_boxed(r"\boxed{1} and \boxed{\{1, 2\}}")
    '\\{1, 2\\}'
    """
    for start in reversed([match.end() for match in re.finditer(r"\\f?boxed\s*\{", text)]):
        depth, place = 1, start
        while place < len(text) and depth:
            if text[place] == "\\":
                place += 2
                continue
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            place += 1
        if depth == 0:
            return text[start : place - 1]
    return None


def _of_sentence(words: str) -> str:
    """The answer at the beginning of the rest of a sentence: a formula between dollars, a number, else the words."""
    words = words.split("\n")[0].strip()
    formula = re.match(r"([^$]*)\$", words)
    if formula and re.search(r"[\d\\]", formula[1]):
        return formula[1].strip()
    number = re.match(rf"(?:[^\w\s-]*)({NUMBER.pattern})", words)
    if number and not re.match(r"\s*[\\^*+=(x]", words[number.end() :]):
        return number[1].strip()
    return words.rstrip(". 。")


def number_in(answer: str) -> Fraction | None:
    r"""The value of a plain number, with thousands separators, a currency sign or a percent sign if need be.

    >>> number_in("$1,234.50"), number_in("3/4"), number_in("x + 1")
    (Fraction(2469, 2), Fraction(3, 4), None)
    """
    plain = re.sub(r"\\[,!;]|\\?\$|\s|(?<=\d),(?=\d{3}(?!\d))", "", answer).rstrip(".")
    if not re.fullmatch(r"[-+]?(\d+(\.\d*)?|\.\d+)(/-?\d+)?", plain):
        return None
    above, _, below = plain.partition("/")
    if below and int(below) == 0:
        return None
    return Fraction(above) / int(below or 1)


def vote(answer: str) -> str:
    r"""What equal answers have in common, as far as it can be had without algebra: values of numbers, bare formulas.

    >>> vote("0.50") == vote("1/2"), vote(r"\dfrac{1}{3}") == vote(r"$\frac{1}{3}$")
    (True, True)
    """
    number = number_in(answer)
    if number is not None:
        return str(number)
    bare = re.sub(r"\\(left|right|displaystyle|,|;|!|quad)|\$|\s", "", answer)
    return re.sub(r"\\[dt]frac", r"\\frac", re.sub(r"\\(text|mathrm|textbf)\{([^{}]*)\}", r"\2", bare)).rstrip(".")


@dataclass
class _Comparer:
    """The process that compares, and our end of the pipe to it."""

    process: Any = None
    pipe: Connection | None = None

    def same(self, answer: str, reference: str) -> bool:
        """Whether math-verify says so in time."""
        pipe = self._started()
        pipe.send((reference, answer))
        if pipe.poll(SECONDS):
            try:
                return bool(pipe.recv())
            except EOFError:  # it ran out of memory or of stack
                self.end()
                return False
        self.end()
        return False

    def _started(self) -> Connection:
        if self.pipe is None or not self.process.is_alive():
            self.end()
            spawning = multiprocessing.get_context("spawn")
            self.pipe, theirs = spawning.Pipe()
            self.process = spawning.Process(target=_compare_forever, args=(theirs,), daemon=True)
            self.process.start()
            theirs.close()
            ready = self.pipe.recv() if self.pipe.poll(STARTING) else "It did not start in time."
            if ready is not True:
                self.end()
                told = "Install math-verify: pip install 'codeweft[eval]'."
                raise UserError(f"Answers cannot be compared: {ready}", told)
        return self.pipe

    def end(self) -> None:
        """End the process, whatever it does."""
        if self.process is not None:
            self.process.kill()
            self.process.join()
        if self.pipe is not None:
            self.pipe.close()
        self.process = self.pipe = None


COMPARER = _Comparer()


def same_answer(answer: str, reference: str) -> bool:
    r"""Whether an answer has the value of the reference. Not for several threads at once.

    >>> same_answer("18", "18.0"), same_answer("17", "18"), same_answer("", "18")
    (True, False, False)
    """
    if not answer.strip() or len(answer) > LONGEST:
        return False
    if answer.strip() == reference.strip() or vote(answer) == vote(reference):
        return True
    if number_in(answer) is not None and number_in(reference) is not None:
        return False
    return COMPARER.same(answer, reference)


def _compare_forever(pipe: Connection) -> None:
    """Compare whatever comes, until nobody is left to ask."""
    try:
        from math_verify import parse, verify
    except ImportError as error:
        pipe.send(str(error))
        return
    logging.disable(logging.WARNING)  # that timeouts are off: whoever asks has one
    pipe.send(True)
    while True:
        try:
            reference, answer = pipe.recv()
        except EOFError:
            return
        expected = parse(f"${reference}$", parsing_timeout=0)
        found = parse(f"${answer}$", parsing_timeout=0)
        pipe.send(bool(expected and found and verify(expected, found, timeout_seconds=0)))
