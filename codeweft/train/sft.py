"""Stage sft: a model that answers in chat, from conversations and a model folder; it keeps what it knows of infilling.

In:  problems/conversations/{train,held-out}.jsonl, tokens/ and a model folder.  Out: sft/model/, a model folder.
Source: DeepSeek-Coder-V2 §3.5.1 (cosine, 100 warm-up steps, 5e-6) and §1 (infilling is used in fine-tuning as well; in
which share it does not say). Balance losses go on as in pre-training.

Unusual: a step's sequences follow from the seed and its number alone. Each epoch draws, packs and shuffles anew;
infilling documents take their share of places in that order.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch

from codeweft.base.conversations import read_written
from codeweft.base.errors import InputError, ModelError
from codeweft.base.progress import quantity, say
from codeweft.base.runs import Run
from codeweft.base.seeds import generator
from codeweft.model.device import choose_device, choose_precision
from codeweft.model.folder import load_folder, read_config, save_folder, weights_given
from codeweft.tokenizer.load import FILES, Tokenizer, load_tokenizer
from codeweft.tokenizer.shards import TokenShards
from codeweft.train import lora
from codeweft.train.adapter_folder import save_adapter
from codeweft.train.batches import Batch
from codeweft.train.config import SftConfig
from codeweft.train.conversations import Rendering, Row, Sample, pack, render_all, row_of
from codeweft.train.loop import Plan, Trainer, train
from codeweft.train.next_token import next_token_plan
from codeweft.train.schedule import batch_size, sequences_before


def inputs(config: SftConfig) -> dict[str, str]:
    """The weights of the model folder to go on from, where it is not one of the run."""
    return weights_given("sft.init", config.init)


def run(config: SftConfig, run: Run) -> dict[str, float]:
    """Train on the conversations and write the model folder; headline: tokens a second."""
    device = choose_device(config.device, "sft.device")
    folder = config.init or run.model
    tokenizer = load_tokenizer(folder)
    talks = run.read("problems") / "conversations"
    length = config.schedule.sequence
    training = render_all(tokenizer, read_written(talks / "train.jsonl"), length, config.too_long)
    held_out = render_all(tokenizer, read_written(talks / "held-out.jsonl"), length, config.too_long)
    check(training, config)
    model = load_folder(folder, dtype=choose_precision(config.precision, device), device=device, trainable=True)
    if length > model.config.max_position_embeddings:
        raise ModelError(
            f"{folder} takes {model.config.max_position_embeddings} tokens, sft.schedule.sequence is {length}.",
            "Shorten sft.schedule.sequence.",
        )
    infilling = infilling_samples(config, tokenizer, run)
    rows = Rows(training.samples, infilling, config, tokenizer.end, run.seed)
    run.device = str(device)
    size, many = quantity(model.config.total_parameters), len(training.samples)
    say(f"sft: {size} parameters, {many:,} conversations, on {device}, {str(model.lm_head.weight.dtype)[6:]}.")
    if config.lora.rank:
        say(f"sft: {quantity(lora.add(model, config.lora, run.seed))} parameters of adapters are trained, no others.")
    trainer = Trainer(model, config.optimizer, run.together)
    # packing puts the longest first: what validates is drawn from all
    mixed = [
        held_out.samples[place] for place in generator(run.seed, "sft", "validation").permutation(len(held_out.samples))
    ]
    speed = train(trainer, make_plan(config, rows, mixed, tokenizer.end, device), run)
    if not run.leads:
        return {}
    if config.lora.rank:
        save_adapter(model, run.folder / "adapter", str(folder))
        run.adopt("adapter")
        lora.merge_(model)  # before the cast: adapters are float32
    save_folder(
        model.to(torch.bfloat16),
        run.folder / "model",
        stage="sft",
        fim_rate=read_config(folder).fim_rate,
        extra_files=[tokenizer.folder / name for name in FILES],
    )
    run.adopt("model")
    run.counts |= {
        "tokens_seen": run.tokens_seen,
        "tokens_trained": sequences_before(config.schedule.steps, config.schedule) * length,
        "conversations": dict(sorted(Counter(sample.source for sample in training.samples).items())),
        "cut": training.cut,
        "dropped": training.dropped,
        "unanswered": training.unanswered,
        "infilling_documents": len(infilling),
    }
    return {"tokens_per_second": round(speed, 1)}


def check(found: Rendering, config: SftConfig) -> None:
    """Say what was cut or left out; InputError where nothing is left to train on, or a weight names no source."""
    sources = sorted({sample.source for sample in found.samples})
    if unknown := sorted(set(config.weights) - set(sources)):
        known = f"there are {', '.join(sources)}" if sources else "there is none"
        raise InputError(f"sft.weights.{unknown[0]} names no source of conversations; {known}.", "Correct the name.")
    for count, what in (
        (found.cut, "lost their last turns to fit into"),
        (found.dropped, "were left out for being longer than"),
    ):
        if count:
            say(f"sft: {count:,} conversations {what} {config.schedule.sequence:,} tokens (sft.schedule.sequence).")
    if found.unanswered:
        say(f"sft: {found.unanswered:,} conversations were left out: the chat template shows no answer of theirs.")
    if not any(config.weights.get(sample.source, 1.0) for sample in found.samples):
        raise InputError(
            "There are no conversations to train on.",
            "Raise problems.answered, name files in problems.conversations, or lengthen sft.schedule.sequence.",
        )


def infilling_samples(config: SftConfig, tokenizer: Tokenizer, run: Run) -> list[Sample]:
    """As many infilling documents of the training stream as the share of all steps asks for, all tokens trained on."""
    if not config.fim_share:
        return []
    schedule = config.schedule
    wanted = int(sequences_before(schedule.steps, schedule) * schedule.sequence * config.fim_share) + 1
    documents = TokenShards(run.read("tokens")).infilling(
        tokenizer.fim_begin, tokenizer.begin, schedule.sequence, wanted, generator(run.seed, "sft", "infilling")
    )
    if not documents:
        say("sft: the token stream holds no infilling documents that fit, so the model is not trained to infill here.")
    return [Sample(tuple(each.tolist()), (True,) * len(each), "infilling") for each in documents]


@dataclass(frozen=True, eq=False)
class Rows:
    """Packed sequences by position: epochs of conversations, each drawn and packed anew, infilling in between."""

    talks: Sequence[Sample]
    infilling: Sequence[Sample]
    config: SftConfig
    padding: int
    seed: int

    def row(self, position: int) -> Row:
        """The sequence at a position of the endless order."""
        share = self.config.fim_share if self.infilling else 0.0
        before = int(position * share)
        if int((position + 1) * share) > before:
            return self._made(self.infilling, "infilling", before)
        return self._made(self.talks, "conversations", position - before)

    def _made(self, samples: Sequence[Sample], kind: str, position: int) -> Row:
        epoch = 0
        while position >= len(rows := _epoch(self, kind, epoch)):
            position, epoch = position - len(rows), epoch + 1
        chosen = [samples[number] for number in rows[position]]
        return row_of(chosen, self.config.schedule.sequence, self.padding)

    def drawn(self, kind: str, epoch: int) -> list[int]:
        """Numbers of the samples of an epoch: each as often as its source's weight says, fractions by chance."""
        samples = self.infilling if kind == "infilling" else self.talks
        chance_N = generator(self.seed, "sft", kind, "drawn", epoch).random(len(samples))
        weights_N = np.array([self.config.weights.get(sample.source, 1.0) for sample in samples])
        return np.repeat(np.arange(len(samples)), np.floor(weights_N + chance_N).astype(np.int64)).tolist()


