"""From a key to its shard."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import shardyfusion
from shardyfusion._engine import native
from shardyfusion._formats import empty_shard_meta
from shardyfusion._storage_errors import UnknownRoutingTokenError
from shardyfusion.sharding_types import KeyEncoding, ShardHashAlgorithm, ShardingStrategy
from shardyfusion.type_defs import KeyInput

__all__ = [
    "KeyType",
    "ShardLookup",
    "SnapshotRouter",
    "UnknownRoutingTokenError",
    "canonical_bytes",
    "hash_db_id",
    "hash_digest",
    "make_hash_router",
    "xxh3_db_id",
    "xxh3_digest",
]

KeyType: TypeAlias = Literal["int", "str", "bytes"]
_KEY_TYPES: dict[str, type] = {"bytes": bytes, "int": int, "str": str}

NO_CONTEXT_WITH_HASH = native.NO_CONTEXT_WITH_HASH


class Route(Protocol):
    """From a key, and perhaps a context, to a shard."""

    def __call__(self, key: KeyInput, context: Mapping[str, object] | None = None, /) -> int: ...


@runtime_checkable
class ShardLookup(Protocol):
    """Finds a shard of a manifest that is not held in memory."""

    def get_shard(self, db_id: int) -> shardyfusion.RequiredShardMeta:
        """What the manifest says of the shard."""
        ...


def canonical_bytes(key: KeyInput) -> bytes:
    """The bytes that are hashed: an integer as 8 bytes little-endian, text as UTF-8. ValueError for anything else."""
    return native.canonical_bytes(key)


def xxh3_digest(key: KeyInput) -> int:
    """XXH3 (64 bits, seed 0) of the canonical bytes."""
    return native.xxh3_64(native.canonical_bytes(key))


def xxh3_db_id(key: KeyInput, num_dbs: int) -> int:
    """The shard of a key among `num_dbs`."""
    return native.hash_db_id(key, num_dbs)


def hash_digest(key: KeyInput, algorithm: ShardHashAlgorithm | str = ShardHashAlgorithm.XXH3_64) -> int:
    """The digest of a key by a named algorithm."""
    ShardHashAlgorithm.from_value(algorithm)
    return xxh3_digest(key)


def hash_db_id(
    key: KeyInput, num_dbs: int, algorithm: ShardHashAlgorithm | str = ShardHashAlgorithm.XXH3_64
) -> int:
    """The shard of a key among `num_dbs`, by a named algorithm."""
    ShardHashAlgorithm.from_value(algorithm)
    return xxh3_db_id(key, num_dbs)


def make_hash_router(
    num_dbs: int,
    algorithm: ShardHashAlgorithm | str = ShardHashAlgorithm.XXH3_64,
    *,
    key_type: KeyType | None = None,
) -> Callable[[KeyInput], int]:
    """A function from key to shard. With `key_type` it takes keys of that type only."""
    if num_dbs <= 0:
        raise ValueError(f"num_dbs must be positive, got {num_dbs}")
    ShardHashAlgorithm.from_value(algorithm)
    if key_type is not None and key_type not in _KEY_TYPES:
        raise ValueError(f"Unsupported key_type {key_type!r}; expected one of {sorted(_KEY_TYPES)}")
    wanted = None if key_type is None else _KEY_TYPES[key_type]

    def route(key: KeyInput) -> int:
        if wanted is not None and not isinstance(key, wanted):
            raise ValueError(f"Unsupported key type for hashing: {type(key)!r}")
        return native.hash_db_id(key, num_dbs)

    return route


class SnapshotRouter:
    """Routes the keys of one snapshot. Immutable; any thread.

    `route_one(key)` gives the shard of a key, `encode_lookup_key(key)` the bytes under which that shard holds it.
    `shards` has one entry a shard, empty ones included.
    """

    def __init__(self, required_build: shardyfusion.RequiredBuildMeta, shards: list[shardyfusion.RequiredShardMeta]) -> None:
        self._prepare(required_build)
        self._shard_lookup: ShardLookup | None = None
        self._by_id = {shard.db_id: shard for shard in shards}

    @classmethod
    def from_build_meta(cls, required_build: shardyfusion.RequiredBuildMeta, *, shard_lookup: ShardLookup) -> SnapshotRouter:
        """A router that asks `shard_lookup` for shards; its `shards` is empty."""
        self = cls.__new__(cls)
        self._prepare(required_build)
        self._shard_lookup = shard_lookup
        self.shards = []
        return self

    def _prepare(self, required_build: shardyfusion.RequiredBuildMeta) -> None:
        self.required_build = required_build
        self.strategy: ShardingStrategy = required_build.sharding.strategy
        self.num_dbs: int = required_build.num_dbs
        self.key_encoding: KeyEncoding = required_build.key_encoding
        self.hash_algorithm: ShardHashAlgorithm = required_build.sharding.hash_algorithm
        self._route = route_of(self.strategy, _sharding_text(required_build), self.num_dbs)
        self.route_one: Callable[[KeyInput], int] = self._route
        self.encode_lookup_key: Callable[[KeyInput], bytes] = make_lookup_encoder(self.key_encoding)

    @cached_property
    def shards(self) -> list[shardyfusion.RequiredShardMeta]:
        """Made when it is asked for: `num_dbs` is only a number, entries of empty shards take memory."""
        return [self.get_shard(db_id) for db_id in range(self.num_dbs)]

    @property
    def is_lazy(self) -> bool:
        """Whether shards are looked up when they are needed."""
        return self._shard_lookup is not None

    def get_shard(self, db_id: int) -> shardyfusion.RequiredShardMeta:
        """The manifest's entry of a shard."""
        if self._shard_lookup is not None:
            return self._shard_lookup.get_shard(db_id)
        if not 0 <= db_id < self.num_dbs:
            raise KeyError(db_id)
        shard = self._by_id.get(db_id)
        if shard is None:
            shard = self._by_id.setdefault(db_id, empty_shard_meta(db_id))
        return shard

    def route(self, key: KeyInput, *, routing_context: dict[str, object] | None = None) -> int:
        """The shard of a key. `routing_context` (values of CEL's columns) is an error with HASH sharding."""
        return self._route(key, routing_context)

    def route_with_context(self, routing_context: dict[str, object]) -> int:
        """The shard that CEL's expression gives for the column values."""
        return self.route(0, routing_context=routing_context)

    def group_keys(
        self, keys: list[KeyInput], *, routing_context: dict[str, object] | None = None
    ) -> dict[int, list[KeyInput]]:
        """The keys by shard. ValueError when one of them belongs to no shard."""
        groups, missing = self.group_keys_allow_missing(keys, routing_context=routing_context)
        if missing:
            raise ValueError(f"One or more keys could not be routed for this snapshot: {missing!r}")
        return groups

    def group_keys_allow_missing(
        self, keys: list[KeyInput], *, routing_context: dict[str, object] | None = None
    ) -> tuple[dict[int, list[KeyInput]], list[KeyInput]]:
        """The keys by shard, and those that belong to no shard."""
        groups: dict[int, list[KeyInput]] = {}
        missing: list[KeyInput] = []
        for key in keys:
            try:
                db_id = self.route(key, routing_context=routing_context)
            except UnknownRoutingTokenError:
                missing.append(key)
            else:
                groups.setdefault(db_id, []).append(key)
        return groups, missing


def route_of(strategy: str, sharding: str, num_dbs: int) -> Route:
    """How the keys of a snapshot are routed. `sharding` is its manifest's text of that name."""
    if strategy != ShardingStrategy.HASH:
        return native.cel_rule(sharding, num_dbs).route

    def route(key: KeyInput, context: Mapping[str, object] | None = None, /) -> int:
        if context is not None:
            raise ValueError(NO_CONTEXT_WITH_HASH)
        return native.hash_db_id(key, num_dbs)

    return route


def _sharding_text(required_build: shardyfusion.RequiredBuildMeta) -> str:
    sharding = required_build.sharding
    return json.dumps(
        {"cel_expr": sharding.cel_expr, "cel_columns": sharding.cel_columns, "routing_values": sharding.routing_values}
    )


def make_lookup_encoder(encoding: KeyEncoding) -> Callable[[KeyInput], bytes]:
    """From a key to the bytes that a look-up asks a shard for."""
    name = KeyEncoding.from_value(encoding).value

    def encode(key: KeyInput) -> bytes:
        return native.encode_key(name, key)

    return encode


def distinct(keys: Iterable[KeyInput]) -> list[KeyInput]:
    """The keys, each once, in the order of first occurrence."""
    return list(dict.fromkeys(keys))
