import numpy as np
import pytest
import trimesh

from ff3d.labels.confidence import doubt, second_opinion
from ff3d.labels.winding_number import WindingNumberOracle

COUNT = 20_000


def ball(hole=False):
    mesh = trimesh.creation.icosphere(subdivisions=3)
    if hole:
        mesh.update_faces(mesh.triangles_center[:, 1] < 0.8)
    return mesh


def test_nothing_is_unsure_about_a_closed_mesh():
    found = doubt(ball(), WindingNumberOracle(ball()), count=COUNT)
    assert (found.share, found.unsettled, found.places) == (0, 0, ())


def test_what_is_unsure_lies_at_the_hole():
    mesh = ball(hole=True)
    found = doubt(mesh, WindingNumberOracle(mesh), count=COUNT)
    assert 0.001 < found.share < 0.1
    assert np.linalg.norm(np.array(found.places[0].center) - [0, 0.8, 0]) < 0.5
    assert found.unsettled < 0.05
    assert str(found.places[0]).endswith("points")


@pytest.mark.parametrize("hole", [False, True])
def test_independent_oracles_agree(hole):
    mesh = ball(hole)
    other = second_opinion(mesh, WindingNumberOracle(mesh), count=COUNT)
    assert (other.points, other.share, other.places) == (COUNT, 0, ())
    assert other.second == ("the exact sum over the faces as they are" if hole else "rays")


def test_a_disagreement_is_found_where_it_is():
    mesh = ball(hole=True)
    second = trimesh.creation.icosphere(subdivisions=3, radius=0.3)
    second.apply_translation([0, -3, 0])
    second.invert()  # the file's own winding number says that this part is nothing, ff3d that it is solid
    both = trimesh.util.concatenate([mesh, second])
    other = second_opinion(both, WindingNumberOracle(both), count=COUNT)
    assert other.share == pytest.approx(0.25 * 0.09, rel=0.9)
    assert len(other.places) == 1
    assert np.linalg.norm(np.array(other.places[0].center) - [0, -3, 0]) < 0.1


def test_a_mesh_inside_out_is_no_disagreement():
    mesh = ball(hole=True)
    mesh.invert()
    assert second_opinion(mesh, WindingNumberOracle(mesh), count=COUNT).share == 0
