"""Kinds of files that programs write or users report: each loads with the right shape, or is refused by its fault.

Every kind is made here, small; the files of ../shared/cases, where they are there, are tried as well.
"""

import base64
import json
import logging
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import trimesh

from ff3d.formats.text import MeshError
from ff3d.shapes.mesh import load_mesh
from ff3d.shapes.point_cloud import PointCloud, load_points, load_shape

SHARED = Path(__file__).resolve().parents[3] / "shared" / "cases"

BOX = trimesh.creation.box()  # of volume 1 about the origin
POINTS, FACES = np.array(BOX.vertices), np.array(BOX.faces)
SPHERE = trimesh.creation.icosphere(2).vertices  # of radius 1: each point is its own normal


class Right(NamedTuple):
    """What a file must give: a mesh (or a cloud, of `vertices` points), or a refusal; and what is logged."""

    vertices: int = 8
    faces: int = 12
    volume: float = 1.0
    refused: str = ""
    note: str = ""
    normals: bool = False
    extra: tuple[tuple[str, bytes], ...] = ()  # files beside it


def rows(table, front: str = "", end: str = "\n") -> str:
    return "".join(front + " ".join(map(str, row)) + end for row in np.asarray(table).tolist())


COUNTED = np.column_stack([np.full(12, 3), FACES])
V, F = rows(POINTS, "v "), rows(FACES + 1, "f ")

# ---------------------------------------------------------------------------------------------- OBJ

OBJ: dict[str, tuple[str | bytes, Right]] = {
    "byte-order mark, v first": ("\ufeff" + V + F, Right()),
    "byte-order mark and a stray vertex": ("\ufeff" + V + "v 9 9 9\n" + F, Right()),
    "comment that ends in a backslash": ("# C:\\dir\\\n" + V + F, Right()),
    "comment behind a vertex that ends in a backslash": (V.replace("\n", " # \\\n") + F, Right()),
    "group name that ends in a backslash": (V + "g C:\\\n" + F, Right()),
    "material that ends in a backslash": (V + "usemtl a\\\n" + F, Right()),
    "continued faces and vertices": (V.replace(" ", " \\\n ") + F.replace(" ", " \\\r\n", 1), Right()),
    "continued without a blank": (V + F.replace(" ", "\\\n"), Right(refused="")),
    "a backslash at the very end": (V + F.rstrip() + " \\", Right()),
    "U+2028 in a name": ("o a\u2028v 9 9 9\n" + V + F, Right()),
    "NEL in a name": ("o a\u0085v 9 9 9\n" + V + F, Right()),
    "form feed in a name": ("g a\fv 9 9 9\n" + V + F, Right()),
    "vertical tab and separators in names": ("g a\vv 9 9 9\ng b\x1cv 9 9 9\x1dv 9 9 9\x1ev 9 9 9\n" + V + F, Right()),
    "Latin-1 names": (("o Gehäuse\n" + V + F).encode("latin-1"), Right()),
    "UTF-16 with a mark": ((V + F).encode("utf-16"), Right()),
    "UTF-16, big, with a mark": (("\ufeff" + V + F).encode("utf-16-be"), Right()),
    "UTF-16, little, without a mark": ((V + F).encode("utf-16-le"), Right()),
    "UTF-16, big, without a mark": ((V + F).encode("utf-16-be"), Right()),
    "UTF-16 cut in the midst": ((V + F).encode("utf-16")[:-1], Right(refused="starts as UTF-16 text but is damaged")),
    "UTF-32": ((V + F).encode("utf-32"), Right()),
    "CR ends its lines": ((V + F).replace("\n", "\r"), Right()),
    "Ctrl-Z and zeros at the end": (V + F + "\x1a\0\0", Right()),
    "CR LF ends its lines": ((V + F).replace("\n", "\r\n"), Right()),
    "homogeneous coordinates": (rows(np.column_stack([2 * POINTS, np.full(8, 2.0)]), "v ") + F, Right()),
    "colours behind the coordinates": (rows(np.hstack([POINTS, 0.5 + 0 * POINTS]), "v ") + F, Right()),
    "a point at infinity": ("v 1 2 3 0\n" + V + "f 1 2 3\n" + F, Right(refused="are not finite")),
    "a face of two corners": (V + F + "f 1 2\n", Right(note="1 face(s) of fewer than three corners left out; face 13")),
    "a face of two corners at the end": (V + F + "f 1 2", Right(note="face 13 has 2 corners")),
    "a face of no corners": (V + "f\n" + F, Right(note="face 1 has 0 corners")),
    "face outlines of old files": (V + F.replace("f ", "fo "), Right()),
    "faces and face outlines, counted back": (
        V + "".join(f"{'fo' if i % 2 else 'f'} {a - 8} {b - 8} {c - 8}\n" for i, (a, b, c) in enumerate(FACES)),
        Right(),
    ),
    "a face outline of two corners": (V + "fo 1 2\n" + F, Right(note="face 1 has 2 corners")),
    "lines and points beside faces": (V + "l 1 2 3\np 4\n" + F, Right()),
    "-1.#IND": (
        V.replace("-0.5", "-1.#IND", 1) + F,
        Right(refused="vertices are not finite (NaN or infinity), the first is vertex 1;"),
    ),
    "1.#QNAN": (V.replace("-0.5", "1.#QNAN", 1) + F, Right(refused="are not finite")),
    "1.#INF00": (V.replace("-0.5", "1.#INF00", 1) + F, Right(refused="are not finite")),
    "1.#J": (V.replace("-0.5", "1.#J", 1) + F, Right(refused="are not finite")),
    "-nan(ind)": (V.replace("-0.5", "-nan(ind)", 1) + F, Right(refused="are not finite")),
    "nan and inf": (V.replace("-0.5", "-inf", 1).replace("-0.5", "NaN", 1) + F, Right(refused="are not finite")),
    "a comment glued to a number": (V.replace("\n", "#1.#IND\n", 1) + F, Right()),
    "numbers with _": (V.replace("0.5", "0_0.5", 1) + F, Right(refused="line 1: expected a number, got '-0_0.5'")),
    "a word in a face": (V + F.replace("3", "x", 1), Right(refused="line 11: expected a whole number, got 'x'")),
    "an index that no integer holds": (
        V + "f 1 2 99999999999999999999\n",
        Right(refused="line 9: expected a whole number"),
    ),
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n",
        Right(refused="Git LFS pointer"),
    ),
    "git-annex": (b"/annex/objects/MD5E-s12--ab.obj\n", Right(refused="git-annex pointer")),
    "a web page": ("\r\n<!DOCTYPE html><html><body>Not found</body></html>", Right(refused="a web page")),
    "a web page without a doctype": ("<html lang='en'><head>", Right(refused="a web page")),
    "a server's XML": ('<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', Right(refused="XML document")),
    "gzip": (b"\x1f\x8b\x08\x00abcd", Right(refused="compressed by gzip")),
    "zip": (b"PK\x03\x04abcd", Right(refused="a zip archive")),
}

