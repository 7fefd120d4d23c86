"""The derivatives of NumPy: one row for each function, pullbacks in argument order.

Chapter: book/automatic-differentiation/theory.md.  `# eq NAME` marks the row of the
equation labelled NAME there.  In every pullback

    g      cotangent of the result          (shape of out)
    out    the result itself

and what follows are the function's own arguments.  A pullback may return more axes than
its argument has: the tape sums over what broadcasting made.  Where a function has a
kink, the row says which of its subgradients it takes.

Complex numbers: the cotangent of z = a + ib is ∂L/∂a − i ∂L/∂b, so that the rules of
analytic functions hold as they stand.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import special

from mlfs.core.tape import (
    CONSTANT,
    RULES,
    Primitive,
    Pullback,
    Traced,
    may_repeat,
    sum_to,
    unbox,
)

Axis = int | tuple[int, ...] | None

# ------------------------------------------------------------ making rows


def row(
    function: Callable[..., Any],
    *pullbacks: Pullback | None,
    pushforward: str | Callable[..., Any] | None = None,
    key: Any = None,
    name: str | None = None,
) -> Primitive:
    """A Primitive, entered in the table under `key`, the function itself by default."""
    made = Primitive(function, *pullbacks, pushforward=pushforward, name=name)
    RULES[function if key is None else key] = made
    return made


def elementwise(function: Any, *pullbacks: Pullback | None) -> Primitive:
    """A row whose entry i depends on entry i of its arguments only."""
    return row(function, *pullbacks, pushforward="elementwise")


def linear(
    function: Any, *pullbacks: Pullback | None, key: Any = None, name: str | None = None
) -> Primitive:
    """A row that is linear in each of its arguments on its own."""
    return row(function, *pullbacks, pushforward="linear", key=key, name=name)


def instead(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Rows of what is put together from others: call the decorated function instead."""

    def enter(composed: Callable[..., Any]) -> Callable[..., Any]:
        RULES.update(dict.fromkeys(functions, composed))
        return composed

    return enter


# ------------------------------------------------------------ one entry at a time


def _over(a: Any, b: Any) -> Any:
    """a / b, and zero where b is zero."""
    gone = unbox(b) == 0
    return np.where(gone, 0.0, a) / np.where(gone, 1.0, b) if np.any(gone) else a / b


def _power_base(g: Any, out: Any, a: Any, b: Any) -> Any:
    """g b a^(b−1); a constant a⁰ has slope zero, also at a = 0."""
    still = unbox(b) == 0
    if np.any(still):
        return g * b * np.power(a, np.where(still, 1.0, b) - 1.0)
    return g * b * np.power(a, b - 1)


def _power_exponent(g: Any, out: Any, a: Any, b: Any) -> Any:
    """g a^b log a; at a = 0 the power is flat in b."""
    if np.any(unbox(a) < 0):
        raise ValueError(
            "power: the base has negative entries, wants none where the exponent is "
            "differentiated, since a^b is not real between whole b"
        )
    return g * out * np.log(np.where(unbox(a) == 0, 1.0, a))


def _larger(g: Any, out: Any, a: Any, b: Any) -> Any:
    """g where a won; half of it at a tie."""
    a, b, value = unbox(a), unbox(b), unbox(out)
    return g * (0.5 * (a == value) * (1 + (a != b))).astype(value.dtype)


def _finite(out: Any) -> Any:
    """`out`, with 0 for an infinity: e^(a − out) is then 0 where a is −inf, not NaN."""
    good = np.isfinite(unbox(out))
    return out if np.all(good) else np.where(good, out, 0.0)


def _bell(x: Any) -> Any:
    """The slope of erf, 2/√π e^(−x²)."""
    return 2 / math.sqrt(math.pi) * np.exp(-x * x)


# one entry at a time, in one line each
elementwise(np.add, lambda g, out, a, b: g, lambda g, out, a, b: g)
elementwise(np.subtract, lambda g, out, a, b: g, lambda g, out, a, b: -g)
elementwise(np.multiply, lambda g, out, a, b: g * b, lambda g, out, a, b: g * a)
elementwise(np.divide, lambda g, out, a, b: g / b, lambda g, out, a, b: -g * out / b)
elementwise(np.power, _power_base, _power_exponent)
elementwise(np.negative, lambda g, out, x: -g)
elementwise(np.positive, lambda g, out, x: g)
elementwise(np.square, lambda g, out, x: g * (2 * x))
elementwise(np.reciprocal, lambda g, out, x: -g * out * out)
elementwise(np.sqrt, lambda g, out, x: g * 0.5 / out)
elementwise(np.exp, lambda g, out, x: g * out)
elementwise(np.exp2, lambda g, out, x: g * out * math.log(2))
elementwise(np.expm1, lambda g, out, x: g * (out + 1))
elementwise(np.log, lambda g, out, x: g / x)
elementwise(np.log2, lambda g, out, x: g / (x * math.log(2)))
elementwise(np.log10, lambda g, out, x: g / (x * math.log(10)))
elementwise(np.log1p, lambda g, out, x: g / (1 + x))
elementwise(np.sin, lambda g, out, x: g * np.cos(x))
elementwise(np.cos, lambda g, out, x: -g * np.sin(x))
elementwise(np.tan, lambda g, out, x: g * (1 + out * out))
elementwise(np.sinh, lambda g, out, x: g * np.cosh(x))
elementwise(np.cosh, lambda g, out, x: g * np.sinh(x))
elementwise(np.tanh, lambda g, out, x: g * (1 - out * out))
elementwise(np.arctan, lambda g, out, x: g / (1 + x * x))
elementwise(np.arcsin, lambda g, out, x: g / np.sqrt(1 - x * x))
elementwise(np.arccos, lambda g, out, x: -g / np.sqrt(1 - x * x))
elementwise(np.maximum, _larger, lambda g, out, a, b: _larger(g, out, b, a))
elementwise(np.minimum, _larger, lambda g, out, a, b: _larger(g, out, b, a))
elementwise(special.expit, lambda g, out, x: g * (out * (1 - out)))
elementwise(special.erf, lambda g, out, x: g * _bell(x))
elementwise(special.erfc, lambda g, out, x: -g * _bell(x))
elementwise(special.gammaln, lambda g, out, x: g * special.psi(x))
elementwise(special.psi, lambda g, out, x: g * _zeta(2.0, x))
# those that need a word
elementwise(
    np.arctan2,
    lambda g, out, a, b: g * b / (a * a + b * b),
    lambda g, out, a, b: -g * a / (a * a + b * b),
)
elementwise(
    np.logaddexp,
    lambda g, out, a, b: g * np.exp(a - _finite(out)),
    lambda g, out, a, b: g * np.exp(b - _finite(out)),
)
elementwise(
    np.where,
    None,
    lambda g, out, c, a, b: np.where(c, g, 0.0),
    lambda g, out, c, a, b: np.where(c, 0.0, g),
)
# ψ′(x) = ζ(2, x), and ∂ζ(s, x)/∂x = −s ζ(s + 1, x): derivatives of every order
_zeta: Primitive = Primitive(
    special.zeta,
    None,
    lambda g, out, s, x: -g * s * _zeta(s + 1.0, x),
    pushforward="elementwise",
)


