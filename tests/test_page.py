import base64
import csv
import dataclasses
import io
import json
import shutil
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
import trimesh

from ff3d.benchmark import compare, failed_row
from ff3d.page import COLUMNS, FACES, write_page
from ff3d.report import write_report
from ff3d.runs import MeshSource
from ff3d.settings import make_config

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
    def scene(self):
        (text,) = [text for attrs, text in self.scripts if attrs.get("id") == "scene"]
        return json.loads(text)


def decoded(scene, packed):
    """Vertices (v, 3) in the mesh's own units, faces (f, 3), normals (v, 3)."""
    parts = {name: base64.b64decode(packed[name]) for name in ("positions", "indices", "normals")}
    share = np.frombuffer(parts["positions"], "<u2").reshape(-1, 3) / 65535
    points = np.array(packed["low"]) + share * packed["extent"]
    faces = np.frombuffer(parts["indices"], "<u4").reshape(-1, 3)
    return points * scene["side"] + scene["middle"], faces, np.frombuffer(parts["normals"], np.int8).reshape(-1, 3)


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    path = tmp_path_factory.mktemp("meshes") / "ball.ply"
    trimesh.creation.icosphere(subdivisions=3).apply_scale(3).apply_translation([10, 0, 0]).export(path)
    folder = tmp_path_factory.mktemp("compared")
    config = make_config(steps=200, scale=1.0, learning_rate=0.01, **SMALL)
    result = compare(path, ("none", "gaussian"), config, folder, resolution=32, command="ff3d compare ball.ply <b>")
    write_report(result, folder)
    failed = failed_row(dataclasses.replace(config, mapping="lecture"), f"loss is not finite {HOSTILE}")
    return dataclasses.replace(result, rows=[*result.rows, failed], shapes=[*result.shapes, None]), folder


@pytest.fixture(scope="module")
def path(comparison):
    return write_page(*comparison)


@pytest.fixture(scope="module")
def page(path):
    return Page(path.read_text(encoding="utf-8"))


def test_the_page_asks_for_nothing_outside_itself(page, path):
    assert page.fetched
    assert all(it.startswith("data:") for it in page.fetched)
    text = path.read_text(encoding="utf-8")
    assert "url(" not in text
    assert "@import" not in text
    assert "://" not in text
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "base"}


def test_the_tables_numbers_are_the_rows(page, comparison):
    rows = {cells[0]: cells[1:] for cells in page.rows}
    for row in comparison[0].rows[:2]:
        surface = row.surface
        values = [*row.iou.values(), surface.chamfer, surface.f_score, surface.normal_consistency]
        values += [row.steps, row.seconds, row.bytes / 1000]
        numbers = [float(cell.replace(",", "")) for cell in rows[row.mapping]]
        digits = [4, 4, 4, 5, 4, 4, 0, 1, 0]
        assert numbers == [round(value, count) for value, count in zip(values, digits, strict=True)]
    best = max(row.iou["boundary_face"] for row in comparison[0].rows)
    assert f"{best:.4f}" in page.bold
    assert "200" not in page.bold  # steps: alike


def test_the_csv_holds_every_digit_and_every_row(page, comparison):
    kind, data = page.ids["csv"]["href"].split(",", 1)
    assert kind == "data:text/csv;charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(unquote(data), newline="")))
    assert [row["mapping"] for row in rows] == ["none", "gaussian", "lecture"]
    assert float(rows[0]["Chamfer"]) == comparison[0].rows[0].surface.chamfer
    assert rows[2]["failure"] == comparison[0].rows[2].failure
    assert rows[2]["IoU uniform"] == ""


def test_a_failed_mapping_shows_its_reason_and_has_no_mesh(page, comparison):
    texts = [cells[0] for cells in page.rows]
    assert f"lecture failed: {comparison[0].rows[2].failure}" in texts
    assert page.rows[texts.index("lecture")][1:] == ["–"] * len(COLUMNS)  # noqa: RUF001
    assert [it["name"] for it in page.scene["meshes"]] == ["ground truth", "none", "gaussian"]
    radios = [attrs["value"] for tag, attrs in page.tags if tag == "input" and attrs["type"] == "radio"]
    assert radios == ["ground truth", "none", "gaussian"]


def test_the_geometry_decodes_to_the_meshes_within_quantisation(page, comparison):
    scene, result = page.scene, comparison[0]
    for packed, mesh in zip(scene["meshes"], [result.mesh, *result.shapes[:2]], strict=True):
        vertices, faces, normals = decoded(scene, packed)
        assert packed["faces"] == packed["shown"] == len(faces) == len(mesh.faces)
        step = mesh.extents / 65535
        assert (np.abs(vertices[faces] - mesh.triangles) <= 0.51 * step).all()
        turned = np.einsum("fkj,fj->fk", normals[faces] / 127, mesh.face_normals)
        assert (turned[mesh.area_faces > 1e-6] > 0.7).all()  # outward, and never smooth over a sharp edge


def test_error_colours_are_red_outside_and_blue_inside(comparison, tmp_path):
    result, _ = comparison
    shapes = [result.mesh.copy() for _ in range(2)]
    for shape, factor in zip(shapes, (1.1, 0.9), strict=True):
        shape.vertices = (shape.vertices - [10, 0, 0]) * factor + [10, 0, 0]
    changed = dataclasses.replace(result, shapes=[*shapes, None])
    _, outside, inside = Page(write_page(changed, tmp_path).read_text(encoding="utf-8")).scene["meshes"]
    red, blue = (np.frombuffer(base64.b64decode(it["colors"]), np.uint8).reshape(-1, 3) for it in (outside, inside))
    assert (red == np.rint(255 * np.array([0.84, 0.12, 0.10]))).all()
    assert (blue == np.rint(255 * np.array([0.10, 0.30, 0.86]))).all()


