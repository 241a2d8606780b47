"""glTF 2.0 and GLB: the triangles of a scene, placed in float64.

Read here and not by trimesh (5.2 as tried), which leaves out the instances of EXT_mesh_gpu_instancing, what unknown
required extensions hold and meshes on a camera's node without a word, and knows neither triangle fans nor strips that
start again. Source: the glTF 2.0 specification of the Khronos Group, and its extensions.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
from numpy.typing import NDArray

from ff3d.formats.polygons import Polygons, fan_triangles, strip_triangles
from ff3d.formats.text import MeshError
from ff3d.geometry.arrays import Floats, Ints

logger = logging.getLogger(__name__)

Part = tuple[Floats, Ints]  # vertices (v, 3), triangles (t, 3)

INSTANCING, DRACO = "EXT_mesh_gpu_instancing", "KHR_draco_mesh_compression"
# What a file may require: what is read here, and what leaves the shape as it is (looks, lights and metadata).
READ = re.compile(
    rf"{INSTANCING}|{DRACO}|KHR_mesh_quantization|(KHR|EXT|ADOBE)_materials_\w+|\w+_texture_\w+|KHR_texture_\w+"
    r"|(KHR|EXT)_lights_\w+|KHR_xmp\w*|EXT_(structural_metadata|mesh_features|instance_features)|KHR_animation_pointer"
    r"|KHR_techniques_webgl|KHR_blend|FB_ngon_encoding"
)
MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression", "MESHOPT_compression")

KINDS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
POINTS, TRIANGLES, STRIP, FAN = 0, 4, 5, 6  # modes of primitives; those between POINTS and TRIANGLES are lines

MOST = 2**27  # vertices or triangles of all instances: a small file may ask for more than any memory holds
EXPORT = "export or download it again"


def read_gltf(path: Path) -> Polygons:
    """The triangles of the default scene's meshes, all instances of them, placed by their nodes; a mirror turns them.

    Points and lines beside triangles are left out, and skins and morph targets are taken at rest; logged.
    Raises MeshError for what would else be lost unsaid: extensions that the file requires and that are not read here,
    meshopt's compression, Draco's without the package DracoPy.
    """
    try:
        return _read_scene(_File(path))
    except KeyError as error:
        raise MeshError(f"damaged: its JSON lacks {error}; {EXPORT}") from error


def _read_scene(file: _File) -> Polygons:
    """The triangles of `read_gltf`."""
    meshes: dict[int, list[Part]] = {}
    placed: list[tuple[Floats, Ints, Floats]] = []
    stored = 0
    for mesh, matrices in _placements(file):
        if mesh not in meshes:
            meshes[mesh] = []
            for part in _primitives(file, mesh):
                meshes[mesh].append(part)
                if (stored := stored + sum(map(len, part))) > MOST:
                    raise MeshError(f"its primitives have more than the {MOST:,} vertices and triangles that are read")
        placed += [(*part, matrices) for part in meshes[mesh]]
    for what, total in {
        "vertices": sum(len(points) * len(matrices) for points, _, matrices in placed),
        "triangles": sum(len(triangles) * len(matrices) for _, triangles, matrices in placed),
    }.items():
        if total > MOST:
            raise MeshError(f"its instances make {total:,} {what}, more than the {MOST:,} that are read; export fewer")
    file.refuse_nothing(any(len(triangles) for _, triangles, _ in placed))
    vertices, corners, first = [np.zeros((0, 3))], [np.zeros(0, dtype=np.int64)], 0
    for points, triangles, matrices in placed:
        vertices.append((points @ matrices[:, :3, :3].transpose(0, 2, 1) + matrices[:, None, :3, 3]).reshape(-1, 3))
        starts = first + len(points) * np.arange(len(matrices))
        # a mirror turns a solid inside out, and glTF says to turn its faces back
        mirrored = np.linalg.det(matrices[:, :3, :3]) < 0
        copies = triangles + starts[:, None, None]
        copies[mirrored] = copies[mirrored][..., ::-1]
        corners.append(copies.reshape(-1))
        first += len(points) * len(matrices)
    file.log()
    flat = np.concatenate(corners)
    return np.concatenate(vertices), flat, np.full(len(flat) // 3, 3)


class _File:
    """The header, its buffers, and what is to be logged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notes: dict[str, None] = {}  # an ordered set
        self.points = self.lines = 0
        self.buffers: dict[int, bytes] = {}
        data = path.read_bytes()
        self.chunk: bytes | None = None
        if data[:4] == b"glTF":
            data = self._unpack(data)
        elif path.suffix.lower() == ".glb":
            raise MeshError(
                f"no GLB header; {EXPORT}"
                if data.lstrip()[:1] != b"{"
                else "no GLB header but JSON: rename it to .gltf, or export it again"
            )
        try:  # names in another encoding than UTF-8 do no harm
            self.header: dict[str, Any] = json.loads(data.decode(json.detect_encoding(data), errors="replace"))
        except ValueError as error:
            raise MeshError(f"its JSON is damaged or cut short ({error}); {EXPORT}") from error
        if not isinstance(self.header, dict):
            raise MeshError(f"no glTF: its JSON is no object; {EXPORT}")
        self._check_version()

    def _unpack(self, data: bytes) -> bytes:
        """The JSON of a GLB; its binary chunk becomes `chunk`."""
        version, size = (int.from_bytes(data[at : at + 4], "little") for at in (4, 8))
        if len(data) < 12 or size > len(data):
            raise MeshError(f"cut short: {size} bytes promised, {len(data)} there; {EXPORT}")
        if version != 2:
            raise MeshError(f"glTF {version}.0 is not read, only 2.0; convert it, for example with Blender")
        if size < len(data):
            self.notes[f"{len(data) - size} bytes behind its end left out"] = None
        chunks: dict[bytes, bytes] = {}
        at = 12
        while at + 8 <= size:
            length, kind = int.from_bytes(data[at : at + 4], "little"), data[at + 4 : at + 8]
            if at + 8 + length > size:
                raise MeshError(f"cut short or damaged: a chunk of {length} bytes, {size - at - 8} are left; {EXPORT}")
            chunks.setdefault(kind, data[at + 8 : at + 8 + length])
            at += 8 + length
        if b"JSON" not in chunks:
            raise MeshError(f"a GLB without JSON; {EXPORT}")
        self.chunk = chunks.get(b"BIN\0")
        return chunks[b"JSON"].rstrip(b"\0 ")

    def _check_version(self) -> None:
        asset = self.header.get("asset", {})
        version = str(asset.get("minVersion") or asset.get("version") or "")
        if isinstance(self.header.get("meshes"), dict) or version.startswith(("0.", "1.")):
            raise MeshError(f"glTF {version or '1.0'} is not read, only 2.0; convert it, for example with Blender")
        if not re.fullmatch(r"2(\.\d+)?|", version) or (asset.get("minVersion") and version != "2.0"):
            raise MeshError(f"it needs glTF {version}, and 2.0 is read; export it as 2.0")
        required = self.header.get("extensionsRequired", [])
        unknown = [name for name in required if name not in MESHOPT and not READ.fullmatch(str(name))]
        if unknown:
            raise MeshError(
                f"it requires the extension {', '.join(map(str, unknown))}, which is not read; export without"
            )

    def refuse_nothing(self, triangles: bool) -> None:
        """Raise MeshError for a file without triangles, by what it has."""
        if triangles:
            return
        if self.points:
            raise MeshError(
                f"it is a point cloud of {self.points} points without faces, and ff3d needs faces; "
                "reconstruct a surface from the points first"
            )
        if self.lines:
            raise MeshError(f"it has no triangles, only {self.lines} primitives of lines; export it as a surface")
        raise MeshError(
            f"its scene holds no triangles, and the file {len(self.header.get('meshes', []))} meshes; {EXPORT}"
        )

    def log(self) -> None:
        """Say what was left out."""
        if self.lines or self.points:
            self.notes["points and lines beside the triangles left out"] = None
        for note in self.notes:
            logger.warning("%s: %s", self.path, note)

    def item(self, kind: str, index: Any) -> dict[str, Any]:
        """An entry of one of the header's lists. Raises MeshError if there is none."""
        entries = self.header.get(kind, [])
        if type(index) is not int or not 0 <= index < len(entries):
            raise MeshError(f"damaged: it names number {index!r} of its {len(entries)} {kind}; {EXPORT}")
        return entries[index]

    # ------------------------------------------------------------------------------------------ numbers

    def buffer(self, index: int) -> bytes:
        """The bytes of a buffer: in the GLB, in the header, or in a file beside it."""
        if index not in self.buffers:
            buffer = self.item("buffers", index)
            uri, size = buffer.get("uri"), int(buffer["byteLength"])
            if uri is None and (index or self.chunk is None):
                raise MeshError(f"buffer {index} has no data: no uri, and no chunk of a GLB; {EXPORT}")
            data = self.chunk if uri is None else _fetch(str(uri), self.path)
            assert data is not None
            if len(data) < size:
                name = "its binary chunk" if uri is None else f"its buffer {_short(uri)}"
                raise MeshError(f"cut short: {size} bytes promised, {len(data)} there in {name}; {EXPORT}")
            self.buffers[index] = data
        return self.buffers[index]

    def view(self, index: Any) -> tuple[bytes, int, int, int | None]:
        """The buffer of a view, the view's first byte and length in it, and its stride."""
        view = self.item("bufferViews", index)
        packed = next((name for name in MESHOPT if name in view.get("extensions", {})), None)
        inside = view["buffer"] == 0 and self.chunk is not None
        if packed and not inside and "uri" not in self.item("buffers", view["buffer"]):
            raise MeshError(f"its geometry is compressed by {packed}, which is not read; export it without compression")
        data, start, length = self.buffer(view["buffer"]), int(view.get("byteOffset", 0)), int(view["byteLength"])
        if start < 0 or length < 0 or start + length > len(data):
            raise MeshError(
                f"damaged: bufferView {index} ends at byte {start + length}, its buffer at {len(data)}; {EXPORT}"
            )
        return data, start, length, view.get("byteStride")

    def rows(self, stored: dict[str, Any], kind: str, rows: int, width: int) -> NDArray[Any]:
        """Numbers (rows, width) from the bufferView and byteOffset of an entry. Raises MeshError if they do not fit."""
        data, start, length, stride = self.view(stored["bufferView"])
        size = np.dtype(kind).itemsize * width
        stride = size if stride is None else int(stride)
        offset = int(stored.get("byteOffset", 0))
        needed = offset + stride * (rows - 1) + size if rows else 0
        if offset < 0 or stride < size or needed > length:
            raise MeshError(
                f"damaged: {rows} rows need {needed} bytes, bufferView {stored['bufferView']} has {length}; {EXPORT}"
            )
        strides = (stride, np.dtype(kind).itemsize)
        return np.ndarray((rows, width), kind, data, start + offset, strides) if rows else np.zeros((0, width), kind)

    def accessor(self, index: Any, allowed: tuple[str, ...]) -> NDArray[Any]:
        """Numbers (n, width) of an accessor as float64, normalized integers from -1 to 1; indices (n, 1) as int64."""
        accessor = self.item("accessors", index)
        name, shape, number = f"accessor {index}", accessor.get("type"), accessor.get("componentType")
        if shape not in allowed or number not in KINDS or (shape == "SCALAR" and number not in (5121, 5123, 5125)):
            raise MeshError(
                f"damaged: {name} is of type {shape} of {number}, expected {' or '.join(allowed)}; {EXPORT}"
            )
        kind, rows, width = KINDS[number], accessor["count"], WIDTHS[shape]
        if type(rows) is not int or rows < 0:
            raise MeshError(f"damaged: {name} has {rows!r} rows; {EXPORT}")
        sparse = accessor.get("sparse")
        if "bufferView" in accessor:
            values = self.rows(accessor, kind, rows, width)
        elif sparse and rows <= 2**22:  # zeros, of which the file itself holds none: so not without bound
            values = np.zeros((rows, width), kind)
        else:
            raise MeshError(f"{name} has no data: no bufferView; {EXPORT}")
        if sparse:
            values, changed = values.copy(), int(sparse["count"])
            places = self.rows(sparse["indices"], KINDS[sparse["indices"]["componentType"]], changed, 1)
            if changed and places.max() >= rows:
                raise MeshError(f"damaged: {name} changes row {places.max()} of its {rows}; {EXPORT}")
            values[places[:, 0].astype(np.int64)] = self.rows(sparse["values"], kind, changed, width)
        if shape == "SCALAR":
            return values.astype(np.int64)
        numbers = values.astype(np.float64)
        if accessor.get("normalized") and number != 5126:
            numbers = np.maximum(numbers / np.iinfo(kind).max, -1.0)
        return numbers


