"""Claims: what agrees passes, whatever else fails, and the table says so."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from mlfs.book import claims
from mlfs.book.chapters import ROOT
from mlfs.book.claims import Claim, ClaimsTable, Ledger, load, measure, state, verify

NAN, INF = np.nan, np.inf


def measured(**comparison):
    """A claim of kind law, which allows any tolerance."""
    return measure("toy-label", **({"oracle": "toy", "kind": "law"} | comparison))


# ---------------------------------------------------------------- agreement


@pytest.mark.parametrize(
    ("got", "want", "error"),
    [
        (1.0, 1.0, 0.0),
        (1.0, 1.5, 0.5),
        ([1.0, 2.0, 3.0], [1.0, 2.25, 3.0], 0.25),
        ([[1, 2]], [[4, 2]], 3.0),
        (-2.0, 2.0, 4.0),
        ([INF, -INF], [INF, -INF], 0.0),  # equal infinities agree
        ([INF], [-INF], INF),
        ([INF], [1e308], INF),
        ([1.0, 2.0], [[1.0, 2.0]], INF),  # no broadcasting, whatever the values
        ([1.0, 1.0], 1.0, INF),
        (1.0, [1.0], INF),
        ([NAN], [1.0], NAN),
        ([1.0], [NAN], NAN),
        ([NAN], [NAN], NAN),  # two results that are no numbers prove nothing
        ([0.0, NAN, 9.0], [0.0, 0.0, 0.0], NAN),
        (True, True, 0.0),
    ],
)
def test_distance(got, want, error):
    found = measured(got=got, want=want, atol=1e-12)
    np.testing.assert_equal(found.error, error)
    assert found.passed == (error == 0.0)


def test_tolerance_is_the_largest_discrepancy_allowed():
    assert measured(got=1.0, want=1.5, atol=0.5).passed
    assert not measured(got=1.0, want=1.5, atol=0.4999).passed


def test_relative_tolerance_is_in_units_of_the_largest_wanted():
    found = measured(got=[100.0, 2.0], want=[-200.0, 2.0], rtol=1.0)
    assert (found.error, found.tolerance, found.relative) == (1.5, 1.0, True)
    assert not found.passed
    assert measured(got=[1.0, 99.0], want=[0.0, 100.0], rtol=0.01).passed
    assert not measured(got=1.0, want=1.0, atol=0.0).relative


def test_relative_tolerance_has_a_finite_unit():
    """Units of infinity would forgive anything, units of zero nothing."""
    for want in ([INF, 2.0], [0.0, 0.0], [-INF, 2.0]):
        with pytest.raises(ValueError, match="rtol"):
            measured(got=[want[0], 3.0], want=want, rtol=1e-6)


@pytest.mark.parametrize(
    ("got", "bound", "error"),
    [
        ([3.0, 4.0], {"at_least": 3.0}, 0.0),
        ([3.0, 2.5], {"at_least": 3.0}, 0.5),
        ([3.0, 2.5], {"at_least": [1.0, 2.0]}, -0.5),  # below zero it is the margin
        ([3.0, 4.0], {"at_most": 4.0}, 0.0),
        ([3.0, 6.0], {"at_most": 4.0}, 2.0),
        ([3.0, 3.5], {"at_most": 4.0}, -0.5),
        ([NAN, 5.0], {"at_least": 1.0}, NAN),
        ([NAN, 0.0], {"at_most": 1.0}, NAN),
        ([1.0, 2.0], {"at_least": NAN}, NAN),
    ],
)
def test_bounds(got, bound, error):
    found = measured(got=got, **bound)
    np.testing.assert_equal(found.error, error)
    assert found.passed == (error <= 0.0)


def test_bounds_take_the_tolerance_as_slack():
    assert measured(got=0.9, at_least=1.0, atol=0.2).passed
    assert not measured(got=0.7, at_least=1.0, atol=0.2).passed
    assert measured(got=1.1, at_most=1.0, atol=0.2).passed


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [
        ("exact", {"atol": 2e-9}),
        ("exact", {"rtol": 1e-6}),
        ("exact", {"atol": NAN}),
        ("exact", {"atol": -1e-12}),
        ("library", {"atol": 1e-5}),
    ],
)
def test_too_loose_a_tolerance_is_refused(kind, tolerance):
    with pytest.raises(ValueError, match=rf"{kind} claims want .* at most"):
        measured(kind=kind, got=1.0, want=1.0, **tolerance)


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [("exact", 1e-9), ("library", 1e-6), ("law", 0.1), ("published", 0.05)],
)
def test_stated_tolerances_are_taken(kind, tolerance):
    assert measured(kind=kind, got=1.0, want=1.0, atol=tolerance).passed


@pytest.mark.parametrize(
    ("comparison", "message"),
    [
        ({"kind": "guess", "want": 1.0, "atol": 0.0}, "kind is 'guess', wants one of"),
        ({}, "exactly one of want, at_least, at_most"),
        ({"want": 1.0, "at_least": 1.0, "atol": 0.0}, "exactly one of"),
        ({"at_least": 1.0, "at_most": 1.0}, "exactly one of"),
        ({"want": 1.0}, "either atol or rtol"),
        ({"want": 1.0, "atol": 0.0, "rtol": 0.0}, "either atol or rtol"),
        ({"got": [], "want": [], "atol": 0.0}, "empty"),
    ],
)
def test_what_is_no_comparison_is_refused(comparison, message):
    with pytest.raises(ValueError, match=message):
        measured(**({"got": 1.0} | comparison))


# ---------------------------------------------------------------- the fixture


def test_state_asserts_records_and_names_the_test():
    ledger = Ledger()
    toy = {"oracle": "toy", "kind": "exact", "want": 1.0, "atol": 1e-12}
    state(ledger, "toy-good", got=1.0, **toy)
    with pytest.raises(AssertionError, match=r"toy-bad against toy: discrepancy 1,"):
        state(ledger, "toy-bad", got=2.0, **toy)
    with pytest.raises(AssertionError, match="discrepancy nan"):
        state(ledger, "toy-nan", got=NAN, **toy)
    assert [c.passed for c in ledger.claims.values()] == [True, False, False]
    tests = {c.test for c in ledger.claims.values()}
    assert tests == {"test_state_asserts_records_and_names_the_test"}


def made(error, label="toy-label", test="test_toy", oracle="toy"):
    return Claim(label, oracle, "exact", test, error, 1e-9)


@pytest.mark.parametrize(
    ("errors", "kept"),
    [
        ([1e-16, 3e-16, 2e-16], 3e-16),
        ([3e-16, 1e-16], 3e-16),
        ([0.0], 0.0),
        ([1e-16, NAN], NAN),
        ([NAN, 1e-16], NAN),  # a failure is never forgotten
        ([INF, 0.0], INF),
    ],
)
def test_ledger_keeps_the_largest_error(errors, kept):
    ledger = Ledger()
    for error in errors:
        ledger.record(made(error))
    (only,) = ledger.claims.values()
    np.testing.assert_equal(only.error, kept)


def test_ledger_tells_claims_apart():
    ledger = Ledger()
    different = [{}, {"label": "toy-b"}, {"test": "test_b"}, {"oracle": "b"}]
    for which in different:
        ledger.record(made(0.0, **which))
    assert len(ledger.claims) == len(different)


# ---------------------------------------------------------------- the table


TABLE = ClaimsTable(
    "toy",
    3,
    (
        Claim("toy-sum", "sum of <paths> & more", "exact", "t", 2e-16, 1e-12),
        Claim("toy-slope", "differences", "law", "t", 0.0, 1e-6, relative=True),
        Claim("toy-bad", "a library", "library", "t", NAN, 0.0),
    ),
)


class Table(HTMLParser):
    """Cells by row, and where links lead."""

    def __init__(self):
        super().__init__()
        self.rows, self.links, self.tags = [], [], set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        elif tag == "a":
            self.links.append(dict(attributes)["href"])

    def handle_data(self, text):
        if self.rows:
            self.rows[-1][-1] += text


def test_html_shows_every_claim_and_links_it_to_its_equation():
    page = Table()
    page.feed(TABLE._repr_html_())
    assert page.rows[0] == list(claims.HEADINGS)
    assert page.rows[1:] == [
        ["toy-sum", "sum of <paths> & more", "exact", "2.0e-16", "1e-12", "✓ passed"],
        ["toy-slope", "differences", "law", "0", "1e-06 (relative)", "✓ passed"],
        ["toy-bad", "a library", "library", "nan", "0", "✗ failed"],
    ]
    want = ["#equation-toy-sum", "#equation-toy-slope", "#equation-toy-bad"]
    assert page.links == want
    assert "paths" not in page.tags  # markup in a claim is text, not markup
    assert "3 tests passed; 3 claims." in TABLE._repr_html_()


def test_text_form_lines_its_columns_up():
    head, *rows, summary = repr(TABLE).splitlines()
    assert summary == "3 tests passed; 3 claims."
    assert len(rows) == 3
    at = head.index("compared with")
    starts = ["sum of", "differences", "a library"]
    assert all(
        row[at:].startswith(start) for row, start in zip(rows, starts, strict=True)
    )
    assert not re.search(r" $", repr(TABLE), re.MULTILINE)


# ---------------------------------------------------------------- whole runs

GOOD = """
import pytest

