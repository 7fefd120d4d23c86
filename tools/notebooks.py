"""Convert the book's pages into notebooks that show no raw directive or role.

    python tools/notebooks.py --for {download,lite,installed} FOLDER

JupyterLab, JupyterLite and Colab do not know MyST.  Here folds become <details>,
boxes become alerts, included code is inserted, and references become words and links.
Code cells stay as they are.  This needs nbformat, PyYAML and the standard library only,
so that it also runs where the book cannot be built.
"""

from __future__ import annotations

import argparse
import ast
import posixpath
import re
import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import v4

import fingerprint

ROOT = fingerprint.ROOT
KERNELS = {  # the name under which an interface knows Python
    "download": "python3",
    "installed": "python3",
    "lite": "python",
}
INSTALL_HERE = """\
# The book's package: from the folder that came with this notebook, or from the site.
import importlib.util
import sys
from pathlib import Path

found = [up / "code" for up in Path.cwd().parents if (up / "code" / "mlfs").is_dir()]
if found:
    sys.path.insert(0, str(found[0]))
elif importlib.util.find_spec("mlfs") is None:
    %pip install -q {wheel}"""
INSTALL_LITE = """\
%pip install -q mlfs
import logging
logging.getLogger("matplotlib.font_manager").setLevel("ERROR")  # no red lines"""

_FENCE = re.compile(r"(?P<indent> *)(?P<mark>`{3,}|~{3,}|:{3,})(?P<info>.*)")
_DIRECTIVE = re.compile(r"\{([\w:-]+)\}\s*(.*)")
# In one pass, so that nothing within a code span is taken for a role or a link.
_INLINE = re.compile(
    r"\{(?P<role>[a-zA-Z][\w:.-]*)\}(?P<tick>`+)(?P<content>.+?)(?<!`)(?P=tick)(?!`)"
    r"|(?P<code>(?<!`)(?P<ticks>`+)(?!`)(?:[^\n]|\n(?!\s*\n))+?(?<!`)(?P=ticks)(?!`))"
    r"|\$\$(?P<display>.*?)\$\$(?: *\((?P<label>[\w:.-]+)\))?"
    r"|(?<!!)\[(?P<text>[^\]\[]*)\]\((?P<target>[^()\s]+)\)",
    re.DOTALL,
)
_EXPLICIT = re.compile(r"(.*?)\s*<([^<>]+)>", re.DOTALL)
_TARGET = re.compile(r"\(([\w:.-]+)\)=\s*")
_HEADING = re.compile(r"(#+)\s+(.*?)\s*")
_DISPLAY = re.compile(r"\$\$(.*?)\$\$(?: *\(([\w:.-]+)\))?", re.DOTALL)
_OPTION = re.compile(r":([\w-]+):\s*(.*)")

ALERTS = {
    **dict.fromkeys(("warning", "attention", "caution"), "warning"),
    **dict.fromkeys(("danger", "error"), "danger"),
    **dict.fromkeys(("tip", "hint"), "success"),
}
CUTS = ("start-at", "start-after", "end-at", "end-before")  # of literalinclude
CODE = ("code", "code-block", "literalinclude", "parsed-literal")
# What the site makes by itself, or what is not Markdown: it has no place in a notebook.
ELSEWHERE = (
    *("bibliography", "chapter-map", "claims-table", "eval-rst", "figure", "image"),
    *("include", "list-table", "prerequisites", "raw", "sessions", "toctree"),
)
NUMBER_OF = {"math": "equation", "figure": "figure"}


# What there is ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """Where a label leads: the page, what is written there, and its number."""

    page: str
    title: str
    number: int = 0


