"""Layers: each fused form against its composed form, against differences, and by hand.

No fused form is listed here by hand: they are found in `mlfs.core.nn`, and one that
CASES does not know fails a test that says so.
"""

import itertools

import numpy as np
import pytest
from scipy import signal, special, stats

from mlfs import autodiff as ad
from mlfs.core import kernels, nn
from mlfs.core.tree import flatten
from oracles import autodiff as oracle

FUSED = {name: it for name, it in vars(nn).items() if isinstance(it, ad.Fused)}

# ---------------------------------------------------------------- cases

rng = np.random.default_rng(0)


def draw(*shape, scale=1.0):
    """Numbers in [-2, 2] times scale, no closer to 0 than 0.1 times scale."""
    x = rng.uniform(-1.9, 1.9, shape)
    return np.asarray(scale * (x + 0.1 * np.sign(x)))


def whole(high, *shape):
    return np.asarray(rng.integers(0, high, shape))


def smooth_relu(make, before):
    """Arguments for which no entry before the relu is close to its kink."""
    return next(args for args in iter(make, None) if np.abs(before(*args)).min() > 0.12)


def image(x, w, b, **options):
    return nn._conv2d.composed(x, w, b, **options)


def dense_relu(*shape):
    return smooth_relu(
        lambda: (draw(*shape), draw(shape[-1], 3, scale=0.7), draw(3)),
        lambda x, W, b: x @ W + b,
    )


def conv_args(N, H, W, C, F, kh, kw):
    return draw(N, H, W, C), draw(kh, kw, C, F, scale=0.5), draw(F)


def recurrent(T, B, n, H, gates):
    return (
        draw(T, B, n, scale=0.7),
        draw(B, H, scale=0.5),
        *([draw(B, H, scale=0.7)] if gates == 4 else []),
        draw(n, gates * H, scale=0.5),
        draw(H, gates * H, scale=0.5),
        draw(gates * H, scale=0.5),
        *([draw(gates * H, scale=0.5)] if gates == 3 else []),
    )


# Of each fused form: (arguments, options).  Whole numbers are labels or ids.
CASES = {
    "_relu": [((draw(2, 3),), {}), ((draw(),), {}), ((draw(4),), {})],
    "_sigmoid": [((draw(2, 3, scale=2.0),), {}), ((draw(),), {})],
    "_gelu": [
        ((draw(2, 5, scale=1.5),), {"approximate": approximate})
        for approximate in (False, True)
    ]
    + [((draw(),), {})],
    "_dense": [
        ((draw(*lead, 4), draw(4, 3, scale=0.7), draw(3)), {"activation": activation})
        for lead in ((), (2,), (2, 3))
        for activation in (None, "tanh")
    ]
    + [(dense_relu(*lead, 4), {"activation": "relu"}) for lead in ((), (2,), (2, 2))],
    "_cross_entropy": [
        ((draw(4, 3), whole(3, 4)), {}),
        ((draw(2, 3, 4, scale=4.0), whole(4, 2, 3)), {}),
        ((draw(3), whole(3)), {}),
    ],
    "_mean_cross_entropy": [
        ((draw(4, 3), whole(3, 4)), {}),
        ((draw(2, 3, 4, scale=4.0), whole(4, 2, 3)), {}),
    ],
    "_layer_norm": [
        ((draw(2, 4), draw(4), draw(4)), {}),
        ((draw(2, 2, 3), draw(3), draw(3)), {"epsilon": 0.3}),
        ((draw(5), draw(5), draw(5)), {"epsilon": 1e-3}),
    ],
    "_embedding": [
        ((draw(4, 3), np.array([0, 2, 2, 1, 0])), {}),
        ((draw(3, 2), whole(3, 2, 3)), {}),
        ((draw(3, 2), np.array(1)), {}),
    ],
    "_attention": [
        ((draw(3, 2), draw(4, 2), draw(4, 3)), {}),
        ((draw(2, 3, 4), draw(2, 3, 4), draw(2, 3, 2)), {"causal": True}),
        ((draw(2, 1, 2, 3), draw(2, 1, 3, 3), draw(2, 1, 3, 1)), {}),
    ],
    "_multihead": [
        ((draw(2, 3, 12),), {"heads": heads, "causal": causal})
        for heads, causal in itertools.product((1, 2, 4), (False, True))
    ],
    "_conv2d": [
        (conv_args(2, 5, 4, 2, 3, 3, 2), {"stride": stride, "padding": padding})
        for stride, padding in itertools.product((1, 2), (0, 1))
    ]
    + [
        (conv_args(1, 4, 5, 2, 2, 1, 1), {}),
        (conv_args(1, 2, 3, 1, 2, 2, 2), {"stride": 3, "padding": 2}),
        (conv_args(1, 2, 3, 1, 2, 2, 3), {"padding": 2}),
        (conv_args(1, 2, 1, 2, 1, 2, 1), {"padding": 2}),
        (conv_args(2, 4, 4, 1, 2, 3, 3), {"activation": "tanh"}),
        (
            smooth_relu(
                lambda: conv_args(1, 3, 4, 2, 2, 2, 2),
                lambda *args: image(*args, padding=1),
            ),
            {"activation": "relu", "padding": 1},
        ),
    ],
    "_conv2d_transpose": [
        (
            (draw(2, 3, 2, 3), draw(3, 4, 2, 3, scale=0.5), draw(2)),
            {"stride": stride, "padding": padding},
        )
        for stride, padding in itertools.product((1, 2, 3), (0, 1))
    ]
    + [
        ((draw(1, 2, 3, 2), draw(1, 1, 1, 2), draw(1)), {"stride": 2}),
        ((draw(1, 5, 4, 2), draw(2, 3, 1, 2), draw(1)), {"padding": 2}),
    ],
    "_lstm": [(recurrent(3, 2, 2, 2, 4), {}), (recurrent(1, 1, 3, 1, 4), {})],
    "_gru": [(recurrent(3, 2, 2, 2, 3), {}), (recurrent(1, 1, 3, 1, 3), {})],
}
# Sizes at which the kernels take another way: more than one block, scores too large to
# go without their maximum, saturated gates.  Too large for differences.
LARGE = {
    "_relu": [((draw(9, 3, scale=1e3).T,), {})],
    "_sigmoid": [((draw(9, 3, scale=30.0),), {})],
    "_gelu": [
        ((draw(9, 3, scale=4.0),), {}),
        ((draw(9, scale=4.0),), {"approximate": True}),
    ],
    "_cross_entropy": [
        ((draw(3, 7, scale=300.0).T, whole(3, 7)), {}),
        ((draw(5, 2, 3).transpose(1, 2, 0), whole(5, 2, 3)), {}),
    ],
    "_mean_cross_entropy": [((draw(3, 7, scale=300.0).T, whole(3, 7)), {})],
    "_dense": [((draw(4, 6, 3).T, draw(5, 4).T, draw(5)), {"activation": "tanh"})],
    "_layer_norm": [((draw(4, 6, 3, scale=50.0).T, draw(4), draw(4)), {})],
    "_embedding": [((draw(3, 9).T, whole(9, 4, 20).T), {})],
    "_attention": [
        ((draw(1, T, 4), draw(1, T, 4), draw(1, T, 2)), {"causal": True})
        for T in (64, 65, 70, 130)
    ]
    + [
        ((draw(2, 5, 3, scale=9.0), draw(2, 5, 3, scale=9.0), draw(2, 5, 2)), options)
        for options in ({}, {"causal": True})
    ]
    + [((draw(3, 2, 5).T, draw(3, 2, 5).T, draw(1, 2, 5).T), {"causal": True})],
    "_multihead": [
        ((draw(1, 70, 12),), {"heads": 2, "causal": True}),
        ((draw(2, 5, 12, scale=9.0),), {"heads": 2, "causal": True}),
        ((draw(12, 5, 2).T,), {"heads": 2}),
    ],
    "_conv2d": [
        (conv_args(10, 32, 32, 3, 2, 3, 3), {"padding": 1}),
        (conv_args(3, 64, 64, 4, 2, 5, 5), {"stride": 2, "activation": "tanh"}),
        (conv_args(2, 60, 60, 4, 2, 5, 5), {}),
        ((draw(2, 4, 5, 3).T, draw(2, 2, 2, 3).T[:2], draw(2)), {"padding": 3}),
    ],
    "_conv2d_transpose": [
        ((draw(10, 32, 32, 2), draw(3, 3, 3, 2), draw(3)), {"padding": 1}),
        ((draw(2, 4, 5, 3).T, draw(2, 2, 3, 3).T, draw(2)), {"padding": 1}),
    ],
    "_lstm": [(recurrent(20, 3, 4, 5, 4), {})],
    "_gru": [(recurrent(20, 3, 4, 5, 3), {})],
}


