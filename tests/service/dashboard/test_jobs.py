"""The way of a job through the dashboard: submitted, watched, cancelled, failed, deleted, downloaded."""

import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from innerloop.service.jobs.job import Kind
from service.dashboard.served import Service, path

LONG = 5000
"""Episodes that take minutes; the tests do not wait for them."""


def job_page(served: Service, job: dict[str, Any]) -> str:
    return f"{served.address}/#/jobs/{job['kind']}/{job['id']}"


def points(page: Page, chart: str) -> int:
    """Points that a chart shows."""
    return int(page.locator(f"[data-chart={chart}] .plot").get_attribute("data-points") or 0)


def wait_for_points(page: Page, chart: str, least: int) -> None:
    page.wait_for_function(
        "([chart, least]) => document.querySelector(`[data-chart=${chart}] .plot`)?.dataset.points >= least",
        arg=[chart, least],
    )


def test_a_job_is_submitted_watched_paused_and_cancelled(served: Service, page: Page) -> None:
    page.goto(f"{served.address}/")
    page.get_by_role("link", name="New job").first.click()
    page.get_by_role("link", name="Training task").click()
    form = page.get_by_role("form", name="New Training task")
    form.get_by_label("Name").fill("watched by a test")
    form.get_by_label("Total episodes").fill(str(LONG))
    expect(form.get_by_label("Start at once")).to_be_checked()
    form.get_by_role("button", name="Create job").click()

    expect(page.get_by_role("heading", name="watched by a test")).to_be_visible()
    state = page.locator("main .state").first
    expect(state).to_have_text("running")
    wait_for_points(page, "return", 2)
    wait_for_points(page, "return", points(page, "return") + 3)
    bar = page.get_by_role("progressbar")
    expect(bar).to_have_attribute("aria-valuetext", re.compile(rf"episode [1-9]\d* of {LONG}"))

    page.get_by_role("button", name="Pause").click()
    expect(state).to_have_text("paused")
    page.get_by_role("button", name="Resume").click()
    expect(state).to_have_text("running")
    page.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog", name="Cancel this job?")
    dialog.get_by_role("button", name="Cancel the job").click()
    expect(state).to_have_text("cancelled")
    expect(page.locator("#announcer")).to_have_text("watched by a test: cancelled")
    assert page.get_by_role("button", name="Cancel").count() == 0


def test_the_error_of_a_failed_job_is_seen(served: Service, page: Page) -> None:
    source = served.job(Kind.TASKS, start=False, name="never started")
    failing = served.job(
        Kind.TRANSFER, name="from nothing", source_task_id=source["id"], target_task_id=source["id"]
    )
    page.goto(job_page(served, failing))
    alert = page.locator(".failure")
    expect(alert).to_contain_text("The job failed")
    message = served.over(failing)["error_message"]
    assert message
    expect(alert).to_contain_text(message)
    page.get_by_role("link", name="Jobs", exact=True).first.click()
    expect(page.locator(f"[data-id='{failing['id']}'] .trouble")).to_have_text(message)


def test_results_are_drawn(served: Service, done: list[dict[str, Any]], page: Page) -> None:
    page.goto(job_page(served, done[0]))
    results = page.get_by_role("region", name="Results")
    expect(results.locator("[data-result=curves] .band")).to_have_count(2)
    found = served.client.get(f"{path(done[0])}/results").json()["results"]
    expect(results.locator(".line.level")).to_have_count(len(found["baselines"]))
    expect(results.get_by_role("row", name="best fixed, in hindsight")).to_be_visible()
    expect(results).to_contain_text("SLO violations")
    expect(page.get_by_role("log")).to_contain_text("run step 1/4")
    expect(page.get_by_role("region", name="Settings")).to_contain_text("learning_rate")


