from itertools import product

import numpy as np
import pytest
import trimesh

import ff3d
from ff3d.closing.config import ClosingConfig, length_of
from ff3d.closing.flood import FloodOracle
from ff3d.closing.watertight import close, largest_distance, watertight
from ff3d.geometry.distances import NearestFaces
from ff3d.geometry.triangles import areas
from ff3d.labels.oracles import OpenSurfaceError, make_oracle
from ff3d.shapes.broken import broken_mesh
from ff3d.shapes.point_cloud import PointCloud
from ff3d.surfaces.grid_levels import ExtractionError


def ball(radius=1.0, at=(0, 0, 0), subdivisions=3):
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    mesh.apply_translation(at)
    return mesh


def box(*sides, at=(0, 0, 0)):
    mesh = trimesh.creation.box(extents=sides)
    mesh.apply_translation(at)
    return mesh


def joined(*meshes):
    return trimesh.util.concatenate(meshes)


def square(side, at=(0, 0, 0), pieces=1):
    """A sheet in the plane z = 0."""
    line = np.linspace(-side / 2, side / 2, pieces + 1)
    points = np.stack(np.meshgrid(line, line, [0.0], indexing="ij"), axis=-1).reshape(-1, 3) + at
    n = pieces + 1
    faces = [
        it
        for i in range(pieces)
        for j in range(pieces)
        for it in ((i * n + j, i * n + n + j, i * n + n + j + 1), (i * n + j, i * n + n + j + 1, i * n + j + 1))
    ]
    return trimesh.Trimesh(points, faces, process=False)


def without(mesh, gone):
    return trimesh.Trimesh(mesh.vertices, mesh.faces[~gone], process=False)


def check_closed(mesh):
    """Closed, edge-manifold, outward, and no face without area."""
    start, end = mesh.faces.ravel(), np.roll(mesh.faces, -1, axis=1).ravel()
    ahead = set(zip(start.tolist(), end.tolist(), strict=True))
    assert len(ahead) == len(start)
    assert ahead == set(zip(end.tolist(), start.tolist(), strict=True))
    assert areas(mesh.vertices[mesh.faces]).min() > 0
    assert mesh.volume > 0
    return mesh


def signed_distances(mesh, points):
    """Positive outside; mesh: closed."""
    away = NearestFaces(mesh)(points)[0]
    return np.where(make_oracle(mesh)(points), -away, away)


# ---------------------------------------------------------------------------------------------- what users report


def test_a_solid_stays_solid_and_becomes_no_hollow_double_shell():
    mesh = ball()
    closed = check_closed(watertight(mesh, resolution=48))
    assert closed.body_count == 1
    assert closed.volume == pytest.approx(mesh.volume, rel=2e-3)


def test_a_car_keeps_its_wheels():
    places = [(x, y, -0.4) for x in (-0.7, 0.7) for y in (-0.5, 0.5)]
    car = joined(box(2, 0.8, 0.4), *(ball(0.15, at, 2) for at in places))
    closed = check_closed(watertight(car, resolution=64))
    assert closed.body_count == 5
    assert closed.volume == pytest.approx(car.volume, rel=0.01)
    assert watertight(car, resolution=64, drop_floaters=0.1).body_count == 1


def test_a_mesh_without_sharp_edges_is_closed_like_any_other():
    mesh = ball(subdivisions=5)
    assert np.degrees(mesh.face_adjacency_angles.max()) < 5
    assert check_closed(watertight(mesh, resolution=32)).volume == pytest.approx(mesh.volume, rel=5e-3)


def test_a_gap_of_two_cells_stays_open_and_a_wall_of_two_cells_stays():
    cell = 1 / 64
    plates = joined(box(1, 1, 2.2 * cell), box(1, 1, 2.2 * cell, at=(0, 0, 4.4 * cell)))
    closed = check_closed(watertight(plates, resolution=64))
    assert closed.body_count == 2
    assert closed.volume == pytest.approx(plates.volume, rel=0.01)


