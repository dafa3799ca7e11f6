"""Logs: the only file that knows loguru. Events become lines, for people or for machines."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Literal, TextIO

import attrs
from attrs import validators
from loguru import logger

from ..errors import Failure, ServicesError
from ..lifecycle import current_service, events
from ..queues import current_job

if TYPE_CHECKING:
    from loguru import Logger as Logger, Message, Record
else:
    Logger = type(logger)  # by which it can be asked for; loguru has the name for checkers only

LEVELS = ("trace", "debug", "info", "success", "warning", "error", "critical")

_COLOURS = {"DEBUG": "2", "SUCCESS": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "1;31"}
_OUR_FILES = __file__.removesuffix("telemetry/_logs.py")


def _known_levels(instance: object, attribute: object, value: Mapping[str, str]) -> None:
    for service, level in value.items():
        if level not in LEVELS:
            raise ValueError(
                f"the level of {service} must be one of {', '.join(LEVELS)}: {level!r}"
            )


@attrs.frozen
class LogSettings:
    """How to log.

    Args:
        level: the least severe level that is logged.
        format: ``"console"`` for people, ``"json"`` for machines, one object a line.
        levels: another level for the services of these names, and those below them.
    """

    level: str = attrs.field(default="info", validator=validators.in_(LEVELS))
    format: Literal["console", "json"] = attrs.field(
        default="console", validator=validators.in_(("console", "json"))
    )
    levels: Mapping[str, str] = attrs.field(factory=dict[str, str], validator=_known_levels)


def configure_logs(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send what is logged through loguru to a stream; for whoever owns the process.

    Args:
        settings: what to log, and in which form.
        stream: where to. Default: standard error.
    """
    target = stream or sys.stderr
    if target is None:  # it was closed before Python started
        logger.configure(handlers=[])
        return
    colours = settings.format == "console" and target.isatty()

    def write(message: Message) -> None:
        record = message.record
        line = _as_json(record) if settings.format == "json" else _as_text(record, colours)
        target.write(line + "\n")
        target.flush()

    threshold = logger.level(settings.level.upper()).no
    thresholds = {name: logger.level(text.upper()).no for name, text in settings.levels.items()}

    def wanted(record: Record) -> bool:
        least = threshold
        if thresholds:
            for name in str(record["extra"].get("service", "")).split("/"):
                least = thresholds.get(name, least)
        return record["level"].no >= least

    logger.configure(
        # `diagnose` would print the values of local variables, secrets among them.
        handlers=[{"sink": write, "level": 0, "filter": wanted, "diagnose": False}],
        patcher=_add_context,
    )


def _add_context(record: Record) -> None:
    """Say for which service and job a line was logged, if nobody has yet."""
    extra = record["extra"]
    try:
        extra.setdefault("service", current_service().name)
    except RuntimeError:
        return  # logged from outside of any service
    job = current_job.get()
    if job is not None:
        extra.setdefault("job", job.id)
        extra.setdefault("attempt", job.attempt)


def _as_text(record: Record, colours: bool) -> str:
    level = record["level"].name
    extra = record["extra"]
    who = " ".join(str(extra[key]) for key in ("service", "job") if key in extra)
    who = who.replace("\n", "\\n")
    text = "\n".join([f"{who}: " * bool(who) + record["message"], *_traceback(record)])
    # What follows on further lines is indented, and so cannot pass for a line of its own.
    text = _printable(text.replace("\n", "\n    "))
    time = record["time"].strftime("%H:%M:%S.%f")[:-3]
    shown = f"{level:<8}"
    if colours and level in _COLOURS:
        shown = f"\x1b[{_COLOURS[level]}m{shown}\x1b[0m"
    return f"{time} {shown} {text}"


def _as_json(record: Record) -> str:
    entry: dict[str, object] = {
        "time": record["time"].astimezone(UTC).isoformat(timespec="milliseconds"),
        "level": record["level"].name.lower(),
        "message": record["message"],
    }
    for key, value in record["extra"].items():
        entry[f"extra_{key}" if key in entry else key] = value
    if lines := _traceback(record):
        entry["traceback"] = "\n".join(lines)
    try:
        return _dumps(entry)
    except Exception:  # noqa: BLE001 -- NaN, odd keys, a cycle, a broken __str__: the line counts
        return _dumps({key: _told(value) for key, value in entry.items()})


