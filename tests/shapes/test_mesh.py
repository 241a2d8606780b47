"""Meshes come back as they were written, faults are named, and the unit cube loses no digits."""

import contextlib
import json
import logging
import math
import subprocess
import sys
import tracemalloc
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ff3d.formats.text import MeshError
from ff3d.formats.writers import check_mesh_ending, save_mesh
from ff3d.geometry.coordinates import UnitCube
from ff3d.shapes.mesh import inspect_mesh, load_mesh
from ff3d.shapes.sources import find_mesh

MILLION = np.array([1e6, -2e6, 3e6])
SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
PLY = """ply
format ascii 1.0
comment a test
element vertex {vertices}
property double x
property double y
property double z
element face {faces}
property list uchar int vertex_indices
end_header
"""


def cube(**changes) -> trimesh.Trimesh:
    """The cube [-1/2, 1/2]^3 of 8 vertices and 12 faces, or with other vertices or faces."""
    box = trimesh.creation.box()
    parts = {"vertices": np.array(box.vertices), "faces": np.array(box.faces)} | changes
    return trimesh.Trimesh(**parts, process=False)


def blob(rng: np.random.Generator, subdivisions: int = 2) -> trimesh.Trimesh:
    """A bumpy closed shape, about 1 unit wide, whose coordinates use all their digits."""
    sphere = trimesh.creation.icosphere(subdivisions)
    radii = 0.5 + 0.1 * rng.standard_normal((len(sphere.vertices), 1))
    return trimesh.Trimesh(sphere.vertices * radii, sphere.faces, process=False)


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def fault(path: Path, data: str | bytes) -> str:
    """The message with which loading this file fails; one line, with the file's name."""
    with pytest.raises(MeshError) as caught:
        load_mesh(write(path, data))
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


def glb(header: dict, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 4)
    chunks = len(text).to_bytes(4, "little") + b"JSON" + text
    chunks += len(body).to_bytes(4, "little") + b"BIN\0" + body if body else b""
    return b"glTF" + (2).to_bytes(4, "little") + (12 + len(chunks)).to_bytes(4, "little") + chunks


def one_triangle(**primitive) -> tuple[dict, bytes]:
    """A glTF header with one triangle of float32 vertices, and its buffer."""
    body = np.eye(3, dtype="<f4").tobytes()
    header = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, **primitive}]}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 3, "type": "VEC3"}],
        "bufferViews": [{"buffer": 0, "byteLength": len(body)}],
        "buffers": [{"byteLength": len(body)}],
    }
    return header, body


# UnitCube

numbers = st.floats(-1e6, 1e6)


@given(
    arrays(np.float64, (7, 3), elements=numbers),
    st.tuples(numbers, numbers, numbers),
    st.floats(1e-3, 1e6),
)
def test_from_unit_undoes_to_unit(points, center, scale):
    unit_cube = UnitCube(center, scale)
    size = max(np.abs(points).max(), np.abs(center).max(), scale)
    np.testing.assert_allclose(unit_cube.from_unit(unit_cube.to_unit(points)), points, rtol=0, atol=1e-14 * size)
    assert UnitCube.from_json(json.loads(json.dumps(unit_cube.to_json()))) == unit_cube


def test_the_papers_cube_by_hand():
    # mean (1, 2, 3); the largest distance from it along an axis is 3
    vertices = [[-1, 2, 3], [-1, 2, 3], [4, 2, 3], [2, 2, 3], [1, 3, 1], [1, 1, 5]]
    unit_cube = UnitCube.paper(vertices)
    assert unit_cube == UnitCube((1.0, 2.0, 3.0), 6.0)
    np.testing.assert_allclose(unit_cube.to_unit([[4, 2, 3], [1, 2, 3]]), [[1, 0.5, 0.5], [0.5] * 3], atol=1e-15)


def test_the_padded_cube_centres_the_box_and_leaves_the_padding():
    unit = UnitCube.padded([[0, 0, 0], [4, 2, 1]], padding=0.1).to_unit([[0, 0, 0], [4, 2, 1]])
    np.testing.assert_allclose(unit, [[0.1, 0.3, 0.4], [0.9, 0.7, 0.6]], atol=1e-15)


