"""What a wheel costs that has nothing to do, what its start takes, and how soon it hears of an event.

Starts a whole wheel in a folder of its own. Processor time and memory come from /proc, by process: user and
system time, and the proportional set size, which counts shared pages once. An event's time runs from before a
ticket is published until its record is read from the log; the wheel idles before each.

    make bench NAME=wheel ARGS="--seconds 60 --events 10"
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer
from report import write_report
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.upstream import ProjectDeclared, TicketPublished
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_testing.feed import EventFeed

TICK = os.sysconf("SC_CLK_TCK")
PROJECT = "bench"
IDLE_SECONDS = 3.0
"""Before an event: longer than a short poll, so that consumers have come to rest."""


@contextmanager
def wheel(folder: Path) -> Iterator[dict[str, Any]]:
    """Run a wheel; yield its state file, with ``seconds`` that its start took."""
    tunewheel, began = [sys.executable, "-m", "tunewheel_cli.main"], time.perf_counter()
    ports = ["--auto-ports", "--detach", "--json"]
    subprocess.run([*tunewheel, "up", "--var", folder, *ports], check=True, stdout=subprocess.DEVNULL)
    try:
        seconds = round(time.perf_counter() - began, 2)
        yield json.loads((folder / "run.json").read_text()) | {"seconds": seconds}
    finally:
        subprocess.run([*tunewheel, "down", "--var", folder], check=True, stdout=subprocess.DEVNULL)


def processes(state: dict[str, Any]) -> dict[str, int]:
    return {"supervisor": state["supervisor_pid"]} | {n: s["pid"] for n, s in state["services"].items()}


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def memory_bytes(pid: int) -> int:
    """Return the proportional set size of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def idle(state: dict[str, Any], seconds: float) -> dict[str, dict[str, float]]:
    """Return by process the cores that an idle wheel takes, what its start took, and its memory."""
    pids = processes(state)
    before, began = {name: processor_seconds(pid) for name, pid in pids.items()}, time.perf_counter()
    time.sleep(seconds)
    taken = time.perf_counter() - began
    found = {
        name: {
            "idle_cores": round((processor_seconds(pid) - before[name]) / taken, 4),
            "start_cpu_seconds": round(before[name], 2),
            "pss_bytes": memory_bytes(pid),
        }
        for name, pid in pids.items()
    }
    whole = {key: round(sum(one[key] for one in found.values()), 4) for key in found["broker"]}
    return found | {"wheel": whole | {"start_seconds": state["seconds"]}}


def declared() -> Envelope[ProjectDeclared]:
    spec = {
        "project": PROJECT,
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "task": {"system_prompt": "Answer."},
        "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
    }
    data = ProjectDeclared(project=PROJECT, spec=ProjectSpec.model_validate(spec))
    return new_event(data, source="/bench")


async def latency(servers: str, events: int) -> dict[str, float]:
    """Return how long the log takes from a ticket to its record."""
    settings, taken = KafkaSettings(bootstrap_servers=servers), list[float]()
    async with EventFeed(settings) as feed, AIOKafkaProducer(bootstrap_servers=servers) as producer:

        async def send(event: Envelope[Any]) -> None:
            record = event.to_kafka()
            headers = list(record.headers.items())
            await producer.send_and_wait(record.topic, record.value, key=record.key, headers=headers)

        await send(declared())
        for n in range(events + 1):
            await asyncio.sleep(IDLE_SECONDS)
            data = TicketPublished(
                project=PROJECT, ticket_id=f"T-{n}", body="The bell?", answer="We mend it."
            )
            began = time.perf_counter()
            await send(new_event(data, source="/bench"))
            await feed.first(topics.RECORD_INGESTED, lambda e, n=n: e.data.source_id == f"T-{n}")
            taken.append(time.perf_counter() - began)
    del taken[0]  # the first waits for the project's declaration
    return {
        "median_seconds": round(statistics.median(taken), 3),
        "longest_seconds": round(max(taken), 3),
        "times": len(taken),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--settle", type=float, default=30.0)
    parser.add_argument("--events", type=int, default=10)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, wheel(Path(scratch)) as state:
        time.sleep(asked.settle)
        found: dict[str, Any] = idle(state, asked.seconds)
        found["event"] = asyncio.run(latency(state["bootstrap_servers"], asked.events))
    for name, figures in found.items():
        print(name, figures, file=sys.stderr)
    write_report("wheel", packages=("aiokafka", "faststream"), contenders=found, ratios={})


if __name__ == "__main__":
    main()
