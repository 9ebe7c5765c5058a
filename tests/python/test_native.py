"""The extension by itself: operations as coroutine objects, event loops, threads, forks. The package's tests are the rest."""

from __future__ import annotations

import asyncio
import collections.abc
import contextlib
import gc
import inspect
import os
import subprocess
import sys
import textwrap
import threading
import warnings
import weakref
from pathlib import Path

import pytest
import uvloop

from shardyfusion import _native

SNAPSHOT = str(Path(__file__).resolve().parents[2] / "examples" / "snapshot")


class Core(_native.ReaderCore):
    """What AsyncShardedReader is to the extension."""

    async def _get(self, key, routing_context, timeout):
        await asyncio.sleep(0)
        return "python", key, routing_context, timeout

    async def _multi_get(self, keys, routing_context, timeout, on_error):
        await asyncio.sleep(0)
        return {key: (on_error, timeout) for key in keys}


class BlockingCore(_native.BlockingReaderCore):
    """What blocking readers are to it."""

    def _get(self, key, routing_context, timeout):
        return None if key == "none" else b"python"

    def _multi_get(self, keys, routing_context, timeout, on_error):
        return {key: self._get(key, routing_context, timeout) for key in keys}

    def _try_get(self, key, routing_context):
        return NotImplemented


@pytest.fixture
def rows() -> list[tuple[str, bytes]]:
    snapshot = _native.open_reader(SNAPSHOT, {}, 10).wait().snapshot()
    found = snapshot.scan().next(10_000).wait()
    return [(key.decode(), value) for key, value in found]


@pytest.fixture
def core() -> Core:
    c = Core()
    c._attach(_native.open_reader(SNAPSHOT, {}, 10).wait())
    return c


# ---------------------------------------------------------------- the coroutine protocol


async def test_what_get_returns_is_a_coroutine(core, rows):
    key, value = rows[0]
    assert asyncio.iscoroutine(op := core.get(key))
    assert isinstance(op, collections.abc.Coroutine)
    assert "get" in repr(op) and op.__qualname__ == "AsyncShardedReader.get"
    assert await op == value
    assert await asyncio.create_task(core.get(key)) == value
    assert await asyncio.gather(core.get(key), core.get(key)) == [value, value]
    assert await asyncio.wait_for(core.get(key), 60) == value
    async with asyncio.TaskGroup() as group:
        task = group.create_task(core.get(key))
    assert task.result() == value


def test_a_hit_finishes_in_its_first_send(core, rows):
    key, value = rows[0]
    op = core.get(key)
    with pytest.raises(StopIteration) as stop:
        op.send(None)
    assert stop.value.value == value
    with pytest.raises(RuntimeError, match="already awaited"):
        op.send(None)
    with pytest.raises(RuntimeError, match="already awaited"):
        op.throw(ValueError)
    op.close()


def stop_of(step, op) -> StopIteration:
    with pytest.raises(StopIteration) as stop:
        step(op)
    return stop.value


def alter(stop: StopIteration) -> None:
    stop.args, stop.__cause__, stop.attribute = ("other",), KeyError(), 1
    stop.add_note("seen")
    stop.with_traceback(None)


@pytest.mark.parametrize("see", [repr, alter, lambda stop: stop.with_traceback(None)], ids=["looked at", "altered", "no traceback"])
@pytest.mark.parametrize("step", [next, lambda op: op.send(None)], ids=["next", "send"])
def test_who_steps_by_hand_may_keep_what_is_raised(core, rows, step, see):
    """The extension raises one exception again and again, as long as nobody has seen it: see stop.c."""

    async def by_await(key):
        return await core.get(key)

    kept = []
    for key, value in rows[:6]:
        see(stop_of(step, core.get(key)))
        assert stop_of(lambda coroutine: coroutine.send(None), by_await(key)).value == value
        kept.append((stop_of(step, core.get(key)), stop_of(step, core.get(key)).args, value))
    for stop, args, value in kept:
        assert type(stop) is StopIteration and (stop.value, stop.args, args) == (value, (value,), (value,))
        assert (stop.__cause__, stop.__dict__) == (None, {})
    assert stop_of(step, core.get("none")).value is None


