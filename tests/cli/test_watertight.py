import json

import numpy as np
import pytest
import trimesh

import ff3d
from ff3d.cli.main import main
from ff3d.closing.files import ROWS
from ff3d.formats.writers import save_mesh


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A ball with a hole."""
    path = tmp_path_factory.mktemp("meshes") / "broken.ply"
    ball = trimesh.creation.icosphere(subdivisions=2, radius=10)
    save_mesh(trimesh.Trimesh(ball.vertices, ball.faces[ball.triangles_center[:, 2] < 9], process=False), path)
    return path


@pytest.mark.parametrize("ending", ["ply", "obj", "stl", "glb"])
def test_watertight_writes_a_closed_mesh_in_the_inputs_coordinates(broken, tmp_path, capsys, ending):
    path = tmp_path / f"shape.{ending}"
    assert main(["watertight", str(broken), "--resolution", "24", "-o", str(path)]) == 0
    said = capsys.readouterr().out
    assert "faces, closed, volume 4" in said
    assert said.endswith(f"results: {path}\n")
    shape = trimesh.load(path, force="mesh")
    assert shape.is_watertight
    assert shape.volume == pytest.approx(4 / 3 * np.pi * 1000, rel=0.1)


def test_the_function_and_the_command_give_the_same_mesh(broken, tmp_path):
    options = ["--error", "4%", "--offset", "2%", "--cavities", "fill", "--drop-floaters", "0.01", "--simplify", "300"]
    assert main(["watertight", str(broken), *options, "-o", str(tmp_path / "one.ply")]) == 0
    mesh = ff3d.watertight(
        ff3d.load_mesh(broken), error="4%", offset="2%", cavities="fill", drop_floaters=0.01, simplify=300
    )
    assert len(mesh.faces) <= 300
    save_mesh(mesh, tmp_path / "other.ply")
    assert (tmp_path / "one.ply").read_bytes() == (tmp_path / "other.ply").read_bytes()


def test_sheets_are_thickened_on_demand(tmp_path, capsys, caplog):
    sheet = tmp_path / "sheet.ply"
    save_mesh(trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False), sheet)
    asked = ["watertight", str(sheet), "--resolution", "40", "-o", str(tmp_path / "slab.ply")]
    assert main(asked) == 1
    assert "encloses nothing" in caplog.text
    assert main([*asked, "--sheets", "thicken", "10%"]) == 0
    assert ff3d.load_mesh(tmp_path / "slab.ply").is_watertight
    assert main([*asked, "--sheets", "thicken"]) == 1
    assert "--sheets takes refuse, fill or thicken T" in caplog.text


def test_many_meshes_go_to_a_folder_with_a_row_each_and_files_of_one_stem_get_distinct_names(broken, tmp_path, capsys):
    other = tmp_path / "elsewhere" / "broken.obj"
    save_mesh(trimesh.creation.box(), other)
    out = tmp_path / "out"
    asked = ["watertight", str(broken), str(other), "--resolution", "16", "--out", str(out), "--format", "obj"]
    for _ in range(2):  # the second time nothing is left to do
        assert main(asked) == 0
        assert capsys.readouterr().out == f"2 of 2 meshes closed\nresults: {out}\n"
    rows = [json.loads(line) for line in (out / ROWS).read_text().splitlines()]
    assert len(rows) == len({row["file"] for row in rows}) == 2
    assert all((out / row["file"]).suffix == ".obj" and (out / row["file"]).exists() for row in rows)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ([], "give -o FILE for one mesh, or --out DIR"),
        (["-o", "a.ply", "--out", "b"], "give -o FILE for one mesh, or --out DIR"),
        (["-o", "a.txt"], "known endings"),
        (["--out", "b", "--format", "txt"], "known endings"),
        (["-o", "a.ply", "--error", "0"], "error must be above 0"),
        (["-o", "a.ply", "--workers", "2"], "with -o there is no --workers; leave that out, or give --out DIR"),
        (["-o", "a.ply", "--timeout", "3", "--ray", "local"], "with -o there is no --timeout and no --ray"),
        (["-o", "a.ply", "--format", "obj"], "with -o there is no --format"),
        (["--out", "b", "--timeout", "3"], "--timeout needs --workers"),
    ],
)
def test_options_that_do_not_go_together_are_refused_before_any_work(
    broken, tmp_path, monkeypatch, caplog, options, reason
):
    monkeypatch.chdir(tmp_path)
    assert main(["watertight", str(broken), *options]) == 1
    assert reason in caplog.text
    assert not list(tmp_path.iterdir())
