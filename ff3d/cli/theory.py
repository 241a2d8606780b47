"""ff3d ntk: why mappings differ."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import arg

from ff3d.cli.options import ShapeName, say
from ff3d.fields.config import PAPER_MAPPINGS, MappingName

NTK_STEPS = (10, 100, 1000, 10_000)


@dataclass
class NtkCommand:
    """Predict, before any training, how fast each mapping learns a shape's labels, from its neural tangent kernel."""

    mesh: ShapeName
    mappings: tuple[MappingName, ...] = PAPER_MAPPINGS
    """the mappings to compare; those with trained tables have no such kernel"""
    points: int = 2000
    """labelled points, half uniform in the box and half near the surface: a dense kernel of all pairs, 8,192 at most"""
    depth: int = 4
    """hidden layers of the network of infinite width"""
    scale: float | None = None
    """of gaussian, learned, lecture and positional, cycles per unit (default: each mapping's own)"""
    seed: int = 0
    """seed of the points and frequencies"""
    as_json: Annotated[bool, arg(name="json")] = False
    """print one line of JSON"""

    def __call__(self) -> int:  # noqa: D102  (the class says it)
        import numpy as np
        import torch

        from ff3d.fields.mapping import make_mapping
        from ff3d.geometry.coordinates import UnitCube, grown_box
        from ff3d.geometry.sampling import SampleMix
        from ff3d.labels.oracles import load_surface
        from ff3d.points.config import SamplingConfig
        from ff3d.theory.ntk import MOST_POINTS, KernelRegression, mapped_kernel, stable_rate

        if not 10 <= self.points <= MOST_POINTS:
            raise ValueError(f"--points must be from 10 to {MOST_POINTS:,}, for a dense kernel, got {self.points:,}")
        shape = load_surface(self.mesh)
        cube, rng = UnitCube.padded(shape.mesh.vertices), np.random.default_rng(self.seed)
        sampling = SamplingConfig()
        box = grown_box(shape.mesh, sampling.margin * cube.scale)
        points = SampleMix(sampling.uniform, sampling.widths).draw(shape.mesh, box, cube.scale, self.points, rng)
        labels = np.where(shape.oracle(points), 1.0, -1.0)
        unit = cube.to_unit(points)
        table: dict[str, Any] = {}
        for name in self.mappings:
            mapping = make_mapping(name, scale=self.scale, seed=self.seed)
            if mapping.trained and name != "learned":
                raise ValueError(f"{name} learns its features: it has no fixed kernel; leave it out")

            def features(at: Any, mapping: Any = mapping) -> Any:
                return mapping(torch.from_numpy(at.astype(np.float32))).detach().numpy()

            kernel = mapped_kernel(features, depth=self.depth)(unit, unit)
            regression = KernelRegression(kernel, labels - labels.mean(), stable_rate(kernel))
            table[name] = regression.learned(NTK_STEPS).tolist()
        if self.as_json:
            say(json.dumps({"points": self.points, "steps": NTK_STEPS, "learned": table}))
            return 0
        say(f"{shape.name}: share of the labels' energy at {self.points:,} points that is learned after so many steps")
        say(f"{'mapping':12}" + "".join(f"{step:>10,}" for step in NTK_STEPS))
        for mapped, shares in table.items():
            say(f"{mapped:12}" + "".join(f"{share:10.3f}" for share in shares))
        order = sorted(table, key=lambda key: table[key][-1])
        say(f"predicted order, slowest first: {' < '.join(order)}")
        return 0
