"""An evaluation's rows and labels: in the API as eval wrote them, on its pages side by side and linked."""

from __future__ import annotations

import html
import re
from typing import Any
from urllib.parse import urljoin

import pytest
from tunewheel_contracts.formats.generations import Generation
from tunewheel_contracts.formats.scorecard import Scorecard
from tunewheel_testing.story import example

PAGE, API = "/projects/desk/evaluations/run-1", "/v1/projects/desk/evaluations/run-1"
ANSWERS = (
    ("bell", "horn", "bell"), ("bell", "bell", "horn"), ("horn", "horn", "horn"), ("horn", "horn", None),
    ("a&b", "a&b", "a&b"),
)  # fmt: skip
"""By row: the expected label, and those of the champion and the candidate."""


def line(number: int, expected: str, **answers: str | None) -> Generation:
    return Generation.model_validate(
        {
            "example_id": f"ex-{number}", "label": expected, "expected": f"It is the {expected}.",
            "prompt": [{"role": "user", "content": f"<b>What is {number}?</b>"}],
            "answers": {
                role: {
                    "output": f"It is the {label}.", "complete": True, "label": label,
                    "scores": {"label_accuracy": float(label == expected), "rouge_l": 0.5},
                    "failed": ["label_accuracy"] if label != expected else [],
                }
                for role, label in answers.items()
            },
        }
    )  # fmt: skip


def card_of(ref: Any, **changes: Any) -> Scorecard:
    facts = {"unit": "fraction", "lower_is_better": False}
    part = {
        "by": "label",
        "value": "bell",
        "rows": 2,
        "metric": "label_accuracy",
        "figures": {"candidate": 0.5},
    }
    first = example("scorecard")["contestants"][0]
    found = {
        "generations": ref, "slices": (part | {"low": -0.1, "high": 0.2},),
        "metrics": {"label_accuracy": facts, "rouge_l": facts},
        "contestants": [first | {"role": role} for role in ("candidate", "champion")],
    }  # fmt: skip
    return Scorecard.model_validate(example("scorecard") | found | changes)


@pytest.fixture
def put(web: Any, state: Any, desk: Any, store: Any) -> Any:
    """Store run-1's scorecard with these rows, after a verdict ended the review that withheld it."""

    async def put(rows: list[Generation], **changes: Any) -> None:
        state.apply(desk.failed())
        data = "".join(f"{row.model_dump_json()}\n" for row in rows).encode()
        path = state.projects["desk"].runs["run-1"].evaluations["run-1"].data.scorecard.path
        ref = await store.put("scorecards/sc.generations-1.jsonl", data)
        await store.replace(path, card_of(ref, **changes).model_dump_json().encode())

    return put


@pytest.fixture
async def rows(put: Any) -> list[Generation]:
    found = [line(n, one[0], champion=one[1], candidate=one[2]) for n, one in enumerate(ANSWERS)]
    await put(found)
    return found


CHOSEN = (
    ("", "01234"), ("difference=candidate_worse", "13"), ("difference=candidate_better", "0"),
    ("difference=candidate_worse&metric=rouge_l", ""), ("label=horn", "23"),
    ("label=bell&answered=horn", "1"), ("label=bell&answered=horn&role=champion", "0"),
    ("unlabelled=true", "3"), ("answered=a%26b", "4"), ("limit=2&after=2", "23"),
    ("difference=&label=", "01234"),
)  # fmt: skip


async def test_rows_are_chosen_by_what_eval_wrote_of_them(rows: list[Generation], look: Any):
    for query, shown in CHOSEN:
        page = (await look(f"{PAGE}/rows?{query}")).text
        assert re.findall(r'<article class="row" id="ex-(\d)"', page) == [*shown], query
        if "=&" not in query:  # an empty field of a form
            found = (await look(f"{API}/rows?{query}")).json()
            assert [Generation.model_validate(one) for one in found["items"]] == [rows[int(n)] for n in shown]


async def test_labels_are_counted_by_contestant_and_each_cell_leads_to_its_rows(rows: Any, look: Any):
    found = (await look(f"{API}/labels")).json()["answers"]
    cells = {(one["expected"], one["answered"]): one["rows"] for one in found["candidate"]}
    assert cells == {
        ("a&b", "a&b"): 1, ("bell", "bell"): 1, ("bell", "horn"): 1, ("horn", "horn"): 1, ("horn", None): 1,
    }  # fmt: skip
    page = (await look(PAGE)).text
    links = re.findall(r'<td class="n[^>]*><a href="([^"]+)">(\d+)</a>', page)
    assert len(links) == len(cells)
    for link, number in links:
        rows = (await look(urljoin(PAGE, html.unescape(link)))).text
        assert rows.count("<article") == int(number)
    other = (await look(f"{PAGE}?role=champion")).text
    assert "answered by the champion" in other


