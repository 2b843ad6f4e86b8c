"""Listening HTTP sockets (doors). A service has one for its API, and one for health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from asyncio.sslproto import SSLProtocol
from collections.abc import Generator
from typing import Any, ClassVar, cast

import uvicorn
from starlette.types import ASGIApp

from tunewheel_runtime.descriptors import most_clients
from tunewheel_runtime.http import PatientHttp, Places
from tunewheel_runtime.tls import Certificate
from tunewheel_runtime.waiting import within

_HANDSHAKE = 22
"""The type of the first TLS record that a client sends (RFC 8446 §5.1): no HTTP method begins with it."""
_PLAIN_REFUSAL = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"
    b"This port speaks HTTPS; call it with https:// in place of http://.\n"
)
_LINGER_SECONDS = 1.0


IDLE_SECONDS = 75
"""Seconds that a connection may be idle. Load balancers and clients close idle connections after 60 s or
less, so they close first. If the server closed first, a request could arrive at that moment and be lost; no
client repeats a POST by itself."""


class Door:
    """One listening socket and its app. The app's lifespan is not run."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        port: int,
        patience: float,
        certificate: Certificate | None,
        for_health: bool = False,
    ) -> None:
        """Bind the socket. ``port`` 0: any free port. ``patience``: seconds that running requests get when
        the door closes. With a ``certificate`` only TLS is accepted. A door ``for_health`` gets an eighth of
        the process's connections."""
        places = Places(max(1, most_clients() * (1 if for_health else 7) // 8))

        def connect(**options: Any) -> asyncio.BaseProtocol:
            http = PatientHttp(places=places, **options)
            return http if certificate is None else TlsOnly(http, certificate)

        self._config = uvicorn.Config(
            app, host=host, port=port, log_config=None, access_log=False, lifespan="off",
            timeout_graceful_shutdown=int(patience), timeout_keep_alive=IDLE_SECONDS, http=cast(Any, connect),
            proxy_headers=False,  # uvicorn would believe every program on this machine who its client is.
        )  # fmt: skip
        self._listener = self._config.bind_socket()
        # asyncio sets TCP_NODELAY only on sockets that name their protocol, which this one does not. Without
        # it every answer on a kept-alive connection waits 40 ms for the client's delayed ACK.
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._listener.listen(self._config.backlog)  # Clients that connect before ``serve`` wait.
        self.port: int = self._listener.getsockname()[1]

    async def serve(self, closing: asyncio.Event) -> None:
        """Answer until ``closing`` is set and the running requests are done."""
        await _Server(self._config, closing).serve(sockets=[self._listener])


class _Server(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process by the signal and not with code 0. It
    waits for ``closing``; uvicorn would look ten times a second whether it should end."""

    def __init__(self, config: uvicorn.Config, closing: asyncio.Event) -> None:
        super().__init__(config)
        self._closing = closing

    async def main_loop(self) -> None:
        while not self._closing.is_set():
            await self.on_tick(0)  # Dates the answers of the next second.
            await within(1.0, self._closing.wait())

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class _Tls(SSLProtocol):
    max_size: ClassVar[int] = 64 * 1024
    """Size of the read buffer, which each connection holds while it is open. asyncio's default is four times
    as large."""
    http: PatientHttp

    def connection_lost(self, exc: BaseException | None) -> None:
        self.http.leave()  # The handshake may have failed: then nobody else tells the HTTP protocol.
        super().connection_lost(exc)


class TlsOnly(asyncio.BufferedProtocol):
    """Handles a new connection until its first byte. Then TLS takes over, or a plain HTTP client gets an
    answer.

    Without this class OpenSSL would drop plain HTTP, and a client that forgot the ``s`` of ``https`` would
    only see a broken connection.
    """

    def __init__(self, http: PatientHttp, certificate: Certificate) -> None:
        patience: Any = http.patience_seconds
        nobody: Any = None  # typeshed requires a future that waits for the handshake; asyncio accepts None.
        self._tls = _Tls(
            asyncio.get_running_loop(), http, certificate.context(), nobody, server_side=True,
            ssl_handshake_timeout=patience, ssl_shutdown_timeout=patience,
        )  # fmt: skip
        self._http = self._tls.http = http
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._http.enter(self._transport)
        self._tls.connection_made(transport)

    def get_buffer(self, sizehint: int) -> Any:
        self._buffer = self._tls.get_buffer(sizehint)
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._refused:
            return
        if self._buffer[0] == _HANDSHAKE:
            self._transport.set_protocol(self._tls)
            self._tls.buffer_updated(nbytes)
        else:
            self._refuse()

    def connection_lost(self, exc: Exception | None) -> None:
        self._tls.connection_lost(exc)

    def _refuse(self) -> None:
        self._refused = True
        self._transport.write(_PLAIN_REFUSAL)
        self._transport.write_eof()
        # If the connection were closed at once, with unread bytes of the request, the kernel would drop the
        # answer.
        asyncio.get_running_loop().call_later(_LINGER_SECONDS, self._transport.abort)
