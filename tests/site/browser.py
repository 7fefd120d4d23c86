"""The built site over HTTP, and a headless Chromium that can reach nothing else."""

import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from playwright.sync_api import sync_playwright

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


def executable():
    """The path of the system's Chromium or Chrome; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # one connection serves many files

    def end_headers(self):
        self.send_header("Cache-Control", "max-age=3600")  # scripts are on every page
        super().end_headers()

    def log_message(self, *args):
        pass


@contextmanager
def serve(folder):
    """The address under which `folder` is served."""
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(_Handler, directory=str(folder))
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
def chromium():
    """One browser, without a profile."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=ARGS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(context, url):
    """A page that has settled, and what went wrong while it did."""
    wrong = []

    def requested(request):
        if urlsplit(request.url).hostname not in ("127.0.0.1", None):
            wrong.append(f"asks another host: {request.url}")

    def answered(response):
        if response.status >= 400:
            wrong.append(f"{response.status} for {response.url}")

    def said(message):
        if message.type == "error":
            wrong.append(f"console: {message.text}")

    page = context.new_page()
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
