"""Sphinx extension: what stands around the text of a page.

- Under the title of a chapter's page: minutes to read, seconds to run, what it needs.
- At its end: the chapters before and after it in the order of prerequisites.
- The directive chapter-graph draws that order, every chapter that stands a link.
- After each section a link that reports a mistake there, without any script.
"""

from __future__ import annotations

import json
import math
import re
import subprocess
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import yaml
from docutils import nodes
from mlfs_site import ROOT, BookDirective, _join, _link, _text
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

if TYPE_CHECKING:
    from mlfs.book.chapters import Chapter

TIMES = Path("_build", "execution-times.json")
WORDS_A_MINUTE = 150  # a text with formulas; a formula in the line counts as one word
MINUTES_AN_EQUATION = 1  # a displayed equation is followed with a pencil
ROUNDED_TO = 5  # minutes; the rule is no better than that
PAGES = ("theory", "coding")
UNREAD = ("cell_input", "cell_output")  # code and its output are looked at, not read

Cell = Sequence[nodes.Node]


# Version --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Version:
    """What this book was built from."""

    package: str
    commit: str = ""  # empty outside a repository
    date: str = ""  # of the commit
    changed: bool = False  # whether files differ from the commit

    def __str__(self) -> str:
        """The version in one line, for a reader to quote."""
        if not self.commit:
            return f"mlfs {self.package}, not from a repository"
        changed = " with changes" if self.changed else ""
        return f"mlfs {self.package}, commit {self.commit[:10]}{changed}"


def _git(root: Path, *arguments: str) -> str:
    """What git answers; empty where there is no git or no repository."""
    try:
        run = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return run.stdout.strip()


def version(root: Path = ROOT) -> Version:
    """The package's version and the commit, as the repository has them now."""
    project = tomllib.loads((root / "pyproject.toml").read_text("utf8"))["project"]
    commit, _, date = _git(root, "log", "-1", "--format=%H %cs").partition(" ")
    changed = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    return Version(project["version"], commit, date, changed)


# Minutes to read ------------------------------------------------------------------


def _words(node: nodes.Node) -> int:
    if isinstance(node, nodes.Text):
        return len(node.split())
    if isinstance(node, nodes.math):
        return 1
    if isinstance(node, nodes.math_block | nodes.literal_block | nodes.Invisible):
        return 0
    if isinstance(node, nodes.raw) or set(UNREAD) & set(node.get("classes", ())):
        return 0
    return sum(map(_words, node.children))


def minutes_to_read(doctree: nodes.Node) -> int:
    """Minutes for the words and the displayed equations of a page."""
    equations = sum(1 for _ in doctree.findall(nodes.math_block))
    minutes = _words(doctree) / WORDS_A_MINUTE + equations * MINUTES_AN_EQUATION
    return max(1, math.ceil(minutes / ROUNDED_TO)) * ROUNDED_TO


def execution_times(root: Path = ROOT) -> dict[str, float]:
    """Seconds that each page took when it last ran; empty where none has."""
    try:
        times: dict[str, float] = json.loads((root / TIMES).read_text("utf8"))
    except FileNotFoundError:
        return {}
    return times


def shown_seconds(seconds: float | None) -> str:
    """A time as a reader wants it."""
    return "not measured" if seconds is None else f"{seconds:.0f} s"


# Around a chapter's page ----------------------------------------------------------


def chapter_of(docname: str) -> tuple[Chapter, str] | None:
    """The chapter whose page this is, and which of its pages."""
    from mlfs.book.chapters import CHAPTERS

    for chapter in CHAPTERS:
        for page in PAGES:
            if docname == f"book/{chapter.slug}/{page}":
                return chapter, page
    return None


def needed_by(chapter: Chapter) -> list[Chapter]:
    """The chapters that one builds on, in the order of the book."""
    from mlfs.book.chapters import CHAPTERS

    return [each for each in CHAPTERS if set(each.modules) & set(chapter.builds_on)]


