"""Writing snapshots from asyncio.

The work runs in a thread, so the event loop stays free; `key_fn`, `value_fn`, callbacks and blocking manifest stores are
called there. Records of an async iterable are pulled only as fast as they are written.
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import inspect
import threading
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, overload

from shardyfusion._engine import native
from shardyfusion.config import (
    ArrowRecordInput,
    BaseShardedWriteConfig,
    CelShardedWriteConfig,
    HashShardedWriteConfig,
    PythonRecordInput,
    PythonWriteOptions,
)
from shardyfusion.errors import ConfigValidationError, WriteCancelledError
from shardyfusion.manifest import BuildResult
from shardyfusion.writer._run import run
from shardyfusion.writer.python.writer import plan_cel_sharded, plan_hash_sharded

if TYPE_CHECKING:
    from shardyfusion.manifest import ManifestRef, ParsedManifest
    from shardyfusion.writer._plan import Plan

__all__ = ["write_cel_sharded", "write_hash_sharded"]

T = TypeVar("T")

_CHUNK = 1024  # records that cross to the writing thread at once; of record batches one
_LOOK_SECONDS = 0.1  # between looks at the cancel event while the event loop works


@overload
async def write_hash_sharded(
    records: Iterable[T] | AsyncIterable[T],
    config: HashShardedWriteConfig,
    input: PythonRecordInput[T],
    options: PythonWriteOptions | None = None,
) -> BuildResult: ...
@overload
async def write_hash_sharded(
    records: object,
    config: HashShardedWriteConfig,
    input: ArrowRecordInput,
    options: PythonWriteOptions | None = None,
) -> BuildResult: ...
async def write_hash_sharded(
    records: Any,
    config: HashShardedWriteConfig,
    input: PythonRecordInput[Any] | ArrowRecordInput,
    options: PythonWriteOptions | None = None,
) -> BuildResult:
    """Publishes the records as a new snapshot, sharded by the hash of the key.

    As `shardyfusion.writer.python.write_hash_sharded`; the manifest store may be an async one. Cancelling the task ends
    the write, and returns when what was stored has been taken back; once the pointer has moved it is too late.
    """
    return await _write(records, config, input, options, plan_hash_sharded)


@overload
async def write_cel_sharded(
    records: Iterable[T] | AsyncIterable[T],
    config: CelShardedWriteConfig,
    input: PythonRecordInput[T],
    options: PythonWriteOptions | None = None,
) -> BuildResult: ...
@overload
async def write_cel_sharded(
    records: object,
    config: CelShardedWriteConfig,
    input: ArrowRecordInput,
    options: PythonWriteOptions | None = None,
) -> BuildResult: ...
async def write_cel_sharded(
    records: Any,
    config: CelShardedWriteConfig,
    input: PythonRecordInput[Any] | ArrowRecordInput,
    options: PythonWriteOptions | None = None,
) -> BuildResult:
    """The same, sharded by a CEL expression, as `shardyfusion.writer.python.write_cel_sharded`."""
    return await _write(records, config, input, options, plan_cel_sharded)


async def _write(records: Any, config: Any, input: Any, options: PythonWriteOptions | None, make_plan: Any) -> BuildResult:
    options = PythonWriteOptions() if options is None else options
    cancel = _EitherEvent(options.cancel)
    options = replace(options, cancel=cancel)
    bridge = _Bridge(native.running_loop(), cancel)
    plan = make_plan(records, _with_blocking_store(config, bridge), input, options)
    work_on: Any = run
    source: Any = records
    if isinstance(records, AsyncIterable):
        work_on = _run_and_close
        source = bridge.iterate(aiter(records), 1 if isinstance(input, ArrowRecordInput) else _CHUNK)
    context = contextvars.copy_context()
    with ThreadPoolExecutor(1, thread_name_prefix="shardyfusion-write") as executor:
        work = native.running_loop().run_in_executor(executor, context.run, work_on, source, plan, input)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            cancel.set()
            await _until_done(work)
            raise


def _run_and_close(source: Generator[Any, None, None], plan: Plan, input: Any) -> BuildResult:
    """Closes the records in the writing thread: the event loop cannot wait for itself."""
    with closing(source):
        return run(source, plan, input)


async def _until_done(work: asyncio.Future[BuildResult]) -> None:
    """However often the task is cancelled meanwhile. How the write ended, its own record says."""
    while not work.done():
        with suppress(asyncio.CancelledError, Exception):
            await asyncio.shield(work)
    work.exception()  # looked at


class _EitherEvent(threading.Event):
    """Set when the caller's own event is, too."""

    def __init__(self, other: threading.Event | None) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        return super().is_set() or (self._other is not None and self._other.is_set())


