"""Print the built site: a PDF of every chapter, and one of the whole book.

    python tools/make_pdf.py [PAGE ...]

Headless Chromium prints the pages in the order of _toc.yml, tagged and with outlines.
The pages in a chapter's folder are joined; a page that belongs to no chapter has a PDF
of its own.  A link to a page in the same PDF stays in it, others lead to the site.  The
files lie in _static/pdf of the site; download menus offer them.  When a page is built
again, its PDF is out of date: it is offered again after `make pdf`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

import yaml
from playwright.sync_api import BrowserContext
from pypdf import PdfReader, PdfWriter
from pypdf.generic import (
    ArrayObject,
    BooleanObject,
    DictionaryObject,
    FloatObject,
    NameObject,
    NullObject,
    NumberObject,
    TextStringObject,
)
from sphinx_external_toc.parsing import parse_toc_yaml

import browser
from mlfs.book.chapters import CHAPTERS, Chapter

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
TITLE = "Machine Learning from Scratch"
FOLDER = PurePosixPath("_static", "pdf")
BOOK = FOLDER / "machine-learning-from-scratch.pdf"
WIDTH = 800  # px of the text, set on A4 between the margins
MARGIN = "16mm"
SCALE = (210 - 2 * 16) / 25.4 * 96 / WIDTH

# Every fold is opened and every figure loaded; a link to an element, shown or not, has
# Chromium note its place, which links from other pages need.
PREPARE = """async (ids) => {
    for (const fold of document.querySelectorAll("article details")) fold.open = true;
    document.querySelectorAll(".toggle-hidden").forEach((fold) => {
        fold.classList.remove("toggle-hidden");
    });
    for (const id of ids) {
        const link = document.createElement("a");
        link.href = `#${id}`;
        link.hidden = true;
        document.body.append(link);
    }
    const images = [...document.querySelectorAll("article img")];
    images.forEach((image) => { image.loading = "eager"; });
    await Promise.all(images.map((image) => image.decode().catch(() => null)));
}"""

# An equation or a table that is wider than the paper is set smaller.
FIT = """() => {
    const boxes = "article div.math, article div.cell_output .output, article table";
    for (const box of document.querySelectorAll(boxes)) {
        const room = box.closest("div, dd, li").clientWidth;
        const needed = box.scrollWidth;
        if (needed > room + 1) {
            const content = box.querySelector("mjx-container") ?? box;
            content.style.zoom = String(Math.max(0.4, (0.98 * room) / needed));
        }
    }
}"""

FOOT = """<div style="width: 100%; padding: 0 16mm; font-size: 8px; color: #555;
    display: flex; justify-content: space-between; font-family: sans-serif">
    <span class="title"></span><span class="pageNumber"></span></div>"""
# The theme's button, or what stands in its place since the last run.
OFFER = re.compile(
    r"<li>\s*<(?:button|a)\b[^>]*\bbtn-download-pdf-button\b.*?</li>"
    r"(?:\s*<li class=\"whole-book\">.*?</li>)?",
    re.DOTALL,
)


class Found(HTMLParser):
    """What a page of the site says of itself: ids, links, equations, figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.equations: list[str] = []  # ids of the numbered ones
        self.figures: list[str] = []
        self.equation_numbers = re.findall(r'class="eqno">\((\d+)\)', text)
        self.figure_numbers = re.findall(r'class="caption-number">Fig\. (\d+)', text)
        self.images = 0
        self._article = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what matters."""
        given = {key: value or "" for key, value in attrs}
        self._article |= tag == "article"
        if not self._article:
            return
        name = given.get("id", "")
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "div" and name.startswith("equation-"):
            self.equations.append(name)
        if tag == "figure" and name:
            self.figures.append(name)
        self.images += tag == "img"

    def handle_endtag(self, tag: str) -> None:
        """Links outside the article belong to the theme."""
        self._article &= tag != "article"


def book_pages(root: Path = ROOT) -> list[str]:
    """The pages of _toc.yml in the order of the book, as files of the site."""
    documents = parse_toc_yaml(root / "_toc.yml")
    return [f"{str(name).removesuffix('.md')}.html" for name in documents]


def chapter_of(page: str) -> Chapter | None:
    """The chapter in whose folder a page lies."""
    folder = PurePosixPath(page).parent
    found = (each for each in CHAPTERS if folder == PurePosixPath("book", each.slug))
    return next(found, None)


def pdf_of(page: str) -> PurePosixPath:
    """Where the PDF lies that a page is in: its chapter's, or its own."""
    chapter = chapter_of(page)
    name = page.removeprefix("book/").removesuffix(".html").replace("/", "-")
    return FOLDER / f"{chapter.slug if chapter else name}.pdf"


