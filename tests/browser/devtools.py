"""One tab of a headless Chromium, driven over the DevTools protocol."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from ..integration.bus import PATIENCE_SECONDS

ARGUMENTS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
LOOK_SECONDS = 0.05
NAVIGATED = "Inspected target navigated or closed"


class Tab:
    """A page as the browser shows it."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.requested: list[str] = []
        """The URLs that the browser has asked for."""
        self.frames: list[str] = []
        """What websockets have brought."""
        self._responses: list[tuple[str, str]] = []
        self._loaded: set[str] = set()

    async def listen(self) -> None:
        async for message in self._socket:
            said = json.loads(message.data)
            if said.get("method") == "Network.requestWillBeSent":
                self.requested.append(said["params"]["request"]["url"])
            elif said.get("method") == "Network.webSocketFrameReceived":
                self.frames.append(said["params"]["response"]["payloadData"])
            elif said.get("method") == "Network.loadingFinished":
                self._loaded.add(said["params"]["requestId"])
            elif said.get("method") == "Network.responseReceived":
                self._responses.append((said["params"]["requestId"], said["params"]["response"]["url"]))
            elif waiting := self._answers.pop(said.get("id"), None):
                waiting.set_result(said)

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self._result(await self._say(method, **params))

    async def _say(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        waiting = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        return await waiting

    def _result(self, said: dict[str, Any]) -> dict[str, Any]:
        assert "error" not in said, said
        return said["result"]

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """Return the value of a script; None while another page is being loaded."""
        said = await self._say("Runtime.evaluate", expression=expression, returnByValue=True)
        if said.get("error", {}).get("message") == NAVIGATED:
            return None
        return self._result(said)["result"].get("value")

    async def text(self) -> str:
        """Return what the page shows; nothing before its script has run, which answers keys and clicks."""
        return await self.evaluate("document.readyState === 'complete' ? document.body.innerText : ''") or ""

    async def until(self, *texts: str) -> str:
        """Wait until the page shows all of ``texts``, and return all that it shows."""
        shown = ""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    shown = await self.text()
                    if all(text.lower() in shown.lower() for text in texts):
                        return shown
                    await asyncio.sleep(LOOK_SECONDS)
        except TimeoutError:
            raise AssertionError(f"the page does not show {texts}, but: {shown}") from None

    async def becomes(self, expression: str) -> None:
        """Wait until a script says true, such as after the page has loaded itself anew."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await self.evaluate(expression):
                await asyncio.sleep(LOOK_SECONDS)

    async def click(self, text: str) -> None:
        """Click the button, or what opens a form, that says ``text``, once there is one.

        The page clicks after it has answered us: a click that opens another page would take the answer away.
        """
        says = f"b => b.innerText.trim().toLowerCase() === {json.dumps(text.lower())}"
        loaded = "document.readyState === 'complete'"
        find = f"{loaded} && [...document.querySelectorAll('button, summary')].find({says})"
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await self.evaluate(f"(b => b ? (setTimeout(() => b.click()), true) : false)({find})"):
                await asyncio.sleep(LOOK_SECONDS)

    async def fill(self, selector: str, text: str) -> None:
        await self.evaluate(f"document.querySelector({json.dumps(selector)}).focus()")
        await self.call("Input.insertText", text=text)

    async def press(self, key: str) -> None:
        """Press one key and let it go; ``key`` as in ``KeyboardEvent.key``."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def forget(self) -> None:
        """Forget what came so far."""
        self.frames.clear()
        self._responses.clear()

    async def bodies(self) -> dict[str, str]:
        """Return what the present page's requests were answered, by URL."""
        found: dict[str, str] = {}
        for request, url in self._responses:
            if request in self._loaded:
                said = await self._say("Network.getResponseBody", requestId=request)
                found[url] = said.get("result", {}).get("body", "")
        return found

    async def cookies(self) -> list[dict[str, Any]]:
        return (await self.call("Network.getCookies"))["cookies"]


@contextlib.asynccontextmanager
async def opened_tab(chromium: str, profile: Path) -> AsyncIterator[Tab]:
    """Start a browser with a profile of its own, and end it."""
    process = await asyncio.create_subprocess_exec(
        chromium, *ARGUMENTS, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (told := _read(profile / "DevToolsActivePort")):
                await asyncio.sleep(LOOK_SECONDS)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{told[0]}") as session:
            async with session.get("/json/list") as answer:
                (page,) = [one for one in await answer.json() if one["type"] == "page"]
            async with session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                listening = asyncio.create_task(tab.listen())
                await tab.call("Network.enable")
                yield tab
                listening.cancel()
    finally:
        process.terminate()
        await process.wait()


def _read(path: Path) -> list[str]:
    """Return the lines of the file in which Chromium tells its port, none before it has."""
    lines = path.read_text().splitlines() if path.exists() else []
    return lines if len(lines) == 2 else []