# ---------------------------------------------------------------------------------------------- OFF


def off(header: str = "OFF\n", *, tail: str = "", faces: str = rows(COUNTED)) -> str:
    return header + "8 12 0\n" + rows(POINTS, end=tail + "\n") + faces


OFF: dict[str, tuple[str | bytes, Right]] = {
    "glued counts": (off("OFF"), Right()),
    "in small letters": (off("off\n"), Right()),
    "no header": (off(""), Right()),
    "no header, one line": (off("").replace("\n", " "), Right()),
    "one line": (off().replace("\n", " "), Right()),
    "a word a line": (off().replace("\n", " ").replace(" ", "\n"), Right()),
    "vertices two to a line": ("OFF\n8 12 0\n" + rows(POINTS.reshape(4, 6)) + rows(COUNTED), Right()),
    "byte-order mark": ("\ufeff" + off(), Right()),
    "UTF-16": (off().encode("utf-16"), Right()),
    "CR ends its lines": (off().replace("\n", "\r"), Right()),
    "no count of edges": (off().replace("8 12 0", "8 12"), Right()),
    "4OFF": ("4OFF\n8 12 0\n" + rows(np.column_stack([2 * POINTS, np.full(8, 2.0)])) + rows(COUNTED), Right()),
    "4OFF, one line": (
        ("4OFF 8 12 0\n" + rows(np.column_stack([POINTS, np.ones(8)])) + rows(COUNTED)).replace("\n", " "),
        Right(),
    ),
    "nOFF of 3": (off("nOFF 3\n"), Right()),
    "nOFF of 3, counts in its line": (off("nOFF\n3 "), Right()),
    "nOFF of 4": (
        "nOFF\n4\n8 12 0\n" + rows(np.column_stack([POINTS, np.ones(8)])) + rows(COUNTED),
        Right(refused="line 2: its space has '4' dimensions"),
    ),
    "noff with normals": (off("noff\n", tail=" 0 0 1"), Right()),
    "NOFF": (off("NOFF\n", tail=" 0 0 1"), Right()),
    "COFF of three colours": (off("COFF\n", tail=" 255 0 0"), Right()),
    "COFF, one line": (off("COFF\n", tail=" 255 0 0 255").replace("\n", " "), Right()),
    "STCNOFF": (off("STCNOFF\n", tail=" 0 0 1 1 1 1 1 0 0"), Right()),
    "STCNOFF, one line": (off("STCNOFF\n", tail=" 0 0 1 1 1 1 1 0 0").replace("\n", " "), Right()),
    "CNOFF in another order": (off("NCOFF\n", tail=" 0 0 1 1 1 1 1"), Right()),
    "ST4OFF": ("ST4OFF\n8 12 0\n" + rows(np.column_stack([POINTS, np.ones((8, 3))])) + rows(COUNTED), Right()),
    "colours of faces": (off(faces=rows(COUNTED, end=" 255 0 0\n")), Right()),
    "colours of some faces": (
        off(faces=rows(COUNTED[:6], end=" 1\n") + rows(COUNTED[6:], end=" 0.1 0.2 0.3 1\n")),
        Right(),
    ),
    "comments": ("# a\n" + off("OFF # b\n# c\n\n").replace("\n3", " # d\n3"), Right()),
    "a face of two corners": (off().replace("8 12", "8 13") + "2 0 1\n", Right(note="face 13 has 2 corners")),
    "rows behind": (off() + "3 0 1 2\n", Right(note="1 rows behind the last of 12 faces")),
    "binary": (b"OFF BINARY\n" + bytes(90), Right(refused="binary OFF is not read")),
    "cut": (off()[:-8], Right(refused="it promises 8 vertices and 12 faces but ends in the midst: cut short")),
    "10^12 vertices": (off().replace("8 12", "1000000000000 12"), Right(refused="promises 1000000000000 vertices")),
    "negative counts": (off().replace("8 12", "8 -12"), Right(refused="line 2: expected counts, got 8 and -12")),
    "a word": (off().replace("0.5", "O.5", 1), Right(refused="line 3: expected a number, got '-O.5'")),
    "no counts": ("OFF\n", Right(refused="the counts of vertices and faces are missing")),
    "another format": ("ply\n", Right(refused="no OFF header")),
}

# ---------------------------------------------------------------------------------------------- STL


def facets(end: str = "end") -> str:
    lines = [f"facet normal 0 0 0\nouter loop\n{rows(t, 'vertex ')}{end}loop\n{end}facet\n" for t in BOX.triangles]
    return "".join(lines)


def binary(header: bytes = b"", count: int = 12, behind: bytes = b"", payload: bytes = b"") -> bytes:
    body = b"".join(
        bytes(12) + t.astype("<f4").tobytes() + struct.pack("<H", len(payload)) + payload for t in BOX.triangles
    )
    return header.ljust(80) + struct.pack("<I", count) + body + behind


