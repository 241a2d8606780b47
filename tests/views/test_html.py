import base64
import csv
import dataclasses
import html
import io
import json
import shutil
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
import trimesh

from ff3d.formats.writers import save_mesh
from ff3d.shapes.mesh import load_mesh
from ff3d.storage import Storage
from ff3d.studies.plan import make_plan
from ff3d.studies.study import run_study
from ff3d.views.html import FACES, write_page
from ff3d.views.markdown import write_report
from ff3d.views.tables import LEGEND

pytestmark = pytest.mark.slow

SMALL = {"width": 32, "depth": 2, "frequencies": 32, "batch_size": 1024, "pool_size": 4096, "device": "cpu"}
HOSTILE = "</script><script>alert(1)</script>\"'&"
FETCHING = {"src", "href", "srcset", "action", "poster", "data", "xlink:href"}


class Page(HTMLParser):
    """What the tests ask about: tags, what they would fetch, the text of each table row, scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.fetched, self.rows, self.scripts, self.bold, self.ids = [], [], [], [], [], {}
        self.path = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        self.path.append(tag)
        self.fetched += [value for name, value in attrs.items() if name in FETCHING]
        if "id" in attrs:
            assert attrs["id"] not in self.ids
            self.ids[attrs["id"]] = attrs
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "script":
            self.scripts.append((attrs, ""))

    def handle_endtag(self, tag):
        while self.path and self.path.pop() != tag:
            pass

    def handle_data(self, data):
        if "script" in self.path:
            attrs, text = self.scripts[-1]
            self.scripts[-1] = (attrs, text + data)
        elif "td" in self.path or "th" in self.path:
            self.rows[-1][-1] += data
            if "b" in self.path:
                self.bold.append(data)

    @property
    def scenes(self):
        (text,) = [text for attrs, text in self.scripts if attrs.get("id") == "scenes"]
        return json.loads(text)


def decoded(scene, packed):
    """Vertices (v, 3) in the mesh's own units, faces (f, 3), normals (v, 3)."""
    parts = {name: base64.b64decode(packed[name]) for name in ("positions", "indices", "normals")}
    share = np.frombuffer(parts["positions"], "<u2").reshape(-1, 3) / 65535
    points = np.array(packed["low"]) + share * packed["extent"]
    faces = np.frombuffer(parts["indices"], "<u4").reshape(-1, 3)
    return points * scene["side"] + scene["middle"], faces, np.frombuffer(parts["normals"], np.int8).reshape(-1, 3)


def studied(meshes, mappings, seeds, out, **settings):
    plan = make_plan(meshes, mappings, seeds, resolution=32, learning_rate=0.01, **{**SMALL, "steps": 200, **settings})
    return run_study(plan, out, command="ff3d benchmark ball.ply <b>")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two shapes, three arms, two seeds, varied by scale; the last arm's first fit to the box has failed."""
    folder = tmp_path_factory.mktemp("study")
    trimesh.creation.icosphere(subdivisions=3).apply_scale(3).apply_translation([10, 0, 0]).export(folder / "ball.ply")
    trimesh.creation.box().export(folder / "box.ply")
    meshes = [folder / "ball.ply", folder / "box.ply"]
    study = studied(meshes, ("none", "gaussian"), (0, 1), folder / "out", vary={"scale": (1.0, 2.0)})
    write_report(study)
    rows = [
        dataclasses.replace(row, iou={}, surface=None, failure=f"loss is not finite {HOSTILE}")
        if (row.mesh, row.arm, row.seed) == ("box", "gaussian scale=2.0", 0)
        else row
        for row in study.rows
    ]
    return dataclasses.replace(study, rows=rows)


@pytest.fixture(scope="module")
def path(study):
    return write_page(study)


@pytest.fixture(scope="module")
def page(path):
    return Page(path.read_text(encoding="utf-8"))


