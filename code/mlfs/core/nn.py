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

Types, shapes and labels are checked at every call.  The numbers within an array are not
looked at, which would cost as much as a layer: NaN goes in and comes out, and
`mlfs.core.optim` refuses the loss or the gradient that it leads to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from scipy import special

from mlfs.autodiff import Traced, fused, log_softmax, logsumexp, softmax
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
    _check_range("labels", labels, logits.shape[-1])
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
    _check_range("ids", ids, table.shape[0])
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
    """max(x, 0), entry by entry; its slope at 0 is taken to be 0.

    Raises:
        ValueError: x is no array of floats.
    """
    return _relu(_floats("x", x))


def sigmoid(x: Any) -> Any:
    """1 / (1 + e⁻ˣ), entry by entry.

    Raises:
        ValueError: x is no array of floats.
    """
    return _sigmoid(_floats("x", x))


def gelu(x: Any, *, approximate: bool = False) -> Any:
    """x Φ(x) with the normal distribution function Φ, or with its tanh form.

    Hendrycks and Gimpel 2016, "Gaussian error linear units", arXiv:1606.08415, sec. 2.

    Raises:
        ValueError: x is no array of floats.
    """
    _check_flag("approximate", approximate)
    return _gelu(_floats("x", x), approximate=approximate)


def cross_entropy(logits: Any, labels: Any) -> Any:
    """−log softmax(logits)[label] of each row, (...,), from logits (..., K).

    Raises:
        ValueError: labels that are not whole numbers in 0..K-1, one for each row.
    """
    return _cross_entropy(*_labelled(logits, labels))


def mean_cross_entropy(logits: Any, labels: Any) -> Any:
    """The mean of `cross_entropy` over all rows.

    Raises:
        ValueError: as `cross_entropy`, or there is no row.
    """
    logits, labels = _labelled(logits, labels)
    if not labels.size:
        raise ValueError(f"logits has shape {logits.shape}, wants at least one row")
    return _mean_cross_entropy(logits, labels)


def attention(q: Any, k: Any, v: Any, *, causal: bool = False) -> Any:
    """softmax(q kᵀ / √d) v, (..., T, e).

    q (..., T, d), k (..., S, d), v (..., S, e).  With `causal`, position t sees
    positions up to t only, and S is T.  Vaswani et al. 2017, "Attention is all you
    need", NeurIPS 30, eq. 1.

    Raises:
        ValueError: shapes that do not fit, or there is no key.
    """
    q = _floats("q", q)
    if q.ndim < 2 or q.shape[-1] == 0:
        raise ValueError(f"q has shape {q.shape}, wants (..., T, d)")
    _check_flag("causal", causal)
    *lead, T, d = q.shape
    k = _part("k", k, q, (*lead, T if causal else "S", d))
    if k.shape[-2] == 0:
        raise ValueError(f"k has shape {k.shape}, wants (..., S, d), at least one key")
    v = _part("v", v, q, (*k.shape[:-1], "e"))
    return _attention(q, k, v, causal=causal)


def multihead(qkv: Any, *, heads: int, causal: bool = False) -> Any:
    """Self-attention of several heads, (B, T, d).

    qkv (B, T, 3d) holds queries, keys and values, each with its heads side by side.

    Raises:
        ValueError: shapes that do not fit, or heads that do not divide d.
    """
    heads = check_whole("heads", heads, 1)
    _check_flag("causal", causal)
    qkv = _part("qkv", qkv, qkv, ("B", "T", "3d"))
    if 0 in qkv.shape[1:] or qkv.shape[2] % (3 * heads):
        raise ValueError(
            f"qkv has shape {qkv.shape}, wants (B, T, 3d), with d a multiple of heads, "
            f"{heads}"
        )
    return _multihead(qkv, heads=heads, causal=causal)


# ------------------------------------------------------------ layers


def dense_init(
    rng: np.random.Generator, n: int, m: int, *, gain: float = 2.0
) -> Params:
    """W (n, m) with variance gain / n, and b (m,) of zeros.

    Raises:
        ValueError: sizes below one, or a negative gain.
    """
    n, m = check_whole("n", n, 1), check_whole("m", m, 1)
    W = _normal(rng, (n, m), check_scalar("gain", gain, 0.0, LARGEST_GAIN) / n)
    return {"W": W, "b": np.zeros(m, np.float32)}


