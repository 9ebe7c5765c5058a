"""Whether a snapshot is whole, and what two of them differ in."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Event
from typing import Any, Literal, Self, TypeAlias

from shardyfusion._engine import native
from shardyfusion._formats import time_of
from shardyfusion._html import facts, table
from shardyfusion._not_copied import NotCopied
from shardyfusion._progress import Measure, Teller, To
from shardyfusion._timeouts import Timeout, seconds
from shardyfusion.credentials import CredentialProvider, S3Credentials
from shardyfusion.errors import ConfigValidationError, OperationCancelledError
from shardyfusion.maintenance._places import AnyPlace, Reach, Snapshot
from shardyfusion.reader._scan import key_decoder
from shardyfusion.type_defs import KeyInput, S3Config

CHANGES_AT_A_TIME = 1000

Fact: TypeAlias = str | int | datetime | None


@dataclass(frozen=True, slots=True)
class Damage:
    """Something that is stored and is not as it should be, or could not be looked at."""

    message: str
    object_url: str | None
    offset: int | None
    """In the object."""


@dataclass(frozen=True, slots=True)
class ShardVerdict:
    """What one shard came to."""

    db_id: int
    objects: int
    bytes: int
    """Looked at, as they are stored."""
    rows: int | None
    """None unless `deep`."""
    manifest_rows: int | None
    """What the manifest says when that is more, in a good shard: some writers count rows that were overwritten."""
    hashed: bool
    """The rows have the content hash that the manifest tells."""
    damages: int
    first: Damage | None
    """None: it is good."""

    @property
    def good(self) -> bool:
        """Whether nothing is damaged."""
        return self.first is None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a snapshot came to."""

    manifest_ref: str
    run_id: str
    deep: bool
    shards: tuple[ShardVerdict, ...]

    def __repr__(self) -> str:
        bad = sum(not shard.good for shard in self.shards)
        depth = "deep" if self.deep else "not deep"
        return f"<VerifyReport run_id={native.safe_text(self.run_id)} shards={len(self.shards)} bad={bad} ({depth})>"

    @property
    def good(self) -> bool:
        """Whether all shards are."""
        return all(shard.good for shard in self.shards)

    def _repr_html_(self) -> str:
        """In a notebook: what is wrong, if anything is."""
        bad = [shard for shard in self.shards if not shard.good]
        told = [("run_id", self.run_id), ("manifest_ref", self.manifest_ref), ("deep", self.deep), ("shards", len(self.shards)), ("bad", len(bad))]
        if not bad:
            return facts("Verified", told)
        rows = [(shard.db_id, shard.damages, shard.first and shard.first.message) for shard in bad]
        return facts("Verified", told) + table(("shard", "damages", "first"), rows)