def with_shape(study, tmp_path, mesh, *shapes):
    """A study of one mesh, whose arms have the given shapes."""
    path = tmp_path / "shape.ply"
    save_mesh(mesh, path)
    plan = dataclasses.replace(study.plan, meshes=(path,), vary={}, mappings=("none", "basic")[: max(1, len(shapes))])
    rows = []
    for mapping, shape in zip(plan.mappings, shapes, strict=False):
        folder = tmp_path / f"shape-{mapping}-0"
        folder.mkdir()
        save_mesh(shape, folder / "mesh.ply")
        rows.append(dataclasses.replace(study.rows[0], mesh="shape", arm=mapping, mapping=mapping))
    return dataclasses.replace(study, plan=plan, rows=rows, storage=Storage(tmp_path), command="")


def test_the_page_asks_for_nothing_outside_itself(page, path):
    assert page.fetched
    assert all(it.startswith("data:") for it in page.fetched)
    text = path.read_text(encoding="utf-8")
    assert "url(" not in text
    assert "@import" not in text
    assert "://" not in text
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "base"}


def test_the_tables_hold_every_arm_over_all_meshes_and_for_each(page, study):
    arms = [cells[0] for cells in page.rows if cells[0] != "mapping"]
    assert arms == study.plan.variants * 3
    means = [float(cells[2].split(" ")[0]) for cells in page.rows if cells[0] != "mapping"]
    for mean, (arm, mesh) in zip(means, [(it, name) for name in (None, "ball", "box") for it in arms[:4]], strict=True):
        values = {}
        for row in study.of(arm, mesh):
            if row.iou:
                values.setdefault(row.seed, []).append(row.iou["boundary_face"])
        assert mean == pytest.approx(np.mean([np.mean(it) for it in values.values()]), abs=6e-5)
    assert f"{max(means[:4]):.4f}" in page.bold


def test_the_page_says_what_its_columns_are(path):
    text = html.unescape(path.read_text())
    assert LEGEND in text
    assert "<Macro" not in text


def test_the_tables_can_be_taken_away(page, study):
    kind, data = page.ids["csv"]["href"].split(",", 1)
    assert kind == "data:text/csv;charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(unquote(data), newline="")))
    assert len(rows) == study.plan.fits
    assert float(rows[0]["chamfer"]) == study.rows[0].surface.chamfer
    assert unquote(page.ids["latex"]["href"].split(",", 1)[1]).startswith(r"\begin{tabular}")


def test_a_failed_fit_shows_its_reason_and_has_no_mesh(page, path, study):
    text = path.read_text(encoding="utf-8")
    assert "box, gaussian scale=2.0, seed 0 failed: loss is not finite &lt;/script&gt;" in text
    ball, box = page.scenes
    assert [it is None for it in ball["meshes"]] == [False] * 5
    assert [it is None for it in box["meshes"]] == [False] * 4 + [True]
    radios = [attrs["value"] for tag, attrs in page.tags if tag == "input" and attrs["type"] == "radio"]
    assert radios == ["ground truth", *study.plan.variants]


def test_the_geometry_decodes_to_the_meshes_within_quantisation(page, study):
    scene = page.scenes[0]
    runs = [study.run(study.of(arm, "ball")[0]) for arm in study.plan.variants]
    for packed, path in zip(scene["meshes"], [study.plan.meshes[0], *(it / "mesh.ply" for it in runs)], strict=True):
        mesh = load_mesh(path)
        vertices, faces, normals = decoded(scene, packed)
        assert packed["faces"] == packed["shown"] == len(faces) == len(mesh.faces)
        step = mesh.extents / 65535
        assert (np.abs(vertices[faces] - mesh.triangles) <= 0.51 * step).all()
        turned = np.einsum("fkj,fj->fk", normals[faces] / 127, mesh.face_normals)
        assert (turned[mesh.area_faces > 1e-6] > 0.7).all()  # outward, and never smooth over a sharp edge


def test_error_colours_are_red_outside_and_blue_inside(study, tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=3)
    shapes = [ball.copy().apply_scale(factor) for factor in (1.1, 0.9)]
    changed = with_shape(study, tmp_path, ball, *shapes)
    _, outside, inside = Page(write_page(changed).read_text(encoding="utf-8")).scenes[0]["meshes"]
    red, blue = (np.frombuffer(base64.b64decode(it["colors"]), np.uint8).reshape(-1, 3) for it in (outside, inside))
    assert (red == np.rint(255 * np.array([0.84, 0.12, 0.10]))).all()
    assert (blue == np.rint(255 * np.array([0.10, 0.30, 0.86]))).all()


