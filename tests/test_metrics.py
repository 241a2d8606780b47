import dataclasses

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ff3d.geometry.sampling import sample_surface
from ff3d.metrics import LabelledPoints, SurfaceMetrics, iou, iou_of_labels, surface_distances

LABEL_PAIRS = st.integers(0, 30).flatmap(lambda n: st.tuples(arrays(bool, n), arrays(bool, n)))
EMPTY = trimesh.Trimesh(np.zeros((0, 3)), np.zeros((0, 3), dtype=int), process=False)


def cube(**settings) -> trimesh.Trimesh:
    """A unit cube about the origin, each side cut into 2 x 4^3 faces."""
    shape = trimesh.creation.box(**settings)
    for _ in range(3):
        shape = shape.subdivide()
    return shape


def sphere(radius: float) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(subdivisions=5, radius=radius)


def moved(shape: trimesh.Trimesh, *, scale: float = 1, offset=(0, 0, 0)) -> trimesh.Trimesh:
    return trimesh.Trimesh(shape.vertices * scale + np.asarray(offset), shape.faces, process=False)


# --- sets of points


@given(LABEL_PAIRS)
def test_iou_is_symmetric_between_0_and_1_and_1_for_equal_sets_alone(labels):
    first, second = labels
    value = iou_of_labels(first, second)
    assert 0 <= value <= 1
    assert value == iou_of_labels(second, first)
    assert (value == 1) == np.array_equal(first, second)
    assert (value == 0) == ((first | second).any() and not (first & second).any())


@given(LABEL_PAIRS)
def test_one_minus_iou_is_what_differs_of_the_union(labels):
    first, second = labels
    union = (first | second).sum()
    assert iou_of_labels(first, second) == pytest.approx(1 - (first ^ second).sum() / max(union, 1))


def test_iou_of_nothing_with_nothing_is_1():
    assert iou_of_labels(np.zeros(5, bool), np.zeros(5, bool)) == 1
    assert iou_of_labels(np.zeros(0, bool), np.zeros(0, bool)) == 1


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (np.zeros(3, bool), np.zeros(4, bool), r"one shape \(n,\), got \(3,\) and \(4,\)"),
        (np.zeros((3, 1), bool), np.zeros((3, 1), bool), r"one shape \(n,\)"),
        (np.zeros(3), np.zeros(3, bool), "must be bool, got float64 and bool"),
    ],
)
def test_labels_of_other_shapes_and_types_are_refused(first, second, expected):
    with pytest.raises(ValueError, match=expected):
        iou_of_labels(first, second)


def test_iou_of_two_balls_is_the_ratio_of_their_volumes():
    points = np.random.default_rng(0).uniform(-1, 1, (200_000, 3))
    radius = np.linalg.norm(points, axis=1)
    test = LabelledPoints(points, radius < 0.9)
    assert iou(lambda points: np.linalg.norm(points, axis=1) < 0.6, test) == pytest.approx((0.6 / 0.9) ** 3, abs=5e-3)


# --- points on a surface


def two_triangles() -> trimesh.Trimesh:
    """Areas 9 : 1, far apart."""
    vertices = [[0, 0, 0], [3, 0, 0], [0, 3, 0], [10, 0, 5], [11, 0, 5], [10, 1, 5]]
    return trimesh.Trimesh(vertices, [[0, 1, 2], [3, 4, 5]], process=False)


@pytest.mark.parametrize(("weight", "share"), [("area", 0.9), ("face", 0.5)])
def test_faces_are_chosen_by_area_or_each_alike(weight, share):
    count = 40_000
    points, faces = sample_surface(two_triangles(), count, np.random.default_rng(0), weight=weight)
    assert (faces == 0).mean() == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / count))
    assert np.array_equal(points[:, 0] < 5, faces == 0)


@pytest.mark.parametrize("count", [1, 7, 1000, 1003])
def test_even_points_are_as_many_on_each_face_as_its_area_is_worth(count):
    for seed in range(5):
        _, faces = sample_surface(two_triangles(), count, np.random.default_rng(seed), weight="even")
        assert abs((faces == 0).sum() - 0.9 * count) < 1
        assert (np.diff(faces) >= 0).all()


