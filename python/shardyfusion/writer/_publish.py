"""From written shards to a visible snapshot, through manifest stores that may be anybody's."""

from __future__ import annotations

import inspect
import json
import time
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from shardyfusion._engine import native
from shardyfusion._s3_options import engine_options
from shardyfusion._storage_errors import UnsupportedByStoreError
from shardyfusion.config import ANY, PublishPreview
from shardyfusion.errors import (
    ConfigValidationError,
    PublishConflictError,
    PublishCurrentError,
    PublishManifestError,
    PublishRefusedError,
    ShardCoverageError,
)
from shardyfusion.manifest_store import S3ManifestStore
from shardyfusion.sharding_types import ShardHashAlgorithm
from shardyfusion.storage import BucketStore, ObstoreBackend
from shardyfusion.writer._plan import Plan, ShardAttempt

if TYPE_CHECKING:
    from shardyfusion._native import S3Options
    from shardyfusion.manifest import RequiredBuildMeta, RequiredShardMeta
    from shardyfusion.manifest_store import ManifestStore
    from shardyfusion.run_registry import RunRecordLifecycle

_POINTER_WAITS = (1.0, 2.0)  # seconds before the second and the third attempt
_sleep = time.sleep


def storage_options(plan: Plan) -> S3Options | None:
    """How the shards' bucket is reached."""
    storage = plan.config.storage
    return engine_options(storage.s3_connection_options, storage.credential_provider)


def manifest_options(plan: Plan) -> S3Options | None:
    """How manifests and pointer are reached: the manifest group's access, else the storage group's."""
    manifest, storage = plan.config.manifest, plan.config.storage
    options = manifest.s3_connection_options
    provider = manifest.credential_provider
    return engine_options(
        storage.s3_connection_options if options is None else options,
        storage.credential_provider if provider is None else provider,
    )


def next_attempts(plan: Plan, *, new_run: bool = False) -> dict[str, int]:
    """Of each shard's path below which attempts lie already the number of the next one; a new run has none, until its tasks have made
    some. That they cannot be listed is logged: adapters that never replace an object say so themselves."""
    output = plan.config.output
    if output.run_id is None and not new_run:
        return {}
    try:
        return native.next_attempts(plan.s3_prefix, storage_options(plan), output.shard_prefix, plan.run_id)
    except Exception as error:
        plan.log_failed("earlier_attempts_list_failed", error)
        return {}


def manifest_store(plan: Plan) -> ManifestStore:
    """The configured store, else one below the prefix."""
    store = plan.config.manifest.store
    if inspect.iscoroutinefunction(getattr(store, "publish", None)):
        raise ConfigValidationError("manifest.store is asynchronous: use shardyfusion.writer.aio, or as_sync_store(store)")
    if store is not None:
        return store
    custom_json(plan)  # before the work, not after it
    return S3ManifestStore(ObstoreBackend(BucketStore(plan.s3_prefix, manifest_options(plan))), plan.s3_prefix)


