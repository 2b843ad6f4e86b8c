"""Measuring in this process, on the tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tunewheel_basemodel import chat
from tunewheel_basemodel.errors import InvalidChat
from tunewheel_basemodel.locate import BaseModel
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.fingerprint import PROMPTS, RECORDED
from tunewheel_contracts.formats.regression_items import read_items
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.spec import EvaluationSpec
from tunewheel_eval import measuring
from tunewheel_eval.contestants import LoadedGroup, groups
from tunewheel_eval.errors import NoNumber, UnfitCandidate, UnusableContestant
from tunewheel_eval.job import ContestantJob, Job, Progress
from tunewheel_eval.measurement import (
    FINGERPRINT,
    HoldoutRow,
    Measurement,
    RegressionRow,
    RepeatRow,
    SkippedRow,
    example_key,
    read_measurement,
)
from tunewheel_eval.measuring import measure
from tunewheel_eval.prompts import Prompt
from tunewheel_eval.repeats import other_mode_key, repeat_key, repeats_of
from tunewheel_outputs.schema import SchemaCheck
from tunewheel_testing.tiny import write_random_adapter


@pytest.fixture
def make_job(
    tiny_base: BaseModel,
    adapters: tuple[Path, Path],
    examples: tuple[ChatExample, ...],
    regression_set: Path,
    tmp_path: Path,
) -> Any:
    base = BaseModelRef(name=str(tiny_base.path), revision=tiny_base.revision)
    directories = {Role.CANDIDATE: adapters[0], Role.BASE: None, Role.CHAMPION: adapters[1]}

    def make(*roles: Role, folder: str = "rows", **changes: Any) -> Job:
        shared = {
            name: changes.pop(name)
            for name in ("seeds", "directory", "base", "constraint", "cut_at")
            if name in changes
        }
        contestants = [
            ContestantJob.model_validate(
                {
                    "role": role,
                    "model_key": f"model-{role.value}",
                    "base": base,
                    "directory": directories[role],
                    "rows": tmp_path / folder / f"{role.value}.jsonl",
                    **shared,
                }
            )
            for role in roles or directories
        ]
        plain = {
            "contestants": contestants,
            "examples": examples,
            "items": read_items(regression_set),
            "max_output_tokens": 12,
            "cache_dir": tmp_path / "cache",
            "dtype": "float32",
            "batch_size": 4,
            "threads": 1,
        }
        return Job.model_validate({**plain, **changes})

    return make


def run(job: Job) -> tuple[dict[Role, Measurement], list[Progress]]:
    said: list[Progress] = []
    measure(job, said.append)
    found = {one.role: read_measurement(one.rows.read_text()) for one in job.contestants}
    assert all(found.values())
    return {role: one for role, one in found.items() if one is not None}, said


def holdout_rows(measurement: Measurement) -> list[HoldoutRow]:
    return [row for row in measurement.rows.values() if isinstance(row, HoldoutRow)]


def outputs(measurement: Measurement) -> list[str]:
    return [row.output for row in holdout_rows(measurement)]


def test_each_contestant_speaks_with_its_own_weights(make_job: Any) -> None:
    found, said = run(make_job())
    rows = {Role.BASE: 9, Role.CHAMPION: 9, Role.CANDIDATE: 9 + len(FINGERPRINT)}
    assert {role: len(one.rows) for role, one in found.items()} == rows
    assert len({tuple(outputs(one)) for one in found.values()}) == 3
    assert {one.role: (one.done, one.total) for one in said} == {role: (n, n) for role, n in rows.items()}


def test_the_candidate_alone_has_a_fingerprint_and_it_is_its_own(make_job: Any) -> None:
    found, _ = run(make_job())
    prints = {role: one.fingerprint for role, one in found.items()}
    assert [one.prompt for one in prints[Role.CANDIDATE]] == list(PROMPTS)
    for one in prints[Role.CANDIDATE]:
        values = [token.logprob for token in one.tokens]
        assert len(values) == RECORDED
        assert values == sorted(values, reverse=True)
    assert (prints[Role.BASE], prints[Role.CHAMPION]) == ((), ())
    anew, _ = run(make_job(Role.CANDIDATE, folder="anew"))
    assert anew[Role.CANDIDATE].fingerprint == prints[Role.CANDIDATE]


def test_a_template_that_refuses_a_prompt_of_the_fingerprint_costs_that_prompt_alone(
    make_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(tokenizer: Any, messages: Any, *more: Any) -> str:
        if messages == PROMPTS["order"]:
            raise InvalidChat("no system message, please")
        return render(tokenizer, messages, *more)

    render = chat.render
    monkeypatch.setattr(chat, "render", refusing)
    found, said = run(make_job(Role.CANDIDATE))
    assert [one.prompt for one in found[Role.CANDIDATE].fingerprint] == ["question", "thread"]
    assert said[-1].done == said[-1].total


def test_only_the_candidate_says_how_sure_it_is_of_its_labels_and_that_changes_no_answer(
    make_job: Any,
) -> None:
    rules = [{"rule": "allowed_values", "values": ["bell", "horn"]}]
    task = {"system_prompt": "Answer.", "output_rules": rules}
    found, _ = run(make_job(task=task))
    plain, _ = run(make_job(folder="plain", task={"system_prompt": "Answer."}))
    sure = {role: [row.sure for row in holdout_rows(one)] for role, one in found.items()}
    assert all(one is not None and 0 <= one < 1 for one in sure[Role.CANDIDATE])
    assert {*sure[Role.BASE], *sure[Role.CHAMPION]} == {None}
    assert any(sure[Role.CANDIDATE])
    assert outputs(found[Role.CANDIDATE]) == outputs(plain[Role.CANDIDATE])
    assert {row.sure for row in holdout_rows(plain[Role.CANDIDATE])} == {None}


def test_the_candidate_answers_some_prompts_again_by_other_seeds(
    make_job: Any, examples: tuple[ChatExample, ...]
) -> None:
    keys = [example_key(one, max_output_tokens=12) for one in examples[:2]]
    spec = EvaluationSpec.model_validate({"decoding": {"temperature": 1.5}, "repeats": 3})
    told = {"decoding": spec.decoding, "repeats": repeats_of(keys, spec)}
    found, said = run(make_job(Role.CANDIDATE, Role.BASE, **told))
    again = [row for row in found[Role.CANDIDATE].rows.values() if isinstance(row, RepeatRow)]
    assert {row.key for row in again} == set(told["repeats"])
    assert len({row.output for row in again}) > 3
    assert not any(isinstance(row, RepeatRow) for row in found[Role.BASE].rows.values())
    assert {one.role: one.total for one in said} == {Role.CANDIDATE: 15 + len(FINGERPRINT), Role.BASE: 9}
    anew, _ = run(make_job(Role.CANDIDATE, folder="anew", **told))
    assert anew[Role.CANDIDATE] == found[Role.CANDIDATE]


def test_answers_to_held_out_prompts_are_constrained_and_general_ones_are_not(make_job: Any) -> None:
    schema = {
        "type": "object", "additionalProperties": False, "required": ["category", "note"],
        "properties": {"category": {"enum": ["billing", "delivery"]}, "note": {"type": "string"}},
    }  # fmt: skip
    plain, _ = run(make_job(folder="plain", max_output_tokens=90))
    keys = [row.key for row in holdout_rows(plain[Role.CANDIDATE])]
    again = {other_mode_key(key): (key, 0) for key in keys[:2]}
    found, _ = run(make_job(max_output_tokens=90, constraint=schema, other_mode=again))
    for role, measured in found.items():
        rows = holdout_rows(measured)
        assert {row.key for row in rows} == set(keys)
        assert all(SchemaCheck(schema).fits(row.output) is row.complete for row in rows)
        assert all(row.output.startswith("{") for row in rows)
        general = [row for row in measured.rows.values() if isinstance(row, RegressionRow)]
        assert general == [row for row in plain[role].rows.values() if isinstance(row, RegressionRow)]
    free = {row.key: row.output for row in found[Role.CANDIDATE].rows.values() if isinstance(row, RepeatRow)}
    unconstrained = {row.key: row.output for row in holdout_rows(plain[Role.CANDIDATE])}
    assert free == {key: unconstrained[of] for key, (of, _) in again.items()}
    assert not any(isinstance(row, RepeatRow) for row in found[Role.BASE].rows.values())

    label = r'\s*\{\s*"category"\s*:\s*"[^"]*"'
    cut, _ = run(make_job(Role.BASE, folder="cut", max_output_tokens=90, constraint=schema, cut_at=label))
    whole = {row.key: row.output for row in holdout_rows(found[Role.BASE])}
    for row in holdout_rows(cut[Role.BASE]):
        assert (row.cut, row.complete) == (True, False)
        assert whole[row.key].startswith(row.output[:-1])
        assert json.loads(row.output).keys() == {"category"}


def test_a_seed_of_the_project_is_followed_by_those_of_the_repeats(
    make_job: Any, examples: tuple[ChatExample, ...]
) -> None:
    key = example_key(examples[0], max_output_tokens=12)
    decoding = {"temperature": 1.5, "seed": 7}
    spec = EvaluationSpec.model_validate({"decoding": decoding, "repeats": 2})
    found, _ = run(make_job(Role.CANDIDATE, decoding=spec.decoding, repeats=repeats_of([key], spec)))
    rows = found[Role.CANDIDATE].rows
    other, _ = run(make_job(Role.CANDIDATE, folder="eight", decoding={**decoding, "seed": 8}))
    first = other[Role.CANDIDATE].rows[key]
    assert isinstance(first, HoldoutRow)
    again = rows[repeat_key(key, 1)]
    assert isinstance(again, RepeatRow)
    assert again.output == first.output


def test_company_changes_nothing(make_job: Any) -> None:
    """A contestant measured alone, on a base that never saw the other adapters, does the same."""
    together, _ = run(make_job())
    for role in Role:
        alone, _ = run(make_job(role, folder=f"alone-{role.value}"))
        assert alone[role] == together[role]


def test_one_base_is_loaded_for_all(make_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[int] = []

    def counted(group: Any, **options: Any) -> LoadedGroup:
        loads.append(len(group))
        return LoadedGroup(group, **options)

    monkeypatch.setattr(measuring, "LoadedGroup", counted)
    run(make_job())
    assert loads == [3]


def test_whole_models_and_quantisations_are_groups_of_their_own(make_job: Any) -> None:
    one, two, three = make_job().contestants
    nf4 = two.model_copy(update={"quantization": "nf4"})
    whole = three.model_copy(update={"whole_model": True})
    assert [len(group) for group in groups([one, two, three])] == [3]
    assert groups([one, nf4, whole, two]) == [[one, two], [nf4], [whole]]


def test_an_adapter_that_does_more_than_a_lora_has_a_base_of_its_own(
    make_job: Any, tiny_base: BaseModel, tmp_path: Path
) -> None:
    directory = write_random_adapter(tiny_base, tmp_path / "dora", seed=3, use_dora=True)
    candidate = make_job(Role.CANDIDATE, directory=directory)
    assert len(groups([*candidate.contestants, *make_job(Role.BASE).contestants])) == 2
    found, _ = run(candidate)
    base, _ = run(make_job(Role.BASE, folder="base"))
    assert outputs(found[Role.CANDIDATE]) != outputs(base[Role.BASE])


def test_killed_between_batches_it_ends_with_the_same_rows(make_job: Any) -> None:
    whole, _ = run(make_job(folder="whole"))

    class Killed(Exception):
        pass

    for survived in (1, 4):
        job = make_job(folder=f"killed-{survived}")
        left = [survived]

        def stop(_: Progress, left: list[int] = left) -> None:
            left[0] -= 1
            if not left[0]:
                raise Killed

        with pytest.raises(Killed):
            measure(job, stop)
        resumed, _ = run(job)
        assert {role: dict(one.rows) for role, one in resumed.items()} == {
            role: dict(one.rows) for role, one in whole.items()
        }


def test_complete_rows_are_not_measured_again(make_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = run(make_job())
    monkeypatch.setattr(measuring, "LoadedGroup", None)
    again, said = run(make_job())
    assert again == first
    assert said[-1].done == said[-1].total


def test_rows_of_equal_items_are_taken_over_from_other_datasets(
    make_job: Any, examples: tuple[ChatExample, ...]
) -> None:
    old, _ = run(make_job(Role.BASE, folder="old", examples=examples[:4]))
    seed = make_job(Role.BASE, folder="old").contestants[0].rows
    new, said = run(make_job(Role.BASE, folder="new", seeds=(seed,)))
    assert len(new[Role.BASE].rows) == 9
    taken = {key: new[Role.BASE].rows[key] for key in old[Role.BASE].rows}
    assert taken == old[Role.BASE].rows
    assert len(said) == 1  # the two new examples are one batch
    other_precision = seed.read_text().replace('"dtype":"float32"', '"dtype":"bfloat16"')
    seed.write_text(other_precision)
    _, said = run(make_job(Role.BASE, folder="mixed", seeds=(seed,)))
    assert len(said) > 1


def test_what_cannot_be_measured_is_skipped_and_the_rest_is_not(
    make_job: Any, examples: tuple[ChatExample, ...]
) -> None:
    long = examples[0].messages[1].model_copy(update={"content": "ring " * 600})
    broken = (
        examples[0].model_copy(update={"messages": (examples[0].messages[0], long, examples[0].messages[2])}),
        examples[1].model_copy(update={"messages": examples[1].messages[:2]}),
        *examples[2:],
    )
    found, said = run(make_job(Role.BASE, examples=broken))
    skipped = [row for row in found[Role.BASE].rows.values() if isinstance(row, SkippedRow)]
    assert sorted(row.reason for row in skipped) == ["no_answer", "too_long"]
    assert said[-1].done == said[-1].total == 9
    again, _ = run(make_job(Role.BASE, examples=broken))
    assert again == found


def test_whole_model_without_tokenizer_borrows_its_bases(
    make_job: Any, tiny_base: BaseModel, tmp_path: Path
) -> None:
    from tunewheel_basemodel.loading import load_base

    directory = tmp_path / "whole"
    load_base(tiny_base, dtype="float32", device="cpu")[0].save_pretrained(directory)
    job = make_job(Role.CANDIDATE, directory=directory)
    whole = job.contestants[0].model_copy(update={"whole_model": True})
    found, _ = run(job.model_copy(update={"contestants": (whole,)}))
    base, _ = run(make_job(Role.BASE, folder="base"))
    assert outputs(found[Role.CANDIDATE]) == outputs(base[Role.BASE])


def test_adapter_that_is_not_safetensors_is_the_candidates_fault(
    make_job: Any, adapters: tuple[Path, Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "adapter_config.json").write_bytes((adapters[0] / "adapter_config.json").read_bytes())
    (broken / "adapter_model.safetensors").write_bytes(b"\x80\x04 pickled, not safetensors")
    with pytest.raises(UnfitCandidate, match="is not a safetensors file") as caught:
        measure(make_job(Role.CANDIDATE, directory=broken), lambda _: None)
    assert caught.value.field == "adapter"
    with pytest.raises(UnfitCandidate, match="no directory") as caught:
        measure(make_job(Role.CANDIDATE, directory=tmp_path / "nothing"), lambda _: None)
    assert caught.value.field == "adapter"
    with pytest.raises(UnusableContestant, match="champion's adapter does not load"):
        measure(make_job(Role.CHAMPION, folder="other", directory=broken), lambda _: None)


@pytest.mark.parametrize(
    ("value", "said", "field"),
    [(float("nan"), "not finite", "adapter"), (1e30, r"example ex-\d .* nan", "adapter.files")],
)
def test_weights_that_diverged_are_the_candidates_fault(
    make_job: Any, adapters: tuple[Path, Path], tmp_path: Path, value: float, said: str, field: str
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    diverged = tmp_path / "diverged"
    shutil.copytree(adapters[0], diverged)
    weights = load_file(diverged / "adapter_model.safetensors")
    save_file(
        {name: torch.full_like(tensor, value) for name, tensor in weights.items()},
        diverged / "adapter_model.safetensors",
    )
    with pytest.raises(UnfitCandidate, match=rf"{said}.*lower learning rate") as caught:
        measure(make_job(Role.CANDIDATE, directory=diverged), lambda _: None)
    assert caught.value.field == field
    with pytest.raises((NoNumber, UnusableContestant), match="champion"):
        measure(make_job(Role.CHAMPION, folder="other", directory=diverged), lambda _: None)


@pytest.mark.parametrize("change", [{"revision": "sha256:0"}, {"name": "/nowhere/at/all"}])
def test_base_that_is_not_the_one_trained_on_is_named(
    make_job: Any, tiny_base: BaseModel, change: dict[str, str]
) -> None:
    base = {"name": str(tiny_base.path), "revision": tiny_base.revision, **change}
    with pytest.raises(UnfitCandidate) as caught:
        measure(make_job(Role.CANDIDATE, base=base), lambda _: None)
    assert caught.value.field == "base_model"


def test_a_hub_that_does_not_answer_is_no_candidates_fault(
    make_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunewheel_basemodel.errors import BaseModelUnreachable

    def away(*_: Any, **__: Any) -> None:
        raise BaseModelUnreachable("the hub does not answer")

    monkeypatch.setattr("tunewheel_basemodel.locate.locate_base_model", away)
    with pytest.raises(BaseModelUnreachable):
        measure(make_job(Role.CANDIDATE), lambda _: None)


def test_long_prompts_make_small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [Prompt(f"{n}", f"item {n}", tuple(range(n)), (), 10) for n in (40, 5, 30, 6, 7, 8)]
    monkeypatch.setattr(measuring, "_BATCH_TOKENS", 50)
    batches = [[len(one.context) for one in batch] for batch in measuring._batches(prompts, 3)]
    assert batches == [[5, 6], [7, 8], [30], [40]]
    monkeypatch.setattr(measuring, "_BATCH_TOKENS", 10_000)
    batches = [[len(one.context) for one in batch] for batch in measuring._batches(prompts, 4)]
    assert batches == [[5, 6, 7, 8], [30, 40]]


def test_two_processes_measure_what_one_measures(make_job: Any) -> None:
    alone, _ = run(make_job())
    beside, said = run(make_job(folder="beside", threads=2))
    assert {role: dict(one.rows) for role, one in beside.items()} == {
        role: dict(one.rows) for role, one in alone.items()
    }
    assert {one.role: one.done for one in said} == {role: len(one.rows) for role, one in alone.items()}
