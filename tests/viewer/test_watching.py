from contextlib import closing

import numpy as np
import pytest
import trimesh
from PIL import Image

from ff3d.fields.config import DEFAULT_SECONDS, Budget
from ff3d.fitting import Observer, train
from ff3d.formats.writers import save_mesh
from ff3d.labels.oracles import load_surface
from ff3d.runs import MeshSource, Run
from ff3d.settings import make_config
from ff3d.shapes.point_cloud import PointCloud
from ff3d.studies.plan import make_plan
from ff3d.studies.study import run_study
from ff3d.studies.workers import Workers
from ff3d.theory.images import ImageObserver, fit_images, to_bytes
from ff3d.theory.pictures import text_picture
from ff3d.viewer.watching import ImageWatch, Watch

SMALL = {"width": 16, "depth": 2, "batch_size": 256, "pool_size": 1024, "device": "cpu"}


@pytest.fixture(scope="module")
def surface():
    return load_surface(trimesh.creation.icosphere(subdivisions=2))


class Notes(Observer):
    """Writes down what it is told; stops after so many steps."""

    def __init__(self, last=10**9):
        self.last, self.steps, self.rows, self.levels = last, [], [], []

    def paused(self, field, progress):
        self.steps.append(progress.step)
        self.levels.append(getattr(field, "lattice", None) and field.lattice.frame.levels)
        return progress.step >= self.last

    def evaluated(self, field, progress):
        self.rows.append(progress.history[-1])


@pytest.mark.slow
def test_who_only_watches_changes_nothing(surface):
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (500, 3))
    config = make_config("plain", mapping="gaussian", steps=30, **SMALL)
    notes = Notes()
    with closing(Watch(surface, ["gaussian"], port=0)) as watch:
        watch.begin("gaussian", config)
        watched = train(surface, config, observers=[notes, watch])
        watch.finished(watched.field)
        assert watch.gallery.items[1].fitted
    assert np.array_equal(watched.field.logits(points), train(surface, config).field.logits(points))
    assert notes.rows == watched.progress.history
    assert notes.steps[0] == 1
    assert 0 < watch.share <= 1


@pytest.mark.slow
def test_a_lattice_is_watched_level_by_level_and_comes_out_the_same(surface):
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (500, 3))
    config = make_config("direct", finest=48)
    notes = Notes()
    with closing(Watch(surface, ["voxels"], port=0)) as watch:
        watch.begin("voxels", config)
        watched = train(surface, config, observers=[notes, watch])
        assert len(watch.gallery.items[1].faces) > 100
        watch.gallery.hide(1)
        for shown in (True, False):  # once it has come, it stays as somebody wants it
            watch.gallery.replace(1, watch.gallery.items[1])
            assert watch.gallery.shown(1)
            watch.gallery._shown[1].value = shown
        watch.gallery.replace(1, watch.gallery.items[1])
        assert not watch.gallery.shown(1)
    assert np.array_equal(watched.field.logits(points), train(surface, config).field.logits(points))
    assert notes.levels == list(range(1, watched.field.lattice.frame.levels))
    assert len(notes.rows) == 1
    small = Notes()
    assert train(surface, make_config("small", bytes=4000), observers=[small]).field.lattice.frame.levels
    assert small.levels


def test_a_scan_is_watched_by_the_settings_that_it_is_fitted_with():
    points = trimesh.creation.icosphere(subdivisions=3).vertices  # of radius 1: each point is its own normal
    cloud = load_surface(PointCloud(np.array(points), np.array(points)))
    with closing(Watch(cloud, ["voxels"], port=0)) as watch:
        watch.begin("voxels", make_config("direct", bytes=50_000))  # which no network has
        assert watch._panel._stop.visible
        assert watch._budget == Budget(seconds=DEFAULT_SECONDS)


def test_a_fit_that_is_stopped_keeps_its_field_and_resumes_to_what_it_would_have_been(surface, tmp_path):
    config = make_config("plain", mapping="none", steps=200, **SMALL)
    source = MeshSource("ball", "0" * 64)
    run = Run(tmp_path / "run")
    stopped = run.fit(surface.mesh, config, source, oracle=surface.oracle, observers=[Notes(last=1)])
    assert stopped.progress.interrupted
    assert stopped.progress.signal == 0
    assert 1 <= stopped.progress.step < 200
    assert not run.finished
    assert run.load().parameter_count == stopped.field.parameter_count
    resumed = run.fit(surface.mesh, config, source, oracle=surface.oracle)
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (500, 3))
    assert np.array_equal(resumed.field.logits(points), train(surface, config).field.logits(points))


