"""Hidden Markov models by brute force: every path is listed, nothing is recursive.

Shares no code with the package: it may import NumPy, SciPy and the standard library.
"""

from itertools import pairwise, product

import numpy as np


def paths(pi, A, B):
    """Every hidden path, paired with its joint probability with the data."""
    found = []
    for z in product(range(len(pi)), repeat=len(B)):
        p = pi[z[0]] * np.prod([A[j, k] for j, k in pairwise(z)])
        found.append((z, p * np.prod(B[np.arange(len(B)), z])))
    return found


def enumerate_paths(pi, A, B):
    """Evidence p(x), γ (T, K), ξ (T-1, K, K), by adding up the paths."""
    T, K = B.shape
    evidence, gamma, xi = 0.0, np.zeros((T, K)), np.zeros((T - 1, K, K))
    for z, p in paths(pi, A, B):
        evidence += p
        gamma[np.arange(T), z] += p
        xi[np.arange(T - 1), z[:-1], z[1:]] += p
    with np.errstate(invalid="ignore"):
        return evidence, gamma / evidence, xi / evidence


def forward(pi, A, B):
    """α[t, k] = p(x₁..xₜ, zₜ = k): the paths of the first t steps that end in k."""
    alpha = np.zeros(B.shape)
    for t in range(len(B)):
        for z, p in paths(pi, A, B[: t + 1]):
            alpha[t, z[-1]] += p
    return alpha


def backward(A, B):
    """β[t, k] = p(what follows t | zₜ = k): the paths that start in k."""
    beta = np.ones(B.shape)
    for t in range(len(B) - 1):
        for k in range(len(A)):
            beta[t, k] = sum(p for _, p in paths(A[k], A, B[t + 1 :]))
    return beta


def best_path(pi, A, B):
    """The most probable path and its joint probability."""
    return max(paths(pi, A, B), key=lambda pair: pair[1])


def em_update(pi, A, B, x, n_symbols):
    """New π, A and symbol probabilities from counts over all weighted paths."""
    T, K = B.shape
    start, move = np.zeros(K), np.zeros((K, K))
    emit = np.zeros((K, n_symbols))
    for z, p in paths(pi, A, B):
        start[z[0]] += p
        for j, k in pairwise(z):
            move[j, k] += p
        for t in range(T):
            emit[z[t], x[t]] += p
    return tuple(n / n.sum(axis=-1, keepdims=True) for n in (start, move, emit))


def symmetric_two_state_evidence(stay, B):
    """p(x) of the chain that stays with one probability in both states, from (½, ½).

    In the basis of sum and difference the transition is diagonal, diag(1, 2 stay − 1),
    and an emission is a 2 × 2 matrix; no recursion over states is shared with ours.
    """
    turn = np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2)
    state = turn @ (np.full(2, 0.5) * B[0])
    for b in B[1:]:
        moved = np.diag([1.0, 2 * stay - 1]) @ state
        state = turn @ np.diag(b) @ turn.T @ moved
    return np.sqrt(2) * state[0]
