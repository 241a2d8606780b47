import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from ff3d.geometry.coordinates import UnitCube, grown_box
from ff3d.geometry.sampling import SampleMix, sample_near_surface, sample_uniform
from ff3d.points.test_sets import TEST_KINDS, load_test_sets, test_points


@pytest.fixture(scope="module")
def mesh():
    return trimesh.creation.icosphere(subdivisions=3, radius=2.0)


def rng(seed=0):
    return np.random.default_rng(seed)


@given(count=st.integers(0, 200), seed=st.integers(0, 10**9))
def test_uniform_points_are_as_many_as_asked_and_lie_in_the_box(count, seed):
    box = np.array([[-1.0, 5.0, 1e6], [1.0, 6.0, 1e6 + 1]])
    points = sample_uniform(box, count, rng(seed))
    assert points.shape == (count, 3)
    assert ((points >= box[0]) & (points <= box[1])).all()
    assert np.array_equal(points, sample_uniform(box, count, rng(seed)))


def test_uniform_points_have_the_moments_of_the_uniform_distribution():
    points = sample_uniform([[0, 0, 0], [1, 2, 4]], 200_000, rng())
    np.testing.assert_allclose(points.mean(axis=0), [0.5, 1, 2], rtol=0.01)
    np.testing.assert_allclose(points.std(axis=0), np.array([1, 2, 4]) / np.sqrt(12), rtol=0.01)


def test_points_near_the_surface_spread_by_each_width_in_turn(mesh):
    widths = [0.01, 0.05, 0.2]
    points = sample_near_surface(mesh, 90_000, std=widths, rng=rng())
    offset = np.linalg.norm(points, axis=1) - 2.0
    spread = [offset[k::3].std() for k in range(3)]
    np.testing.assert_allclose(spread, widths, rtol=0.03)


@settings(max_examples=30)
@given(count=st.integers(1, 500), share=st.floats(0, 1), seed=st.integers(0, 99))
def test_a_mix_has_exactly_the_asked_count_and_share(mesh, count, share, seed):
    box = [[-100.0] * 3, [100.0] * 3]
    points = SampleMix(share, (1e-6,)).draw(mesh, box, 1.0, count, rng(seed))
    assert points.shape == (count, 3)
    near = np.abs(np.linalg.norm(points, axis=1) - 2) < 0.05
    assert abs(near.sum() - (count - round(count * share))) <= 1
    assert np.array_equal(points, SampleMix(share, (1e-6,)).draw(mesh, box, 1.0, count, rng(seed)))


def test_a_mix_is_in_random_order(mesh):
    points = SampleMix(0.5, (1e-6,)).draw(mesh, [[-100.0] * 3, [100.0] * 3], 1.0, 10_000, rng())
    near = np.linalg.norm(points, axis=1) < 3
    assert near[:5000].mean() == pytest.approx(0.5, abs=0.03)


def test_a_mix_without_widths_is_uniform(mesh):
    box = [[0, 0, 0], [1, 1, 1]]
    assert np.array_equal(SampleMix(1.0, ()).draw(mesh, box, 1.0, 50, rng(3)), sample_uniform(box, 50, rng(3)))


def test_the_uniform_test_points_fill_the_grown_box(mesh):
    unit = UnitCube.paper(mesh.vertices).scale
    points, inside = test_points(mesh, "uniform", count=20_000)
    box = grown_box(mesh, 1e-3 * unit)
    assert ((points >= box[0]) & (points <= box[1])).all()
    assert inside.mean() == pytest.approx(np.pi / 6, abs=0.02)


@pytest.mark.parametrize("kind", ["boundary", "boundary_face", "boundary_area"])
def test_the_boundary_test_points_lie_a_hundredth_of_a_unit_from_the_surface(mesh, kind):
    unit = UnitCube.paper(mesh.vertices).scale
    points, inside = test_points(mesh, kind, count=20_000)
    offset = np.linalg.norm(points, axis=1) - 2.0
    assert offset.std() == pytest.approx(0.01 * unit, rel=0.05)
    sure = np.abs(offset) > 0.02
    assert np.array_equal(inside[sure], (offset < 0)[sure])


