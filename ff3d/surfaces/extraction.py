"""Any callable points -> logits, > 0 inside, to a watertight mesh: marching cubes where the surface is."""

from __future__ import annotations

import math
from bisect import bisect_right
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm.auto import tqdm

from ff3d.geometry.arrays import Floats
from ff3d.geometry.cores import available_memory
from ff3d.geometry.triangles import signed_volumes
from ff3d.surfaces.grid_levels import (
    BATCH,
    BYTES_PER_CELL,
    BYTES_PER_TILE,
    BYTES_PER_VERTEX,
    BYTES_PER_VOXEL,
    LARGEST_LOGIT,
    MARGIN,
    Cases,
    Cells,
    FineGrid,
    Guide,
    Level,
    Logits,
    cells_along,
)
from ff3d.surfaces.sparse_grid import SurfaceTracer

if TYPE_CHECKING:
    import trimesh

CHUNK = 2**18
START = 64  # coarse cells along the longest side, at least
THINNEST = 4  # coarse cells along the shortest side, at least
BYTES_PER_POINT = 100  # of a chunk


def extract_mesh(
    logits: Logits,
    bounds: ArrayLike,
    *,
    resolution: int = 256,
    method: str = "sparse",
    start: int | None = None,
    guide: Guide | None = None,
    refine: int = 0,
    tolerance: float = 0.0,
    chunk: int = CHUNK,
    progress: bool = False,
    max_memory: int | None = None,
) -> trimesh.Trimesh:
    """The surface {logits = 0} in a box as a closed mesh, outward, in the box's coordinates.

    logits: any function of points (n, 3) float64, in the box's coordinates -> (n,) numbers, > 0 inside; infinite
    ones are allowed. It is evaluated at points of the grid only, at none twice, at about `chunk` points a call.
    bounds: (2, 3), the box. Outside it everything is outside: a surface that meets a side is closed there.
    resolution: cells along the longest side. Cells are cubes. The other sides get as many as cover them, centred;
    where those stand out of the box, the outermost are cut off at its side (to no less than half a cell, unless
    the box itself is thinner).
    method: "dense" evaluates every grid point. "sparse" evaluates a coarse grid, every 2^k-th point, and halves
    its cells k times where the surface is; a surface that leaves the halved cells is followed until it closes.
    Both give the same mesh, number for number, unless sparse misses a part.
    start: coarse cells along the longest side, at least; by default 64, more if the box is thin. A power of two
    divides the resolution into them; where that is 1, sparse is dense.
    guide: called with coarse cells: centers (n, 3) float64, side float -> (n,) bool, True where the surface may pass
    through the cube of that side. Such cells are halved, whatever the logits at their corners are.
    refine: steps of root finding along each crossed edge of the grid, one point each, the root kept in a bracket
    (Illinois: Dowell and Jarratt 1971; bisection where that is slow). Evaluates points off the grid, at most one
    for each vertex and step. Worth it where logits are far from linear across a cell.
    tolerance: of a logit: an edge with a point of one that small is refined no further.
    progress: show a tqdm bar.  max_memory: bytes that may be used, by default what is available now.

    What sparse can miss: a part of the surface (connected through faces of cells) in which no visited cell shows a
    sign change among its corners, nor logits that are small against their differences across the cell, on the coarse
    grid or on a finer one within the cells halved. Of a part that it finds, it misses nothing. With a guide that is
    True wherever the surface is, it misses no part.

    Every edge of the mesh has exactly two faces, and no face is without area, whatever the logits are. For this
    - the cases are those of Lorensen and Cline 1987, by scikit-image, which depend on the signs alone. Lewiner's
      (2003) compare products of logits too; ties there, as between whole numbers, give edges with four faces.
    - a vertex lies on an edge of the grid, by linear interpolation, but no nearer to its ends than 1e-3 of a cell.
      This displaces it by at most as much, and a surface closed at a side of the box lies 1e-3 of a cell outside.

    Returns a Trimesh, vertices float64, nothing merged or otherwise processed, in the order of the grid's cells; its
    metadata has "evaluations", the number of points evaluated.
    Raises ExtractionError if nothing is inside, if the function returns NaN, no numbers or another shape, or the
    guide no bools; MemoryError if the grid does not fit, with the largest resolution that does, or if the surface
    turns out too rough to fit; ValueError for an unusable box, resolution, method, start, refine or tolerance.
    """
    box = _check_box(bounds, resolution)
    _check_count("chunk", chunk, 1, "point")
    _check_count("refine", refine, 0, "step")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be a logit of at least 0, got {tolerance}")
    step = _step(box, resolution, method, start)
    available = available_memory() if max_memory is None else max_memory
    check_memory(box, resolution, available, method=method, start=start, chunk=chunk)
    with tqdm(desc="extract", unit=" points", unit_scale=True, disable=not progress) as bar:
        grid = FineGrid(box, resolution, step)
        tracer = SurfaceTracer(logits, guide, grid, chunk, refine, tolerance, available, bar)
        return _mesh(tracer, *tracer.trace())


