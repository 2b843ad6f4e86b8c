"""What it costs to tell who calls: by a key among many, by a token of an OIDC issuer, and while keys change.

Beside the table of hashes stands a comparison with each key in turn, in constant time, as the gateway made it
before. The stall is the longest time for which an event loop, which wakes every millisecond, did not run
while a changed file of keys was read.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import yaml
from report import write_report
from tunewheel_runtime.identity.access import LOOK_SECONDS, Access
from tunewheel_runtime.settings import HttpSettings
from tunewheel_testing.oidc_issuer import AUDIENCE, Issuer

COUNTS = (10, 10_000)
CALLS = 2_000
ROUNDS = 5
TICK_SECONDS = 0.001


def main() -> None:
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, Issuer("RS256") as rsa, Issuer("ES256") as ec:
        figures: dict[str, dict[str, Any]] = {}
        for count in COUNTS:
            path = write_keys(Path(folder) / f"{count}.yaml", count)
            figures[f"{count} keys"] = asyncio.run(measure_keys(path, count))
        for name, issuer in (("RS256", rsa), ("ES256", ec)):
            figures[f"token, {name}"] = asyncio.run(measure_token(path, issuer))
        for form in ("yaml", "json"):
            path = write_keys(Path(folder) / f"reload.{form}", COUNTS[-1])
            figures[f"reload of {COUNTS[-1]} keys, {form}"] = asyncio.run(measure_reload(path))
    few, many = (figures[f"{count} keys"] for count in COUNTS)
    write_report(
        "identity", packages=("joserfc", "cryptography", "pyyaml"), contenders=figures, load=load,
        ratios={
            "table, many keys/few": many["known_us"] / few["known_us"],
            "comparison/table, many keys": many["compared_in_turn_us"] / many["known_us"],
        },
    )  # fmt: skip


def write_keys(path: Path, count: int, *, also: str = "") -> Path:
    keys = {
        f"app-{n}": {"sha256": sum_of(f"key-{n}{also}"), "projects": [f"desk-{n % 50}"]} for n in range(count)
    }
    content = {"keys": keys, "groups": {"leads": {"roles": ["reviewer"]}}}
    path.write_text(json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content))
    return path


def sum_of(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def make_access(path: Path, issuer: Issuer | None = None) -> Access:
    told = {"identity": "required", "api_keys_file": path}
    if issuer is not None:
        told |= {"oidc_issuer": issuer.url, "oidc_audience": AUDIENCE}
    return Access(
        HttpSettings.model_validate(told), warn=lambda name, text: print(name, text, file=sys.stderr)
    )


async def measure_keys(path: Path, count: int) -> dict[str, float]:
    access = make_access(path)
    sums = [sum_of(f"key-{n}").encode() for n in range(count)]

    async def unknown() -> None:
        try:
            await access.identify("Bearer nobody")
        except Exception:
            return
        raise AssertionError("an unknown key was taken")

    async def compared() -> None:
        sent = sum_of(f"key-{count - 1}").encode()
        assert sum(hmac.compare_digest(sent, known) for known in sums) == 1

    return {
        "known_us": await microseconds(lambda: access.identify(f"Bearer key-{count - 1}")),
        "unknown_us": await microseconds(unknown),
        "compared_in_turn_us": await microseconds(compared, calls=CALLS // 20),
    }


async def measure_token(path: Path, issuer: Issuer) -> dict[str, float]:
    access = make_access(path, issuer)
    token = f"Bearer {issuer.token('ada', [f'team-{n}' for n in range(20)])}"
    await access.identify(token)
    return {"known_us": await microseconds(lambda: access.identify(token))}


async def microseconds(call: Callable[[], Awaitable[object]], calls: int = CALLS) -> float:
    """Return the median of the rounds, in processor time of one call."""
    taken = list[float]()
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(calls):
            await call()
        taken.append((time.process_time() - began) / calls * 1e6)
    return round(statistics.median(taken), 2)


async def measure_reload(path: Path) -> dict[str, float]:
    access = make_access(path)
    idle, _ = await longest_stall(asyncio.sleep(0.5))
    stalls, seconds = list[float](), list[float]()
    for turn in range(ROUNDS):
        write_keys(path, COUNTS[-1], also=f"-{turn}")
        await asyncio.sleep(LOOK_SECONDS)
        stall, took = await longest_stall(access.identify(f"Bearer key-0-{turn}"))
        stalls.append(stall)
        seconds.append(took)
    return {
        "seconds": round(statistics.median(seconds), 3),
        "longest_stall_ms": round(max(stalls) * 1e3, 1),
        "median_stall_ms": round(statistics.median(stalls) * 1e3, 1),
        "idle_stall_ms": round(idle * 1e3, 1),
    }


async def longest_stall(work: Awaitable[object]) -> tuple[float, float]:
    """Return how long the loop did not run at most while ``work`` was done, and how long that took."""
    longest, done = 0.0, False

    async def tick() -> None:
        nonlocal longest
        while not done:
            began = time.perf_counter()
            await asyncio.sleep(TICK_SECONDS)
            longest = max(longest, time.perf_counter() - began - TICK_SECONDS)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(0)
    began = time.perf_counter()
    await work
    took = time.perf_counter() - began
    done = True
    await ticking
    return longest, took


if __name__ == "__main__":
    main()
