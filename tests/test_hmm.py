"""Hidden Markov models: brute force over all paths, laws, hmmlearn, the literature."""

import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from mlfs import hmm
from mlfs.core import data
from mlfs.core.numerics import logsumexp
from oracles import hmm as oracle

with warnings.catch_warnings():  # scikit-learn's own imports, not ours
    warnings.simplefilter("ignore")
    from hmmlearn.hmm import CategoricalHMM, GaussianHMM, PoissonHMM

ALL_PATHS = "sum over all K**T paths"


def log(p):
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(p, dtype=float))


def reachable(pi, A):
    reached = pi > 0
    for _ in pi:
        reached = reached | (A[reached] > 0).any(axis=0)
    return reached.all()


@st.composite
def problems(draw):
    """Small HMMs of possible data; integer weights make exact zeros and ties common."""
    K, T = draw(st.integers(1, 3)), draw(st.integers(1, 6))
    row = st.lists(st.integers(0, 3), min_size=K, max_size=K).filter(any)
    pi, *A = (np.array(draw(row), float) for _ in range(K + 1))
    B = [draw(st.lists(st.floats(0, 1), min_size=K, max_size=K)) for _ in range(T)]
    pi, A, B = pi / pi.sum(), np.stack([a / a.sum() for a in A]), np.array(B)
    assume(reachable(pi, A))
    assume(sum(p for _, p in oracle.paths(pi, A, B)) > 1e-200)
    return pi, A, B


def random_chain(rng, K=3):
    return hmm.Chain(rng.dirichlet(np.ones(K)), rng.dirichlet(np.ones(K), K))


def random_problem(rng, K=3, T=6):
    return random_chain(rng, K), rng.normal(size=(T, K))


# ---------------------------------------------------------------- exact


@given(problems())
def test_forward_is_the_sum_over_paths(claim, problem):
    pi, A, B = problem
    alpha = hmm.forward_probabilities(pi, A, B)
    want = oracle.forward(pi, A, B)
    claim(
        "hmm-forward-start",
        oracle="p(x₁, z₁ = k) written out",
        kind="exact",
        got=alpha[0],
        want=want[0],
        atol=1e-15,
    )
    claim(
        "hmm-forward", oracle=ALL_PATHS, kind="exact", got=alpha, want=want, atol=1e-12
    )
    evidence, _, _ = oracle.enumerate_paths(pi, A, B)
    claim(
        "hmm-evidence",
        oracle=ALL_PATHS,
        kind="exact",
        got=alpha[-1].sum(),
        want=evidence,
        atol=1e-12,
    )


@given(problems())
def test_scaled_forward_filters(claim, problem):
    pi, A, B = problem
    alpha, c = hmm.forward(pi, A, B)
    want = oracle.forward(pi, A, B)
    claim(
        "hmm-forward-scaled",
        oracle="p(zₜ | x₁..xₜ) from all paths of t steps",
        kind="exact",
        got=alpha,
        want=want / want.sum(axis=1, keepdims=True),
        atol=1e-12,
    )
    claim(
        "hmm-scale",
        oracle="log of the " + ALL_PATHS,
        kind="exact",
        got=np.log(c).sum(),
        want=np.log(oracle.enumerate_paths(pi, A, B)[0]),
        atol=1e-11,
    )


@given(problems())
def test_log_messages_are_logs_of_sums_over_paths(claim, problem):
    pi, A, B = problem
    got = hmm.log_forward(pi, A, log(B))
    claim(
        "hmm-forward-log",
        oracle=ALL_PATHS,
        kind="exact",
        got=np.exp(got),
        want=oracle.forward(pi, A, B),
        atol=1e-12,
    )
    claim(
        "hmm-evidence-alpha",
        oracle="log of the " + ALL_PATHS,
        kind="exact",
        got=logsumexp(got[-1], axis=0),
        want=np.log(oracle.enumerate_paths(pi, A, B)[0]),
        atol=1e-11,
    )
    claim(
        "hmm-backward",
        oracle="sum over all paths after t",
        kind="exact",
        got=np.exp(hmm.log_backward(A, log(B))),
        want=oracle.backward(A, B),
        atol=1e-12,
    )


@given(problems())
def test_scaled_backward_and_posteriors_are_sums_over_paths(claim, problem):
    pi, A, B = problem
    alpha, c = hmm.forward(pi, A, B)
    beta = hmm.backward(A, B, c)
    future = np.append(np.cumprod(c[:0:-1])[::-1], 1.0)
    want = oracle.backward(A, B)
    assume(np.all(future > 1e-100))
    claim(
        "hmm-backward-scaled",
        oracle="sum over all paths after t",
        kind="exact",
        got=beta * future[:, None],
        want=want,
        atol=1e-12,
    )
    gamma, xi = hmm.posteriors(alpha, beta, A, B, c)
    _, gamma_want, xi_want = oracle.enumerate_paths(pi, A, B)
    claim(
        "hmm-gamma",
        oracle=ALL_PATHS,
        kind="exact",
        got=gamma,
        want=gamma_want,
        atol=1e-9,
    )
    assume(len(B) > 1)
    claim("hmm-xi", oracle=ALL_PATHS, kind="exact", got=xi, want=xi_want, atol=1e-9)


@given(problems())
def test_smooth_equals_enumeration(claim, problem):
    pi, A, B = problem
    post = hmm.smooth(hmm.Chain(pi, A), log(B))
    evidence, gamma, xi = oracle.enumerate_paths(pi, A, B)
    np.testing.assert_allclose(post.log_evidence, np.log(evidence), atol=1e-10)
    np.testing.assert_allclose(post.gamma, gamma, atol=1e-9)
    claim(
        "hmm-xi-sum",
        oracle=ALL_PATHS,
        kind="exact",
        got=post.xi_sum,
        want=xi.sum(axis=0),
        atol=1e-9,
    )


