"""The signed distances of a shape at the corners of a lattice, as many of them as there is time for."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ff3d.geometry.arrays import Bools, Floats, Ints
from ff3d.geometry.coordinates import UnitCube
from ff3d.geometry.distances import NearestFaces, TruncatedDistance
from ff3d.geometry.hidden_walls import parted_surface
from ff3d.geometry.triangles import areas, loose
from ff3d.lattices.lattice import (
    MOST_ROOT,
    OCTANT_WEIGHTS,
    OCTANTS,
    ROOT_STEPS,
    SLOTS,
    Frame,
    Growth,
    Lattice,
    Nodes,
)

if TYPE_CHECKING:
    import trimesh

    from ff3d.labels.oracles import Oracle

TRUNCATED = 1 / 128  # units: up to where lists of triangles are faster than a tree
REACH = 2.0  # cells of a level: further away a distance only has to be more than it takes to halve a cell
DOUBTFUL = 1 / 32  # units: up to where the distance to hidden walls and to what closes holes is known
ROUNDING = 4e-6  # units: more than two distances are off
ON_SURFACE = 5e-7  # units: either side is right there, and labels are slow, for many faces may be as near


class SignedDistance:
    """The distance to what parts inside from outside, positive inside; units, of points in unit coordinates.

    The oracle alone says the sign.
    """

    def __init__(self, mesh: trimesh.Trimesh, oracle: Oracle, cube: UnitCube):
        self.oracle, self.cube = oracle, cube
        self.surface, hidden = parted_surface(mesh, oracle, TRUNCATED * cube.scale)
        caps = getattr(oracle, "caps", None)
        self._margin = np.inf if caps is None else math.sqrt(float(areas(caps).sum()) / math.pi) / cube.scale
        self._doubtful = hidden.triangles if caps is None else np.concatenate([hidden.triangles, caps])
        self._far = NearestFaces(self.surface)

    @cached_property
    def _near(self) -> TruncatedDistance:
        return TruncatedDistance(self.surface.vertices, self.surface.faces, TRUNCATED, unit=self.cube.scale)

    @property
    def certifies(self) -> bool:
        """Whether most signs follow from distances."""
        return self._margin < DOUBTFUL

    @cached_property
    def _doubtful_near(self) -> TruncatedDistance:
        return TruncatedDistance(*loose(self._doubtful), DOUBTFUL, unit=self.cube.scale)

    def clear(self, points: Floats) -> Floats:
        """Radii (n,) of balls about points in which labels change at the surface alone, units.

        Elsewhere walls that are hidden in the solid may end, or a hole be closed.
        """
        if not self.certifies or not len(self._doubtful):
            return np.full(len(points), np.inf if self.certifies else 0.0)
        return self._doubtful_near(self.cube.from_unit(points)).astype(np.float64) - self._margin

    def size(self, points: Floats, reach: float) -> Floats:
        """Distances (n,) without their signs, right up to `reach` and more than it beyond."""
        near = reach <= TRUNCATED
        world = self.cube.from_unit(points)
        return self._near(world).astype(np.float64) if near else self._far(world)[0] / self.cube.scale

    def inside(self, points: Floats) -> Bools:
        """Labels (n,)."""
        found: Bools = self.oracle(self.cube.from_unit(points))
        return found

    def __call__(self, points: Floats, reach: float) -> Floats:
        """Signed distances (n,), right up to `reach`."""
        return np.where(self.inside(points), 1, -1) * self.size(points, reach)


class Samples:
    """Signed distances at the nodes of a lattice's levels: those that were sampled, and others when queried.

    keys, values: for each level in ascending order of `Frame.keys`; level 0 is the root.
    """

    def __init__(self, frame: Frame, distance: SignedDistance):
        self.frame, self.distance = frame, distance
        self.keys: list[Ints] = []
        self.values: list[Floats] = []

    def reach(self, level: int) -> float:
        """How far from the surface the distances of a level are right, units."""
        return REACH * self.frame.side / 2**level

    def at(self, place: Ints, level: int) -> Floats:
        """The distances (n,) at corners (n, 3) of a level."""
        keys, known = self.frame.keys(place, level), self.keys[level]
        row = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        found = self.values[level][row]
        missing = np.flatnonzero(known[row] != keys)
        if len(missing):
            found[missing] = self.distance(self.frame.points(place[missing], level), self.reach(level))
        return found


def sample(
    distance: SignedDistance,
    frame: Frame,
    *,
    progress: Callable[[int, int], None] | None = None,
    on_lattice: Callable[[Lattice], None] | None = None,
) -> tuple[Lattice, Samples]:
    """The lattice of a shape's signed distances.

    progress: is told after each level how many there are behind and in all.  on_lattice: is given the levels so far.
    """
    samples = Samples(frame, distance)
    place = frame.root_corners()
    value = distance(frame.points(place, 0), np.inf)
    samples.keys.append(frame.keys(place, 0))
    samples.values.append(value)
    growth = Growth(frame, root_numbers(frame, value) * (2 * frame.steps // ROOT_STEPS))
    for level in range(1, frame.levels + 1):
        nodes = growth.halve()
        value = _values(samples, nodes, value[growth.corners], level)
        samples.keys.append(frame.keys(nodes.place, level))
        samples.values.append(value)
        growth.add(np.rint(value / frame.step(level)).astype(np.int64))
        if progress:
            progress(level, frame.levels)
        if on_lattice and level < frame.levels:
            on_lattice(growth.lattice().coarser(level))
    return growth.lattice(), samples


_ODD: Bools = np.array([slot.any() for slot in SLOTS & 1])  # the slots that are no corner of the halved cell


def root_numbers(frame: Frame, value: Floats) -> Ints:
    """Distances at the root's corners as whole numbers of the root's own, coarse steps."""
    return np.clip(np.rint(value * (ROOT_STEPS / frame.side)), -MOST_ROOT, MOST_ROOT).astype(np.int64)


def _values(samples: Samples, nodes: Nodes, corners: Floats, level: int) -> Floats:
    """The signed distances at the nodes of a level; corners (m, 8): those of the cells that were halved."""
    distance, frame = samples.distance, samples.frame
    odd = _ODD[nodes.slot]
    value = np.empty(len(odd))
    kept = np.flatnonzero(~odd)
    value[kept] = corners[nodes.owner[kept], (SLOTS[nodes.slot[kept]] // 2) @ OCTANT_WEIGHTS]
    new = np.flatnonzero(odd)
    points = frame.points(nodes.place[new], level)
    size = distance.size(points, samples.reach(level))
    sign = np.where(size < ON_SURFACE, 1.0, 0.0)
    # labels do not change in the balls about two points whose radii are their distances: where the balls meet, both
    # points are on one side
    clear = distance.clear(points)
    left = np.flatnonzero((size < clear) & (sign == 0))
    apart = np.linalg.norm(SLOTS[:, None] - 2 * OCTANTS, axis=2) * (frame.side / 2**level)
    for corner in range(8):
        at, between = corners[nodes.owner[new[left]], corner], apart[nodes.slot[new[left]], corner]
        meets = np.abs(at) + size[left] > between + ROUNDING
        meets &= np.abs(at) + between < clear[left]
        sign[left[meets]] = np.sign(at[meets])
        left = left[~meets]
    left = np.flatnonzero(sign == 0)
    sign[left] = np.where(distance.inside(points[left]), 1, -1)
    value[new] = sign * size
    return value
