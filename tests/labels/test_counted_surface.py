import json
import logging

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

import ff3d
from ff3d.geometry.coordinates import UnitCube, groups_apart
from ff3d.geometry.triangles import has_area
from ff3d.labels.counted_surface import cloud_without_strays
from ff3d.labels.oracles import OpenSurfaceError, load_surface, make_oracle
from ff3d.labels.winding_number import WindingNumberOracle
from ff3d.points.test_sets import TEST_KINDS, test_points
from ff3d.shapes.point_cloud import PointCloud

# corners, and whether they are shares of how far away the ball is
STRAYS = {
    "a point": ([[0, 0, 0], [0, 0, 0], [0, 0, 0]], False),
    "two corners": ([[0, 0, 0], [1, 2, 3], [1, 2, 3]], False),
    "a line": ([[0, 0, 0], [1, 1, 1], [2, 2, 2]], False),
    "a small triangle": ([[0, 0, 0], [1, 0, 0], [0, 1, 0]], False),
    "a long line": ([[0, 0, 0], [0.5, 0.5, 0.5], [0.9, 0.9, 0.9]], True),
    "a long sliver": ([[0, 0, 0], [0.5, 0.5, 0.5 + 1e-9], [0.9, 0.9, 0.9]], True),
    "a large triangle": ([[0, 0, 0], [0.5, 0, 0], [0, 0.5, 0]], True),
}
FAR = (10.0, 500.0, 1e6)


def ball(away=0.0, subdivisions=3):
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    mesh.apply_translation([away] * 3)
    return mesh


def with_stray(mesh, corners):
    count = len(mesh.vertices)
    faces = np.concatenate([mesh.faces, [[count, count + 1, count + 2]]])
    return trimesh.Trimesh(np.concatenate([mesh.vertices, corners]), faces, process=False)


