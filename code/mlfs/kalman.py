"""Kalman filters and smoothers: exact inference in linear-Gaussian state-space models.

Chapter: book/kalman-and-particle-filters/theory.md.  A comment `# eq NAME` marks the
line that implements the displayed equation labelled NAME there.

    n, D, T          sides of a hidden state and of an observation, number of time steps
    z[t]             hidden state at time t                            (T, n)
    x[t]             observation at time t                             (T, D) or (T,)
    mean, cov        moments of the first state: z₁ ~ N(mean, cov)     (n,), (n, n)
    F, Q             z₍ₜ₊₁₎ = F zₜ + N(0, Q)                           (n, n) each
    H, R             xₜ = H zₜ + N(0, R)                               (D, n), (D, D)
    e, S             innovation xₜ − E[xₜ | the past], its covariance  (D,), (D, D)
    K                gain: what an innovation does to the state        (n, D)
    G                gain of the smoother                              (n, n)

The first observation belongs to the first state: nothing is predicted before it.
`observed` (T,) is False where an observation is missing; its value is never read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from scipy.linalg import lapack, solve_triangular

from mlfs.core import gaussian
from mlfs.core.gaussian import LOG_2PI, ROOT_HUGE, symmetric
from mlfs.core.numerics import (
    Array,
    BoolArray,
    check_array,
    check_list,
    check_mask,
    check_real,
    check_rng,
    check_scalar,
    check_type,
    check_whole,
)

PARAMETERS = ("mean", "cov", "F", "Q", "H", "R")

# ------------------------------------------------------------ the model


@dataclass(frozen=True, slots=True)
class LinearGaussian:
    """z₁ ~ N(mean, cov), z₍ₜ₊₁₎ = F zₜ + N(0, Q), xₜ = H zₜ + N(0, R).

    Raises:
        ValueError: shapes that do not fit; `cov`, `Q` or `R` not symmetric, or with an
            eigenvalue below zero.
    """

    mean: Array
    cov: Array
    F: Array
    Q: Array
    H: Array
    R: Array

    def __post_init__(self) -> None:
        mean = _numbers("mean", self.mean, ("n",))
        n = len(mean)
        H = _numbers("H", self.H, ("D", n))
        good = {"mean": mean.copy(), "F": _numbers("F", self.F, (n, n)).copy()}
        good["H"] = H.copy()
        for name, side in (("cov", n), ("Q", n), ("R", len(H))):
            given = _numbers(name, getattr(self, name), (side, side))
            gaussian.square_root(name, given)  # refuses what is no covariance
            good[name] = symmetric(given)
        for name, value in good.items():
            object.__setattr__(self, name, value)

    @property
    def n(self) -> int:
        """Side of a hidden state."""
        return len(self.mean)

    @property
    def D(self) -> int:
        """Side of an observation."""
        return len(self.H)


def simulate(
    model: LinearGaussian, T: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """A hidden path z (T, n) and its observations x (T, D).  Cost O(T (n² + n D)).

    Raises:
        ValueError: a malformed argument.
    """
    model = check_type("model", model, LinearGaussian)
    T, rng = check_whole("T", T, 1), check_rng(rng)
    roots = [gaussian.square_root(name, getattr(model, name)) for name in ("cov", "Q")]
    z = rng.normal(size=(T, model.n))
    z[0] = model.mean + roots[0] @ z[0]
    z[1:] = z[1:] @ roots[1].T
    for t in range(1, T):
        z[t] += model.F @ z[t - 1]
    noise = rng.normal(size=(T, model.D)) @ gaussian.square_root("R", model.R).T
    return z, z @ model.H.T + noise  # eq kalman-linear-gaussian


# ------------------------------------------------------------ one step, from the lemma


def predict(mean: Array, cov: Array, F: Array, Q: Array) -> tuple[Array, Array]:
    """Moments of z₍ₜ₊₁₎ from those of zₜ: F mean and F cov Fᵀ + Q.  Cost O(n³).

    Raises:
        ValueError: a malformed argument, or shapes that do not fit.
    """
    Q = _numbers("Q", Q, (len(_square("F", F)),) * 2)
    mean, cov, _ = gaussian.linear(mean, cov, F, Q)  # eq kalman-predict
    return mean, cov


def update(
    mean: Array, cov: Array, x: Array, H: Array, R: Array
) -> tuple[Array, Array, float]:
    """Moments of zₜ once xₜ is seen, and log p(xₜ | the past).  Cost O(n² D + D³).

    mean (n,), cov (n, n), x (D,), H (D, n), R (D, D).

    Raises:
        ValueError: a malformed argument, or an innovation covariance H cov Hᵀ + R that
            is not positive definite.
    """
    mean_x, S, cross = gaussian.linear(mean, cov, H, R)  # eq kalman-innovation
    log_p = gaussian.log_density(x, mean_x, S)
    mean, cov = gaussian.condition(mean, cov, cross, mean_x, S, x)  # eq kalman-update
    return mean, cov, float(log_p)


def update_joseph(
    mean: Array, cov: Array, x: Array, H: Array, R: Array
) -> tuple[Array, Array, float]:
    """As `update`, with the covariance as a sum of squares, which rounding spares.

    Raises:
        ValueError: as `update`.
    """
    mean_x, S, cross = gaussian.linear(mean, cov, H, R)
    log_p = gaussian.log_density(x, mean_x, S)
    K = gaussian.gain(cross, S)  # eq kalman-gain
    keep = np.eye(len(K)) - K @ H
    cov = keep @ cov @ keep.T + K @ R @ K.T  # eq kalman-joseph
    return mean + K @ (x - mean_x), symmetric(cov), float(log_p)


# ------------------------------------------------------------ filter and smoother


@dataclass(frozen=True, slots=True)
class Filtered:
    """What the past says at every step, and how well it foretold the next observation.

    `predicted_mean` (T, n) and `predicted_cov` (T, n, n) are the moments of zₜ given
    x₍₁..ₜ₋₁₎, `mean` and `cov` those given x₍₁..ₜ₎; `log_p` (T,) is
    log p(xₜ | x₍₁..ₜ₋₁₎), 0 where nothing was observed.
    """

    predicted_mean: Array
    predicted_cov: Array
    mean: Array
    cov: Array
    log_p: Array

    @property
    def log_evidence(self) -> float:
        """Log p(x₁..x_T)."""
        return float(self.log_p.sum())  # eq kalman-evidence


@dataclass(frozen=True, slots=True)
class Smoothed:
    """What the whole recording says: moments of zₜ and of neighbours given x₍₁..T₎.

    `mean` (T, n), `cov` (T, n, n), `cross` (T-1, n, n) with
    cross[t] = Cov(z₍ₜ₊₁₎, zₜ), and `log_evidence`, log p(x).
    """

    log_evidence: float
    mean: Array
    cov: Array
    cross: Array


def kalman_filter(
    model: LinearGaussian, x: Array, observed: BoolArray | None = None
) -> Filtered:
    """The exact filter, one loop over time.  Cost O(T (n³ + n² D + D³)).

    x is (T, D), or (T,) where D is one.

    Raises:
        ValueError: a malformed argument, an innovation covariance that is not positive
            definite, or a variance that rounding has made negative.
    """
    model, x, seen = _problem(model, x, observed)
    out = _empty(model, len(x))
    mean, cov = model.mean, model.cov
    for t in range(len(x)):
        if t > 0:
            mean, cov = model.F @ mean, model.F @ cov @ model.F.T + model.Q
        out.predicted_mean[t], out.predicted_cov[t] = mean, cov
        if seen[t]:  # eq kalman-missing
            mean, cov, out.log_p[t] = _absorb(mean, cov, x[t], model.H, model.R, t)
        out.mean[t], out.cov[t] = mean, cov
    return _checked(out)


def rts_smoother(model: LinearGaussian, filtered: Filtered) -> Smoothed:
    """Moments given all observations, from those given the past; one loop back.

    Rauch, Tung & Striebel 1965.  Cost O(T n³).

    Raises:
        ValueError: a malformed argument, or a predicted covariance that is singular.
    """
    model = check_type("model", model, LinearGaussian)
    filtered = _check_filtered(filtered, model)
    mean, cov = filtered.mean.copy(), filtered.cov.copy()
    cross = np.empty_like(cov[1:])
    for t in range(len(mean) - 2, -1, -1):
        ahead = filtered.predicted_mean[t + 1], filtered.predicted_cov[t + 1]
        G = _solve_right(filtered.cov[t] @ model.F.T, ahead[1])  # eq kalman-rts-gain
        mean[t] = filtered.mean[t] + G @ (mean[t + 1] - ahead[0])  # eq kalman-rts
        cov[t] = filtered.cov[t] + G @ (cov[t + 1] - ahead[1]) @ G.T
        cross[t] = cov[t + 1] @ G.T  # eq kalman-lag-one
    return Smoothed(filtered.log_evidence, mean, symmetric(cov), cross)


def standardised_innovations(
    model: LinearGaussian,
    x: Array,
    filtered: Filtered,
    observed: BoolArray | None = None,
) -> Array:
    """S^(−1/2) e for every observed step, (number observed, D): independent N(0, 1).

    A model that is true leaves no correlation in them, over time or across entries.

    Raises:
        ValueError: a malformed argument.
    """
    model, x, seen = _problem(model, x, observed)
    filtered = _check_filtered(filtered, model, len(x))
    e = x[seen] - filtered.predicted_mean[seen] @ model.H.T
    S = model.H @ filtered.predicted_cov[seen] @ model.H.T + model.R
    white: Array = np.linalg.solve(np.linalg.cholesky(S), e[..., None])[..., 0]
    return white


def _absorb(
    mean: Array, cov: Array, x: Array, H: Array, R: Array, t: int
) -> tuple[Array, Array, float]:
    """`update` without its checks: L is the root of S, W = L⁻¹ H cov, K = Wᵀ L⁻¹."""
    PHt = cov @ H.T
    L = _root(H @ PHt + R, t)
    W = lapack.dtrtrs(L, PHt.T, lower=1)[0]
    v = lapack.dtrtrs(L, x - H @ mean, lower=1)[0].ravel()
    log_p = -0.5 * (v @ v + len(v) * LOG_2PI) - np.log(L.diagonal()).sum()
    return mean + v @ W, cov - W.T @ W, float(log_p)


def _root(S: Array, t: int) -> Array:
    L, failed = lapack.dpotrf(S, lower=1)
    if failed:
        raise ValueError(
            f"model gives x[{t}] a predicted covariance that is not positive definite, "
            "wants one: give R, or what the state does to x, some variance"
        )
    out: Array = L
    return out


def _solve_right(a: Array, S: Array) -> Array:
    """A S⁻¹ for a symmetric S, or for each of a stack of them."""
    variance = np.diagonal(S, axis1=-2, axis2=-1)
    try:
        L: Array = np.asarray(np.linalg.cholesky(S), dtype=np.float64)
        left = np.diagonal(L, axis1=-2, axis2=-1) ** 2  # once the others are known
        singular = bool((left <= SINGULAR * variance).any())
    except np.linalg.LinAlgError:
        singular = True
    if singular:
        raise ValueError(
            "model gives a predicted covariance of the state that is singular, wants "
            "Q or cov to leave every direction some variance"
        )
    return _divide(a, L)


def _divide(a: Array, L: Array) -> Array:
    """A (L Lᵀ)⁻¹, or for each of two stacks."""
    back = np.linalg.solve(L, np.swapaxes(a, -1, -2))
    out: Array = np.swapaxes(np.linalg.solve(np.swapaxes(L, -1, -2), back), -1, -2)
    return out


# ------------------------------------------------------------ the fast form


def smooth(
    model: LinearGaussian, x: Array, observed: BoolArray | None = None
) -> Smoothed:
    """Filter and smoother by the fastest form that is exact.

    Covariances do not depend on the data, and settle; from there on the means follow
    one linear recursion, which is walked in many pieces side by side.  Time O(T n²)
    after the covariances have settled.  With a gap in the data: the plain loops.

    Raises:
        ValueError: as `kalman_filter` and `rts_smoother`.
    """
    model, x, seen = _problem(model, x, observed)
    settled = _settle(model, len(x)) if seen.all() else None
    if settled is None:
        return rts_smoother(model, kalman_filter(model, x, seen))
    filtered = _filter_settled(model, x, *settled)
    return _smooth_settled(model, filtered, len(settled[0]))


# A predicted covariance has settled when a step moves no entry by more than this share
# of what its row and its column allow.
SETTLED = 1e-14
# A state of which the others leave a smaller share of variance is theirs: no new one.
SINGULAR = 1e-14
# A filter is worth running in pieces from this many settled steps on.
PIECES_MIN_T = 64


def _settle(model: LinearGaussian, T: int) -> tuple[Array, Array, Array] | None:
    """Predicted and filtered covariances, and the roots of S, up to those that stay.

    None if they do not settle in time.
    """
    P, F, H, Q, R = model.cov, model.F, model.H, model.Q, model.R
    ahead, now, roots = [], [], []
    for t in range(T - PIECES_MIN_T):
        PHt = P @ H.T
        L = _root(H @ PHt + R, t)
        W = lapack.dtrtrs(L, PHt.T, lower=1)[0]
        kept = P - W.T @ W
        ahead.append(P)
        now.append(kept)
        roots.append(L)
        before, P = P, F @ kept @ F.T + Q
        if t % 8 == 0:
            size = np.sqrt(np.abs(P.diagonal()))
            if (np.abs(P - before) <= SETTLED * size * size[:, None]).all():
                return symmetric(np.array(ahead)), np.array(now), np.array(roots)
    return None


def _filter_settled(
    model: LinearGaussian, x: Array, ahead: Array, now: Array, L: Array
) -> Filtered:
    """`kalman_filter` where these are the covariances, the last of them for good."""
    k, F, H = len(ahead), model.F, model.H
    out, mean = _empty(model, len(x)), model.mean
    out.predicted_cov[:k], out.predicted_cov[k:] = ahead, ahead[-1]
    out.cov[:k], out.cov[k:] = now, now[-1]
    K = _divide(ahead @ H.T, L)
    for t in range(k):
        out.predicted_mean[t] = mean
        out.mean[t] = mean + K[t] @ (x[t] - H @ mean)
        mean = F @ out.mean[t]
    carry = F - K[-1] @ (H @ F)  # mean[t] = carry mean[t − 1] + K x[t]
    out.mean[k:] = _scan(carry, x[k:] @ K[-1].T, out.mean[k - 1])
    out.predicted_mean[k:] = out.mean[k - 1 : -1] @ F.T
    e = x - out.predicted_mean @ H.T
    white = np.empty_like(e)
    white[:k] = np.linalg.solve(L, e[:k, :, None])[:, :, 0]
    white[k:] = lapack.dtrtrs(L[-1], e[k:].T, lower=1)[0].T
    log_det = np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)
    out.log_p[:] = -0.5 * (np.einsum("ti,ti->t", white, white) + model.D * LOG_2PI)
    out.log_p[:k] -= log_det
    out.log_p[k:] -= log_det[-1]
    return _checked(out)


def _smooth_settled(model: LinearGaussian, filtered: Filtered, k: int) -> Smoothed:
    """`rts_smoother` where the filter's covariances stay from step k − 1 on."""
    P, T, last = filtered.cov, len(filtered.cov), k - 1
    ahead, foretold = filtered.predicted_cov[1 : k + 1], filtered.predicted_mean
    G = _solve_right(P[:k] @ model.F.T, ahead)  # the last one for good
    turned = np.swapaxes(G, 1, 2)
    alone = P[:k] - G @ ahead @ turned  # what is left of P once z₍ₜ₊₁₎ is known
    cov = np.empty_like(P)
    cov[-1], t, stays = P[-1], T - 1, False
    while t > last and not stays:
        cov[t - 1] = alone[-1] + G[-1] @ cov[t] @ turned[-1]
        t -= 1
        if t % 8 == 0:
            size = np.sqrt(np.abs(cov[t].diagonal()))
            moved = np.abs(cov[t] - cov[t + 1])
            stays = bool((moved <= SETTLED * size * size[:, None]).all())
    cov[last:t] = cov[t]
    for t in range(last - 1, -1, -1):
        cov[t] = alone[t] + G[t] @ cov[t + 1] @ turned[t]
    cross = np.empty_like(cov[1:])
    cross[:last] = cov[1:k] @ turned[:last]
    cross[last:] = cov[k:] @ turned[-1]
    mean = filtered.mean.copy()
    drive = mean[last:-1] - foretold[k:] @ turned[-1]
    mean[last:-1] = _scan(G[-1], drive[::-1], mean[-1])[::-1]
    for t in range(last - 1, -1, -1):
        mean[t] += G[t] @ (mean[t + 1] - foretold[t + 1])
    return Smoothed(filtered.log_evidence, mean, symmetric(cov), cross)


