"""The form that makes a job: what is wrong is said beside the field, and lists are filled in as rows."""

import json
from collections.abc import Callable
from typing import Any

from playwright.sync_api import Page, expect

from innerloop.service.jobs.job import Kind
from service.dashboard.served import Service, path

REFUSED = "status of 422"
"""What Chromium reports of a request that the service refuses."""


def test_what_is_wrong_is_said_beside_its_field(served: Service, open_page: Callable[..., Page]) -> None:
    page = open_page(expected=(REFUSED,))
    page.goto(f"{served.address}/#/new/tasks")
    episodes = page.get_by_label("Total episodes")
    episodes.fill("many")
    page.get_by_label("Adaptation episodes").fill("[1, 2]")
    page.get_by_role("button", name="Create job").click()
    field = page.locator("[data-field=total_episodes]")
    expect(field.locator(".wrong")).to_contain_text("valid integer")
    expect(episodes).to_have_attribute("aria-invalid", "true")
    expect(episodes).to_be_focused()
    described = (episodes.get_attribute("aria-describedby") or "").split()
    assert field.locator(".wrong").get_attribute("id") in described
    inner = page.locator("[data-field=evaluation] [data-field=adaptation_episodes] .wrong")
    expect(inner).to_contain_text("must begin with 0")

    episodes.fill("4")
    page.get_by_label("Task distribution").fill('{"kubernetes_scaling": ')
    page.get_by_role("button", name="Create job").click()
    expect(page.locator("[data-field=task_distribution] .wrong")).to_contain_text("no JSON")
    expect(field.locator(".wrong")).to_be_empty()


def test_a_field_that_is_folded_away_is_shown_when_it_is_wrong(
    served: Service, open_page: Callable[..., Page]
) -> None:
    page = open_page(expected=(REFUSED,))
    page.goto(f"{served.address}/#/new/tasks")
    page.get_by_text("More settings").click()
    page.get_by_label("Learning rate").fill("-1")
    page.get_by_text("More settings").click()
    page.get_by_role("button", name="Create job").click()
    expect(page.locator("[data-field=learning_rate] .wrong")).to_contain_text("greater than 0")
    expect(page.get_by_label("Learning rate")).to_be_focused()


def test_examples_are_rows(served: Service, page: Page) -> None:
    page.goto(f"{served.address}/#/new/adaptations")
    field = page.locator("[data-field=examples]")
    rows = field.locator("li")
    expect(rows).to_have_count(6)
    field.get_by_role("button", name="Add a row").click()
    expect(field.get_by_label("Prompt").last).to_be_focused()
    pasted = "The card was refused.\tbilling\nThe server is down.\toutage"
    field.get_by_label("Prompt").last.evaluate(
        """(cell, text) => {
          const data = new DataTransfer();
          data.setData("text", text);
          cell.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, cancelable: true }));
        }""",
        pasted,
    )
    expect(rows).to_have_count(8)
    field.get_by_role("button", name="Remove this row").first.click()
    page.get_by_label("Start at once").uncheck()
    page.get_by_role("button", name="Create job").click()
    page.wait_for_url("**/jobs/adaptations/*")
    made = served.client.get(path({"kind": "adaptations", "id": page.url.rpartition("/")[2]})).json()
    assert made["state"] == "pending"
    assert made["examples"][-1] == {"prompt": "The server is down.", "response": "outage"}
    assert len(made["examples"]) == 7


def test_other_jobs_are_chosen_by_their_names(
    served: Service, done: list[dict[str, Any]], page: Page
) -> None:
    page.goto(f"{served.address}/#/new/transfer-tasks")
    source = page.get_by_label("Source task ID")
    source.select_option(label="calm learning (tasks, completed)")
    assert source.input_value() == done[0]["id"]
    assert "pending" not in source.inner_text()


def test_a_job_is_duplicated(served: Service, page: Page) -> None:
    family = {"kubernetes_scaling": {"max_pods": [3, 5], "steps": 7}}
    job = served.job(Kind.META, start=False, name="the first", inner_lr=0.05, task_distribution=family)
    page.goto(f"{served.address}/#/jobs/meta-tasks/{job['id']}")
    page.get_by_role("link", name="Duplicate").click()
    page.get_by_label("Name").fill("the second")
    page.get_by_label("Start at once").uncheck()
    page.get_by_role("button", name="Create job").click()
    expect(page.get_by_role("heading", name="the second")).to_be_visible()
    made = served.client.get(path({"kind": "meta-tasks", "id": page.url.rpartition("/")[2]})).json()
    ours = {"id", "name", "created_at", "updated_at"}
    assert {key: made[key] for key in made.keys() - ours} == {key: job[key] for key in job.keys() - ours}


def test_the_command_shown_is_the_request(served: Service, page: Page) -> None:
    page.goto(f"{served.address}/#/new/tasks")
    page.get_by_label("Name").fill("it's by curl")
    page.get_by_text("The same by curl").click()
    shown = page.locator(".job-form > details pre")
    expect(shown).to_contain_text("-d '")
    command = shown.inner_text()
    body = command.partition("-d '")[2].rpartition("'")[0].replace("'\\''", "'")
    assert json.loads(body)["name"] == "it's by curl"
    assert f"{served.address}/api/training/tasks" in command
