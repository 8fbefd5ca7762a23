"""A model that is chosen layer by layer: a graph of nodes as plain data."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from pendula.choices import ModelChoice, TaskChoice
from pendula.cli import main
from pendula.experiment import Experiment, read_config
from pendula.learn.training import Training
from pendula.nets import Node
from pendula.tune.results import toml

SMALL = TaskChoice("adding", {"length": 6, "epoch_size": 32, "validation_size": 16, "test_size": 16})
GRAPH = [
    {"network": "CoRNN", "hidden_size": 6, "name": "low", "physics": {"dt": 0.1, "coupling": "0-1 2-3"}},
    {"network": "GRU", "hidden_size": 5, "name": "high", "inputs": ["input", "low"], "merge": "weighted"},
    {"network": "Linear", "hidden_size": 4, "name": "both", "inputs": ["low", "high"]},
]
IMAGES = [{"network": "Conv", "hidden_size": 4, "resolution": [4, 4]}]


def test_nodes_are_the_layers_of_the_model_and_the_task_says_the_rest() -> None:
    task = TaskChoice("digits").build()
    spec = ModelChoice(nodes=GRAPH, pool="mean").spec(task)
    assert [(node.name, node.network, node.inputs) for node in spec.nodes] == [
        ("low", "CoRNN", ("input",)),
        ("high", "GRU", ("input", "low")),
        ("both", "Linear", ("low", "high")),
    ]
    assert (spec.input_size, spec.output_size, spec.pool, spec.labels, spec.image) == (1, 10, "mean", task.labels, None)


def test_a_graph_of_maps_sees_the_images_of_the_task() -> None:
    spec = ModelChoice(nodes=IMAGES).spec(TaskChoice("digits").build())
    assert (spec.image, spec.pool, spec.nodes[0].resolution) == ((8, 8), "mean", (4, 4))


def test_a_choice_without_nodes_is_what_it_was() -> None:
    plain = Experiment().to_dict()
    assert plain["model"].pop("nodes") is None
    assert Experiment.from_dict(plain) == Experiment()


def test_nodes_survive_files_and_are_the_same_choice_afterwards() -> None:
    # tuples, as Python has them
    given = [{**node, "inputs": tuple(node.get("inputs", ()))} for node in GRAPH]
    made = Experiment(SMALL, ModelChoice(nodes=given), Training(epochs=1))
    data = made.to_dict()
    assert Experiment.from_dict(json.loads(json.dumps(data))) == made
    data["model"] = {"nodes": data["model"]["nodes"]}
    assert Experiment.from_dict(tomllib.loads(toml(data))) == made


def test_a_config_with_nodes_is_trained_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = Experiment(SMALL, ModelChoice(nodes=GRAPH), Training(epochs=1, accelerator="cpu"))
    data = made.to_dict()
    data["model"] = {"nodes": GRAPH}
    for name, text in (("a.toml", toml(data)), ("a.json", json.dumps(data))):
        Path(name).write_text(text)
        assert main(["train", "--config", name, "--out", f"run-{name}"]) == 0
        assert read_config(Path(f"run-{name}"))[0] == made
    assert main(["train", "--resume", "run-a.toml"]) == 0
    results = [json.loads(Path(f"run-{name}/result.json").read_text()) for name in ("a.toml", "a.json")]
    assert results[0]["validation"] == results[1]["validation"]


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"nodes": []}, "adding", "model.nodes must be a list of tables, at least one, got []"),
    ({"nodes": GRAPH, "hidden_size": 8}, "adding", "model.nodes says what each layer is: leave model.hidden_size out"),
    ({"nodes": GRAPH, "physics": {"dt": 1}}, "adding", "leave model.physics out"),
    ({"nodes": [{"network": "GRU"}]}, "adding", "model.nodes, number 0 needs hidden_size"),
    ({"nodes": ["GRU"]}, "adding", "model.nodes, number 0 must be a table, got 'GRU'"),
    ({"nodes": [{**GRAPH[0], "input": "x"}]}, "adding", "has no 'input' (did you mean 'inputs'?)"),
    ({"nodes": [{"network": "GRU", "hidden_size": 4, "physics": {"x": {1}}}]}, "adding", "numbers, words, lists and"),
    ({"nodes": [{"network": "GRUU", "hidden_size": 4}]}, "adding", "(did you mean 'GRU'?)"),
    ({"nodes": IMAGES}, "adding", "a graph of nodes without a recurrent one reads images, and adding has none"),
    ({"nodes": GRAPH, "pool": "steps"}, "adding", "model.pool='steps' does not fit task adding"),
]


@pytest.mark.parametrize(("words", "task", "sentence"), REFUSED, ids=[sentence[:40] for *_, sentence in REFUSED])
def test_what_is_no_graph_for_the_task_is_refused(words: dict[str, Any], task: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        ModelChoice(**words).spec(TaskChoice(task, SMALL.options).build())


def test_every_setting_of_a_node_can_be_said() -> None:
    spec = ModelChoice(nodes=GRAPH).spec(SMALL.build())
    written = spec.to_dict()["nodes"]
    assert set(written[0]) <= set(Node.__dataclass_fields__)
    assert ModelChoice(nodes=written).spec(SMALL.build()) == spec
