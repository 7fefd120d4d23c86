"""Trees: apart and together again, in the same order, and errors that say where."""

import dataclasses
import inspect
from collections import Counter, OrderedDict, defaultdict, namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlfs.core import tree as trees
from mlfs.core.tree import flatten, flatten_like, leaf_names, tree_map, unflatten

Pair = namedtuple("Pair", "left right")


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    """Checks what it is given: no such check when it is put together again."""

    a: object
    b: object = None

    def __post_init__(self):
        assert not isinstance(self.a, str), "a derivative is no probability"


@dataclasses.dataclass
class Open:
    x: object


class Bag(list):
    """A kind of list."""


LEAVES = st.integers() | st.floats(allow_nan=False) | st.text(max_size=2)
KEYS = st.text(max_size=3) | st.integers() | st.tuples(st.integers(), st.booleans())
TREES = st.recursive(
    LEAVES | st.none(),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(Bag),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3).map(OrderedDict),
        st.builds(Pair, inner, inner),
        st.builds(Open, inner),
        st.builds(Frozen, st.lists(inner, max_size=2), inner),
    ),
    max_leaves=12,
)


def same(one, other):
    """Equal, and of equal types all the way down; dicts in the same order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if dataclasses.is_dataclass(one):
        names = [f.name for f in dataclasses.fields(one)]
        return all(same(getattr(one, n), getattr(other, n)) for n in names)
    return one == other


def count(tree):
    """How many leaves there are, another way."""
    if tree is None:
        return 0
    if isinstance(tree, dict):
        return sum(map(count, tree.values()))
    if isinstance(tree, (list, tuple)):
        return sum(map(count, tree))
    if dataclasses.is_dataclass(tree):
        return sum(count(getattr(tree, f.name)) for f in dataclasses.fields(tree))
    return 1


def place(tree, name):
    """What stands at a name such as t['a'][0].b."""
    return eval(name, {"t": tree})


# ---------------------------------------------------------------- round trips


@given(TREES)
def test_apart_and_together(tree):
    leaves, structure = flatten(tree)
    assert same(unflatten(structure, leaves), tree)
    assert len(leaves) == structure.size == count(tree)
    assert flatten_like(structure, tree) == leaves
    assert flatten(tree)[1] == structure
    assert hash(structure) == hash(flatten(tree)[1])


@given(TREES)
def test_names_are_python(tree):
    leaves, structure = flatten(tree)
    names = leaf_names(structure, "t")
    assert [place(tree, name) for name in names] == leaves
    assert len(set(names)) == len(names)


@given(TREES)
def test_map(tree):
    assert same(tree_map(lambda x: x, tree), tree)
    pairs = tree_map(lambda *both: [both], tree, tree)
    want = [(leaf, leaf) for leaf in flatten(tree)[0]]
    assert flatten(tree_map(lambda one, other: Leaf((one, other)), tree, tree))[0] == [
        Leaf(pair) for pair in want
    ]
    assert count(pairs) == 2 * len(want)


class Leaf:
    """No container: a leaf."""

    def __init__(self, it):
        self.it = it

    def __eq__(self, other):
        return self.it == other.it


def test_leaves_are_the_objects_themselves():
    x = np.ones(3)
    leaves, structure = flatten({"a": [x]})
    assert leaves[0] is x
    assert unflatten(structure, leaves)["a"][0] is x


def test_leaves_stand_from_left_to_right():
    tree = {"b": 1, "a": (2, [3, None]), "c": Pair(Frozen(4, 5), Open(6))}
    assert flatten(tree)[0] == [1, 2, 3, 4, 5, 6]
    assert leaf_names(flatten(tree)[1], "t") == [
        "t['b']",
        "t['a'][0]",
        "t['a'][1][0]",
        "t['c'][0].a",
        "t['c'][0].b",
        "t['c'][1].x",
    ]


def test_dicts_may_come_in_any_order():
    _, structure = flatten({"b": 1, "a": {"y": 2, "x": 3}})
    other = {"a": {"x": 30, "y": 20}, "b": 10}
    assert flatten_like(structure, other) == [10, 20, 30]
    got = tree_map(lambda x, y: x + y, {"b": 1, "a": 2}, {"a": 20, "b": 10})
    assert list(got.items()) == [("b", 11), ("a", 22)]
    assert tree_map(len, {}) == {}


def test_a_dataclass_is_made_without_its_checks():
    _, structure = flatten(Frozen(1.0, 2.0))
    assert unflatten(structure, ["no number", 0]).a == "no number"
    with pytest.raises(dataclasses.FrozenInstanceError):
        unflatten(structure, [1, 2]).a = 3


def test_a_class_is_a_leaf():
    assert flatten(Frozen)[0] == [Frozen]
    assert flatten({1, 2})[0] == [{1, 2}]


# ---------------------------------------------------------------- bad input

STRUCTURE = flatten({"w": [1, 2], "p": Frozen(3)})[1]


def like(tree):
    return lambda: flatten_like(STRUCTURE, tree, "gradients")


# Of every public function: bad calls, and what the message must say.
REFUSALS = {
    "flatten": [
        (lambda: flatten([defaultdict(list)]), "^tree holds a defaultdict, wants a .*"),
        (
            lambda: flatten({"a": Counter()}),
            "^tree holds a Counter, wants a plain dict",
        ),
    ],
    "unflatten": [
        (lambda: unflatten(STRUCTURE, [1, 2]), "^leaves has 2 entries, wants 3"),
        (lambda: unflatten(STRUCTURE, [1] * 4), "^leaves has 4 entries, wants 3"),
        (lambda: unflatten({"w": 1}, [1]), "^structure is a dict, wants one that"),
        (lambda: unflatten(STRUCTURE, 3), "^leaves is a int, wants a list"),
        (
            lambda: unflatten(STRUCTURE, iter([1, 2, 3])),
            "^leaves is a .*, wants a list",
        ),
    ],
    "flatten_like": [
        (like([1]), "^gradients is a list, wants a dict"),
        (like({"w": [1, 2]}), r"^gradients has \['w'\], wants .*\['w', 'p'\]"),
        (like({"w": [1, 2], "p": Frozen(3), "x": 1}), r"^gradients has .*'x'\], wants"),
        (
            like({"w": (1, 2), "p": Frozen(3)}),
            r"^gradients\['w'\] is a tuple, wants a l",
        ),
        (
            like({"w": [1], "p": Frozen(3)}),
            r"^gradients\['w'\] has \[0\], wants .* \[0, 1\]",
        ),
        (
            like({"w": [1, [2]], "p": Frozen(3)}),
            r"^gradients\['w'\]\[1\] is a list, wants an array",
        ),
        (
            like({"w": [1, None], "p": Frozen(3)}),
            r"^gradients\['w'\]\[1\] is a NoneType, wants an array",
        ),
        (like({"w": [1, 2], "p": Open(3)}), r"\['p'\] is a Open, wants a Frozen"),
        (
            like({"w": [1, 2], "p": Frozen(3, 4)}),
            r"^gradients\['p'\].b is a int, wants a NoneType",
        ),
        (like({"w": [1, 2], "p": None}), r"\['p'\] is a NoneType, wants a Frozen"),
        (lambda: flatten_like([1], [1]), "^structure is a list, wants one that"),
        (
            lambda: flatten_like(flatten(Pair(1, 2))[1], (1, 2), "x"),
            "^x is a tuple, wants a Pair",
        ),
        (
            lambda: flatten_like(flatten(OrderedDict(a=1))[1], {"a": 1}, "x"),
            "^x is a dict, wants a OrderedDict",
        ),
    ],
    "tree_map": [
        (lambda: tree_map(3, [1]), "^f is a int, wants a function"),
        (
            lambda: tree_map(max, [1, 2], [1, 2], [1]),
            r"^others\[1\] has \[0\], wants the places \[0, 1\]",
        ),
        (lambda: tree_map(max, {"a": [1]}, {"a": 1}), r"^others\[0\]\['a'\] is a int"),
    ],
}
ACCEPTS = {
    "leaf_names": "a structure that flatten gave, and any name",
    "Structure": "a record that flatten makes; the other functions tell a false one",
}


def test_every_public_function_is_in_the_table():
    found = {
        name
        for name, it in vars(trees).items()
        if (inspect.isfunction(it) or inspect.isclass(it))
        and it.__module__ == trees.__name__
        and not name.startswith("_")
    }
    assert found == set(REFUSALS) | set(ACCEPTS)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        pytest.param(*case, id=f"{name}-{i}")
        for name, cases in REFUSALS.items()
        for i, case in enumerate(cases)
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call()
    assert "want" in str(caught.value)