def dense(params: Params, x: Any, *, activation: Activation = None) -> Any:
    """f(x W + b), (..., m), for x (..., n) and f "relu", "tanh" or nothing.

    Raises:
        ValueError: shapes that do not fit.
    """
    W, b = _parts(params, "W", "b")
    if activation is not None:
        _check_activation(activation)
    if not _fit(x, W, b):
        x = _floats("x", x)
        if x.ndim == 0:
            raise ValueError("x has shape (), wants (..., n)")
        W = _part("params['W']", W, x, (x.shape[-1], "m"))
        b = _part("params['b']", b, x, W.shape[1:])
    return _dense(x, W, b, activation=activation)


def mlp_init(
    rng: np.random.Generator, sizes: Sequence[int], *, gain: float = 2.0
) -> list[Params]:
    """Dense layers from sizes[0] to sizes[-1]; the last has variance 1 / n.

    Raises:
        ValueError: fewer than two sizes, or one below one.
    """
    if not isinstance(sizes, list | tuple) or len(sizes) < 2:
        raise ValueError(f"sizes is {sizes!r}, wants a list of at least two widths")
    sizes = [check_whole(f"sizes[{i}]", n, 1) for i, n in enumerate(sizes)]
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
    if not isinstance(params, list | tuple) or not params:
        got = "empty" if params == [] else f"a {type(params).__name__}"
        raise ValueError(f"params is {got}, wants a list of layers, as mlp_init makes")
    _check_activation(activation)
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
    variance = check_scalar("gain", gain, 0.0, LARGEST_GAIN) / (size * size * C)
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
    stride, padding = _steps(stride, padding)
    _check_activation(activation)
    W, b = _parts(params, "W", "b")
    x = _image(x)
    W = _part("params['W']", W, x, ("size", "size", x.shape[3], "F"))
    b = _part("params['b']", b, x, W.shape[3:])
    height, width = x.shape[1] + 2 * padding, x.shape[2] + 2 * padding
    if 0 in W.shape or W.shape[0] > height or W.shape[1] > width:
        raise ValueError(
            f"params['W'] has shape {W.shape}, wants a kernel that fits an image of "
            f"{height} by {width}, its padding included"
        )
    return _conv2d(x, W, b, stride=stride, padding=padding, activation=activation)


def conv2d_transpose(
    params: Params, x: Any, *, stride: int = 1, padding: int = 0
) -> Any:
    """The adjoint of `conv2d`, plus b: every pixel of x (N, H, W, F) paints a kernel.

    W (size, size, C, F) as in the convolution that it mirrors, b (C,).

    Raises:
        ValueError: shapes that do not fit.
    """
    stride, padding = _steps(stride, padding)
    W, b = _parts(params, "W", "b")
    x = _image(x)
    W = _part("params['W']", W, x, ("size", "size", "C", x.shape[3]))
    b = _part("params['b']", b, x, W.shape[2:3])
    if 0 in W.shape:
        raise ValueError(f"params['W'] has shape {W.shape}, wants no axis of length 0")
    full = [(n - 1) * stride + k for n, k in zip(x.shape[1:3], W.shape, strict=False)]
    if 2 * padding >= min(full):
        raise ValueError(
            f"padding is {padding}, wants less than half of the image painted, which "
            f"is {full[0]} by {full[1]}"
        )
    return _conv2d_transpose(x, W, b, stride=stride, padding=padding)


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
    x = _floats("x", x)
    if x.ndim == 0 or x.shape[-1] == 0:
        raise ValueError(f"x has shape {x.shape}, wants (..., d)")
    if type(epsilon) is not float or not 1e-30 <= epsilon <= 1:
        # of equal entries the variance is 0, and ε all that is divided by
        epsilon = check_scalar("epsilon", epsilon, 1e-30, 1.0)
    scale, shift = _parts(params, "scale", "shift")
    scale = _part("params['scale']", scale, x, x.shape[-1:])
    shift = _part("params['shift']", shift, x, x.shape[-1:])
    return _layer_norm(x, scale, shift, epsilon=epsilon)


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
    table = _part("table", table, table, ("V", "d"))
    return _embedding(table, _whole("ids", ids))


