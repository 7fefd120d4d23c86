"""Calling a learner's function so that nothing it does reaches the page."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import linecache
import sysconfig
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from mlfs.book._compare import identical
from mlfs.book._limit import call_within
from mlfs.book.exercise import Case, Function

LINES = 5  # of what a function prints, and of its warnings, that a report shows
WIDTH = 160  # characters of such a line
_LIBRARY = tuple(
    sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call on one case gave, and what else it did."""

    value: Any
    error: BaseException | None
    expired: bool
    seconds: float
    mutated: tuple[str, ...]  # names of the arguments it wrote into
    printed: tuple[str, ...]
    warned: tuple[str, ...]


class FirstLines(io.TextIOBase):
    """A stream that keeps its first lines and forgets the others."""

    def __init__(self) -> None:
        self.kept = ""

    def writable(self) -> bool:
        """Whether it takes text: always."""
        return True

    def write(self, text: str) -> int:
        """Take a text; returns its length, as every stream does."""
        room = LINES * WIDTH - len(self.kept)
        self.kept += text[:room]
        return len(text)

    def lines(self) -> tuple[str, ...]:
        """The first lines, long ones cut."""
        return tuple(clip(line) for line in self.kept.splitlines()[:LINES])


def call(function: Function, case: Case, seconds: float = 3600.0) -> Outcome:
    """What a function gives on copies of the case's arguments, within some seconds.

    Raises:
        KeyboardInterrupt: somebody has pressed Ctrl-C.
    """
    given, kept = case.fresh(), case.fresh()
    with _quiet() as (stream, log), _marked_memory():
        began = time.perf_counter()
        ending = call_within(seconds, function, given)
        took = time.perf_counter() - began
        value = _own(ending.value)
    mutated = tuple(name for name in kept if not identical(kept[name], given[name]))
    warned = dict.fromkeys(
        clip(f"{w.category.__name__}: {w.message}".splitlines()[0]) for w in log
    )
    return Outcome(
        value,
        ending.error,
        ending.expired,
        took,
        mutated,
        stream.lines(),
        tuple(warned)[:LINES],
    )


@contextlib.contextmanager
def _quiet() -> Iterator[tuple[FirstLines, list[warnings.WarningMessage]]]:
    """Keep output and warnings from the page; NumPy's error state as it starts out."""
    stream = FirstLines()
    with (
        contextlib.redirect_stdout(stream),
        contextlib.redirect_stderr(stream),
        warnings.catch_warnings(record=True) as log,
        np.errstate(divide="warn", over="warn", invalid="warn", under="ignore"),
    ):
        # once a place: "always" would fill the memory in a loop that never ends
        warnings.simplefilter("default")
        yield stream, log


@contextlib.contextmanager
def _marked_memory() -> Iterator[None]:
    """Meanwhile np.empty and np.empty_like fill what they return with NaN.

    Memory that was just freed may hold the right answer of an earlier check.  An entry
    that a function never fills must not pass by that.
    """
    real = {name: getattr(np, name) for name in ("empty", "empty_like")}
    try:
        for name, make in real.items():
            setattr(np, name, _marking(make))
        yield
    finally:
        for name, make in real.items():
            setattr(np, name, make)


def _marking(make: Function) -> Function:
    """The same maker of arrays, whose arrays hold NaN, or the least whole number."""

    @functools.wraps(make)
    def marked(*args: Any, **options: Any) -> Any:
        made = make(*args, **options)
        if made.dtype.kind in "fc":
            made.fill(np.nan)
        elif made.dtype.kind in "iu":
            made.fill(np.iinfo(made.dtype).min)
        return made

    return marked


def _own(value: Any) -> Any:
    """A copy of a result, since the function may write into the original next time."""
    try:
        return copy.deepcopy(value)
    except Exception:
        return value


def complaint(error: BaseException) -> str:
    """An exception's type and message on one line."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    name = type(error).__name__
    return clip(f"{name}: {text}" if text else name, 2 * WIDTH)


def place(error: BaseException) -> str:
    """The innermost line of the learner's own code that an exception came through."""
    own = [
        (frame, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if is_learners(frame)
    ]
    if not own:
        return ""
    frame, number = own[-1]
    code = frame.f_code
    text = linecache.getline(code.co_filename, number, frame.f_globals).strip()
    # a cell's file name holds a process id and does not exist
    file = Path(code.co_filename)
    where = f"{file.name}, line {number}" if file.is_file() else f"line {number}"
    where += "" if code.co_name == "<module>" else f", in {code.co_name}"
    return f"{where}: {clip(text)}" if text else where


def is_learners(frame: FrameType) -> bool:
    """Whether a frame runs neither the package's code nor a library's."""
    file = frame.f_code.co_filename
    ours = str(frame.f_globals.get("__name__", "")).startswith("mlfs.")
    installed = {"site-packages", "dist-packages"} & set(Path(file).parts)
    hidden = file.startswith(("<frozen", "<__array_function__", *_LIBRARY))
    return not (ours or installed or hidden)


def clip(text: str, width: int = WIDTH) -> str:
    """A text cut to a width."""
    return text if len(text) <= width else text[: width - 1] + "…"
