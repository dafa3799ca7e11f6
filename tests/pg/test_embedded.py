"""The embedded server as applications meet it: real processes, real signals, real users."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from pathlib import Path

import psycopg
import pytest
import trio

from trio_services import Child, Supervisor, open_supervisor
from trio_services.errors import EmbeddedUnavailable
from trio_services.lifecycle import HealthStatus
from trio_services.pg import EmbeddedServer
from trio_services.pg._installation import Installation, installations

from .serving import (
    AS_ROOT,
    USERS,
    application,
    copy_database,
    eventually,
    execute,
    folder_of,
    group_of,
    postmaster,
    processes,
    query,
)


@pytest.fixture(scope="module")
def template() -> Generator[Path]:
    """A directory with a new database in it."""
    with folder_of("me") as folder:

        async def make() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(EmbeddedServer(folder / "db").run)
                nursery.cancel_scope.cancel()

        trio.run(make)
        yield folder / "db"


@pytest.fixture(params=USERS)
def user(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(user: str) -> Generator[Path]:
    with folder_of(user) as folder:
        yield folder


@pytest.fixture
def directory(template: Path, folder: Path, user: str) -> Path:
    """A directory with a database, of the user."""
    return copy_database(template, folder, user)


@pytest.fixture
def ours() -> Generator[Path]:
    """A folder of whoever runs the tests."""
    with folder_of("me") as folder:
        yield folder


@pytest.fixture
def database(template: Path, ours: Path) -> Path:
    """A directory with a database, of whoever runs the tests."""
    return copy_database(template, ours, "me")


# -- in an application of its own ----------------------------------------------------------


def test_server_runs_on_a_directory_that_does_not_exist(
    tmp_path: Path, folder: Path, user: str
) -> None:
    directory = folder / "var" / "db"
    with application(tmp_path, directory, user) as program:
        program.wait_for("ready")

        assert query(directory, "select 'ä'") == "ä"
        assert query(directory, "show listen_addresses") == ""

        program.send(signal.SIGTERM)
        assert program.wait() == 0


def test_sigterm_of_the_application_shuts_the_server_down_in_order(
    tmp_path: Path, directory: Path, user: str
) -> None:
    with application(tmp_path, directory, user) as program:
        program.wait_for("ready")
        busy = psycopg.connect(EmbeddedServer(directory).url)  # which must not hold it up
        busy.execute("select 1")
        program.send(signal.SIGTERM)
        assert program.wait() == 0
        busy.close()

    assert processes(directory) == []
    assert not (directory / "data" / "postmaster.pid").exists()
    assert "received fast shutdown request" in (directory / "log").read_text()
    assert "received immediate shutdown request" not in (directory / "log").read_text()


def test_killing_the_application_leaves_no_server_and_the_next_one_loses_nothing(
    tmp_path: Path, directory: Path, user: str
) -> None:
    with application(tmp_path, directory, user) as program:
        program.wait_for("ready")
        execute(directory, "create table kept as select 7 as n")
        program.send(signal.SIGKILL)

        with application(tmp_path / "next", directory, user) as successor:
            successor.wait_for("ready")
            assert query(directory, "select n from kept") == 7
            successor.send(signal.SIGKILL)

    assert eventually(lambda: processes(directory) == [])


@pytest.mark.soak
def test_guard_ends_what_does_not_shut_down_and_itself(
    tmp_path: Path, directory: Path, user: str
) -> None:
    with application(tmp_path, directory, user) as program:
        program.wait_for("ready")
        server = postmaster(directory)
        guard = group_of(server)
        os.kill(server, signal.SIGSTOP)
        program.send(signal.SIGKILL)
        program.wait()

    assert eventually(lambda: processes(directory) == [])
    assert eventually(lambda: not Path(f"/proc/{guard}").exists())


def test_killing_the_application_while_a_query_runs_leaves_no_server(
    tmp_path: Path, directory: Path, user: str
) -> None:
    with application(tmp_path, directory, user) as program:
        program.wait_for("ready")
        connection = psycopg.connect(EmbeddedServer(directory).url)
        program.send(signal.SIGKILL)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select sum(n) from generate_series(1, 1000000000) n")
        connection.close()

    assert eventually(lambda: processes(directory) == [])


def test_killing_the_application_during_initdb_leaves_nothing_that_is_in_the_way(
    tmp_path: Path, folder: Path, user: str
) -> None:
    directory = folder / "db"
    with application(tmp_path, directory, user) as program:
        assert eventually(lambda: (directory / "data.new" / "PG_VERSION").exists())
        program.send(signal.SIGKILL)
        program.wait()

    with application(tmp_path / "next", directory, user) as program:
        program.wait_for("ready")
        assert query(directory, "select 1") == 1


def test_two_applications_share_a_directory_and_the_second_takes_over(
    tmp_path: Path, directory: Path, user: str
) -> None:
    with application(tmp_path, directory, user) as first:
        first.wait_for("ready")
        server = postmaster(directory)
        with application(tmp_path / "second", directory, user) as second:
            second.wait_for("ready")
            assert postmaster(directory) == server

            first.send(signal.SIGTERM)
            assert first.wait() == 0

            assert eventually(lambda: is_served(directory))
            assert postmaster(directory) != server
            second.send(signal.SIGTERM)
            assert second.wait() == 0
    assert processes(directory) == []


def test_application_without_rights_to_the_directory_is_told_so_in_one_line(
    tmp_path: Path, directory: Path, user: str
) -> None:
    if user != "nobody":
        pytest.skip("needs root, and somebody who is not")
    os.chown(directory, 0, 0)
    directory.chmod(0o700)
    code = (
        "try:\n    trio.run(server.run)\nexcept Exception as error:\n    print(error, flush=True)"
    )
    with application(tmp_path, directory, user, code) as program:
        assert program.wait() == 0

    assert program.out == [
        f"database in {directory}: permission denied ({directory}); run this as the user who owns "
        "it, or choose another directory"
    ]


def is_served(directory: Path) -> bool:
    try:
        return query(directory, "select 1") == 1
    except psycopg.OperationalError:
        return False


# -- in this process -----------------------------------------------------------------------


async def test_supervisor_starts_a_server_again_that_was_killed(database: Path) -> None:
    async with open_supervisor(Supervisor("app", [EmbeddedServer(database)])):
        os.kill(postmaster(database), signal.SIGKILL)
        assert await trio.to_thread.run_sync(eventually, lambda: not is_served(database))
        assert await trio.to_thread.run_sync(eventually, lambda: is_served(database))


async def test_supervisor_starts_a_server_again_whose_guard_was_killed(database: Path) -> None:
    async with open_supervisor(Supervisor("app", [EmbeddedServer(database)])):
        before = postmaster(database)
        os.kill(group_of(before), signal.SIGKILL)
        assert await trio.to_thread.run_sync(eventually, lambda: before not in processes(database))
        assert await trio.to_thread.run_sync(eventually, lambda: is_served(database))


async def test_server_that_cannot_shut_down_in_time_is_ended(database: Path) -> None:
    child = Child(EmbeddedServer(database), stop_within=0.2)
    async with open_supervisor(Supervisor("app", [child])):
        os.kill(postmaster(database), signal.SIGSTOP)
        began = trio.current_time()
    assert trio.current_time() - began < 2.5
    assert await trio.to_thread.run_sync(eventually, lambda: processes(database) == [])


async def test_server_that_does_not_answer_is_unhealthy(database: Path) -> None:
    server = EmbeddedServer(database)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        os.kill(postmaster(database), signal.SIGSTOP)
        with trio.fail_after(5):
            assert (await server.check()).status is HealthStatus.UNHEALTHY
        nursery.cancel_scope.cancel()


async def test_server_is_healthy_while_clients_can_connect(database: Path) -> None:
    server = EmbeddedServer(database)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        assert (await server.check()).status is HealthStatus.HEALTHY
        nursery.cancel_scope.cancel()
    assert (await server.check()).status is HealthStatus.UNHEALTHY


@pytest.mark.parametrize(
    "installation", installations(), ids=lambda one: f"{one.version}-{'bundled' * one.bundled}"
)
async def test_server_of_every_version_that_is_there_makes_a_database_and_serves_it(
    ours: Path, installation: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_services.pg._embedded.installations", lambda: [installation])
    async with open_supervisor(Supervisor("app", [EmbeddedServer(ours / "db")])):
        version = await trio.to_thread.run_sync(query, ours / "db", "show server_version")
    assert str(version).startswith(installation.version)
    assert processes(ours / "db") == []


@pytest.mark.parametrize("after", [0.0, 0.02, 0.1, 0.3, 0.8])
async def test_cancellation_at_any_moment_of_a_start_leaves_nothing(
    ours: Path, after: float
) -> None:
    server = EmbeddedServer(ours / "db")
    with trio.move_on_after(after):
        await server.run()
    assert server.holder() is None

    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        nursery.cancel_scope.cancel()
    assert processes(ours / "db") == []


async def test_path_that_is_too_long_for_a_socket_is_served_all_the_same(
    template: Path, ours: Path
) -> None:
    folder = ours / ("long" * 40)
    folder.mkdir()
    directory = copy_database(template, folder, "me")
    async with trio.open_nursery() as nursery:
        await nursery.start(EmbeddedServer(directory).run)
        assert await trio.to_thread.run_sync(query, directory, "select 1") == 1
        way_in = EmbeddedServer(directory)._directory.socket_folder
        assert way_in.is_symlink()
        nursery.cancel_scope.cancel()
    assert not way_in.is_symlink()


async def test_port_of_clients_in_the_environment_is_not_the_servers(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "6000")
    async with trio.open_nursery() as nursery:
        await nursery.start(EmbeddedServer(database).run)
        monkeypatch.delenv("PGPORT")
        assert await trio.to_thread.run_sync(query, database, "show port") == "5432"
        nursery.cancel_scope.cancel()


async def test_number_of_a_stranger_in_the_pid_file_is_not_in_the_way(database: Path) -> None:
    stranger = await trio.lowlevel.open_process(["sleep", "60"], user=owner_of(database / "data"))
    file = database / "data" / "postmaster.pid"
    file.write_text(f"{stranger.pid}\n{database / 'data'}\n1\n5432\n.\n\n  1 1\nready   \n")
    os.chown(file, owner_of(database / "data"), -1)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(EmbeddedServer(database).run)
            assert postmaster(database) != stranger.pid
            nursery.cancel_scope.cancel()
    finally:
        stranger.kill()
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await stranger.wait()


async def test_start_that_fails_tells_what_the_server_said(database: Path) -> None:
    with (database / "data" / "postgresql.conf").open("a") as settings:
        settings.write("work_mem = 'much'\n")
    with pytest.raises(EmbeddedUnavailable, match=r"ended with status 1: .*postgresql\.conf"):
        await EmbeddedServer(database).run()
    assert processes(database) == []


async def test_log_that_has_grown_too_large_is_begun_anew(database: Path) -> None:
    (database / "log").write_bytes(b"x" * 10_000_001)
    async with trio.open_nursery() as nursery:
        await nursery.start(EmbeddedServer(database).run)
        nursery.cancel_scope.cancel()
    assert (database / "log").stat().st_size < 10_000


async def test_who_finds_the_directory_taken_and_no_answer_is_told_by_whom(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_services.pg._embedded._PATIENCE", 0.3)
    server = EmbeddedServer(database, purpose="the first")
    claim = server._directory.claim("the first")
    assert claim is not None
    with claim, pytest.raises(EmbeddedUnavailable) as caught:
        await EmbeddedServer(database).run()
    assert caught.value.reason == (
        f"process {os.getpid()} (the first) has it, and its server does not answer; stop that one"
    )
    assert server.holder() is None


def test_directory_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("Dear …")
    with pytest.raises(EmbeddedUnavailable, match="holds other files, such as letter; give a new"):
        trio.run(EmbeddedServer(tmp_path).run)
    assert list(tmp_path.iterdir()) == [tmp_path / "letter"]


async def test_data_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(EmbeddedUnavailable, match="data/ is there, but holds no database"):
        await EmbeddedServer(tmp_path).run()


async def test_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "db").write_text("")
    with pytest.raises(EmbeddedUnavailable, match="file exists"):
        await EmbeddedServer(tmp_path / "db").run()


@pytest.mark.skipif(not AS_ROOT, reason="only root has to become somebody else")
async def test_root_runs_the_server_as_the_owner_of_its_data(template: Path, ours: Path) -> None:
    directory = copy_database(template, ours, "nobody")
    async with trio.open_nursery() as nursery:
        await nursery.start(EmbeddedServer(directory).run)
        user = owner_of(Path(f"/proc/{postmaster(directory)}"))
        nursery.cancel_scope.cancel()
    assert user == owner_of(directory / "data") == 65534


def owner_of(path: Path) -> int:
    return path.stat().st_uid
