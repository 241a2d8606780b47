"""Runs that a signal or a kill ended, in the commands and in Python."""

import signal
import subprocess
import sys
import time

import pytest
import trimesh

from ff3d.cli.main import main
from ff3d.formats.writers import save_mesh
from ff3d.runs import Run, RunError

SETTINGS = ["--mapping", "none", "--width", "16", "--depth", "2", "--batch-size", "256", "--pool-size", "2048"]


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    path = tmp_path_factory.mktemp("meshes") / "ball.ply"
    save_mesh(trimesh.creation.icosphere(subdivisions=2), path)
    return path


def fit_until(number, ball, folder):
    """Start a fit, send the signal in the midst of it: its exit code and what it said."""
    command = [sys.executable, "-m", "ff3d.cli", "fit", str(ball), *SETTINGS, "--seconds", "30", "--out", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (folder / "metrics.jsonl").exists():  # at a tenth of the seconds
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        process.send_signal(number)
        out, _ = process.communicate(timeout=120)
    return process.returncode, out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_keeps_the_fit_like_ctrl_c_with_a_code_of_its_own(ball, tmp_path, number, caplog):
    code, out = fit_until(number, ball, tmp_path / "run")
    assert code == 128 + number
    assert "interrupted; the field so far is saved, and the same command resumes it" in out
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()
    assert Run(tmp_path / "run").load().parameter_count > 0
    assert "unfinished: this is the field so far" in caplog.text


def test_a_killed_run_is_unfinished_and_says_how_to_resume_it(ball, tmp_path, caplog):
    code, _ = fit_until(signal.SIGKILL, ball, tmp_path / "run")
    assert code == -signal.SIGKILL
    for command in (["extract", str(tmp_path / "run")], ["evaluate", str(tmp_path / "run"), "--mesh", str(ball)]):
        assert main(command) == 1
        said = caplog.records[-1].message
        assert f"{tmp_path / 'run'}: unfinished: run the same command again (" in said
        assert " fit /" in said  # as much of the command as a line has room for
        assert "--out" in said
    with pytest.raises(RunError, match="unfinished: run the same command again"):
        Run(tmp_path / "run").load()


def test_a_folder_that_is_no_run_is_not_called_unfinished(tmp_path):
    with pytest.raises(RunError, match=r"no field\.safetensors here; expected the folder of a fit"):
        Run(tmp_path).load()
