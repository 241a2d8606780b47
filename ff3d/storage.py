"""Where results lie: a folder of this machine, or an address of any file system that fsspec knows (s3://, gs://)."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path, PurePosixPath
from typing import Any


class Storage:
    """A place for results. `local` is the folder itself, or a temporary copy of what lies at a remote address.

    address: a path, or scheme://...; the file system's own package (s3fs, gcsfs, ...) is the user's to install.
    scratch: a folder that somebody else removes; if it is on this machine, the copy lies in it, so that it goes with it
    when this process is killed.
    Files are sent one by one, each atomically where the file system puts objects so; locally ff3d writes
    them whole itself. Raises ValueError for an address that fsspec cannot open, and for names that lead out of it.
    """

    def __init__(self, address: str | Path, scratch: Path | None = None):
        self.address = str(address)
        self._system: Any = None
        if "://" not in self.address:
            self.local = Path(os.path.expanduser(address))  # as `home_path`, of a module beside this one
            return
        if ".." in PurePosixPath(self.address).parts:
            raise ValueError(f"{self.address}: an address must not go up (..)")
        import fsspec

        try:
            self._system, self._root = fsspec.core.url_to_fs(self.address.rstrip("/"))
        except (ImportError, ValueError) as error:
            raise ValueError(f"{self.address}: this address cannot be opened ({error})") from error
        self.local = Path(tempfile.mkdtemp(prefix="ff3d-", dir=scratch if scratch and scratch.is_dir() else None))
        weakref.finalize(self, shutil.rmtree, self.local, ignore_errors=True)

    @property
    def remote(self) -> bool:
        """Whether it lies elsewhere, so that files are to be sent and fetched."""
        return self._system is not None

    def send(self, *names: str) -> None:
        """Copy files, or folders with what is in them, from `local` to the address, in the order given."""
        for name in names if self.remote else ():
            place = self._place(name)
            for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
                if path.is_file():
                    target = f"{self._root}/{path.relative_to(self.local).as_posix()}"
                    self._system.makedirs(target.rpartition("/")[0], exist_ok=True)
                    self._system.put_file(str(path), target)

    def fetch(self, *names: str) -> None:
        """Copy files from the address to `local`; what is not there, or is here already, is left out."""
        for name in names if self.remote else ():
            target, path = f"{self._root}/{name}", self._place(name)
            if not path.exists() and self._system.exists(target):
                path.parent.mkdir(parents=True, exist_ok=True)
                self._system.get_file(target, str(path))

    def remove(self, name: str) -> None:
        """Delete a file, here and at the address, if it is there."""
        self._place(name).unlink(missing_ok=True)
        if self.remote and self._system.exists(f"{self._root}/{name}"):
            self._system.rm_file(f"{self._root}/{name}")

    def size(self, name: str) -> int | None:
        """The bytes of a file, at the address if it has one; None if it is not there."""
        path = self._place(name)
        if not self.remote:
            return path.stat().st_size if path.is_file() else None
        try:
            return int(self._system.size(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None

    def _place(self, name: str) -> Path:
        """Where a name lies in `local`."""
        if name.startswith("/") or {"..", "."} & set(name.split("/")):
            raise ValueError(f"{name!r} leads out of {self.address}")
        return self.local / name

    def names(self, name: str) -> list[str]:
        """The folders here, in order, that hold a file of this name."""
        if self.remote:
            found = self._system.glob(f"{self._root}/*/{name}")
            return sorted(str(path).split("/")[-2] for path in found)
        return sorted(path.parent.name for path in self.local.glob(f"*/{name}"))
