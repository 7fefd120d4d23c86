"""Layers of neural networks: an `init` makes parameters, and a function uses them.

Parameters are plain trees of arrays, for example `{"W": ..., "b": ...}`; a layer is a
function of parameters and input, and holds nothing.  The hot paths are one step each on
the tape, with pullbacks made by hand (`mlfs.core.kernels`); next to each stands the
composed form that it is equal to, which also gives its higher derivatives.

    N, B, T    images or rows, batch, time steps
    n, m       width of a layer's input and output
    d          width of a token's vector
    rng        where starting weights come from

Weights start as float32, Gaussian with variance 2/n before relu (He, Zhang, Ren and Sun
2015, "Delving deep into rectifiers", ICCV, eq. 10) or 1/n otherwise; biases at zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from scipy import special

from mlfs.autodiff import fused, log_softmax, logsumexp, softmax
from mlfs.core import kernels
from mlfs.core.numerics import check_rng, check_scalar, check_whole

Params = dict[str, Any]
Activation = Literal["relu", "tanh"] | None

__all__ = [
    "attention",
    "block",
    "block_init",
    "conv2d",
    "conv2d_transpose",
    "conv_init",
    "cross_entropy",
    "dense",
    "dense_init",
    "embedding",
    "embedding_init",
    "gelu",
    "gru",
    "gru_init",
    "layer_norm",
    "log_softmax",
    "lstm",
    "lstm_init",
    "mean_cross_entropy",
    "mlp",
    "mlp_init",
    "multihead",
    "norm_init",
    "relu",
    "self_attention",
    "self_attention_init",
    "sigmoid",
    "softmax",
]

# ------------------------------------------------------------ one step in place of many


def _activate(x: Any, activation: Activation) -> Any:
    if activation == "relu":
        return np.where(x > 0, x, 0.0)
    return np.tanh(x) if activation == "tanh" else x


@fused(kernels.relu, kernels.relu_backward)
def _relu(x: Any) -> Any:
    return np.where(x > 0, x, 0.0)


@fused(kernels.sigmoid, kernels.sigmoid_backward)
def _sigmoid(x: Any) -> Any:
    return special.expit(x)


@fused(kernels.gelu, kernels.gelu_backward)
def _gelu(x: Any, *, approximate: bool = False) -> Any:
    if approximate:
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)
        return 0.5 * x * (1 + np.tanh(inner))
    return 0.5 * x * (1 + special.erf(x / math.sqrt(2)))


@fused(kernels.dense, kernels.dense_backward)
def _dense(x: Any, W: Any, b: Any, *, activation: Activation = None) -> Any:
    return _activate(x @ W + b, activation)


@fused(kernels.softmax_cross_entropy, kernels.softmax_cross_entropy_backward)
def _cross_entropy(logits: Any, labels: Any) -> Any:
    chosen = np.take_along_axis(logits, labels[..., None], -1)[..., 0]
    return logsumexp(logits, -1) - chosen


@fused(kernels.mean_softmax_cross_entropy, kernels.mean_softmax_cross_entropy_backward)
def _mean_cross_entropy(logits: Any, labels: Any) -> Any:
    return np.mean(_cross_entropy(logits, labels))


@fused(kernels.layer_norm, kernels.layer_norm_backward)
def _layer_norm(x: Any, scale: Any, shift: Any, *, epsilon: float = 1e-5) -> Any:
    away = x - np.mean(x, axis=-1, keepdims=True)
    variance = np.mean(np.square(away), axis=-1, keepdims=True)
    return away / np.sqrt(variance + epsilon) * scale + shift


@fused(kernels.embedding, kernels.embedding_backward)
def _embedding(table: Any, ids: Any) -> Any:
    return table[ids]


@fused(kernels.attention, kernels.attention_backward)
def _attention(q: Any, k: Any, v: Any, *, causal: bool = False) -> Any:
    scores = q @ np.swapaxes(k, -1, -2) * (1 / math.sqrt(q.shape[-1]))
    if causal:
        T, S = scores.shape[-2:]
        scores = np.where(np.tri(T, S, dtype=np.bool_), scores, -np.inf)
    return softmax(scores) @ v


@fused(kernels.multihead, kernels.multihead_backward)
def _multihead(qkv: Any, *, heads: int, causal: bool = False) -> Any:
    B, T, width = qkv.shape
    parts = np.reshape(qkv, (B, T, 3, heads, width // (3 * heads)))
    q, k, v = np.transpose(parts, (2, 0, 3, 1, 4))
    out = _attention(q, k, v, causal=causal)
    return np.reshape(np.transpose(out, (0, 2, 1, 3)), (B, T, width // 3))


@fused(kernels.conv2d, kernels.conv2d_backward)
def _conv2d(
    x: Any,
    w: Any,
    b: Any,
    *,
    stride: int = 1,
    padding: int = 0,
    activation: Activation = None,
) -> Any:
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    rows = (x.shape[1] - w.shape[0]) // stride + 1
    columns = (x.shape[2] - w.shape[1]) // stride + 1
    out = b
    for i, j in np.ndindex(*w.shape[:2]):
        window = x[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
        out = out + window[:, :rows, :columns] @ w[i, j]
    return _activate(out, activation)


@fused(kernels.conv2d_transpose, kernels.conv2d_transpose_backward)
def _conv2d_transpose(
    x: Any, w: Any, b: Any, *, stride: int = 1, padding: int = 0
) -> Any:
    N, H, W, F = x.shape
    kh, kw, C, _ = w.shape
    spread = np.pad(
        np.reshape(x, (N, H, 1, W, 1, F)),
        [(0, 0), (0, 0), (0, stride - 1), (0, 0), (0, stride - 1), (0, 0)],
    )
    spread = np.reshape(spread, (N, H * stride, W * stride, F))
    rows, columns = (H - 1) * stride + kh, (W - 1) * stride + kw
    total: Any = np.zeros((N, rows, columns, C), x.dtype)
    for i, j in np.ndindex(kh, kw):
        piece = (spread @ np.swapaxes(w[i, j], 0, 1))[:, : rows - i, : columns - j]
        after = rows - i - piece.shape[1], columns - j - piece.shape[2]
        total = total + np.pad(piece, [(0, 0), (i, after[0]), (j, after[1]), (0, 0)])
    return total[:, padding : rows - padding, padding : columns - padding] + b


@fused(kernels.lstm, kernels.lstm_backward)
def _lstm(x: Any, h0: Any, c0: Any, Wx: Any, Wh: Any, b: Any) -> Any:
    h, c, hs = h0, c0, []
    for x_t in x:
        a = x_t @ Wx + h @ Wh + b
        i, f, g, o = np.split(a, 4, axis=-1)
        c = special.expit(f) * c + special.expit(i) * np.tanh(g)
        h = special.expit(o) * np.tanh(c)
        hs.append(h)
    return np.stack([*hs, c])


@fused(kernels.gru, kernels.gru_backward)
def _gru(x: Any, h0: Any, Wx: Any, Wh: Any, bx: Any, bh: Any) -> Any:
    h, hs = h0, []
    for x_t in x:
        x_r, x_z, x_n = np.split(x_t @ Wx + bx, 3, axis=-1)
        h_r, h_z, h_n = np.split(h @ Wh + bh, 3, axis=-1)
        z = special.expit(x_z + h_z)
        n = np.tanh(x_n + special.expit(x_r + h_r) * h_n)
        h = (1 - z) * n + z * h
        hs.append(h)
    return np.stack(hs)


# ------------------------------------------------------------ without parameters


def relu(x: Any) -> Any:
    """max(x, 0), entry by entry; its slope at 0 is taken to be 0."""
    return _relu(_floats("x", x))


def sigmoid(x: Any) -> Any:
    """1 / (1 + e⁻ˣ), entry by entry."""
    return _sigmoid(_floats("x", x))


def gelu(x: Any, *, approximate: bool = False) -> Any:
    """x Φ(x) with the normal distribution function Φ, or with its tanh form.

    Hendrycks and Gimpel 2016, "Gaussian error linear units", arXiv:1606.08415, sec. 2.
    """
    return _gelu(_floats("x", x), approximate=approximate)


def cross_entropy(logits: Any, labels: Any) -> Any:
    """−log softmax(logits)[label] of each row, (...,), from logits (..., K).

    Raises:
        ValueError: labels that are not whole numbers in 0..K-1, one for each row.
    """
    return _cross_entropy(_floats("logits", logits), np.asarray(labels))


def mean_cross_entropy(logits: Any, labels: Any) -> Any:
    """The mean of `cross_entropy` over all rows.

    Raises:
        ValueError: as `cross_entropy`.
    """
    return _mean_cross_entropy(_floats("logits", logits), np.asarray(labels))


def attention(q: Any, k: Any, v: Any, *, causal: bool = False) -> Any:
    """softmax(q kᵀ / √d) v, (..., T, e).

    q (..., T, d), k (..., S, d), v (..., S, e).  With `causal`, position t sees
    positions up to t only.  Vaswani et al. 2017, "Attention is all you need", NeurIPS
    30, eq. 1.

    Raises:
        ValueError: shapes that do not fit.
    """
    q, k, v = (_floats(n, a) for n, a in zip("qkv", (q, k, v), strict=True))
    return _attention(q, k, v, causal=causal)


def multihead(qkv: Any, *, heads: int, causal: bool = False) -> Any:
    """Self-attention of several heads, (B, T, d).

    qkv (B, T, 3d) holds queries, keys and values, each with its heads side by side.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_whole("heads", heads, 1)
    return _multihead(_floats("qkv", qkv), heads=heads, causal=causal)


