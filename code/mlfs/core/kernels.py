"""Fused forward and backward passes in plain NumPy: the hot paths of automatic
differentiation.

Every kernel comes as a pair.  `NAME(*arrays, **options)` gives `(out, saved)`, and
`NAME_backward(g, out, saved, *arrays, needs, **options)` gives one gradient for each
array argument: the derivative of Σ g·out, or None where `needs` is False.  `g` has the
shape and dtype of `out`.  No function here writes into an array it was handed, and all
work is done in the dtype of the arguments, which must share one: float32 stays float32.

Three habits recur, each measured with one BLAS thread on a CPU without AVX-512:

* a sum over rows or columns is a product with a vector of ones, which BLAS does at
  memory speed (2048×256: 45 µs, where `.sum(0)` takes 97 µs and `.sum(1)` 170 µs);
* results of large operations are written into buffers that are already there, because
  touching new memory costs more than the arithmetic;
* `maximum(x, zeros)` rather than `maximum(x, 0)`: the loop for a scalar takes twice
  as long.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array
from scipy.special import erf

Floats = NDArray[Any]  # float32 or float64
Ints = NDArray[Any]
Saved = tuple[Any, ...]
Needs = tuple[bool, ...]
Gradients = tuple[Floats | None, ...]
Activation = Literal["relu", "tanh"] | None

# ------------------------------------------------------------ helpers


def _refuse(name: str, got: object, want: str) -> None:
    """Say which argument is wrong, what it is and what was wanted."""
    raise ValueError(f"{name} has shape {got}, wants {want}")


def _expect(name: str, a: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Refuse an argument that broadcasting would stretch or that does not fit."""
    if a.shape != shape:
        _refuse(name, a.shape, str(shape))


@lru_cache(maxsize=64)
def _constant(value: float, n: int, dtype: Any) -> Floats:
    """A read-only vector of n equal values; making it anew costs more than using it."""
    out = np.full(n, value, dtype)
    out.flags.writeable = False
    return out


def _rows(x: Floats) -> Floats:
    """All leading axes as one: a matrix."""
    return x if x.ndim == 2 else x.reshape(-1, x.shape[-1])


def _sum_rows(a: Floats) -> Floats:
    """Σ over the rows of a matrix, as a product with ones."""
    out: Floats = _constant(1.0, a.shape[0], a.dtype) @ a
    return out


def _sum_last(a: Floats) -> Floats:
    """Σ over the last axis, as a product with ones."""
    out: Floats = a @ _constant(1.0, a.shape[-1], a.dtype)
    return out


def _activate(out: Floats, activation: Activation) -> None:
    """Apply the activation to a fresh array, in place."""
    if activation == "relu":
        np.maximum(out, _constant(0.0, out.shape[-1], out.dtype), out=out)
    elif activation == "tanh":
        np.tanh(out, out=out)
    elif activation is not None:
        raise ValueError(f"activation is {activation!r}, wants None, 'relu' or 'tanh'")


def _activation_backward(g: Floats, out: Floats, activation: Activation) -> Floats:
    """∂/∂(pre-activation), from the activation's own output; g itself for None."""
    if activation is None:
        return g
    if activation == "relu":
        return g * (out > 0)
    slope = out * out
    np.subtract(1, slope, out=slope)
    slope *= g
    return slope


# ------------------------------------------------------------ elementwise


def relu(x: Floats) -> tuple[Floats, Saved]:
    """max(x, 0), any shape.  Cost O(size)."""
    zeros = _constant(0.0, x.shape[-1], x.dtype) if x.ndim else 0
    return np.asarray(np.maximum(x, zeros)), ()


def relu_backward(
    g: Floats, out: Floats, saved: Saved, x: Floats, *, needs: Needs
) -> Gradients:
    """g where x > 0, else 0: the derivative at 0 is taken as 0."""
    return (np.asarray(g * (out > 0)) if needs[0] else None,)


def sigmoid(x: Floats) -> tuple[Floats, Saved]:
    """1 / (1 + e⁻ˣ), any shape.  Cost O(size).

    e⁻ˣ may overflow to inf, which is right: 1 / inf = 0.  The form ½ + ½ tanh(x/2)
    would round all small values to 0, and their logarithm to −inf.
    """
    out = np.asarray(-x)
    with np.errstate(over="ignore"):
        np.exp(out, out=out)
    out += 1
    np.reciprocal(out, out=out)
    return out, ()


def sigmoid_backward(
    g: Floats, out: Floats, saved: Saved, x: Floats, *, needs: Needs
) -> Gradients:
    """g σ (1 − σ)."""
    if not needs[0]:
        return (None,)
    dx = np.asarray(1 - out)
    dx *= out
    dx *= g
    return (dx,)


_ROOT_HALF = math.sqrt(0.5)
_INV_ROOT_2PI = 1 / math.sqrt(2 * math.pi)
_TANH_A = math.sqrt(2 / math.pi)
_TANH_B = 0.044715


def gelu(x: Floats, *, approximate: bool = False) -> tuple[Floats, Saved]:
    """x Φ(x), Φ the normal distribution function; any shape.  Cost O(size).

    `approximate` takes ½ + ½ tanh(√(2/π) (x + 0.044715 x³)) for Φ.
    """
    # Far out x² may overflow to inf, which is right: e^−inf = 0.
    with np.errstate(over="ignore"):
        if approximate:
            phi, density = _tanh_cdf(x), None
        else:
            phi, density = _normal_cdf(x)
    return np.asarray(phi * x), (phi, density)


