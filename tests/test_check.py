"""The exercise checker, on a toy set that lives in a temporary folder."""

import asyncio
import importlib
import inspect
import linecache
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

import mlfs.book.exercises
from mlfs.book import _limit
from mlfs.book import check as checker
from mlfs.book._call import FirstLines, call
from mlfs.book._compare import identical
from mlfs.book._limit import TimeIsUp
from mlfs.book.check import can_limit_time, check, mine, prove, which
from mlfs.book.exercise import Case, Exercise, Law, Mistake, exercise, exercises

TOY = """
import numpy as np
from mlfs.book.exercise import Case, Exercise, Law, Mistake


def step(x, A):
    secret_of_step = x @ A
    return secret_of_step + 1.0


def _step_cases(rng):
    yield Case({"x": np.array([2.0]), "A": np.eye(1)}, "one state")
    for K in (3, 4):
        yield Case({"x": rng.normal(size=K), "A": rng.normal(size=(K, K))}, f"K = {K}")


def _refuses_one_state(x, A):
    if len(x) == 1:
        raise ZeroDivisionError("planted")
    return step(x, A)


STEP = Exercise(
    "step",
    "step(x, A) -> y, shape (K,)",
    step,
    _step_cases,
    mistakes=(
        Mistake("transposed", "A[i, j] leads from i to j.", lambda x, A: A @ x + 1),
        Mistake("no offset", "Where is the one?", lambda x, A: x @ A),
        Mistake("one state", "What if K is 1?", _refuses_one_state),
    ),
)


def sort(a):
    order = np.argsort(a)
    return order, {"top": float(a.max()), "log": np.log(a)}


def _sort_cases(rng):
    yield Case({"a": np.array([0.5, 0.0, 2.0])}, "with a zero")
    yield Case({"a": rng.uniform(1, 2, size=100)}, "many")


def _wrong_sort(order=lambda o: o, top=lambda t: t, log=lambda g: g):
    def version(a):
        o, d = sort(a)
        return order(o), {"top": top(d["top"]), "log": log(d["log"])}
    return version


SORT = Exercise(
    "sort",
    "sort(a) -> (order, parts)",
    sort,
    _sort_cases,
    laws=(Law("order is a permutation", lambda r, a: len(set(r[0])) == len(a)),),
    mistakes=(
        Mistake("falls", "From small to large.", _wrong_sort(order=lambda o: o[::-1])),
        Mistake("bits", "Natural logarithm.", _wrong_sort(log=lambda g: g / np.log(2))),
        Mistake("low", "The largest.", _wrong_sort(top=lambda t: -t)),
    ),
)


def noise(n, rng):
    return rng.normal(size=n)


def _seeds(rng):
    for n in (1, 50):
        yield Case({"n": n, "rng": int(rng.integers(1000))}, f"n = {n}")


NOISE = Exercise(
    "noise",
    "noise(n, rng) -> x, shape (n,)",
    noise,
    _seeds,
    mistakes=(
        Mistake("uniform", "Normal.", lambda n, rng: rng.uniform(size=n)),
        Mistake("twice", "Standard.", lambda n, rng: 2 * rng.normal(size=n)),
        Mistake("shifted", "Centred.", lambda n, rng: 1 + rng.normal(size=n)),
    ),
)


def _near_zero(x, n, rng):
    return True if abs(x.mean()) < 4 / np.sqrt(n) else f"the mean is {x.mean():.2f}"


HARD = Exercise(
    "hard",
    "hard(n, rng) -> x, shape (n,)",
    noise,
    _seeds,
    laws=(
        Law("x has n entries", lambda x, n, rng: x.shape == (n,)),
        Law("the mean is near zero", _near_zero),
    ),
    mistakes=(Mistake("far", "Centred.", lambda n, rng: 9 + rng.normal(size=n)),),
    compare=False,
)

EXERCISES = (STEP, SORT, NOISE, HARD)
"""


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "toy.py").write_text(TOY)
    return folder


@pytest.fixture(autouse=True)
def toy(shelf, monkeypatch):
    """The toy set, put on the package's shelf for one test."""
    paths = [*mlfs.book.exercises.__path__, str(shelf)]
    monkeypatch.setattr(mlfs.book.exercises, "__path__", paths)
    monkeypatch.setattr(checker, "_passed", {})
    importlib.invalidate_caches()
    yield importlib.import_module("mlfs.book.exercises.toy")
    del sys.modules["mlfs.book.exercises.toy"]


def step(x, A):
    return x @ A + 1


def stub(x, A):
    raise NotImplementedError


def failure(name, candidate, **options):
    report = check(name, candidate, **options)
    assert report.status == "failed"
    assert not report.passed
    return report


# The register


def test_exercises_are_found_by_name_and_in_order(toy):
    assert exercises("toy") == toy.EXERCISES
    assert exercise("toy.sort") is toy.SORT


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("toy.stepp", "no exercise 'toy.stepp'; known: toy.step, toy.sort"),
        ("tox.step", "module 'tox' has no exercises; known: .*toy"),
        ("__init__.step", "has no exercises"),
        ("step", "must be \"module.function\", got 'step'"),
    ],
)
@pytest.mark.parametrize("door", [exercise, mine, which, lambda n: check(n, step)])
def test_unknown_names_are_refused_with_the_known(door, name, message):
    with pytest.raises(ValueError, match=message):
        door(name)