def parameters(tables):
    for name, fused in FUSED.items():
        for table in tables:
            for i, (args, options) in enumerate(table.get(name, [])):
                kind = "large" if table is LARGE else "small"
                yield pytest.param(fused, args, options, id=f"{name[1:]}-{kind}-{i}")


each_case = pytest.mark.parametrize(
    ("fused", "args", "options"), list(parameters([CASES, LARGE]))
)
each_small = pytest.mark.parametrize(
    ("fused", "args", "options"), list(parameters([CASES]))
)


def test_every_fused_form_has_a_case():
    unknown = sorted(set(FUSED) - set(CASES))
    assert not unknown, f"no case in CASES of tests/test_nn.py for {unknown}"
    assert set(CASES) | set(LARGE) == set(FUSED)


def floats(args):
    """The numbers of the arguments that can be differentiated."""
    return [i for i, a in enumerate(args) if a.dtype.kind == "f"]


def subsets(places):
    for n in range(1, len(places) + 1):
        yield from itertools.combinations(places, n)


def of(function, args, options, places):
    """`function` of the arguments at `places` only."""

    def f(*chosen):
        given = list(args)
        for i, x in zip(places, chosen, strict=True):
            given[i] = x
        return function(*given, **options)

    return f


def random_like(out, seed=3):
    """A cotangent."""
    return np.random.default_rng(seed).normal(size=np.shape(out))


def close(got, want, rtol):
    """As arrays: within rtol of the largest entry."""
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=rtol * (1 + np.abs(want).max()))


# ---------------------------------------------------------------- fused = composed


@each_case
def test_fused_is_the_composed_form(fused, args, options):
    """Value and gradients, whatever is traced."""
    want = fused.composed(*args, **options)
    close(fused(*args, **options), want, 1e-12)
    g = random_like(want)
    all_shares = dict(
        zip(
            floats(args),
            ad.vjp(of(fused.composed, args, options, floats(args)), *some(args))[1](g),
            strict=True,
        )
    )
    for places in subsets(floats(args)):
        chosen = [args[i] for i in places]
        out, pullback = ad.vjp(of(fused, args, options, places), *chosen)
        close(out, want, 1e-12)
        shares = pullback(g)
        for i, share in zip(places, shares, strict=True):
            close(share, all_shares[i], 1e-10)
        for one, other in itertools.combinations([*shares, out, *args], 2):
            mine = any(one is share for share in shares)
            assert not (mine and np.shares_memory(one, other))


def some(args):
    return [args[i] for i in floats(args)]


@each_case
def test_float32_stays(fused, args, options):
    """Value, gradients and tangents, fused and composed, to float32 precision."""
    narrow = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in args]
    wide = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in narrow]
    places = floats(args)
    want, pullback = ad.vjp(of(fused.composed, wide, options, places), *some(wide))
    g = random_like(want).astype(np.float32)
    shares = pullback(g.astype(np.float64))
    tangents = [random_like(x, i).astype(np.float32) for i, x in enumerate(some(wide))]
    moved = ad.jvp(
        of(fused, wide, options, places),
        some(wide),
        [t.astype(np.float64) for t in tangents],
    )[1]
    size = max(np.abs(a).max() for a in wide)  # scores are products of two
    tolerance = 3e-7 * (1 + size) * sum(a.size for a in wide) ** 0.5
    for function in (fused, fused.composed):
        f = of(function, narrow, options, places)
        out, pullback = ad.vjp(f, *some(narrow))
        found = pullback(g)
        tangent = ad.jvp(f, some(narrow), tangents)[1]
        assert {out.dtype, tangent.dtype, *(s.dtype for s in found)} == {g.dtype}
        close(out, want, tolerance)
        close(tangent, moved, tolerance)
        for share, right in zip(found, shares, strict=True):
            close(share, right, tolerance)
    plain = fused(*narrow, **options)
    assert plain.dtype == np.float32
    close(plain, want, tolerance)


@each_case
def test_what_is_not_needed_is_not_computed(fused, args, options):
    """And nothing that was handed over is written to."""
    places = floats(args)
    handed = [a.copy() for a in args]
    for a in handed:
        a.flags.writeable = False
    out, saved = fused.forward(*handed, **options)
    out.flags.writeable = False
    kept = [np.array(s, copy=True) for s in saved if isinstance(s, np.ndarray)]
    g = random_like(out)
    g.flags.writeable = False
    for chosen in [(), *subsets(places)]:
        needs = tuple(i in chosen for i in range(len(args)))
        shares = fused.backward(g, out, saved, *handed, needs=needs, **options)
        assert [s is not None for s in shares] == list(needs)
    again = [s for s in saved if isinstance(s, np.ndarray)]
    for one, other in zip(again, kept, strict=True):
        np.testing.assert_array_equal(one, other)


# ---------------------------------------------------------------- differences


