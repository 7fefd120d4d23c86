"""Sphinx extension: a content security policy on every page.

A static host sends no headers of ours, so the policy stands in a <meta> element, ahead
of every script.  What a page may load is its own site and nothing else:

- Scripts come from the site's files.  The few that the theme writes into the page are
  named by their SHA-256; nothing else can run, and nothing is evaluated from text.
- What the theme's two buttons do moves from their attribute `onclick` to the site's own
  script: a policy can name such attributes too, but the search page, which parses other
  pages to quote them, would then need the hashes of all of them.
- Styles may stand in the page ('unsafe-inline'): MathJax sets equations by writing
  style elements and attributes, with sizes that are not known before it runs.
- `file:` is there for the site opened from a folder, where 'self' matches nothing in
  some browsers; on a server it allows nothing, as a server's page may not load files.

The hashes are counted from the finished page, so a new inline script of the theme, or
of another extension, needs no change here.  They protect against what gets into a page
later than the build.
"""

from __future__ import annotations

import base64
import hashlib
import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from mlfs_site import BookError
from sphinx.application import Sphinx

OURS = "data-content_root="  # on the first element of a page that Sphinx wrote
OPENING = '<meta charset="utf-8" />'
META = '<meta http-equiv="Content-Security-Policy" content="{}">'
FOUND = re.compile(META.format('[^"]*'))
SELF = "'self' file:"
HANDLER = re.compile(r' onclick="((?:toggleFullScreen|window\.print)\(\))"')


class Inline(HTMLParser):
    """The scripts that stand in a page: between tags, and in attributes."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.scripts: list[str] = []
        self.handlers: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note handlers; a script without an address has its text here."""
        names = {name for name, _ in attrs}
        self.handlers += [value or "" for name, value in attrs if name.startswith("on")]
        self._inside = tag == "script" and "src" not in names
        if self._inside:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        """The script, if it was one, is over."""
        self._inside = False

    def handle_data(self, data: str) -> None:
        """Collect the text of a script."""
        if self._inside:
            self.scripts[-1] += data


def source_hash(text: str) -> str:
    """A script's text as a source of the policy."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def policy(page: str) -> str:
    """The strictest policy under which a finished page works.

    Raises:
        BookError: an attribute holds a script, which the policy would not let run.
    """
    inline = Inline(page)
    if inline.handlers:
        raise BookError(f"attributes of a page hold scripts: {inline.handlers}")
    hashes = sorted({source_hash(text) for text in inline.scripts})
    return "; ".join(
        [
            "default-src 'none'",
            " ".join([f"script-src {SELF}", *hashes]),
            f"style-src {SELF} 'unsafe-inline'",
            f"img-src {SELF} data:",
            f"font-src {SELF} data:",
            f"connect-src {SELF}",
            f"form-action {SELF}",
            "base-uri 'none'",
        ]
    )


def protect(page: str) -> str:
    """The page with its policy, which replaces the one of an earlier build.

    Raises:
        BookError: the page does not open as Sphinx's pages do.
    """
    bare = HANDLER.sub(r' data-onclick="\1"', FOUND.sub("", page, count=1))
    at = bare.find(OPENING)
    if at < 0 or "<script" in bare[:at]:
        raise BookError(f"a page has no {OPENING} ahead of its scripts")
    at += len(OPENING)
    return bare[:at] + META.format(escape(policy(bare))) + bare[at:]


def write_policies(app: Sphinx, exception: Exception | None) -> None:
    """Write the policy into each page of Sphinx; it leaves some from build to build."""
    if exception is not None or app.builder.name != "html":
        return
    for path in sorted(Path(app.outdir).rglob("*.html")):
        text = path.read_text("utf8")
        if OURS in text[:500]:
            made = protect(text)
            if made != text:
                path.write_text(made, "utf8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect all of it."""
    app.connect("build-finished", write_policies, priority=950)
    return {
        "version": "1",
        "env_version": 1,
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
