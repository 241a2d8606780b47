"""The cells of a grid that a surface crosses, found from a coarse grid downwards, few points asked about."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from ff3d.geometry.arrays import Floats
from ff3d.surfaces.grid_levels import (
    BATCH,
    BORDER,
    BYTES_A_BRICK,
    BYTES_A_CELL,
    BYTES_A_TILE,
    BYTES_A_VERTEX,
    BYTES_A_VOXEL,
    CORNERS,
    HUGE,
    MARGIN,
    BrickLevel,
    Cases,
    Cells,
    DenseLevel,
    ExtractionError,
    Frame,
    Guide,
    Level,
    Logits,
    batches,
    column,
    mixed,
)

NEAR = 0.25  # a coarse cell is halved if its logits come this near to 0, as a share of their range in the cell
EDGES: list[tuple[int, int]] = [
    (b, axis) for axis in range(3) for b, corner in enumerate(CORNERS) if not corner[axis]
]  # lower corner, axis


@dataclass
class Search:
    """From the coarse grid down to the cells of the fine one that the surface crosses; counts what it asks."""

    logits: Logits
    guide: Guide | None
    frame: Frame
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

    def surface(self) -> tuple[Level, Cells, Cases]:
        """The finest level, its cells that the surface crosses in the order of their indices, and their cases."""
        level: Level = (top := self._coarse())
        found = []
        for cells, cases in top.all_cells():
            found.append((cells, cases))
            if level.step == 1:
                self.check_room(level, sum(len(it) for _, it in found))
        cells, cases = np.concatenate([it for it, _ in found], axis=1), np.concatenate([it for _, it in found])
        while level.step > 1:
            finer = BrickLevel(level, self)
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
        if isinstance(level, BrickLevel):
            order = np.argsort(np.ravel_multi_index(tuple(cells), [8 * n for n in level.tiles]))
            cells, cases = cells[:, order], cases[order]
        return level, cells, cases

    def _coarse(self) -> DenseLevel:
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
        return DenseLevel(table, self.frame.step)

    def _descend(self, level: Level, finer: BrickLevel, cells: Cells, cases: Cases) -> Cells:
        """The finer cells to begin with: all eight of a cell that the surface may pass through; above the finest
        level, of cells with corners of both signs, those alone at the halves of their edges that are crossed.
        """
        last = finer.step == 1
        crossed = mixed(cases)
        whole = np.zeros(len(cases), dtype=np.bool_) if last else crossed.copy()
        for start in range(0, len(cases), BATCH):
            rest = start + np.flatnonzero(~whole[start : start + BATCH])
            if not last:
                whole[rest] = self._near(level, cells[:, rest])
                rest = rest[~whole[rest]]
            if self.guide is not None:
                whole[rest] = self._guided(cells[:, rest], level.step)
        self.check_room(finer, 8 * int(np.count_nonzero(whole)))
        seeds = [cells[:, :0]]
        for some in batches(cells[:, whole]):
            seeds += [finer.claim(2 * some + column(corner)) for corner in CORNERS]
        if last:
            split = crossed & ~whole
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
                    cell + column(CORNERS[bit]),
                    np.eye(3, dtype=np.int32)[:, axis : axis + 1],
                    cell,
                    lower[crossed] > 0,
                )

    def _near(self, level: Level, cells: Cells) -> NDArray[np.bool_]:
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

    def check_room(self, level: Level, cells: int, vertices: int = 0) -> None:
        """MemoryError if so many cells, or vertices, take more than is available."""
        needed = BYTES_A_CELL * cells + BYTES_A_VERTEX * max(vertices, cells if level.step == 1 else 0)
        if isinstance(level, BrickLevel):
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
