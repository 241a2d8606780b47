import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
import torch
import trimesh

from ff3d.fields.checkpoint import Checkpoint, FitError, Progress
from ff3d.fields.config import MappingName
from ff3d.fields.field import FAR_LOGIT, OccupancyField, load_field
from ff3d.fields.mapping import make_mapping
from ff3d.fields.optimise import Adam, learning_rate_factor, optimise
from ff3d.fitting import Observer, fit, held_out_count, loss_of, train
from ff3d.geometry.coordinates import UnitCube
from ff3d.geometry.distances import TruncatedDistance
from ff3d.labels.oracles import OpenSurfaceError
from ff3d.labels.surfels import PointCloudOracle
from ff3d.labels.winding_number import WindingNumberOracle
from ff3d.metrics import iou
from ff3d.points.test_sets import test_points
from ff3d.settings import make_config
from ff3d.shapes.mesh import load_mesh
from ff3d.shapes.point_cloud import PointCloud, load_shape
from ff3d.shapes.sample_meshes import SAMPLES, sample_mesh

POINTS = np.random.default_rng(1).uniform(-1.5, 1.5, (20_000, 3))
SMALL = {"width": 32, "depth": 2, "frequencies": 32, "batch_size": 1024, "pool_size": 8192, "passes": 2}


@pytest.fixture(scope="module")
def torus():
    return trimesh.creation.torus(1.0, 0.4)


def half_space(index, size=8192):
    points = np.random.default_rng(index).random((size, 3)).astype(np.float32)
    return points, points[:, 0] < 0.5


def run(field, draw, config, *, evaluate=None, checkpoint=None, **settings):
    """`optimise` by the settings of a fit; draw: index -> a pool of whatever size it likes."""
    return optimise(
        field,
        lambda index, count: draw(index),
        config.optimiser,
        config.budget,
        loss=loss_of(field.target),
        evaluate=evaluate and (lambda: evaluate(field)),
        checkpoint=checkpoint and Checkpoint(checkpoint, config.flat()),
        **settings,
    )


def make_field(seed=0):
    cube = UnitCube((0.5, 0.5, 0.5), 1.0)
    mapping = make_mapping("gaussian", count=32, scale=1.0)
    return OccupancyField(mapping, width=32, depth=2, cube=cube, bounds=[[0] * 3, [1] * 3], seed=seed)


TABLE = {"levels": 3, "coarsest": 8, "finest": 32}


def make_table(seed=0, target="occupancy"):
    mapping = make_mapping("hash", seed=seed, **TABLE, log2_table=10)
    cube = UnitCube((0.5, 0.5, 0.5), 1.0)
    return OccupancyField(mapping, width=32, depth=2, cube=cube, bounds=[[0] * 3, [1] * 3], seed=seed, target=target)


def weights(field):
    return [tensor.clone() for tensor in field.state_dict().values()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_seed_twice_is_the_same_field_bit_for_bit(torus, precision):
    settings = {"steps": 40, "precision": precision, "device": "cpu", **SMALL}
    first, again = (fit(torus, seed=3, **settings) for _ in range(2))
    assert same(first, again)
    assert not same(first, fit(torus, seed=4, **settings))


@pytest.mark.slow
@pytest.mark.parametrize("mapping", get_args(MappingName))
def test_every_mapping_learns_a_torus(torus, mapping):
    scale = {"gaussian": 1.0, "learned": 1.0, "lecture": 0.5, "positional": 4.0}.get(mapping)
    field = fit(torus, mapping, steps=300, scale=scale, learning_rate=0.01, device="cpu", **SMALL)
    # raw coordinates learn slowly: that is the point of the other mappings
    assert iou(field.contains, test_points(torus, "uniform", count=20_000)) > (0.5 if mapping == "none" else 0.9)


def test_a_fit_that_is_resumed_after_its_last_step_says_what_it_found(tmp_path):
    far = trimesh.creation.cylinder(radius=1e-3, height=2, sections=8)  # of which nothing is found in so few steps
    config = make_config(mapping="none", steps=3, device="cpu", uniform=1.0, widths=(), margin=0.3, **SMALL)
    first, again = (train(far, config, checkpoint=tmp_path / "checkpoint.safetensors") for _ in range(2))
    assert first.nothing
    assert again.progress.step == first.progress.step == 3
    assert (again.remarks, again.nothing) == (first.remarks, first.nothing)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["siren", "finer", "gaussian"])
