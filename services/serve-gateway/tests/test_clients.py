"""Which features work with which client, against one gateway; ``docs/serving.md`` has the table.

Clients other than OpenAI's get an environment of their own, from PyPI: ``make nightly PART=clients``.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

CLIENTS = Path(__file__).parent / "clients"
ROOT = Path(__file__).resolve().parents[3]
PACKAGES = {
    "openai_agents": ["openai-agents"],
    "langchain": ["langchain-openai"],
    "llamaindex": ["llama-index-llms-openai-like", "llama-index-embeddings-openai>=0.5"],
}
ROWS = {
    "chat": "chat",
    "stream": "chat, streamed",
    "tools": "tools",
    "schema": "answers by a schema",
    "responses": "responses",
    "responses_stream": "responses, streamed",
    "prompts": "prompts",
    "embeddings": "embeddings",
    "models": "names of models",
}


def shown(column: str) -> dict[str, bool]:
    """Return for each feature whether the page says that it works, without those that the client lacks."""
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    page = page.partition("\n## Clients\n")[2].partition("\n## ")[0]
    head, _, *rows = re.findall(r"^\|.*\|$", page, re.MULTILINE)
    at = [cell.strip() for cell in head.split("|")].index(column)
    cells = {cells[1].strip(): cells[at].strip() for row in rows if (cells := row.split("|"))}
    assert list(cells) == [*ROWS.values()]
    return {name: cells[row] == "yes" for name, row in ROWS.items() if cells[row]}


async def outcome(world: Any, python: str | Path, script: str) -> dict[str, Any]:
    world.declare()
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    process = await asyncio.create_subprocess_exec(
        str(python),
        str(CLIENTS / f"{script}.py"),
        env={**os.environ, "OPENAI_BASE_URL": f"{world.url}/v1", "OPENAI_API_BASE": f"{world.url}/v1"}
        | {"OPENAI_API_KEY": "none"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, wrong = await process.communicate()
    assert process.returncode == 0, wrong.decode()
    return json.loads(said.splitlines()[-1])


async def test_the_column_of_openais_client_is_true(world: Any):
    found = await outcome(world, sys.executable, "openai_python")
    assert {name: done is True for name, done in found.items()} == shown("`openai`"), found


@pytest.mark.nightly("clients")
@pytest.mark.parametrize(
    ("script", "column"),
    [("openai_agents", "`openai-agents`"), ("langchain", "LangChain"), ("llamaindex", "LlamaIndex")],
)
async def test_the_column_of_another_client_is_true(world: Any, tmp_path: Path, script: str, column: str):
    uv = shutil.which("uv") or str(ROOT / ".uv/bin/uv")
    python = tmp_path / "client/bin/python"
    for command in (
        ["venv", "-p", sys.executable, python.parents[1]],
        ["pip", "install", "-p", python, *PACKAGES[script]],
    ):
        installing = await asyncio.create_subprocess_exec(
            uv, *map(str, command), stderr=asyncio.subprocess.PIPE
        )
        _, wrong = await installing.communicate()
        assert installing.returncode == 0, wrong.decode()
    found = await outcome(world, python, script)
    assert {name: done is True for name, done in found.items()} == shown(column), found