@dataclass(slots=True)
class Book:
    """All that a reference on one page may lead to on another."""

    root: Path
    site: str  # address of the published book, with a slash at its end
    pages: tuple[str, ...]
    notebooks: frozenset[str]
    titles: dict[str, str] = field(default_factory=dict)
    labels: dict[str, Place] = field(default_factory=dict)
    equations: dict[str, Place] = field(default_factory=dict)
    figures: dict[str, Place] = field(default_factory=dict)
    captions: dict[tuple[str, int], int] = field(default_factory=dict)  # cell -> number
    works: dict[str, tuple[str, str]] = field(default_factory=dict)  # authors, year

    @property
    def wheel(self) -> str:
        """Address of the package's wheel on the site."""
        import bundle

        return f"{self.site}_static/wheels/{bundle.wheel_name(self.root)}"


def toc_pages(root: Path) -> tuple[str, ...]:
    """Every page of _toc.yml, in the order of the book."""

    def walk(node: Any) -> Iterator[str]:
        if isinstance(node, list):
            for item in node:
                yield from walk(item)
        elif isinstance(node, dict):
            name = node.get("root") or node.get("file")
            if name:
                yield name if name.endswith(".md") else f"{name}.md"
            for value in node.values():
                yield from walk(value)

    listed = walk(yaml.safe_load((root / "_toc.yml").read_text("utf8")))
    return tuple(name for name in listed if (root / name).is_file())


def site_address(root: Path) -> str:
    """Where GitHub publishes the pages of the repository that _config.yml names.

    Raises:
        ValueError: the repository is not one on GitHub.
    """
    config = yaml.safe_load((root / "_config.yml").read_text("utf8"))
    url = config["repository"]["url"]
    found = re.fullmatch(r"https://github\.com/([\w.-]+)/([\w.-]+?)/?", url)
    if not found:
        raise ValueError(f"_config.yml: repository.url is {url}, want one on GitHub")
    return f"https://{found[1].lower()}.github.io/{found[2]}/"


def read_book(root: Path = ROOT) -> Book:
    """Titles, labels, numbers and citations of the whole book."""
    pages = toc_pages(root)
    texts = {page: (root / page).read_text("utf8") for page in pages}
    cells = frozenset(page for page in pages if fingerprint.code_cells(texts[page]))
    book = Book(root, site_address(root), pages, cells)
    for page in pages:
        _note_page(book, page, page_lines(texts[page]))
    for path in sorted(root.glob("book/*.bib")):
        book.works.update(works(path.read_text("utf8")))
    return book


def page_lines(text: str) -> list[str]:
    """The lines of a page below its front matter, without comments."""
    lines = text.splitlines()
    if lines and lines[0].rstrip() == "---":
        end = next(n for n, line in enumerate(lines[1:], 1) if line.rstrip() == "---")
        lines = lines[end + 1 :]
    return lines


def _note_page(book: Book, page: str, lines: list[str]) -> None:
    """Enter what the page defines."""
    waiting: list[str] = []
    cell = 0
    for block in blocks(lines):
        if isinstance(block, Fence):
            if block.name == "code-cell":
                cell += 1
                _note_figure(book, page, cell, block)
            elif block.name == "math" and block.options.get("label"):
                _note_equation(book, page, block.options["label"])
            elif block.name:
                _note_page(book, page, block.body)
            continue
        for label in _DISPLAY.findall("\n".join(block)):
            if label[1]:
                _note_equation(book, page, label[1])
        for line in block:
            if found := _TARGET.fullmatch(line):
                waiting.append(found[1])
            elif found := _HEADING.fullmatch(line):
                book.titles.setdefault(page, found[2])
                book.labels |= dict.fromkeys(waiting, Place(page, found[2]))
                waiting = []


def _note_equation(book: Book, page: str, label: str) -> None:
    book.equations[label] = Place(page, label, len(book.equations) + 1)


def _note_figure(book: Book, page: str, cell: int, block: Fence) -> None:
    figure = block.options.get("mystnb", {}).get("figure", {})
    if figure.get("caption"):
        number = len(book.captions) + 1
        book.captions[page, cell] = number
        place = Place(page, figure["caption"], number)
        book.figures[figure.get("name", f"{page} {cell}")] = place


