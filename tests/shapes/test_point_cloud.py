"""Point clouds come back as they were written, faults are named, and labels agree with the exact solids."""

import logging
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from ff3d.formats.text import MeshError
from ff3d.formats.writers import save_mesh
from ff3d.geometry.coordinates import UnitCube
from ff3d.geometry.sampling import sample_surface
from ff3d.labels.surfels import PointCloudOracle, _surfels, estimate_normals, point_areas, sample_cloud
from ff3d.shapes.mesh import load_mesh
from ff3d.shapes.point_cloud import PointCloud, load_points
from ff3d.shapes.sample_meshes import sample_mesh
from ff3d.shapes.solids import SOLIDS


def sphere_cloud(count: int = 4000, seed: int = 0) -> PointCloud:
    """Random points of the unit sphere about the origin, normals outward."""
    points = np.random.default_rng(seed).standard_normal((count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return PointCloud(points, points)


def cloud_of(mesh: trimesh.Trimesh, count: int, seed: int = 0) -> PointCloud:
    points, faces = sample_surface(mesh, count, np.random.default_rng(seed))
    return PointCloud(points, np.array(mesh.face_normals[faces]))


def torus() -> trimesh.Trimesh:
    return trimesh.creation.torus(1.0, 0.35, major_sections=128, minor_sections=64)


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def ply(cloud: PointCloud, encoding: str, *, normals: bool = True) -> bytes:
    """The cloud as PLY, with a colour and a confidence that no one asked for."""
    order = ">" if "big" in encoding else "<"
    fields = [("red", "u1"), ("p", f"{order}f8", 3), ("confidence", f"{order}f4")]
    fields += [("n", f"{order}f8", 3)] if normals else []
    rows = np.zeros(len(cloud.points), fields)
    rows["p"] = cloud.points
    names = ["uchar red", *(f"double {axis}" for axis in "xyz"), "float confidence"]
    if normals:
        rows["n"] = cloud.normals
        names += [f"double n{axis}" for axis in "xyz"]
    head = [f"ply\nformat {encoding} 1.0\nelement vertex {len(rows)}", *(f"property {name}" for name in names)]
    text = "\n".join([*head, "end_header\n"])
    if encoding != "ascii":
        return text.encode() + rows.tobytes()
    lines = [" ".join(repr(float(x)) for x in np.hstack([np.atleast_1d(part) for part in row])) for row in rows]
    return (text + "\n".join(lines) + "\n").encode()


def table(cloud: PointCloud, separator: str = " ") -> str:
    rows = np.hstack([cloud.points, cloud.normals])
    return "\n".join(separator.join(map(repr, row)) for row in rows.tolist()) + "\n"


SMALL = sphere_cloud(30)

# ---------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("normals", [True, False])
@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_a_ply_comes_back_exactly_whatever_else_it_holds(tmp_path, encoding, normals):
    cloud = load_points(write(tmp_path / "a.PLY", ply(SMALL, encoding, normals=normals)))
    np.testing.assert_array_equal(cloud.points, SMALL.points)
    np.testing.assert_array_equal(cloud.vertices, SMALL.points)
    assert cloud.points.dtype == np.float64
    if normals:
        np.testing.assert_allclose(cloud.normals, SMALL.normals, rtol=0, atol=1e-15)
    else:
        assert cloud.normals is None


@pytest.mark.parametrize("ending", [".xyz", ".txt", ".pts"])
@pytest.mark.parametrize("separator", [" ", ",", " ,\t", ";"])
def test_text_comes_back_exactly_with_or_without_count_comments_and_normals(tmp_path, ending, separator):
    text = "# a scan\n30\n" + table(SMALL, separator).replace("\n", " # a point\n", 1)
    cloud = load_points(write(tmp_path / f"a{ending}", text))
    np.testing.assert_array_equal(cloud.points, SMALL.points)
    np.testing.assert_allclose(cloud.normals, SMALL.normals, rtol=0, atol=1e-15)
    bare = "\r\n".join(" ".join(map(repr, row)) for row in SMALL.points.tolist())
    cloud = load_points(write(tmp_path / f"a{ending}", bare))
    np.testing.assert_array_equal(cloud.points, SMALL.points)
    assert cloud.normals is None


def test_numpy_files_come_back_exactly(tmp_path):
    both = np.hstack([SMALL.points, SMALL.normals])
    np.save(tmp_path / "a.npy", both)
    np.save(tmp_path / "b.npy", both[:, :3])
    np.savez(tmp_path / "c.npz", points=SMALL.points, normals=SMALL.normals)
    np.savez(tmp_path / "d.npz", points=SMALL.points)
    for name, oriented in {"a.npy": True, "b.npy": False, "c.npz": True, "d.npz": False}.items():
        cloud = load_points(tmp_path / name)
        np.testing.assert_array_equal(cloud.points, SMALL.points)
        assert (cloud.normals is not None) == oriented


def test_the_vertices_of_a_mesh_file_are_a_cloud_and_the_mesh_still_loads(tmp_path):
    mesh = trimesh.creation.icosphere(2)
    save_mesh(mesh, tmp_path / "a.ply")
    cloud = load_points(tmp_path / "a.ply")
    np.testing.assert_array_equal(cloud.points, load_mesh(tmp_path / "a.ply").vertices)
    assert (np.einsum("ij,ij->i", cloud.points, cloud.normals) > 0.99).all()


def test_duplicates_are_dropped_and_the_order_stays(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        cloud = load_points(write(tmp_path / "a.xyz", table(SMALL) + table(SMALL)))
    np.testing.assert_array_equal(cloud.points, SMALL.points)
    assert "30 of 60 points are exact duplicates" in caplog.text


@pytest.mark.parametrize("bad", ["0 0 0", "nan 0 1", "inf 0 1"])
def test_normals_with_a_zero_or_nan_are_dropped_with_a_warning(tmp_path, caplog, bad):
    cloud = load_points(write(tmp_path / "a.xyz", table(SMALL) + f"3 3 3 {bad}\n"))
    assert cloud.normals is None
    assert len(cloud.points) == 31
    assert "1 normals are zero or not finite" in caplog.text


PLANE = "".join(f"{x} {y} {x + 2 * y}\n" for x in range(5) for y in range(5))
BINARY = ply(SMALL, "binary_little_endian")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.xyz", "", "empty"),
        ("a.xyz", "# nothing\n", "no points"),
        ("a.pts", "0\n", "no points"),
        ("a.xyz", "1 2\n" * 20, "3 numbers (x y z) or 6"),
        ("a.xyz", table(SMALL) + "1 2 3\n", "line 31 has 3 columns, the first row 6"),
        ("a.pts", "31\n" + table(SMALL), "promises 31 points and holds 30"),
        ("a.xyz", table(SMALL).replace("0.", "O.", 1), "line 1: expected a number, got 'O."),
        ("a.xyz", "x y z\n", "no points"),
        ("a.xyz", "nan 0 0\n" + PLANE, "1 of its 26 points are not finite"),
        ("a.xyz", "1 2 3\n" * 30, "one place"),
        ("a.xyz", PLANE, "one plane"),
        ("a.xyz", "".join(f"{i} {i} {i}\n" for i in range(30)), "one line"),
        ("a.xyz", "".join(f"{i} {i * i} {i**3}\n" for i in range(9)), "9 distinct points are too few"),
        ("a.xyz", "1e200 0 0\n" + PLANE, "scale it down"),
        ("a.ply", BINARY[:-1], "cut short"),
        ("a.ply", BINARY[:40], "no PLY header"),
        ("a.ply", BINARY + b"1", "damaged"),
        ("a.ply", BINARY.replace(b"double z", b"double w"), "lack z"),
        ("a.ply", BINARY.replace(b"double z", b"dooble z"), "damaged"),
        ("a.ply", "ply\nformat ascii 1.0\nend_header\n", "no points"),
        ("a.npy", b"\x93NUMPY", "damaged"),
        ("a.npz", b"PK", "damaged"),
        ("a.las", b"x", "unknown ending '.las'"),
    ],
)
def test_each_damaged_file_is_named_with_its_fault(tmp_path, name, data, words):
    path = write(tmp_path / name, data)
    with pytest.raises(MeshError) as caught:
        load_points(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"vertices": np.eye(3)}, "named points, got vertices"),
        ({"points": np.ones((30, 2))}, "(n, 3), got points (30, 2)"),
        ({"points": np.ones((30, 3)), "normals": np.ones((29, 3))}, "got normals (29, 3)"),
        ({"points": np.full((30, 3), "a")}, "expected numbers"),
        ({"points": np.full((30, 3), None)}, "damaged"),  # objects would have to be unpickled
    ],
)
def test_each_wrong_npz_is_named_with_its_fault(tmp_path, arrays, words):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(MeshError, match=r"a\.npz: ") as caught:
        load_points(tmp_path / "a.npz")
    assert words in str(caught.value)