def test_bad_exercises_are_refused():
    good = Mistake("m", "hint", step)
    for kinds, message in [
        ({"name": "a b"}, "name must be"),
        ({"signature": "other(x)"}, r"must open step\("),
        ({"mistakes": (good, good)}, "differ in name"),
        ({"seconds": 0}, "seconds must be positive"),
    ]:
        given = {"name": "step", "signature": "step(x)", **kinds}
        with pytest.raises(ValueError, match=message):
            Exercise(reference=step, cases=list, **given)
    with pytest.raises(ValueError, match="no cases"):
        Exercise("step", "step(x)", step, lambda rng: []).generate()
    with pytest.raises(ValueError, match="name and a hint"):
        Mistake("m", "", step)
    with pytest.raises(ValueError, match="rng must be"):
        Case({"rng": "7"})
    with pytest.raises(ValueError, match="seconds must be positive, got 0"):
        check("toy.step", step, seconds=0)


def test_cases_are_the_same_every_time(toy):
    one, two = toy.STEP.generate(), toy.STEP.generate()
    np.testing.assert_array_equal(one[2].arguments["A"], two[2].arguments["A"])


# Passed and not started


def test_a_right_answer_passes():
    report = check("toy.step", step)
    assert report.passed
    assert str(report) == "✓ step: passed. 3 cases."
    theirs = str(check("toy.sort", exercise("toy.sort").reference))
    assert theirs.endswith("1 law. This is the book's own.")


def test_a_stub_is_not_started_on_one_line():
    report = check("toy.step", stub)
    assert report.status == "not started"
    assert str(report) == "○ step: not started. Write step(x, A) -> y, shape (K,)"


def test_a_stub_below_is_named():
    def helper():
        raise NotImplementedError

    def step(x, A):
        return helper()

    report = check("toy.step", step)
    assert report.status == "not started"
    assert "calls helper, which is not written yet" in report.message


def test_not_implemented_in_a_library_or_later_is_a_failure():
    def from_library(x, A):
        return asyncio.AbstractEventLoop().time()

    def later(x, A):
        if len(x) == 4:
            raise NotImplementedError("four")
        return step(x, A)

    failure("toy.step", from_library)
    report = failure("toy.step", later)
    assert "Case 3 of 3 (K = 4): it raised NotImplementedError: four." in report.message


# Errors


def test_an_error_shows_the_learners_own_line():
    def step(x, A):
        inner = lambda: np.linalg.solve(A, np.ones(99))
        return inner()

    report = failure("toy.step", step)
    assert "Case 1 of 3 (one state): it raised " in report.message
    assert report.line.startswith("test_check.py, line ")
    assert "np.linalg.solve(A, np.ones(99))" in report.line
    assert report.got == ""
    assert "x = [2.]" in report.inputs


def test_the_line_of_a_cell_is_found_without_its_file_name():
    name = "/nowhere/ipykernel_4321/99.py"
    source = "def step(x, A):\n    return x / undefined\n"
    linecache.cache[name] = (len(source), None, source.splitlines(True), name)
    cell = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), cell)
    report = failure("toy.step", cell["step"])
    assert report.line == "line 2, in step: return x / undefined"
    assert "4321" not in str(report)


def test_an_error_without_a_message_and_one_that_cannot_tell():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    def mute(x, A):
        raise Mute

    def silent(x, A):
        raise AssertionError

    assert "it raised Mute." in failure("toy.step", mute).message
    assert "it raised AssertionError." in failure("toy.step", silent).message


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
def test_what_would_end_the_program_is_an_error_like_others(error):
    def step(x, A):
        raise error

    assert f"raised {type(error).__name__}" in failure("toy.step", step).message


def test_sys_exit_is_caught():
    assert "SystemExit: 0" in failure("toy.step", lambda x, A: sys.exit(0)).message


@pytest.mark.parametrize("candidate", [None, 3, "step"])
def test_what_is_no_function_fails(candidate):
    assert "not a function" in failure("toy.step", candidate).message


def test_arguments_that_do_not_fit_are_named():
    message = failure("toy.step", lambda x, B: x).message
    assert "it is step(x, B), wanted step(x, A) -> y, shape (K,)." in message
    assert "do not fit" in failure("toy.step", lambda: 1).message


def test_a_callable_without_a_signature_is_called():
    assert "it raised" in failure("toy.step", max).message


# The form of the result


FORMS = [
    (lambda x, A: None, "result is None: is a return statement missing?"),
    (lambda x, A: (step(x, A), 1), "is a tuple of 2, wanted an array of shape (1,)"),
    (lambda x, A: list(step(x, A)), "a list of 1, wanted .*: return a NumPy array"),
    (lambda x, A: float(step(x, A)[0]), "is a single number, wanted an array"),
    (lambda x, A: step(x, A)[:, None], "has shape (1, 1), wanted (1,)."),
    (lambda x, A: step(x, A).astype(int), "holds integers, wanted floats: integers"),
    (lambda x, A: step(x, A) + 0j, "holds complex numbers, wanted floats"),
    (lambda x, A: step(x, A).astype(object), "holds Python objects, wanted floats"),
    (lambda x, A: step(x, A) > 0, "holds booleans, wanted floats"),
    (lambda x, A: step, "is of type function, wanted an array"),
    (lambda x, A: (i for i in x), "is of type generator, wanted an array"),
]


@pytest.mark.parametrize(("candidate", "message"), FORMS)
def test_the_form_of_an_array_is_judged(candidate, message):
    found = failure("toy.step", candidate).message
    assert all(part in found for part in message.split(".*"))


class Pull:
    """What has a text `source` is shown by it."""

    def __init__(self, factor):
        self.source = f"lambda g: {factor} * g"


def sort_parts(a):
    return exercise("toy.sort").reference(a)[1]


def changed(**parts):
    def version(a):
        order, values = exercise("toy.sort").reference(a)
        whole = {"order": order, **values}
        whole.update((key, change(whole[key])) for key, change in parts.items())
        return whole.pop("order"), whole

    return version


