"""Packed answers: their log-probabilities one by one, and the loss and gradient of a step however it is divided."""

import math

import pytest
import tiny_model
import torch
from torch import Tensor

from codeweft.model.config import ModelConfig
from codeweft.model.transformer import Transformer
from codeweft.rl import policy
from codeweft.rl.config import ObjectiveConfig
from codeweft.rl.grpo import entropy, token_logprobs
from codeweft.rl.policy import Scored, grpo_loss, look, policy_batches, portions, with_old, with_reference
from codeweft.train.config import BalanceConfig

CPU = torch.device("cpu")
LENGTH = 24
NONE = BalanceConfig(expert=0.0)
SHAPE = tiny_model.SMALLEST | {"vocab_size": 40, "max_position_embeddings": 64}


def model_of(seed: int) -> Transformer:
    model = Transformer(ModelConfig(**SHAPE))
    model.init_weights(std=0.2, generator=torch.Generator().manual_seed(seed))
    return model.eval()


def scored_answers() -> list[Scored]:
    generator = torch.Generator().manual_seed(5)

    def ids(count: int) -> tuple[int, ...]:
        return tuple(torch.randint(0, 40, (count,), generator=generator).tolist())

    lengths = ((4, 3), (4, 7), (9, 1), (2, 12), (9, 5), (6, 6))
    return [Scored(ids(prompt), ids(answer), 1.0 - 0.5 * n) for n, (prompt, answer) in enumerate(lengths)]


def alone(model: Transformer, each: Scored, temperature: float) -> Tensor:
    """Log-probabilities of an answer's tokens from a forward pass over it alone."""
    tokens = torch.tensor([each.prompt + each.answer])
    logprob_TW = (model(tokens).logits_BTW[0] / temperature).log_softmax(-1)
    first = len(each.prompt) - 1
    return torch.stack([logprob_TW[first + place, token] for place, token in enumerate(each.answer)])


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_packed_answers_have_the_log_probabilities_that_they_have_alone(temperature: float):
    model, scored = model_of(1), scored_answers()
    expected = {each.answer: alone(model, each, temperature) for each in scored}
    seen = 0
    for batch in policy_batches(scored, ObjectiveConfig(), LENGTH, 2, 0, CPU):
        found = look(model, batch, NONE, temperature).logprob_NT
        for row, place in zip(found, batch.place_NT, strict=True):
            answer = tuple(batch.targets_BT.flatten()[place[place >= 0]].tolist())
            torch.testing.assert_close(row[place >= 0], expected[answer], atol=1e-5, rtol=1e-5)
            assert not row[place < 0].any()
            seen += 1
    assert seen == len(scored)


def gradient(
    model: Transformer, scored: list[Scored], rows: int, config: ObjectiveConfig
) -> tuple[float, list[Tensor]]:
    """The loss and gradient that the loop makes of a step's batches."""
    model.zero_grad()
    old = [batch.old_NT for batch in with_old(model_of(2), policy_batches(scored, config, LENGTH, rows, 0, CPU), 1.0)]
    batches = with_reference(model_of(3), policy_batches(scored, config, LENGTH, rows, 0, CPU), 1.0)
    total = 0.0
    for batch, before in zip(batches, old, strict=True):
        loss = grpo_loss(model, type(batch)(**{**vars_of(batch), "old_NT": before}), config, NONE, 1.0, len(batches))
        (loss.total / len(batches)).backward()
        total += float(loss.total.detach()) / len(batches)
    return total, [each.grad.clone() for each in model.parameters() if each.grad is not None]


def vars_of(batch: object) -> dict[str, object]:
    return {name: getattr(batch, name) for name in batch.__dataclass_fields__}


@pytest.mark.parametrize("average", ["answer", "token"])
def test_a_step_has_one_loss_however_it_is_divided(average: str):
    config = ObjectiveConfig(average=average)
    whole, of_whole = gradient(model_of(1), scored_answers(), 8, config)
    parts, of_parts = gradient(model_of(1), scored_answers(), 1, config)
    assert parts == pytest.approx(whole, rel=1e-5)
    for one, other in zip(of_whole, of_parts, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_loss_and_gradient_are_those_of_the_formula_answer_by_answer():
    """DeepSeekMath eq. 3 written out over single forward passes."""
    config, scored = ObjectiveConfig(beta=0.1, clip=0.2), scored_answers()
    loss, found = gradient(model_of(1), scored, 2, config)
    model, before, reference = model_of(1), model_of(2), model_of(3)
    objective = torch.zeros(())
    for each in scored:
        policy, old, kept = alone(model, each, 1.0), alone(before, each, 1.0).detach(), alone(reference, each, 1.0)
        ratio, difference = (policy - old).exp(), kept.detach() - policy
        term = torch.minimum(ratio * each.advantage, ratio.clamp(0.8, 1.2) * each.advantage)
        objective = objective + (term - 0.1 * (difference.exp() - difference - 1)).mean() / len(scored)
    (-objective).backward()
    assert loss == pytest.approx(-float(objective.detach()), rel=1e-4)
    expected = [each.grad for each in model.parameters() if each.grad is not None]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-3)


