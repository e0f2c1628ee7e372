"""Generate mathematical text: word problems with worked answers, in families, the same for the same seed.

In:  a family's name, a sheet's number, a seed.  Out: a text of several problems, each with its solution in steps.

Unusual: this stands in for the web mathematics of DeepSeek-Coder-V2 §2 where there is none; it has that share's form
(questions, steps, equations), not its breadth. Every number in a solution is computed, never typed.
"""

import math
from collections.abc import Callable
from fractions import Fraction
from random import Random

from codeweft.base.seeds import derive

VERSION = 1  # raised when a family's text changes
SHEETS = 80
PROBLEMS = 7  # on a sheet
TYPICAL_BYTES = 1400

NAMES = (
    "Amira", "Boris", "Chen", "Dalia", "Emeka", "Farid", "Greta", "Hana", "Ivo", "Jia", "Kofi", "Lena", "Mateo",
    "Nadia", "Omar", "Priya", "Rosa", "Sven", "Tara", "Umi", "Viktor", "Wanda", "Yusuf", "Zoe",
)  # fmt: skip
GOODS = (
    "apples", "pencils", "stickers", "marbles", "coins", "shells", "cards", "buttons", "ribbons", "tickets", "stamps",
    "beads", "bottles", "books",
)  # fmt: skip
PLACES = ("the market", "school", "the library", "a fair", "the harbour", "a garden", "the workshop", "the station")
Problem = tuple[str, str]


def _two(chance: Random) -> tuple[str, str]:
    first, second = chance.sample(NAMES, 2)
    return first, second


def _steps(chance: Random, *lines: str) -> str:
    opening = chance.choice(("Solution.", "Answer:", "Worked answer.", "We go step by step.", "Let us see."))
    return opening + " " + " ".join(lines)


def sums(chance: Random) -> Problem:
    """Gain and loss of things."""
    a, b = _two(chance)
    have, get, give, things = (
        chance.randint(12, 400),
        chance.randint(5, 250),
        chance.randint(3, 11),
        chance.choice(GOODS),
    )
    place = chance.choice(PLACES)
    question = chance.choice(
        (
            f"{a} has {have} {things} and finds {get} more at {place}. Then {a} gives {give} of them to {b}. "
            f"How many {things} does {a} have now?",
            f"At {place}, {a} starts with {have} {things}, receives {get} from {b}, and loses {give} on the way home. "
            f"How many are left?",
            f"There were {have} {things} in a box. {a} put in another {get}, and {b} took out {give}. "
            f"Find the number of {things} in the box.",
        )
    )
    total = have + get
    return question, _steps(chance, f"First {have} + {get} = {total}.", f"Then {total} - {give} = {total - give}.")


