import sys

import numpy as np
import pytest
import trimesh
from PIL import Image

from ff3d.cli.main import main
from ff3d.formats.writers import save_mesh
from ff3d.viewer.turntable import save_turntable


@pytest.fixture(scope="module")
def post():
    """A post that is not round, away from the origin: no two of its views are alike."""
    return trimesh.creation.box((0.2, 2.0, 0.8)).apply_translation((7.0, -3.0, 5.0))


def pictures(path):
    with Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            yield np.asarray(image.convert("RGB")).astype(int)


def test_a_turn_keeps_the_shape_in_view_and_comes_back(post, tmp_path):
    for up, mesh in (
        ("y", post),
        ("z", post.copy().apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))),
    ):
        save_turntable([("post", mesh)], tmp_path / "turn.gif", frames=4, size=64, up=up)
        frames = [picture < 240 for picture in pictures(tmp_path / "turn.gif")]
        assert len(frames) == 4
        for frame in frames:
            assert frame.any()
            assert not frame[1:-1, 1:-1].sum() < frame.sum()  # nothing is cut off
        areas = [frame.all(axis=2).sum() for frame in frames]
        assert areas[0] == pytest.approx(areas[2], rel=0.1)  # half a turn of a box
        assert areas[1] != pytest.approx(areas[0], rel=0.1)


def test_shapes_stand_side_by_side_with_names_and_as_large_as_one_another(post, tmp_path):
    small = post.copy().apply_scale(0.8)
    save_turntable([("large", post), ("small", small)], tmp_path / "two.png", size=96)
    (picture,) = pictures(tmp_path / "two.png")
    assert picture.shape == (96 + 30, 192, 3)
    heights = [(half[:96].min(axis=2) < 240).any(axis=1).sum() for half in (picture[:, :96], picture[:, 96:])]
    assert heights[1] / heights[0] == pytest.approx(0.8, abs=0.05)
    assert (picture[96:] < 200).any()


def test_the_same_turn_is_the_same_file_and_a_film_can_be_read(post, tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed")
    for name in ("one.gif", "two.gif", "turn.mp4"):
        save_turntable([("post", post)], tmp_path / name, frames=3, size=33, rate=12)
    assert (tmp_path / "one.gif").read_bytes() == (tmp_path / "two.gif").read_bytes()
    frames, _ = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "turn.mp4"))
    assert frames == 3
    save_turntable([("post", post)], tmp_path / "turn.mp4", frames=3, size=33)  # it is ff3d's own


def test_the_command_draws_a_run_and_says_what_is_missing(post, tmp_path, caplog, monkeypatch):
    save_mesh(post, tmp_path / "post.ply")
    command = ["render", "--size", "32", "--frames", "2", str(tmp_path / "post.ply")]
    assert main([*command, "-o", str(tmp_path / "turn.gif")]) == 0
    assert len(list(pictures(tmp_path / "turn.gif"))) == 2
    assert main([*command, "-o", str(tmp_path / "turn.avi")]) == 1
    assert "known endings: .mp4, .gif, .png" in caplog.text
    assert main([*command, str(tmp_path / "post.ply"), "-o", str(tmp_path / "turn.gif")]) == 1
    assert "give --side-by-side" in caplog.text
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert main([*command, "-o", str(tmp_path / "turn.mp4")]) == 1
    assert "pip install 'ff3d[video]'; or name a .gif" in caplog.text
