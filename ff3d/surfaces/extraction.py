"""Any callable points -> logits, > 0 inside, to a watertight mesh: marching cubes where the surface is."""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from ff3d.geometry.arrays import Floats
from ff3d.geometry.triangles import signed_volumes
from ff3d.surfaces.grid_levels import (
    BATCH,
    BYTES_A_CELL,
    BYTES_A_TILE,
    BYTES_A_VERTEX,
    BYTES_A_VOXEL,
    HUGE,
    MARGIN,
    Cases,
    Cells,
    Frame,
    Guide,
    Level,
    Logits,
    cells_along,
)
from ff3d.surfaces.sparse_grid import Search

if TYPE_CHECKING:
    import trimesh

CHUNK = 2**18
START = 64  # coarse cells along the longest side, at least
THINNEST = 4  # coarse cells along the shortest side, at least
BYTES_A_POINT = 100  # of a chunk


def extract_mesh(
    logits: Logits,
    bounds: ArrayLike,
    *,
    resolution: int = 256,
    method: str = "sparse",
    start: int | None = None,
    guide: Guide | None = None,
    refine: int = 0,
    chunk: int = CHUNK,
    progress: bool = False,
    max_memory: int | None = None,
) -> trimesh.Trimesh:
    """The surface {logits = 0} in a box as a closed mesh, outward, in the box's coordinates.

    logits: any function of points (n, 3) float64, in the box's coordinates -> (n,) numbers, > 0 inside; infinite
    ones are allowed. It is asked about points of the grid only, about none twice, about `chunk` at a time.
    bounds: (2, 3), the box. Outside it everything is outside: a surface that meets a side is closed there.
    resolution: cells along the longest side. Cells are cubes. The other sides get as many as cover them, centred;
    where those stand out of the box, the outermost are cut off at its side (to no less than half a cell, unless
    the box itself is thinner).
    method: "dense" asks about every grid point. "sparse" asks about a coarse grid, every 2^k-th point, and halves
    its cells k times where the surface is; a surface that leaves the halved cells is followed until it closes.
    Both give the same mesh, number for number, unless sparse misses a part.
    start: coarse cells along the longest side, at least; by default 64, more if the box is thin. A power of two
    divides the resolution into them; where that is 1, sparse is dense.
    guide: asked about coarse cells: centers (n, 3) float64, side float -> (n,) bool, True where the surface may pass
    through the cube of that side. Such cells are halved, whatever the logits at their corners are.
    refine: steps of root finding along each crossed edge of the grid, one point each, the root kept in a bracket
    (Illinois: Dowell and Jarratt 1971; bisection where that is slow). Asks about points off the grid, at most once
    for each vertex and step. Worth it where logits are far from linear across a cell.
    progress: show a tqdm bar.  max_memory: bytes that may be used, by default what is available now.

    What sparse can miss: a part of the surface (connected through faces of cells) that no cell betrays, neither by
    corners of both signs nor by logits small against their differences across the cell, on the coarse grid or one of
    the finer ones within the cells halved. What it finds of a part, it finds whole. With a guide that is True
    wherever the surface is, nothing is missed.

    Every edge of the mesh has exactly two faces, and no face is without area, whatever the logits are. For this
    - the cases are those of Lorensen and Cline 1987, by scikit-image, which go by the signs alone. Lewiner's
      (2003) compare products of logits too; ties there, as between whole numbers, give edges with four faces.
    - a vertex lies on an edge of the grid, by linear interpolation, but no nearer to its ends than 1e-3 of a cell.
      This displaces it by at most as much, and a surface closed at a side of the box lies 1e-3 of a cell outside.

    Returns a Trimesh, vertices float64, nothing merged or otherwise processed, in the order of the grid's cells; its
    metadata holds "evaluations", the number of points asked about.
    Raises ExtractionError if nothing is inside, or the function answers NaN, no numbers or in another shape, or the
    guide no bools; MemoryError if the grid does not fit, with the largest resolution that does, or if the surface
    turns out too rough to fit; ValueError for an unusable box, resolution, method, start or refine.
    """
    box = _check_box(bounds, resolution)
    _check_count("chunk", chunk, 1, "point")
    _check_count("refine", refine, 0, "step")
    step = _step(box, resolution, method, start)
    available = available_memory() if max_memory is None else max_memory

    def need(cells: int) -> int:
        return memory_needed(box, cells, method=method, start=start, chunk=chunk)

    if (needed := need(resolution)) > available:
        fits = bisect_right(range(1, resolution), available, key=need)
        raise MemoryError(
            f"resolution {resolution} needs {needed / 1e9:.3g} GB, {available / 1e9:.3g} GB are available; "
            + (f"the largest resolution that fits is {fits}" if fits else "no resolution fits")
        )
    with tqdm(desc="extract", unit=" points", unit_scale=True, disable=not progress) as bar:
        search = Search(logits, guide, Frame(box, resolution, step), chunk, refine, available, bar)
        level, cells, cases = search.surface()
        return _mesh(search, level, cells, cases)


