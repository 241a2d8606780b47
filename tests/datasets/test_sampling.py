import numpy as np
import pytest
import trimesh

from ff3d.datasets.config import LAYOUTS, make_sets_config
from ff3d.datasets.sampling import draw_samples
from ff3d.formats.writers import save_mesh
from ff3d.geometry.distances import NearestFaces
from ff3d.geometry.sampling import sample_segments
from ff3d.geometry.triangles import creases
from ff3d.labels.winding_number import WindingNumberOracle


def wedge(angle):
    """Two triangles that meet in the x axis, without common vertices.  angle: degrees between their normals."""
    turn = np.radians(180 - angle)
    flap = [0.5, np.cos(turn), np.sin(turn)]
    return np.array([[[0, 0, 0], [1, 0, 0], [0.5, 1, 0]], [[1, 0, 0], [0, 0, 0], flap]], dtype=float)


@pytest.mark.parametrize("angle", [20, 60, 90, 150])
@pytest.mark.parametrize("turned", [False, True])
def test_an_edge_is_a_crease_from_its_angle_on_however_its_faces_are_wound(angle, turned):
    corners = wedge(angle)
    if turned:
        corners[1] = corners[1, ::-1]
    assert not len(creases(corners, angle + 0.01)[0])
    ends, normals = creases(corners, angle - 0.01)
    np.testing.assert_array_equal(np.sort(ends[0, :, 0]), [0, 1])
    np.testing.assert_allclose(normals[0] @ [0, 0, 1], np.cos(np.radians(angle / 2)), atol=1e-9)


def test_a_box_has_twelve_creases_with_the_mean_of_two_normals_and_a_fine_ball_none():
    box, ball = trimesh.creation.box(), trimesh.creation.icosphere(subdivisions=3)
    ends, normals = creases(box.triangles, 30)
    assert len(ends) == 12
    middles = ends.mean(axis=1)
    np.testing.assert_allclose(normals, middles / np.linalg.norm(middles, axis=1, keepdims=True), atol=1e-12)
    assert len(creases(ball.triangles, 30)[0]) == 0


def test_points_on_segments_are_shared_out_by_length():
    ends = np.array([[[0, 0, 0], [1, 0, 0]], [[5, 5, 5], [5, 5, 5]], [[0, 1, 0], [0, 1, 3]]], dtype=float)
    points, chosen = sample_segments(ends, 4000, np.random.default_rng(0))
    assert np.bincount(chosen, minlength=3).tolist() == [1000, 0, 3000]
    assert (points[chosen == 0, 1:] == 0).all()
    np.testing.assert_allclose(np.sort(points[chosen == 2, 2])[::1000], [0, 1, 2], atol=0.1)


@pytest.fixture(scope="module")
def bracket():
    from ff3d.shapes.sources import find_shape

    return find_shape("bracket")


def drawn(path, *sets, **settings):
    return draw_samples(path, make_sets_config("ff3d", sets, **settings))


def test_each_set_has_exactly_its_count_and_the_same_points_for_the_same_seed(bracket):
    sets = [f"{name}={997 + number}" for number, name in enumerate(LAYOUTS["ff3d"].counts)]
    one, same, other = (drawn(bracket, *sets, seed=seed) for seed in (1, 1, 2))
    for number, name in enumerate(LAYOUTS["ff3d"].counts):
        assert one.points[name].shape == (997 + number, 3)
        assert np.array_equal(one.points[name], same.points[name])
        assert np.array_equal(one.values[name], same.values[name])
        assert not np.array_equal(one.points[name], other.points[name])


def test_a_set_has_the_same_points_whatever_the_others_are(bracket):
    alone, beside = drawn(bracket, "near=500"), drawn(bracket, "near=500", "volume=300", "salient=200")
    assert np.array_equal(alone.points["near"], beside.points["near"])


def test_labels_of_all_sets_are_the_exact_winding_number_of_the_points_as_stored(bracket):
    samples = drawn(bracket, "volume=2000", "near=2000", "sharp=2000")
    from ff3d.shapes.mesh import load_mesh

    oracle = WindingNumberOracle(load_mesh(bracket))
    for name, points in samples.points.items():
        world = points.astype(np.float64) * samples.scale + samples.loc
        assert np.array_equal(samples.values[name], oracle.exact_winding_number(world) > 0.5)


