"""`tutelage try`: one episode on the terminal, every turn as the model sees it and as it is read."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from rich.console import Console
from rich.text import Text

from tutelage.cli.show import before_reply, end, outcome, reply
from tutelage.config.schema import Config
from tutelage.envs.base import Suite
from tutelage.errors import ConfigError, did_you_mean
from tutelage.policies.server.chat import TextChat, messages
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Ids
from tutelage.rollout.play import play
from tutelage.rollout.record import episode_line, turn_line
from tutelage.rollout.session import Session
from tutelage.runs import offline
from tutelage.runs.assemble import assemble, tasks_of
from tutelage.types import EXPERT, Episode, Observation, Stop, Task, Turn
from tutelage.viewer.text import visible

COMPARED = 10_000
"""Ids of a split among which a misspelt one is looked for."""


def show(config: Config, console: Console, *, student: str, task: str, expert: bool) -> None:
    """Play one episode as an evaluation would and print each turn when it is done.

    student  the folder of a checkpoint, "" for the model that the configuration names
    task     the id of a task of eval.split, "" for its first
    expert   let the suite's expert play instead

    Raises ConfigError for a task that does not exist, and for a suite without an expert.
    """
    parts = assemble(config, learns=False, evaluates=False)
    config = parts.config
    chosen = _task(parts.suite, config.eval.split, task)
    if expert:
        offline.need_expert(parts.suite, config)
    acting = offline.alone(EXPERT if expert else offline.STUDENT, thoughts=False)
    with offline.opened(parts, student=student, others=[], tick=_no_tick) as opened:
        limits = replace(opened.limits, temperature=config.eval.temperature, retries=0)
        printer = _Printer(opened, console)
        session = replace(opened, limits=limits, turned=printer.turn)
        console.print(Text(visible(chosen.id), style="bold"))
        (episode,) = play(session, [chosen], acting, seed=config.run.seed, step=-1)
        printer.end(episode)


def _no_tick(done: int, total: int) -> None:
    pass


def _task(suite: Suite, split: str, name: str) -> Task:
    tasks: Sequence[Task] = tasks_of(suite, split, 1, where="eval")
    if not name:
        return tasks[0]
    found = next((task for task in tasks if task.id == name), None)
    if found is None:
        near = did_you_mean(name, (task.id for task in islice(tasks, COMPARED)))
        raise ConfigError(
            f"the {split} split has no task {name!r}{near or ';'} its {len(tasks)} tasks begin "
            f"with {', '.join(task.id for task in islice(tasks, 3))}"
        )
    return found


def _prompt(chat: Chat, ids: Ids) -> tuple[str, str]:
    """How long a prompt is, and its text with everything that the chat template adds."""
    if isinstance(chat, TextChat):
        found = messages(ids)
        return f"{len(found)} messages", "\n".join(f"{m['role']}: {m['content']}" for m in found)
    text = str(chat.tokenizer.decode(list(ids), skip_special_tokens=False))
    return f"{len(ids)} tokens", text


@dataclass
class _Printer:
    """Prints turns as they end."""

    session: Session
    console: Console
    number: int = 0
    last: Observation | None = None  # what the last action was answered with

    @property
    def chat(self) -> Chat:
        return self.session.policies["self"].chat

    def turn(self, turn: Turn, after: Observation) -> None:
        self.number, self.last = self.number + 1, after
        if self.number == 1:
            title, shown = _prompt(self.chat, turn.prompt)
            self._rule(f"the first prompt, {title}")
            self.console.print(Text(visible(shown)), soft_wrap=True)
            self._rule("the episode")
        before_reply(self.number, turn_line(turn), self.console)
        self.console.print(reply(turn.text), soft_wrap=True)
        for text, style in self._reading(turn, after):
            self.console.print(Text(f"  {text}", style=style), soft_wrap=True)

    def _rule(self, title: str) -> None:
        self.console.print(Text(f"--- {title}", style="bold dim"))

    def _reading(self, turn: Turn, after: Observation) -> list[tuple[str, str]]:
        """How the answer was read, each line with its style."""
        lines = []
        limit = self.session.limits.max_new_tokens
        problem = self.session.context.problem(turn.text)
        if problem:
            lines.append((f"unreadable: {problem}", "red"))
        else:
            lines.append((f"action: {visible(turn.action)}", ""))
        whole = turn.actor == EXPERT or bool({*turn.tokens[-1:]} & {*self.chat.ends})
        if len(turn.tokens) >= limit and not whole:
            lines.append((f"cut at rollout.max_new_tokens = {limit}", "red"))
        if not problem and not after.valid:
            lines.append(("refused by the environment, which answers below", "red"))
        return lines

    def end(self, episode: Episode) -> None:
        """The answer to the last action, and the outcome."""
        if self.last is not None:
            self.console.print(Text(visible(self.last.text), style="dim"), soft_wrap=True)
        end(episode_line(episode, 0), self.console)
        limits = self.session.limits
        if episode.stop is Stop.TOKENS:
            length = self.session.policies["self"].context_length
            self.console.print(
                f"the next prompt leaves no room for rollout.max_new_tokens = "
                f"{limits.max_new_tokens} in the model's context of {length} tokens",
                highlight=False,
            )
        elif episode.stop is Stop.TURNS:
            self.console.print(f"rollout.max_turns is {limits.max_turns}", highlight=False)
        invalid = sum(not turn.valid for turn in episode.turns)
        score = "" if episode.score is None else f", score {episode.score:.3g}"
        summary = outcome(episode.won)
        summary.append(
            f"  return {episode.total_reward:.3g}{score}, invalid turns: {invalid} of "
            f"{len(episode.turns)}",
            style="",
        )
        self.console.print(summary, soft_wrap=True)
