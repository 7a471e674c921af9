"""WebShop's own files: reading, error messages, and building a shop on disk."""

import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from support.webshop_goods import awkward, awkward_shop, source_of

from tutelage_worlds.webshop import CatalogueError, WebShop, files
from tutelage_worlds.webshop.__main__ import build, main
from tutelage_worlds.webshop.generate import generate
from tutelage_worlds.webshop.shop import built, in_memory

Files = dict[str, Any]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    result = generate(40, 2)
    files.write(tmp_path, result.products, result.attributes, result.humans)
    return tmp_path


def change(data: Path, name: str, edit: Any) -> None:
    path = data / name
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_files_sell_what_was_written_into_them(data: Path) -> None:
    suite = WebShop(data=data, test=5, dev=5)
    result = in_memory(source_of(generate(40, 2)), goals="human", seed=0)
    shop = suite.shop()
    assert shop.name == "items_shuffle"
    assert list(shop.products) == list(result.products)
    assert [shop.goal(i) for i in range(len(shop))] == [result.goal(i) for i in range(len(result))]
    task = suite.tasks("train")[0]
    env = suite.make()
    env.reset(task)
    for action in suite.plan(task):
        last = env.step(action)
    assert last.won


def test_the_first_products_of_a_file_may_be_enough(data: Path) -> None:
    shop = WebShop(data=data / "items_shuffle.json", products=7).shop()
    assert len(shop.products) == 7
    assert shop.name == "items_shuffle-7"


def test_data_may_lie_at_home(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(data.parent))
    assert WebShop(data=f"~/{data.name}").shop().name == "items_shuffle"


def test_the_small_files_have_names_of_their_own(data: Path) -> None:
    for stem in ("items_shuffle", "items_ins_v2"):
        (data / f"{stem}.json").rename(data / f"{stem}_1000.json")
    assert WebShop(data=data, goals="synthetic").shop().name == "items_shuffle_1000"
    (data / "items_shuffle.json").write_text("[]")
    with pytest.raises(CatalogueError, match="holds both"):
        WebShop(data=str(data), goals="synthetic", seed=1).shop()


def test_prices_and_limits_follow_the_generator_of_random_numbers(data: Path) -> None:
    shops = [WebShop(data=data, seed=seed).shop() for seed in (5, 6)]
    ranges = [i for i, p in enumerate(shops[0].products) if " to " in p.price_tag]
    rng = Random(5)
    assert ranges
    for i in ranges:
        low, high = shops[0].product(i).price_tag.replace("$", "").split(" to ")
        assert shops[0].prices[i] == rng.uniform(float(low), float(high))
    assert [shops[0].goal(i).upper for i in range(20)] != [
        shops[1].goal(i).upper for i in range(20)
    ]


BROKEN = (
    ("items_shuffle.json", lambda c: c[3].pop("name"), "items_shuffle.json, entry 3 has no 'name'"),
    ("items_shuffle.json", lambda c: c[0].update(asin=5), "entry 0: 'asin' is 5; it must be a str"),
    ("items_shuffle.json", lambda c: c.insert(2, "x"), "entry 2 is 'x'; it must be an object"),
    ("items_shuffle.json", lambda c: c[1].update(pricing="cheap"), "'pricing' is 'cheap'; it must"),
    ("items_shuffle.json", lambda c: c[1].update(pricing="$"), "'pricing' is '\\$'"),
    ("items_shuffle.json", lambda c: c[1].update(small_description=[1]), "a list of strings"),
    ("items_shuffle.json", lambda c: c[1].update(small_description=None), "'small_description' is"),
    ("items_shuffle.json", lambda c: c[1].update(customization_options=[1]), "an object or null"),
    ("items_shuffle.json", lambda c: c[1].update(customization_options={"a": 1}), "s.a' is 1"),
    (
        "items_shuffle.json",
        lambda c: c[1].update(customization_options={"a": [{}]}),
        "entry 1, option 'a' has no 'value'",
    ),
    (
        "items_ins_v2.json",
        lambda c: next(iter(c.values())).update(attributes="x"),
        "attributes of BAKBAKBAK0: 'attributes' is 'x'",
    ),
    (
        "items_human_ins.json",
        lambda c: next(iter(c.values()))[0].pop("instruction_options"),
        "instruction 0 of .* has no 'instruction_options'",
    ),
    ("items_human_ins.json", lambda c: c.update({next(iter(c)): {"a": 1}}), "must be a list"),
)


