import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

import ff3d
from ff3d.cli.main import main
from ff3d.cli.surfaces import FitCommand
from ff3d.fields.config import DEFAULT_SECONDS, Budget
from ff3d.fitting import train
from ff3d.labels.oracles import load_surface
from ff3d.settings import make_config
from ff3d.viewer.film import HELD, RATE, Film


def frames(path):
    with Image.open(path) as image:
        for number in range(image.n_frames):
            image.seek(number)
            yield np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.slow
def test_a_film_shows_how_a_network_learns_and_leaves_it_as_it_was(tmp_path):
    ball = trimesh.creation.icosphere(3)
    config = make_config("plain", mapping="none", steps=250, width=64, batch_size=2048)
    film = Film(ball, config.budget)
    fit = train(ball, config, held_out={}, observers=[film])
    before = {name: tensor.clone() for name, tensor in fit.field.state_dict().items()}
    moments = film.write(fit.field, tmp_path / "film.gif")
    assert all(torch.equal(tensor, before[name]) for name, tensor in fit.field.state_dict().items())
    shown = list(frames(tmp_path / "film.gif"))
    assert moments >= 3
    assert moments <= len(shown) <= moments + HELD * RATE  # equal frames at the end may be one that is shown longer
    dark = [float((frame < 240).all(axis=2).mean()) for frame in shown]
    true = float((np.hypot(*np.mgrid[-1:1:480j, -1:1:480j]) < 0.9).mean()) * 480 / 510
    assert dark[-1] == pytest.approx(true, rel=0.25)  # a ball that fills the picture, at the end
    assert any(not np.array_equal(shown[0], frame) for frame in shown[1:])


def test_a_lattice_is_filmed_level_by_level(tmp_path, capsys):
    assert main(["fit", "bracket", "--finest", "64", "--out", f"{tmp_path}/run", "--film", f"{tmp_path}/film.gif"]) == 0
    assert "3 moments" in capsys.readouterr().out
    assert len(list(frames(tmp_path / "film.gif"))) >= 3
    again = ["fit", "bracket", "--finest", "64", "--out", f"{tmp_path}/run", "--film", f"{tmp_path}/film.gif"]
    assert main(again) == 0
    assert "no film: the fit was finished already" in capsys.readouterr().out


def test_a_film_of_a_scan_knows_the_budget_that_it_is_fitted_with():
    points = trimesh.creation.icosphere(3).vertices  # of radius 1: each point is its own normal
    cloud = load_surface(ff3d.PointCloud(np.array(points), np.array(points)))
    film = FitCommand("scan", settings={})._film(cloud, make_config("direct", bytes=50_000))  # which no network has
    assert film._budget == Budget(seconds=DEFAULT_SECONDS)


def test_what_is_no_film_is_refused_before_the_fit(tmp_path, caplog):
    assert main(["fit", "bracket", "--out", f"{tmp_path}/run", "--film", f"{tmp_path}/film.png"]) == 1
    assert "a film is a .gif or an .mp4" in caplog.text
    assert not (tmp_path / "run").exists()
    (tmp_path / "film.gif").write_text("mine")
    assert main(["fit", "bracket", "--out", f"{tmp_path}/run", "--film", f"{tmp_path}/film.gif"]) == 1
    assert (tmp_path / "film.gif").read_text() == "mine"
    assert issubclass(Film, ff3d.Observer)