# ------------------------------------------------------------ layers


def dense_init(
    rng: np.random.Generator, n: int, m: int, *, gain: float = 2.0
) -> Params:
    """W (n, m) with variance gain / n, and b (m,) of zeros.

    Raises:
        ValueError: sizes below one, or a negative gain.
    """
    n, m = check_whole("n", n, 1), check_whole("m", m, 1)
    W = _normal(rng, (n, m), check_scalar("gain", gain, 0.0) / n)
    return {"W": W, "b": np.zeros(m, np.float32)}


def dense(params: Params, x: Any, *, activation: Activation = None) -> Any:
    """f(x W + b), (..., m), for x (..., n) and f "relu", "tanh" or nothing.

    Raises:
        ValueError: shapes that do not fit.
    """
    return _dense(_floats("x", x), params["W"], params["b"], activation=activation)


def mlp_init(
    rng: np.random.Generator, sizes: Sequence[int], *, gain: float = 2.0
) -> list[Params]:
    """Dense layers from sizes[0] to sizes[-1]; the last has variance 1 / n.

    Raises:
        ValueError: fewer than two sizes, or one below one.
    """
    if not isinstance(sizes, list | tuple) or len(sizes) < 2:
        raise ValueError(f"sizes is {sizes!r}, wants at least two widths")
    last = len(sizes) - 2
    return [
        dense_init(rng, n, m, gain=1.0 if i == last else gain)
        for i, (n, m) in enumerate(pairwise(sizes))
    ]


