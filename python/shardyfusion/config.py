"""Configuration of writers. Groups of settings are plain objects that can be changed until a writer starts; every writer
validates what it is given once more."""

from __future__ import annotations

import math
import os
import re
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, TypeAlias, TypeVar

from shardyfusion.errors import ConfigValidationError
from shardyfusion.sharding_types import KeyEncoding, RoutingValue, check_cel, is_positive_integer
from shardyfusion.type_defs import JsonObject, KeyInput, RetryConfig, S3ConnectionOptions

if TYPE_CHECKING:
    from shardyfusion.credentials import CredentialProvider
    from shardyfusion.manifest import RequiredShardMeta
    from shardyfusion.manifest_store import ManifestStore
    from shardyfusion.metrics import MetricsCollector
    from shardyfusion.run_registry import RunRegistry
    from shardyfusion.slatedb_adapter import DbAdapterFactory

__all__ = [
    "ANY",
    "ArrowRecordInput",
    "BaseShardedWriteConfig",
    "BufferingOptions",
    "CelShardedWriteConfig",
    "CelShardingConfig",
    "ColumnWriteInput",
    "DaskWriteOptions",
    "ExpectedCurrent",
    "HashShardedWriteConfig",
    "HashShardingConfig",
    "KeyValueWriteConfig",
    "KvWriteRateLimitConfig",
    "PublishChecks",
    "PublishPreview",
    "PythonRecordInput",
    "PythonWriteOptions",
    "RayWriteOptions",
    "SharedMemoryOptions",
    "SingleDbWriteConfig",
    "SingleDbWriteOptions",
    "SparkWriteOptions",
    "ValidatableConfig",
    "WriteProgress",
    "WriterLifecycleConfig",
    "WriterManifestConfig",
    "WriterObservabilityConfig",
    "WriterOutputConfig",
    "WriterRetryConfig",
    "WriterStorageConfig",
    "validate_configs",
    "validate_shard_id_col_no_collision",
]

T = TypeVar("T")


class _Any(Enum):
    ANY = "ANY"

    def __repr__(self) -> str:
        return "ANY"


ANY: Final = _Any.ANY
"""Of `expected_current`: the pointer may name whatever it does, the last writer wins."""

ExpectedCurrent: TypeAlias = str | None | Literal[_Any.ANY]


class ValidatableConfig(Protocol):
    """Anything that can check itself."""

    def validate(self) -> None:
        """ConfigValidationError when something is wrong."""
        ...


def validate_configs(*configs: ValidatableConfig) -> None:
    """Checks one after the other."""
    for config in configs:
        config.validate()


class _HasShardIdCol(Protocol):
    @property
    def shard_id_col(self) -> str: ...


def validate_shard_id_col_no_collision(config: _HasShardIdCol, user_columns: set[str]) -> None:
    """ConfigValidationError when the column for shard numbers would hide one of the user's."""
    if config.shard_id_col in user_columns:
        raise ConfigValidationError(
            f"shard_id_col {config.shard_id_col!r} conflicts with user data column. "
            "Choose a different shard_id_col or rename the user column."
        )


def _require(sound: bool, text: str) -> None:
    if not sound:
        raise ConfigValidationError(text)


def _at_least(value: Any, bound: float) -> bool:
    """Whether it is a number (not NaN) of that size."""
    try:
        return bool(value >= bound)
    except TypeError:
        return False


def _above(value: Any, bound: float) -> bool:
    return _at_least(value, bound) and value != bound


# ---------------------------------------------------------------- groups


@dataclass(slots=True)
class WriterStorageConfig:
    """Where a snapshot is published. `s3_prefix` may also be a `file://` or `mem://` URL, or a local path."""

    s3_prefix: str | os.PathLike[str] = ""
    credential_provider: CredentialProvider | None = None
    s3_connection_options: S3ConnectionOptions | None = None

    def validate(self) -> None:
        from shardyfusion._s3_options import check_connection_options
        from shardyfusion.storage import given_text, location

        check_connection_options(self.s3_connection_options)
        sound = isinstance(self.s3_prefix, str | os.PathLike)
        scheme, separator, rest = given_text(self.s3_prefix).partition("://") if sound else ("", "", "")
        scheme, host = scheme.strip().lower(), rest.partition("/")[0]
        if separator:
            known = bool(host) if scheme in ("s3", "mem") else scheme == "file" and host.lower() in ("", "localhost")
        else:
            known = scheme.startswith(("/", "./", "../", "file:/"))
        _require(known, "s3_prefix must be parseable as s3://bucket/prefix")
        key = location(self.s3_prefix).partition("://")[2].partition("/")[2]
        _require(bool(key.strip("/")), "s3_prefix must include a non-empty key prefix, e.g. s3://bucket/prefix")


