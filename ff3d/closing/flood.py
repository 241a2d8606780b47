"""What a mesh cuts off from outside, by a flood fill of cells: for surfaces that no winding number settles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ff3d.geometry.arrays import Floats
from ff3d.geometry.coordinates import check_points
from ff3d.geometry.distances import NearestFaces
from ff3d.geometry.surface_cells import floor_cells, touched_cells

if TYPE_CHECKING:
    import trimesh

FINEST = 512  # cells along the longest side; finer ones take too much memory
STEPS = 16  # away from the surface, until a cell is reached that no triangle touches
WALLS = 8_000_000  # pairs of a triangle and a cell that it touches; where there would be more, cells are larger
MARGIN = 2.5  # cells between the surface and the end of the grid
OUTSIDE, INSIDE, TOUCHED = 0, 1, 2


class FloodOracle:
    """Inside is what no path leads to from outside through cells that no triangle touches.

    A point in a touched cell belongs with the first other cell that it reaches on a path that crosses no triangle:
    from ball to ball, each as large as the distance to the surface allows, always away from what is nearest. Where it
    reaches none, in gaps narrower than a cell, it counts as inside. So a slit narrower than a cell is closed, and a
    sheet that cuts nothing off has outside on both sides.
    cell: their side, input units; no less than 1 / `FINEST` of the longest side.
    """

    def __init__(self, mesh: trimesh.Trimesh, cell: float):
        from scipy import ndimage

        corners = np.asarray(mesh.vertices, dtype=np.float64)[np.asarray(mesh.faces, dtype=np.int64)]
        low, high = corners.min(axis=(0, 1)), corners.max(axis=(0, 1))
        self.cell = max(cell, float((high - low).max()) / FINEST)
        self._lower = low - MARGIN * self.cell
        _, touched, level = touched_cells((corners - self._lower) / self.cell, WALLS)
        shape = np.ceil((high - self._lower) / self.cell + MARGIN).astype(int)
        if level:  # too many to be distinguished
            self.cell *= 2**level
            self._lower -= self.cell  # the grid still ends in cells that nothing touches
            touched, shape = touched + 1, -(-shape // 2**level) + 2
        walls = np.zeros(shape, dtype=bool)
        walls[tuple(touched.T)] = True
        parts, _ = ndimage.label(~walls)
        self._label = np.where(parts == parts[0, 0, 0], OUTSIDE, INSIDE).astype(np.uint8)
        self._label[walls] = TOUCHED
        self._nearest = NearestFaces(mesh)

    def __call__(self, points: ArrayLike) -> NDArray[np.bool_]:
        """points (n, 3), input coordinates -> (n,) bool, True inside."""
        place = check_points(points).copy()
        label = self._look_up(place)
        rest = np.flatnonzero(label == TOUCHED)
        for _ in range(STEPS):
            if not len(rest):
                break
            distance, _, foot = self._nearest(place[rest])
            away = place[rest] - foot
            with np.errstate(invalid="ignore", divide="ignore"):
                step = np.nan_to_num(away / np.linalg.norm(away, axis=1, keepdims=True))
            place[rest] += 0.99 * distance[:, None] * step  # the ball itself, and no triangle, is within that
            label[rest] = self._look_up(place[rest])
            rest = rest[label[rest] == TOUCHED]
        inside: NDArray[np.bool_] = label != OUTSIDE
        return inside

    def _look_up(self, points: Floats) -> NDArray[np.uint8]:
        """The labels of the cells that points lie in; beyond the grid everything is outside."""
        index = floor_cells((points - self._lower) / self.cell)
        index = np.clip(index, 0, np.array(self._label.shape) - 1)  # the outermost cells are outside
        return self._label[tuple(index.T)]
