"""The engine, with its errors wired to the package's exceptions. Everything that needs it imports it from here."""

from __future__ import annotations

import atexit

from shardyfusion import _key_errors, _native, _storage_errors

_native.set_hooks(
    error=_storage_errors.from_engine,
    key_error=_key_errors.key_error,
    multi_error=_storage_errors.multi_get_error,
)

atexit.register(_native.let_go_of_providers)

native = _native
__version__ = _native.VERSION
