"""The coding evening of the Gaussian-process chapter.

Chapter: book/gaussian-processes/coding.md.  Symbols as in `mlfs.gp`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import expit

from mlfs import gp
from mlfs.book.exercise import Case, Exercise, Law, Mistake
from mlfs.core import data
from mlfs.core.numerics import Array

Rng = np.random.Generator
Pair = tuple[Array, Array]


# ------------------------------------------------------------ what is asked


def squared_exponential(X: Array, Z: Array, scale: float, length: float) -> Array:
    """k(xᵢ, zⱼ) = scale² exp(−|xᵢ − zⱼ|² / 2 length²), shape (n, m)."""
    apart = X[:, None, :] - Z[None, :, :]  # (n, m, D)
    r2 = (apart**2).sum(axis=-1) / length**2
    out: Array = scale**2 * np.exp(-r2 / 2)
    return out


def draw(mean: Array, K: Array, jitter: float, u: Array) -> Array:
    """A function of this mean (n,) and covariance (n, n), from normals u (n,)."""
    L = np.linalg.cholesky(K + jitter * np.eye(len(K)))
    out: Array = mean + L @ u
    return out


def posterior(K: Array, K_star: Array, prior: Array, noise: float, y: Array) -> Pair:
    """Mean and variance of f at m new points, (m,) both.

    K (n, n) at the data, K_star (n, m) between data and new points, prior (m,) the
    variances before any data.
    """
    L = np.linalg.cholesky(K + noise**2 * np.eye(len(y)))
    alpha = solve_triangular(L.T, solve_triangular(L, y, lower=True), lower=False)
    v = solve_triangular(L, K_star, lower=True)
    return K_star.T @ alpha, prior - (v**2).sum(axis=0)


def log_evidence(K: Array, noise: float, y: Array) -> float:
    """log p(y) where y has covariance K + noise² I."""
    n = len(y)
    L = np.linalg.cholesky(K + noise**2 * np.eye(n))
    z = solve_triangular(L, y, lower=True)
    half_log_det = np.log(np.diag(L)).sum()
    return float(-0.5 * z @ z - half_log_det - 0.5 * n * np.log(2 * np.pi))


def gradient(X: Array, y: Array, scale: float, length: float, noise: float) -> Array:
    """Slopes of log p(y) by log scale, log length and log noise, (3,)."""
    K = squared_exponential(X, X, scale, length)
    L = np.linalg.cholesky(K + noise**2 * np.eye(len(y)))
    half = solve_triangular(L, np.eye(len(y)), lower=True)
    inverse = half.T @ half
    alpha = inverse @ y
    G = np.outer(alpha, alpha) - inverse
    r2 = ((X[:, None] - X) ** 2).sum(axis=-1) / length**2
    by_log = [2 * K, K * r2, 2 * noise**2 * np.eye(len(y))]
    return np.array([0.5 * np.sum(G * slope) for slope in by_log])


def climb(X: Array, y: Array, theta: Array, rate: float, n_steps: int) -> Pair:
    """θ (3,) after gradient ascent, and log p(y) before each step, (n_steps,).

    θ holds the logs of scale, length and noise.
    """
    log_p = np.empty(n_steps)
    for i in range(n_steps):
        scale, length, noise = np.exp(theta)
        log_p[i] = log_evidence(squared_exponential(X, X, scale, length), noise, y)
        theta = theta + rate * gradient(X, y, scale, length, noise)
    return theta, log_p


def sparse_bound(
    prior: Array, K_xz: Array, K_zz: Array, noise: float, y: Array
) -> float:
    """The variational lower bound on log p(y), through m inducing points.

    prior (n,) the variances at the data, K_xz (n, m), K_zz (m, m).
    """
    n, m = K_xz.shape
    L = np.linalg.cholesky(K_zz)
    V = solve_triangular(L, K_xz.T, lower=True)  # (m, n)
    missed = prior - (V**2).sum(axis=0)
    L_B = np.linalg.cholesky(np.eye(m) + V @ V.T / noise**2)
    c = solve_triangular(L_B, V @ y, lower=True) / noise**2
    log_p = -0.5 * (y @ y / noise**2 - c @ c) - np.log(np.diag(L_B)).sum()
    log_p -= 0.5 * n * np.log(2 * np.pi * noise**2)
    return float(log_p - missed.sum() / (2 * noise**2))


def laplace(K: Array, y: Array) -> tuple[Array, float]:
    """The mode f (n,) of p(f | y) for labels 0 and 1, and Laplace's log p(y).

    The likelihood is logistic, K (n, n) the prior covariance of f.
    """
    f = np.zeros(len(y))
    for _ in range(30):
        f, a, L = _newton(K, y, f)
    log_p = -np.logaddexp(0, (1 - 2 * y) * f).sum() - 0.5 * a @ f
    return f, float(log_p - np.log(np.diag(L)).sum())


def _newton(K: Array, y: Array, f: Array) -> tuple[Array, Array, Array]:
    """One step of Newton's method: the new f = K a, a, and the factor of B."""
    p = expit(f)
    root = np.sqrt(p * (1 - p))
    L = np.linalg.cholesky(np.eye(len(y)) + root[:, None] * K * root)
    b = root**2 * f + y - p
    inner = solve_triangular(L, root * (K @ b), lower=True)
    a = b - root * solve_triangular(L.T, inner, lower=False)
    return K @ a, a, L


def matern_gradient(
    X: Array, y: Array, scale: float, length: float, noise: float
) -> Array:
    """Slopes of log p(y) by log scale, log length and log noise, (3,).

    The kernel is Matérn's of order 3/2: scale² (1 + a) exp(−a), a = √3 r / length.
    """
    a = np.sqrt(3) * np.sqrt(((X[:, None] - X) ** 2).sum(axis=-1)) / length
    # dK/da = −scale² a exp(−a), and a falls with the length: da/d log length = −a.
    return _matern_slopes(X, y, scale, length, noise, scale**2 * a**2 * np.exp(-a))