NESTED = [
    (lambda a: np.argsort(a), "array of shape (3,), wanted a tuple of 2"),
    (lambda a: (1, 2, 3), "the result is a tuple of 3, wanted a tuple of 2"),
    (lambda a: (np.argsort(a), 1), "result[1] is a single number, wanted a dict with"),
    (lambda a: (np.argsort(a), {"top": 1}), "keys 'top', wanted .* 'top', 'log'"),
    (
        lambda a: (np.argsort(a), {"top": 1.0, "lag": a}),
        "keys 'top', 'lag', wanted .* 'top', 'log'",
    ),
    (lambda a: (np.argsort(a), None), "result[1] is None, wanted a dict with the keys"),
    (
        lambda a: (None, sort_parts(a)),
        "result[0] is None, wanted an array of shape (3,)",
    ),
    (changed(top=lambda t: None), "result[1]['top'] is None, wanted a single number."),
    (changed(order=lambda o: o * 1.0), "result[0] holds floats, wanted integers"),
    (changed(top=lambda t: np.array([t])), "['top'] is an array of shape (1,), wanted"),
    (changed(top=lambda t: "2"), "['top'] is of type str, wanted a single number"),
    (changed(top=lambda t: True), "['top'] holds booleans, wanted floats"),
    (changed(log=lambda g: g[:2]), "['log'] has shape (2,), wanted (3,)"),
    (changed(top=lambda t: np.nan), "['top'] holds NaN."),
    (changed(top=lambda t: t + 1), "['top'] differs: expected 2, got 3."),
]


@pytest.mark.parametrize(("candidate", "message"), NESTED)
def test_parts_of_a_result_are_judged_and_named(candidate, message):
    found = failure("toy.sort", candidate).message
    assert all(part in found for part in message.split(".*"))


@pytest.mark.parametrize(
    ("after", "names"),
    [
        ("means (T,), log_p", ("means", "log_p")),
        ("A (K, K), c (T,) of row sums", ("A", "c")),
        ("y, shape (K,)", ()),
        ("a number", ()),
        ("cotangents of a and of b", ()),
        ("path (T,), log probability", ()),
    ],
)
def test_a_signature_names_the_parts_of_a_result(after, names):
    assert Exercise("f", f"f(x) -> {after}", step, list).parts == names


def test_parts_are_called_by_name_and_those_that_are_right_are_left_out(
    toy, monkeypatch
):
    def moments(x):
        return x + 1, x * 2, float(x.sum())

    def version(*change):
        return lambda x: tuple(c(v) for c, v in zip(change, moments(x), strict=True))

    def same(v):
        return v

    def off(v):
        return v + 1

    task = Exercise(
        "moments",
        "moments(x) -> mean (T,), var (T,), log_p",
        moments,
        lambda rng: [Case({"x": np.arange(3.0)})],
        laws=(Law("never", lambda r, x: r[2] > 9),),
    )
    monkeypatch.setattr(toy, "EXERCISES", (task,))
    report = failure("toy.moments", version(same, same, off))
    assert "log_p (result[2]) differs: expected 3, got 4." in report.message
    assert (report.expected, report.got) == ("result[2] = 3", "result[2] = 4")
    report = failure("toy.moments", version(same, lambda v: v[:2], same))
    assert "var (result[1]) has shape (2,), wanted (3,)" in report.message
    assert report.got == "result[1] = [0., 2.]"
    for change in (version(off, off, off), moments):  # all differ, or none does
        assert "result[0] = " in failure("toy.moments", change).got


@pytest.mark.parametrize(
    "candidate",
    [
        changed(top=np.float64),
        changed(top=np.array),
        changed(top=lambda t: 2 if t == 2 else t),
        changed(order=lambda o: o.astype(np.int32)),
        changed(order=lambda o: o.astype(np.uint8)),
        lambda a: list(exercise("toy.sort").reference(a)),
    ],
)
def test_what_makes_no_difference_passes(candidate):
    assert check("toy.sort", candidate).passed


def test_a_transposed_result_is_asked_about(toy, monkeypatch):
    outer = Exercise(
        "outer",
        "outer(a, b) -> M",
        np.outer,
        lambda rng: [Case({"a": np.ones(2), "b": np.ones(3)})],
    )
    monkeypatch.setattr(toy, "EXERCISES", (outer,))
    report = failure("toy.outer", lambda a, b: np.outer(b, a))
    assert "has shape (3, 2), wanted (2, 3): is it transposed?" in report.message


# NaN, infinity, values


def test_nan_and_infinity_are_found_where_there_should_be_none():
    def nan(x, A):
        return np.where(np.arange(len(x)) == 2, np.nan, step(x, A))

    def infinite(x, A):
        return step(x, A) / (np.arange(len(x)) != 1)

    report = failure("toy.step", nan)
    assert "Case 2 of 3" in report.message
    assert "holds NaN in 1 of 3 entries, first at [2]" in report.message
    report = failure("toy.step", infinite)
    assert "holds infinity in 1 of 3 entries, first at [1]" in report.message
    assert report.warned == ("RuntimeWarning: divide by zero encountered in divide",)
    assert "divide by zero" in str(report)
    assert "divide by zero" in report._repr_html_()


def test_infinity_is_right_where_the_reference_has_it_and_only_there():
    assert check("toy.sort", exercise("toy.sort").reference).passed
    flipped = failure("toy.sort", changed(log=lambda g: np.where(g < -9, np.inf, g)))
    assert "at [1]: expected -inf, got inf" in flipped.message
    finite = failure("toy.sort", changed(log=lambda g: np.maximum(g, -700)))
    assert "at [1]: expected -inf, got -700" in finite.message


