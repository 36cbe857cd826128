"""A report as Markdown and as one page of HTML that needs no other file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from kd_lightning.apps.reports.cells import Table
from kd_lightning.apps.results.tables import markdown

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
  color: light-dark(#1c1e21, #e4e6e9); background: light-dark(#fff, #16181b); }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.3rem 0.55rem; text-align: right; white-space: nowrap; vertical-align: top; }
th { border-bottom: 2px solid #8886; } td { border-bottom: 1px solid #8883; }
.word { text-align: left; } td.word, th { white-space: normal; overflow-wrap: break-word; }
td.word { min-width: 9rem; max-width: 22rem; }
.note, footer { font-size: 0.85rem; opacity: 0.8; max-width: 50rem; }
.missing { border-left: 4px solid #d9822b; padding-left: 1rem; }
.missing li, .runs li { overflow-wrap: anywhere; }
svg { width: 100%; max-width: 56rem; height: auto; }
summary { cursor: pointer; margin-top: 2.2rem; font-weight: 600; font-size: 1.15rem; }
"""

FOLDED = ("Spread over seeds",)
"""Tables that the page shows when they are asked for."""


@dataclass(frozen=True)
class Report:
    """What a report says.

    Args:
        title: Its first line.
        facts: How many runs and groups it is of.
        tables: In their order.
        plots: Title -> SVG.
        missing: A line for each run or job without a result.
        groups: A line for each group: its seeds and folders.
    """

    title: str
    facts: str
    tables: Sequence[Table]
    plots: Mapping[str, str]
    missing: Sequence[str]
    groups: Sequence[str]


def as_markdown(report: Report) -> str:
    """Return the report in Markdown, without plots."""
    return "\n\n".join(_markdown(report)) + "\n"


def _markdown(report: Report) -> Iterator[str]:
    yield f"# {report.title}"
    yield report.facts
    if report.missing:
        yield f"## What is missing ({len(report.missing)})"
        yield "\n".join(f"- {line}" for line in report.missing)
    for table in report.tables:
        yield f"## {table.title}"
        yield _escaped(table)
        if table.notes:
            yield " ".join(table.notes)
    if report.groups:
        yield "## Runs"
        yield "\n".join(f"- {line}" for line in report.groups)
    if report.plots:
        yield "Plots: report.html. Each score: report.csv."


def _escaped(table: Table) -> str:
    rows = [[cell.replace("|", "\\|") for cell in row] for row in table.rows]
    return markdown(table.header, rows, table.words)


def as_html(report: Report) -> str:
    """Return the report as a page, legible in light and in dark."""
    body = "\n".join(_html(report))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{escape(report.title)}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n'
        "</body>\n</html>\n"
    )


def _html(report: Report) -> Iterator[str]:
    yield f"<h1>{escape(report.title)}</h1>\n<p>{escape(report.facts)}</p>"
    if report.missing:
        yield f'<div class="missing"><h2>What is missing ({len(report.missing)})</h2>{_items(report.missing)}</div>'
    for i, table in enumerate(report.tables):
        folded = table.title in FOLDED
        head = f"<summary>{table.title}</summary>" if folded else f"<h2>{table.title}</h2>"
        text = f"{head}\n{_table(table)}\n{_note(table.notes)}"
        yield f"<details>{text}</details>" if folded else text
        if i == 0:
            yield from (f"<h2>{escape(title)}</h2>\n{svg}" for title, svg in report.plots.items())
    if report.groups:
        yield f'<details class="runs"><summary>Runs</summary>{_items(report.groups)}</details>'


def _note(notes: Sequence[str]) -> str:
    return f'<p class="note">{escape(" ".join(notes))}</p>' if notes else ""


def _items(lines: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def _table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        kinds = ['class="word"' if i < table.words else "" for i in range(len(cells))]
        return "".join(f"<{tag} {kind}>{escape(c)}</{tag}>" for kind, c in zip(kinds, cells, strict=True))

    rows = "\n".join(f"<tr>{row(cells, 'td')}</tr>" for cells in table.rows)
    head = f"<thead><tr>{row(table.header, 'th')}</tr></thead>"
    return f'<div class="wide"><table>{head}<tbody>\n{rows}\n</tbody></table></div>'
