"""Gaussian vectors: one lemma for conditioning, and what follows from it.

Derived in book/kalman-and-particle-filters/theory.md.  A comment `# eq NAME` marks the
line that implements the displayed equation labelled NAME there.

    a, b              two vectors that are jointly Gaussian
    mean_a, mean_b    their means                                  (n,), (D,)
    cov_aa, cov_bb    their covariances                            (n, n), (D, D)
    cov_ab            E[(a − mean_a)(b − mean_b)ᵀ]                 (n, D)

Covariances enter through their Cholesky factors only; nothing is inverted.
"""

from __future__ import annotations

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular

from mlfs.core.numerics import Array, check_array, check_rng, check_scalar, check_whole

LOG_2PI = float(np.log(2.0 * np.pi))
# Entries of a covariance that differ from their mirror image by more than this, as a
# share of the largest entry, are no rounding: the caller has made a mistake.
ASYMMETRY = 1e-8
# Numbers of this size can be squared and added up without overflow.
ROOT_HUGE = 1e150


def factor(name: str, cov: Array, jitter: float = 0.0) -> Array:
    """Lower Cholesky factor L of a covariance plus jitter: L Lᵀ = Σ + jitter I, (n, n).

    `name` is what an error calls the covariance.  Cost O(n³).

    Raises:
        ValueError: `cov` is not square, symmetric and positive definite.
    """
    cov = check_covariance(name, cov)
    jitter = check_scalar("jitter", jitter, low=0.0)
    if jitter:
        cov = cov + jitter * np.eye(len(cov))
    try:
        out: Array = cholesky(cov, lower=True, check_finite=False)
    except LinAlgError as error:
        least = float(np.linalg.eigvalsh(cov)[0])
        raise ValueError(
            f"{name} has an eigenvalue of {least:.3g}, wants all of them above zero "
            "by more than rounding: a larger jitter helps where that is what is missing"
        ) from error
    return out


def check_covariance(name: str, cov: Array) -> Array:
    """`cov` as a symmetric array (n, n); asymmetry by rounding is put right.

    Raises:
        ValueError: not square, not finite, or not symmetric; a variance below zero.
    """
    high = ROOT_HUGE**2
    out = check_array(name, cov, ("n", "n"), low=-high, high=high)
    gap = np.abs(out - out.T)
    if gap.max() > ASYMMETRY * np.abs(out).max():
        i, j = np.unravel_index(int(gap.argmax()), gap.shape)
        raise ValueError(
            f"{name}[{i}, {j}] is {out[i, j]} and {name}[{j}, {i}] {out[j, i]}, "
            "wants a symmetric matrix"
        )
    if (np.diag(out) < 0).any():
        k = int(np.argmin(np.diag(out)))
        raise ValueError(f"{name}[{k}, {k}] is {out[k, k]}, wants no variance below 0")
    half: Array = 0.5 * (out + out.T)
    return half


def log_density(x: Array, mean: Array, cov: Array) -> Array:
    """Log N(x; mean, cov) of each row of x: (N, D) gives (N,), and (D,) gives ().

    Cost O(D³ + N D²).

    Raises:
        ValueError: `cov` is not positive definite, or the shapes do not fit.
    """
    mean = _points("mean", mean, ("D",))
    rows = np.atleast_2d(_points("x", x, ("N", "D") if np.ndim(x) == 2 else ("D",)))
    _fit("x", rows.shape[1:], "mean", mean.shape)
    L = factor("cov", cov)
    _fit("cov", L.shape, "mean", mean.shape * 2)
    white = solve_triangular(L, (rows - mean).T, lower=True, check_finite=False)
    log_det = 2.0 * np.log(np.diag(L)).sum()
    with np.errstate(over="ignore"):  # refused below
        distance = (white**2).sum(axis=0)
    log_p = -0.5 * (len(L) * LOG_2PI + log_det + distance)  # eq kalman-log-density
    if not np.isfinite(log_p).all():
        raise ValueError(
            "x lies too many standard deviations from mean to be squared, wants fewer"
        )
    out: Array = log_p if np.ndim(x) == 2 else log_p[0]
    return out


