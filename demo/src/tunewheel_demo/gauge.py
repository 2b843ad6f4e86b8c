"""Measures the time of each stage, and the peak memory of all processes together."""

from __future__ import annotations

import asyncio
import contextlib
import platform
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


@dataclass(slots=True)
class Stage:
    name: str
    seconds: float


@dataclass(slots=True)
class Stopwatch:
    """Times named stages. ``elapsed`` counts from the creation of the stopwatch."""

    stages: list[Stage] = field(default_factory=list)
    failed: str | None = None
    """The stage in which the first exception arose."""
    _began: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._began

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        except Exception:
            self.failed = self.failed or name
            raise
        finally:
            self.stages.append(Stage(name, round(time.monotonic() - began, 2)))


@dataclass(slots=True)
class MemoryGauge:
    """Samples the memory of this process and its descendants, in bytes: the sum of their proportional set
    sizes (proc_pid_smaps(5)). A page that n processes share counts as an nth for each."""

    peak_bytes: int = 0
    interval_seconds: float = 5.0

    def sample(self) -> int:
        import psutil

        me = psutil.Process()
        total = 0
        for process in (me, *me.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
        self.peak_bytes = max(self.peak_bytes, total)
        return total

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async def watch() -> None:
            while True:
                await asyncio.to_thread(self.sample)
                await asyncio.sleep(self.interval_seconds)

        watcher = asyncio.create_task(watch(), name="memory gauge")
        try:
            yield
        finally:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)


def processor() -> str:
    """Return the name of this machine's processor."""
    return _said_by("model name") or platform.processor() or platform.machine()


def fast_precision(*, cpuinfo: Path = CPUINFO) -> str:
    """Return ``bfloat16`` where the processor multiplies bf16 faster than float32, else ``float32``."""
    return "bfloat16" if {"amx_bf16", "avx512_bf16"} & {*_said_by("flags", cpuinfo).split()} else "float32"


def _said_by(name: str, cpuinfo: Path = CPUINFO) -> str:
    with contextlib.suppress(OSError):
        for line in cpuinfo.read_text("utf-8").splitlines():
            if line.startswith(name):
                return line.partition(":")[2].strip()
    return ""
