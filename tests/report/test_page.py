"""The report as a person opens it: from the disk, in a browser, without a network."""

import base64
import http.client
import itertools
import json
import os
import pty
import re
import shlex
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conducting import NOPE, RETUNE, SEEDS, conduct, is_bare, study, worth
from ledgers import (
    BUDGET,
    EVERY,
    Story,
    analyzed,
    audited_sweep,
    confirmed_sweep,
    ended,
    loss,
    lr_sweep,
    shares_sweep,
    story,
    studied,
    two_draws,
)
from playwright.sync_api import Browser, Page, sync_playwright
from typer.testing import CliRunner

from sweeps import stats, watch
from sweeps.exits import UsageError
from sweeps.findings.everything import Reader, findings
from sweeps.ledger import Files, Ledger, fold
from sweeps.outcomes import RULES
from sweeps.report import index, log_page
from sweeps.report import page as report
from sweeps.report import server as web
from sweeps.report.plots import look
from sweeps.steering import Inbox, Request
from tinylm import config as cfg

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
# A sandbox needs rights that a container has not; the rest calls home.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
HOSTILE = "<script>window.hacked = 1</script> \"quoted\" | 'so' \u202eright to left"
SHOWN = HOSTILE.replace("\u202e", r"\u202e")  # what would turn the text around is written out


def needs_browser(test: Callable[..., None]) -> Callable[..., None]:
    """A test that `make test` leaves out, and that is skipped where there is no Chromium."""
    missing = not CHROMIUM and not os.environ.get("CI")
    skip = pytest.mark.skipif(missing, reason="needs Chromium (Debian: package chromium)")
    return pytest.mark.slow(skip(test))


def page_of(folder: Path) -> dict[str, Any]:
    """What the page of a sweep holds."""
    return report.page(findings(studied(Files(folder))))


def written(folder: Path) -> Path:
    """The report of a sweep, as it is analysed."""
    return next(path for path in analyzed(Files(folder)).paths if path.name == "report.html")


def opened(folder: Path) -> Path:
    """The report of a sweep, without the other files of an analysis."""
    path = Files(folder).report
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(report.html(page_of(folder)))
    return path


@pytest.fixture(scope="module")
def lr_page(lr: Files) -> dict[str, Any]:
    return page_of(lr.folder)


def test_the_verdict_names_the_best_values_and_what_they_rest_on(lr_page: dict[str, Any]) -> None:
    best, _, stable = lr_page["verdict"]
    assert best.startswith("lr=0.002 is the best of 8: validation loss 3.")
    assert best.endswith(" nats per token at 786,432 tokens, with 1 seed.")
    assert stable.startswith(
        "Edge of stability: 0.008 is the highest stable rate and 0.016 the lowest"
    )


def test_the_table_is_ranked_and_the_rest_follows(lr_page: dict[str, Any]) -> None:
    assert [trial["rank"] for trial in lr_page["trials"]] == [1, 2, *[None] * 6]


def test_stopped_trials_are_listed_by_how_far_they_got_and_then_by_loss(
    lr_page: dict[str, Any],
) -> None:
    stopped = [trial["label"] for trial in lr_page["trials"] if trial["status"] == "stopped"]
    assert stopped == ["lr=0.004", "lr=0.008", "lr=0.0005", "lr=0.00025"]


def test_every_decision_is_a_mark_at_its_rung(lr_page: dict[str, Any]) -> None:
    fates = {one["label"]: [m["kind"] for m in one["marks"]] for one in lr_page["trials"]}
    assert fates["lr=0.002"][-1] == "finished"
    assert fates["lr=0.032"][-1] == "non-finite"
    assert fates["lr=0.00025"][-1] == "stopped"


def test_an_audited_trial_has_the_whole_curve_and_both_its_ends(tmp_path: Path) -> None:
    audited_sweep(tmp_path / "s", {2.0: 2.75})
    content = page_of(tmp_path / "s")
    trial = content["trials"][1]
    assert (trial["status"], trial["stopped_at"], trial["loss"]) == ("audited", 0, [5.0, 2.75])
    assert [mark["kind"] for mark in trial["marks"]] == ["stopped", "audited"]


def test_attempts_that_run_at_once_have_slots_of_their_own(tmp_path: Path) -> None:
    with Ledger(Files(tmp_path / "s"), clock=itertools.count().__next__) as ledger:
        tell = Story(ledger)
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3, 4e-3]}})
        one, two, three = (tell.plan({"optim.lr": lr}) for lr in (1e-3, 2e-3, 4e-3))
        tell.start(one)
        tell.start(two)
        tell.train(one, 1e-3, 1, 16)
        tell.finish(one)
        tell.start(three)
    bars = page_of(tmp_path / "s")["gantt"]["bars"]
    assert [(bar["trial"], bar["slot"]) for bar in bars] == [
        ("lr=0.001", 0),
        ("lr=0.002", 1),
        ("lr=0.004", 0),
    ]


def test_the_slots_are_devices_where_ray_gave_some(tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3, 4e-3]}})
        trials = [tell.plan({"optim.lr": lr}) for lr in (1e-3, 2e-3, 4e-3)]
        for trial, device in zip(trials, ("GPU 1", "GPU 0", "GPU 1"), strict=True):
            tell.start(trial)
            tell.measure(trial, EVERY, 3.0, device=device)
    gantt = page_of(tmp_path / "s")["gantt"]
    assert [*gantt["slots"]] == ["GPU 0", "GPU 1", "GPU 1"]
    assert [bar["slot"] for bar in gantt["bars"]] == [1, 0, 2]


def test_the_slots_are_of_hosts_where_several_trained(tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3, 4e-3]}})
        trials = [tell.plan({"optim.lr": lr}) for lr in (1e-3, 2e-3, 4e-3)]
        workers = ({"worker": "b:7"}, {"worker": "a:7", "device": "GPU 0"}, {"worker": "b:8"})
        for trial, where in zip(trials, workers, strict=True):
            tell.start(trial)
            tell.measure(trial, EVERY, 3.0, **where)
    assert [*page_of(tmp_path / "s")["gantt"]["slots"]] == ["a GPU 0", "b slot 1", "b slot 2"]


def test_what_happened_to_nodes_is_beside_the_slots(tmp_path: Path) -> None:
    nodes: list[dict[str, Any]] = [
        {"host": "a (10.0.0.1)", "state": "joined", "slots": 2},
        {"host": "b (10.0.0.2)", "state": "refused", "reason": "it has no torch"},
        {"host": "a (10.0.0.1)", "state": "lost"},
    ]
    with Ledger(Files(tmp_path / "s"), clock=itertools.count().__next__) as ledger:
        tell = Story(ledger)
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        ledger.append("node", **nodes[0])
        tell.start(tell.plan({"optim.lr": 1e-3}))
        ledger.append("node", **nodes[1])
        ledger.append("node", **nodes[2])
    assert page_of(tmp_path / "s")["gantt"]["nodes"] == [
        {"at": 0.0, "words": "a (10.0.0.1): joined: 2 trials at once"},
        {"at": 1.0, "words": "b (10.0.0.2): left out: it has no torch"},
        {"at": 2.0, "words": "a (10.0.0.1): lost"},
    ]


