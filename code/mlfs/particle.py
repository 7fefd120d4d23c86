"""Particle filters: weighted samples where no formula is left.

Chapter: book/kalman-and-particle-filters/theory.md.  A comment `# eq NAME` marks the
line that implements the displayed equation labelled NAME there.

    N, n, D, T       number of particles, sides of z and x, number of time steps
    z                particles, one hidden state a row                 (N, n)
    x[t]             observation at time t                             (T, D) or (T,)
    log_w, w         log weights, and weights that sum to one          (N,)
    ess              effective sample size, 1 / Σ w²                   scalar
    ancestor[t, i]   the particle at t − 1 from which particle i came  (T, N)

Densities enter as logarithms throughout.  A model is a handful of functions that work
on all particles at once; `t` counts from 0 and is the step that they lead to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, isnan
from typing import Any

import numpy as np
from scipy.special import gammaln

from mlfs.core import gaussian
from mlfs.core.gaussian import LOG_2PI
from mlfs.core.numerics import (
    Array,
    BoolArray,
    IntArray,
    check_array,
    check_mask,
    check_real,
    check_rng,
    check_scalar,
    check_simplex,
    check_type,
    check_whole,
)
from mlfs.kalman import Nonlinear

Rng = np.random.Generator

# ------------------------------------------------------------ weights


def normalise(log_w: Array) -> tuple[Array, float]:
    """Weights w (N,) that sum to one, and log Σ exp(log_w).

    The largest is subtracted first, so nothing overflows and not all can underflow.

    Raises:
        ValueError: no entry, NaN, +inf, or −inf throughout.
    """
    log_w = check_array("log_w", log_w, ("N",), allow=(-np.inf,))
    top = log_w.max()
    if top == -np.inf:
        raise ValueError("log_w is -inf throughout, wants some weight above zero")
    w = np.exp(log_w - top)
    total = w.sum()
    return w / total, float(top + np.log(total))  # eq particle-log-weights


def importance(log_target: Array, log_proposal: Array) -> tuple[Array, float]:
    """Weights of samples of a proposal as samples of a target, and log Ẑ.

    Both densities (N,) are taken at the samples; the target need not be normalised, and
    Ẑ, the mean of their ratios, estimates its integral.

    Raises:
        ValueError: a malformed argument, or a proposal of density zero at a sample.
    """
    log_target = check_array("log_target", log_target, ("N",), allow=(-np.inf,))
    log_proposal = check_array("log_proposal", log_proposal, log_target.shape)
    w, log_sum = normalise(log_target - log_proposal)  # eq particle-self-normalised
    return w, log_sum - float(np.log(len(w)))  # eq particle-importance


def effective_sample_size(w: Array) -> float:
    """1 / Σ w²: N for equal weights, 1 when a single particle has it all.

    Raises:
        ValueError: weights that are negative or do not sum to one.
    """
    w = check_simplex("w", w, ("N",))
    return float(1.0 / (w @ w))  # eq particle-ess


# ------------------------------------------------------------ resampling


def multinomial(w: Array, rng: Rng) -> IntArray:
    """N independent draws from the weights: indices (N,), ascending.  Cost O(N log N).

    Raises:
        ValueError: weights that do not sum to one, or no Generator.
    """
    w, rng = check_simplex("w", w, ("N",)), check_rng(rng)
    return _multinomial(w, rng)


def stratified(w: Array, rng: Rng) -> IntArray:
    """One draw in each of N equal strata of [0, 1): indices (N,), ascending.

    Raises:
        ValueError: weights that do not sum to one, or no Generator.
    """
    w, rng = check_simplex("w", w, ("N",)), check_rng(rng)
    return _stratified(w, rng)


def systematic(w: Array, rng: Rng) -> IntArray:
    """A comb of N equally spaced teeth, shifted at random: indices (N,), ascending.

    Raises:
        ValueError: weights that do not sum to one, or no Generator.
    """
    w, rng = check_simplex("w", w, ("N",)), check_rng(rng)
    return _systematic(w, rng)


def _multinomial(w: Array, rng: Rng) -> IntArray:
    return _pick(w, np.sort(rng.random(len(w))))  # eq particle-multinomial


def _stratified(w: Array, rng: Rng) -> IntArray:
    N = len(w)
    return _pick(w, (np.arange(N) + rng.random(N)) / N)  # eq particle-stratified


def _systematic(w: Array, rng: Rng) -> IntArray:
    # `_pick` without a search: the teeth (i + u) / N below an edge are counted.
    N = len(w)
    edges = w.cumsum()
    edges /= edges[-1]
    below = np.ceil(N * edges - rng.random()).astype(np.intp)  # eq particle-systematic
    below[edges == 1.0] = N  # also where N − u rounds to N − 1
    out: IntArray = np.bincount(below, minlength=N + 1)[:N].cumsum()
    return out


def _pick(w: Array, places: Array) -> IntArray:
    """The particle that owns each place, when [0, 1) is dealt out by weight."""
    edges = w.cumsum()
    edges /= edges[-1]  # exactly 1, which no place reaches
    out: IntArray = np.searchsorted(edges, places, side="right")
    if places[-1] >= 1.0:  # (N − 1 + u) / N rounds to 1 when u is just below 1
        out[-1] = np.flatnonzero(w)[-1]
    return out


SCHEMES = {"multinomial": multinomial, "stratified": stratified}
SCHEMES |= {"systematic": systematic}
# The same without their checks, for weights that are ours.
_PICK = {"multinomial": _multinomial, "stratified": _stratified}
_PICK |= {"systematic": _systematic}

# ------------------------------------------------------------ the model


@dataclass(frozen=True, slots=True)
class StateSpace:
    """A model by its functions, each for all particles at once.

    `draw_first(N, rng)` and `draw_next(z, t, rng)` draw states (N, n);
    `log_likelihood(x, z, t)` is log p(xₜ | zₜ), (N,).
    `log_transition(after, z, t)` is log p(zₜ = after | z₍ₜ₋₁₎ = z), for leading axes
    that broadcast; only what looks back or guides needs it.

    Raises:
        ValueError: something that is no function.
    """

    draw_first: Callable[[int, Rng], Array]
    draw_next: Callable[[Array, int, Rng], Array]
    log_likelihood: Callable[[Array, Array, int], Array]
    log_transition: Callable[[Array, Array, int], Array] | None = None

    def __post_init__(self) -> None:
        for name in ("draw_first", "draw_next", "log_likelihood"):
            _check_function(name, getattr(self, name))
        if self.log_transition is not None:
            _check_function("log_transition", self.log_transition)


@dataclass(frozen=True, slots=True)
class Guide:
    """A proposal that has seen the observation, and the weights that make up for it.

    `draw_first(x, N, rng)` and `draw_next(x, z, t, rng)` propose states (N, n).
    `log_weight_first(x, after)` is log p(x₁ | after) p(after) / proposal, and
    `log_weight(x, after, z, t)` log p(xₜ | after) p(after | z) / proposal, (N,).

    Raises:
        ValueError: something that is no function.
    """

    draw_first: Callable[[Array, int, Rng], Array]
    draw_next: Callable[[Array, Array, int, Rng], Array]
    log_weight_first: Callable[[Array, Array], Array]
    log_weight: Callable[[Array, Array, Array, int], Array]

    def __post_init__(self) -> None:
        for name in ("draw_first", "draw_next", "log_weight_first", "log_weight"):
            _check_function(name, getattr(self, name))


# ------------------------------------------------------------ the filter


@dataclass(frozen=True, slots=True)
class History:
    """Every particle z (T, N, n), its log weight and its ancestor, (T, N) each."""

    z: Array
    log_w: Array
    ancestor: IntArray


@dataclass(frozen=True, slots=True)
class Run:
    """What a particle filter found.

    `mean` (T, n) and `cov` (T, n, n) estimate the moments of zₜ given x₍₁..ₜ₎; `ess`
    (T,) is the effective sample size before resampling; `resampled` (T,) says after
    which steps it was done.  `log_p` (T,) estimates log p(xₜ | the past).
    """

    mean: Array
    cov: Array
    ess: Array
    resampled: BoolArray
    log_p: Array
    history: History | None

    @property
    def log_evidence(self) -> float:
        """Log Ẑ: Ẑ itself is an unbiased estimate of p(x), its logarithm is not."""
        return float(self.log_p.sum())  # eq particle-evidence


def particle_filter(
    model: StateSpace,
    x: Array,
    N: int,
    rng: Rng,
    *,
    guide: Guide | None = None,
    scheme: str = "systematic",
    threshold: float = 0.5,
    observed: BoolArray | None = None,
    keep: bool = False,
) -> Run:
    """Filter x by N particles; without a `guide` this is the bootstrap filter.

    Gordon, Salmond & Smith 1993.  After a step whose effective sample size is below
    threshold × N the particles are resampled: never with threshold 0 (sequential
    importance sampling), at every step with 1.  x is (T, D) or (T,).  Cost O(T N n²);
    memory O(T n²), with `keep` O(T N n).

    Raises:
        ValueError: a malformed argument, a function of the model that returns another
            shape or NaN, or an observation that no particle can explain.
    """
    model = check_type("model", model, StateSpace)
    x, seen = _check_data(x, observed)
    N, rng = check_whole("N", N, 1), check_rng(rng)
    if guide is not None:
        guide = check_type("guide", guide, Guide)
    if not isinstance(scheme, str) or scheme not in SCHEMES:
        raise ValueError(f"scheme is {scheme!r}, wants one of {sorted(SCHEMES)}")
    threshold = check_scalar("threshold", threshold, 0.0, 1.0)
    pick = _PICK[scheme]
    z = np.empty((0, 0))
    uniform = np.full(N, -np.log(N))
    log_w, same = uniform, np.arange(N)
    ancestor = same
    record = _Record(len(x), N, keep)
    for t in range(len(x)):
        z, gained = _advance(model, guide, x[t] if seen[t] else None, z, t, N, rng)
        log_w = log_w + gained
        w, log_p = _weigh(log_w, t)
        log_w -= log_p
        ess = float(1.0 / (w @ w))
        record.note(t, z, w, log_w, ancestor, ess, log_p)
        if t + 1 < len(x) and (ess < threshold * N or threshold == 1.0):
            ancestor, log_w = pick(w, rng), uniform
            z, record.resampled[t] = z.take(ancestor, axis=0), True
        else:
            ancestor = same
    return record.run()


def _advance(
    model: StateSpace,
    guide: Guide | None,
    x: Array | None,
    z: Array,
    t: int,
    N: int,
    rng: Rng,
) -> tuple[Array, Array]:
    """Move every particle to step t, and what that adds to its log weight."""
    if guide is not None and x is not None:
        if t == 0:
            after = _states("guide.draw_first", guide.draw_first(x, N, rng), N)
            return after, _logs("log_weight_first", guide.log_weight_first(x, after), N)
        after = _states("guide.draw_next", guide.draw_next(x, z, t, rng), N)
        gained = guide.log_weight(x, after, z, t)  # eq particle-guided
        return after, _logs("log_weight", gained, N)
    if t == 0:
        after = _states("draw_first", model.draw_first(N, rng), N)
    else:
        after = _states("draw_next", model.draw_next(z, t, rng), N)
    if x is None:
        return after, np.zeros(N)
    gained = model.log_likelihood(x, after, t)  # eq particle-bootstrap
    return after, _logs("log_likelihood", gained, N)


def _weigh(log_w: Array, t: int) -> tuple[Array, float]:
    """`normalise` without its checks: the sum shows whether all is well."""
    top = log_w.max()
    if not isfinite(top):
        raise ValueError(
            f"x[{t}] cannot be explained by any particle, the model wants to give "
            "some of them a likelihood above zero: more particles, or wider noise"
            if top == -np.inf
            else f"model gives x[{t}] a log likelihood of {top}, wants less than inf"
        )
    w = log_w - top
    np.exp(w, out=w)
    total = w.sum()
    w /= total
    return w, float(top + np.log(total))


class _Record:
    """What a run leaves behind, filled in step by step."""

    def __init__(self, T: int, N: int, keep: bool) -> None:
        self.T, self.N, self.keep = T, N, keep
        self.ess, self.log_p = np.empty(T), np.empty(T)
        self.resampled = np.zeros(T, dtype=bool)
        self.mean = self.cov = self.z = np.empty(0)
        self.log_w = np.empty((T, N)) if keep else np.empty((0, 0))
        self.ancestor = np.empty(self.log_w.shape, dtype=np.int64)

    def note(
        self,
        t: int,
        z: Array,
        w: Array,
        log_w: Array,
        ancestor: IntArray,
        ess: float,
        log_p: float,
    ) -> None:
        if t == 0:
            n = z.shape[1]
            self.mean, self.cov = np.empty((self.T, n)), np.empty((self.T, n, n))
            self.z = np.empty((self.T if self.keep else 0, self.N, n))
        mean = w @ z
        apart = z - mean
        self.mean[t], self.cov[t] = mean, (apart.T * w) @ apart
        self.ess[t], self.log_p[t] = ess, log_p
        if self.keep:
            self.z[t], self.log_w[t], self.ancestor[t] = z, log_w, ancestor

    def run(self) -> Run:
        history = History(self.z, self.log_w, self.ancestor) if self.keep else None
        return Run(self.mean, self.cov, self.ess, self.resampled, self.log_p, history)


# ------------------------------------------------------------ looking back


def genealogy(history: History) -> Array:
    """The path that led to each particle of the last step, (N, T, n).

    Raises:
        ValueError: no History.
    """
    history = _check_history(history)
    T, N, _ = history.z.shape
    index = np.arange(N)
    path = np.empty_like(history.z)
    for t in range(T - 1, -1, -1):
        path[t] = history.z[t, index]
        index = history.ancestor[t, index]
    return np.ascontiguousarray(path.swapaxes(0, 1))


def backward_simulate(model: StateSpace, history: History, n: int, rng: Rng) -> Array:
    """n whole paths drawn from p(z | all of x), (n, T, side of a state).

    Godsill, Doucet & West 2004.  Cost and memory a step O(n N).

    Raises:
        ValueError: a malformed argument, a model without `log_transition`, or paths
            that it gives no density.
    """
    model = check_type("model", model, StateSpace)
    if model.log_transition is None:
        raise ValueError("model has no log_transition, wants one to look back")
    history = _check_history(history)
    n, rng = check_whole("n", n, 1), check_rng(rng)
    T, N, _ = history.z.shape
    path = np.empty((T, n, history.z.shape[2]))
    w = np.exp(history.log_w[-1])
    path[-1] = history.z[-1, _pick(w, rng.random(n))]
    for t in range(T - 2, -1, -1):
        move = model.log_transition(path[t + 1][:, None], history.z[t][None], t + 1)
        move = check_array(
            "what log_transition returns", move, (n, N), allow=(-np.inf,)
        )
        log_w = history.log_w[t] + move  # eq particle-backward
        path[t] = history.z[t, _pick_each(log_w, rng)]
    return np.ascontiguousarray(path.swapaxes(0, 1))


def _pick_each(log_w: Array, rng: Rng) -> IntArray:
    """One column for each row, drawn in proportion to exp(log_w)."""
    top = log_w.max(axis=1, keepdims=True)
    if not np.isfinite(top).all():
        raise ValueError("model leads from no particle to the next one, wants one to")
    edges = np.exp(log_w - top).cumsum(axis=1)
    u = rng.random((len(log_w), 1)) * edges[:, -1:]
    out: IntArray = (edges <= u).sum(axis=1)
    kept: IntArray = np.minimum(out, log_w.shape[1] - 1)
    return kept


# ------------------------------------------------------------ sums done by formula


@dataclass(frozen=True, slots=True)
class Conditional:
    """A model that is linear and Gaussian once u is known.

    `draw_first(N, rng)` and `draw_next(u, t, rng)` draw the part u, one row a particle.
    `parts(u, t)` returns F, Q, H, R of step t: matrices, or stacks of N.  Given u the
    state is zₜ = F z₍ₜ₋₁₎ + N(0, Q), from z₁ ~ N(mean, cov), and xₜ = H zₜ + N(0, R).

    Raises:
        ValueError: something that is no function, or no covariance.
    """

    mean: Array
    cov: Array
    draw_first: Callable[[int, Rng], Any]
    draw_next: Callable[[Any, int, Rng], Any]
    parts: Callable[[Any, int], tuple[Array, Array, Array, Array]]

    def __post_init__(self) -> None:
        mean = check_array("mean", self.mean, ("n",))
        cov = check_array("cov", self.cov, (len(mean), len(mean)))
        gaussian.square_root("cov", cov)
        object.__setattr__(self, "mean", mean.copy())
        object.__setattr__(self, "cov", cov.copy())
        for name in ("draw_first", "draw_next", "parts"):
            _check_function(name, getattr(self, name))


@dataclass(frozen=True, slots=True)
class MixtureRun:
    """A run whose particles are Gaussians: as `Run`, and the share of each u.

    `u_mean` (T, k) estimates the mean of u given x₍₁..ₜ₎.
    """

    mean: Array
    cov: Array
    u_mean: Array
    ess: Array
    log_p: Array

    @property
    def log_evidence(self) -> float:
        """Log Ẑ, as that of `Run`."""
        return float(self.log_p.sum())


def rao_blackwell_filter(
    model: Conditional, x: Array, N: int, rng: Rng, *, threshold: float = 0.5
) -> MixtureRun:
    """Sample u only; each particle carries a Kalman filter for the rest.

    Doucet, de Freitas, Murphy & Russell 2000.  x is (T, D) or (T,).  Cost O(T N n³).

    Raises:
        ValueError: a malformed argument, a function of the model that returns another
            shape, or an innovation covariance that is not positive definite.
    """
    model = check_type("model", model, Conditional)
    x, _ = _check_data(x, None)
    N, rng = check_whole("N", N, 1), check_rng(rng)
    threshold = check_scalar("threshold", threshold, 0.0, 1.0)
    T, n = len(x), len(model.mean)
    mean, cov = np.tile(model.mean, (N, 1)), np.tile(model.cov, (N, 1, 1))
    uniform = np.full(N, -np.log(N))
    log_w, u = uniform, model.draw_first(N, rng)
    out = MixtureRun(
        np.empty((T, n)),
        np.empty((T, n, n)),
        np.empty((T, np.reshape(u, (N, -1)).shape[1])),
        np.empty(T),
        np.empty(T),
    )
    for t in range(T):
        u = u if t == 0 else model.draw_next(u, t, rng)
        F, Q, H, R = _check_parts(model.parts(u, t), n, x.shape[1])
        if t > 0:
            mean = _times(F, mean)
            cov = F @ cov @ np.swapaxes(F, -1, -2) + Q
        mean, cov, gained = _update_each(mean, cov, x[t], H, R)
        log_w = log_w + gained  # eq particle-rao-blackwell
        w, out.log_p[t] = _weigh(log_w, t)
        log_w = log_w - out.log_p[t]
        out.mean[t], out.cov[t] = _mixture_moments(w, mean, cov)
        out.u_mean[t], out.ess[t] = w @ np.reshape(u, (N, -1)), 1.0 / (w @ w)
        if out.ess[t] < threshold * N:
            i, log_w = _systematic(w, rng), uniform
            u, mean, cov = u[i], mean[i], cov[i]
    return out


def _times(A: Array, v: Array) -> Array:
    """A v for a matrix or a stack of them, and a stack of vectors v (N, n)."""
    out: Array = (A @ v[:, :, None])[:, :, 0]
    return out


def _update_each(
    mean: Array, cov: Array, x: Array, H: Array, R: Array
) -> tuple[Array, Array, Array]:
    """The Kalman update of every particle's Gaussian, and log p(xₜ | its past)."""
    PHt = cov @ np.swapaxes(H, -1, -2)
    try:
        L = np.linalg.cholesky(H @ PHt + R)
    except np.linalg.LinAlgError as error:
        raise ValueError(
            "model.parts leave x a covariance that is not positive definite, want one"
        ) from error
    W = np.linalg.solve(L, np.swapaxes(PHt, -1, -2))
    v = np.linalg.solve(L, (x - _times(H, mean))[:, :, None])
    turned = np.swapaxes(W, -1, -2)
    log_det = np.log(np.diagonal(L, axis1=1, axis2=2)).sum(axis=1)
    log_p = -0.5 * ((v[:, :, 0] ** 2).sum(axis=1) + len(x) * LOG_2PI) - log_det
    return mean + (turned @ v)[:, :, 0], cov - turned @ W, log_p


