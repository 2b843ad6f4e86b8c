"""``tunewheel plan`` at the terminal."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from tunewheel_basemodel.chat import encode_chat
from tunewheel_basemodel.digest import sha256_directory
from tunewheel_cli.datasets import statistics
from tunewheel_cli.datasets.statistics import count_tokens, estimate_tokens
from tunewheel_cli.frame import app
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetManifest, TokenizerUse
from tunewheel_contracts.formats.plan import Interval
from tunewheel_contracts.formats.run import RunManifest
from tunewheel_local.kafka.broker import run_async
from tunewheel_planner.plan import duration
from tunewheel_testing.console import KEY, Console
from tunewheel_testing.datasets import parquet
from tunewheel_testing.story import START, Story, example
from tunewheel_testing.tiny import tiny_tokenizer
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
SPEC = ROOT / "examples" / "helpdesk" / "project.yaml"


pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def wheel(console: Console, monkeypatch: pytest.MonkeyPatch) -> Console:
    """A wheel that the command is logged in to."""
    monkeypatch.setenv("TUNEWHEEL_URL", console.url)
    monkeypatch.setenv("TUNEWHEEL_API_KEY", KEY)
    return console


@pytest.fixture(autouse=True)
def torch_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command hides torch from transformers; in this process others want to find it."""
    monkeypatch.setattr("tunewheel_basemodel.tokenizer.import_library", lambda: None)


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["plan", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def plans(*arguments: str) -> list[dict]:
    code, out, err = run(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)["plans"]


def test_without_a_model_the_table_goes_from_1b_to_70b_by_method_and_gpu() -> None:
    found = plans()
    assert min(p["parameters"] for p in found) < 1.3e9
    assert max(p["parameters"] for p in found) > 70e9
    assert {p["method"] for p in found} == {"full", "lora", "qlora"}
    assert len({p["device"] for p in found}) >= 8
    assert len({(p["model"], p["method"], p["device"]) for p in found}) == len(found) >= 8 * 3 * 8


def test_a_spec_gives_model_and_recipe() -> None:
    (found,) = plans(str(SPEC), "--device", "l4")
    assert found["model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert found["fits"] is True
    assert found["memory"]["weights"] == 2 * found["parameters"]


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [(0.001, 0.01, "1 min"), (0.05, 0.09, "3-5 min"), (0.5, 0.99, "30-59 min"), (0.5, 1.1, "0.5-1.1 h")],
)
def test_less_than_an_hour_is_told_in_minutes(low: float, high: float, words: str) -> None:
    assert duration(Interval(low=low, expected=high, high=high)) == words


def test_what_a_plan_reckons_with_is_said_first_and_read_from_a_file(tmp_path: Path) -> None:
    code, out, _ = run("--device", "l4", "--model", ELSEWHERE)
    assert code == 0
    assert out.startswith("Reckoned with 1,000 examples of 400 tokens, 100 of them to learn")
    assert "--data FILE reads yours" in out.partition("\n")[0]
    file = tmp_path / "qa.csv"
    file.write_text("question,answer\n" + "".join(f"question {n},answer {n}\n" for n in range(200)))
    assert run("--device", "l4", "--data", str(file))[1].startswith("Reckoned with 200 examples of ")
    told = json.loads(run(str(SPEC), "--device", "cpu", "--data", str(file), "--json")[1])
    assert told["reckoned_with"]["examples"] == 160, "a fifth is held out"
    assert told["tokens"]["tokenizer"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    code, _, err = run("--data", str(tmp_path / "missing.csv"))
    assert code == 1
    assert "does not exist" in err


@pytest.mark.parametrize(("variables", "more"), [({}, 0), ({"times": 1}, 1), ({"times": 3}, 3)])
def test_examples_of_a_file_are_counted_with_the_variables_of_the_template(
    tmp_path: Path, monkeypatch: Any, variables: dict[str, Any], more: int
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ 'x' * (times or 0) }}" + str(tokenizer.chat_template)
    monkeypatch.setattr("tunewheel_cli.surveying.tokens.local_tokenizer", lambda _: tokenizer)
    file = tmp_path / "qa.csv"
    file.write_text("question,answer\n" + "".join(f"question {n},answer {n}\n" for n in range(50)))
    spec = yaml.safe_load(SPEC.read_text())

    def longest(of: dict[str, Any]) -> int:
        spec["task"]["chat_template_kwargs"] = of
        (tmp_path / "p.yaml").write_text(yaml.safe_dump(spec))
        told = json.loads(run(str(tmp_path / "p.yaml"), "--device", "cpu", "--data", str(file), "--json")[1])
        return told["reckoned_with"]["longest"]

    assert longest(variables) - longest({}) == len(tokenizer("x" * more).input_ids) - len(
        tokenizer("").input_ids
    )


def test_pairs_of_a_file_are_learnt_from_where_the_recipe_does(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    pair = {"prompt": "what now", "chosen": "this", "rejected": "that"}
    file.write_text("\n".join(json.dumps(pair | {"prompt": f"what now {n}"}) for n in range(50)))
    spec = yaml.safe_load(SPEC.read_text())
    spec["train"] |= {"preference": {"method": "dpo"}}
    (tmp_path / "dpo.yaml").write_text(yaml.safe_dump(spec))
    with_pairs, without = (
        json.loads(run(str(path), "--device", "cpu", "--data", str(file), "--json")[1])["plans"][0]
        for path in (tmp_path / "dpo.yaml", SPEC)
    )
    assert with_pairs["tokens"] > without["tokens"]


def test_a_spec_of_an_unknown_model_is_checked_all_the_same(tmp_path: Path) -> None:
    spec = yaml.safe_load(SPEC.read_text()) | {"base_model": "some/new-9B"}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump(spec))
    code, out, _ = run(str(tmp_path / "p.yaml"))
    assert code == 0
    assert "give --model the path of its config.json" in out
    assert "Criteria together" in out
    told = json.loads(run(str(tmp_path / "p.yaml"), "--json")[1])
    assert told["plans"] == []
    assert "some/new-9B" in told["unplanned"]


def test_a_spec_is_cautioned_as_declare_would(tmp_path: Path) -> None:
    code, _, err = run(str(SPEC))
    assert code == 0
    assert "train.learning_rate" not in err, "general data is mixed in"
    replay = "  replay: {source: bundled, share: 0.1}\n"
    assert replay in SPEC.read_text()
    (spec := tmp_path / "p.yaml").write_text(SPEC.read_text().replace(replay, ""))
    assert "caution: train.learning_rate 0.002 is above 0.0001" in run(str(spec))[2]
    _, out, err = run(str(spec), "--json")
    assert "caution" not in err
    assert any("train.learning_rate 0.002" in caution for caution in json.loads(out)["cautions"])
    assert not any("train." in one for one in json.loads(run("--device", "l4", "--json")[1])["cautions"])


def test_passages_in_the_prompts_are_counted(tmp_path: Path) -> None:
    """Three passages of 128 tokens, where the budget is 256."""
    spec, text = tmp_path / "project.yaml", SPEC.read_text()
    passages = "  passage_tokens: 96\n  top_k: 2\n  budget_tokens: 192\n"
    assert passages in text
    counted: list[int] = []
    for training in ("", "  passage_tokens: 128\n  training: {distractors: 2}\n"):
        served = text.replace('  default: "off"\n', '  default: "on"\n')
        spec.write_text(served.replace(passages, f"  top_k: 3\n  budget_tokens: 256\n{training}"))
        (found,) = plans(str(spec), "--device", "l4", "--tokens-per-example", "256", "--answer-tokens", "32")
        counted.append(found["tokens"])
    assert counted[1] == 2 * counted[0]


CONFIG = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
    "vocab_size": 1000,
}  # fmt: skip


