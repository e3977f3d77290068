from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .errors import Unreachable


@dataclass(frozen=True)
class Retry:
    """How often and after what pauses a call is tried again: after a lost connection, 429, 503 and 504, nothing else."""

    tries: int = 5
    pause_seconds: float = 0.2
    pause_seconds_max: float = 5.0
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random.random

    def pause(self, failures: int, retry_after: float) -> float:
        """Seconds to wait after so many failures; spread, so that many trainers do not come back at once."""
        spread = min(self.pause_seconds_max, self.pause_seconds * 2.0 ** (failures - 1))
        return retry_after + spread * self.random()


@dataclass
class Deadline:
    seconds: float
    clock: Callable[[], float] = time.monotonic
    _end: float = field(init=False)

    def __post_init__(self) -> None:
        self._end = self.clock() + self.seconds

    def left(self) -> float:
        """Above zero, or Unreachable."""
        left = self._end - self.clock()
        if left <= 0:
            raise Unreachable("timeout", f"Expected an answer within {self.seconds:g} s", expected=self.seconds)
        return left

    def allows(self, seconds: float) -> bool:
        return self.clock() + seconds < self._end
