"""The keyword arguments of the readers, each said once: they are the fields of these dataclasses. The engine finds those that are
its own by their names (`_core/reader.c` has the table)."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import wraps
from os import PathLike
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, get_args

from shardyfusion._connection_options import check_connection_options
from shardyfusion._kinds import (
    CALLABLE,
    COLLECTOR,
    INTEGER,
    LIMITER,
    MANIFEST_STORE,
    PATH,
    PROVIDER,
    TEXT,
    YES_OR_NO,
    Kind,
    check_kind,
)
from shardyfusion._timeouts import Timeout, seconds
from shardyfusion.storage import given_ref, given_text, location, parse_s3_url
from shardyfusion.type_defs import CacheOptions

if TYPE_CHECKING:
    from shardyfusion._rate_limiter import RateLimiter
    from shardyfusion.async_manifest_store import AsyncManifestStore
    from shardyfusion.credentials import CredentialProvider
    from shardyfusion.manifest import ManifestRef
    from shardyfusion.manifest_store import ManifestStore
    from shardyfusion.metrics import MetricsCollector
    from shardyfusion.reader._following import OnRefresh
    from shardyfusion.type_defs import AsyncShardReaderFactory, S3Config, S3ConnectionOptions, ShardReaderFactory

P = ParamSpec("P")
O = TypeVar("O")  # noqa: E741
S = TypeVar("S")
R = TypeVar("R")

DEFAULT_OPEN_CONCURRENCY = 64

_KINDS: dict[str, Kind] = {  # None is always one where it is the default
    "local_root": PATH,
    "manifest_store": MANIFEST_STORE,
    "current_pointer_key": TEXT,
    "reader_factory": CALLABLE,
    "slate_env_file": PATH,
    "credential_provider": PROVIDER,
    "max_fallback_attempts": INTEGER,
    "metrics_collector": COLLECTOR,
    "rate_limiter": LIMITER,
    "relocate": YES_OR_NO,
    "confine": YES_OR_NO,
    "strict_keys": YES_OR_NO,
    "on_refresh": CALLABLE,
    "lazy_open": YES_OR_NO,
    "max_concurrency": INTEGER,
    "open_concurrency": INTEGER,
    "max_workers": INTEGER,
}
Residency = Literal["none", "index", "memory", "disk"]
_TIMES = ("refresh_interval", "timeout", "open_timeout", "pool_checkout_timeout")


@dataclass(frozen=True, kw_only=True)
class ReaderOptions:
    """
    s3_prefix: where the snapshot lies: "s3://bucket/prefix", "file:///path", "mem://name/path", or a path that begins with
        "/" or ".". Only a name in logs when a `manifest_store` is given.
    local_root: a directory for local state: copies of SQLite shards; shard factories get a folder of it.
    manifest_store: where manifests are; by default below `s3_prefix`.
    current_pointer_key: name of the pointer object, for the default store.
    reader_factory: opens shards; by default the built-in readers, as the snapshot says: SlateDB or SQLite.
    slate_env_file: a dotenv file with AWS_ values for the default factory.
    credential_provider: credentials for the default store and factory.
    s3_connection_options: how to reach storage, for the default store and factory.
    max_fallback_attempts: older manifests to try when the current one is malformed, at opening only.
    metrics_collector: gets an event for every read.
    rate_limiter: asked for one token a key before every read.
    relocate: read what lies below the published prefix below `s3_prefix` instead, as it is always done when the schemes differ
        (a copy on local disk).
    confine: refuse what the snapshot names outside of `s3_prefix`. None: if that is local, or the snapshot is not where it
        was published; not with a manifest store of the caller's.
    strict_keys: refuse bytes as keys of look-ups where the snapshot's keys are integers: they route otherwise and are missed.
        Else one warning is logged.
    snapshot: the manifest to serve for good, whatever the pointer names: its reference (a text, or a ManifestRef), or "run_id=..." for the
        newest one of that run, found among the 1,000 newest, where references name runs. A refresh changes nothing then.
    refresh_interval: refresh that often (a timedelta, or seconds), counted from the end of a refresh; less often while that
        fails, which is logged and told by `health()`. None: only `refresh()` does. An async reader does it on the event loop
        that opened it, a blocking one in a thread of its own, and both until they are closed.
    refresh_jitter: the share by which an interval is at most longer or shorter, so that readers of a fleet are not in step.
    residency: what is nearer than storage once `ready()` has ended: "none"; "index", indexes and filters, or the pages above
        the leaves; "memory" or "disk", all of the snapshot, in the engine's cache, or in that of `cache` and in copies of SQLite shards. What
        cannot be is refused when the reader is opened: with `lazy_open`, with a `reader_factory` of your own, on disk without a place there.
    cache: what may be kept in memory and on local disk, and how SlateDB shards are read; None: the process's cache in memory, which
        all readers share (256 MiB), and copies of SQLite shards.
    on_refresh: called with the SnapshotInfo before and the one now when a refresh, whoever asked for it, has moved the reader; by
        the thread that refreshes. An async reader awaits what it returns, if that can be awaited. Its failures are logged.
    """

    s3_prefix: str | PathLike[str]
    local_root: str
    manifest_store: AsyncManifestStore | ManifestStore | None = None
    current_pointer_key: str = "_CURRENT"
    reader_factory: AsyncShardReaderFactory | ShardReaderFactory | None = None
    slate_env_file: str | None = None
    credential_provider: CredentialProvider | None = None
    s3_connection_options: S3ConnectionOptions | S3Config | None = None
    max_fallback_attempts: int = 3
    metrics_collector: MetricsCollector | None = None
    rate_limiter: RateLimiter | None = None
    relocate: bool = False
    confine: bool | None = None
    strict_keys: bool = False
    snapshot: str | ManifestRef | None = None
    refresh_interval: Timeout = None
    refresh_jitter: float = 0.1
    on_refresh: OnRefresh | None = None
    cache: CacheOptions | None = None
    residency: Residency = "none"

    def check(self) -> None:
        """InvalidArgumentError or ConfigValidationError for what no snapshot could be opened with."""
        self._check_kinds()
        prefix = self.prefix
        check_kind("s3_prefix", prefix, TEXT)
        if self.manifest_ref is not None:
            check_kind("snapshot", self.manifest_ref, TEXT)
        if self.manifest_ref == "":
            raise ValueError("snapshot must name a manifest, or be None")
        if self.refreshes_itself and not seconds(self.refresh_interval):
            raise ValueError("refresh_interval must be > 0, or None")
        if not isinstance(self.refresh_jitter, (int, float)):
            raise TypeError(f"refresh_jitter must be a number, not {type(self.refresh_jitter).__name__}")
        if not 0 <= self.refresh_jitter <= 1:
            raise ValueError(f"refresh_jitter must be within 0 and 1, got {self.refresh_jitter}")
        if self.cache is not None and not isinstance(self.cache, CacheOptions):
            raise TypeError(f"cache must be CacheOptions, not {type(self.cache).__name__}")
        if self.residency not in get_args(Residency):
            raise ValueError(f"residency must be one of {', '.join(get_args(Residency))}, not {self.residency!r}")
        check_connection_options(self.s3_connection_options)
        if self.manifest_store is None and not prefix.startswith(("file://", "mem://")):
            parse_s3_url(prefix)

    def _check_kinds(self) -> None:
        for option in fields(self):
            value = getattr(self, option.name)
            if value is None and option.default is None:
                continue
            if option.name in _TIMES:
                seconds(value, option.name)
            elif option.name in _KINDS:
                check_kind(option.name, value, _KINDS[option.name])

    @property
    def manifest_ref(self) -> str | None:
        """For the engine."""
        return None if self.snapshot is None else given_ref(self.snapshot)

    @property
    def caching(self) -> dict[str, Any]:
        """For the engine."""
        if self.cache is None:
            return {}
        own = {} if self.cache.memory_bytes is None else {"memory_bytes": self.cache.memory_bytes}
        return {
            **own,
            "disk_folder": os.path.join(self.local_root, "extents"),
            "disk_bytes": self.cache.disk_bytes or 0,
            "read_gap_bytes": self.cache.read_gap_bytes,
            "warm_bytes": self.cache.warm_bytes,
            "hedge_share": self.cache.hedge_share,
            "hedge_after": seconds(self.cache.hedge_after, "hedge_after"),
        }

    @property
    def refreshes_itself(self) -> bool:
        return seconds(self.refresh_interval) is not None

    @property
    def prefix(self) -> str:
        """For the engine. Of a store of the caller's it is only a name."""
        text = given_text(self.s3_prefix)
        return location(text) if self.manifest_store is None else text


