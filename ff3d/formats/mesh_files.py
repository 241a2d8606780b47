"""Mesh files, format by format: bytes -> vertices and faces, and back. `mesh.py` says what callers may rely on.

OBJ, PLY, STL and OFF are read here and not by trimesh (5.2 as tried), which says nothing when it drops the missing
faces of a cut file, counts negative OBJ indices from the end of the file and reorders faces by their material.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ff3d.files import write_whole
from ff3d.geometry.arrays import Floats, Ints
from ff3d.geometry.triangles import merge_exactly

if TYPE_CHECKING:
    import trimesh


Polygons = tuple[Floats, Ints, Ints]  # vertices (v, 3); the corners of all faces in a row; the corners of each face

logger = logging.getLogger(__name__)


class MeshError(ValueError):
    """A mesh that cannot be found, read or used; the message names the file, the fault and what to do."""


def clean_polygons(vertices: Floats, corners: Ints, lengths: Ints) -> tuple[Floats, Ints]:
    """Polygons -> used vertices (v, 3), triangles (f, 3); MeshError for the faults that `load_mesh` lists."""
    if not len(vertices):
        raise MeshError("it holds no vertices; export or download it again")
    if not len(corners):
        raise MeshError(
            f"it is a point cloud of {len(vertices)} points without faces, and ff3d needs faces; "
            "reconstruct a surface from the points first"
        )
    bad = corners[(corners < 0) | (corners >= len(vertices))]
    if len(bad):
        raise MeshError(
            f"{len(bad)} face corners point past the vertices (the first to number {bad[0]}, counted from 0, of "
            f"{len(vertices)}): the file is cut short or damaged; export or download it again"
        )
    if lengths.min() < 3:
        raise MeshError(f"face {lengths.argmin() + 1} has {lengths.min()} corners; remove it or export again")
    used = np.zeros(len(vertices), dtype=bool)
    used[corners] = True
    vertices, corners = vertices[used], (np.cumsum(used) - 1)[corners]
    broken = int((~np.isfinite(vertices)).any(axis=1).sum())
    if broken:
        raise MeshError(f"{broken} of its vertices are not finite (NaN or infinity); repair or export it again")
    extents = vertices.max(axis=0) / 2 - vertices.min(axis=0) / 2
    if extents.max() == 0:
        raise MeshError("all its vertices lie in one point; export it again, or with more digits")
    if extents.max() > 1e100:
        raise MeshError(f"it spans {2 * extents.max():.3g} units, whose volume float64 cannot hold; scale it down")
    return vertices, _triangulate(vertices, corners, lengths)


def _triangulate(vertices: Floats, corners: Ints, lengths: Ints) -> Ints:
    """Polygons as triangles (f, 3), in the polygons' order: fans, or clipped ears where a fan would fold over."""
    starts = np.cumsum(lengths) - lengths
    pieces, owners = [], []
    for n in np.unique(lengths).tolist():
        which = np.flatnonzero(lengths == n)
        rings = corners[starts[which, None] + np.arange(n)]
        fan = np.stack([np.repeat(rings[:, :1], n - 2, axis=1), rings[:, 1:-1], rings[:, 2:]], axis=-1)
        if n > 3:
            a, b, c = np.moveaxis(vertices[fan], 2, 0)
            normals = np.cross(b - a, c - a)
            folds = (np.einsum("pki,pi->pk", normals, normals.sum(axis=1)) < 0).any(axis=1)
            for i in np.flatnonzero(folds):
                fan[i] = rings[i][_clip_ears(vertices[rings[i]])]
        pieces.append(fan.reshape(-1, 3))
        owners.append(np.repeat(which, n - 2))
    order = np.argsort(np.concatenate(owners), kind="stable")
    return np.concatenate(pieces)[order]


