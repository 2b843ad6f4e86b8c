from __future__ import annotations

import pytest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect
from tunewheel_runtime.admission import Admission
from tunewheel_runtime.identity.guard import needs
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.service import Service
from tunewheel_runtime.settings import HttpSettings, ServiceSettings

EVIL = "https://evil.example"
HERE = "http://localhost:8080"
JSON = {"content-type": "application/json"}


async def take(request: Request) -> Response:
    return JSONResponse({"taken": len(await request.body())})


async def talk(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_text("hello")
    await socket.close()


def client(base_url: str = HERE, **settings: object) -> TestClient:
    app = Starlette(
        routes=[
            Route("/take", take, methods=["GET", "POST", "DELETE"]),
            Route("/files/take", take, methods=["POST"]),
            WebSocketRoute("/talk", talk),
        ]
    )
    guarded = Admission(app, HttpSettings.model_validate(settings), any_content=["/files/"])
    return TestClient(guarded, base_url=base_url)


def refusal(answer: object) -> tuple[int, str]:
    assert hasattr(answer, "json")
    error = answer.json()["error"]
    assert error["param"] in error["message"]
    return answer.status_code, error["param"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_content_types_that_a_form_can_send_are_refused(kind: str) -> None:
    headers = {"content-type": kind} if kind else {}
    assert refusal(client().post("/take", content=b"{}", headers=headers)) == (415, "Content-Type")

    def parts() -> object:
        yield b"{}"

    assert refusal(client().post("/take", content=parts(), headers=headers))[0] == 415, "of unknown length"


@pytest.mark.parametrize(
    "kind",
    ["application/json", "application/JSON; charset=utf-8", "application/x-ndjson", "application/jsonl",
     "application/cloudevents+json"],
)  # fmt: skip
def test_json_is_let_in(kind: str) -> None:
    assert client().post("/take", content=b"{}", headers={"content-type": kind}).json() == {"taken": 2}


def test_no_body_and_the_paths_that_take_any_need_no_content_type() -> None:
    assert client().post("/take").status_code == 200
    assert client().post("/take", content=b"", headers={"content-type": "text/plain"}).status_code == 200
    assert client().delete("/take").status_code == 200
    assert client().post("/files/take", content=b"%PDF-", headers={"content-type": "text/plain"}).is_success


@pytest.mark.parametrize(
    "origin",
    [
        EVIL,
        "null",
        "http://localhost:9999",
        "http://localhost",
        "http://localhost.evil.example:8080",
        "x",
        "",
    ],
)
def test_another_sites_page_is_refused_whatever_it_sends(origin: str) -> None:
    headers = {"origin": origin, **JSON}
    assert refusal(client().post("/take", content=b"{}", headers=headers)) == (403, "Origin")
    assert refusal(client().post("/take", headers=headers)) == (403, "Origin"), "without a body too"
    assert refusal(client().post("/files/take", content=b"x", headers=headers)) == (403, "Origin")
    assert refusal(client().get("/take", headers=headers)) == (403, "Origin")
    with (
        pytest.raises(WebSocketDisconnect),
        client().websocket_connect("ws://localhost:8080/talk", headers={"origin": origin}),
    ):
        pass


@pytest.mark.parametrize(
    ("base_url", "origin"),
    [
        (HERE, HERE),
        (HERE, "HTTP://LOCALHOST:8080"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://localhost", "http://localhost:80"),
        ("http://localhost", "https://localhost"),
        (HERE, "https://apps.example"),
    ],
    ids=["same", "case", "IPv4", "IPv6", "default port", "TLS in front", "allowed"],
)
def test_a_page_of_ones_own_is_let_in(base_url: str, origin: str) -> None:
    ours = client(base_url, http_allowed_origins="https://other.example, https://apps.example")
    assert ours.post("/take", content=b"{}", headers={"origin": origin, **JSON}).status_code == 200
    socket = f"{base_url.replace('http', 'ws')}/talk"
    with ours.websocket_connect(socket, headers={"origin": origin}) as talking:
        assert talking.receive_text() == "hello"


def test_the_browser_of_an_allowed_page_is_told_what_it_may_send_and_read() -> None:
    ours = client(http_allowed_origins="https://apps.example, https://b.example")
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,x-a"}
    for origin in ("https://apps.example", "https://b.example"):
        told = ours.options("/take", headers={"origin": origin, **asks})
        assert told.status_code == 200
        assert told.headers["access-control-allow-origin"] == origin
        assert "POST" in told.headers["access-control-allow-methods"]
        assert told.headers["access-control-allow-headers"] == "authorization,x-a"
        answer = ours.post("/take", content=b"{}", headers={"origin": origin, **JSON})
        assert answer.headers["access-control-allow-origin"] == origin
        assert "Origin" in answer.headers["vary"]
        assert "access-control-allow-credentials" not in {*told.headers, *answer.headers}, "no cookie comes"
    for other in (EVIL, "https://apps.example:8443", "http://apps.example"):
        assert refusal(ours.options("/take", headers={"origin": other, **asks})) == (403, "Origin")
    own = ours.get("/take", headers={"origin": HERE})
    assert "access-control-allow-origin" not in own.headers, "its browser asks for no permission"
    here = client().options("/take", headers={"origin": HERE, **asks})
    assert (here.status_code, "access-control-allow-origin" in here.headers) == (405, False)


@pytest.mark.parametrize(
    ("named", "sent"),
    [
        ("https://a.example:443", "https://a.example"),
        ("http://A.example:80", "http://a.example"),
        ("https://[2001:db8::1]:443", "https://[2001:db8::1]"),
        ("https://a.example:80", "https://a.example:80"),
        ("http://[2001:db8::80]", "http://[2001:db8::80]"),
        ("https://[2001:db8::443]", "https://[2001:db8::443]"),
    ],
)
def test_the_port_that_no_browser_writes_may_be_named(named: str, sent: str) -> None:
    ours = client(http_allowed_origins=f"https://other.example:8443, {named}")
    answer = ours.post("/take", content=b"{}", headers={"origin": sent, **JSON})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, sent)
    assert ours.post("/take", headers={"origin": f"{sent}0"}).status_code == 403


def test_an_allowed_page_may_read_why_its_request_is_refused() -> None:
    page, allows = "https://a.example", "access-control-allow-origin"
    ours = client(http_allowed_origins=page)
    told = ours.post("/take", content=b"{}", headers={"origin": page, "content-type": "text/plain"})
    assert (refusal(told), told.headers[allows]) == ((415, "Content-Type"), page)
    told = ours.get("/take", headers={"origin": page, "host": "evil.example"})
    assert (refusal(told), told.headers[allows]) == ((421, "Host"), page)
    for origin in (EVIL, "null", HERE):
        told = ours.post("/take", content=b"{}", headers={"origin": origin, "content-type": "text/plain"})
        assert (told.status_code in (403, 415), allows in told.headers) == (True, False)


def test_no_other_website_shows_a_page_within_its_own() -> None:
    """There its user would click on what lies below something else."""
    policy = "content-security-policy"
    assert client().get("/take").headers[policy] == "frame-ancestors 'self'"
    portal = client(http_allowed_origins="https://portal.example")
    assert portal.get("/take").headers[policy] == "frame-ancestors 'self' https://portal.example"


@pytest.mark.parametrize(("site", "status"), [("cross-site", 403), ("same-site", 403), ("none", 200)])
def test_a_browser_that_sends_no_origin_tells_by_its_fetch_metadata(site: str, status: int) -> None:
    headers = {"sec-fetch-site": site, **JSON}
    assert client().post("/take", content=b"{}", headers=headers).status_code == status
    assert client().get("/take", headers=headers).status_code == 200, "a link leads here"


@pytest.mark.parametrize("name", ["evil.example", "localhost.evil.example", "evil.example:8080", "", "1.2.3"])
def test_a_name_that_leads_here_but_is_not_ours_is_refused(name: str) -> None:
    """DNS rebinding: to the browser it is the page's own site, so there is no other ``Origin``."""
    headers = {"host": name, "origin": f"http://{name}", **JSON}
    assert refusal(client().post("/take", content=b"{}", headers=headers)) == (421, "Host")
    assert refusal(client().get("/take", headers=headers)) == (421, "Host")
    with (
        pytest.raises(WebSocketDisconnect),
        client().websocket_connect("ws://localhost/talk", headers=headers),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("localhost:8080", {}),
        ("LOCALHOST", {}),
        ("127.0.0.1:8080", {}),
        ("[::1]:8080", {}),
        ("10.1.2.3", {}),
        ("Console.example.org:443", {"http_allowed_hosts": "console.example.org"}),
        ("ingest:8080", {"http_host": "0.0.0.0"}),
        ("localhost", {"http_host": "0.0.0.0", "http_allowed_hosts": "a.example"}),
    ],
)
def test_names_of_ones_own_are_let_in(name: str, settings: dict[str, str]) -> None:
    ours = client(**settings)
    assert ours.post("/take", content=b"{}", headers={"host": name, **JSON}).status_code == 200


def test_names_that_are_listed_are_the_only_ones_on_a_network_too() -> None:
    ours = client(http_host="0.0.0.0", http_allowed_hosts="a.example, b.example")
    assert ours.get("/take", headers={"host": "b.example"}).status_code == 200
    assert refusal(ours.get("/take", headers={"host": "c.example"})) == (421, "Host")


def test_a_host_that_is_given_twice_is_refused() -> None:
    twice = [("host", "localhost"), ("host", "evil.example")]
    assert refusal(client().get("/take", headers=twice)) == (421, "Host")


@pytest.mark.parametrize(
    "wrong",
    [
        {"http_allowed_hosts": "https://a.example"},
        {"http_allowed_hosts": "a.example:80"},
        {"http_allowed_origins": "a.example"},
        {"http_allowed_origins": "https://a.example/"},
        {"http_allowed_origins": "*"},
    ],
)
def test_a_list_that_could_never_match_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="separated by commas"):
        HttpSettings.model_validate(wrong)


def service(**settings: object) -> Service:
    return Service("desk", ServiceSettings.model_validate({"store_url": "memory://", **settings}))


def test_everything_that_a_service_answers_is_judged() -> None:
    desk = service()
    route = Route("/take", needs(Role.OPERATOR)(take), methods=["POST"])
    desk.doors.mount(Starlette(routes=[route]), any_content=["/take"])
    ours, told = (
        TestClient(desk.doors.asgi(), base_url=HERE),
        TestClient(desk.doors.health_asgi(), base_url=HERE),
    )
    assert ours.post("/take", content=b"x").status_code == 200
    assert refusal(ours.post("/take", content=b"x", headers={"origin": EVIL})) == (403, "Origin")
    assert refusal(told.get("/health/live", headers={"host": "evil.example"})) == (421, "Host")