_SEGMENT = re.compile(r"[A-Za-z0-9._-]+\Z")


def _check_segment(name: str, value: object) -> None:
    _require(isinstance(value, str) and bool(value), f"{name} must be non-empty")
    assert isinstance(value, str)
    _require(".." not in value, f"{name} must not contain '..'")
    _require("/" not in value, f"{name} must be a single path segment")
    _require(_SEGMENT.match(value) is not None, f"{name} contains unsupported characters; allowed: [A-Za-z0-9._-]")


def _default_local_root() -> str:
    return os.path.join(tempfile.gettempdir(), "shardyfusion")


@dataclass(slots=True)
class WriterOutputConfig:
    """What the objects of a run are called. `run_id` None: a random one."""

    run_id: str | None = None
    db_path_template: str = "db={db_id:05d}"
    shard_prefix: str = "shards"
    run_registry_prefix: str = "runs"
    local_root: str = field(default_factory=_default_local_root)

    def validate(self) -> None:
        _check_segment("output.shard_prefix", self.shard_prefix)
        _check_segment("output.run_registry_prefix", self.run_registry_prefix)
        try:
            paths = {self.db_path_template.format(db_id=db_id) for db_id in (0, 1)}
        except (AttributeError, IndexError, KeyError, TypeError, ValueError):
            paths = set()
        _require(
            len(paths) == 2 and all(path.strip("/") for path in paths),
            "output.db_path_template must support format(db_id=...)",
        )
        if self.run_id is not None:
            _check_run_id(self.run_id)


def _check_run_id(run_id: object) -> None:
    """A run id is a segment of object names: with others, what is published could not be listed or cleaned up."""
    sound = (
        isinstance(run_id, str)
        and run_id not in ("", ".", "..")
        and "/" not in run_id
        and run_id.isprintable()
        and len(run_id.encode(errors="replace")) <= 255
    )
    _require(sound, f"output.run_id must be a single path segment of at most 255 printable bytes, got {run_id!r}")


@dataclass(slots=True)
class WriterManifestConfig:
    """How a snapshot becomes visible. `store` None: below `s3_prefix`, with the storage group's access unless given here.

    `expected_current` is the manifest that the pointer must name for the new one to take its place: a reference, None for
    "nothing was published yet", or `ANY`; PublishConflictError otherwise.
    """

    store: ManifestStore | None = None
    custom_manifest_fields: JsonObject = field(default_factory=dict)
    credential_provider: CredentialProvider | None = None
    s3_connection_options: S3ConnectionOptions | None = None
    expected_current: ExpectedCurrent = field(default=ANY, kw_only=True)

    def validate(self) -> None:
        from shardyfusion._s3_options import check_connection_options

        check_connection_options(self.s3_connection_options)
        _require(isinstance(self.custom_manifest_fields, dict), "manifest.custom_manifest_fields must be a dict")
        _require(
            self.expected_current is ANY or self.expected_current is None or isinstance(self.expected_current, str),
            "manifest.expected_current must be a manifest reference, None or ANY",
        )


@dataclass(slots=True)
class KeyValueWriteConfig:
    """How rows are stored. `adapter_factory` None: SlateDB."""

    key_encoding: KeyEncoding = KeyEncoding.U64BE
    batch_size: int = 50_000
    adapter_factory: DbAdapterFactory | None = None
    profile_value_sizes_for_page_size: bool = False

    def validate(self) -> None:
        try:
            self.key_encoding = KeyEncoding.from_value(self.key_encoding)
        except (TypeError, ValueError) as error:
            raise ConfigValidationError(str(error)) from None
        _require(is_positive_integer(self.batch_size), "kv.batch_size must be > 0")
        page_size = getattr(self.adapter_factory, "page_size", None)  # of an SQLite factory
        _require(
            not self.profile_value_sizes_for_page_size or page_size in (None, 4096),
            f"kv.profile_value_sizes_for_page_size=True conflicts with page_size={page_size!r} of kv.adapter_factory: "
            "leave one of the two at its default",
        )


