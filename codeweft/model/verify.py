"""Reads a whole model folder and says what of it is sound.

In:  a folder.  Out: findings, a line each: configuration, files, names, shapes, types, values.
Unusual: one tensor is in memory at a time, so that a machine can check what it could not load. Everything that is
wrong is told, not only the first.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from codeweft.base.errors import ModelError, UserError
from codeweft.base.progress import Bar, bar
from codeweft.model.config import ModelConfig
from codeweft.model.folder import DERIVED, TYPES, disk_tensors, empty_model, load_folder, read_config, weight_files
from codeweft.model.quantize import Quantization
from codeweft.model.quantized_folder import structure, tensors_of
from codeweft.model.tensor_file import TensorFile

SHOWN = 8  # wrong tensors of a kind that are named
GREEDY_TOKENS = 24  # that the reference draws too


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at."""

    what: str
    ok: bool
    detail: str


def planned_tensors(config: ModelConfig) -> dict[str, Tensor]:
    """Every tensor that a folder must hold, by name on disk, without its values."""
    how = Quantization.of(config)
    if how is None:
        return dict(disk_tensors(empty_model(config, torch.bfloat16, "meta")))
    return {name: tensor for name, (_, tensor) in tensors_of(structure(config, how)).items()}


def check_folder(folder: Path) -> Iterator[Finding]:
    """Look at everything that needs no tokenizer."""
    try:
        config = read_config(folder)
        planned, how = planned_tensors(config), Quantization.of(config)
        files = [TensorFile(path) for path in weight_files(folder)]
    except ModelError as error:
        yield Finding("configuration and files", False, str(error))
        return
    yield Finding("configuration", True, f"{config.total_parameters:,} parameters in {config.num_hidden_layers} layers")
    here = {name: file for file in files for name in file.places if not name.endswith(DERIVED)}
    if config.tie_word_embeddings:
        here.pop("lm_head.weight", None)
    yield _listed(
        "tensors", [f"{name} is missing" for name in planned if name not in here], f"{len(planned):,} of them"
    )
    unexpected = [f"{name} is unexpected" for name in here if name not in planned]
    yield _listed("no other tensors", unexpected, "")
    common = [name for name in planned if name in here]
    wrong = [reason for name in common if (reason := _mismatch(here[name], name, planned[name], how is not None))]
    yield _listed("shapes and types", wrong, "as config.json makes them")
    total = sum(here[name].places[name].bytes for name in common) / 1e6
    with bar("verify", total, "MB") as shown:
        infinite = [f"{name} is not finite" for name in common if not _finite(here[name], name, shown)]
    yield _listed("values", infinite, "all finite")
    for file in files:
        file.close()


def _listed(what: str, wrong: list[str], right: str) -> Finding:
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return Finding(what, not wrong, ", ".join(wrong[:SHOWN]) + more if wrong else right)


def _mismatch(file: TensorFile, name: str, planned: Tensor, quantised: bool) -> str:
    place = file.places[name]
    if place.shape != tuple(planned.shape):
        return f"{name} has shape {list(place.shape)}, not {list(planned.shape)}"
    if place.dtype != planned.dtype and (quantised or place.dtype not in TYPES.values()):
        return f"{name} is of type {place.dtype}, not {planned.dtype}"
    return ""


def _finite(file: TensorFile, name: str, shown: Bar) -> bool:
    shown.advance(file.places[name].bytes / 1e6)
    return not file.places[name].dtype.is_floating_point or bool(file.read(name).isfinite().all())


@torch.no_grad()
def compare_with_transformers(folder: Path, prompt: list[int]) -> Finding:
    """Draw greedy tokens after a prompt with transformers' own model, in float32, and with ours.

    UserError for a quantised folder, which transformers does not read.
    """
    from transformers import DeepseekV2ForCausalLM

    if Quantization.of(read_config(folder)) is not None:
        raise UserError("transformers does not read quantised folders.", "Compare the folder that it was made of.")
    ours = load_folder(folder, dtype=torch.float32)
    theirs = DeepseekV2ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokens, equal = torch.tensor([prompt]), 0
    for _ in range(GREEDY_TOKENS):
        next_B = theirs(tokens).logits[:, -1].argmax(dim=-1)
        logits_BTW = ours(tokens).logits_BTW
        assert logits_BTW is not None
        equal += int(torch.equal(next_B, logits_BTW[:, -1].argmax(dim=-1)))
        tokens = torch.cat((tokens, next_B[:, None]), dim=-1)
    return Finding("transformers", equal == GREEDY_TOKENS, f"{equal} of {GREEDY_TOKENS} greedy tokens are equal")