def test_a_config_json_gives_the_shape(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    by_folder = plans("--model", str(tmp_path), "--device", "t4", "--method", "lora")
    by_file = plans("--model", str(tmp_path / "config.json"), "--device", "t4", "--method", "lora")
    assert [p["peak_bytes"] for p in by_folder] == [p["peak_bytes"] for p in by_file]


def test_a_file_of_ones_own_gives_cards_and_prices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = {"name": "ours", "kind": "cuda", "memory_gib": 48, "teraflops": 100, "dollars_per_hour": [1, 1]}
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({"as_of": "2031-02-03", "about": "a contract", "devices": [card]}))
    code, out, _ = run(str(SPEC), "--devices", str(mine), "--json")
    assert code == 0
    assert json.loads(out)["prices_as_of"] == "2031-02-03"
    (cheap,) = json.loads(out)["plans"]
    assert cheap["device"] == "ours"
    mine.write_text(mine.read_text().replace("[1, 1]", "[2, 2]"))
    monkeypatch.setenv("TUNEWHEEL_DEVICES", str(mine))
    (dear,) = plans(str(SPEC))
    assert dear["dollars"]["low"] == pytest.approx(2 * cheap["dollars"]["low"])


@pytest.mark.parametrize(("as_of", "stale"), [("2020-01-31", True), ("2131-02-03", False)])
def test_prices_that_are_old_say_so_and_how_to_give_others(tmp_path: Path, as_of: str, stale: bool) -> None:
    card = {"name": "ours", "kind": "cuda", "memory_gib": 48, "teraflops": 100, "dollars_per_hour": [1, 1]}
    mine = tmp_path / "mine.json"
    mine.write_text(json.dumps({"as_of": as_of, "about": "", "devices": [card]}))
    asked = (str(SPEC), "--devices", str(mine))
    _, out, err = run(*asked)
    assert f"Prices are assumed as of {as_of}; --devices FILE gives yours" in " ".join(out.split())
    assert ("caution: the prices are" in err and "TUNEWHEEL_DEVICES" in err) == stale
    told = [one for one in json.loads(run(*asked, "--json")[1])["cautions"] if f"(as_of {as_of})" in one]
    assert len(told) == stale


