"""Pictures of meshes by ray casting on the CPU: no window, no OpenGL; the same input gives the same bytes.

Everything is computed in the camera's frame: x right, y up, z towards the eye, the target at the origin, the view
one unit wide. So embree's float32 rays get the same numbers wherever the mesh lies and however large it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ff3d.files import write_atomically
from ff3d.geometry.arrays import Floats, Inside
from ff3d.geometry.cores import embree_scene
from ff3d.geometry.triangles import cross_products, unit_vectors
from ff3d.views.color import to_linear, to_srgb

if TYPE_CHECKING:
    from trimesh import Trimesh

Picture = NDArray[np.uint8]  # (height, width, 3)
Vector = tuple[float, float, float]
Size = tuple[int, int]  # (width, height), pixels
# Colours are sRGB in 0..1.
WHITE = (1.0, 1.0, 1.0)
CLAY = (0.80, 0.765, 0.725)
INNER = (0.30, 0.24, 0.25)  # the back of a face, seen through a hole: a factor on its linear colour
RIGHT = (0.90, 0.90, 0.89)
EXTRA = (0.84, 0.12, 0.10)
MISSING = (0.10, 0.30, 0.86)
GHOST = (0.60, 0.76, 1.0)  # where the reference has a surface and the mesh has none

SAMPLES = 2  # per pixel and axis, box-filtered
CREASE = math.cos(math.radians(40))  # a corner whose face turns further from the smooth normal stays sharp
SKY_RAYS = 4  # per sample, so 16 per pixel, and 64 in each mean
SKY_REACH = 0.3  # how far a neighbour darkens, in view widths
LIGHTS = np.array([[1.10, 1.07, 1.02], [0.17, 0.18, 0.20], [0.35, 0.35, 0.35], [0.30, 0.30, 0.30]])
LIFT = 5e-5  # where secondary rays start above the surface, in view widths
DITHER = np.array([0, 8, 2, 10, 12, 4, 14, 6, 3, 11, 1, 9, 15, 7, 13, 5])  # Bayer's 4 x 4: neighbours far apart


@dataclass(frozen=True)
class Camera:
    """A perspective camera; lengths in input units.

    target: the point in the middle of the view.  width: of the view, at the target.  direction: from the target to
    the eye, any length.  field_of_view: degrees, across the width.  shift, zoom: the part of the view that is drawn:
    its middle, in view widths right and up of the target, and its magnification.
    """

    target: Vector
    width: float
    direction: Vector = (0.0, 0.0, 1.0)
    up: Vector = (0.0, 1.0, 0.0)
    field_of_view: float = 30.0
    shift: tuple[float, float] = (0.0, 0.0)
    zoom: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.width) and self.width > 0):
            raise ValueError(f"width must be positive and finite, got {self.width}")
        if not 0 < self.field_of_view < 170:
            raise ValueError(f"field_of_view must be in (0, 170) degrees, got {self.field_of_view}")
        if not self.zoom > 0:
            raise ValueError(f"zoom must be positive, got {self.zoom}")
        if not np.linalg.norm(np.cross(self.up, self.direction)) > 0:
            raise ValueError(f"up {self.up} must not be parallel to direction {self.direction}")

    @classmethod
    def framing(
        cls,
        bounds: ArrayLike,
        *,
        azimuth: float = 35.0,
        elevation: float = 20.0,
        up: Vector = (0.0, 1.0, 0.0),
        field_of_view: float = 30.0,
        aspect: float = 1.0,
        margin: float = 0.04,
    ) -> Camera:
        """The nearest camera from that side that has all the given points in view.

        bounds: (2, 3), a box to be in view; or (n, 3), n > 2, the points themselves (a tighter fit).  azimuth,
        elevation: degrees; 0, 0 looks along -z at a mesh whose up is +y (along +y where up is +z), and a positive
        azimuth moves the eye to +x.  aspect: width over height.  margin: the share of the view left free at each side.
        Raises ValueError where the points are not finite or all the same.
        """
        points = np.asarray(bounds, dtype=np.float64)
        if points.ndim != 2 or points.shape[1] != 3 or len(points) < 2:
            raise ValueError(f"bounds must have shape (2, 3) or (n, 3), got {points.shape}")
        low, high = points.min(axis=0), points.max(axis=0)
        size = float((high - low).max())
        if not (math.isfinite(size) and size > 0):
            raise ValueError(f"bounds must be finite and not a single point, got {low} to {high}")
        if len(points) == 2:
            points = np.stack(np.meshgrid(*points.T), axis=-1).reshape(-1, 3)
        axis = np.asarray(up, dtype=np.float64) / np.linalg.norm(up)
        side = np.eye(3)[1 if abs(axis[0]) > 0.9 else 0]
        side = (side - (side @ axis) * axis) / np.linalg.norm(side - (side @ axis) * axis)
        turn, rise = math.radians(azimuth), math.radians(elevation)
        level = math.sin(turn) * side + math.cos(turn) * np.cross(side, axis)
        direction = math.cos(rise) * level + math.sin(rise) * axis
        middle = (low + high) / 2
        axes = _axes(direction, axis)
        x, y, z = ((points - middle) / size @ axes.T).T
        # The eye is `away` from the target: |x - shift| <= reach (away - z) for all points, and the same for y.
        slope = math.tan(math.radians(field_of_view) / 2)
        away, shift = 0.0, np.zeros(3)
        for i, (along, reach) in enumerate(((x, slope), (y, slope / aspect))):
            right, left = ((z + sign * along / (reach * (1 - 2 * margin))).max() for sign in (1, -1))
            away = max(away, (right + left) / 2)
            shift[i] = (right - left) / 2 * reach * (1 - 2 * margin)
        target = middle + size * shift @ axes
        return cls(_vector(target), 2 * slope * away * size, _vector(direction), up, field_of_view)

    def closeup(self, x: float, y: float, zoom: float) -> Camera:
        """The same eye, magnified `zoom` times about (x, y), in view widths right and up of this view's middle."""
        center = (self.shift[0] + x / self.zoom, self.shift[1] + y / self.zoom)
        return replace(self, shift=center, zoom=self.zoom * zoom)

    def to_view(self, points: ArrayLike) -> Floats:
        """points (n, 3), input coordinates -> the camera's frame, in view widths."""
        return (np.asarray(points, dtype=np.float64) - self.target) / self.width @ _axes(self.direction, self.up).T

    def from_view(self, points: Floats) -> Floats:
        """The inverse of `to_view`."""
        return points * self.width @ _axes(self.direction, self.up) + self.target

    def rays(self, columns: int, rows: int) -> tuple[Floats, Floats]:
        """The eye (3,) and a unit direction per picture cell (rows, columns, 3), in the camera's frame."""
        eye = np.array([0.0, 0.0, 0.5 / math.tan(math.radians(self.field_of_view) / 2)])
        x = ((np.arange(columns) + 0.5) / columns - 0.5) / self.zoom + self.shift[0]
        y = (rows / 2 - np.arange(rows) - 0.5) / columns / self.zoom + self.shift[1]
        through = np.stack([*np.meshgrid(x, y), np.zeros((rows, columns))], axis=-1) - eye
        return eye, unit_vectors(through)


