"""The engine behind the package, in C (python/_core). Private: only this package uses it, and it may change.

Every `Operation` is a coroutine object (`await`, `create_task`, `gather`, `wait_for` take it) that starts when it is first
awaited, completes at once when memory has the answer, and ends its work in the engine when it is cancelled or closed.
`wait()` runs it without an event loop, with the GIL released.

Timeouts are seconds, None waits as long as the store's own limits allow. Failures are what the hooks of `set_hooks` make
of the engine's errors.
"""

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Generic, Literal, NotRequired, Protocol, Self, SupportsIndex, TypedDict, TypeVar, final, overload, type_check_only
from uuid import UUID

from shardyfusion.type_defs import K

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Key = int | str | bytes | bytearray | memoryview | UUID | SupportsIndex
ArrowValue = str | tuple[str, ...] | Literal[True]  # the value of a row: a column, or a JSON object of some columns, or of all

VERSION: str
NO_CONTEXT_WITH_HASH: str
SCAN_PREFETCH_BYTES: int
"""What scans read ahead of each shard unless told otherwise."""

@final
class Operation(Coroutine[Any, Any, T_co], Generic[T_co]):
    def send(self, value: Any, /) -> Any: ...
    def throw(self, *args: Any) -> Any: ...
    def close(self) -> None: ...
    def __await__(self) -> Generator[Any, Any, T_co]: ...
    def wait(self) -> T_co:
        """Blocks until the result is there; at most once, and not when it was awaited."""
    def cancel(self) -> None:
        """Ends the engine's work on it, from inside of an answer that it waits for: what comes after that fails."""

@final
class LookUpMetrics:
    """Look-ups of readers, counted without a call of Python's. Of what memory answers one look-up in thirty-two is timed, at random."""

    def add_get(self, seconds: float, found: bool, hit: bool, /) -> None:
        """Counts one that Python has made."""

    def add_multi_get(self, seconds: float, keys: int, found: int, hit: bool, /) -> None:
        """The same of a batch."""

    def snapshot(self) -> dict[str, Any]:
        """Histograms `get_hits`, `get_misses`, `multi_gets`: (count, seconds, [(upper boundary in seconds, how many up to it)]); counts
        `get_hits_found`, `get_misses_found`, `multi_get_keys`, `multi_get_found`, `multi_get_hits`."""

@final
class StoreEvents:
    """Hears of requests that had to be repeated or given up, and, with `requests`, of all that have ended, from every store whose
    S3Options name it. A bounded number is kept; what comes beyond is counted together. Any thread."""

    def __new__(cls, requests: bool = False) -> Self: ...
    def take(self) -> Sequence[tuple[Literal["s3.retry", "s3.retry_exhausted", "s3.request"], dict[str, Any]]]:
        """Moves out what has been noted: events with their payloads."""

@final
class CredentialSource:
    """What the engine asks for other credentials: ahead of the end of those it has, and after the store has refused them.

    `ask` is called on a thread that the engine makes for it. It answers with (access key id, secret access key, session token
    or None, end) or, when there are none, with (whether that may pass, why); it should not raise. Ends are microseconds
    since 1970, 0: not known; `expires_us` is that of the keys in the options."""

    def __new__(
        cls, ask: Callable[[], tuple[str, str, str | None, int] | tuple[bool, str]], expires_us: int = 0
    ) -> Self: ...

def let_go_of_providers() -> None:
    """Drops what every CredentialSource asks: for the end of the interpreter."""

@type_check_only
class S3Options(TypedDict, total=False):
    """None and missing are "not given": the environment, the shared files, then the default (shardyfusion/store.h)."""

    endpoint_url: str | None
    region: str | None
    addressing: Literal["auto", "path", "virtual"] | None
    access_key_id: str | None
    secret_access_key: str | None
    session_token: str | None
    credential_source: CredentialSource | None
    profile: str | None
    ca_bundle: str | None
    insecure: bool
    anonymous: bool
    requester_pays: bool
    connect_timeout_ms: int
    read_timeout_ms: int
    max_retries: int
    retry_base_ms: int
    retry_cap_ms: int
    retry_total_ms: int
    events: StoreEvents | None

# ---------------------------------------------------------------- hooks

def set_hooks(
    *,
    error: Callable[..., BaseException],
    key_error: Callable[[object, str | None], BaseException],
    multi_error: Callable[[list[Exception]], BaseException],
    warning: Callable[[str], None],
) -> None:
    """Called once by the package at import.

    error(status, message, *, http_status, db_id, object_url, operation, attempts, retryable): `status` is a name of
        SF_STATUS_LIST in shardyfusion/base.h such as "CORRUPT"; `db_id`, `object_url`, `operation` may be None. Returns
        the exception to raise.
    key_error(key, encoding): `key` cannot be routed (encoding None) or not be stored under `encoding`; says why.
    multi_error(errors): one exception a failed shard of one multi_get.
    """

# ---------------------------------------------------------------- keys

def canonical_bytes(key: Key) -> bytes: ...
def plain_key(key: Any, /) -> Any:
    """The int, str or bytes that a key is; what is no key as it is."""