@given(problems())
def test_viterbi_finds_the_best_path(claim, problem):
    pi, A, B = problem
    path, log_p = hmm.viterbi(pi, A, log(B))
    _, best = oracle.best_path(pi, A, B)
    claim(
        "hmm-viterbi",
        oracle="largest of all K**T paths",
        kind="exact",
        got=log_p,
        want=np.log(best),
        atol=1e-10,
    )
    mine = dict(oracle.paths(pi, A, B))[tuple(path.tolist())]
    claim(
        "hmm-traceback",
        oracle="probability of the path returned",
        kind="exact",
        got=np.log(mine),
        want=log_p,
        atol=1e-10,
    )


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_em_step_counts_over_all_paths(claim, seed):
    rng = np.random.default_rng(seed)
    chain, M, T = random_chain(rng), 4, 6
    symbols = hmm.Categorical(rng.dirichlet(np.ones(M), 3))
    x = rng.integers(0, M, T)
    better, log_p = hmm.em_step(hmm.HMM(chain, symbols), [x])
    B = symbols.prob[:, x].T
    pi, A, prob = oracle.em_update(chain.pi, chain.A, B, x, M)
    counted = "counts over all K**T paths, weighted"
    claim(
        "hmm-m-pi",
        oracle=counted,
        kind="exact",
        got=better.chain.pi,
        want=pi,
        atol=1e-10,
    )
    claim(
        "hmm-m-A", oracle=counted, kind="exact", got=better.chain.A, want=A, atol=1e-10
    )
    claim(
        "hmm-m-categorical",
        oracle=counted,
        kind="exact",
        got=better.emissions.prob,
        want=prob,
        atol=1e-10,
    )
    claim(
        "hmm-categorical",
        oracle="the table of probabilities, looked up",
        kind="exact",
        got=np.exp(symbols.log_likelihood(x)),
        want=B,
        atol=1e-15,
    )
    evidence = oracle.enumerate_paths(chain.pi, chain.A, B)[0]
    np.testing.assert_allclose(log_p, np.log(evidence), atol=1e-11)


def test_long_symmetric_chain_in_another_basis(claim):
    rng = np.random.default_rng(0)
    B = rng.uniform(0.5, 1.5, size=(900, 2))
    chain = hmm.Chain([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]])
    claim(
        "hmm-evidence-alpha",
        oracle="two states in the basis of sum and difference, T = 900",
        kind="exact",
        got=hmm.log_evidence(chain, log(B)),
        want=np.log(oracle.symmetric_two_state_evidence(0.9, B)),
        atol=1e-9,
    )


# ---------------------------------------------------------------- the fast forms


def tables(rng, K, T, spread):
    return rng.normal(scale=spread, size=(T, K))


@pytest.mark.parametrize(
    ("K", "T"),
    [(1, 300), (2, 257), (5, 400), (5, 2000), (24, 300), (30, 300), (30, 1100), (3, 7)],
)
@pytest.mark.parametrize("spread", [1.0, 30.0, 1000.0])
@pytest.mark.parametrize("kind", ["mixing", "sticky", "sparse"])
def test_every_form_of_smooth_agrees_with_logs(K, T, spread, kind):
    rng = np.random.default_rng([K, T, int(spread)])
    A = rng.dirichlet(np.ones(K), K)
    if kind == "sticky":
        A = (1 - 1e-12) * np.eye(K) + 1e-12 * A
    if kind == "sparse":  # left to right: exact zeros, which no scaling may confuse
        A = np.triu(A)
        A[-1, 0] = 1e-40
    A /= A.sum(axis=1, keepdims=True)
    chain, log_B = hmm.Chain(rng.dirichlet(np.ones(K)), A), tables(rng, K, T, spread)
    fast, slow = hmm.smooth(chain, log_B), hmm._smooth_in_logs(chain, log_B)
    scale = max(1.0, abs(slow.log_evidence))
    assert abs(fast.log_evidence - slow.log_evidence) < 1e-12 * scale
    np.testing.assert_allclose(fast.gamma, slow.gamma, atol=1e-9 * max(1, spread / 100))
    np.testing.assert_allclose(fast.xi_sum.sum(), T - 1, rtol=1e-9)
    np.testing.assert_allclose(
        fast.xi_sum, slow.xi_sum, atol=1e-8 * max(1, spread / 10)
    )


def test_which_form_is_taken(monkeypatch):
    taken = []

    def spy(form):
        def call(*args):
            taken.append(form.__name__)
            return form(*args)

        return call

    for name in ("_smooth_in_logs", "_smooth_in_one_sweep", "_smooth_in_chunks"):
        monkeypatch.setattr(hmm, name, spy(getattr(hmm, name)))
    rng = np.random.default_rng(0)
    frozen = hmm.Chain([0.5, 0.5], np.eye(2))
    hmm.smooth(random_chain(rng), tables(rng, 3, 300, 1.0))
    hmm.smooth(random_chain(rng), tables(rng, 3, 30, 1.0))
    hmm.smooth(random_chain(rng, 30), tables(rng, 30, 300, 1.0))
    assert taken == ["_smooth_in_chunks", *["_smooth_in_one_sweep"] * 2]
    hmm.smooth(frozen, np.tile([0.0, -1.0], (100, 1)))
    assert taken[3:] == ["_smooth_in_one_sweep"]
    # The loser's share falls below every double: only logs can tell what it was.
    hmm.smooth(frozen, np.tile([0.0, -9.0], (100, 1)))
    assert taken[4:] == ["_smooth_in_one_sweep", "_smooth_in_logs"]


