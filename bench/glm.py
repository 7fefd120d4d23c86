"""Generalized linear models side by side with statsmodels and scikit-learn."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial

import numpy as np
from bench.harness import Workload

from mlfs import glm
from mlfs.core.numerics import Array

with warnings.catch_warnings():  # the libraries' own imports, not ours
    warnings.simplefilter("ignore")
    import statsmodels.api as sm  # type: ignore[import-untyped]
    from scipy.sparse import csr_array
    from sklearn.linear_model import PoissonRegressor

LIBRARIES = ("numpy", "scipy", "statsmodels", "scikit-learn")
RIDGE = 1.0  # on the mouse's weights


def workloads() -> Iterator[Workload]:
    """Poisson regression on a dense matrix, and the mouse's 429 one-hot weights."""
    X, y = dense_problem()
    size = "Poisson, 50,000 x 50"
    ours = partial(fit_dense, X, y)
    yield Workload(
        f"{size}: fit and covariance",
        ours,
        "statsmodels, GLM",
        partial(statsmodels_fit, X, y),
        same_weights,
        0.2,
        15,
    )
    for solver, target in (("newton-cholesky", 1.0), ("lbfgs", None)):
        yield Workload(
            f"{size}: fit",
            ours,
            f"scikit-learn, {solver}",
            partial(scikit_fit, X, y, solver),
            same_weights,
            target,
            15,
        )
    design, spikes = mouse_problem()
    yield Workload(
        "mouse, 429 one-hot weights, 120,000 bins: fit and covariance",
        partial(fit_mouse, design, spikes),
        "scikit-learn, lbfgs on a sparse matrix",
        partial(scikit_mouse, sparse(design), spikes),
        same_means,
        None,
        5,
    )


def dense_problem() -> tuple[Array, Array]:
    """A constant and 49 Gaussian features, and counts with a mean of about one."""
    rng = np.random.default_rng(0)
    X = np.column_stack([np.ones(50_000), rng.standard_normal((50_000, 49))])
    y = rng.poisson(np.exp(X @ (0.1 * rng.standard_normal(50)))).astype(float)
    return X, y


def mouse_problem() -> tuple[glm.OneHot, Array]:
    """40 minutes of the mouse of the chapter, in bins of 20 ms."""
    rng = np.random.default_rng(5)
    mouse = glm.simulate_mouse(120_000, 0.02, rng)
    place = 20 * glm.bin_index(mouse.y, 0, 50, 20) + glm.bin_index(mouse.x, 0, 50, 20)
    heading = glm.bin_index(mouse.heading, 0, 2 * np.pi, 18)
    speed = glm.bin_index(mouse.speed, 0, 40, 10)
    design = glm.OneHot(np.stack([place, heading, speed], axis=1), (400, 18, 10))
    rate = 3.0 * np.exp(
        np.cos(mouse.x / 8) * np.cos(mouse.y / 8) + np.cos(mouse.heading)
    )
    return design, rng.poisson(0.02 * rate).astype(float)


def sparse(design: glm.OneHot) -> csr_array:
    """The one-hot columns without the constant, as scikit-learn takes them."""
    T, D = design.shape
    starts = np.array([design.columns(b).start - 1 for b in range(len(design.sizes))])
    columns = (design.index + starts).ravel()
    rows = np.repeat(np.arange(T), len(design.sizes))
    return csr_array((np.ones(len(rows)), (rows, columns)), shape=(T, D - 1))


def fit_dense(X: Array, y: Array) -> Array:
    """Weights, ours."""
    return glm.fit(X, y).w


def statsmodels_fit(X: Array, y: Array) -> Array:
    """Weights, statsmodels's; its covariance is computed along."""
    found: Array = sm.GLM(y, X, family=sm.families.Poisson()).fit(tol=1e-10).params
    return found


def scikit_fit(X: Array, y: Array, solver: str) -> Array:
    """Weights, scikit-learn's, without its default penalty."""
    model = PoissonRegressor(alpha=0.0, solver=solver, tol=1e-7, max_iter=1000)
    model.fit(X[:, 1:], y)
    return np.append(model.intercept_, model.coef_)


def fit_mouse(design: glm.OneHot, spikes: Array) -> Array:
    """Mean counts, ours, with a ridge on all weights but the constant."""
    few, counts, seconds = glm.collapse(design, spikes, np.ones(len(spikes)))
    penalty = RIDGE * np.diag(np.r_[0.0, np.ones(design.shape[1] - 1)])
    found = glm.fit(few, counts, offset=np.log(seconds), penalty=penalty)
    return glm.predict(found.w, design)


def scikit_mouse(X: csr_array, spikes: Array) -> Array:
    """Mean counts, scikit-learn's, with the same ridge."""
    alpha = RIDGE / len(spikes)
    model = PoissonRegressor(alpha=alpha, solver="lbfgs", tol=1e-8, max_iter=3000)
    found: Array = model.fit(X, spikes).predict(X)
    return found


def same_weights(ours: Array, theirs: Array) -> None:
    """The weights agree to 1e-4; with 50,000 counts their errors are about 5e-3.

    Raises:
        AssertionError: they do not.
    """
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def same_means(ours: Array, theirs: Array) -> None:
    """The means agree to 1 part in 1000.

    Raises:
        AssertionError: they do not.
    """
    np.testing.assert_allclose(ours, theirs, rtol=1e-3)
