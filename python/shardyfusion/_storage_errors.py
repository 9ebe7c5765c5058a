"""What the failures of storage look like in Python.

A missing object is also a FileNotFoundError and a denied one a PermissionError, for callers who catch those.
"""

from __future__ import annotations

from shardyfusion.errors import (
    ConfigValidationError,
    DbAdapterError,
    ExhaustedError,
    ManifestParseError,
    ManifestStoreError,
    OperationTimeoutError,
    PublishRefusedError,
    ReaderStateError,
    RowError,
    S3TransientError,
    ShardyfusionError,
)

READER_CLOSED = "Reader is closed"
NO_CURRENT = "CURRENT pointer not found"
NO_CURRENT_AT_REFRESH = "CURRENT pointer not found during refresh"
NO_GOOD_MANIFEST = "No valid manifest found after fallback"


class MissingCurrentError(ReaderStateError, FileNotFoundError):
    """There is no pointer below the prefix: nothing was published there."""


class MissingObjectError(ManifestStoreError, FileNotFoundError):
    """An object that the pointer or the caller names does not exist."""

    retryable = False


class DeniedObjectError(ManifestStoreError, PermissionError):
    """Storage refused access to a pointer, a manifest or an object that the caller names."""

    retryable = False


class MissingShardObjectError(DbAdapterError, FileNotFoundError):
    """An object of a shard does not exist."""


class DeniedShardObjectError(DbAdapterError, PermissionError):
    """Storage refused access to an object of a shard."""


class UnusableFolderError(DbAdapterError, OSError):
    """Nothing can be made in a local folder."""


class InvalidArgumentError(ConfigValidationError, ValueError):
    """An argument or a location that the engine cannot work with."""


class MissingColumnError(ConfigValidationError, KeyError):
    """A data frame has no column of the name of the key's."""

    __str__ = Exception.__str__  # KeyError's shows the text in quotes


class ConditionFailedError(ManifestStoreError):
    """A conditional write lost: the object is not what the caller expected."""

    retryable = False


class UnsupportedByStoreError(ManifestStoreError):
    """The store has answered that it cannot do what was asked, in any form."""

    retryable = False


class ForkedError(ReaderStateError):
    """The object belongs to the parent of this forked process. Open it again in the child."""


class MultiGetError(ExceptionGroup, DbAdapterError):
    """Shards of one multi_get that failed, one member each: for `except*` and for `except DbAdapterError` alike."""

    def derive(self, excs):  # type: ignore[no-untyped-def]
        return MultiGetError(self.message, excs)


class UnknownRoutingTokenError(ValueError):
    """The token that a categorical expression gave is none of the snapshot's."""


UnknownRoutingTokenError.__module__ = "shardyfusion.cel"  # where its users know it from


def multi_get_error(errors: list[Exception]) -> Exception:
    """For the shards of one call that failed. When its own time is over they all say so, and the call says it once."""
    if errors and all(isinstance(error, OperationTimeoutError) for error in errors):
        return errors[0]
    return MultiGetError("unhandled errors in a TaskGroup", errors)


