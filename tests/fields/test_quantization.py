import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ff3d.fields.quantization import BLOCK, SCALES, STORAGES, packed, unpacked


def tensors(seed, shape, size):
    generator = torch.Generator().manual_seed(seed)
    return {
        "weight": size * torch.randn(shape, generator=generator),
        "bias": torch.randn(shape[0], generator=generator),
    }


@settings(max_examples=50)
@given(
    seed=st.integers(0, 99),
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    size=st.sampled_from([1e-30, 1e-3, 1.0, 1e4]),
)
def test_eight_bits_are_right_to_half_a_step_of_their_block(seed, shape, size):
    given = tensors(seed, shape, size)
    read = unpacked(packed(given, "int8"))
    blocks = given["weight"].flatten().split(BLOCK)
    for block, rounded in zip(blocks, read["weight"].flatten().split(BLOCK), strict=True):
        assert (block - rounded).abs().max() <= block.abs().max() / 127 / 2 * 1.004  # scales are right to 1/512
        assert rounded.abs().max() == pytest.approx(float(block.abs().max()), rel=1 / 256)


@pytest.mark.parametrize("storage", STORAGES)
def test_rounding_what_is_rounded_changes_nothing(storage):
    once = unpacked(packed(tensors(0, (70, 50), 1.0), storage))
    again = unpacked(packed(once, storage))
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_what_each_storage_writes():
    given = tensors(0, (70, 50), 1.0) | {"kept": torch.rand(5, 5), "zero": torch.zeros(3, 3)}
    assert packed(given, "float32") == given
    half = packed(given, "float16", kept=("kept",))
    assert {name: it.dtype for name, it in half.items()} == {
        "weight": torch.float16,
        "bias": torch.float16,
        "zero": torch.float16,
        "kept": torch.float32,
    }
    eight = packed(given, "int8", kept=("kept",))
    assert eight["weight"].dtype == torch.int8
    assert eight["weight" + SCALES].shape == (55,)
    assert eight["weight" + SCALES].dtype == torch.bfloat16
    assert (eight["bias"].dtype, eight["kept"].dtype) == (torch.float16, torch.float32)
    assert torch.equal(unpacked(eight)["zero"], given["zero"])
    assert torch.equal(unpacked(eight)["kept"], given["kept"])


def test_numbers_past_the_range_of_float16_become_its_largest():
    assert unpacked(packed({"a": torch.tensor([1e9, -1e9])}, "float16"))["a"].tolist() == [65504, -65504]


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="known: float32, float16, int8"):
        packed({}, "zip")
    eight = packed(tensors(0, (70, 50), 1.0), "int8")
    with pytest.raises(ValueError, match="without their scales"):
        unpacked(eight | {"weight" + SCALES: torch.ones(3, dtype=torch.bfloat16)})
