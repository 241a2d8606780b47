"""Pictures: what they must show, whatever the mesh's place and size."""

from __future__ import annotations

import math

import numpy as np
import pytest
import trimesh
from PIL import Image

from ff3d.views import rendering
from ff3d.views.figure import Entry, comparison_picture
from ff3d.views.rendering import Camera, render, render_error, save_picture, signed_error

FRONT = Camera((0.0, 0.0, 0.0), 2.6)
SMALL = (96, 96)


@pytest.fixture(scope="module", autouse=True)
def _all_samples():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendering, "SAMPLES", 2)
        yield


def sphere(radius=1.0, subdivisions=4, center=(0, 0, 0)):
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius)
    mesh.apply_translation(center)
    return mesh


def knobbly():
    """Something with edges, hollows, shadows and a hole."""
    mesh = trimesh.util.concatenate(
        [trimesh.creation.box((1, 1.4, 0.6)), sphere(0.5, 3, (0.5, 0.6, 0.3)), trimesh.creation.torus(0.7, 0.12)]
    )
    mesh.update_faces(np.arange(len(mesh.faces)) % 50 != 0)
    return mesh


def in_unit_ball(points):
    return np.linalg.norm(points, axis=1) < 1


def difference(a, b):
    """The mean difference of two pictures, in grey levels, and the share of the pixels that visibly differ."""
    apart = np.abs(a.astype(int) - b.astype(int)).max(axis=2)
    return apart.mean(), (apart > 8).mean()


def test_a_picture_is_uint8_of_the_asked_size_and_not_blank():
    picture = render(knobbly(), size=(120, 80))
    assert picture.dtype == np.uint8
    assert picture.shape == (80, 120, 3)
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 200


@pytest.mark.parametrize("field_of_view", [5.0, 30.0, 60.0])
def test_a_spheres_outline_has_the_area_that_perspective_gives_it(field_of_view):
    camera = Camera((0.0, 0.0, 0.0), 3.0, (1.0, 0.7, 0.4), field_of_view=field_of_view)
    picture = render(sphere(subdivisions=5), camera, size=(480, 400), ground=(0, 0, 1))
    away = camera.width / 2 / math.tan(math.radians(field_of_view) / 2)
    radius = away / math.sqrt(away**2 - 1) * 480 / camera.width
    covered = (picture != (0, 0, 255)).any(axis=2).sum()
    assert covered == pytest.approx(math.pi * radius**2, rel=0.01)


def test_the_same_call_gives_the_same_bytes():
    assert render(knobbly(), size=SMALL).tobytes() == render(knobbly(), size=SMALL).tobytes()


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_place_and_size_of_the_mesh_do_not_change_its_picture(scale, offset):
    expected, mesh = render(knobbly(), size=SMALL), knobbly()
    mesh.apply_translation((offset, -offset, 2 * offset))
    mesh.apply_scale(scale)
    mean, share = difference(render(mesh, size=SMALL), expected)
    assert mean < 0.05
    assert share < 0.003


def test_an_empty_mesh_gives_only_background():
    picture = render(trimesh.Trimesh(), size=(20, 10), ground=(1.0, 0.0, 0.0))
    assert (picture == (255, 0, 0)).all()
    assert picture.shape == (10, 20, 3)


def test_sharp_edges_stay_sharp():
    soup = trimesh.creation.box((1, 1.3, 0.8))
    merged = soup.copy()
    soup.unmerge_vertices()
    camera = Camera.framing(soup.bounds)
    assert (render(soup, camera, size=SMALL) == render(merged, camera, size=SMALL)).all()


def test_the_inside_seen_through_a_hole_is_darker():
    bowl = sphere()
    bowl.update_faces(bowl.triangles_center[:, 2] < 0.3)
    middle = (slice(40, 56), slice(40, 56))
    assert render(bowl, FRONT, size=SMALL)[middle].mean() < 0.8 * render(sphere(), FRONT, size=SMALL)[middle].mean()


def test_a_vertex_that_is_not_finite_is_refused():
    mesh = sphere()
    mesh.vertices[7] = np.nan
    with pytest.raises(ValueError, match="finite"):
        render(mesh, FRONT, size=SMALL)


