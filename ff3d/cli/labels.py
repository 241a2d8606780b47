"""ff3d label, prepare, inspect and samples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from tyro.conf import Positional, arg

from ff3d.cli.options import ManyMeshes, OracleName, ShapeName, say, say_places
from ff3d.datasets.config import LayoutName, Target
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
        from ff3d.points.label_files import is_labels, label_file

        inputs = [self.points, Path(self.mesh)]
        check_output(self.output, force=self.force or is_labels(self.output), inputs=inputs)
        surface = load_surface(self.mesh, self.oracle)
        inside, count = label_file(surface.oracle, self.points, self.output, progress=True)
        say(f"{inside:,} of {count:,} points are inside")
        say(f"results: {self.output}")
        return 0


@dataclass
class PrepareCommand:
    """Write sets of points that other projects train on; a mesh that fails is a row with its reason.

    Lengths are in the coordinates that are written; docs/datasets.md says what each layout has.
    """

    EXAMPLES: ClassVar = (
        "bunny knot --points 20000 --out samples",
        "bracket --layout dora --points 20000 --watertight first --resolution 128 --out dora",
    )

    meshes: ManyMeshes
    out: str
    """folder for the sets and prepared.jsonl, or an fsspec address (s3://...); what is there already is kept"""
    layout: LayoutName = "ff3d"
    """whose loader is to read them"""
    sets: tuple[str, ...] = ()
    """mixed, volume, near, sharp, surface, salient; near=5000: that many points (default: the layout's)"""
    points: int | None = None
    """points of each set (default: the layout's; ff3d: 100,000)"""
    target: Target | None = None
    """what is known of a point: occupancy, signed or unsigned distance (default: the layout's)"""
    truncation: float | None = None
    """what distances are clipped at (default: nothing)"""
    uniform: float = SamplingConfig.uniform
    """mixed: share of the points that are uniform in the box; the rest lie near the surface"""
    widths: tuple[float, ...] | None = None
    """standard deviations of the points near the surface and near salient edges (default: the layout's)"""
    angle: float | None = None
    """degrees between faces from which on an edge is salient (default: the layout's; ff3d: 30)"""
    margin: float = SamplingConfig.margin
    """layout ff3d: how far the box of mixed and volume reaches past the mesh"""
    watertight: Literal["no", "first"] = "no"
    """first: close each mesh, draw from that, and write it too"""
    resolution: int = 512
    """watertight: cells along the longest side"""
    category: str | None = None
    """layouts occnet and 3dshape2vecset: the folder of the shapes (default: shapes, 03001627)"""
    split: str = "train"
    """name of the list of the shapes, for layouts that have one, and of the shards"""
    shards: int | None = None
    """so many meshes in a .tar, as webdataset reads it (default: files of their own)"""
    seed: int = 0
    """seed of the points"""
    workers: int = 0
    """processes that prepare meshes side by side (0: this one, one after the other)"""
    timeout: float | None = None
    """seconds after which a mesh is given up; needs --workers or --ray"""
    ray: str | None = None
    """the address of a Ray cluster for them: auto, local, or ray://HOST:PORT; its nodes must see the meshes"""
    force: bool = False
    """replace files that ff3d has not made, or made of another mesh"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        from ff3d.datasets.config import make_sets_config
        from ff3d.datasets.prepare import prepare
        from ff3d.jobs import Executor
        from ff3d.shapes.sources import find_shapes

        config = make_sets_config(
            self.layout,
            self.sets,
            points=self.points,
            target=self.target,
            truncation=self.truncation,
            widths=self.widths,
            angle=self.angle,
            uniform=self.uniform,
            margin=self.margin,
            seed=self.seed,
            watertight=self.watertight == "first",
            resolution=self.resolution,
            category=self.category,
        )
        timeout = self.timeout if self.timeout is None else self.timeout * (self.shards or 1)
        executor = Executor(self.workers, timeout, self.ray)
        if "://" not in self.out:
            check_folder(self.out)
        rows = prepare(
            find_shapes(self.meshes),
            self.out,
            config,
            shards=self.shards,
            split=self.split,
            executor=executor,
            progress=True,
            force=self.force,
        )
        failed = sum("failure" in row for row in rows)
        counts = dict(config.counts)
        said = " + ".join(f"{count:,} {name}".removesuffix(" mixed") for name, count in counts.items())
        say(f"{len(rows) - failed} of {len(rows)} meshes prepared, {said} points each")
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
        from ff3d.geometry.cores import keep_freed_memory
        from ff3d.labels.confidence import UNSURE, doubt, second_opinion
        from ff3d.labels.oracles import load_surface
        from ff3d.labels.surfels import PointCloudOracle
        from ff3d.labels.winding_number import REFUSED, WindingNumberOracle
        from ff3d.shapes.mesh import inspect_mesh
        from ff3d.shapes.point_cloud import PointCloud, inspect_points, load_shape
        from ff3d.shapes.sources import find_shape
        from ff3d.views.figure import cross_sections
        from ff3d.views.rendering import save_picture

        keep_freed_memory(8)  # arrays as large as the mesh follow one another, of other sizes each
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
