"""Reads facts about a base model from its own files. No weight is loaded, and none of the model's code is
run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from tunewheel_contracts.formats.run import BaseModelFacts
from tunewheel_contracts.identity import content_sha256

from tunewheel_basemodel.carried import CARRIED, carried_file
from tunewheel_basemodel.gguf_metadata import read_metadata
from tunewheel_basemodel.locate import BaseModel


def facts_of(base: BaseModel) -> BaseModelFacts:
    """Return the facts of a located base model. Missing or unreadable facts are None."""
    config = _json(base.path / "config.json")
    told = config.get("text_config") or config
    context = told.get("max_position_embeddings") if isinstance(told, Mapping) else None
    template = _chat_template(base.path)
    return BaseModelFacts(
        license=_license(base),
        chat_template_sha256=content_sha256(template.encode()) if template else None,
        context_length=context if isinstance(context, int) and context > 0 else None,
        parameters=_parameters(base.path),
    )


def _license(base: BaseModel) -> str | None:
    found = _card_license(base.path / "README.md")
    if found is None and (carried := CARRIED.get(base.name)) and (gguf := carried_file(carried)):
        found = read_metadata(gguf).get("general.license")
    return found.strip()[:200] or None if isinstance(found, str) else None


def _card_license(card: Path) -> Any:
    """Return the ``license`` in a model card's metadata. For a license without a known id, return its
    name."""
    from huggingface_hub.repocard import metadata_load

    try:
        metadata = metadata_load(card) if card.is_file() else None
    except Exception:  # Any error in the card's YAML is ignored: the card is written for people.
        return None
    if not isinstance(metadata, Mapping):
        return None
    named = metadata.get("license")
    return metadata.get("license_name") or named if named == "other" else named


def _chat_template(directory: Path) -> str | None:
    """Return the default chat template from the places where transformers looks for it."""
    file = directory / "chat_template.jinja"
    if file.is_file():
        return file.read_text("utf-8", errors="replace")
    for name in ("chat_template.json", "tokenizer_config.json"):
        template = _json(directory / name).get("chat_template")
        if isinstance(template, list):
            named = {one.get("name"): one.get("template") for one in template if isinstance(one, Mapping)}
            template = named.get("default")
        if isinstance(template, str):
            return template
    return None


def _parameters(directory: Path) -> int | None:
    from safetensors import SafetensorError, safe_open

    total = 0
    try:
        for file in sorted(directory.glob("*.safetensors")):
            with safe_open(str(file), framework="numpy") as tensors:
                total += sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    except (SafetensorError, OSError):
        return None
    return total or None


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
