"""Any callable points -> logits, > 0 inside, to a watertight mesh: marching cubes where the surface is."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

if TYPE_CHECKING:
    import trimesh

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Cells = NDArray[np.int32]  # (3, m), the index of each cell's lowest corner
Cases = NDArray[np.uint8]  # (m,), which corners of a cell are inside: corner (i, j, k) is bit 4 i + 2 j + k
Logits = Callable[[Floats], NDArray[np.floating]]
Guide = Callable[[Floats, float], NDArray[np.bool_]]

MARGIN = 1e-3  # of a cell: no vertex comes nearer to a grid point, so that no face collapses
HUGE = 1e30  # infinite logits become this
BORDER = -1e38  # far more than any logit, so that a surface closed at a side of the box lies at that side
CHUNK = 2**18
START = 64  # coarse cells along the longest side, at least
THINNEST = 4  # coarse cells along the shortest side, at least
NEAR = 0.5  # a coarse cell is halved if its logits come this near to 0, as a share of their range in the cell
BATCH = 2**16  # cells that pass through the caches together

# peak resident memory, measured for spheres and gyroids of three sizes at resolutions 128 to 1024
BYTES_A_VOXEL = 9  # of the coarse grid: 4 for the logit, the rest in passing
BYTES_A_TILE = 4  # of 8^3 points: an entry of a table
BYTES_A_BRICK = 512 * 9  # for each of 8^3 points the logit, whether its cell was visited, the number of its cell
BYTES_A_CELL = 40  # that was visited
BYTES_A_VERTEX = 130  # with its two faces
BYTES_A_POINT = 100  # of a chunk

CORNERS = [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]  # in the order of a case's bits
# of a cell: the axis, the side (0 lower, 1 upper), and the bits of the four corners of each face
FACES = [
    (axis, side, sum(1 << b for b, c in enumerate(CORNERS) if c[axis] == side)) for axis in range(3) for side in (0, 1)
]
EDGES = [(b, axis) for axis in range(3) for b, corner in enumerate(CORNERS) if not corner[axis]]  # lower corner, axis


class ExtractionError(ValueError):
    """A function that has no surface to extract; the message says what it answered, and where."""


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
        search = _Search(logits, guide, _Frame(box, resolution, step), chunk, refine, available, bar)
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
    nx, ny, nz = _cells(box, resolution)
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


def _cells(box: Floats, resolution: int) -> tuple[int, int, int]:
    """How many cubes, `resolution` of them along the longest side, cover each side."""
    extent = box[1] - box[0]
    nx, ny, nz = (max(1, math.ceil(side * int(resolution) / extent.max() - 1e-9)) for side in extent)
    return nx, ny, nz


def _step(box: Floats, resolution: int, method: str, start: int | None) -> int:
    """The side of a coarse cell in fine ones, a power of two: 1 is dense."""
    if method not in ("sparse", "dense"):
        raise ValueError(f'method must be "sparse" or "dense", got {method!r}')
    if start is not None:
        _check_count("start", start, 1, "cell")
    if method == "dense":
        return 1
    cells = _cells(box, resolution)
    step = 1 << (max(1, int(resolution) // int(start or START)).bit_length() - 1)
    if start is None:
        # a thin box costs little, and is thin for its shape's sake
        while step > 1 and (
            step * THINNEST > min(cells) or math.prod(n * 2 // step + 1 for n in cells) <= (START + 1) ** 3
        ):
            step //= 2
    return step


def _grid(box: Floats, resolution: int) -> list[Floats]:
    """The coordinates of the grid points along each axis, the first and last of them on the box's sides."""
    cell = float((box[1] - box[0]).max()) / int(resolution)
    axes = []
    for low, high, cells in zip(*box, _cells(box, resolution), strict=True):
        axis = low + ((high - low) - cells * cell) / 2 + cell * np.arange(cells + 1)
        axis[0], axis[-1] = low, high
        axes.append(axis)
    return axes


# ---------------------------------------------------------------------------------------------- the grid and its logits