def opened_by(chapter: Chapter) -> list[Chapter]:
    """The chapters that build on one, in the order of the book."""
    from mlfs.book.chapters import CHAPTERS

    return [each for each in CHAPTERS if set(chapter.modules) & set(each.builds_on)]


def _title(docname: str, chapter: Chapter) -> Cell:
    if not chapter.stands:
        return _text(f"{chapter.title} (planned)")
    return _link(docname, f"{chapter.slug}/theory", chapter.title)


def _to_label(docname: str, label: str, text: str) -> Cell:
    """A reference to a place in the book by its label, which Sphinx checks."""
    shown = nodes.inline(text, text)
    given = {"refdomain": "std", "reftype": "ref", "reftarget": label}
    return [
        addnodes.pending_xref(
            "", shown, refexplicit=True, refwarn=True, refdoc=docname, **given
        )
    ]


def has_notation(chapter: Chapter, root: Path = ROOT) -> bool:
    """Whether the page of notation has a section for a chapter."""
    text = (root / "book" / "notation.md").read_text("utf8")
    return f"(notation-{chapter.slug})=" in text


def head(docname: str, chapter: Chapter, page: str, minutes: int) -> nodes.Element:
    """The line under the title."""
    seconds = execution_times().get(f"{docname}.md")
    runs = "time to run" if seconds is None else "runs in"
    besides = " besides the exercises" if page == "coding" else ""
    needs = [_title(docname, each) for each in needed_by(chapter)]
    parts = [
        _to_label(
            docname, "build-reading", f"About {minutes} minutes to read{besides}"
        ),
        _to_label(docname, "build-times", f"{runs} {shown_seconds(seconds)}"),
        [*_text("builds on "), *(_join(needs, ", ") or _text("no other chapter"))],
    ]
    if has_notation(chapter):
        parts.append(_to_label(docname, f"notation-{chapter.slug}", "its notation"))
    return nodes.paragraph("", "", *_join(parts, " · "), classes=["furniture"])


def foot(docname: str, chapter: Chapter) -> nodes.Element:
    """What to read before and after the chapter, by what builds on what."""
    before = [_title(docname, each) for each in needed_by(chapter)]
    after = opened_by(chapter)
    stand = [_title(docname, each) for each in after if each.stands]
    planned = sum(not each.stands for each in after)
    links = list(_join(stand, ", "))
    if planned:
        links += _text(f"{', ' if stand else ''}{planned} planned")
    rows = (
        ("Before this chapter: ", _join(before, ", ") or _text("none")),
        ("After it: ", links or _text("none builds on it")),
    )
    lines = [
        nodes.paragraph("", "", nodes.strong(what, what), *cells)
        for what, cells in rows
    ]
    graph = _to_label(docname, "chapter-graph", "The order of all chapters")
    lines.append(nodes.paragraph("", "", *graph))
    return nodes.container("", *lines, classes=["prerequisite-order"])


def furnish(app: Sphinx, doctree: nodes.document) -> None:
    """Put line and links around the text of a chapter's page, as it is read."""
    env: Any = app.env
    found = chapter_of(env.docname)
    if found is None:
        return
    chapter, page = found
    section = next(doctree.findall(nodes.section))
    line = head(env.docname, chapter, page, minutes_to_read(doctree))
    section.insert(1 + section.first_child_matching_class(nodes.title), line)
    section += foot(env.docname, chapter)
    # Which chapters stand is part of what this page was made from.
    env.mlfs_kinds.setdefault(env.docname, set()).add("prerequisites")


# The graph ------------------------------------------------------------------------

BOX, GAP, ROW, MARGIN = (166, 38), 48, 45, 6  # width and height of a box; distances
LINE = 22  # letters that fit into a box


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a chapter's box stands."""

    chapter: Chapter
    x: float
    y: float


def depth(chapter: Chapter) -> int:
    """The longest way to a chapter that builds on no other."""
    return max((depth(each) + 1 for each in needed_by(chapter)), default=0)


