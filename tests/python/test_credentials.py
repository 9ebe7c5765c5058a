"""Credential providers of the caller's: asked once, and again when what they said is over or refused. Against servers that
check signatures; the keys that they take change while readers, stores and writers are at work."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from fixtures import ROOT

sys.path.insert(0, str(ROOT / "tests" / "support"))

from fault_server import Fault, Front, fault_server  # noqa: E402
from s3_server import ACCESS_KEY, REGION, SECRET_KEY, gateway, lay_out_fixtures  # noqa: E402

from shardyfusion import (  # noqa: E402
    AsyncShardedReader,
    ConcurrentShardedReader,
    ConfigValidationError,
    HashShardedWriteConfig,
    OperationTimeoutError,
    PythonRecordInput,
    PythonWriteOptions,
    S3TransientError,
    ShardedReader,
    ShardyfusionError,
    SlateDbFactory,
    StaticCredentialProvider,
    WriterOutputConfig,
)
from shardyfusion._engine import native  # noqa: E402
from shardyfusion._dotenv import parse_env
from shardyfusion._s3_options import engine_options  # noqa: E402
from shardyfusion.credentials import EnvCredentialProvider, S3Credentials  # noqa: E402
from shardyfusion.reader.async_reader import AsyncSlateDbReaderFactory  # noqa: E402
from shardyfusion.storage import AsyncObstoreBackend, ObstoreBackend, create_s3_store  # noqa: E402
from shardyfusion.writer.python import write_hash_sharded  # noqa: E402

CASE, SHARDS = "slatedb-multi-l0", 2  # large enough that a look-up asks the store
# one id, because to a HEAD of another this server answers 404
OLD, NEW, WRONG = (ACCESS_KEY, SECRET_KEY), (ACCESS_KEY, "next-secret-key"), (ACCESS_KEY, "no-such-secret")
LOOKUPS = [
    (int(x["key"]["int"]), x["value"] and bytes.fromhex(x["value"]))
    for x in json.loads((ROOT / "tests" / "fixtures" / "snapshots" / CASE / "expected.json").read_text())["lookups"]
    if "value" in x
]


@dataclass
class Service:
    """One endpoint before two servers over the same buckets, which know different keys."""

    front: Front
    upstreams: dict[tuple[str, str], int]
    file: Path  # the keys of the day, for providers

    @property
    def options(self) -> dict[str, Any]:
        return {"endpoint_url": self.front.endpoint, "region_name": REGION}

    def takes(self, keys: tuple[str, str]) -> None:
        self.front._upstream = ("127.0.0.1", self.upstreams[keys])

    def tells(self, keys: tuple[str, str]) -> None:
        self.file.write_text(json.dumps(keys))

    def rotate(self) -> None:
        self.takes(NEW)
        self.tells(NEW)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], int]]:
    folder = tmp_path_factory.mktemp("s3")
    (folder / "buckets" / "scratch").mkdir(parents=True)
    lay_out_fixtures(ROOT / "tests" / "fixtures", folder / "buckets")
    with (
        gateway(folder / "buckets", folder / "old.log") as old,
        gateway(folder / "buckets", folder / "new.log", "--access", NEW[0], "--secret", NEW[1]) as new,
    ):
        yield {OLD: old, NEW: new}


@pytest.fixture
def service(servers: dict[tuple[str, str], int], tmp_path: Path) -> Iterator[Service]:
    with fault_server(f"http://127.0.0.1:{servers[OLD]}") as front:
        made = Service(front, servers, tmp_path / "keys.json")
        made.tells(OLD)
        yield made


@dataclass
class FileProvider:
    """The keys in a file. What is in `then` happens, in turn, in the calls after `quiet` of them."""

    file: Path
    quiet: int = 2  # a reader asks for its store and for its shards
    then: list[Callable[[], object]] = field(default_factory=list)
    calls: int = 0

    @property
    def log(self) -> Path:
        """The processes that have asked, one a line."""
        return self.file.with_suffix(".log")

    def workers(self) -> Counter[str]:
        """How often each process but this one has asked."""
        asked = Counter(self.log.read_text().split())
        del asked[str(os.getpid())]
        return asked

    def resolve(self) -> S3Credentials:
        self.calls += 1
        with self.log.open("a") as log:
            log.write(f"{os.getpid()}\n")
        if self.calls > self.quiet and self.then:
            answer = (self.then.pop(0) if len(self.then) > 1 else self.then[0])()
            if answer is not None:
                return answer  # type: ignore[return-value]
        return S3Credentials(*json.loads(self.file.read_text()))


def raising(error: BaseException) -> Callable[[], object]:
    def act() -> object:
        raise error

    return act


async def eventually(condition: Callable[[], bool]) -> None:
    late = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < late
        gc.collect()
        await asyncio.sleep(0.01)


def open_async(service: Service, provider: object, **more: Any) -> Any:
    return AsyncShardedReader.open(
        s3_prefix=f"s3://bucket/golden/{CASE}", local_root="unused", credential_provider=provider,
        s3_connection_options=service.options, **more)


# ---------------------------------------------------------------- readers


@pytest.mark.parametrize("factory", [False, True], ids=["engine", "plugged"])
async def test_a_reader_survives_a_rotation(service: Service, factory: bool) -> None:
    provider = FileProvider(service.file)
    shards = AsyncSlateDbReaderFactory(credential_provider=provider, s3_connection_options=service.options)
    # of a class of its own, so that the reader puts the snapshot together in Python
    own = type("Own", (AsyncSlateDbReaderFactory,), {})(shards.env_file, provider, service.options) if factory else None
    async with await open_async(service, provider, reader_factory=own) as reader:
        opened = provider.calls
        assert opened == (1 + SHARDS if factory else 2)
        for key, value in LOOKUPS[:5]:
            assert await reader.get(key) == value
        assert provider.calls == opened, "asked before anything was refused"
        service.rotate()
        assert await reader.multi_get([key for key, _ in LOOKUPS]) == dict(LOOKUPS)
        assert opened < provider.calls <= 2 * opened
        assert await reader.refresh() is False
        # once for each store that met a refusal, however many requests did
        assert opened < provider.calls <= 2 * opened
        told = provider.calls
        assert await reader.refresh() is False
        assert await reader.multi_get([key for key, _ in LOOKUPS]) == dict(LOOKUPS)
        assert provider.calls == told


@pytest.mark.parametrize("cls", [ShardedReader, ConcurrentShardedReader])
def test_a_blocking_reader_survives_a_rotation(service: Service, cls: Any) -> None:
    provider = FileProvider(service.file)
    with cls(s3_prefix=f"s3://bucket/golden/{CASE}", local_root="unused", credential_provider=provider,
             s3_connection_options=service.options) as reader:
        service.rotate()
        assert reader.multi_get([key for key, _ in LOOKUPS]) == dict(LOOKUPS)
        assert reader.refresh() is False
        assert 2 < provider.calls <= 4


async def test_the_environment_is_a_provider_that_changes(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S3_ACCESS_KEY_ID", OLD[0])
    monkeypatch.setenv("S3_SECRET_ACCESS_KEY", OLD[1])
    async with await open_async(service, EnvCredentialProvider()) as reader:
        service.takes(NEW)
        monkeypatch.setenv("S3_ACCESS_KEY_ID", NEW[0])
        monkeypatch.setenv("S3_SECRET_ACCESS_KEY", NEW[1])
        assert await reader.multi_get([key for key, _ in LOOKUPS]) == dict(LOOKUPS)


@pytest.mark.parametrize("status, code", [(400, "ExpiredToken"), (403, "InvalidAccessKeyId"), (403, "AccessDenied"), (401, "")])
async def test_any_refusal_is_asked_about_once(service: Service, status: int, code: str) -> None:
    provider = FileProvider(service.file)
    async with await open_async(service, provider) as reader:
        service.front.plan(Fault(match="GET", status=status, code=code, times=1))
        assert await reader.refresh() is False
        assert provider.calls == 3
        service.front.plan(Fault(match="GET", status=status, code=code, times=-1))
        with pytest.raises(PermissionError):  # what has just come is refused: asking again would not help
            await reader.refresh()
        assert provider.calls == 3


async def test_static_credentials_are_not_asked_for_again(service: Service) -> None:
    provider = StaticCredentialProvider(*OLD)
    assert engine_options(None, provider) == engine_options(None, S3Credentials(*OLD))
    assert set(engine_options(None, provider) or ()) == {"access_key_id", "secret_access_key", "session_token"}
    async with await open_async(service, provider) as reader:
        service.rotate()
        with pytest.raises(PermissionError, match="SignatureDoesNotMatch"):
            await reader.refresh()


def test_who_says_nothing_leaves_it_to_the_engine(tmp_path: Path) -> None:
    provider = FileProvider(tmp_path / "keys", quiet=0, then=[S3Credentials])
    assert "credential_source" not in (engine_options(None, provider) or {})


# ---------------------------------------------------------------- ends


@dataclass(frozen=True)
class Temporary:
    access_key_id: str
    secret_access_key: str
    session_token: str | None
    expires_at: object


NOW = datetime.now(timezone.utc)


async def test_what_is_over_is_renewed_before_it_is_used(service: Service) -> None:
    over = Temporary(*WRONG, None, NOW - timedelta(seconds=1))
    provider = FileProvider(service.file, quiet=0, then=[lambda: over, lambda: over, lambda: None])
    service.front.plan()
    async with await open_async(service, provider) as reader:
        assert provider.calls == 4
        assert await reader.get(LOOKUPS[0][0]) == LOOKUPS[0][1]
    assert not [r for r in service.front.log()["requests"] if not r["answered"]]  # type: ignore[index, attr-defined]


@pytest.mark.parametrize("zone", [timezone.utc, timezone(timedelta(hours=-7))])
async def test_what_lasts_is_not_renewed(service: Service, zone: timezone) -> None:
    lasting = Temporary(*OLD, None, (NOW + timedelta(hours=1)).astimezone(zone))
    provider = FileProvider(service.file, quiet=0, then=[lambda: lasting])
    async with await open_async(service, provider) as reader:
        assert await reader.refresh() is False
    assert provider.calls == 2


@pytest.mark.parametrize("end", [NOW.replace(tzinfo=None), 1234.5, "2030-01-01T00:00:00Z"])
async def test_an_end_that_is_none(service: Service, end: object) -> None:
    provider = FileProvider(service.file, quiet=0, then=[lambda: Temporary(*OLD, None, end)])
    with pytest.raises(ConfigValidationError, match="expires_at of credentials must be a datetime with a time zone"):
        await open_async(service, provider)


# ---------------------------------------------------------------- providers that fail


@pytest.mark.parametrize(
    "act, cls, text",
    [
        (raising(RuntimeError("no\nluck")), PermissionError, "FileProvider.resolve() raised RuntimeError: no luck"),
        (raising(ConnectionError("far away")), S3TransientError, "FileProvider.resolve() raised ConnectionError: far away"),
        (raising(SystemExit(3)), PermissionError, "FileProvider.resolve() raised SystemExit: 3"),
        (raising(ValueError("\udcff \0")), PermissionError, "FileProvider.resolve() raised ValueError: ?  "),
        (raising(ValueError(f"what of {OLD[1]}?")), PermissionError, "(text withheld)"),
        (raising(MemoryError("x")), MemoryError, "out of memory"),
        (lambda: S3Credentials(), PermissionError, "FileProvider.resolve() has given no keys"),
        (lambda: S3Credentials("a", 5), PermissionError, "FileProvider.resolve() has given no keys"),  # type: ignore[arg-type]
        (lambda: S3Credentials("a", "b c"), ConfigValidationError, "the secret access key holds a blank"),
        (lambda: S3Credentials("a\0b", "c"), ConfigValidationError, "its answer cannot be used"),
        (lambda: S3Credentials("", ""), ConfigValidationError, "a key is empty"),
        (lambda: 7, PermissionError, "raised AttributeError: 'int' object has no attribute 'access_key_id'"),
        (lambda: Temporary(*NEW, None, NOW - timedelta(days=1)), PermissionError, "they have expired before they came"),
        (lambda: Temporary(*NEW, None, 5), PermissionError, "raised ConfigValidationError: expires_at of credentials"),
    ],
)
async def test_a_provider_that_fails_later(service: Service, act: Any, cls: type[Exception], text: str) -> None:
    provider = FileProvider(service.file, then=[act])
    async with await open_async(service, provider) as reader:
        service.takes(NEW)
        with pytest.raises(cls) as caught:
            await reader.refresh()
        shown = f"{caught.value} {caught.value!r} {caught.value.__cause__!r}"
        assert cls is MemoryError or (text in shown and "credentials by provider: " in shown)
        assert OLD[1] not in shown and NEW[1] not in shown
        calls = provider.calls
        with pytest.raises(cls):  # the provider rests
            await reader.refresh()
        assert provider.calls == calls == 3


async def test_a_provider_that_fails_at_once(service: Service) -> None:
    error = RuntimeError("no luck")
    with pytest.raises(RuntimeError) as caught:
        await open_async(service, FileProvider(service.file, quiet=0, then=[raising(error)]))
    assert caught.value is error


async def test_one_that_fails_and_recovers(service: Service) -> None:
    provider = FileProvider(service.file, then=[raising(RuntimeError("no luck")), lambda: None])
    async with await open_async(service, provider) as reader:
        service.rotate()
        with pytest.raises(PermissionError, match="no luck"):
            await reader.refresh()
        while True:  # it rests for a second
            try:
                assert await reader.refresh() is False
                break
            except PermissionError as error:
                assert "no luck" in str(error)
                await asyncio.sleep(0.1)
        assert provider.calls == 4


# ---------------------------------------------------------------- providers that wait


@dataclass
class Gate:
    asked: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> None:
        self.asked.set()
        self.go.wait(60)


async def test_nobody_waits_for_ever(service: Service) -> None:
    gate = Gate()
    provider = FileProvider(service.file, then=[gate])
    reader = await open_async(service, provider)
    service.rotate()
    cold = [key for key, value in LOOKUPS if value is not None]
    with pytest.raises(OperationTimeoutError):
        await reader.get(cold[0], timeout=0.2)
    task = asyncio.create_task(reader.get(cold[1]))
    await eventually(gate.asked.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    waiting = asyncio.create_task(reader.get(cold[2]))
    await asyncio.sleep(0.05)
    assert provider.calls == 3, "one question serves them all"
    gate.go.set()
    assert await waiting == dict(LOOKUPS)[cold[2]]
    await reader.close()


async def test_a_reader_goes_while_its_provider_waits(service: Service) -> None:
    gate = Gate()
    provider = FileProvider(service.file, then=[gate])
    gone = weakref.ref(provider)
    reader = await open_async(service, provider)
    service.rotate()
    task = asyncio.create_task(reader.get(LOOKUPS[0][0]))
    await eventually(gate.asked.is_set)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await reader.close()
    del reader, task, provider
    gc.collect()
    assert gone() is not None, "it is at work"
    gate.go.set()
    await eventually(lambda: gone() is None)


async def test_providers_are_let_go(service: Service) -> None:
    gone = []
    for _ in range(100):  # more than the interpreter takes notes of at once
        provider = FileProvider(service.file, quiet=1)
        store = create_s3_store("scratch", provider, service.options)  # type: ignore[arg-type]
        gone.append(weakref.ref(provider))
    del provider, store
    await eventually(lambda: all(ref() is None for ref in gone))


# ---------------------------------------------------------------- stores and writers


async def test_stores(service: Service) -> None:
    provider = FileProvider(service.file, quiet=9)
    sync = ObstoreBackend(create_s3_store("scratch", provider, service.options))  # type: ignore[arg-type]
    other = AsyncObstoreBackend(create_s3_store("scratch", provider, service.options))  # type: ignore[arg-type]
    sync.put("s3://scratch/stores/a", b"1", "text/plain")
    assert provider.calls == 2
    service.rotate()
    assert sync.head("s3://scratch/stores/a")
    sync.put("s3://scratch/stores/a", b"2", "text/plain")
    assert await other.get("s3://scratch/stores/a") == b"2"
    assert provider.calls == 4


class OwnFactory(SlateDbFactory):
    """A subclass may do anything, so the general way is taken."""


@pytest.mark.parametrize("way", ["engine", "plugged", "processes"])
def test_a_writer_survives_a_rotation(service: Service, way: str, tmp_path: Path) -> None:
    provider = FileProvider(service.file)
    prefix = f"s3://scratch/rotated-{way}"
    config = HashShardedWriteConfig(
        num_dbs=2,
        s3_prefix=prefix,
        credential_provider=provider,
        s3_connection_options=service.options,
        output=WriterOutputConfig(local_root=str(tmp_path)),
        batch_size=10,
    )
    if way != "engine":
        config.adapter_factory = OwnFactory(credential_provider=provider, s3_connection_options=service.options)

    def rows() -> Iterator[int]:
        for n in range(300):
            if n == 200:  # everything has been opened by now, in this process
                while way == "processes" and len(provider.workers()) < config.num_dbs:
                    time.sleep(0.01)
                service.rotate()
            yield n

    write_hash_sharded(
        rows(), config, PythonRecordInput(key_fn=int, value_fn=lambda n: b"%d" % n),
        PythonWriteOptions(progress=False, parallel=way == "processes"))
    assert list(provider.workers().values()) == ([2, 2] if way == "processes" else [])
    with ShardedReader(s3_prefix=prefix, local_root="unused", credential_provider=StaticCredentialProvider(*NEW),
                       s3_connection_options=service.options) as reader:
        assert reader.multi_get(list(range(300))) == {n: b"%d" % n for n in range(300)}


def test_a_writer_whose_provider_fails(service: Service, tmp_path: Path) -> None:
    config = HashShardedWriteConfig(
        num_dbs=1, s3_prefix="s3://scratch/failed", s3_connection_options=service.options,
        credential_provider=FileProvider(service.file, quiet=9, then=[raising(RuntimeError("no luck"))]),
        output=WriterOutputConfig(local_root=str(tmp_path)))

    def rows() -> Iterator[int]:
        service.takes(NEW)
        config.credential_provider.quiet = 0  # type: ignore[union-attr]
        yield 1

    with pytest.raises(ShardyfusionError, match="FileProvider.resolve\\(\\) raised RuntimeError: no luck"):
        write_hash_sharded(rows(), config, PythonRecordInput(key_fn=int, value_fn=lambda n: b"v"),
                           PythonWriteOptions(progress=False))


def test_the_dotenv_file_wins(service: Service, tmp_path: Path) -> None:
    env = tmp_path / "a.env"
    env.write_text("AWS_ACCESS_KEY_ID=file\nAWS_SECRET_ACCESS_KEY=file-secret\n")
    provider = FileProvider(service.file)
    assert "credential_source" not in (engine_options({}, provider, str(env)) or {})
    env.write_text("AWS_REGION=elsewhere\n")
    assert "credential_source" in (engine_options({}, provider, str(env)) or {})


KEYS = {"access_key_id": "a", "secret_access_key": "b", "session_token": "t"}
VARIABLES: dict[str, tuple[dict[str, Any], str, dict[str, Any]]] = {
    "a token belongs to its keys": (
        KEYS, "AWS_ACCESS_KEY_ID=x\nAWS_SECRET_ACCESS_KEY=y\n",
        {"access_key_id": "x", "secret_access_key": "y", "session_token": None},
    ),
    "whatever comes first": (
        KEYS, "AWS_SESSION_TOKEN=z\nAWS_SECRET_ACCESS_KEY=y\nAWS_ACCESS_KEY_ID=x\n",
        {"access_key_id": "x", "secret_access_key": "y", "session_token": "z"},
    ),
    "empty ones say nothing": (KEYS, "AWS_SESSION_TOKEN=\nAWS_REGION=\nAWS_VIRTUAL_HOSTED_STYLE_REQUEST=\n", KEYS),
    "the last of a name": ({"region": "r"}, "AWS_REGION=one\nAWS_REGION=two\n", {"region": "two"}),
    "places": (
        {"addressing": "path"}, "AWS_ENDPOINT_URL=http://e\nAWS_VIRTUAL_HOSTED_STYLE_REQUEST=TRUE\nAWS_REQUEST_PAYER=requester\n",
        {"addressing": "virtual", "endpoint_url": "http://e", "requester_pays": True},
    ),
    "off": ({"addressing": "virtual"}, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST=no\nAWS_REQUEST_PAYER=false\n", {"addressing": "path"}),
    "others": ({"region": "r"}, "S3_REGION=x\nAWS_DEFAULT_REGION=y\nREGION=z\n", {"region": "r"}),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIABLES)
def test_variables_of_a_dotenv_file(name: str) -> None:
    before, text, after = VARIABLES[name]
    options: Any = dict(before)
    native.take_variables(options, parse_env(text))
    assert options == after


# ---------------------------------------------------------------- the extension alone


def test_sources() -> None:
    with pytest.raises(TypeError, match="credential_source must be a CredentialSource, not int"):
        native.Store("s3://bucket", {"credential_source": 5})  # type: ignore[typeddict-item]
    with pytest.raises(TypeError):
        native.CredentialSource()  # type: ignore[call-arg]
    with pytest.raises(OverflowError):
        native.CredentialSource(lambda: (False, ""), 1 << 64)


@pytest.mark.parametrize("answer", [None, (), (1,), ("a", "b", "c"), ("a", "b", 5, 0), ("a", b"b", None, 0), (False, None)])
def test_odd_answers(answer: Any, service: Service) -> None:
    source = native.CredentialSource(lambda: answer)
    store = native.Store("s3://scratch", {"endpoint_url": service.front.endpoint, "credential_source": source})
    with pytest.raises(ConfigValidationError, match="credentials by provider: its answer cannot be used"):
        store.get("k").wait()


def test_a_provider_may_end_the_processes_that_it_starts(service: Service) -> None:
    """As on any thread of its maker's: what the engine's own block, a child would, too."""
    ended = []

    def helper() -> tuple[bool, str]:
        child = subprocess.Popen(["sleep", "60"])
        child.terminate()
        try:
            ended.append(child.wait(10))
        finally:
            child.kill()
            child.wait()
        return False, str(signal.pthread_sigmask(signal.SIG_BLOCK, []))

    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        options = {"endpoint_url": service.front.endpoint, "credential_source": native.CredentialSource(helper)}
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    with pytest.raises(PermissionError) as caught:
        native.Store("s3://scratch", options).get("k").wait()  # type: ignore[arg-type]
    assert ended == [-signal.SIGTERM]
    assert str(blocked) in str(caught.value)


# ---------------------------------------------------------------- odd moments

PRELUDE = """
import os, sys, threading, time
sys.path.insert(0, os.environ["TESTS"])
from shardyfusion.credentials import S3Credentials
from shardyfusion.storage import ObstoreBackend, BucketStore, create_s3_store
from shardyfusion.errors import ShardyfusionError
from shardyfusion._engine import native

