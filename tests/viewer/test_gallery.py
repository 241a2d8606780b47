import io
import shutil
import signal
import socket
import sys
from contextlib import closing
from importlib.metadata import version

import numpy as np
import pytest
import trimesh
from PIL import Image

from ff3d.cli.main import main
from ff3d.datasets.config import make_sets_config
from ff3d.datasets.prepare import prepare
from ff3d.fitting import fit
from ff3d.formats.writers import save_mesh
from ff3d.points.test_sets import test_points as labelled_points
from ff3d.viewer.gallery import PLANES, TURNS, Cut, Gallery, plane_picture, turn_between
from ff3d.viewer.items import Item, load_items, truth_of
from ff3d.viewer.page import Page, glb, own_names, same_site

EVERYWHERE = "0.0.0.0"  # noqa: S104


@pytest.fixture(scope="module")
def ball():
    return trimesh.creation.icosphere(subdivisions=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, ball):
    """A ball: its mesh, a lattice of it, and a run."""
    folder = tmp_path_factory.mktemp("view")
    save_mesh(ball, folder / "ball.ply")
    fit(ball, "voxels", finest=32).save(folder / "field.safetensors")
    assert (
        main(["fit", str(folder / "ball.ply"), "--preset", "direct", "--finest", "16", "--out", f"{folder}/run"]) == 0
    )
    return folder


@pytest.mark.slow
def test_everything_that_ff3d_writes_can_be_shown(folder, ball):
    prepare([folder / "ball.ply"], folder / "prepared", make_sets_config(points=500, widths=(0.1,), margin=0.1))
    points, inside = labelled_points(ball, "uniform", count=400, seed=0)
    np.savez(folder / "tests.npz", uniform=points, uniform_inside=inside)
    assert main(["extract", str(folder / "run"), "-o", str(folder / "voxels.npz"), "--resolution", "12"]) == 0
    assert main(["extract", str(folder / "run"), "-o", str(folder / "cloud.xyz"), "--points", "300"]) == 0
    assert main(["watertight", str(folder / "ball.ply"), "--out", str(folder / "closed"), "--resolution", "24"]) == 0
    names = ("ball.ply", "field.safetensors", "run", "prepared", "tests.npz", "voxels.npz", "cloud.xyz", "closed")
    shown = {name: load_items([folder / name], resolution=24) for name in names}
    for name, (item,) in shown.items():
        radius = np.linalg.norm(item.vertices, axis=1)
        if name in ("prepared", "tests.npz"):
            assert (item.labels == (radius < 1))[np.abs(radius - 1) > 0.02].all()
            assert item.labels.any()
            assert not item.labels.all()
        else:
            assert np.abs(radius - 1).max() < (0.3 if name == "voxels.npz" else 0.03)
        assert bool(len(item.faces)) == (name in ("ball.ply", "field.safetensors", "run", "closed"))
    assert shown["cloud.xyz"][0].normals is not None
    with pytest.raises(ValueError, match="nothing to show here"):
        load_items([folder / ".."])


def test_a_set_of_every_layout_is_shown_in_input_coordinates(folder, tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=3)
    ball.apply_transform(trimesh.transformations.scale_and_translate(3.0, (5, -6, 7)))
    save_mesh(ball, tmp_path / "far.ply")
    sets = {
        "ff3d": ("mixed", "volume", "near", "surface"),
        "occnet": ("volume", "surface"),
        "3dshape2vecset": ("volume", "near", "surface"),
        "dora": ("volume", "near", "surface"),
        "hunyuan": ("volume", "near", "sharp", "surface", "salient"),
    }
    names = {"occnet": ["", "surface"], "dora": ["near and volume", "surface"]}
    for layout, kinds in sets.items():
        for shards in (None, 1):
            out = tmp_path / f"{layout}-{shards}"
            target = "signed" if layout == "ff3d" and shards else None
            prepare(
                [tmp_path / "far.ply"], out, make_sets_config(layout, kinds, points=300, target=target), shards=shards
            )
            items = load_items([out])
            shown = [item.name.removeprefix("far").strip() for item in items]
            wanted = ["" if kind == "mixed" else kind for kind in kinds]
            assert sorted(shown) == sorted(names.get(layout, wanted))
            for item in items:
                radius = np.linalg.norm(item.vertices - (5, -6, 7), axis=1) / 3
                if item.labels is None:
                    assert np.abs(radius - 1).max() < 0.01
                    assert ((item.vertices - (5, -6, 7)) * item.normals > -0.1).all()
                else:
                    assert (item.labels == (radius < 1))[np.abs(radius - 1) > 0.02].all()