@pytest.mark.parametrize("make", [UnitCube.paper, UnitCube.padded])
def test_a_million_units_away_the_unit_coordinates_are_the_same(make):
    vertices = np.array(blob(np.random.default_rng(1)).vertices)
    near, far = make(vertices), make(vertices + MILLION)
    np.testing.assert_allclose(far.to_unit(vertices + MILLION), near.to_unit(vertices), rtol=0, atol=2e-9)


@pytest.mark.parametrize("make", [UnitCube.paper, UnitCube.padded])
@pytest.mark.parametrize(
    "vertices", [np.zeros((0, 3)), [[1, 2, 3]] * 2, [[0, 0, math.nan], [1, 1, 1]], [[1, 1, math.inf]] * 2, [[1, 2]]]
)
def test_no_cube_without_an_extent(make, vertices):
    with pytest.raises(ValueError, match=r"scale must|vertices must be finite|points must have shape"):
        make(vertices)


@pytest.mark.wrong_types
def test_a_bad_cube_is_refused():
    for center, scale in [((0, 0, math.inf), 1), ((0, 0), 1), ((0, 0, 0), 0), ((0, 0, 0), -1), ((0, 0, 0), math.nan)]:
        with pytest.raises(ValueError, match=r"center must be 3 finite|scale must be a finite"):
            UnitCube(center, scale)
    for padding in (-0.1, 0.5, math.nan):
        with pytest.raises(ValueError, match="padding must be in"):
            UnitCube.padded(np.eye(3), padding)
    good = {"center": [0.0, 0.0, 0.0], "scale": 1.0}
    for bad in [{}, [], good | {"more": 1}, good | {"center": "123"}, good | {"scale": "1"}, good | {"scale": True}]:
        with pytest.raises(ValueError, match=r"unit cube|center must be 3 numbers"):
            UnitCube.from_json(bad)


def test_points_must_be_rows_of_three():
    with pytest.raises(ValueError, match=r"shape \(n, 3\), got \(3, 5\)"):
        UnitCube((0, 0, 0), 1).to_unit(np.zeros((3, 5)))


def test_the_module_imports_without_trimesh():
    absent = "import sys; sys.modules['trimesh'] = sys.modules['scipy'] = None"
    code = f"{absent}; import ff3d.shapes.mesh, ff3d.geometry.coordinates"
    subprocess.run([sys.executable, "-c", code], check=True)


# find


def test_a_mesh_is_found_by_path_and_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "meshes").mkdir()
    save_mesh(cube(), tmp_path / "meshes" / "brick.ply")
    assert find_mesh(tmp_path / "meshes" / "brick.ply") == tmp_path / "meshes" / "brick.ply"
    assert find_mesh("brick") == find_mesh("brick.ply") == Path("meshes/brick.ply")
    with pytest.raises(MeshError, match=r"brik: no such file.*meshes or .*brick"):
        find_mesh("brik")
    with pytest.raises(MeshError, match="meshes: is a folder"):
        find_mesh("meshes")


# save, then load


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    vertices=arrays(np.float64, (6, 3), elements=st.integers(-(10**6), 10**6).map(lambda number: number / 1000)),
    faces=st.lists(st.permutations(range(6)).map(lambda order: order[:3]), min_size=1, max_size=8),
)
def test_a_random_mesh_comes_back(tmp_path, vertices, faces):
    size = np.ptp(vertices, axis=0).max()
    if size == 0 or np.ptp(vertices[np.unique(faces)], axis=0).max() == 0:
        return
    mesh = trimesh.Trimesh(vertices, [*faces, [0, 1, 2], [3, 4, 5]], process=False)
    for ending, loss in [(".ply", 1e-7), (".obj", 0), (".glb", 1e-7)]:
        save_mesh(mesh, tmp_path / f"mesh{ending}")
        back = load_mesh(tmp_path / f"mesh{ending}")
        assert back.faces.tolist() == mesh.faces.tolist()
        assert np.abs(back.vertices - vertices).max() <= loss * size
    if np.abs(vertices).max() < 100 * size:  # farther away float32 may collapse a mesh, with a warning
        save_mesh(mesh, tmp_path / "mesh.stl")
        back = load_mesh(tmp_path / "mesh.stl")
        np.testing.assert_array_equal(back.triangles, np.asarray(mesh.triangles).astype(np.float32))


