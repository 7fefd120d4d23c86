"""The printed book: every equation, figure and word of the pages, and links that work.

A chapter and two short pages are printed afresh, to a copy of the site.
Where `make pdf` has been run, all its files are compared with the site too.
"""

import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from pypdf import PdfReader

import make_pdf

from . import browser

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"
TOC = make_pdf.book_pages()
CHAPTER = [page for page in TOC if make_pdf.chapter_of(page)][:2]
SAMPLE = ["book/index.html", *CHAPTER, "book/glossary.html"]
FILES = make_pdf.contents(SAMPLE)
WORD = re.compile(r"[a-z]{5,}")
NOT_PROSE = {"math", "report-mistake"}  # the second is left out of print
SHARE = 0.97  # of the words: ligatures and the ends of lines break some


class Prose(HTMLParser):
    """The words of the paragraphs of a page that are printed, folds included."""

    def __init__(self, page):
        super().__init__()
        self.words, self.inside = Counter(), []
        text = (SITE / page).read_text("utf8")
        self.feed(text[text.index("<article") : text.index("</article>")])

    def handle_starttag(self, tag, attrs):
        if tag in ("p", "span"):
            names = (dict(attrs).get("class") or "").split()
            self.inside.append(not NOT_PROSE.isdisjoint(names))

    def handle_endtag(self, tag):
        if tag in ("p", "span") and self.inside:
            self.inside.pop()

    def handle_data(self, data):
        if self.inside and not any(self.inside):
            self.words.update(WORD.findall(data.lower()))


def text_of(reader):
    text = "\n".join(page.extract_text() for page in reader.pages)
    return text.replace("ﬁ", "fi").replace("ﬂ", "fl").replace("ﬀ", "ff")


def links(reader):
    return [link for page in reader.pages for link in make_pdf.links_on(page)]


def addresses(reader):
    """Where the links of a file lead that lead out of it."""
    actions = [link["/A"].get_object() for link in links(reader) if "/A" in link]
    return [str(action["/URI"]) for action in actions if "/URI" in action]


def faults(pages, path):
    """What the PDF of some pages lacks."""
    reader = PdfReader(path)
    html = [make_pdf.Found((SITE / page).read_text("utf8")) for page in pages]
    found = faults_of_structure(pages, reader)
    # A figure that is cut by the end of a page is drawn on both.
    drawn = sum(len(leaf.images) for leaf in reader.pages)
    wanted = sum(each.images for each in html)
    if drawn != wanted:
        found.append(f"{drawn} images are drawn, the site has {wanted}")
    text = text_of(reader)
    found += numbers_missing(html, text)
    words = sum((Prose(page).words for page in pages), Counter())
    have = Counter(WORD.findall(text.lower()))
    share = (words & have).total() / words.total()
    if share < SHARE:
        missing = ", ".join((words - have).keys())
        found.append(f"only {share:.0%} of the words: {missing}")
    return found


def faults_of_structure(pages, reader):
    """What the PDF of some pages lacks besides the text: places, tags, outline."""
    html = [make_pdf.Found((SITE / page).read_text("utf8")) for page in pages]
    dests = set(make_pdf.destinations(reader))
    named = [name for each in html for name in each.equations + each.figures]
    found = [f"{name} is not in it" for name in named if name not in dests]
    found += untagged(reader)
    if len(top_titles(reader)) != len(pages):
        found.append(f"its outline has {top_titles(reader)}")
    found += [f"leads to {url}" for url in addresses(reader) if "127.0.0.1" in url]
    return found


def numbers_missing(html, text):
    """Numbers of equations and figures that a page shows and its PDF does not."""
    shown = set(re.findall(r"\((\d+)\)$", text, re.MULTILINE))
    captions = set(re.findall(r"^Fig\. (\d+) ", text, re.MULTILINE))
    equations = [number for each in html for number in each.equation_numbers]
    figures = [number for each in html for number in each.figure_numbers]
    return [
        *(f"no equation ({number})" for number in equations if number not in shown),
        *(f"no Fig. {number}" for number in figures if number not in captions),
    ]


def untagged(reader):
    """Pages and links whose number finds no tag of theirs."""
    root = reader.root_object
    if "/StructTreeRoot" not in root:
        return ["it has no tags"]
    tree = root["/StructTreeRoot"]
    entries = dict(make_pdf.numbered(tree["/ParentTree"]))
    found = []
    for number, leaf in enumerate(reader.pages):
        owners = entries.get(leaf.get("/StructParents"), ())
        # What goes on from the page before names that one, the rest names this.
        if leaf.indirect_reference not in map(_page, owners):
            found.append(f"page {number + 1} is not tagged as itself")
        for link in make_pdf.links_on(leaf):
            if "/StructParent" in link and link["/StructParent"] not in entries:
                found.append(f"page {number + 1}: a link has no tag")
    return found


def _page(owner):
    """The page of a tag; for a null none."""
    tag = owner.get_object()
    return None if tag is None else tag.raw_get("/Pg")


