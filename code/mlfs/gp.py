"""Gaussian processes: distributions over functions, conditioned on what was measured.

Chapter: book/gaussian-processes/theory.md.  A comment `# eq NAME` marks the line that
implements the displayed equation labelled NAME there.

    n, D         number of points, number of inputs of each
    X[i]         a point: position, time, stimulus                       (n, D)
    y[i]         what was measured there                                 (n,)
    f[i]         the function there, without noise                       (n,)
    k(x, z)      kernel: covariance of f(x) and f(z)
    K[i, j]      k(xᵢ, xⱼ), or with the noise on its diagonal            (n, n)
    L            lower Cholesky factor                                   (n, n)
    alpha        (K + σ² I)⁻¹ y                                          (n,)
    scale        standard deviation of f, in the units of y
    length       distance over which f forgets, in the units of x        () or (D,)
    noise        standard deviation σ of the measurement, units of y
    theta        the logs of the kernel's parameters, then log noise     (P + 1,)
    Z            other points: where to predict, or inducing points      (m, D)

Kernels are small objects that can be added and multiplied.  Functions of (kernel,
noise, X, y) are the mathematics of the chapter; `log_evidence_gradient` is its plain
form and `value_and_gradient` the fast one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as _changed
from typing import Any, Self

import numpy as np
from scipy.linalg import cholesky as _dense_cholesky
from scipy.linalg import lapack, solve_triangular
from scipy.optimize import minimize
from scipy.spatial.distance import cdist
from scipy.special import expit, gammaln, log_ndtr, ndtr, ndtri

from mlfs.core.gaussian import factor
from mlfs.core.numerics import (
    Array,
    BoolArray,
    IntArray,
    check_array,
    check_counts,
    check_mask,
    check_real,
    check_rng,
    check_scalar,
    check_type,
    check_whole,
    logsumexp,
)

# Parameters lie between 1e-50 and 1e50: squares and products of them stay finite.
LARGE = 1e50
SMALL = 1e-50
LOG_TWO_PI = float(np.log(2.0 * np.pi))
# Rows of a matrix that are worked on at a time, so that they stay in the fast cache.
BLOCK = 64

# ------------------------------------------------------------ kernels


class Kernel(ABC):
    """A covariance function k(x, z) with positive parameters, worked with in logs.

    `a + b` and `a * b` are kernels, too.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """The names of the parameters, in the order of `log_parameters`."""

    @property
    @abstractmethod
    def log_parameters(self) -> Array:
        """The logs of all parameters, (P,)."""

    @abstractmethod
    def _replaced(self, parameters: Array) -> Self: ...

    @abstractmethod
    def _matrix(self, X: Array, Z: Array) -> Array: ...

    @abstractmethod
    def _diag(self, X: Array) -> Array: ...

    @abstractmethod
    def _derivatives(self, X: Array, Z: Array) -> list[Array]: ...

    def _pull(self, X: Array, Z: Array, G: Array) -> Array:
        """Σᵢⱼ G[i, j] ∂k(xᵢ, zⱼ) / ∂ log parameter, for each parameter."""
        return np.array([np.vdot(G, dK) for dK in self._derivatives(X, Z)])

    def _check_inputs(self, D: int) -> None:  # noqa: B027  (most take any number)
        """Refuse points of D inputs where the kernel was made for another number."""

    def replace(self, log_parameters: Array) -> Self:
        """The same kernel with other parameters, given as logs (P,).

        Raises:
            ValueError: not (P,), or a parameter outside 1e-50 to 1e50.
        """
        P, bound = len(self.log_parameters), float(np.log(LARGE))
        logs = check_array(
            "log_parameters", log_parameters, (P,), low=-bound, high=bound
        )
        return self._replaced(np.clip(np.exp(logs), SMALL, LARGE))  # exp may round out

    def __call__(self, X: Array, Z: Array | None = None) -> Array:
        """The matrix k(xᵢ, zⱼ), shape (n, m); with X alone (n, n).  Cost O(n m D).

        Raises:
            ValueError: `X` or `Z` is no (n, D) array of numbers up to 1e50, or does not
                fit the kernel.
        """
        X = _check_points(self, "X", X)
        Z = X if Z is None else _check_points(self, "Z", Z, X.shape[1])
        return _covariance(self, X, Z)

    def diag(self, X: Array) -> Array:
        """The variances k(xᵢ, xᵢ), shape (n,), without the matrix.

        Raises:
            ValueError: as a call.
        """
        return _variance(self, _check_points(self, "X", X))

    def derivatives(self, X: Array) -> Array:
        """∂K / ∂ log parameter for each of the P parameters, (P, n, n).

        The plain form, for teaching: memory O(P n²).

        Raises:
            ValueError: as a call.
        """
        X = _check_points(self, "X", X)
        with np.errstate(over="ignore", invalid="ignore"):  # refused by _finite
            return _finite(np.stack(self._derivatives(X, X)))

    def __add__(self, other: Kernel) -> Sum:
        return Sum(self, _check_kernel("other", other))

    def __mul__(self, other: Kernel) -> Product:
        return Product(self, _check_kernel("other", other))