@pytest.mark.parametrize("ending", [".ply", ".obj", ".stl", ".glb"])
def test_float32_meshes_come_back_bit_for_bit(tmp_path, ending):
    mesh = blob(np.random.default_rng(2))
    mesh.vertices = mesh.vertices.astype(np.float32).astype(np.float64)
    save_mesh(mesh, tmp_path / f"mesh{ending}")
    back = load_mesh(tmp_path / f"mesh{ending}")
    assert back.vertices.dtype == np.float64
    np.testing.assert_array_equal(back.triangles, mesh.triangles)
    assert len(back.vertices) == len(mesh.vertices)  # STL's loose triangles are joined again
    if ending != ".stl":
        np.testing.assert_array_equal(back.vertices, mesh.vertices)
        np.testing.assert_array_equal(back.faces, mesh.faces)
    theirs = trimesh.load_mesh(tmp_path / f"mesh{ending}", process=False)  # and others can read it
    np.testing.assert_array_equal(theirs.triangles, mesh.triangles)


@pytest.mark.parametrize(("ending", "loss"), [(".ply", 0), (".obj", 0), (".glb", 1e-7)])
def test_a_million_units_away_nothing_is_lost(tmp_path, ending, loss):
    near = blob(np.random.default_rng(3))
    far = trimesh.Trimesh(near.vertices + MILLION, near.faces, process=False)
    save_mesh(far, tmp_path / f"far{ending}")
    back = load_mesh(tmp_path / f"far{ending}")
    np.testing.assert_allclose(back.vertices, far.vertices, rtol=0, atol=loss)
    np.testing.assert_array_equal(back.faces, far.faces)
    unit = UnitCube.padded(back.vertices).to_unit(back.vertices)
    exact = UnitCube.padded(near.vertices).to_unit(near.vertices)
    np.testing.assert_allclose(unit, exact, rtol=0, atol=loss + 1e-9)


def test_stl_says_what_it_loses_a_million_units_away(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, logger="ff3d.formats.writers"):
        save_mesh(cube(), tmp_path / "near.stl")
        assert not caplog.records
        save_mesh(cube(vertices=cube().vertices + MILLION + 0.1), tmp_path / "far.stl")
    assert "far.stl" in caplog.text
    assert "0.1 units" in caplog.text
    assert ".ply keeps them" in caplog.text


@pytest.mark.parametrize("ending", ["ply", "obj", "glb"])
def test_normals_are_written(tmp_path, ending):
    mesh = blob(np.random.default_rng(4))
    save_mesh(mesh, tmp_path / f"mesh.{ending}")
    with (tmp_path / f"mesh.{ending}").open("rb") as file:
        raw = trimesh.exchange.load.mesh_loaders[ending](file, maintain_order=True)
    raw = raw if ending == "ply" else next(iter(raw["geometry"].values()))
    np.testing.assert_allclose(raw["vertex_normals"], mesh.vertex_normals, atol=1e-5)


@pytest.mark.parametrize("size", [1e-60, 1e60])
@pytest.mark.parametrize("ending", [".ply", ".obj", ".glb"])
def test_sizes_past_float32_come_back(tmp_path, ending, size):
    save_mesh(cube(vertices=cube().vertices * size), tmp_path / f"mesh{ending}")
    np.testing.assert_allclose(load_mesh(tmp_path / f"mesh{ending}").vertices, cube().vertices * size, rtol=1e-7)


def test_an_ending_can_be_checked_before_the_work():
    for name in ("mesh.ply", "MESH.OBJ", "a.b.stl", Path("mesh.glb")):
        check_mesh_ending(name)
    with pytest.raises(ValueError, match=r"mesh: cannot write ''; known endings: \.ply, \.obj, \.stl, \.glb"):
        check_mesh_ending("mesh")


def test_save_refuses_what_it_cannot_keep(tmp_path):
    with pytest.raises(ValueError, match=r"mesh\.xyz: cannot write '\.xyz'; known endings: \.ply, \.obj, \.stl, \.glb"):
        save_mesh(cube(), tmp_path / "mesh.xyz")
    vertices = np.array(cube().vertices)
    vertices[0, 0] = np.nan
    for mesh in (trimesh.Trimesh(process=False), cube(vertices=vertices)):
        with pytest.raises(ValueError, match=r"mesh\.ply: not written"):
            save_mesh(mesh, tmp_path / "mesh.ply")
    with pytest.raises(ValueError, match=r"huge\.stl: STL holds float32"):
        save_mesh(cube(vertices=cube().vertices * 1e60), tmp_path / "huge.stl")
    assert list(tmp_path.iterdir()) == []


# load: what the formats allow


