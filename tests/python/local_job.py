"""A batch engine in this process: partitions are lists of record batches, tasks travel as pickles, blocks are brought together in a dict."""

from __future__ import annotations

import json
import pickle
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from shardyfusion.writer._tasks import BuildShards, FindShards, KeptBlocks, RouteRows, Task


class LocalJob:
    writer_type = "spark"
    what = "Shard write"

    def __init__(
        self,
        partitions: Sequence[Sequence[Any]],
        *,
        blocks_at_once: int = 100,
        sort_rows: bool = False,
        change: Callable[[bytes], bytes] = lambda block: block,
        attempts: Callable[[int], Iterable[int]] = lambda shard: [0],
        columns: Sequence[str] | None = None,
        kept: bool = False,
    ) -> None:
        self._partitions = partitions
        self.columns = columns or (partitions[0][0].schema.names if partitions and partitions[0] else [])
        self.blocks_at_once = blocks_at_once
        self.sort_rows = sort_rows
        self._change = change
        self._attempts = attempts
        self._kept = kept  # the blocks of a task may be read again
        self.results: list[bytes] = []
        self.blocks = 0

    def count_rows(self) -> int:
        return sum(batch.num_rows for partition in self._partitions for batch in partition)

    def find(self, task: FindShards, columns: list[str]) -> Iterable[list[Any]]:
        task = pickle.loads(pickle.dumps(task))
        return [task(self._selected(partition, columns), Task(number)) for number, partition in enumerate(self._partitions)]

    def build(self, route: RouteRows, build: BuildShards, columns: list[str] | None) -> Iterator[Any]:
        by_shard: dict[int, list[bytes]] = defaultdict(list)
        for number, partition in enumerate(self._partitions):
            for blocks in pickle.loads(pickle.dumps(route))(self._selected(partition, columns), Task(number)):
                for shard, block in zip(*(column.to_pylist() for column in blocks.columns), strict=True):
                    by_shard[shard].append(self._change(block))
                    self.blocks += 1
        for shard, blocks_of in sorted(by_shard.items(), reverse=True):
            for attempt in self._attempts(shard):  # of which the last counts
                task = Task(shard, attempt, 5, 100 + attempt)
                blocks = KeptBlocks(lambda all=blocks_of: iter([all])) if self._kept else [blocks_of]
                result = json.dumps(pickle.loads(pickle.dumps(build))(blocks, task)).encode()
            self.results.append(result)
            yield from json.loads(result)

    @staticmethod
    def _selected(partition: Sequence[Any], columns: list[str] | None) -> Iterator[Any]:
        return (batch if columns is None else batch.select(columns) for batch in partition)
