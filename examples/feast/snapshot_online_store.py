"""An online store of Feast that reads snapshots: a feature view is published as a whole, and looked up without a server. README.md says how.

In feature_store.yaml:

    online_store:
        type: snapshot_online_store.SnapshotOnlineStore
        prefix: s3://bucket/features
"""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from feast import Entity, FeatureStore, FeatureView, RepoConfig, utils
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Map, Value
from feast.repo_config import FeastConfigBaseModel

from shardyfusion import AsyncShardedReader, BuildResult, ConcurrentShardedReader, HashShardedWriteConfig, KeyEncoding, PythonRecordInput
from shardyfusion.writer.python import write_hash_sharded

Row = tuple[EntityKey, dict[str, Value], datetime, datetime | None]
Found = tuple[datetime | None, dict[str, Value] | None]

EVENT_TIME = ""  # among the features of a row: no feature has this name
_LOADING_TOGETHER = 10_000  # rows that are messages of Feast's at a time


class SnapshotOnlineStoreConfig(FeastConfigBaseModel):
    type: Literal["snapshot_online_store.SnapshotOnlineStore"] = "snapshot_online_store.SnapshotOnlineStore"
    prefix: str
    """Below it lies a snapshot for each feature view: PREFIX/PROJECT/VIEW."""
    local_root: str = "/tmp/feast-snapshots"
    refresh_s: float = 30.0
    """How often the pointer is looked at."""
    timeout_s: float = 1.0
    """Of a look-up."""
    num_dbs: int = 8
    """Shards of what is published."""


def prefix_of(config: RepoConfig, view: str) -> str:
    return f"{config.online_store.prefix}/{config.project}/{view}"


class SnapshotOnlineStore(OnlineStore):
    """One reader for each feature view that is asked for: a blocking one, and one of asyncio's where the server asks so."""

    def __init__(self) -> None:
        self._readers: dict[str, ConcurrentShardedReader] = {}
        self._async_readers: dict[str, asyncio.Task[AsyncShardedReader]] = {}

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        return SupportedAsyncMethods(read=True)

    def online_read(
        self, config: RepoConfig, table: FeatureView, entity_keys: list[EntityKey], requested_features: list[str] | None = None
    ) -> list[Found]:
        reader = self._readers.get(table.name)
        if reader is None:
            reader = self._readers[table.name] = ConcurrentShardedReader(**_arguments(config, table.name))
        found = reader.get_many(_stored(config, entity_keys), timeout=config.online_store.timeout_s)
        return [_features(value, requested_features) for value in found]

    async def online_read_async(
        self, config: RepoConfig, table: FeatureView, entity_keys: list[EntityKey], requested_features: list[str] | None = None
    ) -> list[Found]:
        opening = self._async_readers.get(table.name)
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception())):
            opening = self._async_readers[table.name] = asyncio.ensure_future(_opened(config, table.name))
        reader = await asyncio.shield(opening)
        found = await reader.get_many(_stored(config, entity_keys), timeout=config.online_store.timeout_s)
        return [_features(value, requested_features) for value in found]

    async def close(self) -> None:
        readers, self._readers = self._readers, {}
        openings, self._async_readers = self._async_readers, {}
        for reader in readers.values():
            reader.close()
        for opening in await asyncio.gather(*openings.values(), return_exceptions=True):
            if isinstance(opening, AsyncShardedReader):
                await opening.close()

    def online_write_batch(self, config: RepoConfig, table: FeatureView, data: list[Row], progress: Any) -> None:
        raise NotImplementedError(
            f"{table.name}: a snapshot is published as a whole: snapshot_online_store.publish(store, {table.name!r}) in place of materialize()"
        )

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Nothing to make ahead. Snapshots of views that are gone stay until they are cleaned up (`shardy cleanup`)."""

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()


def publish(store: FeatureStore, view: str, start: datetime | None = None, end: datetime | None = None) -> BuildResult:
    """The latest row of each entity between `start` (None: ever) and `end` (None: now), as the next snapshot of the view."""
    config = store.config
    feature_view = store.get_feature_view(view)
    entities = [store.get_entity(name) for name in feature_view.entities]
    keys, features, event_time, created = utils._get_column_names(feature_view, entities)
    job = store._get_provider().offline_store.pull_latest_from_table_or_query(
        config=config,
        data_source=feature_view.batch_source,
        join_key_columns=keys,
        feature_name_columns=features,
        timestamp_field=event_time,
        created_timestamp_column=created,
        start_date=start or datetime.fromtimestamp(0, UTC),
        end_date=end or datetime.now(UTC),
    )
    mapped = utils._run_pyarrow_field_mapping(job.to_arrow(), feature_view.batch_source.field_mapping)
    types = {column.name: column.dtype.to_value_type() for column in feature_view.entity_columns}

    def rows() -> Iterator[Row]:
        for batch in mapped.to_batches(_LOADING_TOGETHER):
            yield from utils._convert_arrow_to_proto(batch, feature_view, types)

    return write_hash_sharded(
        rows(),
        HashShardedWriteConfig(num_dbs=config.online_store.num_dbs, s3_prefix=prefix_of(config, view), key_encoding=KeyEncoding.RAW),
        PythonRecordInput[Row](key_fn=lambda row: _stored(config, [row[0]])[0], value_fn=lambda row: _value(row[1], row[2])),
    )


def _arguments(config: RepoConfig, view: str) -> dict[str, Any]:
    return {
        "s3_prefix": prefix_of(config, view),
        "local_root": config.online_store.local_root,
        "refresh_interval": timedelta(seconds=config.online_store.refresh_s),
    }


async def _opened(config: RepoConfig, view: str) -> AsyncShardedReader:
    return await AsyncShardedReader.open(**_arguments(config, view))


def _stored(config: RepoConfig, entity_keys: list[EntityKey]) -> list[bytes]:
    version = config.entity_key_serialization_version
    return [serialize_entity_key(key, entity_key_serialization_version=version) for key in entity_keys]


def _value(features: dict[str, Value], event_time: datetime) -> bytes:
    row = Map()
    for name, value in features.items():
        row.val[name].CopyFrom(value)
    aware = event_time if event_time.tzinfo is not None else event_time.replace(tzinfo=UTC)
    row.val[EVENT_TIME].unix_timestamp_val = int(aware.timestamp())
    return bytes(row.SerializeToString())


def _features(value: bytes | None, requested: list[str] | None) -> Found:
    if value is None:
        return None, None
    row = Map.FromString(value).val
    names = requested if requested is not None else [name for name in row if name != EVENT_TIME]
    when = datetime.fromtimestamp(row[EVENT_TIME].unix_timestamp_val, UTC)
    return when, {name: row[name] for name in names if name in row}
