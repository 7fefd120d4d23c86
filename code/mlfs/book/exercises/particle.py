"""The coding evening of the filtering chapter, second half: what needs particles.

Chapter: book/kalman-and-particle-filters/coding.md.  Symbols as in `mlfs.particle`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy.special import gammaln

from mlfs import kalman, particle
from mlfs.book.exercise import Case, Exercise, Law, Mistake
from mlfs.core import data
from mlfs.core.numerics import Array, IntArray

Rng = np.random.Generator
Draw = Callable[..., Array]

# ------------------------------------------------------------ cases


def _importance_cases(rng: Rng) -> Iterator[Case]:
    for N, shift, note in (
        (5, 0.0, "five samples"),
        (200, 3.0, "200 samples"),
        (50, -2000.0, "log densities near -2000: plain ones underflow"),
        (50, 2000.0, "log densities near 2000: plain ones overflow"),
    ):
        yield Case(
            {
                "log_target": rng.normal(scale=2.0, size=N) + shift,
                "log_proposal": rng.normal(size=N),
                "values": rng.normal(size=N),
            },
            note,
        )
    yield Case(
        {
            "log_target": rng.normal(scale=2.0, size=50) - 2000.0,
            "log_proposal": rng.normal(size=50) - 2000.0,
            "values": rng.normal(size=50),
        },
        "both log densities near -2000",
    )


def _systematic_cases(rng: Rng) -> Iterator[Case]:
    yield Case({"w": np.full(4, 0.25), "u": 0.5}, "equal weights")
    yield Case({"w": np.array([0.0, 1.0, 0.0]), "u": 0.3}, "one particle has it all")
    w = np.array([0.0, 0.5, 0.5])
    yield Case({"w": w, "u": 0.0}, "a tooth at 0, and a particle of weight zero there")
    w = np.array([0.14, 0.21, 0.09, 0.19, 0.18, 0.19])
    u = float(np.nextafter(1.0, 0.0))
    yield Case({"w": w, "u": u}, "u just below 1, and weights whose np.cumsum is, too")
    for N in (3, 7, 100):
        w = rng.dirichlet(np.full(N, 0.5))
        yield Case({"w": w, "u": float(rng.random())}, f"{N} particles")


ONE = np.eye(1)
WALK = kalman.LinearGaussian(np.zeros(1), ONE, ONE, 0.5 * ONE, ONE, 0.5 * ONE)


def _first(N: int, rng: Rng) -> Array:
    return rng.normal(size=N)


def _next(z: Array, rng: Rng) -> Array:
    out: Array = z + np.sqrt(0.5) * rng.normal(size=len(z))
    return out


def _likelihood(x: float, z: Array) -> Array:
    out: Array = -((x - z) ** 2) - 0.5 * np.log(np.pi)
    return out


def _low_likelihood(x: float, z: Array) -> Array:
    return _likelihood(x, z) - 800.0


SURE = kalman.LinearGaussian(np.zeros(1), 0.1 * ONE, ONE, 4.0 * ONE, ONE, 0.5 * ONE)


def _sure_first(N: int, rng: Rng) -> Array:
    out: Array = np.sqrt(0.1) * rng.normal(size=N)
    return out


def _far_next(z: Array, rng: Rng) -> Array:
    out: Array = z + 2.0 * rng.normal(size=len(z))
    return out


def _pair_first(N: int, rng: Rng) -> Array:
    return np.array([20.0, 21.0])


def _pair_next(z: Array, rng: Rng) -> Array:
    """0 and 1; or 10 and 11, if the two particles before were copies of one."""
    return np.array([0.0, 1.0]) + 10.0 * float(z[0] == z[-1])


def _pair_likelihood(x: float, z: Array) -> Array:
    return np.log(np.where(z % 10.0 == 0.0, 0.75, 0.25))


def _walk(T: int, seed: int) -> Array:
    return kalman.simulate(WALK, T, np.random.default_rng(seed))[1][:, 0]


def _bootstrap_cases(rng: Rng) -> Iterator[Case]:
    yield Case(  # the first case is called twice, to see whether only rng is used
        {
            "x": np.zeros(100),
            "N": 2,
            "draw_first": _pair_first,
            "draw_next": _pair_next,
            "log_likelihood": _pair_likelihood,
            "rng": 0,
        },
        "two particles of likelihoods 3/4 and 1/4",
    )
    yield Case(
        {
            "x": np.array([2.0]),
            "N": 2000,
            "draw_first": _sure_first,
            "draw_next": _far_next,
            "log_likelihood": _likelihood,
            "rng": 1,
        },
        "a single observation of a state that is well known at first",
    )
    for T, likelihood, note in (
        (60, _likelihood, "60 steps of a random walk"),
        (30, _low_likelihood, "log likelihoods near -800: plain ones underflow"),
    ):
        yield Case(
            {
                "x": _walk(T, T),
                "N": 2000,
                "draw_first": _first,
                "draw_next": _next,
                "log_likelihood": likelihood,
                "rng": T,
            },
            note,
        )


def _well_cases(rng: Rng) -> Iterator[Case]:
    for dt in (0.001, 0.02):
        z, noise = rng.normal(size=6), rng.normal(size=6)
        yield Case({"z": z, "dt": dt, "noise": noise}, f"dt = {dt} s")


def _spike_cases(rng: Rng) -> Iterator[Case]:
    for dt, note in ((0.001, "bins of 1 ms"), (0.05, "bins of 50 ms")):
        for counts in ((0.0, 0.0), (1.0, 0.0), (2.0, 3.0)):
            yield Case(
                {
                    "counts": np.array(counts),
                    "z": rng.uniform(-1.5, 1.5, 5),
                    "dt": dt,
                    "peak": 50.0,
                    "width": 0.3,
                },
                f"{note}, counts {counts}",
            )


def _rat() -> tuple[Array, Array]:
    """Five minutes of the rat's path to learn from, half a minute to find, in cm."""
    path = data.load("rat_path")["position"] / 10.0
    return path[:6000], path[9000:9600]


