"""What an application from a file gets of its database, with a server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import trio

from trio_services import serve
from trio_services.config import Application, build, load

from .server import Server

CODE = """
from trio_services import Container, pg

container = Container()

async def enter(item: int, connection: pg.AnyConnection) -> None:
    await connection.execute("insert into items values (%s)", [item])
    if item == 2:
        raise ValueError(item)
"""
FILE = """
[host]
name = "ledger"
imports = ["ledger"]
container = "ledger:container"

[database]
url = "postgresql://postgres@127.0.0.1:{port}/postgres"

[queues.items]

[workers.enter]
queue = "items"
handler = "ledger:enter"
"""


@pytest.fixture
def application(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Application]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "ledger.py").write_text(CODE)
    path = tmp_path / "config.toml"
    path.write_text(FILE.format(port=server.port))
    path.chmod(0o600)
    yield build(load(path))
    del sys.modules["ledger"]


def test_what_needs_a_transaction_comes_after_the_database(application: Application) -> None:
    assert application.tree.graph["enter"] == ("database",)


@pytest.mark.usefixtures("items")
async def test_each_job_has_a_transaction_that_is_rolled_back_if_it_fails(
    application: Application, server: Server
) -> None:
    items = application.queues["items"]
    for item in (1, 2, 3):
        items.put_nowait(item)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, application.tree, container=application.container))
        with trio.fail_after(5):  # noqa: ASYNC912
            while (books := items.statistics()).done + books.dead < 3:  # noqa: ASYNC110 -- by workers
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert server.execute("select id from items order by id") == [(1,), (3,)]
    assert books.dead == 1
