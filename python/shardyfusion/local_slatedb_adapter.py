"""SlateDB shards that are sorted on local disk before they are uploaded, as all of the package's are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from shardyfusion.credentials import CredentialProvider
from shardyfusion.slatedb_adapter import DefaultSlateDbAdapter, SlateDbBridgeTimeouts, SlateDbSettings
from shardyfusion.type_defs import S3Config, S3ConnectionOptions

__all__ = ["LocalSlateDbAdapter", "LocalSlateDbFactory"]


class LocalSlateDbAdapter(DefaultSlateDbAdapter):
    """Writes one SlateDB shard."""

    def __init__(
        self,
        *,
        db_url: str,
        local_dir: Path,
        env_file: str | None,
        settings: SlateDbSettings | None,
        bridge_timeouts: SlateDbBridgeTimeouts | None = None,
        s3_connection_options: S3ConnectionOptions | S3Config | None = None,
        credential_provider: CredentialProvider | None = None,
    ) -> None:
        super().__init__(
            local_dir=local_dir,
            db_url=db_url,
            env_file=env_file,
            settings=settings,
            bridge_timeouts=bridge_timeouts,
            credential_provider=credential_provider,
            s3_connection_options=s3_connection_options,
        )


@dataclass(slots=True)
class LocalSlateDbFactory:
    """Writes shards as SlateDB databases. The file wins over provider and options."""

    env_file: str | None = None
    settings: SlateDbSettings | None = None
    credential_provider: CredentialProvider | None = None
    bridge_timeouts: SlateDbBridgeTimeouts = field(default_factory=SlateDbBridgeTimeouts)
    s3_connection_options: S3ConnectionOptions | S3Config | None = None

    def __call__(self, *, db_url: str, local_dir: Path) -> LocalSlateDbAdapter:
        """The writer of one shard."""
        return LocalSlateDbAdapter(
            db_url=db_url,
            local_dir=local_dir,
            env_file=self.env_file,
            settings=self.settings,
            bridge_timeouts=self.bridge_timeouts,
            s3_connection_options=self.s3_connection_options,
            credential_provider=self.credential_provider,
        )