def contents(pages: Iterable[str]) -> dict[PurePosixPath, list[str]]:
    """For every PDF but the book's the pages in it, in their order."""
    found: dict[PurePosixPath, list[str]] = {}
    for page in pages:
        found.setdefault(pdf_of(page), []).append(page)
    return found


def aim(page: str, link: str) -> tuple[str, str]:
    """The file of the site that a link on `page` leads to, and the place in it."""
    path, fragment = urldefrag(link)
    if not path:
        return page, unquote(fragment)
    joined = os.path.normpath(PurePosixPath(page).parent / unquote(path))
    return joined, unquote(fragment)


def places(site: Path, pages: Iterable[str]) -> dict[str, set[str]]:
    """For every page the ids that links, or the check, want to find in its PDF."""
    wanted: dict[str, set[str]] = {page: set() for page in pages}
    for page in wanted:
        found = Found((site / page).read_text("utf8"))
        wanted[page].update(found.equations, found.figures)
        for link in found.links:
            if not urlsplit(link).netloc:
                target, fragment = aim(page, link)
                if target in wanted and fragment:
                    wanted[target].add(fragment)
    return wanted


def print_page(context: BrowserContext, url: str, ids: set[str], target: Path) -> None:
    """Print one page of the site.

    Raises:
        ValueError: the page has an error, which is quoted.
    """
    with browser.visit(context, url) as (page, wrong):
        page.emulate_media(media="print", color_scheme="light")
        page.evaluate(PREPARE, sorted(ids))
        page.evaluate(FIT)
        if wrong:
            raise ValueError(f"{url} cannot be printed: {'; '.join(wrong)}")
        sides = dict.fromkeys(("left", "right", "top", "bottom"), MARGIN)
        page.pdf(
            path=target,
            format="A4",
            scale=SCALE,
            margin=sides,  # type: ignore[arg-type]
            print_background=True,
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOT,
            tagged=True,
            outline=True,
        )


# Links ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """A printed page, and where its pages start in the joined file."""

    page: str
    start: int
    length: int
    dests: dict[str, tuple[int, Any, Any]]  # name -> page within the part, left, top


def destinations(reader: PdfReader) -> dict[str, tuple[int, Any, Any]]:
    """Named places of a printed page."""
    found = {}
    for name, dest in reader.named_destinations.items():
        number = reader.get_destination_page_number(dest)
        if number is not None:
            found[unquote(name.lstrip("/"))] = (number, dest.left, dest.top)
    return found


def links_on(page: Any) -> Iterator[DictionaryObject]:
    """The links on a page of a PDF."""
    for each in page.get("/Annots") or []:
        link = each.get_object()
        if link.get("/Subtype") == "/Link":
            yield link


def goal(link: DictionaryObject, page: str, address: str) -> tuple[str, str] | None:
    """Page and place of the site that a link leads to; None for other hosts."""
    action: Any = link["/A"].get_object() if "/A" in link else DictionaryObject()
    inner = link.get("/Dest", action.get("/D"))
    if isinstance(inner, str):
        return page, unquote(str(inner).lstrip("/"))
    url = str(action.get("/URI", ""))
    if not url.startswith(address):
        return None
    path, fragment = urldefrag(url.removeprefix(address).lstrip("/"))
    return unquote(path), unquote(fragment)


