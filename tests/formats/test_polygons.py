"""Polygons of any shape are covered once, with every corner kept; strips turn every other triangle."""

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ff3d.formats.polygons import clip_ears, strip_triangles, triangulate_ring
from ff3d.formats.text import MeshError
from ff3d.shapes.mesh import load_mesh


def rim(triangles) -> Counter:
    """The directed edges that bound the triangles, each with how often."""
    edges: Counter = Counter()
    for a, b, c in np.asarray(triangles).tolist():
        for edge in ((a, b), (b, c), (c, a)):
            back = edge[::-1]
            if edges[back]:
                edges[back] -= 1
            else:
                edges[edge] += 1
    return +edges


def areas(ring, triangles) -> np.ndarray:
    a, b, c = np.asarray(ring, float)[np.asarray(triangles)].swapaxes(0, 1)
    return np.cross(b - a, c - a) @ np.array([0, 0, 0.5])


def flat(corners) -> np.ndarray:
    corners = np.asarray(corners, dtype=float)
    return np.column_stack([corners, np.zeros(len(corners))])


def area(ring) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def check_ring(ring: np.ndarray) -> None:
    """n - 2 triangles that cover the polygon once and are bounded by its edges, each once."""
    triangles = triangulate_ring(ring)
    n = len(ring)
    assert triangles.shape == (n - 2, 3)
    assert rim(triangles) == Counter((i, (i + 1) % n) for i in range(n))
    parts = areas(ring, triangles)
    assert parts.sum() == pytest.approx(area(ring), rel=1e-9, abs=1e-15)
    assert np.abs(parts).sum() == pytest.approx(abs(area(ring)), rel=1e-9, abs=1e-15)


def spiral(corners: int) -> np.ndarray:
    turns = np.linspace(0, 20 * np.pi, corners // 2)
    inner, outer = ([(r + turns) * np.cos(turns), (r + turns) * np.sin(turns)] for r in (1, 2))
    return flat(np.concatenate([np.transpose(inner), np.transpose(outer)[::-1]]))


def comb(teeth: int) -> np.ndarray:
    """Teeth with a corner in the midst of each long side: many corners on straight lines."""
    back = [(0, 0), (teeth, 0)]
    for i in range(teeth - 1, -1, -1):
        back += [(i + 1, 2), (i + 0.5, 2), (i + 0.5, 1), (i, 1)]
    return flat(back)


def diamonds(count: int) -> np.ndarray:
    """A chain of diamonds, each touching the next in a corner that the ring passes twice."""
    low = [corner for i in range(count) for corner in ((i, 0), (i + 0.5, -0.5))]
    high = [corner for i in range(count, 0, -1) for corner in ((i, 0), (i - 0.5, 0.5))]
    return flat(low + high)


SQUARE = [(0, 0), (4, 0), (4, 4), (0, 4)]
RINGS = {
    "corners on a straight line": [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2), (0, 1)],
    "concave, corners on its lines": [(0, 0), (1, 0), (3, 0), (3, 1), (3, 2), (2, 2), (2, 1), (1, 1), (1, 2), (0, 2)],
    "a bridge to a hole": [*SQUARE, (0, 0), (1, 1), (1, 3), (3, 3), (3, 1), (1, 1)],
    "bridges to two holes": [
        *[(0, 0), (0.5, 0.5), (0.5, 1), (1, 1), (1, 0.5), (0.5, 0.5), (0, 0), (4, 0)],
        *[(4, 4), (3, 3), (3, 2), (2, 2), (2, 3), (3, 3), (4, 4), (0, 4)],
    ],
    "touching itself in a corner": [(0, 0), (2, 0), (1.2, 1), (2, 2), (0, 2), (1.2, 1)],
    "a corner on an edge": [(0, 0), (4, 0), (4, 4), (2, 0), (0, 4)],
    "out and back on itself": [(0, 0), (1, 0), (2, 0), (1, 0), (1, 1), (0, 1)],
    "a corner twice in a row": [(0, 0), (0, 0), (1, 0), (1, 1), (0.5, 0.2), (0, 1)],
}


@pytest.mark.parametrize("name", RINGS)
@pytest.mark.parametrize("turn", [1, -1])
def test_a_polygon_is_covered_once_from_every_corner(name, turn):
    ring = flat(RINGS[name])[::turn]
    for first in range(len(ring)):
        check_ring(np.roll(ring, first, axis=0))


