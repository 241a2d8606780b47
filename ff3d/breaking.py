"""Broken meshes on purpose, each with the exact solid that it stands for: what labels are measured against.

The faults come about as often as among the models of Thingi10K (Zhou and Jacobson 2016), where half are no solids;
see `SHARES`. A case has at least one. Each case is its seed's alone, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike, NDArray

from ff3d.mesh import components
from ff3d.samples import SPACING, sample_mesh, smooth_mesh
from ff3d.shapes import SOLIDS

if TYPE_CHECKING:
    import trimesh

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Contains = Callable[[Floats], Bools]

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
LEVELS = 7  # sizes of the smooth samples
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

    def contains(self, points: ArrayLike) -> Bools:
        """Exact occupancy (n,) of points (n, 3), input coordinates. Raises ValueError for any other shape."""
        array = np.asarray(points, dtype=np.float64)
        if array.ndim != 2 or array.shape[1] != 3:
            raise ValueError(f"points must have shape (n, 3), got {array.shape}")
        return self.solid(array)


@dataclass(frozen=True)
class Shape:
    """A mesh under construction, about one unit large, and its solid.

    hole: the largest share of the area that a hole may take and leave the solid plain to see.
    owner: the part of each face.  nested: whether orientation alone tells cavities from parts inside others.
    """

    name: str
    vertices: Floats
    faces: Ints
    contains: Contains
    error: float = 0.0
    hole: float = 0.03
    owner: Ints | None = None
    nested: bool = False

    @property
    def owners(self) -> Ints:
        """The part of each face (f,)."""
        return np.zeros(len(self.faces), dtype=np.int64) if self.owner is None else self.owner


def broken_mesh(seed: int) -> BrokenMesh:
    """The broken mesh number `seed`, >= 0: the same bytes each time."""
    import trimesh

    rng = np.random.default_rng([seed, 20161])
    drawn: set[str] = set()
    while not drawn:
        drawn = {group for group, share in SHARES.items() if rng.random() < HALF * share}
    count = float(np.exp(rng.uniform(*np.log(FACES))))
    faults: list[str] = []
    sheet = OPEN in drawn and not drawn & {CUT, NONMANIFOLD} and rng.random() < SHEETS
    if sheet:
        shape, kind = _sheet(rng, count, several=PARTS in drawn)
        faults.append(f"{OPEN}: {kind}")
        if PARTS in drawn:
            faults.append(f"{PARTS}: several sheets")
    else:
        shape = _base(rng, count, drawn, faults)
        if OPEN in drawn:
            shape, kind = _opened(shape, rng, whole=not drawn & {CUT, PARTS, NONMANIFOLD})
            faults.append(f"{OPEN}: {kind}")
        if NONMANIFOLD in drawn and not any(it.startswith(NONMANIFOLD) for it in faults):
            shape, kind = _doubled(shape, rng)
            faults.append(f"{NONMANIFOLD}: {kind}")
    if FLIPPED in drawn:
        shape, kind = _turned(shape, rng)
        faults.append(f"{FLIPPED}: {kind}")
    if DEGENERATE in drawn:
        shape, kind = _degenerated(shape, rng)
        faults.append(f"{DEGENERATE}: {kind}")

    scale = float(10.0 ** rng.choice([0.0, rng.uniform(-5, 5)]))
    away = float(rng.choice([0.0, 1.0, 10.0 ** rng.uniform(0, 4)]))
    shape = _moved(shape, scale=scale, turn=_rotation(rng), shift=scale * away * _direction(rng))
    vertices, faces = shape.vertices, shape.faces
    if rng.random() < LOOSE:
        vertices, faces = vertices[faces].reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3)
        faults.append("loose triangles")
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    return BrokenMesh(f"{seed}-{shape.name}", mesh, tuple(faults), shape.error, not sheet, shape.contains)


def warm() -> None:
    """Make the samples of all sizes now, 10 s, so that processes forked later have them."""
    for name in SPACING:
        for level in range(LEVELS):
            _sample(name, level)


def _base(rng: Generator, count: float, drawn: set[str], faults: list[str]) -> Shape:
    """The closed surface that the other faults are worked into, of one part or more."""
    cut, parts = CUT in drawn, PARTS in drawn
    if parts:
        several = _choose(rng, _overlapping, _overlapping, _copied) if cut else None
        several = several or _choose(rng, _disjoint, _nested, _cavity, _shells, _crumbs)
        shape, kind = several(rng, count)
        faults.append(f"{PARTS}: {kind}")
        if cut:
            faults.append(f"{CUT}: {kind}")
    elif cut:
        shape, kind = _choose(rng, _loop_ring, _figure_eight, _folded, _bridged)(rng, count)
        faults.append(f"{CUT}: {kind}")
    elif NONMANIFOLD in drawn and rng.random() < 0.45:
        shape, kind = _blocks(rng, count)
        faults.append(f"{NONMANIFOLD}: {kind}")
    else:
        shape = plain_shape(rng, count)
    if NONMANIFOLD in drawn and not any(it.startswith(NONMANIFOLD) for it in faults) and rng.random() < 0.45:
        walled = _walled(shape, rng)
        if walled:
            faults.append(f"{NONMANIFOLD}: {walled[1]}")
            shape = walled[0]
    return shape


# ---------------------------------------------------------------------------------------------- plain solids


def plain_shape(rng: Generator, count: float) -> Shape:
    """A closed, outward mesh of one part and about `count` faces, and its solid."""
    if count > 5000 and rng.random() < 0.7:
        name = str(rng.choice(["bunny", "knot", "gyroid"]))
        return _sample(name, int(np.clip(round(2 * math.log2(60_000 / count)), 0, LEVELS - 1)))
    makers: list[Callable[[Generator, float], Shape]] = [_lathe, _lathe, _hull, _box]
    if count > 1500:
        makers += [_bracket]
    return _choose(rng, *makers)(rng, count)


@lru_cache(maxsize=32)
def _sample(name: str, level: int) -> Shape:
    """A smooth sample, its spacing wider by 2^(level / 4), so that its faces are fewer by 2^(level / 2)."""
    solid = SOLIDS[name]
    vertices, faces = smooth_mesh(solid, SPACING[name] * 2 ** (level / 4))
    # the values of the rope and of the walls are about distances; at the middle of a face it is farthest off
    error = float(np.quantile(np.abs(solid.values(vertices[faces].mean(axis=1))), 0.995))
    hole = {"bunny": 0.01, "knot": 0.003, "gyroid": 0.002}[name]
    return _centered(Shape(name, np.round(vertices, 6), faces, solid.contains, error, hole))


def _bracket(rng: Generator, count: float) -> Shape:
    mesh, solid = sample_mesh("bracket"), SOLIDS["bracket"]
    shape = Shape("bracket", np.array(mesh.vertices), np.array(mesh.faces), solid.contains, 2e-4, 0.004)
    return _centered(_refined(shape, count))


def _box(rng: Generator, count: float) -> Shape:
    half = rng.uniform(0.15, 0.5, 3)

    def contains(points: Floats) -> Bools:
        inside: Bools = np.abs(points / half).max(axis=1) < 1
        return inside

    return _refined(Shape("box", *_box_arrays(-half, half), contains, 0.0, 0.02), count)


def _box_arrays(low: Floats, high: Floats) -> tuple[Floats, Ints]:
    corners = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    quads = np.array([(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)])
    return np.where(corners == 1, high, low), quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)


def _hull(rng: Generator, count: float) -> Shape:
    """Of random points on an ellipsoid; exactly the half spaces of its faces."""
    from scipy.spatial import ConvexHull

    points = rng.standard_normal((int(np.clip(count / 2, 8, 250)), 3))
    points *= rng.uniform(0.2, 0.5, 3) / np.linalg.norm(points, axis=1, keepdims=True)
    hull = ConvexHull(points)
    normals, offsets, faces = hull.equations[:, :3], hull.equations[:, 3], hull.simplices.astype(np.int64)
    a, b, c = np.moveaxis(points[faces], 1, 0)
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), normals) < 0
    faces[inward] = faces[inward][:, ::-1]

    def contains(p: Floats) -> Bools:
        inside = np.ones(len(p), dtype=bool)
        for normal, offset in zip(normals, offsets, strict=True):
            inside[inside] = p[inside] @ normal + offset < 0
        return inside

    return _refined(Shape("hull", points, faces, contains, 0.0, 0.02), count)


def _lathe(rng: Generator, count: float) -> Shape:
    """A ball, a ring, a cylinder, a cone, a vase or a cup, turned of flat pieces: exact, however coarse."""
    steps = max(5, round(math.sqrt(count / 2 / 1.5)))
    sides = max(5, round(1.5 * steps))
    t = np.linspace(0, 1, steps + 1)
    kind = str(rng.choice(["ball", "ring", "cylinder", "cone", "vase", "cup"]))
    width, tall = rng.uniform(0.2, 0.5, 2)
    if kind == "ring":
        t, thick = t[:-1] * 2 * np.pi, rng.uniform(0.08, 0.18)
        profile = np.stack([0.5 - thick + thick * np.cos(t), thick * np.sin(t)], axis=1)
    elif kind == "ball":
        profile = np.stack([width * np.sin(np.pi * t), -tall * np.cos(np.pi * t)], axis=1)
    elif kind == "vase":
        radius = width * np.sin(np.pi * t) ** 0.5 * (0.7 + 0.3 * np.sin(5 * t + rng.uniform(0, 6)))
        profile = np.stack([radius, tall * (2 * t - 1)], axis=1)
    else:
        wall = 0.3 * width
        corners = {
            "cylinder": [(0, -tall), (width, -tall), (width, tall), (0, tall)],
            "cone": [(0, -tall), (width, -tall), (0, tall)],
            "cup": [(0, -tall), (width, -tall), (width, tall), (width - wall, tall), (width - wall, wall - tall),
                    (0, wall - tall)],
        }[kind]  # fmt: skip
        profile = _stepped(np.array(corners, dtype=np.float64), steps)
    profile[np.abs(profile[:, 0]) < 1e-6, 0] = 0.0
    return turned_shape(kind, profile, sides, hole=0.004 if kind == "cup" else 0.02)


def _stepped(corners: Floats, steps: int) -> Floats:
    """The open line through the corners, cut into about `steps` pieces."""
    length = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    pieces = [np.linspace(a, b, max(2, 1 + round(steps * part)))[:-1]
              for a, b, part in zip(corners[:-1], corners[1:], length / length.sum(), strict=True)]  # fmt: skip
    return np.concatenate([*pieces, corners[-1:]])


def turned_shape(name: str, profile: Floats, sides: int, hole: float) -> Shape:
    """The line `profile` (m, 2), radius and height, turned about the y axis in `sides` flat pieces.

    The line is closed, or starts and ends on the axis; it may cross itself.
    Inside is what it winds about at least once.
    """
    rows, on_axis = len(profile), profile[:, 0] == 0
    open_line = bool(on_axis[0])
    angle = 2 * np.pi * np.arange(sides) / sides
    ring = np.stack([np.cos(angle), np.ones(sides), np.sin(angle)], axis=1)
    vertices = (ring[:, None] * profile[:, [0, 1, 0]]).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(sides), np.arange(rows - open_line), indexing="ij")
    index = np.where(on_axis[None, :], np.arange(rows), rows * np.arange(sides)[:, None] + np.arange(rows))
    k, n = (i + 1) % sides, (j + 1) % rows
    a, b, c, d = index[i, j], index[k, j], index[k, n], index[i, n]
    faces = np.concatenate([np.stack(it, axis=-1).reshape(-1, 3) for it in ((a, c, b), (a, d, c))])
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    used, inverse = np.unique(faces, return_inverse=True)
    vertices, faces = vertices[used], inverse.reshape(-1, 3).astype(np.int64)
    a3, b3, c3 = np.moveaxis(vertices[faces], 1, 0)
    if np.einsum("ij,ij->", a3, np.cross(b3, c3)) < 0:
        faces, profile = np.ascontiguousarray(faces[:, ::-1]), profile[::-1]
    start, end = profile, np.roll(profile, -1, axis=0)

    def contains(p: Floats) -> Bools:
        turn = np.arctan2(p[:, 2], p[:, 0]) * sides / (2 * np.pi)
        middle = (np.floor(turn) + 0.5) * (2 * np.pi / sides)
        radius = (p[:, 0] * np.cos(middle) + p[:, 2] * np.sin(middle)) / math.cos(math.pi / sides)
        winding = np.zeros(len(p), dtype=np.int64)
        for (x0, y0), (x1, y1) in zip(start, end, strict=True):
            left = (x1 - x0) * (p[:, 1] - y0) - (radius - x0) * (y1 - y0)
            winding += (y0 <= p[:, 1]) & (y1 > p[:, 1]) & (left > 0)
            winding -= (y1 <= p[:, 1]) & (y0 > p[:, 1]) & (left < 0)
        inside: Bools = winding != 0
        return inside

    return Shape(name, vertices, faces, contains, 0.0, hole)


# ---------------------------------------------------------------------------------------------- self-intersections


def _loop_ring(rng: Generator, count: float) -> tuple[Shape, str]:
    """A ring whose section is a snail's line with a loop inside: one part, wound twice within the loop."""
    steps = max(16, round(math.sqrt(count / 3)))
    t = 2 * np.pi * np.arange(steps) / steps
    size = rng.uniform(0.04, 0.08)
    radius = size * (1 + rng.uniform(1.6, 2.5) * np.cos(t))
    profile = np.stack([0.25 + radius * np.cos(t), radius * np.sin(t)], axis=1)
    return turned_shape("looped ring", profile, max(6, round(1.5 * steps)), hole=0.005), "looped section"


