import logging

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from ff3d.surfaces.cleaning import CleaningError, drop_floaters, fill_cavities, simplify, smooth_normals
from ff3d.surfaces.extraction import extract_mesh

CUBE = np.array([[-1.0, -1, -1], [1, 1, 1]])


def ball(radius=0.8, center=(0.0, 0, 0)):
    return lambda points: radius - np.linalg.norm(points - np.asarray(center), axis=1)


def check_closed(shape: trimesh.Trimesh) -> None:
    """Each directed edge once, and its opposite once; every face has area; outward."""
    directed = np.concatenate([shape.faces[:, [0, 1]], shape.faces[:, [1, 2]], shape.faces[:, [2, 0]]])
    keys, back = directed @ [len(shape.vertices), 1], directed[:, ::-1] @ [len(shape.vertices), 1]
    assert len(np.unique(keys)) == len(keys)
    assert np.array_equal(np.sort(keys), np.sort(back))
    assert shape.area_faces.min() > 0
    assert shape.volume > 0
    assert np.array_equal(np.unique(shape.faces), np.arange(len(shape.vertices)))


def shells(*radii_and_centers) -> trimesh.Trimesh:
    """Balls side by side; of a negative radius, cavities."""
    parts = []
    for radius, center in radii_and_centers:
        part = trimesh.creation.icosphere(2, abs(radius))
        part.apply_translation(center)
        if radius < 0:
            part.invert()
        parts.append(part)
    return trimesh.util.concatenate(parts)


# --- cavities


def test_cavities_are_filled_with_what_floats_in_them_and_the_rest_stays_as_it_is(caplog):
    caplog.set_level(logging.INFO)
    solid = [(1.0, (0, 0, 0)), (0.5, (3, 0, 0)), (0.3, (0, 3, 0))]
    hollow = [(-0.8, (0, 0, 0)), (0.6, (0, 0, 0)), (-0.4, (0, 0, 0)), (0.2, (0, 0, 0)), (-0.2, (3, 0, 0))]
    shape = shells(*solid, *hollow)
    filled = fill_cavities(shape)
    check_closed(filled)
    assert filled.body_count == 3
    np.testing.assert_allclose(filled.volume, shells(*solid).volume)
    assert "filled 3 cavities" in caplog.text
    assert fill_cavities(filled) is filled


def test_a_part_beside_a_cavity_and_within_its_box_stays():
    # the cavity is a ring about the part: its box is around it, its surface is not
    ring, part = trimesh.creation.torus(1.0, 0.2), trimesh.creation.icosphere(2, 0.3)
    around = trimesh.creation.torus(1.0, 0.4)
    ring.invert()
    shape = trimesh.util.concatenate([around, ring, part])
    filled = fill_cavities(shape)
    assert filled.body_count == 2
    np.testing.assert_allclose(filled.volume, around.volume + part.volume)


# --- floaters


def test_small_parts_are_dropped_and_said(caplog):
    shape = shells((1, (0, 0, 0)), (0.1, (2, 0, 0)), (0.05, (0, 2, 0)), (0.5, (0, 0, 3)))
    with caplog.at_level(logging.INFO, "ff3d"):
        kept = drop_floaters(shape, 0.01)
    check_closed(kept)
    assert kept.body_count == 2
    assert kept.volume == pytest.approx(shells((1, (0, 0, 0)), (0.5, (0, 0, 3))).volume)
    assert "dropped 2 floaters of 640 faces, 0.1% of the volume" in caplog.text


def test_cavities_are_held_against_the_share_like_parts():
    shape = shells((1, (0, 0, 0)), (-0.5, (0.2, 0, 0)), (-0.05, (-0.7, 0, 0)))
    kept = drop_floaters(shape, 0.01)
    check_closed(kept)
    assert kept.body_count == 2
    assert kept.volume == pytest.approx(shells((1, (0, 0, 0))).volume * (1 - 0.125))


def test_a_floater_goes_with_its_cavity():
    shape = shells((1, (0, 0, 0)), (0.1, (2, 0, 0)), (-0.09, (2, 0, 0)))
    assert drop_floaters(shape, 0.01).body_count == 1


def test_nothing_dropped_is_the_mesh_itself():
    shape = shells((1, (0, 0, 0)), (0.5, (2, 0, 0)))
    assert drop_floaters(shape, 0.1) is shape
    assert drop_floaters(shape, 0) is shape


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=6), st.floats(0, 0.999))
@settings(max_examples=30)
def test_what_is_kept_is_every_part_above_the_share_and_never_nothing(radii, share):
    shape = shells(*((radius, (3 * place, 0, 0)) for place, radius in enumerate(radii)))
    kept = drop_floaters(shape, share)
    volumes = np.array(radii) ** 3
    sure = int((volumes > share * volumes.sum() * 1.001).sum())
    assert max(1, sure) <= kept.body_count <= max(1, int((volumes > share * volumes.sum() * 0.999).sum()))
    assert kept.extents.max() >= 1.9 * max(radii)
    check_closed(kept)


@pytest.mark.parametrize("share", [-0.1, 1, 2, np.nan])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="share must be in"):
        drop_floaters(shells((1, (0, 0, 0))), share)


def test_a_mesh_without_faces_is_refused():
    with pytest.raises(ValueError, match="no faces"):
        drop_floaters(trimesh.Trimesh(), 0.1)


# --- fewer faces


def noise(seed, waves=4.0):
    rng = np.random.default_rng(seed)
    directions, phases, sizes = rng.normal(0, waves, (8, 3)), rng.uniform(0, 2 * np.pi, 8), rng.normal(0, 1, 8)
    return lambda points: np.sin(points @ directions.T + phases) @ sizes + 0.5


