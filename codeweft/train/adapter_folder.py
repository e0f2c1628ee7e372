"""Adapter folders: LoRA in PEFT's format, which it opens over `transformers`' model, and which are read from it.

In:  a model with adapters, or a folder with `adapter_config.json` and `adapter_model.safetensors`.  Out: the other.
Source: PEFT 0.21 (its LoRA layers for modules and for stacked parameters, and its reading of older adapters).
Unusual: feed-forward matrices are written as `target_parameters` (`gate_proj.weight`), not as modules. PEFT over
transformers 5 takes a module gate_proj, up_proj or down_proj of this architecture for the routed experts alone, and
leaves the dense layers and shared experts out without a word; a parameter's name it takes as it is. The tensors are the
same either way. Older adapters, with tensors for each routed expert as the checkpoints have, are read too.

Shapes: E experts, R rank, I inputs, O outputs.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from codeweft.base.artifacts import write_json
from codeweft.base.errors import ModelError
from codeweft.model.folder import tensors_in
from codeweft.model.tensor_file import Planned, write_tensors
from codeweft.model.transformer import Transformer
from codeweft.train.lora import Adapter, Matrix, adapted, freeze, matrices

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # PEFT's own two wrappers
INNER = ".base_layer"  # where two parameters of one module are adapted, one wrapper stands inside the other
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")
# settings that would make another model of the same tensors; what they must be
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "init_lora_weights": (True, False, None, "gaussian"),  # others change the base model's weights too
    **{name: (False, None) for name in ("use_dora", "use_rslora", "fan_in_fan_out", "lora_bias")},
    **{name: ([], None) for name in ("modules_to_save", "trainable_token_indices", "layer_replication")},
}
SIZES = {"r": "rank_pattern", "lora_alpha": "alpha_pattern"}  # and where exceptions from them stand
OTHER_BASE = "The adapter was made for another base model."
Place = tuple[str, str]  # a matrix's module and its name there


class Difference(NamedTuple):
    """An adapter as the model will hold it: A of [R, I] and B of [O, R], or stacks of them, and its alpha."""

    a: Tensor
    b: Tensor
    alpha: float


def save_adapter(model: Transformer, folder: Path | str, base: Path | str | None = None) -> dict[str, str]:
    """Write the adapters of a model; returns the digest of each file. `base` is recorded as the model they are for."""
    pairs = adapted(model)
    assert pairs, "a model without adapters"
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for matrix, adapter in pairs:
        name = PREFIX + _written_path(matrix, pairs)
        a, b = (each.detach().to("cpu", torch.float32) for each in (adapter.lora_A, adapter.lora_B))
        if a.ndim == 3:  # as PEFT's two projections: experts outside in the one, inside in the other
            a, b = a.flatten(0, 1), b.permute(1, 2, 0).flatten(1)
        tensors |= {f"{name}.lora_A.weight": a.contiguous(), f"{name}.lora_B.weight": b.contiguous()}
    plan = {name: Planned(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    digests = {WEIGHTS: write_tensors(folder / WEIGHTS, plan, tensors.values())}
    digests[CONFIG] = write_json(folder / CONFIG, _settings(model, pairs, base))
    return digests


def load_adapter(model: Transformer, folder: Path | str) -> int:
    """Freeze the model and give it the adapters of a folder, to go on training or to merge; returns their number.

    ModelError where the folder is damaged, is no plain LoRA, or was made for another base model.
    """
    folder = Path(folder)
    settings = _read_settings(folder / CONFIG)
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors_in(folder / WEIGHTS, None):
        match = re.fullmatch(rf"{re.escape(PREFIX)}(.+)\.(lora_[AB])\.weight", name)
        if match is None or tensor.ndim != 2 or not tensor.is_floating_point():
            raise ModelError(f"{folder}: {name} is not part of a plain LoRA.", "Adapters of other kinds are not read.")
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{folder}: {name} holds values that are not finite.", "Use an earlier checkpoint.")
        found.setdefault(match[1], {})[match[2]] = tensor.float()
    if not found:
        raise ModelError(f"{folder / WEIGHTS} holds no adapters.", "Fetch it again.")
    known = {(matrix.path, matrix.parameter): matrix for matrix in matrices(model)}
    differences = _differences(found, settings, known, folder)
    freeze(model)
    for place, difference in differences.items():
        adapter = known[place].attach(difference.a.shape[-2], difference.alpha)
        with torch.no_grad():
            adapter.lora_A.copy_(difference.a)
            adapter.lora_B.copy_(difference.b)
    return len(differences)


def _written_path(matrix: Matrix, pairs: Iterable[tuple[Matrix, Adapter]]) -> str:
    """The module's path as PEFT has it; it wraps stacked gate_up_proj first, then down_proj around it."""
    both = sum(other.owner is matrix.owner for other, _ in pairs) == 2
    return matrix.path + (INNER if both and matrix.parameter == "gate_up_proj" else "")


