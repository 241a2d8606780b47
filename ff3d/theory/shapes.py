"""What the tangent kernel says of a fit before it: how well a mapping, at a scale, will tell inside from outside.

A fit sees millions of points; a dense kernel has some thousand, between which a narrow kernel learns nothing. But where
it matters, at the surface, the kernel need not look far: about one point of the surface the training points are taken
as dense as they are, and further away fewer, each with the weight of those that it stands for (`Neighbourhood`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ff3d.fields.config import PAPER_MAPPINGS
from ff3d.fields.mapping import build_mapping, make_mapping
from ff3d.fields.network import Network
from ff3d.fields.optimise import learning_rate_factor
from ff3d.geometry.arrays import Floats
from ff3d.geometry.coordinates import UnitCube, grown_box
from ff3d.geometry.sampling import SampleMix, Surface, sample_surface
from ff3d.theory.dynamics import tangent_kernel
from ff3d.theory.kernel_report import KernelReport, kernel_of, kernel_report
from ff3d.theory.ntk import MOST_POINTS, KernelRegression

if TYPE_CHECKING:
    from ff3d.labels.oracles import LabelledShape, Shape
    from ff3d.settings import FitConfig

MOMENTS = np.logspace(0, 5, 51)  # steps of gradient descent, at which a shape's kernels are described
STEPS = {10: 10, 100: 20, 1000: 30, 10_000: 40}  # of these, those in tables, with their place
FALLOFF = 3.0  # of the share of points that is taken, with the distance: as many in each octave of it
NOISE = 0.01  # units: of the points that are predicted, as of the comparison's test points
NEAR = 2**19  # points near the surface, of which a neighbourhood has its tests
SLOPES = 64  # points at which a network's gradient is taken
SECOND_MOMENT = 0.999  # Adam's
# What gradients grow by, about, while a network learns: by 5 to 10 predicted errors have their least where measured
# ones had it, of a fit of the bunny in 300 steps (docs/theory.md)
GROWTH = 7.0


@dataclass(frozen=True)
class Neighbourhood:
    """The training points of a fit as they look from one place, and held-out points about it; unit coordinates.

    points (n, 3), labels (n,) +-1, weights (n,): how many training points each stands for.
    tests (m, 3), test_labels (m,) +-1: near the surface, where every training point is taken.
    """

    points: Floats
    labels: Floats
    weights: Floats
    tests: Floats
    test_labels: Floats


def neighbourhoods(
    shape: LabelledShape, config: FitConfig, *, places: int = 6, size: int = 1000
) -> list[Neighbourhood]:
    """The training points of a fit of these settings, seen from `places` points of the surface: some `size` of each."""
    rng, sampling = np.random.default_rng(config.seed), config.sampling
    total = (config.budget.steps or 0) * config.optimiser.batch_size // config.optimiser.passes
    cube, surface = UnitCube.padded(shape.mesh.vertices), Surface.of(shape.mesh)
    box = grown_box(shape.mesh, sampling.margin * cube.scale)
    drawn = SampleMix(sampling.uniform, sampling.widths).draw(surface, box, cube.scale, total, rng)
    near = sample_surface(surface, NEAR, rng)[0] + rng.standard_normal((NEAR, 3)) * NOISE * cube.scale
    found = []
    for center in sample_surface(surface, places, rng, weight="even")[0]:
        distances = np.linalg.norm(drawn - center, axis=1)
        radius = _radius(distances, size)
        shares = _shares(distances, radius)
        kept = rng.random(total) < shares
        tests = near[np.linalg.norm(near - center, axis=1) < radius][:size]
        labels, test_labels = (np.where(shape.oracle(points), 1.0, -1.0) for points in (drawn[kept], tests))
        points, tests = cube.to_unit(drawn[kept]), cube.to_unit(tests)
        found.append(Neighbourhood(points, labels, 1 / shares[kept], tests, test_labels))
    return found


@dataclass(frozen=True)
class Prediction:
    """The predicted share of points near the surface that a fit puts on the wrong side.  scale: where it is swept."""

    mapping: str
    scale: float | None
    error: float

    @property
    def name(self) -> str:
        """The mapping, with its scale where that is swept."""
        return self.mapping if self.scale is None else f"{self.mapping} {self.scale:g}"


@dataclass(frozen=True)
class ShapeKernels:
    """What `ntk` returns.  count: labelled points.  predicted: of plain fits of `fit_steps` steps, if there are any."""

    name: str
    count: int
    reports: list[KernelReport]
    fit_steps: int | None = None
    predicted: list[Prediction] = field(default_factory=list)

    def order(self) -> list[str]:
        """The mappings, the one that is predicted to do worst first: by their fits, else by what is learned at last."""
        if self.predicted:
            errors = {it.mapping: it.error for it in self.predicted if it.scale is None}
            return sorted(errors, key=lambda name: -errors[name])
        return [
            report.mapping for report in sorted(self.reports, key=lambda report: float(report.learned[STEPS[10_000]]))
        ]

    def best_scale(self) -> float | None:
        """The scale of gaussian that is predicted to do best, of those swept; None if none are."""
        errors = {it.scale: it.error for it in self.predicted if it.scale is not None}
        return best_scale(errors) if errors else None

    def learned(self) -> dict[str, list[float]]:
        """The share of the labels' energy that each mapping has learned after `STEPS`."""
        return {it.mapping: it.learned[list(STEPS.values())].tolist() for it in self.reports}

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "points": self.count,
            "steps": list(STEPS),
            "learned": self.learned(),
            "curves": {it.mapping: [it.steps.tolist(), it.learned.tolist()] for it in self.reports},
            "eigenvalues": {it.mapping: it.eigenvalues.tolist() for it in self.reports},
            "kernel": {it.mapping: [it.distances.tolist(), it.profile.tolist()] for it in self.reports},
            "waves": {it.mapping: it.waves.tolist() for it in self.reports},
            "fit_steps": self.fit_steps,
            "predicted": {it.name: it.error for it in self.predicted},
            "best_scale": self.best_scale(),
        }


