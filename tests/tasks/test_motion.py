"""Other attitudes of a sensor and other speeds of a person."""

import pytest
import torch

from pendula.tasks.chance import generator_for
from pendula.tasks.motion import rotations, stretched, turned, varied


def many(count: int = 2000) -> list[torch.Generator]:
    return [generator_for(k + 1) for k in range(count)]


def angles(matrices: torch.Tensor) -> torch.Tensor:
    """The trace of a rotation is 1 + 2 cos(angle)."""
    trace = matrices.double().diagonal(dim1=1, dim2=2).sum(1)
    return torch.acos(((trace - 1) / 2).clamp(-1, 1)) * 180 / torch.pi


def test_rotations_are_orthogonal_with_determinant_one_and_the_angle_asked_for() -> None:
    axis, degrees = torch.randn(50, 3), torch.rand(50) * 170 + 5
    made = rotations(axis, degrees)
    assert torch.allclose(made @ made.mT, torch.eye(3).expand(50, 3, 3), atol=1e-5)
    assert torch.allclose(torch.linalg.det(made), torch.ones(50), atol=1e-5)
    assert torch.allclose(angles(made).float(), degrees, atol=0.05)
    along = torch.einsum("bij,bj->bi", made, axis)
    assert torch.allclose(along, axis, atol=1e-5)


def test_the_drawn_rotations_have_the_deviation_asked_for() -> None:
    x = torch.eye(3).reshape(3, 1, 3).expand(3, 2000, 3)
    made = varied(x, many(), stretch=0.0, yaw=0.0, rotate=10.0, gravity=slice(0, 3))
    # the three steps of a window are the three axes, so its rows are the columns of its rotation
    assert float(angles(made.permute(1, 2, 0)).square().mean().sqrt()) == pytest.approx(10, rel=0.05)


def test_a_turn_about_gravity_leaves_gravity_where_it_is() -> None:
    x = torch.randn(20, 4, 9)
    x[..., 6:] = torch.tensor([0.3, -0.2, 0.9])
    made = varied(x, many(4), stretch=0.0, yaw=40.0, rotate=0.0, gravity=slice(6, 9))
    assert torch.allclose(made[..., 6:], x[..., 6:], atol=1e-5)
    assert not torch.allclose(made[..., :3], x[..., :3], atol=0.1)


def test_every_triad_of_a_window_is_turned_alike() -> None:
    x = torch.randn(5, 3, 3)
    made = turned(torch.cat((x, 2 * x), -1), rotations(torch.randn(3, 3), torch.full((3,), 50.0)))
    assert torch.allclose(made[..., 3:], 2 * made[..., :3], atol=1e-5)


def test_stretching_follows_the_curve_at_another_speed() -> None:
    time = torch.arange(100.0)
    x = torch.sin(0.2 * time).reshape(-1, 1, 1)
    drawn = torch.tensor([[0.25, 0.5]])
    made = stretched(x, 0.2, drawn)
    speed = 0.9
    start = 0.5 * (99 - speed * 82)
    assert made.shape == (83, 1, 1)
    assert torch.allclose(made[1:-1, 0, 0], torch.sin(0.2 * (start + speed * torch.arange(83.0)))[1:-1], atol=1e-3)


def test_a_speed_of_one_from_the_start_changes_nothing() -> None:
    x = torch.randn(50, 2, 3)
    made = stretched(x, 0.1, torch.tensor([[0.5, 0.0], [0.5, 0.0]]))
    assert torch.allclose(made, x[:45], atol=1e-6)


@pytest.mark.parametrize("drawn", [[0.0, 0.999999], [0.999999, 0.0], [0.999999, 0.999999]])
def test_stretching_stays_within_the_window(drawn: list[float]) -> None:
    x = torch.arange(64.0).reshape(-1, 1, 1)
    made = stretched(x, 0.3, torch.tensor([drawn]))
    assert float(made.min()) >= -1e-4
    assert float(made.max()) <= 63 + 1e-3