def _clip_ears(ring: Floats) -> list[tuple[int, int, int]]:
    """Triangles of one simple, nearly flat polygon (n, 3), as places in its ring."""
    shifted = ring - ring[0]
    normal = np.cross(shifted, np.roll(shifted, -1, axis=0)).sum(axis=0)
    axis = int(np.abs(normal).argmax())
    flat = shifted[:, [(axis + 1) % 3, (axis + 2) % 3]] * [np.sign(normal[axis]), 1.0]

    def turn(a: int, b: int, others: Any) -> Any:  # > 0 where the others lie left of a -> b
        (u, v), to = flat[b] - flat[a], flat[others] - flat[a]
        return u * to[..., 1] - v * to[..., 0]

    left, triangles = list(range(len(ring))), []
    while len(left) > 3:
        for k in range(len(left)):
            ear = a, b, c = left[k - 1], left[k], left[(k + 1) % len(left)]
            rest = np.array(left)  # a corner may come twice, where a bridge leads to a hole
            rest = rest[~(flat[rest, None] == flat[[a, b, c]]).all(axis=2).any(axis=1)]
            within = (turn(a, b, rest) >= 0) & (turn(b, c, rest) >= 0) & (turn(c, a, rest) >= 0)
            if turn(a, b, c) > 0 and not within.any():
                break
        triangles.append(ear)  # no ear is left only in rings that cross themselves: then any corner does
        left.remove(ear[1])
    return [*triangles, (left[0], left[1], left[2])]


def _read_obj(path: Path) -> Polygons:
    """Wavefront OBJ: v and f lines, indices from 1 or (negative) back from the face's place in the file."""
    text = path.read_bytes().decode("utf-8", errors="replace").replace("\\\r\n", " ").replace("\\\n", " ")
    numbers: list[str] = []
    corners: list[str] = []
    lengths, seen = [], []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words and words[0] == "v":
            if len(words) < 4:
                raise MeshError(f"{line.strip()!r} has under 3 coordinates: cut short; export or download it again")
            numbers += words[1:4]
        elif words and words[0] == "f":
            corners += words[1:]
            lengths.append(len(words) - 1)
            seen.append(len(numbers) // 3)
    index = np.array([int(corner.partition("/")[0]) for corner in corners], dtype=np.int64)
    if (index == 0).any():
        raise MeshError("a face names vertex 0, but OBJ counts from 1; export it again")
    counts = np.array(lengths, dtype=np.int64)
    index += np.where(index < 0, np.repeat(np.array(seen, dtype=np.int64), counts), -1)
    return np.array(list(map(float, numbers))).reshape(-1, 3), index, counts


def _read_off(path: Path) -> Polygons:
    """OFF text, with or without colours and normals (COFF, NOFF, STOFF); comments start with #."""
    text = path.read_bytes().decode("utf-8", errors="replace")
    lines = [words for line in text.splitlines() if (words := line.partition("#")[0].split())]
    if not lines or lines[0][0] not in ("OFF", "COFF", "NOFF", "CNOFF", "STOFF") or "BINARY" in lines[0]:
        raise MeshError("no OFF header (OFF, COFF, NOFF, CNOFF or STOFF, as text); export it again, best as PLY")
    lines[0] = lines[0][1:]  # the counts may stand behind the header, or on the next line
    lines = lines if lines[0] else lines[1:]
    num_vertices, num_faces = int(lines[0][0]), int(lines[0][1])
    rows, faces = lines[1 : 1 + num_vertices], lines[1 + num_vertices : 1 + num_vertices + num_faces]
    lengths = np.array([int(face[0]) for face in faces], dtype=np.int64)
    rings = [face[1 : 1 + n] for face, n in zip(faces, lengths.tolist(), strict=True)]
    whole = len(rows) == num_vertices and len(faces) == num_faces
    if not whole or any(len(row) < 3 for row in rows) or [len(ring) for ring in rings] != lengths.tolist():
        raise MeshError(
            f"it promises {num_vertices} vertices and {num_faces} faces but ends in the midst: cut short; "
            "export or download it again"
        )
    vertices = np.array([float(x) for row in rows for x in row[:3]]).reshape(-1, 3)
    return vertices, np.array([int(i) for ring in rings for i in ring], dtype=np.int64), lengths


_STL_FACE = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("extra", "<u2")])


