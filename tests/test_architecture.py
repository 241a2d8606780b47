"""The layer order of the package, and what its parts may import."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ff3d

PACKAGE = Path(ff3d.__file__).parent
LAYERS = [
    {"files"},
    {"formats", "storage", "grids", "quantization"},
    {"mapping", "metrics", "mesh", "shapes", "settings", "cellgrid", "search"},
    {"repair"},
    {"data", "pointcloud", "gpu", "extraction", "cleaning", "exporting", "rendering", "samples", "distance"},
    {"occupancy", "figure", "breaking"},
    {"field", "sampling"},
    {"pools", "labelling", "checking"},
    {"training"},
    {"runs"},
    {"benchmark"},
    {"plan", "workers"},
    {"study"},
    {"tuning"},
    {"report"},
    {"page"},
    {"cli"},
]
LEVEL = {module: level for level, layer in enumerate(LAYERS) for module in layer}


def imported_modules(path: Path) -> set[str]:
    """Every ff3d module that the file imports anywhere, in functions and under TYPE_CHECKING too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "ff3d":
                names |= {alias.name for alias in node.names}
            elif node.module.startswith("ff3d."):
                names.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("ff3d.")}
    return names


def modules() -> list[str]:
    return sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


def test_every_module_has_a_layer():
    assert set(modules()) == set(LEVEL)


@pytest.mark.parametrize("module", modules())
def test_a_module_imports_only_from_layers_under_its_own(module):
    upward = {it for it in imported_modules(PACKAGE / f"{module}.py") if LEVEL[it] >= LEVEL[module]}
    assert not upward, f"{module} (layer {LEVEL[module]}) imports {upward}"


def test_training_imports_and_runs_with_torch_numpy_and_safetensors_alone():
    code = """
import sys
for absent in ("trimesh", "igl", "embreex", "skimage", "scipy", "PIL", "tyro", "pydantic", "tqdm", "psutil"):
    sys.modules[absent] = None  # importing it raises, as on a machine without it
import numpy as np
from ff3d.field import OccupancyField
from ff3d.mapping import make_mapping
from ff3d.mesh import UnitCube
from ff3d.settings import make_config
from ff3d.training import optimise
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
    for path in PACKAGE.glob("*.py"):
        text = path.read_text()
        assert "allow_pickle=True" not in text
        assert "import pickle" not in text
