"""Closed surfaces that cut themselves, have several parts, touch, or are thin: each with its exact solid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator

from ff3d.geometry.arrays import Bools, Floats
from ff3d.geometry.triangles import signed_volumes
from ff3d.shapes.broken_solids import (
    Shape,
    box_arrays,
    box_shape,
    centered,
    choose,
    hull_shape,
    joined,
    moved,
    plain_shape,
    random_direction,
    random_rotation,
    refined,
    turned_shape,
)

if TYPE_CHECKING:
    pass


def loop_ring(rng: Generator, count: float) -> tuple[Shape, str]:
    """A ring whose section is a snail's line with a loop inside: one part, wound twice within the loop."""
    steps = max(16, round(math.sqrt(count / 3)))
    t = 2 * np.pi * np.arange(steps) / steps
    size = rng.uniform(0.04, 0.08)
    radius = size * (1 + rng.uniform(1.6, 2.5) * np.cos(t))
    profile = np.stack([0.25 + radius * np.cos(t), radius * np.sin(t)], axis=1)
    return turned_shape("looped ring", profile, max(6, round(1.5 * steps)), hole=0.005), "looped section"


def figure_eight(rng: Generator, count: float) -> tuple[Shape, str]:
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
    if signed_volumes(vertices, faces).sum() < 0:
        faces = np.ascontiguousarray(faces[:, ::-1])
    tree = cKDTree(curve(2 * np.pi * np.arange(8000) / 8000))

    def contains(p: Floats) -> Bools:
        return tree.query(p, distance_upper_bound=thick)[0] < thick

    error = thick * (1 - math.cos(math.pi / sides)) + 3 / (around * around)
    return Shape("eight", vertices, faces, contains, error, 0.005), "figure eight"


