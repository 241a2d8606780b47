import json
import os
import re
import tomllib
from pathlib import Path

import ff3d
from ff3d.cli import main
from ff3d.fields.network import best_device, best_precision


def test_doctor_says_what_the_machine_offers_and_what_will_be_used(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    device = best_device()
    assert found["ff3d"] == ff3d.__version__
    assert found["will use"] == f"{device.type} in {best_precision(device)}"
    assert found["cores"].startswith(f"{os.cpu_count()} in the machine")
    assert "missing" not in found["libraries"].values()
    assert all(text.startswith(("there", "not there", "does not import")) for text in found["extras"].values())
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert set(found["extras"]) == set(project["optional-dependencies"]) - {"dev"}


def test_doctor_names_what_to_install_in_lines_for_people(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ff3d ")
    assert "pip install 'ff3d[" in out or out.count("there: ") >= 6


def test_the_version_is_one_number_everywhere(capsys):
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ff3d {ff3d.__version__}\n"
    assert version("ff3d") == ff3d.__version__
    root = Path(__file__).parents[2]
    assert f"\nversion: {ff3d.__version__}\n" in (root / "CITATION.cff").read_text()
    assert 'dynamic = ["version"]' in (root / "pyproject.toml").read_text()
    newest = re.search(r"^## (.*)$", (root / "CHANGELOG.md").read_text(), re.M)[1]
    assert newest == ff3d.__version__ or newest.endswith("(unreleased)")
