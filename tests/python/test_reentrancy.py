"""Python code that runs in the middle of the extension's own: keys, sequences, coroutines and hooks that do as they like."""

from __future__ import annotations

import array
import asyncio
import gc
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from shardyfusion import AsyncShardedReader, _native

SNAPSHOT = str(Path(__file__).resolve().parents[2] / "examples" / "snapshot")


class Core(_native.ReaderCore):
    pass


@pytest.fixture
def core() -> Core:
    c = Core()
    c._attach(_native.open_reader(SNAPSHOT, {}, 10).wait())
    return c


@pytest.fixture
def rows() -> list[tuple[str, bytes]]:
    found = _native.open_reader(SNAPSHOT, {}, 10).wait().snapshot().scan().next(10_000).wait()
    return [(key.decode(), value) for key, value in found]


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), SNAPSHOT],
        env=os.environ | {"MALLOC_PERTURB_": "165"},  # memory that was freed looks so
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---------------------------------------------------------------- sequences and keys


def test_a_sequence_that_gives_the_snapshot_back_while_it_is_read():
    snapshot = _native.open_reader(SNAPSHOT, {}, 10).wait().snapshot()

    def keys():
        yield b"a"
        snapshot.close()
        yield b"b"

    assert list(snapshot.multi_get(0, keys()).wait().values()) == [None, None]
    with pytest.raises(ValueError, match="given back"):
        snapshot.get(0, b"a").wait()


def test_a_flag_that_gives_the_snapshot_back():
    snapshot = _native.open_reader(SNAPSHOT, {}, 10).wait().snapshot()

    class Reverse:
        def __bool__(self):
            snapshot.close()
            return True

    with pytest.raises(ValueError, match="given back"):
        snapshot.scan(reverse=Reverse())


class Interrupted(array.array):
    def __len__(self):
        raise KeyboardInterrupt


def test_an_interrupt_while_an_array_tells_its_length(core):
    with pytest.raises(KeyboardInterrupt):
        core.get_many(Interrupted("q", [1, 2])).wait()


def test_a_sequence_that_closes_the_reader(core, rows):
    def keys():
        yield rows[0][0]
        core._detach()
        gc.collect()
        yield rows[1][0]

    assert asyncio.run(_await(core.multi_get(keys()))) == dict(rows[:2])


async def _await(op):
    return await op


async def _items(op):
    """The answer without its dict: asyncio's debug mode prints results, and finds no key that compares oddly."""
    return list((await op).items())


class Shifty(str):
    """Equal to nothing, and another hash every time."""

    count = 0

    def __hash__(self):
        Shifty.count += 1
        return Shifty.count

    def __eq__(self, other):
        return False


def test_keys_whose_hash_changes(core, rows):
    keys = [Shifty(key) for key, _ in rows[:50]] * 2
    found = asyncio.run(_items(core.multi_get(keys)))
    assert {str.__str__(key) for key, _ in found} == {key for key, _ in rows[:50]}


class Failing(str):
    def __hash__(self):
        raise RuntimeError("no hash")


class FailingLater(str):
    left = 1

    def __hash__(self):
        FailingLater.left -= 1
        if FailingLater.left < 0:
            raise RuntimeError("no hash any more")
        return str.__hash__(self)


def test_keys_whose_hash_fails(core, rows):
    with pytest.raises(RuntimeError, match="no hash"):
        asyncio.run(_await(core.multi_get([Failing("x")])))
    for left in range(3):
        FailingLater.left = left
        key = FailingLater(rows[0][0])
        try:
            asyncio.run(_await(core.get_many([key])))
        except RuntimeError as error:
            assert "no hash" in str(error)
    assert asyncio.run(_await(core.get(Failing(rows[0][0])))) == rows[0][1]


def test_a_key_that_enters_the_same_operation(core, rows):
    seen = []

    class Entering(str):
        def __hash__(self):
            for step in (op.close, lambda: op.send(None), lambda: op.throw(ValueError("thrown"))):
                try:
                    step()
                except ValueError as error:
                    seen.append(str(error))
            return str.__hash__(self)

        def __eq__(self, other):
            return str.__eq__(self, other)

    op = core.multi_get([Entering(rows[0][0])])
    assert [value for _, value in asyncio.run(_items(op))] == [rows[0][1]]
    assert set(seen) == {"coroutine already executing"}


