"""The travelplanner suite: tasks, the environment, demonstrations, plans and renderings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, get_args

from tutelage.envs import requirements
from tutelage.envs.base import Env, Render
from tutelage.envs.generated_tasks import LazyTasks, in_turns
from tutelage.types import Episode, Task
from tutelage_worlds.read_once import forget_changed, read_once
from tutelage_worlds.travelplanner.brief import compact
from tutelage_worlds.travelplanner.env import Mode, Reward, TravelPlannerEnv, Trip
from tutelage_worlds.travelplanner.generate import SIZES
from tutelage_worlds.travelplanner.judge import Verdict, rates
from tutelage_worlds.travelplanner.native import TravelPlannerCalls
from tutelage_worlds.travelplanner.query import DAYS, LEVELS
from tutelage_worlds.travelplanner.requests import SPLITS, trip

# -- instructions for the agent, in our own words

INTRO: Final = """\
You plan a journey for somebody who says where, when and for how much. The plan must hold what they
ask for and be sensible: it begins and ends in the city of departure, names only what the tables
have, in the city of that day, repeats no restaurant and no attraction, stays at least as long as an
accommodation asks for, and does not mix a car of one's own with flights or taxis. Who drives fits
five to a car, a taxi takes four, and a group may need several rooms."""
GATHER: Final = """\
First gather what is needed, one action at a time:
FlightSearch[Departure City, Destination City, Date] - flights, the date as 2022-03-16
GoogleDistanceMatrix[Origin, Destination, Mode] - roads; the mode is self-driving or taxi
AccommodationSearch[City], RestaurantSearch[City], AttractionSearch[City] - what a city has
CitySearch[State] - the cities of a state
NotebookWrite[Short Description] - notes what the last search found
Planner[Query] - ends the search: nothing but the notes and this query is shown to the planner
The same action three times in a row, or one tool used wrongly four times, ends it all. Then plan:
"""
PLAN: Final = """\
CostEnquiry[{"people_number": 2, "day": 1, "current_city": "...", "transportation": "...",
"breakfast": "...", "attraction": "...", "lunch": "...", "dinner": "...", "accommodation": "..."}] -
tells what one day costs
Finish[plan] - hands the plan in and ends the work
"""
FORM: Final = """\
The plan has these lines for each day, with "-" where nothing is needed; attractions end with ";":
Day 1:
Current City: from Ash to Elm
Transportation: Flight Number: F0000001, from Ash to Elm, Departure Time: 05:38, Arrival Time: 07:46
Breakfast: -
Attraction: Old Mill, Elm;River Park, Elm;
Lunch: Blue Pot, Elm
Dinner: Corner Oven, Elm
Accommodation: Quiet Room, Elm
By car, the transportation is: Self-driving, from Ash to Elm (or: Taxi, from Ash to Elm)."""
BRIEF: Final = """\
The plan has one line for each day, seven things between semicolons, "-" where nothing is needed:
city ; transportation ; breakfast ; attractions ; lunch ; dinner ; accommodation
from Ash to Elm ; F0000001 ; - ; - ; - ; - ; Quiet Room
Elm ; - ; Blue Pot ; Old Mill | River Park ; Red Pan ; Corner Oven ; Quiet Room
Transportation is a flight's number, drive or taxi."""


def instructions(mode: Mode, *, brief: bool) -> str:
    """What the plan must be, the tools, and how the plan is written."""
    gather = GATHER if mode == "two-stage" else ""
    return f"{INTRO}\n\n{gather}{BRIEF if brief else PLAN + FORM}"


# -- the suite

GET: Final = "git clone https://github.com/OSU-NLP-Group/TravelPlanner"