def stray(name, away):
    corners, in_shares = STRAYS[name]
    return np.array(corners, dtype=np.float64) * (away if in_shares else 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("away", FAR)
@pytest.mark.parametrize("name", STRAYS)
def test_a_stray_facet_far_from_a_ball_changes_neither_box_nor_labels_nor_samples(name, away):
    alone, both = ball(away), with_stray(ball(away), stray(name, away))
    surface = load_surface(both)
    np.testing.assert_array_equal(surface.mesh.bounds, alone.bounds)
    np.testing.assert_array_equal(surface.mesh.triangles, alone.triangles)
    assert surface.oracle.cube == UnitCube.padded(alone.vertices)
    points = np.random.default_rng(0).uniform(away - 1.2, away + 1.2, (20_000, 3))
    expected = make_oracle(alone)(points)
    assert expected.mean() > 0.2
    assert np.array_equal(surface.oracle(points), expected)
    assert np.array_equal(make_oracle(both)(points), expected)
    assert not surface.oracle(stray(name, away) + 1e-3).any()
    for kind in TEST_KINDS:
        found, expected_set = test_points(both, kind, count=2000), test_points(alone, kind, count=2000)
        np.testing.assert_array_equal(found.points, expected_set.points)
        assert np.array_equal(found.occupancy, expected_set.occupancy)


def test_what_is_left_out_is_said_with_its_place_and_distance(caplog):
    with caplog.at_level(logging.WARNING, logger="ff3d"):
        surface = load_surface(with_stray(ball(500), stray("a small triangle", 500)))
    [note] = surface.notes
    assert note.startswith("1 face(s) at (0.5, 0.5, 0), 863.")
    assert note.endswith("which enclose nothing: left out of labels and box")
    assert note in caplog.text
    [report] = ff3d.inspect_mesh(with_stray(ball(500), stray("a small triangle", 500))).far
    assert (report.count, report.center) == (1, (0.5, 0.5, 0.0))
    assert report.distance == pytest.approx(np.sqrt(498**2 * 2 + 499**2), rel=1e-3)


@pytest.mark.parametrize("name", ["a point", "a line", "a long line"])
def test_inspect_takes_the_box_from_faces_with_area(name):
    report = ff3d.inspect_mesh(with_stray(ball(500), stray(name, 500)))
    np.testing.assert_allclose(report.extents, [2, 2, 2])
    assert report.volume == pytest.approx(ball().volume)
    assert report.degenerate_faces == 1


def test_a_far_part_that_is_closed_stays_and_is_named():
    speck = trimesh.creation.box((1e-3,) * 3)
    both = trimesh.util.concatenate([ball(500), speck])
    surface = load_surface(both)
    assert surface.mesh is both
    assert surface.oracle([[0.0, 0.0, 0.0]]).all()
    [far] = ff3d.inspect_mesh(both).far
    assert (far.count, far.center) == (12, (0.0, 0.0, 0.0))


def test_a_body_in_two_parts_far_apart_is_all_surface():
    both = trimesh.util.concatenate([ball(0), ball(100)])
    assert load_surface(both).mesh is both
    assert ff3d.inspect_mesh(both).far == ()


def test_of_many_strays_all_go_and_some_are_named():
    rng = np.random.default_rng(0)
    mesh = ball()
    for place in rng.uniform(-1000, 1000, (40, 3)):
        mesh = with_stray(mesh, place + rng.uniform(-1, 1, (3, 3)))
    surface = load_surface(mesh)
    np.testing.assert_array_equal(surface.mesh.bounds, ball().bounds)
    assert len(surface.notes) == 6
    assert surface.notes[-1].startswith("35 more parts")


def test_strays_at_every_scale_go_one_after_the_other():
    mesh = ball()
    for power in range(1, 9):
        mesh = with_stray(mesh, np.array([10.0**power, 0, 0]) + np.eye(3))
    np.testing.assert_array_equal(load_surface(mesh).mesh.bounds, ball().bounds)


@pytest.mark.parametrize("turned", [False, True])
def test_a_ball_on_a_large_ground_sheet_is_labelled_and_boxed_by_itself(turned):
    ground = trimesh.Trimesh([[-20, -20, -1], [20, -20, -1], [20, 20, -1], [-20, 20, -1]], [[0, 1, 2], [0, 2, 3]])
    if turned:
        ground.invert()
    surface = load_surface(trimesh.util.concatenate([ball(), ground]))
    np.testing.assert_array_equal(surface.mesh.bounds, ball().bounds)
    points = np.random.default_rng(0).uniform(-3, 3, (20_000, 3))
    assert np.array_equal(surface.oracle(points), make_oracle(ball())(points))
    assert "2 face(s) of sheets about (0, 0, -1)" in surface.notes[0]


def test_a_ground_of_loose_triangles_goes_piece_by_piece_and_is_said_in_few_lines():
    ground = trimesh.creation.box((40, 40, 1)).subdivide().subdivide()
    ground.update_faces(ground.face_normals[:, 2] > 0.5)
    corners = ground.triangles.reshape(-1, 3) - [0, 0, 1.6] + np.random.default_rng(0).uniform(-1e-8, 1e-8, (96, 3))
    loose = trimesh.Trimesh(corners, np.arange(96).reshape(-1, 3), process=False)
    surface = load_surface(trimesh.util.concatenate([ball(), loose]))
    np.testing.assert_array_equal(surface.mesh.bounds, ball().bounds)
    assert len(surface.notes) <= 8
    assert "more parts that enclose nothing" in surface.notes[5]


def sliver(length, width, *, center, along, solid):
    """A thin triangle through a point, or a thin closed tetrahedron."""
    along = np.array(along) / np.linalg.norm(along)
    aside = np.cross(along, [0.3, 1.0, -0.2])
    aside *= width / 2 / np.linalg.norm(aside)
    tip, end = center - along * (2 / 3 * length), center + along * (length / 3)  # its middle lies in the point
    corners = [tip, end + aside, end - aside, end + np.cross(along, aside)]
    faces = [[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]] if solid else [[0, 1, 2]]
    return trimesh.Trimesh(corners[: 4 if solid else 3], faces, process=False)


@pytest.mark.parametrize("solid", [False, True])
@pytest.mark.parametrize("width", [1e-7, 1e-5, 1e-2])
@pytest.mark.parametrize("length", [10.0, 1500.0])
def test_a_sliver_through_a_solid_does_not_set_the_box(length, width, solid):
    if solid and width / length > 5e-7:
        pytest.skip("a rod, which is a body of its own")
    alone = ball(subdivisions=2)
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (2000, 3))
    expected = make_oracle(alone)(points)
    for center in ((0, 0, 0), (0.3, 0.2, -0.4), (0.0, 0.0, 0.97)):
        for along in ((1, 0, 0), (1, 2, 3)):
            needle = sliver(length, width, center=np.array(center), along=along, solid=solid)
            surface = load_surface(trimesh.util.concatenate([alone, needle]))
            np.testing.assert_array_equal(surface.mesh.bounds, alone.bounds)
            assert f"{len(needle.faces)} face(s) of sheets" in surface.notes[0]
            assert np.array_equal(surface.oracle(points), expected)