def _settings(model: Transformer, pairs: list[tuple[Matrix, Adapter]], base: Path | str | None) -> dict[str, Any]:
    """The content of adapter_config.json; names are the short ones where every layer is adapted alike."""
    (rank, alpha), _ = Counter((adapter.rank, adapter.alpha) for _, adapter in pairs).most_common(1)[0]
    every, here = (Counter(each.target for each in group) for group in (matrices(model), [each for each, _ in pairs]))
    modules, parameters, ranks, alphas = set(), set(), {}, {}
    for matrix, adapter in pairs:
        short = every[matrix.target] == here[matrix.target]
        path = matrix.path if matrix.parameter == "weight" else f"{matrix.path}.{matrix.parameter}"
        name = matrix.target if short else path
        if matrix.target in FEED_FORWARD:
            name, path = f"{name}.weight", f"{path}.weight"
        is_module = matrix.parameter == "weight" and matrix.target not in FEED_FORWARD
        (modules if is_module else parameters).add(name)
        if (adapter.rank, adapter.alpha) != (rank, alpha):
            ranks[re.escape(path)], alphas[re.escape(path)] = adapter.rank, _number(adapter.alpha)
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None if base is None else str(base),
        "r": rank,
        "lora_alpha": _number(alpha),
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(modules),
        "target_parameters": sorted(parameters) or None,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "inference_mode": True,
    }


def _number(value: float) -> float:
    """A whole number as one: readers of these files expect it of alpha."""
    return int(value) if value == int(value) else value


def _read_settings(path: Path) -> dict[str, Any]:
    """adapter_config.json, refused where it says more than its tensors do."""
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(f"{path} is missing.", "Name a folder that holds an adapter.") from error
    except ValueError as error:
        raise ModelError(f"{path} is damaged: {error}.", "Fetch it again.") from error
    if not isinstance(settings, dict):
        raise ModelError(f"{path} does not hold an object.", "Fetch it again.")
    for name, accepted in PLAIN.items():
        if settings.get(name, accepted[0] if name != "peft_type" else None) not in accepted:
            raise ModelError(f"{path}: {name} is {settings.get(name)!r}.", "Only plain LoRA is read.")
    for key, patterns in SIZES.items():
        exceptions = settings.get(patterns) or {}
        if not isinstance(exceptions, dict):
            raise ModelError(f"{path}: {patterns} is {exceptions!r}, not a table.", "Fetch it again.")
        for pattern, value in [(None, settings.get(key)), *exceptions.items()]:
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ModelError(f"{path}: {key} is {value!r}.", "It must be a positive number.")
            if key == "r" and value != int(value):
                raise ModelError(f"{path}: {key} is {value!r}.", "It must be a whole number.")
            try:
                re.compile(pattern or "")
            except re.error as error:
                raise ModelError(f"{path}: {patterns} {pattern!r} is none: {error}.", "Fetch it again.") from error
    return settings


def _rank_and_alpha(settings: Mapping[str, Any], *names: str) -> tuple[int, float]:
    """Of a module or parameter that is known by these names, as PEFT looks them up: by the first pattern that fits."""
    values = []
    for key, patterns in SIZES.items():
        named = (settings.get(patterns) or {}).items()
        fits = (value for pattern, value in named if any(re.fullmatch(rf"(.*\.)?({pattern})", name) for name in names))
        values.append(next(fits, settings[key]))
    return int(values[0]), float(values[1])


