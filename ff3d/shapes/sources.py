"""Where meshes come from: files, folders, globs, lists and samples; meshes to download; and two large collections.

A name means, in this order: a path that exists, a sample in meshes/, a mesh of `NAMED`. `thingi10k:FILE_ID` and
`objaverse:UID` are fetched by the packages of those projects, in which each model has a licence of its own.
"""

from __future__ import annotations

import glob
import hashlib
import importlib
import logging
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ff3d.checks import one_line
from ff3d.files import home_path, short_name, write_atomically
from ff3d.formats import READERS
from ff3d.formats.clouds import starts_as_cloud
from ff3d.formats.text import MeshError, refuse_impostors
from ff3d.formats.writers import save_mesh

log = logging.getLogger("ff3d")


class Download(NamedTuple):
    """A file elsewhere: its address and sha256, and whom to credit under which terms."""

    address: str
    sha256: str
    credit: str


def _scan(where: str, sha256: str) -> Download:
    credit = "Stanford 3D Scanning Repository; free for research with credit"
    return Download(f"https://raw.githubusercontent.com/{where}", sha256, credit)


# The meshes of Tancik et al. 2020 and the bunny, reduced to 48 to 100 thousand faces.
NAMED = {
    "armadillo": _scan(
        "NVlabs/instant-ngp/abe236ee00cf90cfca6e36e65c00435d5b21f50a/data/sdf/armadillo.obj",
        "105a660cc07bcae50806e46d109892c1556469c9bdb45626c2cdc91ae076196c",
    ),
    "dragon": _scan(
        "NVIDIAGameWorks/FleX/b1ea0f87b72582649c935d53fd8531b1e7335160/data/dragon.obj",
        "d1f0aa3b3e749ba46c02a4ead79be2d15a0743ab134325f166bb41a1091100a4",
    ),
    "buddha": _scan(
        "nwtnni/photon/60c15cca7509a8b43a8ab9aa4cb444c29775ad78/models/buddha.obj",
        "1b2479c77154f90c31281cb69ff1963dcd2ceb52d9803555eb70a2a1a09111de",
    ),
    "lucy": _scan(
        "Profactor/continuous-remeshing/2e556421a6096701519c4f106d4af1f0588e19dd/data/lucy.obj",
        "f906abd50e4fdfa81edf0f26f4613a9170713133f345d889a0edf1e258f11946",
    ),
    "stanford-bunny": _scan(
        "alecjacobson/common-3d-test-models/8a4f8642acaf43f9cd7b67858a1502e1055ef202/data/stanford-bunny.obj",
        "1eb35d1e21ce99e5ce911353b6be278990713448dd9e8f5c9387f9de39b32205",
    ),
}


def cache_folder() -> Path:
    """Where downloads are kept: $FF3D_CACHE, else the operating system's folder for the caches of a user."""
    import pooch

    return home_path(os.environ.get("FF3D_CACHE") or pooch.os_cache("ff3d"))


def fetch(name: str) -> Path:
    """The file of a mesh of `NAMED`: from the cache if it is there, else downloaded, atomically.

    Raises MeshError for another name, if the address cannot be reached, and if the sha256 differs.
    """
    import pooch
    import requests

    if name not in NAMED:
        raise MeshError(f"{name}: no mesh to download is called so; there are {', '.join(NAMED)}")
    address, sha256, credit = NAMED[name]
    path = cache_folder() / f"{name}{Path(address).suffix}"
    if path.is_file():
        if pooch.file_hash(path) == sha256:
            return path
        log.warning("%s: not the file that is meant (another sha256); downloading it again", path)
    log.info("%s: downloading %s (%s)", name, address, credit)
    # not pooch.retrieve: what it writes only its user can read, and it logs past our logger
    load = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=2**16, timeout=(5, 30))
    with write_atomically(path) as temporary:
        try:
            load(address, temporary, None)
        except requests.RequestException as error:
            answer = error.response
            lost = f"the network could not be reached, or broke off: {type(error).__name__}"
            why = lost if answer is None else f"it answered {answer.status_code}"
            raise MeshError(
                f"{name}: cannot download {address} ({why}); download it by hand to {path}, or give a file"
            ) from error
        got = pooch.file_hash(temporary)
        if got != sha256:
            raise MeshError(
                f"{name}: {address} is not the file that is meant: expected sha256 {sha256}, got {got}; "
                f"try again, or download it by hand to {path}, or give a file"
            )
    return path


