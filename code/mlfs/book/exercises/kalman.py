"""The coding evening of the filtering chapter, first half: what is linear.

Chapter: book/kalman-and-particle-filters/coding.md.  Symbols as in `mlfs.kalman`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mlfs import kalman
from mlfs.book.exercise import Case, Exercise, Law, Mistake
from mlfs.core.numerics import Array

Rng = np.random.Generator
Line = tuple[Array, Array, float]
Moments = tuple[Array, Array]
LOG_2PI = float(np.log(2.0 * np.pi))

# ------------------------------------------------------------ cases


def _line_cases(rng: Rng) -> Iterator[Case]:
    for T, note in ((1, "a single observation"), (4, "four steps"), (30, "30 steps")):
        yield Case(
            {
                "x": rng.normal(size=T).cumsum() + rng.normal(size=T),
                "f": float(rng.uniform(0.5, 1.1)),
                "q": float(rng.uniform(0.2, 2.0)),
                "r": float(rng.uniform(0.2, 5.0)),
                "mean": float(rng.normal()),
                "var": float(rng.uniform(0.5, 4.0)),
            },
            note,
        )


def _covariance(rng: Rng, n: int) -> Array:
    root = rng.normal(size=(n, n + 1))
    out: Array = root @ root.T / n + 0.2 * np.eye(n)
    return out


def _model(rng: Rng, n: int, D: int) -> dict[str, Array]:
    F = rng.normal(size=(n, n))
    return {
        "mean": rng.normal(size=n),
        "cov": _covariance(rng, n),
        "F": 0.95 * F / np.linalg.norm(F, 2),
        "Q": _covariance(rng, n),
        "H": rng.normal(size=(D, n)),
        "R": _covariance(rng, D),
    }


def _matrix_cases(rng: Rng) -> Iterator[Case]:
    for n, D, T in ((2, 1, 1), (2, 1, 5), (3, 2, 12)):
        model = _model(rng, n, D)
        x = kalman.simulate(kalman.LinearGaussian(**model), T, rng)[1]
        yield Case({**model, "x": x}, f"n = {n}, D = {D}, T = {T}")


def _smoother_cases(rng: Rng) -> Iterator[Case]:
    for n, D, T in ((1, 1, 2), (2, 1, 6), (3, 2, 15)):
        model = kalman.LinearGaussian(**_model(rng, n, D))
        found = kalman.kalman_filter(model, kalman.simulate(model, T, rng)[1])
        given = {"F": model.F, "Q": model.Q, "mean": found.mean, "cov": found.cov}
        yield Case(given, f"n = {n}, T = {T}")


def _gain_cases(rng: Rng) -> Iterator[Case]:
    for n, D, T in ((1, 1, 1), (1, 1, 5), (2, 1, 8), (3, 2, 6)):
        model = _model(rng, n, D)
        del model["mean"]
        yield Case({**model, "T": T}, f"n = {n}, D = {D}, T = {T}")


# ------------------------------------------------------------ what is asked


def filter_1d(x: Array, f: float, q: float, r: float, mean: float, var: float) -> Line:
    """Means and variances (T,) of the filter of one number, and log p(x).

    z₁ ~ N(mean, var), z₍ₜ₊₁₎ = f zₜ + N(0, q), xₜ = zₜ + N(0, r).
    """
    means, variances, log_p = np.empty(len(x)), np.empty(len(x)), 0.0
    for t in range(len(x)):
        if t > 0:
            mean, var = f * mean, f * f * var + q
        S, e = var + r, x[t] - mean
        log_p += -0.5 * (LOG_2PI + np.log(S) + e * e / S)
        K = var / S
        mean, var = mean + K * e, var - K * var
        means[t], variances[t] = mean, var
    return means, variances, float(log_p)


def matrix_filter(
    mean: Array, cov: Array, F: Array, Q: Array, H: Array, R: Array, x: Array
) -> Line:
    """Filtered means (T, n), covariances (T, n, n), and log p(x), from x (T, D)."""
    means = np.empty((len(x), len(mean)))
    covs, log_p = np.empty((len(x), len(mean), len(mean))), 0.0
    for t in range(len(x)):
        if t > 0:
            mean, cov = F @ mean, F @ cov @ F.T + Q
        S, e = H @ cov @ H.T + R, x[t] - H @ mean
        log_det = np.linalg.slogdet(2 * np.pi * S)[1]
        log_p += -0.5 * (log_det + e @ np.linalg.solve(S, e))
        K = np.linalg.solve(S, H @ cov).T
        mean, cov = mean + K @ e, cov - K @ H @ cov
        means[t], covs[t] = mean, cov
    return means, covs, float(log_p)


def smoother(F: Array, Q: Array, mean: Array, cov: Array) -> Moments:
    """Smoothed means (T, n) and covariances (T, n, n) from the filtered ones."""
    mean, cov = mean.copy(), cov.copy()
    for t in range(len(mean) - 2, -1, -1):
        ahead = F @ cov[t] @ F.T + Q
        G = np.linalg.solve(ahead, F @ cov[t]).T
        mean[t] = mean[t] + G @ (mean[t + 1] - F @ mean[t])
        cov[t] = cov[t] + G @ (cov[t + 1] - ahead) @ G.T
    return mean, cov


def gains(cov: Array, F: Array, Q: Array, H: Array, R: Array, T: int) -> Array:
    """The Kalman gain of each step, (T, n, D), from the covariance of the first state.

    No data are needed: covariances do not depend on them.
    """
    K = np.empty((T, len(F), len(H)))
    for t in range(T):
        if t > 0:
            cov = F @ cov @ F.T + Q
        K[t] = np.linalg.solve(H @ cov @ H.T + R, H @ cov).T
        cov = cov - K[t] @ H @ cov
    return K


# ------------------------------------------------------------ plausible mistakes


def _line(
    x: Array,
    f: float,
    q: float,
    r: float,
    mean: float,
    var: float,
    *,
    first: bool = True,
    slip: str = "",
) -> Line:
    means, variances, log_p = np.empty(len(x)), np.empty(len(x)), 0.0
    for t in range(len(x)):
        if t > 0 or not first:
            mean = mean if slip == "mean stays" else f * mean
            var = (f if slip == "f once" else f * f) * var
            var += {"no q": 0.0, "q squared": q * q}.get(slip, q)
        if slip == "recorded early":
            means[t], variances[t] = mean, var
        S, e = var + r, x[t] - mean
        K = r / S if slip == "gain upside down" else var / S
        mean, var = mean + K * e, var if slip == "same variance" else var - K * var
        if slip == "density afterwards":
            S, e = var + r, x[t] - mean
        spread = r if slip == "density of the noise" else S
        log_p += -0.5 * (np.log(spread) + e * e / spread)
        log_p -= 0.0 if slip == "no 2 pi" else 0.5 * LOG_2PI
        if slip == "log of the root":
            log_p -= 0.5 * np.log(S)
        if slip != "recorded early":
            means[t], variances[t] = mean, var
    return means, variances, float(log_p)


def _predicts_first(
    x: Array, f: float, q: float, r: float, mean: float, var: float
) -> Line:
    return _line(x, f, q, r, mean, var, first=False)


def _no_q(x: Array, f: float, q: float, r: float, mean: float, var: float) -> Line:
    return _line(x, f, q, r, mean, var, slip="no q")


def _f_once(x: Array, f: float, q: float, r: float, mean: float, var: float) -> Line:
    return _line(x, f, q, r, mean, var, slip="f once")


def _upside_down(
    x: Array, f: float, q: float, r: float, mean: float, var: float
) -> Line:
    return _line(x, f, q, r, mean, var, slip="gain upside down")


def _same_variance(
    x: Array, f: float, q: float, r: float, mean: float, var: float
) -> Line:
    return _line(x, f, q, r, mean, var, slip="same variance")


def _noise_density(
    x: Array, f: float, q: float, r: float, mean: float, var: float
) -> Line:
    return _line(x, f, q, r, mean, var, slip="density of the noise")


def _whole_log(x: Array, f: float, q: float, r: float, mean: float, var: float) -> Line:
    return _line(x, f, q, r, mean, var, slip="log of the root")


def _density_afterwards(
    x: Array, f: float, q: float, r: float, mean: float, var: float
) -> Line:
    return _line(x, f, q, r, mean, var, slip="density afterwards")


def _line_no_2pi(
    x: Array, f: float, q: float, r: float, mean: float, var: float
) -> Line:
    return _line(x, f, q, r, mean, var, slip="no 2 pi")


def _recorded_early(
    x: Array, f: float, q: float, r: float, mean: float, var: float
) -> Line:
    return _line(x, f, q, r, mean, var, slip="recorded early")


def _mean_stays(
    x: Array, f: float, q: float, r: float, mean: float, var: float
) -> Line:
    return _line(x, f, q, r, mean, var, slip="mean stays")


def _q_squared(x: Array, f: float, q: float, r: float, mean: float, var: float) -> Line:
    return _line(x, f, q, r, mean, var, slip="q squared")


def _matrices(
    mean: Array, cov: Array, F: Array, Q: Array, H: Array, R: Array, x: Array, slip: str
) -> Line:
    means = np.empty((len(x), len(mean)))
    covs, log_p = np.empty((len(x), len(mean), len(mean))), 0.0
    for t in range(len(x)):
        if t > 0 or slip == "predicts first":
            mean = F @ mean
            left = F.T if slip == "F turned" else F
            cov = left @ cov @ (F if slip in ("F turned", "F twice") else F.T)
            cov = cov if slip == "no Q" else cov + Q
        S = H @ cov @ H.T + (0 * R + 1e-9 * np.eye(len(R)) if slip == "no R" else R)
        e = x[t] - H @ mean
        log_det = np.linalg.slogdet(S)[1]
        count = {"no 2 pi": 0, "2 pi once": 1, "n for D": len(F)}.get(slip, len(S))
        log_det += count * LOG_2PI
        log_p += -0.5 * (log_det + e @ np.linalg.solve(S, e))
        K = np.linalg.solve(S, H @ cov).T
        mean = mean + K @ e
        cov = cov + K @ S @ K.T if slip == "plus" else cov - K @ H @ cov
        means[t], covs[t] = mean, cov
    return means, covs, float(log_p)


def _matrix_predicts_first(
    mean: Array, cov: Array, F: Array, Q: Array, H: Array, R: Array, x: Array
) -> Line:
    return _matrices(mean, cov, F, Q, H, R, x, "predicts first")


def _turned(
    mean: Array, cov: Array, F: Array, Q: Array, H: Array, R: Array, x: Array
) -> Line:
    return _matrices(mean, cov, F, Q, H, R, x, "F turned")


def _matrix_no_Q(
    mean: Array, cov: Array, F: Array, Q: Array, H: Array, R: Array, x: Array
) -> Line:
    return _matrices(mean, cov, F, Q, H, R, x, "no Q")


def _no_R(
    mean: Array, cov: Array, F: Array, Q: Array, H: Array, R: Array, x: Array
) -> Line:
    return _matrices(mean, cov, F, Q, H, R, x, "no R")


def _no_2pi(
    mean: Array, cov: Array, F: Array, Q: Array, H: Array, R: Array, x: Array
) -> Line:
    return _matrices(mean, cov, F, Q, H, R, x, "no 2 pi")


def _plus(
    mean: Array, cov: Array, F: Array, Q: Array, H: Array, R: Array, x: Array
) -> Line:
    return _matrices(mean, cov, F, Q, H, R, x, "plus")


def _F_twice(
    mean: Array, cov: Array, F: Array, Q: Array, H: Array, R: Array, x: Array
) -> Line:
    return _matrices(mean, cov, F, Q, H, R, x, "F twice")


def _2pi_once(
    mean: Array, cov: Array, F: Array, Q: Array, H: Array, R: Array, x: Array
) -> Line:
    return _matrices(mean, cov, F, Q, H, R, x, "2 pi once")


def _n_for_D(
    mean: Array, cov: Array, F: Array, Q: Array, H: Array, R: Array, x: Array
) -> Line:
    return _matrices(mean, cov, F, Q, H, R, x, "n for D")


def _look_back(F: Array, Q: Array, mean: Array, cov: Array, slip: str) -> Moments:
    old_mean, old_cov = mean, cov
    mean, cov = mean.copy(), cov.copy()
    for t in range(len(mean) - 2, 0 if slip == "stops early" else -1, -1):
        ahead = F @ cov[t] @ F.T + (0 * Q if slip == "no Q" else Q)
        turn = F.T if slip == "F turned" else F
        G = np.linalg.solve(ahead, turn @ cov[t]).T
        last = old_mean[t + 1] if slip == "filtered ahead" else mean[t + 1]
        wide = old_cov[t + 1] if slip == "filtered ahead" else cov[t + 1]
        start = mean[t] if slip == "not predicted" else F @ mean[t]
        mean[t] = mean[t] + G @ (last - start)
        change = ahead - wide if slip == "sign" else wide - ahead
        change = wide - cov[t] if slip == "covariance not predicted" else change
        if slip == "covariance forgotten":
            continue
        cov[t] = cov[t] + G @ change @ G.T
    return mean, cov


def _filtered_ahead(F: Array, Q: Array, mean: Array, cov: Array) -> Moments:
    return _look_back(F, Q, mean, cov, "filtered ahead")


def _back_turned(F: Array, Q: Array, mean: Array, cov: Array) -> Moments:
    return _look_back(F, Q, mean, cov, "F turned")


def _back_no_Q(F: Array, Q: Array, mean: Array, cov: Array) -> Moments:
    return _look_back(F, Q, mean, cov, "no Q")


def _back_sign(F: Array, Q: Array, mean: Array, cov: Array) -> Moments:
    return _look_back(F, Q, mean, cov, "sign")


def _not_predicted(F: Array, Q: Array, mean: Array, cov: Array) -> Moments:
    return _look_back(F, Q, mean, cov, "not predicted")


def _same_covariance(F: Array, Q: Array, mean: Array, cov: Array) -> Moments:
    return _look_back(F, Q, mean, cov, "covariance forgotten")


def _stops_early(F: Array, Q: Array, mean: Array, cov: Array) -> Moments:
    return _look_back(F, Q, mean, cov, "stops early")


def _covariance_not_predicted(F: Array, Q: Array, mean: Array, cov: Array) -> Moments:
    return _look_back(F, Q, mean, cov, "covariance not predicted")


def _gain_of_the_step_before(
    cov: Array, F: Array, Q: Array, H: Array, R: Array, T: int
) -> Array:
    K = np.empty((T, len(F), len(H)))
    for t in range(T):
        K[t] = np.linalg.solve(H @ cov @ H.T + R, H @ cov).T
        if t > 0:
            cov = F @ (cov - K[t] @ H @ cov) @ F.T + Q
    return K


def _first_predicted(
    cov: Array, F: Array, Q: Array, H: Array, R: Array, T: int
) -> Array:
    return gains(F @ cov @ F.T + Q, F, Q, H, R, T)


def _never_updated(cov: Array, F: Array, Q: Array, H: Array, R: Array, T: int) -> Array:
    K = np.empty((T, len(F), len(H)))
    for t in range(T):
        if t > 0:
            cov = F @ cov @ F.T + Q
        K[t] = np.linalg.solve(H @ cov @ H.T + R, H @ cov).T
    return K


def _settled_at_once(
    cov: Array, F: Array, Q: Array, H: Array, R: Array, T: int
) -> Array:
    return np.tile(kalman.steady_state(F, Q, H, R).gain, (T, 1, 1))


# ------------------------------------------------------------ laws


def _positive(result: Any, **_: Any) -> bool:
    return bool((np.asarray(result[1]) > 0).all())


def _no_wider(result: Moments, cov: Array, **_: Any) -> bool:
    return bool(np.linalg.eigvalsh(cov - result[1]).min() > -1e-9)


EXERCISES = (
    Exercise(
        "filter_1d",
        "filter_1d(x, f, q, r, mean, var) -> means (T,), variances (T,), log_p",
        filter_1d,
        _line_cases,
        laws=(Law("every variance is above zero", _positive),),
        mistakes=(
            Mistake(
                "predicts first",
                "You predict before the first observation. mean and var are already "
                "about the first state: no step leads to it.",
                _predicts_first,
            ),
            Mistake(
                "no q",
                "Your variance does not grow between observations: add q when time "
                "passes.",
                _no_q,
            ),
            Mistake(
                "f once",
                "You multiply the variance by f. It is the mean of a square: by f * f.",
                _f_once,
            ),
            Mistake(
                "gain upside down",
                "Your gain is r over the sum. The gain is the share that comes from "
                "the state: var / (var + r).",
                _upside_down,
            ),
            Mistake(
                "same variance",
                "An observation does not change your variance. It shrinks it by K "
                "times itself.",
                _same_variance,
            ),
            Mistake(
                "density of the noise",
                "Your log_p uses r alone. Before x[t] is seen, its variance is that "
                "of the state plus that of the noise, S.",
                _noise_density,
            ),
            Mistake(
                "log of the root",
                "You subtract the whole log of S. The density has the root of S in "
                "front: half of its log.",
                _whole_log,
            ),
            Mistake(
                "density afterwards",
                "Your log_p judges x[t] after the update, when the filter has seen "
                "it. Add to log_p before you change mean and var.",
                _density_afterwards,
            ),
            Mistake(
                "no 2 pi",
                "Your log_p lacks log 2 pi, halved, for each observation.",
                _line_no_2pi,
            ),
            Mistake(
                "recorded early",
                "You record mean and var before the update. Filtered moments have "
                "seen x[t].",
                _recorded_early,
            ),
            Mistake(
                "mean stays",
                "Your mean does not move when time passes: multiply it by f, too.",
                _mean_stays,
            ),
            Mistake(
                "q squared",
                "You add q * q. q is a variance already, not a standard deviation.",
                _q_squared,
            ),
        ),
    ),
    Exercise(
        "matrix_filter",
        "matrix_filter(mean, cov, F, Q, H, R, x) -> means (T, n), covs (T, n, n), "
        "log_p",
        matrix_filter,
        _matrix_cases,
        mistakes=(
            Mistake(
                "predicts first",
                "You predict before the first observation. mean and cov are already "
                "about the first state.",
                _matrix_predicts_first,
            ),
            Mistake(
                "F turned",
                "Your prediction has F.T @ cov @ F. The state is F z, so its "
                "covariance is F @ cov @ F.T.",
                _turned,
            ),
            Mistake("no Q", "Your prediction lacks Q.", _matrix_no_Q),
            Mistake(
                "no R",
                "Your innovation covariance lacks R: the noise of x is part of its "
                "surprise.",
                _no_R,
            ),
            Mistake(
                "no 2 pi",
                "Your log_p lacks the constant, log 2 pi for each entry of x[t], "
                "halved.",
                _no_2pi,
            ),
            Mistake(
                "covariance grows",
                "Your covariance grows when you look. The update subtracts.",
                _plus,
            ),
            Mistake(
                "F twice",
                "Your prediction has F @ cov @ F. The second F is transposed.",
                _F_twice,
            ),
            Mistake(
                "2 pi once",
                "Your log_p has log 2 pi once for each x[t], wants it D times: once "
                "for each of its entries.",
                _2pi_once,
            ),
            Mistake(
                "n for D",
                "Your log_p counts log 2 pi n times, for the entries of the state. "
                "It is the density of x[t], which has D.",
                _n_for_D,
            ),
        ),
    ),
    Exercise(
        "smoother",
        "smoother(F, Q, mean, cov) -> mean (T, n), cov (T, n, n)",
        smoother,
        _smoother_cases,
        laws=(Law("no covariance is wider than the filtered one", _no_wider),),
        mistakes=(
            Mistake(
                "filtered ahead",
                "You use what the filter said about step t + 1. Use what the "
                "smoother has just found there: it knows all that follows. If you do "
                "read your own copies, your loop runs the wrong way: it must go from "
                "the last step to the first.",
                _filtered_ahead,
            ),
            Mistake(
                "F turned",
                "Your gain uses F.T where F is meant, or the other way round: it is "
                "cov[t] @ F.T divided by the predicted covariance.",
                _back_turned,
            ),
            Mistake(
                "no Q",
                "Your predicted covariance lacks Q.",
                _back_no_Q,
            ),
            Mistake(
                "sign",
                "Your covariances grow. The smoothed one at t + 1 comes first, minus "
                "the predicted one: the difference is negative.",
                _back_sign,
            ),
            Mistake(
                "not predicted",
                "You compare the smoothed mean at t + 1 with the filtered one at t. "
                "Compare it with what was predicted for t + 1, F @ mean[t].",
                _not_predicted,
            ),
            Mistake(
                "same covariance",
                "Your means are right, your covariances are still the filter's.",
                _same_covariance,
            ),
            Mistake(
                "stops early",
                "Your loop leaves out step 0: range(T - 2, -1, -1) ends there, "
                "since a range never reaches its end.",
                _stops_early,
            ),
            Mistake(
                "covariance not predicted",
                "You subtract the filtered covariance at t. Subtract what was "
                "predicted for t + 1, F @ cov[t] @ F.T + Q.",
                _covariance_not_predicted,
            ),
        ),
    ),
    Exercise(
        "gains",
        "gains(cov, F, Q, H, R, T) -> K, shape (T, n, D)",
        gains,
        _gain_cases,
        mistakes=(
            Mistake(
                "covariance of the step before",
                "That is the bug itself: from step 1 on, each gain is computed "
                "from the covariance of the step before.",
                _gain_of_the_step_before,
            ),
            Mistake(
                "predicts first",
                "You predict before the first gain. cov is already about the first "
                "state.",
                _first_predicted,
            ),
            Mistake(
                "never updated",
                "Your covariance never shrinks: after each gain take off what the "
                "observation taught.",
                _never_updated,
            ),
            Mistake(
                "settled at once",
                "You return the gain at which the filter settles, for every step. It "
                "takes a while to get there, and short recordings live in that while.",
                _settled_at_once,
            ),
        ),
    ),
)
