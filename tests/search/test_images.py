"""Wirings as networks of convolutions: the sheet's parameter counts, limits that hold, and models that agree."""

from __future__ import annotations

import hashlib
import json
from itertools import product
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from pendula import Model, ModelSpec
from pendula.search.budget import largest
from pendula.search.images import MERGES, Images, draw, network, parts
from pendula.search.nago import RANGES, Generator, sample
from tests import tolerance

TRIANGLES = Generator(3, 2, 0.0, 1, 1.0, 3, 2, 0.0, beyond=True)
PAIRS = Generator(4, 2, 0.0, 2, 1.0, 3, 2, 0.0, beyond=True)
LARGEST = Generator(10, 4, 0.0, 10, 1.0, 10, 4, 0.0, beyond=True)
MIXED = Generator(5, 2, 0.5, 2, 0.5, 4, 4, 0.5)
DIGEST = "0df1079ad1e2a2b73b9d43a82a1c193142c701ef2092fda8f612be286f477764"


def built(spec: ModelSpec) -> Model:
    """The model without its weights."""
    return Model(spec, device="meta")


def base_of(generator: Generator, images: Images) -> int:
    made = parts(sample(generator, 0, ratios=images.ratios), images)
    return sum(part.size.base(images.widths) for part in made)


@pytest.mark.parametrize(
    ("generator", "base", "limit", "multiplier", "convolutions", "total"),
    [
        (TRIANGLES, 477, 4_000_000, 91, 3_950_037, 4_532_623),
        (TRIANGLES, 477, 6_000_000, 112, 5_983_488, 6_722_545),
        (PAIRS, 1098, 4_000_000, 60, 3_952_800, 4_327_007),
        (PAIRS, 1098, 6_000_000, 73, 5_851_242, 6_313_355),
        (LARGEST, 57510, 4_000_000, 8, 3_680_640, 3_795_796),
    ],
)
def test_parameters_are_those_of_the_fourth_oracle(
    generator: Generator, base: int, limit: int, multiplier: int, convolutions: int, total: int
) -> None:
    images = Images(limit=limit, counted="convolutions")
    drawn = draw(generator, 0, images)
    assert base_of(generator, images) == base
    assert (drawn.scale, drawn.scale**2 * base, drawn.parameters) == (multiplier, convolutions, total)
    assert built(drawn.spec).parameter_count == total


@pytest.mark.parametrize(("generator", "gates", "projections"), [(TRIANGLES, 7, 1), (PAIRS, 17, 1), (LARGEST, 2354, 5)])
def test_gates_and_projections_are_those_of_the_fourth_oracle(
    generator: Generator, gates: int, projections: int
) -> None:
    model = built(draw(generator, 0, Images(counted="convolutions")).spec)
    merges = list(model.merges.values())
    assert sum(merge.gates.numel() for merge in merges) == gates
    # the mean of the last cells has its projections as nodes of their own
    own = sum(node.name.endswith("_projected") for node in model.spec.nodes)
    assert sum(len(merge.projections) for merge in merges) + own == projections


def test_concatenation_has_the_base_and_multiplier_of_the_fourth_oracle() -> None:
    images = Images(counted="convolutions", merge="concat")
    assert (base_of(TRIANGLES, images), draw(TRIANGLES, 0, images).scale) == (702, 75)


def test_large_images_have_the_parameters_and_resolutions_of_the_fourth_oracle() -> None:
    images = Images((224, 224), classes=67, limit=6_000_000, counted="convolutions")
    drawn = draw(TRIANGLES, 0, images)
    model = built(drawn.spec)
    assert (drawn.scale, drawn.parameters, model.parameter_count) == (112, 6_686_504, 6_686_504)
    assert [model.shapes[f"cell{cell}_0_2"][1:] for cell in range(3)] == [(56, 56), (28, 28), (14, 14)]


def test_a_weighted_sum_of_ones_is_that_of_the_fifth_oracle() -> None:
    model = Model(draw(TRIANGLES, 0, Images(limit=100_000, head=16)).spec, dtype=torch.float64)
    merge = model.merges["cell0_0_2"]
    ones = torch.ones(1, 1, 2, 2, dtype=torch.float64)
    assert_close(merge([ones, ones]), 1.4621171572600098 * ones, **tolerance.PRINTED_16)


def corners() -> list[Generator]:
    """Every corner of the whole numbers; the probabilities in the middle."""
    ends = [(low, high) if isinstance(low, int) else (0.5,) for low, high in RANGES.values()]
    return [Generator(*corner) for corner in product(*ends)]


@pytest.mark.parametrize("generator", corners(), ids=str)
def test_the_count_is_exact_and_the_limit_holds_at_every_corner(generator: Generator) -> None:
    images = Images((28, 28), channels=1, limit=600_000, head=64)
    drawn = draw(generator, 2, images)
    assert built(drawn.spec).parameter_count == drawn.parameters == drawn.stored <= images.limit


@pytest.mark.parametrize("probability", [0.1, 0.9])
@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("image", [(8, 8), (28, 28), (45, 60)])
def test_every_merge_and_size_of_image_has_its_exact_count(
    merge: str, image: tuple[int, int], probability: float
) -> None:
    generator = Generator(5, 2, probability, 4, probability, 4, 4, probability)
    drawn = draw(generator, 3, Images(image, channels=1, limit=60_000, head=32, merge=merge))
    assert built(drawn.spec).parameter_count == drawn.parameters


