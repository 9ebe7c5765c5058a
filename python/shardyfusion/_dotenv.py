"""Dotenv files, as python-dotenv reads them: KEY=VALUE lines, comments, an optional `export`, quotes and their escapes.
Nothing is expanded."""

from __future__ import annotations

import re

from shardyfusion.errors import ConfigValidationError
from shardyfusion.logging import FailureSeverity, get_logger, log_failure

_log = get_logger("shardyfusion.credentials")

# One binding, from the beginning of its line; quoted values may go over several lines.
_BINDING = re.compile(
    r"""
    [^\S\r\n]* (?: export [^\S\r\n]+ )?
    (?: '(?P<quoted_name>[^'\r\n]+)' | (?P<name>[^=\#\s]+) ) [^\S\r\n]*
    =
    (?: [^\S\r\n]* '(?P<single>(?:[^'\\]|\\.)*)' (?=[^\S\r\n]*(?:\#[^\r\n]*)?(?:[\r\n]|\Z))
      | [^\S\r\n]* "(?P<double>(?:[^"\\]|\\.)*)" (?=[^\S\r\n]*(?:\#[^\r\n]*)?(?:[\r\n]|\Z))
      | (?P<plain>[^\S\r\n]*(?:[^\s'"][^\r\n]*)?) (?=[\r\n]|\Z)
    )
    """,
    re.VERBOSE | re.DOTALL,
)
_REST_OF_LINE = re.compile(r"[^\r\n]*(?:\r\n|\n|\r|\Z)")
_COMMENT = re.compile(r"\s+#.*")
_ESCAPES = {"\\": "\\", "'": "'", '"': '"', "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def read_env_file(path: str) -> dict[str, str]:
    """The file's values. A file that cannot be read counts as empty, with one warning; one that is no text in UTF-8 is a
    ConfigValidationError: else its keys would be passed over in silence."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        log_failure("env_file_unreadable", severity=FailureSeverity.TRANSIENT, error=error, logger=_log, env_file=path)
        return {}
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ConfigValidationError(f"{path}: no text in UTF-8 (perhaps UTF-16): save it as UTF-8")
    return parse_env(text)


def parse_env(text: str) -> dict[str, str]:
    """Of a name that is set twice the later value counts; a line that is no binding is passed over."""
    values = {}
    text = text.removeprefix("\ufeff")
    at = 0
    while at < len(text):
        found = _BINDING.match(text, at)
        if found is not None:
            values[found["quoted_name"] or found["name"]] = _value(found)
            at = found.end()
        rest = _REST_OF_LINE.match(text, at)
        assert rest is not None  # it matches anything
        at = rest.end()
    return values


def _value(found: re.Match[str]) -> str:
    if found["single"] is not None:
        return re.sub(r"\\([\\'])", r"\1", found["single"])
    if found["double"] is not None:
        return re.sub(r"""\\([\\'"abfnrtv])""", lambda escape: _ESCAPES[escape[1]], found["double"])
    return _COMMENT.sub("", found["plain"]).strip()  # "a= # b" is empty, "a=#b" is not
