"""Optimisers: gradients in, better parameters out.

    θ, g       parameters and gradient, trees of arrays of one type; flat inside (n,)
    η          learning rate `lr`, a number or a function of the step t = 1, 2, ...
    m, v       running sums of g and of g²

An optimiser is a frozen dataclass of numbers.  `init(parameters)` gives a State,
`step(state, gradients)` the next one, and `state.parameters` is the tree to use.  The
state lies in flat buffers, which `step` works in: a State can be stepped once.

Every gradient is checked, by its length.  Parameters are checked at the start only:
where a step drives them out of the range of floats, the next loss is refused.
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
from mlfs.core.numerics import check_rng, check_scalar, check_type, check_whole
from mlfs.core.tree import Structure, flatten, flatten_like, leaf_names, unflatten

Schedule = float | Callable[[int], float]

# Adam's passes over memory go by pieces that stay in the cache
PIECE = 16_384
# in float32 √v + ε would be 0, and an entry that got no gradient 0/0, from 1e-38 down
LEAST_EPSILON = 1e-30
_TYPES = (np.dtype(np.float32), np.dtype(np.float64))


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
    _buffers: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class Optimizer:
    """What all optimisers share: flat buffers, the schedule, clipping."""

    lr: Schedule
    clip: float | None = field(default=None, kw_only=True)
    moments = 0

    def __post_init__(self) -> None:
        # Python numbers are kept: float32 stays float32 with them.
        if not callable(self.lr):
            _keep(self, "lr", check_scalar("lr", self.lr, 0.0))
        if self.clip is not None:
            _keep(self, "clip", _check_limit("clip", self.clip))

    def init(self, parameters: Any) -> State:
        """The State at the start; the parameters are copied.

        Raises:
            ValueError: there are none, they are not of one type, float32 or float64,
                or not finite.
        """
        leaves, structure = flatten(parameters)
        if not leaves:
            raise ValueError("parameters is a tree without arrays, wants one or more")
        arrays = [
            _as_floats(structure, "parameters", i, x) for i, x in enumerate(leaves)
        ]
        for i, array in enumerate(arrays):
            if array.dtype != arrays[0].dtype:
                names = leaf_names(structure, "parameters")
                raise ValueError(
                    f"{names[i]} holds {array.dtype}, wants {arrays[0].dtype}, as "
                    f"{names[0]} does"
                )
        _length(structure, "parameters", arrays)
        flat = np.concatenate([array.ravel() for array in arrays])
        moments = tuple(np.zeros_like(flat) for _ in range(self.moments))
        shapes = [array.shape for array in arrays]
        buffers = _Buffers(structure, shapes, np.empty_like(flat), moments)
        return _state(flat, buffers, math.nan)

    def step(self, state: State, gradients: Any) -> State:
        """The State after one step along `gradients`, a tree like the parameters.

        Raises:
            ValueError: gradients of another structure or shape, not finite, or too long
                to be squared; a learning rate that is no number; a state that was
                stepped before, or that another optimiser made.
        """
        buffers = check_type("state", state, State)._buffers
        if state.t != buffers.t:
            raise ValueError(
                f"state is that of step {state.t}, which was stepped already, wants "
                "the one that step returned; init makes a fresh start"
            )
        if len(buffers.moments) != self.moments:
            raise ValueError(
                f"state has {len(buffers.moments)} moments, wants {self.moments}, as "
                f"{type(self).__name__}.init makes"
            )
        g = _gather(buffers, gradients)
        t = state.t + 1
        norm = _flat_length(g)
        if not 1e-15 < norm < math.inf:
            norm = _length(buffers.structure, "gradients", _split(g, buffers.shapes))
        kept = norm
        if self.clip is not None and norm > self.clip:
            g *= self.clip / norm
            kept = self.clip
        # v adds up to a thousand squares
        if kept > 1e-2 * math.sqrt(np.finfo(g.dtype).max):
            raise ValueError(
                f"gradients have length {kept:.3g} at step {t}, wants one whose square "
                f"{g.dtype} can hold; a smaller learning rate or clipping may help"
            )
        lr = _rate(self.lr, t) if callable(self.lr) else self.lr
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
class SGD(Optimizer):
    """θ ← θ − η g."""

    def _move(
        self, x: Any, g: Any, memory: list[Any], lr: float, t: int, out: Any
    ) -> None:
        np.multiply(g, -lr, out=out)  # eq ad-gradient-descent
        out += x


@dataclass(frozen=True, slots=True)
class Momentum(Optimizer):
    """m ← β m + g, θ ← θ − η m; with Nesterov's look ahead, θ ← θ − η (g + β m).

    Polyak 1964, "Some methods of speeding up the convergence of iteration methods";
    Sutskever, Martens, Dahl and Hinton 2013, ICML, for Nesterov's form.

    Raises:
        ValueError: settings outside their ranges.
    """

    beta: float = 0.9
    nesterov: bool = False
    moments = 1

    def __post_init__(self) -> None:
        Optimizer.__post_init__(self)
        _keep(self, "beta", check_scalar("beta", self.beta, 0.0, 1.0))
        if not isinstance(self.nesterov, bool | np.bool_):
            raise ValueError(f"nesterov is {self.nesterov!r}, wants True or False")

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
class RMSProp(Optimizer):
    """v ← β v + (1 − β) g², θ ← θ − η g / (√v + ε).

    Tieleman and Hinton 2012, lecture 6.5 of "Neural networks for machine learning".
    """

    beta: float = 0.99
    epsilon: float = 1e-8
    moments = 1

    def __post_init__(self) -> None:
        Optimizer.__post_init__(self)
        _check_averages(self, "beta")

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
class Adam(Optimizer):
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
        Optimizer.__post_init__(self)
        _check_averages(self, "beta1", "beta2")

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
        decay = check_scalar("weight_decay", self.weight_decay, 0.0)
        _keep(self, "weight_decay", decay)

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
        ValueError: a negative peak, or a warm-up that is not shorter than the whole;
            from the function made, t below one.
    """
    peak = check_scalar("peak", peak, 0.0)
    steps, warmup = check_whole("steps", steps, 1), check_whole("warmup", warmup, 0)
    if warmup >= steps:
        raise ValueError(f"warmup is {warmup}, wants less than steps, {steps}")

    def lr(t: int) -> float:
        t = check_whole("t", t, 1)
        if t <= warmup:
            return peak * t / warmup
        done = min(1.0, (t - warmup) / (steps - warmup))
        return 0.5 * peak * (1 + math.cos(math.pi * done))

    return lr


