"""A teacher, or a judge, of a few lines: OpenAI's wire format, over HTTP, on this machine."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PAIRS = {"pairs": [{"question": "How is it reset?", "answer": "Press the button twice."}]}
Reply = str | int


class Teacher:
    """Answers with ``replies`` in turn, the last one for ever; a number is an HTTP status, a function makes
    the reply of what was asked."""

    def __init__(self) -> None:
        self.replies: list[Reply | Callable[[str], Reply]] = [json.dumps(PAIRS)]
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self._turn = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/v1"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        teacher = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                teacher.asked.append(body)
                teacher.keys.append(self.headers["authorization"])
                with teacher._turn:
                    reply = teacher.replies.pop(0) if len(teacher.replies) > 1 else teacher.replies[0]
                reply = reply(body["messages"][-1]["content"]) if callable(reply) else reply
                message = {"role": "assistant", "content": reply}
                choice = {"index": 0, "finish_reason": "stop", "message": message}
                answer = {
                    "id": "c",
                    "object": "chat.completion",
                    "created": 0,
                    "model": "t",
                    "choices": [choice],
                }
                data = json.dumps(answer if isinstance(reply, str) else {"error": {"message": "no"}}).encode()
                self.send_response(200 if isinstance(reply, str) else reply)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.send_header("retry-after-ms", "1")
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None: ...

        return Handler

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
