"""Checks the GPU driver of this machine against the PyTorch that is installed here."""

from __future__ import annotations

import os

from tunewheel_planner.driver import Driver, cuda_of_torch, least_driver, read_driver

from tunewheel_cli.doctor.findings import Finding, fine, unknown, wrong


def device_finding() -> Finding:
    """Return the finding about this machine."""
    asked = os.environ.get("TUNEWHEEL_TRAIN_GPUS") or os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return judge_device(read_driver(), cuda_of_torch(), asked="" if asked == "-1" else asked)


def judge_device(driver: Driver | None, cuda: str | None, *, asked: str) -> Finding:
    """Judge a machine with ``driver`` and a PyTorch built for ``cuda``. ``asked``: the GPUs that were asked
    for; empty: none was."""
    if driver is None:
        text = "this machine has no NVIDIA driver"
        if asked:
            fix = "install the driver, give the container its GPUs, or unset TUNEWHEEL_TRAIN_GPUS"
            return wrong("device", f"{text}, but GPU {asked} is asked for", fix)
        return unknown("device", f"{text}: runs that train here use the processor")
    torch = f"torch is built for CUDA {cuda}" if cuda else "no torch for CUDA is installed here"
    text = f"{', '.join(driver.cards) or 'a GPU'}, {driver}; {torch}"
    if not driver.suffices(cuda):
        return wrong("device", text, f"update the driver to {least_driver(cuda)} or newer")
    return fine("device", text)