def _fetch(uri: str, path: Path) -> bytes:
    """The bytes that a uri names: in itself, or in a file in the folder of the glTF, or below."""
    if uri[:5].lower() == "data:":
        head, _, body = uri.partition(",")
        raw = unquote_to_bytes(body)
        if not head.lower().endswith(";base64"):
            return raw
        try:
            return base64.b64decode(raw + b"=" * (-len(raw) % 4))
        except ValueError as error:
            raise MeshError(f"damaged: the base64 of its buffer ({error}); {EXPORT}") from error
    if re.match(r"[a-z][a-z0-9+.-]+:", uri, re.IGNORECASE):
        raise MeshError(f"its buffer lies elsewhere ({_short(uri)}); download that too, or export it as .glb")
    depth = 0
    name = unquote(uri).replace("\\", "/")
    for step in PurePosixPath(name).parts:
        depth += -1 if step == ".." else 1
        if depth < 0 or step.startswith("/") or "\0" in step:
            raise MeshError(f"its buffer {_short(uri)} lies outside of its folder, which is not read; put it beside it")
    for file in (path.parent / name, path.parent / uri):  # and a file whose name has the % in it
        if file.is_file():
            return file.read_bytes()
    raise MeshError(f"the .gltf is there, but its buffer {_short(uri)} is missing beside it; download both, or a .glb")