@pytest.mark.parametrize("name", ["ball", "bracket"])
def test_nothing_grows_vertices_lie_on_the_surface_and_faces_about_as_far_outside_as_inside(name):
    mesh = ball() if name == "ball" else ff3d.sample_mesh("bracket")
    found = close(mesh, ClosingConfig(resolution=64))
    assert np.abs(signed_distances(mesh, np.asarray(found.mesh.vertices))).max() < 0.02 * found.cell
    points, _ = trimesh.sample.sample_surface(check_closed(found.mesh), 20_000, seed=0)
    assert abs(signed_distances(mesh, points).mean()) < 0.015 * found.cell
    assert found.mesh.volume == pytest.approx(mesh.volume, rel=5e-3)


def test_no_spike_stands_out_where_faces_are_missing_flipped_or_doubled():
    solid, rng = ball(), np.random.default_rng(0)
    lot = rng.random(len(solid.faces))
    faces = np.where((lot < 0.1)[:, None], solid.faces[:, ::-1], solid.faces)
    faces = np.concatenate([faces[lot < 0.98], faces[(lot > 0.5) & (lot < 0.6)]])
    found = close(trimesh.Trimesh(solid.vertices, faces, process=False), ClosingConfig(resolution=48))
    assert largest_distance(check_closed(found.mesh), solid) < found.cell / 2


def test_indices_beyond_32_bits_are_as_good_as_small_ones():
    # 2048^3 grid points are 2^33; what lies at the far corner is the twin of what lies at the near one
    radius, far = 16 / 2048, 1 - 32 / 2048
    twins = joined(ball(radius, subdivisions=2), ball(radius, (far, far, far), 2))
    near, away = check_closed(watertight(twins, resolution=2048)).split()
    assert near.volume == pytest.approx(away.volume, rel=1e-3)
    assert near.volume == pytest.approx(ball(radius, subdivisions=2).volume, rel=5e-3)


# ---------------------------------------------------------------------------------------------- broken meshes


def broken(kind):
    mesh = ball()
    up = mesh.triangles_center[:, 2]
    if kind == "a hole":
        return without(mesh, up > 0.97)
    if kind == "flipped faces":
        faces = np.where((up > 0.5)[:, None], mesh.faces[:, ::-1], mesh.faces)
        return trimesh.Trimesh(mesh.vertices, faces, process=False)
    if kind == "inside out":
        return trimesh.Trimesh(mesh.vertices, mesh.faces[:, ::-1], process=False)
    if kind == "doubled faces":
        return trimesh.Trimesh(mesh.vertices, np.concatenate([mesh.faces, mesh.faces[up > 0]]), process=False)
    if kind == "loose triangles":
        return trimesh.Trimesh(mesh.vertices[mesh.faces].reshape(-1, 3), np.arange(3840).reshape(-1, 3), process=False)
    inner = ball(0.5)
    return joined(mesh, inner)  # a part within another


@pytest.mark.parametrize(
    "kind", ["a hole", "flipped faces", "inside out", "doubled faces", "loose triangles", "a part inside"]
)
def test_a_broken_ball_is_closed_as_the_ball(kind):
    closed = check_closed(watertight(broken(kind), resolution=48))
    assert closed.body_count == 1
    assert closed.volume == pytest.approx(ball().volume, rel=0.01)


def test_overlapping_parts_become_one_without_the_walls_between():
    closed = check_closed(watertight(joined(box(1, 1, 1), box(1, 1, 1, at=(0.5, 0.1, 0.1))), resolution=60))
    assert closed.body_count == 1
    assert closed.volume == pytest.approx(2 - 0.5 * 0.9 * 0.9, rel=2e-3)


@pytest.mark.parametrize("seed", [1, 4, 9, 17])
def test_broken_meshes_come_out_as_the_solid_that_they_stand_for(seed):
    case = broken_mesh(seed)
    closed = check_closed(watertight(case.mesh, resolution=64))
    low, high = closed.bounds
    points = np.random.default_rng(0).uniform(low, high, (20_000, 3))
    inside, true = make_oracle(closed)(points), case.contains(points)
    assert (inside & true).sum() >= 0.95 * (inside | true).sum()


