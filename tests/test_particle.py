"""Particle filters: against grids, the Kalman filter, and every path."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, special, stats

from mlfs import kalman, particle
from oracles import kalman as gaussian_oracle
from oracles import particle as oracle

seeds = st.integers(0, 2**32 - 1)


def walk(T=6, seed=0):
    """A small linear model, its data, and its exact filter."""
    model = kalman.LinearGaussian([0.3], [[1.0]], [[0.9]], [[0.5]], [[1.0]], [[0.4]])
    x = kalman.simulate(model, T, np.random.default_rng(seed))[1]
    return model, x, kalman.kalman_filter(model, x)


def as_nonlinear(model):
    return kalman.Nonlinear(
        model.mean,
        model.cov,
        lambda z, t: z @ model.F.T,
        model.Q,
        lambda z, t: z @ model.H.T,
        model.R,
    )


def standard_errors(values, want):
    """How many standard errors the mean over runs (axis 0) is off."""
    values = np.asarray(values)
    error = values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return (values.mean(axis=0) - want) / error


# ---------------------------------------------------------------- weights


@given(st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=30))
def test_weights_in_logs(claim, log_w):
    w, total = particle.normalise(log_w)
    claim(
        "particle-log-weights",
        oracle="scipy.special.softmax and logsumexp",
        kind="library",
        got=np.append(w, total / 1e5),
        want=np.append(special.softmax(log_w), special.logsumexp(log_w) / 1e5),
        atol=1e-12,
    )


def test_importance_weights_are_ratios(claim):
    """The seminar's case: ¾ (1 − z²) on [−1, 1], from a uniform."""
    rng = np.random.default_rng(0)
    z = rng.uniform(-1, 1, 1000)
    target = 0.75 * (1 - z**2)
    w, log_z = particle.importance(np.log(5.0 * target), np.full(1000, np.log(0.5)))
    claim(
        "particle-self-normalised",
        oracle="ratios of densities, divided by their sum",
        kind="exact",
        got=w,
        want=(target / 0.5) / (target / 0.5).sum(),
        atol=1e-15,
    )
    claim(
        "particle-importance",
        oracle="mean of the ratios",
        kind="exact",
        got=np.exp(log_z),
        want=5.0 * np.mean(target / 0.5),
        atol=1e-12,
    )
    # the integral of the target is 5, and E z² under it is 1/5
    error = 5.0 * np.std(target / 0.5) / np.sqrt(1000)
    assert abs(np.exp(log_z) - 5.0) < 5 * error
    assert abs(w @ z**2 - 0.2) < 5 * np.sqrt(w**2 @ (z**2 - 0.2) ** 2)


@given(st.integers(1, 40), st.integers(0, 20))
def test_effective_sample_size_counts_equals(claim, k, others):
    w = np.r_[np.full(k, 1 / k), np.zeros(others)]
    claim(
        "particle-ess",
        oracle="k equal weights, the others zero",
        kind="exact",
        got=particle.effective_sample_size(w),
        want=k,
        rtol=1e-12,
    )


# ---------------------------------------------------------------- resampling


@given(seeds, st.integers(1, 30))
def test_resampling_deals_out_the_unit_interval(claim, seed, N):
    rng = np.random.default_rng(seed)
    w = rng.dirichlet(np.full(N, 0.3))
    comb = np.arange(N)
    places = {
        "multinomial": np.random.default_rng(seed).random(N),
        "stratified": (comb + np.random.default_rng(seed).random(N)) / N,
        "systematic": (comb + np.random.default_rng(seed).random()) / N,
    }

    def counts(scheme):
        found = particle.SCHEMES[scheme](w, np.random.default_rng(seed))
        assert (np.diff(found) >= 0).all()
        return {
            "got": np.bincount(found, minlength=N),
            "want": oracle.ordinary_counts(w, places[scheme]),
            "oracle": "the same places dealt out one by one",
            "atol": 0.0,
        }

    claim("particle-multinomial", kind="exact", **counts("multinomial"))
    claim("particle-stratified", kind="exact", **counts("stratified"))
    claim("particle-systematic", kind="exact", **counts("systematic"))


