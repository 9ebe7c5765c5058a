"""What may be counted."""

from __future__ import annotations

from enum import Enum


class MetricEvent(str, Enum):
    """Events of readers, writers, rate limiters and stores. Collectors ignore those that they do not know."""

    WRITE_STARTED = "write.started"
    SHARDING_COMPLETED = "write.sharding_completed"
    SHARD_WRITE_STARTED = "write.shard.started"
    SHARD_WRITE_COMPLETED = "write.shard.completed"
    SHARD_WRITES_COMPLETED = "write.shards_completed"
    MANIFEST_PUBLISHED = "write.manifest_published"
    CURRENT_PUBLISHED = "write.current_published"
    WRITE_COMPLETED = "write.completed"
    BATCH_WRITTEN = "write.batch_written"
    READER_INITIALIZED = "reader.initialized"
    READER_GET = "reader.get"
    READER_MULTI_GET = "reader.multi_get"
    READER_REFRESHED = "reader.refreshed"
    READER_CLOSED = "reader.closed"
    READER_GET_FAILED = "reader.get_failed"
    READER_FALLBACK = "reader.fallback"
    READER_REFRESH_FAILED = "reader.refresh_failed"
    SHARD_WRITE_RETRIED = "write.shard.retried"
    SHARD_WRITE_RETRY_EXHAUSTED = "write.shard.retry_exhausted"
    S3_REQUEST = "s3.request"
    S3_RETRY = "s3.retry"
    S3_RETRY_EXHAUSTED = "s3.retry_exhausted"
    S3_HEDGE = "s3.hedge"
    RATE_LIMITER_THROTTLED = "rate_limiter.throttled"
    RATE_LIMITER_DENIED = "rate_limiter.denied"
    VECTOR_WRITE_STARTED = "vector.write.started"
    VECTOR_SHARD_WRITE_COMPLETED = "vector.write.shard.completed"
    VECTOR_WRITE_COMPLETED = "vector.write.completed"
    VECTOR_READER_INITIALIZED = "vector.reader.initialized"
    VECTOR_SEARCH = "vector.reader.search"
    VECTOR_SHARD_SEARCH = "vector.reader.shard_search"
    VECTOR_READER_REFRESHED = "vector.reader.refreshed"
    VECTOR_READER_CLOSED = "vector.reader.closed"
