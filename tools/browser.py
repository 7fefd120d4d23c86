"""The built site over HTTP, and a headless Chromium that can reach nothing else."""

from __future__ import annotations

import gzip
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    sync_playwright,
)

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGS = (
    "--no-sandbox",  # with it Chromium does not start as root
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)

# Fonts are loaded, equations are set, and what waits for them has had its turn.
SETTLED = """async () => {
    await document.fonts.ready;
    await window.MathJax?.startup?.promise;
    await document.fonts.ready;
    for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
    await new Promise((done) => setTimeout(done, 50));
}"""


def executable() -> str | None:
    """The path of the system's Chromium or Chrome; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # one connection serves many files

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "max-age=3600")  # scripts are on every page
        super().end_headers()

    def log_message(self, *args: object) -> None:
        pass


class _Compressing(_Handler):
    """Sends text compressed, as the hosts of web pages do."""

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        kind = self.guess_type(path)
        if not path.is_file() or not (
            "text" in kind or "script" in kind or "svg" in kind
        ):
            super().do_GET()
            return
        body = gzip.compress(path.read_bytes(), 6)
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serve(folder: Path, compress: bool = False) -> Iterator[str]:
    """The address under which `folder` is served."""
    handler = _Compressing if compress else _Handler
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(handler, directory=str(folder))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """One browser, without a profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable(), args=list(ARGS)
        )
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(context: BrowserContext, url: str) -> Iterator[tuple[Page, list[str]]]:
    """A page that has settled, and what went wrong while it did."""
    wrong: list[str] = []

    def requested(request: Request) -> None:
        if urlsplit(request.url).hostname not in ("127.0.0.1", None):
            wrong.append(f"asks another host: {request.url}")

    def answered(response: Response) -> None:
        if response.status >= 400:
            wrong.append(f"{response.status} for {response.url}")

    def said(message: ConsoleMessage) -> None:
        if message.type == "error":
            wrong.append(f"console: {message.text}")

    page = context.new_page()
    page.set_default_timeout(120_000)  # ms; a busy machine is slow
    page.on("request", requested)
    page.on("response", answered)
    page.on("console", said)
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    try:
        page.goto(url)
        page.evaluate(SETTLED)
        yield page, wrong
    finally:
        page.close()
