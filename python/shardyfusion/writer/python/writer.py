"""Writing snapshots from one Python process."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, overload

from shardyfusion.config import (
    ArrowRecordInput,
    BaseShardedWriteConfig,
    CelShardedWriteConfig,
    HashShardedWriteConfig,
    PythonRecordInput,
    PythonWriteOptions,
    validate_configs,
)
from shardyfusion.errors import ConfigValidationError
from shardyfusion.manifest import BuildResult
from shardyfusion.writer._plan import Plan, resolve_cel, resolve_num_dbs
from shardyfusion.writer._rows import require_second_pass
from shardyfusion.writer._run import run

__all__ = ["write_cel_sharded", "write_hash_sharded"]

T = TypeVar("T")


@overload
def write_hash_sharded(
    records: Iterable[T],
    config: HashShardedWriteConfig,
    input: PythonRecordInput[T],
    options: PythonWriteOptions | None = None,
) -> BuildResult: ...
@overload
def write_hash_sharded(
    records: object,
    config: HashShardedWriteConfig,
    input: ArrowRecordInput,
    options: PythonWriteOptions | None = None,
) -> BuildResult: ...
def write_hash_sharded(
    records: Any,
    config: HashShardedWriteConfig,
    input: PythonRecordInput[Any] | ArrowRecordInput,
    options: PythonWriteOptions | None = None,
) -> BuildResult:
    """Publishes the records as a new snapshot, sharded by the hash of the key.

    With an ArrowRecordInput the records may be anything with `__arrow_c_stream__`: tables and readers of pyarrow, data
    frames of pandas and polars, relations of DuckDB; also datasets of pyarrow, lazy frames of polars, an iterable of record batches,
    tables or data frames, and Parquet files: a path, a folder, a pattern, or a list of them. Readers see the snapshot before until everything is stored, and go on
    seeing it when anything fails.
    """
    return run(records, plan_hash_sharded(records, config, input, options), input)


@overload
def write_cel_sharded(
    records: Iterable[T],
    config: CelShardedWriteConfig,
    input: PythonRecordInput[T],
    options: PythonWriteOptions | None = None,
) -> BuildResult: ...
@overload
def write_cel_sharded(
    records: object,
    config: CelShardedWriteConfig,
    input: ArrowRecordInput,
    options: PythonWriteOptions | None = None,
) -> BuildResult: ...
def write_cel_sharded(
    records: Any,
    config: CelShardedWriteConfig,
    input: PythonRecordInput[Any] | ArrowRecordInput,
    options: PythonWriteOptions | None = None,
) -> BuildResult:
    """Publishes the records as a new snapshot, sharded by a CEL expression (docs/cel.md).

    The expression is evaluated for what `input.columns_fn` gives of a record, without one for `{"key": key}`; of Arrow
    data for the columns of its name, in the engine.
    """
    return run(records, plan_cel_sharded(records, config, input, options), input)


def plan_hash_sharded(
    records: object, config: HashShardedWriteConfig, input: Any, options: PythonWriteOptions | None
) -> Plan:
    """Checks everything that can be checked before the first row."""
    options = PythonWriteOptions() if options is None else options
    _check_arguments(HashShardedWriteConfig, records, config, input, options)
    countable = not isinstance(input, ArrowRecordInput) or hasattr(records, "__arrow_c_stream__")  # paths and batches are no rows
    return Plan(config, options, resolve_num_dbs(config, records if countable else None), _key_col(input))


def plan_cel_sharded(
    records: object, config: CelShardedWriteConfig, input: Any, options: PythonWriteOptions | None
) -> Plan:
    """The same for CEL."""
    options = PythonWriteOptions() if options is None else options
    _check_arguments(CelShardedWriteConfig, records, config, input, options)
    cel = resolve_cel(config)
    if options.parallel and cel["mode"] == "inferred":
        raise ConfigValidationError(
            "Parallel mode cannot infer routing values: each worker process writes one shard that is known beforehand. "
            "Give routing_values, or leave options.parallel off."
        )
    if options.parallel and cel["mode"] == "direct":
        raise ConfigValidationError(
            "Parallel mode requires num_dbs > 0 to spawn workers. CEL shard ids are discovered from the data: "
            "give routing_values, or leave options.parallel off."
        )
    if cel["mode"] == "inferred" and not isinstance(input, ArrowRecordInput):
        require_second_pass(records)
    return Plan(config, options, max(1, len(cel["values"])) if cel["values"] is not None else 0, _key_col(input), cel)


def _key_col(input: Any) -> str:
    return input.key_col if isinstance(input, ArrowRecordInput) else "_key"


def _check_arguments(
    wanted: type[BaseShardedWriteConfig], records: object, config: Any, input: Any, options: Any
) -> None:
    if not isinstance(config, wanted):
        raise ConfigValidationError(f"config must be {wanted.__name__}, not {type(config).__name__}")
    if not isinstance(input, PythonRecordInput | ArrowRecordInput):
        raise ConfigValidationError(f"input must be PythonRecordInput, not {type(input).__name__}")
    if not isinstance(options, PythonWriteOptions):
        raise ConfigValidationError(f"options must be PythonWriteOptions, not {type(options).__name__}")
    validate_configs(config, input, options)
    if isinstance(input, PythonRecordInput) and input.vector_fn is not None:
        raise ConfigValidationError("vector_fn requires config.vector_spec to be set")
    if config.kv.profile_value_sizes_for_page_size:
        raise ConfigValidationError(
            "kv.profile_value_sizes_for_page_size is not supported by the Python writer; use SqliteFactory(page_size='auto')"
        )
    if isinstance(input, PythonRecordInput) and hasattr(records, "__arrow_c_stream__") and hasattr(records, "columns"):
        raise ConfigValidationError(
            f"records of type {type(records).__name__} are columns to PythonRecordInput, not rows: use "
            f"ArrowRecordInput(key_col=..., value_col=...), or pass {_rows_of(records)}"
        )


def _rows_of(frame: object) -> str:
    for call in ("itertuples()", "iter_rows(named=True)", "to_pylist()"):
        if hasattr(frame, call.partition("(")[0]):
            return f"records.{call}"
    return "an iterable of rows"
