"""A lattice for a budget: as fine as the seconds allow, or in as many bytes as are given."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np

from ff3d.fields.config import Budget, MappingConfig
from ff3d.geometry.arrays import Floats
from ff3d.geometry.coordinates import order_in_space
from ff3d.geometry.cores import available_memory
from ff3d.geometry.sampling import sample_surface
from ff3d.lattices.codec import Bytes, encoded
from ff3d.lattices.lattice import Frame, Lattice
from ff3d.points.lattice_sampling import SignedDistance, sample
from ff3d.points.lattice_solving import STEPS as SOLVED_STEPS
from ff3d.points.lattice_solving import fitted_to, solved, solved_to

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 24  # half a cell's side in steps of the sampled numbers: what is rounded is a tenth of what is trilinear
CELLS, FEWEST, MOST = 256, 24, 1536  # along the unit cube: without seconds, and in any case
BYTES = 100_000
OVERHEAD = 1_100  # bytes of a field's file beside its numbers
# A surface of one square unit has about so many corners to be sampled, times the square of the cells along a unit
CORNERS = 7.0
PROBE = 50_000  # of them, to see how long one takes
NEW = 0.85  # the share of corners that no coarser level had
LABELLED = 0.12  # the share of these whose sign is queried, where most follow from distances
HANDLING = 0.9e-6  # seconds for each corner beside distance and label
MEMORY = 300  # bytes for each corner while a lattice grows
WATCHING = 0.1  # the share of the seconds
BY_TREE = 170  # cells along the unit cube, for which the tree alone is faster than lists that have to be built first


def fit_lattice(
    distance: SignedDistance,
    box: Floats,
    mapping: MappingConfig,
    budget: Budget,
    *,
    seed: int = 0,
    spent: float = 0.0,
    progress: Callable[[float], None] | None = None,
    on_lattice: Callable[[Lattice], None] | None = None,
) -> Lattice:
    """The lattice of a shape.

    box: (2, 3), the shape's, unit coordinates.  mapping: `voxels` are sampled, a `lattice` is solved for; `finest` sets
    the smallest cells along the unit cube, in place of the budget.  budget: seconds, of which `spent` are gone, hold
    for voxels; bytes for both.  progress: is told the share that is done.  on_lattice: is given what there is so far,
    coarser levels or larger and smaller attempts; `WATCHING` of the seconds are left to it.
    Raises ValueError if the shape does not fit into so few bytes.
    """
    begun = time.perf_counter()
    cells, size = mapping.finest, int(budget.bytes or BYTES) - OVERHEAD
    if mapping.name == "lattice":
        if cells:
            return solved(distance, box, cells, seed=seed)
        return solved_to(distance, box, size, seed=seed, progress=progress, on_lattice=on_lattice)
    if cells is None and budget.bytes:
        return _sampled_to(distance, box, size)
    if cells is None and budget.seconds:
        seconds = budget.seconds * (1 - WATCHING if on_lattice else 1)
        cells = _cells_within(distance, begun + seconds - spent)
    told = None if progress is None else lambda level, levels: progress(4.0 ** (level - levels))
    return sample(distance, Frame.around(box, cells or CELLS, STEPS), progress=told, on_lattice=on_lattice)[0]


def _cells_within(distance: SignedDistance, end: float) -> int:
    """How many cells along the unit cube can be sampled until a moment of the clock, by how long some points take.

    Lists of triangles are built only where they pay.
    """
    surface = distance.surface
    area = max(float(surface.area) / distance.cube.scale**2, 1e-3)
    most = min(MOST, math.isqrt(int(available_memory() / 2 / (MEMORY * CORNERS * area))))
    points, _ = sample_surface(surface, PROBE, np.random.default_rng(0))
    unit = distance.cube.to_unit(points) + np.random.default_rng(1).standard_normal(points.shape) / CELLS
    unit = unit[order_in_space(unit)]  # as the corners of cells come
    labelled = LABELLED if distance.certifies else 1.0

    def cells(each: float) -> int:
        """How many, if a new corner takes so long."""
        left = max(0.95 * (end - time.perf_counter()), 0.0)
        return max(FEWEST, min(most, int(math.sqrt(left / (CORNERS * area * (NEW * each + HANDLING))))))

    few = unit[::10]
    by_tree = _seconds_each(lambda: distance.size(few, np.inf), len(few))
    if cells(by_tree) < BY_TREE:
        return cells(by_tree + labelled * _seconds_each(lambda: distance.inside(few), len(few)))
    by_lists = _seconds_each(lambda: distance.size(unit, 0.0), len(unit))
    return cells(by_lists + labelled * _seconds_each(lambda: distance.inside(unit), len(unit)))


def _seconds_each(query: Callable[[], object], count: int) -> float:
    """How long one of so many points takes, once what is built when it is first used is there."""
    query()
    begun = time.perf_counter()
    query()
    return (time.perf_counter() - begun) / count


def _sampled_to(distance: SignedDistance, box: Floats, size: int) -> Lattice:
    """The finest lattice of sampled distances that fits into so many bytes."""

    def make(cells: int) -> tuple[Lattice, Bytes]:
        lattice, _ = sample(distance, Frame.around(box, cells, SOLVED_STEPS))
        return lattice, encoded(lattice)

    return fitted_to(size, make)[0]