def all_needed_by(chapter: Chapter) -> set[str]:
    """The folders of all chapters that one builds on, directly or not."""
    needed = needed_by(chapter)
    return {each.slug for each in needed}.union(*map(all_needed_by, needed))


def drawn_edges(chapter: Chapter) -> list[Chapter]:
    """What it builds on, but for chapters that one of the others needs anyway."""
    needed = needed_by(chapter)
    implied: set[str] = set().union(*map(all_needed_by, needed))
    return [each for each in needed if each.slug not in implied]


def layout(chapters: Sequence[Chapter]) -> list[Spot]:
    """A column for each depth; what belongs together stands side by side."""
    columns: dict[int, list[Chapter]] = {}
    # Chapters without a line stand at the top, where no line passes.
    alone = [each for each in chapters if not (needed_by(each) or opened_by(each))]
    for chapter in [*alone, *(each for each in chapters if each not in alone)]:
        columns.setdefault(depth(chapter), []).append(chapter)
    tallest = max(map(len, columns.values()))
    rows: dict[str, float] = {}

    def height(chapter: Chapter) -> float:
        wanted = [rows[need.slug] for need in needed_by(chapter)]
        return sum(wanted) / len(wanted) if wanted else 0

    for _, column in sorted(columns.items()):
        step = tallest / len(column)
        # Sorting is stable: the order of the book stays where nothing else decides.
        for number, chapter in enumerate(sorted(column, key=height)):
            rows[chapter.slug] = (number + 0.5) * step - 0.5
    return [
        Spot(
            each,
            MARGIN + depth(each) * (BOX[0] + GAP),
            MARGIN + round(rows[each.slug] * ROW, 1),
        )
        for each in chapters
    ]


def _curve(start: Spot, end: Spot) -> str:
    x0, y0 = start.x + BOX[0], start.y + BOX[1] / 2
    x1, y1 = end.x, end.y + BOX[1] / 2
    bend = GAP * 0.6
    return (
        f'<path d="M{x0:g} {y0:g}C{x0 + bend:g} {y0:g} {x1 - bend:g} {y1:g} '
        f'{x1:g} {y1:g}"/>'
    )


