import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh

from ff3d.metrics import iou, surface_distances
from ff3d.points.test_sets import TEST_KINDS
from ff3d.runs import Run, RunError
from ff3d.settings import make_config
from ff3d.shapes.mesh import load_mesh
from ff3d.storage import Storage
from ff3d.studies.study import read_rows
from ff3d.studies.task import ROW, Row, Task, perform, reference

pytestmark = pytest.mark.slow

SMALL = {"width": 32, "depth": 2, "frequencies": 32, "batch_size": 1024, "pool_size": 4096, "device": "cpu"}


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    path = tmp_path_factory.mktemp("meshes") / "ball.ply"
    trimesh.creation.icosphere(subdivisions=3).export(path)
    return path


@pytest.fixture(scope="module")
def task(ball):
    config = make_config(steps=400, scale=1.0, learning_rate=0.01, mapping="gaussian", seed=3, **SMALL)
    return Task(ball, config, {"scale": 1.0}, resolution=32)


@pytest.fixture(scope="module")
def done(task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / task.name
    row, whole = perform(task, folder)
    assert whole
    return row, folder


def test_the_row_says_what_the_run_is_and_what_its_field_and_mesh_measure(task, done, ball):
    row, folder = done
    field, shape, truth = Run(folder).load(), load_mesh(folder / "mesh.ply"), reference(ball)
    assert folder.name == "ball-gaussian-scale=1.0-3"
    assert (row.mesh, row.arm, row.mapping, row.seed) == ("ball", "gaussian scale=1.0", "gaussian", 3)
    assert (row.steps, row.samples, row.failure) == (400, 400 * 1024, None)
    assert (row.parameters, row.width, row.frequencies) == (field.parameter_count, 32, 32)
    assert (row.scale, row.learning_rate) == (1.0, 0.01)
    assert row.bytes == (folder / "field.safetensors").stat().st_size
    assert row.faces == len(shape.faces)
    assert row.iou == {kind: round(iou(field.contains, points), 5) for kind, points in truth.tests.items()}
    assert row.surface.chamfer == pytest.approx(surface_distances(shape, truth.mesh, seed=3).chamfer, rel=1e-3)
    assert 0 < row.label_seconds < row.seconds
    assert row.evaluation_seconds > 0
    assert row.device == "cpu"
    assert row.tests == truth.hash
    assert [it["step"] for it in row.history][-1] == 400
    assert row.iou["uniform"] > 0.9


def test_a_row_reads_back_as_it_was_written(done):
    row, folder = done
    assert Row.from_json((folder / ROW).read_text()) == row
    assert Row.from_json(row.to_json()) == row
    with pytest.raises(ValueError, match="not a row"):
        Row.from_json('{"mesh": "ball"}')
    with pytest.raises(ValueError, match="not a row"):
        Row.from_json(row.to_json()[:-9])


def test_a_task_that_is_done_is_only_read(task, done):
    row, folder = done
    stamp = (folder / "field.safetensors").stat().st_mtime_ns
    assert perform(task, folder) == (row, True)
    assert (folder / "field.safetensors").stat().st_mtime_ns == stamp
    (folder / ROW).unlink()  # killed between the fit and its row
    again, _ = perform(task, folder)
    assert (folder / "field.safetensors").stat().st_mtime_ns == stamp
    assert again.iou == row.iou
    assert again.surface == row.surface


def test_a_fit_that_breaks_is_a_row_with_a_reason_and_without_measures(task, tmp_path):
    broken = dataclasses.replace(task, config=make_config(steps=20, learning_rate=1e30, **SMALL))
    row, whole = perform(broken, tmp_path / "run")
    assert whole
    assert "lower the learning rate" in row.failure
    assert row.value("iou.uniform") is row.value("surface.chamfer") is row.value("seconds") is None
    assert json.loads((tmp_path / "run" / ROW).read_text())["failure"] == row.failure


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mapping": "lattice", "bytes": 2_000}, "the shape takes more than 900 bytes; give more"),
        ({"mapping": "grid", "finest": 2048, "steps": 1}, "numbers; at most 67,108,864"),
        ({"mapping": "none", "steps": 1, "width": 10**7}, "can't allocate memory"),  # torch's RuntimeError
    ],
)
def test_settings_that_a_fit_breaks_at_are_a_row_and_not_the_end_of_the_study(tmp_path, settings, says):
    ball, places = trimesh.creation.icosphere(1, 0.07), np.random.default_rng(0).random((150, 3))
    trimesh.util.concatenate([ball.copy().apply_translation(place) for place in places]).export(tmp_path / "crumbs.ply")
    task = Task(tmp_path / "crumbs.ply", make_config(**{"device": "cpu"} | settings), {})
    row, whole = perform(task, tmp_path / "run")
    assert whole
    assert says in row.failure
    assert row.iou == {}
    assert perform(task, tmp_path / "run") == (row, True)


