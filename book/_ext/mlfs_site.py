"""The book's own Sphinx extension.

- Outputs are reused only while they are fresh, also under plain `jupyter-book build .`.
- Directives: chapter-map, prerequisites, claims-table, sessions.
- The reference links each function to the equations its lines implement.
- The site asks no other host for anything: MathJax is local, Thebe is left out.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from docutils.statemachine import StringList
from sphinx import addnodes
from sphinx.application import ENV_PICKLE_FILENAME, Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import SphinxError
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from mlfs.book.chapters import Chapter

ROOT = Path(__file__).resolve().parents[2]
for _folder in ("tools", "code"):
    if str(ROOT / _folder) not in sys.path:
        sys.path.insert(0, str(ROOT / _folder))

import execute_book  # noqa: E402  (found through the lines above)

LOG = logging.getLogger(__name__)
CLAIMS = Path("_build", "claims")
SESSIONS = Path("book", "seminar", "sessions.yml")
EQUATIONS = re.compile(r"# eq ([\w-]+(?:, *[\w-]+)*)")
MATHJAX = "tex-mml-chtml.js"
MATHJAX_FROM = "sphinx-mathjax-offline"

Cell = Sequence[nodes.Node]


class BookError(SphinxError):
    """The book cannot be built from what is there."""

    category = "The book cannot be built"


# Freshness ------------------------------------------------------------------------


class Freshness:
    """Executes the pages that are out of date and has them read again.

    The environment, which Sphinx keeps between builds, holds for every page the state
    under which it was read (`mlfs_read`) and the directives on it (`mlfs_kinds`).
    """

    def __init__(self) -> None:
        self.review = execute_book.Review({}, frozenset(), {})

    def begin(self, app: Sphinx) -> None:
        """Bring the outputs of every page up to date before any is read.

        Raises:
            BookError: a page failed; its cell and its error are printed.
        """
        self.review, failed = execute_book.run_book(ROOT, os.cpu_count() or 1)
        if failed:
            pages = "one page" if failed == 1 else f"{failed} pages"
            raise BookError(f"{pages} could not be executed; the reason stands above")
        for name, empty in (("read", {}), ("kinds", {}), ("claims", "")):
            if not hasattr(app.env, f"mlfs_{name}"):
                setattr(app.env, f"mlfs_{name}", empty)

    def state(self, env: Any, docname: str) -> str:
        """All that a page was made from and Sphinx does not watch itself."""
        from mlfs.book.chapters import CHAPTERS

        kinds = env.mlfs_kinds.get(docname, set())
        parts = [self.review.prints.get(_page(env, docname), "")]
        if kinds & {"chapter-map", "chapter-graph", "prerequisites", "claims-table"}:
            parts += [f"{chapter} {chapter.stands}" for chapter in CHAPTERS]
        if "sessions" in kinds:
            parts.append(_sessions().current_day().isoformat())
        return " ".join(parts)

    def outdated(self, app: Sphinx, env: Any, *_: set[str]) -> list[str]:
        """Pages to read again though their text is as it was."""
        return [
            docname
            for docname in env.all_docs
            if docname in env.found_docs
            and (
                _page(env, docname) in self.review.stale
                or env.mlfs_read.get(docname) != self.state(env, docname)
            )
        ]

    def read(self, app: Sphinx, doctree: nodes.document) -> None:
        """Note under which state a page was read."""
        env: Any = app.env
        env.mlfs_read[env.docname] = self.state(env, env.docname)

    def purge(self, app: Sphinx, env: Any, docname: str) -> None:
        """Forget a page that is about to be read again, or is gone."""
        env.mlfs_read.pop(docname, None)
        env.mlfs_kinds.pop(docname, None)

    def merge(self, app: Sphinx, env: Any, docnames: Iterable[str], other: Any) -> None:
        """Take over what a parallel reader noted."""
        for name in docnames:
            env.mlfs_read[name] = other.mlfs_read[name]
            if name in other.mlfs_kinds:
                env.mlfs_kinds[name] = other.mlfs_kinds[name]

    def claims_changed(self, app: Sphinx, env: Any) -> list[str]:
        """Pages with the table of claims, when a claim changed since they were made."""
        digest = hashlib.sha256()
        for path in sorted((ROOT / CLAIMS).glob("*.json")):
            digest.update(path.name.encode() + path.read_bytes())
        if env.mlfs_claims == digest.hexdigest():
            return []
        env.mlfs_claims = digest.hexdigest()
        return [
            name for name, kinds in env.mlfs_kinds.items() if "claims-table" in kinds
        ]


def _page(env: BuildEnvironment, docname: str) -> str:
    return Path(env.doc2path(docname)).relative_to(ROOT).as_posix()


def forget_warnings(app: Sphinx, exception: Exception | None) -> None:
    """Have the next build read everything again when this one warned.

    Sphinx would take the pages for up to date, stay silent, and pass.
    """
    if app._warncount:
        Path(app.doctreedir, ENV_PICKLE_FILENAME).unlink(missing_ok=True)


# Tables ---------------------------------------------------------------------------


def _text(text: str) -> Cell:
    return [nodes.Text(text)]


def _entry(cell: Cell, **attributes: Any) -> nodes.entry:
    return nodes.entry("", nodes.paragraph("", "", *cell), **attributes)


def _table(header: Sequence[str], rows: Iterable[nodes.row]) -> nodes.table:
    """A table without fixed column widths."""
    head = nodes.row("", *(_entry(_text(title)) for title in header))
    group = nodes.tgroup("", cols=len(header))
    group += [nodes.colspec(colwidth=1) for _ in header]
    group += [nodes.thead("", head), nodes.tbody("", *rows)]
    return nodes.table("", group, classes=["colwidths-auto"])


def _row(*cells: Cell) -> nodes.row:
    return nodes.row("", *map(_entry, cells))


def _join(cells: Sequence[Cell], between: str) -> Cell:
    joined: list[nodes.Node] = []
    for cell in cells:
        joined += [nodes.Text(between), *cell] if joined else cell
    return joined


def _link(docname: str, target: str, text: str) -> Cell:
    """A reference to a page of the book, which Sphinx checks."""
    shown = nodes.inline(text, text)
    return [
        addnodes.pending_xref(
            "",
            shown,
            refdomain="std",
            reftype="doc",
            reftarget=f"/book/{target}",
            refexplicit=True,
            refwarn=True,
            refdoc=docname,
        )
    ]


def _equation(docname: str, label: str) -> Cell:
    """A reference to an equation by its label, which Sphinx checks."""
    number = addnodes.pending_xref(
        "",
        nodes.literal(label, label),
        refdomain="math",
        reftype="eq",
        reftarget=label,
        refexplicit=False,
        refwarn=True,
        refdoc=docname,
    )
    return [nodes.literal(label, label), nodes.Text(" "), number]


# Chapters -------------------------------------------------------------------------


class BookDirective(SphinxDirective):
    """A directive whose result depends on more than the page it stands on."""

    def note(self) -> None:
        """Have the page read again when what it shows has changed."""
        env: Any = self.env
        env.mlfs_kinds.setdefault(self.env.docname, set()).add(self.name)

    def title(self, chapter: Chapter) -> Cell:
        """The chapter's title, linked where the chapter stands."""
        if not chapter.stands:
            return _text(chapter.title)
        return _link(self.env.docname, f"{chapter.slug}/theory", chapter.title)

    def needs(self, chapter: Chapter) -> Cell:
        """The chapters that one builds on, linked where they stand."""
        from mlfs.book.chapters import by_module

        needed = dict.fromkeys(by_module(name) for name in chapter.builds_on)
        return _join([self.title(each) for each in needed], ", ")


