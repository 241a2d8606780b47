"""Paths, names and shapes of every kind in every command, and in Python."""

import json
import re

import numpy as np
import pytest
import trimesh

import ff3d
from ff3d.cli.main import main
from ff3d.formats.writers import save_mesh
from ff3d.labels.oracles import LabelledShape, load_surface
from ff3d.shapes.point_cloud import PointCloud
from ff3d.shapes.solids import sphere
from ff3d.views.html import write_page
from ff3d.views.markdown import write_report

TINY = {"width": 16, "depth": 2, "frequencies": 16, "batch_size": 512, "pool_size": 2048, "device": "cpu"}
SMALL = {**TINY, "mapping": "gaussian", "steps": 150, "scale": 1.0, "learning_rate": 0.02}


def options(settings):
    return [text for name, value in settings.items() for text in (f"--{name.replace('_', '-')}", str(value))]


def ball(away=0.0, radius=1.0):
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    mesh.apply_translation([away] * 3)
    return mesh


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    points = trimesh.creation.icosphere(subdivisions=4).vertices
    np.savetxt(folder / "scan.xyz", np.concatenate([points, points], axis=1))
    np.savetxt(folder / "bare.xyz", points)
    save_mesh(ball(), folder / "ball.ply")
    save_mesh(ball(radius=1000.0), folder / "millimetres.ply")
    return folder


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "ball"
    assert main(["fit", str(shapes / "ball.ply"), *options(SMALL), "--out", str(folder)]) == 0
    return folder


def said(capsys):
    return capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- clouds everywhere


@pytest.mark.parametrize("name", ["scan", "bare"])
def test_inspect_knows_a_scan(shapes, name, capsys):
    assert main(["inspect", str(shapes / f"{name}.xyz"), "--check"]) == 0
    out = said(capsys)
    assert f"2,562 points {'with' if name == 'scan' else 'without'} normals, a point cloud" in out
    assert "box     2 x 2 x 2, from (-1, -1, -1) to (1, 1, 1)" in out
    assert ("the cloud has no normals: they are estimated" in out) == (name == "bare")
    assert re.search(r"labels  not sure in \d+\.\d\d% of the box", out)
    assert re.search(r"check   0\.\d{4}% of [\d,]+ points differ from the exact sum over the surfels", out)


@pytest.mark.parametrize("name", ["scan", "bare"])
def test_a_scan_is_labelled_prepared_fitted_and_evaluated(shapes, run, tmp_path, name, capsys):
    cloud = str(shapes / f"{name}.xyz")
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (2000, 3))
    np.save(tmp_path / "points.npy", points)
    assert main(["label", cloud, str(tmp_path / "points.npy"), "-o", str(tmp_path / "labels.npy")]) == 0
    radius = np.linalg.norm(points, axis=1)
    sure = np.abs(radius - 1) > 0.05
    assert np.array_equal(np.load(tmp_path / "labels.npy")[sure], (radius < 1)[sure])
    assert main(["prepare", cloud, "--out", str(tmp_path / "prepared"), "--points", "500"]) == 0
    assert (tmp_path / "prepared" / f"{name}.npz").exists()
    assert main(["fit", cloud, *options(SMALL), "--out", str(tmp_path / "run")]) == 0
    said(capsys)
    assert main(["evaluate", str(run), "--mesh", cloud, "--resolution", "32", "--json"]) == 0
    result = json.loads(said(capsys))
    assert result["iou"]["uniform"] > 0.9
    assert result["f_score"] > 0.2


def test_two_scans_of_one_stem_are_benchmarked_under_names_of_their_own(shapes, tmp_path):
    (tmp_path / "more").mkdir()
    copy = tmp_path / "more" / "scan.xyz"
    copy.write_bytes((shapes / "scan.xyz").read_bytes())
    few = {**TINY, "steps": 60, "scale": 1.0, "learning_rate": 0.02}
    plan = ff3d.make_plan([shapes / "scan.xyz", copy], ("gaussian",), (0,), resolution=24, **few)
    study = ff3d.run_study(plan, tmp_path / "out")
    assert study.meshes == [row.mesh for row in study.rows] == list(plan.names)
    for row in study.rows:
        assert re.fullmatch(r"scan-[0-9a-f]{16}", row.mesh)
        assert row.failure is None
        assert (tmp_path / "out" / f"{row.mesh}-gaussian-0" / "mesh.ply").exists()
    write_report(study, pictures=False)
    for page in (tmp_path / "out" / "report.md", write_page(study)):
        assert all(name in page.read_text() for name in plan.names)