def self_attention_init(rng: np.random.Generator, d: int) -> Params:
    """The layers of self-attention: "qkv" from d to 3d, and "out" from d to d.

    Raises:
        ValueError: d below one.
    """
    d = check_whole("d", d, 1)
    return {
        "qkv": dense_init(rng, d, 3 * d, gain=1.0),
        "out": dense_init(rng, d, d, gain=1.0),
    }


def self_attention(params: Params, x: Any, *, heads: int, causal: bool = False) -> Any:
    """Each position of x (B, T, d) reads from all others, by several heads.

    Raises:
        ValueError: shapes that do not fit, or heads that do not divide d.
    """
    inner, outer = _parts(params, "qkv", "out")
    x = _part("x", x, x, ("B", "T", "d"))
    if x.shape[1] == 0 or x.shape[2] % check_whole("heads", heads, 1):
        raise ValueError(
            f"x has shape {x.shape}, wants (B, T, d), with d a multiple of heads, "
            f"{heads}"
        )
    mixed = multihead(dense(inner, x), heads=heads, causal=causal)
    return dense(outer, mixed)


def block_init(rng: np.random.Generator, d: int, hidden: int) -> Params:
    """The parts of a transformer block: two norms, self-attention, two dense layers.

    Raises:
        ValueError: sizes below one.
    """
    d, hidden = check_whole("d", d, 1), check_whole("hidden", hidden, 1)
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
    norm1, mix, norm2, up, down = _parts(
        params, "norm1", "attention", "norm2", "up", "down"
    )
    x = x + self_attention(mix, layer_norm(norm1, x), heads=heads, causal=causal)
    return x + dense(down, gelu(dense(up, layer_norm(norm2, x))))


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
    Wx, Wh, b = _parts(params, "Wx", "Wh", "b")
    x, H = _sequence(x), _width(Wh)
    Wx, Wh = _gates(Wx, Wh, x, H, 4)
    b = _part("params['b']", b, x, (4 * H,))
    both = _lstm(x, _start("h0", h0, x, H), _start("c0", c0, x, H), Wx, Wh, b)
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
    Wx, Wh, bx, bh = _parts(params, "Wx", "Wh", "bx", "bh")
    x, H = _sequence(x), _width(Wh)
    Wx, Wh = _gates(Wx, Wh, x, H, 3)
    bx = _part("params['bx']", bx, x, (3 * H,))
    bh = _part("params['bh']", bh, x, (3 * H,))
    return _gru(x, _start("h0", h0, x, H), Wx, Wh, bx, bh)


# ------------------------------------------------------------ at the door

_FLOAT32, _FLOAT64 = np.dtype(np.float32), np.dtype(np.float64)
_TYPES = {_FLOAT32, _FLOAT64}
_ARRAYS = {np.ndarray, Traced}
LARGEST_GAIN = 1e30  # a larger variance leaves the range of float32


def _normal(rng: np.random.Generator, shape: tuple[int, ...], variance: float) -> Any:
    check_rng(rng)
    return rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(variance))


def _floats(name: str, x: Any) -> Any:
    """`x`, if it is an array of floats or a traced one.

    Raises:
        ValueError: it is something else.
    """
    if type(x) is not np.ndarray and type(x) is not Traced:
        if not isinstance(x, np.ndarray | np.generic) or np.ma.isMaskedArray(x):
            raise ValueError(
                f"{name} is a {type(x).__name__}, wants an array of float32 or float64"
            )
        x = np.asarray(x)
    if x.dtype not in _TYPES:
        raise ValueError(f"{name} holds {x.dtype}, wants float32 or float64")
    return x


def _fit(x: Any, W: Any, b: Any) -> bool:
    """Whether a dense layer can use these as they are, at a glance.

    Small networks spend their time here: the slower checks, which find the words for
    what is wrong, take three times as long.
    """
    return bool(
        type(x) in _ARRAYS
        and type(W) in _ARRAYS
        and type(b) in _ARRAYS
        and (x.dtype is _FLOAT32 or x.dtype is _FLOAT64)
        and x.dtype is W.dtype is b.dtype
        and x.ndim
        and W.ndim == 2
        and W.shape == (x.shape[-1], *b.shape)
    )


