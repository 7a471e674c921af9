"""Bugs in adapters for other libraries' environments and users' own, in the check of environments
and in `tutelage doctor`."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

ADAPTERS = ("tests/envs/test_adapters.py",)

BUGS: Bugs = {
    "envs/adapters/common.py": (
        ADAPTERS,
        [
            ("splits that share seeds", "SPLITS.index(self.split) * APART + index", "index"),
            ("a reward of exactly the limit is lost", "reward >= rule", "reward > rule"),
            ("nobody says who has won", "if rule not in said:", "if False:"),
            ("splits of any name", "if split not in lengths:", "if False:"),
        ],
    ),
    "envs/adapters/own.py": (
        ADAPTERS,
        [
            ("every end is a victory", "reward > 0 if done", "True if done"),
            ("won before the end", "won=reward > 0 if done else None", "won=reward > 0"),
            ("extras are forgotten", "if hasattr(self._first, name):\n", "if False:\n"),
            ("one object for all episodes", "OwnEnv(self._new())", "OwnEnv(self._first)"),
            ("the class's own tasks are ignored", 'hasattr(self._first, "tasks")', "False"),
            ("tuples of any length", " or len(made) != 3", ""),
            ("rewards of any type", '("reward", reward, int | float, "a number"),', ""),
            ("close is forgotten", "            self._inner.close()", "            pass"),
            (
                "suites are filled in too",
                'not (hasattr(kind, "tasks") and hasattr(kind, "make"))',
                "True",
            ),
        ],
    ),
    "envs/adapters/gymnasium.py": (
        ADAPTERS,
        [
            ("seeds are not given", "self._env.reset(seed=task.seed)", "self._env.reset(seed=0)"),
            (
                "the return is never begun anew",
                "        self._earned = 0.0\n        return",
                "        return",
            ),
            ("cut episodes go on", "bool(ended or cut)", "bool(ended)"),
            (
                "the last reward decides",
                "self._earned += float(reward)",
                "self._earned = float(reward)",
            ),
            ("actions begin at 0", 'int(getattr(space, "start", 0))', "0"),
            ("blanks around a name count", "name = text.strip()", "name = text"),
            (
                "text outside of its space",
                "action_space.contains(text)",
                "action_space is not None",
            ),
            ("an invalid action earns again", "reward=0.0, valid=False", "valid=False"),
            ("an invalid action is valid", "reward=0.0, valid=False", "reward=0.0"),
            ("the picture is not shown again", "{ways}.\\n{self._shown.text}", "{ways}."),
            (
                "colours as they are",
                'return _COLOURED.sub(r"[\\1]", drawn).strip("\\n")',
                "return drawn",
            ),
            (
                "names of another number",
                "if suite.actions and len(suite.actions) != space.n:",
                "if False:",
            ),
            ("actions after the end", "actions=() if done else self.names", "actions=self.names"),
            ("a threshold of nothing", "if threshold is None:", "if False:"),
            ("left open", "        self._env.close()", "        pass"),
        ],
    ),
    "envs/check.py": (
        ("tests/test_check_env.py",),
        [
            (
                "our own errors end it",
                "except TutelageError as problem:",
                "except Broken as problem:",
            ),
            (
                "it may be ended",
                "except (Exception, SystemExit) as error:",
                "except Exception as error:",
            ),
            ("streams for tasks", "if not isinstance(every, Sequence):", "if False:"),
            ("half letters", 'return any("\\ud800" <=', 'return False and any("\\ud800" <='),
            ("families of any type", '("family", str), ', ""),
            ("seeds of any type", '("seed", int), ', ""),
            ("data of any type", '("data", Mapping)', ""),
            ("focus of any type", 'for name in ("actions", "focus"):', 'for name in ("actions",):'),
            (
                "environments are left open",
                "        for each in (env, again):\n",
                "        for each in ():\n",
            ),
            ("thoughts of a plan", "isinstance(suite, PlansAloud)", "False"),
            ("descriptions of nothing", "isinstance(suite, Describes)", "False"),
            ("answers of any type", "isinstance(suite, Answers)", "False"),
            ("splits that are empty", "return bool(len(attempt", "return bool(1 + len(attempt"),
        ],
    ),
    "envs/needs.py": (
        ("tests/test_doctor.py",),
        [
            (
                "JAVA_HOME is ignored",
                'if home else shutil.which("java")',
                'if False else shutil.which("java")',
            ),
            ("wanted or not", "self.wanted and not self.found", "not self.found"),
            ("a newer Java is too new", "int(major[0]) >= least", "int(major[0]) == least"),
            ("1.8 is 1", "(?:1\\.)?", ""),
            ("files that are not there", '"there" if place.exists() else ""', '"there"'),
            (
                "a secret is shown",
                '"set" if os.environ.get(name) else ""',
                'os.environ.get(name) or ""',
            ),
        ],
    ),
    "doctor.py": (
        ("tests/test_doctor.py",),
        [
            ("missing is fine", 'line.state == "missing"', 'line.state == "lost"'),
            (
                "what nobody asked for is missing",
                'absent: State = "missing" if needed else "-"',
                'absent: State = "missing"',
            ),
            (
                "the run's options are forgotten",
                "config.env.options, needed=True",
                "{}, needed=True",
            ),
            (
                "a torch without CUDA is fine",
                'said = f"{device}: this torch',
                'return Line(state="ok", name=where)\n        said = f"{device}: this torch',
            ),
            (
                "old packages are fine",
                "not need.specifier.contains(here, prereleases=True)",
                "False",
            ),
            ("everybody's packages are an extra's", 'if "extra ==" in text', "if text"),
            ("offline makes no difference", '"missing" if offline else "note"', '"note"'),
            ("an empty download is a model", '.glob("*/config.json")', '.glob("*")'),
            ("quotas are unseen", "share < (count or 1)", "False"),
            ("commands are not told", "    if line.how:\n", "    if False:\n"),
            (
                "lines of any width",
                "textwrap.wrap(line.said, WIDTH - len(blank)",
                "textwrap.wrap(line.said, 500",
            ),
        ],
    ),
    "build.py": (
        ADAPTERS,
        [
            ("servers are asked one call after another", "return ASKING", "return 0"),
            (
                "adapters are trusted",
                "return 0 if env.suite in SUITES and env.suite not in APART else 1",
                "return 0",
            ),
        ],
    ),
    "envs/command.py": (
        ("tests/envs/test_commands.py",),
        [
            (
                "folders that cannot be written",
                "except OSError as error:",
                "except EOFError as error:",
            ),
            (
                "it failed and says that it did not",
                "WRONG, INTERRUPTED = 2,",
                "WRONG, INTERRUPTED = 0,",
            ),
        ],
    ),
    "envs/search_qa/__main__.py": (
        ("tests/envs/test_commands.py",),
        [
            (
                "encoders that nobody asks",
                "if given.encoder and given.retriever not in DENSE:",
                "if False:",
            ),
            ("any port", "if not 0 <= given.port <= LAST_PORT:", "if False:"),
        ],
    ),
    "suites.py": (
        ADAPTERS,
        [("classes that only play are refused", "if is_own(kind) else new", "if False else new")],
    ),
    "watch.py": (
        ("tests/test_check_env.py",),
        [
            ("what hangs is waited for", "if not self.pipe.poll(self.limit):", "if False:"),
            ("the rest is not looked at", "if number + 1 < len(CHECKS):", "if False:"),
            ("begun anew", "first=number + 1", "first=0"),
            ("splits without tasks", "and not len(every)", "and False"),
            ("what cannot be made is a finding", "except Broken:", "except TutelageError:"),
        ],
    ),
}