@lru_cache(maxsize=8)
def _epoch(rows: Rows, kind: str, epoch: int) -> list[list[int]]:
    """The rows of an epoch in their order, each as the numbers of its samples; never empty over several epochs."""
    samples = rows.infilling if kind == "infilling" else rows.talks
    drawn = rows.drawn(kind, epoch)
    packed = pack([samples[number] for number in drawn], rows.config.schedule.sequence)
    order = generator(rows.seed, "sft", kind, "order", epoch).permutation(len(packed))
    return [[drawn[number] for number in packed[place]] for place in order]


def batch_of(rows: Sequence[Row], counted: float, isolated: bool, device: torch.device) -> Batch:
    """Rows as a batch; `counted` is the mean weight of a target over all batches that belong together."""

    def stacked(name: str) -> torch.Tensor:
        return torch.from_numpy(np.stack([getattr(row, name) for row in rows])).to(device)

    documents_BT = stacked("documents") if isolated else None
    return Batch(stacked("tokens"), stacked("targets"), documents_BT, stacked("weights") / counted)


def batches_of(rows: Sequence[Row], size: int, isolated: bool, device: torch.device) -> list[Batch]:
    """Batches of `size` rows that together make one mean over their trained tokens."""
    counted = float(np.mean([row.weights for row in rows]))
    portions = [rows[first : first + size] for first in range(0, len(rows), size)]
    return [batch_of(portion, counted, isolated, device) for portion in portions]


def make_plan(config: SftConfig, rows: Rows, held_out: Sequence[Sample], padding: int, device: torch.device) -> Plan:
    """Batches as functions of the step, and what validates."""
    schedule, isolated = config.schedule, config.attention == "isolated"
    room = config.validation_sequences * schedule.sequence
    few = [
        sample for sample, end in zip(held_out, accumulate(len(s.tokens) for s in held_out), strict=True) if end <= room
    ]
    packed = pack(few, schedule.sequence)
    known = [row_of([few[number] for number in row], schedule.sequence, padding) for row in packed]

    def batches(step: int) -> list[Batch]:
        first, count = sequences_before(step, schedule), batch_size(step, schedule)
        return batches_of([rows.row(first + number) for number in range(count)], schedule.micro_batch, isolated, device)

    def validation() -> Iterable[Batch]:
        return batches_of(known, schedule.micro_batch, isolated, device) if known else ()

    return next_token_plan(config, batches, validation)