def _mixture_moments(w: Array, mean: Array, cov: Array) -> tuple[Array, Array]:
    """Moments of Σ w N(mean, cov): the spread of the means adds to the covariances."""
    centre = w @ mean
    apart = mean - centre
    return centre, np.tensordot(w, cov, 1) + (apart * w[:, None]).T @ apart


# ------------------------------------------------------------ ready-made parts


def from_nonlinear(model: Nonlinear) -> StateSpace:
    """The same model with Gaussian noise, for particles.

    Raises:
        ValueError: no Nonlinear, or a Q or R that is singular (then its density does
            not exist).
    """
    model = check_type("model", model, Nonlinear)
    roots = [gaussian.factor(name, getattr(model, name)) for name in ("Q", "R")]
    first, n = gaussian.square_root("cov", model.cov), model.n

    def draw_first(N: int, rng: Rng) -> Array:
        out: Array = model.mean + rng.normal(size=(N, n)) @ first.T
        return out

    def draw_next(z: Array, t: int, rng: Rng) -> Array:
        return model.f(z, t) + rng.normal(size=z.shape) @ roots[0].T

    def log_likelihood(x: Array, z: Array, t: int) -> Array:
        return _log_normal(x - model.h(z, t), roots[1])

    def log_transition(after: Array, z: Array, t: int) -> Array:
        flat = z.reshape(-1, n)
        return _log_normal(after - model.f(flat, t).reshape(z.shape), roots[0])

    return StateSpace(draw_first, draw_next, log_likelihood, log_transition)


