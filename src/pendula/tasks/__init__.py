"""Data, loss and metric of each problem. The table TASKS is read off the imports: name of the task -> its class."""

from pendula.tasks.base import Batch, Sequences, Task
from pendula.tasks.files import Files
from pendula.tasks.images import PSMNIST, SMNIST, Digits
from pendula.tasks.series import HAR2, HAR6
from pendula.tasks.synthetic import Adding, Copying

TASKS: dict[str, type[Task]] = dict(
    sorted(
        (value.name, value)
        for value in globals().values()
        if isinstance(value, type) and issubclass(value, Task) and value is not Task
    )
)

__all__ = [
    "HAR2",
    "HAR6",
    "PSMNIST",
    "SMNIST",
    "TASKS",
    "Adding",
    "Batch",
    "Copying",
    "Digits",
    "Files",
    "Sequences",
    "Task",
]