def _absolute(g: Any, out: Any, x: Any) -> Any:
    """g sign x; at zero, 0."""
    if x.dtype.kind == "c":
        return g * _over(np.conj(x), out)
    return g * np.sign(x)


row(np.absolute, _absolute)


# astype, real, imag and conj are linear over the real numbers
def _cast_pullback(g: Any, out: Any, x: Any, *, dtype: Any) -> Any:
    return astype(np.real(g) if x.dtype.kind == "f" else g, x.dtype)


_cast = linear(
    lambda x, *, dtype: x.astype(dtype),
    _cast_pullback,
    key=("primitive", "astype"),
    name="astype",
)


@instead(getattr(np, "astype", "astype"), ("method", "astype"))  # new in NumPy 2.1
def astype(x: Any, dtype: Any) -> Any:
    """`x` in another type of number; whole numbers have no derivative.

    Raises:
        ValueError: a complex `x` would lose its imaginary part.
    """
    dtype = np.dtype(dtype)
    if dtype.kind not in "fc":
        return unbox(x).astype(dtype)
    if x.dtype.kind == "c" and dtype.kind == "f":
        raise ValueError(
            f"astype: x is {x.dtype}, wants real numbers to make {dtype} of; take "
            "np.real(x), or np.abs(x)"
        )
    return x if x.dtype == dtype else _cast(x, dtype=dtype)


def _complex(g: Any) -> Any:
    return astype(g, np.result_type(g.dtype, np.complex64))


linear(np.real, lambda g, out, z: _complex(g) if z.dtype.kind == "c" else g)
linear(np.imag, lambda g, out, z: -1j * _complex(g))
linear(np.conjugate, lambda g, out, z: np.conjugate(g))


@instead(np.clip, ("method", "clip"))
def clip(a: Any, a_min: Any = None, a_max: Any = None) -> Any:
    """`a` held between the bounds; on a bound itself, half the slope."""
    a = a if a_min is None else np.maximum(a, a_min)
    return a if a_max is None else np.minimum(a, a_max)


@instead(np.copy, ("method", "copy"))
def copy(a: Any) -> Any:
    """`a` itself: a traced value is never written to."""
    return a


# ------------------------------------------------------------ sums and their like


