"""Generalized linear models: definitions written out, laws, scikit-learn, published."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Lasso, LogisticRegression, PoissonRegressor

from mlfs import glm
from mlfs.core import data
from oracles import glm as oracle

FAMILIES = {
    "gaussian": glm.GAUSSIAN,
    "bernoulli": glm.BERNOULLI,
    "probit": glm.PROBIT,
    "poisson": glm.POISSON,
    "gamma": glm.GAMMA,
}
SEEDS = st.integers(0, 2**32 - 1)


def problem(kind, seed, T=30, D=3):
    """Features, weights, offsets and responses of one family; means are moderate."""
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(T), rng.normal(size=(T, D - 1))])
    w, offset = 0.4 * rng.normal(size=D), 0.3 * rng.normal(size=T)
    if kind == "gamma":  # 1/μ has to stay above zero
        X[:, 1:], w, offset = rng.uniform(0, 1, (T, D - 1)), np.ones(D), 0 * offset
    mu = np.array([oracle.mean(kind, e) for e in oracle.eta(w, X, offset)])
    y = {
        "gaussian": lambda: rng.normal(mu),
        "bernoulli": lambda: (rng.random(T) < mu) * 1.0,
        "probit": lambda: (rng.random(T) < mu) * 1.0,
        "poisson": lambda: rng.poisson(mu) * 1.0,
        "gamma": lambda: rng.gamma(2.0, mu / 2.0),
    }[kind]()
    return X, y, w, offset


def one_hot_problem(seed, T=400, sizes=(5, 4)):
    rng = np.random.default_rng(seed)
    index = np.stack([rng.integers(0, n, T) for n in sizes], axis=1)
    design = glm.OneHot(index, sizes)
    rate = np.exp(rng.normal(size=sizes[0])[index[:, 0]] * 0.5 + 1.0)
    return design, rng.poisson(rate * 0.5) * 1.0


# ---------------------------------------------------------------- exact


@given(SEEDS)
@settings(max_examples=8)
def test_log_likelihoods_are_sums_of_log_probabilities(claim, seed):
    def compare(kind):
        X, y, w, offset = problem(kind, seed)
        got = glm.log_likelihood(w, X, y, FAMILIES[kind], offset, 1.0)
        return got, oracle.log_likelihood(kind, w, X, y, offset)

    by = "SciPy's distribution, one observation after the other"
    got, want = compare("gaussian")
    claim("glm-gaussian", oracle=by, kind="exact", got=got, want=want, atol=1e-10)
    got, want = compare("bernoulli")
    claim("glm-bernoulli", oracle=by, kind="exact", got=got, want=want, atol=1e-10)
    got, want = compare("poisson")
    claim("glm-poisson", oracle=by, kind="exact", got=got, want=want, atol=1e-10)
    for kind in ("probit", "gamma"):
        got, want = compare(kind)
        np.testing.assert_allclose(got, want, atol=1e-9)


def test_a_dispersion_enters_the_likelihood():
    for kind in ("gaussian", "gamma"):
        X, y, w, offset = problem(kind, 0)
        got = glm.log_likelihood(w, X, y, FAMILIES[kind], offset, 0.3)
        want = oracle.log_likelihood(kind, w, X, y, offset, 0.3)
        np.testing.assert_allclose(got, want, atol=1e-9)


@given(SEEDS)
@settings(max_examples=8)
def test_the_gradient_is_that_of_the_likelihood(claim, seed):
    for kind in ("gaussian", "bernoulli", "poisson"):
        X, y, w, offset = problem(kind, seed)
        claim(
            "glm-score",
            oracle="complex step through the log likelihood",
            kind="exact",
            got=glm.gradient(w, X, y, FAMILIES[kind], offset),
            want=oracle.complex_gradient(kind, w, X, y, offset),
            atol=1e-11,
        )
    for kind in ("probit", "gamma"):
        X, y, w, offset = problem(kind, seed)
        got = glm.gradient(w, X, y, FAMILIES[kind], offset)
        for d, h in enumerate(1e-6 * np.eye(len(w))):
            up, down = (
                oracle.log_likelihood(kind, w + s, X, y, offset) for s in (h, -h)
            )
            np.testing.assert_allclose(got[d], (up - down) / 2e-6, atol=1e-5)


def test_mean_and_variance_are_derivatives_of_the_log_partition_function(claim):
    eta = np.linspace(-2.0, 2.0, 9)
    h = 1e-4
    for family, log_partition in (
        (glm.GAUSSIAN, lambda e: 0.5 * e**2),
        (glm.BERNOULLI, lambda e: np.log1p(np.exp(e))),
        (glm.POISSON, np.exp),
    ):
        up, mid, down = (log_partition(eta + s) for s in (h, 0.0, -h))
        claim(
            "glm-mean",
            oracle="central difference of A",
            kind="law",
            got=family.mean(eta),
            want=(up - down) / (2 * h),
            atol=1e-7,
        )
        claim(
            "glm-variance",
            oracle="second difference of A",
            kind="law",
            got=family.variance(family.mean(eta)),
            want=(up - 2 * mid + down) / h**2,
            atol=1e-6,
        )


@pytest.mark.parametrize("kind", ["bernoulli", "probit", "poisson"])
def test_the_information_is_the_variance_of_the_score(claim, kind):
    X, _, w, offset = problem(kind, 5, T=8)
    claim(
        "glm-information",
        oracle="score squared, averaged over every outcome of every observation",
        kind="law",
        got=glm.information(w, X, FAMILIES[kind], offset),
        want=oracle.expected_information(kind, w, X, offset),
        rtol=1e-6,
    )


@pytest.mark.parametrize("kind", FAMILIES)
def test_each_family_is_consistent(kind):
    family = FAMILIES[kind]
    _, y, _, _ = problem(kind, 1)
    eta = np.linspace(0.2, 2.0, len(y))
    mu, h = family.mean(eta), 1e-6
    np.testing.assert_allclose(family.link(mu), eta, atol=1e-12)
    slope = (family.mean(eta + h) - family.mean(eta - h)) / (2 * h)
    np.testing.assert_allclose(
        family.information(eta), slope**2 / family.variance(mu), rtol=1e-6
    )
    score = family.score(y, eta)
    np.testing.assert_allclose(score, (y - mu) * slope / family.variance(mu), rtol=1e-6)
    moved = family.kernel(y, eta + h) - family.kernel(y, eta - h)
    np.testing.assert_allclose(moved / (2 * h), score, rtol=1e-5, atol=1e-6)
    bent = (family.score(y, eta + h) - family.score(y, eta - h)) / (2 * h)
    np.testing.assert_allclose(family.curvature(y, eta), -bent, atol=1e-6)


def test_probit_far_out_is_neither_zero_nor_nan():
    eta = np.array([-1e4, -40.0, 0.0, 40.0, 1e4])
    for y in (np.zeros(5), np.ones(5)):
        for it in (glm.PROBIT.score(y, eta), glm.PROBIT.curvature(y, eta)):
            assert np.isfinite(it).all()
    assert glm.PROBIT.score(np.ones(5), eta)[0] == pytest.approx(1e4, rel=1e-4)


@given(SEEDS)
@settings(max_examples=8)
def test_a_step_of_irls_is_a_step_of_newton(claim, seed):
    X, y, w, offset = problem("poisson", seed)
    got = glm.irls_step(w, X, y, glm.POISSON, offset)
    claim(
        "glm-irls",
        oracle="Newton's step, gradient and Hessian summed entry by entry",
        kind="exact",
        got=got,
        want=oracle.newton_step(w, X, y, offset),
        atol=1e-9,
    )
    mu = np.exp(offset + X @ w)
    claim(
        "glm-working",
        oracle="z = Xw + (y − μ)/μ put into NumPy's least squares, rows times √μ",
        kind="exact",
        got=got,
        want=np.linalg.lstsq(
            np.sqrt(mu)[:, None] * X, np.sqrt(mu) * (X @ w + (y - mu) / mu)
        )[0],
        atol=1e-9,
    )


def test_newton_and_scoring_differ_for_probit():
    X, y, w, offset = problem("probit", 3)
    eta = offset + X @ w
    scoring = glm.PROBIT.information(eta)
    newton = glm.PROBIT.curvature(y, eta)
    assert np.abs(scoring - newton).max() > 0.05
    np.testing.assert_allclose(  # they agree on average over y
        glm.PROBIT.mean(eta) * glm.PROBIT.curvature(np.ones(len(y)), eta)
        + (1 - glm.PROBIT.mean(eta)) * glm.PROBIT.curvature(np.zeros(len(y)), eta),
        scoring,
        rtol=1e-9,
    )


@given(SEEDS)
@settings(max_examples=8)
def test_one_hot_designs_stand_for_their_matrix(claim, seed):
    design, y = one_hot_problem(seed, T=60)
    X = oracle.one_hot(design.index, design.sizes)
    rng = np.random.default_rng(seed)
    w = rng.normal(size=X.shape[1])
    np.testing.assert_array_equal(design.dense(), X)
    dense = "the same with the matrix written out"
    claim(
        "glm-onehot",
        oracle=dense,
        kind="exact",
        got=glm.predict(w, design),
        want=np.exp(X @ w),
        rtol=1e-12,
    )
    claim(
        "glm-onehot-gradient",
        oracle=dense,
        kind="exact",
        got=glm.gradient(w, design, y),
        want=X.T @ (y - np.exp(X @ w)),
        rtol=1e-12,
    )
    claim(
        "glm-onehot-gram",
        oracle=dense,
        kind="exact",
        got=glm.information(w, design),
        want=X.T @ (np.exp(X @ w)[:, None] * X),
        rtol=1e-12,
    )


def test_collapsing_times_leaves_the_fit_alone(claim):
    design, y = one_hot_problem(2)
    P = glm.gauge(design.sizes) + np.diag([0.0] + [0.5] * 9)
    full = glm.fit(design, y, offset=np.log(0.02), penalty=P)
    few, counts, seconds = glm.collapse(design, y, np.full(len(y), 0.02))
    assert few.shape[0] == 20 and counts.sum() == y.sum()
    claim(
        "glm-collapse",
        oracle="the fit to all times, one by one",
        kind="exact",
        got=glm.fit(few, counts, offset=np.log(seconds), penalty=P).w,
        want=full.w,
        atol=1e-9,
    )


@given(st.integers(3, 9), SEEDS)
@settings(max_examples=15)
def test_smoothness_is_the_sum_over_neighbours(claim, n, seed):
    rng = np.random.default_rng(seed)
    w, table = rng.normal(size=n), rng.normal(size=(n, 4))
    written = "squared differences of neighbours, added up in a loop"
    claim(
        "glm-smooth",
        oracle=written,
        kind="exact",
        got=w @ glm.smoothness(n) @ w,
        want=oracle.roughness(w),
        atol=1e-12,
    )
    claim(
        "glm-smooth-circular",
        oracle=written,
        kind="exact",
        got=w @ glm.smoothness(n, circular=True) @ w,
        want=oracle.roughness(w, circular=True),
        atol=1e-12,
    )
    flat = table.ravel()
    claim(
        "glm-smooth-grid",
        oracle=written,
        kind="exact",
        got=flat @ glm.smoothness_grid(n, 4) @ flat,
        want=oracle.roughness_of_grid(table),
        atol=1e-11,
    )
    constant = np.ones(n)
    assert np.abs(glm.smoothness(n) @ constant).max() == 0.0
    assert np.abs(glm.smoothness(n, circular=True) @ constant).max() == 0.0


def test_a_smooth_fit_maximises_likelihood_minus_penalty(claim):
    rng = np.random.default_rng(4)
    n = 12
    index = rng.integers(0, n, 500)
    y = rng.poisson(np.exp(np.sin(index / 2.0)) * 0.3) * 1.0
    P = 3.0 * glm.smoothness(n, circular=True)
    design = glm.OneHot(index[:, None], (n,))
    fit = glm.fit(design, y, penalty=glm.join([np.zeros((1, 1)), P]) + glm.gauge((n,)))
    counts, time = np.bincount(index, y, n), np.bincount(index, minlength=n)
    claim(
        "glm-penalised",
        oracle="the maximum over log rates of bins, found by SciPy's trust region",
        kind="exact",
        got=fit.w[0] + fit.w[1:],
        want=oracle.smoothed_counts(counts, time, P),
        atol=1e-9,
    )


@given(SEEDS)
def test_shrinking_is_the_proximal_step(claim, seed):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=7)
    groups = np.array([-1, 0, 0, 5, 5, 5, 2])
    amount = float(rng.uniform(0, 1.2))
    moreau = "Moreau's identity, w minus its projection on a ball"
    claim(
        "glm-shrink",
        oracle=moreau,
        kind="exact",
        got=glm.shrink(w, amount, groups),
        want=oracle.shrink(w, amount, groups.tolist()),
        atol=1e-12,
    )
    got = glm.shrink(w, amount)
    assert np.allclose(got, np.sign(w) * np.maximum(np.abs(w) - amount, 0.0))


@given(st.integers(2, 40), st.integers(1, 6), st.floats(0.1, 50.0))
@settings(max_examples=25)
def test_raised_cosines(claim, n_lags, n_basis, stretch):
    got = glm.raised_cosines(n_lags, n_basis, stretch)
    claim(
        "glm-cosine",
        oracle="the formula, lag by lag",
        kind="exact",
        got=got,
        want=oracle.raised_cosines(n_lags, n_basis, stretch),
        atol=1e-12,
    )
    assert got[0, 0] == 1.0 and (got >= 0).all()


def test_raised_cosines_add_up_to_two_where_four_overlap():
    basis = glm.raised_cosines(400, 10, 5.0)
    u = np.log(np.arange(400) + 5.0)
    apart = (np.log(405.0) - np.log(5.0)) / 11
    inner = (u >= u[0] + apart) & (u <= u[0] + 8 * apart)
    np.testing.assert_allclose(basis[inner].sum(axis=1), 2.0, atol=1e-12)


@given(st.integers(1, 12), st.integers(1, 15), st.integers(0, 14), SEEDS)
@settings(max_examples=25)
def test_filters_look_back(claim, T, n_lags, delay, seed):
    rng = np.random.default_rng(seed)
    x, basis = rng.normal(size=T), rng.normal(size=(n_lags, 2))
    claim(
        "glm-filter",
        oracle="the sum over lags, in a loop",
        kind="exact",
        got=glm.filtered(x, basis, delay),
        want=oracle.filtered(x, basis, delay),
        atol=1e-12,
    )


@given(SEEDS)
@settings(max_examples=8)
def test_deviances_are_twice_the_gap_to_the_saturated_model(claim, seed):
    for kind in ("gaussian", "bernoulli", "poisson", "gamma"):
        X, y, w, offset = problem(kind, seed)
        mu = glm.predict(w, X, FAMILIES[kind], offset)
        claim(
            "glm-deviance",
            oracle="log probabilities by SciPy, at y itself and at μ",
            kind="exact",
            got=glm.deviance(y, mu, FAMILIES[kind]),
            want=oracle.deviance(kind, y, mu),
            atol=1e-9,
        )
        null = np.full(len(y), y.mean())
        if kind != "bernoulli" or 0 < y.mean() < 1:
            claim(
                "glm-explained",
                oracle="one minus the ratio of two deviances by SciPy",
                kind="exact",
                got=glm.deviance_explained(y, mu, null, FAMILIES[kind]),
                want=1 - oracle.deviance(kind, y, mu) / oracle.deviance(kind, y, null),
                atol=1e-9,
            )


@given(SEEDS)
@settings(max_examples=8)
def test_bits_per_spike(claim, seed):
    X, y, w, offset = problem("poisson", seed)
    y[0] += 1.0
    mu, null = np.exp(offset + X @ w), np.full(len(y), y.mean())
    claim(
        "glm-bits",
        oracle="difference of log probabilities by SciPy, over spikes and log 2",
        kind="exact",
        got=glm.bits_per_spike(y, mu, null),
        want=oracle.bits_per_spike(y, mu, null),
        atol=1e-9,
    )
    assert glm.bits_per_spike(y, null, null) == 0.0


@given(st.integers(20, 200), st.integers(2, 5), st.integers(0, 1))
def test_time_blocks(claim, T, n_folds, gap):
    n_blocks = n_folds + 1
    fold = glm.time_blocks(T, n_folds, n_blocks, gap)
    whole = glm.time_blocks(T, n_folds, n_blocks)
    block = np.array([int(t * n_blocks / T + 1e-9) for t in range(T)])
    claim(
        "glm-blocks",
        oracle="block numbers from a division, dealt out in turn",
        kind="exact",
        got=whole,
        want=block % n_folds,
        atol=0.0,
    )
    near = np.array(
        [len(set(block[max(t - gap, 0) : t + gap + 1].tolist())) > 1 for t in range(T)]
    )
    assert ((fold == -1) == near).all() and (fold[~near] == whole[~near]).all()


def test_rescaled_times_of_single_spikes(claim):
    """With the draw known, the intervals can be added up by hand."""

    class Half(np.random.Generator):
        def random(self, size=None):
            return np.full(size, 0.5)

    y, mu = np.array([0, 1, 0, 2, 0]), np.array([0.1, 0.2, 0.3, 0.4, 0.5])
    waits = np.array([0.1 + 0.1, 0.1 + 0.3 + 0.2, 0.0])
    claim(
        "glm-rescaling",
        oracle="integrals between spikes placed in mid-bin, by hand",
        kind="exact",
        got=glm.rescaled_times(y, mu, Half(np.random.PCG64(0))),
        want=1 - np.exp(-waits),
        atol=1e-12,
    )


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_ks_distance(claim, u):
    claim(
        "glm-ks",
        oracle="scipy.stats.kstest",
        kind="library",
        got=glm.ks_distance(u),
        want=stats.kstest(u, "uniform").statistic,
        atol=1e-12,
    )


def test_standard_errors_are_roots_of_the_inverse_information(claim):
    X, y, _, offset = problem("poisson", 6, T=60)
    fit = glm.fit(X, y, offset=offset)
    mu = np.exp(offset + X @ fit.w)
    inverse = np.linalg.pinv(
        sum(m * np.outer(x, x) for m, x in zip(mu, X, strict=True))
    )
    claim(
        "glm-covariance",
        oracle="pseudo-inverse of the information, summed over observations",
        kind="exact",
        got=fit.covariance,
        want=inverse,
        atol=1e-9,
    )
    claim(
        "glm-standard-error",
        oracle="roots of the diagonal of that pseudo-inverse",
        kind="exact",
        got=fit.standard_error,
        want=np.sqrt(np.diag(inverse)),
        atol=1e-9,
    )


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
@pytest.mark.parametrize("smooth", [0.0, 2.0])
def test_centred_errors_are_those_of_differences_that_sum_to_zero(claim, scale, smooth):
    design, y = one_hot_problem(3)
    P = smooth * glm.join([np.zeros((1, 1)), glm.smoothness(5), glm.smoothness(4)])
    fit = glm.fit(design, y, penalty=P + scale * glm.gauge(design.sizes))
    Q = glm.centring(design.sizes)
    X, Z = oracle.one_hot(design.index, design.sizes), oracle.sum_to_zero(design.sizes)
    bend = Z.T @ (X.T @ (fit.mean[:, None] * X) + P) @ Z
    claim(
        "glm-centred",
        oracle="a model of eight free weights, without a gauge, by pseudo-inverse",
        kind="exact",
        got=Q @ fit.covariance @ Q.T,
        want=Z @ np.linalg.pinv(bend) @ Z.T,
        atol=1e-9,
    )
    np.testing.assert_allclose(Q @ fit.w, fit.w, atol=1e-9)
    extra = fit.standard_error**2 - np.diag(Q @ fit.covariance @ Q.T)
    sizes = np.repeat([5, 4], [5, 4])
    np.testing.assert_allclose(extra[1:], 1 / (scale * sizes**2), atol=1e-9)
    w = np.random.default_rng(0).normal(size=10)
    np.testing.assert_allclose(X @ Q @ w, X @ w, atol=1e-12)  # the same model


def test_centred_errors_are_the_scatter():
    design, _ = one_hot_problem(5)
    Q, gauge = glm.centring(design.sizes), glm.gauge(design.sizes)
    w = np.random.default_rng(1).normal(size=10) * 0.3
    mu, rng = glm.predict(w, design), np.random.default_rng(2)
    fits = [glm.fit(design, rng.poisson(mu), penalty=gauge) for _ in range(200)]
    scatter = np.var([f.w for f in fits], axis=0)
    centred = np.mean([np.diag(Q @ f.covariance @ Q.T) for f in fits], axis=0)
    # a variance of 200 draws errs by √(2/200) = 0.1
    assert np.abs(scatter / centred - 1).max() < 0.5
    assert (scatter < 0.5 * fits[0].standard_error ** 2).all()  # with the gauge left in


# ---------------------------------------------------------------- laws


@pytest.mark.parametrize("kind", ["gaussian", "bernoulli", "poisson"])
def test_at_the_maximum_residuals_are_orthogonal_to_every_feature(kind):
    X, y, _, offset = problem(kind, 8, T=200)
    fit = glm.fit(X, y, FAMILIES[kind], offset=offset)
    assert fit.converged
    assert np.abs(X.T @ (y - fit.mean)).max() < 1e-8
    assert fit.mean.sum() == pytest.approx(y.sum(), abs=1e-8)  # the intercept's share


@pytest.mark.parametrize("kind", FAMILIES)
def test_no_step_of_the_fit_loses(kind):
    X, y, _, offset = problem(kind, 9, T=200)
    history = glm.fit(X, y, FAMILIES[kind], offset=offset).history
    assert (np.diff(history) > -1e-9).all()


def test_newton_squares_its_error():
    X, y, _, offset = problem("poisson", 10, T=200)
    w, best = np.zeros(3), glm.fit(X, y, offset=offset).w
    errors = []
    for _ in range(6):
        w = glm.irls_step(w, X, y, glm.POISSON, offset)
        errors.append(np.abs(w - best).max())
    late = [e for e in errors if 1e-7 < e < 0.1]
    assert len(late) >= 2
    assert all(b < 5 * a**2 for a, b in pairwise(late))


def test_groups_have_their_means():
    rng = np.random.default_rng(0)
    index = rng.integers(0, 4, 300)
    X = np.eye(4)[index]
    y = rng.poisson(1.0 + index) * 1.0
    means = np.array([y[index == g].mean() for g in range(4)])
    np.testing.assert_allclose(glm.fit(X, y).w, np.log(means), atol=1e-10)
    z = (rng.random(300) < 0.2 + 0.15 * index) * 1.0
    share = np.array([z[index == g].mean() for g in range(4)])
    logit = np.log(share / (1 - share))
    np.testing.assert_allclose(glm.fit(X, z, glm.BERNOULLI).w, logit, atol=1e-9)
    np.testing.assert_allclose(glm.fit(X, y, glm.GAUSSIAN).w, means, atol=1e-10)


def test_ridge_has_its_closed_form_and_the_dispersion_its(claim):
    X, y, _, _ = problem("gaussian", 11)
    P = 2.5 * np.eye(3)
    want = np.linalg.solve(X.T @ X + P, X.T @ y)
    got = glm.fit(X, y, glm.GAUSSIAN, penalty=P)
    np.testing.assert_allclose(got.w, want, atol=1e-11)
    plain = glm.fit(X, y, glm.GAUSSIAN)
    residual = y - X @ np.linalg.lstsq(X, y)[0]
    claim(
        "glm-dispersion",
        oracle="residual variance of NumPy's least squares",
        kind="exact",
        got=plain.dispersion,
        want=residual @ residual / (len(y) - 3),
        atol=1e-12,
    )


def test_other_coordinates_give_the_same_model():
    X, y, _, offset = problem("poisson", 12, T=100)
    A = np.random.default_rng(0).normal(size=(3, 3))
    one, other = glm.fit(X, y, offset=offset), glm.fit(X @ A, y, offset=offset)
    np.testing.assert_allclose(A @ other.w, one.w, atol=1e-9)
    np.testing.assert_allclose(other.deviance, one.deviance, rtol=1e-12)


def test_a_bin_width_moves_only_the_intercept():
    X, y, _, _ = problem("poisson", 13, T=100)
    counts, hertz = glm.fit(X, y), glm.fit(X, y, offset=np.log(0.02))
    np.testing.assert_allclose(hertz.w[1:], counts.w[1:], atol=1e-10)
    np.testing.assert_allclose(hertz.w[0], counts.w[0] - np.log(0.02), atol=1e-10)
    np.testing.assert_allclose(hertz.deviance, counts.deviance, rtol=1e-12)


def test_weights_count_observations():
    X, y, _, offset = problem("poisson", 14)
    n = np.random.default_rng(0).integers(0, 4, len(y))
    weighted = glm.fit(X, y, offset=offset, weights=n)
    repeated = glm.fit(
        np.repeat(X, n, axis=0), np.repeat(y, n), offset=np.repeat(offset, n)
    )
    np.testing.assert_allclose(weighted.w, repeated.w, atol=1e-9)
    np.testing.assert_allclose(weighted.covariance, repeated.covariance, atol=1e-9)


def test_the_gauge_costs_nothing_and_settles_the_blocks(claim):
    design, y = one_hot_problem(3)
    loose = glm.gauge(design.sizes)
    fit = glm.fit(design, y, penalty=loose)
    X = design.dense()[:, [0, 2, 3, 4, 5, 7, 8, 9]]  # without the first bin of each
    reference = glm.fit(X, y)
    np.testing.assert_allclose(fit.mean, reference.mean, rtol=1e-9)
    sums = [fit.w[design.columns(b)].sum() for b in range(2)]
    claim(
        "glm-gauge",
        oracle="each block of weights sums to zero",
        kind="law",
        got=sums,
        want=[0.0, 0.0],
        atol=1e-10,
    )
    with pytest.raises(ValueError, match=r"X .*neither data nor penalty.*gauge"):
        glm.fit(design, y)


def test_separated_data_are_refused_and_a_penalty_cures():
    x = np.linspace(-1, 1, 20)
    X = np.column_stack([np.ones(20), x])
    with pytest.raises(ValueError, match=r"X separates y.* wants a penalty"):
        glm.fit(X, (x > 0.1) * 1.0, glm.BERNOULLI)
    ridge = glm.fit(X, (x > 0.1) * 1.0, glm.BERNOULLI, penalty=0.1 * np.eye(2))
    assert ridge.converged and np.isfinite(ridge.w).all()
    silent = np.column_stack([np.ones(20), x > 0.5])
    with pytest.raises(ValueError, match="X separates y"):
        glm.fit(silent, (x < 0) * 1.0)  # no spike wherever the second feature is on
    overlapping = np.where(np.arange(20) % 7 == 0, x < 0, x > 0) * 1.0
    assert glm.fit(X, overlapping, glm.BERNOULLI).converged


def test_a_rare_bin_is_no_separation():
    y = np.zeros(100_000)
    y[7] = 1.0
    fit = glm.fit(np.ones((len(y), 1)), y)
    assert fit.w[0] == pytest.approx(np.log(1e-5), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_standard_errors_cover(seed):
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(400), rng.normal(size=400)])
    w, z = np.array([-0.5, 0.4]), []
    for _ in range(120):
        fit = glm.fit(X, rng.poisson(np.exp(X @ w)) * 1.0)
        z.append((fit.w - w) / fit.standard_error)
    # a variance of 120 draws errs by √(2/120) = 0.13; 5 standard errors
    assert np.abs(np.var(z, axis=0) - 1.0).max() < 0.65


def test_lasso_meets_its_conditions_and_vanishes_at_lambda_max(claim):
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(300), rng.normal(size=(300, 8))])
    y = rng.poisson(np.exp(0.2 + X[:, 1:] @ [0.5, -0.4, 0, 0, 0.3, 0, 0, 0])) * 1.0
    groups = np.array([-1, 0, 0, 1, 1, 2, 2, 3, 3])
    for label in (None, groups):
        free = np.array([-1, *range(8)]) if label is None else label
        top = glm.lasso_max(X, y, groups=free)
        assert (glm.lasso(X, y, lam=1.0001 * top, groups=free).w[1:] == 0).all()
        assert (glm.lasso(X, y, lam=0.99 * top, groups=free).w[1:] != 0).any()
        lam = 0.3 * top
        fit = glm.lasso(X, y, lam=lam, groups=free)
        slope = X.T @ (y - np.exp(X @ fit.w)) / len(y)
        for g in range(free.max() + 1):
            mine = free == g
            norm = np.linalg.norm(fit.w[mine])
            size = lam * np.sqrt(mine.sum())
            found = np.linalg.norm(slope[mine])
            claim(
                "glm-kkt",
                oracle="slope of a group: at most λ√size, and equal where it is active",
                kind="law",
                got=found - size if norm == 0 else abs(found - size),
                at_most=0.0,
                atol=1e-8,
            )
        base = oracle.lasso_objective(fit.w, X, y, lam, free.tolist())
        assert fit.objective == pytest.approx(base, abs=1e-12)
        for _ in range(50):
            near = fit.w + 1e-3 * rng.normal(size=9)
            assert oracle.lasso_objective(near, X, y, lam, free.tolist()) > base


def test_simulated_cells_follow_their_history(claim):
    """A cell with a filter is silenced and excited as its own past says."""
    rng = np.random.default_rng(0)
    filters = np.zeros((3, 2, 2))
    filters[:, 0, 0] = [-30.0, -1.0, 0.5]  # never twice in a row
    filters[0, 1, 0] = 1.5  # cell 0 excites cell 1
    drive = np.full((15_000, 2), np.log(0.1))
    y = glm.simulate(drive, filters, rng)
    assert not (y[1:, 0] * y[:-1, 0]).any()
    past = np.stack([np.roll(y[:, 0], lag) for lag in (1, 2, 3)], axis=1)[3:]
    quiet = past.sum(axis=1) == 0
    got, want = [], []
    for cell, rows, factor in (
        (0, quiet, 1.0),
        (0, (past == [0, 1, 0]).all(axis=1), np.exp(-1.0)),
        (0, (past == [0, 0, 1]).all(axis=1), np.exp(0.5)),
        (1, quiet, 1.0),
        (1, past[:, 0] == 1, np.exp(1.5)),
    ):
        counts = y[3:, cell][rows]
        error = np.sqrt(0.1 * factor / len(counts))
        got.append((counts.mean() - 0.1 * factor) / error)
        want.append(0.0)
    claim(
        "glm-history",
        oracle="mean counts after each past, off by how many standard errors",
        kind="law",
        got=got,
        want=want,
        atol=5.0,
    )


def test_filters_are_recovered_from_simulated_cells():
    rng = np.random.default_rng(2)
    basis = glm.raised_cosines(20, 3, 2.0)
    true = np.array(
        [[[-2.0, 0.0], [0.8, -1.0]], [[0.5, 0], [0, 0.3]], [[0, 0], [0.4, 0]]]
    )
    filters = np.einsum("lj,jab->lab", basis, true)
    y = glm.simulate(np.full((20_000, 2), np.log(0.08)), filters, rng)
    past = [glm.filtered(y[:, c], basis, delay=1) for c in (0, 1)]
    X = np.column_stack([np.ones(len(y)), *past])
    for cell in (0, 1):
        fit = glm.fit(X, y[:, cell])
        want = np.concatenate([[np.log(0.08)], true[:, cell, 0], true[:, cell, 1]])
        assert np.abs((fit.w - want) / fit.standard_error).max() < 5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("level", [-3.0, 0.5])
def test_rescaled_times_are_uniform_under_the_model(seed, level):
    """Also where bins hold many spikes, and with a history."""
    rng = np.random.default_rng(seed)
    drive = level + np.sin(np.arange(8_000) / 50.0)[:, None]
    filters = np.array([-0.5, -0.2]).reshape(2, 1, 1)
    y = glm.simulate(drive, filters, rng)[:, 0]
    past = np.stack([np.roll(y, 1), np.roll(y, 2)])
    past[:, :2] = [[0, y[0]], [0, 0]]
    mu = np.exp(drive[:, 0] + filters[:, 0, 0] @ past)
    u = glm.rescaled_times(y, mu, rng)
    assert glm.ks_distance(u) < 1.63 / np.sqrt(len(u))  # 1 in 100
    assert np.abs(np.corrcoef(u[1:], u[:-1])[0, 1]) < 4 / np.sqrt(len(u))
    wrong = glm.rescaled_times(y, np.full(len(y), y.mean()), rng)
    assert glm.ks_distance(wrong) > 1.63 / np.sqrt(len(u))


def test_the_triggered_average_is_the_filter_for_gaussian_stimuli(claim):
    rng = np.random.default_rng(0)
    w = np.array([0.5, -0.3])
    X = rng.standard_normal((500_000, 2))
    y = rng.poisson(0.1 * np.exp(X @ w))
    got = glm.spike_triggered_average(X, y)
    claim(
        "glm-sta",
        oracle="the true filter, in standard errors of the average (500 000 bins)",
        kind="law",
        got=(got - w) * np.sqrt(y.sum()),
        want=[0.0, 0.0],
        atol=5.0,
    )


def test_bins():
    x = np.array([0.0, 0.24, 0.25, 0.99, 1.0])
    assert glm.bin_index(x, 0.0, 1.0, 4).tolist() == [0, 0, 1, 3, 3]
    with pytest.raises(ValueError, match=r"x\[1\] is 1.5, wants a number from 0 to 1"):
        glm.bin_index(np.array([0.5, 1.5]), 0.0, 1.0, 4)


@pytest.mark.parametrize("seed", range(3))
def test_the_mouse_stays_in_its_box_and_moves_as_it_says(seed):
    mouse = glm.simulate_mouse(30_000, 0.02, np.random.default_rng(seed))
    for place in (mouse.x, mouse.y):
        assert place.min() >= 0 and place.max() <= 50
    moved = np.hypot(np.diff(mouse.x), np.diff(mouse.y)) / 0.02
    straight = np.abs(moved - mouse.speed[1:]) < 1e-6
    assert straight.mean() > 0.95  # all but the bounces
    assert 0 <= mouse.heading.min() and mouse.heading.max() < 2 * np.pi
    assert 0 < mouse.speed.min() and mouse.speed.max() < 40


def test_the_runaway_is_refused():
    excite = np.full((5, 1, 1), 2.0)
    with pytest.raises(ValueError, match=r"filters let the mean run away.* wants"):
        glm.simulate(np.zeros((100, 1)), excite, np.random.default_rng(0))


# ---------------------------------------------------------------- libraries


def test_scikit_learn_agrees(claim):
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(400), rng.normal(size=(400, 4))])
    y = rng.poisson(np.exp(X @ [0.2, 0.5, -0.3, 0.1, 0.0])) * 1.0
    P = np.diag([0.0, 4.0, 4.0, 4.0, 4.0])
    peer = PoissonRegressor(
        alpha=4.0 / 400, solver="newton-cholesky", tol=1e-12, max_iter=1000
    ).fit(X[:, 1:], y)
    claim(
        "glm-penalised",
        oracle="scikit-learn, PoissonRegressor",
        kind="library",
        got=glm.fit(X, y, penalty=P).w,
        want=[peer.intercept_, *peer.coef_],
        atol=1e-7,
    )
    z = (rng.random(400) < 1 / (1 + np.exp(-X @ [0.2, 0.5, -0.3, 0.1, 0.0]))) * 1.0
    peer = LogisticRegression(C=0.25, solver="newton-cholesky", tol=1e-12)
    peer = peer.fit(X[:, 1:], z)
    claim(
        "glm-penalised",
        oracle="scikit-learn, LogisticRegression",
        kind="library",
        got=glm.fit(X, z, glm.BERNOULLI, penalty=P).w,
        want=[peer.intercept_[0], *peer.coef_[0]],
        atol=1e-7,
    )
    x, target = load_diabetes(return_X_y=True)
    peer = Lasso(alpha=0.5, tol=1e-12, max_iter=100_000).fit(x, target)
    design = np.column_stack([np.ones(len(x)), x])
    got = glm.lasso(
        design, target, glm.GAUSSIAN, lam=0.5, groups=np.arange(-1, 10), tol=1e-9
    )
    claim(
        "glm-kkt",
        oracle="scikit-learn, Lasso on the diabetes data, in units of max |w|",
        kind="library",
        got=got.w,
        want=[peer.intercept_, *peer.coef_],
        rtol=1e-6,
    )


# ---------------------------------------------------------------- published

DOBSON = np.array([18, 17, 15, 20, 10, 20, 25, 13, 12.0])  # Dobson 1990, p. 93


def test_randomised_trial(claim):
    outcome, treatment = np.tile(np.eye(3), (3, 1)), np.repeat(np.eye(3), 3, axis=0)
    X = np.column_stack([np.ones(9), outcome[:, 1:], treatment[:, 1:]])
    fit = glm.fit(X, DOBSON)
    r = "Dobson 1990, p. 93, as ?glm of R prints it: "
    half = np.array([5e-4, 5e-5, 5e-5, 1e-9, 1e-9])  # of the last digit
    claim(
        "glm-irls",
        oracle=r + "3.045, -0.4543, -0.2930, 0, 0, in half digits",
        kind="published",
        got=fit.w / half,
        want=np.array([3.045, -0.4543, -0.2930, 0.0, 0.0]) / half,
        atol=1.001,
    )
    claim(
        "glm-deviance",
        oracle=r + "residual deviance 5.1291, null 10.5814",
        kind="published",
        got=[fit.deviance, glm.deviance(DOBSON, np.full(9, DOBSON.mean()))],
        want=[5.1291, 10.5814],
        atol=5e-5,
    )
    claim(
        "glm-poisson",
        oracle=r + "AIC 56.76, of 5 parameters",
        kind="published",
        got=2 * 5 - 2 * fit.log_likelihood,
        want=56.76,
        atol=5e-3,
    )
    claim(
        "glm-standard-error",
        oracle=r + "0.1709, 0.2022, 0.1927, 0.2, 0.2",
        kind="published",
        got=fit.standard_error,
        want=[0.1709, 0.2022, 0.1927, 0.2000, 0.2000],
        atol=5e-5,
    )


def test_clotting_times(claim):
    """McCullagh & Nelder 1989, p. 300: gamma distributed, 1/μ linear in log u."""
    u = np.log([5, 10, 15, 20, 30, 40, 60, 80, 100])
    X = np.column_stack([np.ones(9), u])
    lots = {
        1: [118, 58, 42, 35, 27, 25, 21, 19, 18],
        2: [69, 35, 26, 21, 18, 16, 13, 12, 12],
    }
    got = {lot: glm.fit(X, y, glm.GAMMA) for lot, y in lots.items()}
    claim(
        "glm-irls",
        oracle="McCullagh & Nelder 1989, p. 300, 1/μ of both lots of clotting times",
        kind="published",
        got=[*got[1].w, *got[2].w],
        want=[-0.01655, 0.01534, -0.02391, 0.02360],
        atol=5e-6,
    )
    claim(
        "glm-dispersion",
        oracle="?glm of R, clotting, lot 1: 0.002446, deviance 0.01673, half digits",
        kind="published",
        got=np.array([got[1].dispersion, got[1].deviance]) / [5e-7, 5e-6],
        want=np.array([0.002446, 0.01673]) / [5e-7, 5e-6],
        atol=1.001,
    )


def test_budworms(claim):
    """Venables & Ripley, MASS, section 7.2: of 20 moths at each dose, how many died."""
    died = np.array([1, 4, 9, 13, 18, 20, 0, 2, 6, 10, 12, 16.0])
    male, dose = np.repeat([1.0, 0.0], 6), np.tile(np.arange(6.0), 2)
    X = np.column_stack([1 - male, male, dose])
    n = np.full(12, 20.0)
    fit = glm.fit(X, died / 20, glm.BERNOULLI, weights=n)
    claim(
        "glm-bernoulli",
        oracle="Venables & Ripley 2002, sec. 7.2: -3.473, -2.372, 1.064",
        kind="published",
        got=fit.w,
        want=[-3.473, -2.372, 1.064],
        atol=5.01e-4,
    )
    claim(
        "glm-deviance",
        oracle="Venables & Ripley 2002, sec. 7.2: 6.757",
        kind="published",
        got=fit.deviance,
        want=6.757,
        atol=5e-4,
    )


def test_a_teaching_method(claim):
    """Spector & Mazzeo 1980, as in Greene's Econometric Analysis: logit and probit."""
    gpa = [2.66, 2.89, 3.28, 2.92, 4.0, 2.86, 2.76, 2.87, 3.03, 3.92, 2.63]
    gpa += [3.32, 3.57, 3.26, 3.53, 2.74, 2.75, 2.83, 3.12, 3.16, 2.06, 3.62]
    gpa += [2.89, 3.51, 3.54, 2.83, 3.39, 2.67, 3.65, 4.0, 3.1, 2.39]
    tuce = [20, 22, 24, 12, 21, 17, 17, 21, 25, 29, 20, 23, 23, 25, 26, 19]
    tuce += [25, 19, 23, 25, 22, 28, 14, 26, 24, 27, 17, 24, 21, 23, 21, 19]
    grade = np.array([int(c) for c in "00001000010001000001010011101101"], float)
    X = np.column_stack([np.ones(32), gpa, tuce, np.arange(32) >= 18])
    logit, probit = (glm.fit(X, grade, f) for f in (glm.BERNOULLI, glm.PROBIT))
    claim(
        "glm-bernoulli",
        oracle="Greene, Econometric Analysis, logit: -13.021, 2.826, 0.095, 2.379",
        kind="published",
        got=logit.w,
        want=[-13.021, 2.826, 0.095, 2.379],
        atol=5.01e-4,
    )
    claim(
        "glm-information",
        oracle="Greene, Econometric Analysis, probit: -7.452, 1.626, 0.052, 1.426",
        kind="published",
        got=probit.w,
        want=[-7.452, 1.626, 0.052, 1.426],
        atol=5.01e-4,
    )
    assert logit.log_likelihood == pytest.approx(-12.889633, abs=1e-5)
    assert probit.log_likelihood == pytest.approx(-12.818804, abs=1e-5)


