import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ff3d.fields.mapping import MAPPINGS, InputMapping, RawCoordinates, make_mapping

PAIRED = ("basic", "positional", "gaussian")


def points(count: int, dimension: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, dimension, generator=torch.Generator().manual_seed(seed))


@given(name=st.sampled_from(PAIRED), dimension=st.integers(1, 5), seed=st.integers(0, 1000))
def test_features_lie_on_the_unit_sphere_in_any_dimension(name, dimension, seed):
    mapping = make_mapping(name, dimension=dimension, count=60, seed=seed)
    norms = mapping(points(50, dimension, seed)).square().sum(dim=1)
    torch.testing.assert_close(norms, torch.ones(50), rtol=0, atol=1e-5)


@given(name=st.sampled_from(PAIRED), seed=st.integers(0, 1000))
def test_the_kernel_is_the_mean_cosine_of_the_difference(name, seed):
    mapping = make_mapping(name, seed=seed)
    x, y = points(20, 3, seed).double(), points(20, 3, seed + 1).double()
    kernel = (mapping(x) * mapping(y)).sum(dim=1).double()
    expected = torch.cos(2 * math.pi * (x - y) @ mapping.frequencies.double().T).mean(dim=1)
    torch.testing.assert_close(kernel, expected, rtol=0, atol=1e-4)


def test_none_centres_the_unit_cube():
    corners = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.5, 0.25, 0.75]])
    assert make_mapping("none")(corners).tolist() == [[-1, -1, -1], [1, 1, 1], [0, -0.5, 0.5]]


def test_basic_is_one_turn_an_axis_and_cannot_tell_opposite_faces_apart():
    mapping = make_mapping("basic")
    assert torch.equal(mapping.frequencies, torch.eye(3))
    torch.testing.assert_close(mapping(torch.zeros(1, 3)), mapping(torch.ones(1, 3)), rtol=0, atol=1e-6)


def test_positional_spaces_its_frequencies_evenly_in_the_logarithm_on_each_axis():
    frequencies = make_mapping("positional").frequencies
    assert frequencies.shape == (255, 3)
    assert (frequencies != 0).sum(dim=1).eq(1).all()
    axis = frequencies[:85, 0]
    torch.testing.assert_close(axis, 2 ** torch.linspace(0, 6, 85))
    assert torch.equal(frequencies[85:170, 1], axis)
    assert torch.equal(frequencies[170:, 2], axis)


def test_the_notebook_positional_frequencies_start_at_zero_and_waste_a_sine_an_axis():
    honest, notebook = make_mapping("positional"), make_mapping("positional", notebook=True)
    torch.testing.assert_close(notebook.frequencies[:85, 0], 2 ** torch.linspace(0, 6, 85) - 1)
    x = points(100, 3)
    assert (notebook(x)[:, :255] == 0).all(dim=0).sum() == 3
    assert (honest(x)[:, :255] == 0).all(dim=0).sum() == 0


def test_gaussian_frequencies_have_the_asked_scale_and_depend_on_the_seed_alone():
    mapping = make_mapping("gaussian", count=20_000, scale=5.0, seed=7)
    assert mapping.frequencies.std().item() == pytest.approx(5.0, rel=0.02)
    assert torch.equal(mapping.frequencies, make_mapping("gaussian", count=20_000, scale=5.0, seed=7).frequencies)
    assert not torch.equal(mapping.frequencies, make_mapping("gaussian", count=20_000, scale=5.0, seed=8).frequencies)


def test_lecture_is_the_sines_alone_of_ten_times_standard_normal_rows():
    mapping = make_mapping("lecture", seed=3)
    x = points(10, 3)
    b = mapping.frequencies / 10
    torch.testing.assert_close(mapping(x), torch.sin(2 * math.pi * 10 * x @ b.T), rtol=0, atol=1e-4)
    assert mapping.features == 256
    assert b.std().item() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("name", MAPPINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_fast_twin_gives_the_same_features(name, dtype):
    mapping, x = make_mapping(name), points(2500, 3)
    slow, fast = mapping(x), mapping.encode(x, dtype)
    assert fast.dtype == dtype
    assert fast.shape == (2500, mapping.features)
    torch.testing.assert_close(fast.float(), slow, rtol=0.01 if dtype == torch.bfloat16 else 0, atol=1e-4)


@pytest.mark.parametrize("name", MAPPINGS)
def test_features_do_not_depend_on_how_the_points_are_batched(name):
    mapping, x = make_mapping(name), points(3000, 3)
    parts = torch.cat([mapping(x[:700]), mapping(x[700:])])
    torch.testing.assert_close(mapping(x), parts, rtol=0, atol=2e-5)


def test_features_are_float32_even_for_bfloat16_points():
    assert make_mapping("gaussian")(points(4, 3).bfloat16()).dtype == torch.float32


def test_gradients_reach_the_points():
    x = points(4, 3).requires_grad_()
    make_mapping("gaussian")(x).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().min() > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"name": "sine"}, "known: none, basic, positional, gaussian, lecture"),
        ({"name": "gaussian", "scale": -1.0}, "scale must be a positive"),
        ({"name": "gaussian", "scale": math.inf}, "scale must be a positive"),
        ({"name": "positional", "count": 2}, "count must be at least dimension"),
    ],
)
def test_wrong_arguments_say_what_is_right(arguments, says):
    with pytest.raises(ValueError, match=says):
        make_mapping(**arguments)


def test_frequencies_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"shape \(m, d\)"):
        InputMapping("gaussian", torch.zeros(3))


@given(dimension=st.integers(1, 3), seed=st.integers(0, 1000))
def test_amplitudes_weigh_the_cosines_of_the_kernel(dimension, seed):
    frequencies = torch.randn(7, dimension, generator=torch.Generator().manual_seed(seed))
    amplitudes = torch.rand(7, generator=torch.Generator().manual_seed(seed + 1))
    mapping = InputMapping("gaussian", frequencies, amplitudes)
    x, y = points(20, dimension, seed), points(20, dimension, seed + 1)
    expected = torch.cos(2 * math.pi * (x - y) @ frequencies.T) @ amplitudes**2
    torch.testing.assert_close((mapping(x) * mapping(y)).sum(dim=1), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(mapping.encode(x, torch.float32), mapping(x), rtol=0, atol=1e-5)
    assert "amplitudes" not in mapping.state_dict()


def test_amplitudes_of_one_over_the_root_are_what_a_mapping_has_without_any():
    mapping = make_mapping("gaussian", count=16)
    same = InputMapping("gaussian", mapping.frequencies, torch.full((16,), 0.25))
    assert torch.equal(same.encode(points(50, 3), torch.float32), mapping.encode(points(50, 3), torch.float32))
    with pytest.raises(ValueError, match=r"amplitudes must have shape \(16,\), got \(4,\)"):
        InputMapping("gaussian", mapping.frequencies, torch.ones(4))


def test_raw_coordinates_are_the_points_themselves():
    x = points(20, 2)
    mapping = RawCoordinates(2, center=0.5)
    assert torch.equal(mapping(x), x - 0.5)
    assert torch.equal(mapping.encode(x, torch.float32), x - 0.5)
    assert (mapping.features, mapping.name) == (2, "none")
