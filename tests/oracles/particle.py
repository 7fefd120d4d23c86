"""Filters on a grid and sums over every path: what particles only estimate.

Shares no code with the package: it may import NumPy, SciPy and the standard library.
"""

from itertools import product

import numpy as np


def grid_filter(grid, first, transition, likelihoods):
    """Moments of p(zₜ | x₁..xₜ) and log p(x₁..xₜ), (T,) each, on a grid of equal cells.

    first (G,) and transition[i, j] = p(grid[j] | grid[i]) are densities; likelihoods
    is (T, G), or a list whose entry is None where nothing was observed.
    """
    width = grid[1] - grid[0]
    p, log_p, means, variances = first * width, [], [], []
    for t, like in enumerate(likelihoods):
        if t > 0:
            p = p @ (transition[t] if transition.ndim == 3 else transition) * width
        if like is not None:
            p = p * like
        total = p.sum()
        log_p.append(np.log(total))
        p = p / total
        means.append(p @ grid)
        variances.append(p @ (grid - means[-1]) ** 2)
    return np.array(means), np.array(variances), np.cumsum(log_p)


def grid_smoother(grid, first, transition, likelihoods):
    """Means of p(zₜ | all x) on the grid."""
    width = grid[1] - grid[0]
    forward = [first * likelihoods[0]]
    for like in likelihoods[1:]:
        forward.append(forward[-1] @ transition * width * like)
        forward[-1] /= forward[-1].sum()
    backward, means = np.ones(len(grid)), []
    for t in range(len(likelihoods) - 1, -1, -1):
        both = forward[t] * backward
        means.append(both @ grid / both.sum())
        backward = transition @ (likelihoods[t] * backward)
        backward /= backward.max()
    return np.array(means[::-1])


def ordinary_counts(w, places):
    """How many places fall to each particle when [0, 1) is dealt out, one by one."""
    counts = np.zeros(len(w), dtype=int)
    for place in places:
        i, edge = 0, w[0]
        while place >= edge:
            i += 1
            edge += w[i]
        counts[i] += 1
    return counts


def switching_evidence(prob, log_p):
    """Log Σ over all sequences u of p(u) p(x | u), for independent u of these probs.

    log_p(u) is log p(x | u) of one sequence, a tuple.  Also returns p(u_T | x).
    """
    T, K = prob.shape
    total, last = [], []
    for u in product(range(K), repeat=T):
        total.append(np.log(prob[np.arange(T), u]).sum() + log_p(u))
        last.append(u[-1])
    total = np.array(total)
    top = total.max()
    w = np.exp(total - top)
    share = np.array([w[np.array(last) == k].sum() for k in range(K)]) / w.sum()
    return top + np.log(w.sum()), share
