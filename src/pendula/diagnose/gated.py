"""What is proven of LEM, LSTM and FastRNN."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import linear

from pendula.cells import FastRNNCell, LEMCell, LSTMCell
from pendula.diagnose.certificate import Certificate, Statement
from pendula.diagnose.trajectory import Observer, Stretch, Worst
from pendula.math.stability import lstm_matrix

MEANS = Statement(
    "state",
    "|y_n|, |z_n| <= 1 - prod (1 - dt) from rest, for dt <= 1: both are weighted means of the past and of numbers up "
    "to 1.",
    "derived at this library's LEMCell",
)
CONTRACTS = Statement(
    "C10: contraction",
    "Two states under one input approach each other where the matrix P with (|dc+|, |dh+|) <= P (|dc|, |dh|) in "
    "maximum norms has a spectral radius below 1. Measured: that radius for the Jacobians at the points looked at.",
    "odernn.md C10 [R]",
)
CONDITION = Statement(
    "condition of a step",
    "The condition number of a step's Jacobian is at most (1 + r)/(1 - r), r = sigmoid(alpha)/sigmoid(beta) |U|_2 < 1 "
    "(at the points looked at).",
    "baselines.md 1.6 [P]",
)


class LEMObserver(Observer[LEMCell]):
    def __init__(self, cell: LEMCell, where: str, stored: torch.dtype) -> None:
        super().__init__(cell, where, stored)
        self.state, self.dt = Worst(), cell.dt.expand(cell.hidden_size)

    def begin(self, x: Tensor, lengths: Tensor | None, tau: Tensor | None) -> None:
        super().begin(x, lengths, tau)
        self.left = torch.ones(x.shape[1], self.cell.hidden_size, dtype=x.dtype)

    def see(self, stretch: Stretch) -> None:
        spans = torch.ones_like(stretch.runs, dtype=self.dt.dtype).unsqueeze(-1)
        h = self.dt * (spans if stretch.tau is None else stretch.tau)
        left = self.left * (1 - h).cumprod(0)
        for s in stretch.after:
            self.state.see(1 - left, s.abs(), stretch.runs, stretch.first)
        self.left = left[-1]

    def certificates(self) -> list[Certificate]:
        longest = float(self.dt.max()) * self.longest
        condition = f"dt <= {longest:.4g}{self.spans}"
        if longest > 1:
            return [MEANS.declined(self.where, f"dt <= 1 fails, it is up to {longest:.4g}{self.spans}", condition)]
        return [self.state.certificate(MEANS, self.where, condition)]


class LSTMObserver(Observer[LSTMCell]):
    def __init__(self, cell: LSTMCell, where: str, stored: torch.dtype) -> None:
        super().__init__(cell, where, stored)
        rnn, n = cell.rnn, cell.hidden_size
        self.U = rnn.get_parameter("weight_hh_l0").detach()
        self.W_f = rnn.get_parameter("weight_ih_l0").detach()[n : 2 * n]
        biases = [p.detach()[n : 2 * n] for name, p in rnn.named_parameters() if name.startswith("bias")]
        # |h| < 1, so this is what the recurrence adds at most
        self.most = self.U[n : 2 * n].abs().sum(1) + sum(biases, torch.zeros(n, dtype=self.U.dtype))
        self.forget = 0.0
        self.blocks = torch.zeros(2, 2, dtype=self.U.dtype)

    def see(self, stretch: Stretch) -> None:
        gate = torch.sigmoid(linear(stretch.drive, self.W_f) + self.most)
        self.forget = max(self.forget, float((gate * stretch.runs.unsqueeze(-1)).max()))
        n = self.cell.hidden_size
        for point in self.points(stretch, stretch.runs.shape[1]):
            J = self.jacobian(point)
            # a state is (h, c), and the sheet's order is (c, h)
            rows = [[J[:, i : i + n, j : j + n].abs().sum(-1).amax() for j in (n, 0)] for i in (n, 0)]
            self.blocks = torch.maximum(self.blocks, torch.tensor(rows, dtype=J.dtype))

    def certificates(self) -> list[Certificate]:
        condition = f"forget gate at most {self.forget:.6g}"
        if not self.forget < 1:
            return [CONTRACTS.declined(self.where, "the forget gate can be 1", condition)]
        bound, measured = (
            float(torch.linalg.eigvals(P).abs().max()) for P in (lstm_matrix(self.U, self.forget), self.blocks)
        )
        if bound >= 1:
            reason = f"the spectral radius of P is {bound:.4g}, at least 1: nothing is proven"
            return [CONTRACTS.declined(self.where, reason, condition, None, measured)]
        return [CONTRACTS.checked(self.where, condition, bound, measured)]


class FastRNNObserver(Observer[FastRNNCell]):
    def __init__(self, cell: FastRNNCell, where: str, stored: torch.dtype) -> None:
        super().__init__(cell, where, stored)
        with torch.no_grad():
            U = cell.times("U", cell.rank_u, torch.eye(cell.hidden_size, dtype=cell.alpha.dtype))
            share = torch.sigmoid(cell.alpha) / torch.sigmoid(cell.beta)
            self.r = float(share * torch.linalg.matrix_norm(U, 2))
        self.condition = Worst()

    def see(self, stretch: Stretch) -> None:
        for point in self.points(stretch, stretch.runs.shape[1]):
            J = self.jacobian(point)
            if self.r < 1 and bool(J.isfinite().all()):
                values = torch.linalg.svdvals(J)
                bound = torch.tensor((1 + self.r) / (1 - self.r), dtype=J.dtype)
                self.condition.see(bound, values[:, 0] / values[:, -1])

    def certificates(self) -> list[Certificate]:
        words = f"r = {self.r:.4g}"
        if not self.r < 1:
            return [CONDITION.declined(self.where, f"r < 1 fails, {words}", words)]
        return [self.condition.certificate(CONDITION, self.where, words)]