def custom_json(plan: Plan) -> str:
    """The caller's members of the manifest, for stores of ours. Others may keep what JSON cannot."""
    try:
        return json.dumps(plan.config.manifest.custom_manifest_fields, sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigValidationError(f"manifest.custom_manifest_fields cannot be stored as JSON: {error}") from None


def expectation(plan: Plan, store: ManifestStore) -> dict[str, Any]:
    """The keyword that makes the store compare before it swaps. ConfigValidationError when it cannot."""
    expected = plan.config.manifest.expected_current
    if expected is ANY:
        return {}
    parameters = inspect.signature(store.publish).parameters
    if "expected_current" not in parameters and not any(
        parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()
    ):
        raise ConfigValidationError(
            f"manifest.expected_current needs a manifest store whose publish() takes it, not {type(store).__name__}"
        )
    return {"expected_current": expected}


# ---------------------------------------------------------------- what is published


def choose_winners(attempts: Iterable[ShardAttempt], num_dbs: int) -> list[ShardAttempt]:
    """Of each shard the attempt that counts, in `db_id` order."""
    attempts = list(attempts)
    try:
        places = native.choose_winners([(one.db_id, one.attempt, one.db_url) for one in attempts], num_dbs)
    except ConfigValidationError as error:
        raise ShardCoverageError(str(error)) from None
    return [attempts[place] for place in places]


def build_meta(plan: Plan) -> RequiredBuildMeta:
    """The build section of the manifest, of this moment."""
    from shardyfusion.manifest import ManifestShardingSpec, RequiredBuildMeta

    output = plan.config.output
    return RequiredBuildMeta(
        run_id=plan.run_id,
        created_at=datetime.now(timezone.utc),
        num_dbs=plan.num_dbs,
        s3_prefix=plan.s3_prefix,
        key_col=plan.key_col,
        sharding=(
            ManifestShardingSpec(hash_algorithm=ShardHashAlgorithm.XXH3_64)
            if plan.sharding is None
            else ManifestShardingSpec.model_validate_json(plan.sharding)
        ),
        db_path_template=output.db_path_template,
        shard_prefix=output.shard_prefix,
        key_encoding=plan.config.kv.key_encoding,
    )


Hashes = Iterable[tuple[int, int, str | None, str | None]]


def own_custom(factory: object, hashes: Hashes | None) -> dict[str, Any]:
    """Our members of the manifest, of shards that a built-in factory wrote: what readers should know."""
    from shardyfusion.local_slatedb_adapter import LocalSlateDbFactory
    from shardyfusion.slatedb_adapter import SlateDbFactory
    from shardyfusion.sqlite_adapter import SqliteFactory, sqlite_options

    if isinstance(factory, SqliteFactory):
        return json.loads(native.own_custom(sqlite_options(factory.page_size, factory.emit_sidecar), hashes))  # type: ignore[no-any-return]
    if factory is None or isinstance(factory, SlateDbFactory | LocalSlateDbFactory):
        return json.loads(native.own_custom(None, hashes))  # type: ignore[no-any-return]
    return {}


# ---------------------------------------------------------------- the gate


def check(plan: Plan, store: ManifestStore, shards: list[RequiredShardMeta]) -> None:
    """PublishRefusedError unless everything that was asked for holds."""
    checks = plan.options.checks
    rows = sum(shard.row_count for shard in shards)
    if checks.max_empty_shards is not None:
        native.check_empty_shards([shard.db_id for shard in shards], plan.num_dbs, min(checks.max_empty_shards, plan.num_dbs))
    previous_rows = None
    if checks.min_rows_share is not None or checks.max_rows_share is not None or checks.check is not None:
        previous_rows = _previous_rows(store)
    if previous_rows is not None:
        native.check_rows_share(rows, previous_rows, checks.min_rows_share or 0, checks.max_rows_share or 0)
    if checks.check is not None:
        ask(plan, PublishPreview(plan.run_id, plan.num_dbs, rows, shards, previous_rows))


def ask(plan: Plan, preview: PublishPreview) -> None:
    """The caller's own check."""
    assert plan.options.checks.check is not None
    answer = plan.options.checks.check(preview)
    if answer is False:
        raise _refused("the check refused")
    if isinstance(answer, str):
        raise _refused(answer)


def _refused(why: str) -> PublishRefusedError:
    return PublishRefusedError(f"not published: {why}")


def _previous_rows(store: ManifestStore) -> int | None:
    current = store.load_current()
    if current is None:
        return None
    return sum(shard.row_count for shard in store.load_manifest(current.ref).shards)


# ---------------------------------------------------------------- publishing


def publish(
    plan: Plan, store: ManifestStore, shards: list[RequiredShardMeta], record: RunRecordLifecycle, hashes: Hashes | None = None
) -> str:
    """Stores the manifest and moves the pointer; the manifest's reference. `hashes`: of the shards' contents."""
    elsewhere = not (isinstance(store, S3ManifestStore) and store.s3_prefix == plan.s3_prefix)
    if elsewhere:  # which clean-up does not see below the prefix
        record.intend(plan.run_id)
    try:
        return _publish(plan, store, shards, hashes)
    except PublishConflictError as error:
        if elsewhere and error.manifest_ref is None:
            record.intend(None)
        raise


def _publish(plan: Plan, store: ManifestStore, shards: list[RequiredShardMeta], hashes: Hashes | None) -> str:
    expected = expectation(plan, store)
    required = build_meta(plan)
    given = plan.config.manifest.custom_manifest_fields  # which stays as it is
    custom = {**given, **own_custom(plan.config.kv.adapter_factory, hashes)}
    try:
        return store.publish(run_id=plan.run_id, required_build=required, shards=shards, custom=custom, **expected)
    except (ConfigValidationError, PublishConflictError):
        raise
    except UnsupportedByStoreError as error:
        text = f"expected_current cannot be had: {error}" if expected else "Failed to publish manifest"
        raise PublishManifestError(text) from error
    except PublishCurrentError as error:
        if error.manifest_ref is None or expected:
            raise
        plan.log_failed("manifest_publish_failed", error)
        return _set_current(plan, store, error.manifest_ref)
    except Exception as error:
        plan.log_failed("manifest_publish_failed", error)
        raise PublishManifestError("Failed to publish manifest") from error


def _set_current(plan: Plan, store: ManifestStore, ref: str) -> str:
    for attempt in range(len(_POINTER_WAITS) + 1):
        try:
            store.set_current(ref)
            return ref
        except Exception as error:
            if attempt == len(_POINTER_WAITS):
                raise PublishManifestError("Failed to set CURRENT pointer after retries") from error
            plan.log("publish_current_retry", manifest_ref=ref, attempt=attempt + 1, backoff_s=_POINTER_WAITS[attempt])
            _sleep(_POINTER_WAITS[attempt])
    raise AssertionError("unreachable")


def delete_attempts(plan: Plan, urls: Iterable[str], event: str = "losers_cleanup_completed") -> None:
    """Removes attempts that no snapshot uses, as far as that works."""
    urls = list(urls)
    if not urls:
        return
    objects = 0
    for url in urls:
        try:
            objects += ObstoreBackend(BucketStore(url, storage_options(plan))).delete_prefix(url)
        except Exception as error:
            plan.log_failed("losers_cleanup_failed", error, db_url=url)
    plan.log(event, num_attempts=len(urls), objects_deleted=objects)