def xxh3_64(data: bytes) -> int: ...
def has_authorities() -> bool: ...
def bring_authorities(path: str, /) -> None: ...
def take_variables(options: S3Options, variables: Mapping[str, str], /) -> None:
    """Puts what the variables of a dotenv file say into the options, over what they say."""

def s3_environment() -> dict[str, Any]:
    """What a store that is given nothing uses: `endpoint`, `region`, `addressing`, `ca_bundle`, `requester_pays`."""

def location(url: str, /) -> str:
    """A URL or a path as manifests have it."""

def join_location(prefix: str, name: str, /) -> str:
    """The URL of what has that name below the prefix: percent-encoded in file URLs, as it is in others."""

def decode_location(url: str, part: str, /) -> str:
    """A part of the URL as it is meant, the other way round."""

def manifest_location(ref: str, prefix: str, relocate: bool, confine: bool | None = None, /) -> str:
    """The URL of the manifest that a pointer names, for a reader of `prefix`: moved below it when the schemes differ, or when
    `relocate` says so. ManifestParseError when there is no such place; a PermissionError when it lies elsewhere and the reader is
    confined to its prefix: by default when that is local, or the snapshot is not where it was published."""

def shard_location(
    db_url: str, published_prefix: str, prefix: str, relocate: bool, confine: bool | None = None, /
) -> str:
    """The same for a shard's folder, out of a manifest that was published under `published_prefix`."""

def safe_text(text: str, /) -> str:
    """The text as it may stand in a message: control characters, and what turns text around or hides, as `\\xNN`, `\\uNNNN`."""

@type_check_only
class SiteOptions(TypedDict, total=False):
    s3: S3Options | None
    current_name: str
    timeout: float | timedelta | None

def history(prefix: str, site: SiteOptions, limit: int, /) -> list[tuple[str, str, int, bool]]: ...
def rollback(
    prefix: str, ref: str, site: SiteOptions, force: bool, any_current: bool, expected: str | None, /
) -> None: ...
def cleanup(
    prefix: str,
    site: SiteOptions,
    stale_attempts: bool,
    old_runs: bool,
    keep_last: int,
    older_than_ms: int,
    min_age_ms: int,
    ignore_leases: bool,
    dry_run: bool,
    progress: Callable[[str, str, str, int, bool], object] | None,
    store: tuple[str, bool, Callable[[str, str | None], tuple[str, object]]] | None = None,
    /,
) -> tuple[list[tuple[str, str, str, int, bool]], str | None]:
    """`store`: where the manifests are, when not below the prefix: (name, whether it deletes, ask). `ask(what, ref)` gives "OK" and the answer
    to "load_current" (a reference or None), "load_manifest" (bytes), "list_manifests" (reference, run and microseconds of each), or
    "delete_manifest" (None); else "NOT_FOUND", "BAD_MANIFEST", "CONFLICT" or "IO" and a text."""

def verify(
    snapshot: Snapshot,
    deep: bool,
    threads: int,
    timeout: float | None,
    progress: Callable[[int, int, int, int], object] | None,
    /,
) -> list[tuple[int, int, int, int, int, bool, int, tuple[str, str | None, int | None] | None]]:
    """Of each shard: db_id, objects, bytes, rows, rows of the manifest (0: as many), hashed, damages, the first damage."""

def compare(
    snapshot: Snapshot, other: Snapshot, /
) -> list[tuple[str, Literal["none", "text", "json", "uint", "time"], str | int | None, str | int | None]]: ...
def row_diff(snapshot: Snapshot, other: Snapshot, /) -> RowDiff: ...

@final
class RowDiff:
    def next(
        self, max_changes: int, timeout: float | None, /
    ) -> tuple[
        list[tuple[Literal["added", "removed", "changed"], bytes, bytes | None, bytes | None]],
        bool,
        tuple[int, int, int, int],
    ]:
        """Changes, perhaps none; whether that is all; shards done, of how many, of them skipped, rows read."""
    def close(self) -> None: ...

def cel_shards(sharding: CelSharding, /) -> CelShards:
    """Of what "cel" is among the options of a Writer."""

def cel_rule(sharding: str, num_dbs: int, /) -> CelRule:
    """The rule of a manifest's `sharding` column, a text of JSON."""

def hash_db_id(key: Key, num_dbs: int, /) -> int: ...
def encode_key(encoding: str, key: Key, /) -> bytes:
    """The look-up encoder of snapshots whose key_encoding is `encoding`."""

# ---------------------------------------------------------------- snapshots

@type_check_only
class SnapshotDetails(TypedDict):
    run_id: str
    manifest_ref: str
    s3_prefix: str
    key_col: str
    db_path_template: str
    shard_prefix: str
    sharding: str  # JSON
    custom: str  # JSON
    created_at_us: int
    num_dbs: int
    shard_count: int
    format_version: int
    row_count: int
    key_encoding: str
    strategy: str

@type_check_only
class ShardRow(TypedDict):
    db_id: int
    db_url: str | None
    attempt: int
    row_count: int
    db_bytes: int
    min_key: str | None  # JSON
    max_key: str | None  # JSON
    checkpoint_id: str | None
    writer_info: str  # JSON

