"""Generalized linear models: families, IRLS, penalties, filters for spike trains.

Chapter: book/generalized-linear-models/theory.md.  A comment `# eq NAME` marks the line
that implements the displayed equation labelled NAME there.

    T, D         number of observations (time bins), number of features
    X[t, d]      feature d at time t, the design matrix               (T, D)
    y[t]         response at time t: a count, a choice, a number      (T,)
    w[d]         weight of feature d                                  (D,)
    offset[t]    known part of η; log Δt for counts in bins of Δt     (T,) or one number
    eta[t]       η = offset + X w, the linear predictor               (T,)
    mu[t]        μ = mean of y[t]                                     (T,)
    weights[t]   how often observation t counts                       (T,)
    P            penalty matrix: ½ wᵀ P w is charged                  (D, D)
    phi          dispersion φ: var y = φ V(μ)

Functions of (w, X, y, family) are the derivation's formulas, one line each; `fit` and
`lasso` are the fast forms.  Where a design is one-hot, `OneHot` stands in for X and the
matrix is never built.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import block_diag, cho_solve
from scipy.linalg.blas import dsyrk
from scipy.special import expit, gammaln, log_expit, log_ndtr, ndtri, xlogy

from mlfs.core.numerics import (
    LARGEST_WHOLE,
    Array,
    IntArray,
    check_array,
    check_counts,
    check_list,
    check_real,
    check_rng,
    check_scalar,
    check_type,
    check_whole,
)

# Features and weights up to HUGE can be multiplied and squared without overflow.
HUGE = 1e50
# A mean beyond this is refused: sums over it would overflow.
LARGEST_MEAN = 1e250

# ------------------------------------------------------------ families

# The fields of a family that are functions.
FORMULAS = (
    "mean",
    "link",
    "log_p",
    "kernel",
    "score",
    "information",
    "curvature",
    "variance",
    "deviance",
)


def _check_flag(name: str, it: object) -> bool:
    if not isinstance(it, (bool, np.bool_)):
        raise ValueError(f"{name} is {it!r}, wants True or False")
    return bool(it)


@dataclass(frozen=True, slots=True)
class Family:
    """A distribution of y given η, with the link that ties its mean to η.

    Functions of arrays of one shape: `mean(eta)`; `link(mu)`, its inverse;
    `log_p(y, eta, phi)`; `kernel(y, eta)`, the same at φ = 1 up to a constant;
    `score(y, eta)` = ∂ kernel/∂η; `information(eta)`, the variance of the score;
    `curvature(y, eta)` = −∂² kernel/∂η²; `variance(mu)`; `deviance(y, mu)`, of one
    observation.  `low` and `high` bound y, `whole` asks for whole numbers; with
    `dispersed` false, φ is one; `positive` families need η > 0.

    Raises:
        ValueError: a formula that is no function, or a malformed bound or flag.
    """

    name: str
    mean: Callable[[Array], Array]
    link: Callable[[Array], Array]
    log_p: Callable[[Array, Array, float], Array]
    kernel: Callable[[Array, Array], Array]
    score: Callable[[Array, Array], Array]
    information: Callable[[Array], Array]
    curvature: Callable[[Array, Array], Array]
    variance: Callable[[Array], Array]
    deviance: Callable[[Array, Array], Array]
    low: float = -HUGE
    high: float = HUGE
    whole: bool = False
    dispersed: bool = False
    positive: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ValueError(f"name is {self.name!r}, wants a text")
        for formula in FORMULAS:
            if not callable(getattr(self, formula)):
                raise ValueError(
                    f"{formula} is {getattr(self, formula)!r}, wants a function"
                )
        low = check_scalar("low", self.low, -HUGE, HUGE)
        high = check_scalar("high", self.high, -HUGE, HUGE)
        if not low < high:
            raise ValueError(f"low is {low:g}, high is {high:g}, want low below high")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        for flag in ("whole", "dispersed", "positive"):
            object.__setattr__(self, flag, _check_flag(flag, getattr(self, flag)))


def _gaussian_log_p(y: Array, eta: Array, phi: float) -> Array:
    out: Array = -0.5 * ((y - eta) ** 2 / phi + np.log(2 * np.pi * phi))
    return out  # eq glm-gaussian


def _bernoulli_log_p(y: Array, eta: Array, phi: float) -> Array:
    # log σ(η) = η + log σ(−η), and log_expit underflows on neither side.
    out: Array = y * log_expit(eta) + (1.0 - y) * log_expit(-eta)  # eq glm-bernoulli
    return out


def _poisson_log_p(y: Array, eta: Array, phi: float) -> Array:
    with np.errstate(over="ignore"):  # −inf says it all
        out: Array = y * eta - np.exp(eta) - gammaln(y + 1.0)  # eq glm-poisson
    return out


def _poisson_kernel(y: Array, eta: Array) -> Array:
    with np.errstate(over="ignore"):
        out: Array = y * eta - np.exp(eta)
    return out


def _gamma_kernel(y: Array, eta: Array) -> Array:
    good = eta > 0
    return np.where(good, np.log(np.where(good, eta, 1.0)) - y * eta, -np.inf)


def _gamma_log_p(y: Array, eta: Array, phi: float) -> Array:
    good = eta > 0
    rate = np.where(good, eta, 1.0)  # 1/μ
    shape = 1.0 / phi
    log_p = shape * (np.log(shape * rate * y) - rate * y) - np.log(y) - gammaln(shape)
    return np.where(good, log_p, -np.inf)


def _exp(eta: Array) -> Array:
    with np.errstate(over="ignore"):  # the caller looks whether the mean is finite
        out: Array = np.exp(eta)
    return out


def _mills(eta: Array) -> Array:
    """φ(η) / Φ(η), which is about −η where Φ underflows."""
    out: Array = np.exp(-0.5 * eta**2 - 0.5 * np.log(2 * np.pi) - log_ndtr(eta))
    return out


def _probit_curvature(y: Array, eta: Array) -> Array:
    up, down = _mills(eta), _mills(-eta)
    return y * up * (eta + up) + (1.0 - y) * down * (down - eta)


def _binary_deviance(y: Array, mu: Array) -> Array:
    return 2.0 * (_xlogy_ratio(y, mu) + _xlogy_ratio(1.0 - y, 1.0 - mu))


def _xlogy_ratio(y: Array, mu: Array) -> Array:
    """y log(y / μ), which is 0 at y = 0."""
    with np.errstate(divide="ignore"):
        out: Array = xlogy(y, y) - xlogy(y, mu)
    return out


GAUSSIAN = Family(
    "gaussian",
    mean=np.positive,
    link=np.positive,
    log_p=_gaussian_log_p,
    kernel=lambda y, eta: -0.5 * (y - eta) ** 2,
    score=lambda y, eta: y - eta,
    information=np.ones_like,
    curvature=lambda y, eta: np.ones_like(eta),
    variance=np.ones_like,
    deviance=lambda y, mu: (y - mu) ** 2,
    dispersed=True,
)
BERNOULLI = Family(
    "bernoulli",
    mean=expit,
    link=lambda mu: np.log(mu / (1.0 - mu)),
    log_p=_bernoulli_log_p,
    kernel=lambda y, eta: _bernoulli_log_p(y, eta, 1.0),
    score=lambda y, eta: y - expit(eta),
    information=lambda eta: expit(eta) * expit(-eta),
    curvature=lambda y, eta: expit(eta) * expit(-eta),
    variance=lambda mu: mu * (1.0 - mu),
    deviance=_binary_deviance,
    low=0.0,
    high=1.0,
)
PROBIT = replace(
    BERNOULLI,
    name="probit",
    mean=lambda eta: np.exp(log_ndtr(eta)),
    link=ndtri,
    log_p=lambda y, eta, phi: y * log_ndtr(eta) + (1.0 - y) * log_ndtr(-eta),
    kernel=lambda y, eta: y * log_ndtr(eta) + (1.0 - y) * log_ndtr(-eta),
    score=lambda y, eta: y * _mills(eta) - (1.0 - y) * _mills(-eta),
    information=lambda eta: _mills(eta) * _mills(-eta),
    curvature=_probit_curvature,
)
POISSON = Family(
    "poisson",
    mean=_exp,
    link=np.log,
    log_p=_poisson_log_p,
    kernel=_poisson_kernel,
    score=lambda y, eta: y - _exp(eta),
    information=_exp,
    curvature=lambda y, eta: _exp(eta),
    variance=np.positive,
    deviance=lambda y, mu: 2.0 * (_xlogy_ratio(y, mu) - y + mu),  # eq glm-deviance
    low=0.0,
    high=LARGEST_WHOLE,
    whole=True,
)
GAMMA = Family(
    "gamma",
    mean=lambda eta: 1.0 / eta,
    link=lambda mu: 1.0 / mu,
    log_p=_gamma_log_p,
    kernel=_gamma_kernel,
    score=lambda y, eta: 1.0 / eta - y,
    information=lambda eta: 1.0 / eta**2,
    curvature=lambda y, eta: 1.0 / eta**2,
    variance=lambda mu: mu**2,
    deviance=lambda y, mu: 2.0 * (y / mu - 1.0 - np.log(y / mu)),
    low=1e-50,
    dispersed=True,
    positive=True,
)

# ------------------------------------------------------------ designs


@dataclass(frozen=True, slots=True)
class OneHot:
    """A design of an intercept and blocks of one-hot columns, kept as bin numbers.

    `index` (T, B) is the bin of block b at time t, `sizes` (B,) the number of bins of
    each block.  It stands for a matrix with D = 1 + Σ sizes columns, B + 1 of which are
    one in every row; `columns(b)` are those of a block.

    Raises:
        ValueError: a malformed argument, or a bin number that its block does not have.
    """

    index: IntArray
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = _check_sizes(self.sizes)
        index = check_counts("index", self.index, ("T", len(sizes)))
        for b, n in enumerate(sizes):
            if index[:, b].max() >= n:
                raise ValueError(
                    f"index[:, {b}] holds bin {index[:, b].max()}, wants 0 to {n - 1} "
                    "for these sizes"
                )
        object.__setattr__(self, "index", index)
        object.__setattr__(self, "sizes", tuple(sizes))

    @property
    def shape(self) -> tuple[int, int]:
        """T and D, as of the matrix it stands for."""
        return len(self.index), 1 + sum(self.sizes)

    def columns(self, b: int) -> slice:
        """Where the weights of block b stand in w.

        Raises:
            ValueError: there is no such block.
        """
        b = check_whole("b", b, 0)
        if b >= len(self.sizes):
            raise ValueError(f"b is {b}, wants a block from 0 to {len(self.sizes) - 1}")
        start = 1 + sum(self.sizes[:b])
        return slice(start, start + self.sizes[b])

    def dense(self) -> Array:
        """The matrix itself, (T, D).  Memory O(T D): for small cases."""
        T, D = self.shape
        X = np.zeros((T, D))
        X[:, 0] = 1.0
        for b in range(len(self.sizes)):
            X[np.arange(T), self.columns(b).start + self.index[:, b]] = 1.0
        return X


Design = Array | OneHot

# Rows of X that are worked on at a time, so that they stay in the fast cache.
ROWS = 2048


def _times(X: Design, w: Array) -> Array:
    """X w, (T,)."""
    if not isinstance(X, OneHot):
        out: Array = X @ w
        return out
    eta = np.full(len(X.index), w[0])
    for b in range(len(X.sizes)):
        eta += w[X.columns(b)][X.index[:, b]]  # eq glm-onehot
    return eta


def _pull(X: Design, r: Array) -> Array:
    """Xᵀ r, (D,)."""
    if not isinstance(X, OneHot):
        out: Array = r @ X
        return out
    parts = [
        np.bincount(X.index[:, b], r, minlength=n) for b, n in enumerate(X.sizes)
    ]  # eq glm-onehot-gradient
    return np.concatenate([[r.sum()], *parts])


def _gram(X: Design, h: Array) -> Array:
    """Xᵀ diag(h) X, (D, D), for h ≥ 0.  Cost O(T D²), for one-hot columns O(T B²)."""
    if isinstance(X, OneHot):
        return _gram_of_bins(X, h)
    D = X.shape[1]
    total = np.zeros((D, D), order="F")
    root = np.sqrt(h)[:, None]
    for t in range(0, len(X), ROWS):
        Z = X[t : t + ROWS] * root[t : t + ROWS]
        total = dsyrk(1.0, Z.T, beta=1.0, c=total, overwrite_c=1)  # upper triangle
    out: Array = np.triu(total) + np.triu(total, 1).T
    return out


def _gram_of_bins(X: OneHot, h: Array) -> Array:
    H = np.zeros((X.shape[1],) * 2)
    H[0, 0] = h.sum()
    for b, n in enumerate(X.sizes):
        at, i = X.columns(b), X.index[:, b]
        alone = np.bincount(i, h, minlength=n)
        H[0, at] = H[at, 0] = alone
        H[at, at] = np.diag(alone)
        for c in range(b):
            other, m = X.columns(c), X.sizes[c]
            both = np.bincount(i * m + X.index[:, c], h, minlength=n * m)
            H[at, other] = both.reshape(n, m)  # eq glm-onehot-gram
            H[other, at] = H[at, other].T
    return H


def collapse(X: OneHot, y: Array, exposure: Array) -> tuple[OneHot, Array, Array]:
    """Add up the counts and the exposure of all times with the same bins.

    Returns the design of the distinct rows, their total counts, and their total
    exposure in the units given (seconds, say).  For Poisson counts with
    offset = log(exposure) both have the same maximum.  Cost O(T log T).

    Raises:
        ValueError: a malformed argument.
    """
    X = check_type("X", X, OneHot)
    y = check_counts("y", y, (len(X.index),)).astype(float)
    exposure = _check_exposure(exposure, len(X.index))
    strides = np.cumprod([1, *X.sizes[:-1]])
    _, first, which = np.unique(
        X.index @ strides, return_index=True, return_inverse=True
    )
    return (
        OneHot(X.index[first], X.sizes),
        np.bincount(which, y).astype(float),
        np.bincount(which, exposure).astype(float),  # eq glm-collapse
    )


# ------------------------------------------------------------ the derivation's formulas


def predict(
    w: Array, X: Design, family: Family = POISSON, offset: float | Array = 0.0
) -> Array:
    """Means μ = g⁻¹(offset + X w), (T,).  Cost O(T D).

    Raises:
        ValueError: a malformed argument, or a mean that a double cannot hold.
    """
    X, family = _check_design(X), check_type("family", family, Family)
    offset = _check_offset(offset, X.shape[0])
    eta = _linear(_check_w(w, X), X, offset)
    return _checked_mean(family, eta)


def log_likelihood(
    w: Array,
    X: Design,
    y: Array,
    family: Family = POISSON,
    offset: float | Array = 0.0,
    phi: float = 1.0,
) -> float:
    """ℓ(w) = Σ log p(yₜ | ηₜ), in nats; −inf where a mean is beyond a double.

    Raises:
        ValueError: a malformed argument.
    """
    problem = _problem(X, y, family, offset, None, None)
    phi = check_scalar("phi", phi, 1e-50, HUGE)
    eta = _linear(_check_w(w, problem.X), problem.X, problem.offset)
    return float(problem.family.log_p(problem.y, eta, phi).sum())


def gradient(
    w: Array,
    X: Design,
    y: Array,
    family: Family = POISSON,
    offset: float | Array = 0.0,
) -> Array:
    """∇ℓ = Xᵀ s with s = ∂ log p/∂η, which is y − μ at a canonical link; (D,).

    Raises:
        ValueError: a malformed argument, or a mean that a double cannot hold.
    """
    problem = _problem(X, y, family, offset, None, None)
    eta = _linear(_check_w(w, problem.X), problem.X, problem.offset)
    _checked_mean(problem.family, eta)
    return _pull(problem.X, problem.family.score(problem.y, eta))  # eq glm-score


def information(
    w: Array, X: Design, family: Family = POISSON, offset: float | Array = 0.0
) -> Array:
    """Fisher information Xᵀ diag(h) X with h = (dμ/dη)² / V(μ), (D, D).  Cost O(T D²).

    Raises:
        ValueError: a malformed argument, or a mean that a double cannot hold.
    """
    X, family = _check_design(X), check_type("family", family, Family)
    offset = _check_offset(offset, X.shape[0])
    eta = _linear(_check_w(w, X), X, offset)
    _checked_mean(family, eta)
    return _check_finite(_gram(X, family.information(eta)))  # eq glm-information


def irls_step(
    w: Array,
    X: Array,
    y: Array,
    family: Family = POISSON,
    offset: float | Array = 0.0,
) -> Array:
    """One step of iteratively reweighted least squares: the new w, (D,).

    Regress the working response z = X w + s / h on X with weights h: the textbook form.
    No safeguards.  Cost O(T D²).

    Raises:
        ValueError: a malformed argument, a mean that a double cannot hold, or weighted
            columns that are not independent.
    """
    X = check_array("X", X, ("T", "D"), low=-HUGE, high=HUGE)
    problem = _problem(X, y, family, offset, None, None)
    w = _check_w(w, X)
    eta = _linear(w, X, problem.offset)
    _checked_mean(family, eta)
    h = family.information(eta)
    if not (h > 0).all():
        raise ValueError(
            "w leaves an observation no weight at all, wants a mean farther from the "
            "edge of what it can be: the step cannot be computed"
        )
    z = X @ w + family.score(problem.y, eta) / h  # eq glm-working
    factor = _factor(_check_finite(_gram(X, h)))
    return _solve(factor, X.T @ (h * z))  # eq glm-irls


# ------------------------------------------------------------ the fit


@dataclass(frozen=True, slots=True)
class Fit:
    """What `fit` found.

    `w` (D,); `covariance` (D, D), φ times the inverse of information plus penalty, with
    a penalty a posterior covariance (for one-hot blocks see `centring`);
    `log_likelihood` in nats and `deviance` at w, penalty not counted; `dispersion` φ;
    `mean` (T,); `history`, what was maximised (up to a constant) at each step;
    `converged`.
    """

    w: Array
    covariance: Array
    log_likelihood: float
    deviance: float
    dispersion: float
    mean: Array
    history: Array
    converged: bool

    @property
    def standard_error(self) -> Array:
        """√ of the diagonal of the covariance, (D,)."""
        out: Array = np.sqrt(np.diag(self.covariance))  # eq glm-standard-error
        return out


@dataclass(frozen=True, slots=True)
class _Problem:
    """Checked arguments, and what is to be maximised: ℓ(w) − ½ wᵀ P w."""

    X: Design
    y: Array
    family: Family
    offset: Array
    weights: Array | None
    penalty: Array | None

    def weigh(self, a: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):  # results are looked at
            return a if self.weights is None else self.weights * a

    def value(self, w: Array, eta: Array) -> float:
        total = float(self.weigh(self.family.kernel(self.y, eta)).sum())
        if self.penalty is not None:
            total -= 0.5 * float(w @ self.penalty @ w)  # eq glm-penalised
        return total if np.isfinite(total) else -np.inf

    def slope(self, w: Array, eta: Array) -> Array:
        g = _pull(self.X, self.weigh(self.family.score(self.y, eta)))
        return g if self.penalty is None else g - self.penalty @ w

    def hessian(self, eta: Array) -> Array:
        H = _gram(self.X, self.weigh(self.family.information(eta)))
        return _check_finite(H if self.penalty is None else H + self.penalty)

    def rows(self, step: int) -> _Problem:
        """Every step-th observation, with the penalty reduced likewise."""
        assert not isinstance(self.X, OneHot)
        return _Problem(
            self.X[::step],
            self.y[::step],
            self.family,
            self.offset[::step],
            None if self.weights is None else self.weights[::step],
            None if self.penalty is None else self.penalty / step,
        )


# From MANY rows on, and MANY_PER_COLUMN of them for a column, the climb starts from the
# optimum of every SUBSAMPLE-th row, found to a decrement of ROUGH only.
MANY, MANY_PER_COLUMN, SUBSAMPLE, ROUGH = 8192, 200, 8, 1e-2
# A curvature is used again while the decrement falls by this factor or more at a step.
CHORD = 0.02
# A decrement below DIGITS of the objective may be made of rounding.
DIGITS = 1e-10
# Where the decrement says "arrived" while some η still moves by more than this, a
# weight is on its way to infinity.
RUNS = 0.1
HALVINGS = 60


def fit(
    X: Design,
    y: Array,
    family: Family = POISSON,
    *,
    offset: float | Array = 0.0,
    weights: Array | None = None,
    penalty: Array | None = None,
    n_iter: int = 100,
    tol: float = 1e-16,
) -> Fit:
    """The w that maximises ℓ(w) − ½ wᵀ P w, by Fisher scoring with step halving.

    Stops when the decrement gᵀ H⁻¹ g, about twice what is still to be gained, falls to
    `tol` nats.  Cost a step: O(T D² + D³); for `OneHot`, O(T B² + D³).

    Raises:
        ValueError: a malformed argument; columns that neither data nor penalty tell
            apart; or a likelihood without maximum (separation).
    """
    problem = _problem(X, y, family, offset, weights, penalty)
    n_iter, tol = check_whole("n_iter", n_iter, 1), check_scalar("tol", tol, 0.0)
    w, history, converged = _climb(problem, _start(problem), n_iter, tol)
    eta = _times(problem.X, w) + problem.offset
    mu = _checked_mean(problem.family, eta)
    inverse = _invert(problem.hessian(eta))
    phi = _dispersion(problem, mu)
    log_p = problem.weigh(problem.family.log_p(problem.y, eta, phi or 1.0))
    unit = problem.weigh(problem.family.deviance(problem.y, mu))
    return Fit(
        w=w,
        covariance=phi * inverse,  # eq glm-covariance
        log_likelihood=float(log_p.sum()),
        deviance=float(unit.sum()),
        dispersion=phi,
        mean=mu,
        history=np.array(history),
        converged=converged,
    )


def _start(problem: _Problem) -> Array:
    """Least squares on the linked data, pulled towards their mean."""
    T, D = problem.X.shape
    large = T >= MANY and T >= MANY_PER_COLUMN * D
    if large and not isinstance(problem.X, OneHot):
        part = problem.rows(SUBSAMPLE)
        try:
            return _climb(part, _start(part), 20, ROUGH)[0]
        except ValueError:  # the part may lack what the whole has
            pass
    y, family = problem.y, problem.family
    mu = 0.5 * (y + y.mean())
    if family.whole:
        mu = mu + 0.05  # no data at all have a logarithm, too
    elif family.high == 1.0:
        mu = 0.25 + 0.5 * y
    eta = family.link(mu)
    h = problem.weigh(family.information(eta))
    z = eta - problem.offset + family.score(y, eta) / family.information(eta)
    H = _gram(problem.X, h)
    H = _check_finite(H if problem.penalty is None else H + problem.penalty)
    w = _solve(_factor(H), _pull(problem.X, h * z))
    zero = np.zeros(D)
    values = [
        problem.value(v, _times(problem.X, v) + problem.offset) for v in (w, zero)
    ]
    return w if values[0] >= values[1] else zero


def _climb(
    problem: _Problem, w: Array, n_iter: int, tol: float
) -> tuple[Array, list[float], bool]:
    """Fisher scoring from w; keeps a factored curvature for as long as it serves."""
    eta = _times(problem.X, w) + problem.offset
    history = [problem.value(w, eta)]
    factor, last = None, np.inf
    for _ in range(n_iter):
        g = problem.slope(w, eta)
        if factor is not None:
            step = _solve(factor, g)
        if factor is None or g @ step > CHORD * last:
            factor = _factor(problem.hessian(eta))
            step = _solve(factor, g)
        decrement = float(g @ step)
        d_eta = _times(problem.X, step)
        rounding = DIGITS * (1.0 + abs(history[-1]))  # then it falls no further
        arrived = decrement <= tol or (
            decrement <= rounding and decrement > 0.25 * last
        )
        moved = _halve(problem, w, eta, step, d_eta, history[-1], arrived)
        if moved is None:
            return w, history, False
        w, eta, value = moved
        history.append(value)
        if arrived:
            _check_attained(d_eta)
            return w, history, True
        last = decrement
    return w, history, False


def _halve(
    problem: _Problem,
    w: Array,
    eta: Array,
    step: Array,
    d_eta: Array,
    value: float,
    last: bool,
) -> tuple[Array, Array, float] | None:
    """The longest of step, step/2, step/4 ... that does not lose."""
    # The last step gains less than rounding can tell, so it may seem to lose a little.
    slack = 1e-9 * (1.0 + abs(value)) if last else 1e-14 * abs(value)
    scale = 1.0
    for _ in range(HALVINGS):
        new, new_eta = w + scale * step, eta + scale * d_eta
        gained = problem.value(new, new_eta)
        if np.isfinite(gained) and gained >= value - slack:
            return new, new_eta, gained
        scale *= 0.5
    return None


def _check_attained(d_eta: Array) -> None:
    """On the way to infinity η moves by about one a step, however little it gains."""
    if np.abs(d_eta).max() > RUNS:
        raise ValueError(
            "X separates y: the likelihood grows for ever as some weights run to "
            "infinity, wants a penalty, or without the columns that do it"
        )


def _dispersion(problem: _Problem, mu: Array) -> float:
    """Pearson's estimate of φ, Σ (y − μ)² / V(μ) over the degrees of freedom left."""
    if not problem.family.dispersed:
        return 1.0
    T, D = problem.X.shape
    if T <= D:
        return 1.0  # nothing is left to tell it from
    squares = problem.weigh((problem.y - mu) ** 2 / problem.family.variance(mu))
    return float(squares.sum() / (T - D))  # eq glm-dispersion


