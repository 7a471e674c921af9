"""From episodes to tensors: collate the sampled tokens of a step into one flat TokenBatch."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from tutelage.maths.segments import segment_sum
from tutelage.types import Episode, Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenBatch:
    """Every sampled token of a step, flat: N tokens in U turns in E episodes in G groups.

    There is no padding and no mask: prompts and observations are not part of it.
    """

    token: Tensor  # [N] int
    logp: Tensor  # [N] log-probability when sampled, under the policy that sampled
    turn: Tensor  # [N] -> U
    episode: Tensor  # [U] -> E
    group: Tensor  # [E] -> G
    writer: Tensor  # [N] -> index into `actors`: the writer of the token
    actor: Tensor  # [U] -> index into `actors`: the view that began the turn
    reward: (
        Tensor  # [U] reward less penalty, in float64 so that equal sums compare equal in any order
    )
    penalty: Tensor  # [U] what was subtracted from the reward, float64
    # [U]; turns of one group in the same environment state share a number, and a turn without a
    # state has a number of its own
    state: Tensor
    won: Tensor  # [E] bool
    # [N, K] ids of the likely tokens that were recorded with each, -1 where there are fewer, and
    # their log-probabilities, -inf likewise; K = 0 where none were recorded
    top_ids: Tensor
    top_logps: Tensor
    actors: tuple[str, ...]

    def to(self, device: str) -> "TokenBatch":
        """The same batch on the student's device, where losses are formed."""
        moved = {
            f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "actors"
        }
        return replace(self, **moved)

    @property
    def owner(self) -> Tensor:
        """[N] -> E: `x[batch.owner]` spreads a per-episode x over tokens, `x[batch.turn]` a
        per-turn one."""
        return self.episode[self.turn]

    @property
    def outcome(self) -> Tensor:
        """[E] return of each episode, undiscounted."""
        return segment_sum(self.reward, self.episode, len(self.group))


def _number(keys: Sequence[Hashable]) -> Tensor:
    seen: dict[Hashable, int] = {}
    return torch.tensor([seen.setdefault(key, len(seen)) for key in keys], dtype=torch.long)


def collate(episodes: Sequence[Episode]) -> TokenBatch:
    """Collate the sampled tokens of a step. Broken episodes must have been removed before."""
    turns = [(e, turn) for e, episode in enumerate(episodes) for turn in episode.turns]
    writers = [name for _, turn in turns for name in turn.writers()]
    actors = tuple(sorted({*writers, *(turn.actor for _, turn in turns)}))
    number = {name: k for k, name in enumerate(actors)}
    return TokenBatch(
        token=torch.tensor([t for _, turn in turns for t in turn.tokens], dtype=torch.long),
        logp=torch.tensor([x for _, turn in turns for x in turn.logps], dtype=torch.float32),
        turn=torch.tensor(
            [u for u, (_, turn) in enumerate(turns) for _ in turn.tokens], dtype=torch.long
        ),
        episode=torch.tensor([e for e, _ in turns], dtype=torch.long),
        group=_number([episode.group for episode in episodes]),
        writer=torch.tensor([number[name] for name in writers], dtype=torch.long),
        actor=torch.tensor([number[turn.actor] for _, turn in turns], dtype=torch.long),
        reward=torch.tensor([turn.reward - turn.penalty for _, turn in turns], dtype=torch.float64),
        penalty=torch.tensor([turn.penalty for _, turn in turns], dtype=torch.float64),
        state=_number(
            [
                _situation(episodes[e], u, turn.observation.state)
                for u, (e, turn) in enumerate(turns)
            ]
        ),
        won=torch.tensor([episode.won for episode in episodes], dtype=torch.bool),
        **_top([turn for _, turn in turns]),
        actors=actors,
    )


def _top(turns: Sequence[Turn]) -> dict[str, Tensor]:
    """`top_ids` and `top_logps` of all tokens."""
    rows = [row for turn in turns for row in turn.top_logprobs or ((),) * len(turn.tokens)]
    k = max(map(len, rows), default=0)
    padded = [[*row, *[(-1, -math.inf)] * (k - len(row))] for row in rows]
    return {
        "top_ids": torch.tensor([[i for i, _ in row] for row in padded], dtype=torch.long).view(
            len(rows), k
        ),
        "top_logps": torch.tensor(
            [[x for _, x in row] for row in padded], dtype=torch.float32
        ).view(len(rows), k),
    }


def _situation(episode: Episode, turn: int, state: Hashable) -> Hashable:
    return (episode.group, ("turn", turn) if state is None else ("state", state))