def ntk(
    shape: Shape,
    mappings: Sequence[str] = PAPER_MAPPINGS,
    *,
    points: int = 2000,
    depth: int = 4,
    scale: float | None = None,
    fit_steps: int | None = None,
    scales: Sequence[float] = (),
    places: int = 6,
    slices: int = 64,
    seed: int = 0,
) -> ShapeKernels:
    """Describe, before any training, the kernel of each mapping at a shape's labelled points, and what it predicts.

    shape: as of `load_surface`.  points: half uniform in the box and half near the surface.  scale: of the mappings
    that have one.  fit_steps: also predict plain fits of so many steps, of each mapping and of gaussian at each of
    `scales`, at so many `places` of the surface.  slices: pixels of a slice's side, 0 for no eigenvectors.
    Raises ValueError for a mapping that has no fixed kernel, and for more points than a dense kernel may have.
    """
    from ff3d.labels.oracles import load_surface
    from ff3d.settings import make_config

    _check_count(points)
    labelled = load_surface(shape)
    cube, config = UnitCube.padded(labelled.mesh.vertices), make_config(steps=fit_steps or 1, seed=seed)
    box = grown_box(labelled.mesh, config.sampling.margin * cube.scale)
    mix = SampleMix(config.sampling.uniform, config.sampling.widths)
    drawn = mix.draw(labelled.mesh, box, cube.scale, points, np.random.default_rng(seed))
    labels, unit = np.where(labelled.oracle(drawn), 1.0, -1.0), cube.to_unit(drawn)
    reports = [
        kernel_report(make_mapping(name, scale=scale, seed=seed), unit, labels, depth=depth, steps=MOMENTS, side=slices)
        for name in mappings
    ]
    predicted = []
    if fit_steps:
        near = neighbourhoods(labelled, config, places=places)
        for name, swept in [*((name, None) for name in mappings), *(("gaussian", it) for it in scales)]:
            settings = {"mapping": name, "scale": swept or scale, "steps": fit_steps, "depth": depth, "seed": seed}
            predicted.append(Prediction(name, swept, predicted_error(make_config("plain", **settings), near)))
    return ShapeKernels(labelled.name, points, reports, fit_steps, predicted)