def test_a_state_that_looked_dead_can_win():
    # Nothing moves between the states; 100 steps favour one, 200 more the other.
    log_B = np.zeros((300, 2))
    log_B[:100, 1] = log_B[100:, 0] = -9.0
    post = hmm.smooth(hmm.Chain([0.5, 0.5], np.eye(2)), log_B)
    np.testing.assert_allclose(post.gamma[:, 1], 1.0, atol=1e-12)
    np.testing.assert_allclose(post.log_evidence, np.log(0.5) - 900.0, rtol=1e-14)


@given(st.integers(0, 2**32 - 1))
def test_scaling_an_observation_moves_only_the_evidence(seed):
    rng = np.random.default_rng(seed)
    chain, log_B = random_problem(rng)
    shift = rng.normal(scale=50.0, size=(len(log_B), 1))
    before, after = hmm.smooth(chain, log_B), hmm.smooth(chain, log_B + shift)
    np.testing.assert_allclose(after.log_evidence, before.log_evidence + shift.sum())
    np.testing.assert_allclose(after.gamma, before.gamma, atol=1e-9)


def test_long_improbable_sequence_does_not_underflow():
    chain, log_B = random_problem(np.random.default_rng(1), T=100_000)
    post = hmm.smooth(chain, log_B - 1_000.0)
    assert np.isfinite(post.log_evidence)
    np.testing.assert_allclose(post.gamma.sum(axis=1), 1.0)


def test_plain_probabilities_do_underflow():
    chain, log_B = random_problem(np.random.default_rng(1), T=2_000)
    alpha = hmm.forward_probabilities(chain.pi, chain.A, np.exp(log_B - 2.0))
    assert alpha[-1].sum() == 0.0


# ---------------------------------------------------------------- laws


def test_gamma_is_the_gradient_of_the_log_evidence(claim):
    chain, log_B = random_problem(np.random.default_rng(0))
    slope, h = np.empty_like(log_B), 1e-5
    for at in np.ndindex(log_B.shape):
        step = np.zeros_like(log_B)
        step[at] = h
        up, down = (hmm.log_evidence(chain, log_B + s) for s in (step, -step))
        slope[at] = (up - down) / (2 * h)
    claim(
        "hmm-gradient",
        oracle="central differences",
        kind="law",
        got=hmm.smooth(chain, log_B).gamma,
        want=slope,
        atol=1e-8,
    )


def test_fisher_identity_gives_the_gradient_in_the_parameters(claim):
    rng = np.random.default_rng(3)
    chain, rate = random_chain(rng, 2), np.array([2.0, 6.0])
    x = rng.poisson(4.0, 40).astype(float)

    def log_p(theta):  # π and A through unnormalised weights; A[j] ∝ weight
        w = theta[:4].reshape(2, 2)
        A = w / w.sum(axis=1, keepdims=True)
        table = hmm.Poisson(theta[4:]).log_likelihood(x)
        return hmm.log_evidence(hmm.Chain(chain.pi, A), table)

    theta = np.concatenate([chain.A.ravel(), rate])
    slope = [
        (log_p(theta + h) - log_p(theta - h)) / 2e-5 for h in 1e-5 * np.eye(len(theta))
    ]
    post = hmm.smooth(chain, hmm.Poisson(rate).log_likelihood(x))
    stay = post.xi_sum.sum(axis=1, keepdims=True)
    expected = [
        *(post.xi_sum / chain.A - stay).ravel(),  # E[∂ log p(x, z)/∂ weight]
        *(x @ post.gamma / rate - post.gamma.sum(axis=0)),
    ]
    claim(
        "hmm-fisher",
        oracle="central differences in A and the rates",
        kind="law",
        got=expected,
        want=slope,
        rtol=1e-6,
    )


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["poisson", "gaussian", "categorical"])
def test_em_never_lowers_the_likelihood(claim, seed, kind):
    rng = np.random.default_rng(seed)
    chain = hmm.Chain(np.ones(3) / 3, 0.8 * np.eye(3) + 0.2 / 3)
    emissions = {
        "poisson": hmm.Poisson(np.array([2.0, 5.0, 9.0])),
        "gaussian": hmm.Gaussian(
            rng.normal(size=(3, 2)), np.tile(np.eye(2), (3, 1, 1))
        ),
        "categorical": hmm.Categorical(rng.dirichlet(np.ones(5), 3)),
    }[kind]
    truth = hmm.HMM(chain, emissions)
    x = [
        emissions.sample(hmm.simulate(truth.chain, T, rng), rng)
        for T in (200, 1, 50, 300)
    ]
    history = hmm.em(perturbed(truth, rng), x, n_iter=40, tol=0.0).log_evidence
    claim(
        "hmm-monotone",
        oracle="no step of EM loses, 40 steps, 3 seeds, 3 emissions",
        kind="law",
        got=np.diff(history),
        at_least=0.0,
        atol=1e-10 * np.abs(history).max(),
    )
    assert history[-1] > history[0] + 1.0


def perturbed(model, rng):
    """A start for EM that is not the truth."""
    emissions, K = model.emissions, model.chain.K
    if isinstance(emissions, hmm.Poisson):
        start = hmm.Poisson(emissions.rate * rng.uniform(0.7, 1.4, K))
    elif isinstance(emissions, hmm.Gaussian):
        wide = np.tile(2.0 * np.eye(2), (K, 1, 1))
        start = hmm.Gaussian(emissions.mean + rng.normal(size=(K, 2)), wide)
    else:
        start = hmm.Categorical(rng.dirichlet(np.ones(5), K))
    return hmm.HMM(random_chain(rng, K), start)