def shopping(chance: Random) -> Problem:
    """Prices, quantities, change."""
    a, _ = _two(chance)
    items = chance.sample(GOODS, 2)
    n, m, p, q = (chance.randint(2, 19) for _ in range(4))
    bill = n * p + m * q
    paid = -(-bill // 50) * 50
    question = (
        f"{a} buys {n} {items[0]} at {p} crowns each and {m} {items[1]} at {q} crowns each, "
        + chance.choice((f"and pays with {paid} crowns.", f"handing over {paid} crowns at the till."))
        + chance.choice((" How much change is due?", f" What does {a} get back?"))
    )
    return question, _steps(
        chance,
        f"The {items[0]} cost {n} * {p} = {n * p}.",
        f"The {items[1]} cost {m} * {q} = {m * q}.",
        f"Together {n * p} + {m * q} = {bill}, so the change is {paid} - {bill} = {paid - bill} crowns.",
    )


def speed(chance: Random) -> Problem:
    """Distance, time and speed."""
    a, _ = _two(chance)
    v, t, vehicle = chance.randint(9, 120), chance.randint(2, 12), chance.choice(("train", "bus", "cyclist", "boat"))
    d = v * t
    ask = chance.randrange(3)
    if ask == 0:
        return (
            f"A {vehicle} travels at {v} km/h for {t} hours. How far does it go?",
            _steps(chance, f"Distance is speed times time: {v} * {t} = {d} km."),
        )
    if ask == 1:
        return (
            f"{a} watches a {vehicle} cover {d} km in {t} hours. What is its average speed?",
            _steps(chance, f"Speed is distance over time: {d} / {t} = {v} km/h."),
        )
    return (
        f"How long does a {vehicle} need for {d} km at a steady {v} km/h?",
        _steps(chance, f"Time is distance over speed: {d} / {v} = {t} hours."),
    )


def meeting(chance: Random) -> Problem:
    """Two who travel towards each other."""
    a, b = _two(chance)
    u, v, t = chance.randint(3, 60), chance.randint(3, 60), chance.randint(2, 9)
    question = (
        f"{a} and {b} start {(u + v) * t} km apart and "
        + chance.choice(("move towards each other", "head for one another along a straight road"))
        + f", {a} at {u} km/h and {b} at {v} km/h. After how many hours do they meet, and how far has {a} gone?"
    )
    return question, _steps(
        chance,
        f"The gap closes at {u} + {v} = {u + v} km/h.",
        f"They meet after {(u + v) * t} / {u + v} = {t} hours.",
        f"{a} has gone {u} * {t} = {u * t} km.",
    )


def percent(chance: Random) -> Problem:
    """Discounts and rises."""
    a, _ = _two(chance)
    base, rate, down = 20 * chance.randint(3, 90), 5 * chance.randint(1, 15), chance.random() < 0.5
    part = Fraction(base * rate, 100)
    result = base - part if down else base + part
    thing = chance.choice(("coat", "lamp", "bicycle", "rent", "subscription", "ticket"))
    verb = chance.choice(("is reduced by", "falls by")) if down else chance.choice(("is raised by", "goes up by"))
    question = f"The price of {a}'s {thing} is {base} and {verb} {rate} percent. What is the new price?"
    sign = "-" if down else "+"
    return question, _steps(
        chance,
        f"{rate} percent of {base} is {base} * {rate} / 100 = {_plain(part)}.",
        f"The new price is {base} {sign} {_plain(part)} = {_plain(result)}.",
    )


def _plain(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):g}"


def fractions(chance: Random) -> Problem:
    """Adding and multiplying fractions."""
    x = Fraction(chance.randint(1, 11), chance.randint(2, 12))
    y = Fraction(chance.randint(1, 11), chance.randint(2, 12))
    common = math.lcm(x.denominator, y.denominator)
    if chance.random() < 0.5:
        p, q = x.numerator * common // x.denominator, y.numerator * common // y.denominator
        return (
            chance.choice((f"Compute {x} + {y}.", f"Add the fractions {x} and {y} and reduce the result.")),
            _steps(
                chance,
                f"The common denominator of {x.denominator} and {y.denominator} is {common}.",
                f"So {x} + {y} = {p}/{common} + {q}/{common} = {p + q}/{common} = {x + y}.",
            ),
        )
    top, bottom = x.numerator * y.numerator, x.denominator * y.denominator
    return (
        chance.choice((f"What is {x} times {y}?", f"Multiply {x} by {y}; give the answer in lowest terms.")),
        _steps(chance, f"Multiply tops and bottoms: {top}/{bottom}, which reduces to {x * y}."),
    )


def linear(chance: Random) -> Problem:
    """One equation, one unknown."""
    a, x, b, letter = chance.randint(2, 19), chance.randint(-20, 20), chance.randint(1, 60), chance.choice("xyztn")
    c = a * x + b
    return (
        chance.choice((f"Solve {a}{letter} + {b} = {c}.", f"Find {letter} such that {a}{letter} + {b} equals {c}.")),
        _steps(chance, f"Subtract {b}: {a}{letter} = {c - b}.", f"Divide by {a}: {letter} = {x}."),
    )


def systems(chance: Random) -> Problem:
    """Two unknowns by substitution."""
    x, y = chance.randint(1, 30), chance.randint(1, 30)
    a, b = _two(chance)
    return (
        f"The ages of {a} and {b} add up to {x + y}, and {a} is {abs(x - y)} years "
        f"{'older' if x >= y else 'younger'} than {b}. How old are they?",
        _steps(
            chance,
            f"Let p and q be their ages. Then p + q = {x + y} and p - q = {x - y}.",
            f"Adding both, 2p = {2 * x}, so p = {x}.",
            f"Hence q = {x + y} - {x} = {y}.",
        ),
    )


