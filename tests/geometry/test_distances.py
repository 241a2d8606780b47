"""Truncated distances: against formulas, libigl, and a plain twin over all triangles."""

import igl
import numpy as np
import pytest
import trimesh

from ff3d.geometry import distances as distance
from ff3d.geometry.coordinates import UnitCube, grown_box
from ff3d.geometry.distances import TruncatedDistance
from ff3d.geometry.hidden_walls import separating_surface
from ff3d.geometry.sampling import SampleMix
from ff3d.labels.oracles import make_oracle

ROUNDING = 1e-6


def plain_distance(points, vertices, faces):
    """The slow twin: the least distance to any triangle, (n,), in float64, over all of them."""
    a, b, c = np.moveaxis(np.asarray(vertices, dtype=np.float64)[np.asarray(faces)], 1, 0)
    least = np.full(len(points), np.inf)
    for one, other in ((a, b), (b, c), (c, a)):
        edge = other - one
        length = np.einsum("fd,fd->f", edge, edge)
        share = np.einsum("nfd,fd->nf", points[:, None] - one, edge) / np.where(length > 0, length, 1)
        foot = one + np.clip(share, 0, 1)[..., None] * edge
        least = np.minimum(least, np.linalg.norm(points[:, None] - foot, axis=2).min(axis=1, initial=np.inf))
    normal = np.cross(b - a, c - a)
    size = np.linalg.norm(normal, axis=1)
    above = np.ones((len(points), len(a)), dtype=bool) & (size > 0)
    for one, other in ((a, b), (b, c), (c, a)):
        above &= np.einsum("nfd,fd->nf", points[:, None] - one, np.cross(normal, other - one)) >= 0
    height = np.abs(np.einsum("nfd,fd->nf", points[:, None] - a, normal)) / np.where(size > 0, size, 1)
    return np.minimum(least, np.where(above, height, np.inf).min(axis=1, initial=np.inf))


def soup(rng, faces, size):
    corners = rng.random((faces, 1, 3)) + size * rng.standard_normal((faces, 3, 3))
    return corners.reshape(-1, 3), np.arange(3 * faces).reshape(-1, 3)


@pytest.fixture(scope="module")
def sphere():
    return trimesh.creation.icosphere(subdivisions=4)


@pytest.fixture(scope="module")
def near_sphere(sphere):
    rng = np.random.default_rng(0)
    return SampleMix(0.3, (0.001, 0.01)).draw(sphere, grown_box(sphere, 0.1), 2.0, 50_000, rng)


@pytest.mark.parametrize("reach", [0.004, 0.02, 0.3])
def test_distances_are_those_of_libigl_up_to_the_reach(sphere, near_sphere, reach):
    found = TruncatedDistance(sphere.vertices, sphere.faces, reach)(near_sphere)
    exact = np.sqrt(igl.point_mesh_squared_distance(near_sphere, sphere.vertices, sphere.faces.astype(np.int64))[0])
    assert found.dtype == np.float32
    assert np.abs(found - np.minimum(exact, reach)).max() < 2 * ROUNDING  # the sphere is 2 wide


def test_a_box_has_the_distances_of_its_formula():
    box = trimesh.creation.box(extents=(2.0, 1.0, 0.5))
    points = np.random.default_rng(1).uniform(-1.3, 1.3, (100_000, 3))
    q = np.abs(points) - (1.0, 0.5, 0.25)
    exact = np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)
    signed = TruncatedDistance(box.vertices, box.faces, 0.1).signed(points, make_oracle(box))
    assert np.abs(signed - np.clip(-exact, -0.1, 0.1)).max() < 2 * ROUNDING
    assert ((signed > 0) == (exact < 0)).all()


@pytest.mark.slow
@pytest.mark.parametrize("size", [0.003, 0.05, 0.7])
@pytest.mark.parametrize("reach", [0.01, 0.2, 5.0])
def test_any_soup_of_triangles_agrees_with_the_plain_twin(size, reach):
    rng = np.random.default_rng([int(1000 * size), int(1000 * reach)])
    vertices, faces = soup(rng, 200, size)
    on_surface = vertices.reshape(-1, 3, 3).mean(axis=1)[rng.integers(200, size=2000)]
    points = np.concatenate([on_surface + 0.01 * rng.standard_normal((2000, 3)), rng.uniform(-0.5, 1.5, (2000, 3))])
    found = TruncatedDistance(vertices, faces, reach)(points)
    exact = np.minimum(plain_distance(points, vertices, faces), reach)
    assert np.abs(found - exact).max() < ROUNDING * max(np.ptp(vertices, axis=0).max(), reach)


