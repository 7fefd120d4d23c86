"""The `claim` fixture, and one way of generating inputs for every test."""

from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from mlfs.book.claims import Ledger, state

# Derandomised: two runs give the same numbers, in the book's tables as in CI.
settings.register_profile(
    "book",
    derandomize=True,
    deadline=None,  # a shared machine may stall any one example
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
settings.load_profile("book")


def pytest_addoption(parser):
    parser.addoption("--claims", help="write the claims of this run to FILE (JSON)")


LEDGER = pytest.StashKey[Ledger]()


def pytest_configure(config):
    config.stash[LEDGER] = Ledger()


def pytest_terminal_summary(terminalreporter, config):
    if out := config.getoption("--claims"):
        passed = len(terminalreporter.stats.get("passed", []))
        config.stash[LEDGER].write(Path(out), Path(out).stem, passed)


@pytest.fixture(scope="session")
def claim(pytestconfig):
    """State that a result agrees with an oracle: asserted, and recorded."""
    return partial(state, pytestconfig.stash[LEDGER])
