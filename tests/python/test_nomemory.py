"""Every allocation of Python's fails once, in every operation of a reader: an exception then, and nothing worse."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("_testcapi", reason="this Python was built without _testcapi, which makes allocations fail")

SNAPSHOT = str(Path(__file__).resolve().parents[2] / "examples" / "snapshot")

# What runs without memory is the extension alone, driven by hand: asyncio's own code would fail first.
PRELUDE = """
import asyncio, gc, sys
import _testcapi
from shardyfusion import _native

class Core(_native.ReaderCore):
    pass

snapshot_path = sys.argv[1]
reader = _native.open_reader(snapshot_path, {}, 10).wait()
snapshot = reader.snapshot()
rows = snapshot.scan().next(10_000).wait()
keys = [key.decode() for key, _ in rows[:40]]
stored = [key for key, _ in rows[:40]]
core = Core()
core._attach(reader)

class Observer:
    get_event, multi_get_event = "get", "multi_get"
    def __init__(self):
        self.collector, self.store_events, self.look_ups = self, _native.StoreEvents(), None
    def emit(self, event, payload):
        pass
    def look_up_failed(self, operation, error, duration_s):
        pass
    def collector_failed(self, event, error):
        raise error

observed = Core()
observed._attach(reader, Observer())
counting = Observer()
counting.look_ups = _native.LookUpMetrics()
counted = Core()
counted._attach(reader, counting)

class Limiter:
    def __init__(self, bucket):
        self.bucket = bucket
    async def wait_async(self, tokens, timeout, what):
        pass
    def wait(self, tokens, timeout, what):
        pass

limited, asking = Core(), Core()
limited._attach(reader, None, Limiter(_native.TokenBucket(1e12)))
asking._attach(reader, None, Limiter(None))

def every_failure(scenario, patience=60, bound=4000):
    '''The first, the second, ... allocation fails, until many runs in a row came through.'''
    outcomes = {"passed": 0, "failed": 0}
    unharmed = 0
    for nth in range(bound):
        _testcapi.set_nomemory(nth, nth + 1)
        try:
            scenario()
        except MemoryError:
            harmed = True
        except BaseException:
            _testcapi.remove_mem_hooks()
            raise
        else:
            harmed = False
        finally:
            _testcapi.remove_mem_hooks()
        outcomes["failed" if harmed else "passed"] += 1
        unharmed = 0 if harmed else unharmed + 1
        if unharmed >= patience:
            break
    assert outcomes["failed"] > 0, outcomes
    print(outcomes)
