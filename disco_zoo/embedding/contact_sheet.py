"""A contact sheet of queries and results, in one self-contained HTML file."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from disco_zoo.errors import UnreadableImage
from disco_zoo.site.page import base_style

THUMBNAIL_SIDE = 176  # pixels; shown at half of it or more, so that it is sharp on dense screens
JPEG_QUALITY = 82
_STYLE = """
h2 { margin-top: 0; } p { color: var(--soft); }
section { border-top: 1px solid var(--line); padding: 18px 0; }
.row { display: grid; grid-template-columns: 176px 1fr; gap: 22px; align-items: start; }
.found { display: grid; grid-template-columns: repeat(auto-fill, minmax(112px, 1fr)); gap: 14px 10px; }
figure { margin: 0; } figcaption { font-size: .78rem; line-height: 1.3; overflow-wrap: anywhere; padding-top: 4px; }
figcaption b { font-variant-numeric: tabular-nums; }
figcaption span { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden; }
img, .gone { width: 100%; aspect-ratio: 1; object-fit: contain; border-radius: 6px; background: var(--panel); }
.gone { display: grid; place-items: center; font-size: .78rem; }
.pixels { image-rendering: pixelated; }
@media (max-width: 640px) {
  .row { grid-template-columns: 1fr; } .row > figure { max-width: 176px; } figcaption { font-size: .85rem; }
}
"""


@dataclass(frozen=True)
class Shown:
    """A picture on the page.

    Attributes:
        picture: opens it.
        lines: below it; the first one stands out.
        title: its full name, shown where the mouse rests; None for the last line.
    """

    picture: Callable[[], Image.Image]
    lines: tuple[str, ...]
    title: str | None = None


def contact_sheet(title: str, note: str, rows: Sequence[tuple[str, Shown, Sequence[Shown]]]) -> str:
    """One page of HTML.

    Args:
        title: of the page.
        note: a line below it.
        rows: a heading, the query and what was found, for each query.
    """
    sections = [
        f"<section><h2>{html.escape(heading)}</h2><div class=row>{_figure(query)}"
        f"<div class=found>{''.join(map(_figure, found))}</div></div></section>"
        for heading, query, found in rows
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{base_style()}{_STYLE}</style></head><body>"
        f"<h1>{html.escape(title)}</h1><p>{html.escape(note)}</p>{''.join(sections)}</body></html>\n"
    )


def _figure(shown: Shown) -> str:
    first, *rest = shown.lines
    words = "".join(f"<span>{html.escape(line)}</span>" for line in rest)  # a long one is cut by the style
    title = html.escape(shown.title or shown.lines[-1], quote=True)
    caption = f"<figcaption><b>{html.escape(first)}</b>{words}</figcaption>"
    return f'<figure title="{title}">{_picture(shown, title)}{caption}</figure>'


def _picture(shown: Shown, alt: str) -> str:
    try:
        image = shown.picture()
    except UnreadableImage:  # the page still says what was found
        return '<div class="gone">picture not found</div>'
    small = max(image.size) < THUMBNAIL_SIDE // 2
    kind = ' class="pixels"' if small else ""  # of a few pixels: enlarged as they are
    return f'<img{kind} alt="{alt}" loading="lazy" src="data:image/jpeg;base64,{thumbnail(image)}">'


def thumbnail(image: Image.Image, side: int = THUMBNAIL_SIDE) -> str:
    """Base64 of a JPEG of at most `side` pixels a side; no picture is enlarged."""
    image = image.copy()
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
