"""Run records: a writer's diary, which tells others that it is at work, and how it ended."""

from __future__ import annotations

import time
import uuid
from datetime import datetime, timedelta, timezone
from os import PathLike
from threading import Lock, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import shardyfusion
from shardyfusion._engine import native
from shardyfusion._fork import add_locks
from shardyfusion._formats import microseconds, time_of
from shardyfusion._lazy import lazy_attributes
from shardyfusion._run_status import RUN_RECORD_FORMAT_VERSION, RunStatus
from shardyfusion._storage_errors import ConditionFailedError
from shardyfusion.errors import ShardyfusionError
from shardyfusion.logging import FailureSeverity, get_logger, log_failure
from shardyfusion.storage import StorageBackend, join_s3, location

if TYPE_CHECKING:
    from shardyfusion._native import Lease
    from shardyfusion._run_record_model import RunRecord
    from shardyfusion.config import WriterLifecycleConfig, WriterManifestConfig, WriterOutputConfig, WriterStorageConfig

__all__ = [
    "DEFAULT_RUN_HEARTBEAT_INTERVAL",
    "DEFAULT_RUN_LEASE_DURATION",
    "RUN_RECORD_FORMAT_VERSION",
    "RUN_RECORD_NAME",
    "RUN_REGISTRY_TIMESTAMP_FMT",
    "InMemoryRunRegistry",
    "RunRecord",
    "RunRecordLifecycle",
    "RunRegistry",
    "RunStatus",
    "S3RunRegistry",
    "parse_run_record",
    "resolve_run_registry",
]

RUN_RECORD_NAME = "run.yaml"
RUN_REGISTRY_TIMESTAMP_FMT = "%Y-%m-%dT%H:%M:%S.%fZ"
DEFAULT_RUN_LEASE_DURATION = timedelta(minutes=10)
DEFAULT_RUN_HEARTBEAT_INTERVAL = timedelta(minutes=1)
_MILLISECOND = timedelta(milliseconds=1)
_CONTENT_TYPE = "application/x-yaml"

_log = get_logger(__name__)

if not TYPE_CHECKING:  # a type checker would take any name for one that is there
    __getattr__ = lazy_attributes(globals(), {"RunRecord": "shardyfusion._run_record_model"})


@runtime_checkable
class RunRegistry(Protocol):
    """Keeps run records. Any class with these methods will do."""

    def create(self, record: shardyfusion.RunRecord) -> str:
        """Keeps a new record and returns its reference."""
        ...

    def update(self, ref: str, record: shardyfusion.RunRecord) -> None:
        """Puts another record in its place."""
        ...

    def load(self, ref: str) -> shardyfusion.RunRecord:
        """The record as it was kept last."""
        ...


# ---------------------------------------------------------------- YAML

_TIMES = ("started_at", "updated_at", "lease_expires_at")


def _to_engine(record: shardyfusion.RunRecord) -> dict[str, Any]:
    fields = record.model_dump()
    fields["status"] = record.status.value
    for name in _TIMES:
        fields[name] = microseconds(fields[name])
    return fields


def _from_engine(fields: dict[str, Any]) -> dict[str, Any]:
    times = {name: time_of(fields[name]) for name in _TIMES}
    return {**fields, **times, "status": RunStatus(fields["status"])}


def parse_run_record(payload: bytes) -> shardyfusion.RunRecord:
    """A record from the bytes of its object. ValueError when they are not one."""
    from shardyfusion._run_record_model import RunRecord

    return RunRecord(**_from_engine(native.parse_run_record(payload)))


# ---------------------------------------------------------------- registries


class S3RunRegistry:
    """Records below a prefix of a storage backend."""

    def __init__(self, backend: StorageBackend, s3_prefix: str | PathLike[str], *, run_registry_prefix: str = "runs") -> None:
        self._backend = backend
        self.s3_prefix: str = location(s3_prefix).rstrip("/")
        self.run_registry_prefix = run_registry_prefix

    def create(self, record: shardyfusion.RunRecord) -> str:
        """Keeps a new record and returns its URL."""
        folder = native.run_record_folder(microseconds(record.started_at), record.run_id)
        ref = join_s3(self.s3_prefix, self.run_registry_prefix, folder, RUN_RECORD_NAME)
        self.update(ref, record)
        return ref

    def update(self, ref: str, record: shardyfusion.RunRecord) -> None:
        """Puts another record in its place."""
        self._backend.put(ref, native.format_run_record(_to_engine(record)), _CONTENT_TYPE)

    def load(self, ref: str) -> shardyfusion.RunRecord:
        """The record as it was kept last."""
        return parse_run_record(self._backend.get(ref))


