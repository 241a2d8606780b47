import numpy as np
import pytest
import trimesh

from ff3d.formats.writers import WRITERS
from ff3d.shapes.mesh import load_mesh
from ff3d.shapes.point_cloud import load_points
from ff3d.surfaces.cleaning import CleaningError, drop_floaters, simplify
from ff3d.surfaces.export import export_surface, save_points, save_voxels
from ff3d.surfaces.extraction import extract_mesh

BOX = np.array([[-1.0, -1, -1], [1, 1, 1]])
VOLUME = 4 / 3 * np.pi * 0.7**3


def ball(points):
    return 0.7 - np.linalg.norm(points, axis=1)


def ball_and_speck(points):
    return np.maximum(ball(points), 0.1 - np.linalg.norm(points - 0.85, axis=1))


@pytest.mark.parametrize("ending", WRITERS)
def test_a_mesh_is_written_in_every_format_and_measured(tmp_path, ending):
    path = tmp_path / f"ball{ending}"
    written = export_surface(ball, BOX, path, resolution=32)
    mesh = trimesh.load(path, force="mesh") if ending == ".glb" else load_mesh(path)
    assert written.path == path
    assert written.faces == len(mesh.faces)
    assert written.volume == pytest.approx(VOLUME, rel=0.01)
    assert written.volume == pytest.approx(mesh.volume, rel=1e-6)
    assert written.inside is None
    assert written.seconds > 0


def test_one_call_gives_what_its_steps_give_one_by_one(tmp_path):
    written = export_surface(
        ball_and_speck, BOX, tmp_path / "a.ply", resolution=48, refine=2, drop_floaters=0.05, simplify=500
    )
    mesh = extract_mesh(ball_and_speck, BOX, resolution=48, refine=2)
    expected = simplify(drop_floaters(mesh, 0.05), faces=500)
    mesh = load_mesh(tmp_path / "a.ply")
    assert written.faces == len(expected.faces) == len(mesh.faces) <= 500
    assert np.allclose(mesh.vertices, expected.vertices, atol=1e-7)
    assert np.abs(np.linalg.norm(mesh.vertices, axis=1) - 0.7).max() < 0.02  # no speck is left


def test_a_surface_simplified_within_an_error_stays_within(tmp_path):
    exact = export_surface(ball, BOX, tmp_path / "exact.ply", resolution=32, refine=3)
    coarse = export_surface(ball, BOX, tmp_path / "coarse.ply", resolution=32, refine=3, simplify_error=0.01)
    assert coarse.faces < exact.faces / 2
    assert np.abs(np.linalg.norm(load_mesh(tmp_path / "coarse.ply").vertices, axis=1) - 0.7).max() < 0.012


def test_smooth_normals_are_those_of_the_function(tmp_path):
    def paraboloid(points):  # central differences of a quadratic function are exact
        return 0.49 - (points**2).sum(axis=1)

    export_surface(paraboloid, BOX, tmp_path / "ball.glb", resolution=16, smooth_normals=True)
    (mesh,) = trimesh.load(tmp_path / "ball.glb").geometry.values()  # a mesh out of the scene loses its normals
    radial = mesh.vertices / np.linalg.norm(mesh.vertices, axis=1, keepdims=True)
    assert np.einsum("ij,ij->i", radial, mesh.vertex_normals).min() > 1 - 1e-6


def test_points_and_voxels_are_written_by_their_endings(tmp_path):
    points = export_surface(ball, BOX, tmp_path / "ball.xyz", resolution=32, points=300, seed=3)
    cloud = load_points(tmp_path / "ball.xyz")
    assert len(cloud.points) == 300
    assert np.linalg.norm(cloud.points, axis=1) == pytest.approx(0.7, abs=0.01)
    assert points.volume == pytest.approx(VOLUME, rel=0.02)
    voxels = export_surface(ball, BOX, tmp_path / "ball.npz", resolution=32)
    with np.load(tmp_path / "ball.npz") as stored:
        assert voxels.inside == stored["occupancy"].mean()
        assert voxels.volume == pytest.approx(stored["occupancy"].sum() * float(stored["spacing"]) ** 3)
    assert voxels.faces == 0