def mlp(params: list[Params], x: Any, *, activation: Activation = "relu") -> Any:
    """Dense layers one after the other, with an activation between them.

    Raises:
        ValueError: shapes that do not fit.
    """
    for layer in params[:-1]:
        x = dense(layer, x, activation=activation)
    return dense(params[-1], x)


def conv_init(
    rng: np.random.Generator, size: int, C: int, F: int, *, gain: float = 2.0
) -> Params:
    """Kernels w (size, size, C, F), from C channels to F, and b (F,) of zeros.

    Raises:
        ValueError: sizes below one, or a negative gain.
    """
    size, C, F = (
        check_whole(name, value, 1)
        for name, value in (("size", size), ("C", C), ("F", F))
    )
    variance = check_scalar("gain", gain, 0.0) / (size * size * C)
    return {
        "W": _normal(rng, (size, size, C, F), variance),
        "b": np.zeros(F, np.float32),
    }


def conv2d(
    params: Params,
    x: Any,
    *,
    stride: int = 1,
    padding: int = 0,
    activation: Activation = None,
) -> Any:
    """Σ x[n, i·stride + r, j·stride + c, :] W[r, c] + b, images (N, H, W, channels).

    Raises:
        ValueError: shapes that do not fit.
    """
    return _conv2d(
        _floats("x", x),
        params["W"],
        params["b"],
        stride=check_whole("stride", stride, 1),
        padding=check_whole("padding", padding, 0),
        activation=activation,
    )