def _short(uri: Any) -> str:
    text = repr(str(uri))
    return text if len(text) <= 80 else f"{text[:76]}...'"


# ---------------------------------------------------------------------------------------------- scene


def _placements(file: _File) -> Iterator[tuple[int, Floats]]:
    """Each mesh on a node of the scene, and the matrices (n, 4, 4) that place its instances."""
    nodes, scenes = file.header.get("nodes", []), file.header.get("scenes", [])
    if scenes:
        roots = file.item("scenes", file.header.get("scene", 0)).get("nodes", [])
    elif nodes:
        children = {child for node in nodes for child in node.get("children", [])}
        roots = [index for index in range(len(nodes)) if index not in children]
    else:
        yield from ((mesh, np.eye(4)[None]) for mesh in range(len(file.header.get("meshes", []))))
        return
    visited: set[int] = set()
    open_nodes = [(index, np.eye(4)) for index in reversed(roots)]
    while open_nodes:
        index, parent = open_nodes.pop()
        node = file.item("nodes", index)
        if index in visited:
            raise MeshError(f"damaged: node {index} stands in the scene twice, or in a loop; {EXPORT}")
        visited.add(index)
        matrix = parent @ _matrix(node)
        if "mesh" in node:
            file.item("meshes", node["mesh"])
            if "skin" in node:
                file.notes["a skin: its mesh is taken at rest"] = None
            yield node["mesh"], matrix @ _instances(file, node)
        open_nodes += [(child, matrix) for child in reversed(node.get("children", []))]