@type_check_only
class ManifestHead(TypedDict):
    run_id: str
    s3_prefix: str
    key_col: str
    db_path_template: str
    shard_prefix: str
    sharding: str  # JSON
    custom: str  # JSON
    created_at_us: int
    created_at_naive: bool  # written without a zone
    num_dbs: int
    format_version: int
    key_encoding: str

@type_check_only
class ManifestDetails(ManifestHead):
    manifest_ref: None
    shard_count: int
    row_count: int
    strategy: str

@final
class Manifest:
    """A manifest out of its object's bytes. ManifestParseError when they are not one. Any thread."""

    def __new__(cls, payload: bytes, head_only: bool = False) -> Self:
        """`head_only`: what the shards are is not looked at; there are none then."""
    def details(self) -> ManifestDetails: ...
    def rows(self) -> list[ShardRow]:
        """In db_id order: shards without rows are not among them."""
    def row(self, db_id: int, /) -> ShardRow | None:
        """One of them."""

def format_manifest(details: ManifestHead, rows: Sequence[ShardRow], check: bool = True, /) -> bytes:
    """The bytes of a manifest's object. ConfigValidationError when readers would refuse it; without `check` only for what no
    SQLite file can hold, and other ValueErrors for what no manifest can."""

def postgres_statements(table_name: str, pointer_table_name: str, /) -> dict[str, str]:
    """What to send to PostgreSQL, by name; %s stands for each parameter. ConfigValidationError for names that no table has."""

def postgres_failure(sqlstate: str, text: str, /) -> tuple[str, bool, bool]:
    """What a failure of PostgreSQL means: the engine's status; whether another attempt, over another connection, may help; whether
    the text may quote a password."""

def postgres_manifest(row: str, /) -> bytes:
    """The bytes of a manifest's object, of what the statement "manifest" has answered. ManifestParseError when it has no such
    form; what else is wrong with it, whoever parses it finds out."""

def postgres_rows(manifest: bytes, /) -> tuple[tuple[str, ...], str]:
    """What the statements "put_build" (all of it) and "put_shards" (beside the run id) take of a manifest's object.
    ConfigValidationError for what the tables cannot hold."""

def choose_winners(attempts: Iterable[tuple[int, int, str | None]], num_dbs: int, /) -> list[int]:
    """Of attempts (db_id, attempt, db_url) the places of those that count, by ascending db_id. ConfigValidationError for a
    db_id outside of the snapshot."""

def own_custom(sqlite: SqliteOptions | None, shards: Iterable[tuple[int, int, str | None, str | None]] | None, /) -> str:
    """Our members of a manifest's custom object, as JSON, for SlateDB shards (None) or SQLite ones; `shards` as for
    choose_winners(), with the hashes of their contents."""

def check_empty_shards(db_ids: Iterable[int], num_dbs: int, most: int, /) -> None:
    """PublishRefusedError when more than so many shards are empty; `db_ids`, ascending, are those that are not."""

def check_rows_share(rows: int, previous_rows: int, least: float, most: float, /) -> None:
    """PublishRefusedError for less or more rows than these shares of the snapshot before; 0: no check."""

def manifest_folder(published_at_us: int, run_id: str, /) -> str:
    """The name of a new manifest's folder. ConfigValidationError for a run id that could not be listed again."""

def manifest_refs(folders: Iterable[str], prefix: str, name: str, limit: int, /) -> list[tuple[str, str, int]]:
    """The manifests called `name` in listed folders (their last segments count): reference, run id, time of publishing. Newest
    first; those of one instant by ascending name. Folders of other things are left out."""

def run_id_of_ref(ref: str, /) -> str | None:
    """The run that a manifest's URL names; None when it names none."""

def parse_current(payload: bytes, /) -> tuple[str, str, int, bool]:
    """Of a pointer object: the manifest's reference, the run id, when it was written, and whether without a zone.
    ManifestParseError when it is malformed."""

def format_current(ref: str, content_type: str, run_id: str, updated_at_us: int, /) -> bytes: ...