def _scan(M: Array, u: Array, start: Array) -> Array:
    """y[t] = M y[t − 1] + u[t] with y[−1] = start, for u (T, n), in about 2√T steps.

    Pieces of equal length start from zero and run side by side; then the end of each
    tells the next where it should have started, and powers of M carry that through.
    """
    T, n = u.shape
    length = max(int(np.sqrt(T)), 1)
    pieces = -(-T // length)
    y = np.zeros((length, pieces, n))
    padded = np.zeros((pieces * length, n))
    padded[:T] = u
    y[:] = padded.reshape(pieces, length, n).swapaxes(0, 1)
    powers = np.empty((length, n, n))  # M, M², ..., transposed
    powers[0] = M.T
    for i in range(1, length):
        y[i] += y[i - 1] @ M.T
        powers[i] = powers[i - 1] @ M.T
    begin = np.empty((pieces, n))
    for j in range(pieces):
        begin[j] = start
        start = y[-1, j] + start @ powers[-1]
    y += begin @ powers
    out: Array = y.swapaxes(0, 1).reshape(-1, n)[:T]
    return out


# ------------------------------------------------------------ where the filter settles


@dataclass(frozen=True, slots=True)
class Steady:
    """Where the covariances of the filter settle, and the gain there, K = P Hᵀ S⁻¹."""

    predicted_cov: Array
    cov: Array
    gain: Array


def riccati_step(
    cov: Array, F: Array, Q: Array, H: Array, R: Array
) -> tuple[Array, Array]:
    """The filtered covariance, and the next predicted one, from a predicted one.

    Raises:
        ValueError: as `predict` and `update`.
    """
    n, D = len(_square("F", F)), len(_square("R", R))
    _, cov, _ = update(np.zeros(n), cov, np.zeros(D), H, R)
    _, ahead = predict(np.zeros(n), cov, F, Q)
    return cov, ahead  # eq kalman-riccati


def steady_state(
    F: Array, Q: Array, H: Array, R: Array, max_iter: int = 10_000
) -> Steady:
    """Iterate the Riccati recursion from Q until no entry moves.  Cost O(n³) a step.

    Raises:
        ValueError: a malformed argument, or covariances that have not settled after
            `max_iter` steps: an unstable state that nobody observes, for one.
    """
    P, max_iter = (
        gaussian.check_covariance("Q", Q),
        check_whole("max_iter", max_iter, 1),
    )
    for _ in range(max_iter):
        cov, ahead = riccati_step(P, F, Q, H, R)
        if np.abs(ahead - P).max() <= 1e-15 * np.abs(ahead).max():
            K = gaussian.gain(ahead @ np.asarray(H).T, H @ ahead @ np.transpose(H) + R)
            return Steady(ahead, cov, K)
        P = ahead
        if np.abs(P).max() > ROOT_HUGE:
            break
    raise ValueError(
        f"F and H have not settled after {max_iter} steps, want every growing state "
        "to be observed; or max_iter to be larger"
    )


# ------------------------------------------------------------ a start that is unknown


@dataclass(frozen=True, slots=True)
class DiffuseStart:
    """What the first `steps` observations say when nothing was known before them.

    `model` is the model that starts at step `steps` with their posterior: run any
    filter on x[steps - 1:] with the first of them marked as not observed.
    `log_evidence` is their diffuse log likelihood.
    """

    model: LinearGaussian
    steps: int
    log_evidence: float


def diffuse_start(
    model: LinearGaussian,
    x: Array,
    diffuse: BoolArray,
    observed: BoolArray | None = None,
) -> DiffuseStart:
    """Start from cov + κ I over the states marked in `diffuse` (n,), as κ → ∞, exactly.

    Takes in observations until every state is known to finite variance.  The log
    likelihood leaves out ½ log κ for each observation that was spent on that (Durbin &
    Koopman 2012, sec. 7.2).  R must be positive definite.  Cost O(steps n²).

    Raises:
        ValueError: a malformed argument, or data that end before all is known.
    """
    model, x, seen = _problem(model, x, observed)
    marked = check_mask("diffuse", diffuse, (model.n,))
    if not marked.any():
        raise ValueError("diffuse marks no state, wants one at least")
    cov = model.cov * ~marked * ~marked[:, None]
    mean, unknown = model.mean.copy(), np.eye(model.n)[:, marked]
    # Entries of x one at a time: whitened by the root of R they are independent.
    L = gaussian.factor("R", model.R)
    H: Array = solve_triangular(L, model.H, lower=True)
    x = solve_triangular(L, x.T, lower=True).T
    log_p, t = 0.0, 0
    while unknown.shape[1] > 0:
        if t == len(x):
            raise ValueError(
                "diffuse marks states that x leaves unknown to its end, wants a "
                "prior for them or more observations"
            )
        if t > 0:
            mean, cov = model.F @ mean, model.F @ cov @ model.F.T + model.Q
            unknown = model.F @ unknown
        if seen[t]:
            log_p -= float(np.log(L.diagonal()).sum())
            for h, entry in zip(H, x[t], strict=True):
                mean, cov, unknown, gained = _absorb_diffuse(
                    mean, cov, unknown, entry, h
                )
                log_p += gained
        t += 1
    start = replace(model, mean=mean, cov=symmetric(cov))
    return DiffuseStart(start, t, log_p)


# An observation that sees less than this share of what is unknown sees rounding.
UNSEEN = 1e-20


def _absorb_diffuse(
    mean: Array, cov: Array, unknown: Array, x: float, h: Array
) -> tuple[Array, Array, Array, float]:
    """Condition N(mean, cov + κ Γ Γᵀ), κ → ∞, on x = h z + N(0, 1); Γ is `unknown`."""
    e = x - h @ mean
    Ph, gamma = cov @ h, unknown.T @ h
    s, seen = h @ Ph + 1.0, gamma @ gamma
    if seen <= UNSEEN * (h @ h) * (unknown * unknown).sum():
        K = Ph / s
        log_p = -0.5 * (LOG_2PI + np.log(s) + e * e / s)
        return mean + K * e, cov - np.outer(K, Ph), unknown, float(log_p)
    K = unknown @ gamma / seen  # eq kalman-diffuse-gain
    cross = np.outer(K, Ph)
    cov = cov + s * np.outer(K, K) - cross - cross.T  # eq kalman-diffuse-update
    V = np.linalg.qr(gamma[:, None], mode="complete")[0][:, 1:]  # perpendicular to it
    log_p = -0.5 * (LOG_2PI + np.log(seen))  # eq kalman-diffuse-log
    return mean + K * e, cov, unknown @ V, float(log_p)


# ------------------------------------------------------------ square roots


def sqrt_filter(
    model: LinearGaussian, x: Array, observed: BoolArray | None = None
) -> Filtered:
    """`kalman_filter` on Cholesky factors: no covariance can lose its sign.

    Cost as `kalman_filter`, about five times the time.

    Raises:
        ValueError: a malformed argument, or an innovation covariance that is singular.
    """
    model, x, seen = _problem(model, x, observed)
    roots = [gaussian.square_root(n, getattr(model, n)) for n in ("cov", "Q", "R")]
    B, C = roots[1:]
    out = _empty(model, len(x))
    mean, L = model.mean, _lower(roots[0])
    for t in range(len(x)):
        if t > 0:
            mean = model.F @ mean
            L = _lower(np.hstack([model.F @ L, B]))  # eq kalman-sqrt-predict
        out.predicted_mean[t], out.predicted_cov[t] = mean, L @ L.T
        if seen[t]:
            mean, L, out.log_p[t] = sqrt_update(mean, L, x[t], model.H, C)
        out.mean[t], out.cov[t] = mean, L @ L.T
    return out


def sqrt_update(
    mean: Array, L: Array, x: Array, H: Array, C: Array
) -> tuple[Array, Array, float]:
    """`update` on square roots: L Lᵀ is the covariance of the state, C Cᵀ that of x.

    mean (n,), L (n, n), x (D,), H (D, n), C (D, D).  Cost O((n + D)³).

    Raises:
        ValueError: a malformed argument, or an innovation covariance that is singular.
    """
    H, C = _numbers("H", H, ("D", "n")), _square("C", C)
    D, n = H.shape
    mean, L = _numbers("mean", mean, (n,)), _numbers("L", L, (n, n))
    x, C = _numbers("x", x, (D,)), _numbers("C", C, (D, D))
    table = np.block([[C, H @ L], [np.zeros((n, D)), L]])
    table = _lower(table)  # eq kalman-sqrt-update
    root, bar = table[:D, :D], table[D:, :D]
    if (np.diag(root) <= 0).any():
        raise ValueError("C and L leave x a variance of zero, want some")
    v = np.linalg.solve(root, x - H @ mean)
    log_p = -0.5 * (v @ v + D * LOG_2PI) - np.log(np.diag(root)).sum()
    return mean + bar @ v, table[D:, D:], float(log_p)


def _lower(B: Array) -> Array:
    """The lower triangular L, diagonal not negative, with L Lᵀ = B Bᵀ."""
    upper: Array = np.asarray(np.linalg.qr(B.T)[1])
    sign = np.where(np.diag(upper) < 0, -1.0, 1.0)
    out: Array = (upper * sign[:, None]).T
    return out


# ------------------------------------------------------------ learning


@dataclass(frozen=True, slots=True)
class EMResult:
    """What `em` found: the model, log p(x) at each step, and whether it settled."""

    model: LinearGaussian
    log_evidence: Array
    converged: bool


def em_step(
    model: LinearGaussian,
    sequences: Sequence[Array],
    observed: Sequence[BoolArray] | None = None,
    learn: Sequence[str] = PARAMETERS,
) -> tuple[LinearGaussian, float]:
    """One step of EM: the improved model, and log p(x) of the model that came in.

    `sequences` are independent recordings of one model; `learn` names the parameters
    that may change.  Shumway & Stoffer 1982; Ghahramani & Hinton 1996.  Cost O(Σ T n³).

    Raises:
        ValueError: a malformed argument, or as `smooth`.
    """
    model = check_type("model", model, LinearGaussian)
    learn = _check_learn(learn)
    sequences, masks = _check_sequences(model, sequences, observed)
    posts = [smooth(model, x, seen) for x, seen in zip(sequences, masks, strict=True)]
    found = _m_start(model, posts, learn)
    if any(len(x) > 1 for x in sequences):
        found |= _m_dynamics(model, posts, learn)
    if any(seen.any() for seen in masks):
        found |= _m_emissions(model, posts, sequences, masks, learn)
    better = replace(
        model, **{name: found.get(name, getattr(model, name)) for name in learn}
    )
    return better, float(sum(post.log_evidence for post in posts))


def em(
    model: LinearGaussian,
    sequences: Sequence[Array],
    n_iter: int = 100,
    tol: float = 1e-6,
    observed: Sequence[BoolArray] | None = None,
    learn: Sequence[str] = PARAMETERS,
) -> EMResult:
    """Maximum likelihood by EM from `model`; stops when log p(x) gains less than `tol`.

    Raises:
        ValueError: as `em_step`, or `n_iter` below one, or `tol` negative.
    """
    n_iter, tol = check_whole("n_iter", n_iter, 1), check_scalar("tol", tol, 0.0)
    history: list[float] = []
    for _ in range(n_iter):
        better, log_p = em_step(model, sequences, observed, learn)
        history.append(log_p)
        if len(history) > 1 and history[-1] - history[-2] < tol:
            return EMResult(model, np.array(history), True)
        model = better
    history.append(em_step(model, sequences, observed, learn)[1])
    return EMResult(model, np.array(history), False)


def _m_start(
    model: LinearGaussian, posts: Sequence[Smoothed], learn: Sequence[str]
) -> dict[str, Array]:
    first = np.stack([post.mean[0] for post in posts])
    mean = first.mean(axis=0) if "mean" in learn else model.mean  # eq kalman-m-start
    spread = (first - mean).T @ (first - mean) + sum(post.cov[0] for post in posts)
    return {"mean": mean, "cov": symmetric(spread / len(posts))}


def _m_dynamics(
    model: LinearGaussian, posts: Sequence[Smoothed], learn: Sequence[str]
) -> dict[str, Array]:
    old = np.concatenate([post.mean[:-1] for post in posts])
    new = np.concatenate([post.mean[1:] for post in posts])
    P_old = _total([post.cov[:-1] for post in posts])
    P_new = _total([post.cov[1:] for post in posts])
    C = _total([post.cross for post in posts])
    F = model.F
    if "F" in learn:
        F = gaussian.gain(new.T @ old + C, old.T @ old + P_old)  # eq kalman-m-F
    miss = new - old @ F.T
    CF = C @ F.T
    Q = miss.T @ miss + P_new - CF - CF.T + F @ P_old @ F.T  # eq kalman-m-Q
    return {"F": F, "Q": symmetric(Q / len(new))}


def _m_emissions(
    model: LinearGaussian,
    posts: Sequence[Smoothed],
    sequences: Sequence[Array],
    masks: Sequence[BoolArray],
    learn: Sequence[str],
) -> dict[str, Array]:
    x = np.concatenate([x[seen] for x, seen in zip(sequences, masks, strict=True)])
    pairs = list(zip(posts, masks, strict=True))
    z = np.concatenate([post.mean[seen] for post, seen in pairs])
    P = _total([post.cov[seen] for post, seen in pairs])
    H = model.H
    if "H" in learn:
        H = gaussian.gain(x.T @ z, z.T @ z + P)  # eq kalman-m-H
    miss = x - z @ H.T
    R = miss.T @ miss + H @ P @ H.T  # eq kalman-m-R
    return {"H": H, "R": symmetric(R / len(x))}


def _total(stacks: Sequence[Array]) -> Array:
    out: Array = np.concatenate(stacks).sum(axis=0)
    return out


# ------------------------------------------------------------ nonlinear models

Function = Callable[[Array, int], Array]


@dataclass(frozen=True, slots=True)
class Nonlinear:
    """z₁ ~ N(mean, cov), zₜ = f(z₍ₜ₋₁₎, t) + N(0, Q), xₜ = h(zₜ, t) + N(0, R).

    f and h take states (N, n) and the index t of the step that they lead to, or that
    they describe, counted from 0; f returns (N, n), h returns (N, D).

    Raises:
        ValueError: a malformed argument, or shapes that do not fit.
    """

    mean: Array
    cov: Array
    f: Function
    Q: Array
    h: Function
    R: Array

    def __post_init__(self) -> None:
        mean = _numbers("mean", self.mean, ("n",))
        good = {"mean": mean.copy()}
        for name, side in (("cov", len(mean)), ("Q", len(mean)), ("R", "D")):
            given = _numbers(name, getattr(self, name), (side, side))
            gaussian.square_root(name, given)
            good[name] = symmetric(given)
        for name in ("f", "h"):
            if not callable(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)!r}, wants a function")
        for name, value in good.items():
            object.__setattr__(self, name, value)

    @property
    def n(self) -> int:
        """Side of a hidden state."""
        return len(self.mean)

    @property
    def D(self) -> int:
        """Side of an observation."""
        return len(self.R)


