"""A headless Chromium, driven over pipes by https://chromedevtools.github.io/devtools-protocol."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_browser() -> str | None:
    """Return the path of a browser of this machine, None if there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One tab of a browser of its own. Every wait ends at `deadline` seconds with an error."""

    def __init__(self, executable: str, profile: Path, *, deadline: float = 60.0) -> None:
        self._deadline = deadline
        self._number = 0
        self._buffer = b""
        self._session: str | None = None
        to_browser, self._to = os.pipe()
        self._from, from_browser = os.pipe()

        def connect() -> None:
            """Give the browser the pipes as descriptors 3 and 4, where it looks for them."""
            taken, given = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser))
            os.dup2(taken, 3)
            os.dup2(given, 4)

        self._process = subprocess.Popen(
            [
                executable,
                "--headless=new",
                "--remote-debugging-pipe",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            pass_fds=(3, 4),
            preexec_fn=connect,  # noqa: PLW1509 - the test has no threads
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.errors: list[str] = []
        self.loaded = False

    def __enter__(self) -> Self:
        try:
            (page,) = (t for t in self.send("Target.getTargets")["targetInfos"] if t["type"] == "page")
            attached = self.send("Target.attachToTarget", targetId=page["targetId"], flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Runtime", "Log"):
                self.send(f"{domain}.enable")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)

    def open(self, page: Path) -> float:
        """Open a file, wait until it is loaded and drawn, and return how many seconds that took."""
        self.loaded = False
        start = time.monotonic()
        self.send("Page.navigate", url=page.as_uri())
        while not self.loaded:
            self._receive(start + self._deadline)
        drawn = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        self.evaluate(drawn)
        return time.monotonic() - start

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Give the window a size in pixels and a colour scheme."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        motion = {"name": "prefers-reduced-motion", "value": "reduce"}
        self.send("Emulation.setEmulatedMedia", features=[scheme, motion])

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; raises AssertionError with what it throws."""
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, text: str = "") -> None:
        """Press a key; `text` is what it types."""
        codes = {"Tab": 9, "Enter": 13, " ": 32}
        number = codes.get(key, 0)
        event = (
            {"key": key, "text": text, "windowsVirtualKeyCode": number}
            if text
            else {
                "key": key,
                "windowsVirtualKeyCode": number,
            }
        )
        self.send("Input.dispatchKeyEvent", type="keyDown", **event)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=number)

    def screenshot(self) -> bytes:
        """Return what the window shows, as PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + self._deadline
        while True:
            answer = self._receive(end)
            if answer.get("id") == self._number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"the browser did not answer within {self._deadline} s"
            data = os.read(self._from, 1 << 20)
            assert data, f"the browser ended with exit code {self._process.wait()}"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._note(message)
        return message

    def _note(self, message: dict[str, Any]) -> None:
        method, parameters = message.get("method"), message.get("params", {})
        if method == "Page.loadEventFired":
            self.loaded = True
        elif method == "Runtime.exceptionThrown":
            self.errors.append(str(parameters["exceptionDetails"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.errors.append(parameters["entry"]["text"])