def _factor(H: Array) -> tuple[Array, Array]:
    """Cholesky factor of H scaled to a unit diagonal, and the scale."""
    scale: Array = np.sqrt(np.diag(H)).astype(float)
    if (scale > 0).all():
        try:
            L: Array = np.linalg.cholesky(H / scale / scale[:, None]).astype(float)
            if np.diag(L).min() ** 2 > 1e-13 * len(H):
                return L, scale
        except np.linalg.LinAlgError:
            pass
        empty = ""
    else:
        empty = f" (column {int(np.argmin(scale > 0))} alone says nothing)"
    raise ValueError(
        f"X leaves weights that neither data nor penalty determine{empty}, wants "
        "independent columns: drop some, or add a penalty (for one-hot blocks, `gauge`)"
    )


def _solve(factor: tuple[Array, Array], g: Array) -> Array:
    L, scale = factor
    out: Array = cho_solve((L, True), g / scale, check_finite=False) / scale
    return out


def _invert(H: Array) -> Array:
    L, scale = _factor(H)
    inverse = cho_solve((L, True), np.eye(len(H)), check_finite=False)
    out: Array = inverse / scale / scale[:, None]
    return out


# ------------------------------------------------------------ quadratic penalties


def smoothness(n: int, circular: bool = False) -> Array:
    """P with wᵀ P w = Σ (w[i+1] − w[i])², (n, n), closed to a ring if circular.

    Raises:
        ValueError: `n` is below two, or below three for a circle.
    """
    n = check_whole("n", n, 3 if _check_flag("circular", circular) else 2)
    D = np.diff(np.eye(n), axis=0)  # row i is w[i+1] − w[i]: none leaves the range
    if circular:
        D = np.vstack([D, np.eye(n)[0] - np.eye(n)[-1]])  # eq glm-smooth-circular
    P: Array = D.T @ D  # eq glm-smooth
    return P