ASCII = f"solid a\n{facets()}endsolid a\n"
STL: dict[str, tuple[str | bytes, Right]] = {
    "byte-order mark": ("\ufeff" + ASCII, Right()),
    "UTF-16": (ASCII.encode("utf-16"), Right()),
    "UTF-16 without a mark": (ASCII.encode("utf-16-be"), Right()),
    "CR": (ASCII.replace("\n", "\r"), Right()),
    "CR LF": (ASCII.replace("\n", "\r\n"), Right()),
    "end solid": (f"solid\n{facets('end ')}end solid\n", Right()),
    "no endsolid": (f"solid a\n{facets()}", Right(note="without endsolid, perhaps cut short behind facet 12")),
    "text behind": (ASCII + "\nColor 1 2 3\n", Right()),
    "words in its name": (ASCII.replace("solid a", "solid facet vertex 1 2 3 endfacet"), Right()),
    "in capitals and tabs": (ASCII.upper().replace(" ", "\t"), Right()),
    "all in one line": (ASCII.replace("\n", " "), Right()),
    "a facet of four": (
        ASCII.replace("endloop", "vertex 0 0 0\nendloop", 1),
        Right(refused="line 2: a facet of 4 vertices, not three"),
    ),
    "a facet of two and one of four": (
        ASCII.replace("\nendloop\nendfacet", "", 1),
        Right(refused="of 12 facets 11 end"),
    ),
    "a word": (ASCII.replace("0.5", "O.5", 1), Right(refused="expected a number, got")),
    "1.#QNAN": (ASCII.replace("-0.5", "1.#QNAN", 1), Right(refused="not finite")),
    "no facets": ("solid a\nendsolid a\n", Right(refused="of 0 facets 0 end")),
    "solid in a binary header": (binary(b"solid facet normal"), Right()),
    "solid in a binary header, bytes behind": (
        binary(b"solid made by x", behind=b"0123456789"),
        Right(note="10 bytes behind the last of 12 faces left out"),
    ),
    "bytes behind": (binary(behind=b"\0\0"), Right(note="2 bytes behind the last of 12 faces left out")),
    "count 0": (binary(count=0), Right(note="the count of faces says 0; read the 12 there are")),
    "count 2^32 - 1": (binary(count=2**32 - 1), Right(note="says 4294967295; read the 12")),
    "count 2^32 - 1 and odd bytes": (
        binary(count=2**32 - 1, behind=b"1"),
        Right(refused="cut short or damaged: 4294967295 faces"),
    ),
    "count 0 and odd bytes": (binary(count=0, behind=b"1"), Right(refused="0 faces with 601 bytes behind them")),
    "count too large": (binary(count=13), Right(refused="13 faces take 734 bytes, the file has 684")),
    "colours in the last bytes": (binary()[:132] + b"\x1f\x80" + binary()[134:], Right()),
    "payloads": (binary(payload=b"abcd"), Right()),
    "a header alone": (binary()[:60], Right(refused="cut short in its header, after 60 bytes")),
}

# ---------------------------------------------------------------------------------------------- PLY

HEAD = "ply\nformat {}\nelement vertex 8\nproperty float x\nproperty float y\nproperty float z\n"
HEAD += "element face 12\nproperty list uchar int vertex_indices\nend_header\n"
PLY_TEXT = HEAD.format("ascii 1.0") + rows(POINTS) + rows(COUNTED)
BODY = POINTS.astype("<f4").tobytes() + b"".join(b"\3" + face.astype("<i4").tobytes() for face in FACES)
PLY_BINARY = HEAD.format("binary_little_endian 1.0").encode() + BODY
STRIPS = HEAD.format("ascii 1.0").replace("vertex 8", "vertex 4").replace("face 12", "tristrips 1")
TETRAHEDRON = rows([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])

HEADER_LISTS = HEAD.format("ascii 1.0").replace("end_header", "property list uchar float texcoord\nend_header")

PLY: dict[str, tuple[str | bytes, Right]] = {
    "numbers behind each row": (
        HEAD.format("ascii 1.0") + rows(POINTS, end=" 255 0 0\n") + rows(COUNTED, end=" 1 2 3\n"),
        Right(),
    ),
    "a number behind the last row": (PLY_TEXT + "0\n", Right(note="from line 30 on, 1 rows behind the last")),
    "a face behind the last": (
        PLY_TEXT + "3 0 1 2\n",
        Right(refused="line 30: 1 rows behind the last row of its 12 face rows"),
    ),
    "blank lines": (PLY_TEXT.replace("\n3", "\n\n3"), Right()),
    "a word a line": (HEAD.format("ascii 1.0") + (rows(POINTS) + rows(COUNTED)).replace(" ", "\n"), Right()),
    "CR in the header": (HEAD.format("binary_little_endian 1.0").replace("\n", "\r").encode() + BODY, Right()),
    "CR in the header, LF the first byte of data": (
        HEAD.format("binary_big_endian 1.0")
        .replace("\n", "\r")
        .replace("property float x", "property uchar n\rproperty float x")
        .encode()
        + b"".join(b"\n" + p.astype(">f4").tobytes() for p in POINTS)
        + b"".join(b"\3" + face.astype(">i4").tobytes() for face in FACES),
        Right(),
    ),
    "CR LF in the header": (HEAD.format("binary_little_endian 1.0").replace("\n", "\r\n").encode() + BODY, Right()),
    "CR throughout": (PLY_TEXT.replace("\n", "\r"), Right()),
    "byte-order mark": ("\ufeff" + PLY_TEXT, Right()),
    "byte-order mark, binary": (b"\xef\xbb\xbf" + PLY_BINARY, Right()),
    "a newline behind": (PLY_BINARY + b"\n", Right()),
    "newlines behind": (PLY_BINARY + b"\r\n\r\n", Right()),
    "bytes behind": (PLY_BINARY + b"12", Right(refused="damaged: 2 bytes of data behind the last row")),
    "X Y Z": (PLY_TEXT.replace(" x\n", " X\n").replace(" y\n", " Y\n").replace(" z\n", " Z\n"), Right()),
    "vertex_index": (PLY_TEXT.replace("vertex_indices", "vertex_index"), Right()),
    "vertex_indexes": (PLY_TEXT.replace("vertex_indices", "vertex_indexes"), Right()),
    "a list of another name": (PLY_TEXT.replace("vertex_indices", "corners"), Right()),
    "a property twice": (
        PLY_TEXT.replace("property float x", "property float x\nproperty float x")
        .replace("\n-0.5", "\n-0.5 7")
        .replace("\n0.5", "\n0.5 7"),
        Right(),
    ),
    "a property twice, binary": (
        PLY_BINARY.replace(b"property float z", b"property float z\nproperty uchar red\nproperty uchar red", 1)[
            : -len(BODY)
        ]
        + b"".join(p.astype("<f4").tobytes() + b"ab" for p in POINTS)
        + BODY[96:],
        Right(),
    ),
    "another list behind": (
        HEADER_LISTS + rows(POINTS) + rows(np.column_stack([COUNTED, np.full(12, 2), np.full((12, 2), 0.5)])),
        Right(),
    ),
    "lists of several lengths, binary": (
        HEADER_LISTS.replace("ascii", "binary_big_endian").encode()
        + POINTS.astype(">f4").tobytes()
        + b"".join(
            b"\3" + f.astype(">i4").tobytes() + bytes([k]) + np.ones(k, ">f4").tobytes() for k, f in enumerate(FACES)
        ),
        Right(),
    ),
    "strips": (STRIPS + TETRAHEDRON + "7 0 1 2 3 0 1 -1\n", Right(4, 4, -1 / 6)),
    "two strips in a row": (STRIPS + TETRAHEDRON + "8 0 2 1 -1 0 1 3 2\n", Right(4, 3, 1 / 6)),
    "strips, binary": (
        STRIPS.replace("ascii", "binary_little_endian").replace("uchar int", "int int").encode()
        + np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], "<f4").tobytes()
        + np.array([6, 0, 1, 2, 3, 0, 1], "<i4").tobytes(),
        Right(4, 4, -1 / 6),
    ),
    "cut": (PLY_TEXT[:-3], Right(refused="cut short or damaged in its 12 face rows")),
    "cut in its vertices": (
        "\n".join(PLY_TEXT.split("\n")[:13]),
        Right(refused="cut short or damaged after 4 of its 8 vertex rows"),
    ),
    "10^12 vertices": (
        PLY_TEXT.replace("vertex 8", "vertex 1000000000000"),
        Right(refused="of its 1000000000000 vertex rows"),
    ),
    "10^12 vertices, binary": (
        PLY_BINARY.replace(b"vertex 8", b"vertex 1000000000000"),
        Right(refused="of its 1000000000000 vertex rows"),
    ),
    "10^12 faces, binary": (
        PLY_BINARY.replace(b"face 12", b"face 1000000000000"),
        Right(refused="in its 1000000000000 face rows"),
    ),
    "no format": (PLY_TEXT.replace("format ascii 1.0\n", ""), Right(refused="no format line")),
    "an unknown type": (
        PLY_TEXT.replace("float y", "fload y"),
        Right(refused="line 5: 'property fload y' is no line of a PLY header"),
    ),
    "a word": (PLY_TEXT.replace("\n3 1", "\n3 l", 1), Right(refused="line 18: expected a number, got 'l'")),
    "no z": (PLY_TEXT.replace("float z", "float w"), Right(refused="its vertices lack z")),
    "a face of two corners": (PLY_TEXT.replace("face 12", "face 13") + "2 0 1\n", Right(note="face 13 has 2 corners")),
}