def _box(spot: Spot, href: str | None) -> str:
    width, height = BOX
    lines = wrap(spot.chapter.title, LINE)
    middle = spot.x + width / 2
    top = spot.y + height / 2 + 4.5 - 7.5 * (len(lines) - 1)
    text = "".join(
        f'<text x="{middle:g}" y="{top + 15 * number:g}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    place = f'x="{spot.x:g}" y="{spot.y:g}" width="{width}" height="{height}"'
    rect = f'<rect {place} rx="5"/>'
    title = escape(spot.chapter.title)
    if href is None:
        label = f'role="img" aria-label="{title} (planned)"'
        return f'<g class="planned" {label}>{rect}{text}</g>'
    link = f'href="{escape(href)}" class="stands" aria-label="{title}"'
    return f"<a {link}>{rect}{text}</a>"


def draw(chapters: Sequence[Chapter], href: dict[str, str]) -> str:
    """The graph as SVG; `href` has an address for every chapter that is a link."""
    spots = {spot.chapter.slug: spot for spot in layout(chapters)}
    right = max(spot.x for spot in spots.values()) + BOX[0] + MARGIN
    low = max(spot.y for spot in spots.values()) + BOX[1] + MARGIN
    edges = [
        _curve(spots[need.slug], spot)
        for spot in spots.values()
        for need in drawn_edges(spot.chapter)
    ]
    boxes = [_box(spot, href.get(slug)) for slug, spot in spots.items()]
    return "\n".join(
        [
            '<div class="chapter-graph">',
            f'<svg viewBox="0 0 {right:g} {low:g}" width="{right:g}" height="{low:g}" '
            'role="group" aria-label="Which chapter builds on which; '
            'the list below says the same in words">',
            f'<g class="edges" aria-hidden="true">{"".join(edges)}</g>',
            *boxes,
            "</svg>",
            "</div>",
        ]
    )


class chapter_graph(nodes.General, nodes.Element):
    """Stands where the graph will be drawn, once addresses are known."""


class ChapterGraph(BookDirective):
    """What builds on what, as a picture."""

    def run(self) -> list[nodes.Node]:
        """A place in the page."""
        self.note()
        return [chapter_graph("")]


class DrawGraph(SphinxPostTransform):
    """Draws the graph in a page of the site; print and EPUB have the list alone."""

    default_priority = 5

    def run(self, **_: Any) -> None:
        """Replace each place held by the directive."""
        from mlfs.book.chapters import CHAPTERS

        for place in list(self.document.findall(chapter_graph)):
            drawn: list[nodes.Node] = []
            if self.app.builder.name == "html":
                uri, here = self.app.builder.get_relative_uri, self.env.docname
                href = {
                    each.slug: uri(here, f"book/{each.slug}/theory")
                    for each in CHAPTERS
                    if each.stands
                }
                drawn = [nodes.raw("", draw(CHAPTERS, href), format="html")]
            place.replace_self(drawn)


# Report a mistake -----------------------------------------------------------------


@cache
def repository(root: Path = ROOT) -> str:
    """The address of the repository, from _config.yml."""
    config = yaml.safe_load((root / "_config.yml").read_text("utf8"))
    url: str = config["repository"]["url"]
    return url.rstrip("/")


def report_url(page: str, heading: str, built: str) -> str:
    """The address that opens a new issue with page, heading and version filled in."""
    body = (
        f"Page: {page}\nSection: {heading}\nVersion: {built}\n\n"
        "What is wrong, and what should stand there?\n\n"
    )
    query = urlencode({"title": f"Mistake in {page}: {heading}", "body": body})
    return f"{repository()}/issues/new?{query}"


class report_link(nodes.General, nodes.Element):
    """A link that reports a mistake; without text, so that search does not find it."""


def visit_report_link(translator: Any, node: nodes.Element) -> None:
    """Write the link; what section it is for is said to those who do not see it."""
    translator.body.append(
        f'<p class="report-mistake"><a href="{escape(node["url"])}" rel="nofollow">'
        'Report a mistake<span class="visually-hidden"> in the section '
        f"{escape(node['heading'])}</span></a></p>\n"
    )
    raise nodes.SkipNode


def _sections(doctree: nodes.Node) -> Iterator[tuple[nodes.section, str]]:
    for section in doctree.findall(nodes.section):
        title = section.next_node(nodes.title)
        if title is not None:
            yield section, re.sub(r"\s+", " ", title.astext())


def add_report_links(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put a link after what each section says before its first subsection."""
    if app.builder.name != "html":
        return
    env: Any = app.env
    page = Path(env.doc2path(docname)).relative_to(ROOT).as_posix()
    for section, heading in list(_sections(doctree)):
        place = section.first_child_matching_class(nodes.section)
        url = report_url(page, heading, env.mlfs_version)
        link = report_link("", url=url, heading=heading)
        section.insert(len(section) if place is None else place, link)


def version_changed(app: Sphinx, env: Any) -> list[str]:
    """Every page, when the version that its links name is no longer this one."""
    now = str(version())
    if getattr(env, "mlfs_version", "") == now:
        return []
    env.mlfs_version = now
    return sorted(env.all_docs)


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect all of it."""
    app.setup_extension("mlfs_site")
    app.connect("doctree-read", furnish, priority=100)  # before the state is noted
    app.connect("doctree-resolved", add_report_links, priority=900)
    app.connect("env-updated", version_changed)
    app.add_directive("chapter-graph", ChapterGraph)
    app.add_node(chapter_graph)
    app.add_node(report_link, html=(visit_report_link, None))
    app.add_post_transform(DrawGraph)
    return {
        "version": "1",
        "env_version": 1,
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
