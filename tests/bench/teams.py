"""One team floods every door; two others ask for little, and for that all the time.

Broker, ingest, curate, train, eval, registry, gateway and engine are the real ones, on a tiny random model;
train and eval fork their workers. ``flood`` sends tickets over HTTP and to Kafka, asks for dataset versions
and completions, and reports versions and trained models, all the time. ``--ahead`` tickets lie on the log
before the first of the others. The others send tickets, ask for completions, and take turns: a version, the
training on it, the verdict on the model, and then the next version. They report a trained model, wait for its
verdict, and report the next. What counts is whether the others' work is done, and how much of the flood's was
done in between (its position; ``positions``).

    make bench NAME=teams ARGS="--minutes 30"
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
from report import write_report
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.topics import ensure_topics
from tunewheel_testing.command_keys import CommandKeys
from tunewheel_testing.engine_process import EngineProcess
from tunewheel_testing.specs import declared

sys.path.insert(0, str(Path(__file__).parents[2]))
from doors import BATCH, Doors, Ends, Team, spec, write_keys
from positions import Asked, on_the_log, read_log, summary

from tests.integration.bus import Bus, process
from tests.integration.evaluations import Ground, make_ground
from tests.integration.fork_server import forked

FLOOD, OTHERS = "flood", ("north", "south")
EVENTS_PER_MINUTE, COMPLETIONS_PER_MINUTE = 600, 60
ANSWERED_EVERY = 50
"""One of so many tickets of the flood has an answer, so that its versions stay as short as the others'."""
PAUSES = {"ticket": 5.0, "log": 5.0, "turn": 15.0, "judged": 15.0, "chat": 2.5}
"""Seconds between two pieces of an other team's work, by door."""
FLOODS = {"ticket": (4, 0.01), "burst": (1, 1.0), "build": (1, 1.0), "train": (1, 5.0), "model": (2, 0.5),
          "chat": (4, 0.05)}  # fmt: skip
"""By door: how many clients of the flood there are, and the seconds between two pieces of the work of one."""
START_SECONDS, PATIENCE_SECONDS = 900.0, 900.0
ITEM = {"item_id": "a", "kind": "k", "prompt": "The sky is", "choices": ["blue", "loud"], "answer": "blue",
        "match": "choice"}  # fmt: skip


async def often(work: Callable[[], Awaitable[object]], pause: float, until: float) -> None:
    while time.monotonic() < until:
        await work()
        await asyncio.sleep(pause)


def settings(folder: Path, engine: str) -> dict[str, dict[str, str]]:
    """Return the settings of each service."""
    regression = folder / "regression.jsonl"
    regression.write_text(json.dumps(ITEM) + "\n")
    own: dict[str, dict[str, str]] = {
        "ingest": {
            "TUNEWHEEL_PROJECT_EVENTS_PER_MINUTE": str(EVENTS_PER_MINUTE),
            "TUNEWHEEL_HTTP_PORT": str(free_port()),
        },
        "curate": {},
        "registry": {},
        "train": forked_worker("train") | {"TUNEWHEEL_TRAIN_DTYPE": "float32"},
        "eval": forked_worker("eval"),
        "serve_gateway": {
            "TUNEWHEEL_IDENTITY": "required",
            "TUNEWHEEL_API_KEYS_FILE": str(write_keys(folder / "keys.json", (FLOOD, *OTHERS))),
            "TUNEWHEEL_LIMIT_REQUESTS_PER_MINUTE": str(COMPLETIONS_PER_MINUTE),
            "TUNEWHEEL_HTTP_PORT": str(free_port()),
            "TUNEWHEEL_ENGINE_URL": engine,
            **CommandKeys(folder).environment("serve-gateway"),
        },
    }
    shared = {
        "TUNEWHEEL_CACHE_DIR": str(folder / "cache"),
        "TUNEWHEEL_IDENTITY": "open",
        "TUNEWHEEL_EVAL_REGRESSION_SET": str(regression),
        "TUNEWHEEL_SESSION_TIMEOUT_MS": "30000",
    }
    return {name: shared | said for name, said in own.items()}


def forked_worker(service: str) -> dict[str, str]:
    """Return what ``forked_service`` needs, and one thread and process for each job."""
    worker = json.dumps(forked(f"tunewheel_{service}.worker"))
    one = {f"TUNEWHEEL_{service.upper()}_THREADS": "1", "TUNEWHEEL_TRAIN_PROCESSES": "1"}
    return {"BENCH_SERVICE": service, "BENCH_WORKER": worker, **one}


