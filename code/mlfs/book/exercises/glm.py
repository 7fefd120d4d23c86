"""The coding evening of the chapter on generalized linear models.

Chapter: book/generalized-linear-models/coding.md.  Symbols as in `mlfs.glm`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.special import gammaln

from mlfs import glm
from mlfs.book.exercise import Case, Exercise, Law, Mistake
from mlfs.core.numerics import Array, BoolArray, IntArray

Rng = np.random.Generator
Tuning = tuple[Array, Array, Array]


# ------------------------------------------------------------ cases


def _bin_cases(rng: Rng) -> Iterator[Case]:
    x = np.array([0.0, 0.24, 0.26, 0.5, 0.99, 1.0])
    yield Case(
        {"x": x, "low": 0.0, "high": 1.0, "n": 4}, "four bins, both ends of the range"
    )
    x = rng.uniform(-3.0, 5.0, 12)
    yield Case({"x": x, "low": -3.0, "high": 5.0, "n": 7}, "seven bins from -3 to 5")
    yield Case(
        {"x": rng.uniform(0, 50, 30), "low": 0.0, "high": 50.0, "n": 20}, "a box of 50"
    )


def _problem(rng: Rng, T: int, D: int, dt: float) -> dict[str, Any]:
    """Features with a constant, weights in log spikes/s, and counts."""
    X = np.column_stack([np.ones(T), rng.normal(size=(T, D - 1))])
    w = np.append(np.log(0.8 / dt), rng.normal(scale=0.4, size=D - 1))
    y = rng.poisson(dt * np.exp(X @ w)).astype(float)
    y[0] += 2.0  # more than one spike, so that log y! is not zero throughout
    return {"w": w + rng.normal(scale=0.1, size=D), "X": X, "y": y, "dt": dt}


def _problem_cases(rng: Rng) -> Iterator[Case]:
    yield Case(_problem(rng, 6, 2, 0.5), "six bins of half a second, two features")
    yield Case(_problem(rng, 40, 3, 0.02), "bins of 20 ms, three features")
    yield Case(_problem(rng, 200, 4, 0.1), "bins of 100 ms, four features")


def _grid_cases(rng: Rng) -> Iterator[Case]:
    yield Case({"n_rows": 3, "n_columns": 3}, "three by three")
    yield Case({"n_rows": 2, "n_columns": 5}, "two rows, five columns")
    yield Case({"n_rows": 4, "n_columns": 3}, "four rows, three columns")


def _deviance_cases(rng: Rng) -> Iterator[Case]:
    yield Case(
        {"y": np.array([1.0, 2.0, 3.0]), "mu": np.array([1.5, 2.0, 2.0])}, "no zeros"
    )
    mu = rng.uniform(0.02, 2.0, 50)
    yield Case({"y": rng.poisson(mu).astype(float), "mu": mu}, "many bins are empty")


def _history_cases(rng: Rng) -> Iterator[Case]:
    one = np.zeros(10)
    one[3] = 1.0
    yield Case(
        {"y": one, "basis": np.array([[3.0], [2.0], [1.0]])}, "one spike, one bump"
    )
    basis = glm.raised_cosines(12, 3, 2.0)
    y = rng.poisson(0.3, 60).astype(float)
    y[-1] = 1.0
    yield Case({"y": y, "basis": basis}, "sixty bins, three bumps")
    yield Case(
        {"y": y[:8], "basis": basis}, "a recording that is shorter than the filter"
    )


def _clock_cases(rng: Rng) -> Iterator[Case]:
    for T, level, note in ((12, 0.4, "twelve bins"), (300, 0.15, "three hundred bins")):
        mu = rng.uniform(0.5, 1.5, T) * level
        y = rng.poisson(mu).astype(np.intp)  # as np.repeat wants it, in the browser too
        y[2], y[T - 2] = 2, 1
        place = rng.random(int(y.sum()))
        yield Case({"y": y, "mu": mu, "place": place}, note)


# The truth about each cell of the hard mode, by the spikes that it fired.
_TRUTH: dict[str, Tuning] = {}
# How far the log tuning may be from the truth, root mean square over bins.
ACCURACY = (0.15, 0.1, 0.1)


def unknown_cell(rng: Rng) -> dict[str, Any]:
    """A run of 30 minutes and the spikes of a cell with tuning that `rng` chooses."""
    dt, mouse = 0.02, glm.simulate_mouse(90_000, 0.02, rng)
    field_x, field_y = rng.uniform(10, 40, 2)
    width, likes, slope = (
        rng.uniform(7, 10),
        rng.uniform(0, 2 * np.pi),
        rng.uniform(1, 2),
    )

    def place(x: Array, y: Array) -> Array:
        near = np.exp(-((x - field_x) ** 2 + (y - field_y) ** 2) / (2 * width**2))
        out: Array = 1.5 * near
        return out

    def heading(h: Any) -> Array:
        return np.asarray(0.7 * np.cos(h - likes), dtype=float)

    def speed(s: Any) -> Array:
        return np.asarray(slope * s / (s + 15.0), dtype=float)

    eta = place(mouse.x, mouse.y) + heading(mouse.heading) + speed(mouse.speed)
    rate = 4.0 * np.exp(eta) / np.exp(eta).mean()  # 4 spikes a second on average
    spikes = rng.poisson(dt * rate)
    at = (np.arange(20) + 0.5) * 2.5
    true = (
        place(*np.meshgrid(at, at)),
        heading((np.arange(18) + 0.5) * np.pi / 9),
        speed((np.arange(10) + 0.5) * 4.0),
    )
    p, h, s = (part - part.mean() for part in true)
    _TRUTH[_key(spikes)] = p, h, s
    return {
        "x": mouse.x,
        "y": mouse.y,
        "heading": mouse.heading,
        "speed": mouse.speed,
        "spikes": spikes,
        "dt": dt,
    }


def _key(spikes: IntArray) -> str:
    return hashlib.sha256(np.asarray(spikes, dtype=np.int64).tobytes()).hexdigest()


# Three mice take seconds to simulate: the cases, by the state of `rng` they start from.
_CELLS: dict[str, tuple[Case, ...]] = {}


def _cell_cases(rng: Rng) -> tuple[Case, ...]:
    start = str(rng.bit_generator.state)
    if start not in _CELLS:
        _CELLS[start] = tuple(
            Case(unknown_cell(rng), f"unknown cell {i + 1}") for i in range(3)
        )
    return _CELLS[start]


# ------------------------------------------------------------ what is asked


def one_hot(x: Array, low: float, high: float, n: int) -> Array:
    """One column for each of n equal bins of [low, high], (T, n); `high` is in it.

    Row t has a 1 in the bin of x[t] and 0 elsewhere.
    """
    index = np.floor((x - low) / (high - low) * n).astype(int)
    index = np.minimum(index, n - 1)  # x = high: the last bin is closed on both sides
    out: Array = np.eye(n)[index]
    return out


def log_likelihood(w: Array, X: Array, y: Array, dt: float) -> float:
    """Σ log p(yₜ) of Poisson counts with mean dt · exp(xₜᵀ w), in nats."""
    eta = np.log(dt) + X @ w
    return float(np.sum(y * eta - np.exp(eta) - gammaln(y + 1)))


def gradient(w: Array, X: Array, y: Array, dt: float) -> Array:
    """Xᵀ (y − μ), the derivative of `log_likelihood` in w, (D,)."""
    mu = dt * np.exp(X @ w)
    out: Array = X.T @ (y - mu)
    return out


def irls_step(w: Array, X: Array, y: Array, dt: float) -> Array:
    """The new weights: regress the working response on X with weights μ, (D,)."""
    mu = dt * np.exp(X @ w)
    z = X @ w + (y - mu) / mu
    return np.asarray(
        np.linalg.solve(X.T @ (mu[:, None] * X), X.T @ (mu * z)), dtype=float
    )


def smoothness_grid(n_rows: int, n_columns: int) -> Array:
    """P with wᵀ P w = Σ of squared differences of neighbours on a grid, row by row."""

    def line(n: int) -> Array:
        D = np.diff(np.eye(n), axis=0)
        out: Array = D.T @ D
        return out

    down = np.kron(line(n_rows), np.eye(n_columns))
    out: Array = down + np.kron(np.eye(n_rows), line(n_columns))
    return out


def deviance(y: Array, mu: Array) -> float:
    """2 Σ (y log(y/μ) − y + μ) of counts y with means μ, where 0 log 0 = 0."""
    log_ratio = np.log(np.where(y > 0, y, 1.0)) - np.log(mu)
    return float(2 * np.sum(y * log_ratio - y + mu))


def history(y: Array, basis: Array) -> Array:
    """Past spikes through each bump: Σ_l basis[l, j] y[t − 1 − l], (T, J)."""
    T, out = len(y), np.zeros((len(y), basis.shape[1]))
    for lag in range(min(len(basis), T - 1)):
        out[lag + 1 :] += y[: T - lag - 1, None] * basis[lag]
    return out


def rescaled(y: IntArray, mu: Array, place: Array) -> Array:
    """u = 1 − exp(−Λ since the last spike), one for each spike of y (T,)."""
    at = np.repeat(np.arange(len(y)), y.astype(np.intp))  # 32 bits in the browser
    clock = np.cumsum(mu)[at] - mu[at] + place * mu[at]
    out: Array = 1 - np.exp(-np.diff(np.sort(clock), prepend=0.0))
    return out


def deviance_explained(w: Array, X: Array, y: Array, dt: float) -> float:
    """1 − deviance of the model / deviance of a constant rate."""
    mu = dt * np.exp(X @ w)
    return 1 - deviance(y, mu) / deviance(y, np.full(len(y), y.mean()))


def tuning(
    x: Array, y: Array, heading: Array, speed: Array, spikes: IntArray, dt: float
) -> Tuning:
    """Log tuning to position (20, 20), heading (18,), speed (10,), each of mean 0."""
    return _fitted(x, y, heading, speed, spikes, dt, 10.0)


def _fitted(
    x: Array,
    y: Array,
    heading: Array,
    speed: Array,
    spikes: IntArray,
    dt: float,
    beta: float,
) -> Tuning:
    place = 20 * glm.bin_index(y, 0, 50, 20) + glm.bin_index(x, 0, 50, 20)
    turned, fast = (
        glm.bin_index(heading, 0, 2 * np.pi, 18),
        glm.bin_index(speed, 0, 40, 10),
    )
    design = glm.OneHot(np.stack([place, turned, fast], axis=1), (400, 18, 10))
    rough = glm.join(
        [
            np.zeros((1, 1)),
            glm.smoothness_grid(20, 20),
            glm.smoothness(18, circular=True),
            glm.smoothness(10),
        ]
    )
    seconds = np.full(len(spikes), dt)
    design, counts, seconds = glm.collapse(design, spikes.astype(float), seconds)
    penalty = beta * rough + glm.gauge(design.sizes)
    w = glm.fit(design, counts, offset=np.log(seconds), penalty=penalty).w
    p, h, s = (w[design.columns(b)] for b in range(3))
    return p.reshape(20, 20), h, s


# ------------------------------------------------------------ plausible mistakes


def _rounded(x: Array, low: float, high: float, n: int) -> Array:
    index = np.round((x - low) / (high - low) * (n - 1)).astype(int)
    out: Array = np.eye(n)[index]
    return out


def _last_edge_lost(x: Array, low: float, high: float, n: int) -> Array:
    index = np.floor((x - low) / (high - low) * n).astype(int)
    out: Array = (index[:, None] == np.arange(n)).astype(float)
    return out


def _last_edge_raises(x: Array, low: float, high: float, n: int) -> Array:
    index = np.floor((x - low) / (high - low) * n).astype(int)
    out: Array = np.eye(n)[index]
    return out


def _n_edges(x: Array, low: float, high: float, n: int) -> Array:
    index = np.digitize(x, np.linspace(low, high, n)) - 1
    out: Array = np.eye(n)[index]
    return out


def _low_forgotten(x: Array, low: float, high: float, n: int) -> Array:
    index = np.minimum(np.floor(x / (high - low) * n).astype(int), n - 1)
    out: Array = np.eye(n)[index]
    return out


def _integers(x: Array, low: float, high: float, n: int) -> IntArray:
    return one_hot(x, low, high, n).astype(np.int64)


def _booleans(x: Array, low: float, high: float, n: int) -> BoolArray:
    return one_hot(x, low, high, n).astype(bool)


def _one_too_far(x: Array, low: float, high: float, n: int) -> Array:
    index = np.digitize(x, np.linspace(low, high, n + 1))
    out: Array = (index[:, None] == np.arange(n)).astype(float)
    return out


def _columns_for_rows(x: Array, low: float, high: float, n: int) -> Array:
    return one_hot(x, low, high, n).T


def _likelihood(w: Array, X: Array, y: Array, log_mu: Array, mu: Array) -> float:
    return float(np.sum(y * log_mu - mu - gammaln(y + 1)))


def _log_without_dt(w: Array, X: Array, y: Array, dt: float) -> float:
    return _likelihood(w, X, y, X @ w, dt * np.exp(X @ w))


def _no_dt(w: Array, X: Array, y: Array, dt: float) -> float:
    return _likelihood(w, X, y, X @ w, np.exp(X @ w))


def _no_factorial(w: Array, X: Array, y: Array, dt: float) -> float:
    return log_likelihood(w, X, y, dt) + float(gammaln(y + 1).sum())


def _factorial_of_one_less(w: Array, X: Array, y: Array, dt: float) -> float:
    eta = np.log(dt) + X @ w
    return float(np.sum(y * eta - np.exp(eta) - gammaln(y)))


def _mean_likelihood(w: Array, X: Array, y: Array, dt: float) -> float:
    return log_likelihood(w, X, y, dt) / len(y)


def _negative_likelihood(w: Array, X: Array, y: Array, dt: float) -> float:
    return -log_likelihood(w, X, y, dt)


def _gradient_no_dt(w: Array, X: Array, y: Array, dt: float) -> Array:
    return gradient(w, X, y, 1.0)


def _gradient_downhill(w: Array, X: Array, y: Array, dt: float) -> Array:
    return -gradient(w, X, y, dt)


def _gradient_mean(w: Array, X: Array, y: Array, dt: float) -> Array:
    return gradient(w, X, y, dt) / len(y)


def _gradient_of_rates(w: Array, X: Array, y: Array, dt: float) -> Array:
    out: Array = X.T @ (y / dt - np.exp(X @ w))
    return out


def _gradient_extra_dt(w: Array, X: Array, y: Array, dt: float) -> Array:
    return dt * gradient(w, X, y, dt)


def _step_no_dt(w: Array, X: Array, y: Array, dt: float) -> Array:
    return irls_step(w, X, y, 1.0)


def _step_offset_kept(w: Array, X: Array, y: Array, dt: float) -> Array:
    mu = dt * np.exp(X @ w)
    z = np.log(mu) + (y - mu) / mu
    return np.asarray(
        np.linalg.solve(X.T @ (mu[:, None] * X), X.T @ (mu * z)), dtype=float
    )


def _step_unweighted(w: Array, X: Array, y: Array, dt: float) -> Array:
    mu = dt * np.exp(X @ w)
    return np.asarray(
        np.linalg.solve(X.T @ X, X.T @ (X @ w + (y - mu) / mu)), dtype=float
    )


def _step_without_w(w: Array, X: Array, y: Array, dt: float) -> Array:
    return irls_step(w, X, y, dt) - w


def _step_residual_not_divided(w: Array, X: Array, y: Array, dt: float) -> Array:
    mu = dt * np.exp(X @ w)
    z = X @ w + (y - mu)
    return np.asarray(
        np.linalg.solve(X.T @ (mu[:, None] * X), X.T @ (mu * z)), dtype=float
    )


def _weighted(X: Array, h: Array, z: Array) -> Array:
    """The regression of z on X with weights h, (D,)."""
    return np.asarray(np.linalg.solve(X.T @ (h[:, None] * X), X.T @ (h * z)))


def _step_weights_turned(w: Array, X: Array, y: Array, dt: float) -> Array:
    mu = dt * np.exp(X @ w)
    return _weighted(X, 1 / mu, X @ w + (y - mu) / mu)


def _step_downhill(w: Array, X: Array, y: Array, dt: float) -> Array:
    return 2 * w - irls_step(w, X, y, dt)


def _step_weights_squared(w: Array, X: Array, y: Array, dt: float) -> Array:
    mu = dt * np.exp(X @ w)
    return _weighted(X, mu**2, X @ w + (y - mu) / mu)


def _grid_of(line: Any, n_rows: int, n_columns: int) -> Array:
    down = np.kron(line(n_rows), np.eye(n_columns))
    out: Array = down + np.kron(np.eye(n_rows), line(n_columns))
    return out


def _zeros_outside(n_rows: int, n_columns: int) -> Array:
    def line(n: int) -> Array:
        D = np.diff(np.vstack([np.zeros(n), np.eye(n), np.zeros(n)]), axis=0)
        out: Array = D.T @ D
        return out

    return _grid_of(line, n_rows, n_columns)


def _wrapped(n_rows: int, n_columns: int) -> Array:
    def line(n: int) -> Array:
        D = np.eye(n) - np.roll(np.eye(n), 1, axis=1)
        out: Array = D.T @ D
        return out

    return _grid_of(line, n_rows, n_columns)


def _one_direction(n_rows: int, n_columns: int) -> Array:
    alone = np.eye(n_rows)
    return np.asarray(np.kron(alone, smoothness_grid(1, n_columns)), dtype=float)


def _flat_neighbours(n_rows: int, n_columns: int) -> Array:
    return smoothness_grid(1, n_rows * n_columns)


def _rows_joined(n_rows: int, n_columns: int) -> Array:
    down = smoothness_grid(n_rows, 1)
    along = smoothness_grid(1, n_rows * n_columns)
    return np.asarray(np.kron(down, np.eye(n_columns)) + along, dtype=float)


def _diagonals_too(n_rows: int, n_columns: int) -> Array:
    P, n = smoothness_grid(n_rows, n_columns), n_columns
    for i in range(n_rows - 1):
        for j in range(n_columns - 1):
            for one, other in (
                (i * n + j, i * n + n + j + 1),
                (i * n + j + 1, i * n + n + j),
            ):
                P[[one, other], [one, other]] += 1
                P[[one, other], [other, one]] -= 1
    return P


def _grid_of_integers(n_rows: int, n_columns: int) -> IntArray:
    return smoothness_grid(n_rows, n_columns).astype(np.int64)


def _exchanged(n_rows: int, n_columns: int) -> Array:
    return smoothness_grid(n_columns, n_rows)


def _doubled(n_rows: int, n_columns: int) -> Array:
    return 2 * smoothness_grid(n_rows, n_columns)


def _half_deviance(y: Array, mu: Array) -> float:
    return deviance(y, mu) / 2


def _fraction_turned(y: Array, mu: Array) -> float:
    return float(2 * np.sum(mu - y)) - _log_part(y, mu)


def _means_turned(y: Array, mu: Array) -> float:
    return _log_part(y, mu) - float(2 * np.sum(mu - y))


def _log_part(y: Array, mu: Array) -> float:
    return deviance(y, mu) - float(2 * np.sum(mu - y))


def _deviance_negative(y: Array, mu: Array) -> float:
    return -deviance(y, mu)


def _nan_at_zero(y: Array, mu: Array) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(2 * np.sum(y * np.log(y / mu) - y + mu))


def _spikes_only(y: Array, mu: Array) -> float:
    some = y > 0
    return deviance(y[some], mu[some])


def _no_means(y: Array, mu: Array) -> float:
    return deviance(y, mu) - float(2 * np.sum(mu - y))


def _present_seen(y: Array, basis: Array) -> Array:
    return glm.filtered(y, basis, 0)


def _later(y: Array, basis: Array) -> Array:
    return glm.filtered(y, basis, 2)


def _turned_round(y: Array, basis: Array) -> Array:
    return glm.filtered(y, basis[::-1], 1)


def _round_the_end(y: Array, basis: Array) -> Array:
    out = np.zeros((len(y), basis.shape[1]))
    for lag in range(len(basis)):
        out += np.roll(y, lag + 1)[:, None] * basis[lag]
    return out


def _round_by_index(y: Array, basis: Array) -> Array:
    out = np.zeros((len(y), basis.shape[1]))
    for t in range(len(y)):
        for lag in range(len(basis)):
            out[t] += basis[lag] * y[t - 1 - lag]
    return out


def _starts_late(y: Array, basis: Array) -> Array:
    out = history(y, basis)
    out[: len(basis)] = 0.0
    return out


def _starts_a_bin_later(y: Array, basis: Array) -> Array:
    out = history(y, basis)
    out[: len(basis) + 1] = 0.0
    return out


def _the_future(y: Array, basis: Array) -> Array:
    return glm.filtered(y[::-1], basis, 1)[::-1].copy()


def _whole_bins(y: IntArray, mu: Array, place: Array) -> Array:
    return rescaled(y, mu, np.ones_like(place))


def _on_clock(clock: Array) -> Array:
    out: Array = 1 - np.exp(-np.diff(np.sort(clock), prepend=0.0))
    return out


def _own_bin_twice(y: IntArray, mu: Array, place: Array) -> Array:
    at = np.repeat(np.arange(len(y)), y.astype(np.intp))
    return _on_clock(np.cumsum(mu)[at] + place * mu[at])


def _place_ignored(y: IntArray, mu: Array, place: Array) -> Array:
    return rescaled(y, mu, np.zeros_like(place))


def _place_from_the_end(y: IntArray, mu: Array, place: Array) -> Array:
    return rescaled(y, mu, 1 - place)


def _place_alone(y: IntArray, mu: Array, place: Array) -> Array:
    at = np.repeat(np.arange(len(y)), y.astype(np.intp))
    return _on_clock(np.cumsum(mu)[at] - mu[at] + place)


def _not_exponential(y: IntArray, mu: Array, place: Array) -> Array:
    out: Array = -np.log1p(-rescaled(y, mu, place))
    return out


def _other_tail(y: IntArray, mu: Array, place: Array) -> Array:
    return 1 - rescaled(y, mu, place)


def _from_the_start(y: IntArray, mu: Array, place: Array) -> Array:
    out: Array = 1 - np.exp(-np.cumsum(_not_exponential(y, mu, place)))
    return out


def _first_lost(y: IntArray, mu: Array, place: Array) -> Array:
    return rescaled(y, mu, place)[1:]


def _one_a_bin(y: IntArray, mu: Array, place: Array) -> Array:
    single = np.minimum(y, 1)
    return rescaled(single, mu, place[: single.sum()])


def _unsorted(y: IntArray, mu: Array, place: Array) -> Array:
    at = np.repeat(np.arange(len(y)), y.astype(np.intp))  # 32 bits in the browser
    clock = np.cumsum(mu)[at] - mu[at] + place * mu[at]
    out: Array = 1 - np.exp(-np.diff(clock, prepend=0.0))
    return out


def _forgot_the_bin_width(w: Array, X: Array, y: Array, dt: float) -> float:
    mu = dt * np.exp(X @ w)
    wrong = deviance(y, mu) - 2 * np.log(1 / dt) * y.sum()
    return float(1 - wrong / deviance(y, np.full(len(y), y.mean())))


def _rates_for_counts(w: Array, X: Array, y: Array, dt: float) -> float:
    return deviance_explained(w, X, y, 1.0)


def _the_ratio(w: Array, X: Array, y: Array, dt: float) -> float:
    return 1 - deviance_explained(w, X, y, dt)


def _likelihood_ratio(w: Array, X: Array, y: Array, dt: float) -> float:
    null = np.array([np.log(y.mean() / dt)])
    base = log_likelihood(null, np.ones((len(y), 1)), y, dt)
    return 1 - log_likelihood(w, X, y, dt) / base


def _marginal_curves(
    x: Array, y: Array, heading: Array, speed: Array, spikes: IntArray, dt: float
) -> Tuning:
    found = []
    place = 20 * glm.bin_index(y, 0, 50, 20) + glm.bin_index(x, 0, 50, 20)
    for index, n in (
        (place, 400),
        (glm.bin_index(heading, 0, 2 * np.pi, 18), 18),
        (glm.bin_index(speed, 0, 40, 10), 10),
    ):
        rate = (np.bincount(index, spikes, n) + 0.5) / (np.bincount(index, None, n) + 1)
        found.append(np.log(rate) - np.log(rate).mean())
    return found[0].reshape(20, 20), found[1], found[2]


def _unsmoothed(
    x: Array, y: Array, heading: Array, speed: Array, spikes: IntArray, dt: float
) -> Tuning:
    return _fitted(x, y, heading, speed, spikes, dt, 1e-3)


def _oversmoothed(
    x: Array, y: Array, heading: Array, speed: Array, spikes: IntArray, dt: float
) -> Tuning:
    return _fitted(x, y, heading, speed, spikes, dt, 1e4)


def _map_turned(
    x: Array, y: Array, heading: Array, speed: Array, spikes: IntArray, dt: float
) -> Tuning:
    p, h, s = tuning(x, y, heading, speed, spikes, dt)
    return p.T, h, s


def _not_centred(
    x: Array, y: Array, heading: Array, speed: Array, spikes: IntArray, dt: float
) -> Tuning:
    p, h, s = tuning(x, y, heading, speed, spikes, dt)
    return p - p.min(), h - h.min(), s - s.min()


def _factors(
    x: Array, y: Array, heading: Array, speed: Array, spikes: IntArray, dt: float
) -> Tuning:
    p, h, s = tuning(x, y, heading, speed, spikes, dt)
    return np.exp(p), np.exp(h), np.exp(s)


# ------------------------------------------------------------ laws


def _rows_sum_to_one(result: Array, **_: Any) -> bool:
    return bool((np.asarray(result).sum(axis=1) == 1).all())


def _constants_cost_nothing(result: Array, **_: Any) -> bool:
    return bool(np.allclose(result @ np.ones(len(result)), 0.0))


def _close_to_the_truth(result: Any, spikes: IntArray, **_: Any) -> bool | str:
    if not isinstance(result, tuple) or len(result) != 3:
        return "return three arrays, for position, heading and speed"
    shapes = (20, 20), (18,), (10,)
    for name, found, shape in zip(
        ("position", "heading", "speed"), result, shapes, strict=True
    ):
        if np.shape(found) != shape:
            return f"{name} has shape {np.shape(found)}, not {shape}"
    true = _TRUTH[_key(spikes)]
    for name, found, want, most in zip(
        ("position", "heading", "speed"), result, true, ACCURACY, strict=True
    ):
        values = np.asarray(found, dtype=float)
        error = _root_mean_square(values - want)
        if not error <= most:
            text = f"{name} is off by {error:.2f} root mean square, {most} is allowed"
            return text + _would_do(values, want, most)
    return True


def _root_mean_square(x: Array) -> float:
    return float(np.sqrt(np.mean(x**2)))


def _would_do(found: Array, want: Array, most: float) -> str:
    """What to say where the transpose, or taking off the mean, makes it right."""
    centred = found - found.mean()
    if _root_mean_square(centred - want) <= most:
        return f"; its mean is {found.mean():.2f}, take it off"
    if _root_mean_square(centred.T - want) <= most:
        return "; transpose it: rows run along y, columns along x"
    return ""


NO_DT = (
    "The bin width is missing altogether: exp(X @ w) is a rate in spikes/s, and a bin "
    "of dt seconds expects dt times as many."
)

EXERCISES = (
    Exercise(
        "one_hot",
        "one_hot(x, low, high, n) -> columns, shape (T, n)",
        one_hot,
        _bin_cases,
        laws=(Law("each row has exactly one 1", _rows_sum_to_one),),
        mistakes=(
            Mistake(
                "rounded",
                "You round to the nearest of n points; the first and the last bin are "
                "half as wide as the others. Use floor and n equal bins.",
                _rounded,
            ),
            Mistake(
                "last edge lost",
                "x = high falls into a bin that does not exist, and its row is empty: "
                "the last bin is closed on both sides.",
                _last_edge_lost,
            ),
            Mistake(
                "last edge out of range",
                "x = high gets the number n, and the bins end at n - 1: the last "
                "bin is closed on both sides.",
                _last_edge_raises,
            ),
            Mistake(
                "n edges",
                "n edges make n - 1 bins: np.linspace needs n + 1.",
                _n_edges,
            ),
            Mistake(
                "low forgotten",
                "The range starts at low, not at 0: take low off first.",
                _low_forgotten,
            ),
            Mistake(
                "integers",
                "Your bins are right, of integers. Return floats, 0.0 and 1.0: the "
                "columns are factors of weights.",
                _integers,
            ),
            Mistake(
                "booleans",
                "Your bins are right, of booleans. Return floats, 0.0 and 1.0: add "
                ".astype(float).",
                _booleans,
            ),
            Mistake(
                "one too far",
                "np.digitize counts bins from 1: subtract one, or all shifts by a bin.",
                _one_too_far,
            ),
            Mistake(
                "transposed",
                "Your bins are rows. Time goes down, one row a step: shape (T, n).",
                _columns_for_rows,
            ),
        ),
    ),
    Exercise(
        "log_likelihood",
        "log_likelihood(w, X, y, dt) -> a number, in nats",
        log_likelihood,
        _problem_cases,
        mistakes=(
            Mistake(
                "log without dt",
                "Your mean has the bin width, your log mean has not: its logarithm is "
                "log(dt) + X @ w.",
                _log_without_dt,
            ),
            Mistake("no dt", NO_DT, _no_dt),
            Mistake(
                "no factorial",
                "log y! is missing. It moves no maximum, but without it the number is "
                "no log probability. scipy.special.gammaln(y + 1) is log y!.",
                _no_factorial,
            ),
            Mistake(
                "factorial of one less",
                "gammaln(y) is the log of (y - 1)!, and infinite at 0. log y! is "
                "gammaln(y + 1).",
                _factorial_of_one_less,
            ),
            Mistake(
                "mean", "You return the mean over bins: add them up.", _mean_likelihood
            ),
            Mistake(
                "sign",
                "Your sign is that of a loss. Here the likelihood itself is asked for.",
                _negative_likelihood,
            ),
        ),
    ),
    Exercise(
        "gradient",
        "gradient(w, X, y, dt) -> g, shape (D,)",
        gradient,
        _problem_cases,
        mistakes=(
            Mistake("no dt", NO_DT, _gradient_no_dt),
            Mistake(
                "downhill",
                "Your gradient points downhill: it is what came minus what was "
                "expected, y - mu.",
                _gradient_downhill,
            ),
            Mistake(
                "mean", "You divide by the number of bins: add up.", _gradient_mean
            ),
            Mistake(
                "rates",
                "You compare rates, y/dt and exp(X @ w). The likelihood is one of "
                "counts: y and dt * exp(X @ w).",
                _gradient_of_rates,
            ),
            Mistake(
                "an extra dt",
                "You multiply by dt once more. It is in mu already, and that is "
                "enough.",
                _gradient_extra_dt,
            ),
        ),
    ),
    Exercise(
        "irls_step",
        "irls_step(w, X, y, dt) -> the new w, shape (D,)",
        irls_step,
        _problem_cases,
        mistakes=(
            Mistake("no dt", NO_DT, _step_no_dt),
            Mistake(
                "offset kept",
                "Your working response contains log(dt). The regression is for X @ w "
                "alone: z = X @ w + (y - mu) / mu.",
                _step_offset_kept,
            ),
            Mistake(
                "unweighted",
                "You regress without weights. A bin with a larger mean tells more: "
                "weight mu.",
                _step_unweighted,
            ),
            Mistake(
                "only the change",
                "You return the change of w. Return the new w.",
                _step_without_w,
            ),
            Mistake(
                "residual not divided",
                "In the working response the residual is divided by mu: eta is a "
                "logarithm, and a count off by mu is a logarithm off by about 1.",
                _step_residual_not_divided,
            ),
            Mistake(
                "weights turned",
                "You weight by 1 / mu. A bin with a larger mean tells more: weight mu.",
                _step_weights_turned,
            ),
            Mistake(
                "downhill",
                "You go the wrong way: the new w is w plus what the solve gives.",
                _step_downhill,
            ),
            Mistake(
                "weights squared",
                "Your weights count twice. For lstsq, multiply rows and response by "
                "the root of mu.",
                _step_weights_squared,
            ),
        ),
        rtol=1e-7,
    ),
    Exercise(
        "smoothness_grid",
        "smoothness_grid(n_rows, n_columns) -> P, shape (n_rows * n_columns,) * 2",
        smoothness_grid,
        _grid_cases,
        laws=(Law("a constant map costs nothing", _constants_cost_nothing),),
        mistakes=(
            Mistake(
                "zeros outside",
                "You charge bins at the border for differing from zeros outside the "
                "box. There is nothing outside: a border bin has fewer neighbours.",
                _zeros_outside,
            ),
            Mistake(
                "wrapped",
                "Your opposite walls are neighbours. That is right for heading, which "
                "is a circle, and wrong for a box.",
                _wrapped,
            ),
            Mistake(
                "one direction",
                "You charge differences within rows only. Each bin has neighbours in "
                "the rows above and below, too.",
                _one_direction,
            ),
            Mistake(
                "flat neighbours",
                "You treat the flattened map as one line: the end of a row and the "
                "start of the next are no neighbours, and vertical pairs are missing.",
                _flat_neighbours,
            ),
            Mistake(
                "rows joined",
                "The last bin of a row and the first of the next are no neighbours.",
                _rows_joined,
            ),
            Mistake(
                "diagonals too",
                "You charge diagonal pairs. Neighbours share a side, not a corner "
                "only.",
                _diagonals_too,
            ),
            Mistake(
                "integers",
                "Your matrix is right, of integers. Return floats.",
                _grid_of_integers,
            ),
            Mistake(
                "exchanged",
                "Rows and columns are exchanged: the map is flattened row by row, so "
                "bin (i, j) is number i * n_columns + j.",
                _exchanged,
            ),
            Mistake(
                "doubled",
                "You count each pair of neighbours twice.",
                _doubled,
            ),
        ),
    ),
    Exercise(
        "deviance",
        "deviance(y, mu) -> a number",
        deviance,
        _deviance_cases,
        mistakes=(
            Mistake("half", "The factor 2 is missing.", _half_deviance),
            Mistake(
                "NaN at zero",
                "At y = 0 you take the logarithm of zero. y log y is 0 there: put a 1 "
                "in its place before the logarithm, or use scipy.special.xlogy.",
                _nan_at_zero,
            ),
            Mistake(
                "spikes only",
                "You leave out the empty bins. They cost 2 mu each: the model expected "
                "something there.",
                _spikes_only,
            ),
            Mistake(
                "no means",
                "The part - y + mu is missing. It adds up to zero only if the total is "
                "predicted right.",
                _no_means,
            ),
            Mistake(
                "fraction turned",
                "You take log(mu / y): the fraction is the other way round.",
                _fraction_turned,
            ),
            Mistake(
                "means turned",
                "The signs of the other two terms are turned: - y + mu.",
                _means_turned,
            ),
            Mistake(
                "negative",
                "The sign is turned: a deviance is never below zero.",
                _deviance_negative,
            ),
        ),
    ),
    Exercise(
        "history",
        "history(y, basis) -> features, shape (T, J)",
        history,
        _history_cases,
        mistakes=(
            Mistake(
                "present seen",
                "Your features contain the present bin: the spike predicts itself. Lag "
                "0 of the basis belongs to the bin before, t - 1.",
                _present_seen,
            ),
            Mistake(
                "a bin too late",
                "Your filter starts two bins back. basis[0] belongs to bin t - 1.",
                _later,
            ),
            Mistake(
                "turned round",
                "Your basis runs the wrong way: basis[0] is the most recent past.",
                _turned_round,
            ),
            Mistake(
                "round the end",
                "The end of the recording acts on its start (np.roll does that). "
                "Before the recording there are no spikes.",
                _round_the_end,
            ),
            Mistake(
                "round by a negative index",
                "y[t - 1 - l] with a negative index is counted from the end of the "
                "recording. Before the recording there are no spikes.",
                _round_by_index,
            ),
            Mistake(
                "starts late",
                "You leave the first L bins empty. They have a past, only a shorter "
                "one.",
                _starts_late,
            ),
            Mistake(
                "starts a bin later",
                "You leave the first L + 1 bins empty. They have a past, only a "
                "shorter one.",
                _starts_a_bin_later,
            ),
            Mistake(
                "the future",
                "You look at the bins after t. They are what is to be predicted.",
                _the_future,
            ),
        ),
    ),
    Exercise(
        "rescaled",
        "rescaled(y, mu, place) -> u, one for each spike",
        rescaled,
        _clock_cases,
        mistakes=(
            Mistake(
                "whole bins",
                "You let each spike fall at the end of its bin. Its place is given: "
                "the bin has run up to place * mu when it comes.",
                _whole_bins,
            ),
            Mistake(
                "own bin twice",
                "np.cumsum(mu)[t] holds the mu of bin t itself. Take it off: the "
                "clock at the start of the bin.",
                _own_bin_twice,
            ),
            Mistake(
                "place ignored",
                "You let each spike fall at the start of its bin. Add place * mu of "
                "that bin.",
                _place_ignored,
            ),
            Mistake(
                "place from the end",
                "place counts from the start of the bin: the share of mu that has "
                "passed is place, not 1 - place.",
                _place_from_the_end,
            ),
            Mistake(
                "place alone",
                "place is a share of its bin. On the clock that is place * mu.",
                _place_alone,
            ),
            Mistake(
                "exponential",
                "Your numbers are waits on the clock, which are exponential. Turn them "
                "into uniform ones, 1 - exp(-wait).",
                _not_exponential,
            ),
            Mistake(
                "other tail",
                "You return exp(-wait). It is uniform as well, but the plot would be "
                "turned upside down: u is 1 - exp(-wait).",
                _other_tail,
            ),
            Mistake(
                "from the start",
                "You measure from the start of the recording. Each wait starts at the "
                "spike before: take differences.",
                _from_the_start,
            ),
            Mistake(
                "first lost",
                "One is missing: the first spike waits since the recording began. "
                "np.diff with prepend=0.0 keeps it.",
                _first_lost,
            ),
            Mistake(
                "one a bin",
                "A bin with two spikes gives you one number. Repeat its number, "
                "np.repeat(np.arange(T), y).",
                _one_a_bin,
            ),
            Mistake(
                "unsorted",
                "Two spikes of one bin come in no order: sort the times on the clock "
                "before you take differences, or a wait is negative.",
                _unsorted,
            ),
        ),
    ),
    Exercise(
        "deviance_explained",
        "deviance_explained(w, X, y, dt) -> a number, at most 1",
        deviance_explained,
        _problem_cases,
        mistakes=(
            Mistake(
                "log without dt",
                "That is the bug itself: X @ w is the log of the rate, and deviance "
                "wants the log of the mean count, log(dt) + X @ w.",
                _forgot_the_bin_width,
            ),
            Mistake("no dt", NO_DT, _rates_for_counts),
            Mistake(
                "ratio",
                "You return the share that is left. Explained is one minus that.",
                _the_ratio,
            ),
            Mistake(
                "likelihoods",
                "You divide log likelihoods. Deviances start from the saturated model, "
                "so that a perfect model gets 1.",
                _likelihood_ratio,
            ),
        ),
    ),
    Exercise(
        "tuning",
        "tuning(x, y, heading, speed, spikes, dt) -> position (20, 20), heading (18,), "
        "speed (10,)",
        tuning,
        _cell_cases,
        laws=(Law("the tuning is close to the truth", _close_to_the_truth),),
        mistakes=(
            Mistake(
                "marginal curves",
                "You divide spikes by time for each variable alone. That mixes them up "
                "and is as noisy as the bins are many: fit all three together.",
                _marginal_curves,
            ),
            Mistake(
                "unsmoothed",
                "Your map follows the noise of single bins: make neighbours similar.",
                _unsmoothed,
            ),
            Mistake(
                "oversmoothed",
                "Your curves are too flat: smooth less. Held-out data tell how much.",
                _oversmoothed,
            ),
            Mistake(
                "factors",
                "You return factors on the rate. Their logarithms are asked for.",
                _factors,
            ),
            Mistake(
                "map transposed",
                "Your map is transposed: rows run along y, columns along x.",
                _map_turned,
            ),
            Mistake(
                "mean not zero",
                "Your curves do not have mean zero over their bins: take the mean off.",
                _not_centred,
            ),
        ),
        compare=False,
        seconds=60.0,
    ),
)
