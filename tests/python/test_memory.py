"""Every allocation of the interpreter and the extension fails once, in turn: the answer is right, or it is MemoryError."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fixtures import ROOT, case

pytest.importorskip("_testcapi", reason="this Python was built without its test helpers")

if sys.version_info >= (3, 12):
    pytest.skip("pure Python code crashes this interpreter when a frame cannot be had", allow_module_level=True)

CASE = case("slatedb-hash-u64be")

PROGRAM = f"""
import asyncio, gc, sys
import _testcapi
sys.path[:0] = [{str(ROOT / 'tests' / 'python')!r}]
from shardyfusion import AsyncShardedReader, ShardedReader
from shardyfusion._engine import native
from shardyfusion.errors import ManifestParseError
import shardyfusion.manifest, shardyfusion.storage

PREFIX = {CASE.prefix!r}
ROWS = {dict((k, v) for k, _, v in CASE.lookups[:50])!r}
KEYS = list(ROWS)
KEY, VALUE = next(iter(ROWS.items()))
MANIFEST = open({next((CASE.folder / "manifests").glob("*/manifest")).as_posix()!r}, "rb").read()

def now(coroutine):
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    finally:
        coroutine.close()
    raise AssertionError("it waits")

SCENARIOS = {{}}
def scenario(function):
    SCENARIOS[function.__name__] = function

@scenario
def warm_get(reader, sync):
    assert now(reader.get(KEY)) == VALUE

@scenario
def warm_multi_get(reader, sync):
    assert now(reader.multi_get(KEYS)) == ROWS

@scenario
def warm_get_many(reader, sync):
    assert now(reader.get_many(KEYS)) == list(ROWS.values())

@scenario
def handle(reader, sync):
    with sync.reader_for_key(KEY) as h:
        assert h.get(sync.encode_key(KEY)) == VALUE

@scenario
def blocking_get(reader, sync):
    assert sync.get(KEY) == VALUE

@scenario
def bad_keys(reader, sync):
    for key in (2**70, "text", 1.5):
        try:
            now(reader.get(key))
        except ValueError:
            pass
        else:
            raise AssertionError(key)

@scenario
def failed_shards(reader, sync):
    try:
        reader.multi_get([KEY, "text"]).wait()
    except ExceptionGroup as group:
        assert len(group.exceptions) == 1

@scenario
def scan(reader, sync):
    rows = list(sync.scan(limit=20))
    assert len(rows) == 20

@scenario
def details(reader, sync):
    assert reader.snapshot_info().num_dbs == 8 and len(reader.shard_details()) == 8

@scenario
def open_and_close(reader, sync):
    engine = native.open_reader(PREFIX, {{}}, 10).wait()
    assert engine.snapshot().details()["num_dbs"] == 8
    engine.close()

def ask(question):
    try:
        if question.what == "load_current":
            question.answer("the newest")
        elif question.what == "list_manifests":
            question.answer(["the newest", "another"])
        elif question.about == "the newest":
            question.fail(ManifestParseError("malformed"), "BAD_MANIFEST")
        else:
            question.answer(MANIFEST)
    except MemoryError as error:
        question.fail(error)

@scenario
def questions(reader, sync):
    rejected = []
    engine = native.open_reader(PREFIX, {{"confine": True}}, 10, rejected, ask).wait()
    assert engine.snapshot().details()["manifest_ref"] == "another"
    assert type(rejected[0][1]) is ManifestParseError
    engine.close()

@scenario
def refresh(reader, sync):
    assert sync.refresh() is False

@scenario
def objects(reader, sync):
    store = native.Store(PREFIX)
    _, key = native.split_url(PREFIX + "/_CURRENT")
    assert store.get(key).wait()
    assert store.list(key, delimiter="/").wait()

PAIRS = [("one", b"1"), ("two", bytearray(b"2")), ("three", b"3" * 1000)]

def row_error(error, key, value, number):
    return error or ValueError(number)

@scenario
def publish(reader, sync):
    seen = []
    options = {{"num_dbs": 2, "key_encoding": "utf8", "threads": 1, "progress_interval_ms": 0}}
    writer = native.Writer("mem://memory/snap", options, row_error, progress=seen.append, check=seen.append)
    try:
        assert writer.add_rows(iter(PAIRS), lambda p: p[0], lambda p: p[1], 100) == (3, 1002)
        assert writer.build()["rows"] == 3
        assert writer.publish()["published"]
    finally:
        writer.close()
    assert seen

@scenario
def bad_rows(reader, sync):
    for pair in ((None, b""), ("k", None), ("k", "text")):
        writer = native.Writer("mem://memory/bad", {{"num_dbs": 2, "key_encoding": "utf8"}}, row_error)
        try:
            writer.add_rows(iter([*PAIRS, pair]), lambda p: p[0], lambda p: p[1], 100)
        except ValueError as error:
            assert error.args == (4,)
        else:
            raise AssertionError(pair)
        finally:
            writer.close()

SHARDS = iter(range(10**9))

@scenario
def one_shard(reader, sync):
    writer = native.ShardWriter(f"mem://memory/shards/{{next(SHARDS)}}")
    try:
        writer.add([(b"k", b"v"), (b"a", b"b")])
        assert writer.finish()["rows"] == 2
    finally:
        writer.close()

async def opened():
    return await AsyncShardedReader.open(s3_prefix=PREFIX, local_root="x")

reader = asyncio.run(opened())
sync = ShardedReader(s3_prefix=PREFIX, local_root="x")
chosen = SCENARIOS[sys.argv[1]]
sys.unraisablehook = lambda unraisable: None  # finalisers fail for want of memory, too
for _ in range(3):
    chosen(reader, sync)
passed = 0
failed = 0
gc.disable()
for nth in range(5000):
    try:
        _testcapi.set_nomemory(nth, nth + 1)
        try:
            chosen(reader, sync)
        finally:
            _testcapi.remove_mem_hooks()
    except (MemoryError, SystemError) as error:
        # pure Python code, too, may fail without an exception when a frame cannot be had
        assert type(error) is MemoryError or "without" in str(error), error
        failed += 1
        passed = 0
    else:
        passed += 1
    if passed > 60:  # the scenario is over before its nth allocation
        break
gc.enable()
gc.collect()
for _ in range(3):
    chosen(reader, sync)
sync.close()
asyncio.run(reader.close())
print("failed", failed, "of", nth)
"""

SCENARIOS = (
    "warm_get", "warm_multi_get", "warm_get_many", "handle", "blocking_get", "bad_keys", "failed_shards", "scan",
    "details", "open_and_close", "questions", "refresh", "objects", "publish", "bad_rows", "one_shard",
)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_allocations_that_fail(scenario: str) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, scenario], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    words = done.stdout.split()
    assert words[0] == "failed" and 0 < int(words[1]) < int(words[3]) < 4999
