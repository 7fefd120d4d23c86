"""The bookkeeping of automatic differentiation: traced values, and two ways to run.

Chapter: book/automatic-differentiation/theory.md.

A `Traced` value stands for an array while a function is being differentiated.  NumPy
hands every call on it to us, and we hand it to the *level* the value belongs to.  A
`Tape` writes the call down, to send cotangents back through it later; a `Forward` level
pushes a tangent through it at once.

    y          a value, held by a Traced; it may be a Traced of an outer level
    g          cotangent of a result, ∂L/∂y; it has the shape and type of y
    t          tangent, dy/dε; it has the shape and type of y, too
    pullback   g, the result and the arguments -> cotangent of one argument

Derivatives of derivatives need nothing more: pullbacks are NumPy calls, so what they do
is traced by the levels outside.  Levels are numbered, and an operation belongs to the
innermost of its arguments' levels; the others are constants to it.  So no level ever
takes a perturbation of another for its own (Siskind and Pearlmutter 2008, "Nesting
forward-mode AD in a functional framework", Higher-Order and Symbolic Computation 21).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import update_wrapper
from itertools import count
from typing import Any

import numpy as np

Pullback = Callable[..., Any]  # pullback(g, out, *arguments, **options)
Options = dict[str, Any]

RULES: dict[Any, Callable[..., Any]] = {}  # NumPy's function -> what to call instead
CONSTANT: set[Any] = set()  # functions whose results carry no derivative

_numbers = count()
HOW_TO_ADD = "give it a rule with autodiff.define({0}, pullback, ...)"


class Traced:
    """An array that is being differentiated; it behaves like one wherever it can.

    `place` is its number on a Tape, or its tangent on a Forward level.
    """

    __slots__ = ("level", "place", "value")
    __hash__ = None  # type: ignore[assignment]  # like an array, it compares by entry

    def __init__(self, value: Any, level: Level, place: Any) -> None:
        self.value, self.level, self.place = value, level, place

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *args: Any, **options: Any
    ) -> Any:
        if method != "__call__" or options:
            how = f"{ufunc.__name__}.{method}" if method != "__call__" else ""
            how = how or " and ".join(f"{name}=" for name in options)
            raise TypeError(
                f"{ufunc.__name__}: {how} cannot be traced; call np.{ufunc.__name__} "
                "itself and keep its result, or use np.sum, np.cumsum, np.where"
            )
        return dispatch(ufunc, args, options)

    def __array_function__(
        self, function: Any, types: Any, args: Any, options: Any
    ) -> Any:
        return dispatch(function, args, options)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(
            "a traced value cannot become a plain array: its derivative would be lost. "
            "Join traced values with np.stack or np.concatenate, not np.array; take "
            "autodiff.stop_gradient(x) where a plain array is meant"
        )

    def _no_number(self) -> Any:
        raise TypeError(
            "a traced value cannot become a plain number: its derivative would be "
            "lost. Keep it an array, or take autodiff.stop_gradient(x) first"
        )

    __float__ = __int__ = __complex__ = __index__ = item = tolist = _no_number

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError(
            "a traced value cannot be assigned to: build the result in one go with "
            "np.where, np.stack or np.concatenate"
        )

    def __repr__(self) -> str:
        return f"Traced({unbox(self)!r})"

    def __bool__(self) -> bool:
        return bool(unbox(self))

    def __len__(self) -> int:
        return len(unbox(self))

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    # ------------------------------------------------------------ what is constant

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.value.shape  # type: ignore[no-any-return]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its type of number."""
        return self.value.dtype  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return self.value.ndim  # type: ignore[no-any-return]

    @property
    def size(self) -> int:
        """How many entries it has."""
        return self.value.size  # type: ignore[no-any-return]

    def __eq__(self, other: Any) -> Any:
        return unbox(self) == unbox(other)

    def __ne__(self, other: Any) -> Any:
        return unbox(self) != unbox(other)

    def __lt__(self, other: Any) -> Any:
        return unbox(self) < unbox(other)

    def __le__(self, other: Any) -> Any:
        return unbox(self) <= unbox(other)

    def __gt__(self, other: Any) -> Any:
        return unbox(self) > unbox(other)

    def __ge__(self, other: Any) -> Any:
        return unbox(self) >= unbox(other)

    # ------------------------------------------------------------ arithmetic

    def __add__(self, other: Any) -> Any:
        return RULES[np.add](self, other)

    def __radd__(self, other: Any) -> Any:
        return RULES[np.add](other, self)

    def __sub__(self, other: Any) -> Any:
        return RULES[np.subtract](self, other)

    def __rsub__(self, other: Any) -> Any:
        return RULES[np.subtract](other, self)

    def __mul__(self, other: Any) -> Any:
        return RULES[np.multiply](self, other)

    def __rmul__(self, other: Any) -> Any:
        return RULES[np.multiply](other, self)

    def __truediv__(self, other: Any) -> Any:
        return RULES[np.divide](self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return RULES[np.divide](other, self)

    def __pow__(self, other: Any) -> Any:
        # ** 2 is everywhere, and a square costs a tenth of a power
        if type(other) is int and other == 2:
            return RULES[np.square](self)
        return RULES[np.power](self, other)

    def __rpow__(self, other: Any) -> Any:
        return RULES[np.power](other, self)

    def __matmul__(self, other: Any) -> Any:
        return RULES[np.matmul](self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return RULES[np.matmul](other, self)

    def __neg__(self) -> Any:
        return RULES[np.negative](self)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return RULES[np.absolute](self)

    def __getitem__(self, index: Any) -> Any:
        return RULES["getitem"](self, index)

    def __getattr__(self, name: str) -> Any:
        """Methods and `T`, `real`, `imag`: those that the table of rules has."""
        if (rule := RULES.get(("method", name))) is not None:
            return lambda *args, **options: rule(self, *args, **options)
        if (rule := RULES.get(("property", name))) is not None:
            return rule(self)
        raise AttributeError(
            f"a traced value has no {name!r}: use NumPy's function instead, "
            f"np.{name}(x), if there is one"
        )


class Primitive:
    """A function and the pullbacks of its arguments.

    `pushforward` says how tangents pass: "elementwise", where entry i of the result
    needs entry i of the arguments only, so that the pullback is the pushforward, too;
    "linear", in each argument on its own; a function of the tangents by number of
    argument, the result, the arguments and the options; or None: then the pullback,
    which is linear in g, is itself pulled back.
    """

    is_index = False  # x[index]: its cotangent is added in place

    def __init__(
        self,
        function: Callable[..., Any],
        *pullbacks: Pullback | None,
        pushforward: str | Callable[..., Any] | None = None,
        name: str | None = None,
    ) -> None:
        update_wrapper(self, function, updated=())
        self.function = function
        self.pushforward = pushforward
        self.name = name or str(getattr(function, "__name__", "a function"))
        self.pullbacks: Sequence[Pullback] = [
            pull or _missing(self.name, i) for i, pull in enumerate(pullbacks)
        ]

    def __call__(self, *args: Any, **options: Any) -> Any:
        """The function itself, or its record on the innermost level of `args`."""
        level = None
        for a in args:
            if type(a) is Traced and (level is None or a.level.number > level.number):
                level = a.level
        if level is None:
            return self.function(*args, **options)
        return level.apply(self, args, options)

    def pull(self, i: int, g: Any, out: Any, args: Sequence[Any], options: Any) -> Any:
        """The cotangent of argument i."""
        if i >= len(self.pullbacks):
            _missing(self.name, i)()
        return match(self.pullbacks[i](g, out, *args, **options), args[i], self.name)

    def push(
        self, tangents: dict[int, Any], out: Any, args: Sequence[Any], options: Options
    ) -> Any:
        """The tangent of the result."""
        if callable(self.pushforward):
            total = self.pushforward(tangents, out, *args, **options)
        else:
            total = None
            for i, t in tangents.items():
                part = self._push_one(i, t, out, args, options)
                total = part if total is None else total + part
        return total if total.shape == out.shape else np.broadcast_to(total, out.shape)

    def _push_one(
        self, i: int, t: Any, out: Any, args: Sequence[Any], options: Options
    ) -> Any:
        if self.pushforward == "linear":
            return self(*args[:i], t, *args[i + 1 :], **options)
        if self.pushforward == "elementwise":
            return self.pullbacks[i](t, out, *args, **options)
        tape = Tape(1)  # the pullback's own derivative; see the class
        g = tape.leaf(0, np.zeros_like(out))
        share = self.pull(i, g, out, args, options)
        if type(share) is not Traced or share.level is not tape:
            return np.zeros_like(out)
        (pushed,) = tape.sweep([(share.place, t)], keep=False)
        return np.zeros_like(out) if pushed is None else pushed


class Step:
    """What a Tape may hold in place of a Primitive: a pullback of several arguments."""

    name = ""
    is_index = False

    def pull_all(
        self,
        g: Any,
        out: Any,
        saved: Any,
        args: Sequence[Any],
        options: Options,
        places: Sequence[int],
    ) -> list[Any]:
        """The cotangents of the arguments at `places`."""
        raise NotImplementedError


class Tape:
    """A level of reverse mode: what was computed, in order, and the sweep back.

    The order of writing is a topological order: whatever a step uses stands above it.
    """

    __slots__ = ("__weakref__", "closed", "leaves", "number", "steps")

    def __init__(self, leaves: int) -> None:
        self.number = next(_numbers)
        self.leaves = leaves
        self.steps: list[Any] = [None] * leaves
        self.closed = False

    def leaf(self, i: int, value: Any) -> Traced:
        """The i-th input, as a value to compute with."""
        return Traced(value, self, i)

    def apply(self, primitive: Primitive, args: Sequence[Any], options: Options) -> Any:
        """Compute, and write down what was computed from what."""
        values, places, parents, plain = self.open_up(args)
        compute = primitive.function if plain else primitive
        out = compute(*values, **options)
        return self.write(primitive, values, options, out, places, parents, None)

    def open_up(
        self, args: Sequence[Any]
    ) -> tuple[list[Any], list[int], list[int], bool]:
        """The values, which are ours, their numbers, and whether no other is traced."""
        values, places, parents, plain = [], [], [], True
        for i, a in enumerate(args):
            if type(a) is Traced:
                if a.level is self:
                    places.append(i)
                    parents.append(a.place)
                    a = a.value
                if type(a) is Traced:
                    plain = False
            values.append(a)
        return values, places, parents, plain

    def write(
        self,
        primitive: Primitive | Step,
        values: list[Any],
        options: Options,
        out: Any,
        places: list[int],
        parents: list[int],
        saved: Any,
    ) -> Traced:
        """One more step; `saved` is what its primitive wants to remember."""
        if self.closed:
            raise _escaped(primitive.name)
        steps = self.steps
        if out.dtype is not values[places[0]].dtype:
            _refuse_upcast(primitive.name, [values[i] for i in places], out)
        steps.append((primitive, values, options, out, places, parents, saved))
        return Traced(out, self, len(steps) - 1)

    def sweep(self, seeds: Sequence[tuple[int, Any]], *, keep: bool) -> list[Any]:
        """The cotangents of the leaves, given those of some steps by number.

        Every step is reached after all that use it, so its cotangent is complete.
        None stands for zero.  Unless told to `keep` them, steps are dropped on the way.
        """
        steps = self.steps
        cotangents: list[Any] = [None] * len(steps)
        ours = bytearray(len(steps))  # may the array in `cotangents` be added to?
        for place, g in seeds:
            _add(cotangents, ours, place, g)
        for i in range(len(steps) - 1, self.leaves - 1, -1):  # eq ad-sweep
            g = cotangents[i]
            if g is None:
                continue
            cotangents[i] = None
            primitive, args, options, out, places, parents, saved = steps[i]
            if not keep:
                steps[i] = None  # its arrays can be used again from here on
            if primitive.is_index and type(g) is np.ndarray:
                _add_slice(cotangents, ours, parents[0], g, args)
            elif isinstance(primitive, Step):
                shares = primitive.pull_all(g, out, saved, args, options, places)
                for parent, share in zip(parents, shares, strict=True):
                    _add(cotangents, ours, parent, share)
            else:
                for k, parent in zip(places, parents, strict=True):
                    share = primitive.pull(k, g, out, args, options)
                    if cotangents[parent] is None:
                        cotangents[parent] = share
                    else:
                        _add(cotangents, ours, parent, share)
        return cotangents[: self.leaves]


class Forward:
    """A level of forward mode: tangents travel with the values, and nothing is kept."""

    __slots__ = ("closed", "number")

    def __init__(self) -> None:
        self.number = next(_numbers)
        self.closed = False

    def apply(self, primitive: Primitive, args: Sequence[Any], options: Options) -> Any:
        """Compute the result and its tangent."""
        if self.closed:
            raise _escaped(primitive.name)
        values, tangents = list(args), {}
        for i, a in enumerate(args):
            if type(a) is Traced and a.level is self:
                values[i], tangents[i] = a.value, a.place
        out = primitive(*values, **options)
        moving = [values[i] for i in tangents]
        if out.dtype is not moving[0].dtype:
            _refuse_upcast(primitive.name, moving, out)
        return Traced(out, self, primitive.push(tangents, out, values, options))


Level = Tape | Forward


def dispatch(function: Any, args: Sequence[Any], options: Options) -> Any:
    """Call a NumPy function on traced arguments by its rule.

    Raises:
        NotImplementedError: it has none.
    """
    name = getattr(function, "__name__", str(function))
    rule = RULES.get(function)
    if rule is not None:
        try:
            return rule(*args, **options)
        except TypeError as error:
            if "unexpected keyword argument" not in str(error):
                raise
            raise NotImplementedError(
                f"np.{name} with {', '.join(f'{o}=' for o in options)} cannot be "
                f"differentiated: {error}"
            ) from error
    if function in CONSTANT:
        return function(*unbox(args), **unbox(options))
    raise NotImplementedError(
        f"np.{name} cannot be differentiated yet: " + HOW_TO_ADD.format(f"np.{name}")
    )


def unbox(x: Any) -> Any:
    """The plain array under a traced value, through lists, tuples and dicts."""
    while type(x) is Traced:
        x = x.value
    if type(x) in (list, tuple):
        return type(x)(map(unbox, x))
    if type(x) is dict:
        return {name: unbox(value) for name, value in x.items()}
    return x


def match(share: Any, value: Any, name: str = "") -> Any:
    """A cotangent in the shape and kind of its value.

    Broadcasting gave one entry to many places: their cotangents add up.  A real value
    has a real cotangent; the imaginary part would multiply a change it cannot make.

    Raises:
        ValueError: no broadcasting explains the difference of shapes.
    """
    if share.shape != value.shape:
        share = sum_to(share, value.shape, name)  # eq ad-broadcast
    if share.dtype is not value.dtype and share.dtype.kind != value.dtype.kind:
        return np.real(share) if value.dtype.kind == "f" else share + 0j
    return share


def sum_to(g: Any, shape: tuple[int, ...], name: str = "g") -> Any:
    """`g` summed over every axis that broadcasting from `shape` made.

    Raises:
        ValueError: `shape` does not broadcast to that of `g`.
    """
    lead = g.ndim - len(shape)
    pairs = zip(g.shape[max(lead, 0) :], shape, strict=False)
    if lead < 0 or any(n not in (1, have) for have, n in pairs):
        raise ValueError(
            f"the pullback of {name} gave shape {g.shape}, wants that of its argument, "
            f"{shape}, or one that it broadcasts to"
        )
    ones = [lead + i for i, n in enumerate(shape) if n == 1 and g.shape[lead + i] != 1]
    return np.reshape(np.sum(g, axis=(*range(lead), *ones)), shape)


def _escaped(name: str) -> ValueError:
    return ValueError(
        f"{name} met a traced value that has left the function it was traced in; "
        "return it from there instead of keeping it"
    )


def _missing(name: str, i: int) -> Pullback:
    """The pullback of an argument that has none."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(
            f"{name} has no pullback for argument {i}; " + HOW_TO_ADD.format(name)
        )

    return refuse


def _refuse_upcast(name: str, moving: list[Any], out: Any) -> None:
    """float32 meets float64: an error here, or a network twice as slow, unnoticed."""
    if out.dtype == np.float64 and name != "astype":
        for value in moving:
            if value.dtype == np.float32:
                raise ValueError(
                    f"{name} met float32 and float64, wants one of them: the result "
                    "would silently be float64. Make constants Python numbers "
                    "or float32, or cast with .astype"
                )


def _add(cotangents: list[Any], ours: bytearray, parent: int, share: Any) -> None:
    """One more use of a value: its cotangents add up, in place where that is safe."""
    seen = cotangents[parent]
    if seen is None:
        cotangents[parent] = share
    elif ours[parent] and type(share) is np.ndarray:
        np.add(seen, share, out=seen)
    else:
        cotangents[parent] = total = seen + share  # eq ad-fan-out
        ours[parent] = type(total) is np.ndarray


def _add_slice(
    cotangents: list[Any], ours: bytearray, parent: int, g: Any, args: Sequence[Any]
) -> None:
    """Add the cotangent of x[index] into that of x, in place.

    A loop over the rows of x would otherwise cost the size of x at every step.
    """
    x, index = args
    if not ours[parent]:
        zeros = np.zeros(x.shape, x.dtype)
        seen = cotangents[parent]
        cotangents[parent] = zeros if seen is None else seen + zeros
        ours[parent] = type(cotangents[parent]) is np.ndarray
    seen = cotangents[parent]
    if not ours[parent]:
        cotangents[parent] = seen + RULES["scatter"](g, index=index, like=x)
    elif may_repeat(index):
        np.add.at(seen, index, g)
    else:
        seen[index] += g


def may_repeat(index: Any) -> bool:
    """Whether an index may name the same entry twice: only lists of numbers can."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(
        isinstance(part, list) or (isinstance(part, np.ndarray) and part.dtype != bool)
        for part in parts
    )
