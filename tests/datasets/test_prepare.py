import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import trimesh

from ff3d.datasets.config import make_sets_config
from ff3d.datasets.prepare import ROWS
from ff3d.datasets.prepare import prepare as prepare_sets
from ff3d.datasets.sampling import draw_samples
from ff3d.files import FolderError, read_rows
from ff3d.formats.writers import save_mesh
from ff3d.geometry.cores import available_memory
from ff3d.jobs import Executor
from ff3d.labels.oracles import make_oracle
from ff3d.shapes.mesh import load_mesh


def ball(path, at=(0, 0, 0)):
    mesh = trimesh.creation.icosphere(subdivisions=3)
    mesh.apply_translation(at)
    save_mesh(mesh, path)
    return path


def prepare(meshes, out, count=1000, *, layout="ff3d", sets=(), seed=0, **options):
    config = make_sets_config(layout, sets, points=count, widths=(0.01,), seed=seed)
    return prepare_sets(meshes, out, config, **options)


def rows_of(folder):
    return [json.loads(line) for line in (folder / ROWS).read_text().splitlines()]


def test_prepared_points_are_where_they_say_and_labelled_rightly(tmp_path):
    path = ball(tmp_path / "ball.ply", at=(5, 6, 7))
    [row] = prepare([path], tmp_path / "out", 5000, seed=3)
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
    prepare(paths, tmp_path / "out", 1000)
    first = {it.name: (it.read_bytes(), it.stat().st_mtime_ns) for it in (tmp_path / "out").glob("*.npz")}
    rows = prepare(paths, tmp_path / "out", 1000)
    assert {it.name: (it.read_bytes(), it.stat().st_mtime_ns) for it in (tmp_path / "out").glob("*.npz")} == first
    prepare(paths, tmp_path / "again", 1000)
    assert all((tmp_path / "again" / name).read_bytes() == content for name, (content, _) in first.items())
    assert rows == rows_of(tmp_path / "out")


def test_other_settings_another_mesh_and_a_broken_file_are_made_anew(tmp_path):
    path, out = ball(tmp_path / "a.ply"), tmp_path / "out"
    prepare([path], out, 1000)
    first = (out / "a.npz").read_bytes()
    prepare([path], out, 1000, seed=1)
    second = (out / "a.npz").read_bytes()
    assert second != first
    ball(path, at=(0, 0, 9))
    prepare([path], out, 1000, seed=1)
    third = (out / "a.npz").read_bytes()
    assert third != second
    (out / "a.npz").write_bytes(third[:500])
    prepare([path], out, 1000, seed=1)
    assert (out / "a.npz").read_bytes() == third


def test_a_mesh_that_fails_is_a_row_with_its_reason_and_stops_nothing(tmp_path):
    sheet = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0.1]], [[0, 1, 2]], process=False)
    save_mesh(sheet, tmp_path / "sheet.obj")
    (tmp_path / "cut.stl").write_bytes(b"solid cut\nfacet")
    paths = [tmp_path / "sheet.obj", tmp_path / "cut.stl", ball(tmp_path / "ball.ply")]
    rows = prepare(paths, tmp_path / "out", 500)
    assert "open surface" in rows[0]["failure"]
    assert "cut.stl" in rows[1]["failure"]
    assert "failure" not in rows[2]
    assert sorted(it.name for it in (tmp_path / "out").iterdir()) == ["ball.npz", ROWS]


def test_meshes_of_one_name_get_different_files(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    paths = [ball(tmp_path / "one" / "x.ply"), ball(tmp_path / "two" / "x.ply", at=(3, 0, 0))]
    rows = prepare(paths, tmp_path / "out", 500)
    assert len({row["file"] for row in rows}) == 2
    assert all((tmp_path / "out" / row["file"]).exists() for row in rows)


def test_a_scan_is_prepared_too(tmp_path):
    mesh = trimesh.creation.icosphere(subdivisions=4)
    np.savetxt(tmp_path / "scan.xyz", np.concatenate([mesh.vertices, mesh.vertex_normals], axis=1))
    config = make_sets_config(points=1000, uniform=1.0, margin=0.0)
    [row] = prepare_sets([tmp_path / "scan.xyz"], tmp_path / "out", config)
    assert row["inside"] == pytest.approx(np.pi / 6, abs=0.05)


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*.*")
        if path.is_file() and path.name != ROWS
    }


