"""The coding evening of the hidden-Markov-model chapter.

Chapter: book/hidden-markov-models/coding.md.  Symbols as in `mlfs.hmm`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mlfs import hmm
from mlfs.book.exercise import Case, Exercise, Law, Mistake
from mlfs.core import data
from mlfs.core.numerics import Array, IntArray

Rng = np.random.Generator
Messages = tuple[Array, Array]
PoissonParameters = tuple[Array, Array, Array]


# ------------------------------------------------------------ cases


def _problem(rng: Rng, K: int, T: int) -> dict[str, Array]:
    """A random chain and the emission probabilities of random counts."""
    rate = np.sort(rng.uniform(0.5, 8.0, K))
    x = rng.poisson(rate[rng.integers(0, K, T)])
    return {
        "pi": rng.dirichlet(np.ones(K)),
        "A": rng.dirichlet(np.ones(K), K),
        "B": np.exp(hmm.Poisson(rate).log_likelihood(x.astype(float))),
    }


def _problems(rng: Rng) -> Iterator[tuple[str, dict[str, Array]]]:
    yield "two states, four steps", _problem(rng, 2, 4)
    yield "three states, seven steps", _problem(rng, 3, 7)
    yield "a single step", _problem(rng, 2, 1)
    certain = _problem(rng, 3, 6)
    certain["pi"] = np.array([0.0, 1.0, 0.0])
    yield "the first state is known", certain


def _messages(problem: dict[str, Array]) -> dict[str, Array]:
    alpha, c = hmm.forward(**problem)
    beta = hmm.backward(problem["A"], problem["B"], c)
    return {"alpha": alpha, "beta": beta, "c": c}


def _probability_cases(rng: Rng) -> Iterator[Case]:
    for note, problem in _problems(rng):
        yield Case(problem, note)


def _forward_cases(rng: Rng) -> Iterator[Case]:
    yield from _probability_cases(rng)
    yield Case(_problem(rng, 2, 3000), "3000 steps: plain probabilities underflow")


def _backward_cases(rng: Rng) -> Iterator[Case]:
    for note, problem in _problems(rng):
        c = _messages(problem)["c"]
        yield Case({"A": problem["A"], "B": problem["B"], "c": c}, note)


def _posterior_cases(rng: Rng) -> Iterator[Case]:
    for note, problem in _problems(rng):
        found = _messages(problem)
        yield Case(
            {
                "alpha": found["alpha"],
                "beta": found["beta"],
                "A": problem["A"],
                "B": problem["B"],
                "c": found["c"],
            },
            note,
        )


def _viterbi_cases(rng: Rng) -> Iterator[Case]:
    for K, T, note in (
        (2, 5, "two states, five steps"),
        (3, 40, "three states, forty steps"),
        (2, 1, "a single step"),
        (2, 2000, "2000 steps: products of probabilities underflow"),
    ):
        problem = _problem(rng, K, T)
        sticky = 0.6 * np.eye(K) + 0.4 * problem["A"]
        log_B = np.log(problem["B"]) + rng.normal(scale=0.1, size=(T, K))  # no ties
        yield Case({"pi": problem["pi"], "A": sticky, "log_B": log_B}, note)


def _m_step_cases(rng: Rng) -> Iterator[Case]:
    for K, T in ((2, 5), (3, 30)):
        problem = _problem(rng, K, T)
        found = _messages(problem)
        gamma, xi = hmm.posteriors(
            found["alpha"], found["beta"], problem["A"], problem["B"], found["c"]
        )
        x = rng.poisson(4.0, T).astype(float)
        yield Case({"x": x, "gamma": gamma, "xi": xi}, f"{K} states, {T} bins")


def _em_cases(rng: Rng) -> Iterator[Case]:
    for K, T, n_iter in ((2, 60, 1), (2, 60, 8), (3, 120, 5)):
        rate = np.linspace(1.0, 9.0, K)
        chain = hmm.Chain(np.ones(K) / K, 0.8 * np.eye(K) + 0.2 / K)
        x = hmm.Poisson(rate).sample(hmm.simulate(chain, T, rng), rng)
        start = {
            "pi": rng.dirichlet(np.ones(K)),
            "A": rng.dirichlet(np.ones(K), K),
            "rate": np.sort(rng.uniform(1.0, 8.0, K)),
        }
        note = f"{K} states, n_iter = {n_iter}"
        yield Case({"x": x, **start, "n_iter": n_iter}, note)


def _earthquake_cases(rng: Rng) -> Iterator[Case]:
    x = data.load("earthquakes")["count"]
    for K in (1, 2, 3, 4, 4):
        seed = int(rng.integers(1000))
        yield Case({"x": x, "K": K, "rng": seed}, f"the earthquakes, K = {K}")


# ------------------------------------------------------------ what is asked


def poisson_m_step(x: Array, gamma: Array, xi: Array) -> PoissonParameters:
    """The π, A and Poisson rates that expected counts ask for.

    x (T,), gamma (T, K), xi (T-1, K, K); returns pi (K,), A (K, K), rate (K,).
    """
    moves = xi.sum(axis=0)
    A = moves / moves.sum(axis=1, keepdims=True)
    rate = x @ gamma / gamma.sum(axis=0)
    return gamma[0], A, rate


def em(
    x: Array, pi: Array, A: Array, rate: Array, n_iter: int
) -> tuple[Array, Array, Array, Array]:
    """Pi, A and rates after `n_iter` steps of EM, and log p(x) before each step."""
    log_p = np.empty(n_iter)
    for i in range(n_iter):
        B = np.exp(hmm.Poisson(rate).log_likelihood(x))
        alpha, c = hmm.forward(pi, A, B)
        gamma, xi = hmm.posteriors(alpha, hmm.backward(A, B, c), A, B, c)
        log_p[i] = np.log(c).sum()
        pi, A, rate = poisson_m_step(x, gamma, xi)
    return pi, A, rate, log_p


def transitions(gamma: Array, xi: Array) -> Array:
    """The transition matrix (K, K) that the posteriors of all steps ask for.

    gamma (T, K), xi (T-1, K, K).  The singles are not needed: pairs count moves.
    """
    moves = xi.sum(axis=0)
    A: Array = moves / moves.sum(axis=1, keepdims=True)
    return A


def fit_poisson(x: Array, K: int, rng: Rng) -> PoissonParameters:
    """The best π, A and rates that several runs of EM find."""
    best = -np.inf
    found: PoissonParameters
    for _ in range(8):
        A = 0.8 * np.eye(K) + 0.2 / K
        rate = rng.uniform(x.min(), x.max(), K)
        start = hmm.HMM(hmm.Chain(np.ones(K) / K, A), hmm.Poisson(rate))
        end = hmm.em(start, [x], n_iter=300, tol=1e-5)
        if end.log_evidence[-1] > best:
            best, model = end.log_evidence[-1], end.model
            assert isinstance(model.emissions, hmm.Poisson)
            found = model.chain.pi, model.chain.A, model.emissions.rate
    return found


# ------------------------------------------------------------ plausible mistakes


def _turned(pi: Array, A: Array, B: Array) -> Array:
    alpha = np.empty_like(B)
    alpha[0] = pi * B[0]
    for t in range(1, len(B)):
        alpha[t] = (A @ alpha[t - 1]) * B[t]
    return alpha


def _without_pi(pi: Array, A: Array, B: Array) -> Array:
    return hmm.forward_probabilities(pi, A, B) if len(pi) == 1 else _chain(B[0], A, B)


def _without_first_emission(pi: Array, A: Array, B: Array) -> Array:
    return _chain(pi, A, B)


def _chain(first: Array, A: Array, B: Array) -> Array:
    alpha = np.empty_like(B)
    alpha[0] = first
    for t in range(1, len(B)):
        alpha[t] = (alpha[t - 1] @ A) * B[t]
    return alpha


def _emission_of_the_step_before(pi: Array, A: Array, B: Array) -> Array:
    alpha = np.empty_like(B)
    alpha[0] = pi * B[0]
    for t in range(1, len(B)):
        alpha[t] = (alpha[t - 1] @ A) * B[t - 1]
    return alpha


def _already_scaled(pi: Array, A: Array, B: Array) -> Array:
    return hmm.forward(pi, A, B)[0]


def _scaled_turned(pi: Array, A: Array, B: Array) -> Messages:
    alpha, c = np.empty_like(B), np.empty(len(B))
    for t in range(len(B)):
        joint = (pi if t == 0 else A @ alpha[t - 1]) * B[t]
        c[t] = joint.sum()
        alpha[t] = joint / c[t]
    return alpha, c


def _pi_moved_first(pi: Array, A: Array, B: Array) -> Messages:
    return hmm.forward(pi @ A, A, B)


def _log_scales(pi: Array, A: Array, B: Array) -> Messages:
    alpha, c = hmm.forward(pi, A, B)
    return alpha, np.log(c)


def _inverse_scales(pi: Array, A: Array, B: Array) -> Messages:
    alpha, c = hmm.forward(pi, A, B)
    return alpha, 1.0 / c


def _divided_by_the_largest(pi: Array, A: Array, B: Array) -> Messages:
    alpha, c = np.empty_like(B), np.empty(len(B))
    for t in range(len(B)):
        joint = (pi if t == 0 else alpha[t - 1] @ A) * B[t]
        c[t] = joint.max()
        alpha[t] = joint / c[t]
    return alpha, c


def _scaled_afterwards(pi: Array, A: Array, B: Array) -> Messages:
    alpha = hmm.forward_probabilities(pi, A, B)
    total = alpha.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        c = total / np.append(1.0, total[:-1])
        return alpha / total[:, None], c


def _backward_turned(A: Array, B: Array, c: Array) -> Array:
    beta = np.ones_like(B)
    for t in range(len(B) - 2, -1, -1):
        beta[t] = (B[t + 1] * beta[t + 1]) @ A / c[t + 1]
    return beta


def _emission_of_this_step(A: Array, B: Array, c: Array) -> Array:
    beta = np.ones_like(B)
    for t in range(len(B) - 2, -1, -1):
        beta[t] = A @ (B[t] * beta[t + 1]) / c[t + 1]
    return beta


def _scale_of_this_step(A: Array, B: Array, c: Array) -> Array:
    beta = np.ones_like(B)
    for t in range(len(B) - 2, -1, -1):
        beta[t] = A @ (B[t + 1] * beta[t + 1]) / c[t]
    return beta


def _rows_normalised(A: Array, B: Array, c: Array) -> Array:
    beta = hmm.backward(A, B, c)
    out: Array = beta / beta.sum(axis=1, keepdims=True)
    return out


def _starts_at_one_over_K(A: Array, B: Array, c: Array) -> Array:
    return hmm.backward(A, B, c) / len(A)


def _not_scaled(A: Array, B: Array, c: Array) -> Array:
    return hmm.backward(A, B, np.ones_like(c))


def _marginals_multiplied(
    alpha: Array, beta: Array, A: Array, B: Array, c: Array
) -> Messages:
    gamma = alpha * beta
    return gamma, gamma[:-1, :, None] * gamma[1:, None, :]


def _xi_not_scaled(alpha: Array, beta: Array, A: Array, B: Array, c: Array) -> Messages:
    gamma, xi = hmm.posteriors(alpha, beta, A, B, c)
    return gamma, xi * c[1:, None, None]


def _xi_turned(alpha: Array, beta: Array, A: Array, B: Array, c: Array) -> Messages:
    gamma, xi = hmm.posteriors(alpha, beta, A, B, c)
    return gamma, xi.swapaxes(1, 2)


def _xi_with_this_emission(
    alpha: Array, beta: Array, A: Array, B: Array, c: Array
) -> Messages:
    ahead = (B[:-1] * beta[1:]) / c[1:, None]
    return alpha * beta, alpha[:-1, :, None] * A * ahead[:, None, :]


def _filtered_for_smoothed(
    alpha: Array, beta: Array, A: Array, B: Array, c: Array
) -> Messages:
    _, xi = hmm.posteriors(alpha, beta, A, B, c)
    return alpha, xi


def _log_messages(pi: Array, A: Array, log_B: Array) -> tuple[Array, Array]:
    with np.errstate(divide="ignore"):
        log_pi, log_A = np.log(pi), np.log(A)
    delta = np.empty_like(log_B)
    delta[0] = log_pi + log_B[0]
    for t in range(1, len(log_B)):
        delta[t] = (delta[t - 1][:, None] + log_A).max(axis=0) + log_B[t]
    return delta, log_A


def _viterbi_without_pi(pi: Array, A: Array, log_B: Array) -> tuple[IntArray, float]:
    path, log_p = hmm.viterbi(np.full(len(pi), 1 / len(pi)), A, log_B)
    return path, log_p + float(np.log(len(pi)))


def _no_traceback(pi: Array, A: Array, log_B: Array) -> tuple[IntArray, float]:
    delta, _ = _log_messages(pi, A, log_B)
    return delta.argmax(axis=1), float(delta[-1].max())


def _most_probable_states(pi: Array, A: Array, log_B: Array) -> tuple[IntArray, float]:
    gamma = hmm.smooth(hmm.Chain(pi, A), log_B).gamma
    return gamma.argmax(axis=1), hmm.viterbi(pi, A, log_B)[1]


def _viterbi_turned(pi: Array, A: Array, log_B: Array) -> tuple[IntArray, float]:
    delta, _ = _log_messages(pi, A, log_B)
    with np.errstate(divide="ignore"):
        log_A = np.log(A).T
    path = np.empty(len(log_B), dtype=np.int64)
    path[-1] = delta[-1].argmax()
    for t in range(len(log_B) - 2, -1, -1):
        path[t] = (delta[t] + log_A[:, path[t + 1]]).argmax()
    return path, float(delta[-1].max())


def _forgot_the_log_of_A(pi: Array, A: Array, log_B: Array) -> tuple[IntArray, float]:
    delta = np.empty_like(log_B)
    with np.errstate(divide="ignore"):
        delta[0] = np.log(pi) + log_B[0]
    for t in range(1, len(log_B)):
        delta[t] = (delta[t - 1][:, None] + A).max(axis=0) + log_B[t]
    path = np.empty(len(log_B), dtype=np.int64)
    path[-1] = delta[-1].argmax()
    for t in range(len(log_B) - 2, -1, -1):
        path[t] = (delta[t] + A[:, path[t + 1]]).argmax()
    return path, float(delta[-1].max())


def _a_probability(pi: Array, A: Array, log_B: Array) -> tuple[IntArray, float]:
    path, log_p = hmm.viterbi(pi, A, log_B)
    return path, float(np.exp(log_p))


def _rate_over_all_steps(x: Array, gamma: Array, xi: Array) -> PoissonParameters:
    pi, A, _ = poisson_m_step(x, gamma, xi)
    return pi, A, x @ gamma / len(x)


def _columns(x: Array, gamma: Array, xi: Array) -> PoissonParameters:
    pi, _, rate = poisson_m_step(x, gamma, xi)
    moves = xi.sum(axis=0)
    return pi, moves / moves.sum(axis=0), rate


def _last_step_counted(x: Array, gamma: Array, xi: Array) -> PoissonParameters:
    pi, _, rate = poisson_m_step(x, gamma, xi)
    return pi, xi.sum(axis=0) / gamma.sum(axis=0)[:, None], rate


def _rows_by_broadcasting(x: Array, gamma: Array, xi: Array) -> PoissonParameters:
    pi, _, rate = poisson_m_step(x, gamma, xi)
    moves = xi.sum(axis=0)
    return pi, moves / moves.sum(axis=1), rate


def _mean_of_xi(x: Array, gamma: Array, xi: Array) -> PoissonParameters:
    pi, _, rate = poisson_m_step(x, gamma, xi)
    return pi, xi.mean(axis=0), rate


def _pi_is_the_mean(x: Array, gamma: Array, xi: Array) -> PoissonParameters:
    _, A, rate = poisson_m_step(x, gamma, xi)
    return gamma.mean(axis=0), A, rate


def _em_with(
    step: Any, x: Array, pi: Array, A: Array, rate: Array, n_iter: int
) -> tuple[Array, Array, Array, Array]:
    """EM whose E-step is step(pi, A, B) -> gamma, xi, log p."""
    log_p = np.empty(n_iter)
    for i in range(n_iter):
        B = np.exp(hmm.Poisson(rate).log_likelihood(x))
        gamma, xi, log_p[i] = step(pi, A, B)
        pi, A, rate = poisson_m_step(x, gamma, xi)
    return pi, A, rate, log_p


def _em_filtering(
    x: Array, pi: Array, A: Array, rate: Array, n_iter: int
) -> tuple[Array, Array, Array, Array]:
    def step(pi: Array, A: Array, B: Array) -> tuple[Array, Array, float]:
        alpha, c = hmm.forward(pi, A, B)
        _, xi = hmm.posteriors(alpha, hmm.backward(A, B, c), A, B, c)
        return alpha, xi, float(np.log(c).sum())

    return _em_with(step, x, pi, A, rate, n_iter)


def _em_with_products(
    x: Array, pi: Array, A: Array, rate: Array, n_iter: int
) -> tuple[Array, Array, Array, Array]:
    def step(pi: Array, A: Array, B: Array) -> tuple[Array, Array, float]:
        alpha, c = hmm.forward(pi, A, B)
        gamma, _ = hmm.posteriors(alpha, hmm.backward(A, B, c), A, B, c)
        xi = gamma[:-1, :, None] * gamma[1:, None, :]
        return gamma, xi, float(np.log(c).sum())

    return _em_with(step, x, pi, A, rate, n_iter)


def _em_that_forgets(
    x: Array, pi: Array, A: Array, rate: Array, n_iter: int
) -> tuple[Array, Array, Array, Array]:
    first = em(x, pi, A, rate, 1)
    return (*first[:3], np.full(n_iter, first[3][0]))


def _em_with_one_table(
    x: Array, pi: Array, A: Array, rate: Array, n_iter: int
) -> tuple[Array, Array, Array, Array]:
    table = np.exp(hmm.Poisson(rate).log_likelihood(x))

    def step(pi: Array, A: Array, B: Array) -> tuple[Array, Array, float]:
        alpha, c = hmm.forward(pi, A, table)
        beta = hmm.backward(A, table, c)
        return (*hmm.posteriors(alpha, beta, A, table, c), float(np.log(c).sum()))

    return _em_with(step, x, pi, A, rate, n_iter)


def _em_late_likelihood(
    x: Array, pi: Array, A: Array, rate: Array, n_iter: int
) -> tuple[Array, Array, Array, Array]:
    *found, _ = em(x, pi, A, rate, n_iter)
    return (*found, em(x, pi, A, rate, n_iter + 1)[3][1:])  # type: ignore[return-value]


def _products(gamma: Array, xi: Array) -> Array:
    moves = gamma[:-1].T @ gamma[1:]
    A: Array = moves / moves.sum(axis=1, keepdims=True)
    return A


def _transition_columns(gamma: Array, xi: Array) -> Array:
    moves = xi.sum(axis=0)
    A: Array = moves / moves.sum(axis=0)
    return A


def _divided_by_all_steps(gamma: Array, xi: Array) -> Array:
    A: Array = xi.sum(axis=0) / gamma.sum(axis=0)[:, None]
    return A


def _all_states_alike(x: Array, K: int, rng: Rng) -> PoissonParameters:
    return np.ones(K) / K, np.full((K, K), 1 / K), np.full(K, x.mean())


def _one_start(x: Array, K: int, rng: Rng) -> PoissonParameters:
    start = rng.uniform(x.min(), x.max(), K)
    pi, A, rate, _ = em(x, np.ones(K) / K, 0.8 * np.eye(K) + 0.2 / K, start, 300)
    return pi, A, rate


def _few_steps(x: Array, K: int, rng: Rng) -> PoissonParameters:
    rate = np.quantile(x, (np.arange(K) + 0.5) / K)
    A = 0.8 * np.eye(K) + 0.2 / K
    pi, A, rate, _ = em(x, np.ones(K) / K, A, rate, 3)
    return pi, A, rate


def _no_memory(x: Array, K: int, rng: Rng) -> PoissonParameters:
    weight, rate = np.ones(K) / K, np.quantile(x, (np.arange(K) + 0.5) / K)
    for _ in range(500):
        log_B = hmm.Poisson(rate).log_likelihood(x)
        share = weight * np.exp(log_B - log_B.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        weight, rate = share.mean(axis=0), x @ share / share.sum(axis=0)
    return weight, np.tile(weight, (K, 1)), rate


# ------------------------------------------------------------ laws


def _sums_to_one(result: Messages, **_: Any) -> bool:
    return bool(np.allclose(result[0].sum(axis=1), 1.0))


def _pairs_add_up(result: Messages, **_: Any) -> bool:
    gamma, xi = result
    ends = xi.sum(axis=2), xi.sum(axis=1)
    return bool(np.allclose(ends[0], gamma[:-1]) and np.allclose(ends[1], gamma[1:]))


def _never_falls(result: tuple[Array, ...], **_: Any) -> bool:
    return bool((np.diff(result[3]) > -1e-8).all())


# Zucchini & MacDonald 2009: chapter 6 (1 and 4 states), Tables 4.1 and 4.2.  The
# value for 4 is of a stationary chain, which a free start can always equal.
PUBLISHED = {1: 391.9189, 2: 341.8787, 3: 328.5275, 4: 327.8316}


def _reaches_the_book(result: Any, x: Array, K: int, **_: Any) -> bool | str:
    if not isinstance(result, tuple) or len(result) != 3:
        return "return pi, A and rate, three arrays"
    pi, A, rate = result
    try:
        model = hmm.HMM(hmm.Chain(pi, A), hmm.Poisson(rate))
        if model.chain.K != K:
            return f"your model has {model.chain.K} states, not {K}"
        got = hmm.total_log_evidence(model, [x])
    except (TypeError, ValueError) as error:
        return f"it is no model: {error}"
    short = -PUBLISHED[K] - got
    return short < 0.01 or (
        f"log p(x) is {got:.4f}, {short:.4f} below the published fit: "
        "from another start EM may climb higher"
    )


TURNED = (
    "Your step exchanges j and k: it uses A[k, j] where A[j, k] is meant. Rows of A "
    "are "
    "where the chain comes from, so a forward message is a row vector: alpha @ A."
)

EXERCISES = (
    Exercise(
        "forward_probabilities",
        "forward_probabilities(pi, A, B) -> alpha, shape (T, K)",
        hmm.forward_probabilities,
        _probability_cases,
        mistakes=(
            Mistake("A transposed", TURNED, _turned),
            Mistake(
                "no initial factor",
                "Your first message lacks pi: alpha[0] is pi times B[0].",
                _without_pi,
            ),
            Mistake(
                "no first emission",
                "Your first message lacks the first observation: alpha[0] is pi * "
                "B[0].",
                _without_first_emission,
            ),
            Mistake(
                "emission off by one",
                "At step t you multiply by B[t - 1]. The observation of step t is "
                "B[t].",
                _emission_of_the_step_before,
            ),
            Mistake(
                "already scaled",
                "Your rows sum to one. That is the next exercise; here alpha[t, k] is "
                "the joint probability, not divided by anything.",
                _already_scaled,
            ),
        ),
    ),
    Exercise(
        "forward",
        "forward(pi, A, B) -> alpha (T, K) with rows that sum to one, c (T,)",
        hmm.forward,
        _forward_cases,
        laws=(Law("each row of alpha sums to one", _sums_to_one),),
        mistakes=(
            Mistake("A transposed", TURNED, _scaled_turned),
            Mistake(
                "pi moved a step",
                "You apply A before the first observation. pi is already the "
                "distribution of the first state: no step leads to it.",
                _pi_moved_first,
            ),
            Mistake(
                "log scales",
                "Your c holds logarithms. Return c itself; take the log outside.",
                _log_scales,
            ),
            Mistake(
                "inverse scales",
                "Your c is what you multiplied by. Return what you divided by: it is "
                "p(x[t] | the past).",
                _inverse_scales,
            ),
            Mistake(
                "divided by the largest",
                "You divide by the largest entry. Then c is no probability and the "
                "rows "
                "do not sum to one: divide by the sum.",
                _divided_by_the_largest,
            ),
            Mistake(
                "scaled afterwards",
                "You run the plain recursion first and scale at the end. By then long "
                "sequences have underflowed: scale within the loop.",
                _scaled_afterwards,
            ),
        ),
    ),
    Exercise(
        "backward",
        "backward(A, B, c) -> beta, shape (T, K), with beta[T - 1] = 1",
        hmm.backward,
        _backward_cases,
        mistakes=(
            Mistake(
                "A transposed",
                "Your step exchanges j and k. Looking back, the sum runs over where "
                "the "
                "chain goes to, the columns of A: A @ (...).",
                _backward_turned,
            ),
            Mistake(
                "emission off by one",
                "You use B[t]. The future of step t starts with observation t + 1.",
                _emission_of_this_step,
            ),
            Mistake(
                "scale off by one",
                "You divide by c[t]. The observation you have just taken in is t + "
                "1, so "
                "its scale is c[t + 1].",
                _scale_of_this_step,
            ),
            Mistake(
                "starts at 1/K",
                "Your last message is 1/K. It is no distribution: the probability of "
                "'nothing more to come' is 1 whatever the state.",
                _starts_at_one_over_K,
            ),
            Mistake(
                "rows normalised",
                "Your rows sum to one. beta is no distribution over states: the only "
                "scale it gets is the c of the forward sweep.",
                _rows_normalised,
            ),
            Mistake(
                "not scaled",
                "You do not divide by c, so long sequences will underflow.",
                _not_scaled,
            ),
        ),
    ),
    Exercise(
        "posteriors",
        "posteriors(alpha, beta, A, B, c) -> gamma (T, K), xi (T - 1, K, K)",
        hmm.posteriors,
        _posterior_cases,
        laws=(Law("xi summed over either state gives gamma", _pairs_add_up),),
        mistakes=(
            Mistake(
                "product of marginals",
                "Your xi is gamma[t] times gamma[t + 1], as if neighbouring states "
                "were "
                "independent. They are not: A and the next emission stand between "
                "them.",
                _marginals_multiplied,
            ),
            Mistake(
                "xi not scaled",
                "Your xi does not sum to one at each step: divide by c[t + 1].",
                _xi_not_scaled,
            ),
            Mistake(
                "xi transposed",
                "Your xi[t] has its axes exchanged: first the state at t, then at t "
                "+ 1.",
                _xi_turned,
            ),
            Mistake(
                "emission off by one",
                "Your xi uses B[t]. Between the two states comes observation t + 1.",
                _xi_with_this_emission,
            ),
            Mistake(
                "filtered for smoothed",
                "Your gamma is alpha: it knows the past only. Multiply by beta.",
                _filtered_for_smoothed,
            ),
        ),
    ),
    Exercise(
        "viterbi",
        "viterbi(pi, A, log_B) -> path (T,) of integers, log probability of path and x",
        hmm.viterbi,
        _viterbi_cases,
        mistakes=(
            Mistake(
                "no way back",
                "You pick the largest v at every step. Only the last one is the "
                "end "
                "of the best path; follow the winners back from there.",
                _no_traceback,
            ),
            Mistake(
                "states, not path",
                "Each of your states is the most probable one of its step. Together "
                "they need not be the most probable path.",
                _most_probable_states,
            ),
            Mistake(
                "way back transposed",
                "On the way back you read A by its rows. The state at t + 1 is "
                "known, so "
                "the candidates stand in a column: log_A[:, path[t + 1]].",
                _viterbi_turned,
            ),
            Mistake(
                "no initial factor",
                "Your first scores lack log pi: v[0] is log pi plus log_B[0].",
                _viterbi_without_pi,
            ),
            Mistake(
                "A is not a log",
                "You add A itself to log probabilities. Take its logarithm first.",
                _forgot_the_log_of_A,
            ),
            Mistake(
                "a probability",
                "Your path is right; return its log probability, which cannot "
                "underflow.",
                _a_probability,
            ),
        ),
    ),
    Exercise(
        "poisson_m_step",
        "poisson_m_step(x, gamma, xi) -> pi (K,), A (K, K), rate (K,)",
        poisson_m_step,
        _m_step_cases,
        mistakes=(
            Mistake(
                "rate over all steps",
                "Your rates are divided by T. Divide by the time that is expected to "
                "have been spent in each state, the sum of its gamma.",
                _rate_over_all_steps,
            ),
            Mistake(
                "columns normalised",
                "The columns of your A sum to one. Each row must: it says where the "
                "chain goes from one state.",
                _columns,
            ),
            Mistake(
                "rows by broadcasting",
                "You divide column k by the sum of row k. Keep the sums as a column: "
                "moves.sum(axis=1, keepdims=True).",
                _rows_by_broadcasting,
            ),
            Mistake(
                "mean of xi",
                "Your A is the mean of xi over time: all of it sums to one. Each row "
                "must sum to one by itself.",
                _mean_of_xi,
            ),
            Mistake(
                "last step counted",
                "You divide by all of gamma. The last step leads nowhere, so it has no "
                "place among the moves: rows of your A sum to less than one.",
                _last_step_counted,
            ),
            Mistake(
                "pi averaged",
                "Your pi is the mean of gamma over time. It is about the first step "
                "only.",
                _pi_is_the_mean,
            ),
        ),
    ),
    Exercise(
        "em",
        "em(x, pi, A, rate, n_iter) -> pi, A, rate, log_p of shape (n_iter,)",
        em,
        _em_cases,
        laws=(Law("the log likelihood never falls", _never_falls),),
        mistakes=(
            Mistake(
                "filtering",
                "Your E-step uses the filtered alpha for gamma: it ignores the future.",
                _em_filtering,
            ),
            Mistake(
                "product of marginals",
                "Your A comes from products of single posteriors. Use xi.",
                _em_with_products,
            ),
            Mistake(
                "one table for all steps",
                "You compute the emission table once. It depends on the rates, which "
                "every step changes: compute it within the loop.",
                _em_with_one_table,
            ),
            Mistake(
                "starts over",
                "Every step starts from the first parameters: pass on what the M-step "
                "returned.",
                _em_that_forgets,
            ),
            Mistake(
                "likelihood one step late",
                "Your log_p is that of the improved parameters. Record the one of the "
                "parameters with which the step began: the sum of log c in its E-step.",
                _em_late_likelihood,
            ),
        ),
        rtol=1e-6,
    ),
    Exercise(
        "transitions",
        "transitions(gamma, xi) -> A, shape (K, K)",
        transitions,
        lambda rng: (
            Case({k: v for k, v in case.arguments.items() if k != "x"}, case.note)
            for case in _m_step_cases(rng)
        ),
        mistakes=(
            Mistake(
                "product of marginals",
                "That is the bug itself: gamma[t] times gamma[t + 1] treats neighbours "
                "as independent, and counts every doubt as a switch.",
                _products,
            ),
            Mistake(
                "columns normalised",
                "The columns of your A sum to one; the rows must.",
                _transition_columns,
            ),
            Mistake(
                "last step counted",
                "Your rows sum to less than one: the last step leads nowhere and must "
                "not be counted.",
                _divided_by_all_steps,
            ),
        ),
    ),
    Exercise(
        "fit_poisson",
        "fit_poisson(x, K, rng) -> pi (K,), A (K, K), rate (K,)",
        fit_poisson,
        _earthquake_cases,
        laws=(
            Law("log p(x) is at most 0.01 below the published fit", _reaches_the_book),
        ),
        mistakes=(
            Mistake(
                "all states alike",
                "All your states are the same. EM cannot tell them apart from there: "
                "start it from different rates.",
                _all_states_alike,
            ),
            Mistake(
                "one start",
                "You run EM once. With three states and more it may end on a lower "
                "peak: start several times and keep the best.",
                _one_start,
            ),
            Mistake(
                "stops early",
                "You are on the way but stop too early: watch the gain of each step.",
                _few_steps,
            ),
            Mistake(
                "no memory",
                "Your states are drawn anew each year: that is a mixture. Let A be "
                "learned.",
                _no_memory,
            ),
        ),
        compare=False,
        seconds=60.0,
    ),
)
