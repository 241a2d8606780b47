"""What the tangent kernel says of a fit before it: how well a mapping, at a scale, will do.

A fit sees millions of points; a dense kernel has some thousand, between which a narrow kernel learns nothing. But where
it matters, at a shape's surface, or anywhere in a picture, the kernel need not look far: about one place the training
points are taken as dense as they are, and further away fewer, each with the weight of those that it stands for
(`Neighbourhood`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ff3d.fields.config import Budget, OptimiserConfig
from ff3d.fields.mapping import Mapping, build_mapping
from ff3d.fields.network import Network
from ff3d.fields.optimise import learning_rate_factor
from ff3d.geometry.arrays import Bools, Floats
from ff3d.geometry.coordinates import UnitCube, grown_box
from ff3d.geometry.sampling import SampleMix, Surface, sample_surface
from ff3d.theory.dynamics import tangent_kernel
from ff3d.theory.images import EVEN, ODD, ImageConfig, coordinates, mapping_of, optimiser_of
from ff3d.theory.kernel_report import kernel_of
from ff3d.theory.ntk import KernelRegression
from ff3d.theory.pictures import Picture

if TYPE_CHECKING:
    from ff3d.labels.oracles import LabelledShape
    from ff3d.settings import FitConfig

FALLOFF = 3.0  # of the share of points that is taken, with the distance: as many in each octave of it, in space
NOISE = 0.01  # units: of the points that are predicted, as of the comparison's test points
NEAR = 2**19  # points near the surface, of which a neighbourhood has its tests
MOST = 2**22  # training points that are drawn; each stands for more of them where a fit sees more
SLOPES = 64  # points at which a network's gradient is taken
SECOND_MOMENT = 0.999  # Adam's
# What gradients grow by, about, while a network learns: by 5 to 10 predicted errors have their least where measured
# ones had it, of a fit of the bunny in 300 steps (docs/theory.md)
GROWTH = 7.0
SLOPE = 0.25  # of a sigmoid at 0: how far a picture's values move for an output


@dataclass(frozen=True)
class Neighbourhood:
    """The training points of a fit as they look from one place, and held-out points about it.

    points (n, d), unit coordinates or a picture's, targets (n,): what the network should say, weights (n,): how many
    training points each stands for.
    tests (m, d), test_targets (m,): where every training point is taken.
    """

    points: Floats
    targets: Floats
    weights: Floats
    tests: Floats
    test_targets: Floats


def neighbourhoods(
    shape: LabelledShape, config: FitConfig, *, places: int = 6, size: int = 1000
) -> list[Neighbourhood]:
    """The training points of a fit of these settings, seen from `places` points of the surface: some `size` of each.

    Targets are +-2, inside and outside: cross-entropy near 0 is least squares to them, but for a factor that Adam does
    not see. Tests lie near the surface.
    """
    rng, sampling = np.random.default_rng(config.seed), config.sampling
    total = (config.budget.steps or 0) * config.optimiser.batch_size // config.optimiser.passes
    count = min(total, MOST)
    cube, surface = UnitCube.padded(shape.mesh.vertices), Surface.of(shape.mesh)
    box = grown_box(shape.mesh, sampling.margin * cube.scale)
    drawn = SampleMix(sampling.uniform, sampling.widths).draw(surface, box, cube.scale, count, rng)
    near = sample_surface(surface, NEAR, rng)[0] + rng.standard_normal((NEAR, 3)) * NOISE * cube.scale
    found = []
    for center in sample_surface(surface, places, rng, weight="even")[0]:
        kept, weights, radius = _seen_from(center, drawn, size, rng)
        tests = near[np.linalg.norm(near - center, axis=1) < radius][:size]
        if not len(tests):
            raise ValueError(f"no test points near one of the places: {total:,} points are too many to predict from")
        targets, test_targets = (np.where(shape.oracle(points), 2.0, -2.0) for points in (drawn[kept], tests))
        weights *= total / count
        found.append(Neighbourhood(cube.to_unit(drawn[kept]), targets, weights, cube.to_unit(tests), test_targets))
    return found


def pixel_neighbourhoods(picture: Picture, *, places: int = 6, size: int = 1000, seed: int = 0) -> list[Neighbourhood]:
    """The even pixels of a picture, as `fit_image` trains on them, seen from `places` of them; tests are odd pixels.

    Targets are grey values from -2 to 2: half the square error of a sigmoid near 0 is least squares to them, but for a
    factor that Adam does not see.
    """
    rng = np.random.default_rng(seed)
    height, width = picture.pixels.shape[:2]
    grey = (picture.pixels.mean(axis=-1).astype(np.float64) - 0.5) / SLOPE
    at = coordinates(height, width).reshape(height, width, 2).astype(np.float64)
    drawn, held_out = at[EVEN].reshape(-1, 2), at[ODD].reshape(-1, 2)
    found = []
    for center in drawn[rng.integers(0, len(drawn), places)]:
        kept, weights, radius = _seen_from(center, drawn, size, rng)
        near = np.linalg.norm(held_out - center, axis=1) < radius
        targets, test_targets = grey[EVEN].reshape(-1)[kept], grey[ODD].reshape(-1)[near]
        found.append(Neighbourhood(drawn[kept], targets, weights, held_out[near], test_targets))
    return found


def _seen_from(center: Floats, points: Floats, size: int, rng: np.random.Generator) -> tuple[Bools, Floats, float]:
    """Some `size` of the points (n, d): whether each is taken (n,), the weights of those, and the radius of all."""
    distances = np.linalg.norm(points - center, axis=1)
    radius = _radius(distances, size)
    shares = _shares(distances, radius)
    kept = rng.random(len(points)) < shares
    return kept, 1 / shares[kept], radius


def _shares(distances: Floats, radius: float) -> Floats:
    """The share of points that is taken at these distances: all within the radius."""
    return np.asarray((radius / np.maximum(distances, max(radius, 1e-300))) ** FALLOFF)


def _radius(distances: Floats, size: int) -> float:
    """That of which `_shares` takes some `size` points in all."""
    low, high = 0.0, float(distances.max())
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _shares(distances, middle).sum() < size else (low, middle)
    return high


def predicted_error(config: FitConfig, places: Sequence[Neighbourhood]) -> float:
    """The share of held-out points near the surface that a fit of these settings will put on the wrong side.

    places: of `neighbourhoods`, for its number of points. Meant for an order of mappings and scales: the shares
    themselves come out too high, for the kernel of a network here does not stay what it was.
    Raises ValueError for settings without steps, as `kernel_of` and as `mapped_kernel`.
    """
    network = _network(build_mapping(config.mapping, seed=config.seed), config)
    outputs = _predicted(network, config.optimiser, config.budget, places)
    return float(np.mean([np.mean(found * at.test_targets <= 0) for found, at in zip(outputs, places, strict=True)]))


def predicted_square(config: ImageConfig, places: Sequence[Neighbourhood], trained: int) -> float:
    """The mean square error of a fit of these settings at a picture's held-out pixels, of grey values in [0, 1].

    places: of `pixel_neighbourhoods`.  trained: pixels that the fit is trained on.  Raises as `predicted_error`.
    """
    network = _network(mapping_of(config), config)
    outputs = _predicted(network, optimiser_of(config, trained), config.budget, places)
    errors = [
        np.clip(0.5 + SLOPE * found, 0, 1) - (0.5 + SLOPE * at.test_targets)
        for found, at in zip(outputs, places, strict=True)
    ]
    return float(np.mean([np.mean(error**2) for error in errors]))


def _network(mapping: Mapping, config: FitConfig | ImageConfig) -> Network:
    """The network of these settings, as it starts, with one output."""
    layers = config.network
    width, depth = layers.hidden_width(mapping.name, mapping.features), layers.hidden_layers(mapping.name)
    return Network(mapping, width=width, depth=depth, seed=config.seed)


def _predicted(
    network: Network, optimiser: OptimiserConfig, budget: Budget, places: Sequence[Neighbourhood]
) -> list[Floats]:
    """What the network will say at each place's tests.

    Kernel regression with the closed form, over the mapping's actual frequencies, for as long as `gradient_time` says.
    """
    if not budget.steps:
        raise ValueError("a fit is predicted for a number of steps; give steps, not seconds")
    kernel = kernel_of(network.mapping, network.depth)
    rate = optimiser.rate(network.mapping.name)
    regressions, times = [], []
    for at in places:
        root = np.sqrt(at.weights / at.weights.sum())
        dense = kernel(at.points, at.points)
        mean = float(root**2 @ np.diagonal(dense))
        regression = KernelRegression(root[:, None] * dense * root / mean, root * at.targets, 1.0)
        slope = float(np.diagonal(tangent_kernel(network, at.points[:SLOPES])).mean())
        speed = rate * math.sqrt(slope * network.parameter_count)
        times.append(gradient_time(regression, speed, optimiser, budget.steps))
        regressions.append((regression, kernel(at.tests, at.points) * root / mean))
    time = GROWTH * float(np.mean(times))
    return [regression.predict(cross, time) for regression, cross in regressions]


def gradient_time(regression: KernelRegression, speed: float, optimiser: OptimiserConfig, steps: int) -> float:
    """How long gradient descent of rate 1 takes to where Adam gets in a fit's steps: an estimate.

    Adam divides each gradient by the root of its running mean square, so that all layers move alike, as the closed form
    has them, and by the learning rate a step: the function moves by `speed`, that rate times the root of the number of
    parameters times the mean square length of its gradient, over the length of the loss's gradient, to which one batch
    adds noise.  regression: on a kernel of mean 1 at one point.
    """
    values, vectors = regression.spectrum
    start = (vectors.T @ regression.targets) ** 2
    time = square = 0.0
    for step in range(steps):
        left = start * np.exp(-2 * values * time)
        noise = left.sum() / optimiser.batch_size
        square = SECOND_MOMENT * square + (1 - SECOND_MOMENT) * float(values @ left + noise)
        factor = learning_rate_factor(optimiser.schedule, step / steps)
        time += factor * speed * math.sqrt((1 - SECOND_MOMENT ** (step + 1)) / square)
    return time


def best_scale(errors: dict[float, float]) -> float:
    """The scale of the least error, by a parabola in the logarithm through it and its neighbours.

    errors: by scale. At an end of the scales it is that end.
    """
    scales = sorted(errors)
    values = [errors[scale] for scale in scales]
    least = int(np.argmin(values))
    if least in (0, len(scales) - 1):
        return scales[least]
    near = slice(least - 1, least + 2)
    curve = np.polyfit(np.log(scales[near]), values[near], 2)
    return float(np.exp(-curve[1] / (2 * curve[0])))
