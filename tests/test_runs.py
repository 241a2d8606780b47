import hashlib
import json
import shutil
import signal

import numpy as np
import pytest
import torch
import trimesh

from ff3d.fields.checkpoint import FitError
from ff3d.files import FolderError, locked
from ff3d.runs import MeshSource, Run, RunError, new_folder
from ff3d.settings import make_config

SMALL = {"width": 16, "depth": 1, "frequencies": 16, "batch_size": 512, "pool_size": 1024, "passes": 1, "device": "cpu"}
SOURCE = MeshSource("ball.obj", "0" * 64)


@pytest.fixture(scope="module")
def mesh():
    return trimesh.creation.icosphere(subdivisions=2)


def test_a_run_folder_holds_what_the_design_says_and_can_be_moved(tmp_path, mesh):
    run, config = Run(tmp_path / "here"), make_config(steps=20, **SMALL)
    fit = run.fit(mesh, config, SOURCE, command="ff3d fit ball.obj")
    assert sorted(it.name for it in run.folder.iterdir()) == ["config.json", "field.safetensors", "metrics.jsonl"]
    assert run.finished
    record = json.loads(run.config_path.read_text())
    assert record["fit"]["steps"] == 20
    assert record["mesh"] == {"name": "ball.obj", "sha256": "0" * 64}
    assert record["command"] == "ff3d fit ball.obj"
    assert set(record["versions"]) >= {"python", "ff3d", "torch"}
    assert run.history() == fit.progress.history
    shutil.move(tmp_path / "here", tmp_path / "there")
    moved = Run(tmp_path / "there").load(device="cpu")
    points = np.random.default_rng(0).uniform(-1, 1, (100, 3))
    assert np.array_equal(moved.logits(points), fit.field.logits(points))
    assert str(tmp_path) not in (tmp_path / "there" / "config.json").read_text()


def test_a_finished_run_is_read_and_not_fitted_again(tmp_path, mesh):
    run, config = Run(tmp_path), make_config(steps=20, **SMALL)
    run.fit(mesh, config, SOURCE)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = run.fit(mesh, config, SOURCE)
    assert again.progress.step == 20
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_undisturbed_field_bit_for_bit(tmp_path, mesh):
    config = make_config(steps=30, **SMALL)
    whole = Run(tmp_path / "whole").fit(mesh, config, SOURCE)
    run, asked = Run(tmp_path / "broken"), 0
    from ff3d.labels.winding_number import WindingNumberOracle

    oracle = WindingNumberOracle(mesh)

    def interrupting(points):
        nonlocal asked
        asked += 1
        if asked == 9:
            signal.raise_signal(signal.SIGINT)
        return oracle(points)

    first = run.fit(mesh, config, SOURCE, oracle=interrupting)
    assert first.progress.interrupted
    assert 0 < first.progress.step < 30
    assert not run.finished
    assert run.checkpoint_path.exists()
    assert run.load(device="cpu").contains(np.zeros((1, 3))).shape == (1,)
    second = run.fit(mesh, config, SOURCE)
    assert run.finished
    for name, tensor in whole.field.state_dict().items():
        assert torch.equal(tensor, second.field.state_dict()[name])


@pytest.mark.slow
def test_a_break_after_the_last_step_loses_no_step(tmp_path, mesh):
    from ff3d.labels.winding_number import WindingNumberOracle

    config = make_config(steps=30, storage="auto", **SMALL)
    whole = Run(tmp_path / "whole").fit(mesh, config, SOURCE, held_out={})
    run, oracle = Run(tmp_path / "broken"), WindingNumberOracle(mesh)

    def breaking(points):
        if len(points) == 2**17:  # those by which the storage is chosen
            raise KeyboardInterrupt
        return oracle(points)

    with pytest.raises(KeyboardInterrupt):
        run.fit(mesh, config, SOURCE, oracle=breaking, held_out={})
    assert not run.finished

    def stepless(points):
        assert len(points) == 2**17
        return oracle(points)

    second = run.fit(mesh, config, SOURCE, oracle=stepless, held_out={})
    assert second.progress.step == 30
    assert run.finished
    for name, tensor in whole.field.state_dict().items():
        assert torch.equal(tensor, second.field.state_dict()[name])


def test_another_run_is_never_overwritten(tmp_path, mesh):
    run = Run(tmp_path)
    run.fit(mesh, make_config(steps=5, **SMALL), SOURCE)
    with pytest.raises(RunError, match="other settings or another mesh; give another --out"):
        run.fit(mesh, make_config(steps=6, **SMALL), SOURCE)
    with pytest.raises(RunError, match="another mesh"):
        run.fit(mesh, make_config(steps=5, **SMALL), MeshSource("ball.obj", "1" * 64))


def test_a_fit_that_breaks_names_its_folder(tmp_path, mesh):
    config = make_config(steps=20, learning_rate=1e30, **SMALL)
    with pytest.raises(FitError, match=f"{tmp_path.name}.*lower the learning rate"):
        Run(tmp_path).fit(mesh, config, SOURCE)


