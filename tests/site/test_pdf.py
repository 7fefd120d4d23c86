"""The printed book: every equation, figure and word of the pages, and links that work.

Two short pages and a chapter's coding page are printed afresh, to a copy of the site.
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
CODING = next(page for page in TOC if page.endswith("/coding.html"))
SAMPLE = ["book/index.html", CODING, "book/glossary.html"]
WORD = re.compile(r"[a-z]{5,}")
SHARE = 0.97  # of the words: ligatures and the ends of lines break some


class Prose(HTMLParser):
    """The words of the paragraphs of a page, folds included; no link to report by."""

    def __init__(self, page):
        super().__init__()
        self.words, self.inside = Counter(), []
        text = (SITE / page).read_text("utf8")
        self.feed(text[text.index("<article") : text.index("</article>")])

    def handle_starttag(self, tag, attrs):
        if tag in ("p", "span"):
            kind = dict(attrs).get("class") or ""
            self.inside.append("math" in kind or "report-mistake" in kind)

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


def faults(page, path):
    """What the PDF of a page lacks."""
    reader = PdfReader(path)
    html = make_pdf.Found((SITE / page).read_text("utf8"))
    dests = set(make_pdf.destinations(reader))
    found = [f"{each} is not in it" for each in html.equations if each not in dests]
    found += [f"{each} is not in it" for each in html.figures if each not in dests]
    # A figure that is cut by the end of a page is drawn on both.
    drawn = sum(len(leaf.images) for leaf in reader.pages)
    if drawn != html.images:
        found.append(f"{drawn} images are drawn, the page has {html.images}")
    text = text_of(reader)
    captions = len(set(re.findall(r"^Fig\. (\d+) ", text, re.MULTILINE)))
    if captions < len(html.figures):
        found.append(f"{captions} captions, {len(html.figures)} figures")
    words = Prose(page).words
    have = Counter(WORD.findall(text.lower()))
    share = (words & have).total() / words.total()
    if share < SHARE:
        missing = ", ".join((words - have).keys())
        found.append(f"only {share:.0%} of the words: {missing}")
    if "/StructTreeRoot" not in reader.trailer["/Root"]:
        found.append("it has no tags")
    if not reader.outline:
        found.append("it has no outline")
    found += [f"leads to {url}" for url in addresses(reader) if "127.0.0.1" in url]
    return found


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    if browser.executable() is None:
        pytest.skip(f"no browser: none of {', '.join(browser.NAMES)} is on the path")
    site = tmp_path_factory.mktemp("printed") / "html"
    shutil.copytree(SITE, site, ignore=shutil.ignore_patterns("pdf", "lite"))
    make_pdf.make(SAMPLE, site)
    return site


@pytest.mark.parametrize("page", SAMPLE)
def test_a_page_is_printed_whole(printed, page):
    assert faults(page, printed / make_pdf.pdf_of(page)) == []


@pytest.mark.parametrize("page", SAMPLE)
def test_its_links_lead_to_files_of_the_site(printed, page):
    path = printed / make_pdf.pdf_of(page)
    relative = [url for url in addresses(PdfReader(path)) if "://" not in url]
    targets = {url.partition("#")[0] for url in relative}
    assert [url for url in targets if not (path.parent / url).is_file()] == []


def test_the_menu_offers_the_files(printed):
    for page in SAMPLE:
        text = (printed / page).read_text("utf8")
        offered = re.findall(r'href="([^"]+\.pdf)"', text)
        assert len(offered) == 2
        assert all(((printed / page).parent / url).is_file() for url in offered)
        make_pdf.offer(printed, page)
        assert (printed / page).read_text("utf8") == text  # once is enough


def test_the_book_joins_the_pages_and_their_links(printed):
    book = PdfReader(printed / make_pdf.BOOK)
    parts = [PdfReader(printed / make_pdf.pdf_of(page)) for page in SAMPLE]
    assert len(book.pages) == sum(len(part.pages) for part in parts)
    assert len(links(book)) == sum(len(part_links) for part_links in map(links, parts))
    titles = [item["/Title"] for item in book.outline if not isinstance(item, list)]
    assert len(titles) == len(SAMPLE)
    out = addresses(book)
    assert not [url for page in SAMPLE for url in out if url.endswith(page)]
    assert not [url for url in out if "127.0.0.1" in url]


def test_links_from_page_to_page_meet_their_place(printed):
    """The first page of the book links to the coding page, which starts after it."""
    book = PdfReader(printed / make_pdf.BOOK)
    first = len(PdfReader(printed / make_pdf.pdf_of(SAMPLE[0])).pages)
    numbers = {leaf.indirect_reference.idnum: n for n, leaf in enumerate(book.pages)}
    dests = [
        numbers[link["/Dest"][0].idnum]
        for leaf in book.pages[:first]
        for link in make_pdf.links_on(leaf)
        if "/Dest" in link
    ]
    assert first in dests


def test_what_make_pdf_wrote_is_whole():
    if not (SITE / make_pdf.BOOK).is_file():
        pytest.skip("there is no PDF of the book in the site: `make pdf` was not run")
    made = {page: SITE / make_pdf.pdf_of(page) for page in TOC}
    wrong = {page: faults(page, path) for page, path in made.items() if path.is_file()}
    assert {page: found for page, found in wrong.items() if found} == {}
    assert [page for page, path in made.items() if not path.is_file()] == []
