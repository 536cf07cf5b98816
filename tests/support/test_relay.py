"""The relay passes on what comes, until it is told not to."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.support.relay import Relay


@pytest.fixture
def echo_port() -> Iterator[int]:
    """The port of a server that sends back to its only client what that sends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                while chunk := connection.recv(4096):
                    connection.sendall(chunk)

        thread = threading.Thread(target=serve)
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def is_cut(client: socket.socket) -> bool:
    """Whether nothing comes any more; with something on its way, the system says so by a reset."""
    try:
        return client.recv(1) == b""
    except ConnectionResetError:
        return True


def test_connections_go_silent_and_are_cut(echo_port: int) -> None:
    with Relay(echo_port) as relay, socket.create_connection(("127.0.0.1", relay.port), timeout=30) as client:
        client.sendall(b"heard")
        assert client.recv(5, socket.MSG_WAITALL) == b"heard"
        relay.silence()
        client.sendall(b"lost")
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(30)
        relay.cut()
        assert is_cut(client)


def test_a_server_that_is_not_there_is_not_there_through_the_relay() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with Relay(port) as relay, socket.create_connection(("127.0.0.1", relay.port), timeout=30) as client:
        assert is_cut(client)