def rat_spikes(seed: int) -> tuple[Array, Array]:
    """Centres (60, 2) of simulated place cells, and their spikes in the half minute."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(0.0, 100.0, (60, 2))
    squares = ((_rat()[1][:, None] - centre) ** 2).sum(axis=2)
    rate = 0.5 + 20.0 * np.exp(-0.5 * squares / 8.0**2)
    return centre, rng.poisson(0.05 * rate).astype(float)


def _rat_cases(rng: Rng) -> Iterator[Case]:
    for seed in (0, 1):
        centre, spikes = rat_spikes(seed)
        yield Case(
            {"spikes": spikes, "centre": centre, "earlier": _rat()[0], "rng": seed},
            f"population {seed}",
        )


# ------------------------------------------------------------ what is asked


def importance_mean(
    log_target: Array, log_proposal: Array, values: Array
) -> tuple[float, float]:
    """The mean of `values` under the target, and the effective sample size.

    All three are (N,), at N samples of the proposal; the target is not normalised.
    """
    log_w = log_target - log_proposal
    w = np.exp(log_w - log_w.max())
    w = w / w.sum()
    return float(w @ values), float(1.0 / (w @ w))


def systematic(w: Array, u: float) -> IntArray:
    """N indices, ascending: the comb (j + u) / N laid over the weights w (N,)."""
    N = len(w)
    places = (np.arange(N) + u) / N
    edges = np.cumsum(w)
    return np.minimum(np.searchsorted(edges, places, side="right"), N - 1)


def bootstrap(
    x: Array,
    N: int,
    draw_first: Draw,
    draw_next: Draw,
    log_likelihood: Draw,
    rng: Rng,
) -> tuple[Array, float]:
    """Filtered means (T,) and log p̂ of N particles, resampled at every step."""
    means, log_p, z = np.empty(len(x)), 0.0, draw_first(N, rng)
    for t in range(len(x)):
        z = z if t == 0 else draw_next(z, rng)
        log_w = log_likelihood(x[t], z)
        top = log_w.max()
        w = np.exp(log_w - top)
        log_p += top + np.log(w.mean())
        w = w / w.sum()
        means[t] = w @ z
        z = z[systematic(w, rng.random())]
    return means, float(log_p)


def double_well_step(z: Array, dt: float, noise: Array) -> Array:
    """States (N,) after dt seconds: drift −4 z (z² − 1), diffusion √2 dW.

    `noise` (N,) holds standard normal numbers.
    """
    drift = -4.0 * z * (z**2 - 1.0)
    out: Array = z + drift * dt + np.sqrt(2.0 * dt) * noise
    return out


def log_spikes(counts: Array, z: Array, dt: float, peak: float, width: float) -> Array:
    """Log probability (N,) of the counts of two neurons at states z (N,).

    They fire around −1 and 1, at peak · exp(−(z ∓ 1)² / (2 width²)) spikes/s.
    """
    apart = z[:, None] - np.array([-1.0, 1.0])
    log_mean = np.log(peak * dt) - 0.5 * (apart / width) ** 2
    log_p = counts * log_mean - np.exp(log_mean) - gammaln(counts + 1.0)
    out: Array = log_p.sum(axis=1)
    return out


def track(spikes: Array, centre: Array, earlier: Array, rng: Rng) -> Array:
    """Where the rat was, (T, 2) in cm, by particles with position and velocity."""
    bin_s, N = 0.05, 300
    v = np.diff(earlier, axis=0) / bin_s
    rho = np.sum(v[1:] * v[:-1]) / np.sum(v[:-1] ** 2)
    sigma = np.sqrt(np.mean((v[1:] - rho * v[:-1]) ** 2))

    def log_rate(z: Array) -> Array:
        squares = ((z[:, None, :2] - centre) ** 2).sum(axis=2)
        out: Array = np.log(0.5 + 20.0 * np.exp(-0.5 * squares / 8.0**2))
        return out

    def draw_first(N: int, rng: Rng) -> Array:
        speed = sigma / np.sqrt(1 - rho**2) * rng.normal(size=(N, 2))
        return np.hstack([rng.uniform(0.0, 100.0, (N, 2)), speed])

    def draw_next(z: Array, t: int, rng: Rng) -> Array:
        v = rho * z[:, 2:] + sigma * rng.normal(size=(len(z), 2))
        return np.hstack([np.clip(z[:, :2] + bin_s * v, 0.0, 100.0), v])

    model = particle.StateSpace(
        draw_first, draw_next, particle.spike_likelihood(log_rate, bin_s)
    )
    out: Array = particle.particle_filter(model, spikes, N, rng).mean[:, :2]
    return out


# ------------------------------------------------------------ plausible mistakes


def _plain(log_target: Array, log_proposal: Array, values: Array) -> Any:
    with np.errstate(all="ignore"):
        w = np.exp(log_target) / np.exp(log_proposal)
        w = w / w.sum()
        return float(w @ values), float(1.0 / (w @ w))


def _not_divided(log_target: Array, log_proposal: Array, values: Array) -> Any:
    w = np.exp(log_target - log_proposal - (log_target - log_proposal).max())
    return float(np.mean(w * values)), float(w.sum() ** 2 / (w @ w))


def _target_only(log_target: Array, log_proposal: Array, values: Array) -> Any:
    return importance_mean(log_target, np.zeros_like(log_target), values)


def _ratio_turned(log_target: Array, log_proposal: Array, values: Array) -> Any:
    return importance_mean(log_proposal, log_target, values)


def _largest(log_target: Array, log_proposal: Array, values: Array) -> Any:
    mean, _ = importance_mean(log_target, log_proposal, values)
    w, _ = particle.normalise(log_target - log_proposal)
    return mean, float(1.0 / w.max())


def _largest_target(log_target: Array, log_proposal: Array, values: Array) -> Any:
    with np.errstate(all="ignore"):
        w = np.exp(log_target - log_target.max() - log_proposal)
        w = w / w.sum()
        return float(w @ values), float(1.0 / (w @ w))


def _size_too_early(log_target: Array, log_proposal: Array, values: Array) -> Any:
    mean, _ = importance_mean(log_target, log_proposal, values)
    log_w = log_target - log_proposal
    w = np.exp(log_w - log_w.max())
    return mean, float(1.0 / (w @ w))


def _no_shift(w: Array, u: float) -> IntArray:
    return systematic(w, 0.0)


def _shift_too_large(w: Array, u: float) -> IntArray:
    places = (np.arange(len(w)) / len(w) + u) % 1.0
    return np.minimum(np.searchsorted(np.cumsum(w), places, side="right"), len(w) - 1)


def _edges_of_the_next(w: Array, u: float) -> IntArray:
    return np.minimum(systematic(w, u) + 1, len(w) - 1)


def _open_on_the_left(w: Array, u: float) -> IntArray:
    places = (np.arange(len(w)) + u) / len(w)
    return np.minimum(np.searchsorted(np.cumsum(w), places, side="left"), len(w) - 1)


def _no_cap(w: Array, u: float) -> IntArray:
    places = (np.arange(len(w)) + u) / len(w)
    out: IntArray = np.searchsorted(np.cumsum(w), places, side="right")
    return out


def _teeth_from_one(w: Array, u: float) -> IntArray:
    places = (np.arange(1, len(w) + 1) + u) / len(w)
    return np.minimum(np.searchsorted(np.cumsum(w), places, side="right"), len(w) - 1)


def _counts(w: Array, u: float) -> IntArray:
    return np.bincount(systematic(w, u), minlength=len(w))


def _largest_only(w: Array, u: float) -> IntArray:
    return np.full(len(w), int(np.argmax(w)))


def _run(
    x: Array,
    N: int,
    draw_first: Draw,
    draw_next: Draw,
    log_likelihood: Draw,
    rng: Rng,
    slip: str,
) -> tuple[Array, float]:
    means, log_p, z = np.empty(len(x)), 0.0, draw_first(N, rng)
    log_w = np.full(N, -np.log(N))
    for t in range(len(x)):
        if t > 0 or slip == "predicts first":
            z = draw_next(z, rng)
        log_w = log_w + log_likelihood(x[t], z)
        top = 0.0 if slip == "plain" else log_w.max()
        with np.errstate(all="ignore"):
            w = np.exp(log_w - top)
            total = top + np.log(w.sum())
            if slip == "top forgotten":
                total -= top + np.log(N)
            if slip == "mean of logs":
                total = log_w.mean() + np.log(N)
            if slip == "normalised first":
                total = top  # plus log(N) and the log of a mean that is 1 / N
            w = w / w.sum()
        log_p = total if slip in ("never", "kept") else log_p + total
        means[t] = z.mean() if slip == "unweighted" else w @ z
        if slip == "never":
            continue
        picked = np.nan_to_num(w, nan=1.0 / N)
        u = 0.5 if slip == "fixed shift" else rng.random()
        z = z[systematic(picked / picked.sum(), u)]
        if slip == "summed":
            log_p += np.log(N)
        if slip != "kept":
            log_w = np.full(N, -np.log(N))
        if slip == "after":
            means[t] = z.mean()
    return means, float(log_p)


def _never(
    x: Array, N: int, draw_first: Draw, draw_next: Draw, log_likelihood: Draw, rng: Rng
) -> tuple[Array, float]:
    return _run(x, N, draw_first, draw_next, log_likelihood, rng, "never")


def _kept(
    x: Array, N: int, draw_first: Draw, draw_next: Draw, log_likelihood: Draw, rng: Rng
) -> tuple[Array, float]:
    return _run(x, N, draw_first, draw_next, log_likelihood, rng, "kept")


def _plain_weights(
    x: Array, N: int, draw_first: Draw, draw_next: Draw, log_likelihood: Draw, rng: Rng
) -> tuple[Array, float]:
    return _run(x, N, draw_first, draw_next, log_likelihood, rng, "plain")


def _unweighted(
    x: Array, N: int, draw_first: Draw, draw_next: Draw, log_likelihood: Draw, rng: Rng
) -> tuple[Array, float]:
    return _run(x, N, draw_first, draw_next, log_likelihood, rng, "unweighted")


def _summed(
    x: Array, N: int, draw_first: Draw, draw_next: Draw, log_likelihood: Draw, rng: Rng
) -> tuple[Array, float]:
    return _run(x, N, draw_first, draw_next, log_likelihood, rng, "summed")


def _first_moved(
    x: Array, N: int, draw_first: Draw, draw_next: Draw, log_likelihood: Draw, rng: Rng
) -> tuple[Array, float]:
    return _run(x, N, draw_first, draw_next, log_likelihood, rng, "predicts first")


def _fixed_shift(
    x: Array, N: int, draw_first: Draw, draw_next: Draw, log_likelihood: Draw, rng: Rng
) -> tuple[Array, float]:
    return _run(x, N, draw_first, draw_next, log_likelihood, rng, "fixed shift")


def _mean_after(
    x: Array, N: int, draw_first: Draw, draw_next: Draw, log_likelihood: Draw, rng: Rng
) -> tuple[Array, float]:
    return _run(x, N, draw_first, draw_next, log_likelihood, rng, "after")


def _top_forgotten(
    x: Array, N: int, draw_first: Draw, draw_next: Draw, log_likelihood: Draw, rng: Rng
) -> tuple[Array, float]:
    return _run(x, N, draw_first, draw_next, log_likelihood, rng, "top forgotten")


def _mean_of_logs(
    x: Array, N: int, draw_first: Draw, draw_next: Draw, log_likelihood: Draw, rng: Rng
) -> tuple[Array, float]:
    return _run(x, N, draw_first, draw_next, log_likelihood, rng, "mean of logs")


def _normalised_first(
    x: Array, N: int, draw_first: Draw, draw_next: Draw, log_likelihood: Draw, rng: Rng
) -> tuple[Array, float]:
    return _run(x, N, draw_first, draw_next, log_likelihood, rng, "normalised first")


def _noise_times_dt(z: Array, dt: float, noise: Array) -> Array:
    out: Array = z - 4.0 * z * (z**2 - 1.0) * dt + np.sqrt(2.0) * dt * noise
    return out


def _no_root(z: Array, dt: float, noise: Array) -> Array:
    out: Array = z - 4.0 * z * (z**2 - 1.0) * dt + 2.0 * dt * noise
    return out


def _no_two(z: Array, dt: float, noise: Array) -> Array:
    out: Array = z - 4.0 * z * (z**2 - 1.0) * dt + np.sqrt(dt) * noise
    return out


def _uphill(z: Array, dt: float, noise: Array) -> Array:
    out: Array = z + 4.0 * z * (z**2 - 1.0) * dt + np.sqrt(2.0 * dt) * noise
    return out


def _drift_without_dt(z: Array, dt: float, noise: Array) -> Array:
    out: Array = z - 4.0 * z * (z**2 - 1.0) + np.sqrt(2.0 * dt) * noise
    return out


def _spikes_without_dt(
    counts: Array, z: Array, dt: float, peak: float, width: float
) -> Array:
    return log_spikes(counts, z, 1.0, peak, width)


def _silence_forgotten(
    counts: Array, z: Array, dt: float, peak: float, width: float
) -> Array:
    apart = z[:, None] - np.array([-1.0, 1.0])
    log_mean = np.log(peak * dt) - 0.5 * (apart / width) ** 2
    out: Array = (counts * log_mean - gammaln(counts + 1.0)).sum(axis=1)
    return out


def _no_square(counts: Array, z: Array, dt: float, peak: float, width: float) -> Array:
    apart = np.abs(z[:, None] - np.array([-1.0, 1.0]))
    log_mean = np.log(peak * dt) - 0.5 * apart / width**2
    log_p = counts * log_mean - np.exp(log_mean) - gammaln(counts + 1.0)
    out: Array = log_p.sum(axis=1)
    return out


def _no_minus(counts: Array, z: Array, dt: float, peak: float, width: float) -> Array:
    apart = z[:, None] - np.array([-1.0, 1.0])
    log_mean = np.log(peak * dt) + 0.5 * (apart / width) ** 2
    log_p = counts * log_mean - np.exp(log_mean) - gammaln(counts + 1.0)
    out: Array = log_p.sum(axis=1)
    return out


def _neurons_swapped(
    counts: Array, z: Array, dt: float, peak: float, width: float
) -> Array:
    return log_spikes(counts[::-1], z, dt, peak, width)


def _no_factorial(
    counts: Array, z: Array, dt: float, peak: float, width: float
) -> Array:
    constant: Array = gammaln(counts + 1.0).sum()
    return log_spikes(counts, z, dt, peak, width) + constant


def _in_the_middle(spikes: Array, centre: Array, earlier: Array, rng: Rng) -> Array:
    return np.full((len(spikes), 2), 50.0)


def _mean_of_centres(spikes: Array, centre: Array, earlier: Array, rng: Rng) -> Array:
    total = spikes.sum(axis=1, keepdims=True)
    out: Array = spikes @ centre / np.maximum(total, 1.0)
    return out


def _in_metres(spikes: Array, centre: Array, earlier: Array, rng: Rng) -> Array:
    return track(spikes, centre, earlier, rng) / 100.0


def _bin_by_bin(spikes: Array, centre: Array, earlier: Array, rng: Rng) -> Array:
    side = np.arange(1.0, 100.0, 4.0)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    squares = ((grid[:, None] - centre) ** 2).sum(axis=2)
    mean = 0.05 * (0.5 + 20.0 * np.exp(-0.5 * squares / 8.0**2))
    score = spikes @ np.log(mean).T - mean.sum(axis=1)
    out: Array = grid[score.argmax(axis=1)]
    return out


def _random_walk(
    spikes: Array, centre: Array, earlier: Array, rng: Rng, dt: float = 0.05
) -> Array:
    """As `track`, with particles that have a position only."""
    step = np.sqrt(np.mean(np.diff(earlier, axis=0) ** 2))

    def log_rate(z: Array) -> Array:
        squares = ((z[:, None] - centre) ** 2).sum(axis=2)
        out: Array = np.log(0.5 + 20.0 * np.exp(-0.5 * squares / 8.0**2))
        return out

    def draw_first(N: int, rng: Rng) -> Array:
        return rng.uniform(0.0, 100.0, (N, 2))

    def draw_next(z: Array, t: int, rng: Rng) -> Array:
        out: Array = np.clip(z + step * rng.normal(size=z.shape), 0.0, 100.0)
        return out

    likelihood = particle.spike_likelihood(log_rate, dt)
    model = particle.StateSpace(draw_first, draw_next, likelihood)
    out: Array = particle.particle_filter(model, spikes, 300, rng).mean
    return out


def _rates_for_counts(spikes: Array, centre: Array, earlier: Array, rng: Rng) -> Array:
    return _random_walk(spikes, centre, earlier, rng, dt=1.0)


# ------------------------------------------------------------ laws


def _pair_by_hand(result: Any, x: Array, N: int, **_: Any) -> bool | str:
    """What two particles of likelihoods 3/4 and 1/4 must give, but for chance.

    A mean that is 10 larger says that both were copies of one the step before.  A comb
    that is shifted anew each time does that at half of the steps.
    """
    trouble = _no_moments(result, x)
    if trouble or N != 2:
        return trouble or True
    means, log_p = np.asarray(result[0], float), float(result[1])
    if abs(means[0] - 20.25) > 1e-8:
        return (
            f"means[0] is {means[0]:.4g}, want 20.25, the weighted mean of 20 and 21 "
            "that draw_first gives"
        )
    odd = np.abs(means[1:] % 10.0 - 0.25) > 1e-8
    if odd.any():
        t = 1 + int(odd.argmax())
        return (
            f"means[{t}] is {means[t]:.4g}, want the weighted mean before resampling, "
            "0.25 of 0 and 1 or 10.25 of 10 and 11"
        )
    gap = log_p - len(x) * np.log(0.5)
    if abs(gap) > 1e-6:
        return f"log_p is off by {gap:+.2f}: each step adds the log of the mean, 1/2"
    share = float(np.mean(means[1:] > 5.0))
    return 0.2 < share < 0.8 or (
        f"resampling kept only one of the two at {share:.0%} of the steps, want about "
        "half: draw a new u with rng.random() at every step"
    )


def _no_moments(result: Any, x: Array) -> str:
    """What is wrong with the form of a filter's result, if anything is."""
    if not isinstance(result, tuple) or len(result) != 2:
        return "return the means and log_p"
    if np.shape(result[0]) != x.shape:
        return f"means have shape {np.shape(result[0])}, want {x.shape}"
    if not np.isfinite(result[0]).all() or not np.isfinite(float(result[1])):
        return "some result is not finite: work with logs and subtract the largest"
    return ""