def test_the_facts_of_a_step_add_up_over_its_batches():
    scored, config = scored_answers(), ObjectiveConfig()
    model, reference = model_of(1), model_of(3)
    batches = with_reference(reference, policy_batches(scored, config, LENGTH, 1, 0, CPU), 1.0)
    facts = [grpo_loss(model, batch, config, NONE, 1.0, len(batches)).facts for batch in batches]
    entropies, divergences = [], []
    for each in scored:
        tokens = torch.tensor([each.prompt + each.answer])
        logprob_TW = model(tokens).logits_BTW[0].log_softmax(-1)[len(each.prompt) - 1 : -1]
        entropies += (-(logprob_TW.exp() * logprob_TW).sum(-1)).tolist()
        difference = alone(reference, each, 1.0) - alone(model, each, 1.0)
        divergences += (difference.exp() - difference - 1).tolist()
    for name, values in (("entropy", entropies), ("kl", divergences)):
        assert sum(float(each[name]) for each in facts) == pytest.approx(math.fsum(values) / len(values), rel=1e-4)
    # the policy's own log-probabilities stand for those of the drawing: every ratio is 1
    assert sum(float(each["clip_fraction"]) for each in facts) == 0


def test_the_router_is_kept_in_balance_while_it_learns_from_answers():
    model = model_of(1).train()
    (batch, *_) = policy_batches(scored_answers(), ObjectiveConfig(beta=0.0), LENGTH, 8, 0, CPU)
    loss = grpo_loss(model, batch, ObjectiveConfig(beta=0.0), BalanceConfig(expert=0.01), 1.0, 1)
    assert float(loss.balance) > 0
    assert all(float(share.sum()) == pytest.approx(1) for share in loss.load)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_one_pass_gives_the_log_probabilities_entropies_and_gradients_of_the_formulas(
    monkeypatch: pytest.MonkeyPatch, temperature: float, kept: int
):
    monkeypatch.setattr(policy, "KEPT", kept)
    monkeypatch.setattr(policy, "CHUNK", 5)
    generator = torch.Generator().manual_seed(4)
    hidden, weight = torch.randn(13, 8, generator=generator), torch.randn(40, 8, generator=generator)
    target, arriving = torch.randint(0, 40, (13,), generator=generator), torch.randn(13, generator=generator)
    given = [(hidden.clone().requires_grad_(), weight.clone().requires_grad_()) for _ in range(2)]
    logprob, spread = policy.logprobs_and_entropy(*given[0], target, temperature)
    logits = given[1][0] @ given[1][1].T
    expected = token_logprobs(logits[None], target[None], temperature)[0]
    torch.testing.assert_close(logprob, expected)
    torch.testing.assert_close(spread, entropy(logits[None], temperature)[0].detach(), atol=1e-4, rtol=1e-4)
    (logprob @ arriving).backward()
    (expected @ arriving).backward()
    for ours, theirs in zip(*given, strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=1e-5)


def test_a_frozen_pass_gives_what_the_pass_with_a_gradient_gives_and_leaves_the_weights_trainable():
    model, batches = model_of(1), policy_batches(scored_answers(), ObjectiveConfig(), LENGTH, 2, 0, CPU)
    for batch, remembered in zip(batches, with_old(model, batches, 1.0), strict=True):
        assert remembered.old_NT is not None
        assert not remembered.old_NT.requires_grad
        assert torch.equal(remembered.old_NT, look(model, batch, NONE, 1.0).logprob_NT.detach())
    assert all(weight.requires_grad for weight in model.parameters())


def test_batches_hold_every_answer_once_within_their_size_and_about_one_length():
    sizes = [int(size) for size in torch.randint(1, 200, (300,), generator=torch.Generator().manual_seed(1))]
    found = portions(sizes, 4096)
    assert sorted(number for batch in found for number in batch) == list(range(300))
    for batch in found:
        assert len(batch) * sizes[batch[0]] <= 4096
    real = sum(sizes)
    padded = sum(len(batch) * max(sizes[number] for number in batch) for batch in found)
    assert padded < 1.2 * real