class ChapterMap(BookDirective):
    """All chapters by part: their evenings, what they build on, whether they stand."""

    HEADER: ClassVar[Sequence[str]] = ("Chapter", "Evenings", "Builds on", "State")

    def run(self) -> list[nodes.Node]:
        """The table."""
        from mlfs.book.chapters import CHAPTERS, PARTS

        self.note()
        rows = []
        for part in PARTS:
            name = [nodes.strong(part, part)]
            wide = _entry(name, morecols=len(self.HEADER) - 1, classes=["part"])
            rows.append(nodes.row("", wide))
            rows += [self.row(chapter) for chapter in CHAPTERS if chapter.part == part]
        return [_table(self.HEADER, rows)]

    def row(self, chapter: Chapter) -> nodes.row:
        """One chapter."""
        evenings: Cell = _text("")
        if chapter.stands:
            pages = ("theory", "coding")
            links = [
                _link(self.env.docname, f"{chapter.slug}/{page}", page)
                for page in pages
            ]
            evenings = _join(links, ", ")
        state = "stands" if chapter.stands else "planned"
        return _row(self.title(chapter), evenings, self.needs(chapter), _text(state))


class Prerequisites(BookDirective):
    """What builds on what, as a list."""

    def run(self) -> list[nodes.Node]:
        """The list: first what needs no other chapter, then what does."""
        from mlfs.book.chapters import CHAPTERS

        self.note()
        free = [self.title(each) for each in CHAPTERS if not each.builds_on]
        items = [self.item(_text("Needs no other chapter"), _join(free, ", "))]
        items += [
            self.item([*self.title(each), *_text(" after")], self.needs(each))
            for each in CHAPTERS
            if each.builds_on
        ]
        return [nodes.bullet_list("", *items)]

    def item(self, what: Cell, others: Cell) -> nodes.list_item:
        """One line."""
        line = nodes.paragraph("", "", *what, *_text(": "), *others)
        return nodes.list_item("", line)


