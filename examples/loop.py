"""The whole training loop in one flat file: imitation of the format, then GRPO on reward alone.

    python examples/loop.py

A tiny model of random weights plays `doors`: a room shows a letter, and a hidden rule says which
digit opens its door. First it learns from random answers how an answer is written, so that one in
three is right; then GRPO (arXiv:2402.03300) finds the rule from the rewards. A few seconds on a
CPU. `tutelage train` does the same with batching, teachers, checkpoints and evaluation.
"""

import random
import sys

import torch

import tutelage as tl
from tutelage.maths.advantages import group_relative
from tutelage.maths.surrogates import ppo_clip
from tutelage.policies.base import Request
from tutelage.policies.hf.tiny import build_model, train_tokenizer
from tutelage.prompts import answer_format
from tutelage.prompts.chat_template import Chat
from tutelage.prompts.prompter import Sample

ROOMS = 2
FORMAT_STEPS, STEPS = 60, 50
TASKS, GROUP = 6, 8  # tasks a step, and episodes of each: the group of an advantage
EPOCHS = 4  # passes over a step's tokens
MAX_NEW_TOKENS = 5
FORMAT_LR, LR = 1e-2, 5e-3
SEED = 0


def main(steps: int = STEPS) -> list[float]:
    """Train, and return the mean return of every step (ROOMS at most)."""
    rng = random.Random(SEED)
    suite = tl.suite("doors", rooms=ROOMS)
    tasks = list(suite.tasks("train"))

    # -- a model: two layers of random weights, and a tokenizer of the words it will see
    answers = [answer_format.write(digit) for digit in "134"]
    tokenizer = train_tokenizer(["a b c the end", *answers] * 3, entries=600)
    chat = Chat(tokenizer)
    model = build_model(
        entries=chat.size,
        layers=2,
        hidden=32,
        heads=2,
        kv_heads=1,
        ffn=64,
        context=64,
        seed=SEED,
        end=chat.end,
        pad=tokenizer.pad_token_id,
    )
    policy = tl.HFPolicy(model, chat, slots=TASKS * GROUP)
    optimizer = torch.optim.AdamW(policy.parameters(), lr=FORMAT_LR)

    # -- how an answer is written: maximum likelihood of random answers
    for _ in range(FORMAT_STEPS):
        batch = [
            Sample(prompt=chat.open("", letter), tokens=chat.reply(rng.choice(answers)))
            for letter in "abc"
            for _ in range(4)
        ]
        loss = -policy.score(batch, 1.0).logp.mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    # -- GRPO
    surrogate = ppo_clip(0.2)
    # a new optimiser: the second moments of the larger gradients before would hold it back
    optimizer = torch.optim.AdamW(policy.parameters(), lr=LR)
    history = []
    for step in range(steps):
        # play: every episode is a growing transcript, and all that wait for a turn are one batch
        policy.refresh()  # the weights have changed: forget the keys and values of the last step
        chosen = rng.sample(tasks, TASKS)
        episodes = {}
        for g, task in enumerate(chosen):
            for copy in range(GROUP):
                env = suite.make()
                seen = env.reset(task)
                episodes[f"{task.id}#{copy}"] = {
                    "env": env,
                    "group": g,
                    "prompt": chat.open("", seen.text),
                    "samples": [],
                    "logps": [],
                    "return": 0.0,
                }
        playing = dict(episodes)
        while playing:
            for key, episode in playing.items():
                policy.submit(
                    Request(
                        key=key,
                        prompt=episode["prompt"],
                        seed=rng.randrange(2**62),
                        max_new=MAX_NEW_TOKENS,
                    )
                )
            waiting = set(playing)
            while waiting:
                for turn in policy.poll():
                    waiting.remove(turn.key)
                    episode = playing[turn.key]
                    episode["samples"].append(Sample(prompt=episode["prompt"], tokens=turn.tokens))
                    episode["logps"] += turn.logps
                    action = answer_format.parse(chat.text(turn.tokens)).action
                    seen = episode["env"].step(action)
                    episode["return"] += seen.reward
                    if seen.done:
                        policy.release(turn.key)
                        del playing[turn.key]
                    else:  # the transcript grows: prompt, reply, next observation
                        ended = turn.tokens[-1] == chat.end
                        episode["prompt"] += turn.tokens + chat.follow(seen.text, ended=ended)

        # advantages: an episode's return less its group's mean, over the group's deviation
        batch = list(episodes.values())
        returns = torch.tensor([episode["return"] for episode in batch])
        groups = torch.tensor([episode["group"] for episode in batch])
        per_episode = group_relative(returns, groups)
        lengths = torch.tensor([len(episode["logps"]) for episode in batch])
        advantages = per_episode.repeat_interleave(lengths)  # [N], one for each sampled token
        old = torch.tensor([x for episode in batch for x in episode["logps"]])

        # learn: the same tokens scored with a gradient, the clipped surrogate, a step; and again,
        # as the clip allows, since old log-probs stay those of sampling
        samples = [sample for episode in batch for sample in episode["samples"]]
        for _ in range(EPOCHS):
            logps = policy.score(samples, 1.0).logp
            loss = surrogate(logps, old, advantages).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(policy.parameters()), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        history.append(float(returns.mean()))
        if step % 5 == 0 or step == steps - 1:
            sys.stdout.write(f"step {step:3d}  return {history[-1]:.2f} of {ROOMS}\n")
    return history


if __name__ == "__main__":
    main()
