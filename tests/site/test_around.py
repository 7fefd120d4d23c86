"""What stands around the text of the built pages, and what a page may load.

Run after `make book`, like test_site.py, which opens every page in the browser and
fails on any message of the console, so also on what the policy forbids.
"""

import re
from html import unescape
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import mlfs_furniture
import mlfs_security
import pytest

from mlfs.book.chapters import CHAPTERS

from . import browser

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"
BOOK = sorted(path.relative_to(SITE).as_posix() for path in SITE.glob("book/**/*.html"))
STANDING = [chapter for chapter in CHAPTERS if chapter.stands]
CHAPTER_PAGES = [
    f"book/{chapter.slug}/{page}.html"
    for chapter in STANDING
    for page in mlfs_furniture.PAGES
]
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">')
SECTION = re.compile(r'<section[^>]* id="')
REPORT = re.compile(
    r'<p class="report-mistake"><a href="([^"]+)"[^>]*>Report a mistake'
    r'<span class="visually-hidden"> in the section ([^<]+)</span></a></p>'
)

if not BOOK:
    pytest.fail("there is no site in _build/html: run `make book` first", pytrace=False)

# Pages that Sphinx writes; an application or a redirect on the site has its own rules.
WRITTEN = [
    name
    for name in sorted(
        path.relative_to(SITE).as_posix()
        for pattern in ("*.html", "book/**/*.html", "_modules/**/*.html")
        for path in SITE.glob(pattern)
    )
    if name != "index.html"
]


def read(name):
    return (SITE / name).read_text("utf8")


@pytest.mark.parametrize("name", WRITTEN)
def test_every_page_has_its_policy_ahead_of_its_scripts(name):
    text = read(name)
    (found,) = POLICY.finditer(text)
    assert found.start() < text.index("<script")
    assert unescape(found[1]) == mlfs_security.policy(text)


@pytest.mark.parametrize("name", CHAPTER_PAGES)
def test_chapter_has_its_line_and_its_links(name):
    text = read(name)
    line = re.search(r'</h1>\s*<p class="furniture">(.*?)</p>', text, re.DOTALL)[1]
    assert re.search(r"About \d+ minutes to read", line)
    assert re.search(r"runs in \d+ s", line)
    assert "builds on" in line
    assert "notation.html#notation-" in line
    foot = text[text.index('class="prerequisite-order') :]
    assert "Before this chapter:" in foot
    assert "After it:" in foot
    assert foot.index("index.html#chapter-graph") < foot.index("prev-next-area")


@pytest.mark.parametrize("name", BOOK)
def test_each_section_has_its_report_link(name):
    text = read(name)
    reports = REPORT.findall(text)
    assert len(reports) == len(SECTION.findall(text)) > 0
    version = str(mlfs_furniture.version())
    for url, heading in reports:
        query = parse_qs(urlsplit(unescape(url)).query)
        (body,) = query["body"]
        assert f"Page: {name.removesuffix('.html')}.md\n" in body
        assert f"Section: {unescape(heading)}\n" in body
        assert re.search(r"Version: mlfs [\d.]+, (commit \w{10}|not from)", body)
        assert body.split("Version: ")[1].startswith(version.split(",")[0])


def test_search_does_not_find_the_report_links():
    assert "visually" not in read("searchindex.js")
    assert not re.search(r'"Report a mistake', read("searchindex.js"))


def test_the_build_page_has_every_chapter_and_page():
    text = read("book/build.html")
    for chapter in STANDING:
        assert text.count(f'href="{chapter.slug}/theory.html"') >= 2  # times and claims
        assert f'href="{chapter.slug}/coding.html"' in text
    assert "verification.html" in text
    assert "minutes a" not in text
    for number in re.findall(r"(\d+) of (\d+)</span>", text):
        assert number[0] == number[1]


# In a browser ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium():
    if browser.executable() is None:
        pytest.skip(f"no browser: none of {', '.join(browser.NAMES)} is on the path")
    with browser.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def address():
    with browser.serve(SITE) as address:
        yield address


def test_the_policy_stops_what_was_not_built_in(chromium, address):
    with browser.visit(chromium, f"{address}/{CHAPTER_PAGES[0]}") as (page, wrong):
        assert wrong == []
        page.evaluate("""() => {
            const script = document.createElement("script");
            script.textContent = "window.broken_in = true";
            document.head.append(script);
        }""")
        assert page.evaluate("window.broken_in") is None
        assert "Content Security Policy" in wrong[0]


def test_the_buttons_of_the_theme_work(chromium, address):
    with browser.visit(chromium, f"{address}/{CHAPTER_PAGES[0]}") as (page, wrong):
        pressed = page.evaluate("""() => {
            const pressed = [];
            window.print = () => pressed.push("print");
            window.toggleFullScreen = () => pressed.push("full screen");
            document.querySelectorAll("[data-onclick]").forEach((node) => node.click());
            return pressed;
        }""")
        # `make pdf` puts its files where the button to print was.
        offered = page.locator('.article-header-buttons a[href$=".pdf"]').count()
        assert sorted(pressed) == ["full screen"] + ["print"] * (not offered)
        assert wrong == []


@pytest.mark.parametrize("name", ["book/index.html", CHAPTER_PAGES[0], "search.html"])
def test_the_site_works_from_a_folder(chromium, name):
    with browser.visit(chromium, (SITE / name).as_uri()) as (page, wrong):
        assert wrong == []
        set_ = page.locator("mjx-container").count()
        assert set_ >= page.locator(".math").count() > (name == CHAPTER_PAGES[0]) - 1


def test_the_graph_is_walked_with_the_keyboard(chromium, address):
    with browser.visit(chromium, f"{address}/book/index.html") as (page, wrong):
        links = page.locator(".chapter-graph a")
        assert links.count() == len(STANDING)
        links.first.focus()
        for number, chapter in enumerate(STANDING):
            here = page.evaluate("document.activeElement.getAttribute('href')")
            assert here == f"{chapter.slug}/theory.html"
            if number < len(STANDING) - 1:
                page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{address}/book/{STANDING[-1].slug}/theory.html")
        assert wrong == []


def test_text_and_links_are_there_without_any_script(chromium, address):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{address}/{CHAPTER_PAGES[0]}")
    assert page.locator("p.furniture").is_visible()
    assert page.locator(".report-mistake a").first.is_visible()
    page.goto(f"{address}/book/index.html")
    assert page.locator(".chapter-graph svg").is_visible()
    context.close()