class _Frame:
    """The fine grid in its box. An index (3, m) counts from `step` before the first grid point, so that the border
    of the coarse grid has one too: there everything is outside.
    """

    def __init__(self, box: Floats, resolution: int, step: int):
        self.resolution, self.step = int(resolution), step
        self.axes = _grid(box, resolution)
        self.cells = _cells(box, resolution)
        self.cell = float((box[1] - box[0]).max()) / int(resolution)
        self.middle = box[0] + (box[1] - box[0]) / 2

    def points(self, index: Cells) -> Floats:
        """The coordinates (m, 3) of grid points."""
        return np.stack([axis[i - self.step] for axis, i in zip(self.axes, index, strict=True)], axis=1)

    def holds(self, index: Cells) -> NDArray[np.bool_]:
        """Whether points are of the grid, not of its border."""
        return np.logical_and.reduce(
            [(i >= self.step) & (i <= self.step + n) for i, n in zip(index, self.cells, strict=True)]
        )

    def centers(self, cells: Cells, side: int) -> Floats:
        """The centres (m, 3) of cells of `side` fine ones, cubes whether or not they stand out of the box."""
        middle = self.step + np.array(self.cells) / 2
        return self.middle + (cells.T * side + (side / 2 - middle)) * self.cell


class _Top:
    """The logits of all points of a grid, inside a border of one layer that is outside: (nx, ny, nz)."""

    def __init__(self, table: NDArray[np.float32], step: int):
        self.table, self.step = table, step
        self.values = table.reshape(-1)
        self.strides = table.shape[1] * table.shape[2], table.shape[2]

    def locate(self, index: Cells) -> Ints:
        """Where in `values` points are."""
        x, y, z = index
        return (x.astype(np.int64) * self.strides[0] + y * self.strides[1]) + z

    def around(self, cells: Cells) -> Ints:
        """Where in `values` the corners of cells are (8, m)."""
        return self.locate(cells) + np.array(CORNERS) @ [[self.strides[0]], [self.strides[1]], [1]]

    def look(self, index: Cells) -> NDArray[np.float32]:
        """The logits of points."""
        return self.values[self.locate(index)]

    def all_cells(self) -> Iterator[tuple[Cells, Cases]]:
        """Every cell with its case, slab by slab, in the order of their indices."""
        shape = [n - 1 for n in self.table.shape]
        thick = max(1, 2**21 // (shape[1] * shape[2]))
        for x in range(0, shape[0], thick):
            inside = (self.table[x : x + thick + 1] > 0).view(np.uint8)
            case = np.zeros((len(inside) - 1, *shape[1:]), dtype=np.uint8)
            for bit, (i, j, k) in enumerate(CORNERS):
                case |= inside[i : i + case.shape[0], j : j + shape[1], k : k + shape[2]] << bit
            flat = case.reshape(-1)
            kept = np.flatnonzero(_mixed(flat)) if self.step == 1 else np.arange(len(flat))
            cells = np.stack(np.unravel_index(kept, case.shape)).astype(np.int32)
            cells[0] += x
            yield cells, flat[kept]


class _Bricks:
    """The logits of some points of a grid, in bricks of 8^3 points that are there where they are needed.

    A value is NaN until it is wanted, and infinite until it is known. Each point stands for the cell that it is the
    lowest corner of, too: `visited` says which cells were claimed.
    """

    def __init__(self, parent: _Level, search: _Search):
        self.parent, self.search, self.frame = parent, search, search.frame
        self.step: int = parent.step // 2
        coarse = search.frame.step // self.step
        tiles = [((n // search.frame.step + 2) * coarse >> 3) + 1 for n in search.frame.cells]
        self.tiles = tuple(tiles)
        self.strides = tiles[1] * tiles[2], tiles[2]
        self.table = np.full(math.prod(tiles), -1, dtype=np.int32)
        self.count = 0
        self.corner = np.empty((3, 0), dtype=np.int32)  # the lowest index of each brick
        self.values = np.empty(0, dtype=np.float32)
        self.visited = np.empty(0, dtype=np.bool_)
        self.touched = np.empty(0, dtype=np.bool_)  # bricks with a value that is wanted

    def locate(self, index: Cells) -> Ints:
        """Where in `values` points are; negative where there is no brick."""
        x, y, z = index
        brick = self.table[(x >> 3) * self.strides[0] + (y >> 3) * self.strides[1] + (z >> 3)]
        return (brick.astype(np.int64) << 9) + (((x & 7) << 6) | ((y & 7) << 3) | (z & 7))

    def around(self, cells: Cells) -> Ints:
        """`locate` of the corners of cells, (8, m)."""
        address = np.empty((8, cells.shape[1]), dtype=np.int64)
        ends = cells, cells + np.int32(1)
        tile = [(it[0] >> 3) * self.strides[0] for it in ends], [(it[1] >> 3) * self.strides[1] for it in ends]
        place = [(it[0] & 7) << 6 for it in ends], [(it[1] & 7) << 3 for it in ends]
        last = [it[2] >> 3 for it in ends], [it[2] & 7 for it in ends]
        for bit, (i, j, k) in enumerate(CORNERS):
            if k == 0:
                tiles, places = tile[0][i] + tile[1][j], place[0][i] | place[1][j]
            address[bit] = self.table[tiles + last[0][k]]
            address[bit] <<= 9
            address[bit] += places | last[1][k]
        return address

    def look(self, index: Cells) -> NDArray[np.float32]:
        """The logits of points as far as they are known on this level or one above, else NaN."""
        address = self.locate(index)
        values = np.where(address >= 0, self.values[np.maximum(address, 0)], np.float32(np.nan))
        above = np.flatnonzero(np.isnan(values) & ((index[0] | index[1] | index[2]) & 1 == 0))
        values[above] = self.parent.look(index[:, above] >> 1)
        return values

    def make(self, index: Cells) -> Ints:
        """Where in `values` points are, bricks made where there are none."""
        address = self.locate(index)
        if (absent := address < 0).any():
            x, y, z = index[:, absent] >> 3
            tile = np.unique(x * self.strides[0] + y * self.strides[1] + z)
            old, self.count = self.count, self.count + len(tile)
            self.table[tile] = np.arange(old, self.count)
            corner = np.stack(np.unravel_index(tile, self.tiles)).astype(np.int32) * 8
            self.corner = np.concatenate([self.corner[:, :old], corner], axis=1)
            if self.count > len(self.touched):
                room = max(self.count, len(self.touched) * 5 // 4)
                # in place where the system can: no second copy
                self.values.resize(room * 512, refcheck=False)
                self.visited.resize(room * 512, refcheck=False)
                self.touched.resize(room, refcheck=False)
            self.values[old * 512 : self.count * 512] = np.nan
            address[absent] = self.locate(index[:, absent])
        return address

    def want(self, index: Cells) -> None:
        """Mark points whose values `fill` is to find."""
        self._mark(self.make(index))

    def want_corners(self, cells: Cells) -> None:
        """Mark the corners of cells."""
        address = self.around(cells)
        absent = (address < 0).any(axis=0)
        if absent.any():
            for corner in CORNERS:
                self.make(cells[:, absent] + _column(corner))
            address[:, absent] = self.around(cells[:, absent])
        self._mark(address)

    def _mark(self, address: Ints) -> None:
        new = address[np.isnan(self.values[address])]
        self.values[new] = np.inf
        self.touched[new >> 9] = True

    def fill(self) -> None:
        """Find the values wanted: outside on the border, from the level above, by asking; brick by brick."""
        bricks = np.flatnonzero(self.touched)
        self.touched[bricks] = False
        unknown = []
        for start in range(0, len(bricks), 2**11):
            some = bricks[start : start + 2**11]
            row, place = np.nonzero(np.isinf(self.values.reshape(-1, 512)[some]))
            address = some[row] * 512 + place
            index = self._index(address)
            held = self.frame.holds(index * np.int32(self.step))
            self.values[address[~held]] = BORDER
            address, index = address[held], index[:, held]
            even = (index[0] | index[1] | index[2]) & 1 == 0
            known = self.parent.look(index[:, even] >> 1)
            even[even] = ~np.isnan(known)
            self.values[address[even]] = known[~np.isnan(known)]
            unknown.append(address[~even])
        asked = np.concatenate(unknown) if unknown else np.zeros(0, dtype=np.int64)
        self.search.bar.total = (self.search.bar.total or 0) + len(asked)
        for start in range(0, len(asked), self.search.chunk):
            address = asked[start : start + self.search.chunk]
            points = self.frame.points(self._index(address) * np.int32(self.step))
            self.values[address] = self.search.ask(points)

    def _index(self, address: Ints) -> Cells:
        place = (address & 511).astype(np.int32)
        index = self.corner[:, address >> 9]
        index += np.stack([place >> 6, place >> 3 & 7, place & 7])
        return index

    def claim(self, cells: Cells) -> Cells:
        """Those of distinct cells that were not claimed before."""
        address = self.make(cells)
        new = ~self.visited[address]
        self.visited[address[new]] = True
        return cells[:, new]

    def visit(self, cells: Cells) -> tuple[Cells, Cases]:
        """The cells, and all that the surface leads to from them through faces with corners of both signs.

        cells: claimed. Returns all of them with their cases, on the finest level those alone that are mixed.
        """
        found: list[Cells] = [cells[:, :0]]
        cases: list[Cases] = [np.zeros(0, dtype=np.uint8)]
        seen = 0
        while cells.size:
            seen += cells.shape[1]
            self.search.check_room(self, seen)
            for some in _batches(cells):
                self.want_corners(some)
            self.fill()
            beyond = []
            for some in _batches(cells):
                case = self.case(some)
                for axis, side, corners in FACES:
                    part = case & corners
                    leaves = some[:, (part != 0) & (part != corners)]
                    leaves[axis] += 2 * side - 1
                    beyond.append(self.claim(leaves))
                kept = _mixed(case) if self.step == 1 else slice(None)
                found.append(some[:, kept])
                cases.append(case[kept])
            cells = np.concatenate(beyond, axis=1)
        return np.concatenate(found, axis=1), np.concatenate(cases)

    def case(self, cells: Cells) -> Cases:
        """The cases of cells whose corners are known."""
        return np.packbits(self.values[self.around(cells)] > 0, axis=0, bitorder="little")[0]


_Level = _Top | _Bricks


@dataclass
class _Search:
    """From the coarse grid down to the cells of the fine one that the surface crosses; counts what it asks."""

    logits: Logits
    guide: Guide | None
    frame: _Frame
    chunk: int
    refine: int
    available: int
    bar: tqdm[Any]
    evaluations: int = 0
    lowest: float = math.inf
    highest: float = -math.inf

    def ask(self, points: Floats) -> Floats:
        """What the function answers about points (n, 3), checked and made finite."""
        values = np.clip(_ask(self.logits, points), -HUGE, HUGE)
        self.evaluations += len(points)
        self.lowest, self.highest = min(self.lowest, values.min()), max(self.highest, values.max())
        self.bar.update(len(points))
        return values

    def surface(self) -> tuple[_Level, Cells, Cases]:
        """The finest level, its cells that the surface crosses in the order of their indices, and their cases."""
        level: _Level = (top := self._coarse())
        found = []
        for cells, cases in top.all_cells():
            found.append((cells, cases))
            if level.step == 1:
                self.check_room(level, sum(len(it) for _, it in found))
        cells, cases = np.concatenate([it for it, _ in found], axis=1), np.concatenate([it for _, it in found])
        while level.step > 1:
            finer = _Bricks(level, self)
            cells, cases = finer.visit(self._descend(level, finer, cells, cases))
            level = finer
        if not len(cases):
            grid = " x ".join(str(len(axis)) for axis in self.frame.axes)
            raise ExtractionError(
                f"nothing is inside: on the grid of {grid} points "
                + (f"({self.evaluations} asked) " if self.frame.step > 1 else "")
                + f"the logits range from {self.lowest:.6g} to {self.highest:.6g}, and inside is > 0; is the box the "
                "right one, is the fit done, is the shape thinner than a cell (raise the resolution"
                + (", or start)?" if self.frame.step > 1 else ")?")
            )
        if isinstance(level, _Bricks):
            order = np.argsort(np.ravel_multi_index(tuple(cells), [8 * n for n in level.tiles]))
            cells, cases = cells[:, order], cases[order]
        return level, cells, cases

    def _coarse(self) -> _Top:
        """The coarse grid; asked in runs of rows along z."""
        x, y, z = (axis[:: self.frame.step] for axis in self.frame.axes)
        table = np.full([len(axis) + 2 for axis in (x, y, z)], BORDER, dtype=np.float32)
        inner = table[1:-1, 1:-1, 1:-1]
        rows = len(x) * len(y)
        self.bar.total = inner.size
        for start in range(0, rows, step := max(1, self.chunk // len(z))):
            i, j = np.divmod(np.arange(start, min(start + step, rows)), len(y))
            points = np.empty((len(i), len(z), 3))
            points[..., 0], points[..., 1], points[..., 2] = x[i, None], y[j, None], z
            inner[i, j] = self.ask(points.reshape(-1, 3)).reshape(len(i), len(z))
        return _Top(table, self.frame.step)

    def _descend(self, level: _Level, finer: _Bricks, cells: Cells, cases: Cases) -> Cells:
        """The finer cells to begin with: all eight of a cell that the surface may pass through; above the finest
        level, of cells with corners of both signs, those alone at the halves of their edges that are crossed.
        """
        last = finer.step == 1
        mixed = _mixed(cases)
        whole = np.zeros(len(cases), dtype=np.bool_) if last else mixed.copy()
        for start in range(0, len(cases), BATCH):
            rest = start + np.flatnonzero(~whole[start : start + BATCH])
            if not last:
                whole[rest] = self._near(level, cells[:, rest])
                rest = rest[~whole[rest]]
            if self.guide is not None:
                whole[rest] = self._guided(cells[:, rest], level.step)
        self.check_room(finer, 8 * int(np.count_nonzero(whole)))
        seeds = [cells[:, :0]]
        for some in _batches(cells[:, whole]):
            seeds += [finer.claim(2 * some + _column(corner)) for corner in CORNERS]
        if last:
            split = mixed & ~whole
            edges = list(self._crossed_edges(cells[:, split], cases[split]))
            for corner, axis, _, _ in edges:
                finer.want(2 * corner + axis)
            finer.fill()
            for corner, axis, lowest, inside in edges:
                middle = finer.values[finer.locate(2 * corner + axis)] > 0
                seeds.append(finer.claim(lowest + corner + axis * (middle == inside)))
        return np.concatenate(seeds, axis=1)

    @staticmethod
    def _crossed_edges(cells: Cells, cases: Cases) -> Iterator[tuple[Cells, Cells, Cells, NDArray[np.bool_]]]:
        """Edges with ends of both signs: the lower end, the axis as a column, the cell, whether the lower is inside."""
        for start in range(0, len(cases), BATCH):
            some, case = cells[:, start : start + BATCH], cases[start : start + BATCH]
            for bit, axis in EDGES:
                lower, upper = case >> bit & 1, case >> bit + (4 >> axis) & 1
                crossed = np.flatnonzero(lower != upper)
                cell = some[:, crossed]
                yield (
                    cell + _column(CORNERS[bit]),
                    np.eye(3, dtype=np.int32)[:, axis : axis + 1],
                    cell,
                    lower[crossed] > 0,
                )

    def _near(self, level: _Level, cells: Cells) -> NDArray[np.bool_]:
        """Whether the surface may pass through cells with corners of one sign: by their range, were they linear."""
        values = level.values[level.around(cells)]
        highest = values.max(axis=0)
        values[values < -2 * HUGE] = HUGE  # the border says nothing
        lowest = values.min(axis=0)
        return np.minimum(np.abs(highest), np.abs(lowest)) < NEAR * (highest - lowest)

    def _guided(self, cells: Cells, side: int) -> NDArray[np.bool_]:
        """What the guide says of cells; False of those outside the box."""
        last = np.array(self.frame.cells)[:, None] + self.frame.step
        answer: NDArray[np.bool_] = np.all((cells * side < last) & ((cells + 1) * side > self.frame.step), axis=0)
        if answer.any() and self.guide is not None:
            centers = self.frame.centers(cells[:, answer], side)
            said = np.asarray(self.guide(centers, side * self.frame.cell))
            if said.shape != (len(centers),) or said.dtype != np.bool_:
                raise ExtractionError(
                    f"the guide must answer centers of shape {centers.shape} with bools of shape ({len(centers)},), "
                    f"it answers {said.dtype} of shape {said.shape}"
                )
            answer[answer] = said
        return answer

    def check_room(self, level: _Level, cells: int, vertices: int = 0) -> None:
        """MemoryError if so many cells, or vertices, take more than is available."""
        needed = BYTES_A_CELL * cells + BYTES_A_VERTEX * max(vertices, cells if level.step == 1 else 0)
        if isinstance(level, _Bricks):
            needed += BYTES_A_BRICK * level.count + BYTES_A_TILE * len(level.table)
        else:
            needed += BYTES_A_VOXEL * len(level.values)
        if needed > self.available:
            fits = int(self.frame.resolution * math.sqrt(self.available / needed) / level.step)
            raise MemoryError(
                f"the surface is rough: where it is, {cells} cells of 1/{self.frame.resolution // level.step} need "
                f"{needed / 1e9:.3g} GB, {self.available / 1e9:.3g} GB are available; the largest resolution that fits "
                f"is about {fits}; or look whether the function is noise"
            )

    def roots(self, low: Floats, high: Floats, a: Floats, b: Floats) -> Floats:
        """Where along segments the logits are 0, as shares of them; the sign changes within.

        low, high (n, 3): their ends.  a, b (n,): the logits there.
        """
        left, right = np.zeros(len(a)), np.ones(len(a))
        a, b = a.copy(), b.copy()
        heavy, light = a.copy(), b.copy()  # the logits, halved at an end that stays (Illinois)
        side = np.zeros(len(a), dtype=np.int8)
        for step in range(self.refine):
            share = heavy / (heavy - light)
            # where the bracket shrinks less than by 1/2 in two steps, bisect
            share[right - left > 0.5 ** (step / 2)] = 0.5
            middle = left + (right - left) * np.clip(share, MARGIN, 1 - MARGIN)
            points = low + (high - low) * middle[:, None]
            values = np.concatenate([self.ask(points[k : k + self.chunk]) for k in range(0, len(points), self.chunk)])
            lower = (values > 0) == (a > 0)
            left, right = np.where(lower, middle, left), np.where(lower, right, middle)
            a, b = np.where(lower, values, a), np.where(lower, b, values)
            heavy = np.where(lower, values, np.where(side < 0, heavy / 2, heavy))
            light = np.where(lower, np.where(side > 0, light / 2, light), values)
            side = np.where(lower, 1, -1).astype(np.int8)
        return left + (right - left) * (a / (a - b))


def _column(corner: tuple[int, int, int]) -> Cells:
    return np.array(corner, dtype=np.int32)[:, None]


def _mixed(cases: Cases) -> NDArray[np.bool_]:
    """Whether cells have corners of both signs."""
    return (cases != 0) & (cases != 255)


def _batches(cells: Cells) -> Iterator[Cells]:
    """Cells in portions that stay in the cache."""
    for start in range(0, cells.shape[1], BATCH):
        yield cells[:, start : start + BATCH]


def _ask(logits: Logits, points: Floats) -> Floats:
    """What the function answers about points (n, 3): (n,), checked."""
    values = np.asarray(logits(points))
    if values.shape != (len(points),) or values.dtype.kind not in "fiu":
        raise ExtractionError(
            f"the function must answer points of shape {points.shape} with numbers (> 0 inside) of shape "
            f"({len(points)},); between {points[0].tolist()} and {points[-1].tolist()} it answers {values.dtype} of "
            f"shape {values.shape}" + ("; subtract 0.5 from an occupancy" if values.dtype.kind == "b" else "")
        )
    if (bad := np.isnan(values)).any():
        where = points[bad.argmax()].tolist()
        raise ExtractionError(f"the function answers NaN at {where} ({bad.sum()} of {len(points)} points there)")
    return values.astype(np.float64)


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


def _mesh(search: _Search, level: _Level, cells: Cells, cases: Cases) -> trimesh.Trimesh:
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
        volume += _volume(vertices, faces[first[0] : ends[some][-1]], search.frame.middle)
    assert volume > 0, "marching cubes gave a mesh that is inside out"
    shape = trimesh.Trimesh(vertices, faces, process=False)
    shape.metadata["evaluations"] = search.evaluations
    return shape


def _place(search: _Search, level: _Level, cells: Cells, numbers: Cells, vertices: Floats) -> None:
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


def _volume(vertices: Floats, faces: Ints, origin: Floats) -> float:
    """Signed volume between faces and a point, by the divergence theorem."""
    a, b, c = (vertices[faces[:, k]] - origin for k in range(3))
    return float(np.einsum("ij,ij->", a, np.cross(b, c))) / 6