def _matrix(node: dict[str, Any]) -> Floats:
    """The matrix (4, 4) of a node: its own, or that of its translation, rotation and scale."""
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    return _compose(*(np.array([node.get(name, rest)], dtype=np.float64) for name, rest in REST.items()))[0]


REST = {"translation": [0, 0, 0], "rotation": [0, 0, 0, 1], "scale": [1, 1, 1]}


def _compose(translation: Floats, rotation: Floats, scale: Floats) -> Floats:
    """Matrices (n, 4, 4) of translations (n, 3), unit quaternions x y z w (n, 4) and scales (n, 3)."""
    x, y, z, w = (rotation / np.linalg.norm(rotation, axis=1, keepdims=True)).T
    matrices = np.zeros((len(x), 4, 4))
    matrices[:, 0, :3] = np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], axis=1)
    matrices[:, 1, :3] = np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], axis=1)
    matrices[:, 2, :3] = np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], axis=1)
    matrices[:, :3, :3] *= scale[:, None]
    matrices[:, :3, 3], matrices[:, 3, 3] = translation, 1
    return matrices


def _instances(file: _File, node: dict[str, Any]) -> Floats:
    """The matrices (n, 4, 4) of a node's instances beneath its own; one, the identity, without the extension."""
    attributes = node.get("extensions", {}).get(INSTANCING, {}).get("attributes", {})
    columns = {}
    for name in REST:
        if name.upper() in attributes:
            columns[name] = file.accessor(attributes[name.upper()], ("VEC4",) if name == "rotation" else ("VEC3",))
    counts = {len(column) for column in columns.values()} or {1}
    if len(counts) > 1:
        raise MeshError(f"damaged: its instances' attributes have {' and '.join(map(str, counts))} rows; {EXPORT}")
    return _compose(
        *(columns.get(name, np.tile(np.array(rest, float), (min(counts), 1))) for name, rest in REST.items())
    )