def gelu_backward(
    g: Floats,
    out: Floats,
    saved: Saved,
    x: Floats,
    *,
    needs: Needs,
    approximate: bool = False,
) -> Gradients:
    """g (Φ + x Φ')."""
    if not needs[0]:
        return (None,)
    phi, density = saved
    if approximate:
        slope = np.asarray(x * x)
        slope *= 6 * _TANH_A * _TANH_B
        slope += 2 * _TANH_A
        slope *= x
        slope *= phi
        slope *= 1 - phi
    else:
        slope = np.asarray(density * x)
        slope *= _INV_ROOT_2PI
    slope += phi
    slope *= g
    return (slope,)


def _tanh_cdf(x: Floats) -> Floats:
    """½ + ½ tanh(√(2/π) (x + 0.044715 x³))."""
    phi = np.asarray(x * x)
    phi *= _TANH_A * _TANH_B
    phi += _TANH_A
    phi *= x
    np.tanh(phi, out=phi)
    phi *= 0.5
    phi += 0.5
    return phi


# 1 − Φ(a) = e^(−a²/2) Σ c_k s^k with s = 1 / (4 + a), for a ≥ 0: a fit that minimises
# the largest error, which is 9e-9 and thus well below the rounding of float32.
_TAIL_SHIFT = 4.0
_TAIL = (
    0.09885957908804918 * 4,
    0.11172802738049967 * 4**2,
    0.02676189318454951 * 4**3,
    0.27709008012809283 * 4**4,
    -0.2624201644709681 * 4**5,
    0.3389555352767778 * 4**6,
    -0.09097494205121898 * 4**7,
)
_SIGN = np.int32(-(2**31))


def _normal_cdf(x: Floats) -> tuple[Floats, Floats]:
    """Φ(x) and e^(−x²/2).

    In float32 one exp serves both: a third of the time of `erf` and exp.
    """
    density = np.asarray(x * x)
    density *= -0.5
    np.exp(density, out=density)
    if x.dtype != np.float32:
        phi = np.asarray(erf(x * _ROOT_HALF))
        phi *= 0.5
        phi += 0.5
        return phi, density
    s = np.asarray(np.abs(x))
    s += _TAIL_SHIFT
    np.reciprocal(s, out=s)
    tail = np.asarray(s * _TAIL[-1])
    for c in _TAIL[-2::-1]:
        tail += c
        tail *= s
    tail *= density
    # Φ = ½ + (½ − tail) with the sign of x, put in as a bit: `copysign` takes 3 times
    # as long.
    np.subtract(0.5, tail, out=tail)
    bits, sign = tail.view(np.int32), s.view(np.int32)
    np.bitwise_and(x.view(np.int32), _SIGN, out=sign)
    np.bitwise_xor(bits, sign, out=bits)
    tail += 0.5
    return tail, density


# ------------------------------------------------------------ dense layers


def dense(
    x: Floats, W: Floats, b: Floats, *, activation: Activation = None
) -> tuple[Floats, Saved]:
    """f(x W + b) with f the activation, (..., m).

    x (..., n), W (n, m), b (m,).  Cost O(n m) a row.

    Raises:
        ValueError: shapes that do not fit, or an activation there is not.
    """
    if W.ndim != 2 or x.ndim == 0 or x.shape[-1] != W.shape[0]:
        _refuse("W", W.shape, f"(n, m) for x of shape {x.shape} = (..., n)")
    _expect("b", b, W.shape[1:])
    out: Floats
    if x.ndim <= 2:
        out = np.dot(x, W)  # half the call overhead of `@`
    else:
        out = np.dot(_rows(x), W).reshape(*x.shape[:-1], W.shape[1])
    out += b
    _activate(out, activation)
    return out, ()


def dense_backward(
    g: Floats,
    out: Floats,
    saved: Saved,
    x: Floats,
    W: Floats,
    b: Floats,
    *,
    needs: Needs,
    activation: Activation = None,
) -> Gradients:
    """dx = δ Wᵀ, dW = xᵀ δ, db = Σ rows of δ, where δ = g f'."""
    delta = _activation_backward(g, out, activation)
    dx = np.dot(_rows(delta), W.T).reshape(x.shape) if needs[0] else None
    if x.ndim == 1:
        return dx, np.outer(x, delta) if needs[1] else None, delta if needs[2] else None
    delta = _rows(delta)
    dW = np.dot(_rows(x).T, delta) if needs[1] else None
    db = _sum_rows(delta) if needs[2] else None
    return dx, dW, db


def embedding(table: Floats, ids: Ints) -> tuple[Floats, Saved]:
    """table[ids], (..., d): one row for each id.

    table (V, d), ids (...,) whole numbers in 0..V-1.

    Raises:
        ValueError: the table is no matrix, or an id is outside it.
    """
    if table.ndim != 2:
        _refuse("table", table.shape, "(V, d)")
    _check_labels("ids", ids, table.shape[0])
    return table.take(ids, axis=0), ()


def embedding_backward(
    g: Floats, out: Floats, saved: Saved, table: Floats, ids: Ints, *, needs: Needs
) -> Gradients:
    """dtable[v] = Σ of the rows of g whose id is v; ids have no gradient."""
    if not needs[0]:
        return None, None
    V, d = table.shape
    n = ids.size
    ones = _constant(1.0, n, g.dtype)
    # A sparse one-hot matrix (V, n): n·d additions, with no V in the cost.
    pick = csc_array((ones, ids.reshape(-1), np.arange(n + 1)), shape=(V, n))
    return pick @ g.reshape(n, d), None