def test_a_scene_is_placed_and_joined(tmp_path):
    scene = trimesh.Scene()
    turned = trimesh.transformations.rotation_matrix(np.pi / 2, [0, 0, 1])
    turned[:3, 3] = MILLION
    scene.add_geometry(trimesh.creation.box([4, 2, 1]), transform=turned)
    scene.add_geometry(cube(), transform=np.diag([-3.0, 1, 1, 1]))  # a mirror
    mesh = load_mesh(write(tmp_path / "scene.glb", scene.export(file_type="glb")))
    boxes = sorted((part.bounds.tolist() for part in mesh.split()), key=lambda box: box[0][0])
    np.testing.assert_allclose(boxes[0], [[-1.5, -0.5, -0.5], [1.5, 0.5, 0.5]], atol=1e-9)
    np.testing.assert_allclose(boxes[1], np.add(MILLION, [[-1, -2, -0.5], [1, 2, 0.5]]), rtol=0, atol=1e-9)
    report = inspect_mesh(mesh)
    assert (report.parts, report.closed, report.flipped_edges) == (2, True, 0)
    assert all(part.volume > 0 for part in mesh.split())


def test_gltf_with_its_data_inside_is_read(tmp_path):
    import base64

    header, body = one_triangle()
    header["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(body).decode()
    mesh = load_mesh(write(tmp_path / "triangle.gltf", json.dumps(header)))
    assert mesh.triangles.tolist() == [np.eye(3).tolist()]


# a U of area 5 in the plane z = x / 2, told from a corner whose fan would fold over
U = np.array([[0, 0], [3, 0], [3, 2], [2, 2], [2, 1], [1, 1], [1, 2], [0, 2]], dtype=float)
U = np.column_stack([U, U[:, 0] / 2])


@pytest.mark.parametrize("first", range(8))
@pytest.mark.parametrize("turn", [1, -1])
def test_a_concave_polygon_is_covered_once(tmp_path, first, turn):
    ring = np.roll(U, -first, axis=0)[::turn]
    text = "".join(f"v {x} {y} {z}\n" for x, y, z in ring) + "f 1 2 3 4 5 6 7 8\n"
    mesh = load_mesh(write(tmp_path / "u.obj", text))
    assert len(mesh.faces) == 6
    assert mesh.area == pytest.approx(5 * math.sqrt(1.25), rel=1e-12)
    normals = np.cross(*np.diff(mesh.triangles, axis=1).swapaxes(0, 1))
    assert (normals[:, 2] * turn > 0).all()
    assert normals.sum(axis=0)[2] == pytest.approx(2 * turn * 5)


def test_a_large_star_is_covered_once(tmp_path):
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    radii = np.where(np.arange(400) % 2, 1.0, 0.5)
    ring = np.column_stack([radii * np.cos(angles), radii * np.sin(angles), 0 * angles])
    mesh = load_mesh(write(tmp_path / "star.obj", rows(ring.tolist(), "v ") + rows([range(1, 401)], "f ")))
    assert mesh.area == pytest.approx(200 * 0.5 * math.sin(2 * np.pi / 400), rel=1e-12)  # r1 r2 sin(angle) / 2 each
    assert inspect_mesh(mesh).boundary_edges == 400


QUADS = [[0, 3, 2, 1], [4, 5, 6, 7], [0, 1, 5, 4], [1, 2, 6, 5], [2, 3, 7, 6], [3, 0, 4, 7]]
CORNERS = np.array([[x, y, z] for z in (0, 1) for x, y in ((0, 0), (1, 0), (1, 1), (0, 1))])


def rows(table, front: str = "") -> str:
    return "".join(front + " ".join(map(str, row)) + "\n" for row in table)


@pytest.mark.parametrize("ending", ["obj", "off", "ply", "binary.ply"])
@pytest.mark.parametrize("mixed", [False, True])
def test_quads_make_a_cube_of_volume_one(tmp_path, ending, mixed):
    faces = [QUADS[0][:3], [QUADS[0][0], *QUADS[0][2:]], *QUADS[1:]] if mixed else QUADS
    counted = [[len(face), *face] for face in faces]
    if ending == "obj":
        data = rows(CORNERS, "v ") + rows([[i + 1 for i in face] for face in faces], "f ")
    elif ending == "off":
        data = f"OFF\n8 {len(faces)} 0\n" + rows(CORNERS) + rows(counted)
    else:
        data = PLY.format(vertices=8, faces=len(faces)) + rows(CORNERS) + rows(counted)
        if ending == "binary.ply":
            data = PLY.format(vertices=8, faces=len(faces)).replace("ascii", "binary_big_endian").encode()
            data += CORNERS.astype(">f8").tobytes()
            data += b"".join(bytes([n]) + np.array(face, dtype=">i4").tobytes() for n, *face in counted)
    report = inspect_mesh(load_mesh(write(tmp_path / f"quads.{ending}", data)))
    assert (report.closed, report.faces, report.vertices) == (True, 12, 8)
    assert report.volume == pytest.approx(1, rel=1e-15)


def test_obj_indices_in_all_their_forms(tmp_path):
    text = (
        "# a comment\r\nmtllib none.mtl\r\n  v\t0 0 0 # one\r\nv 1 0 0 0.5 0.5 0.5\r\nv 0 1 0\r\nvn 0 0 1\r\nvt 0 0\r\n"
    )
    text += "usemtl b\nf -3 -2 -1\nv 0 0 1\nf -1//1 -2//1 1//1\n"
    text += "usemtl a\n  f 1/1/1 2/1/1 \\\n4/1/1\nusemtl b\nf 2/1 3/1 4/1"
    mesh = load_mesh(write(tmp_path / "forms.obj", text))
    assert mesh.faces.tolist() == [[0, 1, 2], [3, 2, 0], [0, 1, 3], [1, 2, 3]]
    assert mesh.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_text_keeps_every_digit_far_away(tmp_path):
    points = np.random.default_rng(5).random((3, 3)) + MILLION
    obj = rows(points.tolist(), "v ") + "f 1 2 3\n"
    off = "OFF 3 1 0\n" + rows(points.tolist()) + "3 0 1 2\n"
    ply = PLY.format(vertices=3, faces=1) + rows(points.tolist()) + "3 0 1 2\n"
    for ending, text in {"obj": obj, "off": off, "ply": ply}.items():
        np.testing.assert_array_equal(load_mesh(write(tmp_path / f"far.{ending}", text)).vertices, points)


def test_off_with_comments_colours_and_normals(tmp_path):
    text = "COFF # colours\n\n3 1 0 # counts\n# vertices\n"
    text += "0 0 0 255 0 0 255\n1 0 0 0 255 0 255\n0 1 0 0 0 255 255\n3 0 1 2 9 9 9"
    assert load_mesh(write(tmp_path / "colours.off", text)).area == 0.5


FACET = "facet normal 0 0 1\nouter loop\nvertex 0 0 {0}\nvertex 1 0 {0}\nvertex 0 1 {0}\nendloop\nendfacet\n"


def test_a_text_stl_may_hold_several_solids(tmp_path):
    text = (
        "solid solid one\n"
        + FACET.format(0)
        + "endsolid solid one\nSOLID two\n"
        + FACET.format("1e0")
        + "ENDSOLID two\n"
    )
    mesh = load_mesh(write(tmp_path / "two.stl", text))
    assert mesh.bounds.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert len(mesh.faces) == 2


def test_a_binary_stl_may_call_itself_solid(tmp_path):
    save_mesh(cube(), tmp_path / "cube.stl")
    data = b"solid" + (tmp_path / "cube.stl").read_bytes()[5:]
    assert load_mesh(write(tmp_path / "solid.stl", data)).volume == pytest.approx(1)


def test_vertices_that_no_face_uses_are_dropped(tmp_path):
    mesh = load_mesh(write(tmp_path / "stray.obj", "v 1e9 nan 0\n" + SQUARE + "f 2 3 4 5\nv 7 7 7\n"))
    assert mesh.bounds.tolist() == [[0, 0, 0], [1, 1, 0]]
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3]]


