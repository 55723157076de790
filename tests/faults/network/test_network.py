"""A network that lies, stalls and breaks, against real sockets: each trouble has its kind, and none hangs."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fleet_agent.control_plane import client, tokens
from fleet_agent.errors import ControlPlaneError, Kind
from fleet_agent.support import retry
from tests.support.device import Device, device
from tests.support.proxy import SIGN_IN, Fault, Proxy, http_answer

__all__ = ["device"]  # a fixture

QUESTION = "/rest/v1/rpc/desired_state"
TOKEN = "/functions/v1/device-token"
JSON = {"Content_Type": "application/json"}
DAY = timedelta(days=1)


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """One try a call, and limits that a loaded machine still keeps apart."""
    for name in ("CHECK_IN", "TOKEN"):
        monkeypatch.setattr(retry, name, retry.Policy(name, 1, 0.001, 0.001, 60))
    monkeypatch.setattr(client, "TIMEOUT", httpx.Timeout(1.0, connect=10.0))
    monkeypatch.setattr(client, "WHOLE_CALL_S", 3.0)


@pytest.fixture
async def proxy(device: Device) -> AsyncIterator[Proxy]:
    answers = {QUESTION: http_answer(200, json.dumps(device.directive()).encode(), **JSON)}
    async with Proxy(answers) as made:
        yield made


async def ask(device: Device, proxy: Proxy, *, url: str | None = None) -> str:
    """The kind that a question ends with, or `answered`."""
    device.configure(api_url=url or proxy.url)
    device.keep_token()
    kept = json.loads((device.identity.folder / "token.json").read_text())
    (device.identity.folder / "token.json").write_text(json.dumps({**kept, "api_url": url or proxy.url}))
    plane = device.plane()
    try:
        await plane.desired_state()
    except ControlPlaneError as error:
        return error.kind.value
    finally:
        await plane.close()
    return "answered"


async def test_a_good_network_answers(device: Device, proxy: Proxy) -> None:
    assert await ask(device, proxy) == "answered"


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (Fault.HALF_OPEN, Kind.TIMED_OUT),
        (Fault.SLOW_LORIS, Kind.TIMED_OUT),
        (Fault.RESET, Kind.UNREACHABLE),
        (Fault.CUT_OFF, Kind.UNREACHABLE),
    ],
)
async def test_a_broken_connection_has_its_kind_and_the_next_good_one_is_used(
    device: Device, proxy: Proxy, fault: Fault, kind: Kind
) -> None:
    proxy.fault = fault
    assert await ask(device, proxy) == kind
    proxy.fault = Fault.NONE
    assert await ask(device, proxy) == "answered"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (http_answer(200, SIGN_IN, Content_Type="text/html"), Kind.NOT_OUR_SERVER),
        (http_answer(302, b"", Location="http://portal.test/"), Kind.NOT_OUR_SERVER),
        (http_answer(401, b'{"message":"no"}', **JSON), Kind.UNAUTHORIZED),
        (http_answer(403, b'{"message":"no"}', **JSON), Kind.REFUSED),
        (http_answer(429, b'{"message":"slow"}', Retry_After="7", **JSON), Kind.RATE_LIMITED),
        (http_answer(500, b"oops", Content_Type="text/plain"), Kind.SERVER_ERROR),
        (http_answer(503, b"<html>", Content_Type="text/html"), Kind.SERVER_ERROR),
    ],
    ids=["captive portal", "redirect", "401", "403", "429", "500", "503"],
)
async def test_a_bad_answer_has_its_kind(device: Device, proxy: Proxy, answer: bytes, kind: Kind) -> None:
    proxy.fault, proxy.canned = Fault.CANNED, [answer]
    assert await ask(device, proxy) == kind
    # Only a refused token is asked for again.
    assert proxy.served == ({QUESTION: 1, TOKEN: 1} if kind == Kind.UNAUTHORIZED else {QUESTION: 1})


async def test_retry_after_is_waited_out_before_the_next_question(
    device: Device, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    real = retry.call
    monkeypatch.setattr(retry, "CHECK_IN", retry.Policy("question", 2, 0.001, 0.001, 60))
    monkeypatch.setattr(retry, "call", lambda policy, attempt: real(policy, attempt, sleep=sleep))
    slow = http_answer(429, b'{"message":"slow"}', Retry_After="7", **JSON)
    proxy.fault, proxy.canned = Fault.CANNED, [slow, proxy.answers[QUESTION]]
    assert await ask(device, proxy) == "answered"
    assert [int(wait) for wait in waits] == [7]


async def test_a_name_that_is_gone_is_unreachable(device: Device, proxy: Proxy) -> None:
    assert await ask(device, proxy, url="http://gone.invalid") == Kind.UNREACHABLE


class Authority:
    """Signs certificates for localhost, valid as asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
        now = datetime.now(UTC)
        self.certificate = (
            self._builder(self._name, self._key, now - 900 * DAY, now + 900 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / "authority.pem"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def server(self, since: timedelta, until: timedelta, *, self_signed: bool = False) -> ssl.SSLContext:
        """A server's TLS whose certificate is valid from and until so long from now."""
        key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        certificate = (
            self._builder(name, key, now + since, now + until)
            .issuer_name(name if self_signed else self._name)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(key if self_signed else self._key, hashes.SHA256())
        )
        file = self.folder / "server.pem"
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, since: datetime, until: datetime
    ) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(since).not_valid_after(until)
        # A builder's issuer can be set once: the authority's own is its name.
        return builder.issuer_name(self._name) if subject == self._name else builder


@pytest.mark.parametrize(
    ("since", "until", "self_signed", "floor", "ends"),
    [
        (-DAY, DAY, False, None, "answered"),
        (-DAY, DAY, True, None, Kind.NOT_OUR_SERVER),
        (DAY, 2 * DAY, False, None, Kind.CLOCK_WRONG),
        (-2 * DAY, -DAY, False, None, Kind.NOT_OUR_SERVER),
        # The server's time of the future is on disk: this clock is behind, and known to be.
        (-2 * DAY, -DAY, False, 30 * DAY, Kind.CLOCK_WRONG),
    ],
    ids=["good", "self-signed", "not yet valid", "expired", "expired, clock known wrong"],
)
async def test_a_certificate_refused_for_the_clock_says_so(  # noqa: PLR0917 - one row of the table each
    device: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    since: timedelta, until: timedelta, self_signed: bool, floor: timedelta | None, ends: str,
) -> None:  # fmt: skip
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    if floor is not None:
        (device.paths.state / "clock_floor").write_text((datetime.now(UTC) + floor).isoformat())
    answers = {QUESTION: http_answer(200, json.dumps(device.directive()).encode(), **JSON)}
    # A floor ahead makes the kept token look old; another one is asked for and refused the same way.
    async with Proxy(answers, tls=authority.server(since, until, self_signed=self_signed)) as server:
        assert await ask(device, server) == ends


async def test_something_that_is_not_tls_is_not_our_server(device: Device, proxy: Proxy) -> None:
    assert await ask(device, proxy, url=proxy.url.replace("http:", "https:")) == Kind.NOT_OUR_SERVER


async def test_a_call_that_is_given_up_leaves_no_connection_behind(device: Device, proxy: Proxy) -> None:
    proxy.fault = Fault.SLOW_LORIS
    await ask(device, proxy)
    async with asyncio.timeout(30):
        await proxy.all_closed()


async def test_a_token_that_drips_is_given_up(
    device: Device, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "WHOLE_FETCH_S", 4.0)
    proxy.fault = Fault.SLOW_LORIS
    device.configure(api_url=proxy.url)
    plane = device.plane()
    with pytest.raises(ControlPlaneError) as given_up:
        await plane.tokens.get()
    await plane.close()
    assert given_up.value.kind == Kind.TIMED_OUT