# ---------------------------------------------------------------------------------------------- glTF


def gltf(extra: dict[str, bytes] | None = None, *, nodes=None, primitives=None, uri=None, **header) -> str:
    """The cube; arrays by accessor: 0 its vertices, 1 its indices (uint16), then `extra` as (kind, type, bytes)."""
    arrays = [
        ("<f4", 5126, "VEC3", POINTS.astype("<f4")),
        ("<u2", 5123, "SCALAR", FACES.astype("<u2").reshape(-1)),
        *(extra or []),
    ]
    body, views, accessors = b"", [], []
    for kind, number, shape, array in arrays:
        data = np.asarray(array).astype(kind).tobytes()
        views.append({"buffer": 0, "byteOffset": len(body), "byteLength": len(data)})
        accessors.append({"bufferView": len(views) - 1, "componentType": number, "count": len(array), "type": shape})
        body += data + bytes(-len(data) % 4)
    made = {
        "asset": {"version": "2.0"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": nodes or [{"mesh": 0}],
        "meshes": [{"primitives": primitives or [CUBE]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(body), "uri": uri or DATA + base64.b64encode(body).decode()}],
    }
    return json.dumps({key: value for key, value in (made | header).items() if value is not None})


DATA = "data:application/octet-stream;base64,"
CUBE = {"attributes": {"POSITION": 0}, "indices": 1}
BIN = POINTS.astype("<f4").tobytes() + FACES.astype("<u2").tobytes()
SHIFTS = ("<f4", 5126, "VEC3", [[0, 0, 0], [3, 0, 0], [6, 0, 0]])
EXTRA = [[10, 0, 0], [11, 0, 0], [10, 1, 0], [11, 1, 0], [10, 0, 1]]


def instanced(**attributes) -> list[dict]:
    return [{"mesh": 0, "extensions": {"EXT_mesh_gpu_instancing": {"attributes": attributes}}}]


def changed(text: str, **accessor) -> str:
    header = json.loads(text)
    header["accessors"][0] |= accessor
    return json.dumps(header)


def glb(text: str, behind: bytes = b"", version: int = 2, pad: bytes = b" ") -> bytes:
    header = json.loads(text)
    del header["buffers"][0]["uri"]
    head = json.dumps(header).encode()
    head += pad * (-len(head) % 4)
    chunks = struct.pack("<I", len(head)) + b"JSON" + head + struct.pack("<I", len(BIN)) + b"BIN\0" + BIN
    return b"glTF" + struct.pack("<II", version, 12 + len(chunks)) + chunks + behind


def meshopt(uri: str | None) -> str:
    header = json.loads(gltf())
    data = header["buffers"][0]["uri"]
    packed = {"buffer": 0, "byteLength": 9, "byteStride": 12, "count": 8, "mode": "ATTRIBUTES"}
    header["bufferViews"][0] |= {"buffer": 1, "extensions": {"EXT_meshopt_compression": packed}}
    header["buffers"].append({"byteLength": len(BIN)} | ({"uri": data} if uri else {}))
    return json.dumps(header | {"extensionsUsed": ["EXT_meshopt_compression"]})


QUANTIZED = ("<i2", 5122, "VEC3", np.round(POINTS * 65534).astype(int))
GLTF: dict[str, tuple[str | bytes, Right]] = {
    "as it should be": (gltf(), Right()),
    "three instances": (
        gltf([SHIFTS], nodes=instanced(TRANSLATION=2), extensionsRequired=["EXT_mesh_gpu_instancing"]),
        Right(24, 36, 3),
    ),
    "instances turned and scaled": (
        gltf(
            [
                ("<f4", 5126, "VEC4", [[0, 0, 0, 1], [0, 0, 2**-0.5, 2**-0.5]]),
                ("<f4", 5126, "VEC3", [[1, 1, 1], [2, 3, -4]]),
            ],
            nodes=instanced(ROTATION=2, SCALE=3),
        ),
        Right(16, 24, 25),
    ),
    "instances of unequal counts": (
        gltf([SHIFTS, ("<f4", 5126, "VEC3", [[1, 1, 1]])], nodes=instanced(TRANSLATION=2, SCALE=3)),
        Right(refused="its instances' attributes have"),
    ),
    "an unknown required extension": (
        gltf(extensionsRequired=["VENDOR_geometry_elsewhere"]),
        Right(refused="it requires the extension VENDOR_geometry_elsewhere"),
    ),
    "an unknown used extension": (gltf(extensionsUsed=["VENDOR_something"]), Right()),
    "a required extension of looks": (
        gltf(extensionsRequired=["KHR_texture_transform", "KHR_materials_unlit", "EXT_texture_webp"]),
        Right(),
    ),
    "a mesh on a camera's node": (
        gltf(
            nodes=[{"mesh": 0, "camera": 0}], cameras=[{"type": "perspective", "perspective": {"yfov": 1, "znear": 1}}]
        ),
        Right(),
    ),
    "a mesh on a light's node": (
        gltf(nodes=[{"mesh": 0, "extensions": {"KHR_lights_punctual": {"light": 0}}}]),
        Right(),
    ),
    "sparse": (
        changed(
            gltf([("<u2", 5123, "SCALAR", [0]), ("<f4", 5126, "VEC3", [[-1.5, -0.5, -0.5]])]),
            sparse={"count": 1, "indices": {"bufferView": 2, "componentType": 5123}, "values": {"bufferView": 3}},
        ),
        Right(volume=float(trimesh.Trimesh(POINTS - np.eye(8, 3) * [1, 0, 0], FACES, process=False).volume)),
    ),
    "sparse without a base": (
        changed(gltf([("<u1", 5121, "SCALAR", np.arange(8)), ("<f4", 5126, "VEC3", POINTS)]), bufferView=None).replace(
            '"bufferView": null, ', ""
        )[:-1]
        + "}",
        Right(refused="accessor 0 has no data"),
    ),
    "sparse past the rows": (
        changed(
            gltf([("<u2", 5123, "SCALAR", [8]), ("<f4", 5126, "VEC3", [[0, 0, 0]])]),
            sparse={"count": 1, "indices": {"bufferView": 2, "componentType": 5123}, "values": {"bufferView": 3}},
        ),
        Right(refused="accessor 0 changes row 8 of its 8"),
    ),
    "a strip that starts again": (
        gltf(
            [("<f4", 5126, "VEC3", EXTRA), ("<u2", 5123, "SCALAR", [0, 1, 2, 65535, 1, 2, 3, 3])],
            primitives=[CUBE, {"attributes": {"POSITION": 2}, "indices": 3, "mode": 5}],
        ),
        Right(12, 14, None),
    ),
    "a strip without indices": (
        gltf([("<f4", 5126, "VEC3", EXTRA)], primitives=[CUBE, {"attributes": {"POSITION": 2}, "mode": 5}]),
        Right(13, 15, None),
    ),
    "a fan": (
        gltf([("<f4", 5126, "VEC3", EXTRA)], primitives=[CUBE, {"attributes": {"POSITION": 2}, "mode": 6}]),
        Right(13, 15, None),
    ),
    "an unused fan": (gltf(meshes=[{"primitives": [CUBE]}, {"primitives": [CUBE | {"mode": 6}]}]), Right()),
    "lines beside triangles": (
        gltf(primitives=[CUBE, CUBE | {"mode": 1}]),
        Right(note="points and lines beside the triangles left out"),
    ),
    "lines only": (
        gltf(primitives=[CUBE | {"mode": 3}]),
        Right(refused="it has no triangles, only 1 primitives of lines"),
    ),
    "points only": (
        gltf(primitives=[{"attributes": {"POSITION": 0}, "mode": 0}]),
        Right(refused="a point cloud of 8 points"),
    ),
    "an unknown mode": (gltf(primitives=[CUBE | {"mode": 7}]), Right(refused="a primitive of mode 7")),
    "a space in a uri": (gltf(uri="box%20data.bin"), Right(extra=(("box data.bin", BIN),))),
    "a % in a file's name": (gltf(uri="box%20data.bin"), Right(extra=(("box%20data.bin", BIN),))),
    "a raw space and letters beyond ASCII": (gltf(uri="kästchen 1.bin"), Right(extra=(("kästchen 1.bin", BIN),))),
    "a folder below": (gltf(uri="./data/box.bin"), Right(extra=(("data/box.bin", BIN),))),
    "a backslash": (gltf(uri="data\\box.bin"), Right(extra=(("data/box.bin", BIN),))),
    "a missing .bin": (
        gltf(uri="gone.bin"),
        Right(refused="the .gltf is there, but its buffer 'gone.bin' is missing beside it"),
    ),
    "a short .bin": (
        gltf(uri="box.bin"),
        Right(
            refused="cut short: 168 bytes promised, 60 there in its buffer 'box.bin'", extra=(("box.bin", BIN[:60]),)
        ),
    ),
    "a path that leaves the folder": (gltf(uri="../../etc/hostname"), Right(refused="lies outside of its folder")),
    "a path that leaves the folder, encoded": (
        gltf(uri="a/%2e%2e/%2E./x.bin"),
        Right(refused="lies outside of its folder"),
    ),
    "an absolute path": (gltf(uri="/etc/hostname"), Right(refused="lies outside of its folder")),
    "an address": (
        gltf(uri="https://example.org/box.bin"),
        Right(refused="its buffer lies elsewhere ('https://example.org/box.bin')"),
    ),
    "a file's address": (gltf(uri="file:///etc/hostname"), Right(refused="its buffer lies elsewhere")),
    "data without base64": (gltf(uri="data:," + "".join(f"%{b:02x}" for b in BIN)), Right()),
    "meshopt": (meshopt(None), Right(refused="compressed by EXT_meshopt_compression")),
    "meshopt with a fallback": (meshopt("data"), Right()),
    "quantized": (
        gltf(
            [QUANTIZED],
            primitives=[{"attributes": {"POSITION": 2}, "indices": 1}],
            extensionsRequired=["KHR_mesh_quantization"],
        ).replace('"componentType": 5122,', '"componentType": 5122, "normalized": true,'),
        Right(volume=8),
    ),
    "no scene": (gltf(scene=None), Right()),
    "no scenes": (
        gltf(scene=None, scenes=None, nodes=[{"mesh": 0}, {"children": [0], "scale": [2, 2, 2]}]),
        Right(volume=8),
    ),
    "no nodes": (gltf(scene=None, scenes=None, nodes=None).replace('"nodes": [{"mesh": 0}], ', ""), Right()),
    "an empty scene": (gltf(nodes=[{}]), Right(refused="its scene holds no triangles, and the file 1 meshes")),
    "a scene that is not there": (gltf(scene=3), Right(refused="it names number 3 of its 1 scenes")),
    "nodes in a loop": (
        gltf(nodes=[{"mesh": 0, "children": [1]}, {"children": [0]}]),
        Right(refused="node 0 stands in the scene twice, or in a loop"),
    ),
    "a node that is not there": (gltf(nodes=[{"children": [9]}]), Right(refused="it names number 9 of its 1 nodes")),
    "a skin": (
        gltf(nodes=[{"mesh": 0, "skin": 0}], skins=[{"joints": [0]}]),
        Right(note="a skin: its mesh is taken at rest"),
    ),
    "indices that are no multiple of 3": (
        changed(gltf()).replace('"count": 36', '"count": 35'),
        Right(refused="35 corners of triangles, no multiple of 3"),
    ),
    "an accessor longer than its view": (
        changed(gltf(), count=9),
        Right(refused="9 rows need 108 bytes, bufferView 0 has 96"),
    ),
    "an accessor of 10^12 rows": (changed(gltf(), count=10**12), Right(refused="1000000000000 rows need")),
    "zeros of 10^12 rows": (
        changed(
            gltf([("<u2", 5123, "SCALAR", [0]), ("<f4", 5126, "VEC3", [[0, 0, 0]])]),
            count=10**12,
            sparse={"count": 1, "indices": {"bufferView": 2, "componentType": 5123}, "values": {"bufferView": 3}},
        ).replace('{"bufferView": 0, "componentType": 5126', '{"componentType": 5126'),
        Right(refused="accessor 0 has no data"),
    ),
    "a view longer than its buffer": (
        gltf().replace('"byteLength": 96', '"byteLength": 960'),
        Right(refused="bufferView 0 ends at byte 960, its buffer at 168"),
    ),
    "an index past the vertices": (
        changed(gltf(), count=7),
        Right(refused="its faces point past the vertices (to number 7, counted from 0, of 7)"),
    ),
    "VEC2 positions": (
        changed(gltf(), type="VEC2"),
        Right(refused="accessor 0 is of type VEC2 of 5126, expected VEC3"),
    ),
    "glTF 1.0": (json.dumps({"asset": {"version": "1.0"}, "meshes": {"a": {}}}), Right(refused="glTF 1.0 is not read")),
    "glTF 3": (gltf(asset={"version": "3.0"}), Right(refused="it needs glTF 3.0")),
    "names in Latin-1": (
        gltf(meshes=[{"name": "Gehaeuse", "primitives": [CUBE]}]).encode().replace(b"ae", b"\xe4"),
        Right(),
    ),
    "JSON cut short": (gltf()[:-40], Right(refused="its JSON is damaged or cut short")),
    "byte-order mark": ("\ufeff" + gltf(), Right()),
}

GLB: dict[str, tuple[str | bytes, Right]] = {
    "as it should be": (glb(gltf()), Right()),
    "bytes behind": (glb(gltf(), b"\0" * 4), Right(note="4 bytes behind its end left out")),
    "zeros behind its JSON": (glb(gltf(nodes=[{"mesh": 0, "name": "a"}]), pad=b"\0"), Right()),
    "cut": (glb(gltf())[:-1], Right(refused="bytes promised")),
    "1.0": (glb(gltf(), version=1), Right(refused="glTF 1.0 is not read")),
    "JSON": (gltf(), Right(refused="no GLB header but JSON: rename it to .gltf")),
    "Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", Right(refused="Git LFS pointer")),
}
# ---------------------------------------------------------------------------------------------- clouds