def test_missing_files_and_pickles_and_wide_arrays_are_refused(tmp_path):
    with pytest.raises(MeshError, match="no such file"):
        load_points(tmp_path / "a.xyz")
    with pytest.raises(MeshError, match="is a folder"):
        load_points(tmp_path)
    np.save(tmp_path / "a.npy", np.full((30, 3), None))
    with pytest.raises(MeshError, match="damaged"):
        load_points(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.ones((3, 30)))
    with pytest.raises(MeshError, match=r"\(3, 30\)"):
        load_points(tmp_path / "a.npy")


@settings(max_examples=60)
@given(end=st.integers(0, len(BINARY) - 1))
def test_a_ply_cut_anywhere_is_refused(tmp_path_factory, end):
    path = write(tmp_path_factory.getbasetemp() / "cut.ply", BINARY[:end])
    with pytest.raises(MeshError):
        load_points(path)


def test_a_cloud_checks_its_arrays_and_makes_normals_unit():
    points = SMALL.points
    np.testing.assert_allclose(PointCloud(points, 1e-200 * points).normals, points, rtol=1e-12)
    with pytest.raises(ValueError, match="transpose"):
        PointCloud(points.T)
    with pytest.raises(ValueError, match="1 that are not"):
        PointCloud(np.vstack([points, [[np.nan, 0, 0]]]))
    with pytest.raises(ValueError, match="shape of the points"):
        PointCloud(points, points[1:])
    with pytest.raises(ValueError, match="must not be zero, got 30"):
        PointCloud(points, 0 * points)


