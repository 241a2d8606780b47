"""OFF."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ff3d.formats.polygons import Polygons
from ff3d.formats.text import MeshError


def read_off(path: Path) -> Polygons:
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
