"""Trees: nested dicts, lists, tuples and dataclasses, with arrays at their leaves.

The parameters of a model are a tree, and so are gradients and the state of an
optimiser.  A tree is taken apart into the list of its leaves and a structure; the
structure puts any list of the same length together again.  None is a tree without a
leaf; whatever is no container is a leaf.  A dict of a kind of its own, such as
defaultdict, is refused: what it knows beside its entries would be lost.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Structure(NamedTuple):
    """A tree without its leaves: the container, the names of its places, its branches.

    A leaf is a Structure whose `kind` is None; `size` counts the leaves.
    """

    kind: type | None
    names: tuple[Any, ...] = ()
    branches: tuple[Any, ...] = ()
    size: int = 1


LEAF = Structure(None)
_leaf_kinds: set[type] = set()  # found to be no containers: asked at every step


def flatten(tree: Any) -> tuple[list[Any], Structure]:
    """The leaves of a tree from left to right, and its structure; O(leaves).

    Raises:
        ValueError: it holds a dict of another kind than dict and OrderedDict.
    """
    leaves: list[Any] = []
    return leaves, _take_apart(tree, leaves)


def unflatten(structure: Structure, leaves: list[Any]) -> Any:
    """The tree of this structure with these leaves.

    A dataclass is made without its checks: the gradient of probabilities is no
    probability.

    Raises:
        ValueError: too few leaves or too many, or no list of them.
    """
    if not isinstance(structure, Structure):
        raise ValueError(
            f"structure is a {type(structure).__name__}, wants one that flatten gave"
        )
    if not isinstance(leaves, list | tuple):
        raise ValueError(f"leaves is a {type(leaves).__name__}, wants a list")
    if len(leaves) != structure.size:
        raise ValueError(
            f"leaves has {len(leaves)} entries, wants {structure.size}, "
            "as many as the structure has places"
        )
    return _put_together(structure, iter(leaves))


def flatten_like(structure: Structure, tree: Any, name: str = "tree") -> list[Any]:
    """The leaves of a tree that must have this structure; dicts may be in any order.

    Raises:
        ValueError: it has another structure; the message says where.
    """
    if not isinstance(structure, Structure):
        raise ValueError(
            f"structure is a {type(structure).__name__}, wants one that flatten gave"
        )
    leaves: list[Any] = []
    if not _collect(structure, tree, leaves):
        leaves = []
        _follow(structure, tree, name, leaves)
    return leaves


def tree_map(f: Callable[..., Any], tree: Any, *others: Any) -> Any:
    """The tree of f(leaf, ...), over trees of one structure.

    Raises:
        ValueError: the trees differ in structure, or f is no function.
    """
    if not callable(f):
        raise ValueError(f"f is a {type(f).__name__}, wants a function")
    leaves, structure = flatten(tree)
    more = [
        flatten_like(structure, other, f"others[{i}]") for i, other in enumerate(others)
    ]
    return unflatten(structure, [f(*row) for row in zip(leaves, *more, strict=True)])


def leaf_names(structure: Structure, name: str) -> list[str]:
    """How one would write each leaf in Python, where the tree is called `name`."""
    if structure.kind is None:
        return [name]
    return [
        leaf
        for place, branch in zip(structure.names, structure.branches, strict=True)
        for leaf in leaf_names(branch, name + _suffix(structure.kind, place))
    ]


def _take_apart(tree: Any, leaves: list[Any]) -> Structure:
    kind = type(tree)
    if kind in _leaf_kinds:
        leaves.append(tree)
        return LEAF
    if (found := _items(tree)) is None:
        _leaf_kinds.add(kind)
        leaves.append(tree)
        return LEAF
    names, values = found
    before = len(leaves)
    branches = tuple([_take_apart(value, leaves) for value in values])
    return Structure(kind, names, branches, len(leaves) - before)


def _items(tree: Any) -> tuple[tuple[Any, ...], Any] | None:
    """The places of a container and what stands there; None for a leaf."""
    if isinstance(tree, dict):
        if type(tree) not in (dict, OrderedDict):
            raise ValueError(f"tree holds a {type(tree).__name__}, wants a plain dict")
        return tuple(tree), tree.values()
    if isinstance(tree, list | tuple):
        return tuple(range(len(tree))), tree
    if tree is None:
        return (), ()
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        names = tuple(field.name for field in dataclasses.fields(tree))
        return names, [getattr(tree, name) for name in names]
    return None


def _put_together(structure: Structure, leaves: Iterator[Any]) -> Any:
    kind = structure.kind
    if kind is None:
        return next(leaves)
    parts = [_put_together(branch, leaves) for branch in structure.branches]
    if kind is list:
        return parts
    if kind is dict:
        return dict(zip(structure.names, parts, strict=True))
    if kind is type(None):
        return None
    if issubclass(kind, dict):
        return kind(zip(structure.names, parts, strict=True))
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):  # a named tuple
        return kind(*parts)
    if issubclass(kind, list | tuple):
        return kind(parts)
    made = object.__new__(kind)
    for name, part in zip(structure.names, parts, strict=True):
        object.__setattr__(made, name, part)
    return made


def _collect(structure: Structure, tree: Any, leaves: list[Any]) -> bool:
    """Gather the leaves of a tree of this structure; False where it may have another.

    The common containers only, and no names for messages: this runs at every step.
    """
    kind: Any = type(tree)
    if structure.kind is None and kind in _leaf_kinds:
        leaves.append(tree)
        return True
    if kind is not structure.kind:
        return False
    if kind is dict:
        if len(tree) != len(structure.names):
            return False
        for name, branch in zip(structure.names, structure.branches, strict=True):
            if name not in tree or not _collect(branch, tree[name], leaves):
                return False
        return True
    if kind is list or kind is tuple:
        pairs = zip(structure.branches, tree, strict=False)
        return len(tree) == len(structure.names) and all(
            [_collect(branch, value, leaves) for branch, value in pairs]
        )
    return False


def _follow(structure: Structure, tree: Any, name: str, leaves: list[Any]) -> None:
    found = _items(tree)
    if structure.kind is None:
        if found is not None:
            raise ValueError(f"{name} is a {type(tree).__name__}, wants an array")
        leaves.append(tree)
        return
    if type(tree) is not structure.kind or found is None:
        raise ValueError(
            f"{name} is a {type(tree).__name__}, wants a {structure.kind.__name__}"
        )
    here = dict(zip(*found, strict=True))
    if here.keys() != set(structure.names):
        raise ValueError(
            f"{name} has {list(here)}, wants the places {list(structure.names)}"
        )
    for place, branch in zip(structure.names, structure.branches, strict=True):
        _follow(branch, here[place], name + _suffix(structure.kind, place), leaves)


def _suffix(kind: type, place: Any) -> str:
    return f".{place}" if dataclasses.is_dataclass(kind) else f"[{place!r}]"