MODELS = {_first: WALK, _sure_first: SURE}


def _near_kalman(
    result: Any, x: Array, draw_first: Draw, log_likelihood: Draw, **_: Any
) -> bool | str:
    """Within what 2000 particles allow: bounds six times the spread seen over seeds."""
    if draw_first not in MODELS:
        return True
    means, log_p = np.asarray(result[0], float), float(result[1])
    exact = kalman.kalman_filter(MODELS[draw_first], x)
    worst = float(np.abs(means - exact.mean[:, 0]).max())
    if worst > 0.2:
        return f"a mean lies {worst:.2f} from the exact filter's, want below 0.2"
    want = exact.log_evidence
    want += len(x) * (float(log_likelihood(0.0, np.zeros(1))[0]) + 0.5 * np.log(np.pi))
    gap = log_p - want
    if abs(gap) > 0.15 * np.sqrt(len(x)):
        return f"log_p is off by {gap:+.2f}, want below {0.15 * np.sqrt(len(x)):.2f}"
    return True


def _median_error(found: Any, truth: Array | None = None) -> float:
    truth = _rat()[1] if truth is None else truth
    away = np.linalg.norm(np.asarray(found, dtype=float) - truth, axis=1)
    return float(np.median(away[20:]))


def _same_path(one: Any, other: Any) -> bool:
    """Within 4 cm: so near do most runs of one mistake stay; no two mistakes come."""
    return _median_error(one, np.asarray(other, dtype=float)) < 4.0


