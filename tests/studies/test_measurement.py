import math

import numpy as np
import pytest
import trimesh

from ff3d.labels.oracles import load_surface
from ff3d.metrics import LabelledPoints, Overlap, nothing_found, overlap, remarks, surface_distances
from ff3d.shapes.solids import Solid, box, sphere, union
from ff3d.studies.measurement import check_boxes, measure, separating_reference, thickness
from ff3d.surfaces.extraction import extract_mesh


class ExactField:
    """A solid in place of a fitted field: what it contains, its box and its mesh."""

    def __init__(self, solid: Solid, margin: float = 0.02):
        self.solid, self.contains = solid, solid.contains
        self.bounds = solid.bounds + margin * np.array([[-1.0], [1.0]])

    def extract_mesh(self, resolution, *, progress=False):
        return extract_mesh(self.solid.values, self.bounds, resolution=resolution)


BOXES = ((2.0, 1.0, 1.0), (0.0, 0.0, 0.0)), ((2.0, 1.0, 1.0), (0.7, 0.2, 0.1))


def two_boxes():
    """Two overlapping boxes as one mesh of two shells, the same as one shell, and the exact solid."""
    shells, solids = [], []
    for extents, center in BOXES:
        shells.append(trimesh.creation.box(extents))
        shells[-1].apply_translation(center)
        solids.append(box([side / 2 for side in extents], center))
    return trimesh.util.concatenate(shells), trimesh.boolean.union(shells, engine="manifold"), union(*solids)


def test_walls_hidden_in_the_reference_do_not_count():
    both, outer, solid = two_boxes()
    mine, theirs = (measure(ExactField(solid), load_surface(mesh), resolution=128) for mesh in (both, outer))
    assert mine.surface.f_score == theirs.surface.f_score == 1.0
    assert mine.surface.chamfer == pytest.approx(theirs.surface.chamfer, rel=0.05)
    raw = surface_distances(outer, both)
    assert raw.f_score < 0.9  # as it was before
    assert mine.notes == theirs.notes == ()


def test_the_separating_reference_of_overlapping_boxes_has_the_area_of_their_union():
    both, outer, _ = two_boxes()
    surface = load_surface(both)
    parting = separating_reference(surface)
    assert parting.area == pytest.approx(outer.area, rel=2e-3)
    found = surface_distances(outer, parting)
    assert found.f_score == 1.0
    assert found.chamfer < 1e-6
    assert found.hausdorff < 1 / 256  # a piece
    alone = load_surface(outer)
    assert separating_reference(alone) is alone.mesh


@pytest.mark.parametrize("thick", [0.002, 0.05])
def test_the_thickness_of_a_plate_is_found(thick):
    plate = load_surface(trimesh.creation.box((1, 1, thick)))
    assert thickness(plate.mesh, plate.oracle, most=0.1) == pytest.approx(thick, rel=0.25)


def test_what_is_thick_everywhere_has_no_thickness_to_heed():
    ball = load_surface(trimesh.creation.icosphere(subdivisions=3))
    assert thickness(ball.mesh, ball.oracle, most=0.5) == math.inf
    assert thickness(ball.mesh, lambda points: np.zeros(len(points), dtype=bool), most=0.5) == math.inf


def test_a_thin_plate_is_extracted_finely_enough_to_be_measured():
    half = (0.5, 0.3, 0.001)
    reference = load_surface(trimesh.creation.box([2 * side for side in half]))
    found = measure(ExactField(box(half), margin=0.01), reference)
    assert found.iou == {"uniform": 1.0, "boundary_face": 1.0, "boundary_area": 1.0}
    assert 512 < found.resolution < 2048
    assert found.surface.f_score == 1.0
    assert found.surface.chamfer < 1e-3
    assert found.notes[0].startswith("the shape is about 0.00")


def test_a_mesh_that_is_empty_leaves_the_iou_and_says_what_was_not_measured():
    half = (0.5, 0.5, 0.001)
    reference = load_surface(trimesh.creation.box([2 * side for side in half]))
    found = measure(ExactField(box(half), margin=0.01003), reference, resolution=20)
    assert found.surface is None
    assert found.iou["boundary_area"] == 1.0
    assert found.notes[-1].startswith("no mesh, so no Chamfer distance, F-score or normals: nothing is inside")
    assert "chamfer" not in found.to_json()


