"""The sample solids and their meshes say the same thing, and the committed files are what the code writes."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import igl
import numpy as np
import pytest
import trimesh
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ff3d.shapes import sample_meshes as samples
from ff3d.shapes import solids as shapes

MESHES = Path(__file__).parents[2] / "meshes"
CLOSED = tuple(shapes.SOLIDS)
GENUS = {"bunny": 0, "knot": 1, "gyroid": 24, "bracket": 6}  # the bracket has six through holes
CELL = {**samples.SPACING, "bracket": 4e-4}  # a mesh misses its surface by less than half of this
radii = st.floats(0.1, 0.9)


@cache
def mesh_of(name: str) -> trimesh.Trimesh:
    return samples.sample_mesh(name)


def solid_of(name: str) -> shapes.Solid:
    return shapes.SOLIDS["bunny" if name == "soup" else name]


def points_in(bounds: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(*bounds, size=(count, 3))


def winding_labels(mesh: trimesh.Trimesh, points: np.ndarray) -> np.ndarray:
    tree = igl.FastWindingNumberBVH()
    tree.init(np.array(mesh.vertices), np.array(mesh.faces, dtype=np.int64), 2)
    return tree.winding_number(points, 2.0) > 0.5


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


def edge_counts(mesh: trimesh.Trimesh, *, directed: bool) -> np.ndarray:
    edges = mesh.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    return np.unique(edges if directed else np.sort(edges, axis=1), axis=0, return_counts=True)[1]


@pytest.mark.slow
def test_the_committed_meshes_are_what_the_code_writes(tmp_path: Path) -> None:
    written = samples.write_samples(tmp_path)
    assert [path.name for path in written] == [*(f"{name}.obj" for name in samples.SAMPLES), "README.md"]
    assert sorted(path.name for path in MESHES.iterdir()) == sorted(path.name for path in written)
    for path in written:
        assert path.read_bytes() == (MESHES / path.name).read_bytes(), path.name
        assert path.stat().st_size < 2_000_000


@pytest.mark.parametrize("name", samples.SAMPLES)
def test_a_file_loads_as_the_mesh_that_was_written(name: str) -> None:
    loaded = trimesh.load_mesh(MESHES / f"{name}.obj", process=False, maintain_order=True)
    assert np.array_equal(loaded.vertices, mesh_of(name).vertices)
    assert np.array_equal(loaded.faces, mesh_of(name).faces)


@pytest.mark.parametrize("name", CLOSED)
def test_each_solid_mesh_is_one_closed_outward_surface_without_degenerate_faces(name: str) -> None:
    mesh = mesh_of(name)
    assert (edge_counts(mesh, directed=False) == 2).all()  # closed
    assert (edge_counts(mesh, directed=True) == 1).all()  # neighbours agree on which side is out
    assert mesh.volume > 0
    assert mesh.body_count == 1
    assert mesh.area_faces.min() > 1e-7
    assert len(np.unique(mesh.vertices, axis=0)) == len(np.unique(mesh.faces)) == len(mesh.vertices)


@pytest.mark.parametrize(("name", "genus"), GENUS.items())
def test_the_euler_number_counts_the_holes(name: str, genus: int) -> None:
    assert mesh_of(name).euler_number == 2 - 2 * genus


@pytest.mark.parametrize("name", CLOSED)
def test_vertices_lie_on_the_exact_surface_and_faces_look_outward(name: str) -> None:
    mesh, solid = mesh_of(name), solid_of(name)
    assert np.abs(solid.value(np.array(mesh.vertices))).max() < 5e-5  # 5 decimals are written
    middle, step = mesh.triangles_center, CELL[name] / 2 * mesh.face_normals
    assert solid.contains(middle - step).mean() > 0.999
    assert solid.contains(middle + step).mean() < 0.001


@pytest.mark.slow
@pytest.mark.parametrize("name", CLOSED)
def test_the_meshs_winding_number_agrees_with_the_exact_solid(name: str) -> None:
    solid = solid_of(name)
    points = points_in(solid.bounds, 200_000)
    exact, labels = solid.contains(points), winding_labels(mesh_of(name), points)
    assert iou(exact, labels) > (0.999 if name == "bracket" else 0.99)
    off = points[exact != labels]
    mesh = mesh_of(name)
    squared, _, _ = igl.point_mesh_squared_distance(off, np.array(mesh.vertices), np.array(mesh.faces))
    assert math.sqrt(squared.max()) < CELL[name] / 2


@pytest.mark.parametrize("name", CLOSED)
def test_the_bounds_contain_the_solid_with_room_around_it(name: str) -> None:
    lower, upper = solid_of(name).bounds
    assert (mesh_of(name).bounds[0] > lower).all()
    assert (mesh_of(name).bounds[1] < upper).all()
    wide = points_in(np.array([lower, upper]) * 4, 100_000)
    outside = ((wide < lower) | (wide > upper)).any(axis=1)
    assert not solid_of(name).contains(wide[outside]).any()


@pytest.mark.parametrize("name", CLOSED)
def test_a_value_is_finite_everywhere_and_continuous(name: str) -> None:
    solid = solid_of(name)
    assert np.isfinite(solid.value(np.array([[0, 0, 0], [1e3, -1e3, 1e3], [-1e-300, 0, 0]]))).all()
    points, step = points_in(solid.bounds, 50_000), 1e-6
    near = points + step * points_in(np.array([[-1] * 3, [1] * 3]), 50_000, seed=1)
    assert np.abs(solid.value(near) - solid.value(points)).max() < 5 * step


def test_labels_do_not_depend_on_the_batch_or_the_order() -> None:
    rng = np.random.default_rng(3)
    for solid in shapes.SOLIDS.values():
        points = points_in(solid.bounds, 20_011)
        whole, order = solid.contains(points), rng.permutation(len(points))
        assert np.array_equal(solid.contains(points[order]), whole[order])
        pieces = np.split(points, [1, 4, 1003, 17_000])
        assert np.array_equal(np.concatenate([solid.contains(piece) for piece in pieces]), whole)
        assert solid.contains(points[:0]).shape == (0,)


@pytest.mark.slow
def test_the_soup_is_broken_and_its_winding_number_is_right_all_the_same() -> None:
    soup, solid = mesh_of("soup"), solid_of("soup")
    assert (edge_counts(soup, directed=False) == 1).sum() > 300  # holes
    assert (edge_counts(soup, directed=True) > 1).sum() > 50  # patches inside out
    assert soup.body_count >= 4  # the patches laid over it and the ball inside
    points = points_in(solid.bounds, 200_000)
    agreement = iou(solid.contains(points), winding_labels(soup, points))
    assert 0.97 < agreement < iou(solid.contains(points), winding_labels(mesh_of("bunny"), points))


@settings(deadline=None, max_examples=25)
@given(radius=radii, seed=st.integers(0, 99))
def test_the_sphere_holds_its_volume(radius: float, seed: int) -> None:
    ball = shapes.sphere(radius, center=(1, -2, 3))
    share = ball.contains(points_in(ball.bounds, 40_000, seed)).mean()
    assert share == pytest.approx(math.pi / 6, abs=0.015)  # six standard deviations


@settings(deadline=None, max_examples=25)
@given(major=radii, ratio=st.floats(0.1, 0.95), seed=st.integers(0, 99))
def test_the_torus_holds_its_volume(major: float, ratio: float, seed: int) -> None:
    minor = ratio * major
    ring = shapes.torus(major, minor, center=(0, 1, 0))
    share = ring.contains(points_in(ring.bounds, 40_000, seed)).mean()
    volume = 2 * math.pi**2 * major * minor**2
    assert share == pytest.approx(volume / np.prod(np.ptp(ring.bounds, axis=0)), abs=0.015)


@settings(deadline=None, max_examples=25)
@given(radius=radii, half=radii, offset=st.floats(0, 0.5), smooth=st.floats(0.01, 0.3))
def test_solids_combine_as_sets_and_smoothing_only_fills_or_rounds(
    radius: float, half: float, offset: float, smooth: float
) -> None:
    assume(offset < radius + half - 1e-3)  # else they are apart, and their intersection is an error
    ball, cube = shapes.sphere(radius), shapes.box((half, half, half), center=(offset, 0, 0))
    points = points_in(np.array([[-1.5] * 3, [1.5] * 3]), 5000)
    in_ball, in_cube = ball.contains(points), cube.contains(points)
    for combine, expected, grows in (
        (shapes.union, in_ball | in_cube, True),
        (shapes.intersection, in_ball & in_cube, False),
        (shapes.difference, in_ball & ~in_cube, False),
    ):
        sharp, soft = combine(ball, cube), combine(ball, cube, smooth)
        assert np.array_equal(sharp.contains(points), expected)
        change = soft.value(points) - sharp.value(points)
        assert ((change if grows else -change) >= 0).all()
        assert np.abs(change).max() <= smooth / 4 + 1e-12
        inside = points[soft.contains(points)]
        assert ((inside >= soft.bounds[0]) & (inside <= soft.bounds[1])).all()


def test_errors_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="known ones are bunny, knot, gyroid, bracket, soup"):
        samples.sample_mesh("teapot")
    with pytest.raises(ValueError, match=r"shape \(n, 3\), got \(3, 5\)"):
        shapes.sphere(1).contains(np.zeros((3, 5)))
    with pytest.raises(ValueError, match="do not overlap"):
        shapes.intersection(shapes.sphere(1), shapes.sphere(1, center=(3, 0, 0)))


def test_a_samples_mesh_can_be_changed_without_changing_the_sample() -> None:
    first = samples.sample_mesh("bracket")
    first.vertices += 1
    assert np.array_equal(samples.sample_mesh("bracket").vertices, mesh_of("bracket").vertices)