@dataclass(slots=True)
class WriterRetryConfig:
    """What is done when a shard cannot be written. None: the write fails."""

    shard_retry: RetryConfig | None = None

    def validate(self) -> None:
        retry = self.shard_retry
        if retry is None:
            return
        _require(isinstance(retry, RetryConfig), "retry.shard_retry must be RetryConfig")
        _require(
            isinstance(retry.max_retries, int) and retry.max_retries >= 0,
            "retry.shard_retry.max_retries must be an integer >= 0",
        )
        _require(
            isinstance(retry.initial_backoff, timedelta) and retry.initial_backoff >= timedelta(0),
            "retry.shard_retry.initial_backoff must be a timedelta >= 0",
        )
        _require(
            _at_least(retry.backoff_multiplier, 0) and math.isfinite(retry.backoff_multiplier),
            "retry.shard_retry.backoff_multiplier must be a number >= 0",
        )


@dataclass(slots=True)
class KvWriteRateLimitConfig:
    """Bounds on rows and bytes written a second."""

    max_writes_per_second: float | None = None
    max_write_bytes_per_second: float | None = None

    def validate(self) -> None:
        for name in ("max_writes_per_second", "max_write_bytes_per_second"):
            rate = getattr(self, name)
            _require(rate is None or _above(rate, 0), f"rate_limits.{name} must be > 0 when set")


@dataclass(slots=True)
class WriterObservabilityConfig:
    """Who is told what happens."""

    metrics_collector: MetricsCollector | None = None

    def validate(self) -> None:
        """Any object may be a collector."""


@dataclass(slots=True)
class WriterLifecycleConfig:
    """Where the run's own record is kept. None: beside the snapshot."""

    run_registry: RunRegistry | None = None

    def validate(self) -> None:
        """Any object may be a registry."""


@dataclass(slots=True)
class HashShardingConfig:
    """The number of shards, or how many keys each should hold at most. Exactly one."""

    num_dbs: int | None = None
    max_keys_per_shard: int | None = None

    def validate(self) -> None:
        if self.max_keys_per_shard is None:
            _require(is_positive_integer(self.num_dbs), "sharding.num_dbs must be > 0")
        else:
            _require(
                self.num_dbs is None, "sharding.num_dbs must be None when sharding.max_keys_per_shard is set"
            )
            _require(is_positive_integer(self.max_keys_per_shard), "sharding.max_keys_per_shard must be > 0")


@dataclass(slots=True)
class CelShardingConfig:
    """Sharding by a CEL expression."""

    cel_expr: str = ""
    cel_columns: dict[str, str] = field(default_factory=dict)
    routing_values: list[RoutingValue] | None = None
    infer_routing_values_from_data: bool = False

    def validate(self) -> None:
        check_cel(self)


# ---------------------------------------------------------------- whole configurations

# group -> (its class, the flat names that stand for its fields)
_GROUPS: dict[str, tuple[type[Any], tuple[str, ...]]] = {
    "storage": (WriterStorageConfig, ("s3_prefix", "credential_provider", "s3_connection_options")),
    "output": (WriterOutputConfig, ()),
    "manifest": (WriterManifestConfig, ()),
    "kv": (KeyValueWriteConfig, ("key_encoding", "batch_size", "adapter_factory")),
    "retry": (WriterRetryConfig, ("shard_retry",)),
    "rate_limits": (KvWriteRateLimitConfig, ("max_writes_per_second", "max_write_bytes_per_second")),
    "observability": (WriterObservabilityConfig, ("metrics_collector",)),
    "lifecycle": (WriterLifecycleConfig, ("run_registry",)),
}


