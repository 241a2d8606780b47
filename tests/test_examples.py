"""The programs in examples/ run, are short, and use public names alone."""

import ast
import re
import runpy
from pathlib import Path

import pytest

import ff3d

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_every_example_runs(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_every_example_is_under_40_lines_of_public_names(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 40
    assert set(re.findall(r"ff3d\.(\w+)", text)) <= set(ff3d.__all__)
    imported = {it.module for it in ast.walk(ast.parse(text)) if isinstance(it, ast.ImportFrom)}
    assert not any(name.startswith("ff3d") for name in imported)
