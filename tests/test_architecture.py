"""What the parts of the package may import; the order of the folders is a contract that `make lint` checks."""

import subprocess
import sys
from pathlib import Path

import pytest

import ff3d

PACKAGE = Path(ff3d.__file__).parent


def test_training_imports_and_runs_with_torch_numpy_and_safetensors_alone():
    code = """
import sys
for absent in ("trimesh", "igl", "embreex", "skimage", "scipy", "PIL", "tyro", "pydantic", "tqdm", "psutil"):
    sys.modules[absent] = None  # importing it raises, as on a machine without it
import numpy as np
from ff3d.fields.field import OccupancyField
from ff3d.fields.mapping import make_mapping
from ff3d.geometry.coordinates import UnitCube
from ff3d.settings import make_config
from ff3d.fitting import optimise
config = make_config(steps=3, batch_size=256, pool_size=256)
field = OccupancyField(make_mapping("gaussian"), cube=UnitCube((0.0, 0.0, 0.0), 1.0), bounds=[[-1] * 3, [1] * 3])
points = np.random.default_rng(0).random((256, 3)).astype(np.float32)
assert optimise(field, lambda index: (points, points[:, 0] > 0.5), config).step == 3
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_the_package_imports_no_heavy_library():
    code = "import sys, ff3d; print([m for m in ('torch', 'trimesh', 'scipy', 'skimage', 'igl') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ff3d.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(ff3d, name)
    assert isinstance(value, dict) or value.__doc__


def test_no_module_reads_pickles():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "allow_pickle=True" not in text
        assert "import pickle" not in text
