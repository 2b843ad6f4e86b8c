"""The catalogue of devices, and this machine's processor as a device."""

from __future__ import annotations

import json
from datetime import date, timedelta
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator
from tunewheel_contracts.errors import InvalidSpec, first_complaint, inconsistent
from tunewheel_contracts.fields import Frozen, NonNegative
from tunewheel_contracts.formats.plan import Interval, Positive

from tunewheel_planner.memory import Precision

GIB = 1 << 30
PRICES_HOLD = timedelta(days=183)
"""Prices older than this are cautioned against."""
ON_GPU = Interval(low=0.486, expected=0.68, high=0.952)
"""The share of a GPU's peak that matrix products reach, fitted with ``speed.Costs`` to published runs. The
bounds are so wide that they hold four of five published runs of a source that was not fitted to."""
LINKS = (25e9, 450e9)
"""Bytes per second between two GPUs of one machine: over PCIe 4.0, and over NVLink of an H100."""
ON_CPU = Interval(low=0.35, expected=0.56, high=0.75)
"""The share of a large matrix product's speed on the same cores, measured by the bench ``planner``."""


class Device(Frozen):
    """A kind of GPU, or a processor, to train on."""

    name: Annotated[str, Field(min_length=1)]
    kind: Literal["cuda", "cpu"]
    memory_gib: Positive
    """The memory that a process can use."""
    teraflops: Positive
    """Peak speed in bf16, or in fp32 if the device lacks bf16."""
    teraflops_float32: Positive | None = None
    """Peak speed in fp32. None: the same as ``teraflops``."""
    gigabytes_per_second: Positive | None = None
    """The bandwidth of the memory. None: a two-hundredth of ``teraflops``, as usual for GPUs."""
    nvlink: bool = False
    """Whether GPUs of one machine are connected by NVLink, not by PCIe."""
    dollars_per_hour: tuple[NonNegative, NonNegative] | None = None
    """The lowest and the highest usual price."""
    bfloat16: bool = True
    efficiency: Interval = ON_GPU
    """The share of the peak that training reaches, up to 1."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.dollars_per_hour is not None and self.dollars_per_hour[0] > self.dollars_per_hour[1]:
            raise inconsistent("dollars_per_hour", "are the least and the most; give the smaller one first")
        share = self.efficiency
        if not 0 < share.low <= share.expected <= share.high <= 1:
            raise inconsistent("efficiency", "must rise from low to high, above 0 and up to 1")
        return self

    def teraflops_in(self, precision: Precision) -> float:
        return (precision == "float32" and self.teraflops_float32) or self.teraflops

    @property
    def bandwidth(self) -> float:
        """Bytes per second between the device and its memory."""
        return self.gigabytes_per_second * 1e9 if self.gigabytes_per_second else self.teraflops * 1e12 / 200

    @property
    def link(self) -> float:
        """Bytes per second between two devices of one machine."""
        return LINKS[self.nvlink]

    @property
    def memory_bytes(self) -> int:
        return round(self.memory_gib * GIB)


class Catalogue(Frozen):
    as_of: date
    """The date of the prices."""
    about: str
    devices: tuple[Device, ...]

    def cautions(self, today: date) -> tuple[str, ...]:
        age = today - self.as_of
        if age <= PRICES_HOLD or all(device.dollars_per_hour is None for device in self.devices):
            return ()
        return (
            f"the prices are {round(age / timedelta(days=30.44))} months old (as_of {self.as_of}): give "
            "today's in a file like the planner's devices.json, by --devices or TUNEWHEEL_DEVICES",
        )

    def named(self, name: str) -> Device | None:
        return next((device for device in self.devices if device.name == name), None)


@cache
def catalogue() -> Catalogue:
    """Return the catalogue in this package's ``devices.json``."""
    return Catalogue.model_validate(
        json.loads(resources.files("tunewheel_planner").joinpath("devices.json").read_text())
    )


def read_catalogue(path: Path) -> Catalogue:
    """Read a user's own catalogue of devices and prices. Raises InvalidSpec (``devices``)."""
    try:
        found = Catalogue.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidSpec(field="devices", reason=f"{path} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        field, reason = first_complaint(error)
        raise InvalidSpec(field=f"devices.{field}", reason=f"{reason} in {path}") from error
    names = [device.name for device in found.devices]
    if not names or len(set(names)) < len(names):
        wrong = next((name for name in names if names.count(name) > 1), None)
        said = f"names {wrong} twice" if wrong else "names no device"
        raise InvalidSpec(field="devices.devices", reason=f"{said} in {path}")
    return found


def processor(*, memory_bytes: int, teraflops: float, bfloat16: bool) -> Device:
    """Return this machine's processor as a device; a large matrix product reaches ``teraflops`` on it."""
    return Device(
        name="cpu", kind="cpu", memory_gib=memory_bytes / GIB, teraflops=teraflops, bfloat16=bfloat16,
        efficiency=ON_CPU,
    )  # fmt: skip
