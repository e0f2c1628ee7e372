"""`codeweft model …`: what a person does with model folders at a terminal.

In:  parsed words.  Out: lines or JSON on standard output, folders and files; the exit code.
Unusual: help and parsing need the standard library alone; everything else is imported when a command acts.
"""

import argparse
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codeweft.base import config as settings
from codeweft.base.errors import InputError, ModelError, UserError
from codeweft.base.sizes import shown

if TYPE_CHECKING:
    from codeweft.model.config import ModelConfig
    from codeweft.tokenizer.load import Tokenizer

COMPARED_TOKENS, COMPARED_WINDOW = 20_000, 512
VOCABULARY_MULTIPLE = 64  # as pretraining rounds up a tokenizer's ids
ROWS = 1  # requests at once that `info` counts memory for


def _folder_argument(parser: argparse.ArgumentParser, name: str = "folder") -> None:
    parser.add_argument(name, type=Path, help="model folder, such as runs/toy/pretrain/model")


def _json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")


def _text_argument(parser: argparse.ArgumentParser, flag: str, required: bool) -> None:
    parser.add_argument(flag, type=Path, nargs="+", required=required, metavar="FILE", help="UTF-8 texts to predict")
    parser.add_argument(
        "--tokens", type=int, default=COMPARED_TOKENS, help=f"tokens of them, the first ones ({COMPARED_TOKENS})"
    )


# --- info ----------------------------------------------------------------------------------------------------------


def info_arguments(parser: argparse.ArgumentParser) -> None:
    """What `codeweft model info` takes."""
    _folder_argument(parser)
    parser.add_argument(
        "--context", default="32k", help="tokens of context to count memory for, at most the model's longest (32k)"
    )
    _json_argument(parser)