def works(text: str) -> dict[str, tuple[str, str]]:
    """Authors as a text cites them, and the year, of every entry of a .bib file."""
    found = {}
    for entry in re.split(r"^@", text, flags=re.MULTILINE)[1:]:
        key = re.match(r"\w+\{([^,\s]+),", entry)
        if key:
            names = _field(entry, "author") or _field(entry, "editor") or key[1]
            found[key[1]] = cited(names), _field(entry, "year")
    return found


def _field(entry: str, name: str) -> str:
    """The value of a field, whose braces may nest."""
    found = re.search(rf"\b{name}\s*=\s*\{{", entry)
    if not found:
        return ""
    depth, start = 1, found.end()
    for end in range(start, len(entry)):
        depth += {"{": 1, "}": -1}.get(entry[end], 0)
        if depth == 0:
            return entry[start:end]
    return entry[start:]


def cited(names: str) -> str:
    """`Rabiner`, `Zucchini and MacDonald`, `Roy et al.`, from names in BibTeX."""
    last = []
    for name in re.split(r"\s+and\s+", names):
        whole = name.startswith("{")
        short = name if whole or "," in name else name.split()[-1]
        last.append(plain(short if whole else short.split(",")[0]))
    if len(last) > 2:
        return f"{last[0]} et al."
    return " and ".join(last)


def plain(tex: str) -> str:
    """A name without TeX: its accents as letters, its braces gone."""
    marks = {'"': "\u0308", "'": "\u0301", "`": "\u0300", "^": "\u0302", "~": "\u0303"}
    marks |= {"c": "\u0327", "v": "\u030c"}

    def accent(found: re.Match[str]) -> str:
        return unicodedata.normalize("NFC", found[2] + marks[found[1]])

    tex = re.sub(r"\\([\"'`^~]|[cv](?=\{))\s*\{?(\w)\}?", accent, tex)
    for name, letter in {r"\o": "ø", r"\ss": "ß", r"\aa": "å", r"\l": "ł"}.items():
        tex = re.sub(re.escape(name) + r"\b", letter, tex)
    return re.sub(r"[{}]", "", tex).strip()


# Blocks -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fence:
    """A fenced block: a directive with a name, or code without one."""

    indent: str
    info: str
    name: str  # of the directive; empty for code
    argument: str
    options: dict[str, Any]
    body: list[str]


def _fence(indent: str, info: str, body: list[str]) -> Fence:
    body = [line.removeprefix(indent) for line in body]
    found = _DIRECTIVE.fullmatch(info)
    if not found:
        return Fence(indent, info, "", "", {}, body)
    options, rest = _options(body)
    return Fence(indent, info, found[1], found[2].strip(), options, rest)


