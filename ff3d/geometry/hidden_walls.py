"""Which of a mesh's surface separates inside from outside: walls hidden in a solid are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ff3d.geometry.arrays import Corners, FaceBools, Floats, Inside, Labels, Points
from ff3d.geometry.cores import threads
from ff3d.geometry.sampling import Surface
from ff3d.geometry.triangles import cross_products, edge_lengths, longest_edges, loose

if TYPE_CHECKING:
    import trimesh

# Faces are cut into pieces of `PATCH` sizes at first, and to the size itself where it matters, but into no more than
# `PIECES` beyond their number
PATCH, PIECES = 16, 2**18
LIFT = 1 / 256  # sizes: how far from a triangle its two sides are queried
SPOTS = np.array([[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]])  # of a triangle, barycentric
# If of this many random points on the surface all but this share separate, the mesh is left as it is
SAMPLE, LOSABLE = 2**13, 1e-3


def separating_surface(
    mesh: trimesh.Trimesh, inside: Inside, size: float, *, losable: float = LOSABLE
) -> trimesh.Trimesh:
    """The part of a mesh that has inside on one side and outside on the other.

    inside: the oracle.  size: input units, the longest edge of the smallest pieces into which faces are cut where they
    separate in one place and not in another.

    Of parts that overlap, and of walls and sheets in a solid, what lies in the solid is left out, to within about
    `size` where it meets the rest. If none of the surface separates, or all but `losable` of its area, the mesh itself
    is returned; else one whose faces share no vertices.
    """
    return parted_surface(mesh, inside, size, losable=losable)[0]


def parted_surface(
    mesh: trimesh.Trimesh, inside: Inside, size: float, *, losable: float = LOSABLE
) -> tuple[trimesh.Trimesh, trimesh.Trimesh]:
    """The `separating_surface` of a mesh, and the rest of it, which is hidden; together they are all of its surface."""
    import trimesh
    from scipy.spatial import cKDTree

    surface, nothing = Surface.of(mesh), trimesh.Trimesh(*loose(np.zeros((0, 3, 3))), process=False)
    if not surface.crosses.any():
        return mesh, nothing
    points, faces = surface.sample(SAMPLE, np.random.default_rng(0))
    sampled = _sides_differ(points, surface.crosses[faces], inside, size)
    if sampled.mean() > 1 - losable or not sampled.any():
        return mesh, nothing
    pieces = _subdivided(surface.corners, PATCH * size)
    separates = _separates(pieces, inside, np.full(3, 1 / 3), size)
    if separates.all() or not separates.any():
        return mesh, nothing
    # only pieces near one of the other kind may be of both kinds
    middles, reach = pieces.mean(axis=1), longest_edges(pieces)
    away, nearest = cKDTree(middles[~separates]).query(middles, workers=threads())
    near = away <= reach + reach[~separates][nearest]
    kept, hidden, rest = [pieces[~near]], [], pieces[near]
    while len(rest):
        votes = np.sum([_separates(rest, inside, spot, size) for spot in SPOTS], axis=0)
        mixed = (votes > 0) & (votes < len(SPOTS)) & (longest_edges(rest) > size) & (len(rest) < PIECES)
        most = 2 * votes > len(SPOTS)
        kept.append(rest[most & ~mixed])
        hidden.append(rest[~most & ~mixed])
        rest = _halves(rest[mixed])
    separating = np.concatenate(kept)
    if not len(separating):
        return mesh, nothing
    separating_mesh, hidden_mesh = (
        trimesh.Trimesh(*loose(corners), process=False) for corners in (separating, np.concatenate(hidden))
    )
    return separating_mesh, hidden_mesh


def _separates(triangles: Corners, inside: Inside, spot: Floats, size: float) -> FaceBools:
    """Whether triangles (f, 3, 3) have inside on one side alone, at a spot given by barycentric coordinates (3,)."""
    scaled = (triangles - triangles[:, :1]) / size
    return _sides_differ(np.einsum("k,fkd->fd", spot, triangles), cross_products(scaled), inside, size)


def _sides_differ(points: Points, normals: Points, inside: Inside, size: float) -> Labels:
    """Whether one side is inside and the other is not, at points (n, 3) on surfaces with normals (n, 3) of any length.

    Without a normal there are no sides.
    """
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    lift = normals / np.where(length > 0, length, 1) * (LIFT * size)
    both = inside(np.concatenate([points - lift, points + lift]))
    return both[: len(points)] != both[len(points) :]


def _halves(triangles: Floats) -> Floats:
    """Triangles (f, 3, 3) cut in two at the middle of their longest edge: (2 f, 3, 3)."""
    row, first = np.arange(len(triangles)), edge_lengths(triangles).argmax(axis=1)
    a, b, c = (triangles[row, (first + k) % 3] for k in range(3))
    middle = (a + b) / 2
    return np.concatenate([np.stack([a, middle, c], axis=1), np.stack([middle, b, c], axis=1)])


def _subdivided(triangles: Floats, size: float) -> Floats:
    """Triangles halved until no edge is longer than `size`, or until there are `PIECES` more than at first."""
    finished, rest, most = [], triangles, len(triangles) + PIECES
    while True:
        long = longest_edges(rest) > size
        finished.append(rest[~long])
        rest = rest[long]
        if not len(rest) or sum(map(len, finished)) + 2 * len(rest) > most:
            return np.concatenate([*finished, rest])
        rest = _halves(rest)
