"""Checks of `train --dry-run` that need tokenizers and demonstrations, but no weights.

If the run makes the same check before its first step, its function is called here, so that both
give the same message.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tutelage.cli import doctor
from tutelage.config.schema import Config, PolicySection
from tutelage.envs.base import Suite
from tutelage.envs.guard import first_observation
from tutelage.errors import ConfigError, PolicyError
from tutelage.policies import registry
from tutelage.policies.hf import lora, memory
from tutelage.prompts.alignment import Pair
from tutelage.prompts.chat_template import Chat, read_template
from tutelage.prompts.context import Context
from tutelage.prompts.prompter import Prompter
from tutelage.rollout.session import context_of
from tutelage.runs import diagnosis, models, selftest
from tutelage.runs.phases import Phase
from tutelage.types import Task


def check(
    config: Config,
    phases: Sequence[Phase],
    suite: Suite,
    context: Context,
    tasks: Sequence[Task],
    policies: set[str],
    context_length: int | None,
) -> list[str]:
    """The warnings, as sentences.

    policies        the names of the policies besides the student that the run uses
    context_length  of the student in tokens; None if unknown

    Raises ConfigError, EnvError or PolicyError for what the run would refuse.
    """
    _extras(config, policies)
    demonstrated = any(p.algorithm.acting.uses_expert for p in phases)
    demonstrated = demonstrated and not config.rollout.replay
    aloud = any(p.algorithm.acting.with_thoughts for p in phases)
    if demonstrated:
        selftest.check_expert(suite, tasks[0], config.rollout.max_turns, aloud=aloud)
    chat = _chat(config.policy, config, suite, context)
    if chat is None and context_length is not None and _may_not_fit(config, suite, context, tasks):
        chat = _trained_chat(config, suite, context)
    if chat is None:
        return []
    warnings = list(_other_tokenizers(chat, config, suite, context, policies, phases))
    if context_length is not None:
        _first_prompt(chat, config, suite, context, tasks[0], context_length)
    if demonstrated:
        warnings += diagnosis.long_demonstrations(
            chat, suite, tasks, config.rollout, with_thoughts=aloud
        )
    return warnings


def _extras(config: Config, policies: set[str]) -> None:
    """Check the packages that the models and the suite need."""
    if config.policy.lora:
        lora.require()
    sections = [config.policy, *(config.policies[n] for n in policies & set(config.policies))]
    if any(section.quantize == "nf4" for section in sections):
        memory.require()
    for line in doctor.suite_lines(config):
        if line.state == "missing" and line.name.startswith(" "):  # the first is the suite itself
            raise ConfigError(
                f"the suite {config.env.suite} needs {line.name.strip()}, which is missing: "
                f"{line.fix}"
            )


def _chat(section: PolicySection, config: Config, suite: Suite, context: Context) -> Chat | None:
    """A policy's tokenizer with its template; None if it is not on this machine."""
    tokenizer: Any
    if section.url or not registry.named(section).ours:
        return None
    if section.build is not None and not section.tokenizer:
        return None  # it is trained on the suite's texts
    if section.build is not None:
        tokenizer = models.tokenizer_of(section, config, suite, context)
    else:
        from transformers import AutoTokenizer

        try:
            folder = models.locate(section.model, where="policy")
            tokenizer = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, KeyError):
            return None  # not downloaded yet: the run checks it then
    return _with_template(tokenizer, section)


def _with_template(tokenizer: Any, section: PolicySection) -> Chat:
    if section.chat.template:
        path = models.template_of(section, where="policy")
        tokenizer.chat_template = read_template(Path(path))
    return Chat(tokenizer, section.template_history, tuple(section.chat.options.items()))


FRAME = 256
"""Bytes that a chat template may write around the messages of a first prompt."""


def _may_not_fit(config: Config, suite: Suite, context: Context, tasks: Sequence[Task]) -> bool:
    """Whether the first prompt of a model that is built with a tokenizer of its own may be too long:
    no token is shorter than a byte, so most contexts need no tokenizer to tell."""
    section = config.policy
    if section.build is None or section.tokenizer:
        return False
    seen = first_observation(suite, tasks[0])
    longest = len((context.system() + context.user([seen], [])).encode()) + FRAME
    return longest + config.rollout.max_new_tokens > section.build.context


def _trained_chat(config: Config, suite: Suite, context: Context) -> Chat:
    """With the tokenizer that the run will train on the suite's texts, which may take seconds."""
    tokenizer = models.tokenizer_of(config.policy, config, suite, context)
    return _with_template(tokenizer, config.policy)


def _other_tokenizers(
    student: Chat,
    config: Config,
    suite: Suite,
    context: Context,
    policies: set[str],
    phases: Sequence[Phase],
) -> Iterator[str]:
    for name in sorted(policies & set(config.policies)):
        other = _chat(config.policies[name], config, suite, context)
        if other is not None and other.fingerprint() != student.fingerprint():
            pair = Pair(student, other, name=f"policies.{name}")
            for phase in phases:
                selftest.refuse_mixed_tokens(name, phase.algorithm)
            yield diagnosis.other_tokenizer(name, pair)


def _first_prompt(
    chat: Chat, config: Config, suite: Suite, context: Context, task: Task, length: int
) -> None:
    seen = first_observation(suite, task)
    try:
        prompter = Prompter(chat=chat, context=context_of(context, suite, task))
        prompt = len(prompter.piece([seen], [], ended=False))
    except PolicyError as error:
        raise ConfigError(f"policy: {error}") from error
    reply = config.rollout.max_new_tokens
    if prompt + reply > length:
        raise ConfigError(
            f"the first prompt of task {task.id} has {prompt} tokens and a reply may have {reply}, "
            f"but the student's context has {length}: every episode would end before its first "
            "turn; lower rollout.max_new_tokens, choose a shorter context.render, or a model with "
            "a longer context"
        )
