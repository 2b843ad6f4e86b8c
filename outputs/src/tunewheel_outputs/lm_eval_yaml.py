"""Reads the YAML of a task of lm-evaluation-harness, with its includes.

A key that would run code, read data outside the folder, or give no figure per question is refused by name.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

import yaml
from tunewheel_contracts.errors import FieldError, InvalidSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.yaml_reading import DuplicateKey, read_yaml

from tunewheel_outputs.lm_eval_metric import FORMS

_KEYS = frozenset({
    "task", "task_alias", "tag", "description", "metadata", "output_type",
    "dataset_path", "dataset_name", "dataset_kwargs",
    "training_split", "validation_split", "test_split", "fewshot_split", "fewshot_config", "num_fewshot",
    "doc_to_text", "doc_to_target", "doc_to_choice", "gen_prefix", "target_delimiter", "fewshot_delimiter",
    "generation_kwargs", "metric_list", "filter_list",
    "should_decontaminate", "doc_to_decontamination_query",
})  # fmt: skip
_LABELS = ("metadata", "tag", "task_alias")
"""Keys without effect on the result."""
OUTPUT_TYPES = {
    "multiple_choice": ("acc", "acc_norm"),
    "generate_until": ("exact_match",),
    "loglikelihood": ("perplexity", "acc"),
    "loglikelihood_rolling": ("word_perplexity", "byte_perplexity"),
}
"""The supported output types, with the metrics of a task that lists none."""


class RefusedTask(FieldError):
    """A task that is not supported. ``field``: the field of ``evaluation.lm_eval[]`` to correct."""

    def in_spec(self, place: str) -> InvalidSpec:
        """Return the error for a spec whose entry at ``place`` names the task."""
        return InvalidSpec(field=f"{place}.{self.field}", reason=self.reason)


def read_file(files: Mapping[str, bytes], path: str) -> dict[str, Any]:
    """Return the content of a YAML file in the folder. Raises RefusedTask if it is not a mapping."""
    try:
        read = read_yaml(files[path].decode("utf-8"))
    except DuplicateKey as error:
        raise RefusedTask("path", f"{path}: {error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if "!function" in str(error):
            reason = f"{path} says !function, which runs code; write it as a template, or leave it out"
            raise RefusedTask("path", reason) from error
        raise RefusedTask("path", f"{path} is not YAML: {error}") from error
    if not isinstance(read, dict):
        raise RefusedTask("path", f"{path} is not a mapping; start with 'task: <name>'")
    return {str(key): value for key, value in read.items()}


def with_includes(files: Mapping[str, bytes], path: str, seen: tuple[str, ...]) -> dict[str, Any]:
    """Return a YAML file merged with its includes; its own keys take precedence. Raises RefusedTask."""
    if path in seen:
        raise RefusedTask("path", f"{path} includes itself")
    own = read_file(files, path)
    includes = own.pop("include", ())
    merged: dict[str, Any] = {}
    for one in includes if isinstance(includes, list) else [includes] if includes else []:
        merged |= with_includes(files, inside(files, posixpath.dirname(path), one), (*seen, path))
    return merged | own


def inside(files: Mapping[str, bytes], folder: str, named: Any) -> str:
    """Return the path of a file that a YAML file in ``folder`` names. Raises RefusedTask if it is missing."""
    path = posixpath.normpath(posixpath.join(folder, str(named)))
    if path not in files:
        raise RefusedTask("path", f"the folder has no file {named}; put it there")
    return path


def check_config(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a task's YAML that affect the result. Raises RefusedTask if a key is not
    supported."""
    for key in sorted(config.keys() - _KEYS):
        raise RefusedTask("path", f"{name} has {key}, which is not supported here: {_why(key)}")
    if config.get("output_type", "generate_until") not in OUTPUT_TYPES:
        known = ", ".join(OUTPUT_TYPES)
        raise RefusedTask("path", f"{name}: output_type must be one of {known}")
    config = {"output_type": "generate_until"} | {k: v for k, v in config.items() if k not in _LABELS}
    for key in ("doc_to_text", "doc_to_target"):
        if not isinstance(config.get(key, ""), str | int | list):
            raise RefusedTask("path", f"{name}: {key} must be a template")
    _check_generation(name, config.get("generation_kwargs") or {})
    _check_metrics(name, config.get("metric_list"))
    try:
        content_sha256(config)
    except (TypeError, ValueError) as error:
        reason = f"{name} has a value that JSON cannot represent ({error}); write it as text"
        raise RefusedTask("path", reason) from error
    return config


def _why(key: str) -> str:
    if key in ("class", "custom_dataset", "process_docs", "process_results", "unsafe_code"):
        return "it runs code"
    if key in ("doc_to_image", "doc_to_audio"):
        return "only text tasks are supported"
    if key in ("repeats", "use_prompt"):
        return "each question is asked once, with the template in the YAML"
    return "only the keys of a single task are; list several tasks in the spec instead of a group"


def _check_generation(name: str, said: Any) -> None:
    if not isinstance(said, dict) or said.get("do_sample") or said.get("temperature"):
        raise RefusedTask("path", f"{name}: answers are generated greedily; remove do_sample and temperature")
    if rest := sorted(set(said) - {"until", "max_gen_toks", "do_sample", "temperature"}):
        raise RefusedTask("path", f"{name}: generation_kwargs.{rest[0]} is not supported; leave it out")


def _check_metrics(name: str, listed: Any) -> None:
    if listed is None:
        return
    if not isinstance(listed, list) or not listed:
        raise RefusedTask("path", f"{name}: metric_list must be a list of mappings with 'metric'")
    for one in listed:
        metric = one.get("metric") if isinstance(one, dict) else None
        if metric not in FORMS or one.get("hf_evaluate"):
            known = ", ".join(FORMS)
            reason = f"{name}: metric {metric!r} gives no figure per question here; choose from {known}"
            raise RefusedTask("path", reason)
        if one.get("aggregation", FORMS[metric].aggregation) != FORMS[metric].aggregation:
            reason = (
                f"{name}: {metric} is aggregated by {FORMS[metric].aggregation} here; write that in the YAML"
            )
            raise RefusedTask("path", reason)
