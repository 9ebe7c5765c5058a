"""The public names agree with the list of the contract: kinds, signatures, fields, members, bases."""

from __future__ import annotations

import copy
import dataclasses
import enum
import importlib
import inspect
import json
import pickle
import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from fixtures import FIXTURES, ROOT

API = json.loads((FIXTURES / "api-names.json").read_text())
UNLISTED = re.compile(r"^\| `(shardyfusion[\w.]*)` \| (.+?) \| .+ \|$", re.M)


def unlisted() -> dict[str, set[str] | None]:
    """What the page says is not there, by module; of a module that is not there at all, None."""
    found: dict[str, set[str] | None] = {}
    for module, names in UNLISTED.findall((ROOT / "docs" / "compatibility.md").read_text()):
        assert module not in found, module
        found[module] = None if names == "all" else set(re.findall(r"`(\w+)`", names))
    return found


MISSING = unlisted()


def is_missing(module: str, name: str) -> bool:
    names = MISSING.get(module, set())
    return names is None or name in names


ENTRIES = [e for e in API["names"] if not is_missing(e["module"], e["name"])]
MODULES = sorted({e["module"] for e in ENTRIES})
KINDS = {
    "A": inspect.Parameter.POSITIONAL_OR_KEYWORD,
    "K": inspect.Parameter.KEYWORD_ONLY,
    "P": inspect.Parameter.POSITIONAL_ONLY,
    "*": inspect.Parameter.VAR_POSITIONAL,
    "**": inspect.Parameter.VAR_KEYWORD,
}


def ids(entry: dict[str, Any]) -> str:
    return f"{entry['module']}.{entry['name']}"


def load(entry: dict[str, Any]) -> Any:
    return getattr(importlib.import_module(entry["module"]), entry["name"])



def check_params(what: str, signature: inspect.Signature, wanted: list[list[str]]) -> None:
    ours = [p for name, p in signature.parameters.items() if name not in ("self", "cls")]
    for position, (name, kind, *default) in enumerate(wanted):
        mine = next((p for p in ours if p.name == name), None)
        assert mine is not None, f"{what}: no parameter {name}"
        assert mine.kind is KINDS[kind], f"{what}: kind of {name}"
        if kind in ("A", "P"):
            assert ours.index(mine) == position, f"{what}: place of {name}"
        assert (mine.default is inspect.Parameter.empty) == (not default), f"{what}: default of {name}"
        if default and default[0] not in ("<factory>",):
            shown = mine.default
            if isinstance(shown, enum.Enum):
                shown = f"{type(shown).__name__}.{shown.name}"
            elif not inspect.isfunction(shown):
                shown = repr(shown)
            if "HAS_DEFAULT_FACTORY" not in repr(mine.default) and "<factory>" not in repr(mine.default):
                assert shown == default[0], f"{what}: default of {name} is {shown}, not {default[0]}"
    known = {name for name, *_ in wanted}
    for extra in ours:
        if extra.name not in known:
            assert extra.kind is inspect.Parameter.KEYWORD_ONLY, f"{what}: extra parameter {extra.name}"
            assert extra.default is not inspect.Parameter.empty, f"{what}: extra parameter {extra.name} has no default"


def check_value(found: Any, wanted: Any) -> None:
    """As the list has it: what JSON has as such, else what it prints."""
    plain = found if isinstance(found, str | int | dict) else repr(found)
    assert (list(found) if isinstance(wanted, list) else plain) == wanted


