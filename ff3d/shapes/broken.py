"""Broken meshes on purpose, each with the exact solid that it stands for: what labels are measured against.

The faults of the first kind, `mixed`, come about as often as among the models of Thingi10K (Zhou and Jacobson 2016),
where half are no solids; see `SHARES`. A case has at least one. Those of the second kind, `touching`, are what was
found in the wild: bodies that touch, layers, corners equal only nearly, files turned inside out, thin plates, strays.
Each case is its kind's and seed's alone, bit for bit.
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
    heap,
    layered,
    loop_ring,
    nested,
    overlapping,
    plates,
    shells,
    thin_shell,
)
from ff3d.shapes.broken_solids import (
    LEVELS,
    Contains,
    Shape,
    box_shape,
    choose,
    hull_shape,
    moved,
    plain_shape,
    random_direction,
    random_rotation,
    sample_shape,
)
from ff3d.shapes.faults import (
    degenerated,
    doubled,
    halved,
    opened,
    rewound,
    sheet,
    strayed,
    turned,
    unwelded,
    walled,
)
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
KINDS = ("mixed", "touching")
TOUCH, THIN, WOUND, UNWELDED, STRAY = ("touching bodies", "thin", "winding", "unwelded", "stray")
# Of the second kind: chances of corners apart, by that power of ten of the size, and of strays
APART, APART_BY, STRAYED = 0.25, (-9.0, -6.0), 0.2


@dataclass(frozen=True)
class BrokenMesh:
    """A broken mesh and the truth.

    mesh: anywhere, of any size, input coordinates.  faults: names, "group: kind", of `GROUPS`.
    surface_error: how far the mesh's surface may lie from the solid's by tessellation, input units, an estimate.
    enclosing: False for sheets, which have no inside.  solid: `contains`, unchecked.
    strays: how many faces, the last ones, belong to no solid.
    """

    name: str
    mesh: trimesh.Trimesh
    faults: tuple[str, ...]
    surface_error: float
    enclosing: bool
    solid: Contains
    strays: int = 0

    @property
    def sound_mesh(self) -> trimesh.Trimesh:
        """The mesh without its strays: where to measure."""
        import trimesh

        if not self.strays:
            return self.mesh
        faces = self.mesh.faces[: -self.strays]
        used, inverse = np.unique(faces, return_inverse=True)
        return trimesh.Trimesh(self.mesh.vertices[used], inverse.reshape(-1, 3), process=False)

    def contains(self, points: ArrayLike) -> Labels:
        """Exact occupancy (n,) of points (n, 3), input coordinates. Raises ValueError for any other shape."""
        array = np.asarray(points, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != 3:
            raise ValueError(f"points must have shape (n, 3), got {array.shape}")
        return self.solid(array)


def broken_mesh(seed: int, kind: str = "mixed") -> BrokenMesh:
    """The broken mesh number `seed`, >= 0, of a kind of `KINDS`: the same bytes each time. ValueError for others."""
    if kind not in KINDS:
        raise ValueError(f"unknown kind {kind!r} of broken meshes; known: {', '.join(KINDS)}")
    return _mixed(seed) if kind == "mixed" else _touching(seed)


def _mixed(seed: int) -> BrokenMesh:
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


def _touching(seed: int) -> BrokenMesh:
    import trimesh

    rng = np.random.default_rng([seed, 20162])
    count = float(np.exp(rng.uniform(*np.log(FACES))))
    body = str(
        rng.choice(["layers", "heap", "halved", "plates", "shell", "plain"], p=[0.2, 0.25, 0.15, 0.1, 0.05, 0.25])
    )
    shape: Shape | None = None
    faults: list[str] = []
    if body == "halved":
        found = halved(choose(rng, hull_shape, box_shape)(rng, count), rng)
        if found:
            shape = found[0]
            faults.append(f"{TOUCH}: {found[1]}")
    elif body in ("layers", "heap"):
        shape, name = {"layers": layered, "heap": heap}[body](rng, count)
        faults.append(f"{TOUCH}: {name}")
    elif body in ("plates", "shell"):
        shape, name = {"plates": plates, "shell": thin_shell}[body](rng, count)
        faults.append(f"{THIN}: {name}")
    if shape is None:
        shape = plain_shape(rng, count)
    shape, wound = rewound(shape, rng)
    faults.append(f"{WOUND}: {wound}")
    strays = 0
    if rng.random() < STRAYED:
        shape, strays, stray = strayed(shape, rng)
        faults.append(f"{STRAY}: {stray}")
    scale = float(10.0 ** rng.choice([0.0, rng.uniform(-5, 5)]))
    away = float(rng.choice([0.0, 1.0, 10.0 ** rng.uniform(0, 3)]))
    shape = moved(shape, scale=scale, turn=random_rotation(rng), shift=scale * away * random_direction(rng))
    vertices, faces, error = shape.vertices, shape.faces, shape.error
    if rng.random() < APART and not any(it.startswith(THIN) for it in faults):
        reach = scale * 10 ** rng.uniform(*APART_BY)
        vertices, faces = unwelded(vertices, faces, reach, rng)
        error += 2 * reach
        faults.append(f"{UNWELDED}: all corners")
    elif rng.random() < LOOSE:
        vertices, faces = unwelded(vertices, faces, 0.0, rng)
        faults.append("loose triangles")
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    return BrokenMesh(f"{seed}-{shape.name}", mesh, tuple(faults), error, True, shape.contains, strays)


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
