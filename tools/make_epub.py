"""Pack the built site as one EPUB: the pages as XHTML, equations as MathML.

    python tools/make_epub.py

Headless Chromium opens the pages in the order of _toc.yml; what MathJax made of the
equations for screen readers is the MathML of the book.  Nothing in the file is a
script, and every fold is open.  Links between pages stay in the book; a link to a file
that is not in it leads to the published site, or is plain text without an address.
The download menus of the pages offer the file.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import yaml
from playwright.sync_api import Browser, BrowserContext
from pygments.formatters import HtmlFormatter
from sphinx_external_toc.parsing import parse_toc_yaml

import browser
import bundle
import make_pdf

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
EPUB = PurePosixPath("_static", "epub", "machine-learning-from-scratch.epub")
INSIDE = "book"  # the folder of the book's files in the archive
COVER = (1200, 1600)  # px
KINDS = {
    ".xhtml": "application/xhtml+xml",
    ".css": "text/css",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".gif": "image/gif",
    ".svg": "image/svg+xml",
}

# The article of a page as XHTML.  `files` names the file of each page of the book.
EXTRACT = """({files, base}) => {
    const article = document.querySelector("article");
    for (const item of window.MathJax?.startup?.document?.math ?? []) {
        const math = item.typesetRoot.querySelector("mjx-assistive-mml math");
        math.setAttribute("alttext", item.math.trim());
        item.typesetRoot.replaceWith(math);
    }
    const left = "script, style, noscript, button, input, link, .headerlink, "
        + ".viewcode-link, .viewcode-back, .report-mistake, .only-dark, "
        + "details.hide > summary";
    article.querySelectorAll(left).forEach((node) => node.remove());

    const rename = (node, name) => {
        const made = document.createElement(name);
        for (const {name: key, value} of node.attributes) made.setAttribute(key, value);
        made.append(...node.childNodes);
        node.replaceWith(made);
        return made;
    };
    article.querySelectorAll("details").forEach((node) => rename(node, "div"));
    article.querySelectorAll("summary").forEach((node) => {
        rename(node, "div").className = "admonition-title";
    });
    article.querySelectorAll("label").forEach((node) => {
        rename(node, "p").className = "admonition-title";  // of a tab
    });

    const seen = new Set();
    for (const node of article.querySelectorAll("*")) {
        for (const {name} of [...node.attributes]) {
            const math = node.namespaceURI.endsWith("MathML");
            const needless = /^(on|data-|tabindex$|open$)/.test(name)
                || (math && (name === "class" || name === "style"));
            if (needless) node.removeAttribute(name);
        }
        if (node.getAttribute("role") === "group") {  // it can be scrolled on the site
            node.removeAttribute("role");
            node.removeAttribute("aria-label");
        }
        if (node.id && seen.has(node.id)) node.removeAttribute("id");
        seen.add(node.id);
    }

    for (const link of article.querySelectorAll("a[href]")) {
        const url = new URL(link.getAttribute("href"), location.href);
        if (url.origin !== location.origin) continue;
        const path = decodeURIComponent(url.pathname).slice(1);
        if (path in files) {
            link.setAttribute("href", files[path] + decodeURIComponent(url.hash));
        } else if (base) {
            link.setAttribute("href", `${base}/${path}${url.hash}`);
        } else {
            link.replaceWith(...link.childNodes);
        }
    }

    // The columns of aligned equations: what the attribute says, few programs heed.
    for (const table of article.querySelectorAll("mtable[columnalign]")) {
        const sides = table.getAttribute("columnalign").split(" ");
        const apart = (table.getAttribute("columnspacing") ?? "1em").split(" ");
        for (const row of table.children) {
            [...row.children].forEach((cell, n) => {
                cell.style.textAlign = sides.at(Math.min(n, sides.length - 1));
                const space = apart.at(Math.min(n, apart.length - 1));
                if (parseFloat(space) === 0) cell.style.paddingInline = "0";
            });
        }
    }

    // A drawing has its colours from the site's style sheet.
    for (const shape of article.querySelectorAll("svg *")) {
        const style = getComputedStyle(shape);
        for (const name of ["fill", "stroke", "stroke-width", "stroke-dasharray",
                            "opacity", "font-size", "text-anchor"]) {
            shape.style.setProperty(name, style.getPropertyValue(name));
        }
    }
    for (const link of article.querySelectorAll("svg a")) {
        const title = document.createElementNS(link.namespaceURI, "title");
        title.textContent = link.getAttribute("aria-label") ?? link.textContent.trim();
        link.prepend(title);
    }

    const images = {};
    for (const image of article.querySelectorAll("img")) {
        const path = decodeURIComponent(new URL(image.src).pathname).slice(1);
        const name = `images/${path.replace("_images/", "").replaceAll("/", "-")}`;
        images[name] = path;
        image.setAttribute("src", name);
        image.removeAttribute("loading");
    }
    return {
        title: article.querySelector("h1").textContent.trim(),
        body: new XMLSerializer().serializeToString(article),
        images,
        mathml: article.querySelector("math") !== null,
        svg: article.querySelector("svg") !== null,
    };
}"""

PAGE = """<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE html>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops"
  lang="en" xml:lang="en">
