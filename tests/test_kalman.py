"""Kalman filters: one big Gaussian, laws, SciPy, the published values of the Nile."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, optimize

from mlfs import kalman
from mlfs.core import data
from oracles import kalman as oracle

BATCH = "the joint Gaussian of all z and x, conditioned at once"
seeds = st.integers(0, 2**32 - 1)


def covariance(rng, n, scale=1.0):
    root = rng.normal(size=(n, n + 2))
    return scale * (root @ root.T / n + 0.05 * np.eye(n))


def random_model(rng, n=2, D=2):
    F = rng.normal(size=(n, n))
    return kalman.LinearGaussian(
        rng.normal(size=n),
        covariance(rng, n),
        0.97 * F / np.linalg.norm(F, 2),
        covariance(rng, n, 0.5),
        rng.normal(size=(D, n)),
        covariance(rng, D, 0.5),
    )


def parts(model):
    return tuple(getattr(model, name) for name in kalman.PARAMETERS)


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(seeds))
    model = random_model(rng, draw(st.integers(1, 3)), draw(st.integers(1, 2)))
    T = draw(st.integers(1, 6))
    x = kalman.simulate(model, T, rng)[1]
    seen = np.array(draw(st.lists(st.booleans(), min_size=T, max_size=T)))
    return model, x, seen


# ---------------------------------------------------------------- exact


@settings(max_examples=10)
@given(problems())
def test_filter_is_the_big_gaussian(claim, problem):
    model, x, seen = problem
    found = kalman.kalman_filter(model, x, seen)
    for t in range(len(x)):
        mean, cov, log_p = oracle.batch(*parts(model), x, seen, last=t)
        claim(
            "kalman-update",
            oracle=BATCH,
            kind="exact",
            got=np.r_[found.mean[t], found.cov[t].ravel()],
            want=np.r_[mean[t], cov[t, t].ravel()],
            atol=1e-9,
        )
        mean, cov, before = oracle.batch(*parts(model), x, seen, last=t - 1)
        claim(
            "kalman-predict",
            oracle=BATCH,
            kind="exact",
            got=np.r_[found.predicted_mean[t], found.predicted_cov[t].ravel()],
            want=np.r_[mean[t], cov[t, t].ravel()],
            atol=1e-9,
        )
        claim(
            "kalman-missing",
            oracle="log density of the entries seen so far, as one Gaussian",
            kind="exact",
            got=found.log_p[t],
            want=log_p - before,
            atol=1e-9,
        )
    claim(
        "kalman-evidence",
        oracle="log density of all x as one Gaussian",
        kind="exact",
        got=found.log_evidence,
        want=oracle.batch(*parts(model), x, seen)[2],
        atol=1e-9,
    )


@settings(max_examples=10)
@given(problems())
def test_one_step_at_a_time(claim, problem):
    """The public steps, which the page shows, chained by hand."""
    model, x, _ = problem
    mean, cov = model.mean, model.cov
    for t in range(len(x)):
        if t > 0:
            mean, cov = kalman.predict(mean, cov, model.F, model.Q)
        joseph = kalman.update_joseph(mean, cov, x[t], model.H, model.R)
        mean, cov, log_p = kalman.update(mean, cov, x[t], model.H, model.R)
        want_mean, want_cov, want = oracle.batch(*parts(model), x, last=t)
        before = oracle.batch(*parts(model), x, last=t - 1)[2]
        np.testing.assert_allclose(mean, want_mean[t], atol=1e-9)
        np.testing.assert_allclose(cov, want_cov[t, t], atol=1e-9)
        claim(
            "kalman-innovation",
            oracle="ratio of densities of x₁..xₜ and x₁..xₜ₋₁",
            kind="exact",
            got=log_p,
            want=want - before,
            atol=1e-9,
        )
        claim(
            "kalman-gain",
            oracle=BATCH,
            kind="exact",
            got=joseph[0],
            want=want_mean[t],
            atol=1e-9,
        )
        claim(
            "kalman-joseph",
            oracle=BATCH,
            kind="exact",
            got=joseph[1],
            want=want_cov[t, t],
            atol=1e-9,
        )


@settings(max_examples=10)
@given(problems())
def test_smoother_is_the_big_gaussian(claim, problem):
    model, x, seen = problem
    got = kalman.rts_smoother(model, kalman.kalman_filter(model, x, seen))
    mean, cov, log_p = oracle.batch(*parts(model), x, seen)
    T = range(len(x))
    claim("kalman-rts", oracle=BATCH, kind="exact", got=got.mean, want=mean, atol=1e-9)
    claim(
        "kalman-rts-gain",
        oracle=BATCH,
        kind="exact",
        got=got.cov,
        want=cov[T, T],
        atol=1e-9,
    )
    np.testing.assert_allclose(got.log_evidence, log_p, atol=1e-9)
    if len(x) > 1:
        claim(
            "kalman-lag-one",
            oracle=BATCH,
            kind="exact",
            got=got.cross,
            want=cov[T[1:], T[:-1]],
            atol=1e-9,
        )


@settings(max_examples=10)
@given(problems())
def test_square_roots_are_the_big_gaussian(claim, problem):
    model, x, seen = problem
    got = kalman.sqrt_filter(model, x, seen)
    for t in range(len(x)):
        mean, cov, _ = oracle.batch(*parts(model), x, seen, last=t)
        claim(
            "kalman-sqrt-update",
            oracle=BATCH,
            kind="exact",
            got=np.r_[got.mean[t], got.cov[t].ravel()],
            want=np.r_[mean[t], cov[t, t].ravel()],
            atol=1e-9,
        )
        mean, cov, _ = oracle.batch(*parts(model), x, seen, last=t - 1)
        claim(
            "kalman-sqrt-predict",
            oracle=BATCH,
            kind="exact",
            got=got.predicted_cov[t],
            want=cov[t, t],
            atol=1e-9,
        )
    np.testing.assert_allclose(
        got.log_evidence, oracle.batch(*parts(model), x, seen)[2], atol=1e-9
    )


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("T", [1, 5, 70, 400])
@pytest.mark.parametrize("kind", ["stable", "random walk", "slow", "silent"])
def test_the_fast_form_agrees_with_the_loops(n, T, kind):
    rng = np.random.default_rng([n, T])
    model = random_model(rng, n, 2)
    F = {
        "stable": 0.9 * linalg.orth(rng.normal(size=(n, n))),
        "random walk": np.eye(n),
        "slow": 0.9999 * np.eye(n),
        "silent": 0.5 * np.eye(n),
    }[kind]
    small = {"slow": 1e-7, "silent": 1e-3}.get(kind, 1.0)
    model = kalman.replace(model, F=F, Q=small * model.Q)
    x = kalman.simulate(model, T, rng)[1]
    slow = kalman.rts_smoother(model, kalman.kalman_filter(model, x))
    fast = kalman.smooth(model, x)
    scale = max(1.0, abs(slow.log_evidence))
    assert abs(fast.log_evidence - slow.log_evidence) < 1e-11 * scale
    size = np.abs(slow.mean).max()
    np.testing.assert_allclose(fast.mean, slow.mean, atol=1e-9 * size)
    np.testing.assert_allclose(fast.cov, slow.cov, atol=1e-10 * slow.cov.max())
    np.testing.assert_allclose(fast.cross, slow.cross, atol=1e-10 * slow.cov.max())


def test_the_fast_form_is_taken_where_it_can_be(monkeypatch):
    loops = []
    monkeypatch.setattr(
        kalman, "rts_smoother", lambda *a: loops.append(1) or "the loops"
    )
    model = random_model(np.random.default_rng(0))
    x = kalman.simulate(model, 500, np.random.default_rng(1))[1]
    assert kalman.smooth(model, x).mean.shape == (500, 2) and not loops
    assert kalman.smooth(model, x[:20]) == "the loops"
    assert kalman.smooth(model, x, np.arange(500) != 7) == "the loops"


# ---------------------------------------------------------------- laws


def test_simulated_paths_have_the_moments(claim):
    rng = np.random.default_rng(5)
    model, T, N = random_model(rng), 4, 600
    x = np.array([kalman.simulate(model, T, rng)[1].ravel() for _ in range(N)])
    _, _, mean, cov, _ = oracle.joint(*parts(model), T)
    sd = np.sqrt(np.diag(cov))
    error = np.sqrt((np.outer(sd, sd) ** 2 + cov**2) / N)
    claim(
        "kalman-linear-gaussian",
        oracle="mean and covariance of all x, in standard errors, 600 recordings",
        kind="law",
        got=np.r_[
            (x.mean(axis=0) - mean) / sd * np.sqrt(N),
            ((np.cov(x.T, bias=True) - cov) / error).ravel(),
        ],
        want=np.zeros(8 + 64),
        atol=5.0,
    )


def test_innovations_are_white_where_the_model_is_true():
    rng = np.random.default_rng(8)
    model = random_model(rng)
    x = kalman.simulate(model, 1500, rng)[1]
    white = kalman.standardised_innovations(model, x, kalman.kalman_filter(model, x))
    T = len(white)
    assert np.abs(white.mean(axis=0)).max() < 5 / np.sqrt(T)
    assert np.abs(white.T @ white / T - np.eye(2)).max() < 5 * np.sqrt(2 / T)
    assert np.abs(white[1:].T @ white[:-1] / T).max() < 5 / np.sqrt(T)
    wrong = kalman.replace(model, Q=0.01 * model.Q)
    white = kalman.standardised_innovations(wrong, x, kalman.kalman_filter(wrong, x))
    assert np.abs(white.T @ white / T - np.eye(2)).max() > 20 * np.sqrt(2 / T)


@settings(max_examples=10)
@given(problems())
def test_more_data_never_widen_a_covariance(problem):
    model, x, _ = problem
    filtered = kalman.kalman_filter(model, x)
    smoothed = kalman.rts_smoother(model, filtered)
    for wide, narrow in (
        (filtered.predicted_cov, filtered.cov),
        (filtered.cov, smoothed.cov),
    ):
        least = np.linalg.eigvalsh(wide - narrow).min()
        assert least > -1e-10 * np.abs(wide).max()


# ---------------------------------------------------------------- steady state


@pytest.mark.parametrize("seed", range(5))
def test_covariances_settle_where_scipy_says(claim, seed):
    model = random_model(np.random.default_rng(seed), 3, 2)
    found = kalman.steady_state(model.F, model.Q, model.H, model.R)
    claim(
        "kalman-riccati",
        oracle="scipy.linalg.solve_discrete_are",
        kind="library",
        got=found.predicted_cov,
        want=linalg.solve_discrete_are(model.F.T, model.H.T, model.Q, model.R),
        atol=1e-9,
    )
    x = np.zeros((300, 2))
    late = kalman.kalman_filter(model, x)
    np.testing.assert_allclose(late.predicted_cov[-1], found.predicted_cov, atol=1e-10)
    np.testing.assert_allclose(late.cov[-1], found.cov, atol=1e-10)


@pytest.mark.parametrize("q", [1e-2, 0.0973, 1.0, 50.0])
def test_local_level_settles_at_the_closed_form(claim, q):
    found = kalman.steady_state([[1.0]], [[q]], [[1.0]], [[1.0]])
    claim(
        "kalman-local-level",
        oracle="root of P² − q P − q = 0, found by bisection",
        kind="exact",
        got=found.predicted_cov,
        want=[[optimize.brentq(lambda P: P * P - q * P - q, 0, 2 * q + 2, xtol=1e-15)]],
        atol=1e-10,
    )


def test_steady_state_of_the_seminars_random_walk():
    """Q = 1, R = 10: predicted 3.7016, filtered 2.7016, gain 0.2702."""
    found = kalman.steady_state([[1.0]], [[1.0]], [[1.0]], [[10.0]])
    root = np.sqrt(41.0)
    assert found.predicted_cov[0, 0] == pytest.approx((1 + root) / 2, abs=1e-12)
    assert found.cov[0, 0] == pytest.approx((root - 1) / 2, abs=1e-12)
    assert found.gain[0, 0] == pytest.approx((root - 1) / 20, abs=1e-13)


# ---------------------------------------------------------------- diffuse start


@settings(max_examples=25)
@given(seeds, st.integers(1, 3), st.integers(1, 2), st.booleans())
def test_diffuse_start_is_a_regression(claim, seed, n, D, gap):
    rng = np.random.default_rng(seed)
    model, T = random_model(rng, n, D), 7
    marked = np.arange(n) != (1 if rng.random() < 0.5 else n)
    x = kalman.simulate(model, T, rng)[1]
    seen = np.ones(T, dtype=bool)
    seen[1] = not gap
    mean, cov, log_p = oracle.diffuse(*parts(model), x, marked, seen)
    start = kalman.diffuse_start(model, x, marked, seen)
    k = start.steps - 1
    rest = seen[k:].copy()
    rest[0] = False  # the start has taken it in
    filtered = kalman.kalman_filter(start.model, x[k:], rest)
    post = kalman.rts_smoother(start.model, filtered)
    claim(
        "kalman-diffuse-log",
        oracle="generalised least squares with a flat prior",
        kind="exact",
        got=start.log_evidence + post.log_evidence,
        want=log_p,
        rtol=1e-9,
    )
    T_left = np.arange(k, T)
    size = np.abs(mean).max()
    claim(
        "kalman-diffuse-gain",
        oracle="generalised least squares with a flat prior",
        kind="exact",
        got=post.mean / size,
        want=mean[k:] / size,
        atol=1e-9,
    )
    claim(
        "kalman-diffuse-update",
        oracle="generalised least squares with a flat prior",
        kind="exact",
        got=post.cov / cov.max(),
        want=cov[T_left, T_left] / cov.max(),
        atol=1e-9,
    )


def test_diffuse_start_is_the_limit_of_a_wide_prior():
    rng = np.random.default_rng(0)
    model = random_model(rng, 2, 1)
    x = kalman.simulate(model, 30, rng)[1]
    start = kalman.diffuse_start(model, x, [True, True])
    rest = np.ones(30 - start.steps + 1, dtype=bool)
    rest[0] = False
    want = kalman.kalman_filter(start.model, x[start.steps - 1 :], rest)
    total = start.log_evidence + want.log_evidence
    errors = []
    for kappa in (1e3, 1e5, 1e7):
        wide = kalman.replace(model, mean=np.zeros(2), cov=kappa * np.eye(2))
        found = kalman.kalman_filter(wide, x)
        errors.append(abs(found.log_evidence + np.log(kappa) - total))
    assert errors[2] < 1e-4 and errors[1] < errors[0] / 50


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("seed", range(3))
def test_m_step_is_a_peak_of_the_expected_log_joint(claim, seed):
    """The slope in every entry of every parameter is zero, by central differences."""
    rng = np.random.default_rng(seed)
    model, T = random_model(rng), 12
    x = kalman.simulate(random_model(rng), T, rng)[1]
    seen = np.arange(T) != 4
    better, log_p = kalman.em_step(model, [x], [seen])
    post, spread, want = oracle.batch(*parts(model), x, seen)
    np.testing.assert_allclose(log_p, want, atol=1e-9)
    theta = parts(better)
    for i, name in enumerate(kalman.PARAMETERS):
        slopes = []
        for at in np.ndindex(theta[i].shape):
            ends = []
            for h in (1e-5, -1e-5):
                moved = [part.copy() for part in theta]
                moved[i][at] += h
                if name in ("cov", "Q", "R") and at[0] != at[1]:
                    moved[i][at[::-1]] += h
                ends.append(oracle.expected_log_joint(moved, post, spread, x, seen))
            slopes.append((ends[0] - ends[1]) / 2e-5)
        size = max(1.0, *np.abs(np.diff(ends)))
        label = {"mean": "kalman-m-start", "cov": "kalman-m-start"}
        assert np.abs(slopes).max() < 1e-5 * size, (name, label)
        peak = oracle.expected_log_joint(theta, post, spread, x, seen)
        for _ in range(5):
            push = [p.copy() for p in theta]
            A = np.eye(2) + 0.01 * rng.normal(size=(2, 2))
            push[i] = A @ push[i] if push[i].ndim == 1 else A @ push[i] @ A.T
            assert oracle.expected_log_joint(push, post, spread, x, seen) < peak


def m_step_by_sums(model, x, seen):
    """The M-step spelt out with expectations from the one big Gaussian."""
    mean, cov, _ = oracle.batch(*parts(model), x, seen)
    T = len(x)
    second = np.einsum("si,tj->stij", mean, mean) + cov  # E[z_s z_tᵀ]
    S11 = sum(second[t, t] for t in range(1, T))
    S10 = sum(second[t, t - 1] for t in range(1, T))
    S00 = sum(second[t, t] for t in range(T - 1))
    F = np.linalg.solve(S00.T, S10.T).T
    Q = (S11 - F @ S10.T) / (T - 1)
    at = np.flatnonzero(seen)
    Sxz = sum(np.outer(x[t], mean[t]) for t in at)
    H = np.linalg.solve(sum(second[t, t] for t in at), Sxz.T).T
    R = (sum(np.outer(x[t], x[t]) for t in at) - H @ Sxz.T) / len(at)
    return {"mean": mean[0], "cov": cov[0, 0], "F": F, "Q": Q, "H": H, "R": R}


@settings(max_examples=10)
@given(problems())
def test_m_step_by_sums_over_the_big_gaussian(claim, problem):
    model, x, seen = problem
    x = np.vstack([x] * 6)  # enough steps for every regression
    seen = np.append(seen, np.ones(len(x) - len(seen), dtype=bool))
    got = kalman.em_step(model, [x], [seen])[0]
    want = m_step_by_sums(model, x, seen)

    def agree(label, name):
        size = max(1.0, np.abs(want[name]).max())
        return {
            "oracle": "expected sums over " + BATCH,
            "got": getattr(got, name) / size,
            "want": want[name] / size,
            "atol": 1e-9,
        }

    claim("kalman-m-start", kind="exact", **agree("", "mean"))
    claim("kalman-m-start", kind="exact", **agree("", "cov"))
    claim("kalman-m-F", kind="exact", **agree("", "F"))
    claim("kalman-m-Q", kind="exact", **agree("", "Q"))
    claim("kalman-m-H", kind="exact", **agree("", "H"))
    claim("kalman-m-R", kind="exact", **agree("", "R"))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "learn", [kalman.PARAMETERS, ("Q", "R"), ("F",), ("mean", "H")]
)
def test_em_never_lowers_the_likelihood(claim, seed, learn):
    rng = np.random.default_rng(seed)
    truth, start = random_model(rng), random_model(rng)
    x = [kalman.simulate(truth, T, rng)[1] for T in (25, 40)]
    seen = [np.arange(len(one)) % 10 != 3 for one in x]
    found = kalman.em(start, x, n_iter=8, tol=0.0, observed=seen, learn=learn)
    claim(
        "kalman-m-F",
        oracle="EM never lowers log p(x)",
        kind="law",
        got=np.diff(found.log_evidence),
        at_least=np.zeros(len(found.log_evidence) - 1),
        atol=1e-8,
    )
    for name in set(kalman.PARAMETERS) - set(learn):
        np.testing.assert_array_equal(getattr(found.model, name), getattr(start, name))


def test_em_beats_the_truth_on_its_data_and_finds_the_eigenvalues():
    """Only what no change of basis can hide is compared: the eigenvalues of F."""
    angle, errors = 0.3, []
    F = 0.97 * np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    for seed in range(2):
        rng = np.random.default_rng(seed)
        truth = kalman.LinearGaussian(
            np.zeros(2),
            np.eye(2),
            F,
            0.1 * np.eye(2),
            rng.normal(size=(3, 2)),
            np.eye(3),
        )
        x = kalman.simulate(truth, 1000, rng)[1]
        start = kalman.replace(
            truth,
            F=0.5 * np.eye(2) + 0.1 * rng.normal(size=(2, 2)),
            H=rng.normal(size=(3, 2)),
            Q=np.eye(2),
            R=2 * np.eye(3),
        )
        found = kalman.em(start, [x], n_iter=60, tol=1e-2)
        assert found.log_evidence[-1] > kalman.smooth(truth, x).log_evidence
        got = np.sort_complex(np.linalg.eigvals(found.model.F))
        errors.append(np.abs(got - np.sort_complex(np.linalg.eigvals(F))).max())
    assert max(errors) < 0.03


def test_em_gradient_is_zero_where_it_settles():
    rng = np.random.default_rng(2)
    truth = kalman.LinearGaussian([0.0], [[1.0]], [[0.8]], [[0.5]], [[1.0]], [[0.3]])
    x = kalman.simulate(truth, 150, rng)[1]
    learn = ("F", "Q", "R")
    end = kalman.em(truth, [x], n_iter=5000, tol=1e-9, learn=learn).model

    def log_p(theta):
        F, Q, R = theta
        moved = kalman.replace(end, F=[[F]], Q=[[Q]], R=[[R]])
        return kalman.smooth(moved, x).log_evidence

    at = [end.F[0, 0], end.Q[0, 0], end.R[0, 0]]
    assert np.abs(optimize.approx_fprime(at, log_p, 1e-6)).max() < 1e-2


# ---------------------------------------------------------------- nonlinear forms


def as_nonlinear(model):
    return kalman.Nonlinear(
        model.mean,
        model.cov,
        lambda z, t: z @ model.F.T,
        model.Q,
        lambda z, t: z @ model.H.T,
        model.R,
    )


@settings(max_examples=10)
@given(problems())
def test_extended_and_unscented_are_exact_on_linear_models(claim, problem):
    model, x, seen = problem
    curved = as_nonlinear(model)
    slopes = (lambda z, t: model.F), (lambda z, t: model.H)
    found = {
        "kalman-extended": kalman.extended_filter(curved, *slopes, x, seen),
        "kalman-unscented": kalman.unscented_filter(curved, x, 0.7, seen),
    }
    want = [oracle.batch(*parts(model), x, seen, last=t) for t in range(len(x))]
    mean = np.array([m[t] for t, (m, _, _) in enumerate(want)])
    cov = np.array([c[t, t] for t, (_, c, _) in enumerate(want)])
    for name, one in found.items():
        np.testing.assert_allclose(one.log_evidence, want[-1][2], atol=1e-8)
        got = np.r_[one.mean.ravel(), one.cov.ravel()]
        agree = {"got": got, "want": np.r_[mean.ravel(), cov.ravel()], "atol": 1e-9}
        if name == "kalman-extended":
            claim("kalman-extended", oracle=BATCH, kind="exact", **agree)
        else:
            claim("kalman-unscented", oracle=BATCH, kind="exact", **agree)


@settings(max_examples=20)
@given(seeds, st.integers(1, 4), st.floats(-0.9, 3.0))
def test_sigma_points_have_the_moments(claim, seed, n, kappa):
    rng = np.random.default_rng(seed)
    mean, cov = rng.normal(size=n), covariance(rng, n)
    points, weights = kalman.sigma_points(mean, cov, kappa)
    apart = points - mean
    claim(
        "kalman-sigma-points",
        oracle="the moments that were asked for",
        kind="exact",
        got=np.r_[weights @ points, ((weights[:, None] * apart).T @ apart).ravel()],
        want=np.r_[mean, cov.ravel()],
        atol=1e-9,
    )


def test_unscented_moments_of_a_square(claim):
    """z ~ N(m, v): E z² = m² + v and Var z² = 2 v² + 4 m² v; exact where n + κ = 3."""
    m, v = 1.0, 0.25
    mean, cov, cross = kalman.unscented([m], [[v]], lambda z: z * z, 2.0)
    claim(
        "kalman-unscented",
        oracle="moments of the square of a Gaussian, in closed form",
        kind="exact",
        got=[mean[0], cov[0, 0], cross[0, 0]],
        want=[m * m + v, 2 * v * v + 4 * m * m * v, 2 * m * v],
        atol=1e-12,
    )


# ---------------------------------------------------------------- published, recorded


def nile():
    return data.load("nile")["volume"].astype(float)


def level_model(r, q, mean=0.0, cov=1e7):
    return kalman.LinearGaussian([mean], [[cov]], [[1.0]], [[q]], [[1.0]], [[r]])


def diffuse_log_p(r, q, x):
    start = kalman.diffuse_start(level_model(r, q), x, [True])
    rest = np.arange(len(x) - start.steps + 1) > 0
    tail = kalman.kalman_filter(start.model, x[start.steps - 1 :], rest)
    return start.log_evidence + tail.log_evidence


def test_nile_maximum_likelihood(claim):
    """Durbin & Koopman 2012, sec. 2.10: σ²ε = 15099, σ²η = 1469.1."""
    x = nile()
    best = optimize.minimize(
        lambda theta: -diffuse_log_p(*np.exp(theta), x),
        np.log([1e4, 1e3]),
        method="Nelder-Mead",
        options={"xatol": 1e-6, "fatol": 1e-9, "maxiter": 2000},
    )
    r, q = np.exp(best.x)
    claim(
        "kalman-diffuse-log",
        oracle="Durbin & Koopman 2012, sec. 2.10: 15099 and 1469.1, half a unit",
        kind="published",
        got=[r, 10 * q],
        want=[15099, 14691],
        atol=1.0,
    )
    assert -best.fun == pytest.approx(-633.4645636, abs=1e-6)


def test_nile_concentrated_likelihood(claim):
    """Durbin & Koopman 2012, Table 2.1: −495.68 at q = 1, −492.07 where it ends."""
    x = nile()

    def concentrated(q):
        start = kalman.diffuse_start(level_model(1.0, q), x, [True])
        tail = kalman.kalman_filter(start.model, x, np.arange(100) > 0)
        S = tail.predicted_cov[1:, 0, 0] + 1.0
        e = x[1:] - tail.predicted_mean[1:, 0]
        variance = (e * e / S).sum() / 99
        return -99 / 2 * np.log(variance) - 0.5 * np.log(S).sum()

    # Their L_dc leaves out (n − 1)/2 (1 + log 2π), a constant.
    claim(
        "kalman-evidence",
        oracle="Durbin & Koopman 2012, Table 2.1: −495.68, −492.07, to one last digit",
        kind="published",
        got=[concentrated(1.0), concentrated(0.0973)],
        want=[-495.68, -492.07],
        atol=0.01,
    )


def test_nile_steady_gain_and_wide_prior():
    x = nile()
    q = 1469.1 / 15099
    steady = kalman.steady_state([[1.0]], [[1469.1]], [[1.0]], [[15099.0]])
    ratio = (q + np.sqrt(q * q + 4 * q)) / 2  # P / σ²ε
    assert steady.gain[0, 0] == pytest.approx(ratio / (1 + ratio), abs=1e-12)
    assert steady.gain[0, 0] == pytest.approx(0.2670480126, abs=1e-9)
    wide = kalman.kalman_filter(level_model(15099.0, 1469.1), x)
    want = oracle.batch(*parts(level_model(15099.0, 1469.1)), x[:, None])[2]
    assert wide.log_evidence == pytest.approx(want, abs=1e-8)


def test_constant_velocity_as_in_pykalman(claim):
    """Recorded from pykalman 0.11.2, which the tests do not need."""
    model = kalman.LinearGaussian(
        np.zeros(2),
        2 * np.eye(2),
        [[1, 1], [0, 1]],
        0.1 * np.array([[1 / 3, 1 / 2], [1 / 2, 1]]),
        [[1, 0]],
        [[0.5]],
    )
    x = np.array([0.9, 2.1, 2.8, 4.3, 5.1, 5.6, 7.2, 8.1])
    found = kalman.kalman_filter(model, x)
    claim(
        "kalman-evidence",
        oracle="pykalman 0.11.2 on a constant-velocity track",
        kind="library",
        got=[found.log_evidence, *found.mean[-1]],
        want=[-10.406555913236, 8.0826162019, 1.0423209718],
        atol=1e-9,
    )


# ---------------------------------------------------------------- ill-conditioned


def test_joseph_and_square_roots_survive_what_the_plain_update_does_not():
    """Two nearly equal, nearly perfect measurements: Grewal & Andrews' kind of trap."""
    eps = 1e-8
    H = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0 + eps]])
    R = eps**2 * np.eye(2)
    prior = np.zeros(3), np.eye(3)
    with pytest.raises(ValueError, match="eigenvalue"):
        _, cov, _ = kalman.update(*prior, np.ones(2), H, R)
        kalman.gaussian.factor("cov", cov)
    model = kalman.LinearGaussian(*prior, np.eye(3), 0 * np.eye(3), H, R)
    safe = kalman.sqrt_filter(model, np.ones((1, 2)))
    assert np.linalg.eigvalsh(safe.cov[0]).min() > -1e-16


