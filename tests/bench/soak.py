"""The memory of ingest and curate while tickets go through them, sampled after each tenth of the tickets.

Each service is a process of its own on a real broker. A sample is taken when curate's table has every ticket
published so far. The slope is the least squares line through the samples of the second half, in bytes a
ticket: what a process takes at its start is not in it.

    make bench NAME=soak ARGS="--tickets 100000"
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import linear_regression
from typing import Any

from deltalake import DeltaTable
from erase import PROJECT, ticket
from report import write_report
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.topics import ensure_topics
from tunewheel_testing.specs import declared

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.integration.bus import Bus, process, until

SERVICES = ("ingest", "curate")
SAMPLES, AT_ONCE = 10, 500
PATIENCE = 3_600.0
NO_BUILDS = {"dataset": {"build": {"min_new_records": 1_000_000_000}}}


def resident_bytes(pid: int) -> int:
    """Return the resident memory of the process ``pid``."""
    status = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS:"))


async def publish(bus: Bus, numbers: range) -> None:
    for first in range(numbers.start, numbers.stop, AT_ONCE):
        some = range(first, min(first + AT_ONCE, numbers.stop))
        await asyncio.gather(*(bus.publish(ticket(f"T-{n}", f"text {n}", f"c-{n}")) for n in some))


async def measure(kafka: str, store: Path, pids: dict[str, int], tickets: int) -> dict[str, Any]:
    def has(count: int) -> bool:
        table = store / "records"
        return (table / "_delta_log").is_dir() and DeltaTable(str(table)).count() == count

    samples: list[dict[str, int]] = []
    async with Bus(kafka) as bus:
        await bus.publish(declared(PROJECT, **NO_BUILDS))
        for part in range(SAMPLES):
            done, more = (tickets * n // SAMPLES for n in (part, part + 1))
            await publish(bus, range(done, more))
            await until(lambda more=more: has(more), patience=PATIENCE)
            memory = {name: await asyncio.to_thread(resident_bytes, pid) for name, pid in pids.items()}
            samples.append({"tickets": more, **memory})
    late = samples[SAMPLES // 2 - 1 :]
    at = [sample["tickets"] for sample in late]
    slopes = {name: linear_regression(at, [s[name] for s in late]).slope for name in pids}
    return {"samples": samples, "bytes_a_ticket": {name: round(slope, 1) for name, slope in slopes.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tickets", type=int, default=100_000)
    tickets = parser.parse_args().tickets
    os.environ["TUNEWHEEL_IDENTITY"] = "open"
    with tempfile.TemporaryDirectory() as name, LocalKafka(Path(name) / "kafka", port=None) as broker:
        kafka, folder = broker.bootstrap_servers, Path(name)
        asyncio.run(ensure_topics({"bootstrap_servers": kafka}))
        ingest, curate = (
            process(f"tunewheel_{name}.main", kafka, folder / "store", folder / f"{name}.log")
            for name in SERVICES
        )
        with ingest as first, curate as second:
            pids = dict(zip(SERVICES, (first.pid, second.pid), strict=True))
            began = time.monotonic()
            found = asyncio.run(measure(kafka, folder / "store", pids, tickets))
    seconds = round(time.monotonic() - began, 1)
    packages = ("aiokafka", "deltalake", "polars")
    write_report("soak", packages=packages, contenders=found, ratios={}, tickets=tickets, seconds=seconds)


if __name__ == "__main__":
    main()
