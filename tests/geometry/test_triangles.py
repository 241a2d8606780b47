"""Triangles and their edges: against formulas, closed solids, and plain counting."""

from collections import Counter

import numpy as np
import pytest
import trimesh
from hypothesis import given
from hypothesis import strategies as st

from ff3d.geometry.triangles import (
    HalfEdges,
    areas,
    closing_triangles,
    components,
    cross_products,
    have_three_corners,
    merge_exactly,
    merge_in_order,
    order_of_numbers,
    signed_volume,
    signed_volumes,
    sums_by_index,
    unit_vectors,
)

face_lists = st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=30).map(
    lambda rows: np.array(rows, dtype=np.int64).reshape(-1, 3)
)


def test_normals_of_a_closed_mesh_add_up_to_zero_and_areas_to_its_surface():
    box = trimesh.creation.box(extents=(1.0, 2.0, 3.0))
    corners = box.vertices[box.faces]
    assert np.allclose(cross_products(corners).sum(axis=0), 0)
    assert areas(corners).sum() == pytest.approx(2 * (2 + 3 + 6))
    assert np.einsum("ij,ij->i", cross_products(corners), corners.mean(axis=1)).min() > 0  # outward


@pytest.mark.parametrize("apex", [(0.0, 0.0, 0.0), (0.1, 5, -2)])
def test_the_volume_of_a_closed_mesh_is_the_same_from_every_apex(apex):
    box = trimesh.creation.box(extents=(1.0, 2.0, 3.0))
    assert signed_volumes(box.vertices, box.faces, np.array(apex)).sum() == pytest.approx(6)


@pytest.mark.parametrize(("scale", "far"), [(1.0, 0.0), (1e-60, 0.0), (1e60, 0.0), (1.0, 1e6)])
def test_the_signed_volume_is_that_of_the_solid_and_turns_with_its_faces(scale, far):
    box = trimesh.creation.box(extents=(1.0, 2.0, 3.0)).subdivide().subdivide()
    box.vertices = box.vertices * scale + far
    assert signed_volume(box) == pytest.approx(6 * scale**3, rel=1e-9)
    box.faces = box.faces[:, ::-1]
    assert signed_volume(box) == pytest.approx(-6 * scale**3, rel=1e-9)


def test_a_mesh_without_faces_has_no_volume():
    assert signed_volume(trimesh.Trimesh()) == 0


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
def test_unit_vectors_have_length_one_whatever_their_size(scale):
    vectors = scale * np.random.default_rng(0).standard_normal((100, 4, 3))
    vectors[3, 2] = 0
    unit = unit_vectors(vectors)
    length = np.linalg.norm(unit, axis=2)
    assert length[3, 2] == 0
    length[3, 2] = 1
    assert np.allclose(length, 1, rtol=1e-14, atol=0)
    assert np.array_equal(np.sign(unit), np.sign(vectors))


def test_sums_by_index_are_those_of_a_loop():
    rng = np.random.default_rng(1)
    index, values = rng.integers(7, size=50), rng.standard_normal((50, 3))
    expected = np.zeros((9, 3))
    for row, value in zip(index, values, strict=True):
        expected[row] += value
    assert np.allclose(sums_by_index(index, values, 9), expected)


@given(face_lists)
def test_rows_are_merged_exactly_when_they_are_equal(faces):
    first, kind = merge_exactly(faces)
    assert np.array_equal(faces[first][kind], faces)
    assert len(first) == len({tuple(row) for row in faces.tolist()})
    assert all(first[kind[row]] == faces.tolist().index(faces[row].tolist()) for row in range(len(faces)))


@given(face_lists, st.sampled_from([np.float32, np.float64]))
def test_rows_merged_in_order_are_numbered_as_they_come(rows, kind_of_number):
    rows = rows.astype(kind_of_number)
    rows[::2] *= -1  # zeros of both signs are equal
    first, kind = merge_in_order(rows)
    assert first.tolist() == sorted({rows.tolist().index(row) for row in rows.tolist()})
    assert [rows.tolist().index(row) for row in rows.tolist()] == first[kind].tolist()


def test_a_row_with_nan_is_equal_to_none():
    first, kind = merge_in_order(np.array([[1.0, 2], [np.nan, 0], [1, 2], [np.nan, 0]]))
    assert (first.tolist(), kind.tolist()) == ([0, 1, 3], [0, 1, 0, 2])


