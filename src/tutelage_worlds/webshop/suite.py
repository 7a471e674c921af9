"""The webshop suite: tasks, the environment, demonstrations and renderings."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from tutelage.envs import requirements
from tutelage.envs.base import Render
from tutelage.envs.generated_tasks import LazyTasks
from tutelage.types import Observation, Task
from tutelage_worlds.read_once import forget_changed, read_once
from tutelage_worlds.webshop.game import Game
from tutelage_worlds.webshop.nouns import Tagger, tagger
from tutelage_worlds.webshop.pages import Mode, Pages
from tutelage_worlds.webshop.product import CatalogueError, Goals
from tutelage_worlds.webshop.render import compact, marked

if TYPE_CHECKING:
    from tutelage_worlds.webshop.shop import Shop

GET: Final = (
    "git clone https://github.com/princeton-nlp/WebShop and fetch what its setup.sh names (`Data` "
    "in docs/environments/webshop.md)"
)
SPLITS: Final = ("test", "dev", "train")
"""In the order in which they are cut from the goals."""
PRODUCTS: Final = 10_000
INSTRUCTIONS: Final = """\
You are shopping on a website for somebody who told you what they want. Each turn, give exactly one
command.
search[WORDS] - look for products with words of your own; possible on every page
click[NAME] - press a button, follow a product's code or choose an option that the page shows
A search shows ten products to a page with their titles and prices: "Next >" and "< Prev" turn the
pages, a product's code opens it. On its page, click the options that are wanted, one of every kind.
"Description" and "Features" tell what the title does not, and "< Prev" leads back from there.
click[Buy Now] buys the product with the options you chose and ends the visit, so look first whether
its kind, what is said of it, its options and its price fit what was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebShop:
    """Shopping by an instruction, with WebShop's pages, search and rewards (arXiv:2207.01206).

    data        WebShop's own files, or a shop that was built from them; without it, products of
                our own making
    products    number of products: the first of the files (all), else generated
                (10,000)
    goals       "human", instructions as people would give them, or "synthetic", one for each
                combination of a product's options
    seed        of generated products, of prices that are ranges and of the limits of prices
    test, dev   how many goals these splits have, cut from the shuffled goals in this order; the
                rest is `train`
    mode        the wording of WebShop's text environment: "text" or "text_rich"
    attributes  whether a product's page has a button for its attributes
    reward      "score", what the purchase is worth in [0, 1], or "won", 1 for a perfect one only
    nouns       how titles are compared: "rules", or "spacy" as WebShop does

    Raises ValueError for numbers below zero; CatalogueError for files that cannot be used.
    """

    data: str | Path | None = None
    products: int | None = None
    goals: Goals = "human"
    seed: int = 0
    test: int = 500
    dev: int = 1000
    mode: Mode = "text"
    attributes: bool = False
    reward: Literal["score", "won"] = "score"
    nouns: Tagger = "rules"

    def __post_init__(self) -> None:
        forget_changed()
        for name, count in (("test", self.test), ("dev", self.dev), ("products", self.products)):
            if count is not None and count < 0:
                raise ValueError(f"{name} = {count}: there cannot be fewer than 0.")

    def shop(self) -> "Shop":
        data = None if self.data is None else str(self.data)
        return _shop(data, self.products, self.goals, self.seed)

    def prefix(self) -> str:
        """What the ids of all tasks begin with."""
        return f"webshop/{self.shop().name}/{self.goals}/{self.seed}"

    def tasks(self, split: str) -> Sequence[Task]:
        if split not in SPLITS:
            raise ValueError(f"There is no split {split!r}; the splits are {', '.join(SPLITS)}.")
        total = len(self.shop())
        cuts = (0, min(self.test, total), min(self.test + self.dev, total), total)
        at = SPLITS.index(split)
        return LazyTasks(split, cuts[at + 1] - cuts[at], WebShop._task, (self, cuts[at]))

    def _task(self, start: int, index: int) -> Task:
        """The task of a split whose goals begin at `start`."""
        shop, goal = self.shop(), start + index
        return Task(
            id=f"{self.prefix()}/{goal:07d}",
            family=shop.product(shop.goal(goal).product).category,
            seed=goal,
        )

    def make(self) -> "WebShopEnv":
        return WebShopEnv(self)

    def describe(self, task: Task) -> str:
        return self.shop().goal(self.goal(task)).text

    def goal(self, task: Task) -> int:
        """The number of a task's goal. Raises ValueError for a task of another suite."""
        if task.id != f"{self.prefix()}/{task.seed:07d}" or not 0 <= task.seed < len(self.shop()):
            raise ValueError(
                f"The task {task.id!r} is not one of this shop, whose tasks are named "
                f"{self.prefix()}/...: take one from tasks(split)."
            )
        return task.seed

    def visit(self, task: Task) -> Game:
        """A visit to the shop that has just begun."""
        shown = _pages(self.shop(), self.attributes)
        return Game(shown, self.goal(task), tagger(self.nouns), self.mode)

    def demonstrate(self, task: Task) -> Sequence[str]:
        from tutelage_worlds.webshop.expert import demonstrate

        return [action for action, _ in demonstrate(self.visit(task), self.shop())]

    def thoughts(self, task: Task) -> Sequence[str]:
        from tutelage_worlds.webshop.expert import demonstrate

        return [thought for _, thought in demonstrate(self.visit(task), self.shop())]

    def plan(self, task: Task) -> Sequence[str]:
        from tutelage_worlds.webshop.expert import plan

        return plan(self.visit(task), self.shop())

    def renders(self) -> Mapping[str, Render]:
        return {"compact": compact, "marked": marked}

    def instructions(self) -> str:
        return INSTRUCTIONS


