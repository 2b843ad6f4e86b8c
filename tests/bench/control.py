"""How soon the control API answers lists, and how long the console takes to fold its log.

The routes are called in this process, without a broker; the events are decoded from the bytes of the log.
Nothing is timed against a limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from fastapi import FastAPI
from report import measured, write_report
from tunewheel_console.control.alarms import add_alarms
from tunewheel_console.control.evaluations import add_evaluations
from tunewheel_console.control.models import add_models
from tunewheel_console.control.projects import add_projects
from tunewheel_console.control.runs import add_runs
from tunewheel_console.control.turns import add_turns
from tunewheel_console.state import ConsoleState
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.topics import BY_NAME
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.service import uncollected
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing import desk
from tunewheel_testing.adapters import BASE, SHA, artifact

NAME = "project-000"
LISTS = ("datasets", "runs", "evaluations", "models", "turns", "alarms")


class Desk(desk.Desk):
    """One event a second."""

    seconds = 0

    def event(self, data: Any, cause: Envelope[Any] | None = None) -> Envelope[Any]:
        self.seconds += 1
        time = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=self.seconds)
        return new_event(data, source="/bench", cause=cause, time=time)

    def turn(self, n: int) -> Iterator[Envelope[Any]]:
        """Yield the events of the n-th turn. Every third one comes to production."""
        names = {"run_id": f"run-{n:012x}", "dataset_id": f"ds-{n:012x}"}
        model, judged = {"model_id": self.model_id(n)}, self.verdict(n) | names
        upto = {"records_upto": {"0": n}}
        asked = self.say("dataset.requested", reason="count", request=f"r{n}", **upto)
        yield asked
        yield self.say(
            "dataset.versioned", asked, dataset_id=names["dataset_id"], spec_sha256=SHA, criteria_sha256=SHA,
            manifest=artifact(f"datasets/ds-{n}/manifest.json"), base_model=BASE.name, funnel=(),
            counts={"records": 60, "examples": 50, "train": 40, "holdout": 10},
        )  # fmt: skip
        yield self.say("train.started", **names, base=BASE, method="lora", total_steps=10, attempt=1)
        figures = {"epoch": 0.1, "loss": 1.0, "learning_rate": 1e-3, "tokens_per_second": 200.0}
        for step in (5, 10):
            told = figures | {"step": step, "total_steps": 10, "eta_seconds": 9.0}
            yield self.say("train.progressed", run_id=names["run_id"], **told)
        costs = {"manifest": artifact("runs/r.json"), "final_loss": 0.1, "tokens": 10, "wall_seconds": 1.0}
        yield self.say("train.completed", **(self.run(n) | names), **costs)
        reasons = {"reasons": ("too low",)} if n % 3 else {}
        yield self.say("eval.failed" if n % 3 else "eval.passed", **judged, **reasons)
        kind = {"kind": "adapter", "base": BASE, "adapter": self.adapter(n)}
        yield self.say("model.registered", **model, **names, **kind, generation=4 * n)
        stages = ("rejected",) if n % 3 else ("evaluated", "production")
        for place, stage in enumerate(stages, 1):
            step = {"from_stage": "registered", "to_stage": stage, "cause": "c", "reason": "r"}
            yield self.say("model.promoted", **model, **step, generation=4 * n + place)


def fold(projects: int, runs: int) -> tuple[ConsoleState, int]:
    """Return the state of ``projects`` with ``runs`` each, and the number of events."""
    made, state = Desk(NAME), ConsoleState()
    log = [made.declared().to_kafka()]
    log += [event.to_kafka() for n in range(1, runs + 1) for event in made.turn(n)]
    for project in range(projects):
        name = f"project-{project:03}".encode()
        for record in log:
            headers = {key: value.replace(NAME.encode(), name) for key, value in dict(record.headers).items()}
            headers["ce_id"] += name
            value = record.value.replace(NAME.encode(), name) if record.value else None
            state.apply(Envelope.from_kafka(BY_NAME[record.topic].event, value, headers))
    return state, projects * len(log)


async def answers(state: ConsoleState, times: int) -> dict[str, float]:
    """Return the slowest answer of each list, in milliseconds of the processor; ``…_after_news`` after an
    event in every project."""
    web, store = FastAPI(), ObjectStore("memory://")
    for add in (add_projects, add_runs, add_models, add_turns, add_alarms):
        add(web, state)
    add_evaluations(web, state, store)
    own = [route for route in web.routes if str(getattr(route, "path", "")).startswith("/v1")]
    guard(own, Access(HttpSettings(identity="open"), warn=print))
    slowest: dict[str, float] = {}
    transport = httpx.ASGITransport(web)
    async with httpx.AsyncClient(transport=transport, base_url="http://console/v1") as client:

        async def ask(name: str, path: str) -> None:
            began = time.process_time()
            answer = await client.get(path)
            took = 1000 * (time.process_time() - began)
            assert answer.status_code == 200, answer.text
            slowest[name] = max(slowest.get(name, 0.0), took)

        for _ in range(times):
            await ask("projects", "/projects?limit=100")
            for noun in LISTS[1:]:
                await ask(noun, f"/projects/{NAME}/{noun}")
        for project in state.projects.values():
            made = Desk(project.name)
            made.seconds = 10_000_000
            state.apply(made.say("dataset.requested", reason="count", request="new", records_upto={"0": 1}))
        await ask("projects_after_news", "/projects?limit=100")
        await ask("runs_after_news", f"/projects/{NAME}/runs")
    return slowest


def one(projects: int, runs: int, times: int) -> None:
    began = time.process_time()
    with uncollected():
        state, events = fold(projects, runs)
    seconds = time.process_time() - began
    for project in state.projects.values():
        _ = project.place
    ready = time.process_time() - began
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    slowest = asyncio.run(answers(state, times))
    figures = {
        "events": events,
        "fold_seconds": seconds,
        "ready_seconds": ready,
        "mebibytes": memory,
        "slowest_ms": slowest,
    }
    print(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--projects", type=int, default=100)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--one", action="store_true")
    chosen = parser.parse_args()
    if chosen.one:
        one(chosen.projects, chosen.runs, chosen.times)
        return
    arguments = ("--one", "--projects", chosen.projects, "--runs", chosen.runs, "--times", chosen.times)
    found = measured(sys.argv[0], *arguments)
    write_report(
        "control", packages=("fastapi", "pydantic"), contenders={"console": found},
        ratios={name: ms / 200 for name, ms in found["slowest_ms"].items()},
        projects=chosen.projects, runs=chosen.runs,
    )  # fmt: skip


if __name__ == "__main__":
    main()