def test_sharp_edges_stay_sharp(comparison, tmp_path):
    box = trimesh.creation.box()
    changed = dataclasses.replace(comparison[0], mesh=box, rows=[], shapes=[])
    scene = Page(write_page(changed, tmp_path).read_text(encoding="utf-8")).scene
    _, faces, normals = decoded(scene, scene["meshes"][0])
    assert (normals[faces] == np.rint(127 * box.face_normals[:, None])).all()
    assert len(normals) == 24


def test_hostile_names_come_out_as_text(comparison, tmp_path):
    result, _ = comparison
    rows = [dataclasses.replace(row, mapping=f"{HOSTILE}{index}") for index, row in enumerate(result.rows)]
    hostile = dataclasses.replace(result, name=HOSTILE, source=MeshSource(HOSTILE, "0"), rows=rows)
    plain, written = (Page(write_page(it, tmp_path).read_text(encoding="utf-8")) for it in (result, hostile))
    assert [tag for tag, _ in written.tags] == [tag for tag, _ in plain.tags]
    assert [name for _, attrs in written.tags for name in attrs] == [name for _, attrs in plain.tags for name in attrs]
    assert written.scripts[-1] == plain.scripts[-1]
    assert written.scene["meshes"][1]["name"] == f"{HOSTILE}0"
    assert written.rows[1][0] == f"{HOSTILE}0"


def test_what_is_not_in_the_folder_is_left_out(comparison, tmp_path):
    page = Page(write_page(comparison[0], tmp_path).read_text(encoding="utf-8"))
    assert "img" not in {tag for tag, _ in page.tags}
    assert "charts" not in page.ids


def test_the_page_has_the_picture_the_curves_and_how_it_was_made(page, path, comparison):
    result, folder = comparison
    (image,) = [attrs["src"] for tag, attrs in page.tags if tag == "img"]
    assert base64.b64decode(image.split(",", 1)[1]) == (folder / "compare.png").read_bytes()
    text = path.read_text(encoding="utf-8")
    assert result.source.sha256 in text
    assert "ff3d compare ball.ply &lt;b&gt;" in text
    lines = [attrs["points"] for tag, attrs in page.tags if tag == "polyline"]
    assert len(lines) == 4  # two mappings in two charts
    evaluations = (folder / "none" / "metrics.jsonl").read_text().splitlines()
    assert len(lines[0].split()) == len(evaluations)
    points = np.array([pair.split(",") for line in lines for pair in line.split()], dtype=float)
    assert (points >= 0).all()
    assert (points <= [100, 60]).all()


@pytest.mark.parametrize("kind", ["closed", "open", "cut apart", "loose"])
def test_a_large_mesh_is_shown_with_fewer_faces(comparison, tmp_path, kind):
    large = trimesh.creation.icosphere(subdivisions=6)
    if kind == "open":
        large = trimesh.Trimesh(large.vertices, large.faces[:-1], process=False)
    if kind in ("cut apart", "loose"):
        corners = np.arange(3 * len(large.faces)).reshape(-1, 3)
        apart = 1 + (1e-4 * (corners.reshape(-1, 1) // 3 % 7) if kind == "loose" else 0)
        large = trimesh.Trimesh(large.triangles.reshape(-1, 3) * apart, corners, process=False)
    changed = dataclasses.replace(comparison[0], mesh=large, rows=[], shapes=[])
    written = write_page(changed, tmp_path)
    assert written.stat().st_size < 2.5e6
    scene = Page(written.read_text(encoding="utf-8")).scene
    (packed,) = scene["meshes"]
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


def test_a_browser_shows_turns_zooms_and_switches_the_meshes(opened, path):
    tab, asked, complaints = opened
    first = seen(tab)
    ground = first[5, 5 + first.shape[1] // 3]
    share = (np.abs(first - ground).sum(axis=2) > 30).mean()
    assert 0.1 < share < 0.9  # neither blank nor cropped
    assert len(np.unique(first.reshape(-1, 3), axis=0)) > 50

    tab.keyboard.press("2")
    assert tab.eval_on_selector("#view", "it => it.dataset.shown") in ("ground truth", "none")
    none = seen(tab)
    assert tab.locator("#view").get_attribute("data-shown") == "none"
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
    tab.get_by_label("gaussian").check()
    gaussian = seen(tab)
    assert tab.locator("#view").get_attribute("data-shown") == "gaussian"
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

    assert all(url.startswith(("file:", "data:")) for url in asked)
    assert [url for url in asked if url.startswith("file:")] == [path.as_uri()]
    assert not complaints


def test_a_phone_needs_no_sideways_scrolling(opened):
    tab, _, complaints = opened
    tab.set_viewport_size({"width": 375, "height": 740})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 375
    assert not complaints


def test_without_webgl_the_page_says_so_and_keeps_the_picture(opened, path):
    tab, _, complaints = opened
    tab.add_init_script("HTMLCanvasElement.prototype.getContext = () => null;")
    tab.goto(path.as_uri())
    assert "needs WebGL 2" in tab.locator("#no3d").inner_text()
    assert not tab.locator("#viewer").is_visible()
    assert tab.locator("img").is_visible()
    assert not complaints