def _options(body: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The options at the head of a directive, and its body below them."""
    if body and body[0].rstrip() == "---":
        end = next(n for n, line in enumerate(body[1:], 1) if line.rstrip() == "---")
        return yaml.safe_load("\n".join(body[1:end])) or {}, body[end + 1 :]
    head = 0
    while head < len(body) and body[head].startswith(":"):
        head += 1
    try:
        options = yaml.safe_load("\n".join(line[1:] for line in body[:head]))
    except yaml.YAMLError:  # a colon in a caption
        found = map(_OPTION.fullmatch, body[:head])
        options = {pair[1]: pair[2] for pair in found if pair}
    return options or {}, body[head:]


def blocks(lines: Sequence[str]) -> Iterator[list[str] | Fence]:
    """Runs of text, and the fenced blocks between them."""
    text: list[str] = []
    at = 0
    while at < len(lines):
        found = _FENCE.fullmatch(lines[at])
        opens = found and not (found["mark"][0] == "`" and "`" in found["info"])
        if not found or not opens or (found["mark"][0] == ":" and not found["info"]):
            text.append(lines[at])
            at += 1
            continue
        end = at + 1
        while end < len(lines) and not _closes(lines[end], found["mark"]):
            end += 1
        if text:
            yield text
        text = []
        yield _fence(found["indent"], found["info"].strip(), list(lines[at + 1 : end]))
        at = end + 1
    if text:
        yield text


def _closes(line: str, mark: str) -> bool:
    line = line.strip()
    return len(line) >= len(mark) and set(line) == {mark[0]}


# A page -----------------------------------------------------------------------------


class Page:
    """One page on its way to Markdown that every notebook interface shows."""

    def __init__(self, book: Book, name: str) -> None:
        self.book = book
        self.name = name
        self.folder = posixpath.dirname(name)

    @property
    def address(self) -> str:
        """Where the page stands on the site."""
        return self.on_site(self.name)

    def on_site(self, page: str, anchor: str = "") -> str:
        """The address of any page on the site."""
        end = f"#{anchor}" if anchor else ""
        return f"{self.book.site}{page.removesuffix('.md')}.html{end}"

    def link(self, page: str, heading: str = "") -> str:
        """To another page: its notebook where it has one, else the site."""
        anchor = re.sub(r"\s+", "-", heading)
        if page == self.name:
            return f"#{anchor}"
        if page not in self.book.notebooks:
            return self.on_site(page)
        path = posixpath.relpath(page, self.folder).removesuffix(".md")
        return f"{path}.ipynb#{anchor}" if anchor else f"{path}.ipynb"

    def resolve(self, target: str) -> str:
        """The page that a path on this page means."""
        target = target.removesuffix(".md") + ".md"
        if target.startswith("/"):
            return target[1:]
        return posixpath.normpath(posixpath.join(self.folder, target))

    # Text

    def markdown(self, lines: Sequence[str]) -> str:
        """Lines of a page, or of the body of a directive."""
        done = "\n".join(map(self.block, blocks(lines)))
        return re.sub(r"\n{3,}", "\n\n", done).strip("\n")

    def block(self, block: list[str] | Fence) -> str:
        """Text, or a fenced block at its place in the text."""
        if isinstance(block, Fence):
            return textwrap.indent(self.fence(block), block.indent)
        return self.text(block)

    def text(self, lines: Sequence[str]) -> str:
        """Lines without fences."""
        kept = [line for line in lines if not _dropped(line)]
        return _INLINE.sub(self.inline, "\n".join(kept))

    def inline(self, found: re.Match[str]) -> str:
        """A role, a code span, an equation between dollars, or a link."""
        if found["role"]:
            return self.role(found["role"], found["content"].strip())
        if found["code"]:
            return found[0]
        if found["display"] is not None:
            return self.equation(found["display"], found["label"])
        return self.relink(found[0], found["text"], found["target"])

    def equation(self, tex: str, label: str | None) -> str:
        """An equation with its number on the site."""
        lines = [line for line in tex.strip().splitlines() if line.strip()]
        tex = "\n".join(lines)
        if r"\\" in tex and r"\begin{align" not in tex:
            tex = f"\\begin{{split}}\n{tex}\n\\end{{split}}"  # as Sphinx does
        if label:
            tex += f"\n\\tag{{{self.book.equations[label].number}}}"
        return f"$$\n{tex}\n$$"

    def relink(self, whole: str, text: str, target: str) -> str:
        """A Markdown link; one to a page of the book leads to its notebook."""
        path, _, label = target.partition("#")
        if re.match(r"[a-z]+:", target):
            return whole
        if not path:
            place = self.book.labels.get(label)
            return f"[{text or (place and place.title)}]({self.at(place) or target})"
        if not path.endswith(".md"):
            return whole if path.endswith(".ipynb") else self.static(text, target)
        page = self.resolve(path)
        place = self.book.labels.get(label)
        address = self.at(place) if place else self.link(page)
        return f"[{text or self.book.titles.get(page, page)}]({address})"

    def static(self, text: str, target: str) -> str:
        """A link to a file that lies beside the pages on the site."""
        path = posixpath.normpath(posixpath.join(self.folder, target))
        return f"[{text}]({self.book.site}{path})"

    def at(self, place: Place | None) -> str:
        """The address of a labelled heading."""
        return self.link(place.page, place.title) if place else ""

    # Roles

    def role(self, name: str, content: str) -> str:
        """A role, as words or as a link."""
        explicit = _EXPLICIT.fullmatch(content)
        text, target = explicit.groups() if explicit else ("", content)
        if name.startswith("cite"):
            return self.cite(name, content)
        make: Callable[[str, str], str] | None = {
            "eq": self.eq,
            "numref": self.numref,
            "ref": self.ref,
            "doc": self.doc,
            "term": self.term,
            "abbr": lambda text, target: f"{text} ({target})" if text else target,
            "math": lambda text, target: f"${content}$",
        }.get(name.removeprefix("math:").removeprefix("std:"))
        if make:
            return make(text, target)
        if name.removeprefix("py:") in ("attr", "class", "func", "meth", "mod", "obj"):
            short = target.lstrip("~").split(".")[-1]
            shown = text or (short if target.startswith("~") else target)
            address = self.on_site("book/api.md", target.lstrip("~"))
            return f"[`{shown}`]({address})"
        return text or target  # a role of some extension: its words remain

    def eq(self, text: str, target: str) -> str:
        """The number of an equation; a link if it stands on another page."""
        place = self.book.equations.get(target)
        if place is None:
            raise ValueError(f"{self.name}: no equation is labelled {target!r}")
        shown = text or f"({place.number})"
        return shown if place.page == self.name else self._to(shown, place)

    def numref(self, text: str, target: str) -> str:
        """The number of a figure."""
        place = self.book.figures.get(target)
        if place is None:
            return self.ref(text, target)
        shown = text.replace("%s", str(place.number)) or f"Fig. {place.number}"
        return shown if place.page == self.name else self._to(shown, place)

    def ref(self, text: str, target: str) -> str:
        """The heading with a label."""
        place = self.book.labels.get(target) or self.book.figures.get(target)
        if place is None:
            raise ValueError(f"{self.name}: no heading is labelled {target!r}")
        return f"[{text or place.title}]({self.at(place)})"

    def doc(self, text: str, target: str) -> str:
        """A page of the book."""
        page = self.resolve(target)
        return f"[{text or self.book.titles.get(page, page)}]({self.link(page)})"

    def term(self, text: str, target: str) -> str:
        """A word of the glossary."""
        anchor = "term-" + re.sub(r"[^\w.]+", "-", target).strip("-")
        return f"[{text or target}]({self.on_site('book/glossary.md', anchor)})"

    def cite(self, name: str, keys: str) -> str:
        """Authors and year, of each of the works."""
        form = "{} ({})" if name.endswith(":t") else "{}, {}"
        shown = []
        for key in re.split(r"\s*,\s*", keys):
            if key not in self.book.works:
                raise ValueError(f"{self.name}: {key!r} is in no .bib file")
            shown.append(form.format(*self.book.works[key]))
        if name.endswith(":t"):
            return " and ".join(shown)
        return f"({'; '.join(shown)})"

    def _to(self, shown: str, place: Place) -> str:
        return f"[{shown}]({self.link(place.page)})"

    # Directives

    def fence(self, block: Fence) -> str:
        """A fenced block: code stays, a directive becomes Markdown."""
        if not block.name:
            body = "\n".join(block.body)
            mark = "`" * max(3, 1 + _longest_run(body))
            return f"{mark}{block.info}\n{body}\n{mark}"
        if block.name == "math":
            body = "\n".join([block.argument, *block.body])
            return self.equation(body, block.options.get("label"))
        if block.name in CODE:
            return self.code(block)
        if block.name in ELSEWHERE or not "".join([block.argument, *block.body]):
            return f"*(What stands here is on [the page of the book]({self.address}).)*"
        return self.box(block)

    def code(self, block: Fence) -> str:
        """Code that is shown: written here, or a part of a file."""
        language, lines = block.options.get("language", block.argument), block.body
        if block.name == "literalinclude":
            language = block.options.get("language", "python")
            lines = self.included(block).splitlines()
        code = textwrap.dedent("\n".join(lines)).strip("\n")
        shown = f"```{language}\n{code}\n```"
        caption = block.options.get("caption")
        return f"**{self.text([caption])}**\n\n{shown}" if caption else shown

    def included(self, block: Fence) -> str:
        """The part of a file that a literalinclude shows.

        Raises:
            ValueError: it selects by an option that is not known here.
        """
        plain = {"language", "caption", "name", "class", "dedent", "linenos"}
        unknown = set(block.options) - plain - {"pyobject", "lines", *CUTS}
        if unknown:
            raise ValueError(f"{self.name}: literalinclude with {sorted(unknown)}")
        path = self.book.root / self.folder / block.argument
        text = path.read_text("utf8")
        if "pyobject" in block.options:
            return python_object(text, block.options["pyobject"], path.name)
        if "lines" in block.options:
            lines = text.splitlines()
            return "\n".join(lines[n - 1] for n in ranges(block.options["lines"]))
        return cut(text, block.options, path.name)

    def box(self, block: Fence) -> str:
        """A box with a title, or a fold where the page folds it."""
        classes = str(block.options.get("class", "")).split()
        title = block.argument
        if block.name not in ("admonition", "dropdown", "tab-item", "card"):
            kind = block.name.split(":")[-1].replace("-", " ").capitalize()
            title = f"{kind}: {title}" if title else kind
        title = self.text([title])
        body = self.markdown(block.body)
        if "dropdown" in classes or block.name in ("dropdown", "toggle"):
            return f"<details>\n<summary>{title}</summary>\n\n{body}\n\n</details>\n"
        kinds = [ALERTS[key] for key in (block.name, *classes) if key in ALERTS]
        style = (kinds or ["info"])[0]
        return f'<div class="alert alert-{style}">\n\n**{title}**\n\n{body}\n\n</div>\n'


def _dropped(line: str) -> bool:
    """Whether a line is MyST's own: a target, a comment, a break between cells."""
    return bool(_TARGET.fullmatch(line)) or line.startswith(("% ", "+++"))


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall(r"`{3,}", text)), default=2)


