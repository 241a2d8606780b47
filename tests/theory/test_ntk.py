import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, vmap

from ff3d.fields.mapping import make_mapping
from ff3d.theory.ntk import WORKING, KernelRegression, check_points, mapped_kernel, relu_kernels, stable_rate


def features_of(name, **settings):
    mapping = make_mapping(name, **settings)
    return lambda points: mapping(torch.from_numpy(np.asarray(points, dtype=np.float32))).detach().numpy()


def test_a_kernel_that_takes_more_than_there_is_is_refused_with_the_points_that_fit():
    with pytest.raises(
        ValueError, match=r"takes about 5\.4 GB .* and 1\.0 GB are available; give at most 3,535 points"
    ):
        check_points(8192, max_memory=10**9)
    check_points(3535, max_memory=10**9)
    kernel, points = mapped_kernel(features_of("basic"), depth=3), np.random.default_rng(0).random((500, 3))
    kernel(points[:10], points[:10])
    tracemalloc.start()
    kernel(points, points)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak / (8 * 500**2) == pytest.approx(WORKING, rel=0.15)


def test_at_one_point_the_kernel_counts_the_layers():
    for depth in (1, 2, 5):
        outputs, tangent = relu_kernels(np.ones(1), np.ones(1), depth)
        assert outputs == pytest.approx([1.0])
        assert tangent == pytest.approx([depth + 1.0])


def test_opposite_points_share_nothing_in_one_hidden_layer():
    outputs, tangent = relu_kernels(np.array([-1.0]), np.ones(1), 1)
    assert np.abs([outputs, tangent]).max() < 1e-12


def empirical_kernel(points, width, depth, seed):
    """The tangent kernel of a random network of this width, in the parametrisation of `relu_kernels`."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [points.shape[1], *[width] * depth, 1]
    weights = {str(i): torch.randn(n, m, generator=generator) for i, (m, n) in enumerate(pairwise(sizes))}

    def network(weights, x):
        for i in range(depth):
            x = torch.relu(weights[str(i)] @ x * (2 / (width if i else 1)) ** 0.5 / (1 if i else 2**0.5))
        return (weights[str(depth)] @ x)[0] * (2 / width) ** 0.5

    gradients = vmap(grad(network), in_dims=(None, 0))(weights, points)
    flat = torch.cat([gradient.flatten(1) for gradient in gradients.values()], dim=1)
    return (flat @ flat.T).numpy()


@pytest.mark.parametrize("depth", [1, 2])
def test_the_closed_form_is_the_mean_of_many_wide_networks(depth):
    rng = np.random.default_rng(0)
    points = rng.standard_normal((6, 4))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    tensor = torch.from_numpy(points)
    seen = np.array([empirical_kernel(tensor.float(), 512, depth, seed) for seed in range(60)])
    exact = relu_kernels(np.clip(points @ points.T, -1, 1), np.ones((6, 6)), depth)[1]
    error = seen.std(axis=0, ddof=1) / np.sqrt(len(seen))
    assert np.all(np.abs(seen.mean(axis=0) - exact) < 5 * error + 0.01)  # and a finite width's bias, of order 1 / width


@pytest.mark.parametrize("name", ["basic", "positional", "gaussian"])
def test_sines_and_cosines_make_the_kernel_one_of_differences_alone(name):
    kernel = mapped_kernel(features_of(name, count=48, scale=4.0 if name != "basic" else None), depth=3)
    rng = np.random.default_rng(1)
    first, second, shift = rng.random((20, 3)) / 2, rng.random((20, 3)) / 2, rng.random((1, 3)) / 2
    np.testing.assert_allclose(kernel(first + shift, second + shift), kernel(first, second), atol=2e-4)


def test_raw_coordinates_do_not():
    kernel = mapped_kernel(features_of("none"), depth=3)
    rng = np.random.default_rng(1)
    first, second, shift = rng.random((20, 3)) / 2, rng.random((20, 3)) / 2, np.full((1, 3), 0.4)
    assert np.abs(kernel(first + shift, second + shift) - kernel(first, second)).max() > 0.1


@given(seed=st.integers(0, 2**32 - 1), step=st.floats(0, 1e6))
@settings(max_examples=30)
def test_on_the_training_points_the_prediction_is_gradient_descent(seed, step):
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((8, 8))
    kernel, targets = root @ root.T / 8, rng.standard_normal(8)
    regression = KernelRegression(kernel, targets, stable_rate(kernel))
    predicted = regression.predict(kernel, step)
    left = 1 - regression.learned(step)
    assert float((targets - predicted) @ (targets - predicted)) == pytest.approx(
        left * float(targets @ targets), abs=1e-9
    )
    assert regression.energies.sum() == pytest.approx(1)


def test_predicted_training_is_that_of_small_steps():
    rng = np.random.default_rng(2)
    root = rng.standard_normal((5, 5))
    kernel, targets = root @ root.T, rng.standard_normal(5)
    rate = 1e-3 * stable_rate(kernel)
    values = np.zeros(5)
    for _ in range(4000):
        values -= rate * kernel @ (values - targets)
    np.testing.assert_allclose(KernelRegression(kernel, targets, rate).predict(kernel, 4000), values, atol=2e-3)


def test_wider_frequencies_make_a_narrower_kernel():
    points = np.linspace(0, 0.3, 40)[:, None] * [[1.0, 0, 0]]
    rows = [
        mapped_kernel(features_of("gaussian", count=256, scale=scale), depth=4)(points[:1], points)[0]
        for scale in (1.0, 4.0, 16.0)
    ]
    half = [int(np.argmax(row < (row[0] + row.min()) / 2)) for row in rows]
    assert half[0] > half[1] > half[2] > 0


def test_too_many_points_are_refused_with_a_number():
    with pytest.raises(ValueError, match=r"9000 points need a dense kernel of 0\.6 GB; give at most 8192"):
        KernelRegression(np.broadcast_to(np.zeros(1), (9000, 9000)), np.zeros(9000), 1.0)