def test_order_in_which_the_diabetes_features_enter(claim):
    """Efron et al. 2004: 3, 9, 4, 7, 2, 10, 5, 8, and then two more nearly at once."""
    x, y = load_diabetes(return_X_y=True)
    y = y - y.mean()
    top = glm.lasso_max(x, y, glm.GAUSSIAN)
    assert len(y) * top == pytest.approx(949.435260384)  # by R, 12 digits
    entered = []
    for lam in top * np.geomspace(0.99, 0.005, 50):
        w = glm.lasso(x, y, glm.GAUSSIAN, lam=lam, tol=1e-7).w
        entered += [d + 1 for d in np.flatnonzero(w) if d + 1 not in entered]
    claim(
        "glm-shrink",
        oracle="Efron et al. 2004, order of entry of the diabetes features",
        kind="published",
        got=entered[:8],
        want=[3, 9, 4, 7, 2, 10, 5, 8],
        atol=0.0,
    )


# ---------------------------------------------------------------- real data


def test_the_grasshopper_is_predicted_by_sound_and_its_past():
    ear = data.load("grasshopper")
    y, level = ear["spikes"], ear["level"] / 100
    train = np.arange(len(y)) < 7000
    level = (level - level[train].mean()) / level[train].std()
    sound = glm.filtered(level, glm.raised_cosines(30, 8, 3.0))
    past = glm.filtered(y, glm.raised_cosines(60, 8, 2.0), delay=1)
    one = np.ones((len(y), 1))
    bits = {}
    for name, parts in (
        ("sound", (one, sound)),
        ("past", (one, past)),
        ("both", (one, sound, past)),
    ):
        X = np.hstack(parts)
        fit = glm.fit(X[train], y[train], penalty=1e-2 * np.eye(X.shape[1]))
        mu = glm.predict(fit.w, X[~train])
        null = np.full(len(mu), y[train].mean())
        bits[name] = glm.bits_per_spike(y[~train], mu, null)
    assert 0.3 < bits["past"] < bits["sound"] < bits["both"]
    assert bits["both"] > 1.4
