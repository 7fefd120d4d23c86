"""What stands around the text: reading time, graph, reports, build page, policy."""

import base64
import hashlib
import json
import re
from urllib.parse import parse_qs, urlsplit

import mlfs_build
import mlfs_furniture as furniture
import mlfs_security as security
import pytest
from docutils import nodes

from mlfs.book.chapters import CHAPTERS, ROOT, Chapter

STANDING = [chapter for chapter in CHAPTERS if chapter.stands]
BOOK = sorted((ROOT / "book").rglob("*.md"))

# Reading --------------------------------------------------------------------------


def page(*children):
    return nodes.section("", *children)


def words(count):
    return nodes.paragraph("", "word " * count)


def test_minutes_are_words_by_speed():
    assert furniture.minutes_to_read(page(words(150 * 20))) == 20
    assert furniture.minutes_to_read(page(words(150 * 20 + 1))) == 25


def test_an_equation_is_a_minute_and_a_formula_a_word():
    equations = [nodes.math_block("", "a + b = c") for _ in range(10)]
    assert furniture.minutes_to_read(page(*equations)) == 10
    formulas = nodes.paragraph("", "", *(nodes.math("", "x + y") for _ in range(751)))
    assert furniture.minutes_to_read(page(formulas)) == 10


def test_code_and_output_are_not_read():
    long = "word " * 9000
    code = nodes.literal_block(long, long)
    output = nodes.container("", words(9000), classes=["cell_output"])
    html = nodes.raw("", long, format="html")
    assert furniture.minutes_to_read(page(words(10), code, output, html)) == 5


# Prerequisites --------------------------------------------------------------------


def by_slug(slug):
    return next(chapter for chapter in CHAPTERS if chapter.slug == slug)


def test_before_and_after_are_two_sides_of_one_relation():
    for one in CHAPTERS:
        for other in CHAPTERS:
            assert (one in furniture.needed_by(other)) == (
                other in furniture.opened_by(one)
            )
    lds = by_slug("switching-linear-dynamical-systems")
    assert [each.slug for each in furniture.needed_by(lds)] == [
        "hidden-markov-models",
        "kalman-and-particle-filters",
    ]


def test_chapter_of_knows_both_pages_and_no_other():
    first = CHAPTERS[0]
    assert furniture.chapter_of(f"book/{first.slug}/coding") == (first, "coding")
    assert furniture.chapter_of("book/index") is None


def test_the_line_names_what_a_chapter_builds_on(monkeypatch):
    monkeypatch.setattr(furniture, "execution_times", lambda: {"book/x/theory.md": 7.4})
    lstm = by_slug("lstm-and-gru")
    text = furniture.head("book/x/theory", lstm, "theory", 35).astext()
    assert text.startswith("About 35 minutes to read · runs in 7 s · builds on ")
    assert "Automatic differentiation, Recurrent neural networks" in text
    free = furniture.head("book/y/coding", by_slug("gaussian-processes"), "coding", 5)
    assert "besides the exercises · time to run not measured" in free.astext()
    assert "builds on no other chapter" in free.astext()


# The graph ------------------------------------------------------------------------


def crossing(one, other):
    width, height = furniture.BOX
    return abs(one.x - other.x) < width and abs(one.y - other.y) < height


def test_boxes_do_not_overlap_and_lines_lead_to_the_right():
    spots = furniture.layout(CHAPTERS)
    pairs = [(a, b) for i, a in enumerate(spots) for b in spots[:i]]
    assert not [pair for pair in pairs if crossing(*pair)]
    at = {spot.chapter.slug: spot.x for spot in spots}
    for chapter in CHAPTERS:
        for need in furniture.needed_by(chapter):
            assert at[need.slug] < at[chapter.slug]


def test_left_out_lines_follow_from_those_drawn():
    for chapter in CHAPTERS:
        drawn = furniture.drawn_edges(chapter)
        reached = {each.slug for each in drawn}
        reached |= {slug for each in drawn for slug in furniture.all_needed_by(each)}
        assert reached == furniture.all_needed_by(chapter)
        assert len(drawn) <= len(furniture.needed_by(chapter))