@pytest.mark.parametrize("x", [1.0, 2.0])
def test_twice_is_a_sum(claim, x):
    claim("toy-twice", oracle="x + x", kind="exact", got=2 * x + x * 1e-10,
          want=x + x, atol=1e-9)

def test_other():
    assert True
"""


@pytest.fixture
def book(tmp_path, monkeypatch):
    """A repository of its own with one test module, where `verify` is at home."""
    (tmp_path / "tests").mkdir()
    for name in ("pyproject.toml", "tests/conftest.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "code").symlink_to(ROOT / "code", target_is_directory=True)
    monkeypatch.setattr(claims, "ROOT", tmp_path)
    monkeypatch.setattr(claims, "CLAIMS", tmp_path / "_build" / "claims")
    (tmp_path / "tests" / "test_toy.py").write_text(GOOD)
    return tmp_path


def test_verify_runs_the_tests_and_shows_their_claims(book):
    table = verify("toy")
    assert (table.module, table.passed) == ("toy", 3)
    (only,) = table.claims
    assert (only.label, only.test) == ("toy-twice", "test_twice_is_a_sum")
    assert only.error == pytest.approx(2e-10, rel=1e-3)  # the worst of the two cases
    assert only.passed
    assert load("toy") == table
    first = (book / "_build/claims/toy.json").read_bytes()
    verify("toy")
    assert (book / "_build/claims/toy.json").read_bytes() == first
    written = json.loads(first)
    assert set(written) == {"module", "passed", "claims"}
    assert written["claims"][0]["passed"] is True
    assert written["claims"][0]["oracle"] == "x + x"


@pytest.mark.parametrize(
    "wrong",
    [
        GOOD.replace("1e-10", "1e-8"),
        GOOD.replace("assert True", "assert False"),
        "",  # no tests at all prove nothing
    ],
    ids=["claim", "assert", "empty"],
)
def test_verify_fails_with_the_tests(book, wrong):
    (book / "tests" / "test_toy.py").write_text(wrong)
    with pytest.raises(AssertionError, match="the tests of toy failed") as failure:
        verify("toy")
    if "def test_twice" in wrong:
        name = "test_twice_is_a_sum" if "1e-8" in wrong else "test_other"
        assert name in str(failure.value)
    if "1e-8" in wrong:
        assert "toy-twice against x + x: discrepancy" in str(failure.value)


def test_verify_in_a_copy_without_tests_says_so(book):
    with pytest.raises(FileNotFoundError, match=r"tests/test_absent\.py is not here"):
        verify("absent")


def test_load_before_verify_says_so(book):
    with pytest.raises(FileNotFoundError):
        load("toy")
