"""Numerical habits shared by every chapter: work in logs, check at the door.

A `check_*` function returns its argument as an array when it is fit for use and raises
a ValueError that names the argument, what it got and what it wants when it is not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

# Sums of probabilities drift from one by rounding only: K terms err by about K * 1e-16.
SIMPLEX_ATOL = 1e-8


def logsumexp(a: Array, axis: int) -> Array:
    """Sum in log space: log Σ exp(a) over `axis`; an all −inf slice gives −inf."""
    top = a.max(axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):  # log 0 = −inf is the wanted answer
        out: Array = np.log(np.exp(a - top).sum(axis=axis)) + top.squeeze(axis)
    return out


def log_probability(p: Array) -> Array:
    """log p, with log 0 = −inf and no warning."""
    with np.errstate(divide="ignore"):
        out: Array = np.log(p)
    return out


def check_array(
    name: str,
    a: ArrayLike,
    shape: tuple[int | str, ...],
    *,
    low: float = -np.inf,
    high: float = np.inf,
    allow: tuple[float, ...] = (),
) -> Array:
    """`a` as a float array of `shape`, every entry a number in [low, high].

    A name in `shape` stands for any length of at least one, the same wherever it
    recurs: ("T", "K") is a table, ("K", "K") a square one.  NaN is always refused;
    ±inf is refused unless listed in `allow`.

    Raises:
        ValueError: anything else.
    """
    try:
        out: Array = np.asarray(a, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must hold real numbers, got {_brief(a)}") from None
    if np.iscomplexobj(a):
        raise ValueError(f"{name} must hold real numbers, got complex ones")
    _check_shape(name, out, shape)
    with np.errstate(invalid="ignore"):  # NaN fails every comparison
        least, most = out.min(), out.max()
    if low <= least and most <= high and np.isfinite(least) and np.isfinite(most):
        return out  # two passes tell a good array; which entry is bad takes many
    bad = np.isnan(out)
    if bad.any():
        raise ValueError(f"{name} holds NaN at index {_first(bad)}, wants numbers")
    bad = np.isinf(out) & ~np.isin(out, allow)
    bad |= ((out < low) | (out > high)) & ~np.isin(out, allow)
    if bad.any():
        at = _first(bad)
        extra = f" or {', '.join(map(str, allow))}" if allow else ""
        raise ValueError(
            f"{name}[{at}] is {out[at]}, wants {_interval(low, high)}{extra}"
        )
    return out


def check_simplex(name: str, p: ArrayLike, shape: tuple[int | str, ...]) -> Array:
    """`p` as probabilities: no entry negative, the last axis sums to one.

    Raises:
        ValueError: wrong shape, an entry outside [0, 1], or a sum that is not one.
    """
    out = check_array(name, p, shape, low=0.0, high=1.0 + SIMPLEX_ATOL)
    total = out.sum(axis=-1)
    off = np.abs(total - 1.0) > SIMPLEX_ATOL
    if off.any():
        at = _first(np.atleast_1d(off))
        row = f" in row {at}" if out.ndim > 1 else ""
        got = np.atleast_1d(total)[at]
        raise ValueError(f"{name} sums to {got}{row}, wants 1 along its last axis")
    return out


def check_counts(name: str, x: ArrayLike, shape: tuple[int | str, ...]) -> IntArray:
    """`x` as integers of at least zero; floats are taken where they are whole.

    Raises:
        ValueError: wrong shape, or an entry that is negative, broken or not finite.
    """
    out = check_array(name, x, shape, low=0.0)
    broken = out != np.floor(out)
    if broken.any():
        at = _first(broken)
        raise ValueError(f"{name}[{at}] is {out[at]}, wants a whole number")
    return out.astype(np.int64)


def check_whole(name: str, n: Any, low: int) -> int:
    """`n` as an int of at least `low`.

    Raises:
        ValueError: not a whole number, or below `low`.
    """
    whole = isinstance(n, (int, np.integer)) and not isinstance(n, (bool, np.bool_))
    if not whole or n < low:
        raise ValueError(f"{name} is {n!r}, wants a whole number of at least {low}")
    return int(n)


def check_scalar(name: str, x: Any, low: float = -np.inf) -> float:
    """`x` as a finite float of at least `low`.

    Raises:
        ValueError: not one real number, not finite, or below `low`.
    """
    return float(check_array(name, x, (), low=low))


def check_rng(rng: Any) -> np.random.Generator:
    """`rng` itself.

    Raises:
        ValueError: not a NumPy Generator.
    """
    if not isinstance(rng, np.random.Generator):
        raise ValueError(
            f"rng is {_brief(rng)}, wants a np.random.Generator, "
            "as np.random.default_rng(0) makes"
        )
    return rng


def _check_shape(name: str, a: Array, shape: tuple[int | str, ...]) -> None:
    want = "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
    wrong = a.ndim != len(shape)
    length: dict[str, int] = {}
    for have, side in zip(a.shape, shape, strict=False):
        want_side = length.setdefault(side, have) if isinstance(side, str) else side
        wrong |= have != want_side or have == 0
    if wrong:
        empty = "; it must not be empty" if a.size == 0 else ""
        raise ValueError(f"{name} has shape {a.shape}, wants {want}{empty}")


def _first(mask: NDArray[np.bool_]) -> Any:
    """Index of the first True: an int for one axis, a tuple for more."""
    index = np.unravel_index(int(np.argmax(mask)), mask.shape)
    return tuple(map(int, index)) if len(index) != 1 else int(index[0])


def _interval(low: float, high: float) -> str:
    if np.isinf(low) and np.isinf(high):
        return "a finite number"
    if np.isinf(high):
        return f"a finite number of at least {low:g}"
    return f"a number from {low:g} to {high:g}"


def _brief(a: object) -> str:
    text = repr(a)
    return text if len(text) <= 60 else f"{text[:57]}..."