def extended_filter(
    model: Nonlinear,
    f_slope: Function,
    h_slope: Function,
    x: Array,
    observed: BoolArray | None = None,
) -> Filtered:
    """The Kalman filter of the model linearised at the present estimate.

    `f_slope` and `h_slope` take one state (n,) and t and return the derivatives of f
    and h, (n, n) and (D, n).  `log_p` is an approximation, too.

    Raises:
        ValueError: a malformed argument, or a function that returns another shape.
    """
    model, x, seen = _nonlinear_problem(model, x, observed)
    out = _empty(model, len(x))
    mean, cov = model.mean, model.cov
    for t in range(len(x)):
        if t > 0:
            F = _returned("f_slope", f_slope(mean, t), (model.n, model.n))
            mean = _returned("f", model.f(mean[None], t), (1, model.n))[0]
            cov = symmetric(F @ cov @ F.T + model.Q)  # eq kalman-extended
        out.predicted_mean[t], out.predicted_cov[t] = mean, cov
        if seen[t]:
            H = _returned("h_slope", h_slope(mean, t), (model.D, model.n))
            miss = x[t] - _returned("h", model.h(mean[None], t), (1, model.D))[0]
            mean, cov, out.log_p[t] = _absorb(mean, cov, miss + H @ mean, H, model.R, t)
        out.mean[t], out.cov[t] = mean, cov
    return _checked(out)