@dataclass(frozen=True, kw_only=True)
class AsyncReaderOptions(ReaderOptions):
    """
    max_concurrency: most shard reads of one `multi_get` at a time, where single shards are read: with a factory of one's own.
        The built-in reader has one bounded operation per call.
    open_concurrency: most shards that are opened at a time.
    lazy_open: open a shard when it is first read; a broken one then fails the reads of its keys only.

    A blocking `manifest_store` is called in worker threads.
    """

    reader_factory: AsyncShardReaderFactory | None = None
    max_concurrency: int | None = None
    open_concurrency: int = DEFAULT_OPEN_CONCURRENCY
    lazy_open: bool = False

    def check(self) -> None:
        super().check()
        _check_positive("max_concurrency", self.max_concurrency)
        _check_positive("open_concurrency", self.open_concurrency)


@dataclass(frozen=True, kw_only=True)
class OpenOptions(AsyncReaderOptions):
    """
    timeout: bounds the opening.
    """

    timeout: Timeout = None


@dataclass(frozen=True, kw_only=True)
class SyncReaderOptions(ReaderOptions):
    """
    max_workers: above 1, `multi_get` reads that many shards of a factory's own at a time.
    open_timeout: bounds the opening by the built-in store and factory.
    """

    manifest_store: ManifestStore | None = None
    reader_factory: ShardReaderFactory | None = None
    max_workers: int | None = None
    open_timeout: Timeout = None

    def check(self) -> None:
        super().check()
        _check_positive("max_workers", self.max_workers)


