"""Faces put right for labelling: each once, wound alike, outward. No vertex moves and no hole is filled."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Floats, Ints
from ff3d.geometry.coordinates import UnitCube
from ff3d.geometry.triangles import components, has_area, merge_exactly

if TYPE_CHECKING:
    import trimesh

Winding = Callable[[Floats], Floats]
LIFT = 2e-5  # units: how far from a face its two sides are asked about
SAMPLES = 32  # faces of a part that are asked
ROUNDS = 64  # of changes among patches; more than twenty were never seen


@dataclass(frozen=True)
class Repair:
    """A surface as `repair` leaves it: vertices (v, 3), exactly equal ones joined, and faces (f, 3).

    rim: (r, 2, 3), the segments along which faces do not balance, each as often as it lacks a face; empty if closed.
    notes: what was done, a line each; empty if the mesh was as it should be.
    inside_out: whether most of the area was turned round.
    """

    vertices: Floats
    faces: Ints
    rim: Floats
    notes: tuple[str, ...]
    inside_out: bool


def repaired(mesh: trimesh.Trimesh) -> tuple[UnitCube, Repair]:
    """The cube about the faces of a mesh that have area, and the mesh put right in its coordinates.

    What no such face uses has no say: one stray point would leave the rest no digits of float32. Faces without area
    that stick out of the cube are dropped; the others may join their neighbours.
    """
    vertices, faces = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
    cube = area_cube(vertices, faces)
    unit = cube.to_unit(vertices)
    inside: NDArray[np.bool_] = np.all((unit >= 0) & (unit <= 1), axis=1)
    return cube, repair(unit, faces[inside[faces].all(axis=1)])


def area_cube(vertices: Floats, faces: Ints) -> UnitCube:
    """The padded cube about the faces (f, 3) that have area; about all vertices (v, 3) if none has."""
    used = np.zeros(len(vertices), dtype=bool)
    used[faces[has_area(vertices, faces)]] = True
    return UnitCube.padded(vertices[used] if used.any() else vertices)


def repair(vertices: Floats, faces: Ints) -> Repair:
    """Drop what counts twice and turn what is wound wrongly, so that the winding number tells inside from outside.

    vertices (v, 3), unit coordinates; faces (f, 3).

    1. Vertices that coincide exactly are joined; faces that have no three of them left are dropped.
    2. Faces on the same three vertices become one. Where copies of both orientations cancel, it is kept only if the
       surface would have a hole without it: two solids that touch have no wall between them.
    3. Faces that share an edge of two are wound alike, as most of their patch's area is in the file.
    4. Where three or more patches meet in an edge, single ones are turned, or dropped if they are flat enough to be
       an inner wall, as long as that leaves less of the edges out of balance.
    5. A part of which most of the surface has outside on both sides is turned: it is wound inwards. Cavities are not:
       theirs has the inside of another part around it.
    """
    first, kind = merge_exactly(vertices)
    vertices, faces = vertices[first], kind[faces]
    whole = (faces != np.roll(faces, 1, axis=1)).all(axis=1)
    notes = [f"{np.count_nonzero(~whole)} face(s) with under three corners: dropped"] if not whole.all() else []
    given, doubtful = _one_of_each(faces[whole])
    if (copies := np.count_nonzero(whole) - len(given)) > 0:
        notes.append(f"{copies} duplicate face(s): each counts once")
    corners = vertices[given]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    a, b, c = np.moveaxis(corners - 0.5, 1, 0)
    volume = np.einsum("ij,ij->i", a, np.cross(b, c)) / 6
    edges = _Edges.of(given, vertices)
    patch, turn = _wind_alike(edges, doubtful, np.where(doubtful, 0, area))
    sign = turn * _balance(edges, patch, turn, doubtful, area=area, volume=volume)[patch]
    if (walls := np.count_nonzero((sign == 0) & ~doubtful)) > 0:
        notes.append(f"{walls} face(s) of inner walls: left out")
    kept = np.flatnonzero(sign)
    faces = np.where(sign[kept, None] > 0, given[kept], given[kept, ::-1])
    rim = edges.rim(sign, vertices)
    part = edges.parts(sign != 0)[kept]
    outward = _outward(vertices, faces, part, area[kept], np.where(sign > 0, volume, -volume)[kept])
    faces = np.where(outward[:, None] > 0, faces, faces[:, ::-1])
    sign[kept] *= outward
    turned = float(area[(sign < 0) & ~doubtful].sum()) / (float(area[(sign != 0) & ~doubtful].sum()) or 1.0)
    if (count := np.count_nonzero((sign < 0) & ~doubtful)) > 0:
        notes.append(f"{count} face(s) wound the wrong way ({turned:.1%} of the area): turned round")
    return Repair(vertices, np.ascontiguousarray(faces), rim, tuple(notes), turned > 0.5)


def mid_numbers(winding_number: Winding, vertices: Floats, faces: Ints) -> Floats:
    """The mean of the winding numbers on both sides of each face, (f,): 1/2 on the surface of a solid.

    It is n + 1/2 where n other parts overlap, about 0 on a sheet that encloses nothing, and below that on a part that
    is wound inwards. Faces without area have NaN.
    """
    a, b, c = np.moveaxis(vertices[faces], 1, 0)
    normals = np.cross(b - a, c - a)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        lift = LIFT * normals / length
    middle = (a + b + c) / 3
    known = (length > 0).ravel()
    answer = np.full(len(faces), np.nan)
    both = winding_number(np.concatenate([(middle + lift)[known], (middle - lift)[known]]))
    answer[known] = both.reshape(2, -1).mean(axis=0)
    return answer


def fast_winding_number(vertices: Floats, faces: Ints) -> Callable[[Floats, float], Floats]:
    """(points (n, 3), accuracy) -> winding numbers (n,), by libigl's tree (Barill et al. 2018)."""
    import igl

    tree: Any = igl.FastWindingNumberBVH()
    tree.init(np.ascontiguousarray(vertices), np.ascontiguousarray(faces, dtype=np.int64), 2)

    def ask(points: Floats, accuracy: float) -> Floats:
        numbers: Floats = tree.winding_number(np.ascontiguousarray(points), accuracy)
        return numbers

    return ask


