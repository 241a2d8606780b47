"""Fits of a picture or of a signal to files: PNGs, rows as JSON, and one HTML page that fetches nothing."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ff3d.files import write_atomically, write_text
from ff3d.geometry.arrays import Floats, Singles
from ff3d.theory.images import PUBLISHED, ImageFit, Kind, Snapshot, kind_of, to_bytes
from ff3d.theory.pictures import missing_energy, power_spectrum
from ff3d.theory.signals import PAPER_STEPS, SignalFit
from ff3d.views.pages import Section, base64_of, line_chart, machine_provenance, rendered, script_data, write_chart_page

DARKEST = 1e-8  # of the truth's highest energy, in pictures of spectra
LEGEND = "PSNR in decibels, higher is better: train on the pixels that were trained on, test on those that were not."
SHOWN = slice(1, 2)  # of the signal, in quarters
BANDS = {"low": 1, "middle": 5, "high": 15}  # the frequencies of figure 3


def write_image_report(
    fits: Sequence[ImageFit], folder: str | Path, *, command: str = "", kind: Kind = "auto", page: bool = True
) -> Path:
    """Write truth.png, MAPPING.png or MAPPING-SCALE.png, rows.json and report.html into a folder; the page's path.

    fits: of one picture, at least one; each mapping's first fit is the one shown beside the others, the rest are a
    sweep through its scales.  page: without it, only the pictures and the rows.
    """
    folder = Path(folder)
    truth = fits[0].picture.pixels
    firsts, rows = _firsts(fits), [fit.to_json() for fit in fits]
    write_text(folder / "rows.json", json.dumps(rows, indent=1) + "\n")  # first: it marks the folder as ff3d's
    _save_png(to_bytes(truth), folder / "truth.png")
    for fit in fits:
        name = fit.config.mapping.name if fit in firsts else f"{fit.config.mapping.name}-{fit.scale:g}"
        _save_png(to_bytes(fit.pixels), folder / f"{name}.png")
    path = folder / "report.html"
    if page:
        write_text(path, _page(fits, firsts, rows, command, kind))
    return path


def image_rows(fits: Sequence[ImageFit]) -> str:
    """The scores as a table for a terminal."""
    lines = [f"{'mapping':18}{'train dB':>10}{'test dB':>10}{'SSIM':>8}{'steps':>8}{'seconds':>9}"]
    for fit in fits:
        row = fit.to_json()
        lines.append(
            f"{fit.title:18}{_score(row, 'psnr_train'):>10}{_score(row, 'psnr_test'):>10}{row['ssim']:8.3f}"
            f"{row['step']:8,}{row['seconds']:9.1f}"
        )
    return "\n".join(lines)


def _firsts(fits: Sequence[ImageFit]) -> list[ImageFit]:
    """The first fit of each mapping."""
    names = [fit.config.mapping.name for fit in fits]
    return [fit for index, fit in enumerate(fits) if fit.config.mapping.name not in names[:index]]


def _page(
    fits: Sequence[ImageFit], firsts: list[ImageFit], rows: list[dict[str, Any]], command: str, kind: Kind
) -> str:
    picture, config = fits[0].picture, fits[0].config
    truth, height, width = picture.pixels, *picture.pixels.shape[:2]
    part = _detail(truth)
    highest = float(np.sort(power_spectrum(truth).ravel())[-2:][0])  # not that of frequency 0, the mean
    published = PUBLISHED.get(kind_of(picture, kind), {}) if config.preset == "paper" else {}
    heads = ["mapping", "train", "test", "SSIM", "steps", "seconds", "weights", "precision"]
    heads += ["published, test"] if published else []
    table = [
        [
            fit.title,
            _score(row, "psnr_train"),
            _score(row, "psnr_test"),
            f"{row['ssim']:.3f}",
            f"{row['step']:,}" + ("" if row["finished"] else " (interrupted)"),
            f"{row['seconds']:.1f}",
            f"{row['parameters']:,}",
            row["precision"],
            *([_published(fit, firsts, published)] if published else []),
        ]
        for fit, row in zip(fits, rows, strict=True)
    ]
    mappings: list[str] = [fit.config.mapping.name for fit in firsts]
    swept = {name: _by_scale(fits, name) for name in mappings}
    swept = {name: found for name, found in swept.items() if len(found) > 1}
    sweeps = [[_sweep_frame(fit, part) for fit in found] for found in swept.values()]
    frames = [[{"src": _jpeg(it.pixels), "says": _says(it)} for it in fit.snapshots] for fit in firsts]
    moments = [f"{share:.1%} of the budget" for share in _shares(firsts)]
    return rendered(
        "image.html",
        title=picture.name,
        about=f"A network of (x, y) fitted to {width} x {height} pixels under {len(mappings)} mappings; "
        f"preset {config.preset}, {config.budget}, seed {config.seed}",
        notes=[*picture.notes, *([_paper_note(kind_of(picture, kind))] if published else [])],
        heads=heads,
        rows=table,
        legend=LEGEND,
        moments=len(moments),
        truth={"picture": _jpeg(to_bytes(truth)), "crop": _png(_cut(truth, part)), "spectrum": _log(truth, highest)},
        fits=[
            {
                "title": fit.title,
                "picture": frames[index][-1]["src"],
                "says": frames[index][-1]["says"],
                "crop": _png(_cut(fit.pixels, part)),
                "spectrum": _log(fit.pixels, highest),
                "missing": _log(truth - fit.pixels, highest),
            }
            for index, fit in enumerate(firsts)
        ],
        sweeps=[
            {
                "mapping": name,
                "count": len(found),
                "start": found.index(next(it for it in firsts if it.config.mapping.name == name)),
                "picture": frame[0]["src"],
                "crop": frame[0]["crop"],
            }
            for (name, found), frame in zip(swept.items(), sweeps, strict=True)
        ],
        charts=_charts(firsts, swept),
        provenance=machine_provenance(command),
        frames=script_data({"fits": frames, "moments": moments, "sweeps": sweeps}),
    )


def _charts(firsts: list[ImageFit], swept: Mapping[str, list[ImageFit]]) -> list[dict[str, Any]]:
    """PSNR against steps and against scale; energy missing against frequency."""
    charts = []
    for key in ("psnr_test", "psnr_train"):
        lines = [(fit.title, [(it.row["step"], it.row.get(key, math.nan)) for it in fit.snapshots]) for fit in firsts]
        charts.append(line_chart(f"PSNR, {key.removeprefix('psnr_')}, dB,", "steps", lines, log_x=True))
    for name, found in swept.items():
        lines = [
            (key.removeprefix("psnr_"), [(it.scale or 0.0, it.snapshots[-1].row.get(key, math.nan)) for it in found])
            for key in ("psnr_test", "psnr_train")
        ]
        charts.append(line_chart(f"PSNR of {name}, dB,", "scale, cycles per picture", lines, log_x=True))
    missing = [(fit.title, missing_energy(fit.pixels, fit.picture.pixels)) for fit in firsts]
    lines = [(title, list(zip(at.tolist(), share.tolist(), strict=True))) for title, (at, share) in missing]
    title, against = "Error's energy over the truth's", "frequency, cycles per picture"
    charts.append(line_chart(title, against, lines, log_x=True, log_y=True))
    return [chart for chart in charts if chart["lines"]]


def _by_scale(fits: Sequence[ImageFit], mapping: str) -> list[ImageFit]:
    """The fits of a mapping that has a scale, smallest first, one a scale."""
    found = {fit.scale: fit for fit in reversed(fits) if fit.config.mapping.name == mapping and fit.scale}
    return [found[scale] for scale in sorted(found, key=float)]


def _shares(firsts: list[ImageFit]) -> list[float]:
    """The shares of the budget at which the longest list of snapshots was taken."""
    longest = max(firsts, key=lambda fit: len(fit.snapshots))
    budget = longest.config.budget
    return [min(1.0, budget.share(int(it.row["step"]), it.row["seconds"])) for it in longest.snapshots]


def _says(snapshot: Snapshot) -> str:
    score = snapshot.row.get("psnr_test", snapshot.row["psnr_train"])
    return f"{score:.2f} dB at step {snapshot.row['step']:,}"


def _score(row: dict[str, Any], key: str) -> str:
    return f"{row[key]:.2f}" if key in row else "-"


def _published(fit: ImageFit, firsts: list[ImageFit], published: dict[str, float]) -> str:
    value = published.get(fit.config.mapping.name) if fit in firsts else None
    return "" if value is None else f"{value:.1f}"


def _paper_note(kind: str) -> str:
    return (
        f"Published: the mean over the 16 {kind} images of Tancik et al. 2020, table 1, after 2,000 steps; those are "
        "other pictures than this one."
    )


def _sweep_frame(fit: ImageFit, part: tuple[slice, slice]) -> dict[str, str]:
    return {
        "src": _jpeg(fit.snapshots[-1].pixels),
        "crop": _png(_cut(fit.pixels, part)),
        "says": f"{fit.scale:g} cycles per picture: {_says(fit.snapshots[-1])}",
    }


def _detail(truth: Singles) -> tuple[slice, slice]:
    """The square, a sixth of the picture, whose neighbouring pixels differ most."""
    side = max(8, min(truth.shape[:2]) // 6)
    below, right = ((np.diff(truth, axis=axis) ** 2).sum(axis=2, dtype=np.float64) for axis in (0, 1))
    change = below[:, :-1] + right[:-1]
    sums = np.pad(change.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    reach = min(side, *change.shape)
    boxes = sums[reach:, reach:] - sums[:-reach, reach:] - sums[reach:, :-reach] + sums[:-reach, :-reach]
    row, column = np.unravel_index(int(boxes.argmax()), boxes.shape)
    return slice(int(row), int(row) + side), slice(int(column), int(column) + side)


def _cut(pixels: Singles, part: tuple[slice, slice]) -> NDArray[np.uint8]:
    return to_bytes(pixels[part])


def _log(pixels: Singles, highest: float) -> str:
    """A picture of a spectrum, logarithmic from `DARKEST` of `highest` to it."""
    power: Floats = power_spectrum(pixels) / max(highest, np.finfo(np.float64).tiny)
    share = 1 - np.log10(np.clip(power, DARKEST, 1)) / math.log10(DARKEST)
    return _jpeg(np.rint(255 * share).astype(np.uint8))


def _jpeg(pixels: NDArray[np.uint8]) -> str:
    """A picture as a data URL, small: the page holds many."""
    return "data:image/jpeg;base64," + base64_of(_encoded(pixels, "JPEG", quality=88))


def _png(pixels: NDArray[np.uint8]) -> str:
    return "data:image/png;base64," + base64_of(_encoded(pixels, "PNG"))


def _encoded(pixels: NDArray[np.uint8], format_: str, **options: Any) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format_, **options)
    return buffer.getvalue()


def _save_png(pixels: NDArray[np.uint8], path: Path) -> None:
    with write_atomically(path) as temporary:
        temporary.write_bytes(_encoded(pixels, "PNG"))


def write_signal_report(
    fits: Sequence[SignalFit],
    sparse: Sequence[dict[str, Any]],
    chosen: Sequence[tuple[float, float]],
    folder: str | Path,
    *,
    command: str = "",
    page: bool = True,
) -> Path:
    """Write rows.json and report.html into a folder; the page's path.

    fits: of one signal, by falloff.  sparse: of random frequencies, each with distribution, std and test.
    chosen: those of `predicted_by_falloff`.  page: without it, only the rows.
    """
    folder = Path(folder)
    rows = {"falloffs": [fit.to_json() for fit in fits], "sparse": list(sparse), "predicted_by_falloff": list(chosen)}
    write_text(folder / "rows.json", json.dumps(rows, indent=1) + "\n")
    path = folder / "report.html"
    if not page:
        return path
    signal, steps = fits[0].signal, fits[0].steps[-1]
    sections = [_functions(fits), _losses(fits), _bands(fits), _predictions(fits), _choice(chosen)]
    if sparse:
        sections.append(_sparse(sparse))
    write_chart_page(
        path,
        title="A signal of one dimension",
        about=f"Networks trained by gradient descent on {len(signal.trained[0])} of {len(signal.places)} points for "
        f"{steps:,} steps, under mappings of falloff p; the paper's figures 2 and 3 take {PAPER_STEPS:,}.",
        sections=sections,
        command=command,
    )
    return path


def signal_rows(fits: Sequence[SignalFit]) -> str:
    """The errors as a table for a terminal."""
    return "\n".join(f"{row[0]:12}" + "".join(f"{cell:>11}" for cell in row[1:]) for row in _signal_table(fits))


def _signal_table(fits: Sequence[SignalFit]) -> list[tuple[str, ...]]:
    rows = [
        (
            fit.title,
            *(f"{fit.train[-1]:.3g}", f"{fit.test[-1]:.3g}"),
            *((f"{it[-1]:.3g}" for it in fit.predicted) if fit.predicted else ("-", "-")),
            *(f"{fit.steps[-1]:,}", f"{fit.seconds:.1f}"),
        )
        for fit in fits
    ]
    return [("mapping", "train MSE", "test MSE", "predicted", "predicted", "steps", "seconds"), *rows]


def _functions(fits: Sequence[SignalFit]) -> Section:
    """The signal and what each network made of it, over a quarter."""
    signal = fits[0].signal
    quarter = len(signal.places) // 4
    part = slice(SHOWN.start * quarter, SHOWN.stop * quarter + 1)
    lines = [("signal", list(zip(signal.places[part].tolist(), signal.values[part].tolist(), strict=True)))]
    lines += [
        (fit.title, list(zip(signal.places[part].tolist(), fit.values[part].tolist(), strict=True))) for fit in fits
    ]
    return Section(
        "Functions",
        [line_chart("value", "place, a quarter of the signal", lines)],
        _signal_table(fits),
        f"Every {signal.step}th point was trained on. MSE: mean square error, of a signal that spans 1.",
    )


def _losses(fits: Sequence[SignalFit]) -> Section:
    charts = []
    for name in ("test", "train"):
        lines = [(fit.title, list(zip(fit.steps, getattr(fit, name), strict=True))) for fit in fits]
        charts.append(line_chart(f"mean square error, {name},", "steps", lines, log_x=True, log_y=True))
    text = "Too slow a falloff puts noise between trained points; too fast a one lacks high frequencies."
    return Section("Loss", charts, text=text)


def _bands(fits: Sequence[SignalFit]) -> Section:
    charts = []
    for name, frequency in BANDS.items():
        lines = [(fit.title, list(zip(fit.steps, fit.bands[:, frequency].tolist(), strict=True))) for fit in fits]
        title = f"error at {frequency} cycle{'s' * (frequency > 1)} ({name})"
        charts.append(line_chart(title, "steps", lines, log_x=True, log_y=True))
    return Section("Frequencies", charts, text="|FFT| of the error at the trained points: low frequencies first.")


def _predictions(fits: Sequence[SignalFit]) -> Section:
    charts = []
    for fit in fits:
        if fit.predicted:
            curves = {"train": fit.train, "train, predicted": fit.predicted[0]}
            curves |= {"test": fit.test, "test, predicted": fit.predicted[1]}
            lines = [(name, list(zip(fit.steps, values, strict=True))) for name, values in curves.items()]
            charts.append(line_chart(f"{fit.title}: mean square error", "steps", lines, log_x=True, log_y=True))
    text = "Predicted from the network's own tangent kernel before the first step: each eigenvector's error falls as "
    return Section("Predicted against measured", charts, text=text + "exp(-rate eigenvalue step).")


def _choice(chosen: Sequence[tuple[float, float]]) -> Section:
    best = min(chosen, key=lambda it: it[1])[0]
    chart = line_chart("test mean square error, predicted,", "falloff p", [("over 32 signals", chosen)], log_y=True)
    text = (
        f"Networks of infinite width, trained to the end: the theory chooses p = {best:g} for signals of this power. "
        "Larger ones end about as well, but learn later."
    )
    return Section("Amplitudes chosen by the theory", [chart], text=text)


def _sparse(sparse: Sequence[dict[str, Any]]) -> Section:
    names = list(dict.fromkeys(row["distribution"] for row in sparse))
    lines = [
        (name, sorted((row["std"], row["test"]) for row in sparse if row["distribution"] == name)) for name in names
    ]
    chart = line_chart("test mean square error", "standard deviation of the frequencies", lines, log_x=True, log_y=True)
    text = (
        "Sixteen random frequencies from four distributions: their standard deviation matters, their shape hardly does."
        " These fits are to another signal, of which 256 of 512 points are trained on, by another network: 3 x 256, "
        "300 steps of Adam."
    )
    return Section("Distributions of frequencies", [chart], text=text)
