"""Small sets in the form of the UCR and UEA archives, for tests."""

from __future__ import annotations

import io
import zipfile

import numpy

Half = tuple[list[numpy.ndarray], list[str]]


def half(seed: int, labels: list[str], lengths: list[int], channels: int = 2) -> Half:
    """Series (T, I) in float32, so that text gives them back, and their labels."""
    draw = numpy.random.default_rng(seed)
    return [draw.normal(size=(steps, channels)).astype(numpy.float32) for steps in lengths], labels


def number(value: numpy.float32) -> str:
    return "?" if numpy.isnan(value) else f"{value:.9g}"


def ts(half: Half, header: str = "@classLabel true a b c") -> str:
    series, labels = half
    lines = [":".join(",".join(map(number, column)) for column in x.T) for x in series]
    rows = [f"{line}:{label}" for line, label in zip(lines, labels, strict=True)]
    return "\n".join(["# a set", "@problemName Small", "@univariate false", header, "@data", *rows, ""])


def relational_arff(half: Half, classes: str = "{a,b,c}") -> str:
    """Dimensions in quotes; series padded with ? to the longest, as the archives do."""
    series, labels = half
    steps = max(map(len, series))
    lines = []
    for x, label in zip(series, labels, strict=True):
        padded = numpy.full((steps, x.shape[1]), numpy.nan, numpy.float32)
        padded[: len(x)] = x
        lines.append("'" + "\\n".join(",".join(map(number, column)) for column in padded.T) + f"',{label}")
    inner = [f"    @attribute att{k} numeric" for k in range(steps)]
    head = ["% a set", "@relation 'Small'", "@attribute relationalAtt relational", *inner, "@end relationalAtt"]
    return "\n".join([*head, f"@attribute activity {classes}", "", "@data", *lines, ""])


def zipped(files: dict[str, str]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in files.items():
            file.writestr(name, text)
    return packed.getvalue()


TRAIN = half(1, list("aabbccaabbcc"), [3, 5, 4, 2, 5, 3, 3, 5, 4, 2, 5, 3])
TEST = half(2, list("abcabc"), [2, 6, 3, 4, 1, 2])
