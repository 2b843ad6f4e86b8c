"""Chooses the base model by the memory and the time that its training takes here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.methods import suitable_rate
from tunewheel_contracts.formats.recipe import TrainSpec

if TYPE_CHECKING:
    from tunewheel_contracts.formats.plan import TrainPlan
    from tunewheel_planner.devices import Device
    from tunewheel_planner.plan import DatasetStats

BUNDLED = "HuggingFaceTB/SmolLM2-135M-Instruct"
LADDER = (
    "Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen3-4B-Instruct-2507", "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    "Qwen/Qwen2.5-0.5B-Instruct", "HuggingFaceTB/SmolLM2-360M-Instruct",
)  # fmt: skip
"""Larger models that anybody may download and use (Apache 2.0), the largest first."""
PATIENCE_HOURS = {"cpu": 0.5, "cuda": 2.0}
"""A model that takes longer is not proposed."""
HUB_SECONDS = 2.0
METHOD = TrainSpec.model_fields["method"].default
"""What is proposed: the method of a spec that names none."""


@dataclass(frozen=True, slots=True)
class Base:
    name: str
    learning_rate: float
    plan: TrainPlan | None
    why: str


def choose_base(
    stats: DatasetStats, device: Device, *, available: Sequence[str], epochs: float, max_tokens: int
) -> Base:
    """Return the largest of the ``available`` models that ``device`` trains on ``stats`` within
    ``PATIENCE_HOURS``; the bundled one if there is none."""
    from tunewheel_planner.plan import hold_back, make_plan
    from tunewheel_planner.shapes import KNOWN

    patience = PATIENCE_HOURS[device.kind]
    plan: TrainPlan | None = None
    for name in (*(one for one in LADDER if one in available), BUNDLED):
        shape = KNOWN[name]
        rate = suitable_rate(METHOD, shape.parameters)
        recipe = TrainSpec(learning_rate=rate, epochs=epochs, max_tokens=max_tokens)
        plan = make_plan(shape, hold_back(stats, recipe), recipe, device)
        if plan.fits and plan.hours.expected <= patience:
            memory = f"{device.name} ({device.memory_gib:.0f} GiB)"
            why = f"the largest that {memory} trains within {patience:g} hours"
            if name == BUNDLED:
                why = "bundled: it needs no download"
            return Base(name, rate, plan, why)
    rate = suitable_rate(METHOD, KNOWN[BUNDLED].parameters)
    return Base(BUNDLED, rate, plan, "bundled; not even this one trains quickly here")


def available_models() -> tuple[str, ...]:
    """Return the models of ``LADDER`` that this machine has, or can download.

    Raises InvalidSpec: ``HF_ENDPOINT`` is no address.
    """
    import socket
    from pathlib import Path
    from urllib.parse import urlsplit

    from tunewheel_basemodel.errors import BaseModelNotFound
    from tunewheel_basemodel.hub import hub_errors

    try:
        with hub_errors(BUNDLED):
            from huggingface_hub import constants
    except BaseModelNotFound as error:
        raise InvalidSpec(field=error.field, reason=error.reason) from error
    hub = urlsplit(constants.ENDPOINT)
    if not constants.HF_HUB_OFFLINE:
        try:
            socket.create_connection((hub.hostname or "", hub.port or 443), HUB_SECONDS).close()
            return LADDER
        except OSError:
            pass
    cache = Path(constants.HF_HUB_CACHE)
    folders = {name: cache / f"models--{name.replace('/', '--')}" for name in LADDER}
    return tuple(name for name, folder in folders.items() if any(folder.glob("snapshots/*/*.safetensors")))


def this_device() -> Device:
    """Return the graphics card of this machine by the planner's catalogue, else its processor."""
    import psutil
    from tunewheel_planner.devices import GIB, catalogue
    from tunewheel_planner.driver import read_driver

    known = catalogue()
    driver = read_driver()
    cards = driver.cards if driver is not None else ()
    for card in cards:
        words = card.casefold().replace("-", " ")
        for device in known.devices:
            if device.kind == "cuda" and all(part in words for part in device.name.split("-")):
                return device
    processor = known.named("cpu")
    assert processor is not None
    return processor.model_copy(update={"memory_gib": psutil.virtual_memory().total / GIB})
