"""The golden vectors, through the package's own functions."""

from __future__ import annotations

import base64
import json
import sqlite3
import zlib
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from fixtures import case, typed, vectors

from shardyfusion import ConfigValidationError, KeyEncoding, ManifestParseError, ShardingStrategy
from shardyfusion._engine import native
from shardyfusion._formats import microseconds
from shardyfusion._manifest_objects import run_id_of_ref
from shardyfusion.cel import CelColumn, CelType, cel_sharding_by_columns
from shardyfusion.manifest import ParsedManifest, SqliteManifestBuilder
from shardyfusion.manifest_store import (
    parse_current_pointer_to_ref,
    parse_manifest_dir_entry,
    parse_manifest_payload,
)
from shardyfusion.routing import (
    canonical_bytes,
    hash_db_id,
    hash_digest,
    make_hash_router,
    make_lookup_encoder,
    xxh3_db_id,
    xxh3_digest,
)
from shardyfusion.serde import make_key_encoder

NUM_DBS = vectors("routing")["num_dbs"]


def test_routing() -> None:
    for one in vectors("routing")["cases"]:
        key = typed(one["key"])
        assert canonical_bytes(key).hex() == one["canonical"], one
        assert f"{xxh3_digest(key):016x}" == one["xxh3_64"], one
        assert hash_digest(key) == xxh3_digest(key)
        for num_dbs, db_id in zip(NUM_DBS, one["db_id"], strict=True):
            assert xxh3_db_id(key, num_dbs) == db_id, one
            assert hash_db_id(key, num_dbs, "xxh3_64") == db_id
            assert make_hash_router(num_dbs)(key) == db_id


