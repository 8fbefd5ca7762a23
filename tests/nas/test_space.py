"""A search space as data: what is read, and what is refused before any work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pendula._check import DataError

pytest.importorskip("optuna", reason="a search runs on Optuna")
pytest.importorskip("networkx", reason="graphs are drawn by networkx")

from pendula.nas.networks import build_task, draw, experiment, objectives, probe
from pendula.nas.space import GeneratorSpace, read_space
from pendula.search.recurrent import RANGES

ROOT = Path(__file__).parents[2]
ADDING = {"name": "adding", "options": {"length": 6, "epoch_size": 32, "validation_size": 16, "test_size": 16}}
FIXED = {name: low for name, (low, _) in RANGES.items()} | {"physics": {"dt": 0.1, "gamma": 1.0, "epsilon": 1.0}}


def space(search: dict[str, Any] | None = None, **tables: Any) -> GeneratorSpace:
    given = {"kind": "recurrent", "limit": 400, **(search or {})}
    return GeneratorSpace.from_dict("here", {"task": ADDING, "search": given, **tables})


def test_fixed_numbers_are_not_searched_and_narrowed_ones_keep_to_their_range() -> None:
    made = space({"generator": {"top_nodes": 3, "middle_nodes": {"low": 2, "high": 3}, "physics": {"dt": 0.1}}})
    names = [variable.name for variable in made.searched]
    assert len(names) == 8
    assert not {"top_nodes", "physics.dt"} & set(names)
    drawn = [made.values(made.point(seed) or {}) for seed in range(30)]
    assert {values["middle_nodes"] for values in drawn} == {2, 3}
    assert {(values["top_nodes"], values["physics.dt"]) for values in drawn} == {(3, 0.1)}


def test_a_space_of_whole_numbers_knows_how_many_points_it_has() -> None:
    some = {name: value for name, value in FIXED.items() if name not in ("top_nodes", "top_neighbours")}
    made = space({"generator": some, "trials": 100})
    assert (made.size, made.total) == (12, 12)
    assert space({"trials": 100}).size is None
    every: list[dict[str, Any]] = []
    while (point := made.point(len(every), every)) is not None:
        every.append(point)
    assert len({tuple(point.items()) for point in every}) == 12


@pytest.mark.parametrize(
    "search",
    [
        {"optimiser": "mobo", "objectives": ["loss", "memory"], "merge": "concat", "generator": {"density": 1}},
        {"optimiser": "mobo", "surrogate": "bnn"},
        {"optimiser": "bohb"},
    ],
)
def test_what_the_study_keeps_says_the_same_space(search: dict[str, Any]) -> None:
    made = space(search)
    again = GeneratorSpace.from_dict("here", made.identity())
    assert again == made


def test_what_is_kept_names_the_surrogate_where_there_is_one() -> None:
    kept = [space({"optimiser": name}).identity()["search"] for name in ("mobo", "bohb", "random")]
    assert [each.get("surrogate") for each in kept] == ["gp", None, None]


def test_the_same_seed_gives_the_same_network_and_another_one_another() -> None:
    made = space()
    task = build_task(made)
    point = made.point(3) or {}
    assert made.seeds(4) == space().seeds(4)
    assert made.seeds(4) != made.seeds(5)
    assert draw(made, point, 7, task) == draw(space(), point, 7, build_task(space()))
    assert draw(made, point, 7, task).wiring != draw(made, point, 8, task).wiring


def test_a_share_of_the_points_is_sampled_repeatedly() -> None:
    made = space({"samples": 3, "repeated": 0.25})
    counts = [len(made.seeds(place)) for place in range(400)]
    assert set(counts) == {1, 3}
    assert 70 <= counts.count(3) <= 130


def test_the_experiment_of_a_network_has_its_nodes() -> None:
    made = space()
    task = build_task(made)
    drawn = draw(made, made.lowest(), 5, task)
    trained = experiment(made, drawn, 5)
    assert trained.model.spec(task).nodes == drawn.spec.nodes
    assert trained.train.seed == 5


REFUSED = [
    (
        {"kind": "recurent"},
        {},
        "search.kind must be one of images, recurrent, got 'recurent' (did you mean 'recurrent'?)",
    ),
    ({"trails": 3}, {}, "search of recurrent has no 'trails' (did you mean 'trials'?)"),
    ({"head": 3}, {}, "search of recurrent has no 'head'"),
    ({"limit": 0}, {}, "search.limit must be a whole number, at least 1"),
    ({"optimiser": "bob"}, {}, "search.optimiser must be one of random, bohb, mobo, got 'bob' (did you mean 'bohb'?)"),
    ({"optimiser": "mobo", "surrogate": "bn"}, {}, "search.surrogate must be one of gp, bnn, got 'bn' (did you mean"),
    ({"optimiser": "bohb", "surrogate": "bnn"}, {}, "search.surrogate is for mobo, and search.optimiser is bohb"),
    ({"surrogate": "gp"}, {}, "search.surrogate is for mobo, and search.optimiser is random: leave it out"),
    ({"objectives": ["loss", "speed"]}, {}, "search.objectives must be one of"),
    ({"objectives": ["loss", "loss"]}, {}, "search.objectives must differ"),
    ({"objectives": ["loss", "memory"], "optimiser": "bohb"}, {}, "bohb has one objective"),
    ({"objectives": ["loss"], "optimiser": "mobo"}, {}, "mobo has several objectives"),
    ({"generator": FIXED, "optimiser": "bohb"}, {}, "nothing of the generator is searched"),
    ({"generator": {"top_node": 3}}, {}, "search.generator has no 'top_node' (did you mean 'top_nodes'?)"),
    ({"generator": {"top_nodes": {"low": 3}, "density": {"hig": 1}}}, {}, "has no 'hig' (did you mean 'high'?)"),
    ({"generator": {"top_nodes": {"low": 0, "high": 3}}}, {}, "top_nodes must lie from 1 to 6"),
    ({"generator": {"top_nodes": {"low": 1.5, "high": 3}}}, {}, "top_nodes.low must be a whole number"),
    ({"generator": {"top_neighbours": {"low": 2}}}, {}, "top_neighbours is one of 2, 4"),
    ({"networks": "CoRNN"}, {}, "search.networks must be a list of names"),
    ({"objectives": "loss"}, {}, "search.objectives must be a list of names"),
    ({"repeated": 2}, {}, "search.repeated must be a share"),
    ({"optimiser": "bohb", "least_epochs": 9}, {"train": {"epochs": 3}}, "least_epochs must be at most train.epochs"),
    ({}, {"train": {"seed": 3}}, "set seed in [search]"),
    ({}, {"train": {"epoch": 3}}, "train has no 'epoch' (did you mean 'epochs'?)"),
    ({}, {"train": {"devices": 2}}, "use --workers"),
    ({}, {"model": {}}, "a search space has no 'model'"),
]


@pytest.mark.parametrize(("search", "tables", "words"), REFUSED)
def test_what_does_not_fit_is_refused_in_a_sentence(search: dict[str, Any], tables: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        _ = space(search, **tables).searched


@pytest.mark.parametrize(
    ("search", "words"),
    [
        ({"objectives": ["accuracy"]}, "search.objectives must be loss, which adding is compared by"),
        ({"limit": 5}, "limit=5 is too small"),
        ({"networks": ["CoRN"]}, "did you mean 'CoRNN'?"),
        ({"merge": "sum"}, "merge must be one of weighted, concat, attention"),
        ({"kind": "images"}, "networks of images read images, and adding has none: take"),
        ({"generator": {"density": 3}}, "density must be from 0 to 1"),
    ],
)
def test_what_no_network_could_be_is_refused_with_the_task(search: dict[str, Any], words: str) -> None:
    made = space(search)
    with pytest.raises(ValueError, match=re.escape(words)):
        probe(made, build_task(made))


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text("[search\n")
    with pytest.raises(DataError, match=r"space.toml is not a TOML file"):
        read_space(path)


def test_the_example_of_images_has_networks_for_its_task() -> None:
    made = read_space(ROOT / "examples" / "search" / "digits.toml")
    task = build_task(made)
    probe(made, task)
    assert objectives(made, task) == ("accuracy", "memory")


def test_the_example_of_recurrent_networks_is_a_space() -> None:
    # its data are not everywhere
    made = read_space(ROOT / "examples" / "search" / "har6.toml")
    assert len(made.searched) == 10
