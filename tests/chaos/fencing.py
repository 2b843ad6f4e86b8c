"""Trials of fencing: the active registry stalls while one of its decisions is under way, another takes over
and decides the same verdict by a newer spec.

``python -m tests.chaos.fencing --trials 40`` runs some on three brokers, several lanes side by side.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import aiohttp
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import TOPICS
from tunewheel_local.topics import ensure_topics, wanted_topics
from tunewheel_registry.ledger import Ledger
from tunewheel_registry.main import OWN
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.log import decoded, read
from tunewheel_testing.sender import publish_events
from tunewheel_testing.specs import declared

from ..integration.bus import PATIENCE_SECONDS
from ..integration.verdicts import adapter_of, passed
from .stalls import Kind, Replica, Stall
from .three_brokers import ThreeBrokers

SESSION_SECONDS = 6.0
Histories = dict[str, list[tuple[str, str]]]
"""By model: the ids of its steps, with their stages."""


@dataclass(frozen=True)
class Trial:
    number: int
    kind: Kind
    held_back: bool
    after_ms: float
    seconds: float | None
    """How long the stall lasts; None: until another registry has decided."""


@dataclass(frozen=True)
class Outcome:
    trial: Trial
    failover_seconds: float | None
    """From the stall until another registry was active; None: the stall was too short for that."""
    stale: int
    """Events that are visible although their generation was decided by another event, or published twice."""
    is_identical: bool
    """Whether the active registry, each standby and a replay have the same state."""
    decided: Literal["before", "after"]
    """Whether the decision that was on its way when the stall began counts, or that of the newer spec."""


def trials(count: int, *, long: int, seed: int) -> list[Trial]:
    """Return ``count`` trials, of which ``long`` last 20 to 60 s, and the others 5 to 20 s."""
    chance = random.Random(seed)
    seconds = [chance.uniform(20, 60) for _ in range(long)]
    seconds += [chance.uniform(5, 20) for _ in range(count - long)]
    chance.shuffle(seconds)
    return [
        Trial(
            number,
            kind=chance.choice(("stop", "cut")),
            held_back=chance.random() < 0.5,
            after_ms=chance.uniform(0, 40),
            seconds=length,
        )
        for number, length in enumerate(seconds)
    ]


class Lane:
    """Registries on topics of their own."""

    def __init__(
        self, settings: KafkaSettings, replicas: list[Replica], session: aiohttp.ClientSession
    ) -> None:
        self._options = client_options(settings)
        self._replicas = replicas
        self._session = session

    @classmethod
    @contextlib.asynccontextmanager
    async def on(
        cls, servers: str, folder: Path, *, replicas: int = 2, prefix: str = ""
    ) -> AsyncIterator[Lane]:
        """Run ``replicas`` registries on ``servers``."""
        folder.mkdir(exist_ok=True)
        settings = KafkaSettings(bootstrap_servers=servers, topic_prefix=prefix)
        own = [spec for spec in TOPICS if "registry" in (*spec.producers, *spec.consumers, *spec.replayed_by)]
        await ensure_topics(client_options(settings), wanted_topics(own))
        made = [
            await Replica.before(servers, folder, f"registry-{n}", TUNEWHEEL_TOPIC_PREFIX=prefix)
            for n in range(replicas)
        ]
        async with aiohttp.ClientSession() as session:
            lane = cls(settings, made, session)
            try:
                for replica in made:
                    replica.start()
                yield lane
            finally:
                for replica in made:
                    await replica.close()

    async def run(self, trial: Trial) -> Outcome:
        project, (first, second) = (
            f"fence-{trial.number}",
            (adapter_of(f"fence-{trial.number}", n) for n in (1, 2)),
        )
        active = await self._settled()
        await self._publish(declared(project, rollout={"canary": {"enabled": False}}), passed(project, 1))
        await self._until(lambda: self._is_in(active, project, first.model_id, "production"))
        mark = f'"model_id":"{second.model_id}","from_stage":"evaluated","to_stage":"production"'
        stall = Stall(mark.encode(), trial.kind, trial.held_back, trial.after_ms)
        active.arm(stall)
        await self._publish(passed(project, 2))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await stall.begun.wait()
        began = time.monotonic()
        await self._publish(declared(project))  # The newer spec wants a canary first.
        taking_over = asyncio.create_task(self._taken_over(active, began))
        if trial.seconds is None:
            await taking_over
            await self._until(lambda: self._is_decided(second.model_id, project))
        else:
            await asyncio.sleep(trial.seconds)
        active.go_on()
        await self._settled()
        taking_over.cancel()
        await asyncio.gather(taking_over, return_exceptions=True)
        await self._until(lambda: self._is_decided(second.model_id, project))
        replay, generations = await self._replayed(project)
        return Outcome(
            trial,
            None if taking_over.cancelled() else taking_over.result(),
            stale=sum(generations.values()) - len(generations),
            is_identical=await self._agree(project, replay),
            decided="before" if "production" in dict(replay[second.model_id]).values() else "after",
        )

    async def _publish(self, *events: Envelope[Any]) -> None:
        await publish_events(self._options, *events)

    async def _until(self, holds: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await holds():
                await asyncio.sleep(0.05)

    async def _settled(self) -> Replica:
        """Return the active registry once the others stand by."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                await self._revive()
                states = [await replica.health(self._session) for replica in self._replicas]
                roles = [state.get("role") if state.get("ready") else None for state in states]
                if sorted(map(str, roles)) == ["active", *["standby"] * (len(roles) - 1)]:
                    return self._replicas[roles.index("active")]
                await asyncio.sleep(0.1)

    async def _revive(self) -> None:
        """Start again what has ended, as an orchestrator does."""
        for replica in self._replicas:
            if await replica.ended(0):
                replica.start()

    async def _taken_over(self, before: Replica, began: float) -> float:
        others = [replica for replica in self._replicas if replica is not before]
        while True:
            for replica in others:
                state = await replica.health(self._session)
                if state.get("ready") and state.get("role") == "active":
                    return time.monotonic() - began
            await asyncio.sleep(0.05)

    async def _is_in(self, replica: Replica, project: str, model_id: str, *stages: str) -> bool:
        steps = (await self._histories(replica, project)).get(model_id, [])
        return any(stage in stages for _, stage in steps)

    async def _is_decided(self, model_id: str, project: str) -> bool:
        """Whether an active registry has put the model into traffic. One that is cut off may not know yet
        that it is no longer active, and ends once it does."""
        await self._revive()
        return any(
            [
                await self._is_in(replica, project, model_id, "canary", "production")
                for replica in self._replicas
                if (await replica.health(self._session)).get("role") == "active"
            ]
        )

    async def _histories(self, replica: Replica, project: str) -> Histories:
        models = await replica.models(self._session, project)
        return {m["model_id"]: [(step["event_id"], step["stage"]) for step in m["history"]] for m in models}

    async def _replayed(self, project: str) -> tuple[Histories, Counter[int]]:
        """Read what is committed; return the state of a replay, and how many events have each generation."""
        ledger, generations = Ledger(None, None, None, None), Counter[int]()  # type: ignore[arg-type]
        async for records in read(self._options, [topic.name for topic in OWN]):
            for event in filter(None, map(decoded, records)):
                if event.project == project:
                    ledger.replay(event)
                    generations.update(filter(None, [getattr(event.data, "generation", None)]))
        models = ledger.state(project).models.values()
        return {m.model_id: [(s.event_id, s.stage.value) for s in m.history] for m in models}, generations

    async def _agree(self, project: str, replay: Histories) -> bool:
        """Return whether each registry comes to the state of ``replay``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    await self._revive()
                    states = [await self._histories(replica, project) for replica in self._replicas]
                    if all(state == replay for state in states):
                        return True
                    await asyncio.sleep(0.1)
        return False


async def measure(servers: str, folder: Path, wanted: Sequence[Trial], *, lanes: int) -> list[Outcome]:
    """Run trials in ``lanes`` side by side."""
    waiting, outcomes = list(wanted), list[Outcome]()

    async def work(number: int) -> None:
        async with Lane.on(servers, folder / f"lane-{number}", prefix=f"lane-{number}.") as lane:
            while waiting:
                outcomes.append(await lane.run(waiting.pop(0)))
                print(json.dumps(asdict(outcomes[-1])), flush=True)

    async with asyncio.TaskGroup() as group:
        for number in range(lanes):
            group.create_task(work(number))
    return outcomes


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the figures of all trials."""
    failovers = sorted(o.failover_seconds for o in outcomes if o.failover_seconds is not None)
    return {
        "trials": len(outcomes),
        "longer_than_20_s": sum((o.trial.seconds or 0) > 20 for o in outcomes),
        "stops": sum(o.trial.kind == "stop" for o in outcomes),
        "identical": sum(o.is_identical for o in outcomes),
        "stale_visible": sum(o.stale for o in outcomes),
        "failovers": len(failovers),
        "decided_by_the_successor": sum(o.decided == "after" for o in outcomes),
        "failover_p50_seconds": round(statistics.median(failovers), 2) if failovers else None,
        "failover_p99_seconds": round(failovers[int(len(failovers) * 0.99)], 2) if failovers else None,
        "session_seconds": SESSION_SECONDS,
    }


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run trials, write their figures, and return them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--long", type=int, default=20, help="of them, how many last 20 to 60 s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lanes", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("var/nightly/fencing.json"))
    options = parser.parse_args(arguments)
    wanted = trials(options.trials, long=options.long, seed=options.seed)
    with tempfile.TemporaryDirectory() as scratch, ThreeBrokers(Path(scratch)) as brokers:
        outcomes = asyncio.run(measure(brokers.servers, Path(scratch), wanted, lanes=options.lanes))
    found = figures(outcomes)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(json.dumps(found))
    return found


if __name__ == "__main__":
    main()