def test_the_gradient_vanishes_where_em_rests():
    x = data.load("earthquakes")["count"]
    start = hmm.HMM(
        hmm.Chain([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]]), hmm.Poisson([10.0, 30.0])
    )
    model = hmm.em(start, [x], n_iter=2000, tol=0.0).model
    post = hmm.smooth(model.chain, model.emissions.log_likelihood(x))
    rate = model.emissions.rate
    slope = x @ post.gamma / rate - post.gamma.sum(axis=0)
    np.testing.assert_allclose(slope, 0.0, atol=1e-6)
    moves = post.xi_sum / model.chain.A
    np.testing.assert_allclose(moves[:, 0], moves[:, 1], rtol=1e-6)


def test_m_steps_are_weighted_maxima(claim):
    """A numerical maximiser, ignorant of the closed forms, finds the same."""
    rng = np.random.default_rng(5)
    gamma = rng.dirichlet(np.ones(2), 50)
    counts, points = rng.poisson(5.0, 50), rng.normal(size=(50, 2)) * [1.0, 3.0] + 7.0
    rate = hmm.Poisson([1.0, 1.0]).m_step(counts, gamma).rate
    found = [
        optimize.minimize_scalar(
            lambda r, k=k: -np.sum(gamma[:, k] * stats.poisson.logpmf(counts, r)),
            bounds=(0.1, 20.0),
            method="bounded",
            options={"xatol": 1e-10},
        ).x
        for k in (0, 1)
    ]
    maximiser = "SciPy's numerical maximiser of the weighted log likelihood"
    claim(
        "hmm-m-poisson", oracle=maximiser, kind="law", got=rate, want=found, rtol=1e-6
    )
    fit = hmm.Gaussian(np.zeros((2, 2)), np.tile(np.eye(2), (2, 1, 1)))
    fit = fit.m_step(points, gamma)

    def loss(theta, k):
        chol = np.array([[np.exp(theta[2]), 0.0], [theta[3], np.exp(theta[4])]])
        normal = stats.multivariate_normal(theta[:2], chol @ chol.T)
        return -np.sum(gamma[:, k] * normal.logpdf(points))

    means, covs = [], []
    for k in (0, 1):
        best = optimize.minimize(
            loss, [7.0, 7.0, 0.0, 0.0, 1.0], args=(k,), options={"gtol": 1e-7}
        ).x
        chol = np.array([[np.exp(best[2]), 0.0], [best[3], np.exp(best[4])]])
        means.append(best[:2])
        covs.append(chol @ chol.T)
    claim(
        "hmm-m-mean", oracle=maximiser, kind="law", got=fit.mean, want=means, rtol=1e-6
    )
    claim("hmm-m-cov", oracle=maximiser, kind="law", got=fit.cov, want=covs, rtol=1e-5)


def test_emission_densities_are_scipys(claim):
    rng = np.random.default_rng(6)
    x = rng.poisson(4.0, 30)
    rate = np.array([0.5, 4.0, 1e3])
    claim(
        "hmm-poisson",
        oracle="scipy.stats.poisson",
        kind="library",
        got=hmm.Poisson(rate).log_likelihood(x),
        want=stats.poisson.logpmf(x[:, None], rate),
        rtol=1e-12,
    )
    mean = rng.normal(size=(4, 3)) * 10 + 1e4
    root = rng.normal(size=(4, 3, 3))
    cov = root @ root.swapaxes(1, 2) + 0.1 * np.eye(3)
    points = rng.normal(size=(700, 3)) * 5 + 1e4
    want = [
        stats.multivariate_normal(m, c).logpdf(points)
        for m, c in zip(mean, cov, strict=True)
    ]
    claim(
        "hmm-gaussian",
        oracle="scipy.stats.multivariate_normal",
        kind="library",
        got=hmm.Gaussian(mean, cov).log_likelihood(points),
        want=np.array(want).T,
        rtol=1e-9,
    )
    one = hmm.Gaussian([[0.0], [1.0]], [[[1.0]], [[4.0]]])
    np.testing.assert_allclose(
        one.log_likelihood(points[:5, 0] - 1e4),
        stats.norm.logpdf(points[:5, :1] - 1e4, [0.0, 1.0], [1.0, 2.0]),
    )


def test_sampled_paths_have_the_posterior_frequencies(claim):
    chain, log_B = random_problem(np.random.default_rng(7), K=3, T=5)
    n = 40_000
    z = hmm.sample_paths(chain, log_B, n, np.random.default_rng(8))
    _, gamma, xi = oracle.enumerate_paths(chain.pi, chain.A, np.exp(log_B))
    pairs = np.stack(
        [
            [
                [np.mean((z[:, t] == j) & (z[:, t + 1] == k)) for k in range(3)]
                for j in range(3)
            ]
            for t in range(4)
        ]
    )
    single = np.stack([np.mean(z == k, axis=0) for k in range(3)], axis=1)
    np.testing.assert_array_less(
        np.abs(single - gamma), 5 * np.sqrt(gamma * (1 - gamma) / n) + 1e-12
    )
    claim(
        "hmm-ffbs",
        oracle="ξ from all paths, in standard errors of 40,000 samples",
        kind="law",
        got=np.abs(pairs - xi) / np.sqrt(xi * (1 - xi) / n),
        at_most=5.0,
    )


