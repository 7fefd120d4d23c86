"""Pages and Python files read as text: sections, blocks, cells, labels, calls.

Nothing of what is read here is imported or run.  `mlfs.book.contract` judges with it.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# ------------------------------------------------------------ reading a page

_FENCE = re.compile(r" {0,3}(?P<mark>`{3,}|~{3,}|:{3,})(?P<info>.*)")
_DIRECTIVE = re.compile(r"\{(?P<name>[\w:.-]+)\}\s*(?P<argument>.*)")
_LABEL = re.compile(r"(?m)\$\$\s*\(([^\s()]+)\)\s*$")
_CITE = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
_GENERATORS = ("Generator", "default_rng", "SeedSequence", "BitGenerator", "PCG64")


@dataclass(frozen=True, slots=True)
class Fence:
    """One fenced block: its directive ("" for plain code), argument, options, body."""

    name: str
    argument: str
    options: str
    body: str
    line: int  # of its opening mark in the page, 1 for the first
    start: int  # of the first line of its body

    def option(self, key: str) -> str:
        """The value of an option, with the more indented lines below it; or ""."""
        lines = self.options.splitlines()
        for at, line in enumerate(lines):
            found = re.fullmatch(rf"( *){key}:(?: +(.*))?", line)
            if found:
                depth, value = len(found[1]), [found[2] or ""]
                for more in lines[at + 1 :]:
                    if more.strip() and len(more) - len(more.lstrip()) <= depth:
                        break
                    value.append(more.strip())
                text = " ".join(filter(None, value))
                return re.sub(r"^[>|][+-]? *", "", text).strip().strip("\"'")
        return ""

    @property
    def folded(self) -> bool:
        """Whether the reader has to open it."""
        return "dropdown" in self.option("class")


@dataclass(frozen=True, slots=True)
class Section:
    """One H2 of a page: its heading, its prose and its blocks, nested ones included."""

    heading: str
    prose: str
    fences: tuple[Fence, ...]

    @property
    def empty(self) -> bool:
        """Whether nothing but comments, anchors and deeper headings stands here."""
        text = re.sub(r"(?m)^(#{3,} .*|\([\w-]+\)=|%.*)$", "", self.prose)
        return not text.strip() and not self.fences


@dataclass(frozen=True, slots=True)
class Page:
    """A page: front matter, H1 headings, sections (the first, "", is what opens it)."""

    front: str
    titles: tuple[str, ...]
    sections: tuple[Section, ...]
    text: str

    @property
    def headings(self) -> tuple[str, ...]:
        """The H2 headings, in order."""
        return tuple(section.heading for section in self.sections[1:])

    @property
    def fences(self) -> tuple[Fence, ...]:
        """All blocks, nested ones included."""
        return tuple(fence for section in self.sections for fence in section.fences)

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of its equations."""
        named = [f.option("label") for f in self.fences if f.name == "math"]
        return (*filter(None, named), *_LABEL.findall(self.text))


def read_page(text: str) -> Page:
    """The parts of a page in MyST Markdown."""
    lines = text.splitlines()
    front = _front_matter(lines)
    start = len(front) + 2 if front else 0
    titles: list[str] = []
    parts: list[tuple[str, list[str], list[Fence]]] = [("", [], [])]
    for item in _items(lines[start:], start + 1):
        if isinstance(item, Fence):
            parts[-1][2].extend(_with_nested(item))
        elif item.startswith("## "):
            parts.append((item[3:].strip(), [], []))
        elif item.startswith("# "):
            titles.append(item[2:].strip())
        else:
            parts[-1][1].append(item)
    sections = (Section(h, "\n".join(p), tuple(f)) for h, p, f in parts)
    return Page("\n".join(front), tuple(titles), tuple(sections), text)


def cited(text: str) -> list[str]:
    """The keys that a page cites; `{...}` before and after a key is not part of it."""
    groups = (re.sub(r"\{[^}]*\}", "", found) for found in _CITE.findall(text))
    return [key.strip() for group in groups for key in group.split(",")]


def _front_matter(lines: list[str]) -> list[str]:
    if lines and lines[0].rstrip() == "---":
        for at, line in enumerate(lines[1:], 1):
            if line.rstrip() == "---":
                return lines[1:at]
    return []


