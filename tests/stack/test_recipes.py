"""Each recipe of these pages is run as it is printed, on a fresh stack, or is named here with the reason."""

from __future__ import annotations

import json
import re
import shlex
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import pytest
import yaml
from psycopg.rows import dict_row

from fleet_agent.containers import compose_file
from fleet_agent.containers.simulated import SimulatedRuntime
from fleet_agent.model import FleetFile
from fleet_agent.roles import host_access
from fleet_agent.roles.host_paths import Place
from fleet_agent.roles.role import Role
from fleetctl.commands import repo as repo_commands
from fleetctl.commands.common.selector import parse_selector
from fleetctl.fleet_repo import FleetRepo
from fleetctl.stack.local_stack import LocalStack
from tests.support.fleetctl_runner import Answer, Fleetctl, device_key
from tests.support.stack import running_stack

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    "README.md",
    *(f"docs/usage/{n}.md" for n in ("reliability", "policy", "roles", "fleetctl", "releases", "selectors")),
)
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
NAME_LIMIT = 90


@dataclass(frozen=True)
class Recipe:
    page: str
    language: str
    text: str

    @property
    def name(self) -> str:
        """The start of its first line, without a comment, by which it is known here."""
        return f"{Path(self.page).stem}: {re.sub(r'  +#.*', '', self.text.splitlines()[0])}"[
            :NAME_LIMIT
        ].strip()


RECIPES = [
    Recipe(page, language, text)
    for page in PAGES
    for language, text in _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))
]

#: What nobody can type, or what another test runs; by its first line, as all here.
NOT_RUN = {
    "README: make demo": ("tests/stack/test_demo.py plays the demo, and make test is what runs this"),
    'releases: release@fleet.example namespaces="git",valid-before="20270101" ssh-ed25519 AAAA…': (
        "a line of a file: test_a_key_is_trusted_for_its_time_only"
    ),
    "releases: releases/<commit>/": "a picture of a folder: tests/unit/release/test_export.py",
}
#: Lines inside of recipes.
LINES_NOT_RUN = {
    "make up UP_ARGS=--detach": "the test starts its own stack: tests/stack/test_stack_lifecycle.py",
}
YAML = (
    "roles: description: Says over HTTP which release the device runs.",
    "roles: access:",
    "roles: services:",
)


class Desk:
    """A person at a fresh stack, in a folder next to their fleet repository."""

    def __init__(self, stack: LocalStack, db: psycopg.Connection[dict[str, Any]], folder: Path) -> None:
        self.stack, self.db, self.folder = stack, db, folder
        self.fleetctl = Fleetctl(stack)
        # In the stack's own folder fleetctl finds it; here it is told where the stack is.
        self.fleetctl.environment["FLEET_PUBLISHABLE_KEY"] = stack.publishable_key
        self.fleetctl.app.add_typer(repo_commands.app, name="repo")

    def type(self, text: str, stdin: str | None = None) -> list[Answer]:
        """Run each line of a shell recipe. Fails with what a command printed if it fails."""
        answers = []
        for line in text.splitlines():
            if line.split("  ")[0].strip() in LINES_NOT_RUN:
                continue
            for command in line.split(" && "):
                program, *arguments = shlex.split(command, comments=True)
                assert program in ("fleetctl", ".venv/bin/fleetctl"), f"nothing here runs {program}"
                answer = self.fleetctl(*arguments, stdin=stdin)
                if answer.error is not None and answer.error.kind == "confirmation_needed":
                    # On a terminal it asks.
                    answer = self.fleetctl(*arguments, "--yes", stdin=stdin)
                assert answer.exit_code == 0, f"{command}: {answer.output} {answer.error}"
                answers.append(answer)
        return answers

    def query(self, text: str, **placeholders: str) -> list[list[dict[str, Any]]]:
        """Run each statement of an SQL recipe; `<release id>` is the placeholder `release_id`.

        What a statement returns is what a later `<rollout id>` or `<pattern id>` means.
        """
        results = []
        for statement in re.split(r";[ \t]*(?:--.*)?$", text, flags=re.MULTILINE):
            if not statement.strip():
                continue
            filled = statement
            for name, value in placeholders.items():
                filled = filled.replace(f"<{name.replace('_', ' ')}>", value)
            assert " id>" not in filled
            cursor = self.db.execute(filled.encode())
            rows = cursor.fetchall() if cursor.description else []
            results.append(rows)
            if rows and len(rows[0]) == 1:
                ((function, made),) = rows[0].items()
                key = {"create_rollout": "rollout_id", "mark_known_bad": "pattern_id"}.get(function)
                if key is not None:
                    # A row, which begins with its id.
                    placeholders[key] = str(made).strip("(").partition(",")[0]
        return results

    def device(self, name: str, **columns: Any) -> None:
        row = {"name": name, "role": "beacon", "state": "active", "public_key": device_key(), **columns}
        values = ", ".join(f"%({column})s" for column in row)
        self.db.execute(f"insert into devices ({', '.join(row)}) values ({values})", row)

    def release(self, version: str) -> str:
        """A release that is added to the branch `main`; its id."""
        (row,) = self.db.execute(
            "insert into releases (commit_sha, branch, version) values (md5(%s) || '00000000', 'main', %s) "
            "returning id",
            (version, version),
        ).fetchall()
        return str(row["id"])

    def ends_soon(self, version: str) -> None:
        """The rollout is completed while it is watched."""
        sentence = (
            "update rollouts set state = 'completed' where state = 'running' "
            "and release_id in (select id from releases where version = %s)"
        )

        def complete() -> None:
            with psycopg.connect(self.stack.db_url, autocommit=True) as db:
                while db.execute(sentence, (version,)).rowcount == 0 and not self._over.wait(0.1):
                    pass

        self._over = threading.Event()
        threading.Thread(target=complete, daemon=True).start()