@pytest.fixture(scope="module")
def meshes(tmp_path_factory):
    """Four balls and, between them, a sheet."""
    folder = tmp_path_factory.mktemp("meshes")
    sheet = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0.1]], [[0, 1, 2]], process=False)
    save_mesh(sheet, folder / "c.sheet.obj")
    paths = [ball(folder / f"{name}.ply", at=(number, 0, 0)) for number, name in enumerate(("a.1", "b", "d", "e"))]
    return [*paths[:2], folder / "c.sheet.obj", *paths[2:]]


LAYOUTS = [("ff3d", None), ("occnet", 3)]


@pytest.mark.slow
@pytest.mark.parametrize(("layout", "shards"), LAYOUTS)
def test_workers_and_an_address_get_the_same_bytes_as_one_process(meshes, tmp_path, layout, shards):
    options = {"layout": layout, "shards": shards}
    alone = prepare(meshes, tmp_path / "alone", 500, **options)
    beside = prepare(meshes, tmp_path / "beside", 500, **options, executor=Executor(2))
    away = prepare(meshes, f"file://{tmp_path}/away", 500, **options)
    assert alone == beside == away
    assert ["failure" in row for row in alone] == [False, False, True, False, False]
    expected = files_of(tmp_path / "alone")
    assert expected
    assert files_of(tmp_path / "beside") == files_of(tmp_path / "away") == expected
    assert not list(tmp_path.glob("*/.*"))


def test_what_lies_at_an_address_is_not_made_again(meshes, tmp_path):
    address, place = f"file://{tmp_path}/away", tmp_path / "away" / "b.npz"
    rows = prepare(meshes[:2], address, 500)
    stamp = place.stat().st_mtime_ns
    (tmp_path / "away" / "a.1.npz").unlink()
    assert prepare(meshes[:2], address, 500) == rows
    assert place.stat().st_mtime_ns == stamp
    assert (tmp_path / "away" / "a.1.npz").exists()


def test_a_shard_is_as_webdataset_reads_it(meshes, tmp_path):
    prepare(meshes, tmp_path, 500, layout="occnet", sets=("volume", "surface"), shards=2, split="val")
    names = []
    for shard in ("val-000000.tar", "val-000001.tar", "val-000002.tar"):
        with tarfile.open(tmp_path / shard) as archive:
            entries = archive.getmembers()
            names += [entry.name for entry in entries]
            assert {(entry.mtime, entry.uid, entry.gid, entry.uname) for entry in entries} == {(0, 0, 0, "")}
            with np.load(io.BytesIO(archive.extractfile(entries[0]).read()), allow_pickle=False) as points:
                assert points["points"].shape == (500, 3)
    # webdataset: what comes before the first dot is the key, the rest names the part; the parts of a key are neighbours
    keys = [name.split(".", 1) for name in names]
    assert keys == [[key, part] for key in ("a_1", "b", "d", "e") for part in ("points.npz", "pointcloud.npz")]


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: os.truncate(path, 1000)])
def test_a_shard_that_is_missing_or_cut_short_is_made_again_and_no_other(meshes, tmp_path, harm):
    rows = prepare(meshes[:4], tmp_path, 300, shards=2)
    first, second = (tmp_path / f"train-00000{number}.tar" for number in range(2))
    data, stamp = first.read_bytes(), second.stat().st_mtime_ns
    harm(first)
    assert prepare(meshes[:4], tmp_path, 300, shards=2) == rows
    assert first.read_bytes() == data
    assert second.stat().st_mtime_ns == stamp


def test_keys_that_differ_by_a_dot_alone_stay_apart_in_a_shard(tmp_path):
    rows = prepare([ball(tmp_path / "a.b.ply"), ball(tmp_path / "a_b.ply")], tmp_path / "out", 100, shards=2)
    with tarfile.open(tmp_path / "out" / "train-000000.tar") as archive:
        assert len({name.split(".")[0] for name in archive.getnames()}) == 2
    assert len({row["file"] for row in rows}) == 2


def test_a_shard_of_somebody_else_is_not_written_over(meshes, tmp_path):
    with tarfile.open(tmp_path / "train-000000.tar", "w") as archive:
        archive.add(meshes[0], "a.ply")
    with pytest.raises(FolderError, match="was not made by ff3d"):
        prepare(meshes[:1], tmp_path, 100, shards=1)
    prepare(meshes[:1], tmp_path, 100, shards=1, force=True)
    (tmp_path / ROWS).unlink()  # as after a kill between the two
    prepare(meshes[:1], tmp_path, 100, shards=1)


