"""Faults worked into a mesh: walls, copies, slivers, holes, sheets, flipped faces."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from ff3d.geometry.arrays import Bools, Floats, Ints
from ff3d.geometry.triangles import areas, components, cross_products, have_three_corners
from ff3d.shapes.broken_bodies import apart
from ff3d.shapes.broken_solids import Shape, joined, random_direction


def walled(shape: Shape, rng: Generator) -> tuple[Shape, str] | None:
    """Walls across the inside, from the surface's own edges, single or of two sides; None where none fits."""
    for _ in range(12):
        normal = random_direction(rng)
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


def doubled(shape: Shape, rng: Generator) -> tuple[Shape, str]:
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


def degenerated(shape: Shape, rng: Generator) -> tuple[Shape, str]:
    """Faces without area, needles, and vertices that coincide, worked in."""
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
    sound = np.flatnonzero(_areas(shape) > 0.5e-7)
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


def opened(shape: Shape, rng: Generator, *, whole: bool) -> tuple[Shape, str]:
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
        normal, aside = random_direction(rng), random_direction(rng)
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
        normal, depth = random_direction(rng), rng.uniform(0.03, 0.3)
        height = shape.vertices @ normal
        level = float(height.min() + depth * np.ptp(height))
        vertices, faces = _clip(shape.vertices, shape.faces, height - level)
        normals = cross_products(vertices[faces])
        total, gap = np.linalg.norm(normals, axis=1).sum(), abs(normals.sum(axis=0) @ normal)
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


def halved(shape: Shape, rng: Generator) -> tuple[Shape, str] | None:
    """A convex shape cut in two bodies that touch: each has a cap; alike or not. None if no plane fits."""
    for _ in range(12):
        normal = random_direction(rng)
        height = shape.vertices @ normal
        level = float(height.min() + rng.uniform(0.2, 0.8) * np.ptp(height))
        caps, bodies = "alike" if rng.random() < 0.7 else "different", []
        for side in (1.0, -1.0):
            vertices, faces = _clip(shape.vertices, shape.faces, side * (height - level))
            loops = _loops(_rim(faces))
            if len(loops) != 1:
                break
            rim = loops[0][::-1]
            if side > 0 or caps == "alike":
                # in one order, so that the middle is the same to the last bit
                order = np.lexsort(vertices[rim].T)
                vertices = np.concatenate([vertices, [vertices[rim][order].mean(axis=0)]])
                cap = np.stack([rim, np.roll(rim, -1), np.full(len(rim), len(vertices) - 1)], axis=1)
            else:
                cap = np.stack([np.full(len(rim) - 2, rim[0]), rim[1:-1], rim[2:]], axis=1)
            bodies.append(replace(shape, vertices=vertices, faces=np.concatenate([faces, cap]), owner=None))
        if len(bodies) == 2:
            both = joined(bodies, shape.name)
            vertices, inverse = np.unique(both.vertices, axis=0, return_inverse=True)
            faces = inverse.reshape(-1)[both.faces].astype(np.int64)
            return replace(both, vertices=vertices, faces=faces, contains=shape.contains), f"cut in two, caps {caps}"
    return None


def strayed(shape: Shape, rng: Generator) -> tuple[Shape, int, str]:
    """What belongs to no solid, after the shape's own faces: a far facet or needle, a point, a sheet as the ground.

    Returns how many faces that are, too.
    """
    kind = str(rng.choice(["facet", "needle", "point", "ground"]))
    away = 10 ** rng.uniform(0.5, 4) * random_direction(rng)
    if kind == "ground":
        sides = int(rng.integers(2, 12))
        x, y = (it.ravel() for it in np.meshgrid(*[np.linspace(-1, 1, sides)] * 2, indexing="ij"))
        bottom = shape.vertices.min(axis=0)[2] - rng.uniform(0.01, 0.2)
        width = 10 ** rng.uniform(0, 2)
        corners = np.stack([width * x, width * y, np.full(len(x), bottom)], axis=1)
        i, j = (it.ravel() for it in np.meshgrid(*[np.arange(sides - 1)] * 2, indexing="ij"))
        a, b, c, d = sides * i + j, sides * (i + 1) + j, sides * (i + 1) + j + 1, sides * i + j + 1
        faces = np.concatenate([np.stack([a, b, c], axis=1), np.stack([a, c, d], axis=1)])
    else:
        size = 10 ** rng.uniform(-2, 0)
        spread = {"facet": rng.standard_normal((3, 3)), "needle": np.outer([0, 1, 3], random_direction(rng))}
        corners = away + size * spread.get(kind, np.zeros((3, 3)))
        faces = np.array([[0, 1, 2]])
    owner = np.concatenate([shape.owners, np.full(len(faces), shape.owners.max() + 1)])
    vertices = np.concatenate([shape.vertices, corners])
    faces = np.concatenate([shape.faces, faces + len(shape.vertices)])
    return replace(shape, vertices=vertices, faces=faces, owner=owner), len(faces) - len(shape.faces), kind


def rewound(shape: Shape, rng: Generator) -> tuple[Shape, str]:
    """The whole file, some of its bodies, or faces at random wound the other way; or none."""
    kinds = ["as it is", "whole file", "whole file", "bodies", "random faces"]
    kind = str(rng.choice([it for it in kinds if not shape.nested or it in kinds[:3]]))
    if kind == "bodies" and shape.owners.max() == 0:
        kind = "whole file"
    share = rng.uniform(0.05, 0.5)
    turned = {
        "as it is": np.zeros(len(shape.faces), dtype=bool),
        "whole file": np.ones(len(shape.faces), dtype=bool),
        "bodies": (rng.random(shape.owners.max() + 1) < share)[shape.owners],
        "random faces": rng.random(len(shape.faces)) < 0.9 * share,
    }[kind]
    return replace(shape, faces=np.where(turned[:, None], shape.faces[:, ::-1], shape.faces)), kind


def unwelded(vertices: Floats, faces: Ints, apart: float, rng: Generator) -> tuple[Floats, Ints]:
    """Every face with corners of its own, each up to `apart` off in each coordinate."""
    corners = vertices[faces].reshape(-1, 3)
    return corners + apart * rng.uniform(-1, 1, corners.shape), np.arange(len(corners)).reshape(-1, 3)


def sheet(rng: Generator, count: float, *, several: bool) -> tuple[Shape, str]:
    """Surfaces without an inside."""
    kinds = ["plane", "wavy sheet", "disc", "Moebius strip"]
    kind = str(rng.choice(kinds[:3] if several else kinds))
    pieces = [_sheet_piece(rng, count, kind) for _ in range(int(rng.integers(2, 5)) if several else 1)]
    return joined(apart(rng, pieces) if several else pieces, kind), kind


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
    faces = faces[have_three_corners(faces)]
    return Shape(kind, rounded, faces, lambda points: np.zeros(len(points), dtype=bool))


def turned(shape: Shape, rng: Generator) -> tuple[Shape, str]:
    """Some of the faces, or all, wound the other way."""
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


def _areas(shape: Shape) -> Floats:
    return areas(shape.vertices[shape.faces])


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
