"""Generalized linear models from their definitions: sums written out, nothing clever.

Shares no code with the package: it may import NumPy, SciPy and the standard library.
"""

import math

import numpy as np
from scipy import optimize, stats


def eta(w, X, offset):
    return [
        float(offset[t]) + sum(float(X[t, d]) * float(w[d]) for d in range(X.shape[1]))
        for t in range(len(X))
    ]


def mean(kind, e):
    """The mean at a linear predictor e."""
    return {
        "gaussian": lambda: e,
        "bernoulli": lambda: 1.0 / (1.0 + math.exp(-e)),
        "probit": lambda: stats.norm.cdf(e),
        "poisson": lambda: math.exp(e),
        "gamma": lambda: 1.0 / e,
    }[kind]()


def log_p(kind, y, mu, phi=1.0):
    """The log probability of one observation of mean mu, by SciPy's distributions."""
    return float(
        {
            "gaussian": lambda: stats.norm.logpdf(y, mu, math.sqrt(phi)),
            "bernoulli": lambda: stats.bernoulli.logpmf(y, mu),
            "probit": lambda: stats.bernoulli.logpmf(y, mu),
            "poisson": lambda: stats.poisson.logpmf(y, mu),
            "gamma": lambda: stats.gamma.logpdf(y, 1 / phi, scale=mu * phi),
        }[kind]()
    )


def log_likelihood(kind, w, X, y, offset, phi=1.0):
    return sum(
        log_p(kind, y[t], mean(kind, e), phi) for t, e in enumerate(eta(w, X, offset))
    )


def outcomes(kind, mu):
    """Values and probabilities of y, far enough out that nothing is missing."""
    if kind in ("bernoulli", "probit"):
        return [(0.0, 1.0 - mu), (1.0, mu)]
    values = range(int(mu + 40 * math.sqrt(mu) + 60))
    return [(float(v), float(stats.poisson.pmf(v, mu))) for v in values]


def complex_gradient(kind, w, X, y, offset):
    """∇ℓ by a complex step, for families whose log p is analytic."""
    w = np.asarray(w, dtype=complex)
    slope = []
    for d in range(len(w)):
        moved = w.copy()
        moved[d] += 1e-30j
        e = offset + X @ moved
        if kind == "gaussian":
            value = -0.5 * (y - e) ** 2
        elif kind == "bernoulli":
            value = y * e - np.log(1.0 + np.exp(e))
        elif kind == "poisson":
            value = y * e - np.exp(e)
        slope.append(value.sum().imag / 1e-30)
    return np.array(slope)


def expected_information(kind, w, X, offset):
    """Variance of the score, summed over every outcome of every observation."""
    total = np.zeros((X.shape[1],) * 2)
    for t, e in enumerate(eta(w, X, offset)):
        h = 1e-5
        variance = 0.0
        for y, p in outcomes(kind, mean(kind, e)):
            if p < 1e-30:
                continue
            up, down = (log_p(kind, y, mean(kind, e + s)) for s in (h, -h))
            variance += p * ((up - down) / (2 * h)) ** 2
        total += variance * np.outer(X[t], X[t])
    return total


def newton_step(w, X, y, offset):
    """One step of Newton's method on the Poisson log likelihood, entry by entry."""
    D = len(w)
    g, H = np.zeros(D), np.zeros((D, D))
    for t, e in enumerate(eta(w, X, offset)):
        mu = math.exp(e)
        for i in range(D):
            g[i] += (y[t] - mu) * X[t, i]
            for j in range(D):
                H[i, j] -= mu * X[t, i] * X[t, j]
    return w - np.linalg.solve(H, g)


def one_hot(index, sizes):
    rows = []
    for bins in index:
        row = [1.0]
        for b, n in zip(bins, sizes, strict=True):
            row += [1.0 if i == b else 0.0 for i in range(n)]
        rows.append(row)
    return np.array(rows)