def exponential(start: float, factor: float, every: int) -> Callable[[int], float]:
    """t ↦ η = start · factor^((t − 1) / every).

    Raises:
        ValueError: a negative start, a factor outside [0, 1], or `every` below one;
            from the function made, t below one.
    """
    start = check_scalar("start", start, 0.0)
    factor = check_scalar("factor", factor, 0.0, 1.0)
    every = check_whole("every", every, 1)
    return lambda t: start * factor ** ((check_whole("t", t, 1) - 1) / every)


def clip_by_global_norm(gradients: Any, limit: float) -> tuple[Any, float]:
    """The gradients, shortened to length `limit` where they are longer; and the length.

    The length is that of all leaves as one vector (Pascanu, Mikolov and Bengio 2013,
    "On the difficulty of training recurrent neural networks", ICML, algorithm 1).

    Raises:
        ValueError: a limit that is not positive, or gradients that are not finite.
    """
    limit = _check_limit("limit", limit)
    leaves, structure = flatten(gradients)
    arrays = [_as_floats(structure, "gradients", i, x) for i, x in enumerate(leaves)]
    norm = _length(structure, "gradients", arrays)
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
    optimizer: Optimizer,
    *,
    progress: bool = False,
    watch: Callable[[int, Any], None] | None = None,
) -> Fit:
    """Step `optimizer` along the gradient of the loss, batch by batch.

    `loss(parameters, x, ...)` takes the entries of a batch as its arguments.

    Stops when the batches do.  With `progress` it draws a bar on the error output;
    `watch(t, parameters)` is called after every step.

    Raises:
        ValueError: there is no batch, or the loss is not one finite number at some
            step; otherwise as `Adam.init` and `Adam.step`.
    """
    for name, f in (("loss", loss), ("watch", watch)):
        if not callable(f) and (name == "loss" or f is not None):
            raise ValueError(f"{name} is a {type(f).__name__}, wants a function")
    if not isinstance(batches, Iterable):
        raise ValueError(
            f"batches is a {type(batches).__name__}, wants a list or an iterator"
        )
    if not isinstance(optimizer, Optimizer):
        raise ValueError(
            f"optimizer is a {type(optimizer).__name__}, wants one as Adam() makes"
        )
    if not isinstance(progress, bool | np.bool_):
        raise ValueError(f"progress is {progress!r}, wants True or False")
    keep_memory()
    slope = value_and_grad(_one_number(loss))
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
    if progress and total is None:
        print(file=sys.stderr)
    if not losses:
        raise ValueError("batches is empty, wants at least one")
    return Fit(state.parameters, np.array(losses), np.array(norms))


def minibatches(
    arrays: tuple[Any, ...], size: int, epochs: int, rng: np.random.Generator
) -> Iterator[tuple[Any, ...]]:
    """Rows of the arrays in random order, `size` at a time, each row once an epoch.

    The last batch of an epoch may be smaller.

    Raises:
        ValueError: arrays of different length or without rows, or a size or number of
            epochs below one.
    """
    size, epochs = check_whole("size", size, 1), check_whole("epochs", epochs, 1)
    check_rng(rng)
    if not isinstance(arrays, tuple) or not arrays:
        got = "empty" if isinstance(arrays, tuple) else f"a {type(arrays).__name__}"
        raise ValueError(f"arrays is {got}, wants a tuple of arrays of one length")
    for i, a in enumerate(arrays):
        if not isinstance(a, np.ndarray) or a.ndim == 0:
            raise ValueError(
                f"arrays[{i}] is a {type(a).__name__}, wants an array of rows"
            )
        if len(a) != len(arrays[0]) or len(a) == 0:
            raise ValueError(
                f"arrays[{i}] has {len(a)} rows, wants as many as arrays[0], which has "
                f"{len(arrays[0])}, and at least one"
            )
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
    tree = unflatten(buffers.structure, _split(flat, buffers.shapes))
    return State(tree, buffers.t, norm, flat, buffers)