def _differences(
    found: Mapping[str, Mapping[str, Tensor]], settings: Mapping[str, Any], known: Mapping[Place, Matrix], folder: Path
) -> dict[Place, Difference]:
    """Each adapter by the place of its matrix, with shapes that fit it."""
    differences: dict[Place, Difference] = {}
    single: dict[Place, dict[int, Mapping[str, Tensor]]] = {}
    for path, pair in found.items():
        if pair.keys() != {"lora_A", "lora_B"}:
            raise ModelError(f"{folder}: {path} has {next(iter(pair))} alone.", "Fetch the adapter again.")
        expert = re.fullmatch(r"(.+\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj)", path)
        if expert is not None:
            single.setdefault((expert[1], expert[3]), {})[int(expert[2])] = pair
            continue
        a, b = pair["lora_A"], pair["lora_B"]
        matrix, alpha = _matrix_of(path.removesuffix(INNER), a, b, settings, known, folder)
        if matrix.weight.ndim == 3:
            experts = len(matrix.weight)
            a, b = a.unflatten(0, (experts, -1)), b.unflatten(1, (-1, experts)).permute(2, 0, 1)
        differences[matrix.path, matrix.parameter] = Difference(a, b, alpha)
    for (path, name), pairs in single.items():
        place = path, "down_proj" if name == "down_proj" else "gate_up_proj"
        if place not in known:
            raise ModelError(f"{folder}: this model has no {path} to adapt.", OTHER_BASE)
        part = _stacked(pairs, known[place].weight, name, _rank_and_alpha(settings, f"{path}.0.{name}"), folder)
        differences[place] = _joined(differences[place], part, folder) if place in differences else part
    return differences


def _matrix_of(
    path: str, a: Tensor, b: Tensor, settings: Mapping[str, Any], known: Mapping[Place, Matrix], folder: Path
) -> tuple[Matrix, float]:
    """The matrix that these tensors are for, and its alpha; of a module's two stacked ones the one that they fit."""
    candidates = [matrix for (where, _), matrix in known.items() if where == path]
    if not candidates:
        raise ModelError(f"{folder}: this model has no matrix {path} to adapt.", OTHER_BASE)
    for matrix in candidates:
        *stack, outputs, inputs = matrix.weight.shape
        names = (f"{path}.{matrix.parameter}", *([] if stack else [path]))
        rank, alpha = _rank_and_alpha(settings, *names)
        rows = rank * stack[0] if stack else rank
        if a.shape == (rows, inputs) and b.shape == (outputs, rows):
            return matrix, alpha
    shapes = " or ".join(str(list(matrix.weight.shape)) for matrix in candidates)
    adapter = f"{list(b.shape)} times {list(a.shape)}"
    raise ModelError(f"{folder}: {path} has shape {shapes}, its adapter is {adapter}.", OTHER_BASE)


def _stacked(
    pairs: Mapping[int, Mapping[str, Tensor]], weight: Tensor, name: str, size: tuple[int, float], folder: Path
) -> Difference:
    """Adapters of each expert's own projection as one of the stack; gate and up reach their half of its outputs."""
    rank, alpha = size
    experts, outputs, inputs = weight.shape
    rows = slice(0, outputs)
    if name != "down_proj":
        rows = slice(0, outputs // 2) if name == "gate_proj" else slice(outputs // 2, outputs)
    shapes = {(pair["lora_A"].shape, pair["lora_B"].shape) for pair in pairs.values()}
    if sorted(pairs) != list(range(experts)) or shapes != {((rank, inputs), (rows.stop - rows.start, rank))}:
        raise ModelError(f"{folder}: the adapters of {name} do not fit {experts} experts of this model.", OTHER_BASE)
    b = torch.zeros(experts, outputs, rank)
    b[:, rows] = torch.stack([pairs[expert]["lora_B"] for expert in range(experts)])
    return Difference(torch.stack([pairs[expert]["lora_A"] for expert in range(experts)]), b, alpha)


def _joined(first: Difference, second: Difference, folder: Path) -> Difference:
    """The sum of two differences as one of both ranks."""
    a, b = torch.cat((first.a, second.a), dim=-2), torch.cat((first.b, second.b), dim=-1)
    scales = [each.alpha / each.a.shape[-2] for each in (first, second)]
    if scales[0] != scales[1]:
        raise ModelError(f"{folder}: gate_proj and up_proj are scaled by {scales}.", "Only equal scales are read.")
    return Difference(a, b, first.alpha + second.alpha)
