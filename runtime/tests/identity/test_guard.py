from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.files import mark_of
from tunewheel_runtime.identity.access import LOOK_SECONDS, Access, Credential, NoIdentity
from tunewheel_runtime.identity.guard import (
    Need,
    UnguardedRoute,
    caller_of,
    guard,
    guard_descriptions,
    needs,
    needs_of,
)
from tunewheel_runtime.identity.keys import read_keys
from tunewheel_runtime.identity.roles import Limits, NotAuthenticated, Role
from tunewheel_runtime.lifecycle import Lifecycle
from tunewheel_runtime.logs import configure_logs
from tunewheel_runtime.process import run
from tunewheel_runtime.service import Service
from tunewheel_runtime.settings import HttpSettings, ServiceSettings
from tunewheel_testing.clock import Clock


def sha(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


SUM = sha("k")
SECRET = "k" * 43


def write(path: Path, keys: object, groups: object = None) -> Path:
    path.write_text(yaml.safe_dump({"keys": keys, "groups": groups or {}}))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    keys = {
        "ops": {"sha256": sha("k-ops"), "roles": ["operator"]},
        "desk": {"sha256": [sha("k-old"), sha("k-new")], "roles": ["publisher"], "projects": ["desk"]},
        "app": {"sha256": sha("k-app"), "projects": ["desk"]},
        "lead": {"sha256": sha("k-lead"), "groups": ["leads"]},
    }
    return write(tmp_path / "keys.yaml", keys, {"leads": {"roles": ["reviewer"], "projects": ["desk"]}})


class Warned(dict[str, str | None]):
    def __call__(self, name: str, text: str | None) -> None:
        self[name] = text


def access(
    file: Path | None, warn: Warned | None = None, clock: Clock | None = None, **more: object
) -> Access:
    settings = HttpSettings.model_validate({"identity": "required", "api_keys_file": file, **more})
    return Access(settings, warn=warn if warn is not None else Warned(), clock=clock or Clock())


async def may(known: Access, key: str, role: Role, project: str | None) -> bool:
    return (await known.identify(f"Bearer {key}")).may(role, project)


async def test_a_key_tells_who_calls_and_what_they_may_do(file: Path) -> None:
    known = access(file)
    assert (
        (await known.identify("bearer k-new")).name == (await known.identify("Bearer k-old")).name == "desk"
    )
    assert await may(known, "k-new", Role.PUBLISHER, "desk")
    assert await may(known, "k-new", Role.PUBLISHER, None), "somewhere"
    assert not await may(known, "k-new", Role.PUBLISHER, "other")
    assert not await may(known, "k-new", Role.VIEWER, "desk"), "who sends need not read"
    assert await may(known, "k-ops", Role.VIEWER, "any"), "who operates reads"
    assert not await may(known, "k-ops", Role.REVIEWER, "any"), "and is no reviewer"
    assert await may(known, "k-app", Role.APPLICATION, "desk"), "which a key is unless told"
    assert await may(known, "k-lead", Role.REVIEWER, "desk"), "by its group"
    assert not await may(known, "k-lead", Role.APPLICATION, "desk"), "nothing beside its group"
    lead = await known.identify("Bearer k-lead")
    assert lead.projects_of(Role.REVIEWER) == {"desk"}
    assert lead.projects_of(Role.OPERATOR) == set()
    assert (await known.identify("Bearer k-ops")).projects_of(Role.OPERATOR) is None


async def test_a_credential_is_valid_until_its_key_is_changed_or_removed(file: Path) -> None:
    clock = Clock()
    known = access(file, clock=clock)
    ops, old = await known.credential("Bearer k-ops"), await known.credential("Bearer k-old")
    assert sha("k-ops") not in ops.model_dump_json()
    assert (await known.caller_with(ops)).may(Role.OPERATOR, "desk")
    write(file, {"ops": {"sha256": sha("k-ops")}, "desk": {"sha256": sha("k-new")}})
    os.utime(file, (1, 1))
    clock.now += LOOK_SECONDS
    assert not (await known.caller_with(ops)).may(Role.OPERATOR, "desk"), "it has another role now"
    with pytest.raises(NotAuthenticated, match="changed or removed"):
        await known.caller_with(old)
    with pytest.raises(NotAuthenticated):
        await known.credential("Bearer k-old")
    with pytest.raises(NotAuthenticated, match="has expired"):
        await known.caller_with(Credential(principal=ops.principal, expires_at=1.0))


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic k-ops", "Bearer nope", "Bearer \udcff", "k-ops"]
)
async def test_anything_else_is_nobody(file: Path, header: str | None) -> None:
    with pytest.raises(NotAuthenticated):
        await access(file).identify(header)


