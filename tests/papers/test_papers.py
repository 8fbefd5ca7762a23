"""Published experiments as data: every number has a row, every model can be built, counts are the published ones."""

import json
from collections.abc import Mapping
from functools import cache

import pytest
import torch
from torch import Tensor

from pendula._check import DataError
from pendula.choices import TaskChoice
from pendula.nets import Model
from pendula.papers import Entry, Shape, Table, find, read_papers
from pendula.papers.paper import parse
from pendula.tasks import TASKS, Batch, Task

ENTRIES = [entry for paper in read_papers().values() for entry in paper.entries]
RUNNABLE = [entry for entry in ENTRIES if entry.experiment]
TABLES = {f"{e.paper}/{e.table.name}": (e.table, e) for e in ENTRIES}

# typed from the tables of the specification sheets cornn.md 5.5 and unicornn.md 5.4, apart from the TOML files
PUBLISHED: Mapping[str, Mapping[str, list[float]]] = {
    "cornn": {
        "smnist": [95.1, 98.9, 99.1, 98.0, 99.0, 98.7, 99.3, 99.4],
        "psmnist": [91.4, 92.9, 94.1, 95.8, 96.8, 94.8, 96.6, 97.3],
        "cifar": [11.6, 45.8, 48.3, 54.7, 54.5, 55.8, 59.0],
        "har2": [93.6, 93.7, 94.5, 95.6, 93.2, 96.3, 97.2, 96.5],
        "imdb": [86.8, 86.6, 86.2, 86.6, 84.8, 87.4],
        "lorenz-regular": [0.020, 0.020],
        "lorenz-chaotic": [0.068, 0.098],
    },
    "unicornn": {
        "psmnist": [92.9, 94.1, 96.6, 97.3, 96.0, 97.2, 97.8, 98.4],
        "cifar": [11.6, 54.5, 55.8, 59.0, 62.4],
        "eigenworms": [57.9, 69.2, 83.8, 40.0, 49.7, 86.7, 90.3],
        "respiratory-rate": [2.28, 1.67, 1.85, 1.49, 1.57, 1.47, 1.45, 1.06],
        "heart-rate": [10.7, 4.72, 5.69, 2.97, 1.87, 2.1, 1.81, 1.39],
        "imdb": [86.8, 86.6, 86.2, 84.8, 86.6, 87.4, 88.4],
        "lorenz-regular": [0.020, 0.020, 0.014],
        "lorenz-chaotic": [0.068, 0.098, 0.031],
    },
    # urnn.md 7.3, spectral.md 6, baselines.md 2
    "urnn": {"smnist": [98.2, 95.1], "psmnist": [88.0, 91.4]},
    "fullcapacity": {"smnist": [97.5, 97.8, 98.2, 92.8, 96.9], "psmnist": [93.3, 91.3, 91.7, 92.1, 94.1]},
    "spectral": {
        "smnist": [77.18, 79.26, 85.47, 94.10, 93.84, 93.24, 66.71, 53.53, 97.30],
        "psmnist": [83.56, 84.59, 89.63, 91.44, 90.83, 90.51, 79.33, 42.72, 92.62],
        "ptb-75": [2.16, 2.16, 2.12, 2.06, 2.04, 2.06, 2.08, 2.25],
    },
    "lem": {"smnist": [98.9, 99.1, 98.9, 99.5], "psmnist": [92.9, 94.1, 94.6, 96.6]},
    "lmu": {"psmnist": [97.15, 88.43, 92.39, 95.38, 92.65]},
    "fastgrnn": {"smnist": [96.44, 98.72, 98.20, 94.10, 97.70, 95.38, 97.20, 94.60, 97.29, 98.70, 97.80]},
    # widths 116, 170, 360, 512 where a network has all four; RGD at 360 is in the paper, not in the sheet
    "projunn": {
        "psmnist": [
            *(92.5, 93.9, 94.7),
            *(91.8, 92.0, 92.9, 92.0),
            *(94.8, 96.2, 96.6),
            *(94.9, 96.2, 96.6),
            *(95.0, 96.5, 96.8),
            *(95.1, 96.4, 96.7),
            *(95.2, 96.3, 96.7),
            *(92.8, 94.3, 96.4, 97.0),
            *(92.5, 94.4, 96.3, 96.7),
        ]
    },
    # tables 1 and 6, and 2, of arXiv 2410.03943; the row of D-LinOSS of arXiv 2505.12171
    "linoss": {
        "worms": [83.9, 75.0, 85.6, 87.8, 81.1, 85.0, 70.9, 80.0, 95.0, 88.9, 74.4],
        "scp1": [80.9, 79.8, 83.1, 82.6, 89.9, 82.8, 80.7, 87.5, 87.8, 86.6, 87.3],
        "scp2": [53.7, 53.0, 53.7, 51.2, 50.5, 49.9, 48.2, 58.9, 58.2, 59.3, 60.7],
        "ethanol": [25.3, 29.9, 34.4, 21.5, 24.1, 26.4, 27.9, 29.9, 29.9, 32.7, 31.4],
        "heartbeat": [72.9, 73.9, 75.2, 78.4, 77.7, 76.5, 76.2, 75.5, 75.8, 76.8, 73.9],
        "motor": [47.0, 49.5, 53.7, 48.4, 47.7, 51.3, 47.7, 57.9, 60.0, 58.2, 56.5],
        "ppg": [0.099, 0.1354, 0.0956, 0.1217, 0.1263, 0.1288, 0.1065, 0.075, 0.064],
    },
    "dlinoss": {
        "worms": [93.9],
        "scp1": [88.9],
        "scp2": [58.6],
        "ethanol": [29.9],
        "heartbeat": [75.8],
        "motor": [61.1],
        "ppg": [0.0616],
    },
}


