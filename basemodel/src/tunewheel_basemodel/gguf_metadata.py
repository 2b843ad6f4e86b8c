"""Reads the key-value pairs at the beginning of a GGUF file, without its tensors.

Format: "GGUF", ggml-org/ggml, docs/gguf.md. The ``gguf`` package is not used, because it creates a numpy view
for each of a vocabulary's hundred thousand strings. That takes seconds; this module takes a tenth of a
second.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, BinaryIO

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata by key; arrays are lists. Raises ValueError if it is not a GGUF file of version 2
    or 3."""
    with path.open("rb") as file:
        if file.read(4) != _MAGIC or (version := _scalar(file, "<I")) not in _VERSIONS:
            raise ValueError(f"{path.name} is not a GGUF file of version 2 or 3")
        _scalar(file, "<Q")  # tensors
        try:
            return {_string(file): _value(file, _scalar(file, "<I")) for _ in range(_scalar(file, "<Q"))}
        except (struct.error, KeyError, UnicodeDecodeError, MemoryError, OverflowError) as error:
            raise ValueError(
                f"{path.name} is cut off or damaged (GGUF version {version}: {error!r})"
            ) from error


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _string(file)
    if kind == _ARRAY:
        item, length = _scalar(file, "<I"), _scalar(file, "<Q")
        return [_value(file, item) for _ in range(length)]
    return _scalar(file, _SCALARS[kind])


def _string(file: BinaryIO) -> str:
    length = _scalar(file, "<Q")
    data = file.read(length)
    if len(data) != length:
        raise struct.error("the file ends within a string")
    return data.decode()


def _scalar(file: BinaryIO, form: str) -> Any:
    return struct.unpack(form, file.read(struct.calcsize(form)))[0]