@pytest.mark.parametrize("entry", ENTRIES, ids=ids)
def test_name(entry: dict[str, Any]) -> None:
    found = load(entry)
    if "same_object_as" in entry:
        module, _, name = entry["same_object_as"].partition(":")
        if not module.startswith("shardyfusion._"):
            assert found is getattr(importlib.import_module(module), name)
        return
    kind = entry["kind"]
    if kind == "exception":
        assert issubclass(found, BaseException)
        assert {base.__name__ for base in found.__mro__} >= set(entry["bases"])
        if "retryable" in entry:
            assert found.retryable is entry["retryable"]
    elif kind == "enum":
        members = {name: member.value for name, member in found.__members__.items()}
        if entry["name"] == "MetricEvent":  # collectors ignore what they do not know, so ours may have more (B 18)
            members = {name: value for name, value in members.items() if name in entry["members"]}
        assert members == entry["members"]
        assert issubclass(found, str)
    elif kind == "dataclass":
        assert dataclasses.is_dataclass(found)
        assert [f.name for f in dataclasses.fields(found) if not f.kw_only] == [name for name, *_ in entry["fields"]]
        assert found.__dataclass_params__.frozen is entry["frozen"]
        assert hasattr(found, "__slots__") is entry["slots"]
    elif kind == "protocol":
        assert getattr(found, "_is_protocol", False)
        assert getattr(found, "_is_runtime_protocol", False)  # the peer's are not, but for some (B 26)
    elif kind == "pydantic_model":
        assert list(found.model_fields) == [name for name, *_ in entry["fields"]]
    elif kind == "typeddict":
        assert set(found.__annotations__) >= set(entry["keys"])
        assert found.__total__ is entry["total"]
    elif kind == "function":
        assert callable(found)
    elif kind == "constant":
        check_value(found, entry["value"])
    if entry.get("params") is not None and kind not in ("exception", "protocol"):
        check_params(ids(entry), inspect.signature(found), entry["params"])
    for method in entry.get("methods", ()):
        mine = getattr(found, method["name"])
        if method["kind"] == "property":
            assert isinstance(inspect.getattr_static(found, method["name"]), property) or kind == "protocol"
        elif method.get("params") is not None:
            check_params(f"{ids(entry)}.{method['name']}", inspect.signature(mine), method["params"])


@pytest.mark.parametrize(
    "entry",
    [
        e
        for e in API["documented_but_absent_in_peer"]
        if not is_missing(e["module"], e["name"].partition(".")[0])
    ],
    ids=ids,
)
def test_documented_name(entry: dict[str, Any]) -> None:
    found: Any = importlib.import_module(entry["module"])
    for part in entry["name"].split("."):
        found = getattr(found, part)


# ---------------------------------------------------------------- what the peer does not have is on the page

LISTED = {e["name"]: e for e in API["names"] if "same_object_as" not in e}
BEYOND = (*MODULES, "shardyfusion.writer.aio")


def parameters(found: Any) -> set[str]:
    """Those that callers give by their names."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {p.name for p in inspect.signature(found).parameters.values() if p.kind in named} - {"self", "cls"}


def additions(module: str) -> dict[str, set[str]]:
    """Names, parameters and methods of a module that the list of the peer's does not have, by where they are."""
    beyond: dict[str, set[str]] = {}
    home = importlib.import_module(module)
    for name in getattr(home, "__all__", ()):
        found, entry = getattr(home, name, None), LISTED.get(name)
        if entry is None:
            beyond[module] = beyond.get(module, set()) | {name}
        if not callable(found) or isinstance(found, enum.EnumType) or (inspect.isclass(found) and found.__init__ is object.__init__):
            continue
        known = {first for first, *_ in [*((entry or {}).get("params") or ()), *((entry or {}).get("fields") or ())]}
        if not (inspect.isclass(found) and issubclass(found, Exception)) and (entry is None or known or "params" in entry):
            beyond[name] = parameters(found) - known
        for method in (entry or {}).get("methods", ()):
            if method["kind"] != "property" and method.get("params") is not None:
                mine = parameters(getattr(found, method["name"]))
                beyond[f"{name}.{method['name']}"] = mine - {first for first, *_ in method["params"]}
    return {where: names for where, names in beyond.items() if names}


def test_the_page_names_what_the_peer_does_not_have() -> None:
    code = re.findall(r"```.*?```|`[^`]+`", (ROOT / "docs" / "compatibility" / "contract.md").read_text(), re.DOTALL)
    named = set(re.findall(r"[A-Za-z_]\w*", " ".join(code)))
    found = {where: names for module in BEYOND for where, names in additions(module).items()}
    assert "confine" in found["AsyncShardedReader"] and "ExhaustedError" in found["shardyfusion.errors"]
    unnamed = {where: sorted(names - named) for where, names in found.items() if names - named}
    assert unnamed == {}, "neither in tests/fixtures/api-names.json nor in docs/compatibility/contract.md"


def test_the_page_tells_only_of_names_of_the_contract() -> None:
    known: dict[str, set[str]] = {}
    for entry in API["names"]:
        known.setdefault(entry["module"], set()).add(entry["name"])
    for module, names in MISSING.items():
        assert names is None or names <= known[module], module
    assert {e["tier"] for e in ENTRIES} == {"core"}, "what comes later is on docs/compatibility.md"


