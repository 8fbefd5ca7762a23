"""The page of a diagnosis: one HTML file that loads nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from pendula.diagnose import pictures
from pendula.diagnose.alignment import LayerAngle, RuleReport
from pendula.diagnose.certificate import Certificate
from pendula.diagnose.diagnosis import Diagnosis
from pendula.diagnose.drawing import Picture
from pendula.diagnose.gradients import GradientFlow
from pendula.diagnose.spectrum import LayerSpectrum

# layers and directions whose pictures stand on a page; the numbers of all are in the JSON file
PICTURED = 6

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fdfdfb; --rule: #c9c9c4; --soft: #5c5c58;
  --holds: #00684a; --broken: #a83c00; --box: #f1f1ec; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e6e1; --paper: #161616; --rule: #454545; --soft: #a6a39c;
    --holds: #5fd0a8; --broken: #ff9a63; --box: #222220; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 74rem; padding: 1rem; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; margin-bottom: .3rem; } h2 { font-size: 1.25rem; margin: 0; display: inline; }
h3 { font-size: 1.05rem; margin: 1.2rem 0 .3rem; }
.soft, footer { color: var(--soft); font-size: .9rem; }
#verdict { background: var(--box); border-left: .3rem solid var(--rule); padding: .5rem 1rem; }
#verdict.broken { border-color: var(--broken); } #verdict p { margin: .3rem 0; }
details { border-top: 1px solid var(--rule); padding: .6rem 0; }
summary { cursor: pointer; padding: .3rem 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem; margin: .5rem 0; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; }
th, td { padding: .4rem .6rem; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
td:first-child { width: 38%; } td:nth-child(2) { white-space: nowrap; }
td.number { font-variant-numeric: tabular-nums; }
.holds { color: var(--holds); font-weight: 600; } .broken { color: var(--broken); font-weight: 600; }
#verdict.broken { color: var(--ink); font-weight: 400; }
td small { display: block; color: var(--soft); }
.pictures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 0 1.5rem; }
figure { margin: 1rem 0; max-width: 36rem; min-width: 0; }
figure > svg { width: 100%; height: auto; display: block; }
figure svg text { font-family: system-ui, sans-serif !important; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { font-size: .9rem; color: var(--soft); }
@media (max-width: 44rem) {
  thead { display: none; } table, tbody, tr, td { display: block; }
  tr { border-bottom: 1px solid var(--rule); padding: .4rem 0; } td { border: 0; padding: .1rem 0; }
  td[data-of]::before { content: attr(data-of) ": "; color: var(--soft); }
  td:first-child { width: auto; } dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; }
}
"""
HEAD = ("statement", "verdict", "measured", "bound", "share used", "why")


def page(found: Diagnosis) -> str:
    """A whole HTML document: verdict, certificates, gradients and advice, spectrum, portraits.

    Errors: ImportError where matplotlib is missing.
    """
    name = str(found.about.get("run", "a network"))
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in found.notes)
    verdict = "".join(f"<p>{escape(sentence)}</p>" for sentence in found.verdict)
    failed = any(c.holds is False for c in found.certificates) or found.uncertified is not None
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>pendula: diagnosis of {escape(name)}</title>"
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n<body>'
        f'<h1>Diagnosis of {escape(name)}</h1><p id="subject" class="soft">{escape(_subject(found))}</p>\n'
        f'<section id="verdict"{" class=broken" if failed else ""}>{verdict}</section>{notes}\n<main>'
        f"{''.join(_part(*part) for part in _parts(found))}</main>\n"
        f"<footer><p>{'' if found.gradients is None else PROVEN}{NUMBERS}</p></footer></body></html>\n"
    )


PROVEN = (
    "A statement is proven under its conditions, which were looked at with the weights and the batch of this page; "
    "measured is the largest value seen, in float64. "
)
NUMBERS = "All numbers stand in diagnosis.json beside this page."


