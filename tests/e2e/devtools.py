"""Chromium under remote control (the DevTools protocol): a page that lives, which its tests look at and photograph."""

import base64
import contextlib
import itertools
import json
import os
import subprocess
import time
import urllib.request
from pathlib import Path

import websockets.sync.client

from tests.e2e.processes import peer, wait_until

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync", "--disable-extensions"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-default-apps"]
FLAGS += ["--disable-dev-shm-usage", "--hide-scrollbars", "--disable-background-timer-throttling"]
FLAGS += ["--remote-debugging-port=0", "--host-resolver-rules=MAP *.test 127.0.0.1"]
SECONDS = 60


class Browser:
    """A process, with one page at a time."""

    def __init__(self, home: Path) -> None:
        self.profile = home / "profile"
        environment = {**os.environ, "HOME": str(home)}
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "CHROMIUM_FLAGS"):
            environment.pop(name, None)
        self.log = (home / "chromium.log").open("wb")
        command = [peer("chromium"), *FLAGS, f"--user-data-dir={self.profile}", "about:blank"]
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log)
        try:
            port = self.profile / "DevToolsActivePort"
            wait_until(lambda: port.exists() and port.read_text().count("\n"), SECONDS, "Chromium's port")
            self.port = int(port.read_text().split("\n")[0])
        except BaseException:
            self.close()
            raise

    def open(self, url: str, **how) -> "Page":
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/json/new?about:blank", method="PUT")
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            target = json.load(answer)
        return Page(target["webSocketDebuggerUrl"]).go(url, **how)

    def close(self) -> None:
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()
        self.log.close()


class Page:
    """`complaints`: what the console and the browser's log have said that no good page makes them say."""

    def __init__(self, url: str) -> None:
        self._held = contextlib.ExitStack()
        self._socket = self._held.enter_context(websockets.sync.client.connect(url, max_size=64 << 20, proxy=None))
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            self.call("Page.close")
        self._held.close()

    def call(self, method: str, **parameters: object) -> dict:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        end = time.monotonic() + SECONDS
        while True:
            message = json.loads(self._socket.recv(timeout=max(0.1, end - time.monotonic())))
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message)

    def _note(self, message: dict) -> None:
        said = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(said["exceptionDetails"])[:1000])
        elif message.get("method") == "Runtime.consoleAPICalled" and said["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(said["args"])[:1000])
        elif message.get("method") == "Log.entryAdded" and said["entry"]["level"] in ("error", "warning"):
            self.complaints.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")

    def go(self, url: str, *, width: int = 1440, height: int = 900, scheme: str = "light", scale: float = 1) -> "Page":
        self.look(width=width, height=height, scheme=scheme, scale=scale)
        self.call("Page.navigate", url=url)
        return self

    def look(self, *, width: int, height: int, scheme: str = "light", scale: float = 1) -> None:
        """Another window, another preference."""
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def js(self, expression: str):
        """Its value, awaited."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True,
                           allowUnsafeEvalBlockedByCSP=False)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def until(self, expression: str, seconds: float = 30):
        """Waits until it is true -> its value."""
        value = None

        def found():
            nonlocal value
            with contextlib.suppress(AssertionError):      # a page that is being left
                value = self.js(expression)
            return value

        wait_until(found, seconds, f"{expression}; it is {value!r}")
        return value

    def text(self, selector: str) -> str:
        return self.js(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''")

    def screenshot(self, path: Path, *, whole: bool = True, **options: object) -> bytes:
        """PNG unless `format` says otherwise."""
        made = base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole, **options)["data"])
        path.write_bytes(made)
        return made