def _group(name: str, cls: type[Any], given: object, flat: Mapping[str, object]) -> Any:
    """The group as given, or one of its flat names."""
    flat = {key: value for key, value in flat.items() if value is not None}
    if given is None:
        return cls(**flat)
    if flat:
        raise ConfigValidationError(f"{name} cannot be combined with {', '.join(flat)}")
    return given


def _flat(group: str, name: str, settable: bool = True) -> property:
    def read(self: Any) -> Any:
        return getattr(getattr(self, group), name)

    def write(self: Any, value: Any) -> None:
        setattr(getattr(self, group), name, value)

    return property(read, write if settable else None, doc=f"`{group}.{name}`")


@dataclass(slots=True, init=False)
class BaseShardedWriteConfig:
    """What all writers are told. Every setting may be given in its group or by its flat name, not both."""

    storage: WriterStorageConfig = field(default_factory=WriterStorageConfig)
    output: WriterOutputConfig = field(default_factory=WriterOutputConfig)
    manifest: WriterManifestConfig = field(default_factory=WriterManifestConfig)
    kv: KeyValueWriteConfig = field(default_factory=KeyValueWriteConfig)
    retry: WriterRetryConfig = field(default_factory=WriterRetryConfig)
    rate_limits: KvWriteRateLimitConfig = field(default_factory=KvWriteRateLimitConfig)
    observability: WriterObservabilityConfig = field(default_factory=WriterObservabilityConfig)
    lifecycle: WriterLifecycleConfig = field(default_factory=WriterLifecycleConfig)
    vector: Any = None
    shard_id_col: str = "_shard_id"

    def __init__(
        self,
        *,
        storage: WriterStorageConfig | None = None,
        output: WriterOutputConfig | None = None,
        manifest: WriterManifestConfig | None = None,
        kv: KeyValueWriteConfig | None = None,
        retry: WriterRetryConfig | None = None,
        rate_limits: KvWriteRateLimitConfig | None = None,
        observability: WriterObservabilityConfig | None = None,
        lifecycle: WriterLifecycleConfig | None = None,
        vector: Any = None,
        shard_id_col: str = "_shard_id",
        s3_prefix: str | os.PathLike[str] | None = None,
        key_encoding: KeyEncoding | None = None,
        batch_size: int | None = None,
        adapter_factory: DbAdapterFactory | None = None,
        metrics_collector: MetricsCollector | None = None,
        run_registry: RunRegistry | None = None,
        shard_retry: RetryConfig | None = None,
        credential_provider: CredentialProvider | None = None,
        s3_connection_options: S3ConnectionOptions | None = None,
        vector_spec: Any = None,
        max_writes_per_second: float | None = None,
        max_write_bytes_per_second: float | None = None,
    ) -> None:
        given = locals()
        for name, (cls, flat_names) in _GROUPS.items():
            setattr(self, name, _group(name, cls, given[name], {flat: given[flat] for flat in flat_names}))
        if vector is not None and vector_spec is not None:
            raise ConfigValidationError("vector cannot be combined with vector_spec")
        self.vector = vector if vector is not None else vector_spec
        self.shard_id_col = shard_id_col
        self._check_base()

    def _check_base(self) -> None:
        for name, (cls, _) in _GROUPS.items():
            group = getattr(self, name)
            _require(isinstance(group, cls), f"{name} must be {cls.__name__}")
            group.validate()
        _require(
            isinstance(self.shard_id_col, str) and bool(self.shard_id_col),
            "shard_id_col must be a non-empty string",
        )
        _require(self.vector is None, "vector search is not available in this version: vector must be None")

    def validate(self) -> None:
        """ConfigValidationError when something is wrong."""
        self._check_base()

    s3_prefix = _flat("storage", "s3_prefix")
    credential_provider = _flat("storage", "credential_provider")
    s3_connection_options = _flat("storage", "s3_connection_options")
    key_encoding = _flat("kv", "key_encoding")
    batch_size = _flat("kv", "batch_size")
    adapter_factory = _flat("kv", "adapter_factory")
    shard_retry = _flat("retry", "shard_retry")
    max_writes_per_second = _flat("rate_limits", "max_writes_per_second", settable=False)
    max_write_bytes_per_second = _flat("rate_limits", "max_write_bytes_per_second", settable=False)
    metrics_collector = _flat("observability", "metrics_collector")
    run_registry = _flat("lifecycle", "run_registry")

    @property
    def vector_spec(self) -> Any:
        """`vector`"""
        return self.vector

    @vector_spec.setter
    def vector_spec(self, value: Any) -> None:
        self.vector = value


