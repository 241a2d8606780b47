"""Faces repaired for labelling: each once, wound alike, outward. No vertex moves and no hole is filled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ff3d.geometry.arrays import Bools, Floats, Ints
from ff3d.geometry.coordinates import UnitCube
from ff3d.geometry.sampling import spread
from ff3d.geometry.triangles import (
    HalfEdges,
    areas,
    by_batches,
    components,
    cross_products,
    has_area,
    have_three_corners,
    loose,
    merge_exactly,
    repeats,
    signed_volumes,
    used_vertices,
)
from ff3d.labels.orientation import closed_bodies, orient, signed_balance

if TYPE_CHECKING:
    import trimesh

Winding = Callable[[Floats], Floats]
LIFT = 2e-5  # units: how far from a face its two sides are evaluated
EXACT_LIFT = 1e-9  # the same for the exact sum, which has float64's digits
SAMPLES, EXACT_SAMPLES = 32, 4  # faces of a part that are evaluated
MOST_EXACT = 5e7  # solid angles of one round of the exact sum, about a second
ROUNDS = 4  # of turning parts; more than three were never seen
# Corners on the rim are one for the winding if they lie nearer than NEAR units, and than that share of the shortest
# edge that ends in either: what the file's digits have parted, not what its shape has
NEAR, NEAR_EDGE = 1e-5, 0.1
NEIGHBOURS = 12  # of a corner on the rim that are compared with it
FLATTEST = 1e-11  # units: the volume over the area of a closed part that encloses something
SLIGHT = 1e-12  # units^3: the volume of a sliver
# A face whose two sides have winding numbers that far below 1 and 0 on average does not part inside from outside:
# 0.5 on a closed surface, 0.3 on a half sphere, 0 on a plane
SETTLED = 0.2
CLEAR = 0.1  # the share of a part's area that is wound one way in the file less the share that is wound the other
SHEET = 0.8  # the share of an open part that is not settled from which it is a sheet
SHEET_AREA, FAR_AWAY = 0.01, 0.5  # the least share of the area of a sheet left out; or how many boxes away it lies
SHRUNK = 0.4  # units: the size of what counts under which it gets a cube of its own


@dataclass(frozen=True)
class Repair:
    """A surface as `repair` leaves it: vertices (v, 3), exactly equal ones joined, and faces (f, 3).

    rim: (r, 2, 3), the segments along which faces do not balance, each as often as it lacks a face; empty if closed.
    notes: what was done, a line each; empty if the mesh was as it should be.
    inside_out: whether most of the area was turned round.
    closed: (f,), whether the part that a face belongs to has no rim and encloses a volume.
    solid: whether every edge of the given faces is of two, and every part encloses a volume above `SLIGHT`.
    one_sided, left_out: the shares of the area that are one-sided, and that are sheets beside the solids.
    """

    vertices: Floats
    faces: Ints
    rim: Floats
    notes: tuple[str, ...]
    inside_out: bool
    closed: Bools
    solid: bool
    one_sided: float
    left_out: float


def repaired(mesh: trimesh.Trimesh) -> tuple[UnitCube, Repair]:
    """The cube about what counts of a mesh as surface, and the mesh repaired in its coordinates.

    What only faces without area, or sheets left out, use has no say: one stray point would leave the rest no digits of
    float32. Such faces that stick out of the cube are dropped; the others may join their neighbours.
    """
    vertices, faces = np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
    cube = area_cube(vertices, faces)
    found = _repaired_in(cube, vertices, faces)
    used = found.vertices[used_vertices(found.faces, len(found.vertices))]
    if len(used) and np.ptp(used, axis=0).max() < SHRUNK:
        cube = UnitCube.padded(cube.from_unit(used))
        found = _repaired_in(cube, vertices, faces)
    return cube, found


def area_cube(vertices: Floats, faces: Ints) -> UnitCube:
    """The padded cube about the faces (f, 3) that have area; about all vertices (v, 3) if none has."""
    used = used_vertices(faces[has_area(vertices, faces)], len(vertices))
    return UnitCube.padded(vertices[used] if used.any() else vertices)


def _repaired_in(cube: UnitCube, vertices: Floats, faces: Ints) -> Repair:
    """The faces that lie in a cube, repaired in its coordinates."""
    unit = cube.to_unit(vertices)
    inside: Bools = np.all((unit >= 0) & (unit <= 1), axis=1)
    return repair(unit, faces if inside.all() else faces[inside[faces].all(axis=1)])


def repair(vertices: Floats, faces: Ints) -> Repair:
    """Drop what counts twice and turn what is wound wrongly, so that the winding number tells inside from outside.

    vertices (v, 3), unit coordinates; faces (f, 3).

    1. Vertices that coincide exactly are joined; faces that have no three of them left are dropped. Corners on the rim
       that nearly coincide count as one in the next two steps, but stay where they are.
    2. Faces on the same three vertices become one.
    3. Faces that share an edge of two are wound alike, as most of their patch's area is in the file. Where three or
       more meet, the cells of space between them decide which way they look, and which are walls: left out
       (`labels.orientation`).
    4. A part of which most of the surface has outside on both sides is turned: it is wound inwards. Cavities are not:
       theirs has the inside of another part around it.
    5. Sheets that enclose nothing are left out if other parts do enclose something.
    """
    first, kind = merge_exactly(vertices)
    vertices, faces = vertices[first], kind[faces]
    notes = []
    if not (whole := have_three_corners(faces)).all():
        notes.append(f"{np.count_nonzero(~whole)} face(s) with under three corners: dropped")
        faces = faces[whole]
    given, corners, votes, copies = _one_of_each(faces, faces, np.ones(len(faces), np.int64))
    edges = HalfEdges.of(corners, len(vertices))
    paired = bool((edges.count == 2).all())
    if (edges.count == 1).any():
        near, reach = _near_corners(vertices, edges)
        if (number := np.count_nonzero(near != np.arange(len(near)))) > 0:
            notes.append(
                f"{number} corner(s) within {reach:.1g} of the size of others: one with them for the winding, not moved"
            )
            given, corners, votes, copies = _one_of_each(given, near[corners], votes, copies)
            edges = HalfEdges.of(corners, len(vertices))
    if (extra := int(copies.sum()) - len(given)) > 0:
        notes.append(f"{extra} duplicate face(s): each counts once")
    area = by_batches(areas, vertices, given)
    volume = by_batches(lambda corners: signed_volumes(*loose(corners), 0.5), vertices, given)
    chosen = orient(edges, corners, vertices, area=area, votes=votes, copies=copies)
    sign, doubtful = chosen.sign, votes == 0
    if (walls := np.count_nonzero((sign == 0) & ~doubtful)) > 0:
        notes.append(f"{walls} face(s) of inner walls: left out")
    closed = closed_bodies(edges, sign, chosen.body)[chosen.body]
    kept = np.flatnonzero(sign)
    parts = _Parts.of(
        vertices,
        _turned(given[kept], sign[kept] < 0),
        part=chosen.body[kept],
        area=area[kept],
        volume=(sign * volume)[kept],
        votes=(area * sign * np.minimum(votes, 1))[kept],
        closed=closed[kept],
    )
    turn, sheets = parts.outward()
    closed[kept] = parts.closed[parts.part]
    sign[kept] *= turn
    left_out = float(area[kept[sheets]].sum() / (area[kept].sum() or 1.0))
    if sheets.any():
        sign[kept[sheets]] = 0
        notes.append(
            f"{np.count_nonzero(sheets)} face(s) of sheets that enclose nothing ({left_out:.1%} of the area): left out"
        )
    turned = float(area[(sign < 0) & ~doubtful].sum()) / (float(area[(sign != 0) & ~doubtful].sum()) or 1.0)
    if (count := np.count_nonzero((sign < 0) & ~doubtful)) > 0:
        notes.append(f"{count} face(s) wound the wrong way ({turned:.1%} of the area): turned round")
    kept = np.flatnonzero(sign)
    return Repair(
        vertices=vertices,
        faces=_turned(given[kept], sign[kept] < 0),
        rim=vertices[np.repeat(edges.ends, np.abs(signed_balance(edges, sign)), axis=0)],
        notes=tuple(notes),
        inside_out=turned > 0.5,
        closed=closed[kept],
        solid=paired and bool((parts.closed & (np.abs(parts.volume_of) > SLIGHT)).all()),
        one_sided=float(area[kept][chosen.one_sided[kept]].sum() / (area[kept].sum() or 1.0)),
        left_out=left_out,
    )


def _turned(faces: Ints, turned: Bools) -> Ints:
    """New faces (f, 3), some of them (f,) turned round."""
    faces = faces.copy()
    faces[turned] = faces[turned, ::-1]
    return faces


def mid_numbers(winding_number: Winding, vertices: Floats, faces: Ints, *, lift: float = LIFT) -> Floats:
    """The mean of the winding numbers `lift` units off both sides of each face, (f,): 1/2 on the surface of a solid.

    It is n + 1/2 where n other parts overlap, about 0 on a sheet that encloses nothing, and below that on a part that
    is wound inwards. Faces without area have NaN.
    """
    corners = vertices[faces]
    normals = cross_products(corners)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        step = lift * normals / length
    middle = corners.mean(axis=1)
    known = (length > 0).ravel()
    answer = np.full(len(faces), np.nan)
    both = winding_number(np.concatenate([(middle + step)[known], (middle - step)[known]]))
    answer[known] = both.reshape(2, -1).mean(axis=0)
    return answer


def fast_winding_number(vertices: Floats, faces: Ints) -> Callable[[Floats, float], Floats]:
    """(points (n, 3), accuracy) -> winding numbers (n,), by libigl's tree (Barill et al. 2018)."""
    import igl

    tree: Any = igl.FastWindingNumberBVH()
    tree.init(np.ascontiguousarray(vertices), np.ascontiguousarray(faces, dtype=np.int64), 2)

    def winding_number(points: Floats, accuracy: float) -> Floats:
        numbers: Floats = tree.winding_number(np.ascontiguousarray(points), accuracy)
        return numbers

    return winding_number


