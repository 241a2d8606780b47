import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import ff3d
from ff3d.cli import main

LESSON = Path(__file__).parents[1] / "docs/lesson.ipynb"
BUDGET = "seconds, steps, points, fit_steps, places = 5.0, 500, 800, 300, 6"
SMALL = "seconds, steps, points, fit_steps, places = 0.2, 20, 80, 20, 1"


def code_of(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_the_lesson_is_short_and_uses_public_names_alone():
    code = code_of(nbformat.read(LESSON, as_version=4))
    assert sum(len(source.splitlines()) for source in code) <= 100
    assert set(re.findall(r"ff3d\.(\w+)", "\n".join(code))) - {"cli"} <= set(ff3d.__all__)
    assert BUDGET in code[0]


@pytest.mark.slow
def test_the_lesson_runs_from_end_to_end(tmp_path):
    notebook = nbformat.read(LESSON, as_version=4)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    first.source = first.source.replace(BUDGET, SMALL)
    last = next(cell for cell in notebook.cells if "compare" in cell.source and cell.cell_type == "code")
    last.source = last.source.replace('"64"', '"32", "--width", "16", "--depth", "1"')
    NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    texts = [output.text for cell in notebook.cells for output in cell.get("outputs", ()) if "text" in output]
    assert any("predicted order" in text for text in texts)
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", ()) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 3


@pytest.mark.slow
def test_the_lecture_puts_every_figure_into_one_folder(tmp_path):
    assert main(["lecture", "--out", str(tmp_path), "--mesh", "bracket", "--effort", "0.02"]) == 0
    for page in ("image/report.html", "signal/report.html", "kernels/report.html", "shape/report.html"):
        assert (tmp_path / page).stat().st_size > 1000


def test_a_lecture_of_no_effort_is_refused(tmp_path, caplog):
    assert main(["lecture", "--out", str(tmp_path), "--effort", "0"]) == 1
    assert "--effort must be positive" in caplog.records[-1].message