def _read_stl(path: Path) -> Polygons:
    """STL, binary (float32) or text, all its solids; corners that coincide exactly become one vertex."""
    data = path.read_bytes()
    count = int.from_bytes(data[80:84], "little")
    if len(data) != 84 + 50 * count and re.match(rb"\s*solid", data, re.IGNORECASE):
        text = data.lower()
        found = re.findall(rb"^\s*vertex[ \t]+(\S+)[ \t]+(\S+)[ \t]+(\S+)\s*$", text, re.MULTILINE)
        corners = np.array(found, dtype="S").astype(np.float64).reshape(-1, 3)
        facets, ends = (len(re.findall(rb"^\s*%s\b" % word, text, re.MULTILINE)) for word in (b"facet", b"endfacet"))
        if not re.search(rb"^\s*endsolid[^\n]*\s*\Z", text, re.MULTILINE) or not len(found) == 3 * facets == 3 * ends:
            raise MeshError("text STL cut short: a facet or `endsolid` is missing; export or download it again")
    elif len(data) != 84 + 50 * count:
        raise MeshError(
            f"binary STL cut short or damaged: {count} faces take {84 + 50 * count} bytes, the file has {len(data)}; "
            "export or download it again"
        )
    else:
        faces = np.frombuffer(data, _STL_FACE, offset=84)
        corners = faces["corners"].astype(np.float64).reshape(-1, 3)
    first, index = merge_exactly(corners)
    # number the vertices as the faces meet them, so that a written mesh comes back in its order
    order = np.argsort(first)
    rank = np.argsort(order)
    return corners[first[order]], rank[index], np.full(len(corners) // 3, 3)


_PLY_TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"}

_PLY_TYPES |= {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}

_PLY_TYPES |= {"int64": "i8", "uint64": "u8", "float": "f4", "float32": "f4", "double": "f8", "float64": "f8"}


def _ply_columns(path: Path) -> dict[str, dict[str, NDArray[Any]]]:
    """PLY, text or binary of either byte order: the columns of each element, by element and property."""
    data = path.read_bytes()
    head = re.match(rb"ply\s.*?\send_header[ \t]*\r?\n", data, re.DOTALL)
    if not head:
        raise MeshError("no PLY header, or cut short in it; export or download it again")
    lines = [line.split() for line in head[0].decode("latin-1").splitlines()]
    encoding = next(words[1] for words in lines if words[:1] == ["format"])
    prefix = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[encoding]
    body = data[head.end() :]
    if not prefix:  # numbers as text become numbers in binary: one reader for both
        body = np.array([float(word) for word in body.split()], dtype="<f8").tobytes()
    elements: list[tuple[str, int, list[tuple[str, str, str]]]] = []
    for words in lines:
        if words[:1] == ["element"]:
            elements.append((words[1], int(words[2]), []))
        elif words[:1] == ["property"]:
            length, kind = (
                (prefix + _PLY_TYPES[word] if prefix else "<f8") if word else ""
                for word in (words[2:4] if words[1] == "list" else ["", words[1]])
            )
            elements[-1][2].append((words[-1], length, kind))
    at, columns = 0, dict[str, dict[str, NDArray[Any]]]()
    for name, count, properties in elements:
        try:
            columns[name], at = _ply_element(body, at, count, properties)
        except ValueError as error:
            raise MeshError(f"cut short or damaged in its {count} {name} rows; export it again") from error
    if at != len(body):
        raise MeshError(f"damaged: {len(body) - at} bytes of data behind the last row; export it again")
    return columns


def read_ply_points(path: Path) -> tuple[Floats, Floats | None]:
    """The vertices (n, 3) of a PLY, with faces or without, and their nx ny nz (n, 3), if it holds them.

    Raises MeshError for a file that is damaged or cut short, or without x, y or z; ValueError or KeyError for a
    header that makes no sense.
    """
    vertex = _ply_columns(path).get("vertex") or dict.fromkeys("xyz", np.zeros(0))
    missing = [axis for axis in "xyz" if axis not in vertex]
    if missing:
        raise MeshError(f"its vertices lack {' '.join(missing)}; export it again, as points with x y z")
    points = np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(np.float64)
    names = ["nx", "ny", "nz"]
    if not all(name in vertex for name in names):
        return points, None
    return points, np.stack([vertex[name] for name in names], axis=1).astype(np.float64)


def _read_ply(path: Path) -> Polygons:
    """The vertices and faces of a PLY."""
    columns = _ply_columns(path)
    if "tristrips" in columns:
        raise MeshError("its faces are triangle strips, which ff3d does not read; save it with plain faces")
    vertex, face = columns.get("vertex") or dict.fromkeys("xyz", np.zeros(0)), columns.get("face", {})
    index = "vertex_indices" if "vertex_indices" in face else "vertex_index"
    corners, lengths = face.get(index, np.zeros(0)), face.get(f"{index}#", np.zeros(0))
    with np.errstate(invalid="ignore"):
        numbers = corners.astype(np.int64)
    if (numbers != corners).any():
        raise MeshError("damaged: a face names a vertex by a broken number; export or download it again")
    return np.stack([vertex[axis] for axis in "xyz"], axis=1).astype(np.float64), numbers, lengths.astype(np.int64)


def _ply_element(
    body: bytes, at: int, count: int, properties: list[tuple[str, str, str]]
) -> tuple[dict[str, NDArray[Any]], int]:
    """Read `count` rows from byte `at`; return their columns and the byte behind them.

    properties: (name, type of the length or "", type). A list `p` comes as its values in a row, its lengths as `p#`.
    Raises ValueError if the body ends before.
    """
    if not count:
        return {}, at
    fields: list[tuple[str, str, tuple[int, ...]]] = []
    for name, length, kind in properties:  # the lengths of the first row; mostly all rows have them
        if length:
            fields.append((f"{name}#", length, (1,)))
        place = at + np.dtype(fields).itemsize
        n = int(np.frombuffer(body, length, 1, place - np.dtype(length).itemsize)[0]) if length else 1
        fields.append((name, kind, (n,)))
    if at + count * np.dtype(fields).itemsize <= len(body):
        rows = np.frombuffer(body, fields, count, at)
        if all((rows[f"{p[0]}#"] == rows[p[0]].shape[1]).all() for p in properties if p[1]):
            return {field[0]: rows[field[0]].reshape(-1) for field in fields}, at + rows.nbytes
    values: dict[str, list[NDArray[Any]]] = {field[0]: [] for field in fields}
    for _ in range(count):
        for name, length, kind in properties:
            n = 1
            if length:
                values[f"{name}#"].append(np.frombuffer(body, length, 1, at))
                n = int(values[f"{name}#"][-1][0])
                at += np.dtype(length).itemsize
            if n < 0 or at + n * np.dtype(kind).itemsize > len(body):
                raise ValueError("the rows end early")
            values[name].append(np.frombuffer(body, kind, n, at))
            at += values[name][-1].nbytes
    return {name: np.concatenate(parts) for name, parts in values.items()}, at


def _read_gltf(path: Path) -> Polygons:
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


READERS: dict[str, Callable[[Path], Polygons]] = {
    ".obj": _read_obj,
    ".ply": _read_ply,
    ".stl": _read_stl,
    ".off": _read_off,
    ".glb": _read_gltf,
    ".gltf": _read_gltf,
}


def _float32_loss(vertices: Floats) -> float:
    """The largest change of a coordinate by rounding to float32 if it matters (> 1e-7 of the extent), else 0."""
    with np.errstate(over="ignore"):
        loss = float(np.abs(vertices.astype(np.float32) - vertices).max())
    return loss if loss > 1e-7 * np.ptp(vertices, axis=0).max() else 0.0


def _normals(mesh: trimesh.Trimesh) -> Floats:
    """The vertices' normals (v, 3): those that the mesh was given, else the mean of the faces around, by angle."""
    import igl

    if "vertex_normals" in mesh._cache:  # trimesh's own mean takes four times as long
        return np.asarray(mesh.vertex_normals)
    faces = np.ascontiguousarray(mesh.faces, dtype=np.int64)
    by_angle = igl.PER_VERTEX_NORMALS_WEIGHTING_TYPE_ANGLE
    normals: Floats = igl.per_vertex_normals(np.ascontiguousarray(mesh.vertices, dtype=np.float64), faces, by_angle)
    return np.nan_to_num(normals)


def _write_ply(mesh: trimesh.Trimesh, path: Path) -> bytes:
    kind, name = ("<f8", "double") if _float32_loss(mesh.vertices) else ("<f4", "float")
    vertices = np.zeros(len(mesh.vertices), [("position", kind, 3), ("normal", "<f4", 3)])
    vertices["position"], vertices["normal"] = mesh.vertices, _normals(mesh)
    faces = np.zeros(len(mesh.faces), [("corners", "u1"), ("index", "<i4", 3)])
    faces["corners"], faces["index"] = 3, mesh.faces
    head = [f"ply\nformat binary_little_endian 1.0\ncomment ff3d\nelement vertex {len(vertices)}"]
    head += [f"property {name} {axis}" for axis in "xyz"] + [f"property float n{axis}" for axis in "xyz"]
    head += [f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"]
    return "\n".join(head).encode() + vertices.tobytes() + faces.tobytes()


def _write_obj(mesh: trimesh.Trimesh, path: Path) -> bytes:
    lines = ["# ff3d", *(f"v {x!r} {y!r} {z!r}" for x, y, z in np.asarray(mesh.vertices, dtype=float).tolist())]
    lines += [f"vn {x:.6g} {y:.6g} {z:.6g}" for x, y, z in _normals(mesh).tolist()]
    lines += [f"f {a}//{a} {b}//{b} {c}//{c}" for a, b, c in (mesh.faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()


def _write_stl(mesh: trimesh.Trimesh, path: Path) -> bytes:
    loss = _float32_loss(mesh.vertices)
    if loss == math.inf:
        raise ValueError(f"{path}: STL holds float32, which ends at 3.4e38; write .ply")
    if loss:
        logger.warning("%s: STL holds float32, which moves vertices by up to %.3g units; .ply keeps them", path, loss)
    faces = np.zeros(len(mesh.faces), _STL_FACE)
    faces["normal"], faces["corners"] = mesh.face_normals, mesh.vertices[mesh.faces]
    return b"ff3d".ljust(80) + len(faces).to_bytes(4, "little") + faces.tobytes()


def _write_glb(mesh: trimesh.Trimesh, path: Path) -> bytes:
    import trimesh

    vertices, placement = np.asarray(mesh.vertices, dtype=np.float64), np.eye(4)
    if _float32_loss(vertices):
        sides = np.ptp(vertices, axis=0)
        size = sides.max() or 1.0
        placement[:3] = np.column_stack([size * np.eye(3), vertices.min(axis=0) + sides / 2])
        vertices = (vertices - placement[:3, 3]) / size
    scene = trimesh.Scene()
    part = trimesh.Trimesh(vertices, mesh.faces, vertex_normals=_normals(mesh), process=False)
    scene.add_geometry(part, transform=placement)
    data = scene.export(file_type="glb", include_normals=True)
    assert isinstance(data, bytes)
    return data


WRITERS: dict[str, Callable[[trimesh.Trimesh, Path], bytes]] = {
    ".ply": _write_ply,
    ".obj": _write_obj,
    ".stl": _write_stl,
    ".glb": _write_glb,
}


def check_mesh_ending(path: str | Path) -> None:
    """Raise ValueError unless `save_mesh` can write to a path of this ending: ask before long work, not after."""
    ending = Path(path).suffix
    if ending.lower() not in WRITERS:
        raise ValueError(f"{path}: cannot write {ending!r}; known endings: {', '.join(WRITERS)}")


def save_mesh(mesh: trimesh.Trimesh, path: str | Path) -> None:
    """Write vertices, faces and (but for STL) vertex normals to `path`, by its ending .ply .obj .stl .glb.

    OBJ keeps float64 exactly. PLY keeps float32, or float64 where float32 would lose more than 1e-7 of the extent;
    there GLB holds float32 about the centre and a node transform, and STL, which has float32 only, loses digits:
    a logged warning says how many. Raises ValueError for another ending, no faces, a non-finite vertex, or an STL
    with coordinates past float32.
    """
    path = Path(path)
    check_mesh_ending(path)
    if not len(mesh.faces) or not np.isfinite(mesh.vertices).all():
        raise ValueError(f"{path}: not written, for the mesh has no faces or a vertex that is not finite")
    data = WRITERS[path.suffix.lower()](mesh, path)
    with write_whole(path) as temporary:
        temporary.write_bytes(data)


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Whatever goes wrong within becomes a MeshError of one line that names the file; an empty file is one too."""
    try:
        if file.stat().st_size == 0:
            raise MeshError("the file is empty; export or download it again")
        yield
    except MeshError as fault:
        raise MeshError(f"{file}: {fault}") from None
    except Exception as error:  # whatever a reader trips over is the file's fault, and one line says so
        what = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise MeshError(
            f"{file}: damaged, or not {file.suffix[1:].upper()} ({what}); export or download it again"
        ) from error
