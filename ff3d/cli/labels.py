"""ff3d label, prepare, inspect and samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

from tyro.conf import Positional, arg

from ff3d.checks import check_seed
from ff3d.cli.options import ManyMeshes, OracleName, ShapeName, say, say_places
from ff3d.files import check_folder, check_output
from ff3d.points.config import SamplingConfig


@dataclass
class LabelCommand:
    """Label points inside (True) or outside (False) a shape: a mesh, or a point cloud (.ply without faces, .xyz)."""

    EXAMPLES: ClassVar = ("bunny points.npy -o labels.npy", "bracket points.npy -o bracket-labels.npy --oracle rays")

    mesh: ShapeName
    points: Annotated[Positional[Path], arg(metavar="POINTS.npy", help="(n, 3) numbers, input coordinates")]
    output: Annotated[Path, arg(aliases=["-o"])]
    """where the labels go: a .npy of bool (n,)"""
    oracle: OracleName = "auto"
    """who says so: auto takes the winding number"""
    force: bool = False
    """replace files that ff3d has not made"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.labels.oracles import load_surface
        from ff3d.points.datasets import is_labels, label_file

        inputs = [self.points, Path(self.mesh)]
        check_output(self.output, force=self.force or is_labels(self.output), inputs=inputs)
        surface = load_surface(self.mesh, self.oracle)
        inside, count = label_file(surface.oracle, self.points, self.output, progress=True)
        say(f"{inside:,} of {count:,} points are inside")
        say(f"results: {self.output}")
        return 0


@dataclass
class PrepareCommand:
    """Write labelled samples of many meshes, for use elsewhere; a mesh that fails is a row with its reason."""

    EXAMPLES: ClassVar = (
        "bunny knot --points 20000 --out samples",
        "meshes --points 20000 --uniform 0.2 --out samples-near",
    )

    meshes: ManyMeshes
    out: Path
    """folder for NAME.npz and prepared.jsonl; what is there already is kept"""
    points: int = 100_000
    """points of each mesh"""
    uniform: float = SamplingConfig.uniform
    """share of the points that are uniform in the box; the rest lie near the surface"""
    widths: tuple[float, ...] = SamplingConfig.widths
    """standard deviations of the points near the surface, units (shares of the cube's side)"""
    margin: float = SamplingConfig.margin
    """how far the box reaches past the mesh, units"""
    seed: int = 0
    """seed of the points"""
    force: bool = False
    """replace files that ff3d has not made"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.geometry.sampling import SampleMix
        from ff3d.points.datasets import prepare
        from ff3d.shapes.sources import find_shapes

        positive = self.points > 0 and all(0 < it < math.inf for it in self.widths)
        if not (positive and 0 <= self.margin < math.inf and 0 <= self.uniform <= 1):
            raise ValueError("--points and --widths must be positive, --margin not negative, --uniform within 0 and 1")
        check_seed(self.seed)
        check_folder(self.out)
        rows = prepare(
            find_shapes(self.meshes),
            self.out,
            count=self.points,
            mix=SampleMix(self.uniform, self.widths),
            margin=self.margin,
            seed=self.seed,
            progress=True,
            force=self.force,
        )
        failed = sum("failure" in row for row in rows)
        say(f"{len(rows) - failed} of {len(rows)} meshes prepared, {self.points:,} points each")
        say(f"results: {self.out}")
        return int(failed == len(rows))


@dataclass
class InspectCommand:
    """Say what a mesh or a point cloud is made of, what is wrong with it, what is done about that, where labels are not
    sure."""

    EXAMPLES: ClassVar = ("soup", "bracket --check --picture bracket.png")

    mesh: ShapeName
    check: bool = False
    """label 100,000 points by a second, independent oracle too, and say where the two disagree"""
    picture: Path | None = None
    """a .png: three cuts through the place where labels are least sure"""
    force: bool = False
    """replace files that ff3d has not made"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        import numpy as np

        from ff3d.geometry.coordinates import box_in_words, grown_box
        from ff3d.labels.confidence import UNSURE, doubt, second_opinion
        from ff3d.labels.oracles import load_surface
        from ff3d.labels.surfels import PointCloudOracle
        from ff3d.labels.winding_number import REFUSED, WindingNumberOracle
        from ff3d.shapes.mesh import inspect_mesh
        from ff3d.shapes.point_cloud import PointCloud, inspect_points, load_shape
        from ff3d.shapes.sources import find_shape
        from ff3d.views.figure import cross_sections
        from ff3d.views.rendering import save_picture

        path = find_shape(self.mesh)
        if self.picture is not None:
            check_output(self.picture, force=self.force, inputs=[path])
        shape = load_shape(path)
        report = inspect_points(shape) if isinstance(shape, PointCloud) else inspect_mesh(shape)
        say(f"{path}\n{report}")
        surface = load_surface(shape, inspecting=True)
        mesh, oracle = surface.mesh, surface.oracle
        assert isinstance(oracle, WindingNumberOracle | PointCloudOracle)
        for note in surface.notes:
            say(f"- {note}")
        if not np.allclose(mesh.bounds, report.bounds, rtol=1e-9, atol=0) and not isinstance(shape, PointCloud):
            say(f"counts  {box_in_words(*mesh.bounds)}: the box of what counts as surface")
        found = doubt(mesh, oracle)
        if found.unsettled > REFUSED:
            say(f"labels  refused: an open surface, {found.unsettled:.0%} of it has outside on both sides")
        else:
            say(f"labels  not sure in {found.share:.2%} of the box{' at' * bool(found.places)}")
        say_places(found.places)
        if self.check and found.unsettled <= REFUSED:
            other = second_opinion(mesh, oracle, progress=True)
            where = " at" * bool(other.places)
            say(f"check   {other.share:.4%} of {other.points:,} points differ from {other.second}{where}")
            say_places(other.places)
        if self.picture is not None:
            low, high = grown_box(mesh, 0.02 * oracle.cube.scale)
            center = found.places[0].center if found.places else tuple((low + high) / 2)
            title = f"{path.name}: labels not sure in {found.share:.2%} of the box"
            cuts = cross_sections(oracle.winding_number, (low, high), center, unsure=UNSURE, title=title)
            save_picture(cuts, self.picture)
            say(f"results: {self.picture}")
        return 0


@dataclass
class SamplesCommand:
    """Write the sample shapes: bunny, knot, gyroid, bracket and soup."""

    EXAMPLES: ClassVar = ("meshes", "more-meshes --force")

    directory: Annotated[Positional[Path], arg(metavar="DIR")] = Path("meshes")
    """where to"""
    force: bool = False
    """replace files that ff3d has not made"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.shapes.sample_meshes import write_samples

        for path in write_samples(self.directory, progress=True, force=self.force):
            say(str(path))
        say(f"results: {self.directory}")
        return 0
