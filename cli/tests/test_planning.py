"""``tunewheel plan`` at the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tunewheel_cli.main import app
from typer.testing import CliRunner

SPEC = Path(__file__).resolve().parents[2] / "examples" / "helpdesk" / "project.yaml"


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


def test_a_config_json_gives_the_shape(tmp_path: Path) -> None:
    config = {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
        "vocab_size": 1000,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
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


def test_a_broken_file_of_devices_names_the_field(tmp_path: Path) -> None:
    code, _, err = run(str(SPEC), "--devices", str(tmp_path / "none.json"))
    assert code == 1
    assert "devices: " in err
    (tmp_path / "bad.json").write_text('{"as_of": "2031-02-03", "about": "", "devices": [{"name": "x"}]}')
    code, _, err = run(str(SPEC), "--devices", str(tmp_path / "bad.json"))
    assert code == 1
    assert "devices.devices.0.kind" in err


def test_the_table_is_for_people(tmp_path: Path) -> None:
    code, out, _ = run("--device", "t4", "--model", "meta-llama/Llama-3.1-8B-Instruct",
                       "--knowledge-changes", "daily", "--consistency", "high")  # fmt: skip
    assert code == 0
    assert out.startswith("hybrid: ")
    assert "Prices are assumed as of 20" in " ".join(out.split())


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
