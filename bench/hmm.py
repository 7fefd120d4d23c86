"""Hidden Markov models with Gaussian emissions, side by side with hmmlearn."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from bench.harness import Workload
from hmmlearn.hmm import GaussianHMM  # type: ignore[import-untyped]

from mlfs import hmm
from mlfs.core.numerics import Array

LIBRARIES = ("numpy", "scipy", "hmmlearn")
STEPS = 20  # of EM


def workloads() -> Iterator[Workload]:
    """One pass and EM, for few states and many, against both of hmmlearn's forms."""
    sizes = [(5, 10_000, 1.3, 1.0), (50, 2_000, 1 / 1.8, 0.4)]
    for K, T, one_pass, learning in sizes:
        model, x = problem(K, T)
        size = f"K = {K}, T = {T:,}"
        for form in ("scaling", "log"):
            fast, peer = form == "scaling", f"hmmlearn, {form}"
            yield Workload(
                f"{size}: log likelihood and posteriors",
                partial(infer, model, x),
                peer,
                partial(peer_infer, model, x, form),
                same_inference,
                one_pass if fast else None,
                60 if fast else 15,
            )
            yield Workload(
                f"{size}: {STEPS} steps of EM",
                partial(learn, model, x),
                peer,
                partial(peer_learn, model, x, form),
                same_learning,
                learning if fast else None,
                15 if fast else 3,
            )


def problem(K: int, T: int) -> tuple[hmm.HMM, Array]:
    """A start for EM and data (T, 2): K overlapping Gaussians on a grid, visited alike.

    The start is near enough to the truth that no state dies.
    """
    rng = np.random.default_rng(K)
    side = int(np.ceil(np.sqrt(K)))
    grid = np.stack(np.divmod(np.arange(K), side), axis=1)
    mean = 2.0 * grid + rng.normal(scale=0.2, size=(K, 2))
    root = np.eye(2) + 0.3 * rng.normal(size=(K, 2, 2))
    cov = root @ root.swapaxes(1, 2) + 0.1 * np.eye(2)
    A = 0.5 * np.eye(K) + 0.5 * rng.dirichlet(np.full(K, 5.0), K)
    pi = np.full(K, 1.0 / K)
    truth = hmm.HMM(hmm.Chain(pi, A), hmm.Gaussian(mean, cov))
    x = truth.emissions.sample(hmm.simulate(truth.chain, T, rng), rng)
    near = mean + rng.normal(scale=0.2, size=(K, 2))
    wide = np.tile(1.5 * np.eye(2), (K, 1, 1))
    chain = hmm.Chain(pi, 0.3 * np.eye(K) + 0.7 / K)
    return hmm.HMM(chain, hmm.Gaussian(near, wide)), x


def infer(model: hmm.HMM, x: Array) -> tuple[float, Array]:
    """Log likelihood and posteriors from the data, ours."""
    post = hmm.smooth(model.chain, model.emissions.log_likelihood(x))
    return post.log_evidence, post.gamma


def learn(model: hmm.HMM, x: Array) -> tuple[list[float], Array, Array]:
    """The log likelihood at each step of EM, the means and A found, ours."""
    history = []
    for _ in range(STEPS):
        model, log_p = hmm.em_step(model, [x])
        history.append(log_p)
    assert isinstance(model.emissions, hmm.Gaussian)
    return history, model.emissions.mean, model.chain.A


def peer_infer(model: hmm.HMM, x: Array, form: str) -> tuple[float, Array]:
    """Log likelihood and posteriors from the data, hmmlearn's."""
    log_p, gamma = peer(model, form).score_samples(x)
    return log_p, gamma


def peer_learn(model: hmm.HMM, x: Array, form: str) -> tuple[list[float], Array, Array]:
    """The log likelihood at each step of EM, the means and A found, hmmlearn's."""
    fit = peer(model, form).fit(x)
    return list(fit.monitor_.history), fit.means_, fit.transmat_


def peer(model: hmm.HMM, form: str) -> Any:
    """The same model in hmmlearn, at maximum likelihood: no priors."""
    assert isinstance(model.emissions, hmm.Gaussian)
    same = GaussianHMM(
        n_components=model.chain.K,
        covariance_type="full",
        covars_prior=0.0,
        implementation=form,
        init_params="",
        n_iter=STEPS,
        tol=-np.inf,
    )
    same.startprob_, same.transmat_ = model.chain.pi.copy(), model.chain.A.copy()
    same.means_, same.covars_ = model.emissions.mean.copy(), model.emissions.cov.copy()
    return same


def same_inference(ours: tuple[float, Array], theirs: tuple[float, Array]) -> None:
    """The log likelihoods agree to 1e-11 of their size, the posteriors to 1e-9.

    Raises:
        AssertionError: they do not.
    """
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-11)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-9)


def same_learning(
    ours: tuple[list[float], Array, Array], theirs: tuple[list[float], Array, Array]
) -> None:
    """The history of the log likelihood agrees to 1e-9, means and A to 1e-6.

    Raises:
        AssertionError: they do not.
    """
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-9)
    for mine, other in zip(ours[1:], theirs[1:], strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-6)