class Synthetic(Task):
    """Noise of the shape of a published task."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        for name in ("input_size", "output_size", "target", "per_step", "standardise", "vocabulary", "image"):
            setattr(self, name, getattr(shape, name))

    def size(self, part: str) -> int:
        return 2

    def rows(self, part: str, index: Tensor, seed: int, epoch: int) -> Batch:
        # an image has all its pixels
        steps = self.shape.length if self.shape.image else min(self.shape.length, 12)
        shape, count = self.shape, len(index)
        if shape.vocabulary:
            x = torch.randint(1, shape.vocabulary, (steps, count))
        else:
            x = torch.randn(steps, count, shape.input_size)
        size = (steps, count) if shape.per_step else (count,)
        if shape.target == "values":
            return Batch(x, torch.randn(*size, shape.output_size))
        if shape.target == "bits":
            return Batch(x, torch.randint(2, (*size, shape.output_size)).float())
        return Batch(x, torch.randint(max(shape.output_size, 2), size))


@pytest.mark.parametrize("entry", RUNNABLE, ids=lambda entry: entry.name)
def test_its_model_has_the_published_count_and_takes_a_step(entry: Entry) -> None:
    assert entry.experiment
    shape, training = entry.table.shape, entry.experiment.train
    model = Model(entry.experiment.model.spec(shape))
    embedded = sum(p.numel() for name, p in model.named_parameters() if name.startswith("embedding"))
    if entry.parameters is not None:
        assert model.parameter_count - embedded == entry.parameters
    task = Synthetic(shape)
    batch = task.rows("train", torch.arange(2), 0, 0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimiser = training.make_optimiser(model)
    loss, _ = training.make_rule()(model, batch, task.loss, lambda t, **words: t.backward(**words), None)
    optimiser.step()
    assert torch.isfinite(torch.as_tensor(loss))
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())
    assert any(not torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("paper", PUBLISHED)
def test_every_number_of_the_oscillator_papers_has_a_row(paper: str) -> None:
    for table, numbers in PUBLISHED[paper].items():
        own = [e.published for e in read_papers()[paper].entries if e.table.name == table and e.published is not None]
        scale = 100 if read_papers()[paper].entries and TABLES[f"{paper}/{table}"][0].metric == "accuracy" else 1
        assert sorted(round(scale * number, 6) for number in own) == sorted(numbers), table


@cache
def built(name: str, options: str) -> Task:
    """Several tables are of one task, and some take seconds to read."""
    return TaskChoice(name, json.loads(options)).build()


@pytest.mark.parametrize(("table", "entry"), TABLES.values(), ids=TABLES)
def test_a_table_has_the_shape_of_its_task(table: Table, entry: Entry) -> None:
    assert table.task["name"] in TASKS
    options = (entry.experiment.task.options if entry.experiment else table.task.get("options", {})) or {}
    try:
        task = built(table.task["name"], json.dumps(options, sort_keys=True))
    except DataError as error:
        pytest.skip(f"the data is not here: {str(error).split(':')[0]}")
    shape = table.shape
    for name in ("input_size", "output_size", "target", "per_step", "standardise", "vocabulary", "irregular"):
        assert getattr(task, name) == getattr(shape, name), name


def test_numbers_are_in_the_unit_of_their_table() -> None:
    for entry in ENTRIES:
        if entry.published is not None and entry.table.metric == "accuracy":
            assert 0 < entry.published <= 1, entry.name
            assert entry.spread is None or entry.spread < 0.5, entry.name


def test_an_entry_without_a_model_says_why() -> None:
    for entry in ENTRIES:
        assert bool(entry.missing) == (entry.experiment is None), entry.name


def test_patterns_find_entries_in_their_order() -> None:
    assert [entry.name for entry in find(["cornn/smnist-*"])][:2] == ["cornn/smnist-256", "cornn/smnist-128"]
    with pytest.raises(ValueError, match=r"no published experiment 'cornn/har3' \(did you mean 'cornn/har2'"):
        find(["cornn/har3"])


MINIMAL = """
[paper]
title = "t"
authors = "a"
year = 2000
source = "s"

