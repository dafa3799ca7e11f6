"""Secrets come from where the file says, and what is wrong with them is told without them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import attrs
import pytest

from trio_services import Secret
from trio_services.config import Application, load
from trio_services.config._secrets import Secrets
from trio_services.config._structure import StructureError, strict_converter, structure

from .cases import GOOD, service
from .conftest import Build, Refused, write

TEXT = "correct horse battery staple"
WHERE = '{ env = "NAME" } or { file = "PATH" }'


def login(token: str, more: str = "") -> str:
    """A configuration with a service that asks for a secret."""
    return service(f'use = "depot.code:log_in"\noptions = {{ token = {token}{more} }}')


def options(built: Application) -> Any:
    (child,) = [child for child in built.tree.children if child.name == "extra"]
    service: Any = child.service
    return service.keywords["options"]


def test_secret_comes_from_the_environment(built: Build) -> None:
    application = built(login('{ env = "TOKEN" }'), environment={"TOKEN": TEXT})

    assert options(application).token == Secret(TEXT)


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_secret_comes_from_a_file_beside_the_configuration(built: Build, end: str) -> None:
    Path("token").write_bytes(f"{TEXT}{end}".encode())

    assert options(built(login('{ file = "token" }'))).token == Secret(TEXT)


def test_secret_comes_through_links_as_containers_have_them(built: Build) -> None:
    Path("..data").mkdir()
    Path("..data/token").write_text(TEXT)
    Path("token").symlink_to("..data/token")

    assert options(built(login('{ file = "token" }'))).token == Secret(TEXT)


def test_secret_comes_from_a_variable_that_overrides_its_key(built: Build) -> None:
    environment = {"TRIO_SERVICES__SERVICES__EXTRA__OPTIONS__TOKEN": "12345"}

    application = built(login('{ env = "TOKEN" }'), environment=environment)

    assert options(application).token == Secret("12345")


@pytest.mark.parametrize(
    "override",
    ['services.extra.options.token={ env = "TOKEN" }', "services.extra.options.token.env=TOKEN"],
)
def test_argument_says_where_a_secret_is(built: Build, override: str) -> None:
    application = built(login('{ env = "OTHER" }'), override, environment={"TOKEN": TEXT})

    assert options(application).token == Secret(TEXT)


def test_secret_or_text_is_text_where_it_is_written_out(built: Build) -> None:
    token = '{ env = "TOKEN" }'
    environment = {"TOKEN": TEXT}

    public = built(login(token, ', url = "ftp://x"'), environment=environment)
    secret = built(login(token, f", url = {token}"), environment=environment)

    assert options(public).url == "ftp://x"
    assert options(secret).url == Secret(TEXT)


def test_secrets_are_in_lists_and_tables_too(built: Build) -> None:
    token = '{ env = "TOKEN" }'
    more = f", spare = [{token}], by_name = {{ a = {token} }}, maybe = {token}"

    found = options(built(login(token, more), environment={"TOKEN": TEXT}))

    assert found.spare == (Secret(TEXT),)
    assert found.by_name == {"a": Secret(TEXT)}
    assert found.maybe == Secret(TEXT)


@pytest.mark.parametrize(
    ("token", "problem"),
    [
        ('"hunter2"', f"a secret in clear text; write {WHERE}"),
        ("12345", f"a secret in clear text; write {WHERE}"),
        ('["hunter2"]', f"a secret in clear text; write {WHERE}"),
        ("{}", f"not where a secret is; expected {WHERE}"),
        ('{ text = "hunter2" }', f"not where a secret is; expected {WHERE}"),
        ('{ env = "" }', f"not where a secret is; expected {WHERE}"),
        ("{ env = 12345 }", f"not where a secret is; expected {WHERE}"),
        ('{ env = "TOKEN", file = "token" }', f"not where a secret is; expected {WHERE}"),
        ('{ env = "NOWHERE" }', "the environment has no NOWHERE; set it"),
        ('{ env = "EMPTY" }', "EMPTY is empty in the environment"),
        ('{ env = "BYTES" }', "BYTES in the environment is not UTF-8 text"),
        ('{ env = "a\\nb" }', r"the environment has no a\nb; set it"),
        ('{ file = "nowhere" }', "nowhere: there is no such file"),
        ('{ file = "empty" }', "empty: it is empty"),
        ('{ file = "lines" }', "lines: it is empty"),
        ('{ file = "." }', ".: it is a directory; expected a file with a secret"),
        ('{ file = "fifo" }', "fifo: it is a FIFO; expected a file with a secret"),
        ('{ file = "bytes" }', "bytes: it is not UTF-8 text"),
        ('{ file = "large" }', "large: it is too large; expected at most 64 KiB"),
        ('{ file = "open" }', "open: everybody can write to it; take that right away"),
        ('{ file = "a\\u0000b" }', r"a\x00b: no file can have such a path"),
    ],
)
def test_secret_that_is_not_to_be_had_is_one_line(
    folder: Path, refused: Refused, token: str, problem: str
) -> None:
    for name, data in [
        ("empty", b""),
        ("lines", b"\n\r\n"),
        ("bytes", b"hunter2\xff"),
        ("large", b"hunter2" * 10_000),
        ("open", b"hunter2"),
    ]:
        Path(name).write_bytes(data)
        Path(name).chmod(0o602 if name == "open" else 0o600)
    os.mkfifo("fifo")
    environment = {"EMPTY": "", "BYTES": "hunter2\udcff"}

    assert refused(login(token), environment=environment) == [
        f"config.toml:services.extra.options.token: {problem}"
    ]


def test_argument_that_holds_a_secret_is_refused_and_not_shown(refused: Refused) -> None:
    assert refused(login('{ env = "TOKEN" }'), "services.extra.options.token=hunter2") == [
        "--set services.extra.options.token: a secret in an argument, which others can see; "
        f"write {WHERE}"
    ]


@attrs.frozen
class Credentials:
    token: Secret


@pytest.mark.parametrize(
    ("value", "target"),
    [
        ("hunter2", Secret | None),
        ("hunter2", Secret | int),
        ("hunter2", list[Secret]),
        ("hunter2", dict[str, Secret]),
        ("hunter2", Credentials),
        ("hunter2", dict[str, list[Secret | None]]),
        (["hunter2"], list[Secret]),
        ({"a": "hunter2"}, dict[str, Secret]),
        ({"token": "hunter2"}, Credentials),
        ({"token": {"env": "NOWHERE", "default": "hunter2"}}, Credentials),
    ],
)
def test_value_that_may_be_a_secret_is_not_shown(value: object, target: Any) -> None:
    converter = strict_converter(Path(), Secrets(Path(), {}))

    with pytest.raises(StructureError) as caught:
        structure(converter, value, target, ())

    (problem,) = caught.value.problems
    assert "hunter" not in problem.text


@pytest.mark.parametrize("text", [TEXT, "correct\nhorse", 'correct "horse"', "correct \\ horse"])
@pytest.mark.parametrize("use", ["log_in_carefully", "log_in_oddly"])
def test_secret_that_a_validator_tells_is_masked(refused: Refused, use: str, text: str) -> None:
    lines = refused(login('{ env = "TOKEN" }').replace("log_in", use), environment={"TOKEN": text})

    (line,) = lines
    assert "***" in line
    assert "horse" not in line


def test_secret_that_a_handler_tells_is_masked(refused: Refused) -> None:
    text = GOOD.replace(
        '"depot.code:deliver"', '"depot.code:Teller"\noptions = { token = { env = "TOKEN" } }'
    )

    (line,) = refused(text, environment={"TOKEN": TEXT})

    assert "making depot.code:Teller failed: ValueError: bad ***" in line
    assert "horse" not in line


def test_length_of_a_secret_is_checked_by_a_validator_of_attrs(refused: Refused) -> None:
    lines = refused(
        login('{ env = "TOKEN" }', ', maybe = { env = "SHORT" }'),
        environment={"TOKEN": TEXT, "SHORT": "abc"},
    )

    assert lines == ["config.toml:services.extra.options.maybe: Length of 'maybe' must be >= 8: 3"]


def test_configuration_does_not_show_the_environment(folder: Path) -> None:
    write(login('{ env = "TOKEN" }'))
    assert "horse" not in repr(load("config.toml", environment={"TOKEN": TEXT}))
