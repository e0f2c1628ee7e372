"""Scores of a reward model for answers to prompts.

In:  a reward-model folder, prompts and answers as ids.  Out: a number an answer.
Source: DeepSeek-Coder-V2 §3.5.2 (the reward model's score is the reward).

Unusual: prompt and answer are ids of one tokenizer, that of the policy; a reward model with another one is refused. The
end token is part of the text, and texts are padded with another one.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from codeweft.base.errors import ModelError
from codeweft.model.reward import RewardModel, load_reward_folder
from codeweft.rl.prompts import Prompt
from codeweft.rl.rollout import Drawn
from codeweft.tokenizer.load import Tokenizer, load_tokenizer
from codeweft.tokenizer.special import FIM_HOLE

TOGETHER = 1 << 14  # tokens, padding included, that are scored at once


@dataclass(frozen=True, slots=True)
class Scorer:
    """A reward model that is asked."""

    model: RewardModel

    @staticmethod
    def open(folder: Path, tokenizer: Tokenizer, device: torch.device) -> "Scorer":
        """The reward model of a folder; ModelError where it was made with another tokenizer."""
        if load_tokenizer(folder).digest != tokenizer.digest:
            raise ModelError(
                f"The reward model in {folder} has another tokenizer than {tokenizer.folder}.",
                "Train one from this policy: the stage reward.",
            )
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        return Scorer(load_reward_folder(folder, dtype=dtype, device=device))

    def scores(self, prompts: Sequence[Prompt], answers: Sequence[Drawn]) -> list[float]:
        """The score of each answer to its prompt."""
        texts = [text_of(prompt.tokens, answer.tokens) for prompt, answer in zip(prompts, answers, strict=True)]
        return scores_of(self.model, texts)


def text_of(prompt: Sequence[int], answer: Sequence[int]) -> tuple[int, ...]:
    """What a reward model reads: prompt and answer as they are; one that was cut off has no end token."""
    return (*prompt, *answer)


@torch.no_grad()
def scores_of(model: RewardModel, texts: Sequence[Sequence[int]]) -> list[float]:
    """Scores of texts, those of like length together; ModelError for one that is longer than the model takes."""
    longest, most = max(map(len, texts), default=0), model.config.max_position_embeddings
    if longest > most:
        raise ModelError(
            f"The reward model takes {most:,} tokens, a prompt with its answer has {longest:,}.",
            "Lower max_tokens, or train a reward model from this policy.",
        )
    model.eval()
    device = model.score.weight.device
    found = [0.0] * len(texts)
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    first = 0
    while first < len(order):
        last = first + 1
        while last < len(order) and len(texts[order[last]]) * (last + 1 - first) <= TOGETHER:
            last += 1
        members = order[first:last]
        scores_B = model.scores(padded([texts[number] for number in members], model.padding, device))
        for number, score in zip(members, scores_B.tolist(), strict=True):
            found[number] = score
        first = last
    return found


def padding_of(tokenizer: Tokenizer) -> int | None:
    """A token with which no finished answer ends, to fill texts up with: the infilling hole's, where there is one.

    The score is read at the last token that is not padding. With the published padding, the end token, nobody would
    see whether an answer came to its end.
    """
    return tokenizer.control.get(FIM_HOLE)


def tokenizer_config(tokenizer: Tokenizer) -> str:
    """The text of tokenizer_config.json beside a reward model: it names the padding, for whoever pads by it."""
    named = {} if padding_of(tokenizer) is None else {"pad_token": FIM_HOLE}
    return json.dumps(tokenizer.config | named, ensure_ascii=False, indent=2) + "\n"


def padded(texts: Sequence[Sequence[int]], padding: int, device: torch.device) -> Tensor:
    """Texts as rows of one length, filled up on the right."""
    tokens_BT = torch.full((len(texts), max(map(len, texts))), padding, dtype=torch.int64)
    for row, text in enumerate(texts):
        tokens_BT[row, : len(text)] = torch.tensor(text)
    return tokens_BT.to(device)
