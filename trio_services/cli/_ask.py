"""What a running application answers to a probe; it starts up nothing, not even Trio."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Literal, cast

import attrs

Question = Literal["live", "ready"]


@attrs.frozen
class Answer:
    """What the application says: whether it is so, and in a line, why."""

    ok: bool
    text: str


def ask(question: Question, *, host: str, port: int, path: str, within: float) -> Answer:
    """Ask at an admin address. Blocks.

    Args:
        question: whether it is alive, or ready.
        host, port: of a TCP address.
        path: of a unix socket, instead.
        within: seconds for each step of asking; > 0.
    """
    connection = (
        _UnixConnection(path, within)
        if path
        else http.client.HTTPConnection(host, port, timeout=within)
    )
    try:
        connection.request("GET", f"/{question}")
        response = connection.getresponse()
        told = json.loads(response.read())
        text = "; ".join([told["status"], *told.get("because", ())])
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:
        return Answer(False, f"no answer: {str(error) or type(error).__name__}")
    finally:
        connection.close()
    return Answer(response.status == http.client.OK, text)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, within: float) -> None:
        super().__init__("localhost", timeout=within)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's file."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(cast(float, self.timeout))
        self.sock.connect(self._path)
