#!/usr/bin/env python3
"""Install a wheel in an environment of its own, outside the checkout, and use it there: `scripts/check_wheel.py WHEEL`.

The environment shares the packages that this Python has, to download nothing, but not the checkout; ff3d comes from
the wheel alone. Exits with an error at the first thing that does not work.
"""

import os
import site
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]

INSIDE = """
import importlib, pathlib, pkgutil, sys
import ff3d
home = pathlib.Path(ff3d.__file__).parent
assert pathlib.Path(sys.prefix).resolve() in home.resolve().parents, f"ff3d comes from {home}"
assert (home / "py.typed").is_file()
names = [module.name for module in pkgutil.walk_packages(ff3d.__path__, "ff3d.")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
for name in ff3d.__all__:
    getattr(ff3d, name)
print(f"{len(names)} modules and {len(ff3d.__all__)} public names from {home}")
"""


def main(wheel: Path) -> None:
    """Check what the wheel holds, then install and use it."""
    began = time.monotonic()
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    wanted = {path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "ff3d").rglob("*") if path.is_file()}
    wanted = {name for name in wanted if "__pycache__" not in name}
    wanted |= {f"ff3d/{path.relative_to(CHECKOUT).as_posix()}" for path in (CHECKOUT / "meshes").iterdir()}
    if wanted - packed:
        raise SystemExit(f"{wheel.name} lacks {', '.join(sorted(wanted - packed))}")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        venv.create(home / "venv", with_pip=True)
        programs = home / "venv" / ("Scripts" if os.name == "nt" else "bin")
        python = programs / "python"
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}

        def run(*command: str | Path) -> str:
            begun = time.monotonic()
            done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stderr}")
            print(
                f"{time.monotonic() - begun:5.1f} s  {' '.join(map(str, command[1:])).strip().splitlines()[0]}",
                flush=True,
            )
            return done.stdout

        run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel.resolve())
        # a line in a .pth adds a folder, and does not read the .pth files in it, as that of an editable install
        shared = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
        (Path(shared) / "shared.pth").write_text("\n".join(site.getsitepackages()))
        print(run(python, "-c", INSIDE).strip())
        ff3d = programs / "ff3d"
        run(ff3d, "fit", "bunny", "--steps", "50", "--out", "fit")
        run(ff3d, "extract", "fit", "--resolution", "64", "--output", "bunny.ply")
        run(ff3d, "compare", "bunny", "--steps", "20", "--out", "study")
        run(ff3d, "samples", "samples")
        report = (home / "study" / "report.html").read_text()
        if len(report) < 10_000 or "bunny" not in report:
            raise SystemExit("study/report.html is no report")
        for path in (CHECKOUT / "meshes").iterdir():
            if (home / "samples" / path.name).read_bytes() != path.read_bytes():
                raise SystemExit(f"ff3d samples wrote another {path.name}")
    print(f"{wheel.name}: works outside the checkout ({time.monotonic() - began:.0f} s)")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
