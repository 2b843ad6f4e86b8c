"""The versions of the packages that influence a run's result."""

from __future__ import annotations

import platform
from importlib import metadata

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