def test_missing_observations_are_summed_out(claim):
    rng = np.random.default_rng(9)
    chain, rate = random_chain(rng, 2), np.array([1.0, 3.0])
    model = hmm.HMM(chain, hmm.Poisson(rate))
    x, seen = np.array([2.0, 0.0, 5.0]), np.array([True, False, True])
    total = [
        hmm.total_log_evidence(model, [np.array([2.0, v, 5.0])]) for v in range(60)
    ]
    claim(
        "hmm-missing",
        oracle="sum over every value the missing count may take",
        kind="exact",
        got=hmm.total_log_evidence(model, [x], [seen]),
        want=logsumexp(np.array(total), axis=0),
        atol=1e-10,
    )
    other = np.array([2.0, 77.0, 5.0])  # a missing value must not matter
    one, two = (hmm.em_step(model, [v], [seen])[0] for v in (x, other))
    np.testing.assert_array_equal(one.emissions.rate, two.emissions.rate)


def test_stationary_distribution_and_dwell_times(claim):
    rng = np.random.default_rng(10)
    chain = random_chain(rng, 4)
    delta = hmm.stationary(chain.A)
    claim(
        "hmm-stationary",
        oracle="a thousand steps of the chain from anywhere",
        kind="exact",
        got=np.tile(delta, (4, 1)),
        want=np.linalg.matrix_power(chain.A, 1000),
        atol=1e-12,
    )
    stay = np.diag(chain.A)
    n = np.arange(1, 4000)
    by_sum = (n * stay[:, None] ** (n - 1) * (1 - stay[:, None])).sum(axis=1)
    claim(
        "hmm-dwell",
        oracle="mean of the geometric distribution, summed",
        kind="exact",
        got=hmm.expected_dwell(chain.A),
        want=by_sum,
        atol=1e-9,
    )
    # A chain that alternates has no limit, yet a stationary distribution.
    flip = np.array([[0.0, 1.0], [1.0, 0.0]])
    np.testing.assert_allclose(hmm.stationary(flip), [0.5, 0.5])


def test_simulated_paths_follow_the_chain():
    chain, n = random_chain(np.random.default_rng(11)), 200_000
    z = hmm.simulate(chain, n, np.random.default_rng(12))
    moves = np.zeros((3, 3))
    np.add.at(moves, (z[:-1], z[1:]), 1.0)
    from_j = moves.sum(axis=1, keepdims=True)
    error = np.sqrt(chain.A * (1 - chain.A) / from_j)
    assert (np.abs(moves / from_j - chain.A) < 5 * error).all()
    starts = [hmm.simulate(chain, 1, np.random.default_rng(s))[0] for s in range(4000)]
    share = np.bincount(starts, minlength=3) / 4000
    assert (np.abs(share - chain.pi) < 5 * np.sqrt(chain.pi / 4000)).all()


@pytest.mark.parametrize("kind", ["poisson", "gaussian", "categorical"])
def test_sampled_observations_follow_the_emissions(kind):
    """The M-step with the true path known must find the parameters again."""
    rng, n = np.random.default_rng(13), 100_000
    z = rng.integers(0, 2, n)
    one_hot = np.eye(2)[z]
    if kind == "poisson":
        truth = hmm.Poisson([3.0, 8.0])
        got, want = truth.m_step(truth.sample(z, rng), one_hot).rate, truth.rate
    elif kind == "categorical":
        truth = hmm.Categorical([[0.2, 0.5, 0.3], [0.6, 0.0, 0.4]])
        got, want = truth.m_step(truth.sample(z, rng), one_hot).prob, truth.prob
    else:
        cov = [[[2.0, 0.5], [0.5, 1.0]], [[1.0, -0.9], [-0.9, 1.0]]]
        truth = hmm.Gaussian([[0.0, 1.0], [5.0, -5.0]], cov)
        fit = truth.m_step(truth.sample(z, rng), one_hot)
        np.testing.assert_allclose(fit.cov, truth.cov, atol=0.05)
        got, want = fit.mean, truth.mean
    np.testing.assert_allclose(got, want, atol=0.05)


def test_renaming_states_changes_nothing_but_names():
    rng = np.random.default_rng(14)
    model = hmm.HMM(random_chain(rng), hmm.Poisson([1.0, 4.0, 9.0]))
    x = [rng.poisson(4.0, 30).astype(float)]
    renamed = hmm.reorder(model, [2, 0, 1])
    np.testing.assert_array_equal(renamed.emissions.rate, [9.0, 1.0, 4.0])
    assert hmm.total_log_evidence(renamed, x) == pytest.approx(
        hmm.total_log_evidence(model, x), abs=1e-11
    )
    for emissions in (
        hmm.Categorical(rng.dirichlet(np.ones(2), 3)),
        hmm.Gaussian(rng.normal(size=(3, 1)), np.ones((3, 1, 1))),
    ):
        back = emissions.take([2, 0, 1]).take([1, 2, 0])
        x = np.zeros(1) if isinstance(emissions, hmm.Categorical) else np.zeros((1, 1))
        np.testing.assert_array_equal(
            back.log_likelihood(x), emissions.log_likelihood(x)
        )


def test_one_state_and_equal_rows_reduce_to_simpler_models():
    rng = np.random.default_rng(15)
    x = rng.poisson(4.0, 60).astype(float)
    single = hmm.HMM(hmm.Chain([1.0], [[1.0]]), hmm.Poisson([1.0]))
    fit = hmm.em(single, [x]).model
    assert fit.emissions.rate[0] == pytest.approx(x.mean(), rel=1e-14)
    weights, rate = np.array([0.3, 0.7]), np.array([2.0, 6.0])
    mixture = hmm.Chain(weights, np.tile(weights, (2, 1)))
    table = hmm.Poisson(rate).log_likelihood(x)
    want = np.log(stats.poisson.pmf(x[:, None], rate) @ weights).sum()
    assert hmm.log_evidence(mixture, table) == pytest.approx(want, abs=1e-10)


