"""Stage pretrain: a language model from token shards, from random weights or from a model folder.

In:  tokens/ and tokenizer/ [+ a model folder].  Out: pretrain/model/, a Hugging Face folder in bfloat16.
Source: DeepSeek-Coder-V2 §3.1 to §3.3. Infilling is in the data (the tokens stage), not in the loss.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import torch

from codeweft.base.artifacts import read_manifest
from codeweft.base.errors import ModelError
from codeweft.base.progress import quantity, say
from codeweft.base.runs import Run
from codeweft.base.seeds import derive
from codeweft.model.device import choose_device, choose_precision
from codeweft.model.folder import load_folder, save_folder, weights_given
from codeweft.model.kernels import native
from codeweft.model.transformer import Transformer
from codeweft.tokenizer.load import FILES, Tokenizer, load_tokenizer
from codeweft.tokenizer.shards import TokenShards
from codeweft.train.batches import Batch, Order, StreamBatches
from codeweft.train.config import PretrainConfig
from codeweft.train.loop import Plan, Trainer, train
from codeweft.train.next_token import next_token_plan
from codeweft.train.schedule import batch_size, sequences_before


def inputs(config: PretrainConfig) -> dict[str, str]:
    """The weights of the model folder to go on from, if any."""
    return weights_given("pretrain.init", config.init)


def run(config: PretrainConfig, run: Run) -> dict[str, float]:
    """Train and write the model folder; headline: tokens a second."""
    device = choose_device(config.device, "pretrain.device")
    tokenizer = load_tokenizer(run.read("tokenizer"))
    model = make_model(config, tokenizer, run.seed, device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    run.device = f"{name}, {str(model.lm_head.weight.dtype).removeprefix('torch.')}"
    if device.type == "cpu":
        run.device += ", fused kernels" if native.available() else ", torch alone"
    total, activated = model.config.total_parameters, model.config.activated_parameters
    size = f"{quantity(total)} parameters, {quantity(activated)} used by a token"
    say(f"pretrain: {size}, on {run.device}.")
    trainer = Trainer(model, config.optimizer, run.together)
    shards = TokenShards(run.read("tokens"))
    speed = train(trainer, make_plan(config, tokenizer, shards, run.seed, device), run)
    if not run.leads:
        return {}
    fim_rate = fim_rate_of(run.read("tokens"))
    save_folder(
        model.to(torch.bfloat16),
        run.folder / "model",
        stage="pretrain",
        fim_rate=fim_rate,
        extra_files=[tokenizer.folder / name for name in FILES],
    )
    run.adopt("model")
    tokens = sequences_before(config.schedule.steps, config.schedule) * config.schedule.sequence
    run.counts |= {
        "tokens_seen": tokens,
        "parameters": model.config.total_parameters,
        "activated_parameters": model.config.activated_parameters,
        "stream_tokens": shards.total("train"),
    }
    return {"tokens_per_second": round(speed, 1)}


def make_model(config: PretrainConfig, tokenizer: Tokenizer, seed: int, device: torch.device) -> Transformer:
    """Fresh weights drawn by seed, or those of `init`, whose tokenizer must be the run's."""
    dtype = choose_precision(config.precision, device)
    if config.init is not None:
        theirs = load_tokenizer(config.init)
        if theirs.digest != tokenizer.digest:
            raise ModelError(
                f"{config.init} was trained with another tokenizer than {tokenizer.folder}.",
                "Make the tokens with the model's own tokenizer.",
            )
        model = load_folder(config.init, dtype=dtype, device=device, trainable=True)
        if model.config.vocab_size < tokenizer.size:
            raise ModelError(
                f"{config.init} has {model.config.vocab_size} ids, its tokenizer {tokenizer.size}.",
                "Fetch or make the folder again.",
            )
        if config.schedule.sequence > model.config.max_position_embeddings:
            raise ModelError(
                f"{config.init} takes {model.config.max_position_embeddings} tokens, schedule.sequence is "
                f"{config.schedule.sequence}.",
                "Shorten pretrain.schedule.sequence.",
            )
        say(f"pretrain: going on from {config.init}; its shape is used, [pretrain.model] is not.")
        return model
    shape = dataclasses.replace(
        config.model,
        vocab_size=-(-tokenizer.size // config.vocabulary_multiple) * config.vocabulary_multiple,
        bos_token_id=tokenizer.begin,
        eos_token_id=tokenizer.end,
        aux_loss_alpha=config.balance.expert,
        initializer_range=config.initializer_std,
    )
    with torch.device(device):
        model = Transformer(shape)
    # drawn in float32 on the CPU so that every device and precision starts from the same numbers
    model.init_weights(config.initializer_std, torch.Generator().manual_seed(derive(seed, "pretrain", "weights")))
    return model.to(dtype)


def make_plan(
    config: PretrainConfig, tokenizer: Tokenizer, shards: TokenShards, seed: int, device: torch.device
) -> Plan:
    """Batches as functions of the step, and what validates."""
    schedule, isolated = config.schedule, config.attention == "isolated"
    planned = sequences_before(schedule.steps, schedule)
    order = Order(planned, derive(seed, "pretrain", "order"))
    training = StreamBatches(shards, "train", schedule.sequence, tokenizer.begin, isolated, order)
    # held-out sequences in one fixed shuffled order, so that a short validation still sees many files
    everything = (shards.total("held-out") - 1) // schedule.sequence
    mixed = Order(everything, derive(seed, "pretrain", "validation"))
    held_out = StreamBatches(shards, "held-out", schedule.sequence, tokenizer.begin, isolated, mixed)
    passes = planned / training.sequences
    if passes > 1:
        say(f"pretrain: the token stream is read {passes:.2f} times.")

    def batches(step: int) -> list[Batch]:
        first, count = sequences_before(step, schedule), batch_size(step, schedule)
        return list(training.micro_batches(first, count, schedule.micro_batch, device))

    def validation() -> Iterable[Batch]:
        count = min(config.validation_sequences, held_out.sequences)
        return held_out.micro_batches(0, count, schedule.micro_batch, device)

    return next_token_plan(config, batches, validation)


def fim_rate_of(tokens: Path) -> float:
    """The infilling rate that the token shards were made with."""
    manifest = read_manifest(tokens)
    return float(manifest.config.get("fim_rate", 0.0)) if manifest else 0.0