def top_titles(reader):
    """The titles at the top of the outline."""
    return [item["/Title"] for item in reader.outline if not isinstance(item, list)]


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    if browser.executable() is None:
        pytest.skip(f"no browser: none of {', '.join(browser.NAMES)} is on the path")
    site = tmp_path_factory.mktemp("printed") / "html"
    shutil.copytree(SITE, site, ignore=shutil.ignore_patterns("pdf", "lite"))
    make_pdf.make(SAMPLE, site)
    return site


@pytest.mark.parametrize("file", FILES, ids=str)
def test_what_is_printed_is_whole(printed, file):
    assert faults(FILES[file], printed / file) == []


def test_the_pages_of_a_chapter_share_a_file():
    assert make_pdf.contents(SAMPLE) == {
        make_pdf.FOLDER / "index.pdf": ["book/index.html"],
        make_pdf.pdf_of(CHAPTER[0]): CHAPTER,
        make_pdf.FOLDER / "glossary.pdf": ["book/glossary.html"],
    }
    slug = CHAPTER[0].split("/")[1]
    assert make_pdf.pdf_of(CHAPTER[1]).name == f"{slug}.pdf"


@pytest.mark.parametrize("file", FILES, ids=str)
def test_its_links_lead_to_files_of_the_site(printed, file):
    path = printed / file
    relative = [url for url in addresses(PdfReader(path)) if "://" not in url]
    targets = {url.partition("#")[0] for url in relative}
    assert [url for url in targets if not (path.parent / url).is_file()] == []
    own = [url for url in relative for page in FILES[file] if f"/{page}" in url]
    assert own == []


def test_the_menu_offers_the_files(printed):
    for page in SAMPLE:
        text = (printed / page).read_text("utf8")
        offered = re.findall(r'href="([^"]+\.pdf)"', text)
        files = [((printed / page).parent / url).resolve() for url in offered]
        wanted = [make_pdf.pdf_of(page), make_pdf.BOOK]
        assert files == [(printed / file).resolve() for file in wanted]
        assert all(file.is_file() for file in files)
        make_pdf.offer(printed, page)
        assert (printed / page).read_text("utf8") == text  # once is enough


def test_the_book_joins_the_pages_and_their_links(printed):
    book = PdfReader(printed / make_pdf.BOOK)
    parts = [PdfReader(printed / file) for file in FILES]
    assert len(book.pages) == sum(len(part.pages) for part in parts)
    assert len(links(book)) == sum(len(part_links) for part_links in map(links, parts))
    assert len(top_titles(book)) == len(SAMPLE)
    assert untagged(book) == []
    out = addresses(book)
    assert not [url for page in SAMPLE for url in out if f"/{page}" in url]
    assert not [url for url in out if "127.0.0.1" in url]


def first_page(reader, title):
    """The number of the page that an entry at the top of the outline leads to."""
    tops = [item for item in reader.outline if not isinstance(item, list)]
    return reader.get_destination_page_number(tops[title])


def goals(reader, start, end):
    """The places, page and height on it, where links on some pages lead."""
    numbers = {leaf.indirect_reference.idnum: n for n, leaf in enumerate(reader.pages)}
    dests = [
        link["/Dest"]
        for leaf in reader.pages[start:end]
        for link in make_pdf.links_on(leaf)
        if "/Dest" in link
    ]
    return {(numbers[dest[0].idnum], dest[3]) for dest in dests}


@pytest.mark.parametrize("file", [make_pdf.BOOK, make_pdf.pdf_of(CHAPTER[0])], ids=str)
def test_links_from_page_to_page_meet_their_place(printed, file):
    """Links of the coding page to the theory meet the places of those names."""
    reader = PdfReader(printed / file)
    members = SAMPLE if file == make_pdf.BOOK else CHAPTER
    theory, coding = CHAPTER
    ends = [first_page(reader, n) for n in range(len(members))] + [len(reader.pages)]
    at = members.index(coding)
    found = goals(reader, ends[at], ends[at + 1])
    places = make_pdf.destinations(reader)
    wanted = [
        fragment
        for target, fragment in (
            make_pdf.aim(coding, link)
            for link in make_pdf.Found((SITE / coding).read_text("utf8")).links
        )
        if target == theory and fragment
    ]
    assert wanted
    met = {(places[name][0], places[name][2]) for name in wanted}
    assert met <= found
    assert all(ends[at - 1] <= number < ends[at] for number, _ in met)


def test_what_make_pdf_wrote_is_whole():
    if not (SITE / make_pdf.BOOK).is_file():
        pytest.skip("there is no PDF of the book in the site: `make pdf` was not run")
    files = make_pdf.contents(TOC)
    assert [file for file in files if not (SITE / file).is_file()] == []
    wrong = {file: faults(pages, SITE / file) for file, pages in files.items()}
    book = PdfReader(SITE / make_pdf.BOOK)
    wrong[make_pdf.BOOK] = faults_of_structure(TOC, book)
    assert {file: found for file, found in wrong.items() if found} == {}
    length = sum(len(PdfReader(SITE / file).pages) for file in files)
    assert len(book.pages) == length
