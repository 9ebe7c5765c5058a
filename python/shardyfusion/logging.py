"""Structured logging through the standard library: the message is an event's name, the fields sit in
`record.shardyfusion`. Nothing is printed before a program configures logging: with `configure_logging`, or as it likes."""

from __future__ import annotations

import json
import logging
import traceback as _traceback
from contextvars import ContextVar, Token
from datetime import datetime, timezone
from enum import Enum
from typing import Any

from shardyfusion._native import safe_text

__all__ = [
    "LOGGER",
    "FailureSeverity",
    "JsonFormatter",
    "LogContext",
    "configure_logging",
    "get_logger",
    "log_event",
    "log_failure",
]

_ROOT = "shardyfusion"
LOGGER = logging.getLogger(_ROOT)
LOGGER.addHandler(logging.NullHandler())  # else Python prints warnings bare when nobody listens

_context: ContextVar[dict[str, Any]] = ContextVar("shardyfusion_log_context", default={})


class FailureSeverity(str, Enum):
    """How bad a failure is: WARNING, ERROR and CRITICAL in terms of the standard library."""

    TRANSIENT = "transient"
    ERROR = "error"
    CRITICAL = "critical"


_LEVELS = {
    FailureSeverity.TRANSIENT: logging.WARNING,
    FailureSeverity.ERROR: logging.ERROR,
    FailureSeverity.CRITICAL: logging.CRITICAL,
}


class LogContext:
    """Fields that every event logged inside of `with LogContext(...)` carries; also across awaits of the same task."""

    def __init__(self, **fields: Any) -> None:
        self._fields = fields
        self._tokens: list[Token[dict[str, Any]]] = []

    def __enter__(self) -> LogContext:
        self._tokens.append(_context.set({**_context.get(), **self._fields}))
        return self

    def __exit__(self, *args: object) -> None:
        _context.reset(self._tokens.pop())


def get_logger(name: str) -> logging.Logger:
    """The logger of that name, below `shardyfusion`."""
    return logging.getLogger(name if name == _ROOT or name.startswith(f"{_ROOT}.") else f"{_ROOT}.{name}")


def log_event(event: str, *, level: int = logging.INFO, logger: logging.Logger | None = None, **fields: Any) -> None:
    """Logs an event with its fields."""
    target = LOGGER if logger is None else logger
    if target.isEnabledFor(level):
        target.log(level, event, extra={"shardyfusion": {**_context.get(), **fields}})


def log_failure(
    event: str,
    *,
    severity: FailureSeverity | str,
    error: BaseException | None = None,
    include_traceback: bool = False,
    logger: logging.Logger | None = None,
    **fields: Any,
) -> None:
    """Logs a failure at the level of its severity, which may be its text ("transient"); the traceback as a list of texts."""
    severity = FailureSeverity(severity)
    fields["severity"] = severity.value
    if error is not None:
        fields["error"] = repr(error)
        if include_traceback:
            fields["traceback"] = _traceback.format_exception(error)
    log_event(event, level=_LEVELS[severity], logger=logger, **fields)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: timestamp (ISO 8601 in UTC, or as `datefmt` says), level, logger, event, then the fields."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        if datefmt is not None:
            return super().formatTime(record, datefmt)
        return datetime.fromtimestamp(record.created, timezone.utc).isoformat()

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "timestamp": self.formatTime(record, self.datefmt),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        entry.update(getattr(record, "shardyfusion", {}))
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        line = json.dumps(entry, default=str, ensure_ascii=False)
        if line.isprintable() or safe_text(line) == line:
            return line
        return json.dumps(entry, default=str).replace("\x7f", "\\u007f")


class _FieldsFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, "shardyfusion", {}))
        lines = fields.pop("traceback", ())
        words = [super().format(record), *(f"{name}={safe_text(str(value))}" for name, value in fields.items())]
        return "\n".join([" ".join(words), *(safe_text(line) for line in "".join(lines).splitlines())])


def configure_logging(level: int = logging.INFO, json_format: bool = False, stream: Any = None) -> None:
    """For programs: sends the package's events to `stream` (standard error), in place of the package's earlier handlers, and
    there only: handlers of the root logger do not print them again. Any number of times."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        JsonFormatter() if json_format else _FieldsFormatter("%(asctime)s %(levelname)s %(name)s %(message)s")
    )
    for old in list(LOGGER.handlers):
        LOGGER.removeHandler(old)
    LOGGER.addHandler(handler)
    LOGGER.propagate = False
    LOGGER.setLevel(level)
