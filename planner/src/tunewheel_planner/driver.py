"""Reads the NVIDIA driver of this machine, without PyTorch, and which driver a PyTorch needs."""

from __future__ import annotations

import contextlib
import ctypes
import re
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

LEAST_DRIVER = {"13": 580, "12": 525, "11": 450}
"""The oldest driver branch on Linux by CUDA's major version (NVIDIA, CUDA Compatibility, Minor Version
Compatibility, table 1)."""
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")
_QUERY = ("nvidia-smi", "--query-gpu=driver_version,name", "--format=csv,noheader")


@dataclass(frozen=True, slots=True)
class Driver:
    version: str
    cuda: str | None = None
    """The newest CUDA that it supports."""
    cards: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"driver {self.version} (CUDA {self.cuda or 'unknown'})"

    def suffices(self, cuda: str | None) -> bool:
        """Return whether a PyTorch that was built for ``cuda`` can run on it."""
        return int(self.version.split(".")[0]) >= least_driver(cuda)


def least_driver(cuda: str | None) -> int:
    """Return the oldest driver branch for ``cuda``, such as ``13.2``; 0: unknown."""
    return LEAST_DRIVER.get((cuda or "").split(".")[0], 0)


def read_driver(module: Path = _KERNEL_MODULE) -> Driver | None:
    """Return this machine's driver; None: there is none, or this process cannot see it."""
    lines: list[str] = []
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=20, check=True)
        lines = [line for line in done.stdout.splitlines() if re.match(r"\d+\.", line)]
    with contextlib.suppress(OSError):
        if (found := re.search(r"Module\D.*?\s(\d{3,}\.[\d.]+)", module.read_text())) is not None:
            return Driver(found.group(1), _newest_cuda(), _cards(lines))
    return Driver(lines[0].split(",")[0], _newest_cuda(), _cards(lines)) if lines else None


def _cards(lines: list[str]) -> tuple[str, ...]:
    return tuple(line.partition(",")[2].strip() for line in lines)


def _newest_cuda() -> str | None:
    version = ctypes.c_int()
    try:
        ctypes.CDLL("libcuda.so.1").cuDriverGetVersion(ctypes.byref(version))
    except (OSError, AttributeError):
        return None
    return f"{version.value // 1000}.{version.value % 1000 // 10}" if version.value else None


def cuda_of_torch() -> str | None:
    """Return the CUDA version that the installed PyTorch was built for, without importing it; None: there is
    no PyTorch here, or one for processors only."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    text = (Path(spec.origin).parent / "version.py").read_text()
    found = re.search(r"^cuda\b[^=]*= '([\d.]+)'", text, re.MULTILINE)
    return found.group(1) if found is not None else None
