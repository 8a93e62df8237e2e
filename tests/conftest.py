"""What every test file shares: paths, the browser, and the closing table of what ran."""

import os
import shutil
from pathlib import Path

import pytest
from IPython.core.interactiveshell import InteractiveShell

from helpers import quiet
from tools import cells, publish

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
GET_CHROMIUM = "install Chromium (Debian, Ubuntu: apt-get install chromium) or Chrome"


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return cells.ROOT


@pytest.fixture(scope="session")
def address() -> str:
    """The course's public address."""
    return publish.repository()


@pytest.fixture
def no_waiting_for_the_disk(monkeypatch):
    """Files are as complete without it, unless the power fails during a test."""
    monkeypatch.setattr(os, "fsync", lambda number: None)


@pytest.fixture(scope="module")
def shell():
    """An IPython shell, as a notebook has one."""
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


@pytest.fixture(scope="module")
def tf():
    """TensorFlow, imported when a test first asks for it."""
    quiet.tensorflow_greeting()
    return pytest.importorskip("tensorflow")


@pytest.fixture
def drawn(request, monkeypatch) -> list:
    """The figures and alternative texts that the test file's module DRAWS makes, not rendered."""
    made = []
    monkeypatch.setattr(request.module.DRAWS, "figure", lambda fig, alt: made.append((fig, alt)))
    return made


@pytest.fixture(scope="session")
def chromium() -> str | None:
    """Where Chromium lies, None where there is none."""
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


def group(nodeid: str) -> str:
    """Which line of the closing table a test belongs to."""
    name = Path(nodeid.split("::")[0]).stem
    return {
        "test_lint": "lint",
        "test_notebooks": "style",
        "test_lessons": "lessons",
        "test_browser": "browser",
    }.get(name, "units")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Cheap and telling first; then the lessons, which one process runs while another has units."""
    order = ["lint", "style", "lessons", "units", "browser"]
    items.sort(key=lambda item: order.index(group(item.nodeid)))


def pytest_terminal_summary(terminalreporter) -> None:
    """Print what ran, a line for each kind of test."""
    reports: dict[str, list] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in terminalreporter.stats.get(outcome, []):
            reports.setdefault(group(report.nodeid), []).append(report)
    if not reports:
        return
    terminalreporter.section("what ran")
    for name, describe in SUMMARY.items():
        mine = reports.get(name, [])
        failed = sum(report.failed for report in mine)
        verdict = "-" if not mine else f"{failed} FAILED" if failed else "ok"
        terminalreporter.write_line(
            f"{name:<10} {verdict:<9} {describe(mine) if mine else 'not run'}"
        )


def plain(kind: str):
    """A line that counts."""

    def describe(reports: list) -> str:
        passed = sum(report.passed for report in reports)
        skipped = sum(report.skipped for report in reports)
        return f"{passed} {kind}" + (f", {skipped} skipped" if skipped else "")

    return describe


def lessons(reports: list) -> str:
    """What the solved notebooks and the stubs have shown, over all notebooks."""
    said = [dict(report.user_properties) for report in reports]
    passed, checks, compared, stubs = (
        sum(one.get(name, 0) for one in said) for name in ("passed", "checks", "compared", "stubs")
    )
    return (
        f"{passed}/{checks} checks passed in solved notebooks, {compared} outputs compared; "
        f"{stubs} stubs said that they are untouched"
    )


def browser(reports: list) -> str:
    """Whether a real browser was there, and how to get one."""
    if any(report.skipped for report in reports):
        return f"skipped: {GET_CHROMIUM}"
    return "JupyterLab and notebook 00 in Chromium"


SUMMARY = {
    "lint": plain("checks of code, notebooks and prose"),
    "style": plain("checks of the notebooks' form"),
    "units": plain("unit tests"),
    "lessons": lessons,
    "browser": browser,
}
