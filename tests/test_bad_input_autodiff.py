"""Functions of functions refuse what they cannot differentiate, and say why."""

import inspect

import numpy as np
import pytest

from mlfs import autodiff as ad

X = np.ones(3)
TREE = {"a": np.ones(2), "b": [np.ones(3)]}


def total(x):
    return np.sum(x * x)


def square(x):
    return x * x


def leaves(x):
    return np.sum(x["a"]) + np.sum(x["b"][0])


def no_function(call, name="f"):
    for value in (3, None, "abc", X):
        yield (lambda v=value: call(v)), rf"^{name} is .*wants a function"


def no_floats(call, name):
    """What cannot change a little."""
    for value, got in (
        (np.ones(3, int), "int64"),
        (np.ones(3, bool), "bool"),
        (2, "int64"),
        ("abc", "<U3"),
        ({1}, "object"),
    ):
        yield (lambda v=value: call(v)), rf"^{name} holds {got}, wants floats"
    at = rf"^{name}\['b'\]\[0\] holds int64, wants floats"
    yield (lambda: call({"a": X, "b": [np.ones(3, int)]})), at


def no_scalar(call):
    for out, got in (
        (X, r"shape \(3,\) of float64"),
        (X[:1], r"shape \(1,\) of float64"),
        (1j, "complex128"),
        (None, "NoneType|object"),
        ([1.0], "a list|shape"),
        ("abc", "<U0|<U3|a str"),
    ):
        yield (
            (lambda o=out: call(lambda x: o)),
            rf"^f returned .*({got}).*wants one real number",
        )
    yield (lambda: call(square)), r"^f returned shape \(3,\) of float64, wants one real"


def no_like(call, name, *, shape=True):
    """Of X: cotangents or tangents that do not fit it."""
    if shape:
        yield (lambda: call(np.ones(2))), rf"^{name} has shape \(2,\) .*wants \(3,\)"
        yield (lambda: call(1.0)), rf"^{name} has shape \(\) .*wants \(3,\)"
    yield (lambda: call([X])), rf"^{name} is a list, wants an array"
    yield (lambda: call(None)), rf"^{name} is a NoneType, wants an array"
    yield (lambda: call(np.array(["a", "b", "c"]))), rf"^{name} .*<U1, wants"
    yield (lambda: call("abc")), rf"^{name} .*<U3, wants"


kept = []


def keep(x):
    kept.append(x)
    return np.sum(x)


def escaped(make):
    """A traced value that is used after its function has returned."""
    kept.clear()
    make()
    return kept[0] + 1.0


OUTSIDE = "^checkpoint: f uses a traced value that is not among its arguments, wants"


def cube_root(x):
    return np.cbrt(x)