async def test_of_many_labels_the_errors_are_listed(put: Any, look: Any):
    wrong = {3: 7, 5: 8}
    await put([line(n, f"l{n}", champion="l0", candidate=f"l{wrong.get(n, n)}") for n in range(20)])
    page = (await look(PAGE)).text
    assert re.findall(r"<tr><td>(l\d+)</td><td>(l\d+)</td>", page) == [("l3", "l7"), ("l5", "l8")]


async def test_an_answer_shows_what_differs_and_which_checks_it_fails(rows: Any, look: Any):
    page = (await look(f"{PAGE}/rows?difference=candidate_worse")).text
    assert "<mark>horn</mark>" in page
    assert "<mark>bell</mark>" not in page
    assert page.count('class="badge missed">label accuracy') == 2
    assert "<b>What" not in page, "a customer's text is text"


async def test_the_links_of_both_pages_lead_somewhere(rows: Any, look: Any):
    for path in (PAGE, f"{PAGE}/rows?limit=2"):
        page = (await look(path)).text
        for link in re.findall(r'href="([^"]+)"', page):
            if not link.endswith("/scorecard") and "/keys" not in link:  # no eval ran, no keys are set
                assert (await look(urljoin(path, html.unescape(link)))).status_code == 200, link


async def test_rows_are_withheld_with_the_figures(web: Any, look: Any):
    for part in ("rows", "labels"):
        answer = await look(f"{API}/{part}")
        assert (answer.status_code, answer.json()["error"]["param"]) == (409, "evaluation_id")
    page = await look(f"{PAGE}/rows")
    assert page.status_code == 200
    assert "withheld" in page.text


async def test_after_an_erasure_the_rest_is_read_under_its_new_name(rows: Any, look: Any, store: Any):
    await store.delete(["scorecards/sc.generations-1.jsonl"])
    await store.put("scorecards/sc.generations-2.jsonl", f"{rows[2].model_dump_json()}\n".encode())
    found = (await look(f"{API}/rows")).json()
    assert [one["example_id"] for one in found["items"]] == ["ex-2"]


async def test_rows_of_an_earlier_release_are_shown_and_not_compared(put: Any, look: Any):
    old = line(0, "bell", champion="bell", candidate="horn")
    plain = {role: one.model_copy(update={"scores": {}, "label": None}) for role, one in old.answers.items()}
    await put([old.model_copy(update={"answers": plain})])
    assert (await look(f"{API}/rows")).json()["total"] == 1
    assert (await look(f"{API}/labels")).json()["answers"] == {}
    answer = await look(f"{API}/rows?difference=candidate_worse")
    assert (answer.status_code, answer.json()["error"]["param"]) == (409, "difference")
    assert (await look(PAGE)).status_code == 200


async def test_a_metric_that_was_not_measured_is_named(rows: Any, look: Any):
    answer = await look(f"{API}/rows?difference=candidate_worse&metric=nonsense")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "metric")


async def test_risk_is_drawn_against_the_share_that_is_answered(put: Any, look: Any):
    points = [
        {"least": least, "coverage": coverage, "wrong": wrong, "bound": wrong + 0.03}
        for least, coverage, wrong in ((0.9, 0.4, 0.01), (0.6, 0.8, 0.04), (0.2, 1.0, 0.15))
    ]
    abstention = {
        "risk": 0.05, "unknown": 0.1, "rows": 400, "alpha": 0.1, "chosen": points[1], "shown": False,
        "curve": points,
    }  # fmt: skip
    first = example("scorecard")["contestants"][0]
    await put([], contestants=[first | {"role": "candidate", "abstention": abstention}])
    page = html.unescape((await look(PAGE)).text)
    assert 'data-x="share answered"' in page
    assert '"points": [[0.4, 0.01], [0.8, 0.04], [1.0, 0.15]]' in page
    assert "Of 400 held-out rows 80 % are answered" in page
    assert "do not show that at most 5 % are" in page
    await put([])
    assert "Answers that are not sent" not in (await look(PAGE)).text