def flat(fused, args, options):
    """One number of one vector: random weights on the result."""
    places = floats(args)
    shapes = [args[i].shape for i in places]
    ends = np.cumsum([args[i].size for i in places])[:-1]
    weights = random_like(fused.composed(*args, **options), 5)
    function = of(fused, args, options, places)

    def number(x):
        parts = np.split(x, ends)
        parts = [np.reshape(p, s) for p, s in zip(parts, shapes, strict=True)]
        return np.sum(weights * function(*parts))

    x = np.concatenate([args[i].ravel() for i in places])
    u, v = np.random.default_rng(6).normal(size=(2, x.size))
    # Steps of a length: no relu may change its sign on the way.
    return number, x, u / np.linalg.norm(u), v / np.linalg.norm(v)


@each_small
def test_first_order(fused, args, options):
    number, x, u, _ = flat(fused, args, options)
    want = oracle.slope(number, x, u)
    scale = 1 + abs(number(x))
    gradient = ad.grad(number)(x)
    assert abs(gradient @ u - want) < 1e-9 * scale
    forward = ad.jvp(number, (x,), (u,))[1]
    np.testing.assert_allclose(forward, gradient @ u, rtol=1e-11, atol=1e-12)


@each_small
def test_second_order(fused, args, options):
    number, x, u, v = flat(fused, args, options)
    want = oracle.curvature(number, x, u, v)
    over = ad.hvp(number, x, v) @ u
    assert abs(over - want) < 1e-6 * (1 + abs(number(x)))
    twice = ad.grad(lambda x: ad.grad(number)(x) @ v)(x) @ u
    forward = ad.jvp(lambda x: ad.jvp(number, (x,), (v,))[1], (x,), (u,))[1]
    mixed = ad.grad(lambda x: ad.jvp(number, (x,), (v,))[1])(x) @ u
    for other in (twice, forward, mixed):
        np.testing.assert_allclose(other, over, rtol=1e-10, atol=1e-11)


@each_small
def test_a_traced_cotangent_is_pulled_back(fused, args, options):
    """The pullback is linear in g, so its own derivative is the Jacobian."""
    places = floats(args)
    f = of(fused, args, options, places)
    moving = [random_like(a, i) for i, a in enumerate(some(args))]
    out, pullback = ad.vjp(f, *some(args))
    want = ad.jvp(f, some(args), moving)[1]

    def number(g):
        pairs = zip(moving, pullback(g), strict=True)
        return sum(np.sum(m * share) for m, share in pairs)

    g = random_like(out)
    close(ad.grad(number)(g), want, 1e-11)
    close(ad.jvp(pullback, (g,), (g,))[1][0], pullback(g)[0], 1e-11)


def test_a_gradient_through_a_layer_within_a_gradient():
    """The outer level's arguments reach the inner level's layer as constants."""
    x, W, b = draw(3), draw(3, 3), draw(3)

    def inner(x, W):
        return np.sum(nn.dense({"W": W, "b": b}, x, activation="tanh") ** 2)

    def outer(W):
        return np.sum(ad.grad(inner)(x, W) ** 2)

    want = oracle.slope(outer, W, draw(3, 3) * 0 + 1.0)
    assert np.sum(ad.grad(outer)(W)) == pytest.approx(want, rel=1e-8)


# ---------------------------------------------------------------- other oracles

LSTM = {
    "h": (0.1936397398, 0.0657724203, -0.0150293788),
    "c": (0.3236672502, 0.1250019785, -0.0494503143),
}


def test_lstm_is_that_of_torch():
    """Weights of sines and cosines; what torch.nn.LSTM gives was written down."""
    params = {
        "Wx": 0.5 * np.sin(np.arange(1, 25.0)).reshape(12, 2).T,
        "Wh": 0.5 * np.cos(np.arange(1, 37.0)).reshape(12, 3).T,
        "b": 0.1 * np.sin(np.arange(12.0)) + 0.1 * np.cos(np.arange(12.0)),
    }
    x = np.sin(np.arange(1, 9.0)).reshape(4, 1, 2)
    h, c = nn.lstm(params, x)
    assert h.shape == (4, 1, 3)
    np.testing.assert_allclose(h[-1, 0], LSTM["h"], atol=5e-11)
    np.testing.assert_allclose(c[0], LSTM["c"], atol=5e-11)
    first, c1 = nn.lstm(params, x[:2])
    second, c2 = nn.lstm(params, x[2:], first[-1], c1)
    np.testing.assert_allclose(np.concatenate([first, second]), h, atol=1e-15)
    np.testing.assert_allclose(c2, c, atol=1e-15)


def test_gru_is_that_of_torch_gate_by_gate():
    x, h, Wx, Wh, bx, bh = recurrent(3, 1, 2, 3, 3)
    got = nn.gru({"Wx": Wx, "Wh": Wh, "bx": bx, "bh": bh}, x, h)
    state = h[0]
    for t in range(3):
        into = {k: x[t, 0] @ Wx[:, s] + bx[s] for k, s in gates("rzn", 3).items()}
        back = {k: state @ Wh[:, s] + bh[s] for k, s in gates("rzn", 3).items()}
        r = 1 / (1 + np.exp(-into["r"] - back["r"]))
        z = 1 / (1 + np.exp(-into["z"] - back["z"]))
        n = np.tanh(into["n"] + r * back["n"])
        state = (1 - z) * n + z * state
        np.testing.assert_allclose(got[t, 0], state, rtol=1e-13)


def gates(names, H):
    return {name: slice(i * H, (i + 1) * H) for i, name in enumerate(names)}


@pytest.mark.parametrize("gate", ["copy", "forget"])
def test_open_and_closed_gates(gate):
    """z = 1 copies the state of a GRU for ever, f = 1 and i = 0 the cell of an LSTM."""
    x = draw(30, 2, 3)
    start = draw(2, 4, scale=0.4)
    if gate == "copy":
        params = nn.gru_init(np.random.default_rng(0), 3, 4)
        params = {k: v.astype(float) for k, v in params.items()}
        params["bx"][4:8] = 1e3
        np.testing.assert_allclose(nn.gru(params, x, start)[-1], start, rtol=1e-14)
    else:
        params = nn.lstm_init(np.random.default_rng(0), 3, 4)
        params = {k: v.astype(float) for k, v in params.items()}
        params["b"][:8] = np.repeat([-1e3, 1e3], 4)
        np.testing.assert_array_equal(nn.lstm(params, x, None, start)[1], start)


