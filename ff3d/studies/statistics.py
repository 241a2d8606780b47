"""Means and intervals over seeds, curves over time, sweeps over a setting."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ff3d.studies.task import Row


def summary(rows: Iterable[Row], measure: str) -> tuple[float, float]:
    """Mean of a measure over rows, and the half width of its 95% interval over seeds (Student's t; NaN for one seed).

    measure: "iou.uniform", "surface.chamfer" and the like. Each seed's value is its mean over the meshes. Rows that
    have no such value are left out: whether some are missing says `Study.scored`.
    """
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        if (value := row.value(measure)) is not None:
            by_seed.setdefault(row.seed, []).append(value)
    mean, width = interval(np.array([[np.mean(values)] for values in by_seed.values()]).reshape(-1, 1))
    return float(mean[0]), float(width[0])


def interval(values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Means (n,) of values (seeds, n), and the half widths of their 95% intervals; NaN where there are too few."""
    from scipy.special import stdtrit  # not scipy.stats, which takes longer to import than a report to write

    count, width = values.shape
    if not count:
        return np.full(width, np.nan), np.full(width, np.nan)
    if count == 1:
        return values[0], np.full(width, np.nan)
    half = stdtrit(count - 1, 0.975) * values.std(axis=0, ddof=1) / np.sqrt(count)
    return values.mean(axis=0), half


def curve(rows: Sequence[Row], kind: str) -> list[tuple[float, float, float]]:
    """IoU while training: (seconds, mean, half width of the 95% interval over seeds), each seed's mean over meshes.

    Between its evaluations a fit's IoU is taken as linear; the curve ends where the first of the fits does.
    """
    fits: dict[int, list[np.ndarray[Any, Any]]] = {}
    for row in rows:
        points = [(it["seconds"], it["iou"][kind]) for it in row.history if kind in it.get("iou", {})]
        if points:
            fits.setdefault(row.seed, []).append(np.array(points, dtype=float))
    every = [points for own in fits.values() for points in own]
    if not every:
        return []
    first, last = max(points[0, 0] for points in every), min(points[-1, 0] for points in every)
    longest = max(every, key=len)[:, 0]
    seconds = np.unique(np.clip(longest, min(first, last), last))
    means = [np.mean([np.interp(seconds, *points.T) for points in own], axis=0) for own in fits.values()]
    return list(zip(seconds.tolist(), *(it.tolist() for it in interval(np.array(means))), strict=True))


def sweep(rows: Sequence[Row], mapping: str, name: str, kind: str) -> list[tuple[float, float, float]]:
    """IoU against a setting, or against "parameters": (value, mean, half width of the interval), by value.

    A value with which a fit failed, on a mesh where others have an IoU, is left out.
    """
    measure = f"iou.{kind}"
    scored = {row.mesh for row in rows if row.value(measure) is not None}
    sizes = {row.arm: row.parameters for row in rows if row.parameters}
    values: dict[float, list[Row]] = {}
    for row in rows:
        # a fit that failed has none of its own
        value = row.varied.get(name) if name != "parameters" else row.parameters or sizes.get(row.arm)
        if row.compared == mapping and row.mesh in scored and value:
            values.setdefault(float(value), []).append(row)
    whole = {value: of for value, of in sorted(values.items()) if all(it.value(measure) is not None for it in of)}
    return [(value, *summary(of, measure)) for value, of in whole.items()]