def smoothness_grid(n_rows: int, n_columns: int) -> Array:
    """P for bins on a grid, row by row: squared differences of all neighbours.

    Shape (n_rows n_columns, n_rows n_columns).

    Raises:
        ValueError: a side is below two.
    """
    n_rows = check_whole("n_rows", n_rows, 2)
    n_columns = check_whole("n_columns", n_columns, 2)
    down = np.kron(smoothness(n_rows), np.eye(n_columns))
    along = np.kron(np.eye(n_rows), smoothness(n_columns))
    P: Array = down + along  # eq glm-smooth-grid
    return P


def join(penalties: Sequence[Array]) -> Array:
    """The penalties of several blocks of weights as one block-diagonal matrix.

    Raises:
        ValueError: not a list of square matrices.
    """
    blocks = [
        check_array(f"penalties[{i}]", P, ("n", "n"), low=-HUGE, high=HUGE)
        for i, P in enumerate(check_list("penalties", penalties))
    ]
    P: Array = block_diag(*blocks)
    return P


def gauge(sizes: Sequence[int]) -> Array:
    """P with wᵀ P w = Σ over blocks of (sum of the block)², for `OneHot` weights.

    It costs no likelihood: a constant may move from a block to the intercept.  With it
    the weights of each block sum to zero.  To the covariance it adds an arbitrary
    variance of each block's sum, which `centring` takes out.  Shape (D, D),
    D = 1 + Σ sizes.

    Raises:
        ValueError: not a list of whole numbers of at least one.
    """
    blocks = [np.zeros((1, 1)), *(np.ones((n, n)) for n in _check_sizes(sizes))]
    P: Array = block_diag(*blocks)  # eq glm-gauge
    return P


