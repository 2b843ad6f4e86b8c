"""What is told of an endpoint that does not answer."""

from __future__ import annotations

import asyncio
import json

import pytest
from tunewheel_runtime.chat import ChatAway, open_chat, reply_of


@pytest.mark.parametrize("status", ["401 Unauthorized", "400 Bad Request", "503 Busy"])
@pytest.mark.parametrize("is_json", [True, False])
async def test_the_key_that_an_endpoint_repeats_is_told_to_nobody(
    status: str, is_json: bool, monkeypatch: pytest.MonkeyPatch
):
    async def repeat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        body = json.dumps({"error": {"message": f"who is that? {head}"}}) if is_json else head
        kind = "application/json" if is_json else "text/plain"
        lines = (
            f"HTTP/1.1 {status}",
            "connection: close",
            "x-should-retry: false",
            f"content-type: {kind}",
            "",
        )
        writer.write("\r\n".join((*lines, body)).encode())
        writer.close()

    monkeypatch.setenv("TEACHER_KEY", 'sk-a"b/teacher=')
    async with await asyncio.start_server(repeat, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        async with open_chat(url, "TEACHER_KEY", timeout_seconds=60) as client:
            with pytest.raises(ChatAway) as caught:
                await reply_of(client, "m", [{"role": "user", "content": "ready?"}])
    assert "teacher" not in str(caught.value)
    assert "who is that?" in str(caught.value) or not is_json
