"""Dotenv files: KEY=VALUE lines, comments, an optional `export`, one pair of quotes; nothing is expanded."""

from __future__ import annotations

from shardyfusion.logging import FailureSeverity, get_logger, log_failure

_log = get_logger("shardyfusion.credentials")


def read_env_file(path: str) -> dict[str, str]:
    """The file's values. A file that cannot be read counts as empty, with one warning."""
    try:
        with open(path, encoding="utf-8") as file:
            return parse_env(file.read())
    except (OSError, UnicodeDecodeError) as error:
        log_failure("env_file_unreadable", severity=FailureSeverity.TRANSIENT, error=error, logger=_log, env_file=path)
        return {}


def parse_env(text: str) -> dict[str, str]:
    values = {}
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        name, separator, value = line.removeprefix("export ").partition("=")
        if separator and name.strip():
            values[name.strip()] = _value(value.strip())
    return values


def _value(text: str) -> str:
    if text[:1] in ("'", '"'):
        end = text.find(text[0], 1)
        if end > 0:
            return text[1:end]
    return text.split(" #", 1)[0].rstrip()
