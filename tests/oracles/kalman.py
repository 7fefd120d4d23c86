"""Linear-Gaussian models as one big Gaussian: every z and x in one vector, no loop.

Shares no code with the package: it may import NumPy, SciPy and the standard library.
"""

import numpy as np


def joint(mean, cov, F, Q, H, R, T):
    """Moments of (z₁..z_T, x₁..x_T), from z = M (z₁, noise) and x = H z + v."""
    n, D = len(mean), len(H)
    # z_t = F^(t-1) z_1 + Σ_s F^(t-s) w_s, written out as one block matrix.
    M = np.zeros((T * n, T * n))
    for t in range(T):
        for s in range(t + 1):
            block = np.linalg.matrix_power(F, t - s)
            M[t * n : (t + 1) * n, s * n : (s + 1) * n] = block
    source = np.zeros((T * n, T * n))
    source[:n, :n] = cov
    for t in range(1, T):
        source[t * n : (t + 1) * n, t * n : (t + 1) * n] = Q
    start = np.zeros(T * n)
    start[:n] = mean
    mean_z, cov_z = M @ start, M @ source @ M.T
    big = np.kron(np.eye(T), H)
    cov_x = big @ cov_z @ big.T + np.kron(np.eye(T), R)
    assert cov_x.shape == (T * D, T * D)
    return mean_z, cov_z, big @ mean_z, cov_x, cov_z @ big.T


def batch(mean, cov, F, Q, H, R, x, seen=None, last=None):
    """Posterior of all z given the seen x up to step `last`, and log p of those x.

    Returns mean (T, n), covariance (T, T, n, n) and the log density.
    """
    T, D = x.shape
    n = len(mean)
    mean_z, cov_z, mean_x, cov_x, cross = joint(mean, cov, F, Q, H, R, T)
    keep = np.ones(T, dtype=bool) if seen is None else np.array(seen)
    keep[T if last is None else last + 1 :] = False
    at = np.flatnonzero(np.repeat(keep, D))
    S, C = cov_x[np.ix_(at, at)], cross[:, at]
    miss = x.ravel()[at] - mean_x[at]
    post = mean_z + C @ np.linalg.solve(S, miss)
    left = cov_z - C @ np.linalg.solve(S, C.T)
    log_det = np.linalg.slogdet(2 * np.pi * S)[1]
    log_p = -0.5 * (log_det + miss @ np.linalg.solve(S, miss)) if len(at) else 0.0
    return post.reshape(T, n), left.reshape(T, n, T, n).swapaxes(1, 2), float(log_p)


def diffuse(mean, cov, F, Q, H, R, x, marked, seen=None):
    """Posterior with a flat prior on the marked states, and the diffuse likelihood.

    The flat part is integrated out as a regression: x = X b + noise, b unknown.
    """
    T, D = x.shape
    n = len(mean)
    marked = np.asarray(marked)
    keep = np.diag(1.0 - marked)
    mean_z, cov_z, mean_x, cov_x, cross = joint(
        keep @ mean, keep @ cov @ keep, F, Q, H, R, T
    )
    basis = np.vstack([np.linalg.matrix_power(F, t) for t in range(T)])[:, marked]
    X = np.kron(np.eye(T), H) @ basis
    at = np.flatnonzero(np.repeat(np.ones(T, bool) if seen is None else seen, D))
    S, C, X, y = cov_x[np.ix_(at, at)], cross[:, at], X[at], (x.ravel() - mean_x)[at]
    SX = np.linalg.solve(S, X)
    information = X.T @ SX
    b = np.linalg.solve(information, SX.T @ y)
    miss = y - X @ b
    post = mean_z + basis @ b + C @ np.linalg.solve(S, miss)
    tilt = basis - C @ SX
    left = cov_z - C @ np.linalg.solve(S, C.T)
    left = left + tilt @ np.linalg.solve(information, tilt.T)
    log_p = -0.5 * (
        len(at) * np.log(2 * np.pi)
        + np.linalg.slogdet(S)[1]
        + np.linalg.slogdet(information)[1]
        + miss @ np.linalg.solve(S, miss)
    )
    return post.reshape(T, n), left.reshape(T, n, T, n).swapaxes(1, 2), float(log_p)


def expected_log_joint(theta, post, spread, x, seen):
    """E[log p(x, z)] under a posterior of all z, term by term; theta is the new model.

    The function that an M-step must maximise, computed the long way.
    """
    mean, cov, F, Q, H, R = theta

    def term(a_mean, a_cov, S):
        moment = np.outer(a_mean, a_mean) + a_cov
        return -0.5 * (
            np.linalg.slogdet(2 * np.pi * S)[1] + np.trace(np.linalg.solve(S, moment))
        )

    total = term(post[0] - mean, spread[0, 0], cov)
    for t in range(1, len(post)):
        c = spread[t, t - 1]
        a_cov = spread[t, t] - c @ F.T - F @ c.T + F @ spread[t - 1, t - 1] @ F.T
        total += term(post[t] - F @ post[t - 1], a_cov, Q)
    for t in np.flatnonzero(seen):
        total += term(x[t] - H @ post[t], H @ spread[t, t] @ H.T, R)
    return total