def optimal_guide(model: Nonlinear, H: Array) -> Guide:
    """Propose from p(zₜ | z₍ₜ₋₁₎, xₜ) where h(z) = H z: the weight is p(xₜ | z₍ₜ₋₁₎).

    Raises:
        ValueError: a malformed argument, shapes that do not fit, or an R that is
            singular.
    """
    model = check_type("model", model, Nonlinear)
    H = check_array("H", H, (model.D, model.n))
    moves = {"first": model.cov, "next": model.Q}
    gains, roots, spreads = {}, {}, {}
    for name, cov in moves.items():
        _, S, cross = gaussian.linear(np.zeros(model.n), cov, H, model.R)
        gains[name], roots[name] = gaussian.gain(cross, S), gaussian.factor("S", S)
        left = gaussian.symmetric(cov - gains[name] @ cross.T)
        spreads[name] = gaussian.square_root("cov", left)

    def draw(name: str, x: Array, centre: Array, rng: Rng) -> Array:
        moved = (x - centre @ H.T) @ gains[name].T
        out: Array = centre + moved + rng.normal(size=centre.shape) @ spreads[name].T
        return out

    def draw_first(x: Array, N: int, rng: Rng) -> Array:
        return draw("first", x, np.tile(model.mean, (N, 1)), rng)

    def draw_next(x: Array, z: Array, t: int, rng: Rng) -> Array:
        return draw("next", x, model.f(z, t), rng)

    def log_weight_first(x: Array, after: Array) -> Array:
        miss = np.tile(x - H @ model.mean, (len(after), 1))
        return _log_normal(miss, roots["first"])

    def log_weight(x: Array, after: Array, z: Array, t: int) -> Array:
        return _log_normal(
            x - model.f(z, t) @ H.T, roots["next"]
        )  # eq particle-optimal

    return Guide(draw_first, draw_next, log_weight_first, log_weight)