def test_nan_is_right_where_the_reference_has_it(toy, monkeypatch):
    def ratio(a):
        return a / a

    cases = [Case({"a": np.array([1.0, 0.0])})]
    one = Exercise("ratio", "ratio(a)", ratio, lambda rng: cases)
    monkeypatch.setattr(toy, "EXERCISES", (one,))
    assert check("toy.ratio", ratio).passed
    report = failure("toy.ratio", np.ones_like)
    assert "differs in 1 of 2 entries, most at [1]: expected nan" in report.message


def test_the_largest_deviation_is_shown():
    def off(x, A):
        y = step(x, A)
        if len(y) > 1:
            y[0] += 1e-3
            y[2] -= 0.5
        return y

    report = failure("toy.step", off)
    assert "the result differs in 2 of 3 entries, most at [2]" in report.message
    assert "2 of 3 cases fail" in report.message
    case = exercise("toy.step").generate()[1].arguments
    assert f"expected {step(**case)[2]:.6g}, got" in report.message
    assert report.expected.startswith("[") and report.got.startswith("[")


def test_tolerances_are_those_of_the_exercise():
    assert check("toy.step", lambda x, A: step(x, A) * (1 + 1e-9)).passed
    report = failure("toy.step", lambda x, A: step(x, A) * (1 + 1e-7))
    assert "expected 3, got 3.0000003" in report.message
    report = failure("toy.step", lambda x, A: (step(x, A) * 1.1).astype(np.float32))
    assert "(float32 keeps few digits)" in report.message


def test_a_large_array_is_summarised():
    report = failure("toy.sort", changed(top=lambda t: t + (t < 2)))
    assert "Case 2" in report.message
    assert "a, shape (100,) = [" in report.inputs
    assert "..." in report.inputs and len(str(report)) < 1500
    assert "result[1]['top'] = " in report.got


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((4, 1), "p = (4, 1)"),
        ((4,), "p = (4,)"),
        ((), "p = ()"),
        ([0.5, None, "up"], "p = [0.5, None, 'up']"),
        ([np.float64(2.0), 1], "p = [2, 1]"),
        ([(), (0, 0)], "p[0] = ()\np[1] = (0, 0)"),
        ((np.ones(1), 2), "p[0] = [1.]\np[1] = 2"),
        (list(range(20)), f"p = {list(range(20))}"),
        (list(range(21)), "p = [0, 1, 2, 3, 4, …, 20]"),
        (tuple(range(99)), "p = (0, 1, 2, 3, 4, …, 98)"),
        (
            [(i,) for i in range(10_000)],
            "p[0] = (0,)\np[1] = (1,)\np[2] = (2,)\np[3] = (3,)\np[4] = (4,)\n…\n"
            "p[9999] = (9999,)",
        ),
        (Pull(3), "p = lambda g: 3 * g"),
        ([Pull(1), Pull(2)], "p[0] = lambda g: 1 * g\np[1] = lambda g: 2 * g"),
    ],
)
def test_inputs_are_shown_as_one_would_write_them(toy, monkeypatch, value, text):
    one = Exercise("f", "f(p)", lambda p: 1.0, lambda rng: [Case({"p": value})])
    monkeypatch.setattr(toy, "EXERCISES", (one,))
    assert failure("toy.f", lambda p: 2.0).inputs == text


def test_an_iterator_for_a_list_is_told_so(toy, monkeypatch):
    law = Law("falls", lambda result, a: list(result) == sorted(a)[::-1])
    cases = [Case({"a": [1, 2, 3]})]
    by_law = Exercise(
        "fall",
        "fall(a)",
        lambda a: sorted(a),
        lambda rng: cases,
        laws=(law,),
        compare=False,
    )
    by_value = Exercise("climb", "climb(a)", lambda a: sorted(a), lambda rng: cases)
    monkeypatch.setattr(toy, "EXERCISES", (by_law, by_value))
    assert check("toy.fall", lambda a: a[::-1]).passed
    for lazy in (
        lambda a: reversed(a),
        lambda a: (x for x in a),
        lambda a: map(int, a),
    ):
        for name in ("toy.fall", "toy.climb"):
            message = failure(name, lazy).message
            assert "the result is an iterator, wanted a list: list(...)." in message


# Inputs


def test_a_changed_argument_is_named():
    def step_in_place(x, A):
        A += 0  # changes nothing
        x += 1
        return (x - 1) @ A + 1

    report = failure("toy.step", step_in_place)
    assert "it changed its argument x: work on a copy" in report.message


@pytest.mark.parametrize(
    ("value", "spoil"),
    [
        ({"w": np.zeros(2)}, lambda p: p["w"].fill(1)),
        ({"rate": 0.5}, lambda p: p.update(rate=0.25)),
        ([1, 2], lambda p: p.append(3)),
        ([2, 1], lambda p: p.sort()),
        ({1, 2}, lambda p: p.add(3)),
        (np.array([np.nan, 1.0]), lambda p: p.__setitem__(0, 0.0)),
    ],
)
def test_changes_within_arguments_are_seen(toy, monkeypatch, value, spoil):
    def spoiling(p):
        spoil(p)
        return 1.0

    one = Exercise("f", "f(p)", lambda p: 1.0, lambda rng: [Case({"p": value})])
    monkeypatch.setattr(toy, "EXERCISES", (one,))
    assert check("toy.f", lambda p: 1.0).passed
    assert "changed its argument p" in failure("toy.f", spoiling).message
    assert check("toy.f", lambda p: 1.0).passed  # the next check is not spoilt


def test_what_is_the_same_object_is_unchanged():
    class Odd:
        def __eq__(self, other):
            raise AssertionError("nobody needs to ask")

    odd = [Odd(), (1, 2)]
    assert identical(odd, odd)
    assert identical([np.nan, (1,)], [np.nan, (1,)])
    assert not identical([1, (2, 3)], [1, (2, 4)])


