"""Sharp edges and corners for a mesh from marching cubes, which cuts them off; the mesh stays closed and manifold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from ff3d.geometry.arrays import Bools, Floats, Ints
from ff3d.geometry.triangles import HalfEdges, components, cross_products

if TYPE_CHECKING:
    import trimesh

# points (n, 3) -> distances (n,) to a surface, its nearest points (n, 3), outward unit normals there (n, 3)
Nearest = Callable[[Floats], tuple[Floats, Floats, Floats]]

FEATURE = 0.9  # cosine between normals in a cell, below which an edge or corner passes through it
ALIKE = 0.985  # cosine from which normals are those of one plane
FAINT = 0.03  # of the largest eigenvalue: below it the planes leave a direction open
ON = 0.1  # cells: how near to the surface the vertices of a cell's faces must lie
NEAR = 0.05  # cells: how near to the surface a feature must lie
TWINS = 0.1  # cells between points that coincide
WORSE = 0.02  # cells: how much further from the surface faces may lie than before
GAIN = 1e-3  # cells: how much nearer to the surface a flipped edge must be
SMALLEST = 1e-7  # of a cell's side, squared: the area of a face
POKE = {3: 0.5, 2: 1.0}  # cells: how far a corner, or a point of an edge, may lie from its cell
INSET = 0.02  # cells: how far from the cell's sides a feature is moved along its edge
SAMPLES = 4  # of a cell along each axis
MOST = 12  # vertices of a cell's faces
ROUNDS = 16  # in which features that spoil a face are given up
CHUNK = 2**12  # cells whose samples are in memory at a time


def sharpen(mesh: trimesh.Trimesh, nearest: Nearest, *, lower: Floats, cell: float) -> trimesh.Trimesh:
    """The mesh with the edges and corners that it had cut off; where it had none, number for number as it was.

    mesh: as from `extract_mesh`, closed.  lower (3,), cell: a grid point and the side of the cells, the mesh's units.
    nearest: the surface that the mesh is to follow.

    Where normals within a cell differ, the cell's faces, if they are one disc, are replaced by a fan about the point
    that lies, by least squares, on all planes near the cell. Then the edge between two such fans is flipped to run from
    point to point, where that is nearer to the surface. What gives faces without area, turned over or further from the
    surface than before is left as it was. Each change is a disc for a disc of the same rim, so that the mesh stays
    closed and edge-manifold.
    Source: Kobbelt, Botsch, Schwanecke and Seidel 2001, "Feature sensitive surface extraction from volume data".
    """
    import trimesh

    vertices, faces = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
    # in cells about the grid point: lengths are held against constants
    local = (vertices - lower) / cell

    def local_nearest(points: Floats) -> tuple[Floats, Floats, Floats]:
        distance, place, normal = nearest(points * cell + lower)
        return distance / cell, (place - lower) / cell, normal

    discs = _Discs.find(local, faces, local_nearest)
    points, ranks, edges = _feature_points(discs, local_nearest)
    replaced, fans = _fans(discs, points, ranks, vertices=local, faces=faces, nearest=local_nearest)
    # a corner that cannot be, perhaps for it lies outside of its cell, may leave an edge
    spoiled = (ranks == 3) & ~np.isnan(edges[:, 0])
    spoiled[discs.disc[np.isin(discs.rows, replaced)]] = False
    if spoiled.any():
        points[spoiled], ranks[spoiled] = edges[spoiled], 2
        replaced, fans = _fans(discs, points, ranks, vertices=local, faces=faces, nearest=local_nearest)
    if not len(replaced):
        return mesh
    used = np.unique(fans[fans >= len(vertices)])
    fans = np.where(fans >= len(vertices), np.searchsorted(used, fans) + len(vertices), fans)
    added = points[used - len(vertices)] * cell + lower
    kept = np.ones(len(faces), dtype=bool)
    kept[replaced] = False
    return trimesh.Trimesh(np.concatenate([vertices, added]), np.concatenate([faces[kept], fans]), process=False)


@dataclass(frozen=True)
class _Discs:
    """The discs of faces in cells that a feature passes through; lengths in cells."""

    corner: Ints  # (d, 3) the lowest corner of each one's cell
    rows: Ints  # (r,) their faces
    disc: Ints  # (r,) the disc of each face
    places: Floats  # (d, MOST, 3) their vertices, the rest NaN
    normals: Floats  # (d, MOST, 3) of the surface there

    @classmethod
    def find(cls, vertices: Floats, faces: Ints, nearest: Nearest) -> _Discs:
        """Those of a mesh: vertices in cells."""
        distance, _, normal = nearest(vertices)
        index = np.floor(vertices[faces].mean(axis=1)).astype(np.int64)
        key = np.ravel_multi_index(tuple((index - index.min(axis=0)).T), tuple(np.ptp(index, axis=0) + 1))
        a, b, c = (normal[faces[:, k]] for k in range(3))
        cosine = np.minimum.reduce([np.einsum("ij,ij->i", p, q) for p, q in ((a, b), (b, c), (c, a))])
        rows = np.flatnonzero(np.isin(key, np.unique(key[cosine < FEATURE])))
        left, right = HalfEdges.of(faces[rows], len(vertices)).neighbours
        same = key[rows[left]] == key[rows[right]]
        disc = components(left[same], right[same], len(rows))
        count = int(disc.max(initial=-1)) + 1
        good = _are_discs(faces[rows], disc, len(vertices))
        good &= np.bincount(disc, cosine[rows] < FEATURE, count) > 0
        good &= np.bincount(disc, (distance > ON)[faces[rows]].any(axis=1), count) == 0
        number = np.cumsum(good) - 1
        rows, disc = rows[good[disc]], number[disc[good[disc]]]
        owner, vertex = np.unique(np.stack([np.repeat(disc, 3), faces[rows].ravel()]), axis=1)
        slot = np.arange(len(owner)) - np.searchsorted(owner, owner)
        places, normals = (np.full((int(good.sum()), MOST, 3), np.nan) for _ in range(2))
        owner, vertex, slot = (it[slot < MOST] for it in (owner, vertex, slot))
        places[owner, slot], normals[owner, slot] = vertices[vertex], normal[vertex]
        corner = np.zeros((len(places), 3), dtype=np.int64)
        corner[disc] = index[rows]
        return cls(corner, rows, disc, places, normals)


def _are_discs(faces: Ints, group: Ints, count: int) -> Bools:
    """Whether groups of faces, each connected, are discs: Euler's number 1, and no vertex twice on the rim."""
    starts, _, rim = _rims(faces, group, count)
    groups = int(group.max(initial=-1)) + 1
    length, size = (np.bincount(it, minlength=groups) for it in (rim, group))
    distinct = np.bincount(np.unique(np.stack([rim, starts]), axis=1)[0], minlength=groups)
    corners = np.unique(np.stack([np.repeat(group, 3), faces.ravel()]), axis=1)[0]
    euler = np.bincount(corners, minlength=groups) - (3 * size + length) // 2 + size
    discs: Bools = (euler == 1) & (distinct == length)
    return discs