PLACE = "ShapeNetV2_point/03001627"


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("occnet", "shapes/train.lst"),
        ("occnet", "shapes/b/pointcloud.npz"),
        ("dora", "train.json"),
        ("3dshape2vecset", f"{PLACE}/train.lst"),
        ("3dshape2vecset", f"{PLACE}/b.npy"),
        ("3dshape2vecset", "ShapeNetV2_watertight/03001627/4_pointcloud/b.npz"),
        ("hunyuan", "preprocessed/b/geo_data/b_sdf.npz"),
        ("ff3d", "b.npz/notes.txt"),
    ],
)
def test_what_somebody_has_put_where_the_set_goes_is_kept(meshes, tmp_path, layout, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("somebody's")
    with pytest.raises(FolderError, match=r"is there, and was not made by ff3d; .*--force"):
        prepare(meshes[:2], tmp_path, 10, layout=layout)
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["somebody's"]
    if layout != "ff3d":
        rows = prepare(meshes[:2], tmp_path, 10, layout=layout, force=True)
        assert prepare(meshes[:2], tmp_path, 10, layout=layout) == rows
        assert (tmp_path / name).read_bytes() != b"somebody's"


@pytest.mark.parametrize("layout", ["ff3d", "3dshape2vecset"])
def test_what_ff3d_has_made_is_known_without_its_rows(meshes, tmp_path, layout):
    rows = prepare(meshes[:1], tmp_path, 10, layout=layout)
    (tmp_path / ROWS).unlink()  # as after a kill between the two
    for path in tmp_path.rglob("train.lst"):
        path.unlink()  # it is written after the rows
    assert prepare(meshes[:1], tmp_path, 10, layout=layout) == rows


def test_a_mesh_that_has_failed_gives_no_right_to_a_file_of_its_name(meshes, tmp_path):
    [row] = prepare([meshes[2]], tmp_path, 10)
    assert "failure" in row
    (tmp_path / row["file"]).write_text("somebody's")
    with pytest.raises(FolderError, match="was not made by ff3d"):
        prepare([meshes[2]], tmp_path, 10)
    assert (tmp_path / row["file"]).read_text() == "somebody's"


@pytest.mark.parametrize(("layout", "sets"), [("ff3d", ()), ("occnet", ("volume", "surface"))])
def test_files_of_other_settings_that_are_as_long_are_made_again(meshes, tmp_path, layout, sets):
    rows = prepare(meshes[:1], tmp_path, 100, layout=layout, sets=sets)
    files, text = files_of(tmp_path), (tmp_path / ROWS).read_text()
    prepare(meshes[:1], tmp_path, 100, layout=layout, sets=sets, seed=1)
    assert files_of(tmp_path) != files
    (tmp_path / ROWS).write_text(text)  # as after a kill between the files and the row
    assert prepare(meshes[:1], tmp_path, 100, layout=layout, sets=sets) == rows
    assert files_of(tmp_path) == files


@pytest.mark.parametrize("address", [False, True])
def test_what_other_settings_wrote_and_these_do_not_is_removed(tmp_path, address):
    paths, out = [ball(tmp_path / "a.ply"), ball(tmp_path / "b.ply")], tmp_path / "out"

    def names(meshes, sets, **options):
        prepare(meshes, f"file://{out}" if address else out, 100, layout="occnet", sets=sets, **options)
        return {path.relative_to(out / "shapes").as_posix() for path in out.glob("shapes/*/*")}

    both = {"a/points.npz", "a/pointcloud.npz", "b/points.npz", "b/pointcloud.npz"}
    assert names(paths, ("volume", "surface")) == both
    assert names(paths[:1], ("volume",)) == both - {"a/pointcloud.npz"}
    (out / "shapes" / "b" / "pointcloud.npz").write_text("somebody's")
    (tmp_path / "b.ply").write_text("no mesh any more")
    assert names(paths, ("volume",)) == {"a/points.npz", "b/pointcloud.npz"}


def test_a_closed_mesh_that_is_not_written_any_more_is_removed(meshes, tmp_path):
    for closed in (True, False):
        config = make_sets_config(points=100, watertight=closed, resolution=16 if closed else 512)
        prepare_sets(meshes[:1], tmp_path, config)
        assert (tmp_path / "a.1.watertight.ply").exists() == closed


@pytest.mark.parametrize("shards", [None, 1])
@pytest.mark.parametrize("address", [False, True])
def test_the_samples_of_another_mesh_that_is_still_there_are_not_replaced(tmp_path, shards, address):
    for folder in ("train", "val"):
        (tmp_path / folder).mkdir()
    one, other = ball(tmp_path / "train" / "1.ply"), ball(tmp_path / "val" / "1.ply", at=(1, 0, 0))
    place = f"file://{tmp_path}/out" if address else tmp_path / "out"
    prepare([one], place, 100, shards=shards)
    files = files_of(tmp_path / "out")
    with pytest.raises(FolderError, match=r"of another mesh, .*; name another folder, or give --force to replace it"):
        prepare([other], place, 100, shards=shards)
    assert files_of(tmp_path / "out") == files
    prepare([other], place, 100, shards=shards, force=True)
    assert files_of(tmp_path / "out") != files
    other.unlink()
    prepare([one], place, 100, shards=shards)
    assert files_of(tmp_path / "out") == files


def test_an_input_is_never_written_over(meshes, tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=3)
    scan = tmp_path / "scan.npz"
    np.savez(scan, points=ball.vertices, normals=ball.vertex_normals)
    prepare(meshes[:1], tmp_path, 100, layout="occnet", sets=("surface",))
    cloud = tmp_path / "shapes" / "a.1" / "pointcloud.npz"  # ff3d's own, which needs no force
    for path, options in ((scan, {"force": True}), (cloud, {}), (cloud, {"force": True})):
        before = path.read_bytes()
        with pytest.raises(FolderError, match="is an input itself; name another folder"):
            prepare([path], path.parent, 100, **options)
        assert path.read_bytes() == before
    assert "failure" not in prepare([scan], tmp_path / "out", 100)[0]


def test_workers_share_out_the_memory_that_shapes_are_closed_in(meshes, tmp_path, noting):
    beside, config = noting(8), make_sets_config(points=100, watertight=True, resolution=16)
    prepare_sets(meshes[:1], tmp_path, config, executor=beside)
    assert 0 < beside.noted[0] < available_memory() / 7
    with pytest.raises(MemoryError, match="are available"):
        draw_samples(meshes[0], config, max_memory=1000)


@pytest.mark.parametrize("split", ["", "..", "../x", "a/b", "a\\b"])
def test_a_split_that_leads_out_of_the_folder_is_refused(meshes, tmp_path, split):
    for layout, shards in (("dora", None), ("ff3d", 1)):
        with pytest.raises(ValueError, match="--split must be one plain name"):
            prepare(meshes[:1], tmp_path / "out", 10, layout=layout, shards=shards, split=split)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("shards", "address", "orders"),
    [
        (2, False, ["ad", "abd", "ad"]),
        (2, True, ["ad", "abd", "ad"]),
        (3, False, ["abd", "ab"]),
        (1, True, ["ab", "b"]),
        (2, False, ["ab", "ba"]),
    ],
)
def test_shards_hold_the_meshes_of_the_last_run_and_no_others(meshes, tmp_path, shards, address, orders):
    by_letter = dict(zip("abcde", meshes, strict=True))

    def run(order, out):
        place = f"file://{out}" if address else out
        return prepare([by_letter[name] for name in order], place, 10, shards=shards, split="val"), files_of(out)

    for order in orders:
        again = run(order, tmp_path / "out")
    assert again == run(orders[-1], tmp_path / "new")
    assert again == run(orders[-1], tmp_path / "out")
    rows = read_rows(tmp_path / "out" / ROWS).values()
    assert sorted(row["file"] for row in rows if "failure" not in row) == sorted(row["file"] for row in again[0])


