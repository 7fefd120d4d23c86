"""Gaussian processes by the definition: joint densities, integrals and refits.

Shares no code with the package: it may import NumPy, SciPy and the standard library.
"""

from math import gamma

import numpy as np
from scipy import integrate, special, stats
from scipy.linalg import expm
from scipy.optimize import minimize


def inverted(A):
    """A⁻¹, outright: the oracle is plain where the package is careful."""
    return np.linalg.solve(A, np.eye(len(A)))


# ------------------------------------------------------------ kernels, pair by pair


def matrix(k, X, Z):
    """k(x, z) for every pair, one call each."""
    return np.array([[k(x, z) for z in Z] for x in X])


def squared_exponential(scale, length):
    return lambda x, z: scale**2 * np.prod(np.exp(-(((x - z) / length) ** 2) / 2))


def matern(scale, length, order):
    """By the modified Bessel function, as for any order."""

    def k(x, z):
        u = np.sqrt(2 * order) * np.linalg.norm((x - z) / length)
        if u == 0:
            return scale**2
        bessel = special.kv(order, u)
        return scale**2 * 2 ** (1 - order) / gamma(order) * u**order * bessel

    return k


def rational_quadratic(scale, length, shape):
    """Squared exponentials mixed: their inverse squared length is gamma distributed."""

    def k(x, z):
        r2 = np.sum(((x - z) / length) ** 2)
        law = stats.gamma(shape, scale=1 / shape)
        mixed = integrate.quad(lambda s: law.pdf(s) * np.exp(-s * r2 / 2), 0, np.inf)
        return scale**2 * mixed[0]

    return k


def periodic(scale, length, period):
    """A squared exponential of the positions on a circle."""

    def on_circle(x):
        turn = 2 * np.pi * x[0] / period
        return np.array([np.cos(turn), np.sin(turn)])

    plain = squared_exponential(scale, length)
    return lambda x, z: plain(on_circle(x), on_circle(z))


# ------------------------------------------------------------ regression


def joint(K, noise):
    """The covariance of y = f + noise."""
    return K + noise**2 * np.eye(len(K))


def evidence(K, noise, y):
    """log p(y), by SciPy's multivariate normal."""
    law = stats.multivariate_normal(np.zeros(len(y)), joint(K, noise))
    return law.logpdf(y)


def evidence_one_by_one(K, noise, y):
    """log p(y) as a sum of log p(yᵢ | those before): the chain rule."""
    C, total = joint(K, noise), 0.0
    for i in range(len(y)):
        weights = np.linalg.solve(C[:i, :i], C[:i, i]) if i else np.zeros(0)
        mean, var = weights @ y[:i], C[i, i] - weights @ C[:i, i]
        total += stats.norm(mean, np.sqrt(var)).logpdf(y[i])
    return total


def conditional(K, K_new, K_both, noise, y):
    """Mean and covariance of f_new given y, from the blocks of the precision matrix.

    The covariance of (f_new, y) is inverted as a whole; the block of f_new in the
    inverse is the inverse of the conditional covariance.
    """
    m = len(K_new)
    whole = np.block([[K_new, K_both], [K_both.T, joint(K, noise)]])
    precision = inverted(whole)
    cov = inverted(precision[:m, :m])
    return -cov @ precision[:m, m:] @ y, cov


def leave_one_out(K, noise, y):
    """Mean, variance and log density of each y given the others, by n refits."""
    C, out = joint(K, noise), []
    for i in range(len(y)):
        rest = np.delete(np.arange(len(y)), i)
        weights = np.linalg.solve(C[np.ix_(rest, rest)], C[rest, i])
        mean, var = weights @ y[rest], C[i, i] - weights @ C[rest, i]
        out.append((mean, var, stats.norm(mean, np.sqrt(var)).logpdf(y[i])))
    return tuple(np.array(out).T)


# ------------------------------------------------------------ other likelihoods


def log_sum_over_grid(K, log_p, half=9.0, nodes=400):
    """log ∫ N(f; 0, K) Π p(yᵢ | fᵢ) df, mean and variance of f, for two points.

    A plain sum over a grid in whitened coordinates; `log_p(i, f)` is log p(yᵢ | f).
    """
    u = np.linspace(-half, half, nodes)
    cell = 2 * np.log(u[1] - u[0])
    a, b = np.meshgrid(u, u, indexing="ij")
    L = np.linalg.cholesky(K)
    f = np.stack([L[0, 0] * a, L[1, 0] * a + L[1, 1] * b])
    log_mass = -0.5 * (a**2 + b**2) - np.log(2 * np.pi) + cell
    log_mass = log_mass + sum(log_p(i, f[i]) for i in (0, 1))
    top = log_mass.max()
    mass = np.exp(log_mass - top)
    total = mass.sum()
    mean = np.array([(mass * g).sum() for g in f]) / total
    var = np.array([(mass * (g - m) ** 2).sum() for g, m in zip(f, mean, strict=True)])
    var = var / total
    return top + np.log(total), mean, var