def quadratics(chance: Random) -> Problem:
    """Roots by factoring, checked by Vieta."""
    r, s = chance.randint(-12, 12), chance.randint(-12, 12)
    b, c = -(r + s), r * s
    equation = f"x^2 {'+' if b >= 0 else '-'} {abs(b)}x {'+' if c >= 0 else '-'} {abs(c)} = 0"
    return (
        chance.choice((f"Solve {equation}.", f"Find both roots of {equation}.")),
        _steps(
            chance,
            f"We look for two numbers with sum {r + s} and product {c}: they are {r} and {s}.",
            f"So (x - ({r}))(x - ({s})) = 0 and x = {min(r, s)} or x = {max(r, s)}.",
        ),
    )


def areas(chance: Random) -> Problem:
    """Rectangles and their borders."""
    a, _ = _two(chance)
    w, h, thing = chance.randint(2, 60), chance.randint(2, 60), chance.choice(("garden", "field", "floor", "poster"))
    return (
        f"{a}'s {thing} is a rectangle {w} m wide and {h} m long. "
        + chance.choice(("Find its area and perimeter.", "What are its area and the length of its border?")),
        _steps(
            chance,
            f"The area is {w} * {h} = {w * h} square metres.",
            f"The perimeter is 2 * ({w} + {h}) = 2 * {w + h} = {2 * (w + h)} m.",
        ),
    )


def triangles(chance: Random) -> Problem:
    """Right triangles with whole sides."""
    m = chance.randint(2, 12)
    n = chance.randint(1, m - 1)
    p, q, r = m * m - n * n, 2 * m * n, m * m + n * n
    if chance.random() < 0.5:
        return (
            f"The legs of a right triangle measure {p} and {q}. How long is the hypotenuse?",
            _steps(chance, f"c^2 = {p}^2 + {q}^2 = {p * p} + {q * q} = {r * r}, so c = {r}."),
        )
    return (
        f"A ladder of length {r} reaches a window {p} above the ground. How far from the wall does it stand?",
        _steps(chance, f"By Pythagoras b^2 = {r}^2 - {p}^2 = {r * r} - {p * p} = {q * q}, so b = {q}."),
    )


def averages(chance: Random) -> Problem:
    """Means and medians."""
    a, _ = _two(chance)
    values = [chance.randint(1, 99) for _ in range(chance.choice((5, 7, 9)))]
    mean, ordered = Fraction(sum(values), len(values)), sorted(values)
    return (
        f"{a} writes down the scores {', '.join(map(str, values))}. Find their mean and median.",
        _steps(
            chance,
            f"The sum is {' + '.join(map(str, values))} = {sum(values)}; the mean is {sum(values)}/{len(values)},",
            f"that is {mean}.",
            f"In order: {', '.join(map(str, ordered))}. The middle one is {ordered[len(ordered) // 2]}.",
        ),
    )


def divisors(chance: Random) -> Problem:
    """The greatest common divisor by Euclid's algorithm."""
    g = chance.randint(2, 40)
    x, y = g * chance.randint(5, 60), g * chance.randint(5, 60)
    high, low, lines = max(x, y), min(x, y), []
    while low:
        lines.append(f"{high} = {high // low} * {low} + {high % low}.")
        high, low = low, high % low
    return (
        chance.choice((f"Find the greatest common divisor of {x} and {y}.", f"What is gcd({x}, {y})?")),
        _steps(chance, *lines, f"The last remainder that is not zero gives gcd = {high}, and lcm = {x * y // high}."),
    )


def remainders(chance: Random) -> Problem:
    """Sharing with a remainder."""
    a, b = _two(chance)
    n, k, things = chance.randint(40, 999), chance.randint(3, 17), chance.choice(GOODS)
    return (
        f"{a} and {b} pack {n} {things} into bags of {k}. How many full bags are there, and how many {things} remain?",
        _steps(chance, f"{n} = {n // k} * {k} + {n % k}, so {n // k} full bags and {n % k} left over."),
    )


def sequences(chance: Random) -> Problem:
    """Arithmetic sequences and their sums."""
    first, step, n = chance.randint(1, 40), chance.randint(2, 15), chance.randint(6, 40)
    last = first + (n - 1) * step
    shown = ", ".join(str(first + i * step) for i in range(4))
    return (
        f"The sequence {shown}, ... continues in the same way. Find its term number {n} and the sum of the first {n}.",
        _steps(
            chance,
            f"The step is {step}, so the term is {first} + {n - 1} * {step} = {last}.",
            f"The sum is {n} * ({first} + {last}) / 2 = {n * (first + last) // 2}.",
        ),
    )


