"""Durable queues and processes that die, freeze or lose their link: nothing is lost."""

from __future__ import annotations

import math
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest
import trio

from trio_services import pg

from ..host.process import Program, running
from .proxy import open_proxy
from .queueing import at_work, empty_tables, rows, until
from .server import Server

LEASE = 1.0

PRELUDE = """\
import os
import trio
from trio_services import Child, Supervisor, Workers, pg, run

pool = pg.open_pool(os.environ["DATABASE"])
queue = pg.Queue[int](pool, "numbers", lease=1.0, attempts=3)

def work(handle, count=5):
    run(Supervisor("app", [
        Child(pool, name="database"),
        Child(Workers(queue, handle, count=count), name="work", after="database"),
    ]))

"""

# What it does is written down in the database, so that nobody has to be believed.
BOOKS = """\
async def handle(item):
    async with pool.connection() as connection:
        await connection.execute("insert into handled values (%s, %s)", [item, os.getpid()])
    await trio.sleep(0.002)

work(handle)
"""
SLOW = """\
async def handle(item):
    print("begun", flush=True)
    try:
        await trio.sleep(1.5)
        print("done", flush=True)
    except trio.Cancelled:
        print("cancelled", flush=True)
        raise

work(handle)
"""
POISON = """\
async def handle(item):
    if item == 13:
        os.kill(os.getpid(), 9)

work(handle, 1)
"""


@pytest.fixture(autouse=True)
def _tables(server: Server) -> None:
    empty_tables(server)
    server.execute("drop table if exists handled; create table handled (item int, pid int)")


def worker(stack: ExitStack, server: Server, folder: Path, code: str) -> Program:
    folder.mkdir()
    environment = {"DATABASE": server.url}
    return stack.enter_context(running(folder, code, prelude=PRELUDE, environment=environment))


async def test_jobs_of_killed_processes_are_done_by_others(server: Server, tmp_path: Path) -> None:
    async with pg.open_pool(server.url) as pool:
        queue = pg.Queue[int](pool, "numbers")
        await queue.put_many(range(3000))
    handled = "select count(distinct item) from handled"
    with ExitStack() as stack:
        programs = [worker(stack, server, tmp_path / str(n), BOOKS) for n in range(2)]
        await until(lambda: server.execute(handled)[0][0] > 200, within=20)
        programs[0].send(signal.SIGKILL)
        killed = trio.current_time()
        worker(stack, server, tmp_path / "2", BOOKS)
        await until(lambda: set(rows(server)) <= {"lease"}, within=30)
        for program in programs[1:]:
            program.send(signal.SIGTERM)
            assert await trio.to_thread.run_sync(program.wait) == 0
    assert server.execute(handled) == [(3000,)]
    twice = server.execute("select item from handled group by item having count(*) > 1")
    assert len(twice) <= 5  # what was in the hands of the one that was killed
    assert trio.current_time() - killed < 30


async def test_job_of_a_killed_process_is_leased_anew_within_its_lease_and_a_poll(
    server: Server, tmp_path: Path
) -> None:
    began = math.inf

    async def handle(item: int) -> None:
        nonlocal began
        await trio.lowlevel.checkpoint()
        began = trio.current_time()

    async with pg.open_pool(server.url) as pool:
        queue = pg.Queue[int](pool, "numbers", lease=LEASE)
        await queue.put(1)
        with ExitStack() as stack:
            program = worker(stack, server, tmp_path / "worker", SLOW)
            await trio.to_thread.run_sync(program.wait_for, "begun")
            program.send(signal.SIGKILL)
            killed = trio.current_time()
            async with at_work(queue, handle):
                await until(lambda: began < math.inf)
    assert LEASE / 2 < began - killed < LEASE + 5
    assert queue.statistics().done == 1


