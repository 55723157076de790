"""The demo's plot: every line it prints was seen to happen, in the tables that an operator has."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import httpx
from supabase import Client, create_client

from fleet_agent.engine.phases import Phase
from fleetctl.console import out, pairs, print_error, print_table
from fleetctl.demo import MARKER, staged_rollout
from fleetctl.demo.device import DemoDevice, remove_project
from fleetctl.demo.docker import docker_missing
from fleetctl.demo.probe import Probe
from fleetctl.errors import FleetctlError
from fleetctl.fleet_repo import Breakage, FleetRepo
from fleetctl.stack.local_stack import LocalStack
from fleetctl.stack.ports import free_ports

T = TypeVar("T")

SIMULATED_DEVICES = 5
#: A step that is not seen within this many seconds has failed. Generous: a Raspberry Pi runs the demo too.
STEP_TIMEOUT_S = 180.0


@dataclass
class Step:
    """One thing that had to be seen."""

    title: str
    seen: bool = False
    seconds: float = 0.0
    detail: str = ""


@dataclass
class Facts:
    """What `demo.json` holds. Times: seconds and milliseconds as named."""

    ok: bool = False
    steps: list[Step] = field(default_factory=list)
    containers: str = "simulated"
    wake_latency_ms: dict[str, float] = field(default_factory=dict)
    releases: list[dict[str, Any]] = field(default_factory=list)
    outage_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    rolled_back: list[dict[str, str]] = field(default_factory=list)
    halted: dict[str, Any] = field(default_factory=dict)
    urls: dict[str, str] = field(default_factory=dict)


class Story:
    """One run of the demo in one data folder."""

    def __init__(self, *, data: Path, port: int, simulated: bool, web: bool) -> None:
        self.data = data.resolve()
        self.port = port
        self.web = web
        self.facts = Facts()
        self.docker_missing = "switched off by --simulated" if simulated else docker_missing()
        self.devices: list[DemoDevice] = []
        self.real_ports: list[int] = []

    def tell(self, *, once: bool) -> int:
        """Run the story; return the exit code: 0 when every step was seen."""
        # SIGINT too: a shell that starts us in the background has it ignored.
        for stop in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop, _interrupt)
        try:
            self._prepare_folder()
            with self._step("The control plane starts"):
                stack = LocalStack.start(data=self.data, port=self.port, web=self.web)
            with stack:
                try:
                    self._run(stack)
                    self._report()
                    self.facts.ok = all(step.seen for step in self.facts.steps)
                    if not once:
                        self._stay(stack)
                finally:
                    self._stop_devices()
        except FleetctlError as error:
            print_error(error.kind, error.message, error.hint)
        except KeyboardInterrupt:
            out.print("\nStopped.")
            return 0 if self.facts.ok else 130
        finally:
            self._write_facts()
        return 0 if self.facts.ok else 1

    # --- the plot -------------------------------------------------------------------------------------------

    def _run(self, stack: LocalStack) -> None:
        self.client = create_client(stack.api_url, stack.secret_key)
        self.facts.urls = {"dashboard": stack.dashboard_url, "table_editor": stack.table_editor_url or ""}
        with self._step("An operator's login is made"):
            self.login = make_operator(stack, "demo@fleet.example", "admin")
        with self._step("A fleet repository with signed commits is made"):
            repo = FleetRepo.create(self.data / "demo" / "repo")
            v1 = repo.release("1.0.0")
        with self._step(f"{SIMULATED_DEVICES + 1} devices enroll") as step:
            self._enroll(stack, repo)
            step.detail = (
                "1 with real containers"
                if not self.docker_missing
                else f"all simulated: {self.docker_missing}"
            )
        with self._step("They check in and wait for wakes"):
            for device in self.devices:
                device.start()
            self._until(self._all_listening)
        with self._probing() as probes:
            self._release("1.0.0", v1, "Release 1.0.0 reaches every device", probes, expect="succeeded")
            v2 = repo.release("2.0.0", breakage=Breakage.UNHEALTHY)
            self._release(
                "2.0.0",
                v2,
                "Release 2.0.0 is broken: every device goes back by itself",
                probes,
                expect="rolled_back",
            )
            v3 = repo.release("3.0.0")
            self._release("3.0.0", v3, "Release 3.0.0 reaches every device", probes, expect="succeeded")
        self._staged(repo)

    def _staged(self, repo: FleetRepo) -> None:
        """The same kind of bad release again, this time under policy: it hurts the canary and nobody else."""
        with self._step("A staged rollout of broken 4.0.0 halts itself") as step:
            staged_rollout.prepare(self.client)
            commit = repo.release("4.0.0", breakage=Breakage.UNHEALTHY)
            release = staged_rollout.start(self.client, commit, "4.0.0")
            halted = staged_rollout.watch_halt(self.client, release, self._until)
            self.facts.halted = asdict(halted)
            step.detail = f"hurt {', '.join(halted.hurt)}, spared {halted.spared}"
        with self._step("A staged rollout of 4.0.1 reaches the canary, then everybody"):
            release = staged_rollout.start(self.client, repo.release("4.0.1"), "4.0.1")
            self._until(lambda: self._attempts(release["id"]))
            self._until(lambda: self._all_run("4.0.1", "healthy"))

    def _enroll(self, stack: LocalStack, repo: FleetRepo) -> None:
        token = self.client.rpc(
            "create_provisioning_token",
            {"role": "beacon", "segment": "stable", "branch": "main", "max_uses": SIMULATED_DEVICES + 1},
        ).execute()
        real = [] if self.docker_missing else [("beacon-real", "docker")]
        names = real + [(f"beacon-{n}", "simulated") for n in range(1, SIMULATED_DEVICES + 2 - len(real))]
        for name, runtime in names:
            ports = free_ports(2)
            if runtime == "docker":
                self.real_ports = ports
            device = DemoDevice(name, self.data / "demo" / "devices" / name, runtime)
            device.configure(
                api_url=stack.api_url,
                publishable_key=stack.publishable_key,
                git_url=repo.url,
                allowed_signers=repo.allowed_signers,
                variables={"BEACON_PORT": str(ports[0]), "BEACON_CLOCK_PORT": str(ports[1])},
            )
            device.enroll(_token_text(token.data))
            self.devices.append(device)

    def _release(
        self, version: str, commit: str, title: str, probes: dict[str, Probe], *, expect: str
    ) -> None:
        with self._step(title) as step:
            since = time.monotonic()
            row = (
                self.client.table("releases")
                .insert({"commit_sha": commit, "branch": "main", "version": version})
                .execute()
            )
            release = _row(row.data)
            attempts = self._until(lambda: self._attempts(release["id"]))
            wrong = [a for a in attempts if a["outcome"] != expect]
            if wrong:
                raise FleetctlError(
                    "unexpected_outcome",
                    f"{len(wrong)} of {len(attempts)} devices ended {version} as "
                    f"{wrong[0]['outcome']}: {wrong[0]['error'] or 'no reason given'}",
                    hint=f"Read {self.data / 'demo' / 'devices'}/*/agent.log.",
                )
            good = "3.0.0" if version == "3.0.0" else "1.0.0"
            self._until(lambda: self._all_run(good, "rolled_back" if expect == "rolled_back" else "healthy"))
            self._until(lambda: self._answers(probes, good))
            self._remember(version, release, attempts, probes, since)
            latencies = self.facts.wake_latency_ms
            step.detail = f"woken after {latencies[version]:.0f} ms"

    def _remember(
        self,
        version: str,
        release: dict[str, Any],
        attempts: list[dict[str, Any]],
        probes: dict[str, Probe],
        since: float,
    ) -> None:
        created = _time(release["created_at"])
        self.facts.wake_latency_ms[version] = median(
            (woken - created).total_seconds() * 1000
            for device in self.devices
            if (woken := device.woken_after(created)) is not None
        )
        # In the order in which the devices went through them; jsonb keeps none, so by the engine's table.
        phases = sorted(
            {phase for a in attempts for phase in (a["phase_durations_ms"] or {})}, key=_phase_order
        )
        self.facts.releases.append(
            {
                "version": version,
                "outcomes": sorted({a["outcome"] for a in attempts}),
                "devices": len(attempts),
                "attempt_began_ms_median": median(
                    (_time(a["started_at"]) - created).total_seconds() * 1000 for a in attempts
                ),
                "bytes_fetched_median": median(a["bytes_fetched"] or 0 for a in attempts),
                "phase_ms_median": {
                    phase: median((a["phase_durations_ms"] or {}).get(phase, 0) for a in attempts)
                    for phase in phases
                },
            }
        )
        names = {device["id"]: device["name"] for device in self._rows("devices", "id,name")}
        for attempt in attempts:
            if attempt["outcome"] == "rolled_back":
                self.facts.rolled_back.append(
                    {
                        "device": names[attempt["device_id"]],
                        "kind": attempt["error_kind"],
                        "why": attempt["error"],
                    }
                )
        if version != "1.0.0" and probes:
            self.facts.outage_ms[version] = {
                service: probe.outage_s(since) * 1000 for service, probe in probes.items()
            }

    # --- what is looked at ----------------------------------------------------------------------------------

    def _rows(self, table: str, columns: str) -> list[dict[str, Any]]:
        answer = self.client.table(table).select(columns).execute()
        return [row for row in answer.data if isinstance(row, dict)]

    def _all_listening(self) -> bool:
        """Every device has checked in, and says in its own log that its subscription is up."""
        self._all_alive()
        return len(self._rows("device_status", "device_id")) == len(self.devices) and all(
            b"subscribed" in device.log_file.read_bytes() for device in self.devices
        )

    def _attempts(self, release_id: str) -> list[dict[str, Any]] | None:
        self._all_alive()
        found = [
            row
            for row in self._rows(
                "update_history",
                "device_id,release_id,outcome,error_kind,error,started_at,phase_durations_ms,bytes_fetched",
            )
            if row["release_id"] == release_id
        ]
        return found if len({row["device_id"] for row in found}) == len(self.devices) else None

    def _all_run(self, version: str, state: str) -> bool:
        rows = self._rows("device_status", "state,releases!device_status_current_release_fkey(version)")
        return len(rows) == len(self.devices) and all(
            row["state"] == state and (row["releases"] or {}).get("version") == version for row in rows
        )

    def _answers(self, probes: dict[str, Probe], version: str) -> bool:
        return not probes or bool(probes["web"].answers and probes["web"].answers[-1].body == version)

    def _all_alive(self) -> None:
        dead = [device for device in self.devices if device.process is not None and not device.alive()]
        if dead:
            last = dead[0].log_file.read_text(errors="replace").strip().splitlines()[-1:]
            raise FleetctlError(
                "agent_died",
                f"The agent of {dead[0].name} ended: {' '.join(last)}",
                hint=f"Read {dead[0].log_file}.",
            )

    # --- telling --------------------------------------------------------------------------------------------

    @contextmanager
    def _step(self, title: str) -> Iterator[Step]:
        step = Step(title)
        self.facts.steps.append(step)
        began = time.monotonic()
        with out.status(title):
            try:
                yield step
            except BaseException as error:
                step.seconds = time.monotonic() - began
                step.detail = str(error)
                out.print(f"[red]✗[/] {title} [dim]({step.seconds:.1f} s)[/]")
                raise
        step.seconds = time.monotonic() - began
        step.seen = True
        out.print(
            f"[green]✓[/] {title} [dim]({step.seconds:.1f} s{'; ' + step.detail if step.detail else ''})[/]"
        )

    @contextmanager
    def _probing(self) -> Iterator[dict[str, Probe]]:
        if self.docker_missing:
            yield {}
            return
        web_port, clock_port = self.real_ports
        with Probe(web_port) as web, Probe(clock_port, path="/time") as clock:
            yield {"web": web, "clock": clock}

    def _until(self, look: Callable[[], T | None]) -> T:
        deadline = time.monotonic() + STEP_TIMEOUT_S
        while time.monotonic() < deadline:
            seen = look()
            if seen:
                return seen
            time.sleep(0.2)
        raise FleetctlError(
            "not_seen",
            f"Not seen within {STEP_TIMEOUT_S:.0f} s.",
            hint=f"Read the logs in {self.data / 'demo' / 'devices'} and {self.data / 'logs'}.",
        )

    def _report(self) -> None:
        facts = self.facts
        out.print()
        print_table(
            "What each release did (medians over the devices)",
            ["release", "outcome", "devices", "row to wake", "row to attempt", "fetched"],
            [
                (
                    release["version"],
                    ", ".join(release["outcomes"]),
                    release["devices"],
                    f"{facts.wake_latency_ms[release['version']]:.0f} ms",
                    f"{release['attempt_began_ms_median']:.0f} ms",
                    f"{release['bytes_fetched_median'] / 1024:.1f} KiB",
                )
                for release in facts.releases
            ],
        )
        print_table(
            "Phases in ms",
            ["phase", *(release["version"] for release in facts.releases)],
            [
                (phase, *(_cell(release["phase_ms_median"].get(phase)) for release in facts.releases))
                for phase in dict.fromkeys(
                    phase for release in facts.releases for phase in release["phase_ms_median"]
                )
            ],
        )
        if facts.outage_ms:
            print_table(
                "Outage seen by a client that asks every 5 ms (real containers)",
                ["release", "changed service `web`", "unchanged service `clock`"],
                [
                    (version, f"{ms['web']:.0f} ms", f"{ms['clock']:.0f} ms")
                    for version, ms in facts.outage_ms.items()
                ],
            )
        else:
            out.print("[dim]Outage: not measured, since simulated containers serve nothing.[/]\n")
        print_table(
            "Why devices went back from 2.0.0",
            ["device", "kind", "why"],
            [(row["device"], row["kind"], row["why"]) for row in facts.rolled_back],
        )
        out.print(f"The rollout of {facts.halted['version']} halted itself: {facts.halted['reason']}")
        out.print(f"What a device that was spared is told: {facts.halted['explained']}")

    def _stay(self, stack: LocalStack) -> None:
        out.print()
        email, password = self.login
        pairs(
            {
                "dashboard": stack.dashboard_url,
                "table editor": stack.table_editor_url or "off",
                "sign in as": f"{email}  {password}",
                "more": f"fleetctl --help  (this stack's data: {self.data})",
            }
        )
        out.print("\nThe fleet keeps running. Ctrl-C stops everything.")
        while True:
            self._all_alive()
            time.sleep(1)

    # --- folders and endings --------------------------------------------------------------------------------

    def _prepare_folder(self) -> None:
        """Begin from nothing, but never over a folder that is somebody's real stack."""
        marker = self.data / MARKER
        if self.data.exists() and any(self.data.iterdir()):
            if not marker.exists():
                raise FleetctlError(
                    "data_in_use",
                    f"{self.data} holds a stack that the demo did not make.",
                    hint="Give the demo its own folder: fleetctl demo --data .fleet-demo",
                )
            if LocalStack.is_running(self.data):
                raise FleetctlError(
                    "already_running",
                    f"A stack is running in {self.data}.",
                    hint="Stop it first: fleetctl down",
                )
            for device in (self.data / "demo" / "devices").glob("*"):
                if not docker_missing():
                    remove_project(DemoDevice(device.name, device, "docker").project)
            shutil.rmtree(self.data)
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        marker.write_text("Made by `fleetctl demo`, which may delete this folder.\n")

    def _stop_devices(self) -> None:
        for device in self.devices:
            device.ask_to_stop()
        for device in self.devices:
            device.stop()

    def _write_facts(self) -> None:
        if (self.data / MARKER).exists():
            self.facts.containers = "simulated" if self.docker_missing else "docker"
            (self.data / "demo.json").write_text(json.dumps(asdict(self.facts), indent=2))


