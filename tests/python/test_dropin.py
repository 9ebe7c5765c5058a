"""What code written for the existing package sees of ours, side by side: one table a kind."""

from __future__ import annotations

import logging
import math
import pickle
from collections import namedtuple
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shardyfusion import (
    CelShardedWriteConfig,
    ConfigValidationError,
    DbAdapterError,
    HashShardedWriteConfig,
    InMemoryManifestStore,
    KeyValueWriteConfig,
    ManifestParseError,
    ParsedManifest,
    PythonRecordInput,
    RetryConfig,
    ShardedReader,
    ShardHashAlgorithm,
    SlateDbFactory,
    SlateDbReaderFactory,
    SparkWriteOptions,
    ValueSpec,
    WriterManifestConfig,
)
from shardyfusion.cel import cel_sharding
from shardyfusion.config import CelShardingConfig
from shardyfusion.manifest_store import parse_manifest_payload, parse_sqlite_manifest
from shardyfusion.ordering import compare_ordered
from shardyfusion.routing import canonical_bytes, hash_db_id, xxh3_db_id
from shardyfusion.serde import make_key_encoder
from shardyfusion.sharding_types import CelShardingSpec, HashShardingSpec, validate_routing_values
from shardyfusion.sqlite_adapter import SqliteFactory
from shardyfusion.sqlite_page_size import CellShape, recommend_page_size, recommend_page_size_for_cells
from shardyfusion.testing import fake_adapter_factory
from shardyfusion.writer.python import write_cel_sharded, write_hash_sharded

# ---------------------------------------------------------------- sharding specs

CEL = {"cel_expr": "r", "cel_columns": {"r": "string"}}
BAD_ROUTING_VALUES: dict[str, list[Any]] = {
    "null": ["a", None],
    "only null": [None],
    "duplicate": ["a", "a"],
    "boolean": [True, False],
    "boolean among integers": [2, True],
    "mixed": ["a", 1],
    "text and bytes": ["a", b"b"],
    "float": [1.0, 2.0],
    "a list": [["a"]],
}
BAD_SPECS: dict[str, tuple[Callable[[], object], str]] = {
    "no keys in a shard": (lambda: HashShardingSpec(max_keys_per_shard=0), "max_keys_per_shard must be > 0"),
    "fewer than none": (lambda: HashShardingSpec(max_keys_per_shard=-1), "max_keys_per_shard must be > 0"),
    "a truth": (lambda: HashShardingSpec(max_keys_per_shard=True), "max_keys_per_shard must be > 0"),
    "unknown algorithm": (
        lambda: HashShardingSpec("md5"),  # type: ignore[arg-type]
        "Unsupported shard hash algorithm: 'md5'. Allowed: xxh3_64",
    ),
    "nothing": (lambda: CelShardingSpec(), "CEL strategy requires cel_expr"),
    "empty cel_expr": (lambda: CelShardingSpec("", {"r": "int"}), "CEL strategy requires cel_expr"),
    "empty cel_columns": (lambda: CelShardingSpec("r", {}), "CEL strategy requires cel_columns"),
    "values and inferred": (
        lambda: CelShardingSpec(**CEL, routing_values=["a"], infer_routing_values_from_data=True),  # type: ignore[arg-type]
        "infer_routing_values_from_data cannot be combined with routing_values",
    ),
    "empty expression for cel_sharding": (lambda: cel_sharding("", {"r": "int"}), "CEL strategy requires cel_expr"),
}


@pytest.mark.parametrize("case", BAD_SPECS)
def test_sharding_specs_are_validated(case: str) -> None:
    make, text = BAD_SPECS[case]
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value) == text


@pytest.mark.parametrize("case", BAD_ROUTING_VALUES)
def test_routing_values_are_validated(case: str) -> None:
    values = BAD_ROUTING_VALUES[case]
    for use in (
        validate_routing_values,
        lambda values: CelShardingSpec(**CEL, routing_values=values),  # type: ignore[arg-type]
        lambda values: CelShardingConfig(**CEL, routing_values=values).validate(),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="^routing_values must ") as caught:
            use(values)
        assert isinstance(caught.value, ConfigValidationError), "as configurations raise it"


