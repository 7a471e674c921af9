"""Bugs in Search-QA: actions, scores, texts, retrieval, the server and client, files, experts."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

RULES = "tests/envs/test_search_qa_rules.py"
RETRIEVAL = "tests/envs/test_search_qa_retrieval.py"
SERVER = "tests/envs/test_search_qa_server.py"
FILES = "tests/envs/test_search_qa_files.py"
SUITE = "tests/envs/test_search_qa_suite.py"

BUGS: Bugs = {
    "envs/search_qa/moves.py": (
        (RULES,),
        [
            ("answers cut first", 'for tag in ("</search>", "</answer>"):',
             'for tag in ("</answer>", "</search>"):'),
            ("nothing cut", "        if at >= 0:\n            return action[: at + len(tag)]",
             "        if at >= 0:\n            return action"),
            ("answers before searches", "search[0] < answer[0]", "search[0] > answer[0]"),
            ("the first answer counts", "        found, at = text[inside:end], end + len(closing)",
             "        return text[inside:end]"),
            ("both are valid", "valid = not (opened[0] and opened[1]) and max(opened) <= 1",
             "valid = max(opened) <= 1"),
            ("many are valid", "valid = not (opened[0] and opened[1]) and max(opened) <= 1",
             "valid = not (opened[0] and opened[1])"),
            ("no other case", "    where = _folded(text) if fold else text", "    where = text"),
            ("no long s", " | {0x17F: \"s\"}", ""),
            ("answers within queries are searched",
             'if "<answer>" in block and "</answer>" in block:', "if kind == ANSWER:"),
            ("words around a block",
             "if len(inside) == len(said) - 2 * len(tag) - 5:", "if inside:"),
            ("tags inside a block",
             'return not any(f"<{mark}{name}>" in inside for mark in ("", "/") for name in NAMES)',
             "return True"),
        ],
    ),
    "envs/search_qa/scores.py": (
        (RULES,),
        [
            ("articles kept", '_ARTICLES.sub(" ", text', '_ARTICLES.sub("\\\\1", text'),
            ("case kept", "text.lower().translate", "text.translate"),
            ("marks become blanks", 'str.maketrans("", "", string.punctuation)',
             'str.maketrans(dict.fromkeys(string.punctuation, " "))'),
            ("all golds",
             "return any(normalise(gold) == said", "return all(normalise(gold) == said"),
            ("parts match", "normalise(gold) == said", "normalise(gold) in said"),
            ("recall alone", "(said.total() + gold.total())", "(2 * gold.total())"),
            ("words counted once", "common = (said & gold).total()", "common = len(said & gold)"),
            ("the worst gold", "return max((_overlap", "return min((_overlap"),
            ("format is free", "return 1.0 if flawless else 1.0 - STRUCTURE", "return 1.0"),
            ("structure is worth nothing", "return STRUCTURE if flawless else FINAL",
             "return FINAL"),
        ],
    ),
    "envs/search_qa/world.py": (
        (SUITE,),
        [
            ("things lead to themselves",
             "others[drawn + (own and drawn >= place)]", "others[drawn]"),
            ("the last name is never drawn", "len(others) - own", "len(others) - 1"),
        ],
    ),
    "envs/search_qa/wording.py": (
        (RULES,),
        [
            ("tags in passages", 'return _TAG.sub("&lt;", text)', "return text"),
            ("tags in lower case only", ", re.IGNORECASE)", ")"),
            ("actions' tags in passages", "'|'.join((*NAMES, 'action'))", "'|'.join(NAMES)"),
            ("documents from 0", "enumerate(found, 1)]\n        body = _cut",
             "enumerate(found)]\n        body = _cut"),
            ("one word more", "if k > words:", "if k > words + 1:"),
            ("two question marks", 'if asked.endswith("?") else', "if not asked else"),
        ],
    ),
    "envs/search_qa/env.py": (
        (RULES, SUITE),
        [
            ("an answer again",
             "        if self._done:\n            return self._observe(valid=False)\n",
             ""),
            ("flaws are forgotten", "self._flawless = self._flawless and move.flawless",
             "self._flawless = move.flawless"),
            ("flaws of the last question",
             "        self._question, self._task = self._ask(task), task\n"
             '        self._done, self._answer, self._flawless = False, "", True',
             "        self._question, self._task = self._ask(task), task\n"
             '        self._done, self._answer = False, ""'),
            ("nothing as an answer", "if move.kind == moves.ANSWER else 0.0", "if True else 0.0"),
            ("F1 wins", "won=exact_match(self._answer, golds) if self._done else None",
             "won=f1(self._answer, golds) > 0 if self._done else None"),
            ("states of all tasks", "state=(self._task.id, self._text, self._answer, flaw)",
             "state=(self._text, self._answer, flaw)"),
            ("states without answers", "self._text, self._answer, flaw)", "self._text, flaw)"),
            ("states without flaws", "self._answer, flaw)", "self._answer, False)"),
            ("all words", "self._rules.protocol, self._rules.words)", "self._rules.protocol)"),
        ],
    ),
    "envs/search_qa/retrieval.py": (
        (RETRIEVAL,),
        [
            ("surrogates kept", 'query.encode("utf-8", "replace").decode()', "query"),
            ("any corpus",
             "if (says[\"corpus\"], says[\"passages\"]) != (corpus.name, len(corpus)):",
             "if False:"),
        ],
    ),
    "envs/search_qa/ranked.py": (
        (RETRIEVAL,),
        [
            ("worthless passages", "np.flatnonzero(scores > 0)", "np.flatnonzero(scores >= 0)"),
            ("ties the wrong way round", "np.lexsort((found, -scores[found]))",
             "np.lexsort((-found, -scores[found]))"),
            ("one too few", "np.partition(values, len(values) - k)[len(values) - k]",
             "np.partition(values, len(values) - k)[len(values) - k + 1]"),
        ],
    ),
    "envs/search_qa/sparse.py": (
        (RETRIEVAL,),
        [
            ("other lengths", "K1, B = 0.9, 0.4", "K1, B = 0.9, 0.75"),
            ("a word once", "ids = [known[word] for word in words if word in known]",
             "ids = [known[word] for word in dict.fromkeys(words) if word in known]"),
            ("tantivy's ties",
             "key=lambda hit: (-hit[1], hit[0])", "key=lambda hit: (-hit[1], -hit[0])"),
            ("any length", "LONGEST: Final = 1024", "LONGEST: Final = 1 << 40"),
        ],
    ),
    "envs/search_qa/encoders.py": (
        (RETRIEVAL,),
        [
            ("padding counts", "(hidden * mask).sum(1) / mask.sum(1)", "hidden.mean(1)"),
            ("prefixes swapped", 'prefixes = ("passage: ", "query: ")',
             'prefixes = ("query: ", "passage: ")'),
            ("no length", "(vectors / np.maximum(lengths, 1e-12))", "(vectors / 1.0)"),
            ("any shape", "if made.ndim != 2 or len(made) != len(texts)", "if made.ndim != 2"),
        ],
    ),
    "envs/search_qa/passages.py": (
        (RETRIEVAL,),
        [
            ("blank lines are passages", "if line.strip():", "if True:"),
            ("the line before", "start = self.ends[number - 1] if number else 0",
             "start = self.ends[number - 2] if number > 1 else 0"),
            ("places from 0", 'where = f"{self._path}, line {number + 1}"',
             'where = f"{self._path}, line {number}"'),
            ("true is an id", "if isinstance(identity, bool) or not", "if not"),
        ],
    ),
    "envs/search_qa/server.py": (
        (SERVER,),
        [
            ("one dialect", 'queries = made["queries"] if "queries" in made else [made["query"]]',
             'queries = made.get("queries", [])'),
            ("always scores", "        if scores:\n", "        if True:\n"),
            ("no default", "min(top or k, MOST)", "min(k if top is None else top, MOST)"),
            ("any number", "min(top or k, MOST)", "k"),
            ("negative numbers", "or (top or 0) < 0:", "or False:"),
            ("both at once", 'if ("queries" in made) == ("query" in made):',
             'if not ("queries" in made or "query" in made):'),
            ("any size", "or int(size) > LARGEST:", "or False:"),
            ("any address", "if self.path != PATH:", "if False:"),
        ],
    ),
    "envs/search_qa/client.py": (
        (SERVER,),
        [
            ("the other key", 'self._ask({"query": query}, k, 1)[0]',
             'self._ask({"queries": [query]}, k, 1)[0]'),
            ("any number of results", "or len(result) != count:", "or False:"),
            ("no second try",
             "for attempt in range(self._retries + 1):", "for attempt in range(1):"),
            ("wrong requests again",
             "            if status not in BUSY:\n                break\n", ""),
            ("a closed connection is lost",
             "            except ConnectionError:\n                kept.close()",
             "            except ZeroDivisionError:\n                kept.close()"),
            ("scores of any kind",
             "if isinstance(score, bool) or not isinstance(score, int | float):",
             "if False:"),
        ],
    ),
    "envs/search_qa/questions.py": (
        (FILES,),
        [
            ("no dev for test",
             'if found is None and split == "test" else found', "if False else found"),
            ("dev for train", 'if found is None and split == "test" else found',
             "if found is None else found"),
            ("names in any order",
             "sorted((p.name for p in folder.iterdir() if p.is_dir()), key=_order)",
             "sorted(p.name for p in folder.iterdir() if p.is_dir())"),
            ("one count for all", "number = counts.get(made.source, 0)",
             'number = counts.get("", 0)\n        counts[""] = number + 1'),
            ("verl's names kept", 'origin.removeprefix("searchR1_")', "origin"),
            ("titles twice", "return tuple(dict.fromkeys(", "return tuple(list("),
            ("empty answers", "isinstance(gold, str) and gold.strip() for gold",
             "isinstance(gold, str) for gold"),
            ("either file", "if len(found) > 1:", "if False:"),
        ],
    ),
    "envs/search_qa/generate.py": (
        (SUITE,),
        [
            ("the later is first", "earlier = 0 if int(values[0]) < int(values[1]) else 1",
             "earlier = 1 if int(values[0]) < int(values[1]) else 0"),
            ("splits share their things",
             '"train": tuple(range(2, 10))', '"train": tuple(range(1, 10))'),
            ("the middle of a chain", "return Question(family, number, text, (at,), tuple(titles))",
             "return Question(family, number, text, (titles[-1],), tuple(titles))"),
            ("no yes", "for pool in (same, different) if pool", "for pool in (different,) if pool"),
        ],
    ),
    "envs/search_qa/expert.py": (
        (SUITE, FILES),
        [
            ("other passages are read",
             "found = read(self._seen[name], name, relation) if name in self._seen else None",
             "found = next((f for t in self._seen if (f := read(self._seen[t], t, relation))), "
             "None)"),
            ("the outer relation first",
             "return (*path, relation), name", "return (relation, *path), name"),
            ("the name in the question", "return self._give(name, \"I cannot find more.\")",
             "return None"),
        ],
    ),
    "envs/search_qa/suite.py": (
        (SUITE, FILES),
        [
            ("families in a row", "number, at = divmod(index, len(families))",
             "at, number = divmod(index, len(self))"),
            ("any task", "if known and task == self.task(family, split, task.seed):", "if known:"),
            ("more than there are", "if wanted > least * len(families):", "if False:"),
        ],
    ),
    "envs/search_qa/render.py": (
        (RULES,),
        [
            ("nothing is invalid", "if not observation.valid and text in", "if text in"),
            ("marks stay", 'return _MARK.sub(r" \\1", text)', "return text"),
        ],
    ),
}  # fmt: skip
