import csv
import dataclasses
import io
from pathlib import Path

import pytest

from ff3d.settings import make_config
from ff3d.studies.task import Row, Task
from ff3d.views.tables import csv_table, markdown_text, paper_table


def row_of(mesh, reason):
    return Row.failed(Task(Path(f"{mesh}.ply"), make_config(), {}), reason)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_text_of_the_csv_is_a_formula_to_a_spreadsheet(start):
    hostile = f'{start}cmd|" C calc"!A0,\n'
    (line,) = csv.DictReader(io.StringIO(csv_table([row_of(hostile, hostile)]), newline=""))
    assert line["mesh"] == line["failure"] == f"'{hostile}"
    assert line["seed"] == "0"


def test_markdown_shows_names_and_failures_as_they_are():
    markdown_it = pytest.importorskip("markdown_it")
    hostile = "<script>alert(1)</script> | [x](http://evil) ![y](z) `a` **b** \\ & &lt;\n# head\n- item"
    for text in (hostile, "# head", "- item", "+ item"):
        page = f"- {markdown_text(text)}\n\n| a | b |\n|---|---|\n| {markdown_text(text)} | 1 |\n"
        tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(page)
        inline = [token for token in tokens if token.type == "inline"]
        shown = [text for token in inline for text in ["".join(it.content for it in token.children)]]
        assert {it.type for token in inline for it in token.children} <= {"text", "text_special"}
        assert shown == [" ".join(text.split()), "a", "b", " ".join(text.split()), "1"]
        assert not any(token.type in ("html_block", "heading_open") for token in tokens)


def test_the_papers_table_judges_means_over_meshes_by_the_published_spread():
    def row(mesh, mapping, seed, uniform, boundary):
        row = Row.failed(Task(Path(f"{mesh}.ply"), make_config("paper", mapping=mapping, seed=seed), {}), "")
        return dataclasses.replace(row, iou={"uniform": uniform, "boundary_face": boundary})

    rows = [row("dragon", "none", 0, 0.96, 0.80), row("dragon", "none", 1, 0.94, 0.90)]
    rows += [row("buddha", "none", 0, 0.96, 0.95), row("armadillo", "none", 0, 0.97, 0.90)]
    rows += [row("dragon", "basic", 0, 0.955, 0.892)]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in paper_table(rows).splitlines()]
    published = "0.959 ± 0.006", "0.864 ± 0.014"
    assert lines[2] == ["none", "0.960 ± 0.010", published[0], "within", "0.900 ± 0.050", published[1], "+0.036"]
    assert lines[3][1:4] == ["0.955 (1 mesh)", "0.966 ± 0.007", "-0.011"]
    assert lines[3][6] == "within"
    failed = dataclasses.replace(rows[0], seed=2, iou={}, failure="broke")
    words = [cell.strip() for cell in paper_table([*rows, failed]).splitlines()[2].strip("|").split("|")]
    assert (words[1], words[3]) == ("0.960 ± 0.010 (4 of 5 fits)", "–")  # noqa: RUF001
    varied = dataclasses.replace(rows[0], arm="none scale=6", varied={"scale": 6}, iou={"uniform": 0.1})
    assert paper_table([*rows, varied]) == paper_table(rows)
    assert [lines[4][1], lines[4][3]] == ["–", "–"]  # noqa: RUF001
