"""What a page's outputs depend on, and one number for all of it.

jupyter-cache keys the outputs of a page on its cells alone: it does not see that a
module, a data set or a pin changed.  A fingerprint covers those too.  This needs the
standard library only, and reads modules without importing them.
"""

from __future__ import annotations

import ast
import hashlib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEARCHED = ("code", "tools", "tests")  # where a name that is imported may be ours
CALLS = ("check", "mine", "prove", "which", "verify")  # their argument names a module
FRONT_MATTER = ("kernelspec", "execution", "mystnb")  # the keys that steer execution

_FENCE = re.compile(r" {0,3}(?P<mark>`{3,}|~{3,}|:{3,})(?P<info>.*)")


@dataclass(frozen=True, slots=True)
class Cell:
    """One code cell: its place, its options (tags and the like) and its Python."""

    number: int  # 1 for the first code cell of the page
    line: int  # where its source starts in the page
    options: str
    source: str


def _fences(lines: list[str]) -> Iterator[tuple[str, int, list[str]]]:
    """Top-level fenced blocks as (info, line of the first body line, body)."""
    mark, info, start, in_comment = "", "", 0, False
    for number, line in enumerate(lines, 1):
        found = _FENCE.fullmatch(line)
        if mark:
            closing = line.strip()
            if found and closing[0] == mark[0] and not closing.strip(mark[0]):
                if len(closing) >= len(mark):
                    yield info, start, lines[start - 1 : number - 1]
                    mark = ""
        elif in_comment or line.lstrip(" ").startswith("<!--"):
            in_comment = "-->" not in line
        elif found and not (line.lstrip()[0] == "`" and "`" in found["info"]):
            mark, info, start = found["mark"], found["info"].strip(), number + 1
    if mark:
        yield info, start, lines[start - 1 :]


def _front_matter(lines: list[str]) -> list[str]:
    """The lines between the two rules that open a page, or none."""
    if not lines or lines[0].rstrip() != "---":
        return []
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() in ("---", "..."):
            return lines[1:number]
    return []


def _options(body: list[str]) -> int:
    """How many lines at the head of a cell are options."""
    if body and body[0].rstrip() == "---":
        for number, line in enumerate(body[1:], 2):
            if line.rstrip() == "---":
                return number
    for number, line in enumerate(body):
        if not line.lstrip().startswith(":"):
            return number
    return len(body)


def code_cells(text: str) -> tuple[Cell, ...]:
    """The code cells of a page's text, in order."""
    lines = text.splitlines()
    skipped = len(_front_matter(lines))
    lines[:skipped] = [""] * skipped  # keeps the line numbers
    cells: list[Cell] = []
    for info, start, body in _fences(lines):
        if info.startswith("{code-cell}"):
            head = _options(body)
            options = "\n".join([info, *body[:head]])
            source = "\n".join(body[head:])
            cells.append(Cell(len(cells) + 1, start + head, options, source))
    return tuple(cells)


def _settings(text: str) -> str:
    """The blocks of the front matter that decide how a page is executed."""
    kept, keep = [], False
    for line in _front_matter(text.splitlines()):
        if line[:1] not in ("", " ", "#"):
            keep = line.split(":")[0].strip() in FRONT_MATTER
        if keep:
            kept.append(line.rstrip())
    return "\n".join(kept)


@cache
def _imports(source: str, package: str, where: str) -> frozenset[str]:
    """Every dotted name that a source text imports, wherever it does so."""
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"{where}, line {error.lineno}: {error.msg}") from None
    return frozenset(_imported(tree, package))


def _imported(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base]).strip(".")
            yield base
            # What is imported from a package may be a module or a name in it.
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _files_of(name: str, root: Path) -> set[Path]:
    """Files that importing the dotted `name` runs, as far as they are ours."""
    found: set[Path] = set()
    parts = name.split(".")
    for folder in SEARCHED:
        for end in range(1, len(parts) + 1):
            path = root.joinpath(folder, *parts[:end])
            candidates = (path / "__init__.py", path.with_name(path.name + ".py"))
            found.update(file for file in candidates if file.is_file())
            if not path.is_dir():
                break
    return found


def _package_of(path: Path, root: Path) -> str:
    """The dotted package in which the module at `path` lies."""
    folder = path.relative_to(root).parent
    return ".".join(folder.parts[1:])


def _closure(files: Iterable[Path], root: Path) -> set[Path]:
    """`files` and all that they import, directly or not, as far as it is ours."""
    found: set[Path] = set()
    queue = list(files)
    while queue:
        path = queue.pop()
        if path in found:
            continue
        found.add(path)
        if path.suffix == ".py":
            where = path.relative_to(root).as_posix()
            source = path.read_text("utf8")
            for name in _imports(source, _package_of(path, root), where):
                queue.extend(_files_of(name, root) - found)
    return found


