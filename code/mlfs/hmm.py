"""Hidden Markov models: exact inference and learning by messages along a chain.

Chapter: book/hidden-markov-models/theory.md.  A comment `# eq NAME` marks the line that
implements the displayed equation labelled NAME there.

    K, T         number of hidden states, number of time steps
    z[t]         hidden state at time t, in 0..K-1                   (T,)
    x[t]         observation at time t                               (T,) or (T, D)
    pi[k]        p(z₁ = k)                                           (K,)
    A[j, k]      p(z₍ₜ₊₁₎ = k | zₜ = j); rows sum to one             (K, K)
    B[t, k]      p(xₜ | zₜ = k), up to a factor for each t           (T, K)
    log_B[t, k]  its logarithm; −inf where a state cannot emit xₜ    (T, K)
    alpha, beta  forward and backward messages                       (T, K)
    c[t]         scale: p(xₜ | x₍₁..ₜ₋₁₎)                            (T,)
    gamma[t, k]  p(zₜ = k | all x)                                   (T, K)
    xi[t, j, k]  p(zₜ = j, z₍ₜ₊₁₎ = k | all x)                       (T-1, K, K)

The observations enter only through B or log_B, so the same code serves every kind of
emission.  Functions of (pi, A, B) are the recursions of the derivation, one loop each;
`smooth` and what builds on it are the fast forms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
from scipy.special import gammaln, xlogy

from mlfs.core.numerics import (
    LARGEST_WHOLE,
    Array,
    BoolArray,
    IntArray,
    check_array,
    check_counts,
    check_list,
    check_mask,
    check_real,
    check_rng,
    check_scalar,
    check_simplex,
    check_type,
    check_whole,
    log_probability,
    logsumexp,
)

# The smallest double with all its digits.
TINY = float(np.finfo(float).tiny)
# Numbers up to HUGE may be added up, and numbers up to its root squared, without
# overflow; what lies beyond is refused.
HUGE = 1e300
ROOT_HUGE = 1e150

# ------------------------------------------------------------ the hidden chain


@dataclass(frozen=True, slots=True)
class Chain:
    """A Markov chain over K states: p(z₁) and p(z₍ₜ₊₁₎ | zₜ).

    Raises:
        ValueError: `pi` (K,) or a row of `A` (K, K) is no probability distribution,
            or some state can never be reached.
    """

    pi: Array
    A: Array

    def __post_init__(self) -> None:
        pi, A = _check_chain(self.pi, self.A)
        reached = pi > 0
        for _ in pi:  # K steps reach all that can be reached
            reached = reached | (A[reached] > 0).any(axis=0)
        if not reached.all():
            lost = int(np.argmin(reached))
            raise ValueError(
                f"A and pi give state {lost} no way to be reached, "
                "want every state reachable: drop it or give it a way in"
            )
        # Sums differ from one by rounding, which long chains would pile up: remove it.
        object.__setattr__(self, "pi", pi / pi.sum())
        object.__setattr__(self, "A", A / A.sum(axis=1, keepdims=True))

    @property
    def K(self) -> int:
        """Number of states."""
        return len(self.pi)


def stationary(A: Array) -> Array:
    """The distribution δ that the chain keeps: δ A = δ, shape (K,).  Cost O(K³).

    Raises:
        ValueError: `A` is no transition matrix, or has more than one such δ.
    """
    A = check_simplex("A", A, ("K", "K"))
    K = len(A)
    # K + 1 equations, δ (I − A) = 0 and Σ δ = 1, of rank K when δ is unique.
    equations = np.vstack([(np.eye(K) - A).T, np.ones(K)])
    delta, _, rank, _ = np.linalg.lstsq(
        equations, np.eye(K + 1)[K]
    )  # eq hmm-stationary
    if rank < K:
        raise ValueError("A has several stationary distributions, want just one")
    delta = np.abs(delta)  # rounding may leave −1e−17 where zero is meant
    out: Array = delta / delta.sum()
    return out


def expected_dwell(A: Array) -> Array:
    """Mean number of steps spent in each state at a visit, 1 / (1 − A[k, k]), (K,).

    Raises:
        ValueError: `A` is no transition matrix, or a state is never left.
    """
    A = check_simplex("A", A, ("K", "K"))
    leave = 1.0 - np.diag(A)
    if (leave <= 0).any():
        k = int(np.argmin(leave))
        raise ValueError(f"A[{k}, {k}] is 1, want below 1: the state is never left")
    out: Array = 1.0 / leave  # eq hmm-dwell
    return out


def simulate(chain: Chain, T: int, rng: np.random.Generator) -> IntArray:
    """A hidden path z of length T drawn from the chain, shape (T,).  Cost O(T log K).

    Raises:
        ValueError: `chain` is no Chain, `T` is below one, or `rng` is no Generator.
    """
    chain = check_type("chain", chain, Chain)
    T, rng = check_whole("T", T, 1), check_rng(rng)
    edges = [row.cumsum() for row in (chain.pi, *chain.A)]
    edges = [edge / edge[-1] for edge in edges]  # up to 1, which no draw reaches
    u = rng.random(T)
    z = np.empty(T, dtype=np.int64)
    row = edges[0]
    for t in range(T):
        z[t] = np.searchsorted(row, u[t], side="right")
        row = edges[1 + z[t]]
    return z


# ------------------------------------------------------------ the plain recursions


def forward_probabilities(pi: Array, A: Array, B: Array) -> Array:
    """Forward messages α[t, k] = p(x₁..xₜ, zₜ = k) in plain probabilities, (T, K).

    Cost O(T K²).  Underflows to zero after a few hundred steps: for teaching.

    Raises:
        ValueError: a malformed argument, or a `B` that multiplies to more than a
            double can hold.
    """
    pi, A, B = _check_tables(pi, A, B)
    _check_growth(B)
    alpha = np.empty_like(B)
    alpha[0] = pi * B[0]  # eq hmm-forward-start
    for t in range(1, len(B)):
        alpha[t] = (alpha[t - 1] @ A) * B[t]  # eq hmm-forward
    return alpha


def forward(pi: Array, A: Array, B: Array) -> tuple[Array, Array]:
    """Scaled forward messages p(zₜ = k | x₁..xₜ), (T, K), and scales c, (T,).

    The log evidence is Σ log c.  Cost O(T K²).

    Raises:
        ValueError: a malformed argument, or data of probability zero.
    """
    pi, A, B = _check_tables(pi, A, B)
    alpha, c = np.empty_like(B), np.empty(len(B))
    for t in range(len(B)):
        predicted = pi if t == 0 else alpha[t - 1] @ A
        joint = predicted * B[t]
        c[t] = joint.sum()  # eq hmm-scale
        if c[t] < TINY:
            raise ValueError(
                f"B[{t}] leaves the data probability {c[t]:g}, wants {TINY:g} or more"
            )
        alpha[t] = joint / c[t]  # eq hmm-forward-scaled
    return alpha, c


def backward(A: Array, B: Array, c: Array) -> Array:
    """Scaled backward messages, p(future | zₜ = k) / Π c over the future, (T, K).

    `c` are the scales that `forward` returned.  Cost O(T K²).

    Raises:
        ValueError: a malformed argument, or messages beyond what a double can hold.
    """
    A, B, c = _check_scaled(A, B, c)
    beta = np.ones_like(B)
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        for t in range(len(B) - 2, -1, -1):
            beta[t] = A @ (B[t + 1] * beta[t + 1]) / c[t + 1]  # eq hmm-backward-scaled
    if not np.isfinite(beta).all():
        raise ValueError("c makes messages overflow, wants the scales of `forward`")
    return beta


def posteriors(
    alpha: Array, beta: Array, A: Array, B: Array, c: Array
) -> tuple[Array, Array]:
    """Posterior of each state, γ (T, K), and of each pair, ξ (T-1, K, K).

    Takes the scaled messages of `forward` and `backward`.  Cost and memory O(T K²).

    Raises:
        ValueError: a malformed argument, or arguments that do not belong together.
    """
    A, B, c = _check_scaled(A, B, c)
    alpha = check_simplex("alpha", alpha, B.shape)
    beta = check_array("beta", beta, B.shape, low=0.0)
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        gamma = alpha * beta  # eq hmm-gamma
        ahead = B[1:] * beta[1:] / c[1:, None]
        xi = alpha[:-1, :, None] * A * ahead[:, None, :]  # eq hmm-xi
    _check_posteriors(gamma, xi)
    return gamma, xi


def log_forward(pi: Array, A: Array, log_B: Array) -> Array:
    """Forward messages log α[t, k] in log space, (T, K).  Cost O(T K²), K² exps a step.

    Raises:
        ValueError: a malformed argument.
    """
    pi, A = _check_chain(pi, A)
    log_B = _check_log_B(log_B, len(pi))
    log_A = log_probability(A)
    log_alpha = np.empty_like(log_B)
    log_alpha[0] = log_probability(pi) + log_B[0]
    for t in range(1, len(log_B)):
        arrive = logsumexp(log_alpha[t - 1][:, None] + log_A, axis=0)
        log_alpha[t] = log_B[t] + arrive  # eq hmm-forward-log
    return log_alpha


def log_backward(A: Array, log_B: Array) -> Array:
    """Backward messages log β[t, k] = log p(x₍ₜ₊₁..T₎ | zₜ = k), (T, K).  Cost O(T K²).

    Raises:
        ValueError: a malformed argument.
    """
    A = check_simplex("A", A, ("K", "K"))
    log_B = _check_log_B(log_B, len(A))
    log_A = log_probability(A)
    log_beta = np.zeros_like(log_B)
    for t in range(len(log_B) - 2, -1, -1):
        ahead = log_B[t + 1] + log_beta[t + 1]
        log_beta[t] = logsumexp(log_A + ahead, axis=1)  # eq hmm-backward
    return log_beta


def viterbi(pi: Array, A: Array, log_B: Array) -> tuple[IntArray, float]:
    """The most probable path, (T,), and its log joint probability with the data.

    Of equally probable paths the one with the lowest final states is returned.
    Cost O(T K²), memory O(T K).

    Raises:
        ValueError: a malformed argument, or data of probability zero.
    """
    pi, A = _check_chain(pi, A)
    log_B = _check_log_B(log_B, len(pi))
    log_A = log_probability(A)
    v = np.empty_like(log_B)
    v[0] = log_probability(pi) + log_B[0]
    for t in range(1, len(log_B)):
        arrive = (v[t - 1][:, None] + log_A).max(axis=0)
        v[t] = log_B[t] + arrive  # eq hmm-viterbi
    path = np.empty(len(log_B), dtype=np.int64)
    path[-1] = v[-1].argmax()
    best = float(v[-1, path[-1]])
    _check_possible(best)
    for t in range(len(log_B) - 2, -1, -1):
        path[t] = (v[t] + log_A[:, path[t + 1]]).argmax()  # eq hmm-traceback
    return path, best


# ------------------------------------------------------------ the fast forms


@dataclass(frozen=True, slots=True)
class Posterior:
    """What a whole observed sequence says about its hidden path.

    `log_evidence` is log p(x); `gamma` (T, K) holds p(zₜ = k | x); `xi_sum` (K, K) is
    the expected number of transitions j → k, Σₜ ξₜ(j, k).
    """

    log_evidence: float
    gamma: Array
    xi_sum: Array


def smooth(chain: Chain, log_B: Array) -> Posterior:
    """Log evidence, γ and Σₜ ξₜ of one sequence, by the fastest form that is exact.

    Scaled probabilities where nothing can be lost to underflow, in parallel chunks when
    the sequence is long and the chain small; log space otherwise.  Time O(T K²), in
    chunks O(T K³); memory O(T K).

    Raises:
        ValueError: `chain` is no Chain; `log_B` is not (T, K) with T ≥ 1, holds NaN,
            +inf or numbers beyond ±1e300; or no hidden path at all can explain it.
    """
    chain = check_type("chain", chain, Chain)
    log_B = _check_log_B(log_B, chain.K)
    mixes = bool((chain.A >= MIXES).all())
    if mixes and chain.K <= CHUNK_MAX_K and len(log_B) >= CHUNK_MIN_T:
        return _smooth_in_chunks(chain, log_B)
    scaled = _smooth_in_one_sweep(chain, log_B, mixes)
    if scaled is not None:
        return scaled
    top = log_B.max(axis=1, keepdims=True)  # a large one would cost the others digits
    exact = _smooth_in_logs(chain, log_B - top)
    return replace(exact, log_evidence=exact.log_evidence + float(top.sum()))


def log_evidence(chain: Chain, log_B: Array) -> float:
    """Log p(x) of one sequence, the sum over all its hidden paths.  Cost as `smooth`.

    Raises:
        ValueError: as `smooth`.
    """
    return smooth(chain, log_B).log_evidence


def sample_paths(
    chain: Chain, log_B: Array, n: int, rng: np.random.Generator
) -> IntArray:
    """n hidden paths drawn from p(z | x), shape (n, T): filter forward, sample back.

    Cost O(T K² + n T K).

    Raises:
        ValueError: a malformed argument, or data of probability zero.
    """
    chain = check_type("chain", chain, Chain)
    log_B = _check_log_B(log_B, chain.K)
    n, rng = check_whole("n", n, 1), check_rng(rng)
    log_alpha, log_A = log_forward(chain.pi, chain.A, log_B), log_probability(chain.A)
    _check_possible(float(logsumexp(log_alpha[-1], axis=0)))
    z = np.empty((len(log_B), n), dtype=np.int64)
    z[-1] = _sample_columns(np.repeat(log_alpha[-1][:, None], n, axis=1), rng)
    for t in range(len(log_B) - 2, -1, -1):
        weight = log_alpha[t][:, None] + log_A[:, z[t + 1]]  # eq hmm-ffbs
        z[t] = _sample_columns(weight, rng)
    return np.ascontiguousarray(z.T)


def _sample_columns(log_weight: Array, rng: np.random.Generator) -> IntArray:
    """One row index for each column, drawn in proportion to exp(log_weight)."""
    weight = np.exp(log_weight - log_weight.max(axis=0))
    edges = weight.cumsum(axis=0)
    out: IntArray = (edges <= rng.random(weight.shape[1]) * edges[-1]).sum(axis=0)
    return out


# If every A[j, k] ≥ MIXES, a step puts at least MIXES of the mass behind every state.
# Messages of mass LEAST or more then have products of mass LEAST² MIXES, 1e-150, or
# more, and what underflows to zero, less than 1e-158 of that, cannot come back: the
# next step favours no state more than 1 / MIXES.  EVERY steps can shrink a message to
# 1e-120.
MIXES = 1e-30
EVERY = 4
# Where A mixes less, `_smooth_in_one_sweep` raises its entries to FLOOR, which mixes,
# and bounds what that has changed.
FLOOR = 1e-100
# Messages are normalised as seldom as SELDOM while LEAST is kept, else at every step:
# either way their products stay above 1e-230.
SELDOM = 8
LEAST = 1e-60
# From LONG steps on, pieces of the sequence get so many ROUNDS to agree: see `_settle`.
LONG = 1000
ROUNDS = 3
# Numbers in a table that are worked on at a time, so that they stay in the fast cache.
BLOCK = 2**15
# Chunks cost K times the arithmetic and save Python calls: they pay up to about here.
CHUNK_MAX_K = 24
CHUNK_MIN_T = 256


def _smooth_in_logs(chain: Chain, log_B: Array) -> Posterior:
    """`smooth` by the log-space recursions: always exact, never fast."""
    log_alpha = log_forward(chain.pi, chain.A, log_B)
    log_beta = log_backward(chain.A, log_B)
    evidence = float(logsumexp(log_alpha[-1], axis=0))  # eq hmm-evidence-alpha
    _check_possible(evidence)
    # Rounding grows with t, alike in all states: normalising each row removes it.
    log_gamma = log_alpha + log_beta
    gamma = np.exp(log_gamma - logsumexp(log_gamma, axis=1)[:, None])
    log_A, ahead = log_probability(chain.A), log_B + log_beta
    xi_sum = np.zeros_like(chain.A)
    for t in range(len(log_B) - 1):  # the sum alone: all of ξ would need T K² numbers
        log_xi = log_alpha[t][:, None] + log_A + ahead[t + 1]
        xi_sum += np.exp(log_xi - logsumexp(log_xi.ravel(), axis=0))
    return Posterior(evidence, gamma, xi_sum)


def _smooth_in_one_sweep(chain: Chain, log_B: Array, mixes: bool) -> Posterior | None:
    """`smooth` in one sweep over time; None if a state may have been lost to underflow.

    Where A does not mix, it is raised to a matrix that does.  Read each raised entry as
    two ways to move, the true one and an added one: the true posterior is then the
    computed one given that no added way was taken.  How many are taken on average
    bounds the chance that any is, and so what the raising can have changed.
    """
    T, K = log_B.shape
    C = 4 * int(np.sqrt(T) / 11) if T >= LONG else 1  # BLAS likes multiples of four
    steps = -(-T // C) * C
    log_b = np.zeros((steps + 1, K))  # row 0 and rows T.. favour no state
    log_b[1:T] = log_B[1:]
    start, b, log_scale = _scaled_tables(chain, log_B, log_b)
    A = chain.A if mixes else np.maximum(chain.A, FLOOR)
    messages = _sweep_in_pieces(start, A, b, C) if C > 1 else None
    alpha, u, log_mass = messages or _sweep(start, np.ones(K), A, b[1:])
    gamma, pairs = _combine(A, alpha, u, np.arange(steps) < T - 1)
    added = float(((A - chain.A) * pairs).sum())
    if T * added > 1e-12 * min(1.0, float(gamma[:T].sum(axis=0).min())):
        return None
    return Posterior(log_scale + log_mass, gamma[:T], chain.A * pairs)  # eq hmm-xi-sum


def _smooth_in_chunks(chain: Chain, log_B: Array) -> Posterior:
    """`smooth` with the steps cut into chunks that are swept side by side.

    First the K × K matrix of each chunk, which takes the message at its start to
    the one at its end; then a short walk over the chunks; then all chunks at once,
    each from its true ends.  Messages are columns here, one for each chunk.
    """
    T, K = log_B.shape
    L = max(int(0.7 * np.sqrt(T)), EVERY)
    C = T // L + 1
    # Steps added at the end with b = 1 change no message: the rows of A sum to one.
    log_b = np.zeros((C * L, K))
    log_b[: T - 1] = log_B[1:]
    log_b = np.ascontiguousarray(log_b.reshape(C, L, K).transpose(1, 2, 0))
    start, b, log_scale = _scaled_tables(chain, log_B, log_b)
    starts, ends = _walk_over_chunks(start, _chunk_matrices(chain.A, b))
    alpha, u, log_mass = _sweep(starts, ends, chain.A, b)
    real = np.arange(C * L).reshape(C, L).T < T - 1
    gamma, pairs = _combine(chain.A, alpha, u, real)
    gamma = np.ascontiguousarray(gamma.transpose(2, 0, 1)).reshape(-1, K)[:T]
    return Posterior(log_scale + log_mass, gamma, chain.A * pairs)  # eq hmm-xi-sum


def _scaled_tables(
    chain: Chain, log_B: Array, log_b: Array
) -> tuple[Array, Array, float]:
    """Start message of sum 1, emissions with largest entry 1, the log of the scale.

    `log_b` holds log_B[1:] in the layout (L, K, ...) of a sweep, with zeros added where
    there is no step; the emissions overwrite it.
    """
    top = log_b.max(axis=1)
    if top.min() == -np.inf or log_B[0].max() == -np.inf:
        t = int(log_B.max(axis=1).argmin())
        raise ValueError(f"log_B[{t}] is -inf for every state, wants one that is not")
    log_b -= top[:, None]
    b = np.exp(log_b, out=log_b)
    first = log_probability(chain.pi) + log_B[0]
    peak = first.max()
    _check_possible(float(peak))
    start = np.exp(first - peak)
    mass = start.sum()
    return start / mass, b, float(peak + np.log(mass) + top.sum())


def _sweep(start: Array, end: Array, A: Array, b: Array) -> tuple[Array, Array, float]:
    """Both messages along the steps b (L, K, ...), from `start` and `end` (K, ...).

    α (L, K, ...) comes before each step, α[0] = start and α[i+1] ∝ b[i] (α[i] A);
    u (L, K, ...) belongs to the step, u[i] ∝ b[i] β after it, so that β before it is
    A u[i].  Stacked, the two obey one recursion with a block-diagonal matrix: one loop
    serves both.  The third result is the log of the mass that α has gathered at the
    end, log Σ α without any normalising.
    """
    L, K, *columns = b.shape
    both, drive = np.split(_room(2 * L + 1, (2, K, *columns)), [L + 1])
    both[0] = start, b[-1] * end
    drive[:, 0], drive[:-1, 1], drive[-1, 1] = b, b[-2::-1], 1.0
    blocks, sums = np.zeros((2 * K, 2 * K)), np.zeros((2, 2 * K))
    blocks[:K, :K], blocks[K:, K:] = A.T, A
    sums[0, :K] = sums[1, K:] = 1.0
    flat, drive = (x.reshape(len(x), 2 * K, *columns) for x in (both, drive))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        for every in (SELDOM, 1):
            masses = _run(blocks, sums, flat, drive, every)
            # α only ever loses mass and β its largest entry: no message had less.
            if masses.min() >= LEAST:
                break
    return both[:-1, 0], both[-2::-1, 1], float(np.log(masses[:, 0]).sum())


def _run(blocks: Array, sums: Array, flat: Array, drive: Array, every: int) -> Array:
    """Fill flat[i+1] ∝ drive[i] (blocks flat[i]); the masses normalised away, and last.

    Every `every`-th is normalised, each half of it by itself.
    """
    masses, halves = [], (2, -1, *flat.shape[2:])
    for i, (here, there, d) in enumerate(zip(flat, flat[1:], drive, strict=False), 1):
        blocks.dot(here, there)
        np.multiply(there, d, there)
        if i % every == 0:
            masses.append(sums.dot(there))
            pair = there.reshape(halves)
            np.divide(pair, masses[-1][:, None], pair)
    masses.append(sums.dot(flat[-1]))
    return np.array(masses)


def _room(n: int, shape: tuple[int, ...]) -> Array:
    """n uninitialised tables in one block, with as much room again behind them.

    The C library's allocator keeps freed memory by the size of the largest block it has
    seen.  Several tables of middling size it hands back to the system, and to have them
    faulted in again at each call costs as much as the sweep.  Room that nothing touches
    costs nothing.
    """
    return np.empty((2 * n, *shape))[:n]


def _sweep_in_pieces(
    start: Array, A: Array, b: Array, C: int
) -> tuple[Array, Array, float] | None:
    """As `_sweep`, in C pieces side by side; None if they do not come to agree.

    Here b (steps + 1, K) is for time steps rather than for moves, b[0] and b[-1] ones.
    """
    pieces = (C, -1, len(A))
    alpha, u = _room(2, b[1:].shape)
    log_mass = _settle(A, start, b[1:].reshape(pieces), alpha.reshape(pieces))
    if log_mass is None:
        return None
    back = (x[::-1].reshape(pieces) for x in (b[:-1], u))
    return None if _settle(A.T, b[-1], *back) is None else (alpha, u, log_mass)


def _settle(move: Array, first: Array, drive: Array, x: Array) -> float | None:
    """Fill x[t+1] ∝ drive[t] (x[t] move), x[0] = first; the log of the mass.

    The tables come in pieces, (C, L, K), that are pushed side by side, each from where
    the one before it ended in the last round; a round without news ends this.  Then all
    are right, for no step enlarges the largest ratio between two messages.  A chain
    that forgets within L steps settles in two or three rounds; otherwise None.
    """
    C, _, K = x.shape
    starts = np.full((C, K), 1.0 / K)
    starts[0] = first / first.sum()
    for _ in range(ROUNDS):
        x[:, 0] = starts
        ends, masses = _push(move, drive, x)
        if not masses.min() >= LEAST:
            return None
        if (np.abs(ends[:-1] - starts[1:]) <= 1e-14 * starts[1:]).all():
            return float(np.log(masses).sum())
        starts[1:] = ends[:-1]
    return None


def _push(move: Array, drive: Array, x: Array) -> tuple[Array, Array]:
    """Fill x (C, L, K) from x[:, 0]; ends of mass 1, and the masses normalised away."""
    C, L, K = x.shape
    last, moved, ones = np.empty((C, K)), np.empty((C, K)), np.ones(K)
    rows, masses = [*x.swapaxes(0, 1), last], []
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        for i, d in enumerate(drive.swapaxes(0, 1), 1):
            rows[i - 1].dot(move, moved)
            np.multiply(moved, d, rows[i])
            if i % SELDOM == 0 or i == L:
                masses.append(rows[i].dot(ones))
                rows[i] /= masses[-1][:, None]
    return last, np.array(masses)


def _combine(A: Array, alpha: Array, u: Array, real: BoolArray) -> tuple[Array, Array]:
    """γ before each step, (L, K, ...), and Σ ξ / A over the steps that are `real`.

    Overwrites `alpha`.
    """
    gamma = np.matmul(A, u) if u.ndim == 3 else u @ A.T
    gamma *= alpha
    total = 1.0 / gamma.sum(axis=1)
    gamma *= total[:, None]
    total *= real
    alpha *= total[:, None]
    if u.ndim == 2:
        return gamma, alpha.T @ u
    return gamma, np.matmul(alpha, u.swapaxes(1, 2)).sum(axis=0)


def _chunk_matrices(A: Array, b: Array) -> Array:
    """For each chunk of b (L, K, C) the product of its A diag(b), largest entry 1.

    The result is (C, K, K): entry [c, j, k] leads from j before the chunk to k at its
    end.
    """
    _, K, C = b.shape
    into = np.ascontiguousarray(A.T)
    product = into[:, :, None] * b[0][:, None]  # [k, j, c]: one GEMM moves them all
    work = np.empty_like(product)
    flat, moved = product.reshape(K, K * C), work.reshape(K, K * C)
    for i, b_i in enumerate(b[1:, :, None], 2):
        into.dot(flat, moved)
        np.multiply(work, b_i, product)
        if i % EVERY == 0 or i == len(b):
            product /= product.max(axis=(0, 1))
    return np.ascontiguousarray(product.transpose(2, 1, 0))


def _walk_over_chunks(start: Array, transfer: Array) -> tuple[Array, Array]:
    """Forward messages at the chunks' starts, backward ones at their ends: (K, C).

    The rows of a transfer matrix differ at most MIXES-fold and its largest entry is 1,
    so a message shrinks at most MIXES²-fold a chunk: EVERY such stay within doubles.
    """
    starts, ends = np.ones((2, *transfer.shape[:2]))
    starts[0] = start
    for x, moves in ((starts, transfer.swapaxes(1, 2)), (ends[::-1], transfer[::-1])):
        for i, (here, there, move) in enumerate(zip(x, x[1:], moves, strict=False), 1):
            move.dot(here, there)
            if i % EVERY == 0:
                there /= there.sum()
        x /= x.sum(axis=1, keepdims=True)
    return np.ascontiguousarray(starts.T), np.ascontiguousarray(ends.T)


# ------------------------------------------------------------ emissions


class Emissions(Protocol):
    """What learning needs of an emission model: K states, immutable."""

    @property
    def K(self) -> int:
        """Number of states."""

    @property
    def n_parameters(self) -> int:
        """Number of free parameters."""

    def log_likelihood(self, x: Array) -> Array:
        """log p(xₜ | zₜ = k), shape (T, K)."""

    def m_step(self, x: Array, gamma: Array) -> Self:
        """The parameters that maximise Σ γ[t, k] log p(xₜ | zₜ = k)."""

    def sample(self, z: IntArray, rng: np.random.Generator) -> Array:
        """One observation for each state of the path z."""

    def take(self, order: IntArray) -> Self:
        """The same emissions with the states in another order."""


@dataclass(frozen=True, slots=True)
class Poisson:
    """Counts: x ~ Poisson(rate[k]), rate in events a time bin, shape (K,).

    Raises:
        ValueError: a rate that is negative, not finite, or beyond the largest count.
    """

    rate: Array

    def __post_init__(self) -> None:
        rate = check_array("rate", self.rate, ("K",), low=0.0, high=LARGEST_WHOLE)
        object.__setattr__(self, "rate", rate.copy())

    @property
    def K(self) -> int:
        """Number of states."""
        return len(self.rate)

    @property
    def n_parameters(self) -> int:
        """One rate a state."""
        return self.K

    def log_likelihood(self, x: Array) -> Array:
        """x log λ − λ − log x!, shape (T, K).  Cost O(T K).

        Raises:
            ValueError: `x` (T,) is not counts.
        """
        n = check_counts("x", x, ("T",))
        table = xlogy(n[:, None], self.rate) - self.rate  # xlogy: 0 log 0 is 0
        out: Array = table - gammaln(n + 1.0)[:, None]  # eq hmm-poisson
        return out

    def m_step(self, x: Array, gamma: Array) -> Poisson:
        """Each rate becomes the mean count, weighted by γ.  Cost O(T K).

        Raises:
            ValueError: `x` (T,) is not counts, or `gamma` no (T, K) posterior.
        """
        n = check_counts("x", x, ("T",))
        gamma = check_simplex("gamma", gamma, (len(n), self.K))
        weight = gamma.sum(axis=0)
        rate = _ratio(n @ gamma, weight, self.rate)  # eq hmm-m-poisson
        return Poisson(rate)

    def sample(self, z: IntArray, rng: np.random.Generator) -> Array:
        """One count for each state of the path z, shape (T,).

        Raises:
            ValueError: `z` is no path, or `rng` no Generator.
        """
        z, rng = _check_path(z, self.K), check_rng(rng)
        return rng.poisson(self.rate[z]).astype(float)

    def take(self, order: IntArray) -> Poisson:
        """The same rates in another order.

        Raises:
            ValueError: `order` is no permutation of the states.
        """
        return Poisson(self.rate[_check_order(order, self.K)])


@dataclass(frozen=True, slots=True)
class Categorical:
    """Symbols 0..M−1: p(x = m | z = k) = prob[k, m], shape (K, M).

    Raises:
        ValueError: a row that is no probability distribution.
    """

    prob: Array

    def __post_init__(self) -> None:
        prob = check_simplex("prob", self.prob, ("K", "M"))
        object.__setattr__(self, "prob", prob.copy())

    @property
    def K(self) -> int:
        """Number of states."""
        return len(self.prob)

    @property
    def n_parameters(self) -> int:
        """M − 1 free probabilities a state."""
        return self.prob.size - self.K

    def log_likelihood(self, x: Array) -> Array:
        """log prob[k, xₜ], shape (T, K).  Cost O(T K).

        Raises:
            ValueError: `x` (T,) holds anything but symbols 0..M−1.
        """
        table: Array = log_probability(self.prob).T
        return table[_check_symbols(x, self.prob.shape[1])]  # eq hmm-categorical

    def m_step(self, x: Array, gamma: Array) -> Categorical:
        """Each probability becomes the share of γ that saw the symbol.  Cost O(T K).

        Raises:
            ValueError: `x` (T,) is not symbols, or `gamma` no (T, K) posterior.
        """
        M = self.prob.shape[1]
        symbols = _check_symbols(x, M)
        gamma = check_simplex("gamma", gamma, (len(symbols), self.K))
        seen: Array = np.stack([np.bincount(symbols, g, M) for g in gamma.T])
        total: Array = seen.sum(axis=1, keepdims=True)
        return Categorical(_ratio(seen, total, self.prob))  # eq hmm-m-categorical

    def sample(self, z: IntArray, rng: np.random.Generator) -> Array:
        """One symbol for each state of the path z, shape (T,).

        Raises:
            ValueError: `z` is no path, or `rng` no Generator.
        """
        z, rng = _check_path(z, self.K), check_rng(rng)
        edges = self.prob.cumsum(axis=1)
        u = rng.random((len(z), 1)) * edges[z, -1:]
        symbols: Array = (edges[z] <= u).sum(axis=1).astype(np.float64)
        return symbols

    def take(self, order: IntArray) -> Categorical:
        """The same distributions in another order.

        Raises:
            ValueError: `order` is no permutation of the states.
        """
        return Categorical(self.prob[_check_order(order, self.K)])


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Vectors: x ~ Normal(mean[k], cov[k]), shapes (K, D) and (K, D, D).

    `jitter` (units of x²) is added to the diagonal of every covariance that `m_step`
    estimates; the default 0 is maximum likelihood.

    Raises:
        ValueError: a malformed argument, or a covariance that is not positive definite.
    """

    mean: Array
    cov: Array
    jitter: float = 0.0

    def __post_init__(self) -> None:
        mean = _check_points("mean", self.mean, ("K", "D"))
        square = (*mean.shape, mean.shape[1])
        cov = check_array("cov", self.cov, square, low=-HUGE, high=HUGE)
        if not np.allclose(cov, cov.swapaxes(1, 2), rtol=1e-8, atol=0):
            raise ValueError("cov is not symmetric in each state, wants it to be")
        for name, value in (("mean", mean), ("cov", cov)):
            object.__setattr__(self, name, value.copy())
        jitter = check_scalar("jitter", self.jitter, 0.0, HUGE)
        object.__setattr__(self, "jitter", jitter)
        self._cholesky()  # refuses a covariance that is not positive definite

    @property
    def K(self) -> int:
        """Number of states."""
        return len(self.mean)

    @property
    def n_parameters(self) -> int:
        """D means and D (D + 1) / 2 covariances a state."""
        D = int(self.mean.shape[1])
        return self.K * (D + D * (D + 1) // 2)

    def _cholesky(self) -> Array:
        try:
            return np.asarray(np.linalg.cholesky(self.cov), dtype=np.float64)
        except np.linalg.LinAlgError:
            raise ValueError(
                "cov is not positive definite in each state, wants it to be; "
                "if this came while learning, a state has collapsed onto too few "
                "points: raise jitter"
            ) from None

    def log_likelihood(self, x: Array) -> Array:
        """log Normal(xₜ; μₖ, Σₖ), shape (T, K).  Cost O(T K D²).

        Raises:
            ValueError: `x` is not (T, D), or (T,) where D is one.
        """
        K, D = self.mean.shape
        x = self._check_x(x)
        chol = self._cholesky()
        log_det = np.log(np.diagonal(chol, axis1=1, axis2=2)).sum(axis=1)
        constant = (-0.5 * D * np.log(2 * np.pi) - log_det)[:, None]
        # y = L⁻¹ (x − μ) / √2 has the square ½ (x − μ)ᵀ Σ⁻¹ (x − μ).  One product makes
        # it for all states; x and μ may lie far from zero: a common centre goes first.
        whiten = np.linalg.solve(chol, np.sqrt(0.5) * np.eye(D)).swapaxes(0, 1)
        _check_reach(x, self.mean, whiten)
        centre = self.mean.mean(axis=0)
        shift = np.einsum("ikj,kj->ik", whiten, self.mean - centre).reshape(-1, 1)
        whiten = whiten.reshape(D * K, D)
        columns = x.T - centre[:, None]
        out, size = np.empty((len(x), K)), max(BLOCK // (D * K), 1)
        for rows in (slice(t, t + size) for t in range(0, len(x), size)):
            y = whiten @ columns[:, rows]
            y -= shift
            y *= y
            squares = y.reshape(D, K, -1).sum(axis=0)
            np.subtract(constant, squares, out=out[rows].T)  # eq hmm-gaussian
        return out

    def m_step(self, x: Array, gamma: Array) -> Gaussian:
        """Means and covariances weighted by γ.  Cost O(T K D²).

        Raises:
            ValueError: a malformed argument, or a state that collapsed onto too few
                points for a covariance.
        """
        x = self._check_x(x)
        gamma = check_simplex("gamma", gamma, (len(x), self.K))
        weight = gamma.sum(axis=0)
        mean = _ratio(gamma.T @ x, weight[:, None], self.mean)  # eq hmm-m-mean
        cov, columns = np.empty_like(self.cov), np.ascontiguousarray(x.T)
        for k, share in enumerate(np.ascontiguousarray(gamma.T)):
            apart = columns - mean[k][:, None]  # no difference of large numbers later
            cov[k] = (apart * share) @ apart.T  # eq hmm-m-cov
        weight = weight[:, None, None]  # jitter goes with it: no weight, no change
        cov += weight * self.jitter * np.eye(mean.shape[1])
        cov = _ratio(cov, weight, self.cov)
        return replace(self, mean=mean, cov=(cov + cov.swapaxes(1, 2)) / 2)

    def sample(self, z: IntArray, rng: np.random.Generator) -> Array:
        """One vector for each state of the path z, shape (T, D).

        Raises:
            ValueError: `z` is no path, or `rng` no Generator.
        """
        z, rng = _check_path(z, self.K), check_rng(rng)
        noise = rng.standard_normal((len(z), self.mean.shape[1]))
        out: Array = self.mean[z] + np.einsum("tij,tj->ti", self._cholesky()[z], noise)
        return out

    def take(self, order: IntArray) -> Gaussian:
        """The same Gaussians in another order.

        Raises:
            ValueError: `order` is no permutation of the states.
        """
        order = _check_order(order, self.K)
        return replace(self, mean=self.mean[order], cov=self.cov[order])

    def _check_x(self, x: Array) -> Array:
        D = self.mean.shape[1]
        if D == 1 and np.ndim(x) == 1:
            return _check_points("x", x, ("T",))[:, None]
        return _check_points("x", x, ("T", D))


# ------------------------------------------------------------ learning


@dataclass(frozen=True, slots=True)
class HMM:
    """A hidden chain and what its states emit.

    Raises:
        ValueError: they differ in the number of states.
    """

    chain: Chain
    emissions: Emissions

    def __post_init__(self) -> None:
        check_type("chain", self.chain, Chain)
        if not all(hasattr(self.emissions, has) for has in ("K", "log_likelihood")):
            raise ValueError(
                f"emissions is {self.emissions!r}, wants Poisson(...) or so"
            )
        if self.emissions.K != self.chain.K:
            raise ValueError(
                f"emissions has {self.emissions.K} states, chain has {self.chain.K}, "
                "want as many"
            )

    @property
    def n_parameters(self) -> int:
        """Number of free parameters, K² − 1 of the chain and those of the emissions."""
        K = self.chain.K
        return K * K - 1 + self.emissions.n_parameters


@dataclass(frozen=True, slots=True)
class EMResult:
    """What `em` found: the model, log p(x) at each step, and whether it settled."""

    model: HMM
    log_evidence: Array
    converged: bool


def em_step(
    model: HMM, sequences: Sequence[Array], observed: Sequence[BoolArray] | None = None
) -> tuple[HMM, float]:
    """One step of EM: the improved model, and log p(x) of the model that came in.

    `sequences` are independent recordings of the same model; `observed` holds a mask
    (T,) for each, False where the observation is missing (its value is not used).
    What the data say nothing about keeps its value.  Cost O(Σ T K²).

    Raises:
        ValueError: a malformed argument, impossible data, or a state that died.
    """
    model = check_type("model", model, HMM)
    sequences, observed = _check_sequences(sequences, observed)
    posts = _smooth_each(model, sequences, observed)
    first = np.sum([post.gamma[0] for post in posts], axis=0)
    moves = np.sum([post.xi_sum for post in posts], axis=0)
    A = _ratio(moves, moves.sum(axis=1, keepdims=True), model.chain.A)  # eq hmm-m-A
    chain = Chain(first / first.sum(), A)  # eq hmm-m-pi
    gamma = np.vstack([p.gamma[s] for p, s in zip(posts, observed, strict=True)])
    x = np.concatenate([x[s] for x, s in zip(sequences, observed, strict=True)])
    emissions = model.emissions.m_step(x, gamma) if len(x) else model.emissions
    return HMM(chain, emissions), float(sum(post.log_evidence for post in posts))


def em(
    model: HMM,
    sequences: Sequence[Array],
    n_iter: int = 100,
    tol: float = 1e-6,
    observed: Sequence[BoolArray] | None = None,
) -> EMResult:
    """Maximum likelihood by EM from `model`; stops when log p(x) gains less than `tol`.

    Raises:
        ValueError: as `em_step`, or `n_iter` below one, or `tol` negative.
    """
    n_iter, tol = check_whole("n_iter", n_iter, 1), check_scalar("tol", tol, 0.0)
    history: list[float] = []
    for _ in range(n_iter):
        better, log_p = em_step(model, sequences, observed)
        history.append(log_p)
        if len(history) > 1 and history[-1] - history[-2] < tol:
            return EMResult(model, np.array(history), True)
        model = better
    history.append(total_log_evidence(model, sequences, observed))
    return EMResult(model, np.array(history), False)


def total_log_evidence(
    model: HMM, sequences: Sequence[Array], observed: Sequence[BoolArray] | None = None
) -> float:
    """Log p of several independent sequences under one model.  Cost O(Σ T K²).

    Raises:
        ValueError: a malformed argument, or data of probability zero.
    """
    model = check_type("model", model, HMM)
    sequences, observed = _check_sequences(sequences, observed)
    posts = _smooth_each(model, sequences, observed)
    return float(sum(post.log_evidence for post in posts))


def reorder(model: HMM, order: Sequence[int]) -> HMM:
    """The same model with its states renamed: new state i is old state order[i].

    Raises:
        ValueError: `order` is no permutation of the states.
    """
    index = _check_order(order, check_type("model", model, HMM).chain.K)
    chain = Chain(model.chain.pi[index], model.chain.A[np.ix_(index, index)])
    return HMM(chain, model.emissions.take(index))


def aic(log_evidence: float, n_parameters: int) -> float:
    """Akaike's criterion, 2 p − 2 log p(x): smaller is better.

    Raises:
        ValueError: a malformed argument.
    """
    log_p = check_scalar("log_evidence", log_evidence)
    return (
        2.0 * check_whole("n_parameters", n_parameters, 0) - 2.0 * log_p
    )  # eq hmm-aic


def bic(log_evidence: float, n_parameters: int, n: int) -> float:
    """Bayesian information criterion, p log n − 2 log p(x): smaller is better.

    Raises:
        ValueError: a malformed argument.
    """
    log_p, n = check_scalar("log_evidence", log_evidence), check_whole("n", n, 1)
    p = check_whole("n_parameters", n_parameters, 0)
    return float(p * np.log(n) - 2.0 * log_p)  # eq hmm-bic


# ------------------------------------------------------------ checks at the door


def _check_chain(pi: Array, A: Array) -> tuple[Array, Array]:
    pi = check_simplex("pi", pi, ("K",))
    return pi, check_simplex("A", A, (len(pi), len(pi)))


def _check_tables(pi: Array, A: Array, B: Array) -> tuple[Array, Array, Array]:
    pi, A = _check_chain(pi, A)
    return pi, A, check_array("B", B, ("T", len(pi)), low=0.0, high=HUGE)


def _check_scaled(A: Array, B: Array, c: Array) -> tuple[Array, Array, Array]:
    A = check_simplex("A", A, ("K", "K"))
    B = check_array("B", B, ("T", len(A)), low=0.0, high=HUGE)
    return A, B, check_array("c", c, (len(B),), low=TINY)


def _check_growth(B: Array) -> None:
    """No message exceeds the product of the largest entries of B so far."""
    size = log_probability(B.max(axis=1)).cumsum().max() / np.log(10)
    if size > np.log10(HUGE):
        raise ValueError(
            f"B multiplies up to 1e{size:.0f}, wants {HUGE:g} at most: "
            "divide its rows by their largest entries, or call `forward`"
        )


def _check_posteriors(gamma: Array, xi: Array) -> None:
    for total in (gamma.sum(axis=1), xi.sum(axis=(1, 2))):
        if not np.allclose(total, 1.0, rtol=0, atol=1e-5):
            raise ValueError(
                "alpha, beta and c do not belong to A and B: they give posteriors that "
                f"sum to {total.min():g} to {total.max():g}, want 1"
            )


def _check_log_B(log_B: Array, K: int) -> Array:
    shape = ("T", K)
    return check_array("log_B", log_B, shape, low=-HUGE, high=HUGE, allow=(-np.inf,))


def _check_possible(log_evidence: float) -> None:
    if log_evidence == -np.inf:
        raise ValueError("log_B leaves no path of positive probability, wants one")


def _check_points(name: str, x: Array, shape: tuple[int | str, ...]) -> Array:
    return check_array(name, x, shape, low=-ROOT_HUGE, high=ROOT_HUGE)


def _check_reach(x: Array, mean: Array, whiten: Array) -> None:
    """The squares of whitened differences stay finite."""
    far = float(np.abs(x).max()) + float(np.abs(mean).max())
    if not far * float(np.abs(whiten).max()) * x.shape[1] <= ROOT_HUGE:
        raise ValueError(
            f"x lies up to {far:g} from a mean, wants less than {ROOT_HUGE:g} standard "
            "deviations"
        )


def _check_path(z: IntArray, K: int) -> IntArray:
    z = check_counts("z", z, ("T",))
    if z.max() >= K:
        raise ValueError(f"z holds state {z.max()}, wants states 0 to {K - 1}")
    return z


def _check_symbols(x: Array, M: int) -> IntArray:
    symbols = check_counts("x", x, ("T",))
    if symbols.max() >= M:
        raise ValueError(f"x holds symbol {symbols.max()}, wants symbols 0 to {M - 1}")
    return symbols


def _check_order(order: Sequence[int] | IntArray, K: int) -> IntArray:
    index = check_counts("order", order, (K,))
    if set(index.tolist()) != set(range(K)):
        raise ValueError(f"order is {index.tolist()}, wants each of 0 to {K - 1} once")
    return index


def _check_sequences(
    sequences: Sequence[Array], observed: Sequence[BoolArray] | None
) -> tuple[list[Array], list[BoolArray]]:
    arrays = [
        check_real(f"sequences[{i}]", x)
        for i, x in enumerate(check_list("sequences", sequences))
    ]
    for i, x in enumerate(arrays):
        if x.ndim == 0 or len(x) == 0:
            raise ValueError(f"sequences[{i}] has shape {x.shape}, wants T ≥ 1 rows")
        if x.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(
                f"sequences[{i}] has shape {x.shape}, sequences[0] "
                f"{arrays[0].shape}, want rows of one shape"
            )
    if observed is None:
        return arrays, [np.ones(len(x), dtype=bool) for x in arrays]
    masks = check_list("observed", observed)
    if len(masks) != len(arrays):
        raise ValueError(f"observed holds {len(masks)} masks, wants {len(arrays)}")
    return arrays, [
        check_mask(f"observed[{i}]", mask, (len(x),))
        for i, (mask, x) in enumerate(zip(masks, arrays, strict=True))
    ]


def _smooth_each(
    model: HMM, sequences: list[Array], observed: list[BoolArray]
) -> list[Posterior]:
    posts = []
    for i, (x, seen) in enumerate(zip(sequences, observed, strict=True)):
        try:
            posts.append(smooth(model.chain, _log_table(model.emissions, x, seen)))
        except ValueError as error:  # it names x or log_B, which the caller has not got
            raise ValueError(f"sequences[{i}]: {error}") from error
    return posts


def _log_table(emissions: Emissions, x: Array, seen: BoolArray) -> Array:
    """log p(xₜ | zₜ = k), 0 where xₜ was not seen: it favours no state."""
    if seen.all():
        return emissions.log_likelihood(x)
    log_B = np.zeros((len(x), emissions.K))
    if seen.any():
        table = emissions.log_likelihood(x[seen])
        want = (int(seen.sum()), emissions.K)
        if np.shape(table) != want:  # it might fit by being repeated
            raise ValueError(
                f"emissions.log_likelihood has shape {np.shape(table)}, wants {want}"
            )
        log_B[seen] = table  # eq hmm-missing
    return log_B


def _ratio(top: Array, weight: Array, old: Array) -> Array:
    """top / weight, and `old` where the weight is zero: the data say nothing there."""
    some = weight > 0
    out: Array = np.where(some, top / np.where(some, weight, 1.0), old)
    return out