asked = threading.Event()

def store(provider):
    return ObstoreBackend(create_s3_store("scratch", provider, {"endpoint_url": os.environ["ENDPOINT"], "region_name": "us-east-1"}))

class Hanging:
    calls = 0
    def resolve(self):
        self.calls += 1
        if self.calls > 1:
            asked.set()
            time.sleep(1000)
        return S3Credentials("an-access-key", "a-secret-key")

def reading(backend):
    def read():
        try:
            backend.get("s3://scratch/k")
        except BaseException as error:
            print("told:", error)
    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert asked.wait(30)
    return thread
"""

SCRIPTS = {
    "the interpreter ends meanwhile": (
        "backend = store(Hanging())\nreading(backend)\nprint('done')",
        "done\n",
    ),
    "and somebody reads at its very end": (
        """
class Late:
    def __init__(self): self.backend = store(Odd())
    def __del__(self):
        try:
            self.backend.get("s3://scratch/k")
        except BaseException as error:
            print("told:", str(error)[:80], flush=True)
class Odd:
    def resolve(self):
        return S3Credentials("an-access-key", "a-secret-key")
late = Late()  # goes with the main module
print("done", flush=True)
""",
        "done\ntold: get s3://scratch/k: credentials by provider: the interpreter ends",
    ),
    "a fork meanwhile": (
        """
