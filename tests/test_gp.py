"""Gaussian processes: dense definitions, integrals, refits, scikit-learn, GPML."""

import warnings
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import expit, gammaln

from mlfs import gp
from mlfs.core import data
from oracles import gp as oracle

with warnings.catch_warnings():  # scikit-learn's own imports, not ours
    warnings.simplefilter("ignore")
    from sklearn.gaussian_process import (
        GaussianProcessClassifier,
        GaussianProcessRegressor,
    )
    from sklearn.gaussian_process import kernels as sk

JOINT = "the joint Gaussian, inverted as a whole"
# oracles.md: five points of a sine; values computed independently
X5 = np.array([-4.0, -3.0, -1.0, 0.0, 2.0])[:, None]
Y5 = np.sin(X5[:, 0])
UNIT = gp.SquaredExponential(1.0, 1.0)
LABELS_X = np.array([-3.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 3.0])[:, None]
LABELS = np.array([0, 0, 1, 0, 1, 0, 1, 1])


def points(rng, n=12, D=2):
    return rng.normal(size=(n, D))


def some_kernels(D=2):
    """One of each, with a length for each input where it can have one."""
    lengths = np.linspace(0.6, 1.7, D)
    each = {
        "se": gp.SquaredExponential(1.3, lengths),
        "one length": gp.SquaredExponential(0.7, 0.9),
        "matern 1/2": gp.Matern(1.2, lengths, 0.5),
        "matern 3/2": gp.Matern(0.8, lengths, 1.5),
        "matern 5/2": gp.Matern(1.1, 0.8, 2.5),
        "rq": gp.RationalQuadratic(1.1, lengths, 0.6),
        "rq, one length": gp.RationalQuadratic(1.1, 0.7, 2.0),
        "linear": gp.Linear(0.4),
        "constant": gp.Constant(2.0),
    }
    each["sum"] = each["se"] + each["linear"]
    each["product"] = each["matern 3/2"] * each["linear"]
    each["both"] = (each["rq"] + each["constant"]) * each["se"] + each["linear"]
    if D == 1:
        each["periodic"] = gp.Periodic(1.2, 0.8, 0.9)
        each["decaying"] = each["periodic"] * each["one length"] + each["linear"]
    return each


KERNELS = some_kernels()
KERNELS_1 = some_kernels(1)
each_kernel = pytest.mark.parametrize("name", KERNELS)
seeds = st.integers(0, 10_000)


def away_from(kernel, X):
    """A good conditioned problem for any kernel: some noise, and y of its size."""
    rng = np.random.default_rng(len(X))
    return 0.3, rng.normal(size=len(X))


# ---------------------------------------------------------------- kernels


@given(seed=seeds)
@settings(max_examples=15)
def test_kernels_are_what_they_say(claim, seed):
    rng = np.random.default_rng(seed)
    X, Z = points(rng, 4), points(rng, 3)
    scale, length = rng.uniform(0.5, 2.0), rng.uniform(0.5, 2.0, 2)
    claim(
        "gp-se",
        oracle="a product over inputs, pair by pair",
        kind="exact",
        got=gp.SquaredExponential(scale, length)(X, Z),
        want=oracle.matrix(oracle.squared_exponential(scale, length), X, Z),
        atol=1e-12,
    )
    for order in (0.5, 1.5, 2.5):
        claim(
            "gp-matern",
            oracle="Bessel functions, as for any order",
            kind="exact",
            got=gp.Matern(scale, length, order)(X, Z),
            want=oracle.matrix(oracle.matern(scale, length, order), X, Z),
            atol=1e-10,
        )
    claim(
        "gp-linear",
        oracle="covariance of 4 weights, summed",
        kind="exact",
        got=gp.Linear(scale)(X, Z),
        want=sum(scale**2 * np.outer(X[:, d], Z[:, d]) for d in range(2)),
        atol=1e-12,
    )


@given(seed=seeds)
@settings(max_examples=5)
def test_mixed_and_periodic_kernels(claim, seed):
    rng = np.random.default_rng(seed)
    X, shape = points(rng, 3), rng.uniform(1.2, 3.0)
    claim(
        "gp-rq",
        oracle="an integral over squared exponentials",
        kind="exact",
        got=gp.RationalQuadratic(1.1, 0.8, shape)(X),
        want=oracle.matrix(oracle.rational_quadratic(1.1, 0.8, shape), X, X),
        atol=1e-9,
    )
    t = rng.uniform(-3, 3, (5, 1))
    # 4 sin²(Δ/2) is the squared chord: exp(−2 sin²/ℓ²) is exp(−chord²/2ℓ²)
    claim(
        "gp-periodic",
        oracle="a squared exponential on a circle",
        kind="exact",
        got=gp.Periodic(1.2, 0.7, 0.9)(t),
        want=oracle.matrix(oracle.periodic(1.2, 0.7, 0.9), t, t),
        atol=1e-12,
    )


def test_sums_and_products_of_functions(claim):
    """Draw two functions many times: the covariance of their sum and product."""
    rng = np.random.default_rng(0)
    X, N = points(rng, 3, 1), 200_000
    a, b = gp.SquaredExponential(1.0, 1.0), gp.Matern(0.7, 0.6, 1.5)
    zero = np.zeros(3)
    f, g = gp.draw(zero, a(X), N, rng), gp.draw(zero, b(X), N, rng)
    for label, made, k in (("gp-sum", f + g, a + b), ("gp-product", f * g, a * b)):
        each = made[:, :, None] * made[:, None, :]
        error = each.std(axis=0) / np.sqrt(N)
        off = np.abs(each.mean(axis=0) - k(X)) / error
        if label == "gp-sum":
            claim(
                "gp-sum",
                oracle="200,000 drawn pairs, in standard errors",
                kind="law",
                got=off.max(),
                at_most=5.0,
            )
        else:
            claim(
                "gp-product",
                oracle="200,000 drawn pairs, in standard errors",
                kind="law",
                got=off.max(),
                at_most=5.0,
            )


