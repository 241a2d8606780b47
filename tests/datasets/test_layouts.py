"""Each layout read back as the project's loader does, with the same files, keys and types (docs/datasets.md)."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

from ff3d.datasets.config import LAYOUTS, make_sets_config
from ff3d.datasets.layouts import paths_of
from ff3d.datasets.prepare import ROWS, prepare
from ff3d.formats.writers import save_mesh
from ff3d.geometry.distances import NearestFaces
from ff3d.labels.oracles import make_oracle
from ff3d.shapes.mesh import load_mesh

AT, SIDES = np.array([5.0, -6.0, 7.0]), (4.0, 2.0, 1.0)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    """Two boxes, of sides 4, 2, 1, about `AT`."""
    folder = tmp_path_factory.mktemp("boxes")
    for name in ("one", "two"):
        mesh = trimesh.creation.box(SIDES)
        mesh.apply_translation(AT)
        mesh.metadata.clear()
        save_mesh(mesh, folder / f"{name}.ply")
    return folder


def made(boxes, out, layout, sets=(), **settings):
    prepare([boxes / "one.ply", boxes / "two.ply"], out, make_sets_config(layout, sets, **settings))
    return out


def distance(points):
    """The exact signed distance of the box, positive inside; points (n, 3), input coordinates."""
    apart = np.abs(points - AT) - np.array(SIDES) / 2
    return -np.linalg.norm(np.maximum(apart, 0), axis=1) - np.minimum(apart.max(axis=1), 0)


def check_labels(inside, points, place, step):
    """That labels are those of the points, but where those lie within rounding of the surface; step: that rounding."""
    exact = distance(place(points))
    sure = np.abs(exact) > step
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(np.asarray(inside, dtype=bool)[sure], exact[sure] > 0)


def check_surface(points, normals, place, tolerance):
    """That points lie on the box, and normals look outward."""
    world = place(points)
    assert np.abs(distance(world)).max() < tolerance
    lengths = np.linalg.norm(normals, axis=1)
    np.testing.assert_allclose(lengths, 1, atol=2e-3)
    assert (distance(world + 0.01 * normals) < distance(world - 0.01 * normals)).all()


def place_by(archive, factor=1.0):
    """What leads to input coordinates: points * scale + loc."""
    loc, scale = archive["loc"], archive["scale"]
    assert loc.shape == (3,)
    assert scale.shape == ()
    return lambda points: np.asarray(points, dtype=np.float64) * scale * factor + loc


def test_occupancy_networks_reads_its_layout(boxes, tmp_path):
    folder = made(boxes, tmp_path, "occnet", ["volume=4000", "surface=3000"], category="table")
    # Shapes3dDataset: the categories are the folders; each has a list, split at line ends
    categories = [path.name for path in sorted(folder.iterdir()) if path.is_dir()]
    assert categories == ["table"]
    models = (folder / "table" / "train.lst").read_text().split("\n")
    assert models == ["one", "two"]
    for model in models:
        # PointsField, with unpackbits and with_transforms
        with np.load(folder / "table" / model / "points.npz") as loaded:
            points, packed = loaded["points"], loaded["occupancies"]
            assert points.dtype == np.float16
            occupancies = np.unpackbits(packed)[: points.shape[0]].astype(np.float32)
            assert points.shape == (4000, 3)
            assert set(np.unique(occupancies)) == {0.0, 1.0}
            check_labels(occupancies, points, place_by(loaded), 1e-9)  # of the points as they are stored
            assert 0.54 < np.abs(points).max() <= np.float16(0.55)
            assert loaded["loc"].astype(np.float32).tolist() == AT.tolist()
            assert loaded["scale"].astype(np.float32) == 4
        # PointCloudField
        with np.load(folder / "table" / model / "pointcloud.npz") as loaded:
            points, normals = loaded["points"].astype(np.float32), loaded["normals"].astype(np.float32)
            assert points.shape == normals.shape == (3000, 3)
            assert np.abs(points).max(axis=0) == pytest.approx([0.5, 0.25, 0.125], abs=1e-3)
            check_surface(points, normals, place_by(loaded), 2e-3)


def test_3dshape2vecset_reads_its_layout(boxes, tmp_path):
    folder = made(boxes, tmp_path, "3dshape2vecset", ["volume=4000", "near=5000", "surface=3000"])
    point_folder, mesh_folder = folder / "ShapeNetV2_point", folder / "ShapeNetV2_watertight"
    categories = [path.name for path in point_folder.iterdir() if path.is_dir() and path.name.startswith("0")]
    assert categories == ["03001627"]
    lines = (point_folder / "03001627" / "train.lst").read_text().split("\n")
    for model in [line.replace(".npz", "") for line in lines]:
        path = point_folder / "03001627" / f"{model}.npz"
        with np.load(path) as loaded:
            place = place_by(loaded)
            queries = {key: loaded[key] for key in ("vol_points", "vol_label", "near_points", "near_label")}
        with open(str(path).replace(".npz", ".npy"), "rb") as file:
            scale = np.load(file).item()
        with np.load(mesh_folder / "03001627" / "4_pointcloud" / f"{model}.npz") as loaded:
            surface = loaded["points"].astype(np.float32) * scale
            check_surface(loaded["points"], loaded["normals"], place_by(loaded), 1e-5)
        # drawn from without replacement, and joined as tensors
        indices = np.random.default_rng(0).choice(queries["near_points"].shape[0], 1024, replace=False)
        tensors = [torch.from_numpy(queries[key][indices % 4000]) for key in ("vol_points", "near_points")]
        points = torch.cat(tensors, dim=0)
        labels = torch.cat([torch.from_numpy(queries[key]).float() for key in ("vol_label", "near_label")])
        assert points.dtype == torch.float32
        assert labels.shape == (9000,)
        assert surface.dtype == np.float32
        assert np.abs(surface).max() == pytest.approx(1, abs=1e-6)
        for kind in ("vol", "near"):
            check_labels(queries[f"{kind}_label"], queries[f"{kind}_points"], place, 1e-9)
        assert 0.99 < np.abs(queries["vol_points"]).max() <= 1
        check_surface(surface, np.load(io.BytesIO(_cloud(mesh_folder, model)))["normals"], place, 1e-5)


def _cloud(folder, model):
    return (folder / "03001627" / "4_pointcloud" / f"{model}.npz").read_bytes()


@pytest.mark.slow
def test_dora_reads_its_layout(boxes, tmp_path, monkeypatch):
    folder = made(boxes, tmp_path, "dora")
    monkeypatch.chdir(tmp_path.parent)  # the list is of whole paths
    uids = json.loads((folder / "train.json").read_text())
    assert [Path(uid).name for uid in uids] == ["one.npz", "two.npz"]
    data = np.load(uids[1])
    place = place_by(data)
    for key, count in (("fps_coarse_surface", 32768), ("fps_sharp_surface", 32768)):
        surface = data[key][:, 0, :]
        assert (surface.shape, surface.dtype) == ((count, 6), np.float32)
        assert not np.isnan(surface).any()
        check_surface(surface[:, :3], surface[:, 3:], place, 1e-5)
    edges = np.sort(np.abs(place(data["fps_sharp_surface"][:, 0, :3]) - AT) / (np.array(SIDES) / 2), axis=1)
    np.testing.assert_allclose(edges[:, 1:], 1, atol=1e-5)  # on two faces at once
    rand_points, sharp = data["rand_points"], data["sharp_near_surface"]
    assert rand_points.dtype == sharp.dtype == np.float32
    rng = np.random.default_rng()
    for rows, count in ((sharp, 21384), (rand_points[:400000], 10000), (rand_points[400000:], 10000)):
        chosen = rows[rng.choice(rows.shape[0], count, replace=False)]
        sdf = chosen[:, 3]
        np.testing.assert_allclose(sdf * data["scale"], distance(place(chosen[:, :3])), atol=2e-6)
        # positive inside: "occupancies" there are 1 where the distance is not negative
        check_labels(np.where(sdf < 0, 0, 1), chosen[:, :3], place, 1e-6)
        assert np.abs(sdf.clip(-0.015, 0.015) / 0.015).max() <= 1
    near = np.abs(rand_points[:400000, 3])
    assert np.quantile(near, 0.99) < 0.015
    assert 1.04 < np.abs(rand_points[400000:, :3]).max() <= np.float32(1.05)
    assert np.abs(place([[1, 0, 0]]) - AT).max() == pytest.approx(2)  # the longest side is [-1, 1]


def test_hunyuan_reads_its_layout(boxes, tmp_path):
    sets = ["volume=4000", "near=4000", "sharp=3000", "surface=3000", "salient=2500"]
    folder = made(boxes, tmp_path, "hunyuan", sets, watertight=True, resolution=64)
    items = sorted(str(path) for path in (folder / "preprocessed").glob("*"))  # AlignedShapeLatentDataset, of a folder
    for item in items:
        uid = item.split("/")[-1]
        loaded = np.load(f"{item}/geo_data/{uid}_surface.npz")
        place = place_by(loaded)
        rng = np.random.default_rng()
        for key, count in (("random_surface", 2048), ("sharp_surface", 2048)):
            rows = loaded[key]
            assert rows.dtype == np.float16
            surface = torch.FloatTensor(rows[rng.choice(rows.shape[0], count, replace=False)])
            normal = torch.nn.functional.normalize(surface[:, 3:6], p=2, dim=1)
            assert np.abs(distance(place(surface[:, :3]))).max() < 0.01
            assert (distance(place(surface[:, :3]) + 0.05 * normal.numpy()) < 0).all()
        sdf = np.load(f"{item}/geo_data/{uid}_sdf.npz")
        for kind in ("vol", "random_near", "sharp_near"):
            points, label = sdf[f"{kind}_points"], sdf[f"{kind}_label"]
            assert points.dtype == label.dtype == np.float16
            assert label.shape == (len(points),)
            exact = distance(place(points)) / sdf["scale"]
            np.testing.assert_allclose(label, exact, atol=1e-3, rtol=1e-3)  # positive inside
        closed = trimesh.load(f"{item}/geo_data/{uid}_watertight.obj", process=False)
        assert closed.is_watertight
        np.testing.assert_allclose(closed.bounds[:, 0], [-0.9999, 0.9999], atol=1e-9)
        np.testing.assert_allclose(place(closed.vertices).min(axis=0), AT - np.array(SIDES) / 2, atol=0.01)
    assert [Path(item).name for item in items] == ["one", "two"]


@pytest.mark.parametrize("target", ["occupancy", "signed", "unsigned"])
def test_the_layout_ff3d_holds_all_sets_with_each_target(boxes, tmp_path, target):
    names = ["mixed", "volume", "near", "sharp", "surface", "salient"]
    made(boxes, tmp_path, "ff3d", [f"{name}={1000 + 8 * k}" for k, name in enumerate(names)], target=target)
    with np.load(tmp_path / "one.npz", allow_pickle=False) as loaded:
        place, meta = place_by(loaded), json.loads(str(loaded["meta"]))
        for number, name in enumerate(names):
            prefix, count = "" if name == "mixed" else f"{name}_", 1000 + 8 * number
            points = loaded[f"{prefix}points"]
            assert (points.shape, points.dtype) == ((count, 3), np.float32)
            if name in ("surface", "salient"):
                check_surface(points, loaded[f"{prefix}normals"], place, 1e-6)
            elif target == "occupancy":
                check_labels(np.unpackbits(loaded[f"{prefix}occupancies"], count=count), points, place, 1e-9)
            else:
                exact = distance(place(points)) / loaded["scale"]
                exact = exact if target == "signed" else np.abs(exact)
                np.testing.assert_allclose(loaded[f"{prefix}distances"], exact, atol=1e-6)
    assert meta["sets"] == {name: 1000 + 8 * number for number, name in enumerate(names)}
    assert meta["target"] == target


@pytest.mark.parametrize("layout", LAYOUTS)
def test_watertight_first_closes_what_is_drawn_from_and_writes_it(tmp_path, layout):
    ball = trimesh.creation.icosphere(subdivisions=3)
    save_mesh(
        trimesh.Trimesh(ball.vertices, ball.faces[ball.triangles_center[:, 2] < 0.9], process=False),
        tmp_path / "open.ply",
    )
    sets = [f"{name}=100" for name in LAYOUTS[layout].usual]
    config = make_sets_config(layout, sets, watertight=True, resolution=32)
    [row] = prepare([tmp_path / "open.ply"], tmp_path / "out", config)
    assert list(row["files"]) == paths_of("open", config)
    [path] = [path for path in row["files"] if "watertight." in path]
    closed = load_mesh(tmp_path / "out" / path)
    assert closed.is_watertight
    [archive] = [path for path in row["files"] if path.endswith(".npz")][:1]
    with np.load(tmp_path / "out" / archive) as loaded:
        place = place_by(loaded)
        if layout == "ff3d":
            inside = np.unpackbits(loaded["occupancies"], count=100)
            np.testing.assert_array_equal(inside, make_oracle(closed)(place(loaded["points"])))
        if layout == "dora":
            points = loaded["fps_coarse_surface"][:, 0, :3]
            assert NearestFaces(closed)(place(points))[0].max() < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_meshes_of_any_names_are_closed_to_files_of_their_own(tmp_path, layout):
    for name in ("mesh", "points", "pointcloud"):
        save_mesh(trimesh.creation.box(), tmp_path / f"{name}.obj")
    config = make_sets_config(layout, ["volume"], points=10, watertight=True, resolution=8)
    rows = prepare(sorted(tmp_path.glob("*.obj")), tmp_path / "out", config)
    paths = [path for row in rows for path in row["files"]]
    assert len(set(paths)) == len(paths) >= 6
    assert all((tmp_path / "out" / path).is_file() for path in paths)


def test_no_file_of_any_layout_needs_pickle(boxes, tmp_path):
    for layout, known in LAYOUTS.items():
        made(boxes, tmp_path / layout, layout, [f"{name}=10" for name in known.counts], watertight=True, resolution=16)
    for path in tmp_path.rglob("*.np[zy]"):
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            assert all(loaded[key].dtype != object for key in loaded) if path.suffix == ".npz" else loaded.shape == ()
    assert len(list(tmp_path.rglob(ROWS))) == len(LAYOUTS)