@pytest.mark.parametrize("scheme", sorted(particle.SCHEMES))
def test_resampling_is_unbiased_and_none_is_worse_than_multinomial(claim, scheme):
    rng = np.random.default_rng(1)
    w = rng.dirichlet(np.full(8, 0.5))
    draws = [
        np.bincount(particle.SCHEMES[scheme](w, rng), minlength=8) for _ in range(2000)
    ]
    law = {"oracle": "expected copies N w, in standard errors", "atol": 5.0}
    law |= {"got": standard_errors(draws, 8 * w), "want": np.zeros(8)}
    if scheme == "multinomial":
        claim("particle-multinomial", kind="law", **law)
        assert np.allclose(np.var(draws, axis=0), 8 * w * (1 - w), rtol=0.15, atol=0.02)
    elif scheme == "stratified":
        claim("particle-stratified", kind="law", **law)
    else:
        claim("particle-systematic", kind="law", **law)
        low, high = np.floor(8 * w - 1e-9), np.ceil(8 * w + 1e-9)
        assert (np.min(draws, axis=0) >= low).all()
        assert (np.max(draws, axis=0) <= high).all()
    if scheme != "multinomial":
        assert (np.var(draws, axis=0) <= 8 * w * (1 - w) * 1.15 + 0.02).all()


class Loaded(np.random.Generator):
    """A generator that draws one number always, here the least or the largest."""

    def __init__(self, draw):
        super().__init__(np.random.PCG64(0))
        self.draw = draw

    def random(self, size=None):
        return np.full(size, self.draw) if size is not None else self.draw


@pytest.mark.parametrize("scheme", sorted(particle.SCHEMES))
@pytest.mark.parametrize("draw", [0.0, np.nextafter(1.0, 0.0)])
def test_no_draw_picks_a_particle_of_weight_zero(scheme, draw):
    w = np.array([0.0, 0.3, 0.0, 0.7, 0.0])
    assert set(particle.SCHEMES[scheme](w, Loaded(draw))) <= {1, 3}


# ---------------------------------------------------------------- the filter


@pytest.mark.parametrize("scheme", sorted(particle.SCHEMES))
@pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
def test_evidence_is_unbiased_and_its_logarithm_is_not(claim, scheme, threshold):
    model, x, _ = walk()
    cloud = particle.from_nonlinear(as_nonlinear(model))
    rng = np.random.default_rng(3)
    log_z = np.array(
        [
            particle.particle_filter(
                cloud, x, 10, rng, scheme=scheme, threshold=threshold
            ).log_evidence
            for _ in range(200)
        ]
    )
    want = gaussian_oracle.batch(
        model.mean, model.cov, model.F, model.Q, model.H, model.R, x
    )[2]
    claim(
        "particle-evidence",
        oracle="p(x) as one Gaussian, in standard errors, 200 runs of 10 particles",
        kind="law",
        got=standard_errors(np.exp(log_z - want), 1.0),
        want=0.0,
        atol=5.0,
    )
    assert standard_errors(log_z, want) < -2  # Jensen: too small on average


@pytest.mark.parametrize("seed", range(3))
def test_bootstrap_filter_finds_the_moments(claim, seed):
    """Weighted moments err by about 1/√N: in standard errors over runs."""
    model, x, exact = walk(T=25, seed=seed)
    cloud = particle.from_nonlinear(as_nonlinear(model))
    rng = np.random.default_rng(seed)
    runs = [particle.particle_filter(cloud, x, 3000, rng) for _ in range(20)]
    got = np.array([np.r_[run.mean.ravel(), run.cov.ravel()] for run in runs])
    claim(
        "particle-bootstrap",
        oracle="Kalman filter, in standard errors over 20 runs of 3000 particles",
        kind="law",
        got=standard_errors(got, np.r_[exact.mean.ravel(), exact.cov.ravel()]),
        want=np.zeros(50),
        atol=5.0,
    )


def test_error_falls_as_one_over_root_N():
    model, x, exact = walk(T=20, seed=2)
    cloud = particle.from_nonlinear(as_nonlinear(model))
    rng, sizes, errors = np.random.default_rng(0), [100, 800, 6400], []
    for N in sizes:
        runs = [particle.particle_filter(cloud, x, N, rng).mean for _ in range(40)]
        errors.append(np.sqrt(np.mean((np.array(runs) - exact.mean) ** 2)))
    slope = np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    assert -0.6 < slope < -0.4


