"""The benchmark's arithmetic and its report; what it times is checked, not how fast."""

import os
import sys
import time
import types
import warnings
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT))

with warnings.catch_warnings():  # scikit-learn's own imports, not ours
    warnings.simplefilter("ignore")
    from bench import harness, run
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


def test_short_workloads_are_repeated_within_a_round():
    calls = []
    work = workload(
        ours=lambda: calls.append("A"),
        theirs=lambda: [calls.append("B"), time.sleep(0.01)],
        rounds=2,
        repeat=3,
    )
    found = harness.measure(work)
    assert "".join(calls) == "AB" + "AAABBB" + "BBBAAA"
    assert (found.wall[:, 1] >= 0.01).all()
    assert (found.wall[:, 1] < 0.03).all()  # of one call, not of three


def test_different_results_are_not_timed():
    def check(a, b):
        assert a == b

    with pytest.raises(AssertionError):
        harness.measure(workload(theirs=lambda: 2, check=check))


def test_results_that_part_later_are_not_timed():
    def check(a, b):
        assert a == b

    steps = {
        "ours": iter([1, 2, 3, 4]).__next__,
        "theirs": iter([1, 2, 0, 4]).__next__,
        "check": check,
        "rounds": 1,
    }
    harness.measure(workload(**steps, compared=2))
    steps |= {"ours": iter([1, 2, 3]).__next__, "theirs": iter([1, 2, 0]).__next__}
    with pytest.raises(AssertionError):
        harness.measure(workload(**steps, compared=3))


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


@pytest.mark.parametrize(
    ("ms", "cell"),
    [
        (1234.56, "1234.6"),
        (5.44, "5.4"),
        (1.0, "1.0"),
        (0.456, "0.46"),
        (0.1, "0.10"),
        (4.1e-3, "0.0041"),
    ],
)
def test_a_time_has_at_least_two_digits(ms, cell):
    line = harness.row(workload(), timing([1e-3 * ms], [2.0]))
    assert line.startswith(f"| sum | {cell} | them | 2000.0 |")


def test_the_table_is_rectangular_and_names_what_it_ran_on():
    line = harness.row(workload(), timing([1.0], [2.0]))
    text = harness.table([line, line], ["numpy"])
    head, rule, *rows, empty, note = text.rstrip("\n").split("\n")
    assert {cells.count("|") for cells in (head, rule, *rows)} == {9}
    assert rows == [line, line] and empty == ""
    assert f"numpy {np.__version__}" in note and f"{os.cpu_count()} cores" in note
    assert "left out" not in note


def test_what_is_not_installed_is_named_as_missing():
    libraries = ["no-such-library", "numpy", "nor-this"]
    assert harness.installed(libraries) == ["numpy"]
    note = harness.machine(libraries)
    assert f", numpy {np.__version__}; " in note
    assert note.endswith(" Not installed, so left out: no-such-library, nor-this.")


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


def test_a_section_is_found_again_by_its_name():
    text = "\n\n".join(harness.section(name, f"| {name} |\n") for name in ("b", "a"))
    assert (harness.find(text, "a"), harness.find(text, "b")) == ("| a |", "| b |")
    assert harness.find(text, "c") is None
    with pytest.raises(ValueError, match=r"\(1, 0\) of .*bench:a:begin.* one of each"):
        harness.find(text.replace(harness.marks("a")[1], ""), "a")


