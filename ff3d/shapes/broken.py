"""Broken meshes on purpose, each with the exact solid that it stands for: what labels are measured against.

The faults come about as often as among the models of Thingi10K (Zhou and Jacobson 2016), where half are no solids;
see `SHARES`. A case has at least one. Each case is its seed's alone, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from ff3d.geometry.arrays import Labels
from ff3d.shapes.broken_bodies import (
    blocks,
    bridged,
    cavity,
    copied,
    crumbs,
    disjoint,
    figure_eight,
    folded,
    loop_ring,
    nested,
    overlapping,
    shells,
)
from ff3d.shapes.broken_solids import (
    LEVELS,
    Contains,
    Shape,
    choose,
    moved,
    plain_shape,
    random_direction,
    random_rotation,
    sample_shape,
)
from ff3d.shapes.faults import degenerated, doubled, opened, sheet, turned, walled
from ff3d.shapes.sample_meshes import SPACING

if TYPE_CHECKING:
    import trimesh


CUT, NONMANIFOLD, PARTS, DEGENERATE, OPEN, FLIPPED = GROUPS = (
    "self-intersection", "non-manifold", "several parts", "degenerate", "open", "not oriented",
)  # fmt: skip
# Of the cases; they overlap.
SHARES = dict(zip(GROUPS, (0.45, 0.22, 0.26, 0.16, 0.11, 0.10), strict=True))
# Drawn one by one with these chances, about half of all draws hold a fault, and among that half the shares are SHARES:
# 1 - prod(1 - HALF share) = HALF.
HALF = 0.513
LOOSE = 0.08  # chance that the triangles come loose, as in an STL, on top of the faults
SHEETS = 0.4  # of the open ones that neither cut themselves nor are non-manifold
FACES = (100, 50_000)  # the number of faces is drawn log-uniformly


@dataclass(frozen=True)
class BrokenMesh:
    """A broken mesh and the truth.

    mesh: anywhere, of any size, input coordinates.  faults: names, "group: kind", of `GROUPS`.
    surface_error: how far the mesh's surface may lie from the solid's by tessellation, input units, an estimate.
    enclosing: False for sheets, which have no inside.  solid: `contains`, unchecked.
    """

    name: str
    mesh: trimesh.Trimesh
    faults: tuple[str, ...]
    surface_error: float
    enclosing: bool
    solid: Contains

    def contains(self, points: ArrayLike) -> Labels:
        """Exact occupancy (n,) of points (n, 3), input coordinates. Raises ValueError for any other shape."""
        array = np.asarray(points, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != 3:
            raise ValueError(f"points must have shape (n, 3), got {array.shape}")
        return self.solid(array)


def broken_mesh(seed: int) -> BrokenMesh:
    """The broken mesh number `seed`, >= 0: the same bytes each time."""
    import trimesh

    rng = np.random.default_rng([seed, 20161])
    drawn: set[str] = set()
    while not drawn:
        drawn = {group for group, share in SHARES.items() if rng.random() < HALF * share}
    count = float(np.exp(rng.uniform(*np.log(FACES))))
    faults: list[str] = []
    is_sheet = OPEN in drawn and not drawn & {CUT, NONMANIFOLD} and rng.random() < SHEETS
    if is_sheet:
        shape, kind = sheet(rng, count, several=PARTS in drawn)
        faults.append(f"{OPEN}: {kind}")
        if PARTS in drawn:
            faults.append(f"{PARTS}: several sheets")
    else:
        shape = _base(rng, count, drawn, faults)
        if OPEN in drawn:
            shape, kind = opened(shape, rng, whole=not drawn & {CUT, PARTS, NONMANIFOLD})
            faults.append(f"{OPEN}: {kind}")
        if NONMANIFOLD in drawn and not any(it.startswith(NONMANIFOLD) for it in faults):
            shape, kind = doubled(shape, rng)
            faults.append(f"{NONMANIFOLD}: {kind}")
    if FLIPPED in drawn:
        shape, kind = turned(shape, rng)
        faults.append(f"{FLIPPED}: {kind}")
    if DEGENERATE in drawn:
        shape, kind = degenerated(shape, rng)
        faults.append(f"{DEGENERATE}: {kind}")

    scale = float(10.0 ** rng.choice([0.0, rng.uniform(-5, 5)]))
    away = float(rng.choice([0.0, 1.0, 10.0 ** rng.uniform(0, 4)]))
    shape = moved(shape, scale=scale, turn=random_rotation(rng), shift=scale * away * random_direction(rng))
    vertices, faces = shape.vertices, shape.faces
    if rng.random() < LOOSE:
        vertices, faces = vertices[faces].reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3)
        faults.append("loose triangles")
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    return BrokenMesh(f"{seed}-{shape.name}", mesh, tuple(faults), shape.error, not is_sheet, shape.contains)


def warm() -> None:
    """Make the samples of all sizes now, 10 s, so that processes forked later have them."""
    for name in SPACING:
        for level in range(LEVELS):
            sample_shape(name, level)


def _base(rng: Generator, count: float, drawn: set[str], faults: list[str]) -> Shape:
    """The closed surface that the other faults are worked into, of one part or more."""
    cut, parts = CUT in drawn, PARTS in drawn
    if parts:
        several = choose(rng, overlapping, overlapping, copied) if cut else None
        several = several or choose(rng, disjoint, nested, cavity, shells, crumbs)
        shape, kind = several(rng, count)
        faults.append(f"{PARTS}: {kind}")
        if cut:
            faults.append(f"{CUT}: {kind}")
    elif cut:
        shape, kind = choose(rng, loop_ring, figure_eight, folded, bridged)(rng, count)
        faults.append(f"{CUT}: {kind}")
    elif NONMANIFOLD in drawn and rng.random() < 0.45:
        shape, kind = blocks(rng, count)
        faults.append(f"{NONMANIFOLD}: {kind}")
    else:
        shape = plain_shape(rng, count)
    if NONMANIFOLD in drawn and not any(it.startswith(NONMANIFOLD) for it in faults) and rng.random() < 0.45:
        found = walled(shape, rng)
        if found:
            shape, kind = found
            faults.append(f"{NONMANIFOLD}: {kind}")
    return shape
