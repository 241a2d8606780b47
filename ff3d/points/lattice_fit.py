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

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS = 24  # half a cell's side in steps of the sampled numbers: what is rounded is a tenth of what is trilinear
CELLS, FEWEST, MOST = 256, 24, 1536  # along the unit cube: without seconds, and in any case
BYTES = 100_000
OVERHEAD = 1_500  # bytes of a field's file beside its numbers
# A surface of one square unit has about so many corners to be sampled, times the square of the cells along a unit
CORNERS = 6.0
PROBE = 50_000  # of them, to see how long one takes
HANDLING = 1.2e-6  # seconds for each corner beside distance and label


def fit_lattice(
    distance: SignedDistance,
    box: Floats,
    mapping: MappingConfig,
    budget: Budget,
    *,
    seed: int = 0,
    spent: float = 0.0,
    progress: Callable[[float], None] | None = None,
) -> Lattice:
    """The lattice of a shape.

    box: (2, 3), the shape's, unit coordinates.  mapping: `voxels` are sampled, a `lattice` is solved for; `finest` sets
    the smallest cells along the unit cube, in place of the budget.  budget: seconds, of which `spent` are gone, hold
    for voxels; bytes for both.  progress: is told the share that is done.
    Raises ValueError if the shape does not fit into so few bytes.
    """
    begun = time.perf_counter()
    cells, size = mapping.finest, int(budget.bytes or BYTES) - OVERHEAD
    if mapping.name == "lattice":
        if cells:
            return solved(distance, box, cells, seed=seed)
        return solved_to(distance, box, size, seed=seed, progress=progress)
    if cells is None and budget.bytes:
        return _sampled_to(distance, box, size)
    if cells is None and budget.seconds:
        left = budget.seconds - spent
        cells = _cells_within(distance, left - (time.perf_counter() - begun), left)
    told = None if progress is None else lambda level, levels: progress(4.0 ** (level - levels))
    return sample(distance, Frame.around(box, cells or CELLS, STEPS), progress=told)[0]


def _cells_within(distance: SignedDistance, seconds: float, whole: float) -> int:
    """How many cells along the unit cube can be sampled in so many seconds, by how long some points take."""
    surface = distance.surface
    if not len(surface.faces):
        return FEWEST
    area = float(surface.area) / distance.cube.scale**2
    rng = np.random.default_rng(0)
    guess = math.sqrt(max(seconds, 0.1) / (CORNERS * max(area, 1e-3) * 3e-6))
    points, _ = sample_surface(surface, PROBE, rng)
    unit = distance.cube.to_unit(points) + rng.standard_normal(points.shape) / max(guess, 64)
    begun = time.perf_counter()
    distance.size(unit, 0.0)
    labelled = time.perf_counter()
    distance.inside(unit)
    done = time.perf_counter()
    each = ((labelled - begun) + 0.4 * (done - labelled)) / PROBE + HANDLING
    left = 0.9 * seconds - (done - begun)
    cells = math.sqrt(max(left, 0.02 * whole, 0.0) / (CORNERS * 4 / 3 * max(area, 1e-3) * each))
    return int(np.clip(cells, FEWEST, MOST))


def _sampled_to(distance: SignedDistance, box: Floats, size: int) -> Lattice:
    """The finest lattice of sampled distances that fits into so many bytes."""

    def make(cells: int) -> tuple[Lattice, Bytes]:
        lattice, _ = sample(distance, Frame.around(box, cells, SOLVED_STEPS))
        return lattice, encoded(lattice)

    return fitted_to(size, make)[0]
