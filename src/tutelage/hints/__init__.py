"""Privileged information: hints about a task in a teacher's prompt but not in the student's.

A view's hint is one string of kinds joined by "+", each at most once: "plan", "skills",
"plan+skills:ucb". Their texts stand in this order in one block of the system message.

plan     the expert's actions with their arguments, in order
trace    the expert's demonstration, in the same form
actions  only the first word of each: what kinds of action, in which order
answer   the task's reference answer
skills   the bank's general file and what retrieval chose for the task: "skills" as [hints] says,
         "skills:random" another way (see `retrieval`)
written  two or three sentences that the student wrote from the plan before it first played the task

A task for which a suite has nothing gives an empty text, and a view with an empty hint is a plain
view. A kind that the suite can never give is refused.
"""

from tutelage.hints.kinds import KINDS, Hints, check, hint, kinds_in

__all__ = ["KINDS", "Hints", "check", "hint", "kinds_in"]
