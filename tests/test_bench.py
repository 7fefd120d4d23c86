"""The benchmark's arithmetic and its report; what it times is checked, not how fast."""

import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))

with warnings.catch_warnings():  # scikit-learn's own imports, not ours
    warnings.simplefilter("ignore")
    from bench import harness
    from bench import hmm as suite


def workload(**changes):
    given = {
        "name": "sum",
        "ours": lambda: 1,
        "peer": "them",
        "theirs": lambda: 1,
        "check": lambda a, b: None,
        "target": 0.5,
        "rounds": 4,
    }
    return harness.Workload(**(given | changes))


def timing(ours, theirs):
    cpu = np.column_stack([ours, theirs])
    return harness.Timing(cpu, 2.0 * cpu)


def test_the_ratio_is_taken_within_pairs():
    # The machine slows down fivefold half-way: the ratio must not notice.
    found = timing([1.0, 1.2, 5.0, 5.5, 6.0], [2.0, 2.0, 10.0, 10.0, 10.0])
    assert found.ratio() == pytest.approx((0.5, 0.55, 0.6))
    assert found.wall_ratio() == pytest.approx(0.55)
    assert found.milliseconds() == pytest.approx((5000.0, 10000.0))


def test_pairs_alternate_and_both_clocks_run():
    calls = []
    work = workload(
        ours=lambda: calls.append("A"), theirs=lambda: calls.append("B"), rounds=3
    )
    found = harness.measure(work)
    assert "".join(calls) == "AB" + "ABBAAB"  # once to compare, then in pairs
    assert found.cpu.shape == found.wall.shape == (3, 2)


def test_each_side_gets_its_own_time():
    work = workload(ours=lambda: time.sleep(0.02), theirs=lambda: None)
    found = harness.measure(work)
    assert (found.wall[:, 0] >= 0.02).all()
    assert (found.wall[:, 0] > found.wall[:, 1]).all()
    assert (found.cpu[:, 0] < found.wall[:, 0]).all()  # asleep, no CPU time passes


def test_different_results_are_not_timed():
    def check(a, b):
        assert a == b

    with pytest.raises(AssertionError):
        harness.measure(workload(theirs=lambda: 2, check=check))


@pytest.mark.parametrize(
    ("target", "cells"),
    [
        (0.5, "| 0.50 | yes |"),
        (0.49, "| 0.49 | no |"),
        (None, "|  |  |"),
    ],
)
def test_a_row(target, cells):
    work, found = workload(target=target), timing([0.5, 0.5, 0.5], [1.0, 1.0, 1.0])
    line = harness.row(work, found)
    assert line == f"| sum | 500.0 | them | 1000.0 | 0.50 (0.50 to 0.50) | 0.50 {cells}"
    assert harness.met(work, found) is (target != 0.49)


def test_the_table_is_rectangular_and_names_what_it_ran_on():
    line = harness.row(workload(), timing([1.0], [2.0]))
    text = harness.table([line, line], ["numpy"])
    head, rule, *rows, empty, note = text.rstrip("\n").split("\n")
    assert {cells.count("|") for cells in (head, rule, *rows)} == {9}
    assert rows == [line, line] and empty == ""
    assert f"numpy {np.__version__}" in note and f"{os.cpu_count()} cores" in note


def test_the_report_replaces_what_stands_between_the_marks():
    marks = f"a\n{harness.BEGIN}\nold\n{harness.END}\nb\n"
    new = harness.insert(marks, "| new |\n")
    assert new == f"a\n{harness.BEGIN}\n| new |\n{harness.END}\nb\n"
    assert harness.insert(new, "| new |\n") == new
    assert harness.insert("no marks\n", "| new |\n") == "no marks\n"


@pytest.mark.parametrize(
    "text",
    [harness.BEGIN, harness.END, harness.END + harness.BEGIN, harness.BEGIN * 2],
)
def test_half_a_pair_of_marks_is_refused(text):
    with pytest.raises(ValueError, match="want one of each"):
        harness.insert(text, "new")


def test_a_second_thread_restarts_the_script(monkeypatch):
    started = []
    monkeypatch.setattr(os, "execve", lambda *args: started.append(args))
    for name in harness.THREADS:
        monkeypatch.setenv(name, "1")
    harness.one_thread()
    assert started == []
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "2")
    harness.one_thread()
    [(program, arguments, environment)] = started
    assert program == sys.executable and arguments[1:] == sys.argv
    assert all(environment[name] == "1" for name in harness.THREADS)


@pytest.mark.parametrize("form", ["scaling", "log"])
def test_both_sides_of_the_workloads_agree(form):
    model, x = suite.problem(3, 400)
    ours, theirs = suite.infer(model, x), suite.peer_infer(model, x, form)
    suite.same_inference(ours, theirs)
    with pytest.raises(AssertionError):
        suite.same_inference(ours, (theirs[0], theirs[1] + 1e-6))
    ours, theirs = suite.learn(model, x), suite.peer_learn(model, x, form)
    assert len(ours[0]) == suite.STEPS
    suite.same_learning(ours, theirs)
    with pytest.raises(AssertionError):
        suite.same_learning(ours, ([*theirs[0][:-1], 0.0], *theirs[1:]))


def test_every_workload_has_a_name_of_its_own():
    works = list(suite.workloads())
    assert len({(work.name, work.peer) for work in works}) == len(works) == 8
    assert [work.target is None for work in works] == [False, False, True, True] * 2