def _figure_eight(rng: Generator, count: float) -> tuple[Shape, str]:
    """A tube along an eight whose passes run through each other."""
    from scipy.spatial import cKDTree

    sides = int(np.clip(math.sqrt(count / 12), 12, 60))
    around = max(72, round(count / 2 / sides))
    thick, lift = rng.uniform(0.08, 0.14), rng.uniform(0, 0.05)

    def curve(t: Floats) -> Floats:
        return np.stack([0.45 * np.sin(t), lift * np.cos(t), 0.225 * np.sin(2 * t)], axis=1)

    t = 2 * np.pi * np.arange(around) / around
    tangent = np.stack([0.45 * np.cos(t), -lift * np.sin(t), 0.45 * np.cos(2 * t)], axis=1)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    side = np.cross(tangent, (0, 1, 0))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, tangent)
    angle = 2 * np.pi * np.arange(sides) / sides
    ring = np.cos(angle)[:, None] * side[:, None] + np.sin(angle)[:, None] * up[:, None]
    vertices = (curve(t)[:, None] + thick * ring).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(around), np.arange(sides), indexing="ij")
    k, n = (i + 1) % around, (j + 1) % sides
    a, b, c, d = sides * i + j, sides * k + j, sides * k + n, sides * i + n
    faces = np.concatenate([np.stack(it, axis=-1).reshape(-1, 3) for it in ((a, b, c), (a, c, d))])
    if np.einsum("ij,ij->", vertices[faces[:, 0]], np.cross(vertices[faces[:, 1]], vertices[faces[:, 2]])) < 0:
        faces = np.ascontiguousarray(faces[:, ::-1])
    tree = cKDTree(curve(2 * np.pi * np.arange(8000) / 8000))

    def contains(p: Floats) -> Bools:
        return tree.query(p, distance_upper_bound=thick)[0] < thick

    error = thick * (1 - math.cos(math.pi / sides)) + 3 / (around * around)
    return Shape("eight", vertices, faces, contains, error, 0.005), "figure eight"