def sigma_points(mean: Array, cov: Array, kappa: float) -> tuple[Array, Array]:
    """The 2n + 1 points and weights of the unscented transform, (2n + 1, n), (2n + 1,).

    Their mean and covariance are exactly `mean` and `cov`.

    Raises:
        ValueError: a malformed argument, or a kappa of −n or less.
    """
    mean = _numbers("mean", mean, ("n",))
    n = len(mean)
    cov = _numbers("cov", cov, (n, n))
    kappa = check_scalar("kappa", kappa)
    if n + kappa <= 0:
        raise ValueError(f"kappa is {kappa}, wants more than −n, {-n}")
    arms = np.sqrt(n + kappa) * gaussian.square_root("cov", cov).T
    points = mean + np.vstack([np.zeros((1, n)), arms, -arms])  # eq kalman-sigma-points
    weights = np.full(2 * n + 1, 0.5 / (n + kappa))
    weights[0] = kappa / (n + kappa)
    return points, weights


def unscented(
    mean: Array, cov: Array, function: Callable[[Array], Array], kappa: float
) -> tuple[Array, Array, Array]:
    """Mean (D,) and covariance (D, D) of function(z), and Cov(z, function(z)) (n, D).

    Raises:
        ValueError: as `sigma_points`, or a function that does not return a row a point.
    """
    points, weights = sigma_points(mean, cov, kappa)
    images = check_array("function(points)", function(points), (len(points), "D"))
    mean_y = weights @ images  # eq kalman-unscented
    apart, around = images - mean_y, points - mean
    cov_y = (weights[:, None] * apart).T @ apart
    return mean_y, symmetric(cov_y), (weights[:, None] * around).T @ apart


