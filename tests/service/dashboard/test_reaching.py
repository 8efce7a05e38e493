"""Who can use the dashboard: by keyboard alone, by night, on a phone, with a token, on a bad line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from innerloop.service.jobs.job import Kind
from service.dashboard.served import Service, service

TOKEN = "more-than-sixteen-letters"

AUDIT = (Path(__file__).parent / "audit.js").read_text(encoding="utf-8").rstrip(";\n")
"""What no page may have: pale text, controls without a name, more width than the window."""


def pages(done: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Addresses of all kinds of pages, and what is there once they are drawn."""
    one, other = done
    return [
        ("#/jobs", ".job"),
        (f"#/jobs/tasks/{one['id']}", "[data-chart=return] .line, [data-result=curves] .band"),
        (f"#/compare?jobs=tasks:{one['id']},tasks:{other['id']}", ".board .plot .line"),
        ("#/new", ".kind"),
        ("#/new/adaptations", ".job-form"),
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_pages_can_be_read(
    served: Service, done: list[dict[str, Any]], open_page: Callable[..., Page], theme: str, width: int
) -> None:
    page = open_page(color_scheme=theme, viewport={"width": width, "height": 800}, reduced_motion="reduce")
    for address, drawn in pages(done):
        page.goto(f"{served.address}/{address}")
        page.locator(drawn).first.wait_for()
        assert page.evaluate(AUDIT) == {"pale": [], "nameless": [], "tooWide": 0}, address


def test_the_theme_follows_the_system_until_one_is_chosen(
    served: Service, open_page: Callable[..., Page]
) -> None:
    page = open_page(color_scheme="dark")
    page.goto(f"{served.address}/")
    ground = "getComputedStyle(document.body).backgroundColor"
    night = page.evaluate(ground)
    switch = page.get_by_role("button", name="Dark theme")
    expect(switch).to_have_attribute("aria-pressed", "true")
    page.emulate_media(color_scheme="light")
    expect(switch).to_have_attribute("aria-pressed", "false")
    assert page.evaluate(ground) != night
    switch.click()
    assert page.evaluate(ground) == night
    page.reload()
    expect(switch).to_have_attribute("aria-pressed", "true")
    assert page.evaluate(ground) == night


def tab_to(page: Page, name: str) -> None:
    """Presses Tab until something with the name has the focus, which must be seen to be there."""
    for _ in range(60):
        page.keyboard.press("Tab")
        found = page.evaluate(
            "[document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim(),"
            " document.activeElement.matches(':focus-visible')]"
        )
        if found == [name, True]:
            return
    raise AssertionError(f"Tab does not lead to {name!r}")


def test_everything_goes_by_keyboard(served: Service, page: Page) -> None:
    served.job(Kind.TASKS, start=False, name="found by keyboard")
    page.goto(f"{served.address}/")
    page.locator(".job").first.wait_for()
    tab_to(page, "Skip to the content")
    page.keyboard.press("/")
    expect(page.get_by_label("Search by name")).to_be_focused()
    page.keyboard.type("found by keyboard")
    expect(page.locator(".job")).to_have_count(1)
    tab_to(page, "found by keyboard")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="found by keyboard")).to_be_focused()

    tab_to(page, "Delete")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    expect(page.get_by_role("button", name="Delete")).to_be_focused()

    page.keyboard.press("/")
    expect(page.get_by_role("heading", name="Jobs")).to_be_focused()
    tab_to(page, "New job")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="New job")).to_be_focused()
    page.locator(".kind").first.focus()
    page.keyboard.press("Enter")
    page.get_by_label("Name").focus()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("made by keyboard")
    page.get_by_label("Start at once").focus()
    page.keyboard.press("Space")
    page.get_by_label("Name").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="made by keyboard")).to_be_focused()
    expect(page.locator("main .state").first).to_have_text("pending")


def test_a_token_is_asked_for_and_an_empty_service_says_what_to_do(
    tmp_path: Path, open_page: Callable[..., Page]
) -> None:
    page = open_page(expected=("status of 401",))
    with service(tmp_path, workers=0, token=TOKEN) as guarded:
        page.goto(f"{guarded.address}/")
        prompt = page.get_by_role("dialog", name="This service asks for a token")
        expect(prompt.get_by_label("Token")).to_be_focused()
        page.keyboard.press("Escape")
        expect(page.get_by_role("alert").first).to_contain_text("token")
        page.get_by_role("button", name="Try again").click()
        prompt.get_by_label("Token").fill("not-the-token-whatever-it-is")
        page.keyboard.press("Enter")
        expect(prompt).to_contain_text("not accepted")
        prompt.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Nothing here yet")).to_be_visible()
        page.get_by_role("button", name="Run an example job").click()
        expect(page.locator("main .state").first).to_have_text("queued")
        page.reload()
        expect(page.locator("main .state").first).to_have_text("queued")
        assert prompt.count() == 0
        assert page.evaluate("localStorage.length") == 0
        job = page.url.rpartition("/")[2]
        assert guarded.client.get(f"/api/training/tasks/{job}").json()["name"] == "scaling by PPO"
        page.goto("about:blank")


def test_a_service_that_is_not_reached_is_told_of(
    served: Service, done: list[dict[str, Any]], open_page: Callable[..., Page]
) -> None:
    page = open_page(expected=("ERR_FAILED",))
    page.goto(f"{served.address}/")
    page.locator(".job").first.wait_for()
    page.route("**/api/**", lambda route: route.abort())
    banner = page.locator("#banner")
    expect(banner).to_contain_text("cannot be reached")
    expect(page.locator(".job").first).to_be_visible()
    page.unroute("**/api/**")
    banner.get_by_role("button", name="Try now").click()
    expect(banner).to_be_empty()


def test_nothing_of_a_job_is_read_as_html(served: Service, page: Page) -> None:
    name = "<img src=x onerror=alert(1)>"
    job = served.job(Kind.TASKS, start=False, name=name, description="<b>bold</b>")
    page.goto(f"{served.address}/#/jobs/tasks/{job['id']}")
    expect(page.get_by_role("heading", level=1)).to_have_text(name)
    assert page.locator("main img, main b:text('bold')").count() == 0