@dataclass(slots=True, init=False)
class HashShardedWriteConfig(BaseShardedWriteConfig):
    """Shards by the hash of the key."""

    sharding: HashShardingConfig = field(default_factory=HashShardingConfig)

    def __init__(
        self,
        *,
        sharding: HashShardingConfig | None = None,
        num_dbs: int | None = None,
        max_keys_per_shard: int | None = None,
        **base_kwargs: Any,
    ) -> None:
        flat = {"num_dbs": num_dbs, "max_keys_per_shard": max_keys_per_shard}
        self.sharding = _group("sharding", HashShardingConfig, sharding, flat)
        BaseShardedWriteConfig.__init__(self, **base_kwargs)
        self._check_sharding()

    def _check_sharding(self) -> None:
        _require(isinstance(self.sharding, HashShardingConfig), "sharding must be HashShardingConfig")
        self.sharding.validate()

    def validate(self) -> None:
        """ConfigValidationError when something is wrong."""
        self._check_base()
        self._check_sharding()

    num_dbs = _flat("sharding", "num_dbs", settable=False)
    max_keys_per_shard = _flat("sharding", "max_keys_per_shard", settable=False)


@dataclass(slots=True, init=False)
class CelShardedWriteConfig(BaseShardedWriteConfig):
    """Shards by a CEL expression."""

    sharding: CelShardingConfig = field(default_factory=CelShardingConfig)

    def __init__(
        self,
        *,
        sharding: CelShardingConfig | None = None,
        cel_expr: str | None = None,
        cel_columns: dict[str, str] | None = None,
        routing_values: list[RoutingValue] | None = None,
        infer_routing_values_from_data: bool | None = None,
        **base_kwargs: Any,
    ) -> None:
        flat = {
            "cel_expr": cel_expr,
            "cel_columns": cel_columns,
            "routing_values": routing_values,
            "infer_routing_values_from_data": infer_routing_values_from_data,
        }
        self.sharding = _group("sharding", CelShardingConfig, sharding, flat)
        BaseShardedWriteConfig.__init__(self, **base_kwargs)
        self._check_sharding()

    def _check_sharding(self) -> None:
        _require(isinstance(self.sharding, CelShardingConfig), "sharding must be CelShardingConfig")
        self.sharding.validate()

    def validate(self) -> None:
        """ConfigValidationError when something is wrong."""
        self._check_base()
        self._check_sharding()

    cel_expr = _flat("sharding", "cel_expr", settable=False)
    cel_columns = _flat("sharding", "cel_columns", settable=False)
    routing_values = _flat("sharding", "routing_values", settable=False)
    infer_routing_values_from_data = _flat("sharding", "infer_routing_values_from_data", settable=False)


@dataclass(slots=True, init=False)
class SingleDbWriteConfig(BaseShardedWriteConfig):
    """All rows in one shard."""

    def __init__(self, **base_kwargs: Any) -> None:
        BaseShardedWriteConfig.__init__(self, **base_kwargs)

    @property
    def num_dbs(self) -> int:
        """Always 1."""
        return 1


# ---------------------------------------------------------------- inputs


@dataclass(slots=True)
class PythonRecordInput(Generic[T]):
    """How records of any kind become rows. `columns_fn` gives the columns of a CEL expression."""

    key_fn: Callable[[T], KeyInput]
    value_fn: Callable[[T], bytes]
    columns_fn: Callable[[T], dict[str, Any]] | None = None
    vector_fn: Callable[[T], Any] | None = None

    def validate(self) -> None:
        for name in ("key_fn", "value_fn"):
            _require(callable(getattr(self, name)), f"{name} must be callable")
        for name in ("columns_fn", "vector_fn"):
            given = getattr(self, name)
            _require(given is None or callable(given), f"{name} must be callable")