def test_of_distances_without_a_sign_the_points_are_shown_without_labels(folder, tmp_path):
    config = make_sets_config("ff3d", ("volume",), points=300, target="unsigned")
    prepare([folder / "ball.ply"], tmp_path, config)
    (item,) = load_items([tmp_path])
    assert (item.name, item.labels) == ("ball volume", None)


def test_a_row_whose_file_is_damaged_or_of_no_layout_is_left_out_and_named(folder, tmp_path, caplog):
    shutil.copy(folder / "ball.ply", tmp_path / "other.ply")
    meshes = [folder / "ball.ply", tmp_path / "other.ply"]
    prepare(meshes, tmp_path / "set", make_sets_config("occnet", points=300))
    (tmp_path / "set/shapes/ball/points.npz").write_bytes(b"PK\3\4 cut short")
    assert {item.name for item in load_items([tmp_path / "set"])} == {"other", "other surface"}
    assert "shapes/ball: left out: " in caplog.text
    for path in (tmp_path / "set").rglob("*.npz"):
        np.savez(path, vertices=np.zeros((9, 3)))
    with pytest.raises(ValueError, match="none of its rows can be shown"):
        load_items([tmp_path / "set"])
    assert "no sets of points of a known layout: ff3d, occnet, 3dshape2vecset, dora, hunyuan" in caplog.text


def test_two_shapes_of_one_name_are_told_apart_and_the_same_one_is_shown_once(folder, ball, tmp_path):
    turned = ball.copy()  # as many vertices
    turned.vertices = turned.vertices[:, [1, 2, 0]] * 1.01
    save_mesh(turned, tmp_path / "ball.ply")
    items = load_items([folder / "ball.ply", tmp_path / "ball.ply", folder / "ball.ply"])
    assert [item.name for item in items] == ["ball", "ball (2)"]
    assert np.allclose(items[1].vertices, turned.vertices)


def test_a_gallery_takes_items_of_one_name(ball):
    first, second = (Item("ball", factor * ball.vertices, ball.faces) for factor in (1.0, 1.02))
    assert truth_of([first, second], second) is first
    with closing(Gallery([first, second], port=0)) as gallery:
        assert [gallery.shown(index) for index in (0, 1)] == [True, True]


def test_errors_are_measured_to_the_mesh_before_and_signed(folder):
    truth, fitted = load_items([folder / "ball.ply", folder / "field.safetensors"], resolution=24)
    assert truth_of([truth, fitted], fitted) is truth
    assert truth_of([truth, fitted], truth) is None
    for factor in (1.1, 0.9):
        changed = Item("changed", factor * truth.vertices, truth.faces)
        assert changed.error(truth) == pytest.approx(np.full(len(truth.vertices), factor - 1), abs=0.01)


def test_a_lattice_is_shown_level_by_level_and_its_last_one_is_the_field(folder):
    (item,) = load_items([folder / "field.safetensors"], resolution=24)
    errors = [np.abs(np.linalg.norm(item.at_level(level)[0], axis=1) - 1).mean() for level in range(item.levels + 1)]
    assert errors == sorted(errors, reverse=True)
    assert np.array_equal(item.at_level(item.levels)[0], item.vertices)


