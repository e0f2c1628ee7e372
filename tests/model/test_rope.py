"""Rotation and YaRN against the paper's numbers and RoPE's own promise."""

import cmath
import dataclasses

import pytest
import torch

from codeweft.model.config import ModelConfig, RopeScaling
from codeweft.model.rope import Rotation, frequencies, rotate_pairs, rotation, rotation_scale, softmax_scale

YARN = RopeScaling(factor=40, original_max_position_embeddings=4096, mscale=0.707, mscale_all_dim=0.707)


def test_rotation_keeps_scores_of_relative_positions():
    """RoPE's one promise: q·k depends on the distance only; checked by shifting both by 17."""
    config = ModelConfig(rope_scaling=YARN)
    query, key = torch.randn(2, 1, 1, 1, 64)
    scores = []
    for shift in (0, 17):
        turned = [
            rotate_pairs(each, rotation(config, torch.tensor([[position + shift]])))
            for each, position in ((query, 9), (key, 4))
        ]
        scores.append((turned[0] * turned[1]).sum())
    torch.testing.assert_close(scores[0], scores[1], atol=1e-4, rtol=1e-4)


def test_neighbouring_elements_turn_as_one_complex_number():
    config = ModelConfig(qk_rope_head_dim=6)
    x = torch.randn(1, 1, 1, 6)
    turned = rotate_pairs(x, rotation(config, torch.tensor([[5]]))).flatten().tolist()
    numbers = x.flatten().tolist()
    for pair in range(3):
        angle = 5 * 10000 ** (-2 * pair / 6)
        expected = complex(numbers[2 * pair], numbers[2 * pair + 1]) * cmath.exp(1j * angle)
        assert complex(turned[2 * pair], turned[2 * pair + 1]) == pytest.approx(expected, abs=1e-5)


def test_yarn_leaves_fast_pairs_divides_slow_ones_by_the_factor_and_blends_between():
    """Pairs 0 to 10 unscaled, 23 to 31 divided by 40 for the published window and factor."""
    plain, stretched = frequencies(ModelConfig()), frequencies(ModelConfig(rope_scaling=YARN))
    ratio = plain / stretched
    torch.testing.assert_close(ratio[:11], torch.ones(11))
    torch.testing.assert_close(ratio[23:], torch.full((9,), 40.0))
    assert (ratio[11:23].diff() > 0).all()
    assert ratio[11] > 1
    assert ratio[22] < 40


@pytest.mark.parametrize(("mscale", "scale"), [(None, 0.0721688), (0.707, 0.1147214), (1.0, 0.1352338)])
def test_softmax_scale_equals_the_published_checkpoints(mscale: float | None, scale: float):
    yarn = None if mscale is None else dataclasses.replace(YARN, mscale=mscale, mscale_all_dim=mscale)
    assert softmax_scale(ModelConfig(rope_scaling=yarn)) == pytest.approx(scale, abs=5e-8)


def test_cosine_and_sine_are_scaled_by_the_ratio_of_the_two_mscales():
    assert rotation_scale(YARN) == 1.0
    uneven = dataclasses.replace(YARN, mscale=1.0)
    assert rotation_scale(uneven) == pytest.approx(1.3688879 / 1.2608038)
    angles = rotation(ModelConfig(rope_scaling=uneven), torch.tensor([[3]]))
    norms = (angles.cosine_BTP**2 + angles.sine_BTP**2).sqrt()
    torch.testing.assert_close(norms, torch.full_like(norms, 1.3688879 / 1.2608038))


def test_angles_stay_exact_in_a_bfloat16_model_far_into_the_text():
    """bf16 has 8 bits: angles kept in it would be off by whole turns at position 100,000."""
    x = torch.randn(1, 1, 1, 64, dtype=torch.bfloat16)
    turn = rotation(ModelConfig(), torch.tensor([[100_000]]))
    exact = rotate_pairs(x.double(), Rotation(*(each.double() for each in turn)))
    torch.testing.assert_close(rotate_pairs(x, turn).double(), exact, atol=0.02, rtol=0.01)