# ---------------------------------------------------------------------------------------------- areas


def test_areas_of_a_square_lattice_are_exact_inside_and_bounded_at_its_rim():
    x, y = np.meshgrid(np.arange(20.0), np.arange(20.0))
    points = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], axis=1)
    areas = point_areas(points, np.tile([0.0, 0.0, 1.0], (400, 1)), neighbours=24)
    rim = ((points[:, :2] == 0) | (points[:, :2] == 19)).any(axis=1)
    np.testing.assert_allclose(areas[~rim], 1.0, rtol=0.01)
    assert (areas[rim] < np.pi * 2**2).all()


@pytest.mark.parametrize("shape", [trimesh.creation.icosphere(5), torus(), trimesh.creation.box()])
def test_areas_of_uniform_samples_add_up(shape):
    cloud = cloud_of(shape, 10_000)
    assert point_areas(cloud.points, cloud.normals).sum() == pytest.approx(shape.area, rel=0.03)


def test_areas_of_an_uneven_sphere_add_up_in_each_part():
    cloud = sphere_cloud(40_000)
    kept = np.random.default_rng(1).random(40_000) < np.where(cloud.points[:, 2] > 0, 0.05, 0.5)
    points = cloud.points[kept]
    areas = point_areas(points, -points)  # the side of the normals does not matter
    for half in (points[:, 2] > 0, points[:, 2] < 0):
        assert areas[half].sum() == pytest.approx(2 * np.pi, rel=0.04)


def test_areas_scale_with_the_square_of_the_unit_and_refuse_other_shapes():
    cloud = sphere_cloud(300)
    areas = point_areas(cloud.points, cloud.normals)
    np.testing.assert_allclose(point_areas(1e-3 * cloud.points + 5, cloud.normals), 1e-6 * areas, rtol=1e-6)
    with pytest.raises(ValueError, match="one shape"):
        point_areas(cloud.points, cloud.normals[1:])


