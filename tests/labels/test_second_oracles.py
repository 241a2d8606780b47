import importlib.util

import numpy as np
import pytest
import torch
import trimesh

from ff3d.labels.second_oracles import WarpOracle
from ff3d.labels.winding_number import WindingNumberOracle
from ff3d.shapes.sample_meshes import sample_mesh

pytestmark = pytest.mark.skipif(importlib.util.find_spec("warp") is None, reason="warp-lang, an extra, is not here")
CUDA = pytest.param("cuda:0", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"))


@pytest.mark.parametrize("device", ["cpu", CUDA])
@pytest.mark.parametrize("name", ["bracket", "soup"])
def test_the_gpu_gives_the_labels_of_the_cpu(device, name):
    mesh = sample_mesh(name)
    points = np.random.default_rng(0).uniform(*mesh.bounds, size=(20_000, 3))
    oracle = WindingNumberOracle(mesh)
    sure = np.abs(oracle.winding_number(points) - 0.5) > 0.02
    assert sure.mean() > 0.99
    there = WarpOracle(mesh, device=device)
    assert np.array_equal(there(points)[sure], oracle(points)[sure])
    tensor = torch.from_numpy(there.cube.to_unit(points).astype(np.float32)).to(device.partition(":")[0])
    assert np.array_equal(there.label(tensor).cpu().numpy(), there(points))


def test_a_mesh_inside_out_is_turned_there_too():
    mesh = trimesh.creation.icosphere()
    turned = trimesh.Trimesh(mesh.vertices, mesh.faces[:, ::-1], process=False)
    assert WarpOracle(turned, device="cpu")([[0, 0, 0], [2, 0, 0]]).tolist() == [True, False]


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="cuda:77"):
        WarpOracle(trimesh.creation.box(), device="cuda:77")


def test_no_faces_and_no_numbers_are_refused_and_do_not_crash():
    flat = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [2, 0, 1]], [[0, 0, 1], [1, 1, 2]], process=False)
    with pytest.raises(ValueError, match="encloses nothing"):
        WarpOracle(flat, device="cpu")
    with pytest.raises(ValueError, match="finite"):
        WarpOracle(trimesh.creation.box(), device="cpu")([[np.nan, 0, 0]])
