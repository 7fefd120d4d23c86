"""Numerical habits shared by every chapter: work in logs, check at the door.

A `check_*` function returns its argument as an array when it is fit for use and raises
a ValueError that names the argument, what it got and what it wants when it is not.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Kind = TypeVar("Kind")

# Sums of probabilities drift from one by rounding only: K terms err by about K * 1e-16.
SIMPLEX_ATOL = 1e-8
# Above this a float no longer tells neighbouring whole numbers apart.
LARGEST_WHOLE = 2**53


def logsumexp(a: Array, axis: int) -> Array:
    """Sum in log space: log Σ exp(a) over `axis`; an all −inf slice gives −inf.

    Raises:
        ValueError: `a` is empty or holds NaN, or has no such axis.
    """
    a = check_real("a", a)
    if a.size == 0 or axis not in range(-a.ndim, a.ndim):
        raise ValueError(
            f"a has shape {a.shape}, axis is {axis!r}, "
            "wants an axis of a, and a not empty"
        )
    top = a.max(axis=axis, keepdims=True)
    if not np.isfinite(top).all():
        if np.isnan(top).any():
            raise ValueError("a holds NaN, wants numbers")
        top = np.where(np.isfinite(top), top, 0.0)
    # log 0 = −inf is the wanted answer, and so is an infinity that was put in.
    with np.errstate(divide="ignore", over="ignore"):
        out: Array = np.log(np.exp(a - top).sum(axis=axis)) + top.squeeze(axis)
    return out


def log_probability(p: Array) -> Array:
    """log p, with log 0 = −inf and no warning.

    Raises:
        ValueError: an entry is negative or not finite.
    """
    p = check_real("p", p)
    _check_entries("p", p, 0.0, np.inf, ())
    with np.errstate(divide="ignore"):
        out: Array = np.log(p)
    return out


def check_real(name: str, a: ArrayLike) -> Array:
    """`a` as a float array of any shape; NaN and the infinities pass.

    Raises:
        ValueError: text, None, dates, complex numbers, objects, ragged rows, or an
            array with masked entries, whose mask would be lost.
    """
    with np.errstate(over="ignore"):  # a long double may not fit: then it is inf
        return np.asarray(_as_numbers(name, a), dtype=np.float64)


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
    out = check_real(name, a)
    _check_shape(name, out, shape)
    _check_entries(name, out, low, high, allow)
    return out


def check_simplex(name: str, p: ArrayLike, shape: tuple[int | str, ...]) -> Array:
    """`p` as probabilities: no entry negative, the last axis sums to one.

    Sums may be off by rounding; then they are put right, so that nothing piles up.

    Raises:
        ValueError: wrong shape, an entry outside [0, 1], or a sum that is not one.
    """
    given = _as_numbers(name, p)
    length = given.shape[-1] if given.ndim else 1
    coarse = np.finfo(given.dtype).eps * length if given.dtype.kind == "f" else 0.0
    atol = max(SIMPLEX_ATOL, float(coarse))  # float32 rounds at 1e-7
    out = check_array(name, given, shape, low=0.0, high=1.0 + atol)
    total = out.sum(axis=-1, keepdims=True)
    error = np.abs(total - 1.0)
    if (error > atol).any():
        at = _first(error > atol)[:-1]
        row = f"{name}[{_index(at)}]" if at else name
        raise ValueError(f"{row} sums to {total[at].item():.12g}, wants a sum of 1")
    # A division may move the last digit again: what is right to it stays as it is.
    return out if (error <= length * 1e-15).all() else out / total


def check_counts(name: str, x: ArrayLike, shape: tuple[int | str, ...]) -> IntArray:
    """`x` as integers of at least zero; floats are taken where they are whole.

    They are of the type that NumPy counts and indexes with: 32 bits in a browser,
    where `np.bincount` and `np.repeat` take no others.

    Raises:
        ValueError: wrong shape, or an entry that is negative, broken, not finite, or
            so large that floats skip whole numbers or the integers end.
    """
    most = min(LARGEST_WHOLE, float(np.iinfo(np.intp).max))
    out = check_array(name, x, shape, low=0.0, high=most)
    broken = out != np.floor(out)
    if broken.any():
        at = _first(broken)
        raise ValueError(f"{name}[{_index(at)}] is {out[at]}, wants a whole number")
    return out.astype(np.intp)


def check_mask(name: str, mask: ArrayLike, shape: tuple[int | str, ...]) -> BoolArray:
    """`mask` as booleans of `shape`; a number is not taken for True or False.

    Raises:
        ValueError: wrong shape, or entries that are not booleans.
    """
    out = _as_numbers(name, mask)
    _check_shape(name, out, shape)
    if out.dtype.kind != "b":
        raise ValueError(f"{name} holds {out.dtype}, wants booleans")
    return out.astype(np.bool_)


def check_list(name: str, items: Any) -> list[Any]:
    """`items` as a list of at least one.

    A bare array is refused: it would be taken apart into its rows.

    Raises:
        ValueError: neither a list nor a tuple, or empty.
    """
    if not isinstance(items, (list, tuple)) or not items:
        raise ValueError(
            f"{name} is {_brief(items)}, wants a list of one or more: "
            "put a single one in brackets"
        )
    return list(items)


def check_whole(name: str, n: Any, low: int) -> int:
    """`n` as an int of at least `low`.

    Raises:
        ValueError: not a whole number, below `low`, or larger than floats can tell.
    """
    # NumPy counts time differences among the integers.
    no_number = (bool, np.bool_, np.timedelta64)
    whole = isinstance(n, (int, np.integer)) and not isinstance(n, no_number)
    if not whole or n < low:
        raise ValueError(
            f"{name} is {_brief(n)}, wants a whole number of at least {low}"
        )
    if n > LARGEST_WHOLE:
        raise ValueError(
            f"{name} is {_brief(n)}, wants a whole number of at most {LARGEST_WHOLE}"
        )
    return int(n)


def check_scalar(
    name: str, x: Any, low: float = -np.inf, high: float = np.inf
) -> float:
    """`x` as a finite float in [low, high].

    Raises:
        ValueError: not one real number, not finite, or outside.
    """
    if isinstance(x, (bool, np.bool_)):
        raise ValueError(f"{name} is {x}, wants a number")
    return float(check_array(name, x, (), low=low, high=high))


def check_type(name: str, it: Any, kind: type[Kind]) -> Kind:
    """`it` itself.

    Raises:
        ValueError: not a `kind`.
    """
    if not isinstance(it, kind):
        raise ValueError(f"{name} is {_brief(it)}, wants an object of {kind.__name__}")
    return it


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


def _as_numbers(name: str, a: ArrayLike) -> NDArray[Any]:
    """`a` as an array of booleans, integers or floats, as narrow as it came."""
    if type(a) is np.ndarray and a.dtype == np.float64:
        return a  # as nearly always: the checks below take longer than small sums
    if np.ma.is_masked(a):
        raise ValueError(f"{name} has masked entries, wants real numbers throughout")
    try:
        out = np.asarray(a)
    except (TypeError, ValueError):  # ragged rows, or an object that is no array
        out = np.empty((), dtype=object)
    if out.dtype.kind not in "biuf":
        raise ValueError(f"{name} is {_brief(a)}, wants an array of real numbers")
    return out


def _check_shape(name: str, a: NDArray[Any], shape: tuple[int | str, ...]) -> None:
    want = "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
    wrong = a.ndim != len(shape)
    length: dict[str, int] = {}
    for have, side in zip(a.shape, shape, strict=False):
        want_side = length.setdefault(side, have) if isinstance(side, str) else side
        wrong |= have != want_side or have == 0
    if wrong:
        empty = "; it must not be empty" if a.size == 0 else ""
        single = " (a single number)" if shape == () else ""
        raise ValueError(f"{name} has shape {a.shape}, wants {want}{single}{empty}")


def _check_entries(
    name: str, a: Array, low: float, high: float, allow: tuple[float, ...]
) -> None:
    if a.size == 0:
        return
    least, most = a.min(), a.max()  # NaN, if there is one: it fails every comparison
    if low <= least and most <= high and np.isfinite(least) and np.isfinite(most):
        return  # two passes tell a good array; which entry is bad takes many
    good = np.isfinite(a) & (low <= a) & (a <= high) | np.isin(a, allow)
    if not good.all():
        at = _first(~good)
        where = f"{name}[{_index(at)}]" if a.ndim else name
        extra = f" or {', '.join(map(str, allow))}" if allow else ""
        raise ValueError(f"{where} is {a[at]}, wants {_interval(low, high)}{extra}")


def _first(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Index of the first True."""
    return tuple(map(int, np.unravel_index(int(np.argmax(mask)), mask.shape)))


def _index(at: tuple[int, ...]) -> str:
    return ", ".join(map(str, at))


def _interval(low: float, high: float) -> str:
    if np.isinf(low) and np.isinf(high):
        return "a finite number"
    if np.isinf(high):
        return f"a finite number of at least {low:g}"
    if np.isinf(low):
        return f"a finite number of at most {high:g}"
    return f"a number from {low:g} to {high:g}"


def _brief(a: object) -> str:
    text = " ".join(repr(a).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
