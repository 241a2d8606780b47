import errno
import hashlib
import os
import stat
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from ff3d.files import (
    LOCK,
    FolderError,
    _sha256,
    append_row,
    check_archive,
    check_folder,
    check_output,
    file_sha256,
    locked,
    make_folder,
    read_rows,
    write_atomically,
    write_text,
)
from ff3d.points.test_sets import load_test_sets
from ff3d.shapes.point_cloud import load_points


def test_a_file_is_written_with_its_folder_and_the_usual_permissions(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "hello")
    ordinary = tmp_path / "ordinary.txt"
    ordinary.write_text("")
    path = tmp_path / "a" / "b.txt"
    assert path.read_text() == "hello"
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_after_an_error_the_old_file_stands_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "field.txt"
    write_text(path, "old")

    def interrupted_write():
        with write_atomically(path) as temporary:
            assert temporary.suffix == ".txt"
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device; make room.*field\.txt"):
        interrupted_write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["field.txt"]


def test_a_kill_in_the_middle_of_a_write_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    code = (
        "import sys, time; from ff3d.files import write_atomically\n"
        "with write_atomically(sys.argv[1]) as t:\n    t.write_bytes(b'half')\n"
        "    print('in', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"in"
        time.sleep(0.1)
        process.kill()
        process.wait()
    assert path.read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 2  # what the kill left
    write_text(tmp_path / "other.bin", "not its own")
    assert len(os.listdir(tmp_path)) == 3
    write_text(path, "new")
    assert sorted(os.listdir(tmp_path)) == ["file.bin", "other.bin"]


def test_what_a_process_at_work_has_begun_is_left_alone(tmp_path):
    path = tmp_path / "file.txt"
    with write_atomically(path) as first:
        first.write_text("first")
        write_text(path, "second")
        assert first.read_text() == "first"
    assert path.read_text() == "first"
    assert os.listdir(tmp_path) == ["file.txt"]


def test_a_name_of_255_letters_is_written(tmp_path):
    path = tmp_path / ("n" * 251 + ".txt")
    write_text(path, "long")
    assert path.read_text() == "long"


def test_a_hash_is_kept_while_the_file_stays_as_it_is(tmp_path):
    path = tmp_path / "file"
    for text in ("one", "two"):  # as long, and written at once
        path.write_text(text)
        assert file_sha256(path) == hashlib.sha256(text.encode()).hexdigest()
    os.utime(path, (1, 1))
    before = _sha256.cache_info()
    assert file_sha256(path) == file_sha256(tmp_path / "." / "file") == hashlib.sha256(b"two").hexdigest()
    after = _sha256.cache_info()
    assert (after.misses - before.misses, after.hits - before.hits) == (1, 1)
    path.write_text("six")
    assert file_sha256(path) == hashlib.sha256(b"six").hexdigest()
    os.utime(path, (2, 2))
    assert file_sha256(path) == hashlib.sha256(b"six").hexdigest()


def test_a_folder_is_one_processs_at_a_time_and_nothing_of_that_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("ff3d.files.PATIENCE", 0.1)
    with locked(tmp_path / "out"), pytest.raises(FolderError, match=rf"out: in use by process {os.getpid()} on "):
        locked(tmp_path / "out").__enter__()
    with locked(tmp_path / "out"):
        pass
    assert not list((tmp_path / "out").iterdir())


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path):
    code = "import sys, time; from ff3d.files import locked\nwith locked(sys.argv[1]):\n    print('in', flush=True)\n"
    code += "    time.sleep(60)\n"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"in"
        process.kill()
        process.wait()
    assert os.listdir(tmp_path) == [LOCK]
    with locked(tmp_path):
        pass
    assert not os.listdir(tmp_path)


def test_a_file_where_a_folder_is_expected_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for write in (
        lambda: make_folder(tmp_path / "file"),
        lambda: write_text(tmp_path / "file" / "deep" / "a.txt", ""),
        lambda: check_folder(tmp_path / "file" / "deep"),
        lambda: check_output(tmp_path / "file" / "a.ply"),
    ):
        with pytest.raises(FolderError, match="file: is a file, expected a folder"):
            write()
    for refuse in (lambda: write_text(tmp_path, ""), lambda: check_output(tmp_path)):
        with pytest.raises(FolderError, match="is a folder, expected a file"):
            refuse()


def test_an_output_is_neither_the_input_nor_what_ff3d_has_not_made(tmp_path):
    foreign, other = tmp_path / "foreign.ply", tmp_path / "link.ply"
    foreign.write_text("ply\ncomment by hand\n")
    other.symlink_to(foreign)
    with pytest.raises(FolderError, match=r"foreign\.ply: is there, and was not made by ff3d; .*--force"):
        check_output(foreign)
    check_output(foreign, force=True)
    with pytest.raises(FolderError, match="is the input itself"):
        check_output(other, force=True, inputs=[foreign])
    check_output(tmp_path / "new" / "a.ply", inputs=[foreign])
    assert not (tmp_path / "new").exists()


def test_a_row_is_appended_whole_or_not_at_all_and_one_cut_short_spoils_no_other(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_row(path, {"mesh": "a", "file": "a"})
    with path.open("a") as file:
        file.write('{"mesh": "b", "fi')
    append_row(path, {"mesh": "c", "file": "c"})
    append_row(path, {"mesh": "c", "file": "c", "again": True})
    assert read_rows(path) == {"a": {"mesh": "a", "file": "a"}, "c": {"mesh": "c", "file": "c", "again": True}}
    before = path.read_bytes()
    code = "import resource, sys; from pathlib import Path; from ff3d.files import append_row\n"
    code += f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 10},) * 2)\n"
    code += "append_row(Path(sys.argv[1]), {'mesh': 'd', 'file': 'd'})"
    full = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "make room and run the same command again" in full.stderr
    assert path.read_bytes() == before
    path.write_text("notes of somebody\n")
    with pytest.raises(FolderError, match=r"rows\.jsonl: is there, and was not made by ff3d"):
        read_rows(path)


def test_an_archive_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(tmp_path):
    path = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.npy", "w") as file,
    ):
        for _ in range(300):
            file.write(bytes(2**20))
    for load in (check_archive, load_test_sets, load_points):
        with pytest.raises(ValueError, match=r"it would unpack to 0\.315 GB"):
            load(path)


def test_a_device_or_a_pipe_is_written_into_and_stays(tmp_path):
    pipe, received = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    write_text(pipe, "through a pipe")
    reader.join()
    assert received == [b"through a pipe"]
    write_text("/dev/null", "nowhere")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert sorted(tmp_path.iterdir()) == [pipe]


def test_a_link_stays_a_link_and_its_file_is_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    file, link = tmp_path / "folder" / "file.txt", tmp_path / "link.txt"
    file.write_text("old")
    link.symlink_to(file)
    write_text(link, "new")
    assert link.is_symlink()
    assert file.read_text() == "new"
