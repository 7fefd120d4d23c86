"""The built site: nothing from outside, nothing broken, readable by everybody.

The files are read as they are, then every page is opened in Chromium at three
widths, light and dark.  Run after `make book`.
"""

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from icalendar import Calendar

from . import browser

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"
FRONT = "index.html"  # the builder's redirect to the landing page

if not (SITE / FRONT).is_file():
    pytest.fail("there is no site in _build/html: run `make book` first", pytrace=False)

NOT_OURS = ("_static", "lite")  # files of the theme; JupyterLite, if it was built
PAGES = sorted(
    path.relative_to(SITE).as_posix()
    for path in SITE.rglob("*.html")
    if path.relative_to(SITE).parts[0] not in NOT_OURS
)

LOADS = {  # attributes whose address the browser fetches by itself
    **dict.fromkeys(("script", "iframe", "audio", "embed", "track"), ("src",)),
    **dict.fromkeys(("img", "source"), ("src", "srcset")),
    **dict.fromkeys(("image", "use"), ("href", "xlink:href")),
    "video": ("src", "poster"),
    "object": ("data",),
    "link": ("href",),
}
OUTSIDE = re.compile(r"\s*(?:[a-z][a-z+.-]*:)?//", re.IGNORECASE)
IN_STYLE = re.compile(
    r"(?:url\(|@import)\s*[\"']?\s*(?:[a-z]+:)?//[^\"')\s]+", re.IGNORECASE
)
WORDS_OF_ALT = 3  # a file name or a single word describes no figure