def test_boundary_face_crowds_where_triangles_are_small_and_boundary_area_does_not():
    fine = trimesh.creation.icosphere(subdivisions=4, radius=1.0)
    coarse = trimesh.creation.icosphere(subdivisions=1, radius=1.0)
    coarse.apply_translation([10, 0, 0])
    mesh = trimesh.util.concatenate([fine, coarse])
    share = {kind: (test_points(mesh, kind, count=5000).points[:, 0] < 5).mean() for kind in TEST_KINDS[1:]}
    assert share["boundary_face"] == pytest.approx(len(fine.faces) / len(mesh.faces), abs=0.02)
    assert share["boundary_area"] == pytest.approx(fine.area / mesh.area, abs=0.03)


def test_boundary_is_the_papers_boundary_face_and_the_seed_decides(mesh):
    first = test_points(mesh, "boundary", count=100, seed=5)
    assert np.array_equal(first.points, test_points(mesh, "boundary_face", count=100, seed=5).points)
    assert not np.array_equal(first.points, test_points(mesh, "boundary", count=100, seed=6).points)


def test_an_oracle_of_ones_own_labels_the_test_points(mesh):
    everything = test_points(mesh, "uniform", count=100, oracle=lambda points: np.ones(len(points), dtype=bool))
    assert everything.occupancy.all()


def test_an_unknown_kind_lists_the_known(mesh):
    with pytest.raises(ValueError, match="known: boundary, uniform, boundary_face, boundary_area"):
        test_points(mesh, "edge")


@pytest.mark.parametrize("packed", [True, False])
def test_frozen_test_sets_are_read_as_they_were_written(tmp_path, mesh, packed):
    sets = {kind: test_points(mesh, kind, count=1001) for kind in TEST_KINDS}
    arrays = {}
    for kind, (points, inside) in sets.items():
        arrays |= {kind: points.astype(np.float32), f"{kind}_inside": np.packbits(inside) if packed else inside}
    np.savez(tmp_path / "sets.npz", **arrays)
    read = load_test_sets(tmp_path / "sets.npz")
    assert list(read) == list(TEST_KINDS)
    for kind, (points, inside) in sets.items():
        np.testing.assert_array_equal(read[kind].points, points.astype(np.float32))
        np.testing.assert_array_equal(read[kind].occupancy, inside)


def test_test_sets_that_cannot_be_read_are_refused_by_name(tmp_path):
    path = tmp_path / "sets.npz"
    with pytest.raises(ValueError, match=r"sets\.npz: no such file"):
        load_test_sets(path)
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"sets\.npz: not a readable"):
        load_test_sets(path)
    np.savez(path, other=np.zeros(3))
    with pytest.raises(ValueError, match="holds none of"):
        load_test_sets(path)
    for labels in (np.zeros(17, dtype=np.uint8), np.zeros(1, dtype=np.uint8), np.zeros(3)):
        np.savez(path, uniform=np.zeros((17, 3)), uniform_inside=labels)
        with pytest.raises(ValueError, match="neither bool nor packed bits of 17 labels"):
            load_test_sets(path)
    np.savez(path, uniform=np.zeros((3, 2)), uniform_inside=np.zeros(3, dtype=bool))
    with pytest.raises(ValueError, match=r"shape \(3, 2\)"):
        load_test_sets(path)


def test_pickled_objects_are_not_loaded(tmp_path):
    np.savez(tmp_path / "sets.npz", uniform=np.array([object()]), uniform_inside=np.zeros(1, dtype=bool))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_test_sets(tmp_path / "sets.npz")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_points_that_are_not_finite_are_refused_where_they_are_read(tmp_path, value):
    points = np.zeros((9, 3))
    points[4, 1] = value
    np.savez(tmp_path / "tests.npz", uniform=points, uniform_inside=np.zeros(9, dtype=bool))
    with pytest.raises(ValueError, match=r"tests\.npz: .*uniform has points that are not finite"):
        load_test_sets(tmp_path / "tests.npz")