def test_a_trial_that_diverged_before_its_first_record_has_its_device(tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        trial = tell.plan({"optim.lr": 1e-3})
        tell.start(trial)
        tell.diverge(trial, EVERY // 2, device="GPU 1")
    assert [*page_of(tmp_path / "s")["gantt"]["slots"]] == ["GPU 1"]


def test_a_stopped_trial_frees_its_slot(tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        for lr in (1e-3, 2e-3):
            trial = tell.plan({"optim.lr": lr})
            tell.start(trial)
            tell.train(trial, lr, 1, 2)
            tell.stop(trial, 2 * EVERY, 3.0)
    assert [bar["slot"] for bar in page_of(tmp_path / "s")["gantt"]["bars"]] == [0, 0]


def test_a_sweep_under_way_says_how_many_trials_have_no_result(tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
        tell.plan({"optim.lr": 2e-3})
    verdict = page_of(tmp_path / "s")["verdict"]
    assert verdict[0].startswith("lr=0.001: validation loss 3.")
    assert "No result yet for 1 of 2 trials." in verdict


def test_sample_texts_stand_side_by_side_with_how_they_were_sampled(tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        best, base = tell.plan({"optim.lr": 1e-3}), tell.plan({"optim.lr": 2e-3})
        tell.whole(best, 1e-3)
        tell.whole(base, 2e-3)
        assert page_of(tmp_path / "s")["samples"] is None
        tell.sample(**{best: "Once upon a time", base: "Twice"})
    (setting,) = page_of(tmp_path / "s")["samples"]["settings"]
    assert setting["words"] == "temperature 0.8, top-p 0.95"
    assert [one["text"] for one in setting["texts"]] == ["Once upon a time", "Twice"]
    assert setting["texts"][1]["of"].startswith("lr=0.002, 512 updates, validation loss 3.")


def test_the_path_that_the_loss_depends_on_has_the_larger_share(tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({path: {"uniform": [0, 1]} for path in ("optim.lr", "optim.weight_decay")})
        for number in range(25):
            rate, decay = (1 + number % 5) / 1e3, (1 + number // 5) / 1e2
            tell.whole(tell.plan({"optim.lr": rate, "optim.weight_decay": decay}), rate)
    found = page_of(tmp_path / "s")["importance"]["shares"]
    assert found["optim.lr"] > 0.8
    assert found["optim.weight_decay"] == 0.0


def test_equal_losses_depend_on_no_path(tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({path: {"uniform": [0, 1]} for path in ("optim.lr", "optim.weight_decay")})
        for number in range(10):
            values = {"optim.lr": (1 + number) / 1e3, "optim.weight_decay": (1 + number) / 1e2}
            tell.whole(tell.plan(values), 2e-3)
    assert page_of(tmp_path / "s")["importance"] is None


def test_importance_is_known_where_all_trials_were_measured_though_few_finish(
    tmp_path: Path,
) -> None:
    two_draws(tmp_path / "s", 30)
    words = page_of(tmp_path / "s")["importance"]["words"]
    assert words.startswith(
        f"How much of the ranking of 30 trials at {2 * EVERY:,} tokens each path"
    )


def importance_of(folder: Path, order: Sequence[int], **paths: Sequence[Any]) -> dict[str, float]:
    """The shares of paths, given the values of each trial and the order of their losses."""
    domains = {
        "lr": {"loguniform": [1e-4, 1e-1]},
        "weight_decay": {"uniform": [0, 1]},
        "norm": {"choice": ["pre", "post", "none"]},
    }
    full = {"lr": "optim.lr", "weight_decay": "optim.weight_decay", "norm": "model.norm"}
    with story(folder) as tell:
        tell.ask({full[name]: domains[name] for name in paths})
        for rank, *values in zip(order, *paths.values(), strict=True):
            trial = tell.plan(dict(zip((full[name] for name in paths), values, strict=True)))
            tell.start(trial)
            tell.measure(trial, BUDGET, 3.0 + rank / 100)
            tell.finish(trial)
    return dict(page_of(folder)["importance"]["shares"])


RATES = [2.0**n / 1e4 for n in range(10)]
ODD = [0.31, 0.05, 0.9, 0.44, 0.72, 0.13, 0.58, 0.98, 0.22, 0.66]


def test_a_few_trials_do_not_hide_the_path_that_orders_them(tmp_path: Path) -> None:
    found = importance_of(tmp_path / "s", range(10), lr=RATES, weight_decay=ODD)
    assert next(iter(found)) == "optim.lr"
    assert found["optim.lr"] == pytest.approx(1.0)
    assert found["optim.weight_decay"] < 0.2


def test_a_minimum_inside_the_range_is_explained_too(tmp_path: Path) -> None:
    bowl = [abs(2 * n - 9) for n in range(10)]
    assert importance_of(tmp_path / "s", bowl, lr=RATES, weight_decay=ODD)["optim.lr"] > 0.9


def test_names_are_explained_by_the_mean_rank_of_each(tmp_path: Path) -> None:
    norms = ["pre"] * 4 + ["post"] * 3 + ["none"] * 3
    order = [7, 8, 9, 10, 1, 2, 3, 4, 5, 6]
    found = importance_of(tmp_path / "s", order, norm=norms, weight_decay=ODD)
    # Ranks of means 2, 5 and 8.5 miss a sum of squares of 2 + 2 + 5 of 82.5: 1 - (9 / 7) / (82.5 / 9).
    assert found["model.norm"] == pytest.approx(1 - (9 / 7) / (82.5 / 9))


def test_losses_are_known_at_each_point_that_trials_are_compared_at(
    lr_page: dict[str, Any],
) -> None:
    assert [level["words"] for level in lr_page["levels"]] == [
        "at 98,304 tokens",
        "at 294,912 tokens",
        "at 786,432 tokens",
    ]
    known = {one["label"]: [loss is not None for loss in one["at"]] for one in lr_page["trials"]}
    assert known["lr=0.002"] == [True, True, True]
    assert known["lr=0.004"] == [True, True, False]
    assert known["lr=0.016"] == [False, False, False]


def test_no_two_trials_have_one_label(tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 1.0000001e-3]}})
        for lr in (1e-3, 1.0000001e-3):
            tell.plan({"optim.lr": lr})
    labels = [trial["label"] for trial in page_of(tmp_path / "s")["trials"]]
    assert len(set(labels)) == 2
    assert all(label.startswith("lr=0.001 (") for label in labels)


def test_trials_that_differ_by_their_seeds_are_one_series(tmp_path: Path) -> None:
    ended(tmp_path / "s", "optim.lr", {1e-3: (3.0, 3.1), 2e-3: (3.2, 3.3)})
    series = page_of(tmp_path / "s")["series"]
    assert [(one["name"], len(one["trials"])) for one in series] == [
        ("lr=0.001", 2),
        ("lr=0.002", 2),
    ]


@pytest.mark.parametrize("scale", ["cpu", "smoke"])
def test_the_command_of_a_trial_gives_its_config(tmp_path: Path, scale: str) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}}, scale=scale)
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
    (trial,) = page_of(tmp_path / "s")["trials"]
    *_, config = studied(Files(tmp_path / "s")).trials
    words = shlex.split(trial["command"])
    after = {flag: [b for a, b in itertools.pairwise(words) if a == flag] for flag in words}
    trained = cfg.overlay(cfg.load(*after["--config"]), cfg.parse_assignments(after["--set"]))
    assert trained.model_dump() == config.config


def test_a_page_of_a_sweep_of_thirty_trials_is_below_six_megabytes(tmp_path: Path) -> None:
    two_draws(tmp_path / "s", 30)
    assert written(tmp_path / "s").stat().st_size < 6_000_000


def test_the_index_lists_every_sweep_with_its_verdict(tmp_path: Path) -> None:
    lr_sweep(tmp_path / "lr-cpu")
    text = index.write_index(tmp_path, Reader()).read_text()
    assert 'href="lr-cpu/analysis/report.html"' in text
    assert "lr=0.002 is the best of 8" in text


@contextmanager
def served(folder: Path, token: str = "") -> Iterator[tuple[web.Server, Story]]:
    """A sweep under way, and the pages of its folder being served, to be steered by who has the token."""
    with story(folder / "lr-cpu") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        trial = tell.plan({"optim.lr": 1e-3})
        tell.start(trial)
        tell.train(trial, 1e-3, 1, 3)
        server = web.Server(folder, 0, token)
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server, tell
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[web.Server, Story]]:
    """A sweep under way, and the pages of its folder being served."""
    with served(tmp_path) as found:
        yield found


TOKEN = "a-token"
DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="


@pytest.fixture
def steered(tmp_path: Path) -> Iterator[tuple[web.Server, Files, str]]:
    """Pages that steer a sweep under way, the sweep, and the id of the trial that trains."""
    with served(tmp_path, TOKEN) as (server, tell):
        yield server, tell.ledger.files, next(iter(tell.attempts))


PAGE = web.address_of("lr-cpu")
LIVE_FEED = f"/lr-cpu/{web.FEED}"


def ask(server: web.Server, path: str, host: str = "127.0.0.1") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=300)
    connection.request("GET", path, headers={"Host": f"{host}:{server.server_port}"})
    return connection.getresponse()


