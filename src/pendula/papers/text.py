"""The tables of published and measured numbers as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from pendula.papers.paper import SETTINGS, TAGS, Paper, Table, read_papers
from pendula.papers.rows import HEAD, Row


def grouped(rows: Sequence[Row]) -> list[tuple[Paper, list[tuple[Table, list[Row]]]]]:
    """The rows by paper, and within it by table, in the order of the files."""

    def by_table(own: list[Row]) -> list[tuple[Table, list[Row]]]:
        names = list(dict.fromkeys(row.entry.table.name for row in own))
        parts = [[row for row in own if row.entry.table.name == name] for name in names]
        return [(part[0].entry.table, part) for part in parts]

    papers = read_papers()
    parts = [(name, list(own)) for name, own in groupby(rows, key=lambda row: row.entry.paper)]
    return [(papers[name], by_table(own)) for name, own in parts]


def markdown(rows: Sequence[Row]) -> str:
    """All rows, a section per paper and a table per problem, with what the columns mean."""
    lines = ["# Published and measured", "", *[line for words in legend() for line in (words, "")]]
    for paper, tables in grouped(rows):
        lines += [f"## {paper.title}", "", source(paper), ""]
        for table, own in tables:
            lines += [f"### {table.title}", ""]
            if table.note:
                lines += [table.note, ""]
            lines += ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
            lines += ["| " + " | ".join(row.cells()) + " |" for row in own]
            said = notes(own)
            lines += ["", *said, ""] if said else [""]
    return "\n".join(lines).rstrip() + "\n"


def source(paper: Paper) -> str:
    """Who, when, where, and what holds for all of its numbers."""
    code = f"; code: {paper.code}" if paper.code else ""
    return f"{paper.authors} {paper.year}, {paper.source}{code}. {paper.note}".rstrip()


def notes(rows: Sequence[Row]) -> list[str]:
    """What has to be said about single rows, as lines of a list."""
    said = [(row.entry, " ".join(filter(None, (_sentence(row.entry.missing), row.entry.note)))) for row in rows]
    return [f"- {entry.id}: {words}" for entry, words in said if words]


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}." if words else ""


def legend() -> list[str]:
    """What the columns mean, in paragraphs."""
    tags = "; ".join(f"[{tag}] {words}" for tag, words in TAGS.items())
    settings = "; ".join(f"{name}: {words}" for name, words in SETTINGS.items())
    return [
        "Measured: mean and standard deviation over seeds of the test metric, at the epoch of the best validation "
        "metric unless the paper takes the last. Share: how much of the schedule was run. Data: exact, or what it is.",
        f"How a published number is known: {tags}.",
        f"Settings: {settings}.",
    ]


def summary(rows: Sequence[Row]) -> str:
    """One short table of what was run."""
    head = "| problem | network | published | measured | seeds | share of the schedule | data |"
    lines = [
        f"| {row.entry.table.title} | {cells[0]} | {cells[1]} | {cells[2]} | {cells[3]} | {cells[4]} | {cells[7]} |"
        for row in rows
        if row.results
        for cells in [row.cells()]
    ]
    return "\n".join([head, "|---|---|---|---|---|---|---|", *lines])
