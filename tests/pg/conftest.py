from __future__ import annotations

from collections.abc import Generator

import pytest

from .server import Server


@pytest.fixture(scope="session")
def server() -> Generator[Server]:
    server = Server.create()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def items(server: Server) -> None:
    """An empty table `items (id int primary key)`."""
    server.execute("drop table if exists items; create table items (id int primary key deferrable)")
