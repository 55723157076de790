"""`fleetctl doctor` from outside: what an unfinished project answers, and what is said about it."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import respx
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm
from websockets.sync.server import ServerConnection, serve

from fleetctl.doctor import ControlPlane, Finding, Kind, State, examine
from fleetctl.doctor.control_plane import kind_of, read_signing_key
from fleetctl.errors import FleetctlError

API = "https://abcdefghijklmnopqrst.supabase.co"
KID = "5c0d3f7a-0000-4000-8000-000000000001"
PRIVATE = ec.generate_private_key(ec.SECP256R1())
JWK = {
    **ECAlgorithm.to_jwk(PRIVATE, as_dict=True),
    # As `supabase gen signing-key` prints them.
    "kid": KID,
    "alg": "ES256",
    "use": "sig",
    "key_ops": ["sign", "verify"],
    "ext": True,
}
PUBLIC = {name: value for name, value in JWK.items() if name != "d"}


def project(**options: Any) -> ControlPlane:
    known: dict[str, Any] = {
        "api_url": API, "kind": Kind.HOSTED, "migrations": Path("migrations"), "key": "sb_secret_x",
        "publishable_key": "sb_publishable_x", "signing_key": JWK,
    }  # fmt: skip
    return ControlPlane(**{**known, **options})


def findings(*only: str, **options: Any) -> list[Finding]:
    return list(examine(project(**options), only))


def one(check: str, **options: Any) -> tuple[State, str, str]:
    (finding,) = findings(check, **options)
    return finding.state, finding.sentence, finding.todo


def accepts(request: httpx.Request) -> httpx.Response:
    """As PostgREST does, with the key that the project publishes."""
    token = request.headers["authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, PRIVATE.public_key(), algorithms=["ES256"])
    assert (claims["role"], jwt.get_unverified_header(token)["kid"]) == ("fleet_device", KID)
    assert claims["exp"] - claims["iat"] <= 60
    return httpx.Response(200, json=[])


JWKS = f"{API}/auth/v1/.well-known/jwks.json"
STATUS = f"{API}/rest/v1/device_status"


@respx.mock
def test_key_that_is_published_and_accepted_is_right() -> None:
    respx.get(JWKS).respond(json={"keys": [PUBLIC]})
    respx.get(STATUS).mock(side_effect=accepts)
    assert one("signing-key")[0] is State.OK


@respx.mock
@pytest.mark.parametrize("published", [[], [{**PUBLIC, "kid": "another"}], [{"kid": KID, "alg": "HS256"}]])
def test_key_that_is_not_published_is_to_be_imported(published: list[dict[str, Any]]) -> None:
    respx.get(JWKS).respond(json={"keys": published})
    state, sentence, todo = one("signing-key")
    assert (state, sentence) == (
        State.FIX,
        f"The project does not publish the key {KID}, so it refuses every device.",
    )
    assert "Settings → JWT Keys: import the key" in todo


@respx.mock
def test_key_in_standby_is_to_be_rotated() -> None:
    respx.get(JWKS).respond(json={"keys": [PUBLIC]})
    respx.get(STATUS).respond(401, json={"code": "PGRST301", "message": "No suitable key or wrong key type"})
    state, sentence, todo = one("signing-key")
    assert state is State.FIX
    assert "No suitable key or wrong key type" in sentence
    assert "Rotate keys" in todo


@respx.mock
@pytest.mark.parametrize(("secret", "state"), [("s" * 32, State.OK), ("t" * 32, State.FIX)])
def test_secret_of_a_project_of_ones_own_is_tried(tmp_path: Path, secret: str, state: State) -> None:
    """Self-hosted, with HS256: nobody publishes it, so only a token can tell."""

    def answer(request: httpx.Request) -> httpx.Response:
        token = request.headers["authorization"].removeprefix("Bearer ")
        try:
            jwt.decode(token, "s" * 32, algorithms=["HS256"])
        except jwt.InvalidSignatureError:
            return httpx.Response(401, json={"code": "PGRST301", "message": "No suitable key"})
        return httpx.Response(200, json=[])

    respx.get(JWKS).respond(json={"keys": []})
    respx.get(STATUS).mock(side_effect=answer)
    file = tmp_path / "key.json"
    file.write_text(json.dumps({"kty": "oct", "k": base64.urlsafe_b64encode(secret.encode()).decode()}))
    found = one("signing-key", kind=Kind.SELF_HOSTED, signing_key=read_signing_key(file))
    assert found[0] is state


@respx.mock
def test_what_is_not_known_here_is_unchecked_and_says_what_to_give() -> None:
    respx.get(JWKS).respond(json={"keys": [PUBLIC]})
    respx.get(f"{API}/rest/v1/fleet_settings").respond(json=[{"id": True}])
    bare = {"signing_key": None, "publishable_key": None}
    assert one("signing-key", **bare)[::2] == (
        State.UNCHECKED, "Give the key that FLEET_SIGNING_JWK holds: --signing-key FILE."
    )  # fmt: skip
    assert [one(check, **bare)[0] for check in ("sign-up", "realtime")] == [State.UNCHECKED] * 2
    assert [finding.state for finding in findings("keys", **bare)] == [State.OK, State.UNCHECKED]
    assert {finding.state for finding in findings("migrations", "roles", "jobs")} == {State.UNCHECKED}


@respx.mock
@pytest.mark.parametrize(
    ("off_s", "said"),
    [(0, None), (29, None), (-29, None), (45, "behind"), (-45, "ahead of"), (200_000, "behind")],
)
def test_clock_is_compared_within_what_tokens_allow(off_s: int, said: str | None) -> None:
    respx.get(f"{API}/rest/v1/").mock(
        side_effect=lambda _: httpx.Response(
            200, headers={"date": formatdate(time.time() + off_s, usegmt=True)}
        )
    )
    state, sentence, todo = one("clock")
    assert state is (State.FIX if said else State.OK)
    if said:
        assert f"s {said} that of the control plane" in sentence
        assert "timedatectl" in todo


@respx.mock
@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (422, {"code": 422, "error_code": "signup_disabled", "msg": "Signups not allowed"}, State.OK),
        (403, {"kind": "refused"}, State.OK),
        (400, {"code": 400, "error_code": "validation_failed"}, State.FIX),
        (200, {"id": "x"}, State.FIX),
    ],
)
def test_sign_up_by_strangers_is_to_be_switched_off(status: int, body: dict[str, Any], state: State) -> None:
    asked = respx.post(f"{API}/auth/v1/signup").respond(status, json=body)
    assert one("sign-up")[0] is state
    assert json.loads(asked.calls.last.request.content)["password"] == "", "nobody may be made by asking"


@respx.mock
@pytest.mark.parametrize(
    ("private", "public", "state", "todo"),
    [
        ((406, {"code": "PGRST106"}), (401, {"code": "42501"}), State.OK, ""),
        ((200, []), (401, {"code": "42501"}), State.FIX, "remove private"),
        ((401, {"code": "42501"}), (401, {"code": "42501"}), State.FIX, "remove private"),
        ((406, {"code": "PGRST106"}), (406, {"code": "PGRST106"}), State.FIX, "add public"),
    ],
)
def test_only_public_is_served(private: Any, public: Any, state: State, todo: str) -> None:
    respx.get(f"{API}/rest/v1/baseline").respond(private[0], json=private[1])
    respx.get(f"{API}/rest/v1/devices").respond(public[0], json=public[1])
    found = one("schemas")
    assert found[0] is state
    assert todo in found[2]


@respx.mock
@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, {"kind": "bad_request"}, None),
        (404, {"code": "NOT_FOUND"}, "is not deployed"),
        (500, {"kind": "misconfigured"}, "lacks a variable"),
        (401, {"code": 401, "message": "Missing authorization header"}, "asks callers"),
        (546, {"code": "WORKER_LIMIT"}, "answered with status 546"),
    ],
)
def test_functions_are_asked_themselves(status: int, body: dict[str, Any], said: str | None) -> None:
    for name in ("enroll", "device-token"):
        respx.post(f"{API}/functions/v1/{name}").respond(status, json=body)
    found = findings("functions")
    assert len(found) == 2
    for finding in found:
        assert (finding.state is State.OK) == (said is None)
        assert said is None or (said in finding.sentence and "supabase" in finding.todo)


@respx.mock
@pytest.mark.parametrize(
    ("secret", "publishable", "states"),
    [
        ((200, [{"id": True}]), (401, {"code": "42501"}), [State.OK, State.OK]),
        ((200, []), (401, {"message": "Invalid API key"}), [State.FIX, State.FIX]),
        ((401, {"message": "Invalid API key"}), (200, [{"id": "x"}]), [State.FIX, State.FIX]),
        ((404, {"code": "PGRST205"}), (404, {"code": "PGRST205"}), [State.FIX, State.FIX]),
    ],
)
def test_keys_open_what_they_should_and_no_key_is_printed(
    secret: Any, publishable: Any, states: list[State]
) -> None:
    respx.get(f"{API}/rest/v1/fleet_settings").respond(secret[0], json=secret[1])
    respx.get(f"{API}/rest/v1/devices").respond(publishable[0], json=publishable[1])
    found = findings("keys", key="sb_secret_never", publishable_key="sb_publishable_never")
    assert [finding.state for finding in found] == states
    assert "_never" not in "".join(finding.sentence + finding.todo for finding in found)


@respx.mock
def test_control_plane_that_does_not_answer_is_unreachable() -> None:
    respx.get(f"{API}/rest/v1/").mock(side_effect=httpx.ConnectError("Name or service not known"))
    with pytest.raises(FleetctlError) as caught:
        findings("clock")
    assert (caught.value.kind, caught.value.exit_code) == ("unreachable", 3)
    assert "is paused" in caught.value.hint


@contextmanager
def realtime_that_answers(reply: dict[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An address whose Realtime answers each join with `reply`, and the joins."""
    joins: list[dict[str, Any]] = []

    def talk(socket: ServerConnection) -> None:
        frame = json.loads(socket.recv())
        joins.append(frame)
        socket.send(json.dumps({"topic": frame["topic"], "event": "system", "payload": {}, "ref": None}))
        socket.send(json.dumps({"topic": frame["topic"], "event": "phx_reply", "payload": reply, "ref": "1"}))

    with serve(talk, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}", joins
        server.shutdown()


