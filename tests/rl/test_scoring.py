"""Scores of answers against transformers, and what of an answer the reward model sees."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_model
import torch
from tiny_judge import prompts
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from codeweft.base.errors import ModelError
from codeweft.model.folder import load_folder, write_text
from codeweft.model.reward import load_reward_folder, reward_model_of, save_reward_folder
from codeweft.rl import scoring
from codeweft.rl.rollout import Drawn
from codeweft.rl.scoring import Scorer, padding_of, scores_of, tokenizer_config
from codeweft.tokenizer.load import FILES, Tokenizer, load_tokenizer

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.make_folder(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def tokenizer(policy: Path) -> Tokenizer:
    return load_tokenizer(policy)


@pytest.fixture(scope="module")
def folder(policy: Path, tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model made of the policy, as the stage leaves it."""
    folder = tmp_path_factory.mktemp("reward")
    model = load_folder(policy, dtype=torch.float32)
    made = reward_model_of(model, torch.Generator().manual_seed(1), std=0.3, padding=padding_of(tokenizer))
    save_reward_folder(made, folder, dtype=torch.float32, extra_files=[policy / FILES[0]])
    write_text(folder / FILES[1], tokenizer_config(tokenizer))
    return folder


def texts(tokenizer: Tokenizer) -> list[tuple[int, ...]]:
    """Twelve texts of 3 to 60 tokens, in no order of length; every other one ends with the end token."""
    random = np.random.default_rng(2)
    made = []
    for number in range(12):
        ids = random.integers(10, tokenizer.size - 8, random.integers(3, 60)).tolist()
        made.append((*ids, tokenizer.end) if number % 2 else tuple(ids))
    return made


@pytest.mark.parametrize("together", [1, 200, 1 << 14])
def test_scores_equal_transformers_that_pads_by_the_folders_own_tokenizer(
    together: int, folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(scoring, "TOGETHER", together)
    asked = texts(tokenizer)
    theirs = AutoModelForSequenceClassification.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    padder = AutoTokenizer.from_pretrained(folder)
    batch = padder.pad({"input_ids": [list(text) for text in asked]}, return_tensors="pt", padding_side="right")
    assert batch["input_ids"].shape == (12, max(map(len, asked)))
    with torch.no_grad():
        expected = theirs(**batch).logits[:, 0]
    got = torch.tensor(scores_of(load_reward_folder(folder, dtype=torch.float32), asked))
    assert expected.std() > 0.1
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_an_answer_that_came_to_its_end_and_one_that_was_cut_off_are_told_apart(folder: Path, tokenizer: Tokenizer):
    [prompt] = prompts(tokenizer, 1)
    scorer = Scorer.open(folder, tokenizer, CPU)
    cut = Drawn((20, 30, 40), (), "", "length")
    ended = Drawn((20, 30, 40, tokenizer.end), (), "", "stop")
    one, two, three = scorer.scores([prompt] * 3, [cut, ended, cut])
    assert abs(one - two) > 1e-3
    assert one == pytest.approx(three, abs=1e-6)
    model = load_reward_folder(folder, dtype=torch.float32)
    assert [one, two] == pytest.approx(scores_of(model, [(*prompt.tokens, *each.tokens) for each in (cut, ended)]))


def test_the_padding_is_a_token_that_no_conversation_holds(folder: Path, tokenizer: Tokenizer):
    model = load_reward_folder(folder)
    assert model.padding == tokenizer.fim_hole
    assert json.loads((folder / FILES[1]).read_text("utf-8"))["pad_token"] == "<｜fim▁hole｜>"
    assert model.padding not in tokenizer.encode("<｜fim▁hole｜>")
    assert load_tokenizer(folder).digest == tokenizer.digest
    assert load_tokenizer(folder).chat_template == tokenizer.chat_template


def test_no_text_no_score(folder: Path):
    assert scores_of(load_reward_folder(folder), []) == []


def test_a_text_longer_than_the_model_takes_is_refused(folder: Path):
    with pytest.raises(ModelError, match=f"takes {tiny_model.WINDOW} tokens, a prompt with its answer has 193"):
        scores_of(load_reward_folder(folder), [(20,) * 5, (20,) * (tiny_model.WINDOW + 1)])


def test_a_reward_model_of_another_tokenizer_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(ModelError, match="another tokenizer"):
        Scorer.open(folder, tiny_model.make_tokenizer(tmp_path, vocabulary=400), CPU)
