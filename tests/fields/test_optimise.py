import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ff3d.fields.checkpoint import Checkpoint, FitError, Progress
from ff3d.fields.config import GRID_MAPPINGS, Budget, OptimiserConfig
from ff3d.fields.mapping import make_mapping
from ff3d.fields.network import Network
from ff3d.fields.optimise import AHEAD, PIECE, Adam, GradientDescent, Pool, PoolCursor, optimise, outputs_of

CONFIG = OptimiserConfig()


def network(name, device="cpu"):
    table = {"levels": 3, "coarsest": 4, "finest": 16} if name in GRID_MAPPINGS else {}
    mapping = make_mapping(name, **table) if table else make_mapping(name, count=8)
    return Network(mapping, width=16, depth=2, seed=3).to(device)


def set_gradients(one, index):
    """Those of a loss that has a minimum, on random points."""
    points = torch.rand(64, 3, generator=torch.Generator().manual_seed(index))
    (one(points) - points[:, :1]).square().mean().backward()


@pytest.mark.parametrize("name", ["none", "gaussian", "learned", "hash", "planes"])
def test_adam_is_torchs_own_bit_for_bit_also_from_a_state(name):
    ours, torchs = network(name), network(name)
    adam = Adam(ours, CONFIG)
    moments = {"betas": (0.9, 0.99), "eps": 1e-15} if name in GRID_MAPPINGS else {}
    twin = torch.optim.Adam(torchs.parameters(), lr=adam.rate, fused=True, **moments)
    for index in range(6):
        adam.rate = twin.param_groups[0]["lr"] = CONFIG.rate(name) / (1 + index)
        adam.clear_gradients()
        twin.zero_grad()
        set_gradients(ours, index)
        set_gradients(torchs, index)
        adam.step()
        twin.step()
        if index == 2:  # as from a checkpoint, for which torch's moments have the same names
            states = twin.state_dict()["state"]
            stored = {f"{i}.{key}": it.clone() for i, state in states.items() for key, it in state.items()}
            assert stored.keys() == adam.state().keys()
            assert all(torch.equal(stored[key], tensor) for key, tensor in adam.state().items())
            adam = Adam(ours, CONFIG)
            adam.load_state(stored)
    for one, other in zip(ours.parameters(), torchs.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_state_of_another_network_is_refused():
    adam = Adam(network("gaussian"), CONFIG)
    with pytest.raises(ValueError, match="expected shape"):
        adam.load_state(Adam(network("none"), CONFIG).state())
    with pytest.raises(KeyError):
        adam.load_state({})


def test_training_does_not_import_the_compiler():
    code = """
import sys, trimesh, ff3d
ff3d.fit(trimesh.creation.icosphere(), "none", steps=2, width=16, depth=1, batch_size=64, pool_size=64)
assert "torch.optim" in sys.modules and "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_fit_is_evaluated_at_the_shares_that_are_given_and_at_the_end():
    def steps(evaluations):
        points = np.random.default_rng(0).random((16, 3)).astype(np.float32)
        config = OptimiserConfig(batch_size=16, pool_size=16)
        draw = lambda index, count: Pool(points, points[:, :1])  # noqa: E731
        loss = torch.nn.functional.mse_loss
        progress = optimise(network("none"), draw, config, Budget(steps=40), loss=loss, evaluations=evaluations)
        return [row["step"] for row in progress.history]

    assert steps((0.05, 0.1, 0.5, 1.0)) == [2, 4, 20, 40]
    assert steps((0.5,)) == [20, 40]
    assert steps(4) == [10, 20, 30, 40]


def test_gradient_descent_is_a_step_along_the_gradient():
    one = network("gaussian")
    before = [parameter.detach().clone() for parameter in one.parameters()]
    descent = GradientDescent(one, 0.1)
    descent.clear_gradients()
    set_gradients(one, 0)
    descent.step()
    for old, parameter in zip(before, one.parameters(), strict=True):
        torch.testing.assert_close(parameter.detach(), old - 0.1 * parameter.grad)
    assert descent.state() == {}


@pytest.mark.parametrize(
    "change",
    [
        {"progress": '{"step": "3"}'},
        {"progress": '{"step": 3, "history": [1]}'},
        {"progress": "[" * 10**5},
        {"config": "[]"},
        {"config": "{"},
    ],
)
def test_a_checkpoint_of_wrong_types_is_refused_by_its_name(tmp_path, change):
    config = OptimiserConfig(batch_size=16, pool_size=16)
    network = Network(make_mapping("none"), width=4, depth=1)
    optimizer, checkpoint = Adam(network, config), Checkpoint(tmp_path / "checkpoint.safetensors", {"a": 1})
    checkpoint.save(network, optimizer, Progress(step=3))
    assert checkpoint.load(network, optimizer).step == 3
    with safe_open(checkpoint.path, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(checkpoint.path), checkpoint.path, metadata | change)
    with pytest.raises(FitError, match=r"checkpoint\.safetensors: not a checkpoint that can be resumed") as stop:
        checkpoint.load(network, optimizer)
    assert "\n" not in str(stop.value)


def test_a_checkpoint_of_another_network_is_refused_in_a_line(tmp_path):
    config = OptimiserConfig(batch_size=16, pool_size=16)
    network, other = (Network(make_mapping("none"), width=width, depth=1) for width in (4, 8))
    checkpoint = Checkpoint(tmp_path / "checkpoint.safetensors", {})
    checkpoint.save(network, Adam(network, config), Progress())
    with pytest.raises(FitError, match="not a checkpoint that can be resumed"):
        checkpoint.load(other, Adam(other, config))


@pytest.mark.parametrize("count", [1, PIECE, PIECE + 1, 2 * PIECE + 300])
def test_a_batch_in_pieces_gives_the_outputs_and_gradients_of_the_whole_one(count):
    whole, pieces = network("gaussian"), network("gaussian")
    points = torch.rand(count, 3, generator=torch.Generator().manual_seed(count))
    expected, outputs = whole(points), outputs_of(pieces, points)
    torch.testing.assert_close(outputs, expected, rtol=0, atol=1e-6)
    for each in (expected, outputs):
        each.square().mean().backward()
    for one, other in zip(whole.parameters(), pieces.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-6)


class Recorder:
    """Pools that know their index; which were drawn, and how large."""

    def __init__(self):
        self.drawn = []

    def __call__(self, index, count):
        self.drawn.append((index, count))
        return Pool(np.full((count, 3), index, dtype=np.float32), np.zeros(count, dtype=np.float32))


@pytest.mark.parametrize("passes", [1, 2])
def test_beside_another_device_a_pool_is_drawn_ahead_and_no_more_than_are_needed(passes):
    config = OptimiserConfig(batch_size=2, pool_size=2 * 40, passes=passes)
    steps = passes * (16 + 32 + 40) + 1
    here, ahead = Recorder(), Recorder()
    cursors = [
        PoolCursor(draw, config, torch.device(device), steps) for draw, device in ((here, "cpu"), (ahead, "meta"))
    ]
    for step in range(steps):
        for cursor in cursors:
            if cursor.needs_pool(step, None):
                cursor.next_pool(step)
            points, targets = cursor.batch(step)
            assert (len(points), len(targets)) == (2, 2)
    for cursor in cursors:
        cursor.close()
    assert here.drawn == sorted(ahead.drawn) == [(0, 32), (1, 64), (2, 80), (3, 80)]


def test_a_pool_that_cannot_be_drawn_ahead_ends_the_fit_with_its_reason():
    def draw(index, count):
        if index:
            raise ValueError("no more points")
        return Recorder()(index, count)

    cursor = PoolCursor(draw, OptimiserConfig(batch_size=2, pool_size=4, passes=1), torch.device("meta"))
    cursor.next_pool(0)
    with pytest.raises(ValueError, match="no more points"):
        cursor.next_pool(2)
    cursor.close()


class Noted(Adam):
    """Adam, and the rate of each of its steps."""

    def step(self):
        self.rates = [*getattr(self, "rates", []), self.rate]
        super().step()


@pytest.mark.parametrize("schedule", ["linear", "exponential"])
@pytest.mark.parametrize("spent", [0.0, 2.0])
def test_the_schedule_begins_with_the_first_step_however_long_the_labels_took(schedule, spent):
    points = np.random.default_rng(0).random((16, 3)).astype(np.float32)
    config = OptimiserConfig(batch_size=16, pool_size=16, learning_rate=1e-3, schedule=schedule)
    one = network("none")
    adam = Noted(one, config)
    progress = optimise(
        one,
        lambda index, count: Pool(points, points[:, :1]),
        config,
        Budget(seconds=spent + 1),
        loss=torch.nn.functional.mse_loss,
        optimizer=adam,
        spent=spent,
    )
    assert spent <= progress.prepared < spent + 0.5
    assert adam.rates[0] == 1e-3
    assert sorted(adam.rates, reverse=True) == adam.rates
    assert adam.rates[-1] < 0.5e-3  # of a schedule that ends at 0 or a hundredth


def test_pools_are_not_drawn_ahead_for_seconds_that_are_not_left():
    def draw(index, count):
        time.sleep(0.0 if index else 0.2)
        return Recorder()(index, count)

    config = OptimiserConfig(batch_size=2, pool_size=2**20)
    cursor = PoolCursor(draw, config, torch.device("meta"))
    cursor.next_pool(
        0, seconds_left=1.2
    )  # the next takes .4 s and the one after .8 s, by what the first took: twice that must be left
    assert len(cursor._ahead) == 1
    cursor.close()
    cursor = PoolCursor(draw, config, torch.device("meta"))
    cursor.next_pool(0, seconds_left=1000.0)
    assert len(cursor._ahead) == AHEAD
    cursor._ahead[0].result()
    assert cursor.needs_pool(32, seconds_left=0.0)  # it is there already
    cursor.close()