@read_once(4)
def _shop(data: str | None, products: int | None, goals: Goals, seed: int) -> "Shop":
    """A shop is built or opened once in a process."""
    from tutelage_worlds.webshop import files, generate, shop

    if data is None:
        source = generate.source(PRODUCTS if products is None else products, seed)
        return shop.in_memory(source, goals=goals, seed=seed)
    folder = Path(data).expanduser()
    if not (folder / shop.MANIFEST).is_file():
        if files.too_large(folder) and products is None:
            raise CatalogueError(
                f"the items in {folder} are too many to be indexed in memory each time; build a "
                f"shop once: python -m tutelage_worlds.webshop {folder} FOLDER, and set data to it"
            )
        found = files.source(folder, goals=goals, products=products)
        return shop.in_memory(found, goals=goals, seed=seed)
    opened = shop.built(folder)
    if (opened.goals, opened.seed) != (goals, seed) or products not in (None, len(opened.products)):
        raise CatalogueError(
            f"the shop in {folder} was built with goals = {opened.goals!r}, seed = {opened.seed} "
            f"and {len(opened.products)} products; set these, or build another"
        )
    return opened


@lru_cache(maxsize=8)
def _pages(shop: "Shop", attributes: bool) -> Pages:
    return Pages(shop, attributes)


class WebShopEnv:
    """One visit at a time; the reward comes with the purchase, which ends it."""

    def __init__(self, suite: WebShop) -> None:
        self._suite = suite
        self._game: Game | None = None
        self._task = Task(id="")

    def reset(self, task: Task) -> Observation:
        self._game, self._task = self._suite.visit(task), task
        return self._observe(self._game, valid=True, bought=False)

    def step(self, action: str) -> Observation:
        if self._game is None:
            raise RuntimeError("No visit has begun: call reset(task) before step(action).")
        before = self._game.worth
        valid = self._game.step(action)
        return self._observe(self._game, valid=valid, bought=self._game.worth != before)

    def close(self) -> None:
        self._game = None

    def _observe(self, game: Game, *, valid: bool, bought: bool) -> Observation:
        worth = game.worth
        won = None if worth is None else worth == 1.0
        earned = 0.0
        if bought and worth is not None:
            earned = worth if self._suite.reward == "score" else float(worth == 1.0)
        return Observation(
            text=game.text(),
            reward=earned,
            done=worth is not None,
            state=(self._task.id, game.key()),
            score=worth or 0.0,
            won=won,
            valid=valid,
            actions=game.page.actions,
            focus=(game.goal.text,),
        )


def needs(options: Mapping[str, object]) -> Iterator[requirements.Need]:
    """Nothing, unless the original's own files are to be played or its tagger is to be used."""
    if options.get("data"):
        yield requirements.file("data", options["data"], GET)
    else:
        yield requirements.official("data", GET)
    tagged = options.get("nouns") == "spacy"
    use = 'for nouns = "spacy", as WebShop compares titles'
    yield requirements.package("spacy", "nouns", required=tagged, use=use)
    get = "python -m spacy download en_core_web_sm"
    yield requirements.package("en-core-web-sm", get=get, required=tagged, use=use)