@dataclass(frozen=True)
class View:
    """What a camera sees of a mesh: one row for each sample that hits it, in the order of the True cells of `mask`."""

    mask: NDArray[np.bool_]  # (rows, columns), samples
    depth: Floats  # (rows, columns), distance from the eye, inf where nothing is hit
    points: Floats  # (n, 3)
    normals: Floats  # (n, 3), smooth, towards the eye
    flat: Floats  # (n, 3), of the face, towards the eye
    to_eye: Floats  # (n, 3)
    back: NDArray[np.bool_]  # (n,), the face is seen from behind


class Scene:
    """A mesh in a camera's frame, with its ray tree and smooth normals, for views by that camera or its close-ups."""

    def __init__(self, mesh: Trimesh, camera: Camera):
        import igl
        from embreex.mesh_construction import TriangleMesh

        self.mesh, self.camera = mesh, camera
        self.vertices = camera.to_view(mesh.vertices).reshape(-1, 3)
        self.faces = np.ascontiguousarray(mesh.faces, dtype=np.int32).reshape(-1, 3)
        if not np.isfinite(self.vertices).all():
            raise ValueError("mesh must have finite vertices")
        self._scene: Any = embree_scene() if len(self.faces) else None
        if self._scene is not None:
            TriangleMesh(self._scene, self.vertices.astype(np.float32), self.faces)
            by_angle = igl.PER_VERTEX_NORMALS_WEIGHTING_TYPE_ANGLE
            self._normals: Floats = igl.per_vertex_normals(self.vertices, self.faces.astype(np.int64), by_angle)

    def cast(self, origins: NDArray[np.float32], directions: NDArray[np.float32], reach: float) -> NDArray[np.float32]:
        """How far each ray (n, 3) runs before it hits; `reach` where it does not."""
        far = np.full(len(origins), reach, dtype=np.float32)
        distances: NDArray[np.float32] = self._scene.run(origins, directions, far, query="DISTANCE")
        return distances

    def view(self, camera: Camera, size: Size) -> View:
        """The samples of a picture of `size` (width, height)."""
        columns, rows = size[0] * SAMPLES, size[1] * SAMPLES
        eye, rays = camera.rays(columns, rows)
        rays = rays.reshape(-1, 3)
        depth = np.full(len(rays), np.inf)
        if self._scene is None:
            none, shape = np.zeros((0, 3)), (rows, columns)
            return View(np.zeros(shape, bool), depth.reshape(shape), none, none, none, none, np.zeros(0, bool))
        start = np.broadcast_to(eye.astype(np.float32), rays.shape)
        found = self._scene.run(np.ascontiguousarray(start), rays.astype(np.float32), output=True)
        hit = found["primID"] >= 0
        corners = self.faces[found["primID"][hit]]
        u, v = (found[name][hit].astype(np.float64) for name in "uv")
        weights = np.stack([1 - u - v, u, v], axis=1)[:, :, None]
        triangles = self.vertices[corners]
        points = (triangles * weights).sum(axis=1)
        flat = unit_vectors(cross_products(triangles))
        smooth = self._normals[corners]
        sharp = ~((smooth * flat[:, None]).sum(axis=2) >= CREASE)  # also where the normal is not a number
        smooth[sharp] = np.broadcast_to(flat[:, None], smooth.shape)[sharp]
        normals = unit_vectors((smooth * weights).sum(axis=1))
        to_eye = -rays[hit]
        back = _dot(flat, to_eye) < 0
        turn = np.where(back, -1.0, 1.0)[:, None]
        depth[hit] = np.sqrt(_dot(points - eye, points - eye))
        shape = (rows, columns)
        return View(hit.reshape(shape), depth.reshape(shape), points, normals * turn, flat * turn, to_eye, back)

    def light(self, view: View) -> tuple[Floats, Floats]:
        """Light on each sample that hits: diffuse (n, 3), to multiply with the colour, and gloss (n, 1), to add."""
        if not len(view.points):
            return np.zeros((0, 3)), np.zeros((0, 1))
        n, key = view.normals, unit_vectors(np.array([-0.55, 0.75, 0.65]))
        start, flat = (view.points + LIFT * view.flat).astype(np.float32), view.flat.astype(np.float32)
        # Every 4 x 4 samples share one even set of directions; the mean over them below leaves no grain.
        row, column = np.nonzero(view.mask)
        cell = (row % 4) * 4 + column % 4
        table = _sky(16 * SKY_RAYS).reshape(SKY_RAYS, 16, 3)[:, np.argsort(DITHER)].astype(np.float32)
        disc = (key + 0.10 * table[0] * [1, 1, 0]).astype(np.float32)
        tangents, sky = _frames(n.astype(np.float32)), np.zeros(len(n))
        for local in table:
            ray = np.einsum("nk,nkj->nj", local[cell], tangents)
            free = (self.cast(start, ray, SKY_REACH) / SKY_REACH) ** 0.7
            sky += np.where(_dot(ray, flat) > 0, free, 1.0)
        ray = disc[cell]
        sun = (self.cast(start, ray, 4.0) >= 4.0) | (_dot(ray, flat) <= 0)
        sky, shadow = _smooth(np.stack([sky / SKY_RAYS, sun], axis=1), view).T
        diffuse = np.clip(n @ key, 0, 1) * (0.3 + 0.7 * shadow)
        fill = np.clip(n @ unit_vectors(np.array([0.85, 0.1, 0.5])), 0, 1) * sky
        rim = np.clip(n @ unit_vectors(np.array([0.3, 0.5, -0.8])), 0, 1) * sky
        ambient = (0.75 + 0.25 * n[:, 1]) * sky
        light = np.stack([diffuse, fill, rim, ambient], axis=1) @ LIGHTS
        gloss = np.clip(_dot(n, unit_vectors(key + view.to_eye)), 0, 1) ** 24 * shadow * sky
        return light, 0.05 * gloss[:, None]