def _parts(found: Diagnosis) -> Iterator[tuple[str, str, str]]:
    """Name, title and body of each part that there is something to say in."""
    flow = found.gradients
    if flow is not None:
        yield "certificates", "Certificates", _certificates(found)
        yield "gradients", "Gradients, and what to change", _gradients(found, flow)
    if found.learning is not None:
        yield "learning", "Learning rule", _learning(found.learning)
    if flow is not None:
        yield "spectrum", "Spectrum of the steps", _spectrum(found)
        yield "portraits", "Portraits of the trajectory", _portraits(found)
    yield "about", "What was looked at, where and when", _facts(found)


def _part(name: str, title: str, body: str) -> str:
    return f'<details id="{name}" open><summary><h2>{title}</h2></summary>{body}</details>\n'


def _subject(found: Diagnosis) -> str:
    """The one line under the title: network, batch and commit."""
    named = {"network": "", "batch": "on ", "commit": "looked at with commit "}
    return ", ".join(f"{word}{found.about[key]}" for key, word in named.items() if found.about.get(key))


def _facts(found: Diagnosis) -> str:
    rows = [
        (key, ", ".join(f"{k} {v}" for k, v in value.items() if v) if isinstance(value, dict) else value)
        for key, value in found.about.items()
    ]
    return "<dl>" + "".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in rows) + "</dl>"


def _certificates(found: Diagnosis) -> str:
    if found.uncertified:
        return f"<p>{escape(found.uncertified)}.</p>"
    places = dict.fromkeys(c.where for c in found.certificates)
    tables = (_table(place, [c for c in found.certificates if c.where == place]) for place in places)
    words = "A bound whose conditions fail does not apply; that is no pass, and its numbers are information only."
    return f'<p class="soft">{words}</p>{"".join(tables)}'


def _table(place: str, rows: Sequence[Certificate]) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in HEAD)
    body = "".join(_row(c) for c in rows)
    return f"<h3>{escape(place)}</h3><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(c: Certificate) -> str:
    kind = {"holds": "holds", "broken": "broken"}.get(c.verdict, "none")
    at = "" if c.step is None else f" at step {c.step}"
    why = c.condition if c.why_not is None else c.why_not.removeprefix("does not apply: ")
    cells = (("measured", _number(c.measured) + (at if c.measured is not None else "")), ("bound", _number(c.bound)))
    share = "" if c.used is None else f"{c.used:.2%}" if 1e-4 <= c.used < 10 else f"{c.used:.2g}"
    numbers = "".join(
        f'<td class="number" data-of="{name}">{escape(text)}</td>' if text else "<td></td>"
        for name, text in (*cells, ("share used", share))
    )
    return (
        f'<tr class="{kind}-row"><td><b>{escape(c.name)}</b><small>{escape(c.statement)}</small></td>'
        f'<td class="{kind}">{c.verdict}</td>{numbers}<td>{escape(why)}<small>{escape(c.source)}</small></td></tr>'
    )


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _gradients(found: Diagnosis, flow: GradientFlow) -> str:
    said = "".join(f"<li>{escape(sentence)}</li>" for sentence in flow.sentences)
    advice = "".join(
        f"<li>{escape(a.layer)}: <b>{escape(a.what)}</b>, because {escape(a.because)}. "
        f'<span class="soft">[{escape(a.source)}]</span></li>'
        for a in found.advice
    )
    changes = f'<h3>What to change</h3><ul id="advice">{advice}</ul>'
    none = '<p id="advice">Nothing was found that should be changed for the sake of gradients.</p>'
    return f"<ul>{said}</ul>{changes if advice else none}{_figures([pictures.gradient_picture(flow)])}"