def lead_out(link: DictionaryObject, target: str, fragment: str, base: str) -> None:
    """Have a link lead to the site: to its address, or to the files beside the PDF."""
    here = base.rstrip("/") if base else "/".join([".."] * len(FOLDER.parts))
    uri = f"{here}/{target}" + (f"#{fragment}" if fragment else "")
    action = {"/S": NameObject("/URI"), "/URI": TextStringObject(uri)}
    link[NameObject("/A")] = DictionaryObject(
        {NameObject(key): value for key, value in action.items()}
    )


def lead_within(link: DictionaryObject, writer: PdfWriter, part: Part, to: str) -> None:
    """Have a link lead to a place in the joined file."""
    number, left, top = part.dests.get(to, (0, None, None))
    ref = writer.pages[part.start + number].indirect_reference
    view = [
        NullObject() if value is None else FloatObject(value)
        for value in (left, top, None)
    ]
    for key in ("/A", "/Dest"):
        if key in link:
            del link[key]
    link[NameObject("/Dest")] = ArrayObject([ref, NameObject("/XYZ"), *view])


def numbered(node: DictionaryObject) -> Iterator[tuple[int, Any]]:
    """The entries of a number tree, a sorted map that a PDF keeps in pieces."""
    flat: Any = node.get("/Nums", [])
    yield from ((int(flat[i]), flat[i + 1]) for i in range(0, len(flat), 2))
    kids: Any = node.get("/Kids", [])
    for kid in kids:
        yield from numbered(kid.get_object())


