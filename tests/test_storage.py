import pytest

from ff3d.storage import Storage


@pytest.fixture(params=["folder", "address"])
def storage(request, tmp_path):
    return Storage(tmp_path / "out" if request.param == "folder" else f"file://{tmp_path}/out")


def test_what_is_sent_lies_at_the_address_and_can_be_fetched_elsewhere(storage, tmp_path):
    for name in ("b/row.json", "a/row.json", "a/mesh.ply"):
        (storage.local / name).parent.mkdir(parents=True, exist_ok=True)
        (storage.local / name).write_text(name)
    storage.send("a", "b/row.json")
    assert (tmp_path / "out" / "a" / "mesh.ply").read_text() == "a/mesh.ply"
    other = Storage(storage.address)
    assert other.names("row.json") == ["a", "b"]
    other.fetch("a/row.json", "absent/row.json")
    assert (other.local / "a/row.json").read_text() == "a/row.json"
    other.remove("a/row.json")
    other.remove("a/row.json")
    assert Storage(storage.address).names("row.json") == ["b"]


def test_a_copy_lies_in_a_scratch_folder_if_that_is_on_this_machine(tmp_path):
    (tmp_path / "scratch").mkdir()
    address = f"file://{tmp_path}/out"
    assert Storage(address, tmp_path / "scratch").local.parent == tmp_path / "scratch"
    assert Storage(address, tmp_path / "elsewhere").local.parent == Storage(address).local.parent
    assert Storage(tmp_path / "out", tmp_path / "scratch").local == tmp_path / "out"


def test_an_empty_place_has_no_names(storage):
    assert storage.names("row.json") == []


def test_an_address_of_an_unknown_kind_is_one_clear_line():
    with pytest.raises(ValueError, match="abacus://here: this address cannot be opened"):
        Storage("abacus://here")


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "a/./b"])
def test_no_name_leads_out_of_a_storage(storage, tmp_path, name):
    (tmp_path / "evil").write_text("secret")
    for use in (storage.send, storage.fetch, storage.remove):
        if storage.remote or use == storage.remove:
            with pytest.raises(ValueError, match="leads out of"):
                use(name)
    assert (tmp_path / "evil").read_text() == "secret"


def test_an_address_that_goes_up_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must not go up"):
        Storage(f"file://{tmp_path}/out/../../evil")