def test_growth_model_on_a_grid(claim):
    """Two peaks, strong curvature: no Gaussian filter can do this."""
    model = particle.growth_model()
    rng = np.random.default_rng(4)
    T, z = 8, rng.normal(0, np.sqrt(5), (1, 1))
    x = np.zeros((T, 1))
    for t in range(1, T):
        z = model.f(z, t) + rng.normal(0, np.sqrt(10), (1, 1))
        x[t] = model.h(z, t) + rng.normal(size=(1, 1))
    seen = np.arange(T) > 0
    grid = np.linspace(-40, 40, 801)
    move = np.stack(
        [stats.norm.pdf(grid, model.f(grid[:, None], t), np.sqrt(10)) for t in range(T)]
    )
    like = [None, *(stats.norm.pdf(x[t, 0], grid**2 / 20, 1) for t in range(1, T))]
    first = stats.norm.pdf(grid, 0, np.sqrt(5))
    mean, variance, log_p = oracle.grid_filter(grid, first, move, like)
    cloud = particle.from_nonlinear(model)
    runs = [
        particle.particle_filter(cloud, x, 4000, rng, observed=seen) for _ in range(25)
    ]
    # Ẑ times an estimated moment is unbiased; the moment alone is not, at finite N.
    got = []
    for run in runs:
        z_hat = np.exp(run.log_p.cumsum() - log_p)
        second = run.cov[:, 0, 0] + run.mean[:, 0] ** 2
        got.append(np.r_[z_hat[1:], z_hat * run.mean[:, 0], z_hat * second])
    want = np.r_[np.ones(T - 1), mean, variance + mean**2]
    claim(
        "particle-bootstrap",
        oracle="grid of 801 cells, growth model, in standard errors over 25 runs",
        kind="law",
        got=standard_errors(got, want),
        want=np.zeros(len(want)),
        atol=5.0,
    )


def simulate_growth(rng, T=100):
    model = particle.growth_model()
    z, x = np.zeros((T + 1, 1)), np.zeros((T + 1, 1))
    z[0] = rng.normal(0, np.sqrt(5))
    for t in range(1, T + 1):
        z[t] = model.f(z[t - 1], t) + rng.normal(0, np.sqrt(10))
        x[t] = model.h(z[t], t) + rng.normal()
    return z[:, 0], x


def test_growth_model_as_published(claim):
    """Arulampalam et al. 2002, Table II: RMSE 5.54 of 50 particles, always resampled.

    Theirs is a mean over 100 runs, ours over 50; both have standard errors.
    """
    cloud, mse = particle.from_nonlinear(particle.growth_model()), []
    seen = np.arange(101) > 0
    for seed in range(50):
        rng = np.random.default_rng(seed)
        z, x = simulate_growth(rng)
        run = particle.particle_filter(cloud, x, 50, rng, threshold=1.0, observed=seen)
        mse.append(np.mean((run.mean[1:, 0] - z[1:]) ** 2))
    rmse = np.sqrt(np.mean(mse))
    error = np.std(mse) / (2 * rmse) * np.sqrt(1 / 50 + 1 / 100)
    claim(
        "particle-bootstrap",
        oracle="Arulampalam et al. 2002, Table II: 5.54, in standard errors",
        kind="published",
        got=(rmse - 5.54) / error,
        want=0.0,
        atol=5.0,
    )
    assert 5.2 < rmse < 5.9


def test_missing_observations_carry_no_weight():
    model, x, _ = walk(T=8)
    seen = np.array([1, 1, 0, 0, 1, 1, 0, 1], dtype=bool)
    exact = kalman.kalman_filter(model, x, seen)
    holes = np.where(seen[:, None], x, np.nan)
    cloud = particle.from_nonlinear(as_nonlinear(model))
    rng = np.random.default_rng(0)
    runs = [
        particle.particle_filter(cloud, holes, 2000, rng, observed=seen)
        for _ in range(20)
    ]
    assert runs[0].log_p[~seen] == pytest.approx(0.0, abs=1e-12)
    got = standard_errors([run.mean for run in runs], exact.mean)
    assert np.abs(got).max() < 5


# ---------------------------------------------------------------- guides


def two_dimensional():
    """A curved move, and a linear look at it."""
    H = np.array([[1.0, 0.5]])
    return (
        kalman.Nonlinear(
            [0.2, -0.1],
            np.eye(2),
            lambda z, t: np.sin(z) + 0.1 * t,
            np.array([[0.3, 0.1], [0.1, 0.2]]),
            lambda z, t: z @ H.T,
            np.array([[0.05]]),
        ),
        H,
    )


