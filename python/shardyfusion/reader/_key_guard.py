"""Bytes given as keys of a snapshot whose keys are integers."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from logging import Logger

from shardyfusion._key_errors import INTEGER_BITS
from shardyfusion._storage_errors import InvalidArgumentError
from shardyfusion.logging import log_event
from shardyfusion.type_defs import KeyInput


class KeyGuard:
    """Such bytes route by themselves, to another shard than the integer of which they are the stored form: what they ask
    for is missed, and nobody says so. They are refused, or one warning is logged per reader. The engine asks for its own
    look-ups (`_core/core.c`)."""

    def __init__(self, strict: bool, log: Logger, s3_prefix: str) -> None:
        self._strict = strict
        self._log = log
        self._s3_prefix = s3_prefix
        self._is_over = False

    def refuse_or_warn(self, key: bytes, encoding: str) -> bool:
        """Whether it wants to be asked again. InvalidArgumentError when the key is refused."""
        if self._strict:
            raise InvalidArgumentError(
                f"the keys of this snapshot are integers ({encoding}), and the reader has strict_keys: give "
                f"int.from_bytes({key[:16]!r}, 'big') in place of {'these bytes' if len(key) <= 16 else 'bytes'}"
            )
        if not self._is_over:
            self._is_over = True
            log_event(
                "reader_bytes_key_on_integer_snapshot",
                level=logging.WARNING,
                logger=self._log,
                s3_prefix=self._s3_prefix,
                encoding=encoding,
                advice="bytes route otherwise than the integer that they store: give an int; strict_keys=True refuses them",
            )
        return False

    def look_at(self, keys: Iterable[KeyInput], encoding: str) -> None:
        """Of look-ups over parts of the caller's."""
        if self._is_over or encoding not in INTEGER_BITS:
            return
        for key in keys:
            if isinstance(key, bytes):
                self.refuse_or_warn(key, encoding)
                return
