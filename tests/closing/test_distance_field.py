import numpy as np
import pytest
import trimesh

from ff3d.closing.distance_field import outward
from ff3d.labels.winding_number import WindingNumberOracle


def one_by_one(mesh, inside):
    """Each face by itself: whether it has inside in front of it alone."""
    middle, lift = mesh.triangles_center, 1e-3 * mesh.face_normals
    turned = inside(middle + lift) & ~inside(middle - lift)
    return np.where(turned[:, None], mesh.faces[:, ::-1], mesh.faces)


@pytest.mark.parametrize("flipped", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("loose", [False, True])
def test_faces_turned_together_are_turned_as_one_by_one(flipped, loose):
    ball, hollow = trimesh.creation.icosphere(subdivisions=2), trimesh.creation.icosphere(subdivisions=2, radius=0.5)
    far = trimesh.creation.box()
    far.apply_translation((5, 0, 0))
    far.faces = far.faces[:, ::-1]
    mesh = trimesh.util.concatenate([ball, hollow, far])  # the hollow is wound as the ball: it is to be turned
    turned = np.random.default_rng(0).random(len(mesh.faces)) < flipped
    vertices, faces = mesh.vertices, np.where(turned[:, None], mesh.faces[:, ::-1], mesh.faces)
    if loose:
        vertices, faces = vertices[faces].reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3)
    mesh = trimesh.Trimesh(vertices, faces, process=False)

    def exact(points):
        solid = trimesh.util.concatenate([ball, far])
        solid.faces[len(ball.faces) :] = solid.faces[len(ball.faces) :, ::-1]
        return WindingNumberOracle(solid)(points) & ~WindingNumberOracle(hollow)(points)

    result = outward(mesh, exact, 0.1)
    np.testing.assert_array_equal(result.faces, one_by_one(mesh, exact))
    assert result.volume == pytest.approx(ball.volume - hollow.volume + 1)
