"""Checking exercises: whether a function does what is asked, and if not, why not.

In a page: `check("hmm.forward", forward)`.  In a shell, on a file of one's own:

    python -m mlfs.book.check hmm my_hmm.py
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from mlfs.book._call import call, complaint, place
from mlfs.book._judge import judge
from mlfs.book._limit import can_limit_time
from mlfs.book._report import Report
from mlfs.book.exercise import Exercise, Function, exercise, exercises

__all__ = ["Report", "can_limit_time", "check", "main", "mine", "prove", "which"]

_passed: dict[str, Function] = {}  # the learner's functions whose last check passed


def check(name: str, candidate: Any, seconds: float | None = None) -> Report:
    """Whether a function does what exercise `name` asks; a report to show.

    The candidate's calls may take `seconds` together, by default those of the exercise.
    A function that passes is what `mine` hands out from now on.

    Raises:
        ValueError: there is no such exercise, or `seconds` is not positive.
        KeyboardInterrupt: somebody has pressed Ctrl-C.
    """
    task = exercise(name)
    limit = task.seconds if seconds is None else seconds
    if not limit > 0:
        raise ValueError(f"seconds must be positive, got {limit}")
    report = judge(name, task, candidate, limit)
    if _is_the_books(candidate):  # which leaves the learner's alone
        return replace(report, message=f"{report.message} This is the book's own.")
    _passed.pop(name, None)
    if report.passed:
        _passed[name] = candidate
    return report


def mine(name: str) -> Function:
    """The learner's function if its last check passed, else the book's.

    Raises:
        ValueError: there is no such exercise.
    """
    reference = exercise(name).reference
    return _passed.get(name, reference)


def which(name: str) -> str:
    """Whose function `mine` hands out: "yours" or "the book's".

    Raises:
        ValueError: there is no such exercise.
    """
    exercise(name)
    return "yours" if name in _passed else "the book's"


def _is_the_books(candidate: Any) -> bool:
    return str(getattr(candidate, "__module__", "")).startswith("mlfs.")


# For the proofs of the book


def prove(module: str) -> list[str]:
    """What is wrong with a module's exercises themselves; an empty list is a proof.

    Of each exercise: a stub is not started, the reference passes, every planted mistake
    fails with its own hint and writes into nothing, and a second run says the same.

    Raises:
        ValueError: the module has no exercises.
    """
    return [
        f"{module}.{task.name}: {problem}"
        for task in exercises(module)
        for problem in _flaws(f"{module}.{task.name}", task)
    ]


def _stub(**_arguments: Any) -> Any:
    raise NotImplementedError


def _flaws(name: str, task: Exercise) -> list[str]:
    raised = (call(task.reference, case).error for case in task.generate())
    broken = next((error for error in raised if error), None)
    if broken:
        return [f"the reference raises {complaint(broken)}"]
    fewest = 3 if task.compare else 1
    flaws = []
    if len(task.mistakes) < fewest:
        flaws.append(f"{len(task.mistakes)} mistakes, wanted at least {fewest}")
    if not task.compare and not task.laws:
        flaws.append("neither values nor laws judge it")
    versions: list[tuple[str, Function, str, str | None]] = [
        ("the stub", _stub, "not started", None),
        ("the reference", task.reference, "passed", None),
    ]
    for m in task.mistakes:
        versions.append((f"mistake {m.name!r}", m.function, "failed", m.name))
        if any(call(m.function, case).mutated for case in task.generate()):
            flaws.append(f"mistake {m.name!r} writes into its arguments")
    for what, function, status, hint in versions:
        report = judge(name, task, function, task.seconds)
        if (report.status, report.hint) != (status, hint):
            flaws.append(
                f"{what} is {report.status}, hint {report.hint!r}; "
                f"wanted {status}, hint {hint!r}: {report.message}"
            )
        if report != judge(name, task, function, task.seconds):
            flaws.append(f"two checks of {what} differ")
    return flaws


# From a shell


def main(arguments: Sequence[str] | None = None) -> int:
    """Check a learner's file; returns 0 (all passed), 1 (not all) or 2 (cannot)."""
    parser = argparse.ArgumentParser(
        prog="python -m mlfs.book.check",
        description="Check the functions in a file of your own against the exercises.",
    )
    parser.add_argument("module", help="whose exercises, for example hmm")
    parser.add_argument("file", type=Path, help="your file, for example my_hmm.py")
    parser.add_argument("--only", metavar="NAME", help="check this function only")
    asked = parser.parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):  # a console may lack the signs
        sys.stdout.reconfigure(errors="replace")
    try:
        tasks = exercises(asked.module)
        if asked.only:
            tasks = (exercise(f"{asked.module}.{asked.only}"),)
        learned = _load(asked.file)
    except ValueError as unfit:
        print(unfit)
        return 2
    states = []
    for task in tasks:
        report = _check_in(learned, f"{asked.module}.{task.name}", task)
        print(report, flush=True)
        states.append(report.status)
    counts = [f"{states.count(s)} {s}" for s in ("passed", "failed", "not started")]
    print(", ".join(counts))
    return 0 if set(states) == {"passed"} else 1


def _check_in(learned: ModuleType, name: str, task: Exercise) -> Report:
    if not hasattr(learned, task.name):
        return Report(name, "not started", f"Write {task.signature}")
    return check(name, getattr(learned, task.name))


def _load(path: Path) -> ModuleType:
    """A learner's file as a module.

    It is compiled here: the import system would write a cache beside it, and use a
    stale one after a quick edit.

    Raises:
        ValueError: the file cannot be read, or raises while it loads.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from None
    full = str(path.resolve())
    module = ModuleType(f"learners_{path.stem}")  # a name that hides no other module
    module.__file__ = full
    sys.modules[module.__name__] = module  # dataclasses look their module up
    sys.path.append(str(path.resolve().parent))
    try:
        exec(compile(source, full, "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        where = place(error)
        text = complaint(error) + (f" [{where}]" if where else "")
        raise ValueError(f"{path.name} does not load: {text}") from None
    return module


if __name__ == "__main__":
    # a learner's file may import this module: then there must be one, not two
    from mlfs.book.check import main as _main

    sys.exit(_main())
