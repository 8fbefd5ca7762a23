"""A frozen network with a read-out in closed form: the baseline that says what training the recurrence brings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.functional import one_hot

from pendula import _check
from pendula.nets.model import Model
from pendula.nets.scan import valid_steps
from pendula.nets.spec import ModelSpec, Node


class Reservoir:
    """A model whose recurrent weights stay as they were drawn; its read-out is one ridge regression.

        (R, r) = argmin  sum_k |R x_k + r - y_k|^2 + ridge |R|^2,   x_k: what the read-out sees of example k

    With `CoRNN` it is a network of randomly coupled oscillators (Ceni et al., AISTATS 2024, and echo state networks,
    Jaeger 2001: recalled, not re-read; the algebra is textbook ridge regression). One pass over the data, no gradients.
    The sums are running means and centred products in float64: their memory does not grow with the data, and order and
    size of the batches change the result by rounding only.

    Args:
        spec: the model. pool "last" and "mean" give one example per sequence, "steps" one per valid step.
        ridge: weight of the penalty, at least 0, added to the sum over all examples; the bias r is not penalised.
        washout: first steps of each sequence that pool "steps" does not learn from.
        backend, device, dtype: as in `pendula.Model`.

    `model` is an ordinary `pendula.Model` in evaluation mode: it is called, evaluated, saved and loaded as any other.
    Draw another reservoir with another `torch.manual_seed`; the scale of its weights is the physics of its network.

    Errors: ValueError for a negative ridge or washout, or a washout where no steps are read.

    >>> reservoir = Reservoir.of("CoRNN", 1, 2, 16, dt=0.1)
    >>> x, y = torch.rand(20, 30, 1), torch.arange(30) % 2
    >>> reservoir.fit([(x, y)]).model(x)[0].shape
    torch.Size([30, 2])
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        ridge: float = 1e-6,
        washout: int = 0,
        backend: str = "auto",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        self.ridge = _check.finite_number("ridge", ridge)
        if self.ridge < 0:
            raise ValueError(f"ridge must be at least 0, got {ridge!r}")
        self.washout = _check.positive_int("washout", washout, least=0)
        if self.washout and spec.pool != "steps":
            raise ValueError(
                f"washout drops steps of a read-out at every step, but the spec pools {spec.pool!r}: "
                "take washout=0, or pool='steps'"
            )
        if spec.vocabulary is not None:
            raise ValueError("a reservoir reads numbers, not tokens: embed them first, and leave vocabulary out")
        self.model = Model(spec, backend=backend, device=device, dtype=dtype).eval()
        self.model.layers.requires_grad_(False)
        self.model.merges.requires_grad_(False)

    @classmethod
    def of(
        cls,
        network: str,
        input_size: int,
        output_size: int,
        hidden_size: int,
        *,
        pool: str = "last",
        num_layers: int = 1,
        ridge: float = 1e-6,
        washout: int = 0,
        backend: str = "auto",
        device: Any = None,
        dtype: Any = None,
        **physics: Any,
    ) -> Reservoir:
        """A reservoir of one network, named as in `pendula.LAYERS`, with its physics."""
        spec = ModelSpec(
            input_size, output_size, (Node(network, hidden_size, num_layers=num_layers, physics=physics),), pool=pool
        )
        return cls(spec, ridge=ridge, washout=washout, backend=backend, device=device, dtype=dtype)

    @torch.no_grad()
    def fit(self, batches: Iterable[Any]) -> Reservoir:
        """Solve for the read-out, in one pass over the batches; what an earlier `fit` found is replaced.

        Args:
            batches: tuples ``(x, y)``, ``(x, y, lengths)`` or ``(x, y, lengths, timespans)``, or anything with these
                attributes, such as the batches of a task; they are moved to the model's device and floating type. x is
                (T, B, I). Whole numbers y, (B,) or (T, B), are classes: the read-out learns 1 for the class and 0 for
                the others (one output: 1 and -1, the sign of a log-odds). Floating y, (B, C) or (T, B, C), are values;
                without C where it is 1.

        Errors: ShapeError, TypeError or ValueError naming the batch's tensor, before the network runs over that batch;
        ValueError where there is nothing to learn from, or no unique answer (ridge=0 and dependent features).
        """
        if isinstance(batches, (tuple, Tensor)) or hasattr(batches, "x"):
            raise TypeError("batches must be a list or an iterator of batches: put a single one into a list")
        readout = self.model.readout
        examples = Moments(readout.in_features, readout.out_features, readout.weight)
        for batch in batches:
            x, y, lengths, timespans = _parts(batch)
            if isinstance(x, Tensor) and x.is_floating_point():
                x = x.to(readout.weight)
            _check.sequence_input(x, self.model.spec.input_size, readout.weight)
            if lengths is not None:
                lengths = _check.lengths_of(lengths, x.shape[0], x.shape[1], x.device)
            kept = self._kept(x, lengths)
            target = self._target(y, x, kept)
            features = self._features(x, lengths, timespans)
            examples.add((features if kept is None else features[kept]).double(), target)
        weight, bias = examples.solve(self.ridge)
        readout.weight.copy_(weight)
        readout.bias.copy_(bias)
        return self

    def _features(self, x: Tensor, lengths: Tensor | None, timespans: Any) -> Tensor:
        """What the read-out sees: the output of the model with the identity in the read-out's place."""
        readout = self.model.readout
        identity = torch.eye(readout.in_features, dtype=readout.weight.dtype, device=readout.weight.device)
        seen = {"readout.weight": identity, "readout.bias": identity.new_zeros(readout.in_features)}
        features: Tensor = functional_call(self.model, seen, (x,), {"lengths": lengths, "timespans": timespans})[0]
        if not bool(features.isfinite().all()):
            raise ValueError("the network's outputs are not finite: take a smaller time step, or scale the inputs")
        return features

    def _kept(self, x: Tensor, lengths: Tensor | None) -> Tensor | None:
        """(T, B), true at the steps to learn from; None where the read-out sees one vector per sequence."""
        if self.model.spec.pool != "steps":
            return None
        steps, batch = x.shape[:2]
        after = (torch.arange(steps, device=x.device) >= self.washout).unsqueeze(1).expand(steps, batch)
        return after if lengths is None else after & valid_steps(lengths, steps)

    def _target(self, y: Any, x: Tensor, kept: Tensor | None) -> Tensor:
        """(K, C) in float64, one row per example; what y holds in the padding is not looked at."""
        outputs = self.model.spec.output_size
        if not isinstance(y, Tensor):
            raise TypeError(f"y must be a tensor, got {type(y).__name__}: convert with torch.as_tensor(y)")
        lead = tuple(x.shape[1:2]) if kept is None else tuple(x.shape[:2])
        classes = not y.is_floating_point()
        needed = [lead] if classes else [(*lead, outputs)] + [lead] * (outputs == 1)
        if tuple(y.shape) not in needed:
            kind = "classes (whole numbers)" if classes else "values"
            hint = ": call y.float() if these are values" if classes else ""
            raise _check.ShapeError(
                f"y must be {' or '.join(map(str, needed))} for {kind} with pool={self.model.spec.pool!r}, "
                f"got {tuple(y.shape)}{hint}"
            )
        aim: Tensor = y.to(x.device)
        aim = aim if kept is None else aim[kept]
        if not classes:
            if not bool(aim.isfinite().all()):
                raise ValueError("y must be finite: leave out the sequences without a target")
            return aim.reshape(-1, outputs).double()
        count = max(outputs, 2)
        if aim.numel() and (int(aim.min()) < 0 or int(aim.max()) >= count):
            raise ValueError(f"y must hold classes from 0 to {count - 1}, got {int(aim.min())} to {int(aim.max())}")
        if outputs == 1:
            return 2 * aim.double().unsqueeze(-1) - 1
        chosen: Tensor = one_hot(aim.long(), outputs)
        return chosen.double()