def test_compare_takes_a_scan(shapes, tmp_path):
    few = {**TINY, "steps": 60, "learning_rate": 0.02}
    command = ["compare", str(shapes / "scan.xyz"), *options(few), "--mappings", "none", "--resolution", "24"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "scan.png").exists()


# ---------------------------------------------------------------------------------------------- the same in Python


def test_a_shape_is_loaded_from_a_path_a_name_or_memory(shapes):
    mesh = ball()
    by_path, by_name = load_surface(shapes / "ball.ply"), load_surface("bunny")
    assert (by_path.name, by_path.stem, len(by_path.sha256)) == ("ball.ply", "ball", 64)
    assert by_name.name == "bunny.obj"
    in_memory = load_surface(mesh)
    assert (in_memory.name, in_memory.sha256) == ("mesh", None)
    assert in_memory.mesh is in_memory.shape is mesh
    assert load_surface(by_path) is by_path
    cloud, solid = load_surface(PointCloud(ball().vertices)), load_surface(sphere(1.0))
    assert (cloud.name, solid.name) == ("cloud", "sphere")
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (5000, 3))
    sure = np.abs(np.linalg.norm(points, axis=1) - 1) > 0.05
    for surface in (by_path, in_memory, cloud, solid):
        assert isinstance(surface, LabelledShape)
        assert np.array_equal(surface.oracle(points)[sure], (np.linalg.norm(points, axis=1) < 1)[sure])
        np.testing.assert_allclose(surface.mesh.extents, 2, atol=0.1)


def test_a_solid_is_labelled_exactly_and_its_mesh_has_its_volume():
    solid = load_surface(sphere(1.0))
    points = np.random.default_rng(0).uniform(-1, 1, (10_000, 3))
    assert np.array_equal(solid.oracle(points), np.linalg.norm(points, axis=1) < 1)
    assert solid.mesh.volume == pytest.approx(4 / 3 * np.pi, rel=1e-3)


@pytest.mark.parametrize("kind", ["mesh", "cloud", "bare cloud", "solid", "path"])
def test_fit_takes_every_kind_of_shape(kind, shapes):
    mesh = trimesh.creation.icosphere(subdivisions=4)
    shape = {
        "mesh": mesh,
        "cloud": PointCloud(mesh.vertices, mesh.vertices),
        "bare cloud": PointCloud(mesh.vertices),
        "solid": sphere(1.0),
        "path": shapes / "ball.ply",
    }[kind]
    field = ff3d.fit(shape, **SMALL)
    assert ff3d.iou(field.contains, ff3d.test_points(sphere(1.0), "uniform", count=20_000)) > 0.9


# ---------------------------------------------------------------------------------------------- strays


@pytest.mark.parametrize("away", [10, 500])
def test_a_stray_facet_changes_neither_the_fit_nor_its_mesh(tmp_path, away, capsys):
    mesh = ball(away)
    for name, more in (("alone", ""), ("stray", "v 0 0 0\nv 0 0 0\nv 0 0 0\nf 643 644 645\n")):
        lines = [f"v {x!r} {y!r} {z!r}" for x, y, z in mesh.vertices.tolist()]
        lines += [f"f {a} {b} {c}" for a, b, c in (mesh.faces + 1).tolist()]
        (tmp_path / f"{name}.obj").write_text("\n".join(lines) + "\n" + more)
        assert main(["fit", str(tmp_path / f"{name}.obj"), *options(SMALL), "--out", str(tmp_path / name)]) == 0
        assert main(["extract", str(tmp_path / name), "--resolution", "32"]) == 0
    assert (tmp_path / "alone" / "mesh.ply").read_bytes() == (tmp_path / "stray" / "mesh.ply").read_bytes()
    assert trimesh.load(tmp_path / "stray" / "mesh.ply").volume == pytest.approx(4 / 3 * np.pi, rel=0.1)
    said(capsys)
    assert main(["inspect", str(tmp_path / "stray.obj")]) == 0
    out = said(capsys)
    assert "box     2 x 2 x 2" in out
    assert f"far away: 1 face(s) at (0, 0, 0), {np.sqrt(3) * (away - 1):.4g} from the rest" in out
    assert "left out of labels and box" in out
    assert (
        main(
            ["evaluate", str(tmp_path / "alone"), "--mesh", str(tmp_path / "stray.obj"), "--resolution", "32", "--json"]
        )
        == 0
    )
    stray = json.loads(said(capsys))
    assert (
        main(
            ["evaluate", str(tmp_path / "alone"), "--mesh", str(tmp_path / "alone.obj"), "--resolution", "32", "--json"]
        )
        == 0
    )
    assert stray == json.loads(said(capsys))


