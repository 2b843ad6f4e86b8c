"""A base model, adapters of it, and what was judged of one: as events name them and as a store holds them."""

from __future__ import annotations

import json
import struct
from typing import Any

from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.bundle import Bundle, Decoding
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_runtime.store import ObjectStore

SHA = "0" * 64
BASE = BaseModelRef(name="org/Tiny-Base", revision=f"sha256:{SHA}")
OTHER_BASE = BaseModelRef(name="org/Other", revision="r")
SMOLLM2 = BaseModelRef(name="HuggingFaceTB/SmolLM2-135M-Instruct", revision=f"sha256:{SHA}")


def artifact(path: str = "x.json") -> ArtifactRef:
    return ArtifactRef(path=path, sha256=SHA, size_bytes=1)


def adapter_of(model_id: str, **changes: Any) -> AdapterRef:
    """Return an adapter whose files nobody reads."""
    path = f"adapters/{model_id}"
    files = (artifact(f"{path}/adapter_model.safetensors"),)
    values: dict[str, Any] = {"model_id": model_id, "path": path, "files": files, "base": BASE}
    return AdapterRef(**(values | {"method": TrainMethod.LORA} | changes))


def safetensors(values: bytes = b"\0" * 4) -> bytes:
    """Return a safetensors file of one tensor."""
    header = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, len(values)]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


async def put_adapter(
    store: ObjectStore,
    model_id: str,
    *,
    weights: bytes | None = None,
    config: dict[str, Any] | None = None,
    **changes: Any,
) -> AdapterRef:
    """Put the files of an adapter, or of a whole model, into ``store``."""
    is_whole = changes.get("method") == TrainMethod.FULL
    names = ("config", "model") if is_whole else ("adapter_config", "adapter_model")
    told = config or {"peft_type": "LORA", "model_id": model_id}
    contents = {
        f"{names[0]}.json": json.dumps(told).encode(),
        f"{names[1]}.safetensors": weights or safetensors(),
    }
    files = [await store.put(f"adapters/{model_id}/{name}", data) for name, data in contents.items()]
    return adapter_of(model_id, **({"files": tuple(files)} | changes))


def bundle_of(model_id: str = "desk-1", **changes: Any) -> Bundle:
    """Return what was judged of a model."""
    values: dict[str, Any] = {
        "base": BASE, "model_id": model_id, "adapter_sha256": SHA, "template_sha256": None,
        "system_prompt": f"The prompt of {model_id}.", "decoding": Decoding(), "max_output_tokens": 33,
        "precision": "float32",
    }  # fmt: skip
    return Bundle(**(values | changes))