@final
class Snapshot:
    """One pinned snapshot. Readable until close(), whatever its reader does. Any thread."""

    def details(self) -> SnapshotDetails: ...
    def rows(self) -> list[ShardRow]:
        """The manifest's rows, in db_id order: shards without rows are not among them."""
    def route(self, key: Key | bytearray, context: Mapping[str, object] | None = None, /) -> int: ...
    def encode_key(self, key: Key) -> bytes: ...
    def sqlite_file(self, db_id: int, /) -> str | None:
        """The copy on disk that an SQLite shard is read from; "": it is read by ranges. None: it is no SQLite shard, or not open."""
    def keys_by_shard(
        self, keys: tuple[K, ...], routing_context: Mapping[str, object] | None, /
    ) -> dict[int, tuple[int, list[K], list[bytes]]] | None: ...
    def shard_number(self, db_id: int, /) -> int | None:
        """Of a shard of the caller's own; None: it is not opened, or there is none."""
    def get(
        self, db_id: int, key: bytes, /, timeout: float | None = None, ask: Callable[[Question], object] | None = None
    ) -> Operation[bytes | None]: ...
    def multi_get(
        self, db_id: int, keys: Iterable[bytes], /, timeout: float | None = None,
        ask: Callable[[Question], object] | None = None,
    ) -> Operation[dict[bytes, bytes | None]]: ...
    def get_many(
        self, db_id: int, keys: Iterable[bytes], /, timeout: float | None = None,
        ask: Callable[[Question], object] | None = None,
    ) -> Operation[list[bytes | None]]: ...
    def look_up_many(
        self, keys: Iterable[K], /, routing_context: Mapping[str, object] | None = None,
        on_error: Literal["raise", "return"] = "raise", timeout: float | None = None,
        ask: Callable[[Question], object] | None = None,
    ) -> Operation[dict[K, Any]]: ...
    def contains(
        self, db_id: int, key: bytes, /, timeout: float | None = None, ask: Callable[[Question], object] | None = None
    ) -> Operation[bool]: ...
    def contains_many(
        self, db_id: int, keys: Iterable[bytes], /, timeout: float | None = None,
        ask: Callable[[Question], object] | None = None,
    ) -> Operation[list[bool]]: ...
    def try_get(self, db_id: int, key: bytes, /) -> bytes | None:
        """Out of memory, at once; LookupError when that does not have the answer."""
    def scan(
        self,
        *,
        db_id: int | None = None,
        start: bytes | None = None,
        end: bytes | None = None,
        prefix: bytes | None = None,
        limit: int | None = None,
        reverse: bool = False,
        prefetch_bytes: int = ...,
    ) -> Scan:
        """db_id None: all shards, merged in key order. Keys are stored bytes; [start, end)."""
    def close(self) -> None:
        """Gives the pin back. Any number of times. Dropping the object does the same."""

ArrowBatch = tuple[object, object, int]
"""The capsules of an ArrowSchema and of an ArrowArray, and how many rows."""

def arrow_stream(next: Callable[[], ArrowBatch | None], keys: str, /) -> object:
    """The capsule of an ArrowArrayStream that asks for its batches, on whatever thread reads it."""

@final
class Scan:
    def next(
        self, max_rows: int = 1000, timeout: float | None = None, ask: Callable[[Question], object] | None = None
    ) -> Operation[list[tuple[bytes, bytes]]]:
        """The next rows; an empty list at the end. One step at a time."""
    def next_batch(
        self, keys: str, max_rows: int = 1000, timeout: float | None = None,
        ask: Callable[[Question], object] | None = None,
    ) -> Operation[ArrowBatch | None]:
        """The same as Arrow data, columns "key" and "value": None at the end. `keys`: the encoding in which keys are told."""
    def close(self) -> None: ...

@type_check_only
class Health(TypedDict):
    status: Literal["healthy", "degraded", "unhealthy"]
    closed: bool
    fallback: bool
    num_dbs: int
    age_ms: int
    since_refresh_ms: int
    snapshot_age_ms: int
    borrowed: int
    refresh_failures: int  # since the last success
    last_refresh_error: str  # empty: none

@final
class ShardOpener:
    """Makes a reader ask for its shards rather than read them. Its questions, what they are about, and their answers:

    open_shard: (db_id, url, checkpoint id or None, reference of the manifest, its bytes, whether others may come to wait for
        it, how many are opened together): (a table, what the table is to have under the shard's number)
    values: (number, stored keys): a list of values, None for missing ones
    rows: (number, number of the scan, start, end, prefix, limit, reverse, most rows, most bytes): a list of the next rows
    """

    def closed(self) -> tuple[list[int], list[int]]:
        """Numbers of the shards, and of the scans, that the engine has closed since this was asked before."""

@final
class Reader:
    """Follows one snapshot prefix. Any thread."""

    def snapshot(self, known: Snapshot | None = None, /) -> Snapshot:
        """The present snapshot, pinned; `known` itself while it is that."""
    def refresh(
        self,
        timeout: float | None = None,
        rejected: list[RejectedManifest] | None = None,
        ask: Callable[[Question], Coroutine[Any, Any, None] | None] | None = None,
    ) -> Operation[bool]:
        """`rejected`, `ask`: as for open_reader."""
    def due(self) -> Operation[None]:
        """Ends when a refresh is due, by the "refresh_interval" of the reader's options."""
    def ready(self, timeout: float | None = None) -> Operation[None]:
        """Ends when the snapshot that is served is where the reader's residency says."""
    def ready_bytes(self) -> tuple[int, int]:
        """How far the last `ready()` is: stored bytes, of how many."""
    def moved(self, manifest_ref: str, /) -> Operation[None]:
        """Ends when another manifest than this one is served."""
    def cache_stats(self) -> dict[str, int]:
        """The fields of `CacheStats`."""
    def health(self, staleness_ms: int | None = None, by: Literal["reader", "snapshot", "refresh"] = "reader") -> Health: ...
    def close(self) -> None: ...