def growth_model() -> Nonlinear:
    """Kitagawa's model: z/2 + 25 z / (1 + z²) + 8 cos 1.2 t, seen as z² / 20.

    Step 0 is the start, N(0, 5), of which nothing is observed.  Noise variances 10
    and 1.  Netto, Gimeno & Mendes 1978; Kitagawa 1987.
    """

    def f(z: Array, t: int) -> Array:
        out: Array = 0.5 * z + 25.0 * z / (1.0 + z * z) + 8.0 * np.cos(1.2 * t)
        return out

    def h(z: Array, t: int) -> Array:
        out: Array = z * z / 20.0
        return out

    one = np.eye(1)
    return Nonlinear(np.zeros(1), 5.0 * one, f, 10.0 * one, h, one)


def double_well(dt: float, start: float = 1.0, spread: float = 0.1) -> StateSpace:
    """The diffusion dz = −4 z (z² − 1) dt + √2 dW in steps of dt seconds.

    Two valleys at ±1 with a hill between them.  It starts at N(start, spread²) and has
    no observations yet: `dataclasses.replace(model, log_likelihood=...)`.

    Raises:
        ValueError: a dt that is not positive, or above 0.05: the scheme would explode.
    """
    dt = check_scalar("dt", dt, 0.0, 0.05)
    if dt == 0:
        raise ValueError("dt is 0, wants a step above zero")
    start, spread = check_scalar("start", start), check_scalar("spread", spread, 0.0)

    def drift(z: Array) -> Array:
        return -4.0 * z * (z * z - 1.0)

    def draw_first(N: int, rng: Rng) -> Array:
        return start + spread * rng.normal(size=(N, 1))

    def draw_next(z: Array, t: int, rng: Rng) -> Array:
        noise = np.sqrt(2.0 * dt) * rng.normal(size=z.shape)
        out: Array = z + dt * drift(z) + noise  # eq particle-euler
        return out

    def log_transition(after: Array, z: Array, t: int) -> Array:
        miss = (after - z - dt * drift(z))[..., 0]
        out: Array = -0.25 * miss**2 / dt - 0.5 * np.log(4.0 * np.pi * dt)
        return out

    def nothing(x: Array, z: Array, t: int) -> Array:
        return np.zeros(len(z))

    return StateSpace(draw_first, draw_next, nothing, log_transition)


