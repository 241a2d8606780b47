"""Shapes side by side, all seen from the same direction, or laid on one another; cut, coloured, as wires."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ff3d.checks import one_line
from ff3d.geometry.arrays import Bools, Floats
from ff3d.viewer.items import Arrays, Item, alike, truth_of
from ff3d.viewer.page import CLAY_BYTES, FIELD_OF_VIEW, LOOPBACK, PORT, Page, glb
from ff3d.views.figure import CUT, PANEL
from ff3d.views.rendering import error_color

log = logging.getLogger("ff3d")

GAP = 1.7  # between the middles of shapes side by side, of half the longest diagonal
SCALE = 0.01  # of the longest side: the error of full colour
MARGIN = 0.08  # of a plane around the shape, longest sides
REACH = 0.1  # longest sides: the distance of full colour on a plane
SLICE = 256  # pixels along the side of a plane
INSIDE, OUTSIDE = (214, 96, 36), (188, 200, 214)  # points
BROWN = (0.72, 0.55, 0.38)
AXES = {"x": 0, "y": 1, "z": 2}
WIRES = (60, 60, 66)


@dataclass(frozen=True)
class Cut:
    """A plane across an axis, on the page; what lies below it is kept, or above it."""

    axis: int
    at: float
    above: bool = False

    def keeps(self, points: Floats) -> Bools:
        """Which points (n, 3) are on the side that stays."""
        return (points[:, self.axis] > self.at) == self.above


class Gallery:
    """A page that shows items until it is closed.

    Lengths on the page: the first shape's longest side is 1. Shapes whose boxes agree keep their places to one another;
    others are each centred in their own box.
    """

    def __init__(
        self, items: Sequence[Item], *, host: str = LOOPBACK, port: int = PORT, up: str = "y", title: str = "ff3d view"
    ):
        if not items:
            raise ValueError("nothing to show; give meshes, scans, fields or folders of results")
        self.items = list(items)
        self.page = Page(title, host=host, port=port, up=up)
        self.server = self.page.server
        self._lock = threading.Lock()
        self._drawn: dict[int, Any] = {}  # by item: what its node shows
        self._notes: dict[int, str] = {}
        self._waiting: set[int] = set()
        self._errors: dict[int, Floats | None] = {}
        self._surfaces: dict[tuple[int, int], Arrays] = {}
        self._frames: dict[int, list[Any]] = {}  # of each browser
        self._places = [self._place(index) for index in range(len(items))]
        # half the longest diagonal, on the page
        self._radius = max(
            float(np.linalg.norm(np.ptp(item.box, axis=0))) / side / 2
            for item, (_, side) in zip(items, self._places, strict=True)
        )
        for index in range(len(items)):
            self.server.scene.add_frame(f"/{index}", show_axes=False)
        self._controls()
        self.page.look_from(self._distance(1.4))
        self.draw()
        self.server.on_client_connect(self._connected)
        self.server.on_client_disconnect(lambda client: self._frames.pop(client.client_id, None))

    def _place(self, index: int) -> tuple[Floats, float]:
        """The middle and the longest side that an item is moved and scaled by."""
        item = self.items[index]
        like = next(other for other in self.items[: index + 1] if other is item or alike(other, item))
        low, high = like.box
        return (low + high) / 2, float((high - low).max()) or 1.0

    def _controls(self) -> None:
        gui = self.server.gui
        with gui.add_folder("Shapes"):
            self._shown = [gui.add_checkbox(item.name, initial_value=True) for item in self.items]
            many = len(self.items) > 1
            self._layout = gui.add_dropdown("Layout", ("side by side", "laid together"), visible=many)
        with gui.add_folder("Surface"):
            self._wires = gui.add_checkbox("Wireframe", initial_value=False)
            errors = any(truth_of(self.items, item) for item in self.items)
            self._color = gui.add_dropdown("Colour", ("clay", "error") if errors else ("clay",), visible=errors)
            gui.add_markdown(f"*error: blue inside, red outside, full at {SCALE:.0%}*", visible=errors)
            levels = max(item.levels for item in self.items)
            self._level = gui.add_slider("Level", 0, max(levels, 1), 1, levels or 1, visible=levels > 0)
            labelled = any(item.labels is not None for item in self.items)
            self._labels = gui.add_dropdown("Points", ("all", "inside", "outside"), visible=labelled)
        with gui.add_folder("Plane", visible=any(item.make_values for item in self.items)):
            self._slicing = gui.add_checkbox("Cut", initial_value=False)
            self._axis = gui.add_dropdown("Across", tuple(AXES), initial_value="z")
            self._at = gui.add_slider("At", 0.0, 1.0, 0.01, 0.5)
            self._flipped = gui.add_checkbox("Other half", initial_value=False)
            self._kind = gui.add_dropdown("Shows", ("distance", "occupancy"))
        self._note = gui.add_markdown("")
        self._picture = gui.add_button("Screenshot")
        for control in (*self._shown, self._layout):
            control.on_update(lambda _: self._arrange())
        surface = (self._wires, self._color, self._level, self._labels)
        for control in (*surface, self._slicing, self._axis, self._at, self._flipped, self._kind):
            control.on_update(lambda _: self.draw())
        self._picture.on_click(self._screenshot)

    @property
    def address(self) -> str:
        """What to type into a browser."""
        return self.page.address

    def close(self) -> None:
        """Stop serving."""
        self.page.close()

    def replace(self, index: int, item: Item) -> None:
        """Show another item in the place of one."""
        with self._lock:
            self.items[index] = item
            for kept in (self._drawn, self._errors):
                kept.pop(index, None)
            self._surfaces = {key: surface for key, surface in self._surfaces.items() if key[0] != index}
        self.draw()
        if index in self._waiting:  # later on somebody may have hidden it
            self._waiting.discard(index)
            self._shown[index].value = True

    def shown(self, index: int) -> bool:
        """Whether an item is to be seen."""
        return bool(self._shown[index].value)

    def hide(self, index: int) -> None:
        """Leave an item out until it is replaced, or until somebody wants to see it."""
        self._waiting.add(index)
        self._shown[index].value = False

    # ------------------------------------------------------------------------------------------ drawing

    def draw(self) -> None:
        """Bring every item to what the controls say."""
        with self._lock, self.server.atomic():
            for index, item in enumerate(self.items):
                cut = self._cut()
                state = (self._wires.value, self._color.value, self._level.value, self._labels.value, cut)
                if self._drawn.get(index) != (*state, self._kind.value):
                    self._notes[index] = ""
                    self._draw_item(index, item, cut)
                    self._drawn[index] = (*state, self._kind.value)
            self._note.content = "\n\n".join(filter(None, self._notes.values()))

    def _cut(self) -> Cut | None:
        """The plane, on the page."""
        if not self._slicing.value:
            return None
        axis = AXES[self._axis.value]
        (low, high), (middle, side) = self.items[0].box, self._places[0]
        at = float((low[axis] + self._at.value * (high[axis] - low[axis]) - middle[axis]) / side)
        return Cut(axis, at, bool(self._flipped.value))

    def _draw_item(self, index: int, item: Item, cut: Cut | None) -> None:
        scene, (middle, side) = self.server.scene, self._places[index]
        name = f"/{index}/shape"
        if not len(item.faces):
            self._draw_points(index, item, cut)
        else:
            vertices, faces = self._surface(index, item)
            unit, colors = (vertices - middle) / side, None
            if self._color.value == "error" and (error := self._error(index, item, vertices)) is not None:
                colors = error_color(error / (SCALE * side))
            if cut:
                faces = faces[cut.keeps(unit)[faces].all(axis=1)]  # those that cross it would poke through the plane
            if not len(faces):
                scene.remove_by_name(name)
            elif self._wires.value:
                scene.add_mesh_simple(name, unit, faces, color=WIRES, wireframe=True)
            else:
                scene.add_glb(name, glb(unit, faces, colors), cast_shadow=False, receive_shadow=False)
        if cut and item.make_values:
            self._draw_plane(index, item, cut)
        else:
            scene.remove_by_name(f"/{index}/plane")

    def _surface(self, index: int, item: Item) -> Arrays:
        """The item's triangles, of a lattice those of the level."""
        level = int(self._level.value)
        if item.at_level is None or level >= item.levels:
            return item.vertices, item.faces
        if (index, level) not in self._surfaces:
            try:
                self._surfaces[index, level] = item.at_level(level)
            except ValueError as error:  # so coarse that nothing is left of the shape
                self._notes[index] = f"{item.name}: {one_line(error)}"
                self._surfaces[index, level] = np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int64)
        return self._surfaces[index, level]

    def _error(self, index: int, item: Item, vertices: Floats) -> Floats | None:
        """The errors of the item's vertices; None where there is nothing to measure to."""
        if (truth := truth_of(self.items, item)) is None:
            return None
        if vertices is not item.vertices:
            return Item(item.name, vertices).error(truth)
        if index not in self._errors:
            try:
                self._errors[index] = item.error(truth)
            except ValueError as error:
                self._notes[index] = f"{truth.name}: {one_line(error)}"
                self._errors[index] = None
        return self._errors[index]

    def _draw_points(self, index: int, item: Item, cut: Cut | None) -> None:
        middle, side = self._places[index]
        unit = (item.vertices - middle) / side
        shown = np.ones(len(unit), dtype=bool)
        light = 0.6 if item.normals is None else 0.65 + 0.35 * (item.normals @ self.page.eye)[:, None]
        colors: Any = np.broadcast_to(light * np.array(CLAY_BYTES), unit.shape).astype(np.uint8)
        if item.labels is not None:
            colors = np.where(item.labels[:, None], np.array(INSIDE), np.array(OUTSIDE)).astype(np.uint8)
            if self._labels.value != "all":
                shown = item.labels == (self._labels.value == "inside")
        if cut:
            shown = shown & cut.keeps(unit)
        size = min(max(0.6 / math.sqrt(len(unit)), 0.001), 0.01)
        self.server.scene.add_point_cloud(
            f"/{index}/shape", unit[shown], colors[shown], point_size=size, point_shape="circle", precision="float32"
        )

    def _draw_plane(self, index: int, item: Item, cut: Cut) -> None:
        """The values on a plane through the item, as a picture in the scene."""
        try:
            values = item.values
            assert values is not None
            points = self._grid(index, cut)
            margin = MARGIN * self._places[index][1]
            near = ((points >= item.box[0] - margin) & (points <= item.box[1] + margin)).all(axis=2)
            found = np.full(near.shape, np.nan)
            found[near] = values(points[near])
        except ValueError as error:
            self._notes[index] = f"{item.name}: {one_line(error)}"
            self.server.scene.remove_by_name(f"/{index}/plane")
            return
        reach = None
        if self._kind.value == "distance":
            known = np.abs(found[np.isfinite(found)])
            reach = (
                REACH * self._places[0][1] if item.distances else float(np.percentile(known, 90) if len(known) else 1)
            )
            what = "distance" if item.distances else "logits"
            self._notes[index] += f"{item.name}: {what} from -{reach:.3g}, brown, to {reach:.3g}, blue"
        picture = plane_picture(found, reach)
        position = np.zeros(3)
        position[cut.axis] = cut.at
        self.server.scene.add_image(
            f"/{index}/plane", picture, 1.1, 1.1, format="png", wxyz=TURNS[cut.axis], position=position,
            cast_shadow=False, receive_shadow=False,
        )  # fmt: skip

    def _grid(self, index: int, cut: Cut) -> Floats:
        """The points (n, n, 3) of a plane's pixels, input coordinates; rows down, columns to the right."""
        middle, side = self._places[index]
        across = (np.arange(SLICE) + 0.5) / SLICE * 1.1 - 0.55
        right, down = PLANES[cut.axis]
        unit = across[None, :, None] * np.array(right) + across[:, None, None] * np.array(down)
        unit[..., cut.axis] += cut.at
        points: Floats = unit * side + middle
        return points

    # ------------------------------------------------------------------------------------------ layout

    def _slots(self, shown: Sequence[int]) -> list[tuple[int, float, float]]:
        """Where the middles of these items lie to the right and up, on the page."""
        if self._layout.value != "side by side":
            return [(index, 0.0, 0.0) for index in shown]
        columns = len(shown) if len(shown) <= 4 else math.ceil(math.sqrt(1.6 * len(shown)))
        rows = -(-len(shown) // max(columns, 1))
        gap = GAP * self._radius
        return [
            (index, gap * (k % columns - (columns - 1) / 2), gap * ((rows - 1) / 2 - k // columns))
            for k, index in enumerate(shown)
        ]

    def _distance(self, aspect: float) -> float:
        """How far the eye must be to have everything in view; aspect: width over height of the canvas."""
        slots = self._slots(range(len(self.items)))
        width = max((abs(x) for _, x, _ in slots), default=0) + self._radius
        height = max((abs(y) for _, _, y in slots), default=0) + self._radius
        return max(height, width / aspect) / math.tan(math.radians(FIELD_OF_VIEW) / 2) + 0.5

    def _connected(self, client: Any) -> None:
        """Frames of a browser's own, so that its shapes stand side by side as its camera sees them."""
        with client.atomic():
            client.camera.position = tuple(self._distance(client.camera.aspect) * self.page.eye)
            client.camera.look_at = (0.0, 0.0, 0.0)  # which moves along with the position
        self._frames[client.client_id] = [
            client.scene.add_frame(f"/{index}", show_axes=False) for index in range(len(self.items))
        ]
        client.camera.on_update(lambda _: self._arrange_for(client))
        self._arrange_for(client)

    def _arrange(self) -> None:
        for client in self.server.get_clients().values():
            self._arrange_for(client)

    def _arrange_for(self, client: Any) -> None:
        """Each shape beside the others as the camera sees them, turned so that all are seen from one direction."""
        frames = self._frames.get(client.client_id)
        if frames is None:
            return
        eye, right, up = camera_axes(client.camera.position, client.camera.wxyz)
        shown = [index for index in range(len(self.items)) if self.shown(index)]
        slots = {index: x * right + y * up for index, x, y in self._slots(shown)}
        with client.atomic():
            for index, frame in enumerate(frames):
                frame.visible = index in slots
                if index in slots:
                    frame.position = slots[index]
                    frame.wxyz = turn_between(eye, eye - slots[index])

    def _screenshot(self, event: Any) -> None:
        """Send what the browser shows to it as a file."""
        import io

        from PIL import Image

        client = event.client
        picture = client.get_render(height=client.camera.image_height, width=client.camera.image_width)
        data = io.BytesIO()
        Image.fromarray(picture).save(data, format="PNG")
        client.send_file_download("ff3d.png", data.getvalue(), save_immediately=True)


# For a plane across each axis: which ways its columns and rows run, and the rotation of a picture that does so: in
# viser its rows run along y.
PLANES = (
    ((0.0, 0.0, -1.0), (0.0, -1.0, 0.0)),
    ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),
    ((1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
)


def _quaternion(columns: Floats) -> Floats:
    """wxyz of a rotation matrix."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(columns).as_quat()
    return np.array([w, x, y, z])


TURNS = [
    _quaternion(np.stack([np.array(right), np.array(down), np.cross(right, down)], axis=1)) for right, down in PLANES
]


def camera_axes(position: Floats, wxyz: Floats) -> tuple[Floats, Floats, Floats]:
    """The eye, and the directions (3,) to the right and up of a camera; viser's look along z, with y down."""
    from scipy.spatial.transform import Rotation

    matrix = Rotation.from_quat(np.roll(wxyz, -1)).as_matrix()
    return np.asarray(position, dtype=np.float64), matrix[:, 0], -matrix[:, 1]


def turn_between(start: Floats, end: Floats) -> Floats:
    """wxyz of the smallest rotation that takes one direction (3,) to another."""
    one, other = start / np.linalg.norm(start), end / np.linalg.norm(end)
    found = np.array([1 + one @ other, *np.cross(one, other)])
    return found / np.linalg.norm(found)


def plane_picture(values: Floats, reach: float | None) -> NDArray[np.uint8]:
    """A plane coloured by values (h, w): > 0 inside blue, outside brown, the surface dark; NaN can be seen through.

    reach: the value of full colour; None for the two sides alone, outside grey.  Returns uint8 (h, w, 4), RGBA.
    """
    inside, known = values > 0, np.isfinite(values)
    depth = np.ones_like(values)
    if reach is not None:  # in bands, by which a distance is told from a label
        depth = (1 + np.floor(8 * np.clip(np.abs(np.nan_to_num(values)) / (reach or 1.0), 0, 1))) / 9
    colors = np.where(inside[..., None], np.array(CUT), np.array(PANEL if reach is None else BROWN))
    colors = 1 + depth[..., None] * (colors - 1)
    for axis in (0, 1):
        change = np.diff(inside, axis=axis, prepend=np.take(inside, [0], axis))
        colors[change] = 0.1
    return np.rint(255 * np.concatenate([colors, known[..., None]], axis=2)).astype(np.uint8)
