"""From what callers give (connection options, credentials, dotenv file) to what the engine takes.

What is left out here, the engine looks for itself: in the environment, then in the shared config files.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from difflib import get_close_matches
from functools import partial
from typing import TYPE_CHECKING, Any

from shardyfusion._dotenv import read_env_file
from shardyfusion.errors import ConfigValidationError

if TYPE_CHECKING:
    from shardyfusion._native import S3Options
    from shardyfusion.credentials import CredentialProvider, S3Credentials

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def engine_options(
    connection_options: Mapping[str, Any] | None = None,
    credentials: CredentialProvider | S3Credentials | None = None,
    env_file: str | None = None,
) -> S3Options | None:
    """The file wins over credentials and options. None: nothing was given. A provider is asked once now, and again by the
    engine when what it said is over or refused."""
    options = _from_connection_options(check_connection_options(connection_options))
    if credentials is not None:
        _add_credentials(options, credentials)
    if env_file is not None:
        _apply_env(options, read_env_file(env_file))
    return options or None


# ---------------------------------------------------------------- credentials


def _add_credentials(options: S3Options, given: CredentialProvider | S3Credentials) -> None:
    from shardyfusion.credentials import CredentialProvider, StaticCredentialProvider

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


_KEYS: dict[str, tuple[type, ...]] = {
    "endpoint_url": (str,),
    "region_name": (str,),
    "region": (str,),  # as profiles and the environment call it
    "addressing_style": (str,),
    "signature_version": (str,),
    "verify_ssl": (bool, str, os.PathLike),
    "connect_timeout": (int, float),
    "read_timeout": (int, float),
    "max_attempts": (int,),
    "request_payer": (bool, str),
}
# what others call these; credentials have a place of their own
_MEANT = {
    "endpoint": "endpoint_url", "host": "endpoint_url", "url": "endpoint_url", "aws_endpoint": "endpoint_url",
    "aws_endpoint_url": "endpoint_url", "aws_region": "region_name", "default_region": "region_name",
    "verify": "verify_ssl", "ssl_verify": "verify_ssl", "ca_bundle": "verify_ssl", "use_ssl": "verify_ssl",
    "allow_http": "endpoint_url", "timeout": "read_timeout", "max_retries": "max_attempts", "retries": "max_attempts",
    "virtual_hosted_style_request": "addressing_style", "path_style": "addressing_style",
    "requester_pays": "request_payer", "requestpayer": "request_payer", "aws_request_payer": "request_payer",
}
_SECRETS = ("access_key", "secret", "session_token", "token", "credential", "profile")


def check_connection_options(given: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """What is swallowed is published to another store than meant: ConfigValidationError names it, and what may be meant."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigValidationError(f"s3_connection_options must be a mapping, got {type(given).__name__}")
    for key, value in given.items():
        if key not in _KEYS:
            raise ConfigValidationError(f"s3_connection_options has no {key!r}{_hint(str(key))}")
        kinds = _KEYS[key]
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            names = " or ".join("a path" if kind is os.PathLike else kind.__name__ for kind in kinds)
            raise ConfigValidationError(f"s3_connection_options[{key!r}] must be {names}, got {value!r}")
    regions = {given[key] for key in ("region_name", "region") if given.get(key)}
    if len(regions) > 1:
        raise ConfigValidationError("s3_connection_options has both 'region_name' and 'region', which differ")
    style, payer = given.get("addressing_style"), given.get("request_payer")
    if style is not None and style not in ("path", "virtual", "auto"):
        raise ConfigValidationError(f"addressing_style must be 'path', 'virtual' or 'auto', got {style!r}")
    if isinstance(payer, str) and payer not in ("", "requester"):
        raise ConfigValidationError(f"request_payer must be True, False or 'requester', got {payer!r}")
    for key in ("connect_timeout", "read_timeout", "max_attempts"):
        if given.get(key) is not None and not 0 <= given[key] < 1e9:
            raise ConfigValidationError(f"s3_connection_options[{key!r}] must not be negative, got {given[key]!r}")
    return given


def _hint(key: str) -> str:
    plain = key.lower().replace("-", "_")
    if any(part in plain for part in _SECRETS):
        return ": keys come from a credential_provider, or from the environment"
    known = _MEANT.get(plain) or (plain if plain in _KEYS else None)
    near = [known] if known else get_close_matches(plain, _KEYS, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(_KEYS))}"


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


def _apply_env(options: S3Options, env: Mapping[str, str]) -> None:
    names = {
        "AWS_ACCESS_KEY_ID": "access_key_id",
        "AWS_SECRET_ACCESS_KEY": "secret_access_key",
        "AWS_SESSION_TOKEN": "session_token",
        "AWS_ENDPOINT_URL": "endpoint_url",
        "AWS_REGION": "region",
    }
    if "AWS_ACCESS_KEY_ID" in env:
        options["session_token"] = None  # a token belongs to its key pair
        options.pop("credential_source", None)
    for variable, option in names.items():
        if env.get(variable):
            options[option] = env[variable]  # type: ignore[literal-required]
    if env.get("AWS_REQUEST_PAYER", "").lower() in ("true", "1", "requester"):
        options["requester_pays"] = True
    style = env.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST")
    if style is not None:
        options["addressing"] = "virtual" if style.lower() in ("1", "true", "yes") else "path"
