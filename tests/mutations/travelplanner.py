"""Bugs in TravelPlanner's port: constraints, costs, texts, tools, files, the solver, the expert."""

Bugs = dict[str, tuple[tuple[str, ...], list[tuple[str, str, str]]]]

RULES = "tests/envs/test_travelplanner_rules.py"
SUITE = "tests/envs/test_travelplanner_suite.py"
FILES = "tests/envs/test_travelplanner_files.py"
CORNERS = "tests/envs/test_travelplanner_corners.py"

BUGS: Bugs = {
    "envs/travelplanner/commonsense.py": (
        (RULES, CORNERS),
        [
            ("a journey that begins anywhere", "if i == 0 and there[0] != query.org:", "if False:"),
            ("a journey that stays away", "if route[0] != route[-1]:", "if False:"),
            ("cities of any state", "inside = 0 < i < len(route) - 1", "inside = False"),
            ("three days in a state", "TO_A_CITY: Final = 3", "TO_A_CITY: Final = 2"),
            ("cities seen in passing", "if count == 1 and 0 < start < last:", "if False:"),
            ("cities seen twice", "if city in seen and start not in (0, last):", "if False:"),
            ("short circles", "if len(route) < 3:", "if len(route) < 1:"),
            ("the last attraction counts", 'text.split(";")[:-1]', 'text.split(";")'),
            ("cars left behind", 'used & {"flight", "taxi"}', 'used & {"flight"} and False'),
            ("a first day without transportation",
             'if not given(field(plan[0], "transportation")):', "if False:"),
            ("cities looked for on stays", 'if "from" in current else bare(current)',
             'if "from" in current else [bare(current)]'),
            ("nights anywhere", 'if cities[-1] not in day["accommodation"]:', "if False:"),
            ("one city of a ride is enough",
             "not all(city in str(transportation) for city in cities)",
             "not any(city in str(transportation) for city in cities)"),
            ("flights in any direction",
             "any((flight.origin, flight.destination) == ends for flight in found)", "bool(found)"),
            ("nights of several places", "if len(found) == 1 and nights", "if found and nights"),
            ("one night less", "nights < found[0].minimum_nights",
             "nights < found[0].minimum_nights - 1"),
            ("fewer cities", "if len(seen - {query.org}) != query.cities:", "if False:"),
            ("half a plan", "2 * there >= 6 * query.days", "2 * there >= 5 * query.days"),
            ("beds on the last day", "if not last and", "if"),
            ("null as nothing", 'nothing = words(day, "current_city"), ("", "-")',
             'nothing = words(day, "current_city"), ("", "-", None)'),
            ("upper-case flight numbers", 'if "flight number" in lower:',
             'if "Flight Number: " in text:'),
        ],
    ),
    "envs/travelplanner/hard.py": (
        (RULES,),
        [
            ("meals for one", "found.cost * people if found", "found.cost if found"),
            ("one room for all", "hotel.price * rooms(people, hotel)", "hotel.price"),
            ("one car for all", "* cars(people, mode)", "* 1"),
            ("a budget that must not be reached", "if total <= query.budget", "if total < "
             "query.budget"),
            ("dinner at home counts", "                break\n", "                pass\n"),
            ("rules the other way round", 'f"No {rule}" not in', 'f"No {rule}" in'),
            ("flights by lower case", '{"no flight": "Flight"', '{"no flight": "flight"'),
            ("private rooms are shared", '"not shared room": ("Entire home/apt", "Private room")',
             '"not shared room": ("Private room",)'),
        ],
    ),
    "envs/travelplanner/judge.py": (
        (RULES,),
        [
            ("hard constraints judged always",
             'if not commonsense["complete_information"] and not commonsense["within_sandbox"]:',
             "if True:"),
            ("a share of what is judged", "len(COMMONSENSE) + len(self.asked)",
             "len(self.commonsense) + len(self.hard)"),
            ("obedient without being judged", "bool(self.hard) and not", "not"),
            ("micro rates over what is judged", "sum(len(v.asked) for v in every)",
             "sum(len(v.hard) for v in every)"),
        ],
    ),
    "envs/travelplanner/tables.py": (
        (RULES,),
        [
            ("whole names", "if name in row.name", "if name == row.name"),
            ("five in a taxi", '5 if mode == "self-driving" else 4', "5"),
            ("journeys of days", 'and "day" not in self.duration', ""),
            ("dear driving", "kilometres * 0.05", "kilometres * 0.5"),
            ("rounded down", "math.ceil(people / hotel.maximum_occupancy)",
             "max(1, people // hotel.maximum_occupancy)"),
        ],
    ),
    "envs/travelplanner/itinerary.py": (
        (RULES,),
        [
            ("the first comma", 'text.rpartition(",")', 'text.partition(",")'),
            ("greedy cities", r"from\s+(.+?)\s+to", r"from\s+(.+)\s+to"),
            ("parentheses after line breaks", "if found and found.start() <= len(head)",
             "if found"),
            ("open attractions", '_closed(value) if key == "attraction" else value', "value"),
            ("numbers as fields", "isinstance(day.get(key), str | None)", "True"),
        ],
    ),
    "envs/travelplanner/frame.py": (
        (RULES, FILES),
        [
            ("names flush left", "cell.rjust(width)", "cell.ljust(width)"),
            ("no blank before numbers",
             'f" {name}" if isinstance(rows[0][k], int | float) else name', "name"),
            ("six digits", 'while all(cell.endswith("0") and cell[-2] != "." for cell in cells):',
             "while False:"),
            ("line breaks kept", "str(value).translate(_ESCAPES)", "str(value)"),
            ("stripped tables misread", "head = head.rjust(max(map(len, lines), default=0))",
             "head = head"),
            ("row numbers kept", "if all(_NUMBERED.match(line[: ends[0]]) for line in lines):",
             "if False:"),
        ],
    ),
    "envs/travelplanner/enquiry.py": (
        (RULES,),
        [
            ("names in part", "if row.name == name]\n        total += costs",
             "if name in row.name]\n        total += costs"),
            ("people of no number", "not isinstance(people, int) or people < 1 or", ""),
            ("breakfast spelt right", '"breakfase" if meal == "breakfast" else meal', "meal"),
        ],
    ),
    "envs/travelplanner/brief.py": (
        (RULES, CORNERS),
        [
            ("nights where the day begins", "cities[::-1]", "cities"),
            ("places without their city", 'return f"{name}, {(found or cities)[0]}"',
             "return name"),
            ("more parts", "if len(parts) != len(FIELDS):", "if len(parts) < len(FIELDS):"),
            ("rides on days that stay", 'if said == "-" or len(cities) < 2:', 'if said == "-":'),
        ],
    ),
    "envs/travelplanner/solver.py": (
        (RULES, SUITE),
        [
            ("always the cheapest", "for cheap in (False, True)", "for cheap in (True, True)"),
            ("never the cheapest", "for cheap in (False, True)", "for cheap in (False, False)"),
            ("nights that are too few", "hotel.minimum_nights <= NIGHTS",
             "hotel.minimum_nights <= NIGHTS + 1"),
            ("wishes for rooms forgotten", "and is_of(hotel, query.room)", ""),
            ("house rules forgotten", "and allows(hotel, query.rule)", ""),
            ("three meals at most", "range(3, 6)", "range(3, 4)"),
            ("cuisines forgotten", "2 ** len(query.cuisines) - 1", "0"),
            ("flights that were not wanted", 'if query.transport == "no flight":', "if False:"),
            ("cars that were not wanted", 'if query.transport == "no self-driving":', "if False:"),
            ("no taxi", 'taxi = _by_road(world, query.people, origin, destination, "taxi")',
             "taxi = None"),
            ("a person's meals", "for row in rows) * query.people", "for row in rows)"),
        ],
    ),
    "envs/travelplanner/tools.py": (
        (SUITE, CORNERS),
        [
            ("patience", "PATIENCE: Final = 3", "PATIENCE: Final = 4"),
            ("lists of cities noted", 'if name != "CitySearch":', "if True:"),
            ("failures that last", "        self._failures.clear()\n        if name",
             "        if name"),
            ("accommodation counted", '{"AccommodationSearch": "invalid"}', "{}"),
            ("blanks kept", "text.strip() if name in _STRIPPED else text", "text"),
            ("endless repeats", "if self._times == PATIENCE:", "if False:"),
            ("state without notes", "return (tuple(self.notes), self._found,",
             "return (self._found,"),
            ("line breaks count", '.replace("\\n", "")\n        self._times',
             "\n        self._times"),
        ],
    ),
    "envs/travelplanner/texts.py": (
        (SUITE, FILES, CORNERS),
        [
            ("any date", "if not _DATE.fullmatch(date):", "if False:"),
            ("any city", "if city not in world.cities:", "if False:"),
            ("dates of another day", "query.dates[min(2 * k, query.days - 1)]",
             "query.dates[min(k, query.days - 1)]"),
            ("states that are not there", 'if found else "Invalid State"', 'if found else "[]"'),
            ("roads without information", '{destination}, no valid information."',
             '{destination}."'),
        ],
    ),
    "envs/travelplanner/env.py": (
        (SUITE, CORNERS),
        [
            ("a reward for all that is met", 'worth = verdict.share if self._reward == "score"',
             'worth = verdict.share if self._reward != "score"'),
            ("won by less", "won=verdict.passed if self._over",
             "won=verdict.sensible if self._over"),
            ("plans that do not end", "        self._over = True\n        self.verdict = judge(",
             "        self.verdict = judge("),
        ],
    ),
    "envs/travelplanner/requests.py": (
        (SUITE, CORNERS),
        [
            ("test where others go", 'states[cut:] if split == "test" else states[:cut]', "states"),
            ("easy ones are tight", 'first.cost if level == "easy" else least.cost', "least.cost"),
            ("groups on easy journeys", '1 if level == "easy" else', ""),
            ("home is a goal", "if its != state", "if True"),
        ],
    ),
    "envs/travelplanner/generate.py": (
        (SUITE,),
        [
            ("numbers of other days", "10, 1 if self.size.daily else len(DATES)",
             "10, len(DATES)"),
            ("flights of the next month", "and date in DATES", ""),
            ("numbers in other digits", "digits.isascii() and digits.isdecimal()",
             "digits.isdigit()"),
        ],
    ),
    "envs/travelplanner/expert.py": (
        (SUITE,),
        [
            ("searches made twice", "        if action in self.made:\n            return\n", ""),
            ("nothing noted", "        if note:\n", "        if False:\n"),
        ],
    ),
    "envs/travelplanner/render.py": (
        (SUITE, CORNERS),
        [
            ("nights left out", "min {nights}", "min"),
            ("dates as they are said", "text = _DAY.sub(", "_ = _DAY.sub("),
            ("money as it is said", "text = _MONEY.sub(", "_ = _MONEY.sub("),
        ],
    ),
    "envs/travelplanner/files.py": (
        (FILES,),
        [
            ("roads that are forgotten", "if road.usable or ends not in roads:", "if True:"),
            ("levels in another order", "LEVELS[3 * k // len(known)]", "LEVELS[k % 3]"),
            ("states that are not read", "found[name] = state.rstrip", "_ = state.rstrip"),
        ],
    ),
    "envs/travelplanner/records.py": (
        (FILES,),
        [
            ("fractions of dollars", "if made == value:", "if True:"),
            ("columns that are missing", "if column not in entry:", "if False:"),
        ],
    ),
    "envs/travelplanner/database.py": (
        (FILES,),
        [
            ("empty cells", "not MISSING.isdisjoint(cells.values())", "False"),
            ("the last road counts", "roads.setdefault(ends, _road(",
             "roads.__setitem__(ends, _road("),
            ("flights in any order", "where {where} order by rowid",
             "where {where} order by price"),
        ],
    ),
    "envs/travelplanner/queries.py": (
        (FILES,),
        [
            ("any wish", "if wishes[name] not in (None, *known):", "if False:"),
            ("any number of cities", "if len(route) != query.cities:", "if False:"),
            ("nothing is missing", "    if missing:\n", "    if False:\n"),
        ],
    ),
}  # fmt: skip