class _Bridge:
    """From the writing thread to the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, cancel: threading.Event) -> None:
        self._loop = loop
        self._cancel = cancel

    def run(self, coroutine: Coroutine[Any, Any, T], *, may_cancel: bool) -> T:
        """The coroutine's result."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        while True:
            try:
                return future.result(_LOOK_SECONDS)
            except TimeoutError:
                if future.done():
                    raise  # the coroutine's own
                if may_cancel and self._cancel.is_set():
                    future.cancel()
                    raise WriteCancelledError("The write was cancelled; nothing was published") from None

    def iterate(self, records: AsyncIterator[T], at_once: int) -> Generator[T, None, None]:
        """The records, as the event loop produces them."""
        try:
            while True:
                chunk, error = self.run(_next_chunk(records, at_once), may_cancel=True)
                yield from chunk
                if error is not None:
                    raise error
                if len(chunk) < at_once:
                    return
        finally:
            close = getattr(records, "aclose", None)
            if close is not None:
                with suppress(Exception):
                    self.run(close(), may_cancel=False)


async def _next_chunk(records: AsyncIterator[T], at_once: int) -> tuple[list[T], BaseException | None]:
    """The next records, and what came in place of one: so that an error is that of its row."""
    chunk: list[T] = []
    try:
        while len(chunk) < at_once:
            chunk.append(await anext(records))
    except StopAsyncIteration:
        pass
    except Exception as error:
        return chunk, error
    return chunk, None


# ---------------------------------------------------------------- manifest stores


def _with_blocking_store(config: Any, bridge: _Bridge) -> Any:
    """The configuration, with an async manifest store made into a blocking one."""
    if not isinstance(config, BaseShardedWriteConfig) or config.manifest.store is None:
        return config
    store: Any = config.manifest.store
    publish = getattr(store, "publish", None)
    if publish is None:
        raise ConfigValidationError(f"manifest.store {type(store).__name__} cannot publish")
    if not inspect.iscoroutinefunction(publish):
        return config
    config = copy.copy(config)
    wrapper = _BlockingSwapStore if "expected_current" in inspect.signature(publish).parameters else _BlockingStore
    config.manifest = replace(config.manifest, store=wrapper(store, bridge))
    return config


class _BlockingStore:
    """An async manifest store, for the writing thread. A call that began is not cancelled: it may have happened."""

    def __init__(self, store: Any, bridge: _Bridge) -> None:
        self._store = store
        self._bridge = bridge

    def publish(self, *, run_id: str, required_build: Any, shards: list[Any], custom: dict[str, Any]) -> str:
        ref: str = self._bridge.run(
            self._store.publish(run_id=run_id, required_build=required_build, shards=shards, custom=custom),
            may_cancel=False,
        )
        return ref

    def load_current(self) -> ManifestRef | None:
        ref: ManifestRef | None = self._bridge.run(self._store.load_current(), may_cancel=False)
        return ref

    def load_manifest(self, ref: str) -> ParsedManifest:
        manifest: ParsedManifest = self._bridge.run(self._store.load_manifest(ref), may_cancel=False)
        return manifest

    def list_manifests(self, *, limit: int = 10) -> list[ManifestRef]:
        refs: list[ManifestRef] = self._bridge.run(self._store.list_manifests(limit=limit), may_cancel=False)
        return refs

    def set_current(self, ref: str) -> None:
        self._bridge.run(self._store.set_current(ref), may_cancel=False)


class _BlockingSwapStore(_BlockingStore):
    """The same for a store that can compare before it swaps."""

    def publish(
        self,
        *,
        run_id: str,
        required_build: Any,
        shards: list[Any],
        custom: dict[str, Any],
        **expected: Any,
    ) -> str:
        publishing = self._store.publish(
            run_id=run_id, required_build=required_build, shards=shards, custom=custom, **expected
        )
        ref: str = self._bridge.run(publishing, may_cancel=False)
        return ref