@pytest.mark.parametrize(("name", "edit", "says"), BROKEN, ids=range(len(BROKEN)))
def test_errors_in_a_file_are_reported(data: Path, name: str, edit: Any, says: str) -> None:
    change(data, name, edit)
    with pytest.raises(CatalogueError, match=says):
        in_memory(files.source(data, goals="human"), goals="human", seed=0)


def test_synthetic_goals_need_attributes(data: Path) -> None:
    change(
        data,
        "items_ins_v2.json",
        lambda c: next(iter(c.values())).update(instruction_attributes=[]),
    )
    with pytest.raises(CatalogueError, match="a list that is not empty"):
        in_memory(files.source(data, goals="synthetic"), goals="synthetic", seed=0)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{}", "must hold a list of products"),
        ("[{}", "is not JSON that can be read"),
        ('[{"asin": "A"} x]', "is not JSON that can be read"),
        ("", "must hold a list"),
    ],
)
def test_items_that_are_no_list_are_refused(data: Path, content: str, says: str) -> None:
    (data / "items_shuffle.json").write_text(content)
    with pytest.raises(CatalogueError, match=says):
        list(files.stream(data / "items_shuffle.json"))


def test_missing_and_unreadable_files_are_named(data: Path) -> None:
    with pytest.raises(CatalogueError, match="there is no folder"):
        WebShop(data=data / "nowhere").shop()
    (data / "items_human_ins.json").unlink()
    with pytest.raises(CatalogueError, match='set goals = "synthetic"'):
        WebShop(data=data, seed=9).shop()
    (data / "items_ins_v2.json").write_text("{")
    with pytest.raises(CatalogueError, match=r"items_ins_v2\.json is not JSON"):
        WebShop(data=data, seed=9).shop()
    (data / "items_ins_v2.json").write_text("[]")
    with pytest.raises(CatalogueError, match="keys are asins"):
        WebShop(data=data, seed=9).shop()
    (data / "items_shuffle.json").unlink()
    with pytest.raises(CatalogueError, match="holds neither"):
        WebShop(data=data, seed=9).shop()
    with pytest.raises(ValueError, match="There are no goals 'none'"):
        in_memory(source_of(awkward(3, 0)), goals="none", seed=0)  # type: ignore[arg-type]


def test_a_list_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [{"n": i, "text": 'é"[]{},' * i} for i in range(60)]
    path = tmp_path / "list.json"
    for indent in (None, 1):
        path.write_text(json.dumps(entries, indent=indent, ensure_ascii=False), encoding="utf-8")
        for size in (1, 7, 64, 10**6):
            monkeypatch.setattr(files, "CHUNK", size)
            assert list(files.stream(path)) == entries
    path.write_bytes(b'[{"a": "\xff"}]')
    with pytest.raises(CatalogueError, match="cannot be read"):
        list(files.stream(path))


# -- shops on disk


def test_a_shop_on_disk_is_the_shop_in_memory(tmp_path: Path) -> None:
    result = awkward(150, 11)
    files.write(tmp_path, result.products, result.attributes, result.humans)
    shop = build(tmp_path, tmp_path / "shop", goals="human", seed=11, products=None)
    other = awkward_shop(150, 11, "human")
    assert list(shop.products) == list(other.products)
    assert list(shop.prices) == list(other.prices)
    assert [shop.goal(i) for i in range(len(shop))] == [other.goal(i) for i in range(len(other))]
    for query in (
        "red shoes",
        "machine washable",
        "日本",
        "<q> running shoes",
        "<c> fashion",
        "'s",
    ):
        assert list(shop.search(query)) == list(other.search(query))
    assert list(shop._text._terms) == list(other._text._terms) != []
    assert [p.name for p in tmp_path.iterdir() if p.is_dir()] == ["shop"]


def test_a_large_index_is_put_together_from_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    full = in_memory(source_of(awkward(80, 3)), goals="human", seed=0)
    monkeypatch.setattr("tutelage_worlds.webshop.index.BLOCK", 100)
    parts = in_memory(source_of(awkward(80, 3)), goals="human", seed=0)
    for query in ("red shoes", "machine washable color size", "free of gluten", "a"):
        assert list(full.search(query)) == list(parts.search(query))


