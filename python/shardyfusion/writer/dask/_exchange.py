"""How blocks of rows get from the Dask task that routes them to the one that builds their shard: through files where they were made, from
which other workers ask for some at a time. So neither side ever holds a shard."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from shardyfusion._local_folder import make_local_folder
from shardyfusion.errors import ShardyfusionError
from shardyfusion.logging import get_logger, log_event
from shardyfusion.writer._tasks import BATCH_BLOCK_BYTES

try:
    from distributed import WorkerPlugin, get_worker
    from distributed.utils import sync
except ImportError:  # then there are threads, and whatever else Dask itself can do
    WorkerPlugin = object

    def get_worker() -> Any:
        raise ValueError("no worker")


_log = get_logger(__name__)

_LOOK_SECONDS = 2.0  # between looks whether a worker that does not answer is there

Places = Any  # an array of (offset, length) of blocks in a file, a row a block


@dataclass(frozen=True)
class Piece:
    """Where the blocks are that a partition has of a shard. `worker`: of a cluster, whose file it is; None: one that all can read."""

    partition: int
    worker: str | None
    name: str
    places: Places


class LostBlocksError(ShardyfusionError):
    """A worker that routed is gone, and its files are."""

    def __init__(self, worker: str | None) -> None:
        super().__init__(f"the blocks of some partitions are gone with the worker that had them, {worker}")
        self.worker = worker

    def __reduce__(self) -> Any:
        return LostBlocksError, (self.worker,)


class Pieces:
    """Those of a shard; Dask does not look into it."""

    def __init__(self, of_shard: list[Piece]) -> None:
        self.of_shard = of_shard


@dataclass(frozen=True)
class Exchange:
    """One write's files, in a folder of each worker; `folder`: the one of all, where there are no workers of a cluster. It pickles. When
    the write has ended or is given up, the folders are gone, which tasks take for the order to end."""

    token: str
    folder: str | None

    @property
    def name(self) -> str:
        return f"shardyfusion-{self.token}"

    def here(self) -> Path:
        return folder_of(get_worker(), self.name) if self.folder is None else Path(self.folder)

    def is_set(self) -> bool:
        """As a cancel event says it."""
        return not self.here().is_dir()

    # ------------------------------------------------------------ by tasks

    def store(self, partition: int, batches: Iterable[Any]) -> dict[int, Piece]:
        """The blocks of a partition, as record batches of shards and blocks; what is there of each shard."""
        name = f"{partition}-{uuid.uuid4().hex}"
        shards, places, end = [np.empty(0, np.int32)], [np.empty((0, 2), np.int64)], 0
        with open(self.here() / name, "xb") as file:
            for batch in batches:
                _, offsets, data = batch.column(1).buffers()
                off = np.frombuffer(offsets, np.int32, batch.num_rows + 1).astype(np.int64)
                shards.append(batch.column(0).to_numpy())
                places.append(np.stack([end + off[:-1], np.diff(off)], axis=1))
                end += file.write(data)
        of = np.concatenate(shards)
        order = np.argsort(of, kind="stable")
        found, begins = np.unique(of[order], return_index=True)
        address = get_worker().address if self.folder is None else None
        parts = np.split(np.concatenate(places)[order], begins[1:])
        return {int(shard): Piece(partition, address, name, part) for shard, part in zip(found, parts, strict=False)}

    def read(self, pieces: Iterable[Piece]) -> Iterator[list[bytes]]:
        """The blocks of pieces, some at a time. LostBlocksError."""
        for piece in pieces:
            for some in _by_bytes(piece.places):
                try:
                    yield self._some(piece, some)
                except (OSError, EOFError) as error:  # among them what Dask says of connections
                    raise LostBlocksError(piece.worker) from error

    def _some(self, piece: Piece, places: Places) -> list[bytes]:
        worker = None if piece.worker is None else get_worker()
        if worker is None or piece.worker == worker.address:
            return _blocks(self.here() / piece.name, places)
        return sync(worker.loop, _ask, worker, piece, self.name, places.tolist())  # type: ignore[no-any-return]


class Serving(WorkerPlugin):  # type: ignore[misc]
    """Makes a worker of a cluster answer questions for its blocks, until it is taken away."""

    def __init__(self, exchange: Exchange) -> None:
        self.name = exchange.name

    def setup(self, worker: Any) -> None:
        folder = folder_of(worker, self.name)
        make_local_folder(folder, "temporary-directory in Dask's configuration")

        async def answer(name: str, places: list[list[int]]) -> list[bytes]:
            return await asyncio.to_thread(_blocks, folder / Path(name).name, places)

        worker.handlers[self.name] = answer

    def teardown(self, worker: Any) -> None:
        worker.handlers.pop(self.name, None)
        shutil.rmtree(folder_of(worker, self.name), ignore_errors=True)


def folder_of(worker: Any, name: str) -> Path:
    return Path(worker.local_directory) / name


async def _ask(worker: Any, piece: Piece, question: str, places: list[list[int]]) -> Any:
    asking = asyncio.ensure_future(getattr(worker.rpc(piece.worker), question)(name=piece.name, places=places))
    while not (await asyncio.wait([asking], timeout=_LOOK_SECONDS))[0]:
        if piece.worker not in (await worker.scheduler.identity())["workers"]:
            asking.cancel()  # Dask would go on connecting for half a minute
            raise ConnectionError(f"{piece.worker} is gone")
    answer = asking.result()
    if answer is None:  # what a worker says that does not know the question, or no longer
        raise EOFError(f"{piece.worker} has no blocks")
    return answer


def _by_bytes(places: Places) -> Iterator[Places]:
    """Some at a time: of so many bytes, or one block."""
    batch = (np.cumsum(places[:, 1]) - places[:, 1]) // BATCH_BLOCK_BYTES
    yield from np.split(places, np.flatnonzero(np.diff(batch)) + 1)


def _blocks(path: Path, places: Iterable[Any]) -> list[bytes]:
    blocks = []
    with open(path, "rb") as file:
        for offset, length in places:
            block = os.pread(file.fileno(), length, offset)
            if len(block) < length:
                raise EOFError(f"{path} ends before {offset + length}")
            blocks.append(block)
    return blocks


class Exchanging:
    """An exchange for the time of a `with`, on the driver."""

    def __init__(self, client: Any, local_root: str) -> None:
        token = uuid.uuid4().hex
        self._client = client
        self.exchange = Exchange(token, None if client is not None else f"{local_root}/dask-{token}")
        self._stopped = False

    def __enter__(self) -> Exchanging:
        if self._client is None:
            make_local_folder(self.exchange.here())
        else:
            self._client.register_plugin(Serving(self.exchange))
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Takes the folders away."""
        if self._stopped:
            return
        self._stopped = True
        if self._client is None:
            shutil.rmtree(self.exchange.here(), ignore_errors=True)
            return
        try:
            self._client.unregister_worker_plugin(self.exchange.name)
        except Exception as error:  # a worker went away meanwhile, with its folder
            log_event("dask_exchange_not_ended", level=logging.WARNING, logger=_log, error=repr(error))
