import gzip
import hashlib
import json
import socket
import sys
import time
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import trimesh

from ff3d.formats.text import MeshError
from ff3d.formats.writers import save_mesh
from ff3d.shapes.mesh import load_mesh
from ff3d.shapes.point_cloud import load_points, load_shape
from ff3d.shapes.sources import NAMED, Download, cache_folder, fetch, find_shape, find_shapes


def ball(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    save_mesh(trimesh.creation.icosphere(subdivisions=1), path)
    return path


class Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path == "/cut.ply":  # promises more than it sends
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"ply\n")
        else:
            super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    """A server of the folder tmp_path/served; `asked` lists the paths that were asked for."""
    ball(tmp_path / "served" / "ball.ply")
    with HTTPServer(("127.0.0.1", 0), partial(Handler, directory=tmp_path / "served")) as server:
        server.asked = []
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FF3D_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def name(monkeypatch, address, content=b""):
    monkeypatch.setitem(NAMED, "ball", Download(address, hashlib.sha256(content).hexdigest(), "nobody"))


def address(server, file="ball.ply"):
    return f"http://127.0.0.1:{server.server_port}/{file}"


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return listening.getsockname()[1]


# fetch


def test_a_named_mesh_is_downloaded_once_and_then_needs_no_network(tmp_path, monkeypatch, server, cache):
    content = (tmp_path / "served" / "ball.ply").read_bytes()
    name(monkeypatch, address(server), content)
    path = find_shape("ball")
    assert path == fetch("ball") == cache / "ball.ply"
    assert path.read_bytes() == content
    assert server.asked == ["/ball.ply"]
    assert [it.name for it in cache.iterdir()] == ["ball.ply"]
    name(monkeypatch, f"http://127.0.0.1:{closed_port()}/ball.ply", content)
    assert find_shapes(["ball", path]) == [path]
    assert len(load_mesh(path).faces) == 80
    assert len(load_mesh("ball").faces) == len(load_shape("ball").faces) == 80  # what the commands find


def test_a_damaged_file_in_the_cache_is_downloaded_again(tmp_path, monkeypatch, server, cache):
    content = (tmp_path / "served" / "ball.ply").read_bytes()
    name(monkeypatch, address(server), content)
    fetch("ball").write_bytes(content[:100])
    assert fetch("ball").read_bytes() == content
    assert len(server.asked) == 2


def test_a_file_of_another_sha256_is_refused_and_not_kept(monkeypatch, server, cache):
    name(monkeypatch, address(server), b"another")
    expected = hashlib.sha256(b"another").hexdigest()
    with pytest.raises(MeshError, match=rf"ball: http://.*expected sha256 {expected}, got [0-9a-f]{{64}}; .*ball\.ply"):
        fetch("ball")
    assert list(cache.iterdir()) == []


def test_without_a_connection_one_line_says_so_at_once(monkeypatch, cache):
    where = f"http://127.0.0.1:{closed_port()}/ball.ply"
    name(monkeypatch, where)
    start = time.monotonic()
    with pytest.raises(MeshError) as caught:
        find_shape("ball")
    assert time.monotonic() - start < 5
    advice = f"download it by hand to {cache / 'ball.ply'}, or give a file"
    why = "the network could not be reached, or broke off: ConnectionError"
    assert str(caught.value) == f"ball: cannot download {where} ({why}); {advice}"
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize(("file", "why"), [("none.ply", "it answered 404"), ("cut.ply", "the network .*broke off")])
def test_a_download_that_fails_is_named_and_leaves_nothing(monkeypatch, server, cache, file, why):
    name(monkeypatch, address(server, file))
    with pytest.raises(MeshError, match=rf"ball: cannot download http.*{file} \({why}.*by hand to .*ball\.ply"):
        fetch("ball")
    assert list(cache.iterdir()) == []


def test_named_meshes_are_pinned_to_a_commit_and_credited():
    assert list(NAMED) == ["armadillo", "dragon", "buddha", "lucy", "stanford-bunny"]
    for mesh, (where, sha256, credit) in NAMED.items():
        assert where.startswith("https://raw.githubusercontent.com/")
        assert len(where.split("/")[5]) == 40
        assert where.endswith(f"/{mesh}.obj")
        assert len(bytes.fromhex(sha256)) == 32
        assert "Stanford" in credit


