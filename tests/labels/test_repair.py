import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from ff3d.labels.repair import mid_numbers, repair
from ff3d.shapes.sample_meshes import sample_mesh

BOX = trimesh.creation.box(extents=(1, 1, 1))


def unit(*meshes: trimesh.Trimesh) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and faces side by side, shrunk into the unit cube about its middle."""
    mesh = trimesh.util.concatenate(meshes) if len(meshes) > 1 else meshes[0]
    low, high = mesh.bounds
    return (mesh.vertices - (low + high) / 2) / (high - low).max() * 0.9 + 0.5, np.array(mesh.faces, dtype=np.int64)


def ball(radius=1.0, at=(0, 0, 0), subdivisions=3):
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    mesh.apply_translation(at)
    return mesh


def cube(at):
    mesh = BOX.copy()
    mesh.apply_translation(at)
    return mesh


def inverted(mesh):
    return trimesh.Trimesh(mesh.vertices, mesh.faces[:, ::-1], process=False)


def exact(vertices, faces, points):
    import igl

    return igl.winding_number(np.ascontiguousarray(vertices), np.ascontiguousarray(faces), points)


def inside(vertices, faces, count=3000, seed=0):
    """Labels of the repaired surface at random points, and those points."""
    points = np.random.default_rng(seed).random((count, 3))
    fixed = repair(vertices, faces)
    return exact(fixed.vertices, fixed.faces, points) > 0.5, points, fixed


def volume(fixed):
    corners = fixed.vertices[fixed.faces]
    return np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bunny", "knot", "gyroid", "bracket"])
def test_a_sound_mesh_is_left_as_it_is(name):
    vertices, faces = unit(sample_mesh(name))
    fixed = repair(vertices, faces)
    assert (fixed.notes, fixed.inside_out, len(fixed.rim)) == ((), False, 0)
    assert np.array_equal(fixed.vertices[fixed.faces], vertices[faces])


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), share=st.floats(0.01, 0.99))
def test_faces_that_are_flipped_at_random_are_all_turned_back(seed, share):
    vertices, faces = unit(ball())
    flip = np.random.default_rng(seed).random(len(faces)) < share
    faces[flip] = faces[flip, ::-1]
    fixed = repair(vertices, faces)
    assert volume(fixed) == pytest.approx(volume(repair(*unit(ball()))))
    assert not len(fixed.rim)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), copies=st.integers(1, 3), opposite=st.booleans(), share=st.floats(0.05, 1))
def test_duplicate_faces_change_nothing(seed, copies, opposite, share):
    rng = np.random.default_rng(seed)
    vertices, faces = unit(ball())
    more = [faces[rng.random(len(faces)) < share] for _ in range(copies)]
    more = [np.roll(copy[:, ::-1] if opposite else copy, rng.integers(3), axis=1) for copy in more]
    doubled = rng.permutation(np.concatenate([faces, *more]))
    fixed = repair(vertices, doubled)
    assert len(fixed.faces) == len(faces)
    assert volume(fixed) == pytest.approx(volume(repair(vertices, faces)))


def test_duplicates_of_a_surface_with_a_hole_keep_the_hole():
    vertices, faces = unit(ball())
    faces = faces[5:]
    fixed = repair(vertices, np.concatenate([faces, faces[:, ::-1]]))
    assert len(fixed.faces) == len(faces)
    assert volume(fixed) > 0
    assert len(fixed.rim) == len(repair(vertices, faces).rim) > 0


def test_a_mesh_inside_out_is_turned_and_said():
    vertices, faces = unit(ball())
    fixed = repair(vertices, faces[:, ::-1])
    assert fixed.inside_out
    assert volume(fixed) > 0
    assert "turned round" in fixed.notes[0]


def test_one_part_of_several_inside_out_is_turned_alone():
    for other in (ball(at=(3, 0, 0)), ball(at=(1.2, 0, 0))):
        vertices, faces = unit(ball(), inverted(other))
        label, points, fixed = inside(vertices, faces)
        assert np.array_equal(label, exact(*unit(ball(), other), points) > 0.5)
        assert not fixed.inside_out


def test_cavities_stay_outside_and_what_is_in_them_inside():
    vertices, faces = unit(ball(2), inverted(ball(1.5)), ball(1.0), inverted(ball(0.5)))
    label, points, fixed = inside(vertices, faces)
    radius = np.linalg.norm(points - 0.5, axis=1) / 0.9 * 4
    sure = np.abs(radius[:, None] - [2, 1.5, 1, 0.5]).min(axis=1) > 0.02
    assert np.array_equal(label[sure], (((radius < 2) & (radius > 1.5)) | ((radius < 1) & (radius > 0.5)))[sure])
    assert fixed.notes == ()
    turned = repair(vertices, faces[:, ::-1])
    assert volume(turned) == pytest.approx(volume(fixed))
    assert turned.inside_out


def test_overlapping_parts_stay_inside():
    label, points, fixed = inside(*unit(ball(), ball(at=(0.5, 0, 0)), ball(0.3)))
    assert fixed.notes == ()
    assert np.array_equal(label, exact(*unit(ball(), ball(at=(0.5, 0, 0)), ball(0.3)), points) > 0.5)


def test_solids_that_touch_in_a_face_an_edge_and_a_vertex_stay_solid():
    for at in ((1, 0, 0), (1, 1, 0), (1, 1, 1)):
        vertices, faces = unit(BOX, cube(at))
        points = np.random.default_rng(0).random((5000, 3))
        fixed = repair(vertices, faces)
        assert np.array_equal(exact(fixed.vertices, fixed.faces, points) > 0.5, exact(vertices, faces, points) > 0.5)
        assert not len(fixed.rim)


@pytest.mark.parametrize("copies", [1, 2], ids=["single", "double"])
def test_an_inner_wall_changes_nothing(copies):
    vertices, faces = unit(BOX, cube((1, 0, 0)))
    middle = np.flatnonzero(np.abs(vertices[:, 0] - 0.5) < 1e-9)
    wall = np.isin(faces, middle).all(axis=1)
    outer = faces[~wall]
    flat = faces[wall]
    assert len(flat) == 4
    single = flat[:2]
    broken = np.concatenate([outer, *([single] if copies == 1 else [single, single[:, ::-1]])])
    label, points, fixed = inside(vertices, broken)
    assert np.array_equal(label, (np.abs(points - 0.5) < [0.45, 0.225, 0.225]).all(axis=1))
    assert not len(fixed.rim)


def test_faces_without_three_corners_are_dropped_and_flat_ones_do_no_harm():
    vertices, faces = unit(ball())
    flat = np.concatenate([faces, faces[:9, [0, 0, 1]], faces[:9, [1, 1, 1]]])
    fixed = repair(vertices, flat)
    assert len(fixed.faces) == len(faces)
    # a face split at the middle of an edge, on one side only, with the flat triangle that closes it
    a, b, c = faces[0]
    vertices = np.concatenate([vertices, [(vertices[a] + vertices[b]) / 2]])
    m = len(vertices) - 1
    split = np.concatenate([faces[1:], [[a, m, c], [m, b, c], [a, b, m]]])
    fixed = repair(vertices, split)
    assert not len(fixed.rim)
    assert volume(fixed) == pytest.approx(volume(repair(*unit(ball()))))


def test_loose_triangles_are_joined_where_their_corners_coincide():
    vertices, faces = unit(ball())
    fixed = repair(vertices[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3))
    assert len(fixed.vertices) == len(vertices)
    assert not len(fixed.rim)


def test_the_rim_is_that_of_the_holes():
    mesh = trimesh.creation.box()
    vertices, faces = unit(mesh)
    side = np.abs(mesh.face_normals[:, 0] - 1) < 1e-9
    fixed = repair(vertices, faces[~side])
    assert len(fixed.rim) == 4
    assert np.linalg.norm(fixed.rim[:, 1] - fixed.rim[:, 0], axis=1) == pytest.approx([0.9] * 4)


def test_a_one_sided_strip_is_left_as_it_is():
    turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    along = np.stack([np.cos(turns), np.sin(turns), 0 * turns], axis=1)
    across = np.stack([np.cos(turns / 2) * along[:, 0], np.cos(turns / 2) * along[:, 1], np.sin(turns / 2)], axis=1)
    vertices = np.concatenate([along - 0.3 * across, along + 0.3 * across]) / 3 + 0.5
    i = np.arange(40)
    j, k, m = (i + 1) % 40, i + 40, (i + 1) % 40 + 40
    k2, m2 = k.copy(), m.copy()
    j[-1], m2[-1] = 40, 0  # the last joins the first upside down
    faces = np.concatenate([np.stack([i, j, k2], axis=1), np.stack([j, m2, k2], axis=1)])
    fixed = repair(vertices, faces)
    assert len(fixed.faces) == len(faces)
    assert len(fixed.rim) > 80


def test_the_mean_of_both_sides_tells_surfaces_from_sheets():
    def middle(vertices, faces):
        return mid_numbers(lambda points: exact(vertices, faces, points), vertices, faces)

    vertices, faces = unit(ball())
    assert middle(vertices, faces) == pytest.approx(0.5, abs=1e-3)
    assert middle(vertices, faces[:, ::-1]) == pytest.approx(-0.5, abs=1e-3)
    plane = np.array([[0, 0, 0.5], [1, 0, 0.5], [1, 1, 0.5], [0, 1, 0.5]], dtype=float)
    assert middle(plane, np.array([[0, 1, 2], [0, 2, 3], [0, 0, 1]]))[:2] == pytest.approx(0, abs=1e-3)


def test_nothing_at_all_is_repaired_to_nothing():
    fixed = repair(np.zeros((3, 3)), np.array([[0, 1, 2]]))
    assert (len(fixed.faces), len(fixed.rim)) == (0, 0)


def test_the_same_mesh_gives_the_same_repair():
    vertices, faces = unit(sample_mesh("soup"))
    one, other = repair(vertices, faces), repair(vertices, faces)
    assert np.array_equal(one.faces, other.faces)
    assert np.array_equal(one.rim, other.rim)