# ---------------------------------------------------------------- at the door

GOOD = kalman.LinearGaussian([0, 0], np.eye(2), np.eye(2), np.eye(2), [[1, 0]], [[1.0]])
X, I2 = np.arange(4.0), np.eye(2)
FILTERED, RNG = kalman.kalman_filter(GOOD, X), np.random.default_rng(0)
CURVED = kalman.Nonlinear(
    [0, 0], I2, lambda z, t: z, I2, lambda z, t: z[:, :1], [[1.0]]
)
SLOPES = (lambda z, t: I2), (lambda z, t: np.array([[1.0, 0.0]]))


def changed(**parts):
    return lambda: kalman.replace(GOOD, **parts)


def curved(**parts):
    return lambda: kalman.replace(CURVED, **parts)


# Of every public function: bad calls, and what the message must say.
REFUSALS = {
    "LinearGaussian": [
        (changed(mean=[0, np.nan]), r"^mean\[1\] is nan"),
        (changed(mean=0.0), "^mean has shape"),
        (changed(cov=[[1.0]]), r"^cov has shape \(1, 1\), wants \(2, 2\)"),
        (changed(cov=[[1, 0.5], [0.4, 1]]), r"^cov\[0, 1\] is 0.5 .* symmetric"),
        (changed(Q=-I2), "^Q.*wants no variance below 0"),
        (changed(R=[[-1.0]]), "^R"),
        (changed(H=[[1, 0, 0]]), r"^H has shape \(1, 3\), wants \(D, 2\)"),
        (changed(F=np.ones((2, 3))), "^F has shape"),
        (changed(F="F"), "^F is 'F', wants"),
    ],
    "simulate": [
        (lambda: kalman.simulate(None, 3, RNG), "^model is None"),
        (lambda: kalman.simulate(GOOD, 0, RNG), "^T is 0"),
        (lambda: kalman.simulate(GOOD, 3, 0), "^rng is 0"),
    ],
    "predict": [
        (lambda: kalman.predict([0], [[1]], I2, I2), "^A has|^F has"),
        (lambda: kalman.predict([0, 0], I2, I2, [[1]]), r"^Q has shape"),
        (lambda: kalman.predict([0, 0], I2, np.ones((2, 3)), I2), "^F has shape"),
    ],
    "update": [
        (lambda: kalman.update([0, 0], I2, [1, 2], [[1, 0]], [[1]]), "^x has sides"),
        (lambda: kalman.update([0, 0], 0 * I2, [1], [[1, 0]], [[0]]), "eigenvalue"),
        (lambda: kalman.update([0, 0], I2, [np.inf], [[1, 0]], [[1]]), r"^x\[0\]"),
    ],
    "update_joseph": [
        (lambda: kalman.update_joseph([0, 0], I2, [1, 2], [[1, 0]], [[1]]), "^x has"),
    ],
    "kalman_filter": [
        (lambda: kalman.kalman_filter(GOOD, [[1, 2]]), r"^x has shape \(1, 2\), wants"),
        (lambda: kalman.kalman_filter(GOOD, []), "^x has shape"),
        (lambda: kalman.kalman_filter(GOOD, [1, np.nan]), r"^x\[1, 0\] is nan"),
        (lambda: kalman.kalman_filter(GOOD, X, X > 9e9), None),
        (lambda: kalman.kalman_filter(GOOD, X, [1, 1, 1, 1]), "^observed holds"),
        (lambda: kalman.kalman_filter(GOOD, X, [True]), "^observed has shape"),
        (lambda: kalman.kalman_filter((GOOD,), X), "^model is"),
        (
            lambda: kalman.kalman_filter(changed(cov=0 * I2, R=[[0.0]])(), X),
            r"^model gives x\[0\] a predicted covariance",
        ),
        (
            lambda: kalman.kalman_filter(changed(F=1e80 * I2)(), X),
            "^model makes moments overflow",
        ),
    ],
    "rts_smoother": [
        (lambda: kalman.rts_smoother(GOOD, X), "^filtered is"),
        (
            lambda: kalman.rts_smoother(
                changed(cov=0 * I2, Q=0 * I2)(),
                kalman.kalman_filter(changed(cov=0 * I2, Q=0 * I2)(), X),
            ),
            "^model gives a predicted covariance of the state that is singular",
        ),
    ],
    "standardised_innovations": [
        (
            lambda: kalman.standardised_innovations(GOOD, X[:3], FILTERED),
            r"^filtered.\w+ has shape",
        ),
    ],
    "smooth": [
        (lambda: kalman.smooth(GOOD, [["a"]]), "^x is"),
        (lambda: kalman.smooth(None, X), "^model is"),
    ],
    "riccati_step": [
        (lambda: kalman.riccati_step(I2, [[1]], I2, [[1, 0]], [[1]]), "wants"),
    ],
    "steady_state": [
        (lambda: kalman.steady_state(2 * I2, I2, [[1, 0]], [[1]]), "^F and H have not"),
        (lambda: kalman.steady_state(I2, I2, I2, I2, max_iter=0), "^max_iter is 0"),
        (lambda: kalman.steady_state(I2, -I2, I2, I2), "^Q"),
    ],
    "diffuse_start": [
        (lambda: kalman.diffuse_start(GOOD, X, [False, False]), "^diffuse marks no"),
        (lambda: kalman.diffuse_start(GOOD, X, [1, 1]), "^diffuse holds"),
        (lambda: kalman.diffuse_start(GOOD, X, [True, True]), "^diffuse marks states"),
        (
            lambda: kalman.diffuse_start(changed(R=[[0.0]])(), X, [True, False]),
            "^R has an eigenvalue",
        ),
    ],
    "sqrt_filter": [
        (lambda: kalman.sqrt_filter(GOOD, [1, np.inf]), r"^x\[1, 0\] is inf"),
        (
            lambda: kalman.sqrt_filter(changed(cov=0 * I2, R=[[0.0]])(), X),
            "variance of zero",
        ),
    ],
    "sqrt_update": [
        (lambda: kalman.sqrt_update([0, 0], I2, [1], [[1, 0, 0]], [[1]]), "^mean has"),
        (lambda: kalman.sqrt_update([0, 0], I2, [1, 2], [[1, 0]], [[1]]), "^x has"),
    ],
    "em_step": [
        (lambda: kalman.em_step(GOOD, X), "^sequences is"),
        (lambda: kalman.em_step(GOOD, [X, [np.nan]]), r"^sequences\[1\]"),
        (lambda: kalman.em_step(GOOD, [X], [[True]]), r"^observed\[0\]"),
        (lambda: kalman.em_step(GOOD, [X], [None, None]), "^observed holds 2 masks"),
        (lambda: kalman.em_step(GOOD, [X], learn=["A"]), "^learn names 'A'"),
        (lambda: kalman.em_step(GOOD, [X], learn=[]), "^learn is"),
    ],
    "em": [
        (lambda: kalman.em(GOOD, [X], n_iter=0), "^n_iter is 0"),
        (lambda: kalman.em(GOOD, [X], tol=-1.0), "^tol is -1"),
    ],
    "Nonlinear": [
        (curved(f=3), "^f is 3, wants a function"),
        (curved(Q=[[1.0]]), "^Q has shape"),
        (curved(R=[[-1.0]]), "^R"),
        (curved(mean=[[0.0]]), "^mean has shape"),
    ],
    "extended_filter": [
        (lambda: kalman.extended_filter(CURVED, *SLOPES, [[1, 2]]), "^x has shape"),
        (
            lambda: kalman.extended_filter(CURVED, SLOPES[1], SLOPES[1], X),
            "^what f_slope returns has shape",
        ),
        (
            lambda: kalman.extended_filter(curved(h=lambda z, t: z)(), *SLOPES, X),
            "^what h returns has shape",
        ),
    ],
    "sigma_points": [
        (lambda: kalman.sigma_points([0.0], [[1.0]], -1.0), "^kappa is -1"),
        (lambda: kalman.sigma_points([0.0], [[-1.0]], 1.0), "^cov"),
    ],
    "unscented": [
        (
            lambda: kalman.unscented([0.0], [[1.0]], lambda z: z[0], 2.0),
            r"^function\(points\) has shape",
        ),
    ],
    "unscented_filter": [
        (lambda: kalman.unscented_filter(CURVED, X, -5.0), "^kappa is -5"),
        (lambda: kalman.unscented_filter(GOOD, X, 1.0), "^model is"),
    ],
}
RECORDS = {"Filtered", "Smoothed", "Steady", "DiffuseStart", "EMResult"}


