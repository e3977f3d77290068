from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Pushed:
    """A revision that was taken in."""

    name: str
    revision: str
    step: int | None
    #: What was current before. The revision itself where it was current already; None where nothing was, or an operator answers.
    previous: str | None
    #: ``{"name", "state", "ms"}`` of each desired pod, as an operator names them; empty for one pod.
    pods: list[dict[str, Any]]
    #: In milliseconds, as the other side measured them.
    timings: dict[str, float]
    #: Every desired pod is as far as ``wait`` asked. Where False, those that are not are named in ``pods`` and follow.
    everywhere: bool
    #: In the log lines of the operator and of every pod that this push made.
    trace_id: str

    @property
    def expect(self) -> dict[str, Any]:
        """Fields of a sampling request that must be answered by this revision or fail: OpenAI's ``extra_body``."""
        return {"lora": {"expect": {"revision": self.revision}}}


@dataclass(frozen=True)
class RolledBack:
    """A revision that is current again."""

    name: str
    revision: str
    #: What was current before; the revision itself where nothing changed.
    previous: str
    #: As of a push.
    pods: list[dict[str, Any]]
    everywhere: bool


@dataclass(frozen=True)
class Revision:
    """A revision that pods hold."""

    revision: str
    step: int | None
    bytes: int
    rank: int
    #: It is what the adapter's name stands for. With an operator: on every pod that holds it, and it is the desired one.
    current: bool
    #: A rollback may go back to it; None where one pod answers for itself, which does not say so.
    earlier: bool | None
    #: ``{"name", "state", "tier"}`` of each pod that holds it; the name is empty where one pod answers for itself.
    pods: list[dict[str, Any]]


@dataclass(frozen=True)
class Removed:
    name: str
    removed: list[str]
    #: Requests that still run on what was removed; they finish.
    leases: int