def test_waves_learn_a_torus_from_raw_coordinates_in_float32(torus, activation):
    settings = {**SMALL, "width": 64}
    rate = 1e-2 if activation == "gaussian" else 1e-3
    result = train(torus, make_config(mapping="none", activation=activation, learning_rate=rate, steps=300, **settings))
    assert result.field.precision == "float32"
    assert iou(result.field.contains, test_points(torus, "uniform", count=20_000)) > 0.95


@pytest.mark.parametrize("mapping", ["learned", "hash"])
def test_training_moves_what_a_mapping_learns(mapping):
    field = make_table() if mapping == "hash" else make_field()
    if mapping == "learned":
        cube = UnitCube((0.5, 0.5, 0.5), 1.0)
        field = OccupancyField(
            make_mapping("learned", count=16), width=8, depth=1, cube=cube, bounds=[[0] * 3, [1] * 3]
        )
    before = [it.clone() for it in field.mapping.parameters()]
    run(field, half_space, make_config(mapping=mapping, steps=3, **SMALL))
    assert len(before) == 1
    assert not torch.equal(before[0], next(iter(field.mapping.parameters())))


@pytest.mark.slow
def test_the_fast_preset_is_guarded_and_learns_distances_and_says_nothing_in_empty_space(torus):
    field = fit(torus, preset="fast", steps=300, device="cpu", storage="float32")
    assert (field.guarded, field.target, field.mapping.name) == (True, "distance", "hash")
    assert iou(field.contains, test_points(torus, "uniform", count=50_000)) > 0.995
    assert iou(field.contains, test_points(torus, "boundary", count=50_000)) > 0.97
    points = np.random.default_rng(0).uniform(*field.bounds, size=(200_000, 3))
    away = np.abs(np.hypot(np.hypot(points[:, 0], points[:, 1]) - 1, points[:, 2]) - 0.4)
    far = away > 4 * field.surface.side * field.cube.scale
    true = np.hypot(np.hypot(points[:, 0], points[:, 1]) - 1, points[:, 2]) < 0.4
    assert np.array_equal(field.logits(points)[far], np.where(true, FAR_LOGIT, -FAR_LOGIT)[far])


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
def test_a_field_takes_as_many_bytes_as_it_is_given_and_no_more(tmp_path, name):
    fit(sample_mesh(name), bytes=12_000).save(tmp_path / "small.safetensors")
    assert 10_000 <= (tmp_path / "small.safetensors").stat().st_size <= 12_000


@pytest.mark.slow
def test_a_field_of_distances_says_how_far_the_surface_is(torus):
    config = make_config(
        "fast", steps=400, band=0.01, widths=(0.003, 0.01), device="cpu", **SMALL | {"batch_size": 4096}
    )
    field = train(torus, config).field
    rng = np.random.default_rng(5)
    points = test_points(torus, "boundary", count=20_000, seed=int(rng.integers(100))).points
    distance = TruncatedDistance(torus.vertices, torus.faces, 0.1, unit=field.cube.scale)
    true = FAR_LOGIT * np.tanh(distance.signed(points, WindingNumberOracle(torus)) / 0.01)
    assert np.abs(field.logits(points) - true).mean() < 0.8


@pytest.mark.slow
def test_the_space_about_an_open_shape_is_learnt_to_be_empty_as_far_as_the_box_goes():
    ball = trimesh.creation.icosphere(subdivisions=4)
    open_ball = trimesh.Trimesh(ball.vertices, ball.faces[ball.triangles_center[:, 2] < 0.9], process=False)
    field = fit(open_ball, preset="fast", steps=150, device="cpu", storage="float32")
    points = np.random.default_rng(0).uniform(*field.bounds, (200_000, 3))
    far = (np.abs(points) > 1.01).any(axis=1)
    assert far.mean() > 0.1
    assert field.contains(points[far]).mean() < 1e-4


