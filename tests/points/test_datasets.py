import json

import numpy as np
import pytest
import trimesh

from ff3d.formats.writers import save_mesh
from ff3d.geometry.sampling import SampleMix
from ff3d.labels.oracles import make_oracle
from ff3d.points.datasets import ROWS, label_file, prepare
from ff3d.shapes.mesh import load_mesh

MIX = {"mix": SampleMix(0.5, (0.01,)), "margin": 0.02}


def ball(path, at=(0, 0, 0)):
    mesh = trimesh.creation.icosphere(subdivisions=3)
    mesh.apply_translation(at)
    save_mesh(mesh, path)
    return path


def rows_of(folder):
    return [json.loads(line) for line in (folder / ROWS).read_text().splitlines()]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, ">f4"])
def test_a_file_of_points_is_labelled_chunk_by_chunk(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("ff3d.points.datasets.CHUNK", 1000)
    points = np.random.default_rng(0).uniform(-1.2, 1.2, size=(3501, 3)).astype(dtype)
    np.save(tmp_path / "points.npy", points)
    oracle = make_oracle(trimesh.creation.icosphere(subdivisions=3))
    inside, count = label_file(oracle, tmp_path / "points.npy", tmp_path / "labels.npy")
    labels = np.load(tmp_path / "labels.npy")
    assert labels.dtype == bool
    assert np.array_equal(labels, oracle(points.astype(np.float64)))
    assert (inside, count) == (labels.sum(), 3501)


def test_no_points_have_no_labels(tmp_path):
    np.save(tmp_path / "points.npy", np.zeros((0, 3)))
    assert label_file(lambda points: points[:, 0] > 0, tmp_path / "points.npy", tmp_path / "labels.npy") == (0, 0)
    assert np.load(tmp_path / "labels.npy").shape == (0,)


def test_a_point_that_is_not_finite_is_named_by_its_rows_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("ff3d.points.datasets.CHUNK", 100)
    points = np.zeros((1000, 3))
    points[742, 1] = np.nan
    np.save(tmp_path / "points.npy", points)
    with pytest.raises(ValueError, match="rows 700 to 800: points must be finite, got 1"):
        label_file(make_oracle(trimesh.creation.box()), tmp_path / "points.npy", tmp_path / "labels.npy")
    assert [it.name for it in tmp_path.iterdir()] == ["points.npy"]


@pytest.mark.parametrize("content", [b"", b"hello", np.save])
def test_what_is_no_file_of_points_is_refused(tmp_path, content):
    path = tmp_path / "points.npy"
    if callable(content):
        content(path, np.zeros((3, 4)))
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"points\.npy: expected a \.npy of points"):
        label_file(make_oracle(trimesh.creation.box()), path, tmp_path / "labels.npy")


def test_prepared_points_are_where_they_say_and_labelled_rightly(tmp_path):
    path = ball(tmp_path / "ball.ply", at=(5, 6, 7))
    [row] = prepare([path], tmp_path / "out", count=5000, seed=3, **MIX)
    with np.load(tmp_path / "out" / "ball.npz") as made:
        points, bits, loc, scale = (made[key] for key in ("points", "occupancies", "loc", "scale"))
        meta = json.loads(str(made["meta"]))
    assert points.dtype == np.float32
    assert np.abs(points).max() < 0.5
    labels = np.unpackbits(bits, count=5000).astype(bool)
    world = points.astype(np.float64) * scale + loc
    assert np.array_equal(labels, make_oracle(load_mesh(path))(world))
    radius = np.linalg.norm(world - [5, 6, 7], axis=1)
    assert np.array_equal(labels[np.abs(radius - 1) > 0.02], (radius < 1)[np.abs(radius - 1) > 0.02])
    assert row["inside"] == meta["inside"] == labels.mean()
    assert len(meta["sha256"]) == 64
    assert (meta["seed"], meta["mesh"]) == (3, "ball.ply")


def test_the_same_again_gives_the_same_bytes_and_does_no_work_twice(tmp_path):
    paths = [ball(tmp_path / "a.ply"), ball(tmp_path / "b.ply", at=(1, 0, 0))]
    prepare(paths, tmp_path / "out", count=1000, **MIX)
    first = {it.name: (it.read_bytes(), it.stat().st_mtime_ns) for it in (tmp_path / "out").glob("*.npz")}
    rows = prepare(paths, tmp_path / "out", count=1000, **MIX)
    assert {it.name: (it.read_bytes(), it.stat().st_mtime_ns) for it in (tmp_path / "out").glob("*.npz")} == first
    prepare(paths, tmp_path / "again", count=1000, **MIX)
    assert all((tmp_path / "again" / name).read_bytes() == content for name, (content, _) in first.items())
    assert rows == rows_of(tmp_path / "out")[2:] == rows_of(tmp_path / "out")[:2]


def test_other_settings_another_mesh_and_a_broken_file_are_made_anew(tmp_path):
    path, out = ball(tmp_path / "a.ply"), tmp_path / "out"
    prepare([path], out, count=1000, **MIX)
    first = (out / "a.npz").read_bytes()
    prepare([path], out, count=1000, seed=1, **MIX)
    second = (out / "a.npz").read_bytes()
    assert second != first
    ball(path, at=(0, 0, 9))
    prepare([path], out, count=1000, seed=1, **MIX)
    third = (out / "a.npz").read_bytes()
    assert third != second
    (out / "a.npz").write_bytes(third[:500])
    prepare([path], out, count=1000, seed=1, **MIX)
    assert (out / "a.npz").read_bytes() == third


def test_a_mesh_that_fails_is_a_row_with_its_reason_and_stops_nothing(tmp_path):
    sheet = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0.1]], [[0, 1, 2]], process=False)
    save_mesh(sheet, tmp_path / "sheet.obj")
    (tmp_path / "cut.stl").write_bytes(b"solid cut\nfacet")
    paths = [tmp_path / "sheet.obj", tmp_path / "cut.stl", ball(tmp_path / "ball.ply")]
    rows = prepare(paths, tmp_path / "out", count=500, **MIX)
    assert "open surface" in rows[0]["failure"]
    assert "cut.stl" in rows[1]["failure"]
    assert "failure" not in rows[2]
    assert sorted(it.name for it in (tmp_path / "out").iterdir()) == ["ball.npz", ROWS]


def test_meshes_of_one_name_get_different_files(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    paths = [ball(tmp_path / "one" / "x.ply"), ball(tmp_path / "two" / "x.ply", at=(3, 0, 0))]
    rows = prepare(paths, tmp_path / "out", count=500, **MIX)
    assert len({row["file"] for row in rows}) == 2
    assert all((tmp_path / "out" / row["file"]).exists() for row in rows)


def test_a_scan_is_prepared_too(tmp_path):
    mesh = trimesh.creation.icosphere(subdivisions=4)
    np.savetxt(tmp_path / "scan.xyz", np.concatenate([mesh.vertices, mesh.vertex_normals], axis=1))
    [row] = prepare([tmp_path / "scan.xyz"], tmp_path / "out", count=1000, mix=SampleMix(1.0, ()), margin=0.0)
    assert row["inside"] == pytest.approx(np.pi / 6, abs=0.05)