def memory_needed(
    bounds: ArrayLike, resolution: int, *, method: str = "sparse", start: int | None = None, chunk: int = CHUNK
) -> int:
    """Bytes that `extract_mesh` takes, an estimate: for its grid, a smooth surface, and a chunk of points.

    The surface is taken as half as large again as the box's own for dense, and as large for sparse. How large it is
    shows only when the logits are known; `extract_mesh` then looks again. What the function itself needs for a chunk
    is not in it.
    """
    box = _check_box(bounds, resolution)
    step = _step(box, resolution, method, start)
    nx, ny, nz = cells_along(box, resolution)
    asked = min(max(chunk, nz + 1), (nx + 1) * (ny + 1) * (nz + 1))
    needed = BYTES_A_VOXEL * math.prod(n // step + 3 for n in (nx, ny, nz)) + BYTES_A_POINT * asked
    if step == 1:
        return needed + 2 * BYTES_A_VERTEX * (nx * ny + ny * nz + nz * nx)
    tables = BYTES_A_TILE * math.prod(n // 8 + 3 for n in (nx, ny, nz))
    return needed + tables + (BYTES_A_VERTEX + BYTES_A_CELL) * (nx * ny + ny * nz + nz * nx)


def available_memory(group: str | Path = "/sys/fs/cgroup") -> int:
    """Bytes available to this process: the machine's, or the control group's (cgroup v2) where that is less."""
    available = int(psutil.virtual_memory().available)
    try:
        limit, used = (int(Path(group, name).read_text()) for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in Path(group, "memory.stat").read_text().splitlines())
        # file pages that nobody uses count as used, but are given back when memory runs short
        return max(0, min(available, limit - used + int(statistics.get("inactive_file", 0))))
    except (OSError, ValueError):
        return available  # no control group, or no limit in it ("max")


def _check_count(name: str, value: int, least: int, what: str) -> None:
    """ValueError unless value is a whole number, not below the least."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be at least {least} {what}{'s' * (least != 1)}, a whole number, got {value!r}")


def _check_box(bounds: ArrayLike, resolution: int) -> Floats:
    """The bounds as an array (2, 3); ValueError if they or the resolution are unusable."""
    box = np.asarray(bounds, dtype=np.float64)
    if box.shape != (2, 3) or not np.isfinite(box).all() or not (box[1] > box[0]).all():
        raise ValueError(f"bounds must be (2, 3), finite, lower corner first and not flat, got {box.tolist()}")
    if isinstance(resolution, bool) or not isinstance(resolution, int | np.integer) or resolution < 1:
        raise ValueError(f"resolution must be a whole number of cells, at least 1, got {resolution!r}")
    step = MARGIN * min(float((box[1] - box[0]).max()) / int(resolution), float((box[1] - box[0]).min()))
    if step < 4 * np.spacing(np.abs(box).max()):
        raise ValueError(
            f"bounds are too thin or too far from the origin for float64 at resolution {resolution}: {box.tolist()}; "
            "move the box to the origin, or lower the resolution"
        )
    return box


def _step(box: Floats, resolution: int, method: str, start: int | None) -> int:
    """The side of a coarse cell in fine ones, a power of two: 1 is dense."""
    if method not in ("sparse", "dense"):
        raise ValueError(f'method must be "sparse" or "dense", got {method!r}')
    if start is not None:
        _check_count("start", start, 1, "cell")
    if method == "dense":
        return 1
    cells = cells_along(box, resolution)
    step = 1 << (max(1, int(resolution) // int(start or START)).bit_length() - 1)
    if start is None:
        # a thin box costs little, and is thin for its shape's sake
        while step > 1 and (
            step * THINNEST > min(cells) or math.prod(n * 2 // step + 1 for n in cells) <= (START + 1) ** 3
        ):
            step //= 2
    return step


# ---------------------------------------------------------------------------------------------- the mesh


@cache
def _table() -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int8]]:
    """The 256 cases of Lorensen and Cline, as scikit-image triangulates them.

    Returns how many triangles a case has (256,); of each of their corners the edge of the grid that it lies on, as
    the corner of the cell where that begins, and its axis: twice (256, most triangles, 3); and the place that each
    edge from the cell's lowest corner has among those of them with a vertex (256, 3), -1 for one without.
    """
    from skimage.measure import marching_cubes

    triangles = []
    for case in range(256):
        signs = np.array([case >> bit & 1 for bit in range(8)], dtype=np.float32).reshape(2, 2, 2) * 2 - 1
        corners = np.zeros((0, 3, 3))
        if 0 < case < 255:
            # by the signs alone each vertex lies halfway; "ascent" is what winds faces outward here
            halfway, faces, _, _ = marching_cubes(signs, 0.0, gradient_direction="ascent", method="lorensen")
            corners = halfway[faces]
        triangles.append(corners)
    count = np.array([len(it) for it in triangles], dtype=np.uint8)
    corners = np.zeros((256, count.max(), 3, 3))
    for case, it in enumerate(triangles):
        corners[case, : len(it)] = it
    begin = (np.floor(corners) @ [4, 2, 1]).astype(np.uint8)
    axis = (corners % 1 == 0.5).argmax(axis=-1).astype(np.uint8)
    cases = np.arange(256)[:, None]
    own = (cases & 1) != (cases >> np.array([4, 2, 1]) & 1)
    place = np.where(own, np.cumsum(own, axis=1) - 1, -1).astype(np.int8)
    return count, begin, axis, place


def _mesh(search: Search, level: Level, cells: Cells, cases: Cases) -> trimesh.Trimesh:
    """The mesh of the cells that the surface crosses. A vertex belongs to the cell where its edge of the grid begins:
    that cell is crossed too.
    """
    import trimesh

    count, begin, axes, place = _table()
    owned = (place.max(axis=1) + 1)[cases]
    numbers = (np.cumsum(owned, dtype=np.int32) - owned)[:, None] + place[cases]
    numbers[place[cases] < 0] = -1
    search.check_room(level, len(cases), int(owned.sum(dtype=np.int64)))
    vertices = np.empty((int(owned.sum(dtype=np.int64)), 3))
    for start in range(0, len(cases), 4 * BATCH):
        some = slice(start, start + 4 * BATCH)
        _place(search, level, cells[:, some], numbers[some], vertices)
    rows = np.empty(len(level.values), dtype=np.int32)  # of the cells crossed alone: the others' pages stay untouched
    rows[level.locate(cells)] = np.arange(len(cases))
    ends = np.cumsum(count[cases], dtype=np.int64)
    faces = np.empty((int(ends[-1]), 3), dtype=np.int64)
    volume = 0.0
    for start in range(0, len(cases), BATCH):
        some = slice(start, start + BATCH)
        case, first = cases[some], ends[some] - count[cases[some]]
        around = rows[level.around(cells[:, some])]
        for triangle in range(count.max()):
            chosen = np.flatnonzero(count[case] > triangle)
            which = case[chosen]
            for k in range(3):
                owner = around[begin[which, triangle, k], chosen]
                faces[first[chosen] + triangle, k] = numbers[owner, axes[which, triangle, k]]
        volume += float(signed_volumes(vertices, faces[first[0] : ends[some][-1]], search.frame.middle).sum())
    assert volume > 0, "marching cubes gave a mesh that is inside out"
    shape = trimesh.Trimesh(vertices, faces, process=False)
    shape.metadata["evaluations"] = search.evaluations
    return shape


def _place(search: Search, level: Level, cells: Cells, numbers: Cells, vertices: Floats) -> None:
    """Put the vertices of some cells where the logits are 0."""
    frame = search.frame
    lines = []
    for points in frame.axes:
        cell = np.diff(points).max()
        lines.append(np.concatenate([[points[0] - cell], points, [points[-1] + cell]]))
    index = cells - np.int32(frame.step - 1)
    corner = np.stack([line[i] for line, i in zip(lines, index, strict=True)], axis=1)
    here = level.values[level.locate(cells)].astype(np.float64)
    parts = []
    for axis in range(3):
        owned = np.flatnonzero(numbers[:, axis] >= 0)
        beyond = cells[:, owned]
        beyond[axis] += 1
        low = corner[owned]
        high = low.copy()
        high[:, axis] = lines[axis][index[axis, owned] + 1]
        values = level.values[level.locate(beyond)].astype(np.float64)
        parts.append((numbers[owned, axis], low, high, here[owned], values))
    number, low, high, a, b = (np.concatenate(them) for them in zip(*parts, strict=True))
    share = a / (a - b)
    if search.refine:
        within = np.minimum(a, b) > -2 * HUGE  # not on the border, where the function is not asked
        share[within] = search.roots(low[within], high[within], a[within], b[within])
    vertices[number] = low + (high - low) * np.clip(share, MARGIN, 1 - MARGIN)[:, None]