def test_the_cache_is_in_the_home_folder_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.setenv("FF3D_CACHE", "~/meshes")
    assert cache_folder() == Path.home() / "meshes"
    monkeypatch.delenv("FF3D_CACHE")
    assert "ff3d" in str(cache_folder())


# find


def test_a_file_comes_before_a_sample_and_a_sample_before_a_named_mesh(tmp_path, monkeypatch):
    sample = ball(tmp_path / "meshes" / "dragon.ply")
    assert find_shape("dragon") == Path("meshes/dragon.ply")
    assert find_shapes(["dragon", sample]) == [sample]
    (tmp_path / "dragon").write_bytes(sample.read_bytes())
    assert find_shape("dragon") == Path("dragon")
    with pytest.raises(MeshError, match=r"dragn: no such file.*a sample: .*download: armadillo, dragon.*objaverse:UID"):
        find_shape("dragn")
    with pytest.raises(MeshError, match="teapot: no mesh to download is called so; there are armadillo"):
        fetch("teapot")


def test_folders_are_searched_and_each_mesh_comes_once(tmp_path):
    one, two = ball(tmp_path / "deep" / "er" / "b.ply"), ball(tmp_path / "a.stl")
    (tmp_path / "notes.txt").write_text("no mesh")
    assert find_shapes([tmp_path, one]) == [two, one]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: no meshes.*\.obj"):
        find_shapes([tmp_path / "empty"])


def test_globs_take_the_meshes_that_match(tmp_path):
    one, two, deep = (ball(tmp_path / "scans" / it) for it in ("a.ply", "b.ply", "deep/c.ply"))
    np.savetxt(tmp_path / "scans" / "cloud.xyz", np.eye(3))
    assert find_shapes(["scans/*"]) == find_shapes(["scans/[ab].*"]) == [Path("scans/a.ply"), Path("scans/b.ply")]
    assert find_shapes([tmp_path / "scans" / "**" / "*.ply"]) == [one, two, deep]
    assert find_shapes(["scans/*.xyz"]) == [Path("scans/cloud.xyz")]
    with pytest.raises(MeshError, match=r"scans/\*\.stl: no mesh files match; known endings: \.obj"):
        find_shapes(["scans/*.stl"])


def test_a_file_whose_name_looks_like_a_glob_or_an_address_is_that_file(tmp_path):
    odd = [ball(tmp_path / "scan[1].ply"), ball(tmp_path / "thingi10k:1.ply").rename(tmp_path / "thingi10k:1")]
    assert find_shapes(["scan[1].ply", "thingi10k:1"]) == [it.relative_to(tmp_path) for it in odd]


@pytest.mark.parametrize("ending", [".lst", ".txt"])
def test_a_list_holds_names_from_its_own_folder(tmp_path, ending):
    paths = [ball(tmp_path / "set" / it) for it in ("b.ply", "a.ply", "more/c.ply", "more/d.ply", "# odd.ply")]
    sample = ball(tmp_path / "meshes" / "brick.ply")
    lines = ["\ufeff# a comment", "", "b.ply", f"  {paths[1]} ", "more", "more/*.ply", "brick", "./# odd.ply", "b.ply"]
    (tmp_path / "set" / f"train{ending}").write_text("\r\n".join(lines), encoding="utf-8")
    assert [it.resolve() for it in find_shapes([f"set/train{ending}"])] == [*paths[:4], sample, paths[4]]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a.ply\n\nb.ply\n", r"set.all\.lst, line 3: b\.ply: no such file"),
        ("# none\ncwd.ply\n", r"set.all\.lst, line 2: set.cwd\.ply: no such file; relative paths start at the list's"),
        ("empty\n", r"set.all\.lst, line 1: set.empty: no meshes"),
        ("*.obj\n", r"set.all\.lst, line 1: set.\*\.obj: no mesh files match"),
        ("a.ply\nall.lst\n", r"set.all\.lst, line 2: set.all\.lst: a list within a list"),
        ("a.ply\n*.lst\n", r"set.all\.lst, line 2: set.all\.lst: a list within a list"),
        ("x" * 5000, r"set.all\.lst, line 1: .*name too long"),
        ("# only this\n\n", r"set.all\.lst: no names in this list; write one a line"),
        ("", r"set.all\.lst: no names in this list"),
    ],
)
def test_a_fault_in_a_list_is_named_by_its_line(tmp_path, text, fault):
    ball(tmp_path / "set" / "a.ply")
    ball(tmp_path / "cwd.ply")
    (tmp_path / "set" / "empty").mkdir()
    (tmp_path / "set" / "all.lst").write_text(text)
    with pytest.raises(MeshError, match=f"^{fault}"):
        find_shapes(["set/all.lst"])


