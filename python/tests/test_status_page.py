"""The status page, as a browser shows it: during a load, a reload and a crash."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Server, fetch
from playwright.sync_api import Browser, Page, expect
from sites import SHOP_AND_BLOG as FRONT
from sites import write_shop_and_blog
from test_browser import MILLISECONDS, browser  # noqa: F401 (a fixture)
from watching import Measured, is_near, until

pytestmark = pytest.mark.browser

NOTHING = "\N{EN DASH}"
"""What stands where there is no figure."""

ROUTES = """
"/status" = { status_page = true, actions = true }
"/read" = { status_page = true }
"""

FUSED = """
listen = "127.0.0.1:0"

[apps.shop]
wsgi = "shop"
workers = 2

[sites."*"]
"/" = "shop"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_shop_and_blog(tmp_path)


@pytest.fixture
def run(start: Callable[..., Server], project: Path, runtime: Path) -> Callable[[str], Server]:
    def run(config: str) -> Server:
        (project / "hawksbill.toml").write_text(config.replace('[sites."*"]\n', '[sites."*"]' + ROUTES))
        return start("run", cwd=project, env={"XDG_RUNTIME_DIR": str(runtime)})

    return run


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:  # noqa: F811
    """A page; an error in its scripts, or anything that its policy refuses, fails the test."""
    errors: list[str] = []
    with browser.new_context() as context:
        context.set_default_timeout(MILLISECONDS)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda told: errors.append(told.text) if "Content Security" in told.text else None)
        yield page
    assert errors == []


def cell(page: Page, name: str, label: str) -> str:
    row = page.locator(f'#applications tr[data-name="{name}"]')
    return row.locator(f'td[data-label="{label}"]').inner_text().splitlines()[-1]


def figure(page: Page, name: str, label: str) -> float | None:
    """A cell's number, if there is one now."""
    text = cell(page, name, label)
    return None if text == NOTHING else float(text)


def picture(page: Page, name: str) -> None:
    """Kept where somebody wants to look."""
    directory = os.environ.get("HAWKSBILL_PICTURES")
    if directory is None:
        return
    for scheme in ("light", "dark"):
        for shape, width, height in [("desktop", 1280, 900), ("phone", 390, 844)]:
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size({"width": width, "height": height})
            page.screenshot(path=Path(directory) / f"{name}-{scheme}-{shape}.png", full_page=True)
    page.set_viewport_size({"width": 1280, "height": 900})


def milliseconds(text: str) -> float:
    number, unit = text.split()
    return float(number) * {"µs": 1e-3, "ms": 1.0, "s": 1e3}[unit]


@pytest.mark.parametrize("config", [FRONT, FUSED], ids=["front", "fused"])
def test_the_page_is_live(run: Callable[[str], Server], page: Page, config: str) -> None:
    server = run(config)
    page.goto(f"{server.base}/status")
    expect(page).to_have_url(f"{server.base}/status/")
    expect(page.locator("#state")).to_have_text("serving")
    with Measured(server) as load:

        def is_right() -> bool:
            rate, median = cell(page, "shop", "Requests/s"), cell(page, "shop", "Median")
            if NOTHING in (rate, median):
                return False
            seen, took = load.lately()
            return is_near(float(rate), seen) and is_near(milliseconds(median), took * 1000)

        until(is_right)
        before = int(cell(page, "shop", "Generation"))
        page.get_by_role("button", name="Reload shop").click()
        until(lambda: (figure(page, "shop", "Generation") or 0) > before)
        expect(page.locator("#lately")).to_contain_text("serves: shop")
        # The former processes are kept for two seconds; then those who watch them go to the new ones.
        expect(page.locator("#state")).to_have_text("serving")
        assert load.failures == []
        os.kill(int(fetch(server.base).headers["x-pid"]), signal.SIGKILL)
        until(lambda: cell(page, "shop", "Restarts") == "1")
        expect(page.locator("#lately .bad")).to_contain_text("ended unasked, SIGKILL")
        until(lambda: cell(page, "shop", "Workers") == "2/2")
        until(lambda: (figure(page, "shop", "Requests/s") or 0) > 0)
        expect(page.locator("#state")).to_have_text("serving")
        picture(page, "front" if config is FRONT else "fused")


def test_a_telephone_shows_all_of_it(run: Callable[[str], Server], page: Page) -> None:
    server = run(FRONT)
    page.set_viewport_size({"width": 360, "height": 700})
    page.goto(f"{server.base}/status/")
    expect(page.locator('#applications tr[data-name="shop"]')).to_be_visible()
    expect(page.locator("#foot")).to_contain_text("hawksbill.toml")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    colours = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert len(colours) == 2


def test_only_the_page_acts_and_only_where_it_may(run: Callable[[str], Server], page: Page) -> None:
    server = run(FRONT)
    page.goto(f"{server.base}/read/")
    expect(page.locator("#state")).to_have_text("serving")
    expect(page.get_by_role("button")).to_have_count(0)
    order = {"action": "reload", "application": "shop"}
    own = {"Sec-Fetch-Site": "same-origin"}
    with server.client() as asking:
        assert asking.post("/read/actions", json=order, headers=own).status_code == 403
        assert asking.post("/status/actions", json=order).status_code == 403
        foreign = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
        assert asking.post("/status/actions", json=order, headers=foreign).status_code == 403
        assert asking.post("/status/actions", json=order, headers=own).status_code == 202
    # What nobody may do is not done: one reload is all that happened.
    expect(page.locator("#lately")).to_contain_text("serves: shop")
    assert page.locator("#lately li").count() <= 2


def test_the_page_waits_for_a_gateway_that_has_gone(run: Callable[[str], Server], page: Page) -> None:
    server = run(FUSED)
    page.goto(f"{server.base}/status/")
    expect(page.locator("#state")).to_have_text("serving")
    server.stop()
    expect(page.locator("#state")).to_have_text("not connected")