def await_traced(op, see=lambda stop: None) -> object:
    """The result, where a tracer sees what the operation raises with it."""

    async def by_await():
        return await op

    def trace(frame, event, arg):
        if event == "exception" and frame.f_code is by_await.__code__:
            see(arg[1])
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        by_await().send(None)
    except StopIteration as stop:
        return stop.value
    finally:
        sys.settrace(before)


def test_what_a_tracer_hashes_has_its_own_hash_again(core, rows):
    hashes = []
    ops = [core.get(key) for key, _ in rows[:4]]  # all are kept, and so what they raise
    for op, (_, value) in zip(ops, rows):
        assert await_traced(op, lambda stop, v=value: stop.args == (v,) and hashes.append(hash(stop.args) == hash((v,)))) == value
    assert hashes == [True] * 4


@pytest.mark.parametrize("put", ["value", "args"])
def test_what_a_tracer_puts_into_it_changes_no_other_answer(core, rows, put):
    class Gone:
        def __del__(self):
            answers.append(await_traced(ops[1]))

    answers = []
    ops = [core.get(key) for key, _ in rows[:3]]
    await_traced(ops[0], lambda stop: setattr(stop, put, Gone() if put == "value" else (Gone(),)))
    assert await_traced(ops[2]) == rows[2][1]
    assert answers == [rows[1][1]]


async def test_what_was_awaited_is_the_callers_alone(core, rows):
    key, value = rows[0]
    got, own = await core.get(key), bytes(bytearray(value))
    assert got == own and sys.getrefcount(got) == sys.getrefcount(own)


async def test_an_operation_that_somebody_has_serves_nobody_else(core, rows):
    """Those that are over wait for their next use, where the garbage collector tells of them."""
    (first, value), (second, other) = rows[:2]
    op = core.get(first)
    assert await op == value
    over = [o for o in gc.get_objects() if type(o) is type(op) and "closed" in repr(o)]
    op = core.get(second)
    assert not any(o is op for o in over)
    for o in over:
        with pytest.raises(RuntimeError, match="already awaited"):
            o.send(None)
    assert await op == other


def test_nothing_happens_before_the_first_send(core):
    op = core.get(None)  # not a key
    with pytest.raises(ValueError):
        op.send(None)
    closed = core.get(None)
    closed.close()
    with pytest.raises(RuntimeError, match="already awaited"):
        closed.send(None)
    with pytest.raises(TypeError, match="just-started"):
        (started := core.get("x")).send(1)
    started.close()


@pytest.mark.parametrize("thrown", [(KeyError("k"),), (KeyError, "k"), (KeyError, KeyError("k"), None)])
def test_what_is_thrown_comes_out(core, thrown):
    op = core.get("x")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the old three-argument form
        with pytest.raises(KeyError, match="k"):
            op.throw(*thrown)


def test_dropped_operations_warn(core):
    with pytest.warns(RuntimeWarning, match="'AsyncShardedReader.get' was never awaited"):
        core.get("x")
        gc.collect()


@pytest.mark.parametrize(("error", "warned"), [(KeyboardInterrupt, False), (ValueError, True)])
def test_an_interrupt_before_it_is_awaited_is_nobodys_mistake(core, error, warned):
    def interrupt():
        raise error

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(error):
            [core.get("key"), interrupt()]
    assert ["never awaited" in str(w.message) for w in seen] == [True] * warned