def test_what_has_no_cell_grid_is_fitted_without_a_guard(torus, caplog):
    caplog.set_level("INFO", logger="ff3d")
    config = make_config("fast", steps=3, device="cpu", target="occupancy", **SMALL)
    result = train(torus, config, oracle=lambda points: points[:, 0] > 0)
    assert not result.field.guarded
    assert "not guarded" in caplog.text
    plain = make_config("plain").sampling
    assert (result.config.sampling.uniform, result.config.sampling.widths) == (plain.uniform, plain.widths)
    given = train(
        torus, replace(config, sampling=replace(config.sampling, uniform=0.3)), oracle=lambda points: points[:, 0] > 0
    )
    assert (given.config.sampling.uniform, given.config.sampling.widths) == (0.3, plain.widths)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_a_signal_ends_a_fit_after_a_step_and_then_does_what_it_does_elsewhere(torus):
    class Pressed(Observer):
        def paused(self, field, progress):
            signal.raise_signal(signal.SIGINT)
            return False

    class Stopped(Observer):
        def paused(self, field, progress):
            return True

    settings = {"steps": 10**6, "device": "cpu", **SMALL}
    with pytest.raises(KeyboardInterrupt):
        fit(torus, "none", observers=[Pressed()], **settings)
    assert isinstance(fit(torus, "none", observers=[Stopped()], **settings), OccupancyField)


@pytest.mark.slow
def test_a_point_cloud_is_fitted_to_labels(caplog):
    caplog.set_level("INFO", logger="ff3d")
    points = trimesh.creation.icosphere(subdivisions=4).vertices
    oracle = PointCloudOracle(PointCloud(np.array(points), np.array(points)))
    result = train(oracle.surface, make_config("fast", steps=150, device="cpu", batch_size=1024), oracle=oracle)
    assert result.field.target == "occupancy"
    assert "fitted to labels" in caplog.text
    asked = np.random.default_rng(0).uniform(-1, 1, (5000, 3))
    assert (result.field.contains(asked) == (np.linalg.norm(asked, axis=1) < 1)).mean() > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["float32", "float16", "int8", "auto"])
def test_a_field_is_stored_as_it_is_told_to_or_where_it_costs_little(torus, tmp_path, storage):
    settings = {"steps": 300, "device": "cpu", "log2_table": 12, "seed": 3}
    plain = fit(torus, preset="fast", storage="float32", **settings)
    field = fit(torus, preset="fast", storage=storage, **settings)
    assert field.storage in (("int8", "float16", "float32") if storage == "auto" else (storage,))
    field.save(tmp_path / "field.safetensors")
    assert np.array_equal(load_field(tmp_path / "field.safetensors", device="cpu").logits(POINTS), field.logits(POINTS))
    bytes_each = {"float32": 4, "float16": 2, "int8": 1}[field.storage]
    assert (tmp_path / "field.safetensors").stat().st_size < bytes_each * plain.parameter_count * 1.1 + 20_000
    points = test_points(torus, "boundary", count=1_000_000)
    if storage in ("auto", "float16"):
        assert iou(plain.contains, points) - iou(field.contains, points) < 0.001


@pytest.mark.slow
@pytest.mark.parametrize(("losable", "storage"), [(1.0, "int8"), (-1.0, "float32")])
def test_auto_measures_what_rounding_costs_on_points_of_its_own(torus, monkeypatch, losable, storage):
    monkeypatch.setattr("ff3d.fitting.LOSABLE", losable)
    config = make_config("fast", steps=3, device="cpu", storage="auto", log2_table=10)
    assert train(torus, config, held_out={}).field.storage == storage


@pytest.mark.slow
def test_the_answer_is_in_the_input_coordinates_wherever_the_mesh_lies(torus):
    settings = {"steps": 150, "scale": 1.0, "device": "cpu", "precision": "float32", **SMALL}
    moved = torus.copy()
    moved.apply_scale(1000.0)
    moved.apply_translation([1e6, 2e6, -3e6])
    near, far = fit(torus, **settings), fit(moved, **settings)
    points = test_points(torus, "uniform", count=5000).points
    agreed = near.contains(points) == far.contains(points * 1000 + [1e6, 2e6, -3e6])
    assert agreed.mean() > 0.99


