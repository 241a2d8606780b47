"""Whatever is done to a file, a reader gives a shape or one clear line, without a warning and without eating memory."""

import base64
import json
import re
import struct
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import trimesh

from ff3d.formats import POINT_READERS, READERS
from ff3d.formats.text import MeshError
from ff3d.formats.writers import save_mesh
from ff3d.shapes.mesh import load_mesh
from ff3d.shapes.point_cloud import load_points

PEAK = 2**25  # bytes; the files have some 5,000
BALL = trimesh.creation.icosphere(2)
HUGE = [b"1000000000000", b"4294967295", b"-1", b"99999999999999999999999", b"nan", b"1e400", b"0"]


def text_rows(table, front: str = "") -> str:
    return "".join(front + " ".join(map(str, row)) + "\n" for row in table.tolist())


def gltf(mesh: trimesh.Trimesh) -> bytes:
    points, faces = mesh.vertices.astype("<f4"), mesh.faces.astype("<u2")
    shift = np.array([[0, 0, 0], [3, 0, 0]], dtype="<f4")
    body = points.tobytes() + faces.tobytes() + shift.tobytes()
    views = np.cumsum([0, points.nbytes, faces.nbytes]).tolist()
    header = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [
            {"children": [1], "translation": [1, 2, 3], "rotation": [0, 0, 0, 1]},
            {"mesh": 0, "extensions": {"EXT_mesh_gpu_instancing": {"attributes": {"TRANSLATION": 2}}}},
        ],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "accessors": [
            {"bufferView": 0, "componentType": 5126, "count": len(points), "type": "VEC3"},
            {"bufferView": 1, "componentType": 5123, "count": faces.size, "type": "SCALAR"},
            {"bufferView": 2, "componentType": 5126, "count": 2, "type": "VEC3"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": start, "byteLength": end - start}
            for start, end in zip(views, [*views[1:], len(body)], strict=True)
        ],
        "buffers": [{"byteLength": len(body), "uri": "data:;base64," + base64.b64encode(body).decode()}],
    }
    return json.dumps(header).encode()


def pcd(points: np.ndarray, encoding: str) -> bytes:
    head = "VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\n"
    head += f"WIDTH {len(points)}\nHEIGHT 1\nPOINTS {len(points)}\nDATA {encoding}\n"
    if encoding == "ascii":
        return (head + text_rows(points)).encode()
    if encoding == "binary":
        return head.encode() + points.astype("<f4").tobytes()
    raw = points.T.astype("<f4").tobytes()
    packed = b"".join(bytes([len(raw[at : at + 32]) - 1]) + raw[at : at + 32] for at in range(0, len(raw), 32))
    return head.encode() + struct.pack("<II", len(packed), len(raw)) + packed


def originals(folder: Path) -> dict[str, bytes]:
    """A small sound file of each reader and dialect."""
    mixed = [[4, 0, 1, 2, 3], [3, 0, 1, 2]]
    points, faces = BALL.vertices, BALL.faces
    counted = np.column_stack([np.full(len(faces), 3), faces])
    head = f"ply\nformat ascii 1.0\nelement vertex {len(points)}\nproperty double x\nproperty double y\n"
    head += f"property double z\nelement face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    for ending in (".ply", ".obj", ".stl", ".glb"):
        save_mesh(BALL, folder / f"ball{ending}")
    np.save(folder / "ball.npy", points)
    np.savez(folder / "ball.npz", points=points, normals=points)
    files = {f"saved{path.suffix}": path.read_bytes() for path in folder.iterdir()}
    facets = "".join(
        "facet normal 0 0 1\nouter loop\n" + text_rows(triangle, "vertex ") + "endloop\nendfacet\n"
        for triangle in BALL.triangles[:40]
    )
    uneven = head.replace("ascii", "binary_big_endian").replace(f"face {len(faces)}", "face 2").encode()
    uneven += points.astype(">f8").tobytes() + b"".join(bytes([n]) + np.array(f, ">i4").tobytes() for n, *f in mixed)
    return files | {
        "text.ply": (head + text_rows(points) + text_rows(counted)).encode(),
        "uneven.ply": uneven,
        "text.stl": f"solid a\n{facets}endsolid a\n".encode(),
        "text.off": f"OFF\n{len(points)} {len(faces)} 0\n{text_rows(points)}{text_rows(counted)}".encode(),
        "one_line.off": f"OFF {len(points)} {len(faces)} 0 {text_rows(points)}{text_rows(counted)}".replace(
            "\n", " "
        ).encode(),
        "instances.gltf": gltf(BALL),
        "cloud.xyz": text_rows(np.hstack([points, points])).encode(),
        "cloud.pts": (f"{len(points)}\n" + text_rows(points)).encode(),
        "cloud.csv": ("x,y,z\n" + text_rows(points).replace(" ", ",")).encode(),
        "cloud.asc": text_rows(points).replace(".", ",").encode(),
        "ascii.pcd": pcd(points, "ascii"),
        "binary.pcd": pcd(points, "binary"),
        "packed.pcd": pcd(points, "binary_compressed"),
    }


