import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ff3d.files import FolderError
from ff3d.theory.images import fit_images
from ff3d.theory.pictures import Picture, text_picture
from ff3d.views.pages import line_chart, rendered, script_data
from ff3d.views.theory import write_image_report

HOSTILE = "</script><script>alert(1)</script>\"'&"


class Sources(HTMLParser):
    """What the page would fetch, and its tags."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.sources = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image")
    picture = Picture(HOSTILE, text_picture(0, 40).pixels, (f"a note {HOSTILE}",))
    settings = {"size": 32, "steps": 20, "width": 16, "frequencies": 16, "device": "cpu", "preset": "paper"}
    fits = fit_images(picture, ("none", "gaussian"), (1.0, 10.0, 100.0), **settings)
    write_image_report(fits, folder, command=f"ff3d image {HOSTILE}")
    return folder


def test_the_page_fetches_nothing_and_escapes_every_text(folder):
    text = (folder / "report.html").read_text()
    page = Sources(text)
    assert page.tags.count("script") == 2
    assert "alert(1)</script>" not in text
    assert all(source.startswith("data:image/") for source in page.sources)
    assert not re.search(r"https?://", text)
    assert "default-src 'none'" in text


def test_rows_come_first_for_they_mark_the_folder(tmp_path):
    fits = fit_images(text_picture(0, 32), ("none",), size=32, steps=2, width=16, device="cpu")
    (tmp_path / "truth.png").mkdir()  # so that the first picture cannot be written
    with pytest.raises(FolderError, match=r"truth\.png: is a folder"):
        write_image_report(fits, tmp_path)
    assert json.loads((tmp_path / "rows.json").read_text())[0]["mapping"] == "none"


def test_a_name_that_is_not_utf_8_has_question_marks():
    text = rendered("charts.html", title="caf\udce9", about="", sections=[], provenance=[])
    assert "<h1>caf?</h1>" in text
    assert text.encode("utf-8").decode() == text


def test_each_fit_is_a_picture_and_a_row(folder):
    rows = json.loads((folder / "rows.json").read_text())
    assert [(row["mapping"], row["scale"]) for row in rows] == [
        ("none", None), ("gaussian", 10.0), ("gaussian", 1.0), ("gaussian", 100.0),
    ]  # fmt: skip
    assert {path.name for path in folder.glob("*.png")} == {
        "truth.png", "none.png", "gaussian.png", "gaussian-1.png", "gaussian-100.png",
    }  # fmt: skip
    for row in rows:
        assert row["curve"][-1]["psnr_test"] == row["psnr_test"]
        assert [it["step"] for it in row["curve"]] == sorted(it["step"] for it in row["curve"])
    assert np.asarray(Image.open(folder / "none.png")).shape == (32, 32, 3)


def test_the_sliders_hold_every_moment_and_every_scale(folder):
    text = (folder / "report.html").read_text()
    frames = json.loads(re.search(r'id="frames">(.*?)</script>', text, re.DOTALL).group(1))
    assert len(frames["fits"]) == 2
    assert all(len(fit) == len(frames["moments"]) for fit in frames["fits"])
    (sweep,) = frames["sweeps"]
    assert [frame["says"].split()[0] for frame in sweep] == ["1", "10", "100"]


@pytest.mark.browser
def test_a_browser_moves_through_time_and_scales(folder):
    if not (chromium := shutil.which("chromium")):
        pytest.skip("chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1000, "height": 900})
        requests, complaints = [], []
        tab.on("request", lambda it: requests.append(it.url) if not it.url.startswith("data:") else None)
        tab.on("console", lambda it: complaints.append(it.text))
        tab.on("pageerror", lambda it: complaints.append(str(it)))
        tab.goto((folder / "report.html").as_uri())

        def moved(slider, value, image, says):
            before = tab.locator(image).get_attribute("src")
            tab.locator(slider).evaluate(
                "(it, value) => { it.value = value; it.dispatchEvent(new Event('input')) }", value
            )
            assert tab.locator(image).get_attribute("src") != before
            assert (
                says
                in tab.locator(f"{slider.replace('time', 'timesays').replace('scale', 'scalesays')}").text_content()
            )

        assert "100.0% of the budget" in tab.locator("#timesays").text_content()
        moved("#time", 0, "#fit1", "5.0% of the budget")
        moved("#scale0", 2, "#swept0", "100 cycles per picture")
        assert complaints == []
        assert requests == [(folder / "report.html").as_uri()]
        browser.close()


def test_a_chart_leaves_out_what_has_no_place_and_keeps_the_rest_in_its_box():
    points = [(0.0, 1.0), (1.0, np.nan), (10.0, 2.0), (100.0, 50.0)]
    chart = line_chart("y", "x", [("a", points), ("none", [(1.0, np.inf)])], log_x=True, log_y=True)
    (line,) = chart["lines"]
    assert line["points"] == [(0.0, 60.0), (100.0, 0.0)]
    assert chart["ticks"][0][0] == "2"
    flat = line_chart("y", "x", [("a", [(1.0, 5.0), (2.0, 5.0)])])
    assert all(0 <= y <= 60 for _, y in flat["lines"][0]["points"])
    narrow = line_chart("y", "x", [("a", [(1.0, 0.0451), (2.0, 0.0483)])], log_y=True)
    assert [text for text, _ in narrow["ticks"]] == ["0.046", "0.047", "0.048"]
    assert line_chart("y", "x", [])["lines"] == []


def test_script_data_cannot_end_its_element():
    assert "<" not in script_data([HOSTILE])
    assert json.loads(str(script_data([HOSTILE]))) == [HOSTILE]