<head>
<meta charset="utf-8"/>
<title>{title}</title>
<link rel="stylesheet" type="text/css" href="book.css"/>
</head>
<body>
{body}
</body>
</html>
"""

CONTAINER = f"""<?xml version="1.0" encoding="utf-8"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
<rootfiles>
<rootfile full-path="{INSIDE}/book.opf" media-type="application/oebps-package+xml"/>
</rootfiles>
</container>
"""

PACKAGE = """<?xml version="1.0" encoding="utf-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" xml:lang="en"
  unique-identifier="id">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:identifier id="id">{identifier}</dc:identifier>
<dc:title>{title}</dc:title>
<dc:creator>{author}</dc:creator>
<dc:language>en</dc:language>
<dc:description>{abstract}</dc:description>
<dc:source>{source}</dc:source>
<dc:rights>Text and figures: CC BY 4.0. Code: MIT.</dc:rights>
<meta property="dcterms:modified">{modified}</meta>
<meta property="schema:accessMode">textual</meta>
<meta property="schema:accessMode">visual</meta>
<meta property="schema:accessModeSufficient">textual</meta>
<meta property="schema:accessibilityFeature">alternativeText</meta>
<meta property="schema:accessibilityFeature">MathML</meta>
<meta property="schema:accessibilityFeature">readingOrder</meta>
<meta property="schema:accessibilityFeature">structuralNavigation</meta>
<meta property="schema:accessibilityFeature">tableOfContents</meta>
<meta property="schema:accessibilityHazard">none</meta>
<meta name="cover" content="cover"/>
</metadata>
<manifest>
{manifest}
</manifest>
<spine>
{spine}
</spine>
</package>
"""

FACE = """<body style="margin: 0; background: #fff; color: #1d3b4a; text-align: center;
    font-family: sans-serif">
