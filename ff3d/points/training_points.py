"""What training steps take their points from: pools that are drawn and labelled together, whatever the target."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
from numpy.random import Generator

from ff3d.fields.optimise import Pool
from ff3d.geometry.arrays import Floats
from ff3d.geometry.coordinates import UnitCube, grown_box
from ff3d.geometry.cores import threads
from ff3d.geometry.distances import TruncatedDistance
from ff3d.geometry.hidden_walls import separating_surface
from ff3d.geometry.sampling import SampleMix, Surface
from ff3d.points.config import SamplingConfig

if TYPE_CHECKING:
    import trimesh

    from ff3d.labels.oracles import Oracle

STREAM = 2006_10739  # beside the seed: test points of the same seed are other points
PARTS = 4  # of a pool, drawn side by side
REACH = 2.0  # bands, past which distances are taken as alike: tanh is 0.96 there


class TrainingPoints:
    """The pools of a fit. The k-th is a function of the settings, the seed, k and its size alone.

    Targets are labels, 0 or 1, or for config.target "distance" signed distances in bands, positive inside, from what
    parts inside from outside; the points near the surface then lie near that, and none about what is hidden in the
    solid.
    everywhere: what draws the points that do not lie near the surface; by default from the box.
    """

    def __init__(
        self,
        mesh: trimesh.Trimesh,
        oracle: Oracle,
        cube: UnitCube,
        config: SamplingConfig,
        *,
        seed: int,
        everywhere: Callable[[int, Generator], Floats] | None = None,
    ):
        self.oracle, self.cube, self.config, self.seed = oracle, cube, config, seed
        self._mix = SampleMix(config.uniform, config.widths, everywhere)
        self.bounds = grown_box(mesh, config.margin * cube.scale)
        self._distance = None
        if config.target == "distance":
            reach = REACH * config.band
            mesh = separating_surface(mesh, oracle, reach * cube.scale)
            self._distance = TruncatedDistance(mesh.vertices, mesh.faces, reach, unit=cube.scale)
        self._surface = Surface.of(mesh)

    def __call__(self, index: int, count: int) -> Pool:
        """The index-th pool, of `count` points."""

        def part(number: int) -> Floats:
            rng = np.random.default_rng([self.seed, STREAM, index, number])
            return self._mix.draw(self._surface, self.bounds, self.cube.scale, (count + number) // PARTS, rng)

        with ThreadPoolExecutor(threads()) as executor:
            points = np.concatenate(list(executor.map(part, range(PARTS))))
        unit = self.cube.to_unit(points).astype(np.float32)
        if self._distance is None:
            return Pool(unit, self.oracle(points).astype(np.float32))
        return Pool(unit, self._distance.signed(points, self.oracle) / np.float32(self.config.band))
