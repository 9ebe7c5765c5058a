"""Shards of the caller's own factory. The engine asks for them, and for their rows; what is here answers.

It asks on behalf of an operation, where that is awaited, and keeps numbers: the shards themselves are in here, and are closed
when the engine has closed their numbers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import islice
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from shardyfusion._engine import native
from shardyfusion._not_copied import NotCopied
from shardyfusion._storage_errors import MultiGetError, multi_get_error
from shardyfusion._store_events import note_from_now_on, noted, noting
from shardyfusion._timeouts import without_deadline
from shardyfusion._turn import give_way
from shardyfusion.errors import ManifestParseError, OperationTimeoutError, ShardyfusionError
from shardyfusion.manifest_store import parse_manifest_payload
from shardyfusion.reader._scan import Row, scan_of
from shardyfusion.reader._state import Failures, log_close_failed
from shardyfusion.reader._types import OnError
from shardyfusion.type_defs import AsyncShardReader, AsyncShardReaderFactory, K, ShardReader, ShardReaderFactory

if TYPE_CHECKING:
    from shardyfusion._native import Operation, RejectedManifest, Question, Snapshot
    from shardyfusion.manifest import ParsedManifest
    from shardyfusion.reader._manifest_questions import Ask
    from shardyfusion.reader._sync_shards import SyncShard

T = TypeVar("T")
S = TypeVar("S")

_KEPT_MANIFESTS = 4  # of a reader that refreshes while lazy shards of its snapshots are opened

_closing: set[asyncio.Task[Failures]] = set()  # asyncio itself keeps only weak references to tasks


@dataclass(slots=True, eq=False)
class Opened(Generic[S]):
    """A shard, and where it is from."""

    db_id: int
    manifest_ref: str
    shard: S


class _Asked:
    """What is asked on behalf of one operation, and how it failed: the engine's own error is no more than a note of that.
    `keeps_errors`: those of single keys are part of the answer."""

    def __init__(self, shards: _Shards[Any], *, keeps_errors: bool) -> None:
        self.error: BaseException | None = None
        self.malformed: dict[str, BaseException] = {}
        self.shard_errors: dict[int, Exception] = {}
        self.key_errors: dict[tuple[int, bytes], Exception] = {}
        self.keeps_errors = keeps_errors
        self._manifests = shards.manifests

    def __call__(self, question: Question) -> Any:
        what = question.what
        if what == "open_shard":
            self.open(question, *question.about)
        elif what == "values":
            self.get(question, *question.about)
        elif what == "rows":
            self.scan(question, *question.about)
        elif self._manifests is not None:
            return self._manifests(question)
        return None

    def open(self, question: Question, *about: Any) -> None:
        raise NotImplementedError

    def get(self, question: Question, *about: Any) -> None:
        raise NotImplementedError

    def scan(self, question: Question, *about: Any) -> None:
        raise NotImplementedError

    def key_failed(self, db_id: int, key: bytes, error: Exception) -> Exception:
        """The answer for a key that cannot be read; or raises that, which fails its shard."""
        if not self.keeps_errors:
            raise error
        self.key_errors[db_id, key] = error
        return error

    def shard_failed(self, question: Question, db_id: int, error: BaseException) -> None:
        if isinstance(error, Exception):
            self.shard_errors.setdefault(db_id, error)
        self.failed(question, error)

    def failed(self, question: Question, error: BaseException, manifest_ref: str | None = None) -> None:
        if manifest_ref is not None and isinstance(error, ManifestParseError):
            self.malformed[manifest_ref] = error
            question.fail(error, "BAD_MANIFEST")
        else:
            if self.error is None or not isinstance(error, Exception):
                self.error = error
            question.fail(error)

    def reason(self, error: BaseException) -> BaseException:
        """Of a failure of the operation."""
        if not isinstance(error, Exception) or isinstance(error, OperationTimeoutError):
            return error
        if self.error is not None:
            return self.error
        return next(reversed(self.malformed.values())) if self.malformed and type(error) is ManifestParseError else error

    def with_errors(self, found: dict[K, Any], encode: Callable[[K], bytes]) -> dict[K, Any]:
        """What was found, with the exceptions themselves in place of what the engine knows of them. What ends programs is no answer."""
        if self.error is not None and not isinstance(self.error, Exception):
            raise self.error
        for key, value in found.items() if self.keeps_errors else ():
            if isinstance(value, ShardyfusionError) and value.db_id is not None:
                found[key] = self.key_errors.get((value.db_id, encode(key))) or self.shard_errors.get(value.db_id, value)
        return found

    def name(self, rejected: list[RejectedManifest] | None) -> None:
        if rejected is not None:
            rejected[:] = [(ref, self.malformed.get(ref, error), bad) for ref, error, bad in rejected]


class _Shards(NotCopied, Generic[S]):
    """The shards of one reader."""

    def __init__(self, local_root: str, log: Logger) -> None:
        self.opener = native.ShardOpener()
        self.manifests: Ask | None = None  # answers for a store of the caller's
        self._loaded: dict[str, ParsedManifest] = {}  # what that gave, newest last
        self._local_root = Path(local_root)
        self._log = log
        self._events = noted()
        self._opened: dict[int, Opened[S]] = {}
        self._reads = False  # of the engine, on its loop thread, since it was settled
        self._scans: dict[int, Any] = {}

    def of(self, snapshot: Snapshot, db_id: int) -> S | None:
        """None: it is empty, or nobody has read it yet."""
        number = snapshot.shard_number(db_id)
        return None if number is None else self._opened[number].shard

    def db_id_of(self, number: int) -> int:
        return self._opened[number].db_id

    def _local_dir(self, db_id: int) -> Path:
        path = self._local_root / f"shard={db_id:05d}"
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path

    def keep_manifest(self, ref: str, manifest: ParsedManifest) -> None:
        """The store's own object, for the factory."""
        self._loaded.pop(ref, None)
        self._loaded[ref] = manifest
        if len(self._loaded) > _KEPT_MANIFESTS:
            del self._loaded[next(iter(self._loaded))]

    def _manifest(self, ref: str, published: bytes) -> ParsedManifest:
        loaded = self._loaded.get(ref)
        return _parsed(published) if loaded is None else loaded

    def _taken_back(self) -> list[Opened[S]]:
        """What the engine has closed, to be closed by whoever asks."""
        shards, scans = self.opener.closed()
        for number in scans:
            self._scans.pop(number, None)
        return sorted((self._opened.pop(number) for number in shards), key=lambda opened: opened.db_id)

    def _log_close_failed(self, opened: Opened[S], error: Exception) -> tuple[int, Exception]:
        log_close_failed(error, opened.db_id, opened.manifest_ref, self._log)
        return opened.db_id, error


