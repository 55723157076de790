"""docs/usage/integrators.md: its ten things are done as printed in two languages."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fleetctl.stack.deno import find_deno
from fleetctl.stack.local_stack import LocalStack
from tests.support.fleetctl_runner import device_key
from tests.support.patience import PATIENCE_S
from tests.support.stack_identities import MakeOperator

PAGE = (Path(__file__).resolve().parents[2] / "docs/usage/integrators.md").read_text(encoding="utf-8")
SEEN = (
    "me", "devices", "count", "found", "gates", "changed", "command", "preview", "rollout", "progress",
    "halt", "lifted", "history", "message",
)  # fmt: skip
EMAIL, PASSWORD = "integrator@example.com", "correct horse battery"


def printed(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


def python_program() -> list[str]:
    body = "\n".join([*printed("python"), "import json"])
    body += f"\nprint(json.dumps({{{', '.join(f'{name!r}: {name}' for name in SEEN)}}}))\n"
    main = "async def main():\n" + textwrap.indent(body, "    ") + "\nimport asyncio\nasyncio.run(main())\n"
    return [sys.executable, "-c", main]


def javascript_program(folder: Path) -> list[str]:
    script = folder / "page.js"
    # What keeps its connection open would keep the program from ending.
    script.write_text(
        "\n".join(printed("js")) + f"\nconsole.log(JSON.stringify({{{', '.join(SEEN)}}}));\nDeno.exit();\n"
    )
    return [
        find_deno(),
        "run",
        "--allow-net",
        "--allow-env",
        "--no-config",
        "--no-lock",
        "--no-check",
        str(script),
    ]


@pytest.fixture(scope="module")
def device(stack: LocalStack, make_operator: MakeOperator) -> Iterator[str]:
    """A person, and a device in Rome that healthily runs something; gone from all counts afterward."""
    make_operator(EMAIL, "operator")
    name = f"integrated-{uuid.uuid4().hex[:8]}"
    with psycopg.connect(stack.db_url, autocommit=True) as admin:
        admin.execute(
            "insert into devices (name, role, segment, state, public_key, labels) "
            "values (%s, 'beacon', 'canary', 'active', %s, %s)",
            (name, device_key(), json.dumps({"site": "rome"})),
        )
        yield name
        admin.execute("update devices set state = 'retired' where name = %s", (name,))


def run(stack: LocalStack, command: list[str]) -> dict[str, Any]:
    """Do all ten things, and take back what stays, so that the next one finds the same."""
    environment = {
        "FLEET_API_URL": stack.api_url, "FLEET_PUBLISHABLE_KEY": stack.publishable_key,
        "EMAIL": EMAIL, "PASSWORD": PASSWORD, "COMMIT": uuid.uuid4().hex + "00000000",
    }  # fmt: skip
    try:
        done = subprocess.run(
            command,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S,
        )
    finally:
        with psycopg.connect(stack.db_url, autocommit=True) as admin:
            commit = environment["COMMIT"]
            admin.execute(
                "select cancel_rollout(r.id) from rollouts r join releases e on e.id = r.release_id "
                "where e.commit_sha = %s",
                (commit,),
            )
            admin.execute('update devices set poll_interval_s = null where labels @> \'{"site": "rome"}\'')
            admin.execute("update releases set version = %s where commit_sha = %s", (commit, commit))
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


@pytest.fixture(scope="module")
def seen(
    stack: LocalStack, device: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    return {
        "python": run(stack, python_program()),
        "js": run(stack, javascript_program(tmp_path_factory.mktemp("page"))),
    }


@pytest.mark.parametrize("language", ["python", "js"])
def test_the_ten_things_do_what_the_page_says(
    seen: dict[str, dict[str, Any]], device: str, language: str
) -> None:
    assert len(printed(language)) == 10
    it = seen[language]
    assert it["me"] == {"email": EMAIL, "rank": "operator"}
    (row,) = [one for one in it["devices"] if one["name"] == device]
    assert row["segment"] == "canary"
    assert (it["count"], [one["name"] for one in it["found"]]) == (1, [device])
    assert it["gates"]["hold"] == "pass"
    assert [one["poll_interval_s"] for one in it["changed"]] == [300]
    assert (it["command"]["kind"], it["command"]["state"]) == ("check_drift", "queued")
    assert (it["rollout"]["state"], it["rollout"]["releases"]) == ("running", {"version": "2.1.0"})
    assert [stage["position"] for stage in it["progress"]["stages"]] == [1, 2]
    assert it["halt"]["lifted_at"] is None
    assert it["lifted"]["lift_reason"] == "A toaster."
    assert {"id", "action", "table_name", "actor"} == set(it["history"][0])
    assert [one["id"] for one in it["history"]] == sorted(one["id"] for one in it["history"])
    assert any(one["actor"] == EMAIL and one["table_name"] == "halts" for one in it["history"])
    assert it["message"]["op"] == "update"
    assert it["message"]["record"]["poll_interval_s"] == 600


def test_both_languages_get_the_same(seen: dict[str, dict[str, Any]]) -> None:
    """Down to the names of members, apart from ids and times."""
    shapes = [{name: shape(value) for name, value in seen[language].items()} for language in ("python", "js")]
    assert shapes[0] == shapes[1]


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__
