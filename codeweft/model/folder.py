"""Model folders: exactly what Hugging Face `transformers` writes and loads, read and written one tensor at a time.

In:  a folder with `config.json` and `model*.safetensors`, or a Transformer.  Out: a Transformer, or such a folder.
Source: tensor names of the published checkpoints (facts in docs/model.md).
Unusual: on disk every expert has its own three tensors, in memory they are slices of two stacked ones. The safetensors
files are written by hand (tensor_file.py), because the library wants a whole shard in memory.
`config.json` is written last: a folder without it was cut off. Quantised weights have a folder of their own kind, which
`load_folder` opens too (quantized_folder.py).
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from codeweft.base.artifacts import atomic, digest_file, write_json
from codeweft.base.errors import ModelError, UserError
from codeweft.model.config import ModelConfig
from codeweft.model.quantize import Quantization, quantized_parts
from codeweft.model.tensor_file import Planned, write_tensors
from codeweft.model.transformer import Transformer

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
MAX_SHARD_BYTES = 5_000_000_000
TYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float16": torch.float16}
Kind = TypeVar("Kind", bound=Transformer)
DERIVED = "rotary_emb.inv_freq"  # old checkpoints carry these; they follow from config.json


def read_config(folder: Path | str) -> ModelConfig:
    """The configuration of a model folder; ModelError when it is missing, damaged or of another architecture."""
    path = Path(folder) / CONFIG
    try:
        return ModelConfig.from_text(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(f"{path} is missing.", "Name a folder that holds a model.") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not text.", "Fetch it again.") from error
    except ModelError as error:
        raise ModelError(f"{folder}: {error.message}", error.next_step) from error


def fim_trained(model: ModelConfig | Path | str) -> bool:
    """Whether the model learned to infill: its `codeweft.fim_rate`, else the shape of the published checkpoint.

    DeepSeek-Coder-V2-Lite was trained with FIM, the 236B model was not (DeepSeek-Coder-V2 §3.1).
    """
    config = model if isinstance(model, ModelConfig) else read_config(model)
    if config.fim_rate is not None:
        return config.fim_rate > 0
    shape = (config.vocab_size, config.hidden_size, config.num_hidden_layers, config.n_routed_experts)
    return shape == (102400, 2048, 27, 64)


def disk_tensors(model: Transformer) -> Iterator[tuple[str, Tensor]]:
    """Every tensor under its published name, in the published order; writing into one writes into the model."""
    for name, parameter in model.named_parameters():  # a tied head is left out
        tensor = parameter.detach()
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            yield name, tensor
        elif name.endswith("gate_up_proj"):
            layer = name.removesuffix("gate_up_proj")
            down = model.get_parameter(layer + "down_proj").detach()
            for expert, (gate_up, down_proj) in enumerate(zip(tensor, down, strict=True)):
                gate, up = gate_up.chunk(2)
                yield f"{layer}{expert}.gate_proj.weight", gate
                yield f"{layer}{expert}.up_proj.weight", up
                yield f"{layer}{expert}.down_proj.weight", down_proj


def load_folder(
    folder: Path | str,
    dtype: torch.dtype | None = torch.bfloat16,
    device: torch.device | str = "cpu",
    *,
    trainable: bool = False,
) -> Transformer:
    """Load a model folder in evaluation mode; `dtype` None keeps the type that config.json names.

    Raises ModelError naming the file or tensor: missing or truncated file, missing, unexpected, misshapen or
    non-finite tensor, other architecture. A folder with quantised weights is mapped, see `open_quantized`; there
    `dtype` is that of the weights that are not quantised. With `trainable` it is refused.
    """
    folder = Path(folder)
    config = read_config(folder)
    if (quantization := Quantization.of(config)) is not None:
        from codeweft.model.quantized_folder import open_quantized  # which stands on this module

        if trainable:
            raise ModelError(f"{folder} holds quantised weights.", "Train the folder that it was made of.")
        return open_quantized(folder, config, quantization, dtype, device)
    return load_model(folder, config, dtype, device, Transformer)


def load_model(
    folder: Path,
    config: ModelConfig,
    dtype: torch.dtype | None,
    device: torch.device | str,
    kind: type[Kind],
) -> Kind:
    """A model of this configuration and kind, filled from the weight files of `folder`; errors as in `load_folder`."""
    try:
        model = _empty(kind, config, dtype or _named_type(config), device)
    except (RuntimeError, TypeError) as error:  # what torch raises for want of memory, and for a size that is none
        size, reason = config.total_parameters, str(error).splitlines()[0]
        raise ModelError(
            f"{folder}: a model of {size:,} parameters cannot be made: {reason}.",
            "Use a machine with more memory, or fetch config.json again if that is not its size.",
        ) from error
    waiting = dict(disk_tensors(model))
    for path, names in weight_files(folder).items():
        for name, tensor in tensors_in(path, names):
            if name.endswith(DERIVED):
                continue
            target = waiting.pop(name, None)
            if target is None and not (config.tie_word_embeddings and name == "lm_head.weight"):
                raise ModelError(f"{path}: unexpected tensor {name}.", "config.json and the weights do not match.")
            if target is not None:
                _fill(target, tensor, f"{path}: {name}")
    refuse_missing(folder, list(waiting))
    return model.eval()


def weights_given(setting: str, folder: Path | None) -> dict[str, str]:
    """Digests of the weight files of a folder that a setting names, as inputs of a stage; none where it names none.

    ModelError where there is no such folder.
    """
    if folder is None:
        return {}
    if not folder.is_dir():
        raise ModelError(f"{setting}: there is no folder {folder}.", "Give the path of a model folder.")
    name = setting.rpartition(".")[2]
    return {f"{name}/{path.name}": digest_file(path) for path in sorted(folder.glob("*.safetensors"))}


def refuse_missing(folder: Path, names: Sequence[str]) -> None:
    """ModelError where tensors were not found."""
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise ModelError(f"{folder}: tensor {names[0]} is missing{more}.", "Fetch the weight files again.")


def save_folder(
    model: Transformer,
    folder: Path | str,
    *,
    stage: str | None = None,
    fim_rate: float | None = None,
    dtype: torch.dtype = torch.bfloat16,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    like: Path | str | None = None,
    extra_files: Iterable[Path | str] = (),
) -> dict[str, str]:
    """Write a model folder; returns the digest of each file that was written, by name.

    `stage` and `fim_rate` replace what the model's config says where given. `extra_files` (the tokenizer's) are
    copied. `like` names a folder whose other files are copied too and whose division into shards is kept, so that
    loading and saving it gives the same bytes. A quantised model is refused: its folder is the one to copy.
    """
    if any(quantized_parts(model)):
        raise UserError("A quantised model is not saved as a folder.", "Copy the folder that it was loaded from.")
    folder = Path(folder)
    changes: dict[str, Any] = {"torch_dtype": str(dtype).removeprefix("torch.")}
    changes |= {} if stage is None else {"stage": stage}
    changes |= {} if fim_rate is None else {"fim_rate": fim_rate}
    config = replace(model.config, **changes)
    extras = [*([] if like is None else companion_files(like, KEPT)), *map(Path, extra_files)]
    digests = {path.name: copy_file(path, folder / path.name) for path in extras}
    digests |= write_weights(model, folder, dtype, max_shard_bytes, None if like is None else Path(like))
    if "generation_config.json" not in digests:
        ids = {key: config.to_json().get(key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
        digests["generation_config.json"] = write_json(folder / "generation_config.json", ids)
    if "README.md" not in digests:
        digests["README.md"] = write_text(folder / "README.md", model_card(config))
    digests[CONFIG] = write_text(folder / CONFIG, config.to_text())
    return digests


def write_weights(
    model: Transformer, folder: Path, dtype: torch.dtype, max_shard_bytes: int, like: Path | None = None
) -> dict[str, str]:
    """Write the weight files and their index, and remove those that were there; returns digests.

    `config.json` is removed first: whoever calls writes it last.
    """
    shards, index_text = _division(model, dtype, max_shard_bytes, like)
    stale = {path.name for path in [*folder.glob("model*.safetensors"), folder / INDEX]} - {*shards, INDEX}
    digests: dict[str, str] = {}
    (folder / CONFIG).unlink(missing_ok=True)
    tensors = dict(disk_tensors(model))
    for name, names in shards.items():
        digests[name] = _write_shard(folder / name, {each: tensors[each] for each in sorted(names)}, dtype)
    (folder / INDEX).unlink(missing_ok=True)
    if index_text:
        digests[INDEX] = write_text(folder / INDEX, index_text)
    for name in stale:
        (folder / name).unlink()
    return digests


_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "chat_template*")
KEPT = (*_TOKENIZER, "generation_config.json", "README.md", "LICENSE*")


def companion_files(folder: Path | str, patterns: Iterable[str] = _TOKENIZER) -> list[Path]:
    """The files beside the weights that a model needs, by default its tokenizer's; sorted by name."""
    return sorted({path for pattern in patterns for path in Path(folder).glob(pattern) if path.is_file()})