def centring(sizes: Sequence[int]) -> Array:
    """Q that moves the mean of each block of `OneHot` weights into the intercept.

    Q w describes the same model as w, its blocks have mean zero, and its covariance is
    Q C Qᵀ for the covariance C of w.  Shape (D, D), D = 1 + Σ sizes.

    Raises:
        ValueError: not a list of whole numbers of at least one.
    """
    counts = _check_sizes(sizes)
    means = [np.full((1, n), 1.0 / n) for n in counts]
    Q: Array = block_diag([[1.0]], *(np.eye(n) - 1.0 / n for n in counts))
    Q[:1, 1:] = np.hstack(means)  # eq glm-centred
    return Q


# ------------------------------------------------------------ lasso and group lasso


@dataclass(frozen=True, slots=True)
class LassoFit:
    """What `lasso` found: `w` (D,), the objective, and how far KKT is from holding."""

    w: Array
    objective: float
    kkt_violation: float


def shrink(w: Array, amount: float, groups: IntArray | None = None) -> Array:
    """The proximal step: each group of w shortened by amount · √size, to zero at most.

    `groups` (D,) numbers the group of each weight; −1 leaves it alone; None makes each
    a group of its own, which is soft thresholding.

    Raises:
        ValueError: a malformed argument.
    """
    w = check_array("w", w, ("D",), low=-HUGE, high=HUGE)
    groups = _check_groups(groups, len(w))
    amount = check_scalar("amount", amount, 0.0, HUGE)
    return _shrink(w, amount * _group_costs(groups), groups)


