"""Publishes a feature view with the real Feast and looks it up: blocking, with asyncio, features of one entity and of many, entities that are not there,
the next version. tools/test_feast.sh runs it."""

import asyncio
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float32, Int64, String

sys.path.insert(0, str(Path(__file__).parent))
from snapshot_online_store import publish  # noqa: E402

DRIVERS = 2_000
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FEATURES = ["driver_stats:trips", "driver_stats:rating", "driver_stats:city"]


def frame(hours: int) -> pd.DataFrame:
    """Each driver twice: of each the later row counts."""
    return pd.concat(
        pd.DataFrame(
            {
                "driver": range(DRIVERS),
                "trips": [n * 10 + hour for n in range(DRIVERS)],
                "rating": [n / 7 for n in range(DRIVERS)],
                "city": [None if n % 5 == 0 else f"city {n}" for n in range(DRIVERS)],
                "at": NOON + timedelta(hours=hour),
            }
        )
        for hour in range(hours)
    )


def main(folder: Path) -> None:
    config = RepoConfig(
        project="rides",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={
            "type": "snapshot_online_store.SnapshotOnlineStore",
            "prefix": (folder / "features").as_uri(),
            "local_root": str(folder / "cache"),
            "refresh_s": 0.05,
            "timeout_s": 30,
        },
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    frame(2).to_parquet(folder / "stats.parquet")
    driver = Entity(name="driver", join_keys=["driver"], value_type=ValueType.INT64)
    source = FileSource(path=str(folder / "stats.parquet"), timestamp_field="at")
    fields = [Field(name="trips", dtype=Int64), Field(name="rating", dtype=Float32), Field(name="city", dtype=String)]
    view = FeatureView(name="driver_stats", entities=[driver], ttl=timedelta(0), schema=fields, source=source)
    store.apply([driver, view])

    result = publish(store, "driver_stats")
    assert result.stats.rows_written == DRIVERS, result.stats

    asked = [{"driver": n} for n in (0, 7, DRIVERS - 1, DRIVERS + 5)]
    found = store.get_online_features(FEATURES, asked).to_dict()
    assert found["trips"] == [1, 71, (DRIVERS - 1) * 10 + 1, None], found
    assert found["city"] == [None, "city 7", f"city {DRIVERS - 1}", None], found
    assert abs(found["rating"][1] - 1) < 1e-6, found
    assert store.get_online_features(["driver_stats:trips"], asked[:1]).to_dict()["trips"] == [1]

    async def later() -> None:
        assert (await store.get_online_features_async(FEATURES, asked)).to_dict() == found
        await asyncio.gather(*(store.get_online_features_async(FEATURES, asked) for _ in range(20)))
        frame(3).to_parquet(folder / "stats.parquet")
        publish(store, "driver_stats")
        async with asyncio.timeout(60):
            while (await store.get_online_features_async(FEATURES, asked)).to_dict()["trips"][1] != 72:
                await asyncio.sleep(0.02)
        await store.close()

    asyncio.run(later())
    try:
        store.materialize(NOON, NOON + timedelta(days=1))
    except NotImplementedError as e:
        assert "publish(store, 'driver_stats')" in str(e), e
    else:
        raise AssertionError("materialize() has written somewhere")
    store.teardown()
    print("feast: published, looked up, followed")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