@each_kernel
def test_kernels_hang_together(name):
    rng = np.random.default_rng(1)
    kernel, X, Z = KERNELS[name], points(rng), points(rng, 5)
    K = kernel(X)
    np.testing.assert_allclose(K, K.T, atol=1e-14)
    np.testing.assert_allclose(np.diag(K), kernel.diag(X), rtol=1e-13)
    np.testing.assert_allclose(kernel(X, Z), kernel(Z, X).T, rtol=1e-13)
    np.testing.assert_allclose(kernel(np.vstack([X, Z]))[:12, 12:], kernel(X, Z))
    assert np.linalg.eigvalsh(K).min() > -1e-10 * K.max()
    logs = kernel.log_parameters
    assert len(kernel.names) == len(logs) and len(set(kernel.names)) == len(logs)
    again = kernel.replace(logs)
    np.testing.assert_allclose(again(X), K, rtol=1e-12)
    assert type(again) is type(kernel)


@pytest.mark.parametrize("kernels", [KERNELS, KERNELS_1], ids=["2-D", "1-D"])
def test_derivatives_and_pulls(kernels):
    rng = np.random.default_rng(2)
    D = 2 if kernels is KERNELS else 1
    X, Z = points(rng, 7, D), points(rng, 5, D)
    for kernel in kernels.values():
        logs = kernel.log_parameters
        want = oracle.finite_gradient(lambda t, k=kernel: k.replace(t)(X), logs)
        got = kernel.derivatives(X)
        np.testing.assert_allclose(got, want, atol=2e-9 * np.abs(want).max())
        G = rng.normal(size=(7, 5))
        pulled = kernel._pull(X, Z, G)
        plain = [np.sum(G * dK) for dK in kernel._derivatives(X, Z)]
        np.testing.assert_allclose(pulled, plain, rtol=1e-9, atol=1e-11)


# ---------------------------------------------------------------- regression


def test_five_points_of_a_sine(claim):
    model = gp.condition(UNIT, 0.1, X5, Y5)
    mean, var = gp.predict(model, np.array([[-2.0], [1.0], [5.0]]))
    np.testing.assert_allclose(mean, [-0.85857242, 0.69423425, 0.00931865], atol=5e-9)
    np.testing.assert_allclose(var, [0.24804953, 0.29866762, 0.9998746], atol=5e-9)
    assert model.log_evidence == pytest.approx(-5.481413518206115, abs=1e-12)
    gradient = gp.log_evidence_gradient(UNIT, 0.1, X5, Y5)
    known = [-2.2859609496, 0.9472511975, -0.0329478122]
    np.testing.assert_allclose(gradient, known, atol=5e-10)


@given(seed=seeds, which=st.sampled_from(sorted(KERNELS)))
@settings(max_examples=12)
def test_conditioning_is_the_joint_gaussian(claim, seed, which):
    rng = np.random.default_rng(seed)
    kernel, X, Z, y = KERNELS[which], points(rng, 8), points(rng, 3), rng.normal(size=8)
    noise = rng.uniform(0.2, 1.0)
    model = gp.condition(kernel, noise, X, y)
    K_new = kernel(Z) + 1e-3 * np.eye(3)  # a kernel of low rank has no inverse alone
    mean, cov = oracle.conditional(kernel(X), K_new, kernel(Z, X), noise, y)
    cov = cov - 1e-3 * np.eye(3)
    got_mean, got_var = gp.predict(model, Z)
    also_mean, got_cov = gp.predict_joint(model, Z)
    np.testing.assert_array_equal(got_mean, also_mean)
    claim("gp-mean", oracle=JOINT, kind="exact", got=got_mean, want=mean, atol=1e-9)
    claim(
        "gp-variance",
        oracle=JOINT,
        kind="exact",
        got=got_var,
        want=np.diag(cov),
        atol=1e-9,
    )
    claim("gp-covariance", oracle=JOINT, kind="exact", got=got_cov, want=cov, atol=1e-9)
    C = oracle.joint(kernel(X), noise)
    claim(
        "gp-alpha",
        oracle="the equation (K + σ² I) α = y itself",
        kind="exact",
        got=C @ model.alpha,
        want=y,
        atol=1e-10,
    )
    claim(
        "gp-evidence",
        oracle="SciPy's density of the joint Gaussian",
        kind="exact",
        got=model.log_evidence,
        want=oracle.evidence(kernel(X), noise, y),
        atol=1e-9,
    )
    claim(
        "gp-evidence",
        oracle="each value predicted from those before it",
        kind="exact",
        got=model.log_evidence,
        want=oracle.evidence_one_by_one(kernel(X), noise, y),
        atol=1e-9,
    )
    mean, var, log_p = gp.leave_one_out(model)
    want = oracle.leave_one_out(kernel(X), noise, y)
    claim(
        "gp-loo",
        oracle="n refits, each without one point",
        kind="exact",
        got=np.array([mean, var, log_p]),
        want=np.array(want),
        atol=1e-9,
    )


