"""Claims: what a test verifies, recorded, so that a page can show it.

A test takes the `claim` fixture (tests/conftest.py) and states

    claim("hmm-forward", oracle="sum over all K**T paths", kind="exact",
          got=..., want=..., atol=1e-12)

`claim` asserts the agreement and records it.  `verify("hmm")` in a page runs that
module's tests and shows every record as a row of a table.
"""

from __future__ import annotations

import html
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mlfs.book.chapters import ROOT

# What each kind of oracle may at most allow; None: the claim states its own bound.
LOOSEST: dict[str, float | None] = {
    "exact": 1e-9,  # another way to the same number that shares no code with ours
    "law": None,  # a property that must hold: a gradient, a symmetry, a bound
    "library": 1e-6,  # a reference library
    "published": None,  # a printed number: half a unit of its last digit
}
CLAIMS = ROOT / "_build" / "claims"
RECORDED = Path(__file__).with_name("recorded")  # in the wheel: what the build found
HEADINGS = (
    "equation",
    "compared with",
    "kind",
    "largest discrepancy",
    "tolerance",
    "result",
)


@dataclass(frozen=True, slots=True)
class Claim:
    """One agreement: an equation, what it was compared with, and how closely."""

    label: str
    oracle: str
    kind: str
    test: str
    error: float
    tolerance: float
    relative: bool = False

    @property
    def passed(self) -> bool:
        """Whether the largest discrepancy is within the tolerance (NaN is not)."""
        return self.error <= self.tolerance

    def cells(self) -> list[str]:
        """What a table shows of the claim, under HEADINGS."""
        unit = " (relative)" if self.relative else ""
        return [
            self.label,
            self.oracle,
            self.kind,
            _size(self.error),
            f"{self.tolerance:.0e}{unit}" if self.tolerance else "0",
            "✓ passed" if self.passed else "✗ failed",
        ]


def measure(
    label: str,
    *,
    oracle: str,
    kind: str,
    got: ArrayLike,
    want: ArrayLike | None = None,
    atol: float | None = None,
    rtol: float | None = None,
    at_least: ArrayLike | None = None,
    at_most: ArrayLike | None = None,
    test: str = "",
) -> Claim:
    """The claim that `got` equals `want`, or respects a bound; measured, not asserted.

    `atol` bounds the largest distance of `got` from `want`; `rtol` bounds it in units
    of the largest magnitude in `want`.  `at_least` and `at_most` take `atol` as slack,
    0 unless told.

    Raises:
        ValueError: an unknown kind, no or several comparisons, no tolerance, or one too
            loose for its kind.
    """
    if kind not in LOOSEST:
        raise ValueError(f"kind is {kind!r}, wants one of {sorted(LOOSEST)}")
    if sum(bound is not None for bound in (want, at_least, at_most)) != 1:
        raise ValueError("claim wants exactly one of want, at_least, at_most")
    if want is not None and (atol is None) == (rtol is None):
        raise ValueError("claim wants either atol or rtol beside want")
    tolerance = float(rtol if rtol is not None else (atol or 0.0))
    loosest = LOOSEST[kind]
    if loosest is not None and not 0 <= tolerance <= loosest:
        raise ValueError(
            f"tolerance is {tolerance}, {kind} claims want {loosest} at most"
        )
    if want is not None:
        error = _distance(got, want)
        if rtol is not None:
            unit = float(np.abs(np.asarray(want, float)).max(initial=0.0))
            if unit == 0 or np.isinf(unit):
                raise ValueError(f"rtol is in units of max |want|, {unit}: wants atol")
            error /= unit
    else:
        # What is short of a bound counts; below zero it is the margin.  NaN fails.
        low, high = (at_least, got) if at_least is not None else (got, at_most)
        error = float(np.max(np.asarray(low, float) - np.asarray(high, float)))
    return Claim(label, oracle, kind, test, error, tolerance, rtol is not None)


def _distance(got: ArrayLike, want: ArrayLike) -> float:
    """Largest |got − want|; equal infinities agree, unequal shapes never do."""
    a, b = np.asarray(got, float), np.asarray(want, float)
    if a.shape != b.shape:
        return np.inf
    if a.size == 0:
        raise ValueError("claim compares two empty arrays, which proves nothing")
    with np.errstate(invalid="ignore"):
        return float(np.where(a == b, 0.0, np.abs(a - b)).max())