_parsed = lru_cache(maxsize=_KEPT_MANIFESTS)(parse_manifest_payload)


def _value(value: Any) -> bytes | None:
    """Of a shard of the caller's, which may give any buffer."""
    return value if value is None or type(value) is bytes else bytes(memoryview(value))


def _name_shard(error: BaseException, db_id: int) -> None:
    if isinstance(error, ShardyfusionError) and error.db_id is None:
        error.db_id = db_id


# ---------------------------------------------------------------- asyncio


class AsyncShards(_Shards[AsyncShardReader]):
    def __init__(self, factory: AsyncShardReaderFactory, *, local_root: str, log: Logger) -> None:
        super().__init__(local_root, log)
        self._factory = factory
        self._lazy_errors: dict[int, BaseException] = {}  # of the last opening

    async def run(
        self,
        begin: Callable[[Any], Operation[T]],
        rejected: list[RejectedManifest] | None = None,
        asked: AsyncAsked | None = None,
    ) -> T:
        """An operation of the engine. What it asks is over when this returns, and what it has closed is closed."""
        asked = asked or AsyncAsked(self)
        try:
            asked.operation = begin(asked)
            return await asked.operation
        except BaseException as error:
            failure = error
        finally:
            asked.operation = None
            asked.name(rejected)
            await asked.end()
            await self.close_unused()
        raise self._reason(asked.reason(failure))

    def _reason(self, error: BaseException) -> BaseException:
        """A lazy opening fails all that wait for it, whichever of them it was asked for."""
        if isinstance(error, MultiGetError):
            return multi_get_error([self._reason(one) for one in error.exceptions])  # type: ignore[misc]
        if not isinstance(error, ShardyfusionError) or isinstance(error, OperationTimeoutError) or error.db_id is None:
            return error
        return self._lazy_errors.get(error.db_id, error)

    async def open_shard(
        self, question: Question, asked: _Asked, shared: bool, db_id: int, url: str, checkpoint_id: str | None,
        manifest_ref: str, manifest: bytes,
    ) -> None:
        note_from_now_on(self._events)
        try:
            shard = await self._factory(
                db_url=url, local_dir=self._local_dir(db_id), checkpoint_id=checkpoint_id,
                manifest=self._manifest(manifest_ref, manifest))
        except BaseException as error:
            _name_shard(error, db_id)
            if shared:
                self._lazy_errors[db_id] = error
                question.fail(error)
            else:
                asked.failed(question, error, manifest_ref)
            if not isinstance(error, Exception):
                raise
            return
        self._lazy_errors.pop(db_id, None)
        question.answer((self._opened, Opened(db_id, manifest_ref, shard)))

    async def values(self, asked: AsyncAsked, number: int, keys: list[bytes]) -> list[Any]:
        opened = self._opened[number]
        values: list[Any] = []
        async with asked.gate:
            for key in keys:
                try:
                    values.append(_value(await opened.shard.get(key)))
                except Exception as error:
                    values.append(asked.key_failed(opened.db_id, key, error))
                await give_way()
        return values

    async def rows(self, number: int, scan: int, bounds: dict[str, Any], max_rows: int, max_bytes: int) -> list[Row]:
        rows: AsyncIterator[Row] | None = self._scans.get(scan)
        if rows is None:
            rows = self._scans[scan] = aiter(scan_of(self._opened[number].shard)(**bounds))
        return await _some(rows, max_rows, max_bytes)

    # ---- closing

    def read(self, begin: Callable[[Any], Operation[T]], asked: AsyncAsked | None = None) -> Coroutine[Any, Any, T]:
        """An operation that uses a snapshot."""
        self._reads = True
        return self.run(begin, asked=asked)

    async def settled(self) -> Failures:
        """As close_unused(), when the engine is done with all reads that have ended."""
        return await asyncio.shield(self._kept(self._settle()))

    async def _settle(self) -> Failures:
        if self._reads:
            self._reads = False
            await native.settle()
        closing = self._taken_back()
        return await self._close(closing)

    def settled_soon(self) -> None:
        """The same for whoever cannot wait."""
        if _is_running():
            self._kept(self._settle())
            return
        if self._reads:
            self._reads = False
            native.settle().wait()
        self.close_unused_soon()

    async def close_unused(self) -> Failures:
        """What the engine has closed; the failures, logged. Whoever waits may be cancelled, closing goes on."""
        task = self.close_unused_soon()
        return [] if task is None else await asyncio.shield(task)

    def close_unused_soon(self) -> asyncio.Task[Failures] | None:
        """The same for whoever cannot wait."""
        closing = self._taken_back()
        if not closing:
            return None
        if not _is_running():  # in this thread: a short one of our own
            asyncio.run(self._close(closing))
            return None
        return self._kept(self._close(closing))

    def _kept(self, work: Coroutine[Any, Any, Failures]) -> asyncio.Task[Failures]:
        task = asyncio.get_running_loop().create_task(work)
        _closing.add(task)
        task.add_done_callback(_closing.discard)
        return task

    async def _close(self, closing: list[Opened[AsyncShardReader]]) -> Failures:
        failures = []
        for opened in closing:
            try:
                await opened.shard.close()
            except Exception as error:
                failures.append(self._log_close_failed(opened, error))
        return failures


