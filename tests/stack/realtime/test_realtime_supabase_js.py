"""What `@supabase/supabase-js`, the dashboard's client, gets: protocol 2.0.0 with binary frames; sign-in."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fleetctl.stack.deno import find_deno
from tests.stack.realtime.support import Cast, Project, send
from tests.support.stack_identities import MakeOperator

SCRIPT = Path(__file__).with_name("supabase_js.ts")


@pytest.fixture(scope="module")
def seen(project: Project, open_project: Project, cast: Cast, make_operator: MakeOperator) -> dict[str, Any]:
    """Run every scenario once; broadcast from the database whenever one asks for it."""
    email = f"{secrets.token_hex(4)}@js.example"
    make_operator(email, "viewer")
    given = {
        "url": project.realtime_url.removesuffix("/realtime/v1"),
        "openUrl": open_project.realtime_url.removesuffix("/realtime/v1"),
        "publishableKey": project.publishable_key,
        "secretKey": project.secret_key,
        "operatorToken": project.token("authenticated", cast.operator),
        "deviceToken": project.token("fleet_device", cast.device),
        "deviceTopic": f"device:{cast.device}",
        "topic": f"js:{secrets.token_hex(6)}",
        "email": email,
        "password": "correct horse battery",
    }
    process = subprocess.Popen(
        [find_deno(), "run", "-A", "--no-config", "--no-lock", str(SCRIPT), json.dumps(given)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    last = ""
    with process, psycopg.connect(project.db_url, autocommit=True) as db:
        assert process.stdin is not None
        assert process.stdout is not None
        for line in process.stdout:
            last = line
            if line.startswith("send "):
                _, topic, event, private = line.split()
                send(db, topic, event, {"v": 1, "id": "given"}, private=private == "true")
                process.stdin.write("sent\n")
                process.stdin.flush()
        assert process.stderr is not None
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    return dict(json.loads(last))


def unauthorized(topic: str) -> str:
    return f"Unauthorized: You do not have permissions to read from this Channel topic: {topic}"


def test_an_operator_gets_private_broadcasts_from_the_database(seen: dict[str, Any]) -> None:
    assert seen["privateBroadcastFromTheDatabase"] == {
        "joined": "SUBSCRIBED",
        "event": "devices",
        "payload": {"v": 1, "id": "given"},
        "hasId": True,
    }


def test_a_private_channel_is_refused_to_anon_and_to_a_device(seen: dict[str, Any]) -> None:
    refused = f"CHANNEL_ERROR {unauthorized('fleet')}"
    assert seen["refusedPrivateChannel"] == {"anon": refused, "device": refused}


def test_a_device_gets_its_wake(seen: dict[str, Any]) -> None:
    assert seen["deviceOnItsOwnTopic"] == {"joined": "SUBSCRIBED", "event": "wake"}


def test_a_client_broadcast_is_acknowledged_and_reaches_itself_and_others_as_text_and_bytes(
    seen: dict[str, Any],
) -> None:
    assert seen["clientBroadcastWithAckAndBytes"] == {
        "sent": "ok",
        "sentBytes": "ok",
        "mine": {"text": "grüß dich 👋"},
        "first": {"text": "grüß dich 👋"},
        "second": [0, 1, 255],
    }


def test_http_send_reaches_a_channel(seen: dict[str, Any]) -> None:
    assert seen["httpSend"] == {"answer": {"success": True}, "got": {"n": 1}}


def test_presence_shows_who_comes_and_goes(seen: dict[str, Any]) -> None:
    assert seen["presence"] == {
        "tracked": "ok",
        "joined": "join member",
        "state": ["fine"],
        "left": "leave member",
    }


def test_replay_marks_what_it_repeats(seen: dict[str, Any]) -> None:
    assert seen["replay"] == {"event": "halts", "replayed": True}


def test_leaving_a_channel_is_confirmed(seen: dict[str, Any]) -> None:
    assert seen["leaving"] == {"left": "ok", "channels": 0}


def test_signing_in_refreshing_and_reading_the_user(seen: dict[str, Any]) -> None:
    """tests/stack/test_auth_clients.py has the Python client, which also parses each instant."""
    got = seen["signingIn"]
    assert got["errors"] == [None] * 4
    assert got["email"].endswith("@js.example")
    assert got["renewed"] is True
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", got["createdAt"])
