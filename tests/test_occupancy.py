import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from ff3d.occupancy import WindingNumberOracle, check_points


def sphere(radius=1.0, center=(0, 0, 0)):
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=radius)
    mesh.apply_translation(center)
    return mesh


def cloud(count=4000, seed=0, extent=1.3):
    return np.random.default_rng(seed).uniform(-extent, extent, size=(count, 3))


def away_from_sphere(points, radius=1.0, by=0.01):
    return np.abs(np.linalg.norm(points, axis=1) - radius) > by


def test_labels_agree_with_the_exact_solid():
    points = cloud()
    points = points[away_from_sphere(points)]
    assert np.array_equal(WindingNumberOracle(sphere())(points), np.linalg.norm(points, axis=1) < 1)


@settings(max_examples=20)
@given(
    scale=st.sampled_from([1e-6, 1e-3, 1.0, 1e6]),
    offset=st.tuples(*[st.sampled_from([0.0, -1e6, 1e6])] * 3),
    seed=st.integers(0, 99),
)
def test_labels_follow_the_mesh_wherever_it_lies_and_whatever_its_size(scale, offset, seed):
    if scale < 1 and any(offset):
        scale = 1.0  # float64 itself cannot hold a millionth at a million
    mesh, points = trimesh.creation.box(extents=(1, 2, 3)), cloud(500, seed, 2.0)
    expected = (np.abs(points) < [0.5, 1, 1.5]).all(axis=1)
    mesh.apply_scale(scale)
    mesh.apply_translation(offset)
    sure = (np.abs(np.abs(points) - [0.5, 1, 1.5]) > 1e-4).all(axis=1)
    assert np.array_equal(WindingNumberOracle(mesh)(points * scale + offset)[sure], expected[sure])


def test_the_fast_sum_decides_as_the_exact_one_near_a_hole():
    import igl

    mesh = trimesh.creation.box()
    mesh.update_faces(np.arange(len(mesh.faces)) > 1)  # one side is open
    points = cloud(20_000, extent=0.6)
    exact = igl.winding_number(np.array(mesh.vertices), np.array(mesh.faces, dtype=np.int64), points)
    sure = np.abs(exact - 0.5) > 1e-6
    assert np.array_equal(WindingNumberOracle(mesh)(points)[sure], (exact > 0.5)[sure])


def test_a_mesh_with_a_hole_is_closed_by_its_winding_number():
    mesh, points = sphere(), cloud()
    mesh.update_faces(mesh.triangles_center[:, 1] > -0.9)
    agreed = WindingNumberOracle(mesh)(points) == (np.linalg.norm(points, axis=1) < 1)
    assert agreed.mean() > 0.99


def test_overlapping_parts_are_inside_and_a_cavity_is_outside():
    points = cloud()
    points = points[away_from_sphere(points) & away_from_sphere(points, 0.5)]
    radius = np.linalg.norm(points, axis=1)
    cavity = sphere(0.5)
    cavity.invert()
    hollow = trimesh.util.concatenate([sphere(), cavity])
    assert np.array_equal(WindingNumberOracle(hollow)(points), (radius > 0.5) & (radius < 1))
    nested = trimesh.util.concatenate([sphere(), sphere(0.5)])
    assert np.array_equal(WindingNumberOracle(nested)(points), radius < 1)


def test_a_mesh_turned_inside_out_is_put_right_and_said():
    mesh, points = sphere(), cloud()
    expected = WindingNumberOracle(mesh)
    mesh.invert()
    flipped = WindingNumberOracle(mesh)
    assert (expected.inside_out, flipped.inside_out) == (False, True)
    assert np.array_equal(flipped(points), expected(points))


def test_labels_do_not_depend_on_the_batch_or_the_order():
    oracle, points = WindingNumberOracle(sphere()), cloud()
    order = np.random.default_rng(1).permutation(len(points))
    parts = np.concatenate([oracle(points[:17]), oracle(points[17:])])
    assert np.array_equal(parts, oracle(points))
    assert np.array_equal(oracle(points[order]), oracle(points)[order])


def test_no_points_give_no_labels():
    assert WindingNumberOracle(sphere())(np.zeros((0, 3))).shape == (0,)


@pytest.mark.parametrize(
    ("points", "says"),
    [(np.zeros((3, 7)), "transpose"), (np.zeros((2, 2)), r"shape \(n, 3\)"), ([[0, 0, np.inf]], "finite")],
)
def test_wrong_points_are_refused(points, says):
    with pytest.raises(ValueError, match=says):
        check_points(points)