class AsyncAsked(_Asked):
    """Each question is answered by a task, in the context of the operation. The first shard whose values cannot be had ends it."""

    def __init__(self, shards: AsyncShards, max_concurrency: int | None = None, *, keeps_errors: bool = False) -> None:
        super().__init__(shards, keeps_errors=keeps_errors)
        self.operation: Operation[Any] | None = None
        self.gate = nullcontext() if max_concurrency is None else asyncio.Semaphore(max_concurrency)
        self._shards = shards
        self._context = copy_context()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = False

    def open(
        self, question: Question, db_id: int, url: str, checkpoint_id: str | None, manifest_ref: str, manifest: bytes,
        shared: bool, together: int,
    ) -> None:
        work = self._shards.open_shard(question, self, shared, db_id, url, checkpoint_id, manifest_ref, manifest)
        if not shared:
            self._start(work)
            return
        with without_deadline():  # others may come to wait for it: it is nobody's
            task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(_look_at_error)

    def get(self, question: Question, *about: Any) -> None:
        number, _ = about
        failed = partial(self.shard_failed, question, self._shards.db_id_of(number))
        self._start(_answered(question, partial(self._shards.values, self, *about), failed))

    def scan(self, question: Question, *about: Any) -> None:
        self._start(_answered(question, partial(self._shards.rows, *about), partial(self.failed, question)))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, context=self._context.copy())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_look_at_error)

    def failed(self, question: Question, error: BaseException, manifest_ref: str | None = None) -> None:
        if not self._ended:
            super().failed(question, error, manifest_ref)

    def shard_failed(self, question: Question, db_id: int, error: BaseException) -> None:
        super().shard_failed(question, db_id, error)
        if self.operation is not None and not self.keeps_errors:
            self.operation.cancel()

    async def end(self) -> None:
        self._ended = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def _answered(
    question: Question, work: Callable[[], Coroutine[Any, Any, object]], failed: Callable[[BaseException], None]
) -> None:
    try:
        question.answer(await work())
    except BaseException as error:
        failed(error)
        if not isinstance(error, Exception):
            raise