def make_operator(stack: LocalStack, email: str, rank: str) -> tuple[str, str]:
    """Sign a user up with the embedded Auth and give them a rank; return (email, password)."""
    password = secrets.token_urlsafe(12)
    answer = httpx.post(
        f"{stack.api_url}/auth/v1/signup",
        headers={"apikey": stack.publishable_key},
        json={"email": email, "password": password},
        timeout=30,
    )
    if answer.status_code >= 400:
        raise FleetctlError("signup_failed", f"The login {email} could not be made: {answer.text}")
    user = answer.json().get("user") or answer.json()
    service: Client = create_client(stack.api_url, stack.secret_key)
    service.table("operators").insert({"user_id": user["id"], "email": email, "rank": rank}).execute()
    return email, password


def _row(data: object) -> dict[str, Any]:
    if isinstance(data, list) and data and isinstance(data[0], dict):
        return data[0]
    raise FleetctlError("bad_answer", f"Expected one row, got {data!r}.")


def _token_text(data: object) -> str:
    """The token that `create_provisioning_token` shows once."""
    if isinstance(data, str):
        return data
    row = data[0] if isinstance(data, list) and data else data
    if isinstance(row, dict) and isinstance(row.get("token"), str):
        return str(row["token"])
    raise FleetctlError("bad_answer", "create_provisioning_token() answered without a token.")


def _phase_order(phase: str) -> int:
    known = [known.value for known in Phase]
    return known.index(phase) if phase in known else len(known)


def _cell(milliseconds: float | None) -> str:
    return "" if milliseconds is None else f"{milliseconds:.0f}"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
