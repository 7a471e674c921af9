"""Bugs in WebShop's port: pages, search, goals, rewards, files, experts."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

PARITY = "tests/envs/test_webshop_parity.py"
SUITE = "tests/envs/test_webshop_suite.py"
FILES = "tests/envs/test_webshop_files.py"

BUGS: Bugs = {
    "envs/webshop/game.py": (
        (PARITY, SUITE),
        [
            ("the first bracket opens", 'opening = line.rfind("[", 1, max(close - 1, 0))',
             'opening = line.find("[", 1, max(close - 1, 0))'),
            ("more than one line read", 'line = action.partition("\\n")[0]', "line = action"),
            ("upper case kept", "line[opening + 1 : close].lower()", "line[opening + 1 : close]"),
            ("a visit that forgets nothing", "self._options, self.visited = {}, frozenset[str]()",
             "self._options, self.visited = {}, getattr(self, 'visited', frozenset[str]())"),
            ("options kept from product to product", "self._product, self._options = -1, {}",
             "self._product = -1"),
            ("keys with all that was visited", 'seen = self.visited if self._rich else ""',
             "seen = self.visited"),
            ("keys that forget options", "options = tuple(sorted(self._options.items()))",
             "options = ()"),
            ("shopping after the end", 'if self.where == "done" or not argument:',
             "if not argument:"),
            ("search as a button", "argument != pages.SEARCH and argument", "argument"),
            ("next as previous", "(1 if name == NEXT else -1)", "1"),
            ("an honest way back", 'if "search_results" in said:', "if False:"),
            ("options that mislead nobody", 'said = f"{self._query}\\n{self._options}"',
             "said = self._query"),
            ("a way back to page 1", "self._search(self._query, self._number)\n",
             "self._search(self._query, 1)\n"),
            ("visits that are not noted", "self.visited |= {name.upper()}", "pass"),
            ("another price", "price = self._shop.prices[self._product]",
             "price = self._shop.prices[self.goal.product]"),
            ("one random search for all", "self.page = self._pages.results(query, number, "
             "self._session)", 'self.page = self._pages.results(query, number, "")'),
            ("blanks in addresses", 'keywords = self._query.replace(" ", "+")',
             'keywords = ""'),
        ],
    ),
    "envs/webshop/pages.py": (
        (PARITY, SUITE),
        [
            ("eleven to a page", "PER_PAGE: Final = 10", "PER_PAGE: Final = 11"),
            ("blank texts lost", 'text = " "\n', "continue\n"),
            ("empty lines kept", 'if not text or "\\n" in text:', "if not text:"),
            ("buttons before options", "clicks.update((value, Click(option=name)) for value in "
             "values)",
             "clicks.update((v, Click(option=name)) for v in values if v not in clicks)"),
            ("previous on page 1", "if page > 1:", "if page > 0:"),
            ("always attributes", "[: 4 if self.attributes else 3]", "[:4]"),
            ("options named in order", 'told = f"You have clicked {node.text}.\\n{told}"',
             'told = f"{told}You have clicked {node.text}.\\n"'),
            ("unquoted options", "f'\"{node.text}\"' in url", "node.text in url"),
            ("unsorted options", "sort_keys=True", "sort_keys=False"),
            ("features without their blank", '[f" {bullet}" for bullet in product.bullets]',
             "list(product.bullets)"),
            ("commands that cannot be said", 'not {"[", "\\n"} & set(c)', "True"),
        ],
    ),
    "envs/webshop/reward.py": (
        (PARITY, SUITE),
        [
            ("85 is enough", "> MATCH for value in have", ">= 80 for value in have"),
            ("prices below the limit", "(price <= goal.upper)", "(price < goal.upper)"),
            ("the price does not count", "len(goal.options) + 1)", "len(goal.options))"),
            ("colours stay as they are", "[colour(value) for value in options]", "list(options)"),
            ("pairs compared by value", "str(pair)) for pair", "pair[1]) for pair"),
            ("one shelf is enough", "len(kinds[0] & kinds[1]) >= 2",
             "len(kinds[0] & kinds[1]) >= 1"),
            ("other kinds cost nothing", "return 1.0 if same else 0.5", "return 1.0"),
            ("hardly alike is alike", "if shared < 0.1:", "if shared < 0.01:"),
            ("strangers are worth something", "if shared == 0:", "if shared < 0:"),
            ("nouns counted once", "/ len(want) if want", "/ len(set(want)) if want"),
            ("no nouns, no likeness", "if want else SIMILAR", "if want else 1.0"),
            ("Latin-1 kept", "text.translate(_LATIN_1)", "text"),
            ("features unread", 'or attribute in " ".join(product.bullets).lower()', ""),
            ("words in any order only", "_ratio(left, right))", "0)"),
        ],
    ),
    "envs/webshop/shop.py": (
        (PARITY, FILES, SUITE),
        [
            ("another order of goals", "SHUFFLE: Final = 233", "SHUFFLE: Final = 234"),
            ("limits at the price", "10.0 * i > price][:4]", "10.0 * i >= price][:4]"),
            ("the lower limit", "upper = max(rng.sample(above, 2))",
             "upper = min(rng.sample(above, 2))"),
            ("one limit is enough", "if len(above) < 2:", "if len(above) < 1:"),
            ("goals without attributes", "            if attributes:\n", "            if True:\n"),
            ("the full stop kept", 'read.text("instruction").strip(".")',
             'read.text("instruction")'),
            ("options in the product's order", "names = sorted(options)", "names = list(options)"),
            ("products sold twice", 'asin == "nan" or len(asin) > LONGEST_ASIN or asin in asins',
             'asin == "nan" or len(asin) > LONGEST_ASIN'),
            ("long names accepted", 'asin == "nan" or len(asin) > LONGEST_ASIN', 'asin == "nan"'),
            ("categories of many words", 'f"c\\0{rest[0].strip()}"', "f\"c\\0{' '.join(rest)}\""),
        ],
    ),
    "envs/webshop/index.py": (
        (PARITY, FILES),
        [
            ("blocks that overlap", "free += np.bincount(term, minlength=len(order))", "pass"),
            ("best last", "np.lexsort((rank[found], -values))",
             "np.lexsort((rank[found], values))"),
            ("b of another paper", "np.float32(0.4)", "np.float32(0.75)"),
            ("lengths as they are", "norms[:] = [to_byte(length)", "norms[:] = [min(length, 255)"),
            ("ties as they come", "np.lexsort((rank[found], -values))",
             "np.lexsort((found, -values))"),
            ("words of the query once", "weight = np.float32(count) * idf", "weight = idf"),
        ],
    ),
    "envs/webshop/porter.py": (
        (PARITY,),
        [
            ("y is a consonant", 'or (letter == "y" and made.endswith("c"))', ""),
            ("w is short", 'word[-1] not in "wxy"', 'word[-1] not in "xy"'),
            ("double l cut", 'stem[-1] in "lsz"', 'stem[-1] in "sz"'),
            ("any ion", 'not stem.endswith(("s", "t"))', "False"),
            ("short measures", "return stem if _measure(stem) > 1 else word",
             "return stem if _measure(stem) > 0 else word"),
        ],
    ),
    "envs/webshop/analysis.py": (
        (PARITY,),
        [
            ("possessives kept", "            word = word[:-2]\n", "            pass\n"),
            ("stop words kept", "if word not in STOP_WORDS:", "if True:"),
            ("long words whole", "LONGEST: Final = 255", "LONGEST: Final = 256"),
            ("marks at the end of words", "[:.'](?=[A-Za-z])", "[:.']"),
        ],
    ),
    "envs/webshop/files.py": (
        (FILES,),
        [
            ("a chunk's end is the file's", "                    text, at = text[at:] + more, 0\n",
             "                    text, at = more, 0\n"),
            ("either file", "if len(found) > 1:", "if False:"),
            ("one name for attributes", 'f"items_ins_v2{suffix}.json"', '"items_ins_v2.json"'),
        ],
    ),
    "envs/webshop/generate.py": (
        ("tests/envs/test_webshop_suite.py",),
        [
            ("codes that come again", "+ LAST[last]\n", "+ LAST[last % 10]\n"),
        ],
    ),
    "envs/webshop/suite.py": (
        (SUITE, FILES),
        [
            ("splits that share goals", "return Part(self, split, cuts[at],",
             "return Part(self, split, 0,"),
            ("data of nobody's home", "Path(data).expanduser()", "Path(data)"),
            ("paid twice", "bought=self._game.worth != before", "bought=True"),
            ("near enough is won", "worth == 1.0\n        earned", "worth > 0.4\n        earned"),
            ("tasks of any shop", 'if task.id != f"{self.prefix()}/{task.seed:07d}" or not',
             "if not"),
            ("any shop that was built", "if (opened.goals, opened.seed) != (goals, seed) or",
             "if False and"),
            ("the score for all", 'worth if self._suite.reward == "score" else float(worth == 1.0)',
             "worth"),
        ],
    ),
    "envs/webshop/wish.py": (
        (SUITE,),
        [
            ("parts of words", "start + re.escape(phrase) + end", "re.escape(phrase)"),
            ("the shortest value", "max(named, key=len)", "min(named, key=len)"),
            ("limits that are ignored", "return not limit or", "return True or"),
            ("the shortest phrase", "range(LONGEST, 0, -1)", "range(1, LONGEST)"),
        ],
    ),
}  # fmt: skip
