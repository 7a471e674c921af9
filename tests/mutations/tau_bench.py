"""Bugs in tau_bench: its tools, files, customers, conversations."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

TOOLS = ("tests/envs/test_tau_bench_tools.py",)
SUITE = ("tests/envs/test_tau_bench_suite.py",)
FILES = ("tests/envs/test_tau_bench_files.py",)
CUSTOMERS = ("tests/envs/test_tau_bench_customers.py",)

BUGS: Bugs = {
    "envs/tau_bench/retail.py": (
        TOOLS,
        [
            ("a gift card that is not charged", 'round(method["balance"] - amount, 2)',
             'round(method["balance"], 2)'),
            ("a refund that is not rounded", 'round(method["balance"] + amount, 2)',
             'method["balance"] + amount'),
            ("every method refunded as a card", 'if "gift_card" in payment_id:', "if True:"),
            ("a swap with its price rounded", "    return cost\n", "    return round(cost, 2)\n"),
            ("an exchange with its price unrounded", "cost = round(swap, 2)", "cost = swap"),
            ("items listed as they were given", "sorted(item_ids), sorted(new_item_ids)",
             "item_ids, new_item_ids"),
            ("returned items listed as given", "returned = sorted(item_ids)",
             "returned = item_ids"),
            ("unavailable items", 'variants and variants[new_item_id]["available"]', "variants"),
            ("a missing item that is None", "item_ids if item_ids.count",
             "item_ids if id and item_ids.count"),
            ("more of an item than there are", "item_ids.count(id) > held.count(id)",
             "id not in held"),
            ("refunds to any method", '"gift_card" not in payment_method_id and payment_method_id',
             "False and payment_method_id"),
            ("a payment changed twice", 'if len(order["payment_history"]) == 1 else None',
             "if True else None"),
            ("the payment method that it is", 'first["payment_method_id"] == payment_method_id',
             "False"),
            ("an old address that still finds", 'user["address"]["zip"] == zip',
             'data.store.tables["users"][user_id]["address"]["zip"] == zip'),
            ("the status of an item's change", '"pending (item modified)"',
             '"pending (items modified)"'),
            ("nothing paid is a payment", '"payment" if swap > 0', '"payment" if swap >= 0'),
        ],
    ),
    "envs/tau_bench/airline.py": (
        TOOLS,
        [
            ("certificates that last", 'del user["payment_methods"][payment_id]', "pass"),
            ("bags that were had are paid", "max(0, nonfree_baggages - ", "max(0, 0 * "),
            ("the flight's own next day", "_on(second, date) |", "_on(second, next_day) |"),
            ("connections that leave too early",
             'first["scheduled_arrival_time_est"] > second["scheduled_departure_time_est"]',
             "False"),
            ("fares kept in another cabin", 'and cabin == now["cabin"]', "and True"),
            ("insurance for one", "INSURANCE * len(passengers)", "INSURANCE * 2"),
            ("payments of nothing",
             'nonfree_baggages\n    _take(data, reservation["user_id"], payment_id, price)\n'
             "    if price != 0:",
             'nonfree_baggages\n    _take(data, reservation["user_id"], payment_id, price)\n'
             "    if True:"),
        ],
    ),
    "envs/tau_bench/arithmetic.py": (
        TOOLS,
        [
            ("powers without bound", "if bits > BITS:", "if False:"),
            ("operands turned round", "for _ in parts][::-1]", "for _ in parts]"),
            ("whole numbers", "round(float(_value(tree.body)), 2)", "round(_value(tree.body), 2)"),
            ("a blank before", 'expression.lstrip(" ")', "expression"),
        ],
    ),
    "envs/tau_bench/database.py": (
        TOOLS,
        [
            ("a store that episodes change", "= copied(self._base[key])", "= self._base[key]"),
            ("what is as before counted as changed",
             "if text != self.store.canonical(key)}", "if text}"),
            ("1 is 1.0", "return repr(_frozen(value))",
             "return repr(_frozen(value)).replace('.0', '')"),
            ("the order of keys counted", "for key in sorted(value)", "for key in value"),
            ("the last of equal customers", "self.emails.setdefault(user",
             "self.emails.__setitem__(user"),
        ],
    ),
    "envs/tau_bench/tools.py": (
        TOOLS,
        [
            ("arguments shared with the database",
             "copied(dict(call.kwargs)) if tool.writes else call.kwargs", "call.kwargs"),
            ("the database given away", 'if "data" in call.kwargs:', "if False:"),
            ("Python's own names", '+ ".invoke"', '+ ""'),
        ],
    ),
    "envs/tau_bench/env.py": (
        SUITE,
        [
            ("what was changed too much is free", "records = self._goal.keys() | ",
             "records = self._goal.keys() or "),
            ("a win by outputs alone", "self._changes == self._goal and ", ""),
            ("a win without outputs", " and len(self._told) == len(set(self._scenario.outputs))",
             ""),
            ("a person who does not end it", "self._over = tool is not None and call.name",
             "self._over = False and call.name"),
            ("STOP only by itself", "self._over = STOP in words", "self._over = False"),
            ("states without the database", "self._mark(), self._customer.key()",
             "'', self._customer.key()"),
            ("broken JSON taken for words", "valid=not calls.broken(action, call)", "valid=True"),
            ("any arguments fit", "set(call.kwargs) == set(tool.arguments)", "True"),
            ("the tool that was taken away", "if name != TRANSFER}", "if True}"),
            ("outputs of the episode before", "self._told: frozenset[str] = frozenset()",
             "self._told = getattr(self, '_told', frozenset())"),
        ],
    ),
    "envs/tau_bench/calls.py": (
        SUITE,
        [
            ("bottomless arguments", "if _depth(arguments) > DEEPEST:", "if False:"),
            ("deep JSON that raises", "except RecursionError:", "except ZeroDivisionError:"),
            ("replies that are no text", 'not isinstance(arguments.get("content"), str)', "False"),
            ("arguments that are no object", "not isinstance(arguments, dict)", "False"),
        ],
    ),
    "envs/tau_bench/scenario.py": (
        (*FILES, *SUITE),
        [
            ("the customer's mood said aloud", "if not _PERSONA.fullmatch(part)", "if True"),
            ("all requests at once", "_REQUEST.split(kept) if part.strip()",
             "[kept] if part.strip()"),
            ("commas that count", '.replace(",", "")', ""),
            ("goals of a person's hand", "if call.name not in (RESPOND, TRANSFER):",
             "if call.name in ():"),
        ],
    ),
    "envs/tau_bench/customers.py": (
        CUSTOMERS,
        [
            ("known before it was asked", "scenario, 0, False", "scenario, 0, True"),
            ("an e-mail that nobody has", 'and "@" not in identity else identity',
             "and False else identity"),
            ("content with half of it", "if self._told == set(self._scenario.outputs) else MORE",
             "if True else MORE"),
            ("in a hurry", "return MORE if _WAIT.search(content) else self._next()",
             "return self._next()"),
            ("facts twice", "list(dict.fromkeys(values))", "values"),
            ("thoughts said aloud", '_THOUGHT.sub("", self._reply(tuple(self._messages)))',
             "self._reply(tuple(self._messages))"),
            ("a memory of the customer before", 'self._messages = [Message("system", brief)]',
             'self._messages += [Message("system", brief)]'),
        ],
    ),
    "envs/tau_bench/endpoint.py": (
        CUSTOMERS,
        [
            ("a wrong key tried again", "error.code == 429 or error.code >= 500", "True"),
            ("a busy server given up", "error.code == 429 or", "False or"),
            ("waiting after the last", "if attempt < retries:", "if True:"),
        ],
    ),
    "envs/tau_bench/files.py": (
        FILES,
        [
            ("code that is run", "ast.literal_eval(node)", "eval(ast.unparse(node))"),
            ("tau2's outputs judged", '        actions=calls,\n        identity',
             '        actions=calls,\n        outputs=("30",),\n        identity'),
            ("tasks that only a judge can judge", '"DB" not in criteria["reward_basis"] or ', ""),
            ("our rules beside theirs", "policy=_policy(root),\n        splits={split: tasks",
             "policy='',\n        splits={split: tasks"),
        ],
    ),
    "envs/tau_bench/shapes.py": (
        FILES,
        [
            ("true as a number", "and not isinstance(value, bool), where, \"a number\"",
             ', where, "a number"'),
            ("orders of nobody", 'known(record["user_id"], made["users"], where, "user")', "pass"),
            ("unknown tools", "if call.name not in tools:", "if False:"),
        ],
    ),
    "envs/tau_bench/generate.py": (
        SUITE,
        [
            ("test customers met in training", 'if split == "test" else range(border)',
             'if split == "test" else range(how.users)'),
            ("wishes that cannot be granted", "and data.changes() == before:", "and False:"),
            ("dev is train", 'Random(f"tau_bench {size} {split} {seed}")',
             'Random(f"tau_bench {size} {seed}")'),
        ],
    ),
    "envs/tau_bench/expert.py": (
        (*SUITE, *FILES),
        [
            ("one output of several", '" ; ".join(scenario.outputs) if last else ""', '""'),
            ("orders found without a look", "if order_id not in talk.seen:", "if False:"),
            ("products not looked at", 'if "new_item_ids" in kwargs else ()', "if False else ()"),
            ("lost tasks passed on", "    if not talk.last.won:\n        raise EnvError(",
             "    if False:\n        raise EnvError("),
            ("a person where there is none", "c.name == TRANSFER and self.transfer][:1]",
             "c.name == TRANSFER][:1]"),
        ],
    ),
    "envs/tau_bench/render.py": (
        SUITE,
        [
            ("ids without quotes", '_ID.sub(r\'"\\1"\', text)', "text"),
            ("what is sold out", 'if item.get("available") is False:', "if False:"),
        ],
    ),
    "policies/replies.py": (
        (
            "tests/policies/test_replies.py::test_the_whole_conversation_is_its_prompt",
            "tests/policies/test_replies.py::test_a_conversation_that_no_longer_fits_is_refused",
            "tests/policies/test_replies.py::test_it_plays_no_other_part",
        ),
        [
            ("what was said forgotten", "prompt += policy.chat.reply(agent)",
             "prompt = policy.chat.reply(agent)"),
            ("other people's words", "!= [key]:", "== []:"),
            ("a full context", "if len(prompt) + tokens > policy.context_length:", "if False:"),
        ],
    ),
}  # fmt: skip
