"""glTF and GLB."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ff3d.formats.polygons import Polygons
from ff3d.formats.text import MeshError


def read_gltf(path: Path) -> Polygons:
    """GLB or glTF by trimesh, joined here in float64; MeshError for what trimesh would leave out unsaid."""
    import trimesh

    data = path.read_bytes()
    if path.suffix.lower() == ".glb":
        if data[:4] != b"glTF" or int.from_bytes(data[8:12], "little") != len(data):
            size = int.from_bytes(data[8:12], "little") if data[:4] == b"glTF" else None
            fault = f"cut short: {size} bytes promised, {len(data)} there" if size else "no GLB header"
            raise MeshError(f"{fault}; export or download it again")
        data = data[20 : 20 + int.from_bytes(data[12:16], "little")]
    header = json.loads(data)
    for primitive in (p for mesh in header.get("meshes", []) for p in mesh["primitives"]):
        accessors = [primitive["attributes"]["POSITION"], *([primitive["indices"]] if "indices" in primitive else [])]
        stored = [header["accessors"][i] for i in accessors]
        if any("bufferView" not in a or "sparse" in a or a.get("normalized") for a in stored):
            raise MeshError("compressed, sparse or quantized geometry is not read; export it without compression")
        if primitive.get("mode", 4) == 6:
            raise MeshError("triangle fans are not read; export it with plain triangles")
    scene = trimesh.load_scene(path, process=False, skip_materials=True)
    vertices, corners, total = [np.zeros((0, 3))], [np.zeros(0, dtype=np.int64)], 0
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        part = scene.geometry[name]
        placed = np.asarray(part.vertices, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
        faces = np.asarray(getattr(part, "faces", np.zeros((0, 3))), dtype=np.int64)
        if len(faces) and not 0 <= faces.min() <= faces.max() < len(placed):
            raise MeshError("its faces point past the vertices: damaged; export or download it again")
        # a mirror turns a solid inside out, and glTF says to turn its faces back
        corners.append((faces[:, ::-1] if np.linalg.det(matrix[:3, :3]) < 0 else faces).reshape(-1) + total)
        vertices.append(placed)
        total += len(placed)
    flat = np.concatenate(corners)
    return np.concatenate(vertices), flat, np.full(len(flat) // 3, 3)