def _tree(folder: Path) -> set[Path]:
    """Every file below `folder`; none when it does not exist."""
    return {
        path
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def _parse(page: str, cells: tuple[Cell, ...]) -> Iterator[tuple[Cell, ast.Module]]:
    for cell in cells:
        try:
            yield cell, ast.parse(cell.source)
        except SyntaxError as error:
            line = cell.line + (error.lineno or 1) - 1
            raise ValueError(
                f"{page}, code cell {cell.number}, line {line}: {error.msg}; "
                "a cell holds plain Python, without magics or shell commands"
            ) from None


def _aliases(trees: Iterable[ast.Module]) -> dict[str, str]:
    """Names under which the page imports check, mine and verify from mlfs."""
    return {
        alias.asname or alias.name: alias.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mlfs")
        for alias in node.names
        if alias.name in CALLS
    }


def _name_of(call: ast.Call, aliases: dict[str, str]) -> str:
    """Which of the calls it is, or an empty string."""
    if isinstance(call.func, ast.Name):
        return aliases.get(call.func.id, "")
    if isinstance(call.func, ast.Attribute) and call.func.attr in CALLS:
        return call.func.attr
    return ""


def _called(page: str, cells: tuple[Cell, ...]) -> set[tuple[str, str]]:
    """Pairs like ("check", "hmm") for the calls whose argument names a module."""
    parsed = list(_parse(page, cells))
    aliases = _aliases(tree for _, tree in parsed)
    found = set()
    for cell, tree in parsed:
        for node in ast.walk(tree):
            name = _name_of(node, aliases) if isinstance(node, ast.Call) else ""
            if not isinstance(node, ast.Call) or not name:
                continue
            values = [*node.args, *(word.value for word in node.keywords)]
            first = values[0] if values else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                found.add((name, first.value.split(".")[0]))
            elif isinstance(node.func, ast.Name):
                raise ValueError(
                    f"{page}, code cell {cell.number}: {name}() wants a name in quotes "
                    "as its first argument, so that what it depends on can be followed"
                )
    return found


def _locate(page: Path | str, root: Path) -> tuple[Path, str]:
    """A page's path and its name relative to the root."""
    path = root / page
    return path, path.relative_to(root).as_posix()


def verified(page: Path | str, root: Path = ROOT) -> list[str]:
    """Modules whose tests the page runs with verify().

    Raises:
        ValueError: a cell is not plain Python, or hides the name from view.
    """
    path, name = _locate(page, root)
    calls = _called(name, code_cells(path.read_text("utf8")))
    return sorted(module for call, module in calls if call == "verify")


def dependencies(page: Path | str, root: Path = ROOT) -> list[Path]:
    """Every file that can change the outputs of `page`, itself included, sorted.

    Raises:
        ValueError: a cell is not plain Python, a name given to check(), mine() or
            verify() is not a literal, or a module of ours has a syntax error.
    """
    path, name = _locate(page, root)
    cells = code_cells(path.read_text("utf8"))
    files = {path, root / "requirements.txt"}
    start: set[Path] = set()
    for _, tree in _parse(name, cells):
        for imported in _imported(tree, ""):
            start |= _files_of(imported, root)
    for call, module in _called(name, cells):
        if call == "verify":
            tests = root / "tests"
            start |= {tests / f"test_{module}.py", tests / "conftest.py"}
            start |= _tree(tests / "oracles")
        else:
            start |= _files_of(f"mlfs.book.exercises.{module}", root)
    files |= _closure((file for file in start if file.is_file()), root)
    if files & _files_of("mlfs.core.data", root) - _files_of("mlfs.core", root):
        files |= _tree(root / "code" / "mlfs" / "data")
    return sorted(file for file in files if file.is_file())


def fingerprint(page: Path | str, root: Path = ROOT) -> str:
    """SHA-256 of all that can change the outputs of `page`, in hexadecimal.

    Of the page itself only the code cells count, with their options, and the front
    matter that steers execution: prose alone changes nothing.

    Raises:
        ValueError: as for `dependencies`.
    """
    path, _ = _locate(page, root)
    text = path.read_text("utf8")
    parts = [f"Python {sys.version_info[0]}.{sys.version_info[1]}", _settings(text)]
    parts += [part for cell in code_cells(text) for part in (cell.options, cell.source)]
    digest = hashlib.sha256(repr(parts).encode())
    for file in dependencies(path, root):
        if file != path:
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            digest.update(f"\n{file.relative_to(root).as_posix()} {content}".encode())
    return digest.hexdigest()


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        for file in dependencies(Path(argument).resolve()):
            print(file.relative_to(ROOT))
