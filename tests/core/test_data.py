"""The data sets: what they hold, that they are the files DATA.md describes."""

import hashlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from mlfs.core import data

CODE = Path(data.__file__).resolve().parents[2]
FOLDER = CODE / "mlfs" / "data"
FILES = sorted(path for path in FOLDER.iterdir() if path.name != "DATA.md")


def sections():
    """The text under each heading of DATA.md, by heading."""
    text = (FOLDER / "DATA.md").read_text(encoding="utf-8")
    parts = re.split(r"(?m)^## (.+)$", text)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def test_every_set_is_a_file_and_every_file_is_a_set():
    assert sorted(data.SETS.values()) == [path.name for path in FILES]


def test_every_file_has_a_section_and_every_section_a_file():
    assert sorted(sections()) == [path.name for path in FILES]


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_file_is_the_one_described(path):
    section = sections()[path.name]
    rows = dict(re.findall(r"(?m)^\| ([^|]+?) \| (.+) \|$", section))
    for row in ("What", "Shape", "Source", "Version", "Licence", "Citation"):
        assert rows.get(row, "").strip(), f"{path.name}: DATA.md has no {row}"
    assert rows["SHA-256"] == f"`{hashlib.sha256(path.read_bytes()).hexdigest()}`"


def test_folder_stays_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3_000_000


def test_digits():
    digits = data.load("digits")
    assert list(digits) == ["pixels", "label"]
    assert digits["pixels"].shape == (1797, 64)
    assert (digits["pixels"].min(), digits["pixels"].max()) == (0, 16)
    counts = [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.bincount(digits["label"]).tolist() == counts
    # an image lies as it was written: a zero is round and empty in the middle
    zero = digits["pixels"][0].reshape(8, 8)
    assert digits["label"][0] == 0
    assert zero[:, 0].sum() == zero[:, 7].sum() == 0
    assert (zero[2:6, 3:5] <= 3).all() and (zero[2:6, 2] >= 8).sum() >= 2


def test_digits_are_those_of_scikit_learn():
    theirs = pytest.importorskip("sklearn.datasets").load_digits()
    digits = data.load("digits")
    np.testing.assert_array_equal(digits["pixels"], theirs.data)
    np.testing.assert_array_equal(digits["label"], theirs.target)


def test_earthquakes():
    quakes = data.load("earthquakes")
    assert list(quakes) == ["year", "count"]
    np.testing.assert_array_equal(quakes["year"], np.arange(1900, 2007))
    assert quakes["count"].shape == (107,)
    assert quakes["count"].sum() == 2072
    assert quakes["count"][[0, 43, -1]].tolist() == [13, 41, 11]


def test_grasshopper():
    ear = data.load("grasshopper")
    assert list(ear) == ["level", "spikes"]
    assert {a.shape for a in ear.values()} == {(10_000,)}
    assert set(ear["spikes"]) == {0, 1}
    assert ear["spikes"].sum() == 929
    # the first spikes come 6.7, 9.9 and 13.9 ms after the start
    assert np.flatnonzero(ear["spikes"])[:3].tolist() == [6, 9, 13]
    # 6 dB of standard deviation is what the source says was played
    assert ear["level"].std() / 100 == pytest.approx(6.0, abs=0.25)
    assert 0 <= ear["level"].min() and ear["level"].max() <= 3600


def test_rat_choices():
    trials = data.load("rat_choices")
    assert list(trials) == ["answer", "choice", "session"]
    assert {a.shape for a in trials.values()} == {(20_000,)}
    assert set(trials["answer"]) == set(trials["choice"]) == {0, 1}
    assert (trials["answer"].sum(), trials["choice"].sum()) == (9301, 10635)
    # sessions are whole and in order, so a change of number starts a new one
    assert set(np.diff(trials["session"])) == {0, 1}
    assert (trials["session"][0], trials["session"][-1]) == (0, 79)
    assert np.bincount(trials["session"])[:3].tolist() == [199, 228, 377]
    correct = np.mean(trials["answer"] == trials["choice"])
    assert correct == pytest.approx(0.6445)  # the source's own column says so


def test_co2():
    co2 = data.load("co2")
    assert list(co2) == ["year", "month", "weeks", "tenths"]
    months = 12 * co2["year"] + co2["month"] - 1
    assert len(months) == 521 and (np.diff(months) >= 1).all()
    assert months[0] == 12 * 1958 + 2 and months[-1] == 12 * 2001 + 11
    assert co2["weeks"].sum() == 2225  # what the source says it holds
    ppm = co2["tenths"] / co2["weeks"] / 10
    assert 313 < ppm.min() and ppm.max() < 375


def test_nile():
    nile = data.load("nile")
    assert list(nile) == ["year", "volume"]
    np.testing.assert_array_equal(nile["year"], np.arange(1871, 1971))
    assert nile["volume"].sum() == 91935
    assert nile["volume"][[0, 42, -1]].tolist() == [1120, 456, 740]


def test_rat_path():
    path = data.load("rat_path")
    assert list(path) == ["time", "position"]
    assert path["position"].shape == (11993, 2)
    assert path["time"][[0, -1]].tolist() == [100, 599_700]
    assert set(np.diff(path["time"])) == {50}  # ms
    assert 0 < path["position"].min() and path["position"].max() < 1000  # the box, mm
    # a rat, no teleporter: at most 0.9 m/s
    step = np.linalg.norm(np.diff(path["position"], axis=0), axis=1)
    assert step.max() <= 0.9 * 50 + 1


@pytest.mark.parametrize("name", sorted(data.SETS))
def test_arrays_are_integers_and_the_callers_own(name):
    first = data.load(name)
    for a in first.values():
        assert a.dtype == np.int64 and a.flags.writeable and a.flags.owndata
        a[:] = -1
    assert all((a >= 0).all() for a in data.load(name).values())


@pytest.mark.parametrize("name", ["quakes", "earthquakes.csv", "../DATA.md", ""])
def test_unknown_set_is_refused(name):
    message = "wants one of " + re.escape(str(sorted(data.SETS)))
    with pytest.raises(ValueError, match=message):
        data.load(name)


def test_loads_from_an_archive(tmp_path):
    """What is in a wheel need not be a file: the package works from a zip too."""
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for path in [*CODE.glob("mlfs/*.py"), *CODE.glob("mlfs/core/*.py"), *FILES]:
            out.write(path, path.relative_to(CODE))
    script = (
        "import sys; sys.path[0] = sys.argv[1]\n"
        "from mlfs.core import data; print(data.__file__)\n"
        "for n in data.SETS: print({k: int(v.sum()) for k, v in data.load(n).items()})"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, str(archive)],
        capture_output=True,
        text=True,
        check=True,
    )
    where, *lines = run.stdout.splitlines()
    assert str(archive) in where
    expected = [data.load(n) for n in data.SETS]
    wanted = [str({k: int(v.sum()) for k, v in one.items()}) for one in expected]
    assert lines == wanted
