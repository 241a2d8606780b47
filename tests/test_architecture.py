"""What the parts of the package may import; the order of the folders is a contract that `make lint` checks."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import get_args

import pytest

import ff3d
from ff3d.fields.config import LATTICE_MAPPINGS, MappingName

PACKAGE = Path(ff3d.__file__).parent


@pytest.fixture(scope="module")
def on_a_bare_machine(tmp_path_factory):
    """Runs a program that finds torch with what torch needs, numpy, safetensors and ff3d, and no other package."""
    folder = tmp_path_factory.mktemp("packages")
    (folder / "ff3d").symlink_to(PACKAGE)
    names, installed = ["torch", "numpy", "safetensors"], set()
    while names:
        name = names.pop()
        if name not in installed:
            installed.add(name)
            try:
                distribution = metadata.distribution(name)
            except metadata.PackageNotFoundError:  # of another system
                continue
            for top in {file.parts[0] for file in distribution.files or () if file.parts[0] not in ("..", ".")}:
                if not (folder / top).exists():
                    (folder / top).symlink_to(distribution.locate_file(top))
            requirements = [it for it in distribution.requires or () if "extra ==" not in it]
            names += [re.match(r"[\w.-]+", it).group() for it in requirements]
    assert not (folder / "scipy").exists()

    def run(code: str) -> str:
        command = [sys.executable, "-S", "-c", code]  # -S: without this environment's packages
        environment = os.environ | {"PYTHONPATH": str(folder)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


NETWORKS = [name for name in get_args(MappingName) if name not in LATTICE_MAPPINGS]


@pytest.mark.slow
def test_every_mapping_trains_saves_and_loads_with_torch_numpy_and_safetensors_alone(tmp_path, on_a_bare_machine):
    code = f"""
import numpy as np
import torch
from ff3d.fields.feature_grids import GridMapping, plain_lookup
from ff3d.fields.field import OccupancyField, load_field
from ff3d.fields.mapping import make_mapping
from ff3d.geometry.coordinates import UnitCube
from ff3d.geometry.surface_cells import SurfaceCells
from ff3d.fields.config import Budget, OptimiserConfig
from ff3d.fields.optimise import optimise
from torch.nn.functional import binary_cross_entropy_with_logits
points = np.random.default_rng(0).random((256, 3)).astype(np.float32)
cells = SurfaceCells(np.zeros(3), 0.25, np.random.default_rng(1).choice(4, (4, 4, 4)).astype(np.uint8))
for name in {NETWORKS}:
    table = dict(levels=2, coarsest=4, finest=8) if name in ("grid", "hash", "planes") else {{}}
    field = OccupancyField(
        make_mapping(name, **table), width=16, depth=2, cube=UnitCube((0.0, 0.0, 0.0), 1.0), bounds=[[-1] * 3, [1] * 3],
        surface=cells, guarded=True,
    )
    before = [parameter.detach().clone() for parameter in field.parameters()]
    config = OptimiserConfig(batch_size=256, pool_size=256)
    draw = lambda index, count: (points, points[:, 0] > 0.5)
    assert optimise(field, draw, config, Budget(steps=3), loss=binary_cross_entropy_with_logits).step == 3
    # tables and frequencies move too
    assert all(bool((one != other).any()) for one, other in zip(before, field.parameters(), strict=True))
    field.save({str(tmp_path / "field.safetensors")!r})
    loaded = load_field({str(tmp_path / "field.safetensors")!r}, device="cpu")
    loaded.precision = field.precision
    assert np.array_equal(loaded.logits(points), field.logits(points))
    print(name)
