import pytest
import trimesh
from hypothesis import settings

from ff3d.formats.writers import save_mesh

# no deadline: timing never decides a test
settings.register_profile("ff3d", deadline=None)
settings.load_profile("ff3d")


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    """Two files for a study: a ball and a box."""
    folder = tmp_path_factory.mktemp("meshes")
    save_mesh(trimesh.creation.icosphere(subdivisions=2), folder / "ball.ply")
    save_mesh(trimesh.creation.box(), folder / "box.ply")
    return folder / "ball.ply", folder / "box.ply"
