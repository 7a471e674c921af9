"""A policy that talks: the next message of a conversation, for customers that are models."""

from collections.abc import Callable, Sequence
from itertools import count

from tutelage.errors import PolicyError
from tutelage.policies.base import Actor, Request
from tutelage.types import Message

Reply = Callable[[Sequence[Message]], str]


def replies(policy: Actor, *, tokens: int = 128, temperature: float = 0.0, seed: int = 0) -> Reply:
    """What `policy` says next in a conversation of system, user, assistant, user, ...

    The policy must play no other part meanwhile, because its answers are waited for here. The same
    conversation gets the same reply. Raises PolicyError where it no longer fits its context.
    """
    keys = count()

    def reply(messages: Sequence[Message]) -> str:
        system, first, *rest = (message.content for message in messages)
        prompt = policy.chat.open(system, first)
        for agent, user in zip(rest[::2], rest[1::2], strict=True):
            prompt += policy.chat.reply(agent) + policy.chat.follow(user, ended=True)
        if len(prompt) + tokens > policy.context_length:
            raise PolicyError(
                f"a conversation of {len(prompt)} tokens leaves no room for {tokens} more in the "
                f"customer's {policy.context_length}; lower user_options.tokens or rollout.max_turns, "
                "or take a model with a longer context"
            )
        key = f"customer {next(keys)}"
        policy.submit(
            Request(key=key, prompt=prompt, seed=seed, max_new=tokens, temperature=temperature)
        )
        made = policy.poll()
        while not made:
            made = policy.poll()
        policy.release(key)
        if [completion.key for completion in made] != [key]:
            raise PolicyError("a policy that plays a customer was also asked for something else")
        return policy.chat.text(made[0].tokens)

    return reply


def local(
    *,
    model: str,
    device: str = "cpu",
    tokens: int = 128,
    temperature: float = 0.0,
    seed: int = 0,
) -> Reply:
    """Replies of a model from a folder or a hub id, loaded into this process."""
    from tutelage.policies.hf.loading import load

    policy = load(model, device=device, history="append")
    return replies(policy, tokens=tokens, temperature=temperature, seed=seed)