def linear(
    mean: Array, cov: Array, A: Array, noise: Array
) -> tuple[Array, Array, Array]:
    """Moments of b = A a + e with e ~ N(0, noise): mean_b, cov_bb and cov_ab.

    mean (n,), cov (n, n), A (D, n), noise (D, D).  Cost O(n² D + n D²).

    Raises:
        ValueError: a malformed argument, or shapes that do not fit.
    """
    mean, cov = _points("mean", mean, ("n",)), check_covariance("cov", cov)
    A, noise = _points("A", A, ("D", "n")), check_covariance("noise", noise)
    _fit("cov", cov.shape, "mean", mean.shape * 2)
    _fit("A", A.shape[1:], "mean", mean.shape)
    _fit("noise", noise.shape, "A", A.shape[:1] * 2)
    cov_ab = cov @ A.T
    return A @ mean, symmetric(A @ cov_ab + noise), cov_ab  # eq kalman-linear


def gain(cov_ab: Array, cov_bb: Array) -> Array:
    """The matrix K = Σ_ab Σ_bb⁻¹ that turns a surprise in b into one in a, (n, D).

    Cost O(D³ + n D²).

    Raises:
        ValueError: `cov_bb` is not positive definite, or the shapes do not fit.
    """
    cov_ab = _points("cov_ab", cov_ab, ("n", "D"))
    L = factor("cov_bb", cov_bb)
    _fit("cov_ab", cov_ab.shape[1:], "cov_bb", L.shape[:1])
    K: Array = cho_solve((L, True), cov_ab.T, check_finite=False).T
    return K


def condition(
    mean_a: Array, cov_aa: Array, cov_ab: Array, mean_b: Array, cov_bb: Array, b: Array
) -> tuple[Array, Array]:
    """Mean (n,) and covariance (n, n) of a once b (D,) is known.

    Cost O(D³ + n D² + n² D).

    Raises:
        ValueError: `cov_bb` is not positive definite, or the shapes do not fit.
    """
    mean_a, mean_b = _points("mean_a", mean_a, ("n",)), _points("mean_b", mean_b, "D")
    cov_aa, b = check_covariance("cov_aa", cov_aa), _points("b", b, "D")
    cov_ab = _points("cov_ab", cov_ab, ("n", "D"))
    _fit("b", b.shape, "mean_b", mean_b.shape)
    _fit("cov_aa", cov_aa.shape, "mean_a", mean_a.shape * 2)
    _fit("cov_ab", cov_ab.shape, "mean_a and mean_b", mean_a.shape + mean_b.shape)
    K = gain(cov_ab, cov_bb)
    mean = mean_a + K @ (b - mean_b)  # eq kalman-condition
    return mean, symmetric(cov_aa - K @ cov_ab.T)


def sample(mean: Array, cov: Array, n: int, rng: np.random.Generator) -> Array:
    """n draws from N(mean, cov), shape (n, D); singular covariances are welcome.

    Cost O(D³ + n D²).

    Raises:
        ValueError: a malformed argument, or a `cov` with an eigenvalue below zero.
    """
    mean = _points("mean", mean, ("D",))
    n, rng = check_whole("n", n, 1), check_rng(rng)
    root = square_root("cov", cov)
    _fit("cov", root.shape, "mean", mean.shape * 2)
    out: Array = mean + rng.normal(size=(n, len(mean))) @ root.T
    return out


def square_root(name: str, cov: Array) -> Array:
    """A matrix B with B Bᵀ = Σ, which may be singular, (n, n).  Cost O(n³).

    Raises:
        ValueError: `cov` is no covariance: an eigenvalue is below zero.
    """
    cov = check_covariance(name, cov)
    value, vector = np.linalg.eigh(cov)
    rounding = len(cov) * np.finfo(float).eps * max(float(value[-1]), 0.0)
    if value[0] < -10.0 * rounding:
        raise ValueError(
            f"{name} has an eigenvalue of {value[0]:.3g}, wants none below zero"
        )
    out: Array = vector * np.sqrt(np.maximum(value, 0.0))
    return out


def symmetric(a: Array) -> Array:
    """The symmetric part of a square matrix, or of each of a stack of them.

    Raises:
        ValueError: the last two axes differ in length.
    """
    if np.ndim(a) < 2 or np.shape(a)[-1] != np.shape(a)[-2]:
        raise ValueError(f"a has shape {np.shape(a)}, wants (..., n, n)")
    out: Array = 0.5 * (a + np.swapaxes(a, -1, -2))
    return out


# ------------------------------------------------------------ at the door


def _points(name: str, x: Array, shape: tuple[int | str, ...] | str) -> Array:
    sides = (shape,) if isinstance(shape, str) else shape
    return check_array(name, x, sides, low=-ROOT_HUGE, high=ROOT_HUGE)


def _fit(name: str, got: tuple[int, ...], other: str, want: tuple[int, ...]) -> None:
    if got != want:
        raise ValueError(f"{name} has sides {got}, wants {want} to go with {other}")
