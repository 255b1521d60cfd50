import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kfp_operator.events.webhooks import signatures
from kfp_operator.events.webhooks.signatures import NotAuthentic
from tests.doubles.deliveries import NOW, SECRET, SIGNING_TOKEN, standard_headers

GITHUB = ("It's a Secret to Everybody", b"Hello, World!", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17")
"""Secret, body and signature as GitHub's documentation gives them, to test implementations with."""
STANDARD_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
STANDARD_BODY = b'{"test": 2432232314}'
STANDARD = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": "1614265330",
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
"""The vector that implementations of Standard Webhooks share."""
STANDARD_TIME = datetime.fromtimestamp(1614265330, UTC)


def github(headers: Mapping[str, str], body: bytes, *secrets: str) -> None:
    signatures.hmac_sha256(headers, "X-Hub-Signature-256", body, secrets, prefix="sha256=", encoding="hex")


def refused(call: Callable[[], None]) -> str:
    with pytest.raises(NotAuthentic) as caught:
        call()
    return str(caught.value)


def test_the_vector_of_githubs_documentation_is_authentic() -> None:
    secret, body, signature = GITHUB
    github({"x-hub-signature-256": signature}, body, secret)
    github({"x-hub-signature-256": signature}, body, "another-secret-of-some-length", secret)


@pytest.mark.parametrize(
    ("secret", "body", "signature", "told"),
    [
        (GITHUB[0], GITHUB[1] + b" ", GITHUB[2], "is not the HMAC-SHA256"),
        ("another", GITHUB[1], GITHUB[2], "is not the HMAC-SHA256"),
        (GITHUB[0], GITHUB[1], GITHUB[2].removeprefix("sha256="), "is not the HMAC-SHA256"),
        (GITHUB[0], GITHUB[1], "", "is not the HMAC-SHA256"),
        (GITHUB[0], GITHUB[1], "sha256=", "is not the HMAC-SHA256"),
        (GITHUB[0], GITHUB[1], "é\udcff", "is not the HMAC-SHA256"),
        (GITHUB[0], GITHUB[1], None, "header X-Hub-Signature-256 is missing: set the secret"),
    ],
)
def test_anything_else_is_not(secret: str, body: bytes, signature: str | None, told: str) -> None:
    headers = {} if signature is None else {"x-hub-signature-256": signature}
    assert told in refused(lambda: github(headers, body, secret))


def test_without_a_secret_nothing_is_authentic() -> None:
    refused(lambda: github({"x-hub-signature-256": GITHUB[2]}, GITHUB[1]))
    refused(lambda: signatures.header({"x-token": ""}, "X-Token", []))
    refused(lambda: signatures.authorization({"authorization": "Bearer "}, []))
    refused(lambda: signatures.standard(STANDARD, STANDARD_BODY, [], STANDARD_TIME))


def test_an_hmac_in_base64_is_checked_too() -> None:
    encoded = base64.b64encode(bytes.fromhex(GITHUB[2].removeprefix("sha256="))).decode()
    signatures.hmac_sha256({"x-sig": encoded}, "X-Sig", GITHUB[1], [GITHUB[0]], prefix="", encoding="base64")


def test_the_vector_of_standard_webhooks_is_authentic() -> None:
    signatures.standard(STANDARD, STANDARD_BODY, [STANDARD_SECRET], STANDARD_TIME)
    several = STANDARD | {"webhook-signature": "v1,AAAA v1a,x " + STANDARD["webhook-signature"]}
    signatures.standard(several, STANDARD_BODY, [SIGNING_TOKEN, STANDARD_SECRET], STANDARD_TIME)


@pytest.mark.parametrize("seconds", [-301, 301, -(10**8)])
def test_a_delivery_that_was_signed_long_ago_is_a_replay(seconds: int) -> None:
    body = b"{}"
    told = refused(lambda: signatures.standard(standard_headers(body, NOW + timedelta(seconds=seconds)), body, [SIGNING_TOKEN], NOW))
    assert "webhook-timestamp is more than 300 s away" in told


@pytest.mark.parametrize("seconds", [-299, 299])
def test_clocks_may_differ_a_little(seconds: int) -> None:
    signatures.standard(standard_headers(b"{}", NOW + timedelta(seconds=seconds)), b"{}", [SIGNING_TOKEN], NOW)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"webhook-id": "msg_other"}, "webhook-signature is not"),
        ({"webhook-timestamp": "1614265331"}, "webhook-signature is not"),
        ({"webhook-timestamp": "1e9"}, "webhook-timestamp"),
        ({"webhook-timestamp": "9" * 400}, "webhook-timestamp"),
        ({"webhook-timestamp": "١٦"}, "webhook-timestamp"),
        ({"webhook-signature": "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="}, "webhook-signature is not"),
        ({"webhook-signature": "v2,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="}, "webhook-signature is not"),
        ({"webhook-signature": ""}, "are not all there"),
        ({"webhook-id": "\udcff"}, "webhook-signature is not"),
    ],
    ids=str,
)
def test_a_standard_signature_is_over_id_and_time_too(changes: dict[str, str], told: str) -> None:
    assert told in refused(lambda: signatures.standard(STANDARD | changes, STANDARD_BODY, [STANDARD_SECRET], STANDARD_TIME))