def test_a_plane_is_blue_inside_brown_outside_and_seen_through_where_nothing_is_known():
    x, y = np.meshgrid(np.linspace(-1, 1, 41), np.linspace(-1, 1, 41))
    radius = np.hypot(x, y)
    picture = plane_picture(np.where(x < 0.9, 0.5 - radius, np.nan), 0.3)
    red, _, blue, opacity = picture.astype(int).transpose(2, 0, 1)
    assert (blue > red)[radius < 0.4].all()
    assert (red > blue)[(radius > 0.6) & (x < 0.89)].all()
    assert np.array_equal(opacity, np.where(x < 0.9, 255, 0))
    assert len(np.unique(plane_picture(0.5 - radius, None).reshape(-1, 4), axis=0)) == 3  # inside, outside, between
    assert Cut(0, 0.2).keeps(np.array([[0.1, 0, 0], [0.3, 0, 0]])).tolist() == [True, False]


def test_the_rows_of_a_plane_run_where_its_values_are_from():
    from scipy.spatial.transform import Rotation

    for turn, (right, down) in zip(TURNS, PLANES, strict=True):  # in viser columns run along x, rows along y
        x, y, _ = Rotation.from_quat(np.roll(turn, -1)).apply(np.eye(3))
        assert np.allclose(x, right)
        assert np.allclose(y, down)


def test_turns_take_one_direction_to_another():
    from scipy.spatial.transform import Rotation

    start, end = np.random.default_rng(0).standard_normal((2, 20, 3))
    for one, other in zip(start, end, strict=True):
        turned = Rotation.from_quat(np.roll(turn_between(one, other), -1)).apply(one)
        assert np.cross(turned, other) == pytest.approx(np.zeros(3), abs=1e-9)
        assert turned @ other > 0


def test_the_mesh_that_is_sent_is_the_mesh(ball):
    colors = np.random.default_rng(0).random((len(ball.vertices), 3))
    sent = trimesh.load(io.BytesIO(glb(ball.vertices, ball.faces, colors)), file_type="glb", force="mesh")
    assert sent.is_watertight
    assert sent.volume == pytest.approx(ball.volume, rel=1e-5)
    box = trimesh.creation.box()
    assert (
        len(
            trimesh.load(
                io.BytesIO(glb(box.vertices, box.faces)), file_type="glb", process=False, force="mesh"
            ).vertices
        )
        == 24
    )


def test_without_the_extra_one_line_says_what_to_install(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "viser", None)
    assert main(["view", "bunny"]) == 1
    assert "ff3d view needs the package viser: pip install 'ff3d[view]'" in caplog.text


def test_an_address_that_is_not_this_machines_is_refused():
    with pytest.raises(ValueError, match=r"cannot listen at '192\.0\.2\.1'"):
        Page("", host="192.0.2.1")
    with pytest.raises(ValueError, match="--port must be from 0 to 65535"):
        Page("", port=70000)


@pytest.mark.browser
@pytest.mark.slow
def test_a_browser_turns_cuts_and_colours_and_ctrl_c_ends_the_command(folder, served):
    command = ("view", folder / "ball.ply", folder / "field.safetensors", "--port", 0, "--resolution", 24)
    with served(*command) as (process, tab):
        before = tab.settled()
        tab.drag((100, 200), (160, 240))
        turned = tab.settled(unlike=before)
        tab.page.get_by_label("Cut").check()
        cut = tab.settled(unlike=turned)
        assert (cut[..., 0] - cut[..., 2] > 30).any()  # brown
        assert (cut[..., 2] - cut[..., 0] > 20).any()  # blue
        with tab.page.expect_download(timeout=60_000) as download:
            tab.page.get_by_role("button", name="Screenshot").click()
        with Image.open(download.value.path()) as picture:
            assert np.ptp(np.asarray(picture)) > 50
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


