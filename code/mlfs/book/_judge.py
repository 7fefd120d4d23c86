"""Judging a function that is meant to solve an exercise, and wording the verdict."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any

from mlfs.book._call import Outcome, call, complaint, is_learners, place
from mlfs.book._compare import children, deviation, misfit, nonfinite, show
from mlfs.book._limit import TimeIsUp, can_limit_time
from mlfs.book._report import Report
from mlfs.book.exercise import Case, Exercise, Function, Mistake


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong on one case; `loose`: it might come from chance draws."""

    message: str
    loose: bool = False


def judge(name: str, task: Exercise, candidate: Any, seconds: float) -> Report:
    """The report on a candidate, whatever it is and does."""
    cases = task.generate()
    trouble = _cannot_be_called(task, candidate, cases[0])
    if trouble:
        return Report(name, "failed", trouble)
    outcomes = _run(candidate, cases, seconds)
    if _is_not_started(outcomes[0].error):
        return Report(name, "not started", _what_to_write(task, outcomes[0].error))
    # where only laws judge, any value may be expected, and the reference can wait
    wanted = _sound(task.reference, cases) if task.compare else [...] * len(cases)
    problems = [
        _problem(task, *each, seconds)
        for each in zip(cases, wanted, outcomes, strict=False)
    ]
    index = next((i for i, problem in enumerate(problems) if problem), 0)
    left = seconds - sum(outcome.seconds for outcome in outcomes)
    chance = ""
    problem = problems[index]
    # where only laws judge, a lucky draw must not pass either
    if problem.loose if problem else not task.compare:
        chance = _chance(task, candidate, cases[index], outcomes[index], left)
    if not any(problems) and not chance:
        return _pass(name, task, cases, outcomes)
    known = None if chance else _matched(task, cases, outcomes)
    return Report(
        name,
        "failed",
        chance or _headline(cases, problems, index),
        hint=known.name if known else None,
        advice=known.hint if known else "",
        limited=can_limit_time(),
        **_evidence(task, cases[index], wanted[index], outcomes[index]),
    )


def _cannot_be_called(task: Exercise, candidate: Any, case: Case) -> str:
    if not callable(candidate):
        return f"This is of type {type(candidate).__name__}, not a function."
    try:
        signature = inspect.signature(candidate)
    except (TypeError, ValueError):  # some compiled functions do not tell
        return ""
    try:
        signature.bind(**case.arguments)
    except TypeError:
        theirs = f"{task.name}{signature.replace(return_annotation=signature.empty)}"
        return f"Its arguments do not fit: it is {theirs}, wanted {task.signature}."
    return ""


def _run(function: Function, cases: Sequence[Case], seconds: float) -> list[Outcome]:
    """Outcomes in order; what comes after the time limit or a stub is left out."""
    outcomes: list[Outcome] = []
    left = seconds
    for case in cases:
        outcome = call(function, case, left)
        outcomes.append(outcome)
        left -= outcome.seconds
        if outcome.expired or _is_not_started(outcomes[0].error):
            break
    return outcomes


def _sound(function: Function, cases: Sequence[Case]) -> list[Any]:
    """Results of the book's own function, whose errors are the author's."""
    outcomes = [call(function, case) for case in cases]
    for outcome in outcomes:
        if outcome.error:
            raise outcome.error
    return [outcome.value for outcome in outcomes]


def _is_not_started(error: BaseException | None) -> bool:
    """Whether it is a stub's NotImplementedError, not one from within a library."""
    if not isinstance(error, NotImplementedError) or error.__traceback__ is None:
        return False
    trace = error.__traceback__
    while trace.tb_next:
        trace = trace.tb_next
    name = str(trace.tb_frame.f_globals.get("__name__"))
    return is_learners(trace.tb_frame) or name.startswith("mlfs.book.")


def _what_to_write(task: Exercise, error: BaseException | None) -> str:
    trace = error.__traceback__ if error else None
    raisers = []
    while trace:
        raisers.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    stub = raisers[-1] if raisers else task.name
    if task.name in raisers[:-1] and stub != task.name:
        return f"It calls {stub}, which is not written yet."
    return f"Write {task.signature}"


def _problem(
    task: Exercise, case: Case, expected: Any, outcome: Outcome, seconds: float
) -> Problem | None:
    """The first thing wrong with one outcome, in the order that helps most."""
    if outcome.expired:
        return Problem(
            f"stopped after {seconds:g} s: is it slow, or does a loop never end?"
        )
    if outcome.error:
        return Problem(f"it raised {complaint(outcome.error)}")
    got = outcome.value
    if got is None and expected is not None:
        return Problem(misfit(expected, got) or "")
    if isinstance(got, Iterator) and (not task.compare or isinstance(expected, list)):
        return Problem("the result is an iterator, wanted a list: list(...)")
    form = task.compare and (misfit(expected, got) or nonfinite(expected, got))
    if form:
        return Problem(_with_name(task, form))
    if outcome.mutated:
        names = ", ".join(outcome.mutated)
        return Problem(f"it changed its argument {names}: work on a copy")
    wrong = task.compare and deviation(expected, got, task.rtol, task.atol)
    if wrong:
        return Problem(_with_name(task, wrong), loose=True)
    return _broken_law(task, case, outcome)