def test_a_shop_is_built_once_and_says_what_it_was_built_with(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = data / "shop"
    main([str(data), str(folder), "--seed", "3", "--goals", "synthetic"])
    suite = WebShop(data=folder, goals="synthetic", seed=3)
    assert len(suite.shop().products) == 40
    with pytest.raises(CatalogueError, match="was built with goals = 'synthetic', seed = 3 and 40"):
        WebShop(data=folder).shop()
    with pytest.raises(SystemExit, match="2"):
        main([str(data), str(folder)])
    (folder / "shop.json").write_text('{"format": 0}')
    with pytest.raises(CatalogueError, match="build it again"):
        built(folder)
    (folder / "shop.json").write_text('{"format": 1}')
    with pytest.raises(CatalogueError, match="no shop that can be read"):
        built(folder)
    manifest = json.loads((folder / "shop.json").read_text())
    for wrong in ("{", "[]", "[" * 100_000, json.dumps({**manifest, "files": 3})):
        (folder / "shop.json").write_text(wrong)
        with pytest.raises(CatalogueError, match="no shop that can be read"):
            built(folder)
    monkeypatch.setattr(files, "IN_MEMORY", 10)
    with pytest.raises(CatalogueError, match=r"python -m tutelage_worlds\.webshop"):
        WebShop(data=data, seed=77).shop()


def test_a_folder_that_is_not_whole_is_no_shop(data: Path) -> None:
    """Also one of an older release, which does not say how large its files are."""
    folder = data / "shop"
    build(data, folder, goals="human", seed=0, products=None)
    files = [path for path in folder.iterdir() if path.name != "shop.json"]
    for path in files:
        content = path.read_bytes()
        for wrong in (None, content[: len(content) // 2], content + b"more"):
            path.unlink(missing_ok=True)
            if wrong is not None:
                path.write_bytes(wrong)
            with pytest.raises(
                CatalogueError, match=rf"no shop that can be read \({path.name} has"
            ):
                built(folder)
        path.write_bytes(content)
    manifest = json.loads((folder / "shop.json").read_text())
    del manifest["files"]
    (folder / "shop.json").write_text(json.dumps(manifest))
    assert len(built(folder).products) == 40
    for path in files:
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(CatalogueError, match="no shop that can be read"):
            built(folder)
        path.write_bytes(content)


def test_a_byte_order_mark_and_half_a_character_are_read(data: Path) -> None:
    change(data, "items_shuffle.json", lambda c: c[3].update(name="red \ud83d shoes \U0001f600"))
    for name in ("items_shuffle.json", "items_ins_v2.json", "items_human_ins.json"):
        (data / name).write_bytes(b"\xef\xbb\xbf" + (data / name).read_bytes())
    shop = WebShop(data=data).shop()
    assert len(shop.products) == 40
    assert shop.products[3].title == "red ? shoes \U0001f600"


def test_a_damaged_entry_is_found_without_reading_the_rest(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LONGEST", 1000)
    monkeypatch.setattr(files, "CHUNK", 100)
    path = data / "items_shuffle.json"
    path.write_text('[{"asin": "A"}, {"asin": ' + '{"asin": "A"}, ' * 100_000)
    found = files.stream(path)
    assert next(found) == {"asin": "A"}
    with pytest.raises(CatalogueError, match="is not JSON that can be read"):
        next(found)
    path.write_text("[" * 100_000)
    monkeypatch.setattr(files, "CHUNK", 1 << 20)
    with pytest.raises(CatalogueError, match="is nested too deeply"):
        next(files.stream(path))


def test_a_build_that_fails_leaves_nothing(data: Path) -> None:
    change(data, "items_shuffle.json", lambda c: c[30].pop("query"))
    with pytest.raises(CatalogueError, match="entry 30"):
        build(data, data / "shop", goals="human", seed=0, products=None)
    assert not [path for path in data.iterdir() if path.is_dir()]


def test_two_processes_map_the_same_files(data: Path) -> None:
    build(data, data / "shop", goals="human", seed=0, products=None)
    code = (
        "import sys\n"
        "from tutelage_worlds.webshop import WebShop\n"
        "s = WebShop(data=sys.argv[1], test=2, dev=2)\n"
        "print([s.plan(t) for t in s.tasks('train')])"
    )
    texts = [
        subprocess.run(
            [sys.executable, "-c", code, str(data / "shop")],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONPATH": ":".join(sys.path), "PATH": ""},
        ).stdout
        for _ in range(2)
    ]
    assert texts[0] == texts[1] != "[]\n"
    assert "entry" not in texts[0]


def test_a_shop_without_products_or_goals_is_one(tmp_path: Path) -> None:
    for products, humans in ((0, 0), (5, 0)):
        result = generate(products)
        result.humans.clear()
        files.write(tmp_path, result.products, result.attributes, result.humans)
        folder = tmp_path / f"shop{products}-{humans}"
        for shop in (
            in_memory(source_of(result), goals="human", seed=0),
            build(tmp_path, folder, goals="human", seed=0, products=None),
        ):
            assert (len(shop.products), len(shop), shop.search("tea")) == (products, 0, ())