async def test_where_identity_is_open_everybody_may_do_everything() -> None:
    known = access(None, identity="open")
    for header in (None, "Bearer whatever"):
        caller = await known.identify(header)
        assert caller.principal is None
        assert all(caller.may(role, "desk") for role in Role)


async def test_a_changed_file_counts_at_the_next_look(file: Path) -> None:
    clock, warned = Clock(), Warned()
    known = access(file, warned, clock)
    write(file, {"new": {"sha256": sha("k-2"), "roles": ["viewer"]}})
    os.utime(file, (1, 1))
    assert (await known.identify("Bearer k-ops")).name == "ops", "it was looked at a moment ago"
    clock.now += LOOK_SECONDS
    with pytest.raises(NotAuthenticated):
        await known.identify("Bearer k-ops")
    assert (await known.identify("Bearer k-2")).name == "new"
    assert warned == {"api_keys": None}


@pytest.mark.parametrize("spoilt", ["keys: [", None])
async def test_a_spoilt_file_is_told_and_the_keys_before_hold(file: Path, spoilt: str | None) -> None:
    clock, warned, good = Clock(), Warned(), file.read_text()
    known = access(file, warned, clock)
    file.write_text(spoilt) if spoilt else file.unlink()
    clock.now += LOOK_SECONDS
    assert (await known.identify("Bearer k-ops")).name == "ops"
    assert "the keys read before stay in force" in (warned["api_keys"] or "")
    file.write_text(good)
    clock.now += LOOK_SECONDS
    assert (await known.identify("Bearer k-ops")).name == "ops"
    assert warned["api_keys"] is None


