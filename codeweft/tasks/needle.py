"""A needle in a haystack: a number said once somewhere in a long text, and asked for at its end.

In:  a text of any kind, lengths and depths.  Out: one problem a cell of the grid; graded by whether the number is said.
Source: DeepSeek-Coder-V2 Fig. 2 (depths 0 to 100 % in steps of 10, lengths to 128K). Unusual: the paper states neither
its needle, its text nor its grader, so these are ours.

A cell's prompt has between 99 and 100 % of its length in tokens, as the model's own tokenizer counts them. A length
that the model has no room for becomes an `Ask` without a text, which the evaluation counts as not fitting the model.
"""

import pydoc_data.topics
import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from weakref import WeakKeyDictionary

from codeweft.base.artifacts import digest_bytes
from codeweft.base.errors import InputError
from codeweft.base.progress import say
from codeweft.base.records import Problem
from codeweft.base.seeds import generator
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.task import Answer, Ask, Files, Room, Style, Task

Count = Callable[[str], int]
LONG_LINE = 500  # characters that a needle may be off its depth for the sake of a line's end
SUFFIXES = (".txt", ".md", ".rst")  # files of a folder that are text to hide it in
SLACK = 0.01  # of a length, by which a prompt may be shorter
TRIES = 40  # cuts until a prompt has its length
NEEDLE = "The secret number of the weaver is {number}."
INTRODUCTION = "The text below says in one place what the secret number of the weaver is.\n\n"
QUESTION = "\n\nQuestion: What is the secret number of the weaver?\nAnswer: The secret number of the weaver is"
CHAT_QUESTION = "\n\nWhat is the secret number of the weaver? Answer with the number alone."

# characters of text that made a prompt of some tokens, by tokenizer: the first guess for the next depth
guesses: WeakKeyDictionary[Count, dict[tuple[str, int], int]] = WeakKeyDictionary()


# --- text ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def haystack(place: str) -> str:
    """The text of a file or of a folder's text files; of Python's help topics where no place is named."""
    if not place:
        topics = pydoc_data.topics.topics
        return "\n\n".join(topics[name].strip() for name in sorted(topics)) + "\n\n"
    path = Path(place)
    if path.is_dir():
        paths = sorted(each for each in path.rglob("*") if each.suffix in SUFFIXES)
    else:
        paths = [path]
    try:
        text = "\n\n".join(each.read_text(encoding="utf-8").strip() for each in paths).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{place} cannot be read as text: {error}.", "Name a text file, or a folder of some."
        ) from error
    if not text:
        raise InputError(f"{place} holds no text.", f"Name a text file, or a folder of {', '.join(SUFFIXES)} files.")
    return text + "\n\n"


def hidden(text: str, needle: str, depth: int) -> str:
    r"""A text with a needle as a line of its own, at the last line's end before `depth` per cent of it.

    In a line that is long for this text, the needle stands between two of its words.

    >>> hidden("one\ntwo\nthree\n", "here", 60)
    'one\ntwo\nhere\nthree\n'
    """
    wanted = place = round(len(text) * depth / 100)
    if depth < 100:
        place = text.rfind("\n", 0, wanted) + 1
    if wanted - place > LONG_LINE:
        place = max(text.rfind(" ", place, wanted) + 1, place)
    before, after = text[:place], text[place:]
    return f"{before}{'' if not before or before.endswith(chr(10)) else chr(10)}{needle}\n{after}"


# --- problems ------------------------------------------------------------------------------------------------------


def load(files: Files, options: TaskOptions) -> Iterator[Problem]:
    """One problem a length and a depth, its number drawn from the seed."""
    place = str(options.text or "")
    text = haystack(place)
    digest = digest_bytes(text.encode())
    steps = max(options.depths - 1, 1)
    for length in options.lengths:
        for depth in dict.fromkeys(round(100 * step / steps) for step in range(options.depths)):
            random = generator(options.seed, "needle", length, depth)
            number = str(random.integers(1_000_000, 10_000_000))
            while number in text:
                number = str(random.integers(1_000_000, 10_000_000))
            yield Problem(
                f"{length}/{depth}", "needle", str(length), difficulty=str(depth),
                prompt=NEEDLE.format(number=number), reference=number,
                facts={"length": length, "depth": depth, "place": place, "text": digest},
            )  # fmt: skip