def test_inspect_says_which_box_counts_where_a_real_triangle_lies_far_away(tmp_path, capsys):
    triangle = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]], process=False)
    save_mesh(trimesh.util.concatenate([ball(500), triangle]), tmp_path / "far.ply")
    assert main(["inspect", str(tmp_path / "far.ply")]) == 0
    out = said(capsys)
    assert "box     501 x 501 x 501, from (0, 0, 0)" in out
    assert "far away: 1 face(s) at (0.5, 0.5, 0), 863." in out
    assert "counts  2 x 2 x 2, from (499, 499, 499) to (501, 501, 501): the box of what counts as surface" in out


# ---------------------------------------------------------------------------------------------- what found nothing


def test_a_fit_that_found_nothing_says_so_keeps_its_files_and_fails(shapes, tmp_path, capsys):
    wild = options(SMALL | {"learning_rate": 10.0, "steps": 60})
    for _ in range(2):  # fitted, and then read again
        assert main(["fit", str(shapes / "ball.ply"), *wild, "--out", str(tmp_path / "run")]) == 1
        out = said(capsys)
        assert "the field found nothing: it is outside at all 12,288 test points, of which" in out
        assert "lower the learning rate" in out
        assert out.endswith(f"results: {tmp_path / 'run'}\n")
    assert (tmp_path / "run" / "field.safetensors").exists()


def test_a_fit_in_python_that_found_nothing_warns(caplog):
    ff3d.fit(ball(), **SMALL | {"learning_rate": 10.0, "steps": 60})
    assert "the field found nothing" in caplog.text


def test_empty_test_points_are_no_score(tmp_path, capsys):
    needle = trimesh.creation.cylinder(radius=2e-4, height=2, sections=8)
    save_mesh(needle, tmp_path / "needle.ply")
    wide = {"margin": 0.4, "uniform": 0.5, "widths": 0.0001}
    main(["fit", str(tmp_path / "needle.ply"), *options(SMALL | wide), "--out", str(tmp_path / "run")])
    out = said(capsys)
    assert "uniform 1.0000" not in out
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(score < 1 for row in rows for score in row["iou"].values())
    assert "nothing" in out


# ---------------------------------------------------------------------------------------------- evaluate


def test_evaluate_refuses_a_reference_in_other_units_in_one_line(run, shapes, caplog):
    assert main(["evaluate", str(run), "--mesh", str(shapes / "millimetres.ply")]) == 1
    assert "not of one shape: the reference is about 1,000 times larger (mm and m?)" in caplog.text


def test_evaluate_says_what_it_measured_where_there_is_no_mesh(shapes, tmp_path, capsys):
    wild = options(SMALL | {"learning_rate": 10.0, "steps": 60})
    main(["fit", str(shapes / "ball.ply"), *wild, "--out", str(tmp_path / "run")])
    said(capsys)
    assert main(["evaluate", str(tmp_path / "run"), "--mesh", str(shapes / "ball.ply")]) == 0
    out = said(capsys)
    assert "IoU  uniform 0.0000" in out
    assert "- the field found nothing" in out
    assert "- no mesh, so no Chamfer distance, F-score or normals: nothing is inside" in out
