"""Which cells of a grid triangles touch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Corners, Floats, Ints
from ff3d.geometry.cores import threads

# How far, in fine cells, a triangle reaches past itself: far more than the rounding of a float32 unit coordinate
# (3e-5 cells), so that no point is looked up in a cell on the other side of a triangle.
REACH = 1e-3
CHUNK = 2**12  # triangles that pass through the caches together
PAIRS = 8_000_000  # of a triangle and a cell that it may touch; where more are expected the cells stay larger


def touched_cells(triangles: Corners) -> tuple[Ints, int]:
    """The cells that triangles touch, or come nearer to than `REACH`: ((m, 3), level), cells of side 2^level.

    triangles: (f, 3, 3), in fine cells. A cell comes once for each triangle that touches it. The level is 0 unless
    more than `PAIRS` of these are expected.
    """
    low, high = triangles.min(axis=1) - REACH, triangles.max(axis=1) + REACH
    extent = (high - low).max(axis=1)
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    area, level = float(np.abs(normals).sum()), 0
    while area / 4**level + 3 * float(extent.sum()) / 2**level > PAIRS + 8 * len(triangles) and level < 9:
        level += 1
    # a triangle starts at cells about as large as it is, and goes on into the eighths of those that it touches
    starts = np.maximum(level, np.floor(np.log2(extent))).astype(int)
    face, cell = np.zeros(0, dtype=np.int64), np.zeros((0, 3), dtype=np.int64)
    with ThreadPoolExecutor(threads()) as pool:
        for here in range(int(starts.max(initial=level)), level - 1, -1):
            old, size = len(cell), 2.0**here
            face = np.concatenate([face, np.flatnonzero(starts == here)])
            first, last = floor_cells(low[face] / size), floor_cells(high[face] / size)
            first[:old], last[:old] = np.maximum(first[:old], 2 * cell), np.minimum(last[:old], 2 * cell + 1)
            parts = [slice(start, start + CHUNK) for start in range(0, len(face), CHUNK)]
            jobs = [(triangles, normals, (face[part], first[part], last[part]), size) for part in parts]
            found = pool.map(_touching, *zip(*jobs, strict=True))
            face, cell = (np.concatenate(them) for them in zip(*found, strict=True))
    return cell, level


def _touching(triangles: Floats, normals: Floats, boxes: tuple[Ints, Ints, Ints], size: float) -> tuple[Ints, Ints]:
    """The cells of side `size` that faces touch: face, cell.  boxes: faces, and the first and last cell to look at."""
    face, first, last = boxes
    owner, cell = _cells_of_boxes(first, last)
    face = face[owner]
    touch = _overlap(triangles[face], normals[face], cell, size)
    return face[touch], cell[touch]


def floor_cells(values: Floats) -> Ints:
    """The cells (whole numbers) that values lie in."""
    return np.floor(values).astype(np.int64)


def _cells_of_boxes(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """All cells of boxes of cells, from `first` to `last` (n, 3), both included: the box of each, and the cell."""
    sides = np.maximum(last - first + 1, 0)
    counts = sides.prod(axis=1)
    owner = np.repeat(np.arange(len(first)), counts)
    place = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    sides, cell = sides[owner], first[owner]
    place, z = np.divmod(place, sides[:, 2])
    x, y = np.divmod(place, sides[:, 1])
    cell += np.stack([x, y, z], axis=1)
    return owner, cell


def _overlap(triangles: Floats, normals: Floats, cell: Ints, size: float) -> NDArray[np.bool_]:
    """Whether triangles (n, 3, 3) touch cells (n, 3) of side `size`, given that their boxes do: no false no."""
    half = size / 2 + REACH
    corners = triangles - ((cell + 0.5) * size)[:, None]
    corner = np.ascontiguousarray(corners.transpose(1, 2, 0))  # one row for each coordinate of each corner
    normal = np.ascontiguousarray(normals.T)
    touch = np.abs((normal * corner[0]).sum(axis=0)) <= half * np.abs(normal).sum(axis=0)
    for k in range(3):
        one, other = corner[k], corner[(k + 2) % 3]  # the third corner falls on one of these
        edge = corner[(k + 1) % 3] - one
        reach = half * np.abs(edge)
        for i, j in ((1, 2), (2, 0), (0, 1)):
            first, second = one[j] * edge[i] - one[i] * edge[j], other[j] * edge[i] - other[i] * edge[j]
            far = reach[i] + reach[j]
            touch &= (np.minimum(first, second) <= far) & (np.maximum(first, second) >= -far)
    return touch