def spike_likelihood(
    log_rate: Callable[[Array], Array], dt: float
) -> Callable[[Array, Array, int], Array]:
    """Log p(counts | z) of Poisson neurons, as a StateSpace wants it.

    `log_rate(z)` returns the log firing rates (N, C) in log spikes/s at states (N, n);
    dt is the width of a bin in seconds, x[t] the counts (C,).

    Raises:
        ValueError: no function, or a dt that is not positive.
    """
    _check_function("log_rate", log_rate)
    dt = check_scalar("dt", dt, 0.0)
    if dt == 0:
        raise ValueError("dt is 0, wants a bin width above zero")

    def log_likelihood(x: Array, z: Array, t: int) -> Array:
        expected = log_rate(z) + np.log(dt)
        total = np.exp(expected) @ np.ones(expected.shape[1])
        out: Array = (
            expected @ x - total - gammaln(x + 1.0).sum()
        )  # eq particle-poisson
        return out

    return log_likelihood


def _log_normal(miss: Array, L: Array) -> Array:
    """Log N(miss; 0, L Lᵀ) along the last axis."""
    if len(L) == 1:
        s = L[0, 0]
        one: Array = -0.5 * (miss[..., 0] / s) ** 2 - np.log(s) - 0.5 * LOG_2PI
        return one
    white = miss @ np.linalg.solve(L, np.eye(len(L))).T
    log_det = np.log(np.diag(L)).sum()
    out: Array = -0.5 * ((white**2).sum(axis=-1) + len(L) * LOG_2PI) - log_det
    return out


