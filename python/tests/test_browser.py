"""What people see: a headless Chromium uses the example's sites."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ADMIN_PASSWORD
from harness import Server
from playwright.sync_api import Browser, FilePayload, Page, expect, sync_playwright
from watching import PATIENCE

pytestmark = pytest.mark.browser

MILLISECONDS = 1000 * PATIENCE

CHROMIUM_OPTIONS = [
    # Chromium's own sandbox does not work for root, as whom containers run tests.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP *.localhost 127.0.0.1",
]


def chromium() -> str:
    """The browser's path; fails if there is none, since a skip would hide it."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.fail("no Chromium: install Debian's package 'chromium' or set CHROMIUM")
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests here, which is slow where the machine is."""
    expect.set_options(timeout=MILLISECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page with cookies of its own; an error in its scripts fails the test."""
    errors: list[str] = []
    with browser.new_context() as context:
        context.set_default_timeout(MILLISECONDS)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        yield page
    assert errors == []


def site(server: Server, name: str, path: str = "/") -> str:
    """The URL of a path on one of the example's sites."""
    return f"http://{name}.localhost:{server.port}{path}"


def picture(server: Server) -> bytes:
    """A real PNG to upload: a monster of the example."""
    with server.client("monster.localhost") as client:
        return client.get(f"/{'5eed' * 16}.png", params={"size": "120"}).content


def image_width(page: Page, selector: str) -> int:
    """The width of a picture as decoded by the browser, 0 if it could not be."""
    image = page.locator(selector)
    image.wait_for()
    width: int = image.evaluate("image => image.decode().then(() => image.naturalWidth, () => 0)")
    return width


def test_the_admin_has_its_style_and_takes_an_object_with_an_upload(
    page: Page, domains: Server, tmp_path: Path
) -> None:
    photo = tmp_path / "turtle.png"
    photo.write_bytes(picture(domains))

    page.goto(site(domains, "shop", "/admin/"))
    page.fill("#id_username", "admin")
    page.fill("#id_password", ADMIN_PASSWORD)
    page.click("input[type=submit]")
    expect(page.locator("#user-tools")).to_contain_text("admin")

    rules: list[int] = page.evaluate("[...document.styleSheets].map(sheet => sheet.cssRules.length)")
    assert rules, "the admin has no stylesheet at all"
    assert min(rules) > 0
    header = page.locator("#header")
    expect(header).to_have_css("background-color", "rgb(65, 118, 144)")

    page.goto(site(domains, "shop", "/admin/catalog/product/add/"))
    page.fill("#id_name", "Turtle from the admin")
    page.fill("#id_price", "12.50")
    page.set_input_files("#id_photo", photo)
    page.click("input[name=_save]")
    expect(page.locator(".messagelist .success")).to_contain_text("Turtle from the admin")

    page.goto(site(domains, "shop"))
    page.click("text=Turtle from the admin")
    assert image_width(page, "img.photo") == 120
    source = page.locator("img.photo").get_attribute("src")
    assert source is not None
    with domains.client("shop.localhost") as client:
        assert client.get(source).content == photo.read_bytes()


def test_the_shop_keeps_a_basket_in_the_session(page: Page, domains: Server) -> None:
    page.goto(site(domains, "shop"))
    snorkel = page.locator(".products li", has_text="Snorkel")
    snorkel.get_by_role("button").click()
    expect(page.locator(".messages")).to_contain_text("Snorkel is in your basket")
    snorkel.get_by_role("button").click()
    page.click("text=Basket")
    expect(page.locator("#total")).to_have_text("35.80 €")


def test_the_shops_form_asks_for_a_login_then_takes_an_upload(page: Page, domains: Server) -> None:
    page.goto(site(domains, "shop", "/products/new/"))
    page.fill("#id_username", "admin")
    page.fill("#id_password", ADMIN_PASSWORD)
    page.locator("#login button").click()
    page.fill("#product #id_name", "Turtle from the form")
    page.fill("#product #id_price", "9.99")
    upload = FilePayload(name="turtle.png", mimeType="image/png", buffer=picture(domains))
    page.set_input_files("#product #id_photo", upload)
    page.locator("#product button").click()
    expect(page.locator(".messages")).to_contain_text("Turtle from the form is in the shop now")
    assert image_width(page, "img.photo") == 120


def test_the_avatar_form_shows_the_picture_of_another_site(page: Page, domains: Server) -> None:
    page.goto(site(domains, "avatar"))
    before = page.locator("#monster").get_attribute("src")
    page.fill("input[name=name]", "Grüße & <b>")
    page.get_by_role("button").click()
    expect(page.locator("input[name=name]")).to_have_value("Grüße & <b>")
    after = page.locator("#monster").get_attribute("src")
    assert after != before
    assert after == f"/monster/{page.locator('#digest').text_content()}"
    assert image_width(page, "#monster") == 240


def test_events_arrive_one_by_one_as_they_are_sent(page: Page, domains: Server) -> None:
    page.goto(site(domains, "live", "/?count=1000&interval=0.2"))
    rows = page.locator("#events tr")
    rows.nth(5).wait_for()
    # Long before the last of them has happened.
    expect(page.locator("#stream-state")).not_to_have_text("done")
    numbers = [row.locator("td").first.text_content() for row in rows.all()[:6]]
    assert numbers == ["1", "2", "3", "4", "5", "6"]


def test_the_end_of_the_events_is_told(page: Page, domains: Server) -> None:
    page.goto(site(domains, "live", "/?count=2&interval=0.01"))
    expect(page.locator("#stream-state")).to_have_text("done")


def test_the_websocket_sends_back_what_the_page_sends(page: Page, domains: Server) -> None:
    page.goto(site(domains, "live", "/?count=1"))
    expect(page.locator("#socket-state")).to_have_text("open")
    for text in ("Hello, turtle", "zażółć 🐢"):
        page.fill("#message", text)
        page.click("#send")
    expect(page.locator("#echoes li")).to_have_text(["Hello, turtle", "zażółć 🐢"])
