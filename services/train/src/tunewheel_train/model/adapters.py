"""The adapter that is trained: a new one, or one that is trained further, on layers that it can reach."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D
from tunewheel_contracts.formats.recipe import TrainSpec

from tunewheel_train.errors import RunFailed


def with_adapter(model: Any, recipe: TrainSpec) -> Any:
    """Return ``model`` with a new adapter. Raises RunFailed if the recipe's target modules do not fit it."""
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    targets = recipe.target_modules
    _demand_modules(model, targets)
    experts = _adapted_experts(model, targets)
    _demand_plain(recipe, experts)
    expected = _adapted(model, targets) | set(experts)
    layers = targets if isinstance(targets, str) else [one for one in targets if _adapted(model, [one])]
    if experts and isinstance(targets, str):  # PEFT would look for the experts by names of its own
        layers = sorted(_adapted(model, targets))
    config = LoraConfig(
        r=recipe.rank, lora_alpha=recipe.alpha, lora_dropout=recipe.dropout,
        target_modules=layers, target_parameters=experts or None,
        exclude_modules=outside_decoder(model) or None,
        use_rslora=recipe.rslora, use_dora=recipe.dora, task_type="CAUSAL_LM",
    )  # fmt: skip
    set_seed(recipe.seed)
    try:
        tuned: Any = get_peft_model(model, config)
    except ValueError as error:
        raise RunFailed(
            field="train.target_modules",
            reason=f"does not fit this base model ({str(error).splitlines()[0]}); use 'all-linear'",
        ) from error
    reached = {*tuned.targeted_module_names, *tuned.targeted_parameter_names}
    if experts and (missed := expected - reached):
        raise RunFailed(
            field="train.target_modules",
            reason=f"asks for {_last_parts(missed)}, which get no adapter beside the experts of this "
            "mixture; name either these layers or the experts",
        )
    return tuned


def _decoder(model: Any) -> Any:
    """Return the part of ``model`` that reads and writes tokens. Some text models call their output head
    ``decoder``, so a decoder without the embeddings is not taken."""
    decoder, embeddings = model.get_decoder(), model.get_input_embeddings()
    return decoder if any(module is embeddings for module in decoder.modules()) else model


def outside_decoder(model: Any) -> list[str]:
    """Return the names of the layers outside the text decoder, such as those of a vision tower. An adapter
    there would be trained on nothing, and vLLM refuses to load it."""
    inside = {id(module) for module in _decoder(model).modules()} | {id(model.get_output_embeddings())}
    return sorted(name for name, layer in _linear(model) if id(layer) not in inside)


def _linear(model: Any) -> list[tuple[str, Any]]:
    kinds = torch.nn.Linear | Conv1D
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, kinds)]


def _stacked(model: Any) -> list[str]:
    """Return the names of the decoder's tensors [experts, …, …] that hold one matrix of every expert."""
    inside = {id(module) for module in _decoder(model).modules()}
    return [
        f"{name}.{short}"
        for name, module in model.named_modules()
        if id(module) in inside and not isinstance(module, torch.nn.modules.conv._ConvNd)
        for short, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 3 and min(parameter.shape) > 1
    ]


def _adapted_experts(model: Any, targets: str | Sequence[str]) -> list[str]:
    """Return the names of the experts' tensors that ``targets`` match. They are no linear layers, so PEFT
    takes them by ``target_parameters``."""
    names = _stacked(model)
    if targets == "all-linear":
        return names
    return [name for name in names if any(f".{name}".endswith(f".{target}") for target in targets)]


def _demand_plain(recipe: TrainSpec, experts: Sequence[str]) -> None:
    """Raise RunFailed if the recipe asks for more than PEFT does on tensors of experts."""
    if not experts:
        return
    for name in ("dora", "dropout"):
        if value := getattr(recipe, name):
            raise RunFailed(
                field=f"train.{name}",
                reason=f"is {value}, which adapters of a mixture's experts do not support; remove it, or "
                "name layers other than the experts in target_modules",
            )


def _demand_modules(model: Any, targets: str | Sequence[str]) -> None:
    """Raise RunFailed if a target matches no layer. PEFT would accept one match and silently ignore the
    others."""
    if isinstance(targets, str):
        return
    head = next((name for name, one in model.named_modules() if one is model.get_output_embeddings()), None)
    # an adapter on the output head would have no effect: TRL uses the head's own weights
    wrong = [
        target
        for target in targets
        if not ((found := _adapted(model, [target])) or _adapted_experts(model, [target])) or head in found
    ]
    if wrong:
        fit = _last_parts([*_adapted(model, "all-linear"), *_stacked(model)])
        raise RunFailed(
            field="train.target_modules",
            reason=f"names {', '.join(wrong)}, but the layers here are {fit}; mend it, or use 'all-linear'",
        )


def _adapted(model: Any, targets: str | Sequence[str]) -> set[str]:
    """Return the names of the layers of the text decoder that ``targets`` match."""
    outside = set(outside_decoder(model))
    if targets == "all-linear":
        head = model.get_output_embeddings()
        return {name for name, layer in _linear(model) if layer is not head} - outside
    names = (name for name, _ in model.named_modules() if name and name not in outside)
    return {name for name in names if any(f".{name}".endswith(f".{target}") for target in targets)}


def _last_parts(names: Iterable[str]) -> str:
    return ", ".join(sorted({name.rpartition(".")[2] for name in names}))


def continue_adapter(model: Any, recipe: TrainSpec, directory: Path) -> Any:
    """Return ``model`` with the adapter in ``directory``, to be trained further.

    Raises RunFailed if the adapter was made with other parameters, or does not fit the base.
    """
    from peft import LoraConfig, PeftModel
    from tunewheel_basemodel.errors import InvalidAdapter
    from tunewheel_basemodel.loading import check_adapter

    try:
        written = check_adapter(directory)
        _demand_same_shape(written, recipe)
        _demand_same_modules(model, written, recipe)
        config: Any = LoraConfig.from_pretrained(str(directory))
        config.lora_dropout = recipe.dropout
        return PeftModel.from_pretrained(model, str(directory), is_trainable=True, config=config)
    except InvalidAdapter as error:
        raise RunFailed(field="train.continue_from", reason=str(error)) from error
    except (ValueError, KeyError, RuntimeError) as error:
        raise RunFailed(
            field="train.continue_from",
            reason=f"does not fit the base model ({str(error).strip().splitlines()[0]}); "
            "name an adapter of it",
        ) from error


def _demand_same_shape(written: dict[str, Any], recipe: TrainSpec) -> None:
    """Raise RunFailed if the recipe has another shape or scale than the adapter: these cannot change."""
    keys = {"rank": "r", "alpha": "lora_alpha", "rslora": "use_rslora", "dora": "use_dora"}
    for name, key in keys.items():
        wanted, found = getattr(recipe, name), written.get(key, False)
        if wanted != found:
            raise RunFailed(
                field=f"train.{name}",
                reason=f"is {wanted}, but the adapter to continue from has {found}; set it to {found}",
            )


def _demand_same_modules(model: Any, written: dict[str, Any], recipe: TrainSpec) -> None:
    found = _adapted(model, written.get("target_modules") or ())
    excluded = sorted(written.get("exclude_modules") or ())
    experts = sorted(written.get("target_parameters") or ())
    same = found == _adapted(model, recipe.target_modules) and excluded == outside_decoder(model)
    if not same or experts != sorted(_adapted_experts(model, recipe.target_modules)):
        raise RunFailed(
            field="train.target_modules",
            reason=f"is not what the adapter to continue from has, [{_last_parts(found)}]; set it to that",
        )