def test_a_second_thread_restarts_the_script(monkeypatch):
    started, cores = [], []
    monkeypatch.setattr(os, "execve", lambda *args: started.append(args))
    monkeypatch.setattr(
        os, "sched_setaffinity", lambda pid, core: cores.append(core), raising=False
    )
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 3}, raising=False)
    for name, value in harness.THREADS.items():
        monkeypatch.setenv(name, value)
    harness.one_thread()
    assert started == [] and cores == [{3}]
    for name in harness.THREADS:
        with monkeypatch.context() as patch:
            patch.setenv(name, "2")
            harness.one_thread()
        program, arguments, environment = started.pop()
        assert program == sys.executable and arguments[1:] == sys.argv
        assert environment | harness.THREADS == environment


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A repository of two suites, of one fast workload each, and a README."""
    for name in ("first", "second"):
        module = types.ModuleType(f"bench.{name}")
        module.LIBRARIES = ("numpy", "no-such-library")
        module.workloads = lambda name=name: [workload(name=name, target=None)]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(run, "SUITES", {"first": "The first", "second": "The second"})
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(harness, "one_thread", lambda: None)
    (tmp_path / "bench").mkdir()
    (tmp_path / "README.md").write_text(f"a\n{harness.BEGIN}\n{harness.END}\nz\n")
    return tmp_path


def test_a_run_of_all_writes_both_tables_in_order(shelf, capsys):
    assert run.main([]) == 0
    text = (shelf / "bench" / "results.md").read_text()
    assert text.index("**The first**") < text.index("| first |")
    assert text.index("| first |") < text.index("**The second**")
    assert text.count("left out: no-such-library.") == 2
    assert "no-such-library is not installed" in capsys.readouterr().out
    readme = (shelf / "README.md").read_text()
    assert readme == f"a\n{harness.BEGIN}\n{text}{harness.END}\nz\n"


def test_a_run_of_one_suite_keeps_the_rows_of_the_other(shelf):
    run.main(["second"])
    assert "| first |" not in (shelf / "bench" / "results.md").read_text()
    run.main(["first"])
    before = (shelf / "bench" / "results.md").read_text()
    changed = before.replace("| second |", "| kept |").replace("| first |", "| old |")
    (shelf / "bench" / "results.md").write_text(changed)
    run.main(["first"])
    after = (shelf / "bench" / "results.md").read_text()
    assert after.index("| first |") < after.index("| kept |")
    assert "| old |" not in after
    assert after in (shelf / "README.md").read_text()


def test_a_missed_target_and_an_unknown_suite_fail(shelf, monkeypatch, capsys):
    slow = workload(ours=lambda: time.sleep(0), target=0.0)
    monkeypatch.setattr(sys.modules["bench.second"], "workloads", lambda: [slow])
    assert run.main(["second"]) == 1
    assert run.main(["third"]) == 2
    assert capsys.readouterr().out.endswith("no suite third; there are first, second\n")


def test_every_suite_has_a_module():
    for name in run.SUITES:
        assert (ROOT / "bench" / f"{name}.py").exists()


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


@pytest.fixture
def training():
    """The training steps, with every peer that is installed."""
    for name in ("mlfs.autodiff", "mlfs.core.nn", "mlfs.core.optim"):
        pytest.importorskip(name)
    with warnings.catch_warnings():  # the peers' own imports, not ours
        warnings.simplefilter("ignore")
        return import_module("bench.autodiff")


def test_every_peer_has_each_of_the_six_steps(training, monkeypatch):
    monkeypatch.setattr(training, "PEERS", dict.fromkeys(training.PEERS, None))
    assert list(training.workloads()) == []  # none installed, none timed, none fails
    tasks = training.tasks()
    assert len({task.name for task in tasks}) == len(tasks) == 6
    for task in tasks:
        assert list(task.peers) == ["PyTorch", "JAX", "autograd"]
        assert list(task.target) == ["PyTorch", "autograd"]


def test_a_problem_is_the_same_anew_each_time(training):
    for task in training.tasks():
        (first, *_), (second, *_) = task.problem(), task.problem()
        for a, b in zip(training.leaves(first), training.leaves(second), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == np.float32 and not np.shares_memory(a, b)


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("peer", ["PyTorch", "JAX", "autograd"])
def test_every_step_agrees_with_the_peers(training, number, peer):
    if training.PEERS[peer] is None:
        pytest.skip(f"{peer} is not installed")
    task = training.tasks()[number]
    ours = task.ours(*task.problem())
    mine = [ours() for _ in range(training.COMPARED)]
    with warnings.catch_warnings():  # the peers' own, not ours
        warnings.simplefilter("ignore")
        theirs = task.peers[peer](*task.problem())
        losses = [(each, theirs()) for each in mine]
    for mine, other in losses:
        training.same(mine, other)
    with pytest.raises(AssertionError):
        training.same(losses[-1][0], 1.001 * losses[-1][1])
    if "act" not in task.name:
        assert losses[-1][0] < losses[0][0]
