"""Bugs in ScienceWorld's port: games in one machine, calls into it, splits, words."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

SUITE = ("tests/envs/test_scienceworld_suite.py",)
MACHINE = ("tests/envs/test_scienceworld_machine.py",)

BUGS: Bugs = {
    "envs/scienceworld/simulator.py": (
        MACHINE,
        [
            ("the machine as it comes", "(bridge, _overlay(jar), jar)", "(bridge, jar)"),
            ("one random generator for all", "self._redraw(java, game.seed)", "pass"),
            ("one counter for all", 'java.call(COUNTER, "count_$eq", game.count)', "pass"),
            ("the last one's simplifications", '"parseSimplificationStr", place.simplifications',
             '"parseSimplificationStr", ""'),
            ("a seed scrambled once", "seed ^ SCRAMBLER", "seed"),
            ("no second try", "for last in (False, True):", "for last in (True,):"),
            ("games begun anew without their actions", "for action in game.said:",
             "for action in ():"),
            ("nothing remembered", "            game.said.append(action)\n", ""),
            ("full heaps kept", "> FULL * self.heap * 2**20", "> 2 * self.heap * 2**20"),
            ("games kept for ever", "        self.end()  # makes no call", "        pass  # no"),
            ("games freed and not dropped", "place.java.drop(place.world, place.option)", "pass"),
            ("a load that failed goes unsaid", "        if said:\n            raise EnvError(",
             "        if False:\n            raise EnvError("),
            ("a way that leaves the turn", '        self._leave(java)\n        said = java.call('
             'self._maker, "load"', '        said = java.call(self._maker, "load"'),
        ],
    ),
    "envs/scienceworld/java.py": (
        MACHINE,
        [
            ("backslashes as they are", '.replace("\\\\", "\\\\\\\\")', ""),
            ("line ends as they are", '.replace("\\n", "\\\\n")', '.replace("\\n", " ")'),
            ("long numbers cut", 'f"L{value}"', 'f"i{value % 2**31}"'),
            ("out of memory is nothing special", 'if "OutOfMemoryError" in first', "if False"),
            ("a machine that hangs lives on", "            self.end()\n            raise Late",
             "            raise Late"),
            ("machines that outlive us", '"--die-on-broken-pipe", ', ""),
        ],
    ),
    "envs/scienceworld/catalogue.py": (
        SUITE,
        [
            ("half a test split", "range(3 * quarter, count)", "range(3 * quarter, 4 * quarter)"),
            ("electrical tasks without electricity", 'if "noElectricalAction" in parts and',
             "if False and"),
        ],
    ),
    "envs/scienceworld/expert.py": (
        SUITE,
        [
            ("on after the end", "        if shown.done:\n            break\n", ""),
            ("nobody looks", 'if look and action.startswith("go to ")', "if False"),
            ("doors opened again", "if tidy and _open(action, shown):", "if False:"),
        ],
    ),
    "envs/scienceworld/suite.py": (
        SUITE,
        [
            ("tasks of any suite", "if not known or task.id != _name(",
             "if not known or not _name("),
            ("failures that go on", "shown.done or score < 0 or late", "shown.done or late"),
            ("no limit", "suite.moves is not None and shown.moves > suite.moves", "False"),
            ("the whole score each time", "(score - self._score) / 100, score",
             "score / 100, score"),
            ("paid twice", "reward=0.0, valid=False)", "valid=False)"),
            ("families one after the other",
             "for k in rounds\n        for family, part in parts.items()",
             "for family, part in parts.items()\n        for k in rounds"),
            ("everything understood", "not shown.text.startswith(REFUSED) or", "True or"),
            ("states without what is carried", "\\0{shown.inventory}\\0", "\\0"),
            ("every action listed after the end", "suite.actions and not done", "suite.actions"),
        ],
    ),
    "envs/scienceworld/hashing.py": (
        MACHINE,
        [("a jar that is not known", "except (KeyError, struct.error)", "except struct.error")],
    ),
    "envs/scienceworld/render.py": (
        SUITE,
        [
            ("the agent sees itself", '(r"(?<=\\n)\\s*the agent\\n", "")', '(r"^$", "")'),
            ("doors that are all open", 'r"\\n\\1 \\2"', 'r"\\n\\1 open"'),
            ("one line for all", "if starts or", "if False or"),
        ],
    ),
}  # fmt: skip