def test_the_feed_begins_with_all_that_is_known(live: tuple[web.Server, Story]) -> None:
    line = ask(live[0], LIVE_FEED).readline().decode()
    (trial,) = json.loads(line.removeprefix("data: "))["trials"]
    assert trial["tokens"] == [EVERY, 2 * EVERY, 3 * EVERY]


@pytest.mark.parametrize(
    ("path", "host", "status"),
    [
        ("/", "evil.example", 403),
        ("/../x", "127.0.0.1", 404),
        ("/lr-cpu/ledger.jsonl", "127.0.0.1", 404),
        ("/lr-cpu/analysis/../ledger.jsonl", "127.0.0.1", 404),
        ("/lr-cpu/analysis/%2e%2e%2fledger.jsonl", "127.0.0.1", 404),
        ("/lr-cpu/analysis/away.md", "127.0.0.1", 404),
        ("/../lr-cpu/feed", "127.0.0.1", 404),
    ],
)
def test_nothing_else_is_served(
    live: tuple[web.Server, Story], path: str, host: str, status: int
) -> None:
    analysis = live[0].folder / "lr-cpu" / "analysis"
    analysis.mkdir()
    (analysis / "away.md").symlink_to("/etc/passwd")
    assert ask(live[0], path, host).status == status


def test_what_lies_behind_a_linked_folder_is_not_served(
    live: tuple[web.Server, Story], tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "own.json").write_text("{}")
    (live[0].folder / "lr-cpu" / "analysis").symlink_to(elsewhere)
    assert ask(live[0], "/lr-cpu/analysis/own.json", "127.0.0.1").status == 404


@pytest.mark.parametrize("path", ["/", "/index.html"])
def test_the_index_links_the_page_of_each_sweep(live: tuple[web.Server, Story], path: str) -> None:
    assert f'href="{PAGE[1:]}"' in ask(live[0], path).read().decode()


def test_the_index_is_made_again_once_a_ledger_has_grown(live: tuple[web.Server, Story]) -> None:
    server, tell = live
    assert "results for 0 of 1" in ask(server, "/").read().decode()
    tell.plan({"optim.lr": 2e-3})
    assert "results for 0 of 2" in ask(server, "/").read().decode()


def test_what_an_analysis_wrote_is_served_as_it_is(live: tuple[web.Server, Story]) -> None:
    analysis = live[0].folder / "lr-cpu" / "analysis"
    analysis.mkdir()
    (analysis / "loss_vs_lr.png").write_bytes(b"picture")
    answer = ask(live[0], "/lr-cpu/analysis/loss_vs_lr.png")
    assert (answer.headers["Content-Type"], answer.read()) == ("image/png", b"picture")


def test_a_picture_of_somebodys_notes_is_served_and_nothing_beside_it(
    live: tuple[web.Server, Story],
) -> None:
    folder = live[0].folder
    (folder / "my notes").mkdir()
    (folder / "my notes" / "a b.jpg").write_bytes(b"picture")
    (folder / "my notes" / "away.png").symlink_to("/etc/hostname")
    (folder / "my notes" / "a.txt").write_bytes(b"text")
    answer = ask(live[0], "/my%20notes/a%20b.jpg")
    assert (answer.headers["Content-Type"], answer.read()) == ("image/jpeg", b"picture")
    others = ("/my%20notes/away.png", "/my%20notes/a.txt", "/../secret.png", "/%2e%2e/secret.png")
    assert [ask(live[0], path).status for path in others] == [404] * 4


@needs_browser
@pytest.mark.parametrize("is_served", [False, True], ids=["file", "served"])
def test_a_browser_shows_the_pictures_of_notes_and_asks_nobody_else(
    browser: Browser, live: tuple[web.Server, Story], is_served: bool
) -> None:
    server = live[0]
    text = (
        f"![a](lr-cpu/a.gif) ![b]({DOT}) ![c](https://example.org/c.png) ![d](//example.org/d.png)"
    )
    (server.folder / "lr-cpu" / "a.gif").write_bytes(base64.b64decode(DOT.partition(",")[2]))
    path = server.folder / "EXPERIMENT_LOG.html"
    path.write_text(log_page.html(text))
    page, requests = browser.new_page(), list[str]()
    page.on("request", lambda request: requests.append(request.url))
    address = f"http://127.0.0.1:{server.server_port}/{path.name}"
    page.goto(address if is_served else path.as_uri())
    page.wait_for_load_state("load")
    widths = page.evaluate("[...document.images].map((one) => one.naturalWidth)")
    assert (widths, [url for url in requests if "example.org" in url]) == ([1, 1], [])


def test_the_log_is_served_as_a_page(live: tuple[web.Server, Story]) -> None:
    (live[0].folder / "EXPERIMENT_LOG.html").write_bytes(b"log")
    answer = ask(live[0], "/EXPERIMENT_LOG.html")
    assert (answer.headers["Content-Type"], answer.read()) == ("text/html; charset=utf-8", b"log")


def raw(server: web.Server, *lines: str) -> str:
    """What comes back for the lines of a request, until the connection is closed."""
    with socket.create_connection((web.HOST, server.server_port), timeout=300) as connection:
        connection.sendall("".join(f"{line}\r\n" for line in lines).encode())
        return b"".join(iter(lambda: connection.recv(2**16), b"")).decode()


