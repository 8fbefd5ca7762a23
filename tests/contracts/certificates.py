"""Proven bounds as a contract: what every network keeps, or says that it does not apply."""

from __future__ import annotations

from typing import Any

from pendula.diagnose import Certificate, broken, certify


def bounds_hold(network: Any, batch: Any) -> list[Certificate]:
    """The certificates of a network on a batch, after asserting that none is broken."""
    found = certify(network, batch)
    assert found, "a network without any statement must have a row that says so"
    assert [c.sentence for c in broken(found)] == []
    return found


def named(certificates: list[Certificate], name: str) -> Certificate:
    """The only certificate of that name."""
    (one,) = [c for c in certificates if c.name == name]
    return one


def keeps(certificates: list[Certificate], name: str) -> Certificate:
    """The certificate of that name, after asserting that it applies and holds with what it shows."""
    one = named(certificates, name)
    assert one.applies, one.sentence
    assert one.holds is True, one.sentence
    assert one.measured is not None
    assert one.bound is not None
    return one


def declines(certificates: list[Certificate], name: str, word: str = "") -> Certificate:
    """The certificate of that name, after asserting that it does not apply, says why, and is no pass."""
    one = named(certificates, name)
    assert not one.applies, one.sentence
    assert one.holds is None
    assert one.why_not is not None
    assert one.why_not.startswith("does not apply: ")
    assert word in one.why_not
    return one


def breaks(certificates: list[Certificate], name: str) -> Certificate:
    """The certificate of that name, after asserting that it applies and is broken."""
    one = named(certificates, name)
    assert one.applies, one.sentence
    assert one.holds is False, one.sentence
    assert one in broken(certificates)
    return one
