import subprocess
import sys

import pytest
import torch

from ff3d.fields.config import GRID_MAPPINGS, OptimiserConfig
from ff3d.fields.mapping import make_mapping
from ff3d.fields.network import Network
from ff3d.fields.optimise import Adam

CONFIG = OptimiserConfig()


def network(name, device="cpu"):
    table = {"levels": 3, "coarsest": 4, "finest": 16} if name in GRID_MAPPINGS else {}
    mapping = make_mapping(name, **table) if table else make_mapping(name, count=8)
    return Network(mapping, width=16, depth=2, seed=3).to(device)


def set_gradients(one, index):
    """Those of a loss that has a minimum, on random points."""
    points = torch.rand(64, 3, generator=torch.Generator().manual_seed(index))
    (one(points) - points[:, :1]).square().mean().backward()


@pytest.mark.parametrize("name", ["none", "gaussian", "learned", "hash", "planes"])
def test_adam_is_torchs_own_bit_for_bit_also_from_a_state(name):
    ours, torchs = network(name), network(name)
    adam = Adam(ours, CONFIG)
    moments = {"betas": (0.9, 0.99), "eps": 1e-15} if name in GRID_MAPPINGS else {}
    twin = torch.optim.Adam(torchs.parameters(), lr=adam.rate, fused=True, **moments)
    for index in range(6):
        adam.rate = twin.param_groups[0]["lr"] = CONFIG.rate(name) / (1 + index)
        adam.clear_gradients()
        twin.zero_grad()
        set_gradients(ours, index)
        set_gradients(torchs, index)
        adam.step()
        twin.step()
        if index == 2:  # as from a checkpoint, for which torch's moments have the same names
            states = twin.state_dict()["state"]
            stored = {f"{i}.{key}": it.clone() for i, state in states.items() for key, it in state.items()}
            assert stored.keys() == adam.state().keys()
            assert all(torch.equal(stored[key], tensor) for key, tensor in adam.state().items())
            adam = Adam(ours, CONFIG)
            adam.load_state(stored)
    for one, other in zip(ours.parameters(), torchs.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_state_of_another_network_is_refused():
    adam = Adam(network("gaussian"), CONFIG)
    with pytest.raises(ValueError, match="expected shape"):
        adam.load_state(Adam(network("none"), CONFIG).state())
    with pytest.raises(KeyError):
        adam.load_state({})


def test_training_does_not_import_the_compiler():
    code = """
import sys, trimesh, ff3d
ff3d.fit(trimesh.creation.icosphere(), "none", steps=2, width=16, depth=1, batch_size=64, pool_size=64)
assert "torch.optim" in sys.modules and "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