# ------------------------------------------------------------ checks at the door


def _check_function(name: str, it: Any) -> None:
    if not callable(it):
        raise ValueError(f"{name} is {it!r}, wants a function")


def _check_data(x: Array, observed: BoolArray | None) -> tuple[Array, BoolArray]:
    x = check_real("x", x)
    x = x[:, None] if x.ndim == 1 else x
    if x.ndim != 2 or x.size == 0:
        raise ValueError(f"x has shape {x.shape}, wants (T, D) with T ≥ 1")
    if observed is None:
        return check_array("x", x, ("T", "D")), np.ones(len(x), dtype=bool)
    seen = check_mask("observed", observed, (len(x),))
    return check_array("x", np.where(seen[:, None], x, 0.0), ("T", "D")), seen


def _check_history(history: History) -> History:
    history = check_type("history", history, History)
    z = check_array("history.z", history.z, ("T", "N", "n"))
    check_array("history.log_w", history.log_w, z.shape[:2], allow=(-np.inf,))
    ancestor = check_array("history.ancestor", history.ancestor, z.shape[:2], low=0.0)
    if ancestor.max() >= z.shape[1]:
        raise ValueError(
            f"history.ancestor holds {ancestor.max():g}, wants 0 to {z.shape[1] - 1}"
        )
    return history