@pytest.mark.parametrize(
    "hosts",
    [
        [],
        ["Host: 127.0.0.1#.evil"],
        ["Host: ["],
        ["Host: evil.example"],
        ["Host: 127.0.0.1.evil.example"],
        ["Host: evil@127.0.0.1"],
        ["Host: 127.0.0.1", "Host: evil.example"],
        ["Host: 127.0.0.1", "Host: 127.0.0.1"],
    ],
)
def test_only_its_own_host_name_is_answered(
    live: tuple[web.Server, Story], hosts: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    answer = raw(live[0], "GET / HTTP/1.1", *hosts, "")
    assert answer.startswith("HTTP/1.0 403 ")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.1:8266"])
def test_its_own_host_names_are_answered(live: tuple[web.Server, Story], host: str) -> None:
    assert raw(live[0], f"GET {PAGE} HTTP/1.1", f"Host: {host}", "").startswith("HTTP/1.0 200 ")


@pytest.mark.parametrize("path", ["/", "/compare.html", PAGE, "/nowhere"])
def test_no_answer_is_framed_or_runs_scripts_of_others(
    live: tuple[web.Server, Story], path: str
) -> None:
    headers = ask(live[0], path).headers
    policy = headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert re.search(r"script-src 'nonce-[\w-]{22}' 'unsafe-eval';", policy)
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_nonce_is_used_once(live: tuple[web.Server, Story]) -> None:
    one, other = (ask(live[0], PAGE).headers["Content-Security-Policy"] for _ in range(2))
    assert one != other


@pytest.mark.fault("half a request to the live page", "hung up on within seconds")
def test_half_a_request_is_hung_up_on(
    live: tuple[web.Server, Story], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "REQUEST_SECONDS", 0.1)
    assert raw(live[0], "GET / HTTP/1.1") == ""


@pytest.mark.parametrize(
    ("plant", "why"),
    [
        (os.mkfifo, "not a file"),
        (lambda file: file.mkdir(), "is a folder"),
        (lambda file: file.symlink_to("/dev/zero"), "not a file"),
        (lambda file: file.symlink_to(file), "is a symbolic link to itself"),
        (lambda file: file.write_text("{}\n"), "line 1 is damaged"),
    ],
)
@pytest.mark.fault("a ledger that the live page can't read", "an answer with the reason")
def test_a_ledger_that_cannot_be_read_is_an_answer(
    live: tuple[web.Server, Story],
    plant: Callable[[Path], object],
    why: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    file = live[0].folder / "lr-cpu" / "ledger.jsonl"
    file.rename(file.with_name("moved"))
    plant(file)
    answer = ask(live[0], PAGE)
    assert (answer.status, why in answer.read().decode()) == (500, True)
    assert capfd.readouterr().err == ""


def test_an_unknown_sweep_is_refused_with_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lr_sweep(Path("results/lr-cpu"))
    done = CliRunner().invoke(watch.app, ["lr-cp"])
    assert (done.exit_code, "did you mean 'lr-cpu'?" in done.output) == (2, True)


def test_in_a_pipe_the_text_of_a_running_sweep_is_printed_once(tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
        said = CliRunner().invoke(watch.app, [str(tmp_path / "s"), "--text"])
    assert (said.exit_code, said.stdout.count("lr=0.001: validation loss 3.")) == (0, 1)


def test_in_a_terminal_the_text_follows_the_sweep_to_its_end(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sweeps.watch", str(tmp_path / "s"), "--text"]
    outer, inner = pty.openpty()
    with ExitStack() as driving:
        tell = driving.enter_context(story(tmp_path / "s"))
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}})
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
        with subprocess.Popen(command, stdout=inner, stdin=inner, stderr=inner) as process:
            os.close(inner)
            said = Said(outer)
            said.until("The sweep is running")
            tell.whole(tell.plan({"optim.lr": 2e-3}), 2e-3)
            said.until("best of 2")
            said.until("The sweep is running")
            driving.close()
            last = said.to_end().rpartition("best of 2")
        ended = process.returncode, last[1], "The sweep is running" in last[2]
        assert ended == (0, "best of 2", False)


@dataclass
class Said:
    """What a program writes to a terminal."""

    terminal: int
    rest: str = ""  # that was read, and not yet asked for

    def until(self, words: str) -> None:
        """Read on up to these words."""
        while words not in self.rest:
            self.rest += os.read(self.terminal, 4096).decode()
        self.rest = self.rest.partition(words)[2]

    def to_end(self) -> str:
        """All that is left, when the program has ended."""
        with suppress(OSError):  # nobody writes to the terminal any more
            while True:
                self.rest += os.read(self.terminal, 4096).decode()
        return self.rest


@pytest.mark.parametrize(
    "options", [["--text"], ["s", "--text", "--steer"], ["s", "--text", "--port", "0"]]
)
def test_the_text_is_of_one_sweep_and_serves_no_page(options: list[str]) -> None:
    said = CliRunner().invoke(watch.app, options)
    assert (said.exit_code, "--text: " in said.output) == (2, True)


def test_a_port_that_is_taken_is_left_to_its_owner(
    live: tuple[web.Server, Story], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = live[0].server_port
    monkeypatch.setattr(watch, "PORT", taken)
    with watch._server(live[0].folder, None) as server:
        assert server.server_port > taken
    with pytest.raises(UsageError, match=f"--port {taken}: Address already in use"):
        watch._server(live[0].folder, taken)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


class Visit:
    """A page that was opened, and what it complained of or asked for."""

    def __init__(
        self,
        browser: Browser,
        path: Path,
        fragment: str = "",
        until: str = "body[data-drawn]",
        **more: Any,
    ) -> None:
        self.page: Page = browser.new_page(**more)
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.errors.append(m.text) if m.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(f"{path.as_uri()}#{fragment}")
        self.page.wait_for_selector(until)


@pytest.fixture(scope="module")
def rates(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    """The report of eight rates."""
    folder = tmp_path_factory.mktemp("results") / "lr-cpu"
    lr_sweep(folder)
    return Visit(browser, opened(folder))


@needs_browser
def test_it_opens_from_the_disk_without_an_error_or_a_request(rates: Visit) -> None:
    request = [url for url in rates.requests if not url.startswith(("data:", "blob:"))]
    assert rates.errors == []
    assert [url.partition(":")[0] for url in request] == ["file"]


@needs_browser
def test_a_page_that_draws_all_records_says_nothing_of_it(rates: Visit) -> None:
    assert rates.page.locator("#curve-points").text_content() == ""


@needs_browser
def test_a_page_of_thinned_curves_says_how_many_records_it_draws(
    browser: Browser, tmp_path: Path
) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        trial = tell.plan({"optim.lr": 1e-3})
        tell.start(trial)
        for number in range(1, 201):
            tell.measure(trial, number * BUDGET // 200, 9.0 - number / 100)
        tell.finish(trial)
    said = Visit(browser, opened(tmp_path / "s")).page.locator("#curve-points").text_content()
    assert said == "100 of 200 records are drawn. curves.csv has all of them."


@needs_browser
def test_hovering_a_curve_names_the_trial_and_its_value(rates: Visit) -> None:
    points = rates.page.locator("#curves .scatterlayer .trace").first.locator(".point")
    box = points.last.bounding_box()
    assert box is not None
    rates.page.locator("#curves").scroll_into_view_if_needed()
    box = points.last.bounding_box()
    assert box is not None
    rates.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    hover = rates.page.locator("#curves .hoverlayer .hovertext").first
    hover.wait_for()
    said = hover.text_content() or ""
    assert "lr=" in said and "optim.lr = " in said and re.search(r"\d\.\d{4}", said)


def axis(visit: Visit, which: str) -> dict[str, Any]:
    """An axis of the learning curves, as the chart has it."""
    found: dict[str, Any] = visit.page.evaluate(
        f"(({{title, type}}) => ({{title: title.text, type}}))(document.getElementById('curves')._fullLayout.{which})"
    )
    return found


@needs_browser
def test_the_axis_switches_change_the_axes(rates: Visit) -> None:
    before = (axis(rates, "xaxis")["title"], axis(rates, "yaxis")["type"])
    rates.page.select_option("#x", "flops")
    rates.page.select_option("#y", "log")
    after = (axis(rates, "xaxis")["title"], axis(rates, "yaxis")["type"])
    assert (before, after) == (("tokens", "linear"), ("FLOPs", "log"))


def column(page: Page, number: int) -> list[str]:
    return page.locator(f"#trials tbody td:nth-child({number})").all_text_contents()


@needs_browser
def test_the_table_sorts_by_numbers_with_missing_ones_last(rates: Visit) -> None:
    heading = rates.page.locator("#trials th button", has_text="validation loss")
    heading.click()
    up = column(rates.page, 5)
    heading.click()
    down = column(rates.page, 5)
    numbers = [float(text) for text in up if text]
    assert numbers == sorted(numbers) and len(numbers) > 3
    assert [float(text) for text in down if text] == numbers[::-1]
    assert [bool(text) for text in up] == sorted((bool(text) for text in up), reverse=True)


def afresh(visit: Visit) -> Page:
    """The page as it was opened."""
    visit.page.evaluate("change({ ...DEFAULTS })")
    return visit.page


def drawn(page: Page, chart: str) -> set[str]:
    """The ids of the trials with a point in a chart."""
    found: list[str] = page.evaluate(
        f"document.getElementById('{chart}').data.flatMap((trace) => trace.customdata ?? [])"
        ".filter(Boolean).flatMap((ids) => ids.split(','))"
    )
    return set(found)


def ids(page: Page, value: str, field: str = "status") -> set[str]:
    """The ids of the trials with a status, or with another fact."""
    found: list[str] = page.evaluate(
        f"page.trials.filter((one) => one.{field} === '{value}').map((one) => one.id)"
    )
    return set(found)


@needs_browser
def test_a_status_that_is_left_out_is_left_out_everywhere(rates: Visit) -> None:
    page = afresh(rates)
    page.locator("#statuses input[name=stopped]").uncheck()
    left = ids(page, "finished") | ids(page, "diverged")
    rows = page.locator("#trials tbody tr").evaluate_all("(all) => all.map((r) => r.dataset.trial)")
    assert (set(rows), drawn(page, "curves"), drawn(page, "rungs")) == (left, left, left)
    assert drawn(page, "values") == left


@needs_browser
def test_the_best_are_those_at_the_top_of_the_table(rates: Visit) -> None:
    page = afresh(rates)
    page.select_option("#best", "3")
    assert column(rates.page, 4) == ["0.002", "0.001", "0.004"]
    assert len(drawn(page, "curves")) == 3


@needs_browser
def test_what_is_chosen_is_chosen_everywhere_and_stands_in_the_address(
    browser: Browser, rates: Visit
) -> None:
    page = afresh(rates)
    page.locator("#trials tbody input").nth(2).check()
    (chosen,) = page.evaluate("[...chosen()]")
    assert chosen in page.locator("#chosen").inner_text()
    bright = "(t) => t.customdata?.includes(one) ? t.line?.width : 0"
    widths = page.evaluate(f"(one) => document.getElementById('curves').data.map({bright})", chosen)
    assert max(width or 0 for width in widths) == 2  # of a curve that is not faded
    there = Path(page.url.partition("#")[0].removeprefix("file://"))
    other = Visit(browser, there, fragment=page.url.partition("#")[2])
    assert other.page.locator("#trials tr.chosen").get_attribute("data-trial") == chosen


@needs_browser
def test_two_chosen_trials_show_where_their_configs_differ(rates: Visit) -> None:
    page = afresh(rates)
    page.locator("#trials tbody input").nth(0).check()
    page.locator("#trials tbody input").nth(1).check()
    rows = page.locator("#chosen tr").all_inner_texts()
    differing = rows[rows.index("Where their configs differ") + 1 :]
    assert [row.split() for row in differing] == [["optim.lr", "0.002", "0.001"]]


@needs_browser
def test_losses_at_one_point_are_drawn_alone(rates: Visit) -> None:
    page = afresh(rates)
    page.select_option("#at", "0")
    lines = "document.getElementById('values').data.filter((one) => one.mode.includes('lines') && one.customdata)"
    assert page.evaluate(f"{lines}.map((one) => one.name)") == ["at 98,304 tokens"]


@needs_browser
def test_a_figure_is_kept_as_a_table(rates: Visit) -> None:
    page = afresh(rates)
    with page.expect_download() as saved:
        page.locator("[data-figure=curves][data-kind=csv]").click()
    assert saved.value.suggested_filename == "lr-cpu_curves.csv"
    lines = Path(saved.value.path()).read_text().splitlines()
    assert lines[0] == "series,trials,x,y,z"
    assert sum(line.startswith("lr=0.002,") for line in lines) == 16


@needs_browser
def test_seeds_are_one_curve_until_they_are_taken_apart(browser: Browser, tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3, 2e-3]}}, seeds=[0, 1])
        for lr in (1e-3, 2e-3):
            for seed in (0, 1):
                tell.whole(tell.plan({"optim.lr": lr}, seed), lr, seed / 10)
    page = Visit(browser, opened(tmp_path / "s")).page
    curve = "document.getElementById('curves').data.filter((one) => one.mode.includes('markers') && one.customdata)"
    assert page.evaluate(f"{curve}.map((one) => one.name)") == ["lr=0.001 (n=2)", "lr=0.002 (n=2)"]
    means = page.evaluate(f"{curve}.map((one) => one.y[15])")
    assert means == [pytest.approx(loss(lr, BUDGET) + 0.05, abs=1e-5) for lr in (1e-3, 2e-3)]
    page.select_option("#seeds", "single")
    assert page.evaluate(f"{curve}.length") == 4


@needs_browser
def test_hostile_words_are_text(browser: Browser, tmp_path: Path) -> None:
    arms = {"nope": {**NOPE, "hypothesis": HOSTILE}}
    tree = study(arms=arms) | {"question": HOSTILE}
    conduct(tmp_path / "s", tree, lambda c, s: 3.0 + 0.3 * is_bare(c) + c["run"]["seed"] / 99)
    visit = Visit(browser, opened(tmp_path / "s"))
    assert visit.page.evaluate("window.hacked") is None
    assert visit.page.locator("h1").text_content() == " ".join(SHOWN.split())
    assert SHOWN in visit.page.locator("#arm-table").inner_text()
    assert visit.errors == []


@needs_browser
@pytest.mark.parametrize("width", [390, 794, 1280, 1440])
def test_nothing_of_the_arms_is_cut_off(browser: Browser, tmp_path: Path, width: int) -> None:
    arm = {**NOPE, "hypothesis": "The positions tell the order of the words. " * 5}
    more: dict[str, Any] = {"retune": RETUNE, "speedup": {"horizons": [0.5, 2], "seeds": 2}}
    conduct(tmp_path / "s", study(arms={"nope" * 9: arm}, seeds=SEEDS, **more), worth(1.25))
    page = Visit(browser, opened(tmp_path / "s"), viewport={"width": width, "height": 900}).page
    wider = "document.querySelector('#arm-section .scroll')"
    assert page.evaluate(f"{wider}.scrollWidth <= {wider}.clientWidth")
    said = page.locator("#arm-table td.about").last.inner_text()
    assert re.search("Token speedup: 1.25x .*Hypothesis: The .*Caveats: Its lr is", said, re.DOTALL)


@needs_browser
def test_confirmation_runs_are_in_the_table_and_have_a_curve(
    browser: Browser, tmp_path: Path
) -> None:
    visit = Visit(browser, opened(confirmed_sweep(tmp_path / "s").folder))
    page, curves = visit.page, "document.getElementById('curves').data"
    rows = page.locator("#trials tbody tr", has_text="confirmation run").all_inner_texts()
    assert [row.split()[1] for row in rows] == ["1001", "1002", "1003"]
    assert page.locator("#state").inner_text() == (
        "results for 4 of 4 trials and 2 of 3 confirmation runs"
    )
    names = page.evaluate(f"{curves}.filter((one) => one.customdata).map((one) => one.name)")
    assert sorted(names) == [
        "confirmation of lr=0.002 (n=2)",
        "lr=0.001 (n=2)",
        "lr=0.002 (n=2)",
    ]
    assert drawn(page, "values") == ids(page, "search", "role")
    assert visit.errors == []


def test_the_mean_of_confirmation_runs_is_over_their_own_seeds(tmp_path: Path) -> None:
    files = confirmed_sweep(tmp_path / "s")
    with Ledger(files) as ledger:
        tell = Story(ledger)
        (last,) = (t.trial for t in fold(ledger.rows()).trials.values() if t.seed == 1003)
        tell.whole(last, 2e-3, 0.04)
    fresh = [one for one in page_of(files.folder)["trials"] if one["role"] == "confirm"]
    mean = loss(2e-3, BUDGET) + 0.04
    assert {one["over_seeds"] for one in fresh} == {f"{mean:.4f} ± 0.0100 (n = 3)"}


@needs_browser
def test_the_best_arms_stand_beside_the_baseline_everywhere(
    browser: Browser, tmp_path: Path
) -> None:
    heads = {f"h{n}": {"hypothesis": "?", "set": {"model.n_heads": n}} for n in (1, 4, 8)}

    def how(config: dict[str, Any], share: float) -> float:
        return 4.0 - config["model"]["n_heads"] / 10 + config["run"]["seed"] / 99 - share

    conduct(tmp_path / "s", study(arms=heads), how)
    page = Visit(browser, opened(tmp_path / "s")).page
    page.select_option("#best", "1")
    assert page.url.endswith("#best=1")
    assert set(column(page, 3)) == {"baseline", "h8"}
    arms = page.locator("#arm-table tr:first-child td[data-name=arm]").all_text_contents()
    assert arms == ["baseline", "h8"]
    assert drawn(page, "arms") == {"h8"}
    runs = "page.trials.filter((one) => ['baseline', 'h8'].includes(one.arm)).map((one) => one.id)"
    assert drawn(page, "curves") == set(page.evaluate(runs))
    there = Path(page.url.partition("#")[0].removeprefix("file://"))
    again = Visit(browser, there, fragment="best=1").page
    assert set(column(again, 3)) == {"baseline", "h8"}


@pytest.fixture(scope="module")
def budgets(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    """The report of budgets that are close together, each at rates of which two nearly touch on an axis."""
    folder = tmp_path_factory.mktemp("results") / "budgets"
    with story(folder) as tell:
        lengths, given = [16, 18, 20], [1e-3, 1.05e-3, 8e-3]
        domains = {"budget.tokens": [n * EVERY for n in lengths], "optim.lr": given}
        tell.ask({path: {"grid": values} for path, values in domains.items()})
        for length, lr in itertools.product(lengths, given):
            trial = tell.plan({"budget.tokens": length * EVERY, "optim.lr": lr})
            tell.start(trial)
            tell.train(trial, lr, 1, length)
            tell.finish(trial, length * EVERY)
    return Visit(browser, opened(folder))


def ticks(page: Page, labels: str) -> list[str]:
    """The texts of the labels of an axis that are not empty, each followed by `!` if it touches the next."""
    found: list[str] = page.evaluate(
        """(labels) => {
          const all = [...document.querySelectorAll(labels)].filter((one) => one.textContent);
          const boxes = all.map((one) => one.getBoundingClientRect());
          const meet = (a, b) => b && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
          return all.map((one, n) => one.textContent + (meet(boxes[n], boxes[n + 1]) ? "!" : ""));
        }""",
        labels,
    )
    return found


@needs_browser
def test_compute_within_a_small_range_has_round_ticks(budgets: Visit) -> None:
    assert ticks(budgets.page, "#compute .xtick text") == ["5T", "6T", "7T", "8T", "9T"]


@needs_browser
def test_the_ticks_of_two_values_at_once_do_not_touch(budgets: Visit) -> None:
    assert ticks(budgets.page, "#contour .ytick text") == ["0.001", "0.008"]


@needs_browser
def test_all_values_at_once_have_complete_ticks(budgets: Visit) -> None:
    axes = [ticks(budgets.page, f"#parallel .y-axis:nth-child({n}) .tick text") for n in (1, 2, 3)]
    assert axes[:2] == [["786432", "884736", "983040"], ["0.001", "0.00105", "0.008"]]
    assert axes[2] == ["3.3", "3.35", "3.4"]


@pytest.fixture(scope="module")
def tuned(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    """The report of a study of two arms with re-tune grids, under early stopping."""
    folder = tmp_path_factory.mktemp("results") / "tuned"
    arms = {"heads": {"hypothesis": "?", "set": {"model.n_heads": 4}}, "nope": NOPE}
    schedule = {"policy": "asha", "eta": 2, "grace": "1/4", "finish": 1}
    conduct(folder, study(arms=arms, retune=RETUNE, schedule=schedule))
    return Visit(browser, opened(folder))


@needs_browser
def test_an_arm_has_one_color_in_all_charts(tuned: Visit) -> None:
    colors = tuned.page.evaluate(
        """["curves", "values"].map((id) => Object.fromEntries(here(id).data
          .filter((one) => one.customdata && one.mode.includes("lines") && one.line.width === 2)
          .map((one) => [one.name.split(" ")[0], id === "curves" ? tint(one.line.color, 1) : one.line.color])))"""
    )
    assert colors[0].keys() == {"baseline", "heads", "nope"}
    assert len({*colors[0].values()}) == 3
    assert colors[0].items() >= colors[1].items() and colors[1]


@needs_browser
def test_the_legend_says_which_shade_is_which_point_of_training(tuned: Visit) -> None:
    names = tuned.page.locator("#values .legendtext").all_text_contents()
    words = tuned.page.evaluate("page.levels.map((level) => level.words)")
    assert len(words) > 1
    assert [name for name in names if name in words] == words[::-1]


@needs_browser
def test_loss_against_compute_has_a_color_and_a_mark_for_each_choice_of_values(
    budgets: Visit,
) -> None:
    chart = "document.getElementById('compute').data"
    names = budgets.page.locator("#compute .legendtext").all_text_contents()
    assert len(names) == 10 and "tokens=786432 lr=0.001" in names
    looks = budgets.page.evaluate(
        f"{chart}.filter((one) => one.name === 'trials').map((one) => one.marker)"
    )
    assert len({*zip(looks[0]["symbol"], looks[0]["color"], strict=True)}) == 9


@needs_browser
def test_a_group_of_trials_has_the_color_of_the_figures_whatever_is_filtered(
    budgets: Visit,
) -> None:
    """The budgets are numbered as they were planned."""
    page = afresh(budgets)
    chart = "document.getElementById('values').data.filter((one) => one.mode === 'lines+markers')"
    looks = f"{chart}.map((one) => [one.name, one.line.color, one.marker.symbol])"
    before = {name: rest for name, *rest in page.evaluate(looks)}
    blue, orange, green = (page.evaluate("(c) => tint(c, 1)", c) for c in look.OKABE_ITO[:3])
    assert before == {
        "tokens=786432": [blue, "circle"],
        "tokens=884736": [orange, "diamond"],
        "tokens=983040": [green, "triangle-down"],
    }
    page.select_option("#best", "3")
    assert {name: rest for name, *rest in page.evaluate(looks)}.items() <= before.items()


@needs_browser
def test_sampled_text_is_text(browser: Browser, tmp_path: Path) -> None:
    with story(tmp_path / "s") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}})
        trial = tell.plan({"optim.lr": 1e-3})
        tell.whole(trial, 1e-3)
        tell.sample(**{trial: HOSTILE})
    visit = Visit(browser, opened(tmp_path / "s"))
    assert visit.page.locator("#samples blockquote").text_content() == SHOWN
    assert visit.page.evaluate("window.hacked") is None


