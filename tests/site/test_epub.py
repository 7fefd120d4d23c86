"""The book as an EPUB: valid, whole, and with links that lead somewhere.

It is packed afresh, to a copy of the site; where `make epub` has been run, its file is
looked at too.  epubcheck is asked where it is installed.
"""

import re
import shutil
import subprocess
import zipfile
from collections import Counter
from pathlib import Path, PurePosixPath
from urllib.parse import urldefrag
from xml.etree import ElementTree

import pytest

import make_epub
import make_pdf

from . import browser, test_pdf

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"
TOC = make_pdf.book_pages()
XHTML = "{http://www.w3.org/1999/xhtml}"
MATH = "{http://www.w3.org/1998/Math/MathML}math"
SVG = "{http://www.w3.org/2000/svg}"
OPF = "{http://www.idpf.org/2007/opf}"
DC = "{http://purl.org/dc/elements/1.1/}"
ON_SITE = re.compile(r'class="math notranslate')
MISSING_ALT = re.compile(r"<img(?![^>]*\balt=\")[^>]*>")
SHARE = 0.99  # of the words of the paragraphs


def read(path):
    """The files in an EPUB."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def parse(files, name):
    """A file of the book's folder, as XML."""
    return ElementTree.fromstring(files[f"{make_epub.INSIDE}/{name}"])


def reading_order(files):
    """The files of the spine."""
    opf = parse(files, "book.opf")
    names = {item.get("id"): item.get("href") for item in opf.iter(f"{OPF}item")}
    return [names[item.get("idref")] for item in opf.iter(f"{OPF}itemref")]


def figures(text):
    """The images of a page of the site or the book, by their alternative texts."""
    article = text[text.index("<article") : text.index("</article>")]
    return Counter(re.findall(r'<img\b[^>]*\balt="([^"]*)"', article))


def faults_of_page(page, files):
    """What the book lacks of a page of the site."""
    name = make_epub.file_of(page)
    html = (SITE / page).read_text("utf8")
    text = files[f"{make_epub.INSIDE}/{name}"].decode()
    tree = parse(files, name)
    site = make_pdf.Found(html)
    ids = [node.get("id") for node in tree.iter() if node.get("id")]
    wanted = site.equations + site.figures
    found = [f"{each} is not in it" for each in wanted if each not in ids]
    equations = sum(1 for _ in tree.iter(MATH))
    if equations != len(ON_SITE.findall(html)):
        found.append(f"{equations} equations, not {len(ON_SITE.findall(html))}")
    numbers = [node.text for node in tree.iter(f"{XHTML}span") if _is(node, "eqno")]
    if numbers != [f"({number})" for number in site.equation_numbers]:
        found.append(f"equations are numbered {numbers}")
    captions = [node.text for node in tree.iter() if _is(node, "caption-number")]
    if captions != [f"Fig. {number} " for number in site.figure_numbers]:
        found.append(f"figures are numbered {captions}")
    if figures(text) != figures(html):
        found.append(f"figures are {figures(text)}, not {figures(html)}")
    found += [f"no alternative text: {each}" for each in MISSING_ALT.findall(text)]
    words = test_pdf.Prose(page).words
    words.pop("source", None)  # a fold's title, and links to what is not in the book
    have = Counter(test_pdf.WORD.findall(" ".join(tree.itertext()).lower()))
    if (words & have).total() < SHARE * words.total():
        found.append(f"words are missing: {', '.join((words - have).keys())}")
    return found


def _is(node, name):
    return name in (node.get("class") or "").split()


def scripts(files):
    """What would run, or be fetched from elsewhere."""
    found = [name for name in files if name.endswith((".js", ".mjs"))]
    for name in files:
        if not name.endswith(".xhtml"):
            continue
        for node in ElementTree.fromstring(files[name]).iter():
            if node.tag == f"{XHTML}script":
                found.append(f"{name}: a script")
            for key, value in node.attrib.items():
                if key.startswith("on") or value.startswith("javascript:"):
                    found.append(f"{name}: {key}={value}")
                if key == "src" and "//" in value:
                    found.append(f"{name}: fetches {value}")
    return found


def dead_links(files):
    """Links within the book to a file or a place that is not there."""
    names = [name for name in files if name.endswith(".xhtml")]
    trees = {name: ElementTree.fromstring(files[name]) for name in names}
    ids = {
        name: {node.get("id") for node in tree.iter()} for name, tree in trees.items()
    }
    found = []
    for name, tree in trees.items():
        for node in tree.iter():
            for link in filter(None, (node.get("href"), node.get("src"))):
                if re.match(r"[a-z]+:", link):
                    continue
                path, fragment = urldefrag(link)
                target = str(PurePosixPath(name).parent / path) if path else name
                if target not in files or (fragment and fragment not in ids[target]):
                    found.append(f"{name}: {link}")
    return found