def test_every_public_function_is_in_the_table():
    found = {
        name
        for name, it in vars(kalman).items()
        if (inspect.isfunction(it) or inspect.isclass(it))
        and it.__module__ == kalman.__name__
        and not name.startswith("_")
    }
    assert found == set(REFUSALS) | RECORDS


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(*case, id=f"{name}-{i}")
        for name, cases in REFUSALS.items()
        for i, case in enumerate(cases)
    ],
)
def test_bad_input_is_refused(call, message):
    if message is None:  # no mistake: nothing observed says nothing
        assert call().log_evidence == 0.0
        return
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=message) as caught:
        call()
    assert "want" in str(caught.value)


def test_arguments_stay_as_they_are():
    rng = np.random.default_rng(0)
    given_parts = [p.copy() for p in parts(random_model(rng))]
    kept = [p.copy() for p in given_parts]
    model = kalman.LinearGaussian(*given_parts)
    x = rng.normal(size=(100, 2))
    before = x.copy()
    first = kalman.smooth(model, x)
    kalman.em_step(model, [x])
    given_parts[2][:] = 9.0  # who writes into an argument later changes no model
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(model.F, kept[2])
    np.testing.assert_array_equal(kalman.smooth(model, x).mean, first.mean)


def test_values_at_missing_steps_are_never_read():
    x = np.arange(6.0)
    seen = np.arange(6) != 2
    holes = np.where(seen, x, np.nan)
    one, other = (kalman.kalman_filter(GOOD, a, seen) for a in (x, holes))
    np.testing.assert_array_equal(one.mean, other.mean)
    assert one.log_p[2] == 0.0
