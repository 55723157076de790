"""`fleetctl demo`: a fleet from nothing. What it ticks off was seen in the tables that an operator has."""

from __future__ import annotations

import json
import secrets
import shutil
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime
from operator import itemgetter
from pathlib import Path
from statistics import median

from fleetctl.client.api import Api
from fleetctl.client.query import Row
from fleetctl.client.target import Target
from fleetctl.console import out, pairs, print_error
from fleetctl.demo import staged_rollout
from fleetctl.demo.beacon import BeaconRepo, Breakage
from fleetctl.demo.device import DemoDevice
from fleetctl.demo.docker import docker_missing, remove_project
from fleetctl.demo.facts import Facts, ReleaseFacts, Step, print_report
from fleetctl.demo.observer import Observer
from fleetctl.demo.probe import Probe
from fleetctl.errors import FleetctlError
from fleetctl.stack.layout import DEMO_MARKER
from fleetctl.stack.local_stack import LocalStack
from fleetctl.stack.ports import free_ports

SIMULATED_DEVICES = 5
EMAIL = "demo@fleet.example"


class Walkthrough:
    """One run of the demo in one data folder."""

    def __init__(self, *, data: Path, port: int, simulated: bool, web: bool) -> None:
        self.data = data.resolve()
        self.port = port
        self.web = web
        self.facts = Facts()
        self.docker_missing = "switched off by --simulated" if simulated else docker_missing()
        self.devices: list[DemoDevice] = []
        self.real_ports: list[int] = []
        self.password = secrets.token_urlsafe(12)

    def run(self, *, once: bool) -> int:
        """Take every step; return the exit code: 0 if every step was seen."""
        # SIGINT too: a shell that starts us in the background has it ignored.
        for stop in (signal.SIGINT, signal.SIGTERM):
            signal.signal(stop, _interrupt)
        try:
            with ExitStack() as ending:
                ending.callback(self._write_facts)
                self._prepare_folder()
                out.print(
                    f"A control plane and {SIMULATED_DEVICES + 1} devices in {self.data}:\n", soft_wrap=True
                )
                with self._step("Start the control plane"):
                    stack = ending.enter_context(
                        LocalStack.start(data=self.data, port=self.port, web=self.web)
                    )
                ending.callback(self._stop_devices)
                self._take_steps(stack)
                print_report(self.facts)
                self.facts.ok = all(step.seen for step in self.facts.steps)
                if not once:
                    self._stay(stack)
            out.print(
                f"\nAll {len(self.facts.steps)} steps succeeded, and everything is stopped. "
                f"The figures are in {self.data / 'demo.json'}.",
                soft_wrap=True,
            )
        except FleetctlError as error:
            print_error(error.kind, error.message, error.hint)
        except KeyboardInterrupt:
            out.print("\nStopped.")
            return 0 if self.facts.ok else 130
        return 0 if self.facts.ok else 1

    # --- the steps ------------------------------------------------------------------------------------------

    def _take_steps(self, stack: LocalStack) -> None:
        self.api = Api(Target(stack.api_url, stack.secret_key))
        self.observer = Observer(
            self.api, self.devices, logs=f"{self.data / 'demo' / 'devices'} and {self.data / 'logs'}"
        )
        self.facts.urls = {"dashboard": stack.dashboard_url, "table_editor": stack.table_editor_url or ""}
        with self._step("Create an operator account"):
            user = self.api.make_user(EMAIL, self.password)
            self.api.insert("operators", {"user_id": str(user), "email": EMAIL, "rank": "admin"})
        with self._step("Create a fleet repository with signed commits"):
            repo = BeaconRepo.create(self.data / "demo" / "repo")
            v1 = repo.release("1.0.0")
        with self._step(f"Enroll {SIMULATED_DEVICES + 1} devices") as step:
            self._enroll(stack, repo)
            step.detail = (
                f"all simulated: {self.docker_missing}" if self.docker_missing else "1 with real containers"
            )
        with self._step("Devices check in and listen for wake-ups"):
            for device in self.devices:
                device.start()
            self.observer.until(self.observer.all_listen)
        with self._probing() as probes:
            self._release("1.0.0", v1, "Release 1.0.0: every device installs it", probes)
            v2 = repo.release("2.0.0", breakage=Breakage.UNHEALTHY)
            self._release(
                "2.0.0",
                v2,
                "Release 2.0.0 is broken: every device rolls back on its own",
                probes,
                back_to="1.0.0",
            )
            v3 = repo.release("3.0.0")
            self._release("3.0.0", v3, "Release 3.0.0: every device installs it", probes)
        self._roll_out(repo)

    def _enroll(self, stack: LocalStack, repo: BeaconRepo) -> None:
        token = self.api.rpc(
            "create_provisioning_token",
            role="beacon", segment="stable", branch="main", max_uses=SIMULATED_DEVICES + 1,
        )["token"]  # fmt: skip
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
            device.enroll(token)
            self.devices.append(device)

    def _release(
        self,
        version: str,
        commit: str,
        title: str,
        probes: Mapping[str, Probe],
        *,
        back_to: str | None = None,
    ) -> None:
        """Offer a release to everyone. It should stay, or every device should go back to `back_to`."""
        outcome, state = ("rolled_back", "rolled_back") if back_to else ("succeeded", "healthy")
        observer = self.observer
        with self._step(title) as step:
            since = time.monotonic()
            release = staged_rollout.release_to_all(self.api, commit, version)
            attempts = observer.until(lambda: observer.attempts(release["id"]))
            self._require_outcome(version, outcome, attempts)
            observer.until(lambda: observer.all_run(back_to or version, state))
            observer.until(lambda: observer.serves(probes, back_to or version))
            self._remember(release, attempts)
            if version != "1.0.0" and probes:
                self.facts.outage_ms[version] = {
                    service: probe.outage_s(since) * 1000 for service, probe in probes.items()
                }
            step.detail = f"woken after {self.facts.wake_latency_ms[version]:.0f} ms"

    def _require_outcome(self, version: str, outcome: str, attempts: Sequence[Row]) -> None:
        wrong = [row for row in attempts if row["outcome"] != outcome]
        if wrong:
            raise FleetctlError(
                "unexpected_outcome",
                f"{version}: {len(wrong)} of {len(attempts)} devices reported {wrong[0]['outcome']} instead "
                f"of {outcome}: {wrong[0]['error'] or 'no reason given'}",
                hint=f"Read {self.data / 'demo' / 'devices'}/*/agent.log.",
            )

    def _remember(self, release: Row, attempts: Sequence[Row]) -> None:
        created = datetime.fromisoformat(release["created_at"])
        self.facts.wake_latency_ms[release["version"]] = median(
            (woken - created).total_seconds() * 1000
            for device in self.devices
            if (woken := device.woken_after(created)) is not None
        )
        self.facts.releases.append(ReleaseFacts.of(release, attempts))
        names = self.observer.names()
        self.facts.rolled_back += sorted(
            (
                {"device": names[row["device_id"]], "kind": row["error_kind"], "why": row["error"]}
                for row in attempts
                if row["outcome"] == "rolled_back"
            ),
            key=itemgetter("device"),
        )

    def _roll_out(self, repo: BeaconRepo) -> None:
        """The same kind of bad release again, this time staged: only the canary is affected."""
        observer = self.observer
        with self._step("Staged rollout of a broken 4.0.0: it is halted at the canary") as step:
            staged_rollout.make_canary(self.api)
            commit = repo.release("4.0.0", breakage=Breakage.UNHEALTHY)
            release = staged_rollout.start_rollout(self.api, commit, "4.0.0")
            halted = staged_rollout.watch_halt(self.api, release, observer.until)
            self.facts.halted = asdict(halted)
            step.detail = f"only {', '.join(halted.hurt)} was affected; {halted.spared} devices were spared"
        with self._step("Staged rollout of 4.0.1: the canary first, then every device"):
            release = staged_rollout.start_rollout(self.api, repo.release("4.0.1"), "4.0.1")
            observer.until(lambda: observer.attempts(release["id"]))
            observer.until(lambda: observer.all_run("4.0.1", "healthy"))

    # --- how it is shown ------------------------------------------------------------------------------------

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

    def _stay(self, stack: LocalStack) -> None:
        out.print()
        pairs(
            {
                "dashboard": stack.dashboard_url,
                "table editor": stack.table_editor_url or "off",
                "sign in as": f"{EMAIL}  {self.password}",
                "command line": f"fleetctl device list --data {self.data}",
            }
        )
        out.print("\nThe fleet keeps running. Press Ctrl-C to stop everything.")
        while True:
            self.observer.require_agents()
            time.sleep(1)

    # --- folders and endings --------------------------------------------------------------------------------

    def _prepare_folder(self) -> None:
        """Begin from nothing, but never delete a folder with a real stack in it."""
        marker = self.data / DEMO_MARKER
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
                    hint=f"Stop it first: fleetctl down --data {self.data}",
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
        if (self.data / DEMO_MARKER).exists():
            self.facts.containers = "simulated" if self.docker_missing else "docker"
            (self.data / "demo.json").write_text(json.dumps(asdict(self.facts), indent=2))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
