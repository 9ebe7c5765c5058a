"""Every exception of the package. `except ShardyfusionError` catches all of them but those that say otherwise here.

`retryable` says whether the same call may succeed when it is repeated. It is a class attribute that single exceptions may
overrule. Exceptions that come from storage also say where: `db_id` (shard number), `object_url`, `operation` ("get",
"list", ...), `attempts` (requests made) and `http_status` (of the last answer); None where it does not apply.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardyfusion._missing import without
from shardyfusion._native import safe_text

__all__ = [
    "BridgeTimeoutError",
    "ConfigValidationError",
    "DbAdapterError",
    "ExhaustedError",
    "ManifestBuildError",
    "ManifestParseError",
    "ManifestStoreError",
    "OperationTimeoutError",
    "PoolExhaustedError",
    "PublishConflictError",
    "PublishCurrentError",
    "PublishManifestError",
    "PublishRefusedError",
    "ReaderStateError",
    "RowError",
    "S3TransientError",
    "ShardAssignmentError",
    "ShardCoverageError",
    "ShardWriteError",
    "ShardyfusionError",
    "WriteCancelledError",
]


class ShardyfusionError(Exception):
    """Base of the package's exceptions. What storage may have put into their texts is escaped."""

    retryable: bool = False
    db_id: int | None = None
    object_url: str | None = None
    operation: str | None = None
    attempts: int | None = None
    http_status: int | None = None
    _status: str | None = None  # the engine's, of its failures

    def __init__(self, *args: object) -> None:
        super().__init__(*(safe_text(arg) if isinstance(arg, str) and not arg.isprintable() else arg for arg in args))


class ConfigValidationError(ShardyfusionError):
    """A bad configuration, a key of the wrong type for the snapshot's encoding, or a snapshot of a kind that cannot be read."""


class ShardAssignmentError(ShardyfusionError):
    """A row without a valid shard, or two parties that disagree about a row's shard."""


class ShardCoverageError(ShardyfusionError):
    """Write attempts name shards that do not exist."""


class DbAdapterError(ShardyfusionError):
    """A shard cannot be opened, read or closed."""


class BridgeTimeoutError(ShardyfusionError):
    """An operation of a shard writer took longer than its bound."""

    retryable = True


class ExhaustedError(ShardyfusionError, OSError):
    """The process or the machine has run out of descriptors or threads. The message says which limit to raise."""

    retryable = True


class ManifestBuildError(ShardyfusionError):
    """A manifest cannot be built."""


class PublishManifestError(ShardyfusionError):
    """The manifest was not written, or the pointer could not be moved in all attempts."""

    retryable = True


class PublishCurrentError(ShardyfusionError):
    """The manifest `manifest_ref` was written, but the pointer was not moved to it."""

    retryable = True

    def __init__(self, message: str, *, manifest_ref: str | None = None) -> None:
        super().__init__(message)
        self.manifest_ref = manifest_ref


class PublishConflictError(PublishCurrentError):
    """The pointer names another manifest (`found`, None: none) than the writer `expected`: somebody else published."""

    retryable = False

    def __init__(
        self,
        message: str,
        *,
        manifest_ref: str | None = None,
        expected: str | None = None,
        found: str | None = None,
    ) -> None:
        super().__init__(message, manifest_ref=manifest_ref)
        self.expected = expected
        self.found = found


class PublishRefusedError(ShardyfusionError):
    """The checks before publishing did not pass. Readers keep the snapshot before."""


class RowError(ConfigValidationError, ValueError):
    """A row cannot be published. The text names the row by its number, from 1, in the order of the records."""


class WriteCancelledError(ShardyfusionError):
    """The write was cancelled by its caller. Nothing was published."""


class OperationCancelledError(ShardyfusionError):
    """A verification or comparison was cancelled by its caller."""


class ManifestParseError(ShardyfusionError):
    """A pointer or manifest is malformed, or of a version or kind that is not known."""


class ReaderStateError(ShardyfusionError):
    """The reader is closed or not open, or there is no snapshot to open."""


class PoolExhaustedError(ShardyfusionError):
    """No shard reader became free in time."""

    retryable = True


class ManifestStoreError(ShardyfusionError):
    """The store of manifests failed."""

    retryable = True


class ShardWriteError(ShardyfusionError):
    """A shard could not be written."""

    retryable = True


class S3TransientError(ShardyfusionError):
    """Storage did not answer, or answered that it is busy, in all attempts."""

    retryable = True


class OperationTimeoutError(ShardyfusionError, TimeoutError):
    """The call's own `timeout` passed before its result was there."""

    retryable = True


if not TYPE_CHECKING:  # a type checker would take any name for one that is there
    __getattr__ = without(__name__, "vector search", {"VectorIndexError", "VectorSearchError"})