@final
class Question:
    """What the engine asks while it works on an operation: its `ask` gets it, and returns a coroutine, which the operation steps
    in the task that awaits it, or None, when somebody else answers. In `wait()` it answers before it returns None. One that is
    given back without an answer has failed.

    Manifests: "load_current" is answered by a reference or None, "load_manifest" (`about` a reference) by the bytes of a
    manifest, "list_manifests" (`about` so many) by a list of references.
    """

    @property
    def what(self) -> str: ...
    @property
    def about(self) -> Any: ...
    def answer(self, value: object, /) -> bool:
        """Any thread. Whether the engine still waited for it."""
    def fail(self, exception: BaseException, status: str = "IO", /) -> bool:
        """The same, with why there is no answer. The operation raises that very exception if it fails because of it.
        "BAD_MANIFEST": that manifest is malformed."""

RejectedManifest = tuple[str, BaseException, bool]
"""The reference of a manifest that was tried and could not be used, why, and whether it is malformed."""

def open_reader(
    prefix: str,
    options: dict[str, Any],
    timeout: float | None = None,
    rejected: list[RejectedManifest] | None = None,
    ask: Callable[[Question], Coroutine[Any, Any, None] | None] | None = None,
) -> Operation[Reader]:
    """`options`: what the table in `_core/reader.c` has the name of; "own_manifests" though there is somebody to ask for shards.
    Manifests that could not be used are appended to `rejected` before the operation returns or raises. With `ask` they come
    from there: see Question."""
def sqlite_sidecar(db: bytes, tag: str | None, /) -> bytes:
    """The sidecar of the bytes of a shard.db, bound to its ETag or (None) to nothing."""
def open_shard(
    url: str, options: Mapping[str, object] | None = None, checkpoint: str | None = None, timeout: float | None = None
) -> Operation[Snapshot]:
    """One shard as a snapshot of its own, db_id 0: only get, multi_get, scan and close may be used. Of the options of readers those
    count that say how shards are read."""

@type_check_only
class LookupObserver(Protocol):
    """Whose collector's `emit(event, payload)` is called after each look-up. `tell_of` has what stores have noted before;
    `collector_failed` any Exception that the collector raised."""

    @property
    def collector(self) -> Any: ...
    @property
    def store_events(self) -> StoreEvents | None: ...
    @property
    def get_event(self) -> object: ...
    @property
    def multi_get_event(self) -> object: ...
    def tell_of(self, noted: Any, /) -> None: ...
    def collector_failed(self, event: Any, error: Any, /) -> None: ...

@final
class CelShards:
    """The shards of a snapshot that is sharded by CEL, while its rows come in. One thread."""

    def place(self, key: Key | bytearray, context: Mapping[str, object] | None = None, /) -> int:
        """The provisional number of a row's shard; after seal() the shard."""
    def place_arrow(self, records: object, key_col: str, before: int = 0, leave_out: bool = False, /) -> set[int]:
        """The provisional numbers that the rows of an Arrow stream have. So many rows came before, for messages. Rows that have none are left out."""
    def seal(self, seen: set[int], count: int, /) -> tuple[int, str]:
        """All rows are there, with these numbers below `count`: how many shards, and the manifest's text."""

@final
class CelRule:
    """A rule for routing by CEL, compiled. Immutable; any thread."""

    def token(self, context: Mapping[str, object], /) -> int | str | bytes:
        """What the expression gives for values of its columns."""
    def route(self, key: Key | bytearray, context: Mapping[str, object] | None = None, /) -> int:
        """The shard of a key."""

class TokenBucket:
    """The arithmetic of shardyfusion.TokenBucket: thread-safe, by the clock time.monotonic()."""

    rate: float
    @property
    def burst(self) -> float: ...
    def __init__(self, rate: float, burst: float | None = None) -> None: ...
    def _take(self, tokens: float, /) -> float:
        """Seconds until the tokens will be there; 0 when they were taken."""
    def _reserve(self, tokens: float, /) -> float:
        """Takes the tokens ahead of time; seconds to wait for them."""
    def _give_back(self, tokens: float, /) -> None:
        """Of a wait that was given up."""
    def _level(self) -> tuple[float, float, float, float]: ...
    def _set_level(self, level: tuple[float, ...], /) -> None: ...

@type_check_only
class LookupLimiter(Protocol):
    """Asked for one token a key. `bucket` in C; the methods when it is None or has none left, `try_take` when it is None."""

    @property
    def bucket(self) -> TokenBucket | None: ...
    def wait_async(self, tokens: int, timeout: float | None, what: str) -> Coroutine[Any, Any, object]: ...
    def wait(self, tokens: int, timeout: float | None, what: str) -> object: ...
    def try_take(self, tokens: int) -> bool: ...

