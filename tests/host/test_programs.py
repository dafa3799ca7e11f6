"""What a user writes, in twenty lines, as programs of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .process import running

if TYPE_CHECKING:
    from pathlib import Path

AS_A_CLASS = '''\
import trio
from trio_services import Backoff, Child, Service, Supervisor, every, serve

class Poller(Service):
    """Poll the mailbox."""
    async def run(self) -> None:
        async for tick in every(0.05):
            if tick.number == 2:
                raise ConnectionError("mailbox is gone")
            print("poll", flush=True)

async def main() -> None:
    tree = Supervisor("app", [Child(Poller, backoff=Backoff(initial=0.05, jitter=0))])
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, tree)
        print("ready", flush=True)
        await trio.sleep(0.5)  # what the program itself is about
        nursery.cancel_scope.cancel()

trio.run(main)
'''

AS_A_FUNCTION = '''\
import trio
from trio_services import Backoff, Child, Supervisor, every, open_supervisor, service

@service
async def poll(mailbox: str) -> None:
    """Poll the mailbox."""
    async for tick in every(0.05):
        if tick.number == 2:
            raise ConnectionError(f"{mailbox} is gone")
        print("poll", flush=True)

async def main() -> None:
    tree = Supervisor("app", [Child(poll("inbox"), backoff=Backoff(initial=0.05, jitter=0))])
    async with open_supervisor(tree):
        print("ready", flush=True)
        await trio.sleep(0.5)  # what the program itself is about

trio.run(main)
'''


@pytest.mark.parametrize("code", [AS_A_CLASS, AS_A_FUNCTION], ids=["class", "function"])
def test_twenty_lines_give_a_supervised_periodic_service(tmp_path: Path, code: str) -> None:
    assert len(code.splitlines()) <= 20

    with running(tmp_path, code, prelude="") as program:
        assert program.wait() == 0
        assert "ready" in program.out
        assert program.out.count("poll") > 2  # it was started again


HELLO = """\
from trio_services import every, run, service

@service
async def hello(name: str) -> None:
    async for tick in every(0.05):
        print(f"hello {name} {tick.number}", flush=True)

run(hello("world"))
"""


def test_program_of_the_contract_says_hello(tmp_path: Path) -> None:
    with running(tmp_path, HELLO, prelude="") as program:
        program.wait_for("hello world 2")
        program.send()

        assert program.wait() == 0
        assert program.out[:3] == [f"hello world {number}" for number in range(3)]


@pytest.mark.parametrize("first", ["Child", "run", "every", "errors", "service"])
def test_decorator_can_be_imported_after_other_names(tmp_path: Path, first: str) -> None:
    code = f"""\
import trio_services
getattr(trio_services, {first!r}, None)
from trio_services import Supervisor, open_host, service

@service
async def hello() -> None: ...

print(type(hello()).__name__)
"""
    with running(tmp_path, code, prelude="") as program:
        assert program.wait() == 0, program.err
        assert program.out == ["ServiceCall"]