@pytest.mark.parametrize("value", [SECRET, f"Bearer {SECRET}", f" {SECRET} "])
def test_a_header_may_hold_the_secret(value: str) -> None:
    signatures.header({"x-token": value}, "X-Token", ["another-secret-of-some-length", SECRET])


@pytest.mark.parametrize("value", ["", SECRET + "x", SECRET.upper(), "Bearer", f"bearer {SECRET}", f"Bearer  {SECRET}", "\udcff"])
def test_a_header_with_anything_else_is_refused(value: str) -> None:
    assert "does not hold the secret" in refused(lambda: signatures.header({"x-token": value}, "X-Token", [SECRET]))
    assert "header X-Token is missing" in refused(lambda: signatures.header({}, "X-Token", [SECRET]))


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("value", [f"Bearer {SECRET}", f"bearer   {SECRET}", basic(f"anybody:{SECRET}"), basic(f":{SECRET}")])
def test_authorization_is_bearer_or_the_password_of_basic(value: str) -> None:
    signatures.authorization({"authorization": value}, [SECRET])


@pytest.mark.parametrize(
    "value", ["", SECRET, f"Digest {SECRET}", "Basic !", "Basic /w==", basic(SECRET), basic(f"{SECRET}:x"), "Bearer x"]
)
def test_any_other_authorization_is_refused(value: str) -> None:
    assert refused(lambda: signatures.authorization({"authorization": value}, [SECRET]))


def test_no_message_tells_a_secret_or_what_was_sent_for_one() -> None:
    sent = "sent-for-the-secret"
    told = [
        refused(lambda: github({"x-hub-signature-256": sent}, b"{}", SECRET)),
        refused(lambda: signatures.header({"x-token": sent}, "X-Token", [SECRET])),
        refused(lambda: signatures.authorization({"authorization": f"Bearer {sent}"}, [SECRET])),
        refused(lambda: signatures.authorization({"authorization": f"Basic {sent}"}, [SECRET])),
        refused(lambda: signatures.standard(STANDARD | {"webhook-signature": sent}, b"{}", [SECRET], STANDARD_TIME)),
    ]
    assert all(sent not in one and SECRET not in one for one in told)


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from(["authorization", "x", "webhook-id", "webhook-timestamp", "webhook-signature"]), st.text()))
def test_hostile_headers_are_never_authentic(headers: dict[str, str]) -> None:
    refused(lambda: github({"x-hub-signature-256": headers.get("x", "")}, b"{}", SECRET))
    refused(lambda: signatures.header(headers, "X", [SECRET]))
    refused(lambda: signatures.authorization(headers, [SECRET]))
    refused(lambda: signatures.standard(headers, b"{}", [SECRET, SIGNING_TOKEN], NOW))