def powers(chance: Random) -> Problem:
    """Doubling and geometric growth."""
    a, _ = _two(chance)
    start, ratio, n = chance.randint(2, 30), chance.randint(2, 4), chance.randint(3, 7)
    kind = {2: "doubles", 3: "triples", 4: "grows fourfold"}[ratio]
    return (
        f"A colony that {a} observes has {start} cells and {kind} every hour. How many are there after {n} hours?",
        _steps(
            chance,
            f"After n hours there are {start} * {ratio}^n cells.",
            f"Here {ratio}^{n} = {ratio**n}, and {start} * {ratio**n} = {start * ratio**n}.",
        ),
    )


def chances(chance: Random) -> Problem:
    """Drawing from a bag."""
    a, _ = _two(chance)
    red, blue = chance.randint(2, 15), chance.randint(2, 15)
    n = red + blue
    return (
        f"A bag holds {red} red and {blue} blue marbles. {a} draws two without putting any back. "
        f"What is the probability that both are red?",
        _steps(
            chance,
            f"The first is red with probability {red}/{n}, the second then with {red - 1}/{n - 1}.",
            f"The product is {Fraction(red, n) * Fraction(red - 1, n - 1)}.",
        ),
    )


def combinations(chance: Random) -> Problem:
    """Choosing a committee."""
    n = chance.randint(5, 14)
    k = chance.randint(2, 4)
    group = chance.choice(("club", "class", "team", "choir"))
    return (
        f"In how many ways can a {group} of {n} people choose {k} of its members to travel to {chance.choice(PLACES)}?",
        _steps(
            chance,
            f"The order does not matter, so we count C({n}, {k}).",
            f"That is {' * '.join(str(n - i) for i in range(k))} / {math.factorial(k)} = {math.comb(n, k)}.",
        ),
    )


def derivatives(chance: Random) -> Problem:
    """Slopes of polynomials."""
    a, b, c, x = chance.randint(1, 9), chance.randint(1, 12), chance.randint(0, 20), chance.randint(-5, 6)
    return (
        f"Let f(x) = {a}x^3 + {b}x^2 + {c}. Find f'(x) and the slope of f at x = {x}.",
        _steps(
            chance,
            f"Term by term, f'(x) = {3 * a}x^2 + {2 * b}x.",
            f"At x = {x}: {3 * a} * {x * x} + {2 * b} * ({x}) = {3 * a * x * x + 2 * b * x}.",
        ),
    )


def mixtures(chance: Random) -> Problem:
    """Mixing two solutions."""
    a, _ = _two(chance)
    u, v = 5 * chance.randint(1, 9), 5 * chance.randint(10, 18)
    p, q = chance.randint(1, 12), chance.randint(1, 12)
    strength = Fraction(u * p + v * q, p + q)
    return (
        f"{a} mixes {p} litres of a {u}% solution with {q} litres of a {v}% solution. How strong is the mixture?",
        _steps(
            chance,
            f"It holds {p} * {u} + {q} * {v} = {u * p + v * q} hundredths of a litre of substance.",
            f"In {p + q} litres that makes {u * p + v * q}/{p + q} = {strength} percent.",
        ),
    )


FAMILIES: dict[str, Callable[[Random], Problem]] = {
    make.__name__: make
    for make in (
        sums, shopping, speed, meeting, percent, fractions, linear, systems, quadratics, areas, triangles, averages,
        divisors, remainders, sequences, powers, chances, combinations, derivatives, mixtures,
    )
}  # fmt: skip


def worksheet(family: str, number: int, seed: int) -> str:
    """The text of one sheet.

    >>> worksheet("linear", 0, 1) == worksheet("linear", 0, 1) != worksheet("linear", 0, 2)
    True
    """
    chance = Random(derive(seed, "worksheet", family, number))
    layout = chance.choice(("{n}. {q}\n{a}", "Problem {n}. {q}\n\n{a}", "Exercise {n}\n{q}\n{a}", "({n}) {q}\n    {a}"))
    problems = [FAMILIES[family](chance) for _ in range(PROBLEMS)]
    return "\n\n".join(layout.format(n=n, q=q, a=a) for n, (q, a) in enumerate(problems, 1)) + "\n"