def _matern_slopes(
    X: Array, y: Array, scale: float, length: float, noise: float, by_length: Array
) -> Array:
    """The gradient with by_length (n, n) for the derivative of K by log length."""
    n = len(y)
    a = np.sqrt(3) * np.sqrt(((X[:, None] - X) ** 2).sum(axis=-1)) / length
    K = scale**2 * (1 + a) * np.exp(-a)
    L = np.linalg.cholesky(K + noise**2 * np.eye(n))
    half = solve_triangular(L, np.eye(n), lower=True)
    inverse = half.T @ half
    alpha = inverse @ y
    G = np.outer(alpha, alpha) - inverse
    by_log = [2 * K, by_length, 2 * noise**2 * np.eye(n)]
    return np.array([0.5 * np.sum(G * slope) for slope in by_log])


def _carbon_kernel() -> gp.Kernel:
    """Rasmussen & Williams 2006, section 5.4.3."""
    SE = gp.SquaredExponential
    season = SE(2.4, 90.0) * gp.Periodic(1.0, 1.3, 1.0)
    medium = gp.RationalQuadratic(0.66, 1.2, 0.78)
    return SE(66.0, 67.0) + season + medium + SE(0.18, 1.6 / 12)


def forecast(t: Array, ppm: Array, t_new: Array) -> Pair:
    """Mean and standard deviation of measurements at times t_new, (m,) both."""
    return _forecast(_carbon_kernel(), 0.19, t, ppm, t_new)


def _forecast(
    kernel: gp.Kernel, noise: float, t: Array, ppm: Array, new: Array
) -> Pair:
    centre = ppm.mean()
    model = gp.condition(kernel, noise, t[:, None], ppm - centre)
    mean, var = gp.predict(model, new[:, None])
    return centre + mean, np.sqrt(var + noise**2)


# ------------------------------------------------------------ cases


def _kernel_cases(rng: Rng) -> Iterator[Case]:
    for n, m, D in ((3, 2, 1), (4, 5, 2), (1, 3, 3)):
        arguments = {
            "X": rng.normal(size=(n, D)),
            "Z": rng.normal(size=(m, D)),
            "scale": float(rng.uniform(1.5, 2.5)),
            "length": float(rng.uniform(0.5, 0.9)),
        }
        yield Case(arguments, f"{n} and {m} points of {D} inputs")


def _problem(rng: Rng, n: int) -> dict[str, Any]:
    X = rng.uniform(-2, 2, (n, 1))
    y = np.sin(2 * X[:, 0]) + 0.3 * rng.standard_normal(n)
    return {"X": X, "y": y}


def _draw_cases(rng: Rng) -> Iterator[Case]:
    for n, jitter in ((3, 0.1), (60, 1e-8)):
        X = np.linspace(0, 3, n)[:, None]
        arguments = {
            "mean": rng.normal(size=n),
            "K": squared_exponential(X, X, 1.5, 1.0),
            "jitter": jitter,
            "u": rng.standard_normal(n),
        }
        yield Case(arguments, f"{n} points, jitter {jitter:g}")


def _posterior_cases(rng: Rng) -> Iterator[Case]:
    for n, m in ((2, 1), (8, 5)):
        problem, Z = _problem(rng, n), rng.uniform(-3, 3, (m, 1))
        X = problem["X"]
        arguments = {
            "K": squared_exponential(X, X, 1.3, 0.8),
            "K_star": squared_exponential(X, Z, 1.3, 0.8),
            "prior": np.full(m, 1.69),
            "noise": 0.4,
            "y": problem["y"],
        }
        yield Case(arguments, f"{n} data, {m} new points")


def _evidence_cases(rng: Rng) -> Iterator[Case]:
    for n, note in ((3, "3 data"), (20, "20 data"), (600, "600: |C| is below 1e-308")):
        problem = _problem(rng, n)
        K = squared_exponential(problem["X"], problem["X"], 1.3, 0.8)
        yield Case({"K": K, "noise": 0.2, "y": problem["y"]}, note)


def _gradient_cases(rng: Rng) -> Iterator[Case]:
    for n, D in ((4, 1), (15, 2)):
        X = rng.normal(size=(n, D))
        arguments = {"X": X, "y": rng.normal(size=n)}
        numbers = {"scale": 1.4, "length": 0.7, "noise": 0.5}
        yield Case(arguments | numbers, f"{n} data of {D} inputs")


def _climb_cases(rng: Rng) -> Iterator[Case]:
    for n, n_steps in ((10, 1), (15, 6)):
        theta = np.log([1.3, 0.6, 0.5])
        arguments = _problem(rng, n) | {"theta": theta, "rate": 0.01}
        yield Case(arguments | {"n_steps": n_steps}, f"{n} data, {n_steps} steps")


def _sparse_cases(rng: Rng) -> Iterator[Case]:
    for n, m in ((5, 2), (40, 4)):
        problem, Z = _problem(rng, n), np.linspace(-2, 2, m)[:, None]
        X = problem["X"]
        arguments = {
            "prior": np.full(n, 1.69),
            "K_xz": squared_exponential(X, Z, 1.3, 0.6),
            "K_zz": squared_exponential(Z, Z, 1.3, 0.6),
            "noise": 0.4,
            "y": problem["y"],
        }
        yield Case(arguments, f"{n} data, {m} inducing points")