def test_the_picture_has_every_chapter_and_links_those_that_stand():
    svg = furniture.draw(CHAPTERS, {"hidden-markov-models": "there.html"})
    for chapter in CHAPTERS:
        state = "" if chapter.slug == "hidden-markov-models" else " (planned)"
        assert f'aria-label="{chapter.title}{state}"' in svg
    assert svg.count("<a ") == 1
    assert '<a href="there.html"' in svg
    drawn = sum(len(furniture.drawn_edges(chapter)) for chapter in CHAPTERS)
    assert svg.count("<path ") == drawn > 10


def test_titles_fit_their_boxes():
    """At 13 px a letter is 7 px wide on average, and two lines fit."""
    for chapter in CHAPTERS:
        lines = furniture.wrap(chapter.title, furniture.LINE)
        assert len(lines) <= 2
        assert max(map(len, lines)) * 7 <= furniture.BOX[0]


def test_a_title_cannot_write_markup():
    odd = (Chapter("a", "A <b> & c", "P", ("a",)),)
    assert "<b>" not in furniture.draw(odd, {"a": 'x"y'})


# Reports --------------------------------------------------------------------------


def test_a_report_has_page_heading_and_version_filled_in():
    url = furniture.report_url("book/x.md", "Is A & B = C?", "mlfs 1.2, commit abc")
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    assert url.startswith(furniture.repository() + "/issues/new?")
    assert query["title"] == ["Mistake in book/x.md: Is A & B = C?"]
    for line in ("Page: book/x.md", "Section: Is A & B = C?", "commit abc"):
        assert line in query["body"][0]


def test_version_is_that_of_the_package():
    now = furniture.version()
    assert f'version = "{now.package}"' in (ROOT / "pyproject.toml").read_text("utf8")
    assert not now.commit or re.fullmatch(r"[0-9a-f]{40}", now.commit)
    assert bool(now.commit) == bool(re.fullmatch(r"\d{4}-\d\d-\d\d", now.date))


def test_version_without_a_repository_says_so(tmp_path):
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "3"\n')
    assert str(furniture.version(tmp_path)) == "mlfs 3, not from a repository"


# The build page -------------------------------------------------------------------


def test_every_wanted_package_is_named_with_its_version():
    wanted = dict(mlfs_build.wanted_packages())
    assert wanted["numpy"] == "arrays; every algorithm is written in it"
    assert {"jupyter-book", "playwright", "wheel"} <= set(wanted)
    assert not [name for name in wanted if not re.fullmatch(r"[\w.-]+", name)]
    assert mlfs_build.installed_version("numpy")[0].isdigit()
    assert mlfs_build.installed_version("no-such-package-here") == "not installed"


def test_claims_are_counted_by_kind(tmp_path):
    folder = tmp_path / mlfs_build.CLAIMS
    folder.mkdir(parents=True)
    claims = [
        {"kind": "exact", "passed": True},
        {"kind": "exact", "passed": False},
        {"kind": "law", "passed": True},
    ]
    (folder / "hmm.json").write_text(json.dumps({"claims": claims}))
    counts = {c.slug: n for c, n in mlfs_build.counts_of_claims(tmp_path)}
    assert counts["hidden-markov-models"] == {"exact": 2, "law": 1, "held": 2}
    assert sorted(counts) == sorted(chapter.slug for chapter in STANDING)


def test_weights_are_read_or_refused(tmp_path):
    assert mlfs_build.page_weights(tmp_path) == []
    path = tmp_path / mlfs_build.WEIGHTS
    path.parent.mkdir()
    row = {"page": "book/a.html", "first_kb": 1.5, "second_kb": 0, "requests": 3}
    path.write_text(json.dumps([row]))
    assert mlfs_build.page_weights(tmp_path) == [row]
    path.write_text(json.dumps([{"page": "book/a.html"}]))
    with pytest.raises(ValueError, match=r"page-weight\.json is not a list of pages"):
        mlfs_build.page_weights(tmp_path)