def test_an_alias_of_an_argument_may_be_returned(toy, monkeypatch):
    same = Exercise(
        "same", "same(x)", lambda x: x, lambda rng: [Case({"x": np.arange(3.0)})]
    )
    monkeypatch.setattr(toy, "EXERCISES", (same,))
    assert check("toy.same", lambda x: x).passed
    assert check("toy.same", lambda x: x[:]).passed


def test_a_buffer_used_again_does_not_spoil_earlier_results(toy, monkeypatch):
    buffer = np.zeros(2)

    def fill(x):
        buffer[:] = x
        return buffer

    cases = [Case({"x": np.full(2, value)}) for value in (1.0, 2.0)]
    same = Exercise("same", "same(x)", lambda x: x, lambda rng: cases)
    monkeypatch.setattr(toy, "EXERCISES", (same,))
    assert check("toy.same", fill).passed


# Chance


def test_the_rng_is_fresh_for_each_caller():
    assert check("toy.noise", lambda n, rng: rng.normal(size=n)).passed
    report = failure("toy.noise", lambda n, rng: rng.normal(size=n) + 0.5)
    assert "rng = np.random.default_rng(" in report.inputs


def test_draws_from_elsewhere_are_found():
    def elsewhere(n, rng):
        return np.random.default_rng().normal(size=n)

    for name in ("toy.noise", "toy.hard"):
        assert "draw every random number from rng" in failure(name, elsewhere).message


def test_memory_between_calls_is_found():
    calls = []

    def step_and_count(x, A):
        calls.append(1)
        return step(x, A) + len(calls)

    report = failure("toy.step", step_and_count)
    assert "must not draw random numbers, nor keep anything" in report.message


# Laws


def test_a_law_is_judged_after_the_values(toy, monkeypatch):
    law = Law("the sum is below 2", lambda y, x, A: y.sum() < 2)
    one = Exercise("step", "step(x, A)", step, toy._step_cases, laws=(law,))
    monkeypatch.setattr(toy, "EXERCISES", (one,))
    report = failure("toy.step", step)
    assert "this must hold and does not: the sum is below 2." in report.message
    assert "differs" in failure("toy.step", lambda x, A: step(x, A) + 9).message


def test_hard_mode_is_judged_by_laws_alone():
    assert check("toy.hard", lambda n, rng: 0.5 * rng.uniform(-1, 1, size=n)).passed
    report = failure("toy.hard", lambda n, rng: np.full(n, 7.0))
    assert "the mean is near zero (the mean is 7.00)." in report.message
    assert report.expected == ""
    assert "is None" in failure("toy.hard", lambda n, rng: None).message
    calls = []

    def counted(n, rng):
        calls.append(n)
        return np.zeros(n)

    assert check("toy.hard", counted).passed
    assert len(calls) == 3  # each case once, and the first again
    report = failure("toy.hard", lambda n, rng: "text")
    assert "x has n entries (judging it raised AttributeError" in report.message


def test_a_law_may_say_how_well_a_result_does(toy, monkeypatch):
    law = Law("small", lambda y, **_: True, measure=lambda y, **_: f"{len(y)} long")
    one = Exercise("step", "step(x, A)", step, toy._step_cases, laws=(law,))
    monkeypatch.setattr(toy, "EXERCISES", (one,))
    message = check("toy.step", step).message
    assert message == "3 cases, 1 law: 1 long; 3 long; 4 long."


def test_where_laws_judge_a_mistake_may_be_known_by_likeness(toy, monkeypatch):
    def hard(alike):
        given = {
            f: getattr(toy.HARD, f) for f in inspect.signature(Exercise).parameters
        }
        return (Exercise(**given | {"alike": alike}),)

    def far_in_another_order(n, rng):
        return 9 + rng.normal(size=2 * n)[n:]

    for alike, hint in (
        (None, None),
        (lambda a, b: abs(a.mean() - b.mean()) < 5, "far"),
    ):
        monkeypatch.setattr(toy, "EXERCISES", hard(alike))
        assert failure("toy.hard", far_in_another_order).hint == hint


# Hints


def test_a_known_mistake_gets_its_hint():
    report = failure("toy.step", lambda x, A: 1 + (A * x).sum(axis=1))
    assert report.hint == "transposed"
    assert "Hint (transposed): A[i, j] leads from i to j." in str(report)
    assert "A[i, j] leads from i to j." in report._repr_html_()


def test_a_partial_match_gets_no_hint():
    def transposed_for_three(x, A):
        return A @ x + (1 if len(x) < 4 else 2)

    assert failure("toy.step", transposed_for_three).hint is None


def test_a_mistake_that_raises_is_matched_by_type_and_cases():
    def raising(error, K):
        def step_or_raise(x, A):
            if len(x) == K:
                raise error
            return step(x, A)

        return step_or_raise

    assert failure("toy.step", raising(ZeroDivisionError("x"), 1)).hint == "one state"
    assert failure("toy.step", raising(ZeroDivisionError("x"), 3)).hint is None
    assert failure("toy.step", raising(ValueError("x"), 1)).hint is None


# Functions that never return


needs_limit = pytest.mark.skipif(not can_limit_time(), reason="no timer signals here")


def endless_for_three(x, A):
    while len(x) == 3:
        pass
    return step(x, A)


