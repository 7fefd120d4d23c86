"""Gaussian vectors: against SciPy, against integrals, and at the door."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from mlfs.core import gaussian

seeds = st.integers(0, 2**32 - 1)


def covariance(rng, n):
    root = rng.normal(size=(n, n + 2))
    return root @ root.T / n + 0.1 * np.eye(n)


@given(seeds, st.integers(1, 4), st.integers(1, 3))
def test_log_density_is_scipys(claim, seed, D, N):
    rng = np.random.default_rng(seed)
    mean, cov, x = rng.normal(size=D), covariance(rng, D), rng.normal(size=(N, D))
    got = gaussian.log_density(x, mean, cov)
    want = np.reshape(stats.multivariate_normal(mean, cov).logpdf(x), N)
    claim(
        "kalman-log-density",
        oracle="scipy.stats.multivariate_normal",
        kind="library",
        got=got,
        want=want,
        atol=1e-9,
    )
    assert gaussian.log_density(x[0], mean, cov) == pytest.approx(got[0], abs=1e-12)


@settings(max_examples=20)
@given(seeds, st.integers(1, 3), st.integers(1, 2))
def test_condition_is_the_ratio_of_joint_and_marginal(claim, seed, n, D):
    """log p(a | b) must be log p(a, b) − log p(b), at any a."""
    rng = np.random.default_rng(seed)
    mean, cov = rng.normal(size=n + D), covariance(rng, n + D)
    b, a = rng.normal(size=D), rng.normal(size=(5, n))
    got = gaussian.condition(
        mean[:n], cov[:n, :n], cov[:n, n:], mean[n:], cov[n:, n:], b
    )
    pairs = np.hstack([a, np.tile(b, (5, 1))])
    want = stats.multivariate_normal(mean, cov).logpdf(pairs)
    want = want - stats.multivariate_normal(mean[n:], cov[n:, n:]).logpdf(b)
    claim(
        "kalman-condition",
        oracle="log p(a, b) − log p(b), scipy.stats",
        kind="library",
        got=np.atleast_1d(stats.multivariate_normal(*got).logpdf(a)),
        want=np.atleast_1d(want),
        atol=1e-7,
    )


def test_condition_by_integration(claim):
    """One number each: Bayes' rule on a fine grid, with no algebra at all."""
    m_a, v_a, slope, v_e, b = 1.0, 2.0, 0.7, 0.5, 3.0

    def weight(a, power):
        prior = np.exp(-0.5 * (a - m_a) ** 2 / v_a)
        return a**power * prior * np.exp(-0.5 * (b - slope * a) ** 2 / v_e)

    moments = [
        integrate.quad(weight, -15, 15, args=(k,), epsabs=1e-13)[0] for k in range(3)
    ]
    mean = moments[1] / moments[0]
    mean_b, cov_bb, cov_ab = gaussian.linear([m_a], [[v_a]], [[slope]], [[v_e]])
    got = gaussian.condition([m_a], [[v_a]], cov_ab, mean_b, cov_bb, [b])
    claim(
        "kalman-condition",
        oracle="Bayes' rule integrated numerically",
        kind="exact",
        got=[got[0][0], got[1][0, 0]],
        want=[mean, moments[2] / moments[0] - mean**2],
        atol=1e-9,
    )


@given(seeds, st.integers(1, 3), st.integers(1, 3))
def test_linear_map_of_a_gaussian(claim, seed, n, D):
    """Moments of A a + e, entry by entry: sums of products of entries."""
    rng = np.random.default_rng(seed)
    mean, cov = rng.normal(size=n), covariance(rng, n)
    A, noise = rng.normal(size=(D, n)), covariance(rng, D)
    want_mean = [sum(A[i, j] * mean[j] for j in range(n)) for i in range(D)]
    want_ab = [
        [sum(cov[i, k] * A[j, k] for k in range(n)) for j in range(D)] for i in range(n)
    ]
    want_bb = np.array(noise)
    for i, j, k, m in np.ndindex(D, D, n, n):
        want_bb[i, j] += A[i, k] * cov[k, m] * A[j, m]
    for got, want in zip(
        gaussian.linear(mean, cov, A, noise), (want_mean, want_bb, want_ab), strict=True
    ):
        claim(
            "kalman-linear",
            oracle="sums over entries",
            kind="exact",
            got=got,
            want=want,
            atol=1e-12,
        )


@pytest.mark.parametrize("n", [1, 3])
def test_samples_have_the_moments(n):
    rng = np.random.default_rng(n)
    mean, cov, N = rng.normal(size=n), covariance(rng, n), 40_000
    x = gaussian.sample(mean, cov, N, rng)
    sd = np.sqrt(np.diag(cov))
    assert (np.abs(x.mean(axis=0) - mean) < 5 * sd / np.sqrt(N)).all()
    error = np.sqrt((np.outer(sd, sd) ** 2 + cov**2) / N)  # of a sample covariance
    assert (np.abs(np.cov(x.T, bias=True).reshape(n, n) - cov) < 5 * error).all()


def test_singular_covariances_can_be_sampled_and_rooted():
    v = np.array([1.0, 2.0, -1.0])
    root = gaussian.square_root("cov", np.outer(v, v))
    np.testing.assert_allclose(root @ root.T, np.outer(v, v), atol=1e-12)
    x = gaussian.sample(np.zeros(3), np.outer(v, v), 5, np.random.default_rng(0))
    np.testing.assert_allclose(x[:, 1:], x[:, :1] * v[1:], atol=1e-7)