def test_a_key_that_looks_up_others_while_answers_are_put_into_the_dict(tmp_path):
    """What the batch has found in memory is its own by then: the cache has no room for both."""
    run(f"""
    from shardyfusion import CacheOptions, HashShardedWriteConfig, PythonRecordInput, ShardedReader
    from shardyfusion.writer.python import write_hash_sharded

    prefix, root = {(tmp_path / "rows").as_uri()!r}, {str(tmp_path / "root")!r}
    values = {{f"{{n:05}}": b"%d" % n * 25 for n in range(20_000)}}
    rows = PythonRecordInput(key_fn=lambda row: row[0], value_fn=lambda row: row[1])
    write_hash_sharded(values.items(), HashShardedWriteConfig(num_dbs=1, s3_prefix=prefix, key_encoding="utf8"), rows)
    few, many = list(values)[:12], list(values)[1000:]

    class Meddling(str):
        hashed = 0

        def __hash__(self):
            Meddling.hashed += 1
            if Meddling.hashed == 2:  # the first time it was read, now it is put
                for at in range(0, len(many), 500):  # more than once each, so that they, too, are worth keeping
                    for _ in range(3):
                        reader.multi_get(many[at : at + 500])
                assert reader.try_get(few[-1], None) is None
            return str.__hash__(self)

    with ShardedReader(s3_prefix=prefix, local_root=root, cache=CacheOptions(memory_bytes=256 << 10)) as reader:
        reader.multi_get(few)
        assert None not in map(reader.try_get, few)
        assert reader.multi_get([Meddling(few[0]), *few[1:]]) == {{key: values[key] for key in few}}
        assert Meddling.hashed >= 2
    """)


# ---------------------------------------------------------------- scans


@pytest.mark.parametrize("meddle", ["taken.extend(scan.next(1).wait())", "scan.close()"])
def test_a_scan_that_garbage_collection_goes_on_with_while_its_rows_are_made(meddle):
    """Python 3.11 collects while objects are made, newer ones between instructions: then each step is one by itself."""
    assert run(f"""
        import gc, sys
        from shardyfusion import _native

        snapshot = _native.open_reader(sys.argv[1], {{}}, 10).wait().snapshot()
        rows = snapshot.scan(prefetch_bytes=1 << 20).next(10_000).wait()
        scan = snapshot.scan(prefetch_bytes=1 << 20)
        taken = scan.next(1).wait()  # the others are in memory now
        refused = []

        def collected(phase, info):
            try:
                {meddle}
            except Exception as error:
                refused.append(str(error))

        gc.callbacks.append(collected)
        gc.set_threshold(1)
        try:
            while found := scan.next(100).wait():
                taken += found
        except ValueError as error:
            assert str(error) == "the scan is closed"
        gc.callbacks.remove(collected)
        gc.set_threshold(0)
        assert len(taken) > 1 and set(taken) <= set(rows), "rows of nobody's"
        assert "close" in {meddle!r} or sorted(taken) == sorted(rows), "rows are missing"
        assert set(refused) <= {{"a step of this scan is in flight already", "the scan is closed"}}, refused
        print("done")
    """) == "done\n"


# ---------------------------------------------------------------- coroutines


def test_a_coroutine_that_enters_the_operation_that_follows_it():
    seen = []

    class Delegating(_native.ReaderCore):
        async def _get(self, key, routing_context, timeout):
            for step in (lambda: op.send(None), op.close, lambda: op.throw(KeyError("x"))):
                try:
                    step()
                except ValueError as error:
                    seen.append(str(error))
            await asyncio.sleep(0)
            return "done"

    op = Delegating().get("k")
    assert asyncio.run(_await(op)) == "done"
    assert seen == ["coroutine already executing"] * 3


async def test_a_coroutine_that_returns_when_it_is_cancelled():
    class Delegating(_native.ReaderCore):
        async def _multi_get(self, keys, routing_context, timeout, on_error):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return dict.fromkeys(keys, b"late")

    for name, expected in (("multi_get", {"a": b"late", "b": b"late"}), ("get_many", [b"late", b"late"])):
        op = getattr(Delegating(), name)(["a", "b"])
        op.send(None)
        with pytest.raises(StopIteration) as stop:
            op.throw(asyncio.CancelledError())
        assert stop.value.value == expected


