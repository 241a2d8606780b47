"""Points and boxes: UnitCube, the transform input coordinates <-> unit cube, and what checks points."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from ff3d.geometry.arrays import Box, Floats, Ints, Points

if TYPE_CHECKING:
    import trimesh

MANY = 10_000  # points that are worth ordering


def grown_box(mesh: trimesh.Trimesh, margin: float) -> Box:
    """The mesh's bounding box (2, 3) grown by `margin` input units on every side."""
    return np.array([mesh.vertices.min(axis=0) - margin, mesh.vertices.max(axis=0) + margin])


def box_in_words(low: Iterable[float], high: Iterable[float]) -> str:
    """A box by its lowest and highest corner (3,): its sides and those corners.

    >>> box_in_words((0, 0, 0), (1, 2, 3))
    '1 x 2 x 3, from (0, 0, 0) to (1, 2, 3)'
    """
    first, last = tuple(low), tuple(high)
    corners = ("(" + ", ".join(f"{x:.6g}" for x in corner) + ")" for corner in (first, last))
    return f"{' x '.join(f'{b - a:.6g}' for a, b in zip(first, last, strict=True))}, from {' to '.join(corners)}"


def groups_apart(points: Points, members: Ints) -> Ints:
    """The group (n,) of each of n sets of points (v, 3), members (n, k), where gaps along the axes separate groups.

    Sets on two sides of a plane across an axis that lies in a gap are in two groups. Gaps of over a 128th of the
    longest side of the box about all are found, shorter ones need not be. Groups are numbered from 0.
    """
    bins = 256
    used = np.zeros(len(points), dtype=bool)
    used[members] = True
    low, high = points[used].min(axis=0), points[used].max(axis=0)
    longest = float((high - low).max())
    group, divided = np.zeros(len(members), dtype=np.int64), False
    for axis in range(3 if longest > 0 else 0):
        place = np.zeros(len(points), dtype=np.int16)
        place[used] = np.clip(bins / longest * (points[used, axis] - low[axis]), 0, bins - 1)
        places = [place[member] for member in members.T]
        first, last = np.minimum.reduce(places), np.maximum.reduce(places)
        begun = np.bincount(first, minlength=bins + 1) - np.bincount(last + 1, minlength=bins + 1)
        occupied = np.cumsum(begun) > 0
        run = np.cumsum(np.diff(occupied, prepend=False) & occupied)  # the number of each stretch of occupied bins
        if run[-1] > 1:
            group, divided = group * (bins + 1) + run[first], True
    return np.unique(group, return_inverse=True)[1].reshape(-1) if divided else group


def centered(points: Points) -> Points:
    """points about the centre of their box, over its longest side: no square under- or overflows."""
    low, high = points.min(axis=0), points.max(axis=0)
    local: Floats = (points - (low + (high - low) / 2)) / (float((high - low).max()) or 1.0)
    return local


