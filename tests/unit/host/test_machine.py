"""Facts about the machine, from files laid out as the kernel lays them out."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet_agent.host.machine import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    proc, sys, etc = (tmp_path / name for name in ("proc", "sys", "etc"))
    for folder in (proc / "device-tree", sys / "class/thermal/thermal_zone0", etc):
        folder.mkdir(parents=True)
    (sys / "class/thermal/thermal_zone1").mkdir()
    (proc / "meminfo").write_text("MemTotal: 1000 kB\nMemFree: 10 kB\nMemAvailable: 400 kB\n")
    (proc / "loadavg").write_text("0.42 0.30 0.20 1/100 4242\n")
    (proc / "uptime").write_text("12345.67 4000.00\n")
    (proc / "stat").write_text("cpu 100 0 100 700 100 0 0 0 0 0\ncpu0 1 1 1 1\n")
    (proc / "device-tree/model").write_text("Raspberry Pi 4 Model B Rev 1.4\0")
    (sys / "class/thermal/thermal_zone0/temp").write_text("48312\n")
    (sys / "class/thermal/thermal_zone1/temp").write_text("51000\n")
    (etc / "os-release").write_text('NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    return Machine(tmp_path, proc=proc, sys=sys, etc=etc)


def test_memory_load_uptime_and_the_hottest_zone(machine: Machine) -> None:
    facts = machine.resources()
    assert facts["memory_total_bytes"] == 1000 * 1024
    assert facts["memory_used_bytes"] == 600 * 1024
    assert facts["load_1m"] == 0.42
    assert facts["uptime_s"] == 12345
    assert facts["temperature_c"] == 51.0
    assert 0 < facts["disk_free_bytes"] <= facts["disk_total_bytes"]


def test_cpu_is_the_share_since_the_previous_look(machine: Machine) -> None:
    assert "cpu_percent" not in machine.resources()
    (machine.proc / "stat").write_text("cpu 150 0 150 770 130 0 0 0 0 0\n")
    assert machine.resources()["cpu_percent"] == 50.0
    assert "cpu_percent" not in machine.resources(), "no time passed: no share"


def test_the_board_and_the_system_are_named(machine: Machine) -> None:
    assert machine.hardware_model() == "Raspberry Pi 4 Model B Rev 1.4"
    assert machine.operating_system() == "Debian GNU/Linux 12 (bookworm)"


def test_a_machine_without_a_device_tree_is_named_by_dmi(machine: Machine) -> None:
    (machine.proc / "device-tree/model").unlink()
    dmi = machine.sys / "class/dmi/id"
    dmi.mkdir(parents=True)
    (dmi / "product_name").write_text("NUC8i5BEH\n")
    assert machine.hardware_model() == "NUC8i5BEH"


def test_missing_facts_are_left_out(tmp_path: Path) -> None:
    bare = Machine(tmp_path / "gone", proc=tmp_path, sys=tmp_path, etc=tmp_path)
    assert bare.resources() == {}
    assert bare.hardware_model() is None


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    facts = Machine(tmp_path).resources()
    assert facts["memory_total_bytes"] > facts["memory_used_bytes"] > 0
