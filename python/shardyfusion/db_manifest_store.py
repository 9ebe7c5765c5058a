"""Manifests in a PostgreSQL database."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any, Generic, TypeVar

import shardyfusion
from shardyfusion import _formats
from shardyfusion._engine import native
from shardyfusion._fork import add_locks
from shardyfusion._storage_errors import DeniedObjectError, MissingObjectError
from shardyfusion._timeouts import Timeout, seconds, time_left
from shardyfusion.config import ANY, ExpectedCurrent
from shardyfusion.errors import (
    ConfigValidationError,
    ManifestParseError,
    ManifestStoreError,
    OperationTimeoutError,
    PublishConflictError,
)
from shardyfusion.manifest import ManifestRef
from shardyfusion._manifest_objects import conflict

__all__ = ["PostgresManifestStore"]

T = TypeVar("T")

_ATTEMPTS = 5
_FIRST_WAIT_S = 0.1  # before the second attempt; twice as long before each further one
_MOST_STUCK = 16
_INTEGER_MAX = 2**31 - 1
_IDLE = 0  # libpq's PQTRANS_IDLE, in psycopg and psycopg2


class PostgresManifestStore:
    """Manifests as rows of three tables, and a pointer that moves in one transaction with them. A manifest's reference is its run id.

    `connection_factory` makes a DB-API connection (psycopg, psycopg2, pg8000); each operation takes one and closes it. It runs on
    a thread of its own, so that a server that hangs holds nobody longer than `timeout`, or than the deadline of the call that asks.
    A connection of pg8000 that hangs cannot be cut off from outside: its thread stays until the server answers, or the `timeout` that
    the factory gave it ends. What fails because the server restarts is tried again. Any thread; for readers and writers of either kind.
    """

    _lock: threading.Lock
    _stuck: int  # how many calls were given up, and have not come back

    def __init__(
        self,
        connection_factory: Callable[[], Any],
        *,
        table_name: str = "shardyfusion_manifests",
        pointer_table_name: str = "shardyfusion_pointer",
        ensure_table: bool = True,
        timeout: Timeout = 30.0,
    ) -> None:
        self._statements = native.postgres_statements(table_name, pointer_table_name)
        self._connection_factory = connection_factory
        self._timeout = seconds(timeout)
        self.table_name = table_name
        self.pointer_table_name = pointer_table_name
        add_locks(self, _lock=threading.Lock, _stuck=int)
        if ensure_table:
            try:
                self._run("create tables", self._ensure_tables)
            except (ManifestStoreError, OperationTimeoutError) as error:
                raise ConfigValidationError(f"Failed to create manifest tables: {error}") from error

    # ---- the store

    def publish(
        self,
        *,
        run_id: str,
        required_build: shardyfusion.RequiredBuildMeta,
        shards: list[shardyfusion.RequiredShardMeta],
        custom: dict[str, Any],
        expected_current: ExpectedCurrent = ANY,
    ) -> str:
        """Stores the manifest and moves the pointer to it, in one transaction; returns the run id.

        PublishConflictError when the pointer does not name `expected_current` (None: when there is one).
        """
        return self._run("publish", self._publishing(run_id, required_build, shards, custom, expected_current))

    def load_current(self) -> ManifestRef | None:
        """What the pointer names, or without one the newest manifest; None when there is none."""
        return self._run("load_current", self._load_current)

    def load_manifest(self, ref: str) -> shardyfusion.ParsedManifest:
        """The manifest of a run. ManifestParseError when it is malformed; one that is not there is also a FileNotFoundError."""
        return self._run("load_manifest", lambda session: self._load_manifest(session, ref))

    def list_manifests(self, *, limit: int = 10) -> list[ManifestRef]:
        """The manifests, newest first."""
        return self._run("list_manifests", lambda session: self._list_manifests(session, limit))

    def delete_manifest(self, ref: str) -> None:
        """Deletes the manifest of a run for good, if it is there. PublishConflictError when the pointer names it."""
        self._run("delete_manifest", lambda session: self._delete_manifest(session, ref))

    def set_current(self, ref: str, *, expected_current: ExpectedCurrent = ANY) -> None:
        """Moves the pointer to the manifest of a run, which must be there."""
        self._run("set_current", lambda session: self._set_current(session, ref, expected_current))

    # ---- what is done with a connection

    def _ensure_tables(self, session: _Session) -> None:
        if session.rows("tables_exist") == [(True,)]:  # whoever may only read needs no more
            return
        with session.transaction():
            session.rows("create")

    def _load_current(self, session: _Session) -> ManifestRef | None:
        rows = session.rows("current")
        if not rows:
            return None
        ref = self._ref_of(rows[0])
        if ref is None:
            raise ManifestParseError(
                f"CURRENT pointer validation failed: the newest row of table {self.pointer_table_name!r} holds no time, or no reference"
            )
        return ref

    def _load_manifest(self, session: _Session, ref: str) -> shardyfusion.ParsedManifest:
        where = f"tables {self.table_name}_builds and {self.table_name}_shards, run_id {ref!r}"
        rows = session.rows("manifest", ref)
        if not rows:
            raise MissingObjectError(f"PostgreSQL load_manifest: there is no such row ({where})")
        if not isinstance(rows[0][0], str):
            raise ManifestParseError(f"Manifest validation failed: the row is not a text ({where})")
        try:
            return _formats.parse_manifest_payload(native.postgres_manifest(rows[0][0]))
        except ManifestParseError as error:
            raise ManifestParseError(f"{error} ({where})") from error

    def _list_manifests(self, session: _Session, limit: int) -> list[ManifestRef]:
        refs = (self._ref_of(row) for row in session.rows("list", max(0, limit)))
        return [ref for ref in refs if ref is not None]  # one of an impossible time is none

    @staticmethod
    def _ref_of(row: tuple[Any, ...]) -> ManifestRef | None:
        ref, us = row
        if not isinstance(ref, str) or not isinstance(us, int):
            return None
        try:
            return ManifestRef(ref, ref, _formats.time_of(us))
        except OverflowError:
            return None

    def _publishing(
        self,
        run_id: str,
        required_build: shardyfusion.RequiredBuildMeta,
        shards: list[shardyfusion.RequiredShardMeta],
        custom: dict[str, Any],
        expected_current: ExpectedCurrent,
    ) -> Callable[[_Session], str]:
        """What publishes, once everything that can be checked has been."""
        manifest = _formats.format_manifest(required_build, shards, json.dumps(custom, sort_keys=True))  # refuses what readers would
        build, rows = native.postgres_rows(manifest)
        build = (run_id, *build[1:])
        sent = False

        def publish(session: _Session) -> str:
            nonlocal sent
            with session.transaction():
                session.rows("lock")
                # a commit without an answer may have happened, and others may have published since; one that is under way holds the lock
                if sent and session.rows("pointed", *build[:2]):
                    return run_id
                self._expect(session, expected_current)
                session.rows("put_build", *build)
                session.rows("drop_shards", run_id)
                session.rows("put_shards", run_id, rows)
                session.rows("point", run_id)
                sent = True
            return run_id

        return publish

    def _delete_manifest(self, session: _Session, ref: str) -> None:
        with session.transaction():
            session.rows("lock")
            rows = session.rows("current")
            if rows and rows[0][0] == ref:
                raise PublishConflictError(f"CURRENT names {ref!r}, which therefore stays", found=ref)
            session.rows("drop_shards", ref)
            session.rows("drop_build", ref)

    def _set_current(self, session: _Session, ref: str, expected_current: ExpectedCurrent) -> None:
        with session.transaction():
            session.rows("lock")
            self._expect(session, expected_current)
            if not session.rows("point", ref):
                raise MissingObjectError(f"table {self.table_name}_builds has no row of run_id {ref!r}: CURRENT stays as it is")

    @staticmethod
    def _expect(session: _Session, expected_current: ExpectedCurrent) -> None:
        if expected_current is ANY:
            return
        rows = session.rows("current")
        found = rows[0][0] if rows else None
        if found != expected_current:
            raise conflict(expected_current, found)

    # ---- how it is done

    def _run(self, what: str, work: Callable[[_Session], T]) -> T:
        return _Call(self, what, work).wait()

    def _for_asyncio(self) -> _AsyncPostgresManifestStore:
        return _AsyncPostgresManifestStore(self)


class _AsyncPostgresManifestStore:
    """The same for coroutines: they wait for the thread without one of the event loop's."""

    def __init__(self, store: PostgresManifestStore) -> None:
        self._store = store

    async def _run(self, what: str, work: Callable[[_Session], T]) -> T:
        return await _Call(self._store, what, work).wait_async()

    async def load_current(self) -> ManifestRef | None:
        return await self._run("load_current", self._store._load_current)

    async def load_manifest(self, ref: str) -> shardyfusion.ParsedManifest:
        return await self._run("load_manifest", lambda session: self._store._load_manifest(session, ref))

    async def list_manifests(self, *, limit: int = 10) -> list[ManifestRef]:
        return await self._run("list_manifests", lambda session: self._store._list_manifests(session, limit))

    async def publish(
        self,
        *,
        run_id: str,
        required_build: shardyfusion.RequiredBuildMeta,
        shards: list[shardyfusion.RequiredShardMeta],
        custom: dict[str, Any],
        expected_current: ExpectedCurrent = ANY,
    ) -> str:
        work = self._store._publishing(run_id, required_build, shards, custom, expected_current)
        return await self._run("publish", work)

    async def set_current(self, ref: str, *, expected_current: ExpectedCurrent = ANY) -> None:
        await self._run("set_current", lambda session: self._store._set_current(session, ref, expected_current))


