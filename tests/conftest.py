import os

# Tests run side by side, one process a core (`make test`): a thread each then, set before torch and numpy read it.
# Passive: threads that wait for a busy core's thread would otherwise spin, and hold up the others.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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
