"""The page of published and measured numbers: one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from pendula.papers.curves import curves
from pendula.papers.paper import Paper, Table
from pendula.papers.rows import HEAD, Row
from pendula.papers.text import grouped, legend, notes, source

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fdfdfb; --rule: #c9c9c4; --soft: #5c5c58; --done: #eaf3ea; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e6e1; --paper: #161616; --rule: #454545; --soft: #a6a39c; --done: #1d2b20; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 74rem; padding: 1rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; }
h2 { font-size: 1.25rem; margin-top: 2.5rem; } h3 { font-size: 1.05rem; margin-bottom: .3rem; }
.soft { color: var(--soft); font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--rule); text-align: left; white-space: nowrap; }
td:last-child { white-space: normal; min-width: 14rem; color: var(--soft); }
td:nth-child(2), td:nth-child(3) { font-variant-numeric: tabular-nums; }
tr.run { background: var(--done); } tr.run td:nth-child(3) { font-weight: 600; }
figure { margin: 1rem 0; max-width: 40rem; } figure > svg { width: 100%; height: auto; }
figcaption { font-size: .9rem; color: var(--soft); }
svg text { font: 11px system-ui, sans-serif; fill: currentColor; } svg .grid { stroke: var(--rule); stroke-width: .6; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: 0; margin: .2rem 0;
  font-size: .85rem; }
label { display: inline-block; padding: .4rem 0; }
#measured:checked ~ main .unrun { display: none; }
"""


def page(rows: Sequence[Row]) -> str:
    """A whole HTML document: a table per problem, learning curves, and a switch that hides what was not run."""
    run = sum(bool(row.results) for row in rows)
    published = sum(row.entry.published is not None for row in rows)
    sections = "".join(_paper(paper, tables) for paper, tables in grouped(rows))
    words = "".join(f"<p>{escape(line)}</p>" for line in legend())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>pendula: published and measured</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n<body>'
        f"<h1>Published and measured</h1><p>{published} published numbers; {run} of {len(rows)} rows were run.</p>"
        '<input type="checkbox" id="measured"> <label for="measured">only what was run</label>\n'
        f'<main>{sections}</main><footer class="soft">{words}</footer></body></html>\n'
    )


def _paper(paper: Paper, tables: Sequence[tuple[Table, Sequence[Row]]]) -> str:
    unrun = "" if any(row.results for _, rows in tables for row in rows) else ' class="unrun"'
    body = "".join(_table(table, rows) for table, rows in tables)
    return (
        f'<section id="{escape(paper.name)}"{unrun}><h2>{escape(paper.title)}</h2>'
        f'<p class="soft">{escape(source(paper))}</p>{body}</section>\n'
    )


def _table(table: Table, rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{name}</th>" for name in HEAD)
    body = "".join(_row(row) for row in rows)
    said = "".join(f"<li>{escape(line.removeprefix('- '))}</li>" for line in notes(rows))
    unrun = "" if any(row.results for row in rows) else ' class="unrun"'
    return (
        f'<div{unrun}><h3>{escape(table.title)}</h3><p class="soft">{escape(table.note)}</p><div class="wide"><table>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{curves(rows)}"
        + (f'<details class="soft"><summary>notes</summary><ul>{said}</ul></details>' if said else "")
        + "</div>\n"
    )


def _row(row: Row) -> str:
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in row.cells())
    return f'<tr class="{"run" if row.results else "unrun"}" id="{escape(row.entry.name)}">{cells}</tr>'