def tag(writer: PdfWriter, readers: list[PdfReader]) -> None:
    """Give the joined file the tags of its parts, which say what is a heading.

    Pages and links name their tags by number; each part's numbers follow the last's.
    """
    top = DictionaryObject({NameObject("/Type"): NameObject("/StructTreeRoot")})
    root = writer._add_object(top)
    kids, entries, leaves = ArrayObject(), ArrayObject(), iter(writer.pages)
    for reader in readers:
        given: Any = reader.root_object["/StructTreeRoot"]
        tree = given.clone(writer).get_object()
        number_of: dict[Any, NumberObject] = {}
        for number, owner in numbered(tree["/ParentTree"]):
            number_of[number] = NumberObject(len(entries) // 2)
            entries.extend([number_of[number], owner])
        within = tree["/K"]
        for kid in within if isinstance(within, ArrayObject) else [tree.raw_get("/K")]:
            kid.get_object()[NameObject("/P")] = root
            kids.append(kid)
        # pypdf leaves the numbers of pages out where it joins.
        for original in reader.pages:
            leaf = next(leaves)
            leaf[NameObject("/StructParents")] = number_of[original["/StructParents"]]
            for link in links_on(leaf):
                if "/StructParent" in link:
                    old = link["/StructParent"]
                    link[NameObject("/StructParent")] = number_of[old]
    top[NameObject("/K")] = kids
    top[NameObject("/ParentTree")] = DictionaryObject({NameObject("/Nums"): entries})
    top[NameObject("/ParentTreeNextKey")] = NumberObject(len(entries) // 2)
    writer.root_object[NameObject("/StructTreeRoot")] = root
    writer.root_object[NameObject("/MarkInfo")] = DictionaryObject(
        {NameObject("/Marked"): BooleanObject(True)}
    )


def title_of(file: PurePosixPath, parts: dict[str, Path]) -> str:
    """The title of a PDF: the book's, its chapter's, or its page's."""
    first = next(iter(parts))
    chapter = chapter_of(first)
    if file == BOOK:
        return TITLE
    if chapter is not None:
        return f"{chapter.title} · {TITLE}"
    return str(PdfReader(parts[first]).metadata.title)  # type: ignore[union-attr]


def join(
    paths: dict[str, Path], target: Path, address: str, base: str, title: str
) -> None:
    """Join printed pages; links between them stay within, others lead to the site."""
    writer, parts, readers = PdfWriter(), {}, []
    for page, path in paths.items():
        reader = PdfReader(path)
        start = len(writer.pages)
        parts[page] = Part(page, start, len(reader.pages), destinations(reader))
        writer.append(reader, import_outline=True)
        readers.append(reader)
    for part in parts.values():
        for number in range(part.start, part.start + part.length):
            for link in links_on(writer.pages[number]):
                found = goal(link, part.page, address)
                if found is not None and found[0] in parts:
                    lead_within(link, writer, parts[found[0]], found[1])
                elif found is not None:
                    lead_out(link, *found, base)
    tag(writer, readers)
    writer.add_metadata({"/Title": title})
    writer.root_object[NameObject("/Lang")] = TextStringObject("en")
    writer.compress_identical_objects()
    writer.write(target)


# The site -------------------------------------------------------------------------


def offer(site: Path, page: str) -> None:
    """Put the PDFs into the download menu of a page.

    Raises:
        ValueError: the page has no such menu.
    """
    path = site / page
    up = "/".join([".."] * (len(PurePosixPath(page).parts) - 1))
    item = (
        '<a href="{up}/{file}" '
        'class="btn btn-sm btn-download-pdf-button dropdown-item">'
        '<span class="btn__icon-container"><i class="fas fa-file-pdf"></i></span>'
        '<span class="btn__text-container">{text}</span></a></li>'
    )
    what = "page" if chapter_of(page) is None else "chapter"
    menu = "<li>" + item.format(up=up, file=pdf_of(page), text=f".pdf of this {what}")
    menu += '\n<li class="whole-book">'
    menu += item.format(up=up, file=BOOK, text=".pdf of the book")
    text, count = OFFER.subn(lambda _: menu, path.read_text("utf8"), count=1)
    if not count:
        raise ValueError(
            f"{page} has no button to print it, where the PDFs are offered"
        )
    path.write_text(text, "utf8")


def public_address(root: Path = ROOT) -> str:
    """Where the site is published, if _config.yml says so."""
    config = yaml.safe_load((root / "_config.yml").read_text("utf8"))
    return str((config.get("html") or {}).get("baseurl") or "")


def make(pages: list[str], site: Path = SITE, base: str = "") -> dict[str, int]:
    """Print the pages; for every PDF the number of its pages of paper comes back."""
    (site / FOLDER).mkdir(parents=True, exist_ok=True)
    wanted = places(site, pages)
    counts = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        browser.serve(site) as address,
        browser.chromium() as chromium,
    ):
        paths = {page: Path(folder, f"{n}.pdf") for n, page in enumerate(pages)}
        size = {"width": WIDTH, "height": 1000}
        context = chromium.new_context(
            color_scheme="light",
            viewport=size,  # type: ignore[arg-type]
        )
        for page, path in paths.items():
            print_page(context, f"{address}/{page}", wanted[page], path)
            print(f"printed {page}", flush=True)
        for file, members in {**contents(pages), BOOK: pages}.items():
            parts = {page: paths[page] for page in members}
            join(parts, site / file, address, base, title_of(file, parts))
            counts[file.name] = len(PdfReader(site / file).pages)
    for page in pages:
        offer(site, page)
    return counts


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("pages", nargs="*", help="pages of the site; all of the book")
    given = parser.parse_args().pages
    if not (SITE / "index.html").is_file():
        print("there is no site in _build/html: run `make book` first")
        return 1
    if browser.executable() is None:
        print(f"nothing printed, no browser: none of {', '.join(browser.NAMES)}")
        return 0
    # Chromium counts its objects otherwise than pypdf does; both files are sound.
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    counts = make(given or book_pages(), base=public_address())
    print(json.dumps(counts, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