def test_weights_and_functions_are_one_model(claim):
    """A linear kernel is Bayesian linear regression: its mean, variance, evidence."""
    rng = np.random.default_rng(3)
    Phi, new, y = points(rng, 20, 3), points(rng, 4, 3), rng.normal(size=20)
    scale, noise = 1.3, 0.4
    model = gp.condition(gp.Linear(scale), noise, Phi, y)
    precision = Phi.T @ Phi / noise**2 + np.eye(3) / scale**2
    cov = oracle.inverted(precision)
    weights = cov @ Phi.T @ y / noise**2
    mean, var = gp.predict(model, new)
    claim(
        "gp-weights",
        oracle="Bayesian linear regression in weights",
        kind="exact",
        got=np.array([mean, var]),
        want=np.array([new @ weights, np.diag(new @ cov @ new.T)]),
        atol=1e-10,
    )
    # evidence in weight space: p(y) = p(y | w) p(w) / p(w | y) at any w, here the mean
    law = stats.norm
    log_p = law(Phi @ weights, noise).logpdf(y).sum()
    log_p += law(0, scale).logpdf(weights).sum()
    log_p -= stats.multivariate_normal(weights, cov).logpdf(weights)
    assert model.log_evidence == pytest.approx(log_p, abs=1e-10)


def test_laws_of_conditioning():
    rng = np.random.default_rng(4)
    X, Z, y = points(rng), points(rng, 6), rng.normal(size=12)
    kernel = KERNELS["matern 5/2"]
    mean, var = gp.predict(gp.condition(kernel, 0.3, X, y), Z)
    assert (var <= kernel.diag(Z)).all()
    more_X, more_y = np.vstack([X, Z[:1]]), np.append(y, 0.2)
    _, less = gp.predict(gp.condition(kernel, 0.3, more_X, more_y), Z)
    assert (less <= var + 1e-12).all() and less[0] < var[0]
    twice, _ = gp.predict(gp.condition(kernel, 0.3, X, 2 * y), Z)
    np.testing.assert_allclose(twice, 2 * mean, rtol=1e-12)
    order = rng.permutation(12)
    shuffled = gp.predict(gp.condition(kernel, 0.3, X[order], y[order]), Z)
    np.testing.assert_allclose(shuffled[0], mean, atol=1e-12)
    exact, none = gp.predict(gp.condition(kernel, 1e-6, X, y), X)
    np.testing.assert_allclose(exact, y, atol=1e-8)  # no noise: it interpolates
    assert none.max() < 1e-9
    far, prior = gp.predict(gp.condition(kernel, 0.3, X, y), Z + 1e3)
    np.testing.assert_allclose(far, 0.0, atol=1e-300)
    np.testing.assert_allclose(prior, kernel.diag(Z), rtol=1e-12)
    # seen twice with noise σ is seen once, averaged, with σ/√2
    doubled = gp.condition(kernel, 0.3, np.vstack([X, X]), np.r_[y - 0.1, y + 0.1])
    halved = gp.condition(kernel, 0.3 / np.sqrt(2), X, y)
    for one, other in zip(gp.predict(doubled, Z), gp.predict(halved, Z), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-10)


def test_draws_have_the_mean_and_covariance_asked_for(claim):
    rng = np.random.default_rng(5)
    X, N = points(rng, 4), 200_000
    cov, mean = KERNELS["se"](X), np.array([1.0, -2.0, 0.0, 3.0])
    f = gp.draw(mean, cov, N, rng)
    errors = np.abs(f.mean(axis=0) - mean) / np.sqrt(np.diag(cov) / N)
    each = (f - mean)[:, :, None] * (f - mean)[:, None, :]
    off = np.abs(each.mean(axis=0) - cov) / (each.std(axis=0) / np.sqrt(N))
    claim(
        "gp-draw",
        oracle="mean and covariance of 200,000 draws, in standard errors",
        kind="law",
        got=max(errors.max(), off.max()),
        at_most=5.0,
    )


def test_calibration_counts(claim):
    rng = np.random.default_rng(6)
    mean, var = rng.normal(size=50_000), rng.uniform(0.5, 2.0, 50_000)
    y = mean + np.sqrt(var) * rng.standard_normal(50_000)
    for level in (0.5, 0.9, 0.95):
        error = np.sqrt(level * (1 - level) / 50_000)
        claim(
            "gp-coverage",
            oracle="data drawn from the prediction, in standard errors",
            kind="law",
            got=abs(gp.coverage(mean, var, y, level) - level) / error,
            at_most=4.0,
        )
    assert gp.coverage(mean, var, mean, 0.0) == 1.0
    assert gp.coverage(mean, var, mean + 1e-9, 0.0) == 0.0


# ---------------------------------------------------------------- learning


@each_kernel
def test_gradients(claim, name):
    rng = np.random.default_rng(7)
    kernel, X = KERNELS[name], points(rng, 150)
    y = np.sin(X.sum(axis=1)) + 0.3 * rng.normal(size=150)
    value, fast = gp.value_and_gradient(kernel, 0.4, X, y)
    plain = gp.log_evidence_gradient(kernel, 0.4, X, y)
    theta = np.append(kernel.log_parameters, np.log(0.4))

    def at(theta):
        here = kernel.replace(theta[:-1]), np.exp(theta[-1])
        return gp.condition(*here, X, y).log_evidence

    assert value == pytest.approx(at(theta), rel=1e-12)
    claim(
        "gp-gradient",
        oracle="central differences of log p(y)",
        kind="law",
        got=plain,
        want=oracle.finite_gradient(at, theta, 1e-4),
        rtol=1e-6,
    )
    claim(
        "gp-pull",
        oracle="the plain form, a matrix for each parameter",
        kind="law",
        got=fast,
        want=plain,
        rtol=1e-10,
    )


def as_sklearn():
    """The same kernels in scikit-learn, with noise 0.3."""
    white = sk.WhiteKernel(0.09)
    for order in (0.5, 1.5, 2.5):
        yield (
            gp.Matern(1.3, [0.7, 1.9], order),
            sk.ConstantKernel(1.69) * sk.Matern([0.7, 1.9], nu=order) + white,
            [0, 1, 2],
        )
    yield (
        gp.SquaredExponential(1.3, [0.7, 1.9]),
        sk.ConstantKernel(1.69) * sk.RBF([0.7, 1.9]) + white,
        [0, 1, 2],
    )
    yield (
        gp.RationalQuadratic(1.3, 0.7, 0.6),
        sk.ConstantKernel(1.69) * sk.RationalQuadratic(0.7, 0.6) + white,
        None,
    )