def test_reversing_time_keeps_the_evidence():
    rng = np.random.default_rng(16)
    A = rng.dirichlet(np.ones(3), 3)
    delta = hmm.stationary(A)
    backwards = (A * delta[:, None]).T / delta[:, None]
    log_B = rng.normal(size=(50, 3))
    one = hmm.log_evidence(hmm.Chain(delta, A), log_B)
    two = hmm.log_evidence(hmm.Chain(delta, backwards), log_B[::-1])
    assert one == pytest.approx(two, abs=1e-10)


def test_several_sequences_add_up():
    rng = np.random.default_rng(17)
    model = hmm.HMM(random_chain(rng, 2), hmm.Poisson([2.0, 5.0]))
    x = [rng.poisson(3.0, n).astype(float) for n in (5, 1, 9)]
    _, log_p = hmm.em_step(model, x)
    assert log_p == pytest.approx(sum(hmm.total_log_evidence(model, [v]) for v in x))
    twice, once = hmm.em_step(model, x + x)[0], hmm.em_step(model, x)[0]
    np.testing.assert_allclose(twice.chain.A, once.chain.A, rtol=1e-12)
    np.testing.assert_allclose(twice.emissions.rate, once.emissions.rate, rtol=1e-12)


def test_em_recovers_the_parameters():
    for seed in range(3):
        rng = np.random.default_rng(seed)
        A = np.array([[0.95, 0.05], [0.1, 0.9]])
        truth = hmm.HMM(hmm.Chain([0.5, 0.5], A), hmm.Poisson([2.0, 8.0]))
        x = truth.emissions.sample(hmm.simulate(truth.chain, 5000, rng), rng)
        start = hmm.HMM(
            hmm.Chain([0.5, 0.5], [[0.7, 0.3], [0.3, 0.7]]), hmm.Poisson([1.0, 3.0])
        )
        found = hmm.em(start, [x], n_iter=200)
        assert found.converged
        np.testing.assert_allclose(found.model.emissions.rate, [2.0, 8.0], rtol=0.05)
        np.testing.assert_allclose(found.model.chain.A, A, atol=0.03)
        log_p = hmm.total_log_evidence(found.model, [x])
        assert log_p > hmm.total_log_evidence(truth, [x])
        assert log_p == pytest.approx(found.log_evidence[-1], abs=1e-9)


def test_jitter_is_added_once_and_only_where_there_are_data():
    gamma = np.tile([1.0, 0.0], (50, 1))
    x = np.random.default_rng(20).normal(size=(50, 2))
    start = hmm.Gaussian(np.zeros((2, 2)), np.tile(np.eye(2), (2, 1, 1)), jitter=0.5)
    fit = start.m_step(x, gamma)
    np.testing.assert_allclose(fit.cov[0], np.cov(x.T, bias=True) + 0.5 * np.eye(2))
    np.testing.assert_array_equal(fit.cov[1], np.eye(2))  # no data: nothing changes
    np.testing.assert_array_equal(fit.mean[1], [0.0, 0.0])


def test_products_of_marginals_cost_likelihood():
    """The seminar's silent bug: A from γ[t] γ[t+1] instead of ξ[t] loses likelihood."""
    rng = np.random.default_rng(18)
    truth = hmm.Chain([0.5, 0.5], [[0.9, 0.1], [0.1, 0.9]])
    emissions = hmm.Gaussian([[0.0], [1.0]], np.full((2, 1, 1), 0.64))
    x = emissions.sample(hmm.simulate(truth, 2000, rng), rng)
    right, wrong = hmm.HMM(truth, emissions), hmm.HMM(truth, emissions)
    for _ in range(60):
        right, _ = hmm.em_step(right, [x])
        gamma = hmm.smooth(wrong.chain, wrong.emissions.log_likelihood(x)).gamma
        moves = gamma[:-1].T @ gamma[1:]
        chain = hmm.Chain(gamma[0], moves / moves.sum(axis=1, keepdims=True))
        wrong = hmm.HMM(chain, wrong.emissions.m_step(x, gamma))
    cost = hmm.total_log_evidence(right, [x]) - hmm.total_log_evidence(wrong, [x])
    assert cost > 30.0


# ---------------------------------------------------------------- hmmlearn


def with_hmmlearn(model, x):
    """The same model in hmmlearn, at maximum likelihood (no priors)."""
    emissions, K = model.emissions, model.chain.K
    shared = {"n_components": K, "init_params": "", "tol": -np.inf, "n_iter": 10}
    if isinstance(emissions, hmm.Poisson):
        peer = PoissonHMM(**shared)
        peer.lambdas_ = emissions.rate[:, None].copy()
    elif isinstance(emissions, hmm.Categorical):
        peer = CategoricalHMM(n_features=emissions.prob.shape[1], **shared)
        peer.emissionprob_ = emissions.prob.copy()
    else:
        peer = GaussianHMM(covariance_type="full", covars_prior=0.0, **shared)
        peer.means_, peer.covars_ = emissions.mean.copy(), emissions.cov.copy()
    peer.startprob_, peer.transmat_ = model.chain.pi.copy(), model.chain.A.copy()
    column = x.reshape(len(x), -1)
    return peer, column if isinstance(emissions, hmm.Gaussian) else column.astype(int)


