"""SurfaceCells: the labelled coarse cells by which a surface is found again, and a field guarded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Box, Floats, Ints, Labels, PointFloats, Points
from ff3d.geometry.sampling import rows_by_weight
from ff3d.geometry.touching import REACH, floor_cells

OUTSIDE, INSIDE, UNKNOWN, TOUCHED = 0, 1, 2, 3


@dataclass(frozen=True)
class SurfaceCells:
    """The cells of a coarse grid: what is kept of a cell grid to find the surface by, and to guard a field.

    lower: the grid's lowest corner (3,), unit coordinates.  side: of a cell.
    labels: (nx, ny, nz) uint8, `OUTSIDE` or `INSIDE` throughout, `TOUCHED` by the surface, or `UNKNOWN`; the outermost
    layer stands for all space beyond.
    """

    lower: Floats
    side: float
    labels: NDArray[np.uint8]

    @cached_property
    def _counted(self) -> Ints:
        """How many cells are touched below each corner of the grid (nx + 1, ny + 1, nz + 1)."""
        return np.pad(self.labels == TOUCHED, ((1, 0),) * 3).astype(np.int64).cumsum(0).cumsum(1).cumsum(2)

    @cached_property
    def _open(self) -> Ints:
        """The cells (3, m) that have no label."""
        return np.argwhere(self.labels >= UNKNOWN).T

    @cached_property
    def _sides(self) -> NDArray[np.int8]:
        """Of each cell: -2 and 2 outside and inside, -1 and 1 the same beside a cell that has no label, which is 0."""
        side = np.choose(np.minimum(self.labels, UNKNOWN), (-2, 2, 0)).astype(np.int8)
        near = side == 0  # grown by a cell along each axis in turn; not by scipy, which a bare machine lacks
        for axis in range(3):
            along, grown = np.moveaxis(near, axis, 0), near.copy()
            target = np.moveaxis(grown, axis, 0)
            target[1:] |= along[:-1]
            target[:-1] |= along[1:]
            near = grown
        side[near] //= 2
        return side

    def sides(self, points: NDArray[np.floating]) -> NDArray[np.int8]:
        """points (n, 3), finite, unit coordinates -> (n,): negative outside, positive inside, 0 not known.

        1 where the surface may be as near as the next cell, 2 where it is further.
        """
        last = np.array(self.labels.shape) - 1
        x, y, z = np.clip(floor_cells((points - self.lower) / self.side), 0, last).T
        return self._sides[x, y, z]

    def _edges(self, bounds: Box) -> list[Floats]:
        """Where cells end along each axis of a box (2, 3), to which the outermost reach."""
        edges = []
        for axis, cells in enumerate(self.labels.shape):
            low, high = bounds[:, axis]
            inner = self.lower[axis] + np.arange(1, cells) * self.side
            edges.append(np.concatenate([[low], np.clip(inner, low, high), [high]]))
        return edges

    def settled(self, bounds: Box, winding_number: Callable[[Points], PointFloats]) -> SurfaceCells:
        """The same with labels for the outermost cells, if no more of the space beyond counts than a box.

        Of a surface with holes nothing is known of all space, and a field that must learn it has less for the rest. A
        cell is taken as outside or inside if the winding number is under 1/4 or over 3/4 at all of its corners: no
        triangle touches the cell, so between them it is smooth. Not a proof, as the other labels have.
        bounds: the box (2, 3), and what `winding_number` takes: unit coordinates.
        """
        outermost = np.ones(self.labels.shape, dtype=bool)
        outermost[1:-1, 1:-1, 1:-1] = False
        cells, edges = np.argwhere(outermost & (self.labels == UNKNOWN)).T, self._edges(bounds)
        corners = [
            np.stack([edge[cell + i] for edge, cell, i in zip(edges, cells, corner, strict=True)], axis=1)
            for corner in product((0, 1), repeat=3)
        ]
        numbers = winding_number(np.concatenate(corners)).reshape(8, -1)
        labels = self.labels.copy()
        labels[tuple(cells)] = np.select(
            [numbers.max(axis=0) < 0.25, numbers.min(axis=0) > 0.75], [OUTSIDE, INSIDE], UNKNOWN
        )
        return replace(self, labels=labels)

    def draw(self, count: int, rng: np.random.Generator, bounds: Box) -> Points:
        """Points (count, 3), uniform where a box has no label. bounds: the box (2, 3). All in unit coordinates.

        Raises ValueError if all of the box has labels.
        """
        edges = self._edges(bounds)
        widths = [np.diff(planes) for planes in edges]
        cells = self._open
        volumes = np.prod([width[cell] for width, cell in zip(widths, cells, strict=True)], axis=0)
        cumulative = np.cumsum(volumes)
        if not (len(cumulative) and cumulative[-1] > 0):
            raise ValueError("all of the box has labels")
        chosen = rows_by_weight(cumulative, rng.random(count))
        each = zip(edges, widths, cells[:, chosen], rng.random((3, count)), strict=True)
        return np.stack([edge[cell] + width[cell] * place for edge, width, cell, place in each], axis=1)

    def __call__(self, centers: Points, side: float) -> Labels:
        """Whether cubes meet a touched cell: centers (n, 3) and side, unit coordinates -> (n,) bool.

        False for cubes of less than 3/4 of this grid's side: finer cells are for the function itself to tell.
        """
        if side < 0.75 * self.side:
            return np.zeros(len(centers), dtype=bool)
        shape = np.array(self.labels.shape)
        # the outermost cells stand for all beyond
        first = np.clip(floor_cells((centers - side / 2 - self.lower) / self.side - REACH), 0, shape - 1).T
        last = np.clip(floor_cells((centers + side / 2 - self.lower) / self.side + REACH), 0, shape - 1).T + 1
        total = np.zeros(len(centers), dtype=np.int64)
        for i, j, k in product((0, 1), repeat=3):
            sign = 1 if (i + j + k) % 2 else -1
            total += sign * self._counted[(first, last)[i][0], (first, last)[j][1], (first, last)[k][2]]
        return total > 0
