"""The n-gram baseline against the formula written out with dictionaries, and against the laws of probability."""

import math
from collections import Counter, defaultdict

import numpy as np
import pytest

from codeweft.evaluate import baselines
from codeweft.evaluate.baselines import KneserNey, discounts

BEGIN = 0


def documents(random: np.random.Generator, count: int, vocabulary: int) -> list[list[int]]:
    """Documents with a Zipf-like vocabulary and repetitions, the last token standing for the end."""
    made = []
    for _ in range(count):
        words = np.minimum(random.zipf(1.4, random.integers(0, 12)), vocabulary - 2).tolist()
        made.append([BEGIN, *words, *words[: random.integers(0, 4)], vocabulary - 1])
    return made


class Slow:
    """Chen & Goodman's interpolated modified Kneser-Ney, read off the page: tuples and dictionaries."""

    def __init__(self, texts: list[list[int]], vocabulary: int, order: int) -> None:
        self.vocabulary, self.order = vocabulary, order
        raw = {n: Counter(t for x in texts for t in zip(*(x[i:] for i in range(n)), strict=False)) for n in
               range(1, order + 1)}  # fmt: skip
        before = defaultdict(set)
        for n in range(2, order + 1):
            for gram in raw[n]:
                before[gram[1:]].add(gram[0])
        self.count = {}
        for n in range(1, order + 1):
            self.count[n] = {
                gram: times if n == order or gram[0] == BEGIN else len(before[gram]) for gram, times in raw[n].items()
            }
        self.count[1].pop((BEGIN,), None)
        self.discount = {}
        for n in range(1, order + 1):
            of = Counter(self.count[n].values())
            self.discount[n] = (0.5, 1.0, 1.5)
            if all(of[k] for k in (1, 2, 3, 4)):
                y = of[1] / (of[1] + 2 * of[2])
                three = (1 - 2 * y * of[2] / of[1], 2 - 3 * y * of[3] / of[2], 3 - 4 * y * of[4] / of[3])
                if all(0 <= d <= k for d, k in zip(three, (1, 2, 3), strict=True)):
                    self.discount[n] = three
        self.follow = {n: defaultdict(dict) for n in self.count}
        for n, table in self.count.items():
            for gram, times in table.items():
                self.follow[n][gram[:-1]][gram[-1]] = times

    def probability(self, word: int, context: tuple[int, ...]) -> float:
        n = len(context) + 1
        lower = 1 / self.vocabulary if n == 1 else self.probability(word, context[1:])
        seen = self.follow[n].get(context)
        if not seen:
            return lower
        total, times = sum(seen.values()), seen.get(word, 0)
        taken = sum(self.discount[n][min(c, 3) - 1] for c in seen.values())
        own = times - self.discount[n][min(times, 3) - 1] if times else 0.0
        return own / total + taken / total * lower

    def log2(self, text: list[int]) -> list[float]:
        return [
            math.log2(self.probability(text[i], tuple(text[max(0, i - self.order + 1) : i])))
            for i in range(1, len(text))
        ]


@pytest.mark.parametrize(
    ("order", "vocabulary", "size"), [(5, 12, 200), (5, 40, 60), (3, 6, 8), (2, 9, 30), (1, 9, 30)]
)
def test_every_probability_equals_that_of_the_dictionary_formula(order: int, vocabulary: int, size: int):
    random = np.random.default_rng(order * 100 + size)
    seen, unseen = documents(random, size, vocabulary), documents(random, 30, vocabulary)
    stream = np.array([token for text in seen for token in text], dtype=np.uint16)
    fast = KneserNey.fit(np.array_split(stream, 3), vocabulary, BEGIN, order)
    slow = Slow(seen, vocabulary, order)
    for text in unseen + seen[:10]:
        np.testing.assert_allclose(fast.log2_probability(np.array(text))[1:], slow.log2(text), rtol=1e-5, atol=1e-6)


def test_counting_in_small_parts_gives_the_same_model(monkeypatch: pytest.MonkeyPatch):
    random = np.random.default_rng(5)
    stream = np.array([token for text in documents(random, 100, 30) for token in text])
    whole = KneserNey.fit([stream], 30, BEGIN)
    monkeypatch.setattr(baselines, "PART", 50)
    parts = KneserNey.fit([stream], 30, BEGIN)
    for one, other in zip(whole.levels, parts.levels, strict=True):
        assert (one.key_U == other.key_U).all()
        assert (one.share_U == other.share_U).all()
        assert (one.backoff_P == other.backoff_P).all()


def test_probabilities_over_the_vocabulary_sum_to_one_after_any_context():
    random = np.random.default_rng(11)
    vocabulary = 25
    seen = documents(random, 300, vocabulary)
    model = KneserNey.fit([np.array([token for text in seen for token in text])], vocabulary, BEGIN)
    slow = Slow(seen, vocabulary, 5)
    for _ in range(50):
        context = [BEGIN, *random.integers(1, vocabulary - 1, random.integers(0, 7)).tolist()]
        others = [2 ** model.log2_probability(np.array([*context, word]))[-1] for word in range(1, vocabulary)]
        # `begin` opens a document wherever it stands, so only the slow model can be asked for its small share
        assert sum(others) + slow.probability(BEGIN, tuple(context[-4:])) == pytest.approx(1, abs=1e-6)


def test_several_documents_in_a_row_score_as_each_alone():
    random = np.random.default_rng(2)
    texts = documents(random, 40, 15)
    model = KneserNey.fit([np.array([token for text in texts for token in text])], 15, BEGIN)
    alone = np.concatenate([model.log2_probability(np.array(text)) for text in texts[:5]])
    together = model.log2_probability(np.array([token for text in texts[:5] for token in text]))
    np.testing.assert_array_equal(alone, together)


def test_a_repeated_text_becomes_cheap_and_a_strange_one_stays_dear():
    random = np.random.default_rng(7)
    text = [BEGIN, *random.integers(1, 199, 60).tolist(), 199]
    noise = [BEGIN, *random.integers(1, 199, 60).tolist(), 199]
    model = KneserNey.fit([np.array(text * 20)], 200, BEGIN)
    assert -model.log2_probability(np.array(text)).sum() / 61 < 0.5
    assert -model.log2_probability(np.array(noise)).sum() / 61 > 5


def test_discounts_are_those_of_the_worked_formula():
    """n1 = 40, n2 = 16, n3 = 10, n4 = 5: Y = 40 / 72."""
    counts = np.repeat([1, 2, 3, 4, 9], [40, 16, 10, 5, 3])
    y = 40 / 72
    expected = (1 - 2 * y * 16 / 40, 2 - 3 * y * 10 / 16, 3 - 4 * y * 5 / 10)
    assert discounts(counts) == pytest.approx(expected)
    assert discounts(np.array([1, 1, 2])) == (0.5, 1.0, 1.5)
