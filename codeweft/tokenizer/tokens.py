"""Stage tokens: documents to one mixed, shuffled stream of tokens, cut for infilling, in shards with an index.

In:  corpus/documents/*.parquet and the tokenizer.
Out: train-*.bin, held-out-*.bin, index.parquet (base.records.TokenEntry), mixture.json.
Source: DeepSeek-Coder-V2 §2 (shares), §3.1 (infilling).

Unusual: documents are encoded in the order of the files, piece by piece, until every kind has enough; only then, with
all lengths known, are copies chosen and put in order. Pieces outlive a stage that is cut off. The stream is read front
to back by training: pass after pass of each kind in an order drawn by seed, kinds interleaved so that the shares hold
everywhere.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from codeweft.base.errors import InputError
from codeweft.base.progress import Bar, bar, quantity, say
from codeweft.base.records import TokenEntry, schema
from codeweft.base.runs import Run
from codeweft.base.seeds import generator
from codeweft.source import syntax
from codeweft.tokenizer.catalogue import Catalogue, read_catalogue
from codeweft.tokenizer.config import TokensConfig
from codeweft.tokenizer.encode import Encoder, Mapper, Pieces, blank_copies, encode_copies, processes
from codeweft.tokenizer.load import load_tokenizer
from codeweft.tokenizer.mixture import affordable_total, choose, interleave, shard_starts, targets
from codeweft.tokenizer.shards import INDEX, MIXTURE, token_dtype

BYTES_PER_TOKEN = 3.0  # the first guess of how much text gives a token; what was encoded corrects it
SPARE = 64  # copies encoded beyond those that reach the target, to exchange for others and so to meet it
TOLERANCE = 1000  # a kind may be off by one part in so many of the total


@dataclass
class Workshop:
    """What drawing copies needs: the documents, how they are encoded and where, and who does it."""

    catalogue: Catalogue
    encoder: Encoder
    pieces: Pieces
    submit: Mapper
    shown: Bar

    def draw(self, kind: str, split: str, target: int, passes: int) -> np.ndarray:
        """Encoded copies (COPY rows) in the order of use: enough to choose `target` tokens from, or all there are."""
        documents = self.catalogue.numbers(kind, split)
        wanted = blank_copies(len(documents) * passes)
        for epoch in range(passes):
            part = wanted[epoch * len(documents) : (epoch + 1) * len(documents)]
            part["epoch"] = epoch
            part["document"] = generator(self.encoder.seed, "tokens", split, kind, epoch).permutation(documents)
        bytes_N = np.cumsum(self.catalogue.bytes_N[wanted["document"]])
        drawn = blank_copies(0)
        per_token = BYTES_PER_TOKEN
        while len(drawn) < len(wanted):
            usable_N = np.where(drawn["length"] <= target, drawn["length"], 0)
            reached = int(np.searchsorted(np.cumsum(usable_N), target))
            if reached < len(drawn):
                until = reached + SPARE
            else:
                used = bytes_N[len(drawn) - 1] if len(drawn) else 0
                lacking = target - usable_N.sum()
                until = int(np.searchsorted(bytes_N, used + lacking * per_token)) + SPARE
            if until <= len(drawn):
                break
            fresh = encode_copies(self.catalogue, wanted[len(drawn) : until], self.encoder, self.pieces, self.submit)
            drawn = np.concatenate((drawn, fresh))
            self.shown.advance(int(fresh["length"].sum()))
            per_token = bytes_N[len(drawn) - 1] / drawn["length"].sum()
        return drawn


def run(config: TokensConfig, run: Run) -> dict[str, float]:
    """Encode, mix, order and write; headline: tokens, and the share of each kind."""
    tokenizer = load_tokenizer(run.read("tokenizer"))
    catalogue = read_catalogue(run.read("corpus"))
    check(config, catalogue)
    dtype = token_dtype(tokenizer.size)
    cutting = (config.fim_rate, config.fim_cut, config.fim_kinds, config.fim_segment)
    encoder = Encoder(tokenizer.folder, run.seed, *cutting, dtype)
    held_out_encoder = Encoder(tokenizer.folder, run.seed, 0.0, config.fim_cut, (), 0, dtype)
    encoded = config.total + config.held_out_tokens
    pieces = Pieces(run.staging, dtype)
    with processes(run.workers) as submit, bar("tokens", encoded, "tokens") as shown:
        workshop = partial(Workshop, catalogue, pieces=pieces, submit=submit, shown=shown)
        chosen = mix(config, workshop(encoder))
        held_out = mix_held_out(config, workshop(held_out_encoder))
    shards = partial(write_shards, run, catalogue, pieces, limit=config.shard_tokens)
    index = pa.concat_tables([shards("train", chosen), shards("held-out", held_out)])
    run.write(INDEX, index)
    summary = summarize(config.shares, catalogue, chosen, "train")
    about = {"dtype": dtype.name, "vocabulary": tokenizer.size, "requested": config.total}
    run.write(
        MIXTURE, about | summary | {"held_out": summarize(config.shares, catalogue, held_out, "held-out")["kinds"]}
    )
    run.counts |= {
        "copies": sum(map(len, chosen.values())),
        "fim": sum(int(copies["fim"].sum()) for copies in chosen.values()),
        "fim_without_grammar": sum(int(copies["coarser"].sum()) for copies in chosen.values()),
        "held_out_tokens": sum(int(copies["length"].sum()) for copies in held_out.values()),
    }
    if run.counts["fim_without_grammar"]:
        say(f"tokens: {run.counts['fim_without_grammar']} copies without a grammar or a syntax node were cut at lines.")
    shares = {kind: row["share"] for kind, row in summary["kinds"].items()}
    return {"tokens": summary["tokens"]} | {f"{kind}_share": shares.get(kind, 0.0) for kind in ("code", "math", "text")}


def check(config: TokensConfig, catalogue: Catalogue) -> None:
    """InputError for a kind without training documents, UserError for a missing parser, before any work is done."""
    for kind in config.shares:
        if not len(catalogue.numbers(kind, "train")):
            raise InputError(
                f"tokens.{kind}_share is {getattr(config, kind + '_share')}, but no training document is {kind}.",
                f"Give the corpus a source of {kind}, or set tokens.{kind}_share = 0.",
            )
    if config.fim_cut == "syntax":
        syntax.parser("Python")


def mix(config: TokensConfig, workshop: Workshop) -> dict[str, np.ndarray]:
    """The chosen copies of each kind, in order of use; a total that the documents cannot give is lowered, and said."""
    wanted = targets(config.shares, config.total)
    drawn = {kind: workshop.draw(kind, "train", target, config.max_epochs) for kind, target in wanted.items()}
    available = {kind: int(copies["length"].sum()) for kind, copies in drawn.items()}
    total = affordable_total(available, config.shares, config.total)
    if total < config.total:
        scarce = min(available, key=lambda kind: available[kind] / config.shares[kind])
        say(
            f"tokens: {quantity(total)} instead of {quantity(config.total)}, because {config.max_epochs} passes over "
            f"all {scarce} give {quantity(available[scarce])} (tokens.max_epochs, or more sources)."
        )
    chosen = {}
    for kind, target in targets(config.shares, total).items():
        copies = drawn[kind]
        chosen[kind] = copies[choose(copies["length"], copies["epoch"], target, total // TOLERANCE)]
        got = int(chosen[kind]["length"].sum())
        if abs(got - target) > total / 200:
            say(
                f"tokens: {quantity(got)} of {kind} instead of {quantity(target)}, for its documents are too long to "
                "come closer without being cut (raise tokens.total)."
            )
    return chosen


def mix_held_out(config: TokensConfig, workshop: Workshop) -> dict[str, np.ndarray]:
    """The held-out copies of each kind, plain and once each: as near to the shares as what is held out allows."""
    chosen = {}
    for kind, target in targets(config.shares, config.held_out_tokens).items():
        copies = workshop.draw(kind, "held-out", target, 1)
        chosen[kind] = copies[choose(copies["length"], copies["epoch"], target, target // TOLERANCE)]
    if not sum(map(len, chosen.values())):
        raise InputError(
            f"No held-out document fits into tokens.held_out_tokens = {config.held_out_tokens}.",
            "Raise it, or corpus.held_out_fraction.",
        )
    return chosen


def write_shards(
    run: Run, catalogue: Catalogue, pieces: Pieces, split: str, chosen: dict[str, np.ndarray], limit: int
) -> pa.Table:
    """Write the chosen copies, interleaved, as `SPLIT-NNNNN.bin`; returns their part of the index."""
    kinds = list(chosen.values())
    number_N, place_N = interleave([copies["length"] for copies in kinds])
    first_K = np.cumsum([0, *map(len, kinds)])
    stream = np.concatenate(kinds)[first_K[number_N] + place_N]
    shard_N, start_N = shard_starts(stream["length"], limit)
    names = [f"{split}-{number:05d}.bin" for number in range(int(shard_N[-1]) + 1)]
    for number, name in enumerate(names):
        with run.open(name) as file:
            for copy in stream[shard_N == number]:
                file.write(pieces.tokens(copy).tobytes())
    documents = catalogue.columns.take(pa.array(stream["document"]))
    columns = {
        "document": documents["id"],
        "shard": pa.array(names).take(pa.array(shard_N)),
        "start": start_N,
        "length": stream["length"],
        "epoch": pa.array(stream["epoch"], pa.int64()),
        "fim": stream["fim"],
    }
    columns |= {name: documents[name] for name in ("bytes", "kind", "language", "repository", "split")}
    entries: Any = schema(TokenEntry)
    return pa.table([columns[name] for name in entries.names], schema=entries)


def summarize(
    shares: dict[str, float], catalogue: Catalogue, chosen: dict[str, np.ndarray], split: str
) -> dict[str, Any]:
    """Tokens in all; by kind and by source: tokens, share of them, copies, documents, epochs by bytes, cut copies."""
    total = sum(int(copies["length"].sum()) for copies in chosen.values())
    kinds, sources = {}, []
    for kind, copies in chosen.items():
        everything = catalogue.numbers(kind, split)
        kinds[kind] = {"target": shares[kind]} | _figures(catalogue, copies, everything, total)
        for name in sorted(catalogue.columns["source"].take(pa.array(everything)).unique().to_pylist()):
            of_name = catalogue.having("source", name)
            parts = copies[of_name[copies["document"]]], everything[of_name[everything]]
            part_of_kind = catalogue.bytes_N[parts[1]].sum() / catalogue.bytes_N[everything].sum()
            aim = {"source": name, "kind": kind, "target": round(shares[kind] * float(part_of_kind), 6)}
            sources.append(aim | _figures(catalogue, *parts, total))
    return {"tokens": total, "kinds": kinds, "sources": sources}


def _figures(catalogue: Catalogue, copies: np.ndarray, everything: np.ndarray, total: int) -> dict[str, Any]:
    """Figures of some copies, beside the documents that they could come from."""
    whole = int(catalogue.bytes_N[everything].sum())
    read = int(catalogue.bytes_N[copies["document"]].sum())
    tokens = int(copies["length"].sum())
    return {
        "share": round(tokens / total, 6) if total else 0.0,
        "epochs": round(read / whole, 4) if whole else 0.0,
        "tokens": tokens,
        "copies": len(copies),
        "documents": len(np.unique(copies["document"])),
        "fim": int(copies["fim"].sum()),
    }
