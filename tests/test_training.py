import json
import math
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
import torch
import trimesh

from ff3d.field import OccupancyField
from ff3d.mapping import make_mapping
from ff3d.mesh import UnitCube
from ff3d.metrics import iou
from ff3d.sampling import test_points
from ff3d.settings import make_config
from ff3d.training import FitError, fit, learning_rate_factor, load_checkpoint, optimise, train

SMALL = {"width": 32, "depth": 2, "frequencies": 32, "batch_size": 1024, "pool_size": 8192, "passes": 2}


@pytest.fixture(scope="module")
def torus():
    return trimesh.creation.torus(1.0, 0.4)


def half_space(index, size=8192):
    points = np.random.default_rng(index).random((size, 3)).astype(np.float32)
    return points, points[:, 0] < 0.5


def make_field(seed=0):
    cube = UnitCube((0.5, 0.5, 0.5), 1.0)
    mapping = make_mapping("gaussian", count=32, scale=1.0)
    return OccupancyField(mapping, width=32, depth=2, cube=cube, bounds=[[0] * 3, [1] * 3], seed=seed)


def weights(field):
    return [tensor.clone() for tensor in field.state_dict().values()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_seed_twice_is_the_same_field_bit_for_bit(torus, precision):
    settings = {"steps": 40, "precision": precision, "device": "cpu", **SMALL}
    first, again = (fit(torus, seed=3, **settings) for _ in range(2))
    assert same(first, again)
    assert not same(first, fit(torus, seed=4, **settings))


@pytest.mark.parametrize("mapping", ["none", "basic", "positional", "gaussian", "lecture"])
def test_every_mapping_learns_a_torus(torus, mapping):
    scale = {"gaussian": 1.0, "lecture": 0.5, "positional": 4.0}.get(mapping)
    field = fit(torus, mapping, steps=300, scale=scale, learning_rate=0.01, device="cpu", **SMALL)
    # raw coordinates learn slowly: that is the point of the other mappings
    assert iou(field.contains, test_points(torus, "uniform", count=20_000)) > (0.5 if mapping == "none" else 0.9)


def test_the_answer_is_in_the_input_coordinates_wherever_the_mesh_lies(torus):
    settings = {"steps": 150, "scale": 1.0, "device": "cpu", "precision": "float32", **SMALL}
    moved = torus.copy()
    moved.apply_scale(1000.0)
    moved.apply_translation([1e6, 2e6, -3e6])
    near, far = fit(torus, **settings), fit(moved, **settings)
    points = test_points(torus, "uniform", count=5000).points
    agreed = near.contains(points) == far.contains(points * 1000 + [1e6, 2e6, -3e6])
    assert agreed.mean() > 0.99


def test_going_on_from_a_checkpoint_is_the_undisturbed_fit_bit_for_bit(tmp_path):
    config = make_config(steps=60, scale=1.0, **SMALL)
    undisturbed, broken = make_field(), make_field()
    optimise(undisturbed, half_space, config)
    checkpoint, asked = tmp_path / "checkpoint.safetensors", 0

    def interrupted_draw(index):
        nonlocal asked
        asked += 1
        if asked == 3:  # in the third pool, after 2 x 16 steps
            signal.raise_signal(signal.SIGINT)
        return half_space(index)

    progress = optimise(broken, interrupted_draw, config, checkpoint=checkpoint)
    assert (progress.interrupted, progress.step) == (True, 33)
    resumed = make_field(seed=99)
    progress = optimise(resumed, half_space, config, checkpoint=checkpoint)
    assert (progress.interrupted, progress.step) == (False, 60)
    assert same(resumed, undisturbed)


def test_an_interrupt_before_the_first_step_is_gone_on_from_too(tmp_path):
    config, checkpoint = make_config(steps=10, **SMALL), tmp_path / "checkpoint.safetensors"
    undisturbed, field = make_field(), make_field()
    optimise(undisturbed, half_space, config)
    handler = signal.getsignal(signal.SIGINT)

    def at_once(index):
        signal.raise_signal(signal.SIGINT)
        return half_space(index)

    stopped = optimise(field, at_once, config, checkpoint=checkpoint)
    assert stopped.interrupted
    assert signal.getsignal(signal.SIGINT) is handler
    assert optimise(field, half_space, config, checkpoint=checkpoint).step == 10
    assert same(field, undisturbed)


def test_a_checkpoint_of_other_settings_or_a_truncated_one_is_refused(tmp_path):
    checkpoint = tmp_path / "checkpoint.safetensors"

    def stop(index):
        if index:
            signal.raise_signal(signal.SIGINT)
        return half_space(index)

    optimise(make_field(), stop, make_config(steps=60, **SMALL), checkpoint=checkpoint)
    other = make_config(steps=61, **SMALL)
    with pytest.raises(FitError, match="belongs to a fit with other settings"):
        optimise(make_field(), half_space, other, checkpoint=checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    field = make_field()
    adam = torch.optim.Adam(field.parameters())
    with pytest.raises(FitError, match="not a checkpoint that can be gone on from"):
        load_checkpoint(checkpoint, field, adam, other)


def test_a_pool_is_gone_through_passes_times_before_the_next_is_drawn():
    drawn = []

    def draw(index):
        drawn.append(index)
        return half_space(index)

    optimise(make_field(), draw, make_config(steps=50, **SMALL))  # 8 batches a pool, 2 passes: 16 steps a pool
    assert drawn == [0, 1, 2, 3]


def test_pools_double_until_they_are_full_and_every_batch_of_each_is_used():
    config = make_config(steps=16 + 32 + 40 + 5, batch_size=8, pool_size=40 * 8, passes=1)
    assert [config.batches_in_pool(k) for k in range(4)] == [16, 32, 40, 40]
    seen = []

    class Recorder(OccupancyField):
        def forward(self, unit_points):
            seen.append(unit_points[:, 0].tolist())
            return super().forward(unit_points)

    def draw(index):
        points = np.zeros((config.batches_in_pool(index) * 8, 3), dtype=np.float32)
        points[:, 0] = 1000 * index + np.arange(len(points))
        return points, points[:, 0] > 0

    field = Recorder(make_mapping("none"), width=4, depth=1, cube=UnitCube((0, 0, 0), 1), bounds=[[0] * 3, [1] * 3])
    optimise(field, draw, config)
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
    progress = optimise(field, half_space, make_config(seconds=0.5, **SMALL), evaluate=slow_evaluation)
    assert progress.seconds >= 0.5
    assert progress.seconds + 0.05 * len(progress.history) <= time.perf_counter() - begun
    assert progress.history[-1]["step"] == progress.step


def test_a_diverging_fit_is_an_error_that_says_what_to_change():
    def poisoned(index):
        points, inside = half_space(index)
        points[:] = math.nan
        return points, inside

    with pytest.raises(FitError, match=r"the loss is nan at step .*; lower the learning rate"):
        optimise(make_field(), poisoned, make_config(steps=20, **SMALL))


def test_the_papers_schedule_falls_to_a_tenth_every_half_and_the_fast_one_to_nothing():
    exponential = [learning_rate_factor("exponential", share) for share in (0, 0.5, 1)]
    assert exponential == pytest.approx([1, 0.1, 0.01])
    cosine = [learning_rate_factor("cosine", share) for share in np.linspace(0.02, 1, 50)]
    assert cosine == sorted(cosine, reverse=True)
    assert cosine[-1] == pytest.approx(0, abs=1e-12)
    assert cosine[0] > 0.99


def test_an_oracle_of_ones_own_is_learned(torus):
    field = fit(torus, "basic", steps=200, device="cpu", oracle=lambda points: points[:, 0] > 0, **SMALL)
    points = test_points(torus, "uniform", count=5000).points
    assert (field.contains(points) == (points[:, 0] > 0)).mean() > 0.97


def test_no_training_point_is_a_test_point_of_the_same_seed(torus, monkeypatch):
    seen = []
    monkeypatch.setattr("ff3d.training.optimise", lambda field, draw, config, **_: seen.append(draw(0)[0]))
    train(torus, make_config("paper", steps=1), held_out={})
    cube = UnitCube.paper(torus.vertices)
    tests = cube.to_unit(test_points(torus, "uniform").points).astype(np.float32)
    rounded = {tuple(point) for point in np.round(tests, 5).tolist()}
    assert len(seen[0]) == 32_768
    assert not rounded & {tuple(point) for point in np.round(seen[0], 5).tolist()}


def test_ctrl_c_keeps_what_there_is(tmp_path):
    code = f"""
import numpy as np
from pathlib import Path
from ff3d.field import OccupancyField
from ff3d.mapping import make_mapping
from ff3d.mesh import UnitCube
from ff3d.settings import make_config
from ff3d.training import optimise
field = OccupancyField(make_mapping("none"), width=16, depth=1, cube=UnitCube((0., 0., 0.), 1.), bounds=[[0]*3, [1]*3])
points = np.random.default_rng(0).random((1024, 3)).astype(np.float32)
config = make_config(seconds=60, mapping="none", batch_size=1024, pool_size=1024, width=16, depth=1)
checkpoint = Path({str(tmp_path)!r}) / "checkpoint.safetensors"
note = lambda progress: print("going", flush=True)
progress = optimise(field, lambda k: (points, points[:, 0] > 0.5), config, evaluations=200, on_evaluation=note,
                    checkpoint=checkpoint)
print("interrupted", progress.interrupted, checkpoint.exists(), flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "going\n"
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.endswith("interrupted True True\n")