def test_jitter_is_added_once_and_only_when_asked_for():
    flat = np.ones((2, 2))
    with pytest.raises(
        ValueError, match=r"^prior has an eigenvalue of .* jitter helps"
    ):
        gaussian.factor("prior", flat)
    L = gaussian.factor("prior", flat, jitter=0.5)
    np.testing.assert_allclose(L @ L.T, flat + 0.5 * np.eye(2), atol=1e-14)


def test_rounding_is_put_right_and_arguments_stay_as_they_are():
    rng = np.random.default_rng(0)
    cov = covariance(rng, 4)
    tilted = cov + 1e-13 * rng.normal(size=(4, 4))
    before = tilted.copy()
    L = gaussian.factor("cov", tilted)
    np.testing.assert_allclose(L @ L.T, cov, atol=1e-12)
    gaussian.condition(
        np.zeros(2), tilted[:2, :2], tilted[:2, 2:], np.zeros(2), tilted[2:, 2:], [1, 2]
    )
    np.testing.assert_array_equal(tilted, before)


# ---------------------------------------------------------------- at the door

I2, RNG = np.eye(2), np.random.default_rng(0)
TILTED = np.array([[1.0, 0.5], [0.4, 1.0]])
# Of every public function: bad calls, and what the message must say.
REFUSALS = {
    "factor": [
        (lambda: gaussian.factor("S", TILTED), r"^S\[0, 1\] is 0.5 .* symmetric"),
        (
            lambda: gaussian.factor("S", np.ones((2, 3))),
            r"^S has shape \(2, 3\), wants",
        ),
        (lambda: gaussian.factor("S", -I2), r"^S\[0, 0\] is -1.*wants no variance"),
        (lambda: gaussian.factor("S", [[1, 2], [2, 1]]), "^S has an eigenvalue of -1,"),
        (lambda: gaussian.factor("S", I2, jitter=-1.0), "^jitter is -1"),
        (lambda: gaussian.factor("S", I2 * np.nan), r"^S\[0, 0\] is nan, wants"),
    ],
    "check_covariance": [
        (lambda: gaussian.check_covariance("S", TILTED), r"^S\[0, 1\]"),
        (lambda: gaussian.check_covariance("S", "I"), "^S is 'I', wants"),
    ],
    "log_density": [
        (
            lambda: gaussian.log_density([1.0], [0, 0], I2),
            r"^x has sides \(1,\), wants",
        ),
        (lambda: gaussian.log_density([1, 2], [0, 0], [[1.0]]), "^cov has sides"),
        (lambda: gaussian.log_density([np.nan, 2], [0, 0], I2), r"^x\[0\] is nan"),
        (lambda: gaussian.log_density([1e150], [0], [[1e-290]]), "^x lies too many"),
        (lambda: gaussian.log_density([[[1.0]]], [0], [[1.0]]), "^x has shape"),
    ],
    "linear": [
        (lambda: gaussian.linear([0, 0], I2, [[1, 1, 1]], [[1]]), "^A has sides"),
        (lambda: gaussian.linear([0, 0], [[1]], I2, I2), "^cov has sides"),
        (lambda: gaussian.linear([0, 0], I2, I2, [[1]]), "^noise has sides"),
        (lambda: gaussian.linear([0, np.inf], I2, I2, I2), r"^mean\[1\] is inf"),
    ],
    "gain": [
        (lambda: gaussian.gain([[1, 1, 1]], I2), "^cov_ab has sides"),
        (lambda: gaussian.gain(I2, 0 * I2), "^cov_bb has an eigenvalue of 0"),
    ],
    "condition": [
        (
            lambda: gaussian.condition([0, 0], I2, I2, [0, 0], I2, [1]),
            r"^b has sides \(1,\), wants \(2,\)",
        ),
        (
            lambda: gaussian.condition([0], I2, [[0, 0]], [0, 0], I2, [1, 1]),
            "^cov_aa has sides",
        ),
        (
            lambda: gaussian.condition([0, 0], I2, [[0, 0]], [0, 0], I2, [1, 1]),
            "^cov_ab has sides",
        ),
    ],
    "sample": [
        (lambda: gaussian.sample([0, 0], -I2, 3, RNG), "wants no variance below"),
        (lambda: gaussian.sample([0, 0], [[1, 2], [2, 1]], 3, RNG), "^cov has an eig"),
        (lambda: gaussian.sample([0], I2, 3, RNG), "^cov has sides"),
        (lambda: gaussian.sample([0, 0], I2, 0, RNG), "^n is 0"),
        (lambda: gaussian.sample([0, 0], I2, 3, 0), "^rng is 0"),
    ],
    "square_root": [
        (lambda: gaussian.square_root("Q", [[1, 2], [2, 1]]), "^Q has an eigenvalue"),
    ],
    "symmetric": [
        (lambda: gaussian.symmetric(np.ones(3)), r"^a has shape \(3,\), wants"),
        (lambda: gaussian.symmetric(np.ones((2, 3))), r"^a has shape \(2, 3\), wants"),
    ],
}


def test_every_public_function_is_in_the_table():
    found = {
        name
        for name, it in vars(gaussian).items()
        if inspect.isfunction(it)
        and it.__module__ == gaussian.__name__
        and not name.startswith("_")
    }
    assert found == set(REFUSALS)


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