class ReaderCore(Generic[K]):
    """Base of AsyncShardedReader: the hot methods. `_attach(engine)` makes them go straight to the engine; before it, and
    after `_detach()`, they return what the subclass's `_get(key, routing_context, timeout)` and
    `_multi_get(keys, routing_context, timeout, on_error)` coroutine functions return, `try_get` what `_try_get(key,
    routing_context)` does: NotImplemented when memory does not have it. The observer is told of look-ups
    that went straight, before they return or raise. When it was detached while a limiter or a key guard was asked, `_opened()` raises what says why. The limiter is asked after the snapshot is pinned, or (`pins_last`)
    before."""

    def _attach(
        self,
        reader: Reader | Snapshot,
        /,
        observer: LookupObserver | None = None,
        limiter: LookupLimiter | None = None,
        pins_last: bool = False,
        key_guard: Callable[[bytes, str], bool] | None = None,
    ) -> None: ...
    def _detach(self) -> None: ...
    def get(
        self, key: K, *, routing_context: dict[str, object] | None = None, timeout: Any = None
    ) -> Coroutine[Any, Any, bytes | None]: ...
    def multi_get(
        self,
        keys: Sequence[K],
        *,
        routing_context: dict[str, object] | None = None,
        timeout: Any = None,
        on_error: Literal["raise", "return"] = "raise",
    ) -> Coroutine[Any, Any, dict[K, bytes | None]]: ...
    def get_many(
        self, keys: Sequence[K], *, routing_context: dict[str, object] | None = None, timeout: Any = None
    ) -> Coroutine[Any, Any, list[bytes | None]]: ...
    def contains(
        self, key: K, *, routing_context: dict[str, object] | None = None, timeout: Any = None
    ) -> Coroutine[Any, Any, bool]: ...
    def contains_many(
        self, keys: Sequence[K], *, routing_context: dict[str, object] | None = None, timeout: Any = None
    ) -> Coroutine[Any, Any, list[bool]]: ...
    @overload
    def try_get(self, key: K, *, routing_context: dict[str, object] | None = None) -> bytes | None: ...
    @overload
    def try_get(
        self, key: K, default: T, *, routing_context: dict[str, object] | None = None
    ) -> bytes | T | None: ...

class BlockingReaderCore(Generic[K]):
    """The same for blocking readers: methods give their results, and so do `_get` and `_multi_get`."""

    def _attach(
        self,
        reader: Reader | Snapshot,
        /,
        observer: LookupObserver | None = None,
        limiter: LookupLimiter | None = None,
        pins_last: bool = False,
        key_guard: Callable[[bytes, str], bool] | None = None,
    ) -> None: ...
    def _detach(self) -> None: ...
    def get(
        self, key: K, *, routing_context: dict[str, object] | None = None, timeout: Any = None
    ) -> bytes | None: ...
    def multi_get(
        self,
        keys: Sequence[K],
        *,
        routing_context: dict[str, object] | None = None,
        timeout: Any = None,
        on_error: Literal["raise", "return"] = "raise",
    ) -> dict[K, bytes | None]: ...
    def get_many(
        self, keys: Sequence[K], *, routing_context: dict[str, object] | None = None, timeout: Any = None
    ) -> list[bytes | None]: ...
    def contains(
        self, key: K, *, routing_context: dict[str, object] | None = None, timeout: Any = None
    ) -> bool: ...
    def contains_many(
        self, keys: Sequence[K], *, routing_context: dict[str, object] | None = None, timeout: Any = None
    ) -> list[bool]: ...
    @overload
    def try_get(self, key: K, *, routing_context: dict[str, object] | None = None) -> bytes | None: ...
    @overload
    def try_get(
        self, key: K, default: T, *, routing_context: dict[str, object] | None = None
    ) -> bytes | T | None: ...

# ---------------------------------------------------------------- writing

@type_check_only
class SlateDbOptions(TypedDict, total=False):
    compression: Literal["none", "snappy", "zlib", "lz4", "zstd"]
    block_bytes: int
    bits_per_key: int
    min_filter_keys: int
    sst_bytes: int

@type_check_only
class SqliteOptions(TypedDict, total=False):
    page_bytes: int  # 0: chosen by the sizes of the values
    sidecar: bool

@type_check_only
class CelSharding(TypedDict):
    expr: str
    columns: Mapping[str, str]  # name to type
    mode: Literal["direct", "categorical", "inferred"]
    values: Sequence[int | str | bytes] | None

@type_check_only
class WriterOptions(TypedDict, total=False):
    """As sf_writer_options in shardyfusion/writer.h; what is missing or None keeps its default there."""

    s3: S3Options | None
    shard_s3: S3Options | None
    current_name: str
    run_id: str
    new_run_id: bool
    num_dbs: int
    key_encoding: str
    key_col: str
    custom_json: str
    db_path_template: str
    shard_prefix: str
    backend: Literal["slatedb", "sqlite"]
    slatedb: SlateDbOptions
    sqlite: SqliteOptions
    on_duplicate: Literal["last", "error"]
    memory_bytes: int
    spill_folder: str
    attempt: int
    stage_id: int | None
    task_attempt_id: int | None
    threads: int
    max_retries: int
    retry_base_ms: int
    retry_multiplier: float
    run_registry_prefix: str  # missing: no run record
    writer_type: str
    expected_current: str | None  # missing: whatever the pointer names; None: there is none
    min_rows_share: float
    max_rows_share: float
    max_empty_shards: int
    sample_keys: int
    resume: bool
    reuse_unchanged: bool
    progress_interval_ms: int
    cel: CelSharding | None