@pytest.mark.parametrize("module", MISSING)
def test_what_is_missing_is_not_there(module: str) -> None:
    names = MISSING[module]
    if names is None:
        with pytest.raises(ImportError, match=f"not available in this version|No module named '{module}'"):
            importlib.import_module(module)
    for name in names or ():
        with pytest.raises((ImportError, AttributeError), match=f"not available in this version|no attribute '{name}'"):
            getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("module", sorted({e["module"] for e in API["names"] if e["use"] == "documented"}))
def test_documented_names_that_are_missing_say_so(module: str) -> None:
    names = sorted(e["name"] for e in API["names"] if e["module"] == module and is_missing(module, e["name"]))
    for name in names:
        with pytest.raises(ImportError, match="not available in this version"):
            getattr(importlib.import_module(module), name)


def test_all_of_the_package_can_be_imported() -> None:
    import shardyfusion

    namespace: dict[str, Any] = {}
    exec("from shardyfusion import *", namespace)
    assert set(shardyfusion.__all__) <= set(namespace)
    missing = set(API["modules"]["shardyfusion"]["all"]) - set(shardyfusion.__all__)
    assert missing == (MISSING["shardyfusion"] or set())


def test_unknown_names() -> None:
    import shardyfusion

    with pytest.raises(AttributeError) as caught:
        shardyfusion.nothing_of_the_kind  # noqa: B018
    assert str(caught.value) == "module 'shardyfusion' has no attribute 'nothing_of_the_kind'"
    assert shardyfusion.__version__


# ---------------------------------------------------------------- dataclasses as a whole

SAMPLES: dict[str, Any] = {
    "str": "x", "int": 1, "float": 1.5, "bool": True, "datetime": datetime(2026, 1, 2, tzinfo=timezone.utc),
    "timedelta": timedelta(seconds=1), "list": [], "dict": {"r": "int"}, "bytes": b"x",
    "ShardingStrategy": "hash", "Callable": len, "BuildDurations": None, "BuildStats": None,
}
SPECIAL: dict[str, dict[str, Any]] = {
    "BaseShardedWriteConfig": {"s3_prefix": "s3://b/p"},
    "HashShardedWriteConfig": {"s3_prefix": "s3://b/p", "num_dbs": 1},
    "CelShardedWriteConfig": {"s3_prefix": "s3://b/p", "cel_expr": "r", "cel_columns": {"r": "int"}},
    "SingleDbWriteConfig": {"s3_prefix": "s3://b/p"},
    "CelShardingSpec": {"cel_expr": "r", "cel_columns": {"r": "int"}},
}
DATACLASSES = list({e["name"]: e for e in ENTRIES if e["kind"] == "dataclass" and "same_object_as" not in e}.values())


def sample(cls: Any) -> Any:
    """One of it, from what it must be given."""
    required = {
        field.name: SAMPLES.get(str(field.type).partition("[")[0].partition(" ")[0])
        for field in dataclasses.fields(cls)
        if field.init and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    return cls(**SPECIAL.get(cls.__name__, required))


@pytest.mark.parametrize("entry", DATACLASSES, ids=ids)
def test_dataclass(entry: dict[str, Any]) -> None:
    cls = load(entry)
    one, other = sample(cls), sample(cls)
    names = [name for name, *_ in entry["fields"]]
    assert one == other and not one != other and one != object()
    assert repr(one).startswith(f"{cls.__name__}({names[0]}=" if names else f"{cls.__name__}()")
    assert cls.__match_args__[: len(names)] == tuple(names)
    for copied in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert copied == one and type(copied) is cls
    if entry["frozen"]:
        for name in names:
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(one, name, None)
        if not any(isinstance(getattr(one, name), dict | list) for name in names):
            assert hash(one) == hash(other)
    else:
        with pytest.raises(TypeError, match="unhashable"):
            hash(one)
        for name in names:
            setattr(one, name, getattr(other, name))
    with pytest.raises((AttributeError, TypeError)):  # the latter of frozen ones with slots, by Python itself
        one.no_such_field = 1
    assert list(dataclasses.asdict(other))[: len(names)] == names