def info(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft model info`: shape, parameters, type, size on disk, memory. Nothing of the weights is read."""
    facts = facts_of(arguments.folder, tokens_of(arguments.context))
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    for name, value in facts.items():
        words = shown(value) if name.endswith("_bytes") else f"{value:,}" if type(value) is int else value
        print(f"{name.removesuffix('_bytes').replace('_', ' '):<34} {words}")
    return 0


def tokens_of(text: str) -> int:
    """A number of tokens; k stands for 1,024.

    >>> tokens_of("32k"), tokens_of("500")
    (32768, 500)
    """
    match = re.fullmatch(r"(\d+)(k?)", text.strip().lower())
    if match is None or not int(match[1]):
        raise UserError(f"--context {text!r} is no number of tokens.", "Write one such as 4096 or 32k.")
    return int(match[1]) * (1024 if match[2] else 1)


def facts_of(folder: Path, context: int) -> dict[str, Any]:
    """What is known of a folder without reading its weights."""
    import torch

    from codeweft.engine.engine import PROMPT_TOKENS_LARGE
    from codeweft.engine.memory import PROGRAM, working_bytes
    from codeweft.model.cache import BLOCK, block_bytes
    from codeweft.model.folder import fim_trained, read_config, weight_files
    from codeweft.model.quantize import Quantization

    config = read_config(folder)
    how, paths = Quantization.of(config), list(weight_files(folder))
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ModelError(f"{missing[0]} is missing.", "Fetch it again.")
    context = min(context, config.max_position_embeddings)
    weights, dtype = sum(path.stat().st_size for path in paths), torch.bfloat16
    cache = block_bytes(config, dtype) // BLOCK
    kinds = config.torch_dtype if how is None else f"{how.bits} bits, head {how.head_bits} bits, rest bfloat16"
    return {
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "attention_heads": config.num_attention_heads,
        "latent_width": config.kv_lora_rank,
        "routed_experts": config.n_routed_experts or 0,
        "experts_of_a_token": config.num_experts_per_tok or 0,
        "vocabulary": config.vocab_size,
        "longest_context": config.max_position_embeddings,
        "parameters": config.total_parameters,
        "activated_parameters": config.activated_parameters,
        "weights": kinds,
        "infills": "yes" if fim_trained(config) else "no",
        "stage": config.stage or "not said",
        "on_disk_bytes": weights,
        "cache_per_token_bytes": cache,
        "context": context,
        "cache_at_context_bytes": cache * context,
        "memory_at_context_bytes": PROGRAM + weights + cache * context
        + working_bytes(config, dtype, PROMPT_TOKENS_LARGE, ROWS),
    }  # fmt: skip


# --- verify --------------------------------------------------------------------------------------------------------


def verify_arguments(parser: argparse.ArgumentParser) -> None:
    """What `codeweft model verify` takes."""
    _folder_argument(parser)
    parser.add_argument("--reference", action="store_true", help="draw tokens with transformers too (needs memory)")
    _json_argument(parser)


def verify(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft model verify`: read everything; exit code 1 where something is wrong."""
    from codeweft.model.folder import read_config
    from codeweft.model.verify import check_folder, compare_with_transformers

    folder: Path = arguments.folder
    findings = list(check_folder(folder))
    if all(finding.ok for finding in findings):
        findings += [check_tokenizer(folder), *check_digests(folder)]
    if arguments.reference and all(finding.ok for finding in findings):
        begin, ids = read_config(folder).bos_token_id or 0, read_config(folder).vocab_size
        findings.append(compare_with_transformers(folder, [begin, *(7919 * n % ids for n in range(1, 8))]))
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{'ok     ' if finding.ok else 'wrong  '}  {finding.what:<22} {finding.detail}")
    return 0 if all(finding.ok for finding in findings) else 1


def check_tokenizer(folder: Path) -> Any:
    """Whether the tokenizer loads and its ids are the model's."""
    from codeweft.model.folder import read_config
    from codeweft.model.verify import Finding
    from codeweft.tokenizer.load import load_tokenizer

    config = read_config(folder)
    try:
        tokenizer = load_tokenizer(folder)
        begin, end = tokenizer.begin, tokenizer.end
    except ModelError as error:
        return Finding("tokenizer", False, str(error))
    ends = config.eos_token_id if isinstance(config.eos_token_id, tuple) else (config.eos_token_id,)
    wrong = []
    if tokenizer.size > config.vocab_size:
        wrong.append(f"it has {tokenizer.size} ids, the model {config.vocab_size}")
    if config.bos_token_id not in (None, begin):
        wrong.append(f"its begin token is {begin}, config.json says {config.bos_token_id}")
    if end not in ends and ends != (None,):
        wrong.append(f"its end token is {end}, config.json says {config.eos_token_id}")
    return Finding("tokenizer", not wrong, "; ".join(wrong) or f"{tokenizer.size:,} ids of {config.vocab_size:,}")


def check_digests(folder: Path) -> list[Any]:
    """Whether the files are those that the stage wrote, where its manifest stands beside the folder."""
    from codeweft.base.artifacts import digest_file, read_manifest
    from codeweft.model.verify import Finding

    manifest = read_manifest(folder.parent)
    outputs = {} if manifest is None else manifest.outputs
    known = {name: digest for name, digest in outputs.items() if name.startswith(f"{folder.name}/")}
    if not known:
        return []
    changed = [
        name for name, digest in known.items()
        if not (folder.parent / name).is_file() or digest_file(folder.parent / name) != digest
    ]  # fmt: skip
    words = f"changed since the stage wrote them: {', '.join(changed)}" if changed else f"{len(known)} files as written"
    return [Finding("digests", not changed, words)]


# --- quantize and compare ------------------------------------------------------------------------------------------


def quantize_arguments(parser: argparse.ArgumentParser) -> None:
    """What `codeweft model quantize` takes."""
    _folder_argument(parser)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--bits", type=int, choices=(4, 8), default=4, help="of the matrices (4)")
    parser.add_argument("--head-bits", type=int, choices=(4, 8, 16), help="of the output matrix (as --bits)")
    _text_argument(parser, "--report", required=False)
    _json_argument(parser)


def quantize(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft model quantize`: write the folder, then compare it with its source where a text is given."""
    from codeweft.model.agreement import refuse_what_does_not_fit, sentences
    from codeweft.model.quantize import Quantization
    from codeweft.model.quantized_folder import quantize_folder

    source, out = arguments.folder, arguments.out
    if arguments.report:  # what cannot be compared is told before the work
        read_texts(arguments.report)
        refuse_what_does_not_fit(source)
    quantize_folder(source, out, Quantization(arguments.bits, arguments.head_bits or arguments.bits))
    before, after = (sum(path.stat().st_size for path in each.glob("*.safetensors")) for each in (source, out))
    facts: dict[str, Any] = {"folder": str(out), "bytes_before": before, "bytes_after": after}
    if arguments.report:
        facts["quality"] = report(source, out, arguments.report, arguments.tokens)
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    print(f"{out}: {shown(after)} instead of {shown(before)}")
    if arguments.report:
        print(sentences(facts["quality"]))
    return 0


def compare_arguments(parser: argparse.ArgumentParser) -> None:
    """What `codeweft model compare` takes."""
    _folder_argument(parser, "reference")
    _folder_argument(parser, "other")
    _text_argument(parser, "--text", required=True)
    _json_argument(parser)


def compare(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft model compare`: bits per byte of both, and how often they find the same token likeliest."""
    from codeweft.model.agreement import sentences

    quality = report(arguments.reference, arguments.other, arguments.text, arguments.tokens)
    print(json.dumps(quality, indent=2) if arguments.json else sentences(quality))
    return 0


def report(reference: Path, other: Path, texts: list[Path], most: int) -> dict[str, Any]:
    """Compare two models on texts; written as OTHER.quality.json beside the other's folder too."""
    import torch

    from codeweft.base.artifacts import write_json
    from codeweft.model.agreement import agree, refuse_what_does_not_fit
    from codeweft.model.device import choose_precision
    from codeweft.model.folder import load_folder
    from codeweft.tokenizer.load import load_tokenizer

    refuse_what_does_not_fit(reference, other)
    tokenizer = load_tokenizer(reference)
    if load_tokenizer(other).digest != tokenizer.digest:
        raise UserError(f"{reference} and {other} have different tokenizers.", "Compare models with the same ids.")
    ids, size = first_tokens(tokenizer, read_texts(texts), most)
    dtype = choose_precision("auto", torch.device("cpu"))
    models = load_folder(reference, dtype=dtype), load_folder(other, dtype=dtype)
    window = min(COMPARED_WINDOW, *(model.config.max_position_embeddings for model in models))
    agreement = agree(models, ids, window)
    quality = {
        "reference": str(reference),
        "other": str(other),
        "texts": [str(path) for path in texts],
        "bytes": size,
        "tokens": agreement.predictions,
        "window": window,
        "precision": str(dtype).removeprefix("torch."),
        "bits_per_byte_reference": round(agreement.bits[0] / size, 5),
        "bits_per_byte": round(agreement.bits[1] / size, 5),
        "greedy_agreement": round(agreement.greedy, 5),
        "divergence_bits_per_token": round(agreement.divergence / agreement.predictions, 6),
    }
    write_json(other.with_name(f"{other.name}.quality.json"), quality)
    return quality


def read_texts(paths: list[Path]) -> str:
    """The texts one after the other; InputError for a file that is none."""
    try:
        return "".join(path.read_text(encoding="utf-8") for path in paths)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"There is no text file {error.filename}.", "Name files of UTF-8 text.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"One of {', '.join(map(str, paths))} is not UTF-8.", "Convert it first.") from error


def first_tokens(tokenizer: "Tokenizer", text: str, most: int) -> tuple[list[int], int]:
    """The begin token and the first `most` ids of a text, and how many bytes of it they are."""
    if most < 1:
        raise UserError(f"--tokens is {most}.", "Compare at least one.")
    ids = tokenizer.encode(text[: most * tokenizer.longest])[:most]
    if not ids:
        raise InputError("The texts are empty.", "Give some text to predict.")
    return [tokenizer.begin, *ids], len(tokenizer.decode(ids).encode())


# --- export and init -----------------------------------------------------------------------------------------------


def export_arguments(parser: argparse.ArgumentParser) -> None:
    """What `codeweft model export` takes."""
    _folder_argument(parser)
    parser.add_argument("--gguf", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument(
        "--type", choices=("bf16", "f32"), default="bf16", help="of matrices that are not quantised (bf16)"
    )


def export(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft model export`: one file for llama.cpp and what stands on it."""
    from codeweft.base.progress import say
    from codeweft.model.folder import read_config
    from codeweft.model.gguf import routes_otherwise, write_gguf
    from codeweft.tokenizer.llama_cpp import llama_vocabulary

    folder, path = arguments.folder, arguments.gguf
    config = read_config(folder)
    if path.is_dir():
        raise UserError(f"{path} is a folder.", "Name a file, such as model.gguf.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_gguf(folder, path, arguments.type, llama_vocabulary(folder, config.vocab_size))
    if routes_otherwise(config):
        say("llama.cpp scores groups of experts by their two best, this model by the best: its texts will differ.")
    print(f"{path}: {shown(path.stat().st_size)}")
    return 0


def init_arguments(parser: argparse.ArgumentParser) -> None:
    """What `codeweft model init` takes."""
    parser.add_argument("--shape", required=True, help="lite, full, a recipe such as toy or small, or a config.json")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--layers", type=int, help="so many instead of the shape's")
    parser.add_argument("--bits", type=int, choices=(4, 8), help="quantised; without: bfloat16")
    parser.add_argument("--head-bits", type=int, choices=(4, 8, 16), help="of the output matrix (as --bits)")
    parser.add_argument("--std", type=float, help="standard deviation of the weights (0.006)")
    parser.add_argument("--seed", type=int, default=1, help="of the weights (1)")
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer; without: ids alone, no text")


def init(arguments: argparse.Namespace, rest: list[str]) -> int:
    """`codeweft model init`: random weights, written a matrix at a time."""
    from codeweft.base.progress import say
    from codeweft.model.folder import companion_files
    from codeweft.model.quantize import Quantization
    from codeweft.model.random_folder import write_random
    from codeweft.model.transformer import INIT_STD
    from codeweft.tokenizer.load import load_tokenizer

    config, extras = shape_named(arguments.shape), []
    if arguments.layers is not None:
        config = replace(config, num_hidden_layers=arguments.layers, source="")
    if arguments.tokenizer is None:
        say("without --tokenizer the folder takes ids, no text: good for measuring, not for serving.")
    else:
        tokenizer, extras = load_tokenizer(arguments.tokenizer), companion_files(arguments.tokenizer)
        config = with_tokenizer(config, tokenizer, arguments.shape in settings.recipe_names())
    if arguments.head_bits is not None and arguments.bits is None:
        raise UserError("--head-bits without --bits has no meaning.", "Give --bits 4 or 8 as well.")
    how = None if arguments.bits is None else Quantization(arguments.bits, arguments.head_bits or arguments.bits)
    std = INIT_STD if arguments.std is None else arguments.std
    if not std > 0:
        raise UserError(f"--std is {std}.", "It must be more than 0.")
    write_random(arguments.out, config, how, arguments.seed, std, extras)
    print(f"{arguments.out}: {config.total_parameters:,} random parameters")
    return 0


def shape_named(name: str) -> "ModelConfig":
    """A published shape, that of a recipe, or that of a config.json."""
    from codeweft.model.folder import read_config
    from codeweft.model.random_folder import SHAPES
    from codeweft.train.config import PretrainConfig

    if name in SHAPES:
        return SHAPES[name]
    if Path(name).name == "config.json" or Path(name).is_dir():
        found = read_config(Path(name) if Path(name).is_dir() else Path(name).parent)
        return replace(found, source="", stage=None, fim_rate=None)
    recipes = settings.recipe_names()
    if name not in recipes:
        raise UserError(f"There is no shape {name}.", settings.nearest(name, [*SHAPES, *recipes]))
    layers = [layer.section("pretrain") for layer in settings.read_recipe(name)]
    return settings.build(PretrainConfig, layers, "pretrain").model


def with_tokenizer(config: "ModelConfig", tokenizer: "Tokenizer", fresh: bool) -> "ModelConfig":
    """The shape with this tokenizer's begin and end, and with its ids where `fresh`: a recipe's shape takes them.

    UserError where it has more ids than the shape.
    """
    if fresh:
        config = replace(config, vocab_size=-(-tokenizer.size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE)
    if tokenizer.size > config.vocab_size:
        raise UserError(
            f"The tokenizer has {tokenizer.size} ids, the shape {config.vocab_size}.", "Use another shape or tokenizer."
        )
    return replace(config, bos_token_id=tokenizer.begin, eos_token_id=tokenizer.end, pad_token_id=None)
