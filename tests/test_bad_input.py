"""Every public function refuses bad input: no NaN, no wrong answer, no other error.

No function is listed here.  They are found in the package, and what an argument must be
is told by its name; KINDS knows the names:

    "log_B"              any argument `log_B`
    "Poisson.x"          `x` in the constructor and the methods of the class Poisson
    "check_array.low"    `low` of the function `check_array`

A function with an argument that KINDS does not know fails a test that says so.  A kind
makes a good value, spoils it in every way that it can think of, and draws extreme ones.
"""

import ast
import copy
import dataclasses
import importlib
import inspect
import itertools
import pathlib
import pkgutil
import re
import types
import typing
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlfs
from mlfs import glm, hmm

NAN, INF = np.nan, np.inf
HERE = "KINDS in tests/test_bad_input.py"
# Modules with no door of their own: what they are called with comes from NumPy's own
# calls, which NumPy has checked, or through the doors of autodiff and nn.
ENGINE_ROOM = {"mlfs.core.tape", "mlfs.core.rules", "mlfs.core.kernels"}
# Modules whose arguments are functions, and trees of arrays that must fit one another:
# a name tells too little of them.  Each has a table REFUSALS of bad calls instead, in
# which every public function must stand.
TABLES = {
    "mlfs.autodiff": "test_bad_input_autodiff",
    "mlfs.core.gaussian": "core/test_gaussian",
    "mlfs.kalman": "test_kalman",
    "mlfs.particle": "test_particle",
    "mlfs.core.nn": "test_nn",
    "mlfs.core.optim": "test_optim",
    "mlfs.core.tree": "test_tree",
    "mlfs.gp": "test_bad_input_gp",
}


# ---------------------------------------------------------------- what there is


def modules():
    """Every module of the package but those that serve the pages, or named above."""
    for found in pkgutil.walk_packages(mlfs.__path__, "mlfs."):
        pages = f"{found.name}.".startswith("mlfs.book.")
        if not pages and found.name not in ENGINE_ROOM | TABLES.keys():
            yield importlib.import_module(found.name)


def members(module):
    """The public functions and classes that a module defines itself."""
    for name, it in vars(module).items():
        mine = getattr(it, "__module__", None) == module.__name__
        if mine and callable(it) and not name.startswith("_"):
            yield it


def is_checked(cls):
    """Whether a class has a door.  Results have none; Protocols hold no code."""
    if getattr(cls, "_is_protocol", False):
        return False
    return not dataclasses.is_dataclass(cls) or hasattr(cls, "__post_init__")


@dataclasses.dataclass(frozen=True)
class Target:
    """One thing to call; a method has an owner, its class."""

    function: typing.Any
    owner: typing.Any = None

    def __str__(self):
        module = self.function.__module__.removeprefix("mlfs.")
        return f"{module}.{self.function.__qualname__}"

    @property
    def is_check(self):
        return str(self).startswith("core.numerics.check_")

    @property
    def parameters(self):
        found = inspect.signature(self.function).parameters
        return dict(list(found.items())[1:]) if self.owner else dict(found)

    def kind(self, parameter):
        """What KINDS knows: of the method or function, of the class, of the name."""
        name = self.function.__qualname__
        keys = [f"{name}.{parameter}", parameter]
        if self.owner:
            keys.insert(1, f"{self.owner.__name__}.{parameter}")
        for key in keys:
            if key in KINDS:
                return key
        raise LookupError(
            f"{self} takes {parameter!r}, of which nothing is known: "
            f'add "{parameter}" or "{keys[0]}" to {HERE}'
        )

    def good(self, world):
        return {p: world[self.kind(p)] for p in self.parameters}

    def call(self, world, arguments):
        places = [
            arguments.pop(name)
            for name, p in self.parameters.items()
            if p.kind is p.POSITIONAL_ONLY
        ]
        if not self.owner:
            return self.function(*places, **arguments)
        me = Target(self.owner)
        me = me.call(world, me.good(world))
        return getattr(me, self.function.__name__)(*places, **arguments)

    def axes(self):
        """The letters of all axes, of the arguments and of the object they go to."""
        owner = Target(self.owner) if self.owner else None
        return "".join(
            KINDS[target.kind(p)].axes
            for target in (self, owner)
            if target
            for p in target.parameters
        )

    def tied(self, parameter):
        """The axes whose length another axis fixes."""
        mine = KINDS[self.kind(parameter)].axes
        return [i for i, letter in enumerate(mine) if self.axes().count(letter) > 1]

    def partners(self, parameter):
        """The arguments that share an axis with this one: either may be to blame."""
        mine = set(KINDS[self.kind(parameter)].axes)
        return [p for p in self.parameters if mine & set(KINDS[self.kind(p)].axes)]


def targets(found):
    """Every public function, constructor and method of these modules."""
    for it in itertools.chain.from_iterable(map(members, found)):
        if not inspect.isclass(it):
            yield Target(it)
        elif not getattr(it, "_is_protocol", False):
            if is_checked(it):
                yield Target(it)
            for name, method in vars(it).items():
                if inspect.isfunction(method) and not name.startswith("_"):
                    yield Target(method, it)


TARGETS = list(targets(modules()))
each_target = pytest.mark.parametrize("target", TARGETS, ids=str)


# ---------------------------------------------------------------- a small world


class World:
    """Arguments that go together: K states, T steps, D dimensions, M symbols."""

    def __init__(self, K=3, T=6, D=2, M=4, emissions="Poisson"):
        self.K, self.T, self.D, self.M, self.emissions = K, T, D, M, emissions
        self.values = {}

    def __getitem__(self, key):
        """A good value of a kind, the same at every call, in a copy of its own."""
        if key not in self.values:
            self.values[key] = self.choose(key)
        value = self.values[key]
        return value if callable(value) else copy.deepcopy(value)

    def choose(self, key):
        return KINDS[key].make(self)

    def random(self, name):
        """The same numbers in every run, and others for every name."""
        return np.random.default_rng(zlib.crc32(name.encode()))

    def uniform(self, name, low, high, *shape):
        return self.random(name).uniform(low, high, shape)

    def whole(self, name, high, *shape):
        return self.random(name).integers(0, high, shape).astype(float)

    def simplex(self, name, *shape):
        """Rows in sixteenths: no state is rare, and no sum needs rounding."""
        K = shape[-1]
        even = np.full(K, 1 / K)
        return (self.random(name).multinomial(16 - K, even, shape[:-1]) + 1) / 16

    def model(self):
        cls = Target(getattr(hmm, self.emissions))
        return hmm.HMM(self["chain"], cls.call(self, cls.good(self)))

    def sequences(self):
        """Two recordings, of T steps and of one."""
        x = {"Poisson": "Poisson.x", "Categorical": "Categorical.x"}
        long = self[x.get(self.emissions, "Gaussian.x")]
        return [long, long[-1:].copy()]

    def masks(self):
        """A gap in the first recording, where there is room for it."""
        first = np.ones(self.T, dtype=bool)
        first[1:2] = False
        return [first, np.ones(1, dtype=bool)]


