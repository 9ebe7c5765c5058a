"""Writers of SlateDB shards, and the protocol that all shard writers follow."""

from __future__ import annotations

import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable

from shardyfusion._local_folder import make_local_folder
from shardyfusion._engine import native
from shardyfusion._native import ShardWriter
from shardyfusion._not_copied import NotCopied
from shardyfusion._s3_options import engine_options
from shardyfusion._storage_errors import InvalidArgumentError, inside_shard
from shardyfusion._store_events import with_events
from shardyfusion.credentials import CredentialProvider
from shardyfusion.errors import (
    BridgeTimeoutError,
    ConfigValidationError,
    DbAdapterError,
    ReaderStateError,
    ShardWriteError,
    ShardyfusionError,
)
from shardyfusion.logging import get_logger, log_event
from shardyfusion.type_defs import S3Config, S3ConnectionOptions

if TYPE_CHECKING:
    from shardyfusion._native import S3Options, ShardResult, SlateDbOptions

__all__ = ["DefaultSlateDbAdapter", "SlateDbBridgeTimeouts", "SlateDbFactory"]

_log = get_logger(__name__)


@runtime_checkable
class DbAdapter(Protocol):
    """Writes one shard. Calls come in this order: `__enter__`, `write_batch` any number of times, `flush`, `seal`,
    `db_bytes`, `__exit__`; after a failure `__exit__` alone. One that also has `rows_stored()` tells, once it is sealed,
    how many rows are left when of those with one key only the last counts."""

    def write_batch(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Stores rows. Of rows with one key the last wins."""
        ...

    def flush(self) -> None:
        """No rows follow."""
        ...

    def seal(self) -> None:
        """Makes the shard whole."""
        ...

    def db_bytes(self) -> int:
        """The size of the shard, 0 when it is not known."""
        ...

    def close(self) -> None:
        """Gives everything back."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...


@runtime_checkable
class DbAdapterFactory(Protocol):
    """Makes the writer of a shard. Called with keywords only. Must pickle to serve a parallel write."""

    def __call__(self, *, db_url: str, local_dir: Path) -> DbAdapter: ...


# ---------------------------------------------------------------- settings


@dataclass(slots=True)
class SlateDbSettings:
    """Settings of SlateDB. A shard is built at once, so only those count that say how it is stored: the size of its
    tables, and of the raw ones `compression_codec`, `min_filter_keys` and `filter_bits_per_key`."""

    flush_interval: str | None = None
    l0_sst_size_bytes: int | None = None
    default_ttl_ms: int | None = None
    raw_overrides: dict[str, Any] = field(default_factory=dict)

    def to_uniffi_pairs(self) -> list[tuple[str, str]]:
        """(dotted name, JSON text) of every setting that was given."""
        typed = {
            "flush_interval": self.flush_interval,
            "l0_sst_size_bytes": self.l0_sst_size_bytes,
            "default_ttl": self.default_ttl_ms,
        }
        given = [(name, value) for name, value in typed.items() if value is not None]
        return [(name, json.dumps(value)) for name, value in [*given, *self.raw_overrides.items()]]

    def apply(self, settings: Any) -> None:
        """Calls `settings.set(name, text)` for every pair."""
        for name, text in self.to_uniffi_pairs():
            settings.set(name, text)


@dataclass(slots=True, frozen=True)
class SlateDbBridgeTimeouts:
    """Bounds in seconds on what an adapter does; None: no bound. What takes longer is a BridgeTimeoutError."""

    open_s: float | None = None
    write_s: float | None = None
    flush_s: float | None = None
    shutdown_s: float | None = None


_MIN_SST_BYTES, _MAX_SST_BYTES = 64 << 10, 1 << 30
_MAX_BITS_PER_KEY = 64


def slatedb_options(settings: SlateDbSettings | None) -> SlateDbOptions:
    """What of the settings has a meaning for a shard that is built at once; the rest is logged."""
    options: SlateDbOptions = {}
    ignored = []
    for name, text in (settings or SlateDbSettings()).to_uniffi_pairs():
        value = json.loads(text)
        if value is None:
            continue
        if name == "l0_sst_size_bytes":
            options["sst_bytes"] = min(max(_integer(name, value), _MIN_SST_BYTES), _MAX_SST_BYTES)
        elif name == "compression_codec":
            options["compression"] = _codec(value)
        elif name == "min_filter_keys":
            options["min_filter_keys"] = _integer(name, value)
        elif name == "filter_bits_per_key":
            options["bits_per_key"] = min(max(_integer(name, value), 1), _MAX_BITS_PER_KEY)
        else:
            ignored.append(name)
    if ignored:
        log_event("slatedb_settings_ignored", level=logging.DEBUG, logger=_log, settings=ignored)
    return options


def _codec(value: object) -> Literal["snappy", "zlib", "lz4", "zstd"]:
    match str(value).lower():
        case ("snappy" | "zlib" | "lz4" | "zstd") as codec:
            return codec
    raise ConfigValidationError(f"compression_codec must be 'Snappy', 'Zlib', 'Lz4' or 'Zstd', got {value!r}")


def _integer(name: str, value: object) -> int:
    if not isinstance(value, int) or value < 0:
        raise ConfigValidationError(f"{name} must be an integer, got {value!r}")
    return value


# ---------------------------------------------------------------- adapters

_LOOP_ENDS = (StopIteration, StopAsyncIteration)  # `except StopIteration: adapter.close()` is how loops end, no failure


class BuiltShard(NotCopied):
    """One shard that the engine builds: rows are sorted in bounded memory, the rest in `local_dir`, and nothing is stored
    before `seal`. Closing seals what is not sealed, unless something failed; one that is dropped unclosed stores nothing."""

    _backend = "slatedb"
    _timeouts = SlateDbBridgeTimeouts()
    _closed = True  # until the writer is there

    def __init__(self, writer: ShardWriter, db_url: str) -> None:
        self._writer = writer
        self._db_url = db_url
        self._result: ShardResult | None = None
        self._failed = False
        self._handled = sys.exc_info()[1]  # a retry in an except block: its exception is not ours
        self._closed = False

    def write_batch(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Takes rows. Of rows with one key the last wins."""
        self._refuse_closed()
        self._bounded(self._timeouts.write_s, lambda: self._writer.add(pairs))

    def flush(self) -> None:
        """Nothing is stored before `seal`."""
        self._refuse_closed()

    def seal(self) -> None:
        """Builds the shard and uploads it."""
        self._refuse_closed()
        self._result = self._bounded(self._timeouts.flush_s, self._writer.finish)
        log_adapter(self._backend, "sealed", self._db_url, **sizes_of(self._result))

    def db_bytes(self) -> int:
        """Bytes of all the shard's objects."""
        return 0 if self._result is None else self._result["stored_bytes"]

    def rows_stored(self) -> int:
        """Rows with different keys; 0 before it is sealed."""
        return 0 if self._result is None else self._result["rows"]

    def close(self) -> None:
        """Seals the shard if that was not done; takes back what was stored after a failure of its own, and while an
        exception is on its way (`try: ... finally: adapter.close()`). Any number of times."""
        if self._closed:
            return
        error = sys.exc_info()[1]
        is_failing = error is not None and error is not self._handled and not isinstance(error, _LOOP_ENDS)
        if self._result is None and is_failing:
            log_event("shard_taken_back", level=logging.WARNING, logger=_log, db_url=self._db_url, error=repr(error))
        try:
            if self._result is None and not self._failed and not is_failing:
                self.seal()
        finally:
            self._give_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc_type is None:
            self.close()
        else:
            self._give_back()

    def __del__(self) -> None:
        if not self._closed and self._result is None:
            warnings.warn(f"unclosed writer of the shard at {self._db_url}: its rows are not stored", ResourceWarning, source=self)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise DbAdapterError(f"The writer of the shard at {self._db_url!r} is closed; a factory call makes a new one")

    def _give_back(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._handled = None
        self._bounded(self._timeouts.shutdown_s, self._writer.close)
        log_adapter(self._backend, "closed", self._db_url)

    def _bounded(self, timeout: float | None, work: Callable[[], Any]) -> Any:
        try:
            with _time_limit(self._writer, timeout), shard_errors(self._db_url):
                return work()
        except BaseException:
            self._failed = True
            raise


@contextmanager
def _time_limit(writer: ShardWriter, timeout: float | None) -> Iterator[None]:
    if timeout is None:
        yield
        return
    overran = threading.Event()

    def stop() -> None:
        overran.set()
        writer.cancel()

    timer = threading.Timer(timeout, stop)
    timer.start()
    try:
        yield
    except ShardyfusionError as error:
        if overran.is_set():
            raise BridgeTimeoutError(f"slatedb bridge call exceeded timeout={timeout}s") from error
        raise
    finally:
        timer.cancel()


@contextmanager
def shard_errors(db_url: str) -> Iterator[None]:
    """Failures of the engine as those of a shard writer."""
    try:
        yield
    except ConfigValidationError:
        raise
    except ShardyfusionError as error:
        if error.retryable:
            raise ShardWriteError(f"Failed to write the shard at {db_url!r}: {error}") from error
        if isinstance(error, DbAdapterError):
            raise
        if type(error) is ReaderStateError:  # whose text is of readers; the engine's own says which state
            raise DbAdapterError(f"Failed to write the shard at {db_url!r}: {error.__cause__ or error}") from error
        raise inside_shard(error, f"Failed to write the shard at {db_url!r}: {error}") from error


def open_shard_writer(
    db_url: str,
    local_dir: Path,
    s3: S3Options | None,
    *,
    slatedb: SlateDbOptions | None = None,
    sqlite: Any = None,
) -> ShardWriter:
    """The engine's writer of one shard; spills below `local_dir`."""
    if "://" not in db_url:
        raise ConfigValidationError(f"db_url must be a URL, got {db_url!r}")
    try:
        make_local_folder(local_dir)
        writer = native.ShardWriter(
            db_url, s3=with_events(s3), spill_folder=str(local_dir), slatedb=slatedb, sqlite=sqlite
        )
    except InvalidArgumentError as error:
        raise ConfigValidationError(str(error)) from None
    log_adapter("slatedb" if sqlite is None else "sqlite", "opened", db_url)
    return writer


def log_adapter(backend: str, what: str, db_url: str, **fields: Any) -> None:
    """`slatedb_adapter_opened`, `sqlite_adapter_sealed` and their like, on the logger of the backend's module."""
    logger = get_logger(f"shardyfusion.{backend}_adapter")
    log_event(f"{backend}_adapter_{what}", level=logging.DEBUG, logger=logger, db_url=db_url, **fields)


def sizes_of(result: ShardResult) -> dict[str, Any]:
    """Of a sealed shard, for its log."""
    return {"row_count": result["rows"], "stored_bytes": result["stored_bytes"]}


class DefaultSlateDbAdapter(BuiltShard):
    """Writes one SlateDB shard."""

    def __init__(
        self,
        *,
        local_dir: Path,
        db_url: str,
        env_file: str | None,
        settings: SlateDbSettings | None,
        bridge_timeouts: SlateDbBridgeTimeouts | None = None,
        credential_provider: CredentialProvider | None = None,
        s3_connection_options: S3ConnectionOptions | S3Config | None = None,
    ) -> None:
        s3 = engine_options(s3_connection_options, credential_provider, env_file)
        super().__init__(open_shard_writer(db_url, local_dir, s3, slatedb=slatedb_options(settings)), db_url)
        self._timeouts = bridge_timeouts or SlateDbBridgeTimeouts()

    @property
    def db(self) -> Any:
        """The engine's own writer."""
        return self._writer


@dataclass(slots=True)
class SlateDbFactory:
    """Writes shards as SlateDB databases. The file wins over provider and options."""

    env_file: str | None = None
    settings: SlateDbSettings | None = None
    credential_provider: CredentialProvider | None = None
    bridge_timeouts: SlateDbBridgeTimeouts = field(default_factory=SlateDbBridgeTimeouts)
    s3_connection_options: S3ConnectionOptions | S3Config | None = None

    def __call__(self, *, db_url: str, local_dir: Path) -> DefaultSlateDbAdapter:
        """The writer of one shard."""
        return DefaultSlateDbAdapter(
            local_dir=local_dir,
            db_url=db_url,
            env_file=self.env_file,
            settings=self.settings,
            bridge_timeouts=self.bridge_timeouts,
            credential_provider=self.credential_provider,
            s3_connection_options=self.s3_connection_options,
        )