@pytest.mark.parametrize(
    ("reply", "state", "todo"),
    [
        ({"status": "error", "response": {"reason": "PrivateOnly: This project only allows private"}},
         State.OK, ""),
        ({"status": "ok", "response": {"postgres_changes": []}}, State.FIX, "switch off Allow public access"),
        ({"status": "error", "response": {"reason": "ConnectionRateLimitReached: Too many connected users"}},
         State.FIX, "Realtime"),
    ],
)  # fmt: skip
def test_public_join_is_refused(reply: dict[str, Any], state: State, todo: str) -> None:
    with realtime_that_answers(reply) as (address, joins):
        found = one("realtime", api_url=address)
    assert found[0] is state
    assert todo in found[2]
    assert [join["payload"]["config"]["private"] for join in joins] == [False]


@pytest.mark.parametrize(
    ("address", "embedded", "kind"),
    [
        (API, False, Kind.HOSTED),
        ("http://127.0.0.1:54321", True, Kind.EMBEDDED),
        ("http://127.0.0.1:54321", False, Kind.SELF_HOSTED),
        ("https://fleet.example.com", False, Kind.SELF_HOSTED),
        ("https://supabase.co.example.com", False, Kind.SELF_HOSTED),
    ],
)
def test_three_kinds_of_control_planes(address: str, embedded: bool, kind: Kind) -> None:
    assert kind_of(address, is_embedded=embedded) is kind


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "it is not JSON"),
        (json.dumps({"kty": "oct"}), "it is not an EC key on P-256"),
        (json.dumps({**JWK, "crv": "P-384"}), "it is not an EC key on P-256"),
        (json.dumps({**JWK, "kid": ""}), "it has no kid, or no private part"),
        (json.dumps(PUBLIC), "it has no kid, or no private part"),
    ],
)
def test_file_that_is_not_the_signing_key_is_refused(tmp_path: Path, text: str, why: str) -> None:
    file = tmp_path / "key.json"
    file.write_text(text)
    with pytest.raises(FleetctlError) as caught:
        read_signing_key(file)
    assert caught.value.kind == "signing_key_invalid"
    assert why in caught.value.message
