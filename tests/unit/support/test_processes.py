"""How programs are started: bound to us by the kernel, and refused as Python would refuse them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet_agent.support import death_signal, processes
from tests.support.patience import PATIENCE_S

#: Starts `sleep` as the function named does, says its process id, and waits to be killed.
PARENT = """\
import subprocess, sys, time
from fleet_agent.support import processes
if sys.argv[1] == "without setpriv":
    processes._setpriv = lambda: None
start = processes.surely_ending_with_us if sys.argv[1] == "surely" else processes.ending_with_us
child = subprocess.Popen(start(["sleep", "600"]), start_new_session=True)
while open(f"/proc/{child.pid}/comm").read() != "sleep\\n":
    time.sleep(0.01)
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(params=["with setpriv", "without setpriv"], autouse=True)
def setpriv(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test twice: with util-linux, and on a device that has none."""
    processes._setpriv.cache_clear()
    if request.param == "without setpriv":
        monkeypatch.setattr(processes, "_setpriv", lambda: None)
    elif processes._setpriv() is None:
        pytest.skip("no setpriv of util-linux 2.33 or newer")
    yield


@pytest.mark.parametrize("way", ["with setpriv", "without setpriv", "surely"])
def test_the_kernel_ends_a_program_when_its_parent_is_killed(way: str) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, way], stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
    )  # fmt: skip
    assert parent.stdout is not None
    with parent, parent.stdout:
        child = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        try:
            assert _ended(child)
        finally:
            os.close(child)


def _ended(process: int) -> bool:
    import select

    return bool(select.select([process], [], [], PATIENCE_S)[0])


def test_a_parent_that_died_before_the_kernel_was_asked_is_noticed() -> None:
    """Its number stands in the command; whose parent is another one by then ends before it does anything."""
    nobody, by = 2**22 + 1, signal.SIGINT
    done = subprocess.run(
        [sys.executable, death_signal.__file__, str(nobody), str(int(by)), "", "/bin/echo", "alive"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (128 + by, b"")


def test_output_exit_code_and_environment_are_the_programs_own() -> None:
    """Nothing of what asks the kernel shows: no variable more, no signal ignored, no other process."""
    script = "env; grep SigIgn /proc/self/status; echo $PPID; exit 3"
    done = processes.run(
        ["/bin/sh", "-c", script], timeout_s=PATIENCE_S, environment={"ONLY": "this"}, folder=Path("/")
    )
    plain = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, check=False, env={"ONLY": "this"}, cwd="/",
        start_new_session=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (done.exit_code, done.stdout, done.stderr) == (plain.returncode, plain.stdout, plain.stderr)
    assert done.stdout.endswith(f"\n{os.getpid()}\n")


def _absent(folder: Path) -> Path:
    return folder / "absent"


def _not_executable(folder: Path) -> Path:
    (folder / "file").write_text("#!/bin/sh\n")
    return folder / "file"


def _no_interpreter(folder: Path) -> Path:
    return _script(folder, "#!/no/such/interpreter\n")


def _no_program(folder: Path) -> Path:
    return _script(folder, "echo hello\n")


def _script(folder: Path, text: str) -> Path:
    (folder / "script").write_text(text)
    (folder / "script").chmod(0o755)
    return folder / "script"


@pytest.mark.parametrize(
    ("make", "number"),
    [
        (_absent, errno.ENOENT),
        (_not_executable, errno.EACCES),
        (_no_interpreter, errno.ENOENT),
        (_no_program, errno.ENOEXEC),
    ],
)
def test_a_program_that_cannot_be_started_is_refused_as_python_does(
    tmp_path: Path, make: Callable[[Path], Path], number: int
) -> None:
    program = make(tmp_path)
    with pytest.raises(OSError) as plain:  # which one is what is compared
        subprocess.run([program], check=False)
    with pytest.raises(OSError) as ours:
        processes.run([program], timeout_s=PATIENCE_S)
    assert ours.value.errno == plain.value.errno == number
    assert type(ours.value) is type(plain.value)
    assert ours.value.strerror == plain.value.strerror


def test_a_program_is_searched_for_on_the_path_that_it_gets(tmp_path: Path) -> None:
    _script(tmp_path, "#!/bin/sh\necho found\n")
    done = processes.run(["script"], timeout_s=PATIENCE_S, environment={"PATH": str(tmp_path)})
    assert done.stdout == "found\n"
    with pytest.raises(FileNotFoundError):
        processes.run(["script"], timeout_s=PATIENCE_S, environment={"PATH": "/nowhere"})


DETACHED = """\
import os, sys
if os.fork():
    sys.exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.closerange(0, 256)
os.execvp("sleep", ["sleep", sys.argv[1]])
"""


@pytest.mark.parametrize(
    ("script", "bound"),
    [
        ("exec yes", "output"),
        ("exec yes >&2", "output"),
        ("exec sleep 600", "time"),
        ("sleep 600 & exec sleep 600", "time"),
        ("exec >&- 2>&-; exec sleep 600", "time"),
        (f"exec {sys.executable} -S -c 'x = bytearray(300 << 20); import time; time.sleep(600)'", "memory"),
        (f"{sys.executable} -S -c 'x = bytearray(1 << 40)'", "memory"),
    ],
)
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "alone"])
def test_a_program_is_stopped_at_its_bounds(script: str, bound: str, *, kept: bool) -> None:
    time_s = 0.3 if bound == "time" else PATIENCE_S
    bounds = processes.Bounds(time_s, memory=32 << 20, output=1 << 20, kept=1000)
    with pytest.raises(processes.StoppedError) as stopped:
        processes.run(["/bin/sh", "-c", script], timeout_s=time_s, bounds=bounds, leave_nothing=kept)
    assert stopped.value.bound == bound
    assert len(stopped.value.output) <= 1000


@pytest.mark.parametrize("ends", ["0", "3", "by itself late", "killed"])
def test_what_a_kept_program_detached_ends_with_it(ends: str) -> None:
    """It has another session, another parent, and not one file open: nothing shows whose it was."""
    mark = f"{600 + os.getpid() / 1e7:.7f}{len(ends)}"
    script = f"{sys.executable} -S -c '{DETACHED}' {mark}; "
    script += {"by itself late": "sleep 600", "killed": "kill -9 $$"}.get(ends, f"exit {ends}")
    command = ["/bin/sh", "-c", script]
    if ends == "by itself late":
        with pytest.raises(processes.StoppedError):
            processes.run(command, timeout_s=1, leave_nothing=True)
    else:
        done = processes.run(command, timeout_s=PATIENCE_S, leave_nothing=True)
        assert done.exit_code == {"0": 0, "3": 3, "killed": 128 + signal.SIGKILL}[ends]
    assert [words for words in _running() if mark.encode() in words] == []


def _running() -> Iterator[bytes]:
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield file.read_bytes()
        except OSError:
            continue