def test_optimal_weight_is_the_integral_over_the_new_state(claim):
    """log p(xₜ | z₍ₜ₋₁₎) = log ∫ p(xₜ | z) p(z | z₍ₜ₋₁₎) dz, in one dimension."""
    model = kalman.Nonlinear(
        [0.0], [[1.0]], lambda z, t: np.cos(z), [[0.3]], lambda z, t: 2 * z, [[0.1]]
    )
    guide = particle.optimal_guide(model, np.array([[2.0]]))
    old, x = np.array([[-1.0], [0.4], [2.0]]), np.array([0.7])

    def integrand(z, c):
        return stats.norm.pdf(x[0], 2 * z, np.sqrt(0.1)) * stats.norm.pdf(
            z, c, 0.3**0.5
        )

    want = [
        integrate.quad(integrand, -9, 9, (c,), epsabs=1e-13)[0]
        for c in np.cos(old[:, 0])
    ]
    claim(
        "particle-optimal",
        oracle="the integral over the new state, numerically",
        kind="exact",
        got=np.exp(guide.log_weight(x, old, old, 1)),
        want=want,
        atol=1e-9,
    )
    first = integrate.quad(
        lambda z: stats.norm.pdf(x[0], 2 * z, np.sqrt(0.1)) * stats.norm.pdf(z), -9, 9
    )[0]
    assert np.exp(guide.log_weight_first(x, old)) == pytest.approx([first] * 3)


def test_guided_filter_agrees_and_wastes_less(claim):
    model, H = two_dimensional()
    cloud, guide = particle.from_nonlinear(model), particle.optimal_guide(model, H)
    rng = np.random.default_rng(5)
    z = cloud.draw_first(1, rng)
    x = []
    for t in range(12):
        z = z if t == 0 else cloud.draw_next(z, t, rng)
        x.append(model.h(z, t)[0] + rng.normal(0, np.sqrt(0.05), 1))
    x = np.array(x)
    blind = [particle.particle_filter(cloud, x, 400, rng) for _ in range(60)]
    guided = [
        particle.particle_filter(cloud, x, 400, rng, guide=guide) for _ in range(60)
    ]
    # two estimates of one number: their difference in its own standard errors
    z_blind, z_guided = (
        np.exp([run.log_evidence - guided[0].log_evidence for run in runs])
        for runs in (blind, guided)
    )
    error = np.sqrt((z_blind.var() + z_guided.var()) / 60)
    claim(
        "particle-guided",
        oracle="bootstrap filter: Ẑ of 60 runs each, in standard errors",
        kind="law",
        got=(z_blind.mean() - z_guided.mean()) / error,
        want=0.0,
        atol=5.0,
    )
    assert z_guided.std() < 0.5 * z_blind.std()
    assert np.mean([r.ess for r in guided]) > 1.5 * np.mean([r.ess for r in blind])


# ---------------------------------------------------------------- looking back


def test_backward_simulation_smooths(claim):
    model, x, _ = walk(T=20, seed=1)
    cloud = particle.from_nonlinear(as_nonlinear(model))
    rng = np.random.default_rng(2)
    means = []
    for _ in range(25):
        run = particle.particle_filter(cloud, x, 300, rng, keep=True)
        paths = particle.backward_simulate(cloud, run.history, 120, rng)[:, :, 0]
        means.append(
            np.r_[paths.mean(axis=0), (paths[:, 1:] * paths[:, :-1]).mean(axis=0)]
        )
    theta = (model.mean, model.cov, model.F, model.Q, model.H, model.R)
    mean, cov, _ = gaussian_oracle.batch(*theta, x)
    mean, t = mean[:, 0], np.arange(19)
    pairs = cov[t, t + 1, 0, 0] + mean[1:] * mean[:-1]
    claim(
        "particle-backward",
        oracle="smoothed means and neighbours' products of the big Gaussian, in s.e.",
        kind="law",
        got=standard_errors(means, np.r_[mean, pairs]),
        want=np.zeros(39),
        atol=5.0,
    )


