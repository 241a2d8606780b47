import errno
import hashlib
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ff3d.files import _sha256, file_sha256, write_atomically, write_text


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
