from collections import Counter
from dataclasses import replace
from functools import cache

import igl
import numpy as np
import pytest
import trimesh

from ff3d.labels.oracles import OpenSurfaceError, make_oracle
from ff3d.shapes import broken_bodies, broken_solids, faults
from ff3d.shapes.broken import (
    CUT,
    DEGENERATE,
    FLIPPED,
    GROUPS,
    NONMANIFOLD,
    OPEN,
    PARTS,
    SHARES,
    STRAY,
    THIN,
    TOUCH,
    UNWELDED,
    WOUND,
    broken_mesh,
)
from ff3d.shapes.broken_solids import Shape
from ff3d.shapes.mesh import inspect_mesh

SEEDS = 200


@cache
def case(seed, kind="mixed"):
    return broken_mesh(seed, kind)


def report(shape):
    return inspect_mesh(trimesh.Trimesh(shape.vertices, shape.faces, process=False))


def agreement(shape, rng, count=4000):
    """The share of uniform points, a bit away from the surface, where solid and winding number agree."""
    low, high = shape.vertices.min(axis=0), shape.vertices.max(axis=0)
    points = low - 0.02 + (high - low + 0.04) * rng.random((count, 3))
    faces = np.ascontiguousarray(shape.faces)
    squared = igl.point_mesh_squared_distance(points, shape.vertices, faces)[0]
    points = points[np.sqrt(squared) > 1e-6 + 2 * shape.error]
    number = igl.winding_number(np.ascontiguousarray(shape.vertices), faces, points)
    return (shape.contains(points) == (number > 0.5)).mean()


