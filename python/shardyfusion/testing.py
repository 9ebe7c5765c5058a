"""Helpers for the tests of programs that use the package: adapters that keep rows in files or nowhere, that fail once,
and that write real shards below a folder. All factories pickle, so they serve a parallel write."""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from shardyfusion.metrics import MetricEvent
from shardyfusion.slatedb_adapter import DbAdapter, DefaultSlateDbAdapter
from shardyfusion.storage import parse_s3_url

__all__ = [
    "FailOnceAdapterFactory",
    "FakeDb",
    "FakeSlateDbAdapter",
    "FileBackedDb",
    "FileBackedSlateDbAdapter",
    "FileBackedSlateDbAdapterFactory",
    "ListMetricsCollector",
    "RealSlateDbFileAdapter",
    "RealSlateDbFileAdapterFactory",
    "fake_adapter_factory",
    "file_backed_adapter_factory",
    "file_backed_load_db",
    "local_dir_for_file_shard",
    "map_s3_db_url_to_file_url",
    "open_slatedb_db",
    "open_slatedb_reader",
    "real_file_adapter_factory",
]


@dataclass(slots=True)
class ListMetricsCollector:
    """Keeps every event and its payload, in order."""

    events: list[tuple[MetricEvent, dict[str, Any]]] = field(default_factory=list)

    def emit(self, event: MetricEvent, payload: dict[str, Any]) -> None:
        """Keeps one event."""
        self.events.append((event, dict(payload)))


