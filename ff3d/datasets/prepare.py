"""Training sets of many meshes: a file or a few for each, or .tar shards; stopped anywhere, they resume."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from ff3d.checks import one_line
from ff3d.datasets.config import SetsConfig, check_part
from ff3d.datasets.layouts import File, files_of, is_made, list_of, meta_of, open_shard, paths_of, place_of
from ff3d.datasets.sampling import draw_samples
from ff3d.files import FORCE, FolderError, append_row, file_sha256, locked, read_rows, write_atomically
from ff3d.jobs import HERE, Executor, Row, check_same_meshes, run_to_rows
from ff3d.shapes.sources import distinct_names
from ff3d.storage import Storage

log = logging.getLogger("ff3d")

ROWS = "prepared.jsonl"
GONE = "of an earlier run, and not in the shards any more"  # the failure of its row
SENDING = 10.0  # seconds between copies of it that are sent to an address


@dataclass(frozen=True)
class Batch:
    """The shapes that are prepared together: one, or those of a shard.

    sources: files and the names of their samples.  out: a folder, or an fsspec address.  shard: the .tar's name.
    scratch: where files on their way to an address lie; `prepare` removes it.  max_memory: bytes to close a shape in.
    """

    sources: tuple[tuple[Path, str], ...]
    out: str
    config: SetsConfig
    shard: str | None = None
    scratch: Path | None = None
    max_memory: int | None = None

    def rows(self) -> list[Row]:
        """Prepare the shapes: a row for each, whatever happens.

        mesh, file, files: what was written and how many bytes; sha256 of the shape's file; options; inside: the share
        of the first set's points; notes; shard: `_members` and the sha256 of the .tar.
        """
        try:
            storage = _storage(self.out, self.scratch)
            if self.shard is None:
                return [self._prepared(source, name, partial(_write, storage)) for source, name in self.sources]
            path = storage.local / self.shard
            with open_shard(path) as add:
                rows = [self._prepared(source, name, partial(add, name)) for source, name in self.sources]
            shard = {"members": self._members, "sha256": file_sha256(path)}
            written = {"files": {self.shard: path.stat().st_size}, "shard": shard}
            _sent(storage, [self.shard])
        except Exception as error:  # of writing or sending; the other batches follow
            return self.lost(one_line(error))
        return [row if "failure" in row else row | written for row in rows]

    def _prepared(self, source: Path, name: str, write: Callable[[list[File]], None]) -> Row:
        """Prepare a shape and write its files: its row. Raises what `write` does."""
        row: Row = {"mesh": str(source), "file": self._file(name)}
        try:
            row |= {"sha256": file_sha256(source), "options": self._options}
            samples = draw_samples(source, self.config, self.max_memory)
            said = {"inside": samples.inside, "notes": list(samples.notes)}
            meta = {"mesh": source.name, "sha256": row["sha256"]} | self.config.identity | said
            files = files_of(name, samples, self.config, meta)
        except Exception as error:  # whatever it trips over, the other meshes follow
            return row | {"failure": one_line(error)}
        write(files)
        return row | said | {"files": {file.path: len(file.data) for file in files}}

    def lost(self, reason: str) -> list[Row]:
        """The rows if the process that prepared it was lost."""
        return [{"mesh": str(source), "file": self._file(name), "failure": reason} for source, name in self.sources]

    def done(self, known: dict[str, Row]) -> list[Row] | None:
        """Their rows, if those are of the same files and settings, and what was written is there.

        One that failed is tried again, but not for its sake alone the whole shard that the others are in.
        """
        rows = [known.get(self._file(name), {"failure": "not run"}) for _, name in self.sources]
        made = [row for row in rows if "files" in row]
        storage = _storage(self.out, self.scratch)
        written = {file for row in made for file in row["files"].items()}
        if not made or any(storage.size(path) != size for path, size in written):
            return None
        try:
            if self.shard is not None and not self._holds_these(made, storage):
                return None
            for row, (source, _) in zip(rows, self.sources, strict=True):
                digest = {"sha256": file_sha256(source)}
                same = (digest | {"options": self._options}).items() <= row.items()
                if not same or ("failure" in row and self.shard is None):
                    return None
                if self.shard is None and not (
                    storage.remote or _are_of(row["files"], storage, digest | self._options)
                ):
                    return None
        except OSError:
            return None
        return rows

    def _holds_these(self, made: Sequence[Row], storage: Storage) -> bool:
        """Whether the shard is the one of these rows, and was made for these shapes and no others.

        At an address it is known by its size alone.
        """
        assert self.shard is not None
        shard = made[0].get("shard", {})
        same = shard.get("members") == self._members and all(row.get("shard") == shard for row in made)
        return same and (storage.remote or file_sha256(storage.local / self.shard) == shard["sha256"])

    @cached_property
    def _members(self) -> str:
        """Which shapes the shard is made for, in order: the sha256 of their names."""
        return sha256(json.dumps([name for _, name in self.sources]).encode()).hexdigest()

    @cached_property
    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = json.loads(json.dumps(self.config.identity))
        return options

    def _file(self, name: str) -> str:
        """What a row calls the samples of this name."""
        return place_of(name, self.config) if self.shard is None else f"{self.shard}/{name}"


def _are_of(files: Iterable[str], storage: Storage, meta: dict[str, Any]) -> bool:
    """Whether the .npz among files are of this shape and settings: after a kill, others may be as long."""
    return all(meta.items() <= meta_of(storage.local / path).items() for path in files if path.endswith(".npz"))


@lru_cache(maxsize=1)
def _storage(out: str, scratch: Path | None) -> Storage:
    """One for each process."""
    return Storage(out, scratch)


def _write(storage: Storage, files: Sequence[File]) -> None:
    """Write files, the first one last."""
    for file in reversed(files):
        with write_atomically(storage.local / file.path) as temporary:
            temporary.write_bytes(file.data)
    _sent(storage, [file.path for file in reversed(files)])


def _sent(storage: Storage, paths: Sequence[str]) -> None:
    """Send files to an address, if it is one; then they need not be here."""
    try:
        storage.send(*paths)
    finally:
        for path in paths if storage.remote else ():
            (storage.local / path).unlink(missing_ok=True)


def prepare(
    meshes: Sequence[Path],
    out: str | Path,
    config: SetsConfig,
    *,
    shards: int | None = None,
    split: str = "train",
    executor: Executor = HERE,
    progress: bool = False,
    force: bool = False,
) -> list[Row]:
    """Write the samples of each mesh, as the layout has them, and a row for each to out/prepared.jsonl.

    out: a folder, or an fsspec address (which should be another one for each call at a time: it is not locked).
    shards: meshes in a .tar, SPLIT-000000.tar and so on; None: files of their own, and a list of them, by its `split`,
    where the layout's loader reads one.
    The same meshes and settings give the same bytes, whoever writes them. What is there already, of the same mesh and
    settings, is kept (a shard if all of its meshes are the same); of two rows of one file the last counts. Shards of
    this split that an earlier run of more shards has left are removed at the end. A mesh that fails is a row with its
    `failure`, tried again next time (in a shard: only if that is made again). What other settings have written for a
    mesh, and these do not, is removed. Returns these meshes' rows, in order.
    executor: where they are prepared. On a cluster, its nodes must see the meshes, and a folder, under the same paths.
    Workers beside this process share out the memory that is available.
    force: replace files of these names that ff3d has not made, or of another mesh. Raises FolderError without, if there
    are such files in a folder; also for a mesh that would itself be written over, or if another process writes there;
    ValueError for a split that is no plain name.
    """
    check_part("split", split)
    if shards is not None and shards < 1:
        raise ValueError(f"a shard holds at least 1 mesh, got {shards}")
    storage = Storage(out)
    names = [name if shards is None else name.replace(".", "_") for name in distinct_names(meshes)]
    if len(set(names)) < len(names):  # a.b and a_b: a key in a shard has no dot
        names = [
            f"{name}-{sha256(str(path).encode()).hexdigest()[:16]}" for name, path in zip(names, meshes, strict=True)
        ]
    sources = list(zip(meshes, names, strict=True))
    place = storage.address if storage.remote else str(storage.local.resolve())
    each, memory = shards or 1, executor.memory
    batches = [
        Batch(
            tuple(sources[start : start + each]),
            place,
            config,
            None if shards is None else f"{split}-{start // each:06d}.tar",
            storage.local if storage.remote else None,
            memory,
        )
        for start in range(0, len(sources), each)
    ]
    with locked(storage.local):
        storage.fetch(ROWS)
        known = read_rows(storage.local / ROWS)
        if not storage.remote:
            _check_inputs(batches, known, storage.local)
        if not force:
            pairs = [(source, batch._file(name)) for batch in batches for source, name in batch.sources]
            check_same_meshes(pairs, known, place)
        if not force and not storage.remote:
            listing = list_of([], split, config, place) if shards is None else None
            _check_made(batches, listing, known, storage.local)
        sent = time.monotonic()

        def send() -> None:
            nonlocal sent
            if storage.remote and time.monotonic() - sent > SENDING:
                storage.send(ROWS)
                sent = time.monotonic()

        def replaced(old: Row, new: Row) -> None:
            """Remove what was not written anew of a shape's files, if it is as the old row says."""
            for path, size in old.get("files", {}).items() if shards is None else ():
                if path not in new.get("files", {}) and storage.size(path) == size:
                    storage.remove(path)

        rows = run_to_rows(
            batches,
            storage.local / ROWS,
            executor,
            title="prepare",
            unit="",
            progress=progress,
            written=send,
            replaced=replaced,
        )
        made = [name for row, name in zip(rows, names, strict=True) if "failure" not in row]
        if made and shards is not None:
            _remove_others(batches, split, storage)
        if (storage.local / ROWS).exists():
            storage.send(ROWS)
        if made and shards is None and (file := list_of(made, split, config, place)) is not None:
            _write(storage, [file])
    return rows


