"""An outcome as one HTML page that needs nothing else: tables, plots inlined, and how to read the verdict.

matrix.py puts many outcomes on one page; both use the same parts.
"""

import base64

import jinja2

from shared.diff.outcome import Outcome, words

STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; color: #222; margin: 1.5rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.35rem; } h2 { font-size: 1.1rem; margin-top: 1.6rem; } h3 { font-size: .98rem; margin-bottom: .3rem; }
table { border-collapse: collapse; font-size: 12px; margin: .3rem 0; }
th { text-align: left; border-bottom: 1.5px solid #222; } td, th { padding: .12rem .55rem; vertical-align: top; }
td.n { text-align: right; font-variant-numeric: tabular-nums; } tr:nth-child(even) td { background: #f6f6f6; }
.note, .plot p { color: #666; font-size: 12px; max-width: 60rem; }
.plot img { max-width: 100%; border: 1px solid #ddd; }
.scroll { overflow-x: auto; } .tag { display: inline-block; padding: .05rem .5rem; border-radius: .3rem; color: #fff; }
.same { background: #2E7D46; } .differs { background: #B00020; } .not { background: #777; }
details > summary { cursor: pointer; } .matrix td { border: 1px solid #ccc; } .matrix td a { color: inherit; }
"""
OUTCOME = """
{%- macro verdict(o) %}<span class="tag {{ o.verdict.split(" ")[0] }}">{{ o.verdict }}</span>{% endmacro %}
{% macro body(o) %}
<p>{{ verdict(o) }} {{ o.reason }}</p>
<p class="note">{{ o.level }} level. A: <code>{{ o.a }}</code> B: <code>{{ o.b }}</code></p>
{% for plot in o.plots %}<div class="plot"><h3>{{ plot.title }}</h3>
<img alt="{{ plot.title }}" src="data:image/png;base64,{{ plot.png | base64 }}">
<p>{{ plot.caption }}</p></div>{% endfor %}
{% for table in o.tables %}
<details {{ "open" if table.rows | length <= 60 }}><summary><h3 style="display:inline">{{ table.title }}</h3>
({{ table.rows | length }} rows)</summary><div class="scroll"><table>
<tr>{% for column in table.columns %}<th>{{ column }}</th>{% endfor %}</tr>
{% for row in table.rows %}<tr>{% for value in row %}
<td{% if value is number %} class="n"{% endif %}>{{ value | words }}</td>
{%- endfor %}</tr>{% endfor %}
</table></div><p class="note">{{ table.note }}</p></details>
{% endfor %}
{% for note in o.notes %}<p class="note">{{ note }}</p>{% endfor %}
{% endmacro %}
"""
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<style>{{ style }}</style></head><body>
{% import "outcome" as parts %}<h1>{{ title }}</h1>{{ parts.body(o) }}</body></html>
"""


def environment(**templates: str) -> jinja2.Environment:
    """jinja2 with the parts of a page; everything shown is escaped."""
    loader = jinja2.DictLoader({"outcome": OUTCOME, **templates})
    made = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    made.filters["base64"] = lambda data: base64.b64encode(data).decode()
    made.filters["words"] = words
    return made


def page(outcome: Outcome) -> str:
    """One outcome as a page."""
    title = f"Diff: {outcome.a} and {outcome.b}"
    return environment(page=PAGE).get_template("page").render(title=title, style=jinja2_safe(STYLE), o=outcome)


def jinja2_safe(text: str) -> str:
    """Text of our own that goes into the page as it is."""
    import markupsafe  # jinja2's own

    return markupsafe.Markup(text)
