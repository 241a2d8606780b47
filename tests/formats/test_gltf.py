"""glTF beyond single cases: our reader against trimesh's where both know the file, transforms, and Draco."""

import json
import struct
import sys

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from ff3d.formats.text import MeshError
from ff3d.formats.writers import save_mesh
from ff3d.shapes.mesh import load_mesh


def test_a_scene_of_many_nodes_is_placed_as_trimesh_places_it(tmp_path):
    rng = np.random.default_rng(0)
    scene = trimesh.Scene()
    parent = None
    for k in range(12):
        matrix = np.eye(4)
        matrix[:3, :3] = Rotation.random(rng=rng).as_matrix() @ np.diag(rng.uniform(0.5, 2, 3) * [1, 1, (-1) ** k])
        matrix[:3, 3] = rng.uniform(-5, 5, 3)
        part = trimesh.creation.icosphere(1) if k % 2 else trimesh.creation.box()
        parent = scene.add_geometry(part, node_name=f"node{k}", parent_node_name=parent, transform=matrix)
    (tmp_path / "scene.glb").write_bytes(scene.export(file_type="glb"))
    ours, theirs = load_mesh(tmp_path / "scene.glb"), scene.to_mesh()

    def solids(mesh):
        return sorted((round(part.volume, 4), *np.round(part.bounds.reshape(-1), 3)) for part in mesh.split())

    np.testing.assert_allclose(solids(ours), [(abs(v), *rest) for v, *rest in solids(theirs)], rtol=1e-4, atol=2e-3)
    assert all(part.volume > 0 for part in ours.split())  # a mirror turns no part inside out


def test_primitives_that_share_their_vertices_take_no_more_memory_than_their_triangles(tmp_path, monkeypatch):
    ball, path = trimesh.creation.icosphere(3), tmp_path / "ball.gltf"
    points, corners = ball.vertices.astype("<f4").tobytes(), ball.faces.astype("<u4").tobytes()
    (tmp_path / "ball.bin").write_bytes(points + corners)
    count = len(ball.vertices)
    box = {"min": ball.bounds[0].tolist(), "max": ball.bounds[1].tolist()}
    accessors = [{"bufferView": 0, "componentType": 5126, "count": count, "type": "VEC3", **box}]
    for face in range(len(ball.faces)):
        place = {"bufferView": 1, "byteOffset": 12 * face}
        accessors.append({**place, "componentType": 5125, "count": 3, "type": "SCALAR"})
    primitives = [{"attributes": {"POSITION": 0}, "indices": 1 + face} for face in range(len(ball.faces))]
    header = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": primitives}], "accessors": accessors,
        "buffers": [{"uri": "ball.bin", "byteLength": len(points + corners)}],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": len(points)},
            {"buffer": 0, "byteOffset": len(points), "byteLength": len(corners)},
        ],
    }  # fmt: skip
    path.write_text(json.dumps(header))
    monkeypatch.setattr("ff3d.formats.gltf.MOST", 4 * len(ball.faces))
    assert load_mesh(path).volume == pytest.approx(ball.volume)
    monkeypatch.setattr("ff3d.formats.gltf.MOST", 4 * len(ball.faces) - 1)
    with pytest.raises(MeshError, match="vertices and triangles that are read"):
        load_mesh(path)


def test_a_chain_of_ten_thousand_nodes_is_no_recursion(tmp_path):
    save_mesh(trimesh.creation.box(), tmp_path / "box.glb")
    data = (tmp_path / "box.glb").read_bytes()
    size = struct.unpack_from("<I", data, 12)[0]
    header = json.loads(data[20 : 20 + size])
    header["nodes"] = [{"children": [k + 1], "translation": [1, 0, 0]} for k in range(10_000)] + [{"mesh": 0}]
    header["scenes"], header["scene"] = [{"nodes": [0]}], 0
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 4)
    chunks = struct.pack("<I", len(head)) + b"JSON" + head + data[20 + size :]
    (tmp_path / "box.glb").write_bytes(b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks)
    np.testing.assert_allclose(load_mesh(tmp_path / "box.glb").bounds[:, 0], [9999.5, 10000.5])


def draco_glb(data: bytes, vertices: int, corners: int) -> bytes:
    extension = {"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {"POSITION": 0}}}
    header = {
        "asset": {"version": "2.0"},
        "extensionsRequired": list(extension),
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, "scale": [2, 2, 2]}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1, "extensions": extension}]}],
        "accessors": [
            {"componentType": 5126, "count": vertices, "type": "VEC3"},
            {"componentType": 5125, "count": corners, "type": "SCALAR"},
        ],
        "bufferViews": [{"buffer": 0, "byteLength": len(data)}],
        "buffers": [{"byteLength": len(data)}],
    }
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 4)
    body = data + bytes(-len(data) % 4)
    chunks = struct.pack("<I", len(head)) + b"JSON" + head + struct.pack("<I", len(body)) + b"BIN\0" + body
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


def test_draco_is_decoded_where_its_package_is_there_and_named_where_it_is_not(tmp_path, monkeypatch):
    draco = pytest.importorskip("DracoPy")
    mesh = trimesh.creation.icosphere(3)
    data = draco.encode(np.array(mesh.vertices, dtype=np.float32), np.array(mesh.faces, dtype=np.uint32))
    path = tmp_path / "ball.glb"
    path.write_bytes(draco_glb(data, len(mesh.vertices), mesh.faces.size))
    ball = load_mesh(path)
    assert len(ball.faces) == len(mesh.faces)
    assert ball.is_watertight
    assert ball.volume == pytest.approx(8 * mesh.volume, rel=1e-3)  # the node doubles it
    path.write_bytes(draco_glb(data[:50], len(mesh.vertices), mesh.faces.size))
    with pytest.raises(MeshError, match="its KHR_draco_mesh_compression data is damaged"):
        load_mesh(path)
    monkeypatch.setitem(sys.modules, "DracoPy", None)
    with pytest.raises(MeshError, match=r"compressed by KHR_draco_mesh_compression: pip install 'ff3d\[draco\]'"):
        load_mesh(path)
