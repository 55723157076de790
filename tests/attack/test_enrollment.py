"""A stranger at the enrollment endpoint: without a token, with a wrong key, or with a taken name."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import uuid4

import httpx
import pytest

from fleetctl.stack.deno import find_deno
from tests.conftest import ROOT
from tests.sql.conftest import cluster, fleet, servers  # noqa: F401  the database's fixtures
from tests.support.identities import DEVICE, WHO, Fleet
from tests.support.patience import PATIENCE_S

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
EIGHTH = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
#: The y of the eight points of small order, and more that are not canonical (p or above).
SMALL = (0, 1, P - 1, EIGHTH, P - EIGHTH, P, P + 1, P + 2, P + 18)
KEYS = [(y | sign << 255).to_bytes(32, "little") for y in SMALL for sign in (0, 1)]
IDENTITY = (1).to_bytes(32, "little")
PUBLISHABLE = "sb_publishable_this"


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _forged(key: bytes) -> str:
    """Made without a private key: S = 0 and R = identity verify if the hash is a multiple of 8."""
    header = _text(
        json.dumps({"alg": "EdDSA", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": _text(key)}}).encode()
    )
    now = int(time.time())
    while True:
        claims = {"aud": "enroll", "iat": now, "exp": now + 60, "jti": uuid4().hex}
        message = f"{header}.{_text(json.dumps(claims).encode())}"
        digest = hashlib.sha512(IDENTITY + key + message.encode()).digest()
        if int.from_bytes(digest, "little") % L % 8 == 0:
            return f"{message}.{_text(IDENTITY + bytes(32))}"


class _Rest(BaseHTTPRequestHandler):
    """Stands where the database's REST is, and only notes that it was asked."""

    asked: list[str]

    def do_POST(self) -> None:
        self.asked.append(self.path)
        self.send_response(500)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def asked() -> list[str]:
    return []


