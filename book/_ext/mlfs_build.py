"""Sphinx extension: the build page, which says what this site was made from.

The directive build-table shows one of

- line: package, commit and its date, Python;
- versions: Python and what requirements.in asks for;
- times: minutes to read and seconds to run, a row for every page with code;
- claims: how many of each kind each chapter has, and how many hold;
- weights: what a browser has to fetch for each page, where it was measured.

No clock is read: the same commit and the same measurements give the same page.
"""

from __future__ import annotations

import json
import platform
import re
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from mlfs_furniture import (
    execution_times,
    minutes_to_read,
    repository,
    shown_seconds,
    version,
)
from mlfs_site import CLAIMS, ROOT, _link, _row, _table, _text
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

import execute_book

PAGE = "book/build"
WEIGHTS = Path("_build", "page-weight.json")
WANTED = re.compile(r"(?P<name>[A-Za-z0-9._-]+)[^#]*(?:#\s*(?P<why>.*))?")
UNMEASURED = "Not measured in this build."

Cell = Sequence[nodes.Node]


def wanted_packages(root: Path = ROOT) -> list[tuple[str, str]]:
    """Every package that requirements.in names, with the reason given there."""
    found = []
    for line in (root / "requirements.in").read_text("utf8").splitlines():
        match = WANTED.match(line)
        if match:
            found.append((match["name"], match["why"] or ""))
    return found


def installed_version(name: str) -> str:
    """The version in the environment that builds the book."""
    try:
        return installed(name)
    except PackageNotFoundError:
        return "not installed"


def counts_of_claims(root: Path = ROOT) -> list[tuple[Any, Counter[str]]]:
    """Each chapter that stands with its claims by kind, and under `held` what holds."""
    from mlfs.book.chapters import CHAPTERS

    found = []
    for chapter in CHAPTERS:
        if not chapter.stands:
            continue
        count: Counter[str] = Counter()
        for module in chapter.modules:
            path = root / CLAIMS / f"{module}.json"
            kept = (
                json.loads(path.read_text("utf8"))["claims"] if path.is_file() else []
            )
            count.update(claim["kind"] for claim in kept)
            count["held"] += sum(bool(claim["passed"]) for claim in kept)
        found.append((chapter, count))
    return found


def page_weights(root: Path = ROOT) -> list[dict[str, Any]]:
    """What was measured for each page; empty where nothing was.

    Raises:
        ValueError: the file is not what the measurement writes.
    """
    path = root / WEIGHTS
    if not path.is_file():
        return []
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text("utf8"))
        for row in rows:
            str(row["page"]), float(row["first_kb"]), float(row["second_kb"])
            int(row["requests"])
    except (ValueError, KeyError, TypeError) as error:
        name = WEIGHTS.as_posix()
        raise ValueError(f"{name} is not a list of pages: {error!r}") from None
    return rows


class build_table(nodes.General, nodes.Element):
    """Stands where a table will be written, once every page has run."""


class BuildTable(SphinxDirective):
    """One of the tables of the build page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """A place in the page."""
        what = directives.choice(self.arguments[0], tuple(FillTables.TABLES))
        return [build_table("", what=what)]


class FillTables(SphinxPostTransform):
    """Writes the tables in place of the directives."""

    default_priority = 5  # before references are resolved, at 10

    def run(self, **_: Any) -> None:
        """Replace each place held by the directive."""
        for place in list(self.document.findall(build_table)):
            place.replace_self(self.TABLES[place["what"]](self))

    def line(self) -> list[nodes.Node]:
        """Package, commit and its date, Python."""
        now = version()
        cells = list(_text(f"Package mlfs {now.package}; "))
        if now.commit:
            url = f"{repository()}/commit/{now.commit}"
            name = nodes.literal(now.commit[:10], now.commit[:10])
            cells += _text("commit ")
            cells.append(nodes.reference("", "", name, refuri=url))
            changed = ", with changes that are not in it" if now.changed else ""
            cells += _text(f" of {now.date}{changed}; ")
        else:
            cells += _text("not built from a repository; ")
        cells += _text(f"Python {platform.python_version()}.")
        return [nodes.paragraph("", "", *cells)]

    def versions(self) -> list[nodes.Node]:
        """Packages with their versions and reasons."""
        rows = [
            _row(
                [nodes.literal(name, name)], _text(installed_version(name)), _text(why)
            )
            for name, why in wanted_packages()
        ]
        return [_table(("Package", "Version", "What for"), rows)]

    def times(self) -> list[nodes.Node]:
        """Every page with code: how long it reads and runs."""
        times = execution_times()
        rows = []
        for page in execute_book.pages(ROOT):
            docname = page.removesuffix(".md")
            minutes = minutes_to_read(self.env.get_doctree(docname))
            seconds = shown_seconds(times.get(page))
            rows.append(_row(self.page(docname), _text(f"{minutes}"), _text(seconds)))
        return [_table(("Page", "Minutes to read", "Time to run"), rows)]

    def claims(self) -> list[nodes.Node]:
        """Every chapter that stands: its claims by kind."""
        from mlfs.book.claims import LOOSEST

        rows = []
        for chapter, count in counts_of_claims():
            every = sum(count[kind] for kind in LOOSEST)
            numbers = [_text(str(count[kind])) for kind in LOOSEST]
            held = _link(
                self.env.docname, "verification", f"{count['held']} of {every}"
            )
            title = _link(self.env.docname, f"{chapter.slug}/theory", chapter.title)
            rows.append(_row(title, *numbers, held))
        return [_table(("Chapter", *LOOSEST, "hold"), rows)]

    def weights(self) -> list[nodes.Node]:
        """Every page: what a browser fetches at the first visit and after."""
        rows = [
            _row(
                self.page(str(row["page"]).removesuffix(".html")),
                _text(f"{row['first_kb']:.0f}"),
                _text(f"{row['second_kb']:.0f}"),
                _text(f"{row['requests']}"),
            )
            for row in page_weights()
        ]
        if not rows:
            return [nodes.paragraph("", UNMEASURED)]
        header = ("Page", "First visit, kB", "Second page, kB", "Requests")
        return [_table(header, rows)]

    def page(self, docname: str) -> Cell:
        """A page's title as a link; its name, where it has no source."""
        if docname not in self.env.all_docs:
            return _text(docname)
        title = self.env.titles[docname].astext()
        return _link(self.env.docname, docname.removeprefix("book/"), title)

    TABLES: ClassVar[dict[str, Callable[[FillTables], list[nodes.Node]]]] = {
        "line": line,
        "versions": versions,
        "times": times,
        "claims": claims,
        "weights": weights,
    }


def always(app: Sphinx, env: Any) -> list[str]:
    """The build page is written at every build: it depends on all of them."""
    return [PAGE] if PAGE in env.all_docs else []


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect all of it."""
    app.setup_extension("mlfs_furniture")
    app.connect("env-updated", always)
    app.add_directive("build-table", BuildTable)
    app.add_node(build_table)
    app.add_post_transform(FillTables)
    return {
        "version": "1",
        "env_version": 1,
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
