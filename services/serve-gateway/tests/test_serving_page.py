"""Every snippet of docs/serving.md runs, in the page's order, against one gateway that asks for keys."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_testing.indexes import put_index
from tunewheel_testing.log import wrap
from tunewheel_testing.waiting import until

from .node_packages import node_command

PAGE = (Path(__file__).resolve().parents[3] / "docs/serving.md").read_text(encoding="utf-8")
KEY = "k-app"


def snippets(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
async def helpdesk(make_world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The page's project behind a gateway, and the environment that the page sets."""
    keys = {"app": {"sha256": hashlib.sha256(KEY.encode()).hexdigest(), "projects": ["helpdesk"]}}
    file = tmp_path / "keys.yaml"
    file.write_text(json.dumps({"keys": keys}))
    world = await make_world(identity="required", api_keys_file=file)
    world.declare("helpdesk", retrieval={"default": "off"})
    sops = {"orders.md": "# Where an order is\n\nAn order leaves the house the day after it was placed."}
    version = await put_index(world.store, "helpdesk", sops, RetrievalSpec())
    world.tell(wrap(version))
    indexes = world.gateway.retriever.indexes
    await until(lambda: "helpdesk" in world.gateway.table.projects and indexes.of("helpdesk"))
    monkeypatch.setenv("OPENAI_BASE_URL", f"{world.url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    return world


async def run(command: list[str], **environment: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, wrong = await process.communicate()
    assert process.returncode == 0, said.decode() + wrong.decode()
    return said.decode()


async def test_python_snippets_run(helpdesk: Any):
    shown = snippets("python")
    assert len(shown) >= 8
    said = io.StringIO()
    code = compile("\n".join(shown), "docs/serving.md", "exec")
    with contextlib.redirect_stdout(said):
        await asyncio.to_thread(exec, code, {"__name__": "snippets"})
    assert "org/Tiny-Base: Where is my order?" in said.getvalue()
    assert "invalid_value temperature" in said.getvalue()
    assert "Bremen" in said.getvalue()
    assert "orders.md | Where an order is | rec-" in said.getvalue()
    assert re.search(r"^static-\S+ 384 0\.\d+$", said.getvalue(), re.MULTILINE)
    (feedback,) = helpdesk.broker.of("feedback.received")
    assert (feedback.rating, feedback.principal.name) == ("down", "app")


async def test_node_snippets_run(helpdesk: Any, tmp_path: Path):
    shown = snippets("js")
    assert len(shown) >= 5
    said = await run(node_command(tmp_path, "\n".join(shown)))
    assert said.startswith("org/Tiny-Base: Where is my order? org/Tiny-Base chatcmpl-")
    assert "true model_not_found model" in said
    assert "document: 'orders.md'" in said
    assert "\n384 " in said
    (feedback,) = helpdesk.broker.of("feedback.received")
    assert feedback.rating == "up"


async def test_curl_snippets_run(helpdesk: Any):
    if shutil.which("curl") is None:
        pytest.skip("this machine has no curl")
    connect, *shown = snippets("bash")
    assert "tunewheel key" in connect
    assert len(shown) >= 3
    said = await run(["bash", "-euo", "pipefail", "-c", "\n".join(shown)])
    assert said.count("Where is my order?") >= 1
    assert "data: [DONE]" in said
    assert 'x-tunewheel-sources: [{"document":"orders.md"' in said
    (feedback,) = helpdesk.broker.of("feedback.received")
    assert (feedback.rating, feedback.comment) == ("down", "too short")


def test_codes_and_limits_on_the_page_are_true():
    from tunewheel_serve_gateway import chat_body
    from tunewheel_serve_gateway.connection import HEARTBEAT
    from tunewheel_serve_gateway.openapi import REFUSALS
    from tunewheel_serve_gateway.settings import Settings

    named = set(re.findall(r"`([a-z_]+)`", PAGE.partition("## What is served")[2].partition("##")[0]))
    assert named >= chat_body.PASSED_ON
    assert f"`n` | up to {chat_body.MOST_CHOICES}" in PAGE
    assert f"`stop` (up to {chat_body.MOST_STOPS})" in PAGE
    assert HEARTBEAT.decode().strip() in PAGE
    assert f"After {Settings.model_fields['heartbeat_seconds'].default:g} seconds" in PAGE
    told = {int(status) for status in re.findall(r"^\| (\d{3}) \|", PAGE, re.MULTILINE)}
    assert set(REFUSALS) - {415, 500} <= told