def _check_labels(name: str, ids: Ints, K: int) -> None:
    """Refuse ids outside 0..K-1; a negative one would count from the end."""
    if ids.dtype.kind not in "iu":
        raise ValueError(f"{name} holds {ids.dtype}, wants whole numbers")
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= K):
        raise ValueError(
            f"{name} runs from {ids.min()} to {ids.max()}, wants 0 to {K - 1}"
        )


# ------------------------------------------------------------ normalisation


def layer_norm(
    x: Floats, scale: Floats, shift: Floats, *, epsilon: float = 1e-5
) -> tuple[Floats, Saved]:
    """(x − mean) / √(variance + ε) · scale + shift over the last axis, (..., d).

    x (..., d), scale (d,), shift (d,).  Cost O(size).

    Raises:
        ValueError: shapes that do not fit.
    """
    d = x.shape[-1] if x.ndim else 0
    _expect("scale", scale, (d,))
    _expect("shift", shift, (d,))
    rows = _rows(x)
    mean = _constant(1 / d, d, x.dtype)
    normal = np.subtract(rows, (rows @ mean)[:, None], order="C")
    out = normal * normal
    rate = out @ mean
    rate += epsilon
    np.sqrt(rate, out=rate)
    np.reciprocal(rate, out=rate)
    normal *= rate[:, None]
    np.multiply(normal, scale, out=out)
    out += shift
    return out.reshape(x.shape), (normal, rate)


def layer_norm_backward(
    g: Floats,
    out: Floats,
    saved: Saved,
    x: Floats,
    scale: Floats,
    shift: Floats,
    *,
    needs: Needs,
    epsilon: float = 1e-5,
) -> Gradients:
    """With u the normalised x: dscale = Σ g u, dshift = Σ g, and dx by the chain rule.

    dx = (h − mean h − u · mean(h u)) / √(variance + ε), where h = g · scale.
    """
    normal, rate = saved
    g = _rows(g)
    product = g * normal
    dscale = _sum_rows(product) if needs[1] else None
    dshift = _sum_rows(g) if needs[2] else None
    if not needs[0]:
        return None, dscale, dshift
    weights = scale * (1 / len(scale))
    along = product @ weights  # mean of h u
    level = g @ weights  # mean of h
    np.multiply(normal, along[:, None], out=product)
    dx = g * scale
    dx -= product
    dx -= level[:, None]
    dx *= rate[:, None]
    return dx.reshape(x.shape), dscale, dshift


def softmax_cross_entropy(logits: Floats, labels: Ints) -> tuple[Floats, Saved]:
    """−log softmax(logits)[label] for each row, (...,).

    logits (..., K), labels (...,) whole numbers in 0..K-1.  Cost O(size).

    Raises:
        ValueError: shapes that do not fit, or a label outside 0..K-1.
    """
    if logits.ndim == 0:
        _refuse("logits", logits.shape, "(..., K)")
    _expect("labels", labels, logits.shape[:-1])
    K = logits.shape[-1]
    _check_labels("labels", labels, K)
    z = logits.reshape(-1, K)
    # In C order whatever the order of the logits, so that flat indices are right.
    z = np.subtract(z, z.max(axis=1, keepdims=True), order="C")
    at = np.arange(0, z.size, K)
    at += labels.reshape(-1)
    picked = z.reshape(-1).take(at)
    np.exp(z, out=z)
    total = _sum_last(z)
    loss = np.log(total)
    loss -= picked
    return loss.reshape(labels.shape), (z, total, at)


def softmax_cross_entropy_backward(
    g: Floats, out: Floats, saved: Saved, logits: Floats, labels: Ints, *, needs: Needs
) -> Gradients:
    """dlogits = g (softmax − one-hot of the label); labels have no gradient."""
    if not needs[0]:
        return None, None
    z, total, at = saved
    g = g.reshape(-1)
    dlogits = z * (g / total)[:, None]
    dlogits.reshape(-1)[at] -= g  # each row has one label, so no index comes twice
    return dlogits.reshape(logits.shape), None


def mean_softmax_cross_entropy(logits: Floats, labels: Ints) -> tuple[Floats, Saved]:
    """The mean of −log softmax(logits)[label] over all rows, a scalar ().

    logits (..., K), labels (...,) whole numbers in 0..K-1.  Cost O(size).

    Raises:
        ValueError: shapes that do not fit, or a label outside 0..K-1.
    """
    loss, saved = softmax_cross_entropy(logits, labels)
    return np.asarray(loss.mean()), saved


def mean_softmax_cross_entropy_backward(
    g: Floats, out: Floats, saved: Saved, logits: Floats, labels: Ints, *, needs: Needs
) -> Gradients:
    """dlogits = g (softmax − one-hot of the label) / number of rows."""
    if not needs[0]:
        return None, None
    z, total, at = saved
    share = g / len(at)
    dlogits = z * (share / total)[:, None]
    dlogits.reshape(-1)[at] -= share
    return dlogits.reshape(logits.shape), None


# ------------------------------------------------------------ attention


def attention(
    q: Floats, k: Floats, v: Floats, *, causal: bool = False
) -> tuple[Floats, Saved]:
    """softmax(q kᵀ / √d) v, (..., T, e); causal: query t sees keys 0..t only.

    q (..., T, d), k (..., S, d), v (..., S, e), the leading axes alike.
    Cost O(T S (d + e)) for each leading index.

    Raises:
        ValueError: shapes that do not fit, or causal with T ≠ S.
    """
    if q.ndim < 2 or k.ndim != q.ndim or k.shape[-1] != q.shape[-1]:
        _refuse("k", k.shape, f"(..., S, d) for q of shape {q.shape} = (..., T, d)")
    if k.shape[:-2] != q.shape[:-2] or v.shape[:-1] != k.shape[:-1]:
        _refuse("v", v.shape, f"(..., S, e) for q, k of shapes {q.shape}, {k.shape}")
    if causal and q.shape[-2] != k.shape[-2]:
        _refuse("k", k.shape, f"as many keys as queries: q has shape {q.shape}")
    out = np.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    return out, _attend(q, k, v, out, causal)


