"""No network without its contract."""

import re
from pathlib import Path

import pytest

import pendula

TESTS = "\n".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))


@pytest.mark.parametrize("network", sorted(pendula.LAYERS))
def test_every_network_stands_under_the_layer_contract(network: str) -> None:
    # a class of tests that inherits LayerContract (or a class that does) and names the network
    found = re.search(rf'^class Test\w+\(\w+\):\n(    """.*\n)?\n?    network = "{network}"$', TESTS, re.MULTILINE)
    assert found, f'tests/cells: no class that inherits LayerContract begins with network = "{network}"'
