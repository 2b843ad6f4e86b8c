"""Works on reviews of answers and requests for labels, item by item, through the console's API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlencode

from tunewheel_cli.console_answers import CALL, answer_of, printable
from tunewheel_cli.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class ConsoleQueue:
    """The ``reviews`` or the ``labels`` of one project at one console. ``reviewer``: the person's name, if
    identity is open.

    Each method returns the console's answer, which ``services/console/README.md`` describes.

    Each method raises:
        TransientError: the console, or a service that it needs, is away, and nothing was kept.
        NotAllowed: the console does not know the key, or the key lacks the role reviewer in the project.
        ConsoleRefused: the console refuses the request.
    """

    console: Endpoint
    kind: Literal["reviews", "labels"]
    project: str
    reviewer: str | None = None

    async def list(self) -> dict[str, Any]:
        return await self._get()

    async def progress(self, name: str) -> dict[str, Any]:
        return await self._get(name)

    async def show(self, name: str, number: int | None) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Return the progress, and the item ``number``; None: the first unanswered item."""
        progress = await self.progress(name)
        number = progress["next"] if number is None else number
        return progress, None if number is None else await self._get(name, "items", str(number))

    async def answer(self, name: str, number: int, body: dict[str, Any]) -> dict[str, Any]:
        path = self._path(name, "items", str(number), "answer")
        return answer_of(await self.console.put(path, body, **CALL))

    async def submit(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return answer_of(await self.console.post(self._path(name, "submit"), body, **CALL))

    async def _get(self, *parts: str) -> dict[str, Any]:
        return answer_of(await self.console.get(self._path(*parts), {}, **CALL))

    def _path(self, *parts: str) -> str:
        path = "/".join(quote(part, safe="") for part in (self.project, self.kind, *parts))
        query = f"?{urlencode({'reviewer': self.reviewer})}" if self.reviewer else ""
        return f"/v1/projects/{path}{query}"


def print_item(found: dict[str, Any], texts: dict[str, str]) -> None:
    """Print an item: the conversation, then ``texts`` under their headings."""
    print(f"item {found['number']} of {found['of']}")
    said = [(message["role"], message["content"]) for message in found["messages"]]
    for name, text in (*said, *texts.items()):
        print(f"--- {name}\n{printable(text)}")
