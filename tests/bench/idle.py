"""What an idle agent costs: memory, CPU, disk writes and bytes on the wire.

The real daemon against the embedded stack, through a relay that counts. It polls every 15 minutes and holds
its subscription; one release has converged before the watch begins. The month is extrapolated from the quiet
minutes plus 2,880 check-ins, each as costly as one that the bench causes with a wake.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fleetctl.demo.beacon import BeaconRepo
from fleetctl.demo.device import DemoDevice
from fleetctl.stack.local_stack import LocalStack
from tests.bench._fleet import provisioning_token, service
from tests.bench._proxy import CountingProxy, Traffic
from tests.bench.table import CannotRunError, Row
from tests.support.stack import make_immediate

MONTH_S = 30 * 86400
POLL_S = 900


@dataclass(frozen=True)
class Usage:
    """Of one process: proportional set and resident set (KiB), CPU seconds, bytes written to storage."""

    pss_kib: int
    rss_kib: int
    cpu_s: float
    written: int


def run(options: argparse.Namespace) -> list[Row]:
    with (
        tempfile.TemporaryDirectory(prefix="fleet-bench-") as folder,
        LocalStack.start(data=Path(folder) / "data", port=0, web=False) as stack,
        CountingProxy(_address(stack.api_url)) as proxy,
    ):
        repo = BeaconRepo.create(Path(folder) / "repo")
        device = DemoDevice("idle", Path(folder) / "device", "simulated")
        device.configure(
            api_url=f"http://127.0.0.1:{proxy.port}",
            publishable_key=stack.publishable_key,
            git_url=repo.url,
            allowed_signers=repo.allowed_signers,
            variables={},
        )
        device.enroll(provisioning_token(stack))
        make_immediate(stack)
        client = service(stack)
        commit = repo.release("1.0.0")
        client.table("releases").insert(
            {"commit_sha": commit, "branch": "main", "version": "1.0.0"}
        ).execute()
        device.start()
        try:
            _wait(
                lambda: bool(client.table("update_history").select("id").execute().data), "the first update"
            )
            time.sleep(20)
            return _watch(device, proxy, options.minutes, client)
        finally:
            device.stop()


def _watch(device: DemoDevice, proxy: CountingProxy, minutes: float, client: object) -> list[Row]:
    assert device.process is not None
    pid = device.process.pid
    before, quiet = _usage(pid), proxy.snapshot()
    began = time.monotonic()
    time.sleep(minutes * 60)
    seconds = time.monotonic() - began
    after, passed = _usage(pid), proxy.snapshot().since(quiet)
    asked = proxy.snapshot()
    _wake(client)
    _wait(lambda: proxy.snapshot().since(asked).requests > 0, "a check-in after the wake")
    time.sleep(5)
    check_in = proxy.snapshot().since(asked)
    polls_in_quiet = passed.requests

    def a_month(measure: Callable[[Traffic], int]) -> float:
        quiet_bytes = measure(passed) - polls_in_quiet * measure(check_in)
        return quiet_bytes / seconds * MONTH_S + measure(check_in) * MONTH_S / POLL_S

    payload, wire = a_month(lambda traffic: traffic.payload), a_month(Traffic.on_the_wire)
    how = f"{seconds / 60:.1f} min watched"
    return [
        Row("idle agent: resident memory", f"{after.rss_kib / 1024:.1f} MiB", how, "45 MiB or less"),
        Row("idle agent: proportional memory (PSS)", f"{after.pss_kib / 1024:.1f} MiB", how),
        Row("idle agent: CPU", f"{after.cpu_s - before.cpu_s:.2f} s", how),
        Row("idle agent: written to disk", f"{after.written - before.written} B", how, "none"),
        Row(
            "idle agent: payload, extrapolated to a month",
            f"{payload / 1e6:.1f} MB",
            f"{passed.payload / seconds * 60:.0f} B/min subscribed, 2,880 check-ins of {check_in.payload} B",
        ),
        Row(
            "idle agent: wire, extrapolated to a month",
            f"{wire / 1e6:.1f} MB",
            "payload, TCP/IP headers, acknowledgments, and TLS with a full handshake a check-in (estimated)",
            "15 MB or less",
        ),
    ]


def _wake(client: object) -> None:
    """A hand edit that concerns the device but changes nothing it runs."""
    from supabase import Client

    assert isinstance(client, Client)
    client.table("devices").update({"poll_interval_s": POLL_S}).eq("name", "idle").execute()


def _usage(pid: int) -> Usage:
    proc = Path("/proc") / str(pid)
    rollup = dict(
        line.split(":", 1) for line in (proc / "smaps_rollup").read_text().splitlines()[1:] if ":" in line
    )
    stat = (proc / "stat").read_text().rsplit(")", 1)[1].split()
    io = dict(line.split(": ") for line in (proc / "io").read_text().splitlines())
    return Usage(
        int(rollup["Pss"].split()[0]),
        int(rollup["Rss"].split()[0]),
        (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK"),
        int(io["write_bytes"]),
    )


def _wait(seen: Callable[[], bool], what: str, timeout_s: float = 90) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if seen():
            return
        time.sleep(0.2)
    raise CannotRunError(f"{what} was not seen within {timeout_s:.0f} s")


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 80)
