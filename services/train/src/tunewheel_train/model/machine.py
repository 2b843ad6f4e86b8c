"""Describes this machine's device for the planner, measures memory, and lists the versions of packages."""

from __future__ import annotations

import functools
import os
import platform
import time
from importlib import metadata
from pathlib import Path

from tunewheel_planner.devices import GIB, Catalogue, Device, processor
from tunewheel_planner.driver import least_driver, read_driver
from tunewheel_planner.memory import Precision

from tunewheel_train.errors import RunFailed

_SIZE = 1024
_SECONDS = 0.2


def demand_gpus(asked: str) -> None:
    """Do nothing if ``asked`` is empty or its GPUs compute. Otherwise raise RunFailed: the processor would
    take days, and its hours have no price."""
    import torch

    if not asked:
        return
    try:
        torch.cuda.init()
        needed, found = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
        why = f"PyTorch sees {found} GPUs, and {needed} processes need one each"
        if found >= needed:
            # it may lack kernels for the card
            torch.ones(1, device=f"cuda:{os.environ.get('LOCAL_RANK', '0')}")
            return
    except torch.OutOfMemoryError:  # it came up; the ladder may help
        raise
    except (RuntimeError, AssertionError) as error:
        why = str(error).strip().splitlines()[0]
    driver, cuda = read_driver(), torch.version.cuda
    needs = f", which needs driver {least_driver(cuda)} or newer" if least_driver(cuda) else ""
    raise RunFailed(
        field="(device)",
        reason=f"is GPU {asked} (TUNEWHEEL_TRAIN_GPUS or CUDA_VISIBLE_DEVICES), which does not come up: "
        f"{why}. Here is {driver or 'no NVIDIA driver'}. torch {torch.__version__} is built for CUDA "
        f"{cuda}{needs}. "
        "Update the driver, give the container its GPUs, or name no GPU to train on the processor",
    )


def device_facts() -> tuple[str, str | None, str | None]:
    """Return (device that trains, version of its driver, CUDA version of PyTorch); on a processor without the
    last two."""
    import torch

    if not torch.cuda.is_available():
        return "cpu", None, None
    driver = read_driver()
    return torch.cuda.get_device_name(), driver.version if driver else None, torch.version.cuda


def this_device(precision: Precision, known: Catalogue) -> Device:
    """Return the first GPU with its free memory, or the processor with its measured rate of matrix products
    in ``precision``.

    A GPU that is not in ``known`` gets the figures of the known GPU with the nearest memory size.
    """
    import torch

    if not torch.cuda.is_available():
        return processor(
            memory_bytes=memory_limit(), teraflops=_teraflops(precision), bfloat16=precision == "bfloat16"
        )
    properties = torch.cuda.get_device_properties(0)
    free, _ = torch.cuda.mem_get_info()
    found = nearest(properties.name, properties.total_memory / GIB, known)
    return found.model_copy(update={"memory_gib": free / GIB})


def nearest(name: str, gib: float, known: Catalogue) -> Device:
    """Return the device of ``known`` that matches a driver's ``name``; else the one with the nearest memory
    size, under this name."""
    words = name.lower().replace("-", " ").split()
    devices = [device for device in known.devices if device.kind == "cuda"] or list(known.devices)
    same = [device for device in devices if _model(device.name) in words]
    found = min(same or devices, key=lambda device: abs(device.memory_gib - gib))
    if same:
        return found.model_copy(update={"memory_gib": gib})
    return found.model_copy(update={"name": name, "memory_gib": gib, "dollars_per_hour": None})


def _model(name: str) -> str:
    """Return the part of a card's name that identifies the model: the first part with a digit."""
    return next((part for part in name.split("-") if any(letter.isdigit() for letter in part)), name)


def memory_limit() -> int:
    """Return how many bytes this process may hold: the control group's limit, else the machine's memory."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            return min(whole, int(Path(file).read_text()))
        except (OSError, ValueError):  # no such group, or "max"
            continue
    return whole


@functools.cache
def _teraflops(precision: Precision) -> float:
    """Return the best rate among products of two square matrices in a fifth of a second. The best one counts,
    because other work may slow some of them down."""
    import torch

    matrix = torch.ones(_SIZE, _SIZE, dtype=getattr(torch, precision))
    best, start = float("inf"), time.perf_counter()
    while (began := time.perf_counter()) < start + _SECONDS or best == float("inf"):
        torch.mm(matrix, matrix)
        best = min(best, time.perf_counter() - began)
    return 2 * _SIZE**3 / best / 1e12


def synchronize() -> None:
    """Wait until the GPU has finished its work, so that a time measured now includes it."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def peak_bytes() -> int:
    """Return the peak memory of this process as a plan counts it. On a processor: resident memory. On a GPU:
    PyTorch's reserved memory, including gaps, plus the context, which PyTorch does not count."""
    import torch

    if not torch.cuda.is_available():
        return _peak_resident()
    return int(torch.cuda.max_memory_reserved()) + _context_bytes()


def _context_bytes() -> int:
    """Return the GPU memory in use beyond PyTorch's: the context of this process. No other process uses the
    GPU (``slots.devices_of``)."""
    import torch

    free, total = torch.cuda.mem_get_info()
    return max(0, total - free - int(torch.cuda.memory_reserved()))


def _peak_resident() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def gpu_bytes() -> int | None:
    """Return how many bytes this process has allocated on its GPU now; None: it has no GPU."""
    import torch

    return int(torch.cuda.memory_allocated()) if torch.cuda.is_available() else None


def present_bytes() -> int:
    """Return how many bytes of main memory this process holds now."""
    try:
        resident = Path("/proc/self/statm").read_text().split()[1]
    except OSError:  # without /proc only the peak is known
        return _peak_resident()
    return int(resident) * os.sysconf("SC_PAGE_SIZE")


_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "bitsandbytes",
    "safetensors",
    "liger-kernel",
    "flash-attn",
)


def installed_versions() -> dict[str, str]:
    """Version by package name, and Python's."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
