"""SQLite shards: their writer, their readers, the factories of both, and the sidecar."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from shardyfusion._s3_options import engine_options
from shardyfusion._sqlite_access import (
    DEFAULT_AUTO_PER_SHARD_THRESHOLD_BYTES,
    DEFAULT_AUTO_TOTAL_BUDGET_BYTES,
    SidecarUnavailableError,
    SqliteAccessMode,
    SqliteAccessPolicy,
    SqliteAdapterError,
    decide_access_mode,
    make_threshold_policy,
)
from shardyfusion._sqlite_sidecar import (
    BuiltSidecar,
    build_sidecar_frame,
    extract_sidecar,
    frame_to_sidecar,
    maybe_upload_sidecar,
)
from shardyfusion.credentials import CredentialProvider
from shardyfusion.errors import ConfigValidationError
from shardyfusion.reader._sqlite_shard import (
    AdaptiveSqliteReaderFactory,
    AsyncAdaptiveSqliteReaderFactory,
    AsyncSqliteRangeReaderFactory,
    AsyncSqliteRangeShardReader,
    AsyncSqliteReaderFactory,
    AsyncSqliteShardReader,
    SqliteRangeReaderFactory,
    SqliteRangeShardReader,
    SqliteReaderFactory,
    SqliteShardReader,
    make_async_sqlite_reader_factory,
    make_sqlite_reader_factory,
)
from shardyfusion.slatedb_adapter import BuiltShard, open_shard_writer
from shardyfusion.sqlite_page_size import SUPPORTED_PAGE_SIZES
from shardyfusion.type_defs import S3Config, S3ConnectionOptions

if TYPE_CHECKING:
    from shardyfusion._native import SqliteOptions

__all__ = [
    "DEFAULT_AUTO_PER_SHARD_THRESHOLD_BYTES",
    "DEFAULT_AUTO_TOTAL_BUDGET_BYTES",
    "AdaptiveSqliteReaderFactory",
    "AsyncAdaptiveSqliteReaderFactory",
    "AsyncSqliteRangeReaderFactory",
    "AsyncSqliteRangeShardReader",
    "AsyncSqliteReaderFactory",
    "AsyncSqliteShardReader",
    "BuiltSidecar",
    "PageSizeMode",
    "SidecarUnavailableError",
    "SqliteAccessMode",
    "SqliteAccessPolicy",
    "SqliteAdapter",
    "SqliteAdapterError",
    "SqliteFactory",
    "SqliteRangeReaderFactory",
    "SqliteRangeShardReader",
    "SqliteReaderFactory",
    "SqliteShardReader",
    "build_sidecar_frame",
    "decide_access_mode",
    "extract_sidecar",
    "frame_to_sidecar",
    "make_async_sqlite_reader_factory",
    "make_sqlite_reader_factory",
    "make_threshold_policy",
    "maybe_upload_sidecar",
]

PageSizeMode: TypeAlias = int | Literal["auto"]

_CLOSED, _SEALED, _LATE = "Adapter already closed", "Adapter already sealed", "Cannot write after seal"


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


class SqliteAdapter(BuiltShard):
    """Writes one SQLite shard: `shard.db` with the table `kv`, and its sidecar. `cache_size_pages` is accepted: the file
    is written in key order and needs no cache."""

    _backend = "sqlite"

    def __init__(
        self,
        *,
        db_url: str,
        local_dir: Path,
        page_size: PageSizeMode = 4096,
        cache_size_pages: int = -2000,
        s3_connection_options: S3ConnectionOptions | S3Config | None = None,
        credential_provider: CredentialProvider | None = None,
        emit_sidecar: bool = True,
    ) -> None:
        check_page_size(page_size)
        s3 = engine_options(s3_connection_options, credential_provider)
        options = sqlite_options(page_size, emit_sidecar)
        super().__init__(open_shard_writer(db_url, local_dir, s3, sqlite=options), db_url)

    def write_batch(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Takes rows. Of rows with one key the last wins."""
        self._refuse_sealed(_LATE)
        super().write_batch(pairs)

    def seal(self) -> None:
        """Builds the file and uploads it."""
        self._refuse_sealed(_SEALED)
        super().seal()

    def db_bytes(self) -> int:
        """The size of `shard.db`; 0 before it is sealed."""
        return 0 if self._result is None else self._result["db_bytes"]

    def sidecar_decompressed_bytes(self) -> int | None:
        """The size of the sidecar's pages; None: not known."""
        return None

    def _refuse_closed(self) -> None:
        if self._closed:
            raise SqliteAdapterError(_CLOSED)

    def _refuse_sealed(self, text: str) -> None:
        if self._result is not None and not self._closed:  # of a closed one that is what is said
            raise SqliteAdapterError(text)


@dataclass(slots=True)
class SqliteFactory:
    """Writes shards as SQLite databases. `page_size` "auto" chooses by the sizes of the values."""

    page_size: PageSizeMode = 4096
    cache_size_pages: int = -2000
    s3_connection_options: S3ConnectionOptions | S3Config | None = None
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