@pytest.mark.parametrize("one", vectors("routing")["errors"], ids=lambda one: str(one["key"]))
def test_keys_that_cannot_be_routed(one: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:
        canonical_bytes(typed(one["key"]))
    assert type(caught.value).__name__ == one["error"]


def test_texts_of_routing_errors() -> None:
    for key, text in {
        2**63: "Integer key 9223372036854775808 out of range [-9223372036854775808, 9223372036854775807]",
        1.5: "Unsupported key type for hashing: <class 'float'>",
        None: "Unsupported key type for hashing: <class 'NoneType'>",
    }.items():
        with pytest.raises(ValueError) as caught:
            canonical_bytes(key)  # type: ignore[arg-type]
        assert str(caught.value) == text
    with pytest.raises(ValueError, match="num_dbs must be positive, got 0"):
        make_hash_router(0)
    with pytest.raises(ValueError, match=r"Unsupported key_type 'float'; expected one of \['bytes', 'int', 'str'\]"):
        make_hash_router(1, key_type="float")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Unsupported shard hash algorithm: 'md5'. Allowed: xxh3_64"):
        hash_digest(1, "md5")
    assert canonical_bytes(bytearray(b"ab")) == b"ab"
    assert type(canonical_bytes(bytearray(b"ab"))) is bytes


KEY_CASES = vectors("key_encoding")["cases"]


def outcome(encode: Callable[[Any], bytes], key: Any) -> tuple[str, str]:
    try:
        return "bytes", encode(key).hex()
    except (ValueError, ConfigValidationError) as error:
        return type(error).__name__, str(error)


@pytest.mark.parametrize("side", ["write", "lookup"])
def test_stored_keys(side: str) -> None:
    for one in KEY_CASES:
        make = make_key_encoder if side == "write" else make_lookup_encoder
        encode = make(KeyEncoding(one["encoding"]))
        key, wanted = typed(one["key"]), one[side]
        if isinstance(key, bytearray):  # refused by the package that made the vectors: here it is its bytes
            assert outcome(encode, key) == outcome(encode, bytes(key)), one
            continue
        if "bytes" in wanted:
            assert encode(key).hex() == wanted["bytes"], one
            assert type(encode(key)) is bytes
            continue
        with pytest.raises((ValueError, ConfigValidationError)) as caught:
            encode(key)
        assert type(caught.value).__name__ == wanted["error"], one


def test_texts_of_encoding_errors() -> None:
    for encoding, key, cls, text in [
        ("u64be", -1, ConfigValidationError, "u64be encoding requires value in [0, 2^64-1]"),
        ("u64be", 2**64, ConfigValidationError, "u64be encoding requires value in [0, 2^64-1]"),
        ("u64be", "a", ValueError, "u64be key encoding requires integer lookup keys"),
        ("u64be", 1.5, ValueError, "u64be key encoding requires integer lookup keys"),
        ("u64be", b"a", ValueError, "u64be key bytes must have length 8"),
        ("u32be", 2**32, ConfigValidationError, "u32be encoding requires value in [0, 2^32-1]"),
        ("u32be", "a", ValueError, "u32be key encoding requires integer lookup keys"),
        ("u32be", b"a", ValueError, "u32be key bytes must have length 4"),
        ("utf8", 1, ConfigValidationError, "utf8 encoding expects str or bytes key, got <class 'int'>"),
        ("utf8", [], ConfigValidationError, "utf8 encoding expects str or bytes key, got <class 'list'>"),
        ("u64be", bytearray(b"a"), ValueError, "u64be key bytes must have length 8"),
        ("raw", 1, ConfigValidationError, "raw encoding expects bytes or str key, got <class 'int'>"),
    ]:
        with pytest.raises(cls) as caught:
            native.encode_key(encoding, key)  # type: ignore[arg-type]
        assert type(caught.value) is cls
        assert str(caught.value) == text


@pytest.mark.parametrize("one", vectors("key_encoding")["names"], ids=lambda one: one["name"])
def test_names_of_encodings(one: dict[str, Any]) -> None:
    if "ok" in one:
        assert KeyEncoding.from_value(one["name"]) == one["ok"]
        assert KeyEncoding.from_value(KeyEncoding(one["ok"])) is KeyEncoding(one["ok"])
        return
    with pytest.raises(ValueError) as caught:
        KeyEncoding.from_value(one["name"])
    assert str(caught.value) == f"Unsupported key encoding: {one['name']!r}. Allowed: u64be, u32be, utf8, raw"


@pytest.mark.parametrize("one", vectors("current_pointer")["cases"], ids=lambda one: one["name"])
def test_pointer(one: dict[str, Any]) -> None:
    payload = bytes.fromhex(one["hex"]) if one.get("hex") is not None else one["text"].encode("utf-8", "surrogatepass")
    if "ok" not in one:
        with pytest.raises(ManifestParseError, match="CURRENT pointer validation failed"):
            parse_current_pointer_to_ref(payload)
        return
    ref = parse_current_pointer_to_ref(payload)
    wanted = one["ok"]
    assert (ref.ref, ref.run_id) == (wanted["manifest_ref"], wanted["run_id"])
    assert ref.published_at == datetime.fromisoformat(wanted["updated_at"])


@pytest.mark.parametrize("one", vectors("current_pointer")["written"], ids=lambda one: one["manifest_ref"])
def test_pointer_as_written(one: dict[str, Any]) -> None:
    pointer = json.loads(one["payload_with_now"])
    now = datetime.fromisoformat(pointer["updated_at"])
    written = native.format_current(
        one["manifest_ref"], pointer["manifest_content_type"], one["run_id"], microseconds(now))
    assert written.decode() == one["payload_with_now"]


@pytest.mark.parametrize("one", vectors("manifest_names")["dirs"], ids=lambda one: one["dir_name"])
def test_folder_names(one: dict[str, Any]) -> None:
    ref = parse_manifest_dir_entry(one["dir_name"], "s3://bucket/p", "manifest")
    wanted = one.get("ok")
    if wanted is None:
        assert ref is None
        return
    assert ref is not None
    assert (ref.ref, ref.run_id, ref.published_at) == (
        wanted["ref"], wanted["run_id"], datetime.fromisoformat(wanted["published_at"]))


def test_run_of_a_reference() -> None:
    assert run_id_of_ref("s3://b/run_id=x/manifests/2026-01-01T00:00:00.000000Z_run_id=y/manifest") == "y"
    with pytest.raises(ValueError, match="Cannot extract run_id from manifest ref: s3://b/x"):
        run_id_of_ref("s3://b/x")


MANIFESTS = vectors("manifest_parse")["cases"]


def payload_of(one: dict[str, Any]) -> bytes:
    return zlib.decompress(base64.b64decode(one["payload_zlib_b64"]))


# The peer takes these, and then runs out of memory, or asks storage for a name that none can have.
REFUSED_ON_PURPOSE = {"num_dbs 3000000000", "db_url number"}


@pytest.mark.parametrize("one", MANIFESTS, ids=lambda one: one["name"])
def test_manifest(one: dict[str, Any]) -> None:
    if "ok" not in one or one["name"] in REFUSED_ON_PURPOSE:
        with pytest.raises(ManifestParseError):
            parse_manifest_payload(payload_of(one))
        return
    check(parse_manifest_payload(payload_of(one)), one["ok"])


def check(manifest: ParsedManifest, wanted: dict[str, Any]) -> None:
    build = manifest.required_build
    for name in ("run_id", "num_dbs", "s3_prefix", "key_col", "format_version", "db_path_template", "shard_prefix"):
        assert getattr(build, name) == wanted[name], name
    created = build.created_at if build.created_at.tzinfo else build.created_at.replace(tzinfo=timezone.utc)
    expected = datetime.fromisoformat(wanted["created_at"])
    assert created == (expected if expected.tzinfo else expected.replace(tzinfo=timezone.utc))
    assert build.key_encoding == wanted["key_encoding"]
    sharding = build.sharding
    assert sharding.strategy is ShardingStrategy(wanted["sharding"]["strategy"])
    assert sharding.cel_expr == wanted["sharding"]["cel_expr"]
    assert sharding.cel_columns == wanted["sharding"]["cel_columns"]
    values = wanted["sharding"]["routing_values"]
    assert sharding.routing_values == (
        None if values is None else [typed(v) if isinstance(v, dict) else v for v in values])
    assert manifest.custom == wanted["custom"]
    assert len(manifest.shards) == len(wanted["shards"])
    for shard, row in zip(manifest.shards, wanted["shards"], strict=True):
        for name in ("db_id", "db_url", "attempt", "row_count", "db_bytes", "checkpoint_id"):
            assert getattr(shard, name) == row[name], name
        for name in ("min_key", "max_key"):
            assert getattr(shard, name) == (None if row[name] is None else typed(row[name])), name


def hostile(*statements: str) -> bytes:
    con = sqlite3.connect(":memory:")
    con.deserialize(payload_of(MANIFESTS[0]))
    for statement in statements:
        con.execute(statement)
    con.commit()
    payload = con.serialize()
    con.close()
    return payload


NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"


@pytest.mark.parametrize(
    "statements",
    [
        ["ALTER TABLE shards RENAME TO s", f"CREATE VIEW shards AS {NUMBERS} SELECT s.* FROM s, n"],
        ["ALTER TABLE shards RENAME TO s",
         "CREATE VIEW shards AS SELECT a.* FROM s a" + "".join(f", s b{n}" for n in range(40))],
        ["ALTER TABLE shards RENAME TO s",
         "CREATE VIEW shards AS SELECT db_id, hex(zeroblob(1000000000)) AS db_url, attempt, row_count, db_bytes, "
         "min_key, max_key, checkpoint_id, writer_info FROM s"],
        ["UPDATE build_meta SET sharding = '" + "[" * 100_000 + "'"],
    ],
    ids=["recursion", "joins", "functions", "nesting"],
)
def test_hostile_manifests_are_refused_soon(statements: list[str]) -> None:
    with pytest.raises(ManifestParseError):
        parse_manifest_payload(hostile(*statements))


GOOD = [one for one in MANIFESTS if "ok" in one and not one.get("sql")]


@pytest.mark.parametrize("one", GOOD, ids=lambda one: one["name"])
def test_manifests_are_built_as_they_are_read(one: dict[str, Any]) -> None:
    manifest = parse_manifest_payload(payload_of(one))
    artifact = SqliteManifestBuilder().build(
        required_build=manifest.required_build, shards=manifest.shards, custom_fields=manifest.custom)
    assert artifact.content_type == "application/x-sqlite3"
    assert artifact.payload[:16] == b"SQLite format 3\0"
    assert parse_manifest_payload(artifact.payload) == manifest


def test_manifest_cells_are_the_bytes_of_the_format() -> None:
    manifest = parse_manifest_payload(payload_of(MANIFESTS[0]))
    built = SqliteManifestBuilder().build(
        required_build=manifest.required_build, shards=manifest.shards, custom_fields=manifest.custom)

    def rows(payload: bytes) -> list[Any]:
        con = sqlite3.connect(":memory:")
        con.deserialize(payload)
        tables = [con.execute(f"SELECT * FROM {table}").fetchall() for table in ("build_meta", "shards")]
        names = [[c[1:3] for c in con.execute(f"PRAGMA table_info({table})")] for table in ("build_meta", "shards")]
        con.close()
        return [tables, names]

    assert rows(built.payload) == rows(payload_of(MANIFESTS[0]))


def test_bounds_that_json_cannot_hold_are_left_out() -> None:
    manifest = parse_manifest_payload(payload_of(MANIFESTS[0]))
    manifest.shards[0].min_key = b"\xff\xfe"
    built = SqliteManifestBuilder().build(
        required_build=manifest.required_build, shards=manifest.shards, custom_fields={})
    again = parse_manifest_payload(built.payload)
    assert (again.shards[0].min_key, again.shards[0].max_key) == (None, None)
    assert again.shards[1].max_key == manifest.shards[1].max_key


@pytest.mark.parametrize("one", vectors("cel")["by_columns"], ids=lambda one: str(one)[:60])
def test_expressions_from_columns(one: dict[str, Any]) -> None:
    columns = [CelColumn(c["name"], CelType(c["type"])) for c in one["columns"]]
    if "error" in one:
        with pytest.raises(ConfigValidationError):
            cel_sharding_by_columns(*columns, **one["options"])
        return
    spec = cel_sharding_by_columns(*columns, **one["options"])
    assert (spec.cel_expr, spec.cel_columns) == (one["cel_expr"], one["cel_columns"])
    assert spec.infer_routing_values_from_data is one["infer"]


def test_the_golden_manifests_parse_alike() -> None:
    for name in ("slatedb-hash-u64be", "slatedb-str-utf8", "slatedb-cel-categorical", "sqlite-sidecar"):
        c = case(name)
        ref = parse_current_pointer_to_ref((c.folder / "_CURRENT").read_bytes())
        path = c.folder / "manifests" / ref.ref.split("/manifests/")[1]
        manifest = parse_manifest_payload(path.read_bytes())
        assert manifest.required_build.num_dbs == c.expected["num_dbs"]
        assert manifest.custom == c.expected["custom"]
        assert [s.db_url for s in manifest.shards] == [s["db_url"] for s in c.expected["shards"]]