# ---------------------------------------------------------------------------------------------- primitives


def _primitives(file: _File, mesh: int) -> Iterator[Part]:
    """The vertices and triangles of a mesh's primitives; points and lines are counted."""
    for primitive in file.item("meshes", mesh)["primitives"]:
        mode, attributes = primitive.get("mode", TRIANGLES), primitive.get("attributes", {})
        if mode not in range(7):
            raise MeshError(f"damaged: a primitive of mode {mode!r}; {EXPORT}")
        if primitive.get("targets"):
            file.notes["morph targets: their mesh is taken at rest"] = None
        if "POSITION" not in attributes:
            raise MeshError(f"a primitive of mesh {mesh} has no POSITION; {EXPORT}")
        if mode == POINTS:
            file.points += len(file.accessor(attributes["POSITION"], ("VEC3",)))
        elif mode < TRIANGLES:
            file.lines += 1
        stored = "bufferView" in file.item("accessors", attributes["POSITION"])
        if mode >= TRIANGLES and DRACO in primitive.get("extensions", {}) and not stored:
            yield _decode_draco(file, primitive["extensions"][DRACO])
        elif mode >= TRIANGLES:
            vertices = file.accessor(attributes["POSITION"], ("VEC3",))
            triangles = _triangles(file, primitive, mode, len(vertices))
            if triangles.size < len(vertices):  # other primitives have the rest of them
                used, corners = np.unique(triangles, return_inverse=True)
                vertices, triangles = vertices[used], corners.reshape(-1, 3)
            yield vertices, triangles


def _triangles(file: _File, primitive: dict[str, Any], mode: int, num_vertices: int) -> Ints:
    """The triangles (t, 3) of a primitive, whatever its mode. Raises MeshError for indices that do not fit."""
    restart = 2**32 - 1
    if "indices" in primitive:
        indices = file.accessor(primitive["indices"], ("SCALAR",))[:, 0]
        restart = int(np.iinfo(KINDS[file.item("accessors", primitive["indices"])["componentType"]]).max)
    else:
        indices = np.arange(num_vertices)
    if mode == TRIANGLES:
        if len(indices) % 3:
            raise MeshError(f"damaged: {len(indices)} corners of triangles, no multiple of 3; {EXPORT}")
        triangles = indices.reshape(-1, 3)
    elif mode == STRIP:
        triangles = strip_triangles(indices, restart)
    else:
        ends = [-1, *np.flatnonzero(indices == restart).tolist(), len(indices)]
        fans = [indices[start + 1 : end] for start, end in pairwise(ends) if end - start > 3]
        triangles = np.concatenate([np.zeros((0, 3), np.int64), *(fan_triangles(fan) for fan in fans)])
    if len(triangles) and not 0 <= triangles.min() <= triangles.max() < num_vertices:
        raise MeshError(
            f"its faces point past the vertices (to number {triangles.max()}, counted from 0, of {num_vertices}): "
            f"damaged; {EXPORT}"
        )
    return triangles


def _decode_draco(file: _File, extension: dict[str, Any]) -> Part:
    """The vertices and triangles of a primitive that Draco compressed."""
    try:
        import DracoPy
    except ImportError as error:
        raise MeshError(
            f"its geometry is compressed by {DRACO}: pip install 'ff3d[draco]', or export it without"
        ) from error
    data, start, length, _ = file.view(extension["bufferView"])
    try:
        mesh = DracoPy.decode(data[start : start + length])
    except Exception as error:
        raise MeshError(f"its {DRACO} data is damaged ({error}); {EXPORT}") from error
    faces = getattr(mesh, "faces", None)
    if faces is None:
        raise MeshError(f"its {DRACO} data holds points without faces; {EXPORT}")
    return np.asarray(mesh.points, dtype=np.float64).reshape(-1, 3), np.asarray(faces, dtype=np.int64).reshape(-1, 3)
