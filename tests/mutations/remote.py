"""Bugs in what reaches a model outside the process: `policies.http`, `dialects`, `remote`, `vllm`,
`serve`, and in what is done about a sampler that is not the trainer: `mismatch`."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

BUGS: Bugs = {
    "policies/http.py": (
        ("tests/policies/test_http.py",),
        [
            (
                "one attempt more",
                "attempt == self.manners.retries:",
                "attempt > self.manners.retries:",
            ),
            ("nothing is tried again", "if not failure.again or", "if True or"),
            ("everything is tried again", "if not failure.again or", "if"),
            ("pauses that do not grow", "* 2**attempt *", "*"),
            ("no jitter", "jitter.uniform(0.5, 1.0)", "1.0"),
            (
                "the jitter of no seed",
                'random.Random(f"{self.manners.seed} {number}")',
                "random.Random()",
            ),
            (
                "pauses without end",
                "min(LONGEST, max(pause, failure.wait))",
                "max(pause, failure.wait)",
            ),
            ("what the server asks is ignored", "max(pause, failure.wait)", "pause"),
            (
                "a deadline for every byte",
                "left = end - time.monotonic()",
                "left = 1.0",
            ),
            (
                "what the last request left of its time",
                "        _allow(line, end)\n        headers",
                "        headers",
            ),
            ("first come, first sent", "self.jobs.put((later, ", "self.jobs.put((False, "),
            (
                "no limit of what is under way",
                "min(self.manners.concurrent, self.count)",
                "self.count",
            ),
            ("one at a time", "min(self.manners.concurrent, self.count)", "1"),
            ("lines that stay taken", "            answer.close()", "            answer.fileno()"),
            ("a closed line is a failure", "            if fresh:\n", "            if True:\n"),
            ("no key", 'headers["Authorization"] = f"Bearer {self.key}"', "pass"),
            ("the path is forgotten", "self.base + path", "path"),
            (
                "abandoned requests are made",
                "if not made.set_running_or_notify_cancel():",
                "if False:",
            ),
            ("half an answer is one", "            if answer.length:\n", "            if False:\n"),
        ],
    ),
    "policies/dialects.py": (
        ("tests/policies/test_remote.py",),
        [
            ("seeds too large", "SEEDS = 2**63", "SEEDS = 2**64"),
            (
                "the model's own top_p",
                '            "temperature": request.temperature,\n'
                "            # what a model's generation_config.json would otherwise set\n"
                '            "top_p": 1.0,\n',
                '            "temperature": request.temperature,\n',
            ),
            (
                "scores of fewer tokens",
                "        if len(told) != len(ids):\n",
                "        if False:\n",
            ),
            (
                "scores of other tokens",
                "            elif str(token) not in entry:\n",
                "            elif False:\n",
            ),
            ("scores that are none", "not -1e30 < found <= 1e-3", "False"),
            ("tokens without numbers", "    if len(tokens) != len(logps):\n", "    if False:\n"),
            ("turns that go on", " or end in tokens[:-1]", ""),
            ("turns that are too long", " or len(tokens) > request.max_new", ""),
            (
                "turns that end early",
                "    if not ended and len(tokens) < request.max_new:\n",
                "    if False:\n",
            ),
            (
                "SGLang's tokens unread",
                "[entry[1] for entry in told] != list(ids[first:])",
                "False",
            ),
            (
                "SGLang's first entry",
                '"logprob_start_len": max(0, start - 1)',
                '"logprob_start_len": start',
            ),
            ("SGLang's shift", "scored: Scored = [(None, None)] * first", "scored: Scored = []"),
        ],
    ),
    "policies/remote.py": (
        ("tests/policies/test_remote.py", "tests/test_remote_runs.py"),
        [
            ("scores in the order of rows", "logp[row.out] = ", "logp[: len(row.out)] = "),
            ("any temperature is scored", "        if temperature != 1:\n", "        if False:\n"),
            (
                "any temperature is sampled",
                "not in (0, 1) and not self.heated",
                "not in (0, 1) and False",
            ),
            ("a context a token too long", " or 1) - 1\n", " or 1)\n"),
            ("an unsteady server passes", "STEADY = 0.1", "STEADY = 1.0"),
            ("a steady server does not", "STEADY = 0.1", "STEADY = 0.01"),
            ("another tokenizer passes", "and text.strip() != mine.strip()", "and False"),
            ("only the first ids are looked at", "k * (self.chat.size - 1) // (count - 1)", "k"),
            ("ids beyond ours", "if max(made.tokens) >= self.chat.size:", "if False:"),
            ("another model", "        if self.model not in there:\n", "        if False:\n"),
            ("early scores are asked for again", "if key in self.early else", "if False else"),
            ("equal rows are asked for again", "for key in dict.fromkeys(keys)", "for key in keys"),
            ("turns wait for early scores", "self._ask(*key, later=True)", "self._ask(*key)"),
            ("every poll waits", "time.monotonic() - self.polled < PASS", "True"),
            ("no poll waits", "time.monotonic() - self.polled < PASS", "False"),
            ("early scores are begun twice", "if row.at and key not in self.early:", "if row.at:"),
            ("early scores pile up", "while len(self.early) > EARLY:", "while False:"),
            (
                "turns nobody waits for are kept",
                "            answer.cancel()\n        self.turns = {}",
                "            answer.cancel()",
            ),
        ],
    ),
    "stage.py": (
        ("tests/test_remote_runs.py",),
        [
            ("nothing is begun early", "policy.expect(", "(lambda x: None)("),
            ("scores for those who only play", "if not algorithm.terms or", "if"),
        ],
    ),
    "policies/vllm.py": (
        ("tests/policies/test_vllm.py", "tests/test_remote_runs.py"),
        [
            ("vLLM takes the whole card", "SHARE = 0.35", "SHARE = 0.9"),
            ("weights in 4 bytes", '.to("cpu", to, copy=True)', '.to("cpu", copy=True)'),
            (
                "numbers at temperature 1",
                '"logprobs_mode": "processed_logprobs"',
                '"logprobs_mode": "raw_logprobs"',
            ),
            ("what is cached stays", "        self.llm.reset_prefix_cache()\n", ""),
            ("no seed", "seed=request.seed % SEEDS", "seed=0"),
            ("entries nobody knows", "logit_bias=self.bias or None", "logit_bias=None"),
            ("an end that is not one", "tokens[-1:] == (self.end,)", "False"),
            ("scores a token off", "zip(ids[1:], entries[1:]", "zip(ids[:-1], entries[1:]"),
            (
                "turns go on",
                "        self.llm.llm_engine.abort_request(list(self.turns))\n",
                "",
            ),
            (
                "weights are given once",
                "        if now == self.given:\n",
                "        if self.given:\n",
            ),
            (
                "agreement is not looked at",
                "        if not apart <= limit:\n",
                "        if False:\n",
            ),
            ("nothing arrives", "        self.sampler.load(self.folder)\n", ""),
        ],
    ),
    "build.py": (
        ("tests/test_remote_runs.py",),
        [
            ("a weight without end", "config.policy.sampler.truncate,", "9e9,"),
            (
                "nothing is made up for",
                "None if config.policy.sampler is None else config.policy.sampler.truncate",
                "None",
            ),
        ],
    ),
    "config.py": (
        ("tests/test_remote_runs.py",),
        [("any mismatch passes", "mismatch: Positive = 0.1", "mismatch: Positive = 9.0")],
    ),
    "serve.py": (
        ("tests/policies/test_serve.py",),
        [
            ("rank from 0", "rank = (rows > mine).sum(-1) + 1", "rank = (rows > mine).sum(-1)"),
            (
                "scores a token late",
                "ids[start + 1 : start + 1 + len(rows)]",
                "ids[start : start + len(rows)]",
            ),
            ("no key is asked for", "if key and self.headers", "if False and self.headers"),
            ("weights are always taken", "if self.server.reload:", "if True:"),
            ("weights are taken in part", "if told != {", "if False and told != {"),
            ("unknown settings are ignored", 'extra="forbid"', 'extra="ignore"'),
            (
                "other models are served",
                'if asked.model not in ("", self.server.name):',
                "if False:",
            ),
            ("seeds are ignored", "if asked.seed is None else asked.seed", "if True else 0"),
            (
                "special tokens always hidden",
                "skip_special_tokens=skip",
                "skip_special_tokens=True",
            ),
            (
                "too long a turn",
                "elif len(prompt) + asked.max_tokens > self.server.limit:",
                "elif len(prompt) > self.server.limit:",
            ),
        ],
    ),
    "mismatch.py": (
        ("tests/test_mismatch.py",),
        [
            (
                "weights of the wrong side",
                "(logp[where] - batch.logp[where])",
                "(batch.logp[where] - logp[where])",
            ),
            ("weights that are not cut", ".clamp(max=math.log(cap))", ""),
            ("weights cut from below", ".clamp(max=math.log(cap))", ".clamp(min=math.log(cap))"),
            (
                "ratios to the sampler",
                "return replace(batch, logp=logp), weight",
                "return batch, weight",
            ),
            ("a teacher's tokens too", '.policy == "self" and', ".policy and"),
            ("demonstrations too", "    if algorithm.demonstrated:", "    if False:"),
            ("signed differences", ".abs().cpu()", ".cpu()"),
            ("a percentile too low", "SHARE = 0.99", "SHARE = 0.9"),
            ("no number passes", 'not made["mean"] <= self.limit', 'made["mean"] > self.limit'),
            (
                "the largest counts",
                'not made["mean"] <= self.limit',
                'not made["max"] <= self.limit',
            ),
            ("tokens of others in a slice", "batch.logp[index[here]]", "batch.logp[here]"),
        ],
    ),
    "trainer.py": (
        ("tests/test_mismatch.py",),
        [
            (
                "compared after an update",
                "            if not norms:  # the",
                "            if True:  # the",
            ),
            (
                "learnt before it is checked",
                "        apart.check(step)\n"
                "        norms.append(_advance(optimizer, update.grad_clip, step))",
                "        norms.append(_advance(optimizer, update.grad_clip, step))\n"
                "        apart.check(step)",
            ),
            (
                "weights that nobody applies",
                "made = Step(batch, before, step, importance=importance)",
                "made = Step(batch, before, step)",
            ),
        ],
    ),
    "objective.py": (
        ("tests/test_mismatch.py",),
        [
            (
                "no weight for a policy gradient",
                "Bound(_drawn(step, loss), counts, (self.trains,))",
                "Bound(loss, counts, (self.trains,))",
            ),
            (
                "no weight for an estimate",
                "Bound(_drawn(step, loss), counts, (self.trains,), goal)",
                "Bound(loss, counts, (self.trains,), goal)",
            ),
            (
                "a weight for a divergence",
                "        return Bound(loss, counts, reads, settle)",
                "        return Bound(_drawn(step, loss), counts, reads, settle)",
            ),
            (
                "weights of other tokens",
                "lambda live, i: weight[i] * loss(live, i)",
                "lambda live, i: weight[: len(i)] * loss(live, i)",
            ),
        ],
    ),
}