def test_sharding_specs_in_manifests() -> None:
    cel = {"strategy": "cel", "cel_expr": "r", "cel_columns": {"r": "string"}, "hash_algorithm": "xxh3_64"}
    assert HashShardingSpec().to_manifest_dict() == {"strategy": "hash", "hash_algorithm": "xxh3_64"}
    by_text = HashShardingSpec("xxh3_64", max_keys_per_shard=5)  # type: ignore[arg-type]
    assert by_text.hash_algorithm is ShardHashAlgorithm.XXH3_64
    assert by_text.to_manifest_dict() == HashShardingSpec().to_manifest_dict()
    assert CelShardingSpec(**CEL).to_manifest_dict() == cel, "no routing_values where there are none"  # type: ignore[arg-type]
    for values in ([], [1, 2], ["b", "a"], [b"x"]):
        spec = CelShardingSpec(**CEL, routing_values=values)  # type: ignore[arg-type]
        assert spec.to_manifest_dict() == {**cel, "routing_values": values}
        assert pickle.loads(pickle.dumps(spec)) == spec
    validate_routing_values(["a", "a"], require_unique=False)


# ---------------------------------------------------------------- keys and values

Row = namedtuple("Row", "a t")


@pytest.mark.parametrize(
    ("columns", "row", "value"),
    [
        (["t", "a"], {"a": 1, "t": "ä", "other": 2}, b'{"a":1,"t":"\\u00e4"}'),
        (["a", "gone"], {"a": 1}, b'{"a":1,"gone":null}'),
        (["a", "gone"], Row(1, "x"), b'{"a":1,"gone":null}'),
        (None, {"b": 1, "a": ["\u2028", "\U0001f600"]}, b'{"a":["\\u2028","\\ud83d\\ude00"],"b":1}'),
        ([], {"b": 1}, b"{}"),
    ],
)
def test_stored_json(columns: list[str] | None, row: object, value: bytes) -> None:
    assert ValueSpec.json_cols(columns).encode(row) == value


def test_descriptions_of_values() -> None:
    assert ValueSpec.binary_col("data").description == "binary_col:data"
    assert ValueSpec.json_cols(["a", "b"]).description == "json_cols:a,b"
    assert ValueSpec.json_cols().description == "json_cols:all"


@pytest.mark.parametrize("error", [ValueError, ConfigValidationError])
def test_an_encoder_of_no_encoding(error: type[Exception]) -> None:
    with pytest.raises(error, match="^Unsupported key encoding: 'bogus'. Allowed: u64be, u32be, utf8, raw$"):
        make_key_encoder("bogus")  # type: ignore[arg-type]
    assert make_key_encoder("u32be")(5) == b"\0\0\0\5"  # type: ignore[arg-type]


def test_bytes_route_as_they_are() -> None:
    key = b"user-1"
    assert canonical_bytes(key) is key
    changing = bytearray(key)
    routed = canonical_bytes(changing)
    changing[0] = 0
    assert routed == key and type(routed) is bytes


@pytest.mark.parametrize("num_dbs", [0, -1, -(2**70)])
def test_shards_that_cannot_be_counted(num_dbs: int) -> None:
    for route in (xxh3_db_id, hash_db_id):
        with pytest.raises(ValueError, match=f"^num_dbs must be positive, got {num_dbs}$"):
            route("a", num_dbs)
        with pytest.raises(ValueError, match="^num_dbs must be at most 4294967295, got "):
            route("a", 2**32 - num_dbs)


def test_comparing_keys() -> None:
    cases = [(1, 2, -1), (2, 2, 0), ("b", "a", 1), (b"a", b"aa", -1)]
    for left, right, order in cases:
        assert compare_ordered(left, right, mismatch_message="") == order
    with pytest.raises(ValueError, match="^mixed$"):
        compare_ordered("a", b"a", mismatch_message="mixed")


# ---------------------------------------------------------------- manifests


@pytest.mark.parametrize("payload", [b"", b"x", b"SQLite format 3\0", b"SQLite format 3\0" + bytes(4080)])
def test_no_manifest(payload: bytes) -> None:
    for parse in (parse_manifest_payload, parse_sqlite_manifest):
        with pytest.raises(ManifestParseError, match="^(Unsupported manifest format: |Failed to read SQLite manifest tables: )"):
            parse(payload)


