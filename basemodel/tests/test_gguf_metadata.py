from __future__ import annotations

import struct
from pathlib import Path

import pytest
from tunewheel_basemodel.gguf_metadata import read_metadata


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def file(tmp_path: Path, *pairs: bytes, version: int = 3, count: int | None = None) -> Path:
    path = tmp_path / "model.gguf"
    head = b"GGUF" + struct.pack("<IQQ", version, 7, len(pairs) if count is None else count)
    path.write_bytes(head + b"".join(pairs) + b"tensors follow")
    return path


PAIRS = (
    text("general.architecture") + struct.pack("<I", 8) + text("llama"),
    text("tokens") + struct.pack("<IIQ", 9, 8, 2) + text("ü") + text(""),
    text("ids") + struct.pack("<IIQ2i", 9, 5, 2, -1, 3),
    text("flag") + struct.pack("<I?", 7, True),
    text("scale") + struct.pack("<Id", 12, 0.5),
)


def test_pairs_are_read(tmp_path: Path) -> None:
    assert read_metadata(file(tmp_path, *PAIRS)) == {
        "general.architecture": "llama",
        "tokens": ["ü", ""],
        "ids": [-1, 3],
        "flag": True,
        "scale": 0.5,
    }


def test_a_file_that_is_not_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"PK\x03\x04 and so on")
    for path in (tmp_path / "x", file(tmp_path, *PAIRS, version=1)):
        with pytest.raises(ValueError, match="not a GGUF"):
            read_metadata(path)


@pytest.mark.parametrize(
    "pairs",
    [
        (*PAIRS, struct.pack("<Q", 2**62)),
        (text("a") + struct.pack("<I", 99),),
        (text("a") + struct.pack("<IQ", 8, 1) + b"\xff",),
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, pairs: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="damaged"):
        read_metadata(file(tmp_path, *pairs))
    with pytest.raises(ValueError, match="damaged"):
        read_metadata(file(tmp_path, *PAIRS, count=6))
