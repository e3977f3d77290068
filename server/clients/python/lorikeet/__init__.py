"""Pushes LoRA adapters from a trainer's memory to running Lorikeet pods."""

from .answers import Pushed, Removed, Revision, RolledBack
from .client import Client, OperatorClient
from .errors import (
    Busy,
    DigestMismatch,
    InvalidAdapter,
    LorikeetError,
    NotAllowed,
    NotFound,
    NotYet,
    PreconditionFailed,
    StepNotNewer,
    Superseded,
    Unreachable,
    ZeroEffect,
)
from .retry import Retry

__all__ = [
    "Busy",
    "Client",
    "DigestMismatch",
    "InvalidAdapter",
    "LorikeetError",
    "NotAllowed",
    "NotFound",
    "NotYet",
    "OperatorClient",
    "PreconditionFailed",
    "Pushed",
    "Removed",
    "Retry",
    "Revision",
    "RolledBack",
    "StepNotNewer",
    "Superseded",
    "Unreachable",
    "ZeroEffect",
]
