import json

import pytest
import trimesh
from PIL import Image

from ff3d.benchmark import compare
from ff3d.report import table, write_report
from ff3d.settings import make_config

SMALL = {"width": 32, "depth": 2, "frequencies": 32, "batch_size": 1024, "pool_size": 4096, "device": "cpu"}


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    path = tmp_path_factory.mktemp("meshes") / "ball.ply"
    trimesh.creation.icosphere(subdivisions=3).export(path)
    return path


@pytest.fixture(scope="module")
def comparison(ball, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    config = make_config(steps=400, scale=1.0, learning_rate=0.01, **SMALL)
    return compare(ball, ("none", "gaussian"), config, folder, resolution=32), folder


def test_a_comparison_is_one_measured_row_a_mapping_on_equal_footing(comparison):
    result, _ = comparison
    assert [row.mapping for row in result.rows] == ["none", "gaussian"]
    for row, shape in zip(result.rows, result.shapes, strict=True):
        assert (row.steps, row.samples, row.failure) == (400, 400 * 1024, None)
        assert shape.is_watertight
        assert row.faces == len(shape.faces)
        assert row.iou["uniform"] > 0.9
        assert row.surface.chamfer < 0.02
    assert result.best.iou["boundary_face"] == max(row.iou["boundary_face"] for row in result.rows)


def test_each_row_is_on_disk_and_each_mapping_has_its_run(comparison):
    result, folder = comparison
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert [row["mapping"] for row in rows] == ["none", "gaussian"]
    assert rows[0]["iou"] == result.rows[0].iou
    for name in ("none", "gaussian"):
        assert {it.name for it in (folder / name).iterdir()} == {
            "config.json",
            "field.safetensors",
            "mesh.ply",
            "metrics.jsonl",
        }


def test_the_same_comparison_again_fits_nothing_and_measures_the_same(comparison, ball):
    result, folder = comparison
    stamps = [(folder / name / "field.safetensors").stat().st_mtime_ns for name in ("none", "gaussian")]
    again = compare(ball, ("none", "gaussian"), result.config, folder, resolution=32)
    assert [row.iou for row in again.rows] == [row.iou for row in result.rows]
    assert [(folder / name / "field.safetensors").stat().st_mtime_ns for name in ("none", "gaussian")] == stamps


def test_a_mapping_that_fails_is_a_row_with_a_reason_and_stops_nothing(ball, tmp_path):
    broken = make_config(steps=20, learning_rate=1e30, **SMALL)
    result = compare(ball, ("none", "basic"), broken, tmp_path, resolution=16)
    assert len(result.rows) == 2
    assert all("lower the learning rate" in row.failure for row in result.rows)
    page, picture = write_report(result, tmp_path)
    assert "none failed: " in page.read_text()
    assert picture.exists()


def test_a_field_that_is_nowhere_inside_is_a_row_with_the_range_of_its_logits(tmp_path):
    path = tmp_path / "speck.ply"
    trimesh.creation.cylinder(radius=1e-3, height=2, sections=8).export(path)
    config = make_config(steps=100, uniform=1.0, widths=(), margin=0.3, **SMALL)
    result = compare(path, ("none",), config, tmp_path / "out", resolution=8)
    assert "logits range from" in result.rows[0].failure
    assert result.shapes == [None]
    assert result.rows[0].steps == 100


def test_the_report_is_a_table_and_a_picture(comparison):
    result, folder = comparison
    page, picture = write_report(result, folder)
    text = page.read_text()
    assert "compare.png" in text
    assert result.source.sha256 in text
    for row in result.rows:
        assert f"{row.iou['boundary_face']:.4f}" in text
    with Image.open(picture) as image:
        assert image.width > 600
        assert len(image.getcolors(maxcolors=10**7)) > 200


def test_the_tables_columns_line_up(comparison):
    result, _ = comparison
    for markdown in (False, True):
        lines = table(result.rows, markdown=markdown).splitlines()
        body = [line for line in lines if not line.startswith("|---")]
        assert len({len(line) for line in body}) == 1
        assert len(body) == 3