def lasso_max(
    X: Array,
    y: Array,
    family: Family = POISSON,
    *,
    offset: float | Array = 0.0,
    groups: IntArray | None = None,
) -> float:
    """The smallest λ at which every penalised weight is zero.

    Raises:
        ValueError: as `lasso`.
    """
    problem, groups = _lasso_problem(X, y, family, offset, groups)
    free = groups < 0
    w = np.zeros(len(groups))
    if free.any():
        assert not isinstance(problem.X, OneHot)
        alone = replace(problem, X=problem.X[:, free])
        w[free] = _climb(alone, _start(alone), 100, 1e-14)[0]
    eta = _times(problem.X, w) + problem.offset
    g = problem.slope(w, eta) / len(problem.y)
    cost = _group_costs(groups)
    return float((_group_norms(g, groups) / np.where(cost > 0, cost, np.inf)).max())


def lasso(
    X: Array,
    y: Array,
    family: Family = POISSON,
    *,
    lam: float,
    offset: float | Array = 0.0,
    groups: IntArray | None = None,
    n_iter: int = 100,
    tol: float = 1e-9,
) -> LassoFit:
    """The w that minimises −ℓ(w)/T + λ Σ_b √(size of b) ‖w_b‖ over groups b.

    `groups` as in `shrink`: None is the lasso, −1 an unpenalised weight.  Each round
    replaces ℓ by its quadratic approximation, minimises by proximal gradient steps, and
    halves the step until the objective falls.  Stops when the optimality (KKT)
    conditions hold to `tol`.

    Raises:
        ValueError: a malformed argument; or it does not settle in `n_iter` rounds.
    """
    problem, groups = _lasso_problem(X, y, family, offset, groups)
    lam = check_scalar("lam", lam, 0.0, HUGE)
    n_iter, tol = check_whole("n_iter", n_iter, 1), check_scalar("tol", tol, 1e-15)
    T, cost = len(problem.y), lam * _group_costs(groups)
    _, one_of_each = np.unique(groups, return_index=True)  # a group pays once

    def objective(w: Array, eta: Array) -> float:
        charge = (cost * _group_norms(w, groups))[one_of_each].sum()
        return float(charge) - problem.value(w, eta) / T

    w, precision = np.zeros(len(groups)), 1e-3
    for _ in range(n_iter):
        eta = _times(problem.X, w) + problem.offset
        g = -problem.slope(w, eta) / T
        off = _kkt_violation(w, g, cost, groups)
        if off <= tol:
            constant = problem.family.log_p(problem.y, eta, 1.0).sum()
            constant -= problem.family.kernel(problem.y, eta).sum()
            return LassoFit(w, objective(w, eta) - float(constant) / T, off)
        H = problem.hessian(eta) / T
        goal = precision * min(off, 1.0)
        step = _lasso_quadratic(H, g, w, cost, groups, goal) - w
        before, d_eta, scale = objective(w, eta), _times(problem.X, step), 1.0
        while objective(w + scale * step, eta + scale * d_eta) > before:
            scale *= 0.5
            if scale < 1e-3:  # an approximate step need not go down: ask for a better
                scale, precision = 0.0, 0.1 * precision
                break
        w = w + scale * step
    raise ValueError(
        f"lam is {lam:g}: after {n_iter} rounds the KKT conditions are still off by "
        f"{off:.1e}, wants {tol:g} or less: raise lam, n_iter or tol, or scale X"
    )