@pytest.mark.parametrize("up", [(0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)])
@pytest.mark.parametrize("aspect", [0.4, 1.0, 2.5])
@pytest.mark.parametrize("count", [2, 50])
def test_framing_has_all_points_in_view_and_touches_the_margin(up, aspect, count):
    points = np.random.default_rng(count).normal(size=(count, 3)) * (1, 5, 2) + 1000
    camera = Camera.framing(points, azimuth=-70, elevation=35, up=up, aspect=aspect, margin=0.05)
    corners = np.stack(np.meshgrid(*points.T), axis=-1).reshape(-1, 3) if count == 2 else points
    seen = camera.to_view(corners)
    away = 0.5 / math.tan(math.radians(camera.field_of_view) / 2)
    across = np.abs(seen[:, :2]) * (away / (away - seen[:, 2:])) * (1, aspect)
    assert across.max() == pytest.approx(0.45, abs=1e-9)
    np.testing.assert_allclose(camera.from_view(seen), corners, rtol=1e-12)


def test_framing_looks_from_the_named_side():
    box = [[-1, -1, -1], [1, 1, 1]]
    np.testing.assert_allclose(Camera.framing(box, azimuth=0, elevation=0).direction, (0, 0, 1), atol=1e-12)
    np.testing.assert_allclose(Camera.framing(box, azimuth=90, elevation=0).direction, (1, 0, 0), atol=1e-12)
    np.testing.assert_allclose(Camera.framing(box, elevation=90 - 1e-3).direction, (0, 1, 0), atol=1e-4)
    z_up = Camera.framing(box, azimuth=0, elevation=0, up=(0, 0, 1))
    np.testing.assert_allclose(z_up.direction, (0, -1, 0), atol=1e-12)


@pytest.mark.parametrize("bounds", [[[1, 1, 1], [1, 1, 1]], [[0, 0, 0], [1, np.inf, 1]], [0, 1, 2]])
def test_framing_refuses_what_it_cannot_frame(bounds):
    with pytest.raises(ValueError, match="bounds"):
        Camera.framing(bounds)


def test_a_closeup_is_the_middle_of_a_larger_picture():
    mesh = knobbly()
    camera = Camera.framing(mesh.bounds)
    crop = render(mesh, camera, size=(192, 192))[24:120, 72:168]
    mean, _ = difference(
        render(mesh, camera.closeup(24 / 192, 24 / 192, 2.0), size=SMALL)[2:-2, 2:-2], crop[2:-2, 2:-2]
    )
    assert mean < 0.1


def test_signed_error_is_the_signed_distance_to_the_surface():
    points = np.random.default_rng(0).normal(size=(500, 3))
    expected = np.linalg.norm(points, axis=1) - 1
    np.testing.assert_allclose(signed_error(points, sphere(subdivisions=5), in_unit_ball), expected, atol=2e-3)
    assert signed_error(np.zeros((0, 3)), sphere(), in_unit_ball).shape == (0,)
    with pytest.raises(ValueError, match="faces"):
        signed_error(points, trimesh.Trimesh(), in_unit_ball)


def test_extra_is_red_lacking_is_blue_and_right_is_grey():
    reference, ball = sphere(subdivisions=5), np.hypot(*np.mgrid[-48:48, -48:48]) < 30
    extra, lacking, right = (
        render_error(sphere(radius, 5), reference, in_unit_ball, FRONT, size=SMALL)[ball].astype(int)
        for radius in (1.02, 0.98, 1.0)
    )
    assert (extra[:, 0] > extra[:, 1:].max(axis=1) + 60).all()
    assert (lacking[:, 2] > lacking[:, :2].max(axis=1) + 60).all()
    assert (np.ptp(right, axis=1) < 25).all()
    half = render_error(sphere(1.01, 5), reference, in_unit_ball, FRONT, size=SMALL)[ball].astype(int)
    assert (half[:, 1] > extra[:, 1] + 20).all()


def is_veiled(picture):
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return (blue > green + 10) & (green > red + 10) & (red > 90)


def test_a_missing_part_shows_in_light_blue():
    left = sphere()
    left.update_faces(left.triangles_center[:, 0] < 0)
    picture = render_error(left, sphere(), in_unit_ball, FRONT, size=SMALL)
    assert is_veiled(picture)[30:66, 52:78].all()
    assert not is_veiled(picture)[30:66, 18:44].any()
    assert (picture[:6] == 255).all()


