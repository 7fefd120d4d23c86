"""Kalman filter and smoother, and the bootstrap filter, beside their peers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
from bench.harness import Workload

from mlfs import kalman, particle
from mlfs.core.numerics import Array

LIBRARIES = ("numpy", "scipy", "filterpy", "pykalman", "statsmodels", "particles")
N, STEPS = 1000, 500  # particles and their time steps
Moments = tuple[Array, Array]


def workloads() -> Iterator[Workload]:
    """Filter and smoother, n = 4, D = 2, T = 5,000; then 1000 particles."""
    model, x = problem()
    peers: dict[str, tuple[Callable[..., Moments], float | None, int]] = {
        "filterpy": (filterpy_smoother, 0.2, 7),
        "pykalman": (pykalman_smoother, 0.05, 3),
        "statsmodels": (statsmodels_smoother, None, 15),
    }
    for name, (peer, target, rounds) in peers.items():
        if find_spec(name):
            yield Workload(
                "Kalman filter and smoother, n = 4, D = 2, T = 5,000",
                partial(our_smoother, model, x),
                name,
                partial(peer, model, x),
                same_moments,
                target,
                rounds,
            )
    seen = walk()
    others: dict[str, tuple[Callable[..., Array], float]] = {
        "filterpy": (filterpy_bootstrap, 1 / 3),
        "particles": (particles_bootstrap, 0.5),
    }
    for name, (bootstrap, target) in others.items():
        if find_spec(name):
            yield Workload(
                f"bootstrap filter, {N:,} particles, T = {STEPS}",
                partial(our_bootstrap, seen),
                name,
                partial(bootstrap, seen),
                partial(near_exact, exact(seen)),
                target,
                15,
            )


def problem() -> tuple[kalman.LinearGaussian, Array]:
    """Two tracked coordinates with velocities, seen as two mixtures."""
    rng = np.random.default_rng(0)
    model = kalman.LinearGaussian(
        np.zeros(4),
        np.eye(4),
        np.kron(np.eye(2), [[1.0, 0.1], [0.0, 0.9]]),
        0.05 * np.eye(4),
        rng.normal(size=(2, 4)),
        0.5 * np.eye(2),
    )
    return model, kalman.simulate(model, 5000, rng)[1]


def our_smoother(model: kalman.LinearGaussian, x: Array) -> Moments:
    """Smoothed means and covariances, ours."""
    found = kalman.smooth(model, x)
    return found.mean, found.cov


def filterpy_smoother(model: kalman.LinearGaussian, x: Array) -> Moments:
    """The same by filterpy, which predicts before the first observation."""
    from filterpy.kalman import KalmanFilter

    same = KalmanFilter(dim_x=4, dim_z=2)
    # A start from which one prediction leads to ours.
    back = np.linalg.solve(model.F, model.cov - model.Q)
    same.x, same.P = np.zeros(4), np.linalg.solve(model.F, back.T).T
    same.F, same.Q, same.H, same.R = model.F, model.Q, model.H, model.R
    mean, cov, _, _ = same.batch_filter(x)
    found = same.rts_smoother(mean, cov)
    return found[0], found[1]


def pykalman_smoother(model: kalman.LinearGaussian, x: Array) -> Moments:
    """The same by pykalman."""
    from pykalman import KalmanFilter

    same = KalmanFilter(
        transition_matrices=model.F,
        observation_matrices=model.H,
        transition_covariance=model.Q,
        observation_covariance=model.R,
        initial_state_mean=model.mean,
        initial_state_covariance=model.cov,
    )
    mean, cov = same.smooth(x)
    return np.asarray(mean), np.asarray(cov)


def statsmodels_smoother(model: kalman.LinearGaussian, x: Array) -> Moments:
    """The same by statsmodels, whose loops are compiled."""
    from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

    same = KalmanSmoother(k_endog=2, k_states=4, k_posdef=4)
    same.bind(np.asfortranarray(x.T))
    same["design"], same["obs_cov"] = model.H, model.R
    same["transition"], same["selection"] = model.F, np.eye(4)
    same["state_cov"] = model.Q
    same.initialize_known(model.mean, model.cov)
    found = same.smooth()
    return found.smoothed_state.T, found.smoothed_state_cov.transpose(2, 0, 1)


def same_moments(ours: Moments, theirs: Moments) -> None:
    """Means and covariances agree to 1e-8.

    Raises:
        AssertionError: they do not.
    """
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-8)


WALK = kalman.LinearGaussian([0.0], [[1.0]], [[0.95]], [[0.3]], [[1.0]], [[0.5]])


def walk() -> Array:
    """Observations of one number that wanders."""
    return kalman.simulate(WALK, STEPS, np.random.default_rng(0))[1][:, 0]


def exact(x: Array) -> Array:
    """What every filter should find."""
    return kalman.kalman_filter(WALK, x).mean[:, 0]


def our_bootstrap(x: Array) -> Array:
    """Filtered means by our particles, resampled below N / 2."""
    rng, sd = np.random.default_rng(1), np.sqrt(0.3)
    log_root = 0.5 * np.log(np.pi)
    model = particle.StateSpace(
        lambda N, rng: rng.standard_normal((N, 1)),
        lambda z, t, rng: 0.95 * z + sd * rng.standard_normal(z.shape),
        lambda x, z, t: -((x[0] - z[:, 0]) ** 2) - log_root,
    )
    return particle.particle_filter(model, x, N, rng).mean[:, 0]


def filterpy_bootstrap(x: Array) -> Array:
    """The loop of filterpy's book around filterpy's resampling, as it is taught."""
    from filterpy.monte_carlo import systematic_resample

    rng, sd = np.random.default_rng(1), np.sqrt(0.3)
    z, w = rng.standard_normal(N), np.full(N, 1.0 / N)
    means = np.empty(len(x))
    for t in range(len(x)):
        if t > 0:
            z = 0.95 * z + sd * rng.standard_normal(N)
        w *= np.exp(-((x[t] - z) ** 2)) / np.sqrt(np.pi)
        w += 1e-300  # avoids a sum of zero, says the book
        w /= w.sum()
        means[t] = np.average(z, weights=w)
        np.average((z - means[t]) ** 2, weights=w)
        if 1.0 / np.sum(w**2) < N / 2:
            z, w = z[systematic_resample(w)], np.full(N, 1.0 / N)
    return means


def particles_bootstrap(x: Array) -> Array:
    """The same filter by the package particles."""
    import particles
    from particles import collectors, distributions, state_space_models

    class Walk(state_space_models.StateSpaceModel):  # type: ignore[misc]
        def PX0(self) -> Any:
            return distributions.Normal(loc=0.0, scale=1.0)

        def PX(self, t: int, xp: Array) -> Any:
            return distributions.Normal(loc=0.95 * xp, scale=np.sqrt(0.3))

        def PY(self, t: int, xp: Array, x: Array) -> Any:
            return distributions.Normal(loc=x, scale=np.sqrt(0.5))

    run = particles.SMC(
        fk=state_space_models.Bootstrap(ssm=Walk(), data=x),
        N=N,
        resampling="systematic",
        ESSrmin=0.5,
        collect=[collectors.Moments()],
    )
    run.run()
    return np.array([moments["mean"] for moments in run.summaries.moments])


def near_exact(want: Array, ours: Array, theirs: Array) -> None:
    """Both lie within Monte Carlo error of the Kalman filter, and alike.

    Raises:
        AssertionError: one does not.
    """
    for found in (ours, theirs):
        assert np.sqrt(np.mean((found - want) ** 2)) < 3.0 / np.sqrt(N)
