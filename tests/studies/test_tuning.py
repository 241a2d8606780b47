import json
import shutil

import numpy as np
import pytest
import trimesh

from ff3d.studies.plan import make_plan, read_tuned
from ff3d.studies.task import Row
from ff3d.studies.tuning import tune

pytestmark = pytest.mark.slow

TINY = {
    "steps": 400,
    "width": 32,
    "depth": 2,
    "frequencies": 32,
    "batch_size": 512,
    "pool_size": 1024,
    "device": "cpu",
    "precision": "float32",
}
OTHERS = (1e-5, 1e-4)  # learning rates that are too low


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune")
    trimesh.creation.icosphere(subdivisions=2).export(folder / "ball.ply")
    result = search(folder)
    return folder, *result


def search(folder):
    rates, scales = (1e-5, 3e-3, 1e-4), (1.0, 40.0, 4.0)
    return tune(
        [folder / "ball.ply"],
        ("none", "gaussian"),
        (0,),
        TINY,
        folder / "out",
        rates=rates,
        scales=scales,
        resolution=16,
    )


def test_the_best_rate_is_found_and_then_the_best_scale_at_that_rate(tuned):
    _, best, (rates, scales) = tuned
    assert {name: set(it) for name, it in best.items()} == {
        "none": {"learning_rate"},
        "gaussian": {"learning_rate", "scale"},
    }
    assert len(rates.rows) == 6
    assert len(scales.rows) == 3
    for mapping in ("none", "gaussian"):
        scores = {it.learning_rate: it.iou["boundary_face"] for it in rates.rows if it.mapping == mapping}
        assert best[mapping]["learning_rate"] == max(scores, key=scores.get)
    scores = {row.scale: row.iou["boundary_face"] for row in scales.rows}
    assert best["gaussian"]["scale"] == max(scores, key=scores.get)
    assert {row.learning_rate for row in scales.rows} == {best["gaussian"]["learning_rate"]}
    assert scores[1.0] > scores[40.0]  # a ball is smooth: the bandwidth matters


def test_the_same_again_fits_nothing(tuned):
    folder, best, _ = tuned
    stamps = {path: path.stat().st_mtime_ns for path in folder.glob("out/*/*/row.json")}
    assert len(stamps) == 9
    assert search(folder)[0] == best
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_what_was_found_is_what_a_benchmark_takes(tuned):
    folder, best, _ = tuned
    assert read_tuned(folder / "out" / "tuned.json") == best == json.loads((folder / "out" / "tuned.json").read_text())
    plan = make_plan([folder / "ball.ply"], ("gaussian",), (0,), tuned=folder / "out" / "tuned.json", steps=1)
    assert plan.tasks()[0].config.mapping.scale == best["gaussian"]["scale"]


def test_a_best_value_at_the_edge_is_told(tuned, caplog):
    folder, _, _ = tuned
    with caplog.at_level("WARNING", logger="ff3d"):
        search(folder)
    assert "at the edge" in caplog.text  # the largest rate


def test_no_field_at_all_is_an_error_not_a_choice(tuned, tmp_path):
    folder, _, _ = tuned
    with pytest.raises(ValueError, match="gave a field"):
        tune(
            [folder / "ball.ply"],
            ("none",),
            (0,),
            TINY,
            tmp_path,
            rates=(1e30,),
            scales=(),
            resolution=16,
        )


def test_a_scan_is_tuned_like_a_mesh(tmp_path):
    points = trimesh.creation.icosphere(subdivisions=3).vertices  # of radius 1: each point is its own normal
    np.savetxt(tmp_path / "scan.xyz", np.hstack([points, points]))
    best, (rates,) = tune(
        [tmp_path / "scan.xyz"], ("none",), (0,), TINY, tmp_path / "out", rates=(1e-5, 3e-3), scales=(), resolution=16
    )
    assert best == {"none": {"learning_rate": 3e-3}}
    scores = {row.learning_rate: row.iou["boundary_face"] for row in rates.rows}
    assert scores[3e-3] > 0.5 > scores[1e-5]
    assert rates.rows[1].iou["uniform"] > 0.9


def test_a_value_with_which_a_fit_fails_is_not_chosen_whatever_the_others_reach(tuned, tmp_path):
    folder, best, _ = tuned
    shutil.copytree(folder / "out", tmp_path / "out")
    chosen = best["none"]["learning_rate"]
    (task,) = make_plan([folder / "ball.ply"], ("none",), (1,), vary={"learning_rate": (chosen,)}, **TINY).tasks()
    place = tmp_path / "out" / "learning_rates" / task.name / "row.json"
    place.parent.mkdir()
    place.write_text(Row.failed(task, "the loss is nan").to_json())
    again, (rates, *_) = tune(
        [folder / "ball.ply"],
        ("none",),
        (0, 1),
        TINY,
        tmp_path / "out",
        rates=(chosen, *OTHERS),
        scales=(),
        resolution=16,
    )
    assert rates.missing == 0
    scores = {rate: [it.value("iou.boundary_face") for it in rates.rows if it.learning_rate == rate] for rate in OTHERS}
    assert chosen not in scores
    assert again == {"none": {"learning_rate": max(scores, key=lambda rate: sum(scores[rate]))}}
