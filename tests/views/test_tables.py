import csv
import io
from pathlib import Path

import pytest

from ff3d.settings import make_config
from ff3d.studies.task import Row, Task
from ff3d.views.tables import csv_table, markdown_text


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
