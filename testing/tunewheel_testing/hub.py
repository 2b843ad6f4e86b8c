"""Hubs on this machine: one has a gated model, and the other's answer never ends."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def gated_hub(folder: Path, token: str) -> Iterator[str]:
    """Run a hub that gives the files of ``folder`` as owner/gated at ``COMMIT`` to whoever has ``token``.
    Like the real hub, it describes the model to everybody."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body, name = 404, b"", self.path.partition("?")[0].rpartition("/")[2]
            if "/resolve/" in self.path and self.headers.get("authorization") != f"Bearer {token}":
                status = 401
            elif self.path.startswith("/api/models/owner/gated"):
                tree = [
                    {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": COMMIT}
                    for file in folder.iterdir()
                ]
                info = {
                    "id": "owner/gated",
                    "gated": "manual",
                    "sha": COMMIT,
                    "siblings": [{"rfilename": f["path"]} for f in tree],
                }
                status, body = 200, json.dumps(tree if "/tree/" in self.path else info).encode()
            elif self.path.startswith(f"/owner/gated/resolve/{COMMIT}/") and (folder / name).is_file():
                status, body = 200, (folder / name).read_bytes()
            told = {"X-Error-Code": "GatedRepo"} if status == 401 else {"X-Repo-Commit": COMMIT}
            told |= {"ETag": f'"{sha256(body).hexdigest()}"', "Content-Length": str(len(body))}
            self.send_response(status)
            for header, value in told.items():
                self.send_header(header, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@contextmanager
def trickling_hub(first: bytes) -> Iterator[str]:
    """Run a hub that answers everything with ``first`` and then, until the caller is done, with one byte
    more every hundredth of a second."""
    done = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(1 << 16)
            self.request.sendall(first)
            try:
                while not done.wait(0.01):
                    self.request.sendall(b" ")
            except OSError:  # the caller hung up
                return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        done.set()
        server.shutdown()
