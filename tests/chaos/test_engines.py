"""The rollout of a candidate on two replicas of an engine, of which one is killed with -9: nobody sees a
failure before the first token, and every replica gets every adapter."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.formats.rollout_spec import RolloutSpec
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.desk import Desk
from tunewheel_testing.engine_process import EngineProcess, VllmProcess, tiny_adapter, tiny_base

from ..integration.bus import Bus, running, until
from ..integration.test_gateway import answered_by, client_of, gateway
from ..integration.test_registry import Reader, registry

pytestmark = pytest.mark.chaos

CLIENTS = 8
SMOLLM2_SHAPE = {"layers": 30, "width": 576}
ROLLOUT = {"shadow": {"enabled": True}, "canary": {"percent": 50}}


@pytest.fixture(
    params=[
        pytest.param("ours", marks=pytest.mark.nightly("kills")),
        pytest.param("vllm", marks=pytest.mark.nightly("vllm")),
    ]
)
def engines(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[EngineProcess]]:
    """Two replicas on one base: ours on a tiny one, vLLM on SmolLM2."""
    made: list[EngineProcess] = []
    base = tiny_base(tmp_path) if request.param == "ours" else None
    for n in range(2):
        log = tmp_path / f"engine-{n}.log"
        if base is None:
            made.append(VllmProcess(request.getfixturevalue("smollm2"), log=log))
        else:
            made.append(EngineProcess(base, adapters=tmp_path / "adapters", log=log))
    yield made
    for engine in made:
        engine.kill()


async def test_a_candidate_comes_and_goes_on_two_replicas_of_which_one_is_killed(
    kafka: str,
    tmp_path: Path,
    project: str,
    engines: list[EngineProcess],
    record_property: Callable[[str, object], None],
):
    desk = Desk(project, rollout=RolloutSpec.model_validate(ROLLOUT), base=engines[0].base)
    store = ObjectStore((tmp_path / "store").as_uri())
    shape = SMOLLM2_SHAPE if isinstance(engines[0], VllmProcess) else {}
    champion, candidate = [await tiny_adapter(store, desk.base, desk.model_id(n), n, **shape) for n in (1, 2)]
    began = time.monotonic()

    def note(figure: str) -> None:
        """Write the seconds since ``began`` into the report of the nightly part."""
        record_property(figure, round(time.monotonic() - began, 2))

    for engine in engines:
        engine.start()
    await asyncio.gather(*(engine.answers() for engine in engines))
    note("seconds_until_both_answer")
    urls = ",".join(engine.url for engine in engines)
    async with (
        Bus(kafka) as bus,
        running(registry(kafka, tmp_path)),
        running(gateway(kafka, tmp_path, urls)) as service,
    ):
        reader = Reader(bus, project)
        told = {"adapter": champion}
        await bus.publish(desk.declared(), desk.trained(1, **told), desk.passed(1, **told))
        await reaches(bus, champion.model_id, RouteRole.SHADOW)
        await bus.publish(desk.judged(1, "shadow", "passed"))
        await reaches(bus, champion.model_id, RouteRole.CANARY)
        await bus.publish(desk.judged(1, "canary", "passed"))
        await reaches(bus, champion.model_id, RouteRole.PRODUCTION)
        await asyncio.gather(*(engine.has(champion.model_id) for engine in engines))
        async with client_of(service) as client:
            await answered_by(client, project, champion.model_id)

        asking = Asking(f"http://127.0.0.1:{service.doors.http_port}/v1/chat/completions", project)
        async with asking.going_on():
            told = {"adapter": candidate}
            await bus.publish(desk.trained(2, **told), desk.passed(2, **told))
            await reaches(bus, candidate.model_id, RouteRole.SHADOW)
            began = time.monotonic()
            await asyncio.gather(*(engine.has(candidate.model_id) for engine in engines))
            note("seconds_until_both_have_the_candidate")
            await answers(bus, candidate.model_id, RouteRole.SHADOW)

            await bus.publish(desk.judged(2, "shadow", "passed"))
            canary = await reaches(bus, candidate.model_id, RouteRole.CANARY)
            await answers(bus, candidate.model_id, RouteRole.CANARY)

            engines[0].kill()
            begun = asking.begun
            await until(lambda: asking.begun > begun + 32)
            engines[0].start()
            await engines[0].answers()
            began = time.monotonic()
            await engines[0].has(champion.model_id, candidate.model_id)
            note("seconds_until_the_killed_has_both_again")

            await bus.publish(desk.judged(2, "canary", "failed"))
            await reader.newer(canary, champion.model_id)
            began = time.monotonic()
            await asyncio.gather(*(engine.lacks(candidate.model_id) for engine in engines))
            note("seconds_until_nobody_has_the_candidate")
            begun = asking.begun
            await until(lambda: asking.begun > begun + 16)
        record_property("answers", asking.begun)
        record_property("streams_broken_after_their_first_token", asking.broken)
        assert asking.refused == []
        assert asking.begun > asking.broken


async def reaches(bus: Bus, model_id: str, role: RouteRole) -> ServingDesired:
    """Return the first desired state in which ``model_id`` has ``role``."""
    found = await bus.collect(
        topics.SERVING_DESIRED,
        1,
        where=lambda e: (model_id, role) in [(r.model_id, r.role) for r in e.data.desired.routes],
    )
    return found[0].data


async def answers(bus: Bus, model_id: str, role: RouteRole) -> None:
    """Return once ``model_id`` has answered four requests in ``role``."""
    told = (model_id, role, None)
    await bus.collect(
        topics.INFERENCE_COMPLETED, 4, where=lambda e: (e.data.model_id, e.data.role, e.data.error) == told
    )


@dataclass
class Asking:
    """Clients that ask for whole and for streamed answers in turn."""

    url: str
    project: str
    begun: int = 0
    broken: int = 0
    """Streams that ended in an error after their first token."""
    refused: list[tuple[int, str]] = field(default_factory=list)
    _stopping: bool = False

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        async with aiohttp.ClientSession() as session:
            clients = [asyncio.create_task(self._client(session, stream=n % 2 == 0)) for n in range(CLIENTS)]
            yield
            self._stopping = True
            await asyncio.gather(*clients)

    async def _client(self, session: aiohttp.ClientSession, *, stream: bool) -> None:
        messages = [{"role": "user", "content": "hello"}]
        body = {"model": self.project, "messages": messages, "max_tokens": 12, "stream": stream}
        while not self._stopping:
            async with session.post(self.url, json=body) as response:
                text = await response.text()
                if response.status != 200:
                    self.refused.append((response.status, text))
                    return
            self.begun += 1
            self.broken += '"error"' in text
