"""Published experiments as data: one TOML file per paper, one entry per published number."""

from pendula.papers.paper import Entry, Paper, Shape, Table, find, read_papers

__all__ = ["Entry", "Paper", "Shape", "Table", "find", "read_papers"]
