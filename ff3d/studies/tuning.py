"""Which learning rate, and which scale: a grid over a validation mesh, done as two studies, and the best of each."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ff3d.files import check_unmade, write_text
from ff3d.studies.plan import PLAN, Plan
from ff3d.studies.statistics import sweep
from ff3d.studies.study import HERE, Study, run_study
from ff3d.studies.workers import Workers

log = logging.getLogger("ff3d")

TUNED = "tuned.json"
SCALED = ("positional", "gaussian", "learned", "lecture")  # mappings that have a scale


def tune(
    meshes: Sequence[Path],
    mappings: Sequence[str],
    seeds: Sequence[int],
    settings: dict[str, Any],
    out: Path,
    *,
    rates: Sequence[float],
    scales: Sequence[float],
    resolution: int = 96,
    workers: Workers = HERE,
    command: str = "",
    progress_bar: bool = False,
    force: bool = False,
) -> tuple[dict[str, dict[str, Any]], list[Study]]:
    """Search each mapping's learning rate at its usual scale, and then its scale at that rate.

    meshes: for validation; Tancik et al. 2020 took Lucy alone. Two studies, out/learning_rates and out/scales, which
    stop and go on as any other does. The best by mean IoU near the surface is written to out/tuned.json, for
    `ff3d benchmark --tuned`; a value with which a fit fails is not chosen. Returns it,
    {mapping: {"learning_rate": ..., "scale": ...}}, and the studies.
    After Ctrl-C there is no best, {}, and the same call resumes.
    force, and what is raised without: as `run_study`.
    """
    if not force and not any((out / f"{name}s" / PLAN).exists() for name in ("learning_rate", "scale")):
        check_unmade(out / TUNED)
    best: dict[str, dict[str, Any]] = {}
    studies = []
    scaled = tuple(it for it in mappings if it in SCALED)
    for name, values, which in (("learning_rate", rates, tuple(mappings)), ("scale", scales, scaled)):
        if not which or not values:
            continue
        plan = Plan(
            tuple(meshes),
            which,
            tuple(seeds),
            settings,
            resolution,
            vary={name: tuple(values)},
            tuned={mapping: dict(best[mapping]) for mapping in which if mapping in best},
        )
        study = run_study(
            plan, out / f"{name}s", workers=workers, command=command, progress_bar=progress_bar, force=force
        )
        studies.append(study)
        if study.missing:
            return {}, studies
        for mapping in which:
            known = {value: mean for value, mean, _ in sweep(study.rows, mapping, name, "boundary_face")}
            if not known:
                raise ValueError(
                    f"{mapping}: no {name} of {', '.join(map(str, values))} gave a field with every seed on every mesh"
                )
            found = max(known, key=lambda value: known[value])
            if found in (min(values), max(values)) and len(values) > 1:
                log.warning("%s: the best %s, %g, is at the edge of those tried; widen them", mapping, name, found)
            best.setdefault(mapping, {})[name] = found
    write_text(out / TUNED, json.dumps(best, indent=2) + "\n")
    return best, studies
