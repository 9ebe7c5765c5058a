"""Where S3 credentials come from. Nothing here is ever written to the process environment, except by `apply_env_file`."""

from __future__ import annotations

import os
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, runtime_checkable

from shardyfusion._connection_options import check_connection_options
from shardyfusion._dotenv import read_env_file
from shardyfusion.type_defs import S3Config, S3ConnectionOptions

__all__ = [
    "CredentialProvider",
    "EnvCredentialProvider",
    "S3Credentials",
    "StaticCredentialProvider",
    "apply_env_file",
    "materialize_env_file",
    "remove_env_file",
    "resolve_env_file",
]

_HIDDEN = "***"


class _HidesSecrets:
    __slots__ = ()

    def __repr__(self) -> str:
        # a secret in a log line is a leaked secret
        key = getattr(self, "access_key_id")  # noqa: B009
        shown = {name: _HIDDEN for name in ("secret_access_key", "session_token") if getattr(self, name) is not None}
        return f"{type(self).__name__}(access_key_id={key!r}{''.join(f', {n}={v}' for n, v in shown.items())})"


@dataclass(slots=True, frozen=True, repr=False)
class S3Credentials(_HidesSecrets):
    """A key pair, and a session token for temporary ones. None: to be found elsewhere."""

    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None


@runtime_checkable
class CredentialProvider(Protocol):
    """Anything that can say which credentials to use. Asked once a store and once a shard that is opened; then, on a thread of
    the engine's, when the store has refused what it said, and ahead of their end if they tell it: `expires_at`, a `datetime`
    with a time zone."""

    def resolve(self) -> S3Credentials:
        """Those to use now. What it raises is told by the request that needs them."""
        ...


@dataclass(slots=True, frozen=True, repr=False)
class StaticCredentialProvider(_HidesSecrets):
    """Always the same credentials."""

    access_key_id: str | None = None
    secret_access_key: str | None = None
    session_token: str | None = None

    def resolve(self) -> S3Credentials:
        return S3Credentials(self.access_key_id, self.secret_access_key, self.session_token)


@dataclass(slots=True, frozen=True)
class EnvCredentialProvider:
    """The variables S3_ACCESS_KEY_ID, S3_SECRET_ACCESS_KEY and S3_SESSION_TOKEN, each else its AWS_ namesake."""

    def resolve(self) -> S3Credentials:
        return S3Credentials(*(_from_environment(name) for name in _VARIABLES))


_VARIABLES = ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")


def _from_environment(name: str) -> str | None:
    return os.environ.get(f"S3_{name}") or os.environ.get(f"AWS_{name}") or None


# ---------------------------------------------------------------- files for other programs


def materialize_env_file(creds: S3Credentials, *, connection_options: S3ConnectionOptions | S3Config | None = None) -> str:
    """Writes a dotenv file that only its owner may read; the caller removes it with `remove_env_file`."""
    options = check_connection_options(connection_options)
    endpoint = options.get("endpoint_url")
    style = options.get("addressing_style")
    values = {
        "AWS_ACCESS_KEY_ID": creds.access_key_id,
        "AWS_SECRET_ACCESS_KEY": creds.secret_access_key,
        "AWS_SESSION_TOKEN": creds.session_token,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true" if endpoint and endpoint.lower().startswith("http://") else None,
        "AWS_REGION": options.get("region_name") or options.get("region"),
        "AWS_REQUEST_PAYER": "true" if options.get("request_payer") else None,
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": {"virtual": "true", "path": "false"}.get(style or ""),
    }
    # mkstemp creates with mode 0600
    fd, path = tempfile.mkstemp(prefix="shardyfusion_creds_", suffix=".env")
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.writelines(f"{name}={value}\n" for name, value in values.items() if value)
    return path


def remove_env_file(path: str) -> None:
    """Removes the file; it may be gone already."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


@dataclass(slots=True)
class _EnvFileContext(AbstractContextManager["str | None"]):
    env_file: str | None
    credential_provider: CredentialProvider | None
    connection_options: S3ConnectionOptions | S3Config | None
    _made: str | None = field(default=None, init=False)

    def __enter__(self) -> str | None:
        if self.env_file is None and (self.credential_provider is not None or self.connection_options):
            creds = self.credential_provider.resolve() if self.credential_provider is not None else S3Credentials()
            self._made = materialize_env_file(creds, connection_options=self.connection_options)
        return self.env_file if self._made is None else self._made

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._made is not None:
            remove_env_file(self._made)
            self._made = None


def resolve_env_file(
    env_file: str | None,
    credential_provider: CredentialProvider | None,
    connection_options: S3ConnectionOptions | S3Config | None = None,
) -> _EnvFileContext:
    """A context whose value is a dotenv file: the given one, else one made from the provider and removed at the end."""
    return _EnvFileContext(env_file, credential_provider, connection_options)


@dataclass(slots=True)
class _AppliedEnvContext(AbstractContextManager[None]):
    env_file: str | None
    _before: dict[str, str | None] = field(default_factory=dict, init=False)

    def __enter__(self) -> None:
        for name, value in (read_env_file(self.env_file) if self.env_file else {}).items():
            self._before[name] = os.environ.get(name)
            os.environ[name] = value

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before.clear()


def apply_env_file(env_file: str | None) -> _AppliedEnvContext:
    """A context in which the file's values are in the process environment. The package itself never uses it."""
    return _AppliedEnvContext(env_file)
