"""The run record's pydantic model. Public through shardyfusion.run_registry, which imports this when it is first used."""

from datetime import datetime
from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from shardyfusion._run_status import RUN_RECORD_FORMAT_VERSION, RunStatus

_PUBLIC_MODULE = "shardyfusion.run_registry"  # where pickles look for it


class RunRecord(BaseModel):
    """What a writer says about its run. `running` with a lease in the past is a dead run."""

    __module__ = _PUBLIC_MODULE
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    format_version: int = RUN_RECORD_FORMAT_VERSION
    run_id: str
    writer_type: str
    status: RunStatus
    started_at: datetime
    updated_at: datetime
    lease_expires_at: datetime
    s3_prefix: str
    shard_prefix: str
    db_path_template: str
    manifest_ref: str | None = None
    error_type: str | None = None
    error_message: str | None = None