@needs_browser
def test_it_fits_a_phone_and_the_dark(browser: Browser, rates: Visit) -> None:
    path = Path(rates.page.url.partition("#")[0].removeprefix("file://"))
    visit = Visit(browser, path, viewport={"width": 390, "height": 800}, color_scheme="dark")
    wider = visit.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (wider, ground) == (False, "rgb(22, 24, 27)")


SHOWN_HEADINGS = "#trials th:visible"


@needs_browser
@pytest.mark.parametrize("kind", ["search", "study"])
def test_on_a_phone_the_table_has_what_fits(browser: Browser, tmp_path: Path, kind: str) -> None:
    if kind == "search":
        two_draws(tmp_path / "s", 3)
    else:
        conduct(tmp_path / "s", study(retune=RETUNE))
    narrow = Visit(browser, opened(tmp_path / "s"), viewport={"width": 390, "height": 800}).page
    headings = narrow.locator(SHOWN_HEADINGS).all_inner_texts()[1:]
    assert headings == ["trial", "validation loss", "tokens", "status"]
    overflow = narrow.locator("#trials").evaluate(
        "(one) => one.parentElement.scrollWidth > one.parentElement.clientWidth"
    )
    assert not overflow


@needs_browser
def test_on_a_screen_the_table_has_a_column_for_each_value(
    browser: Browser, tmp_path: Path
) -> None:
    page = Visit(browser, opened(two_draws(tmp_path / "s", 3).folder)).page
    headings = page.locator(SHOWN_HEADINGS).all_inner_texts()[1:]
    assert headings == ["rank", "lr", "weight_decay", "validation loss", "tokens", "status"]


