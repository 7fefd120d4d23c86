"""Optimisers: gradients in, better parameters out.

    θ, g       parameters and gradient, trees of arrays of one type; flat inside (n,)
    η          learning rate `lr`, a number or a function of the step t = 1, 2, ...
    m, v       running sums of g and of g²

An optimiser is a frozen dataclass of numbers.  `init(parameters)` gives a State,
`step(state, gradients)` the next one, and `state.parameters` is the tree to use.  The
state lies in flat buffers, which `step` works in: a State can be stepped once.
"""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlfs.autodiff import value_and_grad
from mlfs.core.numerics import check_rng, check_scalar, check_whole
from mlfs.core.tree import Structure, flatten, flatten_like, leaf_names, unflatten

Schedule = float | Callable[[int], float]

# Adam's passes over memory go by pieces that stay in the cache
PIECE = 16_384


@dataclass(slots=True)
class _Buffers:
    """What a step writes into: the gradient, the moments, room to compute in."""

    structure: Structure
    shapes: list[tuple[int, ...]]
    gradient: Any
    moments: tuple[Any, ...]
    t: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """Parameters after `t` steps, and what the optimiser remembers.

    `norm` is the length of the last gradient, before it was clipped.
    """

    parameters: Any
    t: int
    norm: float
    _flat: Any = field(repr=False)
    _buffers: _Buffers = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Optimizer:
    """What all optimisers share: flat buffers, the schedule, clipping."""

    lr: Schedule
    clip: float | None = field(default=None, kw_only=True)
    moments = 0

    def __post_init__(self) -> None:
        if not callable(self.lr):
            check_scalar("lr", self.lr, 0.0)
        if self.clip is not None:
            check_scalar("clip", self.clip, 0.0)

    def init(self, parameters: Any) -> State:
        """The State at the start; the parameters are copied.

        Raises:
            ValueError: there are none, or they are not floats of one type.
        """
        leaves, structure = flatten(parameters)
        arrays = [np.asarray(leaf) for leaf in leaves]
        kinds = {array.dtype for array in arrays}
        if len(kinds) != 1 or next(iter(kinds)).kind != "f":
            names = sorted(map(str, kinds))
            raise ValueError(
                f"parameters hold {names or 'nothing'}, wants floats of one type"
            )
        flat = np.concatenate([array.ravel() for array in arrays])
        moments = tuple(np.zeros_like(flat) for _ in range(self.moments))
        shapes = [array.shape for array in arrays]
        buffers = _Buffers(structure, shapes, np.empty_like(flat), moments)
        return _state(flat, buffers, math.nan)

    def step(self, state: State, gradients: Any) -> State:
        """The State after one step along `gradients`, a tree like the parameters.

        Raises:
            ValueError: gradients of another structure or shape, or not finite; a state
                that was stepped before.
        """
        buffers = state._buffers
        if state.t != buffers.t:
            raise ValueError(
                f"state is that of step {state.t}, which was stepped already, wants "
                "the one that step returned; init makes a fresh start"
            )
        g = _gather(buffers, gradients)
        norm = math.sqrt(float(np.dot(g, g)))
        if not math.isfinite(norm):
            norm = float(np.linalg.norm(g.astype(np.float64)))  # g² may overflow
            if not math.isfinite(norm):
                raise ValueError(
                    f"gradients are not finite at step {state.t + 1}, wants numbers; "
                    "a smaller learning rate or clipping may help"
                )
        if self.clip is not None and norm > self.clip:
            g *= self.clip / norm
        t = state.t + 1
        lr = self.lr(t) if callable(self.lr) else self.lr
        flat = np.empty_like(state._flat)
        for start in range(0, g.size, PIECE):
            piece = slice(start, start + PIECE)
            memory = [m[piece] for m in buffers.moments]
            self._move(state._flat[piece], g[piece], memory, lr, t, flat[piece])
        buffers.t = t
        return _state(flat, buffers, norm)

    def _move(
        self, x: Any, g: Any, memory: list[Any], lr: float, t: int, out: Any
    ) -> None:
        """Write the next parameters into `out`; `g` may be written over."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class SGD(_Optimizer):
    """θ ← θ − η g."""

    def _move(
        self, x: Any, g: Any, memory: list[Any], lr: float, t: int, out: Any
    ) -> None:
        np.multiply(g, -lr, out=out)  # eq ad-gradient-descent
        out += x


@dataclass(frozen=True, slots=True)
class Momentum(_Optimizer):
    """m ← β m + g, θ ← θ − η m; with Nesterov's look ahead, θ ← θ − η (g + β m).

    Polyak 1964, "Some methods of speeding up the convergence of iteration methods";
    Sutskever, Martens, Dahl and Hinton 2013, ICML, for Nesterov's form.
    """

    beta: float = 0.9
    nesterov: bool = False
    moments = 1

    def __post_init__(self) -> None:
        _Optimizer.__post_init__(self)
        check_scalar("beta", self.beta, 0.0, 1.0)

    def _move(
        self, x: Any, g: Any, memory: list[Any], lr: float, t: int, out: Any
    ) -> None:
        (m,) = memory
        m *= self.beta  # eq ad-momentum
        m += g
        np.multiply(m, -lr * (self.beta if self.nesterov else 1.0), out=out)
        if self.nesterov:
            g *= lr
            out -= g
        out += x


@dataclass(frozen=True, slots=True)
class RMSProp(_Optimizer):
    """v ← β v + (1 − β) g², θ ← θ − η g / (√v + ε).

    Tieleman and Hinton 2012, lecture 6.5 of "Neural networks for machine learning".
    """

    beta: float = 0.99
    epsilon: float = 1e-8
    moments = 1

    def __post_init__(self) -> None:
        _Optimizer.__post_init__(self)
        check_scalar("beta", self.beta, 0.0, 1.0)
        check_scalar("epsilon", self.epsilon, 0.0)

    def _move(
        self, x: Any, g: Any, memory: list[Any], lr: float, t: int, out: Any
    ) -> None:
        (v,) = memory
        v *= self.beta
        np.multiply(g, g, out=out)
        out *= 1 - self.beta
        v += out
        np.sqrt(v, out=out)
        out += self.epsilon
        np.divide(g, out, out=out)
        out *= -lr
        out += x


@dataclass(frozen=True, slots=True)
class Adam(_Optimizer):
    """m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g², θ ← θ − η m̂ / (√v̂ + ε).

    m̂ and v̂ are m / (1 − β₁ᵗ) and v / (1 − β₂ᵗ).  Kingma and Ba 2015, "Adam: a method
    for stochastic optimization", ICLR, algorithm 1.
    """

    lr: Schedule = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    moments = 2

    def __post_init__(self) -> None:
        _Optimizer.__post_init__(self)
        for name in ("beta1", "beta2"):
            beta = check_scalar(name, getattr(self, name), 0.0, 1.0)
            if beta == 1.0:
                raise ValueError(f"{name} is 1, wants less: nothing would be learnt")
        check_scalar("epsilon", self.epsilon, 0.0)

    def _move(
        self, x: Any, g: Any, memory: list[Any], lr: float, t: int, out: Any
    ) -> None:
        # The sums are kept without their factors 1 − β, which go into two numbers.
        m, v = memory
        scale = math.sqrt((1 - self.beta2) / (1 - self.beta2**t))
        rate = lr * (1 - self.beta1) / ((1 - self.beta1**t) * scale)
        m *= self.beta1  # eq ad-adam
        m += g
        v *= self.beta2
        g *= g
        v += g
        np.sqrt(v, out=g)
        g += self.epsilon / scale
        np.divide(m, g, out=g)
        g *= rate
        np.subtract(x, g, out=out)


@dataclass(frozen=True, slots=True)
class AdamW(Adam):
    """Adam after θ ← (1 − η λ) θ: decay beside the gradient, not within it.

    Loshchilov and Hutter 2019, "Decoupled weight decay regularization", ICLR, algorithm
    2, with PyTorch's convention that λ is multiplied by the learning rate.
    """

    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        Adam.__post_init__(self)
        check_scalar("weight_decay", self.weight_decay, 0.0)

    def _move(
        self, x: Any, g: Any, memory: list[Any], lr: float, t: int, out: Any
    ) -> None:
        x = x * (1 - lr * self.weight_decay)
        Adam._move(self, x, g, memory, lr, t, out)


# ------------------------------------------------------------ schedules and clipping


def cosine(peak: float, steps: int, *, warmup: int = 0) -> Callable[[int], float]:
    """t ↦ η: a straight rise to `peak` in `warmup` steps, then half a cosine to zero.

    Loshchilov and Hutter 2017, "SGDR: stochastic gradient descent with warm restarts",
    ICLR, eq. 5, for one period.

    Raises:
        ValueError: a negative peak, or a warm-up that is not shorter than the whole.
    """
    peak = check_scalar("peak", peak, 0.0)
    steps, warmup = check_whole("steps", steps, 1), check_whole("warmup", warmup, 0)
    if warmup >= steps:
        raise ValueError(f"warmup is {warmup}, wants less than steps, {steps}")

    def lr(t: int) -> float:
        if t <= warmup:
            return peak * t / warmup
        done = min(1.0, (t - warmup) / (steps - warmup))
        return 0.5 * peak * (1 + math.cos(math.pi * done))

    return lr


def exponential(start: float, factor: float, every: int) -> Callable[[int], float]:
    """t ↦ η = start · factor^((t − 1) / every).

    Raises:
        ValueError: a negative start, a factor outside [0, 1], or `every` below one.
    """
    start = check_scalar("start", start, 0.0)
    factor = check_scalar("factor", factor, 0.0, 1.0)
    every = check_whole("every", every, 1)
    return lambda t: start * factor ** ((t - 1) / every)


def clip_by_global_norm(gradients: Any, limit: float) -> tuple[Any, float]:
    """The gradients, shortened to length `limit` where they are longer; and the length.

    The length is that of all leaves as one vector (Pascanu, Mikolov and Bengio 2013,
    "On the difficulty of training recurrent neural networks", ICML, algorithm 1).

    Raises:
        ValueError: a limit that is not positive, or gradients that are not finite.
    """
    limit = check_scalar("limit", limit, 0.0)
    leaves, structure = flatten(gradients)
    arrays = [np.asarray(leaf) for leaf in leaves]
    norm = math.sqrt(sum(float(np.sum(np.square(a, dtype=float))) for a in arrays))
    if not math.isfinite(norm):
        raise ValueError("gradients are not finite, wants numbers")
    factor = min(1.0, limit / norm) if norm > 0 else 1.0
    return unflatten(structure, [a * a.dtype.type(factor) for a in arrays]), norm


# ------------------------------------------------------------ the loop


@dataclass(frozen=True, slots=True)
class Fit:
    """What `fit` found: the parameters, and loss and gradient norm of every step."""

    parameters: Any
    loss: Any  # (steps,)
    norm: Any  # (steps,)


def fit(
    loss: Callable[..., Any],
    parameters: Any,
    batches: Iterable[Any],
    optimizer: _Optimizer,
    *,
    progress: bool = False,
    watch: Callable[[int, Any], None] | None = None,
) -> Fit:
    """Step `optimizer` along the gradient of loss(parameters, *batch), batch by batch.

    Stops when the batches do.  With `progress` it draws a bar on the error output;
    `watch(t, parameters)` is called after every step.

    Raises:
        ValueError: there is no batch, or the loss is not finite at some step.
    """
    keep_memory()
    slope = value_and_grad(loss)
    state, losses, norms = optimizer.init(parameters), [], []
    total = len(batches) if isinstance(batches, Sized) else None
    for batch in batches:
        given = batch if isinstance(batch, tuple) else (batch,)
        value, gradients = slope(state.parameters, *given)
        if not math.isfinite(value):
            raise ValueError(
                f"loss is {float(value)} at step {state.t + 1}, wants a number; a "
                "smaller learning rate or clipping may help"
            )
        state = optimizer.step(state, gradients)
        losses.append(float(value))
        norms.append(state.norm)
        if watch is not None:
            watch(state.t, state.parameters)
        if progress:
            _draw_bar(state.t, total, losses[-1])
    if not losses:
        raise ValueError("batches is empty, wants at least one")
    return Fit(state.parameters, np.array(losses), np.array(norms))


def minibatches(
    arrays: tuple[Any, ...], size: int, epochs: int, rng: np.random.Generator
) -> Iterator[tuple[Any, ...]]:
    """Rows of the arrays in random order, `size` at a time, each row once an epoch.

    The last batch of an epoch may be smaller.

    Raises:
        ValueError: arrays of different length, or a size or number of epochs below one.
    """
    size, epochs = check_whole("size", size, 1), check_whole("epochs", epochs, 1)
    check_rng(rng)
    if not isinstance(arrays, tuple) or len({len(a) for a in arrays}) != 1:
        raise ValueError("arrays wants a tuple of arrays of one length")
    n = len(arrays[0])

    def draw() -> Iterator[tuple[Any, ...]]:
        for _ in range(epochs):
            order = rng.permutation(n)
            for start in range(0, n, size):
                rows = order[start : start + size]
                yield tuple(a[rows] for a in arrays)

    return draw()


def keep_memory() -> bool:
    """Ask the C library to keep freed memory for the next arrays; True if it will.

    glibc gives large blocks back to the system when they are freed, and every step of
    training then waits for the same pages to be cleared again.  Other systems do not
    have the call, and nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    trim_threshold, mmap_threshold, huge = -1, -3, 2**30
    return bool(mallopt(mmap_threshold, huge) and mallopt(trim_threshold, huge))