@pytest.mark.parametrize("case", range(5))
def test_against_sklearn(claim, case):
    ours, theirs, order = list(as_sklearn())[case]
    rng = np.random.default_rng(8)
    X, Z, y = points(rng, 30), points(rng, 5), rng.normal(size=30)
    peer = GaussianProcessRegressor(theirs, alpha=0.0, optimizer=None).fit(X, y)
    log_p, gradient = peer.log_marginal_likelihood(theirs.theta, eval_gradient=True)
    value, mine = gp.value_and_gradient(ours, 0.3, X, y)
    claim(
        "gp-evidence",
        oracle="scikit-learn",
        kind="library",
        got=value,
        want=log_p,
        atol=1e-9,
    )
    # Their scale and noise are variances: half the slope.  They order by name.
    theirs_by_ours = {"scale": 0, "noise": len(gradient) - 1}
    if order is None:  # rational quadratic: alpha, then length
        want = [2 * gradient[0], gradient[2], gradient[1], 2 * gradient[3]]
    else:
        want = [
            2 * gradient[theirs_by_ours["scale"]],
            *gradient[1:-1],
            2 * gradient[theirs_by_ours["noise"]],
        ]
    claim(
        "gp-gradient",
        oracle="scikit-learn",
        kind="library",
        got=mine,
        want=want,
        atol=1e-8,
    )
    mean, sd = peer.predict(Z, return_std=True)  # of a measurement: noise included
    got, var = gp.predict(gp.condition(ours, 0.3, X, y), Z)
    claim(
        "gp-mean", oracle="scikit-learn", kind="library", got=got, want=mean, atol=1e-9
    )
    claim(
        "gp-variance",
        oracle="scikit-learn",
        kind="library",
        got=var + 0.09,
        want=sd**2,
        atol=1e-9,
    )


def gpml_kernel():
    """Rasmussen & Williams 2006, section 5.4.3: their fit to carbon dioxide."""
    SE = gp.SquaredExponential
    season = SE(2.4, 90.0) * gp.Periodic(1.0, 1.3, 1.0)
    medium = gp.RationalQuadratic(0.66, 1.2, 0.78)
    return SE(66.0, 67.0) + season + medium + SE(0.18, 1.6 / 12)


def carbon_dioxide():
    co2 = data.load("co2")
    ppm = co2["tenths"] / co2["weeks"] / 10
    return (co2["year"] + (co2["month"] - 0.5) / 12)[:, None], ppm - ppm.mean()


def test_carbon_dioxide_at_the_published_parameters(claim):
    X, y = carbon_dioxide()
    kernel = gpml_kernel()
    peer = (
        sk.ConstantKernel(66.0**2) * sk.RBF(67.0)
        + sk.ConstantKernel(2.4**2) * sk.RBF(90.0) * sk.ExpSineSquared(1.3, 1.0)
        + sk.ConstantKernel(0.66**2) * sk.RationalQuadratic(1.2, 0.78)
        + sk.ConstantKernel(0.18**2) * sk.RBF(1.6 / 12)
        + sk.WhiteKernel(0.19**2)
    )
    model = GaussianProcessRegressor(peer, alpha=0.0, optimizer=None).fit(X, y)
    value, gradient = gp.value_and_gradient(kernel, 0.19, X, y)
    claim(
        "gp-evidence",
        oracle="scikit-learn, carbon dioxide at the parameters of GPML section 5.4.3",
        kind="library",
        got=value,
        want=model.log_marginal_likelihood_value_,
        atol=1e-7,
    )
    assert value == pytest.approx(-116.983445, abs=1e-6)
    plain = gp.log_evidence_gradient(kernel, 0.19, X, y)
    np.testing.assert_allclose(gradient, plain, rtol=1e-6, atol=1e-6)


def test_fit_climbs_to_where_the_gradient_is_zero():
    rng = np.random.default_rng(9)
    X = np.sort(rng.uniform(0, 10, (80, 1)), axis=0)
    y = np.sin(X[:, 0]) + 0.2 * rng.normal(size=80)
    found = gp.fit(gp.SquaredExponential(0.3, 0.3), 1.0, X, y)
    assert found.converged
    assert (np.diff(found.log_evidence) >= -1e-9).all()
    _, gradient = gp.value_and_gradient(found.kernel, found.noise, X, y)
    assert np.abs(gradient).max() < 1e-3
    assert found.noise == pytest.approx(0.2, rel=0.25)
    last = gp.condition(found.kernel, found.noise, X, y).log_evidence
    assert found.log_evidence[-1] == pytest.approx(last, abs=1e-9)


def test_fit_leaves_alone_what_is_not_free():
    X, y = X5, Y5 + np.array([0.1, -0.2, 0.05, 0.1, 0.0])
    start = gp.SquaredExponential(0.5, 2.0)
    found = gp.fit(start, 0.3, X, y, free=[True, False, False])
    assert found.kernel.length == pytest.approx(2.0, rel=1e-12)
    assert found.noise == pytest.approx(0.3, rel=1e-12)
    assert found.kernel.scale != pytest.approx(0.5, rel=1e-3)


