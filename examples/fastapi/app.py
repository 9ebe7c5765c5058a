"""Profiles by their number, from a snapshot that is followed while the service runs. README.md says how it is started and what it tells."""

import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Annotated, Any, Literal, cast

from fastapi import Depends, FastAPI, HTTPException, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, start_http_server

from shardyfusion import AsyncShardedReader, SnapshotInfo
from shardyfusion.errors import ShardyfusionError
from shardyfusion.metrics import LATENCY_BUCKETS
from shardyfusion.metrics.prometheus import PrometheusCollector
from shardyfusion.type_defs import S3Config

log = logging.getLogger("profiles")

UserId = Annotated[int, Path(ge=0, lt=2**63)]
UserIds = Annotated[list[Annotated[int, Query(ge=0, lt=2**63)]], Query(alias="id", min_length=1, max_length=1000)]


def seconds(name: str, default: float) -> timedelta:
    return timedelta(seconds=float(os.environ.get(name, default)))


@dataclass
class Settings:
    """From the environment, as containers are configured. Credentials and endpoint are S3's own variables."""

    prefix: str = field(default_factory=lambda: os.environ["PROFILES"])
    cache: str = field(default_factory=lambda: os.environ.get("PROFILES_CACHE", "/tmp/profiles"))
    residency: str = field(default_factory=lambda: os.environ.get("PROFILES_RESIDENCY", "memory"))
    refresh: timedelta = field(default_factory=lambda: seconds("PROFILES_REFRESH_S", 30))
    look_up: timedelta = field(default_factory=lambda: seconds("PROFILES_LOOK_UP_S", 0.5))
    opening: timedelta = field(default_factory=lambda: seconds("PROFILES_OPEN_S", 60))
    storage: timedelta = field(default_factory=lambda: seconds("PROFILES_STORAGE_S", 5))
    max_age: timedelta = field(default_factory=lambda: seconds("PROFILES_MAX_AGE_S", 30 * 3600))
    metrics_port: int = field(default_factory=lambda: int(os.environ.get("METRICS_PORT", 0)))


@dataclass
class Service:
    settings: Settings
    reader: AsyncShardedReader
    registry: CollectorRegistry


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """In each worker, after the fork. Where the snapshot cannot be opened in time the process does not begin to serve, and its
    supervisor tries again."""
    settings = Settings()
    registry = CollectorRegistry()

    async def moved(before: SnapshotInfo, after: SnapshotInfo) -> None:
        log.info("serving %s in place of %s", after.run_id, before.run_id)
        await reader.ready(timeout=settings.opening)  # residency is of a snapshot: this one is to stay in memory, too

    async with await AsyncShardedReader.open(
        s3_prefix=settings.prefix,
        local_root=settings.cache,
        metrics_collector=PrometheusCollector(registry, buckets=LATENCY_BUCKETS, native=True),
        residency=cast(Literal["none", "memory", "disk"], settings.residency),
        refresh_interval=settings.refresh,  # each process at its own time
        on_refresh=moved,
        s3_connection_options=S3Config(timeouts=settings.storage, retries=2),  # by default 30 s, and four
        timeout=settings.opening,
    ) as reader:
        await reader.ready(timeout=settings.opening)
        # one port a worker: a scrape of the shared one would hear whichever worker happens to answer
        server = start_http_server(settings.metrics_port, registry=registry)[0] if settings.metrics_port else None
        app.state.service = Service(settings, reader, registry)
        log.info("serving %s", reader.snapshot_info().run_id)
        try:
            yield
        finally:
            if server is not None:
                server.shutdown()


def service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


Given = Annotated[Service, Depends(service)]
app = FastAPI(title="profiles", lifespan=lifespan)


@app.exception_handler(ShardyfusionError)
async def storage_failed(request: Request, error: ShardyfusionError) -> JSONResponse:
    """What may go well a moment later is 503 with a word on when; the rest is ours to repair, and its text is for our log."""
    log.warning("%s: %s", request.url.path, error)
    if error.retryable:
        return JSONResponse({"detail": "storage does not answer in time"}, 503, {"Retry-After": "1"})
    return JSONResponse({"detail": "internal error"}, 500)


@app.get("/profiles/{user_id}")
async def profile(user_id: UserId, given: Given) -> Response:
    value = await given.reader.get(user_id, timeout=given.settings.look_up)
    if value is None:
        raise HTTPException(404)
    return Response(value, media_type="application/json")


@app.get("/profiles")
async def profiles(ids: UserIds, given: Given) -> dict[str, Any]:
    """Many at once: one pass over all shards, far cheaper than many requests."""
    found = await given.reader.multi_get(ids, timeout=given.settings.look_up)
    return {str(user_id): None if value is None else json.loads(value) for user_id, value in found.items()}


@app.get("/health")
async def health() -> dict[str, str]:
    """The process lives. Nothing of storage: a restart does not repair S3."""
    return {"status": "alive"}


@app.get("/ready")
async def ready(given: Given) -> JSONResponse:
    """Whether requests are to be sent here. A worker whose refreshes fail goes on with what it has: it stays in rotation, and says so."""
    h = given.reader.health(staleness_threshold=given.settings.max_age, by="snapshot")
    behind = h.status == "healthy" and (h.refresh_failures > 0 or h.fallback)
    told = {
        "status": "degraded" if behind else h.status,
        "snapshot": given.reader.snapshot_info().run_id if not h.is_closed else None,
        "snapshot_age_s": h.snapshot_age.total_seconds() if h.snapshot_age is not None else None,
        "refresh_failures": h.refresh_failures,
        "last_refresh_error": h.last_refresh_error,
        "fallback": h.fallback,
    }
    return JSONResponse(told, 503 if h.status == "unhealthy" else 200)


@app.get("/metrics")
async def metrics(given: Given) -> Response:
    """Of this process."""
    return Response(generate_latest(given.registry), media_type=CONTENT_TYPE_LATEST)
