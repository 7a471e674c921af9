"""Bugs in what saves memory: pieces of a loss, adapters, layers, the optimiser."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

BUGS: Bugs = {
    "maths/vocabulary.py": (
        ("tests/maths/test_pieces.py", "tests/maths/test_vocabulary.py"),
        [
            ("a head's gradient of the last piece only", "self.value.addmm_(logits.T, hidden)",
             "self.value = logits.T @ hidden"),
            ("a sum in bfloat16", "more = (logits.T @ hidden).float()",
             "more = logits.T @ hidden"),
            ("a softmax that is not centred",
             "rows.exp().mul_(grad.sum(-1, keepdim=True)).sub_(grad)", "(-grad)"),
            ("a gradient without its temperature", ".div_(-ctx.temperature)", ".div_(-1)"),
            ("log-probabilities of another piece", "piece=_Piece(self.head),\n",
             "piece=self.__dict__.setdefault('last', _Piece(self.head)),\n"),
            ("nothing shared", "            self.piece.rows = rows\n        return self.piece.rows",
             "            return rows\n        return self.piece.rows"),
            ("all rows for some tokens", "rows = None if piece.rows is None else "
             "piece.rows.index_select(0, index)", "rows = piece.rows"),
            ("any index is all of them", "if len(index) == len(self) and index.equal(",
             "if len(index) == len(self) or index.equal("),
            ("a piece that teaches itself", "_Piece(_Sum(), rows.detach())",
             "_Piece(_Sum(), rows)"),
            ("pieces without gradient left out",
             "[torch.zeros_like(x) if x.grad is None else x.grad for x in self.leaves]",
             "[x.grad for x in self.leaves if x.grad is not None]"),
            ("a gradient that replaces another's", "made.to(head.dtype) if head.grad is None else "
             "head.grad.add_(made)", "made.to(head.dtype)"),
            ("a gradient added twice", "elif made is not None and head.grad is not made:",
             "elif made is not None:"),
            ("a frozen head with a gradient", "if ctx.needs_input_grad[1]:", "if True:"),
        ],
    ),
    "maths/divergences.py": (
        ("tests/maths/test_divergences.py",),
        [
            ("a forward gradient upside down", "teacher.exp().mul_(-grad[..., None])",
             "teacher.exp().mul_(grad[..., None])"),
            ("a reverse gradient without its constant",
             "(student - teacher).add_(1).mul_(student.exp())",
             "(student - teacher).mul_(student.exp())"),
            ("a mixture of equals", "torch.logaddexp(teacher + math.log(beta), student + "
             "math.log1p(-beta))", "torch.logaddexp(teacher, student) - math.log(2)"),
            ("a mixture's gradient of the teacher", "made.mul_((1 - ctx.beta) * grad[..., None])",
             "made.mul_(ctx.beta * grad[..., None])"),
        ],
    ),
    "scores.py": (
        ("tests/algorithms/test_loss_pieces.py",),
        [
            ("tokens of the first piece", "token=self.token[part]",
             "token=self.token[: part.stop - part.start]"),
            ("one piece", "for start in range(0, count, size):", "for start in range(0, 1, size):"),
        ],
    ),
    "policies/adapters.py": (
        ("tests/policies/test_memory.py",),
        [
            ("another scale", "lora_alpha=ALPHA", "lora_alpha=rank"),
            ("one seed", "torch.manual_seed(seed)", "torch.manual_seed(0)"),
            ("lists in any order", "sorted(v) if isinstance(v, set) else v",
             "list(v) if isinstance(v, set) else v"),
            ("adapters of another rank", "if {k: v.shape for k, v in made.items()} != ",
             "if False and {k: v.shape for k, v in made.items()} != "),
            ("adapters that are not taken over",
             "    _peft().set_peft_model_state_dict(wrapped, made)", "    del made"),
            ("weights without their adapters", "return wrapped.merge_and_unload()",
             "return wrapped.unload()"),
        ],
    ),
    "policies/layers.py": (
        ("tests/policies/test_memory.py",),
        [
            ("nothing computed again", "layer.forward = partial(_again, layer.forward)", "pass"),
            ("what is trained in half the bytes",
             "if not isinstance(module, nn.Linear) or module.weight.requires_grad:",
             "if not isinstance(module, nn.Linear):"),
            ("norms in half the bytes", "if not isinstance(module, nn.Linear) or",
             "if not hasattr(module, 'weight') or"),
            ("packed weights taken for numbers", "if module.weight.dtype == torch.float32:",
             "if True:"),
            ("nothing in 4 bits", "if type(child) is nn.Linear:", "if False:"),
        ],
    ),
    "policies/hf.py": (
        ("tests/policies/test_memory.py",),
        [
            ("a copy that learns", "        made.freeze()\n        made._begin()",
             "        made._begin()"),
            ("a copy that plays with the student's cache",
             "        made.freeze()\n        made._begin()", "        made.freeze()"),
            ("a copy with weights of its own", "copy.deepcopy((self.model, self.adapters), shared)",
             "copy.deepcopy((self.model, self.adapters))"),
            ("sampling that is compiled", 'self._acting() if inputs["use_cache"] else self.scoring',
             "self.scoring"),
            ("whole weights beside adapters", "        if self.adapters is None:\n"
             "            self.model.save_pretrained", "        if True:\n"
             "            self.model.save_pretrained"),
        ],
    ),
    "policies/loading.py": (
        ("tests/policies/test_memory.py",),
        [
            ("adapters forgotten when loaded", "added.restore(Path(adapters))", "pass"),
            ("adapters that are not merged",
             "return merged(_weights(base, _shape(name, None).num_hidden_layers), name)",
             "return _weights(base, _shape(name, None).num_hidden_layers)"),
        ],
    ),
    "optimizer.py": (
        ("tests/test_optimizer.py",),
        [
            ("a rate of the start", 'at_home["lr"] = group["lr"]', "pass"),
            ("weights that never come back", "away.copy_(home)", "pass"),
            ("moments that are not restored", "self._at_home.load_state_dict(state_dict)", "pass"),
            ("weights without gradient moved",
             "None if away.grad is None else away.grad.to(\"cpu\")",
             "torch.zeros_like(home) if away.grad is None else away.grad.to(\"cpu\")"),
            ("no copy at home", 'parameter.detach().to("cpu", copy=True)',
             'parameter.detach().to("cpu") * 1.0001'),
        ],
    ),
    "run.py": (
        ("tests/test_adapter_runs.py",),
        [
            ("a reference that follows", "made.adapters.restore(start)", "pass"),
        ],
    ),
    "models.py": (
        ("tests/test_kernels.py",),
        [
            ("Liger's loss", "fused_linear_cross_entropy=False", "fused_linear_cross_entropy=True"),
            ("kernels on a processor", 'not policy.device.startswith("cuda")', "False"),
            ("kernels that are not there", "if kind not in KNOWN:", "if False:"),
            ("kernels that nobody asked for", 'section.kernels == "torch"', "False"),
            ("none for a built model",
             "engines=engines),\n    )\n    return fuse(policy, section, where=where)",
             "engines=engines),\n    )\n    return policy"),
        ],
    ),
}  # fmt: skip