def _folded(rng: Generator, count: float) -> tuple[Shape, str]:
    """Vertices pushed past a neighbour where the surface is nearly flat."""
    import trimesh

    for _ in range(20):
        shape = plain_shape(rng, max(count, 400))
        mesh = trimesh.Trimesh(shape.vertices, shape.faces, process=False)
        normals = mesh.face_normals
        start, end = shape.faces.T.ravel(), shape.faces[:, [1, 2, 0]].T.ravel()
        total = np.stack([np.bincount(start, np.tile(row, 3), len(mesh.vertices)) for row in normals.T], axis=1)
        total = total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)
        cosine = np.einsum("fk,fck->fc", normals, total[shape.faces])
        flat = np.ones(len(total), dtype=bool)
        np.logical_and.at(flat, shape.faces, cosine > 0.97)
        length = np.linalg.norm(shape.vertices[end] - shape.vertices[start], axis=1)
        fit = np.flatnonzero(flat[start] & flat[end] & (length < 0.1))
        if len(fit):
            break
    else:
        return _loop_ring(rng, count)
    chosen = rng.permutation(fit)[: max(1, min(len(fit) // 20, 200))]
    _, first = np.unique(start[chosen], return_index=True)
    one, other = start[chosen[first]], end[chosen[first]]
    step = rng.uniform(1.3, 1.9, (len(one), 1)) * (shape.vertices[other] - shape.vertices[one])
    off = float(np.abs(np.einsum("ij,ij->i", step, total[one])).max())
    vertices = shape.vertices.copy()
    vertices[one] += step
    return replace(shape, vertices=vertices, error=shape.error + off), "folds"


def _bridged(rng: Generator, count: float) -> tuple[Shape, str]:
    """Two overlapping convex solids made one part by a tube between a face of each inside the other."""
    for _ in range(20):
        first, second = (_choose(rng, _hull, _box)(rng, min(count / 2, 3000)) for _ in range(2))
        second = _moved(second, turn=_rotation(rng), shift=0.25 * _direction(rng))
        middles = [it.vertices[it.faces].mean(axis=1) for it in (first, second)]
        inner = [
            np.flatnonzero(other.contains(it.vertices[it.faces].reshape(-1, 3)).reshape(-1, 3).all(axis=1))
            for it, other in ((first, second), (second, first))
        ]
        if not (len(inner[0]) and len(inner[1])) or min(len(inner[0]), len(inner[1])) == len(first.faces):
            continue
        i = int(rng.choice(inner[0]))
        j = int(inner[1][np.argmin(np.linalg.norm(middles[1][inner[1]] - middles[0][i], axis=1))])
        shape = _joined([first, second], first.name + " and " + second.name)
        a, b = shape.faces[i], shape.faces[len(first.faces) + j][::-1]
        # the corners that face each other: the turn with the shortest ties
        ties = [np.linalg.norm(shape.vertices[a] - shape.vertices[np.roll(b, k)], axis=1).sum() for k in range(3)]
        b = np.roll(b, int(np.argmin(ties)))
        a2, b2 = np.roll(a, -1), np.roll(b, -1)
        # both solids are convex, so that the tube lies in both: there it takes one of two windings away
        tube = np.concatenate([np.stack([a, a2, b2], axis=1), np.stack([a, b2, b], axis=1)])
        keep = np.ones(len(shape.faces), dtype=bool)
        keep[[i, len(first.faces) + j]] = False
        faces = np.concatenate([shape.faces[keep], tube])
        return replace(shape, faces=faces, owner=None, hole=0.01), "bridged solids"
    return _loop_ring(rng, count)


def _overlapping(rng: Generator, count: float) -> tuple[Shape, str]:
    """Two to five solids that run into each other, as they are."""
    number = int(rng.integers(2, 6))
    parts = [plain_shape(rng, count / number)]
    for _ in range(100):
        piece = plain_shape(rng, count / number)
        host = parts[int(rng.integers(len(parts)))]
        at = host.vertices[int(rng.integers(len(host.vertices)))]
        piece = _moved(piece, scale=rng.uniform(0.3, 1), turn=_rotation(rng), shift=at)
        within = host.contains(piece.vertices)
        if 0.02 < within.mean() < 0.98:
            parts.append(piece)
        if len(parts) == number:
            break
    if len(parts) == 1:
        return _copied(rng, count)
    return _joined(parts, "overlap"), "overlapping parts"


def _copied(rng: Generator, count: float) -> tuple[Shape, str]:
    """Copies of one solid, each a little off."""
    piece = plain_shape(rng, count / 2)
    others = [_moved(piece, turn=_rotation(rng, 0.1), shift=rng.uniform(0.005, 0.05) * _direction(rng))
              for _ in range(int(rng.integers(1, 3)))]  # fmt: skip
    return _joined([piece, *others], piece.name), "overlapping copies"


# ---------------------------------------------------------------------------------------------- several parts


def _disjoint(rng: Generator, count: float) -> tuple[Shape, str]:
    number = int(rng.integers(2, 7))
    return _joined(_apart(rng, [plain_shape(rng, count / number) for _ in range(number)]), "disjoint"), "disjoint"


def _apart(rng: Generator, shapes: Sequence[Shape]) -> list[Shape]:
    """The shapes turned and set in a crooked row, each its own size, with gaps between."""
    placed, edge = [], 0.0
    for shape in shapes:
        it = _moved(shape, scale=rng.uniform(0.2, 1), turn=_rotation(rng))
        low, high = it.vertices.min(axis=0), it.vertices.max(axis=0)
        shift = np.array([edge - low[0], *rng.uniform(-0.3, 0.3, 2)])
        edge += high[0] - low[0] + rng.uniform(0.02, 0.3)
        placed.append(_moved(it, shift=shift))
    return placed


def _inner(host: Shape, guest: Shape, rng: Generator) -> Shape:
    """The guest, placed wholly inside the host."""
    from scipy.spatial import cKDTree

    corners = host.vertices[host.faces]
    share = rng.dirichlet((1, 1, 1), (max(1, 40_000 // len(corners)), len(corners)))
    tree = cKDTree(np.concatenate([host.vertices, np.einsum("ksc,scd->ksd", share, corners).reshape(-1, 3)]))
    low, high = host.vertices.min(axis=0), host.vertices.max(axis=0)
    points = low + (high - low) * rng.random((3000, 3))
    points = points[host.contains(points)]
    room = tree.query(points)[0]
    best = int(np.argmax(room))
    reach = float(np.linalg.norm(guest.vertices, axis=1).max())
    return _moved(
        guest, scale=rng.uniform(0.5, 0.8) * float(room[best]) / reach, turn=_rotation(rng), shift=points[best]
    )


def _nested(rng: Generator, count: float) -> tuple[Shape, str]:
    """A solid wholly inside another, turned outwards like it: nothing is taken away."""
    host, guest = plain_shape(rng, count * 0.7), plain_shape(rng, count * 0.3)
    return replace(_joined([host, _inner(host, guest, rng)], host.name), nested=True), "nested"


def _cavity(rng: Generator, count: float) -> tuple[Shape, str]:
    """A solid with a hollow: no fault."""
    host, guest = plain_shape(rng, count * 0.7), plain_shape(rng, count * 0.3)
    return replace(_hollowed(host, _inner(host, guest, rng)), nested=True), "cavity"


def _hollowed(host: Shape, hollow: Shape) -> Shape:
    shape = _joined([host, replace(hollow, faces=np.ascontiguousarray(hollow.faces[:, ::-1]))], host.name)
    return replace(shape, contains=lambda points: host.contains(points) & ~hollow.contains(points))


def _shells(rng: Generator, count: float) -> tuple[Shape, str]:
    """Solid, hollow, solid, perhaps hollow again, each inside the one before."""
    shapes = [plain_shape(rng, count * 0.4)]
    for _ in range(int(rng.integers(2, 4))):
        guest = _choose(rng, _hull, _box)(rng, count * 0.2)
        shapes.append(_inner(shapes[-1], guest, rng))
    whole = shapes.pop()
    if len(shapes) % 2:
        whole = _hollowed(shapes.pop(), whole)
    while shapes:
        hollow, host = shapes.pop(), shapes.pop()
        whole = _joined([_hollowed(host, hollow), whole], host.name)
    return replace(whole, nested=True), "shells"


def _crumbs(rng: Generator, count: float) -> tuple[Shape, str]:
    """A solid with tiny ones about it."""
    host, crumbs = plain_shape(rng, count), []
    for _ in range(int(rng.integers(3, 40))):
        crumb = _moved(_choose(rng, _hull, _box)(rng, 12.0), scale=rng.uniform(0.002, 0.03), turn=_rotation(rng))
        placed = _moved(crumb, shift=rng.uniform(-0.6, 0.6, 3))
        if not host.contains(
            np.concatenate([placed.vertices, 3 * placed.vertices - 2 * placed.vertices.mean(axis=0)])
        ).any():
            crumbs.append(placed)
    crumbs = crumbs or [_moved(_box(rng, 12.0), scale=0.02, shift=np.array([1.2, 0, 0]))]
    return _joined([host, *crumbs], host.name), "crumbs"


# ---------------------------------------------------------------------------------------------- non-manifold


def _blocks(rng: Generator, count: float) -> tuple[Shape, str]:
    """Boxes of a grid that share exactly an edge, or a face, or only touch in a corner."""
    kind = str(rng.choice(["shared edge", "shared face", "touching corner", "grid of cells", "wall left single"]))
    lines = [np.concatenate([[0.0], np.cumsum(rng.uniform(0.1, 0.5, 3))]) for _ in range(3)]
    offset = {"shared edge": (1, 1, 0), "touching corner": (1, 1, 1)}.get(kind, (1, 0, 0))
    cells = {(0, 0, 0), offset}
    while kind == "grid of cells" and len(cells) < 8:
        cell, step = sorted(cells)[int(rng.integers(len(cells)))], np.eye(3, dtype=int)[int(rng.integers(3))]
        i, j, k = np.clip(np.array(cell) + step * rng.choice([-1, 1]), 0, 2).tolist()
        cells.add((i, j, k))
    boxes = [np.array([[lines[k][cell[k]], lines[k][cell[k] + 1]] for k in range(3)]).T for cell in sorted(cells)]
    arrays = [_box_arrays(*box) for box in boxes]
    if kind == "wall left single":
        vertices, faces = arrays[0]
        arrays[0] = vertices, faces[~(vertices[faces][:, :, 0] == lines[0][1]).all(axis=1)]
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in arrays)])
    vertices = np.concatenate([vertices for vertices, _ in arrays])
    faces = np.concatenate([faces + start for (_, faces), start in zip(arrays, starts, strict=False)])
    if rng.random() < 0.7:  # as one indexed mesh; else the corners coincide
        vertices, inverse = np.unique(vertices, axis=0, return_inverse=True)
        faces = inverse.reshape(-1)[faces]

    def contains(p: Floats) -> Bools:
        # closed boxes: the plane between two has no thickness
        return np.any([((p >= low) & (p <= high)).all(axis=1) for low, high in boxes], axis=0)

    return _centered(_refined(Shape("blocks", vertices, faces, contains, 0.0, 0.02), count)), kind


def _walled(shape: Shape, rng: Generator) -> tuple[Shape, str] | None:
    """Walls across the inside, from the surface's own edges, single or of two sides; None where none fits."""
    for _ in range(12):
        normal = _direction(rng)
        middle = shape.vertices[shape.faces].mean(axis=1) @ normal
        rims = _rim(shape.faces[middle < np.quantile(middle, rng.uniform(0.3, 0.7))])
        walls, vertices = [], [shape.vertices]
        for loop in _loops(rims):
            center = shape.vertices[loop].mean(axis=0)
            a, b = shape.vertices[loop], shape.vertices[np.roll(loop, -1)]
            samples = np.concatenate([center + s * (a - center) for s in (0.0, 0.3, 0.6, 0.9)]
                                     + [center + s * ((a + b) / 2 - center) for s in (0.5, 0.9)])  # fmt: skip
            if not shape.contains(samples).all():
                continue
            top = sum(len(it) for it in vertices)
            vertices.append(center[None])
            walls.append(np.stack([loop, np.roll(loop, -1), np.full(len(loop), top)], axis=1))
        if walls:
            double = rng.random() < 0.5
            wall = np.concatenate([*walls, *(it[:, ::-1] for it in walls if double)])
            owner = np.concatenate([shape.owners, np.zeros(len(wall), dtype=np.int64)])
            faces = np.concatenate([shape.faces, wall])
            walled = replace(shape, vertices=np.concatenate(vertices), faces=faces, owner=owner)
            return walled, f"inner wall, {'double' if double else 'single'}"
    return None


def _rim(faces: Ints) -> Ints:
    """Directed edges (e, 2) of faces that no other face runs along backwards."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    key, back = edges @ (2**32, 1), edges[:, ::-1] @ (2**32, 1)
    return edges[~np.isin(key, back)]


def _loops(rim: Ints) -> list[Ints]:
    """The closed simple loops of directed edges, each its vertices in order."""
    after = {int(a): int(b) for a, b in rim}
    if len(after) < len(rim):  # loops that touch
        return []
    loops = []
    while after:
        first, here = after.popitem()
        loop = [first]
        while here != first and here in after:
            loop.append(here)
            here = after.pop(here)
        if here == first and len(loop) > 2:
            loops.append(np.array(loop))
    return loops


def _doubled(shape: Shape, rng: Generator) -> tuple[Shape, str]:
    """Faces once more: a patch or all, the same way round or the other, twice or three times."""
    kinds = ["patch twice", "patch from both sides", "patch three times", "all twice", "all three times"]
    # from both sides at once, a part in another and a hollow look the same
    kind = str(rng.choice(kinds if shape.nested else [*kinds, "all from both sides"]))
    chosen = np.arange(len(shape.faces))
    if kind.startswith("patch"):
        chosen = _patch(shape, rng, rng.uniform(0.01, 0.2))
    copies = [chosen] * (2 if "three" in kind else 1)
    more = np.concatenate([shape.faces[it][:, ::-1] if "both" in kind else shape.faces[it] for it in copies])
    faces = np.concatenate([shape.faces, more])
    owner = np.concatenate([shape.owners, *(shape.owners[it] for it in copies)])
    return replace(shape, faces=faces, owner=owner), kind


# ---------------------------------------------------------------------------------------------- degenerate


def _degenerated(shape: Shape, rng: Generator) -> tuple[Shape, str]:
    kind = str(rng.choice(["slivers", "repeated vertices", "needles", "coincident vertices", "mixed"]))
    number = max(1, round(len(shape.faces) * 10 ** rng.uniform(-3, -1)))
    if kind in ("slivers", "mixed"):
        shape = _split(shape, rng, number, close=True)
    if kind in ("needles", "mixed"):
        shape = _split(shape, rng, number, close=True, width=1e-9)
    if kind in ("repeated vertices", "mixed"):
        a, b, _ = shape.faces[rng.integers(len(shape.faces), size=number)].T
        shape = _with_faces(shape, np.stack([a, b, b], axis=1))
    if kind in ("coincident vertices", "mixed"):
        # an edge opened into a slit without width, closed by a triangle whose two corners coincide
        a, b, _ = shape.faces[rng.integers(len(shape.faces), size=number)].T
        copies = len(shape.vertices) + np.arange(number)
        shape = replace(shape, vertices=np.concatenate([shape.vertices, shape.vertices[a]]))
        shape = _with_faces(shape, np.stack([a, copies, b], axis=1))
    return shape, kind


def _split(shape: Shape, rng: Generator, number: int, *, close: bool, width: float = 0.0) -> Shape:
    """Faces cut in two from the middle of an edge to the corner across; their neighbours keep the whole edge.

    close: a triangle without area (or `width` wide) fills the slit; else a T-junction stays.
    """
    a, b, c = np.moveaxis(shape.vertices[shape.faces], 1, 0)
    sound = np.flatnonzero(np.linalg.norm(np.cross(b - a, c - a), axis=1) > 1e-7)
    chosen = rng.permutation(sound)[:number]
    order = (rng.integers(3, size=(len(chosen), 1)) + np.arange(3)) % 3
    corners = np.take_along_axis(shape.faces[chosen], order, axis=1)
    i, j, k = corners.T
    a, b, c = shape.vertices[i], shape.vertices[j], shape.vertices[k]
    middle = a + rng.uniform(0.3, 0.7, (len(chosen), 1)) * (b - a)
    if width:
        inward = c - middle
        middle += width * inward / np.linalg.norm(inward, axis=1, keepdims=True)
    m = len(shape.vertices) + np.arange(len(chosen))
    faces, owner = shape.faces.copy(), shape.owners
    faces[chosen] = np.stack([i, m, k], axis=1)
    more = [np.stack([m, j, k], axis=1)] + [np.stack([i, j, m], axis=1)] * close
    faces = np.concatenate([faces, *more])
    owner = np.concatenate([owner, *([owner[chosen]] * len(more))])
    return replace(shape, vertices=np.concatenate([shape.vertices, middle]), faces=faces, owner=owner)


def _with_faces(shape: Shape, faces: Ints) -> Shape:
    owner = np.concatenate([shape.owners, np.zeros(len(faces), dtype=np.int64)])
    return replace(shape, faces=np.concatenate([shape.faces, faces]), owner=owner)


# ---------------------------------------------------------------------------------------------- open


def _opened(shape: Shape, rng: Generator, *, whole: bool) -> tuple[Shape, str]:
    """whole: the mesh is one plain part, so that a plane may cut a piece off."""
    kind = str(rng.choice(["lost faces", "holes", "crack", "T-junctions", *(["cut off"] * whole)]))
    if kind == "cut off":
        cut = _cut_off(shape, rng)
        if cut:
            return cut, kind
        kind = "holes"
    if kind == "crack":
        return _cracked(shape, rng), kind
    if kind == "T-junctions":
        return _split(shape, rng, max(1, round(len(shape.faces) * 10 ** rng.uniform(-3, -0.7))), close=False), kind
    area = _areas(shape)
    if kind == "lost faces":
        small = np.flatnonzero(area < shape.hole * area.sum())
        lost = rng.permutation(small)[: max(1, round(len(area) * 10 ** rng.uniform(-3.5, -2)))]
    else:
        lost = np.concatenate([_patch(shape, rng, shape.hole * rng.uniform(0.1, 1)) for _ in range(rng.integers(1, 6))])
    keep = np.ones(len(area), dtype=bool)
    keep[lost] = False
    if keep.all():  # so few faces that none is small
        keep[int(np.argmin(area))] = False
    return replace(shape, faces=shape.faces[keep], owner=shape.owners[keep]), kind


def _cracked(shape: Shape, rng: Generator) -> Shape:
    """A seam pulled apart by 1e-4: the faces on one side of a plane let go of the others along a part of the seam."""
    for _ in range(30):
        normal, aside = _direction(rng), _direction(rng)
        middle = shape.vertices[shape.faces].mean(axis=1) @ normal
        upper = middle > np.quantile(middle, rng.uniform(0.2, 0.8))
        seam = np.intersect1d(shape.faces[upper], shape.faces[~upper])
        seam = seam[shape.vertices[seam] @ aside > np.median(shape.vertices[seam] @ aside)] if len(seam) > 3 else seam
        if len(seam):
            break
    else:
        return _split(shape, rng, 1, close=False)
    renamed = np.arange(len(shape.vertices))
    renamed[seam] = len(shape.vertices) + np.arange(len(seam))
    faces = shape.faces.copy()
    faces[upper] = renamed[faces[upper]]
    vertices = np.concatenate([shape.vertices, shape.vertices[seam] + 1e-4 * normal])
    return replace(shape, vertices=vertices, faces=faces, error=shape.error + 1e-4)


def _cut_off(shape: Shape, rng: Generator) -> Shape | None:
    """All beyond a plane gone, nothing in its place, as under a scan; the solid ends at the plane. None: no plane."""
    for _ in range(20):
        normal, depth = _direction(rng), rng.uniform(0.03, 0.3)
        height = shape.vertices @ normal
        level = float(height.min() + depth * np.ptp(height))
        vertices, faces = _clip(shape.vertices, shape.faces, height - level)
        a, b, c = np.moveaxis(vertices[faces], 1, 0)
        areas = np.cross(b - a, c - a)
        total, gap = np.linalg.norm(areas, axis=1).sum(), abs(areas.sum(axis=0) @ normal)
        if 0.005 * total < gap < 0.1 * total:

            def contains(points: Floats, normal: Floats = normal, level: float = level) -> Bools:
                return shape.contains(points) & (points @ normal > level)

            return replace(shape, vertices=vertices, faces=faces, contains=contains, owner=None)
    return None


def _clip(vertices: Floats, faces: Ints, height: Floats) -> tuple[Floats, Ints]:
    """What lies above height 0, each edge cut once."""
    above = height > 0
    count = above[faces].sum(axis=1)
    kept, fresh = [faces[count == 3]], {}
    points: list[Floats] = []

    def between(i: int, j: int) -> int:
        pair = (min(i, j), max(i, j))
        if pair not in fresh:
            fresh[pair] = len(vertices) + len(points)
            a, b = pair
            points.append(vertices[a] + height[a] / (height[a] - height[b]) * (vertices[b] - vertices[a]))
        return fresh[pair]

    for face in faces[(count == 1) | (count == 2)]:
        odd = 1 if above[face].sum() == 1 else 0  # the corner that is alone on its side comes first
        i, j, k = (int(x) for x in np.roll(face, -int(np.flatnonzero(above[face] == odd)[0])))
        m, n = between(i, j), between(i, k)
        kept.append(np.array([[i, m, n]]) if odd else np.array([[m, j, k], [m, k, n]]))
    cut = np.concatenate(kept)
    return _packed(np.concatenate([vertices, np.array(points).reshape(-1, 3)]), cut)


def _packed(vertices: Floats, faces: Ints) -> tuple[Floats, Ints]:
    used, inverse = np.unique(faces, return_inverse=True)
    return vertices[used], inverse.reshape(-1, 3).astype(np.int64)


def _sheet(rng: Generator, count: float, *, several: bool) -> tuple[Shape, str]:
    """Surfaces without an inside."""
    kinds = ["plane", "wavy sheet", "disc", "Moebius strip"]
    kind = str(rng.choice(kinds[:3] if several else kinds))
    pieces = [_sheet_piece(rng, count, kind) for _ in range(int(rng.integers(2, 5)) if several else 1)]
    return _joined(_apart(rng, pieces) if several else pieces, kind), kind


def _sheet_piece(rng: Generator, count: float, kind: str) -> Shape:
    side = max(6, round(math.sqrt(count / 2)))
    u, v = (it.ravel() for it in np.meshgrid(np.linspace(0, 1, side), np.linspace(-1, 1, side), indexing="ij"))
    if kind == "disc":
        x, y, z = v * 0.0, 0.25 * (v + 1) * np.cos(2 * np.pi * u), 0.25 * (v + 1) * np.sin(2 * np.pi * u)
    elif kind == "Moebius strip":
        width = 0.4 + 0.1 * v * np.cos(np.pi * u)
        x, y, z = width * np.cos(2 * np.pi * u), width * np.sin(2 * np.pi * u), 0.1 * v * np.sin(np.pi * u)
    else:
        waves = 0.05 * (kind == "wavy sheet")
        x, y, z = u - 0.5, v * rng.uniform(0.2, 0.5), waves * np.sin(9 * u) * np.cos(5 * v)
    i, j = np.meshgrid(np.arange(side - 1), np.arange(side - 1), indexing="ij")
    a, b, c, d = side * i + j, side * (i + 1) + j, side * (i + 1) + j + 1, side * i + j + 1
    faces = np.concatenate([np.stack(it, axis=-1).reshape(-1, 3) for it in ((a, b, c), (a, c, d))])
    # the first and last columns, and the disc's middle, are one: rounding joins them
    rounded, inverse = np.unique(np.round(np.stack([x, y, z], axis=1), 9) + 0.0, axis=0, return_inverse=True)
    faces = inverse.reshape(-1)[faces]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    return Shape(kind, rounded, faces, lambda points: np.zeros(len(points), dtype=bool))


# ---------------------------------------------------------------------------------------------- not oriented


def _turned(shape: Shape, rng: Generator) -> tuple[Shape, str]:
    kinds = ["random faces", "patches", "inside out"]
    several = len(np.unique(shape.owners)) > 1
    kind = str(rng.choice([*kinds, "one part"] if several and not shape.nested else kinds))
    area, faces = _areas(shape), shape.faces.copy()
    if kind == "random faces":
        turned = rng.random(len(faces)) < rng.uniform(0.01, 0.2 if shape.nested else 0.45)
        turned[int(rng.integers(len(faces)))] = True
    elif kind == "patches":
        turned = np.zeros(len(faces), dtype=bool)
        for _ in range(int(rng.integers(1, 5))):
            turned[_patch(shape, rng, rng.uniform(0.01, 0.08))] = True
    elif kind == "one part":
        turned = shape.owners == rng.choice(np.unique(shape.owners))
    else:
        turned = np.ones(len(area), dtype=bool)
    faces[turned] = faces[turned][:, ::-1]
    return replace(shape, faces=faces), kind


# ---------------------------------------------------------------------------------------------- means


def _choose(rng: Generator, *options: Any) -> Any:
    return options[int(rng.integers(len(options)))]


def _direction(rng: Generator) -> Floats:
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)


def _rotation(rng: Generator, most: float = math.pi) -> Floats:
    """A turn by up to `most` radians about a random axis (3, 3)."""
    x, y, z = _direction(rng)
    angle = rng.uniform(-most, most)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: Floats = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)
    return turn


def _moved(shape: Shape, scale: float = 1.0, turn: Floats | None = None, shift: ArrayLike = (0, 0, 0)) -> Shape:
    """The shape scaled, turned, shifted, in this order, with its solid."""
    matrix, offset = np.eye(3) if turn is None else turn, np.asarray(shift, dtype=np.float64)
    x, y, z = scale * shape.vertices.T
    # row by row, not by BLAS: vertices that coincide must do so to the last bit afterwards
    vertices = np.stack([r[0] * x + r[1] * y + r[2] * z for r in matrix], axis=1) + offset
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    slack = 1e-9 * scale + 2 * shape.error * scale
    low, high = low - slack, high + slack

    def contains(points: Floats) -> Bools:
        near = ((points > low) & (points < high)).all(axis=1)
        near[near] = shape.contains((points[near] - offset) @ matrix / scale)
        return near

    return replace(shape, vertices=vertices, contains=contains, error=scale * shape.error)


def _centered(shape: Shape) -> Shape:
    return _moved(shape, shift=-(shape.vertices.min(axis=0) + shape.vertices.max(axis=0)) / 2)


def _joined(parts: Sequence[Shape], name: str) -> Shape:
    """All parts in one mesh, as they are; the solid is their union."""
    starts = np.cumsum([0, *(len(it.vertices) for it in parts)])
    owner = [np.full(len(it.faces), i) for i, it in enumerate(parts)]
    return Shape(
        name,
        np.concatenate([it.vertices for it in parts]),
        np.concatenate([it.faces + start for it, start in zip(parts, starts, strict=False)]),
        lambda points: np.any([it.contains(points) for it in parts], axis=0),
        max(it.error for it in parts),
        min(it.hole for it in parts) / len(parts),
        np.concatenate(owner),
        any(it.nested for it in parts),
    )


def _refined(shape: Shape, count: float) -> Shape:
    """Each face cut into four until there are about `count`."""
    import trimesh

    vertices, faces = shape.vertices, shape.faces
    while len(faces) * 2 < count:
        vertices, faces = trimesh.remesh.subdivide(vertices, faces)
    return replace(shape, vertices=np.asarray(vertices), faces=np.asarray(faces, dtype=np.int64))


def _areas(shape: Shape) -> Floats:
    a, b, c = np.moveaxis(shape.vertices[shape.faces], 1, 0)
    area: Floats = np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2
    return area


def _patch(shape: Shape, rng: Generator, share: float) -> Ints:
    """Connected faces about a random one with at most `share` of the area, but at least one: their indices."""
    area, middle = _areas(shape), shape.vertices[shape.faces].mean(axis=1)
    first = int(rng.choice(np.flatnonzero(area <= max(share * area.sum(), np.quantile(area, 0.1)))))
    near = np.argsort(np.linalg.norm(middle - middle[first], axis=1), kind="stable")
    near = near[: max(1, int(np.searchsorted(np.cumsum(area[near]), share * area.sum())))]
    # of the faces nearest in space, those that hang together with the first: not the other side of a thin wall
    return near[_together(shape.faces[near])]


def _together(faces: Ints) -> Bools:
    """Which faces are connected with the first one through shared vertices."""
    used, inverse = np.unique(faces, return_inverse=True)
    rows, total = np.repeat(np.arange(len(faces)), 3), len(faces) + len(used)
    label = components(rows, len(faces) + inverse.ravel(), total)[: len(faces)]
    together: Bools = label == label[0]
    return together
