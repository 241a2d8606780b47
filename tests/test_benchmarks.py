"""Rows of tables, and files of releases: what scripts write and others read."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from ff3d.cli.main import all_commands

ROOT = Path(__file__).parents[1]


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLES = script(ROOT / "scripts/make_tables.py")
ROWS = script(ROOT / "benchmarks/rows.py")


def test_every_table_of_the_docs_is_what_its_rows_say():
    for page in [*TABLES.PAGES, TABLES.PROVENANCE]:
        text = page.read_text(encoding="utf-8")
        made = TABLES.provenance() if page == TABLES.PROVENANCE else TABLES.written(text)
        assert text == made, f"{page.name}: change docs/rows/*.jsonl, not the table; then make tables"


def test_all_rows_stand_in_a_page_and_say_where_they_come_from():
    pages = "".join(page.read_text(encoding="utf-8") for page in TABLES.PAGES)
    for path in TABLES.ROWS.glob("*.jsonl"):
        about, rows = TABLES.read_rows(path.stem)
        assert f"<!-- table: {path.stem} -->" in pages
        assert {"page", "columns", "command", "machine", "seeds", "date"} <= set(about)
        assert all(list(row) == [column["key"] for column in about["columns"]] for row in rows)


def test_rows_of_a_benchmark_become_a_table_and_keep_its_titles(tmp_path, monkeypatch):
    monkeypatch.setattr(TABLES, "ROWS", tmp_path)
    columns = {"what": "", "seconds": "1", "IoU": ".4"}
    ROWS.write_rows(tmp_path / "t.jsonl", columns, [["direct", 5.04, [0.99881, 0.0002]]], seeds=[0, 1])
    table = "| what | seconds | IoU |\n|---|---:|---:|\n| direct | 5.0 | .9988 (.0002) |\n"
    assert TABLES.markdown("t") == table
    about, *rows = (tmp_path / "t.jsonl").read_text().splitlines()
    (tmp_path / "t.jsonl").write_text("\n".join([about.replace('"what"', '"Which"', 1), *rows]))
    ROWS.write_rows(tmp_path / "t.jsonl", columns, [["direct", 5.04, [0.99881, 0.0002]]], seeds=[0, 1])
    assert TABLES.markdown("t") == table.replace("what", "Which")


@pytest.mark.parametrize(("seconds", "score", "worse"), [(1.2, 0.99, None), (1.3, 0.99, "start"), (1.0, 0.98, "IoU")])
def test_two_releases_are_compared(tmp_path, seconds, score, worse):
    for name, figures in (("a", {"start, s": 1.0, "IoU": 0.991}), ("b", {"start, s": seconds, "IoU": score, "new": 3})):
        text = json.dumps({"version": name, "machine": "one", "figures": figures})
        (tmp_path / name).write_text(text)
    command = [sys.executable, ROOT / "benchmarks/compare_releases.py", tmp_path / "a", tmp_path / "b"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == int(worse is not None)
    assert f"worse: {worse or 'nothing'}" in done.stdout
    assert "| new | - | 3 | |" in done.stdout


def test_files_of_releases_have_the_same_figures():
    files = sorted((ROOT / "benchmarks/releases").glob("*.json"))
    assert files
    assert len({tuple(json.loads(path.read_text())["figures"]) for path in files}) == 1


def test_every_command_that_writes_is_ended_at_random(tmp_path):
    kills = script(ROOT / "benchmarks/kills.py")
    ended = {arguments[0] for arguments in kills.commands(tmp_path).values()}
    assert ended | kills.WITHOUT_RESULTS == set(all_commands())
