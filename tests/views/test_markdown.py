import csv
import dataclasses
import io
import re

import numpy as np
import pytest
import trimesh
from PIL import Image

from ff3d.studies.plan import make_plan
from ff3d.studies.statistics import summary
from ff3d.studies.study import run_study
from ff3d.views.html import write_page
from ff3d.views.markdown import write_report
from ff3d.views.tables import COLUMNS, cells, csv_table, latex_table, noted, text_table

pytestmark = pytest.mark.slow

SMALL = {"width": 32, "depth": 2, "frequencies": 32, "batch_size": 1024, "pool_size": 4096, "device": "cpu"}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    trimesh.creation.icosphere(subdivisions=3).export(folder / "ball.ply")
    trimesh.creation.box().export(folder / "box.ply")
    plan = make_plan(
        [folder / "ball.ply", folder / "box.ply"],
        ("none", "gaussian"),
        (0, 1),
        resolution=32,
        steps=300,
        scale=1.0,
        learning_rate=0.01,
        **SMALL,
    )
    return run_study(plan, folder / "out", command="ff3d benchmark ball.ply box.ply")


@pytest.fixture(scope="module")
def broken(study):
    rows = [*study.rows[:-1], dataclasses.replace(study.rows[-1], iou={}, surface=None, failure="it broke")]
    return dataclasses.replace(study, rows=rows)


def test_a_cell_is_the_mean_with_its_interval_and_the_best_of_a_column_is_marked(study):
    for mesh in (None, "ball"):
        table = cells(study, mesh)
        for i, column in enumerate(COLUMNS):
            found = {arm: summary(study.of(arm, mesh), column.measure) for arm in table}
            for arm, (mean, width) in found.items():
                cell = table[arm][i]
                assert cell.text == format(mean / column.unit, column.form)
                assert cell.spread == (format(width / column.unit, column.form) if column.better else "")
            best = max if column.better > 0 else min
            marked = {arm for arm in table if table[arm][i].best}
            if column.better and len({table[arm][i].text for arm in table}) > 1:
                assert best(found, key=lambda arm: found[arm][0]) in marked
            else:
                assert not marked


def test_a_mean_over_survivors_says_so_and_is_nobodys_best(study, broken):
    (gaussian,) = {row.arm for row in broken.rows if row.failure}
    assert study.best == gaussian
    assert broken.best == "none"
    for mesh, count in ((None, "3 of 4"), ("box", "1 of 2")):
        table = cells(broken, mesh)
        for i, column in enumerate(COLUMNS):
            assert (f" ({count})" in table[gaussian][i].text) == (column.better != 0)
            assert not table[gaussian][i].best
            assert "of" not in table["none"][i].text
    assert cells(broken, "ball") == cells(study, "ball")
    none_left = [row if row.mesh == "ball" else dataclasses.replace(row, iou={}, failure="x") for row in study.rows]
    without = dataclasses.replace(study, rows=none_left)  # a mesh that nobody could be fitted to sets nobody behind
    assert without.best == gaussian
    assert cells(without) == cells(study, "ball")


def test_empty_test_points_are_a_dash_and_a_note_and_no_score(study):
    note = "nothing inside in 262,144 uniform test points: no IoU there"
    rows = [
        dataclasses.replace(row, iou={kind: it for kind, it in row.iou.items() if kind != "uniform"}, notes=[note])
        if row.mesh == "box"
        else row
        for row in study.rows
    ]
    empty = dataclasses.replace(study, rows=rows)
    lines = {mesh: text_table(empty, mesh).splitlines()[1:] for mesh in ("ball", "box")}
    assert [line.split()[1] for line in lines["box"]] == ["–", "–"]  # noqa: RUF001
    assert all(0.5 < float(line.split()[1]) <= 1 for line in lines["ball"])
    assert noted(empty) == [f"box: {note}"]
    rows[0] = dataclasses.replace(rows[0], notes=["something else"])
    assert noted(dataclasses.replace(study, rows=rows))[0] == "ball (none, seed 0): something else"
    write_report(empty, pictures=False)
    for page in (empty.folder / "report.md", write_page(empty)):
        assert f"box: {note}" in page.read_text(encoding="utf-8")


def test_the_columns_of_the_table_line_up(study):
    for markdown in (False, True):
        lines = text_table(study, markdown=markdown).splitlines()
        body = [line for line in lines if not line.startswith("|---")]
        assert len({len(line) for line in body}) == 1
        assert len(body) == 3
    assert text_table(study, markdown=True).count("**") >= 2


def test_the_papers_numbers_stand_beside_the_papers_protocol_alone(study):
    assert "0.973" not in text_table(study)
    plan = dataclasses.replace(study.plan, settings={"preset": "paper"})
    line = text_table(dataclasses.replace(study, plan=plan), markdown=True).splitlines()[-1]
    assert re.search(r"\| +0\.988 \| +0\.973 \|$", line)


def test_the_csv_holds_every_fit_with_every_digit(broken):
    rows = list(csv.DictReader(io.StringIO(csv_table(broken.rows), newline="")))
    assert len(rows) == 8
    for line, row in zip(rows[:-1], broken.rows, strict=False):
        assert (line["mesh"], line["mapping"], int(line["seed"])) == (row.mesh, row.mapping, row.seed)
        assert float(line["chamfer"]) == row.surface.chamfer
        assert float(line["uniform"]) == row.iou["uniform"]
    assert (rows[-1]["failure"], rows[-1]["uniform"]) == ("it broke", "")


def test_the_latex_table_has_a_line_an_arm_and_as_many_cells_in_each(study):
    lines = latex_table(study).splitlines()
    body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
    assert [line.split(" & ")[0] for line in body] == ["none", "gaussian"]
    assert {line.count(" & ") for line in [*body, lines[2]]} == {len(COLUMNS)}
    assert r"boundary\_face" in lines[2]
    assert r"\textbf{" in "".join(body)


def test_the_report_is_tables_pictures_and_how_it_was_made(broken):
    page, *pictures = write_report(broken)
    text = page.read_text()
    assert [it.name for it in pictures] == ["ball.png", "ball-cuts.png", "box.png", "box-cuts.png"]
    for picture in pictures:
        assert f"]({picture.name})" in text
        with Image.open(picture) as image:
            assert image.width > 600
            colors = np.asarray(image.convert("RGB")).reshape(-1, 3)
            assert 0.02 < (colors.min(axis=1) < 230).mean() < 0.9  # neither blank nor full
    assert "- box, gaussian, seed 1: it broke" in text
    assert "ff3d benchmark ball.ply box.ply" in text
    for row in broken.rows:
        assert row.sha256 in text
    assert broken.rows[0].tests in text


def test_the_reference_of_a_report_is_that_of_the_fits(study):
    for row in study.rows:
        reference = study.reference(row.mesh)
        assert (reference.source.sha256, reference.hash) == (row.sha256, row.tests)


def test_without_pictures_there_is_the_page_alone(study, tmp_path):
    assert [it.name for it in write_report(study, pictures=False)] == ["report.md"]


def test_pictures_show_what_is_inside_and_where_a_field_is_wrong(study):
    image = np.asarray(Image.open(write_report(study)[2]).convert("RGB")).astype(int)  # ball-cuts.png
    width = image.shape[1] // 3
    truth = image[60:, :width].reshape(-1, 3)
    red, blue = truth[:, 0] - truth[:, 2] > 120, truth[:, 2] - truth[:, 0] > 150
    assert not red.any()
    assert not blue.any()
