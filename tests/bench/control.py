"""How soon the control API answers lists and a browser paints pages, and how long the console takes to start.

The routes are called in this process, without a broker; records are those of the log.
Nothing is timed against a limit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from report import measured, write_report
from tunewheel_console.archive import Archive
from tunewheel_console.checkpoint import Checkpoint
from tunewheel_console.control.evaluations import add_evaluations
from tunewheel_console.control.models import add_models
from tunewheel_console.control.projects import add_projects
from tunewheel_console.control.routes import make_api
from tunewheel_console.control.runs import add_runs
from tunewheel_console.control.turns import add_alarms, add_turns
from tunewheel_console.state import ConsoleState
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.topics import BY_NAME
from tunewheel_runtime.deadletter import Position, Undecoded
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.log import Place, Span
from tunewheel_runtime.process import uncollected
from tunewheel_runtime.settings import HttpSettings, ServiceSettings
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.view import LogReader
from tunewheel_testing import desk
from tunewheel_testing.adapters import BASE, SHA, artifact
from tunewheel_testing.browser import becomes, chromium_here, opened
from tunewheel_testing.console import Console
from tunewheel_testing.crawl import HEADERS, one_of_each, some_pages
from tunewheel_testing.served import serving

NAME = "project-000"
EXIT_SECONDS = 0.5
"""A process that ends right after a request to the store is aborted: a thread of obstore still runs."""
IDS = {"ce_id", "ce_causationid", "ce_correlationid"}
"""The headers that name events: each project has events of its own."""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]"
LISTS = ("runs", "evaluations", "models", "turns", "alarms")


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


class Reader(LogReader):
    """Reads a log that is made as it is read."""

    async def look(self) -> dict[Place, Span]:
        return {(topic.name, 0): Span(0, 1 << 40) for topic in BY_NAME.values()}


def log(projects: int, runs: int) -> Iterator[Undecoded]:
    """Yield the log of ``projects`` with ``runs`` each, one project after the other."""
    made, offsets = Desk(NAME), Counter[str]()
    events = [made.declared(), *(event for n in range(1, runs + 1) for event in made.turn(n))]
    records = [(event.to_kafka(), int(event.time.timestamp() * 1000)) for event in events]
    for project in range(projects):
        name = f"project-{project:03}".encode()
        for record, logged_ms in records:
            headers = {key: value.replace(NAME.encode(), name) for key, value in dict(record.headers).items()}
            headers |= {key: headers[key] + name for key in IDS & headers.keys()}
            value = record.value.replace(NAME.encode(), name) if record.value else None
            at = Position(record.topic, 0, offsets[record.topic])
            offsets[record.topic] += 1
            yield Undecoded(at, name, value, headers, logged_ms)


def console(store: str) -> tuple[ConsoleState, Archive, Reader]:
    state = ConsoleState()
    archive = Archive(state, Checkpoint(ObjectStore(store)), rules="bench")
    archive.reader = Reader(
        ServiceSettings(), tuple(BY_NAME.values()), lambda event, _: state.apply(event), failed=print,
        forget=state.forget, begins=archive.begins, keep=archive.keep,
    )  # fmt: skip
    return state, archive, archive.reader


async def first_start(projects: int, runs: int, store: str) -> dict[str, float]:
    """Read the whole log, and write the checkpoint."""
    _, archive, reader = console(store)
    events, seconds = 0, 0.0
    await archive.begins()
    with uncollected():
        for record in log(projects, runs):
            began = time.process_time()
            await reader._decode_and_apply(record)
            seconds, events = seconds + time.process_time() - began, events + 1
    began = time.process_time()
    await archive.start()
    ready = seconds + time.process_time() - began
    await archive.write()
    await archive.stop()
    files = sum(file.stat().st_size for file in Path(urlsplit(store).path).rglob("*") if file.is_file())
    return {"events": events, "read_seconds": seconds, "ready_seconds": ready, "mebibytes": mebibytes(),
            "checkpoint_mebibytes": files / 2**20}  # fmt: skip


async def later_start(projects: int, runs: int, store: str, times: int) -> dict[str, Any]:
    """Start from the checkpoint. The log gives the last record of each partition, and what is not kept."""
    kept = {topic.name for topic in BY_NAME.values() if topic.is_kept_for_ever}
    state, archive, reader = console(store)
    began = time.process_time()
    begins = await archive.begins()
    seconds = time.process_time() - began
    for record in log(projects, runs):
        name, number, offset = record.position.topic, record.position.partition, record.position.offset
        if name not in kept or offset >= (begins.get(name) or {})[str(number)]:
            began = time.process_time()
            await reader._decode_and_apply(record)
            seconds += time.process_time() - began
    began = time.process_time()
    await archive.start()
    ready, memory = seconds + time.process_time() - began, mebibytes()
    slowest = await answers(state, reader, projects, times)
    pages = await paints(state)
    await archive.stop()
    return {"ready_seconds": ready, "mebibytes": memory, "mebibytes_after_news": mebibytes(),
            "slowest_ms": slowest, "pages": pages}  # fmt: skip


def mebibytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def answers(state: ConsoleState, reader: Reader, projects: int, times: int) -> dict[str, float]:
    """Return the slowest answer of each list, in milliseconds of the processor.

    ``…_of_rest``: of a project at rest; ``…_during_news``: while an event in every project is read;
    ``…_after_news``: right after that.
    """
    web, store = make_api(state), ObjectStore("memory://")
    for add in (add_projects, add_models, add_turns, add_alarms):
        add(web, state)
    add_runs(web, store)
    add_evaluations(web, store)
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

        last = f"project-{projects - 1:03}"
        await ask("runs_of_rest", f"/projects/{last}/runs")
        for _ in range(times):
            await ask("projects", "/projects?limit=100")
            for noun in LISTS:
                await ask(noun, f"/projects/{last}/{noun}")
        for what in ("during_news", "after_news"):
            news = asyncio.create_task(tell(reader, projects, what))
            while what == "during_news" and not news.done():
                await ask(f"projects_{what}", "/projects?limit=100")
                await asyncio.sleep(0.01)
            await news
            await ask(f"projects_{what}", "/projects?limit=100")
            await ask(f"runs_{what}", f"/projects/{last}/runs")
    return slowest


async def paints(state: ConsoleState) -> dict[str, dict[str, float]]:
    """Return when Chromium first painted a page of each address, in milliseconds of the clock after it was
    asked for, and the number of the page's nodes."""
    found: dict[str, dict[str, float]] = {}
    if (chromium := chromium_here()) is None:
        return found
    made = Console(Path(tempfile.mkdtemp()))
    made.state = state
    async with serving(made.web()) as url, opened(chromium) as browser:
        page = await browser.new_page(extra_http_headers=HEADERS)
        for shape, path in one_of_each(await some_pages(url)).items():
            await page.goto(url + path)
            await becomes(page, "performance.getEntriesByName('first-contentful-paint').length > 0")
            painted = await page.evaluate(
                "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            )
            found[shape] = {"first_paint_ms": painted, "nodes": await page.locator("*").count()}
    return found


async def tell(reader: Reader, projects: int, request: str) -> None:
    """Read an event of every project."""
    for project in range(projects):
        made = Desk(f"project-{project:03}")
        made.seconds = 10_000_000
        event = made.say("dataset.requested", reason="count", request=request, records_upto={"0": 1})
        record = event.to_kafka()
        at = Position(record.topic, 0, (1 << 30) + project)
        await reader._decode_and_apply(Undecoded(at, record.key, record.value, dict(record.headers), 0))
        await asyncio.sleep(0)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--projects", type=int, default=100)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--first", help="the store's address")
    parser.add_argument("--later", help="the store's address")
    chosen = parser.parse_args()
    if chosen.first:
        print(json.dumps(asyncio.run(first_start(chosen.projects, chosen.runs, chosen.first))))
        time.sleep(EXIT_SECONDS)
        return
    if chosen.later:
        found = asyncio.run(later_start(chosen.projects, chosen.runs, chosen.later, chosen.times))
        print(json.dumps(found))
        time.sleep(EXIT_SECONDS)
        return
    arguments = ("--projects", chosen.projects, "--runs", chosen.runs, "--times", chosen.times)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder).as_uri()
        first = measured(sys.argv[0], "--first", store, *arguments)
        found = measured(sys.argv[0], "--later", store, *arguments)
    write_report(
        "control", packages=("fastapi", "pydantic"), contenders={"first start": first, "console": found},
        ratios={name: ms / 200 for name, ms in found["slowest_ms"].items()}
        | {path: one["first_paint_ms"] / 1_500 for path, one in found["pages"].items()},
        projects=chosen.projects, runs=chosen.runs,
    )  # fmt: skip


if __name__ == "__main__":
    main()