def ranges(text: str) -> list[int]:
    """The line numbers that `1-3,7` names."""
    numbers: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def cut(text: str, options: dict[str, Any], where: str) -> str:
    """The lines between those that hold the given texts.

    Raises:
        ValueError: no line holds one of them.
    """
    lines = text.splitlines()
    for option in CUTS:
        if option not in options:
            continue
        at = [n for n, line in enumerate(lines) if options[option] in line]
        if not at:
            raise ValueError(f"{where} has no line with {options[option]!r}")
        if option.startswith("start"):
            lines = lines[at[0] + (option == "start-after") :]
        else:
            lines = lines[: at[0] + (option == "end-at")]
    return "\n".join(lines)


_parse = cache(ast.parse)


def python_object(source: str, name: str, where: str) -> str:
    """The source of a function, a class, or a method by its dotted name.

    Raises:
        ValueError: there is no such object.
    """
    body: Sequence[ast.stmt] = _parse(source).body
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for part in name.split("."):
        found = [n for n in body if isinstance(n, kinds) and n.name == part]
        if not found:
            raise ValueError(f"{where} has no {name}")
        node = found[-1]
        body = node.body
    first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
    return "\n".join(source.splitlines()[first - 1 : node.end_lineno])


# Notebooks --------------------------------------------------------------------------