def _check_inputs(batches: Sequence[Batch], known: dict[str, Row], folder: Path) -> None:
    """Raise FolderError for one of the shapes that would be written over, or removed as what an earlier run wrote."""
    inputs = {_inode(source) for batch in batches for source, _ in batch.sources if source.exists()}
    for batch in batches:
        for _, name in batch.sources:
            written = [batch.shard] if batch.shard else paths_of(name, batch.config)
            for path in (folder / path for path in {*written, *known.get(batch._file(name), {}).get("files", ())}):
                if path.exists() and _inode(path) in inputs:
                    raise FolderError(f"{path}: is an input itself; name another folder")


def _inode(path: Path) -> tuple[int, int]:
    """By which files are the same, whatever their names."""
    stamp = path.stat()
    return stamp.st_dev, stamp.st_ino


def _check_made(batches: Sequence[Batch], listing: File | None, known: dict[str, Row], folder: Path) -> None:
    """Raise FolderError for a file that would be written over and was not made by ff3d."""
    paths = [] if listing is None or any("files" in row for row in known.values()) else [listing.path]
    for batch in batches:
        for _, name in batch.sources:
            made = known.get(batch._file(name), {}).get("files", ())
            paths += {*([batch.shard] if batch.shard else paths_of(name, batch.config))}.difference(made)
    for path in sorted(folder / path for path in paths):
        if path.exists() and not (path.is_file() and is_made(path)):
            raise FolderError(f"{path}: is there, and was not made by ff3d; {FORCE}")


def _remove_others(batches: Sequence[Batch], split: str, storage: Storage) -> None:
    """Remove this split's shards beyond these, if they are as rows say; what is not in these is a row that says so."""
    shards = {batch.shard for batch in batches}
    wanted = {batch._file(name) for batch in batches for _, name in batch.sources}
    for file, row in read_rows(storage.local / ROWS).items():
        shard = file.rpartition("/")[0]
        if "files" not in row or file in wanted or not re.fullmatch(rf"{re.escape(split)}-\d{{6,}}\.tar", shard):
            continue
        same = shard not in shards and storage.size(shard) == row["files"].get(shard)
        if same and (storage.remote or is_made(storage.local / shard)):
            storage.remove(shard)
            log.warning("%s: removed, left by an earlier run of more shards", shard)
        append_row(storage.local / ROWS, {"mesh": row.get("mesh"), "file": file, "failure": GONE})