def test_points_are_uniform_within_a_face():
    points, faces = sample_surface(two_triangles(), 40_000, np.random.default_rng(0))
    x, y = points[faces == 0, :2].T / 3
    assert (x >= 0).all()
    assert (y >= 0).all()
    assert (x + y <= 1 + 1e-12).all()
    # of a uniform triangle x and y have mean 1/3, and x + y < s holds for s^2 of the area
    assert x.mean() == pytest.approx(1 / 3, abs=0.005)
    assert y.mean() == pytest.approx(1 / 3, abs=0.005)
    for s in (0.25, 0.5, 0.75):
        assert (x + y < s).mean() == pytest.approx(s**2, abs=0.01)


@pytest.mark.parametrize("count", [0, 1, 12_345])
@pytest.mark.parametrize("weight", ["area", "face", "even"])
def test_exactly_count_points_come_back_on_their_faces(count, weight):
    shape = sphere(1)
    points, faces = sample_surface(shape, count, np.random.default_rng(0), weight=weight)
    assert points.shape == (count, 3)
    assert points.dtype == np.float64
    assert faces.shape == (count,)
    height = ((points - shape.triangles[faces, 0]) * shape.face_normals[faces]).sum(axis=1)
    assert np.abs(height).max(initial=0) < 1e-15


def test_a_face_without_area_gets_no_points():
    shape = two_triangles()
    shape = trimesh.Trimesh(shape.vertices, [[0, 0, 1], [0, 1, 2], [3, 3, 3], [3, 4, 5], [4, 4, 5]], process=False)
    _, faces = sample_surface(shape, 1000, np.random.default_rng(0))
    assert set(faces) == {1, 3}


@pytest.mark.parametrize("scale", [1e-120, 1e100])
def test_tiny_and_huge_surfaces_have_an_area(scale):
    points, faces = sample_surface(moved(two_triangles(), scale=scale), 1000, np.random.default_rng(0))
    same, same_faces = sample_surface(two_triangles(), 1000, np.random.default_rng(0))
    assert np.array_equal(faces, same_faces)
    np.testing.assert_allclose(points / scale, same, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (EMPTY, "without faces"),
        (trimesh.Trimesh([[0, 0, 0], [1, 1, 1], [2, 2, 2]], [[0, 1, 2]], process=False), "without area"),
        (trimesh.Trimesh([[0, 0, 0], [1, 1, np.nan], [2, 0, 2]], [[0, 1, 2]], process=False), "finite"),
    ],
)
def test_a_surface_that_cannot_be_sampled_is_refused(shape, expected):
    with pytest.raises(ValueError, match=expected):
        sample_surface(shape, 10, np.random.default_rng(0))


@pytest.mark.wrong_types
def test_an_unknown_weight_is_refused():
    with pytest.raises(ValueError, match="'area', 'face' or 'even', got 'vertex'"):
        sample_surface(two_triangles(), 10, np.random.default_rng(0), weight="vertex")


# --- distances between surfaces


def test_a_surface_is_at_no_distance_from_itself():
    found = surface_distances(sphere(1), sphere(1), count=20_000)
    assert found.hausdorff < 1e-15
    assert found.chamfer <= found.hausdorff
    assert found.f_score == found.precision == found.recall == 1
    assert found.normal_consistency == pytest.approx(1, abs=1e-12)


def test_concentric_spheres_lie_the_difference_of_their_radii_apart():
    sag = 1 - np.linalg.norm(sphere(1).triangles_center, axis=1).min()  # how far the faces cut into the sphere
    inner, outer, side = 0.8, 1.0, 2.0
    found = surface_distances(sphere(inner), sphere(outer), count=20_000, threshold=0.11)
    for value in (found.accuracy, found.completeness, found.chamfer, found.hausdorff):
        assert value * side == pytest.approx(outer - inner, abs=2 * sag)
    assert found.normal_consistency == pytest.approx(1, abs=4 * sag)
    assert found.f_score == found.precision == found.recall == 1
    assert surface_distances(sphere(inner), sphere(outer), count=2000, threshold=0.09).f_score == 0


