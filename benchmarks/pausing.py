"""Doors whose environment takes its time, for `ahead.py`; its workers import nothing else."""

import time
from dataclasses import dataclass

from tutelage.envs.doors import Doors, DoorsEnv
from tutelage.types import Observation


class Pausing(DoorsEnv):
    def __init__(self, pause: float) -> None:
        super().__init__()
        self.pause = pause

    def step(self, action: str) -> Observation:
        time.sleep(self.pause)
        return super().step(action)


@dataclass(frozen=True)
class PausingDoors(Doors):
    rooms: int = 3
    pause: float = 0.05

    def make(self) -> DoorsEnv:
        return Pausing(self.pause)