class InMemoryRunRegistry:
    """Records in this object, for tests. Any thread."""

    _lock: Lock

    def __init__(self) -> None:
        self._records: dict[str, shardyfusion.RunRecord] = {}
        add_locks(self, _lock=Lock)

    def create(self, record: shardyfusion.RunRecord) -> str:
        """Keeps a new record and returns its reference."""
        ref = f"mem://runs/{record.run_id}/{uuid.uuid4().hex}/{RUN_RECORD_NAME}"
        self.update(ref, record)
        return ref

    def update(self, ref: str, record: shardyfusion.RunRecord) -> None:
        """Puts another record in its place."""
        with self._lock:
            self._records[ref] = record.model_copy()

    def load(self, ref: str) -> shardyfusion.RunRecord:
        """The record as it was kept last; KeyError when there is none."""
        with self._lock:
            return self._records[ref].model_copy()


class _RunRecordConfig(Protocol):
    @property
    def storage(self) -> WriterStorageConfig: ...
    @property
    def output(self) -> WriterOutputConfig: ...
    @property
    def manifest(self) -> WriterManifestConfig: ...
    @property
    def lifecycle(self) -> WriterLifecycleConfig: ...


def refuse_living_writer(config: _RunRecordConfig, run_id: str) -> None:
    """ConditionFailedError while the lease of another writer lasts, which keeps its record beside the snapshot."""
    from shardyfusion._s3_options import engine_options
    from shardyfusion.manifest_store import InMemoryManifestStore

    if config.lifecycle.run_registry is not None or isinstance(config.manifest.store, InMemoryManifestStore):
        return
    storage = config.storage
    try:
        options = engine_options(storage.s3_connection_options, storage.credential_provider)
        native.check_run(location(storage.s3_prefix), options, config.output.run_registry_prefix, run_id)
    except ConditionFailedError:
        raise
    except Exception as error:
        _log_failed("run_record_check_failed", error, run_id)


def resolve_run_registry(config: _RunRecordConfig) -> RunRegistry:
    """The registry of a configuration: its own, one in memory beside a manifest store in memory, else beside the snapshot."""
    from shardyfusion.manifest_store import InMemoryManifestStore

    if config.lifecycle.run_registry is not None:
        return config.lifecycle.run_registry
    if isinstance(config.manifest.store, InMemoryManifestStore):
        return InMemoryRunRegistry()
    from shardyfusion._s3_options import engine_options
    from shardyfusion.storage import BucketStore, ObstoreBackend

    storage = config.storage
    prefix = location(storage.s3_prefix)
    options = engine_options(storage.s3_connection_options, storage.credential_provider)
    return S3RunRegistry(
        ObstoreBackend(BucketStore(prefix, options)),
        prefix,
        run_registry_prefix=config.output.run_registry_prefix,
    )


# ---------------------------------------------------------------- the life of a record