def _rims(faces: Ints, group: Ints, count: int) -> tuple[Ints, Ints, Ints]:
    """The directed edges of faces whose other side is of another group: starts, ends, group."""
    edges = HalfEdges.of(faces, count)
    of = group[edges.face]
    inner = np.zeros(len(of), dtype=bool)
    same = (edges.edge[1:] == edges.edge[:-1]) & (of[1:] == of[:-1])
    inner[1:] |= same
    inner[:-1] |= same
    low, high = edges.ends[edges.edge[~inner]].T
    forward = edges.direction[~inner] > 0
    return np.where(forward, low, high), np.where(forward, high, low), of[~inner]


def _feature_points(discs: _Discs, nearest: Nearest) -> tuple[Floats, Ints, Floats]:
    """For each disc the point on all planes near its cell, and 3 if that is a corner's, 2 if an edge's, 0 if none's.

    And the point of an edge that may stand in for a corner, NaN if there is none.
    """
    points, edges = np.zeros((len(discs.corner), 3)), np.full((len(discs.corner), 3), np.nan)
    ranks, corners = np.zeros(len(discs.corner), dtype=np.int64), []
    steps = (np.array(list(product(range(SAMPLES), repeat=3))) + 0.5) / SAMPLES
    for start in range(0, len(points), CHUNK):
        some = slice(start, start + CHUNK)
        corner = discs.corner[some].astype(np.float64)
        spots = corner[:, None] + steps
        _, place, normal = (it.reshape(*spots.shape[:2], -1) for it in nearest(spots.reshape(-1, 3)))
        in_cell = ((place >= corner[:, None] - NEAR) & (place <= corner[:, None] + 1 + NEAR)).all(axis=2)
        normal[~in_cell] = np.nan
        place = np.concatenate([place, discs.places[some]], axis=1)
        normal = np.concatenate([normal, discs.normals[some]], axis=1)
        for rank in (3, 2):  # a corner if the planes meet in one that lies on the surface, else an edge
            point, firm = _meeting_point(place, normal, corner, rank)
            # a tip may reach into the next cell without any corner of that being in the solid
            ok = (np.abs(point - corner - 0.5).max(axis=1) <= 0.5 + POKE[rank]) & (nearest(point)[0] <= NEAR)
            if rank == 3:
                corners.append(point[ok & (firm == 3)])
            else:
                edges[some][ok] = point[ok]
            ok &= ranks[some] == 0
            points[some][ok], ranks[some][ok] = point[ok], np.minimum(rank, firm[ok])
    # a corner that a neighbour sees
    seen, cells = np.concatenate([np.zeros((0, 3)), *corners]), discs.corner
    kind = np.unique(np.concatenate([cells, np.floor(seen).astype(np.int64)]), axis=0, return_inverse=True)[1].ravel()
    first = np.full(int(kind.max(initial=-1)) + 1, -1)
    first[kind[len(cells) :][::-1]] = np.arange(len(seen))[::-1]
    given = (first[kind[: len(cells)]] >= 0) & (ranks == 2)
    points[given], ranks[given] = seen[first[kind[: len(cells)][given]]], 3
    return points, ranks, edges


