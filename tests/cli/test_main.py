import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh

from ff3d.cli.main import _parse, all_commands, main
from ff3d.cli.settings import given
from ff3d.fields.field import load_field
from ff3d.settings import OPTIONS, make_config

ROOT = Path(__file__).parents[2]
SETTINGS = {"steps": 60, "width": 32, "depth": 2, "frequencies": 32, "batch-size": 1024, "pool-size": 4096, "scale": 1}
SETTINGS |= {"device": "cpu", "learning-rate": 0.01}
FAST = [text for name, value in SETTINGS.items() for text in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    path = tmp_path_factory.mktemp("meshes") / "ball.obj"
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=10.0)
    mesh.apply_translation([100.0, 0.0, 0.0])
    mesh.export(path)
    return path


@pytest.fixture(scope="module")
def run(ball, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "ball"
    assert main(["fit", str(ball), "--mapping", "gaussian", "--steps", "400", *FAST[2:], "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_fit_ends_by_saying_where_its_results_lie(ball, tmp_path, capsys):
    assert main(["fit", str(ball), *FAST, "--out", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "60 steps" in out
    assert out.endswith(f"results: {tmp_path / 'run'}\n")


@pytest.mark.slow
def test_fit_without_a_folder_makes_a_new_one_each_time(ball, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["fit", str(ball), *FAST]) == 0
    assert sorted(it.name for it in (tmp_path / "runs").iterdir()) == ["ball-hash", "ball-hash-2"]


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["ply", "obj", "stl", "glb"])
def test_extract_writes_a_closed_mesh_in_the_inputs_coordinates(run, tmp_path, capsys, ending):
    path = tmp_path / f"shape.{ending}"
    assert main(["extract", str(run), "--resolution", "48", "-o", str(path)]) == 0
    assert capsys.readouterr().out.endswith(f"results: {path}\n")
    shape = trimesh.load(path, force="mesh")
    assert shape.is_watertight
    assert shape.volume == pytest.approx(4 / 3 * np.pi * 1000, rel=0.05)
    np.testing.assert_allclose(shape.center_mass, [100, 0, 0], atol=0.3)


def test_extract_cleans_as_asked_and_says_so(run, tmp_path, capsys, caplog):
    path = tmp_path / "small.glb"
    asked = ["--refine", "3", "--drop-floaters", "0.01", "--simplify", "500", "--smooth-normals"]
    assert main(["extract", str(run), "--resolution", "64", *asked, "-o", str(path)]) == 0
    said = capsys.readouterr().out.splitlines()[-2]
    assert re.fullmatch(r"[\d,]+ faces, closed, volume 4\d{3}(\.\d+)?, \d+\.\d s", said)
    shape = trimesh.load(path, force="mesh")
    assert shape.is_watertight
    assert len(shape.faces) <= 500
    outward = (shape.vertices - [100, 0, 0]) / 10
    assert (outward * shape.vertex_normals).sum(axis=1).min() > 0.8


@pytest.mark.slow
def test_dense_and_sparse_give_the_same_file(run, tmp_path):
    for method in ("dense", "sparse"):
        path = tmp_path / f"{method}.ply"
        assert main(["extract", str(run), "--resolution", "130", "--method", method, "-o", str(path)]) == 0
    assert (tmp_path / "dense.ply").read_bytes() == (tmp_path / "sparse.ply").read_bytes()


def test_export_from_python_writes_the_file_of_the_command(run, tmp_path):
    options = ["--resolution", "64", "--refine", "2", "--simplify", "600", "--smooth-normals"]
    assert main(["extract", str(run), *options, "-o", str(tmp_path / "command.ply")]) == 0
    field = load_field(run / "field.safetensors")
    settings = {"resolution": 64, "refine": 2, "simplify": 600, "smooth_normals": True}
    written = field.export(tmp_path / "python.ply", **settings)
    assert (tmp_path / "python.ply").read_bytes() == (tmp_path / "command.ply").read_bytes()
    shape = trimesh.load(written.path, force="mesh")
    assert written.faces == len(shape.faces) <= 600
    assert written.volume == pytest.approx(shape.volume, rel=1e-5)


def test_extract_writes_points_and_voxels(run, tmp_path, capsys):
    points, voxels = tmp_path / "points.xyz", tmp_path / "voxels.npz"
    assert main(["extract", str(run), "--resolution", "32", "--points", "200", "-o", str(points)]) == 0
    assert np.loadtxt(points).shape == (200, 6)
    assert main(["extract", str(run), "--resolution", "32", "-o", str(voxels)]) == 0
    assert "of the voxels are inside" in capsys.readouterr().out
    with np.load(voxels) as made:
        assert made["occupancy"].sum() * float(made["spacing"]) ** 3 == pytest.approx(4 / 3 * np.pi * 1000, rel=0.1)


def test_extract_defaults_to_a_ply_in_the_run(run):
    assert main(["extract", str(run), "--resolution", "16"]) == 0
    assert (run / "mesh.ply").exists()


@pytest.mark.slow
def test_evaluate_gives_every_measure_in_one_line_of_json(run, ball, capsys):
    assert main(["evaluate", str(run), "--mesh", str(ball), "--resolution", "48", "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    result = json.loads(out)
    assert set(result["iou"]) == {"uniform", "boundary_face", "boundary_area"}
    assert result["iou"]["uniform"] > 0.95
    assert result["chamfer"] < 0.01
    assert result["f_score"] > 0.9
    assert result["normal_consistency"] > 0.9


def test_evaluate_reads_frozen_test_sets(run, tmp_path, capsys):
    rng = np.random.default_rng(0)
    points = rng.uniform(-11, 11, (5000, 3)) + [100, 0, 0]
    inside = np.linalg.norm(points - [100, 0, 0], axis=1) < 10
    np.savez(tmp_path / "sets.npz", uniform=points, uniform_inside=np.packbits(inside))
    assert main(["evaluate", str(run), "--testset", str(tmp_path / "sets.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["iou"]["uniform"] > 0.95


def test_label_writes_bools_in_the_inputs_coordinates(ball, tmp_path, capsys):
    points = np.random.default_rng(0).uniform(-12, 12, (1000, 3)) + [100, 0, 0]
    np.save(tmp_path / "points.npy", points)
    assert main(["label", str(ball), str(tmp_path / "points.npy"), "-o", str(tmp_path / "labels.npy")]) == 0
    labels = np.load(tmp_path / "labels.npy")
    radius = np.linalg.norm(points - [100, 0, 0], axis=1)
    sure = np.abs(radius - 10) > 0.1
    assert labels.dtype == bool
    assert labels.shape == (1000,)
    assert np.array_equal(labels[sure], (radius < 10)[sure])
    assert "results: " in capsys.readouterr().out


def test_inspect_says_what_the_mesh_is_and_what_will_be_done(ball, capsys):
    assert main(["inspect", str(ball)]) == 0
    out = capsys.readouterr().out
    assert "1,280" in out or "1280" in out
    assert "closed" in out
    assert len(set(out.splitlines())) == len(out.splitlines())


@pytest.mark.slow
def test_samples_writes_the_committed_files(tmp_path, capsys):
    assert main(["samples", str(tmp_path)]) == 0
    for path in sorted((ROOT / "meshes").glob("*.obj")):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    assert f"results: {tmp_path}" in capsys.readouterr().out


@pytest.mark.slow
def test_train_shape_compares_the_mappings_and_leaves_a_report(ball, tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "train_shape.py"), str(ball), "--mappings", "none", "basic"]
    command += [*FAST, "--steps", "300", "--resolution", "32", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "boundary_face" in done.stdout
    assert "best near the surface" in done.stdout
    assert str(tmp_path / "run") in done.stdout.splitlines()[-1]
    assert {it.name for it in (tmp_path / "run").iterdir()} == {
        *("ball-none-0", "ball-basic-0", "ball.png", "ball-cuts.png", "report.md", "report.html"),
        *("plan.json", "rows.jsonl", "rows.parquet"),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fit", "absent.obj"], "absent.obj"),
        (["fit", "{ball}", "--seconds", "5", "--steps", "5"], "not both"),
        (["fit", "{ball}", "--seconds", "-5"], "seconds must be positive"),
        (["fit", "{ball}", "--device", "abacus"], "abacus"),
        (["compare", "{ball}", "--mapping", "none"], "--mappings"),
        (["compare", "{ball}", "--mappings", "none", "none"], "each once"),
        (["benchmark", "{ball}", "--vary", "scale"], "SETTING=VALUE"),
        (["benchmark", "{ball}", "--vary", "scale=1,a"], "scale"),
        (["benchmark"], "--plan"),
        (["benchmark", "{ball}", "--out", "abacus://x"], "abacus"),
        (["benchmark", "{ball}", "--timeout", "-1"], "timeout must be positive"),
        (["tune", "{ball}", "--mapping", "none"], "--mappings"),
        (["extract", "{tmp}"], "no field.safetensors here"),
        (["extract", "{run}", "-o", "{tmp}/a.step"], ".ply"),
        (["extract", "{run}", "--resolution", "0"], "resolution"),
        (["extract", "{run}", "--resolution", "100000"], "GB"),
        (["evaluate", "{run}"], "--testset"),
        (["evaluate", "{run}", "--testset", "absent.npz"], "absent.npz: no such file"),
        (["label", "{ball}", "absent.npy", "-o", "{tmp}/x.npy"], "absent.npy"),
        (["fit", "{tmp}/cloud.ply"], "oriented point clouds"),
    ],
)
def test_a_mistake_is_one_clear_line_and_a_code_that_is_not_zero(
    ball, run, tmp_path, capsys, caplog, monkeypatch, arguments, says
):
    monkeypatch.chdir(tmp_path)
    trimesh.PointCloud(np.random.default_rng(0).random((10, 3))).export(tmp_path / "cloud.ply")
    places = {"ball": ball, "run": run, "tmp": tmp_path}
    assert main([it.format(**places) for it in arguments]) != 0
    assert says in caplog.records[-1].message
    assert "\n" not in caplog.records[-1].message
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_mistake_leaves_no_folder_behind_that_blocks_the_corrected_command(ball, tmp_path):
    folder = str(tmp_path / "run")
    assert main(["fit", str(ball), *FAST, "--learning-rate", "1e30", "--out", folder]) != 0
    assert main(["fit", str(ball), *FAST, "--out", folder]) == 0


@pytest.mark.slow
def test_compare_goes_on_where_it_was_and_never_into_another_comparison(ball, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["compare", str(ball), *FAST, "--resolution", "16", "--mappings"]
    assert main([*command, "basic", "gaussian"]) == 0
    (tmp_path / "runs" / "ball" / "report.md").unlink()  # as if it had been stopped while drawing
    stamp = (tmp_path / "runs" / "ball" / "ball-basic-0" / "field.safetensors").stat().st_mtime_ns
    assert main([*command, "basic", "gaussian"]) == 0
    assert (tmp_path / "runs" / "ball" / "ball-basic-0" / "field.safetensors").stat().st_mtime_ns == stamp
    assert main([*command, "basic"]) == 0
    assert sorted(it.name for it in (tmp_path / "runs").iterdir()) == ["ball", "ball-2"]
    assert main([*command, "basic", "--learning-rate", "0.5", "--out", "runs/ball"]) != 0


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match=r"absent\.obj"):
        main(["fit", "absent.obj", "--debug"])


@pytest.mark.parametrize("command", ["", *all_commands()])
def test_every_help_ends_with_two_examples_that_parse(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    usage, _, examples = capsys.readouterr().out.rpartition("examples:\n")
    assert len(usage) > 300
    lines = [line.split() for line in examples.splitlines()]
    assert [line[0] for line in lines] == ["ff3d", "ff3d"]
    assert lines[0] != lines[1]
    for _, *arguments in lines:
        kind = all_commands()[arguments[0]]
        assert isinstance(_parse(arguments, "ff3d", None), type(kind))
        assert command in ("", arguments[0])


def test_the_script_offers_its_one_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"], prog="train_shape.py", only="compare")
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("usage: train_shape.py [-h]")
    assert lines[0].endswith("MESH")
    assert lines[-1] == "  train_shape.py bunny --mappings hash voxels --steps 100 --resolution 96 --out runs/two"


def test_an_unknown_flag_is_refused(ball, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", str(ball), "--stpes", "5"])
    assert stop.value.code == 2
    assert "stpes" in capsys.readouterr().err


def test_the_paper_preset_is_what_the_other_settings_start_from(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--preset", "paper", "--help"])
    assert "10000" in capsys.readouterr().out


# --- labels


def test_label_takes_a_scan_and_any_oracle(ball, tmp_path, capsys):
    points = np.array([[100.0, 0, 0], [100, 9, 0], [100, 11, 0], [0, 0, 0]])
    np.save(tmp_path / "points.npy", points)
    mesh = trimesh.load(ball, process=False)
    np.savetxt(tmp_path / "scan.xyz", mesh.vertices)
    for shape, oracle in ((ball, "auto"), (ball, "rays"), (tmp_path / "scan.xyz", "auto")):
        out = tmp_path / "labels.npy"
        assert main(["label", str(shape), str(tmp_path / "points.npy"), "-o", str(out), "--oracle", oracle]) == 0
        assert np.load(out).tolist() == [True, True, False, False]
        assert "2 of 4 points are inside" in capsys.readouterr().out


@pytest.mark.slow
def test_a_scan_is_fitted_as_a_mesh_is(tmp_path):
    mesh = trimesh.creation.icosphere(subdivisions=4)
    trimesh.PointCloud(mesh.vertices).export(tmp_path / "scan.ply")
    out = tmp_path / "run"
    assert main(["fit", str(tmp_path / "scan.ply"), "--steps", "300", *FAST[2:], "--out", str(out)]) == 0
    assert main(["extract", str(out), "--resolution", "32"]) == 0
    assert trimesh.load(out / "mesh.ply").volume == pytest.approx(4 / 3 * np.pi, rel=0.1)


def test_a_sheet_is_refused_by_name_in_every_command(tmp_path, caplog):
    (tmp_path / "sheet.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0.1\nv 0 1 0\nf 1 2 3 4\n")
    np.save(tmp_path / "points.npy", np.zeros((1, 3)))
    sheet = str(tmp_path / "sheet.obj")
    label = ["label", sheet, str(tmp_path / "points.npy"), "-o", str(tmp_path / "labels.npy")]
    for command in (label, ["fit", sheet, *FAST], ["compare", sheet, *FAST, "--out", str(tmp_path / "runs")]):
        caplog.clear()
        assert main(command) == 1
        assert "open surface" in caplog.records[-1].message


def test_prepare_writes_samples_and_says_how_many_meshes_failed(ball, tmp_path, capsys):
    (tmp_path / "broken.ply").write_text("ply\n")
    arguments = ["prepare", str(ball), str(tmp_path / "broken.ply"), "--out", str(tmp_path / "out"), "--points", "500"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "1 of 2 meshes prepared, 500 points each" in out
    with np.load(tmp_path / "out" / "ball.npz") as made:
        assert made["points"].shape == (500, 3)
    assert main(["prepare", str(tmp_path / "broken.ply"), "--out", str(tmp_path / "none"), "--points", "5"]) == 1


@pytest.mark.slow
def test_inspect_says_where_labels_are_not_sure_and_whether_another_oracle_agrees(tmp_path, capsys):
    mesh = trimesh.creation.icosphere(subdivisions=3)
    mesh.update_faces(mesh.triangles_center[:, 1] < 0.8)
    mesh.export(tmp_path / "holed.ply")
    picture = tmp_path / "cuts.png"
    assert main(["inspect", str(tmp_path / "holed.ply"), "--check", "--picture", str(picture)]) == 0
    out = capsys.readouterr().out
    assert "labels  not sure in" in out
    assert "check   0.0000% of 100,000 points differ from the exact sum" in out
    from PIL import Image

    with Image.open(picture) as image:
        colors = np.unique(np.asarray(image).reshape(-1, 3), axis=0)
    assert len(colors) > 50  # inside, outside, and the shades in between

    (tmp_path / "sheet.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0.1\nv 0 1 0\nf 1 2 3 4\n")
    assert main(["inspect", str(tmp_path / "sheet.obj")]) == 0
    assert "labels  refused: an open surface" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "preset", "mapping"),
    [
        ([], "direct", "voxels"),
        (["--seconds=300"], "direct", "voxels"),
        (["--bytes", "50k"], "small", "lattice"),
        (["--seconds", "300", "--mapping", "gaussian"], "plain", "gaussian"),
        (["--preset", "fast", "--mapping", "gaussian"], "fast", "gaussian"),
        (["--preset=best", "--seconds", "300"], "best", "hash"),
        (["--preset=small", "--bytes", "1.5M"], "small", "lattice"),
    ],
)
def test_fit_picks_the_preset_by_the_mapping_and_the_budget(arguments, preset, mapping):
    config = make_config(**{"preset": None} | given(_parse(["fit", "bunny.obj", *arguments], "ff3d", None).settings))
    assert (config.preset, config.mapping.name) == (preset, mapping)
    learned = ("distance", True) if preset in {"fast", "best"} else ("occupancy", False)
    assert (config.sampling.target, config.sampling.guarded) == learned


@pytest.mark.parametrize("command", ["compare", "benchmark", "tune"])
def test_comparisons_start_from_plain_settings(command):
    config = make_config(**given(_parse([command, "bunny.obj", "--seconds", "300"], "ff3d", None).settings))
    assert (config.preset, config.sampling.target, config.sampling.guarded) == ("plain", "occupancy", False)


def test_what_is_given_is_known_apart_from_what_is_usual():
    arguments = ["--width", "256", "--no-guarded", "--widths", "0.1", "0.2", "--notebook", "--target", "occupancy"]
    settings = _parse(["fit", "bunny.obj", *arguments], "ff3d", None).settings
    assert given(settings) == {
        "width": 256,
        "guarded": False,
        "widths": (0.1, 0.2),
        "notebook": True,
        "target": "occupancy",
    }


def test_every_setting_is_an_option_with_a_text_of_its_own(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    page = capsys.readouterr().out
    for name in OPTIONS:
        assert f"--{name.replace('_', '-')} " in page