def test_surfels_have_the_points_normals_and_areas():
    cloud = sphere_cloud(100)
    areas = np.linspace(0.1, 1, 100)
    a, b, c = np.moveaxis(_surfels(cloud.points, cloud.normals, areas), 1, 0)
    np.testing.assert_allclose(np.cross(b - a, c - a) / 2, areas[:, None] * cloud.normals, atol=1e-12)
    np.testing.assert_allclose((a + b + c) / 3, cloud.points, atol=1e-12)


# ---------------------------------------------------------------------------------------------- normals


@pytest.mark.parametrize(
    "shape",
    [trimesh.creation.icosphere(5), torus(), trimesh.creation.box(extents=(1, 0.1, 0.6)), sample_mesh("bunny")],
    ids=["sphere", "torus", "thin box", "bunny"],
)
def test_estimated_normals_point_outward(shape):
    cloud = cloud_of(shape, 10_000)
    normals, doubtful = estimate_normals(cloud.points)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, rtol=1e-12)
    cosines = np.einsum("ij,ij->i", normals, cloud.normals)
    assert (cosines < -0.1).mean() < 0.002  # on an edge a normal may lie beside its face's
    assert np.median(cosines) > 0.99
    assert doubtful < 0.03


def test_each_part_of_a_cloud_is_turned_outward_by_itself():
    shift = np.array([3.0, 0, 0])
    one = sphere_cloud(1500).points
    normals, _ = estimate_normals(np.concatenate([one, 0.5 * one + shift, one - shift]))
    assert (np.einsum("ij,ij->i", normals, np.concatenate([one] * 3)) > 0.9).all()


def test_normals_need_ten_points():
    with pytest.raises(ValueError, match="at least 10"):
        estimate_normals(np.eye(3))


# ---------------------------------------------------------------------------------------------- labels


def accuracies(name: str, oracle: PointCloudOracle, count: int = 20_000) -> tuple[float, float]:
    """Shares of right labels among uniform points, and among points within 0.01 of the surface."""
    rng, solid, mesh = np.random.default_rng(7), SOLIDS[name], sample_mesh(name)
    uniform = rng.uniform(*solid.bounds, (count, 3))
    surface, faces = sample_surface(mesh, count, rng)
    near = surface + rng.uniform(-0.01, 0.01, (count, 1)) * mesh.face_normals[faces]
    one, other = ((oracle(points) == solid.contains(points)).mean() for points in (uniform, near))
    return float(one), float(other)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLIDS)
def test_labels_agree_with_the_exact_solid(name):
    cloud = cloud_of(sample_mesh(name), 20_000)
    oracle = PointCloudOracle(cloud)
    uniform, near = accuracies(name, oracle)
    assert uniform > 0.996
    assert near > 0.97
    assert (oracle.estimated, oracle.inside_out, oracle.doubtful) == (False, False, 0)
    guess = PointCloudOracle(PointCloud(cloud.points))
    uniform, near = accuracies(name, guess)
    assert uniform > 0.995
    assert near > 0.96
    assert guess.estimated
    assert guess.doubtful < 0.02
    assert max(oracle.unsettled_share(), guess.unsettled_share()) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bunny", "bracket"])
def test_labels_hold_for_uneven_clouds_and_for_noise(name):
    cloud = cloud_of(sample_mesh(name), 40_000)
    rng = np.random.default_rng(2)
    height = cloud.points[:, 1] / cloud.points[:, 1].max()
    kept = rng.random(len(height)) < 0.1 + 0.8 * height  # nine times as dense above as below
    assert accuracies(name, PointCloudOracle(PointCloud(cloud.points[kept], cloud.normals[kept])))[0] > 0.997
    assert accuracies(name, PointCloudOracle(PointCloud(cloud.points[kept])))[0] > 0.99
    noisy = cloud.points[::2] + 0.003 * rng.standard_normal((20_000, 3))
    assert accuracies(name, PointCloudOracle(PointCloud(noisy, cloud.normals[::2])))[0] > 0.985
    assert accuracies(name, PointCloudOracle(PointCloud(noisy)))[0] > 0.985