@pytest.fixture(scope="module")
def endpoint(asked: list[str]) -> Iterator[str]:
    """The function `enroll` as it is deployed, before a database that notes what reaches it."""
    rest = ThreadingHTTPServer(("127.0.0.1", 0), type("Rest", (_Rest,), {"asked": asked}))
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    environment = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "DENO_DIR") if name in os.environ},
        "SUPABASE_URL": f"http://127.0.0.1:{rest.server_port}",
        "SUPABASE_PUBLISHABLE_KEYS": json.dumps({"default": PUBLISHABLE}),
        "SUPABASE_SECRET_KEYS": json.dumps({"default": "sb_secret_x"}),
        "DENO_SERVE_ADDRESS": "tcp:127.0.0.1:0",
        "NO_COLOR": "1",
    }
    process = subprocess.Popen(
        [find_deno(), "run", "--no-prompt", "--allow-net", "--allow-env", "enroll/index.ts"],
        cwd=ROOT / "edge_functions", env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert process.stdout is not None
    line = next(line for line in process.stdout if "Listening on" in line)
    threading.Thread(target=process.stdout.read, daemon=True).start()
    yield f"http://127.0.0.1:{line.rsplit(':', 1)[1].split('/')[0].strip()}/enroll"
    process.terminate()
    process.wait(PATIENCE_S)
    rest.shutdown()


def test_a_key_with_which_anybody_signs_is_refused(endpoint: str, asked: list[str]) -> None:
    """All eight points of small order, in every encoding, each with a forged proof that would verify."""
    for key in KEYS:
        answer = httpx.post(
            endpoint, json={"proof": _forged(key), "name": "x"}, headers={"apikey": PUBLISHABLE}
        )
        assert (answer.status_code, answer.json()["kind"]) == (401, "assertion_invalid"), key.hex()
        assert "proves nothing" in answer.json()["message"], key.hex()
    assert asked == []


@pytest.mark.parametrize("key", ["None", "", "sb_publishable_other", PUBLISHABLE + "x"])
def test_the_key_of_another_project_reaches_no_token(endpoint: str, asked: list[str], key: str) -> None:
    answer = httpx.post(endpoint, json={"proof": "x", "name": "x"}, headers={"apikey": key})
    assert (answer.status_code, answer.json()["kind"]) == (401, "publishable_key_invalid")
    assert asked == []


def test_no_other_way_takes_such_a_key_either(fleet: Fleet) -> None:  # noqa: F811
    for key in KEYS:
        add = "insert into public.devices (name, role, public_key) values ('x', 'beacon', %s)"
        assert fleet.refused(add, _text(key), who="operator").code == "23514", key.hex()


JOIN = (
    "select public.enroll_device(public_key => %s, name => %s, jti => gen_random_uuid()::text, "
    "client_address => '1.2.3.4', assertion_expires_at => now() + interval '1 minute', "
    "token_hash => encode(sha256(convert_to(%s, 'UTF8')), 'hex'))"
)


def test_a_name_is_taken_whatever_its_case_and_free_once_retired(fleet: Fleet) -> None:  # noqa: F811
    pending = fleet.one(JOIN, "k" * 43, "DEVICE", None, who="service")
    assert (pending["kind"], pending["name_taken"]) == ("pending", True)
    assert pending["name"].startswith("DEVICE-")
    again = "insert into public.devices (name, role) values (%s, 'beacon')"
    assert fleet.refused(again, "Device", who="operator").code == "23505"
    fleet.sql(again, "Retired", who="operator")
    freed = fleet.one(JOIN, "q" * 43, "retired", None, who="service")
    assert freed["name_taken"], "of two the living one has the name"


def test_a_replaced_device_keeps_its_place_and_the_old_key_ends(
    fleet: Fleet,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet.sql(
        "insert into public.update_history (id, device_id, to_commit, started_at, finished_at, outcome) "
        "values (gen_random_uuid(), %s, repeat('a', 40), now(), now(), 'succeeded')",
        DEVICE,
    )
    fleet.sql('update public.devices set labels = \'{"site": "rome"}\' where id = %s', DEVICE)
    assert fleet.refused("select public.replace_device(%s)", DEVICE, who="operator").code == "PT403"
    first = fleet.one("select public.replace_device(%s)", DEVICE, who="admin")
    made = fleet.one("select public.replace_device(%s)", DEVICE, who="admin")
    assert fleet.one(JOIN, "n" * 43, "new", first["token"], who="service")["kind"] == "token_invalid"
    assert fleet.one("select public.desired_state() -> 'device' ->> 'name'", who="device") == "device"
    joined = fleet.one(JOIN, "n" * 43, "new", made["token"], who="service")
    assert (joined["device_id"], joined["name"], joined["segment"]) == (str(DEVICE), "device", "canary")
    again = fleet.one(JOIN, "n" * 43, "new", made["token"], who="service")
    assert again["device_id"] == str(DEVICE), "a lost answer is asked for again"
    # The old key's token lives on for hours; it is worth nothing.
    assert fleet.refused("select public.desired_state()", who="device").kind == "device_replaced"
    report = "insert into public.device_status (device_id, state) values (%s, 'healthy')"
    assert fleet.refused(report, DEVICE, who="device").code == "42501"
    assert fleet.sql("select 1 from public.update_history", who="device") == []
    role, claims = WHO["device"]
    monkeypatch.setitem(WHO, "new device", (role, {**claims, "key_number": 2}))
    assert fleet.one("select public.desired_state() -> 'device' ->> 'name'", who="new device") == "device"
    assert len(fleet.sql("select 1 from public.update_history", who="new device")) == 1
    finish = (
        "select public.finish_device_token(%s, gen_random_uuid()::text, now() + interval '1 minute', %s) "
        "->> 'kind'"
    )
    assert fleet.one(finish, DEVICE, 1, who="service") == "device_replaced"
    assert fleet.one(finish, DEVICE, 2, who="service") == "granted"
    row = fleet.sql("select labels, state::text, public_key from public.devices where id = %s", DEVICE)
    assert row == [({"site": "rome"}, "active", "n" * 43)]


def test_who_waits_keeps_waiting_when_the_place_it_was_to_take_is_gone(fleet: Fleet) -> None:  # noqa: F811
    waiting = fleet.one(JOIN, "n" * 43, "new", None, who="service")
    made = fleet.one("select public.replace_device(%s)", DEVICE, who="admin")
    fleet.sql("update public.devices set state = 'retired' where id = %s", DEVICE, who="operator")
    assert fleet.one(JOIN, "n" * 43, "new", made["token"], who="service")["kind"] == "token_invalid"
    again = fleet.one(JOIN, "n" * 43, "new", None, who="service")
    assert (again["kind"], again["device_id"]) == ("pending", waiting["device_id"])