def _split(flat: Any, shapes: list[tuple[int, ...]]) -> list[Any]:
    """Views of a flat array in these shapes, one after the other."""
    views, start = [], 0
    for shape in shapes:
        size = math.prod(shape)
        views.append(flat[start : start + size].reshape(shape))
        start += size
    return views


def _gather(buffers: _Buffers, gradients: Any) -> Any:
    """The gradients in one flat array."""
    leaves = flatten_like(buffers.structure, gradients, "gradients")
    for i, (leaf, shape) in enumerate(zip(leaves, buffers.shapes, strict=True)):
        if type(leaf) is not np.ndarray or leaf.dtype not in _TYPES:
            leaves[i] = leaf = _as_floats(buffers.structure, "gradients", i, leaf)
        if leaf.shape != shape:
            name = leaf_names(buffers.structure, "gradients")[i]
            raise ValueError(
                f"{name} has shape {leaf.shape}, wants {shape}, that of its parameter"
            )
    pieces = [leaf.reshape(-1) for leaf in leaves]
    with np.errstate(over="ignore"):  # float64 may not fit float32: its length is inf
        return np.concatenate(pieces, out=buffers.gradient, casting="same_kind")


def _as_floats(structure: Structure, name: str, i: int, leaf: Any) -> Any:
    """Leaf i of a tree as an array of floats.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(leaf, np.ndarray | np.generic | float):
        array = np.asarray(leaf)
        if array.dtype in _TYPES and not np.ma.isMaskedArray(leaf):
            return array
    got = leaf.dtype if type(leaf) is np.ndarray else f"a {type(leaf).__name__}"
    raise ValueError(
        f"{leaf_names(structure, name)[i]} holds {got}, wants float32 or float64"
    )


def _flat_length(g: Any) -> float:
    """√ Σ g² in one pass; wrong where the squares leave the range of floats."""
    with np.errstate(over="ignore"):
        return math.sqrt(float(np.dot(g, g)))


def _length(structure: Structure, name: str, arrays: list[Any]) -> float:
    """The length of all arrays as one vector, however long or short they are.

    Raises:
        ValueError: an entry is not finite; the message says whose.
    """
    tops = [float(np.abs(a).max(initial=0.0)) for a in arrays]
    for i, top in enumerate(tops):
        if not math.isfinite(top):
            raise ValueError(
                f"{leaf_names(structure, name)[i]} holds {top}, wants finite numbers; "
                "a smaller learning rate or clipping may help"
            )
    top = max(tops, default=0.0)
    if top == 0.0:
        return 0.0
    # the largest entry as the unit: no square overflows, and none is lost
    squares = (np.square(np.divide(a, top, dtype=np.float64)) for a in arrays)
    return top * math.sqrt(sum(float(np.sum(s)) for s in squares))


def _rate(schedule: Callable[[int], float], t: int) -> float:
    """The learning rate of step t.

    Raises:
        ValueError: it is no number, negative or not finite.
    """
    return check_scalar(f"lr({t})", schedule(t), 0.0)


def _check_limit(name: str, limit: Any) -> float:
    checked = check_scalar(name, limit, 0.0)
    if checked == 0.0:
        raise ValueError(f"{name} is 0, wants more: every gradient would be zero")
    return checked


def _check_averages(optimizer: Any, *names: str) -> None:
    """Check the factors of running averages, and the ε beside them."""
    for name in names:
        beta = check_scalar(name, getattr(optimizer, name), 0.0, 1.0)
        if beta == 1.0:
            raise ValueError(f"{name} is 1, wants less: nothing would be learnt")
        _keep(optimizer, name, beta)
    epsilon = check_scalar("epsilon", optimizer.epsilon, LEAST_EPSILON)
    _keep(optimizer, "epsilon", epsilon)


def _keep(optimizer: Any, name: str, value: float) -> None:
    object.__setattr__(optimizer, name, value)


def _one_number(loss: Callable[..., Any]) -> Callable[..., Any]:
    """`loss`, refused under its own name where it gives something else."""

    def checked(*args: Any) -> Any:
        value = loss(*args)
        shape, dtype = getattr(value, "shape", ()), getattr(value, "dtype", None)
        number = dtype.kind in "fiu" if dtype else type(value) in (int, float)
        if shape != () or not number:
            got = f"shape {shape} of {dtype}" if dtype else f"a {type(value).__name__}"
            raise ValueError(f"loss returned {got}, wants one real number")
        return value

    return checked


def _draw_bar(t: int, total: int | None, loss: float) -> None:
    width = 30
    if total is None:
        text = f"step {t}"
    else:
        done = width * t // total
        text = f"[{'#' * done}{'.' * (width - done)}] {t}/{total}"
    end = "\n" if t == total else ""
    print(f"\r{text}  loss {loss:.4g}", end=end, file=sys.stderr, flush=True)
