"""What is no request of a device is refused, and breaks nothing."""

import asyncio
import json
import os
import random
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from fleet_agent.control_plane.identity import Identity
from fleetctl.stack.deno import find_deno
from tests.conftest import ROOT
from tests.support.functions import (
    FUNCTIONS,
    Site,
    post,
    refusal,
)


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_other_methods_and_paths_are_refused_and_browsers_may_ask_first(
    site: Site, function: str, client: httpx.AsyncClient
) -> None:
    url = site.urls[function]
    got = await client.get(url)
    assert refusal(got) == (405, "method_not_allowed")
    assert got.headers["allow"] == "POST, OPTIONS"
    assert (await client.post(f"{url}/more", json={})).status_code == 404
    preflight = await client.options(url, headers={"Origin": "https://example.org"})
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "apikey" in preflight.headers["access-control-allow-headers"]


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_a_malformed_body_is_a_bad_request_whatever_it_is(site: Site, function: str) -> None:
    bodies: list[bytes] = [
        b"", b"null", b"[]", b"7", b'"text"', b"{", b"\xff\xfe", b"{}", b'{"proof": 1, "assertion": 1}',
        b'{"proof": null, "name": {}, "assertion": []}', b'{"proof":"' + b"a" * 20_000 + b'"}',
        b'{"assertion":"' + b"a" * 5_000 + b'"}',
    ]  # fmt: skip
    for body in bodies:
        assert refusal(await post(site, function, body)) == (400, "bad_request"), body[:40]


async def test_text_that_postgres_cannot_store_is_a_bad_request(embedded: Site, identity: Identity) -> None:
    for name in ("a\u0000b", "a\nb", "\ud800", "", "   "):
        body = {"proof": identity.assertion("enroll", datetime.now(UTC)), "name": name}
        answer = await post(embedded, "enroll", body)
        assert refusal(answer) == (400, "bad_request"), ascii(name)


async def test_random_damage_to_an_assertion_never_passes_and_never_breaks_the_function(
    embedded: Site, member: Identity
) -> None:
    """Every answer is one of our own refusals: no 500, no token."""
    chance = random.Random(20261123)
    good = member.assertion("device-token", datetime.now(UTC))
    alphabet = "abcXYZ019-_.=+/ \n\u00e9{"
    for _ in range(60):
        damaged = list(good)
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(damaged))
            match chance.randrange(3):
                case 0:
                    damaged[place] = chance.choice(alphabet)
                case 1:
                    del damaged[place]
                case _:
                    damaged.insert(place, chance.choice(alphabet))
        text = "".join(damaged)
        if text == good:
            continue
        answer = await post(embedded, "device-token", {"assertion": text})
        status, kind = refusal(answer)
        assert (status, kind) == (401, "assertion_invalid"), text


async def test_a_function_without_its_settings_says_so(tmp_path: Path) -> None:
    """Asked in one process without any environment: a sentence for the log, none of it in the answer."""
    script = tmp_path / "ask.ts"
    module = (ROOT / "edge_functions" / "device-token" / "index.ts").as_uri()
    script.write_text(
        f'import {{ handler }} from "{module}";\n'
        'const r = await handler(new Request("http://x/device-token", { method: "POST", body: "{}" }));\n'
        "console.log(r.status, await r.text());\n"
    )
    done = await asyncio.create_subprocess_exec(
        find_deno(), "run", "--no-prompt", "--allow-env", "--allow-read",
        "--config", str(ROOT / "edge_functions" / "device-token" / "deno.json"), str(script),
        env={name: os.environ[name] for name in ("PATH", "HOME", "DENO_DIR") if name in os.environ},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, log = await done.communicate()
    status, body = output.decode().split(" ", 1)
    assert (status, json.loads(body)["kind"]) == ("500", "misconfigured")
    assert "FLEET_SIGNING_JWK" not in body
    assert "FLEET_SIGNING_JWK is not set" in log.decode()
