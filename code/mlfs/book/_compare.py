"""Comparing results: numbers, arrays, and tuples, dicts or dataclasses of these.

Each function returns the first trouble it finds as a text, or None.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

KINDS = {
    "b": "booleans",
    "i": "integers",
    "f": "floats",
    "c": "complex numbers",
    "U": "text",
    "O": "Python objects",
}
SCALARS = (bool, int, float, complex, np.generic)
BIG = 60  # entries beyond which an array is summarised
MANY, FEW = 20, 5  # parts beyond which a list is cut, and how many then open it


def misfit(expected: Any, got: Any, path: str = "the result") -> str | None:
    """What is wrong with the form of a result: its kind, number, shape or dtype."""
    if got is None and expected is not None:
        if path == "the result":
            return f"{path} is None: is a return statement missing?"
        return f"{path} is None, wanted {describe(expected)}"
    parts = children(expected)
    if parts is None:
        return _leaf_misfit(expected, got, path)
    theirs = children(got)
    if theirs is None or parts.keys() - theirs.keys() or len(parts) != len(theirs):
        return f"{path} is {describe(got)}, wanted {describe(expected)}"
    below = "result" if path == "the result" else path
    found = (misfit(parts[key], theirs[key], below + key) for key in parts)
    return next((trouble for trouble in found if trouble), None)


def nonfinite(expected: Any, got: Any) -> str | None:
    """Where a result of the right form holds NaN or infinity and should not."""
    for path, e, g in _leaves(expected, got):
        if g.dtype.kind not in "fc" or e.dtype.kind not in "fciub":
            continue
        if np.isfinite(g).all():
            continue
        for word, bad in (
            ("NaN", np.isnan(g) & ~np.isnan(e)),
            ("infinity", np.isinf(g) & np.isfinite(e)),
        ):
            if bad.any():
                first = _at(np.unravel_index(int(bad.argmax()), bad.shape))
                return f"{path} holds {word}{_count(bad)}{first and f', first{first}'}"
    return None


def deviation(expected: Any, got: Any, rtol: float, atol: float) -> str | None:
    """Where a result of the right form is farthest from the expected one."""
    for path, e, g in _leaves(expected, got):
        if not e.ndim and e == g:  # a list may hold thousands, and _close is slow
            continue
        wrong = ~_close(e, g, rtol, atol)
        if wrong.any():
            index = np.unravel_index(int((_distance(e, g) * wrong).argmax()), e.shape)
            want, have = _apart(e[index], g[index])
            most = f" differs{_count(wrong)}"
            most += f", most{_at(index)}" if index else ""
            rough = g.dtype.kind == "f" and g.dtype.itemsize < e.dtype.itemsize
            coarse = f" ({g.dtype} keeps few digits)" if rough else ""
            return f"{path}{most}: expected {want}, got {have}{coarse}"
    return None


def identical(a: Any, b: Any) -> bool:
    """Whether two arguments still hold the same; what has no content counts as same."""
    if a is b:  # of a deep copy: what cannot change
        return True
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        same_form = a.dtype == b.dtype and a.shape == b.shape
        return same_form and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
    if isinstance(a, set):
        return bool(a == b)
    mine, theirs = children(a), children(b)
    if mine is None or theirs is None:
        content = isinstance(a, (str, *SCALARS))
        return type(a) is type(b) and bool(not content or a == b or a != a)
    return list(mine) == list(theirs) and all(
        identical(mine[k], theirs[k]) for k in mine
    )


def children(value: Any) -> dict[str, Any] | None:
    """The parts of a tuple, list, dict or dataclass by how one reaches them."""
    if isinstance(value, tuple | list):
        return {f"[{i}]": part for i, part in enumerate(value)}
    if isinstance(value, Mapping):
        return {f"[{key!r}]": part for key, part in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {f".{f.name}": getattr(value, f.name, None) for f in fields(value)}
    return None


def describe(value: Any) -> str:
    """The kind of a value in a few words, without its content."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Mapping):
        return f"a dict with the keys {', '.join(map(repr, value)) or '(none)'}"
    if value is None:
        return "None"
    if isinstance(value, SCALARS) and not isinstance(value, bool | np.bool_):
        return "a single number"
    return f"of type {type(value).__name__}"


def show(value: Any, name: str = "") -> str:
    """A value as text, each of its parts under the way to reach it.

    A list or tuple of plain values stands on one line; of a long one, the first parts
    and the last are shown.  What has a text `source` is shown by it.
    """
    head = name and f"{name} = "
    if isinstance(getattr(value, "source", None), str):
        return f"{head}{value.source}"
    if isinstance(value, tuple | list) and all(map(_is_plain, value)):
        return head + _on_one_line(value)
    parts = children(value)
    if parts:
        return "\n".join(_cut([show(p, name + key) for key, p in parts.items()]))
    if isinstance(value, np.ndarray) and value.ndim:
        size = f"shape {value.shape}" if value.size > BIG else ""
        head = f"{name}, {size} = " if name and size else head or (size and f"{size}: ")
        return head + np.array2string(
            value,
            precision=4,
            threshold=BIG,
            edgeitems=3 if value.ndim < 3 else 2,
            separator=", ",
            max_line_width=76,
            prefix=head,
        )
    return head + _show_leaf(value)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, (str, *SCALARS))


