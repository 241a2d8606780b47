"""The sample meshes: made from the solids of `shapes`, written to meshes/, the same bytes each time."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import combinations, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ff3d.files import FORCE, FolderError, is_marked, write_text
from ff3d.geometry.triangles import cross_products
from ff3d.shapes.solids import CUT, HEEL, HOLES, LEG, LENGTHS, RIB, SOLIDS, THICK, WIDE, Solid, Values, length_of

if TYPE_CHECKING:
    import trimesh

Indices = NDArray[np.int64]
SAMPLES = (*SOLIDS, "soup")
SPACING = {"bunny": 0.0092, "knot": 0.0105, "gyroid": 0.019}  # of the marching grid: files just under 2 MB


def sample_mesh(name: str) -> trimesh.Trimesh:
    """The mesh of a sample, one of `SAMPLES`, in the coordinates of its solid (of the bunny, for the soup).

    Closed, outward (signed volume > 0), without degenerate faces and the same each time, its coordinates
    rounded to 5 decimals; the soup alone is broken on purpose. Raises ValueError for an unknown name.
    """
    import trimesh

    if name not in SAMPLES:
        raise ValueError(f"unknown sample {name!r}; the known ones are {', '.join(SAMPLES)}")
    vertices, faces = _arrays(name)
    return trimesh.Trimesh(vertices.copy(), faces.copy(), process=False)


def write_samples(directory: str | Path, *, progress: bool = False, force: bool = False) -> list[Path]:
    """Write each sample as name.obj, and the README.md that describes them; return the paths.

    The same bytes each time: the committed folder meshes/ is this function's output. Each file is whole or absent.
    progress: show a tqdm bar.  force: replace files of these names that are not samples; FolderError without.
    """
    directory, paths, rows = Path(directory), [], []
    for file in (*(directory / f"{name}.obj" for name in SAMPLES), directory / "README.md"):
        if file.exists() and not force and not is_marked(file, b"ff3d samples"):
            raise FolderError(f"{file}: is there, and was not made by ff3d; {FORCE}")
    for name in tqdm(SAMPLES, desc="samples", disable=not progress):
        mesh = sample_mesh(name)
        lines = [f"# {name}, written by ff3d samples; CC0 1.0"]
        lines += [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in mesh.vertices.tolist()]
        lines += [f"f {a} {b} {c}" for a, b, c in (mesh.faces + 1).tolist()]
        text = "\n".join(lines) + "\n"
        paths.append(directory / f"{name}.obj")
        write_text(paths[-1], text)
        what = SOLIDS[name].description if name in SOLIDS else _SOUP
        closed = "yes" if mesh.is_watertight else "no"
        rows.append(f"| `{name}.obj` | {what} | {len(mesh.faces):,} | {len(text) / 1e6:.2f} MB | {closed} |")
    paths.append(directory / "README.md")
    write_text(paths[-1], _README.format(rows="\n".join(rows)))
    return paths


_SOUP = "the bunny's mesh broken on purpose: holes, patches inside out, patches doubled, a cut ball inside"
_README = """# Sample meshes

Made by formula in `ff3d/shapes/solids.py`: `ff3d samples` writes this folder again, byte for byte.
The exact solid of each is `ff3d.shapes.solids.SOLIDS[name]`; the soup's is the bunny's.
The y axis is up, the bunny looks towards +z, lengths are in no unit (each sample is about 1 large).

| file | what it is | faces | size | closed |
|---|---|---:|---:|---|
{rows}

Licence of the meshes: CC0 1.0, dedicated to the public domain. Use them for anything; no credit is needed.
"""


@cache
def _arrays(name: str) -> tuple[Values, Indices]:
    """Vertices, rounded so that the last bits of a machine's sine do not show, and faces of a sample."""
    if name == "bracket":
        vertices, faces = _bracket_mesh()
    elif name == "soup":
        vertices, faces = _soup_mesh()
    else:
        vertices, faces = smooth_mesh(SOLIDS[name], SPACING[name])
    return np.round(vertices, 5) + 0.0, faces  # + 0.0: no negative zero


def smooth_mesh(solid: Solid, spacing: float) -> tuple[Values, Indices]:
    """Marching cubes, then rounds of evening out the triangles and moving the vertices back to the surface."""
    from skimage import measure

    march: Callable[..., tuple[Any, ...]] = measure.marching_cubes
    lower = solid.bounds[0]
    axes = [np.arange(math.ceil(extent / spacing) + 1) for extent in solid.bounds[1] - lower]
    cells = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    values = solid.values(lower + spacing * cells.reshape(-1, 3)).reshape(cells.shape[:3])
    marched, faces, _, _ = march(np.round(values, 9), 0.0, gradient_direction="ascent")
    vertices, faces = lower + spacing * marched.astype(np.float64), faces.astype(np.int64)
    start, end = faces.T.ravel(), faces[:, [1, 2, 0]].T.ravel()
    neighbours = np.bincount(start)
    for _ in range(4):
        mean = np.stack([np.bincount(start, row[end]) for row in vertices.T], axis=1) / neighbours[:, None]
        vertices = _onto_surface(solid, (vertices + mean) / 2, spacing)
    return vertices, faces


def _onto_surface(solid: Solid, points: Values, spacing: float) -> Values:
    """Three Newton steps along the numerical gradient, each at most half a cell so that none runs away."""
    offsets = 1e-4 * np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
    for _ in range(3):
        value, *sides = solid.values((points + offsets[:, None]).reshape(-1, 3)).reshape(7, -1)
        gradient = (np.array(sides[:3]) - np.array(sides[3:])).T / 2e-4
        step = -gradient * (value / np.maximum((gradient**2).sum(axis=1), 0.05))[:, None]
        points = points + step * np.minimum(1, spacing / 2 / np.maximum(length_of(step.T), 1e-12))[:, None]
    return points


