"""The layers made of the cells: their documentation, whose example runs, and their signature."""

from __future__ import annotations

import doctest
import inspect

import pytest

import pendula

NETWORKS = pytest.mark.parametrize("network", pendula.LAYERS)


@NETWORKS
def test_the_example_in_the_documentation_runs(network: str) -> None:
    text = inspect.getdoc(pendula.LAYERS[network])
    example = doctest.DocTestParser().get_doctest(text, {}, network, None, None)
    said: list[str] = []
    done = doctest.DocTestRunner().run(example, out=said.append)
    assert (done.attempted, "".join(said)) == (4, "")


@NETWORKS
def test_the_signature_is_that_of_a_layer_and_the_physics_of_the_cell(network: str) -> None:
    layer = pendula.LAYERS[network]
    arguments = inspect.signature(layer).parameters
    face = [name for name in inspect.signature(pendula.Recurrent).parameters if name != "physics"]
    assert list(arguments) == [*face, *layer.cell_type.physics()]
    assert {name: arguments[name].default for name in layer.cell_type.physics()} == layer.cell_type.physics()


def test_a_layer_is_found_under_its_public_name() -> None:
    for network, layer in pendula.LAYERS.items():
        assert (layer.__module__, layer.__qualname__, getattr(pendula, network)) == ("pendula", network, layer)
