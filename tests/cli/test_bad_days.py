"""Streams that close, places that are not there, files that are somebody else's, numbers out of range."""

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

from ff3d import __version__
from ff3d.cli.main import main
from ff3d.datasets.prepare import ROWS
from ff3d.formats.writers import save_mesh

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def ball(tmp_path):
    path = tmp_path / "ball.ply"
    save_mesh(trimesh.creation.icosphere(subdivisions=2), path)
    return path


def said(caplog):
    message = caplog.records[-1].message
    assert "\n" not in message
    assert len(message) < 400
    return message


def test_a_reader_that_has_read_enough_is_no_error(monkeypatch, capsys):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        assert main(["--version"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="has no /dev/full")
def test_what_a_full_output_does_not_take_is_said_on_standard_error(monkeypatch, capsys, caplog):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["--version"]) == 1
    assert f"ff3d {__version__}" in capsys.readouterr().err
    assert "standard output cannot be written ([Errno 28] No space left on device)" in said(caplog)


def test_closed_streams_are_no_error(tmp_path):
    command = f"{sys.executable} -m ff3d.cli samples {tmp_path / 'out'} >&- 2>&- <&-"
    assert subprocess.run(["/bin/sh", "-c", command], check=False).returncode == 0
    assert (tmp_path / "out" / "soup.obj").exists()


def test_a_working_folder_that_was_deleted_is_said(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "gone"
    folder.mkdir()
    os.chdir(folder)
    folder.rmdir()
    assert main(["samples"]) == 1
    assert "the folder that this was started in is no more" in said(caplog)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fit", "{ball}", "--out", "{ball}"], "ball.ply: is a file, expected a folder"),
        (["fit", "{ball}", "--out", "{ball}/deep"], "ball.ply: is a file, expected a folder"),
        (["benchmark", "{ball}", "--workers", "0", "--out", "{ball}"], "ball.ply: is a file, expected a folder"),
        (["prepare", "{ball}", "--out", "{ball}"], "ball.ply: is a file, expected a folder"),
        (["watertight", "{ball}", "--out", "{ball}"], "ball.ply: is a file, expected a folder"),
        (["watertight", "{ball}", "-o", "{ball}"], "is the input itself"),
        (["watertight", "{ball}", "-o", "{tmp}/notes.obj"], "notes.obj: is there, and was not made by ff3d"),
        (["extract", "{tmp}/shape.safetensors"], "mesh.ply: is there, and was not made by ff3d"),
        (["label", "{ball}", "{tmp}/points.npy", "-o", "{tmp}/points.npy"], "is the input itself"),
        (["label", "{ball}", "{tmp}/points.npy", "-o", "{tmp}/other.npy"], "other.npy: is there, and was not made"),
        (["label", "{ball}", "{tmp}/points.npy", "-o", "{tmp}"], "is a folder, expected a file"),
        (["inspect", "{ball}", "--picture", "{tmp}/notes.obj"], "notes.obj: is there, and was not made by ff3d"),
        (["samples", "{tmp}"], "README.md: is there, and was not made by ff3d"),
        (["prepare", "{ball}", "--out", "{tmp}"], "ball.npz: is there, and was not made by ff3d"),
        (["watertight", "{ball}", "--out", "{tmp}", "--format", "npz"], "ball.npz: is there, and was not made by ff3d"),
        (["fit", "{ball}", "--steps", "1", "--out", "{tmp}"], "config.json: is there, and was not made by ff3d"),
        (["benchmark", "{ball}", "--workers", "0", "--out", "{tmp}"], "report.md: is there, and was not made by ff3d"),
        (["fit", "{ball}", "--seed", str(2**64)], "seed must be a whole number from 0 to 2^63 - 1, got 1844674"),
        (["fit", "{ball}", "--seed", "-1"], "seed must be a whole number from 0 to 2^63 - 1, got -1"),
        (["benchmark", "{ball}", "--seeds", str(10**30)], "seeds must be a whole number from 0 to 2^63 - 1"),
        (["prepare", "{ball}", "--seed", "-1", "--out", "{tmp}/out"], "seed must be a whole number from 0"),
        (["prepare", "{ball}", "--margin", "inf", "--out", "{tmp}/out"], "--margin not negative"),
        (["extract", "{tmp}", "--max-memory", "nan"], "--max-memory must be a positive number of gigabytes, got nan"),
        (["extract", "{tmp}", "--max-memory", "inf"], "--max-memory must be a positive number of gigabytes, got inf"),
        (["extract", "{tmp}", "--max-memory", "0"], "--max-memory must be a positive number of gigabytes, got 0"),
        (["watertight", "{ball}", "--out", "{tmp}/out", "--max-memory", "-1"], "--max-memory must be a positive"),
        (["evaluate", "{tmp}", "--mesh", "{ball}", "--resolution", "0"], "--resolution must be at least 1, got 0"),
        (["benchmark", "{ball}", "--timeout", "nan"], "timeout must be positive"),
        (["benchmark", "{ball}", "--resolution", "100000"], "resolution must be from 1 to 16384"),
        (
            ["watertight", "{ball}", "-o", "{tmp}/a.ply", "--resolution", "8192", "--max-memory", "1"],
            "GB are available",
        ),
        (["watertight", "{ball}", "-o", "{tmp}/a.npz", "--resolution", "4096", "--max-memory", "1"], "voxels need"),
        (["watertight", "{ball}", "-o", "{tmp}/a.xyz", "--points", str(10**12)], "points need 4e+05 GB"),
    ],
)
def test_a_refusal_names_what_is_wrong_before_the_work_and_leaves_everything_as_it_was(
    ball, tmp_path, caplog, arguments, says
):
    np.save(tmp_path / "points.npy", np.zeros((10, 3)))
    np.save(tmp_path / "other.npy", np.zeros(10))
    shutil.copy(FIXTURES / "field_v4_lattice.safetensors", tmp_path / "shape.safetensors")
    for name in ("notes.obj", "README.md", "ball.npz", "config.json", "report.md", "mesh.ply"):
        (tmp_path / name).write_text("somebody's")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main([it.format(ball=ball, tmp=tmp_path) for it in arguments]) == 1
    assert says in said(caplog)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_ff3d_has_made_is_replaced_and_what_not_by_force_alone(ball, tmp_path, capsys):
    np.save(tmp_path / "points.npy", np.zeros((10, 3)))
    label = ["label", str(ball), str(tmp_path / "points.npy"), "-o", str(tmp_path / "labels.npy")]
    close = ["watertight", str(ball), "--resolution", "16", "-o"]
    for _ in range(2):
        assert main(label) == 0
        for ending in ("ply", "obj", "stl", "glb", "xyz", "npz"):
            assert main([*close, str(tmp_path / f"closed.{ending}")]) == 0
    (tmp_path / "closed.ply").write_text("somebody's")
    assert main([*close, str(tmp_path / "closed.ply"), "--force"]) == 0


