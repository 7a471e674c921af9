"""Bugs on the reward side: credits, reductions of whole episodes, penalties, dynamic sampling."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

REWARDS = ("tests/algorithms/test_rewards.py",)

BUGS: Bugs = {
    "maths/credit.py": (
        REWARDS,
        [
            ("rows with a population's deviation", "group, size) / (count - 1).clamp(min=1)",
             "group, size) / count.clamp(min=1)"),
            ("a row alone is centred", ".masked_fill(alone, 0.0)", ""),
            ("a row alone without deviation", ".masked_fill(alone, 1.0)", ""),
            ("batch normalisation forgets the mean", "exact - exact.mean() if len(x) else exact",
             "exact"),
            ("batch normalisation by the variance", "centred.square().mean().sqrt()",
             "centred.square().mean()"),
            ("sums run on into the next episode", "(after - later[index])", "after"),
            ("sums from the start", "after = exact.flip(0).cumsum(0).flip(0)",
             "after = exact.cumsum(0)"),
        ],
    ),
    "maths/estimators.py": (
        REWARDS,
        [
            ("k1 turned round", "return student - teacher.detach()\n\n\ndef k2",
             "return teacher.detach() - student\n\n\ndef k2"),
            ("k2 without its half", "(student - teacher.detach()).square() / 2",
             "(student - teacher.detach()).square()"),
        ],
    ),
    "signals/rewards.py": (
        REWARDS,
        [
            ("a drift of the student of now", "made(s.batch.logp, s.scores",
             'made(s.scores["student"].logp, s.scores'),
            ("a cost that pays", "outcome = outcome - segment_sum(",
             "outcome = outcome + segment_sum("),
            ("a KL of single tokens", "credit.sum_to_end(of(s), s.batch.owner)", "of(s)"),
            ("rows with everybody's penalties", "b.reward + b.penalty, b.episode",
             "b.reward, b.episode"),
            ("rows without their penalty", "earned[b.episode] - b.penalty", "earned[b.episode]"),
            ("rows' baseline over all groups", "row_relative(score, b.group[b.episode], std=std)",
             "row_relative(score, b.group[b.episode] * 0, std=std)"),
            ("states across the whole batch", "group_relative(returns, b.state, std=std)",
             "group_relative(returns, b.state * 0, std=std)"),
            ("states with the undiscounted reward of a turn", "group_relative(returns, b.state",
             "group_relative(b.reward, b.state"),
            ("any state is shared", "(peers > 1)", "(peers > 0)"),
        ],
    ),
    "algorithms/rloo.py": (
        REWARDS,
        [
            ("a mean over tokens", "reduction=episode_sum()", "reduction=episode_mean()"),
            ("the KL left out", "kl * drift() if kl else None", "None"),
        ],
    ),
    "algorithms/dr_grpo.py": (
        REWARDS,
        [
            ("its own length", "(1 / length) * episode_sum()", "episode_mean()"),
            ("the deviation is back", "std=False", "std=True"),
            ("minibatches by tokens", "size=episode_mean()", "size=None"),
        ],
    ),
    "algorithms/dapo.py": (
        REWARDS,
        [
            ("flat groups count", "token_mean(varied())", "token_mean()"),
            ("a symmetric clip", "ppo_clip(clip, clip_high, dual_clip)",
             "ppo_clip(clip, clip, dual_clip)"),
            ("the penalty always", "if overlong else {}", "if True else {}"),
        ],
    ),
    "penalties.py": (
        REWARDS,
        [
            ("overlong from the limit on", "- (limit - buffer)\n", "- limit\n"),
            ("overlong without bound", "min(max(over / buffer, 0.0), 1.0)",
             "max(over / buffer, 0.0)"),
        ],
    ),
    "algorithms/reinforce_pp.py": (
        REWARDS,
        [
            ("normalised within groups", "group_relative(std=False) if baseline",
             "group_relative(std=True) if baseline"),
            ("a KL that pays", "(-kl) * to_come", "kl * to_come"),
            ("not normalised", "credit=batch_normalised(earned)", "credit=earned"),
            ("the KL twice", 'if kl and kl_in == "loss":\n        pull', "if kl:\n        pull"),
        ],
    ),
    "algorithms/gigpo.py": (
        REWARDS,
        [
            ("the weight dropped", "weight * state_relative", "1.0 * state_relative"),
            ("another discount", "state_relative(gamma, std=std)", "state_relative(std=std)"),
            ("deviation of one level only", "state_relative(gamma, std=std)",
             "state_relative(gamma)"),
        ],
    ),
    "algorithms/grpo.py": (
        REWARDS,
        [
            ("statistics swapped", '"turn": turn_relative}', '"turn": group_relative}'),
        ],
    ),
    "sampling.py": (
        ("tests/test_sampling.py",),
        [
            ("rounds that chance draws", 'random.Random(seed_of("tasks", seed, step, number))',
             "random.Random()"),
            ("tasks played twice in a step", "if task.id not in played", "if True"),
            ("every round, always", "if len(differing(made)) >= count or not left:",
             "if not left:"),
            ("one round only", "range(1, algorithm.rounds)", "range(1, 1)"),
            ("broken episodes make a difference", "if not episode.stop.broken:", "if True:"),
            ("surplus groups are learnt from", "differing(episodes)[:count]",
             "differing(episodes)"),
            ("flat groups are kept", "if e.group in groups]", "]"),
        ],
    ),
    "build.py": (
        ("tests/test_sampling.py",),
        [("one copy is enough", "if phase.algorithm.rounds:", "if False:"),
         ("a group of one is compared", "if dead := [", "if dead := [] and ["),
         ("weights may compare groups of one",
          "signal = term.credit if isinstance(term, Reinforce) else getattr(term, \"weight\", ONE)",
          "signal = getattr(term, \"weight\", ONE)")],
    ),
    "run.py": (
        ("tests/test_sampling.py",),
        [("what was chosen is not what is learnt from",
          "phase.algorithm, used, self.policies", "phase.algorithm, usable, self.policies")],
    ),
}  # fmt: skip