def test_a_part_missing_in_front_of_the_surface_shows_too():
    front = sphere(0.3, 3, (0, 0, 1.5))
    reference = sphere() + front
    whole = render_error(reference, reference, in_unit_ball, FRONT, size=SMALL)
    assert not is_veiled(whole).any()
    assert is_veiled(render_error(sphere(), reference, in_unit_ball, FRONT, size=SMALL))[44:52, 44:52].all()


def test_an_empty_reconstruction_is_missing_everywhere():
    picture = render_error(trimesh.Trimesh(), sphere(), in_unit_ball, FRONT, size=SMALL)
    assert is_veiled(picture)[30:66, 30:66].all()


def test_error_pictures_refuse_a_reference_without_faces_and_a_scale_of_nothing():
    with pytest.raises(ValueError, match="faces"):
        render_error(sphere(), trimesh.Trimesh(), in_unit_ball, FRONT, size=SMALL)
    with pytest.raises(ValueError, match="scale"):
        render_error(sphere(), sphere(), in_unit_ball, FRONT, size=SMALL, scale=0)


@pytest.mark.parametrize("zoom", [0.0, 3.0])
def test_each_cell_of_a_comparison_shows_something(zoom):
    entries = [
        Entry("a name far too long for the width of its column, by any measure", sphere(0.98), "IoU .9\nsecond line"),
        Entry("none", None, "-", "the field is negative everywhere"),
        Entry("Gauß \u03c3 \xd7 é", None, reason=""),
        Entry("empty", trimesh.Trimesh()),
    ]
    panel, gap = 240, 16
    picture = comparison_picture(
        sphere(), entries, in_unit_ball, title="Ball", subtitle="1 s", panel=panel, zoom=zoom, region=(0.1, 0.2)
    )
    height, width = picture.shape[:2]
    assert picture.dtype == np.uint8
    assert width == gap + 5 * (panel + gap)
    tops = [height - (panel + gap) * (i + 1) for i in range(2 if zoom else 1)] + [24 + 40 + 28 + 34]
    for row, top in enumerate(tops):
        for column in range(5):
            left = gap + column * (panel + gap)
            cell = picture[top : top + panel, left : left + panel]
            empty_mesh = column == 4 and row != 0  # only the error row has something to say of it
            assert (cell < 250).any() or empty_mesh, (row, column)
    frame = [picture[:6], picture[-6:], picture[:, :6], picture[:, -6:]]
    assert all((strip == 255).all() for strip in frame), "something is cropped at the edge of the sheet"


def test_comparison_refuses_what_would_not_be_legible():
    with pytest.raises(ValueError, match="panel"):
        comparison_picture(sphere(), [], in_unit_ball, panel=100)
    with pytest.raises(ValueError, match="zoom"):
        comparison_picture(sphere(), [], in_unit_ball, zoom=0.5)


def test_the_closeup_finds_the_detail():
    """A smooth ball with one rough patch at its upper right: the frame's middle lies there."""
    mesh = sphere(subdivisions=5)
    rough = np.linalg.norm(mesh.vertices - np.array([0.5, 0.5, 0.7]), axis=1) < 0.3
    mesh.vertices[rough] *= 1 + 0.05 * np.random.default_rng(0).random((rough.sum(), 1))
    picture = comparison_picture(mesh, [], in_unit_ball, camera=FRONT, panel=240, zoom=4.0).astype(int)
    orange = (picture[..., 0] > picture[..., 2] + 150) & (picture[..., 0] > 200)
    row, column = (where.mean() for where in np.nonzero(orange[: 24 + 34 + 240]))
    across, down = (column - 16 - 120) / 240 * 2.6, (row - 58 - 120) / 240 * 2.6
    assert math.hypot(across - 0.55, down + 0.55) < 0.3


def test_a_saved_picture_reopens_with_the_same_pixels(tmp_path):
    picture = render(knobbly(), size=SMALL)
    save_picture(picture, tmp_path / "new folder" / "ball.png")
    with Image.open(tmp_path / "new folder" / "ball.png") as image:
        assert image.format == "PNG"
        assert (np.asarray(image) == picture).all()
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["ball.png"]
