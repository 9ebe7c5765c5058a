"""Limiters of readers that the engine serves: the bucket is asked in C, its methods only to wait; other limiters first."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from plugged import Limiter

from shardyfusion import (
    AsyncShardedReader,
    ConcurrentShardedReader,
    ConfigValidationError,
    HashShardedWriteConfig,
    OperationTimeoutError,
    ReaderStateError,
    ShardedReader,
    ThreadSafeTokenBucket,
    TokenBucket,
)
from shardyfusion.config import PythonRecordInput
from shardyfusion.metrics import MetricEvent
from shardyfusion.reader._limiter import ReaderLimiter
from shardyfusion.testing import ListMetricsCollector
from shardyfusion.writer.python import write_hash_sharded

BUCKETS = [TokenBucket, ThreadSafeTokenBucket]
BLOCKING = [ShardedReader, ConcurrentShardedReader]
READERS = [AsyncShardedReader, *BLOCKING]
DENIED, THROTTLED = MetricEvent.RATE_LIMITER_DENIED, MetricEvent.RATE_LIMITER_THROTTLED
KEYS = list(range(20))


def publish(prefix: Path, text: str) -> None:
    write_hash_sharded(
        [(n, f"{text}{n}".encode()) for n in KEYS],
        HashShardedWriteConfig(num_dbs=3, s3_prefix=prefix.as_uri()),
        PythonRecordInput(key_fn=lambda r: r[0], value_fn=lambda r: r[1]),
    )


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    folder = tmp_path / "published"
    publish(folder, "a")
    return folder


class Blocking:
    """A blocking reader as if it were the other."""

    def __init__(self, reader: Any) -> None:
        self.reader = reader

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.reader, name)
        if name == "health":
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            return method(*args, **kwargs)

        return call


@pytest.fixture(params=READERS, ids=lambda cls: cls.__name__)
def opening(request: pytest.FixtureRequest, prefix: Path, tmp_path: Path) -> Any:
    async def open_reader(limiter: Any, **more: Any) -> Any:
        arguments = {"s3_prefix": prefix.as_uri(), "local_root": str(tmp_path), "rate_limiter": limiter, **more}
        if request.param is AsyncShardedReader:
            return await AsyncShardedReader.open(**arguments)
        return Blocking(request.param(**arguments))

    open_reader.cls = request.param  # type: ignore[attr-defined]
    return open_reader


class Clock:
    """Stands in for time and sleeping."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        self.slept: list[float] = []
        self.while_asleep: Callable[[], Any] = lambda: None
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.sleep)
        monkeypatch.setattr(asyncio, "sleep", self.sleep_async)

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds
        self.while_asleep()

    async def sleep_async(self, seconds: float) -> None:
        self.slept.append(round(seconds, 6))
        self.now += seconds
        if inspect.isawaitable(done := self.while_asleep()):
            await done


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def forbid(monkeypatch: pytest.MonkeyPatch, cls: type) -> None:
    def called(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("asked in Python")

    for name in ("acquire", "try_acquire", "acquire_async"):
        monkeypatch.setattr(cls, name, called)


# ---------------------------------------------------------------- the built-in bucket


@pytest.mark.parametrize("kind", BUCKETS)
async def test_tokens_that_are_there_are_taken_without_python(
    opening: Any, kind: Any, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    bucket = kind(25)
    reader = await opening(bucket)
    forbid(monkeypatch, kind)
    assert await reader.get(1) == b"a1"
    assert await reader.get(500) is None
    assert await reader.multi_get([3, 4, 3, 500]) == {3: b"a3", 4: b"a4", 500: None}
    assert await reader.multi_get(iter(range(2))) == {0: b"a0", 1: b"a1"}
    assert await reader.multi_get([]) == {}
    assert bucket._level() == (25, 17, 100.0, 0)  # one a key, duplicates counted
    if opening.cls is AsyncShardedReader:
        assert await reader.get_many([5, 5]) == [b"a5", b"a5"]
        assert bucket._level()[1] == 15
    clock.now += 0.2
    assert await reader.get(1) == b"a1"
    assert bucket._level()[1] == pytest.approx(19 if opening.cls is AsyncShardedReader else 21)
    assert reader.health().borrowed == 0
    await reader.close()


@pytest.mark.parametrize("kind", BUCKETS)
async def test_waits_and_events(opening: Any, kind: Any, clock: Clock) -> None:
    metrics = ListMetricsCollector()
    reader = await opening(kind(2, metrics, "keys"), metrics_collector=metrics)
    metrics.events.clear()
    for key in range(3):
        assert await reader.get(key) == f"a{key}".encode()
    assert clock.slept == [0.5]
    wait = [(DENIED, {"deficit_seconds": pytest.approx(0.5), "limiter_type": "keys"}),
            (THROTTLED, {"wait_seconds": pytest.approx(0.5), "limiter_type": "keys"})]
    if kind is TokenBucket and opening.cls is not AsyncShardedReader:
        del wait[0]  # acquire() of that bucket does not try
    got = [(MetricEvent.READER_GET, {"duration_ms": 0, "found": True})]
    shown = [
        (event, {"duration_ms": 0, "found": payload["found"]} if "found" in payload else payload) for event, payload in metrics.events
    ]
    assert shown == [*got, *got, *wait, *got]
    metrics.events.clear()
    assert await reader.multi_get([1, 2, 3, 1, 2]) == {1: b"a1", 2: b"a2", 3: b"a3"}
    assert clock.slept == [0.5, 2.5]  # more than it holds: its fair time
    assert [event for event, _ in metrics.events] == [*(event for event, _ in wait), MetricEvent.READER_MULTI_GET]
    assert reader.health().borrowed == 0
    await reader.close()


@pytest.mark.parametrize("kind", BUCKETS)
async def test_timeouts_include_the_wait(opening: Any, kind: Any, clock: Clock) -> None:
    bucket = kind(1)
    reader = await opening(bucket)
    assert await reader.get(1, timeout=0) == b"a1"  # tokens and value are there
    for work in (lambda: reader.get(2, timeout=0.5), lambda: reader.multi_get([2], timeout=0.5)):
        with pytest.raises(OperationTimeoutError, match="rate limit: 1.000 s") as caught:
            await work()
        assert caught.value.operation in ("get", "multi_get")
        assert str(caught.value.object_url).endswith("/published")
    assert clock.slept == [] and bucket._level()[1] == 0
    assert reader.health().borrowed == 0
    assert await reader.get(2, timeout=5) == b"a2"
    assert clock.slept == [1.0]
    await reader.close()


async def test_what_a_cancelled_wait_leaves(prefix: Path, tmp_path: Path) -> None:
    bucket = TokenBucket(0.001)
    async with AsyncShardedReader.open(
        s3_prefix=prefix.as_uri(), local_root=str(tmp_path), rate_limiter=bucket
    ) as reader:
        for call in (lambda: reader.get(1), lambda: reader.multi_get([1, 2]), lambda: reader.get_many([1])):
            before = bucket._level()[1]
            task = asyncio.ensure_future(call())
            await asyncio.sleep(0.01)
            assert reader.health().borrowed == 1  # it waits with its snapshot pinned
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert reader.health().borrowed == 0
            assert bucket._level()[1] >= before - 1e-9
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call(), 0.01)
            operation = call()
            operation.send(None)
            operation.close()
            assert reader.health().borrowed == 0
            operation = call()
            operation.send(None)
            del operation
            assert reader.health().borrowed == 0


async def test_loops_wait_beside_others(prefix: Path, tmp_path: Path) -> None:
    """Tasks that share a bucket all come through, and what they took is what it gave."""
    async with AsyncShardedReader.open(
        s3_prefix=prefix.as_uri(), local_root=str(tmp_path), rate_limiter=(bucket := TokenBucket(500))
    ) as reader:
        assert bucket.try_acquire(500)
        started = bucket._level()[2]
        assert await asyncio.gather(*(reader.get(n % 20) for n in range(50))) == [f"a{n % 20}".encode() for n in range(50)]
        assert bucket.try_acquire(0), "that is always there, and the bucket looks at its clock"
        assert bucket._level()[2] - started >= 50 / 500 - 1e-3


def test_a_signal_ends_a_blocking_wait(prefix: Path, tmp_path: Path) -> None:
    def ring(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, ring)
    try:
        for cls in BLOCKING:
            with cls(s3_prefix=prefix.as_uri(), local_root=str(tmp_path), rate_limiter=TokenBucket(0.001)) as reader:
                for call in (lambda r=reader: r.get(1), lambda r=reader: r.multi_get([1])):
                    signal.setitimer(signal.ITIMER_REAL, 0.05)
                    with pytest.raises(KeyboardInterrupt):
                        call()
                    assert reader.health().borrowed == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


async def test_snapshots_and_waits(opening: Any, prefix: Path, clock: Clock) -> None:
    """The asynchronous and the plain reader pin first; the concurrent one takes what is there after the wait."""
    reader = await opening(TokenBucket(1))
    assert await reader.get(1) == b"a1"

    def move() -> Any:
        clock.while_asleep = lambda: None
        publish(prefix, "b")
        return reader.reader.refresh() if isinstance(reader, Blocking) else reader.refresh()

    expected = b"b" if opening.cls is ConcurrentShardedReader else b"a"
    clock.while_asleep = move
    assert await reader.get(1) == expected + b"1"
    assert await reader.get(1) == b"b1"
    publish(prefix, "a")
    await reader.refresh()
    clock.while_asleep = move
    assert await reader.multi_get([1, 2]) == {1: expected + b"1", 2: expected + b"2"}
    assert reader.health().borrowed == 0
    await reader.close()


async def test_closed_while_it_waits(opening: Any, clock: Clock) -> None:
    for call in (lambda r: r.get(1), lambda r: r.multi_get([1])):
        reader = await opening(TokenBucket(1))
        assert await reader.get(1) == b"a1"
        clock.while_asleep = reader.reader.close if isinstance(reader, Blocking) else reader.close
        if opening.cls is ConcurrentShardedReader:
            with pytest.raises(ReaderStateError, match="^Reader is closed$"):
                await call(reader)
        else:
            assert await call(reader) in (b"a1", {1: b"a1"})
        clock.while_asleep = lambda: None


@pytest.mark.parametrize("limiter", [lambda: TokenBucket(100), Limiter], ids=["bucket", "other"])
async def test_tokens_are_spent_on_keys_that_cannot_be_routed(opening: Any, limiter: Any, clock: Clock) -> None:
    asked = limiter()
    reader = await opening(asked)
    for work in (
        lambda: reader.get(-1), lambda: reader.get(1.5), lambda: reader.get(1, routing_context={"a": 1}),
        lambda: reader.get(bytearray(b"1234567")), lambda: reader.multi_get([1.5]),
        lambda: reader.multi_get([1], routing_context={}),
    ):
        with pytest.raises((ValueError, ConfigValidationError)):
            await work()
    assert await reader.multi_get([], routing_context={"a": 1}) == {}
    if isinstance(asked, Limiter):
        assert [tokens for _, tokens in asked.calls] == [1, 1, 1, 1, 1, 1, 0]
    else:
        assert asked._level()[1] == 94
    assert reader.health().borrowed == 0
    await reader.close()
    with pytest.raises(ReaderStateError, match="^Reader is closed$"):
        await reader.get(1)
    if isinstance(asked, Limiter):  # the concurrent reader asks before it looks whether it is closed
        assert len(asked.calls) == (8 if opening.cls is ConcurrentShardedReader else 7)


# ---------------------------------------------------------------- limiters of the caller's


class Overriding(TokenBucket):
    def __init__(self) -> None:
        super().__init__(1e9)
        self.calls: list[int] = []

    def acquire(self, tokens: int = 1, **options: Any) -> None:
        self.calls.append(tokens)

    async def acquire_async(self, tokens: int = 1, **options: Any) -> None:
        self.calls.append(tokens)


class Trying(ThreadSafeTokenBucket):
    """Its acquire() and acquire_async() are the inherited ones, which try."""

    def __init__(self) -> None:
        super().__init__(1e9)
        self.calls: list[int] = []

    def try_acquire(self, tokens: int = 1) -> Any:
        self.calls.append(tokens)
        return super().try_acquire(tokens)


def of_an_instance() -> Any:
    bucket = TokenBucket(1e9)
    bucket.calls = []  # type: ignore[attr-defined]

    async def acquire_async(tokens: int = 1) -> None:
        bucket.calls.append(tokens)  # type: ignore[attr-defined]

    bucket.acquire = bucket.calls.append  # type: ignore[attr-defined, method-assign]
    bucket.acquire_async = acquire_async  # type: ignore[method-assign]
    return bucket


@pytest.mark.parametrize("make", [Overriding, Trying, of_an_instance])
async def test_methods_of_the_callers_own_are_called(opening: Any, make: Any) -> None:
    limiter = make()
    reader = await opening(limiter)
    assert await reader.get(1) == b"a1"
    assert await reader.multi_get([1, 2, 1]) == {1: b"a1", 2: b"a2"}
    assert limiter.calls == [1, 3]
    await reader.close()


async def test_a_subclass_that_changes_nothing_is_asked_in_c(
    opening: Any, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    class Named(TokenBucket):
        def __init__(self, name: str) -> None:
            super().__init__(3)
            self.name = name

    reader = await opening(bucket := Named("n"))
    forbid(monkeypatch, TokenBucket)
    assert await reader.multi_get([1, 2, 3]) == {1: b"a1", 2: b"a2", 3: b"a3"}
    assert bucket._level()[1] == 0
    await reader.close()


class Ready:
    """An awaitable that is no coroutine."""

    def __await__(self) -> Any:
        return iter(())


@pytest.mark.parametrize("asked", [Ready, lambda: asyncio.sleep(0), lambda: asyncio.get_running_loop().create_task(
    asyncio.sleep(0)), lambda: asyncio.wait_for(asyncio.sleep(0), 5)], ids=["awaitable", "sleep", "task", "coroutine"])
@pytest.mark.parametrize("timeout", [None, 60])
async def test_what_a_limiter_may_return(asked: Any, timeout: Any, prefix: Path, tmp_path: Path) -> None:
    class Own:
        def acquire_async(self, tokens: int = 1) -> Any:
            return asked()

    async with AsyncShardedReader.open(
        s3_prefix=prefix.as_uri(), local_root=str(tmp_path), rate_limiter=Own()  # type: ignore[arg-type]
    ) as reader:
        assert await reader.get(1, timeout=timeout) == b"a1"
        assert await reader.multi_get([1], timeout=timeout) == {1: b"a1"}
        assert await asyncio.gather(*(reader.get(n) for n in KEYS)) == [f"a{n}".encode() for n in KEYS]


@pytest.mark.parametrize("error", [RuntimeError("limit"), StopIteration("limit"), KeyboardInterrupt("limit")], ids=repr)
async def test_a_limiter_that_fails(opening: Any, error: BaseException) -> None:
    class Own:
        failing = True

        def acquire(self, tokens: int = 1) -> None:
            if self.failing:
                raise error

        def acquire_async(self, tokens: int = 1) -> Any:
            if self.failing:
                raise error
            return Ready()

    metrics = ListMetricsCollector()
    reader = await opening(limiter := Own(), metrics_collector=metrics)
    metrics.events.clear()
    for work in (lambda: reader.get(1), lambda: reader.multi_get([1]), lambda: reader.get(1, timeout=9)):
        with pytest.raises((type(error), RuntimeError), match="limit|StopIteration"):
            await work()
    assert metrics.events == [] and reader.health().borrowed == 0
    limiter.failing = False
    assert await reader.get(1) == b"a1"
    await reader.close()


async def test_a_limiter_that_is_cancelled_and_goes_on(prefix: Path, tmp_path: Path) -> None:
    class Stubborn:
        async def acquire_async(self, tokens: int = 1) -> None:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return

    async with AsyncShardedReader.open(
        s3_prefix=prefix.as_uri(), local_root=str(tmp_path), rate_limiter=Stubborn()  # type: ignore[arg-type]
    ) as reader:
        for call, expected in ((reader.get(1), b"a1"), (reader.multi_get([1]), {1: b"a1"}), (reader.get_many([1]), [b"a1"])):
            task = asyncio.ensure_future(call)
            await asyncio.sleep(0.01)
            task.cancel()
            assert await task == expected  # its own affair, as in any coroutine
        assert reader.health().borrowed == 0


async def test_a_limiter_that_is_slow(opening: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real, ahead = time.monotonic, [0]
    monkeypatch.setattr(time, "monotonic", lambda: real() + ahead[0])

    class Slow:
        def acquire(self, tokens: int = 1) -> None:
            ahead[0] += 2

        async def acquire_async(self, tokens: int = 1) -> None:
            await asyncio.get_running_loop().create_future()

    reader = await opening(Slow())
    for work in (lambda: reader.get(1, timeout=0.01), lambda: reader.multi_get([1], timeout=0.01)):
        with pytest.raises(OperationTimeoutError, match="get of file:.*/published took longer than its timeout of 0.01 s"):
            await work()
    assert reader.health().borrowed == 0
    await reader.close()


# ---------------------------------------------------------------- scans


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> str:
    """2,500 rows."""
    folder = tmp_path_factory.mktemp("many") / "published"
    write_hash_sharded(
        range(2500), HashShardedWriteConfig(num_dbs=3, s3_prefix=folder.as_uri()), PythonRecordInput(lambda n: n, lambda n: b"v")
    )
    return folder.as_uri()


async def taken(rows: Any) -> list[Any]:
    return [row async for row in rows] if hasattr(rows, "__aiter__") else list(rows)


@pytest.mark.parametrize("cls", READERS)
async def test_scans_ask_when_they_are_told_to(cls: Any, many: str, tmp_path: Path) -> None:
    limiter = Limiter()
    arguments = {"s3_prefix": many, "local_root": str(tmp_path), "rate_limiter": limiter}
    reader = await cls.open(**arguments) if cls is AsyncShardedReader else cls(**arguments)
    ask = "acquire_async" if cls is AsyncShardedReader else "acquire"
    for options, asked in (({}, 0), ({"scan_tokens": True}, 3), ({"scan_tokens": True, "limit": 1000, "order": "shard"}, 2)):
        for take in (taken, lambda rows: taken(rows.batches(700)), lambda rows: taken(rows.arrow_batches())):
            limiter.calls.clear()
            got = await take(reader.scan(**options))
            rows = sum(one.num_rows if hasattr(one, "num_rows") else len(one) if isinstance(one, list) else 1 for one in got)
            assert rows == options.get("limit", 2500)
            assert limiter.calls in ([(ask, 1)] * asked, [(ask, 1)] * (asked - 1)), "the end may take one more look"
    with pytest.raises(OperationTimeoutError, match="rate limit"):
        reader._limiter = ReaderLimiter(TokenBucket(0.001), many)
        await taken(reader.scan(scan_tokens=True, timeout=0.01))
    await reader.close() if cls is AsyncShardedReader else reader.close()
    assert reader.health().borrowed == 0


# ---------------------------------------------------------------- the bucket itself


async def test_waiters_are_served_in_order() -> None:
    """A large request that waits is not overtaken by small ones that come later, whatever their kind."""
    bucket, served = TokenBucket(200), list[str]()
    assert bucket.try_acquire(200)

    async def wait(name: str, tokens: int) -> None:
        await bucket.acquire_async(tokens)
        served.append(name)

    large = asyncio.ensure_future(wait("large", 10))
    given_up = asyncio.ensure_future(wait("given up", 1000))
    await asyncio.sleep(0)
    assert not bucket.try_acquire(1), "nor by those that do not wait"
    given_up.cancel()
    await asyncio.sleep(0)
    small = [asyncio.ensure_future(wait(f"small {n}", 1)) for n in range(3)]
    await asyncio.gather(large, *small)
    assert served == ["large", "small 0", "small 1", "small 2"]
    assert given_up.cancelled()


def test_copies_of_a_bucket(clock: Clock) -> None:
    class Named(TokenBucket):
        pass

    bucket = Named(10)
    bucket.name = "n"  # type: ignore[attr-defined]
    assert bucket.try_acquire(7)
    copies = [copy.copy(bucket), copy.deepcopy(bucket)]
    assert [(type(c), c.name, c._level()) for c in copies] == [(Named, "n", (10, 3, 100.0, 0))] * 2  # type: ignore[attr-defined]
    plain = TokenBucket(10)
    assert plain.try_acquire(7)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        again = pickle.loads(pickle.dumps(plain, protocol))
        clock.now = 5.0  # of another process, say
        assert not again.try_acquire(4) and again.try_acquire(3)
        clock.now = 100.0
    for work in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="ThreadSafeTokenBucket objects cannot be copied or pickled"):
            work(ThreadSafeTokenBucket(1))


def test_wrong_uses() -> None:
    class Forgets(TokenBucket):
        def __init__(self) -> None:
            pass

    for work in (lambda: Forgets().acquire(), lambda: Forgets().rate, lambda: Forgets().try_acquire(1)):
        with pytest.raises(RuntimeError, match="Forgets.__init__.. did not call TokenBucket.__init__"):
            work()
    for rate in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=f"rate must be > 0, got {rate}"):
            TokenBucket(rate)
    for wrong in ("x", None, [1]):
        with pytest.raises(TypeError):
            TokenBucket(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            TokenBucket(1).acquire(wrong)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        del TokenBucket(1).rate