def render(
    mesh: Trimesh,
    camera: Camera | None = None,
    *,
    size: Size = (512, 512),
    color: Vector = CLAY,
    ground: Vector = WHITE,
) -> Picture:
    """A picture of the mesh as lit clay; faces that are seen from behind, through a hole, are darker.

    camera: None frames the mesh.  size: (width, height) in pixels.  color, ground: of the clay and of the
    background, sRGB in 0..1.  Returns uint8 (height, width, 3); only background where the mesh has no faces.
    Raises ValueError for a vertex that is not finite.
    """
    camera = camera or default_camera(mesh, size)
    scene = Scene(mesh, camera)
    return clay_picture(scene, scene.view(camera, size), color, ground)


def default_camera(mesh: Trimesh, size: Size) -> Camera:
    """The camera that has all of the mesh in view; size: (width, height) of the picture, pixels."""
    if not len(mesh.faces):
        return Camera((0.0, 0.0, 0.0), 1.0)
    used = np.zeros(len(mesh.vertices), dtype=bool)
    used[mesh.faces] = True
    return Camera.framing(mesh.vertices[used], aspect=size[0] / size[1])


def clay_picture(scene: Scene, view: View, color: Vector = CLAY, ground: Vector = WHITE) -> Picture:
    """A view of the scene as lit clay; see `render`."""
    light, gloss = scene.light(view)
    canvas = np.tile(to_linear(ground), (*view.mask.shape, 1))
    albedo = np.where(view.back[:, None], to_linear(color) * INNER, to_linear(color))
    canvas[view.mask] = albedo * light + gloss
    return to_pixels(canvas)