def _meeting_point(place: Floats, normal: Floats, corner: Floats, rank: int) -> tuple[Floats, Ints]:
    """The point (m, 3) of least squared distances to planes through places (m, s, 3), nearest to their middle.

    And how many directions the planes determine (m,).

    normal: NaN where there is no plane.  rank: directions that the planes determine at most; along the rest the point
    is moved into the cell.  Planes count alike, however often they come.
    """
    known = ~np.isnan(normal[..., 0])
    normal, place = np.nan_to_num(normal), np.where(known[..., None], place, 0.0)
    alike = (np.einsum("msi,mti->mst", normal, normal) > ALIKE) & known[:, None] & known[:, :, None]
    weight = np.where(known, 1 / np.maximum(alike.sum(axis=2), 1), 0.0)
    middle = np.einsum("ms,msi->mi", weight, place) / np.maximum(weight.sum(axis=1), 1e-30)[:, None]
    height = np.einsum("msi,msi->ms", normal, place - middle[:, None])
    values, vectors = np.linalg.eigh(np.einsum("ms,msi,msj->mij", weight, normal, normal))
    right = np.einsum("ms,msi,ms->mi", weight, normal, height)
    firm = values > FAINT * values[:, -1:]
    firm[:, : 3 - rank] = False
    inverse = np.where(firm, 1 / np.where(firm, values, 1), 0.0)
    point = middle + np.einsum("mij,mj,mkj,mk->mi", vectors, inverse, vectors, right)
    determined = firm.sum(axis=1)
    return _along(point, vectors[:, :, 0], corner, determined == 2), determined


def _along(point: Floats, direction: Floats, corner: Floats, chosen: Bools) -> Floats:
    """Chosen points (m, 3) moved along their directions as far as needed to lie in their cells, if that is possible."""
    slope = np.where(np.abs(direction) > 1e-9, direction, 1e-9)
    first, second = (corner + INSET - point) / slope, (corner + 1 - INSET - point) / slope
    low, high = np.minimum(first, second).max(axis=1), np.maximum(first, second).min(axis=1)
    step = np.where(chosen & (low <= high), np.clip(0.0, low, high), 0.0)
    moved: Floats = point + step[:, None] * direction
    return moved