def _label_cases(rng: Rng) -> Iterator[Case]:
    for n in (2, 12):
        X = np.linspace(-2, 2, n)[:, None]
        y = (X[:, 0] + rng.normal(size=n) > 0).astype(float)
        y[:2] = [0.0, 1.0]
        K = squared_exponential(X, X, 2.0, 1.0)
        yield Case({"K": K, "y": y}, f"{n} labels")


def carbon_dioxide() -> Pair:
    """Time in years and carbon dioxide in ppm, a row a month."""
    co2 = data.load("co2")
    return co2["year"] + (co2["month"] - 0.5) / 12, co2["tenths"] / co2["weeks"] / 10


def _carbon_cases(rng: Rng) -> Iterator[Case]:
    t, ppm = carbon_dioxide()
    for cut in (1981, 1986):
        past, ahead = t < cut, (t >= cut) & (t < cut + 5)
        arguments = {"t": t[past], "ppm": ppm[past], "t_new": t[ahead]}
        yield Case(arguments, f"up to {cut}, then five years")


# ------------------------------------------------------------ planted mistakes


def _scale_once(X: Array, Z: Array, scale: float, length: float) -> Array:
    return squared_exponential(X, Z, scale, length) / scale


def _no_half(X: Array, Z: Array, scale: float, length: float) -> Array:
    return squared_exponential(X, Z, scale, length / np.sqrt(2))


def _length_once(X: Array, Z: Array, scale: float, length: float) -> Array:
    return squared_exponential(X, Z, scale, np.sqrt(length))


def _rough(X: Array, Z: Array, scale: float, length: float) -> Array:
    return gp.Matern(scale, np.asarray(length), 0.5)(X, Z)


def _times_length(X: Array, Z: Array, scale: float, length: float) -> Array:
    return squared_exponential(X, Z, scale, 1 / length)


def _distance_once(X: Array, Z: Array, scale: float, length: float) -> Array:
    r = np.sqrt(((X[:, None, :] - Z[None, :, :]) ** 2).sum(axis=-1))
    return np.asarray(scale**2 * np.exp(-r / (2 * length**2)))


def _difference_once(X: Array, Z: Array, scale: float, length: float) -> Array:
    apart = (X[:, None, :] - Z[None, :, :]).sum(axis=-1)
    return np.asarray(scale**2 * np.exp(-apart / (2 * length**2)))


def _upper_factor(mean: Array, K: Array, jitter: float, u: Array) -> Array:
    L = np.linalg.cholesky(K + jitter * np.eye(len(K)))
    return np.asarray(mean + L.T @ u)


def _no_root(mean: Array, K: Array, jitter: float, u: Array) -> Array:
    return np.asarray(mean + (K + jitter * np.eye(len(K))) @ u)


def _no_mean(mean: Array, K: Array, jitter: float, u: Array) -> Array:
    return draw(np.zeros_like(mean), K, jitter, u)


def _jitter_everywhere(mean: Array, K: Array, jitter: float, u: Array) -> Array:
    return np.asarray(mean + np.linalg.cholesky(K + jitter) @ u)


def _no_jitter(mean: Array, K: Array, jitter: float, u: Array) -> Array:
    return np.asarray(mean + np.linalg.cholesky(K) @ u)


def _jitter_squared(mean: Array, K: Array, jitter: float, u: Array) -> Array:
    return draw(mean, K, max(jitter**2, 1e-9), u)


def _noise_once(K: Array, K_star: Array, prior: Array, noise: float, y: Array) -> Pair:
    return posterior(K, K_star, prior, float(np.sqrt(noise)), y)


def _no_noise(K: Array, K_star: Array, prior: Array, noise: float, y: Array) -> Pair:
    return posterior(K, K_star, prior, 1e-5, y)


def _deviation(K: Array, K_star: Array, prior: Array, noise: float, y: Array) -> Pair:
    mean, var = posterior(K, K_star, prior, noise, y)
    return mean, np.sqrt(np.maximum(var, 0))


def _noisy(K: Array, K_star: Array, prior: Array, noise: float, y: Array) -> Pair:
    mean, var = posterior(K, K_star, prior, noise, y)
    return mean, var + noise**2


def _not_squared(K: Array, K_star: Array, prior: Array, noise: float, y: Array) -> Pair:
    L = np.linalg.cholesky(K + noise**2 * np.eye(len(y)))
    v = solve_triangular(L, K_star, lower=True)
    return posterior(K, K_star, prior, noise, y)[0], prior - v.sum(axis=0)


def _upper_half(K: Array, K_star: Array, prior: Array, noise: float, y: Array) -> Pair:
    L = np.linalg.cholesky(K + noise**2 * np.eye(len(y)))
    alpha = solve_triangular(L.T, solve_triangular(L, y))
    v = solve_triangular(L, K_star)
    return K_star.T @ alpha, prior - (v**2).sum(axis=0)


def _L_twice(K: Array, K_star: Array, prior: Array, noise: float, y: Array) -> Pair:
    L = np.linalg.cholesky(K + noise**2 * np.eye(len(y)))
    z = solve_triangular(L, y, lower=True)
    alpha = solve_triangular(L, z, lower=True)
    return K_star.T @ alpha, posterior(K, K_star, prior, noise, y)[1]


def _lower_twice(K: Array, K_star: Array, prior: Array, noise: float, y: Array) -> Pair:
    L = np.linalg.cholesky(K + noise**2 * np.eye(len(y)))
    z = solve_triangular(L, y, lower=True)
    alpha = solve_triangular(L.T, z, lower=True)
    return K_star.T @ alpha, posterior(K, K_star, prior, noise, y)[1]


def _half_log_det(K: Array, noise: float, y: Array) -> float:
    L = np.linalg.cholesky(K + noise**2 * np.eye(len(y)))
    return float(np.log(np.diag(L)).sum())