def attention_backward(
    g: Floats,
    out: Floats,
    saved: Saved,
    q: Floats,
    k: Floats,
    v: Floats,
    *,
    needs: Needs,
    causal: bool = False,
) -> Gradients:
    """dq, dk, dv by the chain rule through the scores and their softmax."""
    dq = np.empty(q.shape, q.dtype) if needs[0] else None
    dk = np.empty(k.shape, k.dtype) if needs[1] else None
    dv = np.empty(v.shape, v.dtype) if needs[2] else None
    _attend_backward(g, out, saved, (q, k, v), (dq, dk, dv), causal)
    return dq, dk, dv


def multihead(qkv: Floats, *, heads: int, causal: bool = False) -> tuple[Floats, Saved]:
    """Self-attention in several heads side by side, (B, T, heads · d).

    qkv (B, T, 3 · heads · d) holds queries, keys and values one after the other, and
    each of them its heads.  Working on strided views saves the transposed copies.

    Raises:
        ValueError: qkv is not three axes, or its last is no multiple of 3 · heads.
    """
    if qkv.ndim != 3 or heads < 1 or qkv.shape[2] % (3 * heads):
        _refuse("qkv", qkv.shape, f"(B, T, 3 · {heads} · d)")
    B, T, width = qkv.shape
    out = np.empty((B, T, width // 3), qkv.dtype)
    saved = []
    for part in _batches(B, heads * T * T):
        (q, k, v), (place,) = _heads(qkv[part], 3, heads), _heads(out[part], 1, heads)
        saved.append(_attend(q, k, v, place, causal))
    return out, tuple(saved)


def multihead_backward(
    g: Floats,
    out: Floats,
    saved: Saved,
    qkv: Floats,
    *,
    needs: Needs,
    heads: int,
    causal: bool = False,
) -> Gradients:
    """dqkv, each part written into its place."""
    if not needs[0]:
        return (None,)
    dqkv = np.empty(qkv.shape, qkv.dtype)
    B, T, _ = qkv.shape
    for part, weights in zip(_batches(B, heads * T * T), saved, strict=True):
        (slope,), (value,) = _heads(g[part], 1, heads), _heads(out[part], 1, heads)
        inputs, gradients = _heads(qkv[part], 3, heads), _heads(dqkv[part], 3, heads)
        _attend_backward(slope, value, weights, inputs, gradients, causal)
    return (dqkv,)


def _batches(B: int, size: int) -> list[slice]:
    """Parts of a batch whose weights, `size` for each member, stay in cache.

    The backward pass is faster by a sixth than with all of the batch at once.
    """
    step = max(1, 2**17 // max(size, 1))
    return [slice(i, i + step) for i in range(0, B, step)]


def _heads(a: Floats, parts: int, heads: int) -> tuple[Floats, ...]:
    """(B, T, parts · heads · d) as `parts` views (B, heads, T, d)."""
    B, T, width = a.shape
    split = a.reshape(B, T, parts, heads, width // (parts * heads))
    return tuple(split.transpose(2, 0, 3, 1, 4))


def _attend(q: Floats, k: Floats, v: Floats, out: Floats, causal: bool) -> Saved:
    """Write softmax(q kᵀ / √d) v into `out`; gives the weights, block by block.

    They are held transposed, (..., S, T): a sum over keys then adds whole rows.
    """
    q = q * (1 / math.sqrt(q.shape[-1]))
    saved = []
    for queries, keys in _blocks(q.shape[-2], k.shape[-2], causal):
        weights = k[..., keys, :] @ q[..., queries, :].swapaxes(-1, -2)
        _exponentiate(weights, causal)
        rate = _constant(1.0, weights.shape[-2], weights.dtype) @ weights
        np.reciprocal(rate, out=rate)
        # Dividing the smaller `out` instead is no faster: its rows are short.
        weights *= rate[..., None, :]
        np.matmul(weights.swapaxes(-1, -2), v[..., keys, :], out=out[..., queries, :])
        saved.append(weights)
    return tuple(saved)


def _attend_backward(
    g: Floats,
    out: Floats,
    saved: Saved,
    inputs: tuple[Floats, ...],
    gradients: tuple[Floats | None, ...],
    causal: bool,
) -> None:
    """Write the gradients of q, k and v into the arrays given for them."""
    (q, k, v), (dq, dk, dv) = inputs, gradients
    blocks = _blocks(q.shape[-2], k.shape[-2], causal)
    scaled = g * (1 / math.sqrt(q.shape[-1]))
    level = _sum_last(scaled * out)[..., None, :]  # Σ over keys of weight · slope
    # The last block goes first: it has all the keys, and the others add to its results.
    for at in range(len(blocks) - 1, -1, -1):
        queries, keys = blocks[at]
        weights = saved[at]
        add = at < len(blocks) - 1
        if dv is not None:
            _product(weights, g[..., queries, :], dv[..., keys, :], add)
        if dq is None and dk is None:
            continue
        delta = v[..., keys, :] @ scaled[..., queries, :].swapaxes(-1, -2)
        delta -= level[..., queries]
        delta *= weights
        if dq is not None:
            np.matmul(delta.swapaxes(-1, -2), k[..., keys, :], out=dq[..., queries, :])
        if dk is not None:
            _product(delta, q[..., queries, :], dk[..., keys, :], add)


def _product(a: Floats, b: Floats, out: Floats, add: bool) -> None:
    """a b into `out`, or added to what is there."""
    if add:
        out += a @ b
    else:
        np.matmul(a, b, out=out)


@lru_cache(maxsize=64)
def _blocks(T: int, S: int, causal: bool) -> list[tuple[slice, slice]]:
    """Which queries to treat together, and the keys that they may see.

    In causal attention half of the scores are never used.  Blocks of queries leave most
    of those out: 2 blocks do 3/4 of the work, 8 blocks 9/16.
    """
    size = max(_BLOCK, -(-T // 8)) if causal else T
    starts = range(0, T, max(size, 1))
    ends = [min(T, a + size) for a in starts]
    return [
        (slice(a, b), slice(0, b if causal else S))
        for a, b in zip(starts, ends, strict=True)
    ]


_BLOCK = 64  # smaller products are all call overhead
# e³⁰ is far from the largest float32, and its inverse from the smallest.
_SAFE = 30.0


def _exponentiate(scores: Floats, causal: bool) -> None:
    """exp of the scores up to a factor for each query, in place; 0 for future keys."""
    T = scores.shape[-1]
    last = scores[..., -T:, :]  # only the keys of the block itself can lie ahead
    # Small scores need no shift by their maximum: to look takes a sixth of the time
    # that finding and subtracting the maximum of each column takes.
    if scores.size and -_SAFE < scores.min() and scores.max() < _SAFE:
        np.exp(scores, out=scores)
        if causal:
            last *= _past(T, scores.dtype)
        return
    if causal:
        np.copyto(last, -np.inf, where=_past(T, scores.dtype) == 0)
    scores -= scores.max(axis=-2, keepdims=True)
    np.exp(scores, out=scores)


@lru_cache(maxsize=16)
def _past(T: int, dtype: Any) -> Floats:
    """1 where query t (column) may see key s (row), s ≤ t, else 0: (T, T)."""
    out = np.triu(np.ones((T, T), dtype))
    out.flags.writeable = False
    return out


# ------------------------------------------------------------ convolution


def conv2d(
    x: Floats,
    w: Floats,
    b: Floats,
    *,
    stride: int = 1,
    padding: int = 0,
    activation: Activation = None,
) -> tuple[Floats, Saved]:
    """f(Σ x[n, s·i+r, s·j+c, :] w[r, c, :, :] + b), (N, H', W', F).

    x (N, H, W, C) is padded with zeros on each side, w (kh, kw, C, F), b (F,);
    H' = (H + 2 padding − kh) // stride + 1.  Cost O(N H' W' kh kw C F).

    Raises:
        ValueError: shapes that do not fit, or a kernel larger than the padded image.
    """
    if w.ndim != 4 or x.ndim != 4 or x.shape[3] != w.shape[2]:
        _refuse("w", w.shape, f"(kh, kw, C, F) for x of shape {x.shape} = (N, H, W, C)")
    _expect("b", b, w.shape[3:])
    _check_window(x.shape, w.shape, stride, padding)
    out = _correlate(x, w, stride, padding)
    # Whole rows of pixels at a time: inner loops of W'·F numbers instead of F.
    lines = out.reshape(-1, out.shape[2] * out.shape[3])
    lines += np.tile(b, out.shape[2])
    _activate(lines, activation)
    return out, ()


def conv2d_backward(
    g: Floats,
    out: Floats,
    saved: Saved,
    x: Floats,
    w: Floats,
    b: Floats,
    *,
    needs: Needs,
    stride: int = 1,
    padding: int = 0,
    activation: Activation = None,
) -> Gradients:
    """dx by the transposed convolution, dw = columnsᵀ δ, db = Σ δ, where δ = g f'."""
    delta = _activation_backward(g, out, activation)
    dx = _spread(delta, w, x.shape, stride, padding) if needs[0] else None
    dw = _kernel_gradient(x, delta, w.shape, stride, padding) if needs[1] else None
    return dx, dw, _sum_rows(_rows(delta)) if needs[2] else None


def conv2d_transpose(
    x: Floats, w: Floats, b: Floats, *, stride: int = 1, padding: int = 0
) -> tuple[Floats, Saved]:
    """The adjoint of `conv2d` in its image, plus b: (N, H', W', C).

    x (N, H, W, F), w (kh, kw, C, F), b (C,); H' = (H − 1) stride − 2 padding + kh.
    Cost O(N H W kh kw C F).

    Raises:
        ValueError: shapes that do not fit, or nothing left after cropping `padding`.
    """
    if w.ndim != 4 or x.ndim != 4 or x.shape[3] != w.shape[3]:
        _refuse("w", w.shape, f"(kh, kw, C, F) for x of shape {x.shape} = (N, H, W, F)")
    _expect("b", b, w.shape[2:3])
    N, H, W, _ = x.shape
    kh, kw, C, _ = w.shape
    height = (H - 1) * stride - 2 * padding + kh
    width = (W - 1) * stride - 2 * padding + kw
    _check_window((N, height, width, C), w.shape, stride, padding)
    out = _spread(x, w, (N, height, width, C), stride, padding)
    out += b
    return out, ()


def conv2d_transpose_backward(
    g: Floats,
    out: Floats,
    saved: Saved,
    x: Floats,
    w: Floats,
    b: Floats,
    *,
    needs: Needs,
    stride: int = 1,
    padding: int = 0,
) -> Gradients:
    """dx = conv2d of g without bias; dw as in `conv2d`, x and g in swapped roles."""
    dx = _correlate(g, w, stride, padding) if needs[0] else None
    dw = _kernel_gradient(g, x, w.shape, stride, padding) if needs[1] else None
    return dx, dw, _sum_rows(_rows(g)) if needs[2] else None


def _check_window(
    image: tuple[int, ...], kernel: tuple[int, ...], stride: int, padding: int
) -> None:
    """Refuse a stride, a padding or a kernel with which there is nothing to compute."""
    if stride < 1:
        raise ValueError(f"stride is {stride}, wants at least 1")
    if padding < 0:
        raise ValueError(f"padding is {padding}, wants at least 0")
    room = min(image[1] + 2 * padding - kernel[0], image[2] + 2 * padding - kernel[1])
    if room < 0 or min(image[1:3]) < 1:
        _refuse("w", kernel, f"a window that fits an image {image}, padding {padding}")


def _pad(x: Floats, top: int, left: int) -> Floats:
    """x with `top` rows and `left` columns of zeros on each side, contiguous."""
    if not (top or left):
        return np.ascontiguousarray(x)
    N, H, W, C = x.shape
    out = np.zeros((N, H + 2 * top, W + 2 * left, C), x.dtype)
    out[:, top : top + H, left : left + W] = x
    return out


# Numbers in one block of columns: 1 MB in float32.  From blocks that stay in cache a
# product takes 0.9 of the time that it takes from all columns at once.
_BLOCK_SIZE = 2**18


def _column_blocks(
    x: Floats, kh: int, kw: int, stride: int
) -> Iterator[tuple[slice, Floats]]:
    """Every window of a padded, contiguous image as a row of kh kw C numbers.

    Given block by block, each with the rows' place among all N H' W'; the memory of a
    block is used again for the next.  With channels last a row of a window is one run
    of kw·C numbers, so the copy moves long runs: 3 times as fast as gathering the
    kh·kw shifted images.
    """
    N, H, W, C = x.shape
    sn, sh, sw, _ = x.strides
    shape = (N, (H - kh) // stride + 1, (W - kw) // stride + 1, kh, kw * C)
    strides = (sn, stride * sh, stride * sw, sh, x.itemsize)
    # The constructor makes the same view as `as_strided` in a fifth of the time.
    view: Floats = np.ndarray(shape, x.dtype, x, 0, strides)
    pixels, width = shape[1] * shape[2], kh * kw * C
    images = min(N, max(1, _BLOCK_SIZE // (pixels * width)))
    block = np.empty((images * pixels, width), x.dtype)
    for i in range(0, N, max(images, 1)):
        part = view[i : i + images]
        rows = block[: len(part) * pixels]
        rows.reshape(part.shape)[...] = part
        yield slice(i * pixels, (i + len(part)) * pixels), rows


def _correlate(x: Floats, w: Floats, stride: int, padding: int) -> Floats:
    """`conv2d` without bias and activation."""
    kh, kw, _, F = w.shape
    N, H, W, _ = x.shape
    height = (H + 2 * padding - kh) // stride + 1
    width = (W + 2 * padding - kw) // stride + 1
    out = np.empty((N * height * width, F), x.dtype)
    matrix = w.reshape(-1, F)
    padded = _pad(x, padding, padding)
    for place, columns in _column_blocks(padded, kh, kw, stride):
        np.dot(columns, matrix, out=out[place])
    return out.reshape(N, height, width, F)


def _kernel_gradient(
    x: Floats, g: Floats, shape: tuple[int, ...], stride: int, padding: int
) -> Floats:
    """Σ over windows of (window of x) ⊗ g, (kh, kw, C, F)."""
    kh, kw, C, F = shape
    rows = _rows(g)
    # gᵀ columns is faster by a tenth than columnsᵀ g.
    total = np.zeros((F, kh * kw * C), g.dtype)
    padded = _pad(x, padding, padding)
    for place, columns in _column_blocks(padded, kh, kw, stride):
        total += np.dot(rows[place].T, columns)
    return np.ascontiguousarray(total.T).reshape(shape)


def _spread(
    g: Floats, w: Floats, shape: tuple[int, ...], stride: int, padding: int
) -> Floats:
    """The adjoint of `_correlate` in its image, which has the given shape."""
    kh, kw, C, F = w.shape
    if stride == 1 and padding < min(kh, kw):
        # A gather: correlate the padded g with the flipped kernel.  Adding up shifted
        # images instead, as below, takes twice as long.
        # The crop of the full correlation is the padding left out beforehand.
        flipped = np.ascontiguousarray(w[::-1, ::-1].swapaxes(2, 3))
        padded = _pad(g, kh - 1 - padding, kw - 1 - padding)
        return _correlate(padded, flipped, 1, 0)
    N, H, W, _ = shape
    _, height, width, _ = g.shape
    parts = (_rows(g) @ w.reshape(-1, F).T).reshape(N, height, width, kh, kw, C)
    out = np.zeros((N, H + 2 * padding, W + 2 * padding, C), g.dtype)
    for r in range(kh):
        for c in range(kw):
            rows = slice(r, r + stride * height, stride)
            columns_ = slice(c, c + stride * width, stride)
            out[:, rows, columns_] += parts[:, :, :, r, c]
    return out[:, padding : padding + H, padding : padding + W].copy()


# ------------------------------------------------------------ recurrent layers


def lstm(
    x: Floats, h0: Floats, c0: Floats, Wx: Floats, Wh: Floats, b: Floats
) -> tuple[Floats, Saved]:
    """hₜ = o tanh(cₜ), cₜ = f cₜ₋₁ + i g; out holds h₁..h_T and then c_T: (T+1, B, H).

    i, f, o = σ and g = tanh of the four parts of xₜ Wx + hₜ₋₁ Wh + b, in the order
    i, f, g, o.  x (T, B, n), h0 and c0 (B, H), Wx (n, 4H), Wh (H, 4H), b (4H,).
    Cost O(T B H (n + H)).

    Raises:
        ValueError: shapes that do not fit.
    """
    T, B, H = _check_recurrent(x, h0, Wx, Wh, 4)
    _expect("c0", c0, (B, H))
    _expect("b", b, (4 * H,))
    W = _lstm_weights(Wx, Wh, b)
    # Each step's input [hₜ₋₁, xₜ, 1] side by side: one product does all of it.
    u = np.empty((T + 1, B, W.shape[1]), x.dtype)
    u[0, :, :H], u[:T, :, H:-1], u[:, :, -1] = h0, x, 1
    G, cs = np.empty((T, 4, B, H), x.dtype), np.empty((T + 1, B, H), x.dtype)
    us, product = np.empty((T, B, H), x.dtype), np.empty((B, H), x.dtype)
    cs[0] = c0
    with np.errstate(over="ignore"):  # σ = 1 / (1 + inf) = 0 is right
        for a, v, c, c1, d, h in zip(G, u, cs, cs[1:], us, u[1:, :, :H], strict=False):
            np.matmul(v, W, out=a)
            s = a[:3]
            np.exp(s, out=s)  # with the two below, 2/3 of the time of a tanh
            s += 1
            np.reciprocal(s, out=s)
            g = a[3]
            np.tanh(g, out=g)
            np.multiply(a[1], g, out=product)
            np.multiply(a[2], c, out=c1)
            c1 += product
            np.tanh(c1, out=d)
            np.multiply(a[0], d, out=h)
    out = np.empty((T + 1, B, H), x.dtype)
    out[:T], out[T] = u[1:, :, :H], cs[T]
    return out, (G, u, cs, us)


def lstm_backward(
    g: Floats,
    out: Floats,
    saved: Saved,
    x: Floats,
    h0: Floats,
    c0: Floats,
    Wx: Floats,
    Wh: Floats,
    b: Floats,
    *,
    needs: Needs,
) -> Gradients:
    """Backpropagation through time: one pass over t from T down to 1."""
    G, u, cs, us = saved
    T, _, B, H = G.shape
    S, cell = _lstm_slopes(G, cs, us)
    # The gates side by side again, as in W: each of the products below is then one.
    D = np.empty((T, B, 4, H), g.dtype)
    Wh_back = np.ascontiguousarray(Wh.reshape(H, 4, H)[:, _LSTM_ORDER]).reshape(H, -1).T
    dc, dh = g[T].copy(), np.zeros((B, H), g.dtype)
    product = np.empty((B, H), g.dtype)
    for t in range(T - 1, -1, -1):
        dh += g[t]
        np.multiply(dh, cell[t], out=product)
        dc += product
        d = D[t]
        gates, s = d.swapaxes(0, 1), S[t]
        np.multiply(s[0], dh, out=gates[0])
        np.multiply(s[1:], dc, out=gates[1:])
        dc *= G[t, 2]
        np.dot(d.reshape(B, -1), Wh_back, out=dh)
    D = D.reshape(T * B, -1)
    dx = None
    if needs[0]:
        Wx_back = Wx.reshape(-1, 4, H)[:, _LSTM_ORDER].reshape(-1, 4 * H).T
        dx = np.dot(D, Wx_back).reshape(x.shape)
    weights = _lstm_weight_gradients(u[:T].reshape(T * B, -1), D, needs[3:])
    return dx, dh if needs[1] else None, dc if needs[2] else None, *weights


def _check_recurrent(
    x: Floats, h0: Floats, Wx: Floats, Wh: Floats, gates: int
) -> tuple[int, int, int]:
    """T, B, H of a recurrent layer whose shapes fit."""
    if x.ndim != 3:
        _refuse("x", x.shape, "(T, B, n)")
    if Wh.ndim != 2 or Wh.shape[1] != gates * Wh.shape[0]:
        _refuse("Wh", Wh.shape, f"(H, {gates} H)")
    T, B, n = x.shape
    H = Wh.shape[0]
    _expect("h0", h0, (B, H))
    _expect("Wx", Wx, (n, gates * H))
    return T, B, H


# i, f, g, o of the arguments as o, i, f, g, and the way back: the sigmoids are then
# next to one another, and so are the three gates that reach h only through c.
_LSTM_ORDER = [3, 0, 1, 2]
_LSTM_BACK = [1, 2, 3, 0]


def _lstm_weights(Wx: Floats, Wh: Floats, b: Floats) -> Floats:
    """Wh, Wx and b in one, (4, H + n + 1, H); those of σ negated, for 1/(1 + e⁻ˣ)."""
    W = np.concatenate((Wh, Wx, b[None])).reshape(-1, 4, len(Wh))
    W = np.ascontiguousarray(W.swapaxes(0, 1)[_LSTM_ORDER])
    np.negative(W[:3], out=W[:3])
    return W


def _lstm_weight_gradients(u: Floats, D: Floats, needs: Needs) -> Gradients:
    """Gradients of Wx, Wh and b: one product for all three."""
    if not any(needs):
        return None, None, None
    H = D.shape[1] // 4
    dW = np.dot(u.T, D).reshape(-1, 4, H)[:, _LSTM_BACK].reshape(-1, 4 * H)
    # Copies, so that no gradient shares memory with another one.
    dWx = dW[H:-1].copy() if needs[0] else None
    dWh = dW[:H].copy() if needs[1] else None
    return dWx, dWh, dW[-1].copy() if needs[2] else None


def _lstm_slopes(G: Floats, cs: Floats, us: Floats) -> tuple[Floats, Floats]:
    """∂h/∂o and ∂c/∂(i, f, g) before the gates' σ or tanh, and ∂h/∂c, for all steps.

    Done for all steps at once: in the loop these would be 10 small calls a step.
    """
    S = G * G
    np.subtract(G[:, :3], S[:, :3], out=S[:, :3])
    np.subtract(1, S[:, 3], out=S[:, 3])
    S[:, 0] *= us
    S[:, 1] *= G[:, 3]
    S[:, 2] *= cs[:-1]
    S[:, 3] *= G[:, 1]
    cell = us * us
    np.subtract(1, cell, out=cell)
    cell *= G[:, 0]
    return S, cell


def gru(
    x: Floats, h0: Floats, Wx: Floats, Wh: Floats, bx: Floats, bh: Floats
) -> tuple[Floats, Saved]:
    """hₜ = (1 − z) n + z hₜ₋₁, n = tanh(xₙ + r hₙ): all h, (T, B, H).

    r, z = σ(xᵣ + hᵣ), σ(x_z + h_z), where xᵣ, x_z, xₙ are the three parts of xₜ Wx + bx
    and hᵣ, h_z, hₙ those of hₜ₋₁ Wh + bh.
    x (T, B, n), h0 (B, H), Wx (n, 3H), Wh (H, 3H), bx and bh (3H,).
    Cost O(T B H (n + H)).

    Raises:
        ValueError: shapes that do not fit.
    """
    T, B, H = _check_recurrent(x, h0, Wx, Wh, 3)
    _expect("bx", bx, (3 * H,))
    _expect("bh", bh, (3 * H,))
    Wh3, bh3 = Wh.reshape(H, 3, H).swapaxes(0, 1).copy(), bh.reshape(3, 1, H)
    G = x.reshape(T * B, -1) @ Wx.reshape(-1, 3, H).swapaxes(0, 1)
    G += bx.reshape(3, 1, H)
    G = G.reshape(3, T, B, H)
    hs, us = np.empty((T + 1, B, H), x.dtype), np.empty((T, B, H), x.dtype)
    hs[0] = h0
    recurrent, product = np.empty((3, B, H), x.dtype), np.empty((B, H), x.dtype)
    for t in range(T):
        h, new, s, n = hs[t], hs[t + 1], G[:2, t], G[2, t]
        np.matmul(h, Wh3, out=recurrent)
        recurrent += bh3
        us[t] = recurrent[2]
        s += recurrent[:2]
        s *= 0.5
        np.tanh(s, out=s)
        s *= 0.5
        s += 0.5
        np.multiply(s[0], us[t], out=product)
        n += product
        np.tanh(n, out=n)
        np.subtract(h, n, out=new)
        new *= s[1]
        new += n
    return hs[1:], (G, hs, us)


def gru_backward(
    g: Floats,
    out: Floats,
    saved: Saved,
    x: Floats,
    h0: Floats,
    Wx: Floats,
    Wh: Floats,
    bx: Floats,
    bh: Floats,
    *,
    needs: Needs,
) -> Gradients:
    """Backpropagation through time: one pass over t from T down to 1."""
    G, hs, us = saved
    _, T, B, H = G.shape
    S = _gru_slopes(G, hs, us)
    D = np.empty((4, T, B, H), g.dtype)  # r, z, n as seen by h, n as seen by x
    Wh_back = np.ascontiguousarray(Wh.reshape(H, 3, H).transpose(1, 2, 0))
    dh, back = np.zeros((B, H), g.dtype), np.empty((3, B, H), g.dtype)
    for t in range(T - 1, -1, -1):
        d = D[:, t]
        dh += g[t]
        np.multiply(S[:2, t], dh, out=d[:2])
        np.multiply(S[2, t], dh, out=d[3])
        np.multiply(d[3], G[0, t], out=d[2])
        dh *= G[1, t]
        np.matmul(d[:3], Wh_back, out=back)
        dh += np.add.reduce(back, axis=0)
    D = D.reshape(4, T * B, H)
    dx, dWx, dbx = _gru_affine(x, Wx, D[[0, 1, 3]], (needs[0], needs[2], needs[4]))
    _, dWh, dbh = _gru_affine(hs[:T], Wh, D[:3], (False, needs[3], needs[5]))
    return dx, dh if needs[1] else None, dWx, dWh, dbx, dbh


def _gru_slopes(G: Floats, hs: Floats, us: Floats) -> Floats:
    """∂h/∂(r, z, n) before their σ or tanh, for all steps at once."""
    z, n = G[1:]
    S = G * G
    np.subtract(G[:2], S[:2], out=S[:2])
    np.subtract(1, S[2], out=S[2])
    S[2] *= 1 - z
    S[1] *= hs[:-1] - n
    S[0] *= S[2]
    S[0] *= us
    return S


def _gru_affine(x: Floats, W: Floats, D: Floats, needs: Needs) -> Gradients:
    """Gradients of x, W and b of the affine map x W + b from D, (3, T B, H)."""
    n = x.shape[-1]
    dx = dW = db = None
    if needs[0]:
        dx = (D @ W.reshape(n, 3, -1).transpose(1, 2, 0)).sum(axis=0).reshape(x.shape)
    if needs[1]:
        dW = (x.reshape(-1, n).T @ D).swapaxes(0, 1).reshape(W.shape)
    if needs[2]:
        db = (_constant(1.0, D.shape[1], D.dtype) @ D).reshape(-1)
    return dx, dW, db
