"""Publishes profiles from Parquet files, once: what a cron job or a step of a pipeline runs. It ends with 0 when the snapshot is visible, or when nothing has changed
of it, with 75 (try again) when storage did not let it, and with 1 when data or settings are wrong."""

import logging
import os
import signal
import sys
import threading

from shardyfusion import HashShardedWriteConfig, PythonWriteOptions, ValueSpec
from shardyfusion.config import ArrowRecordInput, PublishChecks, WriterOutputConfig
from shardyfusion.errors import ShardyfusionError
from shardyfusion.type_defs import S3Config
from shardyfusion.writer.python import write_hash_sharded

log = logging.getLogger("job")
EX_TEMPFAIL = 75


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("shardyfusion").setLevel(logging.WARNING)  # its events say it in fields, which this format leaves out
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())  # nothing half-published is left to see
    config = HashShardedWriteConfig(
        num_dbs=int(os.environ.get("SHARDS", "8")),
        s3_prefix=os.environ["PROFILES"],
        s3_connection_options=S3Config(retries=int(os.environ.get("RETRIES", "8"))),  # a job has time
        output=WriterOutputConfig(run_id=os.environ.get("RUN_ID"), local_root=os.environ.get("SPILL", "/tmp/profiles")),
    )
    columns = [name for name in os.environ.get("VALUE_COLUMNS", "").split(",") if name]
    rows = ArrowRecordInput(os.environ.get("KEY_COLUMN", "id"), value_spec=ValueSpec.json_cols(columns or None))
    options = PythonWriteOptions(
        cancel=stop,
        progress=lambda p: log.info("%s: %d rows, %d of %d shards", p.phase, p.rows_read, p.shards_done, p.shards_total),
        progress_interval=10,
        checks=PublishChecks(min_rows_share=float(os.environ.get("MIN_ROWS_SHARE", "0.9")), sample_keys=100),
        resume="RUN_ID" in os.environ,  # the next try of the same job keeps what this one has stored
        reuse_unchanged=True,
    )
    try:
        result = write_hash_sharded(os.environ["SOURCE"], config, rows, options)
    except ShardyfusionError as error:
        log.error("%s", error)
        return EX_TEMPFAIL if error.retryable or stop.is_set() else 1
    log.info("published %s: %d rows, %d shards kept", result.manifest_ref, result.stats.rows_written, result.stats.shards_reused)
    return 0


if __name__ == "__main__":
    sys.exit(main())
