"""Stage reward: a model that tells better answers from worse ones, learned from what tests said of a policy's answers.

In:  problems/{train,held-out}.jsonl and a model folder.  Out: reward/model/, feedback/*.parquet, pairs.parquet,
measured.json.
Source: DeepSeek-Coder-V2 §3.5.2 (a reward model trained on compiler feedback), DeepSeek-V2 §4.2 (it begins as the SFT
model; a pair-wise or a point-wise loss).

Unusual: it learns from the tests that a prompt shows, and is measured by the hidden ones on held-out problems
(measuring.py), beside what the length of an answer, its log-probability and the visible tests themselves would choose.

Shapes: B texts, T tokens, N pairs, D model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from codeweft.base.errors import InputError
from codeweft.base.progress import quantity, say
from codeweft.base.records import Feedback, Pair, Rollout, Sample, Verdict, schema
from codeweft.base.runs import Run
from codeweft.base.seeds import derive, generator
from codeweft.engine.engine import Engine
from codeweft.model.device import choose_device, choose_precision
from codeweft.model.folder import load_folder, weights_given, write_text
from codeweft.model.reward import RewardModel, load_reward_folder, reward_model_of, save_reward_folder
from codeweft.model.transformer import Transformer
from codeweft.rl.config import GrpoConfig, PreferenceConfig, RewardConfig
from codeweft.rl.feedback import collect, judged_by, measurable, table_of
from codeweft.rl.judging import Judge
from codeweft.rl.measuring import HEADLINE, measure
from codeweft.rl.preferences import Judged, as_pairs, pairwise_loss, pointwise_loss, select_pairs, unusable
from codeweft.rl.prompts import Prompt, prompts_of, room_for_prompts, with_few_tests
from codeweft.rl.rollout import EngineSampler
from codeweft.rl.scoring import Scorer, padded, padding_of, scores_of, text_of, tokenizer_config
from codeweft.tasks.problem_files import read_problems
from codeweft.tokenizer.load import FILES, Tokenizer, load_tokenizer
from codeweft.train.batches import Batch
from codeweft.train.loop import Plan, Trainer, train
from codeweft.train.objectives import Loss, balance, routed_share
from codeweft.train.schedule import learning_rate

VALIDATED = 4  # times the examples of a step: so many held-out ones a validation reads


def inputs(config: RewardConfig) -> dict[str, str]:
    """The weights of the model folder to go on from, where it is not one of the run."""
    return weights_given("reward.init", config.init)


def run(config: RewardConfig, run: Run) -> dict[str, Any]:
    """Collect, pair, train, measure; headline: accuracy on matched pairs beside that of the baselines, and AUC."""
    device = choose_device(config.device, "reward.device")
    folder = config.init or run.model
    tokenizer = load_tokenizer(folder)
    room = room_for_prompts("reward", folder, config.pace.sequence, config.max_tokens)
    training, held_out = _prompts(config, run, tokenizer, room)
    model = load_folder(folder, dtype=choose_precision(config.precision, device), device=device, trainable=True)
    run.device = str(device)
    rows, known = _answered(config, run, model, tokenizer, (training, held_out), room + config.max_tokens)
    by_id = {prompt.problem.id: prompt for prompt in (*training, *held_out)}
    answers = judged_by(rows, "visible")
    chosen = select_pairs(answers, config.preference, run.seed)
    pairs = as_pairs(answers, chosen.places, visible_only=True)
    run.write("pairs.parquet", pa.Table.from_pylist([asdict(pair) for pair in pairs], schema(Pair)))
    examples = examples_of(answers, chosen.places, by_id, config.preference)
    if not examples:
        why = "; ".join(f"{reason}: {count:,}" for reason, count in sorted(chosen.left_out.items()))
        raise InputError(
            f"reward: visible tests told no two of {len(rows):,} answers apart, so there is nothing to learn ({why}).",
            "Draw more (reward.answers), for more problems (reward.problems), or from a better model.",
        )
    what = "pairs" if config.preference.loss == "pairwise" else "answers, point by point"
    size = quantity(model.config.total_parameters)
    say(f"reward: {size} parameters, {len(rows):,} answers, learning from {len(examples):,} {what}, on {device}.")
    _trained(config, run, model, tokenizer, examples, _validation_examples(known, by_id, config, run.seed))
    if not run.leads:
        return {}
    del model  # before the folder is opened again
    scorer = Scorer.open(run.folder / "model", tokenizer, device)
    score_N = np.array(scores_of(scorer.model, [text_of(by_id[row.problem].tokens, row.tokens) for row in known]))
    measured = measure(score_N, known, config.preference, run.seed)
    if measured["pair_accuracy"] is None:
        say("reward: there is no matched pair of held-out answers; raise reward.answers or reward.held_out.")
    run.write("measured.json", measured)
    run.counts |= {
        "tokens_seen": run.tokens_seen,
        "problems": len(training),
        "answers": len(rows),
        "pairs": len(pairs),
        "left_out": chosen.left_out,
        "held_out_problems": len(held_out),
        "held_out_answers": len(known),
    }
    intervals = [f"{name}_ci95" for name in HEADLINE if f"{name}_ci95" in measured]
    return {name: measured[name] for name in (*HEADLINE, *intervals)}


def _prompts(config: RewardConfig, run: Run, tokenizer: Tokenizer, longest: int) -> tuple[list[Prompt], list[Prompt]]:
    """Problems to learn from and problems to be measured by, each drawn by seed."""
    drawn = []
    for name, count in (("train", config.problems), ("held-out", config.held_out)):
        problems = list(read_problems(run.read("problems") / f"{name}.jsonl"))
        if name == "held-out":
            unknown = len(problems)
            problems = [each for each in problems if measurable(each)]
            unknown -= len(problems)
            if unknown:
                say(f"reward, {name}: {unknown:,} problems have no hidden tests to measure by and are left out.")
        order = generator(run.seed, "reward", name).permutation(len(problems))
        few = with_few_tests([problems[place] for place in order[: count or len(order)]], config.few_tests)
        drawn.append(prompts_of(few, tokenizer, longest, "visible", f"reward, {name}"))
        run.counts[f"{name.replace('-', '_')}_problems_left_out"] = len(few) - len(drawn[-1])
    return drawn[0], drawn[1]


def _answered(
    config: RewardConfig,
    run: Run,
    model: Transformer,
    tokenizer: Tokenizer,
    prompts: tuple[list[Prompt], list[Prompt]],
    longest: int,
) -> tuple[list[Feedback], list[Feedback]]:
    """Judged answers to train and to measure by, also as files. The engine and its cache are gone afterwards."""
    engine = Engine(model, tokenizer, rows=config.rows, max_length=longest, guess=0)
    sampler = EngineSampler(engine, config.max_tokens, config.temperature, 1.0)
    found = []
    with Judge(run.sections["sandbox"], "reward", allow_weak=config.allow_weak_sandbox) as judge:
        for name, asked in zip(("train", "held-out"), prompts, strict=True):
            rows = collect(asked, config.answers, run.seed, name, sampler, judge, run.staging, run.together)
            run.write(f"feedback/{name}.parquet", table_of(rows))
            found.append(rows)
    return found[0], found[1]


def _trained(
    config: RewardConfig,
    run: Run,
    model: Transformer,
    tokenizer: Tokenizer,
    examples: Sequence["Example"],
    held_out: Sequence["Example"],
) -> None:
    """Train the model's decoder with a new head, and write it."""
    device, padding = model.lm_head.weight.device, padding_of(tokenizer)
    if padding is None:
        say("reward: the tokenizer has no other padding than the end token, so how an answer ends is not looked at.")
    head = torch.Generator(device=device).manual_seed(derive(run.seed, "reward", "head"))
    reward = reward_model_of(model, head, padding=padding)
    plan = make_plan(config, examples, held_out, reward.padding, run.seed, device)
    train(Trainer(reward, config.optimizer, run.together), plan, run)
    if not run.leads:
        return
    target = run.folder / "model"
    save_reward_folder(reward, target, extra_files=[tokenizer.folder / FILES[0]])
    write_text(target / FILES[1], tokenizer_config(tokenizer))
    run.adopt("model")


