"""The training loop of docs/datasets.md, on a set that the command there prepares."""

import re
from pathlib import Path

import numpy as np
import pytest
import trimesh

from ff3d.cli.main import main
from ff3d.datasets.config import LAYOUTS
from ff3d.formats.writers import save_mesh

PAGE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()


@pytest.mark.slow
def test_the_loop_in_the_docs_learns_from_what_the_command_in_the_docs_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        mesh = trimesh.creation.icosphere(subdivisions=2)
        mesh.apply_scale([1, 0.3 + 0.2 * number, 0.5])
        save_mesh(mesh, tmp_path / "meshes" / f"{number}.ply")
    [command] = re.findall(r"^`ff3d (prepare .*)`, and then", PAGE, re.M)
    assert main([*command.split(), "--points", "3000"]) == 0
    namespace = {}
    [program] = re.findall(r"```python\n(from pathlib.*?)```", PAGE, re.S)
    exec(program, namespace)  # noqa: S102  (it is the page's)
    _, losses = namespace["train"]("set", epochs=200)
    assert np.mean(losses[-10:]) < 0.025  # the best constant: 0.05


def test_the_docs_name_what_each_layout_has_by_default():
    for layout, known in LAYOUTS.items():
        [row] = re.findall(rf"^\| `{layout}` \|.*", PAGE, re.M)
        for name in known.usual:
            assert f"{known.counts[name]:,}" in row
        kinds = {"float16"} if known.half_precision else {"float32"}
        assert kinds <= set(re.findall(r"float\d+", row))
        assert f"{2 * known.half:g}".lstrip("0") in row