def _one_of_each(faces: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """One face for each set of three vertices, wound as most of its copies; and which had as many of the other."""
    corners = np.sort(faces, axis=1)
    order = np.lexsort(corners.T)
    new = np.ones(len(faces), dtype=bool)
    new[1:] = (np.diff(corners[order], axis=0) != 0).any(axis=1)
    if new.all():
        return faces, np.zeros(len(faces), dtype=bool)
    group = np.empty(len(faces), dtype=np.int64)
    group[order] = np.cumsum(new) - 1
    even = (faces < np.roll(faces, -1, axis=1)).sum(axis=1) == 2  # an even permutation of its sorted corners
    net = np.bincount(group, weights=np.where(even, 1, -1))
    _, chosen = np.unique(group, return_index=True)
    wrong = (net != 0) & (np.where(even[chosen], 1, -1) != np.sign(net))
    kept, once = np.sort(chosen), faces.copy()
    once[chosen[wrong]] = once[chosen[wrong], ::-1]
    return once[kept], (net == 0)[group[kept]]


@dataclass(frozen=True)
class _Edges:
    """The half-edges of faces, those of one edge side by side."""

    face: Ints  # (h,) the face of each
    edge: Ints  # (h,) its edge, ascending
    direction: Ints  # (h,) 1 or -1
    ends: Ints  # (e, 2) vertices
    length: Floats  # (e,)
    count: Ints  # (e,) faces at the edge
    faces: int

    @classmethod
    def of(cls, faces: Ints, vertices: Floats) -> _Edges:
        start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
        keys = np.minimum(start, end) * len(vertices) + np.maximum(start, end)
        order = np.argsort(keys, kind="stable")
        new = np.ones(len(keys), dtype=bool)
        new[1:] = np.diff(keys[order]) != 0
        ends = np.stack(np.divmod(keys[order][new], len(vertices)), axis=1)
        edge = np.cumsum(new) - 1
        return cls(
            face=order // 3,
            edge=edge,
            direction=np.where(start < end, 1, -1)[order],
            ends=ends,
            length=np.linalg.norm(vertices[ends[:, 1]] - vertices[ends[:, 0]], axis=1),
            count=np.bincount(edge, minlength=len(ends)),
            faces=len(faces),
        )

    def rim(self, sign: Ints, vertices: Floats) -> Floats:
        """The segments where faces of these signs (f,) do not balance, each as often as it lacks one."""
        lack = np.abs(np.bincount(self.edge, self.direction * sign[self.face], minlength=len(self.ends))).astype(int)
        return vertices[np.repeat(self.ends, lack, axis=0)]

    def parts(self, kept: NDArray[np.bool_]) -> Ints:
        """The connected part of each face (f,): faces that are kept and share an edge are in one."""
        here = np.flatnonzero(kept[self.face])
        same = self.edge[here][1:] == self.edge[here][:-1]
        return components(self.face[here[:-1][same]], self.face[here[1:][same]], self.faces)


def _wind_alike(edges: _Edges, doubtful: NDArray[np.bool_], weight: Floats) -> tuple[Ints, Ints]:
    """The patch of each face, and 1 or -1: whether it must be turned to be wound as most of its patch, by weight."""
    at = np.flatnonzero((edges.count[edges.edge[:-1]] == 2) & (edges.edge[:-1] == edges.edge[1:]))
    left, right = edges.face[at], edges.face[at + 1]
    alike = edges.direction[at] != edges.direction[at + 1]
    if doubtful.any():
        # what more than two faces meet around is a wall, even if it hangs together with the rest where a face is lost
        same = doubtful[left] == doubtful[right]
        piece = components(left[same], right[same], edges.faces)
        crowded = (edges.count > 2)[edges.edge]
        met = np.bincount(piece[edges.face[crowded]], edges.length[edges.edge[crowded]], minlength=edges.faces)
        for side in (left, right):
            met = met - np.bincount(piece[side[~same]], edges.length[edges.edge[at[~same]]], minlength=edges.faces)
        wall = doubtful & (met > 0)[piece]
        joined = same | ~(wall[left] | wall[right])
        left, right, alike = left[joined], right[joined], alike[joined]
    # every face stands twice, as it is and turned; links join what goes together
    count = edges.faces
    other = np.where(alike, right, right + count)
    links = np.concatenate([left, left + count]), np.concatenate([other, (other + count) % (2 * count)])
    label = components(*links, 2 * count).reshape(2, -1)
    _, patch = np.unique(label.min(axis=0), return_inverse=True)
    turn = np.where(label[0] <= label[1], 1, -1)  # a one-sided patch, where both are the same, stays as it is
    turn *= np.where(np.bincount(patch, weight * turn) < 0, -1, 1)[patch]
    return patch, turn


def _balance(
    edges: _Edges, patch: Ints, turn: Ints, doubtful: NDArray[np.bool_], *, area: Floats, volume: Floats
) -> Ints:
    """How often each patch counts: 1, -1 (turned) or 0 (left out), so that little of the edges is out of balance.

    Descent from what the file says. In each round every patch changes whose change leaves more volume than those of its
    neighbours would: of a body and the wall that divides it, the wall goes.
    """
    patches = int(patch.max(initial=-1)) + 1
    value = np.ones(patches, dtype=np.int64)
    size = np.bincount(patch, area, minlength=patches)
    enclosed = np.bincount(patch, volume * turn, minlength=patches)  # under each, seen from the middle of the cube
    total = np.bincount(edges.edge, edges.direction * turn[edges.face], minlength=len(edges.ends))
    here = ((edges.count != 2) | (total != 0))[edges.edge]
    pairs, place = np.unique(edges.edge[here] * max(patches, 1) + patch[edges.face[here]], return_inverse=True)
    factor = np.bincount(place, (edges.direction * turn[edges.face])[here], minlength=len(pairs))
    edge, owner = pairs // max(patches, 1), pairs % max(patches, 1)
    edge, owner, factor = edge[factor != 0], owner[factor != 0], factor[factor != 0]
    length = edges.length[edge]
    shared, crowded = np.bincount(edge, minlength=len(edges.ends))[edge] > 1, edges.count[edge] > 2
    border = np.bincount(owner, length * np.abs(factor), minlength=patches)
    # a disc has 4 pi, a half sphere 2 pi: what is rounder than that is a body of its own and no wall
    wall = border**2 >= 2 * math.pi * size
    value[(np.bincount(patch, ~doubtful, minlength=patches) == 0) & wall] = 0
    if not shared.any():
        return value
    for _ in range(ROUNDS):
        lack = np.bincount(edge, factor * value[owner], minlength=len(edges.ends))[edge]
        best, change = np.zeros(patches), value.copy()
        for new in (1, -1, 0):
            saved = length * (np.abs(lack) - np.abs(lack + factor * (new - value[owner])))
            if new == 0:
                # nothing is gained by losing a sheet: only where others close the surface is one too many
                saved = np.where(crowded, saved, -length * np.abs(factor))
            gain = np.bincount(owner, saved, minlength=patches)
            gain[(value == new) | ((new == 0) & ~wall)] = 0
            better = gain > best + 1e-9
            best[better], change[better] = gain[better], new
        if not (best > 1e-9).any():
            break
        rank = np.empty(patches)
        rank[np.argsort((change - value) * enclosed, kind="stable")] = np.arange(patches)
        rank[best <= 1e-9] = -1
        highest = np.full(len(edges.ends), -1.0)
        np.maximum.at(highest, edge, rank[owner])
        beaten = np.bincount(owner, rank[owner] < highest[edge], minlength=patches) > 0
        chosen = (rank >= 0) & ~beaten
        value[chosen] = change[chosen]
    return value


def _outward(vertices: Floats, faces: Ints, part: Ints, area: Floats, volume: Floats) -> Ints:
    """1 for each face that is to stay as it is, -1 for those of parts that are wound inwards.

    Those are parts of which half the surface has outside on both sides, and parts of negative volume of which a tenth
    has: a cavity lies within another part altogether.
    """
    sign = np.ones(len(faces), dtype=np.int64)
    if not area.sum() > 0:
        return sign
    parts = np.unique(part, return_inverse=True)[1]
    count = int(parts.max()) + 1
    order = np.argsort(parts, kind="stable")
    cumulative = np.cumsum(area[order])
    begin = np.concatenate([[0.0], cumulative[np.cumsum(np.bincount(parts))[:-1] - 1]])
    whole = np.bincount(parts, area)
    share = (np.arange(min(SAMPLES, max(1, 100_000 // count))) + 0.5) / min(SAMPLES, max(1, 100_000 // count))
    targets = (begin[:, None] + whole[:, None] * share).ravel()
    chosen = order[np.minimum(np.searchsorted(cumulative, targets), len(order) - 1)]
    for _ in range(4):
        now = np.where(sign[:, None] > 0, faces, faces[:, ::-1])
        ask = fast_winding_number(vertices, now)
        middle = mid_numbers(lambda points, ask=ask: ask(points, 2.0), vertices, now[chosen])  # type: ignore[misc]
        useless = (middle.reshape(count, -1) < -0.15).mean(axis=1)
        negative = np.bincount(parts, volume * sign) < 0
        if not (inward := useless > np.where(negative, 0.1, 0.5)).any():
            break
        sign[inward[parts]] *= -1
    return sign
