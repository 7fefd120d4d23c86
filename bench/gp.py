"""Gaussian processes: learning's inner loop beside scikit-learn, and linear time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from bench.harness import Workload
from sklearn.gaussian_process import (  # type: ignore[import-untyped]
    GaussianProcessRegressor,
)
from sklearn.gaussian_process.kernels import (  # type: ignore[import-untyped]
    RBF,
    ConstantKernel,
    Matern,
    WhiteKernel,
)

from mlfs import gp
from mlfs.core.numerics import Array

LIBRARIES = ("numpy", "scipy", "scikit-learn")
NOISE = 0.3
SMALL = 2_000  # points at which the dense form is compared with the walk in time
LONG = 100_000

Result = tuple[float, Array]


def workloads() -> Iterator[Workload]:
    """Log evidence and gradient, three inputs; one length for all, or one for each."""
    for n, rounds in ((500, 40), (2_000, 9)):
        X, y = problem(n)
        for lengths, words in ((np.ones(3), "a length each"), (np.ones(1), "one")):
            ours = gp.SquaredExponential(1.0, lengths if len(lengths) > 1 else 1.0)
            peer = regressor(X, y, RBF(lengths if len(lengths) > 1 else 1.0))
            yield Workload(
                f"n = {n:,}, d = 3, lengths: {words}; log evidence and gradient",
                partial(gp.value_and_gradient, ours, NOISE, X, y),
                "scikit-learn",
                partial(evidence, peer),
                same,
                1 / 3,
                rounds,
            )
    t, y = series(SMALL)
    yield Workload(
        f"Matérn 3/2 in time, n = {SMALL:,}; log evidence, mean, variance",
        partial(walk, t, y),
        "scikit-learn",
        partial(dense, t, y),
        same_walk,
        None,
        5,
    )
    t, y = series(LONG)
    yield Workload(
        f"Matérn 3/2 in time, n = {LONG:,}; the peer is dense, n = {SMALL:,}",
        partial(walk, t, y),
        "scikit-learn",
        partial(dense, *series(SMALL)),
        in_time,
        None,
        3,
    )


def problem(n: int) -> tuple[Array, Array]:
    """Points (n, 3), and a sum of sines with noise, (n,)."""
    rng = np.random.default_rng(n)
    X = rng.normal(size=(n, 3))
    return X, np.sin(X).sum(axis=1) + NOISE * rng.standard_normal(n)


def series(n: int) -> tuple[Array, Array]:
    """Sorted times (n,), and a sine with noise."""
    rng = np.random.default_rng(n)
    t = np.sort(rng.uniform(0, n / 50, n))
    return t, np.sin(t) + NOISE * rng.standard_normal(n)


def regressor(X: Array, y: Array, kernel: Any) -> Any:
    """scikit-learn's regression with scale, these lengths and noise to learn."""
    full = ConstantKernel(1.0) * kernel + WhiteKernel(NOISE**2)
    return GaussianProcessRegressor(full, alpha=0.0, optimizer=None).fit(X, y)


def evidence(peer: Any) -> Result:
    """Log evidence and gradient, with the scale and the noise as variances."""
    value, slope = peer.log_marginal_likelihood(
        peer.kernel_.theta, eval_gradient=True, clone_kernel=False
    )
    slope = slope.copy()
    slope[[0, -1]] *= 2  # by the logs of standard deviations, as ours
    return float(value), slope


def walk(t: Array, y: Array) -> tuple[float, Array, Array]:
    """Log evidence, mean and variance of f at all times, in linear time."""
    found = gp.smooth(gp.Matern(1.0, 1.5, 1.5), NOISE, t, y)
    return found.log_evidence, found.mean, found.var


def dense(t: Array, y: Array) -> tuple[float, Array, Array]:
    """The same from the n × n matrix."""
    kernel = ConstantKernel(1.0) * Matern(1.5, nu=1.5)
    model = GaussianProcessRegressor(kernel, alpha=NOISE**2, optimizer=None)
    model.fit(t[:, None], y)
    mean, sd = model.predict(t[:, None], return_std=True)
    return float(model.log_marginal_likelihood_value_), mean, sd**2


def same(ours: Result, theirs: Result) -> None:
    """Values agree to 1e-9 of their size, gradients to 1e-7 of the largest slope.

    Raises:
        AssertionError: they do not.
    """
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-9)
    size = np.abs(theirs[1]).max()
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-7 * size)


def same_walk(
    ours: tuple[float, Array, Array], theirs: tuple[float, Array, Array]
) -> None:
    """The log evidence agrees to 1e-9 of its size, mean and variance to 1e-7.

    Raises:
        AssertionError: they do not.
    """
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-9)
    for mine, other in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-7)


def in_time(ours: tuple[float, Array, Array], _: Any) -> None:
    """The long series is followed: no matrix of its size could be built to compare.

    Raises:
        AssertionError: the mean is no better than the data.
    """
    t, _ = series(LONG)
    assert np.sqrt(np.mean((ours[1] - np.sin(t)) ** 2)) < NOISE / 2
