"""Publishing from a real Ray: two processors, one session for the whole file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray.data")

from engine_cases import EngineCases, die, workers_find_what_tests_import  # noqa: E402
from test_engine_tasks import nothing_is_left, table  # noqa: E402

from shardyfusion import ShardWriteError, ValueSpec  # noqa: E402
from shardyfusion.config import ColumnWriteInput, RayWriteOptions  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")


@pytest.fixture(scope="module")
def session() -> Iterator[None]:
    import ray

    workers_find_what_tests_import()
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",  # where other tests run as well, workers that give way to everybody never come to an end
        "RAY_kill_idle_workers_interval_ms": "0",  # starting one takes longer than what it does here
    }
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", object_store_memory=128 << 20)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()


class TestRay(EngineCases):
    name = "ray"
    missing_key = Exception  # a KeyError, or one of Arrow, from a task

    @pytest.fixture(autouse=True)
    def _session(self, session: None) -> None:
        pass

    def rows(self, data: Any) -> Any:
        import ray

        size = -(-data.num_rows // 3)
        return ray.data.from_arrow([data.slice(at, size) for at in range(0, data.num_rows, size)])

    def options(self, **more: Any) -> Any:
        return RayWriteOptions(**more)

    def test_a_process_that_always_dies(self, tmp_path: Path) -> None:
        with pytest.raises(ShardWriteError, match="Ray gave up on a task: "):
            self.write(table(3), tmp_path / "s", ColumnWriteInput("id", ValueSpec.callable_encoder(die)))
        nothing_is_left(tmp_path / "s")


    def test_a_cache_is_read(self) -> None:
        from shardyfusion.writer.ray import RayCacheContext

        rows = self.rows(table(9))
        with RayCacheContext(rows) as kept:
            assert kept is not rows and kept.count() == 9
        with RayCacheContext(rows, enabled=False) as kept:
            assert kept is rows