def test_a_folder_that_is_no_run_says_so(tmp_path):
    with pytest.raises(RunError, match=r"no field\.safetensors here"):
        Run(tmp_path).load()
    with pytest.raises(RunError, match="no run here"):
        Run(tmp_path).record()
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(RunError, match=r"not a run's config\.json"):
        Run(tmp_path).record()


def test_a_mesh_is_known_by_its_name_and_hash(tmp_path):
    path = tmp_path / "deep" / "a.obj"
    path.parent.mkdir()
    path.write_bytes(b"v 0 0 0\n")
    assert MeshSource.of(path) == MeshSource("a.obj", hashlib.sha256(b"v 0 0 0\n").hexdigest())


def test_new_folders_are_numbered_and_reused_only_where_allowed(tmp_path):
    assert new_folder(tmp_path, "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    (tmp_path / "a-2").mkdir()
    assert new_folder(tmp_path, "a") == tmp_path / "a-3"
    assert new_folder(tmp_path, "a", reusable=lambda folder: folder.name == "a-2") == tmp_path / "a-2"


def test_what_was_used_is_what_is_recorded(tmp_path, mesh):
    config = make_config("fast", steps=3, storage="float32", target="occupancy", **SMALL)
    run = Run(tmp_path)
    first = run.fit(mesh, config, SOURCE, oracle=lambda points: np.linalg.norm(points, axis=1) < 0.5, held_out={})
    recorded = run.record()
    assert recorded["fit"] == config.flat()
    assert recorded["fit"]["guarded"]
    assert not recorded["used"]["guarded"]
    assert recorded["used"] == first.config.flat()
    assert recorded["notes"] == list(first.notes)
    assert "not guarded" in recorded["notes"][0]
    again = run.fit(mesh, config, SOURCE)
    assert (again.config, again.notes) == (first.config, first.notes)


def test_a_run_that_used_what_was_given_says_nothing_more(tmp_path, mesh):
    run = Run(tmp_path)
    run.fit(mesh, make_config(steps=3, **SMALL), SOURCE, held_out={})
    assert not {"used", "notes"} & run.record().keys()


def test_a_field_that_is_not_that_of_its_config_is_refused(tmp_path, mesh):
    one, other = Run(tmp_path / "one"), Run(tmp_path / "other")
    one.fit(mesh, make_config(steps=3, **SMALL), SOURCE, held_out={})
    other.fit(mesh, make_config(steps=3, seed=1, **SMALL), SOURCE, held_out={})
    assert one.load(device="cpu").source["sha256"] == "0" * 64
    shutil.copy(other.field_path, one.field_path)
    with pytest.raises(RunError, match=r"config\.json and field\.safetensors are of different fits"):
        one.load()
    one.config_path.unlink()
    assert one.load(device="cpu").parameter_count > 0  # a field by itself


def test_files_that_are_not_a_runs_are_not_replaced_unless_by_force(tmp_path, mesh):
    config, run = make_config(steps=3, **SMALL), Run(tmp_path)
    for name, text in (("config.json", '{"my": "app"}'), ("metrics.jsonl", "[]"), ("mesh.ply", "ply")):
        (tmp_path / name).write_text(text)
        with pytest.raises(FolderError, match=f"{name}: is there, and was not made by ff3d; .*--force"):
            run.fit(mesh, config, SOURCE)
        assert [(it.name, it.read_text()) for it in tmp_path.iterdir()] == [(name, text)]
        (tmp_path / name).unlink()
    (tmp_path / "config.json").write_text('{"my": "app"}')
    assert run.fit(mesh, config, SOURCE, held_out={}, force=True).progress.finished


def test_a_finished_run_is_read_while_another_process_holds_its_folder(tmp_path, mesh, monkeypatch):
    monkeypatch.setattr("ff3d.files.PATIENCE", 0.05)
    config, run = make_config(steps=3, **SMALL), Run(tmp_path)
    run.fit(mesh, config, SOURCE, held_out={})
    with locked(tmp_path):
        assert run.fit(mesh, config, SOURCE).progress.finished
        run.field_path.unlink()
        with pytest.raises(FolderError, match="in use by process"):
            run.fit(mesh, config, SOURCE)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.json", '{"fit": [], "mesh": {"name": "a", "sha256": ""}}'),
        ("config.json", '{"fit": {}, "mesh": "a"}'),
        ("config.json", '{"fit": {}, "mesh": {"name": "a", "sha256": ""}, "notes": 3}'),
        ("config.json", "[" * 10**5),
        ("metrics.jsonl", '{"step": "1", "seconds": 0}'),
        ("metrics.jsonl", '{"step": 1, "seconds": 0, "iou": [1]}'),
        ("metrics.jsonl", '{"step": 1, "seconds": ' + "9" * 400 + "}"),
    ],
)
def test_json_of_wrong_types_is_refused_where_it_is_read(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    run = Run(tmp_path)
    with pytest.raises(RunError, match=f"{name}: not a run's {name}"):
        run.record() if name == "config.json" else run.history()
