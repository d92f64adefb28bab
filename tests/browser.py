"""Headless Chromium through its pipe: what a page is in a browser, asked of one."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)

EXEC = """import fcntl, os, sys
theirs, back = (fcntl.fcntl(int(text), fcntl.F_DUPFD, 10) for text in sys.argv[1:3])
os.dup2(theirs, 3)
os.dup2(back, 4)
os.execv(sys.argv[3], sys.argv[3:])"""
"""The browser reads its pipe at 3, and answers at 4."""


class Browser:
    """One tab. ``events`` is what the browser told of its own accord since the page was opened."""

    def __init__(self, profile: Path) -> None:
        assert CHROMIUM is not None
        theirs, self._commands = os.pipe()
        self._answers, back = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", EXEC, str(theirs), str(back), CHROMIUM, *FLAGS, f"--user-data-dir={profile}"],
            pass_fds=(theirs, back),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(back)
        self._buffer = b""
        self._last = 0
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(each["targetId"] for each in targets if each["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a command of the DevTools protocol answers; its events are kept. AssertionError where it can't."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._heard()
            if answer.get("id") == self._last:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _heard(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            read = os.read(self._answers, 1 << 20)
            assert read, "the browser ended"
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, file: Path) -> None:
        """Load the page, and wait until it is there."""
        self.events.clear()
        self.call("Page.navigate", url=file.as_uri())
        while not self._is_there(file.as_uri()):
            self._heard()

    def _is_there(self, url: str) -> bool:
        """Whether this page was loaded, and not only the one before it, which may be told late."""
        steps = [event["params"].get("frame", {}).get("url") or event["method"] for event in self.events]
        return url in steps and "Page.loadEventFired" in steps[steps.index(url) :]

    def ask(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def becomes(self, expression: str) -> Any:
        """Its value once that is true, or after ten seconds: what a click does may come a task later."""
        look = f"const value = {expression}; value || Date.now() > end ? done(value) : setTimeout(look, 10)"
        promise = f"new Promise(done => {{ const end = Date.now() + 10000; (function look() {{ {look} }})() }})"
        answer = self.call("Runtime.evaluate", expression=promise, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, text: str = "") -> None:
        code = {"Tab": 9, "Enter": 13, "ArrowRight": 39, "Escape": 27, " ": 32}[key]
        for kind in ("keyDown", "keyUp"):
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **typed)

    def point_at(self, selector: str, *, click: bool = False) -> None:
        """Move the mouse to the middle of the first such element."""
        self.ask(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center', behavior: 'instant'}})")
        self.call("Runtime.evaluate", expression="new Promise(requestAnimationFrame)", awaitPromise=True)
        box = (
            f"(b => [b.x + b.width / 2, b.y + b.height / 2])(document.querySelector({selector!r})"
            ".getBoundingClientRect())"
        )
        x, y = self.ask(box)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        if click:
            for kind in ("mousePressed", "mouseReleased"):
                self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def resize(self, width: int, height: int = 900) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def dark(self, on: bool) -> None:
        features = [{"name": "prefers-color-scheme", "value": "dark" if on else "light"}]
        self.call("Emulation.setEmulatedMedia", features=features)

    def picture(self, whole: bool = True) -> bytes:
        """A screenshot as PNG, of the whole page."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def printed(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def close(self) -> None:
        self._session = None
        try:
            self.call("Browser.close")
        finally:
            os.close(self._commands)
            os.close(self._answers)
            self._process.wait(timeout=30)