# Claims ---------------------------------------------------------------------------


class claims_table(nodes.General, nodes.Element):
    """Stands where the claims will be written, once every page has run."""


class ClaimsTable(BookDirective):
    """What the tests of every chapter that stands have verified."""

    def run(self) -> list[nodes.Node]:
        """A place in the page; a page of this build may yet write its claims."""
        self.note()
        return [claims_table("")]


class FillClaims(SphinxPostTransform):
    """Writes the claims of every chapter in place of the directive."""

    default_priority = 5  # before references are resolved, at 10

    def run(self, **_: Any) -> None:
        """Replace each place held by the directive."""
        from mlfs.book.chapters import CHAPTERS

        for place in list(self.document.findall(claims_table)):
            filled: list[nodes.Node] = []
            for chapter in CHAPTERS:
                if chapter.stands:
                    filled += self.chapter(chapter)
            place.replace_self(
                filled or [nodes.paragraph("", "No chapter stands yet.")]
            )

    def chapter(self, chapter: Chapter) -> list[nodes.Node]:
        """The claims of a chapter, one table a module."""
        from mlfs.book.claims import HEADINGS

        docname = self.env.docname
        made: list[nodes.Node] = []
        for module in chapter.modules:
            claims = self.claims(chapter, module)
            title = _link(docname, f"{chapter.slug}/theory", chapter.title)
            held = sum(bool(claim["passed"]) for claim in claims)
            count = _text(f": {held} of {len(claims)} claims on ")
            name = nodes.literal(module, f"mlfs.{module}")
            strong = nodes.strong("", "", *title)
            made.append(nodes.paragraph("", "", strong, *count, name, *_text(" hold.")))
            if claims:
                made.append(_table(HEADINGS, map(self.row, claims)))
        return made

    def claims(self, chapter: Chapter, module: str) -> list[dict[str, Any]]:
        """What the chapter's page wrote when it ran the tests of `module`."""
        path = ROOT / CLAIMS / f"{module}.json"
        name = path.relative_to(ROOT).as_posix()
        try:
            claims: list[dict[str, Any]] = json.loads(path.read_text("utf8"))["claims"]
            for claim in claims:
                if not claim["passed"]:
                    self.warn(f"{name}: the claim of {claim['test']} does not hold")
                self.row(claim)
            return claims
        except FileNotFoundError:
            reason = f"{name} is missing"
        except (ValueError, KeyError, TypeError) as error:
            reason = f"{name} is not what verify() writes ({error!r})"
        self.warn(
            f"{reason}: book/{chapter.slug}/theory.md wants a cell with "
            f'verify("{module}"); if it has one, delete _build/claims and build again'
        )
        return []

    def row(self, claim: dict[str, Any]) -> nodes.row:
        """One claim."""
        from mlfs.book.claims import Claim

        row = Claim(**{k: v for k, v in claim.items() if k != "passed"}).cells()
        return _row(_equation(self.env.docname, row[0]), *map(_text, row[1:]))

    def warn(self, message: str) -> None:
        """A warning that names the page."""
        LOG.warning(message, location=self.env.docname)


# Sessions -------------------------------------------------------------------------


def _sessions() -> Any:
    """The module that reads the list of sessions, needed on few pages."""
    import sessions

    return sessions


class Sessions(BookDirective):
    """The sessions of the seminar, `upcoming` or `past`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The table that tools/sessions.py writes as Markdown.

        Raises:
            BookError: the list of sessions is wrong.
        """
        which = directives.choice(self.arguments[0], ("upcoming", "past"))
        self.note()
        self.env.note_dependency(SESSIONS.as_posix())
        tool = _sessions()
        try:
            upcoming, past = tool.split(tool.load(ROOT / SESSIONS), tool.current_day())
        except ValueError as error:
            raise BookError(str(error)) from None
        text = tool.markdown_table(upcoming if which == "upcoming" else past)
        box = nodes.container(classes=["sessions"])
        lines = StringList(text.splitlines(), source=SESSIONS.as_posix())
        self.state.nested_parse(lines, 0, box)
        return [box]