def empty_model(config: ModelConfig, dtype: torch.dtype, device: torch.device | str = "cpu") -> Transformer:
    """A Transformer with uninitialised parameters of this type on this device."""
    return _empty(Transformer, config, dtype, device)


def _empty(kind: type[Kind], config: ModelConfig, dtype: torch.dtype, device: torch.device | str) -> Kind:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return kind(config)
    finally:
        torch.set_default_dtype(before)


def model_card(config: ModelConfig) -> str:
    """The README.md of a folder that had none: what it is, how it was trained, how it is prompted."""
    total, active = config.total_parameters / 1e6, config.activated_parameters / 1e6
    fim = "It was not trained to infill."
    if fim_trained(config):
        fim = "It infills: `<｜fim▁begin｜>prefix<｜fim▁hole｜>suffix<｜fim▁end｜>` is continued with the middle."
    last = f" The last training stage was `{config.stage}`." if config.stage else ""
    return (
        "---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n- code\n- codeweft\n---\n\n"
        "# A code language model made with codeweft\n\n"
        f"A DeepSeek-V2 mixture of experts with {total:.1f} million parameters, {active:.1f} million of them active "
        f"for a token,\nand a window of {config.max_position_embeddings} tokens.{last}\n{fim}\n"
    )


def _named_type(config: ModelConfig) -> torch.dtype:
    if config.torch_dtype not in TYPES:
        raise ModelError(
            f"config.json: torch_dtype {config.torch_dtype!r} is not known.", f"Known: {', '.join(TYPES)}."
        )
    return TYPES[config.torch_dtype]


