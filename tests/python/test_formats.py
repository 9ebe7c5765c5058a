"""Pointers and manifests have one parser: a reader and a manifest store take and refuse the same ones, in the same words."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from fixtures import vectors
from test_hostile_manifests import HOSTILE, damaged
from test_vectors import MANIFESTS, payload_of

from shardyfusion import AsyncShardedReader, ManifestParseError, PublishRefusedError, ShardCoverageError
from shardyfusion._engine import native
from shardyfusion._formats import format_manifest, manifest_bytes, microseconds, parse_manifest_payload, time_of
from shardyfusion.manifest import ParsedManifest, RequiredShardMeta
from shardyfusion.manifest_store import S3ManifestStore
from shardyfusion.storage import BucketStore, ObstoreBackend
from shardyfusion.writer._plan import ShardAttempt
from shardyfusion.writer._publish import choose_winners

FOLDER = "2026-01-02T03:04:05.678901Z_run_id=r1"
SNAPSHOTS = Path(__file__).resolve().parents[1] / "fixtures" / "snapshots"
GOLDEN = {str(path.relative_to(SNAPSHOTS)): path for path in sorted(SNAPSHOTS.glob("**/manifests/*/manifest"))}
POINTERS = {one["name"]: one for one in vectors("current_pointer")["cases"]}
# How the parser's own refusals begin; what comes later (where shards lie, strategies that are not supported) is the reader's.
PARSERS_WORDS = (
    "Failed to read SQLite manifest tables: ",
    "Manifest ",
    "SQLite manifest has no build_meta row",
    "Unsupported manifest format",
    "Categorical CEL manifest ",
    "CURRENT pointer validation failed: ",
)


def place(folder: Path, manifest: bytes, pointer: bytes | None = None) -> str:
    """A snapshot with this manifest; its prefix."""
    ref = f"{folder.as_uri()}/manifests/{FOLDER}/manifest"
    path = folder / "manifests" / FOLDER / "manifest"
    path.parent.mkdir(parents=True)
    path.write_bytes(manifest)
    (folder / "_CURRENT").write_bytes(native.format_current(ref, "c", "r1", 0) if pointer is None else pointer)
    return folder.as_uri()


def of_store(prefix: str) -> str | None:
    """Why a manifest store refuses what is current; None when it does not."""
    store = S3ManifestStore(ObstoreBackend(BucketStore(prefix)), prefix)
    try:
        current = store.load_current()
        assert current is not None
        store.load_manifest(f"{prefix}/manifests/{FOLDER}/manifest")
    except ManifestParseError as error:
        return str(error)
    return None


async def of_reader(prefix: str) -> str | None:
    """Why the parser that a reader has does."""
    try:
        reader = await AsyncShardedReader.open(
            s3_prefix=prefix, local_root="unused", max_fallback_attempts=0, lazy_open=True, relocate=True
        )
        await reader.close()
    except ManifestParseError as error:
        if error.object_url and str(error).startswith(PARSERS_WORDS):
            return str(error).removesuffix(f" ({error.object_url})")
    except Exception:  # well-formed, but not for this reader
        pass
    return None


@pytest.mark.parametrize("one", MANIFESTS, ids=lambda one: one["name"])
async def test_manifests(one: dict[str, Any], tmp_path: Path) -> None:
    prefix = place(tmp_path, payload_of(one))
    assert await of_reader(prefix) == of_store(prefix)


@pytest.mark.parametrize("name", GOLDEN)
async def test_golden_manifests(name: str, tmp_path: Path) -> None:
    prefix = place(tmp_path, GOLDEN[name].read_bytes())
    assert await of_reader(prefix) == of_store(prefix)


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_manifests(name: str, tmp_path: Path) -> None:
    copy = damaged(tmp_path, HOSTILE[name])
    prefix = place(tmp_path / "other", next(copy.glob("manifests/*/manifest")).read_bytes())
    why = of_store(prefix)
    assert why is not None
    assert await of_reader(prefix) == why


@pytest.mark.parametrize("cut", [0, 1, 15, 16, 100, 4096, 5000, 12287])
async def test_cut_manifests(cut: int, tmp_path: Path) -> None:
    prefix = place(tmp_path, payload_of(MANIFESTS[0])[:cut])
    why = of_store(prefix)
    assert why is not None
    assert await of_reader(prefix) == why


@pytest.mark.parametrize("name", POINTERS)
async def test_pointers(name: str, tmp_path: Path) -> None:
    one = POINTERS[name]
    payload = bytes.fromhex(one["hex"]) if one.get("hex") is not None else one["text"].encode("utf-8", "surrogatepass")
    prefix = place(tmp_path, payload_of(MANIFESTS[0]), payload)
    why = of_store(prefix)
    assert (why is None) is ("ok" in one)
    if why is not None:
        assert await of_reader(prefix) == why


# ---------------------------------------------------------------- of models


def good() -> ParsedManifest:
    return parse_manifest_payload(payload_of(MANIFESTS[0]))


def test_a_manifest_without_a_zone_is_written_without_one() -> None:
    manifest = good()
    for created_at in (
        datetime(2026, 1, 2, 3, 4, 5, 6),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc),
        datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))),
    ):
        manifest.required_build.created_at = created_at
        assert parse_manifest_payload(manifest_bytes(manifest)).required_build.created_at == created_at


BAD_MODELS: dict[str, dict[str, Any]] = {
    "a shard twice": {"shards": lambda shards: [shards[0], shards[0]]},
    "a shard too many": {"num_dbs": 1},
    "more shards than there are numbers": {"num_dbs": 2**32},
    "a text that storage cannot hold": {"run_id": "a\0b"},
    "a text that UTF-8 cannot hold": {"run_id": "\ud800"},
    "another version": {"format_version": 5},
    "rows beyond what is counted": {"shards": lambda shards: [shards[0].model_copy(update={"row_count": 2**63})]},
}


@pytest.mark.parametrize("name", BAD_MODELS)
def test_models_that_readers_would_refuse(name: str) -> None:
    changes = dict(BAD_MODELS[name])
    manifest = good()
    shards = changes.pop("shards", lambda shards: shards)(manifest.shards)
    required = manifest.required_build.model_copy(update=changes)
    with pytest.raises((ValueError, OverflowError)):
        format_manifest(required, shards, "{}")
    with pytest.raises(ManifestParseError):
        parse_manifest_payload(manifest_bytes(ParsedManifest.model_construct(required_build=required, shards=shards, custom={})))


def test_custom_fields_that_json_cannot_hold() -> None:
    """Stores of the caller's may keep anything there; what the engine asks for are texts."""
    manifest = good()
    manifest.custom = {"kv_backend": "slatedb", "when": datetime(2026, 1, 1), ("a", "tuple"): 1}  # type: ignore[dict-item]
    assert parse_manifest_payload(manifest_bytes(manifest)).custom == {"kv_backend": "slatedb", "when": "2026-01-01 00:00:00"}


