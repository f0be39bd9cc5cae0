"""The status page in a real browser, where one is installed."""

import itertools
import json
import shutil
import subprocess
import time

import httpx
import pytest
from websockets.sync.client import connect

from ags_flows.emulator import Emulator

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")


class Tab:
    """One tab of a headless browser, by its debugging protocol."""

    def __init__(self, socket):
        self._socket = socket
        self._numbers = itertools.count(1)
        self.problems = []

    def call(self, method, **params):
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=20))
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.problems.append(message["params"])
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]

    def value(self, expression):
        return self.call("Runtime.evaluate", expression=expression)["result"].get("value")

    def wait(self, expression, seconds=15):
        deadline = time.monotonic() + seconds
        while not (found := self.value(expression)):
            assert time.monotonic() < deadline, expression
            time.sleep(0.1)
        return found


@pytest.fixture
def tab(tmp_path):
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
    with open(tmp_path / "browser.log", "wb") as log:
        browser = subprocess.Popen([*command, f"--user-data-dir={tmp_path}/profile"], stdout=log, stderr=log)
    try:
        port_file = tmp_path / "profile" / "DevToolsActivePort"
        deadline = time.monotonic() + 30
        while not (port_file.exists() and port_file.read_text()):
            assert browser.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        port = port_file.read_text().split()[0]
        target = next(each for each in httpx.get(f"http://127.0.0.1:{port}/json").json() if each["type"] == "page")
        with connect(target["webSocketDebuggerUrl"], max_size=None, proxy=None) as socket:
            opened = Tab(socket)
            for domain in ("Page", "Runtime", "Log"):
                opened.call(f"{domain}.enable")
            yield opened
    finally:
        browser.terminate()
        browser.wait(20)


def test_the_page_is_readable_and_refreshes_itself(tab):
    with Emulator() as emulator:
        tab.call("Page.navigate", url=emulator.url)
        tab.wait("document.querySelector('h1') && document.body.innerText.includes('No live instances')")
        made = httpx.post(
            f"{emulator.url}/sandboxes",
            json={"templateID": "base", "metadata": {"owner": "<b>flow</b>"}},
            headers={"X-API-KEY": emulator.api_key},
            timeout=30,
        ).json()
        tab.wait(f"!!document.getElementById('{made['sandboxID']}')")
        text = tab.value("document.body.innerText")
        assert "RUNNING" in text and "POST /sandboxes" in text and "<b>flow</b>" not in text
        tab.value(f"document.getElementById('{made['sandboxID']}').querySelector('summary').click()")
        tab.wait("document.body.innerText.includes('<b>flow</b>')")
        # It stays open when the page refreshes itself.
        tab.value("document.querySelector('main').dataset.old = 1")
        tab.wait("!document.querySelector('main').dataset.old")
        assert tab.value("document.body.innerText.includes('<b>flow</b>')") is True
        typed = "const box = document.querySelector('input'); box.value = 'no-such-thing';"
        tab.value(typed + "box.dispatchEvent(new Event('input'))")
        tab.wait("document.body.innerText.includes('No live instance has all of these words')")
        assert tab.value("location.search") == "?q=no-such-thing"
        assert tab.value("document.documentElement.scrollWidth <= innerWidth") is True
        tab.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
        assert tab.value("document.documentElement.scrollWidth <= innerWidth") is True
        times = "[...document.querySelectorAll('.requests .row > :first-child')]"
        assert tab.value(f"{times}.every((one) => one.scrollWidth <= one.clientWidth)") is True
        assert tab.problems == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_light_and_dark(tab, scheme):
    with Emulator() as emulator:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        tab.call("Emulation.setEmulatedMedia", features=features)
        tab.call("Page.navigate", url=emulator.url)
        tab.wait("!!document.querySelector('.row .good')")
        for selector, ground in (("p", "body"), (".row span", ".card"), (".row .good", ".card"), (".head", ".card")):
            front = luminance(tab.value(f"getComputedStyle(document.querySelector('{selector}')).color"))
            back = luminance(tab.value(f"getComputedStyle(document.querySelector('{ground}')).backgroundColor"))
            assert (max(front, back) + 0.05) / (min(front, back) + 0.05) >= 4.5, selector


def luminance(color):
    parts = [float(part) / 255 for part in color[color.index("(") + 1 : color.index(")")].split(",")[:3]]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