def test_sharp_edges_stay_sharp(study, tmp_path):
    box = trimesh.creation.box()
    scene = Page(write_page(with_shape(study, tmp_path, box, box)).read_text(encoding="utf-8")).scenes[0]
    _, faces, normals = decoded(scene, scene["meshes"][0])
    assert len(normals) == 24
    assert (np.abs(normals).max(axis=1) == 127).all()
    assert (np.abs(normals).sum(axis=1) == 127).all()
    assert (normals[faces[:, 0]] == normals[faces[:, 1]]).all()


def test_hostile_names_come_out_as_text(study):
    rows = [dataclasses.replace(row, failure=row.failure and HOSTILE, device=HOSTILE) for row in study.rows]
    hostile = dataclasses.replace(study, rows=rows, command=HOSTILE)
    text = write_page(hostile).read_text(encoding="utf-8")
    plain, written = Page(write_page(study).read_text(encoding="utf-8")), Page(text)
    assert [tag for tag, _ in written.tags] == [tag for tag, _ in plain.tags]
    assert [name for _, attrs in written.tags for name in attrs] == [name for _, attrs in plain.tags for name in attrs]
    assert written.scripts[-1] == plain.scripts[-1]
    assert HOSTILE in html.unescape(text)


def test_what_is_not_there_is_left_out(study, tmp_path):
    bare = dataclasses.replace(study, storage=Storage(tmp_path))
    (tmp_path / "ball-none-scale=1.0-0").mkdir()
    shutil.copy(study.folder / "ball-none-scale=1.0-0" / "config.json", tmp_path / "ball-none-scale=1.0-0")
    page = Page(write_page(bare).read_text(encoding="utf-8"))
    assert "img" not in {tag for tag, _ in page.tags}
    assert [len([it for it in scene["meshes"] if it]) for scene in page.scenes] == [1, 1]


def test_the_page_has_the_pictures_the_curves_and_how_it_was_made(page, path, study):
    images = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    names = ["ball.png", "ball-cuts.png", "box.png", "box-cuts.png"]
    assert [base64.b64decode(it.split(",", 1)[1]) for it in images] == [
        (study.folder / it).read_bytes() for it in names
    ]
    text = path.read_text(encoding="utf-8")
    for row in study.rows:
        assert row.sha256 in text
        assert row.tests in text
    assert "ff3d benchmark ball.ply &lt;b&gt;" in text
    for against in ("seconds", "scale", "parameters"):
        assert f"IoU boundary_face against {against}" in text
    lines = [attrs["points"] for tag, attrs in page.tags if tag == "polyline"]
    bands = [attrs["points"] for tag, attrs in page.tags if tag == "polygon"]
    # two kinds of points: four arms; two mappings by scale; by parameters one, for gaussian's one size lacks a fit
    assert len(lines) == 2 * (4 + 2 + 1)
    assert "gaussian scale=2.0 (3 of 4): " in text
    assert len(bands) == len(lines)
    points = np.array([pair.split(",") for line in [*lines, *bands] for pair in line.split()], dtype=float)
    assert (points >= 0).all()
    assert (points <= [100, 60]).all()


