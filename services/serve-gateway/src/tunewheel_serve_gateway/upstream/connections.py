"""The HTTP/1.1 client of one engine.

It knows what engines need and no more: POST and GET, connections that are kept for the next request, whole
and streamed answers of a bounded size, TLS. It follows no redirect and keeps no cookie, since a redirect
could send the conversation to any host, and a balancer's cookie would pin all requests to one engine. A
general client costs several times as much processor time per request.

Where a request ends early, because its task is cancelled or an error is raised, its connection is cut. The
engine sees that and stops its work.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Mapping
from urllib.parse import urlsplit

from aiohappyeyeballs import start_connection
from tunewheel_runtime.descriptors import most_requests

from tunewheel_serve_gateway.upstream.connection import Connection
from tunewheel_serve_gateway.upstream.protocol import Timeouts, UpstreamAway, UpstreamLost, unreachable

KEEPALIVE_SECONDS = 4.0
"""Below uvicorn's five: a connection is never reused while the engine is closing it."""

NEXT_SECONDS = 0.25
"""After so long without an answer of one address of the engine's name, the next is tried beside it (RFC 8305
§5)."""


class Connections:
    """The connections to the engine at ``url``. ``headers`` are sent with every request. ``tls`` holds the
    trusted certificate authorities; None: the system's."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str],
        tls: ssl.SSLContext | None,
        timeouts: Timeouts,
        retry_after: str,
    ) -> None:
        parts = urlsplit(url)
        self._host, self._path = parts.hostname or "", parts.path.rstrip("/")
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = (tls or ssl.create_default_context()) if parts.scheme == "https" else None
        always = {"host": parts.netloc, "user-agent": "tunewheel", "accept-encoding": "identity", **headers}
        self._headers = _lines(always)
        self._timeouts = timeouts
        self._retry_after = retry_after
        self._most_idle = most_requests()
        self._idle: deque[Connection] = deque()
        """Those that wait for a request, in the order of their last use."""
        self._sweeping: asyncio.TimerHandle | None = None
        self._all: set[Connection] = set()

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str],
        patience: float,
        streams: bool = False,
    ) -> Connection:
        """Send a request; return its connection once the answer is there, or its head if it ``streams``. The
        caller then calls ``release``. ``patience``: longest wait for the first and for the next bytes, in
        seconds.

        Raises:
            UpstreamAway: no connection; UpstreamLost: the connection ended before the answer's head.
            UpstreamSilent: nothing came in time.
            UpstreamBroken: the answer is not valid HTTP, or too long.
        """
        size = "" if body is None else f"content-length: {len(body)}\r\n"
        head = f"{method} {self._path}{path} HTTP/1.1\r\n".encode() + self._headers + _lines(headers)
        request = b"".join((head, size.encode(), b"\r\n", body or b""))
        connection = self._kept()
        is_kept = connection is not None
        while True:
            connection = connection or await self._connect()
            connection.is_stream = streams
            try:
                connection.send(request, patience=patience)
                await connection.head()
                return connection
            except UpstreamLost:
                connection.cut()
                if not is_kept or method != "GET":  # The engine may have closed it before it saw the request.
                    raise
                connection, is_kept = None, False
            except BaseException:
                connection.cut()
                raise

    def release(self, connection: Connection, *, is_ending: bool = False) -> None:
        """Keep the connection for the next request, or cut it if its answer was not read to the end.
        ``is_ending``: only the end of a stream is missing, which comes at once."""
        if is_ending and connection.drain(self.release):
            return
        if not connection.rest() or len(self._idle) >= self._most_idle:
            connection.cut()
            return
        self._idle.append(connection)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(KEEPALIVE_SECONDS, self._sweep)

    def close(self) -> None:
        """Cut all connections, those of requests in flight too."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for connection in tuple(self._all):
            connection.cut()
        self._idle.clear()

    def _kept(self) -> Connection | None:
        """Return the connection that was used last, if it can be used."""
        since = asyncio.get_running_loop().time() - KEEPALIVE_SECONDS
        while self._idle:
            connection = self._idle.pop()
            if connection.is_reusable and connection.released > since:
                return connection
            connection.cut()
        return None

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        while self._idle and self._idle[0].released <= loop.time() - KEEPALIVE_SECONDS:
            self._idle.popleft().cut()
        self._sweeping = loop.call_later(KEEPALIVE_SECONDS, self._sweep) if self._idle else None

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._timeouts.connect):
                found = await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
                _, connection = await loop.create_connection(
                    lambda: Connection(self._retry_after, self._all.discard),
                    sock=await start_connection(found, happy_eyeballs_delay=NEXT_SECONDS, interleave=1),
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
        except ssl.SSLCertVerificationError as error:
            reason = (
                f"the certificate of the inference engine is not trusted ({error}); "
                "name the PEM file of its authority in TUNEWHEEL_ENGINE_CAFILE"
            )
            raise UpstreamAway(reason, retry_after=self._retry_after) from error
        except OSError as error:  # TimeoutError and the errors of TLS are among them.
            raise unreachable(error, self._retry_after) from error
        self._all.add(connection)
        return connection


def _lines(headers: Mapping[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1")