async def test_a_future_that_somebody_else_completes(tmp_path):
    op = _native.open_reader(SNAPSHOT, {}, 10)
    future = op.send(None)
    future.set_result(None)  # the engine has not answered: it cannot have, this loop has not run since
    try:
        op.send(None)
    except StopIteration as stop:
        assert isinstance(stop.value, _native.Reader)  # it was quick
    except RuntimeError as error:
        assert "somebody else" in str(error)
    with pytest.raises(RuntimeError, match="already awaited"):
        op.send(None)


def test_texts_with_nul():
    for call in (
        lambda: _native.open_reader(SNAPSHOT + "\0x", {}),
        lambda: _native.open_shard(SNAPSHOT + "\0x"),
        lambda: _native.open_shard(SNAPSHOT, checkpoint="a\0b"),
        lambda: _native.open_reader(SNAPSHOT, {"current_pointer_key": "_CURRENT\0"}).wait(),
        lambda: _native.open_shard("s3://b/c", {"s3": {"region": "x\0y"}}).wait(),
    ):
        with pytest.raises(ValueError, match="NUL"):
            call()


# ---------------------------------------------------------------- processes


def test_a_forked_child_of_a_busy_parent():
    """In the child every object of the parent answers or goes quietly, also beside a new engine of the child's own."""
    out = run("""
        import asyncio, gc, os, sys
        from shardyfusion import _native

        async def main():
            reader = _native.open_reader(sys.argv[1], {}, 10)
            reader = await reader
            snapshot = reader.snapshot()
            scan = snapshot.scan()
            rows = await scan.next(10)
            flying = snapshot.get(0, b"nothing")
            opening = _native.open_reader(sys.argv[1], {}, 10)
            opening.send(None)
            store = _native.Store("file:///")
            pid = os.fork()
            if pid == 0:
                fresh = _native.open_reader(sys.argv[1], {}, 10).wait()
                told = []
                for call in (
                    lambda: snapshot.get(0, rows[0][0]).wait(),
                    lambda: snapshot.multi_get(0, [rows[0][0]]).wait(),
                    lambda: scan.next(10).wait(),
                    lambda: snapshot.scan(),
                    lambda: reader.refresh().wait(),
                    lambda: reader.snapshot(),
                    lambda: store.get("x").wait(),
                ):
                    try:
                        call()
                        told.append("answered")
                    except Exception as e:
                        told.append("fork" in str(e))
                print("told:", told, reader.health()["closed"], flush=True)
                scan.close()
                snapshot.close()
                reader.close()
                opening.close()
                del scan, snapshot, reader, opening, flying, store, call
                gc.collect()
                print("rows:", len(fresh.snapshot().scan().next(10_000).wait()), flush=True)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            print("parent:", len(await snapshot.scan().next(10_000)))
            opening.close()

        asyncio.run(main())
    """)
    assert f"told: {[True] * 7} True" in out and "rows: 1200" in out and "parent: 1200" in out


@pytest.mark.parametrize("kept", ["op", "running", "cycle", "free list", "loop"])
def test_the_interpreter_ends_whatever_is_left(kept):
    out = run(f"""
        import asyncio, sys
        from shardyfusion import _native
        reader = _native.open_reader(sys.argv[1], {{}}, 10).wait()
        kept = {kept!r}
        loop = asyncio.new_event_loop()

        async def one():
            op = _native.open_reader(sys.argv[1], {{}}, 10)
            op.send(None)
            return op

        if kept == "op":
            op = reader.refresh()
        elif kept == "running":
            op = loop.run_until_complete(one())
        elif kept == "cycle":
            op = loop.run_until_complete(one())
            cycle = [op, _native, type(op)]
            cycle.append(cycle)
        elif kept == "free list":
            for op in [reader.refresh() for _ in range(100)]:
                op.wait()
            del op
        else:
            loop.run_until_complete(one())
        print("done")
    """)
    assert out == "done\n"


def test_the_engine_ends_with_the_module():
    """Threads of the engine must not run into the end of the process."""
    out = run("""
        import gc, os, sys, time
        from shardyfusion import _native
        import shardyfusion
        for _ in range(3):
            reader = _native.open_reader(sys.argv[1], {}, 10).wait()
            reader.refresh().wait()
        before = len(os.listdir("/proc/self/task"))
        del reader
        for name in [n for n in sys.modules if n.startswith("shardyfusion")]:
            del sys.modules[name]
        del _native, shardyfusion
        gc.collect(); gc.collect()
        deadline = time.monotonic() + 20  # the last reference may go on the engine's own thread
        while before <= len(os.listdir("/proc/self/task")) and time.monotonic() < deadline:
            time.sleep(0.01)
        print(before > len(os.listdir("/proc/self/task")))
    """)
    assert out == "True\n"


