"""The sound solids that broken meshes start from, of one part, and how they are moved and joined."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from ff3d.geometry.arrays import Bools, Floats, Ints
from ff3d.geometry.triangles import cross_products, have_three_corners, signed_volumes
from ff3d.shapes.sample_meshes import SPACING, sample_mesh, smooth_mesh
from ff3d.shapes.solids import SOLIDS

Contains = Callable[[Floats], Bools]
LEVELS = 7  # sizes of the smooth samples


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


def plain_shape(rng: Generator, count: float) -> Shape:
    """A closed, outward mesh of one part and about `count` faces, and its solid."""
    if count > 5000 and rng.random() < 0.7:
        name = str(rng.choice(["bunny", "knot", "gyroid"]))
        return sample_shape(name, int(np.clip(round(2 * math.log2(60_000 / count)), 0, LEVELS - 1)))
    makers: list[Callable[[Generator, float], Shape]] = [lathe_shape, lathe_shape, hull_shape, box_shape]
    if count > 1500:
        makers += [bracket_shape]
    return choose(rng, *makers)(rng, count)


@lru_cache(maxsize=32)
def sample_shape(name: str, level: int) -> Shape:
    """A smooth sample, its spacing wider by 2^(level / 4), so that its faces are fewer by 2^(level / 2)."""
    solid = SOLIDS[name]
    vertices, faces = smooth_mesh(solid, SPACING[name] * 2 ** (level / 4))
    # the values of the rope and of the walls are about distances; at the middle of a face it is farthest off
    error = float(np.quantile(np.abs(solid.values(vertices[faces].mean(axis=1))), 0.995))
    hole = {"bunny": 0.01, "knot": 0.003, "gyroid": 0.002}[name]
    return centered(Shape(name, np.round(vertices, 6), faces, solid.contains, error, hole))


def bracket_shape(rng: Generator, count: float) -> Shape:
    """The sample bracket, refined to about `count` faces."""
    mesh, solid = sample_mesh("bracket"), SOLIDS["bracket"]
    shape = Shape("bracket", np.array(mesh.vertices), np.array(mesh.faces), solid.contains, 2e-4, 0.004)
    return centered(refined(shape, count))


def box_shape(rng: Generator, count: float) -> Shape:
    """A box of random size, refined to about `count` faces."""
    half = rng.uniform(0.15, 0.5, 3)

    def contains(points: Floats) -> Bools:
        inside: Bools = np.abs(points / half).max(axis=1) < 1
        return inside

    return refined(Shape("box", *box_arrays(-half, half), contains, 0.0, 0.02), count)


def box_arrays(low: Floats, high: Floats) -> tuple[Floats, Ints]:
    """Vertices (8, 3) and outward faces (12, 3) of a box."""
    corners = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)])
    quads = np.array([(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)])
    return np.where(corners == 1, high, low), quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)


def hull_shape(rng: Generator, count: float) -> Shape:
    """Of random points on an ellipsoid; exactly the half spaces of its faces."""
    from scipy.spatial import ConvexHull

    points = rng.standard_normal((int(np.clip(count / 2, 8, 250)), 3))
    points *= rng.uniform(0.2, 0.5, 3) / np.linalg.norm(points, axis=1, keepdims=True)
    hull = ConvexHull(points)
    normals, offsets, faces = hull.equations[:, :3], hull.equations[:, 3], hull.simplices.astype(np.int64)
    inward = np.einsum("ij,ij->i", cross_products(points[faces]), normals) < 0
    faces[inward] = faces[inward][:, ::-1]

    def contains(p: Floats) -> Bools:
        inside = np.ones(len(p), dtype=bool)
        for normal, offset in zip(normals, offsets, strict=True):
            inside[inside] = p[inside] @ normal + offset < 0
        return inside

    return refined(Shape("hull", points, faces, contains, 0.0, 0.02), count)


def lathe_shape(rng: Generator, count: float) -> Shape:
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
    faces = faces[have_three_corners(faces)]
    used, inverse = np.unique(faces, return_inverse=True)
    vertices, faces = vertices[used], inverse.reshape(-1, 3).astype(np.int64)
    if signed_volumes(vertices, faces).sum() < 0:
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


def choose(rng: Generator, *options: Any) -> Any:
    """One of the options, each as likely."""
    return options[int(rng.integers(len(options)))]


def random_direction(rng: Generator) -> Floats:
    """A unit vector (3,), uniform on the sphere."""
    vector = rng.standard_normal(3)
    return vector / np.linalg.norm(vector)


def random_rotation(rng: Generator, most: float = math.pi) -> Floats:
    """A turn by up to `most` radians about a random axis (3, 3)."""
    x, y, z = random_direction(rng)
    angle = rng.uniform(-most, most)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn: Floats = np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * (cross @ cross)
    return turn


def moved(shape: Shape, scale: float = 1.0, turn: Floats | None = None, shift: ArrayLike = (0, 0, 0)) -> Shape:
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


def centered(shape: Shape) -> Shape:
    """The shape with the middle of its box at the origin."""
    return moved(shape, shift=-(shape.vertices.min(axis=0) + shape.vertices.max(axis=0)) / 2)


def joined(parts: Sequence[Shape], name: str) -> Shape:
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


def refined(shape: Shape, count: float) -> Shape:
    """Each face cut into four until there are about `count`."""
    import trimesh

    vertices, faces = shape.vertices, shape.faces
    while len(faces) * 2 < count:
        vertices, faces = trimesh.remesh.subdivide(vertices, faces)
    return replace(shape, vertices=np.asarray(vertices), faces=np.asarray(faces, dtype=np.int64))