@pytest.mark.parametrize(
    ("origin", "name", "host", "answered"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", "127.0.0.1", True),
        ("http://localhost:9000", "localhost:9000", "127.0.0.1", True),  # through a tunnel
        ("http://[::1]:8080", "[::1]:8080", "127.0.0.1", True),
        ("http://127.0.1.1:8080", "127.0.1.1:8080", "127.0.1.1", True),
        (None, "127.0.0.1:8080", "127.0.0.1", True),  # a program's, not a page's
        ("https://evil.example", "127.0.0.1:8080", "127.0.0.1", False),
        ("http://127.0.0.1:3000", "127.0.0.1:8080", "127.0.0.1", False),
        ("null", "127.0.0.1:8080", "127.0.0.1", False),
        ("http://[::1", "[::1", "127.0.0.1", False),
        ("http://evil.example:8080", "evil.example:8080", "127.0.0.1", False),  # a name that resolves to this machine
        ("http://evil.example:8080", "evil.example:8080", "127.0.1.1", False),
        (None, "evil.example:8080", "127.0.0.1", False),
        ("http://192.0.2.1:8080", "192.0.2.1:8080", "127.0.0.1", False),
        ("http://studio:8080", "studio:8080", "studio", True),
        ("http://Studio:8080", "Studio:8080", "studio", True),
        ("http://192.0.2.1:8080", "192.0.2.1:8080", EVERYWHERE, True),
        ("http://[2001:db8::1]:8080", "[2001:db8::1]:8080", "::", True),
        ("http://localhost:8080", "localhost:8080", EVERYWHERE, True),
        (f"http://{socket.gethostname()}:8080", f"{socket.gethostname()}:8080", EVERYWHERE, True),
        ("http://evil.example:8080", "evil.example:8080", EVERYWHERE, False),
        ("http://evil.example:8080", "evil.example:8080", "studio", False),
        ("https://evil.example", "studio:8080", "studio", False),
    ],
)
def test_a_page_of_another_site_is_not_answered(origin, name, host, answered):
    assert same_site(origin, name, own_names(host)) is answered


@pytest.mark.parametrize(
    ("host", "typed"),
    [
        (EVERYWHERE, "127.0.0.1"),
        ("127.0.0.2", "127.0.0.2"),
        ("::1", "[::1]"),
        ("::", "[::1]"),
        ("localhost", "localhost"),
    ],
)
def test_the_address_is_what_a_browser_here_takes(host, typed):
    from websockets.sync.client import connect

    if ":" in host and not _has_ipv6():
        pytest.skip("this machine has no IPv6")
    with closing(Page("", host=host, port=0)) as page:
        assert page.address.startswith(f"http://{typed}:")
        known = {"subprotocols": [f"viser-v{version('viser')}"]}
        with connect(page.address.replace("http", "ws"), origin=page.address, **known) as connection:
            assert connection.recv()


def _has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def test_a_browser_that_shows_another_site_cannot_connect():
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    with closing(Page("", port=0)) as page:
        address = page.address.replace("http", "ws")
        known = {"subprotocols": [f"viser-v{version('viser')}"]}
        with connect(address, origin=page.address, **known) as connection:
            assert connection.recv()
        with pytest.raises(InvalidStatus, match="403"):
            connect(address, origin="https://evil.example", **known)


@pytest.fixture(scope="module")
def results(folder):
    """Folders of a study, of closed meshes, and of labelled points."""
    ball = str(folder / "ball.ply")
    coarse = ["--finest", "16", "--resolution", "24"]
    assert main(["compare", ball, "--mappings", "voxels", *coarse, "--out", f"{folder}/study"]) == 0
    assert main(["watertight", ball, "--resolution", "24", "--out", f"{folder}/made"]) == 0
    prepare([folder / "ball.ply"], folder / "labelled", make_sets_config(points=500, widths=(0.1,), margin=0.1))
    return folder


@pytest.mark.browser
@pytest.mark.slow
@pytest.mark.parametrize("name", ["study", "made", "labelled"])
def test_a_browser_turns_what_is_in_a_folder_of_results(name, results, served):
    with served("view", results / name, "--port", 0) as (_, tab):
        before = tab.settled()
        tab.drag((100, 200), (160, 240))
        tab.settled(unlike=before)