def test_restarts_find_the_better_of_two_peaks():
    """Few points: either a wiggly function, or a calm one with noise."""
    rng = np.random.default_rng(10)
    X = np.array([-2.1, -1.5, -1.0, 0.1, 0.4, 1.3, 2.2])[:, None]
    y = np.array([-0.9, -1.0, 0.2, 1.1, 0.3, 1.2, 0.1])
    fits = gp.fit_restarts(UNIT, 0.1, X, y, 12, rng, spread=1.5)
    ends = np.array([one.log_evidence[-1] for one in fits])
    assert len(fits) == 13 and (np.diff(ends) <= 0).all()
    assert ends[0] > ends[-1] + 0.1  # the starts do not all end on one peak
    again = gp.fit_restarts(UNIT, 0.1, X, y, 12, np.random.default_rng(10), spread=1.5)
    assert [one.noise for one in again] == [one.noise for one in fits]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_parameters_are_recovered_from_a_draw(seed):
    rng = np.random.default_rng(seed)
    X = np.sort(rng.uniform(0, 40, (300, 1)), axis=0)
    truth = gp.Matern(1.5, 1.2, 2.5)
    f = gp.draw(np.zeros(300), truth(X), 1, rng, jitter=1e-9)[0]
    y = f + 0.3 * rng.standard_normal(300)
    found = gp.fit(gp.Matern(1.0, 0.5, 2.5), 1.0, X, y)
    assert found.noise == pytest.approx(0.3, rel=0.15)
    assert found.kernel.length == pytest.approx(1.2, rel=0.4)
    assert found.log_evidence[-1] > gp.condition(truth, 0.3, X, y).log_evidence


# ---------------------------------------------------------------- other likelihoods

EXPOSURE = np.array([0.5, 2.0])
LIKELIHOODS = {
    "logistic": (gp.Logistic(), np.array([1.0, 0.0])),
    "probit": (gp.Probit(), np.array([0.0, 1.0])),
    "poisson": (gp.Poisson(EXPOSURE), np.array([3.0, 0.0])),
}


def log_law(name, i, f):
    """log p(yᵢ | f), from SciPy's distributions."""
    y = LIKELIHOODS[name][1][i]
    if name == "poisson":
        return stats.poisson.logpmf(y, EXPOSURE[i] * np.exp(f))
    p = stats.logistic.logcdf if name == "logistic" else stats.norm.logcdf
    return p(f if y else -f)


each_likelihood = pytest.mark.parametrize("name", LIKELIHOODS)


def test_likelihoods(claim):
    f = np.linspace(-4, 4, 9)
    for y in (0.0, 1.0):
        sign = 1 if y else -1
        ones = np.full(9, y)
        claim(
            "gp-logistic",
            oracle="SciPy's logistic distribution",
            kind="exact",
            got=gp.Logistic().log_p(ones, f),
            want=stats.logistic.logcdf(sign * f),
            atol=1e-13,
        )
        claim(
            "gp-probit",
            oracle="SciPy's normal distribution",
            kind="exact",
            got=gp.Probit().log_p(ones, f),
            want=stats.norm.logcdf(sign * f),
            atol=1e-12,
        )
    counts = np.arange(9.0)
    claim(
        "gp-poisson",
        oracle="SciPy's Poisson distribution",
        kind="exact",
        got=gp.Poisson(1.5).log_p(counts, f),
        want=stats.poisson.logpmf(counts, 1.5 * np.exp(f)),
        atol=1e-11,
    )


