"""Reads a stream of server-sent events, in chunks of any size. Pure.

https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Message:
    event: str
    data: str
    id: str | None
    """The id of the stream's last event, this one included."""


@dataclass(slots=True)
class Reader:
    """Keeps what a reader of a stream must know to go on after the connection ended."""

    last_id: str | None = None
    retry_seconds: float | None = None
    """The wait before the next connection; None: the server does not say."""
    _event: str = ""
    _data: list[str] = field(default_factory=list[str])
    _id: str | None = None
    _rest: bytes = b""

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Forget a message of which the end was lost with the connection."""
        self._rest = b""
        self._event, self._data, self._id = "", [], self.last_id

    def read(self, chunk: bytes) -> list[Message]:
        """Take the next bytes and return the messages that they complete."""
        # Not splitlines, which also splits where a text in JSON has U+2028.
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        found = [self._take(line.removesuffix(b"\r").decode("utf-8", "replace")) for line in lines]
        return [message for message in found if message is not None]

    def _take(self, line: str) -> Message | None:
        if not line:
            return self._complete()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match name:
            case "event":
                self._event = value
            case "data":
                self._data.append(value)
            case "id" if "\0" not in value:
                self._id = value
            case "retry" if value.isascii() and value.isdecimal():
                self.retry_seconds = int(value) / 1000
            case _:  # a comment, which keeps the connection, or a field of a later version
                pass
        return None

    def _complete(self) -> Message | None:
        event, data = self._event or "message", "\n".join(self._data)
        is_message, self.last_id = bool(self._data), self._id
        self._event, self._data = "", []
        return Message(event, data, self.last_id) if is_message else None
