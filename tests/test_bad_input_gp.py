"""Gaussian processes refuse what cannot be meant, and say what they want instead.

Kernels, data and points must fit one another, so a name tells too little of an
argument: here is a table of bad calls, in which every public function stands.
"""

import inspect
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlfs import gp

NAN, INF = np.nan, np.inf
K = gp.SquaredExponential(1.0, [0.7, 1.3])
TIME = gp.Matern(1.0, 1.0, 1.5)
RNG = np.random.default_rng(0)
X = np.linspace(-1, 1, 12).reshape(6, 2)
Y = np.array([0.1, -0.3, 0.2, 0.9, -1.0, 0.4])
T = np.array([0.0, 0.4, 0.5, 1.1, 2.0, 2.5])
LABELS = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0])
LOGIT = gp.Logistic()
MODEL = gp.condition(K, 0.3, X, Y)
LATENT = gp.laplace(K, LOGIT, X, LABELS)
Z = X[:3].copy()
SPARSE = gp.condition_sparse(K, 0.3, X, Y, X[:3], "vfe")


def no_kernel(call, name="kernel"):
    for it in (None, 1.0, "abc", gp.SquaredExponential, [K]):
        yield (lambda it=it: call(it)), rf"^{name} is .* wants a kernel"


def no_positive(call, name):
    for it in (0.0, -1.0, NAN, INF, 1e60, None, "1", 1j, [1.0], True):
        yield (lambda it=it: call(it)), rf"^{name}\b.*wants"


def no_points(call, name="X"):
    bad = X.copy()
    bad[-1, -1] = NAN
    for it in (bad, X[0], X[None], X[:0], 1.0, None, "abc", X * 1e60, X + 1j, [X, 1]):
        yield (lambda it=it: call(it)), rf"^{name}\b.*wants"


def no_values(call, name="y"):
    bad = Y.copy()
    bad[0] = INF
    for it in (bad, Y[:, None], Y[:0], 1.0, None, "abc", Y * 1e60, Y + 1j):
        yield (lambda it=it: call(it)), rf"^{name}\b.*wants"


def of_data(call):
    """What every function of (kernel, noise, X, y) refuses."""
    yield from no_kernel(lambda k: call(k, 0.3, X, Y))
    yield from no_positive(lambda s: call(K, s, X, Y), "noise")
    yield from no_points(lambda X: call(K, 0.3, X, Y))
    yield from no_values(lambda y: call(K, 0.3, X, y))
    yield (lambda: call(K, 0.3, X[:4], Y)), r"^y has shape \(6,\), wants \(4,\)"
    one = gp.SquaredExponential(1.0, [1.0])
    yield (lambda: call(one, 0.3, X, Y)), "^X has 2 inputs a point, wants 1"
    yield (lambda: call(gp.Periodic(1, 1, 1), 0.3, X, Y)), "^X has 2 .* wants 1"
    big = gp.Linear(1e50) * gp.Linear(1e50) * gp.Linear(1e50) * gp.Linear(1e50)
    yield (lambda: call(big, 0.3, X * 1e40, Y)), "^kernel overflows .* wants smaller"


def of_latent(call):
    """What every function of (kernel, likelihood, X, y) refuses."""
    yield from no_kernel(lambda k: call(k, LOGIT, X, LABELS))
    yield from no_points(lambda X: call(K, LOGIT, X, LABELS))
    yield from no_values(lambda y: call(K, LOGIT, X, y))
    for it in (None, gp.Logistic, "logistic"):
        yield (lambda it=it: call(K, it, X, LABELS)), "^likelihood is .*wants Logistic"
    yield (lambda: call(K, LOGIT, X[:4], LABELS)), "^y has 6 entries, wants 4"
    yield (lambda: call(K, LOGIT, X, 2 * LABELS)), "^y holds 2, wants labels 0 and 1"
    yield (lambda: call(K, LOGIT, X, LABELS - 1)), r"^y\[0\] is -1.*wants"
    yield (lambda: call(K, gp.Poisson(1.0), X, LABELS / 2)), "wants a whole number"
    yield (
        (lambda: call(K, gp.Poisson(np.ones(5)), X, LABELS)),
        r"^y has shape \(6,\), wants \(5,\)",
    )