def conv2d_transpose(
    params: Params, x: Any, *, stride: int = 1, padding: int = 0
) -> Any:
    """The adjoint of `conv2d`, plus b: every pixel of x (N, H, W, F) paints a kernel.

    W (size, size, C, F) as in the convolution that it mirrors, b (C,).

    Raises:
        ValueError: shapes that do not fit.
    """
    return _conv2d_transpose(
        _floats("x", x),
        params["W"],
        params["b"],
        stride=check_whole("stride", stride, 1),
        padding=check_whole("padding", padding, 0),
    )


def norm_init(d: int) -> Params:
    """scale (d,) of ones and shift (d,) of zeros.

    Raises:
        ValueError: d below one.
    """
    d = check_whole("d", d, 1)
    return {"scale": np.ones(d, np.float32), "shift": np.zeros(d, np.float32)}


def layer_norm(params: Params, x: Any, *, epsilon: float = 1e-5) -> Any:
    """(x − mean) / √(variance + ε) · scale + shift over the last axis.

    Ba, Kiros and Hinton 2016, "Layer normalization", arXiv:1607.06450, eq. 3-4.

    Raises:
        ValueError: shapes that do not fit.
    """
    return _layer_norm(
        _floats("x", x), params["scale"], params["shift"], epsilon=epsilon
    )


def embedding_init(rng: np.random.Generator, V: int, d: int) -> Any:
    """A table (V, d) of Gaussian rows, standard deviation 0.02.

    Raises:
        ValueError: sizes below one.
    """
    V, d = check_whole("V", V, 1), check_whole("d", d, 1)
    return _normal(rng, (V, d), 0.02**2)


def embedding(table: Any, ids: Any) -> Any:
    """table[ids], (..., d), for whole numbers ids (...,).

    Raises:
        ValueError: an id that is no row of the table.
    """
    return _embedding(_floats("table", table), np.asarray(ids))


def self_attention_init(rng: np.random.Generator, d: int) -> Params:
    """The layers of self-attention: "qkv" from d to 3d, and "out" from d to d.

    Raises:
        ValueError: d below one.
    """
    return {
        "qkv": dense_init(rng, d, 3 * d, gain=1.0),
        "out": dense_init(rng, d, d, gain=1.0),
    }


def self_attention(params: Params, x: Any, *, heads: int, causal: bool = False) -> Any:
    """Each position of x (B, T, d) reads from all others, by several heads.

    Raises:
        ValueError: shapes that do not fit, or heads that do not divide d.
    """
    qkv = dense(params["qkv"], x)
    return dense(params["out"], multihead(qkv, heads=heads, causal=causal))


def block_init(rng: np.random.Generator, d: int, hidden: int) -> Params:
    """The parts of a transformer block: two norms, self-attention, two dense layers.

    Raises:
        ValueError: sizes below one.
    """
    return {
        "norm1": norm_init(d),
        "attention": self_attention_init(rng, d),
        "norm2": norm_init(d),
        "up": dense_init(rng, d, hidden, gain=1.0),
        "down": dense_init(rng, hidden, d, gain=1.0),
    }


