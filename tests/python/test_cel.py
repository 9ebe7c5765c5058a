"""CEL: the golden expressions, and snapshots that are sharded by one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fixtures import CEL, Case, typed, vectors
from plugged import Limiter

from shardyfusion import AsyncShardedReader, ConfigValidationError, ShardedReader
from shardyfusion._formats import parse_manifest_payload
from shardyfusion.cel import (
    CompiledCel,
    UnknownRoutingTokenError,
    compile_cel,
    compile_cel_cached,
    resolve_cel_routing_key,
    route_cel,
)
from shardyfusion.manifest import ParsedManifest
from shardyfusion.routing import SnapshotRouter
from shardyfusion.testing import ListMetricsCollector

CASES = vectors("cel")["cases"]


def context_of(values: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if values is None else {name: typed(value) for name, value in values.items()}


@pytest.mark.parametrize("one", CASES, ids=lambda one: ascii(one["expr"])[:50])
def test_golden_expressions(one: dict[str, Any]) -> None:
    if one["outcome"] == "compile_error":
        with pytest.raises(ConfigValidationError, match="^(Failed to compile CEL expression|Unsupported CEL column type)"):
            compile_cel(one["expr"], one["columns"])
        return
    compiled = compile_cel(one["expr"], one["columns"])
    assert isinstance(compiled, CompiledCel)
    assert (dict(compiled.columns), compiled.columns_list) == (one["columns"], tuple(one["columns"]))
    context = context_of(one["context"])
    assert context is not None
    if one["outcome"] == "ok":
        token = compiled.evaluate(context)
        assert (token, type(token)) == (typed(one["token"]), type(typed(one["token"])))
        if "direct_db_id" in one:
            assert route_cel(compiled, context) == one["direct_db_id"]
        return
    with pytest.raises(ValueError, match="^(CEL evaluation failed: |CEL expression must return int, str, or bytes; got )"):
        compiled.evaluate(context)


def test_names_with_nul_are_no_columns() -> None:
    compiled = compile_cel("region", {"region": "string"})
    assert compiled.evaluate({"region": "eu", "region\0": "us"}) == "eu"
    with pytest.raises(ValueError, match="there is no value for column 'region'"):
        compiled.evaluate({"region\0": "us"})


def test_compiling_is_kept() -> None:
    assert compile_cel_cached("key % 4", (("key", "int"),)) is compile_cel_cached("key % 4", (("key", "int"),))


@pytest.mark.parametrize("one", vectors("cel")["categorical"], ids=str)
def test_tokens(one: dict[str, Any]) -> None:
    compiled = compile_cel(one["expr"], one["columns"])
    values = [typed(value) for value in one["routing_values"]]
    context = context_of(one["context"])
    assert context is not None
    if "db_id" in one:
        assert route_cel(compiled, context, values) == one["db_id"]
    else:
        with pytest.raises(ValueError):  # UnknownRoutingTokenError, or it cannot be evaluated
            route_cel(compiled, context, values)


@pytest.mark.parametrize("one", vectors("cel")["direct_tokens"], ids=str)
def test_direct_tokens(one: dict[str, Any]) -> None:
    if "error" in one:
        with pytest.raises(ValueError):
            resolve_cel_routing_key(typed(one["token"]))
    else:
        assert resolve_cel_routing_key(typed(one["token"])) == int(one["db_id"])


WAYS: dict[str, Any] = {
    "engine": dict,
    "with a collector": lambda: {"metrics_collector": ListMetricsCollector()},
    "with a limiter": lambda: {"rate_limiter": Limiter()},
    "lazy": lambda: {"lazy_open": True},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("c", CEL, ids=lambda c: c.name)
async def test_every_look_up(c: Case, way: str, tmp_path: Path) -> None:
    by_context: dict[tuple[Any, ...], dict[Any, bytes | None]] = {}
    async with AsyncShardedReader.open(s3_prefix=c.prefix, local_root=str(tmp_path), **WAYS[way]()) as reader:
        for one in c.expected["lookups"]:
            if "value" not in one:
                continue
            key, context = typed(one["key"]), context_of(one.get("context"))
            value = None if one["value"] is None else bytes.fromhex(one["value"])
            assert await reader.get(key, routing_context=context) == value, one
            if one.get("db_id") is not None:
                assert reader.route_key(key, routing_context=context) == one["db_id"]
                assert reader.shard_for_key(key, routing_context=context).db_id == one["db_id"]
            group = by_context.setdefault(tuple(sorted((context or {}).items())), {})
            group[key] = value
        for items, expected in by_context.items():
            assert await reader.multi_get(list(expected), routing_context=dict(items) or None) == expected


@pytest.mark.parametrize("c", CEL, ids=lambda c: c.name)
def test_blocking_readers(c: Case, tmp_path: Path) -> None:
    with ShardedReader(s3_prefix=c.prefix, local_root=str(tmp_path)) as reader:
        for one in c.expected["lookups"]:
            if "value" in one:
                value = None if one["value"] is None else bytes.fromhex(one["value"])
                assert reader.get(typed(one["key"]), routing_context=context_of(one.get("context"))) == value


def named(name: str) -> Case:
    return next(c for c in CEL if c.name == name)


async def test_what_cannot_be_routed(tmp_path: Path) -> None:
    async with AsyncShardedReader.open(s3_prefix=named("slatedb-cel-categorical").prefix, local_root=str(tmp_path)) as reader:
        elsewhere = {"region": "mars"}
        assert await reader.get(8, routing_context=elsewhere) is None
        assert await reader.multi_get([8, 9], routing_context=elsewhere) == {8: None, 9: None}
        for route in (reader.route_key, reader.shard_for_key):
            with pytest.raises(UnknownRoutingTokenError, match="'mars' is not present in this snapshot"):
                route(8, routing_context=elsewhere)
        with pytest.raises(ValueError, match="^Multi-column CEL sharding requires routing_context"):
            await reader.get(8)
        with pytest.raises(ValueError, match="column 'region' is of type string and cannot take the int given"):
            await reader.get(8, routing_context={"region": 5})
        with pytest.raises(ValueError, match="there is no value for column 'region'"):
            await reader.multi_get([8], routing_context={})
        assert await reader.multi_get([], routing_context={}) == {}
    async with AsyncShardedReader.open(s3_prefix=named("slatedb-cel-direct-key").prefix, local_root=str(tmp_path)) as reader:
        with pytest.raises(ValueError, match="gave shard -1: shards have the numbers 0 to"):
            await reader.get(0, routing_context={"key": -1})  # Python's own would take the last shard


def test_routers_of_manifests() -> None:
    c = named("slatedb-cel-direct")
    ref = c.expected["manifests"][0]["ref"]
    payload = (c.folder / "manifests" / ref.split("/manifests/")[1]).read_bytes()
    manifest: ParsedManifest = parse_manifest_payload(payload)
    router = SnapshotRouter(manifest.required_build, manifest.shards)
    one = next(one for one in c.expected["lookups"] if "db_id" in one)
    key, context = typed(one["key"]), context_of(one["context"])
    assert context is not None
    assert router.route(key, routing_context=context) == router.route_with_context(context) == one["db_id"]
    assert router.group_keys([key], routing_context=context) == {one["db_id"]: [key]}
    with pytest.raises(ValueError, match="^Multi-column CEL sharding requires routing_context"):
        router.route_one(key)