def test_a_core_that_blocks_gives_results(core):
    reader = _native.open_reader(SNAPSHOT, {}, 10).wait()
    key, value = reader.snapshot().scan().next(1).wait()[0]
    blocking = BlockingCore()
    blocking._attach(reader)
    assert blocking.get(key.decode()) == blocking.get(key=key.decode(), timeout=5) == value
    assert blocking.multi_get([key.decode()]) == {key.decode(): value}
    assert blocking.get_many([key.decode(), "none"]) == [value, None]
    with pytest.raises(Exception, match="key"):
        blocking.get(1.5)
    with pytest.raises(Exception, match="key"):
        blocking.multi_get([1.5])


def test_the_subclass_of_a_core_that_blocks_answers_at_once():
    core = BlockingCore()
    assert core.get("x") == core.get("x", routing_context={"a": 1}, timeout=2) == b"python"
    assert core.multi_get(["x", "none", "x"]) == {"x": b"python", "none": None}
    assert core.get_many(["x", "none", "x"]) == [b"python", None, b"python"]
    assert (core.contains("x"), core.contains("none"), core.contains_many(["none", "x"])) == (True, False, [False, True])
    assert core.try_get("x", 5) == 5
    with pytest.raises(LookupError):
        core.try_get("x")
    with pytest.raises(ValueError, match="on_error"):
        core.multi_get(["x"], on_error="ignore")
    assert not asyncio.iscoroutinefunction(core.get)


