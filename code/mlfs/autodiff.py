"""Automatic differentiation of NumPy code.

Chapter: book/automatic-differentiation/theory.md.  A comment `# eq NAME` marks the line
that implements the displayed equation labelled NAME there.

    f           a function of arrays that returns arrays, written in NumPy
    x, ẋ        an input and its tangent (shape of x)
    y, ȳ        an output and its cotangent ∂L/∂y (shape of y)
    J           the Jacobian ∂y/∂x (shape of y + shape of x)

    grad, value_and_grad     x ↦ ∇f(x) of a function with one number as its result
    vjp                      ȳ ↦ x̄ = Jᵀ ȳ, reverse mode
    jvp                      ẋ ↦ ẏ = J ẋ, forward mode
    hvp, jacobian, hessian   made of these
    checkpoint               compute again instead of remembering
    stop_gradient            a constant from here on
    primitive, define        rules of your own

Arguments and results may be trees: nested dicts, lists, tuples and dataclasses of
arrays.  What is recorded and how stands in `mlfs.core.tape`, the derivatives of NumPy's
functions in `mlfs.core.rules`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import update_wrapper, wraps
from typing import Any

import numpy as np

from mlfs.core.rules import log_softmax, logsumexp, softmax
from mlfs.core.tape import (
    RULES,
    Forward,
    Primitive,
    Pullback,
    Step,
    Tape,
    Traced,
    unbox,
)
from mlfs.core.tree import (
    Structure,
    flatten,
    flatten_like,
    leaf_names,
    tree_map,
    unflatten,
)

__all__ = [
    "Fused",
    "Primitive",
    "Traced",
    "checkpoint",
    "define",
    "fused",
    "grad",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "log_softmax",
    "logsumexp",
    "primitive",
    "softmax",
    "stop_gradient",
    "value_and_grad",
    "vjp",
]

Function = Callable[..., Any]

# ------------------------------------------------------------ reverse mode


def grad(f: Function, argnums: int | tuple[int, ...] = 0) -> Function:
    """x ↦ ∇f(x), for a function whose result is one real number.

    The gradient has the structure, shapes and types of the argument numbered `argnums`
    (a tuple of gradients for a tuple of numbers).  It costs a small multiple of f,
    however many entries x has; every intermediate result of f is kept until the end.

    Raises:
        ValueError: from the function made: its argument holds something else than
            floats, or f returns something else than one real number.
    """
    both = value_and_grad(f, argnums)

    @wraps(f)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        return both(*args, **kwargs)[1]

    return gradient


def value_and_grad(
    f: Function, argnums: int | tuple[int, ...] = 0, *, has_aux: bool = False
) -> Function:
    """x ↦ (f(x), ∇f(x)); with `has_aux`, f returns (number, extra) and so does this.

    Extra values pass through as they are; no derivative is taken of them.

    Raises:
        ValueError: as `grad`, and where `has_aux` is set and f returns no pair.
    """
    _check_function("f", f)
    wanted = argnums if isinstance(argnums, tuple) else (argnums,)
    if not wanted or not all(type(i) is int for i in wanted):
        raise ValueError(
            f"argnums is {argnums!r}, wants the number of an argument or a tuple"
        )

    @wraps(f)
    def value_and_gradient(*args: Any, **kwargs: Any) -> Any:
        tape, inside, inputs = _traced(args, wanted)
        try:
            out = f(*inside, **kwargs)
        finally:
            tape.closed = True
        loss, aux = _pair(out) if has_aux else (out, None)
        value = _own(loss, tape)
        _check_scalar_result(value)
        seeds = []
        if value is not loss:
            seeds = [(loss.place, np.ones_like(unbox(value)))]
        found = _split(tape.sweep(seeds, keep=False), *inputs)
        gradients = found if isinstance(argnums, tuple) else found[0]
        if has_aux:
            return (value, tree_map(lambda leaf: _own(leaf, tape), aux)), gradients
        return value, gradients

    return value_and_gradient


def vjp(f: Function, *primals: Any) -> tuple[Any, Function]:
    """f(x) and the pullback ȳ ↦ x̄ = Jᵀ ȳ, one result for each of `primals`.

    The pullback may be called many times; it holds f's intermediate results meanwhile.

    Raises:
        ValueError: `primals` hold something else than floats, or, from the pullback,
            the cotangent has another structure or shape than f(x).
    """
    _check_function("f", f)
    wanted = tuple(range(len(primals)))
    tape, inside, inputs = _traced(primals, wanted)
    try:
        out = f(*inside)
    finally:
        tape.closed = True
    leaves, structure = flatten(out)
    values = [_own(leaf, tape) for leaf in leaves]
    places = [
        None if value is leaf else leaf.place
        for leaf, value in zip(leaves, values, strict=True)
    ]

    def pullback(cotangent: Any) -> tuple[Any, ...]:
        given = _like(values, structure, cotangent, "cotangent")
        seeds = [
            (place, g)
            for place, g in zip(places, given, strict=True)
            if place is not None
        ]
        shares = tape.sweep(seeds, keep=True)  # eq ad-vjp
        return tuple(_split(shares, *inputs, theirs=given))

    return unflatten(structure, values), pullback


# ------------------------------------------------------------ forward mode


def jvp(f: Function, primals: Sequence[Any], tangents: Sequence[Any]) -> Any:
    """f(x) and ẏ = J ẋ, for a list of arguments and a list of their tangents.

    Costs a small multiple of f, however many entries y has; nothing is kept.

    Raises:
        ValueError: `primals` hold something else than floats, or `tangents` have
            another structure or shape.
    """
    _check_function("f", f)
    for name, given in (("primals", primals), ("tangents", tangents)):
        if not isinstance(given, list | tuple):
            raise ValueError(
                f"{name} is {_brief(given)}, wants a list or tuple of arguments"
            )
    if len(primals) != len(tangents):
        raise ValueError(
            f"tangents has {len(tangents)} entries, wants {len(primals)}, one for each "
            "of primals"
        )
    level = Forward()
    inside = []
    for i, (x, t) in enumerate(zip(primals, tangents, strict=True)):
        leaves, structure = flatten(x)
        leaves = _floats(leaves, structure, f"primals[{i}]")
        moving = _like(leaves, structure, t, f"tangents[{i}]")
        pairs = zip(leaves, moving, strict=True)
        inside.append(unflatten(structure, [Traced(v, level, d) for v, d in pairs]))
    try:
        out = f(*inside)
    finally:
        level.closed = True
    leaves, structure = flatten(out)
    values = [_own(leaf, level) for leaf in leaves]
    pushed = [
        leaf.place if value is not leaf else np.zeros_like(unbox(value))
        for leaf, value in zip(leaves, values, strict=True)
    ]
    return unflatten(structure, values), unflatten(structure, pushed)


# ------------------------------------------------------------ made of the two


def hvp(f: Function, x: Any, v: Any) -> Any:
    """H v, where H is the Hessian of f at x: the tangent of the gradient along v.

    Costs a small multiple of f; H itself is never there.

    Raises:
        ValueError: as `grad` and `jvp`.
    """
    return jvp(grad(f), (x,), (v,))[1]  # eq ad-hvp


def jacobian(f: Function, *, mode: str | None = None) -> Function:
    """x ↦ ∂f/∂x, of shape (shape of f(x) + shape of x); a tree of them for trees.

    `mode` "forward" costs one pass for each entry of x, "reverse" one for each entry of
    f(x); by default the fewer.

    Raises:
        ValueError: `mode` is another word; otherwise as `vjp`.
    """
    if mode not in (None, "forward", "reverse"):
        raise ValueError(f'mode is {mode!r}, wants "forward", "reverse" or None')
    _check_function("f", f)

    @wraps(f)
    def jacobian_at(x: Any) -> Any:
        leaves, structure = flatten(x)
        leaves = _floats(leaves, structure, "x")
        out, pullback = vjp(f, x)
        results, out_structure = flatten(out)
        n_in = sum(leaf.size for leaf in leaves)
        n_out = sum(leaf.size for leaf in results)
        if mode == "reverse" or (mode is None and n_out < n_in):
            blocks = _rows(pullback, results, out_structure)
        else:
            blocks = _columns(f, leaves, structure, len(results))
        trees = [unflatten(structure, row) for row in blocks]
        return unflatten(out_structure, trees)

    return jacobian_at


def hessian(f: Function) -> Function:
    """x ↦ the matrix of second derivatives, forward over reverse.

    Costs one `hvp` for each entry of x.

    Raises:
        ValueError: as `grad`.
    """
    return jacobian(grad(f), mode="forward")


def _rows(pullback: Function, results: list[Any], structure: Structure) -> Any:
    """Jacobian blocks [result][argument], one pullback for each entry of a result."""
    zeros = [np.zeros(y.shape, y.dtype) for y in results]
    for k, y in enumerate(results):
        rows = []
        for unit in _units(y):
            given = [*zeros[:k], unit, *zeros[k + 1 :]]
            rows.append(flatten(pullback(unflatten(structure, given))[0])[0])
        yield [
            np.reshape(np.stack(column), y.shape + column[0].shape)
            for column in zip(*rows, strict=True)
        ]


def _columns(f: Function, leaves: list[Any], structure: Structure, n: int) -> Any:
    """Jacobian blocks [result][argument], one tangent for each entry of an argument."""
    zeros = [np.zeros(x.shape, x.dtype) for x in leaves]
    x0 = unflatten(structure, leaves)
    blocks: list[list[Any]] = [[] for _ in range(n)]
    for k, x in enumerate(leaves):
        columns = []
        for unit in _units(x):
            tangent = unflatten(structure, [*zeros[:k], unit, *zeros[k + 1 :]])
            columns.append(flatten(jvp(f, (x0,), (tangent,))[1])[0])
        for block, pushed in zip(blocks, zip(*columns, strict=True), strict=True):
            block.append(np.reshape(np.stack(pushed, -1), pushed[0].shape + x.shape))
    return blocks


def _units(x: Any) -> Any:
    """The unit tangents of an array, one for each entry."""
    for i in range(x.size):
        unit = np.zeros(x.size, x.dtype)
        unit[i] = 1
        yield unit.reshape(x.shape)


# ------------------------------------------------------------ memory, and constants


def stop_gradient(x: Any) -> Any:
    """`x`, an array or a tree, as a constant: derivatives of every order stop here."""
    return tree_map(unbox, x)


def checkpoint(f: Function) -> Function:
    """`f`, which keeps its arguments only and computes the rest again when pulled back.

    Its cost in time is one more evaluation of f, and its memory on the tape that of its
    arguments and results.  Whatever is differentiated must come in as an argument.

    Raises:
        ValueError: f is no function, or, from the function made, f uses a traced value
            that is no argument.
    """
    _check_function("f", f)

    @wraps(f)
    def remembered(*args: Any) -> Any:
        leaves, structure = flatten(args)
        levels = [leaf.level for leaf in leaves if type(leaf) is Traced]
        level = max(levels, key=lambda one: one.number, default=None)
        if not isinstance(level, Tape):
            return f(*args)
        again = _Again(f, structure)
        values, places, parents, _ = level.open_up(leaves)
        out = f(*unflatten(structure, values))
        results, again.results = flatten(out)
        if any(type(y) is Traced and y.level is level for y in results):
            raise ValueError(
                "checkpoint: f uses a traced value that is not among its arguments, "
                "wants everything that is differentiated as an argument"
            )
        packed = level.write(again, values, {}, _Packed(results), places, parents, None)
        picked = [
            level.write(_Pick(i), [packed.value], {}, y, [0], [packed.place], None)
            for i, y in enumerate(map(_as_array, results))
        ]
        return unflatten(again.results, picked)

    return remembered


class _Packed(list[Any]):
    """Several results of one step, or the cotangents of some; each comes but once."""

    dtype = np.dtype(object)

    def __add__(self, other: list[Any]) -> _Packed:
        pairs = zip(self, other, strict=True)
        return _Packed([b if a is None else a for a, b in pairs])


class _Pick(Step):
    """The step from several results to the i-th of them."""

    name = "checkpoint"

    def __init__(self, i: int) -> None:
        self.i = i

    def pull_all(self, g: Any, out: Any, saved: Any, args: Any, *_: Any) -> list[Any]:
        """A list with a hole for each of the other results."""
        given = _Packed([None] * len(args[0]))
        given[self.i] = g
        return [given]


class _Again(Step):
    """The step that computes f anew, on a tape of its own, when it is pulled back."""

    name = "checkpoint"
    results: Structure

    def __init__(self, f: Function, structure: Structure) -> None:
        self.f, self.structure = f, structure

    def pull_all(
        self, g: Any, out: Any, saved: Any, args: Any, options: Any, places: Any
    ) -> list[Any]:
        """The cotangents of the arguments at `places`."""

        def of_places(*chosen: Any) -> Any:
            leaves = list(args)
            for i, x in zip(places, chosen, strict=True):
                leaves[i] = x
            return self.f(*unflatten(self.structure, leaves))

        y, pullback = vjp(of_places, *(args[i] for i in places))
        zeros = [np.zeros_like(unbox(leaf)) for leaf in flatten(y)[0]]
        given = [z if c is None else c for z, c in zip(zeros, g, strict=True)]
        return list(pullback(unflatten(self.results, given)))


# ------------------------------------------------------------ rules of your own


def primitive(
    *pullbacks: Pullback | None, elementwise: bool = False
) -> Callable[[Function], Primitive]:
    """Declare a function differentiable: its pullbacks, in the order of its arguments.

    Each is `pullback(g, out, *arguments, **options)` in NumPy calls; None for an
    argument that has no derivative.  What is differentiated must be positional.  With
    `elementwise`, where entry i of the result needs entry i of the arguments only,
    tangents take the same rule forward; otherwise the pullback is itself pulled back.

    >>> @primitive(lambda g, out, x: g / (3 * out**2), elementwise=True)
    ... def cube_root(x):
    ...     return np.cbrt(x)

    Raises:
        ValueError: what is given is no function.
    """
    for i, pullback in enumerate(pullbacks):
        if pullback is not None:
            _check_function(f"pullbacks[{i}]", pullback)
    how = "elementwise" if elementwise else None

    def declare(function: Function) -> Primitive:
        _check_function("function", function)

        @wraps(function)
        def to_array(*args: Any, **options: Any) -> Any:
            return _as_array(function(*args, **options))

        return Primitive(to_array, *pullbacks, pushforward=how)

    return declare


def define(
    function: Function, *pullbacks: Pullback | None, elementwise: bool = False
) -> None:
    """Give a function of NumPy or SciPy, which dispatches, its pullbacks.

    >>> define(np.cbrt, lambda g, out, x: g / (3 * out**2), elementwise=True)

    Raises:
        ValueError: NumPy would not hand us calls of it, or it has a rule already.
    """
    dispatches = isinstance(function, np.ufunc) or hasattr(function, "__wrapped__")
    if not dispatches:
        raise ValueError(
            f"function is {_brief(function)}, wants one that NumPy dispatches; make "
            "one of your own with primitive"
        )
    if function in RULES:
        raise ValueError(
            f"function is {_brief(function)}, which has a rule already, wants another"
        )
    RULES[function] = primitive(*pullbacks, elementwise=elementwise)(function)


class Fused(Step):
    """One step in place of many, with a pullback made by hand.

    `forward(*args, **options)` gives the result and what the pullback wants to have
    saved; `backward(g, out, saved, *args, needs=, **options)` a cotangent for each
    argument that is needed.  Both are for plain arrays.  `composed` is the same
    function in NumPy calls; it serves every other derivative: forward mode, and
    derivatives of derivatives.
    """

    def __init__(
        self, composed: Function, forward: Function, backward: Function
    ) -> None:
        update_wrapper(self, composed, updated=())
        self.name = composed.__name__
        self.composed, self.forward, self.backward = composed, forward, backward

    def __call__(self, *args: Any, **options: Any) -> Any:
        """The result; recorded as one step where a single tape is at work."""
        tape = None
        for a in args:
            if type(a) is Traced:
                tape = a.level
                break
        if tape is None:
            return self.forward(*args, **options)[0]
        if type(tape) is Tape:
            values, places, parents, plain = tape.open_up(args)
            if plain:
                out, saved = self.forward(*values, **options)
                return tape.write(self, values, options, out, places, parents, saved)
        return self.composed(*args, **options)

    def pull_all(
        self,
        g: Any,
        out: Any,
        saved: Any,
        args: Sequence[Any],
        options: dict[str, Any],
        places: Sequence[int],
    ) -> list[Any]:
        """The cotangents of the arguments at `places`."""
        if type(g) is Traced:
            again = _Again(lambda *xs: self.composed(*xs, **options), flatten(args)[1])
            again.results = flatten(out)[1]
            return again.pull_all([g], out, None, args, options, places)
        needs = [False] * len(args)
        for i in places:
            needs[i] = True
        shares = self.backward(g, out, saved, *args, needs=needs, **options)
        return [shares[i] for i in places]


def fused(forward: Function, backward: Function) -> Callable[[Function], Fused]:
    """Declare a composed function to have a form of one step; see `Fused`.

    Raises:
        ValueError: one of the three is no function.
    """
    _check_function("forward", forward)
    _check_function("backward", backward)

    def declare(composed: Function) -> Fused:
        _check_function("composed", composed)
        return Fused(composed, forward, backward)

    return declare


# ------------------------------------------------------------ at the door


def _traced(
    args: Sequence[Any], wanted: Sequence[int]
) -> tuple[Tape, list[Any], tuple[list[Any], list[Structure]]]:
    """A new tape, the arguments with the wanted ones traced on it, and these inputs.

    Inputs are given as the list of all their leaves, and the structure of each.

    Raises:
        ValueError: a wanted argument is missing, or holds something else than floats.
    """
    leaves: list[Any] = []
    structures = []
    if len({i % len(args) for i in wanted if args}) < len(wanted) and args:
        in_range = [i for i in wanted if -len(args) <= i < len(args)]
        if len(in_range) == len(wanted):
            raise ValueError(f"argnums is {wanted}, wants each argument once")
    for i in wanted:
        if not -len(args) <= i < len(args):
            raise ValueError(
                f"argnums names argument {i}, wants one of the {len(args)} positional "
                "arguments given"
            )
        found, structure = flatten(args[i])
        leaves += _floats(found, structure, f"argument {i}")
        structures.append(structure)
    tape = Tape(len(leaves))
    traced = [tape.leaf(i, leaf) for i, leaf in enumerate(leaves)]
    inside, start = list(args), 0
    for i, structure in zip(wanted, structures, strict=True):
        inside[i] = unflatten(structure, traced[start : start + structure.size])
        start += structure.size
    return tape, inside, (leaves, structures)


def _check_function(name: str, f: Any) -> None:
    if not callable(f):
        raise ValueError(f"{name} is {_brief(f)}, wants a function")


def _brief(it: Any) -> str:
    text = " ".join(repr(it).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _floats(leaves: list[Any], structure: Structure, name: str) -> list[Any]:
    """The leaves as arrays; whole numbers and text are refused by name."""
    arrays = [_as_array(leaf) for leaf in leaves]
    for i, array in enumerate(arrays):
        if array.dtype.kind not in "fc":
            where = leaf_names(structure, name)[i]
            raise ValueError(
                f"{where} holds {array.dtype}, wants floats: only they can change a "
                "little"
            )
    return arrays


def _as_array(leaf: Any) -> Any:
    return leaf if type(leaf) in (np.ndarray, Traced) else np.asarray(leaf)


def _own(leaf: Any, level: Any) -> Any:
    """The value of what is traced on `level`; anything else as it is."""
    return leaf.value if type(leaf) is Traced and leaf.level is level else leaf


def _pair(out: Any) -> tuple[Any, Any]:
    if not (isinstance(out, tuple) and len(out) == 2):
        raise ValueError(
            f"f returned {type(out).__name__}, wants a pair (number, extra) with "
            "has_aux=True"
        )
    return out


def _check_scalar_result(value: Any) -> None:
    shape, dtype = np.shape(value), getattr(value, "dtype", np.dtype(type(value)))
    if shape != () or dtype.kind not in "fiu":
        raise ValueError(
            f"f returned shape {shape} of {dtype}, wants one real number; sum it, or "
            "use vjp or jacobian"
        )


def _like(values: list[Any], structure: Structure, given: Any, name: str) -> list[Any]:
    """The leaves of `given`, which must have the structure and shapes of `values`."""
    leaves = flatten_like(structure, given, name)
    out = []
    for i, (value, leaf) in enumerate(zip(values, leaves, strict=True)):
        leaf = _as_array(leaf)
        fits = leaf.dtype.kind in ("fciu" if value.dtype.kind == "c" else "fiu")
        if leaf.shape != np.shape(value) or not fits:
            where = leaf_names(structure, name)[i]
            raise ValueError(
                f"{where} has shape {leaf.shape} of {leaf.dtype}, wants "
                f"{np.shape(value)} of {value.dtype}"
            )
        out.append(leaf if leaf.dtype == value.dtype else leaf.astype(value.dtype))
    return out


def _split(
    shares: list[Any],
    leaves: list[Any],
    structures: list[Structure],
    theirs: Sequence[Any] = (),
) -> list[Any]:
    """The cotangents of the inputs, as trees; None becomes zeros.

    Every array is the caller's own: pullbacks may give views, the same array twice, or
    the cotangent they were given, which is among `theirs`.
    """
    seen = {id(array) for array in theirs}
    found = []
    for leaf, share in zip(leaves, shares, strict=True):
        if share is None:
            share = np.zeros(leaf.shape, leaf.dtype)
        elif type(share) is np.ndarray:
            if share.base is not None or id(share) in seen:
                share = share.copy()
            seen.add(id(share))
        found.append(share)
    trees, start = [], 0
    for structure in structures:
        trees.append(unflatten(structure, found[start : start + structure.size]))
        start += structure.size
    return trees
