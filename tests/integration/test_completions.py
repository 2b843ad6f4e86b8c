"""The console's file of completions: it follows the log through kills, and holds nothing that was erased."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_local.kafka.ports import free_port
from tunewheel_testing.folders import contents
from tunewheel_testing.specs import declared

from .bus import Bus, process, until

pytestmark = pytest.mark.integration


def completion(project: str, n: int, question: str, customer: str | None = None) -> Envelope[Any]:
    data = InferenceCompleted(
        project=project, completion_id=f"c-{n:04}", model_id="desk-1", role="production",
        messages=({"role": "user", "content": question},), output="It rings.", finish_reason="stop",
        completed_at=datetime.now(UTC), customer=customer,
    )  # fmt: skip
    return new_event(data, source="/test")


def erasure(project: str, customer: str) -> Envelope[Any]:
    data = ErasureRequested(
        project=project, erasure_id=f"letter-{customer}", customer=customer, requested_by="privacy"
    )
    return new_event(data, source="/test")


class Console:
    """A console in a process of its own, over and over."""

    def __init__(self, kafka: str, tmp_path: Path) -> None:
        self._kafka, self._tmp = kafka, tmp_path
        self.work = tmp_path / "work"
        self._port = free_port()

    @contextmanager
    def running(self) -> Any:
        settings = {
            "TUNEWHEEL_IDENTITY": "open", "TUNEWHEEL_HTTP_PORT": str(self._port),
            "TUNEWHEEL_WORK_DIR": str(self.work), "TUNEWHEEL_COMPLETIONS_KEPT": "1000",
        }  # fmt: skip
        store, log = self._tmp / "store", self._tmp / "console.log"
        with process("tunewheel_console.main", self._kafka, store, log, **settings):
            yield  # the end kills it

    async def number(self, project: str, words: str = "") -> int | None:
        """Return how many completions are found; None: nothing answers yet."""
        url = f"http://127.0.0.1:{self._port}/v1/projects/{project}/completions"
        try:
            async with aiohttp.ClientSession() as http, http.get(url, params={"q": words}) as answer:
                return (await answer.json())["total"] if answer.status == 200 else None
        except aiohttp.ClientError:
            return None

    async def finds(self, project: str, number: int, words: str = "") -> None:
        async def has_found() -> bool:
            return await self.number(project, words) == number

        await until(has_found, f"{number} completions with {words!r}")

    def has(self, text: str) -> bool:
        files = dict(contents(self.work))
        assert any(path.name.endswith(".sqlite") for path in files)
        return any(text.encode() in data for data in files.values())


@pytest.mark.nightly("kills")
async def test_completions_outlive_kills_and_a_lost_file_and_erased_ones_do_not_come_back(
    kafka: str, tmp_path: Path, project: str
):
    console, word = Console(kafka, tmp_path), f"bell{project.replace('-', '')}"
    kim, lee = (f"{name}{project.replace('-', '')}" for name in ("zyx", "qua"))
    async with Bus(kafka) as bus:
        await bus.publish(declared(project))
        for n in range(20):
            await bus.publish(completion(project, n, f"{word} {n}"))
        await bus.publish(completion(project, 20, f"{kim} asks", "kim"))
        await bus.publish(completion(project, 21, f"{lee} asks", "lee"))
        with console.running():
            await console.finds(project, 22)
            await console.finds(project, 1, kim)
        assert console.has(kim), "else nothing would be shown by its absence"

        for n in range(22, 30):
            await bus.publish(completion(project, n, f"{word} {n}"))
        await bus.publish(completion(project, 0, f"{word} 0"))  # as a gateway that did not hear of it
        await bus.publish(erasure(project, "kim"))
        with console.running():
            await console.finds(project, 29)
            await console.finds(project, 28, word)
            assert not console.has(kim), "it was erased while the console was away"
            assert console.has(lee)
            await bus.publish(erasure(project, "lee"))
            await console.finds(project, 28)
            await until(lambda: not console.has(lee))

        shutil.rmtree(console.work)
        with console.running():
            await console.finds(project, 28, word)
            assert await console.number(project) == 28
            assert not console.has(kim)
            assert not console.has(lee)