def cells_of(page: Page) -> Iterator[Any]:
    """The cells of a page: text, code, and captions beneath the figures."""
    lines = page_lines((page.book.root / page.name).read_text("utf8"))
    text: list[str] = []
    number = 0
    for block in blocks(lines):
        if not isinstance(block, Fence) or block.name != "code-cell":
            text.append(page.block(block))
            continue
        yield from _text_cells("\n".join(text))
        text = []
        number += 1
        yield _code_cell(block)
        if (page.name, number) in page.book.captions:
            caption = page.text([block.options["mystnb"]["figure"]["caption"]])
            label = f"Fig. {page.book.captions[page.name, number]}"
            yield v4.new_markdown_cell(f"*{label}.* {caption}")
    yield from _text_cells("\n".join(text))


def _text_cells(text: str) -> Iterator[Any]:
    """Markdown cells, a new one at every heading."""
    part: list[str] = []
    fence = ""
    for line in text.splitlines():
        found = _FENCE.fullmatch(line)
        if fence:
            fence = "" if _closes(line, fence) else fence
        elif found:
            fence = found["mark"]
        elif _HEADING.fullmatch(line):
            yield from _markdown("\n".join(part))
            part = []
        part.append(line)
    yield from _markdown("\n".join(part))


def _markdown(text: str) -> Iterator[Any]:
    text = re.sub(r"\n{3,}", "\n\n", text).strip()
    if text:
        yield v4.new_markdown_cell(text)


