import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import trimesh

from ff3d.closing.config import ClosingConfig
from ff3d.closing.files import RESULT, ROWS, Job, close_many
from ff3d.files import FolderError
from ff3d.formats.writers import save_mesh
from ff3d.geometry.cores import available_memory
from ff3d.jobs import Executor
from ff3d.shapes.mesh import load_mesh
from ff3d.shapes.point_cloud import load_points

CONFIG = ClosingConfig(resolution=24)


@pytest.fixture
def folder(tmp_path):
    """A ball with a hole, a box and a sheet."""
    ball = trimesh.creation.icosphere(subdivisions=2)
    ball = trimesh.Trimesh(ball.vertices, ball.faces[ball.triangles_center[:, 2] < 0.9], process=False)
    save_mesh(ball, tmp_path / "ball.ply")
    save_mesh(trimesh.creation.box(), tmp_path / "box.ply")
    save_mesh(trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False), tmp_path / "sheet.ply")
    return tmp_path


def jobs_of(folder, names=("ball", "sheet", "box"), config=CONFIG):
    return [Job(folder / f"{name}.ply", folder / "out" / f"{name}.ply", config) for name in names]


def lines_of(folder):
    return [json.loads(line) for line in (folder / "out" / ROWS).read_text().splitlines()]


def test_a_row_says_how_a_mesh_came_out_and_a_mesh_that_fails_is_a_row_with_its_reason(folder):
    rows = close_many(jobs_of(folder), folder / "out" / ROWS)
    assert rows == lines_of(folder)
    ball, sheet, box = rows
    assert "an open surface that encloses nothing" in sheet["failure"]
    assert not (folder / "out" / "sheet.ply").exists()
    for row, volume in ((ball, 4), (box, 1)):
        closed = load_mesh(folder / "out" / row["file"])
        assert closed.is_watertight
        assert row["closed"] is True
        assert row["faces"] == len(closed.faces)
        assert row["volume"] == pytest.approx(closed.volume, rel=1e-5)
        assert row["volume"] == pytest.approx(volume, rel=0.1)
        assert row["cell"] == pytest.approx(max(load_mesh(folder / row["file"]).extents) / 24)
        assert 0 < row["to_result"] < 1.2 * row["cell"]
        assert row["seconds"] > 0
    assert box["volume_before"] == 1
    assert box["to_input"] < 0.6 * box["cell"]
    assert ball["to_input"] > box["to_input"]  # the membrane over the hole


def test_what_is_done_is_not_done_again_and_what_failed_is(folder):
    first = close_many(jobs_of(folder), folder / "out" / ROWS)
    written = (folder / "out" / "ball.ply").stat().st_mtime_ns
    again = close_many(jobs_of(folder), folder / "out" / ROWS)
    assert [row["file"] for row in lines_of(folder)] == ["ball.ply", "sheet.ply", "box.ply", "sheet.ply"]
    assert (folder / "out" / "ball.ply").stat().st_mtime_ns == written
    assert [again[0], again[2]] == [first[0], first[2]]


@pytest.mark.parametrize("change", ["file", "options", "mesh", "row cut short"])
def test_what_is_not_the_result_of_this_mesh_and_these_options_is_made_again(folder, change):
    close_many(jobs_of(folder, ["box"]), folder / "out" / ROWS)
    config = CONFIG
    if change == "file":
        (folder / "out" / "box.ply").unlink()
    elif change == "options":
        config = ClosingConfig(resolution=20)
    elif change == "mesh":
        save_mesh(trimesh.creation.box((1, 1, 2)), folder / "box.ply")
    else:
        path = folder / "out" / ROWS
        path.write_text(path.read_text()[:40] + "\n")
    [row] = close_many(jobs_of(folder, ["box"], config), folder / "out" / ROWS)
    assert row == json.loads((folder / "out" / ROWS).read_text().splitlines()[-1])
    assert row["volume"] == pytest.approx(2 if change == "mesh" else 1, rel=0.05)
    assert (folder / "out" / "box.ply").exists()


def test_what_was_put_in_the_place_of_a_failure_is_not_replaced(folder):
    close_many(jobs_of(folder, ["sheet"]), folder / "out" / ROWS)
    (folder / "out" / "sheet.ply").write_text("drawn by hand")
    thick = ClosingConfig(resolution=24, sheets="thicken", thickness=0.2)
    with pytest.raises(FolderError, match=r"sheet\.ply"):
        close_many(jobs_of(folder, ["sheet"], thick), folder / "out" / ROWS)
    assert (folder / "out" / "sheet.ply").read_text() == "drawn by hand"


def test_a_file_that_its_row_is_not_of_is_made_again_and_one_of_an_earlier_version_is_kept(folder):
    made = folder / "out" / "box.ply"
    [first] = close_many(jobs_of(folder, ["box"]), folder / "out" / ROWS)
    right = made.read_bytes()
    jobs_of(folder, ["box"], ClosingConfig(resolution=12))[0].run()  # and killed before its row
    assert made.read_bytes() != right
    [again] = close_many(jobs_of(folder, ["box"]), folder / "out" / ROWS)
    assert made.read_bytes() == right
    assert again | {"seconds": 0} == first | {"seconds": 0}
    (folder / "out" / ROWS).write_text(json.dumps({key: again[key] for key in again if key != RESULT}) + "\n")
    stamp = made.stat().st_mtime_ns
    close_many(jobs_of(folder, ["box"]), folder / "out" / ROWS)
    assert made.stat().st_mtime_ns == stamp