def free_of(call, P):
    for it in (np.ones(P), "abc", 1.0, np.ones(P + 1, bool), [True, 0.5]):
        yield (lambda it=it: call(it)), "^free .*wants"
    yield (lambda: call(np.zeros(P, bool))), "^free is False throughout, wants"


def whole(call, name, low):
    for it in (low - 1, 1.5, None, "3", True, 2**60):
        yield (lambda it=it: call(it)), rf"^{name} is .*wants a whole number"


def kernel_class(make, *names):
    for name in names:
        yield from no_positive(lambda v, name=name: make(**{name: v}), name)


def lengths(make):
    for it in (0.0, [1.0, -1.0], [], [[1.0]], NAN, None, "abc", [1.0, INF], 1e60):
        yield (lambda it=it: make(length=it)), "^length.* wants"


def moments(call):
    yield from no_values(lambda m: call(m, np.ones(6)), "mean")
    for it in (-np.ones(6), np.ones(5), np.full(6, NAN), None, 1.0):
        yield (lambda it=it: call(Y, it)), "^var.* wants"


def likelihood(it, labels, bad):
    yield from moments(it.expected)
    for call in (it.log_p, it.slopes):
        for f in (Y[:5], 1.0, np.full(6, NAN), np.full(6, INF), None, "abc"):
            yield (lambda f=f, call=call: call(labels, f)), "^f .*wants"
        yield (lambda call=call: call(bad, Y)), r"^y.* wants"
    yield (lambda: it.check(bad)), r"^y.* wants"
    yield (lambda: it.check(None)), r"^y.* wants"


def make(cls, **good):
    return lambda **bad: cls(**good | bad)


def no_rng(call):
    for it in (None, 0, np.random, np.random.RandomState(0)):
        yield (lambda it=it: call(it)), "^rng is .*wants a np.random.Generator"


