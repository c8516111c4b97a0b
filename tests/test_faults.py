"""Faults of the machine under real sweeps: full file systems, few descriptors, suspension, clocks that jump.

The rows that a sweep had before a fault are counted after its end.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from clusters import OWN_MOUNTS, needs_mounts
from faults import LOST, SEEN, rows_lost
from sweeping import (
    RATES,
    command,
    count_rows,
    curves,
    descendants,
    run,
    wait_for_rows,
    write_space,
)

from sweeps import ledger as led

Note = Callable[[str, object], None]
ROOT = Path(__file__).parents[1]
TWO = RATES[:2]
pytestmark = [pytest.mark.slow, pytest.mark.system]

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


@pytest.fixture
def asked(tmp_path: Path, scale: Path) -> list[str]:
    """The command of a sweep of two rates."""
    return command(write_space(tmp_path, {"policy": "none"}, TWO), scale, tmp_path / "rates")


@pytest.fixture
def whole(trained: dict[str, Any]) -> dict[str, Any]:
    """The curves of whole runs."""
    return dict(list(trained.items())[: len(TWO)])


def in_namespace(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a script in which file systems are mounted; `$1` and so on are the words."""
    asked = [*OWN_MOUNTS, script, "bash", *map(str, words)]
    return subprocess.run(asked, capture_output=True, text=True, timeout=900, check=False)


FULL_RESULTS = """
space=$1 small=$2 kept=$3; shift 3
mount -t tmpfs -o size=3m none "$small"
"$@" --out "$small/rates" > "$space.first" 2>&1; echo $?
cp "$small/rates/ledger.jsonl" "$space.before"
mount -o remount,size=200m "$small"
"$@" --out "$small/rates" > "$space.second" 2>&1; echo $?
cp -r "$small/rates" "$kept"
"""


@needs_mounts
@pytest.mark.fault("the file system of results/ is full", "exit code 7; resumes when there is room")
def test_a_full_file_system_ends_a_sweep_with_7_and_it_resumes(
    tmp_path: Path, asked: list[str], whole: dict[str, Any], record_property: Note
) -> None:
    (tmp_path / "small").mkdir()
    kept = tmp_path / "kept"
    words = [tmp_path / "said", tmp_path / "small", kept, *asked[: asked.index("--out")]]
    done = in_namespace(FULL_RESULTS, *words)
    said = (tmp_path / "said.first").read_text()
    record_property(SEEN, f"exit codes {', then '.join(done.stdout.split())}")
    record_property(LOST, rows_lost((tmp_path / "said.before").read_bytes(), kept / "ledger.jsonl"))
    assert done.stdout.split() == ["7", "0"], said
    assert "No space left on device" in said and "To resume: " in said
    assert " MB free" in said, said
    assert curves(kept) == whole


# What the command needs may itself be below /tmp.
SMALL_TMP = """
size=$1 files=$2 code=$3; shift 3
mount --bind "$files" /mnt && mount --bind "$code" /media && mount -t tmpfs -o size=$size none /tmp
mkdir -p "$files" "$code" && mount --bind /mnt "$files" && mount --bind /media "$code"
cd "$code" && exec "$@"
"""


@needs_mounts
@pytest.mark.fault("/tmp has no room for Ray", "exit code 7 at once, with what Ray needs")
def test_a_full_folder_for_temporary_files_is_told(
    tmp_path_factory: Any, asked: list[str], record_property: Note
) -> None:
    done = in_namespace(SMALL_TMP, "1m", tmp_path_factory.getbasetemp(), ROOT, *asked)
    record_property(SEEN, f"exit code {done.returncode}: {done.stderr.splitlines()[-2:][0]}")
    assert (done.returncode, "Traceback" in done.stderr) == (7, False), done.stderr
    assert "/tmp: has 1." in done.stderr


@pytest.mark.fault("256 file descriptors", "the sweep runs")
def test_a_sweep_runs_with_few_descriptors(
    tmp_path: Path, asked: list[str], whole: dict[str, Any], record_property: Note
) -> None:
    done = run(["bash", "-c", 'ulimit -n 256; exec "$@"', "bash", *asked])
    record_property(SEEN, f"exit code {done.returncode}")
    assert done.returncode == 0, done.stderr
    assert curves(tmp_path / "rates") == whole


def signal_all(processes: list[int], number: int) -> None:
    for one in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, number)