def test_a_broken_file_of_devices_names_the_field(tmp_path: Path) -> None:
    code, _, err = run(str(SPEC), "--devices", str(tmp_path / "none.json"))
    assert code == 1
    assert "devices: " in err
    (tmp_path / "bad.json").write_text('{"as_of": "2031-02-03", "about": "", "devices": [{"name": "x"}]}')
    code, _, err = run(str(SPEC), "--devices", str(tmp_path / "bad.json"))
    assert code == 1
    assert "devices.devices.0.kind" in err


def test_the_table_is_for_people() -> None:
    code, out, _ = run("--device", "t4", "--model", "meta-llama/Llama-3.1-8B-Instruct",
                       "--knowledge-changes", "daily", "--consistency", "high")  # fmt: skip
    assert code == 0
    assert out.startswith("hybrid: ")
    assert "tunewheel run scorecard RUN" in " ".join(out.split())
    assert "Prices are assumed as of 20" in " ".join(out.split())
    assert "Whether to fine-tune at all" not in out, "it was asked and answered"


def test_who_asked_for_no_advice_is_told_how_to_get_it() -> None:
    said = " ".join(run("--device", "t4", "--model", "meta-llama/Llama-3.1-8B-Instruct")[1].split())
    assert "Whether to fine-tune at all: --knowledge-changes and --consistency decide together." in said


def test_one_row_is_recommended_with_its_reason() -> None:
    best = json.loads(run("--json")[1])["recommended"]
    assert (best["model"], best["method"]) == ("Qwen/Qwen3-4B-Instruct-2507", "lora")
    assert best["reason"].startswith("the smallest base of 4B or more; the cheapest of ")
    said = " ".join(run("--device", "h100-80", "--model", "meta-llama/Llama-3.1-8B-Instruct")[1].split())
    assert "Recommended: meta-llama/Llama-3.1-8B-Instruct, lora on h100-80: the cheapest of 2 ways" in said
    large = ("--device", "t4", "--model", "meta-llama/Llama-3.3-70B-Instruct")
    assert json.loads(run(*large, "--json")[1])["recommended"] is None
    assert "Recommended" not in run(*large)[1]