def _is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _look_at_error(task: asyncio.Task[None]) -> None:
    """Or asyncio complains: whoever needed it knows."""
    if not task.cancelled():
        task.exception()


async def _some(rows: AsyncIterator[Row], max_rows: int, max_bytes: int) -> list[Row]:
    batch: list[Row] = []
    size = 0
    while len(batch) < max_rows and size < max_bytes:
        try:
            row = await anext(rows)
        except StopAsyncIteration:
            break
        batch.append(row)
        size += len(row[0]) + len(row[1])
    return batch


# ---------------------------------------------------------------- blocking


class SyncShards(_Shards["SyncShard"]):
    """`share` makes a shard out of as many readers as it asks its argument for; `open_together`: factories that open many at
    once do."""

    def __init__(
        self,
        factory: ShardReaderFactory,
        *,
        share: Callable[[Callable[[], ShardReader]], SyncShard],
        open_together: bool,
        local_root: str,
        log: Logger,
    ) -> None:
        super().__init__(local_root, log)
        self._factory = factory
        self._share = share
        self.open_many = getattr(factory, "open_many", None) if open_together else None

    def run(
        self,
        begin: Callable[[Any], Operation[T]],
        rejected: list[RejectedManifest] | None = None,
        asked: NowAsked | None = None,
    ) -> T:
        """An operation of the engine, blocking: what it asks is answered by this thread."""
        asked = asked or NowAsked(self)
        try:
            return begin(asked).wait()
        except BaseException as error:
            failure = error
        finally:
            asked.name(rejected)
            asked.end()
            self.close_unused()
        raise asked.reason(failure)

    def open_shard(
        self, db_id: int, url: str, checkpoint_id: str | None, manifest_ref: str, manifest: bytes
    ) -> SyncShard:
        parsed = self._manifest(manifest_ref, manifest)
        with noting(self._events):
            return self._share(
                lambda: self._factory(
                    db_url=url, local_dir=self._local_dir(db_id), checkpoint_id=checkpoint_id, manifest=parsed))

    def open_all(self, wanted: list[tuple[int, str, str, bytes]]) -> list[SyncShard]:
        for db_id, _, _, _ in wanted:
            self._local_dir(db_id)
        assert self.open_many is not None
        with noting(self._events):
            opened = iter(self.open_many([(url, self._manifest(ref, published)) for _, url, ref, published in wanted]))
            return [self._share(opened.__next__) for _ in wanted]

    def take(self, question: Question, db_id: int, manifest_ref: str, shard: SyncShard) -> None:
        question.answer((self._opened, Opened(db_id, manifest_ref, shard)))

    def values(self, question: Question, asked: NowAsked, number: int, keys: list[bytes]) -> None:
        opened = self._opened[number]
        try:
            if asked.keeps_errors:
                question.answer([asked.one_value(opened, key) for key in keys])
            else:
                question.answer(list(opened.shard.get_many(keys)))
        except BaseException as error:
            asked.shard_failed(question, opened.db_id, error)

    def values_now(self, number: int, keys: list[bytes], on_error: OnError) -> list[Any]:
        """The same for whoever needs no question for it."""
        shard = self._opened[number].shard
        if on_error == "raise":
            return [_value(value) for value in shard.get_many(keys)]
        values: list[Any] = []
        for key in keys:
            try:
                values.append(_value(shard.get_many([key])[0]))
            except Exception as error:
                values.append(error)
        return values

    def rows(self, number: int, scan: int, bounds: dict[str, Any], max_rows: int, max_bytes: int) -> list[Row]:
        rows: Iterator[Row] | None = self._scans.get(scan)
        if rows is None:
            rows = self._scans[scan] = iter(scan_of(self._opened[number].shard.reader)(**bounds))  # type: ignore[call-overload]
        batch: list[Row] = []
        size = 0
        for row in islice(rows, max_rows):
            batch.append(row)
            size += len(row[0]) + len(row[1])
            if size >= max_bytes:
                break
        return batch

    def read(self, begin: Callable[[Any], Operation[T]], asked: NowAsked | None = None) -> T:
        """An operation that uses a snapshot."""
        self._reads = True
        return self.run(begin, asked=asked)

    def settled(self) -> Failures:
        """As close_unused(), when the engine is done with all reads that have ended."""
        if self._reads:
            self._reads = False
            native.settle().wait()
        return self.close_unused()

    def close_unused(self) -> Failures:
        """What the engine has closed; the failures, logged."""
        failures = []
        for opened in self._taken_back():
            try:
                opened.shard.close()
            except Exception as error:
                failures.append(self._log_close_failed(opened, error))
        return failures


