from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
import trio

from trio_services.admin import AdminUnavailable, Bind, serve_admin
from trio_services.errors import ServicesError

from .client import Program, Server, serving


async def _refusal(bind: str) -> str:
    with pytest.raises(AdminUnavailable) as caught, trio.fail_after(2):
        await serve_admin(Bind.parse(bind), Program())
    assert isinstance(caught.value, ServicesError)
    assert isinstance(caught.value.__cause__, OSError)
    assert str(caught.value.bind) == bind
    return str(caught.value)


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir())


async def test_address_that_is_taken_is_refused_with_a_remedy() -> None:
    async with serving() as server:
        bind = f"127.0.0.1:{server.port}"
        assert await _refusal(bind) == (
            f"cannot listen on {bind}: address already in use; "
            "another process has it; stop that one, or change [admin] bind"
        )


async def test_address_is_free_again_at_once() -> None:
    async with serving() as server, server.client() as client:
        await client.get("/live")
    async with serving(f"127.0.0.1:{server.port}") as again:
        assert (await again.get("/live")).status == 200


async def test_address_that_the_machine_lacks_is_refused() -> None:
    # Port 1 is refused to nobody but root, an address that is not there to all.
    with socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        port = probe.getsockname()[1]
        probe.listen()
        assert f"cannot listen on [::1]:{port}: address" in await _refusal(f"[::1]:{port}")


async def test_unix_socket_is_its_owners_only_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    umask = os.umask(0)
    try:
        async with serving(f"unix:{path}"):
            mode = path.lstat().st_mode
            others = [entry for entry in _entries(tmp_path) if entry != path]
    finally:
        os.umask(umask)
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600
    assert not others
    assert not _entries(tmp_path)


async def test_unix_socket_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
        dead.listen()
    assert path.is_socket()

    async with serving(f"unix:{path}") as server:
        assert (await server.get("/live")).status == 200


@pytest.mark.parametrize("backlog", [10, 0])
async def test_unix_socket_of_a_living_process_is_refused_and_left_alone(
    tmp_path: Path, backlog: int
) -> None:
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as living, socket.socket(socket.AF_UNIX) as client:
        living.bind(os.fspath(path))
        living.listen(backlog)
        client.connect(os.fspath(path))  # which fills a backlog of 0
        assert "address already in use; another process has it" in await _refusal(f"unix:{path}")
        assert path.is_socket()


async def test_file_that_is_no_socket_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary")
    assert await _refusal(f"unix:{path}") == (
        f"cannot listen on unix:{path}: a file that is not a socket is in its place; "
        "change [admin] bind"
    )
    assert path.read_text() == "dear diary"


async def test_missing_directory_is_refused_with_a_remedy(tmp_path: Path) -> None:
    bind = f"unix:{tmp_path}/run/admin.sock"
    assert await _refusal(bind) == (
        f"cannot listen on {bind}: no such file or directory; "
        "make the directory first, or change [admin] bind"
    )


async def test_path_that_is_too_long_when_absolute_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.chdir(deep)
    assert "path too long; change [admin] bind" in await _refusal("unix:admin.sock")


async def test_system_without_unix_sockets_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    assert "no unix sockets; change [admin] bind" in await _refusal("unix:admin.sock")


async def test_socket_file_of_a_successor_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with serving(f"unix:{path}"):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(os.fspath(path))
    assert path.is_socket()


async def test_socket_file_that_is_gone_already_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    async with serving(f"unix:{path}"):
        path.unlink()


async def test_working_directory_may_change_while_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    async with serving("unix:admin.sock"):
        monkeypatch.chdir(tmp_path)
    assert not _entries(tmp_path / "a")


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has it")
async def test_kernel_gives_up_on_unread_answers_after_five_seconds() -> None:
    async with serving() as server:
        with _listening_socket(server.port) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000


async def test_failing_socket_surfaces_as_one_error_in_spite_of_clients() -> None:
    messages: list[str] = []
    bind = Bind.parse("127.0.0.1:0")
    try:
        with trio.fail_after(2):
            async with trio.open_nursery() as nursery:
                server = Server(await nursery.start(serve_admin, bind, Program()))
                async with server.client() as client:
                    await client.get("/live")
                    with _listening_socket(server.port) as sock:
                        sock.shutdown(socket.SHUT_RDWR)
                    await trio.sleep_forever()
    except* AdminUnavailable as group:  # this test's own nursery wraps it, and nothing else does
        messages += [str(error) for error in group.exceptions]

    assert messages == ["cannot go on listening on 127.0.0.1:0: [Errno 22] Invalid argument"]


def _listening_socket(port: int) -> socket.socket:
    """Another handle for the server's listening socket, which is somewhere in this process."""
    for entry in Path("/proc/self/fd").iterdir():
        try:
            sock = socket.socket(fileno=os.dup(int(entry.name)))
        except OSError:
            continue
        try:
            if (
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                and sock.getsockname()[1] == port
            ):
                return sock
        except (OSError, IndexError):
            pass
        sock.close()
    raise LookupError(port)