def test_rows_are_found_by_number() -> None:
    manifest = native.Manifest(payload_of(MANIFESTS[0]))
    rows = manifest.rows()
    assert rows and [manifest.row(row["db_id"]) for row in rows] == rows
    for none in (-1, len(rows), 2**40):
        assert manifest.row(none) is None
    assert native.Manifest(bytearray(payload_of(MANIFESTS[0])), head_only=True).rows() == []  # type: ignore[arg-type]
    assert native.Manifest(native.format_manifest(manifest.details(), list(reversed(rows)))).rows() == rows


@pytest.mark.parametrize(
    ("details", "rows", "error"),
    [
        ({}, [], TypeError),
        (None, [], TypeError),
        ({"run_id": 1}, [], ValueError),
        ({"key_encoding": "u16"}, [], ValueError),
        ({"created_at_us": 2**63}, [], OverflowError),
        ({"custom": "["}, [], ValueError),
        ({"sharding": "{}"}, [], ValueError),
        (..., 1, TypeError),
        (..., [{}], TypeError),
        (..., [1], TypeError),
    ],
)
def test_what_is_no_manifest(details: Any, rows: Any, error: type[Exception]) -> None:
    head = native.Manifest(payload_of(MANIFESTS[0])).details()
    if details is ...:
        details = head
    elif details:
        details = {**head, **details}
    with pytest.raises(error):
        native.format_manifest(details, rows)


def test_numbers_that_change_their_manifest() -> None:
    manifest = native.Manifest(payload_of(MANIFESTS[0]))
    rows = manifest.rows()

    class Number(int):
        pass

    class Index:
        def __index__(self) -> int:
            rows[0].clear()
            rows.clear()
            return 0

    rows[0]["db_id"] = Number(0)  # type: ignore[typeddict-item]
    assert native.Manifest(native.format_manifest(manifest.details(), rows)).rows()[0]["db_id"] == 0
    rows[0]["db_id"] = Index()  # type: ignore[typeddict-item]
    with pytest.raises(TypeError, match="a manifest needs attempt"):
        native.format_manifest(manifest.details(), rows)