def test_several_gpus_divide_a_base_that_fits_none_of_them() -> None:
    large = ("--device", "h100-80", "--model", "meta-llama/Llama-3.3-70B-Instruct", "--method", "lora")
    (one,), (eight,) = plans(*large), plans(*large, "--gpus", "8")
    (two_nodes,) = plans(*large, "--gpus", "8", "--nodes", "2")
    assert [one["fits"], eight["fits"], two_nodes["fits"]] == [False, True, True]
    assert [one["processes"], eight["processes"], two_nodes["processes"]] == [1, 8, 16]
    assert eight["memory"]["weights"] < one["memory"]["weights"] / 4
    (quantized,) = plans(*large[:-1], "qlora", "--gpus", "8")
    assert quantized["memory"]["weights"] > 30e9, "a 4-bit base is not divided"
    (cpu,) = plans(str(SPEC), "--device", "cpu", "--gpus", "8")
    assert cpu["processes"] == 1


def test_few_examples_are_no_reason_to_train() -> None:
    asked = (
        "--device",
        "t4",
        "--model",
        ELSEWHERE,
        "--knowledge-changes",
        "no-facts",
        "--consistency",
        "high",
    )
    assert run(*asked, "--examples", "50")[1].startswith("prompt: 50 are too few examples for fine-tuning")
    assert run(*asked)[1].startswith("fine-tuning: "), "an assumed number decides nothing"


def test_short_examples_need_no_second_option() -> None:
    short = ("--device", "t4", "--model", "meta-llama/Llama-3.1-8B-Instruct", "--tokens-per-example", "60")
    assert plans(*short) == plans(*short, "--answer-tokens", "15")


def test_what_serving_a_whole_model_takes_is_said_of_the_model_asked_about() -> None:
    said = " ".join(run("--model", ELSEWHERE, "--method", "full")[1].split())
    assert "full: each version takes tunewheel-engine 4.9 GB of weights" in said
    assert "each version takes" not in run("--method", "full")[1], "not of six models"
    assert "each version takes" not in run("--model", ELSEWHERE, "--method", "lora")[1]


def test_no_figure_of_the_table_is_cut_off_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    code, out, _ = run("--device", "h100-80", "--model", "mistralai/Mistral-7B-Instruct-v0.3")
    assert code == 0
    rows = [line for line in out.splitlines() if line.startswith("Mistral-7B-Instruct-v0.3 ")]
    planned = plans("--device", "h100-80", "--model", "mistralai/Mistral-7B-Instruct-v0.3")
    for row, plan in zip(rows, planned, strict=True):
        dollars = f"{plan['dollars']['low']:.2f}-{plan['dollars']['high']:.2f}"
        told = f"{duration(Interval.model_validate(plan['hours']))} {dollars}"
        assert " ".join(row.split()).endswith(told if plan["fits"] else plan["advice"].split(": ")[1])
    assert {plan["fits"] for plan in planned} == {True, False}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--model", "no/such"), 1, "base_model: 'no/such' is no known model"),
        (("--device", "abacus"), 2, "take one of t4"),
        (("--answer-tokens", "500"), 2, "must be between 1 and --tokens-per-example 400"),
        (("--epochs", "0"), 2, "train.epochs"),
        (("--consistency", "high"), 2, "--knowledge-changes is missing"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: tuple[str, ...], code: int, words: str) -> None:
    found, _, err = run(*arguments)
    assert found == code
    assert words in err
    assert err.count("\n") == 1


def ran(wheel: Console, number: int, *, faster: float, teraflops: float, memory_gib: int) -> None:
    """Let the wheel have a run on a processor that was so much faster than planned."""
    run = RunManifest.model_validate(example("run-manifest", "planned-and-measured"))
    assert run.plan is not None
    assert run.usage is not None
    assert run.plan.device == "cpu"
    plan = run.plan.model_copy(update={"teraflops": teraflops, "available_bytes": memory_gib << 30})
    speed = plan.tokens_per_second.expected / plan.speed_factor * faster
    usage = run.usage.model_copy(update={"tokens_per_second": speed})
    told = run.model_copy(update={"plan": plan, "usage": usage, "dtype": "float32"})
    put = wheel.store.put(f"runs/run-{number}/manifest.json", told.model_dump_json().encode())
    completed(wheel, number, run_async(put))