@needs_limit
def test_an_endless_answer_is_matched_where_the_mistake_gives_up(toy, monkeypatch):
    def gives_up(x, A):
        if len(x) == 3:
            raise TimeIsUp
        return step(x, A)

    def endless_and_transposed(x, A):
        return endless_for_three(x, A) if len(x) == 3 else step(x, A.T) + 1

    def late_but_right(x, A):
        try:
            return endless_for_three(x, A)
        except BaseException:
            return step(x, A)

    quick = Exercise(
        "step",
        "step(x, A)",
        step,
        toy._step_cases,
        mistakes=(*toy.STEP.mistakes, Mistake("endless", "Stop.", gives_up)),
        seconds=0.3,
    )
    monkeypatch.setattr(toy, "EXERCISES", (quick,))
    report = failure("toy.step", endless_for_three)
    assert "Case 2 of 3 (K = 3): stopped after 0.3 s" in report.message
    assert report.hint == "endless"
    assert failure("toy.step", late_but_right).hint == "endless"
    assert failure("toy.step", endless_and_transposed).hint is None
    monkeypatch.setattr(
        toy,
        "EXERCISES",
        (
            Exercise(
                "step",
                "step(x, A)",
                step,
                toy._step_cases,
                mistakes=toy.STEP.mistakes,
                seconds=0.3,
            ),
        ),
    )
    for late in (endless_for_three, late_but_right):
        assert failure("toy.step", late).hint is None


def forever(x, A):
    while True:
        pass


def forever_swallowing(x, A):
    while True:
        try:
            sum(range(2000))
        except:  # noqa: E722
            pass


def forever_asleep(x, A):
    while True:
        try:
            time.sleep(0.2)
        except BaseException:
            pass


def forever_by_recursion_and_finally(x, A):
    def work():
        try:
            np.linalg.svd(np.ones((30, 30)))
        finally:
            np.linalg.svd(np.ones((30, 30)))

    while True:
        try:
            try:
                work()
            except:  # noqa: E722
                work()
        except:  # noqa: E722
            continue


def forever_printing(x, A):
    while True:
        print("still here" * 1000)


def late_but_swallowing(x, A):
    try:
        time.sleep(30)
    except:  # noqa: E722
        pass
    return step(x, A)


def late_and_renaming(x, A):
    try:
        time.sleep(30)
    except BaseException:
        raise ValueError("renamed") from None


@needs_limit
@pytest.mark.parametrize(
    "candidate",
    [
        forever,
        forever_swallowing,
        forever_asleep,
        forever_by_recursion_and_finally,
        forever_printing,
        late_but_swallowing,
        late_and_renaming,
    ],
)
def test_a_function_that_never_returns_is_stopped(candidate, monkeypatch):
    # An alarm may go off in a callback of Python's own, which can only report it; the
    # next one, in pytest's report of that.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    before = signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGINT)
    began = time.monotonic()
    report = failure("toy.step", candidate, seconds=0.5)
    # One that swallows alarms is stopped by a storm of them: late on a busy machine.
    assert 0.4 < time.monotonic() - began < 30
    assert "(one state): stopped after 0.5 s: is it slow" in report.message
    assert report.hint is None and report.got == ""
    assert (signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGINT)) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@needs_limit
def test_the_alarm_is_not_seen_by_except_exception():
    seen = []

    def careful(x, A):
        try:
            while True:
                pass
        except Exception as error:
            seen.append(error)

    failure("toy.step", careful, seconds=0.1)
    assert seen == []


@needs_limit
def test_a_function_that_is_stopped_or_a_stub_is_called_no_more():
    calls = []

    def forever_once(x, A):
        calls.append("forever")
        while True:
            pass

    def stub_once(x, A):
        calls.append("stub")
        raise NotImplementedError

    failure("toy.step", forever_once, seconds=0.1)
    check("toy.step", stub_once)
    assert calls == ["forever", "stub"]


@needs_limit
def test_an_alarm_at_the_very_end_harms_nothing():
    before = signal.getsignal(signal.SIGALRM)
    for extra in np.linspace(-2e-4, 2e-4, 200):
        _limit.call_within(0.002, time.sleep, {})  # an error, at once
        _limit.call_within(0.002, lambda t: time.sleep(t), {"t": 0.002 + extra})
    time.sleep(0.01)
    assert signal.getsignal(signal.SIGALRM) is before


@needs_limit
def test_an_exercise_may_set_its_own_limit(toy, monkeypatch):
    brief = Exercise("step", "step(x, A)", step, toy._step_cases, seconds=0.2)
    monkeypatch.setattr(toy, "EXERCISES", (brief,))
    assert "stopped after 0.2 s" in failure("toy.step", forever).message


@needs_limit
def test_the_limit_is_for_all_cases_together():
    def slow(x, A):
        time.sleep(0.3)
        return step(x, A)

    assert "Case 2 of 3" in failure("toy.step", slow, seconds=0.5).message
    assert check("toy.step", slow, seconds=5).passed


@needs_limit
def test_handler_and_timer_of_others_are_restored():
    rings = []
    old = signal.signal(signal.SIGALRM, lambda *_: rings.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        failure("toy.step", forever, seconds=0.1)
        assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] < 0.25
        time.sleep(0.4)
        assert rings == [1]
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        failure("toy.step", forever, seconds=0.3)
        time.sleep(0.05)
        assert rings == [1, 1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@needs_limit
def test_a_real_interrupt_goes_through_and_leaves_things_in_order(request):
    old = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in nohup
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, old))
    before = signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGINT)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        check("toy.step", forever)
    timer.join()
    assert (signal.getsignal(signal.SIGALRM), signal.getsignal(signal.SIGINT)) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    assert check("toy.step", step).passed


def test_outside_the_main_thread_there_is_no_limit_and_the_report_says_so():
    found = {}

    def work():
        found["can"] = can_limit_time()
        for candidate in (step, stub, lambda x, A: x @ A, lambda x, A: sys.exit(1)):
            report = check("toy.step", candidate)
            found.setdefault(report.status, report)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found["can"] is False
    assert "cannot stop a function that never returns" in str(found["failed"])
    assert "cannot stop a function" in found["failed"]._repr_html_()
    for status in ("passed", "not started"):  # said where it may matter, not each time
        assert "\n" not in str(found[status])