def _one_of_each(given: Ints, corners: Ints, votes: Ints, copies: Ints | None = None) -> tuple[Ints, Ints, Ints, Ints]:
    """One face for each set of three corners, wound as most of its copies.

    given, corners (f, 3): faces, and the corners that they are compared by.  votes (f,): how many of the copies that
    each stands for are wound like it, less the others; copies (f,): how many there are.
    Returns the same four of those that stay: votes >= 0. A face of which two corners are one does not.
    """
    copies = votes if copies is None else copies
    three = have_three_corners(corners)
    if not three.all():
        given, corners, votes, copies = given[three], corners[three], votes[three], copies[three]
    if not repeats(corners):
        return given, corners, votes, copies
    first, group = merge_exactly(np.sort(corners, axis=1))
    even = (corners < np.roll(corners, -1, axis=1)).sum(axis=1) == 2  # an even permutation of its sorted corners
    net = np.rint(np.bincount(group, weights=np.where(even, votes, -votes))).astype(np.int64)
    chosen = np.sort(first)
    net = net[group[chosen]]
    wrong = (net != 0) & (even[chosen] != (net > 0))
    total = np.rint(np.bincount(group, weights=copies)).astype(np.int64)[group[chosen]]
    given, corners = (np.where(wrong[:, None], rows[chosen, ::-1], rows[chosen]) for rows in (given, corners))
    return given, corners, np.abs(net), total


