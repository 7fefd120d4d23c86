"""Time workloads against their peers, and write the tables: `make bench`.

With names, `python bench/run.py hmm`, only these suites run; the tables of the others
stay as they are.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import harness

ROOT = Path(__file__).resolve().parents[1]
SUITES = {
    "glm": "Generalized linear models",
    "hmm": "Hidden Markov models",
    "autodiff": "Automatic differentiation",
    "kalman": "Kalman and particle filters",
    "gp": "Gaussian processes",
}


def main(names: Sequence[str]) -> int:
    """Print the tables of these suites and write them to results.md and README.md.

    Returns 1 if a target is missed, 2 if a suite has no such name.
    """
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        print(f"no suite {', '.join(unknown)}; there are {', '.join(SUITES)}")
        return 2
    harness.one_thread()
    good = True
    for name in names or SUITES:
        report, met = run(import_module(f"bench.{name}"))
        write(name, f"**{SUITES[name]}**\n\n{report}")
        good &= met
    return 0 if good else 1


def run(suite: Any) -> tuple[str, bool]:
    """The table of one suite, and whether every target was met."""
    here = harness.installed(suite.LIBRARIES)
    for library in suite.LIBRARIES:
        if library not in here:
            print(f"{library} is not installed: left out", flush=True)
    rows, good = [], True
    for work in suite.workloads():
        timing = harness.measure(work)
        rows.append(harness.row(work, timing))
        good &= harness.met(work, timing)
        print(rows[-1], flush=True)
    return harness.table(rows, suite.LIBRARIES), good


def write(name: str, report: str) -> None:
    """Put the report of one suite in its place among the others'."""
    results = ROOT / "bench" / "results.md"
    text = results.read_text(encoding="utf-8") if results.exists() else ""
    known = {each: harness.find(text, each) for each in SUITES} | {name: report}
    parts = [harness.section(each, body) for each, body in known.items() if body]
    text = "\n\n".join(parts) + "\n"
    results.write_text(text, encoding="utf-8")
    readme = ROOT / "README.md"
    if readme.exists():
        whole = readme.read_text(encoding="utf-8")
        readme.write_text(harness.insert(whole, text), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