def _items(lines: list[str], first: int) -> Iterator[str | Fence]:
    """Lines of prose, and fenced blocks as one item each; comments are left out."""
    mark, info, start = "", "", 0
    commented = False
    for at, line in enumerate(lines):
        found = _FENCE.fullmatch(line)
        if mark:
            if found and not found["info"].strip() and _closes(found["mark"], mark):
                yield _fence(info, lines[start + 1 : at], first + start)
                mark = ""
        elif commented or line.lstrip().startswith("<!--"):
            commented = "-->" not in line
        elif found and not (found["mark"][0] == "`" and "`" in found["info"]):
            mark, info, start = found["mark"], found["info"].strip(), at
        else:
            yield line
    if mark:
        yield _fence(info, lines[start + 1 :], first + start)


def _closes(mark: str, opened: str) -> bool:
    return mark[0] == opened[0] and len(mark) >= len(opened)


def _fence(info: str, body: list[str], line: int) -> Fence:
    found = _DIRECTIVE.fullmatch(info)
    if not found:
        return Fence("", info, "", "\n".join(body), line, line + 1)
    if body and body[0].rstrip() == "---":
        ends = [at for at, text in enumerate(body[1:], 1) if text.rstrip() == "---"]
        cut = ends[0] if ends else 0
        options, cut = body[1:cut], cut + 1
    else:
        cut = next((i for i, t in enumerate(body) if not t.startswith(":")), len(body))
        options = [text[1:] for text in body[:cut]]
    rest, start = "\n".join(body[cut:]), line + 1 + cut
    name, argument = found["name"], found["argument"]
    return Fence(name, argument, "\n".join(options), rest, line, start)


def _with_nested(fence: Fence) -> Iterator[Fence]:
    """A block, and the directives inside it; what is inside code is code."""
    yield fence
    if fence.name and fence.name not in ("code-cell", "math", "code-block"):
        for item in _items(fence.body.splitlines(), fence.start):
            if isinstance(item, Fence) and item.name != "code-cell":
                yield from _with_nested(item)


# ------------------------------------------------------------ reading Python


@dataclass(frozen=True, slots=True)
class Cell:
    """A code cell: where it stands, what it says, and the block it is."""

    line: int
    tree: ast.Module
    fence: Fence


def cells(fences: Iterable[Fence]) -> tuple[list[Cell], list[str]]:
    """The code cells among some blocks, parsed; and which of them are not Python."""
    good, bad = [], []
    for fence in fences:
        if fence.name == "code-cell":
            source = re.sub(r"(?m)^[%!].*$", "", fence.body)  # what IPython understands
            try:
                good.append(Cell(fence.line, ast.parse(source), fence))
            except SyntaxError as error:
                bad.append(f"line {fence.line}: the cell is not Python: {error.msg}")
    return good, bad


def calls(tree: ast.AST, name: str) -> Iterator[ast.Call]:
    """The calls of a function by its bare name, or as an attribute of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] == name:
            yield node


def text_argument(call: ast.Call) -> str | None:
    """The first argument where it is a text that stands there literally."""
    return _literal(call.args[0]) if call.args else None


def text_keyword(call: ast.Call, name: str) -> str | None:
    """A keyword argument where it is a text that stands there literally."""
    values = [_literal(k.value) for k in call.keywords if k.arg == name]
    return values[0] if values else None


def _literal(node: ast.expr) -> str | None:
    literal = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return str(ast.literal_eval(node)) if literal else None


def equations(source: str) -> list[str]:
    """The labels that comments `# eq LABEL` (or `# eq LABEL, LABEL`) name."""
    named = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.string.startswith("# eq "):
            named += [label.strip() for label in token.string[5:].split(",")]
    return named


def habits(tree: ast.AST) -> list[str]:
    """What no code of the book may use: hidden randomness, and `inv`."""
    used: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            used.append((node.lineno, dotted(node)))
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {"numpy.random": "numpy.random.*"}  # the module, whatever is called
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            used += [(node.lineno, whole.get(name, name)) for name in names]
        elif isinstance(node, ast.Import):
            used += [(node.lineno, f"{a.name}.*") for a in node.names]
    return [f"line {line}: {name}: {why}" for line, name in used if (why := _bad(name))]


def _bad(name: str) -> str:
    if name.endswith("linalg.inv"):
        return "factorise and solve instead"
    found = re.fullmatch(r"(?:(?:np|numpy)\.)?random\.([\w*]+)", name)
    return "take an rng instead" if found and found[1] not in _GENERATORS else ""


def dotted(node: ast.AST) -> str:
    """`a.b.c` as text; "" for what is no chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        head = dotted(node.value)
        return f"{head}.{node.attr}" if head else f"?.{node.attr}"
    return ""