@type_check_only
class Attempt(TypedDict):
    db_id: int
    attempt: int
    retries: int
    db_url: str | None
    row_count: int
    duplicates: int
    db_bytes: int
    min_key: str | None  # JSON
    max_key: str | None  # JSON
    checkpoint_id: str | None
    content_hash: str | None
    duration_ms: int
    bytes_keys: bool  # the keys were bytes, which JSON shows as text
    reused: bool  # it was stored before
    taken_from: str | None  # then: by the snapshot of this manifest; None: by an earlier try of the run
    stage_id: int | None
    task_attempt_id: int | None
    opening: str | None  # what readers are told of it for its opening
    bad_rows: NotRequired[int]  # of a task of an engine: rows that were left out on their way to it

@type_check_only
class WriteReport(TypedDict):
    run_id: str
    manifest_ref: str | None
    run_record_ref: str | None
    num_dbs: int
    attempts: list[Attempt]
    winners: list[Attempt]
    rows: int
    bad_rows: int
    key_bytes: int
    value_bytes: int
    duplicates: int
    spilled_bytes: int
    published_rows: int
    published_bytes: int
    key_sizes: list[int]
    value_sizes: list[int]
    largest_over_mean: float
    suggested_num_dbs: int
    warning: str | None
    sharding: str | None  # the manifest's text; None while it depends on rows to come
    published: bool
    previous_rows: int | None
    found_ref: str | None
    losers_deleted: int
    reused_shards: int
    adding_ms: int
    building_ms: int
    publishing_ms: int
    total_ms: int

@final
class Writer:
    """Writes one snapshot. One thread at a time, but for cancel().

    row_error(error, key, value, number): `error` was raised while row `number` was made, or is None: then the key or the
        value is nothing that can be published. Returns the exception to raise.
    progress((phase, rows_added, bytes_added, rows_built, bytes_stored, shards_done, shards_total, elapsed_ms)): on the
        calling thread, about every `progress_interval_ms`; an exception ends what is under way and is what the call raises.
    check(report): before anything becomes visible; an exception refuses, and is what publish() raises.
    bad_row: None raises; True leaves rows that cannot be stored out; a callable hears of each, (number, exception, record of
        add_rows() or None, key and value of columns or None), and ends the write by raising.
    """

    def __new__(
        cls,
        prefix: str,
        options: WriterOptions,
        row_error: Callable[[BaseException | None, object, object, int], BaseException],
        *,
        progress: Callable[[tuple[Any, ...]], object] | None = None,
        check: Callable[[WriteReport], object] | None = None,
        bad_row: Callable[[int, Exception, Any, Any, bytes | None], object] | Literal[True] | None = None,
    ) -> Self: ...
    def add_rows(
        self,
        iterator: Iterator[Any],
        key_fn: Callable[[Any], Any],
        value_fn: Callable[[Any], Any],
        count: int,
        columns_fn: Callable[[Any], Mapping[str, object]] | None = None,
        /,
    ) -> tuple[int, int]:
        """(records taken, bytes of their values); fewer than `count` records: the iterator has ended. An error of the engine's
        about a row has its key as `row_key`."""
    def add_arrow(self, records: Any, key_col: str, value: ArrowValue, /) -> None: ...
    def add_shuffled(self, blocks: Iterable[bytes], /) -> None:
        """The rows of blocks of a Shuffle, whichever process made them."""
    def add_attempt(self, attempt: Attempt, /) -> None:
        """A shard that another process has built: one of the attempts of its report."""
    def build(self) -> WriteReport: ...
    def find_shards(self) -> WriteReport:
        """MissingObjectError when a clean-up has removed one that was built."""
    def publish(self) -> WriteReport: ...
    def abort(self, error_type: str | None = None, error_message: str | None = None, /) -> None: ...
    def report(self) -> WriteReport: ...
    def cancel(self) -> None: ...
    def close(self) -> None: ...

@type_check_only
class ShuffleOptions(TypedDict, total=False):
    num_dbs: int
    key_encoding: str
    backend: Literal["slatedb", "sqlite"]
    block_bytes: int
    leave_out: bool  # rows that cannot be stored or have no shard; their number travels in the blocks
    cel: CelSharding | None

@final
class Shuffle:
    """From rows to blocks of rows of one shard each, for engines that move rows between processes. One thread. What it returns are
    the number of blocks that are complete, and three buffers of Arrow arrays: their shards (int32), offsets (int32) and bytes."""

    def __new__(cls, options: ShuffleOptions) -> Self: ...
    def add_arrow(self, records: Any, key_col: str, value: ArrowValue, /) -> tuple[int, bytes, bytes, bytes]: ...
    def leave_out(self, count: int, /) -> None:
        """So many rows are left out, which are not in what it is given."""
    def finish(self) -> tuple[int, bytes, bytes, bytes]:
        """No rows follow."""

@type_check_only
class ShardResult(TypedDict):
    rows: int
    rows_added: int
    stored_bytes: int
    db_bytes: int
    checkpoint_id: str
    content_hash: str