def _whole_log_det(K: Array, noise: float, y: Array) -> float:
    return log_evidence(K, noise, y) - _half_log_det(K, noise, y)


def _quarter_log_det(K: Array, noise: float, y: Array) -> float:
    return log_evidence(K, noise, y) + 0.5 * _half_log_det(K, noise, y)


def _complexity_wins(K: Array, noise: float, y: Array) -> float:
    return log_evidence(K, noise, y) + 2 * _half_log_det(K, noise, y)


def _no_constant(K: Array, noise: float, y: Array) -> float:
    return log_evidence(K, noise, y) + 0.5 * len(y) * float(np.log(2 * np.pi))


def _noise_as_variance(K: Array, noise: float, y: Array) -> float:
    return log_evidence(K, float(np.sqrt(noise)), y)


def _fit_term(K: Array, noise: float, y: Array) -> float:
    return float(0.5 * y @ np.linalg.solve(K + noise**2 * np.eye(len(y)), y))


def _whole_fit(K: Array, noise: float, y: Array) -> float:
    return log_evidence(K, noise, y) - _fit_term(K, noise, y)


def _fit_rewarded(K: Array, noise: float, y: Array) -> float:
    return log_evidence(K, noise, y) + 2 * _fit_term(K, noise, y)


def _as_a_loss(K: Array, noise: float, y: Array) -> float:
    return -log_evidence(K, noise, y)


def _determinant(K: Array, noise: float, y: Array) -> float:
    C = K + noise**2 * np.eye(len(y))
    with np.errstate(divide="ignore"):
        log_det = np.log(np.linalg.det(C))
    fit = y @ np.linalg.solve(C, y) + len(y) * np.log(2 * np.pi)
    return float(-0.5 * (fit + log_det))


def _by_parameter(
    X: Array, y: Array, scale: float, length: float, noise: float
) -> Array:
    by_log = gradient(X, y, scale, length, noise)
    return np.divide(by_log, [scale, length, noise])


def _twice(X: Array, y: Array, scale: float, length: float, noise: float) -> Array:
    return 2 * gradient(X, y, scale, length, noise)


def _downhill(X: Array, y: Array, scale: float, length: float, noise: float) -> Array:
    return -gradient(X, y, scale, length, noise)


def _noise_halved(
    X: Array, y: Array, scale: float, length: float, noise: float
) -> Array:
    return np.multiply(gradient(X, y, scale, length, noise), [1.0, 1.0, 0.5])


def _noise_by_itself(
    X: Array, y: Array, scale: float, length: float, noise: float
) -> Array:
    return np.divide(gradient(X, y, scale, length, noise), [1.0, 1.0, noise])


def _gradient_with(
    X: Array, y: Array, scale: float, length: float, noise: float, kind: str
) -> Array:
    K = squared_exponential(X, X, scale, length)
    L = np.linalg.cholesky(K + noise**2 * np.eye(len(y)))
    half = solve_triangular(L, np.eye(len(y)), lower=True)
    inverse = half @ half.T if kind == "order" else half.T @ half
    alpha = inverse @ y
    product = alpha @ alpha if kind == "inner" else np.outer(alpha, alpha)
    r2 = ((X[:, None] - X) ** 2).sum(axis=-1) / length**2
    by_log = [2 * K, K * r2, 2 * noise**2 * np.eye(len(y))]
    return np.array([0.5 * np.sum((product - inverse) * slope) for slope in by_log])


def _halves_exchanged(
    X: Array, y: Array, scale: float, length: float, noise: float
) -> Array:
    return _gradient_with(X, y, scale, length, noise, "order")


def _inner_product(
    X: Array, y: Array, scale: float, length: float, noise: float
) -> Array:
    return _gradient_with(X, y, scale, length, noise, "inner")


def _climb_with(
    X: Array, y: Array, theta: Array, rate: float, n_steps: int, kind: str
) -> Pair:
    log_p, first = np.empty(n_steps), theta
    for i in range(n_steps):
        log_p[i] = _value(X, y, np.log(np.abs(theta)) if kind == "logs" else theta)
        at = first if kind == "stale" else theta
        at = at if kind == "logs" else np.exp(at)
        slope = gradient(X, y, *at)
        if kind == "down":
            theta = theta - rate * slope
        elif kind == "plain":
            theta = np.log(np.exp(theta) + rate * slope)
        else:
            theta = theta + rate * slope
        if kind == "late":
            log_p[i] = _value(X, y, theta)
    return theta, log_p


def _value(X: Array, y: Array, theta: Array) -> float:
    scale, length, noise = np.exp(theta)
    return log_evidence(squared_exponential(X, X, scale, length), noise, y)


def _climb_down(X: Array, y: Array, theta: Array, rate: float, n_steps: int) -> Pair:
    return _climb_with(X, y, theta, rate, n_steps, "down")


def _climb_plain(X: Array, y: Array, theta: Array, rate: float, n_steps: int) -> Pair:
    return _climb_with(X, y, theta, rate, n_steps, "plain")


def _climb_late(X: Array, y: Array, theta: Array, rate: float, n_steps: int) -> Pair:
    return _climb_with(X, y, theta, rate, n_steps, "late")


def _climb_stale(X: Array, y: Array, theta: Array, rate: float, n_steps: int) -> Pair:
    return _climb_with(X, y, theta, rate, n_steps, "stale")


def _climb_in_logs(X: Array, y: Array, theta: Array, rate: float, n_steps: int) -> Pair:
    return _climb_with(X, y, theta, rate, n_steps, "logs")


def _climb_exp(X: Array, y: Array, theta: Array, rate: float, n_steps: int) -> Pair:
    last, log_p = climb(X, y, theta, rate, n_steps)
    return np.exp(last), log_p