def faults(files):
    """What is wrong with an EPUB of the whole book."""
    found = [f"{page}: {each}" for page in TOC for each in faults_of_page(page, files)]
    return found + scripts(files) + dead_links(files)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    if browser.executable() is None:
        pytest.skip(f"no browser: none of {', '.join(browser.NAMES)} is on the path")
    site = tmp_path_factory.mktemp("packed") / "html"
    shutil.copytree(SITE, site, ignore=shutil.ignore_patterns("pdf", "epub", "lite"))
    make_epub.make(TOC, site)
    return site


@pytest.fixture(scope="module")
def files(packed):
    return read(packed / make_epub.EPUB)


def epubcheck():
    """The command that runs epubcheck; Debian's is a jar, which Java has to run."""
    path = shutil.which("epubcheck")
    if path is None:
        return None
    with open(path, "rb") as file:
        is_jar = file.read(2) == b"PK"
    return ["java", "-jar", path] if is_jar else [path]


def test_epubcheck_finds_nothing(packed):
    command = epubcheck()
    if command is None:
        pytest.skip("epubcheck is not installed (apt-get install epubcheck)")
    run = subprocess.run(
        [*command, "--failonwarnings", str(packed / make_epub.EPUB)],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_first_file_names_the_format(packed):
    with zipfile.ZipFile(packed / make_epub.EPUB) as archive:
        first = archive.infolist()[0]
        assert archive.read(first) == b"application/epub+zip"
    assert (first.filename, first.compress_type) == ("mimetype", zipfile.ZIP_STORED)


def test_the_pages_stand_in_the_order_of_the_book(files):
    wanted = [make_epub.file_of(page) for page in TOC]
    assert reading_order(files) == wanted
    links = [node for node in parse(files, "nav.xhtml").iter(f"{XHTML}a")]
    assert [node.get("href") for node in links] == wanted
    assert all(node.text.strip() for node in links)


def test_it_says_what_it_is(files):
    opf = parse(files, "book.opf")
    assert opf.find(f".//{DC}title").text == make_pdf.TITLE
    assert opf.find(f".//{DC}language").text == "en"
    cover = opf.find(f".//{OPF}item[@properties='cover-image']")
    data = files[f"{make_epub.INSIDE}/{cover.get('href')}"]
    assert data.startswith(b"\x89PNG")


@pytest.mark.parametrize("page", TOC)
def test_a_page_is_packed_whole(files, page):
    assert faults_of_page(page, files) == []


def test_nothing_in_it_runs_or_is_fetched(files):
    assert scripts(files) == []


def test_drawings_bring_their_colours(files):
    """The site's style sheet, which gives them there, is not in the book."""
    shapes = [
        node
        for name in files
        if name.endswith(".xhtml")
        for drawing in ElementTree.fromstring(files[name]).iter(f"{SVG}svg")
        for node in drawing.iter()
        if node.tag.removeprefix(SVG) in ("rect", "path", "circle", "text")
    ]
    assert shapes
    assert [
        node.attrib for node in shapes if "fill: " not in node.get("style", "")
    ] == []


def test_its_links_lead_somewhere(files):
    assert dead_links(files) == []


DAMAGE = {
    "an equation": (rb"<math\b.*?</math>", b""),
    "a number": (rb'(class="eqno">)\(\d+\)', rb"\1(?)"),
    "a figure": (rb"<img\b[^>]*>", b""),
    "a caption": (rb'(class="caption-number">)Fig', rb"\1Bild"),
    "a place": (rb' id="equation-', b' id="'),
    "a link": (rb'(<a [^>]*href="[^":#]*)#', rb"\1#no-"),
    "words": (rb"<p>.*?</p>", b""),
    "a script": (rb"</section>", b"<script></script></section>"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found(files, what):
    page = test_pdf.CHAPTER[0]
    name = f"{make_epub.INSIDE}/{make_epub.file_of(page)}"
    pattern, other = DAMAGE[what]
    count = 0 if what == "words" else 1
    made, times = re.subn(pattern, other, files[name], count=count, flags=re.DOTALL)
    assert times
    broken = {**files, name: made}
    assert faults_of_page(page, broken) + scripts(broken) + dead_links(broken)


def test_the_menu_offers_it_after_the_pdfs(packed):
    for page in TOC:
        text = (packed / page).read_text("utf8")
        (link,) = re.findall(r'href="([^"]+\.epub)"', text)
        assert ((packed / page).parent / link).is_file()
    make_pdf.offer(packed, page)
    make_epub.offer(packed, page)
    text = (packed / page).read_text("utf8")
    offered = [link.split(".")[-1] for link in re.findall(r'href="([^"]+)"', text)]
    kinds = [kind for kind in offered if kind in ("pdf", "epub")]
    assert kinds == ["pdf", "pdf", "epub"]


def test_what_make_epub_wrote_is_whole():
    if not (SITE / make_epub.EPUB).is_file():
        pytest.skip("there is no EPUB in the site: `make epub` was not run")
    assert faults(read(SITE / make_epub.EPUB)) == []