# --- what is learned from ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Example:
    """A pair of texts, the better first; or, point by point, one text and the share of tests that it passed."""

    texts: tuple[tuple[int, ...], ...]
    share: float = 1.0


def examples_of(
    answers: Sequence[Judged],
    places: Sequence[tuple[int, int]],
    prompts: dict[str, Prompt],
    config: PreferenceConfig,
) -> list[Example]:
    """What the chosen loss learns from: the pairs at these places, or all answers that can be used."""

    def text(place: int) -> tuple[int, ...]:
        sample = answers[place].sample
        return text_of(prompts[sample.problem].tokens, sample.tokens)

    if config.loss == "pairwise":
        return [Example((text(better), text(worse))) for better, worse in places]
    usable = [place for place, each in enumerate(answers) if not unusable(each.verdict, config)]
    return [Example((text(place),), answers[place].fraction) for place in usable]


def _validation_examples(
    known: Sequence[Feedback], prompts: dict[str, Prompt], config: RewardConfig, seed: int
) -> list[Example]:
    """A few examples of held-out problems, judged by their hidden tests."""
    answers = judged_by(known, "hidden")
    chosen = select_pairs(answers, config.preference, seed)
    examples = examples_of(answers, chosen.places, prompts, config.preference)
    order = generator(seed, "reward", "validation").permutation(len(examples))
    return [examples[place] for place in order[: VALIDATED * config.pairs]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardBatch(Batch):
    """Texts, [B, T] padded on the right: pairs as all better ones and then all worse ones; or texts with shares.

    `part` is what the mean over this batch counts, so that the loop's mean over batches is the mean over all examples.
    """

    share_B: Tensor | None = None
    part: float = 1.0


def batches_of(examples: Sequence[Example], rows: int, padding: int, device: torch.device) -> list[RewardBatch]:
    """Examples of one kind, those of like length together, in batches of at most `rows` texts (but one example)."""
    sides = len(examples[0].texts) if examples else 1
    ordered = sorted(examples, key=lambda example: max(map(len, example.texts)))  # so that little is padding
    count = -(-len(ordered) // max(rows // sides, 1))
    made = []
    for portion in np.array_split(np.arange(len(ordered)), count) if count else ():
        members = [ordered[number] for number in portion]
        tokens_BT = padded([each.texts[side] for side in range(sides) for each in members], padding, device)
        share_B = None if sides == 2 else torch.tensor([each.share for each in members], device=device)
        part = len(members) / len(ordered) * count
        made.append(RewardBatch(tokens_BT, tokens_BT, share_B=share_B, part=part))
    return made


def reward_loss(model: Transformer, batch: Batch, config: RewardConfig) -> Loss:
    """The pair-wise or point-wise loss, and the balance losses of the routed experts (padding counts in these)."""
    assert isinstance(model, RewardModel)
    assert isinstance(batch, RewardBatch)
    output = model(batch.tokens_BT, return_hidden=True)
    score_B = model.scores_at_the_end(output.hidden_BTD, batch.tokens_BT)
    if batch.share_B is None:
        better_N, worse_N = score_B.chunk(2)
        loss = pairwise_loss(better_N, worse_N, config.preference.centre) * batch.part
    else:
        loss = pointwise_loss(score_B, batch.share_B) * batch.part
    if not output.router:
        return Loss(loss, loss.detach(), torch.zeros(()))
    balancing = balance(output.router, config.balance, model.config.topk_group or 1)
    load = [routed_share(router) for router in output.router]
    return Loss(loss + balancing, loss.detach(), balancing.detach(), load)


def make_plan(
    config: RewardConfig,
    examples: Sequence[Example],
    held_out: Sequence[Example],
    padding: int,
    seed: int,
    device: torch.device,
) -> Plan:
    """Batches of examples, in an order drawn anew each time round; validation on `held_out`."""
    size, rows = min(config.pairs, len(examples)), config.pace.micro_batch

    def batches(step: int) -> list[Batch]:
        chosen = []
        for position in range(step * size, (step + 1) * size):
            epoch, place = divmod(position, len(examples))
            chosen.append(examples[_order(seed, epoch, len(examples))[place]])
        return list(batches_of(chosen, rows, padding, device))

    def validation() -> Iterable[Batch]:
        return validation_batches(batches_of(held_out, rows, padding, device))

    return Plan(
        steps=config.pace.steps,
        batches=batches,
        learning_rate=lambda step: learning_rate(step, config.pace),
        loss=lambda model, batch: reward_loss(model, batch, config),
        validation=validation,
        validate_every=config.validate_every,
        load_every=config.load_every,
        checkpoint_every=config.checkpoint_every,
        keep_checkpoints=config.keep_checkpoints,
    )


def validation_batches(batches: Sequence[RewardBatch]) -> list[RewardBatch]:
    """The batches with parts for a mean that weighs each by its tokens, padding included, as the loop's validation."""
    mean = float(np.mean([batch.tokens_BT.numel() for batch in batches])) if batches else 0.0
    return [replace(batch, part=batch.part * mean / batch.tokens_BT.numel()) for batch in batches]


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return generator(seed, "reward", "order", epoch).permutation(count)


# --- learning on, between iterations of grpo --------------------------------------------------------------------------


def trained_on(
    rows: Sequence[Rollout],
    prompts: Sequence[Prompt],
    source: Path,
    target: Path,
    config: GrpoConfig,
    run: Run,
    tokenizer: Tokenizer,
) -> None:
    """A reward model after one pass over the pairs of new answers and `replay` of that many earlier ones, in `target`.

    DeepSeekMath Algorithm 1, lines 11 to 12: 10 % historical data.
    """
    device = choose_device(config.device, "grpo.device")
    by_id = {prompt.problem.id: prompt for prompt in prompts}
    answers = [
        Judged(
            Sample(row.problem, "", row.seed, tokenizer.decode(list(row.tokens)), row.tokens, sum(row.logprobs), ""),
            Verdict(cast(Any, row.verdict), int(row.verdict == "ok"), 1, 0.0, 0, ""),
        )
        for row in rows
        if row.verdict
    ]
    settings = RewardConfig(balance=config.balance, optimizer=config.optimizer, precision=config.precision)
    chosen = select_pairs(answers, settings.preference, run.seed)
    if not chosen.places:
        say("grpo: the last iteration's answers make no pair; the reward model stays as it is.")
    examples = examples_of(answers, chosen.places, by_id, settings.preference)
    old = earlier_pairs(config, run, by_id, tokenizer)
    count = min(round(len(examples) * config.replay / (1 - config.replay)), len(old))
    order = generator(run.seed, "grpo", "replay", target.parent.name).permutation(len(old))
    examples += [old[place] for place in order[:count]]
    model = load_reward_folder(source, dtype=choose_precision(config.precision, device), device=device)
    trainer = Trainer(model, settings.optimizer)
    if examples:
        plan = make_plan(settings, examples, (), model.padding, run.seed, device)
        for step in range(-(-len(examples) // settings.pairs)):
            trainer.step(plan.batches(step), plan.loss, settings.pace.learning_rate)
    save_reward_folder(model, target, extra_files=[source / name for name in FILES])


def earlier_pairs(config: GrpoConfig, run: Run, prompts: dict[str, Prompt], tokenizer: Tokenizer) -> list[Example]:
    """The pairs that the stage reward learned from; none where the reward model comes from elsewhere.

    Their texts are encoded anew, as answers that came to their end.
    """
    if config.reward is not None or not config.replay:
        return []
    found = []
    for row in pq.read_table(run.read("reward") / "pairs.parquet").to_pylist():
        if row["problem"] in prompts:
            asked = prompts[row["problem"]].tokens
            sides = ((*tokenizer.encode(row[side]), tokenizer.end) for side in ("chosen", "rejected"))
            found.append(Example(tuple(text_of(asked, side) for side in sides)))
    return found