def test_the_membrane_over_a_hole_is_as_smooth_as_the_winding_number():
    # of a convex solid, the winding number is 1/2 all over the plane of a hole in its flat side
    solid = box(1, 1, 1).subdivide().subdivide()
    mesh = without(solid, solid.triangles_center[:, 2] > 0.49)
    found = close(mesh, ClosingConfig(resolution=40))
    check_closed(found.mesh)
    vertices = np.asarray(found.mesh.vertices)
    top = vertices[(vertices[:, 2] > 0.4) & (np.abs(vertices[:, :2]) < 0.45).all(axis=1)]
    assert len(top) > 1000
    assert np.abs(top[:, 2] - 0.5).max() < found.cell / 16


@pytest.mark.parametrize(("scale", "shift"), [(1e-6, 0.0), (1e5, 0.0), (1.0, 1e4), (1e-3, 7.0)])
def test_the_result_lies_in_the_inputs_coordinates_whatever_its_size_and_place(scale, shift):
    mesh = ball()
    moved = trimesh.Trimesh(mesh.vertices * scale + shift, mesh.faces, process=False)
    closed = check_closed(watertight(moved, resolution=32))
    assert closed.volume == pytest.approx(mesh.volume * scale**3, rel=5e-3)
    np.testing.assert_allclose(closed.bounds, moved.bounds, atol=0.1 * scale)


def test_the_same_call_gives_the_same_mesh_first_or_last():
    mesh = broken("a hole")
    first, again = (watertight(mesh, resolution=32) for _ in range(2))
    assert np.array_equal(first.vertices, again.vertices)
    assert np.array_equal(first.faces, again.faces)


def test_sparse_and_dense_extraction_close_alike():
    # past 128 cells the cell grid guides; a thin spike is between the points of the coarse grid
    spike = box(0.02, 0.02, 0.4, at=(0.3, 0.3, 0.6))
    closed = check_closed(watertight(joined(box(1, 1, 1), spike), resolution=150))
    assert closed.volume == pytest.approx(1 + 0.02**2 * 0.3, rel=1e-3)
    assert closed.bounds[1, 2] == pytest.approx(0.8, abs=0.01)


def test_an_oriented_point_cloud_is_closed():
    points, face = trimesh.sample.sample_surface(ball(subdivisions=5), 4000, seed=1)
    cloud = PointCloud(points, ball(subdivisions=5).face_normals[face])
    closed = check_closed(watertight(cloud, resolution=40))
    assert closed.volume == pytest.approx(4 / 3 * np.pi, rel=0.03)
    labelled = check_closed(watertight(cloud, resolution=40, oracle=lambda it: np.linalg.norm(it, axis=1) < 1))
    assert labelled.volume == pytest.approx(4 / 3 * np.pi, rel=0.01)
    with pytest.raises(ValueError, match="a point cloud has no faces to be sharp or moved by"):
        watertight(cloud, resolution=40, offset=0.1, oracle=lambda it: np.linalg.norm(it, axis=1) < 1)


def test_labels_of_ones_own_decide():
    mesh = joined(ball(), ball(0.3, at=(3, 0, 0)))
    closed = watertight(mesh, resolution=48, oracle=lambda points: np.linalg.norm(points, axis=1) < 1)
    assert check_closed(closed).body_count == 1
    assert closed.volume == pytest.approx(4 / 3 * np.pi, rel=0.02)


# ---------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("error", [0.02, "1%"])
def test_the_error_that_was_allowed_is_met(error):
    mesh = box(1, 2, 1)
    found = close(mesh, ClosingConfig(error=error))
    assert check_closed(found.mesh)
    assert largest_distance(mesh, found.mesh) <= 0.02
    assert NearestFaces(found.mesh)(np.asarray(mesh.vertices))[0].max() <= 0.02


def test_an_error_that_cannot_be_met_is_refused_with_what_was_reached(monkeypatch):
    monkeypatch.setattr("ff3d.closing.watertight.FINEST", 64)
    with pytest.raises(ValueError, match=r"an error of 0.001 is not met at resolution \d+"):
        watertight(box(1, 1, 1), error=0.001)