class _Adapter:
    """What the adapters below have in common: nothing to do but take rows."""

    def write_batch(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Takes rows."""
        raise NotImplementedError

    def flush(self) -> None:
        """Nothing."""

    def seal(self) -> None:
        """Nothing."""

    def db_bytes(self) -> int:
        """Not known."""
        return 0

    def close(self) -> None:
        """Nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


# ---------------------------------------------------------------- nowhere


@dataclass(slots=True)
class FakeDb:
    """Counts rows."""

    writes: int = 0


class FakeSlateDbAdapter(_Adapter):
    """Counts rows and forgets them."""

    def __init__(self, *, db_url: str, local_dir: Path) -> None:
        self.db_url = db_url
        self.local_dir = local_dir
        self._db = FakeDb()

    @property
    def db(self) -> FakeDb:
        """What was written."""
        return self._db

    def write_batch(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Counts the rows."""
        self._db.writes += sum(1 for _ in pairs)

    def flush(self) -> None:
        """Nothing."""

    def seal(self) -> None:
        """Nothing."""

    def db_bytes(self) -> int:
        """Not known."""
        return 0

    def close(self) -> None:
        """Nothing."""


def fake_adapter_factory(*, db_url: str, local_dir: Path) -> FakeSlateDbAdapter:
    """An adapter that forgets its rows."""
    return FakeSlateDbAdapter(db_url=db_url, local_dir=local_dir)


# ---------------------------------------------------------------- one JSON file a shard


@dataclass(slots=True)
class FileBackedDb:
    """Where a shard's rows are."""

    file_path: str


def _rows_file(root_dir: str, db_url: str) -> Path:
    return Path(root_dir) / f"{db_url.partition('://')[2].strip('/')}.json"


class FileBackedSlateDbAdapter(_Adapter):
    """Keeps the rows of a shard in a JSON file below `root_dir`."""

    def __init__(self, root_dir: str, *, db_url: str, local_dir: Path) -> None:
        self._path = _rows_file(root_dir, db_url)
        self._rows: dict[bytes, bytes] = {}
        self._changed = False

    @property
    def db(self) -> FileBackedDb:
        """Where the rows are."""
        return FileBackedDb(str(self._path))

    def write_batch(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Takes rows. Of rows with one key the last wins."""
        self._rows.update(pairs)
        self._changed = True

    def flush(self) -> None:
        """Stores the rows."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        rows = {key.hex(): value.hex() for key, value in sorted(self._rows.items())}
        self._path.write_text(json.dumps(rows))
        self._changed = False

    def seal(self) -> None:
        """Nothing."""

    def db_bytes(self) -> int:
        """The size of the file."""
        return self._path.stat().st_size if self._path.exists() else 0

    def rows_stored(self) -> int:
        """Rows with different keys."""
        return len(self._rows)

    def close(self) -> None:
        """Stores rows that were not, unless an exception is on its way."""
        if self._changed and sys.exc_info()[1] is None:
            self.flush()


@dataclass(slots=True)
class FileBackedSlateDbAdapterFactory:
    """Makes adapters that keep rows in JSON files."""

    root_dir: str

    def __call__(self, *, db_url: str, local_dir: Path) -> FileBackedSlateDbAdapter:
        """The adapter of one shard."""
        return FileBackedSlateDbAdapter(self.root_dir, db_url=db_url, local_dir=local_dir)


def file_backed_adapter_factory(root_dir: str) -> FileBackedSlateDbAdapterFactory:
    """Makes adapters that keep rows in JSON files."""
    return FileBackedSlateDbAdapterFactory(root_dir)


def file_backed_load_db(root_dir: str, db_url: str) -> dict[bytes, bytes]:
    """The rows that such an adapter kept; none when it kept nothing."""
    path = _rows_file(root_dir, db_url)
    if not path.exists():
        return {}
    return {bytes.fromhex(key): bytes.fromhex(value) for key, value in json.loads(path.read_text()).items()}


# ---------------------------------------------------------------- real shards below a folder


def map_s3_db_url_to_file_url(db_url: str, object_store_root: str) -> str:
    """Where the objects of an s3:// URL lie below a folder that stands for S3, one sub-folder a bucket."""
    bucket, key = parse_s3_url(db_url)
    return (Path(object_store_root).absolute() / bucket / key).as_uri().replace("%3D", "=")


def local_dir_for_file_shard(object_store_root: str, db_url: str) -> Path:
    """The same as a path."""
    bucket, key = parse_s3_url(db_url)
    return Path(object_store_root).absolute() / bucket / key


class RealSlateDbFileAdapter(_Adapter):
    """Writes the SlateDB shard of an s3:// URL below a folder."""

    def __init__(self, object_store_root: str, *, db_url: str, local_dir: Path) -> None:
        self._inner = DefaultSlateDbAdapter(
            local_dir=local_dir,
            db_url=map_s3_db_url_to_file_url(db_url, object_store_root),
            env_file=None,
            settings=None,
        )

    @property
    def db(self) -> object:
        """The engine's own writer."""
        return self._inner.db

    def write_batch(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        """Takes rows. Of rows with one key the last wins."""
        self._inner.write_batch(pairs)

    def flush(self) -> None:
        """Nothing is stored before `seal`."""
        self._inner.flush()

    def seal(self) -> None:
        """Builds the shard."""
        self._inner.seal()

    def db_bytes(self) -> int:
        """Bytes of all the shard's objects."""
        return self._inner.db_bytes()

    def rows_stored(self) -> int:
        """Rows with different keys."""
        return self._inner.rows_stored()

    def close(self) -> None:
        """Seals the shard if that was not done, unless something failed."""
        self._inner.close()


@dataclass(slots=True)
class RealSlateDbFileAdapterFactory:
    """Makes adapters that write real shards below a folder."""

    object_store_root: str

    def __call__(self, *, db_url: str, local_dir: Path) -> RealSlateDbFileAdapter:
        """The adapter of one shard."""
        return RealSlateDbFileAdapter(self.object_store_root, db_url=db_url, local_dir=local_dir)


def real_file_adapter_factory(object_store_root: str) -> RealSlateDbFileAdapterFactory:
    """Makes adapters that write real shards below a folder."""
    return RealSlateDbFileAdapterFactory(object_store_root)


def open_slatedb_db(db_url: str, *, env_file: str | None = None) -> Any:
    """A writer of the shard at a URL where nothing is yet."""
    folder = tempfile.mkdtemp(prefix="shardyfusion-")
    return DefaultSlateDbAdapter(local_dir=Path(folder), db_url=db_url, env_file=env_file, settings=None)


def open_slatedb_reader(db_url: str, *, env_file: str | None = None) -> Any:
    """A blocking reader of the shard at a URL."""
    from shardyfusion.reader._slatedb_shard import SlateDbReaderFactory

    open_shard: Any = partial(SlateDbReaderFactory(env_file=env_file), local_dir=Path(), checkpoint_id=None)
    return open_shard(db_url=db_url, manifest=None)


# ---------------------------------------------------------------- failing

_SHARD_OF_URL = re.compile(r"db=(\d+)/attempt=(\d+)")


class _FailOnceAdapter(_Adapter):
    def __init__(self, inner: DbAdapter, message: str) -> None:
        self._inner = inner
        self._message = message

    def write_batch(self, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        raise RuntimeError(self._message)

    def close(self) -> None:
        self._inner.close()


@dataclass(slots=True)
class FailOnceAdapterFactory:
    """Lets chosen attempts at chosen shards fail, each once: a file below `marker_root` remembers it, for all processes."""

    inner_factory: Any
    marker_root: str
    fail_db_ids: tuple[int, ...] = (0,)
    fail_attempts: tuple[int, ...] = (0,)
    error_message: str = "simulated transient write failure"

    def __call__(self, *, db_url: str, local_dir: Path) -> Any:
        """The adapter of one shard, or one that fails."""
        inner = self.inner_factory(db_url=db_url, local_dir=local_dir)
        return _FailOnceAdapter(inner, self.error_message) if self._must_fail(db_url) else inner

    def _must_fail(self, db_url: str) -> bool:
        found = _SHARD_OF_URL.search(db_url)
        if found is None:
            return False
        db_id, attempt = int(found[1]), int(found[2])
        if db_id not in self.fail_db_ids or attempt not in self.fail_attempts:
            return False
        try:
            Path(self.marker_root).mkdir(parents=True, exist_ok=True)
            (Path(self.marker_root) / f"failed-db={db_id}-attempt={attempt}").touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    @property
    def page_size(self) -> Any:
        """Of the inner factory, when it has one."""
        return getattr(self.inner_factory, "page_size", None)

    def vec_payload_bytes_in_kv_db(self) -> int:
        """Of the inner factory, when it has such a method."""
        method = getattr(self.inner_factory, "vec_payload_bytes_in_kv_db", None)
        return 0 if method is None else int(method())