def _states(name: str, z: Array, N: int) -> Array:
    """Particles as a model's function returned them, if they are fit for use."""
    if type(z) is np.ndarray and z.ndim == 2 and len(z) == N and isfinite(z.sum()):
        return z
    return check_array(f"what {name} returns", z, (N, "n"))


def _logs(name: str, log_p: Array, N: int) -> Array:
    if type(log_p) is np.ndarray and log_p.shape == (N,) and log_p.dtype == np.float64:
        if not isnan(log_p.sum()):
            return log_p
    return check_array(f"what {name} returns", log_p, (N,), allow=(-np.inf,))


def _check_parts(parts: Any, n: int, D: int) -> tuple[Array, Array, Array, Array]:
    if not isinstance(parts, tuple) or len(parts) != 4:
        raise ValueError(f"model.parts returns {parts!r}, wants F, Q, H, R")
    want = {"F": (n, n), "Q": (n, n), "H": (D, n), "R": (D, D)}
    for (name, shape), part in zip(want.items(), parts, strict=True):
        if np.shape(part)[-2:] != shape or not np.isfinite(part).all():
            raise ValueError(
                f"model.parts returns {name} of shape {np.shape(part)}, wants finite "
                f"numbers, (..., {shape[0]}, {shape[1]})"
            )
    return parts
