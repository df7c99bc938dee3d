"""A map of an embedding as an HTML page: thumbnail and name of the point under mouse or arrow keys."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

from disco_zoo.core.console import StepProgress
from disco_zoo.embedding.contact_sheet import thumbnail
from disco_zoo.embedding.embedding_file import EmbeddingFile
from disco_zoo.embedding.results import label_text
from disco_zoo.errors import UnreadableImage, shown
from disco_zoo.plotting.embedding_map import Choice, class_text
from disco_zoo.plotting.style import COLORS
from disco_zoo.site.page import base_style

THUMBNAIL_SIDE = 112  # pixels
WIDTH, HEIGHT, MARGIN = 1000, 720, 20
_STYLE = """
svg { width: 100%; height: auto; background: var(--panel); border: 1px solid var(--line); border-radius: 8px; }
circle { cursor: pointer; opacity: .8; } circle.on { stroke: var(--ink); stroke-width: 3; opacity: 1; }
.off { display: none; }
#seen { display: flex; gap: 14px; min-height: 128px; align-items: center; margin: 10px 0; overflow-wrap: anywhere; }
#seen img { width: 112px; height: 112px; object-fit: contain; border-radius: 6px; background: var(--panel); }
#classes { display: flex; flex-wrap: wrap; gap: 6px; }
#classes button { font: inherit; font-size: .85rem; color: inherit; background: none; border: 1px solid var(--line);
  border-radius: 99px; padding: 3px 12px; min-height: 32px; cursor: pointer; }
#classes button[aria-pressed=true] { border-color: var(--accent); background: var(--mark); }
#classes i { display: inline-block; width: 10px; height: 10px; border-radius: 50%; margin-right: 6px; }
"""
_SCRIPT = """
(() => {
  const points = JSON.parse(document.getElementById("points").textContent);
  const svg = document.querySelector("svg"), seen = document.getElementById("seen");
  const marks = [...svg.querySelectorAll("circle")];
  let at = -1;
  const show = (number) => {
    marks[at]?.classList.remove("on");
    at = number;
    marks[at].classList.add("on");
    const words = document.createElement("div"), name = document.createElement("b");
    name.textContent = points[at].name;
    words.append(name, document.createElement("br"), points[at].label ?? "");
    const picture = points[at].picture ? new Image() : document.createElement("span");
    if (points[at].picture) {
      picture.src = "data:image/jpeg;base64," + points[at].picture;
      picture.alt = points[at].name;
    } else picture.textContent = "picture not found";
    seen.replaceChildren(picture, words);
  };
  for (const event of ["pointerover", "click"]) svg.addEventListener(event, ({ target }) => {
    if (target.tagName === "circle") show(marks.indexOf(target));
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    let next = at;
    do next = (next + step + marks.length) % marks.length; while (marks[next].classList.contains("off"));
    show(next);
  });
  for (const button of document.querySelectorAll("#classes button")) button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    for (const other of document.querySelectorAll("#classes button")) other.setAttribute("aria-pressed", "false");
    button.setAttribute("aria-pressed", String(on));
    marks.forEach((mark, number) => mark.classList.toggle("off", on && points[number].place !== Number(button.value)));
  });
})();
"""


def map_page(
    file: EmbeddingFile, points: Tensor, kind: str, choice: Choice, title: str, picture: Callable[[int], Image.Image]
) -> tuple[str, int]:
    """One HTML page that needs no other file; without JavaScript the map and the names are still there.

    Args:
        points: (M, 2), the rows `choice.indices` of the file, projected by `kind`.
        picture: opens the picture of a row.

    Returns:
        The page, and of how many rows no picture was found.
    """
    low, high = points.min(dim=0).values, points.max(dim=0).values
    span = torch.tensor([WIDTH - 2 * MARGIN, HEIGHT - 2 * MARGIN])
    places = ((points - low) / (high - low).clamp_min(1e-12) * span + MARGIN).tolist()
    classes = {label: place for place, label in enumerate(choice.classes)}
    circles, values = [], []
    with StepProgress("thumbnails", len(places)) as progress:
        for number, (row, (x, y)) in enumerate(zip(choice.indices.tolist(), places, strict=True)):
            label, name = label_text(file, row), shown(file.names[row])
            place = 0 if choice.labels is None else classes[int(choice.labels[number])]
            words = html.escape(name if label is None else f"{name} ({label})")
            circles.append(
                f'<circle cx="{x:.1f}" cy="{HEIGHT - y:.1f}" r="7" fill="{COLORS[place % len(COLORS)]}">'
                f"<title>{words}</title></circle>"
            )
            values.append({"name": name, "label": label, "place": place, "picture": _picture(picture, row)})
            progress.update(number + 1, len(places))
    missing = sum(value["picture"] == "" for value in values)
    note = f"{kind} of {choice}, embedded by {file.facts.model}. Point at an image, or move with the arrow keys."
    inside = json.dumps(values, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{html.escape(title)}</title><style>{base_style()}{_STYLE}</style></head><body>"
        f'<h1>{html.escape(title)}</h1><p class="soft">{html.escape(note)}</p>{_legend(file, choice.classes)}'
        f'<div id="seen" aria-live="polite"></div><svg viewBox="0 0 {WIDTH} {HEIGHT}" tabindex="0" role="group" '
        f'aria-label="Map of the images">{"".join(circles)}</svg>'
        f'<script type="application/json" id="points">{inside}</script><script>{_SCRIPT}</script></body></html>\n'
    ), missing


def _picture(picture: Callable[[int], Image.Image], row: int) -> str:
    """The thumbnail of a row as base64; "" where the image file is missing."""
    try:
        return thumbnail(picture(row), THUMBNAIL_SIDE)
    except UnreadableImage:
        return ""


def _legend(file: EmbeddingFile, classes: Sequence[int]) -> str:
    """A button for each class, which shows it alone."""
    buttons = (
        f'<button type="button" value="{place}" aria-pressed="false">'
        f'<i style="background:{COLORS[place % len(COLORS)]}"></i>'
        f"{html.escape(class_text(label, file.facts.class_names))}</button>"
        for place, label in enumerate(classes)
    )
    return f'<div id="classes">{"".join(buttons)}</div>' if classes else ""
