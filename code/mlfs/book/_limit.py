"""Calling a function that may never return.

A timer signal raises inside the running function.  That needs a system with timer
signals and the main thread; elsewhere the function runs without a limit.  A single call
into compiled code is stopped only when it returns.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

GRACE = 0.1  # s between the alarm and the next, for a function that swallows the first
STORM = 50e-6  # s between all further ones: one will fall outside the function's `try`


class TimeIsUp(BaseException):
    """The time limit; no Exception, so that `except Exception` does not swallow it."""


class Interrupted(KeyboardInterrupt):
    """Somebody has pressed Ctrl-C, as against a function that raises the like."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a call ended: with a value or an error, and whether its time was up."""

    value: Any
    error: BaseException | None
    expired: bool


def can_limit_time() -> bool:
    """Whether a function that never returns can be stopped here."""
    return (
        hasattr(signal, "setitimer")
        and sys.platform not in ("emscripten", "wasi")
        and threading.current_thread() is threading.main_thread()
    )


def call_within(
    seconds: float, function: Callable[..., Any], arguments: Mapping[str, Any]
) -> Ending:
    """How `function(**arguments)` ends, if need be by force after some seconds.

    Raises:
        KeyboardInterrupt: somebody has pressed Ctrl-C.
    """
    if not can_limit_time():
        return _call(function, arguments)
    done = fired = False

    def on_alarm(_signal: int, _frame: FrameType | None) -> None:
        nonlocal fired
        if done:
            return  # an alarm that was under way when the function ended
        if fired:
            signal.setitimer(signal.ITIMER_REAL, STORM, STORM)
        fired = True
        raise TimeIsUp

    began = time.monotonic()
    timer = signal.setitimer(signal.ITIMER_REAL, 0)
    restore = _take_signals(on_alarm)
    value, error = None, None
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), GRACE)
        value = function(**arguments)
    except BaseException as raised:
        done = True  # at once, before any call during which an alarm could be heard
        error = raised
    finally:
        done = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        restore()
        _resume_timer(timer, time.monotonic() - began)
    if isinstance(error, Interrupted):
        raise error
    return Ending(value, error, fired)


def _call(function: Callable[..., Any], arguments: Mapping[str, Any]) -> Ending:
    """How a call without a limit ends; only the reader can end one that hangs."""
    try:
        return Ending(function(**arguments), None, False)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return Ending(None, error, False)


def _take_signals(
    on_alarm: Callable[[int, FrameType | None], None],
) -> Callable[[], None]:
    """Handle the timer's signal and Ctrl-C; returns what puts the old handlers back."""

    def on_interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise Interrupted

    old = {signal.SIGALRM: signal.signal(signal.SIGALRM, on_alarm)}
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        old[signal.SIGINT] = signal.signal(signal.SIGINT, on_interrupt)

    def restore() -> None:
        for number, handler in old.items():
            # None stands for a handler that was not set from Python
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    return restore


def _resume_timer(timer: tuple[float, float], elapsed: float) -> None:
    """Start the timer again that ran before; one that is overdue fires at once."""
    remaining, interval = timer
    if remaining:
        signal.setitimer(signal.ITIMER_REAL, max(remaining - elapsed, 1e-6), interval)