N = len(SPHERE)
BOTH = np.hstack([SPHERE, SPHERE])
COLOURS = np.hstack([50 + 10 * SPHERE, np.random.default_rng(0).integers(0, 256, (N, 3))])
INTENSITY = np.column_stack([SPHERE, np.arange(N), COLOURS[:, 3:]])


def comma(table, separator: str) -> str:
    return "".join(separator.join(f"{x:.4f}".replace(".", ",") for x in row) + "\n" for row in table)


def cloud(normals: bool = False, note: str = "") -> Right:
    return Right(N, 0, normals=normals, note=note)


CLOUDS: dict[str, tuple[str | bytes, Right]] = {
    "a.xyz x y z": (rows(SPHERE), cloud()),
    "a.xyz normals": (rows(BOTH), cloud(True)),
    "a.xyz normals of two digits": (rows(np.round(BOTH, 2)), cloud(True)),
    "a.xyz colours": (rows(COLOURS), cloud(note="columns 4, 5, 6 left out")),
    "a.xyz colours from 0 to 1": (rows(np.hstack([SPHERE, COLOURS[:, 3:] / 255])), cloud(note="columns 4, 5, 6")),
    "a.xyz one colour of unit length": (
        rows(np.hstack([SPHERE, 0 * SPHERE + [0.6, 0, 0.8]])),
        cloud(note="columns 4, 5, 6"),
    ),
    "a.xyz intensity": (rows(INTENSITY[:, :4]), cloud(note="column 4 left out")),
    "a.xyz colours and normals": (rows(np.hstack([COLOURS, SPHERE])), cloud(True, note="columns 4, 5, 6")),
    "a.xyz normals and colours": (rows(np.hstack([BOTH, COLOURS[:, 3:]])), cloud(True, note="columns 7, 8, 9")),
    "a.pts count, intensity and colours": (f"{N}\n" + rows(INTENSITY), cloud(note="columns 4, 5, 6, 7 left out")),
    "a.pts a count that is not kept": (
        f"{N + 1}\n" + rows(INTENSITY),
        Right(refused=f"promises {N + 1} points and holds {N}"),
    ),
    "a.txt header": ("X Y Z\n" + rows(SPHERE), cloud()),
    "a.txt //header of CloudCompare": (
        f"//X Y Z R G B Nx Ny Nz\n{N}\n" + rows(np.hstack([COLOURS, 3 * SPHERE])),
        cloud(True, note="columns r, g, b"),
    ),
    "a.txt # header": ("# x y z nx ny nz\n" + rows(3 * BOTH), cloud(True)),
    "a.txt a comment with x y z in it": ("# the x y z of a scan\n" + rows(BOTH), cloud(True)),
    "a.txt units in the header": ("X [m] Y [m] Z [m]\n" + rows(SPHERE), cloud()),
    "a.txt a header in another order": ("z,y,x\n" + rows(SPHERE).replace(" ", ","), cloud()),
    "a.txt a header of other names": (
        "east north up\n" + rows(SPHERE),
        Right(refused="line 1: expected a number, got 'east'"),
    ),
    "a.txt a header too short": ("x y z\n" + rows(BOTH), Right(refused="its header names 3 columns, its rows have 6")),
    "a.csv quoted": ('"x","y","z"\n' + rows(SPHERE, '"', '"\n').replace(" ", '","'), cloud()),
    "a.csv of ParaView": (
        '"Points:0","Points:1","Points:2","s"\n' + rows(INTENSITY[:, :4]).replace(" ", ","),
        cloud(note="column s left out"),
    ),
    "a.csv semicolons": (rows(SPHERE).replace(" ", ";"), cloud()),
    "a.txt decimal commas, semicolons": (comma(SPHERE, ";"), cloud()),
    "a.txt decimal commas, semicolons and blanks": (comma(SPHERE, " ; "), cloud()),
    "a.asc decimal commas, tabs": (comma(SPHERE, "\t"), cloud()),
    "a.asc decimal commas, blanks, normals": (comma(BOTH, " "), cloud(True)),
    "a.asc decimal commas, header": ("X;Y;Z\n" + comma(SPHERE, ";"), cloud()),
    "a.asc decimal commas that separate too": (
        comma(50 + 10 * SPHERE, ","),
        Right(refused="three with decimal commas"),
    ),
    "a.asc points and commas in numbers": (
        comma(SPHERE, " ").replace(",", ".1,"),
        Right(refused="commas in numbers"),
    ),
    "a.asc a decimal comma amiss": (
        comma(SPHERE, ";") + "1,2;x;3\n",
        Right(refused=f"line {N + 1}: expected a number, got 'x'"),
    ),
    "a.xyz a bad word": (rows(SPHERE) + "1 2 z\n", Right(refused=f"line {N + 1}: expected a number, got 'z'")),
    "a.xyz a short row": (
        "# a\n" + rows(SPHERE) + "1 2\n",
        Right(refused=f"line {N + 2} has 2 columns, the first row 3"),
    ),
    "a.xyz UTF-16": (rows(SPHERE).encode("utf-16"), cloud()),
    "a.xyz Ctrl-Z at the end": (rows(SPHERE) + "\x1a", cloud()),
    "a.xyz byte-order mark, CR": (("\ufeff" + rows(SPHERE)).replace("\n", "\r"), cloud()),
    "a.xyz -nan(ind)": (rows(SPHERE) + "1 2 -nan(ind)\n", Right(refused="1 of its 163 points are not finite")),
    "a.xyz 1.#QNAN": (rows(SPHERE) + "1 2 1.#QNAN\n", Right(refused="1 of its 163 points are not finite")),
    "a.xyz Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", Right(refused="Git LFS pointer")),
    "a.obj v and vn": (rows(SPHERE, "v ") + rows(SPHERE, "vn "), cloud(True)),
    "a.obj v": (rows(SPHERE, "v "), cloud()),
    "a.obj v with colours, p": (rows(COLOURS, "v ") + "p 1 2 3\n", cloud()),
    "a.off no faces": (f"OFF\n{N} 0 0\n" + rows(SPHERE), cloud()),
    "a.off normals": (f"NOFF {N} 0 0\n" + rows(BOTH), cloud(True)),
    "a.off colours and normals": (f"CNOFF {N} 0 0\n" + rows(np.hstack([BOTH, COLOURS[:, 3:]])), cloud(True)),
    "a.ply normals": (
        f"ply\nformat ascii 1.0\nelement vertex {N}\n"
        + rows([[f"property float {name}"] for name in ["x", "y", "z", "nx", "ny", "nz"]])
        + "end_header\n"
        + rows(BOTH),
        cloud(True),
    ),
}


