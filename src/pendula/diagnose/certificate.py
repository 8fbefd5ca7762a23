"""A certificate: one proven statement about a network, with its condition, its bound and what was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pendula.diagnose.plain import plain

SLACK = 1e-9
"""What a measured value may exceed its bound by, as a share of it: rounding of some ten thousand float64 steps."""


@dataclass(frozen=True)
class Certificate:
    """A proven statement, checked for one cell of a network on one batch.

    Attributes:
        name: a word or two, unique within a network.
        statement: the sentence, with its formula.
        source: section of the spec sheet, and how it is known there: [derived], [from memory], ...
        where: node, layer and direction.
        applies: whether the condition of the statement is met by the weights and the batch.
        condition: what was looked at, with its numbers.
        why_not: "does not apply: ..."; None where it applies.
        bound, measured: what must not be exceeded, and the largest value seen, at the moment that came closest. None
            where they could not be had. Where a statement does not apply they are information only.
        holds: whether the bound was kept; None where the statement does not apply, which is never a pass.
        logarithm: bound and measured are logarithms (or may be negative), so their quotient says nothing.
        step: the step (from 1) at which `measured` was seen; None where it isn't one step's.
    """

    name: str
    statement: str
    source: str
    where: str
    applies: bool
    condition: str
    why_not: str | None = None
    bound: float | None = None
    measured: float | None = None
    holds: bool | None = None
    logarithm: bool = False
    step: int | None = None

    @property
    def margin(self) -> float | None:
        """bound - measured: below zero, the bound is broken."""
        return self.bound - self.measured if self._comparable else None  # type: ignore[operator]

    @property
    def used(self) -> float | None:
        """measured / bound: the share of the bound that was used; None for logarithms."""
        return self.measured / self.bound if self._comparable and not self.logarithm and self.bound else None  # type: ignore[operator]

    @property
    def _comparable(self) -> bool:
        return self.applies and self.bound is not None and self.measured is not None

    @property
    def verdict(self) -> str:
        """ "holds", "broken" or "does not apply"."""
        return "does not apply" if not self.applies else "holds" if self.holds else "broken"

    @property
    def sentence(self) -> str:
        """What came out, in words."""
        head = f"{self.where}, {self.name}: "
        if not self.applies:
            return f"{head}{self.why_not}"
        at = f" at step {self.step}" if self.step else ""
        return f"{head}{self.verdict}; measured {self.measured:.6g}{at}, bound {self.bound:.6g} ({self.condition})"

    def to_dict(self) -> dict[str, Any]:
        """Numbers, words and None only: what JSON can hold; a number that is not finite becomes None."""
        return {
            **plain(self),
            "verdict": self.verdict,
            "margin": plain(self.margin),
            "used": plain(self.used),
            "sentence": self.sentence,
        }


@dataclass(frozen=True)
class Statement:
    """What a certificate is about: see there."""

    name: str
    statement: str
    source: str
    logarithm: bool = False
    # whether the bound may not even be reached
    strict: bool = False

    def checked(
        self, where: str, condition: str, bound: float, measured: float, step: int | None = None
    ) -> Certificate:
        """The statement applies: it holds or it is broken. A measured value that is not a number breaks it."""
        allowed = bound + SLACK * max(abs(bound), 1.0 if self.logarithm else 0.0)
        holds = measured < bound if self.strict else measured <= allowed
        return Certificate(
            name=self.name,
            statement=self.statement,
            source=self.source,
            where=where,
            applies=True,
            condition=condition,
            bound=bound,
            measured=measured,
            holds=bool(holds),
            logarithm=self.logarithm,
            step=step,
        )

    def declined(
        self,
        where: str,
        reason: str,
        condition: str = "",
        bound: float | None = None,
        measured: float | None = None,
    ) -> Certificate:
        """The statement does not apply, for a reason; what was measured is kept as information."""
        return Certificate(
            name=self.name,
            statement=self.statement,
            source=self.source,
            where=where,
            applies=False,
            condition=condition,
            why_not=f"does not apply: {reason}",
            bound=bound if bound is None or math.isfinite(bound) else None,
            measured=measured,
            logarithm=self.logarithm,
        )


def broken(certificates: list[Certificate]) -> list[Certificate]:
    """Those that apply and do not hold."""
    return [c for c in certificates if c.holds is False]
