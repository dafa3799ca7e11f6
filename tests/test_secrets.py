"""A secret is nowhere to be seen but where it is revealed."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
import traceback

import attrs
import pytest
from loguru import logger

from trio_services import Secret
from trio_services.telemetry import LogSettings, configure_logs

TEXT = "correct horse battery staple"
SECRET = Secret(TEXT)


@attrs.frozen
class Login:
    user: str
    password: Secret


@dataclasses.dataclass
class Key:
    key: Secret


def test_secret_is_revealed_to_who_asks() -> None:
    assert SECRET.reveal() == TEXT


@pytest.mark.parametrize(
    "shown",
    [
        str(SECRET),
        repr(SECRET),
        f"{SECRET}{SECRET!r}{SECRET!s}{SECRET!a}{SECRET:>40}",
        "%s %r" % (SECRET, SECRET),  # noqa: UP031
        repr([SECRET]),
        repr(Login("ada", SECRET)),
        repr(attrs.asdict(Login("ada", SECRET))),
        repr(dataclasses.asdict(Key(SECRET))),
        repr(dir(SECRET)),
    ],
)
def test_secret_is_not_shown(shown: str) -> None:
    assert "horse" not in shown


@pytest.mark.parametrize("form", ["console", "json"])
def test_secret_is_in_no_log(form: str) -> None:
    stream = io.StringIO()
    configure_logs(LogSettings(format=form), stream)  # type: ignore[arg-type]
    try:
        logger.bind(login=Login("ada", SECRET), key=SECRET).info(f"logs in with {SECRET}")
        logger.info("logs in with {}", SECRET)
        try:
            raise ValueError("no such login", SECRET)
        except ValueError:
            logger.exception("refused")
    finally:
        logger.remove()

    assert stream.getvalue().count("logs in") == 2
    assert "horse" not in stream.getvalue()


def test_secret_is_in_no_traceback_that_shows_variables() -> None:
    def log_in(secret: Secret) -> None:
        login = Login("ada", secret)
        raise ValueError(login)

    with pytest.raises(ValueError) as caught:
        log_in(SECRET)
    error = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    shown = "".join(error.format())

    assert "login = Login(" in shown
    assert "horse" not in shown


def test_secrets_of_the_same_text_are_equal() -> None:
    assert Secret("a") == Secret("a")
    assert hash(Secret("a")) == hash(Secret("a"))
    assert Secret("a") != Secret("b")
    assert Secret("ä\ud800") == Secret("ä\ud800")
    assert Secret("a") != "a"


def test_secret_has_the_length_of_its_text() -> None:
    assert len(SECRET) == len(TEXT)


def test_secret_can_be_copied_and_sent_to_a_process() -> None:
    assert copy.deepcopy(SECRET) == SECRET
    assert pickle.loads(pickle.dumps(SECRET)) == SECRET


def test_secret_cannot_be_given_anything_more() -> None:
    with pytest.raises(AttributeError):
        setattr(SECRET, "note", "x")  # noqa: B010
