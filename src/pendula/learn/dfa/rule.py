"""Direct feedback alignment, and its hybrids with backpropagation, as a learning rule of `pendula.learn.fit`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast

import torch
from torch import Tensor, nn

from pendula._check import finite_number, one_of, positive_int
from pendula.learn.dfa import aligned, depth, time
from pendula.learn.dfa.depth import BOUNDARIES, SOURCES
from pendula.learn.dfa.feedback import FeedbackSpec
from pendula.learn.dfa.plan import PLANS, Plan, modules_of
from pendula.learn.dfa.store import Feedback
from pendula.learn.dfa.time import TIMES
from pendula.learn.rule import Backward, Carried, Loss, penalties
from pendula.nets import Model
from pendula.nets.recurrent import Recurrent
from pendula.tasks.base import Batch


@dataclass(frozen=True)
class DFA:
    """Direct feedback alignment: errors reach each layer through fixed random maps instead of the transposed weights.

    Three choices that don't depend on one another (spec sheet ``dfa.md`` 3): which layers form a module, how the error
    passes from module to module, and what happens along time. The paper (Han, Park, Ryu and Yoo 2020, arXiv 2006.12830)
    says that the error runs through sparse feedback *within* modules and is combined with backpropagation; which
    of these rules it uses is not known to us, so none is called its method. The read-out always has its true gradient.

    Args:
        plan: "layers" (each alone), "stages" (the modules that the nodes name), "whole" (one), or lists of layers.
        boundary: the error at a module's last layer. "bp": exact, by backpropagation through the modules above;
            "lower": the transposed product of the lowest layer of the module above, with the error that this layer has;
            "dfa": a fixed map from the module above; these three train the other layers of a module by fixed maps.
            "dfa_between": a fixed map of the network's error, and backpropagation inside. "fa": feedback alignment,
            layer by layer through fixed maps in the place of the transposed weights (maps only, plan "layers").
        source: the error that the fixed maps start from: of the "module"'s last layer, or of the network's "output".
            "dfa" and "output" together are direct feedback alignment as Nokland (2016, arXiv 1609.01596) has it.
        time: of recurrent layers. "bptt": exact within each layer. All others need boundary="dfa" and source="output",
            run twice forwards and keep a memory that does not grow with time (but for "fa" and "lags"): "local",
            an error acts at its own step; "broadcast", on all steps before, "discounted", by discount^lag; "kernel", as
            the cell answers an impulse, without the units' influence on one another; "trace", eligibility traces, exact
            in cells without such an influence; "windows", backpropagation within windows; "lags", one map per lag;
            "fa", backwards in time through a fixed matrix.
        discount: of "discounted", in [0, 1].
        window: steps of a window.
        kind, sparsity, pattern, scale, seed: of the feedback weights, `FeedbackSpec`.
        groups: of the feedback convolutions between layers of images, which are 3 x 3 with the distance in layers as
            dilation.

    >>> rule = DFA(plan="whole", boundary="dfa", source="output", sparsity=0.9)
    """

    plan: Plan = "layers"
    boundary: str = "dfa"
    source: str = "output"
    time: str = "bptt"
    discount: float = 0.9
    window: int | None = None
    kind: str = "uniform"
    sparsity: float = 0.0
    pattern: str = "random"
    scale: float = 1.0
    seed: int = 0
    groups: int = 1
    feedback: Feedback = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.plan, str):
            one_of("plan", self.plan, PLANS)
        else:
            if not all(isinstance(part, (list, tuple)) for part in self.plan):
                raise ValueError(f"plan must be one of {', '.join(PLANS)}, or lists of layers' names, got {self.plan}")
            object.__setattr__(self, "plan", tuple(tuple(part) for part in self.plan))
        one_of("boundary", self.boundary, BOUNDARIES)
        one_of("source", self.source, SOURCES)
        one_of("time", self.time, TIMES)
        if not 0 <= finite_number("discount", self.discount) <= 1:
            raise ValueError(f"discount must lie in [0, 1], got {self.discount}")
        if (self.window is not None) != (self.time == "windows"):
            raise ValueError('window says how long the windows of time="windows" are: give both or neither')
        if self.window is not None:
            positive_int("window", self.window)
        positive_int("groups", self.groups)
        if self.time != "bptt" and (self.boundary, self.source) != ("dfa", "output"):
            raise ValueError(
                f'time="{self.time}" sends the network\'s error to every layer: it needs boundary="dfa" and '
                f'source="output", got "{self.boundary}" and "{self.source}"'
            )
        if self.boundary == "fa" and self.plan != "layers":
            raise ValueError('boundary="fa" goes from layer to layer: it needs plan="layers"')
        spec = FeedbackSpec(self.kind, self.sparsity, self.pattern, self.scale, self.seed)
        object.__setattr__(self, "feedback", Feedback(spec, self.groups))

    @classmethod
    def options(cls) -> list[str]:
        """The names of the arguments."""
        return [f.name for f in fields(cls) if f.init]

    def prepare(self, model: nn.Module) -> None:
        """Refuse what this rule can't train. Errors: ValueError that says why and what can be done."""
        model = model_in(model)
        modules_of(model, self.plan)
        layers = {name: layer for name, layer in model.layers.items() if isinstance(layer, Recurrent)}
        if self.boundary == "fa" and (layers or model.embedding is not None):
            raise ValueError('boundary="fa" is for networks of convolutions and linear maps: take time="fa"')
        if self.time == "bptt":
            return
        if not layers:
            raise ValueError(f'time="{self.time}" is for recurrent networks: leave time out')
        if model.embedding is not None and (model.embedding.dropout or model.embedding.token_dropout):
            raise ValueError(
                f'time="{self.time}" runs twice, and the embedding would drop differently: no dropout there'
            )
        for name, layer in model.layers.items():
            if not isinstance(layer, Recurrent) and layer.dropout:
                raise ValueError(f'time="{self.time}" runs twice, and {name} would drop differently: set dropout=0')
        if self.time == "trace" and model.merges:
            raise ValueError('time="trace" does not reach the weights of a merge: take merge="concat" or time="local"')
        for name, layer in layers.items():
            cell = layer.cell(0)
            network = type(cell).__name__.removesuffix("Cell")
            if layer.bidirectional:
                raise ValueError(f'time="{self.time}" runs forwards, and {name} is bidirectional: take time="bptt"')
            if cell.drops_inside and layer.dropout:
                raise ValueError(f'time="{self.time}" runs twice, and {network} would drop differently: set dropout=0')
            if self.time == "kernel" and cell.response(2) is None:
                raise ValueError(
                    f'time="kernel" needs a cell that knows its response, and {network} does not: take CoRNN or '
                    'FastRNN, or time="discounted"'
                )
            if self.time == "trace" and not cell.diagonal:
                raise ValueError(
                    f'time="trace" needs a cell whose units see only themselves, and those of {network} see one '
                    'another: take UnICORNN, or time="kernel" or "local"'
                )
        if self.time == "lags" and model.spec.pool != "last":
            raise ValueError('time="lags" is for one prediction at the end of a sequence: take time="discounted"')
        if self.time in ("trace", "kernel") and len(layers) < len(model.layers):
            raise ValueError(f'time="{self.time}" is for recurrent layers alone: take time="discounted"')

    def windows(self, batch: Batch) -> Iterator[tuple[Batch, Tensor | None]]:
        yield batch, None

    def __call__(
        self, model: nn.Module, batch: Batch, loss: Loss, backward: Backward, state: Carried = None
    ) -> tuple[Tensor, Carried]:
        """Leave a gradient in the parameters of a `pendula.Model`; returns the loss (detached), and no state."""
        inner = model_in(model)
        if self.time == "kernel" and batch.timespans is not None:
            raise ValueError('time="kernel" is for equal steps, and this batch has timespans: take time="local"')
        if self.time == "bptt":
            value = self._by_depth(inner, batch, loss, backward)
        else:
            words = {"time": self.time, "discount": self.discount, "window": self.window}
            value = time.learn(inner, batch, loss, backward, self.feedback, **cast(Any, words))
        penalty = penalties(inner)
        if penalty is not None:
            backward(penalty)
        return value, None

    def _by_depth(self, model: Model, batch: Batch, loss: Loss, backward: Callable[..., Any]) -> Tensor:
        learned = [p for p in model.parameters() if p.requires_grad]
        if self.boundary == "fa":
            value, surrogate = aligned.learn(model, batch, loss, self.feedback)
            backward(surrogate, inputs=learned)
            return value
        reach = self.boundary in ("bp", "lower", "dfa_between")
        run = depth.forward_apart(model, batch, reach=reach)
        value = loss(run.logits, batch)
        error, top = torch.autograd.grad(value * batch.share, (run.logits, run.top), retain_graph=True)
        found = depth.seeds(model, run, error, top, self.feedback, self.plan, self.boundary, self.source)
        terms = [(run.outputs[name] * seed.detach()).sum() for name, seed in found.items()]
        backward(torch.stack([(run.logits * error).sum(), *terms]).sum(), inputs=learned)
        return value.detach()

    def tensors(self) -> dict[str, Tensor]:
        """The feedback weights drawn so far, by name: what a checkpoint holds."""
        return self.feedback.tensors()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on with the feedback weights of a checkpoint."""
        self.feedback.restore(tensors)


@dataclass(frozen=True)
class ReadoutOnly:
    """Only the read-out learns, from its true gradient; the layers stay as they were drawn: what a rule must beat."""

    def prepare(self, model: nn.Module) -> None:
        """Errors: ValueError for what is no `pendula.Model`."""
        model_in(model)

    def windows(self, batch: Batch) -> Iterator[tuple[Batch, Tensor | None]]:
        yield batch, None

    def __call__(
        self, model: nn.Module, batch: Batch, loss: Loss, backward: Backward, state: Carried = None
    ) -> tuple[Tensor, Carried]:
        """Leave a gradient in the parameters of the read-out."""
        inner = model_in(model)
        with torch.no_grad():
            outputs = depth.forward_apart(inner, batch, reach=False).top
        logits = depth.read_out(inner, outputs, batch)
        value = loss(logits, batch)
        backward(value * batch.share)
        return value.detach(), None

    def tensors(self) -> dict[str, Tensor]:
        """None."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Nothing to put back."""


def model_in(module: nn.Module) -> Model:
    """The model within what Lightning Fabric has wrapped. Errors: ValueError if there is none."""
    inner = getattr(module, "module", module)
    if not isinstance(inner, Model):
        raise ValueError(f"this rule trains a pendula.Model, layer by layer, got {type(inner).__name__}")
    return inner