def _on_one_line(values: Sequence[Any]) -> str:
    inside = ", ".join(_cut([_show_leaf(value) for value in values]))
    if isinstance(values, list):
        return f"[{inside}]"
    return f"({inside},)" if len(values) == 1 else f"({inside})"


def _cut(texts: list[str]) -> list[str]:
    """All texts, or of many the first few and the last."""
    return texts if len(texts) <= MANY else [*texts[:FEW], "…", texts[-1]]


def _show_leaf(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value[()]
    if isinstance(value, float | complex | np.inexact):
        return f"{value:.6g}"
    if value is None or isinstance(value, SCALARS):
        return str(value)
    if isinstance(value, str | list | tuple | dict):
        text = repr(value)
        return text if len(text) < 200 else text[:199] + "…"
    return f"({describe(value)})"  # a repr may hold an address


def _leaf_misfit(expected: Any, got: Any, path: str) -> str | None:
    trouble = f"{path} is {describe(got)}, wanted {describe(expected)}"
    if isinstance(expected, np.ndarray) and expected.ndim:
        if not isinstance(got, np.ndarray):
            return f"{trouble}: return a NumPy array"
        if got.shape != expected.shape:
            turned = got.shape == expected.shape[::-1]
            return f"{path} has shape {got.shape}, wanted {expected.shape}" + (
                ": is it transposed?" if turned else ""
            )
    elif isinstance(expected, SCALARS) or isinstance(expected, np.ndarray):
        if not isinstance(got, SCALARS) and not _is_array(got, ndim=0):
            return trouble
    else:
        return None if type(got) is type(expected) else trouble
    return _kind_misfit(np.asarray(expected), np.asarray(got), path)


def _is_array(value: Any, ndim: int) -> bool:
    return isinstance(value, np.ndarray) and value.ndim == ndim


def _kind_misfit(expected: NDArray[Any], got: NDArray[Any], path: str) -> str | None:
    want, have = (a.dtype.kind.replace("u", "i") for a in (expected, got))
    whole = (want, have) == ("f", "i")
    if want == have or (whole and not expected.ndim):  # 0 for 0.0 does no harm
        return None
    lost = ": integers drop what follows the point" if whole else ""
    return f"{path} holds {KINDS.get(have, have)}, wanted {KINDS.get(want, want)}{lost}"


def _leaves(
    expected: Any, got: Any, path: str = "the result"
) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Pairs of arrays at the same place of two results of one form."""
    parts, theirs = children(expected), children(got)
    if parts is None or theirs is None:
        yield path, np.asarray(expected), np.asarray(got)
        return
    below = "result" if path == "the result" else path
    for key in parts:
        yield from _leaves(parts[key], theirs[key], below + key)


def _close(e: NDArray[Any], g: NDArray[Any], rtol: float, atol: float) -> NDArray[Any]:
    if e.dtype.kind in "fc":
        with np.errstate(all="ignore"):
            near = np.isclose(g, e, rtol=rtol, atol=atol, equal_nan=True)
        return np.asarray(near)
    return np.asarray(e == g, dtype=bool)


def _distance(e: NDArray[Any], g: NDArray[Any]) -> NDArray[np.float64]:
    if e.dtype.kind not in "fciub":
        return np.ones(e.shape)
    wide = np.complex128 if "c" in e.dtype.kind + g.dtype.kind else np.float64
    with np.errstate(all="ignore"):
        far = np.abs(g.astype(wide) - e.astype(wide))
    # a huge number stands for infinity, which times False would be NaN
    return np.nan_to_num(far, nan=1e308, posinf=1e308)


def _apart(want: Any, have: Any) -> tuple[str, str]:
    """Two values as texts with as many digits as it takes to see that they differ."""
    if np.asarray(want).dtype.kind not in "fc":
        return str(want), str(have)
    for digits in (6, 10, 17):
        texts = f"{want:.{digits}g}", f"{have:.{digits}g}"
        if texts[0] != texts[1]:
            break
    return texts


def _count(bad: NDArray[Any]) -> str:
    return f" in {int(bad.sum())} of {bad.size} entries" if bad.ndim else ""


def _at(index: tuple[Any, ...]) -> str:
    return f" at [{', '.join(str(int(i)) for i in index)}]" if index else ""