def test_test_points_that_are_not_finite_are_a_row_before_the_fit(task, tmp_path):
    points = np.full((8, 3), np.nan)
    np.savez(tmp_path / "ball.npz", uniform=points, uniform_inside=np.zeros(8, dtype=bool))
    row, whole = perform(dataclasses.replace(task, testset=tmp_path / "ball.npz"), tmp_path / "run")
    assert whole
    assert "not finite" in row.failure
    assert not (tmp_path / "run" / "config.json").exists()


def test_what_is_wrong_with_every_fit_alike_or_with_the_folder_is_raised(task, done, tmp_path):
    nowhere = dataclasses.replace(task.config, device="abacus")
    with pytest.raises(ValueError, match="device 'abacus' cannot be used here"):
        perform(dataclasses.replace(task, config=nowhere), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    shutil.copytree(done[1], tmp_path / "run")
    (tmp_path / "run" / ROW).unlink()
    with pytest.raises(RunError, match="other settings"):
        perform(dataclasses.replace(task, config=dataclasses.replace(task.config, seed=4)), tmp_path / "run")


def test_a_field_that_is_nowhere_inside_has_its_ious_and_no_surface(tmp_path):
    path = tmp_path / "speck.ply"
    trimesh.creation.cylinder(radius=1e-3, height=2, sections=8).export(path)
    config = make_config(steps=100, uniform=1.0, widths=(), margin=0.3, mapping="none", **SMALL)
    row, _ = perform(Task(path, config, {}, resolution=8), tmp_path / "run")
    assert "logits range from" in row.failure
    assert (row.steps, row.value("steps"), row.surface) == (100, 100, None)
    assert row.value("iou.uniform") is not None


def test_a_mesh_that_cannot_be_labelled_is_a_row_with_the_reason(task, tmp_path):
    path = tmp_path / "sheet.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 1 1 0.1\nv 0 1 0\nf 1 2 3 4\n")
    row, whole = perform(dataclasses.replace(task, mesh=path), tmp_path / "run")
    assert whole
    assert "open" in row.failure


def test_frozen_test_points_take_the_place_of_drawn_ones(task, done, ball, tmp_path):
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (4096, 3))
    inside = np.linalg.norm(points, axis=1) < 1
    entries = {it: points for it in TEST_KINDS} | {f"{it}_inside": inside for it in TEST_KINDS}
    np.savez(tmp_path / "ball.npz", **entries)
    folder = tmp_path / "run"
    row, _ = perform(dataclasses.replace(task, testset=tmp_path / "ball.npz"), folder)
    assert row.tests != done[0].tests
    answer = Run(folder).load().contains(points)
    assert row.iou["uniform"] == pytest.approx((answer & inside).sum() / (answer | inside).sum(), abs=1e-5)


def test_a_reference_is_kept_for_other_test_sets_and_not_for_a_changed_file(tmp_path, monkeypatch):
    path, testset = tmp_path / "shape.ply", tmp_path / "tests.npz"
    trimesh.creation.icosphere(subdivisions=2).export(path)
    first = reference(path)
    assert reference(path) is first
    other = reference(path, testset)
    assert other.oracle is first.oracle
    assert other.testset == testset
    trimesh.creation.box().export(path)
    os.utime(path, (1, 1))
    changed = reference(path)
    assert len(changed.mesh.faces) == 12
    monkeypatch.setattr("ff3d.studies.task.KEPT", 0)  # no more than one
    trimesh.creation.torus(1.0, 0.4).export(tmp_path / "torus.ply")
    reference(tmp_path / "torus.ply")
    assert reference(path) is not changed


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "0"},
        {"iou": {"uniform": "1"}},
        {"iou": []},
        {"surface": {"chamfer": "x"}},
        {"surface": 3},
        {"history": [{"step": 1}]},
        {"notes": [1]},
        {"bytes": 1.5},
        {"colour": 1},
    ],
)
def test_a_row_of_wrong_types_is_refused_where_it_is_read(change):
    plain = json.loads(Row.failed(Task(Path("a.ply"), make_config(), {}), "x").to_json())
    assert Row.from_json(json.dumps(plain)).failure == "x"
    with pytest.raises(ValueError, match="not a row of a benchmark"):
        Row.from_json(json.dumps(plain | change))


def test_a_row_in_the_folder_of_another_is_refused(tmp_path):
    row = Row.failed(Task(Path("../../evil.ply"), make_config(), {}, title="../../evil"), "x")
    (tmp_path / "evil-gaussian-0").mkdir()
    (tmp_path / "evil-gaussian-0" / ROW).write_text(row.to_json())
    with pytest.raises(ValueError, match=r"it is that of .*; delete it to do that fit again"):
        read_rows(Storage(tmp_path))