unit = torch.rand(500, 3, generator=torch.Generator().manual_seed(0))
for name in ("grid", "hash", "planes"):
    mapping = GridMapping(name, levels=3, coarsest=4, finest=32)
    gradients = []
    for lookup in (None, plain_lookup):
        mapping.table.grad = None
        looked_up = lookup and lookup(mapping.table, *mapping.corners(unit))
        features = mapping(unit) if lookup is None else looked_up.unflatten(0, (-1, len(mapping.axes))).prod(1)
        features = features if lookup is None else features.transpose(0, 1).flatten(1)
        (features * torch.arange(features.shape[1])).sum().backward()
        gradients.append(mapping.table.grad)
    torch.testing.assert_close(*gradients)
"""
    assert on_a_bare_machine(code).split() == NETWORKS


def test_a_wrong_import_breaks_its_contract_and_is_named(tmp_path):
    shutil.copytree(PACKAGE, tmp_path / "ff3d", ignore=shutil.ignore_patterns("__pycache__"))
    wrong = {
        "geometry/coordinates.py": "import ff3d.fitting",  # upwards
        "fields/mapping.py": "def late():\n    import scipy.spatial",  # on a bare machine, and late
        "geometry/arrays.py": "import ff3d.geometry.coordinates",  # which imports arrays
    }
    for name, line in wrong.items():
        with (tmp_path / "ff3d" / name).open("a") as file:
            file.write(f"\n{line}\n")
    command = ["lint-imports", "--no-cache", str(PACKAGE.parent / "pyproject.toml")]
    program = (
        f"import sys; sys.argv = {command}; from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    assert done.returncode != 0
    printed = " ".join(done.stdout.split())
    assert "ff3d.geometry.coordinates -> ff3d.fitting" in printed
    assert "ff3d.fields.mapping -> scipy" in printed
    assert "No cycles are allowed in ff3d.geometry" in printed


HEAVY = ("numpy", "torch", "trimesh", "scipy", "skimage", "igl", "PIL", "requests", "fsspec", "pyarrow", "jinja2")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("fit", "--help"), ("benchmark", "--help")])
def test_neither_the_package_nor_its_help_imports_a_heavy_library(arguments):
    code = f"""
import sys
import ff3d
if {arguments}:
    from ff3d.cli.main import main
    try:
        main({list(arguments)})
    except SystemExit as done:
        assert not done.code
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("name", ff3d.__all__)
def test_every_public_name_is_there_and_documented(name):
    value = getattr(ff3d, name)
    assert isinstance(value, dict) or value.__doc__


def test_no_file_is_longer_than_450_lines_and_no_folder_has_more_than_nine_modules():
    folders = [PACKAGE, *(path.parent for path in PACKAGE.rglob("__init__.py"))]
    for folder in folders:
        modules = [path for path in folder.glob("*.py") if path.name not in ("__init__.py", "__main__.py")]
        assert len(modules) <= 9, folder
        assert {path.name: lines for path in modules if (lines := len(path.read_text().splitlines())) > 450} == {}


def test_the_wheel_has_every_folder_of_the_package_and_the_sample_meshes():
    settings = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {path.parent for path in PACKAGE.rglob("__init__.py")}
    names = {".".join(folder.relative_to(PACKAGE.parent).parts) for folder in folders}
    assert set(settings["packages"]) == names | {"ff3d.meshes"}


def test_every_library_that_is_imported_is_a_dependency_or_an_extra():
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
    names = {re.match(r"[\w.-]+", line).group().replace("-", "_").lower() for line in declared}
    called = {"igl": "libigl", "skimage": "scikit_image", "PIL": "pillow", "yaml": "pyyaml", "warp": "warp_lang"}
    imported = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    others = imported - set(sys.stdlib_module_names) - {"ff3d"}
    assert {called.get(name, name).lower() for name in others} - names == set()


def test_no_module_reads_pickles():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "allow_pickle=True" not in text
        assert "import pickle" not in text


def test_every_test_that_the_docs_name_exists():
    root = Path(__file__).parents[1]
    named = {name for page in root.glob("docs/*.md") for name in re.findall(r"`(test_\w+)`", page.read_text())}
    tests = {
        name for file in root.glob("tests/**/*.py") for name in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
    }
    assert named - tests == set()
    assert named