backend = store(Hanging())
reading(backend)
pid = os.fork()
if pid == 0:
    class Plain:
        calls = 0
        def resolve(self):
            self.calls += 1
            return S3Credentials(os.environ["KEY"], os.environ["SECRET"] if self.calls > 1 else "wrong")
    try:
        store(Hanging()).get  # one more, unused
        store(Plain()).put("s3://scratch/forked", b"x", "text/plain")
        print("child wrote", flush=True)
        try:
            backend.get("s3://scratch/k")
        except ShardyfusionError as error:
            print(type(error).__name__, flush=True)
    finally:
        os._exit(0)
os.waitpid(pid, 0)
""",
        "child wrote\nForkedError\n",
    ),
    "many hang, and their stores have gone": (
        """
def ask(source, timeout=None):
    options = {"endpoint_url": os.environ["ENDPOINT"], "region": "us-east-1", "credential_source": source}
    return native.Store("s3://scratch", options).get("k", timeout).wait()

told, asked = "", 0
while "too many questions are open" not in told and asked < 2000:
    try:
        ask(native.CredentialSource(lambda: time.sleep(1000)), 0.001)
    except ShardyfusionError as error:
        told, asked = str(error), asked + 1
print(told, asked < 2000, flush=True)
pid = os.fork()
if pid == 0:
    try:
        ask(native.CredentialSource(lambda: (os.environ["KEY"], os.environ["SECRET"], None, 0)))
    except FileNotFoundError:
        print("the child was heard", flush=True)
    finally:
        os._exit(0)
