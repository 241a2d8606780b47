"""A page in the browser, served on this machine alone: viser's server, small and closable. Only arrays go to it."""

from __future__ import annotations

import io
import json
import logging
import os
import socket
import struct
import sys
import webbrowser
from contextlib import contextmanager, redirect_stdout, suppress
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from ff3d.geometry.arrays import Floats, Ints
from ff3d.views.rendering import CLAY

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACK = "127.0.0.1"
# hosts that listen everywhere, and where they are reached from this machine
EVERYWHERE = {"0.0.0.0": LOOPBACK, "::": "::1", "": LOOPBACK}  # noqa: S104
PORT = 8080
NEEDS = "needs the package viser: pip install 'ff3d[view]'"
FIELD_OF_VIEW = 30.0  # degrees, as of the pictures
CLAY_BYTES = tuple(round(255 * value) for value in CLAY)
EYE = (0.55, 0.35, 0.76)  # about 35 degrees to the side and 20 above, as of the pictures


def check_viser(command: str) -> None:
    """Raise ValueError, with what to install, if there is no viser for a command."""
    try:
        import viser  # noqa: F401
    except ImportError as error:
        reason = "" if error.name == "viser" else f" ({error})"
        raise ValueError(f"{command} {NEEDS}{reason}") from None


class Page:
    """A server of one page, until it is closed; `server` is viser's.

    host: the address that it listens on; by default other machines cannot reach it.  port: the next free one, if it is
    taken; 0 takes any.  up: the axis that points up, y or z.
    Raises ValueError for an address that this machine cannot listen at.
    """

    def __init__(self, title: str, *, host: str = LOOPBACK, port: int = PORT, up: str = "y"):
        import viser

        _check_address(host, port)
        logging.getLogger("websockets").setLevel(logging.WARNING)  # it says of each browser that it came
        with _silent(), _own_pages_alone(host):
            self.server: Any = viser.ViserServer(host, port, label=title, verbose=False)
        self.server.gui.configure_theme(show_logo=False, show_share_button=False)
        self.server.gui.main_panel.dock_right()
        self.server.scene.set_up_direction(f"+{up}")
        self.server.scene.configure_default_lights(cast_shadow=False)
        eye = np.array(EYE) if up == "y" else np.array([EYE[0], -EYE[2], EYE[1]])
        self.eye: Floats = eye / np.linalg.norm(eye)
        self.server.initial_camera.fov = np.radians(FIELD_OF_VIEW)

    @property
    def address(self) -> str:
        """What to type into a browser on this machine."""
        host = self.server.get_host()
        host = EVERYWHERE.get(host, host)
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server.get_port()}"

    def look_from(self, distance: float) -> None:
        """The first view: the origin, from so far away."""
        self.server.initial_camera.position = tuple(distance * self.eye)
        self.server.initial_camera.look_at = (0.0, 0.0, 0.0)

    @property
    def viewers(self) -> int:
        """How many browsers show it."""
        return len(self.server.get_clients())

    def close(self) -> None:
        """Stop the server and its threads."""
        with _silent():
            self.server.stop()


def _check_address(host: str, port: int) -> None:
    """Raise ValueError where nobody can listen: viser would wait for it without end."""
    if not 0 <= port <= 65535:
        raise ValueError(f"--port must be from 0 to 65535, got {port}")
    try:
        socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise ValueError(
            f"cannot listen at {host!r} ({error.strerror or error}); give one of this machine, or leave out --host"
        ) from None


def open_browser(address: str) -> bool:
    """Open a browser where there is a display to show one; whether that was done."""
    display = os.name == "nt" or sys.platform == "darwin" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    if not display or "SSH_CONNECTION" in os.environ:
        return False
    with suppress(webbrowser.Error):
        return webbrowser.open(address)
    return False


@contextmanager
def _silent() -> Iterator[None]:
    """Without the box that viser prints when it starts, and its good-bye."""
    with redirect_stdout(io.StringIO()):
        yield


