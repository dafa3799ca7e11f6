"""The file itself: what cannot be a configuration file is refused, and reading never blocks."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from trio_services.config import load
from trio_services.errors import ConfigError

from .cases import GOOD
from .conftest import write

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def refusal(path: str | Path = "config.toml") -> str:
    """The one line with which a file is refused."""
    with pytest.raises(ConfigError) as caught:
        load(path, environment={})
    (line,) = caught.value.problems
    return line


def test_good_file_is_read(folder: Path) -> None:
    assert load("config.toml", environment={}).source == Path("config.toml")


def test_file_that_only_others_can_read_is_read(folder: Path) -> None:
    (folder / "config.toml").chmod(0o444)

    load("config.toml", environment={})


def test_link_to_a_file_is_read(folder: Path) -> None:
    Path("link.toml").symlink_to("config.toml")

    load("link.toml", environment={})


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "it is empty"),
        (b" \n\t\n", "it is empty"),
        (b"\xef\xbb\xbf[host]", "it begins with a byte order mark; save it as UTF-8 without one"),
        (
            "[host]".encode("utf-16"),
            "it begins with a byte order mark; save it as UTF-8 without one",
        ),
        (b"[host]\nname = '\xe4'", "line 2 is not UTF-8"),
        (b"[host]\n\0\0\0", "line 2 has a NUL character; it may have been torn in writing"),
        (b"#" * (1024 * 1024 + 1), "it is too large; expected at most 1 MiB"),
        (b"#" * (10 * 1024 * 1024), "it is too large; expected at most 1 MiB"),
    ],
    ids=["empty", "blank", "BOM", "UTF-16", "Latin-1", "NUL", "1 MiB and 1 byte", "10 MiB"],
)
def test_content_that_is_no_text_is_refused(folder: Path, data: bytes, problem: str) -> None:
    Path("config.toml").write_bytes(data)

    assert refusal() == f"config.toml: {problem}"


def test_file_of_1_mib_is_read(folder: Path) -> None:
    write(GOOD + "#" * (1024 * 1024 - len(GOOD)))

    load("config.toml", environment={})


def test_missing_file_is_refused(folder: Path) -> None:
    assert refusal("nowhere.toml") == "nowhere.toml: there is no such file"
    assert refusal("config.toml/x") == "config.toml/x: there is no such file"


def test_directory_is_refused(folder: Path) -> None:
    assert refusal("depot") == "depot: it is a directory; expected a TOML file"


def test_fifo_is_refused_without_waiting_for_a_writer(folder: Path) -> None:
    os.mkfifo("fifo")

    assert refusal("fifo") == "fifo: it is a FIFO; expected a TOML file"


def test_fifo_that_takes_the_place_of_a_file_is_refused_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo("fifo")
    status = Path("config.toml").stat()

    def a_moment_ago(path: Path) -> os.stat_result:
        return status

    monkeypatch.setattr(Path, "stat", a_moment_ago)

    assert refusal("fifo") == "fifo: it is a FIFO; expected a TOML file"


def test_socket_is_refused(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")

        assert refusal("socket") == "socket: it is a socket; expected a TOML file"


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/stdin"])
def test_device_is_refused(device: str) -> None:
    if Path(device).is_file():
        pytest.skip("it is a file here")

    assert refusal(device).startswith(f"{device}: it is a ")


def test_links_in_a_circle_are_refused(folder: Path) -> None:
    Path("a").symlink_to("b")
    Path("b").symlink_to("a")

    assert refusal("a") == "a: its symbolic links lead in a circle"


@pytest.mark.parametrize(
    ("mode", "who"),
    [(0o660, "its group"), (0o602, "everybody"), (0o666, "everybody"), (0o777, "everybody")],
)
def test_file_that_others_can_write_is_refused(folder: Path, mode: int, who: str) -> None:
    Path("config.toml").chmod(mode)

    assert refusal() == f"config.toml: {who} can write to it; run: chmod go-w config.toml"


@as_root
def test_file_of_another_user_is_refused(folder: Path) -> None:
    os.chown("config.toml", 12345, -1)

    assert refusal() == "config.toml: it belongs to user 12345; expected this user (0) or root"


@as_root
def test_unreadable_file_is_refused(folder: Path) -> None:
    for parent in (folder, *folder.parents[:3]):
        parent.chmod(0o755)  # the file is what cannot be read, and not the way to it
    os.seteuid(65534)
    try:
        line = refusal()
    finally:
        os.seteuid(0)

    assert line == "config.toml: this user may not read it"


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("a\0b", r"a\x00b: no file can have such a path"),
        ("x" * 300, f"{'x' * 300}: File name too long"),
    ],
    ids=["NUL", "long"],
)
def test_path_that_no_file_can_have_is_refused(folder: Path, path: str, line: str) -> None:
    assert refusal(path) == line


def test_refusal_names_the_path_as_it_was_given(folder: Path) -> None:
    write("")

    assert refusal(folder / "config.toml") == f"{folder}/config.toml: it is empty"
    assert refusal("depot/../config.toml") == "depot/../config.toml: it is empty"
