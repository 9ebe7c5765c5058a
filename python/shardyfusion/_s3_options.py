"""From what callers give (connection options, credentials, dotenv file) to what the engine takes.

What is left out here, the engine looks for itself: in the environment, then in the shared config files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from shardyfusion._connection_options import check_connection_options
from shardyfusion._dotenv import read_env_file
from shardyfusion.credentials import CredentialProvider, S3Credentials, StaticCredentialProvider
from shardyfusion.errors import ConfigValidationError
from shardyfusion.type_defs import S3Config

if TYPE_CHECKING:
    from shardyfusion._native import S3Options

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def engine_options(
    connection_options: Mapping[str, Any] | S3Config | None = None,
    credentials: CredentialProvider | S3Credentials | None = None,
    env_file: str | None = None,
) -> S3Options | None:
    """The file wins over credentials and options. None: nothing was given. A provider is asked once now, and again by the
    engine when what it said is over or refused."""
    options = _from_connection_options(check_connection_options(connection_options))
    if credentials is None and isinstance(connection_options, S3Config):
        credentials = connection_options.credentials
    if credentials is not None:
        _add_credentials(options, credentials)
    if env_file is not None:
        from shardyfusion._engine import native

        native.take_variables(options, read_env_file(env_file))
    return options or None


# ---------------------------------------------------------------- credentials


def _add_credentials(options: S3Options, given: CredentialProvider | S3Credentials) -> None:
    provider = given if isinstance(given, CredentialProvider) else None
    credentials = given.resolve() if isinstance(given, CredentialProvider) else given
    options["access_key_id"] = credentials.access_key_id
    options["secret_access_key"] = credentials.secret_access_key
    options["session_token"] = credentials.session_token
    # whoever says nothing leaves it to the engine where credentials come from, and who says the same for ever need not be
    # asked again (a subclass may do anything)
    if provider is None or type(provider) is StaticCredentialProvider or credentials.access_key_id is None:
        return
    from shardyfusion._engine import native

    options["credential_source"] = native.CredentialSource(partial(_ask, provider), _end(credentials))


def _end(credentials: S3Credentials) -> int:
    """Microseconds since 1970; 0: not known."""
    expires_at = getattr(credentials, "expires_at", None)
    if expires_at is None:
        return 0
    if not isinstance(expires_at, datetime) or expires_at.utcoffset() is None:
        raise ConfigValidationError("expires_at of credentials must be a datetime with a time zone")
    return max(1, (expires_at - _EPOCH) // timedelta(microseconds=1))


def _ask(provider: CredentialProvider) -> tuple[str, str, str | None, int] | tuple[bool, str]:
    """Called by the engine, on a thread of its own, where an exception would be nobody's."""
    name = type(provider).__name__
    try:
        credentials = provider.resolve()
        keys = credentials.access_key_id, credentials.secret_access_key, credentials.session_token
        if not all(isinstance(key, str) for key in keys[: 2 if keys[2] is None else 3]):
            return False, f"{name}.resolve() has given no keys"
        return *keys, _end(credentials)  # type: ignore[return-value]
    except MemoryError:
        raise
    except BaseException as error:
        return isinstance(error, ConnectionError | TimeoutError), f"{name}.resolve() raised {_described(error)}"


def _described(error: BaseException) -> str:
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:
        text = type(error).__name__
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


# ---------------------------------------------------------------- options


def _from_connection_options(given: Mapping[str, Any]) -> S3Options:
    options: S3Options = {}
    if given.get("endpoint_url"):
        options["endpoint_url"] = given["endpoint_url"]
    region = given.get("region_name") or given.get("region")
    if region:
        options["region"] = region
    style = given.get("addressing_style")
    if style is not None:
        options["addressing"] = style
    if given.get("request_payer"):
        options["requester_pays"] = True
    verify = given.get("verify_ssl")
    if isinstance(verify, str | os.PathLike):
        options["ca_bundle"] = os.fspath(verify)
    elif verify is not None and not verify:
        options["insecure"] = True
    for name, option in (("connect_timeout", "connect_timeout_ms"), ("read_timeout", "read_timeout_ms")):
        if given.get(name) is not None:
            options[option] = max(1, round(given[name] * 1000))  # type: ignore[literal-required]
    if given.get("max_attempts") is not None:
        options["max_retries"] = max(0, int(given["max_attempts"]) - 1)
    return options