def write_calendar(app: Sphinx, exception: Exception | None) -> None:
    """Put the seminar's calendar beside the pages."""
    if exception is None and app.builder.format == "html":
        if (ROOT / SESSIONS).is_file():
            tool = _sessions()
            feed = tool.calendar(tool.load(ROOT / SESSIONS))
            Path(app.outdir, "_static", "sessions.ics").write_bytes(feed)


# Reference ------------------------------------------------------------------------


def keep_tables(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Show the table of notation that opens a module as it is laid out there."""
    if what != "module":
        return
    for number in range(len(lines) - 1, 0, -1):
        above = lines[:number]
        text = next((line for line in reversed(above) if line.strip()), "")
        opens = lines[number].startswith(" ") and not lines[number - 1].strip()
        if opens and not text.startswith(" ") and not text.endswith("::"):
            lines[number:number] = ["::", ""]


def link_equations(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Say at a function which equations its lines implement."""
    function = getattr(obj, "fget", obj)
    if not inspect.isfunction(function):
        return
    found = EQUATIONS.findall(inspect.getsource(function))
    labels = dict.fromkeys(label for group in found for label in re.split(", *", group))
    if labels:
        links = ", ".join(f":eq:`{label}`" for label in labels)
        lines += ["", f"Implements {links}.", ""]


# No other host --------------------------------------------------------------------


def use_local_mathjax(app: Sphinx, config: Any) -> None:
    """Point the pages at the copy of MathJax beside them."""
    config.mathjax_path = f"mathjax/{MATHJAX}"


def copy_static(app: Sphinx, exception: Exception | None) -> None:
    """Copy MathJax with its fonts, and our own files, which Sphinx does not watch.

    Raises:
        BookError: the distribution that carries MathJax is not installed.
    """
    if exception is not None or app.builder.format != "html":
        return
    static = Path(app.outdir, "_static")
    shutil.copytree(ROOT / "book" / "_static", static, dirs_exist_ok=True)
    carried = [file for file in files(MATHJAX_FROM) or [] if file.name == MATHJAX]
    if not carried:
        raise BookError(f"{MATHJAX_FROM} has no {MATHJAX}: install requirements.txt")
    source, target = Path(str(carried[0].locate())).parent, static / "mathjax"
    fonts = Path("output", "chtml", "fonts", "woff-v2")
    shutil.copytree(source / fonts, target / fonts, dirs_exist_ok=True)
    shutil.copy2(source / MATHJAX, target / MATHJAX)


def drop_thebe_nodes(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Take out what sphinx-thebe puts into every page with cells."""
    for node in list(doctree.findall(nodes.raw)):
        text = node.astext().strip()
        if "x-thebe-config" in text or text.startswith("<script>kernelName"):
            node.parent.remove(node)


def drop_thebe_scripts(
    app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Leave out the scripts that would load Thebe from another host."""

    def keep(script: Any) -> bool:
        body = getattr(script, "attributes", {}).get("body") or ""
        name = str(getattr(script, "filename", "") or "")
        return "thebe" not in name and "THEBE" not in body

    for key in ("script_files", "css_files"):
        context[key][:] = [item for item in context[key] if keep(item)]


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect all of it."""
    execute_book.prepare_environment(ROOT)
    freshness = Freshness()
    app.connect("builder-inited", freshness.begin)
    app.connect("env-get-outdated", freshness.outdated)
    app.connect("env-purge-doc", freshness.purge)
    app.connect("env-merge-info", freshness.merge)
    app.connect("doctree-read", freshness.read)
    app.connect("env-updated", freshness.claims_changed)
    app.connect("build-finished", forget_warnings)
    app.add_directive("chapter-map", ChapterMap)
    app.add_directive("prerequisites", Prerequisites)
    app.add_directive("claims-table", ClaimsTable)
    app.add_directive("sessions", Sessions)
    app.add_node(claims_table)
    app.add_post_transform(FillClaims)
    app.connect("autodoc-process-docstring", keep_tables, priority=100)
    app.connect("autodoc-process-docstring", link_equations, priority=900)
    app.connect("config-inited", use_local_mathjax)
    app.connect("doctree-resolved", drop_thebe_nodes, priority=900)
    app.connect("html-page-context", drop_thebe_scripts, priority=900)
    app.connect("build-finished", copy_static)
    app.connect("build-finished", write_calendar)
    return {
        "version": "1",
        "env_version": 1,
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