@pytest.mark.parametrize("kind", ["poisson", "categorical", "gaussian"])
def test_hmmlearn_agrees(claim, kind):
    rng = np.random.default_rng(19)
    chain = random_chain(rng)
    emissions = {
        "poisson": hmm.Poisson([1.0, 4.0, 9.0]),
        "categorical": hmm.Categorical(rng.dirichlet(np.ones(4), 3)),
        "gaussian": hmm.Gaussian(
            rng.normal(size=(3, 2)), np.tile(0.5 * np.eye(2), (3, 1, 1))
        ),
    }[kind]
    model = hmm.HMM(chain, emissions)
    x = emissions.sample(hmm.simulate(chain, 400, rng), rng)
    peer, column = with_hmmlearn(model, x)
    table = emissions.log_likelihood(x)
    post = hmm.smooth(chain, table)
    log_p, gamma = peer.score_samples(column)
    claim(
        "hmm-scale",
        oracle="hmmlearn, score",
        kind="library",
        got=post.log_evidence,
        want=log_p,
        rtol=1e-12,
    )
    claim(
        "hmm-gamma",
        oracle="hmmlearn, predict_proba",
        kind="library",
        got=post.gamma,
        want=gamma,
        atol=1e-10,
    )
    path, best = hmm.viterbi(chain.pi, chain.A, table)
    peer_best, peer_path = peer.decode(column)
    claim(
        "hmm-viterbi",
        oracle="hmmlearn, decode",
        kind="library",
        got=best,
        want=peer_best,
        rtol=1e-12,
    )
    # Counts tie often, and of equal paths either is right: compare what they are worth.
    log_pi, log_A, t = log(chain.pi), log(chain.A), np.arange(len(x))
    for z in (path, peer_path):
        worth = log_pi[z[0]] + log_A[z[:-1], z[1:]].sum() + table[t, z].sum()
        assert worth == pytest.approx(best, rel=1e-12)
    peer.fit(column)
    ours = hmm.em(model, [x], n_iter=10, tol=0.0)
    claim(
        "hmm-m-A",
        oracle="hmmlearn, 10 steps of fit",
        kind="library",
        got=ours.model.chain.A,
        want=peer.transmat_,
        atol=1e-8,
    )
    claim(
        "hmm-monotone",
        oracle="hmmlearn, log likelihood at each step",
        kind="library",
        got=ours.log_evidence[:10],
        want=peer.monitor_.history,
        rtol=1e-10,
    )


# ---------------------------------------------------------------- published numbers


def fever():
    """Healthy/Fever and normal/cold/dizzy: Wikipedia, "Viterbi algorithm"."""
    chain = hmm.Chain([0.6, 0.4], [[0.7, 0.3], [0.4, 0.6]])
    emissions = hmm.Categorical([[0.5, 0.4, 0.1], [0.1, 0.3, 0.6]])
    return chain, emissions.log_likelihood(np.array([0, 1, 2]))


def test_fever_example(claim):
    chain, table = fever()
    path, log_p = hmm.viterbi(chain.pi, chain.A, table)
    assert path.tolist() == [0, 0, 1]  # healthy, healthy, fever
    claim(
        "hmm-viterbi",
        oracle="Wikipedia, Viterbi algorithm: 0.01512",
        kind="published",
        got=np.exp(log_p),
        want=0.01512,
        atol=5e-6,
    )


def test_umbrella_world(claim):
    chain = hmm.Chain([0.5, 0.5], [[0.7, 0.3], [0.3, 0.7]])
    B = np.array([[0.9, 0.2], [0.9, 0.2]])  # an umbrella on both days
    filtered, _ = hmm.forward(chain.pi, chain.A, B)
    claim(
        "hmm-forward-scaled",
        oracle="Russell & Norvig 2010, sec. 15.2: 0.818, 0.883",
        kind="published",
        got=filtered[:, 0],
        want=[0.818, 0.883],
        atol=5e-4,
    )
    claim(
        "hmm-gamma",
        oracle="Russell & Norvig 2010, sec. 15.2: 0.883",
        kind="published",
        got=hmm.smooth(chain, log(B)).gamma[0, 0],
        want=0.883,
        atol=5e-4,
    )


DIARY = "2 3 3 2 3 2 3 2 2 3 1 3 3 1 1 1 2 1 1 1 3 1 2 1 1 1 2 3 3 2 3 2 2"


def test_ice_cream_diary(claim):
    """Eisner's chain may stop each day: a third state with a symbol of its own."""
    chain = hmm.Chain(
        [0.5, 0.5, 0.0], [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.0, 0.0, 1.0]]
    )
    emit = [[0.7, 0.2, 0.1, 0.0], [0.1, 0.2, 0.7, 0.0], [0.0, 0.0, 0.0, 1.0]]
    diary = np.array([int(n) - 1 for n in DIARY.split()] + [3])
    model = hmm.HMM(chain, hmm.Categorical(emit))
    history = hmm.em(model, [diary], n_iter=10, tol=0.0).log_evidence
    claim(
        "hmm-evidence",
        oracle="Eisner 2002, perplexity before learning: 3.393",
        kind="published",
        got=np.exp(-history[0] / 34),
        want=3.393,
        atol=5e-4,
    )
    claim(
        "hmm-monotone",
        oracle="Eisner 2002, perplexity after 10 iterations: 2.827",
        kind="published",
        got=np.exp(-history[10] / 34),
        want=2.827,
        atol=5e-4,
    )
    gamma = hmm.smooth(chain, model.emissions.log_likelihood(diary)).gamma
    assert gamma[0, 1] == pytest.approx(0.871, abs=5e-4)


