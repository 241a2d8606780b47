"""A lattice for a budget: as fine as the seconds allow, or in as many bytes as are given."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import numpy as np

from ff3d.fields.config import Budget, MappingConfig
from ff3d.geometry.arrays import Floats
from ff3d.geometry.sampling import sample_surface
from ff3d.lattices.codec import Bytes, encoded
from ff3d.lattices.lattice import Frame, Lattice
from ff3d.points.lattice_sampling import SignedDistance, sample
from ff3d.points.lattice_solving import STEPS as SOLVED_STEPS
from ff3d.points.lattice_solving import fitted_to, solved, solved_to
from ff3d.surfaces.extraction import available_memory

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 24  # half a cell's side in steps of the sampled numbers: what is rounded is a tenth of what is trilinear
CELLS, FEWEST, MOST = 256, 24, 1536  # along the unit cube: without seconds, and in any case
BYTES = 100_000
OVERHEAD = 1_500  # bytes of a field's file beside its numbers
# A surface of one square unit has about so many corners to be sampled, times the square of the cells along a unit
CORNERS = 7.0
PROBE = 50_000  # of them, to see how long one takes
LABELLED, OFTEN_LABELLED = 0.15, 0.85  # the share whose sign is queried, where most follow from distances or not
HANDLING = 0.6e-6  # seconds for each corner beside distance and label
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
    cells = FEWEST
    for reach, count in ((np.inf, PROBE // 10), (0.0, PROBE)):
        points, _ = sample_surface(surface, count, np.random.default_rng(0))
        unit = distance.cube.to_unit(points) + np.random.default_rng(1).standard_normal(points.shape) / CELLS
        distance.size(unit[:1], reach)  # with what is built when it is first used
        distance.inside(unit[: count // 10])
        begun = time.perf_counter()
        distance.size(unit, reach)
        measured = time.perf_counter()
        distance.inside(unit)
        done = time.perf_counter()
        labelled = LABELLED if distance.certifies else OFTEN_LABELLED
        each = ((measured - begun) + labelled * (done - measured)) / count + HANDLING
        left = max(0.95 * (end - done), 0.0)
        cells = max(FEWEST, min(most, int(math.sqrt(left / (CORNERS * area * each)))))
        if cells < BY_TREE:
            break
    return cells


def _sampled_to(distance: SignedDistance, box: Floats, size: int) -> Lattice:
    """The finest lattice of sampled distances that fits into so many bytes."""

    def make(cells: int) -> tuple[Lattice, Bytes]:
        lattice, _ = sample(distance, Frame.around(box, cells, SOLVED_STEPS))
        return lattice, encoded(lattice)

    return fitted_to(size, make)[0]
