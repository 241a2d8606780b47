"""What the tangent kernels of mappings say of a shape, or of a picture, before any training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ff3d.fields.config import PAPER_MAPPINGS, MappingName
from ff3d.fields.mapping import make_mapping
from ff3d.geometry.coordinates import UnitCube, grown_box
from ff3d.geometry.cores import available_memory
from ff3d.geometry.sampling import SampleMix
from ff3d.theory.images import EVEN, coordinates, image_config
from ff3d.theory.kernel_report import KernelReport, kernel_of, kernel_report
from ff3d.theory.ntk import check_points
from ff3d.theory.pictures import Picture, fitted_to, load_picture
from ff3d.theory.predictions import (
    best_scale,
    neighbourhoods,
    pixel_neighbourhoods,
    predicted_error,
    predicted_square,
)

if TYPE_CHECKING:
    from ff3d.labels.oracles import Shape

MOMENTS = np.logspace(0, 5, 51)  # steps of gradient descent, at which a shape's kernels are described
STEPS = {10: 10, 100: 20, 1000: 30, 10_000: 40}  # of these, those in tables, with their place


@dataclass(frozen=True)
class Prediction:
    """The predicted error of a fit.  scale: where it is swept.

    error: of a shape the share of points near the surface on the wrong side, of a picture the mean square at held-out
    pixels.
    """

    mapping: str
    scale: float | None
    error: float

    @property
    def name(self) -> str:
        """The mapping, with its scale where that is swept."""
        return self.mapping if self.scale is None else f"{self.mapping} {self.scale:g}"


@dataclass(frozen=True)
class ShapeKernels:
    """What `ntk` returns.  count: labelled points.  predicted: of fits of `fit_steps` steps, if there are any.

    picture: whether these are a picture's kernels, of `ntk_picture`.
    """

    name: str
    count: int
    reports: list[KernelReport]
    fit_steps: int | None = None
    predicted: list[Prediction] = field(default_factory=list)
    picture: bool = False

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

    def said(self, prediction: Prediction) -> str:
        """A predicted error in words."""
        if self.picture:
            return f"PSNR at held-out pixels {-10 * math.log10(max(prediction.error, 1e-10)):.1f} dB"
        return f"error near the surface {100 * prediction.error:.2f}%"

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
    mappings: Sequence[MappingName] = PAPER_MAPPINGS,
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
    Raises ValueError as `check_kernels`, before any work, for a mapping that has no fixed kernel, and for more points
    than a dense kernel may have.
    """
    from ff3d.labels.oracles import load_surface
    from ff3d.settings import make_config

    numbers: dict[str, Any] = {"points": points, "depth": depth, "scale": scale, "scales": scales}
    check_kernels(mappings, fit_steps=fit_steps, places=places, **numbers)
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
        for name, swept, used in _variants(mappings, scale, scales):
            settings = {"mapping": name, "scale": used, "steps": fit_steps, "depth": depth, "seed": seed}
            predicted.append(Prediction(name, swept, predicted_error(make_config("plain", **settings), near)))
    return ShapeKernels(labelled.name, points, reports, fit_steps, predicted)


def ntk_picture(
    picture: str | Path | Picture,
    mappings: Sequence[MappingName] = PAPER_MAPPINGS,
    *,
    points: int = 2000,
    depth: int = 3,
    scale: float | None = None,
    fit_steps: int | None = None,
    scales: Sequence[float] = (),
    places: int = 6,
    size: int = 512,
    slices: int = 64,
    seed: int = 0,
) -> ShapeKernels:
    """`ntk` of a picture's grey values at random pixels, in coordinates as of `fit_image`. Raises as `load_picture`.

    fit_steps: also predict fits of the preset `fast` of so many steps, at so many `places` of the picture.
    size: pixels along the longest side, at most.
    """
    numbers: dict[str, Any] = {"points": points, "depth": depth, "scale": scale, "scales": scales}
    check_kernels(mappings, dimension=2, fit_steps=fit_steps, places=places, size=size, **numbers)
    if not isinstance(picture, Picture):
        picture = load_picture(picture, max_memory=available_memory())
    loaded = fitted_to(picture, size, square=False)
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
    predicted = []
    if fit_steps:
        near = pixel_neighbourhoods(loaded, places=places, seed=seed)
        trained = math.prod(loaded.pixels[EVEN].shape[:2])
        for name, swept, used in _variants(mappings, scale, scales):
            config = image_config("fast", name, scale=used, steps=fit_steps, depth=depth, size=size, seed=seed)
            predicted.append(Prediction(name, swept, predicted_square(config, near, trained)))
    return ShapeKernels(loaded.name, count, reports, fit_steps, predicted, picture=True)


def _variants(
    mappings: Sequence[MappingName], scale: float | None, scales: Sequence[float]
) -> list[tuple[MappingName, float | None, float | None]]:
    """The mappings at `scale` (None: their own), then gaussian at each of `scales`: name, swept scale, scale in use."""
    return [*((name, None, scale) for name in mappings), *(("gaussian", swept, swept) for swept in scales)]


def check_kernels(
    mappings: Sequence[MappingName],
    *,
    dimension: int = 3,
    points: int = 2000,
    depth: int = 4,
    scale: float | None = None,
    fit_steps: int | None = None,
    scales: Sequence[float] = (),
    places: int = 6,
    size: int = 512,
) -> None:
    """Raise ValueError for what `ntk` or, in two dimensions, `ntk_picture` would not do, before any work."""
    if not mappings:
        raise ValueError("give at least one mapping")
    for name, value in (("places", places), ("size", size), ("fit_steps", fit_steps)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be positive, got {value}")
    check_points(points)
    place = np.full((1, dimension), 0.5)
    for mapping, _, used in _variants(mappings, scale, scales):
        kernel_of(make_mapping(mapping, dimension=dimension, scale=used), depth)(place, place)