def _lasso_quadratic(
    H: Array, g: Array, w0: Array, cost: Array, groups: IntArray, goal: float
) -> Array:
    """Minimise gᵀ(w − w0) + ½ (w − w0)ᵀ H (w − w0) + charge: FISTA with restarts."""
    length = 1.0 / max(float(np.linalg.eigvalsh(H)[-1]), 1e-300)
    w, ahead, momentum = w0, w0, 1.0
    for _ in range(20_000):
        slope = g + H @ (ahead - w0)
        new = _shrink(ahead - length * slope, length * cost, groups)
        if (ahead - new) @ (new - w) > 0:  # the momentum points uphill: drop it
            momentum = 1.0
        grown = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
        ahead = new + (momentum - 1.0) / grown * (new - w)
        w, momentum = new, grown
        if _kkt_violation(w, g + H @ (w - w0), cost, groups) <= goal:
            break
    return w


def _shrink(w: Array, amount: Array, groups: IntArray) -> Array:
    norm = _group_norms(w, groups)
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = 1.0 - amount / norm
    out: Array = w * np.where(norm > amount, factor, 0.0)  # eq glm-shrink
    return np.where(groups < 0, w, out)


def _group_norms(w: Array, groups: IntArray) -> Array:
    """‖w_g‖ of the group of each weight, (D,); of a free weight, its size."""
    squares = np.bincount(np.maximum(groups, 0), np.where(groups < 0, 0.0, w**2))
    return np.where(groups < 0, np.abs(w), np.sqrt(squares[np.maximum(groups, 0)]))


def _group_costs(groups: IntArray) -> Array:
    """√(size of the group) of each weight, 0 for free ones, (D,)."""
    size = np.bincount(np.maximum(groups, 0), groups >= 0)
    return np.where(groups < 0, 0.0, np.sqrt(size[np.maximum(groups, 0)]))


def _kkt_violation(w: Array, g: Array, cost: Array, groups: IntArray) -> float:
    """How far 0 is from the subgradient at w; g is the gradient of the smooth part."""
    norm = _group_norms(w, groups)
    active = (norm > 0) & (groups >= 0)
    pull = np.where(active, cost * w / np.where(active, norm, 1.0), 0.0)
    at_zero = np.maximum(_group_norms(g, groups) - cost, 0.0)  # eq glm-kkt
    off = np.where(active | (groups < 0), np.abs(g + pull), at_zero)
    return float(off.max())


# ------------------------------------------------------------ bins and filters


def bin_index(x: Array, low: float, high: float, n: int) -> IntArray:
    """Which of n equal bins of [low, high] each x is in, (T,); `high` is in the last.

    Raises:
        ValueError: a malformed argument, or an x outside [low, high]: it belongs to no
            bin, and to move it into one would be to invent data.
    """
    low, high = (
        check_scalar("low", low, -HUGE, HUGE),
        check_scalar("high", high, -HUGE, HUGE),
    )
    if not high - low > 1e-12 * max(abs(low), abs(high)):
        raise ValueError(f"low is {low:g}, high is {high:g}, want low below high")
    n = check_whole("n", n, 1)
    x = check_array("x", x, ("T",), low=low, high=high)
    at = np.floor((x - low) / (high - low) * n)
    out: IntArray = np.minimum(at, n - 1).astype(np.intp)
    return out


def raised_cosines(n_lags: int, n_basis: int, stretch: float = 1.0) -> Array:
    """Raised-cosine bumps on a logarithmic axis of lags, (n_lags, n_basis).

    Bump j is ½ (1 + cos) around its peak in u = log(lag + stretch); neighbours are a
    quarter period apart; the first peaks at lag 0, the last ends with the window.  A
    large `stretch` makes the axis linear.  After Pillow et al. 2008.

    Raises:
        ValueError: a malformed argument.
    """
    n_lags, n_basis = (
        check_whole("n_lags", n_lags, 2),
        check_whole("n_basis", n_basis, 1),
    )
    stretch = check_scalar("stretch", stretch, 1e-6, 1e6)
    u = np.log(np.arange(n_lags + 1) + stretch)
    apart = (u[-1] - u[0]) / (n_basis + 1)
    peaks = u[0] + apart * np.arange(n_basis)
    angle = 0.5 * np.pi * (u[:-1, None] - peaks) / apart
    inside = np.abs(angle) < np.pi
    out: Array = np.where(inside, 0.5 * (1.0 + np.cos(angle)), 0.0)  # eq glm-cosine
    return out


def filtered(x: Array, basis: Array, delay: int = 0) -> Array:
    """x seen through each filter of a basis: Σ_l basis[l, j] x[t − delay − l], (T, J).

    `basis` (L, J) runs backwards in time.  A spike train needs delay ≥ 1, or it would
    predict itself.  Before the recording x counts as 0.  Cost O(T L J).

    Raises:
        ValueError: a malformed argument.
    """
    x = check_array("x", x, ("T",), low=-HUGE, high=HUGE)
    basis = check_array("basis", basis, ("L", "J"), low=-HUGE, high=HUGE)
    delay = check_whole("delay", delay, 0)
    T = len(x)
    out = np.zeros((T, basis.shape[1]))
    if delay < T:
        for j, column in enumerate(basis.T):
            seen = np.convolve(x[: T - delay], column)[: T - delay]
            out[delay:, j] = seen  # eq glm-filter
    return out


def simulate(drive: Array, filters: Array, rng: np.random.Generator) -> IntArray:
    """Spike counts of N coupled cells, (T, N).

    log μ[t, i] = drive[t, i] + Σ filters[l, i, j] y[t − 1 − l, j].  `drive` (T, N)
    holds offset, stimulus and all else; `filters` (L, N, N): cell j acts on cell i.
    Cost O(T N + spikes · L N).

    Raises:
        ValueError: a malformed argument, or a mean that ran away above 1000 a bin.
    """
    drive = check_array("drive", drive, ("T", "N"), low=-HUGE, high=np.log(1e3))
    T, N = drive.shape
    filters = check_array("filters", filters, ("L", N, N), low=-HUGE, high=HUGE)
    rng = check_rng(rng)
    eta, y, L = drive.copy(), np.zeros((T, N), dtype=np.int64), len(filters)
    for t in range(T):
        if eta[t].max() > np.log(1e3):
            raise ValueError(
                f"filters let the mean run away to more than 1000 a bin at step {t}, "
                "wants filters that do not excite so much"
            )
        y[t] = rng.poisson(np.exp(eta[t]))  # eq glm-history
        if y[t].any():
            after = eta[t + 1 : t + 1 + L]
            after += filters[: len(after)] @ y[t]
    return y