def ask(problem: Problem, style: Style, room: Room) -> Ask:
    """The text with its needle, and the question; nothing where the room is too short for this length."""
    length, depth = problem.facts["length"], problem.facts["depth"]
    most, least = min(length, room.tokens), round(length * (1 - SLACK))
    if most < least:
        return Ask()
    text = haystack(problem.facts["place"])
    question = CHAT_QUESTION if style == "chat" else QUESTION
    kept = _guesses(room.count)
    key = (f"{problem.facts['text']} {style}", most)

    def prompt(size: int) -> str:
        cut = (text * (size // len(text) + 1))[:size]
        return INTRODUCTION + hidden(cut, problem.prompt, depth) + question

    if key not in kept and room.count(prompt(len(text))) < least:
        say(f"needle: the text to hide it in is repeated to make {length:,} tokens.")
    size = fitting_size(prompt, least, most, room.count, kept.get(key, 4 * length))
    if size is None:
        return Ask()
    kept[key] = size
    if style == "chat":
        return Ask(messages=({"role": "user", "content": prompt(size)},), max_tokens=128)
    return Ask(prompt(size), stop_line=True, max_tokens=32)


def _guesses(count: Count) -> dict[tuple[str, int], int]:
    try:
        return guesses.setdefault(count, {})
    except TypeError:  # it cannot be referred to weakly; each depth is then cut from the beginning
        return {}


def fitting_size(build: Callable[[int], str], least: int, most: int, count: Count, guess: int) -> int | None:
    """A size for which `build(size)` has between `least` and `most` tokens; None where none is found.

    Tokens are taken to grow about evenly with the size, so the next size lies where the line through what is known
    crosses the middle; where that leaves the bounds already found, halfway between them.
    """
    aim, low, high, size = (least + most) / 2, 0, None, max(guess, 1)
    for _ in range(TRIES):
        tokens = count(build(size))
        if least <= tokens <= most:
            return size
        if tokens < least:
            low = max(low, size)
        else:
            high = size if high is None else min(high, size)
        wanted = round(size + (aim - tokens) * max(size, 1) / max(tokens, 1))
        if high is not None and not low < wanted < high:
            wanted = (low + high) // 2
        elif high is None and wanted <= low:
            wanted = 2 * low + 1
        if wanted == size or (high is not None and high - low < 2):
            return None
        size = wanted
    return None


def grade(problem: Problem, style: Style, text: str) -> Answer:
    """Right where the number is said, with or without commas; of a base model only the first line counts.

    >>> problem = Problem("1024/0", "needle", reference="1234567")
    >>> grade(problem, "chat", "It is 1,234,567.").score, grade(problem, "base", "12345678").score
    (1.0, 0.0)
    """
    said = text.strip().split("\n")[0] if style == "base" else text
    numbers = re.findall(r"\d+", re.sub(r"(?<=\d),(?=\d{3})", "", said))
    found = problem.reference in numbers
    return Answer(problem.reference if found else " ".join(numbers)[:80], float(found))


TASKS = (
    Task(
        name="needle",
        title="Needle in a haystack",
        group="long context",
        styles=("base", "chat"),
        data=(),
        protocol=(
            "A sentence with a random number of seven digits stands at a depth of 0 to 100 % in a text that is cut so"
            " that the prompt has 99 to 100 % of its nominal length in tokens, and repeated where it is too short;"
            " right where the answer says the number. Lengths beyond the model's are left out. Needle, text and"
            " question are this program's own: the paper states none."
        ),
        load=load,
        ask=ask,
        grade=grade,
        metric="accuracy",
    ),
)