def signed_error(points: ArrayLike, reference: Trimesh, inside: Inside) -> Floats:
    """The signed distance (n,) of points (n, 3) to the reference's surface, input units: positive outside.

    The distance is exact; the sign is that of `inside`, the oracle: points (n, 3) -> bool (n,), input coordinates.
    """
    import igl

    points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
    side = _longest_side(reference)
    if not len(points):
        return np.zeros(0)
    middle = reference.bounds.mean(axis=0)
    vertices, faces = (np.asarray(reference.vertices) - middle) / side, np.asarray(reference.faces, dtype=np.int64)
    squared = igl.point_mesh_squared_distance((points - middle) / side, vertices, faces)[0]
    return np.asarray(np.where(inside(points), -side, side) * np.sqrt(squared))


def _longest_side(reference: Trimesh) -> float:
    if not len(reference.faces):
        raise ValueError("reference must have faces, got none: there is no surface to measure to")
    return float(reference.extents.max())


def render_error(
    mesh: Trimesh,
    reference: Trimesh,
    inside: Inside,
    camera: Camera | None = None,
    *,
    size: Size = (512, 512),
    scale: float = 0.01,
) -> Picture:
    """A picture of the mesh, coloured by `signed_error` where the camera sees it.

    White where it agrees with the reference, red where it lies outside of it, blue where inside; full colour at
    `scale` times the reference's longest side.  A veil of light blue shows the parts of the reference that the camera
    would see where the mesh has nothing, or something more than 5 `scale` further behind.  camera: None frames the
    reference.  Returns uint8 (height, width, 3).
    """
    camera = camera or default_camera(reference, size)
    return error_picture(Scene(mesh, camera), Scene(reference, camera), size, inside, scale)