@pytest.mark.parametrize(
    "ring", [spiral(1500), spiral(10_000), comb(2500), diamonds(1000)], ids=["1,500", "10,000", "comb", "diamonds"]
)
def test_large_polygons_are_covered_once_in_a_second(ring):
    before = time.process_time()
    triangulate_ring(ring)
    assert time.process_time() - before < 1
    check_ring(ring)


@given(st.integers(0, 10_000))
def test_random_rings_keep_their_rim_even_where_they_cross_themselves(seed):
    rng = np.random.default_rng(seed)
    ring = flat(np.round(rng.uniform(-1, 1, (rng.integers(4, 30), 2)), rng.integers(0, 3)))
    triangles = triangulate_ring(ring)
    assert rim(triangles) == Counter((i, (i + 1) % len(ring)) for i in range(len(ring)))
    assert areas(ring, triangles).sum() == pytest.approx(area(ring), abs=1e-12)


@given(st.integers(0, 10_000))
def test_star_shaped_rings_are_covered_as_by_clipping_ears(seed):
    rng = np.random.default_rng(seed)
    angles = 2 * np.pi * (np.arange(n := int(rng.integers(5, 25))) + rng.uniform(0, 0.9, n)) / n
    ring = flat(np.stack([np.cos(angles), np.sin(angles)], axis=1) * rng.uniform(0.2, 1, (n, 1)))
    check_ring(ring)
    slow = areas(ring, clip_ears(ring))
    assert slow.sum() == pytest.approx(areas(ring, triangulate_ring(ring)).sum(), rel=1e-9)
    assert (slow > 0).all()


@pytest.mark.parametrize("size", [2.0**-500, 2.0**-30, 2.0**30, 2.0**300])
def test_the_size_of_a_polygon_does_not_matter(size):
    ring = flat(RINGS["concave, corners on its lines"])
    np.testing.assert_array_equal(triangulate_ring(size * ring), triangulate_ring(ring))


def test_a_polygon_with_a_hole_beside_one_without_makes_a_closed_solid(tmp_path):
    """A square tube: top and bottom are polygons with a bridge to their hole, whose edge counts on both sides."""
    outer, inner = [(0, 0), (4, 0), (4, 4), (0, 4)], [(1, 1), (1, 3), (3, 3), (3, 1)]
    corners = [(x, y, z) for z in (0, 1) for x, y in outer + inner]
    top = [8, 9, 10, 11, 8, 12, 13, 14, 15, 12]
    faces = [top, [i - 8 for i in top[::-1]]]
    for ring in ([0, 1, 2, 3], [4, 5, 6, 7]):
        faces += [[a, b, b + 8, a + 8] for a, b in zip(ring, [*ring[1:], ring[0]], strict=True)]
    text = "".join(f"v {x} {y} {z}\n" for x, y, z in corners)
    text += "".join("f " + " ".join(str(i + 1) for i in face) + "\n" for face in faces)
    (tmp_path / "tube.obj").write_text(text)
    mesh = load_mesh(tmp_path / "tube.obj")
    assert mesh.volume == pytest.approx(12)
    assert mesh.area == pytest.approx(2 * 12 + 16 + 8)
    assert not rim(mesh.faces)


DENTS = [[(0, 0), (4, 0), (1, 1), (0, 4)], [(0, 4), (0, 0), (4, 0), (1, 1)], [(0, 0), (1, 1), (1, 0), (0, 1)]]


@pytest.mark.parametrize("shape", DENTS)
def test_concave_quads_are_split_at_their_dent(tmp_path, shape):
    text = "".join(f"v {x} {y} 0\n" for x, y in shape) + "f 1 2 3 4\n"
    (tmp_path / "dent.obj").write_text(text)
    mesh = load_mesh(tmp_path / "dent.obj")
    assert rim(mesh.faces) == Counter([(0, 1), (1, 2), (2, 3), (3, 0)])
    if shape[1] != (1, 1):  # the last one crosses itself
        assert mesh.area == pytest.approx(4)


def test_a_strip_turns_every_other_triangle_and_starts_again():
    strip = np.array([0, 1, 2, 3, 9, 4, 5, 6, 6, 7, 8, 9, 9, 1, 2])
    expected = [[0, 1, 2], [2, 1, 3], [4, 5, 6], [7, 6, 8]]
    assert strip_triangles(strip, 9).tolist() == expected
    assert strip_triangles(np.array([0, 1], dtype=np.int64), 9).tolist() == []


def test_a_face_past_the_vertices_is_refused_before_it_is_triangulated(tmp_path):
    (tmp_path / "past.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3 4 5\n")
    with pytest.raises(MeshError, match="2 face corners point past the vertices"):
        load_mesh(tmp_path / "past.obj")
