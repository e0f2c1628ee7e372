"""Model folders with quantised weights: made from published ones a matrix at a time, opened without being read.

In:  a folder with published tensor names, or one that was quantised.  Out: such a folder, or a Transformer over it.
Unusual: in place of `….weight` stand `….packed` and `….scale`; the experts of a layer are stacked, as in memory, under
`….experts.gate_up_proj` and `….experts.down_proj`. An opened folder is mapped: a weight is read from disk when it is
first used, and the system may drop it again. What opening checks is said at `open_quantized`; `verify.py` reads it all.
`config.json` names the quantisation method `codeweft`, so that other programs say that they do not know it.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from codeweft.base.errors import ModelError, UserError
from codeweft.model.config import ModelConfig
from codeweft.model.folder import (
    DERIVED,
    KEPT,
    check_shape,
    companion_files,
    disk_tensors,
    empty_model,
    read_config,
    refuse_missing,
    tensors_in,
    weight_files,
)
from codeweft.model.moe import Experts
from codeweft.model.quantize import (
    Quantization,
    QuantizedExperts,
    QuantizedLinear,
    quantize,
    quantize_structure,
)
from codeweft.model.streamed import Read, Unit, finite, write_folder
from codeweft.model.tensor_file import Planned, TensorFile
from codeweft.model.transformer import Transformer

VALUES = 1 << 20  # of a matrix that are quantised at once; more leave the cache
METHOD = "codeweft"


def structure(config: ModelConfig, how: Quantization) -> Transformer:
    """The quantised model without memory for its weights."""
    return quantize_structure(empty_model(config, torch.bfloat16, "meta"), how)


def disk_name(name: str) -> str:
    """The name on disk of a parameter or buffer.

    >>> disk_name("model.layers.1.mlp.experts.gate_up_packed"), disk_name("lm_head.scale")
    ('model.layers.1.mlp.experts.gate_up_proj.packed', 'lm_head.scale')
    """
    return re.sub(r"(gate_up|down)_(packed|scale)$", r"\1_proj.\2", name)


def tensors_of(model: Transformer) -> dict[str, tuple[str, Tensor]]:
    """By name on disk: the name in the model and the tensor; a tied head is left out."""
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight")
    return {disk_name(name): (name, tensor) for name, tensor in state.items()}


# --- opening -------------------------------------------------------------------------------------------------------


def open_quantized(
    folder: Path, config: ModelConfig, how: Quantization, dtype: torch.dtype | None, device: torch.device | str
) -> Transformer:
    """Map a folder; weights that are not quantised are converted where `dtype` is another than the folder's bfloat16.

    Checked here: the files are whole, and every tensor is there with its shape and type, and no other; norms are
    finite. Not checked here, because it would read everything: the values of the other tensors (`codeweft model
    verify`). ModelError names the file and the tensor.
    """
    model = structure(config, how)
    waiting, state = tensors_of(model), {}
    for path, names in weight_files(folder).items():
        for name, tensor in tensors_in(path, names):
            if name not in waiting:
                raise ModelError(f"{path}: unexpected tensor {name}.", "config.json and the weights do not match.")
            key, planned = waiting.pop(name)
            check_kind(tensor, planned, f"{path}: {name}")
            if tensor.dim() == 1:
                finite(tensor, f"{path}: {name}")
            wanted = dtype if dtype is not None and tensor.dtype == torch.bfloat16 else tensor.dtype
            state[key] = tensor.to(device, wanted)
    refuse_missing(folder, list(waiting))
    model.load_state_dict(state, assign=True, strict=not config.tie_word_embeddings)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    return model


def check_kind(tensor: Tensor, planned: Tensor, where: str) -> None:
    """ModelError where shape or type are not what config.json makes them."""
    check_shape(tensor.shape, planned, where)
    if tensor.dtype != planned.dtype:
        raise ModelError(f"{where} is of type {tensor.dtype}, not {planned.dtype}.", "Fetch it again.")


# --- making --------------------------------------------------------------------------------------------------------


def quantize_folder(source: Path, out: Path, how: Quantization) -> None:
    """Write the quantised form of a published folder, tokenizer and all; no more than one matrix is in memory.

    An expert's matrices count alone; of a layer's experts the packed values of one are held, and the scales of all.
    Cut off, the same call goes on. ModelError for a damaged source, UserError where the source is quantised already
    or `out` holds something else.
    """
    config = read_config(source)
    if Quantization.of(config) is not None:
        raise UserError(f"{source} is quantised already.", "Quantise the folder that it was made of.")
    with PublishedTensors(source, config) as published:
        origin = {"source": str(source.resolve()), "files": published.stamps, "quantization": asdict(how)}
        parts, extras = units(structure(config, how)), companion_files(source, KEPT)
        write_folder(out, quantized_config(config, how), parts, published.read, origin, extras)


class PublishedTensors:
    """The tensors of a published folder by name, read when asked for; names and shapes are checked at the start."""

    def __init__(self, folder: Path, config: ModelConfig) -> None:
        self.folder = folder
        self.files = [TensorFile(path) for path in weight_files(folder)]
        self.holder = {name: file for file in self.files for name in file.places if not name.endswith(DERIVED)}
        expected = dict(disk_tensors(empty_model(config, torch.bfloat16, "meta")))
        if config.tie_word_embeddings:
            self.holder.pop("lm_head.weight", None)
        refuse_missing(folder, [name for name in expected if name not in self.holder])
        for name, tensor in expected.items():
            where = f"{self.holder[name].path}: {name}"
            check_shape(self.holder[name].places[name].shape, tensor, where)
            if not self.holder[name].places[name].dtype.is_floating_point:
                raise ModelError(f"{where} is of type {self.holder[name].places[name].dtype}.", "Weights are floats.")
        for name in self.holder.keys() - expected.keys():
            where = f"{self.holder[name].path}: unexpected tensor {name}"
            raise ModelError(f"{where}.", "config.json and the weights do not match.")

    def __enter__(self) -> "PublishedTensors":
        return self

    def __exit__(self, *error: object) -> None:
        for file in self.files:
            file.close()

    @property
    def stamps(self) -> dict[str, list[int]]:
        """Size and time of each file: enough to know it again."""
        found = {file.path.name: file.path.stat() for file in self.files}
        return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in found.items()}

    def read(self, name: str) -> Tensor:
        """A copy of one tensor; ModelError where a value is not finite."""
        return finite(self.holder[name].read(name), f"{self.holder[name].path}: {name}")


def quantized_config(config: ModelConfig, how: Quantization) -> ModelConfig:
    """The configuration of the quantised folder."""
    content = replace(config, torch_dtype="bfloat16").to_json()
    content["codeweft"] = {**(content.get("codeweft") or {}), "quantization": asdict(how)}
    return ModelConfig.from_json(content | {"quantization_config": {"quant_method": METHOD}})


def units(model: Transformer) -> list[Unit]:
    """How each module's tensors are made of published ones, in the model's order."""
    found = [unit for name, module in model.named_modules() for unit in _units_of(name, module)]
    if model.config.tie_word_embeddings:
        found = [unit for unit in found if "lm_head.weight" not in unit.tensors]
    return found


Make = Callable[[], Tensor]


def _units_of(name: str, module: nn.Module) -> Iterator[Unit]:
    if isinstance(module, QuantizedLinear):
        plan = {f"{name}.{part}": _planned(getattr(module, part)) for part in ("packed", "scale")}
        weight, bits = f"{name}.weight", module.bits
        yield Unit(plan, lambda read: _in_parts([lambda: read(weight)], bits, name))
    elif isinstance(module, QuantizedExperts | Experts):
        for kind in ("gate_up", "down"):
            yield _experts_unit(name, module, kind)
    else:
        for own, tensor in module.named_parameters(recurse=False):
            yield plain_unit(f"{name}.{own}", tensor)


def plain_unit(name: str, tensor: Tensor) -> Unit:
    """A published tensor as it is, in bfloat16."""
    return Unit({name: _planned(tensor)}, lambda read: iter([read(name).to(torch.bfloat16)]))


def _experts_unit(name: str, module: QuantizedExperts | Experts, kind: str) -> Unit:
    projections = ("gate_proj", "up_proj") if kind == "gate_up" else ("down_proj",)
    full = f"{name}.{kind}_proj"

    def matrices(read: Read, count: int) -> list[Make]:
        def matrix(expert: int) -> Tensor:
            return torch.cat([read(f"{name}.{expert}.{each}.weight") for each in projections])

        return [partial(matrix, expert) for expert in range(count)]

    if isinstance(module, Experts):
        stacked = module.get_parameter(f"{kind}_proj")
        count = len(stacked)
        plan = {full: _planned(stacked)}
        return Unit(plan, lambda read: (make().to(torch.bfloat16) for make in matrices(read, count)))
    packed, scale = getattr(module, f"{kind}_packed"), getattr(module, f"{kind}_scale")
    count, bits = len(packed), module.bits
    plan = {f"{full}.packed": _planned(packed), f"{full}.scale": _planned(scale)}
    return Unit(plan, lambda read: _in_parts(matrices(read, count), bits, full))


def _in_parts(makers: Sequence[Make], bits: int, name: str) -> Iterator[Tensor]:
    """The packed values of matrices one after the other, then all their scales."""
    scales = []
    for make in makers:
        matrix = make()
        for part in matrix.split(max(VALUES // matrix.shape[-1], 1)):
            packed, scale = quantize(part, bits)
            yield packed
            scales.append(finite(scale, f"{name}: a scale in float16"))
    yield from scales


def _planned(tensor: Tensor) -> Planned:
    return Planned(tensor.dtype, tuple(tensor.shape))