@pytest.mark.parametrize(
    "shape",
    [
        trimesh.creation.box((1, 1, 1e-7)),
        trimesh.creation.box((1, 1e-4, 1e-4)),
        trimesh.util.concatenate([ball(), trimesh.creation.box((6, 6, 1e-6))]),
        trimesh.util.concatenate([ball(), trimesh.creation.box((60, 1e-3, 1e-3))]),
        trimesh.util.concatenate([ball(), trimesh.creation.cylinder(1e-3, 60, sections=12)]),
    ],
    ids=["a plate", "a needle", "a plate through a ball", "a square rod through a ball", "a rod through a ball"],
)
def test_thin_bodies_stay_and_set_the_box(shape):
    for mesh in (shape, trimesh.Trimesh(shape.vertices, shape.faces[:, ::-1], process=False)):
        assert load_surface(mesh).mesh is mesh


def test_sheets_alone_are_still_refused():
    sheet = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False)
    with pytest.raises(OpenSurfaceError, match="open surface"):
        load_surface(with_stray(sheet, np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]]) + 100.0))


@pytest.mark.parametrize("side", [-1, 0, 1])
def test_halves_of_a_scan_with_a_gap_between_them_stay(side):
    scan = ball(subdivisions=4)
    scan.update_faces(np.abs(scan.triangles_center[:, 0]) > 0.1)
    if side:  # one alone: a bowl, which encloses its inside
        scan.update_faces(side * scan.triangles_center[:, 0] > 0)
    assert len(load_surface(scan).mesh.faces) == len(scan.faces)


def test_a_soup_of_loose_triangles_stays_whole():
    mesh = ball()
    soup = trimesh.Trimesh(mesh.triangles.reshape(-1, 3), np.arange(3 * len(mesh.faces)).reshape(-1, 3), process=False)
    assert load_surface(soup).mesh is soup


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bunny", "bracket", "soup"])
def test_a_mesh_of_which_all_counts_is_the_very_mesh(name):
    mesh = ff3d.sample_mesh(name)
    assert load_surface(mesh).mesh is mesh
    assert load_surface(mesh).oracle.cube == WindingNumberOracle(mesh).cube


def test_vertices_that_no_face_uses_do_not_set_the_box():
    mesh = ball()
    loose = trimesh.Trimesh(np.concatenate([mesh.vertices, [[9, 9, 9]]]), mesh.faces, process=False)
    np.testing.assert_array_equal(load_surface(loose).mesh.bounds, mesh.bounds)


def test_faces_without_area_that_join_neighbours_do_not_open_a_mesh():
    corners = trimesh.creation.box().vertices
    mesh = trimesh.creation.box()
    start, end = mesh.faces[0][:2]
    middle = len(corners)  # a T-junction, filled by a face without area
    faces = [[start, middle, mesh.faces[0][2]], [middle, end, mesh.faces[0][2]], [start, end, middle], *mesh.faces[1:]]
    vertices = np.concatenate([corners, [(corners[start] + corners[end]) / 2]])
    surface = load_surface(trimesh.Trimesh(vertices, faces, process=False))
    assert surface.oracle.closed
    assert len(surface.mesh.faces) == 13
    assert surface.mesh.area == pytest.approx(6)