def _code_cell(block: Fence) -> Any:
    metadata: dict[str, Any] = {}
    tags = block.options.get("tags", [])
    if tags:
        metadata["tags"] = list(tags)
    if {"hide-input", "hide-cell", "remove-input", "remove-cell"} & set(tags):
        metadata["jupyter"] = {"source_hidden": True}
    return v4.new_code_cell("\n".join(block.body).rstrip("\n"), metadata=metadata)


def notebook(book: Book, name: str, target: str, executed: Any = None) -> Any:
    """The page as a notebook for one target, with the outputs of `executed` if given.

    Raises:
        ValueError: `executed` has other cells than the page, or a reference is dead.
    """
    page = Page(book, name)
    cells = list(cells_of(page))
    if executed is not None:
        _merge(name, cells, executed)
    source = f"*This notebook is [a page of the book]({page.address}).*"
    if cells and cells[0].cell_type == "markdown":
        cells[0].source = re.sub(r"\A(# .*)", rf"\1\n\n{source}", cells[0].source)
    if target != "installed":
        first = 1 if cells and cells[0].cell_type == "markdown" else 0
        code = INSTALL_LITE
        if target == "download":
            code = INSTALL_HERE.format(wheel=book.wheel)
        cells.insert(first, v4.new_code_cell(code))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number:03d}"
    spec = {"display_name": "Python 3", "language": "python", "name": KERNELS[target]}
    metadata = {"kernelspec": spec, "language_info": {"name": "python"}}
    made = v4.new_notebook(cells=cells, metadata=metadata)
    nbformat.validate(made)
    return made


def _merge(name: str, cells: list[Any], executed: Any) -> None:
    """Put the outputs of an executed notebook under our cells."""
    ours = [cell for cell in cells if cell.cell_type == "code"]
    theirs = [cell for cell in executed.cells if cell.cell_type == "code"]
    sources = [cell.source.strip() for cell in theirs]
    if [cell.source.strip() for cell in ours] != sources:
        raise ValueError(f"{name}: the executed notebook has other cells")
    for number, (mine, run) in enumerate(zip(ours, theirs, strict=True), 1):
        mine.outputs = run.outputs
        mine.execution_count = number
        for output in mine.outputs:
            if "execution_count" in output:
                output.execution_count = number


def text_of(made: Any) -> str:
    """The notebook as a file holds it."""
    return str(nbformat.writes(made)) + "\n"


def write(book: Book, target: str, folder: Path) -> list[Path]:
    """Write every page that has code as a notebook, without outputs."""
    written = []
    for name in book.pages:
        if name in book.notebooks:
            path = folder / Path(name).with_suffix(".ipynb")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text_of(notebook(book, name, target)), "utf8")
            written.append(path)
    return written


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--for", dest="target", choices=sorted(KERNELS), default="installed"
    )
    options = parser.parse_args()
    try:
        written = write(read_book(), options.target, options.folder)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(written)} notebooks in {options.folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
