import numpy as np
import pytest
import torch
from torch.func import functional_call

from ff3d.fields.field import OccupancyField
from ff3d.fields.mapping import make_mapping
from ff3d.fields.network import Network
from ff3d.geometry.coordinates import UnitCube
from ff3d.theory.dynamics import LinearizedTraining, descend, draw_lazy_weights, linearized, projections, tangent_kernel
from ff3d.theory.ntk import stable_rate


def jacobian_kernel(network, points):
    """The slow twin of `tangent_kernel`: the whole Jacobian, by torch's own rules."""
    names = {name: parameter.detach() for name, parameter in network.named_parameters()}

    def output(parameters):
        return functional_call(network, parameters, (points,)).reshape(len(points), -1)[:, 0]

    rows = (
        torch.func.jacrev(output)(names)
        if not network.mapping.trained
        else torch.autograd.functional.jacobian(
            lambda *values: output(dict(zip(names, values, strict=True))), tuple(names.values())
        )
    )
    rows = rows.values() if isinstance(rows, dict) else rows
    flat = torch.cat([row.reshape(len(points), -1) for row in rows], dim=1).double()
    return (flat @ flat.T).numpy()


@pytest.mark.parametrize("name", ["none", "gaussian", "lecture", "learned", "grid", "hash", "planes"])
@pytest.mark.parametrize("activation", ["relu", "siren"])
def test_the_kernel_is_that_of_the_whole_jacobian(name, activation):
    tables = {"levels": 2, "coarsest": 4, "finest": 8} if name in ("grid", "hash", "planes") else {"count": 8}
    network = Network(make_mapping(name, **tables), width=12, depth=2, activation=activation, seed=1)
    points = torch.rand(7, 3, generator=torch.Generator().manual_seed(0))
    kernel = tangent_kernel(network, points.numpy())
    np.testing.assert_allclose(kernel, jacobian_kernel(network, points), rtol=2e-3, atol=1e-4 * kernel.max())
    np.testing.assert_allclose(tangent_kernel(network, points.numpy()[:3], points.numpy()), kernel[:3], rtol=1e-9)


def test_a_field_of_distances_has_the_kernel_of_its_logits():
    settings = {"width": 8, "depth": 1, "cube": UnitCube((0.5, 0.5, 0.5), 1.0), "bounds": [[0] * 3, [1] * 3]}
    points = np.random.default_rng(0).random((5, 3))
    labels, distances = (
        tangent_kernel(OccupancyField(make_mapping("basic"), target=target, **settings), points)
        for target in ("occupancy", "distance")
    )
    np.testing.assert_allclose(distances, 100 * labels)


def line(count):
    """Points on a line, and a signal of a few frequencies there."""
    places = np.arange(count) / count
    return places[:, None], np.sin(2 * np.pi * places) + 0.5 * np.cos(6 * np.pi * places) + 0.2 * np.sin(
        12 * np.pi * places
    )


def wide_network(width=4096, dimension=1, scale=3.0):
    network = Network(make_mapping("gaussian", dimension=dimension, count=16, scale=scale), width=width, depth=1)
    return draw_lazy_weights(network, seed=0)


@pytest.mark.slow
def test_a_wide_network_trains_as_predicted_within_five_percent_for_a_thousand_steps():
    points, targets = line(32)
    network = wide_network()
    rate = 0.1 * stable_rate(tangent_kernel(network, points))
    predicted = linearized(network, points, targets, rate=rate).losses(np.arange(1001))
    measured = descend(network, points, targets, rate=rate, steps=1000)
    assert measured[-1] < 0.02 * measured[0]
    np.testing.assert_allclose(measured, predicted, rtol=0.05)


def test_where_training_went_is_mu_and_gamma_also_at_other_points():
    points, targets = line(16)
    others = points + 0.5 / 16
    network = wide_network()
    kernel, cross = tangent_kernel(network, points), tangent_kernel(network, others, points)
    with torch.no_grad():
        start = network(torch.from_numpy(others).float())[:, 0].double().numpy()
    training = linearized(network, points, targets, rate=0.1 * stable_rate(kernel))
    np.testing.assert_allclose(training.mu(0, cross) + training.gamma(0, cross, start), start)
    descend(network, points, targets, rate=training.rate, steps=200)
    with torch.no_grad():
        found = network(torch.from_numpy(others).float())[:, 0].numpy()
    np.testing.assert_allclose(training.mu(200, cross) + training.gamma(200, cross, start), found, atol=0.02)


def test_linear_measurements_train_as_predicted_and_show_the_picture_behind_them():
    side = 8
    grid = np.stack(np.meshgrid(*[(np.arange(side) + 0.5) / side] * 2), axis=-1).reshape(-1, 2)
    picture = ((grid - 0.45) ** 2).sum(axis=1) < 0.08
    scan = projections(side, 6)
    network = wide_network(dimension=2, scale=1.0)
    kernel = tangent_kernel(network, grid)
    rate = 0.02 * stable_rate(scan @ kernel @ scan.T)
    training = linearized(network, grid, scan @ picture, rate=rate, measurement=scan)
    losses = descend(network, grid, scan @ picture, rate=rate, steps=300, measurement=scan)
    np.testing.assert_allclose(losses, training.losses(np.arange(301)), rtol=0.05)
    with torch.no_grad():
        found = network(torch.from_numpy(grid).float())[:, 0].numpy()
    np.testing.assert_allclose(training.mu(300) + training.gamma(300), found, atol=0.05)
    assert np.mean((training.mu(1e6) > 0.5) == picture) > 0.9


def test_every_angle_of_a_scan_sees_all_of_the_picture():
    scan = projections(9, 5)
    assert scan.shape == (45, 81)
    np.testing.assert_allclose(scan.reshape(5, 9, 81).sum(axis=1), 1 / 9)


def test_equation_4_holds_along_each_eigenvector():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((6, 6))
    kernel, start, targets = root @ root.T, rng.standard_normal(6), rng.standard_normal(6)
    training = LinearizedTraining(kernel, start, targets, 0.01)
    values, vectors = np.linalg.eigh(kernel)
    left = targets - training.mu(30) - training.gamma(30)
    np.testing.assert_allclose(vectors.T @ left, np.exp(-0.3 * values) * (vectors.T @ (targets - start)), atol=1e-9)
    assert training.losses(30) == pytest.approx(0.5 * left @ left)


def test_what_is_too_large_is_refused_with_a_number():
    network = Network(make_mapping("hash"), width=8, depth=1)
    with pytest.raises(ValueError, match=r"take 13\.4 GB; give at most 119 points, or a smaller table"):
        tangent_kernel(network, np.zeros((1500, 3)))
    with pytest.raises(ValueError, match=r"9,000 points and 9,000 others need a dense kernel of 0\.6 GB; give at most"):
        tangent_kernel(wide_network(width=4), np.zeros((9000, 1)))


def test_a_rate_that_is_too_high_is_said():
    points, targets = line(8)
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step \d+ of rate 1000; lower the rate"):
        descend(wide_network(width=64), points, targets, rate=1000.0, steps=100)