async def test_a_refresh_whose_waiter_was_cancelled_as_the_engine_moved(tmp_path):
    """Reads go straight to the engine: what the reader says of its snapshot must not stay behind for ever."""
    copy = tmp_path / "snapshot"
    shutil.copytree(SNAPSHOT, copy)
    async with AsyncShardedReader.open(s3_prefix=str(copy), local_root=str(tmp_path)) as reader:
        before = reader.snapshot_info().manifest_ref
        (folder,) = (copy / "manifests").iterdir()
        later = folder.name.replace("2026-", "2027-", 1)
        shutil.copytree(folder, folder.parent / later)
        pointer = json.loads((copy / "_CURRENT").read_text())
        pointer["manifest_ref"] = pointer["manifest_ref"].replace(folder.name, later)
        (copy / "_CURRENT").write_text(json.dumps(pointer))
        assert await reader._source.engine.refresh()  # all that is left of a call that was cancelled too late
        assert await reader.refresh()
        assert reader.snapshot_info().manifest_ref == pointer["manifest_ref"] != before
        assert not await reader.refresh()


# ---------------------------------------------------------------- observers


class Observer:
    """In place of the package's Metrics, and of the collector."""

    get_event, multi_get_event = "get", "multi_get"

    def __init__(self):
        self.collector, self.store_events, self.look_ups = self, _native.StoreEvents(), None
        self.failed = []
        self.told = []
        self.failures = []
        self.then = lambda: None

    def emit(self, event, payload):
        duration_ms = payload["duration_ms"]
        assert type(duration_ms) is int and 0 <= duration_ms < 60_000
        assert duration_ms == int(payload["duration_s"] * 1000) and payload["cache"] in ("hit", "miss")
        assert list(payload) == (
            ["duration_ms", "found", "duration_s", "db_id", "cache"] if event == "get"
            else ["duration_ms", "num_keys", "duration_s", "found_count", "cache"]
        )
        self.told.append((event, list(payload.values())[1]))
        self.then()

    def look_up_failed(self, operation, error, duration_s):
        self.failed.append((operation, type(error).__name__))

    def tell_of(self, noted):
        self.told.append(("noted", {name for name, *_ in noted}))
        self.then()

    def collector_failed(self, event, error):
        self.failures.append((event, error))

    def note(self):
        """As a store does that cannot be reached."""
        s3 = {"endpoint_url": "http://127.0.0.1:1", "region": "x", "anonymous": True, "max_retries": 1, "retry_base_ms": 1}
        with pytest.raises(Exception, match="127.0.0.1"):
            _native.open_reader("s3://bucket/prefix", {"s3": {**s3, "events": self.store_events}}, 10).wait()


NOTED = ("noted", {"s3.retry", "s3.retry_exhausted"})


@pytest.fixture
def observed(core):
    observer = Observer()
    core._attach(_native.open_reader(SNAPSHOT, {}, 10).wait(), observer)
    return core, observer


async def test_observers_are_told_of_look_ups(observed, rows):
    core, observer = observed
    key, value = rows[0]
    for blocking in (False, True):

        async def ended(work):
            return work.wait() if blocking else await work

        observer.told.clear()
        assert await ended(core.get(key)) == value
        assert await ended(core.get("nobody has this key")) is None
        observer.note()
        assert await ended(core.multi_get([key, key, "none"])) == {key: value, "none": None}
        assert await ended(core.get_many([key])) == [value]
        for bad in (core.get(1.5), core.multi_get([key, 1.5])):
            observer.note()
            with pytest.raises(Exception, match="key"):
                await ended(bad)
        with pytest.raises(Exception, match="key"):
            await ended(core.get(1.5))
        assert observer.told == [
            ("get", True), ("get", False), NOTED, ("multi_get", 3), ("multi_get", 1), NOTED, NOTED,
        ]


