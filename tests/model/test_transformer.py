"""Causality, documents, initialisation and what is returned."""

from collections.abc import Callable

import pytest
import torch

from codeweft.model.attention import visible_from
from codeweft.model.transformer import Transformer, separate_documents


@torch.no_grad()
def test_no_position_sees_a_later_token(small: Callable, random_model: Callable):
    model = random_model(small())
    tokens = torch.randint(0, 97, (1, 20), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 12:] = (changed[0, 12:] + 1) % 97
    before, after = model(tokens).logits_BTW[0], model(changed).logits_BTW[0]
    torch.testing.assert_close(before[:12], after[:12], atol=1e-5, rtol=1e-5)
    assert (before[12:] - after[12:]).abs().amax(-1).min() > 1e-3


@torch.no_grad()
def test_packed_documents_are_computed_as_if_each_stood_alone(small: Callable, random_model: Callable):
    """An id that comes back later is another document."""
    model = random_model(small())
    tokens = torch.randint(0, 97, (2, 21), generator=torch.Generator().manual_seed(1))
    packed = torch.tensor([[7] * 5 + [2] * 9 + [7] * 7, [1] * 20 + [0]])
    together = model(tokens, documents_BT=packed).logits_BTW
    for row, pieces in ((0, (5, 9, 7)), (1, (20, 1))):
        alone = [model(piece[None]).logits_BTW[0] for piece in tokens[row].split(list(pieces))]
        torch.testing.assert_close(together[row], torch.cat(alone), atol=1e-4, rtol=1e-4)


def test_one_document_is_seen_like_plain_causal_attention():
    positions, starts = separate_documents(torch.zeros(1, 6, dtype=torch.int64))
    assert positions.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert torch.equal(visible_from(starts)[0], torch.ones(6, 6, dtype=torch.bool).tril())


def test_initial_weights_have_the_papers_deviation_and_follow_the_generator(small: Callable):
    models = [Transformer(small(hidden_size=64)) for _ in range(2)]
    for model in models:
        model.init_weights(generator=torch.Generator().manual_seed(3))
    for (name, first), second in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert torch.equal(first, second)
        expected = 1.0 if "norm" in name else 0.0
        assert float(first.detach().mean()) == pytest.approx(expected, abs=0.002)
        assert float(first.detach().std()) == pytest.approx(0.0 if "norm" in name else 0.006, rel=0.15)


def test_routing_is_returned_in_training_or_on_request_only(small: Callable, random_model: Callable):
    model, tokens = random_model(small()), torch.arange(10)[None]
    assert model(tokens).router == []
    asked = model(tokens, keep_router=True).router
    assert len(asked) == 2  # the first layer is dense
    assert len(model.train()(tokens).router) == 2
    assert asked[0].scores_BTE.shape == (1, 10, 8)
    torch.testing.assert_close(asked[0].scores_BTE.sum(-1), torch.ones(1, 10))
    assert asked[0].chosen_BTK.shape == (1, 10, 3)


def test_hidden_states_through_the_head_are_the_logits(small: Callable, random_model: Callable):
    model, tokens = random_model(small()), torch.arange(10)[None]
    full, hidden = model(tokens), model(tokens, return_hidden=True)
    assert hidden.logits_BTW is None
    assert torch.equal(model.head(hidden.hidden_BTD), full.logits_BTW)


def test_layers_beyond_the_first_follow_the_frequency_of_experts(small: Callable):
    config = small(num_hidden_layers=6, first_k_dense_replace=2, moe_layer_freq=2)
    assert [config.is_moe_layer(layer) for layer in range(6)] == [False, False, True, False, True, False]


def test_a_training_step_gives_the_same_gradients_twice(small: Callable, random_model: Callable):
    tokens = torch.randint(0, 97, (4, 50), generator=torch.Generator().manual_seed(2))
    gradients = []
    for _ in range(2):
        model = random_model(small()).train()
        model(tokens).logits_BTW.logsumexp(-1).sum().backward()
        gradients.append([each.grad for each in model.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))
