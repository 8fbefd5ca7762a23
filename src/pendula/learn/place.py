"""Where a training runs: processes, devices, and what the processor does with tiny numbers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric

from pendula.learn.training import Training


def make_fabric(training: Training) -> Fabric:
    """The processes and devices of a run, started. Under torchrun or `fabric run` it joins theirs."""
    # a launcher that started this process among others says so in its environment
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", training.devices))
    nodes = int(os.environ.get("WORLD_SIZE", processes)) // processes
    fabric = Fabric(
        accelerator=training.accelerator,
        devices=processes,
        num_nodes=nodes,
        strategy="auto" if processes * nodes == 1 else "ddp",
        # Fabric's 64-true rounds outputs to float32; the model itself is made float64 instead (in `fit`)
        precision="32-true" if training.precision == "64-true" else training.precision,
    )
    # `fabric run` has launched it already, and says so
    if os.environ.get("LT_CLI_USED", "0") == "0":
        fabric.launch()
    return fabric


@contextmanager
def denormals_flushed(device: torch.device) -> Iterator[None]:
    """Vanishing gradients become zero instead of denormals, with which a CPU is up to 18 times slower."""
    # the setting can't be asked for: see what becomes of half the smallest normal number
    tiny = torch.tensor([torch.finfo(torch.float32).tiny])
    already = bool((tiny * 0.5 == 0).item())
    if device.type == "cpu":
        torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)