def test_points_of_near_and_sharp_lie_as_near_as_their_widths_say(bracket):
    from ff3d.shapes.mesh import load_mesh

    samples = drawn(bracket, "near=4000", "sharp=4000", "salient=4000", widths=(1e-4, 1e-2))
    mesh = load_mesh(bracket)
    for name in ("near", "sharp"):
        world = samples.points[name].astype(np.float64) * samples.scale + samples.loc
        away = NearestFaces(mesh)(world)[0] / samples.scale
        assert 0.4 < (away < 5e-4).mean() < 0.65
        assert away.max() < 6e-2
    ends, _ = creases(mesh.triangles, 30)
    edges = samples.points["salient"].astype(np.float64) * samples.scale + samples.loc
    along = ends[:, 1] - ends[:, 0]
    share = np.einsum("nsk,sk->ns", edges[:300, None] - ends[:, 0], along) / (along**2).sum(axis=1)
    foot = ends[:, 0] + np.clip(share, 0, 1)[..., None] * along
    assert np.linalg.norm(edges[:300, None] - foot, axis=2).min(axis=1).max() < 1e-6 * samples.scale


def test_a_shape_without_salient_edges_falls_back_to_its_surface_and_says_so(tmp_path):
    save_mesh(trimesh.creation.icosphere(subdivisions=3), tmp_path / "ball.ply")
    samples = drawn(tmp_path / "ball.ply", "sharp=500", "salient=500")
    assert samples.notes == ("no edge of 30 degrees: the whole surface stands for salient edges",)
    world = samples.points["salient"].astype(np.float64) * samples.scale + samples.loc
    assert np.abs(np.linalg.norm(world, axis=1) - 1).max() < 0.02
    np.testing.assert_allclose(samples.values["salient"], world, atol=0.1)


def test_what_is_hidden_in_a_solid_gets_no_points_and_counts_for_no_distance(tmp_path):
    boxes = [trimesh.creation.box((2, 1, 1)), trimesh.creation.box((2, 1, 1))]
    boxes[1].apply_translation((1, 0, 0))  # together a box of sides 3, 1, 1, with walls inside
    boxes[1].faces = boxes[1].faces[:, ::-1]  # wound inside out
    save_mesh(trimesh.util.concatenate(boxes), tmp_path / "two.ply")
    samples = drawn(tmp_path / "two.ply", "surface=2000", "volume=2000", target="signed")
    world = samples.points["surface"].astype(np.float64) * samples.scale + samples.loc - [0.5, 0, 0]
    away = np.abs(np.abs(world) / [1.5, 0.5, 0.5] - 1).min(axis=1)
    assert (away < 1e-2).all()
    assert (np.einsum("ij,ij->i", world, samples.values["surface"]) > 0).all()
    points = samples.points["volume"].astype(np.float64) * samples.scale + samples.loc - [0.5, 0, 0]
    apart = np.abs(points) - [1.5, 0.5, 0.5]
    exact = -np.linalg.norm(np.maximum(apart, 0), axis=1) - np.minimum(apart.max(axis=1), 0)
    np.testing.assert_allclose(samples.values["volume"] * samples.scale, exact, atol=0.02)


def test_near_and_mixed_points_keep_away_from_walls_hidden_in_a_solid(tmp_path):
    box, wall = trimesh.creation.box((2, 2, 2)), trimesh.creation.box((1.2, 1.2, 0.02))
    save_mesh(trimesh.util.concatenate([box, wall]), tmp_path / "walled.ply")
    samples = drawn(tmp_path / "walled.ply", "mixed=4000", "near=4000", uniform=0, widths=(1e-3,))
    for name in ("mixed", "near"):
        world = samples.points[name].astype(np.float64) * samples.scale + samples.loc
        assert np.abs(np.abs(world).max(axis=1) - 1).max() < 0.05


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    mesh = trimesh.creation.icosphere(subdivisions=4)
    path = tmp_path_factory.mktemp("scan") / "scan.xyz"
    np.savetxt(path, np.concatenate([mesh.vertices, mesh.vertex_normals], axis=1))
    return path


