"""A service with two small jobs done, Debian's Chromium, and pages that complain of what no page may do."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from innerloop.service.jobs.job import Kind
from service.dashboard.served import Service, service

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

PATIENCE = 180_000
"""Milliseconds; a busy machine is slow, and that is no fault of the dashboard's."""

WATCH_POLICY = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(`${event.violatedDirective}: ${event.blockedURI || event.sourceFile}`);
});
"""

OpenPage = Callable[..., Any]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with two workers, so that a job that takes long keeps no other one waiting."""
    with service(tmp_path_factory.mktemp("dashboard"), workers=2) as running:
        yield running


@pytest.fixture(scope="session", autouse=True)
def started(served: Service) -> list[dict[str, Any]]:
    """Two trainings that differ in their learning rates; they run while the first tests do."""
    return [
        served.job(Kind.TASKS, name="calm learning", learning_rate=1e-3, total_episodes=4),
        served.job(Kind.TASKS, name="hasty learning", learning_rate=1e-2, total_episodes=6),
    ]


@pytest.fixture(scope="session")
def done(served: Service, started: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """These trainings, completed."""
    jobs = [served.over(job) for job in started]
    assert [job["state"] for job in jobs] == ["completed", "completed"]
    return jobs


# Each module has a browser of its own: while one is open, the event loop of the thread is playwright's, and
# tests of other folders may want one.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    found = shutil.which("chromium") or "/usr/bin/chromium"
    if not Path(found).exists():
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:
    """Opens pages in contexts of their own; at the end none may have had an error or broken the policy.

    What a test expects the browser to report, such as a refused request, it names in ``expected``.
    """
    opened: list[tuple[Any, list[str], tuple[str, ...]]] = []

    def open_page(expected: tuple[str, ...] = (), **options: Any) -> Any:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        context.set_default_timeout(PATIENCE)
        context.add_init_script(WATCH_POLICY)
        page, errors = context.new_page(), []
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        opened.append((page, errors, expected))
        return page

    playwright.expect.set_options(timeout=PATIENCE)
    yield open_page
    for page, errors, expected in opened:
        assert page.evaluate("window.violations") == []
        assert [error for error in errors if not any(part in error for part in expected)] == []
        page.context.close()


@pytest.fixture
def page(open_page: OpenPage) -> Any:
    """A page of usual size, by day."""
    return open_page()
