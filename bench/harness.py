"""Two ways to the same result, timed in pairs, and the table that reports them.

A busy machine slows both sides of a pair alike, so the ratio within a pair is what is
reported: its median and quartiles.  The clock is the CPU time of this process, which
does not run while others have the processor; elapsed time is taken along.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from numpy.typing import NDArray

THREADS = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NPROC": "1",  # the size of the pools of XLA, which JAX compiles with
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
}
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


@dataclass(frozen=True, slots=True)
class Workload:
    """Ours and a peer's way to one result, and what `check` holds the two results to.

    `target` is the largest ratio of times, ours to the peer's, that is good enough.
    One round makes `repeat` calls, so that short ones fill the clock's resolution.
    The first `compared` results must agree; they are not timed.
    """

    name: str
    ours: Callable[[], Any]
    peer: str
    theirs: Callable[[], Any]
    check: Callable[[Any, Any], None]
    target: float | None
    rounds: int
    repeat: int = 1
    compared: int = 1


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of a call in each round: `cpu` and `wall` (rounds, 2), ours first."""

    cpu: NDArray[np.float64]
    wall: NDArray[np.float64]

    def ratio(self) -> tuple[float, float, float]:
        """Lower quartile, median and upper quartile of ours / theirs in CPU time."""
        low, mid, high = np.quantile(self.cpu[:, 0] / self.cpu[:, 1], [0.25, 0.5, 0.75])
        return float(low), float(mid), float(high)

    def wall_ratio(self) -> float:
        """Median of ours / theirs in elapsed time."""
        return float(np.median(self.wall[:, 0] / self.wall[:, 1]))

    def milliseconds(self) -> tuple[float, float]:
        """Median CPU time of ours and of theirs."""
        ours, theirs = 1e3 * np.median(self.cpu, axis=0)
        return float(ours), float(theirs)


def one_thread() -> None:
    """Start this script anew with one thread for every library, unless it was so.

    The libraries read these variables when they are loaded, so to set them now would
    come too late.  JAX computes on a thread of its own even so: on one core, where the
    system lets us choose it, that thread and the caller cannot run at the same time,
    and the CPU time is not more than the elapsed time.
    """
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    alone = os.environ | THREADS
    if alone != os.environ:
        os.execve(sys.executable, [sys.executable, *sys.argv], alone)


def measure(work: Workload) -> Timing:
    """Times of `work.rounds` pairs, after the results were found to agree.

    The order within a pair alternates, so that neither side always comes first.

    Raises:
        AssertionError: the two results differ.
    """
    for _ in range(work.compared):
        work.check(work.ours(), work.theirs())
    sides = work.ours, work.theirs
    cpu, wall = np.empty((2, work.rounds, 2))
    for i in range(work.rounds):
        for side in (0, 1) if i % 2 == 0 else (1, 0):
            before = process_time(), perf_counter()
            for _ in range(work.repeat):
                sides[side]()
            cpu[i, side] = process_time() - before[0]
            wall[i, side] = perf_counter() - before[1]
    return Timing(cpu / work.repeat, wall / work.repeat)


def met(work: Workload, timing: Timing) -> bool:
    """Whether the median ratio is within the target; without a target it is."""
    return work.target is None or timing.ratio()[1] <= work.target


def row(work: Workload, timing: Timing) -> str:
    """One line of the table."""
    low, mid, high = timing.ratio()
    ours, theirs = timing.milliseconds()
    target, verdict = "", ""
    if work.target is not None:
        target, verdict = f"{work.target:.2f}", "yes" if met(work, timing) else "no"
    cells = [
        work.name,
        digits(ours),
        work.peer,
        digits(theirs),
        f"{mid:.2f} ({low:.2f} to {high:.2f})",
        f"{timing.wall_ratio():.2f}",
        target,
        verdict,
    ]
    return f"| {' | '.join(cells)} |"


def digits(milliseconds: float) -> str:
    """A time with one decimal, or with two digits where it is below one."""
    return f"{milliseconds:{'.1f' if milliseconds >= 1 else '#.2g'}}"


def table(rows: Sequence[str], libraries: Sequence[str]) -> str:
    """The Markdown table of these rows, and what it was measured on."""
    head = [
        "| workload | ours, ms | peer | peer, ms | ours / peer (quartiles)"
        " | by wall clock | target | met |",
        "|---|---:|---|---:|---:|---:|---:|---|",
    ]
    return "\n".join([*head, *rows, "", machine(libraries)]) + "\n"


def machine(libraries: Sequence[str]) -> str:
    """The processor, Python, these libraries, and which of them are missing."""
    here = installed(libraries)
    versions = ", ".join(f"{name} {version(name)}" for name in here)
    gone = ", ".join(name for name in libraries if name not in here)
    return (
        f"One thread on {processor()} ({os.cpu_count()} cores), "
        f"Python {platform.python_version()}, {versions}; "
        "medians of paired runs, CPU time."
        + (f" Not installed, so left out: {gone}." if gone else "")
    )


def installed(libraries: Sequence[str]) -> list[str]:
    """Those of these libraries that are installed."""
    found = []
    for name in libraries:
        try:
            version(name)
        except PackageNotFoundError:
            continue
        found.append(name)
    return found


def processor() -> str:
    """The model of the processor, where the system tells."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def insert(text: str, body: str) -> str:
    """`text` with `body` between the two marks; `text` itself where it has none.

    Raises:
        ValueError: one mark without the other, or out of order.
    """
    parts = split(text, BEGIN, END)
    if parts is None:
        return text
    return f"{parts[0]}{BEGIN}\n{body.strip()}\n{END}{parts[2]}"


def section(name: str, body: str) -> str:
    """`body` between two marks that bear this name, for `find` to find again."""
    begin, end = marks(name)
    return f"{begin}\n{body.strip()}\n{end}"


def find(text: str, name: str) -> str | None:
    """What stands in the section of this name; None where `text` has no such section.

    Raises:
        ValueError: one mark without the other, or out of order.
    """
    parts = split(text, *marks(name))
    return None if parts is None else parts[1].strip()


def marks(name: str) -> tuple[str, str]:
    """The lines before and after the section of this name."""
    return f"<!-- bench:{name}:begin -->", f"<!-- bench:{name}:end -->"


def split(text: str, begin: str, end: str) -> tuple[str, str, str] | None:
    """What stands before, between and after two marks; None where there are none.

    Raises:
        ValueError: one mark without the other, or out of order.
    """
    counts = text.count(begin), text.count(end)
    if counts == (0, 0):
        return None
    if counts != (1, 1) or text.index(end) < text.index(begin):
        raise ValueError(f"text holds {counts} of {begin} and {end}, want one of each")
    before, _, rest = text.partition(begin)
    between, _, after = rest.partition(end)
    return before, between, after