[tables.digits]
title = "Digits"
metric = "accuracy"
data = "generated"
shape = { input_size = 1, output_size = 10, length = 64 }
task = { name = "digits" }

[[entries]]
id = "one"
table = "digits"
method = "LSTM"
where = "here"
tag = "ours"
model = { network = "CoRNN", hidden_size = 8, physics = { dt = 0.1 } }
"""


def test_an_entry_like_another_takes_its_experiment_but_not_its_number() -> None:
    text = MINIMAL + 'published = 0.5\n[[entries]]\nid = "two"\nlike = "one"\nwhere = "there"\ntag = "ours"\n'
    one, two = parse("p", text + "train = { epochs = 3 }\n").entries
    assert two.published is None
    assert two.experiment
    assert one.experiment
    assert two.experiment.model == one.experiment.model
    assert two.experiment.train.epochs == 3


def test_the_physics_of_a_network_does_not_pass_to_another() -> None:
    text = MINIMAL + '[[entries]]\nid = "two"\nlike = "one"\nwhere = "x"\ntag = "ours"\nmodel = { network = "LSTM" }\n'
    two = parse("p", text).entries[1]
    assert two.experiment
    assert two.experiment.model.physics == {}
    assert two.experiment.model.hidden_size == 8


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('metric = "accuracy"', 'metric = "acuracy"', "did you mean 'accuracy'"),
        ('tag = "ours"', 'tag = "our"', "did you mean 'ours'"),
        ('table = "digits"\n', 'table = "digit"\n', "did you mean 'digits'"),
        ("hidden_size = 8", "hiden_size = 8", "hiden_size"),
        ('where = "here"', 'were = "here"', "were"),
        ("model = {", "missing = 'x'\nmodel = {", "either a model"),
        ('title = "t"', "title = t", "not TOML"),
    ],
)
def test_a_wrong_word_in_a_paper_is_named(old: str, new: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse("p", MINIMAL.replace(old, new))
