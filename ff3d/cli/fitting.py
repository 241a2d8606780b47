"""ff3d fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ff3d.cli.options import Settings, ShapeName, say, scores_in_words, typed_command
from ff3d.cli.settings import given
from ff3d.settings import make_config


@dataclass
class FitCommand:
    """Fit one field to a mesh or a point cloud, and keep it in a run folder."""

    mesh: ShapeName
    settings: Settings
    out: Path | None = None
    """run folder; the same command again resumes an unfinished fit (default: runs/MESH-MAPPING)"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.labels.oracles import load_surface
        from ff3d.runs import MeshSource, Run, new_folder

        surface = load_surface(self.mesh)
        source = MeshSource(surface.name, surface.sha256 or "")
        config = make_config(**{"preset": None} | given(self.settings))

        def unfinished(folder: Path) -> bool:
            run = Run(folder)
            return run.config_path.exists() and not run.finished and run.matches(config, source)

        folder = self.out or new_folder(Path("runs"), f"{surface.stem}-{config.mapping.name}", reusable=unfinished)
        run = Run(folder)
        fit = run.fit(surface.mesh, config, source, command=typed_command(), oracle=surface.oracle, progress_bar=True)
        for note in fit.notes:
            say(note)
        say(f"{fit.progress.step:,} steps in {fit.progress.seconds:.1f} s")
        if fit.progress.history:
            say("held-out IoU: " + (scores_in_words(fit.progress.history[-1]["iou"]) or "none"))
        for remark in fit.remarks:
            say(remark)
        if fit.progress.interrupted:
            say("interrupted; the field so far is saved, and the same command resumes it")
            if self.out is None:
                say(f"(with --out {folder})")
        say(f"results: {folder}")
        return 128 + (fit.progress.signal or 2) if fit.progress.interrupted else int(fit.nothing is not None)
