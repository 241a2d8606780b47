import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType

# Tests run side by side, one process a core (`make test`): a thread each then, set before torch and numpy read it.
# Passive: threads that wait for a busy core's thread would otherwise spin, and hold up the others.
if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# what makes a cluster of Ray keep to loopback, if it is set before ray is first imported
os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")

import jaxtyping
import pytest
import trimesh
from beartype import BeartypeConf, beartype
from hypothesis import settings

# What these modules say of types and shapes is checked at every call; FF3D_TEST_TYPES=0 leaves it out. Not those of
# settings, readers and extraction, which say themselves what is wrong with what they are given.
CHECKED = ["geometry", "labels", "metrics"]
CHECKED += [f"fields.{name}" for name in ("feature_grids", "field", "field_file", "mapping", "network", "quantization")]
CHECKED += [f"points.{name}" for name in ("label_files", "test_sets", "training_points")]
checks = ModuleType("ff3d_type_checks")  # the hook takes a checker by its name
checks.check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for mypy
sys.modules[checks.__name__] = checks
if os.environ.get("FF3D_TEST_TYPES") != "0":
    jaxtyping.install_import_hook([f"ff3d.{name}" for name in CHECKED], f"{checks.__name__}.check")

# no deadline: timing never decides a test
settings.register_profile("ff3d", deadline=None)
settings.load_profile("ff3d")


@pytest.fixture(autouse=True)
def _wrong_types(request):
    """Tests of what a function says of a wrong type must get as far as the function."""
    wrong = request.node.get_closest_marker("wrong_types") is not None
    jaxtyping.config.update("jaxtyping_disable", wrong)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session", autouse=True)
def _coarse_pictures():
    """One sample a pixel where a report only must have its pictures; tests/views/test_rendering.py takes all four."""
    from ff3d.views import rendering

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "SAMPLES", 1)
        yield


@pytest.fixture(scope="session")
def noting():
    """An executor that notes what memory each job may use."""
    from ff3d.jobs import Executor

    @dataclass(frozen=True)
    class Noting(Executor):
        noted: list = field(default_factory=list)

        def outcomes(self, jobs):
            self.noted.extend(job.max_memory for job in jobs)
            yield from Executor().outcomes(jobs)

    return Noting


@contextmanager
def _only_cluster(factory):
    """Within it no other process of these tests runs a cluster of Ray: on one machine they find one another."""
    fcntl = pytest.importorskip("fcntl", reason="no file locks here")
    with (factory.getbasetemp().parent / "ray.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def only_cluster(tmp_path_factory):
    """For a test that starts a cluster of Ray."""
    with _only_cluster(tmp_path_factory):
        yield


@pytest.fixture(scope="module")
def only_cluster_of_module(tmp_path_factory):
    """For a module whose tests share one."""
    with _only_cluster(tmp_path_factory):
        yield


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    """Two files for a study: a ball and a box."""
    from ff3d.formats.writers import save_mesh

    folder = tmp_path_factory.mktemp("meshes")
    save_mesh(trimesh.creation.icosphere(subdivisions=2), folder / "ball.ply")
    save_mesh(trimesh.creation.box(), folder / "box.ply")
    return folder / "ball.ply", folder / "box.ply"
