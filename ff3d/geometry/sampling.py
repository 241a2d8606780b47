"""Query-point sampling: uniform in a box, on a surface, near it, and a mix of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from ff3d.geometry.arrays import Corners, FaceFloats, FaceVectors, Floats, Ints, PointIndices, Points
from ff3d.geometry.triangles import cross_products

if TYPE_CHECKING:
    import trimesh


def sample_uniform(bounds: ArrayLike, count: int, rng: Generator) -> Points:
    """`count` points (count, 3), uniform in the box `bounds` (2, 3)."""
    low, high = np.asarray(bounds, dtype=np.float64)
    points: Floats = low + (high - low) * rng.random((count, 3))
    return points


def sample_near_surface(
    mesh: trimesh.Trimesh | Surface, count: int, *, std: float | ArrayLike, rng: Generator
) -> Points:
    """Points spread evenly on the surface plus Gaussian noise: (count, 3), input coordinates, in the faces' order.

    std: the noise, input units; several widths share the points evenly, in turn.
    Raises ValueError if the mesh has no area.  Source: Tancik et al. 2020, section E.2 (there: over vertices).
    """
    points, _ = sample_surface(mesh, count, rng, weight="even")
    widths = np.atleast_1d(np.asarray(std, dtype=np.float64))
    points += rng.standard_normal((count, 3)) * widths[np.arange(count) % len(widths), None]
    return points


@dataclass(frozen=True)
class SampleMix:
    """Which points a fit queries: a share uniform in the box, the rest near the surface at several widths.

    widths: standard deviations of the noise, in units of the cube's side.
    everywhere: what draws the uniform points in place of the box, from count and rng, (count, 3) input coordinates.
    """

    uniform: float
    widths: tuple[float, ...]
    everywhere: Callable[[int, Generator], Points] | None = None

    def draw(
        self, mesh: trimesh.Trimesh | Surface, bounds: ArrayLike, unit: float, count: int, rng: Generator
    ) -> Points:
        """Exactly `count` points in random order: (count, 3), input coordinates.  unit: input units a unit."""
        far = round(count * self.uniform) if self.widths else count
        points = self.everywhere(far, rng) if self.everywhere else sample_uniform(bounds, far, rng)
        if far == count:
            return points
        near = sample_near_surface(mesh, count - far, std=unit * np.array(self.widths), rng=rng)
        return np.concatenate([points, near])[rng.permutation(count)]


@dataclass(frozen=True)
class Surface:
    """Triangles to draw points on: corners (f, 3, 3), finite. Make it once where points are drawn repeatedly."""

    corners: Corners

    @classmethod
    def of(cls, mesh: trimesh.Trimesh | Surface) -> Surface:
        """The surface of a mesh. Raises ValueError for NaN or Inf in its faces."""
        if isinstance(mesh, Surface):
            return mesh
        faces = np.asarray(mesh.faces, dtype=np.int64).reshape(-1, 3)
        corners = np.asarray(mesh.vertices, dtype=np.float64).reshape(-1, 3)[faces]
        if not np.isfinite(corners).all():
            raise ValueError("a surface must have finite vertices, got NaN or Inf; remove those faces")
        return cls(corners)

    @cached_property
    def crosses(self) -> FaceVectors:
        """Normals (f, 3) as long as twice the faces' areas. Unit: the longest edge, so that no tiny mesh underflows."""
        offsets = self.corners - self.corners[:, :1]
        offsets /= np.abs(offsets).max(initial=0) or 1.0
        return cross_products(offsets)

    @cached_property
    def cumulative(self) -> FaceFloats:
        """Twice the area of all faces up to each (f,), in the same unit."""
        return np.cumsum(np.linalg.norm(self.crosses, axis=1))

    def sample(
        self, count: int, rng: Generator, weight: Literal["area", "face", "even"] = "area"
    ) -> tuple[Points, PointIndices]:
        """As `sample_surface`."""
        if not len(self.corners):
            raise ValueError("cannot sample a surface without faces")
        if weight == "face":
            chosen = rng.integers(len(self.corners), size=count)
        elif weight in ("area", "even"):
            total = self.cumulative[-1]
            if not total > 0:
                raise ValueError("cannot sample a surface without area: every face is a line or a point")
            place = rng.random(count)
            if weight == "even":
                place = (np.arange(count) + place) / count
            chosen = rows_by_weight(self.cumulative, place)
        else:
            raise ValueError(f"weight must be 'area', 'face' or 'even', got {weight!r}")
        share = rng.random((count, 2))
        folded = share.sum(axis=1) > 1
        share[folded] = 1 - share[folded]
        first = self.corners[chosen, 0]
        return first + np.einsum("nk,nkd->nd", share, self.corners[chosen, 1:] - first[:, None]), chosen


def rows_by_weight(cumulative: Floats, places: Floats) -> Ints:
    """Rows (n,) of a table of which each takes a share of [0, 1] by its weight; the row at each of places (n,) in it.

    cumulative (m,): the sum of the weights up to each row, the last > 0. No row of weight 0 is returned.

    >>> rows_by_weight(np.cumsum([0.0, 1.0, 0.0, 3.0, 0.0]), np.array([0.0, 0.2, 0.25, 1.0])).tolist()
    [1, 1, 3, 3]
    """
    total = cumulative[-1]
    # "right" never lands on a row of weight 0; the minimum guards the last step's rounding
    chosen = np.searchsorted(cumulative, places * total, side="right")
    return np.minimum(chosen, np.searchsorted(cumulative, total))


def sample_surface(
    mesh: trimesh.Trimesh | Surface, count: int, rng: Generator, *, weight: Literal["area", "face", "even"] = "area"
) -> tuple[Points, PointIndices]:
    """`count` points on the mesh, uniform within a face, and the face of each: (count, 3) float64, (count,).

    weight: faces are chosen by their area, or each alike (as in the notebook of Tancik et al. 2020), so that the
    points crowd where the triangles are small. `even`: by their area too, but in their order, one point in each of
    `count` equal parts of the area (stratified sampling): each face gets its share of the points to within one.
    Raises ValueError if the mesh has no faces, or NaN in them, or for `area` no area; or for an unknown weight.
    """
    return Surface.of(mesh).sample(count, rng, weight)


def sample_segments(ends: Floats, count: int, rng: Generator) -> tuple[Points, PointIndices]:
    """`count` points on line segments, ends (s, 2, 3), evenly by length, and the segment of each: (count, 3), (count,).

    One lies in each of `count` equal parts of the length. Raises ValueError if there is no length.
    """
    cumulative = np.cumsum(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1))
    if not len(ends) or not cumulative[-1] > 0:
        raise ValueError("cannot sample segments without length")
    chosen = rows_by_weight(cumulative, (np.arange(count) + rng.random(count)) / count)
    share = rng.random((count, 1))
    return (1 - share) * ends[chosen, 0] + share * ends[chosen, 1], chosen


def spread(part: Ints, area: Floats, each: int) -> Ints:
    """Faces (parts * each,) that stand for their parts: `each` of every part, evenly over its area.

    part (f,): from 0 on, none empty.
    """
    order = np.argsort(part, kind="stable")
    cumulative, end = np.cumsum(area[order]), np.cumsum(np.bincount(part))
    start = np.concatenate([[0], end[:-1]])
    before = cumulative[start] - area[order[start]]
    share = (np.arange(each) + 0.5) / each
    targets = before[:, None] + np.bincount(part, area)[:, None] * share
    places = np.searchsorted(cumulative, targets.ravel()).reshape(targets.shape)
    return order[np.clip(places, start[:, None], end[:, None] - 1)].ravel()
