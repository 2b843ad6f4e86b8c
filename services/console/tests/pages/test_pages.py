"""The pages: each link leads to a page, an address of nothing is 404, and no page shows what its reader may
not read."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from fastapi import FastAPI
from tunewheel_console.pages import addresses
from tunewheel_console.pages.addresses import ADDRESSES
from tunewheel_console.pages.drawing import MOST, graph_of
from tunewheel_contracts.formats.retrieval_spec import RetrievalSpec
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.guard import set_caller
from tunewheel_runtime.identity.roles import Caller, Grant, Role
from tunewheel_testing.datasets import put_dataset
from tunewheel_testing.indexes import put_index

ALL = frozenset(Role)
ROW = {
    "example_id": "ex-2", "label": "horn", "group": "g", "trust": "expert", "record_ids": ["rec-2"],
    "messages": [{"role": "user", "content": "Does it ring?"}, {"role": "assistant", "content": "no"}],
}  # fmt: skip


@pytest.fixture
async def index(state: Any, desk: Any, store: Any) -> Any:
    sops = {"sops/refunds.md": "# Refunds\n\nA refund takes <b>five</b> days.\n"}
    made = await put_index(store, "desk", sops, RetrievalSpec())
    state.apply(dataclasses.replace(desk.declared(), id="index-1", data=made))
    return made


async def test_a_sweep_tells_what_each_recipe_reached(look: Any):
    page = (await look("/projects/desk/sweeps/sweep-1")).text
    assert re.search(r"sweep-1-1 <span class=.badge.>best</span>", page)
    assert "3 of 6" in page
    assert "as in the spec" in page
    assert "&lt;b&gt;q" in page
    assert "0.875" in page
    lead = "+0.025 label accuracy over sweep-1-2 after 50% of the steps (95 % interval -0.070 to +0.120)"
    assert f"{lead}: these rows cannot tell which of both is better" in page
    assert "runs/sweep-1/cancel" in page
    assert (
        "runs/sweep-1/cancel"
        not in (await look("/projects/desk/sweeps/sweep-1", frozenset({Role.VIEWER}))).text
    )


async def test_every_link_of_every_page_leads_somewhere(look: Any, index: Any):
    seen, todo = dict[str, int](), ["/projects", "/dead-letters", "/services", "/audit"]
    while todo:
        path = todo.pop()
        if path in seen:
            continue
        answer = await look(path)
        seen[path] = answer.status_code
        if "html" in answer.headers["content-type"]:
            found = re.findall(r'(?:href|src)="([^"]+)"', answer.text)
            todo += [urljoin(path, html.unescape(link)).partition("#")[0] for link in found]
    missing = {path: status for path, status in seen.items() if status != 200}
    # no eval ran here, so its page is missing, and this Settings has no file of keys
    assert {path for path in missing if not path.endswith("/scorecard")} <= {"/keys"}
    shapes = {one.path: re.compile(re.sub(r"\{[^}]+\}", "[^/]+", one.path)) for one in ADDRESSES}
    paths = [path.partition("?")[0] for path in seen]
    unseen = [name for name, shape in shapes.items() if not any(map(shape.fullmatch, paths))]
    assert unseen == ["/projects/{project}/datasets/{dataset_id}/diff"]


@pytest.mark.parametrize(
    "path",
    ["/projects/nobody", "/projects/desk/runs/run-77777", "/projects/desk/models/x",
     "/projects/desk/nonsense", "/projects/desk/alarms/alarm-9", "/projects/desk/datasets/ds-9/rows",
     "/projects/desk/turns/turn-none"],
)  # fmt: skip
async def test_an_address_of_nothing_is_a_page_with_status_404(look: Any, path: str):
    answer = await look(path)
    assert answer.status_code == 404
    assert "<h1>Not found</h1>" in answer.text


async def test_texts_of_people_run_no_script_on_a_page(look: Any):
    page = (await look("/projects/desk/datasets/ds-1/rows")).text
    assert "&lt;b&gt;Does it ring?&lt;/b&gt;" in page
    assert "<b>Does it ring?" not in page
    policy = (await look("/projects/desk")).headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "default-src 'none'" in policy


@pytest.mark.parametrize("path", ["/projects/desk", "/projects/desk/runs/run-1", "/projects/desk/quarantine"])
async def test_a_page_of_a_project_that_one_may_not_read_says_so_and_shows_nothing(look: Any, path: str):
    answer = await look(path, frozenset({Role.VIEWER}), {"other"})
    assert answer.status_code == 403
    assert "lacks the role" in answer.text
    assert "ds-1" not in answer.text
    assert "desk" not in (await look("/projects", frozenset({Role.VIEWER}), {"other"})).text


@pytest.mark.parametrize(
    ("path", "word", "role"),
    [("/projects/desk/models/desk-1", "Roll back", Role.OPERATOR),
     ("/projects/desk/runs/run-1", "Judge again", Role.OPERATOR),
     ("/projects/desk/datasets", "Build a version", Role.OPERATOR),
     ("/projects/desk/quarantine", "Release", Role.REVIEWER)],
)  # fmt: skip
async def test_only_who_may_give_a_command_sees_its_form(look: Any, path: str, word: str, role: Role):
    assert f"<summary>{word}" in (await look(path, frozenset({Role.VIEWER, role}), {"desk"})).text
    assert "<form data-order" not in (await look(path, frozenset({Role.VIEWER}), {"desk"})).text


async def test_only_who_operates_all_projects_has_refused_messages_handled_again(look: Any):
    page = (await look("/dead-letters")).text
    assert {"<summary>Again<", "<summary>Again, all with this reason<"} <= {
        *re.findall(r"<summary>[^<]+<", page)
    }
    assert "2 messages were refused by ingest" in page
    for path, role, projects in (
        ("/dead-letters", Role.VIEWER, None),
        ("/dead-letters/ingest:ticket.published:0:7", Role.OPERATOR, {"desk"}),
    ):
        assert "<form data-order" not in (await look(path, frozenset({role}), projects)).text


async def test_a_refused_message_is_shown_indented_with_what_nobody_sees_escaped(look: Any):
    page = html.unescape((await look("/dead-letters/ingest:ticket.published:0:7")).text)
    assert '{\n  "body": "<script>\\u202e",\n  "n": 1\n}' in page
    assert "&lt;script&gt;" in (await look("/dead-letters/ingest:ticket.published:0:7")).text
    gone = (await look("/dead-letters/ingest:ticket.published:0:8")).text
    assert "Nothing of it is left" in gone  # an erasure has moved the letters since
    assert (await look("/dead-letters/ingest:ticket.published:0:9")).status_code == 404


async def test_an_erasure_is_asked_for_twice_and_its_subject_is_never_shown(look: Any, state: Any, desk: Any):
    asked = {"requested_by": "mia", "requested_at": "2026-01-02T00:00:00Z"}
    for name, subject in (("er-1", {"customer": "C-secret"}), ("C-secret", {"source_id": "C-secret"})):
        state.apply(desk.say("erasure.requested", erasure_id=name, **subject, **asked))
    proof = {
        "erasure_id": "er-1", "customer": "C-secret", "requested_by": "mia", "erased_by": "curate",
        "records": 3, "completed_at": "2026-01-02T00:01:00Z", "dataset_ids": ("ds-1",),
    }  # fmt: skip
    state.apply(desk.say("erasure.completed", **proof))
    page = (await look("/projects/desk/erasures")).text
    assert "C-secret" not in page
    assert re.search(r"<td>curate</td><td>records[^<]+</td><td class=\"n\">3</td>", page)
    assert page.count("waits for it") == 11
    assert "projects/desk/datasets/ds-1" in page
    assert {'data-repeats="customer"', 'data-repeats="source_id"'} <= {*re.findall(r"data-repeats=\S+", page)}
    assert (await look("/projects/desk/erasures", frozenset({Role.VIEWER, Role.REVIEWER}))).status_code == 403


async def test_a_project_is_declared_changed_and_removed_by_who_operates_it(look: Any, web: FastAPI):
    page = (await look("/projects/desk", frozenset({Role.OPERATOR}), {"desk"})).text
    assert 'data-declare="../v1/projects/desk"' in page
    (removed,) = re.findall(
        r'data-order="([^"]+)" data-body="{}" data-method="DELETE" data-then="([^"]+)"', page
    )
    assert [urljoin("/projects/desk", one) for one in removed] == ["/v1/projects/desk", "/projects"]
    assert 'data-typed="desk"' in page
    assert "data-declare" not in (await look("/projects", frozenset({Role.OPERATOR}), {"desk"})).text
    assert "data-declare" in (await look("/projects", frozenset({Role.OPERATOR}))).text
    assert "data-declare" not in (await look("/projects/desk", frozenset({Role.VIEWER}))).text


async def test_my_work_names_the_projects_that_wait_for_the_reviewer(look: Any):
    page = (await look("/my-work")).text
    assert "/projects/desk/labels" in page
    assert "for reviews" in page
    assert "Nothing waits for you" in (await look("/my-work", frozenset({Role.VIEWER}))).text


async def test_lineage_is_drawn_as_boxes_that_are_links_and_as_a_list(look: Any):
    page = (await look("/projects/desk/lineage/desk-1")).text
    svg, rest = page[page.index("<svg") :].split("</svg>")
    assert (svg.count("<rect"), svg.count("<path"), svg.count('class="asked"')) == (3, 1, 1)
    assert [rest.count(f">{name}</a>") for name in ("ds-1", "desk-1", "rec-1")] == [1, 1, 1]
    nodes = [{"id": f"rec-{n}", "kind": "record", "at": None, "facts": {}} for n in range(MOST + 2)]
    edges = [{"source": "rec-0", "target": "rec-1"}, {"source": "rec-0", "target": f"rec-{MOST}"}]
    picture = graph_of({"nodes": nodes, "edges": edges, "found": [f"rec-{MOST + 1}"]})
    assert (len(picture.boxes), picture.left_out, len(picture.lines)) == (MOST, 2, 1)
    assert picture.boxes[0].node["id"] == f"rec-{MOST + 1}", "what was asked for is always drawn"


async def test_the_forms_of_a_page_are_orders_that_the_api_takes(look: Any, web: FastAPI):
    routes = [
        (route.path_regex, route) for route in web.routes if "POST" in (getattr(route, "methods", None) or ())
    ]
    found = set[str]()
    for path in (
        "datasets", "runs/run-1", "models/desk-1", "quarantine", "completions", "completions/c1-0123"
    ):  # fmt: skip
        page = (await look(f"/projects/desk/{path}")).text
        for order, body in re.findall(r'data-order="([^"]+)" data-body="([^"]+)"', page):
            address = urljoin(f"/projects/desk/{path}", html.unescape(order))
            assert any(regex.fullmatch(address) for regex, _ in routes), address
            assert isinstance(json.loads(html.unescape(body)), dict)
            found.add(address)
    assert len(found) >= 8


async def test_a_run_page_has_its_curve_for_eyes_and_in_words(look: Any):
    page = (await look("/projects/desk/runs/run-1")).text
    curves = [json.loads(html.unescape(one)) for one in re.findall(r'data-curves="([^"]+)"', page)]
    assert curves[0] == [{"name": "training", "points": [[1, 2.0], [2, 1.0]]}]
    assert [one[0]["name"] for one in curves[1:]] == ["learning rate", "tokens per second", "memory in GB"]
    assert "training from 2 to 1" in page


async def test_a_prompt_is_answered_in_a_form_with_a_field_for_each_property(look: Any):
    page = (await look("/projects/desk/labels/alarm-1")).text
    assert "My roof panel 0 hums." in page
    (order,) = re.findall(r'data-answer="([^"]+)"', page)
    assert (
        urljoin("/projects/desk/labels/alarm-1", order) == "/v1/projects/desk/labels/alarm-1/items/1/answer"
    )
    assert re.search(r'data-kind="(text|json)"', page)
    assert "My roof panel 1 hums." in (await look("/projects/desk/labels/alarm-1?item=2")).text
    assert "Question 1 is open yet" in (await look("/projects/desk/labels/alarm-1?item=end")).text


@pytest.mark.parametrize(
    ("query", "checked", "text"), [("", [], ""), ("&correct=yes", ["battery"], "It is charged.")]
)
async def test_the_models_answer_fills_the_form_of_who_corrects_it(
    look: Any, state: Any, desk: Any, store: Any, query: str, checked: list[str], text: str
):
    properties = {"category": {"enum": ["battery", "solar"]}, "reply": {"type": "string"}}
    state.apply(desk.declared(output_schema={"type": "object", "properties": properties}))
    kept = json.loads(await store.read("prompts.json"))
    kept["items"][0]["output"] = '{"category": "battery", "reply": "It is charged."}'
    await store.replace("prompts.json", json.dumps(kept).encode())
    page = (await look(f"/projects/desk/labels/alarm-1?item=1{query}")).text
    assert re.findall(r'value="&#34;(\w+)&#34;" checked', page) == checked
    assert re.findall(r'data-kind="text"[^>]*>([^<]*)</textarea>', page) == [text]
    assert 'name="accept"' in page
    assert "<dd>It is charged.</dd>" in page


async def test_a_question_whose_answers_are_compared_shows_no_answer_of_the_model(
    look: Any, state: Any, desk: Any, store: Any
):
    for is_compared in (False, True):
        page = (await look("/projects/desk/labels/alarm-1?item=1")).text
        assert ("battery" in page, "without knowing whose" in page) == (not is_compared, is_compared)
        state.apply(await desk.stored_pairs(store))


async def test_similar_questions_stand_beside_a_prompt_but_not_when_only_counts_are_drawn(
    look: Any, state: Any, desk: Any
):
    said = {"attributes": {"label_request": "alarm-1"}, "validated_by": "bob"}
    named = {"example_id": "cmpl-1", "input": "q", "output": "a loose screw"}
    state.apply(desk.say("example.published", **named, **said))
    for query, is_shown in (("?item=1", True), ("?item=1&part=live", False)):
        page = await look(f"/projects/desk/labels/alarm-1{query}")
        assert ("a loose screw" in page.text) is is_shown, query
        assert "My roof panel 0 hums." in page.text


@pytest.mark.parametrize("projects", [None, {"desk"}])
async def test_only_operators_are_told_which_setting_a_part_of_a_page_lacks(
    look: Any, state: Any, projects: Any
):
    state.projects["desk"].index = object()
    page = "/projects/desk/labels/alarm-1?item=1"
    told = (await look(page, ALL - {Role.OPERATOR}, projects)).text
    assert "the operator of this wheel has not set it up" in told
    assert "TUNEWHEEL_" not in told
    assert "TUNEWHEEL_GATEWAY_URL" in (await look(page, ALL, projects)).text


async def test_what_documents_say_about_a_question_stands_beside_it(
    look: Any, state: Any, desk: Any, store: Any, monkeypatch: pytest.MonkeyPatch
):
    kept, asked, ask = json.loads(await store.read("prompts.json")), list[Any](), addresses.ask
    kept["items"][0]["messages"] = [{"role": "user", "content": "50% off & a=b? #1"}]
    await store.replace("prompts.json", json.dumps(kept).encode())

    async def searched(api: Any, request: Any, path: str, query: Any) -> Any:
        if not path.endswith("/desk/passages"):
            return await ask(api, request, path, query)
        asked.append(query)
        told = {"document_id": "sop-1", "title": "Discounts", "heading": ""}
        return {"passages": [told | {"text": f"passage {fit}", "passes": fit} for fit in (True, False)]}

    monkeypatch.setattr(addresses, "ask", searched)
    assert "passage True" not in (await look("/projects/desk/labels/alarm-1?item=1")).text, "no documents"
    state.projects["desk"].index = object()
    page = (await look("/projects/desk/labels/alarm-1?item=1")).text
    assert asked == [{"question": "50% off & a=b? #1"}]
    assert ("passage True" in page, "passage False" in page) == (True, False), "as far as the model gets them"
    await look("/projects/desk/labels/alarm-1?item=1&part=live")
    assert len(asked) == 1


async def test_a_review_shows_two_answers_and_not_whose_they_are(look: Any):
    page = (await look("/projects/desk/reviews/rev-1")).text
    shown = re.findall(r"<pre[^>]*><mark>(new|old)</mark> \d</pre>", page)
    assert {"new", "old"} == set(shown)
    assert "desk-1" not in page
    assert "desk-0" not in page
    assert re.findall(r'name="choice" value="(\w+)"', page) == ["left", "same", "right"]
    assert "is not answered yet" in (await look("/projects/desk/reviews/rev-1?item=end")).text


async def test_a_version_that_waits_for_a_word_on_its_scorecard_is_approved_on_its_projects_page(
    look: Any, web: FastAPI, state: Any
):
    assert "Versions that wait for a person" in (await look("/projects/desk")).text
    caller = Caller(Principal(name="ann"), (Grant(ALL, None),))

    async def called(scope: Any, receive: Any, send: Any) -> None:
        set_caller(scope, caller)
        await web(scope, receive, send)

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(called), base_url="http://console/v1"
    ) as client:
        place, word = "/projects/desk/reviews/run-3/submit", {"verdict": "approved", "comment": "fine"}
        given = await client.post(place, json=word)
        assert (given.status_code, given.json().get("verdict")) == (201, "approved")
        (sent,) = [event for event in web.state.log.events if event.data.type == "review.submitted"]
        state.apply(sent)
        assert (sent.data.run_id, sent.data.reviewer, sent.data.comment) == ("run-3", "ann", "fine")
        again = await client.post(place, json=word)
        assert again.status_code == 404, "it waits no more"
        assert (await client.post("/projects/desk/reviews/run-1/submit", json=word)).status_code == 404


async def test_an_alarm_that_curate_decided_about_says_what_follows(look: Any, state: Any, desk: Any):
    answer = {"alarm_id": "alarm-1", "detector": "input", "follows": "collect_labels", "labels": 3}
    waits = answer | {"labels_needed": 10, "waits_for": "annotators"}
    for told, text in (
        (waits, "collect labels, waits for: annotators (3 of 10 labels)"),
        (answer, "collect labels"),
    ):
        state.apply(desk.say("turn.decided", step="waits for labels", alarms=(told,)))
        for path in ("", "/alarms", "/alarms/alarm-1"):
            page = await look(f"/projects/desk{path}")
            assert page.status_code == 200
            assert text in page.text
    assert "waits for: " not in page.text


@pytest.mark.parametrize("asked", ["{x}", "{project.x}", "1?a", "1%3Fa=b=c", "..", "1/answer", "%25", "0x1"])
async def test_an_item_that_is_no_number_is_refused_on_the_page(look: Any, asked: str):
    for queue in ("labels/alarm-1", "reviews/rev-1"):
        page = await look(f"/projects/desk/{queue}?item={asked}")
        assert page.status_code == 200
        assert "No item:" in page.text


@pytest.mark.parametrize(
    ("path", "root"),
    [("/projects/a%3Fb", "../"), ("/projects/desk/runs/a%2Fb", "../../../"),
     ("/projects/a%23/runs/b%3Fc=d=e", "../../../"), ("/projects/desk/models/%7Bx%7D", "../../../")],
)  # fmt: skip
async def test_the_page_for_an_odd_address_links_to_where_the_console_is(look: Any, path: str, root: str):
    page = await look(path)
    assert page.status_code == 404
    assert f'<a class="brand" href="{root}projects">' in page.text


async def test_lineage_is_asked_with_the_callers_key_and_a_name_with_a_slash(look: Any, registry: Any):
    page = await look("/projects/desk/lineage/mail%2F7", headers={"authorization": "Bearer key-of-ann"})
    assert page.status_code == 200
    (asked,) = registry.asked
    assert asked.headers["authorization"] == "Bearer key-of-ann"
    assert asked.url.raw_path.startswith(b"/v1/projects/desk/lineage/mail%2F7?")
    page = await look("/projects/desk/lineage/mail", headers={"cookie": "session=x"})
    assert (page.status_code, "does not know this session" in page.text) == (401, True)


@pytest.mark.parametrize(("status", "shown"), [(200, 502), (502, 502), (404, 502), (503, 503)])
async def test_a_proxys_page_instead_of_the_registrys_answer_is_told(
    look: Any, registry: Any, status: int, shown: int
):
    registry.says = httpx.Response(status, html="<h1>Bad gateway</h1>")
    page = await look("/projects/desk/lineage/desk-1")
    assert page.status_code == shown
    assert "speaks no JSON" in page.text


@pytest.mark.parametrize(("path", "status"), [("/projects/desk", 200), ("/", 307), ("/projects/none/x", 404)])
async def test_a_page_answers_head_as_it_answers_get(look: Any, path: str, status: int):
    assert [(await look(path, method=method)).status_code for method in ("GET", "HEAD")] == [status, status]


async def test_a_browser_asks_for_the_script_again_so_that_it_is_the_pages(look: Any):
    answer = await look("/static/pages.js")
    assert answer.headers["cache-control"] == "no-cache"
    known = {"if-none-match": answer.headers["etag"]}
    again = await look("/static/pages.js", headers=known)
    assert (again.status_code, again.headers["cache-control"]) == (304, "no-cache")


async def test_a_turn_does_not_say_that_nobody_was_asked_to_who_may_not_read_labels(
    look: Any, state: Any, desk: Any
):
    fields = {"records_upto": {"0": 2}, "alarm_ids": ("alarm-1",)}
    asked = desk.say("dataset.requested", reason="drift", request="r9", **fields)
    state.apply(asked)
    (turn,) = [one.turn_id for one in state.projects["desk"].wheel.turns if one.alarms]
    path = f"/projects/desk/turns/{turn}"
    page = (await look(path, frozenset({Role.VIEWER}), {"desk"})).text
    assert "Nobody was asked" not in page
    assert "of 2 wanted answers" not in page
    assert "of 2 wanted answers" in (await look(path)).text


async def test_where_identity_is_open_people_say_who_they_are_before_they_approve(look: Any):
    assert "say who you are" in (await look("/projects/desk", name=None)).text
    page = (await look("/projects/desk?reviewer=bo%26b", name=None)).text
    assert "say who you are" not in page
    assert html.unescape(re.findall(r'data-order="([^"]+submit[^"]*)"', page)[0]).endswith("?reviewer=bo%26b")


async def test_no_two_commands_of_a_page_share_a_form(look: Any):
    for path in ("quarantine", "runs/run-1", "models/desk-1", "runs/run-2"):
        page = (await look(f"/projects/desk/{path}")).text
        ids = re.findall(r'<details class="order" id="([^" ]+)"', page)
        assert len(ids) == len(set(ids)) == page.count("<form data-order") > 0


async def test_a_search_stays_in_the_address_and_needs_no_script(look: Any):
    page = (await look("/projects/desk/completions?q=ring&format=invalid&latency=&limit=1")).text
    assert "c2-0123" in page
    assert "c1-0123" not in page
    assert "&lt;i&gt;Does it ring?&lt;/i&gt;" in page
    assert re.search(r'name="q" value="ring"', page)
    assert "<option selected>invalid</option>" in page
    (form,) = re.findall(r'<form method="get" class="search"[^>]*>', page)
    assert "action" not in form
    page = (await look("/projects/desk/completions?q=ring&limit=1")).text
    (older,) = re.findall(r'rel="next" href="([^"]+)"', page)
    page = (await look(f"/projects/desk/completions{html.unescape(older)}")).text
    assert ("c1-0123" in page, "c2-0123" in page) == (True, False)
    assert re.search(r'href="\?q=ring&amp;limit=1">newest', page)


async def test_texts_of_production_are_for_reviewers(look: Any):
    for path in ("completions", "completions/c1-0123"):
        answer = await look(f"/projects/desk/{path}", frozenset({Role.VIEWER, Role.OPERATOR}), {"desk"})
        assert (answer.status_code, "Does it ring" in answer.text) == (403, False)
    page = (await look("/projects/desk", frozenset({Role.VIEWER}), {"desk"})).text
    assert ("/runs" in page, "/completions" in page) == (True, False)


async def test_a_completion_says_where_it_stands(look: Any, state: Any):
    page = (await look("/projects/desk/completions/c1-0123")).text
    assert "whose answers" not in page
    assert "&lt;i&gt;Does it ring?&lt;/i&gt;" in page
    assert "desk-1</a>" not in page, "people compare answers of the project"
    state.projects["desk"].reviews.by_id.clear()
    page = (await look("/projects/desk/completions/c1-0123")).text
    assert "desk-1</a>" in page
    assert "answered in shadow too" in page


async def test_a_request_for_labels_says_who_asks(look: Any, state: Any, desk: Any):
    told = state.projects["desk"].labels.by_id["alarm-1"].data.model_dump()
    own = {"request_id": "labels-chosen-1", "alarm_id": "chosen-1", "asked_by": "zoe"}
    state.apply(desk.say("labels.requested", **told | own))
    for path in ("labels", "labels/labels-chosen-1"):
        page = (await look(f"/projects/desk/{path}")).text
        assert "zoe" in page
        assert "alarms/chosen-1" not in page
    assert "zoe" not in (await look("/projects/desk/labels/alarm-1")).text


async def test_runs_are_chosen_in_the_list_and_compared_over_it(look: Any):
    page = (await look("/projects/desk/runs")).text
    names = re.findall(r'<input type="checkbox" name="compare" value="([^"]+)"', page)
    assert {"run-1", "run-2"} <= set(names)
    for query in ("compare=run-1&compare=run-2", "compare=run-1,run-2"):
        page = (await look(f"/projects/desk/runs?{query}")).text
        (curves,) = re.findall(r'data-curves="([^"]+)"', page)
        assert [one["name"] for one in json.loads(html.unescape(curves))] == ["run-1"], "run-2 told no step"
        assert len(re.findall(r" checked>", page)) == 2
        assert "withheld" in page
    page = await look("/projects/desk/runs?compare=run-1")
    assert (page.status_code, "No comparison" in page.text) == (200, True)


async def test_rows_are_searched_and_versions_chosen_in_forms(look: Any, desk: Any, state: Any, store: Any):
    page = (await look("/projects/desk/datasets/ds-1/rows?split=train&text=RING&label=&source=")).text
    assert page.count('<article class="row"') == 3
    page = (await look("/projects/desk/datasets/ds-1/rows?split=train&text=nonsense")).text
    assert "There are no such rows." in page
    version = await put_dataset(store, desk.spec(), dataset_id="ds-2", train=[ROW], holdout=[ROW])
    told = desk.versioned().data.model_dump() | {"dataset_id": "ds-2", "manifest": version[1]}
    state.apply(desk.say("dataset.versioned", **told))
    page = (await look("/projects/desk/datasets/ds-1")).text
    (action,) = re.findall(r'<form method="get" class="filter" action="([^"]+)"', page)
    assert "<option>ds-2</option>" in page
    path = urljoin("/projects/desk/datasets/ds-1", html.unescape(action))
    page = await look(f"{path}?other=ds-2")
    assert (page.status_code, "<h1>From" in page.text) == (200, True)
    assert (await look(f"{path}?other=none-such")).status_code == 404


@pytest.mark.parametrize("length", [4_000, 4_001, 30_000])
async def test_a_list_of_rows_shows_the_beginning_of_a_long_text_and_the_row_the_whole(
    look: Any, desk: Any, state: Any, store: Any, length: int
):
    said = {"role": "user", "content": "é" * length}
    row = ROW | {"messages": [said, *ROW["messages"][1:]]}
    version = await put_dataset(store, desk.spec(), dataset_id="ds-2", train=[row], holdout=[ROW])
    told = desk.versioned().data.model_dump() | {"dataset_id": "ds-2", "manifest": version[1]}
    state.apply(desk.say("dataset.versioned", **told))
    page = (await look("/projects/desk/datasets/ds-2/rows")).text
    assert page.count("é") == 4_000
    assert ("more characters" in page) is (length > 4_000)
    assert (f"… ({length - 4_000:,} more characters)" in page) is (length > 4_000)
    (name,) = re.findall(r'<article class="row" id="([^"]+)"', page)
    assert (await look(f"/projects/desk/datasets/ds-2/rows/{name}")).text.count("é") == length


@pytest.mark.parametrize("path", ["turns", "datasets/ds-1", "datasets/ds-1/rows", "runs/run-1"])
async def test_a_page_says_of_which_noun_it_is(look: Any, path: str):
    page = (await look(f"/projects/desk/{path}")).text
    nouns = page.partition('class="project"')[2].partition("</nav>")[0]
    (noun,) = re.findall(r'aria-current="(?:page|true)">(\w+)</a>', nouns)
    assert noun == path.partition("/")[0]


@pytest.mark.parametrize("limit", ["1000", "3", "none"])
async def test_a_page_has_no_more_rows_than_a_browser_bears(look: Any, state: Any, desk: Any, limit: str):
    for number in range(60):
        desk.run_id = f"run-x{number}"
        state.apply(desk.started())
    page = await look(f"/projects/desk/runs?limit={limit}")
    rows = page.text.count('<td><input type="checkbox"')
    assert (page.status_code, rows) == {"1000": (200, 50), "3": (200, 3), "none": (422, 0)}[limit]
    assert len(re.findall(r"<\w", page.text)) <= 1500


PASSAGE = {
    "passage_id": "ps-1", "document_id": "sops/refunds.md", "record_id": "rec-1", "title": "Refunds",
    "heading": "When", "text": "A refund takes <b>five</b> days.", "tokens": 7, "score": 0.03,
    "words_rank": 1, "words_score": 1.5, "vector_rank": None, "similarity": 0.5, "fit": 0.9, "passes": True,
    "sent": True, "marks": [[2, 8]],
}  # fmt: skip
FOUND = {
    "project": "desk", "question": "refund?", "index_id": "ix-1", "top_k": 4, "floor": 0.4,
    "budget_tokens": 900, "tokens": 7, "by_words_alone": "away", "context": "Passages.", "milliseconds": 0.1,
    "passages": [PASSAGE, PASSAGE | {"passage_id": "ps-2", "passes": False, "sent": False, "fit": 0.1}],
}  # fmt: skip


@pytest.fixture
def asked_of_gateway(web: FastAPI) -> list[dict[str, Any]]:
    """Let a gateway answer, the base as the champion but for one word; return what it was asked."""
    asked = list[dict[str, Any]]()

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        if request.url.path == "/v1/search":
            return httpx.Response(200, json=FOUND)
        content = f"It takes {'five' if asked[-1]['model'] == 'desk/base' else 'six'} <i>days</i>."
        choice = {"message": {"content": content}, "finish_reason": "stop"}
        return httpx.Response(200, json={"model": asked[-1]["model"], "choices": [choice]})

    transport = httpx.MockTransport(answer)
    web.state.gateway.client = httpx.AsyncClient(transport=transport, base_url="http://gateway")
    return asked


KEY = {"authorization": "Bearer k-ann"}


async def test_a_search_of_documents_says_what_becomes_of_each_passage(
    look: Any, index: Any, asked_of_gateway: Any
):
    assert "takes" not in (await look("/projects/desk/documents", headers=KEY)).text
    assert not asked_of_gateway
    page = (await look("/projects/desk/documents?question=refund%3F", headers=KEY)).text
    assert asked_of_gateway == [{"project": "desk", "question": "refund?"}]
    assert "A <mark>refund</mark> takes &lt;b&gt;five&lt;/b&gt; days." in page
    assert [found in page for found in (">sent<", ">below the floor<", "by words alone")] == [True] * 3


async def test_a_document_shows_its_passages(look: Any, index: Any):
    page = await look("/projects/desk/documents/sops%2Frefunds.md")
    assert (page.status_code, "takes &lt;b&gt;five&lt;/b&gt; days." in page.text) == (200, True)
    assert (await look("/projects/desk/documents/none.md")).status_code == 404


async def test_the_playground_shows_answers_side_by_side_and_marks_what_differs(
    look: Any, state: Any, desk: Any, asked_of_gateway: Any
):
    state.apply(desk.desired())
    path, order = (
        "/projects/desk/playground",
        {"prompt": "How\nlong?", "max_tokens": "", "models": ["base", "champion"]},
    )
    page = await look(path, method="POST", headers=KEY, json=order)
    assert page.status_code == 200, page.text
    assert [one["messages"][0]["content"] for one in asked_of_gateway] == ["How\nlong?"] * 2
    assert "It takes five &lt;i&gt;days&lt;/i&gt;." in page.text
    assert "<mark>six</mark>" in page.text
    assert "How\nlong?</textarea>" in page.text
    refused = await look(path, method="POST", headers=KEY, json=order | {"max_tokens": "many"})
    assert (refused.status_code, "max_tokens" in refused.text) == (422, True)
    blank = await look(path, method="POST", headers=KEY, json={"prompt": ""})
    assert (blank.status_code, "prompt" in blank.text) == (422, True)
    viewer = await look(path, frozenset({Role.VIEWER}), {"desk"})
    assert ("<textarea" in viewer.text, "lack the role application" in viewer.text) == (False, True)
