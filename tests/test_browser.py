"""In a real browser: a learner opens notebook 00, runs it, sees a picture and passes a check."""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest

from tests.conftest import GET_CHROMIUM
from tools import cells

NOTEBOOK = "00_start_here"
LIFE_S = 480
STEP_MS = 120_000

CHROMIUM_ARGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# All cells in the page at once, and no question about news from the network.
LAB_SETTINGS = {
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false"},
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def shipped(tmp_path):
    """A learner's copy of notebook 00 as shipped, without the outputs that were stored with it."""
    notebook = cells.read(cells.NOTEBOOKS / f"{NOTEBOOK}.ipynb")
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    cells.write(notebook, tmp_path / "notebooks" / f"{NOTEBOOK}.ipynb")
    return notebook


@pytest.fixture
def lab(shipped, tmp_path):
    """The address of a JupyterLab that `make lab`'s command started in the learner's folder."""
    for name, content in LAB_SETTINGS.items():
        setting = tmp_path / "settings" / name
        setting.parent.mkdir(parents=True, exist_ok=True)
        setting.write_text(json.dumps(content))
    port, token = free_port(), secrets.token_hex(16)
    command = [
        *(sys.executable, "-m", "jupyter", "lab", "--no-browser", f"--port={port}"),
        *("--ip=127.0.0.1", "--ServerApp.port_retries=0", f"--IdentityProvider.token={token}"),
        # Should this test be killed, the server ends by itself.
        f"--ServerApp.shutdown_no_activity_timeout={LIFE_S}",
        *(["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []),
        f"notebooks/{NOTEBOOK}.ipynb",
    ]
    own = {
        "JUPYTER_PREFER_ENV_PATH": "1",
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
    }
    log = tmp_path / "lab.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=os.environ | own,
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(server, f"{url}/api/status?token={token}", log)
        yield f"{url}/lab/tree/{NOTEBOOK}.ipynb?token={token}"
    finally:
        stop(server)


def wait_for(server, url, log):
    """Return when the server answers; fail with its log when it does not."""
    end = time.monotonic() + 300
    while server.poll() is None and time.monotonic() < end:
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=60)
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"JupyterLab does not answer:\n{log.read_text()[-2000:]}")


def stop(server):
    """End the server and the kernels that it started, by their process numbers."""
    with_kernels = [server.pid]
    if server.poll() is None:
        with_kernels += [child.pid for child in psutil.Process(server.pid).children(recursive=True)]
        server.terminate()
    for pid in with_kernels:
        try:
            psutil.Process(pid).wait(timeout=10)
        except psutil.TimeoutExpired:
            psutil.Process(pid).kill()
        except psutil.NoSuchProcess:
            continue


@pytest.fixture
def page(lab, chromium, root, tmp_path):
    """A browser window that shows notebook 00 in JupyterLab."""
    playwright_api = pytest.importorskip("playwright.sync_api")
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            tmp_path / "profile",
            executable_path=chromium,
            headless=True,
            args=CHROMIUM_ARGS,
            viewport={"width": 1280, "height": 1400},
        )
        browser.set_default_timeout(STEP_MS)
        try:
            page = browser.pages[0]
            page.goto(lab)
            yield page
            # What a person would have seen, after a failure as well.
            root.joinpath("build").mkdir(exist_ok=True)
            page.screenshot(path=root / "build" / "browser.png")
        finally:
            browser.close()


def cell(page, notebook, tag):
    """The cell on the page that stands where the notebook's cell with this tag stands."""
    place = next(i for i, c in enumerate(notebook.cells) if tag in cells.tags(c))
    return page.locator(".jp-Notebook .jp-Cell").nth(place)


@pytest.fixture(autouse=True)
def browser_is_there(chromium):
    if chromium is None:
        if os.environ.get("COURSE_REQUIRE_BROWSER") == "1":
            pytest.fail(f"no browser, and COURSE_REQUIRE_BROWSER=1: {GET_CHROMIUM}")
        pytest.skip(f"no browser: {GET_CHROMIUM}")


def test_notebook_00_runs_shows_a_picture_and_passes_a_right_answer(page, shipped, root):
    from playwright.sync_api import expect

    expect.set_options(timeout=STEP_MS)
    code = [c for c in shipped.cells if c.cell_type == "code"]
    expect(page.locator(".jp-Notebook .jp-Cell")).to_have_count(len(shipped.cells))
    # Cells that are run before the kernel is there stay unrun, without a word.
    page.get_by_text("Python 3 (ipykernel) | Idle").wait_for()
    assert page.locator(".jp-OutputArea-output img").count() == 0

    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    last = page.locator(".jp-Notebook .jp-CodeCell .jp-InputPrompt").last
    expect(last).to_have_text(f"[{len(code)}]:")

    picture = page.locator(".jp-OutputArea-output img").first
    picture.scroll_into_view_if_needed()
    assert picture.evaluate("image => image.complete && image.naturalWidth") > 100
    (root / "build").mkdir(exist_ok=True)
    page.screenshot(path=root / "build" / "browser_picture.png")
    assert page.locator("[data-mime-type='application/vnd.jupyter.stderr']").count() == 0
    check = cell(page, shipped, "check")
    expect(check.locator(".jp-OutputArea-output")).to_contain_text("not attempted yet")

    answer = cells.solution_code(
        next(c.source for c in shipped.cells if "solution" in cells.tags(c))
    )
    cell(page, shipped, "exercise").locator(".cm-content").click()
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.insert_text(answer)
    page.keyboard.press("Shift+Enter")
    check.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    expect(check.locator(".jp-OutputArea-output")).to_contain_text("✓")
    check.scroll_into_view_if_needed()
