"""Measures the model folder of a training stage and remembers the result for whoever asks for the same again.

In:  runs/NAME/{corpus,tokenizer,tokens,STAGE}.  Out: tasks and samples, kept in runs/NAME/measured/; headline figures.

Unusual: the result is found again by the digests of the model's files and of the inputs, the settings, the seed and
the version here, so a training stage's closing look and the stage evaluate never measure the same thing twice. Parts
of it are kept as they come, in a folder of the result's name, until the result is there.
"""

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codeweft.base.artifacts import (
    digest_of,
    read_json,
    read_manifest,
    remove_partials,
    write_json,
)
from codeweft.base.errors import ModelError, UserError
from codeweft.base.intervals import rate_interval, ratio_interval
from codeweft.base.progress import Bar, bar, say
from codeweft.base.runs import STARTED, upstream
from codeweft.engine.engine import Engine
from codeweft.evaluate import katas
from codeweft.evaluate.baselines import KneserNey
from codeweft.evaluate.bits_per_byte import HeldOut, draw_documents, model_bits, ngram_bits, training_chunks
from codeweft.evaluate.config import MeasureConfig
from codeweft.evaluate.infilling import Hole, draw_holes, facts, files_of, fill, held_out_code, outcomes, prompt
from codeweft.evaluate.local_models import model_digests
from codeweft.model.device import choose_device
from codeweft.model.folder import fim_trained, load_folder, read_config
from codeweft.model.transformer import Transformer
from codeweft.sandbox.config import SandboxConfig
from codeweft.tokenizer.load import Tokenizer, load_tokenizer
from codeweft.tokenizer.shards import TokenShards

VERSION = 3  # raised whenever the same model would get other figures
READS = ("corpus", "tokenizer", "tokens")
SHORTEST_WINDOW = 16
PORTION = 8  # batches of holes that are filled, and kept, at once
HEADLINE = (
    "bits_per_byte", "bits_per_byte_5gram", "fim_exact_match", "fim_exact_match_copy", "fim_edit_similarity",
    katas.KNOWN, katas.UNSEEN, katas.NEAREST,
)  # fmt: skip
CHANGES = (katas.KNOWN, katas.UNSEEN, "fim_exact_match")  # of which later stages tell what they changed


@dataclasses.dataclass(frozen=True)
class Measured:
    """Scores by task (docs/contracts.md, 6) and one sample a hole."""

    tasks: dict[str, dict[str, Any]]
    samples: list[dict[str, Any]]


def measure(
    run_folder: Path, stage: str, seed: int, tokens_seen: int, settings: MeasureConfig, sandbox: SandboxConfig
) -> dict[str, Any]:
    """The headline figures of runs/NAME/STAGE/model, each rate with its `…_ci95`; None where it cannot be scored.

    tokens_seen: how many tokens of the training stream the model was trained on, repeats included; 0 where nobody
    knows, as of a model from elsewhere: the n-gram model then counts the whole stream.
    """
    tasks = measured(run_folder, stage, seed, tokens_seen, settings).tasks
    if settings.katas and read_manifest(run_folder / "problems") is None:
        say(f"measuring {stage}: the stage problems is not finished, so no katas are asked.")
    elif settings.katas:
        tasks = tasks | katas.measured(run_folder, stage, seed, settings, sandbox)[0]
    return headline_of(tasks)


def measure_change(
    before: str,
    run_folder: Path,
    stage: str,
    seed: int,
    tokens_seen: int,
    settings: MeasureConfig,
    sandbox: SandboxConfig,
) -> dict[str, Any]:
    """What a stage that goes on from another's model made of it: the main figures of both, `…_before` and `…_after`.

    before: the stage whose model it was; nothing where that is a folder outside the run, which is not measured.
    """
    change: dict[str, Any] = {}
    for when, each in (("before", before), ("after", stage)):
        if each:
            headline = measure(run_folder, each, seed, tokens_seen, settings, sandbox)
            for name in CHANGES:
                for ending in ("", "_ci95"):
                    if f"{name}{ending}" in headline:
                        change[f"{name}_{when}{ending}"] = headline[f"{name}{ending}"]
    return change