@pytest.mark.slow
def test_very_noisy_points_are_moved_towards_their_surface():
    cloud = sphere_cloud(20_000)
    noisy = cloud.points + 0.02 * np.random.default_rng(1).standard_normal((20_000, 3))
    moved = PointCloudOracle(PointCloud(noisy)).cloud
    before, after = (np.abs(np.linalg.norm(points, axis=1) - 1).mean() for points in (noisy, moved.points))
    assert after < before / 2
    assert (np.einsum("ij,ij->i", moved.normals, cloud.normals) > 0).mean() > 0.99


def test_the_winding_number_of_a_sphere_is_one_inside_and_zero_outside():
    oracle = PointCloudOracle(sphere_cloud(20_000))
    directions = sphere_cloud(500, seed=1).points
    np.testing.assert_allclose(oracle.winding_number(0.9 * directions), 1, atol=0.05)
    np.testing.assert_allclose(oracle.winding_number(1.1 * directions), 0, atol=0.05)
    np.testing.assert_allclose(oracle.winding_number(1e6 * directions), 0, atol=1e-6)
    assert oracle.winding_number(np.zeros((0, 3))).shape == (0,)
    assert oracle.areas.sum() == pytest.approx(4 * np.pi, rel=0.02)


def test_the_winding_number_has_no_pole_at_the_points():
    cloud = sphere_cloud(2000)
    oracle = PointCloudOracle(cloud)
    for step in (0, 1e-12, 1e-6, 1e-3):  # a dipole's number would be some 1e20 at 1e-12
        for side in (-1, 1):  # surfels that overlap add up, each by at most 1/2
            assert (np.abs(oracle.winding_number((1 + side * step) * cloud.points)) < 4).all()
    assert oracle((1 - 1e-6) * cloud.points).all()
    assert not oracle((1 + 1e-2) * cloud.points).any()


def test_normals_that_point_inward_are_reversed_and_said(caplog):
    cloud, points = sphere_cloud(2000), np.random.default_rng(0).uniform(-1.2, 1.2, (2000, 3))
    right, wrong = PointCloudOracle(cloud), PointCloudOracle(PointCloud(cloud.points, -cloud.normals))
    assert wrong.inside_out
    assert not right.inside_out
    assert "point inward" in caplog.text
    np.testing.assert_array_equal(wrong(points), right(points))
    np.testing.assert_allclose(wrong.cloud.normals, cloud.normals, rtol=0, atol=1e-15)


def test_estimated_normals_are_said_with_the_doubtful_share(caplog):
    PointCloudOracle(PointCloud(sphere_cloud(2000).points))
    assert "estimated from its points, 0.0% of them doubtful" in caplog.text


@pytest.mark.slow
@settings(max_examples=12)
@given(
    turn=st.integers(0, 1000),
    scale=st.sampled_from([1e-3, 0.3, 1.0, 1e4]),
    offset=st.sampled_from([0.0, 1e-3, -50.0, 1e4]),
    oriented=st.booleans(),
)
def test_labels_turn_scale_and_move_with_the_cloud(turn, scale, offset, oriented):
    cloud = cloud_of(torus(), 3000)
    rotation = Rotation.random(rng=np.random.default_rng(turn)).as_matrix()
    points = np.random.default_rng(1).uniform(-1.4, 1.4, (3000, 3))
    normals = cloud.normals if oriented else None
    moved = PointCloud(
        scale * (cloud.points @ rotation.T + offset), normals @ rotation.T if normals is not None else None
    )
    there = PointCloudOracle(moved)(scale * (points @ rotation.T + offset))
    # the unit cube of a turned cloud is another, so that points within rounding and the tree's error may differ
    assert (there == PointCloudOracle(PointCloud(cloud.points, normals))(points)).mean() > 0.998