async def test_the_subclass_answers_when_nothing_is_attached():
    core = Core()
    assert await core.get("x", routing_context={"a": 1}, timeout=2) == ("python", "x", {"a": 1}, 2.0)
    assert await core.multi_get(["x", "x"], on_error="return") == {"x": ("return", None)}
    assert await core.get_many(iter(["x", "y", "x"])) == [("raise", None)] * 3
    task = asyncio.create_task(core.get("x"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("call", [
    lambda c: c.get(), lambda c: c.get(1, 2), lambda c: c.get(1, wrong=2), lambda c: c.multi_get([], on_error="x"),
    lambda c: c.get(1, on_error="raise"), lambda c: c.get(1, timeout="soon"), lambda c: c.get(1, timeout=float("nan")),
])
def test_wrong_arguments(core, call):
    with pytest.raises((TypeError, ValueError)):
        call(core)


def test_signatures():
    assert str(inspect.signature(Core.get)) == "(self, /, key, *, routing_context=None, timeout=None)"
    assert str(inspect.signature(Core.multi_get)) == (
        "(self, /, keys, *, routing_context=None, timeout=None, on_error='raise')")


# ---------------------------------------------------------------- answers


async def test_batches(core, rows):
    keys = [key for key, _ in rows]
    assert await core.multi_get(keys) == dict(rows)
    assert list(await core.multi_get([keys[3], keys[1], keys[3], "absent"])) == [keys[3], keys[1], "absent"]
    assert await core.get_many(["absent", keys[2], "absent"]) == [None, rows[2][1], None]
    assert await core.multi_get([]) == {}
    with pytest.raises(TypeError):
        await core.multi_get(5)
    with pytest.raises(ValueError):
        await core.multi_get([keys[0], None])


async def test_scan_forward_and_backward(core, rows):
    snapshot = _native.open_reader(SNAPSHOT, {}, 10).wait().snapshot()
    for options, expected in [
        ({}, rows),
        ({"reverse": True}, rows[::-1]),
        ({"limit": 7}, rows[:7]),
        ({"start": rows[5][0].encode(), "end": rows[9][0].encode()}, rows[5:9]),
    ]:
        scan = snapshot.scan(**options)
        found = []
        while step := await scan.next(100):
            found += step
        assert found == [(key.encode(), value) for key, value in expected], options
    scan.close()
    with pytest.raises(ValueError, match="closed"):
        await scan.next()


def test_hash_and_encodings_are_the_contracts():
    assert _native.hash_db_id("user-1", 8) == 1
    assert _native.xxh3_64(b"") == 3244421341483603138
    assert _native.canonical_bytes(-1) == b"\xff" * 8
    assert _native.encode_key("u64be", 2**64 - 1) == b"\xff" * 8
    for encoding, key in [("u32be", 2**32), ("u64be", -1), ("u64be", 2**64), ("u64be", "x"), ("raw", 1),
                          ("utf8", 1.5), ("u64be", b"short"), ("wrong", 1)]:
        with pytest.raises(Exception):
            _native.encode_key(encoding, key)
    with pytest.raises(ValueError):
        _native.hash_db_id(1, 0)


# ---------------------------------------------------------------- objects


@pytest.mark.parametrize("kind", ["file", "mem"])
async def test_objects(kind, tmp_path):
    url = tmp_path.as_uri() if kind == "file" else "mem://test-native/x"
    root, path = _native.split_url(url)
    store = _native.Store(url)
    assert root == {"file": "file://", "mem": "mem://test-native"}[kind]
    etag = await store.put(f"{path}/a=1/b", b"first", content_type="text/plain")
    assert await store.head(f"{path}/a=1/b") == (5, etag)
    for condition in [{"create_only": True}, {"if_match": '"other"'}]:
        with pytest.raises(Exception, match="a=1/b"):
            await store.put(f"{path}/a=1/b", b"lost", **condition)
    assert await store.put(f"{path}/a=1/b", bytearray(b"second"), if_match=etag) != etag
    assert store.get(f"{path}/a=1/b").wait() == b"second"
    await store.put(f"{path}/c", b"")
    assert await store.list(f"{path}/", delimiter="/") == [(f"{path}/a=1/", 0, True), (f"{path}/c", 0, False)]
    assert [key for key, _, _ in await store.list(f"{path}/")] == [f"{path}/a=1/b", f"{path}/c"]
    await store.delete(f"{path}/c")
    await store.delete_many([f"{path}/a=1/b", f"{path}/never"])
    assert await store.list(f"{path}/") == []
    with pytest.raises(Exception, match="/c"):
        await store.get(f"{path}/c")
    for wrong in [lambda: store.get("a\0b"), lambda: store.put("a", 5), lambda: store.delete_many([1])]:
        with pytest.raises((TypeError, ValueError)):
            wrong()


# ---------------------------------------------------------------- event loops


def read_cold(keys: list[str]) -> list[bytes | None]:
    """In a coroutine: opens and reads, so that completions cross from the engine to this loop."""

    async def main():
        reader = await _native.open_reader(SNAPSHOT, {}, 10)
        core = Core()
        core._attach(reader)
        assert await reader.refresh() is False
        return await core.get_many(keys)

    return main()


@pytest.mark.parametrize("runner", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_one_loop_after_another(rows, runner):
    keys, values = zip(*rows[:50])
    for _ in range(3):
        assert runner(read_cold(list(keys))) == list(values)


def test_loops_in_many_threads(rows):
    keys, values = zip(*rows[:50])
    failures = []

    def work():
        try:
            for _ in range(5):
                assert asyncio.run(read_cold(list(keys))) == list(values)
        except BaseException as e:  # noqa: BLE001 - reported below
            failures.append(e)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


def test_a_loop_that_closes_early_leaves_nothing():
    async def abandon():
        tasks = [asyncio.ensure_future(_native.open_reader(SNAPSHOT, {}, 10)) for _ in range(20)]
        await asyncio.sleep(0)
        return [weakref.ref(t) for t in tasks]

    for _ in range(5):
        loop = asyncio.new_event_loop()
        refs = loop.run_until_complete(abandon())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for task in asyncio.all_tasks(loop):
                task._log_destroy_pending = False
            loop.close()
            del loop
            task = None
            gc.collect()
        assert all(r() is None for r in refs)
    assert asyncio.run(read_cold([])) == []


async def test_cancelling_ends_the_operation():
    for _ in range(50):
        task = asyncio.ensure_future(_native.open_reader(SNAPSHOT, {}, 10))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(_native.open_reader(SNAPSHOT, {}, 10), 0.0001)
    assert (await _native.open_reader(SNAPSHOT, {}, 10)).health()["status"] == "healthy"


def test_descriptors_do_not_grow():
    asyncio.run(read_cold([]))
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        asyncio.run(read_cold([]))
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 1


async def test_an_awaited_operation_cannot_be_waited_for():
    op = _native.open_reader(SNAPSHOT, {}, 10)
    await op
    with pytest.raises(RuntimeError, match="cannot wait"):
        op.wait()
    with pytest.raises(RuntimeError, match="no running event loop"):
        await asyncio.to_thread(lambda: _native.open_reader(SNAPSHOT, {}, 10).send(None))


# ---------------------------------------------------------------- processes


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program), SNAPSHOT], capture_output=True, text=True,
                          timeout=60, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_forked_child_is_told_and_starts_afresh():
    out = run("""
        import os, sys
        from shardyfusion import _native
        reader = _native.open_reader(sys.argv[1], {}, 10).wait()
        snapshot = reader.snapshot()
        pid = os.fork()
        if pid == 0:
            try:
                reader.snapshot()
            except Exception as e:
                print("told:", e, flush=True)
            fresh = _native.open_reader(sys.argv[1], {}, 10).wait()
            print("rows:", fresh.snapshot().details()["row_count"], flush=True)
            del reader, snapshot, fresh
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print("parent:", reader.snapshot().details()["row_count"])
    """)
    assert "told:" in out and "fork" in out and "rows: 1200" in out and "parent: 1200" in out


def test_the_interpreter_may_end_with_reads_in_flight():
    run("""
        import asyncio, sys
        from shardyfusion import _native
        async def main():
            global tasks
            tasks = [asyncio.ensure_future(_native.open_reader(sys.argv[1], {}, 10)) for _ in range(50)]
            await asyncio.sleep(0)
            sys.exit(0)
        asyncio.run(main())
    """)


def test_sub_interpreters_are_refused():
    out = run("""
        import sys
        try:
            import _interpreters as sub
        except ImportError:  # before Python 3.13
            import _xxsubinterpreters as sub
        program = "\\n".join([
            f"import sys; sys.path[:] = {sys.path!r}",
            "try: import shardyfusion._native",
            "except ImportError as e: print('refused:', e, flush=True)",
            "else: print('imported', flush=True)",
        ])
        error = sub.run_string(sub.create(), program)
        assert error is None, error
    """)
    assert "refused:" in out and "interpreter" in out  # ours, or from Python 3.12 on its own


def test_ctrl_c_ends_a_wait():
    out = run("""
        import signal, socket, sys, threading, time
        from shardyfusion import _native
        silent = socket.create_server(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        options = {"s3": {"endpoint_url": url, "access_key_id": "a", "secret_access_key": "b", "region": "r"}}

        def interrupt():
            silent.accept()  # it waits by now
            signal.raise_signal(signal.SIGINT)

        try:
            threading.Thread(target=interrupt).start()
            _native.open_reader("s3://bucket/x", options, 30).wait()
        except KeyboardInterrupt:
            print("interrupted")
    """)
    assert "interrupted" in out


def test_a_task_that_nobody_holds_goes_on():
    """As with a socket: the event loop keeps what it waits for."""

    async def main():
        done = []

        async def work():
            reader = await _native.open_reader(SNAPSHOT, {}, 10)
            done.append(reader.health()["status"])

        asyncio.ensure_future(work())  # noqa: RUF006 - that is the point
        for _ in range(3):
            await asyncio.sleep(0)
            gc.collect()
        for _ in range(1000):
            if done:
                break
            await asyncio.sleep(0.01)
        return done

    for runner in (asyncio.run, uvloop.run):
        assert runner(main()) == ["healthy"]
