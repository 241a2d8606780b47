import json
import sys

import pytest
import trimesh

from ff3d.cli.main import main
from ff3d.formats.writers import save_mesh

pytest.importorskip("tensorboard", reason="tensorboard is not installed")


@pytest.mark.slow
def test_tensorboard_reads_what_the_rows_hold_with_pictures_and_a_mesh(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    save_mesh(trimesh.creation.icosphere(subdivisions=2), tmp_path / "ball.ply")
    small = ["--width", "32", "--depth", "2", "--batch-size", "1024", "--pool-size", "4096", "--device", "cpu"]
    command = ["fit", str(tmp_path / "ball.ply"), "--mapping", "none", "--steps", "60", *small, "--tensorboard"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for name, value in (("loss", lambda row: row["loss"]), ("iou/uniform", lambda row: row["iou"]["uniform"])):
        written = [(event.step, event.value) for event in events.Scalars(name)]
        assert written == [(row["step"], pytest.approx(value(row))) for row in rows]
    assert events.Images("shape")[-1].step == 60
    assert any(name.startswith("mesh") for name in events.Tags()["tensors"])


def test_without_the_extra_one_line_says_what_to_install(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert main(["fit", "bunny", "--tensorboard", "--out", str(tmp_path / "run")]) == 1
    assert "pip install 'ff3d[tensorboard]'" in caplog.text
    assert not (tmp_path / "run").exists()


def test_a_fit_that_is_refused_leaves_no_folder(tmp_path, caplog):
    save_mesh(trimesh.creation.icosphere(subdivisions=2), tmp_path / "ball.ply")
    command = ["fit", str(tmp_path / "ball.ply"), "--out", str(tmp_path / "run"), "--device", "cpu"]
    small = ["--width", "16", "--depth", "1", "--batch-size", "64", "--pool-size", "64", "--mapping", "none"]
    assert main([*command, *small, "--steps", "1"]) == 0
    (tmp_path / "run" / "field.safetensors").rename(tmp_path / "run" / "checkpoint.safetensors")  # as of one unfinished
    assert main([*command, *small, "--steps", "2", "--tensorboard"]) == 1
    assert "other settings" in caplog.text
    assert not (tmp_path / "run" / "tensorboard").exists()
