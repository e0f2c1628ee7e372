"""Products of all kinds of matrices against the same sums written out slowly in double precision, on all processors."""

import ctypes
from collections.abc import Iterator

import kernel_targets
import pytest
import torch
from torch import Tensor

from codeweft.model.kernels import native, products

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="toolchain: no C++ compiler")


@pytest.fixture(scope="module", params=kernel_targets.parameters("x86-64-v3", "x86-64"), autouse=True)
def target(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test runs with the kernels of each target."""
    yield from kernel_targets.built_for(request.param)


def random_groups(rows: int, columns: int, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """A quantised matrix, packed and scales, and its values."""
    chance = torch.Generator().manual_seed(rows * columns + bits)
    scale = (torch.rand(rows, columns // 32, generator=chance) - 0.3).half()
    if bits == 8:
        packed = torch.randint(-127, 128, (rows, columns), dtype=torch.int8, generator=chance)
        whole = packed.unflatten(-1, (-1, 32))
    else:
        packed = torch.randint(0, 256, (rows, columns // 2), dtype=torch.uint8, generator=chance)
        bytes_of_group = packed.unflatten(-1, (-1, 16))
        whole = torch.cat((bytes_of_group & 15, bytes_of_group >> 4), dim=-1).int() - 8
    return packed, scale, (whole.double() * scale.double()[..., None]).flatten(-2)


def in_eight_bits(x: Tensor) -> Tensor:
    """Vectors as products see them: 127 levels either side of zero in each group of 32."""
    groups = x.unflatten(-1, (-1, 32))
    largest = groups.abs().amax(-1, keepdim=True)
    factor = torch.div(torch.tensor(127.0), largest).where(largest > 0, torch.zeros(()))
    return ((groups * factor).round().double() * (largest / 127).double()).flatten(-2)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    ("rows", "columns"), [(1, 32), (3, 64), (37, 96), (16, 128), (5, 160), (33, 1408), (9, 2048), (2, 10944)]
)
def test_products_are_exact_in_integers_and_sums_in_float(rows: int, columns: int, bits: int):
    packed, scale, values = random_groups(rows, columns, bits)
    x = torch.randn(11, columns, generator=torch.Generator().manual_seed(1))
    x[4] = 0
    got, expected = products.multiply(x, packed, scale, bits), in_eight_bits(x) @ values.T
    size = in_eight_bits(x).abs() @ values.T.abs()
    assert bool(((got - expected).abs() <= 1e-6 * size + 1e-30).all())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_matrix_comes_out_of_its_groups_as_it_is(bits: int, dtype: torch.dtype):
    packed, scale, values = random_groups(13, 96, bits)
    assert torch.equal(products.dequantize(packed, scale, bits, dtype), values.float().to(dtype))


@pytest.mark.parametrize("bits", [4, 8])
def test_a_vector_s_results_are_the_same_bits_alone_and_among_others(bits: int):
    packed, scale, _ = random_groups(29, 224, bits)
    x = torch.randn(23, 224, generator=torch.Generator().manual_seed(1))
    together = products.multiply(x, packed, scale, bits)
    for start, end in [(0, 1), (7, 8), (8, 9), (22, 23), *((2, 2 + count) for count in range(2, 10))]:
        assert torch.equal(products.multiply(x[start:end], packed, scale, bits), together[start:end])


def multiply_plain(x_MK: Tensor, weight_NK: Tensor) -> Tensor:
    y_MN = torch.empty(len(x_MK), len(weight_NK))
    native.functions(products.SOURCE).multiply_float32(
        ctypes.byref(products.plain(weight_NK)),
        *(ctypes.c_void_p(x_MK.data_ptr()), ctypes.c_int64(len(x_MK)), ctypes.c_void_p(y_MN.data_ptr())),
        ctypes.c_int(1),
    )
    return y_MN


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 7), (18, 33), (5, 40), (37, 100), (33, 1408)])
def test_plain_matrices_are_multiplied_in_float_and_alike_in_any_company(dtype: torch.dtype, rows: int, columns: int):
    chance = torch.Generator().manual_seed(rows * columns)
    weight, x = torch.randn(rows, columns, generator=chance).to(dtype), torch.randn(11, columns, generator=chance)
    together, size = multiply_plain(x, weight), x.double().abs() @ weight.double().abs().T
    assert bool(((together - x.double() @ weight.double().T).abs() <= 1e-6 * size).all())
    for count in range(1, 10):
        assert torch.equal(multiply_plain(x[2 : 2 + count], weight), together[2 : 2 + count])


def test_a_nan_and_infinity_in_a_vector_stay_visible():
    packed, scale, _ = random_groups(5, 96, 4)
    for broken in (torch.nan, torch.inf):
        x = torch.ones(3, 96)
        x[1, 40] = broken
        found = products.multiply(x, packed, scale, 4).isfinite().all(-1)
        assert found.tolist() == [True, False, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_half_precision_scale_is_read_as_it_is(dtype: torch.dtype):
    scale = torch.arange(-(1 << 15), 1 << 15).to(torch.int16).view(torch.float16)[:, None]
    ones = torch.ones(len(scale), 32, dtype=torch.int8)
    expected = scale.float().to(dtype).expand(-1, 32)
    assert torch.equal(products.dequantize(ones, scale, 8, dtype).nan_to_num(7.0), expected.nan_to_num(7.0))


def test_threads_change_no_bit():
    packed, scale, _ = random_groups(200, 256, 4)
    x, threads = torch.randn(3, 256), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = products.multiply(x, packed, scale, 4)
        torch.set_num_threads(3)
        assert torch.equal(products.multiply(x, packed, scale, 4), one)
    finally:
        torch.set_num_threads(threads)


def test_stacked_matrices_are_one_tall_matrix():
    packed, scale, values = random_groups(12, 64, 4)
    stacked = products.dequantize(packed.view(3, 4, 32), scale.view(3, 4, 2), 4, torch.float32)
    assert torch.equal(stacked, values.float().view(3, 4, 64))