def _at(function: Function, t: int) -> Callable[[Array], Array]:
    return lambda z: function(z, t)


def unscented_filter(
    model: Nonlinear, x: Array, kappa: float, observed: BoolArray | None = None
) -> Filtered:
    """The filter that carries 2n + 1 points through f and h instead of slopes.

    Raises:
        ValueError: a malformed argument, or as `unscented`.
    """
    model, x, seen = _nonlinear_problem(model, x, observed)
    out = _empty(model, len(x))
    mean, cov = model.mean, model.cov
    for t in range(len(x)):
        if t > 0:
            mean, cov, _ = unscented(mean, cov, _at(model.f, t), kappa)
            cov = cov + model.Q
        out.predicted_mean[t], out.predicted_cov[t] = mean, cov
        if seen[t]:
            there = unscented(mean, cov, _at(model.h, t), kappa)
            S = there[1] + model.R
            out.log_p[t] = gaussian.log_density(x[t], there[0], S)
            mean, cov = gaussian.condition(mean, cov, there[2], there[0], S, x[t])
        out.mean[t], out.cov[t] = mean, cov
    return _checked(out)


# ------------------------------------------------------------ checks at the door


def _numbers(name: str, a: Array, shape: tuple[int | str, ...]) -> Array:
    return check_array(name, a, shape, low=-ROOT_HUGE, high=ROOT_HUGE)