def completed(wheel: Console, number: int, manifest: ArtifactRef) -> None:
    story = Story("helpdesk", START + number * timedelta(hours=1))
    story.say("project.declared")
    story.train("completed", f"ds-{number}", like="planned", manifest=manifest)
    wheel.read(*story.events)


def test_earlier_runs_correct_the_plan_and_say_what_the_processor_is(wheel: Console) -> None:
    (guessed,) = plans(str(SPEC), "--device", "cpu")
    assert guessed["calibrated_by"] == 0
    ran(wheel, 1, faster=2.0, teraflops=0.1, memory_gib=3)
    ran(wheel, 2, faster=2.0, teraflops=0.25, memory_gib=7)
    erased = run_async(wheel.store.put("runs/run-3/manifest.json", b"{}"))
    completed(wheel, 3, erased)
    run_async(wheel.store.delete([erased.path]))
    (found,) = plans(str(SPEC), "--device", "cpu")
    assert (found["calibrated_by"], found["available_bytes"]) == (2, 7 << 30)
    assert found["speed_factor"] == pytest.approx(2.0)
    assert found["tokens_per_second"]["expected"] == pytest.approx(
        guessed["tokens_per_second"]["expected"] * 2.0 * 0.25 / guessed["teraflops"]
    )
    _, out, _ = run(str(SPEC), "--device", "cpu", "--device", "l4")
    assert "1 of 2 plans are corrected by what earlier runs took." in out


def test_without_an_answer_of_the_wheel_the_plan_says_that_no_run_corrects_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TUNEWHEEL_URL", "http://127.0.0.1:9")
    code, out, err = run(str(SPEC), "--device", "l4")
    assert (code, "l4" in out) == (0, True)
    assert "no earlier run corrects the plan: console: nothing answers" in err


ELSEWHERE = "meta-llama/Llama-3.2-1B-Instruct"
"""A model whose shape is known and whose tokenizer is on no machine that runs this."""


def conversation(answer: str) -> list[dict[str, str]]:
    turns = [("system", "Help. " * 20), ("user", "My horn is mute."), ("assistant", answer)]
    return [{"role": role, "content": content} for role, content in turns]


def put_version(
    wheel: Console, conversations: list[list[dict[str, str]]], base_model: str = ELSEWHERE, **changes: Any
) -> None:
    """Let the wheel have built ``ds-built``. ``changes``: of its manifest; a list becomes a file of rows."""
    manifest = DatasetManifest.model_validate(example("dataset-manifest", "preliminary"))
    spec = manifest.spec.model_copy(update={"base_model": base_model})
    rows = [{"example_id": f"ex-{n}", "messages": one, "label": None, "group": f"g{n}", "trust": "expert"}
            for n, one in enumerate(conversations)]  # fmt: skip
    refs = {
        name: run_async(wheel.store.put(f"datasets/ds-built/{name}.parquet", parquet(value)))
        for name, value in ({"train": rows, "holdout": rows} | changes).items()
        if isinstance(value, list)
    }
    told = manifest.model_copy(
        update={"dataset_id": "ds-built", "spec": spec, "preferences": None} | changes | refs
    )
    put = wheel.store.put("datasets/ds-built/manifest.json", told.model_dump_json().encode())
    story = Story("helpdesk")
    story.say("project.declared")
    story.version(story.request(), "ds-built", manifest=run_async(put))
    wheel.read(*story.events)


