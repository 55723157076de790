"""The command line: exit codes, sentences, and what it may not import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from fleet_agent.attempts.history import History
from fleet_agent.attempts.outbox import Outbox
from fleet_agent.cli import main as cli
from tests.support.device import Device
from tests.unit.attempts.test_outbox import attempt


def run(device: Device, verb: str, *more: str) -> int:
    return cli.main([verb, "--root", str(device.folder), "--config", str(device.config_path), *more])


def test_a_good_configuration_is_good_and_an_open_one_is_named(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(device, "validate-config") == 0
    said = capsys.readouterr().out
    assert "is good" in said
    assert "verify_signatures is false" in said


def test_a_bad_configuration_is_one_sentence_with_its_kind_and_exit_code_2(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.configure(poll_intervall_s=60)
    assert run(device, "validate-config") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("fleet-agent: config_invalid: ")
    assert "`poll_intervall_s` is not a known key" in line


def test_signers_that_are_not_there_are_found_by_validate_config(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    device.configure(verify_signatures=True, allowed_signers="signers")
    assert run(device, "validate-config") == 2
    assert "`allowed_signers` names" in capsys.readouterr().err
    (device.folder / "signers").write_text("")
    assert run(device, "validate-config") == 0


@pytest.mark.parametrize("verb", ["once", "run"])
def test_a_device_that_is_not_enrolled_is_told_to_enroll(
    device: Device, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(cli, "_start_lean", lambda: None)
    device.identity.forget()
    assert run(device, verb) == 2
    assert "not_enrolled" in capsys.readouterr().err


def test_status_works_without_a_network_and_before_any_release(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(device, "status", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["device_id"] == str(device.id)
    assert (shown["state"], shown["phase"], shown["current"]) == ("healthy", "steady", None)
    assert (shown["outbox"], shown["converging"]) == (0, None)
    assert run(device, "status") == 0
    assert "runs        nothing" in capsys.readouterr().out


def test_history_tells_what_was_shipped_and_what_waits_in_order(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(device, "history") == 0
    assert capsys.readouterr().out == "No attempt yet.\n"
    box, past = Outbox(device.paths.outbox), History(device.paths.history)
    waiting, shipped = attempt(minute=5), attempt(minute=1)
    for one in (waiting, shipped):
        box.put(one)
    box.hand_over(shipped.id, past)
    assert run(device, "history", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [(row["id"], row["shipped"]) for row in shown] == [
        (str(shipped.id), True),
        (str(waiting.id), False),
    ]
    assert shown[0]["phase_durations_ms"] == {"fetching": 5}
    assert run(device, "history") == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("rolled_back in 60 s, 0 bytes, unhealthy: It was not well.")
    assert second.endswith("not yet shipped")


def test_a_rollback_with_nothing_to_go_back_to_says_so(
    device: Device, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(device, "rollback") == 1
    assert "nothing_to_roll_back" in capsys.readouterr().err


def test_an_unknown_command_is_exit_code_2(device: Device) -> None:
    with pytest.raises(SystemExit) as caught:
        run(device, "dance")
    assert caught.value.code == 2


def test_the_daemon_imports_none_of_the_heavy_libraries() -> None:
    """They would stay in memory for good: about 20 MiB."""
    script = (
        "import sys, fleet_agent.cli.main, fleet_agent.daemon.loop, fleet_agent.control_plane.subscription\n"
        "heavy = {'docker', 'git', 'cryptography', 'jwt', 'yaml', 'requests', 'h2', 'rich', 'typer'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
