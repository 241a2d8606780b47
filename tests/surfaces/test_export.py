import numpy as np
import pytest
import trimesh

from ff3d.shapes.point_cloud import load_points
from ff3d.surfaces.export import save_points, save_voxels


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