@pytest.mark.parametrize("normals", [True, False])
def test_a_few_points_far_from_a_scan_change_neither_box_nor_labels(normals, caplog):
    points = ball(subdivisions=4).vertices
    far = np.array([[30.0, 0, 0], [30.1, 0, 0], [-7, 1, 4], [1e5, 0, 0]])
    cloud = PointCloud(np.concatenate([far, points]), np.concatenate([far, points]) if normals else None)
    kept, notes = cloud_without_strays(cloud)
    np.testing.assert_array_equal(kept.points, points)
    assert len(notes) >= 1
    assert "at (1e+05, 0, 0)" in notes[0]
    surface, alone = load_surface(cloud), load_surface(PointCloud(points, points if normals else None))
    np.testing.assert_array_equal(surface.mesh.bounds, alone.mesh.bounds)
    queries = np.random.default_rng(0).uniform(-1.2, 1.2, (5000, 3))
    assert np.array_equal(surface.oracle(queries), alone.oracle(queries))
    assert not surface.oracle(far).any()


@pytest.mark.parametrize("count", [12, 50, 400])
def test_a_sparse_scan_keeps_all_of_its_points(count):
    points = np.random.default_rng(count).standard_normal((count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    assert len(cloud_without_strays(PointCloud(points))[0].points) == count


def test_a_prepared_cube_is_that_of_the_ball(tmp_path):
    from ff3d.datasets.config import make_sets_config
    from ff3d.datasets.prepare import prepare

    for name, mesh in (("alone", ball(10)), ("both", with_stray(ball(10), stray("a point", 10)))):
        lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in mesh.vertices.tolist()]
        lines += [f"f {a} {b} {c}" for a, b, c in (mesh.faces + 1).tolist()]
        (tmp_path / f"{name}.obj").write_text("\n".join(lines))
    paths = [tmp_path / "alone.obj", tmp_path / "both.obj"]
    rows = prepare(paths, tmp_path / "out", make_sets_config(points=2000, widths=(0.01,)))
    assert rows[0]["inside"] == rows[1]["inside"]
    with np.load(tmp_path / "out" / "alone.npz") as alone, np.load(tmp_path / "out" / "both.npz") as both:
        assert alone["scale"] == both["scale"] == pytest.approx(2 / 0.9)
        for key in ("points", "occupancies", "loc"):
            np.testing.assert_array_equal(alone[key], both[key])
    assert "left out" in json.dumps(rows[1]["notes"])


@given(scale=st.floats(1e-100, 1e100), at=st.floats(-1e3, 1e3), seed=st.integers(0, 999))
def test_area_does_not_depend_on_the_unit(scale, at, seed):
    rng = np.random.default_rng(seed)
    triangle = rng.uniform(-1, 1, (3, 3)) + at
    middle = triangle[0] + (triangle[1] - triangle[0]) / 2
    corners = np.concatenate([triangle, [middle]]) * scale
    assert has_area(corners, np.array([[0, 1, 2], [0, 1, 3], [0, 0, 1], [2, 2, 2]])).tolist() == [True, *[False] * 3]


@settings(max_examples=30)
@given(seed=st.integers(0, 999), gap=st.floats(0.1, 1e6))
def test_groups_are_those_that_a_gap_parts(seed, gap):
    rng = np.random.default_rng(seed)
    low = rng.random((50, 3))
    low[25:, seed % 3] += 1 + gap
    high = low + 0.01
    number = np.arange(len(low))
    group = groups_apart(np.concatenate([low, high]), np.stack([number, len(low) + number], axis=1))
    first, second = set(group[:25].tolist()), set(group[25:].tolist())
    assert not first & second
    if gap > 1e3:  # in so large a box each is one
        assert (len(first), len(second)) == (1, 1)