def _part(name: str, a: Any, x: Any, shape: tuple[int | str, ...]) -> Any:
    """`a`, floats of x's type; a name in `shape` stands for any length.

    Raises:
        ValueError: it holds something else, or has another shape.
    """
    a = _floats(name, a)
    if a.dtype != x.dtype:
        raise ValueError(
            f"{name} holds {a.dtype}, wants {x.dtype}, as the other arguments do: the "
            "result would silently be float64"
        )
    have = a.shape
    if have != shape and (
        len(have) != len(shape)
        or any(n != s and type(s) is int for n, s in zip(have, shape, strict=True))
    ):
        want = ", ".join(map(str, shape)) + "," * (len(shape) == 1)
        raise ValueError(f"{name} has shape {have}, wants ({want})")
    return a


def _parts(params: Any, *names: str) -> list[Any]:
    """The entries of `params` with these names.

    Raises:
        ValueError: it is no dict, or lacks one.
    """
    try:
        return [params[name] for name in names]
    except (KeyError, IndexError, TypeError):
        got = list(params) if isinstance(params, dict) else type(params).__name__
        raise ValueError(f"params is {got}, wants a dict with {list(names)}") from None


def _check_flag(name: str, flag: Any) -> None:
    if not isinstance(flag, bool | np.bool_):
        raise ValueError(f"{name} is {flag!r}, wants True or False")


def _check_activation(activation: Any) -> None:
    known = isinstance(activation, str) and activation in ("relu", "tanh")
    if not known and activation is not None:
        got = repr(activation) if isinstance(activation, str) else type(activation)
        raise ValueError(f"activation is {got}, wants 'relu', 'tanh' or None")


def _whole(name: str, ids: Any) -> Any:
    """`ids` as an array of whole numbers.

    Raises:
        ValueError: they are something else.
    """
    if type(ids) is not np.ndarray:
        if type(ids) is Traced or np.ma.isMaskedArray(ids):
            raise ValueError(
                f"{name} is a {type(ids).__name__}, wants an array of whole numbers"
            )
        ids = np.asarray(ids)
    if ids.dtype.kind not in "iu":
        raise ValueError(f"{name} holds {ids.dtype}, wants whole numbers")
    return ids


def _check_range(name: str, ids: Any, K: int) -> None:
    """Refuse what is not in 0..K-1; the kernels do the same for plain arrays."""
    if ids.size and (ids.min() < 0 or ids.max() >= K):
        raise ValueError(
            f"{name} runs from {ids.min()} to {ids.max()}, wants 0 to {K - 1}"
        )


def _labelled(logits: Any, labels: Any) -> tuple[Any, Any]:
    logits, labels = _floats("logits", logits), _whole("labels", labels)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits has shape {logits.shape}, wants (..., K)")
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels has shape {labels.shape}, wants {logits.shape[:-1]}, one label "
            "for each row of logits"
        )
    return logits, labels


def _steps(stride: Any, padding: Any) -> tuple[int, int]:
    return check_whole("stride", stride, 1), check_whole("padding", padding, 0)


def _image(x: Any) -> Any:
    x = _part("x", x, x, ("N", "height", "width", "channels"))
    if 0 in x.shape[1:]:
        raise ValueError(f"x has shape {x.shape}, wants images with pixels in them")
    return x


def _sequence(x: Any) -> Any:
    x = _part("x", x, x, ("T", "B", "n"))
    if x.shape[0] == 0:
        raise ValueError(f"x has shape {x.shape}, wants (T, B, n), at least one step")
    return x


def _width(Wh: Any) -> int:
    """H, the number of rows of the recurrent weights."""
    shape = _floats("params['Wh']", Wh).shape
    return int(shape[0]) if shape else 0


def _gates(Wx: Any, Wh: Any, x: Any, H: int, gates: int) -> tuple[Any, Any]:
    Wh = _part("params['Wh']", Wh, x, (H, gates * H))
    return _part("params['Wx']", Wx, x, (x.shape[2], gates * H)), Wh


def _start(name: str, state: Any, x: Any, H: int) -> Any:
    shape = (x.shape[1], H)
    if state is None:
        return np.zeros(shape, x.dtype)
    return _part(name, state, x, shape)