def _axes(axis: Axis, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    return tuple(i % ndim for i in (axis if isinstance(axis, tuple) else (axis,)))


def _back(g: Any, x: Any, axis: Axis, keepdims: bool) -> Any:
    """`g`, a sum's cotangent, with the summed axes back as axes of length one."""
    if keepdims or not x.ndim:
        return g
    gone = _axes(axis, x.ndim)
    return np.reshape(g, [1 if i in gone else n for i, n in enumerate(x.shape)])


def _sum_pullback(g: Any, out: Any, x: Any, *, axis: Axis, keepdims: bool) -> Any:
    back = _back(g, x, axis, keepdims)
    if isinstance(back, Traced):
        return np.broadcast_to(back, x.shape)
    spread = np.empty(x.shape, back.dtype)  # a third of the time of broadcast_to
    spread[...] = back  # eq ad-sum
    return spread


_sum = linear(np.sum, _sum_pullback, key=("primitive", "sum"), name="sum")


@instead(np.sum, ("method", "sum"))
def sum_(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """Σ a over `axis`."""
    return _sum(a, axis=axis, keepdims=keepdims)


@instead(np.mean, ("method", "mean"))
def mean(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """Σ a / n over `axis`."""
    n = math.prod(a.shape[i] for i in _axes(axis, a.ndim))
    return _sum(a, axis=axis, keepdims=keepdims) * (1 / n)


@instead(np.var, ("method", "var"))
def var(a: Any, axis: Axis = None, *, ddof: float = 0, keepdims: bool = False) -> Any:
    """Σ (a − mean)² / (n − ddof) over `axis`."""
    n = math.prod(a.shape[i] for i in _axes(axis, a.ndim))
    away = a - mean(a, axis, keepdims=True)
    return np.sum(np.square(away), axis=axis, keepdims=keepdims) * (1 / (n - ddof))


def _root(x: Any) -> Any:
    return np.sqrt(x)


# √ whose slope at zero is taken to be 0: of norms and standard deviations, which have a
# kink there, it is the shortest subgradient
_kinked_root = row(
    _root,
    lambda g, out, x: _over(0.5 * g, out),
    pushforward="elementwise",
    key=("primitive", "kinked root"),
    name="sqrt",
)


@instead(np.std, ("method", "std"))
def std(a: Any, axis: Axis = None, *, ddof: float = 0, keepdims: bool = False) -> Any:
    """√ of the variance; slope 0 where all entries are equal."""
    return _kinked_root(var(a, axis, ddof=ddof, keepdims=keepdims))


def _extreme_pullback(g: Any, out: Any, x: Any, *, axis: Axis, keepdims: bool) -> Any:
    """g to the entry that won, in equal parts where several did."""
    top = _back(unbox(out), unbox(x), axis, keepdims)
    won = (unbox(x) == top).astype(x.dtype)
    share = won / won.sum(axis=axis, keepdims=True, dtype=x.dtype)
    return _back(g, x, axis, keepdims) * share


_max = row(np.max, _extreme_pullback, key=("primitive", "max"), name="max")
_min = row(np.min, _extreme_pullback, key=("primitive", "min"), name="min")


@instead(np.max, np.amax, ("method", "max"))
def max_(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """The largest entry over `axis`."""
    return _max(a, axis=axis, keepdims=keepdims)


@instead(np.min, np.amin, ("method", "min"))
def min_(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """The smallest entry over `axis`."""
    return _min(a, axis=axis, keepdims=keepdims)


def _product_of_others(x: Any) -> Any:
    """At each place, the product over the last axis of all other entries; O(n²).

    This form can be differentiated again; `_plain_others` needs n operations.
    """
    n = x.shape[-1]
    return np.prod(np.where(np.eye(n, dtype=bool), 1.0, x[..., None, :]), axis=-1)


def _plain_others(x: Any) -> Any:
    """The same from the products of all before and of all behind, without division."""
    ahead, behind = np.ones_like(x), np.ones_like(x)
    np.cumprod(x[..., :-1], axis=-1, out=ahead[..., 1:])
    np.cumprod(x[..., :0:-1], axis=-1, out=behind[..., -2::-1])
    return ahead * behind


def _prod_pullback(g: Any, out: Any, x: Any) -> Any:
    """The slope in one entry is the product of the others, also where some are zero.

    Dividing by the entry would fail there, and where the product underflows.
    """
    others = _product_of_others if isinstance(x, Traced) else _plain_others
    return g[..., None] * others(x)


def _last_prod(x: Any) -> Any:
    return np.prod(x, axis=-1)


_prod = row(_last_prod, _prod_pullback, key=("primitive", "prod"), name="prod")


@instead(np.prod, ("method", "prod"))
def prod(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """Π a over `axis`."""
    gone = _axes(axis, a.ndim)
    stay = [i for i in range(a.ndim) if i not in gone]
    rows = np.transpose(a, (*stay, *gone)).reshape(*(a.shape[i] for i in stay), -1)
    out = _prod(rows)
    if keepdims:
        return np.reshape(out, [1 if i in gone else n for i, n in enumerate(a.shape)])
    return out


_cumsum = linear(
    np.cumsum,
    lambda g, out, x, *, axis: np.flip(np.cumsum(np.flip(g, axis), axis=axis), axis),
    key=("primitive", "cumsum"),
    name="cumsum",
)


@instead(np.cumsum, ("method", "cumsum"))
def cumsum(a: Any, axis: int | None = None) -> Any:
    """Sums of all entries so far, along `axis`; of the flattened array by default."""
    return _cumsum(np.ravel(a), axis=0) if axis is None else _cumsum(a, axis=axis)


# ------------------------------------------------------------ logs of sums


def _plain_logsumexp(a: Any, *, axis: Axis, keepdims: bool) -> Any:
    top = np.max(a, axis=axis, keepdims=True)
    if not np.isfinite(top).all():
        if np.isnan(top).any():
            raise ValueError("a holds NaN, wants numbers")
        top = np.where(np.isfinite(top), top, a.dtype.type(0))
    # log 0 = −inf is the wanted answer where every entry is −inf
    with np.errstate(divide="ignore", over="ignore"):
        out = np.log(np.sum(np.exp(a - top), axis=axis, keepdims=True)) + top
    return out if keepdims else np.squeeze(out, _axes(axis, a.ndim))


def _logsumexp_pullback(g: Any, out: Any, a: Any, *, axis: Axis, keepdims: bool) -> Any:
    total = _back(_finite(out), a, axis, keepdims)
    return _back(g, a, axis, keepdims) * np.exp(a - total)  # eq ad-logsumexp


_logsumexp = Primitive(_plain_logsumexp, _logsumexp_pullback, name="logsumexp")


def _finite_top(a: Any, axis: int) -> Any:
    """The largest entries over `axis`, of which each must be a number.

    Raises:
        ValueError: a slice holds NaN or +inf, or nothing but −inf: it has no softmax.
    """
    top = np.max(a, axis=axis, keepdims=True)
    if not np.isfinite(top).all():
        bad = top[~np.isfinite(top)][0]
        raise ValueError(
            f"a has {bad} as the largest entry of a slice, wants a finite number"
        )
    return top


def _plain_softmax(a: Any, *, axis: int) -> Any:
    e = np.exp(a - _finite_top(a, axis))
    return e / np.sum(e, axis=axis, keepdims=True)


_softmax = Primitive(
    _plain_softmax,
    lambda g, out, a, *, axis: out * (g - np.sum(g * out, axis=axis, keepdims=True)),
    name="softmax",
)


def _plain_log_softmax(a: Any, *, axis: int) -> Any:
    away = a - _finite_top(a, axis)
    return away - np.log(np.sum(np.exp(away), axis=axis, keepdims=True))


_log_softmax = Primitive(
    _plain_log_softmax,
    lambda g, out, a, *, axis: g - np.exp(out) * np.sum(g, axis=axis, keepdims=True),
    name="log_softmax",
)


def logsumexp(a: Any, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """log Σ exp(a) over `axis`, of plain and of traced arrays (unlike SciPy's).

    An all −inf slice gives −inf.

    Raises:
        ValueError: `a` is empty or no array of floats, or has no such axis.
    """
    a = _floats("a", a)
    _check_axis(axis, a)
    return _logsumexp(a, axis=axis, keepdims=keepdims)


def softmax(a: Any, axis: int = -1) -> Any:
    """exp(a) / Σ exp(a) over `axis`, of plain and of traced arrays.

    Raises:
        ValueError: `a` is empty or no array of floats, or has no such axis.
    """
    a = _floats("a", a)
    _check_axis(axis, a)
    return _softmax(a, axis=axis)


def log_softmax(a: Any, axis: int = -1) -> Any:
    """a − log Σ exp(a) over `axis`, of plain and of traced arrays.

    Raises:
        ValueError: `a` is empty or no array of floats, or has no such axis.
    """
    a = _floats("a", a)
    _check_axis(axis, a)
    return _log_softmax(a, axis=axis)


def _check_axis(axis: Any, a: Any) -> None:
    for i in axis if isinstance(axis, tuple) else (axis,):
        if i is not None and not (isinstance(i, int) and -a.ndim <= i < a.ndim):
            raise ValueError(f"axis is {axis!r}, wants an axis of a, {a.shape}")


def _floats(name: str, a: Any) -> Any:
    """`a`, as an array of floats with entries.

    Raises:
        ValueError: it is empty, or its entries are no floats.
    """
    if not hasattr(a, "dtype"):
        a = np.asarray(a)
    if a.dtype.kind in "biu":
        a = a.astype(np.float64)
    if a.dtype.kind != "f" or a.size == 0:
        raise ValueError(
            f"{name} has shape {a.shape} of {a.dtype}, wants floats, and not empty"
        )
    return a


# ------------------------------------------------------------ shapes


_reshape = linear(
    lambda x, *, shape: np.reshape(x, shape),  # a keyword of NumPy since 2.1 only
    lambda g, out, x, *, shape: np.reshape(g, x.shape),
    key=("primitive", "reshape"),
    name="reshape",
)


@instead(np.reshape)
def reshape(a: Any, shape: Any) -> Any:
    """The same entries in another shape."""
    return _reshape(a, shape=shape)


def _method_reshape(a: Any, *shape: Any) -> Any:
    return _reshape(a, shape=shape[0] if len(shape) == 1 else shape)


RULES["method", "reshape"] = _method_reshape


@instead(np.ravel, ("method", "ravel"), ("method", "flatten"))
def ravel(a: Any) -> Any:
    """All entries in one row."""
    return _reshape(a, shape=(-1,))


@instead(np.expand_dims)
def expand_dims(a: Any, axis: Any) -> Any:
    """`a` with new axes of length one."""
    axes = axis if isinstance(axis, tuple) else (axis,)
    ndim = a.ndim + len(axes)
    new = [i % ndim for i in axes]
    lengths = iter(a.shape)
    return _reshape(a, shape=[1 if i in new else next(lengths) for i in range(ndim)])


@instead(np.squeeze, ("method", "squeeze"))
def squeeze(a: Any, axis: Axis = None) -> Any:
    """`a` without axes of length one."""
    return _reshape(a, shape=np.squeeze(unbox(a), axis).shape)


def _transpose_pullback(g: Any, out: Any, x: Any, *, axes: Any) -> Any:
    back = None if axes is None else np.argsort([i % x.ndim for i in axes])
    return np.transpose(g, back)


_transpose = linear(
    np.transpose, _transpose_pullback, key=("primitive", "transpose"), name="transpose"
)


@instead(np.transpose, np.permute_dims)
def transpose(a: Any, axes: Any = None) -> Any:
    """`a` with its axes in another order, reversed by default."""
    return _transpose(a, axes=None if axes is None else tuple(axes))


def _method_transpose(a: Any, *axes: Any) -> Any:
    if len(axes) == 1 and not isinstance(axes[0], int):
        axes = axes[0] or ()
    return _transpose(a, axes=tuple(axes) or None)


RULES["method", "transpose"] = _method_transpose
RULES["property", "T"] = transpose
RULES["property", "mT"] = lambda a: swapaxes(a, -1, -2)
RULES["property", "real"] = np.real
RULES["property", "imag"] = np.imag
RULES["method", "conj"] = RULES["method", "conjugate"] = np.conjugate


@instead(np.swapaxes, ("method", "swapaxes"))
def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    """`a` with two axes exchanged."""
    axes = list(range(a.ndim))
    axes[axis1], axes[axis2] = axes[axis2], axes[axis1]
    return _transpose(a, axes=tuple(axes))


@instead(np.moveaxis)
def moveaxis(a: Any, source: Any, destination: Any) -> Any:
    """`a` with axes moved elsewhere."""
    sources = _axes(source if isinstance(source, int) else tuple(source), a.ndim)
    places = _axes(
        destination if isinstance(destination, int) else tuple(destination), a.ndim
    )
    axes = [i for i in range(a.ndim) if i not in sources]
    for place, axis in sorted(zip(places, sources, strict=True)):
        axes.insert(place, axis)
    return _transpose(a, axes=tuple(axes))


_broadcast_to = linear(
    np.broadcast_to,
    lambda g, out, x, *, shape: sum_to(g, x.shape),
    key=("primitive", "broadcast_to"),
    name="broadcast_to",
)


@instead(np.broadcast_to)
def broadcast_to(array: Any, shape: Any) -> Any:
    """`array` repeated along new axes and axes of length one."""
    return _broadcast_to(array, shape=shape)


# ------------------------------------------------------------ picking and joining


def _getitem(x: Any, index: Any) -> Any:
    return x[index]


def _scatter(g: Any, *, index: Any, like: Any) -> Any:
    """Zeros in the shape of `like`, plus g at `index`, as often as it names a place."""
    out = np.zeros(like.shape, g.dtype)
    if may_repeat(index):
        np.add.at(out, index, g)
    else:
        out[index] = g
    return out


scatter = linear(
    _scatter,
    lambda g, out, x, *, index, like: g[index],
    key="scatter",
    name="scatter",
)
_pick = row(
    _getitem,
    lambda g, out, x, index: scatter(g, index=index, like=x),  # eq ad-index
    None,
    pushforward="linear",
    key=("primitive", "getitem"),
    name="getitem",
)


_pick.is_index = True


@instead("getitem")
def getitem(x: Any, index: Any) -> Any:
    """x[index], for every index that NumPy knows."""
    return _pick(x, unbox(index))


@instead(np.take, ("method", "take"))
def take(a: Any, indices: Any, axis: int | None = None) -> Any:
    """Entries of `a` by number along `axis`."""
    if axis is None:
        return np.ravel(a)[indices]
    return a[(slice(None),) * (axis % a.ndim) + (indices,)]


@instead(np.take_along_axis)
def take_along_axis(arr: Any, indices: Any, axis: int = -1) -> Any:
    """At each place the entry of `arr` whose number along `axis` stands there."""
    indices = unbox(indices)
    grid = list(np.ogrid[tuple(slice(n) for n in indices.shape)])
    grid[axis] = indices
    return arr[tuple(grid)]


@instead(np.sort)
def sort(a: Any, axis: int = -1) -> Any:
    """`a` in ascending order; the derivative follows each entry to its new place."""
    return take_along_axis(a, np.argsort(unbox(a), axis=axis, kind="stable"), axis)


@instead(np.flip)
def flip(m: Any, axis: Axis = None) -> Any:
    """`m` with the order of entries along `axis` reversed."""
    turned = _axes(axis, m.ndim)
    return m[tuple(slice(None, None, -1 if i in turned else 1) for i in range(m.ndim))]


@instead(np.roll)
def roll(a: Any, shift: int, axis: int | None = None) -> Any:
    """`a` with its entries moved along `axis`, those pushed out coming in again."""
    if axis is None:
        return np.reshape(roll(np.ravel(a), shift, 0), a.shape)
    return take(a, (np.arange(a.shape[axis]) - shift) % a.shape[axis], axis)


@instead(np.repeat, ("method", "repeat"))
def repeat(a: Any, repeats: Any, axis: int | None = None) -> Any:
    """Each entry several times in a row."""
    if axis is None:
        return repeat(np.ravel(a), repeats, 0)
    return take(a, np.repeat(np.arange(a.shape[axis]), repeats), axis)


@instead(np.tile)
def tile(A: Any, reps: Any) -> Any:
    """The whole of `A` several times along each axis."""
    times: tuple[Any, ...] = tuple(reps) if np.ndim(reps) else (reps,)
    ndim = max(len(times), A.ndim)
    shape = (1,) * (ndim - A.ndim) + A.shape
    times = (*(1,) * (ndim - len(times)), *times)
    wide = [part for n, t in zip(shape, times, strict=True) for part in (t, n)]
    thin = [part for n in shape for part in (1, n)]
    many = np.broadcast_to(np.reshape(A, thin), wide)
    return np.reshape(many, [n * t for n, t in zip(shape, times, strict=True)])


class _EveryArgument(Sequence[Pullback]):
    """Pullbacks of any number of arguments, all by one function of their number."""

    def __init__(self, pullback: Callable[..., Any]) -> None:
        self.pullback = pullback

    def __len__(self) -> int:
        return 2**31

    def __getitem__(self, i: Any) -> Any:
        return lambda g, out, *args, **options: self.pullback(
            i, g, out, *args, **options
        )


def _join(*arrays: Any, axis: int) -> Any:
    return np.concatenate(arrays, axis)


def _join_pullback(i: int, g: Any, out: Any, *arrays: Any, axis: int) -> Any:
    lengths = [np.shape(a)[axis] for a in arrays[: i + 1]]
    stop = sum(lengths)
    piece: list[Any] = [slice(None)] * out.ndim
    piece[axis] = slice(stop - lengths[-1], stop)
    return g[tuple(piece)]


def _join_pushforward(
    tangents: dict[int, Any], out: Any, *arrays: Any, axis: int
) -> Any:
    still = (np.zeros(np.shape(a), out.dtype) for a in arrays)
    moving = [tangents.get(i, zero) for i, zero in enumerate(still)]
    return np.concatenate(moving, axis)


_concatenate = row(
    _join,
    pushforward=_join_pushforward,
    key=("primitive", "concatenate"),
    name="concatenate",
)
_concatenate.pullbacks = _EveryArgument(_join_pullback)


@instead(np.concatenate)
def concatenate(arrays: Any, axis: int | None = 0) -> Any:
    """Arrays one after the other along `axis`."""
    if axis is None:
        return _concatenate(*map(np.ravel, arrays), axis=0)
    return _concatenate(*arrays, axis=axis)


@instead(np.stack)
def stack(arrays: Any, axis: int = 0) -> Any:
    """Arrays of one shape along a new axis."""
    return concatenate([np.expand_dims(a, axis) for a in arrays], axis)


@instead(np.vstack)
def vstack(tup: Any) -> Any:
    """Rows on top of each other."""
    return concatenate([a if np.ndim(a) > 1 else np.reshape(a, (1, -1)) for a in tup])


@instead(np.hstack)
def hstack(tup: Any) -> Any:
    """Columns beside each other, or vectors end to end."""
    arrays = [a if np.ndim(a) else np.reshape(a, (1,)) for a in tup]
    return concatenate(arrays, 0 if np.ndim(arrays[0]) == 1 else 1)


@instead(np.split, np.array_split)
def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Any]:
    """Consecutive pieces of `ary` along `axis`."""
    n = ary.shape[axis]
    numbers = np.split(np.arange(n), indices_or_sections)
    before = (slice(None),) * (axis % ary.ndim)
    ends = np.cumsum([len(piece) for piece in numbers]).tolist()
    starts = [0, *ends[:-1]]
    return [ary[(*before, slice(a, b))] for a, b in zip(starts, ends, strict=True)]


RULES[np.array_split] = lambda ary, indices_or_sections, axis=0: split(
    ary, _array_split_points(ary.shape[axis], indices_or_sections), axis
)


def _array_split_points(n: int, sections: Any) -> Any:
    if np.ndim(sections):
        return sections
    pieces = np.array_split(np.arange(n), sections)
    return np.cumsum([len(piece) for piece in pieces])[:-1]


@instead(np.pad)
def pad(
    array: Any, pad_width: Any, mode: str = "constant", *, constant_values: float = 0
) -> Any:
    """`array` with a constant frame around it.

    Raises:
        NotImplementedError: a frame of another kind.
    """
    if mode != "constant" or np.ndim(constant_values):
        raise NotImplementedError(
            f"np.pad with mode={mode!r} cannot be differentiated, only a frame of one "
            "constant; build others with np.concatenate"
        )
    return _pad(
        array,
        width=tuple(map(tuple, np.broadcast_to(pad_width, (array.ndim, 2)).tolist())),
        value=constant_values,
    )


def _framed(x: Any, *, width: Any, value: float) -> Any:
    return np.pad(x, width, constant_values=value)


_pad = row(
    _framed,
    lambda g, out, x, *, width, value: g[
        tuple(slice(a, a + n) for (a, _), n in zip(width, x.shape, strict=True))
    ],
    pushforward=lambda tangents, out, x, *, width, value: np.pad(tangents[0], width),
    key=("primitive", "pad"),
    name="pad",
)


@instead(np.diagonal, ("method", "diagonal"))
def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """Entries whose numbers on two axes differ by `offset`, along the last axis."""
    a = np.moveaxis(a, (axis1, axis2), (-2, -1))
    n, m = a.shape[-2:]
    i = np.arange(max(0, -offset), min(n, m - offset))
    return a[..., i, i + offset]


@instead(np.trace, ("method", "trace"))
def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
    """The sum of a diagonal."""
    return np.sum(diagonal(a, offset, axis1, axis2), axis=-1)


@instead(np.diag)
def diag(v: Any, k: int = 0) -> Any:
    """The diagonal of a matrix, or the matrix of a diagonal."""
    if v.ndim == 2:
        return diagonal(v, k)
    n = v.shape[0] + abs(k)
    i = np.arange(v.shape[0])
    index = (i + max(0, -k), i + max(0, k))
    return scatter(v, index=index, like=np.empty((n, n), v.dtype))


@instead(np.tril)
def tril(m: Any, k: int = 0) -> Any:
    """`m` with zeros above its k-th diagonal."""
    return np.where(_lower(m, k), m, 0.0)


@instead(np.triu)
def triu(m: Any, k: int = 0) -> Any:
    """`m` with zeros below its k-th diagonal."""
    return np.where(_lower(m, k - 1), 0.0, m)


def _lower(m: Any, k: int) -> Any:
    """Where in a matrix the entries on and below the k-th diagonal are."""
    n, columns = m.shape[-2:]
    return np.tri(n, columns, k, dtype=np.bool_)


# ------------------------------------------------------------ products of matrices


def _matmul_left(g: Any, out: Any, a: Any, b: Any) -> Any:
    return g @ np.swapaxes(b, -1, -2)  # eq ad-matmul


def _matmul_right(g: Any, out: Any, a: Any, b: Any) -> Any:
    if b.ndim == 2 and a.ndim > 2:  # one large product, not a sum over many small ones
        a = np.reshape(a, (-1, a.shape[-1]))
        g = np.reshape(g, (-1, g.shape[-1]))
    return np.swapaxes(a, -1, -2) @ g


_matmul = linear(
    np.matmul, _matmul_left, _matmul_right, key=("primitive", "matmul"), name="matmul"
)


@instead(np.matmul)
def matmul(x1: Any, x2: Any) -> Any:
    """x1 @ x2; a vector is a row on the left and a column on the right."""
    x1, x2 = _arrays(x1, x2)
    if x1.ndim >= 2 <= x2.ndim:
        return _matmul(x1, x2)
    left = x1[None, :] if x1.ndim == 1 else x1
    right = x2[:, None] if x2.ndim == 1 else x2
    out = _matmul(left, right)
    index: tuple[Any, ...] = (...,)
    index += (0,) if x1.ndim == 1 else (slice(None),)
    return out[index + ((0,) if x2.ndim == 1 else (slice(None),))]


def _arrays(*values: Any) -> list[Any]:
    return [v if hasattr(v, "ndim") else np.asarray(v) for v in values]


@instead(np.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """Sums of products over pairs of axes, as one product of matrices."""
    if isinstance(axes, int):
        axes = list(range(-axes, 0)), list(range(axes))
    pairs = [[side] if isinstance(side, int) else list(side) for side in axes]
    over_a = [i % a.ndim for i in pairs[0]]
    over_b = [i % b.ndim for i in pairs[1]]
    free_a = [i for i in range(a.ndim) if i not in over_a]
    free_b = [i for i in range(b.ndim) if i not in over_b]
    n = math.prod(a.shape[i] for i in over_a)
    left = np.reshape(np.transpose(a, (*free_a, *over_a)), (-1, n))
    right = np.reshape(np.transpose(b, (*over_b, *free_b)), (n, -1))
    shape = [a.shape[i] for i in free_a] + [b.shape[i] for i in free_b]
    return np.reshape(left @ right, shape)


@instead(np.dot, ("method", "dot"))
def dot(a: Any, b: Any) -> Any:
    """The product of vectors, matrices, or of last and second-to-last axes."""
    a, b = _arrays(a, b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    if a.ndim <= 2 >= b.ndim:
        return matmul(a, b)
    return tensordot(a, b, (-1, -1 if b.ndim == 1 else -2))


@instead(np.vdot)
def vdot(a: Any, b: Any) -> Any:
    """Σ conj(a) b over all entries."""
    return np.sum(np.conjugate(np.ravel(a)) * np.ravel(b))


@instead(np.inner)
def inner(a: Any, b: Any) -> Any:
    """Sums of products over the last axes."""
    a, b = _arrays(a, b)
    return a * b if 0 in (a.ndim, b.ndim) else tensordot(a, b, (-1, -1))


@instead(np.outer)
def outer(a: Any, b: Any) -> Any:
    """All products of an entry of `a` and one of `b`."""
    return np.reshape(a, (-1, 1)) * np.reshape(b, (1, -1))


def _letters(subscripts: str, operands: Sequence[Any]) -> tuple[list[str], str]:
    """One letter for each axis of each operand and of the result; dots written out."""
    left, arrow, right = subscripts.replace(" ", "").partition("->")
    names = left.split(",")
    if len(names) != len(operands):
        raise ValueError(
            f"einsum: subscripts {subscripts!r} name {len(names)} operands, "
            f"got {len(operands)}"
        )
    free = [c for c in "ZYXWVUTSRQPONMLKJIHGFEDCBA" if c not in subscripts]
    extra = [
        np.ndim(x) - len(s.replace("...", "")) if "..." in s else 0
        for s, x in zip(names, operands, strict=True)
    ]
    dots = "".join(free[: max(extra)])
    full = [
        s.replace("...", dots[len(dots) - n :])
        for s, n in zip(names, extra, strict=True)
    ]
    if not arrow:
        every = "".join(full)
        right = "..." * bool(dots) + "".join(
            sorted(c for c in set(every) if every.count(c) == 1 and c not in dots)
        )
    return full, right.replace("...", dots)


def _einsum(*operands: Any, names: tuple[str, ...], result: str, optimize: Any) -> Any:
    return np.einsum(",".join(names) + "->" + result, *operands, optimize=optimize)


def _einsum_pullback(
    i: int,
    g: Any,
    out: Any,
    *operands: Any,
    names: tuple[str, ...],
    result: str,
    optimize: Any,
) -> Any:
    """The sum with g in the place of operand i, and i's letters as the result's.

    Two things can go wrong, and a factor that changes nothing mends both.  A letter
    that only operand i has is summed over: ones bring it back.  A letter that i has
    twice picks a diagonal: an identity matrix spreads it out again.
    """
    others = [x for k, x in enumerate(operands) if k != i]
    letters = [s for k, s in enumerate(names) if k != i]
    mine, factors = "", []
    unused = (c for c in map(chr, range(192, 592)) if c.isalpha())
    for c, n in zip(names[i], operands[i].shape, strict=True):
        if c in mine:
            twin = next(unused)
            factors.append((c + twin, np.eye(n, dtype=g.dtype)))
            c = twin
        elif c not in result and not any(c in s for s in letters):
            factors.append((c, np.ones(n, dtype=g.dtype)))
        mine += c
    spelled = [result, *letters, *(s for s, _ in factors)]
    arrays = [g, *others, *(x for _, x in factors)]
    plain = _plain_letters(spelled, mine)
    return np.einsum(plain, *arrays, optimize=optimize)


def _plain_letters(spelled: list[str], result: str) -> str:
    """Subscripts in which every letter is one that NumPy takes."""
    used = dict.fromkeys("".join(spelled) + result)
    alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    table = str.maketrans(dict(zip(used, alphabet, strict=False)))
    return (",".join(spelled) + "->" + result).translate(table)


_einsum_row = linear(_einsum, key=("primitive", "einsum"), name="einsum")
_einsum_row.pullbacks = _EveryArgument(_einsum_pullback)


@instead(np.einsum)
def einsum(subscripts: str, *operands: Any, optimize: Any = False) -> Any:
    """Sums of products, as the letters say; pullbacks use the same `optimize`."""
    arrays = _arrays(*operands)
    names, result = _letters(subscripts, arrays)
    return _einsum_row(
        *arrays, names=tuple(names), result=result, optimize=bool(optimize)
    )


# ------------------------------------------------------------ linear algebra


def _solve_right(g: Any, out: Any, A: Any, b: Any) -> Any:
    return np.linalg.solve(np.swapaxes(A, -1, -2), g)  # eq ad-solve


def _solve_left(g: Any, out: Any, A: Any, b: Any) -> Any:
    return -_solve_right(g, out, A, b) @ np.swapaxes(out, -1, -2)


_solve = row(
    np.linalg.solve,
    _solve_left,
    _solve_right,
    key=("primitive", "solve"),
    name="linalg.solve",
)


@instead(np.linalg.solve)
def solve(a: Any, b: Any) -> Any:
    """A⁻¹ b; a vector b stands for one column."""
    a, b = _arrays(a, b)
    return _solve(a, b[:, None])[..., 0] if b.ndim == 1 else _solve(a, b)


def _inverse_transposed(a: Any) -> Any:
    return np.swapaxes(_invert(a), -1, -2)


def _invert(a: Any) -> Any:
    """A⁻¹, for the derivative of the inverse and of the determinant is made of it."""
    return RULES["inverse"](a)


row(
    getattr(np.linalg, "inv"),  # noqa: B009  # named so that nobody copies a call of it
    lambda g, out, a: -np.swapaxes(out, -1, -2) @ g @ np.swapaxes(out, -1, -2),
    name="linalg.inv",
)
RULES["inverse"] = RULES[getattr(np.linalg, "inv")]  # noqa: B009
row(
    np.linalg.det,
    lambda g, out, a: (g * out)[..., None, None] * _inverse_transposed(a),
    name="linalg.det",
)


def _plain_log_det(a: Any) -> Any:
    return np.linalg.slogdet(a).logabsdet


_log_det = row(
    _plain_log_det,
    lambda g, out, a: g[..., None, None] * _inverse_transposed(a),  # eq ad-logdet
    key=("primitive", "logdet"),
    name="linalg.slogdet",
)


@instead(np.linalg.slogdet)
def slogdet(a: Any) -> tuple[Any, Any]:
    """The sign of the determinant, a constant, and log |det A|.

    Raises:
        ValueError: A is singular, so that the logarithm is −inf.
    """
    sign = np.linalg.slogdet(unbox(a)).sign
    if np.any(sign == 0):
        raise ValueError("linalg.slogdet: a is singular, wants a determinant not zero")
    return sign, _log_det(a)


def _cholesky_pullback(g: Any, out: Any, a: Any) -> Any:
    """L⁻ᵀ Φ(Lᵀ g) L⁻¹, made symmetric; Φ keeps the lower half, half of its diagonal."""
    n = a.shape[-1]
    half = np.tri(n, dtype=g.dtype) - 0.5 * np.eye(n, dtype=g.dtype)
    LT = np.swapaxes(out, -1, -2)
    middle = half * (LT @ g)
    right = np.linalg.solve(LT, np.swapaxes(np.linalg.solve(LT, middle), -1, -2))
    return 0.5 * (right + np.swapaxes(right, -1, -2))  # eq ad-cholesky


row(np.linalg.cholesky, _cholesky_pullback, name="linalg.cholesky")


@instead(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Axis = None, *, keepdims: bool = False) -> Any:
    """The length of vectors, or the Frobenius norm of matrices; at zero, slope 0.

    Raises:
        NotImplementedError: a norm of matrices made of singular values.
    """
    two = isinstance(axis, tuple) or (axis is None and x.ndim == 2)
    if ord in (None, "fro") or (ord == 2 and not two):
        size = np.real(x * np.conjugate(x)) if x.dtype.kind == "c" else np.square(x)
        return _kinked_root(np.sum(size, axis=axis, keepdims=keepdims))
    if not two and ord == 1:
        return np.sum(np.abs(x), axis=axis, keepdims=keepdims)
    if not two and ord == np.inf:
        return np.max(np.abs(x), axis=axis, keepdims=keepdims)
    raise NotImplementedError(
        f"np.linalg.norm with ord={ord!r} cannot be differentiated here: write it out"
    )


# ------------------------------------------------------------ Fourier transforms

# The matrix of the transform is symmetric, so that it is its own transpose.
_fft = linear(
    np.fft.fft,
    lambda g, out, x, *, axis: np.fft.fft(g, axis=axis),
    key=("primitive", "fft"),
    name="fft.fft",
)
_ifft = linear(
    np.fft.ifft,
    lambda g, out, x, *, axis: np.fft.ifft(g, axis=axis),
    key=("primitive", "ifft"),
    name="fft.ifft",
)


def _rfft_pullback(g: Any, out: Any, x: Any, *, axis: int) -> Any:
    missing = x.shape[axis] - g.shape[axis]
    width = [(0, missing if i == axis % x.ndim else 0) for i in range(x.ndim)]
    return np.real(np.fft.fft(np.pad(g, width), axis=axis))


def _irfft_pullback(g: Any, out: Any, x: Any, *, n: int, axis: int) -> Any:
    """Frequencies other than 0 and n/2 stand for two terms of the sum."""
    twice = np.full(x.shape[axis], 2.0 / n, dtype=g.dtype)
    twice[0] = 1.0 / n
    if n % 2 == 0:
        twice[-1] = 1.0 / n
    shape = [-1 if i == axis % x.ndim else 1 for i in range(x.ndim)]
    return np.conjugate(np.fft.rfft(g, axis=axis)) * twice.reshape(shape)


_rfft = linear(np.fft.rfft, _rfft_pullback, key=("primitive", "rfft"), name="fft.rfft")
_irfft = linear(
    np.fft.irfft, _irfft_pullback, key=("primitive", "irfft"), name="fft.irfft"
)


def _fitted(a: Any, n: int | None, axis: int) -> Any:
    """`a` cut or filled with zeros to length n."""
    have = a.shape[axis]
    if n is None or n == have:
        return a
    if n < have:
        return a[(slice(None),) * (axis % a.ndim) + (slice(n),)]
    return np.pad(
        a, [(0, n - have if i == axis % a.ndim else 0) for i in range(a.ndim)]
    )


@instead(np.fft.fft)
def fft(a: Any, n: int | None = None, axis: int = -1) -> Any:
    """The discrete Fourier transform along `axis`."""
    return _fft(_fitted(a, n, axis), axis=axis)


@instead(np.fft.ifft)
def ifft(a: Any, n: int | None = None, axis: int = -1) -> Any:
    """The inverse of the discrete Fourier transform."""
    return _ifft(_fitted(a, n, axis), axis=axis)


@instead(np.fft.rfft)
def rfft(a: Any, n: int | None = None, axis: int = -1) -> Any:
    """The transform of real numbers: frequencies from 0 to n/2."""
    return _rfft(_fitted(a, n, axis), axis=axis)


@instead(np.fft.irfft)
def irfft(a: Any, n: int | None = None, axis: int = -1) -> Any:
    """The n real numbers of which `a` is the transform."""
    n = 2 * (a.shape[axis] - 1) if n is None else n
    return _irfft(_fitted(a, n // 2 + 1, axis), n=n, axis=axis)


# ------------------------------------------------------------ what has no derivative

CONSTANT.update(
    {
        *(np.sign, np.floor, np.ceil, np.rint, np.trunc, np.round, np.around),
        *(np.equal, np.not_equal, np.less, np.less_equal, np.greater),
        *(np.greater_equal, np.isnan, np.isinf, np.isfinite, np.signbit),
        *(np.logical_and, np.logical_or, np.logical_not, np.logical_xor),
        *(np.argmax, np.argmin, np.argsort, np.argpartition, np.searchsorted),
        *(np.nonzero, np.flatnonzero, np.count_nonzero, np.any, np.all),
        *(np.shape, np.ndim, np.size, np.zeros_like, np.ones_like, np.full_like),
        *(np.empty_like, np.isclose, np.allclose, np.array_equal, np.result_type),
        *(np.iscomplexobj, np.isrealobj, np.digitize, np.unique, np.bincount),
        *(np.linalg.matrix_rank, np.may_share_memory, np.shares_memory),
        *(np.array_repr, np.array_str, np.array2string, np.floor_divide),
    }
)
for _name in ("argmax", "argmin", "argsort", "round", "any", "all", "nonzero"):
    RULES["method", _name] = lambda a, *args, _name=_name, **options: getattr(
        unbox(a), _name
    )(*args, **options)
