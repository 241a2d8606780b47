"""What of a mesh parts inside from outside: walls hidden in a solid are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ff3d.geometry.arrays import Corners, FaceBools, FaceFloats, Floats, Labels, Points
from ff3d.geometry.cores import threads
from ff3d.geometry.distances import Inside
from ff3d.geometry.sampling import Surface

if TYPE_CHECKING:
    import trimesh

PATCH, PIECES = 16, 2**18  # pieces in which a surface is looked over: sizes of the smallest; how many more than it has

LIFT = 1 / 256  # sizes of the smallest pieces: how far from a triangle its two sides are asked about
SPOTS = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])  # of a triangle, by its corners' weights
SAMPLE, LOSABLE = 2**13, 1e-3  # places that tell whether triangles are looked at one by one; for what share of the area


def parting_surface(mesh: trimesh.Trimesh, inside: Inside, size: float) -> trimesh.Trimesh:
    """What of a mesh has inside on one side and outside on the other.

    inside: the oracle.  size: input units, of the pieces, by their longest edge, into which faces are cut where a part
    of them counts and a part does not.

    Of parts that overlap, and of walls and sheets in a solid, what lies in the solid is left out, right to about `size`
    where it meets the rest. If none of the surface counts, or less than `LOSABLE` of its area does not, the mesh is
    given back as it came; else one whose faces share no vertices.
    """
    import trimesh
    from scipy.spatial import cKDTree

    surface = Surface.of(mesh)
    if not surface.crosses.any():
        return mesh
    places, faces = surface.sample(SAMPLE, np.random.default_rng(0))
    parts = _differ(places, surface.crosses[faces], inside, size)
    if parts.mean() > 1 - LOSABLE or not parts.any():
        return mesh
    pieces = _cut(surface.corners, PATCH * size)
    parts = _parts(pieces, inside, np.full(3, 1 / 3), size)
    if parts.all() or not parts.any():
        return mesh
    middles, reach = pieces.mean(axis=1), _longest(pieces)
    away, nearest = cKDTree(middles[~parts]).query(middles, workers=threads())
    near = away <= reach + reach[~parts][nearest]
    found, left = [pieces[~near]], pieces[near]
    while len(left):
        spots = np.sum([_parts(left, inside, spot, size) for spot in SPOTS], axis=0)
        mixed = (spots > 0) & (spots < len(SPOTS)) & (_longest(left) > size) & (len(left) < PIECES)
        found.append(left[(2 * spots > len(SPOTS)) & ~mixed])
        left = _halves(left[mixed])
    kept = np.concatenate(found).reshape(-1, 3)
    return trimesh.Trimesh(kept, np.arange(len(kept)).reshape(-1, 3), process=False) if len(kept) else mesh


def _parts(triangles: Corners, inside: Inside, spot: Floats, size: float) -> FaceBools:
    """Whether triangles (f, 3, 3) have inside on one side alone, at a spot given by the weights of their corners."""
    a, b, c = np.moveaxis(triangles, 1, 0)
    return _differ(np.einsum("k,fkd->fd", spot, triangles), np.cross((b - a) / size, (c - a) / size), inside, size)


def _differ(places: Points, normals: Points, inside: Inside, size: float) -> Labels:
    """Whether one side is inside and the other is not, at places (n, 3) on surfaces with normals (n, 3) of any length.

    Without a normal there are no sides.
    """
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    lift = normals / np.where(length > 0, length, 1) * (LIFT * size)
    both = inside(np.concatenate([places - lift, places + lift]))
    return both[: len(places)] != both[len(places) :]


def _longest(triangles: Corners) -> FaceFloats:
    """The longest edge of each triangle."""
    longest: Floats = np.linalg.norm(np.roll(triangles, -1, axis=1) - triangles, axis=2).max(axis=1, initial=0)
    return longest


def _halves(triangles: Floats) -> Floats:
    """Triangles (f, 3, 3) cut in two at the middle of their longest edge: (2 f, 3, 3)."""
    edges = np.linalg.norm(np.roll(triangles, -1, axis=1) - triangles, axis=2)
    row, first = np.arange(len(triangles)), edges.argmax(axis=1)
    a, b, c = (triangles[row, (first + k) % 3] for k in range(3))
    middle = (a + b) / 2
    return np.concatenate([np.stack([a, middle, c], axis=1), np.stack([middle, b, c], axis=1)])


def _cut(triangles: Floats, size: float) -> Floats:
    """Triangles halved until no edge is longer than `size`, or until that makes `PIECES` more of them."""
    done, left, most = [], triangles, len(triangles) + PIECES
    while True:
        long = _longest(left) > size
        done.append(left[~long])
        left = left[long]
        if not len(left) or sum(map(len, done)) + 2 * len(left) > most:
            return np.concatenate([*done, left])
        left = _halves(left)
