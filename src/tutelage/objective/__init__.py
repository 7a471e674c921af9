"""Algorithms as values: views, loss terms and signals, and how they are bound to one step."""

from tutelage.objective.acting import Acting
from tutelage.objective.algorithm import EVENLY, Algorithm
from tutelage.objective.bind import Objective, bind
from tutelage.objective.step import ONE, Signal, Step
from tutelage.objective.takeover import Takeover
from tutelage.objective.terms import (
    Bound,
    Distill,
    DistillRecorded,
    DistillSampled,
    Entropy,
    Gate,
    Loss,
    Reinforce,
    Term,
    note_gate,
)
from tutelage.objective.view import STUDENT, TOP_LOGPROBS, View

__all__ = [
    "EVENLY",
    "ONE",
    "STUDENT",
    "TOP_LOGPROBS",
    "Acting",
    "Algorithm",
    "Bound",
    "Distill",
    "DistillRecorded",
    "DistillSampled",
    "Entropy",
    "Gate",
    "Loss",
    "Objective",
    "Reinforce",
    "Signal",
    "Step",
    "Takeover",
    "Term",
    "View",
    "bind",
    "note_gate",
]