# load: faults


def test_a_missing_file_is_named():
    with pytest.raises(MeshError, match=r"nowhere\.obj: no such file"):
        load_mesh("nowhere.obj")


@pytest.mark.parametrize("ending", [".xyz", ".npz", ".pkl", ""])
def test_an_unknown_ending_lists_the_known(tmp_path, ending):
    assert "ff3d reads .obj, .ply, .stl, .off, .glb, .gltf" in fault(tmp_path / f"mesh{ending}", "1 2 3\n")


@pytest.mark.parametrize("ending", [".obj", ".ply", ".stl", ".off", ".glb", ".gltf"])
def test_an_empty_file_and_rubbish_are_refused(tmp_path, ending):
    assert "is empty" in fault(tmp_path / f"empty{ending}", "")
    assert "again" in fault(tmp_path / f"blank{ending}", "\n\n")
    for seed in range(20):
        fault(tmp_path / f"noise{ending}", np.random.default_rng(seed).bytes(300))


@pytest.mark.parametrize("ending", [".ply", ".stl", ".glb"])
def test_a_binary_file_cut_anywhere_is_refused(tmp_path, ending):
    save_mesh(cube(), tmp_path / f"whole{ending}")
    data = (tmp_path / f"whole{ending}").read_bytes()
    for size in range(1, len(data), 7):
        assert "cut short" in fault(tmp_path / f"cut{ending}", data[:size]) or size < 100