@pytest.mark.parametrize("text", ["0.1 -2 3e-5\n", "# x y z\n\n1,2,3,0,0,1\n", "100\n0 0 0\n"])
def test_a_txt_of_numbers_is_a_point_cloud_and_no_list(tmp_path, text):
    (tmp_path / "scan.txt").write_text(text)
    assert find_shapes(["scan.txt"]) == [Path("scan.txt")]


@pytest.mark.parametrize("name", ["scan.txt", "scan.lst", "sets/*.txt", "all.lst"])
@pytest.mark.parametrize(
    ("start", "fault"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "a Git LFS pointer"),
        (b"\xef\xbb\xbf<!DOCTYPE html><html>Not found</html>", "a web page"),
        (b"PK\x03\x04abcd", "a zip archive"),
    ],
)
def test_a_pointer_or_a_page_is_named_and_not_taken_for_a_list(tmp_path, name, start, fault):
    (tmp_path / "sets").mkdir()
    for file in ("scan.txt", "scan.lst", "sets/scan.txt"):
        (tmp_path / file).write_bytes(start)
    (tmp_path / "all.lst").write_text("\nscan.txt\n")
    line = r"all\.lst, line 2: " if name == "all.lst" else ""
    with pytest.raises(MeshError, match=rf"^{line}(sets.)?scan\.\w+: it is {fault}"):
        find_shapes([name])


# collections


@pytest.mark.parametrize("asked", ["thingi10k:32770", "objaverse:8476c4170df24cf5bbe6967222d1a42d"])
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, asked):
    package = asked.partition(":")[0]
    monkeypatch.setitem(sys.modules, package, None)  # importing it raises, as where it is missing
    line = rf"{asked} needs the package {package}: pip install 'ff3d\[{package}\]'$"
    with pytest.raises(MeshError, match=f"^{line}"):
        find_shape(asked)
    (tmp_path / "all.lst").write_text(f"\n{asked}\n")
    with pytest.raises(MeshError, match=rf"^all\.lst, line 2: {line}"):
        find_shapes(["all.lst"])


def test_a_model_of_thingi10k_that_is_in_the_cache_needs_no_package(cache):
    path = ball(cache / "thingi10k-32770.ply")
    assert find_shape("thingi10k:32770") == path
    with pytest.raises(MeshError, match="thingi10k:cube: a file id is a whole number, as in thingi10k:32770"):
        find_shape("thingi10k:cube")


def test_an_object_of_objaverse_is_the_file_of_its_package(tmp_path, monkeypatch, capsys):
    objaverse = pytest.importorskip("objaverse")
    monkeypatch.setattr(objaverse, "_VERSIONED_PATH", str(tmp_path))
    glb = ball(tmp_path / "glbs" / "000-000" / "0af.glb")
    with gzip.open(tmp_path / "object-paths.json.gz", "wt") as file:
        json.dump({"0af": "glbs/000-000/0af.glb"}, file)
    assert find_shapes(["objaverse:0af", "objaverse:0af.glb"]) == [glb]
    assert len(load_mesh(glb).faces) == 80
    with pytest.raises(MeshError, match=r"objaverse:0b0: Objaverse 1\.0 has no object of this uid"):
        find_shape("objaverse:0b0")
    (tmp_path / "object-paths.json.gz").write_bytes(b"cut short")
    with pytest.raises(MeshError, match=r"objaverse:0af: the package objaverse could not give it.*BadGzipFile"):
        find_shape("objaverse:0af")
    assert capsys.readouterr().out == ""


def test_the_home_of_nobody_is_a_name_like_any_other(tmp_path):
    (tmp_path / "set.lst").write_text("~nobody-of-that-name/ball.ply\n")
    with pytest.raises(MeshError, match=r"~nobody-of-that-name/ball\.ply"):
        find_shapes([tmp_path / "set.lst"])
    with pytest.raises(MeshError, match="no such file"):
        load_points("~nobody-of-that-name/ball.xyz")