REFUSALS = {
    "Kernel": [
        *no_points(lambda X: K(X)),
        *no_points(lambda Z: K(X, 1.0 if Z is None else Z), "Z"),
        *no_points(K.diag),
        *no_points(K.derivatives),
        *no_kernel(lambda k: K + k, "other"),
        *no_kernel(lambda k: K * k, "other"),
        (lambda: K(X, X[:, :1]), r"^Z has shape \(6, 1\), wants \(n, 2\)"),
        (lambda: K.replace([0.0, 0.0]), r"^log_parameters has shape \(2,\), wants"),
        (lambda: K.replace([0.0, 0.0, 200.0]), r"^log_parameters\[2\] is 200.*wants"),
        (lambda: K.replace([0.0, 0.0, NAN]), r"^log_parameters\[2\] is nan.*wants"),
        (lambda: K.replace(None), "^log_parameters .*wants"),
    ],
    "SquaredExponential": [
        *kernel_class(make(gp.SquaredExponential, scale=1, length=1), "scale"),
        *lengths(make(gp.SquaredExponential, scale=1, length=1)),
    ],
    "Matern": [
        *kernel_class(make(gp.Matern, scale=1, length=1, order=1.5), "scale", "order"),
        *lengths(make(gp.Matern, scale=1, length=1, order=1.5)),
        (lambda: gp.Matern(1, 1, 2.0), "^order is 2, wants 0.5, 1.5 or 2.5"),
    ],
    "RationalQuadratic": [
        *kernel_class(
            make(gp.RationalQuadratic, scale=1, length=1, shape=1), "scale", "shape"
        ),
        *lengths(make(gp.RationalQuadratic, scale=1, length=1, shape=1)),
    ],
    "Periodic": [
        *kernel_class(
            make(gp.Periodic, scale=1, length=1, period=1), "scale", "length", "period"
        ),
        (lambda: gp.Periodic(1, 1, 1)(X), "^X has 2 inputs a point, .* wants 1"),
    ],
    "Linear": [*kernel_class(gp.Linear, "scale")],
    "Constant": [*kernel_class(gp.Constant, "scale")],
    "Sum": [
        *no_kernel(lambda k: gp.Sum(k, K), "left"),
        *no_kernel(lambda k: gp.Sum(K, k), "right"),
    ],
    "Product": [
        *no_kernel(lambda k: gp.Product(k, K), "left"),
        *no_kernel(lambda k: gp.Product(K, k), "right"),
    ],
    "condition": [
        *of_data(gp.condition),
        *no_positive(lambda j: gp.condition(K, 0.3, X, Y, j or -1.0), "jitter"),
    ],
    "predict": [
        *no_points(lambda Z: gp.predict(MODEL, Z), "Z"),
        (lambda: gp.predict(MODEL, X[:, :1]), r"^Z has shape .*wants \(n, 2\)"),
        (lambda: gp.predict(LATENT, X), "^model is .*wants an object of Regression"),
    ],
    "predict_joint": [
        *no_points(lambda Z: gp.predict_joint(MODEL, Z), "Z"),
        (lambda: gp.predict_joint(K, X), "^model is .*wants an object of Regression"),
    ],
    "draw": [
        *no_points(lambda C: gp.draw(Y, C, 1, RNG), "cov"),
        *no_values(lambda m: gp.draw(m, np.eye(6), 1, RNG), "mean"),
        *whole(lambda n: gp.draw(Y, np.eye(6), n, RNG), "n", 1),
        *no_rng(lambda rng: gp.draw(Y, np.eye(6), 1, rng)),
        *no_positive(lambda j: gp.draw(Y, np.eye(6), 1, RNG, j or -1.0), "jitter"),
        (lambda: gp.draw(Y[:2], np.ones((2, 3)), 1, RNG), r"^cov has shape \(2, 3\)"),
        (
            lambda: gp.draw([0, 0], [[1.0, 0.5], [0.4, 1.0]], 1, RNG),
            r"^cov\[0, 1\] is .* wants a symmetric matrix",
        ),
        (lambda: gp.draw([0, 0], -np.eye(2), 1, RNG), "^cov.* wants no variance below"),
        (
            lambda: gp.draw([0, 0], np.ones((2, 2)), 1, RNG),
            "^cov has .* wants .*jitter",
        ),
    ],
    "leave_one_out": [
        (lambda: gp.leave_one_out(None), "^model is .*wants an object of Regression")
    ],
    "coverage": [
        *no_values(lambda y: gp.coverage(Y, np.ones(6), y, 0.5)),
        *no_values(lambda m: gp.coverage(m, np.ones(6), Y, 0.5), "mean"),
        (lambda: gp.coverage(Y, -np.ones(6), Y, 0.5), r"^var\[0\] is -1.*wants"),
        (lambda: gp.coverage(Y, np.ones(5), Y, 0.5), "^var has shape .*wants"),
        (lambda: gp.coverage(Y, np.ones(6), Y, 1.5), "^level is 1.5, wants"),
        (lambda: gp.coverage(Y, np.ones(6), Y, NAN), "^level is nan, wants"),
    ],
    "log_evidence_gradient": [*of_data(gp.log_evidence_gradient)],
    "value_and_gradient": [*of_data(gp.value_and_gradient)],
    "fit": [
        *of_data(gp.fit),
        *free_of(lambda free: gp.fit(K, 0.3, X, Y, free), 4),
        *whole(lambda n: gp.fit(K, 0.3, X, Y, n_iter=n), "n_iter", 1),
    ],
    "fit_restarts": [
        *of_data(lambda k, s, X, y: gp.fit_restarts(k, s, X, y, 1, RNG)),
        *free_of(lambda free: gp.fit_restarts(K, 0.3, X, Y, 1, RNG, free=free), 4),
        *whole(lambda n: gp.fit_restarts(K, 0.3, X, Y, n, RNG), "n", 0),
        *no_rng(lambda rng: gp.fit_restarts(K, 0.3, X, Y, 1, rng)),
        (lambda: gp.fit_restarts(K, 0.3, X, Y, 1, RNG, 11.0), "^spread is 11.*wants"),
        (lambda: gp.fit_restarts(K, 0.3, X, Y, 1, RNG, -1.0), "^spread is -1.*wants"),
    ],
    "Logistic": [*likelihood(LOGIT, LABELS, 2 * LABELS)],
    "Probit": [*likelihood(gp.Probit(), LABELS, LABELS - 1)],
    "Poisson": [
        *likelihood(gp.Poisson(1.0), LABELS, LABELS / 2),
        *(
            ((lambda e=e: gp.Poisson(e)), "^exposure.* wants")
            for e in (0.0, -1.0, NAN, [], [[1.0]], None, "abc", [1.0, 0.0])
        ),
        (lambda: gp.Poisson(1.0).slopes([1.0], [600.0]), "^f is 600, wants at most"),
        (lambda: gp.Poisson(1.0).expected([600.0], [0.0]), "^var .* wants at most 500"),
    ],
    "laplace": [
        *of_latent(gp.laplace),
        *whole(lambda n: gp.laplace(K, LOGIT, X, LABELS, n), "n_iter", 1),
        (lambda: gp.laplace(K, LOGIT, X, LABELS, 1), "^n_iter is 1, wants more"),
    ],
    "laplace_value_and_gradient": [*of_latent(gp.laplace_value_and_gradient)],
    "fit_laplace": [
        *of_latent(gp.fit_laplace),
        *free_of(lambda free: gp.fit_laplace(K, LOGIT, X, LABELS, free), 3),
        *whole(lambda n: gp.fit_laplace(K, LOGIT, X, LABELS, n_iter=n), "n_iter", 1),
    ],
    "ep": [
        *of_latent(gp.ep),
        *whole(lambda n: gp.ep(K, LOGIT, X, LABELS, n), "n_iter", 1),
        (lambda: gp.ep(K, LOGIT, X, LABELS, 1), "^n_iter is 1, wants more"),
        (lambda: gp.ep(K, LOGIT, X, LABELS, 9, 0.0), "^damping is 0.*wants"),
        (lambda: gp.ep(K, LOGIT, X, LABELS, 9, 2.0), "^damping is 2.*wants"),
    ],
    "tilted": [
        *no_values(lambda m: gp.tilted(LOGIT, LABELS, m, np.ones(6)), "mean"),
        (lambda: gp.tilted(LOGIT, LABELS, Y, np.zeros(6)), r"^var\[0\] is 0.*wants"),
        (lambda: gp.tilted(LOGIT, LABELS, Y, np.ones(5)), "^var has shape .*wants"),
        (lambda: gp.tilted(LOGIT, Y, Y, np.ones(6)), "^y.* wants"),
        (lambda: gp.tilted(None, LABELS, Y, np.ones(6)), "^likelihood is None, wants"),
    ],
    "predict_latent": [
        *no_points(lambda Z: gp.predict_latent(LATENT, Z), "Z"),
        (lambda: gp.predict_latent(MODEL, X), "^model is .*wants an object of Latent"),
    ],
    "predict_outcome": [
        *no_points(lambda Z: gp.predict_outcome(LATENT, Z), "Z"),
        (lambda: gp.predict_outcome(MODEL, X), "^model is .*wants an object of Latent"),
    ],
    "condition_sparse": [
        *of_data(lambda k, s, X, y: gp.condition_sparse(k, s, X, y, Z, "fitc")),
        *no_points(lambda Z: gp.condition_sparse(K, 0.3, X, Y, Z, "sor"), "Z"),
        (
            lambda: gp.condition_sparse(K, 0.3, X, Y, X[:3], "dtc"),
            "^method is 'dtc', wants one of",
        ),
        (
            lambda: gp.condition_sparse(K, 0.3, X, Y, X[[0, 0]], "vfe"),
            "^Z gives .* wants .*raise jitter",
        ),
        *no_positive(
            lambda j: gp.condition_sparse(K, 0.3, X, Y, X[:3], "vfe", j or -1.0),
            "jitter",
        ),
    ],
    "predict_sparse": [
        *no_points(lambda Z: gp.predict_sparse(SPARSE, Z), "Z"),
        (lambda: gp.predict_sparse(MODEL, X), "^model is .*wants an object of Sparse"),
    ],
    "pivots": [
        *no_kernel(lambda k: gp.pivots(k, X, 2)),
        *no_points(lambda X: gp.pivots(K, X, 2)),
        *whole(lambda m: gp.pivots(K, X, m), "m", 1),
        (lambda: gp.pivots(K, X, 7), "^m is 7, wants at most 6, the number of points"),
        (lambda: gp.pivots(gp.Linear(1.0), X, 3), "^m is 3, wants at most 2: the rest"),
    ],
    "state_space": [
        *no_kernel(lambda k: gp.state_space(k, T)),
        (lambda: gp.state_space(K, T), "^kernel is .*wants an object of Matern"),
        (lambda: gp.state_space(gp.Matern(1, [1, 2], 0.5), T), "^kernel has 2 lengths"),
        (lambda: gp.state_space(TIME, -T - 1), r"^gap\[0\] is -1.*wants"),
        (lambda: gp.state_space(TIME, [NAN]), r"^gap\[0\] is nan.*wants"),
    ],
    "smooth": [
        *no_kernel(lambda k: gp.smooth(k, 0.3, T, Y)),
        *no_positive(lambda s: gp.smooth(TIME, s, T, Y), "noise"),
        *no_values(lambda y: gp.smooth(TIME, 0.3, T, y)),
        *no_values(lambda t: gp.smooth(TIME, 0.3, t, Y), "t"),
        (lambda: gp.smooth(TIME, 0.3, T[:5], Y), r"^y has shape \(6,\), wants \(5,\)"),
        (lambda: gp.smooth(TIME, 0.3, T, Y, [NAN]), r"^at\[0\] is nan.*wants"),
        (lambda: gp.smooth(K, 0.3, T, Y), "^kernel is .*wants an object of Matern"),
    ],
}
# Results, which nobody but this module makes, and the base of the likelihoods.
RECORDS = {"Regression", "Fit", "Latent", "Sparse", "Smoothed", "Likelihood"}


