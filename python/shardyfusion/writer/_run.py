"""The course of a write, whatever builds its shards and wherever it is published."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from shardyfusion._store_events import noting
from shardyfusion.config import ArrowRecordInput, BadRow, PythonRecordInput
from shardyfusion.errors import ConfigValidationError
from shardyfusion.manifest import BuildResult
from shardyfusion.run_registry import RunRecordLifecycle, refuse_living_writer
from shardyfusion.writer import _publish
from shardyfusion.writer._arrow import arrow_stream, as_python_rows
from shardyfusion.writer._native_build import native_options, run_native
from shardyfusion.writer._plan import Plan, ShardAttempt
from shardyfusion.writer._plugged import PluggedBuild
from shardyfusion.writer._processes import ProcessBuild
from shardyfusion.writer._progress import Progress
from shardyfusion.writer._rows import LeaveOut, Row, cel_rows, hash_rows


def run(records: Iterable[Any], plan: Plan, input: PythonRecordInput[Any] | ArrowRecordInput) -> BuildResult:
    """Writes and publishes; leaves the run's record saying how it went."""
    return recorded(plan, lambda progress, record: _run(records, plan, input, progress, record))


def recorded(plan: Plan, course: Callable[[Progress, RunRecordLifecycle], BuildResult]) -> BuildResult:
    """A write with a record of its run, whatever its course."""
    progress = Progress(plan.options)
    try:
        with noting(plan.metrics.store_events):
            if plan.config.output.run_id is not None:
                refuse_living_writer(plan.config, plan.run_id)
            with RunRecordLifecycle.start(config=plan.config, run_id=plan.run_id, writer_type=plan.writer_type) as record:
                try:
                    result = course(progress, record)
                except BaseException as error:
                    record.mark_failed(error)
                    raise
                record.mark_succeeded()
                return result
    finally:
        plan.metrics.tell()
        progress.end()
        shutil.rmtree(plan.local_run_dir, ignore_errors=True)


def _run(
    records: Iterable[Any],
    plan: Plan,
    input: PythonRecordInput[Any] | ArrowRecordInput,
    progress: Progress,
    record: RunRecordLifecycle,
) -> BuildResult:
    options = native_options(plan)
    if options is not None:
        return run_native(records, plan, input, options, progress, record)
    _refuse_what_needs_the_engine(plan)
    return publish_plugged(plan, progress, record, lambda: _build(records, plan, input, progress))


def publish_plugged(
    plan: Plan,
    progress: Progress,
    record: RunRecordLifecycle,
    build: Callable[[], tuple[list[ShardAttempt], list[str]]],
) -> BuildResult:
    """From shards of adapters that may be anybody's to a visible snapshot. `build` gives the attempts that stored one, and the URLs of
    the others."""
    store = _publish.manifest_store(plan)
    _publish.expectation(plan, store)  # before the work, not after it
    if plan.config.manifest.store is None:  # with a store of the caller's the prefix may be no place at all
        plan.next_attempts = _publish.next_attempts(plan)
    plan.started()
    attempts, losers = build()
    winners = _publish.choose_winners(attempts, plan.num_dbs)
    shards = [winner.to_meta() for winner in winners]
    rows = sum(shard.row_count for shard in shards)
    duplicates = sum(winner.duplicates for winner in winners)
    plan.shards_completed(rows, duplicates)
    for shard in shards:
        plan.selected(shard)

    progress.phase("checking")
    _publish.check(plan, store, shards)
    if plan.options.dry_run:
        _publish.delete_attempts(plan, [*losers, *(winner.db_url for winner in winners)], "dry_run_taken_back")
        return plan.result(shards, "", len(attempts), rows, duplicates, record.run_record_ref)

    progress.phase("publishing")
    since_ms = plan.elapsed_ms()
    manifest_ref = _publish.publish(plan, store, shards, record)
    record.set_manifest_ref(manifest_ref)
    plan.published(manifest_ref, since_ms)
    _publish.delete_attempts(plan, losers)
    result = plan.result(shards, manifest_ref, len(attempts), rows, duplicates, record.run_record_ref)
    plan.completed(result)
    return result


def _build(
    records: Iterable[Any], plan: Plan, input: PythonRecordInput[Any] | ArrowRecordInput, progress: Progress
) -> tuple[list[ShardAttempt], list[str]]:
    """Successful attempts, and the URLs of the others."""
    if isinstance(input, ArrowRecordInput):
        stream = arrow_stream(records, input, plan.cel)
        records, input = as_python_rows(stream, input, plan.cel, twice=plan.cel is not None and plan.cel["mode"] == "inferred")
    rows = _rows(records, plan, input, progress)
    if plan.options.parallel:
        with ProcessBuild(plan, progress) as processes:
            return processes.run(rows), processes.failed_urls
    with PluggedBuild(plan, progress) as build:
        return build.run(rows), []


def _rows(records: Iterable[Any], plan: Plan, input: PythonRecordInput[Any], progress: Progress) -> Iterator[Row]:
    encoding, leave_out = plan.config.kv.key_encoding, _leave_out(plan, progress)
    if plan.cel is None:
        return hash_rows(records, input, plan.num_dbs, encoding, leave_out)
    return cel_rows(records, input, plan.cel, plan.settle, encoding, leave_out)


def _leave_out(plan: Plan, progress: Progress) -> LeaveOut | None:
    wanted = plan.options.on_bad_row
    if wanted == "raise":
        return None

    def leave_out(number: int, error: Exception, record: Any) -> None:
        plan.bad_rows += 1
        if callable(wanted):
            progress.hide()
            wanted(BadRow(number, error, record))

    return leave_out


def _refuse_what_needs_the_engine(plan: Plan) -> None:
    options = plan.options
    wanted = {
        "on_duplicate='error'": options.on_duplicate == "error",
        "verify": options.verify,
        "checks.sample_keys": options.checks.sample_keys > 0,
        "workers": options.workers is not None,
        "memory_bytes": options.memory_bytes is not None,
        "resume": options.resume,
        "reuse_unchanged": options.reuse_unchanged,
    }
    for name, given in wanted.items():
        if given:
            raise ConfigValidationError(f"options.{name} needs a built-in adapter factory")
