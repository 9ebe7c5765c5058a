"""A manifest store of the caller's, asked by the engine."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any, TypeAlias

from shardyfusion._formats import manifest_bytes
from shardyfusion._timeouts import caller_at_work
from shardyfusion.async_manifest_store import AsyncManifestStore
from shardyfusion.errors import ManifestParseError

if TYPE_CHECKING:
    from shardyfusion._native import Question
    from shardyfusion.manifest import ParsedManifest
    from shardyfusion.manifest_store import ManifestStore

Ask: TypeAlias = "Callable[[Question], Coroutine[Any, Any, None] | None]"
Loaded: TypeAlias = "Callable[[str, ParsedManifest], object] | None"


def ask_async(store: AsyncManifestStore, loaded: Loaded = None) -> Callable[[Question], Coroutine[Any, Any, None]]:
    """Its coroutines run in the task that opens or refreshes. `loaded` is told of manifests."""

    async def answer(question: Question) -> None:
        try:
            with caller_at_work():
                value = _engines(question, await _asked(store, question), loaded)
        except Exception as error:
            question.fail(error, _status(error))
        else:
            question.answer(value)

    return answer


def ask_sync(store: ManifestStore, loaded: Loaded = None) -> Callable[[Question], None]:
    """Its methods run on the thread that opens or refreshes."""

    def answer(question: Question) -> None:
        try:
            found = _asked(store, question)
            if iscoroutine(found):
                found.close()
                raise TypeError(f"{type(store).__qualname__}.{question.what} is asynchronous, the reader is not")
            value = _engines(question, found, loaded)
        except Exception as error:
            question.fail(error, _status(error))
        else:
            question.answer(value)

    return answer


def _asked(store: Any, question: Question) -> Any:
    if question.what == "load_manifest":
        return store.load_manifest(question.about)
    if question.what == "list_manifests":
        return store.list_manifests(limit=question.about)
    return store.load_current()


def _engines(question: Question, found: Any, loaded: Loaded) -> object:
    """The store's answer as the engine takes it."""
    if question.what == "load_manifest":
        if loaded is not None:
            loaded(question.about, found)
        return manifest_bytes(found)
    if question.what == "list_manifests":
        return [ref.ref for ref in found]
    return None if found is None else found.ref


def _status(error: Exception) -> str:
    return "BAD_MANIFEST" if isinstance(error, ManifestParseError) else "IO"
