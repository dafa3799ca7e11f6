"""Every check of this project: `nox -s tests lint types docs`; `soak` and `bench` on demand."""

from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["tests", "lint", "types", "docs"]
nox.options.reuse_venv = "yes"
# Whichever of these interpreters a machine has is tested; one is enough to contribute.
nox.options.error_on_missing_interpreters = False

PROJECT = nox.project.load_toml("pyproject.toml")
CODE = ["trio_services", "tests", "examples", "benchmarks", "noxfile.py"]


def install(session: nox.Session, *groups: str) -> None:
    wanted = nox.project.dependency_groups(PROJECT, *groups) if groups else []
    session.install("-q", "-e", ".", *wanted)


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    install(session, "test")
    session.run("pytest", "-m", "not soak", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Slow runs: fault, load and soak tests, and the property tests with many examples."""
    install(session, "test")
    session.run("pytest", "-m", "soak", *session.posargs)
    many = {"HYPOTHESIS_PROFILE": "soak"}
    session.run("pytest", "-m", "hypothesis and not soak", *session.posargs, env=many)


@nox.session
def coverage(session: nox.Session) -> None:
    install(session, "test")
    session.run("coverage", "run", "-m", "pytest", "-m", "not soak", *session.posargs)
    session.run("coverage", "report", "--show-missing", "--skip-covered")


@nox.session
def lint(session: nox.Session) -> None:
    install(session, "lint")
    session.run("ruff", "format", "--check", *CODE, "docs")
    session.run("ruff", "check", *CODE, "docs")
    # Any service may be startable, and pass its `task_status` on. That each public function
    # checkpoints is for the tests: ASYNC910 cannot see it through those that it is made of.
    # ASYNC110 is left to ruff. Time-outs are parameters where psycopg has them as such.
    files = [str(file) for folder in CODE for file in sorted(Path(folder).rglob("*.py"))]
    disable = "--disable=ASYNC109,ASYNC110,ASYNC114,ASYNC128,ASYNC910,ASYNC911"
    session.run("python", "-m", "flake8_async", disable, *files, "noxfile.py")
    session.run("lint-imports", "--no-cache")


@nox.session
def types(session: nox.Session) -> None:
    install(session, "types")
    session.install("-q", *nox.project.dependency_groups(PROJECT, "test"), "nox")
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes", "trio_services", "--ignoreexternal")


@nox.session
def docs(session: nox.Session) -> None:
    install(session, "docs")
    session.run("sphinx-build", "-W", "-q", "-b", "html", "docs", "docs/_build/html")


@nox.session
def bench(session: nox.Session) -> None:
    """Ratios against raw Trio and peers, one JSON line a figure: `nox -s bench -- NAME …`."""
    install(session, "bench")
    names = session.posargs or sorted(p.stem for p in Path("benchmarks").glob("bench_*.py"))
    for name in names:
        session.run("python", f"benchmarks/{name}.py")


@nox.session
def dev(session: nox.Session) -> None:
    """Make `.venv` with everything a contributor needs."""
    if not Path(".venv").exists():
        session.run("python3", "-m", "venv", ".venv", external=True)
    groups = nox.project.dependency_groups(PROJECT, "test", "lint", "types", "docs", "release")
    session.run(".venv/bin/pip", "install", "-q", "-e", ".", "nox", *groups, external=True)