class Page(HTMLParser):
    """What one page loads, links to, defines and shows."""

    def __init__(self, name):
        super().__init__()
        self.loads, self.links, self.images, self.ids = [], [], [], set()
        self.inside = [None]
        self.text = (SITE / name).read_text("utf8")
        self.feed(self.text)

    def handle_starttag(self, tag, attrs):
        given = {key: value or "" for key, value in attrs}
        self.inside.append(tag)
        if given.get("rel") != "canonical":
            self.loads += [given[key] for key in LOADS.get(tag, ()) if key in given]
        self.loads += IN_STYLE.findall(given.get("style", ""))
        self.ids |= {given[key] for key in ("id", "name") if key in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "img" and "article" in self.inside:
            self.images.append((given.get("src", ""), given.get("alt", "")))

    def handle_endtag(self, tag):
        if tag in self.inside:  # elements without an end fall with those around them
            while self.inside.pop() != tag:
                pass

    def handle_data(self, data):
        if self.inside[-1] in ("script", "style"):
            self.loads += IN_STYLE.findall(data)
            self.loads += re.findall(r"(?<=[\"'`])https?://[^\"'`]+\.m?js\b", data)


parse = cache(Page)


def outside(loads):
    """Those of the addresses that lie on another host."""
    return [url for url in loads if OUTSIDE.match(url) or IN_STYLE.match(url)]


def dead(page, link):
    """Whether a link within the site leads nowhere."""
    url = urlsplit(link)
    if url.scheme or url.netloc:
        return False
    target = (SITE / page).parent / unquote(url.path) if url.path else SITE / page
    target = target.resolve()
    if not (target.is_relative_to(SITE) and target.is_file()):
        return True
    if not url.fragment or target.suffix != ".html":
        return False
    return unquote(url.fragment) not in parse(target.relative_to(SITE).as_posix()).ids


@pytest.mark.parametrize("name", PAGES)
def test_page_loads_nothing_from_outside(name):
    assert outside(parse(name).loads) == []


@pytest.mark.parametrize("name", PAGES)
def test_links_within_the_site_lead_somewhere(name):
    links = dict.fromkeys(parse(name).links)
    assert [link for link in links if dead(name, link)] == []


@pytest.mark.parametrize("name", PAGES)
def test_figures_have_written_alt_text(name):
    bare = [
        (src, alt)
        for src, alt in parse(name).images
        if "_images/" in src + alt and len(alt.split()) < WORDS_OF_ALT
    ]
    assert bare == []


def test_style_sheets_load_nothing_from_outside():
    sheets = {
        path: path.read_text("utf8")
        for path in SITE.rglob("*.css")
        if path.relative_to(SITE).parts[0] != "lite"
    }
    assert sheets
    found = {path.name: IN_STYLE.findall(text) for path, text in sheets.items()}
    assert {name: urls for name, urls in found.items() if urls} == {}


def test_the_calendar_can_be_imported():
    text = (SITE / "_static" / "sessions.ics").read_bytes()
    events = Calendar.from_ical(text).walk("VEVENT")
    assert events
    for event in events:
        assert {"UID", "DTSTART", "SUMMARY"} <= set(event)


# In a browser ---------------------------------------------------------------------

WIDTHS = (1280, 768, 390)  # px: a laptop, a tablet, a telephone
HEIGHT = 900

UNSET = """() => [...document.querySelectorAll(".math")]
    .filter((node) => !node.querySelector("mjx-container")
                      || node.querySelector("mjx-merror, [data-mjx-error]"))
    .map((node) => node.textContent.slice(0, 60))"""


@pytest.fixture(scope="module")
def address():
    with browser.serve(SITE) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    if browser.executable() is None:
        pytest.skip(f"no browser: none of {', '.join(browser.NAMES)} is on the path")
    with browser.chromium() as running:
        yield running


@pytest.fixture(scope="module", params=("light", "dark"))
def context(request, chromium):
    size = {"width": WIDTHS[0], "height": HEIGHT}
    made = chromium.new_context(color_scheme=request.param, viewport=size)
    yield made, request.param
    made.close()


# What is wider than the window must lie in a box that scrolls, and inside that window.
STICKS_OUT = """() => {
    const scrolls = (node) => /auto|scroll/.test(getComputedStyle(node).overflowX);
    const out = [];
    const wide = "mjx-container, table, pre, img, svg, .math, dt, figure";
    for (const node of document.querySelectorAll(`.bd-article :is(${wide})`)) {
        if (node.closest("mjx-assistive-mml")) continue;
        const fits = (box) => box.getBoundingClientRect().right <= innerWidth + 1;
        let box = node;
        while (box && !(fits(box) && (box === node || scrolls(box)))) {
            box = box.parentElement.matches(".bd-article") ? null : box.parentElement;
        }
        if (!box) out.push(`${node.tagName} ${node.className}`);
    }
    return out;
}"""
TURNED = """async () => {
    for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
    await new Promise((done) => setTimeout(done, 50));
}"""


def resize(page, width):
    page.set_viewport_size({"width": width, "height": HEIGHT})
    page.wait_for_function("width => innerWidth === width", arg=width)
    page.evaluate("dispatchEvent(new Event('resize'))")  # none comes for the same width
    page.evaluate(TURNED)


def too_wide(page):
    """What does not fit at any of the widths."""
    found = []
    for width in WIDTHS:
        resize(page, width)
        needed = page.evaluate("document.documentElement.scrollWidth")
        if needed > width:
            found.append(f"scrolls sideways: {needed} px in a window of {width}")
        found += [f"at {width} px: {it} sticks out" for it in page.evaluate(STICKS_OUT)]
    return found


# Axe takes ten times as long with every token of the code and every stroke of the
# equations.  One token of each class tells the same; equations have the text's colour.
THIN = """() => {
    const seen = new Set();
    for (const token of document.querySelectorAll(".highlight span, .sig span")) {
        const known = seen.has(token.className);
        seen.add(token.className);
        if (known && !token.id) token.replaceWith(...token.childNodes);
    }
    document.body.normalize();  // or axe measures each of the pieces
    document.querySelectorAll("mjx-container").forEach((set) => set.replaceChildren());
}"""


COLOURS = ["color-contrast"]  # they take axe longest, and hang on no width
NO_COLOURS = {"rules": {name: {"enabled": False} for name in COLOURS}}
RUNS = {  # width, and axe's options
    "light": [(390, NO_COLOURS), (1280, {})],
    "dark": [(1280, {"runOnly": COLOURS})],
}


def violations(page, rules):
    """What axe finds, one line for each element."""
    # Preloading has axe fetch style sheets again, from wrong addresses.
    options = {"resultTypes": ["violations"], "preload": False, **rules}
    return [
        f"axe {rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in Axe().run(page, options=options).response["violations"]
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("name", [name for name in PAGES if name != FRONT])
def test_page_in_a_browser(context, address, name):
    made, scheme = context
    with browser.visit(made, f"{address}/{name}") as (page, wrong):
        wrong += [f"equation is not set: {text}" for text in page.evaluate(UNSET)]
        wrong += too_wide(page)
        page.evaluate(THIN)
        for width, rules in RUNS[scheme]:
            resize(page, width)
            wrong += [f"at {width} px: {found}" for found in violations(page, rules)]
        assert wrong == [], "\n".join(wrong)


def test_the_front_page_leads_into_the_book(chromium, address):
    page = chromium.new_page()
    page.goto(f"{address}/{FRONT}")
    page.wait_for_url(f"{address}/book/{FRONT}")
    page.close()