def test_genealogy_follows_ancestors_and_coalesces():
    model, x, _ = walk(T=60)
    cloud = particle.from_nonlinear(as_nonlinear(model))
    run = particle.particle_filter(
        cloud, x, 100, np.random.default_rng(0), threshold=1.0, keep=True
    )
    paths = particle.genealogy(run.history)
    np.testing.assert_array_equal(paths[:, -1], run.history.z[-1])
    i = run.history.ancestor[-1, 7]
    np.testing.assert_array_equal(paths[7, -2], run.history.z[-2, i])
    distinct = [len(np.unique(paths[:, t, 0])) for t in range(60)]
    assert distinct[0] < 5 and distinct[-1] == 100
    whole = particle.backward_simulate(
        cloud, run.history, 100, np.random.default_rng(1)
    )
    assert len(np.unique(whole[:, 0, 0])) > 20


# ---------------------------------------------------------------- Rao-Blackwell


SHARES = np.array([0.8, 0.2])
NOISE = np.array([0.2, 9.0])


def artefacts():
    """A random walk seen well, or badly: which one is drawn anew at each step."""
    one = np.eye(1)
    return particle.Conditional(
        np.zeros(1),
        one,
        lambda N, rng: (rng.random(N) < SHARES[1]).astype(float),
        lambda u, t, rng: (rng.random(len(u)) < SHARES[1]).astype(float),
        lambda u, t: (one, 0.3 * one, one, NOISE[u.astype(int)][:, None, None]),
    )


def test_rao_blackwell_is_unbiased_against_every_sequence(claim):
    rng, T = np.random.default_rng(0), 7
    x = np.cumsum(rng.normal(0, 0.5, T)) + rng.normal(size=T)
    x[3] += 6.0

    def log_p(u):
        """One Gaussian for one sequence of noise levels."""
        t = np.arange(T)
        cov = 1.0 + 0.3 * np.minimum.outer(t, t) + np.diag(NOISE[list(u)])
        return stats.multivariate_normal(np.zeros(T), cov).logpdf(x)

    want, share = oracle.switching_evidence(np.tile(SHARES, (T, 1)), log_p)
    runs = [particle.rao_blackwell_filter(artefacts(), x, 40, rng) for _ in range(120)]
    claim(
        "particle-rao-blackwell",
        oracle="sum over all 2**7 sequences of noise levels, in standard errors",
        kind="law",
        got=standard_errors(np.exp([r.log_evidence - want for r in runs]), 1.0),
        want=0.0,
        atol=5.0,
    )
    got = [np.exp(r.log_evidence - want) * r.u_mean[-1, 0] for r in runs]
    assert abs(standard_errors(got, share[1])) < 5


def test_rao_blackwell_with_nothing_to_sample_is_the_kalman_filter(claim):
    model, x, exact = walk(T=10)
    same = particle.Conditional(
        model.mean,
        model.cov,
        lambda N, rng: np.zeros(N),
        lambda u, t, rng: u,
        lambda u, t: (model.F, model.Q, model.H, model.R),
    )
    run = particle.rao_blackwell_filter(same, x, 3, np.random.default_rng(0))
    theta = (model.mean, model.cov, model.F, model.Q, model.H, model.R)
    claim(
        "particle-rao-blackwell",
        oracle="log density of all x as one Gaussian, where u is always the same",
        kind="exact",
        got=run.log_evidence,
        want=gaussian_oracle.batch(*theta, x)[2],
        atol=1e-9,
    )
    np.testing.assert_allclose(run.mean, exact.mean, atol=1e-10)
    np.testing.assert_allclose(run.cov, exact.cov, atol=1e-10)


# ---------------------------------------------------------------- ready-made parts


def test_spike_likelihood_is_scipys(claim):
    rng = np.random.default_rng(0)
    rate = rng.uniform(0.1, 30.0, (5, 4))
    found = particle.spike_likelihood(lambda z: np.log(rate), 0.05)
    x = rng.poisson(1.0, 4).astype(float)
    claim(
        "particle-poisson",
        oracle="scipy.stats.poisson.logpmf",
        kind="library",
        got=found(x, np.zeros((5, 1)), 0),
        want=stats.poisson.logpmf(x, 0.05 * rate).sum(axis=1),
        atol=1e-10,
    )


