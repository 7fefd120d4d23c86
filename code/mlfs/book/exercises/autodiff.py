"""The coding evening of the chapter on automatic differentiation.

Chapter: book/automatic-differentiation/coding.md.  Its right versions are a whole
engine, small enough to read; `mlfs.autodiff` is the one to use.

    a, b, x     inputs of an operation, or of a function of one's own
    out         its output
    g           the cotangent of `out`, ∂L/∂out, of the shape of `out`
    pull        g ↦ the cotangents of the inputs, a tuple with one for each
    parents[n]  the numbers of the nodes that node n was computed from
    pulls[n]    the pull of node n
    v           a tangent, a direction in which x moves
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from mlfs.book._limit import TimeIsUp
from mlfs.book.exercise import Case, Exercise, Law, Mistake
from mlfs.core.numerics import Array
from mlfs.core.numerics import logsumexp as safe_logsumexp

Rng = np.random.Generator
Function = Callable[..., Any]
Parents = Sequence[tuple[int, ...]]
Pull = Callable[[Any], tuple[Any, ...]]


# ------------------------------------------------------------ the pulls


def unbroadcast(g: Any, shape: tuple[int, ...]) -> Any:
    """The cotangent of an array of `shape` that was broadcast to the shape of g.

    Every copy of an entry was a use of it, so the cotangents of the copies add up.
    """
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))  # axes put in front
    stretched = tuple(i for i, length in enumerate(shape) if length == 1)
    return g.sum(axis=stretched, keepdims=True)


def pull_add(g: Any, out: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """The cotangents of a and b, for out = a + b."""
    return unbroadcast(g, a.shape), unbroadcast(g, b.shape)


def pull_subtract(g: Any, out: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """The cotangents of a and b, for out = a − b."""
    return unbroadcast(g, a.shape), unbroadcast(-g, b.shape)


def pull_multiply(g: Any, out: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """The cotangents of a and b, for out = a b."""
    return unbroadcast(g * b, a.shape), unbroadcast(g * a, b.shape)


def pull_divide(g: Any, out: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """The cotangents of a and b, for out = a / b."""
    return unbroadcast(g / b, a.shape), unbroadcast(-g * out / b, b.shape)


def pull_exp(g: Any, out: Any, a: Any) -> tuple[Any]:
    """The cotangent of a, for out = exp(a)."""
    return (g * out,)


def pull_tanh(g: Any, out: Any, a: Any) -> tuple[Any]:
    """The cotangent of a, for out = tanh(a)."""
    return (g * (1 - out * out),)


def pull_sum(g: Any, out: Any, a: Any, axis: int | None) -> tuple[Any]:
    """The cotangent of a, for out = a.sum(axis): each summand gets the whole of g."""
    return (_kept(g, a, axis) * np.ones(a.shape),)


def pull_matmul(g: Any, out: Any, a: Any, b: Any) -> tuple[Any, Any]:
    """The cotangents of a and b, for out = a @ b, a matrix times a matrix or vector."""
    if b.ndim == 1:
        return g[:, None] * b, a.T @ g
    return g @ b.T, a.T @ g


def pull_index(g: Any, out: Any, a: Any, index: Any) -> tuple[Array]:
    """The cotangent of a, for out = a[index]: a row taken twice gets both shares."""
    a_bar = np.zeros(a.shape)
    np.add.at(a_bar, index, g)
    return (a_bar,)


def pull_logsumexp(g: Any, out: Any, a: Any, axis: int) -> tuple[Any]:
    """The cotangent of a, for out = log Σ exp(a) over `axis`: shares that sum to g."""
    share = np.exp(a - _kept(out, a, axis))  # of the sum, so at most one: no overflow
    return (_kept(g, a, axis) * share,)


def _kept(reduced: Any, a: Any, axis: int | None) -> Any:
    """What a reduction of `a` left, in the shape that keepdims=True gives."""
    gone = range(a.ndim) if axis is None else [axis % a.ndim]
    return reduced.reshape([1 if i in gone else n for i, n in enumerate(a.shape)])


# ------------------------------------------------------------ the sweep


def topological_order(parents: Parents, out: int) -> list[int]:
    """The nodes that `out` needs, each after its parents, so that `out` is the last.

    A stack of its own takes the place of recursion, whose depth Python limits.
    """
    order, seen, stack = [], set(), [(out, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))  # to come back to, once the parents are done
            stack.extend((parent, False) for parent in parents[node])
    return order


def backward(parents: Parents, pulls: Sequence[Pull], out: int, seed: Any) -> list[Any]:
    """The cotangent of every node when that of `out` is `seed`.

    None stands for a node that `out` does not need.
    """
    g: list[Any] = [None] * len(parents)
    g[out] = seed
    for node in reversed(topological_order(parents, out)):
        shares = pulls[node](g[node])
        for parent, share in zip(parents[node], shares, strict=True):
            # a new array each time: a pull may hand the same one to two parents
            g[parent] = share if g[parent] is None else g[parent] + share
    return g


# ------------------------------------------------------------ the engine


class Node(NDArrayOperatorsMixin):
    """A value, the nodes it was computed from, and its pull.

    NumPy hands `np.exp(node)`, `node * 3` and the like to `__array_ufunc__`.
    """

    rules: dict[Any, Function] = {  # noqa: RUF012 (a table, written nowhere)
        np.negative: lambda g, out, a: (-g,),
        np.add: pull_add,
        np.subtract: pull_subtract,
        np.multiply: pull_multiply,
        np.divide: pull_divide,
        np.exp: pull_exp,
        np.tanh: pull_tanh,
        np.matmul: pull_matmul,
        "sum": pull_sum,
        "index": pull_index,
        "logsumexp": pull_logsumexp,
    }

    def __init__(
        self,
        value: Any,
        parents: tuple[Node, ...] = (),
        pull: Pull = lambda g: (),
    ) -> None:
        self.value, self.parents, self.pull = value, parents, pull

    def __array_ufunc__(self, ufunc: Any, _method: str, *inputs: Any) -> Node:
        """The node of ufunc(*inputs); what is no Node yet is a constant."""
        nodes = [
            each if isinstance(each, Node) else type(self)(np.asarray(each))
            for each in inputs
        ]
        values = [node.value for node in nodes]
        return self._made(ufunc, ufunc(*values), nodes, values)

    def _made(self, name: Any, out: Any, nodes: Any, inputs: Any) -> Node:
        rule = self.rules[name]
        return type(self)(out, tuple(nodes), lambda g: rule(g, out, *inputs))

    def sum(self, axis: int | None = None, out: None = None) -> Node:
        """Σ over `axis`, or over all entries; `np.sum(node, axis)` ends here too."""
        a = self.value
        return self._made("sum", a.sum(axis=axis), [self], [a, axis])

    def __getitem__(self, index: Any) -> Node:
        a = self.value
        return self._made("index", a[index], [self], [a, index])

    def logsumexp(self, axis: int) -> Node:
        """Log Σ exp over `axis`."""
        a = self.value
        return self._made("logsumexp", safe_logsumexp(a, axis), [self], [a, axis])


def graph(out: Node) -> tuple[list[Node], list[tuple[int, ...]]]:
    """The nodes that `out` needs, `out` first, and the numbers of their parents."""
    nodes, number = [out], {id(out): 0}
    for node in nodes:  # the list grows meanwhile
        for parent in node.parents:
            if id(parent) not in number:
                number[id(parent)] = len(nodes)
                nodes.append(parent)
    return nodes, [tuple(number[id(p)] for p in node.parents) for node in nodes]


def gradients(
    out: Node, inputs: Sequence[Node], sweep: Function = backward
) -> list[Any]:
    """∂out/∂input of each of some nodes, where `out` is a single number."""
    nodes, parents = graph(out)
    g = sweep(parents, [node.pull for node in nodes], 0, np.float64(1.0))
    found = {id(node): cotangent for node, cotangent in zip(nodes, g, strict=True)}
    return [found.get(id(each), np.zeros(each.value.shape)) for each in inputs]


def grad(f: Function) -> Function:
    """x ↦ ∇f(x), for a function of one array that returns one number."""

    def gradient(x: Any) -> Any:
        start = Node(x)
        return gradients(f(start), [start])[0]

    return gradient


# ------------------------------------------------------------ checks by differences


def check_gradient(f: Function, g: Array, x: Array, rng: Rng) -> bool:
    """Whether g is ∇f(x) to about six digits, by central differences.

    Three random directions: chance alone would have to put an error at a right angle.
    """
    # cbrt(eps) balances the error of the difference, ~h², and of rounding, ~eps/h
    h = np.cbrt(np.finfo(float).eps) * (np.abs(x).max() or 1.0)
    for _ in range(3):
        v = rng.normal(size=x.shape)
        slope = (f(x + h * v) - f(x - h * v)) / (2 * h)
        size = max(np.abs(slope), np.linalg.norm(g))
        if not np.abs(slope - np.sum(g * v)) <= 1e-6 * size:
            return False
    return True


# ------------------------------------------------------------ hard mode


class Dual(NDArrayOperatorsMixin):
    """x + ẋ ε with ε² = 0: a value and its tangent, two arrays of one shape."""

    rules: dict[Any, Function] = {  # noqa: RUF012 (a table, written nowhere)
        np.negative: lambda out, a, da: -da,
        np.add: lambda out, a, b, da, db: da + db,
        np.subtract: lambda out, a, b, da, db: da - db,
        np.multiply: lambda out, a, b, da, db: da * b + a * db,
        np.divide: lambda out, a, b, da, db: (da - out * db) / b,
        np.matmul: lambda out, a, b, da, db: da @ b + a @ db,
        np.exp: lambda out, a, da: out * da,
        np.tanh: lambda out, a, da: (1 - out * out) * da,
    }

    def __init__(self, x: Any, dx: Any) -> None:
        self.x, self.dx = x, dx
        self.shape, self.ndim = x.shape, x.ndim

    def __array_ufunc__(self, ufunc: Any, _method: str, *inputs: Any) -> Dual:
        x = [each.x if isinstance(each, Dual) else each for each in inputs]
        dx = [
            each.dx if isinstance(each, Dual) else np.zeros(np.shape(each))
            for each in inputs
        ]
        out = ufunc(*x)
        return type(self)(out, self.rules[ufunc](out, *x, *dx))

    def _both(self, do: Function) -> Dual:
        """What is linear does the same to the value and to the tangent."""
        return type(self)(do(self.x), do(self.dx))

    def sum(self, axis: Any = None, out: None = None, keepdims: bool = False) -> Dual:
        """Σ over `axis`."""
        return self._both(lambda a: a.sum(axis=axis, keepdims=keepdims))

    def reshape(self, shape: Any) -> Dual:
        """The same entries in another shape."""
        return self._both(lambda a: a.reshape(shape))

    def __getitem__(self, index: Any) -> Dual:
        return self._both(lambda a: a[index])

    @property
    def T(self) -> Dual:
        """The transpose."""
        return self._both(lambda a: a.T)


def jvp(f: Function, x: Array, v: Array) -> Any:
    """How fast f(x) changes as x moves along v: J v, in one forward pass."""
    return f(Dual(x, v)).dx


def hvp(f: Function, x: Array, v: Array) -> Any:
    """How fast ∇f(x) changes as x moves along v: H v, by dual numbers in the sweep."""
    return grad(f)(Dual(x, v)).dx


# ------------------------------------------------------------ cases


def _array(rng: Rng, *shape: int) -> Array:
    return np.asarray(rng.normal(size=shape))


def _unbroadcast_cases(rng: Rng) -> Iterator[Case]:
    for made, shape, note in (
        ((3,), (3,), "nothing was broadcast"),
        ((4, 3), (3,), "a row, copied down"),
        ((4, 3), (4, 1), "a column, copied across"),
        ((4, 3), (1, 3), "a row of two axes, copied down"),
        ((4, 1), (4, 1), "a length of one that was not stretched"),
        ((2, 4, 3), (4, 1), "an axis in front and one stretched"),
        ((2, 3), (), "a single number"),
    ):
        yield Case({"g": _array(rng, *made), "shape": shape}, note)


def _pair_cases(rng: Rng, operation: Function) -> Iterator[Case]:
    for one, other, note in (
        ((3,), (3,), "two vectors"),
        ((4, 3), (3,), "a matrix and a vector"),
        ((3, 1), (1, 3), "a column and a row"),
        ((), (2, 3), "a number and a matrix"),
    ):
        a, b = _array(rng, *one), np.asarray(rng.uniform(0.5, 2.0, other))
        out = operation(a, b)
        given = {"g": _array(rng, *out.shape), "out": out, "a": a, "b": b}
        yield Case(given, note)


def _one_cases(rng: Rng, operation: Function) -> Iterator[Case]:
    for shape, note in (((3,), "a vector"), ((2, 3), "a matrix"), ((), "a number")):
        a = _array(rng, *shape)
        out = np.asarray(operation(a))
        yield Case({"g": _array(rng, *shape), "out": out, "a": a}, note)


def _sum_cases(rng: Rng) -> Iterator[Case]:
    for shape, axis in (
        ((3,), None),
        ((2, 3), None),
        ((2, 3), 0),
        ((3, 3), 1),
        ((2, 3), -1),
        ((2, 2, 2), 1),
    ):
        a = _array(rng, *shape)
        out = np.asarray(a.sum(axis=axis))
        given = {"g": _array(rng, *out.shape), "out": out, "a": a, "axis": axis}
        yield Case(given, f"a has shape {shape}, axis = {axis}")


def _matmul_cases(rng: Rng) -> Iterator[Case]:
    for one, other, note in (
        ((3, 3), (3, 3), "square matrices"),
        ((2, 3), (3, 4), "matrices of different shapes"),
        ((3, 3), (3,), "a square matrix times a vector"),
        ((2, 3), (3,), "a matrix times a vector"),
    ):
        a, b = _array(rng, *one), _array(rng, *other)
        out = a @ b
        given = {"g": _array(rng, *out.shape), "out": out, "a": a, "b": b}
        yield Case(given, note)


def _index_cases(rng: Rng) -> Iterator[Case]:
    for shape, index, note in (
        ((4, 2), np.array([2, 0]), "each row once at most"),
        ((4, 2), np.array([1, 3, 1, 1]), "row 1 three times"),
        ((3,), np.array([0, 0, 2, 0, 2]), "a vector, entries several times"),
        ((3, 3), (np.arange(3), np.array([2, 0, 0])), "one entry of each row"),
    ):
        a = _array(rng, *shape)
        out = a[index]
        given = {"g": _array(rng, *out.shape), "out": out, "a": a, "index": index}
        yield Case(given, note)


def _logsumexp_cases(rng: Rng) -> Iterator[Case]:
    for shape, axis, shift, note in (
        ((4,), 0, 0.0, "a vector"),
        ((3, 3), 1, 0.0, "the rows of a matrix"),
        ((2, 3), 0, 0.0, "the columns of a matrix"),
        ((3, 4), -1, 0.0, "axis = -1"),
        ((2, 3), 1, 1000.0, "large numbers: exp overflows"),
        ((2, 3), 1, -1000.0, "large negative numbers: exp gives zero"),
    ):
        a = 2 * _array(rng, *shape) + shift
        out = np.asarray(safe_logsumexp(a, axis))
        given = {"g": _array(rng, *out.shape), "out": out, "a": a, "axis": axis}
        yield Case(given, note)


def _ladder(rungs: int) -> list[tuple[int, ...]]:
    """Each node is used twice by the next: the paths double at every rung."""
    return [(), *((i, i) for i in range(rungs))]


LADDER = "40 times, a node is used twice by the next: 2^40 paths"


def _chain(n: int) -> list[tuple[int, ...]]:
    return [(), *((i,) for i in range(n - 1))]


def _shuffled(parents: Parents, rng: Rng) -> tuple[list[tuple[int, ...]], list[int]]:
    """The same graph under other numbers, and the new number of each node."""
    new = [int(n) for n in rng.permutation(len(parents))]
    renamed: list[tuple[int, ...]] = [()] * len(parents)
    for old, above in enumerate(parents):
        renamed[new[old]] = tuple(new[p] for p in above)
    return renamed, new


def _random_graph(rng: Rng, n: int) -> list[tuple[int, ...]]:
    return [
        tuple(int(p) for p in rng.integers(0, i, min(i, 2))) if i > 1 else ()
        for i in range(n)
    ]


def _tangled_graph(rng: Rng, n: int) -> list[tuple[int, ...]]:
    """Parents among the four before: short paths and long ones between all nodes."""
    return [
        tuple(int(p) for p in rng.integers(max(0, i - 4), i, 2)) if i else ()
        for i in range(n)
    ]


def _order_cases(rng: Rng) -> Iterator[Case]:
    diamond = [(), (0,), (0,), (1, 2)]
    shortcut = [(), (0,), (1,), (0, 2), (3, 0)]
    for parents, note in (
        ([(), (0,), (1,), (2,)], "a chain"),
        (diamond, "two paths that meet"),
        ([(), (0,), (0, 1)], "node 0 is used by both others"),
        ([(), (0,), (1, 0)], "the same, the parents of node 2 exchanged"),
        (shortcut, "a short path and a long one"),
        (_turned_round(shortcut), "the numbers run the other way"),
        (_random_graph(rng, 12), "a random graph; not all of it is needed"),
    ):
        out = 0 if note.startswith("the numbers") else len(parents) - 1
        yield Case({"parents": parents, "out": out}, note)
    for n, kind in ((12, _tangled_graph), (24, _tangled_graph), (100, _random_graph)):
        renamed, new = _shuffled(kind(rng, n), rng)
        note = f"a random graph of {n} nodes, shuffled numbers"
        yield Case({"parents": renamed, "out": new[-1]}, note)
    yield Case({"parents": diamond, "out": 0}, "out was computed from nothing")
    yield Case({"parents": _chain(3_200), "out": 3_199}, "a chain of 3200 nodes")
    # last, since nothing is tried after a case that takes too long
    yield Case({"parents": _ladder(40), "out": 40}, LADDER)


def _turned_round(parents: Parents) -> list[tuple[int, ...]]:
    last = len(parents) - 1
    return [tuple(last - p for p in above) for above in reversed(parents)]


@dataclass(frozen=True, slots=True)
class Times:
    """The pull of a node that is a weighted sum of its parents: g times each factor."""

    factors: tuple[Any, ...] = ()

    def __deepcopy__(self, _memo: Any) -> Times:
        return self  # nothing in it can change

    @property
    def source(self) -> str:
        """What a learner would write for it."""
        return f"lambda g: ({', '.join(f'{f:g} * g' for f in self.factors)}{self._end}"

    @property
    def _end(self) -> str:
        return ",)" if len(self.factors) == 1 else ")"

    def __call__(self, g: Any) -> tuple[Any, ...]:
        """The cotangents of the parents."""
        return tuple(factor * g for factor in self.factors)


@dataclass(frozen=True, slots=True)
class Same:
    """The pull of a plain sum: it hands the very array g to each of `n` parents."""

    n: int

    def __deepcopy__(self, _memo: Any) -> Same:
        return self  # nothing in it can change

    @property
    def source(self) -> str:
        """What a learner would write for it."""
        return f"lambda g: (g,) * {self.n}"

    def __call__(self, g: Any) -> tuple[Any, ...]:
        """The cotangents of the parents."""
        return (g,) * self.n


def _times(rng: Rng, parents: Parents) -> list[Pull]:
    return [
        Times(tuple(float(f) for f in rng.uniform(0.5, 2.0, len(above)).round(2)))
        for above in parents
    ]


def _backward_cases(rng: Rng) -> Iterator[Case]:
    for parents, note in (
        ([(), (0,), (1,)], "a chain"),
        ([(), (), (0, 1), (2,)], "two inputs"),
        ([(), (0,), (0,), (1, 2)], "node 0 is used by two nodes"),
        ([(), (0, 0), (1,)], "node 0 is used twice by one node, as in x * x"),
        ([(), (0,), (1,), (1, 2)], "a short path and a long one"),
        ([(), (0,), (1,), (2, 1)], "the same, the parents of node 3 exchanged"),
        ([(), (0,), (0,), (1,)], "node 2 is not needed"),
    ):
        given = {"parents": parents, "pulls": _times(rng, parents)}
        yield Case({**given, "out": len(parents) - 1, "seed": 1.0}, note)
    for n in (9, 20):
        renamed, new = _shuffled(_tangled_graph(rng, n), rng)
        given = {"parents": renamed, "pulls": _times(rng, renamed), "out": new[-1]}
        note = f"{n} nodes, shuffled numbers; the seed is 0.5"
        yield Case({**given, "seed": 0.5}, note)
    parents = [(), (), (0, 1), (2, 0)]
    pulls = [Times(), Times(), Same(2), Same(2)]
    given = {"parents": parents, "pulls": pulls, "out": 3}
    yield Case({**given, "seed": _array(rng, 3)}, "arrays; c = (a + b) + a")
    chain, ladder = _chain(3_200), _ladder(40)
    given = {"parents": chain, "pulls": [Times(), *[Times((1.0,))] * 3_199]}
    yield Case({**given, "out": 3_199, "seed": 2.0}, "a chain of 3200 nodes")
    # last, since nothing is tried after a case that takes too long
    given = {"parents": ladder, "pulls": [Times(), *[Times((0.5, 0.4))] * 40]}
    yield Case({**given, "out": 40, "seed": 1.0}, LADDER)


def _cubes(x: Array) -> Any:
    return np.sum(x * x * x)


def _squares(x: Array) -> Any:
    return np.sum(x * x)


def _tiny_cubes(x: Array) -> Any:
    return 1e-9 * np.sum(x * x * x)


def _waves(x: Array) -> Any:
    return np.sum(np.sin(x))


def _logs(x: Array) -> Any:
    return np.sum(np.log(x))


def _weighted(x: Array) -> Any:
    return np.sum(np.arange(1.0, x.size + 1) * x.ravel())


def _mixed(x: Array) -> Any:
    return np.sum(np.tanh(x @ x))


def _mixed_gradient(x: Array) -> Array:
    slope = 1 - np.tanh(x @ x) ** 2
    out: Array = slope @ x.T + x.T @ slope
    return out


def _check_cases(rng: Rng) -> Iterator[Case]:
    x, up, M = _array(rng, 5), rng.uniform(1.0, 3.0, 4), 0.5 * _array(rng, 3, 3)
    one, gap = np.array([0.0, 0.0, 0.0, 1.0]), np.array([0.0, 0.0, 0.0, 0.0, np.nan])
    for f, g, at, note in (
        (_cubes, 3 * x**2, x, "right: the sum of cubes"),
        (_cubes, -3 * x**2, x, "wrong: its sign"),
        (_cubes, 6 * x**2, x, "wrong: twice as long"),
        (_cubes, 3 * up**2 * (1 + one), up, "wrong: the last entry, doubled"),
        (_cubes, 3 * up**2 * (1 + 1e-3 * one), up, "wrong: the last entry, by 0.1 %"),
        (_cubes, 0 * x, x, "wrong: zero"),
        (_cubes, 3e8 * up**2, 1e4 * up, "right: cubes of thousands"),
        (_cubes, 3e-8 * up**2, 1e-4 * up, "right: cubes of ten-thousandths"),
        (_cubes, 6e-8 * up**2, 1e-4 * up, "wrong: twice as long, at ten-thousandths"),
        (_tiny_cubes, -3e-9 * x**2, x, "wrong: the sign, of a very flat function"),
        (_logs, 1e6 / up, 1e-6 * up, "right: logarithms of millionths"),
        (_logs, 1e-6 / up, 1e6 * up, "right: logarithms of millions"),
        (_weighted, np.arange(1.0, 6.0), x, "right: a weighted sum"),
        (_squares, 2 * x, x, "right: the sum of squares"),
        (_squares, 0 * x, 0 * x, "right: a minimum, at zero"),
        (_waves, np.ones(3), np.zeros(3), "right: sines, at zero"),
        (_mixed, _mixed_gradient(M), M, "right: a matrix"),
        (_mixed, _mixed_gradient(M).T, M, "wrong: a matrix, transposed"),
        (_cubes, 3 * x**2 + gap, x, "wrong: one entry is NaN"),
    ):
        seed = int(rng.integers(1000))
        yield Case({"f": f, "g": g, "x": at, "rng": seed}, note)


_MATRIX = np.array([[0.9, -0.4, 0.3], [0.2, 0.7, -0.8], [-0.5, 0.6, 0.1]])
_TABLE = np.array([[1.0, -0.5], [0.3, 0.8], [-0.7, 0.4]])


def _cubes_of(x: Any) -> Any:
    return np.sum(x * x * x)


def _quadratic(x: Any) -> Any:
    return np.sum(x * (_MATRIX @ x))


def _layer(x: Any) -> Any:
    return np.sum(np.tanh(_MATRIX @ x + 0.3))


def _ratio(x: Any) -> Any:
    return np.sum(np.exp(x)) / (1 + np.sum(x * x))


def _net(x: Any) -> Any:
    miss = np.tanh(_TABLE @ x - 0.2) @ np.array([[1.0], [-2.0]]) - 0.5
    return np.sum(miss * miss)


def _twice_with_itself(x: Any) -> Any:
    return np.sum(2 / (3 - np.tanh(x @ x)) - (x - np.exp(-x)))


def _both_sides(x: Any) -> Any:
    return np.sum(np.tanh(_MATRIX @ x) * (x @ _MATRIX - 1))


NOTES = {
    _cubes_of: "f(x) = np.sum(x * x * x)",
    _quadratic: "f(x) = np.sum(x * (A @ x))",
    _layer: "f(x) = np.sum(np.tanh(A @ x + 0.3))",
    _ratio: "f(x) = np.sum(np.exp(x)) / (1 + np.sum(x * x))",
    _net: "f(W) = the squared errors of np.tanh(X @ W - 0.2) @ c",
    _twice_with_itself: "f(x) = np.sum(2 / (3 - np.tanh(x @ x)) - (x - np.exp(-x)))",
    _both_sides: "f(x) = np.sum(np.tanh(A @ x) * (x @ A - 1))",
}
SHAPES = {_net: (2, 2), _twice_with_itself: (3, 3), _both_sides: (3, 3)}


def _direction_cases(rng: Rng) -> Iterator[Case]:
    for f, note in NOTES.items():
        shape = SHAPES.get(f, (3,))
        yield Case({"f": f, "x": _array(rng, *shape), "v": _array(rng, *shape)}, note)


# ------------------------------------------------------------ exact Hessians


def _exact_hvp(f: Function, x: Array, v: Array) -> Array:
    """H v, worked out by hand for each of the functions above."""
    if f is _cubes_of:
        return np.asarray(6 * x * v)
    if f is _quadratic:
        return np.asarray((_MATRIX + _MATRIX.T) @ v)
    if f is _layer:
        t = np.tanh(_MATRIX @ x + 0.3)
        return np.asarray(_MATRIX.T @ (-2 * t * (1 - t**2) * (_MATRIX @ v)))
    if f is _ratio:
        e, s, below = np.exp(x), np.exp(x).sum(), 1 + x @ x
        H = np.diag(e) / below - 2 * (np.outer(e, x) + np.outer(x, e)) / below**2
        H += s * (8 * np.outer(x, x) / below**3 - 2 * np.eye(3) / below**2)
        return np.asarray(H @ v)
    if f is _twice_with_itself:
        t = np.tanh(x @ x)
        slope, below, moved = 1 - t**2, 3 - t, v @ x + x @ v
        c = 2 * slope / below**2
        dc = (4 * slope**2 / below**3 - 4 * t * slope / below**2) * moved
        return np.asarray(dc @ x.T + c @ v.T + v.T @ c + x.T @ dc + np.exp(-x) * v)
    if f is _both_sides:
        t, w = np.tanh(_MATRIX @ x), x @ _MATRIX - 1
        slope = 1 - t**2
        dt, dw = slope * (_MATRIX @ v), v @ _MATRIX
        inner = slope * dw - 2 * t * dt * w
        return np.asarray(_MATRIX.T @ inner + dt @ _MATRIX.T)
    t, c = np.tanh(_TABLE @ x - 0.2), np.array([[1.0], [-2.0]])
    slope, moved, miss = 1 - t**2, _TABLE @ v, t @ c - 0.5
    along = (slope * moved) @ c  # how the miss moves with v
    inner = along * slope * c.T - 2 * miss * t * slope * moved * c.T
    return np.asarray(2 * _TABLE.T @ inner)


def _is_exact(result: Any, f: Function, x: Array, v: Array) -> bool | str:
    wanted = _exact_hvp(f, x, v)
    if not isinstance(result, np.ndarray) or result.shape != x.shape:
        return f"return an array of the shape of x, {x.shape}"
    error = float(np.abs(result - wanted).max() / np.abs(wanted).max())
    return _small(error)


def _is_slope(result: Any, f: Function, x: Array, v: Array) -> bool | str:
    if np.ndim(result) != 0:
        return f"return a number, not an array of shape {np.shape(result)}"
    wanted = float(np.sum(grad(f)(x) * v))
    return _small(abs(float(result) - wanted) / abs(wanted))


def _small(error: float) -> bool | str:
    if error < 1e-12:
        return True
    text = f"the relative error is {error:.1g}"
    return text + (": are these differences?" if error < 1e-3 else "")


def _is_an_order(result: Any, parents: Parents, out: int) -> bool | str:
    if not isinstance(result, list) or not all(isinstance(n, int) for n in result):
        return "return a list of node numbers"
    at = {node: i for i, node in enumerate(result)}
    if len(at) < len(result):
        twice = next(n for n in result if result.count(n) > 1)
        return f"node {twice} stands in it {result.count(twice)} times"
    needed, todo = {out}, [out]
    while todo:
        fresh = set(parents[todo.pop()]) - needed
        needed |= fresh
        todo += fresh
    for node in sorted(needed - at.keys()):
        return f"node {node} is missing, which out needs"
    for node in sorted(at.keys() - needed):
        return f"node {node} is in it, which out does not need"
    for node in result:
        for parent in parents[node]:
            if at[parent] > at[node]:
                return f"node {node} comes before {parent}, its parent"
    return True


# ------------------------------------------------------------ plausible mistakes


def _only_stretched(g: Array, shape: tuple[int, ...]) -> Any:
    for i, length in enumerate(shape):
        if length == 1:
            g = g.sum(axis=i, keepdims=True)
    return g


def _stretched_first(g: Array, shape: tuple[int, ...]) -> Any:
    front = g.ndim - len(shape)
    return _only_stretched(g, shape).sum(axis=tuple(range(front)))


def _stretched_dropped(g: Array, shape: tuple[int, ...]) -> Any:
    g = g.sum(axis=tuple(range(g.ndim - len(shape))))
    return g.sum(axis=tuple(i for i, n in enumerate(shape) if n == 1))


def _aligned_left(g: Array, shape: tuple[int, ...]) -> Any:
    g = g.sum(axis=tuple(range(len(shape), g.ndim)))
    return _only_stretched(g, shape)


def _averaged(g: Array, shape: tuple[int, ...]) -> Any:
    return unbroadcast(g, shape) * np.prod(shape) / g.size


def _assigned(g: Array, a: Array, index: Any) -> Array:
    a_bar = np.zeros(a.shape)
    a_bar[index] += g  # the point: it writes a row once
    return a_bar


def _added(zeros: Array, index: Any, g: Array) -> Array:
    np.add.at(zeros, index, g)
    return zeros


def _recursive_order(parents: Parents, out: int) -> list[int]:
    order, seen = [], set()

    def visit(node: int) -> None:
        if node not in seen:
            seen.add(node)
            for parent in parents[node]:
                visit(parent)
            order.append(node)

    visit(out)
    return order


def _preorder(parents: Parents, out: int) -> list[int]:
    order, seen, stack = [], set(), [out]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            order.append(node)
            stack.extend(parents[node])
    return order


def _breadth_first(parents: Parents, out: int) -> list[int]:
    order, seen = [out], {out}
    for node in order:
        for parent in parents[node]:
            if parent not in seen:
                seen.add(parent)
                order.append(parent)
    return order


def _seen_when_pushed(parents: Parents, out: int, turn: int = 1) -> list[int]:
    order: list[int] = []
    seen, stack = {out}, [(out, False)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
            continue
        stack.append((node, True))
        for parent in parents[node][::turn]:
            if parent not in seen:
                seen.add(parent)
                stack.append((parent, False))
    return order


PATIENCE = 8_000  # steps, beyond which a version counts as one that never ends


def _every_path(parents: Parents, out: int) -> list[int]:
    order: list[int] = []
    stack = [(out, False)]
    for _ in range(PATIENCE):
        if not stack:
            return order
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        else:
            stack.append((node, True))
            stack.extend((parent, False) for parent in parents[node])
    raise TimeIsUp


def _every_path_by_recursion(parents: Parents, out: int) -> list[int]:
    order: list[int] = []
    steps = 0

    def visit(node: int) -> None:
        nonlocal steps
        steps += 1
        if steps > PATIENCE:
            raise TimeIsUp
        for parent in parents[node]:
            visit(parent)
        order.append(node)

    visit(out)
    return order


def _once_each(order: list[int]) -> list[int]:
    return list(dict.fromkeys(order))


def _sweep(
    parents: Parents,
    pulls: Sequence[Pull],
    out: int,
    seed: Any,
    order: Sequence[int],
    add: Function,
) -> list[Any]:
    """A sweep in some order, in which `add` joins what was there and what comes."""
    g: list[Any] = [None] * len(parents)
    g[out] = seed
    for node in order:
        if g[node] is None:
            continue
        for parent, share in zip(parents[node], pulls[node](g[node]), strict=True):
            g[parent] = share if g[parent] is None else add(g[parent], share)
    return g


def _plus(old: Any, new: Any) -> Any:
    return old + new


def _overwrites(parents: Parents, pulls: Any, out: int, seed: Any) -> list[Any]:
    order = topological_order(parents, out)[::-1]
    return _sweep(parents, pulls, out, seed, order, lambda old, new: new)


def _keeps_the_first(parents: Parents, pulls: Any, out: int, seed: Any) -> list[Any]:
    order = topological_order(parents, out)[::-1]
    return _sweep(parents, pulls, out, seed, order, lambda old, new: old)


def _adds_in_place(parents: Parents, pulls: Any, out: int, seed: Any) -> list[Any]:
    def add(old: Any, new: Any) -> Any:
        old += new
        return old

    order = topological_order(parents, out)[::-1]
    return _sweep(parents, pulls, out, np.copy(seed)[()], order, add)


def _by_number(parents: Parents, pulls: Any, out: int, seed: Any) -> list[Any]:
    order = range(len(parents) - 1, -1, -1)
    return _sweep(parents, pulls, out, seed, order, _plus)


def _breadth_first_sweep(
    parents: Parents, pulls: Any, out: int, seed: Any
) -> list[Any]:
    order = _breadth_first(parents, out)
    return _sweep(parents, pulls, out, seed, order, _plus)


def _own_seed(parents: Parents, pulls: Any, out: int, seed: Any) -> list[Any]:
    return backward(parents, pulls, out, np.ones_like(seed)[()])


def _zeros_elsewhere(parents: Parents, pulls: Any, out: int, seed: Any) -> list[Any]:
    found = backward(parents, pulls, out, seed)
    return [0.0 if g is None else g for g in found]


def _seen_when_pushed_sweep(
    parents: Parents, pulls: Any, out: int, seed: Any, turn: int = 1
) -> list[Any]:
    order = _seen_when_pushed(parents, out, turn)[::-1]
    return _sweep(parents, pulls, out, seed, order, _plus)


def _recursive_sweep(parents: Parents, pulls: Any, out: int, seed: Any) -> list[Any]:
    order = _recursive_order(parents, out)[::-1]
    return _sweep(parents, pulls, out, seed, order, _plus)


def _passed_on_early(parents: Parents, pulls: Any, out: int, seed: Any) -> list[Any]:
    g: list[Any] = [None] * len(parents)
    g[out] = seed
    stack = [out]
    for _ in range(PATIENCE):
        if not stack:
            return g
        node = stack.pop()
        for parent, share in zip(parents[node], pulls[node](g[node]), strict=True):
            g[parent] = share if g[parent] is None else g[parent] + share
            stack.append(parent)
    raise TimeIsUp


def _path_by_path(parents: Parents, pulls: Any, out: int, seed: Any) -> list[Any]:
    g: list[Any] = [None] * len(parents)
    stack = [(out, seed)]
    for _ in range(PATIENCE):
        if not stack:
            return g
        node, share = stack.pop()
        g[node] = share if g[node] is None else g[node] + share
        stack.extend(zip(parents[node], pulls[node](share), strict=True))
    raise TimeIsUp


def _path_by_path_by_recursion(
    parents: Parents, pulls: Any, out: int, seed: Any
) -> list[Any]:
    g: list[Any] = [None] * len(parents)
    steps = 0

    def go(node: int, share: Any) -> None:
        nonlocal steps
        steps += 1
        if steps > PATIENCE:
            raise TimeIsUp
        g[node] = share if g[node] is None else g[node] + share
        for parent, part in zip(parents[node], pulls[node](share), strict=True):
            go(parent, part)

    go(out, seed)
    return g


def _one_use_an_operation(
    parents: Parents, pulls: Any, out: int, seed: Any
) -> list[Any]:
    g: list[Any] = [None] * len(parents)
    g[out] = seed
    for node in reversed(topological_order(parents, out)):
        shares = pulls[node](g[node])
        for parent, share in dict(zip(parents[node], shares, strict=True)).items():
            g[parent] = share if g[parent] is None else g[parent] + share
    return g


def _central(f: Function, x: Array, v: Array, h: float) -> Any:
    with np.errstate(all="ignore"):
        return (f(x + h * v) - f(x - h * v)) / (2 * h)


def _size(x: Array) -> float:
    return float(np.abs(x).max() or 1.0)


def _compared(
    f: Function,
    g: Array,
    x: Array,
    rng: Rng,
    h: float | None = None,
    rtol: float = 1e-6,
    difference: Function = _central,
) -> bool:
    """A checker that can be made worse: its step, its tolerance, its difference."""
    h = 6e-6 * _size(x) if h is None else h
    v = rng.normal(size=x.shape)
    slope = difference(f, x, v, h)
    size = max(np.abs(slope), np.linalg.norm(g))
    return bool(np.abs(slope - np.sum(g * v)) <= rtol * size)


def _one_sided(
    f: Function, g: Array, x: Array, rng: Rng, h: float | None = None
) -> bool:
    def forward(f: Function, x: Array, v: Array, h: float) -> Any:
        return (f(x + h * v) - f(x)) / h

    return _compared(f, g, x, rng, h=h, difference=forward)


def _not_halved(f: Function, g: Array, x: Array, rng: Rng) -> bool:
    def twice(f: Function, x: Array, v: Array, h: float) -> Any:
        return 2 * _central(f, x, v, h)

    return _compared(f, g, x, rng, difference=twice)


def _absolute(f: Function, g: Array, x: Array, rng: Rng, atol: float = 1e-6) -> bool:
    v = rng.normal(size=x.shape)
    slope = _central(f, x, v, 6e-6 * _size(x))
    return bool(np.abs(slope - np.sum(g * v)) <= atol)


def _along_the_ones(f: Function, g: Array, x: Array, rng: Rng) -> bool:
    slope = _central(f, x, np.ones(x.shape), 6e-6 * _size(x))
    size = max(np.abs(slope), np.linalg.norm(g))
    return bool(np.abs(slope - np.sum(g)) <= 1e-6 * size)


def _first_entry(f: Function, g: Array, x: Array, rng: Rng) -> bool:
    v = np.zeros(x.shape)
    v.flat[0] = 1.0
    slope = _central(f, x, v, 6e-6 * _size(x))
    size = max(np.abs(slope), np.abs(g.flat[0]))
    return bool(np.abs(slope - g.flat[0]) <= 1e-6 * size)


def _without_sign(f: Function, g: Array, x: Array, rng: Rng) -> bool:
    v = rng.normal(size=x.shape)
    slope = np.abs(_central(f, x, v, 6e-6 * _size(x)))
    size = max(slope, np.linalg.norm(g))
    return bool(np.abs(slope - np.abs(np.sum(g * v))) <= 1e-6 * size)


def _accepts_nan(f: Function, g: Array, x: Array, rng: Rng) -> bool:
    v = rng.normal(size=x.shape)
    slope = _central(f, x, v, 6e-6 * _size(x))
    size = max(np.abs(slope), np.linalg.norm(g))
    return not np.abs(slope - np.sum(g * v)) > 1e-6 * size


def _ruled(wrong: Any, rule: Function) -> type[Dual]:
    """A class like Dual with another rule for one operation."""

    class Misruled(Dual):
        rules = Dual.rules | {wrong: rule}

    return Misruled


def _exchanged(wrong: Any) -> type[Dual]:
    """A class like Dual that takes a constant on the left for one on the right."""

    class Exchanged(Dual):
        def __array_ufunc__(self, ufunc: Any, _method: str, *inputs: Any) -> Dual:
            if ufunc is wrong and not isinstance(inputs[0], Dual):
                inputs = inputs[::-1]
            return super().__array_ufunc__(ufunc, _method, *inputs)

    return Exchanged


def _jvp_by(kind: type[Dual]) -> Function:
    return lambda f, x, v: f(kind(x, v)).dx


def _hvp_by(kind: type[Dual]) -> Function:
    return lambda f, x, v: grad(f)(kind(x, v)).dx


def _gradient_difference(f: Function, x: Array, v: Array) -> Any:
    h = 1e-5
    return (grad(f)(x + h * v) - grad(f)(x - h * v)) / (2 * h)


def _diagonal(f: Function, x: Array, v: Array) -> Any:
    columns = [hvp(f, x, e.reshape(x.shape)).ravel() for e in np.eye(x.size)]
    return np.diag(columns).reshape(x.shape) * v


# ------------------------------------------------------------ the exercises

ONE_SIDED = (
    "You use (f(x + h v) - f(x)) / h, whose error is of the order of h: it refuses "
    "right gradients of curved functions. Step to both sides."
)
TOO_SMALL = (
    "It refuses even straight lines: with so small a step, rounding is all that is "
    "left of the difference. Try 6e-6 times the size of x."
)
ABSOLUTE = (
    "You compare with a fixed number: where the gradient is tiny, anything passes, and "
    "where it is huge, nothing does. Compare the error with the size of the gradient."
)
NOT_UNDONE = (
    "You do not undo broadcasting: the cotangent of an input must have the shape of "
    "that input. Pass it through unbroadcast."
)
TOO_EARLY = (
    "You undo the broadcasting of g before you multiply. The copies have different "
    "factors: multiply first, sum afterwards."
)
FORGOT_G = (
    "Your result does not depend on g. A pull multiplies what comes from above by the "
    "slope of this step: that is the chain rule."
)
NO_COMMA = (
    "You return the array itself. A pull returns a tuple, also of one: (something,), "
    "with a comma."
)
SEEN_WHEN_PUSHED = (
    "You mark a node when you push it. A node that needs it may then be done first. "
    "Mark it when you take it off the stack."
)
WRONG_ORDER = (
    "The topological order that you use is wrong: a node is visited while a share of "
    "its cotangent is still missing. Does your topological_order pass its check?"
)
REPEATED = (
    "Your order is right, but you follow every path, and the paths double with each "
    "node that is used twice. Keep a set of the nodes that you have seen, and do not "
    "look at the parents of a node again."
)
EVERY_PATH = (
    "You follow every path, so a node that is used twice stands twice in your list. "
    "Keep a set of the nodes that you have seen."
)
CHILDREN_FIRST = (
    "Your list begins with out and ends with the inputs. Parents come first: turn it "
    "round."
)
PATH_BY_PATH = (
    "You send every share on by itself, along every path, and the paths double with "
    "each node that is used twice. Go in reverse topological order: add the shares of "
    "a node up, then pull their sum back once."
)
OWN_SEED = (
    "Your sweep starts at one whatever the seed is. The cotangent of out is the seed."
)
SWEEP_MISTAKES = (
    Mistake(
        "overwrites",
        "A node that is used more than once keeps only its last cotangent in your "
        "sweep. Each use brings a share, and the shares add up.",
        _overwrites,
    ),
    Mistake(
        "keeps the first",
        "A node that is used more than once keeps only its first cotangent in your "
        "sweep. Each use brings a share, and the shares add up.",
        _keeps_the_first,
    ),
    Mistake(
        "one use an operation",
        "Your sweep loses a share where one operation uses a node twice, as x * x "
        "does: a dict or a set of the parents holds each only once.",
        _one_use_an_operation,
    ),
    Mistake(
        "adds in place",
        "Your += writes into an array that a pull has handed to two parents, so both "
        "change. Write g[p] = g[p] + share, which makes a new array.",
        _adds_in_place,
    ),
    Mistake(
        "by number",
        "You sweep from the largest number to the smallest. Numbers say nothing about "
        "the order: use topological_order.",
        _by_number,
    ),
    Mistake(
        "passed on early",
        "You pass a cotangent on before it is complete, and again when the rest has "
        "come: early shares are counted twice. Go in reverse topological order, each "
        "node once.",
        _passed_on_early,
    ),
    Mistake(
        "breadth first",
        "You visit nodes by their distance from out, or the topological order that "
        "you use is wrong. A node is visited while a share of its cotangent is still "
        "missing.",
        _breadth_first_sweep,
    ),
    Mistake("wrong order", WRONG_ORDER, _seen_when_pushed_sweep),
    Mistake(
        "wrong order, parents from the right",
        WRONG_ORDER,
        lambda parents, pulls, out, seed: _seen_when_pushed_sweep(
            parents, pulls, out, seed, turn=-1
        ),
    ),
    Mistake(
        "recursion",
        "Right, but a function of yours calls itself for each node of a chain, and "
        "Python stops it at about a thousand calls. Keep a list of what is still to be "
        "done instead.",
        _recursive_sweep,
    ),
    Mistake("path by path", PATH_BY_PATH, _path_by_path),
    Mistake("path by path, by recursion", PATH_BY_PATH, _path_by_path_by_recursion),
    Mistake(
        "own seed",
        OWN_SEED,
        _own_seed,
    ),
    Mistake(
        "a seed of 1.0",
        OWN_SEED,
        lambda parents, pulls, out, seed: backward(parents, pulls, out, 1.0),
    ),
    Mistake(
        "zeros elsewhere",
        "Nodes that out does not need hold zero in your result; None is wanted.",
        _zeros_elsewhere,
    ),
)

WRONG_DUALS = (
    (
        "product rule",
        "Your rule for a b loses a term: the tangent is da b + a db.",
        _ruled(np.multiply, lambda out, a, b, da, db: da * b),
    ),
    (
        "product of the tangents",
        "Your rule for a b multiplies the tangents. That is the part of ε², which is "
        "zero: the tangent is da b + a db.",
        _ruled(np.multiply, lambda out, a, b, da, db: da * db),
    ),
    (
        "quotient rule",
        "In your rule for a / b, b is not squared: the tangent is "
        "(da b - a db) / b², or (da - out db) / b.",
        _ruled(np.divide, lambda out, a, b, da, db: (da * b - a * db) / b),
    ),
    (
        "quotient rule, its sign",
        "Your rule for a / b has a wrong sign: the tangent is (da b - a db) / b².",
        _ruled(np.divide, lambda out, a, b, da, db: (da + out * db) / b),
    ),
    (
        "quotient of the tangents",
        "Your rule for a / b divides the tangents: it is (da b - a db) / b².",
        _ruled(np.divide, lambda out, a, b, da, db: da / b),
    ),
    (
        "rule of tanh",
        "Your rule for tanh is wrong: the slope is 1 - out².",
        _ruled(np.tanh, lambda out, a, da: (1 - a * a) * da),
    ),
    (
        "rule of the sigmoid",
        "out (1 - out) is the slope of the sigmoid. That of tanh is 1 - out².",
        _ruled(np.tanh, lambda out, a, da: out * (1 - out) * da),
    ),
    (
        "rule of exp",
        "Your rule for exp takes the tangent as it is: it has to be multiplied by out.",
        _ruled(np.exp, lambda out, a, da: da),
    ),
    (
        "difference",
        "Your rule for a - b adds the tangents: the tangent is da - db.",
        _ruled(np.subtract, lambda out, a, b, da, db: da + db),
    ),
    (
        "negation",
        "Your rule for -a keeps the sign of the tangent: it is -da.",
        _ruled(np.negative, lambda out, a, da: da),
    ),
    (
        "product of matrices, its second term",
        "Your rule for a @ b loses a term: the tangent is da @ b + a @ db.",
        _ruled(np.matmul, lambda out, a, b, da, db: da @ b),
    ),
    (
        "product of matrices, the order of the factors",
        "In your rule for a @ b, a factor has changed its side: the tangent is "
        "da @ b + a @ db.",
        _ruled(np.matmul, lambda out, a, b, da, db: da @ b + db @ a),
    ),
    (
        "minus, exchanged",
        "Your 3 - x is x - 3: __rsub__(self, other) is other - self.",
        _exchanged(np.subtract),
    ),
    (
        "division, exchanged",
        "Your 2 / x is x / 2: __rtruediv__(self, other) is other / self.",
        _exchanged(np.divide),
    ),
    (
        "@, exchanged",
        "Your A @ x is x @ A: __rmatmul__(self, other) is other @ self.",
        _exchanged(np.matmul),
    ),
)

EXERCISES = (
    Exercise(
        "unbroadcast",
        "unbroadcast(g, shape) -> cotangent of that shape",
        unbroadcast,
        _unbroadcast_cases,
        mistakes=(
            Mistake(
                "leading axes kept",
                "You sum over axes of length one only. Broadcasting also puts new "
                "axes in front: sum over the first g.ndim - len(shape) axes, too.",
                _only_stretched,
            ),
            Mistake(
                "stretched axes dropped",
                "An axis of length one was stretched; your sum removes it. It has to "
                "stay, with length one: keepdims=True.",
                _stretched_dropped,
            ),
            Mistake(
                "aligned on the left",
                "You take the axes that are too many from the end. Broadcasting "
                "aligns shapes on the right and puts new axes in front.",
                _aligned_left,
            ),
            Mistake(
                "front axes only",
                "You sum over the axes in front only. An axis that has length one in "
                "shape was stretched: sum over it, too, with keepdims=True.",
                lambda g, shape: g.sum(axis=tuple(range(g.ndim - len(shape)))),
            ),
            Mistake(
                "stretched axes first",
                "Drop the front axes first; then the axis numbers are those of shape.",
                _stretched_first,
            ),
            Mistake(
                "averaged",
                "You take the mean over the copies. Each copy was a use, and the "
                "cotangents of all uses add up.",
                _averaged,
            ),
            Mistake(
                "nothing summed",
                "You return g as it came. It has the shape of the output; the input "
                "was smaller.",
                lambda g, shape: np.copy(g),
            ),
        ),
    ),
    Exercise(
        "pull_multiply",
        "pull_multiply(g, out, a, b) -> cotangents of a and of b",
        pull_multiply,
        lambda rng: _pair_cases(rng, np.multiply),
        mistakes=(
            Mistake(
                "exchanged",
                "You multiply g by a for the cotangent of a. The slope of a b in the "
                "direction of a is b.",
                lambda g, out, a, b: (
                    unbroadcast(g * a, a.shape),
                    unbroadcast(g * b, b.shape),
                ),
            ),
            Mistake(
                "results exchanged",
                "Both cotangents are right but in the wrong places: that of a first.",
                lambda g, out, a, b: pull_multiply(g, out, a, b)[::-1],
            ),
            Mistake(
                "not undone",
                NOT_UNDONE,
                lambda g, out, a, b: (g * b, g * a),
            ),
            Mistake(
                "g summed first",
                TOO_EARLY,
                lambda g, out, a, b: (
                    unbroadcast(g, a.shape) * b,
                    unbroadcast(g, b.shape) * a,
                ),
            ),
            Mistake(
                "forgot g",
                FORGOT_G,
                lambda g, out, a, b: (
                    unbroadcast(b + 0 * g, a.shape),
                    unbroadcast(a + 0 * g, b.shape),
                ),
            ),
            Mistake(
                "summed too early",
                TOO_EARLY,
                lambda g, out, a, b: (
                    unbroadcast(unbroadcast(g, a.shape) * b, a.shape),
                    unbroadcast(unbroadcast(g, b.shape) * a, b.shape),
                ),
            ),
        ),
    ),
    Exercise(
        "pull_divide",
        "pull_divide(g, out, a, b) -> cotangents of a and of b",
        pull_divide,
        lambda rng: _pair_cases(rng, np.divide),
        mistakes=(
            Mistake(
                "sign",
                "Your cotangent of b has the wrong sign: a larger b makes a / b "
                "smaller.",
                lambda g, out, a, b: (
                    unbroadcast(g / b, a.shape),
                    unbroadcast(g * out / b, b.shape),
                ),
            ),
            Mistake(
                "forgot a",
                "Your cotangent of b does not depend on a. The slope of a / b in the "
                "direction of b is -a / b².",
                lambda g, out, a, b: (
                    unbroadcast(g / b, a.shape),
                    unbroadcast(-g / b**2, b.shape),
                ),
            ),
            Mistake(
                "b not squared",
                "In your cotangent of b, b stands once below the line. The slope of "
                "a / b in the direction of b is -a / b².",
                lambda g, out, a, b: (
                    unbroadcast(g / b, a.shape),
                    unbroadcast(-g * a / b, b.shape),
                ),
            ),
            Mistake(
                "times b",
                "You multiply by b for the cotangent of a. The slope of a / b in the "
                "direction of a is 1 / b.",
                lambda g, out, a, b: (
                    unbroadcast(g * b, a.shape),
                    unbroadcast(-g * out / b, b.shape),
                ),
            ),
            Mistake(
                "not undone",
                NOT_UNDONE,
                lambda g, out, a, b: (g / b, -g * out / b),
            ),
        ),
    ),
    Exercise(
        "pull_exp",
        "pull_exp(g, out, a) -> (cotangent of a,)",
        pull_exp,
        lambda rng: _one_cases(rng, np.exp),
        mistakes=(
            Mistake("forgot g", FORGOT_G, lambda g, out, a: (np.copy(out),)),
            Mistake("no comma", NO_COMMA, lambda g, out, a: g * out),
            Mistake(
                "times a",
                "You multiply g by a. The slope of exp at a is exp(a), which is out.",
                lambda g, out, a: (g * a,),
            ),
            Mistake(
                "exp of out",
                "You take exp once more: out is exp(a) already.",
                lambda g, out, a: (g * np.exp(out),),
            ),
        ),
    ),
    Exercise(
        "pull_tanh",
        "pull_tanh(g, out, a) -> (cotangent of a,)",
        pull_tanh,
        lambda rng: _one_cases(rng, np.tanh),
        mistakes=(
            Mistake(
                "a for out",
                "You write 1 - a². The slope of tanh is 1 - tanh(a)², and tanh(a) is "
                "out.",
                lambda g, out, a: (g * (1 - a * a),),
            ),
            Mistake(
                "tanh of out",
                "You take tanh once more: out is tanh(a) already.",
                lambda g, out, a: (g * (1 - np.tanh(out) ** 2),),
            ),
            Mistake(
                "not squared",
                "You write 1 - out; it is 1 - out².",
                lambda g, out, a: (g * (1 - out),),
            ),
            Mistake(
                "the sigmoid's",
                "out (1 - out) is the slope of the sigmoid. That of tanh is 1 - out².",
                lambda g, out, a: (g * out * (1 - out),),
            ),
            Mistake("forgot g", FORGOT_G, lambda g, out, a: (1 - out * out,)),
            Mistake("no comma", NO_COMMA, lambda g, out, a: g * (1 - out * out)),
        ),
    ),
    Exercise(
        "pull_sum",
        "pull_sum(g, out, a, axis) -> (cotangent of a,); axis is None or a number",
        pull_sum,
        _sum_cases,
        mistakes=(
            Mistake(
                "axis not put back",
                "You let g broadcast as it is. The sum has removed an axis; put it "
                "back with np.expand_dims(g, axis), or g lies across the wrong one.",
                lambda g, out, a, axis: (g * np.ones(a.shape),),
            ),
            Mistake(
                "mean",
                "You share g out among the summands. The slope of a sum in the "
                "direction of each summand is one: each gets the whole of g.",
                lambda g, out, a, axis: (
                    pull_sum(g, out, a, axis)[0] * out.size / a.size,
                ),
            ),
            Mistake(
                "times a",
                "You multiply g by a. The slope of a sum in the direction of a "
                "summand is one, whatever its value.",
                lambda g, out, a, axis: (pull_sum(g, out, a, axis)[0] * a,),
            ),
            Mistake(
                "g summed",
                "You add all of g up. Each summand was used by one entry of the sum "
                "and gets the cotangent of that entry.",
                lambda g, out, a, axis: (g.sum() * np.ones(a.shape),),
            ),
            Mistake(
                "no comma",
                NO_COMMA,
                lambda g, out, a, axis: pull_sum(g, out, a, axis)[0],
            ),
        ),
    ),
    Exercise(
        "pull_matmul",
        "pull_matmul(g, out, a, b) -> cotangents of a and of b",
        pull_matmul,
        _matmul_cases,
        mistakes=(
            Mistake(
                "nothing transposed",
                "You forgot to transpose. Shapes help: g has the rows of a and the "
                "columns of b.",
                lambda g, out, a, b: (g @ b, a @ g),
            ),
            Mistake(
                "factors exchanged",
                "The factors stand in the wrong order: g has the rows of a, so it "
                "stands first in the cotangent of a, and last in that of b.",
                lambda g, out, a, b: (b.T @ g, g @ a.T),
            ),
            Mistake(
                "vector not handled",
                "Matrix times matrix is right. If b is a vector, g is one, too, and "
                "the cotangent of a is the table of all g[i] * b[j]: np.outer(g, b).",
                lambda g, out, a, b: (g @ b.T, a.T @ g),
            ),
            Mistake(
                "vector's table turned",
                "If b is a vector, your cotangent of a has g along the columns. Row i "
                "of a made out[i], so g[i] belongs to row i: np.outer(g, b).",
                lambda g, out, a, b: (
                    np.outer(b, g) if b.ndim == 1 else g @ b.T,
                    a.T @ g,
                ),
            ),
            Mistake(
                "results exchanged",
                "Both cotangents are right but in the wrong places: that of a first.",
                lambda g, out, a, b: pull_matmul(g, out, a, b)[::-1],
            ),
        ),
    ),
    Exercise(
        "pull_index",
        "pull_index(g, out, a, index) -> (cotangent of a,), for out = a[index]",
        pull_index,
        _index_cases,
        mistakes=(
            Mistake(
                "repeats lost",
                "A row that was taken several times gets only its last share. "
                "Writing to a_bar[index], with = or +=, writes each row once; "
                "np.add.at(a_bar, index, g) adds every share.",
                lambda g, out, a, index: (_assigned(g, a, index),),
            ),
            Mistake(
                "zeros like g",
                "You start from zeros in the shape of g. The cotangent of a has the "
                "shape of a.",
                lambda g, out, a, index: (_added(np.zeros_like(g), index, g),),
            ),
            Mistake(
                "no comma",
                NO_COMMA,
                lambda g, out, a, index: pull_index(g, out, a, index)[0],
            ),
            Mistake(
                "taken, not given back",
                "You index g. It goes the other way: entry i of g is added to row "
                "index[i] of an array of zeros in the shape of a.",
                lambda g, out, a, index: (g[index],),
            ),
            Mistake(
                "starts from a",
                "You add g to the values of a. A cotangent starts from zero.",
                lambda g, out, a, index: (a + pull_index(g, out, a, index)[0],),
            ),
            Mistake(
                "forgot g",
                FORGOT_G,
                lambda g, out, a, index: pull_index(np.ones(g.shape), out, a, index),
            ),
        ),
    ),
    Exercise(
        "pull_logsumexp",
        "pull_logsumexp(g, out, a, axis) -> (cotangent of a,)",
        pull_logsumexp,
        _logsumexp_cases,
        mistakes=(
            Mistake(
                "overflow",
                "Right for small numbers; exp of a large one overflows, and of a very "
                "negative one is zero. Take exp of a - out, which is never positive.",
                lambda g, out, a, axis: (
                    np.expand_dims(g, axis)
                    * np.exp(a)
                    / np.exp(a).sum(axis=axis, keepdims=True),
                ),
            ),
            Mistake(
                "axis not put back",
                "You let g and out broadcast as they are. The sum has removed an "
                "axis; put it back with np.expand_dims.",
                lambda g, out, a, axis: (g * np.exp(a - out),),
            ),
            Mistake(
                "over all entries",
                "Your softmax sums to one over the whole array. It must do so along "
                "the axis.",
                lambda g, out, a, axis: (
                    np.expand_dims(g, axis) * np.exp(a - safe_logsumexp(a.ravel(), 0)),
                ),
            ),
            Mistake(
                "logarithm left",
                "You multiply by a - out, the logarithm of the softmax. Take its exp.",
                lambda g, out, a, axis: (
                    np.expand_dims(g, axis) * (a - np.expand_dims(out, axis)),
                ),
            ),
            Mistake(
                "forgot g",
                FORGOT_G,
                lambda g, out, a, axis: pull_logsumexp(np.ones(g.shape), out, a, axis),
            ),
            Mistake(
                "no comma",
                NO_COMMA,
                lambda g, out, a, axis: pull_logsumexp(g, out, a, axis)[0],
            ),
        ),
    ),
    Exercise(
        "topological_order",
        "topological_order(parents, out) -> list of node numbers, parents first",
        topological_order,
        _order_cases,
        laws=(
            Law("each node that out needs, once and after its parents", _is_an_order),
        ),
        mistakes=(
            Mistake(
                "recursion",
                "Your order is right, but your function calls itself, and Python "
                "stops it about a thousand calls deep. Keep a list of what is still "
                "to be done instead.",
                _recursive_order,
            ),
            Mistake(
                "out first",
                "You append a node before its parents. Append it when all of them "
                "have been appended.",
                _preorder,
            ),
            Mistake(
                "reversed preorder",
                "You visit from out and turn the list round at the end. That works "
                "for trees only: with a short and a long path to a node, it comes too "
                "late. Append a node after its parents instead.",
                lambda parents, out: _preorder(parents, out)[::-1],
            ),
            Mistake(
                "reversed breadth first",
                "You turn round a search by distance from out. With a short and a "
                "long path to a node, its distance is the short one, and it comes too "
                "late.",
                lambda parents, out: _breadth_first(parents, out)[::-1],
            ),
            Mistake("seen when pushed", SEEN_WHEN_PUSHED, _seen_when_pushed),
            Mistake(
                "seen when pushed, parents from the right",
                SEEN_WHEN_PUSHED,
                lambda parents, out: _seen_when_pushed(parents, out, turn=-1),
            ),
            Mistake(
                "children first",
                CHILDREN_FIRST,
                lambda parents, out: topological_order(parents, out)[::-1],
            ),
            Mistake(
                "children first, by recursion",
                CHILDREN_FIRST,
                lambda parents, out: _recursive_order(parents, out)[::-1],
            ),
            Mistake("every path", EVERY_PATH, _every_path),
            Mistake("every path, by recursion", EVERY_PATH, _every_path_by_recursion),
            Mistake(
                "every path, then each once",
                REPEATED,
                lambda parents, out: _once_each(_every_path(parents, out)),
            ),
            Mistake(
                "every path, then each once, by recursion",
                REPEATED,
                lambda parents, out: _once_each(_every_path_by_recursion(parents, out)),
            ),
            Mistake(
                "by number",
                "You sort the numbers. They say nothing about the order: look at "
                "parents.",
                lambda parents, out: sorted(topological_order(parents, out)),
            ),
        ),
        compare=False,
    ),
    Exercise(
        "backward",
        "backward(parents, pulls, out, seed) -> list g, one cotangent a node, or None",
        backward,
        _backward_cases,
        mistakes=SWEEP_MISTAKES,
    ),
    Exercise(
        "check_gradient",
        "check_gradient(f, g, x, rng) -> True or False",
        check_gradient,
        _check_cases,
        mistakes=(
            Mistake("one-sided", ONE_SIDED, _one_sided),
            Mistake(
                "one-sided, smaller step",
                ONE_SIDED,
                lambda f, g, x, rng: _one_sided(f, g, x, rng, h=1e-6 * _size(x)),
            ),
            Mistake(
                "one-sided, fixed step",
                ONE_SIDED,
                lambda f, g, x, rng: _one_sided(f, g, x, rng, h=1e-6),
            ),
            Mistake(
                "one-sided, seen at a minimum",
                "You step to one side. At a minimum that difference is not zero, as "
                "the gradient is: step to both sides.",
                lambda f, g, x, rng: _one_sided(f, g, x, rng, h=1.5e-8 * _size(x)),
            ),
            Mistake(
                "step too small",
                TOO_SMALL,
                lambda f, g, x, rng: _compared(f, g, x, rng, h=1e-12),
            ),
            Mistake(
                "step too small, in proportion",
                TOO_SMALL,
                lambda f, g, x, rng: _compared(f, g, x, rng, h=1e-14 * _size(x)),
            ),
            Mistake(
                "step too large",
                "It refuses right gradients of functions more curved than a parabola: "
                "your step is too large. Try 6e-6 times the size of x.",
                lambda f, g, x, rng: _compared(f, g, x, rng, h=0.01 * _size(x)),
            ),
            Mistake(
                "step of one size",
                "Your step is the same for millionths and for millions. Make it "
                "proportional to the size of x.",
                lambda f, g, x, rng: _compared(f, g, x, rng, h=6e-6),
            ),
            Mistake(
                "step never small",
                "You add one to the size of x: for an x of millionths, the step is "
                "then larger than x. Use the size alone, and one where it is zero.",
                lambda f, g, x, rng: _compared(f, g, x, rng, h=6e-6 * (1 + _size(x))),
            ),
            Mistake(
                "no step at zero",
                "Your step is proportional to x, so at x = 0 there is none and you "
                "divide zero by zero. Take one for the size of x there.",
                lambda f, g, x, rng: (
                    bool(x.any()) and check_gradient(f, g, x, rng)  # NaN is no match
                ),
            ),
            Mistake("absolute tolerance", ABSOLUTE, _absolute),
            Mistake(
                "absolute tolerance, coarser",
                ABSOLUTE,
                lambda f, g, x, rng: _absolute(f, g, x, rng, atol=1e-4),
            ),
            Mistake(
                "divided by h",
                "The two points are 2 h apart, and you divide by h.",
                _not_halved,
            ),
            Mistake(
                "along the ones",
                "Your direction has the same entry everywhere, so you compare sums: a "
                "transposed gradient passes. Draw directions from rng.",
                _along_the_ones,
            ),
            Mistake(
                "first entry",
                "You test the first entry only. A random direction tests them all at "
                "once.",
                _first_entry,
            ),
            Mistake(
                "sign lost",
                "You compare absolute values: a gradient that points the other way "
                "passes.",
                _without_sign,
            ),
            Mistake(
                "too tolerant",
                "An error of 0.1 % in one entry passes. Central differences are good "
                "to nine digits or so: ask for six.",
                lambda f, g, x, rng: _compared(f, g, x, rng, rtol=1e-2),
            ),
            Mistake(
                "accepts NaN",
                "It accepts a gradient that holds NaN. A comparison with NaN is false, "
                "so `error > allowed` is, too: ask for `error <= allowed`.",
                _accepts_nan,
            ),
            Mistake(
                "accepts all",
                "It never refuses. Does a comparison stand the wrong way round?",
                lambda f, g, x, rng: True,
            ),
        ),
    ),
    Exercise(
        "fixed_backward",
        "fixed_backward(parents, pulls, out, seed) -> list g of cotangents, or None",
        backward,
        _backward_cases,
        mistakes=SWEEP_MISTAKES,
    ),
    Exercise(
        "jvp",
        "jvp(f, x, v) -> the slope of f at x along v, a number",
        jvp,
        _direction_cases,
        laws=(Law("the slope is exact, to rounding", _is_slope),),
        mistakes=(
            Mistake(
                "differences",
                "Those are differences. A dual number has no step: each operation "
                "carries the tangent along exactly.",
                lambda f, x, v: _central(f, x, v, 1e-6),
            ),
            Mistake(
                "the value",
                "You return f(x). The slope is what stands beside it, the part of ε.",
                lambda f, x, v: f(x),
            ),
            Mistake(
                "unit direction",
                "You divide v by its length. Along 2 v, the slope is twice as large.",
                lambda f, x, v: jvp(f, x, v / np.linalg.norm(v)),
            ),
            *(Mistake(name, hint, _jvp_by(kind)) for name, hint, kind in WRONG_DUALS),
        ),
        compare=False,
        rtol=1e-13,
        atol=1e-15,
    ),
    Exercise(
        "hvp",
        "hvp(f, x, v) -> H v, of the shape of x",
        hvp,
        _direction_cases,
        laws=(Law("H v is exact, to rounding", _is_exact),),
        mistakes=(
            Mistake(
                "differences",
                "You take differences of gradients. Let dual numbers run through the "
                "sweep: they have no step.",
                _gradient_difference,
            ),
            Mistake(
                "diagonal only",
                "You use the diagonal of the Hessian only. Row i of H v sums over all "
                "entries of v.",
                _diagonal,
            ),
            Mistake(
                "gradient times v",
                "You multiply the gradient by v. It is the change of the gradient "
                "along v that is asked for.",
                lambda f, x, v: grad(f)(x) * v,
            ),
            Mistake(
                "the gradient",
                "You return the gradient. It is the part of ε of the gradient that is "
                "asked for.",
                lambda f, x, v: grad(f)(x),
            ),
            *(Mistake(name, hint, _hvp_by(kind)) for name, hint, kind in WRONG_DUALS),
        ),
        compare=False,
        rtol=1e-13,
        atol=1e-15,
    ),
)
