"""Train a network in a loop of your own: a mapping and layers from ff3d, the loss and the optimiser from torch."""

import numpy as np
import torch

import ff3d

mesh = ff3d.load_mesh("bracket")
cube = ff3d.UnitCube.padded(mesh.vertices)  # networks live in the unit cube
points = np.concatenate(
    [
        ff3d.sample_near_surface(mesh, 20_000, std=0.05, rng=np.random.default_rng(0)),
        ff3d.sample_uniform(mesh.bounds, 20_000, np.random.default_rng(1)),
    ]
)
unit = torch.from_numpy(cube.to_unit(points).astype(np.float32))
inside = torch.from_numpy(ff3d.make_oracle(mesh)(points).astype(np.float32))

network = ff3d.Network(ff3d.make_mapping("gaussian", count=64, scale=3.0, seed=0), width=64, depth=2, seed=0)
optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
generator = torch.Generator().manual_seed(0)
for step in range(100):
    batch = torch.randint(len(unit), (4096,), generator=generator)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(network(unit[batch]).squeeze(-1), inside[batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 25 == 0:
        print(f"step {step}: loss {loss.item():.3f}")
assert loss.item() < 0.5