def test_the_same_cloud_gives_the_same_numbers_twice_and_in_any_batch():
    cloud, points = PointCloud(sphere_cloud(3000).points), np.random.default_rng(0).uniform(-1, 1, (500, 3))
    one, other = PointCloudOracle(cloud), PointCloudOracle(cloud)
    np.testing.assert_array_equal(one.winding_number(points), other.winding_number(points))
    np.testing.assert_array_equal(one.winding_number(points)[::7], one.winding_number(points[::7]))
    assert one.unsettled_share() == other.unsettled_share()


def test_an_oracle_refuses_what_it_cannot_answer():
    with pytest.raises(ValueError, match="at least 10"):
        PointCloudOracle(PointCloud(np.eye(3)))
    with pytest.raises(ValueError, match="finite"):
        PointCloudOracle(SMALL)([[np.nan, 0, 0]])
    with pytest.raises(ValueError, match="shape"):
        PointCloudOracle(SMALL)([0, 0, 0])


# ---------------------------------------------------------------------------------------------- refusal


@pytest.mark.slow
@pytest.mark.parametrize("height", [0.0, 0.1])
@pytest.mark.parametrize("oriented", [True, False])
def test_a_single_sheet_is_unsettled(height, oriented):
    x, y = np.random.default_rng(0).random((2, 6000))
    points = np.stack([x, y, height * np.sin(7 * x) * np.cos(5 * y)], axis=1)
    slopes = [-7 * height * np.cos(7 * x) * np.cos(5 * y), 5 * height * np.sin(7 * x) * np.sin(5 * y), 0 * x + 1]
    oracle = PointCloudOracle(PointCloud(points, np.stack(slopes, axis=1) if oriented else None))
    assert oracle.unsettled_share() > 0.8


@pytest.mark.slow
def test_points_without_a_surface_are_doubtful_and_unsettled():
    points = np.random.default_rng(0).random((5000, 3))
    _, doubtful = estimate_normals(points)
    oracle = PointCloudOracle(PointCloud(points))
    assert doubtful > 0.5
    assert oracle.doubtful > 0.5
    assert oracle.unsettled_share() > 0.5


def test_a_half_open_scan_is_settled():
    cloud = sphere_cloud(8000)
    kept = cloud.points[:, 2] < 0.7
    assert PointCloudOracle(PointCloud(cloud.points[kept])).unsettled_share() < 0.2


# ---------------------------------------------------------------------------------------------- samples


def test_sampled_points_lie_on_the_surface_and_cover_it_by_area():
    cloud = sphere_cloud(20_000)
    kept = np.random.default_rng(1).random(20_000) < np.where(cloud.points[:, 2] > 0, 0.1, 1.0)
    oracle = PointCloudOracle(PointCloud(cloud.points[kept], cloud.normals[kept]))
    points = sample_cloud(oracle.cloud, oracle.areas, 20_000, np.random.default_rng(3))
    assert points.shape == (20_000, 3)
    assert (points[:, 2] > 0).mean() == pytest.approx(0.5, abs=0.03)
    # a disc of radius r leaves the unit sphere by sqrt(1 + r^2) - 1
    assert (np.linalg.norm(points, axis=1) <= np.sqrt(1 + oracle.areas.max() / np.pi) + 1e-9).all()
    again = sample_cloud(oracle.cloud, oracle.areas, 20_000, np.random.default_rng(3))
    np.testing.assert_array_equal(points, again)


def test_sampling_never_takes_a_point_without_area_and_refuses_bad_areas():
    areas = np.zeros(30)
    areas[7] = 1e-12
    points = sample_cloud(SMALL, areas, 50, np.random.default_rng(0))
    np.testing.assert_allclose(points, np.tile(SMALL.points[7], (50, 1)), atol=1e-6)
    with pytest.raises(ValueError, match="without normals"):
        sample_cloud(PointCloud(SMALL.points), areas, 5, np.random.default_rng(0))
    for bad in (areas[1:], 0 * areas, np.full(30, np.nan)):
        with pytest.raises(ValueError, match="areas must be"):
            sample_cloud(SMALL, bad, 5, np.random.default_rng(0))


def test_a_cloud_has_a_unit_cube_as_a_mesh_has():
    assert UnitCube.padded(SMALL.vertices).to_unit(SMALL.points).min() >= 0.05 - 1e-12