def _with_name(task: Exercise, message: str) -> str:
    """A message about result[2] with the name that the signature gives that part."""
    found = re.match(r"(result\[(\d+)\]\S*) ", message)
    if not found or int(found[2]) >= len(task.parts):
        return message
    return f"{task.parts[int(found[2])]} ({found[1]}) {message[found.end() :]}"


def _broken_law(task: Exercise, case: Case, outcome: Outcome) -> Problem | None:
    for law in task.laws:
        verdict = call(partial(law.holds, outcome.value), case)
        if verdict.error:
            why = f" (judging it raised {complaint(verdict.error)})"
        elif verdict.value and isinstance(verdict.value, str):
            why = f" ({verdict.value})"
        elif bool(verdict.value):
            continue
        else:
            why = ""
        return Problem(f"this must hold and does not: {law.statement}{why}", loose=True)
    return None


def _chance(
    task: Exercise, function: Function, case: Case, outcome: Outcome, left: float
) -> str:
    """What to say when a second call on the same input gives another result."""
    again = call(function, case, left)
    if again.expired or _agree(task, outcome, again):
        return ""
    text = "Two calls on the same input gave different results: "
    if "rng" in case.arguments:
        return f"{text}draw every random number from rng."
    return f"{text}it must not draw random numbers, nor keep anything between calls."


def _agree(task: Exercise, one: Outcome, other: Outcome) -> bool:
    """Whether two calls raised the same type of error or gave the same result."""
    if one.error or other.error:
        return type(one.error) is type(other.error)
    if misfit(one.value, other.value):
        return False
    return not deviation(one.value, other.value, task.rtol, task.atol)


def _matched(
    task: Exercise, cases: Sequence[Case], outcomes: Sequence[Outcome]
) -> Mistake | None:
    """The first known mistake that gives what the candidate gave on every case.

    A candidate that was stopped matches a mistake that raises TimeIsUp on that case.
    """
    for mistake in task.mistakes:
        pairs = zip(cases, outcomes, strict=False)  # a stopped one has no more outcomes
        if all(_matches(task, call(mistake.function, c), o) for c, o in pairs):
            return mistake
    return None


def _matches(task: Exercise, mistake: Outcome, candidate: Outcome) -> bool:
    if candidate.expired:
        return isinstance(mistake.error, TimeIsUp)
    if task.alike and not (mistake.error or candidate.error):
        same_form = not misfit(mistake.value, candidate.value)
        return same_form and task.alike(mistake.value, candidate.value)
    return _agree(task, mistake, candidate)


# Wording


def _pass(
    name: str, task: Exercise, cases: Sequence[Case], outcomes: Sequence[Outcome]
) -> Report:
    counts = [(len(outcomes), "case"), (len(task.laws), "law")]
    parts = [f"{n} {word}{'' if n == 1 else 's'}" for n, word in counts if n]
    reached = [
        str(call(partial(law.measure, outcome.value), case).value)
        for law in task.laws
        if law.measure
        for case, outcome in zip(cases, outcomes, strict=True)
    ]
    return Report(
        name,
        "passed",
        f"{', '.join(parts)}{': ' if reached else ''}{'; '.join(reached)}.",
        printed=outcomes[0].printed,
        limited=can_limit_time(),
    )


def _headline(
    cases: Sequence[Case], problems: Sequence[Problem | None], index: int
) -> str:
    """The first problem, and on which case of how many."""
    note = f" ({cases[index].note})" if cases[index].note else ""
    where = f"Case {index + 1} of {len(cases)}{note}"
    problem = problems[index]
    message = problem.message if problem else ""
    failing = sum(1 for each in problems if each)
    others = f" {failing} of {len(cases)} cases fail." if failing > 1 else ""
    return f"{where}: {message}{'' if message.endswith('?') else '.'}{others}"


def _evidence(
    task: Exercise, case: Case, expected: Any, outcome: Outcome
) -> dict[str, Any]:
    """What a report shows of a failing case."""
    arguments = dict(case.arguments)
    inputs = [
        f"rng = np.random.default_rng({value})"
        if name == "rng" and isinstance(value, Integral)
        else show(value, name)
        for name, value in arguments.items()
    ]
    error, got = outcome.error, outcome.value
    nothing = error or outcome.expired
    wrong = () if nothing or not task.compare else _wrong_parts(task, expected, got)
    if wrong:
        texts = [
            "\n".join(show(v[i], f"result[{i}]") for i in wrong)
            for v in (expected, got)
        ]
    else:
        texts = [show(value, _root(value)) for value in (expected, got)]
    return {
        "inputs": "\n".join(inputs),
        "expected": texts[0] if task.compare else "",
        "got": "" if nothing else texts[1],
        "line": place(error) if error else "",
        "printed": outcome.printed,
        "warned": outcome.warned,
    }


def _wrong_parts(task: Exercise, expected: Any, got: Any) -> tuple[int, ...]:
    """Which parts of a tuple differ; none where all do, or where that is not the point.

    The others are right, and need not be shown.
    """
    tuples = isinstance(expected, tuple) and isinstance(got, tuple)
    if not tuples or len(expected) != len(got) or _root(expected) == "":
        return ()
    wrong = tuple(
        i
        for i, (e, g) in enumerate(zip(expected, got, strict=True))
        if misfit(e, g) or nonfinite(e, g) or deviation(e, g, task.rtol, task.atol)
    )
    return wrong if len(wrong) < len(expected) else ()


def _root(value: Any) -> str:
    return "result" if children(value) else ""