def test_leftover_shards_of_others_stay(meshes, tmp_path):
    prepare(meshes[:2], tmp_path, 100, shards=1)
    prepare(meshes[:2], tmp_path, 100, shards=1, split="val")
    (tmp_path / "train-000001.tar").write_bytes(b"0" * (tmp_path / "val-000001.tar").stat().st_size)
    prepare(meshes[:1], tmp_path, 100, shards=1)
    assert len(list(tmp_path.glob("*.tar"))) == 4


def test_a_shard_of_the_same_size_that_is_not_as_its_rows_say_is_made_again(meshes, tmp_path):
    rows = prepare(meshes[:2], tmp_path, 100, shards=2)
    made = (tmp_path / "train-000000.tar").read_bytes()
    prepare(meshes[:2], tmp_path / "other", 100, shards=2, seed=1)
    (tmp_path / "other" / "train-000000.tar").replace(tmp_path / "train-000000.tar")  # as after a kill between the two
    assert len((tmp_path / "train-000000.tar").read_bytes()) == len(made)
    assert prepare(meshes[:2], tmp_path, 100, shards=2) == rows
    assert (tmp_path / "train-000000.tar").read_bytes() == made


def test_a_shard_that_cannot_be_sent_is_rows_with_the_reason_and_the_others_follow(meshes, tmp_path):
    (tmp_path / "away" / "train-000000.tar").mkdir(parents=True)  # where a file is to go
    rows = prepare(meshes[:4], f"file://{tmp_path}/away", 100, shards=2)
    assert [row.get("failure", "") and "directory" in row["failure"] for row in rows[:2]] == [True, True]
    assert "failure" not in rows[3]
    assert (tmp_path / "away" / "train-000001.tar").is_file()
    (tmp_path / "away" / "train-000000.tar").rmdir()
    rows = prepare(meshes[:4], f"file://{tmp_path}/away", 100, shards=2)
    assert ["failure" in row for row in rows] == [False, False, True, False]