# ---------------------------------------------------------------------------------------------- collections


@contextmanager
def _package(name: str, wanted: str) -> Iterator[Any]:
    """The package; that it is missing, and whatever goes wrong within, becomes a MeshError of one line."""
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        why = "" if error.name == name else f" ({error})"
        raise MeshError(f"{wanted} needs the package {name}: pip install 'ff3d[{name}]'{why}") from error
    try:
        yield module
    except MeshError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise MeshError(
            f"{wanted}: the package {name} could not give it ({what}); check the network, or give a file"
        ) from error


@cache
def _thingi10k_models(thingi10k: Any) -> tuple[Any, dict[int, int]]:
    """The models of Thingi10K and the place of each file id among them."""
    log.info("thingi10k: opening the collection; the first time it is downloaded whole, some gigabytes")
    thingi10k.init(variant="npz")
    models = thingi10k.dataset()
    return models, {file_id: place for place, file_id in enumerate(models["file_id"])}


def _thingi10k(key: str) -> Path:
    """The model of that file id, as a .ply in the cache: its vertices and facets as they are."""
    wanted = f"thingi10k:{key}"
    if not key.isdecimal():
        raise MeshError(f"{wanted}: a file id is a whole number, as in thingi10k:32770")
    path = cache_folder() / f"thingi10k-{int(key)}.ply"
    if not path.is_file():
        with _package("thingi10k", wanted) as thingi10k:
            import trimesh

            models, places = _thingi10k_models(thingi10k)
            if int(key) not in places:
                raise MeshError(f"{wanted}: Thingi10K has no model of this file id")
            model = models[places[int(key)]]
            log.info("%s: %s by %s (%s)", wanted, model["name"], model["author"], model["license"])
            vertices, facets = thingi10k.load_file(model["file_path"])
            save_mesh(trimesh.Trimesh(vertices, facets, process=False), path)
    return path


def _objaverse(key: str) -> Path:
    """The object of that uid in Objaverse 1.0, a .glb in the folder where its package keeps what it downloads."""
    wanted = f"objaverse:{key}"
    # it prints its progress, and warns of an unknown uid, for which it returns nothing
    with _package("objaverse", wanted) as objaverse, redirect_stdout(sys.stderr), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(objaverse.load_objects([key]).values())
        if not found:
            raise MeshError(f"{wanted}: Objaverse 1.0 has no object of this uid")
    return Path(found[0])


COLLECTIONS: dict[str, Callable[[str], Path]] = {"thingi10k": _thingi10k, "objaverse": _objaverse}


# ---------------------------------------------------------------------------------------------- find


def find_shape(name: str | Path) -> Path:
    """The one file meant by `name`: what `find_mesh` finds, else a mesh of `NAMED` or of a collection, fetched.

    Raises MeshError if there is no such mesh or it cannot be fetched.
    """
    collection, _, key = str(name).partition(":")
    if key and collection in COLLECTIONS and not Path(name).is_file():
        return COLLECTIONS[collection](key)
    try:
        return find_mesh(name)
    except MeshError as error:
        if str(name) in NAMED:
            return fetch(str(name))
        others = ", ".join([*NAMED, "thingi10k:FILE_ID", "objaverse:UID"])
        raise MeshError(f"{error}; or a mesh to download: {others}") from None


def find_shapes(names: Iterable[str | Path]) -> list[Path]:
    """The files meant by `names`, each once, in order.

    A name is one that `find_shape` knows; a folder (every mesh in it and in the folders in it); a glob such as
    "scans/**/*.obj"; or a list, .lst or .txt: a name a line, relative paths from the list's folder, blank lines and
    lines that start with # skipped. A .txt that starts with numbers is a point cloud.
    Raises MeshError, with the list and the line, for a name that means nothing.
    """
    found = [path for name in names for path in _expand(str(name))]
    return list({path.resolve(): path for path in found}.values())