def test_a_built_version_gives_model_recipe_and_examples(wheel: Console) -> None:
    put_version(wheel, [conversation("Oil it."), conversation("Oil it. " * 50)])
    code, out, _ = run("--dataset", "ds-built", "-p", "helpdesk", "--device", "l4", "--json")
    assert code == 0
    (found,), told = json.loads(out)["plans"], json.loads(out)["tokens"]
    assert found["model"] == ELSEWHERE
    tokens = [30 + 5, 4 + 5], [2 + 5, 100 + 5]  # four characters each, and what a template adds
    assert found["tokens"] == 2 * (2 * sum(tokens[0]) + sum(tokens[1]))  # twice by the recipe
    assert told["tokenizer"] is None
    assert told["estimated_because"] == f"the tokenizer of {ELSEWHERE!r} is not on this machine"
    (longer,) = plans("--dataset", "ds-built", "-p", "helpdesk", "--device", "l4", "--epochs", "8")
    assert longer["tokens"] == 4 * found["tokens"]
    _, table, _ = run("--dataset", "ds-built", "-p", "helpdesk", "--device", "l4")
    assert f"estimated at four characters a token: {told['estimated_because']}." in " ".join(table.split())


def preferring(tmp_path: Path, **preference: object) -> str:
    """The example's spec, with a preference to learn after the examples."""
    spec = yaml.safe_load(SPEC.read_text())
    spec["train"]["preference"] = preference
    (tmp_path / "project.yaml").write_text(yaml.safe_dump(spec))
    return str(tmp_path / "project.yaml")


def test_a_spec_that_learns_preferences_is_planned_with_both_stages(tmp_path: Path) -> None:
    spec = preferring(tmp_path, epochs=1)
    alone, (both,), (few,) = (
        plans(str(SPEC), "--device", "l4")[0],
        plans(spec, "--device", "l4"),
        plans(spec, "--device", "l4", "--pairs", "10"),
    )
    assert both["tokens"] - alone["tokens"] == 1000 * 2 * 400  # as many pairs as examples, unless told
    assert few["tokens"] - alone["tokens"] == 10 * 2 * 400
    assert both["hours"]["expected"] > few["hours"]["expected"] > alone["hours"]["expected"]


@pytest.mark.parametrize(("method", "answers"), [("dpo", 2), ("kto", 3)])
def test_the_pairs_of_a_built_version_are_counted(
    wheel: Console, tmp_path: Path, method: str, answers: int
) -> None:
    prompt, answer = conversation("Oil it.")[:2], "Oil it."
    shared = {"prompt": prompt, "rejected": answer, "group": "g", "trust": "user", "record_id": "r"}
    put_version(
        wheel,
        [conversation(answer)],
        preferences=[{"pair_id": "p", "chosen": answer, **shared}],
        negatives=[{"negative_id": "n", **shared}],
    )
    spec, version = preferring(tmp_path, method=method, epochs=1), ("--dataset", "ds-built", "--device", "l4")
    (alone,), (both,) = plans(str(SPEC), *version), plans(spec, *version)
    assert both["tokens"] - alone["tokens"] == answers * alone["tokens"] / 3  # by one epoch instead of three


def test_what_is_validated_on_is_said_with_its_share() -> None:
    (found,) = plans(str(SPEC), "--device", "l4", "--examples", "5000")
    assert 0 < found["validation"]["share"] <= 0.05
    _, out, _ = run(str(SPEC), "--device", "l4", "--examples", "5000")
    held, every = found["validation"]["examples"], found["validation"]["every_steps"]
    assert f"lora: {held} examples are held back to validate on, every {every} steps: " in " ".join(
        out.split()
    )


@pytest.fixture
def pinned(wheel: Console, tmp_path: Path) -> TokenizerUse:
    """The tiny tokenizer, as curate keeps it in the store."""
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    sha256 = sha256_directory(tmp_path / "tokenizer")
    run_async(wheel.store.put_directory(f"tokenizers/{sha256}", tmp_path / "tokenizer"))
    return TokenizerUse(base_model=ELSEWHERE, sha256=sha256)


