from __future__ import annotations

import socket
from typing import Any

import pytest
from tunewheel_runtime.named_addresses import addresses_behind


def test_addresses_are_asked_of_the_system() -> None:
    assert addresses_behind("http://localhost:8123/api") == {"http://127.0.0.1:8123/api"}
    assert addresses_behind("http://[::1]:8123") == {"http://[::1]:8123"}
    with pytest.raises(UnicodeError):
        addresses_behind("http://vllm..svc:8000")


def test_a_name_that_has_both_kinds_of_addresses_is_no_second_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("fd00::1", 80, 0, 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80)),
    ]
    answers: list[Any] = [told, socket.gaierror(socket.EAI_NONAME, "not known"), told[:1]]

    def getaddrinfo(*_: Any, **__: Any) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    found = [addresses_behind("http://engines") for _ in range(3)]
    assert found == [{"http://10.0.0.1:80"}, frozenset(), {"http://[fd00::1]:80"}]


def test_a_silent_name_server_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def getaddrinfo(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    with pytest.raises(OSError, match="Temporary"):
        addresses_behind("http://engines")