LARGEST_ERROR = 5.0  # cm; the median over the half minute, its first second left out


def _finds_the_rat(result: Any, spikes: Array, **_: Any) -> bool | str:
    found = np.asarray(result, dtype=float)
    if found.shape != (len(spikes), 2):
        return f"your path has shape {found.shape}, wants {(len(spikes), 2)}"
    error = _median_error(found)
    return error < LARGEST_ERROR or (
        f"the median error is {error:.1f} cm, wants below {LARGEST_ERROR:g} cm"
    )


EXERCISES = (
    Exercise(
        "importance_mean",
        "importance_mean(log_target, log_proposal, values) -> mean, ess",
        importance_mean,
        _importance_cases,
        mistakes=(
            Mistake(
                "plain weights",
                "You take exponentials first. Subtract the logs, then the largest of "
                "them, and only then exponentiate.",
                _plain,
            ),
            Mistake(
                "not divided by the sum",
                "Your weights do not sum to one: divide by their sum, since the "
                "target is not normalised.",
                _not_divided,
            ),
            Mistake(
                "target only",
                "Your weights ignore the proposal: where it puts many samples, each "
                "must count for less.",
                _target_only,
            ),
            Mistake(
                "ratio turned",
                "Your ratio is upside down: target over proposal.",
                _ratio_turned,
            ),
            Mistake(
                "largest weight",
                "Your sample size is one over the largest weight. It is one over the "
                "sum of squares.",
                _largest,
            ),
            Mistake(
                "largest of the target",
                "You subtract the largest log_target. What goes into np.exp are the "
                "differences: subtract the largest of those.",
                _largest_target,
            ),
            Mistake(
                "sample size too early",
                "Your sample size is that of weights that do not sum to one yet: "
                "divide by their sum first.",
                _size_too_early,
            ),
        ),
    ),
    Exercise(
        "systematic",
        "systematic(w, u) -> indices (N,), ascending",
        systematic,
        _systematic_cases,
        mistakes=(
            Mistake(
                "no shift",
                "Your comb always starts at zero: shift it by u.",
                _no_shift,
            ),
            Mistake(
                "shift not divided",
                "You shift the comb by u. Its teeth stand 1/N apart, so shift it by "
                "u / N.",
                _shift_too_large,
            ),
            Mistake(
                "one too far",
                "Your indices are one too large: the first place belongs to the "
                "first particle whose edge lies beyond it.",
                _edges_of_the_next,
            ),
            Mistake(
                "only the heaviest",
                "You keep the heaviest particle only. Each should have N times its "
                "weight in copies.",
                _largest_only,
            ),
            Mistake(
                "closed on the right",
                "A tooth on an edge belongs to the interval that begins there.",
                _open_on_the_left,
            ),
            Mistake(
                "no cap",
                "You return an index of N. By rounding, the last tooth may lie "
                "beyond the last edge: cap the indices at N - 1.",
                _no_cap,
            ),
            Mistake(
                "teeth from one",
                "Your first tooth stands at (1 + u) / N. Count teeth from zero.",
                _teeth_from_one,
            ),
            Mistake(
                "counts",
                "You return how many copies each particle gets. Return the indices "
                "themselves, each as often as it is copied.",
                _counts,
            ),
        ),
    ),
    Exercise(
        "bootstrap",
        "bootstrap(x, N, draw_first, draw_next, log_likelihood, rng) -> means (T,), "
        "log_p",
        bootstrap,
        _bootstrap_cases,
        laws=(
            Law("two particles give what one can work out by hand", _pair_by_hand),
            Law("means and log_p are those of the Kalman filter", _near_kalman),
        ),
        mistakes=(
            Mistake(
                "never resampled",
                "You never resample. After some steps one particle has all the weight.",
                _never,
            ),
            Mistake(
                "weights kept",
                "You resample and keep the old weights: each observation counts "
                "twice. After resampling all weights are equal.",
                _kept,
            ),
            Mistake(
                "plain weights",
                "You exponentiate the log likelihood as it is. Subtract the largest "
                "first, and add it to log_p.",
                _plain_weights,
            ),
            Mistake(
                "unweighted mean",
                "Your mean counts every particle alike, before they were resampled: "
                "use the weights.",
                _unweighted,
            ),
            Mistake(
                "sum for mean",
                "Your log_p adds the log of the sum of the likelihoods. Each step "
                "contributes their mean: every particle had weight 1/N.",
                _summed,
            ),
            Mistake(
                "predicts first",
                "You move the particles before the first observation. What "
                "draw_first draws is already the first state.",
                _first_moved,
            ),
            Mistake(
                "fixed shift",
                "Your comb stands at the same place at every step. Draw a new u "
                "each time, with rng.random().",
                _fixed_shift,
            ),
            Mistake(
                "mean after resampling",
                "You record the mean of the particles that resampling has left. "
                "Record the weighted mean before: resampling adds noise.",
                _mean_after,
            ),
            Mistake(
                "top forgotten",
                "You subtract the largest log likelihood and never add it back: "
                "each step's share of log_p needs it.",
                _top_forgotten,
            ),
            Mistake(
                "mean of logs",
                "Your log_p adds the mean of the logs. It wants the log of the mean.",
                _mean_of_logs,
            ),
            Mistake(
                "normalised first",
                "You take the mean of weights that sum to one already, which is "
                "always 1/N. Take it before you divide by the sum.",
                _normalised_first,
            ),
        ),
        compare=False,
    ),
    Exercise(
        "double_well_step",
        "double_well_step(z, dt, noise) -> z, shape (N,)",
        double_well_step,
        _well_cases,
        mistakes=(
            Mistake(
                "noise times dt",
                "Your noise shrinks like dt. Variances add over time, so its size "
                "goes like the root of dt.",
                _noise_times_dt,
            ),
            Mistake(
                "no root",
                "You multiply the noise by 2 dt. That is its variance: take the root.",
                _no_root,
            ),
            Mistake(
                "no two",
                "Your noise has variance dt. With sqrt(2) dW it is 2 dt.",
                _no_two,
            ),
            Mistake(
                "uphill",
                "Your drift runs uphill, away from 1 and -1: check its sign.",
                _uphill,
            ),
            Mistake(
                "drift without dt",
                "Your drift is not multiplied by dt: it is a speed, not a step.",
                _drift_without_dt,
            ),
        ),
    ),
    Exercise(
        "log_spikes",
        "log_spikes(counts, z, dt, peak, width) -> log_p, shape (N,)",
        log_spikes,
        _spike_cases,
        mistakes=(
            Mistake(
                "no bin width",
                "Your expected counts are rates. In a bin of dt seconds a neuron "
                "fires rate * dt times.",
                _spikes_without_dt,
            ),
            Mistake(
                "silence forgotten",
                "You leave out minus the expected count. Without it, silence is no "
                "evidence.",
                _silence_forgotten,
            ),
            Mistake(
                "no square",
                "Your tuning curve has |z - c| where (z - c) squared is meant.",
                _no_square,
            ),
            Mistake(
                "no minus",
                "Your tuning curve grows with distance: the exponent has a minus.",
                _no_minus,
            ),
            Mistake(
                "no factorial",
                "You leave out log counts!. It does not depend on z, but log_p does "
                "need it.",
                _no_factorial,
            ),
            Mistake(
                "neurons swapped",
                "Your neurons are in the other order: the first count is that of "
                "the neuron at -1.",
                _neurons_swapped,
            ),
        ),
    ),
    Exercise(
        "track",
        "track(spikes, centre, earlier, rng) -> path, shape (T, 2), in cm",
        track,
        _rat_cases,
        laws=(
            Law(
                "the median error is below 5 cm",
                _finds_the_rat,
                measure=lambda result, **_: f"{_median_error(result):.1f} cm",
            ),
        ),
        mistakes=(
            Mistake(
                "in the middle",
                "You always say the middle of the box. That is the best guess "
                "without any spikes.",
                _in_the_middle,
            ),
            Mistake(
                "mean of centres",
                "You average the centres of the neurons that fired, bin by bin. Use "
                "where the rat was a moment ago.",
                _mean_of_centres,
            ),
            Mistake("in metres", "Your path is in metres, wants cm.", _in_metres),
            Mistake(
                "each bin by itself",
                "You decode each bin by itself. A bin holds a few spikes only: let "
                "the dynamics carry over what earlier ones said.",
                _bin_by_bin,
            ),
            Mistake(
                "velocity forgotten",
                "Your particles forget their velocity. A rat that runs keeps running: "
                "let the state hold where it is and how fast it goes.",
                _random_walk,
            ),
            Mistake(
                "no bin width",
                "Your expected counts are rates. In a bin of 0.05 s a neuron fires "
                "0.05 times its rate.",
                _rates_for_counts,
            ),
        ),
        compare=False,
        seconds=60.0,
        alike=_same_path,
    ),
)