def _bracket_mesh() -> tuple[Values, Indices]:
    """Exact edges: in each plane, those Delaunay triangles of the points on its edges that bound the solid."""
    from scipy.spatial import Delaunay

    solid, (long, tall), leg, cut = SOLIDS["bracket"], LENGTHS, 2 * THICK + LEG, WIDE - CUT
    planes = [(1, 0, 0, x) for x in (-WIDE, -RIB, RIB, WIDE)]  # normal and offset
    planes += [(0, 1, 0, y) for y in (0, THICK, tall)] + [(0, 0, 1, z) for z in (0, THICK, long)]
    planes += [(0, 1, 1, HEEL), (0, 1, 1, leg)]
    planes += [(x, y, 1 - y, cut + length) for x in (-1, 1) for y, length in ((0, long), (1, tall))]
    table = np.array(planes, dtype=np.float64)

    triples = table[list(combinations(range(len(table)), 3))]
    triples = triples[np.abs(np.linalg.det(triples[..., :3])) > 0.5]
    meet = np.linalg.solve(triples[..., :3], triples[..., 3:])[..., 0].astype(np.float64)
    corners = np.unique(np.round(meet, 9), axis=0)
    corners = corners[np.abs(solid.value(corners)) < 1e-6]
    points, triangles = [], []
    for one, other in combinations(table, 2):
        line = corners[(_height(corners, one) == 0) & (_height(corners, other) == 0)]
        line = line[np.argsort(line @ np.cross(one[:3], other[:3]), kind="stable")]
        for first, last in pairwise(line):
            steps = np.linspace(0, 1, 1 + max(1, round(math.dist(first, last) / 0.05)))
            points.append(first + steps[:, None] * (last - first))
    for axis, center, radius in HOLES:
        turns = np.arange(64) * (2 * math.pi / 64)
        circle = np.array(center) + radius * np.stack([np.cos(turns), np.sin(turns)], axis=1)
        rims = [np.insert(circle, axis, a, axis=1) for a in ((0, THICK) if axis else (-RIB, RIB))]
        points += rims
        (a, b), (c, d) = rims, (np.roll(rim, -1, axis=0) for rim in rims)
        wall = np.stack([a, b, d, a, d, c], axis=1).reshape(-1, 3, 3)
        triangles.append(wall[:, ::-1] if axis == 1 else wall)
    cloud = np.unique(np.round(np.concatenate(points), 9), axis=0)
    cloud = cloud[np.abs(solid.value(cloud)) < 1e-6]
    for plane in table:
        flat = cloud[_height(cloud, plane) == 0]
        faces = flat[Delaunay(np.delete(flat, np.argmax(np.abs(plane[:3])), axis=1)).simplices]
        height = cross_products(faces) @ plane[:3]
        faces[height < 0] = faces[height < 0][:, ::-1]
        above, below = (solid.contains(faces.mean(axis=1) + lift * plane[:3]) for lift in (1e-6, -1e-6))
        real = np.abs(height) > 1e-6
        triangles += [faces[real & below & ~above], faces[real & above & ~below][:, ::-1]]
    return _weld(triangles)


def _height(points: Values, plane: Values) -> Values:
    """Signed height over the plane (normal, offset), 0 where it is only rounding."""
    height: Values = np.round(points @ plane[:3] - plane[3], 6)
    return height


def _soup_mesh() -> tuple[Values, Indices]:
    """The bunny's mesh, broken at places given by a point and a radius; see `_SOUP`."""
    import trimesh

    bunny = sample_mesh("bunny")
    vertices, faces, middle = np.array(bunny.vertices), np.array(bunny.faces), bunny.triangles_center

    def near(*places: tuple[float, float, float, float]) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = np.any([length_of((middle - at).T) < reach for *at, reach in places], axis=0)
        return inside

    lost = near((0.2, 0.2, -0.15, 0.045), (-0.15, 0.38, -0.1, 0.04), (0, 0.47, -0.2, 0.04), (0.02, 0.35, 0.22, 0.03),
                (-0.06, 0.72, 0.06, 0.03), (0, 0.01, -0.2, 0.05))  # fmt: skip
    turned = near((-0.22, 0.2, -0.1, 0.025), (0.14, 0.42, -0.05, 0.025), (0.05, 0.1, -0.34, 0.025))
    doubled = near((0.12, 0.3, -0.28, 0.07), (-0.1, 0.25, -0.3, 0.06), (0.07, 0.62, 0.24, 0.05))
    faces[turned] = faces[turned][:, ::-1]
    shift = vertices + 0.008 * np.array(bunny.vertex_normals)
    ball = trimesh.creation.icosphere(subdivisions=3, radius=0.1)
    kept = ball.faces[ball.triangles_center[:, 1] < 0.06]
    parts = [(vertices, faces[~lost]), (shift, faces[doubled]), (ball.vertices + np.array([0, 0.28, -0.1]), kept)]
    return _weld([v[f] for v, f in parts])


def _weld(triangles: list[Values]) -> tuple[Values, Indices]:
    """Vertices and faces of arrays of triangles (n, 3, 3); corners that agree to 5 decimals are one vertex."""
    corners = np.round(np.concatenate(triangles).reshape(-1, 3), 5)
    vertices, inverse = np.unique(corners, axis=0, return_inverse=True)
    return vertices, inverse.reshape(-1, 3).astype(np.int64)
