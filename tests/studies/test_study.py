import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from pyarrow import parquet
from scipy import stats

from ff3d.files import _sha256
from ff3d.formats.writers import save_mesh
from ff3d.labels.oracles import load_timed
from ff3d.settings import make_config
from ff3d.storage import Storage
from ff3d.studies.plan import Plan
from ff3d.studies.statistics import curve, interval, summary, sweep
from ff3d.studies.study import ROWS, TABLE, Study, read_rows, run_study
from ff3d.studies.task import ROW, Row, Task
from ff3d.studies.workers import Workers
from ff3d.views.html import write_page
from ff3d.views.markdown import write_report

pytestmark = pytest.mark.slow

TINY = {
    "steps": 120,
    "width": 32,
    "depth": 2,
    "frequencies": 8,
    "batch_size": 256,
    "pool_size": 1024,
    "device": "cpu",
    "precision": "float32",
    "learning_rate": 0.01,
}


def plan_of(meshes, **changes):
    settings = {"mappings": ("none", "basic"), "seeds": (0,), "resolution": 16} | changes
    return Plan(tuple(meshes), settings=TINY, **settings)


def timeless(rows):
    """The rows without what the clock says."""
    clock = {"seconds": 0, "label_seconds": 0, "evaluation_seconds": 0}
    history = [[{**it, "seconds": 0, "labelling": 0} for it in row.history] for row in rows]
    return [dataclasses.replace(row, history=it, **clock) for row, it in zip(rows, history, strict=True)]


def row_of(mapping="none", seed=0, mesh="ball", **measures):
    task = Task(Path(f"{mesh}.ply"), make_config(mapping=mapping, seed=seed), measures.pop("varied", {}))
    return dataclasses.replace(Row.failed(task, ""), failure=None, **measures)