def error_picture(scene: Scene, truth: Scene, size: Size, inside: Inside, scale: float) -> Picture:
    """The scene coloured by its distance to `truth`; see `render_error`."""
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    camera, unit = scene.camera, scale * _longest_side(truth.mesh)
    view, expected = scene.view(camera, size), truth.view(camera, size)
    canvas = np.tile(to_linear(WHITE), (*view.mask.shape, 1))
    # Light varies from sample to sample; the error is computed once a pixel, at one of its samples.
    row, column = np.nonzero(view.mask)
    _, first, pixel = np.unique(row // SAMPLES * size[0] + column // SAMPLES, return_index=True, return_inverse=True)
    error = signed_error(camera.from_view(view.points[first]), truth.mesh, inside) / unit
    light, gloss = scene.light(view)
    canvas[view.mask] = error_color(error)[pixel] * (0.15 + 0.75 * light) + gloss
    missing = expected.mask & (expected.depth < view.depth - 5 * unit / camera.width)
    facing = _dot(expected.normals, expected.to_eye)[missing[expected.mask], None]
    veil = to_linear(GHOST) * (0.5 + 0.5 * facing)
    canvas[missing] = 0.3 * canvas[missing] + 0.7 * veil
    return to_pixels(canvas)


def error_color(error: Floats) -> Floats:
    """error (n,), in units of the scale -> linear colour (n, 3)."""
    stops = np.stack([to_linear(color) for color in (MISSING, RIGHT, EXTRA)])
    return np.stack([np.interp(error, [-1.0, 0.0, 1.0], stops[:, i]) for i in range(3)], axis=-1)


def to_pixels(canvas: Floats) -> Picture:
    """Linear samples -> sRGB pixels, each the mean of its samples."""
    rows, columns = canvas.shape[:2]
    boxes = np.clip(canvas, 0, 1).reshape(rows // SAMPLES, SAMPLES, columns // SAMPLES, SAMPLES, 3)
    return np.asarray(to_srgb(boxes.mean(axis=(1, 3))) * 255 + 0.5, dtype=np.uint8)


def _sky(count: int) -> Floats:
    """`count` directions (count, 3) about +z, evenly spread, as dense as the cosine: R2 sequence, Roberts 2018."""
    i = np.arange(count)
    height, turn = (i + 0.5) / count, 2 * np.pi * (i * 0.6180339887498949 % 1)
    radius = np.sqrt(height)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), np.sqrt(1 - height)], axis=1)


def _frames(n: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, 3) unit normals -> (n, 3, 3), rows: two tangents and the normal. Duff et al. 2017."""
    x, y, z = n.T
    sign = np.copysign(np.float32(1), z)
    a = -1 / (sign + z)
    b = x * y * a
    first = np.stack([1 + sign * x * x * a, sign * b, -sign * x], axis=1)
    second = np.stack([b, sign + y * y * a, -y], axis=1)
    return np.stack([first, second, n], axis=1)


def _smooth(values: Floats, view: View) -> Floats:
    """The mean of values (n, k) over those of the 4 x 4 samples around each that lie on the same piece of surface."""
    rows, columns = view.mask.shape
    layers = np.zeros((rows + 4, columns + 4, values.shape[1] + 4), dtype=np.float32)
    inner = layers[2:-2, 2:-2]
    inner[view.mask] = np.concatenate([values, view.normals, view.depth[view.mask][:, None]], axis=1)
    center = inner[view.mask]
    row, column = np.nonzero(view.mask)
    flat = layers.reshape(-1, layers.shape[2])
    total, weight = values.copy(), np.ones(len(values))
    for i in range(-2, 2):
        for j in range(-2, 2):
            if i == j == 0:
                continue
            near = flat[(row + 2 + i) * (columns + 4) + column + 2 + j]
            same = _dot(center[:, -4:-1], near[:, -4:-1]) > 0.8
            same &= np.abs(center[:, -1] - near[:, -1]) < 0.01
            total += np.where(same[:, None], near[:, :-4], 0)
            weight += same
    return total / weight[:, None]


def _axes(direction: ArrayLike, up: ArrayLike) -> Floats:
    """Rows: right, up, back (towards the eye)."""
    back = unit_vectors(np.asarray(direction, dtype=np.float64))
    right = unit_vectors(np.cross(np.asarray(up, dtype=np.float64), back))
    return np.stack([right, np.cross(back, right), back])


def _dot(a: Any, b: Any) -> Any:
    """Row by row, (n, k) and (n, k) -> (n,)."""
    return np.einsum("ij,ij->i", a, b)


def _vector(values: Floats) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z


def save_picture(picture: Picture, path: str | Path) -> None:
    """Write the picture to `path` as PNG, atomically."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    mark = PngInfo()
    mark.add_text("Software", "ff3d")
    with write_atomically(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG", pnginfo=mark)