# ------------------------------------------------------------ how good is it


def deviance(
    y: Array, mu: Array, family: Family = POISSON, weights: Array | None = None
) -> float:
    """2 (ℓ of the saturated model − ℓ at μ) for φ = 1; for counts μ is counts per bin.

    Raises:
        ValueError: a malformed argument, or a mean that the data show to be impossible.
    """
    family = check_type("family", family, Family)
    y = _check_y(y, family)
    mu = _check_mu("mu", mu, len(y), family)
    unit = family.deviance(y, mu)
    total = float(
        (unit if weights is None else _check_weights(weights, len(y)) * unit).sum()
    )
    if not np.isfinite(total):
        raise ValueError(
            "mu makes an observation impossible, wants a mean that allows it"
        )
    return total


def deviance_explained(
    y: Array, mu: Array, null: Array, family: Family = POISSON
) -> float:
    """1 − deviance at μ / deviance at the null model's means: 1 at best, may be < 0.

    `null` (T,) are the means of the model to be beaten, of the same data.

    Raises:
        ValueError: as `deviance`, or the null model is already perfect.
    """
    ours = deviance(y, mu, family)
    null = _check_mu("null", null, len(np.asarray(y)), family)
    with np.errstate(over="ignore"):
        base = float(family.deviance(_check_y(y, family), null).sum())
    if not (base > 0 and np.isfinite(base)):
        raise ValueError(
            f"null has deviance {base:g}, wants a model that allows the data and "
            "leaves something to explain"
        )
    return 1.0 - ours / base  # eq glm-explained


def bits_per_spike(y: Array, mu: Array, null: Array) -> float:
    """Gain in Poisson log likelihood of means μ over `null`, in bits for each spike.

    Raises:
        ValueError: a malformed argument, no spikes, or a mean of zero at a spike.
    """
    y = check_counts("y", y, ("T",)).astype(float)
    mu = check_array("mu", mu, (len(y),), low=0.0, high=LARGEST_MEAN)
    null = check_array("null", null, (len(y),), low=0.0, high=LARGEST_MEAN)
    if not y.any():
        raise ValueError("y holds no spike, wants at least one")
    for name, mean in (("mu", mu), ("null", null)):
        if (mean[y > 0] == 0).any():
            raise ValueError(f"{name} is 0 where there is a spike, wants more than 0")
    gain = (xlogy(y, mu) - xlogy(y, null) - mu + null).sum()
    return float(gain / (y.sum() * np.log(2)))  # eq glm-bits


def time_blocks(T: int, n_folds: int, n_blocks: int, gap: int = 0) -> IntArray:
    """The fold of each time bin, (T,): n_blocks stretches of time dealt out in turn.

    The `gap` bins before and after each inner border belong to no fold and are −1.

    Raises:
        ValueError: a malformed argument, or blocks too short for the gap.
    """
    T, n_folds = check_whole("T", T, 1), check_whole("n_folds", n_folds, 2)
    n_blocks, gap = (
        check_whole("n_blocks", n_blocks, n_folds),
        check_whole("gap", gap, 0),
    )
    if T // n_blocks <= 2 * gap:
        raise ValueError(
            f"T is {T}: {n_blocks} blocks of {T // n_blocks} bins, wants more than "
            f"twice the gap of {gap}"
        )
    block = np.arange(T) * n_blocks // T  # eq glm-blocks
    fold = block % n_folds
    for border in np.flatnonzero(np.diff(block)) + 1:
        fold[border - gap : border + gap] = -1
    return fold


def rescaled_times(y: Array, mu: Array, rng: np.random.Generator) -> Array:
    """u = 1 − exp(−Λ between spikes), one for each spike: uniform if μ is right.

    y (T,) are counts and μ (T,) their means, each given the past.  A spike's place in
    its bin is drawn uniformly, as it is under the model.  Cost O(T + n log n).

    Raises:
        ValueError: a malformed argument, no spikes, or a mean of zero at a spike.
    """
    n = check_counts("y", y, ("T",))
    mu, rng = check_array("mu", mu, (len(n),), low=0.0, high=1e15), check_rng(rng)
    if not n.any():
        raise ValueError("y holds no spike, wants at least one")
    if n.sum() > 10**9:
        raise ValueError(f"y holds {n.sum()} spikes, wants 1000000000 at most")
    if (mu[n > 0] == 0).any():
        raise ValueError("mu is 0 where there is a spike, wants more than 0")
    at = np.repeat(np.arange(len(n)), n)
    before = np.cumsum(mu) - mu
    place = np.sort(before[at] + rng.random(len(at)) * mu[at])
    out: Array = -np.expm1(-np.diff(place, prepend=0.0))  # eq glm-rescaling
    return out


def ks_distance(u: Array) -> float:
    """Largest distance between the distribution of u (n,) and the uniform one.

    Beyond 1.36/√n it is larger than 95 of 100 samples that are uniform would give.

    Raises:
        ValueError: a malformed argument, or numbers outside [0, 1].
    """
    u = np.sort(check_array("u", u, ("n",), low=0.0, high=1.0))
    n = len(u)
    above = (np.arange(1, n + 1) / n - u).max()
    below = (u - np.arange(n) / n).max()
    return float(max(above, below))  # eq glm-ks


def spike_triggered_average(X: Array, y: Array) -> Array:
    """Mean of the features at the spikes minus their mean over all time, (D,).

    Raises:
        ValueError: a malformed argument, or no spikes.
    """
    X = check_array("X", X, ("T", "D"), low=-HUGE, high=HUGE)
    y = check_counts("y", y, (len(X),)).astype(float)
    if not y.any():
        raise ValueError("y holds no spike, wants at least one")
    out: Array = y @ X / y.sum() - X.mean(axis=0)  # eq glm-sta
    return out


# ------------------------------------------------------------ a mouse in a box


@dataclass(frozen=True, slots=True)
class Mouse:
    """A simulated run: `x`, `y` (T,) in cm, `heading` (T,) in radians from 0 to 2π,
    `speed` (T,) in cm/s, and the side of the box in cm.
    """

    x: Array
    y: Array
    heading: Array
    speed: Array
    box: float
    top_speed: float