class Ledger:
    """All claims of one test run; of equal claims the one with the largest error."""

    def __init__(self) -> None:
        self.claims: dict[tuple[str, str, str, str], Claim] = {}

    def record(self, claim: Claim) -> None:
        """Keep `claim` unless the same one is here with a larger error."""
        key = claim.label, claim.oracle, claim.kind, claim.test
        old = self.claims.get(key)
        if old is None or np.isnan(claim.error) or claim.error > old.error:
            self.claims[key] = claim

    def write(self, path: Path, module: str, passed: int) -> None:
        """Write the records as JSON, in the order in which they were made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [asdict(c) | {"passed": c.passed} for c in self.claims.values()]
        text = json.dumps(
            {"module": module, "passed": passed, "claims": rows}, indent=1
        )
        path.write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class ClaimsTable:
    """The claims of one module, to be shown: HTML in a page, text in a shell."""

    module: str
    passed: int
    claims: tuple[Claim, ...]
    recorded: bool = False  # the tests are not here; the book's build ran them

    def __repr__(self) -> str:
        rows = [list(HEADINGS), *(claim.cells() for claim in self.claims)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(HEADINGS))]
        lines = [
            "  ".join(
                cell.ljust(width) for cell, width in zip(row, widths, strict=True)
            )
            for row in rows
        ]
        return "\n".join([*(line.rstrip() for line in lines), self._summary()])

    def _summary(self) -> str:
        summary = f"{self.passed} tests passed; {len(self.claims)} claims."
        if self.recorded:
            summary += " Recorded when the book was built: its tests are not here."
        return summary

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{heading}</th>' for heading in HEADINGS)
        body = "".join(self._row(claim.cells()) for claim in self.claims)
        return (
            f'<div class="claims" tabindex="0" role="region" '
            f'aria-label="Claims about {html.escape(self.module)}">'
            f"<table><caption>{self._summary()}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        )

    @staticmethod
    def _row(cells: list[str]) -> str:
        label, *rest = map(html.escape, cells)
        target = f"#equation-{label.lower()}"  # as Sphinx spells its ids
        link = f'<a class="reference internal" href="{target}">{label}</a>'
        return "<tr>" + "".join(f"<td>{cell}</td>" for cell in (link, *rest)) + "</tr>"


def _size(error: float) -> str:
    """A discrepancy in two digits; what is below zero is the margin to a bound."""
    if error < 0:
        return f"margin {-error:.1e}"
    return f"{error:.1e}" if error else "0"


def load(module: str, folder: Path | None = None) -> ClaimsTable:
    """The claims that the last `verify(module)` recorded, here or in `folder`.

    Raises:
        FileNotFoundError: `verify(module)` has not run since the last clean build.
    """
    path = (folder or CLAIMS) / f"{module}.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    rows = [{k: v for k, v in row.items() if k != "passed"} for row in data["claims"]]
    claims = tuple(Claim(**row) for row in rows)
    return ClaimsTable(data["module"], data["passed"], claims, folder is not None)


def verify(module: str) -> ClaimsTable:
    """Run the tests of one module and return its claims, to be shown by the page.

    A copy of the package without its tests (in the browser, in the book's zip) returns
    what the build recorded, and says so.

    Raises:
        AssertionError: a test failed, with the end of what pytest said.
        FileNotFoundError: there are neither tests nor a record of them.
    """
    tests = ROOT / "tests" / f"test_{module}.py"
    if not tests.is_file():
        if (RECORDED / f"{module}.json").is_file():
            return load(module, RECORDED)
        raise FileNotFoundError(
            f"tests/test_{module}.py is not here: verify needs the book's repository"
        )
    out = CLAIMS / f"{module}.json"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, f"--claims={out}", str(tests)],
        cwd=ROOT,
        env=_environment(),
        capture_output=True,
        text=True,
    )
    if run.returncode != 0:
        raise AssertionError(f"the tests of {module} failed:\n{run.stdout[-4000:]}")
    return load(module)


def _environment() -> dict[str, str]:
    """Ours, with one BLAS thread, and colours off: the output is read as text."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**os.environ, **threads, "NO_COLOR": "1", "PY_COLORS": "0"}


def state(ledger: Ledger, label: str, **comparison: Any) -> Claim:
    """Measure a claim, record it, and assert it; the body of the `claim` fixture.

    Raises:
        AssertionError: the discrepancy exceeds the tolerance, or is NaN.
    """
    current = os.environ.get("PYTEST_CURRENT_TEST", "")
    test = current.split(" ")[0].split("::")[-1].split("[")[0]
    made = measure(label, test=test, **comparison)
    ledger.record(made)
    assert made.passed, (
        f"{label} against {made.oracle}: discrepancy {made.error:.3g}, "
        f"tolerance {made.tolerance:.3g}"
    )
    return made
