"""A model as the other side of a conversation, such as the customer of a support task."""

from collections.abc import Callable, Sequence
from itertools import count

from tutelage.errors import PolicyError
from tutelage.policies.base import Actor, Request
from tutelage.types import Message

Reply = Callable[[Sequence[Message]], str]


def replies(policy: Actor, *, tokens: int = 128, temperature: float = 0.0, seed: int = 0) -> Reply:
    """A function from a conversation (system, user, assistant, user, ...) to the policy's reply.

    The policy must have no other requests meanwhile, because each reply is waited for here. Equal
    conversations get equal replies. Raises PolicyError if one no longer fits the context.
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
                f"customer's {policy.context_length}; lower user_options.tokens or "
                "rollout.max_turns, or take a model with a longer context"
            )
        key = f"customer {next(keys)}"
        policy.submit(
            Request(key=key, prompt=prompt, seed=seed, max_new=tokens, temperature=temperature)
        )
        completions = policy.poll()
        while not completions:
            completions = policy.poll()
        policy.release(key)
        if [completion.key for completion in completions] != [key]:
            raise PolicyError(
                "a policy that plays a customer also samples other turns; load a model of its own"
            )
        return policy.chat.text(completions[0].tokens)

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