def test_cross_entropy_by_hand():
    logits, labels = draw(2, 3, 4), whole(4, 2, 3)
    got = nn.cross_entropy(logits, labels)
    share = ad.grad(nn.mean_cross_entropy)(logits, labels)
    for i, j in np.ndindex(2, 3):
        p = np.exp(logits[i, j]) / np.exp(logits[i, j]).sum()
        assert got[i, j] == pytest.approx(-np.log(p[labels[i, j]]), rel=1e-14)
        p[labels[i, j]] -= 1
        np.testing.assert_allclose(share[i, j], p / 6, atol=1e-15)
    assert nn.mean_cross_entropy(logits, labels) == pytest.approx(got.mean())
    assert nn.mean_cross_entropy(logits, labels).shape == ()
    far = np.array([[1e4, 0.0], [0.0, -1e4]])
    np.testing.assert_array_equal(nn.cross_entropy(far, [1, 0]), [1e4, 0.0])


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 1), (3, 0)])
def test_conv2d_is_scipys_correlation(stride, padding):
    x, W, b = conv_args(2, 7, 8, 3, 4, 3, 2)
    got = nn.conv2d({"W": W, "b": b}, x, stride=stride, padding=padding)
    frame = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    wide = np.pad(x, frame)
    for n, f in np.ndindex(2, 4):
        layers = [
            signal.correlate2d(wide[n, :, :, c], W[:, :, c, f], mode="valid")
            for c in range(3)
        ]
        want = sum(layers)[::stride, ::stride] + b[f]
        np.testing.assert_allclose(got[n, :, :, f], want, atol=1e-13)
    bent = nn.conv2d({"W": W, "b": b}, x, stride=stride, activation="relu")
    plain = nn.conv2d({"W": W, "b": b}, x, stride=stride)
    np.testing.assert_array_equal(bent, np.where(plain > 0, plain, 0))


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 1), (3, 2)])
def test_conv2d_transpose_is_the_adjoint(stride, padding):
    """⟨conv(x), y⟩ = ⟨x, convT(y)⟩, without the biases."""
    y_shape, W = (2, 3, 2, 4), draw(5, 5, 3, 4)
    y, none = draw(*y_shape), np.zeros(4)
    options = {"stride": stride, "padding": padding}
    painted = nn.conv2d_transpose({"W": W, "b": none[:3]}, y, **options)
    x = draw(*painted.shape)
    assert painted.shape[1:3] == tuple(
        (n - 1) * stride - 2 * padding + 5 for n in y_shape[1:3]
    )
    seen = nn.conv2d({"W": W, "b": none}, x, **options)
    assert np.sum(seen * y) == pytest.approx(np.sum(x * painted), rel=1e-12)
    with_bias = nn.conv2d_transpose({"W": W, "b": draw(3)}, y, **options) - painted
    np.testing.assert_allclose(with_bias, np.broadcast_to(with_bias[0, 0, 0], x.shape))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_row_by_row(causal):
    q, k, v = draw(4, 3), draw(4, 3), draw(4, 2)
    got = nn.attention(q, k, v, causal=causal)
    for t in range(4):
        seen = slice(0, t + 1 if causal else 4)
        p = np.exp(k[seen] @ q[t] / np.sqrt(3))
        np.testing.assert_allclose(got[t], p / p.sum() @ v[seen], rtol=1e-13)
    rows = nn.attention(q, k, np.eye(4), causal=causal)
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, rtol=1e-14)


@pytest.mark.parametrize("scale", [1.0, 30.0], ids=["small", "large"])
@pytest.mark.parametrize("layer", ["attention", "multihead", "block"])
def test_later_positions_have_no_influence(layer, scale):
    """Blocks of the Jacobian above the diagonal are zeros, not just small."""
    T, d = 5, 4
    x = draw(1, T, 3 * d if layer == "multihead" else d, scale=scale)
    block = wide_tree(nn.block_init(np.random.default_rng(0), d, 8))
    functions = {
        "attention": lambda x: nn.attention(x, x, x, causal=True)[0],
        "multihead": lambda x: nn.multihead(x, heads=2, causal=True)[0],
        "block": lambda x: nn.block(block, x, heads=2, causal=True)[0],
    }
    for mode in ("forward", "reverse"):
        J = ad.jacobian(functions[layer], mode=mode)(x)
        for t in range(T):
            assert not J[t, :, 0, t + 1 :].any()
            assert J[t, :, 0, t].any()


def wide_tree(tree):
    """Parameters in float64."""
    if isinstance(tree, dict):
        return {name: wide_tree(part) for name, part in tree.items()}
    if isinstance(tree, list):
        return [wide_tree(part) for part in tree]
    return tree.astype(np.float64)


def test_multihead_is_attention_head_by_head():
    qkv, heads, d = draw(2, 5, 18), 3, 2
    got = nn.multihead(qkv, heads=heads, causal=True)
    for h in range(heads):
        q, k, v = (
            qkv[..., part * 6 + h * d : part * 6 + (h + 1) * d] for part in range(3)
        )
        want = nn.attention(q, k, v, causal=True)
        np.testing.assert_allclose(got[..., h * d : (h + 1) * d], want, rtol=1e-13)


def test_self_attention_does_not_know_the_order_of_positions():
    params = wide_tree(nn.self_attention_init(np.random.default_rng(0), 6))
    x, order = draw(2, 7, 6), np.array([3, 0, 6, 1, 5, 2, 4])
    got = nn.self_attention(params, x, heads=3)
    other = nn.self_attention(params, x[:, order], heads=3)
    np.testing.assert_allclose(other, got[:, order], atol=1e-12)