REFUSALS = {
    "grad": [
        *no_function(lambda f: ad.grad(f)(X)),
        *no_floats(lambda x: ad.grad(total)(x), "argument 0"),
        *no_scalar(lambda f: ad.grad(f)(X)),
        (lambda: ad.grad(total)(), "^argnums names argument 0, wants one of the 0"),
        (lambda: ad.grad(total, 1)(X), "^argnums names argument 1, wants one of the 1"),
        (lambda: ad.grad(total, -2)(X), "^argnums names argument -2, wants"),
        (lambda: ad.grad(total, (0, 5))(X), "^argnums names argument 5, wants"),
        (lambda: ad.grad(total, "x")(X), "^argnums .*'x'.*wants"),
        (lambda: ad.grad(total, 0.5)(X), "^argnums .*0.5.*wants"),
        (lambda: ad.grad(total, None)(X), "^argnums .*None.*wants"),
        (
            lambda: ad.grad(total, (0, 0))(X),
            r"^argnums .*\(0, 0\).*wants",
        ),
        (lambda: escaped(lambda: ad.grad(keep)(X)), "^add met a traced value that has"),
    ],
    "value_and_grad": [
        *no_function(lambda f: ad.value_and_grad(f)(X)),
        *no_floats(lambda x: ad.value_and_grad(total)(x), "argument 0"),
        *no_scalar(lambda f: ad.value_and_grad(f)(X)),
        *no_scalar(lambda f: ad.value_and_grad(lambda x: (f(x), 1), has_aux=True)(X)),
        (
            lambda: ad.value_and_grad(total, has_aux=True)(X),
            r"^f returned Traced, wants a pair \(number, extra\)",
        ),
        (
            lambda: ad.value_and_grad(lambda x: (x, x, x), has_aux=True)(X),
            "^f returned tuple, wants a pair",
        ),
    ],
    "vjp": [
        *no_function(lambda f: ad.vjp(f, X)),
        *no_floats(lambda x: ad.vjp(total, x), "argument 0"),
        (lambda: ad.vjp(np.add, X, np.ones(3, int)), "^argument 1 holds int64, wants"),
        *no_like(lambda g: ad.vjp(square, X)[1](g), "cotangent"),
        (
            lambda: ad.vjp(lambda x: {"y": x}, X)[1]({"z": X}),
            r"^cotangent has \['z'\], wants .*'y'",
        ),
        (
            lambda: ad.vjp(lambda x: {"y": [x]}, X)[1]({"y": [1.0]}),
            r"^cotangent\['y'\]\[0\] has shape \(\) of float64, wants \(3,\)",
        ),
        (lambda: ad.vjp(square, X)[1](X * 1j), "^cotangent .*complex128, wants"),
    ],
    "jvp": [
        *no_function(lambda f: ad.jvp(f, (X,), (X,))),
        *no_floats(lambda x: ad.jvp(total, (x,), (x,)), r"primals\[0\]"),
        *no_like(lambda t: ad.jvp(square, (X,), (t,)), r"tangents\[0\]"),
        (lambda: ad.jvp(square, (X,), ()), "^tangents has 0 entries, wants 1"),
        (lambda: ad.jvp(square, (X,), (X, X)), "^tangents has 2 entries, wants 1"),
        (lambda: ad.jvp(square, X, X), "^primals is .*wants a (list|tuple)"),
        (lambda: ad.jvp(square, 1.0, 1.0), "^primals is .*wants a (list|tuple)"),
        (
            lambda: ad.jvp(leaves, (TREE,), ({"a": X, "b": [X]},)),
            r"^tangents\[0\]\['a'\] has shape \(3,\) of float64, wants \(2,\)",
        ),
        (
            lambda: escaped(lambda: ad.jvp(keep, (X,), (X,))),
            "^add met a traced value that has left",
        ),
        (
            lambda: ad.jvp(square, (X,), (X * 1j,)),
            r"^tangents\[0\] .*complex128, wants",
        ),
    ],
    "hvp": [
        *no_function(lambda f: ad.hvp(f, X, X)),
        *no_floats(lambda x: ad.hvp(total, x, x), r"(x|primals\[0\])"),
        *no_scalar(lambda f: ad.hvp(f, X, X)),
        *no_like(lambda v: ad.hvp(total, X, v), r"(v|tangents\[0\])"),
    ],
    "jacobian": [
        *no_function(lambda f: ad.jacobian(f)(X)),
        *no_floats(lambda x: ad.jacobian(square)(x), "x"),
        (lambda: ad.jacobian(square, mode="both"), "^mode is 'both', wants .*forward"),
        (lambda: ad.jacobian(square, mode=1), "^mode is 1, wants"),
    ],
    "hessian": [
        *no_function(lambda f: ad.hessian(f)(X)),
        *no_floats(lambda x: ad.hessian(total)(x), "x"),
        *no_scalar(lambda f: ad.hessian(f)(X)),
    ],
    "checkpoint": [
        *no_function(lambda f: ad.checkpoint(f)(X)),
        (
            lambda: ad.grad(lambda x: np.sum(ad.checkpoint(lambda y: y * x)(2.0 * x)))(
                X
            ),
            OUTSIDE,
        ),
    ],
    "primitive": [
        *no_function(lambda f: ad.primitive(lambda g, out, x: g)(f), "function"),
        *no_function(
            lambda p: ad.primitive(3 if p is None else p)(cube_root), r"pullbacks\[0\]"
        ),
        (
            lambda: ad.grad(
                lambda x: ad.primitive(lambda g, out, x: np.ones(7))(np.sum)(x)
            )(X),
            r"^the pullback of sum gave shape \(7,\), wants .*\(3,\)",
        ),
    ],
    "define": [
        (lambda: ad.define(square, lambda g, out, x: g), "^function is .*dispatches"),
        (lambda: ad.define(3, lambda g, out, x: g), "^function is 3, wants"),
        (lambda: ad.define(None), "^function is None, wants"),
        (lambda: ad.define(np.exp, lambda g, out, x: g), "^function is .*a rule alrea"),
        (lambda: ad.define(np.cbrt, 3), r"^pullbacks\[0\] is .*wants a function"),
    ],
    "fused": [
        *no_function(lambda f: ad.fused(f, square)(square), "forward"),
        *no_function(lambda f: ad.fused(square, f)(square), "backward"),
        *no_function(lambda f: ad.fused(square, square)(f), "composed"),
    ],
    "softmax": [
        (lambda: ad.softmax("abc"), "^a has .*<U3, wants floats"),
        (lambda: ad.softmax(np.ones(0)), r"^a has shape \(0,\) .* not empty"),
        (lambda: ad.softmax(X * 1j), "^a has .*complex128, wants"),
        (lambda: ad.softmax(None), "^a has .*object, wants"),
        (lambda: ad.softmax(X, 3), "^axis is 3, wants"),
        (lambda: ad.softmax(X, "x"), "^axis is 'x', wants"),
        (lambda: ad.softmax([-np.inf, -np.inf]), "^a .*wants"),
    ],
    "log_softmax": [
        (lambda: ad.log_softmax("abc"), "^a has .*<U3, wants floats"),
        (lambda: ad.log_softmax(np.ones(0)), r"^a has shape \(0,\) .* not empty"),
        (lambda: ad.log_softmax(X, 3), "^axis is 3, wants"),
    ],
    "logsumexp": [
        (lambda: ad.logsumexp("abc"), "^a has .*<U3, wants floats"),
        (lambda: ad.logsumexp(np.ones(0)), r"^a has shape \(0,\) .* not empty"),
        (lambda: ad.logsumexp(X, 3), "^axis is 3, wants"),
        (lambda: ad.logsumexp(X, (0, 1)), r"^axis is \(0, 1\), wants"),
    ],
}
ACCEPTS = {
    "stop_gradient": "any tree: what is not traced is handed back as it is",
    "Fused": "made by fused, which refuses for it",
    "Primitive": "made by primitive and define, which refuse for it",
    "Traced": "made by the levels; users see it only",
}


def case(name, i, call, message):
    return pytest.param(call, message, id=f"{name}-{i}")


def test_every_public_function_is_in_the_table():
    mine = {
        name
        for name, it in vars(ad).items()
        if (inspect.isfunction(it) or inspect.isclass(it))
        and it.__module__ == ad.__name__
        and not name.startswith("_")
    }
    assert mine <= set(ad.__all__)
    assert set(ad.__all__) == set(REFUSALS) | set(ACCEPTS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        case(name, i, *it)
        for name, cases in REFUSALS.items()
        for i, it in enumerate(cases)
    ],
)
def test_bad_input_is_refused(call, message):
    before = dict(ad.RULES)
    try:
        with pytest.raises(ValueError, match=message) as caught:
            call()
    finally:
        ad.RULES.clear()
        ad.RULES.update(before)
    assert "want" in str(caught.value) or "return it from there" in str(caught.value)


def test_what_a_pullback_returns_is_the_callers_own():
    """Not the cotangent that was put in, even where the slope is one."""
    g = np.ones(3)
    for f in (lambda x: x + 1.0, lambda x: x, np.positive):
        (share,) = ad.vjp(f, X)[1](g)
        assert not np.shares_memory(share, g)
        assert not np.shares_memory(share, X)