class Moments:
    """Means and centred products of features x (K, F) and targets y (K, C), gathered batch by batch in float64.

    Centred from the start, as a sum of squares minus the square of the mean would lose half the digits.
    """

    def __init__(self, features: int, outputs: int, like: Tensor) -> None:
        zeros = like.new_zeros(features, features, dtype=torch.float64)
        self.count = 0
        self.mean_x, self.mean_y = zeros[0].clone(), zeros.new_zeros(outputs)
        self.xx, self.xy = zeros, zeros.new_zeros(features, outputs)

    def add(self, x: Tensor, y: Tensor) -> None:
        if not len(x):
            return
        mean_x, mean_y = x.mean(0), y.mean(0)
        dx, dy = mean_x - self.mean_x, mean_y - self.mean_y
        total = self.count + len(x)
        x, share = x - mean_x, self.count * len(x) / total
        self.xx += x.T @ x + share * torch.outer(dx, dx)
        self.xy += x.T @ (y - mean_y) + share * torch.outer(dx, dy)
        self.mean_x += dx * (len(x) / total)
        self.mean_y += dy * (len(x) / total)
        self.count = total

    def solve(self, ridge: float) -> tuple[Tensor, Tensor]:
        """Weight (C, F) and bias (C,) of the ridge regression, by Cholesky."""
        if not self.count:
            raise ValueError("batches hold nothing to learn from: no batch, or every step is washed out")
        penalty = ridge * torch.eye(len(self.xx), dtype=torch.float64, device=self.xx.device)
        factor, failed = torch.linalg.cholesky_ex(self.xx + penalty)
        edge = factor.diagonal()
        # without a penalty, what is left of a dependent feature after elimination is rounding
        rounding = len(edge) * torch.finfo(torch.float64).eps * self.xx.diagonal().max()
        if int(failed) or (not ridge and bool((edge.square() <= rounding).any())):
            raise ValueError(
                f"{self.count} examples do not fix {len(edge)} read-out weights with ridge={ridge!r} (features depend "
                "on one another): give a larger ridge"
            )
        weight = torch.cholesky_solve(self.xy, factor).T
        return weight, self.mean_y - weight @ self.mean_x


def _parts(batch: Any) -> tuple[Any, Any, Any, Any]:
    if all(hasattr(batch, name) for name in ("x", "y")):
        return batch.x, batch.y, getattr(batch, "lengths", None), getattr(batch, "timespans", None)
    if isinstance(batch, (tuple, list)) and 2 <= len(batch) <= 4:
        x, y, lengths, timespans = (*batch, None, None)[:4]
        return x, y, lengths, timespans
    got = f"{type(batch).__name__}" + (f" of {len(batch)}" if isinstance(batch, (tuple, list)) else "")
    raise TypeError(f"a batch must be (x, y, lengths=None, timespans=None) or have x and y as attributes, got {got}")