def test_a_name_of_250_letters_is_fitted_prepared_and_closed(ball, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mesh = ball.rename(tmp_path / ("n" * 246 + ".ply"))
    tiny = ["--steps", "2", "--width", "8", "--depth", "1", "--batch-size", "256", "--pool-size", "256"]
    assert main(["fit", str(mesh), "--mapping", "none", *tiny]) in (0, 1)  # two steps need not find anything
    assert main(["prepare", str(mesh), "--points", "100", "--out", "prepared"]) == 0
    assert main(["watertight", str(mesh), "--resolution", "16", "--out", "closed"]) == 0
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "field.safetensors").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="has no limits on files")
def test_a_full_disk_is_one_line_and_leaves_nothing(ball, tmp_path):
    np.save(tmp_path / "points.npy", np.zeros((100_000, 3)))
    out = tmp_path / "out"
    commands = {
        "label": ["label", str(ball), str(tmp_path / "points.npy"), "-o", str(out / "labels.npy")],
        "watertight": ["watertight", str(ball), "--resolution", "24", "-o", str(out / "closed.ply")],
    }
    code = "import resource, sys; from ff3d.cli import main\n"
    code += "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000,) * 2); sys.exit(main(sys.argv[1:]))"
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    for command in commands.values():
        done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 1
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        assert len(errors) == 1
        assert "make room and run the same command again" in errors[0]
        assert not list(out.iterdir())


def test_two_processes_do_not_write_to_one_folder(ball, tmp_path, caplog, monkeypatch):
    from ff3d.files import locked

    monkeypatch.setattr("ff3d.files.PATIENCE", 0.05)
    out = tmp_path / "out"
    commands = [
        ["fit", str(ball), "--steps", "1", "--out", str(out)],
        ["benchmark", str(ball), "--steps", "1", "--workers", "0", "--out", str(out)],
        ["tune", str(ball), "--steps", "1", "--workers", "0", "--out", str(tmp_path)],
        ["prepare", str(ball), "--out", str(out)],
        ["watertight", str(ball), "--out", str(out)],
    ]
    for command in commands:
        with locked(tmp_path / "learning_rates" if command[0] == "tune" else out):
            assert main(command) == 1
        assert f"in use by process {os.getpid()}" in said(caplog)
        assert not list(out.iterdir())


def test_rows_of_somebody_else_are_not_written_to(ball, tmp_path, caplog):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ROWS).write_text("notes\n")
    assert main(["prepare", str(ball), "--out", str(tmp_path / "out")]) == 1
    assert f"{ROWS}: is there, and was not made by ff3d" in said(caplog)
    shutil.rmtree(tmp_path / "out")