def test_a_result_that_somebody_has_changed_is_not_replaced_without_force(folder):
    close_many(jobs_of(folder, ["box"]), folder / "out" / ROWS)
    (folder / "out" / "box.ply").write_text("drawn by hand")
    with pytest.raises(FolderError, match="was not made by ff3d"):
        close_many(jobs_of(folder, ["box"]), folder / "out" / ROWS)
    close_many(jobs_of(folder, ["box"]), folder / "out" / ROWS, force=True)
    assert load_mesh(folder / "out" / "box.ply").is_watertight


def test_the_result_of_another_mesh_that_is_still_there_is_not_replaced(folder):
    def close(mesh, **options):
        return close_many([Job(mesh, folder / "out" / "box.ply", CONFIG)], folder / "out" / ROWS, **options)[0]

    other = folder / "other" / "box.ply"
    save_mesh(trimesh.creation.box((1, 1, 2)), other)
    close(folder / "box.ply")
    with pytest.raises(FolderError, match=r"has box\.ply of another mesh, .*; name another folder, or give --force"):
        close(other)
    assert load_mesh(folder / "out" / "box.ply").volume == pytest.approx(1, rel=0.05)
    assert close(other, force=True)["volume"] == pytest.approx(2, rel=0.05)
    other.unlink()
    assert close(folder / "box.ply")["volume"] == pytest.approx(1, rel=0.05)
    (folder / "same").mkdir()
    (folder / "same" / "box.ply").write_bytes((folder / "box.ply").read_bytes())
    close(folder / "same" / "box.ply")


def test_workers_share_out_the_memory_unless_it_is_given_or_elsewhere(folder, noting):
    beside, elsewhere = noting(8), noting(8, ray="auto")
    jobs = [*jobs_of(folder, ["box"]), Job(folder / "box.ply", folder / "out" / "other.ply", CONFIG, max_memory=10**9)]
    close_many(jobs, folder / "out" / ROWS, beside)
    assert 0 < beside.noted[0] < available_memory() / 7
    assert beside.noted[1] == 10**9
    (folder / "out").rename(folder / "before")
    close_many(jobs, folder / "out" / ROWS, elsewhere)
    assert elsewhere.noted == [None, 10**9]


@pytest.mark.slow
def test_workers_write_the_same_bytes_as_one_process(folder):
    alone = close_many(jobs_of(folder), folder / "out" / ROWS)
    bytes_alone = [(folder / "out" / f"{name}.ply").read_bytes() for name in ("ball", "box")]
    (folder / "out").rename(folder / "before")
    beside = close_many(jobs_of(folder), folder / "out" / ROWS, Executor(2))
    assert [(folder / "out" / f"{name}.ply").read_bytes() for name in ("ball", "box")] == bytes_alone
    for one, other in zip(alone, beside, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


@pytest.mark.slow
def test_a_mesh_that_takes_too_long_is_a_row_and_stops_nothing(folder):
    os.mkfifo(folder / "endless.ply")
    rows = close_many(jobs_of(folder, ["endless", "box"]), folder / "out" / ROWS, Executor(1, timeout=15))
    assert rows[0]["failure"] == "no end after 15 s; see --timeout"
    assert rows[1]["closed"]


@pytest.mark.slow
def test_after_a_kill_the_same_command_does_the_rest(folder):
    config = ["--resolution", "24", "--out", str(folder / "out")]
    command = [sys.executable, "-m", "ff3d.cli", "watertight", *(str(folder / f"{it}.ply") for it in ("box", "ball"))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([*command, *config], env=environment, stderr=subprocess.DEVNULL)
    rows = folder / "out" / ROWS
    while process.poll() is None and not (rows.exists() and rows.read_text().count("\n")):
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = lines_of(folder)
    done = close_many(jobs_of(folder, ["box", "ball"]), rows)
    assert [row["file"] for row in done] == ["box.ply", "ball.ply"]
    assert done[0] == before[0]
    assert not list((folder / "out").glob(".*"))


def test_points_and_voxels_are_those_of_the_closed_mesh(folder):
    points, voxels = folder / "box.xyz", folder / "box.npz"
    Job(folder / "box.ply", points, CONFIG, points=500).run()
    cloud = load_points(points)
    assert len(cloud.points) == 500
    assert np.abs(np.abs(cloud.points).max(axis=1) - 0.5).max() < 0.05
    Job(folder / "box.ply", voxels, CONFIG).run()
    with np.load(voxels) as made:
        assert made["occupancy"].sum() * float(made["spacing"]) ** 3 == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("ending", [".txt", ""])
def test_an_unknown_ending_is_refused_before_anything_is_loaded(tmp_path, ending):
    with pytest.raises(ValueError, match="known endings: .ply, .obj, .stl, .glb, .xyz, .npz".replace(".", r"\.")):
        Job(tmp_path / "missing.ply", tmp_path / f"out{ending}", CONFIG)
