"""A GPU gives what the CPU gives. Labels on one: tests/labels."""

import numpy as np
import pytest
import torch
import trimesh

import ff3d
from ff3d.fields import optimise as module
from ff3d.fields.checkpoint import Checkpoint
from ff3d.fields.config import GRID_MAPPINGS, Budget, OptimiserConfig
from ff3d.fields.mapping import make_mapping
from ff3d.fields.network import Network
from ff3d.fields.optimise import Adam, Pool, RecordedStep, Step, optimise
from ff3d.theory.dynamics import tangent_kernel

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
CONFIG = OptimiserConfig(batch_size=1024, pool_size=4096)
BALL = {"width": 64, "depth": 2, "batch_size": 4096, "pool_size": 2**16, "steps": 300, "scale": 2.0}
POINTS = np.random.default_rng(1).uniform(-1.2, 1.2, (50_000, 3))


def network(name, precision="float32", device="cuda"):
    table = {"levels": 3, "coarsest": 4, "finest": 32} if name in GRID_MAPPINGS else {}
    mapping = make_mapping(name, **table) if table else make_mapping(name, count=32)
    return Network(mapping, width=64, depth=2, precision=precision, seed=3).to(device)


def half_space(index, count):
    points = np.random.default_rng(index).random((count, 3)).astype(np.float32)
    return Pool(points, (points[:, :1] > 0.5).astype(np.float32))


def trained(one, **settings):
    loss = torch.nn.functional.binary_cross_entropy_with_logits
    return optimise(one, half_space, CONFIG, settings.pop("budget", Budget(steps=60)), loss=loss, **settings)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["none", "positional", "gaussian", "learned", "grid", "hash", "planes"])
def test_a_recorded_step_is_the_step_itself(name, precision):
    plain, replayed = network(name, precision), network(name, precision)
    losses = []
    for one, kind in ((plain, Step), (replayed, RecordedStep)):
        adam = Adam(one, CONFIG)
        step = Step(one, torch.nn.functional.binary_cross_entropy_with_logits, adam)
        step = step if kind is Step else RecordedStep(step)
        losses.append([])
        for index in range(30):
            adam.rate = CONFIG.rate(name) / (1 + index)
            batch = [torch.from_numpy(array).cuda() for array in half_space(index, CONFIG.batch_size)]
            losses[-1].append(float(step(*batch)))
    # a table's gradients are summed in the order in which they come
    tolerance = {"rtol": 0.05, "atol": 0.02} if name in GRID_MAPPINGS else {"rtol": 1e-5, "atol": 1e-7}
    np.testing.assert_allclose(losses[1], losses[0], **tolerance)
    if name not in GRID_MAPPINGS:
        for one, other in zip(plain.parameters(), replayed.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_steps_are_repeated_bit_for_bit_and_so_is_what_a_checkpoint_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    whole, again, resumed = network("gaussian"), network("gaussian"), network("gaussian")
    trained(whole)
    trained(again)
    path = Checkpoint(tmp_path / "checkpoint.safetensors", {})
    stopped = trained(resumed, checkpoint=path, on_pause=lambda progress: progress.step >= 25)
    assert (stopped.step, stopped.finished) == (25, False)
    resumed = network("gaussian")
    assert trained(resumed, checkpoint=path).finished
    for one, two, three in zip(whole.parameters(), again.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one, three)


def test_a_budget_of_seconds_is_kept():
    progress = trained(network("gaussian"), budget=Budget(seconds=1.0))
    assert 1.0 <= progress.seconds < 1.5
    assert progress.step > 200


@pytest.mark.parametrize("mapping", ["gaussian", "hash"])
def test_a_fit_finds_the_shape_and_reads_the_same_elsewhere(tmp_path, mapping):
    ball = trimesh.creation.icosphere(subdivisions=4)
    settings = BALL if mapping == "gaussian" else {**BALL, "scale": None, "finest": 64, "coarsest": 8}
    field = ff3d.fit(ball, mapping, preset="plain", device="cuda", precision="float32", **settings)
    inside = np.linalg.norm(POINTS, axis=1) < 1
    assert (field.contains(POINTS) == inside).mean() > 0.99
    field.save(tmp_path / "field.safetensors")
    there = field.logits(POINTS)
    here = ff3d.load_field(tmp_path / "field.safetensors", device="cpu").logits(POINTS)
    np.testing.assert_allclose(here, there, rtol=1e-3, atol=1e-2)


def test_a_guarded_field_of_distances_is_fitted_there():
    ball = trimesh.creation.icosphere(subdivisions=4)
    field = ff3d.fit(ball, preset="fast", device="cuda", steps=400)
    mesh = field.extract_mesh(resolution=64)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(ball.volume, rel=0.01)


def test_the_extracted_mesh_is_that_of_the_cpu(tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=4)
    field = ff3d.fit(ball, "gaussian", preset="plain", device="cuda", precision="float32", **BALL)
    field.save(tmp_path / "field.safetensors")
    here = ff3d.load_field(tmp_path / "field.safetensors", device="cpu")
    one, other = field.extract_mesh(resolution=96), here.extract_mesh(resolution=96)
    assert one.is_watertight
    assert other.is_watertight
    assert one.faces.shape == other.faces.shape
    np.testing.assert_allclose(one.vertices, other.vertices, atol=1e-3)


@pytest.mark.parametrize("preset", ["paper", "fast"])
def test_a_picture_is_fitted_as_on_the_cpu(preset):
    pixels = np.random.default_rng(0).random((8, 8, 3)).repeat(8, axis=0).repeat(8, axis=1)
    settings = {"preset": preset, "steps": 60, "precision": "float32", "size": 64}
    there, here = (ff3d.fit_image(pixels, "gaussian", device=device, **settings) for device in ("cuda", "cpu"))
    one, other = (fit.progress.history[-1]["iou"]["psnr_train"] for fit in (there, here))
    assert one == pytest.approx(other, abs=0.3)


def test_the_tangent_kernel_is_that_of_the_cpu():
    points = np.random.default_rng(0).random((40, 3)).astype(np.float32)
    there, here = (tangent_kernel(network("gaussian", device=device), points) for device in ("cuda", "cpu"))
    np.testing.assert_allclose(there, here, rtol=1e-3, atol=1e-3 * np.abs(here).max())
