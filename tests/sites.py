"""The site that docs/build made, served to a browser on this machine."""

import shutil
import threading
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SITE = Path(__file__).parent.parent / "docs" / "_build" / "html"
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


class Quiet(SimpleHTTPRequestHandler):
    """Files, and nothing said of it."""

    def log_message(self, *args):
        """Say nothing."""


@contextmanager
def served(handler=Quiet):
    """Serve the site, and yield its address; skip where there is no site or no browser."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    if not SITE.is_dir():
        pytest.skip("needs the site: docs/build")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(SITE)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def browser(folder, address, *flags):
    """Return the command that opens an address in a browser whose files are in `folder`."""
    safe = ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}")
    return [CHROMIUM, *safe, *flags, address]
