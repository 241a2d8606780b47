import base64
import io
import re
import subprocess
import sys

import numpy as np
import pytest
import trimesh
from PIL import Image

from ff3d.fitting import fit
from ff3d.formats.writers import save_mesh
from ff3d.studies.plan import make_plan
from ff3d.studies.study import run_study
from ff3d.theory.images import fit_image
from ff3d.theory.pictures import text_picture
from ff3d.viewer.notebook import register

InteractiveShell = pytest.importorskip("IPython.core.interactiveshell").InteractiveShell


@pytest.fixture(scope="module")
def shown():
    """What a notebook shows of a result: its HTML, and the pictures in it."""
    shell = InteractiveShell()
    register(shell)

    def show(result):
        text = shell.display_formatter.format(result)[0]["text/html"]
        pictures = [base64.b64decode(it) for it in re.findall(r'src="data:image/png;base64,([^"]+)"', text)]
        return text, [np.asarray(Image.open(io.BytesIO(it))) for it in pictures]

    return show


def test_fields_and_meshes_show_their_shape_and_numbers(shown):
    ball = trimesh.creation.icosphere(subdivisions=2)
    field = fit(ball, "voxels", finest=16)
    for result, words in (
        (field, ("LatticeField", "voxels", f"{field.parameter_count:,}")),
        (ball, ("320 faces", "yes")),
    ):
        text, (picture,) = shown(result)
        assert np.ptp(picture) > 50
        for word in words:
            assert word in text
    text, pictures = shown(trimesh.Trimesh())
    assert pictures == []
    assert "0 faces" in text


def test_fits_to_pictures_show_the_truth_beside_what_was_fitted(shown):
    picture = text_picture(0, 32)
    text, (both,) = shown(fit_image(picture.pixels, "none", steps=5, size=32, width=16, device="cpu"))
    assert both.shape == (32, 64, 3)
    assert "psnr_test" in text


@pytest.mark.slow
def test_studies_show_their_table_and_escape_their_names(shown, tmp_path):
    trimesh.creation.icosphere(subdivisions=2).export(tmp_path / "ball & <b>.ply")
    plan = make_plan([tmp_path / "ball & <b>.ply"], ("voxels",), (0,), resolution=24, finest=16)
    text, _ = shown(run_study(plan, tmp_path / "study"))
    assert "voxels" in text
    assert "<b>" not in text


def test_ff3d_registers_itself_where_a_notebook_runs_and_nowhere_else():
    code = """
import sys
{}
import ff3d
print("ff3d.viewer.notebook" in sys.modules, "trimesh" in sys.modules, "torch" in sys.modules)
"""
    shell = "from IPython.core.interactiveshell import InteractiveShell; InteractiveShell.instance()"
    for line, expected in ((shell, "True False False"), ("import IPython", "False False False")):
        done = subprocess.run([sys.executable, "-c", code.format(line)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


@pytest.mark.browser
@pytest.mark.slow
def test_a_browser_turns_a_mesh_and_a_study_in_a_notebook_and_shows_the_picture_without_scripts(
    shown, tmp_path, opened
):
    post = trimesh.creation.box((0.5, 2.0, 0.8))
    save_mesh(post, tmp_path / "post.ply")
    plan = make_plan([tmp_path / "post.ply"], ("voxels",), (0,), resolution=24, finest=16)
    study = run_study(plan, tmp_path / "study")
    for result in (post, study):
        text, pictures = shown(result)
        (tmp_path / "cell.html").write_text(f'<!DOCTYPE html><div style="margin-top: -60px">{text}</div>')
        with opened((tmp_path / "cell.html").as_uri()) as tab:
            frame = tab.page.frame_locator("iframe")
            frame.locator("#view").scroll_into_view_if_needed()
            box = frame.locator("#view").bounding_box()
            middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            before = frame.locator("#view").screenshot()
            tab.drag(middle, (middle[0] + 60, middle[1] + 20))
            assert frame.locator("#view").screenshot() != before
    assert pictures == []  # of a report, which was not written
    text, _ = shown(post)
    (tmp_path / "cell.html").write_text(re.sub("<iframe.*?</iframe>", "", text))
    with opened((tmp_path / "cell.html").as_uri()) as tab:
        assert np.ptp(tab.seen()) > 50