async def test_a_file_that_could_not_be_opened_is_read_once_it_can(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a key that was revoked while the process had no descriptor left would count for ever."""
    clock, told = Clock(), list[str | None]()
    settings = HttpSettings.model_validate({"identity": "required", "api_keys_file": file})
    known = Access(settings, warn=lambda _, text: told.append(text), clock=clock)
    write(file, {"new": {"sha256": sha("k-2"), "roles": ["viewer"]}})

    def full(*_: object, **__: object) -> str:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", full)
        for _ in range(2):
            clock.now += LOOK_SECONDS
            assert (await known.identify("Bearer k-ops")).name == "ops"
    assert len(told) == 1, "the same trouble is told once"
    clock.now += LOOK_SECONDS
    with pytest.raises(NotAuthenticated):
        await known.identify("Bearer k-ops")
    assert told[1:] == [None]


def test_a_change_of_a_files_permissions_counts_as_a_change(file: Path) -> None:
    assert file.stat().st_ctime_ns in mark_of(file), "a service that could not read it tries again"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("keys: {app: {sha256: plain}}", "keys.app.sha256"),
        ("keys: {app: {sha: x}}", "keys.app"),
        (f"keys: {{app: {{sha256: {SUM}, roles: [king]}}}}", "keys.app.roles"),
        (f"keys: {{app: {{sha256: {SUM}, roles: []}}}}", "keys.app.roles"),
        (
            f"keys: {{app: {{sha256: {SUM}, groups: [none]}}}}",
            "keys.app.groups: the file has no group 'none'",
        ),
        (f"keys: {{a: {{sha256: {SUM}}}, b: {{sha256: {SUM}}}}}", "keys.b.sha256: is also the key of 'a'"),
        (
            f"keys: {{app: {{sha256: {SUM}, limits: {{requests_per_minute: 0}}}}}}",
            "keys.app.limits.requests",
        ),
        (f"keys: {{app: {{sha256: {SUM}, limits: {{per_minute: 1}}}}}}", "keys.app.limits.per_minute"),
        ("[]", "(body)"),
        ("a: [", "cannot be read"),
        ('{"keys": {', "cannot be read"),
        (f'{{"keys": {{"a": {{"sha256": "{SUM}"}}, "a": {{"sha256": "{SUM}"}}}}}}', "a occurs twice"),
        (f"keys: {{a: {{sha256: {SUM}}}, a: {{sha256: {SUM}}}}}", "keys.a is given in line 1 and again"),
        (f"keys: {{app: {{sha256: '{SECRET}", "cannot be read"),
        (f"keys: {{app: {{sha256: {SECRET}}}}}", "keys.app.sha256"),
    ],
)
def test_a_wrong_file_is_refused_by_field(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(content)
    with pytest.raises(NoIdentity, match="TUNEWHEEL_API_KEYS_FILE") as refused:
        access(file).require_identity("desk", host="127.0.0.1")
    assert said in str(refused.value)
    assert SECRET not in str(refused.value), "a key may stand in it by mistake"


def test_the_keys_that_the_readme_makes_are_taken_in_the_file_that_it_shows(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    (program,) = re.findall(r"python3 -c '(import .*secrets.*)'", readme)
    sample = readme.split("```yaml\n")[1].split("```")[0]
    made: list[str] = []
    while "<hash of its key>" in sample:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
        key, digest = done.stdout.split()
        assert len(key) >= 32
        made.append(key)
        sample = sample.replace("<hash of its key>", digest, 1)
    file = tmp_path / "keys.yaml"
    file.write_text(sample)
    found = [read_keys(file).find(key) for key in made]
    assert [one and one.name for one in found] == ["helpdesk-app", "upstream", "lead", "ops"]


def test_limits_stand_beside_the_key_and_are_of_nobody_else(tmp_path: Path) -> None:
    file = write(tmp_path / "keys.yaml", {"app": {"sha256": SUM, "limits": {"tokens_per_day": 5}}})
    ring = read_keys(file)
    app = Principal(name="app")
    assert ring.caller(app).limits == Limits(tokens_per_day=5)
    namesake = app.model_copy(update={"issuer": "https://login.example.org"})
    assert ring.caller(namesake).limits is None


async def test_an_events_principal_may_what_the_file_says_now(file: Path) -> None:
    known = access(file)
    await known.require(Principal(name="lead"), Role.REVIEWER, "desk", field="submitted_by")
    refused = [
        (Principal(name="lead"), "other", "lacks the role reviewer in project 'other'"),
        (Principal(name="ops"), "desk", "lacks the role reviewer"),
        (Principal(name="gone", groups=("leads",)), "desk", "gone lacks the role"),
        (None, "desk", "is missing"),
    ]
    for principal, project, said in refused:
        with pytest.raises(InvalidEvent, match=said) as error:
            await known.require(principal, Role.REVIEWER, project, field="submitted_by")
        assert error.value.field == "submitted_by"
    await access(None, identity="open").require(None, Role.REVIEWER, "desk", field="submitted_by")


async def test_groups_in_an_event_count_by_the_issuer_set_here_alone(file: Path) -> None:
    """Nobody has checked what an event says, and another issuer's groups may have the same names."""
    lead = Principal(name="ada", issuer="https://login.example.org", groups=("leads",))
    trusted = {"oidc_issuer": lead.issuer, "oidc_audience": "tunewheel"}
    await access(file, **trusted).require(lead, Role.REVIEWER, "desk", field="principal")
    other = lead.model_copy(update={"issuer": "https://login.example.net"})
    for known, principal in ((access(file), lead), (access(file, **trusted), other)):
        with pytest.raises(InvalidEvent, match="TUNEWHEEL_OIDC_ISSUER") as error:
            await known.require(principal, Role.REVIEWER, "desk", field="principal")
        assert error.value.field == "principal.issuer"
        session = Credential(principal=principal)
        assert not (await known.caller_with(session)).may(Role.VIEWER), "nor in a session of before"


async def test_a_caller_is_in_the_groups_of_its_key_or_of_its_token_and_in_no_other(file: Path) -> None:
    issuer = "https://login.example.org"
    known = access(file, oidc_issuer=issuer, oidc_audience="tunewheel")
    assert (await known.identify("Bearer k-lead")).groups == {"leads"}
    assert (await known.identify("Bearer k-app")).groups == frozenset()

    async def groups(**fields: object) -> frozenset[str]:
        principal = Principal.model_validate({"issuer": issuer} | fields)
        return (await known.caller_with(Credential(principal=principal))).groups

    assert await groups(name="ada", groups=("leads", "unknown")) == {"leads"}
    assert await groups(name="lead") == frozenset(), "a token's subject may be spelt as a key's name"


@needs(Role.OPERATOR)
async def act(request: Request) -> Response:
    return JSONResponse({"caller": caller_of(request).name})


@needs(Role.PUBLISHER)
async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text(caller_of(socket).name or "")
    await socket.close()


@needs(Role.OPERATOR, Role.PUBLISHER)
async def act_for(request: Request) -> Response:
    caller_of(request).require(Role.PUBLISHER, (await request.json())["of"])
    return Response()


def client(known: Access) -> TestClient:
    routes = [
        Route("/act-for", act_for, methods=["POST"]),
        Route("/projects/{project}", act, methods=["POST"]),
        Route("/act", act, methods=["POST"]),
        WebSocketRoute("/talk", talk),
        Mount("/below", routes=[Route("/act", act)]),
        Mount("/whole", needs(Role.OPERATOR)(Starlette(routes=[Route("/act", lambda _: Response())]))),
    ]
    guard(routes, known)
    return TestClient(Starlette(routes=routes))


def test_a_route_is_reached_with_its_role_in_its_project(file: Path) -> None:
    http = client(access(file))

    def status(path: str, key: str | None, method: str = "POST") -> int:
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return http.request(method, path, headers=headers).status_code

    reached = [("/projects/desk", "POST"), ("/act", "POST"), ("/below/act", "GET"), ("/whole/act", "GET")]
    for path, method in reached:
        got = [status(path, key, method) for key in (None, "k-nobody", "k-app", "k-new", "k-ops")]
        assert got == [401, 401, 403, 403, 200], path
    assert http.post("/act?project=x", headers={"authorization": "Bearer k-ops"}).json() == {"caller": "ops"}
    refused = http.post("/act")
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["error"]["code"] == "invalid_api_key"


def test_a_parameter_names_the_project(file: Path) -> None:
    written = json.loads(json.dumps(yaml.safe_load(file.read_text())))
    written["keys"]["ops"]["projects"] = ["desk"]
    file.write_text(yaml.safe_dump(written))
    http = client(access(file))
    own = {"authorization": "Bearer k-ops"}
    paths = ("/projects/desk", "/projects/other", "/act?project=desk", "/act?project=other", "/act")
    assert [http.post(path, headers=own).status_code for path in paths] == [200, 403, 200, 403, 200]


def test_one_of_several_roles_opens_a_route_and_a_body_may_name_the_project(file: Path) -> None:
    http = client(access(file))

    def answer(key: str, project: str) -> tuple[int, str]:
        headers = {"authorization": f"Bearer {key}"}
        got = http.post("/act-for", json={"of": project}, headers=headers)
        return got.status_code, got.text

    assert answer("k-new", "desk") == (200, "")
    for key, project, said in [
        ("k-new", "other", "role publisher in project 'other'"),
        ("k-ops", "desk", "role publisher in project 'desk'"),
        ("k-app", "desk", "role operator in any project"),
    ]:
        status, text = answer(key, project)
        assert (status, said in text) == (403, True), text


async def test_a_mounted_app_finds_itself_as_the_endpoint(file: Path) -> None:
    found: list[object] = []

    @needs(Role.OPERATOR)
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(scope["endpoint"])
        await Response()(scope, receive, send)

    routes = [Mount("/page", page)]
    guard(routes, access(file))
    (told,) = needs_of(routes)
    assert told[2] == Need((Role.OPERATOR,))
    http = TestClient(Starlette(routes=routes))
    assert http.get("/page/x", headers={"authorization": "Bearer k-ops"}).status_code == 200
    assert found == [page]


def test_a_websocket_is_guarded_too(file: Path) -> None:
    http = client(access(file))
    with http.websocket_connect("/talk", headers={"authorization": "Bearer k-new"}) as socket:
        assert socket.receive_text() == "desk"
    with pytest.raises(WebSocketDisconnect), http.websocket_connect("/talk"):
        pass


def service(**settings: object) -> Service:
    return Service("desk", ServiceSettings.model_validate({"store_url": "memory://", **settings}))


def test_an_app_with_a_route_without_a_role_is_not_served() -> None:
    async def open_to_all(_: Request) -> Response:
        return Response()

    for routes in ([Route("/x", open_to_all)], [Mount("/m", routes=[Route("/x", open_to_all)])]):
        with pytest.raises(UnguardedRoute, match="/x names no role"):
            service().doors.mount(Starlette(routes=routes))


def test_fastapis_own_routes_are_for_whoever_has_a_role_and_no_others_are_taken_for_them() -> None:
    async def open_to_all(_: Request) -> Response:
        return Response()

    api = FastAPI()
    guard_descriptions(api.routes)
    service().doors.mount(api)
    other = FastAPI()
    other.add_route("/forgotten", open_to_all, include_in_schema=False)
    guard_descriptions(other.routes)
    with pytest.raises(UnguardedRoute, match="/forgotten names no role"):
        service().doors.mount(other)


def test_a_service_that_knows_no_projects_asks_for_the_role_in_all(file: Path) -> None:
    @needs(Role.PUBLISHER, Role.OPERATOR, everywhere=True)
    async def act_on_all(_: Request) -> Response:
        return Response()

    routes = [Route("/all", act_on_all)]
    guard(routes, access(file))
    http = TestClient(Starlette(routes=routes))
    asked = (("k-new", ""), ("k-new", "?project=desk"), ("k-lead", ""), ("k-ops", ""))
    answers = [http.get(f"/all{query}", headers={"authorization": f"Bearer {key}"}) for key, query in asked]
    assert [answer.status_code for answer in answers] == [403, 403, 403, 200]
    assert "desk lacks the role publisher in all projects" in answers[0].json()["error"]["message"]


async def test_no_service_with_an_api_starts_where_nobody_asks_who_calls() -> None:
    for settings, said in [
        ({"identity": "required"}, "TUNEWHEEL_API_KEYS_FILE"),
        ({"identity": "open", "http_host": "0.0.0.0"}, "open to the network"),
    ]:
        desk = service(**settings)
        desk.doors.mount(Starlette())
        with pytest.raises(NoIdentity, match=said):
            await Lifecycle(desk).serve()
        assert desk.doors.http_port is None, "no socket was opened"


def test_a_service_that_lets_everybody_in_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    configure_logs(service="desk", level="INFO", json=True)
    access(None, identity="open").require_identity("desk", host="127.0.0.1")
    said = [json.loads(line) for line in "".join(capfd.readouterr()).splitlines()]
    assert [(line["event"], line["service"], line["level"]) for line in said] == [
        ("identity_open", "desk", "warning")
    ]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "TUNEWHEEL_API_KEYS_FILE"),
        ({"api_keys_file": "nowhere.yaml"}, "TUNEWHEEL_API_KEYS_FILE nowhere.yaml cannot be read"),
        ({"oidc_issuer": "https://login.example"}, "TUNEWHEEL_OIDC_AUDIENCE is missing"),
    ],
    ids=str,
)
def test_the_process_ends_with_code_2_and_the_reason(
    settings: dict[str, str], named: str, capfd: pytest.CaptureFixture[str]
) -> None:
    desk = service(identity="required", **settings)
    desk.doors.ask_who()
    with pytest.raises(SystemExit) as ended:
        run(desk)
    assert ended.value.code == 2
    said = [json.loads(line) for line in "".join(capfd.readouterr()).splitlines() if "cannot_start" in line]
    assert named in said[0]["reason"]