def test_a_shifted_cube_is_as_far_off_as_its_sides_say():
    shift = 0.1
    found = surface_distances(moved(cube(), offset=[shift, 0, 0]), cube(), count=50_000)
    # one side lies off by the shift; the opposite one, within the reference, by no more than from there to the other
    # sides; of those a strip as wide as the shift stands over, half as far on average
    expected = (shift + (1 - (1 - 2 * shift) ** 3) / 6 + 4 * shift * shift / 2) / 6
    assert found.accuracy == pytest.approx(expected, rel=0.02)
    assert found.completeness == pytest.approx(expected, rel=0.02)
    assert found.hausdorff == pytest.approx(shift, rel=1e-9)
    assert found.precision == pytest.approx((4 * (1 - shift) + 4 * 0.01 + 1 - (1 - 2 * 0.01) ** 2) / 6, abs=0.01)


def test_a_part_that_is_too_much_spoils_accuracy_and_one_that_is_missing_completeness():
    whole = trimesh.util.concatenate([sphere(1), moved(sphere(1), offset=[5, 0, 0])])
    more, less = surface_distances(whole, sphere(1), count=5000), surface_distances(sphere(1), whole, count=5000)
    assert more.recall == less.precision == 1
    assert more.completeness < 1e-15
    assert less.accuracy < 1e-15
    assert more.precision == pytest.approx(0.5, abs=0.03)
    assert less.recall == pytest.approx(0.5, abs=0.03)
    assert more.f_score == pytest.approx(2 * more.precision / (1 + more.precision))


def test_sampling_leaves_no_floor():
    found = surface_distances(moved(cube(), scale=1 + 2e-7), cube(), count=1000)
    assert 0 < found.hausdorff < 4e-7
    assert found.chamfer == pytest.approx(1e-7, rel=0.1)


def test_turned_faces_count_as_consistent_and_right_angles_do_not():
    assert surface_distances(cube(), moved(cube(), scale=-1), count=1000).normal_consistency == pytest.approx(1)
    flat, upright = ([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 0, 0], [1, 0, 0], [0, 0, 1]])
    flat, upright = (trimesh.Trimesh(it, [[0, 1, 2]], process=False) for it in (flat, upright))
    assert surface_distances(flat, upright, count=1000).normal_consistency == pytest.approx(0)


@pytest.mark.parametrize("change", [{"scale": 1e-6}, {"scale": 1e5}, {"offset": [1e6, -2e6, 3e6]}])
def test_neither_scale_nor_place_changes_the_numbers(change):
    one, other = moved(cube(), offset=[0.033, 0.022, 0.013]), trimesh.creation.box()
    before = surface_distances(one, other, count=5000)
    after = surface_distances(moved(one, **change), moved(other, **change), count=5000)
    for name, value in dataclasses.asdict(before).items():
        # where the nearest point is on an edge, rounding says to which of its faces it belongs
        near = 0.01 if name == "normal_consistency" else 1e-8
        assert getattr(after, name) == pytest.approx(value, abs=near), name


def test_the_same_seed_gives_the_same_numbers_and_another_seed_nearly():
    shapes = moved(cube(), offset=[0.03, 0, 0]), cube()
    first = surface_distances(*shapes, count=5000, seed=1)
    assert surface_distances(*shapes, count=5000, seed=1) == first
    other = surface_distances(*shapes, count=5000, seed=2)
    assert other != first
    assert other.chamfer == pytest.approx(first.chamfer, rel=0.1)


def test_nothing_is_infinitely_far_from_something_and_like_nothing():
    flat = trimesh.Trimesh([[0, 0, 0], [1, 1, 1], [2, 2, 2]], [[0, 1, 2]], process=False)
    far = SurfaceMetrics(np.inf, np.inf, np.inf, np.inf, 0, 0, 0, 0)
    for nothing in (EMPTY, flat):
        assert surface_distances(nothing, cube()) == surface_distances(cube(), nothing) == far
        assert surface_distances(nothing, EMPTY) == SurfaceMetrics(0, 0, 0, 0, 1, 1, 1, 1)


def test_faces_without_area_change_nothing():
    shape = cube()
    faces = np.concatenate([shape.faces, [[0, 0, 1], [2, 2, 2]]])
    assert surface_distances(trimesh.Trimesh(shape.vertices, faces, process=False), shape, count=1000) == (
        surface_distances(shape, shape, count=1000)
    )


@pytest.mark.parametrize("wrong", [{"count": 0}, {"threshold": 0.0}, {"threshold": np.nan}])
def test_useless_counts_and_thresholds_are_refused(wrong):
    with pytest.raises(ValueError, match="must be positive"):
        surface_distances(cube(), cube(), **wrong)
