"""What a reader does on the site: read without scripts, find things, on a slow line."""

import json
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import expect

import page_weight

from . import browser

SITE = Path(__file__).resolve().parents[2] / "_build" / "html"
THEORY = [name for name in page_weight.book_pages() if name.endswith("/theory.html")]
FIRST_TEXT = ".bd-article p"


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


@pytest.fixture(scope="module")
def silent(chromium):
    """A browser that runs no script."""
    made = chromium.new_context(java_script_enabled=False)
    yield made
    made.close()


@pytest.mark.parametrize("name", page_weight.book_pages())
def test_the_first_text_is_there_without_any_script(silent, address, name):
    page = silent.new_page()
    page.goto(f"{address}/{name}")
    expect(page.locator("h1").last).to_be_visible()
    first = page.locator(f"{FIRST_TEXT}:visible").first
    assert len(first.inner_text()) > 20
    page.close()


# Search ---------------------------------------------------------------------------

WANTED = {
    # plain words
    "trellis": "book/hidden-markov-models/theory",
    "chain rule": "book/automatic-differentiation/theory",
    "earthquakes": "book/hidden-markov-models/theory",
    # names of functions
    "value_and_grad": "book/api",
    "viterbi": "book/api",
    # names of symbols
    "gamma": "book/notation",
    "lambda_k": "book/notation",
    "cotangent": "book/notation",
}


@pytest.mark.parametrize(("words", "expected"), WANTED.items())
def test_search_finds(chromium, address, words, expected):
    context = chromium.new_context()
    with browser.visit(context, f"{address}/search.html?q={quote(words)}") as (
        page,
        wrong,
    ):
        results = page.locator("#search-results .search li a")
        expect(results.first).to_be_visible(timeout=15_000)
        expect(page.locator("#search-results h2")).to_contain_text("Search Results")
        page.wait_for_function(
            "() => !document.querySelector('#search-progress')?.textContent"
        )
        found = [link.get_attribute("href") or "" for link in results.all()]
        assert any(expected in each for each in found), found
        assert wrong == []
    context.close()


def test_the_search_box_leads_to_the_results(chromium, address):
    page = chromium.new_page()
    page.goto(f"{address}/{THEORY[0]}")
    page.keyboard.press("Control+k")
    box = page.locator("#pst-search-dialog input[name=q]")
    expect(box).to_be_focused()
    box.fill("viterbi")
    box.press("Enter")
    page.wait_for_url("**/search.html?q=viterbi*")
    expect(page.locator("#search-results .search li a").first).to_be_visible()
    page.close()


# Weight ---------------------------------------------------------------------------


def test_a_chapter_page_is_light(chromium):
    weights = page_weight.weigh_all(chromium, THEORY[:2])
    assert [each for each in weights if each.too_heavy()] == []
    assert all(each.requests < 60 for each in weights)
    assert all(each.second_kb < each.first_kb / 1.5 for each in weights)


def test_the_table_of_weights_is_complete():
    if not page_weight.TABLE.is_file():
        pytest.skip("there is no table of weights: `make weigh` was not run")
    table = json.loads(page_weight.TABLE.read_text("utf8"))
    assert [row["page"] for row in table] == page_weight.book_pages()
    assert {"first_kb", "second_kb", "requests"} <= set(table[0])