@pytest.mark.parametrize("far", [0, 1e5])
def test_a_sphere_of_fewer_faces_is_still_the_sphere(far):
    pytest.importorskip("fast_simplification")
    shape = extract_mesh(ball(center=(far, 0, 0)), CUBE + [far, 0, 0], resolution=40)
    small = simplify(shape, faces=2000)
    check_closed(small)
    assert 1500 < len(small.faces) <= 2000
    assert small.euler_number == 2
    assert small.volume == pytest.approx(shape.volume, rel=0.01)
    assert simplify(shape, faces=10**6) is shape


@pytest.mark.parametrize("error", [0.003, 0.03])
def test_the_surface_moves_by_less_than_the_error(error):
    pytest.importorskip("manifold3d")
    shape = extract_mesh(ball(), CUBE, resolution=40)
    small = simplify(shape, error=error)
    check_closed(small)
    assert len(small.faces) < 0.7 * len(shape.faces)
    distance = np.abs(np.linalg.norm(small.triangles_center, axis=1) - 0.8).max()
    assert distance < error + 2**2 / 40**2 / 6.4


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.integers(6, 20), st.floats(0.05, 0.9))
@settings(max_examples=25)
def test_whatever_is_simplified_stays_closed(seed, resolution, share):
    pytest.importorskip("fast_simplification")
    pytest.importorskip("manifold3d")
    shape = extract_mesh(lambda points: np.maximum(noise(seed)(points), ball(0.5)(points)), CUBE, resolution=resolution)
    try:
        small = simplify(shape, faces=max(4, int(share * len(shape.faces))))
    except CleaningError:  # it may be that none exists: many parts cannot have few faces
        assert share < 0.5 or shape.body_count > 1 or shape.euler_number < 2
    else:
        check_closed(small)
        assert len(small.faces) < len(shape.faces)
    check_closed(simplify(shape, error=0.01))


def test_where_the_fast_way_breaks_the_surface_the_other_is_taken(monkeypatch, caplog):
    pytest.importorskip("manifold3d")
    fast = pytest.importorskip("fast_simplification")
    shape = extract_mesh(ball(), CUBE, resolution=16)
    monkeypatch.setattr(fast, "simplify", lambda vertices, faces, target_count, agg: (vertices, faces[1:]))
    with caplog.at_level(logging.INFO, "ff3d"):
        small = simplify(shape, faces=500)
    check_closed(small)
    assert 400 < len(small.faces) <= 500
    assert "manifold3d simplifies instead" in caplog.text


def test_what_one_aggression_tears_another_leaves_closed(monkeypatch, caplog):
    fast = pytest.importorskip("fast_simplification")
    shape, whole = extract_mesh(ball(), CUBE, resolution=16), fast.simplify

    def torn(vertices, faces, target_count, agg):
        found = whole(vertices, faces, target_count=target_count, agg=agg)
        return (found[0], found[1][1:]) if agg == 7 else found

    monkeypatch.setattr(fast, "simplify", torn)
    with caplog.at_level(logging.INFO, "ff3d"):
        small = simplify(shape, faces=500)
    check_closed(small)
    assert 400 < len(small.faces) <= 500
    assert "manifold3d" not in caplog.text


def test_what_is_not_closed_is_refused():
    shape = shells((1, (0, 0, 0)))
    with pytest.raises(CleaningError, match="open"):
        simplify(trimesh.Trimesh(shape.vertices, shape.faces[1:], process=False), faces=100)
    shape.invert()
    with pytest.raises(CleaningError, match="not positive"):
        simplify(shape, faces=100)


@pytest.mark.parametrize("options", [{}, {"faces": 9, "error": 1}, {"faces": 3}, {"error": 0}, {"error": np.nan}])
def test_unusable_options_are_refused(options):
    with pytest.raises(ValueError, match=r"either|at least 4|above 0"):
        simplify(shells((1, (0, 0, 0))), **options)


# --- normals


def test_the_normals_of_a_sphere_are_its_radii():
    shape = extract_mesh(ball(), CUBE, resolution=20)
    for size in (1e-300, 1.0, 1e300):
        normals = smooth_normals(shape, lambda points, size=size: size * ball()(points), 0.05)
        radii = shape.vertices / np.linalg.norm(shape.vertices, axis=1)[:, None]
        np.testing.assert_allclose(normals, radii, atol=0.05**2 / (6 * 0.75**2))


@pytest.mark.parametrize(
    "logits",
    [
        lambda points: np.zeros(len(points)),
        lambda points: np.full(len(points), np.nan),
        lambda points: np.where(points[:, 0] > 0, np.inf, -np.inf),
    ],
)
def test_where_there_is_no_gradient_the_faces_decide(logits):
    shape = extract_mesh(ball(), CUBE, resolution=20)
    normals = smooth_normals(shape, logits, 1e-3)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-12)
    away = np.abs(shape.vertices[:, 0]) > 0.01
    radii = shape.vertices / np.linalg.norm(shape.vertices, axis=1)[:, None]
    assert (normals * radii).sum(axis=1)[away].min() > 0.9


@pytest.mark.parametrize("step", [0, -1, np.inf, np.nan])
def test_a_step_that_is_no_length_is_refused(step):
    with pytest.raises(ValueError, match="step must be"):
        smooth_normals(shells((1, (0, 0, 0))), ball(), step)


def test_logits_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="logits must return"):
        smooth_normals(shells((1, (0, 0, 0))), lambda points: points, 0.1)
