"""What annotations name is there at run time: typing.get_type_hints() works for every public class, method and function."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import typing
from collections.abc import Iterator
from typing import Any

import pytest

import shardyfusion

# Of libraries that a user may have or not, and that are imported when they are used.
FOREIGN = {"CollectorRegistry", "DataFrame", "MeterProvider", "SparkSession", "sqlite3"}


def modules() -> Iterator[str]:
    yield "shardyfusion"
    for module in pkgutil.walk_packages(shardyfusion.__path__, "shardyfusion."):
        if not any(part.startswith("_") for part in module.name.split(".")):
            yield module.name


def methods(cls: type) -> Iterator[Any]:
    for base in cls.__mro__:
        if base.__module__.startswith("shardyfusion"):
            for name, value in vars(base).items():
                function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
                if inspect.isfunction(function) and (name == "__init__" or not name.startswith("_")):
                    yield function


def annotated(module: str) -> dict[str, Any]:
    """What has annotations of ours among the public names of a module."""
    try:
        names = vars(importlib.import_module(module)).get("__all__", ())
    except ImportError as error:
        assert "not available in this version" in str(error), module
        return {}
    found = {}
    for thing in (getattr(importlib.import_module(module), name) for name in names):
        if str(getattr(thing, "__module__", "")).startswith("shardyfusion") and (inspect.isclass(thing) or inspect.isfunction(thing)):
            for each in (thing, *(methods(thing) if inspect.isclass(thing) else ())):
                found[f"{each.__module__}.{each.__qualname__}"] = each
    return found


@pytest.mark.parametrize("module", list(modules()))
def test_annotations_can_be_looked_up(module: str) -> None:
    for name, thing in annotated(module).items():
        try:
            typing.get_type_hints(thing)
        except NameError as error:
            assert error.name in FOREIGN, f"{name}: {error}"


def test_what_they_are() -> None:
    fields = typing.get_type_hints(shardyfusion.WriterManifestConfig)
    assert fields["store"] == shardyfusion.ManifestStore | None
    assert typing.get_type_hints(shardyfusion.WriterOutputConfig)
    returned = typing.get_type_hints(shardyfusion.AsyncShardedReader.shard_for_key)["return"]
    assert returned is shardyfusion.RequiredShardMeta