@pytest.mark.parametrize("ending", ["off", "ply", "stl"])
def test_a_text_file_cut_at_any_line_is_refused(tmp_path, ending):
    text = {
        "off": "OFF\n4 2 0\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n",
        "ply": PLY.format(vertices=4, faces=2) + "0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 1 2\n3 0 1 3\n",
        "stl": "solid a\n" + FACET.format(0) + FACET.format(1) + "endsolid a\n",
    }[ending]
    load_mesh(write(tmp_path / f"whole.{ending}", text))
    lines = text.splitlines(keepends=True)
    for count in range(1, len(lines)):
        if not (ending == "stl" and lines[count - 1] == "endfacet\n"):  # a whole facet: endsolid may be missing
            assert "again" in fault(tmp_path / f"cut.{ending}", "".join(lines[:count]))
        assert "again" in fault(tmp_path / f"cut.{ending}", "".join(lines[:count]) + lines[count][:1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SQUARE + "v 5 5", "line 5: 'v 5 5' has under 3 coordinates: cut short"),
        (SQUARE + "f 1 2\nf 3 4", "none of its 2 faces has three corners (face 1 has 2 corners)"),
        (SQUARE + "f 1 2 7", "1 face corners point past the vertices (the first to number 6, counted from 0, of 4)"),
        (SQUARE + "f -1 -2 -5", "point past the vertices"),
        (SQUARE + "f 0 1 2", "line 5: a face names vertex 0, but OBJ counts from 1"),
        (SQUARE + "f 1 2 x", "line 5: expected a whole number, got 'x'"),
        (SQUARE.replace("1 1 0", "1 1,5 0") + "f 1 2 3", "line 3: expected a number, got '1,5'"),
        (SQUARE, "it is a point cloud of 4 points without faces, and ff3d needs faces"),
        ("vn 0 0 1\n", "it holds no vertices"),
        (SQUARE.replace("1 1 0", "1 nan 0") + "f 1 2 3", "1 of its vertices are not finite"),
        (SQUARE.replace("1 1 0", "1 1e999 0") + "f 1 2 3", "1 of its vertices are not finite"),
        ("v 1 2 3\nv 1 2 3\nv 1 2 3\nf 1 2 3", "all its vertices lie in one point"),
        ("v 1e200 0 0\nv 0 0 0\nv 0 1 0\nf 1 2 3", "scale it down"),
    ],
)
def test_a_faulty_obj_is_refused(tmp_path, text, message):
    assert message in fault(tmp_path / "bad.obj", text)


def test_other_formats_with_the_same_faults_are_refused(tmp_path):
    points = "0 0 0\n1 0 0\n0 1 0\n"
    ply = PLY.format(vertices=3, faces=1) + points
    assert "point past the vertices" in fault(tmp_path / "past.ply", ply + "3 0 1 3\n")
    assert "point past the vertices" in fault(tmp_path / "past.off", "OFF\n3 1 0\n" + points + "3 0 1 -1\n")
    assert "face 1 has 2 corners" in fault(tmp_path / "line.off", "OFF\n3 1 0\n" + points + "2 0 1\n")
    assert "behind the last row" in fault(tmp_path / "more.ply", ply + "3 0 1 2\n3 0 1 2\n")
    assert "point cloud of 3 points" in fault(tmp_path / "cloud.ply", PLY.format(vertices=3, faces=0) + points)
    assert "point cloud of 3 points" in fault(tmp_path / "cloud.off", "OFF\n3 0 0\n" + points)
    assert "broken number" in fault(tmp_path / "nan.ply", ply + "3 0 nan 2\n")
    assert "no vertices" in fault(tmp_path / "none.stl", b"\0" * 84)
    assert "cut short" in fault(tmp_path / "four.off", "4OFF\n3 0 0\n" + points)