@dataclass(frozen=True, slots=True, kw_only=True)
class TravelPlanner:
    """Planning journeys under constraints, with TravelPlanner's rules (arXiv:2402.01622).

    data     a folder with TravelPlanner's own files (see `files`); without it, queries about a
             country of our own
    mode     "sole": everything a plan needs is given; "two-stage": it is looked up with tools
             first
    reward   of the plan: "score", the share of the constraints that are met, or "won", 1 if all
             are
    brief    whether plans and demonstrations are written in few words (see `brief`), as well
             as TravelPlanner's way, which is understood always
    size     our country: "full", or "small" for tiny models
    levels, days
             what is wanted: only queries of these, of our country or of the data
    train, validation, test
             how many tasks each split of our country has

    Raises ValueError for a value that does not exist or a count below zero.
    """

    data: str | None = None
    mode: Mode = "sole"
    reward: Reward = "score"
    brief: bool = False
    size: str = "full"
    levels: Sequence[str] = LEVELS
    days: Sequence[int] = DAYS
    train: int = 45_000
    validation: int = 180
    test: int = 1000

    def __post_init__(self) -> None:
        forget_changed()
        for name, value, known in (
            ("mode", self.mode, get_args(Mode)),
            ("reward", self.reward, get_args(Reward)),
            ("size", self.size, tuple(SIZES)),
            *(("levels", level, LEVELS) for level in self.levels),
            *(("days", days, DAYS) for days in self.days),
        ):
            if value not in known:
                choices = ", ".join(map(str, known))
                raise ValueError(f"{name}: there is no {value!r}; there are {choices}.")
        if not self.levels or not self.days:
            raise ValueError("levels and days must name at least one each.")
        for split in SPLITS:
            if getattr(self, split) < 0:
                raise ValueError(f"{split} = {getattr(self, split)}: it cannot be below 0.")

    def tasks(self, split: str) -> Sequence[Task]:
        if self.data is None:
            if split not in SPLITS:
                raise ValueError(f"There is no split {split!r}; there are {', '.join(SPLITS)}.")
            families = tuple(f"{level}-{days}" for level in self.levels for days in self.days)
            about = (self.size, families, split)
            return LazyTasks(split, getattr(self, split), _generated, about)
        return _listed(self.data, split, tuple(self.levels), tuple(self.days))

    def make(self) -> TravelPlannerEnv:
        return TravelPlannerEnv(find, self.mode, self.reward)

    def demonstrate(self, task: Task) -> Sequence[str]:
        return [action for action, _ in self._expert_turns(task)]

    def thoughts(self, task: Task) -> Sequence[str]:
        return [thought for _, thought in self._expert_turns(task)]

    def _expert_turns(self, task: Task) -> Sequence[tuple[str, str]]:
        from tutelage_worlds.travelplanner.expert import demonstrate

        return demonstrate(find(task), self.mode, short=self.brief)

    def plan(self, task: Task) -> Sequence[str]:
        from tutelage_worlds.travelplanner.expert import plan

        return plan(find(task), self.mode, short=self.brief)

    def describe(self, task: Task) -> str:
        return find(task).query.text

    def summarise(self, episodes: Sequence[Episode]) -> Mapping[str, float]:
        """The table of the paper, over the plans that the episodes handed in."""
        return asdict(rates(map(self._judged, episodes))) if episodes else {}

    def _judged(self, episode: Episode) -> Verdict:
        """What the environment found in the end; the same actions lead there again."""
        env = self.make()
        self.replay(episode, env)
        return env.verdict

    def replay(self, episode: Episode, env: Env) -> None:
        """Do again what was done in an episode."""
        seen = env.reset(episode.task)
        for turn in () if episode.stop.broken else episode.turns:
            if not seen.done:
                seen = env.step(turn.action)
        env.close()

    def renders(self) -> Mapping[str, Render]:
        return {"compact": compact}

    def instructions(self) -> str:
        return instructions(self.mode, brief=self.brief)

    def rules(self) -> str:
        """What the plan must be and how it is written, without the tools."""
        return f"{INTRO}\n\n{BRIEF if self.brief else FORM}"

    def with_tools(self) -> TravelPlannerCalls:
        return TravelPlannerCalls(self)


def _generated(size: str, families: tuple[str, ...], split: str, seed: int) -> Task:
    family = families[seed % len(families)]
    return Task(
        id=f"travelplanner/{size}/{split}/{family}/{seed:07d}",
        family=family,
        seed=seed,
        data={"split": split, "size": size},
    )


@read_once(32)
def _listed(
    folder: str, split: str, levels: tuple[str, ...], days: tuple[int, ...]
) -> Sequence[Task]:
    """The tasks of the user's data, levels and lengths taking turns."""
    from tutelage_worlds.travelplanner.files import load

    splits = load(folder)
    if split not in splits:
        raise ValueError(
            f"{folder} has no queries of a split {split!r}; it has {', '.join(splits)}."
        )
    found = [
        Task(
            id=f"travelplanner/{split}/{k:04d}",
            family=f"{trip.query.level}-{trip.query.days}",
            seed=k,
            data={"folder": folder, "split": split},
        )
        for k, trip in enumerate(splits[split])
        if trip.query.level in levels and trip.query.days in days
    ]
    return [found[i] for i in in_turns([task.family for task in found])]


def find(task: Task) -> Trip:
    """What a task is about. Raises ValueError for a task of another suite."""
    try:
        split = task.data["split"]
        if "folder" in task.data:
            from tutelage_worlds.travelplanner.files import load

            return load(task.data["folder"])[split][task.seed]
        level, _, days = task.family.partition("-")
        size = task.data["size"]
        if size in SIZES and split in SPLITS and level in LEVELS and int(days) in DAYS:
            return trip(size, split, task.seed, level, int(days))
        missing: Exception = ValueError("its data do not fit")
    except (KeyError, IndexError, ValueError) as wrong:
        missing = wrong
    raise ValueError(
        f"The task {task.id!r} is not a travelplanner task ({missing}): take one from "
        "TravelPlanner().tasks(split)."
    )


def needs(options: Mapping[str, object]) -> Iterator[requirements.Need]:
    """Nothing, unless the original's own queries are to be played."""
    if options.get("data"):
        yield requirements.file("data", options["data"], GET)
    else:
        yield requirements.official("data", GET)
