"""The engine, with its errors wired to the package's exceptions. Everything that needs it imports it from here."""

from __future__ import annotations

import atexit
import contextlib
import importlib

from shardyfusion import _key_errors, _native, _storage_errors
from shardyfusion.logging import FailureSeverity, get_logger, log_failure

_log = get_logger("shardyfusion.storage")


def _warned(message: str) -> None:
    """What a store of the engine warns of, once for each store: it cannot do something, or has no credentials."""
    log_failure("storage_warning", severity=FailureSeverity.TRANSIENT, logger=_log, reason=message)


_native.set_hooks(
    error=_storage_errors.from_engine,
    key_error=_key_errors.key_error,
    multi_error=_storage_errors.multi_get_error,
    warning=_warned,
)

# A wheel runs where nobody has installed certificates, too, in small containers most of all.
if not _native.has_authorities():
    with contextlib.suppress(ImportError):
        _native.bring_authorities(importlib.import_module("certifi").where())

atexit.register(_native.let_go_of_providers)

native = _native
__version__ = _native.VERSION