@pytest.mark.parametrize("kind", ["closed", "open", "cut apart", "loose"])
def test_a_large_mesh_is_shown_with_fewer_faces(study, tmp_path, kind):
    large = trimesh.creation.icosphere(subdivisions=6)
    if kind == "open":
        large = trimesh.Trimesh(large.vertices, large.faces[:-1], process=False)
    if kind in ("cut apart", "loose"):
        corners = np.arange(3 * len(large.faces)).reshape(-1, 3)
        apart = 1 + (1e-4 * (corners.reshape(-1, 1) // 3 % 7) if kind == "loose" else 0)
        large = trimesh.Trimesh(large.triangles.reshape(-1, 3) * apart, corners, process=False)
    written = write_page(with_shape(study, tmp_path, large, trimesh.creation.box()))
    assert written.stat().st_size < 2.5e6
    (scene,) = Page(written.read_text(encoding="utf-8")).scenes
    packed = scene["meshes"][0]
    vertices, faces, _ = decoded(scene, packed)
    assert packed["faces"] == len(large.faces)
    assert 0.3 * FACES < packed["shown"] == len(faces) <= FACES
    assert np.allclose(np.linalg.norm(vertices, axis=1), 1, atol=2e-3)


# In a real browser, where there is one.

WEBGL = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


@pytest.fixture
def opened(path):
    """The page in Chromium, with what it asked for and what it complained of."""
    if not (chromium := shutil.which("chromium")):
        pytest.skip("chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=WEBGL)
        tab = browser.new_page(viewport={"width": 1000, "height": 900})
        asked, complaints = [], []
        tab.on("request", lambda request: asked.append(request.url))
        tab.on("console", lambda message: complaints.append(message.text) if message.type != "log" else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(path.as_uri())
        tab.wait_for_selector("canvas[data-shown]")
        yield tab, asked, complaints
        browser.close()


def seen(tab):
    """The canvas as it is now, (height, width, 3)."""
    from PIL import Image

    tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    with Image.open(io.BytesIO(tab.locator("#view").screenshot())) as image:
        return np.asarray(image.convert("RGB"), dtype=int)[12:-12, 12:-12]  # without the ring of the focus


@pytest.mark.browser
def test_a_browser_shows_turns_zooms_and_switches_the_meshes(opened, path):
    tab, asked, complaints = opened
    first = seen(tab)
    ground = first[5, 5 + first.shape[1] // 3]
    share = (np.abs(first - ground).sum(axis=2) > 30).mean()
    assert 0.1 < share < 0.9  # neither blank nor cropped
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 50

    tab.keyboard.press("2")
    none = seen(tab)
    assert tab.locator("#view").get_attribute("data-shown") == "none scale=1.0"
    assert (none != first).any()
    box = tab.locator("#view").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + 120, y + 40, steps=4)
    tab.mouse.up()
    dragged = seen(tab)
    assert (dragged != none).any()
    tab.get_by_label("error colours").check()
    coloured = seen(tab)
    assert np.ptp(coloured, axis=2).max() > np.ptp(dragged, axis=2).max() + 30
    tab.get_by_label("gaussian scale=1.0").check()
    gaussian = seen(tab)
    assert tab.locator("#view").get_attribute("data-shown") == "gaussian scale=1.0"
    assert (gaussian != coloured).any()
    tab.get_by_label("error colours").uncheck()
    tab.keyboard.press("2")
    assert (seen(tab) == dragged).all()  # the camera stayed
    tab.mouse.move(x, y)
    tab.mouse.wheel(0, -600)
    tab.wait_for_timeout(200)
    assert (np.abs(seen(tab) - ground).sum(axis=2) > 30).mean() > share
    tab.locator("#view").dblclick()
    assert (seen(tab) == none).all()
    tab.keyboard.press("1")
    assert (seen(tab) == first).all()

    last = tab.get_by_label("gaussian scale=2.0")
    last.check()
    tab.locator("#shapes").select_option("box")
    box = seen(tab)
    assert tab.locator("#view").get_attribute("data-shape") == "box"
    assert tab.locator("#view").get_attribute("data-shown") == "ground truth"  # the last arm has no box
    assert last.is_disabled()
    assert (box != first).any()
    tab.locator("#shapes").select_option("ball")
    assert not last.is_disabled()
    assert (seen(tab) == first).all()

    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert [url for url in asked if url.startswith("file:")] == [path.as_uri()]
    assert not complaints


@pytest.mark.browser
def test_a_phone_needs_no_sideways_scrolling(opened):
    tab, _, complaints = opened
    tab.set_viewport_size({"width": 375, "height": 740})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 375
    assert not complaints


@pytest.mark.browser
def test_without_webgl_the_page_says_so_and_keeps_the_picture(opened, path):
    tab, _, complaints = opened
    tab.add_init_script("HTMLCanvasElement.prototype.getContext = () => null;")
    tab.goto(path.as_uri())
    assert "needs WebGL 2" in tab.locator("#no3d").inner_text()
    assert not tab.locator("#viewer").is_visible()
    assert tab.locator("img").first.is_visible()
    assert not complaints
