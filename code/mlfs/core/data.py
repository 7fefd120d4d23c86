"""The small real data sets that come with the package.

`code/mlfs/data/DATA.md` says where each comes from, who may use it and how to cite it.
"""

from __future__ import annotations

import io
from importlib.resources import files

import numpy as np

from mlfs.core.numerics import IntArray

SETS = {
    "co2": "co2.csv",
    "digits": "digits.npz",
    "earthquakes": "earthquakes.csv",
    "grasshopper": "grasshopper.npz",
    "nile": "nile.csv",
    "rat_choices": "rat_choices.npz",
    "rat_path": "rat_path.npz",
}


def load(name: str) -> dict[str, IntArray]:
    """The columns of one data set by name, as new integer arrays of one length.

    - co2: `year`, `month`, `weeks`, `tenths`; 521 months of carbon dioxide in the air:
      the sum of the weekly values, in tenths of a ppm, and how many weeks it sums.
    - digits: `pixels` (1797, 64), 8 x 8 images row by row with ink from 0 to 16, and
      `label`, the digit that was written.
    - earthquakes: `year`, `count`; 107 years of major earthquakes in the world.
    - grasshopper: `level`, of a sound in hundredths of a decibel above its softest, and
      `spikes` of an auditory receptor neuron; 10 000 bins of 1 ms.
    - nile: `year`, `volume` in 10^8 m³; 100 years of the river's flow at Aswan.
    - rat_choices: `answer`, `choice` (0 left, 1 right), `session`; 20 000 trials of one
      rat in 80 sessions.
    - rat_path: `time` in ms, `position` (11993, 2) in mm; a rat in a box, every 50 ms.

    Raises:
        ValueError: there is no set of that name; the message lists those there are.
    """
    if not isinstance(name, str) or name not in SETS:
        raise ValueError(f"name is {name!r}, wants one of {sorted(SETS)}")
    content = files("mlfs").joinpath("data", SETS[name]).read_bytes()
    return _read_csv(content) if SETS[name].endswith(".csv") else _read_npz(content)


def _read_csv(content: bytes) -> dict[str, IntArray]:
    head, *rows = content.decode("ascii").splitlines()
    table = np.loadtxt(rows, dtype=np.int64, delimiter=",", ndmin=2)
    return {name: table[:, i].copy() for i, name in enumerate(head.strip().split(","))}


def _read_npz(content: bytes) -> dict[str, IntArray]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return {name: arrays[name].astype(np.int64) for name in arrays.files}
