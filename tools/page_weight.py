"""Weigh the pages of the built site: what a reader's browser has to fetch for each.

    python tools/page_weight.py [PAGE ...]

Every page is opened in a headless Chromium, from a server that compresses text as the
hosts of web pages do: first with nothing in the browser's cache, then in a browser that
has been to another chapter.  The table is printed, and goes to _build/page-weight.json
for the book's build page.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext

import browser
from make_pdf import book_pages

ROOT = Path(__file__).resolve().parents[1]
SITE = ROOT / "_build" / "html"
TABLE = ROOT / "_build" / "page-weight.json"
FIRST_KB = 700  # what a page without its figures may need at the first visit
SECOND_KB = 100  # and when the reader has been to another chapter


@dataclass(frozen=True, slots=True)
class Weight:
    """What one page needs, in kB of 1,000 bytes over the wire."""

    page: str
    first_kb: float
    second_kb: float
    requests: int  # of the first visit
    figures_kb: float  # part of both visits

    def too_heavy(self) -> bool:
        """Whether the page without its figures is over either limit."""
        first, second = self.first_kb, self.second_kb
        figures = self.figures_kb
        return first - figures > FIRST_KB or second - figures > SECOND_KB


def fetched(context: BrowserContext, url: str) -> list[tuple[str, int]]:
    """What a visit brings over the wire: addresses and bytes, headers included.

    Raises:
        ValueError: there is no such page.
    """
    page = context.new_page()
    session = context.new_cdp_session(page)
    names: dict[str, str] = {}
    found: list[tuple[str, int]] = []

    def answered(event: dict[str, Any]) -> None:
        names[event["requestId"]] = event["response"]["url"]

    def finished(event: dict[str, Any]) -> None:
        size = int(event["encodedDataLength"])
        if size:  # nothing comes over the wire for what the cache has
            found.append((names.get(event["requestId"], ""), size))

    session.on("Network.responseReceived", answered)
    session.on("Network.loadingFinished", finished)
    session.send("Network.enable")
    answer = page.goto(url)
    if answer is None or not answer.ok:
        raise ValueError(f"{url} is not a page of the site: run `make book`")
    page.evaluate(browser.SETTLED)
    # Figures are fetched when they come near the window: read to the end.
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_load_state("networkidle")
    page.close()
    return found


def weigh(chromium: Browser, address: str, name: str, before: str) -> Weight:
    """One page; at the second visit its reader has been to the page `before`."""
    fresh, used = chromium.new_context(), chromium.new_context()
    first = fetched(fresh, f"{address}/{name}")
    fetched(used, f"{address}/{before}")
    second = fetched(used, f"{address}/{name}")
    fresh.close()
    used.close()
    figures = sum(size for url, size in first if "/_images/" in url)
    return Weight(name, kb(first), kb(second), len(first), round(figures / 1000, 1))


def kb(found: list[tuple[str, int]]) -> float:
    """All of it, in kB."""
    return round(sum(size for _, size in found) / 1000, 1)


def weigh_all(chromium: Browser, names: list[str], site: Path = SITE) -> list[Weight]:
    """The weights of pages, each after a theory page other than itself."""
    chapters = [name for name in book_pages() if name.endswith("/theory.html")]
    with browser.serve(site, compress=True) as address:
        weights = []
        for name in names:
            before = next(each for each in chapters if each != name)
            weights.append(weigh(chromium, address, name, before))
        return weights


def markdown(weights: list[Weight]) -> str:
    """The table of the weights, in kB."""
    titles = ("Page", "First visit", "After another chapter", "Figures", "Requests")
    lines = [f"| {' | '.join(titles)} |", "| --- | ---: | ---: | ---: | ---: |"]
    lines += [
        f"| {each.page} | {each.first_kb:.0f} | {each.second_kb:.0f} "
        f"| {each.figures_kb:.0f} | {each.requests} |"
        for each in weights
    ]
    return "\n".join(lines)


def main() -> int:
    """Run from the command line; 1 when a page is over a limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("pages", nargs="*", help="pages of the site; all of the book")
    given = parser.parse_args().pages
    if browser.executable() is None:
        print(f"no page weighed, no browser: none of {', '.join(browser.NAMES)}")
        return 0
    with browser.chromium() as chromium:
        weights = weigh_all(chromium, given or book_pages())
    if not given:
        TABLE.write_text(
            json.dumps([asdict(each) for each in weights], indent=1) + "\n"
        )
    print(markdown(weights))
    heavy = [each.page for each in weights if each.too_heavy()]
    limits = f"{FIRST_KB} kB, then {SECOND_KB} kB, figures apart"
    print(f"\nover the limits ({limits}): {', '.join(heavy) or 'none'}")
    return 1 if heavy else 0


if __name__ == "__main__":
    sys.exit(main())