def test_every_public_function_is_in_the_table():
    public = {
        name
        for name, it in vars(gp).items()
        if getattr(it, "__module__", "") == "mlfs.gp"
        and callable(it)
        and not name.startswith("_")
    }
    assert public - RECORDS == set(REFUSALS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(call, message, id=f"{name}-{i}")
        for name, refused in REFUSALS.items()
        for i, (call, message) in enumerate(refused)
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert re.search(r"\bwants?\b", str(caught.value))


# ---------------------------------------------------------------- good input


def good_calls():
    """One good call of each function, its arrays freshly made."""
    data = (K, 0.3, X.copy(), Y.copy())
    latent = (K, LOGIT, X.copy(), LABELS.copy())
    rng = np.random.default_rng(0)
    yield gp.condition, data
    yield gp.predict, (MODEL, X.copy())
    yield gp.predict_joint, (MODEL, X.copy())
    yield gp.draw, (Y.copy(), np.eye(6), 3, rng)
    yield gp.leave_one_out, (MODEL,)
    yield gp.coverage, (Y.copy(), np.ones(6), Y + 0.5, 0.9)
    yield gp.log_evidence_gradient, data
    yield gp.value_and_gradient, data
    yield gp.fit, data
    yield gp.fit_restarts, (*data, 1, rng)
    yield gp.laplace, latent
    yield gp.laplace_value_and_gradient, latent
    yield gp.fit_laplace, latent
    yield gp.ep, latent
    yield gp.tilted, (LOGIT, LABELS.copy(), Y.copy(), np.ones(6))
    yield gp.predict_latent, (LATENT, X.copy())
    yield gp.predict_outcome, (LATENT, X.copy())
    yield gp.condition_sparse, (*data, X[:3].copy(), "vfe")
    yield gp.predict_sparse, (SPARSE, X.copy())
    yield gp.pivots, (K, X.copy(), 2)
    yield gp.state_space, (TIME, T.copy())
    yield gp.smooth, (TIME, 0.3, T[::-1].copy(), Y.copy(), T + 0.1)


def arrays(it):
    """The arrays in a result or an argument."""
    if isinstance(it, np.ndarray):
        yield it
    elif isinstance(it, (list, tuple)):
        for one in it:
            yield from arrays(one)
    elif hasattr(it, "__dataclass_fields__"):
        for name in it.__dataclass_fields__:
            yield from arrays(getattr(it, name))


def test_every_function_has_a_good_call():
    called = {function.__name__ for function, _ in good_calls()}
    functions = {name for name in REFUSALS if inspect.isfunction(getattr(gp, name))}
    assert called == functions


@pytest.mark.parametrize("i", range(len(list(good_calls()))))
def test_arguments_stay_as_they_were_and_results_are_new(i):
    function, arguments = list(good_calls())[i]
    mine = list(arrays([a for a in arguments if isinstance(a, np.ndarray)]))
    before = [a.copy() for a in mine]
    for a in mine:
        a.setflags(write=False)
    found = function(*arguments)
    for a, was in zip(mine, before, strict=True):
        np.testing.assert_array_equal(a, was)
    for out in arrays(found):
        assert not np.isnan(np.asarray(out, dtype=float)).any()
        assert not any(np.shares_memory(out, a) for a in mine)


@pytest.mark.parametrize("i", range(len(list(good_calls()))))
def test_lists_and_other_orders_do_as_well(i):
    function, arguments = list(good_calls())[i]
    function, again = list(good_calls())[i]
    want = function(*arguments)
    listed = [a.tolist() if isinstance(a, np.ndarray) else a for a in again]
    for one, other in zip(arrays(function(*listed)), arrays(want), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


EXTREME = st.sampled_from([1e-50, 1e-20, 1e-3, 1.0, 1e3, 1e20, 1e50])


@given(
    scale=EXTREME,
    length=EXTREME,
    noise=EXTREME,
    size=st.sampled_from([0.0, 1e-50, 1.0, 1e25, 1e50]),
    which=st.sampled_from(["se", "matern", "rq", "linear", "sum"]),
)
@settings(max_examples=40)
def test_extreme_parameters_give_an_answer_or_a_value_error(
    scale, length, noise, size, which
):
    se = gp.SquaredExponential(scale, length)
    kernel = {
        "se": se,
        "matern": gp.Matern(scale, [length, 1.0], 0.5),
        "rq": gp.RationalQuadratic(scale, length, noise),
        "linear": gp.Linear(scale),
        "sum": se * gp.Linear(length) + gp.Constant(scale),
    }[which]
    points, values = size * X, np.clip(size * Y, -1e50, 1e50)
    calls = (
        lambda: gp.predict(gp.condition(kernel, noise, points, values), points),
        lambda: gp.value_and_gradient(kernel, noise, points, values),
        lambda: gp.log_evidence_gradient(kernel, noise, points, values),
        lambda: gp.leave_one_out(gp.condition(kernel, noise, points, values)),
        lambda: gp.predict_outcome(gp.laplace(kernel, LOGIT, points, LABELS), points),
        lambda: gp.laplace(kernel, gp.Poisson(noise), points, LABELS),
        lambda: gp.ep(kernel, LOGIT, points, LABELS),
        lambda: gp.predict_sparse(
            gp.condition_sparse(kernel, noise, points, values, points[:2], "vfe"),
            points,
        ),
        lambda: gp.pivots(kernel, points, 2),
        lambda: gp.smooth(gp.Matern(scale, length, 2.5), noise, points[:, 0], values),
    )
    for call in calls:
        try:
            found = call()
        except ValueError as error:
            assert re.search(r"\bwants?\b", str(error)), error
        else:
            for out in arrays(found):
                assert not np.isnan(out).any()