def simulate_mouse(
    T: int,
    dt: float,
    rng: np.random.Generator,
    box: float = 50.0,
    top_speed: float = 40.0,
) -> Mouse:
    """T steps of `dt` seconds of a mouse that wanders in a box and turns at its walls.

    Speed and turning rate drift with memories of 1 s and 0.5 s.  Cost O(T).

    Raises:
        ValueError: a malformed argument, or steps longer than the box.
    """
    T, rng = check_whole("T", T, 1), check_rng(rng)
    dt = check_scalar("dt", dt, 1e-6, 0.5)
    box = check_scalar("box", box, 1e-3, 1e6)
    top_speed = check_scalar("top_speed", top_speed, 0.0, 1e6)
    if top_speed * dt > box:
        raise ValueError(f"box is {box:g} cm, wants more than a step at top_speed, cm")
    memory = np.exp(-dt / np.array([1.0, 0.5]))  # of speed and of turning
    noise = rng.standard_normal((T, 2)) * np.sqrt(1.0 - memory**2)
    x, y, angle = box / 2, box / 2, float(rng.uniform(0, 2 * np.pi))
    drive, turn = (float(v) for v in rng.standard_normal(2))
    path = np.empty((T, 4))
    for t in range(T):
        drive = memory[0] * drive + noise[t, 0]
        turn = memory[1] * turn + noise[t, 1]
        speed = 0.5 * top_speed * (1.0 + np.tanh(0.8 * drive - 0.6))
        angle += 2.5 * turn * dt
        step_x, step_y = np.cos(angle), np.sin(angle)
        x, step_x = _bounce(x + step_x * speed * dt, step_x, box)
        y, step_y = _bounce(y + step_y * speed * dt, step_y, box)
        angle = float(np.arctan2(step_y, step_x))
        path[t] = x, y, angle % (2 * np.pi), speed
    place_x, place_y, heading, fast = path.T.copy()
    return Mouse(place_x, place_y, heading, fast, box, top_speed)


def _bounce(x: float, step: float, box: float) -> tuple[float, float]:
    """Mirror at the walls 0 and box."""
    if x < 0:
        return -x, -step
    return (2 * box - x, -step) if x > box else (x, step)


# ------------------------------------------------------------ checks at the door


def _check_design(X: Design) -> Design:
    if isinstance(X, OneHot):
        return X
    return check_array("X", X, ("T", "D"), low=-HUGE, high=HUGE)


def _check_sizes(sizes: Sequence[int]) -> list[int]:
    return [check_whole("sizes", n, 1) for n in check_list("sizes", sizes)]


def _check_w(w: Array, X: Design) -> Array:
    return check_array("w", w, (X.shape[1],), low=-HUGE, high=HUGE)


def _check_offset(offset: float | Array, T: int) -> Array:
    if check_real("offset", offset).ndim == 0:
        return np.full(T, check_scalar("offset", offset, -HUGE, HUGE))
    return check_array("offset", offset, (T,), low=-HUGE, high=HUGE)


def _check_y(y: Array, family: Family, T: int | str = "T") -> Array:
    if family.whole:
        return check_counts("y", y, (T,)).astype(float)
    return check_array("y", y, (T,), low=family.low, high=family.high)


def _check_weights(weights: Array, T: int) -> Array:
    weights = check_array("weights", weights, (T,), low=0.0, high=HUGE)
    if not (weights > 0).any():
        raise ValueError("weights are all 0, want at least one that counts")
    return weights


def _check_exposure(exposure: Array, T: int) -> Array:
    exposure = check_array("exposure", exposure, (T,), low=0.0, high=HUGE)
    if (exposure == 0).any():
        t = int(np.argmin(exposure))
        raise ValueError(f"exposure[{t}] is 0, wants more than 0")
    return exposure


def _check_penalty(penalty: Array, D: int) -> Array:
    P = check_array("penalty", penalty, (D, D), low=-HUGE, high=HUGE)
    size = float(np.abs(P).max())
    if not np.allclose(P, P.T, rtol=0, atol=1e-9 * size):
        raise ValueError("penalty is not symmetric, wants P with P[i, j] = P[j, i]")
    if size > 0 and float(np.linalg.eigvalsh(P / size)[0]) < -1e-9:
        raise ValueError("penalty is negative for some weights, wants wᵀ P w ≥ 0")
    return P


def _check_mu(name: str, mu: Array, T: int, family: Family) -> Array:
    low = 0.0 if family.low >= 0 else -HUGE
    high = 1.0 if family.high == 1.0 else LARGEST_MEAN
    mu = check_array(name, mu, (T,), low=low, high=high)
    if family.positive and (mu == 0).any():
        raise ValueError(f"{name} holds 0, wants means above 0")
    return mu


def _check_groups(groups: IntArray | None, D: int) -> IntArray:
    if groups is None:
        return np.arange(D)
    labels = check_array("groups", groups, (D,), low=-1.0, high=LARGEST_WHOLE)
    if (labels != np.floor(labels)).any():
        raise ValueError("groups holds a fraction, wants whole numbers from -1 on")
    # Numbered anew from 0, so that a count of groups is no larger than D.
    named, out = np.unique(labels, return_inverse=True)
    return out - 1 if named[0] == -1 else out


def _problem(
    X: Design,
    y: Array,
    family: Family,
    offset: float | Array,
    weights: Array | None,
    penalty: Array | None,
) -> _Problem:
    X, family = _check_design(X), check_type("family", family, Family)
    T, D = X.shape
    return _Problem(
        X,
        _check_y(y, family, T),
        family,
        _check_offset(offset, T),
        None if weights is None else _check_weights(weights, T),
        None if penalty is None else _check_penalty(penalty, D),
    )


def _lasso_problem(
    X: Array, y: Array, family: Family, offset: float | Array, groups: IntArray | None
) -> tuple[_Problem, IntArray]:
    X = check_array("X", X, ("T", "D"), low=-HUGE, high=HUGE)
    problem = _problem(X, y, family, offset, None, None)
    if family.positive:
        raise ValueError(f"family is {family.name}, wants one that allows w = 0")
    return problem, _check_groups(groups, X.shape[1])


def _linear(w: Array, X: Design, offset: Array) -> Array:
    return _times(X, w) + offset


def _checked_mean(family: Family, eta: Array) -> Array:
    """The means, all of them numbers that sums may be taken of."""
    if family.positive and not (eta > 0).all():
        raise ValueError("w makes a mean negative, wants offset + X w above 0")
    mu = family.mean(eta)
    if not float(np.abs(mu).max()) <= LARGEST_MEAN:
        raise ValueError(
            f"w makes a mean larger than {LARGEST_MEAN:g}, wants a smaller offset + X w"
        )
    return mu


def _check_finite(H: Array) -> Array:
    if not np.isfinite(H).all():
        raise ValueError(
            "X gives sums beyond what a double holds, wants smaller entries"
        )
    return H