@pytest.fixture(scope="module")
def undisturbed(meshes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run_study(plan_of(meshes), folder).rows


def test_every_fit_of_the_plan_is_one_row_in_every_file(undisturbed, meshes):
    folder, rows = undisturbed
    assert [(row.mesh, row.mapping, row.seed) for row in rows] == [
        (mesh, mapping, 0) for mesh in ("ball", "box") for mapping in ("none", "basic")
    ]
    assert [Row.from_json(line) for line in (folder / ROWS).read_text().splitlines()] == rows
    assert list(read_rows(Storage(folder)).values()) == sorted(rows, key=lambda row: (row.mesh, row.mapping))
    table = parquet.read_table(folder / TABLE).to_pylist()
    for row, line in zip(rows, table, strict=True):
        assert (row.failure, row.steps) == (None, 120)
        assert line["iou_uniform"] == row.iou["uniform"]
        assert line["surface_chamfer"] == row.surface.chamfer
        assert json.loads(line["history"]) == row.history
        assert (folder / f"{row.mesh}-{row.mapping}-0" / "mesh.ply").exists()


def test_the_same_again_does_nothing_and_more_seeds_only_what_is_new(undisturbed, meshes, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(undisturbed[0], folder)
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob(f"*/{ROW}")}
    assert run_study(plan_of(meshes), folder).rows == undisturbed[1]
    more = run_study(plan_of(meshes, seeds=(0, 1)), folder).rows
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert len(more) == 8
    assert more[::2] == undisturbed[1]
    with pytest.raises(ValueError, match="other settings"):
        run_study(plan_of(meshes, resolution=17), folder)


def test_another_mesh_of_the_same_name_is_refused(undisturbed, meshes, tmp_path):
    other = tmp_path / "ball.ply"
    save_mesh(trimesh.creation.icosphere(subdivisions=1), other)
    with pytest.raises(ValueError, match="other meshes of these names"):
        run_study(plan_of([other]), undisturbed[0])


def test_what_fails_is_a_row_that_stops_nothing_and_is_done_again_only_when_asked(meshes, tmp_path):
    sheet = tmp_path / "sheet.obj"
    sheet.write_text("v 0 0 0\nv 1 0 0\nv 1 1 0.1\nv 0 1 0\nf 1 2 3 4\n")
    plan = plan_of([sheet, meshes[0]], mappings=("none",))
    study = run_study(plan, tmp_path / "out")
    assert "open" in study.rows[0].failure
    assert study.rows[1].failure is None
    assert study.missing == 0
    kept = tmp_path / "out" / "sheet-none-0" / ROW
    broken = kept.read_text().replace("open", "OPEN")
    kept.write_text(broken)
    assert run_study(plan, tmp_path / "out").rows[0].failure.count("OPEN")
    assert "OPEN" not in run_study(plan, tmp_path / "out", again=True).rows[0].failure
    kept.write_text(broken[:-20])
    with pytest.raises(ValueError, match="delete it to do that fit again"):
        run_study(plan, tmp_path / "out")


def test_killed_at_twenty_random_moments_it_goes_on_to_the_same_rows(meshes, undisturbed, tmp_path):
    settings = [text for key, value in TINY.items() for text in (f"--{key.replace('_', '-')}", str(value))]
    command = [sys.executable, "-m", "ff3d.cli", "benchmark", *map(str, meshes), *settings]
    command += ["--mappings", "none", "basic", "--seeds", "0", "--resolution", "16", "--threads", "2", "--out"]
    moments, kills, folders = np.random.default_rng(0), 0, 0
    while kills < 20:
        out = tmp_path / str(folders)
        while kills < 20:
            with subprocess.Popen(
                [*command, str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as process:
                try:
                    process.wait(timeout=moments.uniform(1.0, 6.0))
                    break
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    kills += 1
        done = subprocess.run([*command, str(out)], capture_output=True, text=True, check=True)
        assert "4 of 4 fits done, 0 failed" in done.stdout
        rows = [Row.from_json(line) for line in (out / ROWS).read_text().splitlines()]
        assert timeless(rows) == timeless(undisturbed[1])
        folders += 1


def test_ctrl_c_keeps_and_measures_the_fit_in_hand_and_the_same_command_goes_on(meshes, tmp_path):
    command = [sys.executable, "-m", "ff3d.cli", "benchmark", str(meshes[0]), "--mappings", "none", "--seeds", "0", "1"]
    command += ["--seconds", "12", "--resolution", "16", "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    ) as process:
        metrics = tmp_path / "out" / "ball-none-0" / "metrics.jsonl"
        while not metrics.exists():
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process of the group
        said = process.communicate(timeout=120)[0]
    assert process.returncode == 130
    assert "0 of 2 fits done" in said
    assert "the same command resumes it" in said
    assert (tmp_path / "out" / "ball-none-0" / "checkpoint.safetensors").exists()
    assert not (tmp_path / "out" / "ball-none-0" / ROW).exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "2 of 2 fits done" in done.stdout


def test_the_interval_is_students_over_seeds_of_the_means_over_meshes():
    rows = [
        row_of(seed=seed, mesh=mesh, iou={"uniform": value + offset})
        for seed, value in enumerate((0.9, 0.92, 0.97))
        for mesh, offset in (("ball", -0.01), ("box", 0.01))
    ]
    mean, width = summary(rows, "iou.uniform")
    assert mean == pytest.approx(0.93)
    expected = stats.t.interval(0.95, 2, loc=mean, scale=stats.sem([0.9, 0.92, 0.97]))
    assert (mean - width, mean + width) == pytest.approx(expected)
    assert summary(rows[:2], "iou.uniform")[0] == pytest.approx(0.9)
    assert np.isnan(summary(rows[:2], "iou.uniform")[1])
    assert np.isnan(summary(rows, "surface.chamfer")[0])
    assert np.isnan(interval(np.zeros((0, 2)))).all()


def test_a_curve_is_the_mean_of_its_fits_between_their_evaluations():
    def fit(seed, mesh, points):
        return row_of(seed=seed, mesh=mesh, iou={"uniform": 1.0}, history=points)

    def evaluations(*pairs):
        return [{"seconds": at, "iou": {"uniform": value}} for at, value in pairs]

    rows = [
        fit(0, "ball", evaluations((1, 0.1), (2, 0.2), (3, 0.3))),
        fit(0, "box", evaluations((1, 0.3), (3, 0.5))),
        fit(1, "ball", evaluations((1, 0.2), (2, 0.3), (4, 0.5))),
        fit(1, "box", evaluations((1, 0.2), (2, 0.3), (4, 0.5))),
    ]
    seconds, means, widths = zip(*curve(rows, "uniform"), strict=True)
    assert seconds == (1, 2, 3)
    assert means == pytest.approx((0.2, 0.3, 0.4))
    assert widths == pytest.approx((0, 0, 0), abs=1e-12)
    assert curve(rows, "boundary_face") == []


def test_a_sweep_is_a_mean_a_value_by_mapping():
    rows = [
        row_of(mapping, seed, iou={"uniform": scale / 100 + seed / 10}, varied={"scale": scale}, parameters=scale)
        for mapping in ("gaussian", "positional")
        for scale in (8, 4)
        for seed in (0, 1)
    ]
    for name in ("scale", "parameters"):
        found = sweep(rows, "gaussian", name, "uniform")
        assert [value for value, _, _ in found] == [4, 8]
        assert [mean for _, mean, _ in found] == pytest.approx([0.09, 0.13])
    assert sweep(rows, "none", "scale", "uniform") == []
    failed = dataclasses.replace(rows[1], iou={}, parameters=0, failure="the loss is nan")  # gaussian, scale 8, seed 1
    for name in ("scale", "parameters"):
        survivors = sweep([rows[0], failed, *rows[2:]], "gaussian", name, "uniform")
        assert [value for value, _, _ in survivors] == [4]
    unlabelled = [dataclasses.replace(row, mesh="sheet", iou={}, failure="open") for row in rows]
    assert sweep([*rows, *unlabelled], "gaussian", "scale", "uniform") == sweep(rows, "gaussian", "scale", "uniform")


def test_a_mapping_that_the_labels_replaced_is_not_mixed_with_the_one_that_took_its_place():
    fell_back = {"voxels": "hash", "hash": "hash"}  # as on a scan
    rows = [
        dataclasses.replace(
            row_of(given, iou={"uniform": iou}, varied={"learning_rate": 0.01}), mapping=fell_back[given]
        )
        for given, iou in (("hash", 0.9), ("voxels", 0.5))
    ]
    assert [row.compared for row in rows] == ["hash", "voxels"]
    assert [sweep(rows, it, "learning_rate", "uniform")[0][:2] for it in fell_back] == [(0.01, 0.5), (0.01, 0.9)]


def test_the_best_is_the_arm_with_the_highest_mean_near_the_surface(meshes, undisturbed):
    folder, rows = undisturbed
    study = Study(plan_of(meshes), Storage(folder), rows)
    means = {it: np.mean([row.iou["boundary_face"] for row in rows if row.mapping == it]) for it in ("none", "basic")}
    assert study.best == max(means, key=means.get)
    assert study.run(rows[0]) == folder / "ball-none-0"
    assert "torch" in study.versions
    failed = [dataclasses.replace(row, iou={}, failure="broken") for row in rows]
    assert dataclasses.replace(study, rows=failed).best is None


def test_both_tables_hold_the_fits_that_are_done_and_an_older_table_does_not_stay(meshes, undisturbed, tmp_path):
    folder, rows = undisturbed
    out = tmp_path / "out"
    shutil.copytree(folder, out)
    (out / "box-basic-0" / ROW).unlink()

    class Interrupted(Workers):
        def rows(self, tasks, *_, **__):
            for task in tasks:
                yield task, rows[3], False

    study = run_study(plan_of(meshes), out, workers=Interrupted())
    assert study.unfinished == ("box-basic-0",)
    assert len(study.rows) == 4
    assert [Row.from_json(line) for line in (out / ROWS).read_text().splitlines()] == rows[:3]
    assert len(parquet.read_table(out / TABLE)) == 3
    for row in rows:
        failed = dataclasses.replace(row, iou={}, surface=None, failure="x")
        (out / row.name / ROW).write_text(failed.to_json())
    assert run_study(plan_of(meshes), out).best is None
    assert not (out / TABLE).exists()


def test_a_study_and_its_reports_create_the_oracle_of_a_mesh_once_and_hash_it_once(meshes, tmp_path, monkeypatch):
    loaded = []

    def load(name, *arguments):
        loaded.append(name)
        return load_timed(name, *arguments)

    monkeypatch.setattr("ff3d.studies.task.load_timed", load)
    paths = [shutil.copy(mesh, tmp_path / mesh.name) for mesh in meshes]
    for path in paths:
        os.utime(path, (1, 1))  # so old that its hash can be kept
    before = _sha256.cache_info().misses
    study = run_study(plan_of(paths), tmp_path / "out")
    write_report(study)
    write_page(study)
    assert len(loaded) == 2
    assert _sha256.cache_info().misses - before == 2
