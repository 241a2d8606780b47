import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image

SEEN = {"x": 20, "y": 150, "width": 260, "height": 200}  # of the page: below the notes, left of the controls


class Tab:
    """A page in Chromium, and what it fetched and complained of."""

    def __init__(self, page):
        self.page, self.requests, self.complaints = page, [], []
        page.on("request", lambda it: self.requests.append(it.url))
        page.on("console", lambda it: self.complaints.append(it.text) if it.type == "error" else None)
        page.on("pageerror", lambda it: self.complaints.append(str(it)))

    def seen(self):
        picture = Image.open(io.BytesIO(self.page.screenshot(clip=SEEN, timeout=120_000)))
        return np.asarray(picture.convert("RGB")).astype(int)

    def settled(self, unlike=None):
        """What is seen when it no longer changes, is not blank, and is not as it was."""
        last, end = self.seen(), time.monotonic() + 120
        while time.monotonic() < end:
            now = self.seen()
            if np.array_equal(now, last) and np.ptp(now) > 50 and (unlike is None or (now != unlike).any()):
                return now
            last = now
        raise AssertionError("what is seen goes on changing, or does not change")

    def drag(self, start, end):
        """Drag with the left button, from one place of the page to another."""
        self.page.mouse.move(*start)
        self.page.mouse.down()
        self.page.mouse.move(*end, steps=3)
        self.page.mouse.up()


@pytest.fixture
def opened():
    """Opens an address in Chromium: gives the tab. The page complains of nothing and fetches nothing from elsewhere."""
    if not (chromium := shutil.which("chromium")):
        pytest.skip("chromium is not installed")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

    @contextmanager
    def run(address):
        with playwright.sync_playwright() as started:
            browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            tab = Tab(browser.new_page(viewport={"width": 640, "height": 360}))
            tab.page.goto(address)
            yield tab
            browser.close()
        assert tab.complaints == []
        allowed = (address, f"blob:{address}", "data:")
        assert [url for url in tab.requests if not url.startswith(allowed)] == []

    return run


@pytest.fixture
def served(opened):
    """Runs a command that serves a page, and opens it: gives the process and the tab. Ctrl-C reaches it in any case."""

    @contextmanager
    def run(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "ff3d.cli", *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if "DISPLAY" not in name},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        try:
            address = next(found.group() for line in process.stdout if (found := re.search(r"http://\S+", line)))
            assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address)
            with opened(address) as tab:
                yield process, tab
        finally:
            process.kill()
            process.communicate()

    return run
