#!/usr/bin/env python3
"""Make the pictures of docs/gallery.md and docs/how-it-works.md: `scripts/make_gallery.py [NAME...]`, some minutes."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

import ff3d
from ff3d.fields.config import MappingName
from ff3d.theory.images import to_bytes

OUT = Path(__file__).parents[1] / "docs/gallery"
PANEL = 300
INSIDE, OUTSIDE = np.array((115, 143, 179)), np.array((244, 244, 245))
Picture = NDArray[np.uint8]
# a small network, so that the pictures take seconds
SMALL: dict[str, Any] = {"width": 64, "depth": 3, "batch_size": 2048, "pool_size": 2**16, "seed": 0}


def write(name: str, pictures: dict[str, Picture]) -> None:
    """Write pictures (PANEL, PANEL, 3) side by side, each with its caption below."""
    sheet = Image.new("RGB", (PANEL * len(pictures), PANEL + 28), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for column, (caption, picture) in enumerate(pictures.items()):
        sheet.paste(Image.fromarray(picture), (PANEL * column, 0))
        draw.text((PANEL * column + PANEL // 2, PANEL + 4), caption, fill=(30, 30, 35), font=font, anchor="ma")
    OUT.mkdir(exist_ok=True)
    sheet.quantize(96, dither=Image.Dither.NONE).save(OUT / f"{name}.png", optimize=True)
    print(f"{name}: {(OUT / f'{name}.png').stat().st_size / 1000:.0f} KB", flush=True)


def clay(mesh: trimesh.Trimesh) -> Picture:
    """A picture of a mesh."""
    return ff3d.render(mesh, size=(PANEL, PANEL))


def slice_points(bounds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (PANEL * PANEL, 3) across the middle of a box, y up, z to the right."""
    side = 1.1 * float((bounds[1] - bounds[0])[1:].max())
    offsets = side * ((np.arange(PANEL) + 0.5) / PANEL - 0.5)
    z, y = np.meshgrid(offsets, -offsets)
    return np.stack([0 * y, y, z], axis=-1).reshape(-1, 3) + bounds.mean(axis=0)


def samples() -> dict[str, Picture]:
    """The five shapes that come with ff3d."""
    return {name: clay(ff3d.load_mesh(name)) for name in ("bunny", "knot", "gyroid", "bracket", "soup")}


def steps() -> dict[str, Picture]:
    """A broken mesh, its labels, a field's answer, and what is extracted."""
    soup = ff3d.load_mesh("soup")
    points = slice_points(soup.bounds)
    inside = ff3d.make_oracle(soup)(points).reshape(PANEL, PANEL, 1)
    field = ff3d.fit(soup, "gaussian", scale=5.0, steps=300, **SMALL)
    share = field.occupancy(points).reshape(PANEL, PANEL, 1)
    return {
        "a broken mesh": clay(soup),
        "labels, in a slice": np.where(inside, INSIDE, OUTSIDE).astype(np.uint8),
        "a field of 300 steps": (OUTSIDE + share * (INSIDE - OUTSIDE)).astype(np.uint8),
        "its surface": clay(field.extract_mesh(resolution=192)),
    }


def sharp() -> dict[str, Picture]:
    """Edges that marching cubes cuts off, and those that are put back."""
    bracket = ff3d.load_mesh("bracket")
    return {
        "the bracket": clay(bracket),
        "24 cells": clay(ff3d.watertight(bracket, resolution=24)),
        "24 cells, --sharp": clay(ff3d.watertight(bracket, resolution=24, sharp=True)),
    }


def mappings() -> dict[str, Picture]:
    """The same network, for as long, under four mappings of a picture's coordinates."""
    small: dict[str, Any] = {"width": 128, "batch_size": 4096, "seed": 0}
    names: tuple[MappingName, ...] = ("none", "positional", "gaussian", "hash")
    fits = {name: ff3d.fit_image("astronaut", name, size=PANEL, steps=200, **small) for name in names}
    shown = {f"{name}, {fit.to_json()['psnr_test']:.1f} dB": fit.snapshots[-1].pixels for name, fit in fits.items()}
    return {"the picture": to_bytes(fits["none"].picture.pixels)} | shown


def kilobytes() -> dict[str, Picture]:
    """The bunny in files of growing size."""
    bunny = ff3d.load_mesh("bunny")
    sizes = (5_000, 15_000, 50_000)
    fields = {f"{size // 1000} KB": ff3d.fit(bunny, "lattice", bytes=size, seed=0) for size in sizes}
    return {"the mesh": clay(bunny)} | {name: clay(it.extract_mesh(resolution=192)) for name, it in fields.items()}


PICTURES = {"samples": samples, "steps": steps, "sharp": sharp, "mappings": mappings, "kilobytes": kilobytes}

if __name__ == "__main__":
    for wanted in sys.argv[1:] or PICTURES:
        write(wanted, PICTURES[wanted]())