def test_double_well_moves_as_its_density_says(claim):
    dt, rng = 0.01, np.random.default_rng(0)
    well = particle.double_well(dt)
    z = np.full((200_000, 1), 0.6)
    after = well.draw_next(z, 1, rng)
    want = 0.6 - 4 * 0.6 * (0.36 - 1) * dt
    claim(
        "particle-euler",
        oracle="drift and 2 dt written out, in standard errors of 200,000 draws",
        kind="law",
        got=[
            (after.mean() - want) / np.sqrt(2 * dt / 200_000),
            (after.var() / (2 * dt) - 1) / np.sqrt(2 / 200_000),
        ],
        want=[0.0, 0.0],
        atol=5.0,
    )
    grid = np.linspace(-2, 2, 4001)
    log_p = well.log_transition(grid[:, None, None], np.array([[[0.6]]]), 1)
    claim(
        "particle-euler",
        oracle="scipy.stats.norm",
        kind="library",
        got=log_p[:, 0],
        want=stats.norm.logpdf(grid, want, np.sqrt(2 * dt)),
        atol=1e-9,
    )


def test_double_well_settles_where_its_energy_says():
    """dz = −U′ dt + √2 dW has the density exp(−U), U = (z² − 1)²."""
    rng = np.random.default_rng(1)
    well = particle.double_well(0.005, spread=1.0)
    z = well.draw_first(4000, rng)
    for t in range(1, 1500):
        z = well.draw_next(z, t, rng)
    want = [
        integrate.quad(lambda z, k=k: z**k * np.exp(-((z * z - 1) ** 2)), -4, 4)[0]
        for k in (0, 2)
    ]
    got = z[:, 0] ** 2
    assert abs(got.mean() - want[1] / want[0]) < 5 * got.std() / np.sqrt(4000) + 0.01


def test_same_seed_same_numbers_and_arguments_stay():
    model, x, _ = walk()
    cloud = particle.from_nonlinear(as_nonlinear(model))
    before = x.copy()
    one, two = (
        particle.particle_filter(cloud, x, 50, np.random.default_rng(9), keep=True)
        for _ in range(2)
    )
    np.testing.assert_array_equal(one.history.z, two.history.z)
    np.testing.assert_array_equal(x, before)


# ---------------------------------------------------------------- at the door

MODEL, X, _ = walk()
CURVED = as_nonlinear(MODEL)
CLOUD = particle.from_nonlinear(CURVED)
RNG = np.random.default_rng(0)
RUN = particle.particle_filter(CLOUD, X, 10, RNG, keep=True)
GUIDE = particle.optimal_guide(CURVED, np.eye(1))


def filtered(model=CLOUD, x=X, N=10, rng=RNG, **more):
    return lambda: particle.particle_filter(model, x, N, rng, **more)


def cloud(**parts):
    return replace(CLOUD, **parts)


def mixed(**parts):
    return lambda: particle.rao_blackwell_filter(
        replace(artefacts(), **parts), X, 5, RNG
    )


def weights_of(resample):
    return [
        (lambda: resample([0.5, 0.4], RNG), "^w sums to 0.9"),
        (lambda: resample([1.5, -0.5], RNG), r"^w\[1\] is -0.5|^w\[0\] is 1.5"),
        (lambda: resample([np.nan, 1], RNG), r"^w\[0\] is nan"),
        (lambda: resample([0.5, 0.5], 0), "^rng is 0"),
        (lambda: resample([], RNG), "^w has shape"),
    ]


