"""Physics of a stack of layers: one value for all of them, or one for each."""

from __future__ import annotations

from typing import Any

from pendula.cells import Cell


def per_layer(name: str, value: Any, layers: int) -> list[Any]:
    """One value per layer from a list of numbers, or the same value for all."""
    if not isinstance(value, (list, tuple)) or not value or any(isinstance(v, str) for v in value):
        return [value] * layers
    if len(value) != layers:
        raise ValueError(
            f"{name} as a list must have one value per layer ({layers}), got {len(value)}: give one number for all "
            f"layers, or a tensor for one value per unit"
        )
    return list(value)


def one_width(cells: list[Cell], by_layer: list[dict[str, Any]]) -> None:
    """Refuse layers whose states differ in width: each field of a state is one tensor for all layers."""
    widths = zip(*([s.shape[1] for s in cell.initial_state(1)] for cell in cells), strict=True)
    for field, wide in zip(cells[0].State._fields, widths, strict=True):
        if len(set(wide)) > 1:
            lists = {name: [own[name] for own in by_layer] for name in by_layer[0]}
            given = ", ".join(f"{n}={v}" for n, v in lists.items() if len(set(map(str, v))) > 1)
            raise ValueError(
                f"{given} gives the layers different widths of {field} in the state ({min(wide)} to {max(wide)} units),"
                " which is one tensor for all layers: give one number, or take separate layers, one after the other"
            )