def start(stack: AsyncExitStack, servers: str, folder: Path, engine: str) -> tuple[str, ...]:
    """Start the services; return the URLs of ingest and of the gateway."""
    told = settings(folder, engine)
    for name, said in told.items():
        module = "tests.bench.forked_service" if "BENCH_SERVICE" in said else f"tunewheel_{name}.main"
        made = process(module, servers, folder / "store", folder / f"{name}.log", **said)
        stack.enter_context(made)
    ports = (told[name]["TUNEWHEEL_HTTP_PORT"] for name in ("ingest", "serve_gateway"))
    return tuple(f"http://127.0.0.1:{port}" for port in ports)


async def measure(servers: str, folder: Path, minutes: float, ahead: int) -> dict[str, Any]:
    ground = await asyncio.to_thread(make_ground, folder)
    async with AsyncExitStack() as stack:
        engine = engine_on(ground, folder)
        engine.start()
        stack.callback(engine.kill)
        ingest, gateway = start(stack, servers, folder, engine.url)
        bus = await stack.enter_async_context(Bus(servers))
        ends = await stack.enter_async_context(Ends(servers))
        client = await stack.enter_async_context(httpx.AsyncClient(timeout=600))
        doors = Doors(ingest, gateway, bus, ends, ground, client)
        flood = Team(FLOOD, doors, ANSWERED_EVERY)
        others = [Team(name, doors) for name in OTHERS]
        declarations = [declared(team.name, **spec(str(ground.base.path))) for team in (flood, *others)]
        await bus.publish(*declarations)
        for team in others:
            await team.log(40)
        async with asyncio.timeout(START_SECONDS):
            await ready(client, ingest, others)
        for _ in range(ahead // BATCH):
            await flood.burst()
        await asyncio.gather(*work(flood, others, time.monotonic() + 60 * minutes))
        found = await settled(servers)
    return found | {
        "gateway": completions(flood, others),
        "doors": {team.name: team.answers for team in (flood, *others)},
    }


def engine_on(ground: Ground, folder: Path) -> EngineProcess:
    from tunewheel_contracts.formats.run import BaseModelRef

    base = BaseModelRef(name=str(ground.base.path), revision=ground.base.revision)
    return EngineProcess(base, adapters=folder / "cache" / "adapters", log=folder / "engine.log")


def work(flood: Team, others: list[Team], until: float) -> list[Coroutine[Any, Any, None]]:
    """Return what all teams do until then; an other team ends the turn that it has begun."""
    floods = [
        often(getattr(flood, door), pause, until)
        for door, (clients, pause) in FLOODS.items()
        for _ in range(clients)
    ]
    return floods + [
        often(getattr(team, door), pause, until) for team in others for door, pause in PAUSES.items()
    ]


def completions(flood: Team, others: list[Team]) -> dict[str, Any]:
    """Return how the others' requests for completions were answered. A refused one counts as not done."""
    ends = sorted(answered for _, answered in flood.chats)
    asked = sum(team.answers["gateway"].total() for team in others)
    told = summary({team.name: [Asked(*one) for one in team.chats] for team in others}, ends, slots=False)
    sent = flood.answers["gateway"].total()
    return told | {"asked": asked, "flood sent": sent, "flood done": len(ends)}


async def ready(client: httpx.AsyncClient, ingest: str, others: list[Team]) -> None:
    """Return once ingest answers, and the gateway answers every team with a completion."""
    while True:
        try:
            await client.get(f"{ingest}/openapi.json")
            statuses = [await team.chat() for team in others]
        except httpx.ConnectError:
            statuses = [0]
        if set(statuses) == {200}:
            break
        await asyncio.sleep(5.0)  # within the limit
    for team in others:
        team.chats.clear()
        team.answers.pop("gateway")


async def settled(servers: str) -> dict[str, Any]:
    """Return what the log says once all of the others' work is answered, or ``PATIENCE_SECONDS`` later."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = on_the_log(await read_log(servers), FLOOD)
        if all(of["done"] == of["asked"] for of in found.values()) or time.monotonic() > ends:
            return found
        await asyncio.sleep(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--ahead", type=int, default=1_000)
    asked = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        LocalKafka(Path(name) / "kafka", port=None) as broker,
    ):
        asyncio.run(ensure_topics({"bootstrap_servers": broker.bootstrap_servers}))
        asked_of = (broker.bootstrap_servers, Path(name), asked.minutes, asked.ahead)
        found = asyncio.run(measure(*asked_of))
    write_report("teams", packages=("aiokafka",), contenders=found, ratios={}, minutes=asked.minutes)


if __name__ == "__main__":
    main()