@dataclass(frozen=True)
class UnitCube:
    """The transform between input coordinates and the unit cube [0, 1]^3.

    center: the input point that lands at (0.5, 0.5, 0.5).  scale: the side of the cube in input units, > 0.
    Raises ValueError unless all four numbers are finite and scale > 0.

    >>> cube = UnitCube((100.0, 0.0, 0.0), 8.0)
    >>> cube.to_unit([[100, 0, 0], [104, -4, 2]]).tolist()
    [[0.5, 0.5, 0.5], [1.0, 0.0, 0.75]]
    >>> cube.from_unit([[0.5, 0.5, 0.5]]).tolist()
    [[100.0, 0.0, 0.0]]
    """

    center: tuple[float, float, float]
    scale: float

    def __post_init__(self) -> None:
        center, scale = tuple(float(x) for x in self.center), float(self.scale)
        if len(center) != 3 or not all(math.isfinite(x) for x in center):
            raise ValueError(f"center must be 3 finite numbers, got {self.center}")
        if not (math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale must be a finite number of input units above 0, got {self.scale}")
        object.__setattr__(self, "center", center)
        object.__setattr__(self, "scale", scale)

    @classmethod
    def paper(cls, vertices: ArrayLike) -> UnitCube:
        """The cube of Tancik et al. 2020 (arXiv:2006.10739), section E.2.

        vertices (v, 3) minus their mean, over their largest absolute coordinate: [-1, 1]^3, mapped to [0, 1]^3.
        Raises ValueError if there are none, if one is not finite, or if all lie in one point.
        """
        points = _box_points(vertices)
        # relative to one vertex: sums of coordinates far from the origin would lose digits
        mean = points[:1].sum(axis=0) + (points - points[:1]).sum(axis=0) / len(points)
        return cls(tuple(mean.tolist()), 2 * float(np.abs(points - mean).max()))

    @classmethod
    def padded(cls, vertices: ArrayLike, padding: float = 0.05) -> UnitCube:
        """The cube about the bounding box of vertices (v, 3), whose longest side takes 1 - 2 padding of it.

        Raises ValueError if there are no vertices, if one is not finite, if all lie in one point, or if padding
        is not in [0, 0.5).
        """
        points = _box_points(vertices)
        if not 0 <= padding < 0.5:
            raise ValueError(f"padding must be in [0, 0.5), a fraction of the cube's side, got {padding}")
        low, high = points.min(axis=0), points.max(axis=0)
        return cls(tuple((low + (high - low) / 2).tolist()), float((high - low).max()) / (1 - 2 * padding))

    def to_unit(self, points: ArrayLike) -> Points:
        """points (n, 3), input coordinates -> (n, 3) float64, unit coordinates. Raises ValueError by shape."""
        unit: Floats = (_points(points) - self.center) / self.scale + 0.5
        return unit

    def from_unit(self, points: ArrayLike) -> Points:
        """points (n, 3), unit coordinates -> (n, 3) float64, input coordinates. Raises ValueError by shape."""
        placed: Floats = (_points(points) - 0.5) * self.scale + self.center
        return placed

    def to_json(self) -> dict[str, Any]:
        """Plain JSON, exact: `from_json` gives the same cube back, bit for bit."""
        return {"center": list(self.center), "scale": self.scale}

    @classmethod
    def from_json(cls, data: object) -> UnitCube:
        """Read what `to_json` wrote; ValueError for missing or extra keys and for anything but finite numbers."""
        if not isinstance(data, dict) or set(data) != {"center", "scale"}:
            raise ValueError(f'a unit cube is {{"center": [x, y, z], "scale": s}}, got {str(data)[:200]}')
        center, scale = data["center"], data["scale"]
        if not isinstance(center, list | tuple) or any(type(x) not in (int, float) for x in (*center, scale)):
            raise ValueError(f"center must be 3 numbers and scale a number, got {str(data)[:200]}")
        return cls(tuple(center), scale)


def check_points(points: ArrayLike) -> Points:
    """points as float64 (n, 3); ValueError for any other shape, or for a coordinate that is not finite."""
    array = _points(points)
    if not np.isfinite(array).all():
        raise ValueError(f"points must be finite, got {int((~np.isfinite(array)).any(axis=1).sum())} that are not")
    return array


def _box_points(vertices: ArrayLike) -> Points:
    """vertices as float64 (v, 3), v > 0; ValueError if there are none or one is not finite."""
    points = _points(vertices)
    if not len(points) or not np.isfinite(points).all():
        raise ValueError(f"vertices must be finite and at least one, got {len(points)}")
    return points


def _points(points: ArrayLike) -> Points:
    """points as float64 (n, 3); ValueError for any other shape."""
    array = np.asarray(points, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 3:
        hint = "; transpose them?" if array.ndim == 2 and array.shape[0] == 3 else ""
        raise ValueError(f"points must have shape (n, 3), got {array.shape}{hint}")
    return array


def order_in_space(points: Floats, *, cells: float = 64.0) -> Ints:
    """An order (n,) of points (n, 3) in which neighbours in space follow one another, by cells of a unit each way.

    Such neighbours walk the same branches of a tree, which then stay in the cache. It pays from about `MANY` points on.
    """
    place = cells * np.clip(points, -64 / cells, 126.9 / cells)
    return np.lexsort(place.T.astype(np.int8))
