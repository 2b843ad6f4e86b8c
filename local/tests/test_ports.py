"""Ports are chosen seconds before somebody listens on them."""

from __future__ import annotations

import socket
import sys

import pytest
from tunewheel_local.kafka.ports import free_port, is_free


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere nobody else may bind it either")
def test_a_free_port_is_kept_for_the_server_that_names_it() -> None:
    port = free_port()
    with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
        stranger.bind(("127.0.0.1", port))
    for _ in range(2):  # it may start again
        assert is_free(port)
        with socket.create_server(("127.0.0.1", port)):
            assert not is_free(port)


def test_free_ports_differ() -> None:
    assert len({free_port() for _ in range(50)}) == 50