# The policy -----------------------------------------------------------------------

PAGE = """<html><head><script src="a.js"></script><script>let a = "<b>";</script>
<script defer>let c = 1 &amp; 2;</script></head>
<body><button data-onclick="window.print()">Print</button></body></html>"""


def sha(text):
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def test_only_what_stands_in_the_page_may_run():
    script = security.policy(PAGE).split("; ")[1].split()
    hashes = {source for source in script if source.startswith("'sha256")}
    # Within a script a browser expands no entities.
    assert hashes == {sha(text) for text in ('let a = "<b>";', "let c = 1 &amp; 2;")}
    assert not {"'unsafe-inline'", "'unsafe-eval'", "'unsafe-hashes'"} & set(script)


def test_the_themes_buttons_keep_no_script_in_attributes():
    head = '<html data-content_root="./"><head><meta charset="utf-8" /></head>'
    page = f'{head}<button onclick="window.print()">Print</button>'
    assert '<button data-onclick="window.print()">' in security.protect(page)
    with pytest.raises(security.BookError, match=r"hold scripts: \['steal\(\)'\]"):
        security.protect(page.replace("window.print()", "steal()"))


def test_nothing_comes_from_another_host():
    assert not re.search(r"https?:|\*", security.policy(PAGE))
    assert security.policy(PAGE).startswith("default-src 'none'; ")


def test_a_page_is_protected_once_ahead_of_its_scripts():
    head = '<html data-content_root="./"><head>\n    <meta charset="utf-8" />'
    page = f"{head}<script>1</script></head></html>"
    once = security.protect(page)
    assert once.startswith(f'{head}<meta http-equiv="Content-Security-Policy"')
    assert security.protect(once) == once
    later = security.protect(once.replace("<script>1<", "<script>2<"))
    assert later.count("Content-Security") == 1
    assert sha("2").replace("'", "&#x27;") in later
    with pytest.raises(security.BookError, match="ahead of its scripts"):
        security.protect("<html><script></script></html>")


# Glossary and notation ------------------------------------------------------------

ENTRY = re.compile(r"^(?P<term>[^\s`(#].*)\n    (?P<text>\S.*)$", re.MULTILINE)
TERM = re.compile(r"\{term\}`(?:[^`<]*<)?([^`>]+)>?`")
LEADS = re.compile(r"\{(eq|doc|ref|numref|prf:ref)\}`")
GLOSSARY = (ROOT / "book" / "glossary.md").read_text("utf8")
NOTATION = (ROOT / "book" / "notation.md").read_text("utf8")


def terms_used(paths):
    return {
        name.strip() for path in paths for name in TERM.findall(path.read_text("utf8"))
    }


def test_each_term_leads_to_where_it_is_defined():
    entries = {match["term"]: match["text"] for match in ENTRY.finditer(GLOSSARY)}
    assert len(entries) > 30
    assert [term for term, text in entries.items() if not LEADS.search(text)] == []


def test_each_term_is_linked_from_a_page_and_each_link_has_a_term():
    terms = {match["term"] for match in ENTRY.finditer(GLOSSARY)}
    pages = [path for path in BOOK if path.name not in ("glossary.md", "notation.md")]
    assert terms - terms_used(pages) == set()
    assert terms_used(BOOK) - terms == set()


def test_each_symbol_leads_to_its_equation_or_chapter():
    rows = [line for line in NOTATION.splitlines() if line.startswith("| $")]
    assert len(rows) > 40
    assert [row for row in rows if not LEADS.search(row.rsplit("|", 2)[1])] == []


@pytest.mark.parametrize("chapter", STANDING, ids=lambda chapter: chapter.slug)
def test_each_chapter_has_its_notation_which_leads_back(chapter):
    """`(notation-SLUG)=` above the heading; the line under the title links to it."""
    assert furniture.has_notation(chapter)
    section = NOTATION.split(f"(notation-{chapter.slug})=")[1].split("\n(notation-")[0]
    assert f"{{doc}}`{chapter.slug}/theory`" in section