@given(face_lists, st.sampled_from([7, 10**6]))
def test_counting_gives_the_order_of_sorting(rows, below):
    if len(rows):
        assert order_of_numbers(rows.T, below).tolist() == np.lexsort(rows.T).tolist()


@given(face_lists)
def test_half_edges_are_those_of_counting_them_one_by_one(faces):
    edges = HalfEdges.of(faces, 7)
    every = [(a, b, row) for row, (i, j, k) in enumerate(faces.tolist()) for a, b in ((i, j), (j, k), (k, i))]
    counts = Counter((min(a, b), max(a, b)) for a, b, _ in every)
    assert dict(zip(map(tuple, edges.ends.tolist()), edges.count.tolist(), strict=True)) == counts
    assert edges.ends.tolist() == sorted(edges.ends.tolist())
    assert (np.diff(edges.edge) >= 0).all()
    triples = zip(edges.ends[edges.edge].tolist(), edges.direction.tolist(), edges.face.tolist(), strict=True)
    found = [(*(pair if way > 0 else pair[::-1]), face) for pair, way, face in triples]
    assert sorted(found) == sorted(every)
    balance = Counter()
    for a, b, _ in every:
        balance[min(a, b), max(a, b)] += 1 if a < b else -1
    assert edges.balance.tolist() == [balance[tuple(pair)] for pair in edges.ends.tolist()]


@given(face_lists)
def test_neighbours_link_the_faces_of_every_edge(faces):
    edges = HalfEdges.of(faces, 7)
    label = components(*edges.neighbours, len(faces))
    corners = [{(min(a, b), max(a, b)) for a, b in ((i, j), (j, k), (k, i))} for i, j, k in faces.tolist()]
    for one in range(len(faces)):
        for other in range(one):
            if corners[one] & corners[other]:
                assert label[one] == label[other]
    assert len(edges.neighbours[0]) == 3 * len(faces) - len(edges.ends)


def test_a_closed_surface_is_balanced_and_an_open_one_is_not():
    sphere = trimesh.creation.icosphere(subdivisions=2)
    edges = HalfEdges.of(np.asarray(sphere.faces), len(sphere.vertices))
    assert not edges.balance.any()
    assert (edges.count == 2).all()
    assert len(sphere.vertices) - len(edges.ends) + len(sphere.faces) == 2  # Euler
    opened = HalfEdges.of(np.asarray(sphere.faces[1:]), len(sphere.vertices))
    assert np.count_nonzero(opened.balance) == np.count_nonzero(opened.count == 1) == 3


@given(face_lists, st.integers(0, 99))
def test_closing_triangles_balance_every_edge_of_any_faces(faces, seed):
    vertices = np.random.default_rng(seed).random((7, 3))
    faces = faces[have_three_corners(faces)]
    corners = closing_triangles(vertices, faces)
    caps = (corners[:, :, None] == vertices).all(axis=3).argmax(axis=2)  # which vertex each corner is
    np.testing.assert_array_equal(vertices[caps], corners)
    edges = HalfEdges.of(np.concatenate([faces, caps]), 7)
    assert not edges.balance[edges.ends[:, 0] != edges.ends[:, 1]].any()


@pytest.mark.parametrize("holes", [0, 1, 2])
def test_closing_triangles_fill_flat_holes_and_restore_the_volume(holes):
    cylinder = trimesh.creation.cylinder(radius=1.0, height=2.0, sections=24)
    top = np.abs(cylinder.face_normals[:, 2]) > 0.5
    missing = top & (cylinder.triangles_center[:, 2] > (0.0, 0.0, -2.0)[holes]) & (holes > 0)
    rest = np.asarray(cylinder.faces)[~missing]
    closing = closing_triangles(np.asarray(cylinder.vertices), rest)
    assert len(closing) == holes * (24 - 2)  # a polygon of n corners is n - 2 triangles
    assert areas(closing).sum() == pytest.approx(areas(cylinder.triangles[missing]).sum())
    corners = np.concatenate([cylinder.vertices[rest], closing]).reshape(-1, 3)
    volumes = signed_volumes(corners, np.arange(len(corners)).reshape(-1, 3), 5.0)
    assert volumes.sum() == pytest.approx(cylinder.volume)


@given(face_lists)
def test_faces_with_a_corner_twice_are_found(faces):
    assert have_three_corners(faces).tolist() == [len(set(row)) == 3 for row in faces.tolist()]
