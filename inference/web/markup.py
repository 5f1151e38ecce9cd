"""The answer as HTML. Names of classes are text in it, whatever they hold."""

import base64
import io
from html import escape

from PIL import Image

from inference.web.answer import Answer, Column, Drawn, percent

QUALITY = 85  # of JPEG
# The colours are those of Gradio's theme, light or dark. A long name is cut; all of it is in its
# tooltip, and unfolds where it is tapped.
STYLE = """<style>
#answer, #answer > div { padding: 0; }
.answer { color: var(--body-text-color); display: grid; gap: 14px; }
.answer .pair { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 14px; }
.answer .card { border: 1px solid var(--border-color-primary); border-radius: 8px; padding: 12px;
  background: var(--block-background-fill); min-width: 0; }
.answer .title { font-weight: 600; }
.answer .small { font-size: 0.85em; opacity: 0.75; }
.answer .first { font-size: 1.6em; font-weight: 700; text-align: center; margin: 10px 0; }
.answer .name { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; min-width: 0; }
.answer .name:focus { white-space: normal; overflow-wrap: anywhere; outline: none; }
.answer .row { display: flex; justify-content: space-between; gap: 10px; margin-top: 8px; }
.answer .share { white-space: nowrap; font-variant-numeric: tabular-nums; }
.answer .bar { height: 4px; border-radius: 2px; background: var(--color-accent); min-width: 1px; }
.answer .problem { border: 1px solid var(--error-border-color, #c00); border-radius: 8px;
  padding: 12px; overflow-wrap: anywhere; }
.answer .drawn { display: grid; grid-template-columns: 2fr 1fr; gap: 14px; align-items: start; }
.answer .drawn > :first-child { grid-row: span 2; }
.answer figure { margin: 0; }
.answer img { max-width: 100%; max-height: 75vh; margin: 0; border-radius: 4px; }
@media (max-width: 600px) {
  .answer .pair { grid-template-columns: minmax(0, 1fr); }
  .answer .drawn { grid-template-columns: 1fr 1fr; }
  .answer .drawn > :first-child { grid-column: span 2; grid-row: auto; }
}
</style>"""


def page_of(content: str) -> str:
    """Content with its style."""
    return f'{STYLE}<div class="answer" role="status">{content}</div>'


def problem(text: str) -> str:
    """A sentence that says what is wrong, in place of an answer."""
    return page_of(f'<div class="problem">{escape(text)}</div>')


def markup(answer: Answer) -> str:
    """Both columns, the sentences, and what was drawn."""
    columns = "".join(map(column, answer.columns))
    said = [answer.comparison, answer.unsure]
    sentences = "".join(f"<div>{escape(text)}</div>" for text in said if text)
    drawn = "" if answer.drawn is None else figures(answer.drawn)
    return page_of(f'<div class="pair">{columns}</div>{sentences}{drawn}')


def column(one: Column) -> str:
    """What one model says: the first class in large, a bar for each."""
    rows = "".join(
        f'<div class="row">{class_name(name)}<span class="share">{percent(share)}</span></div>'
        f'<div class="bar" style="width: {100 * share:.1f}%"></div>'
        for name, share in one.top
    )
    head = f'<div class="title">{escape(one.title)}</div>'
    head += f'<div class="small">{escape(one.subtitle)}</div>'
    return f'<div class="card">{head}{class_name(one.top[0][0], "first")}{rows}</div>'


def class_name(name: str, *kinds: str) -> str:
    """A class name, of which the page shows as much as there is room for."""
    text = escape(name)
    return f'<div class="{" ".join(("name", *kinds))}" title="{text}" tabindex="0">{text}</div>'


def figures(drawn: Drawn) -> str:
    """The photograph with the kept patches, and with both maps."""
    frame = "" if drawn.kept.width == drawn.kept.height else "; in the frame: what the model sees"
    parts = (
        (drawn.kept, f"kept patches: {drawn.ranks}{frame}"),
        (drawn.sample_wise, "sample-wise: relevance to the picture"),
        (drawn.semantic_wise, "semantic-wise: relevance to the class names"),
    )
    return f'<div class="drawn">{"".join(figure(*part) for part in parts)}</div>'


def figure(picture: Image.Image, caption: str) -> str:
    """A picture with a caption."""
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=QUALITY)
    address = f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"
    text = escape(caption)
    image = f'<img src="{address}" alt="{text}">'
    return f'<figure>{image}<figcaption class="small">{text}</figcaption></figure>'