@dataclass(frozen=True, kw_only=True)
class ConcurrentReaderOptions(SyncReaderOptions):
    """
    thread_safety: how threads share the shard readers of a factory of one's own: one after the other ("lock"), or `max_workers`
        readers (4 by default) per shard ("pool").
    pool_checkout_timeout: PoolExhaustedError from reads when no shard reader of a pool becomes free within it.
    """

    thread_safety: Literal["lock", "pool"] = "lock"
    pool_checkout_timeout: timedelta = timedelta(seconds=30)

    def check(self) -> None:
        super().check()
        if self.thread_safety not in ("lock", "pool"):
            raise ValueError("thread_safety must be 'lock' or 'pool'")
        timeout_s = seconds(self.pool_checkout_timeout)
        if timeout_s is not None and timeout_s <= 0:
            raise ValueError(f"pool_checkout_timeout must be > 0, got {timeout_s}")


def _check_positive(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise ValueError(f"{name} must be a positive integer (>= 1)")


def takes(options: Callable[P, O]) -> Callable[[Callable[[S, O], R]], Callable[Concatenate[S, P], R]]:
    """Makes a method that takes one of these take its fields as keyword arguments: for callers, type checkers and `help()`. Each
    is of one method, by whose name missing and unknown arguments are told of."""

    def decorate(method: Callable[[S, O], R]) -> Callable[Concatenate[S, P], R]:
        @wraps(method)
        def taking(self: S, /, **arguments: Any) -> R:
            return method(self, options(**arguments))  # type: ignore[call-arg]

        own, *_ = inspect.signature(method).parameters.values()
        theirs = inspect.signature(options).parameters.values()
        taking.__signature__ = inspect.Signature([own, *theirs])  # type: ignore[attr-defined]
        taking.__doc__ = _documented(method, options)
        options.__init__.__qualname__ = method.__qualname__
        return taking  # type: ignore[return-value]

    return decorate


def _documented(method: Callable[..., Any], options: Any) -> str:
    listed = [cls.__doc__ or "" for cls in reversed(options.__mro__) if "__dataclass_fields__" in vars(cls)]
    return "\n\n".join([inspect.cleandoc(method.__doc__ or ""), *map(inspect.cleandoc, listed)]).strip()


def given(options: ReaderOptions, taker: type) -> dict[str, Any]:
    """The arguments for a class's constructor. One of a subclass's own need not know those that its caller did not give."""
    known = inspect.signature(taker).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    every = {f.name: (getattr(options, f.name), f.default) for f in fields(options)}
    return {
        name: value for name, (value, default) in every.items() if takes_all or name in known or value is not default
    }
