"""Whether a stranger may join a public channel: joined as supabase-js and the Python client do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode, urlsplit

from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.sync.client import connect

from fleetctl.doctor.control_plane import ControlPlane, Kind
from fleetctl.doctor.finding import Finding, fix, ok, unchecked

_TOPIC = "realtime:fleetctl-doctor"
#: Realtime waits five seconds before it refuses a join.
_TIMEOUT_S = 30


def realtime(plane: ControlPlane) -> Iterator[Finding]:
    """A join without `private` is refused with PrivateOnly; everything that the fleet sends is private."""
    if plane.publishable_key is None:
        yield unchecked(
            "realtime", "No publishable key was given.",
            "Give the project's publishable key: --publishable-key, or FLEET_PUBLISHABLE_KEY.",
        )  # fmt: skip
        return
    try:
        answer = _join(plane.api_url, plane.publishable_key)
    except InvalidHandshake as error:
        yield fix("realtime", f"Realtime refuses the publishable key: {error}.", _where(plane))
        return
    except (OSError, WebSocketException, TimeoutError, ValueError) as error:
        yield fix("realtime", f"Realtime does not answer: {error}.", "Check its status, and run it again.")
        return
    reason = str(answer.get("response", {}).get("reason", ""))
    if answer.get("status") == "error" and reason.startswith("PrivateOnly"):
        yield ok("realtime", "Realtime refuses public channels.")
    elif answer.get("status") == "ok":
        yield fix(
            "realtime",
            "Whoever has the publishable key can join public channels, and use up the project's messages.",
            _where(plane),
        )
    else:
        yield fix(
            "realtime", f"Realtime refused a join for another reason: {reason or answer}.", _where(plane)
        )


def _where(plane: ControlPlane) -> str:
    if plane.kind is Kind.EMBEDDED:
        return "Restart the stack from this checkout: fleetctl down, then fleetctl up"
    return plane.settings_page("Realtime → Settings") + ": switch off Allow public access."


def _join(api_url: str, publishable_key: str) -> dict[str, Any]:
    parts = urlsplit(api_url)
    scheme = "wss" if parts.scheme == "https" else "ws"
    query = urlencode({"apikey": publishable_key, "vsn": "1.0.0"})
    url = f"{scheme}://{parts.netloc}{parts.path}/realtime/v1/websocket?{query}"
    config = {"private": False, "broadcast": {"ack": False, "self": False}, "presence": {"enabled": False}}
    join = {"topic": _TOPIC, "event": "phx_join", "ref": "1", "join_ref": "1", "payload": {"config": config}}
    with connect(url, open_timeout=_TIMEOUT_S, close_timeout=5) as socket:
        socket.send(json.dumps(join))
        while True:
            frame = json.loads(socket.recv(timeout=_TIMEOUT_S))
            if frame.get("event") == "phx_reply" and frame.get("ref") == "1":
                payload = frame["payload"]
                return payload if isinstance(payload, dict) else {}