def sum_to_zero(sizes):
    """Columns: the intercept, and for each block bin i minus its last bin."""
    columns, start = [[1.0] + [0.0] * sum(sizes)], 1
    for n in sizes:
        for i in range(n - 1):
            column = [0.0] * (1 + sum(sizes))
            column[start + i], column[start + n - 1] = 1.0, -1.0
            columns.append(column)
        start += n
    return np.array(columns).T


def roughness(w, circular=False):
    total = sum((w[i + 1] - w[i]) ** 2 for i in range(len(w) - 1))
    return total + (w[0] - w[-1]) ** 2 if circular else total


def roughness_of_grid(table):
    rows, columns = table.shape
    total = 0.0
    for i in range(rows):
        for j in range(columns):
            if i + 1 < rows:
                total += (table[i + 1, j] - table[i, j]) ** 2
            if j + 1 < columns:
                total += (table[i, j + 1] - table[i, j]) ** 2
    return total


def shrink(w, amount, groups):
    """The proximal step by Moreau's identity: w minus its projection on a ball."""
    out = np.array(w, dtype=float)
    for g in set(groups) - {-1}:
        mine = [d for d, h in enumerate(groups) if h == g]
        norm = math.sqrt(sum(w[d] ** 2 for d in mine))
        radius = amount * math.sqrt(len(mine))
        for d in mine:
            out[d] = w[d] - (w[d] if norm <= radius else w[d] * radius / norm)
    return out


def lasso_objective(w, X, y, lam, groups):
    value = -sum(
        yt * e - math.exp(e) - math.lgamma(yt + 1)
        for yt, e in zip(y, X @ w, strict=True)
    ) / len(y)
    for g in set(groups) - {-1}:
        mine = [w[d] for d, h in enumerate(groups) if h == g]
        value += lam * math.sqrt(len(mine)) * math.sqrt(sum(v * v for v in mine))
    return value


def raised_cosines(n_lags, n_basis, stretch):
    first, last = math.log(stretch), math.log(n_lags + stretch)
    apart = (last - first) / (n_basis + 1)
    table = np.zeros((n_lags, n_basis))
    for lag in range(n_lags):
        for j in range(n_basis):
            a = (math.log(lag + stretch) - first - j * apart) / apart * math.pi / 2
            table[lag, j] = (1 + math.cos(a)) / 2 if abs(a) < math.pi else 0.0
    return table


def filtered(x, basis, delay):
    out = np.zeros((len(x), basis.shape[1]))
    for t in range(len(x)):
        for lag in range(len(basis)):
            if t - delay - lag >= 0:
                out[t] += basis[lag] * x[t - delay - lag]
    return out


def deviance(kind, y, mu):
    """2 (log p of the saturated model − log p), by SciPy's distributions, φ = 1."""
    total = 0.0
    for a, m in zip(y, mu, strict=True):
        total += 2 * (log_p(kind, a, a) - log_p(kind, a, m))
    return total


def bits_per_spike(y, mu, null):
    gain = sum(
        stats.poisson.logpmf(a, m) - stats.poisson.logpmf(a, n)
        for a, m, n in zip(y, mu, null, strict=True)
    )
    return gain / sum(y) / math.log(2)


def smoothed_counts(y, exposure, P):
    """Maximum of Σ y w − exposure e^w − ½ wᵀ P w, one w a bin, by SciPy."""

    def loss(w):
        return float((exposure * np.exp(w) - y * w).sum() + 0.5 * w @ P @ w)

    def slope(w):
        return exposure * np.exp(w) - y + P @ w

    def curvature(w):
        return np.diag(exposure * np.exp(w)) + P

    found = optimize.minimize(
        loss,
        np.zeros(len(y)),
        jac=slope,
        hess=curvature,
        method="trust-exact",
        options={"gtol": 1e-11},
    )
    w = found.x
    for _ in range(2):  # the last digits, by Newton
        w = w - np.linalg.solve(curvature(w), slope(w))
    return w