@dataclass(slots=True)
class ArrowRecordInput:
    """The columns of Arrow data (anything with `__arrow_c_stream__`) that hold keys and values.

    Give `value_col`, a column of bytes or text, which costs no Python object a row; or a `value_spec`, whose encoder sees
    every row as a dict.
    """

    key_col: str
    value_col: str | None = None
    value_spec: Any = field(default=None, kw_only=True)

    def validate(self) -> None:
        _require(isinstance(self.key_col, str) and bool(self.key_col), "key_col must be a non-empty string")
        _require(
            (self.value_col is None) != (self.value_spec is None), "exactly one of value_col and value_spec must be given"
        )
        _require(self.value_col is None or isinstance(self.value_col, str), "value_col must be a string")


@dataclass(slots=True)
class ColumnWriteInput:
    """The columns of a table that hold keys and values."""

    key_col: str
    value_spec: Any
    vector: Any = None
    vector_fn: Callable[[Any], Any] | None = None

    def validate(self) -> None:
        _require(isinstance(self.key_col, str) and bool(self.key_col), "key_col must be a non-empty string")


# ---------------------------------------------------------------- options


@dataclass(slots=True)
class SharedMemoryOptions:
    """Bytes of rows on their way to worker processes, in all and to each. None: no bound."""

    max_total_bytes: int | None = 256 << 20
    max_bytes_per_worker: int | None = 32 << 20

    def validate(self) -> None:
        for name in ("max_total_bytes", "max_bytes_per_worker"):
            value = getattr(self, name)
            _require(value is None or is_positive_integer(value), f"options.shared_memory.{name} must be > 0 when set")


@dataclass(slots=True)
class BufferingOptions:
    """Bounds on the rows of all shards that wait in memory. None: no bound but `batch_size`."""

    max_total_batched_items: int | None = None
    max_total_batched_bytes: int | None = None

    def validate(self) -> None:
        for name in ("max_total_batched_items", "max_total_batched_bytes"):
            value = getattr(self, name)
            _require(value is None or is_positive_integer(value), f"options.buffering.{name} must be > 0 when set")


Phase = Literal["adding", "building", "checking", "publishing", "cleaning", "done"]


@dataclass(slots=True, frozen=True)
class WriteProgress:
    """How far a write is. `shards_total` counts the shards with rows; it is 0 until all rows were read."""

    phase: Phase
    rows_read: int
    rows_written: int
    bytes_written: int
    shards_done: int
    shards_total: int
    elapsed: float


@dataclass(slots=True, frozen=True)
class PublishPreview:
    """What is about to be published, for a check of one's own."""

    run_id: str
    num_dbs: int
    rows: int
    shards: list[RequiredShardMeta]
    previous_rows: int | None


@dataclass(slots=True)
class PublishChecks:
    """What must hold before a snapshot becomes visible; else PublishRefusedError, and readers keep the one before.

    `min_rows_share` and `max_rows_share` compare the rows with those of the snapshot that the pointer names;
    `max_empty_shards` bounds the shards without rows; so many keys as `sample_keys` must read back from storage; `check`
    refuses by returning False or a text, or by raising.
    """

    min_rows_share: float | None = None
    max_rows_share: float | None = None
    max_empty_shards: int | None = None
    sample_keys: int = 0
    check: Callable[[PublishPreview], bool | str | None] | None = None

    def validate(self) -> None:
        for name in ("min_rows_share", "max_rows_share"):
            share = getattr(self, name)
            _require(share is None or _above(share, 0), f"options.checks.{name} must be > 0 when set")
        empty = self.max_empty_shards
        _require(empty is None or _at_least(empty, 0), "options.checks.max_empty_shards must be >= 0 when set")
        few = _at_least(self.sample_keys, 0) and self.sample_keys <= 100_000
        _require(few, "options.checks.sample_keys must be between 0 and 100000")
        _require(self.check is None or callable(self.check), "options.checks.check must be callable")