def mutations(data: bytes, rng: np.random.Generator, count: int) -> list[bytes]:
    """Cut files, files with other bytes, and files with other numbers in their text, the head above all."""
    found = []
    numbers = [match.span() for match in re.finditer(rb"\d+", data[: 2**16])]
    for k in range(count):
        other = bytearray(data)
        if k % 4 == 0:
            other = other[: rng.integers(len(data))]
        elif k % 4 == 1:
            for place in rng.integers(len(data), size=rng.integers(1, 20)):
                other[place] = rng.integers(256)
        elif k % 4 == 2:
            for place in rng.integers(min(len(data), 300), size=3):
                other[place] = rng.integers(256)
        elif numbers:
            start, end = numbers[min(int(rng.exponential(6)), len(numbers) - 1)]
            other[start:end] = HUGE[rng.integers(len(HUGE))]
        found.append(bytes(other))
    return found


NAMES = [
    *(f"saved{ending}" for ending in (".ply", ".obj", ".stl", ".glb", ".npy", ".npz")),
    *("text.ply", "uneven.ply", "text.stl", "text.off", "one_line.off", "instances.gltf"),
    *("cloud.xyz", "cloud.pts", "cloud.csv", "cloud.asc", "ascii.pcd", "binary.pcd", "packed.pcd"),
]


def test_every_reader_is_tried():
    endings = {Path(name).suffix for name in NAMES}
    assert endings >= {*READERS, *POINT_READERS} - {".txt"}  # the reader of .txt is that of .xyz


@pytest.mark.parametrize("name", NAMES)
def test_a_mutated_file_gives_a_shape_or_one_clear_line(tmp_path, name):
    (tmp_path / "originals").mkdir()
    data = originals(tmp_path / "originals")[name]
    ending = Path(name).suffix
    loaders = [load for load, known in ((load_mesh, READERS), (load_points, POINT_READERS)) if ending in known]
    path = tmp_path / f"file{ending}"
    path.write_bytes(data)
    for load in loaders:
        load(path)  # the original is sound
    rng = np.random.default_rng(len(name))
    for mutated in mutations(data, rng, 80):
        path.write_bytes(mutated)
        for load in loaders:
            tracemalloc.start()
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    load(path)
            except MeshError as fault:
                message = str(fault)
                assert message.startswith(f"{path}: ")
                assert "\n" not in message
                assert len(message) < 500
                assert not re.search("Warning|TypeCheck|beartype", message)
            finally:
                _, peak = tracemalloc.get_traced_memory()
                tracemalloc.stop()
            assert peak < PEAK, mutated[:300]


def test_what_a_file_says_of_itself_at_length_is_cut_in_the_message(tmp_path):
    header = f"VERSION 0.7\nFIELDS x y z\nSIZE 4 4 4\nTYPE {'Q' * 2000} F F\nCOUNT 1 1 1\nWIDTH 1\nHEIGHT 1\nPOINTS 1\n"
    (tmp_path / "scan.pcd").write_text(f"{header}DATA ascii\n1 2 3\n")
    with pytest.raises(MeshError, match="its PCD header makes no sense") as caught:
        load_points(tmp_path / "scan.pcd")
    assert len(str(caught.value)) < 400 + len(str(tmp_path))