def _near_corners(vertices: Floats, edges: HalfEdges) -> tuple[Ints, float]:
    """The vertex (v,) that each is one with, for those on the rim that nearly coincide; how far such ones are apart."""
    from scipy.spatial import cKDTree

    near = np.arange(len(vertices))
    rim = np.unique(edges.ends[edges.count == 1])
    shortest = np.full(len(vertices), np.inf)
    length = np.linalg.norm(vertices[edges.ends[:, 1]] - vertices[edges.ends[:, 0]], axis=1)
    np.minimum.at(shortest, edges.ends.ravel(), np.repeat(length, 2))
    tree = cKDTree(vertices[rim])
    distance, other = tree.query(vertices[rim], min(NEIGHBOURS, len(rim)), distance_upper_bound=NEAR)
    one, k = np.nonzero(np.isfinite(distance) & (distance > 0))
    left, right, apart = rim[one], rim[other[one, k]], distance[one, k]
    reach = 0.0
    # the nearest first: what they make one has the shortest edge of them all, and keeps further ones away
    for step in NEAR * 10.0 ** np.arange(-7, 1):
        same = (apart <= step) & (apart <= NEAR_EDGE * np.minimum(shortest[near[left]], shortest[near[right]]))
        if not same.any():
            continue
        reach = max(reach, float(apart[same].max()))
        label = components(near[left[same]], near[right[same]], len(vertices))
        near = np.unique(label, return_index=True)[1][label][near]
        np.minimum.at(shortest, near[rim], shortest[rim])
        left, right, apart = left[~same], right[~same], apart[~same]
    return near, reach