os.waitpid(pid, 0)
""",
        "open that nobody waits for any more True\nthe child was heard\n",
    ),
    "it reads with the engine itself, which has one worker": (
        """
folder = os.environ["FOLDER"]
class Stored:
    calls = 0
    def resolve(self):
        self.calls += 1
        if self.calls == 1:
            return S3Credentials("an-access-key", "a-secret-key")
        files = BucketStore(f"file://{folder}").objects
        return S3Credentials(*files.get(f"{folder}/keys".lstrip("/")).wait().decode().split())
open(f"{folder}/keys", "w").write(os.environ["KEY"] + " " + os.environ["SECRET"])
backend = store(Stored())
backend.put("s3://scratch/by-itself", b"x", "text/plain")
print("read", backend.get("s3://scratch/by-itself"))
""",
        "read b'x'\n",
    ),
    "it reads what it is to bring the keys for": (
        """
class Selfish:
    backend = None
    def resolve(self):
        if self.backend:
            self.backend._store.objects.get("k", 0.2).wait()
        return S3Credentials("an-access-key", "a-secret-key")
provider = Selfish()
provider.backend = backend = store(provider)
try:
    backend.get("s3://scratch/k")
except ShardyfusionError as error:
    print(error)
""",
        "credentials by provider: Selfish.resolve() raised OperationTimeoutError: ",
    ),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_odd_moments(name: str, service: Service, tmp_path: Path) -> None:
    script, said = SCRIPTS[name]
    environment = {
        **os.environ, "ENDPOINT": service.front.endpoint, "KEY": OLD[0], "SECRET": OLD[1], "FOLDER": str(tmp_path),
        "UV_THREADPOOL_SIZE": "1", "TESTS": str(Path(__file__).parent),
    }
    done = subprocess.run([sys.executable, "-c", PRELUDE + script], env=environment, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout, done.stdout + done.stderr
