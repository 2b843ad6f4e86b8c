"""OpenAI's Node client with its defaults, retries included: ``node/client.mjs`` against one gateway."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from tunewheel_testing.waiting import until

from .node_packages import node_command

CLIENT = Path(__file__).parent / "node/client.mjs"
TOO_LONG = {"error": "Input validation error: `inputs` must have less than 9 tokens. Given: 10"}
AWAY = {"error": {"message": "warming up"}}
PASSED = [
    "plain", "stream", "choices", "tools", "response_format", "errors", "retries", "abort", "heartbeats",
]  # fmt: skip


async def test_the_node_client_works_unchanged(make_world: Any, tmp_path: Path):
    command = node_command(tmp_path, CLIENT.read_text(encoding="utf-8"))
    world = await make_world(heartbeat_seconds=0.05)
    world.declare()
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    world.engine.gate_at = 0
    again = {"retry-after": "0.01"}
    world.engine.first |= {
        "too long": [(422, TOO_LONG, {})],
        "try twice false": [(429, AWAY, again)],
        "try twice true": [(503, AWAY, again)],
    }
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "OPENAI_BASE_URL": f"{world.url}/v1", "OPENAI_API_KEY": "none"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert said.decode().split() == PASSED, said.decode()
    assert process.returncode == 0
    await until(lambda: world.gateway.metrics.value("completions.disconnected") == 1)
    asked = [one["messages"][-1]["content"] for one in world.engine.asked]
    assert [asked.count(f"try twice {stream}") for stream in ("false", "true")] == [2, 2]
    assert asked.count("too long") == 1