def test_what_gltf_would_lose_is_refused(tmp_path):
    header, body = one_triangle()
    assert load_mesh(write(tmp_path / "good.glb", glb(header, body))).triangles.tolist() == [np.eye(3).tolist()]
    assert load_mesh(write(tmp_path / "fan.glb", glb(*one_triangle(mode=6)))).triangles.tolist() == [np.eye(3).tolist()]
    assert "point cloud of 3 points" in fault(tmp_path / "cloud.glb", glb(*one_triangle(mode=0)))
    assert "no GLB header" in fault(tmp_path / "text.glb", json.dumps(header))
    header["accessors"][0]["sparse"] = {"count": 1}
    assert "again" in fault(tmp_path / "sparse.glb", glb(header, body))
    header, body = one_triangle(indices=1)
    header["accessors"].append({"bufferView": 1, "componentType": 5125, "count": 3, "type": "SCALAR"})
    header["bufferViews"].append({"buffer": 0, "byteOffset": 36, "byteLength": 12})
    body += np.array([0, 1, 3], dtype="<u4").tobytes()
    assert "past the vertices" in fault(tmp_path / "past.glb", glb(header, body))


@pytest.mark.parametrize("ending", [".ply", ".obj", ".stl", ".glb", ".off"])
def test_a_file_with_wrong_bytes_loads_or_is_refused(tmp_path, ending):
    rng = np.random.default_rng(6)
    path = write(tmp_path / "cube.off", "OFF\n8 6 0\n" + rows(CORNERS) + rows([4, *quad] for quad in QUADS))
    if ending != ".off":
        save_mesh(load_mesh(path), path := tmp_path / f"cube{ending}")
    for _ in range(60):
        data = bytearray(path.read_bytes())
        for place in rng.integers(len(data), size=3):
            data[place] = rng.integers(256)
        write(tmp_path / f"wrong{ending}", bytes(data))
        with contextlib.suppress(MeshError):  # and nothing else
            assert len(load_mesh(tmp_path / f"wrong{ending}").faces)


# inspect


def test_a_cube_has_no_faults():
    report = inspect_mesh(cube())
    assert (report.vertices, report.faces, report.parts, report.closed) == (8, 12, 1, True)
    assert report.volume == 1
    assert report.bounds == ((-0.5, -0.5, -0.5), (0.5, 0.5, 0.5))
    assert report.extents == (1, 1, 1)
    assert report.advice() == []
    assert "closed  yes\n- no faults found" in str(report)


@pytest.mark.parametrize("size", [1e-90, 1e-9, 1.0, 1e9, 1e90])
def test_the_report_does_not_depend_on_size_or_place(size):
    report = inspect_mesh(cube(vertices=cube().vertices * size))
    assert report.volume == pytest.approx(size**3)
    assert replace(report, volume=1.0, bounds=inspect_mesh(cube()).bounds, extents=(1, 1, 1)) == inspect_mesh(cube())
    far = inspect_mesh(cube(vertices=cube().vertices * size + size * MILLION))
    assert far.volume == pytest.approx(size**3)
    assert far.advice() == []


def test_a_triangle_soup_is_joined_where_it_coincides_exactly():
    soup = trimesh.Trimesh(cube().triangles.reshape(-1, 3), np.arange(36).reshape(-1, 3), process=False)
    assert inspect_mesh(soup) == replace(inspect_mesh(cube()), vertices=36)
    soup.vertices = soup.vertices + np.eye(36, 3) * 1e-9
    assert not inspect_mesh(soup).closed
    assert len(soup.vertices) == 36


def test_a_cube_without_a_side_has_one_hole():
    box = cube()
    report = inspect_mesh(cube(faces=box.faces[box.face_normals[:, 2] < 0.5]))
    assert (report.closed, report.parts, report.holes, report.boundary_edges) == (False, 1, 1, 4)
    assert "1 hole(s), 4 boundary edges" in report.advice()[0]
    ends = inspect_mesh(cube(faces=box.faces[np.abs(box.face_normals[:, 2]) < 0.5]))
    assert (ends.parts, ends.holes, ends.boundary_edges) == (1, 2, 8)