def test_a_chart_tells_its_values(served: Service, done: list[dict[str, Any]], page: Page) -> None:
    page.goto(job_page(served, done[0]))
    wait_for_points(page, "return", 4)
    plot = page.locator("[data-chart=return] .plot")
    values = served.client.get(f"{path(done[0])}/metrics?name=ppo/return").json()["values"]
    assert "4 points" not in (plot.get_attribute("aria-label") or "")
    plot.focus()
    page.keyboard.press("End")
    tip = plot.locator(".tip")
    expect(tip).to_contain_text("step 4")
    shown = (tip.locator("span b").inner_text()).replace("\N{MINUS SIGN}", "-")
    assert abs(float(shown) - values[-1]["value"]) < 0.01
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    page.get_by_label("Smoothing").fill("0.5")
    expect(plot.locator(".line.behind")).to_have_count(1)


def test_the_model_is_downloaded(
    served: Service, done: list[dict[str, Any]], page: Page, tmp_path: Path
) -> None:
    page.goto(job_page(served, done[0]))
    with page.expect_download() as download:
        page.get_by_role("button", name="Download model").click()
    download.value.save_as(tmp_path / "model.zip")
    assert zipfile.ZipFile(tmp_path / "model.zip").namelist()


def test_a_job_is_deleted_after_a_question(served: Service, page: Page) -> None:
    job = served.job(Kind.TASKS, start=False, name="to be deleted")
    page.goto(job_page(served, job))
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Jobs")).to_be_visible()
    assert served.client.get(path(job)).status_code == 404


def test_the_list_filters_searches_and_pages(served: Service, done: list[dict[str, Any]], page: Page) -> None:
    for number in range(27):
        served.job(Kind.LLM, start=False, name=f"words {number:02}")
    page.goto(f"{served.address}/#/jobs?kind=llm-tasks&state=pending")
    rows = page.locator(".job")
    expect(rows).to_have_count(25)
    expect(rows.first).to_contain_text("words 26")
    page.get_by_role("button", name="Older").click()
    expect(rows).to_have_count(2)
    expect(rows.last).to_contain_text("words 00")
    page.get_by_label("Search by name").fill("1 WORDS")
    expect(rows).to_have_count(12)  # 01, 10 to 19, 21
    page.reload()
    expect(rows).to_have_count(12)
    page.get_by_label("Search by name").fill("nothing is called so")
    page.get_by_role("button", name="Clear the filters").click()
    page.get_by_label("Search by name").fill("learning")
    expect(rows).to_have_count(2)
    expect(rows.filter(has_text="calm learning").locator(".state")).to_have_text("completed")


def test_two_jobs_are_compared(served: Service, done: list[dict[str, Any]], page: Page) -> None:
    page.goto(f"{served.address}/#/jobs?search=learning")
    for job in done:
        page.get_by_label(f"Compare {job['name']}").check()
    page.get_by_role("region", name="Comparison").get_by_role("link", name="Compare").click()
    expect(page.locator(".board .line")).to_have_count(2 + 2)  # and two in the legend
    expect(page.locator(".board .plot")).to_have_attribute("data-points", "10")
    row = page.get_by_role("row", name="learning_rate")
    expect(row).to_contain_text("0.001")
    expect(row).to_contain_text("0.01")
    page.get_by_label("Metric").select_option("value_loss")
    page.wait_for_url("**metric=value_loss")
    expect(page.locator(".board .plot")).to_have_attribute("data-points", "10")
    page.reload()
    expect(page.get_by_label("Metric")).to_have_value("value_loss")
    page.get_by_role("group", name="Jobs").get_by_label("hasty learning").uncheck()
    expect(page.locator(".board .plot")).to_have_attribute("data-points", "4")


def test_a_broken_stream_goes_on_where_it_was(
    served: Service, done: list[dict[str, Any]], open_page: Callable[..., Page]
) -> None:
    page = open_page()
    asked: list[str | None] = []

    def breaking(route: Any) -> None:
        asked.append(route.request.headers.get("last-event-id"))
        if len(asked) > 1:
            route.continue_()
            return
        row = '{"number": 1, "step": 1, "name": "ppo/return", "value": -3.5}'
        body = f"id: 0-1-0\r\nevent: metrics\r\ndata: [{row}]\r\n\r\nid: 0-2-0\r\nevent: metr"
        route.fulfill(status=200, content_type="text/event-stream", body=body)

    page.route("**/events", breaking)
    page.goto(job_page(served, done[1]))
    wait_for_points(page, "return", 6)
    assert asked == [None, "0-1-0"]
    assert points(page, "return") == 6
