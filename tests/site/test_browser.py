"""The zoo's page in a real headless Chromium, by mouse, by keyboard and on a phone."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from disco_zoo.cli import main
from disco_zoo.zoo.catalog import Checkpoint, load_catalog

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)"),
    # Python's own: playwright's driver leaves its pipes to the collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
LINES = "#zoo tbody tr:not([hidden])"
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("site") / "zoo.html"
    assert main(["site", "--out", str(path)]) == 0
    return path.as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The page open; fails at the end where it wrote to the console or asked for another file."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page, noise = context.new_page(), []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on("request", lambda request: noise.append(request.url) if request.url.startswith("http") else None)
    page.goto(address)
    yield page
    context.close()
    assert noise == []


def rows_in_order() -> dict[str, Checkpoint]:
    """The checkpoints as the table has them: by architecture."""
    catalog = load_catalog()
    return {row.name: row for architecture in catalog.architectures for row in catalog.of_architecture(architecture)}


def names(page: Any) -> list[str]:
    found: list[str] = page.eval_on_selector_all(LINES, "lines => lines.map(line => line.dataset.name)")
    return found


def test_filters_leave_what_they_say(page: Any) -> None:
    rows = rows_in_order()
    assert names(page) == [*rows]
    page.select_option("select[name=method]", "SEED")
    assert names(page) == [name for name, row in rows.items() if row.method == "seed"]
    page.fill("input[name=text]", "R50W4 effb0")
    assert names(page) == ["disco_effb0.seed_swav_r50w4_in1k"]
    page.fill("input[name=text]", "no such model")
    assert names(page) == []
    assert "Clear a filter" in page.inner_text("#count")
    page.click("button[type=reset]")
    page.wait_for_function(f"document.querySelectorAll('{LINES}').length === {len(rows)}")
    page.check("input[name=loadable]")
    assert names(page) == [name for name, row in rows.items() if row.weights.loadable]


def test_columns_sort_numbers_as_numbers_and_empty_cells_last(page: Any) -> None:
    rows = load_catalog().checkpoints
    column = page.locator("#zoo thead th", has_text="kNN")
    for direction, sign in (("descending", -1), ("ascending", 1)):
        column.locator("button").click()
        assert column.get_attribute("aria-sort") == direction
        figures = [rows[name].figure("student", "knn20_top1") for name in names(page)]
        there = [figure.mean for figure in figures if figure]
        assert figures[: len(there)] == [figure for figure in figures if figure]
        assert there == sorted(there, key=lambda value: sign * value)
    page.locator("#zoo thead th", has_text="name").locator("button").click()
    assert names(page)[0].startswith("disco_alexnet")
    assert page.locator("#zoo thead th[aria-sort]").count() == 1


def test_a_name_opens_its_card_and_escape_closes_it(page: Any) -> None:
    name = "disco_effb0.disco_lite0_cifar10"
    page.click(f'#zoo a[href="#{name}"]')
    assert page.locator("dialog[open] h3").inner_text() == name
    assert f'timm.create_model("{name}", pretrained=True)' in page.locator("dialog pre").first.inner_text()
    assert page.url.endswith(f"#{name}")
    page.keyboard.press("Escape")
    page.wait_for_function("location.hash === ''")  # the address is cleared by an event that comes after the closing
    assert page.locator("dialog[open]").count() == 0


def test_an_address_with_a_name_opens_its_card(page: Any, address: str) -> None:
    page.goto("about:blank")
    page.goto(f"{address}#disco_r18.seed_mocov2_r50_in1k")
    assert page.locator("dialog[open] h3").inner_text() == "disco_r18.seed_mocov2_r50_in1k"


def test_the_keyboard_alone_filters_sorts_and_opens_a_card(page: Any) -> None:
    page.keyboard.press("Tab")
    page.keyboard.type("cifar10 disco_lite0 effb0")
    (name,) = names(page)
    focused = "document.activeElement"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(f"{focused}.textContent") == "kNN (%)":
            page.keyboard.press("Enter")
        if page.evaluate(f"{focused}.closest('#zoo tbody') !== null"):
            break
    assert page.locator("#zoo th[aria-sort=descending]").inner_text().startswith("kNN")
    page.keyboard.press("Enter")
    assert page.locator("dialog[open] h3").inner_text() == name
    page.keyboard.press("Escape")
    page.wait_for_function("document.activeElement.closest('#zoo') !== null")  # back where one was


def test_the_chart_draws_what_was_measured_filled_and_what_was_reported_hollow(page: Any) -> None:
    rows = load_catalog().checkpoints.values()
    reported = [row.name for row in rows if row.data == "in1k" and row.reported_figure("linear_top1")]
    marks = page.locator("#chart svg a")
    assert marks.count() == len(reported)
    assert {mark.get_attribute("fill") for mark in marks.locator("circle").all()} == {"transparent"}
    page.select_option("#chart select[name=data]", "cifar10")
    measured = [row.name for row in rows if row.data == "cifar10" and row.figure("student", "linear_top1")]
    assert sorted(mark.get_attribute("href")[1:] for mark in marks.all()) == sorted(measured)
    assert "transparent" not in {mark.get_attribute("fill") for mark in marks.locator("circle").all()}
    marks.first.hover()
    assert "measured" in page.inner_text("#tip")
    marks.first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open]")  # it opens by an event that comes after the key
    assert page.locator("dialog[open]").count() == 1


def test_a_phone_shows_all_without_scrolling_sideways(page: Any) -> None:
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    page.locator("#zoo a").first.click()
    box = page.locator("dialog[open]").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= PHONE["width"]
    assert page.evaluate("document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth")


def test_without_javascript_the_table_and_the_cards_are_there(browser: Any, address: str) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator("#zoo tbody tr").count() == len(load_catalog().checkpoints)
    assert page.locator("#filters").is_hidden()
    page.click('#zoo a[href="#disco_effb0.disco_lite0_cifar10"]')
    assert page.locator("article", has_text="disco_effb0.disco_lite0_cifar10").first.is_visible()
    assert page.locator("noscript p").is_visible()
    context.close()