<h1 style="margin: 220px 80px 0; font-size: 118px; line-height: 1.2">{title}</h1>
<div style="width: 700px; margin: 200px auto">{logo}</div>
<p style="margin: 0 120px; font-size: 40px">{author}</p></body>"""

OFFER = re.compile(
    rf"(?P<pdf>{make_pdf.OFFER.pattern})(?:\s*<li class=\"epub\">.*?</li>)?", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Document:
    """A page of the site as a file of the book."""

    file: str
    title: str
    text: str
    images: Mapping[str, str]  # name in the book -> path on the site
    properties: str  # what the manifest must say is in it


def file_of(page: str) -> str:
    """The file of the book that a page of the site becomes."""
    return page.removeprefix("book/").replace("/", "-").replace(".html", ".xhtml")


def extract(
    context: BrowserContext, url: str, page: str, files: Mapping[str, str], base: str
) -> Document:
    """One page of the site as XHTML.

    Raises:
        ValueError: the page has an error, which is quoted.
    """
    with browser.visit(context, f"{url}/{page}") as (opened, wrong):
        if wrong:
            raise ValueError(f"{page} cannot be packed: {'; '.join(wrong)}")
        found: dict[str, Any] = opened.evaluate(
            EXTRACT, {"files": dict(files), "base": base.rstrip("/")}
        )
    text = PAGE.format(title=escape(found["title"]), body=found["body"])
    kinds = [kind for kind in ("mathml", "svg") if found[kind]]
    return Document(files[page], found["title"], text, found["images"], " ".join(kinds))


def cover(chromium: Browser, title: str, author: str) -> bytes:
    """The cover as a picture."""
    logo = (ROOT / "book" / "_static" / "logo.svg").read_text("utf8")
    logo = logo.replace('width="200" height="72"', 'width="100%"')
    width, height = COVER
    page = chromium.new_page(viewport={"width": width, "height": height})
    try:
        page.set_content(
            FACE.format(title=escape(title), logo=logo, author=escape(author))
        )
        return page.screenshot()
    finally:
        page.close()


# The parts of the archive ---------------------------------------------------------


def outline(root: Path = ROOT) -> list[Any]:
    """The contents in their order: pages, and (page or caption, its pages)."""
    documents = parse_toc_yaml(root / "_toc.yml")

    def under(name: str) -> Iterator[Any]:
        for tree in documents[name].subtrees:
            inner = [(str(item), list(under(str(item)))) for item in tree.items]
            if tree.caption:
                yield (tree.caption, inner)
            else:
                yield from inner

    return [(documents.root.docname, []), *under(documents.root.docname)]


def navigation(entries: list[Any], documents: Mapping[str, Document]) -> str:
    """The table of contents as nested lists; a caption is no link."""
    lines = ["<ol>"]
    for name, inner in entries:
        document = documents.get(name)
        if document is None:
            shown = f"<span>{escape(name)}</span>"
        else:
            shown = f'<a href="{document.file}">{escape(document.title)}</a>'
        within = navigation(inner, documents) if inner else ""
        lines.append(f"<li>{shown}{within}</li>")
    return "\n".join([*lines, "</ol>"])


def changed(root: Path = ROOT) -> str:
    """When the commit was made that is packed; outside a repository a fixed date."""
    year, month, day = bundle.EPOCH[:3]
    try:
        run = subprocess.run(
            ["git", "log", "-1", "--format=%ct"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
        when = datetime.fromtimestamp(int(run.stdout), UTC)
    except (OSError, subprocess.CalledProcessError, ValueError):
        when = datetime(year, month, day, tzinfo=UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def package(
    about: Mapping[str, Any], documents: list[Document], images: list[str]
) -> str:
    """The file that lists all others, and says what book this is."""
    items = [
        '<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" '
        'properties="nav"/>',
        '<item id="css" href="book.css" media-type="text/css"/>',
        '<item id="cover" href="cover.png" media-type="image/png" '
        'properties="cover-image"/>',
    ]
    for number, document in enumerate(documents):
        properties = (
            f' properties="{document.properties}"' if document.properties else ""
        )
        items.append(
            f'<item id="page{number}" href="{document.file}" '
            f'media-type="{KINDS[".xhtml"]}"{properties}/>'
        )
    for number, name in enumerate(images):
        kind = KINDS[PurePosixPath(name).suffix]
        items.append(f'<item id="image{number}" href="{name}" media-type="{kind}"/>')
    spine = [f'<itemref idref="page{number}"/>' for number in range(len(documents))]
    source = about["repository-code"]
    return PACKAGE.format(
        identifier=f"urn:uuid:{uuid5(NAMESPACE_URL, source)}",
        title=escape(about["title"]),
        author=escape(about["authors"][0]["name"]),
        abstract=escape(about["abstract"].strip()),
        source=escape(source),
        modified=changed(),
        manifest="\n".join(items),
        spine="\n".join(spine),
    )


def style() -> str:
    """The style sheet, with the colours of code."""
    colours = HtmlFormatter(style="a11y-light").get_style_defs(".highlight")
    return (ROOT / "tools" / "epub.css").read_text("utf8") + str(colours) + "\n"


def archive(
    site: Path, documents: Mapping[str, Document], face: bytes, about: Mapping[str, Any]
) -> dict[str, bytes]:
    """Every file of the book by its path; `documents` are named by document.

    Raises:
        ValueError: two images of the site would have one name, or one is of a kind
            that reading programs need not show.
    """
    images: dict[str, str] = {}
    for document in documents.values():
        for name, path in document.images.items():
            if images.setdefault(name, path) != path:
                raise ValueError(f"{images[name]} and {path} would both be {name}")
            if PurePosixPath(name).suffix not in KINDS:
                raise ValueError(f"{path} is an image, want one of {', '.join(KINDS)}")
    nav = navigation(outline(), documents)
    body = f'<nav epub:type="toc" role="doc-toc"><h1>Contents</h1>\n{nav}\n</nav>'
    texts = {
        "book.opf": package(about, list(documents.values()), sorted(images)),
        "nav.xhtml": PAGE.format(title="Contents", body=body),
        "book.css": style(),
        **{document.file: document.text for document in documents.values()},
    }
    files = {"mimetype": b"application/epub+zip"}  # must be the first
    files["META-INF/container.xml"] = CONTAINER.encode()
    files |= {f"{INSIDE}/{name}": text.encode() for name, text in texts.items()}
    files[f"{INSIDE}/cover.png"] = face
    for name in sorted(images):
        files[f"{INSIDE}/{name}"] = (site / images[name]).read_bytes()
    return files


# The site -------------------------------------------------------------------------


def offer(site: Path, page: str) -> None:
    """Put the EPUB into the download menu of a page, after its PDFs.

    Raises:
        ValueError: the page has no such menu.
    """
    path = site / page
    up = "/".join([".."] * (len(PurePosixPath(page).parts) - 1))
    item = (
        f'\n<li class="epub"><a href="{up}/{EPUB}" '
        'class="btn btn-sm btn-download-epub-button dropdown-item">'
        '<span class="btn__icon-container"><i class="fas fa-file"></i></span>'
        '<span class="btn__text-container">.epub of the book</span></a></li>'
    )
    text, count = OFFER.subn(
        lambda found: found["pdf"] + item, path.read_text("utf8"), count=1
    )
    if not count:
        raise ValueError(f"{page} has no download menu, where the EPUB is offered")
    path.write_text(text, "utf8")


def make(pages: list[str], site: Path = SITE, base: str = "") -> Path:
    """Pack the pages; the path of the EPUB comes back."""
    about = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))
    files = {page: file_of(page) for page in pages}
    documents = {}
    with browser.serve(site) as address, browser.chromium() as chromium:
        face = cover(chromium, about["title"], about["authors"][0]["name"])
        context = chromium.new_context(color_scheme="light")
        for page in pages:
            name = page.removesuffix(".html")
            documents[name] = extract(context, address, page, files, base)
            print(f"packed {page}", flush=True)
    path = site / EPUB
    bundle.pack(path, archive(site, documents, face, about), stored="mimetype")
    for page in pages:
        offer(site, page)
    return path


def main() -> int:
    """Run from the command line."""
    if not (SITE / "index.html").is_file():
        print("there is no site in _build/html: run `make book` first")
        return 1
    if browser.executable() is None:
        print(f"nothing packed, no browser: none of {', '.join(browser.NAMES)}")
        return 0
    path = make(make_pdf.book_pages(), base=make_pdf.public_address())
    print(f"{path.stat().st_size / 1e6:.1f} MB in {EPUB}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
