"""A coding evening as whoever solves it leaves it: every stub is filled."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from mlfs.book.exercise import exercise

from . import lab


def solutions(cells: list[str]) -> dict[int, str]:
    """What to write into which cell, from the sources of a notebook's cells.

    Raises:
        ValueError: a check has no stub before it, or there is nothing to solve.
    """
    stubs: dict[str, int] = {}
    filled: dict[int, list[str]] = {}
    for at, source in enumerate(cells):
        tree = parsed(source)
        stubs |= dict.fromkeys(unfinished(tree), at)
        for task, name in checks(tree):
            if name not in stubs:
                raise ValueError(f"cell {at} checks {name}, of which there is no stub")
            filled.setdefault(stubs[name], []).append(written(task, name))
    if not filled:
        raise ValueError("no cell has a stub that a later cell checks")
    return {at: "\n\n".join(sources) for at, sources in filled.items()}


def parsed(source: str) -> ast.Module:
    """The tree of a cell; an empty one for text, or for a magic of IPython."""
    try:
        return ast.parse(source)
    except SyntaxError:
        return ast.Module([], [])


def unfinished(tree: ast.Module) -> list[str]:
    """The functions of a cell that raise NotImplementedError and do nothing else."""
    return [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and isinstance(node.body[-1], ast.Raise)
        and "NotImplementedError" in ast.dump(node.body[-1])
    ]


def checks(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The exercise and the function of each check("hmm.forward", forward)."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "check"
            and isinstance(node.args[0], ast.Constant)
            and isinstance(node.args[1], ast.Name)
        ):
            yield str(node.args[0].value), node.args[1].id


def unsolved(cells: list[dict[str, Any]]) -> list[str]:
    """The exercises whose check, as it ran in a notebook, has not passed."""
    left = []
    for cell, source in zip(cells, lab.code(cells), strict=True):
        said = "\n".join(map(lab.text, cell.get("outputs", []))).splitlines()
        for task, _ in checks(parsed(source)):
            passed = f"✓ {task.rpartition('.')[2]}: passed."
            if not any(line.startswith(passed) for line in said):
                left.append(task)
    return left


def written(task: str, name: str) -> str:
    """The right function as a learner would write it, which needs no other cell.

    It is what the page shows in its fold, with the helpers that it calls imported.
    """
    right = exercise(task).reference
    tree = ast.parse(textwrap.dedent(inspect.getsource(right)))
    function = tree.body[0]
    if not isinstance(function, ast.FunctionDef):
        raise ValueError(f"the solution of {task} is no plain function")
    module = sys.modules[right.__module__]
    helpers = sorted(names(function) & set(vars(module)))
    function.name = name
    function.decorator_list = []
    for node in ast.walk(function):
        if isinstance(node, ast.FunctionDef):
            node.returns = None  # types name what the page does not import
        if isinstance(node, ast.arg):
            node.annotation = None
    if helpers:
        line = f"from {module.__name__} import {', '.join(helpers)}"
        function.body.insert(
            1 if ast.get_docstring(function) else 0, parsed(line).body[0]
        )
    return ast.unparse(ast.fix_missing_locations(function))


def names(function: ast.FunctionDef) -> set[str]:
    """What its body looks up outside it."""
    inside = [node for statement in function.body for node in ast.walk(statement)]
    used = {node.id for node in inside if isinstance(node, ast.Name)}
    given = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    return used - given - set(vars(builtins))