@pytest.mark.slow
@pytest.mark.parametrize("far", [0.0, 1e6])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_size_and_place_of_the_mesh_do_not_matter(sphere, near_sphere, scale, far):
    where = far * scale * np.ones(3)
    plain = TruncatedDistance(sphere.vertices, sphere.faces, 0.02)(near_sphere)
    moved = TruncatedDistance(sphere.vertices * scale + where, sphere.faces, 0.02 * scale)(near_sphere * scale + where)
    assert np.abs(moved / scale - plain).max() < 2 * ROUNDING


def test_reach_and_answers_are_in_units(sphere, near_sphere):
    inputs = TruncatedDistance(sphere.vertices, sphere.faces, 0.02)(near_sphere)
    unit = UnitCube.padded(sphere.vertices).scale
    units = TruncatedDistance(sphere.vertices, sphere.faces, 0.02 / unit, unit=unit)(near_sphere)
    assert np.allclose(units * unit, inputs, rtol=0, atol=ROUNDING)


def test_beyond_the_reach_the_answer_is_the_reach_exactly(sphere):
    directions = np.random.default_rng(2).standard_normal((2000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for reach in (0.004, 0.0137, 0.1):
        distance_to = TruncatedDistance(sphere.vertices, sphere.faces, reach)
        for radius in (0.0, 0.85, 1 + 1.01 * reach, 2.0, 1e30):
            assert (distance_to(radius * directions) == np.float32(reach)).all()


def test_the_sign_is_the_oracles_alone(sphere, near_sphere):
    distance_to = TruncatedDistance(sphere.vertices, sphere.faces, 0.02)
    inside = np.random.default_rng(3).random(len(near_sphere)) < 0.5
    signed = distance_to.signed(near_sphere, lambda points: inside[: len(points)])
    assert (np.abs(signed) == distance_to(near_sphere)).all()
    assert (np.signbit(signed) == ~inside).all()


@pytest.mark.parametrize(
    "corners",
    [
        [[0, 0, 0], [1, 0, 0], [0, 1, 0]],
        [[0, 0, 0], [1, 0, 0], [0.4, 1e-9, 0]],  # nearly a segment
        [[0, 0, 0], [1, 0, 0], [0.3, 0, 0]],  # a segment, its ends first
        [[0.3, 0.1, 0.2], [0, 0, 0], [0.9, 0.3, 0.6]],  # the corner in its middle first
        [[0, 0, 0], [0, 0, 0], [1, 1, 1]],  # two corners alike
        [[0.2, 0.3, 0.4]] * 3,  # a point
        [[0, 0, 0], [100, 0, 0], [50, 1e-3, 0]],  # a needle
    ],
)
def test_one_triangle_of_any_shape(corners):
    rng = np.random.default_rng(4)
    size = max(1.0, float(np.ptp(corners, axis=0).max()))
    points = rng.uniform(-0.3, 1.3, (5000, 3)) * size
    points[:2000] = rng.dirichlet((0.5, 0.5, 0.5), 2000) @ np.array(corners) + 0.01 * rng.standard_normal((2000, 3))
    points[:3] = corners
    found = TruncatedDistance(corners, [[0, 1, 2]], 0.5)(points)
    exact = np.minimum(plain_distance(points, corners, [[0, 1, 2]]), 0.5)
    assert np.abs(found - exact).max() < ROUNDING * size


def test_degenerate_faces_among_others_count_as_what_they_are():
    rng = np.random.default_rng(5)
    vertices, faces = soup(rng, 300, 0.1)
    faces[:100, 2] = faces[:100, 0]
    faces[100:150] = faces[100:150, :1]
    points = rng.uniform(-0.2, 1.2, (3000, 3))
    found = TruncatedDistance(vertices, faces, 0.1)(points)
    assert np.abs(found - np.minimum(plain_distance(points, vertices, faces), 0.1)).max() < 2 * ROUNDING


def test_no_faces_are_further_than_the_reach_from_everywhere():
    distance_to = TruncatedDistance(np.zeros((3, 3)), np.zeros((0, 3), dtype=int), 0.01)
    assert distance_to(np.zeros((4, 3))).tolist() == [np.float32(0.01)] * 4


def test_no_points_have_no_distances(sphere):
    distance_to = TruncatedDistance(sphere.vertices, sphere.faces, 0.01)
    assert distance_to(np.zeros((0, 3))).shape == (0,)
    assert distance_to.signed(np.zeros((0, 3)), make_oracle(sphere)).shape == (0,)


def test_order_company_and_chunks_do_not_matter(sphere, near_sphere, monkeypatch):
    distance_to = TruncatedDistance(sphere.vertices, sphere.faces, 0.02)
    together = distance_to(near_sphere)
    order = np.random.default_rng(6).permutation(len(near_sphere))
    assert (distance_to(near_sphere[order]) == together[order]).all()
    assert (distance_to(near_sphere[:1]) == together[:1]).all()
    monkeypatch.setattr(distance, "CHUNK", 1000)
    monkeypatch.setattr(distance, "BATCH", 301)
    assert (distance_to(near_sphere) == together).all()
    assert (TruncatedDistance(sphere.vertices, sphere.faces, 0.02)(near_sphere) == together).all()


def test_lists_that_would_grow_too_long_leave_the_cells_larger(sphere, near_sphere, monkeypatch):
    fine = TruncatedDistance(sphere.vertices, sphere.faces, 0.02)
    monkeypatch.setattr(distance, "ENTRIES", 10_000)
    monkeypatch.setattr(distance, "ENTRIES_PER_FACE", 1)
    coarse = TruncatedDistance(sphere.vertices, sphere.faces, 0.02)
    assert coarse._cell > fine._cell
    assert np.abs(coarse(near_sphere) - fine(near_sphere)).max() < ROUNDING


@pytest.mark.parametrize(("reach", "unit"), [(0.0, 1.0), (-1.0, 1.0), (np.nan, 1.0), (np.inf, 1.0), (1.0, 0.0)])
def test_a_reach_or_unit_that_is_not_positive_is_refused(sphere, reach, unit):
    with pytest.raises(ValueError, match="positive"):
        TruncatedDistance(sphere.vertices, sphere.faces, reach, unit=unit)


def test_what_is_not_finite_is_refused(sphere):
    with pytest.raises(ValueError, match="finite"):
        TruncatedDistance([[0, 0, 0], [1, 0, 0], [0, np.nan, 0]], [[0, 1, 2]], 0.1)
    with pytest.raises(ValueError, match="finite"):
        TruncatedDistance(sphere.vertices, sphere.faces, 0.1)([[0.0, np.inf, 0.0]])
    with pytest.raises(ValueError, match="transpose"):
        TruncatedDistance(sphere.vertices, sphere.faces, 0.1)(np.zeros((3, 100)))


def test_what_parts_inside_from_outside_is_left_as_it_is(sphere):
    assert separating_surface(sphere, make_oracle(sphere), 0.01) is sphere
    box = trimesh.creation.box()
    assert separating_surface(box, make_oracle(box), 0.01) is box
    assert separating_surface(box, lambda points: np.ones(len(points), dtype=bool), 0.01) is box
    empty = trimesh.Trimesh()
    assert separating_surface(empty, make_oracle(box), 0.01) is empty


@pytest.mark.parametrize("size", [0.02, 0.005])
def test_of_overlapping_boxes_the_surface_of_the_union_is_left(size):
    one, other = trimesh.creation.box(), trimesh.creation.box((0.7, 1.3, 0.9))
    other.apply_translation((0.43, 0.31, 0.22))
    both = trimesh.util.concatenate([one, other])
    kept = separating_surface(both, make_oracle(both), size)
    union = trimesh.boolean.union([one, other], engine="manifold")
    # what is too much or too little lies along the curve where the boxes meet, under 8 long
    assert abs(kept.area - union.area) < 4 * size
    points = np.random.default_rng(0).uniform(-0.5, 0.9, (20_000, 3))
    found, exact = (TruncatedDistance(mesh.vertices, mesh.faces, 0.2)(points) for mesh in (kept, union))
    assert np.abs(found - exact).max() < size


def test_a_wall_and_a_degenerate_face_within_a_solid_are_left_out():
    box = trimesh.creation.box()
    wall = np.array([[[0, -0.3, -0.3], [0, 0.3, -0.3], [0, 0, 0.3]], [[0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0]]])
    corners = np.concatenate([box.triangles, wall]).reshape(-1, 3)
    mesh = trimesh.Trimesh(corners, np.arange(len(corners)).reshape(-1, 3), process=False)
    kept = separating_surface(mesh, make_oracle(box), 0.01)
    assert np.isclose(kept.area, 6)
    assert np.isclose(np.abs(kept.triangles).max(axis=2), 0.5).all()


@pytest.mark.slow
def test_labels_that_make_no_sense_end_too():
    rng = np.random.default_rng(0)
    vertices, faces = soup(rng, 2000, 0.3)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    kept = separating_surface(mesh, lambda points: rng.random(len(points)) < 0.5, 1e-4)
    assert np.isfinite(kept.vertices).all()
