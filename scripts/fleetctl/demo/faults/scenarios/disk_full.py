"""The disk fills up while the release is fetched."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from dataclasses import replace

from fleetctl.demo.faults.scenarios.base import Result, Scenario, Setup, untouched
from fleetctl.demo.faults.scenarios.client import Client
from fleetctl.demo.faults.scenarios.compare import compare

#: Of the file system that is filled up.
SMALL_MIB = 4


def _disk_fills_up(setup: Setup, result: Result) -> None:
    """Its Git repository is on a file system of its own, and smaller than the new release."""
    device = setup.new_device()
    # Not refused before it begins for too little that must stay free: nothing must.
    device.config = device.config.model_copy(update={"min_free_bytes": 0})
    small = device.config.paths.repository
    small.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_MIB}m", "fleet-demo", str(small)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        result.skipped = "only root can mount a small file system"
        device.remove()
        return
    try:
        good = device.release()
        device.offer(good, on_progress=setup.on_progress)
        result.problems += [f"before the update: {trouble}" for trouble in device.troubles(good)]
        # Noise: nothing that Git could pack smaller.
        noise = secrets.token_hex(SMALL_MIB * 1024 * 1024)
        too_big = device.release(edits={"compose.yaml": ("services:\n", f"# {noise}\nservices:\n")})
        with Client(replace(setup, device=device)) as client:
            run = device.offer(too_big, on_progress=setup.on_progress)
        compare(
            replace(setup, device=device), result, run,
            offered=too_big, left=good, expected=untouched("disk_full", "fetching"), client=client,
        )  # fmt: skip
        if not result.problems:
            free = shutil.disk_usage(small).free / (1024 * 1024)
            result.evidence.append(f"{free:.1f} of {SMALL_MIB} MiB are free again")
    finally:
        device.remove()
        subprocess.run(["umount", "--lazy", str(small)], capture_output=True, check=False)


SCENARIO = Scenario("disk-full", "the disk fills up while the release is fetched", _disk_fills_up)