def weight_files(folder: Path) -> dict[Path, list[str] | None]:
    """The weight files and the tensors the index expects in each (None: whatever is there)."""
    if (folder / INDEX).exists():
        return {folder / name: tensors for name, tensors in _weight_map(folder / INDEX).items()}
    if (folder / WEIGHTS).exists():
        return {folder / WEIGHTS: None}
    if list(folder.glob("pytorch_model*.bin")):
        raise ModelError(f"{folder} holds pickled weights.", "Convert them to safetensors; pickles are never opened.")
    raise ModelError(f"{folder / WEIGHTS} is missing.", "Fetch it again, or run the stage that writes it.")


def _weight_map(path: Path) -> dict[str, list[str]]:
    """Shard file to tensor names, in the index's order."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["weight_map"].items()
        shards: dict[str, list[str]] = {}
        for tensor, name in entries:
            if Path(name).name != name:  # an index must not lead out of its folder
                raise ModelError(f"{path}: {name!r} is not a file name.", "Fetch it again from a source you trust.")
            shards.setdefault(name, []).append(tensor)
        return shards
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(f"{path} is damaged.", "Fetch it again.") from error


def tensors_in(path: Path, names: list[str] | None) -> Iterator[tuple[str, Tensor]]:
    """Each tensor of a weight file as a view of the mapped file: its values are read when they are used."""
    try:
        with safe_open(path, framework="pt") as file:
            here = list(file.keys())
            absent = [name for name in names or () if name not in here]
            if absent:
                raise ModelError(f"{path}: tensor {absent[0]} is missing.", "Fetch the file again.")
            for name in here if names is None else names:
                yield name, file.get_tensor(name)
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing.", "Fetch it again.") from error
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged or cut off: {error}.", "Fetch it again.") from error


def check_shape(shape: Sequence[int], planned: Tensor, where: str) -> None:
    """ModelError where a shape is not what config.json makes it."""
    if tuple(shape) != tuple(planned.shape):
        found, right = list(shape), list(planned.shape)
        raise ModelError(f"{where} has shape {found}, not {right}.", "config.json and the weights do not match.")


def _fill(target: Tensor, tensor: Tensor, where: str) -> None:
    check_shape(tensor.shape, target, where)
    if tensor.dtype not in TYPES.values():
        raise ModelError(f"{where} is of type {tensor.dtype}.", "Only bfloat16, float16 and float32 weights are read.")
    target.copy_(tensor)
    if not torch.isfinite(target.sum(dtype=torch.float32)):
        # in the type it is loaded in: float16 ends where a float32 weight need not
        raise ModelError(f"{where} holds values that are not finite in {target.dtype}.", "Use an earlier checkpoint.")


def _division(
    model: Transformer, dtype: torch.dtype, max_bytes: int, like: Path | None
) -> tuple[dict[str, list[str]], str]:
    """Which file holds which tensors, and the index's text, empty for a single file."""
    sizes = {name: tensor.numel() * dtype.itemsize for name, tensor in disk_tensors(model)}
    if like is not None and (like / INDEX).exists() and TYPES.get(read_config(like).torch_dtype) == dtype:
        shards = {name: [each for each in names if each in sizes] for name, names in _weight_map(like / INDEX).items()}
        if sorted(each for names in shards.values() for each in names) == sorted(sizes):
            return shards, (like / INDEX).read_text(encoding="utf-8")
    pieces, room = [[]], max_bytes
    for name, size in sizes.items():
        if size > room and pieces[-1]:
            pieces, room = [*pieces, []], max_bytes
        pieces[-1].append(name)
        room -= size
    if len(pieces) == 1:
        return {WEIGHTS: pieces[0]}, ""
    shards = {f"model-{n:05d}-of-{len(pieces):05d}.safetensors": names for n, names in enumerate(pieces, 1)}
    return shards, weight_index(shards, sum(sizes.values()))


def weight_index(shards: Mapping[str, list[str]], total: int) -> str:
    """The text of the index: which file holds which tensor, and the bytes of all of them."""
    places = {tensor: name for name, names in shards.items() for tensor in names}
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    return json.dumps(index, indent=2) + "\n"


def _write_shard(path: Path, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> str:
    plan = {name: Planned(dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    return write_tensors(path, plan, (tensor.to("cpu", dtype) for tensor in tensors.values()))


def write_text(path: Path, text: str) -> str:
    """Write a text file atomically; returns the digest."""
    with atomic(path) as file:
        file.write(text.encode())
    return file.digest


def copy_file(source: Path, target: Path) -> str:
    """Copy a file of a model folder atomically; returns the digest."""
    try:
        with source.open("rb") as content, atomic(target) as file:
            shutil.copyfileobj(content, file)
    except FileNotFoundError as error:
        raise ModelError(f"{source} is missing.", "It belongs into the model folder.") from error
    return file.digest
