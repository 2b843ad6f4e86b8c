"""What every benchmark writes: the machine, the versions, each contender's figures, the ratios."""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

BENCH_DIR = Path(__file__).resolve().parents[2] / "var" / "bench"


def machine() -> dict[str, Any]:
    """Describe the processor, its cores and its memory in bytes."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    told = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    flags = set(told.get("flags", "").split())
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": told.get("model name", platform.processor()),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": pages,
        "features": [flag for flag in wanted if flag in flags],
        "python": platform.python_version(),
    }


def measured(script: str, *arguments: object) -> dict[str, Any]:
    """Run ``script`` in a process of its own, so that peak memory is that measurement's; it ends by printing
    its figures as a line of JSON."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def costs(records: int, cpu: float, wall: float) -> dict[str, Any]:
    """Return what ``records`` cost in processor seconds, seconds and this process's peak memory."""
    return {
        "records": records,
        "cpu_seconds": round(cpu, 2),
        "seconds": round(wall, 2),
        "records_per_cpu_second": round(records / cpu),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def write_report(
    name: str,
    *,
    packages: Iterable[str],
    contenders: Mapping[str, Mapping[str, Any]],
    ratios: Mapping[str, float],
    directory: Path = BENCH_DIR,
    **more: Any,
) -> Path:
    """Write ``<directory>/<name>.json``, print it, and return its path."""
    report = {
        "name": name,
        "machine": machine(),
        "versions": {package: version(package) for package in packages},
        "contenders": contenders,
        "ratios": {key: round(value, 4) for key, value in ratios.items()},
        **more,
    }
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}.json"
    text = json.dumps(report, indent=2)
    path.write_text(text + "\n")
    print(text)
    return path