def test_a_field_that_found_nothing_is_no_success():
    reference = load_surface(trimesh.creation.icosphere(subdivisions=3))
    nothing = Solid("nothing", "", np.array([[-1.0] * 3, [1.0] * 3]), lambda points: np.full(len(points), -1.0))
    found = measure(ExactField(nothing), reference)
    assert set(found.iou.values()) == {0.0}
    assert found.notes[0].startswith("the field found nothing: it is outside at all 786,432 test points, of which ")


BALL = np.array([[-1.0] * 3, [1.0] * 3])


@pytest.mark.parametrize(
    ("factor", "says"),
    [
        (1000, "reference is about 1,000 times larger (mm and m?)"),
        (937.5, "reference is about 1,000 times larger (mm and m?)"),  # with the margin of the field's box
        (1 / 1000, "field is about 1,000 times larger (mm and m?)"),
        (100, "reference is about 100 times larger (cm and m?)"),
        (777, "reference is about 777 times larger;"),
    ],
)
@pytest.mark.parametrize("away", [0.0, 5.0])
def test_a_reference_in_another_unit_is_refused_by_its_size(factor, says, away):
    with pytest.raises(ValueError, match=r"times larger") as caught:
        check_boxes(BALL + away, (BALL + away) * factor)
    assert says in str(caught.value)
    assert ("do not meet" in str(caught.value)) == (away > 0)


def test_a_reference_elsewhere_is_refused_and_one_that_meets_is_not():
    with pytest.raises(ValueError, match=r"^the boxes do not meet; the field's and the reference's go from"):
        check_boxes(BALL, BALL + [3, 0, 0])
    assert check_boxes(BALL, BALL + [1.5, 0, 0]) is None
    assert check_boxes(BALL, 2 * BALL) is None
    assert check_boxes(BALL, 20 * BALL) == "the reference is about 20 times larger"
    assert check_boxes(25 * BALL, BALL) == "the field is about 25.4 times larger (mm and inches?)"


def test_millimetres_against_inches_that_do_not_meet_are_told():
    with pytest.raises(ValueError, match=r"about 25\.4 times larger \(mm and inches\?\)"):
        check_boxes(BALL + 5, (BALL + 5) * 25.4)


def labelled(*inside):
    labels = np.array(inside, dtype=bool)
    return LabelledPoints(np.zeros((len(labels), 3)), labels)


def says(*inside):
    return lambda points: np.array(inside, dtype=bool)


def test_an_overlap_counts_the_points_behind_the_iou():
    found = overlap(says(1, 1, 0, 0), labelled(1, 0, 1, 0))
    assert found == Overlap(1 / 3, 4, 2, 2)
    assert found.known == 1 / 3


def test_two_empty_sets_have_an_iou_of_one_that_is_not_known():
    found = overlap(says(0, 0), labelled(0, 0))
    assert (found.iou, found.known) == (1.0, None)
    assert overlap(says(0, 1), labelled(0, 0)).known == 0.0


def test_what_looks_better_than_it_is_is_remarked():
    some, none = Overlap(0.9, 10, 4, 4), Overlap(1.0, 10, 0, 0)
    assert remarks({"a": some, "b": some}) == []
    assert remarks({"a": some, "uniform": none}) == ["nothing inside in 10 uniform test points: no IoU there"]
    assert nothing_found({"a": some, "uniform": none}) is None
    [remark] = remarks({"a": none, "b": none})
    assert remark.startswith("nothing inside in 20 test points")
    assert remark == nothing_found({"a": none, "b": none})
    assert "outside at all 20 test points, of which 8" in nothing_found(
        {"a": some._replace(found=0)} | {"b": Overlap(0.0, 10, 4, 0)}
    )
    assert "inside at all 10 test points" in nothing_found({"a": Overlap(0.4, 10, 4, 10)})
    assert nothing_found({"a": Overlap(1.0, 10, 10, 10)}) is None


def test_a_scan_can_be_a_reference(tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=4)
    np.savetxt(tmp_path / "scan.xyz", np.concatenate([ball.vertices, ball.vertex_normals], axis=1))
    found = measure(ExactField(sphere(1.0)), load_surface(tmp_path / "scan.xyz"), resolution=48)
    assert found.iou["uniform"] > 0.97
    assert found.surface.f_score > 0.99
