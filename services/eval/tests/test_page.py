"""The page of a scorecard: everything on it, nothing from elsewhere, hostile text as text."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import pytest
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.generations import Generation
from tunewheel_contracts.formats.scorecard import (
    Contestant,
    CriterionCheck,
    Finding,
    MetricFacts,
    Role,
    Scorecard,
    Slice,
)
from tunewheel_eval import page
from tunewheel_eval.page import render_page, verdict_sentence

HOSTILE = (
    "</pre><script>fetch('//evil')</script><img src=x onerror=alert(1)> \" ' & \u202egnp.exe \x1b[2J \ud800"
)


def scorecard(**changes: Any) -> Scorecard:
    asked = Criterion.model_validate({"metric": "label_accuracy", "over_base": 0.1})
    check = CriterionCheck(
        criterion=asked, observed=0.9, passed=True, reason="is better", outcome="met", low=0.12, high=0.3
    )
    finding = Finding(
        metric="label_accuracy", against="base", test="mcnemar_exact", difference=0.2, p_value=0.01,
        low=0.12, high=0.3, alpha=0.05, rows=60, clusters=40,
    )  # fmt: skip
    part = Slice(
        by="label", value="billing", rows=3, metric="label_accuracy", figures={"candidate": 0.5, "base": 1}
    )
    plain: dict[str, Any] = {
        "scorecard_id": "scorecard-1", "project": "desk", "run_id": "run-1", "model_id": "desk-one",
        "dataset_id": "ds-1", "criteria_sha256": "0" * 64, "comparisons": (), "checks": (check,),
        "contestants": (
            Contestant(role=Role.CANDIDATE, model_id="desk-one", metrics={"label_accuracy": 0.9}),
            Contestant(role=Role.BASE, model_id="tiny", metrics={"label_accuracy": 0.7}),
        ),
        "passed": True, "findings": (finding,), "slices": (part,), "looks": 3, "left_out": {"too_long": 2},
        "metrics": {"label_accuracy": MetricFacts(unit="fraction", lower_is_better=False, repeat_spread=0.0)},
    }  # fmt: skip
    return Scorecard.model_validate({**plain, **changes})


def row(text: str = "billing", *, name: str = "ex-1", base: str = "b") -> Generation:
    return Generation.model_construct(
        example_id=name, label="billing", expected=text,
        prompt=(page_message(text),),
        answers={role: written(said) for role, said in ((Role.CANDIDATE, text), (Role.BASE, base))},
    )  # fmt: skip


def page_message(text: str) -> Any:
    from tunewheel_contracts.formats.dataset import ChatMessage

    return ChatMessage.model_construct(role="user", content=text)


def written(text: str) -> Any:
    from tunewheel_contracts.formats.generations import Written

    return Written.model_construct(output=text, complete=False)


class Elements(HTMLParser):
    """What the page is made of, as a browser reads it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.mark.parametrize(
    ("temperature", "spread", "said"),
    [
        (0.0, 0.0, "greedy: repeats do not differ"),
        (1.0, 0.02, "repeats differ by 0.02"),
        (1.0, 0.0, "fraction; repeats do not differ"),
        (1.0, None, "how far repeats differ was not measured"),
    ],
)
def test_it_says_how_far_repeats_differ(temperature: float, spread: float | None, said: str) -> None:
    bundle = {
        "base": {"name": "tiny", "revision": "r"}, "model_id": "desk-one", "adapter_sha256": "0" * 64,
        "template_sha256": None, "system_prompt": "s", "decoding": {"temperature": temperature},
        "max_output_tokens": 12, "precision": "float32",
    }  # fmt: skip
    facts = {"unit": "fraction", "lower_is_better": False, "repeat_spread": spread}
    assert said in render_page(scorecard(bundle=bundle, metrics={"label_accuracy": facts}), [])


def test_everything_is_on_the_page() -> None:
    text = render_page(scorecard(), [row()])
    for said in (
        "desk-one meets every criterion against tiny.",
        "0.12 to 0.3",
        "label_accuracy against the base",
        "60 rows, 40 independent",
        "<td>billing</td><td>3</td>",
        "left out: too_long",
        "looks at these rows",
        "repeats do not differ",
        "cut off at the limit of tokens",
        "base: tiny",
    ):
        assert said in text
    assert "<p>Of production: it decides nothing.</p>" in render_page(
        scorecard(), [], informs="of production: it decides nothing"
    )


def test_what_models_and_customers_wrote_stays_text() -> None:
    slice_ = scorecard().slices[0].model_copy(update={"value": HOSTILE.replace("\ud800", "")})
    text = render_page(scorecard(model_id="desk-one", slices=(slice_,)), [row(HOSTILE, name="ex-<b>")])
    found = Elements(text)
    assert "script" not in found.tags
    assert not found.tags & {"img", "b", "iframe", "link", "a", "object", "form"}
    assert not {
        name for name in found.attributes if name.startswith("on") or name in ("src", "href", "style")
    }
    assert "&lt;script&gt;" in text
    assert "\\u202e" in text
    assert "\\u001b" in text
    text.encode()  # half a surrogate pair would not be UTF-8
    assert "default-src 'none'" in text


def test_long_texts_and_many_rows_are_cut_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    text = render_page(scorecard(), [row("x" * 100_000)])
    assert len(text) < 60_000
    assert "… and 96,000 more characters" in text
    monkeypatch.setattr(page, "MOST_ROWS", 2)
    text = render_page(
        scorecard(), [row("same", base="same", name="ex-same"), row(name="ex-2"), row(name="ex-3")]
    )
    assert text.count("<details>") == 2
    assert "ex-same" not in text
    assert "1 more rows" in text
    monkeypatch.setattr(page, "MOST_PAGE_CHARACTERS", 10)
    assert render_page(scorecard(), [row()]).count("<details>") == 0


def test_empty_answers_and_no_rows_at_all_make_a_page() -> None:
    assert "<pre></pre>" in render_page(scorecard(), [row("")])
    nothing: dict[str, Any] = {"checks": (), "contestants": (), "findings": (), "slices": (), "metrics": {}}
    bare = scorecard(**nothing, passed=False, field="adapter", reason="is <broken>")
    assert "could not be judged. adapter: is &lt;broken&gt;." in render_page(bare, [])


@pytest.mark.parametrize(
    ("outcomes", "told"),
    [(("met", "missed"), "failed"), (("undecided", "met"), "undecided"), (("undecided", "missed"), "failed")],
)
def test_the_sentence_says_how_it_ended(outcomes: tuple[str, ...], told: str) -> None:
    check = scorecard().checks[0]
    checks = [check.model_copy(update={"outcome": one, "passed": one == "met"}) for one in outcomes]
    assert verdict_sentence(scorecard(checks=checks, passed=False))[0] == told


def test_a_metric_where_lower_is_better_is_drawn_as_such() -> None:
    better = (
        scorecard()
        .findings[0]
        .model_copy(update={"metric": "perplexity", "difference": -2.0, "low": -3.0, "high": -1.0})
    )
    facts = {"perplexity": MetricFacts(unit="perplexity", lower_is_better=True)}
    assert '<g class="better">' in render_page(scorecard(findings=(better,), metrics=facts), [])
    assert '<g class="worse">' in render_page(scorecard(findings=(better,), metrics={}), [])


def test_a_holdout_that_no_expert_validated_is_told() -> None:
    told = "held-out answers that no expert validated"
    assert f"<dt>{told}</dt><dd>3</dd>" in render_page(scorecard(unvalidated=3), [])
    assert told not in render_page(scorecard(), [])
