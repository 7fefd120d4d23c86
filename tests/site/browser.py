"""The built site over HTTP and a browser for it, which some tools use too."""

from browser import ARGS, NAMES, SETTLED, chromium, executable, serve, visit

__all__ = ["ARGS", "NAMES", "SETTLED", "chromium", "executable", "serve", "visit"]