# status of the engine -> (outside of a shard, inside of one)
_CLASSES: dict[str, tuple[type[BaseException], type[BaseException]]] = {
    "INVALID": (InvalidArgumentError, InvalidArgumentError),
    "INVALID_KEY": (InvalidArgumentError, InvalidArgumentError),
    "STATE": (ReaderStateError, ReaderStateError),
    "NO_CURRENT": (MissingCurrentError, MissingCurrentError),
    "NO_SNAPSHOT": (ReaderStateError, ReaderStateError),
    "BAD_MANIFEST": (ManifestParseError, ManifestParseError),
    "NOT_FOUND": (MissingObjectError, MissingShardObjectError),
    "CORRUPT": (ManifestParseError, DbAdapterError),
    "UNSUPPORTED": (ConfigValidationError, DbAdapterError),
    "MERGE_OPERATOR": (DbAdapterError, DbAdapterError),
    "DENIED": (DeniedObjectError, DeniedShardObjectError),
    "CONFLICT": (ConditionFailedError, ConditionFailedError),
    "IO": (ManifestStoreError, DbAdapterError),
    "UNAVAILABLE": (S3TransientError, S3TransientError),
    "TIMEOUT": (OperationTimeoutError, OperationTimeoutError),
    "CANCELLED": (ReaderStateError, ReaderStateError),
    "NOMEM": (MemoryError, MemoryError),
    "FORKED": (ForkedError, ForkedError),
    "BAD_ROW": (RowError, RowError),
    "NO_ROUTE": (UnknownRoutingTokenError, UnknownRoutingTokenError),
    "EXHAUSTED": (ExhaustedError, ExhaustedError),
    "REFUSED": (PublishRefusedError, PublishRefusedError),
}

# Texts of the contract; the engine's own is their cause.
_FIXED_TEXTS = {"NO_CURRENT": NO_CURRENT, "NO_SNAPSHOT": NO_GOOD_MANIFEST}


def from_engine(
    status: str,
    message: str,
    *,
    http_status: int = 0,
    db_id: int | None = None,
    object_url: str | None = None,
    operation: str | None = None,
    attempts: int = 0,
    retryable: bool = False,
) -> BaseException:
    """The exception for one `sf_error` of the engine."""
    outside, inside = _CLASSES.get(status, (ShardyfusionError, ShardyfusionError))
    cls = outside if db_id is None else inside
    if http_status and issubclass(cls, ConfigValidationError):  # storage has spoken: that is no fault of the configuration
        cls = DbAdapterError if db_id is not None else ManifestStoreError
        if status == "UNSUPPORTED" and db_id is None:
            cls = UnsupportedByStoreError
    fixed = _FIXED_TEXTS.get(status)
    if status == "BAD_MANIFEST" and object_url and message.startswith(f"{object_url}: "):
        # callers look at how these texts begin
        message = f"{message.removeprefix(f'{object_url}: ')} ({object_url})"
    if status == "NO_CURRENT" and object_url:
        fixed = f"{fixed}: {object_url}"
    error = cls(fixed or message)
    if fixed and fixed != message:
        error.__cause__ = ShardyfusionError(message)
    if isinstance(error, ShardyfusionError):
        error._status = status
        error.db_id = db_id
        error.object_url = object_url or None
        error.operation = operation or None
        error.attempts = attempts or None
        error.http_status = http_status or None
        if error.retryable != retryable:
            error.retryable = retryable
    return error


_INSIDE_SHARD: tuple[tuple[type[ShardyfusionError], type[ShardyfusionError]], ...] = (
    (MissingObjectError, MissingShardObjectError),
    (DeniedObjectError, DeniedShardObjectError),
    (InvalidArgumentError, InvalidArgumentError),
    (ConfigValidationError, DbAdapterError),
    (ManifestParseError, DbAdapterError),
    (ManifestStoreError, DbAdapterError),
)


def inside_shard(error: ShardyfusionError, text: str) -> ShardyfusionError:
    """The same failure as one of a shard, for shards that the engine opens on their own."""
    for outside, inside in _INSIDE_SHARD:
        if isinstance(error, outside):
            return _like(error, inside, text)
    return reworded(error, text)


def _like(error: ShardyfusionError, cls: type[ShardyfusionError], text: str) -> ShardyfusionError:
    other = cls(text)
    other.__dict__.update(error.__dict__)
    return other


def reworded(error: ShardyfusionError, text: str) -> ShardyfusionError:
    """The same exception with another text."""
    return _like(error, type(error), text)


def no_current(error: MissingCurrentError, text: str) -> ShardyfusionError:
    """The same exception with another text, and the pointer's URL where it is known."""
    return reworded(error, f"{text}: {error.object_url}" if error.object_url else text)
