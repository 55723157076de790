"""A process that speaks the engine's protocol and keeps its world in `<root>/state/fake.json`.

What it does is set by `<root>/state/fake_plan.json`: {"fail": kind} ends an update badly, {"die": phase} is
killed in that phase, {"locked": true} exits 75, {"hold": path} waits in "pulling" until that file exists,
{"until_newer": true} waits there for a newer directive, {"deaf": true} ignores SIGTERM. Every request is
appended to `<root>/state/fake_requests.jsonl`.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4


def say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def main() -> int:
    request = json.loads(sys.stdin.readline())
    state = Path(request["config"]["root"]) / "state"
    state.mkdir(exist_ok=True)
    with (state / "fake_requests.jsonl").open("a") as file:
        noted = {key: request[key] for key in ("verb", "operator_requested", "heard")}
        file.write(json.dumps({**noted, "pid": os.getpid()}) + "\n")
    plan = read(state / "fake_plan.json")
    world = {
        "state": "healthy", "phase": "steady", "reason": "", "role": None, "current": None, "previous": None,
        "target": None, "services": [], "error_kind": None, "error": None, **read(state / "fake.json"),
    }  # fmt: skip
    if plan.get("locked") and request["verb"] != "status":
        return 75
    if plan.get("refuse") and request["verb"] == plan["refuse"]["verb"]:
        say(
            {
                "error": {
                    "kind": plan["refuse"]["kind"],
                    "message": "Refused by plan.",
                    "hint": "",
                    "retryable": True,
                }
            }
        )
        return 1
    if plan.get("deaf"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    verb = request["verb"]
    if verb == "converge" and request["directive"]["action"] in ("update", "rollback"):
        code = converge(request["directive"], plan, world, state)
        if code is not None:
            return code
    elif verb == "converge":
        prefetch(request["directive"], plan, world, state)
    elif verb == "recover":
        world["phase"] = "steady"
    elif verb == "rollback":
        world["current"], world["previous"] = world["previous"], world["current"]
        world["state"] = "rolled_back"
    elif verb == "enter_safe_mode":
        world["state"] = world["phase"] = "safe_mode"
    (state / "fake.json").write_text(json.dumps(world))
    say({"done": world})
    return 0


def converge(
    directive: dict[str, Any], plan: dict[str, Any], world: dict[str, Any], state: Path
) -> int | None:
    target = directive["release"]
    for phase in ("fetching", "pulling", "probation"):
        (state / "fake.json").write_text(json.dumps({**world, "phase": phase, "target": target}))
        say({"phase": phase, "detail": f"{target['version']}", "percent": 50, "target": target})
        if plan.get("die") == phase:
            os.kill(os.getpid(), signal.SIGKILL)
        if plan.get("until_newer") and phase == "pulling":
            target = json.loads(sys.stdin.readline())["directive"]["release"]
        if plan.get("hold") and phase == "pulling":
            target = hold(Path(plan["hold"]), target)
    failed = plan.get("fail")
    if failed:
        world.update(
            state="rolled_back", error_kind=failed, error="It was not well.", reason="It was not well."
        )
    else:
        world.update(
            state="healthy", previous=world["current"], current=target, role=directive["device"]["role"],
            error_kind=None, error=None,
            services=[{"service": "web", "image": "busybox:stable", "state": "running"}],
        )  # fmt: skip
    record(state, directive, target, failed)
    return None


def prefetch(directive: dict[str, Any], plan: dict[str, Any], world: dict[str, Any], state: Path) -> None:
    target, failed = directive["prefetch"], plan.get("fail")
    say({"phase": "pulling", "prefetching": True, "detail": "an image", "target": target})
    if plan.get("hold"):
        hold(Path(plan["hold"]), target)
    world["prefetch"] = {
        "release": target, "role": directive["device"]["role"], "ready": not failed,
        "error_kind": failed, "error": "It was refused." if failed else None,
    }  # fmt: skip


def hold(until: Path, target: dict[str, Any]) -> dict[str, Any]:
    """Wait for the file; a newer directive on standard input changes the target."""
    while not until.exists():
        if select.select([0], [], [], 0.02)[0]:
            line = os.read(0, 1 << 20)
            if line:
                target = json.loads(line)["directive"]["release"] or target
        time.sleep(0.01)
    return target


def record(state: Path, directive: dict[str, Any], target: dict[str, Any], failed: str | None) -> None:
    now = datetime.now(UTC).isoformat()
    attempt = {
        "id": str(uuid4()), "release_id": target["id"], "rollout_id": directive["rollout_id"],
        "from_commit": None, "to_commit": target["commit_sha"],
        "outcome": "rolled_back" if failed else "succeeded", "error_kind": failed,
        "started_at": now, "finished_at": now, "agent_version": "fake",
    }  # fmt: skip
    (state / "outbox").mkdir(exist_ok=True)
    (state / "outbox" / f"{attempt['id']}.json").write_text(json.dumps(attempt))


def read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.exists() else {}


if __name__ == "__main__":
    sys.exit(main())
