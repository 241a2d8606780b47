"""Which cells of a fine grid a surface crosses: from a coarse grid down, evaluating few points."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ff3d.geometry.arrays import Bools, Floats
from ff3d.surfaces.grid_levels import (
    BATCH,
    BORDER_LOGIT,
    BYTES_PER_BRICK,
    BYTES_PER_CELL,
    BYTES_PER_TILE,
    BYTES_PER_VERTEX,
    BYTES_PER_VOXEL,
    CORNERS,
    LARGEST_LOGIT,
    MARGIN,
    BrickLevel,
    Cases,
    Cells,
    DenseLevel,
    ExtractionError,
    FineGrid,
    Guide,
    Level,
    Logits,
    batches,
    column,
    mixed,
)

NEAR = 0.25  # a coarse cell is halved if its logits come this near to 0, as a share of their range in the cell
EDGES: list[tuple[int, int]] = [
    (bit, axis) for axis in range(3) for bit, corner in enumerate(CORNERS) if not corner[axis]
]  # of a cell: the bit of the lower corner, the axis


@dataclass
class SurfaceTracer:
    """Traces a surface from the coarse grid down to the fine cells that it crosses, and counts the evaluations."""

    logits: Logits
    guide: Guide | None
    grid: FineGrid
    chunk: int
    refine: int
    tolerance: float
    available: int
    bar: tqdm[Any]
    evaluations: int = 0
    lowest: float = math.inf
    highest: float = -math.inf

    def query(self, points: Floats) -> Floats:
        """The logits (n,) of points (n, 3), checked and clipped to finite numbers."""
        values = np.clip(_evaluate(self.logits, points), -LARGEST_LOGIT, LARGEST_LOGIT)
        self.evaluations += len(points)
        self.lowest, self.highest = min(self.lowest, values.min()), max(self.highest, values.max())
        self.bar.update(len(points))
        return values

    def trace(self) -> tuple[Level, Cells, Cases]:
        """The finest level, the cells on it that the surface crosses in ascending order of indices, and their cases.

        Raises ExtractionError if there are none.
        """
        level: Level = (coarsest := self._coarsest_level())
        slabs, total = [], 0
        for slab in coarsest.all_cells():
            slabs.append(slab)
            total += len(slab[1])
            if level.step == 1:
                self.check_memory(level, total)
        cells = np.concatenate([cells for cells, _ in slabs], axis=1)
        cases = np.concatenate([cases for _, cases in slabs])
        while level.step > 1:
            finer = BrickLevel(level, self)
            cells, cases = finer.follow(self._descend(level, finer, cells, cases))
            level = finer
        if not len(cases):
            sparse = self.grid.step > 1
            size = " x ".join(str(len(axis)) for axis in self.grid.axes)
            raise ExtractionError(
                f"nothing is inside: on the grid of {size} points "
                + (f"({self.evaluations} evaluated) " if sparse else "")
                + f"the logits range from {self.lowest:.6g} to {self.highest:.6g}, and inside is > 0; is the box the "
                "right one, is the fit done, is the shape thinner than a cell (raise the resolution"
                + (", or start)?" if sparse else ")?")
            )
        if isinstance(level, BrickLevel):
            order = np.argsort(np.ravel_multi_index(tuple(cells), [8 * n for n in level.tiles]))
            cells, cases = cells[:, order], cases[order]
        return level, cells, cases

    def _coarsest_level(self) -> DenseLevel:
        """The coarse grid, evaluated in runs of rows along z."""
        x, y, z = (axis[:: self.grid.step] for axis in self.grid.axes)
        table = np.full([len(axis) + 2 for axis in (x, y, z)], BORDER_LOGIT, dtype=np.float32)
        inner = table[1:-1, 1:-1, 1:-1]
        rows = len(x) * len(y)
        self.bar.total = inner.size
        for start in range(0, rows, step := max(1, self.chunk // len(z))):
            i, j = np.divmod(np.arange(start, min(start + step, rows)), len(y))
            points = np.empty((len(i), len(z), 3))
            points[..., 0], points[..., 1], points[..., 2] = x[i, None], y[j, None], z
            inner[i, j] = self.query(points.reshape(-1, 3)).reshape(len(i), len(z))
        return DenseLevel(table, self.grid.step)

    def _descend(self, level: Level, finer: BrickLevel, cells: Cells, cases: Cases) -> Cells:
        """The finer cells to start from: all eight of a cell that the surface may pass through; on the finest level,
        of cells with corners of both signs, only those at the halves of their edges that are crossed.
        """
        last = finer.step == 1
        crossed = mixed(cases)
        halved = np.zeros(len(cases), dtype=np.bool_) if last else crossed.copy()
        for start in range(0, len(cases), BATCH):
            rest = start + np.flatnonzero(~halved[start : start + BATCH])
            if not last:
                halved[rest] = self._near_surface(level, cells[:, rest])
                rest = rest[~halved[rest]]
            if self.guide is not None:
                halved[rest] = self._guided(cells[:, rest], level.step)
        self.check_memory(finer, 8 * int(np.count_nonzero(halved)))
        seeds = [cells[:, :0]]
        for batch in batches(cells[:, halved]):
            seeds += [finer.mark_visited(2 * batch + column(corner)) for corner in CORNERS]
        if last:
            split = crossed & ~halved
            edges = list(self._crossed_edges(cells[:, split], cases[split]))
            for corner, axis, _, _ in edges:
                finer.request(2 * corner + axis)
            finer.evaluate_requested()
            for corner, axis, cell, inside in edges:
                middle = finer.values[finer.addresses(2 * corner + axis)] > 0
                seeds.append(finer.mark_visited(cell + corner + axis * (middle == inside)))
        return np.concatenate(seeds, axis=1)

    @staticmethod
    def _crossed_edges(cells: Cells, cases: Cases) -> Iterator[tuple[Cells, Cells, Cells, Bools]]:
        """Edges with ends of both signs: the lower end, the axis as a column, the cell, whether the lower is inside."""
        for start in range(0, len(cases), BATCH):
            batch, case = cells[:, start : start + BATCH], cases[start : start + BATCH]
            for bit, axis in EDGES:
                lower, upper = case >> bit & 1, case >> bit + (4 >> axis) & 1
                crossed = np.flatnonzero(lower != upper)
                cell = batch[:, crossed]
                yield (
                    cell + column(CORNERS[bit]),
                    np.eye(3, dtype=np.int32)[:, axis : axis + 1],
                    cell,
                    lower[crossed] > 0,
                )

    def _near_surface(self, level: Level, cells: Cells) -> Bools:
        """Whether the surface may pass through cells with corners of one sign: their logits come near to 0."""
        values = level.values[level.corner_addresses(cells)]
        highest = values.max(axis=0)
        values[values < -2 * LARGEST_LOGIT] = LARGEST_LOGIT  # the border was not evaluated
        lowest = values.min(axis=0)
        return np.minimum(np.abs(highest), np.abs(lowest)) < NEAR * (highest - lowest)

    def _guided(self, cells: Cells, side: int) -> Bools:
        """What the guide returns for cells (m,); False for those outside the box."""
        last = np.array(self.grid.cells)[:, None] + self.grid.step
        passed: Bools = np.all((cells * side < last) & ((cells + 1) * side > self.grid.step), axis=0)
        if passed.any() and self.guide is not None:
            centers = self.grid.centers(cells[:, passed], side)
            returned = np.asarray(self.guide(centers, side * self.grid.cell))
            if returned.shape != (len(centers),) or returned.dtype != np.bool_:
                raise ExtractionError(
                    f"the guide must return, for centers of shape {centers.shape}, bools of shape ({len(centers)},), "
                    f"it returned {returned.dtype} of shape {returned.shape}"
                )
            passed[passed] = returned
        return passed

    def check_memory(self, level: Level, cells: int, vertices: int = 0) -> None:
        """Raise MemoryError if so many cells, or vertices, need more than is available."""
        needed = BYTES_PER_CELL * cells + BYTES_PER_VERTEX * max(vertices, cells if level.step == 1 else 0)
        if isinstance(level, BrickLevel):
            needed += BYTES_PER_BRICK * level.count + BYTES_PER_TILE * len(level.table)
        else:
            needed += BYTES_PER_VOXEL * len(level.values)
        if needed > self.available:
            fits = int(self.grid.resolution * math.sqrt(self.available / needed) / level.step)
            raise MemoryError(
                f"the surface is rough: its {cells} cells of 1/{self.grid.resolution // level.step} need "
                f"{needed / 1e9:.3g} GB, {self.available / 1e9:.3g} GB are available; the largest resolution that fits "
                f"is about {fits}; or check whether the function is noise"
            )

    def roots(self, low: Floats, high: Floats, a: Floats, b: Floats) -> Floats:
        """The roots of the logits on segments across which they change sign, as shares of the segments (n,).

        low, high (n, 3): the ends.  a, b (n,): the logits there.
        """
        found, rest = np.empty(len(a)), np.arange(len(a))
        left, right = np.zeros(len(a)), np.ones(len(a))
        a, b = a.copy(), b.copy()
        weighted_a, weighted_b = a.copy(), b.copy()  # the logits, halved at an end that stays (Illinois)
        moved = np.zeros(len(a), dtype=np.int8)  # which end moved last: 1 left, -1 right
        for step in range(self.refine):
            if not len(rest):
                return found
            share = weighted_a / (weighted_a - weighted_b)
            # where the bracket shrinks by less than 1/2 in two steps, bisect
            share[right - left > 0.5 ** (step / 2)] = 0.5
            middle = left + (right - left) * np.clip(share, MARGIN, 1 - MARGIN)
            points = low[rest] + (high[rest] - low[rest]) * middle[:, None]
            values = np.concatenate(
                [self.query(points[start : start + self.chunk]) for start in range(0, len(points), self.chunk)]
            )
            lower = (values > 0) == (a > 0)
            left, right = np.where(lower, middle, left), np.where(lower, right, middle)
            a, b = np.where(lower, values, a), np.where(lower, b, values)
            weighted_a = np.where(lower, values, np.where(moved < 0, weighted_a / 2, weighted_a))
            weighted_b = np.where(lower, np.where(moved > 0, weighted_b / 2, weighted_b), values)
            moved = np.where(lower, 1, -1).astype(np.int8)
            if self.tolerance > 0:
                found[rest], on = middle, np.abs(values) > self.tolerance
                rest, left, right, moved = rest[on], left[on], right[on], moved[on]
                a, b, weighted_a, weighted_b = a[on], b[on], weighted_a[on], weighted_b[on]
        found[rest] = left + (right - left) * (a / (a - b))
        return found


def _evaluate(logits: Logits, points: Floats) -> Floats:
    """The logits (n,) of points (n, 3). Raises ExtractionError unless they are numbers, one for each point."""
    values = np.asarray(logits(points))
    if values.shape != (len(points),) or values.dtype.kind not in "fiu":
        raise ExtractionError(
            f"the function must return, for points of shape {points.shape}, numbers (> 0 inside) of shape "
            f"({len(points)},); between {points[0].tolist()} and {points[-1].tolist()} it returned {values.dtype} of "
            f"shape {values.shape}" + ("; subtract 0.5 from an occupancy" if values.dtype.kind == "b" else "")
        )
    if (bad := np.isnan(values)).any():
        first = points[bad.argmax()].tolist()
        raise ExtractionError(f"the function returned NaN at {first} ({bad.sum()} of {len(points)} points there)")
    return values.astype(np.float64)