def crosses_itself(shape):
    """Whether an edge goes through the inside of a face that it does not touch."""
    edges = np.unique(np.sort(shape.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    a, b, c = np.moveaxis(shape.vertices[shape.faces], 1, 0)
    for start in range(0, len(edges), 200):
        some = edges[start : start + 200]
        origin = shape.vertices[some[:, 0]][:, None]
        ray = shape.vertices[some[:, 1]][:, None] - origin
        one, other = b - a, c - a
        cross = np.cross(ray, other)
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = 1 / (cross * one).sum(axis=2)
            u = ((origin - a) * cross).sum(axis=2) * scale
            turned = np.cross(origin - a, one)
            v, t = (ray * turned).sum(axis=2) * scale, (other * turned).sum(axis=2) * scale
            hit = (np.minimum(np.minimum(u, v), t) > 1e-6) & (u + v < 1 - 1e-6) & (t < 1 - 1e-6)
        hit &= ~(some[:, None, :, None] == shape.faces[None, :, None, :]).any(axis=(2, 3))
        if hit.any():
            return True
    return False


def grouped(broken):
    return {it.split(":")[0] for it in broken.faults}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes():
    for seed in (3, 17, 40, 61):
        one, again = broken_mesh(seed), broken_mesh(seed)
        assert one.faults == again.faults
        assert one.surface_error == again.surface_error
        assert one.mesh.vertices.tobytes() == again.mesh.vertices.tobytes()
        assert one.mesh.faces.tobytes() == again.mesh.faces.tobytes()


def test_the_same_seed_of_the_second_kind_gives_the_same_bytes_and_others_than_the_first():
    for seed in (0, 6, 22, 54):
        one, again = broken_mesh(seed, "touching"), broken_mesh(seed, "touching")
        assert (one.faults, one.strays, one.surface_error) == (again.faults, again.strays, again.surface_error)
        assert one.mesh.vertices.tobytes() == again.mesh.vertices.tobytes()
        assert one.mesh.faces.tobytes() == again.mesh.faces.tobytes()
        assert not np.array_equal(one.mesh.bounds, broken_mesh(seed).mesh.bounds)
    with pytest.raises(ValueError, match="unknown kind 'both' of broken meshes; known: mixed, touching"):
        broken_mesh(0, "both")


def test_the_second_kind_has_bodies_that_touch_thin_ones_strays_and_corners_apart_in_every_way():
    cases = [case(seed, "touching") for seed in range(90)]
    assert all(it.enclosing and np.isfinite(it.mesh.vertices).all() for it in cases)
    found = Counter(group for it in cases for group in grouped(it))
    assert found[WOUND] == len(cases)
    for group, least in ((TOUCH, 40), (THIN, 8), (STRAY, 10), (UNWELDED, 12)):
        assert found[group] >= least, group
    named = " ".join(fault for it in cases for fault in it.faults)
    for kind in ("walls single", "walls double", "caps alike", "caps different", "by edges", "hollow", "a shell of"):
        assert kind in named, kind
    for kind in ("whole file", "bodies", "random faces", "facet", "needle", "point", "ground"):
        assert f": {kind}" in named, kind


def test_strays_are_the_last_faces_and_what_is_measured_has_none():
    strayed = [it for it in (case(seed, "touching") for seed in range(90)) if it.strays]
    for it in strayed:
        rest = it.sound_mesh
        assert len(rest.faces) == len(it.mesh.faces) - it.strays
        corners = it.mesh.vertices[it.mesh.faces[-it.strays :]].mean(axis=(0, 1))
        assert not it.contains(corners[None]).any()
        assert np.array_equal(rest.triangles, it.mesh.triangles[: -it.strays])
    assert len({it.faults[-1].split(":")[0] for it in strayed}) > 1
    assert case(4, "touching").sound_mesh is case(4, "touching").mesh


@pytest.mark.slow
def test_every_case_has_a_fault_and_the_groups_come_in_their_shares():
    cases = [case(seed) for seed in range(SEEDS)]
    assert all(grouped(it) & set(GROUPS) for it in cases)
    count = Counter(group for it in cases for group in grouped(it))
    for group, share in SHARES.items():
        assert abs(count[group] / SEEDS - share) < 0.085, group


@pytest.mark.slow
def test_what_inspect_mesh_finds_is_what_the_faults_say():
    for seed in range(SEEDS):
        broken, found = case(seed), inspect_mesh(case(seed).mesh)
        groups, kinds = grouped(broken), ";".join(broken.faults)
        assert np.isfinite(broken.mesh.vertices).all(), seed
        if not groups & {OPEN, NONMANIFOLD}:
            assert found.closed, seed
        if OPEN in groups and NONMANIFOLD not in groups:
            assert found.boundary_edges, seed
        if NONMANIFOLD in groups and OPEN not in groups and "touching corner" not in kinds:
            assert found.nonmanifold_edges, seed
        if DEGENERATE in groups and "needles" not in kinds:
            assert found.degenerate_faces, seed
        if PARTS in groups and CUT not in groups:
            assert found.parts > 1, seed
        if ": patches" in kinds and not groups & {NONMANIFOLD, OPEN}:
            assert found.flipped_edges, seed
        if ": inside out" in kinds and OPEN not in groups and "both sides" not in kinds:
            assert found.volume < 0, seed


def test_sheets_have_no_inside():
    sheets = [it for it in map(case, range(SEEDS)) if not it.enclosing]
    assert sheets
    for it in sheets:
        low, high = it.mesh.bounds
        points = low + (high - low) * np.random.default_rng(0).random((100, 3))
        assert not it.contains(points).any()
        assert OPEN in grouped(it)


@pytest.mark.slow
@pytest.mark.parametrize(
    "maker", [broken_solids.lathe_shape, broken_solids.hull_shape, broken_solids.box_shape, broken_solids.bracket_shape]
)
def test_plain_shapes_are_closed_and_agree_with_their_solid(maker):
    rng = np.random.default_rng(5)
    for _ in range(8):
        shape = maker(rng, 600.0)
        found = report(shape)
        assert found.closed, shape.name
        assert found.volume > 0
        assert not found.flipped_edges
        assert agreement(shape, rng) >= 0.999, shape.name


@pytest.mark.slow
@pytest.mark.parametrize(
    "maker",
    [
        broken_bodies.loop_ring,
        broken_bodies.figure_eight,
        broken_bodies.bridged,
        broken_bodies.overlapping,
        broken_bodies.copied,
    ],
)
def test_surfaces_that_cut_themselves_do_and_their_solid_is_the_union(maker):
    rng = np.random.default_rng(2)
    for _ in range(3):
        shape, kind = maker(rng, 1000.0)
        assert crosses_itself(shape), kind
        assert agreement(shape, rng) >= 0.999, kind


@pytest.mark.slow
@pytest.mark.parametrize(
    "maker", [broken_bodies.disjoint, broken_bodies.nested, broken_bodies.cavity, broken_bodies.shells]
)
def test_several_parts_agree_with_their_solid(maker):
    rng = np.random.default_rng(3)
    for _ in range(3):
        shape, kind = maker(rng, 1000.0)
        assert report(shape).parts > 1
        assert agreement(shape, rng) >= 0.999, kind


def test_blocks_and_inner_walls_are_not_manifold_and_leave_the_solid_alone():
    rng = np.random.default_rng(4)
    for _ in range(12):
        shape, kind = broken_bodies.blocks(rng, 200.0)
        assert report(shape).nonmanifold_edges or kind == "touching corner"
    walled = faults.walled(broken_solids.hull_shape(rng, 800.0), rng)
    assert walled
    assert report(walled[0]).nonmanifold_edges
    faces = walled[0].faces
    wall = walled[0].vertices[faces[(faces == len(walled[0].vertices) - 1).any(axis=1)]].mean(axis=1)
    assert walled[0].contains(wall).all()


@pytest.mark.parametrize(
    "maker", [broken_bodies.layered, broken_bodies.heap, broken_bodies.plates, broken_bodies.thin_shell]
)
def test_bodies_that_touch_and_thin_ones_agree_with_their_solid(maker):
    rng = np.random.default_rng(9)
    for _ in range(4):
        shape, kind = maker(rng, 500.0)
        if "single" in kind:  # a wall that bodies share winds about one of them more
            assert report(shape).nonmanifold_edges
            continue
        assert agreement(shape, rng) >= 0.999, kind
        for body in range(shape.owners.max() + 1):
            assert report(replace(shape, faces=shape.faces[shape.owners == body], owner=None)).closed, kind


def test_a_solid_cut_in_two_is_two_closed_bodies_with_the_volume_of_the_whole():
    rng = np.random.default_rng(10)
    for _ in range(6):
        shape = broken_solids.hull_shape(rng, 300.0)
        cut, kind = faults.halved(shape, rng)
        parts = [report(replace(cut, faces=cut.faces[cut.owners == k], owner=None)) for k in (0, 1)]
        assert all(part.closed and part.volume > 0 and not part.flipped_edges for part in parts), kind
        assert parts[0].volume + parts[1].volume == pytest.approx(report(shape).volume)
        assert agreement(cut, rng) >= 0.999


def test_unwelded_faces_have_corners_of_their_own_as_far_off_as_said():
    rng = np.random.default_rng(11)
    shape = broken_solids.box_shape(rng, 100.0)
    vertices, faces = faults.unwelded(shape.vertices, shape.faces, 1e-7, rng)
    off = np.abs(vertices[faces] - shape.vertices[shape.faces])
    assert len(np.unique(vertices, axis=0)) == 3 * len(shape.faces)
    assert 0 < off.max() <= 1e-7


def test_slivers_have_no_area_and_needles_are_as_wide_as_said():
    rng = np.random.default_rng(6)
    shape = broken_solids.hull_shape(rng, 500.0)
    sliver = faults._split(shape, rng, 20, close=True)
    assert report(sliver).closed
    assert report(sliver).degenerate_faces == 20
    needle = faults._split(shape, rng, 20, close=True, width=1e-9)
    assert report(needle).closed
    a, b, c = np.moveaxis(needle.vertices[needle.faces[-20:]], 1, 0)
    height = np.linalg.norm(np.cross(b - a, c - a), axis=1) / np.linalg.norm(b - a, axis=1)
    assert ((height > 1e-11) & (height < 1.1e-9)).all()
    assert report(faults._split(shape, rng, 20, close=False)).boundary_edges >= 40


def test_what_is_cut_off_is_gone_from_the_solid_too():
    rng = np.random.default_rng(7)
    shape = faults._cut_off(broken_solids.lathe_shape(rng, 3000.0), rng)
    assert isinstance(shape, Shape)
    assert report(shape).holes == 1
    assert agreement(shape, rng) >= 0.995  # the winding number closes a flat rim with the plane itself


def test_a_crack_is_as_wide_as_said():
    rng = np.random.default_rng(8)
    shape = faults._cracked(broken_solids.hull_shape(rng, 800.0), rng)
    assert report(shape).boundary_edges
    assert agreement(shape, rng) >= 0.999


def test_points_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"points must have shape \(n, 3\)"):
        case(0).contains(np.zeros(3))


def test_turned_faces_name_their_group():
    assert {it for seed in range(SEEDS) for it in case(seed).faults if it.startswith(FLIPPED)} >= {
        f"{FLIPPED}: random faces", f"{FLIPPED}: patches", f"{FLIPPED}: inside out"
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [range(start, start + 10) for start in range(0, 60, 10)], ids=str)
def test_labels_are_right_on_broken_meshes_and_sheets_are_refused(seeds):
    for seed in seeds:
        broken = case(seed)
        if not broken.enclosing:
            with pytest.raises(OpenSurfaceError):
                make_oracle(broken.mesh)
            continue
        points = np.random.default_rng(seed).uniform(*broken.mesh.bounds, size=(4000, 3))
        wrong = points[make_oracle(broken.mesh)(points) != broken.contains(points)]
        squared = igl.point_mesh_squared_distance(wrong, np.array(broken.mesh.vertices), np.array(broken.mesh.faces))[0]
        wrong = wrong[np.sqrt(squared) > broken.surface_error]  # nearer, the mesh itself is off the solid
        assert len(wrong) <= 0.005 * len(points), (seed, broken.faults)


@pytest.mark.parametrize("seeds", [range(start, start + 10) for start in range(0, 40, 10)], ids=str)
def test_labels_are_right_on_bodies_that_touch_on_thin_ones_and_beside_strays(seeds):
    for seed in seeds:
        broken = case(seed, "touching")
        mesh = broken.sound_mesh
        points = np.random.default_rng(seed).uniform(*mesh.bounds, size=(4000, 3))
        wrong = points[make_oracle(broken.mesh)(points) != broken.contains(points)]
        squared = igl.point_mesh_squared_distance(wrong, np.array(mesh.vertices), np.array(mesh.faces))[0]
        size = np.ptp(mesh.bounds, axis=0).max()
        wrong = wrong[np.sqrt(squared) > broken.surface_error + 1e-6 * size]
        assert len(wrong) <= 0.001 * len(points), (seed, broken.faults)
