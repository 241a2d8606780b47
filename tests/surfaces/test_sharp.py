import numpy as np
import pytest
import trimesh

from ff3d.closing.config import ClosingConfig
from ff3d.closing.watertight import close
from ff3d.geometry.distances import NearestFaces
from ff3d.shapes.broken import broken_mesh
from ff3d.shapes.sample_meshes import sample_mesh
from ff3d.surfaces.cleaning import _fault


def closed(mesh, resolution, **options):
    """Plain and sharp, each closed, edge-manifold, outward and without flat faces."""
    pair = [close(mesh, ClosingConfig(resolution=resolution, sharp=sharp, **options)) for sharp in (False, True)]
    for it in pair:
        assert _fault(np.asarray(it.mesh.vertices), np.asarray(it.mesh.faces)) == ""
    return pair


def on_edges(mesh, count=4000):
    """Points on the edges of a mesh between faces that differ by over 30 degrees, and those edges' ends."""
    edges = mesh.face_adjacency_edges[mesh.face_adjacency_angles > np.radians(30)]
    a, b = np.moveaxis(mesh.vertices[edges], 1, 0)
    rng = np.random.default_rng(0)
    length = np.linalg.norm(b - a, axis=1)
    chosen = rng.choice(len(edges), count, p=length / length.sum())
    return a[chosen] + rng.random((count, 1)) * (b - a)[chosen], mesh.vertices[np.unique(edges)]


def off(result, points):
    """How far points are from a result, in its cells."""
    return NearestFaces(result.mesh)(points)[0] / result.cell


def back(result):
    """How far the faces of a result are from what it is to follow, in cells, by points spread over them."""
    points, _ = trimesh.sample.sample_surface(result.mesh, 20_000, seed=0)
    return NearestFaces(result.surface)(points)[0] / result.cell


def turned(mesh, angle):
    mesh.apply_transform(trimesh.transformations.rotation_matrix(angle, [1, 2, 3]))
    return mesh


def test_the_brackets_edges_and_corners_lie_within_a_tenth_of_a_cell():
    mesh = sample_mesh("bracket")
    edges, corners = on_edges(mesh)
    plain, sharp = closed(mesh, 64)
    assert off(plain, edges).max() > 0.5
    assert off(sharp, edges).max() < 0.1
    assert off(sharp, corners).max() < 0.1
    assert back(sharp).max() < 0.1 < back(plain).max()
    assert back(sharp).mean() < back(plain).mean() / 3


@pytest.mark.parametrize("angle", [0.0, 0.3, 0.7, 1.1])
def test_edges_at_any_angle_to_the_grid_are_sharp_nearly_everywhere_and_no_worse_elsewhere(angle):
    mesh = turned(trimesh.creation.box((1, 0.7, 0.4)), angle)
    edges, corners = on_edges(mesh)
    plain, sharp = closed(mesh, 24)
    assert (off(plain, edges) < 0.1).mean() < 0.2
    assert (off(sharp, edges) < 0.1).mean() > 0.98
    assert off(sharp, corners).max() < 0.1
    assert back(sharp).max() < back(plain).max() + 0.02
    assert back(sharp).mean() < back(plain).mean() / 10
    assert abs(sharp.mesh.volume - mesh.volume) < abs(plain.mesh.volume - mesh.volume) / 20


def test_smooth_parts_and_sharp_ones_of_one_shape_both_come_out_right():
    mesh = turned(trimesh.creation.cylinder(radius=0.5, height=0.6, sections=96), 0.4)
    edges, _ = on_edges(mesh)
    plain, sharp = closed(mesh, 40)
    assert (off(sharp, edges) < 0.1).mean() > 0.98
    assert back(sharp).mean() < back(plain).mean() / 2


def test_a_ball_stays_number_for_number_as_it_was():
    plain, sharp = closed(trimesh.creation.icosphere(subdivisions=4), 32)
    assert np.array_equal(plain.mesh.vertices, sharp.mesh.vertices)
    assert np.array_equal(plain.mesh.faces, sharp.mesh.faces)


def test_the_crease_where_two_parts_overlap_is_sharp_though_no_edge_of_the_input_is_there():
    boxes = trimesh.creation.box((1, 1, 1)), trimesh.creation.box((0.5, 0.5, 1))
    boxes[1].apply_translation([0, 0, 0.5])
    plain, sharp = closed(trimesh.util.concatenate(boxes), 45)
    line = np.linspace(-0.24, 0.24, 500)
    crease = np.stack([line, np.full(500, 0.25), np.full(500, 0.5)], axis=1)
    assert off(sharp, crease).max() < 0.02
    assert off(plain, crease).max() > 0.1


def test_loose_and_flipped_triangles_give_the_edges_that_the_welded_mesh_gives():
    mesh = trimesh.creation.box((1, 0.7, 0.4)).subdivide()
    corners = np.where(
        (np.random.default_rng(0).random(len(mesh.faces)) < 0.3)[:, None, None],
        mesh.triangles[:, ::-1],
        mesh.triangles,
    )
    loose = trimesh.Trimesh(corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3), process=False)
    _, sharp = closed(loose, 24)
    edges, _ = on_edges(mesh)
    assert off(sharp, edges).max() < 0.1


@pytest.mark.parametrize("seed", [1, 4, 17])
def test_broken_meshes_are_closed_and_no_worse_than_plain(seed):
    plain, sharp = closed(broken_mesh(seed).mesh, 40)
    assert back(sharp).max() <= back(plain).max() + 0.05
    assert back(sharp).mean() <= back(plain).mean() * 1.01


def test_solid_parts_are_sharp_beside_slabs_and_membranes():
    solid = trimesh.creation.box((1, 1, 1)).subdivide()
    solid = trimesh.Trimesh(solid.vertices, solid.faces[solid.triangles_center[:, 2] < 0.45], process=False)
    sheet = trimesh.Trimesh(np.array([[2.0, 0, 0], [3, 0, 0], [2, 1, 0]]), [[0, 1, 2]], process=False)
    _, sharp = closed(trimesh.util.concatenate([solid, sheet]), 60, sheets="thicken", thickness=0.15)
    bottom, _ = on_edges(solid)
    assert sharp.mesh.body_count == 2
    assert np.quantile(off(sharp, bottom[bottom[:, 2] < 0.3]), 0.99) < 0.1


@pytest.mark.parametrize("options", [{"offset": 0.1}, {"offset": "1%"}])
def test_sharp_edges_are_not_offset(options):
    with pytest.raises(ValueError, match="sharp edges are not offset"):
        ClosingConfig(sharp=True, **options)