def post(
    server: web.Server, body: str, token: str = TOKEN, path: str = "/lr-cpu/steer", **more: str
) -> tuple[int, str]:
    """The status and the text of the answer to a request to steer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=300)
    connection.request("POST", path, body, {web.HEADER: token, **more})
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def wish(action: str, trial: str = "") -> str:
    return json.dumps({"action": action, "trial": trial})


@pytest.mark.parametrize("action", ["stop", "finish"])
def test_a_request_to_steer_with_the_token_waits_for_the_driver(
    steered: tuple[web.Server, Files, str], action: Any
) -> None:
    server, files, trial = steered
    assert post(server, wish(action, trial))[0] == 202
    assert Inbox(files).look() == [Request(action, trial)]


def test_a_sweep_is_ended_from_its_page(steered: tuple[web.Server, Files, str]) -> None:
    server, files, _ = steered
    assert post(server, wish("end"))[0] == 202
    assert Inbox(files).look() == [Request("end")]


@pytest.mark.parametrize(
    ("status", "how"),
    [
        (403, {"token": "another"}),
        (403, {"token": ""}),
        (403, {"Host": "evil.example"}),
        (404, {"path": "/nobody/steer"}),
        (404, {"path": "/lr-cpu/feed"}),
        (404, {"path": "/../lr-cpu/steer"}),
        (400, {"body": "{"}),
        (400, {"body": "[]"}),
        (400, {"body": wish("double")}),
        (400, {"body": json.dumps({"action": [], "trial": ""})}),
        (400, {"body": json.dumps({"action": "stop", "trial": 3})}),
        (400, {"body": wish("end") + " " * 1000}),
        (400, {"body": wish("end", "nobody")}),
        (400, {"body": wish("stop", "../nobody")}),
        (400, {"body": wish("stop")}),
    ],
)
def test_what_is_no_request_to_steer_changes_nothing(
    steered: tuple[web.Server, Files, str], status: int, how: dict[str, str]
) -> None:
    server, files, _ = steered
    assert post(server, **{"body": wish("end"), **how})[0] == status
    assert not files.requests.exists()


def test_a_sweep_that_does_not_run_is_not_steered_from_its_page(
    steered: tuple[web.Server, Files, str], tmp_path: Path
) -> None:
    done = lr_sweep(tmp_path / "done")
    status, said = post(steered[0], wish("finish", "a1"), path="/done/steer")
    assert (status, said) == (
        409,
        f"{done.folder}: the sweep is not running; `sweeps steer done finish a1` in a terminal is for its next run",
    )
    assert not done.requests.exists()


def test_the_ledger_is_not_read_for_a_request_to_steer(
    steered: tuple[web.Server, Files, str],
) -> None:
    """It may be large, and the driver judges what is asked."""
    server, files, trial = steered
    files.ledger.write_bytes(b"no ledger at all")
    assert post(server, wish("stop", trial))[0] == 202
    assert Inbox(files).look() == [Request("stop", trial)]


def test_without_a_token_nobody_steers(live: tuple[web.Server, Story]) -> None:
    assert [post(live[0], wish("end"), token)[0] for token in ("", TOKEN)] == [403, 403]
    assert 'STEER = "";' in ask(live[0], PAGE).read().decode()


def test_the_token_is_in_no_page(steered: tuple[web.Server, Files, str]) -> None:
    """Every user of the machine can read the pages."""
    text = ask(steered[0], PAGE).read().decode()
    assert 'STEER = "../steer";' in text
    assert TOKEN not in text


def test_watch_steers_a_sweep_that_is_named(tmp_path: Path) -> None:
    said = CliRunner().invoke(watch.app, ["--steer"])
    assert (said.exit_code, "name the sweep" in said.stderr) == (2, True)


@needs_browser
def test_a_page_with_the_token_steers_and_takes_it_out_of_the_address(
    browser: Browser, steered: tuple[web.Server, Files, str]
) -> None:
    server, files, trial = steered
    page = browser.new_page()
    address = f"http://127.0.0.1:{server.server_port}{PAGE}"
    page.goto(f"{address}?{web.PARAMETER}={TOKEN}#pick={trial}")
    page.locator("#chosen button", has_text="stop").click()
    page.wait_for_function("document.querySelector('#steer-words').textContent != ''")
    assert Inbox(files).look() == [Request("stop", trial)]
    assert page.url.startswith(address) and TOKEN not in page.url
    page.reload()
    page.locator("#end").click()
    page.wait_for_function("document.querySelector('#steer-words').textContent != ''")
    assert Inbox(files).look() == [Request("end"), Request("stop", trial)]


@needs_browser
def test_a_page_that_steers_says_what_the_driver_refused(browser: Browser, tmp_path: Path) -> None:
    with served(tmp_path, TOKEN) as (server, tell):
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}{PAGE}?{web.PARAMETER}={TOKEN}")
        page.wait_for_selector("body[data-drawn]")
        assert page.locator("#refused").inner_text() == ""
        why = "stop lr=0.001: it has finished; nothing was changed"
        tell.ledger.append("refused", reason=why)
        page.wait_for_function("document.querySelector('#refused').textContent != ''")
        assert page.locator("#refused").inner_text() == f"Refused: {why}."


@needs_browser
def test_a_page_without_the_token_has_no_buttons_to_steer(
    browser: Browser, steered: tuple[web.Server, Files, str]
) -> None:
    server, _, trial = steered
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.server_port}{PAGE}#pick={trial}")
    page.wait_for_selector("body[data-drawn]")
    assert page.locator("#chosen td").count() > 0
    assert (page.locator("#chosen button").count(), page.locator("#end").is_visible()) == (0, False)


@needs_browser
def test_a_live_page_shows_a_new_point(browser: Browser, live: tuple[web.Server, Story]) -> None:
    server, tell = live
    page = browser.new_page()
    complaints: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.goto(f"http://127.0.0.1:{server.server_port}{PAGE}")
    points = page.locator("#curves .scatterlayer .point")
    page.wait_for_function("document.querySelectorAll('#curves .scatterlayer .point').length == 3")
    trial = next(iter(tell.attempts))
    tell.train(trial, 1e-3, 4, 4)
    page.wait_for_function(
        "document.querySelectorAll('#curves .scatterlayer .point').length == 4", timeout=300_000
    )
    assert points.count() == 4
    assert complaints == []  # of the policy on scripts, for example


@pytest.fixture(scope="module")
def several(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Visit:
    """The index of three sweeps, two of which can be compared."""
    folder = tmp_path_factory.mktemp("several")
    ended(folder / "lr", "optim.lr", {1e-3: (3.0, 3.1), 2e-3: (3.2, 3.3)})
    ended(folder / "norm", "model.norm", {"post": (2.9, 3.04), "pre": (3.5, 3.5)})
    shares_sweep(folder / "budgets")
    return Visit(browser, index.write_index(folder, Reader()), "", "table")


@needs_browser
def test_the_index_sorts_by_loss(several: Visit) -> None:
    several.page.locator("th button", has_text="loss").click()
    rows = several.page.locator("#sweeps tbody tr")
    names = rows.evaluate_all("(all) => all.map((row) => row.dataset.sweep)")
    assert names == ["norm", "budgets", "lr"]
    assert several.errors == []


@needs_browser
def test_checked_sweeps_are_compared_with_an_interval(several: Visit) -> None:
    page = several.page
    for name in ("lr", "norm"):
        page.locator(f"tr[data-sweep={name}] input").check()
    page.locator("#compare").click()
    page.wait_for_selector("#curves .main-svg")
    (said,) = (
        page.locator("#losses tr", has_text="model")
        .or_(page.locator("#losses tr", has_text="norm=post"))
        .all_inner_texts()
    )
    half = stats.half_interval([-0.1, -0.06])
    assert f"\u22120.0800 (\u2212{0.08 + half:.4f} to +{half - 0.08:.4f}" in said
    assert page.locator("#why-not li").count() == 0
    page.locator("input[name=budgets]").check()
    assert "budget 1,572,864 tokens" in page.locator("#why-not").inner_text()
    assert several.errors == []
    page.go_back()


def test_the_content_of_the_page_is_json(tmp_path: Path) -> None:
    """With an end of a script in it, which would end the one that holds it."""
    with story(tmp_path / "s") as tell:
        tell.ask({"optim.lr": {"grid": [1e-3]}}, "</script><!-- <b>")
        tell.whole(tell.plan({"optim.lr": 1e-3}), 1e-3)
    text = written(tmp_path / "s").read_text()
    inside = text.partition('id="content">')[2].partition("</script>")[0]
    content = json.loads(inside)
    assert content["question"] == "</script><!-- <b>"
    assert content["trials"][0]["tokens"][-1] == BUDGET


def test_the_page_has_a_mark_of_its_own_for_every_problem(lr_page: dict[str, Any]) -> None:
    marks = lr_page["look"]["marks"]
    assert len({marks[kind][0] for kind in RULES}) == len(RULES)
    assert marks.keys() >= {*RULES, "finished", "stopped", "unfinished", "paused", "promoted"}


def test_the_page_marks_what_the_figures_mark_by_the_same_table(lr_page: dict[str, Any]) -> None:
    known = lr_page["look"]
    assert known["marks"]["stopped"] == ["square-open", look.STOPPED["mec"]]
    assert known["marks"]["audited"] == ["diamond-tall-open", look.AUDITED["mec"]]
    assert known["marks"]["above the axis"] == ["triangle-up", look.ABOVE["color"]]
    assert known["verdicts"] == look.VERDICTS
    assert known["rates"].keys() == {one["words"] for one in lr_page["rate"]["lines"]}


def test_where_budgets_differ_the_compute_is_drawn_first(tmp_path: Path) -> None:
    text = report.html(report.page(findings(studied(shares_sweep(tmp_path)))))
    assert text.index('id="compute"') < text.index('id="curves"')


def test_where_budgets_are_equal_the_learning_curves_come_before_the_compute(
    tmp_path: Path,
) -> None:
    text = report.html(report.page(findings(studied(lr_sweep(tmp_path)))))
    assert text.index('id="curves"') < text.index('id="compute"')