@pytest.mark.parametrize("key", ["this", "nobody has this key"])
def test_payloads_belong_to_whoever_keeps_them(observed, rows, key):
    """One that nobody keeps serves again; what a collector does to the others is seen by nobody else."""
    core, observer = observed
    key = rows[0][0] if key == "this" else key
    usual = {"duration_ms": 0, "found": key == rows[0][0], "duration_s": 0, "db_id": 0, "cache": "hit"}
    kept = []

    def nested(payload):
        if len(kept) < 20:
            kept.append(payload)
            core.get(key).wait()

    does = {
        "nothing": lambda payload: None,
        "keeps": kept.append,
        "adds": lambda payload: payload.update(more=1),
        "removes": lambda payload: payload.pop("found"),
        "changes": lambda payload: payload.update(found="?", duration_ms=7),
        "replaces": lambda payload: (payload.clear(), payload.update(a=1, b=2)),
        "reorders": lambda payload: payload.update(duration_ms=payload.pop("duration_ms")),
        "looks up": nested,
    }
    for name, does_it in does.items():
        seen = []

        def emit(event, payload):
            seen.append({**payload, "duration_ms": 0, "duration_s": 0, "db_id": payload["db_id"] * 0})
            does_it(payload)  # noqa: B023

        observer.emit = emit
        for _ in range(3):
            core.get(key).wait()
        assert set(map(str, seen)) == {str(usual)}, name
    assert len({id(payload) for payload in kept}) == len(kept) == 20


async def test_observers_may_do_as_they_like(observed, rows):
    core, observer = observed
    key, value = rows[0]
    nested = []

    def look_up_again():
        if len(observer.told) < 50:
            nested.append(core.get(key).wait())

    observer.then = look_up_again
    assert await core.get(key) == value
    assert nested == [value] * 49

    def step_the_same():
        with pytest.raises(ValueError, match="already executing"):
            work.send(None)

    observer.then = step_the_same
    work = core.get(key)
    assert await work == value

    observer.then = core._detach
    assert await core.multi_get([key]) == {key: value}


@pytest.mark.parametrize("blocking", [False, True])
async def test_what_an_observer_raises_ends_the_look_up(observed, rows, blocking):
    """The package's own lets nothing out but what ends programs."""
    core, observer = observed

    class Ends(BaseException):
        pass

    def end():
        raise Ends

    observer.then = end
    for work in (core.get(rows[0][0]), core.multi_get([rows[0][0]]), core.get(1.5), core.multi_get([1.5])):
        observer.note()
        with pytest.raises(Ends):
            work.wait() if blocking else await work
    assert observer.failures == []


async def test_what_a_collector_raises_is_the_observers(observed, rows):
    core, observer = observed
    key, value = rows[0]
    observer.then = lambda: 1 / 0
    assert await core.get(key) == value
    observer.note()
    assert await core.multi_get([key]) == {key: value}
    assert [(event, type(error)) for event, error in observer.failures] == [
        ("get", ZeroDivisionError), ("multi_get", ZeroDivisionError),
    ]
    core._attach(_native.open_reader(SNAPSHOT, {}, 10).wait(), observer)
    observer.collector = object()  # attributes are read when it is attached
    assert await core.get(key) == value
    core._attach(_native.open_reader(SNAPSHOT, {}, 10).wait(), observer)
    assert await core.get(key) == value
    assert type(observer.failures[-1][1]) is AttributeError


async def test_a_failure_outlives_an_observer_that_fails(observed, monkeypatch):
    core, observer = observed
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    observer.then = lambda: 1 / 0
    observer.note()
    with pytest.raises(Exception, match="key"):
        await core.get(1.5)
    assert [u.exc_type for u in unraisable] == [ZeroDivisionError]


@pytest.mark.parametrize(("name", "value", "error"), [
    ("collector", None, AttributeError), ("store_events", None, AttributeError), ("get_event", None, AttributeError),
    ("multi_get_event", None, AttributeError), ("store_events", 5, TypeError), ("look_ups", None, AttributeError),
    ("look_ups", 5, TypeError),
])
def test_half_an_observer_is_refused(core, name, value, error):
    parts = {"collector": 1, "store_events": _native.StoreEvents(), "get_event": 1, "multi_get_event": 1, "look_ups": None}
    parts.pop(name)
    with pytest.raises(error, match="events must be StoreEvents|superclass|must be a LookUpMetrics" if value else name):
        core._attach(
            _native.open_reader(SNAPSHOT, {}, 10).wait(), type("Half", (), parts if value is None else {**parts, name: value})()
        )
