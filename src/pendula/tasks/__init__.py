"""Data, loss and metric of each problem. The table TASKS is read off the imports: name of the task -> its class."""

from pendula.tasks.activity import Activity
from pendula.tasks.archive import Archive, EigenWorms
from pendula.tasks.audio import SpokenDigits
from pendula.tasks.base import Batch, Sequences, Task
from pendula.tasks.bidmc import BIDMCHeartRate, BIDMCOxygen, BIDMCRespiratoryRate
from pendula.tasks.characters import Characters
from pendula.tasks.cifar import SCIFAR10, NoisyCIFAR10
from pendula.tasks.dynamics import FitzHughNagumo, Lorenz96, MackeyGlass
from pendula.tasks.files import Files
from pendula.tasks.images import PSMNIST, SMNIST, Digits
from pendula.tasks.imdb import IMDB
from pendula.tasks.music import Music
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
    "IMDB",
    "PSMNIST",
    "SCIFAR10",
    "SMNIST",
    "TASKS",
    "Activity",
    "Adding",
    "Archive",
    "BIDMCHeartRate",
    "BIDMCOxygen",
    "BIDMCRespiratoryRate",
    "Batch",
    "Characters",
    "Copying",
    "Digits",
    "EigenWorms",
    "Files",
    "FitzHughNagumo",
    "Lorenz96",
    "MackeyGlass",
    "Music",
    "NoisyCIFAR10",
    "Sequences",
    "SpokenDigits",
    "Task",
]