@dataclass(slots=True)
class PythonWriteOptions:
    """How a write from Python goes about it.

    `parallel` builds shards at once: in threads of the engine when the adapter factory is a built-in one, else in one
    process a shard. The keyword-only fields:

    progress, progress_interval: called about every so many seconds, on the writing thread; None shows a line on a
        terminal, False nothing.
    cancel: setting the event ends the write with WriteCancelledError, unless the pointer has moved.
    workers: threads of the engine that build shards. memory_bytes: rows in memory before they spill to `local_root`.
    on_duplicate: of rows with one key the last counts, or DuplicateKeyError. Only with built-in factories.
    verify: read every shard back before it is published. dry_run: do everything but publish, then take it back.
    checks: what must hold before the snapshot becomes visible.
    """

    parallel: bool = False
    max_queue_size: int = 100
    shared_memory: SharedMemoryOptions = field(default_factory=SharedMemoryOptions)
    buffering: BufferingOptions = field(default_factory=BufferingOptions)
    progress: Callable[[WriteProgress], None] | Literal[False] | None = field(default=None, kw_only=True)
    progress_interval: float = field(default=1.0, kw_only=True)
    cancel: threading.Event | None = field(default=None, kw_only=True)
    workers: int | None = field(default=None, kw_only=True)
    memory_bytes: int | None = field(default=None, kw_only=True)
    on_duplicate: Literal["last", "error"] = field(default="last", kw_only=True)
    verify: bool = field(default=False, kw_only=True)
    dry_run: bool = field(default=False, kw_only=True)
    checks: PublishChecks = field(default_factory=PublishChecks, kw_only=True)

    def validate(self) -> None:
        _require(is_positive_integer(self.max_queue_size), "options.max_queue_size must be > 0")
        _require(isinstance(self.shared_memory, SharedMemoryOptions), "options.shared_memory must be SharedMemoryOptions")
        _require(isinstance(self.buffering, BufferingOptions), "options.buffering must be BufferingOptions")
        _require(isinstance(self.checks, PublishChecks), "options.checks must be PublishChecks")
        validate_configs(self.shared_memory, self.buffering, self.checks)
        told = self.progress is None or self.progress is False or callable(self.progress)
        _require(told, "options.progress must be callable")
        _require(_above(self.progress_interval, 0), "options.progress_interval must be > 0")
        _require(self.workers is None or is_positive_integer(self.workers), "options.workers must be > 0 when set")
        _require(
            self.memory_bytes is None or (is_positive_integer(self.memory_bytes) and self.memory_bytes >= 1 << 20),
            "options.memory_bytes must be at least 1 MiB when set",
        )
        _require(self.on_duplicate in ("last", "error"), "options.on_duplicate must be 'last' or 'error'")


@dataclass(slots=True)
class SparkWriteOptions:
    """How a write from Spark goes about it."""

    sort_within_partitions: bool = False
    verify_routing: bool = True
    cache_input: bool = False
    storage_level: Any | None = None
    spark_conf_overrides: dict[str, str] | None = None

    def validate(self) -> None:
        """Nothing to check without Spark."""


@dataclass(slots=True)
class DaskWriteOptions:
    """How a write from Dask goes about it."""

    sort_within_partitions: bool = False
    verify_routing: bool = True

    def validate(self) -> None:
        """Nothing to check without Dask."""


@dataclass(slots=True)
class RayWriteOptions:
    """How a write from Ray goes about it."""

    sort_within_partitions: bool = False
    verify_routing: bool = True

    def validate(self) -> None:
        """Nothing to check without Ray."""


@dataclass(slots=True)
class SingleDbWriteOptions:
    """How a write of one shard from Spark, Dask or Ray goes about it."""

    sort_keys: bool = True
    num_partitions: int | None = None
    prefetch_partitions: bool = True
    cache_input: bool = True
    storage_level: Any | None = None
    spark_conf_overrides: dict[str, str] | None = None

    def validate(self) -> None:
        partitions = self.num_partitions
        _require(partitions is None or is_positive_integer(partitions), "options.num_partitions must be > 0 when set")


_LATER = {
    "UnifiedVectorWriteConfig",
    "VectorColumnInput",
    "VectorMetricLiteral",
    "VectorSpec",
    "VectorWriteRateLimitConfig",
    "VectorWriteTuple",
    "vector_metric_to_str",
}


def __getattr__(name: str) -> Any:
    if name in _LATER:
        raise AttributeError(f"{__name__}.{name}: vector search is not available in this version")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