def distinct_names(paths: Sequence[Path]) -> list[str]:
    """A name for each file: its stem, with 16 letters of its path's hash where another file has the same stem."""
    count = Counter(path.stem for path in paths)
    return [
        short_name(path.stem)
        if count[path.stem] == 1
        else f"{short_name(path.stem)}-{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}"
        for path in paths
    ]


def is_glob(name: str) -> bool:
    """Whether a name is a pattern: "scans/*.obj".

    >>> is_glob("scans/*.obj"), is_glob("scans/one.obj")
    (True, False)
    """
    return re.search(r"[*?[]", name) is not None


def _expand(name: str, base: Path | None = None) -> list[Path]:
    """The files meant by one name; base: the folder of the list that the name stands in, if any."""
    name = os.path.expanduser(name)
    path = (base or Path()) / name
    if path.is_dir():
        found = (Path(folder, file) for folder, _, names in os.walk(path) for file in names if _is_mesh(file))
        inside = sorted(file for file in found if file.is_file())
        if not inside:
            raise MeshError(f"{path}: no meshes in this folder; known endings: {', '.join(READERS)}")
        return inside
    if path.is_file():
        files = [path]
    elif is_glob(name):
        matches = sorted((base or Path()) / it for it in glob.glob(name, root_dir=base, recursive=True))
        endings = {*READERS, path.suffix.lower()} - {""}  # "*" takes meshes, "*.xyz" what it says
        files = [it for it in matches if it.suffix.lower() in endings and it.is_file()]
        if not files:
            raise MeshError(f"{path}: no mesh files match; known endings: {', '.join(READERS)}")
    elif base and Path(name).is_file():  # which `find_mesh` would take
        raise MeshError(f"{path}: no such file; relative paths start at the list's folder")
    else:
        return [find_shape(name)]
    lists = {it for it in files if _is_list(it)}
    if base and lists:
        raise MeshError(f"{min(lists)}: a list within a list; write its names here")
    return [it for file in files for it in (_listed(file) if file in lists else [file])]


def _is_mesh(file: str) -> bool:
    return os.path.splitext(file)[1].lower() in READERS  # a Path of each takes ten times as long


def _is_list(file: Path) -> bool:
    """Whether it is a .lst, or a .txt that does not start as a point cloud does.

    Raises MeshError for one that is no text of either kind, such as a Git LFS pointer.
    """
    ending = file.suffix.lower()
    if ending not in (".lst", ".txt") or (ending == ".txt" and starts_as_cloud(file)):
        return False
    try:
        refuse_impostors(file)
    except MeshError as fault:
        raise MeshError(f"{file}: {fault}") from None
    return True


def _listed(file: Path) -> list[Path]:
    """The files meant by the names in a list."""
    found = []
    for number, line in enumerate(file.read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1):
        name = line.strip()
        if name and not name.startswith("#"):
            try:
                found += _expand(name, file.parent)
            except (ValueError, OSError) as error:
                raise MeshError(f"{file}, line {number}: {one_line(error)}") from error
    if not found:
        raise MeshError(f"{file}: no names in this list; write one a line")
    return found


def find_mesh(name: str | Path) -> Path:
    """The mesh file meant by `name`: a path that exists, or a file of the meshes folder, its ending optional.

    The meshes folder is ./meshes, then the one in the installed package or beside the checkout's. Raises MeshError if
    no such file exists.
    """
    path = home_path(name)
    if path.is_file():
        return path
    package = Path(__file__).resolve().parents[1]
    installed = package / "meshes"
    folders = [Path("meshes"), installed if installed.is_dir() else package.parent / "meshes"]
    for folder in folders:
        for candidate in [folder / path, *(folder / f"{path}{ending}" for ending in READERS)]:
            if candidate.is_file():
                return candidate
    samples = sorted({f.stem for folder in folders for f in folder.glob("*") if f.suffix.lower() in READERS})
    raise MeshError(
        f"{name}: {'is a folder' if path.is_dir() else 'no such file'}, and no mesh of this name in "
        f"{' or '.join(map(str, folders))}; give a file's path or a sample: {', '.join(samples) or '(there are none)'}"
    )
