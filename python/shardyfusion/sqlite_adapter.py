"""SQLite shards: their writer. Readers for them are not available in this version."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from shardyfusion._not_copied import NotCopied
from shardyfusion._s3_options import engine_options
from shardyfusion.errors import ConfigValidationError, ShardyfusionError
from shardyfusion.slatedb_adapter import log_adapter, open_shard_writer, shard_errors, sizes_of
from shardyfusion.sqlite_page_size import SUPPORTED_PAGE_SIZES
from shardyfusion.type_defs import S3ConnectionOptions

if TYPE_CHECKING:
    from shardyfusion._native import ShardResult, SqliteOptions
    from shardyfusion.credentials import CredentialProvider

__all__ = [
    "PageSizeMode",
    "SidecarUnavailableError",
    "SqliteAdapter",
    "SqliteAdapterError",
    "SqliteFactory",
]

PageSizeMode: TypeAlias = int | Literal["auto"]

_CLOSED, _SEALED, _LATE = "Adapter already closed", "Adapter already sealed", "Cannot write after seal"


class SqliteAdapterError(ShardyfusionError):
    """An SQLite shard cannot be written or read."""


class SidecarUnavailableError(SqliteAdapterError):
    """The shard has no sidecar, or one that does not belong to it."""


def check_page_size(page_size: object) -> None:
    """ConfigValidationError unless it is a supported size or "auto"."""
    if isinstance(page_size, str):
        if page_size != "auto":
            raise ConfigValidationError(f"page_size string must be 'auto', got {page_size!r}")
    elif page_size not in SUPPORTED_PAGE_SIZES:
        raise ConfigValidationError(f"page_size {page_size!r} not in supported sizes {SUPPORTED_PAGE_SIZES}")


def sqlite_options(page_size: PageSizeMode, emit_sidecar: bool) -> SqliteOptions:
    """As the engine takes them."""
    return {"page_bytes": 0 if page_size == "auto" else int(page_size), "sidecar": bool(emit_sidecar)}


class SqliteAdapter(NotCopied):
    """Writes one SQLite shard: `shard.db` with the table `kv`, and its sidecar. `cache_size_pages` is accepted: the file
    is written in key order and needs no cache."""

    def __init__(
        self,
        *,
        db_url: str,
        local_dir: Path,
        page_size: PageSizeMode = 4096,
        cache_size_pages: int = -2000,
        s3_connection_options: S3ConnectionOptions | None = None,
        credential_provider: CredentialProvider | None = None,
        emit_sidecar: bool = True,
    ) -> None:
        check_page_size(page_size)
        s3 = engine_options(s3_connection_options, credential_provider)
        options = sqlite_options(page_size, emit_sidecar)
        self._writer = open_shard_writer(db_url, local_dir, s3, sqlite=options)
        self._db_url = db_url
        self._result: ShardResult | None = None
        self._closed = False

    def write_batch(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Takes rows. Of rows with one key the last wins."""
        self._refuse_closed()
        if self._result is not None:
            raise SqliteAdapterError(_LATE)
        with shard_errors(self._db_url):
            self._writer.add(pairs)

    def flush(self) -> None:
        """Nothing is stored before `seal`."""
        self._refuse_closed()

    def seal(self) -> None:
        """Builds the file and uploads it."""
        self._refuse_closed()
        if self._result is not None:
            raise SqliteAdapterError(_SEALED)
        with shard_errors(self._db_url):
            self._result = self._writer.finish()
        log_adapter("sqlite", "sealed", self._db_url, **sizes_of(self._result))

    def db_bytes(self) -> int:
        """The size of `shard.db`; 0 before it is sealed."""
        return 0 if self._result is None else self._result["db_bytes"]

    def sidecar_decompressed_bytes(self) -> int | None:
        """The size of the sidecar's pages; None: not known."""
        return None

    def close(self) -> None:
        """Seals the shard if that was not done. Any number of times."""
        if self._closed:
            return
        try:
            if self._result is None:
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

    def _give_back(self) -> None:
        self._closed = True
        self._writer.close()
        log_adapter("sqlite", "closed", self._db_url)

    def _refuse_closed(self) -> None:
        if self._closed:
            raise SqliteAdapterError(_CLOSED)


@dataclass(slots=True)
class SqliteFactory:
    """Writes shards as SQLite databases. `page_size` "auto" chooses by the sizes of the values."""

    page_size: PageSizeMode = 4096
    cache_size_pages: int = -2000
    s3_connection_options: S3ConnectionOptions | None = None
    credential_provider: CredentialProvider | None = None
    emit_sidecar: bool = True

    def __post_init__(self) -> None:
        check_page_size(self.page_size)

    def __call__(self, *, db_url: str, local_dir: Path) -> SqliteAdapter:
        """The writer of one shard."""
        return SqliteAdapter(
            db_url=db_url,
            local_dir=local_dir,
            page_size=self.page_size,
            cache_size_pages=self.cache_size_pages,
            s3_connection_options=self.s3_connection_options,
            credential_provider=self.credential_provider,
            emit_sidecar=self.emit_sidecar,
        )

    def vec_payload_bytes_in_kv_db(self) -> int:
        """Bytes of vectors among the values: there are none."""
        return 0


_READERS = {
    "AdaptiveSqliteReaderFactory",
    "AsyncAdaptiveSqliteReaderFactory",
    "AsyncSqliteRangeReaderFactory",
    "AsyncSqliteRangeShardReader",
    "AsyncSqliteReaderFactory",
    "AsyncSqliteShardReader",
    "DEFAULT_AUTO_PER_SHARD_THRESHOLD_BYTES",
    "DEFAULT_AUTO_TOTAL_BUDGET_BYTES",
    "SqliteAccessMode",
    "SqliteAccessPolicy",
    "SqliteRangeReaderFactory",
    "SqliteRangeShardReader",
    "SqliteReaderFactory",
    "SqliteShardReader",
    "decide_access_mode",
    "make_async_sqlite_reader_factory",
    "make_sqlite_reader_factory",
    "make_threshold_policy",
}


def __getattr__(name: str) -> Any:
    if name in _READERS:
        raise AttributeError(f"{__name__}.{name}: reading SQLite shards is not available in this version")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