@each_likelihood
def test_slopes_are_derivatives(name):
    likelihood, y = LIKELIHOODS[name]
    for at in (-3.0, -0.5, 0.0, 0.7, 2.5):
        f = np.full(2, at)
        d1, w, d3 = likelihood.slopes(y, f)
        h = 1e-4
        up, down = likelihood.slopes(y, f + h), likelihood.slopes(y, f - h)
        slope = (likelihood.log_p(y, f + h) - likelihood.log_p(y, f - h)) / (2 * h)
        np.testing.assert_allclose(d1, slope, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(-w, (up[0] - down[0]) / (2 * h), rtol=1e-6)
        third = -(up[1] - down[1]) / (2 * h)
        np.testing.assert_allclose(d3, third, rtol=1e-5, atol=1e-8)
        assert (w > 0).all()  # log-concave


def test_laplace_against_sklearn(claim):
    kernel = gp.SquaredExponential(np.sqrt(2.0), 1.5)
    found = gp.laplace(kernel, gp.Logistic(), LABELS_X, LABELS)
    known = [-0.8577016, -0.68868062, -0.30901363, -0.14189196]
    np.testing.assert_allclose(found.mean, [*known, *-np.array(known[::-1])], atol=5e-9)
    assert found.log_evidence == pytest.approx(-6.076719900149, abs=1e-9)
    theirs = sk.ConstantKernel(2.0) * sk.RBF(1.5)
    peer = GaussianProcessClassifier(theirs, optimizer=None).fit(LABELS_X, LABELS)
    claim(
        "gp-laplace",
        oracle="scikit-learn",
        kind="library",
        got=found.log_evidence,
        want=peer.log_marginal_likelihood_value_,
        atol=1e-8,
    )
    _, gradient = peer.log_marginal_likelihood(theirs.theta, eval_gradient=True)
    _, mine = gp.laplace_value_and_gradient(kernel, gp.Logistic(), LABELS_X, LABELS)
    claim(
        "gp-laplace-gradient",
        oracle="scikit-learn",
        kind="library",
        got=mine,
        want=gradient * [2, 1],
        atol=1e-6,
    )


@each_likelihood
def test_laplace_is_at_the_mode(claim, name):
    likelihood, y = LIKELIHOODS[name]
    X = np.array([[0.0], [0.8]])
    kernel = gp.Matern(1.2, 1.0, 1.5)
    found = gp.laplace(kernel, likelihood, X, y)
    K = kernel(X)
    log_p = lambda f: np.array([log_law(name, i, f[i]) for i in (0, 1)])
    claim(
        "gp-newton",
        oracle="a general optimiser (BFGS)",
        kind="law",
        got=found.mean,
        want=oracle.mode(K, log_p, np.zeros(2)),
        atol=1e-5,
    )
    d1, w, _ = likelihood.slopes(y, found.mean)
    np.testing.assert_allclose(found.mean, K @ d1, atol=1e-8)  # f = K ∇ log p
    want = log_p(found.mean).sum() - 0.5 * found.mean @ np.linalg.solve(K, found.mean)
    claim(
        "gp-log-joint",
        oracle="K inverted, SciPy's distributions",
        kind="exact",
        got=gp._log_joint(likelihood, y, found.weight, found.mean),
        want=want,
        atol=1e-9,
    )
    hessian = oracle.inverted(K) + np.diag(w)
    volume = -0.5 * np.log(np.linalg.det(K) * np.linalg.det(hessian))
    claim(
        "gp-laplace",
        oracle="the volume under the Gaussian at the mode",
        kind="exact",
        got=found.log_evidence,
        want=want + volume,
        atol=1e-9,
    )
    cov = oracle.inverted(hessian)
    np.testing.assert_allclose(found.var, np.diag(cov), atol=1e-10)
    Z = np.array([[0.3], [2.0]])
    T = np.linalg.solve(K, kernel(X, Z)).T
    mean = T @ found.mean
    var = kernel.diag(Z) - np.diag(T @ kernel(X, Z)) + np.diag(T @ cov @ T.T)
    claim(
        "gp-latent",
        oracle="the Gaussian at the mode, carried on by the prior",
        kind="exact",
        got=np.array(gp.predict_latent(found, Z)),
        want=np.array([mean, var]),
        atol=1e-9,
    )


@each_likelihood
def test_laplace_gradient(claim, name):
    likelihood, _ = LIKELIHOODS[name]
    rng = np.random.default_rng(11)
    X = points(rng, 25)
    y = (rng.uniform(size=25) < 0.5).astype(float)
    if name == "poisson":
        likelihood, y = gp.Poisson(rng.uniform(0.5, 2, 25)), rng.poisson(2.0, 25)
    kernel = KERNELS["se"] + KERNELS["constant"]
    value, gradient = gp.laplace_value_and_gradient(kernel, likelihood, X, y)

    def at(theta):
        return gp.laplace(kernel.replace(theta), likelihood, X, y).log_evidence

    claim(
        "gp-laplace-gradient",
        oracle="central differences of Laplace's log p(y)",
        kind="law",
        got=gradient,
        want=oracle.finite_gradient(at, kernel.log_parameters, 1e-3),
        rtol=1e-6,
    )
    better, history = gp.fit_laplace(kernel, likelihood, X, y, n_iter=20)
    assert history[-1] >= value
    end = gp.laplace(better, likelihood, X, y).log_evidence
    assert end == pytest.approx(history[-1], abs=1e-8)


@given(mean=st.floats(-3, 3), var=st.floats(0.05, 40.0))
@settings(max_examples=12)
def test_tilted_moments(claim, mean, var):
    for name, (likelihood, y) in LIKELIHOODS.items():
        got = gp.tilted(likelihood, y, np.full(2, mean), np.full(2, var))
        laws = [partial(log_law, name, i) for i in (0, 1)]
        want = [oracle.tilted(law, mean, var) for law in laws]
        claim(
            "gp-tilted",
            oracle="a sum over 200,001 points",
            kind="exact",
            got=np.array(got),
            want=np.array(want).T,
            atol=1e-9,
        )
    likelihood, y = LIKELIHOODS["probit"]
    got = gp.tilted(likelihood, y, np.full(2, mean), np.full(2, var))
    claim(
        "gp-tilted",
        oracle="the closed form for Φ, GPML eq. 3.58",
        kind="exact",
        got=np.array(got),
        want=np.array(oracle.probit_tilted(y, mean, var)),
        atol=1e-9,
    )


@each_likelihood
def test_ep_matches_moments_and_beats_laplace(claim, name):
    likelihood, y = LIKELIHOODS[name]
    X, kernel = np.array([[0.0], [0.8]]), gp.SquaredExponential(1.5, 1.0)
    log_z, mean, _ = oracle.log_sum_over_grid(
        kernel(X), lambda i, f: log_law(name, i, f)
    )
    ep = gp.ep(kernel, likelihood, X, y)
    laplace = gp.laplace(kernel, likelihood, X, y)
    claim(
        "gp-ep-evidence",
        oracle="the integral over both values, on a grid; EP is near, not equal",
        kind="law",
        got=ep.log_evidence,
        want=log_z,
        atol=5e-3,
    )
    assert abs(ep.log_evidence - log_z) < abs(laplace.log_evidence - log_z)
    assert np.abs(ep.mean - mean).max() < np.abs(laplace.mean - mean).max()
    # At the fixed point each tilted distribution has the moments of the posterior.
    hole, centre = gp._cavity(
        ep.mean, ep.var, ep.root**2, ep.weight + ep.root**2 * ep.mean
    )
    _, m, v = gp.tilted(likelihood, y, centre, 1 / hole)
    claim(
        "gp-cavity",
        oracle="tilted moments are the posterior's at the fixed point",
        kind="law",
        got=np.array([m, v]),
        want=np.array([ep.mean, ep.var]),
        atol=1e-8,
    )
    dense = oracle.inverted(oracle.inverted(kernel(X)) + np.diag(ep.root**2))
    claim(
        "gp-site-posterior",
        oracle="precisions added and inverted",
        kind="exact",
        got=ep.var,
        want=np.diag(dense),
        atol=1e-10,
    )


def test_ep_of_one_point_is_exact(claim):
    """With one point the tilted distribution is the posterior itself."""
    X, kernel = np.zeros((1, 1)), gp.SquaredExponential(1.4, 1.0)
    for name in ("logistic", "probit"):
        likelihood, y = LIKELIHOODS[name][0], np.array([1.0])
        found = gp.ep(kernel, likelihood, X, y)
        law = stats.logistic if name == "logistic" else stats.norm
        want = oracle.tilted(law.logcdf, 0.0, 1.96)
        claim(
            "gp-ep-evidence",
            oracle="one point: the integral itself",
            kind="exact",
            got=[found.log_evidence, found.mean[0], found.var[0]],
            want=want,
            atol=1e-9,
        )


def test_expected_outcomes(claim):
    rng = np.random.default_rng(12)
    mean, var = np.array([-1.0, 0.3, 2.0]), np.array([0.5, 2.0, 1.0])
    f = mean + np.sqrt(var) * rng.standard_normal((400_000, 3))
    for likelihood, outcome in (
        (gp.Logistic(), expit(f)),
        (gp.Probit(), stats.norm.cdf(f)),
        (gp.Poisson(3.0), np.exp(f)),
    ):
        error = outcome.std(axis=0) / np.sqrt(len(f))
        off = np.abs(likelihood.expected(mean, var) - outcome.mean(axis=0)) / error
        claim(
            "gp-outcome",
            oracle="400,000 draws of f, in standard errors",
            kind="law",
            got=off.max(),
            at_most=5.0,
        )
    model = gp.laplace(UNIT, gp.Logistic(), LABELS_X, LABELS)
    p = gp.predict_outcome(model, LABELS_X)
    want = model.likelihood.expected(*gp.predict_latent(model, LABELS_X))
    np.testing.assert_array_equal(p, want)
    assert ((p > 0) & (p < 1)).all()


@pytest.mark.parametrize("method", [gp.laplace, gp.ep])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0, 30.0])
def test_approximations_converge(method, scale):
    rng = np.random.default_rng(13)
    X = rng.uniform(-5, 5, (60, 1))
    kernel = gp.SquaredExponential(scale, 1.0)
    labels = (np.sin(X[:, 0]) + 0.3 * rng.normal(size=60) > 0).astype(float)
    for likelihood, y in (
        (gp.Logistic(), labels),
        (gp.Probit(), labels),
        (gp.Poisson(0.1), rng.poisson(5 * np.exp(np.sin(X[:, 0])))),
    ):
        found = method(kernel, likelihood, X, y, n_iter=400)
        assert np.isfinite(found.log_evidence)
        assert (found.var > 0).all() and (found.var <= scale**2 + 1e-9).all()
        # K is as good as singular: its product with the weights has lost digits
        atol = 1e-6 * max(1.0, scale)
        np.testing.assert_allclose(kernel(X) @ found.weight, found.mean, atol=atol)


