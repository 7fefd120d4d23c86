"""Time every workload against its peer, and write the table: `make bench`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import harness, hmm

ROOT = Path(__file__).resolve().parents[1]
SUITES = (hmm,)


def main() -> int:
    """Print the table and write it to bench/results.md and README.md.

    Returns 1 if a target is missed.
    """
    harness.one_thread()
    rows, good = [], True
    for work in (work for suite in SUITES for work in suite.workloads()):
        timing = harness.measure(work)
        rows.append(harness.row(work, timing))
        good &= harness.met(work, timing)
        print(rows[-1], flush=True)
    libraries = sorted({name for suite in SUITES for name in suite.LIBRARIES})
    report = harness.table(rows, libraries)
    (ROOT / "bench" / "results.md").write_text(report, encoding="utf-8")
    readme = ROOT / "README.md"
    if readme.exists():
        text = readme.read_text(encoding="utf-8")
        readme.write_text(harness.insert(text, report), encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