WORLDS = {
    "small": {},
    "one state": {"K": 1},
    "one step": {"T": 1},
    "one of each": {"K": 1, "T": 1, "D": 1, "M": 1},
    "long": {"T": 1200, "K": 2},
    "symbols": {"emissions": "Categorical"},
    "vectors": {"emissions": "Gaussian", "T": 20},
}
# Where a good value does not exist: a chain of one state never leaves it.
NO_ANSWER = {
    ("glm.irls_step", "one step"),
    ("hmm.expected_dwell", "one state"),
    ("hmm.expected_dwell", "one of each"),
}


# ---------------------------------------------------------------- kinds of arguments

JUNK = {
    "None": None,
    "text": "abc",
    "bytes": b"abc",
    "an object": object(),
    "a dict": {0: 1.0},
    "a set": {1.0},
    "a function": len,
    "a class": float,
    "a complex number": 1.0 + 1.0j,
    "a date": np.datetime64("2020-01-01"),
    "a time": np.timedelta64(1, "s"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """`make(world)` is a good value; `more(good, world)` are bad ones by description.

    `axes` names the axes by letters: those with the same letter have one length.
    """

    make: typing.Any
    more: typing.Any = lambda good, world: {}
    axes: str = ""

    def usual(self, good, world):
        return {}

    def spoilt(self, good, world):
        return self.usual(good, world) | self.more(good, world)

    def resized(self, good, axis):
        return {}

    def extreme(self, good):
        """A strategy for values at the edge and beyond, or None to keep the good."""
        return None


class Fixed(Kind):
    """Written in the source by the author of a call and read by mypy: not data."""


class Thing(Kind):
    """An object of one class."""

    def usual(self, good, world):
        return JUNK | {"an array": np.ones(world.K), "its class": type(good)}


class Scalar(Kind):
    """A real number."""

    def usual(self, good, world):
        return JUNK | {
            "NaN": NAN,
            "inf": INF,
            "-inf": -INF,
            "a bool": True,
            "a numpy bool": np.False_,
            "digits": "1.0",
            "a list": [good],
            "an array": np.array([good, good]),
            "empty": np.array([]),
            "beyond floats": 10**400,
        }

    def extreme(self, good):
        return st.sampled_from([0.0, 5e-324, 1e-300, 1.0, 1e300, 1.7e308, NAN])


class Whole(Scalar):
    """A whole number that is not negative."""

    def usual(self, good, world):
        return super().usual(good, world) | {
            "a fraction": 1.5,
            "a whole float": float(good),
            "a numpy float": np.float64(good),
            "an array without axes": np.array(good),
            "negative": -1,
            "more than floats can count": 2**53 + 1,
        }

    def extreme(self, good):
        return st.sampled_from([-1, 0, 1, 2, 7])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Numbers(Kind):
    """An array of numbers in [low, high] or in `allow`, of a rank that is fixed."""

    low: float = -INF
    high: float = INF
    allow: tuple = ()
    whole: bool = False
    any_shape: bool = False
    palette: tuple = (-1.0, 0.0, 1.0)

    def usual(self, good, world):
        shapes = {} if self.any_shape else self.misshapen(good)
        return JUNK | self.no_numbers(good) | self.outside(good) | shapes

    def no_numbers(self, good):
        """Arrays and lists of something else."""
        masked = np.ma.MaskedArray(good, mask=np.zeros(good.shape))
        masked[..., -1] = np.ma.masked
        return {
            "complex": good + 1e-9j,
            "complex, none imaginary": good + 0j,
            "complex in lists": (good + 1j).tolist(),
            "digits": good.astype(str),
            "digits in lists": good.astype(str).tolist(),
            "objects": good.astype(object),
            "None inside": [None, *good.tolist()],
            "ragged": [*good.tolist(), [[1.0]]],
            "dates": np.full(good.shape, np.datetime64("2020-01-01")),
            "masked": masked,
            "fields": np.zeros(good.shape, dtype=[("x", float)]),
        }

    def outside(self, good):
        """One entry that is out of range, at each end of the array."""
        bad = {"NaN": NAN, "inf": INF, "-inf": -INF}
        bad |= {"too low": self.low * 1.5 - 1.0} if np.isfinite(self.low) else {}
        bad |= {"too high": self.high * 1.5 + 1.0} if np.isfinite(self.high) else {}
        bad |= {"a fraction": 0.5, "beyond int64": 1e300} if self.whole else {}
        found = {}
        for (how, value), at in itertools.product(bad.items(), (0, -1)):
            if value not in self.allow:
                found[f"{how} at {at}"] = good.copy()
                found[f"{how} at {at}"][(at,) * good.ndim] = value
        if INF not in self.allow:
            found["beyond float64"] = np.full(good.shape, np.longdouble("1e400"))
        if NAN not in self.allow:
            found["all NaN"] = np.full(good.shape, NAN)
        return found

    def misshapen(self, good):
        return {
            "an axis more": good[None],
            "an axis more at the end": good[..., None],
            "an axis less": good[0],
            "a number": 1.0,
            "empty": good[:0],
            "an empty list": [],
            "no columns": good[..., :0],
        }

    def resized(self, good, axis):
        """One entry fewer along an axis, and one more."""
        first = np.take(good, [0], axis)
        return {
            f"axis {axis} shorter": np.delete(good, 0, axis),
            f"axis {axis} longer": np.concatenate([good, first], axis),
        }

    def extreme(self, good):
        """Tables of a few numbers repeated, so that zeros and NaN often meet."""
        usual = st.sampled_from(self.palette)
        number = st.one_of(usual, usual, usual, st.sampled_from([NAN, INF, -INF, -1.0]))
        few = st.lists(number, min_size=1, max_size=3)
        return few.flatmap(
            lambda few: st.lists(
                st.sampled_from(few), min_size=good.size, max_size=good.size
            )
        ).map(lambda table: np.reshape(np.array(table), good.shape))


class Reals(Numbers):
    """Any numbers at all, NaN among them."""

    def extreme(self, good):
        return None


class Simplex(Numbers):
    """Probabilities along the last axis."""

    def usual(self, good, world):
        low, last = good.copy(), good.copy()
        low[..., 0], low[..., 1] = -0.25, good[..., 0] + good[..., 1] + 0.25
        last[(-1,) * good.ndim] += 1e-6
        return super().usual(good, world) | {
            "sums to 0.9": good * 0.9,
            "last row off by a millionth": last,
            "zeros": np.zeros_like(good),
            "counts": good * 16,
            "negative, and sums to 1": low,
        }

    def resized(self, good, axis):
        return {
            how: p / np.maximum(p.sum(axis=-1, keepdims=True), 1e-300)
            for how, p in super().resized(good, axis).items()
        }

    def extreme(self, good):
        """Rows of weights that differ by all that a double can tell."""
        weight = st.sampled_from([0.0, 0.0, 1.0, 3.0, 1e-16, 1e-30, 1e-200, 1e-320])
        *rows, K = good.shape
        row = st.lists(weight, min_size=K, max_size=K).filter(any)
        n = int(np.prod(rows))
        valid = st.lists(row, min_size=n, max_size=n).map(
            lambda w: (w / np.sum(w, axis=1, keepdims=True)).reshape(good.shape)
        )
        return st.one_of(valid, valid, valid, super().extreme(good))


class Mask(Kind):
    """An array of booleans, or a list of such."""

    def usual(self, good, world):
        changed = {
            "ints": lambda m: m.astype(int),
            "floats": lambda m: m.astype(float),
            "NaN": lambda m: np.full(m.shape, NAN),
            "objects": lambda m: m.astype(object),
            "text": lambda m: m.astype(str),
            "an axis more": lambda m: m[:, None],
            "a number": lambda m: 1.0,
            "a bool": lambda m: True,
            "empty": lambda m: m[:0],
            "too short": lambda m: m[1:],
            "too long": lambda m: np.append(m, True),
            "ragged": lambda m: [True, [True, False]],
            "masked": lambda m: np.ma.MaskedArray(m, mask=True),
            "None inside": lambda m: None,
        }
        junk = {how: it for how, it in JUNK.items() if how != "None"}
        if isinstance(good, list):  # None stands for no masks at all
            first, *others = good
            bad = {how: [f(first), *others] for how, f in changed.items()}
            return junk | bad | {"too few": others, "too many": [*good, first]}
        return junk | {how: f(good) for how, f in changed.items()}


class Items(Kind):
    """A list of at least one thing."""

    def usual(self, good, world):
        return JUNK | {
            "none": [],
            "an empty tuple": (),
            "a bare array": np.ones(3),
            "a table": np.ones((2, 3)),
            "an iterator": iter(good),
            "a number": 1.0,
        }


# ---------------------------------------------------------------- ways to spoil it


def not_a_generator(good, world):
    return {
        "a seed": 0,
        "the old kind": np.random.RandomState(0),
        "a bit generator": np.random.PCG64(0),
        "the module": np.random,
        "its maker": np.random.default_rng,
    }


def bad_sequences(good, world):
    x, end = good
    found = {}
    for value in (NAN, INF, -INF, -1.0, 0.5):  # the small world holds counts
        found[f"{value} at the end"] = [np.append(x[:-1], value), end]
        found[f"{value} in the second"] = [x, np.full(1, value)]
    return found | {
        "an empty array": [x[:0], end],
        "an empty list": [x, []],
        "None inside": [x, None],
        "a number inside": [x, 1.0],
        "text inside": ["abc", end],
        "complex": [x + 1j, end],
        "objects": [x.astype(object), end],
        "digits": [x.astype(str), end],
        "ragged": [[[1.0], [1.0, 2.0]], end],
        "of another rank": [x, end[:, None]],
        "an axis too many": [x[:, None], end[:, None]],
        "masked": [np.ma.MaskedArray(x, mask=x == x[0]), end],
    }


def other_states(good, world):
    wider = World(K=world.K + 1)
    return {"other states": wider.model().emissions, "a chain": world["chain"]}


def bad_order(good, world):
    return {
        "twice the same": good * 0,
        "from one": good + 1,
        "backwards": -good,
    }


def bad_covariance(good, world):
    tilted = good.copy()
    tilted[-1, 0, 1] += 1e-3
    return {
        "not symmetric": tilted,
        "negative": -good,
        "zero": good * 0,
        "singular": np.ones_like(good),
        "one matrix for all": good[0],
        "variances alone": np.diagonal(good, axis1=1, axis2=2),
    }


def impossible(good, world):
    """Likelihoods under which no path has happened."""
    found = {}
    for t in (0, 2, -1):
        found[f"no state at {t}"] = good.copy()
        found[f"no state at {t}"][t] = 0.0
    return found | {"no state ever": good * 0.0}


def log_impossible(good, world):
    found = impossible(np.exp(good), world)
    with np.errstate(divide="ignore"):
        return {how: np.log(B) for how, B in found.items()}


def subnormal(good, world):
    return {"too small to have all digits": good * 1e-310}


def of_other_data(good, world):
    """Right on its own, but not what goes with the other arguments."""
    return {"of other data": np.roll(good, 1, axis=0), "turned": good[..., ::-1]}


# ---------------------------------------------------------------- what each name means

UNIT = (0.0, 5e-324, 1e-320, 1e-300, 1e-200, 1e-16, 0.5, 1.0)
POSITIVE = (*UNIT, 2.0, 1e16, 1e150, 1e200, 1e299, 1e300, 1.7e308)
LOGS = (-INF, -INF, -1.7e308, -1e300, -1e17, -1e5, -745.0, -1.0, 0.0, 710.0, 1e300)
POINTS = (-1e308, -1e150, -1e20, -1.0, 0.0, 1e-320, 1e-150, 1.0, 1e10, 1e150, 1e160)
WHOLES = (0.0, 1.0, 2.0, 3.0, 1e15, 2.0**53, 2.0**53 + 2, 1e300, 0.5)

PROBABILITY = {"low": 0.0, "high": 1.0, "palette": UNIT}
LIKELIHOOD = {"axes": "TK", "low": 0.0, "high": 1e300, "palette": POSITIVE}
LOG = {"axes": "TK", "low": -1e300, "high": 1e300, "allow": (-INF,), "palette": LOGS}
COUNTS = {"low": 0.0, "high": 2.0**53, "whole": True, "palette": WHOLES}
POINT = {"low": -1e150, "high": 1e150, "palette": POINTS}


def transitions(**more):
    return Simplex(
        make=lambda w: w.simplex("A", w.K, w.K), axes="KK", **PROBABILITY, **more
    )


def likelihoods(**more):
    make = lambda w: np.exp(World.choose(w, "log_B"))
    return Numbers(make=make, **LIKELIHOOD, **more)


def log_likelihoods(**more):
    make = lambda w: w.uniform("log_B", -4.0, 1.0, w.T, w.K)
    return Numbers(make=make, **LOG, **more)


def counts(name, high, **more):
    return Numbers(
        make=lambda w: w.whole(name, high(w), w.T), axes="T", **COUNTS, **more
    )


KINDS = {
    # a hidden chain and its path
    "pi": Simplex(make=lambda w: w.simplex("pi", w.K), axes="K", **PROBABILITY),
    "A": transitions(),
    "stationary.A": transitions(more=lambda good, w: {"no moves": np.eye(w.K)}),
    "expected_dwell.A": transitions(more=lambda good, w: {"no moves": np.eye(w.K)}),
    "chain": Thing(
        make=lambda w: hmm.Chain(w["pi"], w["A"]),
        more=lambda good, w: {"pi and A": (good.pi, good.A), "a model": w["model"]},
        axes="K",
    ),
    "z": counts("z", lambda w: w.K, more=lambda good, w: {"no such state": good + w.K}),
    "order": Numbers(
        make=lambda w: w.random("order").permutation(w.K).astype(float),
        more=bad_order,
        axes="K",
        **COUNTS,
    ),
    # what data say of it
    "B": likelihoods(),
    "forward.B": likelihoods(more=lambda g, w: impossible(g, w) | subnormal(g, w)),
    "forward_probabilities.B": likelihoods(
        more=lambda good, w: {"products overflow": good * 1e200}
    ),
    "posteriors.B": likelihoods(more=of_other_data),
    "log_B": log_likelihoods(),
    "viterbi.log_B": log_likelihoods(more=log_impossible),
    "smooth.log_B": log_likelihoods(more=log_impossible),
    "log_evidence.log_B": log_likelihoods(more=log_impossible),
    "sample_paths.log_B": log_likelihoods(more=log_impossible),
    "alpha": Simplex(
        make=lambda w: hmm.forward(w["pi"], w["A"], w["B"])[0],
        more=of_other_data,
        axes="TK",
        **PROBABILITY,
    ),
    "beta": Numbers(
        make=lambda w: hmm.backward(w["A"], w["B"], w["c"]),
        more=lambda good, w: (
            of_other_data(good, w)
            | {"twice": 2.0 * good, "overflow": np.full(good.shape, 1.7e308)}
        ),
        axes="TK",
        low=0.0,
        palette=POSITIVE,
    ),
    "c": Numbers(
        make=lambda w: hmm.forward(w["pi"], w["A"], w["B"])[1],
        more=lambda good, w: subnormal(good, w) | {"overflow": good * 1e-300},
        axes="T",
        low=0.0,
        palette=POSITIVE,
    ),
    "gamma": Simplex(
        make=lambda w: w.simplex("gamma", w.T, w.K), axes="TK", **PROBABILITY
    ),
    # what is observed
    "Poisson.x": counts("counts", lambda w: 9),
    "Categorical.x": counts(
        "symbols", lambda w: w.M, more=lambda good, w: {"no such symbol": good + w.M}
    ),
    "Gaussian.x": Numbers(
        make=lambda w: w.uniform("points", -2.0, 2.0, w.T, w.D), axes="TD", **POINT
    ),
    "rate": Numbers(
        make=lambda w: w.uniform("rate", 1.0, 9.0, w.K),
        axes="K",
        low=0.0,
        high=2.0**53,
        palette=POSITIVE,
    ),
    "prob": Simplex(
        make=lambda w: w.simplex("prob", w.K, w.M), axes="KM", **PROBABILITY
    ),
    "mean": Numbers(
        make=lambda w: w.uniform("mean", -2.0, 2.0, w.K, w.D), axes="KD", **POINT
    ),
    "cov": Numbers(
        make=lambda w: np.eye(w.D) + w.uniform("cov", 0.0, 0.5, w.K, 1, 1),
        more=bad_covariance,
        axes="KDD",
        low=-1e300,
        high=1e300,
        palette=POSITIVE,
    ),
    "jitter": Scalar(make=lambda w: 0.5, more=lambda good, w: {"negative": -1.0}),
    # learning
    "emissions": Thing(make=lambda w: w.model().emissions, more=other_states, axes="K"),
    "model": Thing(
        make=World.model,
        more=lambda good, w: {"a chain": good.chain, "a pair": (good.chain, 0)},
        axes="K",
    ),
    "sequences": Items(make=World.sequences, more=bad_sequences),
    "observed": Mask(make=World.masks),
    "n_iter": Whole(make=lambda w: 3, more=lambda good, w: {"zero": 0}),
    "tol": Scalar(make=lambda w: 1e-6, more=lambda good, w: {"negative": -1e-9}),
    "log_evidence": Scalar(make=lambda w: -12.5),
    "n_parameters": Whole(make=lambda w: 4),
    "n": Whole(make=lambda w: 5, more=lambda good, w: {"zero": 0}),
    "T": Whole(make=lambda w: w.T, more=lambda good, w: {"zero": 0}),
    "rng": Thing(make=lambda w: np.random.default_rng(0), more=not_a_generator),
    "load.name": Thing(
        make=lambda w: "earthquakes", more=lambda good, w: {"none": "", "a list": []}
    ),
    # core.numerics: the first argument of a check is what to call the second
    "logsumexp.a": Numbers(
        make=lambda w: w["log_B"],
        more=lambda good, w: {"empty": good[:0], "no axis": 1.0},
        allow=(INF, -INF),
        any_shape=True,
        palette=LOGS,
    ),
    "logsumexp.axis": Fixed(
        make=lambda w: 0,
        more=lambda good, w: {
            "no such": 2,
            "from the end": -3,
            "half": 0.5,
            "all": None,
        },
    ),
    "log_probability.p": Numbers(
        make=lambda w: w["B"], low=0.0, any_shape=True, palette=POSITIVE
    ),
    "check_real.a": Reals(
        make=lambda w: World.choose(w, "log_B"),
        allow=(NAN, INF, -INF),
        any_shape=True,
    ),
    "check_array.a": log_likelihoods(),
    "check_simplex.p": transitions(),
    "check_counts.x": counts("counts", lambda w: 9),
    "check_mask.mask": Mask(make=lambda w: w.masks()[0]),
    "check_list.items": Items(make=lambda w: [1, 2]),
    "check_whole.n": Whole(make=lambda w: 5, more=lambda good, w: {"zero": 0}),
    "check_scalar.x": Scalar(make=lambda w: 1.5, more=lambda g, w: {"low": -1.0}),
    "check_type.it": Thing(make=lambda w: w["chain"]),
    "check_type.kind": Fixed(make=lambda w: hmm.Chain),
    "check_array.shape": Fixed(make=lambda w: ("T", w.K)),
    "check_simplex.shape": Fixed(make=lambda w: ("K", "K")),
    "check_counts.shape": Fixed(make=lambda w: ("T",)),
    "check_mask.shape": Fixed(make=lambda w: (w.T,)),
    "check_array.low": Fixed(make=lambda w: -1e300),
    "check_array.high": Fixed(make=lambda w: 1e300),
    "check_array.allow": Fixed(make=lambda w: (-INF,)),
    "check_whole.low": Fixed(make=lambda w: 1),
    "check_scalar.low": Fixed(make=lambda w: 0.0),
    "check_scalar.high": Fixed(make=lambda w: 1e300),
}
KINDS |= {
    f"{name}.name": Fixed(make=lambda w, argument=argument: argument)
    for name, argument in (
        key.split(".") for key in list(KINDS) if key.startswith("check_")
    )
    if argument in {"a", "p", "x", "mask", "items", "n", "it"}
}


# ---------------------------------------------------------------- linear models

REAL = {"low": -1e50, "high": 1e50, "palette": (-1e50, -1e9, -1.0, 0.0, 1e-320, 1e50)}
MEAN = {"low": 0.0, "high": 1e250, "palette": (0.0, 5e-324, 1e-9, 1.0, 1e9, 1e250)}


class Optional(Numbers):
    """Numbers, or None for the default."""

    def usual(self, good, world):
        bad = super().usual(good, world)
        return {how: it for how, it in bad.items() if how != "None"}


class Function(Kind):
    """Something to call."""

    def usual(self, good, world):
        return {how: it for how, it in JUNK.items() if not callable(it)}


class Name(Kind):
    """A text."""

    def usual(self, good, world):
        return {how: it for how, it in JUNK.items() if how != "text"}


class Flag(Kind):
    """True or False."""

    def usual(self, good, world):
        return JUNK | {"one": 1, "an array": np.ones(3, bool), "NaN": NAN}


def real(name, sides, letters, **more):
    """Numbers from -1 to 1; `sides` tells their shape in a world."""
    make = lambda w: w.uniform(name, -1.0, 1.0, *sides(w))
    return Numbers(make=make, axes=letters, **(REAL | more))


def means(name, high=1e250):
    limits = MEAN | {"high": high}
    return Numbers(make=lambda w: w.uniform(name, 0.5, 3.0, w.T), axes="T", **limits)


def one_hot(w):
    return glm.OneHot(w["index"], w["sizes"])


def scalar(value, **bad):
    return Scalar(make=lambda w: value, more=lambda good, w: bad)


def whole(value, **bad):
    return Whole(make=lambda w: value, more=lambda good, w: bad)


def bad_penalty(good, world):
    tilted = good.copy()
    tilted[0, -1] += 1.0
    return {"not symmetric": tilted, "negative": -good}


KINDS |= {
    "index": Numbers(
        make=lambda w: w.whole("index", 3, w.T, w.D),
        more=lambda good, w: {"no such bin": good + 3, "a block more": good[:, :1]},
        axes="TD",
        **COUNTS,
    ),
    "sizes": Items(
        make=lambda w: [3] * w.D,
        more=lambda good, w: {"an empty block": [0] * w.D, "fractions": [2.5] * w.D},
    ),
    "b": whole(0, none=99),
    "X": real("X", lambda w: (w.T, w.D), "TD"),
    "collapse.X": Thing(make=one_hot, axes="T"),
    "y": Numbers(make=lambda w: w.whole("y", 5, w.T) + 1, axes="T", **COUNTS),
    "exposure": Numbers(
        make=lambda w: w.uniform("exposure", 0.5, 2.0, w.T),
        more=lambda good, w: {"none": good * 0.0},
        axes="T",
        **(REAL | {"low": 0.0}),
    ),
    "w": real("w", lambda w: (w.D,), "D"),
    "family": Thing(make=lambda w: glm.POISSON),
    "offset": Numbers(
        make=lambda w: w.uniform("offset", -1.0, 1.0, w.T),
        more=lambda good, w: {"an axis more": good[None]},
        axes="T",
        any_shape=True,
        **REAL,
    ),
    "phi": scalar(0.5, zero=0.0, negative=-1.0),
    "weights": Optional(
        make=lambda w: w.whole("weights", 3, w.T) + 1,
        more=lambda good, w: {"none counts": good * 0.0},
        axes="T",
        **(REAL | {"low": 0.0}),
    ),
    "penalty": Optional(
        make=lambda w: np.eye(w.D) + 0.5, more=bad_penalty, axes="DD", **REAL
    ),
    "penalties": Items(
        make=lambda w: [np.eye(w.D), np.ones((1, 1))],
        more=lambda good, w: {
            "not square": [np.ones((2, 3))],
            "NaN": [np.full((2, 2), NAN)],
            "a number": [1.0],
            "None": [None],
        },
    ),
    "circular": Flag(make=lambda w: True),
    "n_rows": whole(3, one=1),
    "n_columns": whole(4, one=1),
    "amount": scalar(0.3, negative=-1.0),
    "lam": scalar(0.1, negative=-1.0),
    "lasso.n_iter": whole(100, zero=0),
    "groups": Optional(
        make=lambda w: np.arange(w.D) - 1.0,
        axes="D",
        **(COUNTS | {"low": -1.0}),
    ),
    "bin_index.x": Numbers(
        make=lambda w: w.uniform("inside", 0.0, 1.0, w.T), axes="T", **PROBABILITY
    ),
    "bin_index.low": scalar(0.0, equal=1.0, above=2.0),
    "bin_index.high": scalar(1.0, equal=0.0, below=-1.0),
    "n_lags": whole(6, one=1),
    "n_basis": whole(3, none=0),
    "stretch": scalar(2.0, zero=0.0, negative=-1.0),
    "filtered.x": real("signal", lambda w: (w.T,), "T"),
    "basis": real("basis", lambda w: (w.M, w.D), "LJ"),
    "delay": whole(1),
    "drive": real("drive", lambda w: (w.T, w.D), "TN", high=float(np.log(1e3))),
    "filters": Numbers(  # that quieten: the rate must not run away
        make=lambda w: w.uniform("filters", -1.0, 0.0, w.M, w.D, w.D),
        axes="LNN",
        **REAL,
    ),
    "mu": means("mu"),
    "rescaled_times.mu": means("mu", high=1e15),
    "null": means("null"),
    "time_blocks.T": whole(60, zero=0),
    "n_folds": whole(3, one=1),
    "n_blocks": whole(6, fewer=2),
    "gap": whole(1, long=5),
    "u": Numbers(make=lambda w: w.uniform("u", 0, 1, w.T), axes="n", **PROBABILITY),
    "dt": scalar(0.02, zero=0.0, negative=-0.1, long=2.0),
    "box": scalar(50.0, zero=0.0, negative=-1.0, small=0.1),
    "top_speed": scalar(40.0, negative=-1.0),
}

KINDS |= {
    "Family.name": Name(make=lambda w: "poisson"),
    "Family.low": scalar(0.0, above=7.0),
    "Family.high": scalar(5.0, below=-7.0),
}
KINDS |= {
    f"Family.{name}": Function(
        make=lambda w, name=name: getattr(glm.POISSON, name),
    )
    for name in glm.FORMULAS
}
KINDS |= {
    f"Family.{name}": Flag(make=lambda w: False)
    for name in ("whole", "dispersed", "positive")
}


# ---------------------------------------------------------------- bad input


def complaints(target, parameter):
    """What is wrong with the way in which a target refuses one argument."""
    world, kind = World(), KINDS[target.kind(parameter)]
    good = world[target.kind(parameter)]
    bad = [(how, it, [parameter]) for how, it in kind.spoilt(good, world).items()]
    for axis in target.tied(parameter):
        for how, it in kind.resized(good, axis).items():
            bad.append((how, it, target.partners(parameter)))
    for how, it, names in bad:
        arguments = target.good(world) | {parameter: it}
        try:
            target.call(world, arguments)
        except ValueError as error:
            message = str(error)
            named = any(re.search(rf"\b{name}\b", message) for name in names)
            if not named:
                yield f"{how}: does not name {' or '.join(names)}: {message}"
            if not re.search(r"\bwants?\b", message):
                yield f"{how}: does not say what it wants: {message}"
        except Exception as error:  # any: that is what is to be found out
            yield f"{how}: {type(error).__name__}: {error}"
        else:
            yield f"{how}: was taken"


@pytest.mark.parametrize(
    ("target", "parameter"),
    [pytest.param(t, p, id=f"{t}({p})") for t in TARGETS for p in t.parameters],
)
def test_bad_input_is_refused(target, parameter):
    assert list(complaints(target, parameter)) == []


@pytest.mark.parametrize(
    ("pi", "A", "lost"),
    [
        ([1.0, 0.0], [[1.0, 0.0], [0.5, 0.5]], 1),
        ([0.0, 1.0], [[0.5, 0.5], [0.0, 1.0]], 0),
        ([0.5, 0.5, 0.0], [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.1, 0.1, 0.8]], 2),
    ],
)
def test_a_state_that_nothing_reaches_is_refused(pi, A, lost):
    with pytest.raises(ValueError, match=rf"A and pi .*state {lost}.* want "):
        hmm.Chain(pi, A)


def test_a_state_that_is_reached_late_is_taken():
    line = np.eye(5, k=1)  # 0 → 1 → 2 → 3 → 4, which stays
    line[4, 4] = 1.0
    assert hmm.Chain(np.eye(5)[0], line).K == 5


@pytest.mark.parametrize(
    "target", [t for t in TARGETS if {"model", "sequences"} <= {*t.parameters}], ids=str
)
@pytest.mark.parametrize("long", [0, 300])
def test_impossible_data_are_refused(target, long):
    silent = hmm.HMM(hmm.Chain([0.5, 0.5], [[0.5, 0.5]] * 2), hmm.Poisson([0.0, 0.0]))
    quiet, spike = np.zeros(long + 1), np.append(np.zeros(long + 1), 1.0)
    arguments = {"model": silent, "sequences": [quiet, spike]}
    with pytest.raises(ValueError, match=r"sequences\[1\].* wants one"):
        target.call(World(), arguments)
    seen = [np.ones(long + 1, dtype=bool), np.append(np.ones(long + 1, bool), False)]
    target.call(World(), arguments | {"observed": seen})  # what was not seen is no data


NO_MOVES = [[1.0, 0.0], [0.0, 1.0]]
NO_PATH = {
    "the data ask for a move": ([0.5, 0.5], NO_MOVES, lambda t, T: int(t >= T // 2)),
    "the start is impossible": ([1.0, 0.0], [[0.5, 0.5]] * 2, lambda t, T: int(t < 1)),
    "a state is asked for that comes later": (
        [1.0, 0.0, 0.0],
        [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]],
        lambda t, T: 2 * (t == 1),
    ),
}


@pytest.mark.parametrize("T", [4, 400, 1200])
@pytest.mark.parametrize("why", NO_PATH)
@pytest.mark.parametrize("name", ["smooth", "log_evidence", "sample_paths", "viterbi"])
def test_data_that_no_path_explains_are_refused(name, why, T):
    """Each step is possible on its own."""
    pi, A, state = NO_PATH[why]
    log_B = np.full((T, len(pi)), -INF)
    log_B[range(T), [state(t, T) for t in range(T)]] = 0.0
    (target,) = (t for t in TARGETS if t.function is getattr(hmm, name))
    known = {"pi": pi, "A": A, "chain": hmm.Chain(pi, A), "log_B": log_B}
    arguments = {p: known.get(p, World()[p]) for p in target.parameters}
    with pytest.raises(ValueError, match=r"^log_B .* wants"):
        target.call(World(), arguments)


@pytest.mark.parametrize("bad", [[NAN], [INF], [0.0, 1e160], [], ["1"], [1j], [None]])
def test_a_plain_sequence_for_one_dimension_is_checked_too(bad):
    line = hmm.Gaussian([[0.0], [1.0]], [[[1.0]], [[1.0]]])
    for call in (line.log_likelihood, lambda x: line.m_step(x, [[0.5, 0.5]] * len(x))):
        with pytest.raises(ValueError, match=r"\bx\b.* wants"):
            call(bad)


@pytest.mark.parametrize(
    "target", [t for t in TARGETS if {"model", "sequences"} <= {*t.parameters}], ids=str
)
def test_sequences_have_rows_of_one_shape_even_where_nothing_was_seen(target):
    world = World()
    arguments = target.good(world) | {
        "sequences": [np.ones(3), np.ones((2, 5))],
        "observed": [np.ones(3, dtype=bool), np.zeros(2, dtype=bool)],
    }
    with pytest.raises(ValueError, match=r"sequences\[1\] has shape \(2, 5\).* want"):
        target.call(world, arguments)


class Flat:
    """Emissions that answer with one row whatever was asked."""

    K = 3

    def log_likelihood(self, x):
        return np.zeros((1, 3))


@pytest.mark.parametrize(
    "target", [t for t in TARGETS if {"model", "sequences"} <= {*t.parameters}], ids=str
)
def test_emissions_of_a_wrong_shape_are_not_stretched(target):
    world = World()
    arguments = target.good(world) | {"model": hmm.HMM(world["chain"], Flat())}
    with pytest.raises(ValueError, match=r"sequences\[0\].*shape \(1, 3\), wants"):
        target.call(world, arguments)


# ---------------------------------------------------------------- good input


def leaves(it):
    """Every array and number in a result, or in an argument."""
    if dataclasses.is_dataclass(it):
        it = [getattr(it, field.name) for field in dataclasses.fields(it)]
    if isinstance(it, dict):
        it = list(it.values())
    if isinstance(it, (list, tuple)):
        for one in it:
            yield from leaves(one)
    elif not isinstance(it, np.random.Generator):
        yield it


def is_nan(leaf):
    return np.asarray(leaf).dtype.kind in "fc" and bool(np.isnan(leaf).any())


def frozen(it):
    """The bits of everything in it."""
    return [
        (leaf.dtype, leaf.shape, leaf.tobytes())
        if isinstance(leaf, np.ndarray)
        else repr(leaf)
        for leaf in leaves(it)
    ]


def arrays(it):
    """The arrays that the caller holds: those in our objects are ours."""
    return [leaf for leaf in leaves(it) if isinstance(leaf, np.ndarray)]


@pytest.mark.parametrize("place", WORLDS)
@each_target
def test_good_input_is_taken(target, place):
    world = World(**WORLDS[place])
    arguments = target.good(world)
    before = frozen(arguments)
    if (str(target), place) in NO_ANSWER:
        with pytest.raises(ValueError, match="want"):
            target.call(world, dict(arguments))
    else:
        found = list(leaves(target.call(world, dict(arguments))))
        assert not any(map(is_nan, found))
    assert frozen(arguments) == before, "an argument was changed"


@each_target
def test_optional_arguments_may_be_left_out(target):
    world = World()
    needed = {
        name: value
        for name, value in target.good(world).items()
        if target.parameters[name].default is inspect.Parameter.empty
    }
    assert not any(map(is_nan, leaves(target.call(world, needed))))


@pytest.mark.parametrize("target", [t for t in TARGETS if not t.is_check], ids=str)
def test_results_are_the_callers_own(target):
    """Who writes into an argument later changes no result, and the other way round."""
    world = World()
    arguments = target.good(world)
    mine = [a for a in arguments.values() if not dataclasses.is_dataclass(a)]
    found = arrays(target.call(world, dict(arguments)))
    for one, other in itertools.product(found, arrays(mine)):
        assert not np.shares_memory(one, other)


def strided(a):
    """Every second entry of a larger array, with NaN in between."""
    wide = np.full([2 * n for n in a.shape], NAN if a.dtype.kind == "f" else 0, a.dtype)
    every_second = wide[tuple(slice(None, None, 2) for _ in a.shape)]
    every_second[...] = a
    return every_second


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def integers(a):
    whole = a.dtype.kind == "f" and np.isfinite(a).all() and (a == np.floor(a)).all()
    return a.astype(np.int16) if whole else a


def narrow(a):
    return a.astype(np.float32) if a.dtype.kind == "f" else a


FORMS = {
    "lists": np.ndarray.tolist,
    "strided": strided,
    "backwards in memory": lambda a: a[::-1].copy()[::-1],
    "columns first": np.asfortranarray,
    "read only": read_only,
    "the other byte order": lambda a: a.astype(a.dtype.newbyteorder("S")),
    "integers": integers,
    "single precision": narrow,
    "long double": lambda a: a.astype(np.longdouble) if a.dtype.kind == "f" else a,
    "a subclass": lambda a: np.ma.MaskedArray(a) if a.dtype.kind == "f" else a,
}


def formed(it, form):
    if isinstance(it, np.ndarray):
        return form(it)
    if isinstance(it, list):
        return [formed(one, form) for one in it]
    return it


@pytest.mark.parametrize("form", FORMS)
@each_target
def test_the_form_of_an_array_does_not_matter(target, form):
    world = World()
    want = target.call(world, target.good(world))
    arguments = {
        name: formed(value, FORMS[form]) for name, value in target.good(world).items()
    }
    for value in arrays(arguments.values()):
        value.setflags(write=False)
    got = target.call(world, arguments)
    rtol = 1e-4 if form == "single precision" else 1e-12
    for one, other in zip(leaves(got), leaves(want), strict=True):
        if isinstance(other, (float, np.ndarray)):
            assert isinstance(one, type(other))
            assert np.asarray(one).dtype == np.asarray(other).dtype
            np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)
        else:
            assert one == other


@each_target
def test_numpy_numbers_do_as_well(target):
    world = World()
    numbers = {float: np.float64, int: np.int64}
    arguments = {
        name: numbers.get(type(value), lambda it: it)(value)
        for name, value in target.good(world).items()
    }
    want = target.call(world, target.good(world))
    assert frozen(target.call(world, arguments)) == frozen(want)


# ---------------------------------------------------------------- extreme input


class ExtremeWorld(World):
    """Values at the edge of what is allowed and beyond, drawn as they are asked for."""

    def __init__(self, draw, **sizes):
        super().__init__(**sizes)
        self.draw = draw

    def choose(self, key):
        value = super().choose(key)
        strategy = KINDS[key].extreme(value)
        if strategy is None or self.draw(st.integers(0, 3)) == 0:
            return value
        return self.draw(strategy)


@pytest.mark.parametrize("target", [t for t in TARGETS if t.parameters], ids=str)
@settings(max_examples=25)
@given(
    draw=st.data(),
    K=st.integers(1, 3),
    T=st.sampled_from([1, 2, 3, 5]),
    emissions=st.sampled_from(["Poisson", "Categorical", "Gaussian"]),
)
def test_extreme_input_gives_an_answer_or_a_value_error(target, draw, K, T, emissions):
    world = ExtremeWorld(draw.draw, K=K, T=T, emissions=emissions)
    try:
        result = target.call(world, target.good(world))
    except ValueError as error:
        assert re.search(r"\bwants?\b", str(error)), error
    else:
        assert not any(map(is_nan, leaves(result))), result


@settings(max_examples=40)
@given(draw=st.data(), repeats=st.sampled_from([75, 300]))
def test_extreme_long_sequences(draw, repeats):
    """Where `smooth` works in chunks or in pieces."""
    world = ExtremeWorld(draw.draw, K=draw.draw(st.integers(1, 2)), T=4)
    table = np.tile(world["log_B"], (repeats, 1))
    try:
        found = hmm.smooth(world["chain"], table)
    except ValueError as error:
        assert re.search(r"\bwants?\b", str(error)), error
    else:
        assert not any(map(is_nan, leaves(found)))
        np.testing.assert_allclose(found.gamma.sum(axis=1), 1.0, rtol=1e-9)


class Loaded(np.random.Generator):
    """A generator that draws one number always, here the least or the largest."""

    def __init__(self, draw):
        super().__init__(np.random.PCG64(0))
        self.draw = draw

    def random(self, size=None):
        return np.full(size, self.draw)


@pytest.mark.parametrize("draw", [0.0, np.nextafter(1.0, 0.0)])
@pytest.mark.parametrize("seed", range(20))
def test_no_draw_leads_to_what_cannot_be(draw, seed):
    """The first and the last state, and symbol, are those that a slip would reach."""
    rng, K = np.random.default_rng(seed), 9
    rows = np.zeros((K + 1, K))
    rows[:, 1:-1] = rng.dirichlet(np.ones(K - 2), K + 1)
    rows[2, [0, -1]] = rows[2, 1:3]  # one row leads to both, or none could be reached
    rows[2, 1:3] = 0.0
    chain, symbols = hmm.Chain(rows[0], rows[1:]), hmm.Categorical(rows)
    for z in (
        hmm.simulate(chain, 30, Loaded(draw)),
        *hmm.sample_paths(chain, rng.normal(size=(30, K)), 2, Loaded(draw)),
    ):
        assert chain.pi[z[0]] > 0 and (chain.A[z[:-1], z[1:]] > 0).all()
    z = np.arange(K + 1)
    assert (rows[z, symbols.sample(z, Loaded(draw)).astype(int)] > 0).all()


@pytest.mark.parametrize("offset", [1e8, 1e12, 1e17, -1e12, 1e290])
def test_a_factor_for_a_step_moves_only_the_evidence(offset):
    """However large: here the likelihoods need log space, where digits could go."""
    A = [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]
    chain, table = hmm.Chain([0.3, 0.3, 0.4], A), np.zeros((100, 3))
    table[:50, 2] = table[50:, :2] = -16.0
    one, other = hmm.smooth(chain, table), hmm.smooth(chain, table + offset)
    assert other.log_evidence == pytest.approx(one.log_evidence + 100 * offset)
    if abs(offset) < 1e16:  # else the table itself has lost its entries
        np.testing.assert_allclose(other.gamma, one.gamma, atol=1e-9)
        np.testing.assert_allclose(other.xi_sum, one.xi_sum, atol=1e-9)
    np.testing.assert_allclose(other.gamma.sum(axis=1), 1.0, rtol=1e-9)


@pytest.mark.parametrize("T", [50, 1200])
def test_states_that_never_move_and_are_favoured_in_turn(T):
    """All messages underflow within a few steps; in logs the two states draw."""
    table = np.zeros((T, 2))
    table[::2, 0] = table[1::2, 1] = -1e5
    found = hmm.smooth(hmm.Chain([0.5, 0.5], np.eye(2)), table)
    np.testing.assert_allclose(found.gamma, 0.5, atol=1e-7)
    assert found.log_evidence == pytest.approx(-1e5 * T / 2, rel=1e-12)


def test_points_too_many_deviations_away_are_refused():
    """Their squared distance would be inf, and inf times 0 is NaN."""
    thin = hmm.Gaussian(
        [[0.0, 0.0], [1.0, 1.0]], np.tile(1e-290 * np.eye(2), (2, 1, 1))
    )
    with pytest.raises(
        ValueError, match=r"^x lies .* wants less than 1e\+150 standard"
    ):
        thin.log_likelihood([[1e10, 1.0]])
    assert np.isfinite(thin.log_likelihood([[1e-10, 0.5]])).all()


# ---------------------------------------------------------------- the tests themselves


def test_modules_left_out_are_there_and_have_their_tables():
    for name in ENGINE_ROOM | TABLES.keys():
        importlib.import_module(name)
    for test in TABLES.values():
        source = (pathlib.Path(__file__).parent / f"{test}.py").read_text()
        assert "\nREFUSALS = {" in source, test
        assert "def test_every_public_function_is_in_the_table" in source, test


def definitions(module):
    """The public functions and methods that a source defines, and its classes."""
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node.name
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name[0] != "_":
                    yield f"{node.name}.{inner.name}"


def is_left_out(module, path):
    """A Protocol holds no code, a property takes nothing, a record has no door."""
    cls, _, member = path.partition(".")
    cls = getattr(module, cls)
    if getattr(cls, "_is_protocol", False):
        return True
    if member:
        return isinstance(getattr(cls, member), property)
    return inspect.isclass(cls) and not is_checked(cls)


def test_nothing_public_is_overlooked():
    known = {str(target) for target in TARGETS}
    for module in modules():
        for path in definitions(module):
            name = f"{module.__name__.removeprefix('mlfs.')}.{path}"
            assert (name in known) != is_left_out(module, path), name


def test_properties_of_good_objects_hold_numbers():
    for target in TARGETS:
        if inspect.isclass(target.function):
            world = World()
            it = target.call(world, target.good(world))
            for name, member in vars(target.function).items():
                if isinstance(member, property):
                    assert not is_nan(getattr(it, name))


def test_records_are_results_only():
    """A class without a door is safe while no function takes one."""
    everything = list(itertools.chain.from_iterable(map(members, modules())))
    records = [
        it.__name__
        for it in everything
        if inspect.isclass(it)
        and not is_checked(it)
        and not getattr(it, "_is_protocol", False)
    ]
    assert "Posterior" in records
    for target, record in itertools.product(TARGETS, records):
        for parameter in target.parameters.values():
            assert not re.search(rf"\b{record}\b", str(parameter.annotation)), target


def test_every_kind_is_of_use():
    used = {
        target.kind(parameter) for target in TARGETS for parameter in target.parameters
    }
    assert sorted(set(KINDS) - used) == []


def careless(log_B):
    return np.log(log_B)


def nameless(log_B):
    raise ValueError("wants something else")


def curt(log_B):
    raise ValueError("log_B is bad")


def helpless(log_B):
    raise TypeError("log_B is bad, wants numbers")


@pytest.mark.parametrize(
    ("function", "complaint"),
    [
        (careless, "was taken"),
        (nameless, "does not name log_B"),
        (curt, "does not say what it wants"),
        (helpless, "TypeError"),
    ],
)
def test_a_new_function_without_a_door_is_found_out(function, complaint):
    module = types.ModuleType(function.__module__)
    module.function, module._private = function, careless
    (target,) = targets([module])
    assert any(complaint in found for found in complaints(target, "log_B"))


def test_a_new_argument_must_be_made_known():
    target = Target(lambda log_B, unheard_of: None)
    with pytest.raises(LookupError, match=r"'unheard_of'.*add \"unheard_of\" or"):
        target.good(World())