@final
class ShardWriter:
    """Writes one shard at a URL where nothing is yet. One thread at a time, but for cancel()."""

    def __new__(
        cls,
        url: str,
        *,
        s3: S3Options | None = None,
        spill_folder: str | None = None,
        memory_bytes: int | None = None,
        slatedb: SlateDbOptions | None = None,
        sqlite: SqliteOptions | None = None,
    ) -> Self:
        """`sqlite` given: an SQLite shard."""
    def add(self, pairs: Iterable[tuple[bytes, bytes]], /) -> None:
        """Rows in any order. Of rows with one key the last wins."""
    def finish(self) -> ShardResult: ...
    def cancel(self) -> None: ...
    def close(self) -> None:
        """Takes back what was stored, unless finish() succeeded. Any number of times."""

def shard_content(url: str, s3: S3Options | None = None, folder: str | None = None) -> tuple[int, str]:
    """Reads all rows of a shard: (how many, the content hash that its writer reported if they are the same). An SQLite shard by
    a copy in `folder`, which stays there; None: by ranges, page by page."""

def run_record_folder(started_at_us: int, run_id: str, /) -> str:
    """The name of a new run record's folder, which tells of this process."""

def check_run(prefix: str, s3: S3Options | None, run_registry_prefix: str, run_id: str, /) -> None:
    """Raises while another writer's lease on the run lasts."""

def next_attempts(prefix: str, s3: S3Options | None, shard_prefix: str, run_id: str, /) -> dict[str, int]:
    """Of each path of a shard that has attempts of the run the number of the next one."""

def format_run_record(fields: Mapping[str, Any]) -> bytes:
    """YAML. Times are microseconds since 1970, UTC."""

def run_record_is_refused(status: str) -> bool:
    """Whether a store that failed with this status of the engine to take a run's first record would fail its shards, too."""

def parse_run_record(payload: bytes) -> dict[str, Any]:
    """ValueError when it is none."""

@final
class Lease:
    """The lease of a run whose record Python keeps. `put` is called with the fields of each record, on the thread of run() or
    finish(), one at a time; True: it is kept. Times of the boot clock. In a forked child nothing here does anything."""

    def __new__(
        cls, fields: dict[str, Any], put: Callable[[dict[str, Any]], bool], lease_ms: int, heartbeat_ms: int, renewed_ms: int
    ) -> Self: ...
    def run(self) -> None:
        """Renews the record in time, until the lease is stopped."""
    def has_lapsed(self, now_ms: int, /) -> bool:
        """Whether it was not renewed in time, now or before a late renewal."""
    def announce(self, manifest_ref: str | None, /) -> None:
        """The record names the manifest from its next renewal on; None: it names none after all."""
    def renew(self) -> None:
        """Renews the record now."""
    def stop(self) -> None:
        """Ends run()."""
    def finish(self, status: Literal["succeeded", "failed"], error_type: str | None, error_message: str | None, /) -> None:
        """The last word. A second one does nothing."""

# ---------------------------------------------------------------- objects

@final
class Store:
    """The objects of one bucket, folder tree or in-process space. `url` is the root or anything below it; keys are relative
    to the root (see `split`). Any thread."""

    def __new__(cls, url: str, s3: S3Options | None = None) -> Self: ...
    def get(self, key: str, timeout: float | None = None) -> Operation[bytes]: ...
    def head(self, key: str, timeout: float | None = None) -> Operation[tuple[int, str]]:
        """(size, ETag)"""
    def put(
        self,
        key: str,
        body: bytes,
        *,
        content_type: str | None = None,
        if_match: str | None = None,
        create_only: bool = False,
        timeout: float | None = None,
    ) -> Operation[str]:
        """The new ETag. "CONFLICT" when the condition does not hold."""
    def list(
        self, prefix: str, *, delimiter: str | None = None, timeout: float | None = None
    ) -> Operation[list[tuple[str, int, bool]]]:
        """(key, size, is a common prefix), all pages, ascending."""
    def delete(self, key: str, timeout: float | None = None) -> Operation[None]: ...
    def delete_many(self, keys: Sequence[str], timeout: float | None = None) -> Operation[None]:
        """At most 1000."""

def takes_json_of(records: Any, columns: tuple[str, ...] | Literal[True], /) -> bool:
    """Whether add_arrow() of such records makes JSON objects of these columns. No row is read."""

def shuffled_rows(block: bytes, /) -> tuple[int, list[tuple[int, int | str | bytes, bytes, bytes]]]:
    """(rows that were left out, [(shard, key as given, stored key, value)]) of a block of a Shuffle."""

def split_url(url: str) -> tuple[str, str]:
    """("s3://bucket", "path") · ("file://", "absolute/path") · ("mem://name", "path")"""

def timeout_seconds(timeout: Any, /) -> float | None:
    """None: without end. TypeError and ValueError for what is no time."""

def settle() -> Operation[None]:
    """Ends when the engine has let go of all operations that had ended before, and so closed what nobody else uses."""
def running_loop() -> asyncio.AbstractEventLoop:
    """RuntimeError that says what is needed when there is none."""

def turn_is_over() -> bool:
    """Whether a coroutine whose steps all end at once must give way to its event loop now."""

def loop_has_run() -> None:
    """What event loops call."""

def runtime_stats() -> dict[str, int]: ...
