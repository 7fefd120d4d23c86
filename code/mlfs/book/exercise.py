"""Exercises of the second evening: what is asked, and how an answer is judged.

A chapter's exercises stand in `mlfs.book.exercises.<module>` as a tuple `EXERCISES`, in
the order in which the page asks them.  `mlfs.book.check` judges answers.
"""

from __future__ import annotations

import copy
import importlib
import pkgutil
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np

from mlfs.book import exercises as _shelf

Function = Callable[..., Any]


# a comma between parts, not within a shape; a name, its shape, and what it is
_COMMA = re.compile(r", (?![^(]*\))")
_PART = re.compile(r"([A-Za-z]\w*)( \([^()]*\))?( (of|with) .*)?")


@dataclass(frozen=True, slots=True)
class Case:
    """One call of the function: its arguments by name, in the signature's order.

    An argument named `rng` is given as an integer seed (or a Generator): whoever is
    called gets a Generator of its own, in the same state.
    """

    arguments: Mapping[str, Any]
    note: str = ""

    def __post_init__(self) -> None:
        rng = self.arguments.get("rng", 0)
        if not isinstance(rng, Integral | np.random.Generator):
            raise ValueError(f"rng must be an integer seed or a Generator, got {rng!r}")

    def fresh(self) -> dict[str, Any]:
        """Copies of the arguments that nobody else holds."""
        given = {name: copy.deepcopy(value) for name, value in self.arguments.items()}
        if isinstance(given.get("rng"), Integral):
            given["rng"] = np.random.default_rng(int(given["rng"]))
        return given


@dataclass(frozen=True, slots=True)
class Law:
    """A statement about every right result, and the function that judges it.

    `holds(result, **arguments)` returns whether the statement holds, or a text that
    says in what way it does not.  `measure`, called alike, says in a few words how well
    a result does that passes.
    """

    statement: str
    holds: Callable[..., bool | str]
    measure: Callable[..., str] | None = None


@dataclass(frozen=True, slots=True)
class Mistake:
    """A plausible wrong version, and the hint for whoever has written it."""

    name: str
    hint: str
    function: Function

    def __post_init__(self) -> None:
        if not self.name or not self.hint:
            raise ValueError(f"a mistake needs a name and a hint, got {self!r}")


@dataclass(frozen=True, slots=True)
class Exercise:
    """A function to write: its signature, the right version, cases, laws and mistakes.

    With `compare=False` the laws alone judge a result: they are the acceptance criteria
    of a task that has more than one right answer.  `alike` tells then whether two
    results show the same mistake, where who made it may have drawn in another order.

    Raises:
        ValueError: the signature is not that of `name`, or two mistakes share a name.
    """

    name: str
    signature: str
    reference: Function
    cases: Callable[[np.random.Generator], Iterable[Case]]
    laws: tuple[Law, ...] = ()
    mistakes: tuple[Mistake, ...] = ()
    rtol: float = 1e-8
    atol: float = 1e-10
    compare: bool = True
    seconds: float = 10.0  # that an answer may take for all cases together
    alike: Callable[[Any, Any], bool] | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"name must be that of a function, got {self.name!r}")
        if not self.signature.startswith(f"{self.name}("):
            raise ValueError(f"signature must open {self.name}(, got {self.signature}")
        if not self.seconds > 0:
            raise ValueError(f"seconds must be positive, got {self.seconds}")
        names = [mistake.name for mistake in self.mistakes]
        if len(set(names)) < len(names):
            raise ValueError(
                f"mistakes of {self.name} must differ in name, got {names}"
            )

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts of a result, as the signature gives them after its arrow.

        Empty where it names none: "f(x) -> means (T,), log_p" has two, "f(x) -> a
        number" has none.
        """
        after = self.signature.partition(" -> ")[2]
        found = [_PART.fullmatch(part) for part in _COMMA.split(after)]
        names = tuple(match[1] for match in found if match)
        clear = len(names) == len(found) > 1 and "shape" not in names
        return names if clear else ()

    def generate(self) -> tuple[Case, ...]:
        """The cases, the same ones every time.

        Raises:
            ValueError: there are none.
        """
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        cases = tuple(self.cases(rng))
        if not cases:
            raise ValueError(f"exercise {self.name} has no cases")
        return cases


def exercises(module: str) -> tuple[Exercise, ...]:
    """The exercises of one module, in the order of the page.

    Raises:
        ValueError: the module has no exercises, or two of one name.
    """
    known = sorted(m.name for m in pkgutil.iter_modules(_shelf.__path__))
    if module not in known:
        names = ", ".join(known) or "none"
        raise ValueError(f"module {module!r} has no exercises; known: {names}")
    found = importlib.import_module(f"{_shelf.__name__}.{module}")
    listed: tuple[Exercise, ...] = tuple(found.EXERCISES)
    each = [one.name for one in listed]
    if len(set(each)) < len(each):
        raise ValueError(f"exercises of {module} must differ in name, got {each}")
    return listed


def exercise(name: str) -> Exercise:
    """The exercise called "module.function", for example "hmm.forward".

    Raises:
        ValueError: there is none of that name; the message lists those there are.
    """
    module, dot, function = name.rpartition(".")
    if not dot:
        raise ValueError(f'name must be "module.function", got {name!r}')
    listed = exercises(module)
    for one in listed:
        if one.name == function:
            return one
    known = ", ".join(f"{module}.{one.name}" for one in listed)
    raise ValueError(f"there is no exercise {name!r}; known: {known or 'none'}")