def ntk_picture(
    picture: str | Path,
    mappings: Sequence[str] = PAPER_MAPPINGS,
    *,
    points: int = 2000,
    depth: int = 4,
    scale: float | None = None,
    slices: int = 64,
    seed: int = 0,
) -> ShapeKernels:
    """`ntk` of a picture's grey values at random pixels, in coordinates as of `fit_image`. Raises as `load_picture`."""
    from ff3d.theory.images import coordinates
    from ff3d.theory.pictures import load_picture

    loaded = load_picture(picture)
    _check_count(points)
    height, width = loaded.pixels.shape[:2]
    count = min(points, height * width)
    chosen = np.random.default_rng(seed).choice(height * width, count, replace=False)
    at = coordinates(height, width)[chosen].astype(np.float64)
    grey = loaded.pixels.reshape(-1, 3)[chosen].mean(axis=1).astype(np.float64)
    reports = [
        kernel_report(
            make_mapping(name, dimension=2, scale=scale, seed=seed), at, grey, depth=depth, steps=MOMENTS, side=slices
        )
        for name in mappings
    ]
    return ShapeKernels(loaded.name, count, reports)


def _check_count(points: int) -> None:
    if not 10 <= points <= MOST_POINTS:
        raise ValueError(f"points must be from 10 to {MOST_POINTS:,}, for a dense kernel of all pairs, got {points:,}")


def _shares(distances: Floats, radius: float) -> Floats:
    """The share of points that is taken at these distances: all within the radius."""
    return np.asarray(np.minimum(1.0, (radius / np.maximum(distances, 1e-300)) ** FALLOFF))


def _radius(distances: Floats, size: int) -> float:
    """That of which `_shares` takes some `size` points in all."""
    low, high = 0.0, float(distances.max())
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _shares(distances, middle).sum() < size else (low, middle)
    return high


def predicted_error(config: FitConfig, places: Sequence[Neighbourhood]) -> float:
    """The share of held-out points near the surface that a fit of these settings will put on the wrong side.

    places: of `neighbourhoods`, for its number of points.  Kernel regression with the closed form, over the mapping's
    actual frequencies, for as long as `gradient_time` says. Meant for an order of mappings and scales: the shares
    themselves come out too high, for the kernel of a network here does not stay what it was.
    Raises ValueError for settings without steps, as `kernel_of` and as `mapped_kernel`.
    """
    if not config.budget.steps:
        raise ValueError("a fit is predicted for a number of steps; give steps, not seconds")
    mapping = build_mapping(config.mapping, seed=config.seed)
    depth = config.network.hidden_layers(mapping.name)
    width = config.network.hidden_width(mapping.name, mapping.features)
    network = Network(mapping, width=width, depth=depth, seed=config.seed)
    kernel = kernel_of(mapping, depth)
    regressions, times = [], []
    for at in places:
        root = np.sqrt(at.weights / at.weights.sum())
        dense = kernel(at.points, at.points)
        mean = float(root**2 @ np.diagonal(dense))
        # cross-entropy near 0 is least squares to +-2, but for a factor that Adam does not see
        regression = KernelRegression(root[:, None] * dense * root / mean, 2 * root * at.labels, 1.0)
        slope = float(np.diagonal(tangent_kernel(network, at.points[:SLOPES])).mean())
        times.append(gradient_time(regression, math.sqrt(slope * network.parameter_count), config))
        regressions.append((regression, kernel(at.tests, at.points) * root / mean, at.test_labels))
    time = GROWTH * float(np.mean(times))
    wrong = [np.mean(it.predict(cross, time) * labels <= 0) for it, cross, labels in regressions]
    return float(np.mean(wrong))


def gradient_time(regression: KernelRegression, speed: float, config: FitConfig) -> float:
    """How long gradient descent of rate 1 takes to where Adam gets in a fit's steps: an estimate.

    Adam divides each gradient by the root of its running mean square, so that all layers move alike, as the closed form
    has them, and by `learning_rate` a step: the function moves by that times `speed`, the root of the number of
    parameters times the mean square length of its gradient, over the length of the loss's gradient, to which one batch
    adds noise.  regression: on a kernel of mean 1 at one point.
    """
    steps, rate, batch = (
        config.budget.steps or 0,
        config.optimiser.rate(config.mapping.name),
        config.optimiser.batch_size,
    )
    values, vectors = regression.spectrum
    start = (vectors.T @ regression.targets) ** 2
    time = square = 0.0
    for step in range(steps):
        left = start * np.exp(-2 * values * time)
        square = SECOND_MOMENT * square + (1 - SECOND_MOMENT) * float(values @ left + left.sum() / batch)
        factor = rate * learning_rate_factor(config.optimiser.schedule, step / steps)
        time += factor * speed * math.sqrt((1 - SECOND_MOMENT ** (step + 1)) / square)
    return time


def best_scale(errors: Mapping[float, float]) -> float:
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