class RunRecordLifecycle:
    """Keeps the record of one run up to date, and its lease alive from a thread. That a record cannot be kept is logged,
    and is never the run's failure. Left by an exception without `mark_failed`, it marks the run as failed. In a forked child
    it does nothing: the run is the parent's."""

    def __init__(
        self,
        *,
        registry: RunRegistry | None,
        record: shardyfusion.RunRecord,
        ref: str | None,
        lease_duration: timedelta = DEFAULT_RUN_LEASE_DURATION,
        heartbeat_interval: timedelta = DEFAULT_RUN_HEARTBEAT_INTERVAL,
        began: float | None = None,
    ) -> None:
        self._registry = registry
        self._record = record
        self._ref = ref
        self._lease: Lease | None = None
        self._thread: Thread | None = None
        if ref is not None:
            self._lease = native.Lease(
                _to_engine(record),
                self._put,
                lease_ms=lease_duration // _MILLISECOND,
                heartbeat_ms=heartbeat_interval // _MILLISECOND,
                renewed_ms=_milliseconds(_clock() if began is None else began),
            )
            self._thread = Thread(target=self._lease.run, name="shardyfusion-heartbeat", daemon=True)
            self._thread.start()

    @classmethod
    def start(
        cls,
        *,
        config: _RunRecordConfig,
        run_id: str,
        writer_type: str,
        lease_duration: timedelta = DEFAULT_RUN_LEASE_DURATION,
        heartbeat_interval: timedelta = DEFAULT_RUN_HEARTBEAT_INTERVAL,
    ) -> RunRecordLifecycle:
        """Keeps a record that says the run is running."""
        from shardyfusion._run_record_model import RunRecord

        now, began = _now(), _clock()
        record = RunRecord(
            run_id=run_id,
            writer_type=writer_type,
            status=RunStatus.RUNNING,
            started_at=now,
            updated_at=now,
            lease_expires_at=now + lease_duration,
            s3_prefix=location(config.storage.s3_prefix),
            shard_prefix=config.output.shard_prefix,
            db_path_template=config.output.db_path_template,
        )
        registry: RunRegistry | None = None
        ref: str | None = None
        try:
            registry = resolve_run_registry(config)
            ref = registry.create(record)
        except Exception as error:
            status = error._status if isinstance(error, ShardyfusionError) else None
            if config.lifecycle.run_registry is None and status is not None and native.run_record_is_refused(status):
                raise  # nor could the shards be stored: no row needs to come
            _log_failed("run_record_create_failed", error, run_id)
        return cls(
            registry=registry,
            record=record,
            ref=ref,
            lease_duration=lease_duration,
            heartbeat_interval=heartbeat_interval,
            began=began,
        )

    @property
    def has_lapsed(self) -> bool:
        """Whether the lease ran out, now or before a late renewal: others may have taken the run for dead."""
        return self._lease is not None and self._lease.has_lapsed(_milliseconds(_clock()))

    @property
    def run_record_ref(self) -> str | None:
        """The record's reference; None when it could not be kept."""
        return self._ref

    def set_manifest_ref(self, manifest_ref: str) -> None:
        """The snapshot is visible. Kept with the next heartbeat, or the end."""
        if self._lease is not None:
            self._lease.announce(_storable(manifest_ref))

    def intend(self, manifest_ref: str | None) -> None:
        """The record names the manifest now, before it is visible, so that a run which is killed before it can say more is not taken for
        one without a snapshot. None: there is none after all, and the next renewal says so."""
        if self._lease is not None:
            self._lease.announce(None if manifest_ref is None else _storable(manifest_ref))
            if manifest_ref is not None:
                self._lease.renew()

    def mark_succeeded(self) -> None:
        """The last word: it went well."""
        if self._lease is not None:
            self._lease.finish("succeeded", None, None)

    def mark_failed(self, exc: BaseException) -> None:
        """The last word: it did not."""
        if self._lease is not None:
            self._lease.finish("failed", _storable(type(exc).__name__), _storable(_text_of(exc)))

    def close(self) -> None:
        """Stops the heartbeat; the record stays as it is."""
        if self._lease is not None and self._thread is not None:
            self._lease.stop()
            self._thread.join()
            self._thread = None

    def __enter__(self) -> RunRecordLifecycle:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is not None:
            self.mark_failed(exc)
        self.close()

    def _put(self, fields: dict[str, Any]) -> bool:
        """For the lease, one call at a time."""
        assert self._ref is not None
        self._record = self._record.model_copy(update=_from_engine(fields))
        if self._registry is None:
            return False
        try:
            self._registry.update(self._ref, self._record)
        except Exception as error:
            running = self._record.status is RunStatus.RUNNING
            event = "run_record_heartbeat_failed" if running else "run_record_update_failed"
            _log_failed(event, error, self._record.run_id)
            return False
        return True


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:
        return ""


def _storable(text: str) -> str:
    """What a record can hold: texts of C, in UTF-8."""
    return text.encode("utf-8", "replace").decode().replace("\0", " ")


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _clock() -> float:
    """Seconds that also pass while the machine sleeps, and that nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)


def _log_failed(event: str, error: BaseException, run_id: str) -> None:
    log_failure(event, severity=FailureSeverity.ERROR, error=error, logger=_log, run_id=run_id)
