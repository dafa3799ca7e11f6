"""A service that runs only in the leader: one of all contenders, and then another."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from trio_services import Child, Container, Schedule, Supervisor, graceful, open_supervisor, pg
from trio_services.errors import LeadershipLost
from trio_services.host import open_host
from trio_services.lifecycle import State
from trio_services.services import AnyService

from .proxy import open_proxy
from .server import Server


@pytest.fixture(autouse=True)
def _afresh(server: Server) -> None:
    server.execute("drop table if exists trio_services_leader")


def contender(url: str, service: AnyService, lease: float = 10.0) -> Supervisor:
    pool = pg.open_pool(url, name="pool", timeout=2.0)
    only = pg.LeaderOnly(service, pool, name="work", lease=lease)
    child = Child(only, name="work", after=["pool"], restart="never")
    return Supervisor("app", [Child(pool), child])


class Work:
    """Who does it now, and who has begun it in which term."""

    def __init__(self) -> None:
        self.now: list[str] = []
        self.terms: list[tuple[str, int]] = []

    async def do(self, who: str) -> None:
        self.now.append(who)
        assert self.now == [who]
        self.terms.append((who, pg.current_term().epoch))
        try:
            await trio.sleep_forever()
        finally:
            self.now.remove(who)

    async def until_begun(self, times: int) -> None:
        with trio.fail_after(15):  # noqa: ASYNC912
            while len(self.terms) < times:  # noqa: ASYNC110 -- it is asked from many places
                await trio.sleep(0.01)


async def test_one_of_two_contenders_runs_and_the_other_is_ready_meanwhile(server: Server) -> None:
    work = Work()

    async with open_supervisor(contender(server.url, partial(work.do, "a"))):
        await work.until_begun(1)
        async with open_supervisor(contender(server.url, partial(work.do, "b"))) as waiting:
            assert waiting.life.state is State.RUNNING
            await trio.sleep(1.2)  # in which it has asked for the lead twice
            assert work.now == ["a"]
    assert work.terms == [("a", 1)]


async def test_leader_that_stops_hands_over_at_once(server: Server) -> None:
    work = Work()
    stop = trio.Event()

    async def lead_until_stopped(*, task_status: trio.TaskStatus[None]) -> None:
        async with open_supervisor(contender(server.url, partial(work.do, "a"), lease=60)):
            await work.until_begun(1)
            task_status.started()
            await stop.wait()

    async with trio.open_nursery() as nursery:
        await nursery.start(lead_until_stopped)
        async with open_supervisor(contender(server.url, partial(work.do, "b"))):
            await trio.sleep(0.6)
            assert work.now == ["a"]
            stop.set()
            with trio.fail_after(5):
                await work.until_begun(2)
    assert work.terms == [("a", 1), ("b", 2)]


async def test_leader_whose_link_is_cut_ends_before_another_begins_and_contends_again(
    server: Server,
) -> None:
    work = Work()

    async with open_proxy(server.port) as proxy:
        cut_off = contender(proxy.url(), partial(work.do, "a"), lease=1.5)
        async with open_supervisor(cut_off):
            await work.until_begun(1)
            stop = trio.Event()

            async def lead_until_stopped() -> None:
                async with open_supervisor(contender(server.url, partial(work.do, "b"), lease=1.5)):
                    await stop.wait()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(lead_until_stopped)
                proxy.freeze()
                await work.until_begun(2)  # each sees that it is the only one
                proxy.thaw()
                stop.set()
                await work.until_begun(3)
    assert work.terms == [("a", 1), ("b", 2), ("a", 3)]


async def test_schedule_makes_its_calls_in_one_of_two_processes(server: Server) -> None:
    made: list[tuple[str, int]] = []

    async def report(who: str) -> None:
        made.append((who, pg.current_term().epoch))
        await trio.lowlevel.checkpoint()

    def schedule(who: str) -> Supervisor:
        return contender(server.url, Schedule(partial(report, who), every=0.05))

    async with open_supervisor(schedule("a")), open_supervisor(schedule("b")):
        with trio.fail_after(10):  # noqa: ASYNC912
            while len(made) < 20:  # noqa: ASYNC110 -- the calls know nothing of this
                await trio.sleep(0.01)
        assert set(made) in ({("a", 1)}, {("b", 1)})


async def test_work_in_hand_at_a_stop_is_finished_within_the_term(server: Server) -> None:
    began, fenced = trio.Event(), trio.Event()

    async def work(pool: pg.Pool) -> None:
        with graceful():
            began.set()
            await trio.sleep(0.3)
            fenced.set()

    pool = pg.open_pool(server.url, name="pool")
    container = Container()
    pg.provide(container, pool)
    only = pg.LeaderOnly(work, pool)
    tree = Supervisor("app", [Child(pool), Child(only, name="work", after=["pool"])])
    async with open_host(tree, container=container):
        await began.wait()
        assert not fenced.is_set()
    assert fenced.is_set()


async def test_job_of_the_leader_gets_a_transaction_and_is_fenced_by_the_term(
    server: Server, items: None
) -> None:
    done = trio.Event()

    async def report(connection: pg.AnyConnection) -> None:
        await pg.current_term().fence(connection)
        await connection.execute("insert into items values (1)")
        done.set()

    pool = pg.open_pool(server.url, name="pool")
    container = Container()
    pg.provide(container, pool)
    only = pg.LeaderOnly(Schedule(report, every=60), pool)
    assert only.name == "report"
    tree = Supervisor("app", [Child(pool), Child(only, after=["pool"])])
    async with open_host(tree, container=container):
        with trio.fail_after(10):
            await done.wait()
    assert server.execute("select id from items") == [(1,)]


async def test_service_that_returns_has_ended_and_gives_up_the_lead(server: Server) -> None:
    async with pg.open_pool(server.url) as pool:
        for epoch in (1, 2):

            async def work(epoch: int = epoch) -> None:
                assert pg.current_term().epoch == epoch
                await trio.lowlevel.checkpoint()

            with trio.fail_after(5):
                await pg.LeaderOnly(work, pool, lease=60).run()
    with pytest.raises(LookupError):
        pg.current_term()


async def test_another_leadership_that_is_lost_is_a_failure_of_the_service(server: Server) -> None:
    async def work() -> None:
        await trio.lowlevel.checkpoint()
        raise LeadershipLost("another", 7)

    async with pg.open_pool(server.url) as pool:
        with pytest.raises(LeadershipLost, match="another"):
            await pg.LeaderOnly(work, pool).run()
