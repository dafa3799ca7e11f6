from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from trio_services.config import Application, Configuration, build, load
from trio_services.config._load import load_text
from trio_services.errors import ConfigError

from .cases import GOOD

PROJECT = Path(__file__).with_name("project")

Build = Callable[..., Application]
Refused = Callable[..., list[str]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a package `depot`, which is the current one; nothing of it stays imported."""
    shutil.copytree(PROJECT, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in os.environ:
        if name.startswith("TRIO_SERVICES__"):
            monkeypatch.delenv(name)
    write(GOOD)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "depot"]:
        del sys.modules[name]


def write(text: str) -> None:
    """Write the configuration file, such that only its user can change it."""
    path = Path("config.toml")
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)


@pytest.fixture
def built(folder: Path) -> Build:
    """Builds the application of a text, overridden by `--set` arguments and the environment."""

    def make(
        text: str, *overrides: str, environment: Mapping[str, str] | None = None
    ) -> Application:
        write(text)
        return build(load("config.toml", environment=environment or {}, overrides=overrides))

    return make


@pytest.fixture
def refused(built: Build) -> Refused:
    """What is wrong with a text; fails if nothing is."""

    def problems(
        text: str, *overrides: str, environment: Mapping[str, str] | None = None
    ) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            built(text, *overrides, environment=environment)
        return list(caught.value.problems)

    return problems


def loaded(text: str = GOOD, *overrides: str, **environment: str) -> Configuration:
    """The configuration in a text, without any file."""
    return load_text(
        text, source=Path("config.toml"), environment=environment, overrides=overrides, checks={}
    )