def pcd(table: np.ndarray, encoding: str, names: str = "x y z", kind: str = "f4", head: str = "") -> bytes:
    width = table.shape[1]
    text = f"# .PCD v0.7\nVERSION 0.7\nFIELDS {names}\nSIZE{' ' + kind[1:]}{(' ' + kind[1:]) * (width - 1)}\n"
    text += f"TYPE{' F' * width}\nCOUNT{' 1' * width}\nWIDTH {len(table)}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\n{head}"
    text += f"POINTS {len(table)}\nDATA {encoding}\n"
    if encoding == "ascii":
        return (text + rows(table)).encode()
    if encoding == "binary":
        return text.encode() + table.astype(f"<{kind}").tobytes()
    raw = table.T.astype(f"<{kind}").tobytes()
    packed = b"".join(bytes([len(raw[at : at + 32]) - 1]) + raw[at : at + 32] for at in range(0, len(raw), 32))
    return text.encode() + struct.pack("<II", len(packed), len(raw)) + packed


NAMES = "x y z normal_x normal_y normal_z"
CLOUDS |= {
    "a.pcd text": (pcd(SPHERE, "ascii"), cloud()),
    "a.pcd binary, normals": (pcd(BOTH, "binary", NAMES), cloud(True)),
    "a.pcd float64": (pcd(SPHERE, "binary", kind="f8"), cloud()),
    "a.pcd compressed": (pcd(BOTH, "binary_compressed", NAMES), cloud(True)),
    "a.pcd rays without an echo": (
        pcd(np.vstack([SPHERE, [[np.nan] * 3]]), "binary"),
        cloud(note="1 of 163 points without an echo"),
    ),
    "a.pcd colours": (pcd(COLOURS[:, :4], "ascii", "x y z rgb"), cloud(note="column rgb left out")),
    "a.pcd cut": (pcd(SPHERE, "binary")[:-1], Right(refused="promises 162 points and holds 161")),
    "a.pcd text cut": (pcd(SPHERE, "ascii")[:-200], Right(refused="promises 162 points and holds")),
    "a.pcd compressed, cut": (pcd(SPHERE, "binary_compressed")[:-9], Right(refused="cut short: ")),
    "a.pcd 10^12 points": (
        pcd(SPHERE, "binary").replace(b"POINTS 162", b"POINTS 1000000000000"),
        Right(refused="promises 1000000000000 points and holds 162"),
    ),
    "a.pcd another encoding": (pcd(SPHERE, "binary").replace(b"DATA binary", b"DATA zstd"), Right(refused="DATA zstd")),
    "a.pcd no header": (rows(SPHERE), Right(refused="no PCD header")),
}

