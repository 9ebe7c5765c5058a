"""The manifest's models. Public through shardyfusion.manifest, which imports this when one is first used."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shardyfusion.sharding_types import KeyEncoding, ShardHashAlgorithm, ShardingStrategy

MANIFEST_FORMAT_VERSION = 4

NonNegative = Annotated[int, Field(ge=0)]


@dataclass(slots=True, frozen=True)
class WriterInfo:
    """Which task of a batch engine wrote a shard, and how long it took."""

    stage_id: int | None = None
    task_attempt_id: int | None = None
    attempt: int = 0
    duration_ms: int = 0
    opening: str | None = field(default=None, repr=False, kw_only=True)  # ours: spares readers a look at the shard's own manifest


class CurrentPointer(BaseModel):
    """The pointer object: which manifest readers should open."""

    manifest_ref: str
    manifest_content_type: str
    run_id: str
    updated_at: datetime
    format_version: int = 1


class ManifestShardingSpec(BaseModel):
    """How the keys of a snapshot are spread over its shards."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    strategy: ShardingStrategy = ShardingStrategy.HASH
    routing_values: list[int | str | bytes] | None = None
    cel_expr: str | None = None
    cel_columns: dict[str, str] | None = None
    hash_algorithm: ShardHashAlgorithm

    @model_validator(mode="after")
    def _check_strategy(self) -> Self:
        if self.strategy is ShardingStrategy.CEL:
            if not self.cel_expr:
                raise ValueError("CEL strategy requires cel_expr")
            if not self.cel_columns:
                raise ValueError("CEL strategy requires cel_columns")
            if self.routing_values is not None:
                kinds = {str if isinstance(v, str) else bytes if isinstance(v, bytes) else int for v in self.routing_values}
                if len(kinds) > 1:
                    raise ValueError("routing_values must all be of one type")
                if len(set(self.routing_values)) != len(self.routing_values):
                    raise ValueError("routing_values must not contain duplicates")
        else:
            for name in ("cel_expr", "cel_columns", "routing_values"):
                if getattr(self, name) is not None:
                    raise ValueError(f"HASH strategy must not have {name}")
        return self


class RequiredBuildMeta(BaseModel):
    """What every manifest says about its run."""

    run_id: str
    created_at: datetime
    num_dbs: Annotated[int, Field(gt=0)]
    s3_prefix: str
    key_col: str
    sharding: ManifestShardingSpec
    db_path_template: str
    shard_prefix: str
    format_version: int = MANIFEST_FORMAT_VERSION
    key_encoding: KeyEncoding = KeyEncoding.U64BE


class RequiredShardMeta(BaseModel):
    """What every manifest says about a shard. `db_url` None: an empty shard. Keys are informative only."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore")

    db_id: NonNegative
    db_url: str | None = None
    attempt: NonNegative
    row_count: NonNegative
    db_bytes: NonNegative
    min_key: int | str | bytes | None = None
    max_key: int | str | bytes | None = None
    checkpoint_id: str | None = None
    writer_info: WriterInfo = Field(default_factory=WriterInfo)


class ParsedManifest(BaseModel):
    """A whole manifest. `required_build` has the alias `required`: read under either name, dumped under the alias with
    `by_alias=True`."""

    model_config: ClassVar[ConfigDict] = ConfigDict(populate_by_name=True)

    required_build: RequiredBuildMeta = Field(alias="required")
    shards: list[RequiredShardMeta]
    custom: dict[str, Any] = Field(default_factory=dict)


for _model in (WriterInfo, CurrentPointer, ManifestShardingSpec, RequiredBuildMeta, RequiredShardMeta, ParsedManifest):
    _model.__module__ = "shardyfusion.manifest"  # where pickles look for them