def _missed(prior: Array, K_xz: Array, K_zz: Array) -> Array:
    V = solve_triangular(np.linalg.cholesky(K_zz), K_xz.T, lower=True)
    return np.asarray(prior - (V**2).sum(axis=0))


def _no_trace(prior: Array, K_xz: Array, K_zz: Array, noise: float, y: Array) -> float:
    charge = _missed(prior, K_xz, K_zz).sum() / (2 * noise**2)
    return sparse_bound(prior, K_xz, K_zz, noise, y) + float(charge)


def _trace_twice(
    prior: Array, K_xz: Array, K_zz: Array, noise: float, y: Array
) -> float:
    charge = _missed(prior, K_xz, K_zz).sum() / (2 * noise**2)
    return sparse_bound(prior, K_xz, K_zz, noise, y) - float(charge)


def _trace_added(
    prior: Array, K_xz: Array, K_zz: Array, noise: float, y: Array
) -> float:
    charge = _missed(prior, K_xz, K_zz).sum() / (2 * noise**2)
    return sparse_bound(prior, K_xz, K_zz, noise, y) + 2 * float(charge)


def _trace_alone(
    prior: Array, K_xz: Array, K_zz: Array, noise: float, y: Array
) -> float:
    lost = float(_missed(prior, K_xz, K_zz).sum())
    return sparse_bound(prior, K_xz, K_zz, noise, y) + lost / (2 * noise**2) - lost / 2


def _trace_by_deviation(
    prior: Array, K_xz: Array, K_zz: Array, noise: float, y: Array
) -> float:
    lost = float(_missed(prior, K_xz, K_zz).sum())
    bound = sparse_bound(prior, K_xz, K_zz, noise, y)
    return bound + lost / (2 * noise**2) - lost / (2 * noise)


def _constant_without_noise(
    prior: Array, K_xz: Array, K_zz: Array, noise: float, y: Array
) -> float:
    constant = len(y) * float(np.log(noise))  # n/2 log σ²
    return sparse_bound(prior, K_xz, K_zz, noise, y) + constant


def _half_log_det_B(K_xz: Array, K_zz: Array, noise: float) -> float:
    V = solve_triangular(np.linalg.cholesky(K_zz), K_xz.T, lower=True)
    return 0.5 * float(np.linalg.slogdet(np.eye(len(V)) + V @ V.T / noise**2)[1])


def _quarter_log_B(
    prior: Array, K_xz: Array, K_zz: Array, noise: float, y: Array
) -> float:
    extra = 0.5 * _half_log_det_B(K_xz, K_zz, noise)
    return sparse_bound(prior, K_xz, K_zz, noise, y) + extra


def _whole_log_B(
    prior: Array, K_xz: Array, K_zz: Array, noise: float, y: Array
) -> float:
    extra = _half_log_det_B(K_xz, K_zz, noise)
    return sparse_bound(prior, K_xz, K_zz, noise, y) - extra


def _one_step(K: Array, y: Array) -> tuple[Array, float]:
    f, a, L = _newton(K, y, np.zeros(len(y)))
    log_p = -np.logaddexp(0, (1 - 2 * y) * f).sum() - 0.5 * a @ f
    return f, float(log_p - np.log(np.diag(L)).sum())


def _half_log_B(K: Array, y: Array) -> float:
    f, _ = laplace(K, y)
    return float(np.log(np.diag(_newton(K, y, f)[2])).sum())


def _no_volume(K: Array, y: Array) -> tuple[Array, float]:
    f, log_p = laplace(K, y)
    return f, log_p + _half_log_B(K, y)


def _volume_twice(K: Array, y: Array) -> tuple[Array, float]:
    f, log_p = laplace(K, y)
    return f, log_p - _half_log_B(K, y)


def _volume_halved(K: Array, y: Array) -> tuple[Array, float]:
    f, log_p = laplace(K, y)
    return f, log_p + 0.5 * _half_log_B(K, y)


def _laplace_with(K: Array, y: Array, kind: str) -> tuple[Array, float]:
    """Thirty rounds with a slip in the step, then the evidence as it should be."""
    f = np.zeros(len(y))
    for _ in range(30):
        p = expit(f)
        root = np.sqrt(p * (1 - p))
        side = K * root
        L = np.linalg.cholesky(
            np.eye(len(y))
            + (root * side if kind == "columns" else root[:, None] * side)
        )
        b = root**2 * f + y - p
        inner = solve_triangular(L, root * (K @ b), lower=True)
        if kind != "once":
            inner = solve_triangular(L.T, inner, lower=False)
        a = b - root * inner
        f = K @ a
    labels = y if kind == "signs" else 2 * y - 1
    log_p = -np.logaddexp(0, -labels * f).sum() - 0.5 * a @ f
    return f, float(log_p - np.log(np.diag(L)).sum())


def _signs(K: Array, y: Array) -> tuple[Array, float]:
    return _laplace_with(K, 2 * y - 1, "signs")


def _signs_twice(K: Array, y: Array) -> tuple[Array, float]:
    return _laplace_with(K, 2 * y - 1, "")


def _root_on_columns(K: Array, y: Array) -> tuple[Array, float]:
    return _laplace_with(K, y, "columns")


def _one_solve(K: Array, y: Array) -> tuple[Array, float]:
    return _laplace_with(K, y, "once")


def _no_prior(K: Array, y: Array) -> tuple[Array, float]:
    f, log_p = laplace(K, y)
    return f, log_p + 0.5 * float((y - expit(f)) @ f)


def _labels_turned(K: Array, y: Array) -> tuple[Array, float]:
    f, log_p = laplace(K, 1 - y)
    return f, log_p


def _matern_a(X: Array, length: float) -> Array:
    return np.asarray(np.sqrt(3 * ((X[:, None] - X) ** 2).sum(axis=-1)) / length)