def test_layer_norm_has_mean_0_and_variance_1():
    x = draw(4, 5, 64, scale=7.0) + 100.0
    out = nn.layer_norm(wide_tree(nn.norm_init(64)), x)
    np.testing.assert_allclose(out.mean(axis=-1), 0.0, atol=1e-13)
    np.testing.assert_allclose(out.var(axis=-1), 1.0, rtol=1e-5)
    assert (out.var(axis=-1) < 1).all()  # ε
    level = nn.layer_norm(wide_tree(nn.norm_init(3)), np.full((2, 3), 5.0))
    np.testing.assert_array_equal(level, 0.0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gelu_is_x_times_the_normal_distribution_function(dtype):
    x = np.linspace(-9, 9, 4001).astype(dtype)
    want = x.astype(float) * stats.norm.cdf(x.astype(float))
    atol = 3e-7 if dtype == np.float32 else 1e-15
    np.testing.assert_allclose(
        nn.gelu(x), want, atol=atol, rtol=4 * np.finfo(dtype).eps
    )
    np.testing.assert_allclose(nn.gelu(x, approximate=True), want, atol=2e-3)
    cube = np.sqrt(2 / np.pi) * (x + 0.044715 * x.astype(float) ** 3)
    rough = 0.5 * x * (1 + np.tanh(cube))
    np.testing.assert_allclose(nn.gelu(x, approximate=True), rough, atol=2 * atol)


def test_sigmoid_and_relu():
    x = np.array([-1e4, -2.0, 0.0, 3.0, 1e4])
    np.testing.assert_allclose(nn.sigmoid(x), special.expit(x), atol=1e-16)
    np.testing.assert_array_equal(nn.relu(x), [0, 0, 0, 3, 1e4])
    np.testing.assert_array_equal(ad.vjp(nn.relu, x)[1](x + 1)[0], [0, 0, 0, 4, 10001])


def test_layers_are_put_together_as_they_say():
    """mlp, self-attention and the block, written out once more."""
    make, x = np.random.default_rng(0), draw(2, 5, 4)
    layers = wide_tree(nn.mlp_init(make, [4, 6, 5, 3]))
    h = np.tanh(np.tanh(x @ layers[0]["W"]) @ layers[1]["W"]) @ layers[2]["W"]
    np.testing.assert_allclose(nn.mlp(layers, x, activation="tanh"), h, rtol=1e-12)
    p = wide_tree(nn.block_init(make, 4, 7))

    def norm(x):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(
            x.var(-1, keepdims=True) + 1e-5
        )

    qkv = norm(x) @ p["attention"]["qkv"]["W"]
    parts = [
        nn.attention(*(qkv[..., [i, i + 1]] for i in (a, a + 4, a + 8))) for a in (0, 2)
    ]
    y = x + np.concatenate(parts, -1) @ p["attention"]["out"]["W"]
    up = norm(y) @ p["up"]["W"]
    want = y + (up * stats.norm.cdf(up)) @ p["down"]["W"]
    np.testing.assert_allclose(nn.block(p, x, heads=2), want, rtol=1e-12)


def test_embedding_picks_rows():
    table = draw(5, 2)
    np.testing.assert_array_equal(nn.embedding(table, [[4, 0]]), table[[[4, 0]]])


# ---------------------------------------------------------------- where they start

INITS = {
    "dense_init": ((300, 200), {}, {"W": 2 / 300}),
    "conv_init": ((5, 30, 80), {"gain": 3.0}, {"W": 3 / 750}),
    "embedding_init": ((300, 200), {}, {None: 0.02**2}),
    "lstm_init": ((100, 150), {}, {"Wx": 1 / 100, "Wh": 1 / 150}),
    "gru_init": ((100, 150), {}, {"Wx": 1 / 100, "Wh": 1 / 150}),
}


@pytest.mark.parametrize("name", INITS)
def test_starting_weights_have_the_variance_that_they_say(name):
    sizes, options, variances = INITS[name]
    params = getattr(nn, name)(np.random.default_rng(1), *sizes, **options)
    for part, variance in variances.items():
        W = params if part is None else params[part]
        assert W.dtype == np.float32
        # A squared Gaussian has variance 2, a Gaussian 1, in units of its own.
        assert abs(np.square(W, dtype=float).mean() / variance - 1) < 5 * np.sqrt(
            2 / W.size
        )
        assert abs(W.mean(dtype=float)) < 5 * np.sqrt(variance / W.size)


def test_starting_parameters_have_their_shapes_and_biases():
    make = np.random.default_rng
    shapes = {
        "dense": (nn.dense_init(make(0), 3, 2), {"W": (3, 2), "b": (2,)}),
        "conv": (nn.conv_init(make(0), 3, 2, 4), {"W": (3, 3, 2, 4), "b": (4,)}),
        "norm": (nn.norm_init(3), {"scale": (3,), "shift": (3,)}),
        "lstm": (nn.lstm_init(make(0), 3, 2), {"Wx": (3, 8), "Wh": (2, 8), "b": (8,)}),
        "gru": (
            nn.gru_init(make(0), 3, 2),
            {"Wx": (3, 6), "Wh": (2, 6), "bx": (6,), "bh": (6,)},
        ),
    }
    for params, want in shapes.values():
        assert {name: a.shape for name, a in params.items()} == want
        assert {a.dtype for a in params.values()} == {np.dtype(np.float32)}
    for kind, name in [("dense", "b"), ("conv", "b"), ("norm", "shift"), ("gru", "bx")]:
        assert not shapes[kind][0][name].any()
    assert not shapes["gru"][0]["bh"].any()
    np.testing.assert_array_equal(shapes["norm"][0]["scale"], 1.0)
    np.testing.assert_array_equal(shapes["lstm"][0]["b"], [0, 0, 1, 1, 0, 0, 0, 0])
    attention = nn.self_attention_init(make(0), 200)
    assert attention["qkv"]["W"].shape == (200, 600)
    assert attention["out"]["W"].shape == (200, 200)
    for layer in attention.values():
        assert layer["W"].var() == pytest.approx(1 / 200, rel=0.05)
    block = nn.block_init(make(0), 100, 400)
    assert block["up"]["W"].shape == (100, 400)
    assert block["down"]["W"].shape == (400, 100)
    assert block["up"]["W"].var() == pytest.approx(1 / 100, rel=0.05)
    assert block["down"]["W"].var() == pytest.approx(1 / 400, rel=0.05)


def test_the_last_layer_of_an_mlp_is_not_followed_by_a_relu():
    layers = nn.mlp_init(np.random.default_rng(0), [100, 200, 300])
    assert layers[0]["W"].var() == pytest.approx(2 / 100, rel=0.05)
    assert layers[1]["W"].var() == pytest.approx(1 / 200, rel=0.05)
    assert [layer["W"].shape for layer in layers] == [(100, 200), (200, 300)]


@pytest.mark.parametrize(
    ("name", "sizes"),
    [(name, sizes) for name, (sizes, _, _) in INITS.items()]
    + [("mlp_init", ([4, 3, 2],)), ("block_init", (4, 8))],
)
def test_starting_weights_follow_from_the_generator(name, sizes):
    init = getattr(nn, name)
    one, two, other = (init(np.random.default_rng(seed), *sizes) for seed in (3, 3, 4))
    leaves = [flatten(tree)[0] for tree in (one, two, other)]
    for a, b in zip(*leaves[:2], strict=True):
        np.testing.assert_array_equal(a, b)
    assert any((a != b).any() for a, b in zip(leaves[0], leaves[2], strict=True))


def test_a_network_keeps_the_size_of_what_goes_through():
    """He's variance: the mean square before each relu stays what it was."""
    make = np.random.default_rng(0)
    layers = nn.mlp_init(make, [500] * 9, gain=2.0)
    x = make.standard_normal((200, 500), np.float32)
    for layer in layers[:-1]:
        x = nn.dense(layer, x)
        assert np.square(x).mean() == pytest.approx(2.0, rel=0.35)
        x = nn.relu(x)


def test_kernels_have_no_other_public_pairs():
    """Each forward pass with its backward pass is used by a layer here."""
    pairs = {
        name.removesuffix("_backward")
        for name, it in vars(kernels).items()
        if name.endswith("_backward") and not name.startswith("_")
    }
    used = {fused.forward.__name__ for fused in FUSED.values()}
    assert pairs - used == set(), "a kernel that no layer uses"


# ---------------------------------------------------------------- bad input

MAKE = np.random.default_rng(0)
X = np.ones((2, 4), np.float32)  # rows
X64 = X.astype(np.float64)
SEQ = np.ones((3, 2, 4), np.float32)
PIC = np.ones((2, 5, 5, 4), np.float32)
DENSE = nn.dense_init(MAKE, 4, 3)
CONV = nn.conv_init(MAKE, 3, 4, 2)
NORM = nn.norm_init(4)
MIX = nn.self_attention_init(MAKE, 4)
BLOCK = nn.block_init(MAKE, 4, 8)
LSTM_P, GRU_P = nn.lstm_init(MAKE, 4, 5), nn.gru_init(MAKE, 4, 5)
TABLE = nn.embedding_init(MAKE, 7, 4)


def no_floats(call, name):
    """What no array of floats may be."""
    for value, got in (
        ([1.0], "a list"),
        (None, "a NoneType"),
        ("abc", "a str"),
        (np.ones(4, int), "int64"),
        (np.ones(4, np.float16), "float16"),
        (np.ones(4) * 1j, "complex128"),
        (np.ones(4, ">f8"), ">f8"),
        (np.ma.MaskedArray(np.ones(4), True), "a MaskedArray"),
    ):
        yield (lambda v=value: call(v)), rf"^{name} (is|holds) {got}, wants .*float32"


def no_whole(call, name, low=1):
    for value in (low - 1, 1.5, "3", None, True, [3]):
        yield (lambda v=value: call(v)), rf"^{name} is .*wants a whole number"


def no_flag(call, name):
    for value in (1, "yes", None):
        yield (lambda v=value: call(v)), rf"^{name} is .*wants True or False"


def no_params(call, params, *, missing):
    """No dict, one that lacks a part, and parts of another type and shape."""
    yield (lambda: call(None)), "^params is NoneType, wants a dict with"
    yield (lambda: call([1.0])), "^params is list, wants a dict with"
    yield (lambda: call(np.ones(3))), "^params is ndarray, wants a dict with"
    less = {k: v for k, v in params.items() if k != missing}
    yield (lambda: call(less)), rf"^params is \[.*, wants a dict with .*'{missing}'"
    for name, part in params.items():
        for bad, message in (
            (part.astype(np.float64), "holds float64, wants float32"),
            (part.tolist(), "is a list, wants"),
            (part[None], r"has shape \(1, .*wants \("),
            (part[..., :-1], r"has shape .*wants \("),
        ):
            at = r"^params\['\w+'\] "  # a part may be what the others are held against
            there = {**params, name: bad}
            yield (lambda p=there: call(p)), at + message


def no_layer(call, params):
    yield (lambda: call(None)), "^params is NoneType, wants a dict with"
    for name in params:
        less = {k: v for k, v in params.items() if k != name}
        yield (lambda p=less: call(p)), f"^params is .*wants a dict with .*'{name}'"
        yield (
            (lambda p={**params, name: 3}: call(p)),
            "^params is int, wants a dict with",
        )


def no_activation(call):
    for value in ("gelu", "RELU", 3, np.tanh, X, ["relu"]):
        yield (lambda v=value: call(v)), "^activation is .*wants 'relu', 'tanh' or None"


def no_rng(call):
    for value in (0, None, np.random):
        yield (lambda v=value: call(v)), "^rng is .*wants a np.random.Generator"


def no_gain(call):
    for value in (-1.0, np.nan, np.inf, 1e31, "2"):
        yield (lambda v=value: call(v)), "^gain is .*wants"


def no_labels(call):
    """Of logits (2, 4)."""
    yield (lambda: call([0.0, 1.0])), "^labels holds float64, wants whole numbers"
    yield (lambda: call([True, False])), "^labels holds bool, wants whole numbers"
    yield (lambda: call(["a", "b"])), "^labels holds <U1, wants whole numbers"
    yield (lambda: call(None)), "^labels holds object, wants whole numbers"
    yield (lambda: call([0])), r"^labels has shape \(1,\), wants \(2,\), one label"
    yield (lambda: call([[0], [1]])), r"^labels has shape \(2, 1\), wants \(2,\)"
    yield (lambda: call([0, 4])), "^labels runs from 0 to 4, wants 0 to 3"
    yield (lambda: call([-1, 0])), "^labels runs from -1 to 0, wants 0 to 3"
    masked = np.ma.MaskedArray([0, 1], [True, False])
    yield (lambda: call(masked)), "^labels is a MaskedArray, wants"


def no_steps(call):
    """Stride and padding."""
    yield from no_whole(lambda v: call(stride=v), "stride")
    yield from no_whole(lambda v: call(padding=v), "padding", low=0)


def entropies(function):
    yield from no_floats(lambda x: function(x, [0, 1]), "logits")
    yield from no_labels(lambda labels: function(X, labels))
    yield (lambda: function(X[0, 0], np.array(0))), r"^logits has shape \(\), wants"
    yield (lambda: function(X[:, :0], [0, 0])), r"^logits has shape \(2, 0\), wants"


def recurrents(function, params):
    yield from no_floats(lambda x: function(params, x), "x")
    yield (lambda: function(params, X)), r"^x has shape \(2, 4\), wants \(T, B, n\)"
    yield (lambda: function(params, SEQ[:0])), r"^x has shape \(0, .* at least one step"
    yield (
        (lambda: function(params, SEQ[..., :3])),
        r"^params\['Wx'\] has shape .*wants \(3, ",
    )
    yield from no_params(lambda p: function(p, SEQ), params, missing="Wh")
    start = np.ones((2, 5), np.float32)
    for bad, message in (
        (start[:1], r"has shape \(1, 5\), wants \(2, 5\)"),
        (start[0], r"has shape \(5,\), wants \(2, 5\)"),
        (start.astype(float), "holds float64, wants float32"),
        ([0.0], "is a list, wants"),
    ):
        yield (lambda b=bad: function(params, SEQ, b)), "^h0 " + message
        if function is nn.lstm:
            yield (lambda b=bad: function(params, SEQ, None, b)), "^c0 " + message


Q, K, V = X, np.ones((3, 4), np.float32), np.ones((3, 2), np.float32)
QKV = np.ones((2, 3, 12), np.float32)
REFUSALS = {
    "relu": [*no_floats(nn.relu, "x")],
    "sigmoid": [*no_floats(nn.sigmoid, "x")],
    "gelu": [
        *no_floats(nn.gelu, "x"),
        *no_flag(lambda v: nn.gelu(X, approximate=v), "approximate"),
    ],
    "cross_entropy": [*entropies(nn.cross_entropy)],
    "mean_cross_entropy": [
        *entropies(nn.mean_cross_entropy),
        (
            lambda: nn.mean_cross_entropy(X[:0], np.zeros(0, int)),
            r"^logits has shape \(0, 4\), wants at least one row",
        ),
    ],
    "attention": [
        *no_floats(lambda q: nn.attention(q, K, V), "q"),
        *no_floats(lambda k: nn.attention(Q, k, V), "k"),
        *no_floats(lambda v: nn.attention(Q, K, v), "v"),
        *no_flag(lambda c: nn.attention(Q, Q, Q, causal=c), "causal"),
        (lambda: nn.attention(Q[0], K, V), r"^q has shape \(4,\), wants \(..., T, d\)"),
        (lambda: nn.attention(Q[:, :0], K, V), r"^q has shape \(2, 0\), wants"),
        (lambda: nn.attention(Q, K[:, :3], V), r"^k has .*, wants \(S, 4\)"),
        (lambda: nn.attention(Q, K[:0], V[:0]), r"^k has .* at least one key"),
        (lambda: nn.attention(Q, K, V[:2]), r"^v has .*, wants \(3, e\)"),
        (
            lambda: nn.attention(Q, K[None], V),
            r"^k has shape \(1, 3, 4\), wants \(S, 4",
        ),
        (lambda: nn.attention(Q[None], K, V), r"^k has .*wants \(1, S, 4\)"),
        (lambda: nn.attention(Q, K, V, causal=True), r"^k has .*wants \(2, 4\)"),
        (
            lambda: nn.attention(Q, K.astype(float), V),
            "^k holds float64, wants float32",
        ),
        (
            lambda: nn.attention(Q, K, V.astype(float)),
            "^v holds float64, wants float32",
        ),
    ],
    "multihead": [
        *no_floats(lambda x: nn.multihead(x, heads=1), "qkv"),
        *no_whole(lambda v: nn.multihead(QKV, heads=v), "heads"),
        *no_flag(lambda v: nn.multihead(QKV, heads=2, causal=v), "causal"),
        (lambda: nn.multihead(QKV[0], heads=2), r"^qkv has .*wants \(B, T, 3d\)"),
        (lambda: nn.multihead(QKV, heads=3), r"^qkv has .*a multiple of heads, 3"),
        (
            lambda: nn.multihead(QKV[:, :0], heads=2),
            r"^qkv has shape \(2, 0, 12\), wan",
        ),
        (
            lambda: nn.multihead(QKV[..., :0], heads=2),
            r"^qkv has shape \(2, 3, 0\), wa",
        ),
    ],
    "dense_init": [
        *no_rng(lambda r: nn.dense_init(r, 2, 3)),
        *no_whole(lambda v: nn.dense_init(MAKE, v, 3), "n"),
        *no_whole(lambda v: nn.dense_init(MAKE, 3, v), "m"),
        *no_gain(lambda v: nn.dense_init(MAKE, 3, 2, gain=v)),
    ],
    "dense": [
        *no_floats(lambda x: nn.dense(DENSE, x), "x"),
        *no_params(lambda p: nn.dense(p, X), DENSE, missing="b"),
        *no_activation(lambda a: nn.dense(DENSE, X, activation=a)),
        (lambda: nn.dense(DENSE, X[0, 0]), r"^x has shape \(\), wants"),
        (lambda: nn.dense(DENSE, X64), r"^params\['W'\] holds float32, wants float64"),
        (lambda: nn.dense(DENSE, X[:, :3]), r"^params\['W'\] has .* wants \(3, m\)"),
    ],
    "mlp_init": [
        *no_rng(lambda r: nn.mlp_init(r, [2, 3])),
        *no_gain(lambda v: nn.mlp_init(MAKE, [3, 2, 1], gain=v)),
        *no_whole(lambda v: nn.mlp_init(MAKE, [3, v]), r"sizes\[1\]"),
        (
            lambda: nn.mlp_init(MAKE, [3]),
            r"^sizes is \[3\], wants a list of at least tw",
        ),
        (lambda: nn.mlp_init(MAKE, 3), "^sizes is 3, wants a list of at least two"),
    ],
    "mlp": [
        *no_floats(lambda x: nn.mlp([DENSE], x), "x"),
        *no_activation(lambda a: nn.mlp([DENSE], X, activation=a)),
        (lambda: nn.mlp([], X), "^params is empty, wants a list of layers"),
        (lambda: nn.mlp(DENSE, X), "^params is a dict, wants a list of layers"),
        (lambda: nn.mlp([DENSE, DENSE], X), r"^params\['W'\] has .* wants \(3, m\)"),
        (lambda: nn.mlp([DENSE, 3], X), "^params is int, wants a dict"),
    ],
    "conv_init": [
        *no_rng(lambda r: nn.conv_init(r, 3, 2, 1)),
        *no_whole(lambda v: nn.conv_init(MAKE, v, 2, 1), "size"),
        *no_whole(lambda v: nn.conv_init(MAKE, 3, v, 1), "C"),
        *no_whole(lambda v: nn.conv_init(MAKE, 3, 2, v), "F"),
        *no_gain(lambda v: nn.conv_init(MAKE, 3, 2, 1, gain=v)),
    ],
    "conv2d": [
        *no_floats(lambda x: nn.conv2d(CONV, x), "x"),
        *no_params(lambda p: nn.conv2d(p, PIC), CONV, missing="W"),
        *no_steps(lambda **options: nn.conv2d(CONV, PIC, **options)),
        *no_activation(lambda a: nn.conv2d(CONV, PIC, activation=a)),
        (
            lambda: nn.conv2d(CONV, PIC[0]),
            r"^x has shape \(5, 5, 4\), wants \(N, height",
        ),
        (
            lambda: nn.conv2d(CONV, PIC[..., :3]),
            r"^params\['W'\] has .*wants .*, 3, F\)",
        ),
        (
            lambda: nn.conv2d(CONV, PIC[:, :2]),
            r"^params\['W'\] has .*of 2 by 5, its pad",
        ),
        (lambda: nn.conv2d(CONV, PIC[:, :, :2]), r"^params\['W'\] .*fits .*5 by 2"),
        (
            lambda: nn.conv2d(CONV, PIC[:, :0], padding=2),
            r"^x has shape \(2, 0, 5, 4\)",
        ),
        (
            lambda: nn.conv2d({"W": CONV["W"][:0], "b": CONV["b"]}, PIC),
            r"^params\['W'\] has shape \(0, 3, 4, 2\), wants",
        ),
    ],
    "conv2d_transpose": [
        *no_floats(lambda x: nn.conv2d_transpose(CONV, x), "x"),
        *no_params(
            lambda p: nn.conv2d_transpose(p, PIC[..., :2]),
            {"W": CONV["W"], "b": CONV["b"][[0, 0, 0, 0]]},
            missing="W",
        ),
        *no_steps(lambda **options: nn.conv2d_transpose(CONV, PIC, **options)),
        (
            lambda: nn.conv2d_transpose(CONV, PIC[0]),
            r"^x has shape .*wants \(N, height",
        ),
        (lambda: nn.conv2d_transpose(CONV, PIC), r"^params\['W'\] has .*, C, 4\)"),
        (lambda: nn.conv2d_transpose(CONV, PIC[:, :0]), r"^x has .* pixels in them"),
        (
            lambda: nn.conv2d_transpose(
                {"W": CONV["W"], "b": np.ones(4, np.float32)}, PIC[..., :2], padding=4
            ),
            "^padding is 4, wants less than half .* 7 by 7",
        ),
        (
            lambda: nn.conv2d_transpose(
                {"W": CONV["W"][:0], "b": np.ones(4, np.float32)}, PIC[..., :2]
            ),
            r"^params\['W'\] has shape \(0, .* no axis of length 0",
        ),
    ],
    "norm_init": [*no_whole(nn.norm_init, "d")],
    "layer_norm": [
        *no_floats(lambda x: nn.layer_norm(NORM, x), "x"),
        *no_params(lambda p: nn.layer_norm(p, X), NORM, missing="shift"),
        (lambda: nn.layer_norm(NORM, X[0, 0]), r"^x has shape \(\), wants \(..., d\)"),
        (lambda: nn.layer_norm(NORM, X[:, :0]), r"^x has shape \(2, 0\), wants"),
        *(
            (lambda e=e: nn.layer_norm(NORM, X, epsilon=e), "^epsilon is .*wants")
            for e in (0.0, -1.0, np.nan, np.inf, 1e-40, "1", None, 2)
        ),
    ],
    "embedding_init": [
        *no_rng(lambda r: nn.embedding_init(r, 2, 3)),
        *no_whole(lambda v: nn.embedding_init(MAKE, v, 3), "V"),
        *no_whole(lambda v: nn.embedding_init(MAKE, 3, v), "d"),
    ],
    "embedding": [
        *no_floats(lambda t: nn.embedding(t, [0]), "table"),
        (
            lambda: nn.embedding(TABLE[0], [0]),
            r"^table has shape \(4,\), wants \(V, d\)",
        ),
        (lambda: nn.embedding(TABLE, [0, 7]), "^ids runs from 0 to 7, wants 0 to 6"),
        (lambda: nn.embedding(TABLE, [-1]), "^ids runs from -1 to -1, wants 0 to 6"),
        (lambda: nn.embedding(TABLE, [1.0]), "^ids holds float64, wants whole numbers"),
        (lambda: nn.embedding(TABLE, [True]), "^ids holds bool, wants whole numbers"),
        (lambda: nn.embedding(TABLE, None), "^ids holds object, wants whole numbers"),
    ],
    "self_attention_init": [
        *no_rng(lambda r: nn.self_attention_init(r, 3)),
        *no_whole(lambda v: nn.self_attention_init(MAKE, v), "d"),
    ],
    "self_attention": [
        *no_floats(lambda x: nn.self_attention(MIX, x, heads=2), "x"),
        *no_layer(lambda p: nn.self_attention(p, SEQ, heads=2), MIX),
        *no_whole(lambda v: nn.self_attention(MIX, SEQ, heads=v), "heads"),
        *no_flag(lambda v: nn.self_attention(MIX, SEQ, heads=2, causal=v), "causal"),
        (lambda: nn.self_attention(MIX, X, heads=2), r"^x has .*wants \(B, T, d\)"),
        (lambda: nn.self_attention(MIX, SEQ, heads=3), "^x has .*multiple of heads, 3"),
        (
            lambda: nn.self_attention(MIX, SEQ[:, :0], heads=2),
            r"^x has shape \(3, 0, 4",
        ),
    ],
    "block_init": [
        *no_rng(lambda r: nn.block_init(r, 3, 4)),
        *no_whole(lambda v: nn.block_init(MAKE, v, 4), "d"),
        *no_whole(lambda v: nn.block_init(MAKE, 4, v), "hidden"),
    ],
    "block": [
        *no_floats(lambda x: nn.block(BLOCK, x, heads=2), "x"),
        *no_layer(lambda p: nn.block(p, SEQ, heads=2), BLOCK),
        *no_whole(lambda v: nn.block(BLOCK, SEQ, heads=v), "heads"),
        *no_flag(lambda v: nn.block(BLOCK, SEQ, heads=2, causal=v), "causal"),
        (lambda: nn.block(BLOCK, X, heads=2), r"^x has .*wants \(B, T, d\)"),
        (lambda: nn.block(BLOCK, SEQ, heads=3), "^x has .*multiple of heads, 3"),
    ],
    "lstm_init": [
        *no_rng(lambda r: nn.lstm_init(r, 2, 3)),
        *no_whole(lambda v: nn.lstm_init(MAKE, v, 3), "n"),
        *no_whole(lambda v: nn.lstm_init(MAKE, 3, v), "H"),
    ],
    "lstm": [*recurrents(nn.lstm, LSTM_P)],
    "gru_init": [
        *no_rng(lambda r: nn.gru_init(r, 2, 3)),
        *no_whole(lambda v: nn.gru_init(MAKE, v, 3), "n"),
        *no_whole(lambda v: nn.gru_init(MAKE, 3, v), "H"),
    ],
    "gru": [*recurrents(nn.gru, GRU_P)],
}


def test_every_public_function_is_in_the_table():
    mine = {
        name
        for name, it in vars(nn).items()
        if callable(it)
        and getattr(it, "__module__", None) == nn.__name__
        and not name.startswith("_")
    }
    assert mine == set(REFUSALS)
    theirs = {"log_softmax", "softmax"}  # of mlfs.autodiff
    assert set(nn.__all__) == mine | theirs


each_refusal = pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(*case, id=f"{name}-{i}")
        for name, cases in REFUSALS.items()
        for i, case in enumerate(cases)
    ],
)