@pytest.mark.parametrize("make", [make_field, make_table])
def test_resuming_from_a_checkpoint_is_the_undisturbed_fit_bit_for_bit(tmp_path, make):
    config = make_config(steps=60, mapping="hash" if make is make_table else "gaussian", **SMALL)
    undisturbed, broken = make(), make()
    run(undisturbed, half_space, config)
    checkpoint, asked = tmp_path / "checkpoint.safetensors", 0

    def interrupted_draw(index):
        nonlocal asked
        asked += 1
        if asked == 3:  # in the third pool, after 2 x 16 steps
            signal.raise_signal(signal.SIGINT)
        return half_space(index)

    progress = run(broken, interrupted_draw, config, checkpoint=checkpoint)
    assert (progress.interrupted, progress.step) == (True, 33)
    resumed = make(seed=99)
    progress = run(resumed, half_space, config, checkpoint=checkpoint)
    assert (progress.interrupted, progress.step) == (False, 60)
    assert same(resumed, undisturbed)


def test_a_pool_that_would_take_most_of_what_is_left_is_not_drawn():
    drawn = []

    def slow(index):
        drawn.append(index)
        time.sleep(0.6)
        return half_space(index)

    assert run(make_field(), slow, make_config(seconds=1.0, **SMALL)).finished
    assert drawn == [0]


def test_an_interrupt_before_the_first_step_is_resumed_too(tmp_path):
    config, checkpoint = make_config(steps=10, **SMALL), tmp_path / "checkpoint.safetensors"
    undisturbed, field = make_field(), make_field()
    run(undisturbed, half_space, config)
    handler = signal.getsignal(signal.SIGINT)

    def at_once(index):
        signal.raise_signal(signal.SIGINT)
        return half_space(index)

    stopped = run(field, at_once, config, checkpoint=checkpoint)
    assert stopped.interrupted
    assert signal.getsignal(signal.SIGINT) is handler
    assert run(field, half_space, config, checkpoint=checkpoint).step == 10
    assert same(field, undisturbed)