# ---------------------------------------------------------------- page sizes

BAD_SIZES: dict[str, tuple[Callable[[], object], str]] = {
    "a negative value": (lambda: recommend_page_size(p95_value_bytes=-1), "p95_value_bytes must be >= 0, got -1"),
    "a negative key": (
        lambda: recommend_page_size(p95_value_bytes=1, max_key_bytes=-2),
        "max_key_bytes must be >= 0, got -2",
    ),
    "no cells": (lambda: recommend_page_size_for_cells([]), "cells must not be empty"),
    "a negative cell": (
        lambda: recommend_page_size_for_cells([CellShape(1, 1), CellShape(-3, 1)]),
        "payload_bytes must be >= 0, got -3",
    ),
}


@pytest.mark.parametrize("case", BAD_SIZES)
def test_sizes_that_cannot_be(case: str) -> None:
    make, text = BAD_SIZES[case]
    for error in (ValueError, ConfigValidationError):
        with pytest.raises(error) as caught:
            make()
        assert str(caught.value) == text


@pytest.mark.parametrize("page_size", [8192, "auto"])
def test_page_sizes_that_contradict(page_size: Any) -> None:
    both = {"adapter_factory": SqliteFactory(page_size=page_size), "profile_value_sizes_for_page_size": True}
    with pytest.raises(ConfigValidationError, match="^kv.profile_value_sizes_for_page_size=True conflicts with "):
        KeyValueWriteConfig(**both).validate()
    with pytest.raises(ConfigValidationError, match=f"page_size={page_size!r}"):
        HashShardedWriteConfig(num_dbs=1, s3_prefix="s3://b/p", kv=KeyValueWriteConfig(**both))
    for one in (
        KeyValueWriteConfig(adapter_factory=SqliteFactory(page_size=page_size)),
        KeyValueWriteConfig(adapter_factory=SqliteFactory(), profile_value_sizes_for_page_size=True),
        KeyValueWriteConfig(profile_value_sizes_for_page_size=True),
    ):
        one.validate()


# ---------------------------------------------------------------- what a writer logs

RUN = {"run_id"}
SHARD = RUN | {"db_id", "attempt"}
WRITER_EVENTS: dict[str, set[str]] = {
    "write_started": RUN | {"num_dbs", "s3_prefix", "strategy", "key_encoding", "writer_type"},
    "shard_write_started": SHARD,
    "shard_write_completed": SHARD | {"db_url", "row_count", "db_bytes", "duration_ms"},
    "shard_writes_completed": RUN | {"duration_ms", "rows_written"},
    "winner_selected": SHARD | {"db_url", "row_count"},
    "manifest_published": RUN | {"manifest_ref"},
    "write_completed": RUN | {"num_dbs", "num_winners", "rows_written", "manifest_ref", "duration_ms"},
}
BY_ITSELF = ["shard_write_completed", "shard_writes_completed", "winner_selected", "manifest_published", "write_completed"]


def with_adapters(backend: str) -> list[str]:
    return ["opened", "sealed", "closed"] if backend else []


class Wrapped:
    """No class of ours: takes the general way."""

    def __init__(self, factory: Any) -> None:
        self.factory = factory

    def __call__(self, *, db_url: str, local_dir: Path) -> Any:
        return self.factory(db_url=db_url, local_dir=local_dir)


