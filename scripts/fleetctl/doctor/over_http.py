"""Checks by the API, with the publishable key where a stranger's view counts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any
from uuid import uuid4

import httpx
import jwt

from fleetctl.doctor.control_plane import ControlPlane, Kind
from fleetctl.doctor.finding import Finding, fix, ok, unchecked
from fleetctl.errors import FleetctlError

_TIMEOUT_S = 30
#: PostgREST accepts tokens that are this much too early or late, and so do the functions.
_CLOCK_TOLERANCE_S = 30
_NEED_PUBLISHABLE = "Give the project's publishable key: --publishable-key, or FLEET_PUBLISHABLE_KEY."
_FUNCTIONS = ("enroll", "device-token")


class Http:
    """Requests to one control plane. Every failure of the network is a FleetctlError `unreachable`."""

    def __init__(self, plane: ControlPlane) -> None:
        self._plane = plane
        self._client = httpx.Client(base_url=plane.api_url, timeout=_TIMEOUT_S)

    def __call__(
        self, method: str, path: str, key: str, *, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        try:
            return self._client.request(method, path, json=body, headers={"apikey": key, **(headers or {})})
        except httpx.HTTPError as error:
            raise FleetctlError(
                "unreachable",
                f"{self._plane.api_url} cannot be reached: {error}.",
                hint="Check the address. A free project that was not used for a week is paused: "
                "resume it in its dashboard.",
                exit_code=3,
            ) from error


def _json(answer: httpx.Response) -> Mapping[str, Any]:
    try:
        parsed = answer.json()
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def keys(plane: ControlPlane, http: Http) -> Iterator[Finding]:
    """The keys open what they should. A key is never part of a sentence."""
    if plane.key.startswith("sb_publishable_"):
        yield unchecked("keys", "No secret key was given.", "Give it in FLEET_KEY, with FLEET_API_URL.")
    else:
        answer = http("GET", "/rest/v1/fleet_settings?select=id", plane.key)
        if answer.status_code == HTTPStatus.OK and answer.json():
            yield ok("keys", "The secret key reads the fleet's settings.")
        elif answer.status_code == HTTPStatus.NOT_FOUND:
            yield fix("keys", "The project has no table fleet_settings.", _migrate(plane))
        else:
            yield fix(
                "keys",
                f"The secret key does not read the fleet's settings (status {answer.status_code}).",
                plane.settings_page("Settings → API Keys")
                + ", and use the secret key of this project (sb_secret_…).",
            )
    if plane.publishable_key is None:
        yield unchecked("keys", "No publishable key was given.", _NEED_PUBLISHABLE)
        return
    # A stranger may ask, and is given no table: that refusal shows that the key is one.
    answer = http("GET", "/rest/v1/devices?select=id&limit=1", plane.publishable_key)
    if str(_json(answer).get("code")) == "42501":
        yield ok("keys", "The publishable key is accepted and opens no table.")
    elif answer.status_code == HTTPStatus.OK:
        yield fix(
            "keys",
            "With the publishable key alone, a stranger may ask for devices.",
            "Use the publishable key, not a secret one. If it is the publishable one, see grants below.",
        )
    else:
        yield fix(
            "keys",
            f"The publishable key is not accepted (status {answer.status_code}).",
            plane.settings_page("Settings → API Keys")
            + ", and use the key that begins with sb_publishable_.",
        )


def clock(plane: ControlPlane, http: Http) -> Iterator[Finding]:
    before = time.time()
    answer = http("GET", "/rest/v1/", plane.publishable_key or plane.key)
    after = time.time()
    try:
        there = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):
        yield unchecked(
            "clock", "The control plane does not say what time it is.", "Compare the clocks by hand."
        )
        return
    # Its header has whole seconds.
    off = max(before - (there + 1), there - after, 0.0)
    if off <= _CLOCK_TOLERANCE_S:
        yield ok("clock", "This machine and the control plane agree about the time.")
        return
    is_ahead = before > there
    yield fix(
        "clock",
        f"The clock of this machine is {off:.0f} s {'ahead of' if is_ahead else 'behind'} "
        f"that of the control plane ({datetime.fromtimestamp(there, UTC):%Y-%m-%d %H:%M:%S} UTC).",
        "Set this machine's clock (timedatectl). If it is right, the control plane's is wrong: "
        "tokens are refused until it is set.",
    )


def signing_key(plane: ControlPlane, http: Http) -> Iterator[Finding]:
    """Our `kid` is in the JWKS, and a token that the key signs is accepted."""
    if plane.kind is Kind.EMBEDDED:
        yield ok("signing-key", "The embedded stack signs with its own secret (HS256), so there is no JWKS.")
        return
    answer = http("GET", "/auth/v1/.well-known/jwks.json", plane.publishable_key or plane.key)
    published = [str(key.get("kid")) for key in _json(answer).get("keys", []) if key.get("alg") == "ES256"]
    where = plane.settings_page("Settings → JWT Keys")
    if plane.signing_key is None:
        yield unchecked(
            "signing-key",
            f"The project publishes {len(published)} ES256 keys. Which one is the fleet's is not known here.",
            "Give the key that FLEET_SIGNING_JWK holds: --signing-key FILE.",
        )
        return
    kid = plane.signing_key.get("kid")
    is_shared = plane.signing_key["kty"] == "oct"
    if not is_shared and kid not in published:
        yield fix(
            "signing-key",
            f"The project does not publish the key {kid}, so it refuses every device.",
            f"{where}: import the key as a standby key, then choose Rotate keys. The list that is "
            "published is up to 20 minutes old.",
        )
        return
    token = _device_token(plane.signing_key)
    answer = http(
        "GET", "/rest/v1/device_status?select=device_id&limit=1", plane.publishable_key or plane.key,
        headers={"Authorization": f"Bearer {token}"},
    )  # fmt: skip
    if answer.status_code == HTTPStatus.OK:
        key = "The project" if is_shared else f"The project publishes {kid}, and"
        yield ok("signing-key", f"{key} accepts a device's token that the key signed.")
    elif is_shared:
        yield fix(
            "signing-key",
            f"The project refuses a device's token ({_json(answer).get('message') or answer.status_code}).",
            "FLEET_SIGNING_JWK must be the project's own JWT secret, as a JWK.",
        )
    else:
        yield fix(
            "signing-key",
            f"The project publishes {kid}, and refuses a device's token that it signed "
            f"({_json(answer).get('message') or answer.status_code}).",
            f"{where}: the key must be in use, not in standby. Choose Rotate keys.",
        )


def _device_token(jwk: Mapping[str, Any]) -> str:
    """A device that does not exist, for one minute: it may ask, and sees no row."""
    algorithm = "HS256" if jwk["kty"] == "oct" else "ES256"
    usable = {name: value for name, value in jwk.items() if name not in ("key_ops", "use", "ext")}
    key = jwt.PyJWK(usable, algorithm=algorithm)
    now = int(time.time())
    claims = {"role": "fleet_device", "sub": str(uuid4()), "iat": now, "exp": now + 60, "key_number": 1}
    headers = {"kid": jwk["kid"]} if "kid" in jwk else None
    return jwt.encode(claims, key.key, algorithm=algorithm, headers=headers)


def schemas(plane: ControlPlane, http: Http) -> Iterator[Finding]:
    where = plane.settings_page("Settings → Data API → Exposed schemas")
    key = plane.publishable_key or plane.key
    if _json(http("GET", "/rest/v1/devices?limit=1", key)).get("code") == "PGRST106":
        yield fix("schemas", "The schema public is not served.", f"{where}: add public.")
        return
    answer = http("GET", "/rest/v1/baseline?limit=1", key, headers={"Accept-Profile": "private"})
    if _json(answer).get("code") == "PGRST106":
        yield ok("schemas", "The API serves public, and does not serve private.")
    else:
        yield fix(
            "schemas",
            "The API serves the schema private, which holds hashes of tokens and policy's own tables.",
            f"{where}: remove private. Or run: supabase config push",
        )


def sign_up(plane: ControlPlane, http: Http) -> Iterator[Finding]:
    """Asked for without a password, so nobody is made, whatever the answer."""
    if plane.publishable_key is None:
        yield unchecked("sign-up", "No publishable key was given.", _NEED_PUBLISHABLE)
        return
    body = {"email": "nobody@example.invalid", "password": ""}
    answer = http("POST", "/auth/v1/signup", plane.publishable_key, body=body)
    code = str(_json(answer).get("error_code") or "")
    closed = code in ("signup_disabled", "email_provider_disabled") or answer.status_code in (
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
    )
    if closed:
        yield ok("sign-up", "Strangers cannot sign up.")
    elif plane.kind is Kind.EMBEDDED:
        yield fix(
            "sign-up",
            "Whoever has the publishable key can make an account. It has no rights.",
            "Restart the stack from this checkout: fleetctl down, then fleetctl up",
        )
    else:
        yield fix(
            "sign-up",
            "Whoever has the publishable key can make an account. It has no rights, but it counts as a user.",
            plane.settings_page("Authentication → Sign In / Providers")
            + ": switch off Allow new users to sign up. Or run: supabase config push",
        )


def functions(plane: ControlPlane, http: Http) -> Iterator[Finding]:
    """Each is asked with an empty body, which ours refuses in its own words."""
    deploy = "Run: supabase functions deploy enroll device-token"
    for name in _FUNCTIONS:
        check = "functions"
        answer = http("POST", f"/functions/v1/{name}", plane.publishable_key or plane.key, body={})
        kind = _json(answer).get("kind")
        if kind in ("bad_request", "publishable_key_invalid"):
            yield ok(check, f"The function {name} answers.")
        elif kind == "misconfigured":
            yield fix(
                check,
                f"The function {name} lacks a variable, or has one that is not valid; its log says which.",
                "Run: supabase secrets set --env-file FILE, with FLEET_SIGNING_JWK in it.",
            )
        elif answer.status_code == HTTPStatus.UNAUTHORIZED and kind is None:
            yield fix(check, f"The gateway asks callers of {name} for a token, which devices lack.", deploy)
        elif answer.status_code == HTTPStatus.NOT_FOUND:
            yield fix(check, f"The function {name} is not deployed.", deploy)
        else:
            yield fix(
                check, f"The function {name} answered with status {answer.status_code}.",
                f"Read its log, then deploy it again. {deploy}",
            )  # fmt: skip


def _migrate(plane: ControlPlane) -> str:
    return "Run: fleetctl up" if plane.kind is Kind.EMBEDDED else "Run: supabase db push --remote"
