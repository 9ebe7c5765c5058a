"""What a write changes about a session or a data frame, and puts back."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession
    from pyspark.storagelevel import StorageLevel

__all__ = ["DataFrameCacheContext", "SparkConfOverrideContext"]


class DataFrameCacheContext:
    """Keeps a data frame that is read more than once; `with` gives the one to read."""

    def __init__(self, df: DataFrame, storage_level: StorageLevel | None = None, *, enabled: bool = True) -> None:
        self._df = df
        self._level = storage_level
        self._enabled = enabled
        self._kept: DataFrame | None = None

    def __enter__(self) -> DataFrame:
        level = self._df.storageLevel
        if not self._enabled or level.useMemory or level.useDisk:  # kept by somebody else, who has not asked us to drop it
            return self._df
        self._kept = self._df.persist() if self._level is None else self._df.persist(self._level)
        return self._kept

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.unpersist()


class SparkConfOverrideContext:
    """Settings of a session that hold inside of the `with` only."""

    def __init__(self, spark: SparkSession, overrides: dict[str, str] | None) -> None:
        self._conf = spark.conf
        self._overrides = dict(overrides or {})
        self._before: dict[str, str | None] = {}

    def __enter__(self) -> Self:
        try:
            for name, value in self._overrides.items():
                before = self._conf.get(name, None)
                self._conf.set(name, value)
                self._before[name] = before
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for name, value in reversed(self._before.items()):
            if value is None:
                self._conf.unset(name)
            else:
                self._conf.set(name, value)
        self._before.clear()
