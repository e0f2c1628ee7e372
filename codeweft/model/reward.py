"""Reward models: the same decoder with one score for a whole text in place of scores over the vocabulary.

In:  a language model, or a folder naming `DeepseekV2ForSequenceClassification`.  Out: a score a text; such a folder.
Source: DeepSeek-V2 §4.2 (reward models begin as the SFT model); the layout is that of Hugging Face transformers, which
loads the folder and gives the same scores. The papers say nothing of the head.

Unusual: transformers reads the score at the last token that is not padding, and the published padding token is the end
token. The end token of an answer is then never looked at: a finished and a cut-off answer of one text score alike.
Another `padding` (a token that no conversation holds) lets the model see it.

Shapes: B texts, T tokens, D model.
"""

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from codeweft.base.errors import ModelError, UserError
from codeweft.model.attention import Linear
from codeweft.model.config import CAUSAL_LM, ModelConfig
from codeweft.model.folder import CONFIG, MAX_SHARD_BYTES, copy_file, load_model, write_text, write_weights
from codeweft.model.quantize import quantized_parts
from codeweft.model.transformer import Transformer

SEQUENCE_CLASSIFICATION = "DeepseekV2ForSequenceClassification"


class RewardModel(Transformer):
    """A Transformer whose head has one output, `score`; its logits [B, T, 1] are what it thinks of the text so far."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        del self.lm_head
        self.score = Linear(config.hidden_size, 1)

    @property
    def padding(self) -> int:
        """The token that texts are filled up with, on the right."""
        assert self.config.pad_token_id is not None, "a reward model knows its padding"
        return self.config.pad_token_id

    def head(self, hidden_BTD: Tensor) -> Tensor:
        """Scores of hidden states after the final norm; any leading shape."""
        return self.score(hidden_BTD)

    def scores(self, tokens_BT: Tensor) -> Tensor:
        """The score of each text, float32 [B], taken at its last token that is not padding."""
        hidden_BTD = self(tokens_BT, return_hidden=True).hidden_BTD
        return self.scores_at_the_end(hidden_BTD, tokens_BT)

    def scores_at_the_end(self, hidden_BTD: Tensor, tokens_BT: Tensor) -> Tensor:
        """The same from hidden states that a forward pass gave already."""
        rows_B = torch.arange(len(tokens_BT), device=tokens_BT.device)
        return self.head(hidden_BTD[rows_B, last_kept(tokens_BT, self.padding)]).squeeze(-1).float()


def last_kept(tokens_BT: Tensor, padding: int) -> Tensor:
    """The place of each row's last token that is not padding, [B]; 0 where all are.

    >>> last_kept(torch.tensor([[5, 9, 6, 9, 9], [9, 9, 9, 9, 9]]), padding=9).tolist()
    [2, 0]
    """
    place_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
    return torch.where(tokens_BT != padding, place_T, 0).amax(1)


@torch.no_grad()
def reward_model_of(
    model: Transformer, generator: torch.Generator | None, std: float | None = None, padding: int | None = None
) -> RewardModel:
    """A reward model that takes over the decoder of a language model, which shares it from then on.

    The head is drawn from N(0, std²), by default with the config's `initializer_range`, as transformers does; with
    `std` 0 every text scores 0 at first. `padding` is by default the config's, else its end token.
    """
    if any(quantized_parts(model)):
        raise UserError("A quantised model cannot become a reward model.", "Use the folder that it was made of.")
    config = model.config
    end = config.eos_token_id[0] if isinstance(config.eos_token_id, tuple) else config.eos_token_id
    chosen = next((each for each in (padding, config.pad_token_id, end) if each is not None), None)
    if chosen is None or not 0 <= chosen < config.vocab_size:
        raise ModelError(
            f"No padding token: {chosen}.", "Set pad_token_id in config.json to a token of the vocabulary."
        )
    with torch.device("meta"):
        reward = RewardModel(replace(config, pad_token_id=chosen))
    reward.model = model.model
    like = model.model.embed_tokens.weight
    reward.score.weight = torch.nn.Parameter(torch.empty(1, config.hidden_size, dtype=like.dtype, device=like.device))
    reward.score.weight.normal_(0.0, config.initializer_range if std is None else std, generator=generator)
    return reward.train(model.training)


def save_reward_folder(
    model: RewardModel,
    folder: Path | str,
    *,
    stage: str = "reward",
    dtype: torch.dtype = torch.bfloat16,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    extra_files: Iterable[Path | str] = (),
) -> dict[str, str]:
    """Write a reward-model folder; returns digests by name. `extra_files` (the tokenizer's) are copied."""
    folder = Path(folder)
    config = replace(model.config, torch_dtype=str(dtype).removeprefix("torch."), stage=stage)
    labels = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    content = config.to_json() | {"architectures": [SEQUENCE_CLASSIFICATION], **labels}
    digests = {path.name: copy_file(path, folder / path.name) for path in map(Path, extra_files)}
    digests |= write_weights(model, folder, dtype, max_shard_bytes)
    digests["README.md"] = write_text(folder / "README.md", _card(config))
    digests[CONFIG] = write_text(folder / CONFIG, json.dumps(content, indent=2) + "\n")
    return digests


def load_reward_folder(
    folder: Path | str, dtype: torch.dtype | None = torch.bfloat16, device: torch.device | str = "cpu"
) -> RewardModel:
    """Load a reward-model folder in evaluation mode; `dtype` None keeps the type that config.json names.

    Raises ModelError as `load_folder` does, and for a folder of a language model or of several scores.
    """
    folder = Path(folder)
    return load_model(folder, read_reward_config(folder), dtype, device, RewardModel)


def read_reward_config(folder: Path | str) -> ModelConfig:
    """The configuration of a reward-model folder; ModelError says what it is instead."""
    path = Path(folder) / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(f"{path} is missing.", "Name a folder that holds a reward model.") from error
    except ValueError as error:
        raise ModelError(f"{path} is not JSON.", "Fetch it again.") from error
    names = content.get("architectures") if isinstance(content, dict) else None
    if names != [SEQUENCE_CLASSIFICATION]:
        found = "a language model" if names == [CAUSAL_LM] else "another architecture"
        raise ModelError(f"{folder} holds {found}.", f"A reward model's config.json names {SEQUENCE_CLASSIFICATION}.")
    if len(content.get("id2label") or ()) != 1:
        raise ModelError(f"{path}: it does not give one score.", "A reward model has one entry in id2label.")
    try:
        config = ModelConfig.from_json(content | {"architectures": [CAUSAL_LM]})
    except ModelError as error:
        raise ModelError(f"{folder}: {error.message}", error.next_step) from error
    if config.pad_token_id is None:
        raise ModelError(f"{path} has no pad_token_id.", "Without it nobody knows where a text ends; add it.")
    return config


def _card(config: ModelConfig) -> str:
    return (
        "---\nlibrary_name: transformers\npipeline_tag: text-classification\ntags:\n- code\n- codeweft\n---\n\n"
        "# A reward model made with codeweft\n\n"
        f"It reads a conversation of at most {config.max_position_embeddings} tokens and gives one score, larger for "
        "answers that pass more\ntests. The score is taken at the last token that is not "
        f"padding (token {config.pad_token_id}), so texts are filled up on the right.\n"
    )