def block(params: Params, x: Any, *, heads: int, causal: bool = False) -> Any:
    """A transformer block on x (B, T, d): attention, then an MLP, each added to x.

    The norms stand before each part (Xiong et al. 2020, "On layer normalization in the
    transformer architecture", ICML).

    Raises:
        ValueError: shapes that do not fit.
    """
    read = layer_norm(params["norm1"], x)
    x = x + self_attention(params["attention"], read, heads=heads, causal=causal)
    up = dense(params["up"], layer_norm(params["norm2"], x))
    return x + dense(params["down"], gelu(up))


def lstm_init(rng: np.random.Generator, n: int, H: int) -> Params:
    """Wx (n, 4H), Wh (H, 4H), b (4H,), gates in the order i, f, g, o.

    The forget gates start open, at b = 1 (Jozefowicz, Zaremba and Sutskever 2015, "An
    empirical exploration of recurrent network architectures", ICML).

    Raises:
        ValueError: sizes below one.
    """
    n, H = check_whole("n", n, 1), check_whole("H", H, 1)
    b = np.zeros(4 * H, np.float32)
    b[H : 2 * H] = 1.0
    return {
        "Wx": _normal(rng, (n, 4 * H), 1 / n),
        "Wh": _normal(rng, (H, 4 * H), 1 / H),
        "b": b,
    }


def lstm(params: Params, x: Any, h0: Any = None, c0: Any = None) -> tuple[Any, Any]:
    """The hidden states (T, B, H) of an LSTM on x (T, B, n), and its last cell (B, H).

    Start at h0, c0 (B, H), zeros by default.  Hochreiter and Schmidhuber 1997, "Long
    short-term memory", Neural Computation 9, with the forget gate of Gers,
    Schmidhuber and Cummins 2000, Neural Computation 12.

    Raises:
        ValueError: shapes that do not fit.
    """
    x, H = _floats("x", x), params["Wh"].shape[0]
    h0, c0 = (_start(name, s, x, H) for name, s in (("h0", h0), ("c0", c0)))
    both = _lstm(x, h0, c0, params["Wx"], params["Wh"], params["b"])
    return both[:-1], both[-1]


def gru_init(rng: np.random.Generator, n: int, H: int) -> Params:
    """Wx (n, 3H), Wh (H, 3H), bx and bh (3H,), gates in the order r, z, n.

    Raises:
        ValueError: sizes below one.
    """
    n, H = check_whole("n", n, 1), check_whole("H", H, 1)
    return {
        "Wx": _normal(rng, (n, 3 * H), 1 / n),
        "Wh": _normal(rng, (H, 3 * H), 1 / H),
        "bx": np.zeros(3 * H, np.float32),
        "bh": np.zeros(3 * H, np.float32),
    }


def gru(params: Params, x: Any, h0: Any = None) -> Any:
    """The hidden states (T, B, H) of gated recurrent units on x (T, B, n).

    Starts at h0 (B, H), zeros by default.  Cho et al. 2014, "Learning phrase
    representations using RNN encoder-decoder", EMNLP, with the reset gate after the
    product with Wh, as in PyTorch.

    Raises:
        ValueError: shapes that do not fit.
    """
    x = _floats("x", x)
    h0 = _start("h0", h0, x, params["Wh"].shape[0])
    return _gru(x, h0, params["Wx"], params["Wh"], params["bx"], params["bh"])


# ------------------------------------------------------------ at the door


def _normal(rng: np.random.Generator, shape: tuple[int, ...], variance: float) -> Any:
    check_rng(rng)
    return rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(variance))


def _floats(name: str, x: Any) -> Any:
    """`x`, if it is an array of floats or a traced one.

    Raises:
        ValueError: it is something else.
    """
    kind = getattr(getattr(x, "dtype", None), "kind", None)
    if kind != "f":
        got = type(x).__name__ if kind is None else f"an array of {x.dtype}"
        raise ValueError(f"{name} is {got}, wants an array of floats")
    return x


def _start(name: str, state: Any, x: Any, H: int) -> Any:
    if x.ndim != 3:
        raise ValueError(f"x has shape {x.shape}, wants (T, B, n)")
    if state is None:
        return np.zeros((x.shape[1], H), x.dtype)
    return _floats(name, state)