# Zucchini & MacDonald 2009, Hidden Markov Models for Time Series, Table 4.1: two states
# for the earthquakes after so many iterations of EM: γ₁₂, γ₂₁, λ₁, λ₂, δ₁, −log L.
TABLE_4_1 = {
    0: (0.100000, 0.10000, 10.000, 30.000, 0.50000, 413.27542),
    1: (0.138816, 0.11622, 13.742, 24.169, 0.99963, 343.76023),
    2: (0.115510, 0.10079, 14.090, 24.061, 1.00000, 343.13618),
    30: (0.071653, 0.11895, 15.419, 26.014, 1.00000, 341.87871),
    50: (0.071626, 0.11903, 15.421, 26.018, 1.00000, 341.87870),
}
# Table 4.2, three states: λ₁, λ₂, λ₃, δ₁, δ₂, −log L.
TABLE_4_2 = {
    0: (10.000, 20.000, 30.000, 0.33333, 0.33333, 342.90781),
    1: (11.699, 19.030, 29.741, 0.92471, 0.07487, 332.12143),
    2: (12.265, 19.078, 29.581, 0.99588, 0.00412, 330.63689),
    30: (13.134, 19.713, 29.710, 1.00000, 0.00000, 328.52748),
}


def earthquake_start(rates):
    K = len(rates)
    A = np.full((K, K), 0.1)
    np.fill_diagonal(A, 1.0 - 0.1 * (K - 1))
    return hmm.HMM(hmm.Chain(np.full(K, 1 / K), A), hmm.Poisson(rates))


def em_trajectory(model, x, steps):
    found = {}
    for i in range(max(steps) + 1):
        better, log_p = hmm.em_step(model, [x])
        if i in steps:
            found[i] = model, log_p
        model = better
    return found


def test_em_on_earthquakes_step_by_step(claim):
    x = data.load("earthquakes")["count"]
    found = em_trajectory(earthquake_start([10.0, 30.0]), x, TABLE_4_1)
    got = [
        (m.chain.A[0, 1], m.chain.A[1, 0], *m.emissions.rate, m.chain.pi[0], -log_p)
        for m, log_p in found.values()
    ]
    want = np.array(list(TABLE_4_1.values()))
    half_a_digit = np.array([5e-7, 5e-6, 5e-4, 5e-4, 5e-6, 5e-6])
    claim(
        "hmm-m-poisson",
        oracle="Zucchini & MacDonald 2009, Table 4.1, in units of half its last digit",
        kind="published",
        got=np.array(got) / half_a_digit,
        want=want / half_a_digit,
        atol=1.001,
    )
    found = em_trajectory(earthquake_start([10.0, 20.0, 30.0]), x, TABLE_4_2)
    got = [(*m.emissions.rate, *m.chain.pi[:2], -log_p) for m, log_p in found.values()]
    want = np.array(list(TABLE_4_2.values()))
    half_a_digit = np.array([5e-4, 5e-4, 5e-4, 5e-6, 5e-6, 5e-6])
    claim(
        "hmm-m-pi",
        oracle="Zucchini & MacDonald 2009, Table 4.2, in units of half its last digit",
        kind="published",
        got=np.array(got) / half_a_digit,
        want=want / half_a_digit,
        atol=1.001,
    )


def fit_stationary(x, rates):
    """−log L of the stationary model, which has no closed M-step: maximise directly.

    The gradient is Fisher’s identity; δ(A) adds its share, by implicit differentiation.
    """
    K = len(rates)

    def loss(theta):
        rate, A = np.exp(theta[:K]), np.exp(theta[K:].reshape(K, K))
        A /= A.sum(axis=1, keepdims=True)
        delta = hmm.stationary(A)
        post = hmm.smooth(hmm.Chain(delta, A), hmm.Poisson(rate).log_likelihood(x))
        through = np.linalg.solve(np.eye(K) - A + delta, post.gamma[0] / delta)
        slope = post.xi_sum / A + delta[:, None] * through
        slope = A * (slope - (A * slope).sum(axis=1, keepdims=True))
        by_rate = x @ post.gamma - rate * post.gamma.sum(axis=0)
        return -post.log_evidence, -np.concatenate([by_rate, slope.ravel()])

    A = hmm.em(earthquake_start(rates), [x], n_iter=200, tol=1e-4).model.chain.A
    start = np.concatenate([np.log(rates), np.log(A + 1e-4).ravel()])
    # A transition that wants to be 0 would run to −∞: e⁻²⁵ is near enough to stop it.
    bounds = [(None, None)] * K + [(-25.0, 25.0)] * K * K
    options = {"ftol": 1e-14, "gtol": 1e-6, "maxiter": 2000}
    return optimize.minimize(
        loss, start, jac=True, bounds=bounds, method="L-BFGS-B", options=options
    ).fun


def test_stationary_earthquake_models(claim):
    x = data.load("earthquakes")["count"]
    starts = [20.0], [15.0, 25.0], [10.0, 20.0, 30.0], [10.0, 13.0, 20.0, 30.0]
    got = [fit_stationary(x, rates) for rates in starts]
    claim(
        "hmm-stationary",
        oracle="Zucchini & MacDonald 2009, chap. 6, −log L for 1 to 4 states",
        kind="published",
        got=got,
        want=[391.9189, 342.3183, 329.4603, 327.8316],
        atol=6e-5,
    )
    n_parameters = np.array([1, 4, 9, 16])  # the stationary start costs none
    claim(
        "hmm-aic",
        oracle="Zucchini & MacDonald 2009, chap. 6, AIC for 1 to 4 states",
        kind="published",
        got=[hmm.aic(-v, int(n)) for v, n in zip(got, n_parameters, strict=True)],
        want=[785.8, 692.6, 676.9, 687.7],
        atol=0.0501,
    )
    claim(
        "hmm-bic",
        oracle="Zucchini & MacDonald 2009, chap. 6, BIC for 1 to 4 states",
        kind="published",
        got=[
            hmm.bic(-v, int(n), len(x)) for v, n in zip(got, n_parameters, strict=True)
        ],
        want=[788.5, 703.3, 701.0, 730.4],
        atol=0.0501,
    )
