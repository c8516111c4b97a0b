"""Takes the pictures of docs/pictures from the pages of real sweeps.

    python docs/pictures.py RESULTS SWEEP [OTHER]

RESULTS is a folder of sweeps that were analyzed, which writes their log, too. SWEEP is the name of the one whose
report is shown; with OTHER, the two are compared as well. Needs Playwright (`make .venv/.ready-dev`) and Chromium.
"""

from pathlib import Path
from shutil import which
from typing import Annotated, Any

import typer
from playwright.sync_api import Browser, sync_playwright

PICTURES = Path(__file__).parent / "pictures"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
DESKTOP, PHONE, PAPER = (1280, 1400), (390, 1200), (794, 1123)  # the last is A4 at 96 dots per inch


def take(
    browser: Browser, name: str, page: Path, size: tuple[int, int], fragment: str = "", **how: Any
) -> None:
    """Write the top of a page as a picture of a size in pixels."""
    opened = browser.new_page(viewport={"width": size[0], "height": size[1]})
    if how:
        opened.emulate_media(**how)
    opened.goto(f"{page.resolve().as_uri()}#{fragment}")
    opened.wait_for_load_state("networkidle")
    opened.wait_for_timeout(1500)  # milliseconds in which the charts are drawn
    opened.screenshot(path=PICTURES / f"{name}.png")
    opened.close()


def main(results: Path, sweep: str, other: Annotated[str | None, typer.Argument()] = None) -> None:
    """Write pictures of the report of SWEEP, of the index and of the log, and one of it compared with OTHER."""
    PICTURES.mkdir(exist_ok=True)
    report = results / sweep / "analysis" / "report.html"
    with sync_playwright() as playwright:
        chromium = which("chromium") or which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        take(browser, "report", report, DESKTOP)
        take(browser, "phone", report, PHONE)
        take(browser, "paper", report, PAPER, media="print")
        take(browser, "index", results / "index.html", (DESKTOP[0], 600))
        take(browser, "log", results / "EXPERIMENT_LOG.html", DESKTOP)
        if other is not None:
            take(browser, "compare", results / "compare.html", DESKTOP, f"sweeps={sweep},{other}")
        browser.close()


if __name__ == "__main__":
    typer.run(main)
