"""Names of the types of arrays, and of functions of points.

Those below the second line of `if` have a shape. It is checked while tests run (tests/conftest.py), where one letter
stands for one number throughout a call; otherwise the names cost nothing, and jaxtyping need not be installed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Singles = NDArray[np.float32]
Indices = NDArray[np.int32]
Integers = NDArray[np.integer[Any]]  # of any width

if TYPE_CHECKING or "jaxtyping" not in sys.modules:
    Points = Floats  # (n, 3)
    Labels = Bools  # (n,), True inside
    Logits = Singles  # (n,), > 0 inside
    PointFloats = Floats  # (n,)
    PointIndices = Ints  # (n,)
    Vertices = Floats  # (v, 3)
    Faces = Ints  # (f, 3)
    Corners = Floats  # (f, 3, 3), of each face
    FaceVectors = Floats  # (f, 3)
    FaceFloats = Floats  # (f,)
    FaceBools = Bools  # (f,)
    Box = Floats  # (2, 3), lower corner first
else:
    from jaxtyping import Bool, Float32, Float64, Int64

    Points = Float64[np.ndarray, "n 3"]
    Labels = Bool[np.ndarray, "n"]
    Logits = Float32[np.ndarray, "n"]
    PointFloats = Float64[np.ndarray, "n"]
    PointIndices = Int64[np.ndarray, "n"]
    Vertices = Float64[np.ndarray, "v 3"]
    Faces = Int64[np.ndarray, "f 3"]
    Corners = Float64[np.ndarray, "f 3 3"]
    FaceVectors = Float64[np.ndarray, "f 3"]
    FaceFloats = Float64[np.ndarray, "f"]
    FaceBools = Bool[np.ndarray, "f"]
    Box = Float64[np.ndarray, "2 3"]

Inside = Callable[[Points], Labels]  # an oracle: points -> True inside
