"""What is extracted: the signed distance of what a shape encloses, and where its surface may lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Floats, Inside, Ints, Singles
from ff3d.geometry.distances import NearestFaces, TruncatedDistance
from ff3d.geometry.triangles import HalfEdges, components, cross_products, merge_exactly, unit_vectors
from ff3d.surfaces.grid_levels import Guide, Logits

if TYPE_CHECKING:
    import trimesh

    from ff3d.labels.winding_number import WindingNumberOracle

REACH = 2.5  # cells up to which distances are exact: those of a crossed edge's ends are at most 1
LIFT = 1 / 256  # sizes of details: how far from a face its two sides are queried
TOLERANCE = 0.01  # cells: what lies nearer to the surface lies on it


class DistanceField:
    """The signed distance in cells, positive inside: points (n, 3), input coordinates -> (n,) float32.

    The distance is exact, to the triangles of `surface`, and clipped at `REACH` cells past where it counts; the oracle
    alone says its sign. Nearer than `TOLERANCE`, where no sign matters, the oracle is not queried and 0 comes.
    surface: what has inside on one side and outside on the other.  cell, offset: input units; with an offset the
    surface lies that far outward of the shape's.
    """

    def __init__(self, surface: trimesh.Trimesh, oracle: Inside, *, cell: float, offset: float = 0.0):
        self.oracle, self.offset = oracle, offset / cell
        reach = REACH + abs(self.offset)
        self._distance = TruncatedDistance(surface.vertices, surface.faces, reach, unit=cell)

    def __call__(self, points: Floats) -> Singles:
        """points (n, 3), input coordinates -> (n,)."""
        distance = self._distance(points)
        distance[distance <= TOLERANCE] = 0.0
        apart = np.flatnonzero(distance)
        outside = apart[~self.oracle(points[apart])]
        distance[outside] *= -1
        distance += np.float32(self.offset)
        return distance


class Slabs:
    """Sheets as slabs: half their thickness less the distance to them, in cells, clipped at `REACH` beyond.

    thickness, cell: input units.
    """

    def __init__(self, sheets: trimesh.Trimesh, *, thickness: float, cell: float):
        self._half = np.float32(thickness / 2 / cell)
        self._distance = TruncatedDistance(sheets.vertices, sheets.faces, float(self._half) + REACH, unit=cell)

    def __call__(self, points: Floats) -> Singles:
        """points (n, 3), input coordinates -> (n,)."""
        return self._half - self._distance(points)


def guide_to(nearest: NearestFaces, slack: float) -> Guide:
    """Whether cubes come within `slack`, input units, of triangles."""

    def may_hold_surface(centers: Floats, side: float) -> NDArray[np.bool_]:
        near: NDArray[np.bool_] = nearest(centers)[0] <= side * math.sqrt(3) / 2 + slack
        return near

    return may_hold_surface


def guide_of(oracle: WindingNumberOracle, offset: float) -> Guide:
    """Where labels change, or what lies `offset` from there, by an oracle's cell grid."""
    cube, grown = oracle.cube, 2 * abs(offset) / oracle.cube.scale

    def may_hold_surface(centers: Floats, side: float) -> NDArray[np.bool_]:
        # a coarse extraction never comes here, and needs no grid
        return oracle.grid.may_hold_surface(cube.to_unit(centers), side / cube.scale + grown)

    return may_hold_surface


def either(guides: Sequence[Guide]) -> Guide:
    """The guide that says yes where one of several does."""
    if len(guides) == 1:
        return guides[0]

    def may_hold_surface(centers: Floats, side: float) -> NDArray[np.bool_]:
        found = np.zeros(len(centers), dtype=bool)
        for guide in guides:
            found[~found] = guide(centers[~found], side)
        return found

    return may_hold_surface


def any_of(oracles: Sequence[Inside]) -> Inside:
    """The oracle of what is inside for one of several."""

    def inside(points: Floats) -> NDArray[np.bool_]:
        found = np.zeros(len(points), dtype=bool)
        for oracle in oracles:
            found[~found] = oracle(points[~found])
        return found

    return inside


def highest(fields: Sequence[Logits]) -> Logits:
    """The union of what several functions have inside."""
    return fields[0] if len(fields) == 1 else lambda points: np.maximum.reduce([field(points) for field in fields])


def joined(first: trimesh.Trimesh | None, other: trimesh.Trimesh) -> trimesh.Trimesh:
    """The faces of both."""
    import trimesh

    if first is None:
        return other
    vertices, faces = [first.vertices, other.vertices], [first.faces, np.asarray(other.faces) + len(first.vertices)]
    return trimesh.Trimesh(np.concatenate(vertices), np.concatenate(faces), process=False)


def outward(surface: trimesh.Trimesh, inside: Inside, size: float) -> trimesh.Trimesh:
    """The surface with each face that has inside in front of it alone turned.  size: of details, input units.

    Faces that hang together and are wound alike are turned together, by three of them if those agree.
    """
    import trimesh

    vertices, faces = np.asarray(surface.vertices, dtype=np.float64), np.asarray(surface.faces, dtype=np.int64)

    def turned(some: Ints) -> NDArray[np.bool_]:
        corners = vertices[faces[some]]
        middle, lift = corners.mean(axis=1), LIFT * size * unit_vectors(cross_products(corners))
        found: NDArray[np.bool_] = inside(middle + lift) & ~inside(middle - lift)
        return found

    edges = HalfEdges.of(merge_exactly(vertices)[1][faces], len(vertices))
    alike = np.flatnonzero((edges.count == 2) & (edges.balance == 0))
    first = np.searchsorted(edges.edge, alike)  # the half-edges of an edge lie side by side
    group = components(edges.face[first], edges.face[first + 1], len(faces))
    order = np.argsort(group, kind="stable")
    begin, count = np.unique(group[order], return_index=True, return_counts=True)[1:]
    votes = np.sum([turned(order[begin + part * (count - 1) // 2]) for part in range(3)], axis=0)[group]
    turn = votes == 3
    mixed = np.flatnonzero((votes > 0) & ~turn)
    turn[mixed] = turned(mixed)
    return trimesh.Trimesh(vertices, np.where(turn[:, None], faces[:, ::-1], faces), process=False)