# Of every public function: bad calls, and what the message must say.
REFUSALS = {
    "normalise": [
        (lambda: particle.normalise([]), "^log_w has shape"),
        (lambda: particle.normalise([0, np.nan]), r"^log_w\[1\] is nan"),
        (lambda: particle.normalise([0, np.inf]), r"^log_w\[1\] is inf"),
        (lambda: particle.normalise([-np.inf] * 2), "^log_w is -inf throughout"),
    ],
    "importance": [
        (lambda: particle.importance([0, 0], [0]), "^log_proposal has shape"),
        (lambda: particle.importance([0], [-np.inf]), r"^log_proposal\[0\] is -inf"),
    ],
    "effective_sample_size": [
        (lambda: particle.effective_sample_size([2.0]), r"^w\[0\] is 2"),
    ],
    "multinomial": weights_of(particle.multinomial),
    "stratified": weights_of(particle.stratified),
    "systematic": weights_of(particle.systematic),
    "StateSpace": [(lambda: cloud(draw_next=3), "^draw_next is 3, wants a function")],
    "Guide": [(lambda: replace(GUIDE, log_weight=None), "^log_weight is None")],
    "particle_filter": [
        (filtered(model=None), "^model is None"),
        (filtered(x=[]), "^x has shape"),
        (filtered(x=[np.nan]), r"^x\[0, 0\] is nan"),
        (filtered(N=0), "^N is 0"),
        (filtered(rng=0), "^rng is 0"),
        (filtered(guide=3), "^guide is 3"),
        (filtered(scheme="branching"), "^scheme is 'branching', wants one of"),
        (filtered(threshold=1.5), "^threshold is 1.5"),
        (filtered(observed=[True]), "^observed has shape"),
        (
            filtered(cloud(draw_first=lambda N, rng: np.zeros(N))),
            r"^what draw_first returns has shape \(10,\)",
        ),
        (
            filtered(cloud(draw_next=lambda z, t, rng: z * np.nan)),
            "^what draw_next returns.*is nan",
        ),
        (
            filtered(cloud(log_likelihood=lambda x, z, t: z)),
            "^what log_likelihood returns has shape",
        ),
        (
            filtered(cloud(log_likelihood=lambda x, z, t: z[:, 0] * np.nan)),
            "^what log_likelihood returns.*is nan",
        ),
        (
            filtered(cloud(log_likelihood=lambda x, z, t: np.full(len(z), -np.inf))),
            r"^x\[0\] cannot be explained by any particle",
        ),
        (
            filtered(cloud(log_likelihood=lambda x, z, t: np.full(len(z), np.inf))),
            r"^model gives x\[0\] a log likelihood of inf",
        ),
    ],
    "genealogy": [(lambda: particle.genealogy(RUN), "^history is")],
    "backward_simulate": [
        (
            lambda: particle.backward_simulate(
                cloud(log_transition=None), RUN.history, 3, RNG
            ),
            "^model has no log_transition",
        ),
        (lambda: particle.backward_simulate(CLOUD, None, 3, RNG), "^history is None"),
        (lambda: particle.backward_simulate(CLOUD, RUN.history, 0, RNG), "^n is 0"),
        (
            lambda: particle.backward_simulate(
                cloud(log_transition=lambda a, z, t: np.zeros(3)), RUN.history, 3, RNG
            ),
            "^what log_transition returns has shape",
        ),
        (
            lambda: particle.backward_simulate(
                cloud(log_transition=lambda a, z, t: np.full((3, 10), -np.inf)),
                RUN.history,
                3,
                RNG,
            ),
            "^model leads from no particle",
        ),
    ],
    "Conditional": [
        (lambda: replace(artefacts(), parts=1), "^parts is 1"),
        (lambda: replace(artefacts(), cov=[[-1.0]]), "^cov"),
    ],
    "rao_blackwell_filter": [
        (lambda: particle.rao_blackwell_filter(CLOUD, X, 5, RNG), "^model is"),
        (mixed(parts=lambda u, t: 3), "^model.parts returns 3"),
        (
            mixed(parts=lambda u, t: (np.eye(2),) * 4),
            r"^model.parts returns F of shape \(2, 2\)",
        ),
        (
            mixed(parts=lambda u, t: (np.eye(1), np.eye(1), np.eye(1), -9 * np.eye(1))),
            "^model.parts leave x a covariance",
        ),
    ],
    "from_nonlinear": [
        (lambda: particle.from_nonlinear(MODEL), "^model is"),
        (
            lambda: particle.from_nonlinear(replace(CURVED, Q=[[0.0]])),
            "^Q has an eigenvalue",
        ),
    ],
    "optimal_guide": [
        (lambda: particle.optimal_guide(CURVED, np.eye(2)), "^H has shape"),
    ],
    "double_well": [
        (lambda: particle.double_well(0.0), "^dt is 0"),
        (lambda: particle.double_well(1.0), "^dt is 1"),
    ],
    "spike_likelihood": [
        (lambda: particle.spike_likelihood(None, 0.1), "^log_rate is None"),
        (lambda: particle.spike_likelihood(len, 0.0), "^dt is 0"),
    ],
}
NO_ARGUMENTS = {"growth_model"}
RECORDS = {"Run", "History", "MixtureRun"}


def test_every_public_function_is_in_the_table():
    found = {
        name
        for name, it in vars(particle).items()
        if (inspect.isfunction(it) or inspect.isclass(it))
        and it.__module__ == particle.__name__
        and not name.startswith("_")
    }
    assert found == set(REFUSALS) | RECORDS | NO_ARGUMENTS


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