# ---------------------------------------------------------------- one connection


class _Session:
    """A connection, while an operation uses it."""

    def __init__(self, connection: Any, statements: Mapping[str, str], bound: float | None) -> None:
        self._connection = connection
        self._statements = statements
        self._bound = bound
        self._was_autocommit: bool | None = None

    def rows(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a statement answers. Outside of a transaction it is one round trip where the driver has autocommit."""
        if self._was_autocommit is None:
            self._was_autocommit = getattr(self._connection, "autocommit", None)
            self._set_autocommit(True)
        return self._execute(self._statements[statement], values)

    def transaction(self) -> _Transaction:
        return _Transaction(self)

    def _execute(self, text: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        cursor = self._connection.cursor()
        try:
            if values:
                cursor.execute(text, values)
            else:
                cursor.execute(text)
            rows = cursor.fetchall() if cursor.description else []
        finally:
            cursor.close()
        return [tuple(row.values()) if isinstance(row, Mapping) else tuple(row) for row in rows]

    def _set_autocommit(self, on: bool) -> None:
        """Where the driver has it, and the caller has begun no transaction."""
        info = getattr(self._connection, "info", None)
        if getattr(self._connection, "autocommit", on) is not on and getattr(info, "transaction_status", _IDLE) == _IDLE:
            self._connection.autocommit = on

    def end(self) -> None:
        """The connection as it was, for factories that lend theirs."""
        if self._was_autocommit is not None:
            if self._was_autocommit is False and getattr(self._connection, "autocommit", None) is False:
                self._connection.rollback()  # of what was only read
            self._set_autocommit(self._was_autocommit)


class _Transaction:
    """Commits at its end, or rolls back. The server ends it when its client is gone, or has stopped."""

    def __init__(self, session: _Session) -> None:
        self._session = session

    def __enter__(self) -> None:
        session = self._session
        if session._was_autocommit is None:
            session._was_autocommit = getattr(session._connection, "autocommit", None)
        session._set_autocommit(False)
        if session._bound is not None:
            ms = int(min(max(1, session._bound * 1000), _INTEGER_MAX))
            session._execute(
                f"SET LOCAL statement_timeout = {ms}; SET LOCAL idle_in_transaction_session_timeout = {ms}"
            )

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if error is None:
            self._session._connection.commit()
        else:
            with suppress(Exception):  # what went wrong is on its way already
                self._session._connection.rollback()


# ---------------------------------------------------------------- one operation


class _Call(Generic[T]):
    """An operation on a thread of its own: whoever waits for it can give up."""

    def __init__(self, store: PostgresManifestStore, what: str, work: Callable[[_Session], T]) -> None:
        left = time_left()
        self._store = store
        self._what = what
        self._work = work
        self._callers = left is not None and (store._timeout is None or left <= store._timeout)
        self._bound = left if self._callers else store._timeout
        self._ends_at = None if self._bound is None else time.monotonic() + self._bound
        self._future: Future[T] = Future()
        self._lock = threading.Lock()
        self._given_up = threading.Event()  # set under the lock
        self._ended = False  # under the lock
        self._connection: Any = None  # under the lock
        self._last: Exception | None = None
        with store._lock:
            if store._stuck >= _MOST_STUCK:
                raise ManifestStoreError(
                    f"PostgreSQL {what}: {store._stuck} connections that were given up have not ended yet; give the driver a connect_timeout"
                )
        threading.Thread(target=self._body, name="shardyfusion-postgres", daemon=True).start()

    def wait(self) -> T:
        try:
            return self._future.result(self._bound)
        except TimeoutError:
            if self._future.done():  # it is the operation's own
                raise
            raise self._late() from self._last
        finally:
            self._give_up()

    async def wait_async(self) -> T:
        try:
            async with asyncio.timeout(self._bound) as timer:
                return await asyncio.wrap_future(self._future)
        except TimeoutError:
            if not timer.expired():
                raise
            raise self._late() from self._last
        finally:
            self._give_up()

    def _late(self) -> Exception:
        text = f"PostgreSQL {self._what}: no answer within {self._bound:g} s"
        if self._last is not None:
            text = f"{text}; the last attempt: {self._last}"
        return OperationTimeoutError(text) if self._callers else ManifestStoreError(text)

    def _give_up(self) -> None:
        """Nobody waits any more. A thread that waits for the server gets an end of file instead."""
        with self._lock:
            if self._ended:
                return
            self._given_up.set()
            with self._store._lock:
                self._store._stuck += 1
            if self._connection is not None:
                _cut(self._connection)

    # ---- the thread

    def _body(self) -> None:
        try:
            result = self._attempts()
        except BaseException as error:
            self._settle(self._future.set_exception, error)
        else:
            self._settle(self._future.set_result, result)

    def _settle(self, settle: Callable[[Any], None], value: Any) -> None:
        with self._lock:
            with suppress(InvalidStateError):  # a task that was cancelled has cancelled it
                settle(value)
            self._ended = True
            given_up = self._given_up.is_set()
        if given_up:
            with self._store._lock:
                self._store._stuck -= 1

    def _attempts(self) -> T:
        wait = _FIRST_WAIT_S
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._attempt()
            except Exception as error:
                failure, again = _failure(error, self._what)
                if failure is not error and not _may_tell_password(error):
                    failure.__cause__ = error
            if isinstance(failure, ManifestStoreError):
                failure.attempts = attempt
            self._last = failure
            pause = wait * random.uniform(0.5, 1.5)
            late = self._ends_at is not None and time.monotonic() + pause >= self._ends_at
            if not again or attempt == _ATTEMPTS or late or self._given_up.wait(pause):
                raise failure  # out here: the driver's error is not even its context
            wait *= 2
        raise AssertionError("unreachable")

    def _attempt(self) -> T:
        connection = self._store._connection_factory()
        with self._lock:
            self._connection = connection
            if self._given_up.is_set():
                _cut(connection)
        try:
            left = None if self._ends_at is None else max(0.001, self._ends_at - time.monotonic())
            session = _Session(connection, self._store._statements, left)
            result = self._work(session)
            session.end()
            return result
        finally:
            with self._lock:  # its descriptor may be another's as soon as it is closed
                self._connection = None
            with suppress(Exception):  # one that is broken already
                connection.close()


def _cut(connection: Any) -> None:
    """Ends what waits on a connection. To close it, or to free anything of it, is for its own thread only."""
    try:
        descriptor = os.dup(connection.fileno())
    except Exception:  # closed, or a driver that has no such method: its own timeout has to end it
        return
    try:
        end = socket.socket(fileno=descriptor)
    except OSError:  # it is none
        os.close(descriptor)
        return
    with end, suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)


# ---------------------------------------------------------------- failures


def _sqlstate(error: BaseException) -> str:
    state = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if state is None and error.args and isinstance(error.args[0], dict):  # pg8000
        state = error.args[0].get("C")
    return state if isinstance(state, str) else ""


def _failure(error: Exception, what: str) -> tuple[Exception, bool]:
    """The package's exception for one of the driver, and whether another attempt may help. What is none of the driver's stays."""
    kinds = {cls.__name__ for cls in type(error).__mro__}
    if not kinds & {"DatabaseError", "InterfaceError", "OSError"} or isinstance(error, (ManifestStoreError, TimeoutError)):
        return error, False
    status, again, _ = _meaning(error)
    text = f"PostgreSQL {what}: {_text(error)}"
    if status == "INVALID":
        return ConfigValidationError(f"{text} (PostgreSQL cannot store what was given)"), False
    if status in ("DENIED", "NOT_FOUND"):
        return {"DENIED": DeniedObjectError, "NOT_FOUND": MissingObjectError}[status](text), False
    # what has no state and is not about a connection is the program's own mistake
    return ManifestStoreError(text), again and bool(_sqlstate(error) or kinds & {"OperationalError", "InterfaceError", "OSError"})


def _meaning(error: BaseException) -> tuple[str, bool, bool]:
    return native.postgres_failure(_clean(_sqlstate(error)), _clean(str(error)))


def _clean(text: str) -> str:
    """As the engine takes it, whatever a server or a driver has put there."""
    return text.replace("\0", "").encode(errors="replace").decode()


def _may_tell_password(error: BaseException) -> bool:
    return _meaning(error)[2]


def _text(error: BaseException) -> str:
    if _may_tell_password(error):
        return f"the connection cannot be made ({type(error).__name__}); its text is left out, since it may quote the password"
    if error.args and isinstance(error.args[0], dict):
        return str(error.args[0].get("M"))
    return re.sub(r"\s*\n\s*", "; ", str(error).strip()) or type(error).__name__