def test_the_guide_finds_what_the_coarse_grid_misses(tmp_path):
    center = np.array([0.0135, 0.0135, 0.0135])

    def speck(points):
        return 0.012 - np.linalg.norm(points - center, axis=1)

    def guide(centers, side):
        return np.abs(centers - center).max(axis=1) < 0.02 + side / 2

    written = export_surface(speck, BOX, tmp_path / "speck.ply", resolution=256, guide=guide)
    assert written.volume == pytest.approx(4 / 3 * np.pi * 0.012**3, rel=0.3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.step", {}, r"\.ply"),
        ("a.npz", {"refine": 1}, "voxels have no vertices"),
        ("a.npz", {"simplify": 100}, "voxels have no vertices"),
        ("a.xyz", {"points": 0}, "points must be at least 1"),
        ("a.ply", {"simplify": 100, "simplify_error": 0.1}, "either"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_anything_is_evaluated(tmp_path, name, options, message):
    def never(points):
        raise AssertionError("evaluated")

    with pytest.raises(ValueError, match=message):
        export_surface(never, BOX, tmp_path / name, **options)


def test_an_export_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "ball.ply"
    export_surface(ball, BOX, path, resolution=16)
    before = path.read_bytes()
    with pytest.raises(CleaningError):
        export_surface(ball, BOX, path, resolution=16, simplify_error=1e9)
    assert path.read_bytes() == before
    assert [it.name for it in tmp_path.iterdir()] == ["ball.ply"]


def test_points_lie_on_the_surface_with_its_normals_and_are_read_back(tmp_path):
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=2.0)
    mesh.apply_translation([10, 0, 0])
    save_points(mesh, tmp_path / "ball.xyz", count=5000)
    cloud = load_points(tmp_path / "ball.xyz")
    assert len(cloud.points) == 5000
    outward = cloud.points - [10, 0, 0]
    assert np.linalg.norm(outward, axis=1) == pytest.approx(2, abs=0.01)
    assert (cloud.normals * outward).sum(axis=1) == pytest.approx(2, abs=0.01)


def test_the_same_seed_gives_the_same_points(tmp_path):
    mesh = trimesh.creation.box()
    for name in ("a.xyz", "b.xyz"):
        save_points(mesh, tmp_path / name, count=100, seed=4)
    assert (tmp_path / "a.xyz").read_bytes() == (tmp_path / "b.xyz").read_bytes()
    with pytest.raises(ValueError, match="at least 1"):
        save_points(mesh, tmp_path / "c.xyz", count=0)


def test_voxels_are_where_they_say(tmp_path):
    bounds = np.array([[-1.0, -2, -0.5], [1, 2, 0.5]])

    def logits(points):
        assert ((points > bounds[0] - 0.1) & (points < bounds[1] + 0.1)).all()
        return 0.45 - np.linalg.norm(points - [0.3, -1, 0], axis=1)

    share = save_voxels(logits, bounds, tmp_path / "ball.npz", resolution=80)
    with np.load(tmp_path / "ball.npz") as made:
        occupancy, origin, spacing = made["occupancy"], made["origin"], float(made["spacing"])
    assert occupancy.shape == (40, 80, 20)
    assert spacing == pytest.approx(4 / 80)
    centers = origin + spacing * (np.argwhere(occupancy) + 0.5)
    assert np.linalg.norm(centers - [0.3, -1, 0], axis=1).max() < 0.45
    assert occupancy.sum() * spacing**3 == pytest.approx(4 / 3 * np.pi * 0.45**3, rel=0.02)
    assert share == occupancy.mean()


def test_a_box_that_is_none_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a box"):
        save_voxels(lambda points: points[:, 0], [[0, 0, 0], [1, 0, 1]], tmp_path / "x.npz")