@dataclass(frozen=True)
class _Parts:
    """Faces (f, 3) in the parts that are turned as one.

    part (f,), from 0 on.  area (f,).  area_of, volume_of, closed (p,): of parts.
    clear (p,): whether the winding of a part in the file is clear enough to make a hollow of it.
    """

    vertices: Floats
    faces: Ints
    part: Ints
    area: Floats
    area_of: Floats
    volume_of: Floats
    closed: Bools
    clear: Bools

    @classmethod
    def of(
        cls, vertices: Floats, faces: Ints, *, part: Ints, area: Floats, volume: Floats, votes: Floats, closed: Bools
    ) -> _Parts:
        """Of faces that are kept: the volume under each, its area if it is wound as in the file, less that if not."""
        known = np.bincount(part) > 0
        part = (np.cumsum(known) - 1)[part]
        whole = np.zeros(np.count_nonzero(known), dtype=bool)
        whole[part] = closed
        area_of, volume_of, margin = (
            np.asarray(np.bincount(part, sizes), dtype=np.float64) for sizes in (area, volume, votes)
        )
        encloses = whole & (np.abs(volume_of) > FLATTEST * area_of)
        return cls(vertices, faces, part, area, area_of, volume_of, encloses, margin > CLEAR * area_of)

    def outward(self) -> tuple[Ints, Bools]:
        """1 for each face that is to stay as it is, -1 for those of parts that are wound inwards; and which are sheets.

        Those are parts of which half the surface has outside on both sides, and parts of negative volume of which a
        tenth has: a cavity lies within another part altogether. Before, all are turned if that suits most of the area:
        a file and the same file reversed come out alike. No hollow is made of a closed part whose faces the file winds
        one way about as often as the other.
        """
        sign, sheet = np.ones(len(self.area_of), dtype=np.int64), np.zeros(len(self.area_of), dtype=bool)
        if self.closed.all():
            sign = sign if self.volume_of.sum() >= 0 else -sign
            sign[~self.clear & (sign * self.volume_of < 0)] *= -1
        if not self.area.sum() > 0 or (self.closed & (sign * self.volume_of > 0)).all():
            return sign[self.part], sheet[self.part]
        each = min(SAMPLES, max(1, 100_000 // len(sign)))
        chosen = spread(self.part, self.area, each)
        middle = self._middle(chosen, sign)
        if not self.closed.all() and float((self.area_of * np.nan_to_num(middle).mean(axis=1)).sum()) < 0:
            sign, middle = -sign, -middle
        for _ in range(ROUNDS):
            negative = sign * self.volume_of < 0
            useless, idle = (middle < -0.15).mean(axis=1), (middle < 0.25).mean(axis=1)
            inward = (useless > np.where(negative, 0.1, 0.5)) | (self.closed & negative & ((idle > 0.5) | ~self.clear))
            if not inward.any():
                break
            sign[inward] *= -1
            middle = self._middle(chosen, sign)
        sheet = ~self.closed & ((~(middle >= SETTLED)).mean(axis=1) > SHEET)  # without area there is no number
        return sign[self.part], self._in_the_way(sheet)[self.part]

    def _middle(self, chosen: Ints, sign: Ints) -> Floats:
        """The mean winding numbers of faces, `each` of every part (p, each), of the parts turned as `sign` says.

        Where the surface lies closer together than LIFT, by the exact sum, of fewer faces.
        """
        import igl

        faces = _turned(self.faces, sign[self.part] < 0)
        tree = fast_winding_number(self.vertices, faces)
        middle: Floats = mid_numbers(lambda points: tree(points, 2.0), self.vertices, faces[chosen])
        middle = middle.reshape(len(sign), -1)
        # the mean of a whole number and the next one up is no other; about a sheet both are about 0
        odd = np.abs(middle - np.floor(middle) - 0.5) > 0.2
        doubtful = np.where(self.closed, (sign * self.volume_of < 0) & (odd.mean(axis=1) > 0.5), False)
        large = self.area_of > SHEET_AREA * self.area.sum()
        doubtful |= ~self.closed & large & ((np.abs(middle) < 0.1).mean(axis=1) > 0.5)
        most = int(MOST_EXACT / (2 * EXACT_SAMPLES * max(1, len(faces))))
        again = np.flatnonzero(doubtful)[: max(1, most)]
        if len(again):
            few: Ints = chosen.reshape(middle.shape)[again][:, :: max(1, middle.shape[1] // EXACT_SAMPLES)]
            exact = mid_numbers(
                lambda points: igl.winding_number(self.vertices, faces, points),
                self.vertices,
                faces[few.ravel()],
                lift=EXACT_LIFT,
            )
            middle[again] = exact.reshape(few.shape)[:, np.arange(middle.shape[1]) % few.shape[1]]
        return middle

    def _in_the_way(self, sheet: Bools) -> Bools:
        """Those of the sheets that are left out: large ones, and ones far from the rest, if there is a rest."""
        if sheet.all() or not sheet.any():
            return np.zeros(len(sheet), dtype=bool)
        low, high = np.full((len(sheet), 3), np.inf), np.full((len(sheet), 3), -np.inf)
        corners = self.vertices[self.faces]
        np.minimum.at(low, self.part, corners.min(axis=1))
        np.maximum.at(high, self.part, corners.max(axis=1))
        bottom, top = low[~sheet].min(axis=0), high[~sheet].max(axis=0)
        reach = FAR_AWAY * (top - bottom).max()
        beyond = ((low < bottom - reach) | (high > top + reach)).any(axis=1)
        return sheet & (beyond | (self.area_of > SHEET_AREA * self.area.sum()))