def test_a_shard_whose_writing_broke_off_is_not_published(meshes, tmp_path, monkeypatch):
    whole, left = tarfile.copyfileobj, [1, 0, 1, 1]  # the second file is cut short, as by a disk that was full

    def copy(source, target, length, *rest, **options):
        if not left.pop(0):
            whole(source, target, length // 2, *rest, **options)
            raise OSError("the disk was full")
        whole(source, target, length, *rest, **options)

    monkeypatch.setattr(tarfile, "copyfileobj", copy)
    rows = prepare([*meshes[:2], *meshes[3:]], tmp_path, 100, shards=2)
    assert [row.get("failure") for row in rows] == ["the disk was full"] * 2 + [None] * 2
    assert [path.name for path in sorted(tmp_path.iterdir())] == [ROWS, "train-000001.tar"]


def test_a_shard_that_the_disk_does_not_take_is_rows_with_the_reason(meshes, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    taken = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (25_000, limits[1]))
    try:
        rows = prepare(meshes[:2] + meshes[3:4], tmp_path, 900, shards=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, taken)
    assert all("make room and run the same command again" in row["failure"] for row in rows[:2])
    assert "failure" not in rows[2]
    assert [path.name for path in sorted(tmp_path.iterdir())] == [ROWS, "train-000001.tar"]


@pytest.mark.slow
def test_workers_that_are_stopped_leave_nothing_in_the_temporary_folder(meshes, tmp_path):
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-m", "ff3d.cli", "prepare", *map(str, meshes), "--points", "3000000"]
    command += ["--out", f"file://{tmp_path}/away", "--workers", "2"]
    environment = os.environ | {"TMPDIR": str(tmp_path / "tmp")}
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environment)
    while process.poll() is None and len(list((tmp_path / "tmp").rglob("ff3d-*"))) < 4:  # two are the workers'
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 128 + signal.SIGINT
    assert not list((tmp_path / "tmp").rglob("ff3d-*"))


@pytest.mark.slow
@pytest.mark.parametrize(("shards", "workers"), [(None, 0), (2, 2)])
def test_killed_again_and_again_it_ends_with_the_same_bytes_none_lost_and_none_twice(meshes, tmp_path, shards, workers):
    expected = prepare(meshes, tmp_path / "whole", 300, shards=shards)
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ff3d.cli", "prepare", *map(str, meshes), "--out", str(out), "--points", "300"]
    command += ["--widths", "0.01", "--workers", str(workers), *(["--shards", str(shards)] if shards else [])]
    for kill in range(3):
        rows = len(rows_of(out)) if (out / ROWS).exists() else 0
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        while process.poll() is None and not ((out / ROWS).exists() and len(rows_of(out)) > rows):
            time.sleep(0.01)
        time.sleep(0.03 * kill)
        process.kill()
        process.wait()
    assert prepare(meshes, out, 300, shards=shards) == expected
    assert files_of(out) == files_of(tmp_path / "whole")
    made = [row["file"] for row in rows_of(out) if "failure" not in row]
    assert sorted(made) == sorted(set(made))
    assert not [path for path in out.rglob(".*")]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the cluster's own
@pytest.mark.usefixtures("only_cluster")
def test_a_cluster_of_two_nodes_one_of_which_is_killed_gives_the_same_bytes(meshes, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed")
    from ray.cluster_utils import Cluster

    alone = prepare(meshes, tmp_path / "alone", 500)
    memory, out = {"object_store_memory": 100 * 2**20}, tmp_path / "cluster"
    cluster = Cluster(True, head_node_args={"num_cpus": 0, "node_ip_address": "127.0.0.1", **memory})
    try:
        nodes = [cluster.add_node(num_cpus=1, **memory) for _ in range(2)]
        cluster.wait_for_nodes()

        def kill():
            while not (out / ROWS).exists():
                time.sleep(0.02)
            cluster.remove_node(nodes[1], allow_graceful=False)

        thread = threading.Thread(target=kill)
        thread.start()
        rows = prepare(meshes, out, 500, executor=Executor(ray=cluster.address))
        thread.join()
    finally:
        import ray

        ray.shutdown()
        cluster.shutdown()
    assert rows == alone
    assert files_of(out) == files_of(tmp_path / "alone")
    assert not list(out.glob(".*"))