@pytest.mark.parametrize(
    ("factory", "adapter"),
    [
        (SlateDbFactory(), ""),
        (SqliteFactory(), ""),
        (Wrapped(SlateDbFactory()), "slatedb"),
        (Wrapped(SqliteFactory()), "sqlite"),
        (fake_adapter_factory, ""),
    ],
    ids=["engine", "engine, sqlite", "adapter", "adapter, sqlite", "fake"],
)
def test_events_of_a_writer(factory: Any, adapter: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = HashShardedWriteConfig(num_dbs=1, s3_prefix=tmp_path.as_uri() + "/p", adapter_factory=factory)
    config.output.local_root = str(tmp_path / "local")
    with caplog.at_level(logging.DEBUG, logger="shardyfusion"):
        result = write_hash_sharded([1, 2], config, PythonRecordInput(key_fn=lambda n: n, value_fn=lambda n: b"v"))
    records = [r for r in caplog.records if r.name == "shardyfusion.writer.python.writer"]
    started = ["write_started"] if type(factory) in (SlateDbFactory, SqliteFactory) else ["write_started", "shard_write_started"]
    assert [r.message for r in records] == started + BY_ITSELF
    fields = {r.message: r.shardyfusion for r in records}  # type: ignore[attr-defined]
    for event, given in fields.items():
        assert set(given) >= WRITER_EVENTS[event], event
    assert {r.levelno for r in records} == {logging.INFO}
    winner = result.winners[0]
    assert fields["winner_selected"].items() >= {
        "run_id": result.run_id, "db_id": 0, "attempt": 0, "db_url": winner.db_url, "row_count": 2
    }.items()
    assert fields["write_started"]["strategy"] == "hash" and fields["write_started"]["key_encoding"] == "u64be"
    assert fields["write_completed"]["manifest_ref"] == result.manifest_ref

    told = [r for r in caplog.records if r.name == f"shardyfusion.{adapter}_adapter"]
    assert [r.message for r in told] == [f"{adapter}_adapter_{what}" for what in with_adapters(adapter)]
    assert {(r.levelno, r.shardyfusion["db_url"]) for r in told} <= {(logging.DEBUG, winner.db_url)}  # type: ignore[attr-defined]


def test_a_sealed_shard_takes_nothing_more(tmp_path: Path) -> None:
    adapter = SlateDbFactory()(db_url=tmp_path.as_uri() + "/shard", local_dir=tmp_path / "local")
    adapter.write_batch([(b"k", b"v")])
    adapter.seal()
    for work in (adapter.seal, lambda: adapter.write_batch([(b"l", b"v")])):
        with pytest.raises(DbAdapterError, match="^Failed to write the shard at 'file://.*it is finished$"):
            work()
    adapter.close()
    adapter.close()
    url: Any = {"db_url": tmp_path.as_uri() + "/shard", "local_dir": tmp_path, "checkpoint_id": None, "manifest": None}
    shard = SlateDbReaderFactory()(**url)
    assert list(shard.scan_iter()) == [(b"k", b"v")]
    shard.close()


def test_a_missing_env_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    missing = str(tmp_path / "gone.env")
    config = HashShardedWriteConfig(
        num_dbs=2, s3_prefix=tmp_path.as_uri() + "/p", adapter_factory=SlateDbFactory(env_file=missing)
    )
    write_hash_sharded([1, 2, 3], config, PythonRecordInput(key_fn=lambda n: n, value_fn=lambda n: b"v"))
    told = [r for r in caplog.records if r.message == "env_file_unreadable"]
    assert [(r.name, r.levelno) for r in told] == [("shardyfusion.credentials", logging.WARNING)]
    assert told[0].shardyfusion["env_file"] == missing  # type: ignore[attr-defined]


# ---------------------------------------------------------------- arguments of a writer


@pytest.mark.parametrize(
    ("write", "arguments", "text"),
    [
        (write_hash_sharded, {"config": None}, "config must be HashShardedWriteConfig, not NoneType"),
        (write_hash_sharded, {"config": "cel"}, "config must be HashShardedWriteConfig, not CelShardedWriteConfig"),
        (write_cel_sharded, {}, "config must be CelShardedWriteConfig, not HashShardedWriteConfig"),
        (write_hash_sharded, {"input": None}, "input must be PythonRecordInput, not NoneType"),
        (write_cel_sharded, {"config": "cel", "input": 5}, "input must be PythonRecordInput, not int"),
        (write_hash_sharded, {"options": 5}, "options must be PythonWriteOptions, not int"),
        (write_hash_sharded, {"options": SparkWriteOptions()}, "options must be PythonWriteOptions, not SparkWriteOptions"),
        (write_cel_sharded, {"config": "cel", "options": {}}, "options must be PythonWriteOptions, not dict"),
    ],
)
def test_arguments_of_another_class(write: Any, arguments: dict[str, Any], text: str, tmp_path: Path) -> None:
    prefix = tmp_path.as_uri() + "/p"
    cel = CelShardedWriteConfig(**CEL, s3_prefix=prefix)  # type: ignore[arg-type]
    given = {
        "config": HashShardedWriteConfig(num_dbs=1, s3_prefix=prefix),
        "input": PythonRecordInput(key_fn=int, value_fn=bytes),
        "options": None,
        **arguments,
    }
    if given["config"] == "cel":
        given["config"] = cel
    with pytest.raises(ConfigValidationError) as caught:
        write([], **given)
    assert str(caught.value) == text
    assert not list(tmp_path.iterdir()), "nothing was stored"


@pytest.mark.parametrize("factory", [SlateDbFactory(), Wrapped(SlateDbFactory())], ids=["engine", "adapter"])
def test_custom_fields(factory: Any, tmp_path: Path) -> None:
    def write(fields: dict[str, Any], store: Any = None) -> str:
        manifest = WriterManifestConfig(store=store, custom_manifest_fields=fields)
        config = HashShardedWriteConfig(
            num_dbs=1, s3_prefix=tmp_path.as_uri() + "/p", adapter_factory=factory, manifest=manifest
        )
        return write_hash_sharded([1], config, PythonRecordInput(key_fn=int, value_fn=lambda n: b"v")).manifest_ref

    with pytest.raises(ConfigValidationError, match="^manifest.custom_manifest_fields cannot be stored as JSON: "):
        write({"a": object()})
    assert not list(tmp_path.glob("p/shards/*")), "before any row"

    ref = write({"ä": [math.nan, math.inf, "\u2028"]})
    custom = ParsedManifest.model_validate(parse_manifest_payload(Path(ref.removeprefix("file://")).read_bytes())).custom
    assert math.isnan(custom["ä"][0]) and custom["ä"][1:] == [math.inf, "\u2028"]

    store, kept = InMemoryManifestStore(), object()
    assert store.load_manifest(write({"a": kept}, store)).custom["a"] is kept, "what another store is given is its own business"


# ---------------------------------------------------------------- readers


def test_a_factory_for_the_other_backend(tmp_path: Path) -> None:
    place = {"s3_prefix": tmp_path.as_uri() + "/p", "local_root": str(tmp_path / "local")}
    config = HashShardedWriteConfig(num_dbs=1, s3_prefix=place["s3_prefix"], adapter_factory=SqliteFactory())
    result = write_hash_sharded([1], config, PythonRecordInput(key_fn=lambda n: n, value_fn=lambda n: b"v"))
    with pytest.raises(ConfigValidationError, match="SQLite shards are not supported .* for SlateDB"):
        ShardedReader(**place, reader_factory=SlateDbReaderFactory())
    url = result.winners[0].db_url
    assert url is not None
    with pytest.raises(DbAdapterError, match="^Failed to open SlateDB at .* SQLite shards are not supported .* for SlateDB"):
        SlateDbReaderFactory()(db_url=url, local_dir=tmp_path, checkpoint_id=None, manifest=None)  # type: ignore[arg-type]
    with ShardedReader(**place) as reader:
        assert reader.get(1) == b"v"


# ---------------------------------------------------------------- retries


def test_the_multiplier_reaches_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How long it then waits: tests/unit/writer/partition_test.c, test_backoff."""
    given: list[dict[str, Any]] = []

    class Stop(Exception):
        pass

    def writer(prefix: str, options: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        given.append(options)
        raise Stop

    monkeypatch.setattr("shardyfusion.writer._native_build.native.Writer", writer)
    for retry in (None, RetryConfig(5000, timedelta(milliseconds=1500), 3)):
        config = HashShardedWriteConfig(num_dbs=1, s3_prefix=tmp_path.as_uri() + "/p", shard_retry=retry)
        with pytest.raises(Stop):
            write_hash_sharded([1], config, PythonRecordInput(key_fn=lambda n: n, value_fn=lambda n: b"v"))
    names = ("max_retries", "retry_base_ms", "retry_multiplier")
    assert [[options[name] for name in names] for options in given] == [[0, 0, 2.0], [1000, 1500, 3]]
