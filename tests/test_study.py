import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import trimesh
from scipy import stats

from ff3d.mesh import save_mesh
from ff3d.report import study_table, write_study
from ff3d.settings import make_config
from ff3d.study import ROWS, Plan, read_rows, run_study, summary

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


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("meshes")
    save_mesh(trimesh.creation.icosphere(subdivisions=2), folder / "ball.ply")
    save_mesh(trimesh.creation.box(), folder / "box.ply")
    return folder / "ball.ply", folder / "box.ply"


def plan_of(meshes, **changes):
    settings = {"mappings": ("none", "basic"), "seeds": (0,), "resolution": 16} | changes
    return Plan(tuple(meshes), config=make_config(**TINY), **settings)


def without_seconds(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(meshes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return folder, run_study(plan_of(meshes), folder)


def test_every_fit_of_the_plan_is_one_row(undisturbed, meshes):
    folder, rows = undisturbed
    assert [(row["mesh"], row["mapping"], row["seed"]) for row in rows] == [
        (mesh, mapping, seed) for mesh in ("ball", "box") for mapping in ("none", "basic") for seed in (0,)
    ]
    assert rows == read_rows(folder)
    for row in rows:
        assert row["failure"] is None
        assert row["steps"] == 120
        assert len(row["sha256"]) == 64
        assert (folder / row["mesh"] / f"{row['mapping']}-{row['seed']}" / "mesh.ply").exists()


def test_the_same_again_does_nothing_and_more_seeds_only_what_is_new(undisturbed, meshes, tmp_path):
    folder = tmp_path / "again"
    shutil.copytree(undisturbed[0], folder)
    before = (folder / ROWS).read_text()
    assert run_study(plan_of(meshes), folder) == undisturbed[1]
    assert (folder / ROWS).read_text() == before
    more = run_study(plan_of(meshes, seeds=(0, 1)), folder)
    assert (folder / ROWS).read_text().startswith(before)
    assert len(more) == 8
    with pytest.raises(ValueError, match="other settings"):
        run_study(plan_of(meshes, resolution=17), folder)


def test_a_mesh_that_cannot_be_labelled_is_rows_with_a_reason(meshes, tmp_path):
    save_mesh(trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0.1]], [[0, 1, 2]]), tmp_path / "sheet.obj")
    plan = plan_of([tmp_path / "sheet.obj", meshes[0]], mappings=("none",))
    rows = run_study(plan, tmp_path / "out")
    assert ["open surface" in (row["failure"] or "") for row in rows] == [True, False]
    page = write_study(plan, rows, tmp_path / "out").read_text()
    assert "sheet, none, seed 0: an open surface" in page
    assert "failed" in "".join(study_table(plan, rows[:1]))


def test_killed_at_any_moment_it_goes_on_to_the_same_rows(meshes, undisturbed, tmp_path):
    settings = [text for key, value in TINY.items() for text in (f"--{key.replace('_', '-')}", str(value))]
    command = [
        sys.executable,
        "-m",
        "ff3d.cli",
        "benchmark",
        *map(str, meshes),
        *settings,
        "--out",
        str(tmp_path / "out"),
    ]
    command += ["--mappings", "none", "basic", "--seeds", "0", "--resolution", "16"]
    moments, kills = np.random.default_rng(0), 0
    while kills < 5:
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                process.wait(timeout=moments.uniform(2.0, 5.0))
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                kills += 1
    assert kills > 0
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "4 of 4 fits done, 0 failed" in done.stdout
    rows = {(row["mesh"], row["mapping"], row["seed"]): row for row in read_rows(tmp_path / "out")}
    assert len(read_rows(tmp_path / "out")) == len(rows) == 4
    assert without_seconds(rows.values()) == without_seconds(undisturbed[1])


def test_a_line_that_was_cut_short_is_left_out(tmp_path):
    (tmp_path / ROWS).write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert read_rows(tmp_path) == [{"a": 1}, {"a": 2}]
    assert (tmp_path / ROWS).read_text() == '{"a": 1}\n{"a": 2}\n'
    (tmp_path / ROWS).write_text('{"a"')
    assert read_rows(tmp_path) == []


def test_the_interval_is_students_over_seeds():
    rows = [
        {"seed": seed, "failure": None, "surface": None, "iou": {"uniform": value + offset}}
        for seed, value in enumerate((0.9, 0.92, 0.97))
        for offset in (-0.01, 0.01)
    ]
    mean, width = summary(rows, "iou.uniform")
    assert mean == pytest.approx(0.93)
    interval = stats.t.interval(0.95, 2, loc=mean, scale=stats.sem([0.9, 0.92, 0.97]))
    assert (mean - width, mean + width) == pytest.approx(interval)
    assert summary(rows[:2], "iou.uniform")[0] == pytest.approx(0.9)
    assert np.isnan(summary(rows[:2], "iou.uniform")[1])
    assert np.isnan(summary(rows, "surface.chamfer")[0])


def test_the_best_is_bold_and_the_papers_numbers_stand_beside_the_papers_protocol(meshes, undisturbed):
    plan, rows = plan_of(meshes), undisturbed[1]
    lines = study_table(plan, rows)
    assert len(lines) == 4
    scores = {it: summary([row for row in rows if row["mapping"] == it], "iou.uniform")[0] for it in plan.mappings}
    best = max(scores, key=scores.get)
    assert f"**{scores[best]:.4f}**" in next(line for line in lines if line.startswith(f"| {best}"))
    assert "0.988" not in "".join(lines)
    paper = Plan(plan.meshes, plan.mappings, plan.seeds, make_config("paper"), 16)
    assert study_table(paper, rows)[-1].endswith("| 0.966 | 0.892 |")


@pytest.mark.parametrize("changes", [{"mappings": ()}, {"seeds": (1, 1)}])
def test_a_plan_names_everything_once(meshes, changes):
    with pytest.raises(ValueError, match="each once"):
        plan_of(meshes, **changes)


def test_two_meshes_of_one_name_are_refused(meshes, tmp_path):
    with pytest.raises(ValueError, match="one name"):
        plan_of([meshes[0], tmp_path / "ball.obj"])