def headline_of(tasks: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The scores of those main tasks that there are, each followed by its `…_ci95` where it has an interval."""
    headline: dict[str, Any] = {}
    for name in HEADLINE:
        if name in tasks:
            headline[name] = tasks[name]["score"]
            if tasks[name]["ci95"] is not None:
                headline[f"{name}_ci95"] = tasks[name]["ci95"]
    return headline


def measured(run_folder: Path, stage: str, seed: int, tokens_seen: int, settings: MeasureConfig) -> Measured:
    """All tasks and samples, measured now or found in `measured/`."""
    key = {
        "version": VERSION,
        "stage": stage,
        "seed": seed,
        "tokens_seen": tokens_seen,
        "window": settings.window or trained_length(run_folder, stage),
        "settings": {
            field.name: getattr(settings, field.name)
            for field in dataclasses.fields(MeasureConfig)
            if field.name != "window" and not field.name.startswith("katas")
        },
        "model": model_digests(run_folder / stage),
        "inputs": {name: manifest.digest for name, manifest in upstream(run_folder, READS, "measuring").items()},
    }
    path = run_folder / "measured" / f"{stage}-{digest_of(key).removeprefix('blake2b:')[:16]}.json"
    parts = path.with_suffix("")
    if path.exists():
        shutil.rmtree(parts, ignore_errors=True)
        say(f"measuring {stage}: nothing changed, the figures of before are taken.")
        found = read_json(path)
        return Measured(found["tasks"], found["samples"])
    _discard_others(parts, stage)
    result = _Measuring(run_folder, stage, seed, tokens_seen, settings, key["window"], parts).result()
    write_json(path, {"key": key, **dataclasses.asdict(result)})
    shutil.rmtree(parts)
    return result


def _discard_others(parts: Path, stage: str) -> None:
    """Remove what measurements that were cut off have left, except the parts of the one that begins now."""
    remove_partials(parts.parent.rglob(".*"))
    for folder in parts.parent.glob(f"{stage}-*/"):
        if folder == parts:
            say(f"measuring {stage}: going on from what is measured already.")
        else:
            say(f"measuring {stage}: an unfinished measurement with other settings or of another model is discarded.")
            shutil.rmtree(folder)


def kept(path: Path, make: Callable[[], Any]) -> Any:
    """What stands at `path` as JSON; where nothing does, what `make` gives, which is then kept there."""
    if not path.exists():
        write_json(path, make())
    return read_json(path)


def trained_length(run_folder: Path, stage: str) -> int:
    """The sequence length in the settings of a finished or running stage, or of pretrain, or the model's longest."""
    length = None
    for each in (stage, "pretrain"):
        manifest, started = read_manifest(run_folder / each), run_folder / each / STARTED
        config = manifest.config if manifest else read_json(started)["config"] if started.exists() else {}
        length = length or config.get("schedule", {}).get("sequence")
    return int(length or read_config(run_folder / stage / "model").max_position_embeddings)


def tokenizer_of(model_folder: Path, tokenizer_folder: Path) -> Tokenizer:
    """The tokenizer in the model's folder; ModelError where it is not the one that made the held-out tokens."""
    own, runs = load_tokenizer(model_folder), load_tokenizer(tokenizer_folder)
    if own.digest != runs.digest:
        raise ModelError(
            f"{model_folder} has another tokenizer than {tokenizer_folder}, which made the held-out tokens.",
            f"Run the stage {model_folder.parent.name} again.",
        )
    return own


class _Measuring:
    """One measurement of one model folder."""

    def __init__(
        self,
        run_folder: Path,
        stage: str,
        seed: int,
        tokens_seen: int,
        settings: MeasureConfig,
        window: int,
        parts: Path,
    ) -> None:
        self.run_folder, self.seed, self.tokens_seen, self.settings, self.window, self.parts = (
            run_folder, seed, tokens_seen, settings, window, parts,
        )  # fmt: skip
        self.folder = run_folder / stage / "model"
        self.tokenizer = tokenizer_of(self.folder, run_folder / "tokenizer")
        dtype = torch.bfloat16 if settings.precision == "bfloat16" else torch.float32
        device = choose_device(settings.device, "measure.device")
        self.model: Transformer = load_folder(self.folder, dtype=dtype, device=device).eval()
        longest = self.model.config.max_position_embeddings
        if not SHORTEST_WINDOW <= window <= longest:
            raise UserError(f"measure.window is {window}.", f"This model takes {SHORTEST_WINDOW} to {longest} tokens.")

    def result(self) -> Measured:
        """Bits per byte first, then infilling."""
        tasks = self.bits()
        samples = self.infilling()
        return Measured(tasks | self.infilling_tasks(samples), samples)

    def bits(self) -> dict[str, dict[str, Any]]:
        """Bits per byte of the model and of the n-gram model, on the same documents."""
        settings = self.settings
        shards = TokenShards(self.run_folder / "tokens")
        held_out = draw_documents(shards, settings.bits_tokens, settings.bits_document_tokens, self.seed)
        predictions = sum(len(tokens) - 1 for tokens in held_out.tokens)
        counted = min(self.tokens_seen or shards.total("train"), shards.total("train"), settings.ngram_tokens)

        def of_model() -> list[float]:
            with bar("bits per byte", predictions, "tokens") as shown:
                return model_bits(self.model, held_out.tokens, self.window, settings.batch, shown).tolist()

        def of_ngrams() -> list[float]:
            chunks = training_chunks(shards, counted)
            ngrams = KneserNey.fit(chunks, self.tokenizer.size, self.tokenizer.begin, settings.ngram_order)
            return ngram_bits(ngrams, held_out.tokens).tolist()

        ours_K = np.array(kept(self.parts / "bits_per_byte.json", of_model))
        # the n-gram model is the same for every stage's model
        (tokens,) = upstream(self.run_folder, ("tokens",), "measuring").values()
        which = [counted, settings.ngram_order, settings.bits_tokens, settings.bits_document_tokens, self.seed]
        key = digest_of([VERSION, tokens.digest, which]).removeprefix("blake2b:")[:16]
        theirs_K = np.array(kept(self.parts.parent / f"bits_per_byte_5gram-{key}.json", of_ngrams))
        same = f"{len(held_out.entries):,} whole held-out documents, {predictions:,} tokens with the end token"
        if held_out.left_out:
            same += f"; {held_out.left_out:,} longer than {settings.bits_document_tokens:,} tokens left out"
        ours = f"windows of {self.window} tokens overlapping by half, {settings.precision}; {same}"
        theirs = (
            f"interpolated modified Kneser-Ney {settings.ngram_order}-gram of the first {counted:,} training tokens"
        )
        if self.tokens_seen > shards.total("train"):
            theirs += f" (the model read {self.tokens_seen:,}: the stream's repeats are counted once)"
        elif counted < self.tokens_seen:
            theirs += f" (the model read {self.tokens_seen:,}; measure.ngram_tokens ends the count)"
        return {
            "bits_per_byte": self._ratio_task(ours_K, held_out, ours) | {"beside": ["bits_per_byte_5gram"]},
            "bits_per_byte_5gram": self._ratio_task(theirs_K, held_out, f"{theirs}; {same}"),
        }

    def _ratio_task(self, bits_K: np.ndarray, held_out: HeldOut, protocol: str) -> dict[str, Any]:
        def part(chosen: np.ndarray) -> dict[str, Any]:
            bits, size = bits_K[chosen], held_out.bytes_K[chosen]
            low, high = ratio_interval(bits, size, self.seed)
            return {"n": len(bits), "score": _rounded(bits.sum() / size.sum()), "ci95": [_rounded(low), _rounded(high)]}

        predictions = sum(len(tokens) - 1 for tokens in held_out.tokens)
        kinds = np.array([entry.kind for entry in held_out.entries])
        languages = np.array([entry.language for entry in held_out.entries])
        return {
            **part(np.arange(len(bits_K))),
            "unit": "bits per byte",
            "better": "lower",
            "bits_per_token": _rounded(bits_K.sum() / predictions),
            "protocol": protocol,
            "per_kind": {str(kind): part(np.flatnonzero(kinds == kind)) for kind in np.unique(kinds)},
            "per_language": {str(name): part(np.flatnonzero(languages == name)) for name in np.unique(languages)},
        }

    def infilling(self) -> list[dict[str, Any]]:
        """One sample a hole; the model's part is missing where it was not trained to infill."""
        settings = self.settings
        documents = held_out_code(self.run_folder / "corpus")
        holes = draw_holes(documents, settings.infilling_samples, settings.infilling_per_file, self.seed)
        if len(holes) < settings.infilling_samples:
            say(f"infilling: {len(holes)} holes instead of {settings.infilling_samples}; no more held-out files.")
        known = [facts(hole, self.seed) for hole in holes]
        if settings.infilling_context == "both" and not fim_trained(self.folder):
            say("infilling: this model was not trained to infill (fim_rate 0 in config.json), so it gets no score.")
            return known
        room, size = min(settings.infilling_tokens, self.window // 2), PORTION * settings.batch
        answers: list[dict[str, Any]] = []
        with bar("infilling", len(holes), "lines") as shown:
            for first in range(0, len(holes), size):
                portion, path = holes[first : first + size], self.parts / f"infilling-{first:06d}.json"
                shown.advance(len(portion) if path.exists() else 0)
                answers += kept(path, partial(self._filled, portion, room, shown))
        return [known_of | answer for known_of, answer in zip(known, answers, strict=True)]

    def _filled(self, portion: Sequence[Hole], room: int, shown: Bar) -> list[dict[str, Any]]:
        # a new engine: a portion's figures must not depend on whether this process filled the one before
        engine = Engine(self.model, self.tokenizer, rows=self.settings.batch, max_length=self.window)
        context = self.settings.infilling_context
        prompts = [prompt(hole, self.tokenizer, self.window, room, context) for hole in portion]
        return list(fill(portion, prompts, engine, room, shown))

    def infilling_tasks(self, samples: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Exact match of the model, of copying, and the ceiling of copying, over the same holes."""
        settings, files = self.settings, len(set(files_of(samples).tolist()))
        same = (
            f"{len(samples):,} lines of at least 8 non-space characters from {files:,} held-out files, drawn by seed "
            f"{self.seed}, at most {settings.infilling_per_file} a file; compared without surrounding white space"
        )
        seen = "prefix-suffix-middle" if settings.infilling_context == "both" else "left to right from the text before"
        ours = f"{seen}, nearest lines in {self.window} tokens, greedy, first generated line; {same}"
        copying = f"the line of the same file with the most similar neighbourhood (copied_line); {same}"
        ceiling = f"the missing line stands elsewhere in its file; {same}"
        filled = all("exact_match" in sample for sample in samples)
        tasks = {
            "fim_exact_match": self._rate_task(samples, "exact_match", ours) if filled else _unscored(samples, ours),
            "fim_exact_match_copy": self._rate_task(samples, "copied_match", copying),
            "fim_line_elsewhere": self._rate_task(samples, "occurs_elsewhere", ceiling),
        }
        tasks["fim_exact_match"]["beside"] = ["fim_exact_match_copy", "fim_line_elsewhere"]
        return tasks

    def _rate_task(self, samples: Sequence[dict[str, Any]], key: str, protocol: str) -> dict[str, Any]:
        def part(chosen: Sequence[dict[str, Any]]) -> dict[str, Any]:
            right = outcomes(chosen, key)
            low, high = rate_interval(right, files_of(chosen))
            return {"n": len(right), "score": _rounded(right.mean()), "ci95": [_rounded(low), _rounded(high)]}

        languages = sorted({sample["language"] for sample in samples})
        return {
            **part(samples),
            "unit": "share",
            "better": "higher",
            "protocol": protocol,
            "per_language": {name: part([s for s in samples if s["language"] == name]) for name in languages},
        }


def _unscored(samples: Sequence[dict[str, Any]], protocol: str) -> dict[str, Any]:
    reason = "The model was not trained to infill (fim_rate 0 in config.json)."
    empty = {"n": len(samples), "score": None, "ci95": None, "unit": "share", "better": "higher"}
    return {**empty, "reason": reason, "protocol": protocol, "per_language": {}}


def _rounded(value: float) -> float:
    return round(float(value), 6)
