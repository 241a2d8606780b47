"""ff3d watertight."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import arg

from ff3d.cli.options import ManyMeshes, Output, bytes_of, say
from ff3d.files import check_folder, check_output


@dataclass
class WatertightCommand:
    """Close meshes, broken or not, without a network: closed, outward, in the input's coordinates.

    Lengths are in input units, or per cent of the longest side: 0.5%.
    """

    EXAMPLES: ClassVar = ("soup --resolution 256 -o closed.ply", "soup bracket --sharp --resolution 128 --out closed")

    meshes: ManyMeshes
    output: Output = None
    """of one mesh: .ply, .obj, .stl, .glb: the mesh; .xyz: points with normals; .npz: voxels"""
    out: Path | None = None
    """of one or many: a folder for their results and watertight.jsonl; the same command again resumes it"""
    resolution: int | None = None
    """grid cells along the longest side (default: 512)"""
    error: str | None = None
    """in place of a resolution: how far the input's surface may lie from the result"""
    sharp: bool = False
    """edges and corners stay sharp"""
    sheets: Annotated[tuple[str, ...], arg(metavar="refuse|fill|thicken T")] = ("refuse",)
    """parts that enclose nothing: refused, closed by a flood fill from outside, or made slabs of thickness T"""
    cavities: Literal["keep", "fill"] = "keep"
    """hollows that nothing leads into"""
    drop_floaters: float | None = None
    """drop parts of less than this share of the volume (default: every part stays)"""
    offset: str = "0"
    """how far outward the surface is moved, inward if negative"""
    simplify: int | None = None
    """simplify to about so many faces"""
    simplify_error: str | None = None
    """simplify as far as the surface moves by less than this"""
    points: int = 100_000
    """points in an .xyz"""
    ending: Annotated[str | None, arg(name="format")] = None
    """of the files in --out: ply, obj, stl, glb, xyz or npz (default: ply)"""
    workers: int = 0
    """processes that close meshes side by side (0: this one, one after the other)"""
    timeout: float | None = None
    """seconds after which a mesh is given up; needs --workers or --ray"""
    ray: str | None = None
    """the address of a Ray cluster that closes them: auto, local, or ray://HOST:PORT; its nodes must see the files"""
    max_memory: float | None = None
    """gigabytes that may be used by each mesh (default: what is available, shared out among the workers)"""
    force: bool = False
    """replace files that ff3d has not made, or made of another mesh"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.closing.files import ROWS, Job, close_many
        from ff3d.jobs import Executor
        from ff3d.shapes.sources import distinct_names, find_shapes

        if (self.output is None) == (self.out is None):
            raise ValueError("give -o FILE for one mesh, or --out DIR for one or many")
        if self.output is not None:
            given = {"--format": self.ending, "--workers": self.workers, "--timeout": self.timeout, "--ray": self.ray}
            if ignored := [name for name, value in given.items() if value]:
                raise ValueError(f"with -o there is no {' and no '.join(ignored)}; leave that out, or give --out DIR")
        executor = Executor(self.workers, self.timeout, self.ray)
        config = self._config()
        memory = bytes_of(self.max_memory)
        sources = find_shapes(self.meshes)
        if self.output is not None:
            if len(sources) > 1:
                raise ValueError(f"-o takes one mesh, got {len(sources)}; give --out DIR")
            check_output(self.output, force=self.force, inputs=sources)
            row = Job(sources[0], self.output, config, self.points, memory).run(progress=True)
            say(
                f"{row['faces']:,} faces, closed, volume {row['volume']:.6g}, the surface within "
                f"{row['to_result']:.3g} of the result, {row['seconds']:.1f} s"
            )
            say(f"results: {self.output}")
            return 0
        assert self.out is not None
        check_folder(self.out)
        out = self.out.absolute() if self.ray else self.out  # also where a node has no such folder as this one
        ending = "." + (self.ending or "ply").removeprefix(".")
        jobs = [
            Job(source, out / f"{name}{ending}", config, self.points, memory)
            for source, name in zip(sources, distinct_names(sources), strict=True)
        ]
        rows = close_many(jobs, self.out / ROWS, executor, progress=True, force=self.force)
        failed = sum("failure" in row for row in rows)
        say(f"{len(rows) - failed} of {len(rows)} meshes closed")
        say(f"results: {self.out}")
        return int(failed == len(rows))

    def _config(self) -> Any:
        """The options by name."""
        from ff3d.closing.config import ClosingConfig

        kind, *thickness = self.sheets or ("",)
        if len(thickness) != (kind == "thicken"):
            raise ValueError(f"--sheets takes refuse, fill or thicken T, got {' '.join(self.sheets) or 'nothing'}")
        return ClosingConfig(
            resolution=self.resolution,
            error=self.error,
            sharp=self.sharp,
            sheets=kind,  # type: ignore[arg-type]
            thickness=thickness[0] if thickness else None,
            cavities=self.cavities,
            drop_floaters=self.drop_floaters,
            offset=self.offset,
            simplify=self.simplify,
            simplify_error=self.simplify_error,
        )
