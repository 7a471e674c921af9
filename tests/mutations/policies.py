"""Bugs between words and numbers: `policies`."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

BUGS: Bugs = {
    "policies/attention.py": (
        ("tests/policies/test_hf.py", "tests/policies/test_attention.py"),
        [
            ("rows in line that see each other", "x.split_with_sizes(packed.lengths, 2)",
             "x.split_with_sizes([x.shape[2]], 2)"),
            ("rows in line that see ahead",
             "scale=scaling, is_causal=True, enable_gqa=True\n        )",
             "scale=scaling, is_causal=False, enable_gqa=True\n        )"),
            ("layers that hand nothing on", "if way.layers != layers:", "if False:"),
        ],
    ),
    "policies/chat.py": (
        ("tests/policies/test_chat.py",),
        [
            ("special tokens in words", "split_special_tokens=True", "split_special_tokens=False"),
            ("a cut turn left open", "close = () if ended else (self.end,)", "close = ()"),
            ("a reply that never ends", "(*self.content(text), self.end)", "self.content(text)"),
            ("any template", 'if kept != shown[k] and self.history == "exact":', "if False:"),
            ("two ends of a turn", "glue[len(closing) :]", "glue"),
            ("a system message dropped", 'if system else f["plain"]', 'if False else f["plain"]'),
            ("prompts that end differently", "if not tail == tail_plain == tail_again:",
             "if False:"),
            ("messages shown twice", "if made.count(mark) != 1:", "if made.count(mark) < 1:"),
            ("fingerprints without the end", "repr((vocabulary, self.end))", "repr(vocabulary)"),
        ],
    ),
    "policies/small.py": (
        ("tests/policies/test_small.py",),
        [
            ("bytes as special tokens", "core.add_special_tokens([AddedToken(token, "
             "normalized=False) for token in special])",
             "core.add_special_tokens([AddedToken(token, normalized=False) for token in "
             "[*special, *alphabet]])"),
            ("tags as special tokens", "AddedToken(tag, normalized=False, special=False)",
             "AddedToken(tag, normalized=False, special=True)"),
            ("no bytes to fall back on",
             "            decoders.ByteFallback(),\n", ""),
            ("brackets stay apart", "            decoders.Replace(\" [ \", \"[\"),\n", ""),
            ("brackets stick to words",
             "            normalizers.Replace(Regex(\" ?\\\\[ ?\"), \" [ \"),\n", ""),
            ("weights from the global seed", "torch.manual_seed(seed)", "torch.seed()"),
        ],
    ),
    "policies/packing.py": (
        ("tests/policies/test_packing.py",),
        [
            ("a branch that is not cut", "if row is None or not extends(sample.prompt, row.ids):",
             "if row is None or len(sample.prompt) < len(row.ids):"),
            ("places off by one", "row.at.extend(range(start, start + len(sample.tokens)))",
             "row.at.extend(range(start + 1, start + 1 + len(sample.tokens)))"),
            ("padded batches over budget", "size = length * (len(made[-1]) + 1) if",
             "size = length * len(made[-1]) if"),
            ("batches over budget", "else size + length", "else length"),
            ("samples without prompts", "if not sample.prompt:", "if False:"),
        ],
    ),
    "policies/hf.py": (
        ("tests/policies/test_hf.py", "tests/policies/test_storage.py"),
        [
            ("a token read at its own place", "start + t - 1", "start + t"),
            ("every pass with oneDNN", 'products("blas") if small else',
             "contextlib.nullcontext() if small else"),
            ("an actor of the first weights", "self.halved.refresh()", "pass"),
            ("a frozen model with another to act", "self.frozen, self.halved = True, None",
             "self.frozen = True"),
            ("positions that go on from row to row",
             "torch.cat([torch.arange(known, known + n, device=self.device) for n in lengths])",
             "torch.arange(known, known + sum(lengths), device=self.device)"),
            ("rows in line looked for side by side", "[0, *accumulate(lengths)][:-1]",
             "[i * max(lengths) for i in range(len(lengths))]"),
            ("a model that computes more", "> 3e-4 * own.abs().max()", "> 3e4 * own.abs().max()"),
            ("scores in the order of rows",
             "order = torch.tensor(places, device=self.device).argsort()",
             "order = torch.arange(len(places), device=self.device)"),
            ("a sliding window", "(not kinds and window < self.context_length)", "False"),
            ("sliding layers", 'if kinds - {"full_attention"} or', "if"),
            ("the temperature of scores", "temperature=temperature,\n            ),\n",
             "temperature=1.0,\n            ),\n"),
            ("entries that nobody means",
             "weight if len(weight) == self.chat.size else weight[: self.chat.size]", "weight"),
            ("weights that are not numbers", "if not own.isfinite().all():", "if False:"),
            ("any tokenizer", "if self.chat.size > output.weight.shape[0]:", "if False:"),
            ("low precision that is not", "enabled=self._low", "enabled=False"),
            ("frozen weights trained", "if p.requires_grad)", "if True)"),
        ],
    ),
    "policies/loading.py": (
        ("tests/policies/test_storage.py",),
        [("weights that are missing", "    if lost:\n", "    if False:\n")],
    ),
    "policies/prompts.py": (
        ("tests/test_shown.py",),
        [
            ("a hint dropped", "self.context.system(self.hint)", "self.context.system()"),
            ("every turn closed again",
             "ended = k > 0 and turns[k - 1].tokens[-1:] == (self.prompter.chat.end,)",
             "ended = False"),
            ("turns left out of a transcript", "(*self.ids, *turns[k - 1].tokens)", "self.ids"),
            ("a window that grows", "past = () if self.prompter.fresh or k == 0 else",
             "past = () if k == 0 else"),
        ],
    ),
}  # fmt: skip