async def test_what_a_frozen_process_says_too_late_does_not_count(
    server: Server, tmp_path: Path
) -> None:
    async with pg.open_pool(server.url) as pool:
        queue = pg.Queue[int](pool, "numbers", lease=LEASE)
        await queue.put_many(range(5))
        held = trio.Event()
        begun = 0

        async def handle(item: int) -> None:
            nonlocal begun
            begun += 1
            await held.wait()

        with ExitStack() as stack:
            program = worker(stack, server, tmp_path / "worker", SLOW)
            for _ in range(5):
                await trio.to_thread.run_sync(program.wait_for, "begun")
                program.out.clear()
            program.send(signal.SIGSTOP)
            async with at_work(queue, handle, count=5):
                await until(lambda: begun == 5)
                program.send(signal.SIGCONT)
                await trio.sleep(1)
                # It would have said by now that they are done.
                assert rows(server)["running"] == 5
                held.set()
                await until(lambda: queue.statistics().done == 5)
    assert queue.statistics().stale == 0


async def test_poison_is_dead_after_its_attempts(server: Server, tmp_path: Path) -> None:
    async with pg.open_pool(server.url) as pool:
        queue = pg.Queue[int](pool, "numbers")
        await queue.put(13, unique="thirteen")
    for turn in range(3):
        with ExitStack() as stack:
            program = worker(stack, server, tmp_path / f"worker{turn}", POISON)
            status = await trio.to_thread.run_sync(program.wait)
            assert status == -signal.SIGKILL
    with ExitStack() as stack:
        worker(stack, server, tmp_path / "last", POISON)
        await until(lambda: rows(server).get("dead") == 1)
        assert "unique_job" not in rows(server)
    assert server.execute("select attempt from trio_services.dead") == [(3,)]


async def test_handler_of_a_lost_lease_is_cancelled_before_another_begins(server: Server) -> None:
    cancelled = began = 0.0

    async def hang(item: int) -> None:
        nonlocal cancelled
        try:
            await trio.sleep_forever()
        finally:
            cancelled = cancelled or trio.current_time()

    async def handle(item: int) -> None:
        nonlocal began
        await trio.lowlevel.checkpoint()
        began = trio.current_time()

    kwargs = {"connect_timeout": 2}
    async with (
        open_proxy(server.port) as proxy,
        pg.open_pool(proxy.url(), min_size=0, kwargs=kwargs) as cut,
        pg.open_pool(server.url) as pool,
    ):
        cut_off = pg.Queue[int](cut, "numbers", lease=LEASE)
        queue = pg.Queue[int](pool, "numbers", lease=LEASE)
        async with at_work(cut_off, hang, stop_within=0.1):
            await queue.put(1)
            await until(lambda: cut_off.statistics().in_hand == 1)
            proxy.freeze()
            async with at_work(queue, handle):
                await until(lambda: bool(began))
            assert 0 < cancelled < began
        proxy.thaw()
    assert cut_off.statistics().returned == 1


async def test_lease_is_kept_as_long_as_a_job_takes(server: Server) -> None:
    async def handle(item: int) -> None:
        await trio.sleep(3.5 * LEASE)

    async with pg.open_pool(server.url) as pool, pg.open_pool(server.url) as other:
        queue = pg.Queue[int](pool, "numbers", lease=LEASE)
        rival = pg.Queue[int](other, "numbers", lease=LEASE)
        await queue.put(1)
        async with at_work(queue, handle):
            await until(lambda: queue.statistics().in_hand == 1)
            async with at_work(rival, handle):
                await until(lambda: queue.statistics().done == 1)
    assert rival.statistics().claimed == 0


async def test_work_goes_on_after_the_connections_were_cut(server: Server) -> None:
    handled: list[int] = []

    async def handle(item: int) -> None:
        handled.append(item)
        await trio.sleep(0.001)

    cut = (
        "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
        " and backend_type = 'client backend'"
    )
    async with pg.open_pool(server.url) as pool:
        queue = pg.Queue[int](pool, "numbers", lease=5.0)
        await queue.put_many(range(2000))
        async with at_work(queue, handle, count=5):
            for _ in range(5):
                await trio.sleep(0.1)
                server.execute(cut)
            await until(lambda: set(rows(server)) == {"lease"}, within=15)
    assert set(handled) == set(range(2000))