# ---------------------------------------------------------------------------------------------- the tests

BY_ENDING = {".obj": OBJ, ".off": OFF, ".stl": STL, ".ply": PLY, ".gltf": GLTF, ".glb": GLB}
KINDS = {f"a{ending} {kind}": case for ending, cases in BY_ENDING.items() for kind, case in cases.items()} | CLOUDS


def check(path: Path, right: Right, caplog) -> None:
    """The file gives what is right, once and again, and says what it should."""
    with caplog.at_level(logging.INFO):
        if right.refused:
            with pytest.raises(MeshError) as caught:
                load_shape(path)
            message = str(caught.value)
            assert message.startswith(f"{path}: ")
            assert right.refused in message
            assert "\n" not in message
            return
        shape = load_shape(path)
    assert right.note in caplog.text
    assert bool(right.note) == any(record.levelno >= logging.INFO for record in caplog.records)
    if isinstance(shape, PointCloud):
        assert (len(shape.points), 0) == (right.vertices, right.faces)
        assert (shape.normals is not None) == right.normals
        np.testing.assert_array_equal(load_points(path).points, shape.points)
    else:
        assert (len(shape.vertices), len(shape.faces)) == (right.vertices, right.faces)
        assert right.volume is None or shape.volume == pytest.approx(right.volume, rel=1e-4)
        np.testing.assert_array_equal(load_mesh(path).triangles, shape.triangles)


