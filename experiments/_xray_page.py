"""The page of `xray`: one HTML file that needs no network, on a telephone, a wall, or paper."""

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from experiments._xray_measure import Finding, Picture
from jaxrnn.plot import power_of_ten

# nothing is fetched, and nothing runs
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

STYLE = """
:root { color-scheme: light dark; --ink: #1c1c1c; --pale: #5a5a5a; --ground: #ffffff;
  --card: #f3f5f7; --rule: #d5d9dd; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececec; --pale: #adb3b8; --ground: #15181b;
  --card: #20252a; --rule: #3a4046; --accent: #6cc3f5; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 52rem; background: var(--ground);
  color: var(--ink); font: 1.0625rem/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans",
  "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0.4rem 0 0.2rem; }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 3rem 0 0.4rem; padding-top: 0.8rem;
  border-top: 1px solid var(--rule); }
p { margin: 0.6rem 0; }
.pale, .cost, figcaption { color: var(--pale); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: 0.8rem;
  margin: 1.2rem 0; }
.card { background: var(--card); border-radius: 0.6rem; padding: 0.9rem 1rem; }
.card b { display: block; font-size: 1.9rem; line-height: 1.2; color: var(--accent); }
.card span { font-size: 0.95rem; }
.card .name { color: var(--pale); }
.note { background: var(--card); border-left: 4px solid #e69f00; padding: 0.6rem 0.9rem; }
figure { margin: 1.2rem 0; }
figure img { display: block; width: 100%; max-width: 44rem; height: auto; margin: 0 auto 0.6rem;
  background: #ffffff; border-radius: 0.4rem; padding: 0.3rem; }
figcaption { font-size: 0.97rem; }
figcaption b, dt { color: var(--ink); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.15rem 1rem; margin: 0.8rem 0; }
dt { font-weight: 600; } dd { margin: 0; }
.text { font: 1rem/1.75 ui-monospace, "DejaVu Sans Mono", "Noto Sans Mono CJK SC", monospace;
  white-space: pre-wrap; background: var(--card); padding: 0.6rem; border-radius: 0.4rem;
  margin: 0.6rem 0; -webkit-print-color-adjust: exact; print-color-adjust: exact; }
.scale { height: 0.8rem; border-radius: 0.3rem; -webkit-print-color-adjust: exact;
  print-color-adjust: exact; }
.ends { display: flex; justify-content: space-between; font-size: 0.9rem; color: var(--pale); }
.cost { font-size: 0.9rem; }
footer { margin-top: 3rem; border-top: 1px solid var(--rule); padding-top: 0.6rem;
  color: var(--pale); font-size: 0.9rem; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: 0.4rem; }
  h1 { font-size: 1.4rem; } body { padding: 0.8rem 0.7rem 3rem; } }
@media print { :root { --ink: #000; --pale: #333; --ground: #fff; --card: #f3f5f7;
  --rule: #bbb; --accent: #0072b2; } body { font-size: 10.5pt; max-width: none; padding: 0; }
  h2 { break-after: avoid; } figure, .card, .text { break-inside: avoid; }
  figure img { max-width: 13cm; } }
"""


class Card(NamedTuple):
    """One number that matters, with its name and what it says."""

    name: str
    number: str
    says: str


class Answer(NamedTuple):
    """A question with what was found, or, in its place, why nothing was."""

    title: str
    finding: Finding | None
    failure: str
    seconds: float


class Strip(NamedTuple):
    """Coloured text: tokens of some windows, and what separates them."""

    windows: Sequence[Sequence[dict]]
    separator: str
    scale: Sequence[str]
    decades: float
    what: str


def page(
    name: str,
    summary: Sequence[str],
    cards: Sequence[Card],
    facts: dict[str, str],
    notes: Sequence[str],
    answers: Sequence[Answer],
    strip: Strip | None,
    foot: str,
) -> str:
    """The whole document. Everything that comes from outside is escaped here."""
    body = [
        "<header><p class='pale'>An X-ray of a recurrent network</p>",
        f"<h1>{escape(name)}</h1></header>",
        *_paragraphs(summary),
        "<div class='cards'>" + "".join(map(_card, cards)) + "</div>",
        *(f"<p class='note'>{escape(note)}</p>" for note in notes),
        _facts(facts),
    ]
    for number, answer in enumerate(answers):
        body += _section(answer, strip if number == 0 else None)
    body.append(f"<footer>{escape(foot)}</footer>")
    title = escape(f"X-ray: {name}")
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _section(answer: Answer, strip: Strip | None) -> list[str]:
    found = answer.finding
    lines = [f"<section><h2>{escape(answer.title)}</h2>"]
    if found is None:
        return [*lines, f"<p class='note'>Not measured: {escape(answer.failure)}</p></section>"]
    lines += _paragraphs(found.said)
    if strip is not None:
        lines.append(_strip(strip))
    lines += [_figure(picture, answer.title) for picture in found.pictures]
    took = f"{answer.seconds:.1f} s, compilation included"
    return [*lines, f"<p class='cost'>Cost: {escape(found.cost)}; {took}.</p></section>"]


def _paragraphs(sentences: Sequence[str]) -> list[str]:
    return [f"<p>{escape(sentence)}</p>" for sentence in sentences]


def _card(card: Card) -> str:
    return (
        f"<div class='card'><span class='name'>{escape(card.name)}</span>"
        f"<b>{escape(card.number)}</b><span>{escape(card.says)}</span></div>"
    )


def _facts(facts: dict[str, str]) -> str:
    rows = (f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    return f"<dl>{''.join(rows)}</dl>"


def _caption(see: str, read: str) -> str:
    return (
        f"<figcaption><b>What you see.</b> {escape(see)} "
        f"<b>How to read it.</b> {escape(read)}</figcaption>"
    )


def _figure(picture: Picture, title: str) -> str:
    image = f"<img src='{picture.image}' alt='{escape(title + ' ' + picture.see, quote=True)}'>"
    return f"<figure>{image}{_caption(picture.see, picture.read)}</figure>"


def _strip(strip: Strip) -> str:
    windows = "".join(
        f"<div class='text'>{escape(strip.separator).join(map(_token, window))}</div>"
        for window in strip.windows
    )
    scale = f"<div class='scale' style='background:linear-gradient(90deg,{','.join(strip.scale)})'>"
    least = power_of_ten(-float(strip.decades))
    ends = f"<span>{least} of the most, or less</span><span>the most</span>"
    caption = _caption(
        "Windows of your text. Each token is the brighter, the larger the derivative of the "
        f"{strip.what} with respect to that token's input, on a logarithmic "
        "scale.",
        "Bright tokens still matter there; dark ones are all but forgotten. Single "
        "bright spots far back are what the network has held on to.",
    )
    return f"<figure>{windows}{scale}</div><div class='ends'>{ends}</div>{caption}</figure>"


def _token(token: dict[str, Any]) -> str:
    signs = {"\n": "↵\n", "\t": "⇥"}
    shown = signs.get(token["token"], str(token["token"]))
    size = "0" if token["tens"] == float("-inf") else f"{10 ** token['tens']:.2g} of the most"
    style = f"background:{token['ground']};color:{token['ink']}"
    return f"<span style='{style}' title='lag {token['lag']}: {size}'>{escape(shown)}</span>"