def _length_downhill(
    X: Array, y: Array, scale: float, length: float, noise: float
) -> Array:
    a = _matern_a(X, length)
    return _matern_slopes(X, y, scale, length, noise, -(scale**2) * a**2 * np.exp(-a))


def _all_downhill(
    X: Array, y: Array, scale: float, length: float, noise: float
) -> Array:
    return -matern_gradient(X, y, scale, length, noise)


def _by_length_itself(
    X: Array, y: Array, scale: float, length: float, noise: float
) -> Array:
    return np.divide(matern_gradient(X, y, scale, length, noise), [1.0, length, 1.0])


def _a_once(X: Array, y: Array, scale: float, length: float, noise: float) -> Array:
    a = _matern_a(X, length)
    return _matern_slopes(X, y, scale, length, noise, scale**2 * a * np.exp(-a))


def _no_product_rule(
    X: Array, y: Array, scale: float, length: float, noise: float
) -> Array:
    a = _matern_a(X, length)
    by_length = scale**2 * (1 + a) * a * np.exp(-a)
    return _matern_slopes(X, y, scale, length, noise, by_length)


def _constant_deviation(t: Array, ppm: Array, t_new: Array) -> Pair:
    def columns(when: Array) -> Array:
        angle, powers = 2 * np.pi * when, (when - t.mean())[:, None] ** [0, 1, 2]
        waves = [np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle)]
        return np.column_stack([powers, *waves])

    w = np.linalg.lstsq(columns(t), ppm, rcond=None)[0]
    return columns(t_new) @ w, np.ones(len(t_new))


def _trend_only(t: Array, ppm: Array, t_new: Array) -> Pair:
    return _forecast(gp.SquaredExponential(66.0, 67.0), 2.0, t, ppm, t_new)


def _straight_line(t: Array, ppm: Array, t_new: Array) -> Pair:
    slope, start = np.polyfit(t - t[0], ppm, 1)
    rest = ppm - start - slope * (t - t[0])
    return start + slope * (t_new - t[0]), np.full(len(t_new), rest.std())


def _short_length(t: Array, ppm: Array, t_new: Array) -> Pair:
    return _forecast(gp.SquaredExponential(10.0, 1.0), 0.3, t, ppm, t_new)


# ------------------------------------------------------------ laws


def _not_above_prior(result: Pair, prior: Array, **_: Any) -> bool:
    return bool((result[1] <= prior + 1e-12).all() and (result[1] >= -1e-12).all())


def _climbs(result: Pair, **_: Any) -> bool:
    return bool((np.diff(result[1]) > 0).all())


MOST_PPM = 1.0  # root mean squared error over five years
LEAST_INSIDE = 0.9  # share of months inside the 95 % band
MOST_SD = 2.0  # ppm, mean
LEAST_GROWTH = 1.2  # mean deviation of the fifth year over that of the first


def _forecasts(result: Any, t: Array, t_new: Array, **_: Any) -> bool | str:
    if not isinstance(result, tuple) or len(result) != 2:
        return "return mean and standard deviation, two arrays"
    mean, sd = (np.asarray(one, dtype=float) for one in result)
    if mean.shape != t_new.shape or sd.shape != t_new.shape:
        return f"return two arrays of shape {t_new.shape}"
    if not (np.isfinite(mean).all() and np.isfinite(sd).all() and (sd > 0).all()):
        return "return finite means and positive standard deviations"
    when, ppm = carbon_dioxide()
    truth = ppm[np.searchsorted(when, t_new)]
    error = float(np.sqrt(np.mean((truth - mean) ** 2)))
    inside = float(np.mean(np.abs(truth - mean) <= 1.96 * sd))
    if error > MOST_PPM:
        return f"the error is {error:.2f} ppm, wanted at most {MOST_PPM:g}"
    if inside < LEAST_INSIDE:
        return f"the 95 % band holds {inside:.2f}, wanted {LEAST_INSIDE:g} or more"
    if sd.mean() > MOST_SD:
        return f"the mean deviation is {sd.mean():.1f} ppm, wanted at most {MOST_SD:g}"
    ahead = t_new - t_new[0]
    growth = float(sd[ahead > 4].mean() / sd[ahead < 1].mean())
    if growth < LEAST_GROWTH:
        return (
            f"the deviation of the fifth year is {growth:.2f} times that of the first, "
            f"wanted {LEAST_GROWTH:g} or more: it must grow with the time ahead"
        )
    return True