def _state(flat: Any, buffers: _Buffers, norm: float) -> State:
    flat.flags.writeable = False
    leaves, start = [], 0
    for shape in buffers.shapes:
        size = math.prod(shape)
        leaves.append(flat[start : start + size].reshape(shape))
        start += size
    tree = unflatten(buffers.structure, leaves)
    return State(tree, buffers.t, norm, flat, buffers)


def _gather(buffers: _Buffers, gradients: Any) -> Any:
    """The gradients in one flat array."""
    leaves = flatten_like(buffers.structure, gradients, "gradients")
    if [np.shape(leaf) for leaf in leaves] != buffers.shapes:
        for i, (leaf, shape) in enumerate(zip(leaves, buffers.shapes, strict=True)):
            if np.shape(leaf) != shape:
                name = leaf_names(buffers.structure, "gradients")[i]
                raise ValueError(
                    f"{name} has shape {np.shape(leaf)}, wants {shape}, that of its "
                    "parameter"
                )
    pieces = [np.reshape(leaf, -1) for leaf in leaves]
    return np.concatenate(pieces, out=buffers.gradient, casting="same_kind")


def _draw_bar(t: int, total: int | None, loss: float) -> None:
    width = 30
    if total is None:
        text = f"step {t}"
    else:
        done = width * t // total
        text = f"[{'#' * done}{'.' * (width - done)}] {t}/{total}"
    end = "\n" if t == total else ""
    print(f"\r{text}  loss {loss:.4g}", end=end, file=sys.stderr, flush=True)