def _merged(discs: _Discs, points: Floats, ranks: Ints, faces: Ints, count: int) -> Ints:
    """The disc about whose point the faces of each disc (d,) are to fan: its own, or a neighbour's.

    One point serves both where a disc's point lies in a neighbour's cell, as that one's own does, or where two points
    outside of their cells coincide: two would come in the wrong order.
    """
    starts, ends, rim = _rims(faces[discs.rows], discs.disc, count)
    key = np.minimum(starts, ends) * count + np.maximum(starts, ends)
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(key[order][1:] == key[order][:-1])
    one, other = rim[order[same]], rim[order[same + 1]]
    one, other = np.concatenate([one, other]), np.concatenate([other, one])
    one, other = (it[(ranks[one] > 0) & (ranks[other] > 0)] for it in (one, other))
    cell = np.floor(points).astype(np.int64)
    home = (cell == discs.corner).all(axis=1)
    guest = ~home[one] & home[other] & (cell[one] == discs.corner[other]).all(axis=1)
    twins = ~home[one] & ~home[other] & (np.linalg.norm(points[one] - points[other], axis=1) < TWINS)
    part = components(one[guest | twins], other[guest | twins], len(points))
    order = np.lexsort((~home, part))  # of each part, one at home goes first
    first = order[np.searchsorted(part[order], part)]
    target = np.where(ranks > 0, first, np.arange(len(points)))
    kind, group = np.unique(target[discs.disc], return_inverse=True)
    whole = np.ones(len(points), dtype=bool)
    whole[kind] = _are_discs(faces[discs.rows], group, count)
    return np.where(whole[target], target, np.arange(len(points)))


def _fans(
    discs: _Discs, points: Floats, ranks: Ints, *, vertices: Floats, faces: Ints, nearest: Nearest
) -> tuple[Ints, Ints]:
    """The faces that are replaced, and what replaces them; a disc's point has the number len(vertices) + disc."""
    every = np.concatenate([vertices, points])
    good, barred = ranks > 0, np.zeros(0, dtype=np.int64)
    group = _merged(discs, points, ranks, faces, len(vertices))[discs.disc]
    before = faces[discs.rows]
    starts, ends, about = _rims(before, group, len(vertices))
    off = np.zeros(len(points))  # the largest distance of the faces
    np.maximum.at(off, group, nearest(vertices[before].mean(axis=1))[0])
    for _ in range(ROUNDS):
        rim = np.flatnonzero(good[about])
        own = about[rim]
        fan = np.stack([starts[rim], ends[rim], len(vertices) + own], axis=1)
        first, second, edge = _flips(fan, own, every, nearest)
        open_ = ~np.isin(edge, barred)
        first, second, edge = first[open_], second[open_], edge[open_]
        other, flipped = own.copy(), np.full(len(fan), -1)
        other[first], other[second], flipped[first], flipped[second] = own[second], own[first], edge, edge
        (a, b, x), y = fan[first].T, fan[second, 2]
        fan[first], fan[second] = np.stack([x, a, y], axis=1), np.stack([y, b, x], axis=1)
        normal = cross_products(every[fan])
        away, _, outward = nearest(every[fan].mean(axis=1))
        turned = np.einsum("ij,ij->i", normal, outward) <= 0
        small = np.linalg.norm(normal, axis=1) < 2 * SMALLEST
        bad = turned | small | (away > np.maximum(off[own], off[other]) + WORSE)
        if not bad.any():
            return discs.rows[good[group]], fan
        barred = np.union1d(barred, flipped[bad & (flipped >= 0)])
        good[own[bad & (flipped < 0)]] = False
    return np.zeros(0, dtype=np.int64), np.zeros((0, 3), dtype=np.int64)


def _flips(fan: Ints, own: Ints, vertices: Floats, nearest: Nearest) -> tuple[Ints, Ints, Ints]:
    """Pairs of triangles of two fans whose common edge is better flipped: one (n,), the other (n,), the edge's key.

    fan: (f, 3), the rim's edge first, then the point.  own: the disc of each.
    Better: the points' middle is nearer to the surface than the edge's. Of two discs, one edge is flipped at most, so
    that no edge comes twice.
    """
    key = fan[:, :2].min(axis=1) * len(vertices) + fan[:, :2].max(axis=1)
    order = np.argsort(key, kind="stable")
    same = np.flatnonzero(key[order][1:] == key[order][:-1])
    first, second = order[same], order[same + 1]
    edge, points = vertices[fan[first, 0]] + vertices[fan[first, 1]], vertices[fan[first, 2]] + vertices[fan[second, 2]]
    gain = nearest(edge / 2)[0] - nearest(points / 2)[0]
    ranked = np.argsort(-gain, kind="stable")
    ranked = ranked[gain[ranked] > GAIN]
    pair = np.sort(np.stack([own[first[ranked]], own[second[ranked]]], axis=1), axis=1)
    chosen = np.sort(ranked[np.unique(pair, axis=0, return_index=True)[1]])
    return first[chosen], second[chosen], key[first[chosen]]