def check_memory(bounds: ArrayLike, resolution: int, available: int, **settings: Any) -> None:
    """Raise MemoryError, with the largest resolution that fits, if `memory_needed` is more than is available, bytes."""

    def need(cells: int) -> int:
        return memory_needed(bounds, cells, **settings)

    if (needed := need(resolution)) > available:
        fits = bisect_right(range(1, resolution), available, key=need)
        raise MemoryError(
            f"resolution {resolution} needs {needed / 1e9:.3g} GB, {available / 1e9:.3g} GB are available; "
            + (f"the largest resolution that fits is {fits}" if fits else "no resolution fits")
        )


def memory_needed(
    bounds: ArrayLike, resolution: int, *, method: str = "sparse", start: int | None = None, chunk: int = CHUNK
) -> int:
    """An estimate of the bytes that `extract_mesh` needs: for its grid, a smooth surface, and a chunk of points.

    The surface is taken to be half as large again as the box's own for dense, and as large for sparse. Its true size
    is known only with the logits; `extract_mesh` then checks again. What the function itself needs for a chunk is
    not included.
    """
    box = _check_box(bounds, resolution)
    step = _step(box, resolution, method, start)
    nx, ny, nz = cells_along(box, resolution)
    batch = min(max(chunk, nz + 1), (nx + 1) * (ny + 1) * (nz + 1))
    needed = BYTES_PER_VOXEL * math.prod(n // step + 3 for n in (nx, ny, nz)) + BYTES_PER_POINT * batch
    if step == 1:
        return needed + 2 * BYTES_PER_VERTEX * (nx * ny + ny * nz + nz * nx)
    tables = BYTES_PER_TILE * math.prod(n // 8 + 3 for n in (nx, ny, nz))
    return needed + tables + (BYTES_PER_VERTEX + BYTES_PER_CELL) * (nx * ny + ny * nz + nz * nx)


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
        # a thin box has few cells, and a thin shape in it
        while step > 1 and (
            step * THINNEST > min(cells) or math.prod(n * 2 // step + 1 for n in cells) <= (START + 1) ** 3
        ):
            step //= 2
    return step


@cache
def _table() -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int8]]:
    """The 256 cases of Lorensen and Cline, as scikit-image triangulates them.

    Returns the number of triangles of each case (256,); for each corner of a triangle the edge of the grid that it
    lies on, as the bit of the cell's corner where the edge begins (256, most triangles, 3) and its axis (the same
    shape); and for the three edges from the cell's lowest corner the rank of their vertex in the case (256, 3), -1
    for an edge without one.
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
    count = np.array([len(corners) for corners in triangles], dtype=np.uint8)
    table = np.zeros((256, count.max(), 3, 3))
    for case, corners in enumerate(triangles):
        table[case, : len(corners)] = corners
    begin = (np.floor(table) @ [4, 2, 1]).astype(np.uint8)
    axis = (table % 1 == 0.5).argmax(axis=-1).astype(np.uint8)
    cases = np.arange(256)[:, None]
    has_vertex = (cases & 1) != (cases >> np.array([4, 2, 1]) & 1)
    rank = np.where(has_vertex, np.cumsum(has_vertex, axis=1) - 1, -1).astype(np.int8)
    return count, begin, axis, rank


def _mesh(tracer: SurfaceTracer, level: Level, cells: Cells, cases: Cases) -> trimesh.Trimesh:
    """The mesh of the cells that the surface crosses. A vertex belongs to the cell where its edge of the grid begins:
    the surface crosses that cell too.
    """
    import trimesh

    count, begin, axes, rank = _table()
    per_cell = (rank.max(axis=1) + 1)[cases]
    numbers = (np.cumsum(per_cell, dtype=np.int32) - per_cell)[:, None] + rank[cases]
    numbers[rank[cases] < 0] = -1
    total = int(per_cell.sum(dtype=np.int64))
    tracer.check_memory(level, len(cases), total)
    vertices = np.empty((total, 3))
    for start in range(0, len(cases), 4 * BATCH):
        batch = slice(start, start + 4 * BATCH)
        _place_vertices(tracer, level, cells[:, batch], numbers[batch], vertices)
    rows = np.empty(len(level.values), dtype=np.int32)  # written at crossed cells alone: the other pages stay untouched
    rows[level.addresses(cells)] = np.arange(len(cases))
    ends = np.cumsum(count[cases], dtype=np.int64)
    faces = np.empty((int(ends[-1]), 3), dtype=np.int64)
    volume = 0.0
    for start in range(0, len(cases), BATCH):
        batch = slice(start, start + BATCH)
        case, first = cases[batch], ends[batch] - count[cases[batch]]
        around = rows[level.corner_addresses(cells[:, batch])]
        for triangle in range(count.max()):
            chosen = np.flatnonzero(count[case] > triangle)
            which = case[chosen]
            for k in range(3):
                owner = around[begin[which, triangle, k], chosen]
                faces[first[chosen] + triangle, k] = numbers[owner, axes[which, triangle, k]]
        volume += float(signed_volumes(vertices, faces[first[0] : ends[batch][-1]], tracer.grid.middle).sum())
    assert volume > 0, "marching cubes gave a mesh that is inside out"
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.metadata["evaluations"] = tracer.evaluations
    return mesh


def _place_vertices(tracer: SurfaceTracer, level: Level, cells: Cells, numbers: Cells, vertices: Floats) -> None:
    """Write the vertices of cells, at the roots of the logits on their edges, into rows `numbers` of `vertices`."""
    grid = tracer.grid
    extended = []  # axes, with a point beyond each end for the border
    for line in grid.axes:
        cell = np.diff(line).max()
        extended.append(np.concatenate([[line[0] - cell], line, [line[-1] + cell]]))
    index = cells - np.int32(grid.step - 1)
    corner = np.stack([line[i] for line, i in zip(extended, index, strict=True)], axis=1)
    at_corner = level.values[level.addresses(cells)].astype(np.float64)
    edges = []
    for axis in range(3):
        chosen = np.flatnonzero(numbers[:, axis] >= 0)
        upper = cells[:, chosen]
        upper[axis] += 1
        low = corner[chosen]
        high = low.copy()
        high[:, axis] = extended[axis][index[axis, chosen] + 1]
        at_upper = level.values[level.addresses(upper)].astype(np.float64)
        edges.append((numbers[chosen, axis], low, high, at_corner[chosen], at_upper))
    number, low, high, a, b = (np.concatenate(parts) for parts in zip(*edges, strict=True))
    share = a / (a - b)
    if tracer.refine:
        within = np.minimum(a, b) > -2 * LARGEST_LOGIT  # not on the border, where the function is not evaluated
        share[within] = tracer.roots(low[within], high[within], a[within], b[within])
    vertices[number] = low + (high - low) * np.clip(share, MARGIN, 1 - MARGIN)[:, None]