EXERCISES = (
    Exercise(
        "squared_exponential",
        "squared_exponential(X, Z, scale, length) -> K, shape (n, m)",
        squared_exponential,
        _kernel_cases,
        mistakes=(
            Mistake(
                "scale not squared",
                "scale is a standard deviation: the kernel holds its square.",
                _scale_once,
            ),
            Mistake(
                "no half",
                "The exponent lacks its half: −r²/2, not −r².",
                _no_half,
            ),
            Mistake(
                "length not squared",
                "You divide the squared distance by length. Divide it by length².",
                _length_once,
            ),
            Mistake(
                "distance not squared",
                "You use exp(−r): the distance in the exponent must be squared.",
                _rough,
            ),
            Mistake(
                "multiplied by length squared",
                "You multiply by length². In Python a / 2 * b is (a / 2) * b: put "
                "brackets around 2 * length**2.",
                _times_length,
            ),
            Mistake(
                "root of the squared distance",
                "The exponent holds the squared distance. You took its root.",
                _distance_once,
            ),
            Mistake(
                "differences not squared",
                "Square the differences before you sum them over the inputs.",
                _difference_once,
            ),
        ),
    ),
    Exercise(
        "draw",
        "draw(mean, K, jitter, u) -> f, shape (n,)",
        draw,
        _draw_cases,
        rtol=1e-6,
        mistakes=(
            Mistake(
                "upper factor",
                "You multiply by the transpose of L. L u has covariance L Lᵀ = K.",
                _upper_factor,
            ),
            Mistake(
                "no root",
                "You multiply by K. Its factor L is what you need: K u has covariance "
                "K K.",
                _no_root,
            ),
            Mistake("no mean", "You forgot to add the mean.", _no_mean),
            Mistake(
                "jitter everywhere",
                "You add the jitter to every entry of K. It belongs on the "
                "diagonal: jitter * np.eye(n).",
                _jitter_everywhere,
            ),
            Mistake(
                "no jitter",
                "You forgot the jitter. Without it rounding can leave K without a "
                "factor.",
                _no_jitter,
            ),
            Mistake(
                "jitter squared",
                "jitter goes on the diagonal as it is: it is a variance already.",
                _jitter_squared,
            ),
        ),
    ),
    Exercise(
        "posterior",
        "posterior(K, K_star, prior, noise, y) -> mean (m,), var (m,)",
        posterior,
        _posterior_cases,
        laws=(Law("variances lie between 0 and the prior's", _not_above_prior),),
        mistakes=(
            Mistake(
                "noise not squared",
                "noise is a standard deviation: noise² goes on the diagonal.",
                _noise_once,
            ),
            Mistake(
                "no noise",
                "You condition as if y had no noise: put noise² on the diagonal of K.",
                _no_noise,
            ),
            Mistake(
                "standard deviation",
                "Your second result is the standard deviation; return the variance.",
                _deviation,
            ),
            Mistake(
                "variance of a measurement",
                "You added noise² to the result. Asked is the variance of f itself.",
                _noisy,
            ),
            Mistake(
                "not squared",
                "The variance loses the sum of v squared, column by column.",
                _not_squared,
            ),
            Mistake(
                "lower forgotten",
                "Without lower=True solve_triangular reads the upper half of L, where "
                "only the diagonal is not zero.",
                _upper_half,
            ),
            Mistake(
                "L twice",
                "Your variance is right. For alpha the second solve is with L.T, "
                "not with L again.",
                _L_twice,
            ),
            Mistake(
                "L.T is upper",
                "Your variance is right. L.T is an upper triangle: solve with "
                "lower=False.",
                _lower_twice,
            ),
        ),
    ),
    Exercise(
        "log_evidence",
        "log_evidence(K, noise, y) -> a number",
        log_evidence,
        _evidence_cases,
        mistakes=(
            Mistake(
                "whole log determinant",
                "You take off log|C|, not half of it. The sum of log L[i, i] is the "
                "half already.",
                _whole_log_det,
            ),
            Mistake(
                "quarter of the log determinant",
                "You halve the sum of log L[i, i]. It is half of log|C| already.",
                _quarter_log_det,
            ),
            Mistake(
                "complexity rewarded",
                "The log determinant has the wrong sign: spreading out costs evidence.",
                _complexity_wins,
            ),
            Mistake("no constant", "You forgot −n/2 log 2π.", _no_constant),
            Mistake(
                "noise not squared",
                "noise is a standard deviation: noise² goes on the diagonal.",
                _noise_as_variance,
            ),
            Mistake(
                "half of the fit lost",
                "The fit lacks its half: −½ zᵀ z.",
                _whole_fit,
            ),
            Mistake(
                "fit rewarded",
                "The fit has the wrong sign: data far from what C expects cost "
                "evidence.",
                _fit_rewarded,
            ),
            Mistake(
                "a loss",
                "Your sign is that of a loss. Asked is log p(y) itself.",
                _as_a_loss,
            ),
            Mistake(
                "determinant",
                "The determinant itself underflows: sum the logs of the diagonal of L.",
                _determinant,
            ),
        ),
    ),
    Exercise(
        "gradient",
        "gradient(X, y, scale, length, noise) -> slopes by the three logs, (3,)",
        gradient,
        _gradient_cases,
        mistakes=(
            Mistake(
                "by the parameters",
                "These are the slopes by the parameters. By their logs, multiply each "
                "by its parameter.",
                _by_parameter,
            ),
            Mistake(
                "no half", "Your gradient is twice too large: a half is lost.", _twice
            ),
            Mistake(
                "sign",
                "The sign is turned: G is α αᵀ − C⁻¹, not the other way round.",
                _downhill,
            ),
            Mistake(
                "noise halved",
                "The slope of noise² by log noise is 2 noise².",
                _noise_halved,
            ),
            Mistake(
                "noise by itself",
                "The slope of noise² by noise is 2 noise. By log noise, multiply "
                "once more by noise.",
                _noise_by_itself,
            ),
            Mistake(
                "halves exchanged",
                "C⁻¹ is L⁻ᵀ L⁻¹, half.T @ half. You have the factors the other way "
                "round.",
                _halves_exchanged,
            ),
            Mistake(
                "inner product",
                "alpha @ alpha is a number. α αᵀ is a matrix: np.outer(alpha, alpha).",
                _inner_product,
            ),
        ),
    ),
    Exercise(
        "climb",
        "climb(X, y, theta, rate, n_steps) -> theta (3,), log_p (n_steps,)",
        climb,
        _climb_cases,
        laws=(Law("log p(y) rises at every step", _climbs),),
        mistakes=(
            Mistake(
                "downhill",
                "You subtract the gradient. It points uphill, and up is where you want "
                "to go: add it.",
                _climb_down,
            ),
            Mistake(
                "not in logs",
                "You move the parameters themselves. Move their logs: theta holds logs "
                "and the gradient is by logs.",
                _climb_plain,
            ),
            Mistake(
                "one step late",
                "Your log_p is that after each step. Record it before.",
                _climb_late,
            ),
            Mistake(
                "one gradient for all steps",
                "You use the gradient of the start throughout. Compute it anew.",
                _climb_stale,
            ),
            Mistake(
                "logs for the parameters",
                "theta holds logs: scale, length and noise are np.exp(theta).",
                _climb_in_logs,
            ),
            Mistake(
                "parameters returned",
                "Your second result is right. Return theta, the logs, not their "
                "exponentials.",
                _climb_exp,
            ),
        ),
        rtol=1e-6,
    ),
    Exercise(
        "sparse_bound",
        "sparse_bound(prior, K_xz, K_zz, noise, y) -> a number",
        sparse_bound,
        _sparse_cases,
        mistakes=(
            Mistake(
                "no charge",
                "You left out the charge for what the inducing points miss. Without it "
                "this is no bound.",
                _no_trace,
            ),
            Mistake(
                "charged twice",
                "The charge is the sum of missed variances over 2 noise², not noise².",
                _trace_twice,
            ),
            Mistake(
                "charge added",
                "You add the charge; take it off.",
                _trace_added,
            ),
            Mistake(
                "charge without noise",
                "The charge is in units of the noise: divide by noise², too.",
                _trace_alone,
            ),
            Mistake(
                "charge by the deviation",
                "The charge is over 2 noise², not over 2 noise.",
                _trace_by_deviation,
            ),
            Mistake(
                "constant without noise",
                "The constant is −n/2 log(2π noise²). You left the noise out of it.",
                _constant_without_noise,
            ),
            Mistake(
                "quarter of the log determinant",
                "You halve the sum of log L_B[i, i]. It is half of log|B| already.",
                _quarter_log_B,
            ),
            Mistake(
                "whole log determinant",
                "You take off log|B|. The sum of log L_B[i, i] is the half that is "
                "meant.",
                _whole_log_B,
            ),
        ),
        rtol=1e-6,
    ),
    Exercise(
        "laplace",
        "laplace(K, y) -> f (n,), log_p",
        laplace,
        _label_cases,
        rtol=1e-6,
        mistakes=(
            Mistake(
                "one step",
                "You take one Newton step. Repeat until f no longer moves.",
                _one_step,
            ),
            Mistake(
                "no volume",
                "Your mode is right. log p(y) also takes off half of log|B|.",
                _no_volume,
            ),
            Mistake(
                "whole log determinant",
                "You take off log|B|; half of it is meant.",
                _volume_twice,
            ),
            Mistake(
                "quarter of the log determinant",
                "Your mode is right. The sum of log L_B[i, i] is half of log|B| "
                "already: do not halve it.",
                _volume_halved,
            ),
            Mistake(
                "no prior",
                "log p(y) lacks the prior: −½ fᵀ K⁻¹ f, which is −½ aᵀ f.",
                _no_prior,
            ),
            Mistake(
                "labels turned",
                "Your f is large where y is 0. The slope is y − p.",
                _labels_turned,
            ),
            Mistake(
                "labels plus and minus one",
                "The labels are 0 and 1 in the slope y − p. You made them −1 and 1 "
                "there.",
                _signs,
            ),
            Mistake(
                "labels made signs twice",
                "The formulas want labels 0 and 1: 2 y − 1 makes signs of them. You "
                "did that before, and again.",
                _signs_twice,
            ),
            Mistake(
                "root on columns only",
                "root * K * root scales the columns twice and the rows not at all: "
                "root[:, None] * K * root.",
                _root_on_columns,
            ),
            Mistake(
                "one triangular solve",
                "B⁻¹ takes two solves: with L_B, then with its transpose.",
                _one_solve,
            ),
        ),
    ),
    Exercise(
        "matern_gradient",
        "matern_gradient(X, y, scale, length, noise) -> slopes by the three logs, (3,)",
        matern_gradient,
        _gradient_cases,
        mistakes=(
            Mistake(
                "length downhill",
                "That is the bug itself: the slope by the length has the wrong "
                "sign. a falls when the length grows.",
                _length_downhill,
            ),
            Mistake(
                "all downhill",
                "Now all three signs are turned. Two of them were right.",
                _all_downhill,
            ),
            Mistake(
                "length itself",
                "That is the slope by the length. By its log, multiply by the length.",
                _by_length_itself,
            ),
            Mistake(
                "a only once",
                "dK/da holds one factor a, and da by log length another: a².",
                _a_once,
            ),
            Mistake(
                "product rule",
                "(1 + a) depends on a, too: the derivative of (1 + a) exp(−a) is −a "
                "exp(−a).",
                _no_product_rule,
            ),
            Mistake(
                "another kernel",
                "That is the gradient of exercise 5. Here the kernel is Matérn's.",
                gradient,
            ),
        ),
    ),
    Exercise(
        "forecast",
        "forecast(t, ppm, t_new) -> mean (m,), sd (m,) of measurements at t_new",
        forecast,
        _carbon_cases,
        laws=(Law("error, band and mean deviation are as good as asked", _forecasts),),
        mistakes=(
            Mistake(
                "no season",
                "Your forecast has no seasons. Add a kernel with a period of a year.",
                _trend_only,
            ),
            Mistake(
                "a straight line",
                "A straight line cannot follow a rise that grows faster.",
                _straight_line,
            ),
            Mistake(
                "short length",
                "Your kernel forgets within a year or two, and returns to the mean. A "
                "trend needs a length of decades.",
                _short_length,
            ),
            Mistake(
                "constant deviation",
                "Your band is as wide for the first month as for the last. What is "
                "farther ahead is less certain.",
                _constant_deviation,
            ),
        ),
        compare=False,
        seconds=120.0,
    ),
)
