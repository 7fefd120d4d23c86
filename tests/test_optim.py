"""Optimisers: step by step against plain ones, and what they promise about memory."""

import ctypes
import dataclasses
import inspect
import itertools
import math
import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from mlfs.core import optim
from mlfs.core.tree import flatten, tree_map
from oracles import optim as oracle

STEPS = 20
NAN, INF = np.nan, np.inf


def tree(seed, dtype=np.float64, scale=1.0):
    """A tree of three arrays, and of no array at one place."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return np.asarray(scale * rng.normal(size=shape), dtype)

    return {"b": [draw(3), None], "a": (draw(2, 4), draw())}


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in flatten(tree)[0]])


def run(optimizer, parameters, gradients):
    state = optimizer.init(parameters)
    for g in gradients:
        state = optimizer.step(state, g)
        yield state


def rates(schedule):
    return [schedule(t) for t in range(1, STEPS + 1)]


WARM = optim.cosine(0.1, STEPS, warmup=5)
PLAIN = {  # an optimiser of ours, and its oracle
    "SGD": (optim.SGD(0.1), lambda x, g: oracle.sgd(x, g, 0.1)),
    "Momentum": (
        optim.Momentum(0.1, beta=0.8),
        lambda x, g: oracle.momentum(x, g, 0.1, 0.8),
    ),
    "Momentum by default": (
        optim.Momentum(0.1),
        lambda x, g: oracle.momentum(x, g, 0.1, 0.9),
    ),
    "Momentum of none": (
        optim.Momentum(0.1, beta=0.0),
        lambda x, g: oracle.sgd(x, g, 0.1),
    ),
    "Nesterov": (
        optim.Momentum(0.1, beta=0.8, nesterov=True),
        lambda x, g: oracle.momentum(x, g, 0.1, 0.8, True),
    ),
    "RMSProp": (
        optim.RMSProp(0.1, beta=0.7, epsilon=1e-2),
        lambda x, g: oracle.rmsprop(x, g, 0.1, 0.7, 1e-2),
    ),
    "RMSProp by default": (
        optim.RMSProp(0.1),
        lambda x, g: oracle.rmsprop(x, g, 0.1, 0.99, 1e-8),
    ),
    "Adam": (
        optim.Adam(0.1, beta1=0.6, beta2=0.8, epsilon=1e-2),
        lambda x, g: oracle.adam(x, g, 0.1, 0.6, 0.8, 1e-2),
    ),
    "Adam without memory": (
        optim.Adam(0.1, beta1=0.0, beta2=0.0),
        lambda x, g: oracle.adam(x, g, 0.1, 0.0, 0.0, 1e-8),
    ),
    "Adam by default": (
        optim.Adam(),
        lambda x, g: oracle.adam(x, g, 1e-3, 0.9, 0.999, 1e-8),
    ),
    "Adam with a schedule": (
        optim.Adam(WARM),
        lambda x, g: oracle.adam(x, g, rates(WARM), 0.9, 0.999, 1e-8),
    ),
    "AdamW": (
        optim.AdamW(0.1, beta1=0.6, epsilon=1e-2, weight_decay=0.3),
        lambda x, g: oracle.adam(x, g, 0.1, 0.6, 0.999, 1e-2, 0.3),
    ),
    "AdamW by default": (
        optim.AdamW(),
        lambda x, g: oracle.adam(x, g, 1e-3, 0.9, 0.999, 1e-8, 0.01),
    ),
}
each = pytest.mark.parametrize("name", PLAIN)


def test_every_optimiser_has_an_oracle():
    ours = {
        it
        for it in vars(optim).values()
        if inspect.isclass(it) and issubclass(it, optim.Optimizer)
    }
    assert ours - {optim.Optimizer} == {type(one) for one, _ in PLAIN.values()}


# ---------------------------------------------------------------- the steps


@each
def test_twenty_steps_are_the_plain_ones(name):
    optimizer, plain = PLAIN[name]
    gradients = [tree(seed) for seed in range(1, STEPS + 1)]
    want = list(plain(flat(tree(0)), [flat(g) for g in gradients]))
    states = list(run(optimizer, tree(0), gradients))
    for t, (state, x, g) in enumerate(zip(states, want, gradients, strict=True), 1):
        np.testing.assert_allclose(flat(state.parameters), x, rtol=1e-12, atol=1e-14)
        assert state.t == t
        assert state.norm == pytest.approx(np.linalg.norm(flat(g)), rel=1e-14)
        assert flatten(state.parameters)[1] == flatten(tree(0))[1]
        shapes = [leaf.shape for leaf in flatten(state.parameters)[0]]
        assert shapes == [(3,), (2, 4), ()]


@each
def test_float32_stays(name):
    """And each of the steps is right to the precision of float32."""
    optimizer, plain = PLAIN[name]
    gradients = [tree(seed, np.float32) for seed in range(1, STEPS + 1)]
    x = flat(tree(0, np.float32)).astype(float)
    want = list(plain(x, [flat(g).astype(float) for g in gradients]))
    state = list(run(optimizer, tree(0, np.float32), gradients))[-1]
    assert {leaf.dtype for leaf in flatten(state.parameters)[0]} == {
        x.dtype.type(0).astype(np.float32).dtype
    }
    np.testing.assert_allclose(flat(state.parameters), want[-1], atol=2e-5)


@each
def test_numpy_numbers_as_settings_change_nothing(name):
    """A float64 scalar would drag float32 along, a float32 one lose digits."""
    optimizer, _ = PLAIN[name]
    settings = {
        f.name: getattr(optimizer, f.name) for f in dataclasses.fields(optimizer)
    }
    settings = {
        key: np.float64(value) if type(value) is float else value
        for key, value in settings.items()
    }
    twin = type(optimizer)(**settings)
    for key, value in settings.items():
        assert type(getattr(twin, key)) is not np.float64, key
        assert getattr(twin, key) == value
    gradients = [tree(1, np.float32), tree(2, np.float32)]
    for one, other in zip(
        run(optimizer, tree(0, np.float32), gradients),
        run(twin, tree(0, np.float32), gradients),
        strict=True,
    ):
        np.testing.assert_array_equal(flat(one.parameters), flat(other.parameters))


@each
@pytest.mark.parametrize("extra", [-1, 0, 1, optim.PIECE + 5])
def test_pieces_do_not_show(name, extra):
    """More parameters than one piece: each is moved as if it were alone."""
    optimizer, plain = PLAIN[name]
    rng = np.random.default_rng(0)
    x, *gradients = rng.normal(size=(4, optim.PIECE + extra))
    for state, want in zip(
        run(optimizer, [x[:7], x[7:]], [[g[:7], g[7:]] for g in gradients]),
        plain(x, gradients),
        strict=True,
    ):
        np.testing.assert_allclose(flat(state.parameters), want, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_the_first_step_of_adam_is_the_rate_with_the_sign(scale):
    g = tree(1, scale=scale)
    (state,) = run(optim.Adam(0.25), tree(0), [g])
    moved = flat(state.parameters) - flat(tree(0))
    np.testing.assert_allclose(moved, -0.25 * np.sign(flat(g)), rtol=1e-3)


def test_decay_beside_the_gradient_is_not_decay_within_it():
    """With L2 Adam divides the decay out again; AdamW shrinks by η λ a step."""
    x, g, decay = tree(0), tree(1), 0.5
    (beside,) = run(optim.AdamW(0.1, weight_decay=decay), x, [g])
    within = tree_map(lambda g, x: g + decay * x, g, x)
    (l2,) = run(optim.Adam(0.1), x, [within])
    (none,) = run(optim.Adam(0.1), x, [g])
    shrunk = flat(none.parameters) - 0.1 * decay * flat(x)
    np.testing.assert_allclose(flat(beside.parameters), shrunk, rtol=1e-14)
    assert np.abs(flat(l2.parameters) - shrunk).max() > 1e-2
    zero = tree_map(np.zeros_like, g)
    (still,) = run(optim.AdamW(0.1, weight_decay=decay), x, [zero])
    np.testing.assert_allclose(flat(still.parameters), 0.95 * flat(x), rtol=1e-14)


def test_an_entry_without_a_gradient_stays():
    """0 / (√0 + ε) is 0, not NaN, in float32 also with the least ε."""
    zero = tree_map(np.zeros_like, tree(0, np.float32))
    for cls in (optim.RMSProp, optim.Adam):
        optimizer = cls(0.1, epsilon=optim.LEAST_EPSILON)
        for state in run(optimizer, tree(0, np.float32), [zero, zero]):
            assert state.norm == 0
            np.testing.assert_array_equal(
                flat(state.parameters), flat(tree(0, np.float32))
            )


@each
def test_a_quadratic_is_brought_down(name):
    A = np.diag([1.0, 3.0])
    state = PLAIN[name][0].init(np.array([1.0, -1.0]))
    optimizer = PLAIN[name][0]
    first = state.parameters @ A @ state.parameters
    for _ in range(STEPS):
        state = optimizer.step(state, 2 * A @ state.parameters)
    assert state.parameters @ A @ state.parameters < first


# ---------------------------------------------------------------- memory


@each
def test_what_was_given_and_what_was_returned_stays_as_it_was(name):
    optimizer, _ = PLAIN[name]
    optimizer = dataclasses.replace(optimizer, clip=0.5)
    parameters, gradients = tree(0), [tree(seed) for seed in range(1, 5)]
    for leaf in flatten([parameters, gradients])[0]:
        leaf.flags.writeable = False
    states = [optimizer.init(parameters)]
    kept = [flat(parameters)]
    for g in gradients:
        states.append(optimizer.step(states[-1], g))
        kept.append(flat(states[-1].parameters))
    np.testing.assert_array_equal(flat(parameters), flat(tree(0)))
    for g, seed in zip(gradients, range(1, 5), strict=True):
        np.testing.assert_array_equal(flat(g), flat(tree(seed)))
    for state, then in zip(states, kept, strict=True):
        np.testing.assert_array_equal(flat(state.parameters), then)
    everything = [
        flatten(it)[0] for it in (parameters, *(s.parameters for s in states))
    ]
    for one, other in itertools.combinations(everything, 2):
        assert not any(np.shares_memory(a, b) for a in one for b in other)


def test_parameters_of_a_state_cannot_be_written_to():
    state = optim.SGD(0.1).init(tree(0))
    with pytest.raises(ValueError, match="read-only"):
        state.parameters["b"][0][0] = 1.0


@each
def test_a_state_is_stepped_once(name):
    optimizer, _ = PLAIN[name]
    start = optimizer.init(tree(0))
    first = optimizer.step(start, tree(1))
    optimizer.step(first, tree(2))
    for state, t in ((start, 0), (first, 1)):
        with pytest.raises(ValueError, match=f"^state is that of step {t}, .* wants"):
            optimizer.step(state, tree(2))


def test_a_step_that_was_refused_may_be_taken_again():
    optimizer = optim.Adam(0.1)
    start = optimizer.init(tree(0))
    for bad in (tree(1, scale=NAN), tree(1)["a"]):
        with pytest.raises(ValueError, match="gradients"):
            optimizer.step(start, bad)
    (want,) = run(optimizer, tree(0), [tree(2)])
    got = optimizer.step(start, tree(2))
    np.testing.assert_array_equal(flat(got.parameters), flat(want.parameters))


# ---------------------------------------------------------------- schedules, clipping


@given(
    steps=st.integers(1, 50), share=st.floats(0, 0.99), peak=st.sampled_from([0.0, 0.3])
)
def test_cosine(steps, share, peak):
    warmup = int(share * steps)
    lr = optim.cosine(peak, steps, warmup=warmup)
    for t in range(1, steps + 3):
        want = oracle.cosine(t, peak, steps, warmup)
        assert lr(t) == pytest.approx(want, rel=1e-12, abs=1e-15)
    if warmup:
        assert lr(warmup) == peak
    assert lr(steps) == lr(steps + 100) == 0
    assert optim.cosine(peak, steps)(1) == optim.cosine(peak, steps, warmup=0)(1)


def test_exponential():
    lr = optim.exponential(0.5, 0.1, every=3)
    assert [lr(t) for t in (1, 4, 7)] == pytest.approx([0.5, 0.05, 0.005])
    assert lr(2) ** 3 == pytest.approx(0.5**3 * 0.1)
    assert optim.exponential(0.5, 1.0, 1)(99) == 0.5


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [
        *itertools.product([1e-30, 1e-3, 1.0, 1e15, 1e30], [np.float32, np.float64]),
        (1e200, np.float64),
    ],
)
def test_clipping_by_the_length_of_all(scale, dtype):
    g = tree(1, dtype, scale)
    length = scale * float(np.linalg.norm(flat(g).astype(float) / scale))
    for factor in (0.5, 1.0, 2.0):
        limit = factor * length * (1 + 1e-6)
        clipped, norm = optim.clip_by_global_norm(g, limit)
        assert norm == pytest.approx(length, rel=1e-6)
        if factor < 1:
            got = np.linalg.norm(flat(clipped).astype(float) / scale) * scale
            assert got == pytest.approx(limit, rel=1e-6)
            want = flat(g) / length * limit
            np.testing.assert_allclose(flat(clipped), want, rtol=3e-6)
        else:
            np.testing.assert_array_equal(flat(clipped), flat(g))
        assert {leaf.dtype for leaf in flatten(clipped)[0]} == {np.dtype(dtype)}
        for one, other in itertools.product(flatten(clipped)[0], flatten(g)[0]):
            assert not np.shares_memory(one, other)
    zero = tree_map(np.zeros_like, g)
    assert optim.clip_by_global_norm(zero, 1.0)[1] == 0.0


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e15, 1e200])
def test_clipping_within_a_step(scale):
    g, x = tree(1, scale=scale), tree(0)
    length = float(np.linalg.norm(flat(g) / scale)) * scale
    for factor in (0.5, 2.0):
        optimizer = optim.SGD(1 / length, clip=min(factor * length, 1e100))
        if factor == 2.0 and scale > 1e100:
            continue
        (state,) = run(optimizer, x, [g])
        assert state.norm == pytest.approx(length, rel=1e-13)  # as it was
        moved = flat(x) - flat(state.parameters)
        want = min(factor, 1e100 / length, 1.0) * flat(g) / length
        np.testing.assert_allclose(moved, want, atol=1e-14)


# ---------------------------------------------------------------- the loop


def least_squares(seed=0):
    rng = np.random.default_rng(seed)
    A, b = rng.normal(size=(12, 3)), rng.normal(size=12)

    def loss(x, A, b):
        return np.mean((A @ x["w"] + x["c"] - b) ** 2)

    return loss, {"w": np.zeros(3), "c": np.zeros(())}, A, b


def test_fit_follows_the_gradient():
    loss, x, A, b = least_squares()
    calls = []
    found = optim.fit(
        loss,
        x,
        [(A, b)] * 5,
        optim.SGD(0.1),
        watch=lambda t, p: calls.append((t, flat(p).copy())),
    )
    w, c, losses, norms = np.zeros(3), 0.0, [], []
    for t in range(5):
        away = A @ w + c - b
        gw, gc = 2 * A.T @ away / 12, 2 * away.mean()
        losses.append(np.mean(away**2))
        norms.append(math.hypot(*gw, gc))
        w, c = w - 0.1 * gw, c - 0.1 * gc
        assert calls[t][0] == t + 1
        np.testing.assert_allclose(calls[t][1], [*w, c], rtol=1e-12)
    np.testing.assert_allclose(found.loss, losses, rtol=1e-12)
    np.testing.assert_allclose(found.norm, norms, rtol=1e-12)
    np.testing.assert_allclose(found.parameters["w"], w, rtol=1e-12)
    np.testing.assert_array_equal(flat(x), 0.0)


def test_fit_finds_the_minimum():
    loss, x, A, b = least_squares()
    found = optim.fit(loss, x, [(A, b)] * 2000, optim.Adam(optim.cosine(0.1, 2000)))
    want = optimize.lsq_linear(np.column_stack([A, np.ones(12)]), b)
    np.testing.assert_allclose(flat(found.parameters), want.x, atol=1e-6)


def test_fit_takes_a_batch_that_is_no_tuple():
    found = optim.fit(
        lambda x, b: (x - b) ** 2, np.array(0.0), [1.0, 3.0], optim.SGD(0.5)
    )
    assert found.parameters == 3.0


def test_fit_draws_a_bar(capsys):
    loss, x, A, b = least_squares()
    optim.fit(loss, x, [(A, b)] * 3, optim.SGD(0.1))
    assert capsys.readouterr() == ("", "")
    optim.fit(loss, x, [(A, b)] * 3, optim.SGD(0.1), progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    bars = err.split("\r")[1:]
    assert [bar.count("#") for bar in bars] == [10, 20, 30]
    assert [bar.count(".") - 1 for bar in bars] == [20, 10, 0]  # one in the loss
    assert re.fullmatch(r"\[#{30}\] 3/3  loss \d\.\d+\n", bars[-1])
    assert err.count("\n") == 1
    optim.fit(loss, x, iter([(A, b)] * 2), optim.SGD(0.1), progress=True)
    err = capsys.readouterr().err
    assert re.fullmatch(r"\rstep 1  loss \S+\rstep 2  loss \S+\n", err)


@pytest.mark.parametrize("value", [NAN, INF])
def test_fit_refuses_a_loss_that_is_no_number(value):
    def loss(x, factor):
        return np.sum(x) * factor

    with pytest.raises(ValueError, match=f"^loss is {value} at step 2, wants"):
        optim.fit(loss, np.ones(2), [1.0, value], optim.SGD(0.1))


def test_fit_refuses_a_slope_that_is_no_number():
    def loss(x):
        return np.sum(np.sqrt(x))

    with (
        np.errstate(divide="ignore"),
        pytest.raises(ValueError, match=r"^gradients holds inf, wants finite"),
    ):
        optim.fit(loss, np.zeros(2), [()], optim.SGD(0.1))


@pytest.mark.parametrize("size", [1, 3, 7, 10, 99])
def test_minibatches_cover_every_row_once_an_epoch(size):
    x = np.arange(10.0)[:, None] * [1, 2]
    y = np.arange(10)
    batches = list(optim.minibatches((x, y), size, 3, np.random.default_rng(0)))
    per_epoch = -(-10 // size)
    assert len(batches) == 3 * per_epoch
    orders = []
    for e in range(3):
        part = batches[e * per_epoch : (e + 1) * per_epoch]
        rows = np.concatenate([labels for _, labels in part])
        assert sorted(rows) == list(range(10))
        orders.append(tuple(rows))
        assert {len(labels) for _, labels in part[:-1]} <= {size}
        for images, labels in part:
            np.testing.assert_array_equal(images, x[labels])
    assert len(set(orders)) == 3
    again = optim.minibatches((x, y), size, 3, np.random.default_rng(0))
    for one, other in zip(batches, again, strict=True):
        np.testing.assert_array_equal(one[1], other[1])


def test_keep_memory_says_whether_it_will(monkeypatch):
    assert type(optim.keep_memory()) is bool
    monkeypatch.setattr(sys, "platform", "darwin")
    assert optim.keep_memory() is False
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # no mallopt
    assert optim.keep_memory() is False


# ---------------------------------------------------------------- bad input

X, G = np.ones((2, 3)), np.ones((2, 3))
START = optim.SGD(0.1).init(X)
RNG = np.random.default_rng(0)
ROWS = (np.ones((4, 2)), np.ones(4))


def step(gradients, parameters=X, **options):
    optimizer = optim.SGD(0.1, **options)
    return optimizer.step(optimizer.init(parameters), gradients)


def good_fit(**options):
    given = {
        "loss": lambda x, b: np.sum(x * b),
        "parameters": X,
        "batches": [X],
        "optimizer": optim.SGD(0.1),
    }
    return optim.fit(**given | options)


def bad_numbers(call, name, *, at=" wants a (finite )?number"):
    """What no setting may be."""
    for value in (NAN, INF, -1.0, "abc", None, True, [0.1], 1j):
        yield (lambda v=value: call(v)), rf"^{name} .*wants"


def settings(cls):
    yield from bad_numbers(lambda v: cls(lr=v), "lr")
    for value in (NAN, INF, -1.0, 0.0, "abc", True):
        yield (lambda v=value: cls(0.1, clip=v)), r"^clip .* wants"


# Of every public function and class: bad calls, and what the message must say.
REFUSALS = {
    "SGD": list(settings(optim.SGD)),
    "Momentum": [
        *settings(optim.Momentum),
        *bad_numbers(lambda v: optim.Momentum(0.1, beta=v), "beta"),
        (lambda: optim.Momentum(0.1, beta=1.1), r"^beta is 1.1, wants"),
        (lambda: optim.Momentum(0.1, nesterov="no"), r"^nesterov is 'no', wants True"),
    ],
    "RMSProp": [
        *settings(optim.RMSProp),
        *bad_numbers(lambda v: optim.RMSProp(0.1, beta=v), "beta"),
        (lambda: optim.RMSProp(0.1, beta=1.0), r"^beta is 1, wants less"),
        *bad_numbers(lambda v: optim.RMSProp(0.1, epsilon=v), "epsilon"),
        (lambda: optim.RMSProp(0.1, epsilon=0.0), r"^epsilon is 0.0, wants"),
    ],
    "Adam": [
        *settings(optim.Adam),
        *bad_numbers(lambda v: optim.Adam(beta1=v), "beta1"),
        *bad_numbers(lambda v: optim.Adam(beta2=v), "beta2"),
        (lambda: optim.Adam(beta1=1.0), r"^beta1 is 1, wants less"),
        (lambda: optim.Adam(beta2=1.0), r"^beta2 is 1, wants less"),
        *bad_numbers(lambda v: optim.Adam(epsilon=v), "epsilon"),
        (lambda: optim.Adam(epsilon=1e-40), r"^epsilon is 1e-40, wants .* 1e-30"),
    ],
    "AdamW": [
        *settings(optim.AdamW),
        *bad_numbers(lambda v: optim.AdamW(weight_decay=v), "weight_decay"),
        (lambda: optim.AdamW(epsilon=0.0), r"^epsilon is 0.0, wants"),
    ],
    "Optimizer.init": [
        (lambda: optim.SGD(0.1).init({}), r"^parameters .* without arrays, wants"),
        (lambda: optim.SGD(0.1).init(None), r"^parameters .* without arrays, wants"),
        (
            lambda: optim.SGD(0.1).init({"a": X, "b": np.ones(2, np.float32)}),
            r"^parameters\['b'\] holds float32, wants float64, as parameters\['a'\]",
        ),
        (
            lambda: optim.SGD(0.1).init([X, np.ones(2, int)]),
            r"^parameters\[1\] holds int64, wants float32 or float64",
        ),
        (lambda: optim.SGD(0.1).init("abc"), r"^parameters holds a str, wants"),
        (lambda: optim.SGD(0.1).init(X.astype(np.float16)), r"holds float16, wants"),
        (lambda: optim.SGD(0.1).init(X * 1j), r"^parameters holds complex128, wants"),
        (lambda: optim.SGD(0.1).init([X * NAN]), r"^parameters\[0\] holds nan, wants"),
        (lambda: optim.SGD(0.1).init({"a": -X * INF}), r"\['a'\] holds inf, wants"),
        (
            lambda: optim.SGD(0.1).init(np.ma.MaskedArray(X, X > 0)),
            r"^parameters holds a MaskedArray, wants",
        ),
    ],
    "Optimizer.step": [
        (lambda: step(X[0]), r"^gradients has shape \(3,\), wants \(2, 3\)"),
        (lambda: step([G]), r"^gradients is a list, wants an array"),
        (lambda: step({"w": G}, {"v": X}), r"^gradients has \['w'\], wants .*'v'"),
        (lambda: step({"w": "abc"}, {"w": X}), r"^gradients\['w'\] holds a str, wants"),
        (lambda: step({"w": G * 1j}, {"w": X}), r"\['w'\] holds complex128, wants"),
        (lambda: step({"w": None}, {"w": X}), r"\['w'\] is a NoneType, wants"),
        (lambda: step([G, G * NAN], [X, X]), r"^gradients\[1\] holds nan, wants"),
        (lambda: step([G, -G * INF], [X, X]), r"^gradients\[1\] holds inf, wants"),
        (
            lambda: step(G * 1e160),
            r"^gradients have length 2.45e\+160 at step 1, wants",
        ),
        (
            lambda: step(G.astype(np.float32) * 1e18, X.astype(np.float32)),
            r"^gradients have length 2.45e\+18 at step 1, wants .*float32",
        ),
        (
            lambda: step(G * 1e39, X.astype(np.float32)),
            r"^gradients holds inf, wants",
        ),
        (lambda: optim.SGD(0.1).step(X, G), r"^state is .* wants an object of State"),
        (
            lambda: optim.Adam().step(START, G),
            r"^state has 0 moments, wants 2, as Adam.init",
        ),
        *(
            (
                lambda v=value: optim.SGD(lambda t: v).step(optim.SGD(0.1).init(X), G),
                r"^lr\(1\) .*wants",
            )
            for value in (NAN, INF, -0.1, None, "abc", np.ones(2))
        ),
    ],
    "cosine": [
        *bad_numbers(lambda v: optim.cosine(v, 10), "peak"),
        *bad_numbers(lambda v: optim.cosine(0.1, v), "steps"),
        (lambda: optim.cosine(0.1, 0), r"^steps is 0, wants"),
        *bad_numbers(lambda v: optim.cosine(0.1, 10, warmup=v), "warmup"),
        (lambda: optim.cosine(0.1, 10, warmup=10), r"^warmup is 10, wants less .* 10"),
        (lambda: optim.cosine(0.1, 10)(0), r"^t is 0, wants"),
        (lambda: optim.cosine(0.1, 10)(1.5), r"^t is 1.5, wants"),
    ],
    "exponential": [
        *bad_numbers(lambda v: optim.exponential(v, 0.5, 3), "start"),
        *bad_numbers(lambda v: optim.exponential(0.1, v, 3), "factor"),
        (lambda: optim.exponential(0.1, 1.5, 3), r"^factor is 1.5, wants"),
        *bad_numbers(lambda v: optim.exponential(0.1, 0.5, v), "every"),
        (lambda: optim.exponential(0.1, 0.5, 3)(0), r"^t is 0, wants"),
        (lambda: optim.exponential(0.1, 0.5, 0), r"^every is 0, wants"),
    ],
    "clip_by_global_norm": [
        *bad_numbers(lambda v: optim.clip_by_global_norm(G, v), "limit"),
        (lambda: optim.clip_by_global_norm(G, 0.0), r"^limit is 0, wants more"),
        (lambda: optim.clip_by_global_norm([G, [3]], 1.0), r"\[1\]\[0\] holds a int"),
        (
            lambda: optim.clip_by_global_norm([G * NAN], 1.0),
            r"^gradients\[0\] holds nan",
        ),
        (lambda: optim.clip_by_global_norm({"a": G * INF}, 1.0), r"\['a'\] holds inf"),
        (
            lambda: optim.clip_by_global_norm("abc", 1.0),
            r"^gradients holds a str, wants",
        ),
    ],
    "fit": [
        (lambda: good_fit(loss=3), r"^loss is a int, wants a function"),
        (lambda: good_fit(watch=0), r"^watch is a int, wants a function"),
        (lambda: good_fit(batches=5), r"^batches is a int, wants a list"),
        (lambda: good_fit(batches=[]), r"^batches is empty, wants"),
        (lambda: good_fit(optimizer="adam"), r"^optimizer is a str, wants .*Adam\(\)"),
        (lambda: good_fit(optimizer=optim.Adam), r"^optimizer is a type, wants"),
        (lambda: good_fit(progress="no"), r"^progress is 'no', wants True or False"),
        (
            lambda: good_fit(parameters=np.ones(2, int)),
            r"^parameters holds int64, wants",
        ),
        *(
            (
                lambda v=value: good_fit(loss=lambda x, b: v),
                rf"^loss returned {got}, wants",
            )
            for value, got in (
                (X, r"shape \(2, 3\) of float64"),
                (None, "a NoneType"),
                ("abc", "a str"),
                ([1.0], "a list"),
                (1j, "a complex"),
                (True, "a bool"),
            )
        ),
        (
            lambda: good_fit(loss=lambda x, b: x * b),
            r"^loss returned shape \(2, 3\) of float64, wants one",
        ),
    ],
    "minibatches": [
        *bad_numbers(lambda v: optim.minibatches(ROWS, v, 1, RNG), "size"),
        *bad_numbers(lambda v: optim.minibatches(ROWS, 1, v, RNG), "epochs"),
        (lambda: optim.minibatches(ROWS, 0, 1, RNG), r"^size is 0, wants"),
        (lambda: optim.minibatches(ROWS, 1, 1, 0), r"^rng is 0, wants"),
        (lambda: optim.minibatches(ROWS, 1, 0, RNG), r"^epochs is 0, wants"),
        (
            lambda: optim.minibatches(X, 1, 1, RNG),
            r"^arrays is a ndarray, wants a tuple",
        ),
        (lambda: optim.minibatches((), 1, 1, RNG), r"^arrays is empty, wants"),
        (lambda: optim.minibatches((X, [1, 2]), 1, 1, RNG), r"^arrays\[1\] is a list"),
        (
            lambda: optim.minibatches((X, np.ones(3)), 1, 1, RNG),
            r"^arrays\[1\] has 3 rows, wants .* 2",
        ),
        (lambda: optim.minibatches((X[:0],), 1, 1, RNG), r"^arrays\[0\] has 0 rows"),
        (
            lambda: optim.minibatches((X[0, 0],), 1, 1, RNG),
            r"^arrays\[0\] is a float64",
        ),
    ],
}
# What takes no argument, or is made by this module only.
ACCEPTS = {
    "keep_memory": "it takes nothing",
    "State": "a record that init and step make; step tells a false one",
    "Fit": "a record that fit makes; nothing takes it",
    "Optimizer": "what all optimisers share; refused as SGD refuses",
}


def public():
    """The functions, classes and methods that users call."""
    for name, it in vars(optim).items():
        if getattr(it, "__module__", None) != optim.__name__ or not callable(it):
            continue
        if not name.startswith("_"):
            yield name
        if inspect.isclass(it):
            for method, inner in vars(it).items():
                if inspect.isfunction(inner) and method[0] != "_":
                    yield f"{name}.{method}"


def test_every_public_function_is_in_the_table():
    found = set(public())
    assert found == set(REFUSALS) | set(ACCEPTS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(*case, id=f"{name}-{i}")
        for name, cases in REFUSALS.items()
        for i, case in enumerate(cases)
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "want" in str(caught.value)