def test_two_cubes_are_two_parts():
    pair = trimesh.util.concatenate([cube(), cube(vertices=cube().vertices + 1)])  # they touch in one vertex
    report = inspect_mesh(pair)
    assert (report.parts, report.closed, report.volume) == (2, True, pytest.approx(2))


def test_a_flipped_face_shows_in_its_three_edges():
    faces = np.array(cube().faces)
    faces[5] = faces[5, ::-1]
    report = inspect_mesh(cube(faces=faces))
    assert (report.closed, report.flipped_edges, report.holes) == (True, 3, 0)
    assert "opposite winding" in report.advice()[0]


def test_an_inside_out_cube_is_turned():
    report = inspect_mesh(cube(faces=cube().faces[:, ::-1]))
    assert (report.inside_out, report.closed, report.volume, report.flipped_edges) == (True, True, -1, 0)
    assert report.advice() == [
        "inside out (negative volume): every label would come out outside, so ff3d turns it right side out"
    ]


def test_degenerate_faces_are_counted_and_leave_the_cube_closed():
    report = inspect_mesh(cube(faces=[*cube().faces, [0, 0, 1], [2, 2, 2]]))
    assert (report.degenerate_faces, report.closed, report.parts) == (2, True, 1)
    vertices = np.array([[0, 0, 0], [1, 0.1, 0.3], [2, 0.2, 0.6], [0, 1, 0]])  # three on a line, to rounding
    report = inspect_mesh(trimesh.Trimesh(vertices, [[0, 1, 2], [0, 1, 3]], process=False))
    assert report.degenerate_faces == 1
    vertices[1, 2] += 1e-12
    assert inspect_mesh(trimesh.Trimesh(vertices, [[0, 1, 2]], process=False)).degenerate_faces == 0


def test_duplicate_faces_are_counted_in_any_order():
    first = cube().faces[0]
    report = inspect_mesh(cube(faces=[*cube().faces, first, np.roll(first, 1), first[::-1]]))
    assert (report.duplicate_faces, report.nonmanifold_edges, report.closed) == (3, 3, False)


def test_a_fin_makes_an_edge_of_three_faces():
    vertices = [[0, 0, 0], [0, 0, 1], [1, 0, 0], [-1, 1, 0], [-1, -1, 0]]
    report = inspect_mesh(trimesh.Trimesh(vertices, [[0, 1, 2], [0, 1, 3], [0, 1, 4]], process=False))
    assert (report.nonmanifold_edges, report.boundary_edges, report.holes, report.parts) == (1, 6, 1, 1)


@pytest.mark.parametrize("normal", [[0, 0, 1], [0.3, 0.5, 0.7]])
def test_a_flat_mesh_is_loaded_and_reported(tmp_path, normal):
    placed = trimesh.transform_points(CORNERS[:4], trimesh.geometry.align_vectors([0, 0, 1], normal))
    mesh = load_mesh(write(tmp_path / "flat.obj", rows(placed.tolist(), "v ") + "f 1 2 3 4\n"))
    report = inspect_mesh(mesh)
    assert report.flat
    assert "encloses no volume" in report.advice()[0]
    assert not inspect_mesh(cube(vertices=cube().vertices * [1, 1, 1e-6])).flat


def test_a_mesh_of_degenerate_faces_alone_and_one_without_faces():
    report = inspect_mesh(trimesh.Trimesh([[0, 0, 0], [1, 0, 0]], [[0, 1, 1]], process=False))
    assert (report.parts, report.closed, report.degenerate_faces, report.flat) == (0, False, 1, True)
    with pytest.raises(MeshError, match="without faces"):
        inspect_mesh(trimesh.Trimesh(np.eye(3), process=False))


def test_degenerate_meshes_are_written_without_warnings(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for ending in (".ply", ".obj", ".stl", ".glb"):
            save_mesh(cube(faces=[*cube().faces, [0, 0, 1]]), tmp_path / f"mesh{ending}")
            assert len(load_mesh(tmp_path / f"mesh{ending}").faces) == 13


def test_inspection_takes_few_bytes_a_face():
    mesh = trimesh.creation.icosphere(subdivisions=6)  # 81,920 faces
    inspect_mesh(mesh)  # what is imported, and cached, is there then
    tracemalloc.start()
    try:
        inspect_mesh(mesh)
        assert tracemalloc.get_traced_memory()[1] < 200 * len(mesh.faces)
    finally:
        tracemalloc.stop()