# ---------------------------------------------------------------- sparse


@given(seed=seeds, method=st.sampled_from(gp.METHODS))
@settings(max_examples=15)
def test_sparse_is_the_dense_model_meant(claim, seed, method):
    rng = np.random.default_rng(seed)
    kernel, X, y = gp.Matern(1.2, [0.8, 1.3], 1.5), points(rng, 15), rng.normal(size=15)
    Z, new, noise = points(rng, 4), points(rng, 3), 0.4
    found = gp.condition_sparse(kernel, noise, X, y, Z, method)
    K, K_xz, K_zz = kernel(X), kernel(X, Z), kernel(Z)
    want = oracle.sparse(K, K_xz, K_zz, noise, y, method)
    if method == "vfe":
        claim(
            "gp-bound",
            oracle="dense n × n matrices",
            kind="exact",
            got=found.bound,
            want=want,
            atol=1e-9,
        )
    else:
        claim(
            "gp-sparse-evidence",
            oracle="dense n × n matrices",
            kind="exact",
            got=found.bound,
            want=want,
            atol=1e-9,
        )
    prediction = oracle.sparse_prediction(
        K, K_xz, K_zz, kernel(new, Z), kernel(new), noise, y, method
    )
    claim(
        "gp-sparse-predict",
        oracle="dense n × n matrices",
        kind="exact",
        got=np.array(gp.predict_sparse(found, new)),
        want=np.array(prediction),
        atol=1e-9,
    )


@given(seed=seeds)
@settings(max_examples=15)
def test_the_variational_bound_is_one(claim, seed):
    rng = np.random.default_rng(seed)
    kernel, X, y = KERNELS["se"], points(rng, 20), rng.normal(size=20)
    exact = gp.condition(kernel, 0.5, X, y).log_evidence
    Z, last = points(rng, 6), -np.inf
    for m in range(1, 7):
        bound = gp.condition_sparse(kernel, 0.5, X, y, Z[:m], "vfe").bound
        claim(
            "gp-bound",
            oracle="the exact log p(y), from below",
            kind="law",
            got=bound,
            at_most=exact,
            atol=1e-9,
        )
        assert bound >= last - 1e-9  # one inducing point more never hurts
        last = bound


@pytest.mark.parametrize("method", gp.METHODS)
def test_sparse_with_all_points_is_exact(claim, method):
    rng = np.random.default_rng(14)
    kernel, X, new = KERNELS["matern 3/2"], points(rng), points(rng, 4)
    y = rng.normal(size=12)
    full = gp.condition(kernel, 0.3, X, y)
    found = gp.condition_sparse(kernel, 0.3, X, y, X, method)
    claim(
        "gp-sparse-evidence",
        oracle="exact regression, when Z = X",
        kind="exact",
        got=found.bound,
        want=full.log_evidence,
        atol=1e-9,
    )
    mean, var = gp.predict(full, new)
    np.testing.assert_allclose(gp.predict_sparse(found, new)[0], mean, atol=1e-9)
    if method != "sor":
        np.testing.assert_allclose(gp.predict_sparse(found, new)[1], var, atol=1e-9)