@pytest.mark.slow
def test_each_fit_of_a_comparison_takes_its_place_beside_the_shape(surface, tmp_path):
    save_mesh(surface.mesh, tmp_path / "ball.ply")
    small = {**SMALL, "learning_rate": 0.01}
    points = np.random.default_rng(0).uniform(-1.2, 1.2, (500, 3))
    plan = make_plan([tmp_path / "ball.ply"], ("hash", "voxels"), (0,), resolution=16, steps=40, **small)
    with closing(Watch(surface, plan.variants, port=0)) as watch:
        workers = Workers(watch=lambda task: watch.begin(task.variant, task.config))
        study = run_study(plan, tmp_path / "study", workers=workers)
        items = watch.gallery.items
        watch.linger(print)  # nobody looks
    assert [item.name for item in items[1:]] == plan.variants
    for row, item in zip(study.rows, items[1:], strict=True):
        assert len(item.faces)
        assert np.array_equal(item.values(points) > 0, Run(study.run(row)).load().contains(points))


@pytest.mark.browser
@pytest.mark.slow
def test_a_browser_sees_the_shape_form_and_stops_the_fit(surface, tmp_path, served):
    save_mesh(surface.mesh, tmp_path / "ball.ply")
    command = ["fit", tmp_path / "ball.ply", "--preset", "fast", "--seconds", 600, "--out", tmp_path / "run"]
    small = ["--levels", 2, "--finest", 32, "--batch-size", 2048, "--pool-size", 8192, "--watch", "--port", 0]
    with served(*command, *small) as (process, tab):
        tab.page.get_by_text("pictures take").wait_for(timeout=120_000)
        tab.page.get_by_text("s left").wait_for()
        assert np.ptp(tab.seen()) > 0
        tab.page.get_by_role("button", name="Stop and keep").click()
        tab.page.get_by_role("button", name="Close").click(timeout=120_000)
        assert process.wait(timeout=60) == 0
    assert Run(tmp_path / "run").load().contains(np.zeros((1, 3))).all()


@pytest.mark.slow
def test_who_watches_a_picture_changes_nothing_and_sees_every_mapping(tmp_path):
    picture = text_picture(0, 40)
    settings = {"scales": (), "steps": 30, "size": 40, "width": 16, "device": "cpu"}
    with closing(ImageWatch(port=0)) as watch:
        watched = fit_images(picture, ("none", "gaussian"), observer=watch, **settings)
        truth, *shown = [tile.image for tile, _ in watch._tiles]
        assert [words.text for _, words in watch._tiles][1:] == [
            f"{fit.title}: {fit.to_json()['psnr_test']:.1f} dB" for fit in watched
        ]
        watch.linger(print)  # nobody looks
    assert np.array_equal(truth, to_bytes(picture.pixels))
    alone = fit_images(picture, ("none", "gaussian"), **settings)
    for fit, other, seen in zip(watched, alone, shown, strict=True):
        assert np.array_equal(fit.pixels, other.pixels)
        assert np.array_equal(seen, fit.snapshots[-1].pixels)


def test_a_fit_to_a_picture_that_is_stopped_is_kept_and_the_last(tmp_path):
    class Stop(ImageObserver):
        def paused(self, network, progress):
            return True

    fits = fit_images(text_picture(0, 40), ("none", "gaussian"), steps=10**6, size=40, width=16, observer=Stop())
    assert len(fits) == 1
    assert fits[0].progress.interrupted
    assert fits[0].progress.signal == 0
    assert fits[0].to_json()["psnr_test"] > 0


@pytest.mark.browser
@pytest.mark.slow
def test_a_browser_sees_a_picture_form_and_stops_the_fits(tmp_path, served):
    pixels = np.full((64, 64, 3), 255, dtype=np.uint8)
    pixels[:32] = 200, 60, 20
    Image.fromarray(pixels).save(tmp_path / "half.png")
    command = ["image", tmp_path / "half.png", "--seconds", 600, "--mappings", "none", "gaussian", "--watch"]
    with served(*command, "--port", 0, "--out", tmp_path / "out") as (process, tab):
        tab.page.get_by_text("pictures take").wait_for(timeout=120_000)
        tab.page.get_by_text("s left").wait_for()
        before = tab.seen()
        rows, _ = np.nonzero(before[..., 0] - before[..., 2] > 100)
        assert rows.mean() < len(before) / 2  # the upper half is above
        tab.drag((100, 200), (160, 240))
        assert (tab.seen() != before).any()
        tab.page.get_by_role("button", name="Stop and keep").click()
        tab.page.get_by_role("button", name="Close").click(timeout=120_000)
        assert process.wait(timeout=60) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"none.png", "truth.png", "report.html"}