@pytest.mark.fault("all processes are suspended, then continued", "the sweep goes on; no failure")
def test_a_sweep_that_was_suspended_goes_on(
    tmp_path: Path, asked: list[str], whole: dict[str, Any], record_property: Note
) -> None:
    out = tmp_path / "rates"
    with subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as driver:
        wait_for_rows(out, "checkpointed", 2)
        processes = descendants(driver.pid)
        signal_all(processes, signal.SIGSTOP)
        before = led.Files(out).ledger.read_bytes()
        time.sleep(8)
        signal_all(processes, signal.SIGCONT)
        said = driver.communicate(timeout=900)[1]
    record_property(SEEN, f"exit code {driver.returncode}, {count_rows(out, 'failed')} failures")
    record_property(LOST, rows_lost(before, led.Files(out).ledger))
    assert (driver.returncode, count_rows(out, "failed"), curves(out)) == (0, 0, whole), said


# Three hours are added to the time of day of one process once a file is there.
CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
static char file[4096];
__attribute__((constructor)) static void alone(void) {
    char *name = getenv("CLOCK_JUMPS");
    for (int i = 0; name && i < 4095 && (file[i] = name[i]); i++);
    unsetenv("LD_PRELOAD");
}
int clock_gettime(clockid_t which, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int answer = real(which, now);
    if (which == CLOCK_REALTIME && file[0] && access(file, F_OK) == 0) now->tv_sec += 3 * 3600;
    return answer;
}
"""


@needs_compiler
@pytest.mark.fault("the driver's clock jumps by three hours", "no cap is reached; durations stay")
def test_a_clock_that_jumps_reaches_no_cap(
    tmp_path: Path, asked: list[str], whole: dict[str, Any], record_property: Note
) -> None:
    (tmp_path / "clock.c").write_text(CLOCK)
    library, jumps = tmp_path / "clock.so", tmp_path / "jumps"
    asked_to_build = [
        "cc",
        "-shared",
        "-fPIC",
        "-o",
        str(library),
        str(tmp_path / "clock.c"),
        "-ldl",
    ]
    subprocess.run(asked_to_build, check=True)
    space, out = tmp_path / "rates.yaml", tmp_path / "rates"
    space.write_text(f"{space.read_text()}caps: {{hours: 2}}\n")
    environment = {**os.environ, "LD_PRELOAD": str(library), "CLOCK_JUMPS": str(jumps)}
    with subprocess.Popen(asked, env=environment, stderr=subprocess.PIPE) as driver:
        wait_for_rows(out, "checkpointed", 2)
        jumps.touch()
        said = driver.communicate(timeout=900)[1]
    rows = led.read(led.Files(out))
    hours = led.fold(rows).seconds / 3600
    jumped = [row["time"] for row in rows if row["kind"] == "finished"][-1] > rows[-1]["time"][:10]
    record_property(SEEN, f"exit code {driver.returncode}, {hours:.2f} hours")
    assert (driver.returncode, hours < 1, jumped, curves(out)) == (0, True, True, whole), said


@pytest.mark.fault("SIGTERM while the analysis is made", "143, no half file, written at the resume")
def test_a_signal_while_the_analysis_is_made_leaves_no_half_file(
    tmp_path: Path, asked: list[str], whole: dict[str, Any], record_property: Note
) -> None:
    """The last row before it is that of the sampled text; to draw takes seconds."""
    files = led.Files(tmp_path / "rates")
    with subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as driver:
        wait_for_rows(files.folder, "sampled", 1)
        os.kill(driver.pid, signal.SIGTERM)
        said = driver.communicate(timeout=900)[1].decode()
    before = files.ledger.read_bytes()
    left = [one.name for one in files.analysis.glob(".*")]
    again = run(asked)
    record_property(SEEN, f"exit code {driver.returncode}, then {again.returncode}")
    record_property(LOST, rows_lost(before, files.ledger))
    assert (driver.returncode, left, "To resume: " in said) == (143, [], True), said
    assert (again.returncode, files.summary.exists(), curves(files.folder)) == (0, True, whole)


def of_session(session: int) -> dict[int, str]:
    """The names of the programs in a session of processes that have not ended."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            text = stat.read_text()
            name = text[text.index("(") + 1 : text.rindex(")")]
            state, _, _, its_session = text.rpartition(")")[2].split()[:4]
            if int(its_session) == session and state not in "ZX":
                found[int(stat.parent.name)] = name
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("begun", "whom"),
    [("gcs_server", "all"), ("raylet", "all"), ("raylet", "group"), ("ray::IDLE", "group")],
)
@pytest.mark.fault(
    "SIGTERM to all processes, or the group, while Ray starts",
    "143 at once; no process is left, nothing begun",
)
def test_a_signal_to_all_processes_while_ray_starts_ends_them(
    asked: list[str], begun: str, whom: str, record_property: Note
) -> None:
    """Ray's library would wait for its own for a minute, or abort the driver."""
    with subprocess.Popen(
        asked, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as driver:
        while begun not in of_session(driver.pid).values() and driver.poll() is None:
            time.sleep(0.005)
        if whom == "group":
            os.killpg(driver.pid, signal.SIGTERM)
        else:
            signal_all(list(of_session(driver.pid)), signal.SIGTERM)
        said = driver.communicate(timeout=900)[1].decode()
    left = of_session(driver.pid)
    record_property(SEEN, f"exit code {driver.returncode}, {len(left)} processes left")
    assert (driver.returncode, left, "Traceback" in said) == (143, {}, False), said


def names(process: int) -> set[str]:
    """The names of the programs of a process and of all that it started."""
    found = set()
    for one in descendants(process):
        with contextlib.suppress(OSError):  # it has just ended
            found.add(Path(f"/proc/{one}/comm").read_text().strip())
    return found


@pytest.mark.fault("SIGTERM while Ray is ended", "143, and the command that resumes")
def test_a_signal_while_ray_ends_is_heard(
    tmp_path: Path, asked: list[str], whole: dict[str, Any], record_property: Note
) -> None:
    """Ray's library takes the handler of SIGTERM away before Ray's processes have ended."""
    out = tmp_path / "rates"
    with subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as driver:
        wait_for_rows(out, "finished", 2)
        before = led.Files(out).ledger.read_bytes()
        while "raylet" in names(driver.pid):
            time.sleep(0.005)
        os.kill(driver.pid, signal.SIGTERM)
        said = driver.communicate(timeout=900)[1].decode()
    again = run(asked)
    record_property(SEEN, f"exit code {driver.returncode}, then {again.returncode}")
    record_property(LOST, rows_lost(before, led.Files(out).ledger))
    assert (driver.returncode, "To resume: " in said) == (143, True), said
    assert (again.returncode, curves(out)) == (0, whole), again.stderr


CHANGE = "\n\n_UNLIKE_BEFORE = 1\n"


@pytest.mark.fault(
    "other training code at a resume", "exit code 9; goes on with --allow code, and says it"
)
def test_another_program_is_allowed_by_name_and_told(
    tmp_path: Path, asked: list[str], record_property: Note
) -> None:
    copy, out = tmp_path / "copy", tmp_path / "rates"
    for package in ("tinylm", "sweeps"):
        shutil.copytree(
            ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    environment = {**os.environ, "PYTHONPATH": str(copy)}

    def start(*more: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [*asked, *more], cwd=copy, env=environment, stdout=pipe, stderr=pipe, text=True
        )

    with start() as driver:
        wait_for_rows(out, "checkpointed", 2)
        os.kill(driver.pid, signal.SIGKILL)
        driver.communicate(timeout=900)
    before = led.Files(out).ledger.read_bytes()
    with (copy / "tinylm" / "optim.py").open("a") as stream:
        stream.write(CHANGE)
    with start() as refused:
        said = refused.communicate(timeout=900)[1]
    with start("--allow", "code") as allowed:
        told = allowed.communicate(timeout=900)[1]
    record_property(SEEN, f"exit code {refused.returncode}, then {allowed.returncode}")
    record_property(LOST, rows_lost(before, led.Files(out).ledger))
    assert (refused.returncode, "add --allow code" in said) == (9, True), said
    assert allowed.returncode == 0, told
    assert led.fold(led.read(led.Files(out))).session["allowed"] == "code"
    log = (out / "analysis" / "summary.md").read_text()
    assert "training code" in log, log


def wait_for_more(rows: int, out: Path, driver: subprocess.Popen[bytes]) -> bytes:
    """The ledger once it has so many more rows, or once its driver has ended."""
    ledger = led.Files(out).ledger
    enough = rows + (ledger.read_bytes().count(b"\n") if ledger.exists() else 0)
    while not ledger.exists() or (found := ledger.read_bytes()).count(b"\n") < enough:
        if driver.poll() is not None:
            return ledger.read_bytes()
        time.sleep(0.02)
    return found


@pytest.mark.fault("SIGKILL of the driver at random moments", "no row lost; curves of whole runs")
def test_a_driver_that_is_killed_again_and_again_loses_no_row(
    tmp_path: Path, asked: list[str], whole: dict[str, Any], record_property: Note
) -> None:
    """Five times; as often as `FAULT_KILLS` says, if it is set."""
    out, draw = tmp_path / "rates", random.Random(15)
    kept, killed = [], 0
    for _ in range(int(os.environ.get("FAULT_KILLS", "5"))):
        with subprocess.Popen(
            asked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as driver:
            kept.append(wait_for_more(draw.randint(1, 9), out, driver))
            time.sleep(draw.uniform(0, 0.1))
            driver.kill()
        killed += driver.returncode == -signal.SIGKILL
    last = run(asked)
    lost = sum(rows_lost(before, led.Files(out).ledger) for before in kept)
    record_property(SEEN, f"{killed} kills, exit code {last.returncode}")
    record_property(LOST, lost)
    assert (killed > 0, last.returncode, lost) == (True, 0, 0), last.stderr
    assert curves(out) == whole


@pytest.mark.fault("nobody reads on: `| head -1`", "the sweep ends as it would have")
def test_a_sweep_of_which_one_line_is_read_goes_on_to_its_end(
    tmp_path: Path, asked: list[str], whole: dict[str, Any], record_property: Note
) -> None:
    done = run(["bash", "-c", 'set -o pipefail; "$@" | head -1', "bash", *asked])
    record_property(SEEN, f"exit code {done.returncode}")
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (0, 1, "")
    assert curves(tmp_path / "rates") == whole


@pytest.mark.parametrize("how", ["moved", "deleted"])
@pytest.mark.fault(
    "the folder of a sweep is moved or deleted while it runs", "exit code 6; no folder is made anew"
)
def test_a_sweep_whose_folder_is_gone_says_one_sentence_and_makes_none(
    tmp_path: Path, asked: list[str], how: str, record_property: Note
) -> None:
    files, moved = led.Files(tmp_path / "rates"), tmp_path / "moved"
    with subprocess.Popen(asked, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as driver:
        wait_for_rows(files.folder, "checkpointed", 2)
        before = files.ledger.read_bytes()
        files.folder.rename(moved)
        if how == "deleted":
            shutil.rmtree(moved)
        said = driver.communicate(timeout=900)[1].decode()
    record_property(SEEN, f"exit code {driver.returncode}")
    if how == "moved":
        record_property(LOST, rows_lost(before, led.Files(moved).ledger))
    assert said.startswith(f"{files.ledger}: was deleted or moved while the sweep ran. "), said
    assert (driver.returncode, said.count("\n"), files.folder.exists()) == (6, 1, False), said


@pytest.mark.fault("files may not be larger than 400 kB (ulimit -f)", "exit code 7 at once")
def test_a_limit_of_the_size_of_files_is_told(asked: list[str], record_property: Note) -> None:
    """Ray would wait for ever."""
    done = run(["bash", "-c", 'ulimit -f 400; exec "$@"', "bash", *asked])
    record_property(SEEN, f"exit code {done.returncode}")
    assert (done.returncode, "a file may have 0.4 MB here" in done.stderr) == (7, True), done.stderr


@pytest.mark.slow
@pytest.mark.fault("files may not be larger than 300 MB (ulimit -f)", "the sweep runs")
def test_a_sweep_runs_with_files_of_a_limited_size(asked: list[str], record_property: Note) -> None:
    done = run(["bash", "-c", 'ulimit -f 300000; exec "$@"', "bash", *asked])
    record_property(SEEN, f"exit code {done.returncode}")
    assert done.returncode == 0, done.stderr


@pytest.mark.fault("a token that Ray can't send", "exit code 7, with what to do")
def test_a_nonsense_token_is_told(asked: list[str], record_property: Note) -> None:
    words = ["env", "RAY_AUTH_TOKEN=a\x01é", *asked]
    done = run(words)
    record_property(SEEN, f"exit code {done.returncode}")
    assert (done.returncode, "unset RAY_AUTH_TOKEN" in done.stderr) == (7, True), done.stderr