@pytest.mark.parametrize("where", ["emscripten", "windows"])
def test_systems_without_timer_signals_run_without_a_limit(monkeypatch, where):
    if where == "emscripten":
        monkeypatch.setattr(_limit.sys, "platform", "emscripten")
    else:
        monkeypatch.delattr(_limit.signal, "setitimer", raising=False)
    assert not can_limit_time()
    assert not check("toy.step", step).limited
    assert "ZeroDivisionError" in failure("toy.step", lambda x, A: 1 / 0).message
    with pytest.raises(KeyboardInterrupt):  # who waits in vain has no other way out
        check("toy.step", lambda x, A: (_ for _ in ()).throw(KeyboardInterrupt))


# Nothing reaches the page


def test_output_warnings_and_error_state_stay_inside(capfd):
    def noisy(x, A):
        for i in range(9):
            print("line", i)
        print("oops", file=sys.stderr)
        warnings.warn("mind the gap", UserWarning, stacklevel=1)
        np.seterr(all="raise")
        return np.log(x * 0)

    with np.errstate(all="raise"):
        state = np.geterr()
        report = failure("toy.step", noisy)
        assert np.geterr() == state
    assert report.printed == tuple(f"line {i}" for i in range(5))
    assert "UserWarning: mind the gap" in report.warned
    assert "line 4" in str(report) and "line 5" not in str(report)
    out, err = capfd.readouterr()
    assert out == "" and err == ""


def test_numpy_raises_nothing_that_it_would_not_outside():
    with np.errstate(all="raise"):
        report = failure("toy.step", lambda x, A: x / 0)
    assert "infinity" in report.message


def test_a_flood_of_output_is_not_kept_in_memory():
    stream = FirstLines()
    for _ in range(10_000):
        stream.write("more\n" * 100)
    assert len(stream.kept) < 1000
    assert stream.lines() == ("more",) * 5


def test_what_a_passing_function_prints_is_kept():
    report = check("toy.step", lambda x, A: print("hello" + "o" * 999) or step(x, A))
    assert report.passed
    assert report.printed[0].startswith("hello") and len(report.printed[0]) <= 160


# Reports


class Outline(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_html_is_escaped_and_accessible():
    def evil(x, A):
        print("<img src=x>")
        raise ValueError('<script>alert("1 & 2")</script>')

    html = failure("toy.step", evil)._repr_html_()
    outline = Outline(html)
    assert not outline.open
    assert {tag for tag, _ in outline.tags} <= {"section", "p", "span", "strong", "pre"}
    assert '<script>alert("1 & 2")</script>' in outline.text
    assert "<img src=x>" in outline.text
    boxes = [each for each in outline.tags if each[0] in ("section", "pre")]
    tag, attributes = outline.tags[0]
    assert tag == "section" and attributes["aria-label"] == "Check of toy.step: failed"
    assert all(a["tabindex"] == "0" for tag, a in outline.tags if tag == "pre")
    assert "✗" in outline.text and "step: failed." in outline.text
    colours = {a["style"].split("color:")[1].split(";")[0] for _, a in boxes}
    assert colours == {"inherit"}


def test_all_that_plain_text_says_html_says_too():
    report = failure("toy.step", lambda x, A: print("hi") or np.log(-abs(x @ A)))
    text = Outline(report._repr_html_()).text
    for line in str(report).splitlines():
        assert line.strip() in text
    assert repr(report) == str(report)


def test_reports_hold_nothing_of_the_solution(toy):
    lines = {line.strip() for line in TOY.splitlines() if len(line.strip()) > 15}
    shown = {'"step(x, A) -> y, shape (K,)",', '"sort(a) -> (order, parts)",'}

    def calls_the_solution(x, A):
        return toy.step(x, A[:0])

    candidates = [stub, calls_the_solution, *(m.function for m in toy.STEP.mistakes)]
    for candidate in [*candidates, *(form for form, _ in FORMS)]:
        report = check("toy.step", candidate)
        for text in (str(report), Outline(report._repr_html_()).text):
            assert "secret" not in text
            assert not [line for line in lines - shown if line in text]
    assert "toy.step(x, A[:0])" in failure("toy.step", calls_the_solution).line


def test_the_same_check_gives_the_same_report():
    for candidate in (step, stub, *(form for form, _ in FORMS)):
        assert check("toy.step", candidate) == check("toy.step", candidate)


def test_reports_hold_no_addresses():
    for candidate in (lambda x, A: step, lambda x, A: object()):
        assert "0x" not in str(failure("toy.step", candidate))


# mine


def test_mine_is_the_learners_function_while_it_passes(toy):
    assert mine("toy.step") is toy.step and which("toy.step") == "the book's"
    check("toy.step", stub)
    assert mine("toy.step") is toy.step
    check("toy.step", step)
    assert mine("toy.step") is step and which("toy.step") == "yours"
    check("toy.step", toy.step)  # a solution cell leaves the learner's alone
    assert mine("toy.step") is step
    check("toy.step", lambda x, A: x)
    assert mine("toy.step") is toy.step and which("toy.step") == "the book's"


# prove


def test_the_toy_set_is_proved():
    before = mine("toy.step")
    assert prove("toy") == []
    assert mine("toy.step") is before


def test_prove_finds_what_is_wrong_with_an_exercise(toy, monkeypatch):
    def flaws(**changes):
        given = {
            f: getattr(toy.STEP, f) for f in inspect.signature(Exercise).parameters
        }
        monkeypatch.setattr(toy, "EXERCISES", (Exercise(**given | changes),))
        return "\n".join(prove("toy"))

    def writes(x, A):
        x[0] += 1
        return x

    def chancy(x, A):
        return x * np.random.default_rng().normal()

    def planted(*functions):
        more = (Mistake(f"m{i}", "h", f) for i, f in enumerate(functions))
        return {"mistakes": (*toy.STEP.mistakes, *more)}

    assert flaws() == ""
    assert "toy.step: 2 mistakes, wanted at least 3" in flaws(
        mistakes=toy.STEP.mistakes[:2]
    )
    assert "mistake 'm0' is passed" in flaws(**planted(step))
    assert "mistake 'm0' is not started" in flaws(**planted(stub))
    assert "mistake 'm0' is failed, hint 'transposed'" in flaws(
        **planted(lambda x, A: A @ x + 1)
    )
    assert "mistake 'm0' writes into its arguments" in flaws(**planted(writes))
    assert "two checks of mistake 'm0' differ" in flaws(**planted(chancy))
    assert "the reference is failed" in flaws(
        laws=(Law("never", lambda y, x, A: False),)
    )
    assert "the reference raises ZeroDivisionError" in flaws(
        reference=lambda x, A: 1 / 0
    )
    assert "neither values nor laws" in flaws(compare=False)


# From a shell


@pytest.fixture
def shell(shelf, tmp_path):
    """Runs `python -m mlfs.book.check`, with the toy set on the shelf."""
    hook = "import mlfs.book.exercises as shelf\nshelf.__path__.append({!r})\n"
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(hook.format(str(shelf)))
    code = Path(mlfs.book.exercises.__file__).parents[3]

    def run(source, *options, module="toy", file="my_toy.py", encoding="utf-8"):
        if source is not None:
            (tmp_path / file).write_text(textwrap.dedent(source))
        paths = os.pathsep.join([str(tmp_path / "hook"), str(code)])
        return subprocess.run(
            [sys.executable, "-m", "mlfs.book.check", module, file, *options],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths, "PYTHONIOENCODING": encoding},
            capture_output=True,
            encoding=encoding,
        )

    return run