def _learning(report: RuleReport) -> str:
    words = (
        "The angle between the update of this rule and that of backpropagation, and the norm of the first over that of "
        "the second: on the batch of this page, with the weights of now, dropout and normalisation as in training. On "
        "few sequences angles scatter; --sequences takes more."
    )
    head = "".join(f'<th scope="col">{name}</th>' for name in ("layer", "angle", "ratio of norms", "what it means"))
    body = "".join(_angle(layer) for layer in report.layers)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    picture = pictures.alignment_picture(report)
    never = "<p>No angle was measured during the training: <code>--train.align N</code> does so every N batches.</p>"
    drawn = never if picture is None else _figures([picture])
    return f'<p>Trained by {escape(report.rule)}.</p><p class="soft">{words}</p>{table}{drawn}'


def _angle(layer: LayerAngle) -> str:
    kind = {True: "holds", False: "broken", None: "none"}[layer.lowers]
    degrees = "" if layer.degrees is None else f"{layer.degrees:.1f} degrees"
    numbers = "".join(
        f'<td class="number" data-of="{name}">{text}</td>' if text else "<td></td>"
        for name, text in (("angle", degrees), ("ratio of norms", _number(layer.ratio)))
    )
    return f'<tr><td><b>{escape(layer.name)}</b></td>{numbers}<td class="{kind}">{escape(layer.sentence)}</td></tr>'


def _spectrum(found: Diagnosis) -> str:
    chosen = _chosen(len(found.spectrum))
    parts = []
    for number, layer in enumerate(found.spectrum):
        drawn = pictures.of_spectrum(layer, f"spectrum{number}") if number in chosen else []
        sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in _of_spectrum(layer))
        parts.append(f"<h3>{escape(layer.name)} ({escape(layer.network)})</h3>{sentences}{_figures(drawn)}")
    return "".join(parts) + _left_out(len(found.spectrum))


def _of_spectrum(layer: LayerSpectrum) -> Iterator[str]:
    yield layer.parallel.sentence
    if layer.gains is not None:
        low, high = min(layer.gains.smallest), max(layer.gains.largest)
        yield (
            f"At the steps looked at, one step stretches small changes by at most {high:.4g}, and leaves at least "
            f"{low:.3g} of them."
        )
    for line in layer.linearisations:
        turning = sum(f > 1e-9 for f in line.frequency)
        longest = max((d for d in line.decay if d >= 0), default=math.nan)
        outside = sum(not own for own in line.inside)
        kept = "the slowest stays" if longest == math.inf else f"the slowest fades to 1/e in {longest:.3g} steps"
        beyond = f"{outside or 'none'} {'lie' if outside > 1 else 'lies'} outside the region of stability"
        grown = "all modes grow" if math.isnan(longest) else kept
        where = f"{line.where[0].upper()}{line.where[1:]}"
        yield f"{where}: {turning} of {len(line.frequency)} modes turn, {grown}, {beyond}."
    if layer.left_out:
        yield f"Left out: {layer.left_out}."


def _portraits(found: Diagnosis) -> str:
    chosen = _chosen(len(found.portraits))
    parts = []
    for number, portrait in enumerate(found.portraits):
        if number in chosen:
            drawn = pictures.of_layer(portrait, f"portrait{number}")
            parts.append(f"<h3>{escape(portrait.name)} ({escape(portrait.network)})</h3>{_figures(drawn)}")
    return "".join(parts) + _left_out(len(found.portraits))


def _chosen(count: int) -> set[int]:
    """The layers that are pictured: all, or some from the first to the last."""
    if count <= PICTURED:
        return set(range(count))
    return {round(k * (count - 1) / (PICTURED - 1)) for k in range(PICTURED)}


def _left_out(count: int) -> str:
    if count <= PICTURED:
        return ""
    return f'<p class="soft">Pictures of {PICTURED} of {count} layers and directions; diagnosis.json has all.</p>'


def _figures(drawn: Sequence[Picture]) -> str:
    made = "".join(
        f"<figure>{picture.svg}<figcaption>{escape(picture.caption)}</figcaption></figure>" for picture in drawn
    )
    return f'<div class="pictures">{made}</div>'
