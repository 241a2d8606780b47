import io
import signal
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
from ff3d.viewer.gallery import PLANES, TURNS, Cut, plane_picture, turn_between
from ff3d.viewer.items import Item, load_items, truth_of
from ff3d.viewer.page import Page, glb, same_site


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
    ("origin", "name", "loopback", "answered"),
    [
        ("http://127.0.0.1:8080", "127.0.0.1:8080", True, True),
        ("http://localhost:9000", "localhost:9000", True, True),  # through a tunnel
        ("http://[::1]:8080", "[::1]:8080", True, True),
        (None, "127.0.0.1:8080", True, True),  # a program's, not a page's
        ("https://evil.example", "127.0.0.1:8080", True, False),
        ("http://127.0.0.1:3000", "127.0.0.1:8080", True, False),
        ("null", "127.0.0.1:8080", True, False),
        ("http://evil.example:8080", "evil.example:8080", True, False),  # a name that resolves to this machine
        (None, "evil.example:8080", True, False),
        ("http://studio:8080", "studio:8080", False, True),
        ("https://evil.example", "studio:8080", False, False),
    ],
)
def test_a_page_of_another_site_is_not_answered(origin, name, loopback, answered):
    assert same_site(origin, name, loopback=loopback) is answered


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