def _square(name: str, a: Array) -> Array:
    return _numbers(name, a, ("n", "n"))


def _problem(
    model: LinearGaussian, x: Array, observed: BoolArray | None
) -> tuple[LinearGaussian, Array, BoolArray]:
    model = check_type("model", model, LinearGaussian)
    return model, *_check_data("x", x, observed, model.D)


def _nonlinear_problem(
    model: Nonlinear, x: Array, observed: BoolArray | None
) -> tuple[Nonlinear, Array, BoolArray]:
    model = check_type("model", model, Nonlinear)
    return model, *_check_data("x", x, observed, model.D)


def _check_data(
    name: str, x: Array, observed: BoolArray | None, D: int, mask: str = "observed"
) -> tuple[Array, BoolArray]:
    """Observations (T, D) with zeros where none was made, and the mask (T,)."""
    x = check_real(name, x)
    if D == 1 and x.ndim == 1:
        x = x[:, None]
    if x.ndim != 2 or x.shape[1] != D or len(x) == 0:
        raise ValueError(f"{name} has shape {x.shape}, wants (T, {D}) with T ≥ 1")
    if observed is None:
        seen = np.ones(len(x), dtype=bool)
    else:
        seen = check_mask(mask, observed, (len(x),))
        x = np.where(seen[:, None], x, 0.0)
    return _numbers(name, x, x.shape), seen