@contextmanager
def _own_pages_alone(host: str) -> Iterator[None]:
    """Within it a server of viser's that is started refuses browsers that show another site's page.

    Any page may open a websocket to this machine, and viser would obey it. The request names the page's site, and the
    server as the browser knows it: they must agree, and be one of `own_names`.
    """
    from websockets.asyncio import server

    serve: Any = server.serve
    names = own_names(host)

    def guarded(handler: Any, *place: Any, process_request: Any, **options: Any) -> Any:
        def answer(connection: Any, request: Any) -> Any:
            origin, name = request.headers.get("Origin"), request.headers.get("Host", "")
            if same_site(origin, name, names):
                return process_request(connection, request)
            return connection.respond(HTTPStatus.FORBIDDEN, f"this page is not for {origin or name}\n")

        return serve(handler, *place, process_request=answer, **options)

    server.serve = guarded  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        server.serve = serve  # type: ignore[misc]


def own_names(host: str) -> frozenset[str] | None:
    """The names, beside addresses and localhost, of a server that listens at `host`; None if that is on loopback."""
    if _is_loopback(host):
        return None
    return frozenset(name.lower() for name in (host, socket.gethostname(), socket.getfqdn()))


def same_site(origin: str | None, name: str, names: frozenset[str] | None) -> bool:
    """Whether a request with these headers Origin (None: not from a page) and Host comes from a server's own page.

    names: see `own_names`.  A site can have its own name resolve to this machine, so that Origin and Host agree; it
    cannot so take an address, or a name of this machine.
    """
    try:
        host = urlsplit(f"//{name}").hostname or ""
        origin = None if origin is None else urlsplit(origin).netloc
    except ValueError:  # no such thing
        return False
    known = _is_loopback(host) or (names is not None and (host in names or _address(host) is not None))
    return known and origin in (None, name)


def _is_loopback(host: str) -> bool:
    """Whether a host is this machine alone: localhost, ::1, or one of 127.0.0.0/8."""
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host is given as, None of a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None


def glb(vertices: Floats, faces: Ints, colors: NDArray[np.float64] | None = None) -> bytes:
    """A matt mesh as a binary glTF file, smooth but at its sharp edges, both sides of its faces visible.

    vertices: (v, 3).  faces: (f, 3).  colors: (v, 3), linear, 0..1; None for clay.
    """
    from ff3d.views.color import to_linear
    from ff3d.views.html import shaded

    triangles, which, normals = shaded(np.asarray(vertices, dtype=np.float64), np.asarray(faces, dtype=np.int64))
    points = vertices[which].astype("<f4")
    unit = normals.astype(np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1)
    arrays: list[tuple[str, str, NDArray[Any], int]] = [
        ("POSITION", "VEC3", points, 5126),
        ("NORMAL", "VEC3", unit.astype("<f4"), 5126),
    ]
    if colors is not None:
        arrays.append(("COLOR_0", "VEC3", colors[which].astype("<f4"), 5126))
    arrays.append(("", "SCALAR", triangles.reshape(-1).astype("<u4"), 5125))
    accessors, views, offset = [], [], 0
    for _, kind, array, number in arrays:
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": array.nbytes})
        accessors.append({"bufferView": len(views) - 1, "componentType": number, "count": len(array), "type": kind})
        offset += array.nbytes
    accessors[0] |= {"min": points.min(axis=0).tolist(), "max": points.max(axis=0).tolist()}
    color = [1.0, 1.0, 1.0, 1.0] if colors is not None else [*to_linear(CLAY).tolist(), 1.0]
    material = {"pbrMetallicRoughness": {"baseColorFactor": color, "metallicFactor": 0.0, "roughnessFactor": 0.8}}
    attributes = {name: index for index, (name, *_) in enumerate(arrays) if name}
    tree = {
        "asset": {"version": "2.0", "generator": "ff3d"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": len(arrays) - 1, "material": 0}]}],
        "materials": [material | {"doubleSided": True}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": offset}],
    }
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    parts = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", offset, 0x004E4942)
    data = b"".join(array.tobytes() for _, _, array, _ in arrays)
    return struct.pack("<4sII", b"glTF", 2, 12 + len(parts) + offset) + parts + data