@given(seed=seeds)
@settings(max_examples=12)
def test_pivots_are_greedy(claim, seed):
    rng = np.random.default_rng(seed)
    kernel, X = gp.SquaredExponential(1.0, [0.7, 1.1]) + gp.Linear(0.5), points(rng, 15)
    got, want = gp.pivots(kernel, X, 5), oracle.best_pivots(kernel(X), 5)
    claim(
        "gp-pivot",
        oracle="every candidate compared at every step",
        kind="exact",
        got=got,
        want=want,
        atol=0.0,
    )
    Z = X[want]
    V = np.linalg.solve(np.linalg.cholesky(kernel(Z)), kernel(Z, X))
    claim(
        "gp-missed",
        oracle="variances left after the greedy choice",
        kind="law",
        got=(kernel.diag(X) - (V**2).sum(axis=0)).min(),
        at_least=0.0,
        atol=1e-10,
    )


# ---------------------------------------------------------------- state space


def drift(order, length):
    """The stochastic differential equation of a Matérn process, in plain units."""
    rate = np.sqrt(2 * order) / length
    if order == 0.5:
        return np.array([[-rate]]), np.array([1.0]), 2 * rate, rate
    if order == 1.5:
        F = np.array([[0, 1], [-(rate**2), -2 * rate]])
        return F, np.array([0.0, 1.0]), 4 * rate**3, rate
    F = np.array([[0, 1, 0], [0, 0, 1], [-(rate**3), -3 * rate**2, -3 * rate]])
    return F, np.array([0.0, 0.0, 1.0]), 16 / 3 * rate**5, rate


@pytest.mark.parametrize("order", [0.5, 1.5, 2.5])
def test_steps_solve_the_differential_equation(claim, order):
    kernel = gp.Matern(1.3, 0.7, order)
    gap = np.array([0.0, 0.1, 0.9, 3.0])
    A, Q, P = gp.state_space(kernel, gap)
    F, G, spectral, rate = drift(order, 0.7)
    units = rate ** np.arange(len(G))  # our state is divided by these
    for i in range(4):
        want_A, want_Q = oracle.step_of(F, G, 1.69 * spectral, gap[i])
        claim(
            "gp-step",
            oracle="SciPy's matrix exponential",
            kind="exact",
            got=A[i],
            want=want_A * units / units[:, None],
            atol=1e-10,
        )
        claim(
            "gp-step-noise",
            oracle="the integral of the noise over the gap",
            kind="exact",
            got=Q[i],
            want=want_Q / np.outer(units, units),
            atol=1e-9,
        )
    lag = (A @ P)[:, 0, 0]
    claim(
        "gp-step",
        oracle="the kernel at that lag",
        kind="exact",
        got=lag,
        want=kernel(gap[:, None], np.zeros((1, 1)))[:, 0],
        atol=1e-12,
    )


@given(seed=seeds, order=st.sampled_from([0.5, 1.5, 2.5]))
@settings(max_examples=15)
def test_the_filter_is_the_regression(claim, seed, order):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    t = rng.uniform(0, 10, n)
    t[rng.integers(0, n)] = t[0]  # two at one time
    y, new = rng.normal(size=n), rng.uniform(-2, 12, 7)
    kernel, noise = gp.Matern(1.3, rng.uniform(0.3, 2.0), order), 0.3
    found = gp.smooth(kernel, noise, t, y, new)
    model = gp.condition(kernel, noise, t[:, None], y)
    mean, var = gp.predict(model, new[:, None])
    dense = "exact regression, at cubic cost"
    claim(
        "gp-update-step",
        oracle=dense,
        kind="exact",
        got=found.log_evidence,
        want=model.log_evidence,
        atol=1e-9,
    )
    claim(
        "gp-rts",
        oracle=dense,
        kind="exact",
        got=np.array([found.mean, found.var]),
        want=np.array([mean, var]),
        atol=1e-9,
    )
    here = gp.smooth(kernel, noise, t, y)
    claim(
        "gp-predict-step",
        oracle=dense,
        kind="exact",
        got=np.array([here.mean, here.var]),
        want=np.array(gp.predict(model, t[:, None])),
        atol=1e-9,
    )


def test_many_points():
    rng = np.random.default_rng(15)
    t = np.sort(rng.uniform(0, 200, 20_000))
    y = np.sin(t) + 0.3 * rng.normal(size=len(t))
    found = gp.smooth(gp.Matern(1.0, 1.0, 1.5), 0.3, t, y)
    error = np.sqrt(np.mean((found.mean - np.sin(t)) ** 2))
    assert error < 0.06 and np.isfinite(found.log_evidence)
    z = (found.mean - np.sin(t)) / np.sqrt(found.var)
    assert 0.5 < z.std() < 1.2


# ---------------------------------------------------------------- limits


def test_jitter_is_asked_for_by_name():
    X = np.linspace(0, 1, 60)[:, None]
    K = gp.SquaredExponential(1.0, 1.0)(X)
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"^cov has an eigenvalue .*larger jitter"):
        gp.draw(np.zeros(60), K, 1, rng)
    f = gp.draw(np.zeros(60), K, 1, rng, jitter=1e-8)
    assert np.abs(np.diff(f)).max() < 0.3  # the jitter has not made it rough
    with pytest.raises(ValueError, match=r"^kernel gives .*raise jitter"):
        gp.condition(gp.SquaredExponential(1.0, 1.0), 1e-10, X, np.zeros(60))
    with pytest.raises(ValueError, match=r"^kernel gives .*raise jitter"):
        gp.value_and_gradient(gp.SquaredExponential(1.0, 1.0), 1e-10, X, np.zeros(60))


def test_poisson_constant_is_the_textbooks():
    y = np.array([0.0, 3.0])
    got = gp.Poisson(1.0).log_p(y, np.zeros(2))
    np.testing.assert_allclose(got, -1 - gammaln(y + 1), rtol=1e-14)
