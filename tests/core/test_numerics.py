"""The numerical habits: sums in log space, and what the checks say."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from mlfs.core import numerics

NAN, INF = np.nan, np.inf


def refused(check, *arguments, says, **options):
    with pytest.raises(ValueError) as caught:
        check(*arguments, **options)
    assert str(caught.value) == says


# ---------------------------------------------------------------- in log space


@given(
    st.lists(
        st.lists(st.floats(-1e5, 1e5) | st.just(-INF), min_size=3, max_size=3),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from([0, 1, -1]),
)
def test_logsumexp_is_scipys(rows, axis):
    a = np.array(rows)
    with np.errstate(divide="ignore"):
        want = special.logsumexp(a, axis=axis)
    np.testing.assert_allclose(numerics.logsumexp(a, axis), want, rtol=1e-13)


@pytest.mark.parametrize(
    ("a", "want"),
    [
        ([0.0, 0.0], np.log(2.0)),
        ([-INF, -INF], -INF),
        ([-INF, 3.0], 3.0),
        ([INF, 3.0], INF),
        ([INF, -INF], INF),
        ([INF, INF], INF),
        ([1e5, 1e5], 1e5 + np.log(2.0)),
        ([-1e5, -1e5], -1e5 + np.log(2.0)),
        ([1.7e308, -1.7e308], 1.7e308),
        ([-1.7e308, -1.7e308], -1.7e308),
        ([-745.0, -745.0, -745.0], -745.0 + np.log(3.0)),
        ([4.0], 4.0),
    ],
)
def test_logsumexp_at_the_edges(a, want):
    # The value is exact, and no warning comes: warnings are errors here.
    assert numerics.logsumexp(np.array(a), 0) == pytest.approx(want, rel=1e-15)


def test_logsumexp_sums_along_the_axis():
    a = np.log(np.arange(1.0, 13.0).reshape(2, 2, 3))
    for axis in (0, 1, 2, -1):
        got = numerics.logsumexp(a, axis)
        np.testing.assert_allclose(np.exp(got), np.exp(a).sum(axis=axis))


def test_logsumexp_refuses():
    bad = "a has shape {}, axis is {}, wants an axis of a, and a not empty".format
    refused(numerics.logsumexp, [0.0, NAN], 0, says="a holds NaN, wants numbers")
    refused(numerics.logsumexp, [NAN, INF], 0, says="a holds NaN, wants numbers")
    refused(numerics.logsumexp, [], 0, says=bad((0,), 0))
    refused(numerics.logsumexp, 1.0, 0, says=bad((), 0))
    refused(numerics.logsumexp, [[1.0]], 2, says=bad((1, 1), 2))
    refused(numerics.logsumexp, [[1.0]], None, says=bad((1, 1), None))


def test_log_probability():
    got = numerics.log_probability([0.0, 1.0, 0.5, 5e-324])
    np.testing.assert_allclose(got, [-INF, 0.0, -np.log(2.0), np.log(5e-324)])
    wanted = "wants a finite number of at least 0"
    refused(numerics.log_probability, [0.5, -0.1], says=f"p[1] is -0.1, {wanted}")
    refused(numerics.log_probability, [[0.5, NAN]], says=f"p[0, 1] is nan, {wanted}")


# ---------------------------------------------------------------- arrays


def test_an_array_that_is_fit_comes_back_itself():
    a = np.ones((2, 3))
    assert numerics.check_array("a", a, ("T", "K")) is a
    assert numerics.check_array("a", a, (2, 3)) is a
    assert numerics.check_array("a", a, ("T", 3)) is a
    p = np.full((2, 3), 1 / 3)
    assert numerics.check_simplex("p", p, (2, 3)) is p


@pytest.mark.parametrize(
    "a",
    [
        "abc",
        ["1.0", "2.0"],
        None,
        [None, 1.0],
        [1.0 + 0j],
        np.array([1.0 + 1j]),
        np.array([1.0, 2.0], dtype=object),
        np.array(["2020-01-01"], dtype="M8[D]"),
        np.array([1], dtype="m8[s]"),
        np.zeros(2, dtype=[("x", float)]),
        [[1.0], [1.0, 2.0]],
        {"a": 1.0},
        {1.0},
        (x for x in [1.0]),
        [2**80],
    ],
    ids=str,
)
def test_what_is_no_number_is_refused(a):
    with pytest.raises(ValueError, match=r"^a is .*, wants an array of real numbers$"):
        numerics.check_array("a", a, ("N",))


def test_a_mask_is_not_lost():
    a = np.ma.MaskedArray([1.0, 2.0], mask=[False, True])
    says = "a has masked entries, wants real numbers throughout"
    refused(numerics.check_array, "a", a, ("N",), says=says)
    np.testing.assert_array_equal(
        numerics.check_array("a", np.ma.MaskedArray([1.0, 2.0]), ("N",)), [1.0, 2.0]
    )


@pytest.mark.parametrize(
    ("a", "shape", "got", "want"),
    [
        (np.ones(3), ("T", "K"), "(3,)", "(T, K)"),
        (np.ones((3, 2)), ("K", "K"), "(3, 2)", "(K, K)"),
        (np.ones((3, 2)), ("T", 3), "(3, 2)", "(T, 3)"),
        (np.ones((3, 2)), ("T",), "(3, 2)", "(T,)"),
        (np.ones((2, 2, 3)), ("K", "D", "D"), "(2, 2, 3)", "(K, D, D)"),
        (np.ones(1), (), "(1,)", "() (a single number)"),
        (1.0, ("T",), "()", "(T,)"),
        ([], ("T",), "(0,)", "(T,); it must not be empty"),
        (np.ones((0, 2)), ("T", 2), "(0, 2)", "(T, 2); it must not be empty"),
        (np.ones((2, 0)), ("T", "K"), "(2, 0)", "(T, K); it must not be empty"),
    ],
)
def test_shapes(a, shape, got, want):
    says = f"a has shape {got}, wants {want}"
    refused(numerics.check_array, "a", a, shape, says=says)


def test_named_axes_of_one_name_have_one_length():
    assert numerics.check_array("a", np.ones((2, 3, 3)), ("K", "D", "D")).ndim == 3
    assert numerics.check_array("a", np.ones((2, 2)), ("K", "D")).ndim == 2


@pytest.mark.parametrize(
    ("value", "limits", "wants"),
    [
        (NAN, {}, "a finite number"),
        (INF, {}, "a finite number"),
        (-INF, {}, "a finite number"),
        (-0.5, {"low": 0.0}, "a finite number of at least 0"),
        (INF, {"low": 0.0}, "a finite number of at least 0"),
        (2.5, {"high": 2.0}, "a finite number of at most 2"),
        (-INF, {"high": 2.0}, "a finite number of at most 2"),
        (2.5, {"low": -1.0, "high": 2.0}, "a number from -1 to 2"),
        (INF, {"allow": (-INF,)}, "a finite number or -inf"),
        (NAN, {"allow": (-INF,)}, "a finite number or -inf"),
        (NAN, {"allow": (-INF, INF)}, "a finite number or -inf, inf"),
        (2.0, {"high": 1.0, "allow": (3.0,)}, "a finite number of at most 1 or 3.0"),
    ],
)
@pytest.mark.parametrize("at", [(0, 0), (1, 2)])
def test_the_entry_and_what_is_wanted_are_named(value, limits, wants, at):
    a = np.zeros((2, 3))
    a[at] = value
    place = f"a[{at[0]}, {at[1]}]"
    says = f"{place} is {value}, wants {wants}"
    refused(numerics.check_array, "a", a, ("T", "K"), says=says, **limits)
    says = f"a[{at[1]}] is {value}, wants {wants}"
    refused(numerics.check_array, "a", a[at[0]], ("K",), says=says, **limits)
    says = f"a is {value}, wants {wants}"
    refused(numerics.check_array, "a", value, (), says=says, **limits)


def test_the_first_bad_entry_is_named():
    says = "a[1] is nan, wants a finite number"
    refused(numerics.check_array, "a", [0.0, NAN, INF, NAN], ("T",), says=says)


@pytest.mark.parametrize(
    ("a", "limits"),
    [
        ([0.0, 1.0], {"low": 0.0, "high": 1.0}),
        ([-INF, 1.0], {"allow": (-INF,)}),
        ([-INF, INF], {"allow": (-INF, INF)}),
        ([-INF, 0.5], {"low": 0.0, "allow": (-INF,)}),
        ([3.0, 0.5], {"high": 1.0, "allow": (3.0,)}),
        ([-1.7e308, 1.7e308], {}),
    ],
)
def test_limits_and_what_is_allowed_are_taken(a, limits):
    np.testing.assert_array_equal(numerics.check_array("a", a, ("T",), **limits), a)


def test_check_real_takes_any_shape_and_nan():
    a = np.array([[NAN, INF]])
    assert numerics.check_real("a", a) is a
    assert numerics.check_real("a", []).shape == (0,)
    assert numerics.check_real("a", True) == 1.0
    assert numerics.check_real("a", np.longdouble("1e400")) == INF
    says = "a is 'abc', wants an array of real numbers"
    refused(numerics.check_real, "a", "abc", says=says)


def test_a_long_value_is_cut_short():
    with pytest.raises(ValueError) as caught:
        numerics.check_real("a", "x" * 1000)
    assert "xxx..., wants" in str(caught.value) and len(str(caught.value)) < 120


# ---------------------------------------------------------------- probabilities


@pytest.mark.parametrize(
    ("p", "shape", "says"),
    [
        ([0.5, 0.25], ("K",), "p sums to 0.75, wants a sum of 1"),
        ([[1.0, 0.0], [0.5, 0.25]], (2, 2), "p[1] sums to 0.75, wants a sum of 1"),
        ([[[0.5], [1.0]]], (1, 2, 1), "p[0, 0] sums to 0.5, wants a sum of 1"),
        ([1.5, -0.5], ("K",), "p[0] is 1.5, wants a number from 0 to 1"),
        ([-0.5, 1.0, 0.5], ("K",), "p[0] is -0.5, wants a number from 0 to 1"),
        ([NAN, 1.0], ("K",), "p[0] is nan, wants a number from 0 to 1"),
        ([1.0], ("K", "K"), "p has shape (1,), wants (K, K)"),
        (1.0, ("K",), "p has shape (), wants (K,)"),
        ([], ("K",), "p has shape (0,), wants (K,); it must not be empty"),
        ([0.5, 0.5 + 2e-8], ("K",), "p sums to 1.00000002, wants a sum of 1"),
        ([0.5, 0.5 - 2e-8], ("K",), "p sums to 0.99999998, wants a sum of 1"),
    ],
)
def test_simplex_refuses(p, shape, says):
    refused(numerics.check_simplex, "p", p, shape, says=says)


def test_sums_that_are_off_by_rounding_are_put_right():
    p = np.array([[0.3, 0.7], [0.3, 0.7 + 5e-9]])
    before = p.copy()
    got = numerics.check_simplex("p", p, ("J", "K"))
    np.testing.assert_allclose(got.sum(axis=1), 1.0, rtol=1e-15)
    np.testing.assert_array_equal(p, before)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_coarse_floats_may_be_off_by_their_rounding(dtype):
    p = np.full(7, 1 / 7).astype(dtype)
    assert abs(p.astype(float).sum() - 1.0) > numerics.SIMPLEX_ATOL
    got = numerics.check_simplex("p", p, ("K",))
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, 1 / 7, rtol=1e-15)
    with pytest.raises(ValueError, match="wants a sum of 1"):
        numerics.check_simplex("p", p.astype(float), ("K",))
    with pytest.raises(ValueError, match="wants a sum of 1"):
        numerics.check_simplex("p", p * dtype(0.98), ("K",))


@given(st.integers(0, 2**32 - 1))
def test_a_simplex_that_was_checked_stays_as_it_is(seed):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(rng.integers(1, 20)), 4) * (1 + 1e-9 * rng.random((4, 1)))
    once = numerics.check_simplex("p", p, ("J", "K"))
    assert numerics.check_simplex("p", once, ("J", "K")) is once


# ---------------------------------------------------------------- counts, masks, lists


def test_counts():
    got = numerics.check_counts("x", [0.0, 3.0, 2.0**53], ("T",))
    assert got.dtype == np.int64 and got.tolist() == [0, 3, 2**53]
    limits = "wants a number from 0 to 9.0072e+15"
    says = "x[1] is 0.5, wants a whole number"
    refused(numerics.check_counts, "x", [1.0, 0.5], ("T",), says=says)
    says = "x[0, 1] is 0.5, wants a whole number"
    refused(numerics.check_counts, "x", [[1.0, 0.5]], ("T", "K"), says=says)
    says = f"x[1] is -1.0, {limits}"
    refused(numerics.check_counts, "x", [1, -1], ("T",), says=says)
    says = f"x[0] is 1e+300, {limits}"
    refused(numerics.check_counts, "x", [1e300], ("T",), says=says)


def test_masks():
    got = numerics.check_mask("m", [True, False], (2,))
    assert got.dtype == np.bool_ and got.tolist() == [True, False]
    says = "m holds int64, wants booleans"
    refused(numerics.check_mask, "m", [1, 0], (2,), says=says)
    says = "m has shape (2,), wants (3,)"
    refused(numerics.check_mask, "m", [True, False], (3,), says=says)


def test_lists():
    a = np.ones(2)
    assert numerics.check_list("s", (a, a)) == [a, a]
    wants = "wants a list of one or more: put a single one in brackets"
    refused(numerics.check_list, "s", a, says=f"s is array([1., 1.]), {wants}")
    refused(numerics.check_list, "s", [], says=f"s is [], {wants}")
    refused(numerics.check_list, "s", "ab", says=f"s is 'ab', {wants}")


# ---------------------------------------------------------------- numbers and objects


@pytest.mark.parametrize("n", [1, 5, np.int8(5), np.uint64(5), 2**53])
def test_whole_numbers_are_taken(n):
    got = numerics.check_whole("n", n, 1)
    assert type(got) is int and got == n


@pytest.mark.parametrize(
    "n", [0, -3, 1.0, 1.5, NAN, INF, True, np.True_, "3", None, [3], 3 + 0j]
)
def test_what_is_not_whole_is_refused(n):
    says = f"n is {n!r}, wants a whole number of at least 1"
    refused(numerics.check_whole, "n", n, 1, says=says)


def test_times_are_not_whole_and_numbers_may_be_too_large():
    with pytest.raises(ValueError, match="wants a whole number of at least 1"):
        numerics.check_whole("n", np.timedelta64(3, "s"), 1)
    with pytest.raises(ValueError, match="wants a whole number of at most 9007199"):
        numerics.check_whole("n", 10**400, 1)


def test_scalars():
    assert type(numerics.check_scalar("x", np.float32(0.5))) is float
    assert numerics.check_scalar("x", 0, low=0.0, high=0.0) == 0.0
    wanted = "wants a finite number of at least 0"
    refused(numerics.check_scalar, "x", -1e-9, 0.0, says=f"x is -1e-09, {wanted}")
    refused(numerics.check_scalar, "x", NAN, 0.0, says=f"x is nan, {wanted}")
    wanted = "wants a number from 0 to 1"
    refused(numerics.check_scalar, "x", 1.5, 0.0, 1.0, says=f"x is 1.5, {wanted}")
    refused(numerics.check_scalar, "x", True, says="x is True, wants a number")
    says = "x has shape (1,), wants () (a single number)"
    refused(numerics.check_scalar, "x", [1.0], says=says)


def test_types_and_generators():
    assert numerics.check_type("x", 3, int) == 3
    refused(numerics.check_type, "x", 3, str, says="x is 3, wants an object of str")
    rng = np.random.default_rng(0)
    assert numerics.check_rng(rng) is rng
    for bad in (0, None, np.random.RandomState(0), np.random.default_rng):
        wants = "wants a np.random.Generator, as np.random.default_rng(0) makes"
        with pytest.raises(ValueError, match=rf"^rng is .*, {re.escape(wants)}$"):
            numerics.check_rng(bad)
