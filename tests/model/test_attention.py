"""The two ways of latent attention against the paper's sums, and its memory."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from codeweft.model.attention import Attention, RMSNorm
from codeweft.model.config import RopeScaling
from codeweft.model.rope import rotate_pairs, rotation, softmax_scale

YARN = RopeScaling(factor=4.0, original_max_position_embeddings=16, mscale=0.707, mscale_all_dim=0.707)


def built(small: Callable, **changes: object) -> Attention:
    attention = Attention(small(**changes), layer=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(0.3, 0.3, generator=generator)
    return attention


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def slow_attention(attention: Attention, hidden: Tensor) -> Tensor:
    """One token of one sequence after another, head after head, as DeepSeek-V2 eq. 9 to 19 are written."""
    config, tokens = attention.config, len(hidden)
    nope, value, latent_width = config.qk_nope_head_dim, config.v_head_dim, config.kv_lora_rank
    turn = rotation(config, torch.arange(tokens)[None])
    rotate = lambda rows: rotate_pairs(rows[None, :, None], turn)[0, :, 0]  # noqa: E731
    compressed = hidden @ attention.kv_a_proj_with_mqa.weight.T
    latent = rms(compressed[:, :latent_width], attention.kv_a_layernorm.weight)
    shared_key = rotate(compressed[:, latent_width:])
    if config.q_lora_rank is None:
        queries = hidden @ attention.q_proj.weight.T
    else:
        small_query = rms(hidden @ attention.q_a_proj.weight.T, attention.q_a_layernorm.weight)
        queries = small_query @ attention.q_b_proj.weight.T
    heads = []
    for head in range(config.num_attention_heads):
        query = queries[:, head * config.qk_head_dim : (head + 1) * config.qk_head_dim]
        query = torch.cat((query[:, :nope], rotate(query[:, nope:])), -1)
        up = attention.kv_b_proj.weight[head * (nope + value) : (head + 1) * (nope + value)]
        key = torch.cat((latent @ up[:nope].T, shared_key), -1)
        outputs = []
        for t in range(tokens):
            scores = torch.stack([query[t] @ key[j] * softmax_scale(config) for j in range(t + 1)]).softmax(0)
            outputs.append(scores @ (latent[: t + 1] @ up[nope:].T))
        heads.append(torch.stack(outputs))
    return torch.cat(heads, -1) @ attention.o_proj.weight.T


@pytest.mark.parametrize("changes", [{}, {"q_lora_rank": 9, "rope_scaling": YARN}, {"v_head_dim": 23}])
def test_expanded_attention_equals_the_papers_equations(changes: dict, small: Callable):
    attention = built(small, **changes)
    hidden = torch.randn(2, 24, 32, generator=torch.Generator().manual_seed(1))
    got = attention(hidden, rotation(attention.config, torch.arange(24)[None]))
    expected = torch.stack([slow_attention(attention, row) for row in hidden])
    torch.testing.assert_close(got, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"q_lora_rank": 9, "rope_scaling": YARN}, {"v_head_dim": 23}])
def test_absorbed_attention_equals_the_expanded_one(changes: dict, small: Callable):
    """Moving W^UK to the query and W^UV to the output is associativity; here with and without a mask."""
    attention = built(small, **changes)
    hidden = torch.randn(2, 24, 32, generator=torch.Generator().manual_seed(2))
    turn = rotation(attention.config, torch.arange(24)[None])
    parts = (*attention.queries(hidden, turn), *attention.compress(hidden, turn))
    visible = torch.rand(2, 24, 24, generator=torch.Generator().manual_seed(3)) < 0.5
    visible |= torch.eye(24, dtype=torch.bool)
    for mask in (None, visible):
        expanded, absorbed = attention.attend_expanded(*parts, mask), attention.attend_absorbed(*parts, mask)
        torch.testing.assert_close(absorbed, expanded, atol=1e-4, rtol=1e-4)


def test_latent_norms_ignore_the_configured_epsilon_as_published(small: Callable):
    attention = built(small, rms_norm_eps=0.5, q_lora_rank=9)
    assert attention.kv_a_layernorm.eps == attention.q_a_layernorm.eps == 1e-6


def test_rms_norm_is_computed_in_fp32_inside_a_bfloat16_model():
    """300 squared, 512 times, summed in bf16, would lose almost every term."""
    x = torch.full((1, 512), 300.0, dtype=torch.bfloat16)
    x[0, 0] = 3.0
    norm = RMSNorm(512, 1e-6).bfloat16()
    exact = x.double() / x.double().pow(2).mean(-1, keepdim=True).sqrt()
    torch.testing.assert_close(norm(x).double(), exact, atol=0, rtol=2**-8)


@pytest.mark.usefixtures("torch_alone")
def test_torchs_fused_attention_is_taken_where_values_are_narrower_than_keys(small: Callable):
    attention = built(small)
    hidden = torch.randn(1, 24, 32, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        attention(hidden, rotation(attention.config, torch.arange(24)[None])).sum().backward()
    names = {event.key for event in profile.key_averages()}
    assert any("flash_attention" in name for name in names)
    assert not any("attention_math" in name for name in names)


PEAK = """
import re, sys, torch
from pathlib import Path
from codeweft.model.attention import Attention
from codeweft.model.config import ModelConfig
from codeweft.model.rope import rotation
torch.set_num_threads(1)
config = ModelConfig(hidden_size=64, num_attention_heads=1, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8,
                     v_head_dim=16)
attention = Attention(config, 0)
for each in attention.parameters():
    torch.nn.init.normal_(each, 0, 0.1)
def step(tokens):
    hidden = torch.ones(1, tokens, 64, requires_grad=True)
    attention(hidden, rotation(config, torch.arange(tokens)[None])).sum().backward()
step(64)
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()  # of this process alone: the resource module would report the parent's too
step(int(sys.argv[1]))
print(peak() - before)
"""


@pytest.mark.slow
def test_peak_memory_of_attention_grows_linearly_from_8k_to_32k_tokens():
    """Forward and backward, each length in a process of its own; 4.5 times at most, where scores would take 16."""
    peaks = []
    for tokens in (8192, 32768):
        run = subprocess.run([sys.executable, "-c", PEAK, str(tokens)], capture_output=True, text=True, check=True)
        peaks.append(int(run.stdout))
    assert 0 < peaks[1] < 4.5 * peaks[0], peaks


def test_scores_of_all_pairs_are_never_stored(small: Callable):
    """The same in one process, by the profiler: no allocation is as large as T x T."""
    attention, tokens = built(small), 1024
    hidden = torch.randn(1, tokens, 32, requires_grad=True)
    turn = rotation(attention.config, torch.arange(tokens)[None])
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        F.mse_loss(attention(hidden, turn), torch.zeros_like(hidden)).backward()
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert 0 < largest < tokens * tokens * 4