@pytest.fixture(scope="module")
def stack() -> Iterator[LocalStack]:
    """As after the first `fleetctl up`."""
    with running_stack(table_editor=False) as running:
        yield running


@pytest.fixture
def desk(stack: LocalStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """In a folder of its own; what it makes has names that no other recipe uses, and stays."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with psycopg.connect(stack.db_url, autocommit=True, row_factory=dict_row) as db:
        # As the SQL editor has it.
        db.execute("set search_path = public")
        yield Desk(stack, db, folder)


RUN: set[str] = set()
Test = TypeVar("Test", bound=Callable[..., None])


def runs(*names: str) -> Callable[[Test], Test]:
    """The test runs these recipes, all of them."""
    RUN.update(names)

    def mark(test: Test) -> Test:
        texts = [one.text for name in names for one in RECIPES if one.name == name]
        assert len(texts) == len(names), names
        marked: Test = pytest.mark.parametrize("recipes", [texts], ids=[""])(test)
        return marked

    return mark


def test_each_recipe_is_run_or_has_a_reason() -> None:
    names = [one.name for one in RECIPES]
    assert len(set(names)) == len(names), "two recipes begin alike"
    assert sorted(set(names) - RUN - NOT_RUN.keys()) == []
    assert sorted((RUN | NOT_RUN.keys()) - set(names)) == []
    assert RUN.isdisjoint(NOT_RUN)


@runs("README: make up UP_ARGS=--detach")
def test_readme_leads_to_a_release_for_all_and_a_token(desk: Desk, recipes: list[str]) -> None:
    answers = desk.type(recipes[0])
    said = " ".join(" ".join(answer.output for answer in answers).split())
    assert "signed by release@fleet.example" in said
    (row,) = desk.db.execute(
        "select r.state::text, l.commit_sha from rollouts r join releases l on l.id = r.release_id "
        "where l.version = '1.0.0'"
    ).fetchall()
    head = FleetRepo.open(desk.folder / "../my-fleet").git("rev-parse", "HEAD")
    assert row["commit_sha"] == head
    # Completed at once while there is no device.
    assert row["state"] in ("running", "completed")
    assert desk.db.execute("select 1 from private.provisioning_tokens where role = 'beacon'").fetchall()


@runs("releases: fleetctl repo init ../my-fleet")
def test_a_fleet_repository_to_start_with(desk: Desk, recipes: list[str]) -> None:
    desk.type(recipes[0])
    assert (desk.folder / "../my-fleet.keys/allowed_signers").is_file()
    assert "gpgsig" in FleetRepo.open(desk.folder / "../my-fleet").git("cat-file", "commit", "HEAD")


@runs("fleetctl: fleetctl login you@example.com --api-url https://<ref>.supabase.co --publishable")
def test_sign_in_and_out(desk: Desk, recipes: list[str]) -> None:
    email = "they@example.com"
    made = desk.fleetctl("operator", "add", email, "--rank", "operator", "--json")
    text = recipes[0].replace("you@example.com", email)
    text = text.replace("https://<ref>.supabase.co", desk.stack.api_url)
    text = text.replace("sb_publishable_…", desk.stack.publishable_key)
    desk.fleetctl.environment = {
        "COLUMNS": "200",
        "FLEET_PASSWORD": made.json["password"],
        "FLEET_SESSION": str(desk.folder / "session.json"),
    }
    _, whoami, _ = desk.type(text)
    assert f"{email} at {desk.stack.api_url} (operator)." in " ".join(whoami.output.split())


@runs("fleetctl: fleetctl login you@example.com --fleet production --api-url https://<ref>.supaba")
def test_several_fleets_by_name(desk: Desk, recipes: list[str]) -> None:
    email = "several@example.com"
    made = desk.fleetctl("operator", "add", email, "--rank", "viewer", "--json")
    text = recipes[0].replace("you@example.com", email).replace("../test-stack", str(desk.stack.data))
    text = text.replace("https://<ref>.supabase.co", desk.stack.api_url)
    text = text.replace("sb_publishable_…", desk.stack.publishable_key)
    desk.fleetctl.environment = {
        "COLUMNS": "200",
        "FLEET_PASSWORD": made.json["password"],
        "FLEET_SESSION": str(desk.folder / "session.json"),
    }
    _, _, listed, _, _ = desk.type(text)
    assert [line.split()[1] for line in listed.output.splitlines() if email in line] == ["production", "test"]


@runs("fleetctl: fleetctl device set --label site=rome --dry-run --to segment=early")
def test_devices_are_moved_after_a_look(desk: Desk, recipes: list[str]) -> None:
    desk.db.execute("insert into segments (name) values ('early') on conflict do nothing")
    desk.device("rome-1", labels='{"site": "rome"}')
    look, _ = desk.type(recipes[0])
    assert "rome-1" in look.output
    row = desk.db.execute("select segment, labels from devices where name = 'rome-1'").fetchone()
    assert row == {"segment": "early", "labels": {"site": "rome", "floor": "3"}}


@runs(
    "fleetctl: fleetctl release add HEAD --repository ../fleet --version 2.1.0 --stage canary,s",
    "fleetctl: fleetctl release add HEAD --repository ../fleet --version 2.1.0",
)
def test_staged_rollouts(desk: Desk, recipes: list[str]) -> None:
    """At once with the release, then in two steps."""
    desk.db.execute("insert into segments (name) values ('canary') on conflict do nothing")
    for number in range(3):
        desk.device(f"staged-{number}", segment="canary" if number == 0 else "stable")
    repo = FleetRepo.create(desk.folder / "../fleet")
    for text in recipes:
        repo.commit(text[:72], {"roles/beacon/note": text})
        desk.ends_soon("2.1.0")
        desk.type(text)
        states = desk.db.execute(
            "select r.state::text from rollouts r join releases l on l.id = r.release_id "
            "where l.version = '2.1.0'"
        ).fetchall()
        assert states == [{"state": "completed"}]
        desk.db.execute(
            "update releases set version = version || '-' || left(commit_sha, 4) where version = '2.1.0'"
        )


@runs("policy: select (private.judge_window(d, false, now())).* from devices d where d.name = 'lo")
def test_policy_of_one_device(desk: Desk, recipes: list[str]) -> None:
    desk.device("lobby")
    ((row,),) = desk.query(recipes[0])
    assert row["verdict"] == "pass"


@runs("policy: select create_rollout('<release id>', stages => '[")
def test_policy_by_sql(desk: Desk, recipes: list[str]) -> None:
    for number in range(20):
        desk.device(f"sql-{number}", segment="canary" if number < 2 else "stable")
    release = desk.release("by-sql")
    made, preview, _, progress = desk.query(recipes[0], release_id=release)
    assert made
    assert {row["stage"] for row in preview} >= {1, 2, 3}
    assert progress[0]["rollout_progress"]["state"] == "running"


@runs("policy: select attribute, value, sentence, selector from failure_patterns where version =")
def test_known_bad_by_sql(desk: Desk, recipes: list[str]) -> None:
    desk.device("old-1", hardware_model="Pi 3")
    release = desk.release("v2")
    _, matching, _, _ = desk.query(
        recipes[0],
        release_id=release,
    )
    assert {"name": "old-1"} in matching
    (row,) = desk.db.execute(
        "select lift_reason from known_bad_patterns where release_id = %s", (release,)
    ).fetchall()
    assert row["lift_reason"] == "fixed in the image"


@runs("policy: select preview_going_back('<release id>');")
def test_going_back_by_sql(desk: Desk, recipes: list[str]) -> None:
    row = desk.db.execute("select id from releases where version = 'v2'").fetchone()
    release = str(row["id"]) if row else desk.release("v2")
    desk.query(recipes[0], release_id=release)
    (row,) = desk.db.execute(
        "select state::text, all_at_once from releases where id = %s", (release,)
    ).fetchall()
    assert row == {"state": "withdrawn", "all_at_once": True}


@runs(
    'selectors: segment=canary,early hardware_model="Pi 3" label.site=rome',
    'selectors: {"segment": ["canary", "early"], "hardware_model": "Pi 3", "labels": {"site": "',
)
def test_a_selector_as_text_and_as_an_object(recipes: list[str]) -> None:
    text, written = recipes
    assert parse_selector(text) == json.loads(written)


@runs('selectors: select count_devices(\'{"segment": "canary", "offline": true}\');')
def test_selectors_by_sql(desk: Desk, recipes: list[str]) -> None:
    desk.device("in-rome", labels='{"site": "rome"}')
    counted, named, made = desk.query(recipes[0], release_id=desk.release("by-selector"))
    assert counted == [{"count_devices": 0}]
    assert {"name": "in-rome"} in named
    assert made


@runs("policy: update maintenance_windows set prefetch = true where name = 'nights';")
def test_prefetch_by_sql(desk: Desk, recipes: list[str]) -> None:
    desk.db.execute("insert into maintenance_windows (name) values ('nights') on conflict do nothing")
    desk.query(recipes[0])
    (row,) = desk.db.execute("select prefetch from maintenance_windows where name = 'nights'").fetchall()
    assert row == {"prefetch": True}


@runs("policy: begin;")
def test_history_is_rewritten_on_purpose(desk: Desk, recipes: list[str]) -> None:
    desk.query(recipes[0])


@runs(*YAML)
def test_yaml_of_a_role_is_valid(recipes: list[str], tmp_path: Path) -> None:
    text, access, compose_text = recipes
    (tmp_path / "compose.yaml").write_text(compose_text)
    compose = SimulatedRuntime(tmp_path / "world.json").config(tmp_path, {}, "fleet")
    assert compose_file.awaited(compose) == {"migrate"}
    (tmp_path / "role.yaml").write_text(f"description: d\n{access}")
    Role.load(tmp_path)
    (tmp_path / "role.yaml").write_text(text)
    role = Role.load(tmp_path)
    assert role.problems({"API_TOKEN": "t"}) == []
    assert len(role.checks(role.environment({"API_TOKEN": "t"}, {"FLEET_RELEASE_VERSION": "1"}))) >= 1


@runs('roles:     devices: ["/dev/serial/by-id/usb-FTDI_FT232R_USB_UART_A50285BI-if00-port0:/dev/')
def test_a_serial_adapter_by_its_name_is_free(recipes: list[str], tmp_path: Path) -> None:
    compose = yaml.safe_load(f"services:\n  hub:\n    image: x\n{recipes[0]}")
    assert compose["services"]["hub"]["devices"]
    assert host_access.needed(compose, Place(str(tmp_path), ())) == set()


@runs('releases: {"fleet_id": "0b9e8f0e-5f0d-4f3c-9f0e-2f6f3c1f7a11"}')
def test_a_fleet_file_is_valid(recipes: list[str]) -> None:
    assert FleetFile.model_validate_json(recipes[0]).model_dump(mode="json") == json.loads(recipes[0])
