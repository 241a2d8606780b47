"""Files that earlier versions of ff3d saved: tests/fixtures/README.md says which, and how they were made."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from ff3d import load_field
from ff3d.fields.field_file import FieldError

FIXTURES = Path(__file__).parents[1] / "fixtures"
SAVED = sorted(FIXTURES.glob("field_*.safetensors"))


@pytest.mark.parametrize("path", SAVED, ids=[path.stem for path in SAVED])
def test_a_field_saved_by_an_earlier_version_gives_the_logits_that_it_gave_then(path):
    then = np.load(path.with_suffix(".npz"))
    logits = load_field(path, device="cpu").logits(then["points"])
    # not to the bit: another processor adds a layer's products in another order
    np.testing.assert_allclose(logits, then["logits"], rtol=1e-4, atol=1e-3)
    assert (logits > 0).any()
    assert (logits < 0).any()


@pytest.mark.parametrize("path", SAVED, ids=[path.stem for path in SAVED])
def test_a_field_saved_by_an_earlier_version_is_extracted_and_saved_anew(path, tmp_path):
    field = load_field(path, device="cpu")
    mesh = field.extract_mesh(48)
    assert mesh.is_watertight
    ellipsoid = 4 / 3 * np.pi * 1.0 * 0.7 * 0.5  # what they were fitted to, briefly
    assert mesh.volume == pytest.approx(ellipsoid, rel=0.25)
    field.save(tmp_path / "again.safetensors")
    points = np.load(path.with_suffix(".npz"))["points"]
    again = load_field(tmp_path / "again.safetensors", device="cpu").logits(points)
    assert np.array_equal(again, field.logits(points))


def test_every_format_version_has_a_saved_field():
    from ff3d.fields.field_file import VERSIONS

    def version(path: Path) -> int:
        with safe_open(path, framework="numpy") as file:
            return int(json.loads(file.metadata()["ff3d.field"])["version"])

    assert {version(path) for path in SAVED} == set(VERSIONS)


def test_damaged_data_of_a_lattice_is_refused_in_a_line(tmp_path):
    (saved,) = (path for path in SAVED if "lattice" in path.stem and "v4" in path.stem)
    data, rng = saved.read_bytes(), np.random.default_rng(0)
    said = []
    for _ in range(10):
        damaged = bytearray(data)
        for place in rng.integers(len(data) * 3 // 4, len(data), 20):
            damaged[place] ^= 255
        (tmp_path / "field.safetensors").write_bytes(damaged)
        try:
            load_field(tmp_path / "field.safetensors", device="cpu")
        except FieldError as error:
            said.append(str(error))
    assert said
    assert not any("\n" in message for message in said)