def tilted(log_p, mean, var):
    """log Z, mean and variance of p(y | f) N(f; mean, var), by a fine sum."""
    f = np.linspace(mean - 14 * np.sqrt(var), mean + 14 * np.sqrt(var), 200_001)
    log_mass = log_p(f) + stats.norm(mean, np.sqrt(var)).logpdf(f) + np.log(f[1] - f[0])
    mass = np.exp(log_mass)
    total = mass.sum()
    centre = (mass * f).sum() / total
    return np.log(total), centre, (mass * (f - centre) ** 2).sum() / total


def probit_tilted(y, mean, var):
    """The same for Φ(±f), in closed form: Rasmussen & Williams 2006, eq. 3.58."""
    sign = 2 * y - 1
    z = sign * mean / np.sqrt(1 + var)
    ratio = stats.norm.pdf(z) / stats.norm.cdf(z)
    centre = mean + sign * var * ratio / np.sqrt(1 + var)
    return (
        stats.norm.logcdf(z),
        centre,
        var - var**2 * ratio / (1 + var) * (z + ratio),
    )


def mode(K, log_p, start):
    """The largest of Σ log p(yᵢ | fᵢ) − ½ fᵀ K⁻¹ f, by a general optimiser."""
    inverse = inverted(K)

    def down(f):
        return 0.5 * f @ inverse @ f - log_p(f).sum()

    return minimize(down, start, method="BFGS", options={"gtol": 1e-9}).x


# ------------------------------------------------------------ sparse


def nystrom(K_xz, K_zz):
    """Q = K_xz K_zz⁻¹ K_zx."""
    return K_xz @ inverted(K_zz) @ K_xz.T


def sparse(K, K_xz, K_zz, noise, y, method):
    """log p(y), or the bound, of the dense n by n covariance that is meant."""
    Q = nystrom(K_xz, K_zz)
    lost = np.diag(K - Q)
    C = Q + noise**2 * np.eye(len(y))
    if method == "fitc":
        C = C + np.diag(lost)
    log_p = stats.multivariate_normal(np.zeros(len(y)), C).logpdf(y)
    return log_p - (lost.sum() / (2 * noise**2) if method == "vfe" else 0.0)


def sparse_prediction(K, K_xz, K_zz, K_sz, K_ss, noise, y, method):
    """Mean and variance at new points of the same dense model."""
    Q, inverse = nystrom(K_xz, K_zz), inverted(K_zz)
    C = Q + noise**2 * np.eye(len(y))
    if method == "fitc":
        C = C + np.diag(np.diag(K - Q))
    both, new = K_sz @ inverse @ K_xz.T, K_sz @ inverse @ K_sz.T
    prior = new if method == "sor" else K_ss
    mean = both @ np.linalg.solve(C, y)
    return mean, np.diag(prior - both @ np.linalg.solve(C, both.T))


def best_pivots(K, m):
    """Greedy choice by brute force: compare all variances left at each step."""
    chosen = []
    for _ in range(m):
        left = np.diag(K).copy()
        if chosen:
            some = K[np.ix_(chosen, chosen)]
            left -= np.diag(K[:, chosen] @ inverted(some) @ K[chosen])
            left[chosen] = -np.inf
        chosen.append(int(left.argmax()))
    return np.array(chosen)


# ------------------------------------------------------------ state space


def step_of(F, G, spectral, gap):
    """exp(F gap) and the covariance of the noise over a gap, by quadrature.

    F is the drift of the state, G the column through which white noise of this spectral
    density enters.
    """

    def density(s):
        column = expm(F * s) @ G
        return spectral * np.outer(column, column)

    Q, _ = integrate.quad_vec(density, 0.0, gap, epsabs=1e-14, epsrel=1e-13)
    return expm(F * gap), Q


def finite_gradient(f, theta, h=1e-5):
    """Central differences of fourth order, one for each entry of theta."""
    out = []
    for e in h * np.eye(len(theta)):
        near = f(theta + e) - f(theta - e)
        far = f(theta + 2 * e) - f(theta - 2 * e)
        out.append((8 * near - far) / (12 * h))
    return np.array(out)
