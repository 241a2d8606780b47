"""Fifty shapes of every kind that labels are timed on: what scanners, CAD programs and careless programs write.

Each is a function of nothing, seeded where it is random: the same triangles in every run. Long thin triangles, parts
by the thousand, walls inside walls and holes are here because each of them once made an oracle slow.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import mapbox_earcut
import numpy as np
import trimesh
from numpy.typing import NDArray

from ff3d.shapes.mesh import load_mesh

Floats = NDArray[np.float64]
Maker = Callable[[], trimesh.Trimesh]
SCANS = Path(__file__).resolve().parents[2] / "shared" / "meshes"
MESHES = Path(__file__).resolve().parents[1] / "meshes"


def ring(count: int, radius: float | Floats = 1.0, center: Sequence[float] = (0.0, 0.0), start: float = 0.0) -> Floats:
    """A polygon (count, 2), counterclockwise."""
    angle = start + 2 * np.pi * np.arange(count) / count
    return np.asarray(center) + (radius * np.stack([np.cos(angle), np.sin(angle)])).T


def extruded(rings: Sequence[Floats], height: float) -> trimesh.Trimesh:
    """A prism over a polygon with holes: rings (n, 2), the outer one first; caps by ear clipping."""
    flat = np.concatenate(rings)
    ends = np.cumsum([len(polygon) for polygon in rings])
    cap = mapbox_earcut.triangulate_float64(flat, ends.astype(np.uint32)).reshape(-1, 3).astype(np.int64)
    edge = np.concatenate(
        [np.stack([np.arange(a, b), np.roll(np.arange(a, b), -1)], 1) for a, b in zip([0, *ends], ends, strict=False)]
    )
    a, b, c = flat[cap].transpose(1, 0, 2)
    turned = (b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0] < 0
    cap[turned] = cap[turned, ::-1]
    # a side is wound against the cap's own edge, whichever way its ring runs
    keys = {(int(i), int(j)) for face in cap for i, j in zip(face, np.roll(face, -1), strict=True)}
    edge = np.array([(i, j) if (int(i), int(j)) in keys else (j, i) for i, j in edge])
    count = len(flat)
    sides = np.concatenate(
        [
            np.stack([edge[:, 0], edge[:, 1], edge[:, 1] + count], 1),
            np.stack([edge[:, 0], edge[:, 1] + count, edge[:, 0] + count], 1),
        ]
    )
    vertices = np.concatenate([np.pad(flat, ((0, 0), (0, 1))), np.pad(flat, ((0, 0), (0, 1)), constant_values=height)])
    return trimesh.Trimesh(vertices, np.concatenate([cap[:, ::-1], cap + count, sides]), process=False)


def lathe(profile: Floats, sections: int) -> trimesh.Trimesh:
    """A solid of revolution about z: profile (n, 2) of radius and height, its ends on the axis."""
    return trimesh.creation.revolve(profile, sections=sections)


def tube(path: Floats, radius: float, sides: int) -> trimesh.Trimesh:
    """A closed tube about a path (n, 3), with fans for ends."""
    tangent = np.gradient(path, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    across = np.cross(tangent, np.where(np.abs(tangent[:, 2:]) < 0.9, [[0.0, 0, 1]], [[1.0, 0, 0]]))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    other = np.cross(tangent, across)
    angle = 2 * np.pi * np.arange(sides) / sides
    points = path[:, None] + radius * (
        np.cos(angle)[None, :, None] * across[:, None] + np.sin(angle)[None, :, None] * other[:, None]
    )
    i, j = (it.ravel() for it in np.meshgrid(np.arange(len(path) - 1), np.arange(sides), indexing="ij"))
    k = (j + 1) % sides
    first, count = len(path) * sides, sides
    faces = [
        np.stack([i * count + j, i * count + k, (i + 1) * count + k], 1),
        np.stack([i * count + j, (i + 1) * count + k, (i + 1) * count + j], 1),
    ]
    j = np.arange(sides)
    k = (j + 1) % sides
    last = (len(path) - 1) * sides
    faces += [np.stack([np.full(sides, first), k, j], 1), np.stack([np.full(sides, first + 1), last + j, last + k], 1)]
    vertices = np.concatenate([points.reshape(-1, 3), path[[0, -1]]])
    return trimesh.Trimesh(vertices, np.concatenate(faces), process=False)


def together(parts: Sequence[trimesh.Trimesh]) -> trimesh.Trimesh:
    """All parts as one mesh."""
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    return trimesh.Trimesh(
        np.concatenate([part.vertices for part in parts]),
        np.concatenate([part.faces + start for part, start in zip(parts, starts, strict=False)]),
        process=False,
    )


def placed(shape: trimesh.Trimesh, centers: Floats, sizes: Floats | float = 1.0) -> trimesh.Trimesh:
    """Copies of a shape, scaled (n, 3), (n, 1) or by a number, about centers (n, 3)."""
    vertices = shape.vertices[None] * np.broadcast_to(sizes, (len(centers), 3))[:, None] + centers[:, None]
    faces = shape.faces[None] + len(shape.vertices) * np.arange(len(centers))[:, None, None]
    return trimesh.Trimesh(vertices.reshape(-1, 3), faces.reshape(-1, 3), process=False)


def lattice(*counts: int) -> Floats:
    """The points (n, 3) of a grid of whole numbers."""
    return np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), axis=-1).reshape(-1, 3).astype(float)


def perforated(across: int, corners: int, radius: float, height: float) -> trimesh.Trimesh:
    """A square plate with across^2 holes."""
    holes = [
        ring(corners, radius, ((i + 0.5) / across, (j + 0.5) / across))[::-1]
        for i in range(across)
        for j in range(across)
    ]
    return extruded([np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]]), *holes], height)


def gear(teeth: int, steps: int, height: float) -> trimesh.Trimesh:
    """A gear with a bore."""
    wave = np.tile(np.repeat([0.92, 1.0], steps), teeth)
    return extruded([ring(len(wave), wave), ring(max(64, teeth), 0.3)[::-1]], height)


def letters(count: int) -> trimesh.Trimesh:
    """Extruded outlines in a row, as text has them: rings, stems, combs."""
    rng, parts = np.random.default_rng(0), []
    for i in range(count):
        shift = np.array([1.2 * (i % 12), 1.6 * (i // 12)])
        kind, corners = i % 3, int(rng.integers(40, 160))
        if kind == 0:
            rings = [ring(corners, 0.5), ring(corners, 0.3)[::-1]]
        elif kind == 1:
            teeth = np.array([[1.0, 0.0], [1, 0.2], [0.2, 0.2], [0.2, 0.4], [0.8, 0.4], [0.8, 0.6], [0.2, 0.6]])
            rings = [np.concatenate([[[0.0, 0]], teeth, [[0.2, 0.8], [1, 0.8], [1, 1], [0, 1]]])]
        else:
            angle = np.linspace(0.2, 5.5, corners)
            inner, outer = ((r * np.stack([np.cos(angle), np.sin(angle)])).T for r in (0.35, 0.5))
            rings = [np.concatenate([outer, inner[::-1]])]
        part = extruded(rings, 0.3)
        part.vertices[:, :2] += shift
        parts.append(part)
    return together(parts)


def spiral(corners: int, turns: float) -> trimesh.Trimesh:
    """A long thin strip rolled up, extruded."""
    angle = np.linspace(2 * np.pi, 2 * np.pi * turns, corners // 2)
    inner, outer = (((angle + d) * np.stack([np.cos(angle), np.sin(angle)])).T / angle[-1] for d in (0.0, 2.0))
    return extruded([np.concatenate([outer, inner[::-1]])], 0.2)


def sliver_fan(corners: int) -> trimesh.Trimesh:
    """A disc of two fans from one corner of its rim and a side wall: every triangle of the caps as long as the disc."""
    flat = ring(corners)
    cap = np.stack([np.zeros(corners - 2, dtype=int), np.arange(1, corners - 1), np.arange(2, corners)], axis=1)
    i, j = np.arange(corners), np.roll(np.arange(corners), -1)
    sides = [np.stack([i, j, j + corners], 1), np.stack([i, j + corners, i + corners], 1)]
    vertices = np.concatenate([np.pad(flat, ((0, 0), (0, 1))), np.pad(flat, ((0, 0), (0, 1)), constant_values=0.5)])
    return trimesh.Trimesh(vertices, np.concatenate([cap[:, ::-1], cap + corners, *sides]), process=False)


def bipyramid(sides: int) -> trimesh.Trimesh:
    """Two cones on one rim."""
    i, j = np.arange(sides), np.roll(np.arange(sides), -1)
    top, bottom = np.full(sides, sides), np.full(sides, sides + 1)
    vertices = np.concatenate([np.pad(ring(sides), ((0, 0), (0, 1))), [[0.0, 0, 1.5], [0, 0, -1.5]]])
    return trimesh.Trimesh(
        vertices, np.concatenate([np.stack([i, j, top], 1), np.stack([j, i, bottom], 1)]), process=False
    )


def needles(count: int) -> trimesh.Trimesh:
    """Long thin tetrahedra every which way."""
    rng = np.random.default_rng(0)
    start, end = rng.random((2, count, 3))
    corners = np.concatenate([start[:, None], end[:, None] + 0.004 * rng.standard_normal((count, 3, 3))], axis=1)
    volume = np.einsum("ni,ni->n", np.cross(corners[:, 1] - start, corners[:, 2] - start), corners[:, 3] - start)
    corners[volume < 0, 2], corners[volume < 0, 3] = corners[volume < 0, 3].copy(), corners[volume < 0, 2].copy()
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    faces = (faces[None] + 4 * np.arange(count)[:, None, None]).reshape(-1, 3)
    return trimesh.Trimesh(corners.reshape(-1, 3), faces, process=False)


def soup(count: int, size: float) -> trimesh.Trimesh:
    """Single triangles every which way."""
    rng = np.random.default_rng(0)
    corners = rng.random((count, 1, 3)) + size * rng.standard_normal((count, 3, 3))
    return trimesh.Trimesh(corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3), process=False)


def scaffold(across: int) -> trimesh.Trimesh:
    """Long beams along all three axes through each other."""
    beam, parts = trimesh.creation.box(), []
    for axis in range(3):
        centers = np.insert((lattice(across, across, 1)[:, :2] + 0.5) / across, axis, 0.5, axis=1)
        size = np.full(3, 0.1 / across)
        size[axis] = 1.0
        parts.append(placed(beam, centers, size[None]))
    return together(parts)


def heat_sink(fins: int) -> trimesh.Trimesh:
    """A comb of thin walls, extruded far."""
    x = np.repeat(np.linspace(0, 1, 2 * fins), 2)
    y = np.tile([0.1, 0.5, 0.5, 0.1], fins)
    return extruded([np.concatenate([[[1.0, 0.0]], np.stack([x, y], 1)[::-1], [[0.0, 0.0]]])], 3.0)


def thread(turns: int, steps: int) -> trimesh.Trimesh:
    """A bolt: a cylinder with a helical ridge."""
    angle = np.linspace(0, 2 * np.pi * turns, turns * steps)
    path = np.stack([np.cos(angle), np.sin(angle), angle / 12], axis=1)
    core = trimesh.creation.cylinder(radius=1.0, height=turns * 0.6, sections=1000)
    core.apply_translation([0, 0, turns * 0.26])
    return together([core, tube(path, 0.15, 6)])


def strands(count: int, steps: int) -> trimesh.Trimesh:
    """Curved hairs on a ball."""
    rng, parts = np.random.default_rng(0), [trimesh.creation.icosphere(subdivisions=4)]
    t = np.linspace(0.95, 1.6, steps)[:, None]
    for _ in range(count):
        root, bend = rng.standard_normal((2, 3))
        parts.append(tube(t * root / np.linalg.norm(root) + 0.1 * bend * (t - 0.95) ** 2, 0.004, 6))
    return together(parts)


def bumpy(subdivisions: int, height: float) -> trimesh.Trimesh:
    """A sphere with noise in its radius: every vertex on its own."""
    ball = trimesh.creation.icosphere(subdivisions=subdivisions)
    ball.vertices *= 1 + height * np.random.default_rng(0).standard_normal((len(ball.vertices), 1))
    return ball


def terrain(across: int, roughness: float) -> trimesh.Trimesh:
    """A block with a rough top, its other sides two triangles for each edge and a fan."""
    heights = 0.3 + roughness * np.random.default_rng(0).standard_normal((across, across))
    flat = lattice(across, across, 1)[:, :2] / (across - 1)
    i, j = (it.ravel() for it in np.meshgrid(np.arange(across - 1), np.arange(across - 1), indexing="ij"))
    a, b, c, d = i * across + j, (i + 1) * across + j, (i + 1) * across + j + 1, i * across + j + 1
    last, place = across - 1, np.arange(across - 1)
    rim = np.concatenate([place * across, last * across + place, (last - place) * across + last, last - place])
    count = across**2
    j2, low = np.roll(rim, -1), count + np.arange(len(rim))
    low2 = np.roll(low, -1)
    middle = np.full(len(rim), count + len(rim))
    vertices = np.concatenate(
        [np.column_stack([flat, heights.ravel()]), np.pad(flat[rim], ((0, 0), (0, 1))), [[0.5, 0.5, 0.0]]]
    )
    faces = [
        np.stack([a, b, c], 1),
        np.stack([a, c, d], 1),
        np.stack([rim, low, low2], 1),
        np.stack([rim, low2, j2], 1),
    ]
    return trimesh.Trimesh(vertices, np.concatenate([*faces, np.stack([low2, low, middle], 1)]), process=False)


def voxels(size: int, fill: float) -> trimesh.Trimesh:
    """The sides of random cubes of a grid that look at empty ones: blocks that touch along edges."""
    solid = np.pad(np.random.default_rng(0).random((size,) * 3) < fill, 1)
    corner = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0]])
    quads = []
    for axis in range(3):
        for side in (0, 1):
            shown = np.argwhere(solid & ~np.roll(solid, 1 - 2 * side, axis=axis))
            face = np.roll(corner, axis, axis=1) + side * np.eye(3, dtype=int)[axis]
            quads.append(shown[:, None] + face[:: 1 if side == 0 else -1])
    points = np.concatenate(quads).reshape(-1, 3)
    vertices, index = np.unique(points, axis=0, return_inverse=True)
    index = index.reshape(-1, 4)
    return trimesh.Trimesh(
        vertices.astype(float), np.concatenate([index[:, [0, 1, 2]], index[:, [0, 2, 3]]]), process=False
    )


def shells(count: int, subdivisions: int, gap: float, turned: bool) -> trimesh.Trimesh:
    """Balls within balls; `turned`: every second is a cavity."""
    parts = [trimesh.creation.icosphere(subdivisions=subdivisions, radius=1 - gap * i) for i in range(count)]
    for part in parts[1::2] if turned else []:
        part.invert()
    return together(parts)


def holed(shape: trimesh.Trimesh, axis: int, below: float) -> trimesh.Trimesh:
    """The faces whose middle lies below a plane."""
    kept = shape.faces[shape.triangles_center[:, axis] < below]
    return trimesh.Trimesh(shape.vertices, kept, process=False)


def random_boxes(count: int, long: float) -> trimesh.Trimesh:
    """Boxes of random sides through each other."""
    rng = np.random.default_rng(0)
    return placed(trimesh.creation.box(), rng.random((count, 3)), 0.05 * np.exp(long * rng.standard_normal((count, 3))))


def in_a_hall() -> trimesh.Trimesh:
    """Something small and fine on a large floor: all of the detail in a thousandth of the box."""
    ball = trimesh.creation.icosphere(subdivisions=6, radius=0.05)
    ball.apply_translation([0, 0, 0.06])
    return together([trimesh.creation.box(extents=(20, 20, 0.02)), ball])


def tessellated_cylinder() -> trimesh.Trimesh:
    """A long pipe of CAD: fine around, one quad along, rings for ends."""
    return extruded([ring(4000), ring(4000, 0.9)[::-1]], 20.0)


def star(points: int) -> trimesh.Trimesh:
    """Spikes from near the middle, extruded."""
    return extruded([ring(2 * points, np.tile([0.1, 1.0], points))], 0.3)


def uv_sphere() -> trimesh.Trimesh:
    """Many meridians, few parallels: long thin triangles that meet at the poles."""
    angle = np.linspace(-np.pi / 2, np.pi / 2, 13)
    return lathe(np.stack([np.cos(angle), np.sin(angle)], 1), 3000)


def vase() -> trimesh.Trimesh:
    """A thin-walled pot turned with many sections."""
    height = np.linspace(0, 2, 12)
    wall = 0.6 + 0.25 * np.sin(2.5 * height)
    outer, inner = np.stack([wall, height], 1), np.stack([wall - 0.04, np.maximum(height, 0.05)], 1)
    return lathe(np.concatenate([[[0.0, 0]], outer, inner[::-1], [[0.0, 0.05]]]), 2000)


def thin_ball() -> trimesh.Trimesh:
    """A ball with a wall of a thousandth."""
    inner = trimesh.creation.icosphere(subdivisions=5, radius=0.999)
    inner.invert()
    return together([trimesh.creation.icosphere(subdivisions=5), inner])


def plate(thickness: float) -> trimesh.Trimesh:
    """A thin plate, its sides finely cut."""
    across = 120
    shape = terrain(across, 0.0)
    shape.vertices[:, 2] *= thickness / 0.3
    return shape


SHAPES: dict[str, Maker] = {
    "box": lambda: trimesh.creation.box(extents=(1, 0.6, 0.3)),
    "icosphere 5": lambda: trimesh.creation.icosphere(subdivisions=5),
    "icosphere 6": lambda: trimesh.creation.icosphere(subdivisions=6),
    "torus": lambda: trimesh.creation.torus(1.0, 0.3, major_sections=256, minor_sections=96),
    "torus of hoops": lambda: trimesh.creation.torus(1.0, 0.5, major_sections=4000, minor_sections=6),
    "capsule": lambda: trimesh.creation.capsule(height=3.0, radius=0.5, count=[200, 200]),
    "uv sphere": uv_sphere,
    "cylinder 8k": lambda: trimesh.creation.cylinder(radius=1.0, height=2.0, sections=2000),
    "cylinder 80k": lambda: trimesh.creation.cylinder(radius=1.0, height=2.0, sections=20_000),
    "rod": lambda: trimesh.creation.cylinder(radius=0.02, height=2.0, sections=2000),
    "coin": lambda: trimesh.creation.cylinder(radius=1.0, height=0.01, sections=5000),
    "cone 8k": lambda: trimesh.creation.cone(radius=1.0, height=2.0, sections=4000),
    "cone 80k": lambda: trimesh.creation.cone(radius=1.0, height=2.0, sections=40_000),
    "bipyramid": lambda: bipyramid(20_000),
    "pipe": tessellated_cylinder,
    "vase": vase,
    "perforated 40k": lambda: perforated(20, 27, 0.018, 0.1),
    "perforated thin": lambda: perforated(45, 6, 0.008, 0.002),
    "perforated rims": lambda: perforated(6, 400, 0.07, 0.5),
    "gear 200": lambda: gear(200, 4, 0.3),
    "gear 5000": lambda: gear(5000, 1, 0.3),
    "letters": lambda: letters(96),
    "spiral 1500": lambda: spiral(1500, 8),
    "spiral 10k": lambda: spiral(10_000, 30),
    "star": lambda: star(4000),
    "sliver fan": lambda: sliver_fan(20_000),
    "heat sink": lambda: heat_sink(2000),
    "bolt": lambda: thread(20, 120),
    "strands": lambda: strands(300, 24),
    "boxes in a grid": lambda: placed(trimesh.creation.box(), lattice(20, 20, 20), 0.6),
    "boxes that touch": lambda: placed(trimesh.creation.box(), lattice(16, 16, 16)),
    "boxes at random": lambda: random_boxes(3000, 0.7),
    "scaffold": lambda: scaffold(30),
    "needles": lambda: needles(5000),
    "triangle soup": lambda: soup(10_000, 0.05),
    "balls in a grid": lambda: placed(trimesh.creation.icosphere(subdivisions=2), lattice(7, 7, 7), 0.45),
    "voxels": lambda: voxels(24, 0.3),
    "shells 25": lambda: shells(25, 3, 0.02, turned=False),
    "shells 80 turned": lambda: shells(80, 3, 0.005, turned=True),
    "thin ball": thin_ball,
    "plate 1e-4": lambda: plate(1e-4),
    "noise 1%": lambda: bumpy(6, 0.01),
    "noise 10%": lambda: bumpy(5, 0.1),
    "terrain": lambda: terrain(200, 0.02),
    "in a hall": in_a_hall,
    "ball with a hole": lambda: holed(trimesh.creation.icosphere(subdivisions=5), 2, 0.8),
    "cup": lambda: holed(trimesh.creation.cylinder(radius=1.0, height=2.0, sections=2000), 2, 0.9),
    **{path.stem: (lambda path=path: load_mesh(path)) for path in sorted(MESHES.glob("*.obj"))},  # type: ignore[misc]
    **{path.stem: (lambda path=path: load_mesh(path)) for path in sorted(SCANS.glob("*.obj"))},  # type: ignore[misc]
}