def _check_sequences(
    model: LinearGaussian,
    sequences: Sequence[Array],
    observed: Sequence[BoolArray] | None,
) -> tuple[list[Array], list[BoolArray]]:
    given = check_list("sequences", sequences)
    masks = (
        [None] * len(given) if observed is None else check_list("observed", observed)
    )
    if len(masks) != len(given):
        raise ValueError(f"observed holds {len(masks)} masks, wants {len(given)}")
    pairs = [
        _check_data(f"sequences[{i}]", x, seen, model.D, f"observed[{i}]")
        for i, (x, seen) in enumerate(zip(given, masks, strict=True))
    ]
    return [x for x, _ in pairs], [seen for _, seen in pairs]


def _check_learn(learn: Sequence[str]) -> tuple[str, ...]:
    names = tuple(check_list("learn", learn))
    for name in names:
        if name not in PARAMETERS:
            raise ValueError(f"learn names {name!r}, wants some of {PARAMETERS}")
    return names


def _check_filtered(
    filtered: Filtered, model: LinearGaussian, T: int | None = None
) -> Filtered:
    filtered = check_type("filtered", filtered, Filtered)
    steps = len(filtered.mean) if T is None else T
    want = {
        "mean": (steps, model.n),
        "cov": (steps, model.n, model.n),
        "log_p": (steps,),
    }
    for field in fields(filtered):
        shape = want[field.name.removeprefix("predicted_")]
        _numbers(f"filtered.{field.name}", getattr(filtered, field.name), shape)
    return filtered


def _empty(model: LinearGaussian | Nonlinear, T: int) -> Filtered:
    n = model.n
    means, covs = np.empty((2, T, n)), np.empty((2, T, n, n))
    return Filtered(means[0], covs[0], means[1], covs[1], np.zeros(T))


def _checked(out: Filtered) -> Filtered:
    """What a filter found, unless rounding or overflow has spoilt it."""
    if not all(np.isfinite(getattr(out, f.name)).all() for f in fields(out)):
        raise ValueError("model makes moments overflow, wants ones that stay finite")
    variance = np.diagonal(out.cov, axis1=1, axis2=2)
    if (variance < 0).any():
        t = int(np.argmax((variance < 0).any(axis=1)))
        raise ValueError(
            f"model is so ill-conditioned that rounding makes a variance negative at "
            f"step {t}, wants `sqrt_filter`"
        )
    return out


def _returned(name: str, value: Array, shape: tuple[int, ...]) -> Array:
    return _numbers(f"what {name} returns", value, shape)