@pytest.mark.parametrize("name", KINDS)
def test_each_kind_gives_its_shape_or_is_refused_by_its_fault(tmp_path, name, caplog):
    data, right = KINDS[name]
    for extra, content in right.extra:
        (tmp_path / extra).parent.mkdir(exist_ok=True)
        (tmp_path / extra).write_bytes(content)
    path = tmp_path / name.partition(" ")[0]
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    check(path, right, caplog)


@pytest.mark.parametrize("name", [name for name in KINDS if name.startswith("a.obj")])
def test_an_obj_in_blocks_of_a_line_or_two_gives_the_same(tmp_path, name, caplog, monkeypatch):
    monkeypatch.setattr("ff3d.formats.obj.BLOCK", 20)
    test_each_kind_gives_its_shape_or_is_refused_by_its_fault(tmp_path, name, caplog)


@pytest.mark.parametrize("uri", ["../box.bin", "%2e%2e/box.bin", "a/../../box.bin", "..\\box.bin", "{folder}/box.bin"])
def test_a_buffer_outside_of_the_folder_is_refused_even_where_it_is_the_right_one(tmp_path, uri):
    for folder in (tmp_path / "meshes", tmp_path / "meshes" / "a"):
        folder.mkdir()
    (tmp_path / "box.bin").write_bytes(BIN)
    path = tmp_path / "meshes" / "box.gltf"
    path.write_text(gltf(uri=uri.format(folder=tmp_path)))
    with pytest.raises(MeshError, match=r"lies outside of its folder, which is not read; put it beside it$"):
        load_mesh(path)
    (tmp_path / "meshes" / "box.bin").write_bytes(BIN)
    path.write_text(gltf(uri="a/../%62ox.bin"))  # a way round that stays within, and a letter percent-encoded
    assert load_mesh(path).volume == pytest.approx(1)


# The files of ../shared/cases by name; its README has what is right. The volumes of those that are no cube come from
# the files' own numbers: a corner that a sparse accessor moves, the triangles of a strip and of a fan beside the cube.
CUBES = [
    *("4off.off", "bom.off", "lower.off", "modelnet_glued.off", "noheader.off", "oneline.off", "stcnoff.off"),
    *("ascii_long_rows.ply", "bom.ply", "header_cr.ply", "trailing_nl.ply", "upper_xyz.ply", "vertex_indexes.ply"),
    *("bom_extra_vertex.obj", "bom_v_first.obj", "trailing_backslash_comment.obj", "u2028.obj", "nel.obj"),
    *("form_feed.obj", "utf16le.obj", "utf16be_nobom.obj", "homogeneous.obj"),
    *("ascii_bom.stl", "ascii_cr.stl", "ascii_end_solid.stl", "ascii_tail_text.stl"),
    *("unused_fan.gltf", "spaced_bin.gltf"),
]
FILES = dict.fromkeys(CUBES, Right()) | {
    "ascii_extra_numbers.ply": Right(note="1 rows behind the last"),
    "tristrips.ply": Right(4, 4, -1 / 6),
    "two_corner_face.obj": Right(note="face 13 has 2 corners"),
    "lfs.obj": Right(refused="a Git LFS pointer"),
    "html.obj": Right(refused="a web page"),
    "ascii_noendsolid.stl": Right(note="without endsolid"),
    "trailing.stl": Right(note="2 bytes behind the last of 12 faces"),
    "solid_header_trailing.stl": Right(note="10 bytes behind the last of 12 faces"),
    "count_zero.stl": Right(note="the count of faces says 0"),
    "count_ff.stl": Right(note="the count of faces says 4294967295"),
    "instancing.gltf": Right(24, 36, 3),
    "strip_restart.gltf": Right(14, 14, 7 / 6),
    "with_fan.gltf": Right(16, 46, 7 / 6),
    "sparse.gltf": Right(8, 12, 2 / 3),
    "trailing.glb": Right(note="4 bytes behind its end"),
    "missing_bin.gltf": Right(refused="the .gltf is there, but its buffer 'gone.bin' is missing"),
    # its uri is ../../../../etc/hostname: what lies outside of the file's folder is not read, and holds no cube either
    "escape_bin.gltf": Right(refused="lies outside of its folder"),
    "unknown_required.gltf": Right(refused="VENDOR_geometry_elsewhere"),
    "meshopt.gltf": Right(refused="EXT_meshopt_compression"),
    "meshopt.glb": Right(refused="EXT_meshopt_compression"),
    "v1.glb": Right(refused="glTF 1.0"),
    "rgb.xyz": Right(3000, 0, note="columns 4, 5, 6 left out"),
    "comma_decimal_semicolon.txt": Right(3000, 0),
}


@pytest.mark.parametrize("name", FILES)
def test_each_file_of_the_shared_cases_gives_what_its_readme_says(name, caplog):
    if not (SHARED / name).is_file():
        pytest.skip(f"{SHARED / name} is not there: the kinds above are of the same sort")
    check(SHARED / name, FILES[name], caplog)


def test_no_file_of_the_shared_cases_is_left_out():
    found = {path.name for path in SHARED.glob("*")} - {"README.md", "box data.bin"}
    if not found:
        pytest.skip(f"{SHARED} is not there")
    assert found == set(FILES)


def test_decimal_commas_give_the_numbers_and_colours_no_normals():
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not there")
    one, other = (load_points(SHARED / name) for name in ("comma_decimal_semicolon.txt", "rgb.xyz"))
    np.testing.assert_array_equal(one.points, other.points)
    assert one.normals is None
    assert other.normals is None
