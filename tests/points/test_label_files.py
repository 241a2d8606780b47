import numpy as np
import pytest
import trimesh

from ff3d.labels.oracles import make_oracle
from ff3d.points.label_files import label_file


@pytest.mark.parametrize("dtype", [np.float64, np.float32, ">f4"])
def test_a_file_of_points_is_labelled_chunk_by_chunk(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr("ff3d.points.label_files.CHUNK", 1000)
    points = np.random.default_rng(0).uniform(-1.2, 1.2, size=(3501, 3)).astype(dtype)
    np.save(tmp_path / "points.npy", points)
    oracle = make_oracle(trimesh.creation.icosphere(subdivisions=3))
    inside, count = label_file(oracle, tmp_path / "points.npy", tmp_path / "labels.npy")
    labels = np.load(tmp_path / "labels.npy")
    assert labels.dtype == bool
    assert np.array_equal(labels, oracle(points.astype(np.float64)))
    assert (inside, count) == (labels.sum(), 3501)


def test_no_points_have_no_labels(tmp_path):
    np.save(tmp_path / "points.npy", np.zeros((0, 3)))
    assert label_file(lambda points: points[:, 0] > 0, tmp_path / "points.npy", tmp_path / "labels.npy") == (0, 0)
    assert np.load(tmp_path / "labels.npy").shape == (0,)


def test_a_point_that_is_not_finite_is_named_by_its_rows_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr("ff3d.points.label_files.CHUNK", 100)
    points = np.zeros((1000, 3))
    points[742, 1] = np.nan
    np.save(tmp_path / "points.npy", points)
    with pytest.raises(ValueError, match="rows 700 to 800: points must be finite, got 1"):
        label_file(make_oracle(trimesh.creation.box()), tmp_path / "points.npy", tmp_path / "labels.npy")
    assert [it.name for it in tmp_path.iterdir()] == ["points.npy"]


@pytest.mark.parametrize("content", [b"", b"hello", np.save])
def test_what_is_no_file_of_points_is_refused(tmp_path, content):
    path = tmp_path / "points.npy"
    if callable(content):
        content(path, np.zeros((3, 4)))
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"points\.npy: expected a \.npy of points"):
        label_file(make_oracle(trimesh.creation.box()), path, tmp_path / "labels.npy")