def _told(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 -- whatever it raises
        return f"<{type(value).__name__} that cannot be shown>"


# ASCII only: some characters end a line, steer a terminal, or cannot be encoded.
_dumps = json.JSONEncoder(default=str, allow_nan=False, separators=(",", ":")).encode


def _printable(text: str) -> str:
    """Without the control characters by which a message could fool a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _traceback(record: Record) -> list[str]:
    exception = record["exception"]
    if exception is None or exception.value is None:
        return []
    error = exception.value
    frames = error.__traceback__
    # A reader looks for the service's own lines: those of the supervisor around them are left out.
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OUR_FILES):
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames or error.__traceback__))
    return text.rstrip().split("\n")


def service_logger() -> Logger:
    """The logger of the service that the calling task belongs to."""
    return logger.bind(service=current_service().name)


def log_critical(text: str) -> None:
    """Log the end of a story."""
    logger.critical(text)


class EventLog:
    """Logs what happens to services and jobs; listens on a bus."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[str, str, str]] = {}  # the failure last shown in full

    def __call__(self, event: events.Event) -> None:
        """Log one event."""
        log = logger.bind(service=event.service)
        match event:
            case events.ServiceStarting(attempt=attempt):
                log.debug(f"starting (start {attempt})")
            case events.ServiceReady(took=took, value=value):
                # Some say where they are to be found; others' values are no text for people.
                where = f", {value}" if isinstance(value, str) else ""
                log.info(f"ready in {_seconds(took)}{where}")
            case events.ServiceReturned(ran=ran):
                log.info(f"returned after {_seconds(ran)}")
            case events.ServiceFailed(failure=failure, error=error, stopping=stopping):
                # Our own errors say all that there is: their frames are those of the supervisor.
                own = isinstance(error, ServicesError)
                shown = error if self._is_news(failure) and not own else None
                when = "failed while stopping" if stopping else "failed"
                log.opt(exception=shown).error(f"{when}: {_cause(failure)}")
            case events.ServiceRestarting(delay=delay, restart=restart):
                log.warning(f"restart {restart} in {_seconds(delay)}")
            case events.ServiceStopping(within=within):
                log.info(f"stopping, within {_seconds(within)}")
            case events.ServiceStopped(took=took):
                log.info(f"stopped in {_seconds(took)}")
            case events.ServiceOverdue(overdue=overdue, stack=stack):
                log.critical(
                    f"ignores its cancellation: still there {_seconds(overdue)} past its deadline, "
                    f"at\n{stack}"
                )
            case events.BreakerOpened(delay=delay):
                log.error(f"breaker open: left alone for {_seconds(delay)}")
            case events.BreakerHalfOpened():
                log.warning("breaker half-open: one more start will show")
            case events.BreakerClosed():
                log.info("breaker closed: healthy again")
            case events.BreakerGaveUp(opened=opened):
                log.critical(f"breaker gave up: opened {_times(opened)} in a row, stays down")
            case events.SupervisorGaveUp(reason=reason):
                log.critical(f"gives up: {reason}")
            case events.JobRetrying(failure=failure, delay=delay, attempt=attempt):
                log.bind(job=event.job, attempt=attempt).warning(
                    f"attempt {attempt} failed: {_cause(failure)}; next in {_seconds(delay)}"
                )
            case events.JobFellBack(failure=failure, attempts=attempts):
                log.bind(job=event.job, attempt=attempts).warning(
                    f"failed for good, and fell back: {_cause(failure)}"
                )
            case events.JobDead(failure=failure, attempts=attempts):
                log.bind(job=event.job, attempt=attempts).error(
                    f"dead after {attempts} attempt{'s' * (attempts > 1)}: {_cause(failure)}"
                )
            case events.DeadLetterKept(failure=failure):
                log.bind(job=event.job).critical(
                    f"its dead letter was not taken, and is kept in memory: {_cause(failure)}"
                )
            case events.WorkEnded(source=source, accounts=accounts):
                log.info(f"queue {source}: {accounts}")
            case events.ConfigurationReloaded():
                log.info(f"configuration reloaded: {_changes(event)}")
            case events.ConfigurationRejected(problems=problems):
                for problem in problems:
                    log.error(f"configuration unchanged: {problem}")
            case events.ConfigurationRolledBack(reason=reason, restored=restored):
                log.error(f"configuration rolled back: {reason}")
                if not restored:
                    log.critical("with the previous configuration, not all is ready either")
            case events.SupervisorStopping():
                pass  # its stop is told as that of a service
            case _:
                log.debug(repr(event))

    def _is_news(self, failure: Failure) -> bool:
        """Whether a service fails otherwise than the last time: then its traceback is shown."""
        kind = (failure.type, failure.message, failure.where)
        news = self._told.get(failure.service) != kind
        self._told[failure.service] = kind
        return news


def _changes(event: events.ConfigurationReloaded) -> str:
    kinds = {
        "added": event.added,
        "removed": event.removed,
        "restarted": event.restarted,
        "adjusted": event.adjusted,
    }
    parts = [f"{kind} {' and '.join(names)}" for kind, names in kinds.items() if names]
    return ", ".join(parts) or "no service is concerned"


def _cause(failure: Failure) -> str:
    return str(failure).removeprefix(f"{failure.service}: ")


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _seconds(seconds: float) -> str:
    return (
        f"{seconds:.3g} s"
        if seconds >= 1
        else f"{seconds * 1000:.3g} ms"
        if seconds >= 0.001
        else "0 s"
    )