def test_cavities_stay_or_are_filled_with_what_floats_in_them():
    hollow = ball(0.6)
    hollow.invert()
    mesh = joined(ball(), hollow, ball(0.3), ball(0.3, at=(2, 0, 0)))
    kept = check_closed(watertight(mesh, resolution=64))
    assert kept.body_count == 4
    assert kept.volume == pytest.approx(mesh.volume, rel=0.01)
    filled = check_closed(watertight(mesh, resolution=64, cavities="fill"))
    assert filled.body_count == 2
    assert filled.volume == pytest.approx(ball().volume + ball(0.3).volume, rel=0.01)


@pytest.mark.parametrize("offset", [0.1, "5%", -0.1])
def test_an_offset_moves_the_surface_by_that_distance(offset):
    a, b, c = 1.0, 2.0, 1.0
    closed = check_closed(watertight(box(a, b, c), resolution=64, offset=offset))
    if offset == -0.1:
        expected = (a - 0.2) * (b - 0.2) * (c - 0.2)
    else:  # Steiner's formula
        d = 0.1
        expected = a * b * c + 2 * (a * b + b * c + c * a) * d + np.pi * d**2 * (a + b + c) + 4 / 3 * np.pi * d**3
    assert closed.volume == pytest.approx(expected, rel=0.01)


def test_a_small_part_hidden_in_a_solid_is_not_hollowed_out_by_an_inward_offset():
    hidden = joined(box(1.0, 1.0, 1.0), box(0.01, 0.01, 0.01))
    closed = check_closed(watertight(hidden, resolution=64, offset=-0.1))
    assert closed.body_count == 1
    assert closed.volume == pytest.approx(0.8**3, rel=0.01)


def test_a_simplified_result_is_closed():
    closed = check_closed(watertight(ball(), resolution=48, simplify=500))
    assert len(closed.faces) <= 500
    fewer = check_closed(watertight(box(1, 1, 1), resolution=32, simplify_error="0.5%"))
    assert len(fewer.faces) < 2000


def test_a_shape_thinner_than_a_cell_is_no_empty_mesh_but_an_error():
    with pytest.raises(ExtractionError, match="nothing is inside"):
        watertight(box(1, 1, 0.001), resolution=20)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"resolution": 0}, "resolution must be a whole number of at least 1, got 0"),
        ({"resolution": 64, "error": 0.1}, "give either resolution or error"),
        ({"error": "x%"}, "expected a length"),
        ({"error": -1}, "error must be above 0, got -1"),
        ({"offset": "nan"}, "expected a length"),
        ({"cavities": "maybe"}, "unknown cavities 'maybe'; known: keep, fill"),
        ({"sheets": "thicken"}, "go together"),
        ({"thickness": 0.1}, "go together"),
        ({"drop_floaters": 1.5}, "a share of the volume"),
        ({"simplify": 3}, "simplify must be a whole number of at least 4"),
        ({"simplify": 100, "simplify_error": 0.1}, "give either simplify or simplify_error"),
    ],
)
def test_options_that_mean_nothing_are_refused_by_name(options, reason):
    with pytest.raises(ValueError, match=reason):
        watertight(box(1, 1, 1), **options)


def test_lengths_are_input_units_or_per_cent():
    assert length_of(0.25, 40) == length_of("0.25", 40) == 0.25
    assert length_of("-0.5%", 40) == -0.2


# ---------------------------------------------------------------------------------------------- sheets


def slab_volume(side, thickness):
    """All points nearer than half a thickness to a square."""
    r = thickness / 2
    return side**2 * thickness + 4 * side * np.pi * r**2 / 2 + 4 / 3 * np.pi * r**3


def test_a_sheet_is_refused_by_name():
    with pytest.raises(OpenSurfaceError, match="an open surface that encloses nothing"):
        watertight(square(1, pieces=4))


def test_a_sheet_is_thickened_to_a_slab():
    closed = check_closed(watertight(square(1, pieces=3), resolution=64, sheets="thicken", thickness=0.1))
    assert closed.volume == pytest.approx(slab_volume(1, 0.1), rel=0.01)