STEP_AND_SORT = """
    import numpy as np

    def step(x, A):
        return x @ A + 1

    def sort(a):
        return np.argsort(a)

    def noise(n, rng):
        raise NotImplementedError
"""


def test_a_file_is_checked_in_order(shell, tmp_path):
    done = shell(STEP_AND_SORT)
    assert done.returncode == 1 and done.stderr == ""
    lines = done.stdout.splitlines()
    heads = [line.partition(".")[0] for line in lines if line[0] in "✓✗○"]
    assert heads == [
        "✓ step: passed",
        "✗ sort: failed",
        "○ noise: not started",
        "○ hard: not started",
    ]
    assert lines[-1] == "1 passed, 1 failed, 2 not started"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hook", "my_toy.py"]


def test_one_function_is_checked_alone(shell):
    done = shell(STEP_AND_SORT, "--only", "step")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "1 passed, 0 failed, 0 not started"
    done = shell(STEP_AND_SORT, "--only", "leap")
    assert done.returncode == 2 and "known: toy.step" in done.stdout


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\ndef f(:\n", "does not load: SyntaxError: .*line 2"),
        ("x = 1\ny = x / 0\n", "does not load: ZeroDivisionError: .*line 2: y = x / 0"),
        ("import sys\nsys.exit()", "does not load: SystemExit"),
        ("open('no.csv')", "does not load: FileNotFoundError.*no.csv"),
        ("import nothing_such", "does not load: ModuleNotFoundError"),
    ],
)
def test_a_file_that_does_not_load_is_told_so(shell, source, message):
    done = shell(source)
    assert done.returncode == 2
    assert done.stdout.startswith("my_toy.py does not load: ")
    assert all(part in done.stdout for part in message.split(".*"))
    assert "Traceback" not in done.stdout + done.stderr


def test_unknown_modules_files_and_options_are_told(shell):
    done = shell("", module="tox")
    assert done.returncode == 2 and "module 'tox' has no exercises" in done.stdout
    done = shell(None, file="missing.py")
    assert done.returncode == 2 and "missing.py cannot be read" in done.stdout
    assert shell("", "--oddly").returncode == 2


def test_a_file_may_use_the_checker_and_files_beside_it(shell, tmp_path):
    (tmp_path / "helper.py").write_text("ONE = 1\n")
    done = shell(
        """
        from dataclasses import dataclass
        import sys
        import helper
        from mlfs.book import check as checker

        @dataclass
        class State:
            x: int

        assert State.__annotations__["x"] is int, "a future import has leaked in"

        def step(x, A):
            assert checker is sys.modules["mlfs.book.check"]
            return x @ A + helper.ONE

        def sort(a):
            return checker.which("toy.step")
        """,
    )
    assert "✓ step: passed" in done.stdout
    assert "'yours'" in done.stdout  # one register, though check runs as __main__


def test_a_console_without_the_signs_still_gets_a_report(shell):
    done = shell(STEP_AND_SORT, encoding="ascii")
    assert "? step: passed" in done.stdout and done.returncode == 1


@needs_limit
def test_memory_of_an_earlier_answer_does_not_pass():
    """np.empty may hand back the block in which the right answer just stood."""
    empties = np.empty, np.empty_like

    def step(x, A):
        out = np.empty_like(np.asarray(x, float))
        out[:-1] = (x @ A + 1)[:-1]  # the last entry is never filled
        return out

    for _ in range(5):
        assert check("toy.step", lambda x, A: x @ A + 1).passed
        report = check("toy.step", step)
        assert report.status == "failed"
        assert "NaN" in report.message
    assert (np.empty, np.empty_like) == empties
    whole = call(lambda: np.empty(2, dtype=int), Case({})).value
    assert (whole == np.iinfo(int).min).all()