def test_examples_are_counted_by_the_tokenizer_that_the_version_was_built_by(
    wheel: Console, pinned: TokenizerUse
) -> None:
    asked_back = [*conversation("Which?"), {"role": "user", "content": "Both"},
                  {"role": "assistant", "content": "Oil them."}]  # fmt: skip
    rows = [conversation("Oil it."), asked_back]
    put_version(wheel, rows, tokenizer=pinned)
    code, out, _ = run("--dataset", "ds-built", "-p", "helpdesk", "--device", "l4", "--json")
    assert code == 0
    encoded = [encode_chat(tiny_tokenizer(), row)[0] for row in rows]
    (found,), told = json.loads(out)["plans"], json.loads(out)["tokens"]
    assert found["tokens"] == 2 * sum(map(len, encoded))
    assert told == {"tokenizer": ELSEWHERE, "estimated_because": None}
    stats = count_tokens([{"messages": row} for row in rows], tiny_tokenizer())
    assert stats.longest == len(encoded[1])
    learnt = [len(tiny_tokenizer()(answer + "<|im_end|>").input_ids) for answer in ("Oil it.", "Oil them.")]
    assert stats.learnt == sum(learnt)
    assert encoded[0][: stats.prefix] == encoded[1][: stats.prefix] != encoded[1][: stats.prefix + 1]


def test_a_pinned_tokenizer_that_was_damaged_is_not_counted_by(wheel: Console, pinned: TokenizerUse) -> None:
    run_async(wheel.store.delete([f"tokenizers/{pinned.sha256}/tokenizer_config.json"]))
    put_version(wheel, [conversation("Oil it.")], tokenizer=pinned)
    code, out, _ = run("--dataset", "ds-built", "-p", "helpdesk", "--device", "l4", "--json")
    assert code == 0
    assert "is not on this machine" in json.loads(out)["tokens"]["estimated_because"]


def test_a_template_that_takes_no_example_leaves_the_estimate(wheel: Console, pinned: TokenizerUse) -> None:
    put_version(wheel, [conversation(" ")], tokenizer=pinned)
    code, out, _ = run("--dataset", "ds-built", "-p", "helpdesk", "--device", "l4", "--json")
    assert code == 0
    assert "takes none of the examples" in json.loads(out)["tokens"]["estimated_because"]


def test_of_many_examples_some_stand_for_all_and_the_longest_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics, "MOST_COUNTED", 10)
    rows = [{"messages": conversation("Oil it.")} for _ in range(39)]
    rows.insert(1, {"messages": conversation("Oil it. " * 9)})  # one of those that are not counted
    stats = count_tokens(rows, tiny_tokenizer())
    ids, _ = encode_chat(tiny_tokenizer(), rows[0]["messages"])
    assert (stats.examples, stats.tokens) == (40, 40 * len(ids))
    assert stats.longest == len(encode_chat(tiny_tokenizer(), rows[1]["messages"])[0])


COUNTING = """
import json, sys
from tunewheel_cli.frame import app
try:
    app(["plan", "--dataset", "ds-built", "-p", "helpdesk", "--device", "l4", "--json"])
finally:
    print(json.dumps("torch" in sys.modules), file=sys.stderr)
"""


def test_a_tokenizer_on_this_machine_is_counted_by_without_torch(wheel: Console, tmp_path: Path) -> None:
    base = str(tmp_path / "base")
    tiny_tokenizer().save_pretrained(base)
    (tmp_path / "base" / "config.json").write_text(json.dumps(CONFIG))
    put_version(wheel, [conversation("Oil it.")], base)
    done = subprocess.run([sys.executable, "-c", COUNTING], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["tokens"]["tokenizer"] == base
    assert json.loads(done.stderr.splitlines()[-1]) is False


def test_what_all_begin_with_is_counted_once() -> None:
    turns = [{"role": "user", "content": "x" * 40}, {"role": "assistant", "content": "y" * 8}]
    prompts = ("Help them. " * 4 + "Be short.", "Help them. " * 4 + "Be exact.")
    shared = estimate_tokens([[{"role": "system", "content": p}, *turns] for p in prompts])
    assert shared.prefix == len("Help them. " * 4 + "Be ") // 4
    assert estimate_tokens([turns]).prefix == 0
    assert (shared.examples, shared.learnt) == (2, 2 * 7)


def test_a_version_that_is_not_there_is_said_in_one_line(wheel: Console) -> None:
    put_version(wheel, [conversation("Oil it.")])
    code, _, err = run("--dataset", "ds-none", "-p", "helpdesk")
    assert code == 1
    assert "has no dataset 'ds-none'" in err