def test_a_tree_keeps_its_trunk_solid_and_its_leaves_thin():
    leaves = [square(0.4, at=(0.5, 0, z), pieces=2) for z in (0.2, 0.6)]
    leaves[1].invert()
    two_sided = square(0.4, at=(-0.5, 0, 0.5))
    two_sided = trimesh.Trimesh(
        two_sided.vertices, np.concatenate([two_sided.faces, two_sided.faces[:, ::-1]]), process=False
    )
    trunk = box(0.3, 0.3, 2)
    scan = ball(0.3, at=(0, 1, 0))  # with a hole: its sides are told apart all the same
    scan = without(scan, scan.triangles_center[:, 2] > 0.28)
    tree = joined(trunk, *leaves, two_sided, scan)
    made = close(tree, ClosingConfig(resolution=96, sheets="thicken", thickness=0.06))
    assert largest_distance(made.mesh, made.surface) < 0.1  # also from the slabs, which follow the leaves
    closed = check_closed(made.mesh)
    assert closed.body_count == 5
    expected = 0.3 * 0.3 * 2 + 3 * slab_volume(0.4, 0.06) + ball(0.3).volume
    assert closed.volume == pytest.approx(expected, rel=0.02)


def test_a_slab_thinner_than_two_cells_is_refused_with_the_resolution_that_it_needs():
    with pytest.raises(ValueError, match="take a resolution of at least 200"):
        watertight(square(1), resolution=64, sheets="thicken", thickness=0.01)


def walls_of_a_room(length):
    rng = np.random.default_rng(0)
    walls = []
    for axis in range(3):
        for side in (-0.5, 0.5):
            wall = square(length, pieces=3)
            wall.apply_transform(trimesh.geometry.align_vectors([0, 0, 1], np.eye(3)[axis]))
            wall.apply_translation(side * np.eye(3)[axis])
            turned = rng.random(len(wall.faces)) < 0.5
            wall.faces = np.where(turned[:, None], wall.faces[:, ::-1], wall.faces)
            walls.append(wall)
    return joined(*walls)


def test_a_room_of_loose_walls_with_slits_is_filled_and_what_cuts_nothing_off_is_left_out():
    room = joined(walls_of_a_room(0.985), square(0.4, at=(1.2, 0, 0)))  # a slit all round each wall
    closed = check_closed(watertight(room, resolution=60, sheets="fill"))
    assert closed.body_count == 1
    assert closed.volume == pytest.approx(1, rel=0.04)


def test_what_sheets_cut_off_has_sharp_edges():
    room, corners = walls_of_a_room(0.998), np.array(list(product((-0.5, 0.5), repeat=3)))
    away = {}
    for sharp in (False, True):
        closed = check_closed(watertight(room, resolution=30, sheets="fill", sharp=sharp))
        away[sharp] = 30 * NearestFaces(closed)(corners)[0].max()
    assert away[True] < 0.1 < away[False]


def test_slabs_alone_have_no_edges_to_be_sharp():
    with pytest.raises(ValueError, match="slabs have no sharp edges"):
        watertight(square(1, pieces=3), resolution=64, sheets="thicken", thickness=0.1, sharp=True)


@pytest.mark.parametrize("walls", [10**7, 3000, 300])
def test_a_flood_is_right_in_however_large_cells(monkeypatch, walls):
    monkeypatch.setattr("ff3d.closing.flood.WALLS", walls)
    sealed, points = box(1, 1, 1), np.array([[0, 0, 0], [0.3, -0.3, 0.3], [0, 0, 0.7], [-0.7, 0, 0], [0.6, 0.6, 0.6]])
    assert FloodOracle(sealed, 1 / 100)(points).tolist() == [True, True, False, False, False]
    for axis in range(3):
        for side in (-1, 1):
            cup = without(sealed, side * sealed.triangles_center[:, axis] > 0.49)
            assert not FloodOracle(cup, 1 / 100)(points).any()


def test_a_sheet_that_cuts_nothing_off_is_not_filled_to_nothing_but_refused():
    with pytest.raises(OpenSurfaceError, match="cut nothing off"):
        watertight(square(1, pieces=2), resolution=24, sheets="fill")


def test_solid_parts_and_holes_are_what_they_were_when_sheets_are_filled():
    mesh = joined(broken("a hole"), square(1, at=(3, 0, 0)))
    closed = check_closed(watertight(mesh, resolution=64, sheets="fill"))
    assert closed.volume == pytest.approx(ball().volume, rel=0.02)
