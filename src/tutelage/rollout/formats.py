"""Recorded episodes in forms that other tools read: ATIF trajectories, and chat messages.

ATIF is the Agent Trajectory Interchange Format, version 1.8 (harbor's RFC 0001). What it has no
field for goes into its `extra` tables under "tutelage", so that an episode that was written comes
back equal. A message is what OpenAI's fine-tuning files call so: a role and its text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.errors import RunError
from tutelage.rollout.record import Line
from tutelage.types import WRONG_TURN

SCHEMA = "ATIF-v1.8"
OURS = "tutelage"
FORMS = ("atif", "messages")
_TURN = ("actor", "taken", "action", "valid", "reward", "penalty", "fresh")
_SOMETIMES = ("version", "top_logprobs")


def atif(line: Mapping[str, Any], *, version: str, model: str = "") -> Line:
    """A line of episodes.jsonl as one ATIF trajectory.

    The first step is what the environment showed at first; each turn is a step of the agent, with
    what the environment answered. `prompt_token_ids` is the whole prompt of a turn; the number of
    new ids at its end is stored separately.
    """
    turns: Sequence[Mapping[str, Any]] = line["turns"]
    steps: list[dict[str, Any]] = []
    if turns:
        steps.append({"step_id": 1, "source": "user", "message": turns[0]["seen"]})
    whole: list[int] = []
    for k, turn in enumerate(turns):
        new = list(turn["prompt"])
        whole = new if turn["fresh"] else [*whole, *new]
        step: dict[str, Any] = {
            "step_id": k + 2,
            "source": "agent",
            "message": turn["text"],
            "metrics": {
                "prompt_tokens": len(whole),
                "completion_tokens": len(turn["tokens"]),
                "prompt_token_ids": list(whole),
                "completion_token_ids": list(turn["tokens"]),
                "logprobs": list(turn["logps"]),
            },
            "extra": {OURS: {**_extra(turn), "new": len(new)}},
        }
        if k + 1 < len(turns):
            step["observation"] = {"results": [{"content": turns[k + 1]["seen"]}]}
        steps.append(step)
        whole = [*whole, *turn["tokens"]]
    task = line["task"]["id"]
    about = {name: value for name, value in line.items() if name != "turns"}
    return {
        "schema_version": SCHEMA,
        "trajectory_id": f"{task}/{line.get('phase', '')}/{line['step']}/{line['copy']}",
        "agent": {"name": OURS, "version": version, **({"model_name": model} if model else {})},
        "steps": steps,
        "final_metrics": {
            "total_steps": len(steps),
            "total_completion_tokens": sum(len(turn["tokens"]) for turn in turns),
            "extra": {"return": line["return"], "won": line["won"], "score": line["score"]},
        },
        "extra": {OURS: about},
    }


def _extra(turn: Mapping[str, Any]) -> dict[str, Any]:
    return {name: turn[name] for name in (*_TURN, *_SOMETIMES) if name in _TURN or name in turn}


def from_atif(trajectory: Mapping[str, Any]) -> Line:
    """The line of episodes.jsonl that a trajectory is: the same one, if `atif` wrote it.

    Of another tool's trajectory, each of the agent's steps becomes a turn that answers what was
    shown before it; the task is named after the trajectory, and it counts as won if its
    `final_metrics.extra.won` is true. Steps that are copied context are left out.

    Raises RunError for what is no ATIF trajectory.
    """
    try:
        if not str(trajectory["schema_version"]).startswith("ATIF-v1."):
            raise RunError(
                f"{trajectory['schema_version']!r} is no version of ATIF that can be read; "
                f"convert it to {SCHEMA}"
            )
        about = (trajectory.get("extra") or {}).get(OURS)
        turns = _turns(trajectory["steps"])
        return {**(about or _about(trajectory, turns)), "turns": turns}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError(
            f"this is no ATIF trajectory ({type(error).__name__}: {error}); give a file of {SCHEMA}"
        ) from error


def _turns(steps: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    seen: list[str] = []
    whole: list[int] = []
    for step in steps:
        if step.get("is_copied_context"):
            continue
        if step["source"] == "agent":
            turn, whole = _turn(step, "\n".join(seen), whole)
            turns.append(turn)
            seen = []
        else:
            seen.append(_text(step["message"]))
        results = (step.get("observation") or {}).get("results", ())
        seen += [_text(result.get("content") or "") for result in results]
    return turns


def _turn(step: Mapping[str, Any], seen: str, whole: list[int]) -> tuple[dict[str, Any], list[int]]:
    """A turn, and all ids up to its end. If the prompt extends the ids before, only its new part is
    stored."""
    metrics = step.get("metrics") or {}
    ours = (step.get("extra") or {}).get(OURS, {})
    prompt = list(metrics.get("prompt_token_ids") or ())
    tokens = list(metrics.get("completion_token_ids") or ())
    logps = list(metrics.get("logprobs") or [0.0] * len(tokens))
    text = _text(step["message"])
    fresh = bool(ours["fresh"]) if ours else prompt[: len(whole)] != whole
    new = int(ours["new"]) if ours else len(prompt) - (0 if fresh else len(whole))
    turn = {
        "seen": seen,
        "actor": ours.get("actor", "teacher"),
        "taken": ours.get("taken"),
        "text": text,
        "action": ours.get("action", _action(step, text)),
        "valid": ours.get("valid", True),
        "reward": ours.get("reward", 0.0),
        "penalty": ours.get("penalty", 0.0),
        "fresh": fresh,
        "prompt": prompt[len(prompt) - new :],
        "tokens": tokens,
        "logps": logps,
        **{name: ours[name] for name in _SOMETIMES if name in ours},
    }
    return turn, [*prompt, *tokens]


def _action(step: Mapping[str, Any], text: str) -> str:
    """The action: the step's tool calls, or its message."""
    calls = step.get("tool_calls") or ()
    return "\n".join(f"{call['function_name']} {call['arguments']}" for call in calls) or text


def _text(content: object) -> str:
    """Text of a message; parts that are pictures or sound have none here."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise TypeError(f"a message is a text or a list of parts, not {type(content).__name__}")
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _about(trajectory: Mapping[str, Any], turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    name = trajectory.get("trajectory_id") or trajectory.get("session_id") or "trajectory"
    final = (trajectory.get("final_metrics") or {}).get("extra") or {}
    return {
        "phase": "train",
        "step": 0,
        "task": {"id": str(name), "family": "", "seed": 0, "data": {}},
        "group": str(name),
        "copy": 0,
        "stop": "done",
        "won": bool(final.get("won", False)),
        "score": final.get("score"),
        "return": float(final.get("return") or 0.0),
        "error": "",
        "penalties": {},
    }


def messages(line: Mapping[str, Any]) -> Line:
    """A line of episodes.jsonl as a conversation: the environment is the user. A turn that was
    wrong on purpose has the weight 0, which tools that fine-tune leave out of the loss."""
    talk: list[dict[str, Any]] = []
    for turn in line["turns"]:
        talk.append({"role": "user", "content": turn["seen"]})
        talk.append({"role": "assistant", "content": turn["text"]})
        if turn["actor"] == WRONG_TURN:
            talk[-1]["weight"] = 0
    return {
        "messages": talk,
        "task": line["task"]["id"],
        "family": line["task"]["family"],
        "won": line["won"],
        "return": line["return"],
    }