@pytest.mark.parametrize(("layout", "ways"), [("dora", "take --water"), ("ff3d", "--target occupancy or --water")])
def test_a_scan_without_distances_is_told_what_its_layout_can_do(scan, layout, ways):
    with pytest.raises(ValueError, match=f"{ways}.* first"):
        draw_samples(scan, make_sets_config(layout, target="signed", points=10))


def test_a_scan_is_closed_first_for_any_set(scan):
    config = make_sets_config("dora", points=500, watertight=True, resolution=32)
    samples = draw_samples(scan, config)
    world = samples.points["volume"].astype(np.float64) * samples.scale + samples.loc
    exact = (1 - np.linalg.norm(world, axis=1)) / samples.scale
    np.testing.assert_allclose(samples.values["volume"], exact, atol=0.02)


def test_a_sheet_has_unsigned_distances_though_nothing_is_inside(tmp_path):
    sheet = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], [[0, 1, 2], [0, 2, 3]], process=False)
    save_mesh(sheet, tmp_path / "sheet.ply")
    samples = drawn(tmp_path / "sheet.ply", "volume=500", "near=500", "surface=500", target="unsigned")
    assert samples.inside is None
    world = samples.points["near"].astype(np.float64) * samples.scale + samples.loc
    exact = np.linalg.norm(world - np.concatenate([np.clip(world[:, :2], 0, 1), 0 * world[:, 2:]], axis=1), axis=1)
    np.testing.assert_allclose(samples.values["near"] * samples.scale, exact, atol=1e-6)


def test_truncated_distances_are_the_whole_ones_clipped(bracket):
    whole = drawn(bracket, "volume=3000", "near=3000", target="signed")
    clipped = drawn(bracket, "volume=3000", "near=3000", target="signed", truncation=0.02)
    for name in ("volume", "near"):
        np.testing.assert_allclose(clipped.values[name], whole.values[name].clip(-0.02, 0.02), atol=2e-6)


def test_meshes_have_different_points_in_their_volume(tmp_path):
    for name, side in (("a", 1.0), ("b", 2.0)):
        save_mesh(trimesh.creation.box((side, side, side)), tmp_path / f"{name}.ply")
    one, other = (drawn(tmp_path / f"{name}.ply", "volume=100").points["volume"] for name in ("a", "b"))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("layout", "settings", "reason"),
    [
        ("shapenet", {}, "unknown layout"),
        ("occnet", {"sets": ["sharp"]}, "has no set 'sharp'; it has volume, near, surface"),
        ("ff3d", {"sets": ["near=many"]}, "near=5000"),
        ("ff3d", {"sets": ["near=0"]}, "must be positive"),
        ("ff3d", {"points": 0}, "must be positive"),
        ("occnet", {"target": "signed"}, "holds occupancy, not signed"),
        ("ff3d", {"truncation": 0.1}, "a truncation is"),
        ("ff3d", {"sets": ["near"], "widths": ()}, "need --widths"),
        ("dora", {"angle": 180}, "angle"),
        ("dora", {"category": "table"}, "a category is"),
        ("ff3d", {"watertight": True, "resolution": 0}, "resolution"),
        ("ff3d", {"resolution": 64}, "--watertight first: give both, or leave --resolution 64 out"),
        *[("occnet", {"category": name}, "--category must be one") for name in ("", ".", "..", "a/b", "a\\b", "a\0")],
    ],
)
def test_settings_that_make_no_set_are_refused(layout, settings, reason):
    with pytest.raises(ValueError, match=reason):
        make_sets_config(layout, **settings)


def test_settings_that_no_set_depends_on_make_no_other_set():
    unused = {"uniform": 0.1, "margin": 0.5, "angle": 77.0}
    for layout, sets, used in [
        ("ff3d", ("near", "surface"), ()),
        ("ff3d", ("mixed",), ("uniform", "margin")),
        ("ff3d", ("volume", "salient"), ("margin", "angle")),
        ("dora", ("volume", "sharp"), ("angle",)),
    ]:
        usual = make_sets_config(layout, sets).identity
        for name, value in unused.items():
            assert (make_sets_config(layout, sets, **{name: value}).identity != usual) == (name in used)
