"""Which files of a model may be loaded, by their names."""

from __future__ import annotations

import pytest
from tunewheel_contracts.formats.run import AdapterRef

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")


def adapter(*names: str, method: str = "lora") -> AdapterRef:
    files = [{"path": f"adapters/m-1/{name}", "sha256": "0" * 64, "size_bytes": 1} for name in names]
    base = {"name": "tiny", "revision": "r"}
    return AdapterRef.model_validate(
        {"model_id": "m-1", "path": "adapters/m-1", "files": files, "base": base, "method": method}
    )


@pytest.mark.parametrize(
    ("names", "method", "reason"),
    [
        ((*ADAPTER, "adapter_model.bin"), "lora", "pickled files (adapter_model.bin)"),
        ((*ADAPTER, "deep/optimizer.pt"), "qlora", "pickled files (optimizer.pt)"),
        (("adapter_config.json",), "lora", "lacks adapter_model.safetensors in adapters/m-1"),
        (("adapter_model.safetensors",), "qlora", "lacks adapter_config.json"),
        ((), "lora", "lacks adapter_config.json, adapter_model.safetensors"),
        (("config.json",), "full", "lacks *.safetensors"),
        (("model.safetensors",), "full", "lacks config.json"),
    ],
)
def test_files_that_are_pickled_or_missing_are_told(names: tuple[str, ...], method: str, reason: str) -> None:
    assert reason in (adapter(*names, method=method).unloadable or "")


def test_complete_files_may_be_loaded() -> None:
    assert adapter(*ADAPTER, "tunewheel.json").unloadable is None
    assert adapter("config.json", "model-00001-of-00002.safetensors", method="full").unloadable is None