def test_one_channel_more_would_pass_the_limit() -> None:
    images = Images(limit=80_000, head=32)
    drawn = draw(MIXED, 0, images)
    wider = network(drawn.wiring, Images(limit=10**9, head=32))
    assert drawn.parameters <= images.limit < wider.parameters
    fine = round(drawn.scale * 4) + 1
    sizes = [part.size for part in parts(drawn.wiring, images)]
    channels = images.basic(fine)
    more = sum(size.parameters(channels) for size in sizes) + (32 + 1) * images.classes
    assert more > images.limit


def test_the_papers_limit_is_met_between_two_multipliers() -> None:
    images = Images(limit=1_000_000, counted="convolutions")
    for seed in range(5):
        drawn = draw(MIXED, seed, images)
        base = sum(part.size.base(images.widths) for part in parts(drawn.wiring, images))
        assert drawn.scale**2 * base <= images.limit < (drawn.scale + 1) ** 2 * base


@pytest.mark.parametrize("counted", ["all", "convolutions"])
def test_a_limit_that_is_too_small_is_refused_with_the_smallest_size(counted: str) -> None:
    with pytest.raises(
        ValueError, match="limit=900 is too small for this wiring of 40 operations: one channel per unit"
    ):
        draw(MIXED, 0, Images(limit=900, counted=counted))


def test_the_smallest_size_that_is_named_is_enough() -> None:
    with pytest.raises(ValueError, match=r"takes [0-9]+ parameters") as said:
        draw(MIXED, 0, Images(limit=10))
    least = int(str(said.value).split("takes ")[1].split()[0])
    assert draw(MIXED, 0, Images(limit=least)).parameters == least
    with pytest.raises(ValueError, match="too small"):
        draw(MIXED, 0, Images(limit=least - 1))


def test_resolutions_never_grow_along_the_cells() -> None:
    drawn = draw(Generator(10, 4, 0.9, 1, 0.5, 3, 2, 0.5), 1, Images(limit=200_000, head=0))
    model = built(drawn.spec)
    grown = [
        (source, node.name)
        for node in drawn.spec.nodes
        for source in node.inputs
        if max(model.shapes[node.name][1:]) > max(model.shapes[source][1:])
    ]
    assert grown == []
    found = [model.shapes[f"cell{cell}_0_0"][1:] for cell in range(10)]
    assert found == [(32, 32)] * 4 + [(16, 16)] * 3 + [(8, 8)] * 3


def test_the_last_cells_are_the_output_nodes_of_the_top_graph() -> None:
    # the released code compares places in the order of evaluation with numbers of nodes
    for seed in range(40):
        drawn = draw(Generator(8, 2, 0.9, 1, 0.5, 3, 2, 0.5), seed, Images(limit=100_000, head=0))
        wiring = drawn.wiring
        if len(wiring.top.outputs) > 1 < len(wiring.top.inputs):
            break
    nodes = {node.name: node for node in drawn.spec.nodes}
    read = [name.removesuffix("_projected") for name in nodes["cells_out"].inputs]
    assert [int(name.removeprefix("cell").split("_")[0]) for name in read] == list(wiring.top.outputs)


@pytest.mark.parametrize("merge", ["weighted", "concat"])
def test_a_backward_pass_reaches_every_parameter(merge: str) -> None:
    torch.manual_seed(0)
    drawn = draw(MIXED, 1, Images((8, 8), limit=60_000, head=32, merge=merge))
    model = Model(drawn.spec, dtype=torch.float64)
    model(torch.randn(64, 6, 3, dtype=torch.float64))[0].square().sum().backward()
    still = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not bool((parameter.grad.abs() > 1e-12).any())
    ]
    # a bias in front of a batch normalisation has no effect
    assert [name for name in still if not name.endswith("conv.bias")] == []


def test_every_bottom_node_is_a_convolution_in_its_cell() -> None:
    drawn = draw(MIXED, 1, Images(limit=100_000))
    bottom = [node for node in drawn.spec.nodes if node.name.count("_") == 2 and node.network == "Conv"]
    assert len(bottom) == MIXED.operations
    assert {node.module for node in bottom} == {f"cell{cell}" for cell in range(5)}
    assert {tuple(node.physics[k] for k in ("kernel_size", "stride", "order")) for node in bottom} == {
        (3, 1, "act-conv-norm")
    }


def test_a_network_survives_json() -> None:
    spec = draw(MIXED, 0, Images(limit=100_000)).spec
    assert ModelSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_the_seed_and_the_numbers_say_the_network() -> None:
    nodes = draw(MIXED, 5, Images(limit=100_000)).spec.nodes
    told = [[node.name, node.network, node.hidden_size, node.inputs, node.merge, node.resolution] for node in nodes]
    assert hashlib.sha256(json.dumps(told).encode()).hexdigest() == DIGEST


def test_the_largest_number_within_a_limit_is_found() -> None:
    assert [largest(lambda n: n * n, limit, 2) for limit in (3, 4, 8, 9, 99, 100)] == [1, 2, 2, 3, 9, 10]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"image": (3, 28)}, "image must be at least 4 x 4"),
        ({"image": (28,)}, "image must be a height and a width"),
        ({"channels": 0}, "channels must be a whole number"),
        ({"limit": 0}, "limit must be a whole number"),
        ({"counted": "some"}, "counted must be one of all, convolutions"),
        ({"merge": "mean"}, "merge must be one of weighted, concat, attention"),
        ({"widths": (1, 2)}, "widths must hold one number for each of 3 stages"),
        ({"widths": (1, 2, 0)}, "widths must be a whole number, at least 1, got 0"),
        ({"ratios": (1.0, -1.0, 1.0)}, "ratios must be a finite number, at least 0"),
        ({"head": -1}, "head must be a whole number, at least 0"),
        ({"dropout": 1.0}, "dropout must be in"),
    ],
)
def test_what_no_network_can_have_is_refused(words: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Images(**words)