def test_times() -> None:
    for text in ("2026-01-02T03:04:05.678901+00:00", "1969-12-31T23:59:59.999999+00:00", "0001-01-01T00:00:00+00:00"):
        at = datetime.fromisoformat(text)
        assert time_of(microseconds(at)) == at
        assert time_of(microseconds(at), naive=True) == at.replace(tzinfo=None)


def test_names_of_manifests() -> None:
    name = native.manifest_folder(1767323045678901, "r1")
    assert name == FOLDER
    assert native.manifest_refs([name + "/", "x", "a\0b", "\ud800"], "s3://b/p/", "m", 9) == [
        (f"s3://b/p/manifests/{FOLDER}/m", "r1", 1767323045678901)]
    assert native.manifest_refs([name], "s3://b/p", "m", 0) == native.manifest_refs([name], "s3://b/p", "m", -1) == []
    for run_id in ("", ".", "..", "a/b", "a\nb"):
        with pytest.raises(ValueError):
            native.manifest_folder(0, run_id)
    assert native.run_id_of_ref("x/run_id=\ud800") is None
    with pytest.raises(TypeError):
        native.run_id_of_ref(1)  # type: ignore[arg-type]
    assert json.loads(native.format_current("a", "b", "c", 0))["manifest_content_type"] == "b"


def test_shards_of_models_without_rows() -> None:
    shard = RequiredShardMeta(db_id=0, attempt=0, row_count=0, db_bytes=0, min_key="\x7f", max_key=b"\xc3\xa9")
    manifest = ParsedManifest(required=good().required_build, shards=[shard], custom={})
    again = parse_manifest_payload(manifest_bytes(manifest)).shards[0]
    assert (again.db_url, again.min_key, again.max_key) == (None, "\x7f", "é")


# ---------------------------------------------------------------- publishing

# Adapters of the caller's have no tasks, and always store something.
WINNERS = {
    one["name"]: one
    for one in vectors("winners")["cases"]
    if all(a["task_attempt_id"] is None and a["db_url"] is not None for a in one["attempts"])
}


@pytest.mark.parametrize("name", WINNERS)
def test_winners(name: str) -> None:
    one = WINNERS[name]
    attempts = [ShardAttempt(a["db_id"], a["attempt"], a["db_url"], 1, 1, None, None) for a in one["attempts"]]
    if "winners" not in one:
        with pytest.raises(ShardCoverageError):
            choose_winners(attempts, one["num_dbs"])
        return
    won = choose_winners(attempts, one["num_dbs"])
    assert [(a.db_id, a.attempt, a.db_url) for a in won] == [
        (w["db_id"], w["attempt"], w["db_url"]) for w in one["winners"]]


def test_an_attempt_at_a_shard_that_is_none() -> None:
    for db_id in (-1, 2, 2**40):
        with pytest.raises(ShardCoverageError, match=f"names shard {db_id}, the snapshot has shards 0 to 1"):
            choose_winners([ShardAttempt(db_id, 0, "s3://b/x", 1, 1, None, None)], 2)
    assert choose_winners([], 2) == []


def test_the_gate() -> None:
    native.check_empty_shards([0, 2], 4, 2)
    with pytest.raises(PublishRefusedError, match="^not published: 2 of 4 shards are empty, at most 1 may be: 1, 3$"):
        native.check_empty_shards([0, 2], 4, 1)
    native.check_rows_share(50, 100, 0.5, 0.5)
    native.check_rows_share(0, 100, 0, 0)
    for least, most, text in ((0.51, 0, "50 rows are less than 0.51 of the 100"), (0, 0.4, "50 rows are more than 0.4 of the 100")):
        with pytest.raises(PublishRefusedError, match=f"^not published: {text} published before$"):
            native.check_rows_share(50, 100, least, most)


@pytest.mark.parametrize("arguments", [([], -1, 0), ([], 2**32, 0), ([0], 1, 2**32), (["a"], 1, 0), (1, 1, 0)])
def test_what_is_no_number_of_shards(arguments: Any) -> None:
    with pytest.raises((OverflowError, TypeError)):
        native.check_empty_shards(*arguments)