def test_a_checkpoint_of_other_settings_or_a_truncated_one_is_refused(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"

    def stop(index):
        if index:
            signal.raise_signal(signal.SIGINT)
        return half_space(index)

    run(make_field(), stop, make_config(steps=60, **SMALL), checkpoint=checkpoint)
    other = make_config(steps=61, **SMALL)
    with pytest.raises(FitError, match="belongs to a fit with other settings"):
        run(make_field(), half_space, other, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    field = make_field()
    with pytest.raises(FitError, match="not a checkpoint that can be resumed"):
        Checkpoint(checkpoint, other.flat()).load(field, Adam(field, other.optimiser))


def test_a_pool_serves_its_epochs_before_the_next_is_drawn():
    drawn = []

    def draw(index):
        drawn.append(index)
        return half_space(index)

    run(make_field(), draw, make_config(steps=50, **SMALL))  # 8 batches a pool, 2 passes: 16 steps a pool
    assert drawn == [0, 1, 2, 3]


def test_pools_double_until_they_are_full_and_every_batch_of_each_is_used():
    config = make_config(steps=16 + 32 + 40 + 5, batch_size=8, pool_size=40 * 8, passes=1)
    assert [config.optimiser.batches_in_pool(k) for k in range(4)] == [16, 32, 40, 40]
    seen = []

    class Recorder(OccupancyField):
        def forward(self, unit_points):
            seen.append(unit_points[:, 0].tolist())
            return super().forward(unit_points)

    def draw(index):
        points = np.zeros((config.optimiser.batches_in_pool(index) * 8, 3), dtype=np.float32)
        points[:, 0] = 1000 * index + np.arange(len(points))
        return points, points[:, 0] > 0

    field = Recorder(make_mapping("none"), width=4, depth=1, cube=UnitCube((0, 0, 0), 1), bounds=[[0] * 3, [1] * 3])
    run(field, draw, config)
    expected = [1000 * pool + k for pool, n in enumerate((128, 256, 320)) for k in range(n)] + [
        3000 + k for k in range(40)
    ]
    assert [number for batch in seen for number in batch] == expected


def test_the_history_holds_held_out_scores_as_the_fit_goes(torus):
    rows = []
    result = train(
        torus,
        make_config(steps=100, device="cpu", **SMALL),
        on_evaluation=lambda progress: rows.append(progress.history[-1]),
    )
    history = result.progress.history
    assert rows == history
    assert [row["step"] for row in history] == list(range(10, 101, 10))
    assert [row["samples"] for row in history] == [row["step"] * 1024 for row in history]
    assert set(history[0]["iou"]) == {"uniform", "boundary_face", "boundary_area"}
    assert all(b["seconds"] >= a["seconds"] for a, b in pairwise(history))
    assert json.loads(json.dumps(history)) == history


def test_a_budget_in_seconds_is_kept_and_evaluation_is_not_part_of_it():
    field = make_field()

    def slow_evaluation(_field):
        time.sleep(0.05)
        return {}

    begun = time.perf_counter()
    progress = run(field, half_space, make_config(seconds=0.5, **SMALL), evaluate=slow_evaluation)
    assert progress.seconds >= 0.5
    assert progress.seconds + 0.05 * len(progress.history) <= time.perf_counter() - begun
    assert progress.history[-1]["step"] == progress.step


def test_a_diverging_fit_is_an_error_that_says_what_to_change():
    def poisoned(index):
        points, inside = half_space(index)
        points[:] = math.nan
        return points, inside

    with pytest.raises(FitError, match=r"the loss is nan at step .*; lower the learning rate"):
        run(make_field(), poisoned, make_config(steps=20, **SMALL))


def test_seconds_that_the_labels_used_up_are_no_fit():
    with pytest.raises(FitError, match=r"took 2\.0 s of 1 s; give more seconds"):
        run(make_field(), half_space, make_config(seconds=1, **SMALL), spent=2.0)


def test_the_papers_schedule_falls_to_a_tenth_every_half_and_the_others_to_nothing():
    exponential = [learning_rate_factor("exponential", share) for share in (0, 0.5, 1)]
    assert exponential == pytest.approx([1, 0.1, 0.01])
    cosine = [learning_rate_factor("cosine", share) for share in np.linspace(0.02, 1, 50)]
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[-1] == pytest.approx(0, abs=1e-12)
    assert cosine[0] > 0.99
    linear = [learning_rate_factor("linear", share) for share in (0, 0.5, 0.75, 1, 1.001)]
    assert linear == [1, 1, 0.5, 0, 0]
    assert {learning_rate_factor("constant", share) for share in (0, 0.5, 1)} == {1}


@pytest.mark.slow
def test_an_oracle_of_ones_own_is_learned(torus):
    field = fit(torus, "basic", steps=200, device="cpu", oracle=lambda points: points[:, 0] > 0, **SMALL)
    points = test_points(torus, "uniform", count=5000).points
    assert (field.contains(points) == (points[:, 0] > 0)).mean() > 0.97


def test_labels_of_ones_own_are_fitted_to_a_file_that_ff3d_cannot_label(tmp_path):
    (tmp_path / "sheet.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 1\nv 0 1 0\nf 1 2 3 4\n")
    settings = {"mapping": "none", "steps": 2, "device": "cpu", **SMALL}
    with pytest.raises(OpenSurfaceError):
        fit(tmp_path / "sheet.obj", **settings)
    for shape in (tmp_path / "sheet.obj", load_mesh(tmp_path / "sheet.obj")):
        assert fit(shape, oracle=lambda points: points[:, 0] > 0.5, **settings).bounds.shape == (2, 3)


def test_the_seconds_begin_when_the_file_has_been_read(torus, tmp_path, monkeypatch):
    ended = []

    def slow(path):
        time.sleep(0.3)
        shape = load_shape(path)
        ended.append(time.perf_counter())
        return shape

    monkeypatch.setattr("ff3d.shapes.point_cloud.load_shape", slow)
    torus.export(tmp_path / "torus.ply")
    config = make_config(mapping="none", steps=1, device="cpu", **SMALL)
    found = train(tmp_path / "torus.ply", config, held_out={})
    assert found.progress.seconds <= time.perf_counter() - ended[-1]


def test_a_command_counts_what_it_takes_to_prepare_the_labels(torus, tmp_path, monkeypatch):
    from ff3d.cli import main

    class Slow(WindingNumberOracle):
        def __init__(self, mesh):
            time.sleep(0.1)
            super().__init__(mesh)

    def note(mesh, config, *, spent, **_):
        seen.append(spent)
        raise ValueError("enough seen")

    seen = []
    monkeypatch.setattr("ff3d.labels.oracles.WindingNumberOracle", Slow)
    monkeypatch.setattr("ff3d.runs.train", note)
    torus.export(tmp_path / "torus.ply")
    assert main(["fit", str(tmp_path / "torus.ply"), "--out", str(tmp_path / "run")]) == 1
    assert seen[0] >= 0.1


def test_a_fit_that_is_resumed_is_not_charged_for_its_labels_again(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"
    settings = {"checkpoint": checkpoint, "spent": 1000.0}
    config = make_config(steps=40, **SMALL)
    stopped = run(make_field(), half_space, config, on_pause=lambda _: True, **settings)
    assert stopped.interrupted
    assert checkpoint.exists()
    resumed = run(make_field(), half_space, config, **settings)
    assert resumed.step == 40
    assert 1000 <= stopped.seconds <= resumed.seconds < 2000
    assert 1000 <= resumed.labelling < 2000


@pytest.mark.slow
def test_no_training_point_is_a_test_point_of_the_same_seed(torus, monkeypatch):
    seen = []

    def draw_once(field, draw, *_, **__):
        seen.append(draw(0, 32_768)[0])
        return Progress()

    monkeypatch.setattr("ff3d.fitting.optimise", draw_once)
    train(torus, make_config("paper", steps=1), held_out={})
    cube = UnitCube.paper(torus.vertices)
    tests = cube.to_unit(test_points(torus, "uniform").points).astype(np.float32)
    rounded = {tuple(point) for point in np.round(tests, 5).tolist()}
    assert len(seen[0]) == 32_768
    assert not rounded & {tuple(point) for point in np.round(seen[0], 5).tolist()}


@pytest.mark.slow
def test_ctrl_c_keeps_what_there_is(tmp_path):
    code = f"""
import numpy as np
from pathlib import Path
from ff3d.fields.field import OccupancyField
from ff3d.fields.checkpoint import Checkpoint
from ff3d.fields.mapping import make_mapping
from ff3d.fields.optimise import optimise
from ff3d.geometry.coordinates import UnitCube
from ff3d.settings import make_config
from ff3d.fitting import loss_of
field = OccupancyField(make_mapping("none"), width=16, depth=1, cube=UnitCube((0., 0., 0.), 1.), bounds=[[0]*3, [1]*3])
points = np.random.default_rng(0).random((1024, 3)).astype(np.float32)
config = make_config(seconds=60, mapping="none", batch_size=1024, pool_size=1024, width=16, depth=1)
checkpoint = Path({str(tmp_path)!r}) / "checkpoint.safetensors"
note = lambda progress: print("going", flush=True)
progress = optimise(field, lambda k, n: (points, points[:, 0] > 0.5), config.optimiser, config.budget,
                    loss=loss_of("occupancy"), evaluations=200, on_evaluation=note,
                    checkpoint=Checkpoint(checkpoint, config.flat()))
print("interrupted", progress.interrupted, checkpoint.exists(), flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "going\n"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.endswith("interrupted True True\n")


@pytest.mark.parametrize(
    ("settings", "count"),
    [({"seconds": 5}, 2**15), ({"steps": 60}, 8192), ({"steps": 10_000}, 2**15), ({"steps": 1}, 2**12)],
)
def test_few_steps_are_scored_on_fewer_points(settings, count):
    assert held_out_count(make_config("plain", **settings)) == count


@pytest.mark.parametrize("preset", ["plain", "fast"])
def test_the_same_call_gives_the_same_bytes_first_or_last(torus, tmp_path, preset):
    files = []
    for queries in (0, 3_000_000):
        oracle = WindingNumberOracle(torus)
        oracle(np.random.default_rng(queries).uniform(-2, 2, (queries, 3)))
        field = fit(torus, preset=preset, steps=3, device="cpu", oracle=oracle)
        field.save(tmp_path / f"{queries}.safetensors")
        files.append((tmp_path / f"{queries}.safetensors").read_bytes())
    assert files[0] == files[1]


def test_fit_and_compare_save_the_same_field(torus, tmp_path):
    from ff3d.cli import main

    torus.export(tmp_path / "torus.ply")
    common = [str(tmp_path / "torus.ply"), "--steps", "5", "--width", "16", "--depth", "1", "--device", "cpu"]
    assert main(["fit", *common, "--mapping", "basic", "--out", str(tmp_path / "run")]) in (0, 1)
    study = ["compare", *common, "--mappings", "basic", "--resolution", "16", "--out", str(tmp_path / "study")]
    assert main(study) in (0, 1)
    one, other = (tmp_path / name / "field.safetensors" for name in ("run", "study/torus-basic-0"))
    assert one.read_bytes() == other.read_bytes()
