from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attrs
import pytest

import trio_services
from trio_services.admin import Bind


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:8765",
        "127.0.0.2:80",
        "127.0.0.1:0",
        "127.0.0.1:65535",
        "[::1]:8765",
        "localhost:8765",
        "LocalHost:1",
        "unix:run/admin.sock",
        "unix:/run/app/admin.sock",
    ],
)
def test_bind_gives_back_the_text_it_was_read_from(text: str) -> None:
    assert str(Bind.parse(text)) == text


def test_bind_has_its_parts_as_attributes() -> None:
    assert attrs.astuple(Bind.parse("[::1]:8765")) == ("::1", 8765, "")
    assert attrs.astuple(Bind.parse("unix:run/admin.sock")) == ("", 0, "run/admin.sock")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "127.0.0.1",
        "127.0.0.1:",
        "8765",
        "localhost",
        "127.0.0.1:http",
        "127.0.0.1:80 ",
        "127.0.0.1:+80",
        "127.0.0.1:0080",
        "127.0.0.1:8_0",
        "127.0.0.1:٨٠",
        "127.0.0.1:" + "9" * 5000,
        "::1:8765",
        "[::1]",
        "[127.0.0.1]:80",
        "[localhost]:80",
        "[::1:80",
        "::1]:80",
        "unix:",
    ],
)
def test_text_that_is_no_address_is_refused_with_examples_of_some(text: str) -> None:
    with pytest.raises(ValueError, match=r"write 127\.0\.0\.1:8765") as caught:
        Bind.parse(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("port", ["65536", "70000", "-1", "999999999"])
def test_port_out_of_range_is_refused(port: str) -> None:
    with pytest.raises(ValueError, match=rf"^port {port} is not in 0 to 65535$"):
        Bind.parse(f"127.0.0.1:{port}")


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0:80",
        ":80",
        "[::]:80",
        ":::80",
        "*:80",
        "192.168.0.1:80",
        "[fe80::1%lo]:80",
        "[::ffff:127.0.0.1]:80",
        "example.com:80",
        "localhost.example.com:80",
        "127.0.0.1.example.com:80",
        "http://127.0.0.1:80",
    ],
)
def test_bind_beyond_loopback_is_refused_with_a_remedy(text: str) -> None:
    with pytest.raises(ValueError, match=r"bind 127\.0\.0\.1 and put a proxy in front$"):
        Bind.parse(text)


@pytest.mark.parametrize("text", ["unix:a\0b", "unix:" + "d/" * 60])
def test_path_that_no_socket_can_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^path: "):
        Bind.parse(text)


def test_bind_made_by_hand_is_checked_too() -> None:
    with pytest.raises(ValueError, match="not loopback"):
        Bind(host="10.0.0.1", port=80)
    with pytest.raises(ValueError, match="neither host nor port"):
        Bind(host="127.0.0.1", port=80, path="admin.sock")


def test_bind_alone_imports_neither_trio_nor_a_web_framework() -> None:
    # The package's own door is kept out of it: what it imports is not this room's affair.
    program = f"""
import sys, types
package = types.ModuleType("trio_services")
package.__path__ = [{str(Path(trio_services.__file__).parent)!r}]
sys.modules["trio_services"] = package
from trio_services.admin import Bind
Bind.parse("127.0.0.1:8765")
print(sorted({{"trio", "starlette", "hypercorn", "h11"}} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (run.stdout, run.stderr) == ("[]\n", "")


def test_door_has_the_server_and_no_name_beyond_its_own() -> None:
    import trio_services.admin as door

    assert door.serve_admin.__name__ == "serve_admin"
    assert issubclass(door.AdminUnavailable, Exception)
    assert not hasattr(door, "serve_everything")