"""

SCENARIOS = {
    "open": "lambda: _native.open_reader(snapshot_path, options, 10).wait()",
    "open_shard": "lambda: _native.open_shard(shard_url, None, None, 10).wait()",
    "snapshot": "lambda: reader.snapshot().close()",
    "details": "lambda: (snapshot.details(), snapshot.rows(), reader.health())",
    "route": "lambda: [(snapshot.route(k), snapshot.encode_key(k)) for k in keys[:3]]",
    "get": "lambda: drive(core.get(keys[0]))",
    "shard_get": "lambda: [snapshot.get(snapshot.route(keys[0]), stored[0]).wait() for _ in range(3)]",
    "get, observed": "lambda: drive(observed.get(keys[0]))",
    "multi_get, observed": "lambda: drive(observed.multi_get(keys))",
    "counted": "lambda: (drive(counted.get(keys[0])), drive(counted.multi_get(keys)), counting.look_ups.snapshot())",
    "get, limited": "lambda: (drive(limited.get(keys[0])), drive(asking.get(keys[0])), asking.get(keys[0]).wait())",
    "multi_get, limited": "lambda: (drive(limited.multi_get(keys)), drive(asking.multi_get(keys)))",
    "attach": "lambda: Core()._attach(reader, Observer(), Limiter(None))",
    "multi_get": "lambda: drive(core.multi_get(keys))",
    "get_many": "lambda: drive(core.get_many(keys))",
    "contains": "lambda: (drive(core.contains(keys[0])), drive(core.contains_many(keys)), snapshot.contains_many(0, stored).wait())",
    "try_get": "lambda: (core.try_get(keys[0]), observed.try_get(keys[0], None), snapshot.try_get(0, stored[0]))",
    "shard_multi_get": "lambda: snapshot.multi_get(0, stored).wait()",
    "scan": "lambda: scan_some()",
    "Arrow batch": "lambda: arrow_some()",
    "Arrow stream": "lambda: _native.arrow_stream(batches(), 'raw')",
    "refresh": "lambda: reader.refresh(10).wait()",
    "store": "lambda: (store.put('a/b', b'c').wait(), store.get('a/b').wait(), store.list('a').wait(), store.delete('a/b').wait())",
    "provider": "lambda: asked()",
}


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + textwrap.dedent(code), SNAPSHOT],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("name", SCENARIOS)
def test_blocking(name):
    run(f"""
        options = {{"max_fallback_attempts": 1, "s3": {{"region": "x"}}}}
        shard_url = next(row["db_url"] for row in snapshot.rows() if row["db_url"])
        shard_url = snapshot_path + shard_url[shard_url.index("/shards/"):]
        store = _native.Store("mem://nomemory")

        def drive(op):
            try:
                op.send(None)
            except StopIteration as stop:
                return stop.value
            raise AssertionError("not a hit")

        def scan_some():
            scan = snapshot.scan(limit=5)
            while scan.next(3).wait():
                pass
            scan.close()

        def arrow_some():
            scan = snapshot.scan(limit=5)
            while scan.next_batch("raw", 3).wait() is not None:
                pass
            scan.close()

        def batches():
            scan = snapshot.scan(limit=5)
            return lambda: scan.next_batch("raw", 3).wait()

        def asked():
            source = _native.CredentialSource(lambda: ("id", "secret" * 2, None, 1 << 60))
            nobody = {{"endpoint_url": "http://127.0.0.1:1", "max_retries": 0, "credential_source": source}}
            try:
                _native.Store("s3://bucket", nobody).get("k", 10).wait()
            except RuntimeError as error:
                assert "Failed to connect" in str(error), error

        for key in keys:
            snapshot.get(snapshot.route(key), snapshot.encode_key(key)).wait()
        every_failure({SCENARIOS[name]})
        assert snapshot.multi_get(snapshot.route(keys[0]), [snapshot.encode_key(keys[0])]).wait()[snapshot.encode_key(keys[0])] == rows[0][1]
    """)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_on_an_event_loop(loop):
    """What the extension does to start on a loop fails at every point; the loop goes on."""
    run(f"""
        import {loop}
        loop = {loop}.new_event_loop()

        async def opened():
            return await _native.open_reader(snapshot_path, {{}}, 10)

        loop.run_until_complete(opened())

        def started(nth):
            async def one():
                op = _native.open_reader(snapshot_path, {{}}, 10)
                _testcapi.set_nomemory(nth, nth + 1)
                try:
                    future = op.send(None)
                finally:
                    _testcapi.remove_mem_hooks()
                future._asyncio_future_blocking = False
                await asyncio.wait_for(future, 10)
                try:
                    op.send(None)
                except StopIteration as stop:
                    return stop.value
            return one()

        failed = unharmed = 0
        for nth in range(400):
            try:
                assert isinstance(loop.run_until_complete(started(nth)), _native.Reader)
                unharmed += 1
                if unharmed == 30:
                    break
            except MemoryError:
                failed += 1
                unharmed = 0
        assert failed > 0 and unharmed == 30, (failed, unharmed)
        loop.close()
    """)


def test_a_wakeup_without_memory_is_repeated():
    run("""
        loop = asyncio.new_event_loop()
        sys.unraisablehook = lambda args: None

        async def main():
            for nth in range(40):
                op = _native.open_reader(snapshot_path, {}, 10)
                future = op.send(None)
                fails = [nth]
                fd = next(key.fd for key in loop._selector.get_map().values()
                          if getattr(key.data[0] and key.data[0]._callback, "__name__", "") == "drain")
                drain = loop._selector.get_map()[fd].data[0]._callback
                loop.remove_reader(fd)

                def failing():
                    if fails:
                        n = fails.pop()
                        _testcapi.set_nomemory(n, n + 1)
                        try:
                            drain()
                        finally:
                            _testcapi.remove_mem_hooks()
                    else:
                        drain()

                loop.add_reader(fd, failing)
                deadline = loop.time() + 10
                while not future.done():
                    assert loop.time() < deadline, nth
                    await asyncio.sleep(0.001)
                loop.remove_reader(fd)
                loop.add_reader(fd, drain)
                try:
                    op.send(None)
                except StopIteration as stop:
                    assert isinstance(stop.value, _native.Reader)
        loop.run_until_complete(main())
        loop.close()
    """)


def test_repeated_use_leaves_nothing():
    """Objects, descriptors and memory after many rounds of everything."""
    out = run("""
        import os, resource

        async def everything():
            r = await _native.open_reader(snapshot_path, {}, 10)
            s = r.snapshot()
            c = Core()
            c._attach(r)
            await c.get(keys[0]); await c.multi_get(keys); await c.get_many(keys)
            await s.multi_get(0, stored)
            scan = s.scan(); await scan.next(100); scan.close()
            await r.refresh()
            pending = r.refresh(); pending.send(None); pending.close()
            store = _native.Store("mem://x"); await store.put("k", b"v"); await store.get("k")
            r.close(); s.close()

        def rss():
            with open("/proc/self/statm") as f:
                return int(f.read().split()[1]) * resource.getpagesize()

        def state():
            gc.collect()
            return len(gc.get_objects()), len(os.listdir("/proc/self/fd"))

        for _ in range(30):
            asyncio.run(everything())
        before, memory = state(), rss()
        for _ in range(60):
            asyncio.run(everything())
        after = state()
        assert after[1] <= before[1], (before, after)
        assert after[0] <= before[0] + 20, (before, after)
        print(rss() - memory)
    """)
    if "libasan" not in os.environ.get("LD_PRELOAD", ""):  # its quarantine keeps what was freed
        assert int(out.split()[-1]) < 8 << 20