@each_refusal
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "want" in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: nn.dense({**DENSE, "b": DENSE["b"][:1]}, x), r"^params\['b'\]"),
        (lambda x: nn.dense(DENSE, x, activation="gelu"), "^activation is 'gelu'"),
        (lambda x: nn.cross_entropy(x, [0, -1]), "^labels runs from -1 to 0"),
        (lambda x: nn.mean_cross_entropy(x, [0, 4]), "^labels runs from 0 to 4"),
        (lambda x: nn.embedding(x, [2]), "^ids runs from 2 to 2, wants 0 to 1"),
        (lambda x: nn.attention(x, x[None], x), "^k has shape"),
        (
            lambda x: nn.layer_norm({**NORM, "shift": x[0, :1]}, x),
            r"^params\['shift'\]",
        ),
        (lambda x: nn.lstm(LSTM_P, x[None], x[:1]), "^h0 has shape"),
    ],
)
@pytest.mark.parametrize("mode", ["plain", "reverse", "forward", "both"])
def test_bad_input_is_refused_while_it_is_differentiated(mode, call, message):
    """The composed form would broadcast, and count negative labels from the end."""
    modes = {
        "plain": lambda: call(X),
        "reverse": lambda: ad.vjp(call, X),
        "forward": lambda: ad.jvp(call, (X,), (X,)),
        "both": lambda: ad.jvp(lambda x: ad.vjp(call, x)[1], (X,), (X,)),
    }
    with pytest.raises(ValueError, match=message):
        modes[mode]()


def test_traced_labels_are_refused():
    with pytest.raises(ValueError, match=r"^labels is a Traced, wants"):
        ad.grad(lambda x: nn.mean_cross_entropy(X, x))(np.zeros(2))


def test_numpy_scalars_and_subclasses_do_as_arrays():
    assert nn.relu(np.float32(-1.0)) == 0
    assert nn.gelu(np.float32(1.0)).dtype == np.float32
    rows = np.ones((1, 3)).view(type("Rows", (np.ndarray,), {}))
    assert type(nn.relu(rows)) is np.ndarray
