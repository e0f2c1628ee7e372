"""Reward models against transformers' DeepseekV2ForSequenceClassification, and what a wrong folder says."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from codeweft.base.artifacts import digest_file
from codeweft.base.errors import ModelError, UserError
from codeweft.model.folder import load_folder, save_folder
from codeweft.model.quantize import Quantization
from codeweft.model.reward import (
    RewardModel,
    last_kept,
    load_reward_folder,
    reward_model_of,
    save_reward_folder,
)

PADDING, END = 96, 1
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "compressed_queries": {"q_lora_rank": 12},
    "tied_head": {"tie_word_embeddings": True},
    "padded_with_the_end": {"pad_token_id": END},
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def texts() -> torch.Tensor:
    """Rows of 12, 7 and 1 tokens, the first two with an end token, filled up with padding."""
    tokens = torch.randint(2, PADDING, (3, 12), generator=generator(5))
    tokens[0, 11] = tokens[1, 6] = END
    tokens[1, 7:] = tokens[2, 1:] = PADDING
    return tokens


@pytest.fixture
def reward(small: Callable, random_model: Callable) -> RewardModel:
    return reward_model_of(random_model(small(fim_rate=0.5)), generator(), std=0.2, padding=PADDING)


@pytest.fixture
def saved(reward: RewardModel, tmp_path: Path) -> Path:
    save_reward_folder(reward, tmp_path / "reward", dtype=torch.float32)
    return tmp_path / "reward"


@pytest.mark.parametrize("case", CASES)
def test_transformers_loads_our_folder_and_gives_the_same_scores(
    case: str, small: Callable, random_model: Callable, tmp_path: Path
):
    config = small(**CASES[case])
    ours = reward_model_of(random_model(config), generator(), padding=None if config.pad_token_id else PADDING, std=0.2)
    save_reward_folder(ours, tmp_path, dtype=torch.float32)
    theirs, report = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True, attn_implementation="eager"
    )
    assert type(theirs).__name__ == "DeepseekV2ForSequenceClassification"
    assert not any(report[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = torch.where(texts() == PADDING, ours.padding, texts())
    with torch.no_grad():
        expected = theirs.eval()(tokens).logits
        got = ours.scores(tokens)
        again = load_reward_folder(tmp_path, dtype=None).scores(tokens)
    assert expected.shape == (3, 1)
    assert expected.std() > 0.1  # scores that say nothing would agree too
    torch.testing.assert_close(got, expected[:, 0], atol=1e-5, rtol=0)
    assert torch.equal(again, got)


def test_what_fills_a_text_up_and_what_stands_beside_it_changes_no_score(reward: RewardModel):
    tokens = texts()
    with torch.no_grad():
        together = reward.scores(tokens)
        alone = torch.cat([reward.scores(row[None, :length]) for row, length in zip(tokens, (12, 7, 1), strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_the_end_token_is_seen_unless_it_is_the_padding(reward: RewardModel, small: Callable, random_model: Callable):
    finished = torch.tensor([[5, 6, 7, END]])
    blind = reward_model_of(random_model(small()), generator(), std=0.2)
    assert (reward.padding, blind.padding) == (PADDING, END)
    assert reward_model_of(random_model(small(pad_token_id=7)), generator()).padding == 7
    assert reward_model_of(random_model(small(pad_token_id=7)), generator(), padding=8).padding == 8
    with torch.no_grad():
        assert abs(reward.scores(finished) - reward.scores(finished[:, :3])) > 0.01
        torch.testing.assert_close(blind.scores(finished), blind.scores(finished[:, :3]))


def test_the_last_token_is_found_although_padding_stands_between():
    assert last_kept(torch.tensor([[9, 1, 9, 2, 9], [9, 9, 1, 2, 3]]), 9).tolist() == [3, 4]


def test_scores_are_those_of_the_last_places_logits(reward: RewardModel):
    with torch.no_grad():
        logits = reward(texts()).logits_BTW
        assert logits.shape == (3, 12, 1)
        torch.testing.assert_close(reward.scores(texts()), logits[[0, 1, 2], [11, 6, 0], 0])


def test_a_head_of_zeros_scores_zero_and_a_drawn_one_follows_the_seed(small: Callable, random_model: Callable):
    zero = reward_model_of(random_model(small()), None, std=0.0)
    assert not zero.scores(texts()).any()
    one, two, three = (reward_model_of(random_model(small()), generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.score.weight, two.score.weight)
    assert not torch.equal(one.score.weight, three.score.weight)
    assert 0.01 < one.score.weight.std().item() < 0.03  # initializer_range 0.02, 32 draws


def test_the_decoder_is_the_language_models_and_learns(small: Callable, random_model: Callable, torch_alone: None):
    language = random_model(small())
    reward = reward_model_of(language, generator())
    assert reward.model is language.model
    assert not hasattr(reward, "lm_head")
    reward.train().scores(texts()).sum().backward()
    assert all(parameter.grad is not None for parameter in (reward.score.weight, language.model.embed_tokens.weight))


def test_a_folder_is_byte_identical_after_load_and_save_and_its_digests_are_right(saved: Path, tmp_path: Path):
    digests = save_reward_folder(load_reward_folder(saved, dtype=None), tmp_path / "again", dtype=torch.float32)
    names = sorted(path.name for path in saved.iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    for name in names:
        assert (saved / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name
        assert digests[name] == digest_file(saved / name)
    tensors = load_file(saved / "model.safetensors")
    assert tensors["score.weight"].shape == (1, 32)
    assert "lm_head.weight" not in tensors
    save_reward_folder(load_reward_folder(saved, dtype=None), tmp_path / "half")
    assert load_reward_folder(tmp_path / "half", dtype=None).score.weight.dtype == torch.bfloat16
    config = json.loads((saved / "config.json").read_text())
    assert config["architectures"] == ["DeepseekV2ForSequenceClassification"]
    assert config["codeweft"] == {"fim_rate": 0.5, "stage": "reward"}


def test_a_reward_model_is_made_of_a_folder_written_in_shards(small: Callable, random_model: Callable, tmp_path: Path):
    save_folder(random_model(small()), tmp_path / "sft", stage="sft", max_shard_bytes=20_000)
    reward = reward_model_of(load_folder(tmp_path / "sft", trainable=True), generator())
    save_reward_folder(reward, tmp_path / "reward", max_shard_bytes=20_000)
    loaded = load_reward_folder(tmp_path / "reward")
    for name, parameter in reward.named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter.bfloat16()), name


def test_each_loader_refuses_the_other_kind_of_folder(saved: Path, small: Callable, random_model: Callable):
    with pytest.raises(ModelError, match="DeepseekV2ForSequenceClassification"):
        load_folder(saved)
    save_folder(random_model(small()), saved)
    with pytest.raises(ModelError, match="holds a language model"):
        load_reward_folder(saved)


def test_a_quantised_model_is_refused(small: Callable, random_model: Callable):
    from codeweft.model.quantized_folder import structure

    with pytest.raises(UserError, match="quantised"):
        reward_model_of(structure(small(), Quantization(bits=8)), generator())


def test_a_model_without_any_token_to_pad_with_is_refused(small: Callable, random_model: Callable):
    with pytest.raises(ModelError, match="padding"):
        reward_model_of(random_model(small(eos_token_id=None)), generator())
    with pytest.raises(ModelError, match="padding"):
        reward_model_of(random_model(small()), generator(), padding=97)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"architectures": ["LlamaForSequenceClassification"]}, "another architecture"),
        ({"id2label": {"0": "A", "1": "B"}}, "one score"),
        ({"id2label": None}, "one score"),
        ({"pad_token_id": None}, "pad_token_id"),
        ({"kv_lora_rank": None}, "kv_lora_rank"),
        ({"hidden_size": 48}, "has shape"),
    ],
)
def test_a_wrong_configuration_says_what_is_wrong(saved: Path, change: dict[str, Any], words: str):
    content = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(content | change))
    with pytest.raises(ModelError, match=words):
        load_reward_folder(saved)


@pytest.mark.parametrize("text", ["{", "[]", "\udcff"])
def test_a_damaged_configuration_is_a_models_error(saved: Path, text: str):
    (saved / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ModelError):
        load_reward_folder(saved)
    (saved / "config.json").unlink()
    with pytest.raises(ModelError, match="missing"):
        load_reward_folder(saved)


def test_a_folder_without_its_head_is_refused(saved: Path):
    tensors = load_file(saved / "model.safetensors")
    del tensors["score.weight"]
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(ModelError, match=r"score\.weight is missing"):
        load_reward_folder(saved)