class NowAsked(_Asked):
    """Each question is answered at once; with workers, several shards are asked for values at a time."""

    def __init__(self, shards: SyncShards, max_workers: int | None = None, *, keeps_errors: bool = False) -> None:
        super().__init__(shards, keeps_errors=keeps_errors)
        self._shards = shards
        self._pool = None if max_workers is None or max_workers == 1 else ThreadPoolExecutor(max_workers)
        self._asked_for_values = 0
        self._waiting: list[tuple[Question, int, str, str, bytes]] = []

    def open(
        self, question: Question, db_id: int, url: str, checkpoint_id: str | None, manifest_ref: str, manifest: bytes,
        shared: bool, together: int,
    ) -> None:
        if self._shards.open_many is not None and together > 1:
            self._waiting.append((question, db_id, url, manifest_ref, manifest))
            if len(self._waiting) == together:
                self._open_waiting()
            return
        try:
            shard = self._shards.open_shard(db_id, url, checkpoint_id, manifest_ref, manifest)
        except BaseException as error:
            _name_shard(error, db_id)
            self._failed(question, error, manifest_ref)
            return
        self._shards.take(question, db_id, manifest_ref, shard)

    def _open_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        try:
            shards = self._shards.open_all([wanted[1:] for wanted in waiting])
        except BaseException as error:
            for question, _, _, manifest_ref, _ in waiting:
                self._failed(question, error, manifest_ref)
            return
        for (question, db_id, _, manifest_ref, _), shard in zip(waiting, shards, strict=True):
            self._shards.take(question, db_id, manifest_ref, shard)

    def get(self, question: Question, *about: Any) -> None:
        self._asked_for_values += 1
        if self._pool is not None:
            self._pool.submit(copy_context().run, self._shards.values, question, self, *about)
        elif self.error is not None:
            question.fail(self.error)
        else:
            self._shards.values(question, self, *about)
            if self.error is not None and not isinstance(self.error, Exception):
                raise self.error  # out of the wait: Ctrl-C

    def one_value(self, opened: Opened[SyncShard], key: bytes) -> Any:
        try:
            return _value(opened.shard.get_many([key])[0])
        except Exception as error:
            return self.key_failed(opened.db_id, key, error)

    def failed_in_pool(self) -> int | None:
        """The shard of the error, when that comes out of the pool, which several shards needed."""
        return next(iter(self.shard_errors), None) if self._pool is not None and self._asked_for_values > 1 else None

    def end(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def scan(self, question: Question, *about: Any) -> None:
        try:
            question.answer(self._shards.rows(*about))
        except BaseException as error:
            self._failed(question, error)

    def _failed(self, question: Question, error: BaseException, manifest_ref: str | None = None) -> None:
        self.failed(question, error, manifest_ref)
        if not isinstance(error, Exception):
            raise error  # out of the wait: Ctrl-C