def folded(rng: Generator, count: float) -> tuple[Shape, str]:
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
        return loop_ring(rng, count)
    chosen = rng.permutation(fit)[: max(1, min(len(fit) // 20, 200))]
    _, first = np.unique(start[chosen], return_index=True)
    one, other = start[chosen[first]], end[chosen[first]]
    step = rng.uniform(1.3, 1.9, (len(one), 1)) * (shape.vertices[other] - shape.vertices[one])
    off = float(np.abs(np.einsum("ij,ij->i", step, total[one])).max())
    vertices = shape.vertices.copy()
    vertices[one] += step
    return replace(shape, vertices=vertices, error=shape.error + off), "folds"


def bridged(rng: Generator, count: float) -> tuple[Shape, str]:
    """Two overlapping convex solids made one part by a tube between a face of each inside the other."""
    for _ in range(20):
        first, second = (choose(rng, hull_shape, box_shape)(rng, min(count / 2, 3000)) for _ in range(2))
        second = moved(second, turn=random_rotation(rng), shift=0.25 * random_direction(rng))
        middles = [it.vertices[it.faces].mean(axis=1) for it in (first, second)]
        inner = [
            np.flatnonzero(other.contains(it.vertices[it.faces].reshape(-1, 3)).reshape(-1, 3).all(axis=1))
            for it, other in ((first, second), (second, first))
        ]
        if not (len(inner[0]) and len(inner[1])) or min(len(inner[0]), len(inner[1])) == len(first.faces):
            continue
        i = int(rng.choice(inner[0]))
        j = int(inner[1][np.argmin(np.linalg.norm(middles[1][inner[1]] - middles[0][i], axis=1))])
        shape = joined([first, second], first.name + " and " + second.name)
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
    return loop_ring(rng, count)


def overlapping(rng: Generator, count: float) -> tuple[Shape, str]:
    """Two to five solids that run into each other, as they are."""
    number = int(rng.integers(2, 6))
    parts = [plain_shape(rng, count / number)]
    for _ in range(100):
        piece = plain_shape(rng, count / number)
        host = parts[int(rng.integers(len(parts)))]
        at = host.vertices[int(rng.integers(len(host.vertices)))]
        piece = moved(piece, scale=rng.uniform(0.3, 1), turn=random_rotation(rng), shift=at)
        within = host.contains(piece.vertices)
        if 0.02 < within.mean() < 0.98:
            parts.append(piece)
        if len(parts) == number:
            break
    if len(parts) == 1:
        return copied(rng, count)
    return joined(parts, "overlap"), "overlapping parts"


def copied(rng: Generator, count: float) -> tuple[Shape, str]:
    """Copies of one solid, each a little off."""
    piece = plain_shape(rng, count / 2)
    others = [moved(piece, turn=random_rotation(rng, 0.1), shift=rng.uniform(0.005, 0.05) * random_direction(rng))
              for _ in range(int(rng.integers(1, 3)))]  # fmt: skip
    return joined([piece, *others], piece.name), "overlapping copies"


def disjoint(rng: Generator, count: float) -> tuple[Shape, str]:
    """Two to six solids in a row."""
    number = int(rng.integers(2, 7))
    return joined(apart(rng, [plain_shape(rng, count / number) for _ in range(number)]), "disjoint"), "disjoint"


def apart(rng: Generator, shapes: Sequence[Shape]) -> list[Shape]:
    """The shapes turned and set in a crooked row, each its own size, with gaps between."""
    placed, edge = [], 0.0
    for shape in shapes:
        it = moved(shape, scale=rng.uniform(0.2, 1), turn=random_rotation(rng))
        low, high = it.vertices.min(axis=0), it.vertices.max(axis=0)
        shift = np.array([edge - low[0], *rng.uniform(-0.3, 0.3, 2)])
        edge += high[0] - low[0] + rng.uniform(0.02, 0.3)
        placed.append(moved(it, shift=shift))
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
    return moved(
        guest, scale=rng.uniform(0.5, 0.8) * float(room[best]) / reach, turn=random_rotation(rng), shift=points[best]
    )


def nested(rng: Generator, count: float) -> tuple[Shape, str]:
    """A solid wholly inside another, turned outwards like it: nothing is taken away."""
    host, guest = plain_shape(rng, count * 0.7), plain_shape(rng, count * 0.3)
    return replace(joined([host, _inner(host, guest, rng)], host.name), nested=True), "nested"


def cavity(rng: Generator, count: float) -> tuple[Shape, str]:
    """A solid with a hollow: no fault."""
    host, guest = plain_shape(rng, count * 0.7), plain_shape(rng, count * 0.3)
    return replace(_hollowed(host, _inner(host, guest, rng)), nested=True), "cavity"


def _hollowed(host: Shape, hollow: Shape) -> Shape:
    shape = joined([host, replace(hollow, faces=np.ascontiguousarray(hollow.faces[:, ::-1]))], host.name)
    return replace(shape, contains=lambda points: host.contains(points) & ~hollow.contains(points))


def shells(rng: Generator, count: float) -> tuple[Shape, str]:
    """Solid, hollow, solid, perhaps hollow again, each inside the one before."""
    shapes = [plain_shape(rng, count * 0.4)]
    for _ in range(int(rng.integers(2, 4))):
        guest = choose(rng, hull_shape, box_shape)(rng, count * 0.2)
        shapes.append(_inner(shapes[-1], guest, rng))
    whole = shapes.pop()
    if len(shapes) % 2:
        whole = _hollowed(shapes.pop(), whole)
    while shapes:
        hollow, host = shapes.pop(), shapes.pop()
        whole = joined([_hollowed(host, hollow), whole], host.name)
    return replace(whole, nested=True), "shells"


def crumbs(rng: Generator, count: float) -> tuple[Shape, str]:
    """A solid with tiny ones about it."""
    host, crumbs = plain_shape(rng, count), []
    for _ in range(int(rng.integers(3, 40))):
        crumb = moved(
            choose(rng, hull_shape, box_shape)(rng, 12.0), scale=rng.uniform(0.002, 0.03), turn=random_rotation(rng)
        )
        placed = moved(crumb, shift=rng.uniform(-0.6, 0.6, 3))
        if not host.contains(
            np.concatenate([placed.vertices, 3 * placed.vertices - 2 * placed.vertices.mean(axis=0)])
        ).any():
            crumbs.append(placed)
    crumbs = crumbs or [moved(box_shape(rng, 12.0), scale=0.02, shift=np.array([1.2, 0, 0]))]
    return joined([host, *crumbs], host.name), "crumbs"


def blocks(rng: Generator, count: float) -> tuple[Shape, str]:
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
    arrays = [box_arrays(*box) for box in boxes]
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

    return centered(refined(Shape("blocks", vertices, faces, contains, 0.0, 0.02), count)), kind


def layered(rng: Generator, count: float) -> tuple[Shape, str]:
    """A prism of two to ten layers: with one wall between each two, or each layer closed on its own."""
    layers, sides = int(rng.integers(2, 11)), int(rng.integers(3, 13))
    width, double = rng.uniform(0.2, 0.5), rng.random() < 0.5
    heights = np.concatenate([[0.0], np.cumsum(rng.uniform(0.01, 0.3, layers))])
    angle = 2 * np.pi * np.arange(sides) / sides
    ring = width * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    rows = [np.concatenate([ring, [[0.0, 0.0]]]) for _ in heights]
    vertices = np.concatenate([np.c_[row, np.full(sides + 1, z)] for row, z in zip(rows, heights, strict=True)])
    i, top = np.arange(sides), sides + 1
    j = (i + 1) % sides
    side = np.concatenate([np.stack([i, j, j + top], axis=1), np.stack([i, j + top, i + top], axis=1)])
    disc = np.stack([i, j, np.full(sides, sides)], axis=1)  # looks up
    faces, owner = [], []
    for k in range(layers):
        below, above = [disc[:, ::-1] + top * k], [disc + top * (k + 1)]
        parts = [side + top * k, *(below if double or k == 0 else []), *above]
        faces.append(np.concatenate(parts))
        owner.append(np.full(len(faces[-1]), k if double else 0))

    def contains(p: Floats) -> Bools:
        middle = (np.floor(np.arctan2(p[:, 1], p[:, 0]) * sides / (2 * np.pi)) + 0.5) * (2 * np.pi / sides)
        radius = (p[:, 0] * np.cos(middle) + p[:, 1] * np.sin(middle)) / math.cos(math.pi / sides)
        inside: Bools = (radius < width) & (p[:, 2] > 0) & (p[:, 2] < heights[-1])
        return inside

    shape = Shape("layers", vertices, np.concatenate(faces), contains, owner=np.concatenate(owner))
    return centered(finer(shape, count)), f"{layers} layers, walls {'double' if double else 'single'}"


def heap(rng: Generator, count: float) -> tuple[Shape, str]:
    """Closed boxes in the cells of a grid: all, some, or those that share edges alone."""
    kind = str(rng.choice(["all boxes", "some boxes", "columns by edges", "boxes by edges", "a hollow in the middle"]))
    shape = rng.integers(2, 5, 3)
    shape = {"columns by edges": np.array([*shape[:2], 1]), "a hollow in the middle": np.full(3, 3)}.get(kind, shape)
    lines = [np.concatenate([[0.0], np.cumsum(rng.uniform(0.1, 0.5, k))]) for k in shape]
    cells = np.stack(np.unravel_index(np.arange(shape.prod()), tuple(shape)), axis=1)
    if kind == "some boxes":
        cells = cells[rng.permutation(len(cells))[: max(2, round(len(cells) * rng.uniform(0.3, 0.9)))]]
    elif kind.endswith("by edges"):
        cells = cells[cells.sum(axis=1) % 2 == 0]
    elif kind.startswith("a hollow"):
        cells = cells[(cells != 1).any(axis=1)]
    low = np.stack([lines[k][cells[:, k]] for k in range(3)], axis=1)
    high = np.stack([lines[k][cells[:, k] + 1] for k in range(3)], axis=1)
    boxes = [box_arrays(*ends) for ends in zip(low, high, strict=True)]
    vertices, inverse = np.unique(np.concatenate([it for it, _ in boxes]), axis=0, return_inverse=True)
    faces = inverse.reshape(-1)[np.concatenate([it + 8 * k for k, (_, it) in enumerate(boxes)])]

    def contains(p: Floats) -> Bools:
        # closed boxes: the plane between two has no thickness
        return np.any([((p >= one) & (p <= other)).all(axis=1) for one, other in zip(low, high, strict=True)], axis=0)

    owner = np.repeat(np.arange(len(boxes)), len(faces) // len(boxes))
    return centered(finer(Shape("heap", vertices, faces, contains, owner=owner), count)), kind


def plates(rng: Generator, count: float) -> tuple[Shape, str]:
    """One to four closed plates, far thinner than they are wide."""
    thickness, parts, height = 10 ** rng.uniform(-7, -4.5), [], 0.0
    for _ in range(int(rng.integers(1, 5))):
        half = np.array([*rng.uniform(0.2, 0.5, 2), thickness / 2])

        def contains(points: Floats, half: Floats = half) -> Bools:
            inside: Bools = np.abs(points / half).max(axis=1) < 1
            return inside

        plate = Shape("plate", *box_arrays(-half, half), contains)
        parts.append(moved(plate, shift=[*rng.uniform(-0.1, 0.1, 2), height]))
        height += rng.uniform(0.05, 0.3)
    return finer(joined(parts, "plates"), count), f"{len(parts)} plate(s) of {thickness:.0e}"


def thin_shell(rng: Generator, count: float) -> tuple[Shape, str]:
    """A convex solid and, turned inwards, the same a little smaller."""
    thickness, host = 10 ** rng.uniform(-6, -3), choose(rng, hull_shape, box_shape)(rng, count / 2)
    shape = replace(_hollowed(host, moved(host, scale=1 - thickness)), nested=True)
    return shape, f"a shell of {thickness:.0e}"


def finer(shape: Shape, count: float) -> Shape:
    """Each face cut into four, with its owner, until there are about `count`."""
    import trimesh

    vertices, faces, owner = shape.vertices, shape.faces, shape.owners
    while len(faces) * 2 < count:
        vertices, faces, index = trimesh.remesh.subdivide(vertices, faces, return_index=True)
        source = np.empty(len(faces), dtype=np.int64)
        for old, new in index.items():
            source[new] = old
        owner = owner[source]
    return replace(shape, vertices=np.asarray(vertices), faces=np.asarray(faces, dtype=np.int64), owner=owner)
