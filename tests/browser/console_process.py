"""A console process, and the file of keys that it reads."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from tunewheel_local.kafka.ports import free_port
from tunewheel_testing.command_keys import CommandKeys

from ..integration.bus import PATIENCE_SECONDS


class Console:
    """Asks who calls. It can be killed and started again at the same address, with the same store."""

    def __init__(self, kafka: str, folder: Path) -> None:
        port, self._health_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.store_url = (folder / "store").as_uri()
        self._file = folder / "keys.json"
        self._keys: dict[str, dict[str, Any]] = {}
        self._write()
        self._log = folder / "console.log"
        self._environment = os.environ | {
            "TUNEWHEEL_BOOTSTRAP_SERVERS": kafka,
            "TUNEWHEEL_HTTP_PORT": str(port),
            "TUNEWHEEL_HEALTH_PORT": str(self._health_port),
            "TUNEWHEEL_IDENTITY": "required",
            "TUNEWHEEL_API_KEYS_FILE": str(self._file),
            "TUNEWHEEL_SESSION_SECRET": secrets.token_urlsafe(32),
            "TUNEWHEEL_STORE_URL": self.store_url,
            **CommandKeys(folder).environment("console"),
        }

    def start(self) -> None:
        """Start the process and wait until it is ready."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tunewheel_console.main"],
                env=self._environment,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{self._health_port}/health/ready").status_code == 200:
                    return
            time.sleep(0.05)
        pytest.fail("the console did not get ready")

    def kill(self) -> None:
        """End the process by SIGKILL."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End the process in good order."""
        self._process.terminate()
        assert self._process.wait(PATIENCE_SECONDS) == 0, self._log.read_text()

    def let_in(self, project: str, *roles: str, name: str | None = None) -> str:
        """Add a key of ``project``, named as it is or ``name``, and return the key."""
        key = secrets.token_urlsafe(32)
        digest = hashlib.sha256(key.encode()).hexdigest()
        self._keys[name or project] = {"sha256": digest, "projects": [project], "roles": list(roles)}
        self._write()
        return key

    def shut_out(self, project: str) -> None:
        """Take the key of ``project`` away."""
        del self._keys[project]
        self._write()

    def _write(self) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_text(json.dumps({"keys": self._keys}))
        fresh.replace(self._file)

    async def link(self, key: str) -> str:
        """Return the URL of a one-time link, once the console knows the key."""
        async with (
            httpx.AsyncClient(base_url=self.url, timeout=PATIENCE_SECONDS) as client,
            asyncio.timeout(PATIENCE_SECONDS),
        ):
            while True:
                answer = await client.post("/v1/login-links", headers={"authorization": f"Bearer {key}"})
                if answer.status_code == 201:
                    return self.url + answer.json()["path"]
                assert answer.status_code == 401, answer.text
                await asyncio.sleep(0.1)
