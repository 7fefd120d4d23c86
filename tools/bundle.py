"""Pack the package as a wheel, and the whole book as one zip.

The same sources give the same bytes.  This needs the standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CLAIMS = "mlfs/book/recorded"  # in the wheel: claims as the build recorded them
EPOCH = (2020, 1, 1, 0, 0, 0)  # zip archives hold a date; ours says nothing
NEVER = ("__pycache__",)


def project(root: Path) -> dict[str, Any]:
    """The table of pyproject.toml that describes the package."""
    read = tomllib.loads((root / "pyproject.toml").read_text("utf8"))
    table: dict[str, Any] = read["project"]
    return table


def wheel_name(root: Path) -> str:
    """The file name of the package's wheel."""
    about = project(root)
    return f"{about['name']}-{about['version']}-py3-none-any.whl"


def package_files(root: Path) -> dict[str, bytes]:
    """The package by path, with the claims that the build recorded."""
    found = {
        path.relative_to(root / "code").as_posix(): path.read_bytes()
        for path in sorted((root / "code" / "mlfs").rglob("*"))
        if path.is_file() and not set(NEVER) & set(path.parts)
    }
    for path in sorted((root / "_build" / "claims").glob("*.json")):
        found[f"{CLAIMS}/{path.name}"] = path.read_bytes()
    return found


def pack(path: Path, files: Mapping[str, bytes], stored: str = "") -> None:
    """Write a zip archive; equal files give equal bytes.

    The file named `stored` is not compressed, which formats ask that name themselves.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            plain = name == stored
            entry.compress_type = zipfile.ZIP_STORED if plain else zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            archive.writestr(entry, data)


def write_wheel(root: Path, folder: Path) -> Path:
    """The package as a wheel in `folder`."""
    about = project(root)
    info = f"{about['name']}-{about['version']}.dist-info"
    needs = "".join(f"Requires-Dist: {each}\n" for each in about["dependencies"])
    files = package_files(root)
    files[f"{info}/METADATA"] = (
        f"Metadata-Version: 2.1\nName: {about['name']}\n"
        f"Version: {about['version']}\nSummary: {about['description']}\n"
        f"Requires-Python: {about['requires-python']}\n{needs}"
    ).encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: mlfs\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n"
    )
    rows = [
        f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()
    ]
    record = f"{info}/RECORD"
    files[record] = "\n".join([*rows, f"{record},,", ""]).encode()
    path = folder / wheel_name(root)
    pack(path, files)
    return path


def _digest(data: bytes) -> str:
    coded = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
    return coded.rstrip(b"=").decode()