@dataclass(frozen=True, slots=True)
class VerifyProgress:
    """How far a verification is."""

    shards_done: int
    shards_total: int
    bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that two manifests tell differently; `name` is as in the manifest: `num_dbs`, `shards[3].row_count`."""

    name: str
    before: Fact
    after: Fact


@dataclass(frozen=True, slots=True)
class RowChange:
    """A row in which two snapshots differ."""

    change: Literal["added", "removed", "changed"]
    key: KeyInput
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True, slots=True)
class DiffProgress:
    """How far a comparison of rows is."""

    shards_done: int
    shards_total: int
    """1 where all shards are compared in one order of keys."""
    shards_skipped: int
    """Of the same rows, so that they need not be read."""
    rows: int
    """Read, of both sides."""


class RowChanges(NotCopied):
    """An iterator over the rows in which two snapshots differ. One thread at a time."""

    def __init__(self, steps: Generator[list[RowChange], None, None]) -> None:
        self._steps = steps
        self._found: Iterator[RowChange] = iter(())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RowChange:
        while True:
            for change in self._found:
                return change
            self._found = iter(next(self._steps))

    def close(self) -> None:
        """Ends it. Any number of times."""
        self._steps.close()
        self._found = iter(())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self.close()


def verify(
    place: AnyPlace,
    snapshot: Snapshot = None,
    *,
    deep: bool = False,
    workers: int | None = None,
    progress: To[VerifyProgress] = None,
    cancel: Event | None = None,
    local_root: str | None = None,
    relocate: bool = False,
    confine: bool | None = None,
    current_pointer_key: str | None = None,
    s3_connection_options: Mapping[str, Any] | S3Config | None = None,
    credential_provider: CredentialProvider | S3Credentials | None = None,
    timeout: Timeout = None,
) -> VerifyReport:
    """Looks whether a snapshot is whole: the one that the pointer names, unless told.

    Opens every shard, and reads those parts that describe the rest; with `deep` every byte: checksums, the order of keys, filters,
    to which shard keys belong, the number of rows, and their content hash where the manifest tells one. `workers` shards at a
    time; None: one per processor. A shard that could not be looked at has the reason as its damage.

    `progress` hears about ten times a second how far it is; what it raises ends the call. It may be a bar of shards such as
    `tqdm()`; None: a line where standard error is a terminal, False: nothing. `OperationCancelledError` soon after `cancel` is set. `timeout` is of each request with its retries. Copies of SQLite shards lie in `local_root`; None: in a
    temporary folder.
    """
    if workers is not None and not 1 <= workers <= 1024:
        raise ConfigValidationError(f"workers must be from 1 to 1024, got {workers}")
    reach = _reach(locals())

    teller = Teller(progress, _verified)

    def tell(done: int, total: int, count: int, rows: int) -> None:
        teller(VerifyProgress(done, total, count, rows))
        _check(cancel, "verification")

    try:
        with reach.opened(snapshot) as (pinned,):
            _check(cancel, "verification")
            details = pinned.details()
            verdicts = native.verify(pinned, deep, workers or 0, seconds(timeout), tell)
    finally:
        teller.end()
    return VerifyReport(
        details["manifest_ref"],
        details["run_id"],
        deep,
        tuple(
            ShardVerdict(
                db_id,
                objects,
                count,
                rows if deep else None,
                manifest_rows or None,
                hashed,
                damages,
                None if first is None else Damage(*first),
            )
            for db_id, objects, count, rows, manifest_rows, hashed, damages, first in verdicts
        ),
    )


def diff(
    place: AnyPlace,
    before: Snapshot,
    after: Snapshot = None,
    *,
    relocate: bool = False,
    confine: bool | None = None,
    current_pointer_key: str | None = None,
    s3_connection_options: Mapping[str, Any] | S3Config | None = None,
    credential_provider: CredentialProvider | S3Credentials | None = None,
    timeout: Timeout = None,
) -> list[Difference]:
    """What the manifests of two snapshots tell differently; `after` None: the one that the pointer names. Shards of the same rows
    are not told. Reads no shard. For rows there is `diff_rows()`."""
    local_root = None
    with _reach(locals()).opened(before, after) as (a, b):
        return [
            Difference(name, _fact(kind, told), _fact(kind, tells)) for name, kind, told, tells in native.compare(a, b)
        ]


def diff_rows(
    place: AnyPlace,
    before: Snapshot,
    after: Snapshot = None,
    *,
    decode_keys: bool = False,
    progress: To[DiffProgress] = None,
    cancel: Event | None = None,
    local_root: str | None = None,
    relocate: bool = False,
    confine: bool | None = None,
    current_pointer_key: str | None = None,
    s3_connection_options: Mapping[str, Any] | S3Config | None = None,
    credential_provider: CredentialProvider | S3Credentials | None = None,
    timeout: Timeout = None,
) -> RowChanges:
    """The rows in which two snapshots differ, as they are found, in memory that does not grow with their number.

    Where both put a key into the same shard, shard by shard, without those of the same rows; else in the order of all keys. Keys
    are stored bytes unless `decode_keys`. `ConfigValidationError` when the two store keys in different ways.

    Nothing is opened before the first row is asked for. Use it in `with` when it may be left early. `progress` hears after each step of
    reading how far it is, as in `verify()`. `OperationCancelledError` after the step in which `cancel` is set. `timeout` is of each step.
    """
    teller = Teller(progress, _compared)
    return RowChanges(_row_changes(_reach(locals()), before, after, decode_keys, teller, cancel))


def _row_changes(
    reach: Reach,
    before: Snapshot,
    after: Snapshot,
    decode_keys: bool,
    tell: Teller[DiffProgress],
    cancel: Event | None,
) -> Generator[list[RowChange], None, None]:
    bound = seconds(reach.timeout)
    with reach.opened(before, after) as (a, b):
        decode = key_decoder(a.details()["key_encoding"]) if decode_keys else None
        rows = native.row_diff(a, b)
        try:
            ended = False
            while not ended:
                _check(cancel, "comparison")
                changes, ended, how_far = rows.next(CHANGES_AT_A_TIME, bound)
                tell(DiffProgress(*how_far))
                if changes:
                    tell.hide()  # who asked for them may print them
                yield [
                    RowChange(change, key if decode is None else decode(key), told, tells)
                    for change, key, told, tells in changes
                ]
        finally:
            rows.close()
            tell.end()


def _verified(progress: VerifyProgress) -> Measure:
    done, total = progress.shards_done, progress.shards_total
    return Measure(done, total, f"verify: {done}/{total} shards, {progress.bytes / (1 << 20):,.1f} MiB, {progress.rows:,} rows")


def _compared(progress: DiffProgress) -> Measure:
    done, total = progress.shards_done, progress.shards_total
    return Measure(done, total, f"diff: {done}/{total} shards, {progress.rows:,} rows")


def _reach(given: dict[str, Any]) -> Reach:
    return Reach(**{name: given[name] for name in Reach.__dataclass_fields__})


def _check(cancel: Event | None, what: str) -> None:
    if cancel is not None and cancel.is_set():
        raise OperationCancelledError(f"the {what} was cancelled")


def _fact(kind: str, value: str | int | None) -> Fact:
    return time_of(value) if kind == "time" and isinstance(value, int) else value