class _Stationary(Kernel):
    """σ² g(r²), with r² the squared distance in units of the lengths.

    A subclass gives g and the slope h = −2 dg/dr².
    """

    __slots__ = ()
    scale: float
    length: Array

    @abstractmethod
    def _shape(self, r2: Array) -> tuple[Array, Array]: ...

    def _check(self) -> None:
        _set(self, "scale", _check_parameter("scale", self.scale))
        length = check_real("length", self.length)
        wanted = () if length.ndim == 0 else ("D",)
        length = check_array("length", length, wanted, low=SMALL, high=LARGE)
        _set(self, "length", length.copy())

    def _check_inputs(self, D: int) -> None:
        if self.length.ndim and len(self.length) != D:
            raise ValueError(
                f"X has {D} inputs a point, wants {len(self.length)}: "
                "the kernel has a length for each"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """scale, then the lengths."""
        each = [f"length[{d}]" for d in range(self.length.size)]
        return "scale", *(each if self.length.ndim else ["length"])

    @property
    def log_parameters(self) -> Array:
        """Logs of the scale and of the lengths."""
        out: Array = np.log(np.r_[self.scale, self.length])
        return out

    def _replaced(self, parameters: Array) -> Self:
        scale, *length = parameters
        shape = self.length.shape
        return _changed(  # type: ignore[type-var]
            self, scale=float(scale), length=np.reshape(length, shape)
        )

    def _matrix(self, X: Array, Z: Array) -> Array:
        r2 = cdist(X / self.length, Z / self.length, "sqeuclidean")
        out: Array = self._shape(r2)[0]
        out *= self.scale**2
        return out

    def _diag(self, X: Array) -> Array:
        return np.full(len(X), self.scale**2)

    def _derivatives(self, X: Array, Z: Array) -> list[Array]:
        apart = (X[:, None, :] - Z) / self.length  # (n, m, D)
        r2 = (apart**2).sum(axis=-1)
        g, h = self._shape(r2)
        squares = np.moveaxis(apart**2, -1, 0) if self.length.ndim else [r2]
        return [2 * self.scale**2 * g, *(self.scale**2 * h * one for one in squares)]

    def _pull(self, X: Array, Z: Array, G: Array) -> Array:
        centre = X.mean(axis=0)
        X, Z = (X - centre) / self.length, (Z - centre) / self.length
        r2 = cdist(X, Z, "sqeuclidean")
        g, h = self._shape(r2)
        h *= G
        out = [2 * np.vdot(G, g)]
        out += list(_spread(h, X, Z)) if self.length.ndim else [np.vdot(h, r2)]
        return self.scale**2 * np.array(out)


def _spread(M: Array, X: Array, Z: Array) -> Array:
    """Σᵢⱼ M[i, j] (X[i, d] − Z[j, d])² for each d, from products of matrices."""
    out: Array = M.sum(axis=1) @ X**2 + M.sum(axis=0) @ Z**2
    out -= 2 * np.einsum("id,id->d", X, M @ Z)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class SquaredExponential(_Stationary):
    """σ² exp(−r²/2): functions that can be differentiated without end.

    `length` is one number, or one for each input.

    Raises:
        ValueError: a parameter is not a number from 1e-50 to 1e50.
    """

    scale: float
    length: Any  # one number, or (D,)

    def __post_init__(self) -> None:
        self._check()

    def _shape(self, r2: Array) -> tuple[Array, Array]:
        g = np.exp(-0.5 * r2)  # eq gp-se
        return g, g.copy()


@dataclass(frozen=True, slots=True, eq=False)
class Matern(_Stationary):
    """Matérn kernel of order ν = 1/2, 3/2 or 5/2: functions with ν − 1/2 derivatives.

    Raises:
        ValueError: a parameter is not a number from 1e-50 to 1e50, or `order` is
            another number.
    """

    scale: float
    length: Any  # one number, or (D,)
    order: float

    def __post_init__(self) -> None:
        self._check()
        order = check_scalar("order", self.order)
        if order not in (0.5, 1.5, 2.5):
            raise ValueError(f"order is {order:g}, wants 0.5, 1.5 or 2.5")
        _set(self, "order", order)

    def _shape(self, r2: Array) -> tuple[Array, Array]:
        u = np.sqrt(2 * self.order * r2)
        e = np.exp(-u)
        if self.order == 0.5:  # the slope is infinite at zero, where distances are zero
            return e, np.divide(e, u, out=np.zeros_like(u), where=u > 0)
        if self.order == 1.5:
            return (1 + u) * e, 3 * e  # eq gp-matern
        return (1 + u + u**2 / 3) * e, 5 / 3 * (1 + u) * e

    def _pull(self, X: Array, Z: Array, G: Array) -> Array:
        if self.order > 0.5:  # without zero arguments, which slots would not allow
            return _Stationary._pull(self, X, Z, G)
        # Sums of large slopes would cancel: plain differences lose nothing.
        return Kernel._pull(self, X, Z, G)


@dataclass(frozen=True, slots=True, eq=False)
class RationalQuadratic(_Stationary):
    """σ² (1 + r² / 2a)^(−a): squared exponentials of many lengths mixed.

    Raises:
        ValueError: a parameter is not a number from 1e-50 to 1e50.
    """

    scale: float
    length: Any  # one number, or (D,)
    shape: float

    def __post_init__(self) -> None:
        self._check()
        _set(self, "shape", _check_parameter("shape", self.shape))

    @property
    def names(self) -> tuple[str, ...]:
        """scale, the lengths, shape."""
        return *_Stationary.names.fget(self), "shape"  # type: ignore[attr-defined]

    @property
    def log_parameters(self) -> Array:
        """Logs of the scale, the lengths and the shape."""
        logs = _Stationary.log_parameters.fget(self)  # type: ignore[attr-defined]
        return np.append(logs, np.log(self.shape))

    def _replaced(self, parameters: Array) -> Self:
        scale, *length, shape = parameters
        sides = self.length.shape
        return _changed(
            self,
            scale=float(scale),
            length=np.reshape(length, sides),
            shape=float(shape),
        )

    def _shape(self, r2: Array) -> tuple[Array, Array]:
        bulk = np.log1p(r2 / (2 * self.shape))
        g = np.exp(-self.shape * bulk)  # eq gp-rq
        return g, g * np.exp(-bulk)

    def _by_shape(self, r2: Array) -> Array:
        """∂k / ∂ log shape = a k (u / (1 + u) − log(1 + u)), with u = r² / 2a."""
        u = r2 / (2 * self.shape)
        slope = self.shape * (u / (1 + u) - np.log1p(u))
        out: Array = self.scale**2 * self._shape(r2)[0] * slope
        return out

    def _derivatives(self, X: Array, Z: Array) -> list[Array]:
        r2 = cdist(X / self.length, Z / self.length, "sqeuclidean")
        return [*_Stationary._derivatives(self, X, Z), self._by_shape(r2)]

    def _pull(self, X: Array, Z: Array, G: Array) -> Array:
        r2 = cdist(X / self.length, Z / self.length, "sqeuclidean")
        both = _Stationary._pull(self, X, Z, G)
        return np.append(both, np.vdot(G, self._by_shape(r2)))


@dataclass(frozen=True, slots=True, eq=False)
class Periodic(Kernel):
    """σ² exp(−2 sin²(π (x − z) / period) / length²), for points of one input.

    Raises:
        ValueError: a parameter is not a number from 1e-50 to 1e50.
    """

    scale: float
    length: float  # of the sine: no unit
    period: float

    def __post_init__(self) -> None:
        for name in self.names:
            _set(self, name, _check_parameter(name, getattr(self, name)))

    def _check_inputs(self, D: int) -> None:
        if D != 1:
            raise ValueError(f"X has {D} inputs a point, a periodic kernel wants 1")

    @property
    def names(self) -> tuple[str, ...]:
        """scale, length, period."""
        return "scale", "length", "period"

    @property
    def log_parameters(self) -> Array:
        """Logs of scale, length and period."""
        return np.log([self.scale, self.length, self.period])

    def _replaced(self, parameters: Array) -> Self:
        return type(self)(*map(float, parameters))

    def _parts(self, X: Array, Z: Array) -> tuple[Array, Array, Array]:
        turn = np.pi * ((X - Z.T) / self.period)
        sine = np.sin(turn) / self.length
        return turn, sine, self.scale**2 * np.exp(-2 * sine**2)  # eq gp-periodic

    def _matrix(self, X: Array, Z: Array) -> Array:
        return self._parts(X, Z)[2]

    def _diag(self, X: Array) -> Array:
        return np.full(len(X), self.scale**2)

    def _derivatives(self, X: Array, Z: Array) -> list[Array]:
        turn, sine, k = self._parts(X, Z)
        by_period = 4 * sine * np.cos(turn) / self.length * turn * k
        return [2 * k, 4 * sine**2 * k, by_period]


@dataclass(frozen=True, slots=True, eq=False)
class Linear(Kernel):
    """σ² x·z: straight lines through the origin.  scale² is the variance of a slope.

    Raises:
        ValueError: the scale is not a number from 1e-50 to 1e50.
    """

    scale: float

    def __post_init__(self) -> None:
        _set(self, "scale", _check_parameter("scale", self.scale))

    @property
    def names(self) -> tuple[str, ...]:
        """scale."""
        return ("scale",)

    @property
    def log_parameters(self) -> Array:
        """Log of the scale."""
        return np.log([self.scale])

    def _replaced(self, parameters: Array) -> Self:
        return type(self)(float(parameters[0]))

    def _matrix(self, X: Array, Z: Array) -> Array:
        out: Array = self.scale**2 * (X @ Z.T)  # eq gp-linear
        return out

    def _diag(self, X: Array) -> Array:
        out: Array = self.scale**2 * (X**2).sum(axis=1)
        return out

    def _derivatives(self, X: Array, Z: Array) -> list[Array]:
        return [2 * self._matrix(X, Z)]


@dataclass(frozen=True, slots=True, eq=False)
class Constant(Kernel):
    """σ²: functions that are one number everywhere, an offset nobody knows.

    Raises:
        ValueError: the scale is not a number from 1e-50 to 1e50.
    """

    scale: float

    def __post_init__(self) -> None:
        _set(self, "scale", _check_parameter("scale", self.scale))

    @property
    def names(self) -> tuple[str, ...]:
        """scale."""
        return ("scale",)

    @property
    def log_parameters(self) -> Array:
        """Log of the scale."""
        return np.log([self.scale])

    def _replaced(self, parameters: Array) -> Self:
        return type(self)(float(parameters[0]))

    def _matrix(self, X: Array, Z: Array) -> Array:
        return np.full((len(X), len(Z)), self.scale**2)

    def _diag(self, X: Array) -> Array:
        return np.full(len(X), self.scale**2)

    def _derivatives(self, X: Array, Z: Array) -> list[Array]:
        return [2 * self._matrix(X, Z)]


class _Pair(Kernel):
    """Two kernels and what is made of them."""

    __slots__ = ()
    left: Kernel
    right: Kernel

    def _check(self) -> None:
        _check_kernel("left", self.left)
        _check_kernel("right", self.right)

    def _check_inputs(self, D: int) -> None:
        self.left._check_inputs(D)
        self.right._check_inputs(D)

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the left kernel, then those of the right."""
        return (
            *(f"left.{name}" for name in self.left.names),
            *(f"right.{name}" for name in self.right.names),
        )

    @property
    def log_parameters(self) -> Array:
        """Those of the left kernel, then those of the right."""
        return np.concatenate([self.left.log_parameters, self.right.log_parameters])

    def _replaced(self, parameters: Array) -> Self:
        left, right = np.split(parameters, [len(self.left.log_parameters)])
        return _changed(  # type: ignore[type-var]
            self, left=self.left._replaced(left), right=self.right._replaced(right)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Sum(_Pair):
    """k₁ + k₂: the sum of two independent functions.

    Raises:
        ValueError: one of them is no kernel.
    """

    left: Kernel
    right: Kernel

    def __post_init__(self) -> None:
        self._check()

    def _matrix(self, X: Array, Z: Array) -> Array:
        return self.left._matrix(X, Z) + self.right._matrix(X, Z)  # eq gp-sum

    def _diag(self, X: Array) -> Array:
        return self.left._diag(X) + self.right._diag(X)

    def _derivatives(self, X: Array, Z: Array) -> list[Array]:
        return self.left._derivatives(X, Z) + self.right._derivatives(X, Z)

    def _pull(self, X: Array, Z: Array, G: Array) -> Array:
        return np.append(self.left._pull(X, Z, G), self.right._pull(X, Z, G))


@dataclass(frozen=True, slots=True, eq=False)
class Product(_Pair):
    """k₁ k₂: similar only where both kernels say so.

    Raises:
        ValueError: one of them is no kernel.
    """

    left: Kernel
    right: Kernel

    def __post_init__(self) -> None:
        self._check()

    def _matrix(self, X: Array, Z: Array) -> Array:
        return self.left._matrix(X, Z) * self.right._matrix(X, Z)  # eq gp-product

    def _diag(self, X: Array) -> Array:
        return self.left._diag(X) * self.right._diag(X)

    def _derivatives(self, X: Array, Z: Array) -> list[Array]:
        left, right = self.left._matrix(X, Z), self.right._matrix(X, Z)
        return [
            *(d * right for d in self.left._derivatives(X, Z)),
            *(left * d for d in self.right._derivatives(X, Z)),
        ]

    def _pull(self, X: Array, Z: Array, G: Array) -> Array:
        left, right = self.left._matrix(X, Z), self.right._matrix(X, Z)
        mine = self.left._pull(X, Z, G * right)
        return np.append(mine, self.right._pull(X, Z, G * left))


# ------------------------------------------------------------ regression


@dataclass(frozen=True, slots=True, eq=False)
class Regression:
    """A Gaussian process given data, as `condition` returns it.

    `L` (n, n) is the Cholesky factor of K + σ² I, `alpha` (n,) its solution for y.
    """

    kernel: Kernel
    noise: float
    X: Array
    y: Array
    L: Array
    alpha: Array
    log_evidence: float


def condition(
    kernel: Kernel, noise: float, X: Array, y: Array, jitter: float = 0.0
) -> Regression:
    """The process given y = f(X) + noise; also log p(y).  Cost O(n³/3).

    `jitter` is added to the diagonal, in the squared units of y, where rounding would
    make the matrix indefinite.

    Raises:
        ValueError: a malformed argument, or a matrix that is not positive definite.
    """
    kernel, noise, X, y = _check_data(kernel, noise, X, y)
    K = _covariance(kernel, X, X)
    K[np.diag_indices_from(K)] += noise**2
    L = _cholesky("kernel", K, _check_jitter(jitter))
    alpha = _solve_lower_t(L, _solve_lower(L, y))  # eq gp-alpha
    fit = -0.5 * float(y @ alpha)
    complexity = float(np.log(np.diag(L)).sum())
    log_p = fit - complexity - 0.5 * len(y) * LOG_TWO_PI  # eq gp-evidence
    return Regression(kernel, noise, X.copy(), y.copy(), L, alpha, log_p)


def predict(model: Regression, Z: Array) -> tuple[Array, Array]:
    """Mean and variance of f at each point of Z, (m,) both.  Cost O(n² m).

    The variance of a new measurement is larger by noise².

    Raises:
        ValueError: `model` is no Regression, or `Z` no points that fit it.
    """
    model, Z = check_type("model", model, Regression), _check_new(model, Z)
    k = _covariance(model.kernel, model.X, Z)  # (n, m)
    mean: Array = k.T @ model.alpha  # eq gp-mean
    v = _solve_lower(model.L, k)
    var = _variance(model.kernel, Z) - (v**2).sum(axis=0)  # eq gp-variance
    return mean, _not_below_zero(var)


def predict_joint(model: Regression, Z: Array) -> tuple[Array, Array]:
    """Mean (m,) and covariance (m, m) of f at Z.  Cost O(n² m + n m²).

    Raises:
        ValueError: as `predict`.
    """
    model, Z = check_type("model", model, Regression), _check_new(model, Z)
    k = _covariance(model.kernel, model.X, Z)
    v = _solve_lower(model.L, k)
    cov = _covariance(model.kernel, Z, Z) - v.T @ v  # eq gp-covariance
    return k.T @ model.alpha, (cov + cov.T) / 2


def draw(
    mean: Array, cov: Array, n: int, rng: np.random.Generator, jitter: float = 0.0
) -> Array:
    """n functions with this mean (m,) and covariance (m, m), shape (n, m).

    Raises:
        ValueError: a malformed argument, or a covariance that is not positive definite:
            closely spaced points need a `jitter`.
    """
    L = factor("cov", cov, _check_jitter(jitter))
    mean = check_array("mean", mean, (len(L),), low=-LARGE, high=LARGE)
    n, rng = check_whole("n", n, 1), check_rng(rng)
    out: Array = mean + rng.standard_normal((n, len(mean))) @ L.T  # eq gp-draw
    return out


def leave_one_out(model: Regression) -> tuple[Array, Array, Array]:
    """Mean, variance and log density of each y[i] given all the others, (n,) each.

    All n predictions from the one factorisation.  Cost O(n³/3) more.

    Raises:
        ValueError: `model` is no Regression.
    """
    model = check_type("model", model, Regression)
    inverse_L = _solve_lower(model.L, np.eye(len(model.y)))
    var: Array = 1 / (inverse_L**2).sum(axis=0)
    mean = model.y - model.alpha * var  # eq gp-loo
    return mean, var, _log_normal(model.y, mean, var)


def coverage(mean: Array, var: Array, y: Array, level: float) -> float:
    """The share of y inside the central interval that should hold `level` of them.

    mean, var and y are (n,); `var` is that of a measurement, noise included.

    Raises:
        ValueError: a malformed argument, or a level not between 0 and 1.
    """
    y = _check_values("y", y, ("n",))
    mean = _check_values("mean", mean, (len(y),))
    var = check_array("var", var, (len(y),), low=0.0, high=LARGE * LARGE)
    level = check_scalar("level", level, 0.0, 1.0)
    half = ndtri(0.5 + 0.5 * min(level, 1 - 1e-16)) * np.sqrt(var)
    return float(np.mean(np.abs(y - mean) <= half))  # eq gp-coverage


# ------------------------------------------------------------ learning the parameters


def log_evidence_gradient(kernel: Kernel, noise: float, X: Array, y: Array) -> Array:
    """∂ log p(y) / ∂ θ, the log parameters and log noise, shape (P + 1,).

    The plain form: one matrix for each parameter.  Cost O(n³ + P n²), memory O(P n²).

    Raises:
        ValueError: as `condition`.
    """
    model = condition(kernel, noise, X, y)
    inverse = _solve_lower_t(model.L, _solve_lower(model.L, np.eye(len(model.y))))
    G = np.outer(model.alpha, model.alpha) - inverse
    by_kernel = [0.5 * np.sum(G * dK) for dK in kernel.derivatives(X)]  # eq gp-gradient
    return np.array([*by_kernel, model.noise**2 * np.trace(G)])


def value_and_gradient(
    kernel: Kernel, noise: float, X: Array, y: Array
) -> tuple[float, Array]:
    """log p(y), and its gradient (P + 1,) by log parameters and log noise.

    The fast form: LAPACK in place, lower triangles only, and each block of rows pulled
    back to the parameters while it is in the cache.  Cost O(n³), memory O(n²).

    Raises:
        ValueError: as `condition`.
    """
    kernel, noise, X, y = _check_data(kernel, noise, X, y)
    n, gradient = len(y), np.zeros(len(kernel.log_parameters))
    K = np.empty((n, n))
    for a, b in _blocks(n):
        K[a:b, :b] = _covariance(kernel, X[a:b], X[:b])
    diagonal = K.reshape(-1)[:: n + 1]
    diagonal += noise**2
    # Row by row, a lower triangle is what LAPACK takes for an upper one.
    U, failed = lapack.dpotrf(K.T, lower=0, clean=0, overwrite_a=1)
    _check_factor("kernel", failed, float(diagonal.max()))
    log_p = -float(np.log(np.diagonal(U)).sum()) - 0.5 * n * LOG_TWO_PI
    alpha, _ = lapack.dpotrs(U, y, lower=0)
    log_p -= 0.5 * float(y @ alpha)
    inverse, _ = lapack.dpotri(U, lower=0, overwrite_c=1)
    inverse = inverse.T
    for a, b in _blocks(n):
        G = np.outer(alpha[a:b], alpha[:b]) - inverse[a:b, :b]
        G[:, a:] = np.tril(G[:, a:], -1) + np.diag(0.5 * np.diagonal(G, a))
        gradient += _pulled(kernel, X[a:b], X[:b], G)  # eq gp-pull
    by_noise = noise**2 * float(alpha @ alpha - np.trace(inverse))
    return log_p, np.append(gradient, by_noise)


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What `fit` found: the parameters, log p(y) at each step, whether it settled."""

    kernel: Kernel
    noise: float
    log_evidence: Array
    converged: bool


def fit(
    kernel: Kernel,
    noise: float,
    X: Array,
    y: Array,
    free: BoolArray | None = None,
    n_iter: int = 200,
) -> Fit:
    """Maximise log p(y) over the log parameters and log noise, by L-BFGS.

    `free` (P + 1,), the noise last, is False where a parameter shall keep its value.
    No parameter leaves a factor of 10⁸ around its start.

    Raises:
        ValueError: as `condition`, no parameter is free, or `n_iter` is below one.
    """
    kernel, noise, X, y = _check_data(kernel, noise, X, y)
    start = np.append(kernel.log_parameters, np.log(noise))
    free = np.ones(len(start), bool) if free is None else free
    free = check_mask("free", free, (len(start),))
    if not free.any():
        raise ValueError("free is False throughout, wants a parameter to learn")
    value_and_gradient(kernel, noise, X, y)  # refuses what cannot be started from

    def at(theta: Array) -> tuple[float, Array]:
        here = _unpacked(kernel, np.where(free, theta, start))
        log_p, gradient = value_and_gradient(*here, X, y)
        return log_p, np.where(free, gradient, 0.0)

    theta, history, converged = _climb(at, start, check_whole("n_iter", n_iter, 1))
    return Fit(*_unpacked(kernel, np.where(free, theta, start)), history, converged)


def fit_restarts(
    kernel: Kernel,
    noise: float,
    X: Array,
    y: Array,
    n: int,
    rng: np.random.Generator,
    spread: float = 1.0,
    free: BoolArray | None = None,
) -> list[Fit]:
    """`fit` from the start given and from n others, the best first.

    The others multiply each free parameter by exp(spread times a standard normal).

    Raises:
        ValueError: as `fit`, or `n` is negative, or `spread` is not from 0 to 10.
    """
    kernel, noise, X, y = _check_data(kernel, noise, X, y)
    n, rng = check_whole("n", n, 0), check_rng(rng)
    spread = check_scalar("spread", spread, 0.0, 10.0)
    start = np.append(kernel.log_parameters, np.log(noise))
    mask = np.ones(len(start), bool) if free is None else free
    mask = check_mask("free", mask, (len(start),))
    fits = [fit(kernel, noise, X, y, mask)]
    for _ in range(n):
        shift = spread * rng.standard_normal(len(start)) * mask
        fits.append(fit(*_unpacked(kernel, start + shift), X, y, mask))
    return sorted(fits, key=lambda one: -one.log_evidence[-1])


def _unpacked(kernel: Kernel, theta: Array) -> tuple[Kernel, float]:
    bound = float(np.log(LARGE))
    theta = np.clip(theta, -bound, bound)
    return kernel.replace(theta[:-1]), float(np.exp(theta[-1]))


def _climb(
    at: Callable[[Array], tuple[float, Array]], start: Array, n_iter: int
) -> tuple[Array, Array, bool]:
    """L-BFGS uphill: where it ended, the values on its way, whether it settled."""
    values: dict[bytes, float] = {}

    def downhill(theta: Array) -> tuple[float, Array]:
        try:
            log_p, gradient = at(theta)
        except ValueError:  # no factor there: a wall, no higher than to step back from
            return (1.0 - min(values.values())) / unit, np.zeros_like(theta)
        values[theta.tobytes()] = log_p
        return -log_p / unit, -gradient / unit

    first, slope = at(start)
    values[start.tobytes()] = first
    history = [first]
    unit = max(float(np.linalg.norm(slope)), 1e-8)  # the first step has length one
    reach = np.log(1e8)
    found = minimize(
        downhill,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=np.stack([start - reach, start + reach], axis=1),
        callback=lambda theta: history.append(values.get(theta.tobytes(), history[-1])),
        options={"maxiter": n_iter, "maxls": 40, "gtol": 1e-7, "ftol": 1e-12},
    )
    return np.asarray(found.x), np.array(history), bool(found.status == 0)


# ------------------------------------------------------------ other likelihoods


class Likelihood(ABC):
    """p(y | f) for each point by itself, log-concave in f."""

    __slots__ = ()

    @abstractmethod
    def check(self, y: Array) -> Array:
        """y as floats, if it is what this likelihood describes.

        Raises:
            ValueError: it is not.
        """

    @abstractmethod
    def log_p(self, y: Array, f: Array) -> Array:
        """log p(y | f), entry by entry; f has the shape of y, or rows like it."""

    @abstractmethod
    def slopes(self, y: Array, f: Array) -> tuple[Array, Array, Array]:
        """The first derivative of log p by f, minus the second, and the third."""

    @abstractmethod
    def expected(self, mean: Array, var: Array) -> Array:
        """The mean of y where f is Normal(mean, var)."""


@dataclass(frozen=True, slots=True)
class Logistic(Likelihood):
    """Labels 0 and 1: p(y = 1 | f) = 1 / (1 + exp(−f))."""

    def check(self, y: Array) -> Array:
        """y, if all are 0 or 1.

        Raises:
            ValueError: another number.
        """
        return _check_labels(y)

    def log_p(self, y: Array, f: Array) -> Array:
        """−log(1 + exp(∓f)).

        Raises:
            ValueError: y is no label, or f does not fit it.
        """
        y = self.check(y)
        f = _check_f(y, f)
        out: Array = -np.logaddexp(0.0, (1 - 2 * y) * f)  # eq gp-logistic
        return out

    def slopes(self, y: Array, f: Array) -> tuple[Array, Array, Array]:
        """y − p, p (1 − p), −p (1 − p) (1 − 2 p).

        Raises:
            ValueError: as `log_p`.
        """
        y = self.check(y)
        f = _check_f(y, f)
        p = expit(f)
        w = p * expit(-f)
        return y - p, w, -w * (1 - 2 * p)

    def expected(self, mean: Array, var: Array) -> Array:
        """The probability of a 1, averaged over f by quadrature.

        Raises:
            ValueError: a malformed argument.
        """
        return _averaged_logistic(*_check_moments(mean, var))


@dataclass(frozen=True, slots=True)
class Probit(Likelihood):
    """Labels 0 and 1: p(y = 1 | f) = Φ(f), the standard normal's distribution."""

    def check(self, y: Array) -> Array:
        """y, if all are 0 or 1.

        Raises:
            ValueError: another number.
        """
        return _check_labels(y)

    def log_p(self, y: Array, f: Array) -> Array:
        """log Φ(±f).

        Raises:
            ValueError: y is no label, or f does not fit it.
        """
        y = self.check(y)
        f = _check_f(y, f)
        out: Array = log_ndtr((2 * y - 1) * f)  # eq gp-probit
        return out

    def slopes(self, y: Array, f: Array) -> tuple[Array, Array, Array]:
        """With u = ±f and r = N(u) / Φ(u): ±r, r (r + u), ±r ((2r + u)(r + u) − 1).

        Raises:
            ValueError: as `log_p`.
        """
        y = self.check(y)
        f = _check_f(y, f)
        sign = 2 * y - 1
        u = sign * f
        r = np.exp(-0.5 * u**2 - 0.5 * LOG_TWO_PI - log_ndtr(u))
        return sign * r, r * (r + u), sign * r * ((2 * r + u) * (r + u) - 1)

    def expected(self, mean: Array, var: Array) -> Array:
        """The probability of a 1: Φ(mean / √(1 + var)).

        Raises:
            ValueError: a malformed argument.
        """
        mean, var = _check_moments(mean, var)
        out: Array = ndtr(mean / np.sqrt(1 + var))
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Poisson(Likelihood):
    """Counts: y is Poisson with mean exposure · exp(f).

    `exposure` is one number or (n,): the time (s) spent at each point, when exp(f) is a
    rate (1/s).

    Raises:
        ValueError: an exposure is not a number from 1e-50 to 1e50.
    """

    exposure: Any  # one number, or (n,)

    def __post_init__(self) -> None:
        exposure = check_real("exposure", self.exposure)
        wanted = () if exposure.ndim == 0 else ("n",)
        exposure = check_array("exposure", exposure, wanted, low=SMALL, high=LARGE)
        _set(self, "exposure", exposure.copy())

    def check(self, y: Array) -> Array:
        """y, if all are counts, as many as there are exposures.

        Raises:
            ValueError: they are not.
        """
        n = ("n",) if self.exposure.ndim == 0 else self.exposure.shape
        return check_counts("y", y, n).astype(float)

    def log_p(self, y: Array, f: Array) -> Array:
        """y log(mean) − mean − log y!; −inf where the mean overflows.

        Raises:
            ValueError: y is no count, or f does not fit it.
        """
        y = self.check(y)
        log_mean = _check_f(y, f) + np.log(self.exposure)
        with np.errstate(over="ignore"):
            rare = y * log_mean - np.exp(log_mean)
        out: Array = rare - gammaln(y + 1)  # eq gp-poisson
        return out

    def slopes(self, y: Array, f: Array) -> tuple[Array, Array, Array]:
        """y − mean, mean, −mean.

        Raises:
            ValueError: as `log_p`, or a mean that overflows.
        """
        y = self.check(y)
        f = _check_f(y, f)
        if (f > 500).any():
            raise ValueError(f"f is {f.max():g}, wants at most 500: its exp overflows")
        mean = self.exposure * np.exp(f)
        return y - mean, mean, -mean

    def expected(self, mean: Array, var: Array) -> Array:
        """The mean rate, exp(mean + var / 2), for an exposure of one.

        Raises:
            ValueError: a malformed argument, or a rate that overflows.
        """
        mean, var = _check_moments(mean, var)
        log_rate = mean + 0.5 * var
        if (log_rate > 500).any():
            raise ValueError(
                f"var makes a log rate of {log_rate.max():g}, wants at most 500"
            )
        out: Array = np.exp(log_rate)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Latent:
    """A Gaussian approximation to p(f | y), as `laplace` and `ep` return it.

    It is the posterior of a regression with pseudo-data: at each point a precision,
    root² (n,), and `weight` (n,), so that the mean at X is K weight.  `L` (n, n) is the
    Cholesky factor of B = I + root K root.
    """

    kernel: Kernel
    likelihood: Likelihood
    X: Array
    mean: Array
    var: Array
    weight: Array
    root: Array
    L: Array
    log_evidence: float
    n_iter: int


def laplace(
    kernel: Kernel, likelihood: Likelihood, X: Array, y: Array, n_iter: int = 100
) -> Latent:
    """Laplace's approximation: a Gaussian at the mode of p(f | y).  Cost O(n³) a step.

    Newton's method, with steps halved where a full one would go downhill.

    Raises:
        ValueError: a malformed argument, or no convergence in n_iter steps.
    """
    kernel, likelihood, X, y = _check_latent(kernel, likelihood, X, y)
    n_iter = check_whole("n_iter", n_iter, 1)
    K = _covariance(kernel, X, X)
    weight, f = np.zeros(len(y)), np.zeros(len(y))
    for step in range(n_iter):
        d1, w, _ = likelihood.slopes(y, f)
        target = _newton(K, np.sqrt(w), w * f + d1)
        new, f_new = _uphill(K, likelihood, y, weight, f, target)
        moved = float(np.abs(f_new - f).max())
        weight, f = new, f_new
        if moved < 1e-9 * (1 + float(np.abs(f).max())):
            return _at_mode(kernel, likelihood, X, y, K, f, step + 1)
    raise ValueError(f"n_iter is {n_iter}, wants more: Newton's method has not settled")


def _newton(K: Array, root: Array, b: Array) -> Array:
    """The weight a = b − √W B⁻¹ √W K b to which a Newton step leads."""
    L = _site_factor(K, root)
    inner = _solve_lower_t(L, _solve_lower(L, root * (K @ b)))
    out: Array = b - root * inner  # eq gp-newton
    return out


def _uphill(
    K: Array, likelihood: Likelihood, y: Array, old: Array, f: Array, target: Array
) -> tuple[Array, Array]:
    """The first of the full, half, quarter … steps that does not go downhill."""
    step, f_target = 1.0, K @ target
    best = _log_joint(likelihood, y, old, f)
    for _ in range(60):
        a, g = old + step * (target - old), f + step * (f_target - f)
        with np.errstate(over="ignore"):  # a step too far, which is refused
            value = _log_joint(likelihood, y, a, g)
        if value >= best - 1e-12 * (1 + abs(best)):
            return a, g
        step *= 0.5
    return old, f


def _log_joint(likelihood: Likelihood, y: Array, a: Array, f: Array) -> float:
    """log p(y | f) + log p(f) up to a constant, with f = K a."""
    return float(likelihood.log_p(y, f).sum() - 0.5 * (a @ f))  # eq gp-log-joint


def _at_mode(
    kernel: Kernel,
    likelihood: Likelihood,
    X: Array,
    y: Array,
    K: Array,
    f: Array,
    n_iter: int,
) -> Latent:
    weight, w, _ = likelihood.slopes(y, f)  # at the mode the weight is the slope
    root = np.sqrt(w)
    L = _site_factor(K, root)
    v = _solve_lower(L, root[:, None] * K)
    var = _not_below_zero(np.diag(K) - (v**2).sum(axis=0))
    half_log_det = float(np.log(np.diag(L)).sum())
    log_p = _log_joint(likelihood, y, weight, f) - half_log_det  # eq gp-laplace
    return Latent(kernel, likelihood, X.copy(), f, var, weight, root, L, log_p, n_iter)


def laplace_value_and_gradient(
    kernel: Kernel, likelihood: Likelihood, X: Array, y: Array
) -> tuple[float, Array]:
    """Laplace's log p(y), and its gradient (P,) by the kernel's log parameters.

    Cost O(n³).

    Raises:
        ValueError: as `laplace`.
    """
    kernel, likelihood, X, y = _check_latent(kernel, likelihood, X, y)
    at = laplace(kernel, likelihood, X, y)
    K = _covariance(kernel, X, X)
    d1, _, d3 = likelihood.slopes(y, at.mean)
    inner = _solve_lower(at.L, np.diag(at.root))
    R = inner.T @ inner  # (K + W⁻¹)⁻¹
    by_mode = 0.5 * at.var * d3
    u = by_mode - R @ (K @ by_mode)
    G = 0.5 * (np.outer(d1, d1) - R)
    G += 0.5 * (np.outer(u, d1) + np.outer(d1, u))
    return at.log_evidence, _pulled(kernel, X, X, G)  # eq gp-laplace-gradient


def fit_laplace(
    kernel: Kernel,
    likelihood: Likelihood,
    X: Array,
    y: Array,
    free: BoolArray | None = None,
    n_iter: int = 100,
) -> tuple[Kernel, Array]:
    """The kernel whose Laplace log p(y) is largest, and that value at each step.

    `free` (P,) is False where a parameter shall keep its value.

    Raises:
        ValueError: as `laplace`, no parameter is free, or `n_iter` is below one.
    """
    kernel, likelihood, X, y = _check_latent(kernel, likelihood, X, y)
    start = kernel.log_parameters
    free = np.ones(len(start), bool) if free is None else free
    free = check_mask("free", free, (len(start),))
    if not free.any():
        raise ValueError("free is False throughout, wants a parameter to learn")

    def at(theta: Array) -> tuple[float, Array]:
        here = kernel.replace(np.where(free, theta, start))
        log_p, gradient = laplace_value_and_gradient(here, likelihood, X, y)
        return log_p, np.where(free, gradient, 0.0)

    theta, history, _ = _climb(at, start, check_whole("n_iter", n_iter, 1))
    return kernel.replace(np.where(free, theta, start)), history


def ep(
    kernel: Kernel,
    likelihood: Likelihood,
    X: Array,
    y: Array,
    n_iter: int = 200,
    damping: float = 0.5,
) -> Latent:
    """Expectation propagation: moments matched at each point.  Cost O(n³) a sweep.

    All points are updated at once, each by `damping` of its full step.

    Raises:
        ValueError: a malformed argument, or no convergence in n_iter sweeps.
    """
    kernel, likelihood, X, y = _check_latent(kernel, likelihood, X, y)
    n_iter = check_whole("n_iter", n_iter, 1)
    damping = check_scalar("damping", damping, 1e-3, 1.0)
    K = _covariance(kernel, X, X)
    tau, nu = np.zeros(len(y)), np.zeros(len(y))
    for sweep in range(n_iter):
        L, mean, var = _site_posterior(K, tau, nu)
        hole, centre = _cavity(mean, var, tau, nu)
        log_z, m, v = tilted(likelihood, y, centre, 1 / hole)
        if not (v > 0).all():
            raise ValueError(
                "kernel has so large a scale that EP loses all digits, "
                "wants a smaller one"
            )
        full = np.maximum(1 / v - hole, 0.0)  # log-concave: rounding alone goes below
        full_nu = m / v - centre * hole
        change = np.abs(m - mean) / np.sqrt(v) + np.abs(np.log(v / var))
        if change.max() < 1e-9:
            log_p = _ep_evidence(L, mean, tau, nu, hole, centre, log_z)
            weight = nu - tau * mean  # K⁻¹ mean, by the definition of the mean
            return Latent(
                kernel, likelihood, X.copy(), mean, var, weight, np.sqrt(tau), L,
                log_p, sweep + 1,
            )  # fmt: skip
        tau = tau + damping * (full - tau)
        nu = nu + damping * (full_nu - nu)
    raise ValueError(f"n_iter is {n_iter}, wants more: EP has not settled")


def _site_posterior(K: Array, tau: Array, nu: Array) -> tuple[Array, Array, Array]:
    """Factor of B, mean and variances of the Gaussian prior times Gaussian sites."""
    root = np.sqrt(tau)
    L = _site_factor(K, root)
    v = _solve_lower(L, root[:, None] * K)
    Sigma = K - v.T @ v  # eq gp-site-posterior
    var = np.diag(Sigma).copy()
    if not (var > 0).all():
        raise ValueError(
            f"kernel leaves point {np.argmin(var)} no variance, wants some everywhere"
        )
    return L, Sigma @ nu, var


def _cavity(mean: Array, var: Array, tau: Array, nu: Array) -> tuple[Array, Array]:
    """Precision and mean at each point when its own site is taken out."""
    hole = 1 / var - tau  # eq gp-cavity
    centre = (mean / var - nu) / hole
    return hole, centre


def tilted(
    likelihood: Likelihood, y: Array, mean: Array, var: Array
) -> tuple[Array, Array, Array]:
    """log Z, mean and variance of p(y | f) Normal(f; mean, var), each (n,).

    By Gauss-Legendre quadrature on both sides of the mode of each product.

    Raises:
        ValueError: a malformed argument.
    """
    likelihood = _check_likelihood(likelihood)
    y = likelihood.check(y)
    mean = _check_values("mean", mean, (len(y),))
    var = check_array("var", var, (len(y),), low=SMALL, high=LARGE)

    def log_joint(f: Array) -> Array:
        return likelihood.log_p(y, f) + _log_normal(f, mean, var)

    f, width = _tilted_mode(likelihood, y, mean, var)
    nodes, weights = np.polynomial.legendre.leggauss(64)
    points, log_mass = [], []
    for side in (-1.0, 1.0):
        reach = side * _reach(log_joint, f, side * width)
        points.append(f + side * reach * (nodes[:, None] + 1) / 2)  # (64, n)
        log_mass.append(log_joint(points[-1]) + np.log(weights[:, None] * reach / 2))
    g, logs = np.concatenate(points), np.concatenate(log_mass)
    log_z = logsumexp(logs, axis=0)  # eq gp-tilted
    share = np.exp(logs - log_z)
    centre = (share * g).sum(axis=0)
    return log_z, centre, (share * (g - centre) ** 2).sum(axis=0)


def _tilted_mode(
    likelihood: Likelihood, y: Array, mean: Array, var: Array
) -> tuple[Array, Array]:
    """Mode of p(y | f) Normal(f; mean, var), and the standard deviation it suggests."""
    f = mean.copy()
    for _ in range(200):
        d1, w, _ = likelihood.slopes(y, f)
        step = (d1 - (f - mean) / var) / (w + 1 / var)
        f += np.clip(step, -2.0, 2.0)  # a full step may run away where exp grows
        if np.abs(step).max() < 1e-10:
            break
    return f, 1 / np.sqrt(likelihood.slopes(y, f)[1] + 1 / var)


def _reach(log_joint: Callable[[Array], Array], f: Array, step: Array) -> Array:
    """`step` doubled until the density at f + step is e⁻⁴⁰ of that at f."""
    top = log_joint(f)
    for _ in range(60):
        with np.errstate(over="ignore"):  # exp(f) may be inf there: far enough
            short = log_joint(f + step) > top - 40.0
        if not short.any():
            break
        step = np.where(short, 2 * step, step)
    return step


def _ep_evidence(
    L: Array,
    mean: Array,
    tau: Array,
    nu: Array,
    hole: Array,
    centre: Array,
    log_z: Array,
) -> float:
    """log p(y): the sites' joint integral, each site scaled to match its moments."""
    joint = 0.5 * float(nu @ mean) - float(np.log(np.diag(L)).sum())
    site = 0.5 * ((nu + hole * centre) ** 2 / (hole + tau) - hole * centre**2)
    site -= 0.5 * np.log1p(tau / hole)
    return joint + float((log_z - site).sum())  # eq gp-ep-evidence


def predict_latent(model: Latent, Z: Array) -> tuple[Array, Array]:
    """Mean and variance of f at each point of Z, (m,) both.  Cost O(n² m).

    Raises:
        ValueError: `model` is no Latent, or `Z` no points that fit it.
    """
    model, Z = check_type("model", model, Latent), _check_new(model, Z)
    k = _covariance(model.kernel, model.X, Z)
    v = _solve_lower(model.L, model.root[:, None] * k)
    var = _variance(model.kernel, Z) - (v**2).sum(axis=0)  # eq gp-latent
    return k.T @ model.weight, _not_below_zero(var)


def predict_outcome(model: Latent, Z: Array) -> Array:
    """The mean of a new y at each point of Z, (m,): a probability, or a rate.

    Raises:
        ValueError: as `predict_latent`.
    """
    mean, var = predict_latent(model, Z)
    return model.likelihood.expected(mean, var)  # eq gp-outcome


# ------------------------------------------------------------ sparse approximations

METHODS = ("sor", "fitc", "vfe")


@dataclass(frozen=True, slots=True, eq=False)
class Sparse:
    """A regression through m inducing points, as `condition_sparse` returns it.

    `bound` is log p(y) of the approximate model; for "vfe" a lower bound on the exact.
    """

    kernel: Kernel
    noise: float
    Z: Array
    method: str
    L: Array
    L_B: Array
    c: Array
    bound: float


def condition_sparse(
    kernel: Kernel,
    noise: float,
    X: Array,
    y: Array,
    Z: Array,
    method: str,
    jitter: float = 0.0,
) -> Sparse:
    """The regression through the inducing points Z (m, D).  Cost O(n m²).

    `method` is "sor" (subset of regressors), "fitc" or "vfe" (variational).

    Raises:
        ValueError: a malformed argument, or a matrix that is not positive definite.
    """
    kernel, noise, X, y = _check_data(kernel, noise, X, y)
    Z = _check_points(kernel, "Z", Z, X.shape[1])
    if method not in METHODS:
        raise ValueError(f"method is {method!r}, wants one of {list(METHODS)}")
    K_zz = _covariance(kernel, Z, Z)
    L = _cholesky("Z", K_zz, _check_jitter(jitter))
    V = _solve_lower(L, _covariance(kernel, Z, X))  # (m, n); VᵀV = Q
    missed = _not_below_zero(_variance(kernel, X) - (V**2).sum(axis=0))  # eq gp-missed
    lam = noise**2 + missed if method == "fitc" else np.full(len(y), noise**2)
    W = V / lam
    L_B = _cholesky("Z", np.eye(len(Z)) + W @ V.T, 0.0)
    c = _solve_lower(L_B, W @ y)
    log_p = 0.5 * float(c @ c - y @ (y / lam)) - float(np.log(np.diag(L_B)).sum())
    log_p -= 0.5 * float((np.log(lam) + LOG_TWO_PI).sum())  # eq gp-sparse-evidence
    if method == "vfe":
        log_p -= 0.5 * float(missed.sum()) / noise**2  # eq gp-bound
    return Sparse(kernel, noise, Z.copy(), method, L, L_B, c, log_p)


def predict_sparse(model: Sparse, Z: Array) -> tuple[Array, Array]:
    """Mean and variance of f at each point of Z, (m,) both.

    Raises:
        ValueError: `model` is no Sparse, or `Z` no points that fit it.
    """
    model = check_type("model", model, Sparse)
    Z = _check_points(model.kernel, "Z", Z, model.Z.shape[1])
    v = _solve_lower(model.L, _covariance(model.kernel, model.Z, Z))
    u = _solve_lower(model.L_B, v)
    var = (u**2).sum(axis=0)
    if (
        model.method != "sor"
    ):  # what the inducing points cannot tell stays as in the prior
        var = (
            var + _variance(model.kernel, Z) - (v**2).sum(axis=0)
        )  # eq gp-sparse-predict
    return u.T @ model.c, _not_below_zero(var)


def pivots(kernel: Kernel, X: Array, m: int) -> IntArray:
    """Rows of X for inducing points, (m,): each the one of largest variance left.

    The greedy choice of an incomplete Cholesky factorisation.  Cost O(n m²).

    Raises:
        ValueError: a malformed argument, or fewer than m points that tell anything new.
    """
    kernel = _check_kernel("kernel", kernel)
    X = _check_points(kernel, "X", X)
    m = check_whole("m", m, 1)
    if m > len(X):
        raise ValueError(f"m is {m}, wants at most {len(X)}, the number of points")
    left = _variance(kernel, X).copy()
    start = left.max()
    V, chosen = np.empty((m, len(X))), np.empty(m, dtype=np.int64)
    for i in range(m):
        chosen[i] = left.argmax()
        if left[chosen[i]] <= 1e-14 * start:
            raise ValueError(f"m is {m}, wants at most {i}: the rest tells nothing new")
        k = _covariance(kernel, X[chosen[i]][None], X)[0]
        V[i] = (k - V[:i, chosen[i]] @ V[:i]) / np.sqrt(left[chosen[i]])
        left = left - V[i] ** 2  # eq gp-pivot
    return chosen


# ------------------------------------------------------------ linear time


@dataclass(frozen=True, slots=True, eq=False)
class Smoothed:
    """A Matérn process in time given data: log p(y), mean and variance of f, (n,)."""

    log_evidence: float
    mean: Array
    var: Array


def state_space(kernel: Matern, gap: Array) -> tuple[Array, Array, Array]:
    """Step matrices A and noise covariances Q over each gap, (n, J, J), and P (J, J).

    The state holds f and its derivatives, each in units of its natural rate; P is its
    covariance in the long run.  J is 1, 2, 3 for order 1/2, 3/2, 5/2.

    Raises:
        ValueError: `kernel` is no Matern kernel with one length, or a gap is negative.
    """
    kernel = _check_matern(kernel)
    gap = check_array("gap", gap, ("n",), low=0.0, high=LARGE)
    J = round(kernel.order + 0.5)
    rate = np.sqrt(2 * kernel.order) / float(kernel.length.reshape(()))
    # In units of the rate the last derivative obeys (d/dt + 1)^J f = white noise.
    N = np.eye(J) + np.eye(J, k=1)
    N[-1] -= {1: [1.0], 2: [1.0, 2.0], 3: [1.0, 3.0, 3.0]}[J]
    u = np.minimum(rate * gap, 1000.0)[:, None, None]  # by then all is forgotten
    A = np.exp(-u) * (np.eye(J) + u * N + 0.5 * u**2 * (N @ N))  # eq gp-step
    P = kernel.scale**2 * np.eye(J)
    if J == 3:
        P[2, 0] = P[0, 2] = -(kernel.scale**2) / 3
        P[1, 1] /= 3
    Q = P - A @ P @ A.swapaxes(1, 2)  # eq gp-step-noise
    return A, (Q + Q.swapaxes(1, 2)) / 2, P


def smooth(
    kernel: Matern, noise: float, t: Array, y: Array, at: Array | None = None
) -> Smoothed:
    """A Matérn process given y at times t (n,), in linear time: a Kalman smoother.

    The mean and variance are at the times `at` (m,), or at t where it is left out.
    Cost O((n + m) J³) after sorting.

    Raises:
        ValueError: a malformed argument, or `kernel` is no Matern with one length.
    """
    kernel, noise = _check_matern(kernel), _check_parameter("noise", noise)
    t = check_array("t", t, ("n",), low=-LARGE, high=LARGE)
    y = _check_values("y", y, (len(t),))
    new = t[:0] if at is None else check_array("at", at, ("m",), low=-LARGE, high=LARGE)
    times, data = np.concatenate([t, new]), np.append(y, np.full(len(new), np.nan))
    order = np.argsort(times, kind="stable")
    gap = np.diff(times[order], prepend=times[order[0]])
    A, Q, P = state_space(kernel, gap)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        log_p, path = _kalman(A, Q, P, noise**2, data[order])
        mean, var = _rts(A, path)
    if not (np.isfinite(log_p) and np.isfinite(mean).all() and np.isfinite(var).all()):
        raise ValueError("noise is too small beside y and the scale, wants more")
    back = np.argsort(order, kind="stable")[len(t) if at is not None else 0 :]
    return Smoothed(log_p, mean[back], _not_below_zero(var[back]))


def _kalman(
    A: Array, Q: Array, P: Array, r: float, y: Array
) -> tuple[float, tuple[Array, ...]]:
    """log p(y), and the state's mean and covariance before and after each y.

    Where y is NaN nothing was measured, and the state after is the state before.
    """
    n, J = A.shape[:2]
    m, log_p = np.zeros(J), 0.0
    before, spread = np.empty((n, J)), np.empty((n, J, J))
    after, spread_after = np.empty((n, J)), np.empty((n, J, J))
    seen = np.isfinite(y)
    for i in range(n):
        if i:
            m = A[i] @ m
            P = A[i] @ P @ A[i].T + Q[i]  # eq gp-predict-step
        before[i], spread[i] = m, P
        if seen[i]:
            S, surprise = P[0, 0] + r, y[i] - m[0]
            gain = P[0] / S
            m = m + gain * surprise  # eq gp-update-step
            P = P - np.outer(gain, P[0])
            log_p -= 0.5 * (np.log(S) + LOG_TWO_PI + surprise**2 / S)
        after[i], spread_after[i] = m, P
    return float(log_p), (before, spread, after, spread_after)


def _rts(A: Array, path: tuple[Array, ...]) -> tuple[Array, Array]:
    """Mean and variance of f given all of y, from the filter's path, backwards."""
    before, spread, after, spread_after = path
    # Gain Hₜ = Pₜ Aᵀ (A Pₜ Aᵀ + Q)⁻¹ of all steps at once.
    cross = A[1:] @ spread_after[:-1]
    try:
        H = np.linalg.solve(spread[1:], cross).swapaxes(1, 2)
    except np.linalg.LinAlgError:
        raise ValueError(
            "noise is too small beside the kernel's scale, wants more: "
            "what is known after a step is singular"
        ) from None
    mean, var = np.empty(len(A)), np.empty(len(A))
    m, P = after[-1], spread_after[-1]
    mean[-1], var[-1] = m[0], P[0, 0]
    for i in range(len(A) - 2, -1, -1):
        m = after[i] + H[i] @ (m - before[i + 1])  # eq gp-rts
        P = spread_after[i] + H[i] @ (P - spread[i + 1]) @ H[i].T
        mean[i], var[i] = m[0], P[0, 0]
    return mean, var


# ------------------------------------------------------------ small parts


def _covariance(kernel: Kernel, X: Array, Z: Array) -> Array:
    """The matrix k(xᵢ, zⱼ), refused where it overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _finite(kernel._matrix(X, Z))


def _variance(kernel: Kernel, X: Array) -> Array:
    """The variances k(xᵢ, xᵢ), refused where they overflow."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _finite(kernel._diag(X))


def _pulled(kernel: Kernel, X: Array, Z: Array, G: Array) -> Array:
    """Σᵢⱼ G[i, j] ∂k(xᵢ, zⱼ) / ∂ log parameter, refused where it overflows."""
    with np.errstate(over="ignore", invalid="ignore"):
        return _finite(kernel._pull(X, Z, G))


def _blocks(n: int) -> list[tuple[int, int]]:
    """Rows a to b of a lower triangle, a block at a time."""
    return [(a, min(a + BLOCK, n)) for a in range(0, n, BLOCK)]


def _solve_lower(L: Array, b: Array) -> Array:
    """L⁻¹ b."""
    return np.asarray(solve_triangular(L, b, lower=True, check_finite=False))


def _solve_lower_t(L: Array, b: Array) -> Array:
    """L⁻ᵀ b."""
    return np.asarray(solve_triangular(L, b, lower=True, trans=1, check_finite=False))


def _cholesky(name: str, K: Array, jitter: float) -> Array:
    """The lower factor of K + jitter I.  K was made here and is used up.

    A matrix from outside is checked and kept: that is `mlfs.core.gaussian.factor`.
    """
    K[np.diag_indices_from(K)] += jitter
    size = float(np.diag(K).max())
    try:
        out = _dense_cholesky(K, lower=True, overwrite_a=True, check_finite=False)
    except np.linalg.LinAlgError:
        _check_factor(name, 1, size)
    return np.asarray(out)


def _check_factor(name: str, failed: int, size: float) -> None:
    if failed:
        raise ValueError(
            f"{name} gives a matrix that is not positive definite, wants one that is: "
            f"points lie too close for the noise; raise jitter, to {1e-10 * size:.0e} "
            "or so, or the noise"
        )


def _site_factor(K: Array, root: Array) -> Array:
    """The factor of B = I + root K root, whose eigenvalues are all one or more."""
    B = root[:, None] * K * root
    B[np.diag_indices_from(B)] += 1.0
    return _cholesky("kernel", _finite(B), 0.0)


def _log_normal(x: Array, mean: Array, var: Array) -> Array:
    out: Array = -0.5 * ((x - mean) ** 2 / var + np.log(var) + LOG_TWO_PI)
    return out


def _averaged_logistic(mean: Array, var: Array) -> Array:
    """The mean of 1 / (1 + exp(−f)) where f is Normal(mean, var), by quadrature.

    Two panels meet where f is zero, for there the function bends.
    """
    sd = np.sqrt(var)
    bend = np.clip(np.divide(-mean, sd, out=np.zeros_like(sd), where=sd > 0), -9, 9)
    nodes, weights = np.polynomial.legendre.leggauss(64)
    out = np.zeros_like(mean)
    for low, high in ((-9.0, bend), (bend, 9.0)):  # in standard deviations
        u = low + (high - low) * (nodes[:, None] + 1) / 2
        density = np.exp(-0.5 * (u**2 + LOG_TWO_PI))
        out += (high - low) / 2 * (weights @ (density * expit(mean + sd * u)))
    return out


def _not_below_zero(var: Array) -> Array:
    """Variances without the −1e−17 that rounding leaves where zero is meant."""
    return np.maximum(var, 0.0)


def _set(it: Any, name: str, value: Any) -> None:
    object.__setattr__(it, name, value)


# ------------------------------------------------------------ checks at the door


def _check_kernel(name: str, it: Any) -> Kernel:
    if not isinstance(it, Kernel):
        raise ValueError(
            f"{name} is {_brief(it)}, wants a kernel, as Matern(1, 1, 1.5)"
        )
    return it


def _check_likelihood(it: Any) -> Likelihood:
    if not isinstance(it, Likelihood):
        raise ValueError(f"likelihood is {_brief(it)}, wants Logistic() or so")
    return it


def _brief(it: object) -> str:
    text = " ".join(repr(it).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _check_f(y: Array, values: Any) -> Array:
    """f with a last axis as long as y."""
    f: Array = check_real("f", values)
    if f.ndim == 0 or f.shape[-1] != len(y) or not np.isfinite(f).all():
        raise ValueError(
            f"f has shape {f.shape}, wants finite numbers, {len(y)} of them as in y"
        )
    return f


def _check_moments(mean: Any, var: Any) -> tuple[Array, Array]:
    mean = _check_values("mean", mean, ("n",))
    high = LARGE * LARGE
    return mean, check_array("var", var, mean.shape, low=0.0, high=high)


def _check_parameter(name: str, value: Any) -> float:
    return check_scalar(name, value, SMALL, LARGE)


def _check_jitter(jitter: Any) -> float:
    return check_scalar("jitter", jitter, 0.0, LARGE)


def _check_values(name: str, y: Any, shape: tuple[int | str, ...]) -> Array:
    return check_array(name, y, shape, low=-LARGE, high=LARGE)


def _check_points(kernel: Kernel, name: str, X: Any, D: int | None = None) -> Array:
    shape = ("n", "D" if D is None else D)
    points: Array = check_array(name, X, shape, low=-LARGE, high=LARGE)
    kernel._check_inputs(points.shape[1])
    return points


def _check_data(
    kernel: Any, noise: Any, X: Any, y: Any
) -> tuple[Kernel, float, Array, Array]:
    kernel = _check_kernel("kernel", kernel)
    noise = _check_parameter("noise", noise)
    X = _check_points(kernel, "X", X)
    return kernel, noise, X, _check_values("y", y, (len(X),))


def _check_latent(
    kernel: Any, likelihood: Any, X: Any, y: Any
) -> tuple[Kernel, Likelihood, Array, Array]:
    kernel = _check_kernel("kernel", kernel)
    likelihood = _check_likelihood(likelihood)
    X = _check_points(kernel, "X", X)
    y = likelihood.check(y)
    if len(y) != len(X):
        raise ValueError(f"y has {len(y)} entries, wants {len(X)}, one for each point")
    return kernel, likelihood, X, y


def _check_new(model: Regression | Latent, Z: Any) -> Array:
    return _check_points(model.kernel, "Z", Z, model.X.shape[1])


def _check_labels(y: Any) -> Array:
    y = check_counts("y", y, ("n",)).astype(float)
    if y.max() > 1:
        raise ValueError(f"y holds {y.max():g}, wants labels 0 and 1")
    out: Array = y
    return out


def _check_matern(kernel: Any) -> Matern:
    kernel = _check_kernel("kernel", kernel)
    if not isinstance(kernel, Matern):
        raise ValueError(f"kernel is {kernel!r}, wants an object of Matern")
    if kernel.length.size != 1:
        raise ValueError(f"kernel has {kernel.length.size} lengths, wants one: time")
    return kernel


def _finite(K: Array) -> Array:
    if not np.isfinite(K).all():
        raise ValueError("kernel overflows at these X, wants smaller scales or inputs")
    return K
