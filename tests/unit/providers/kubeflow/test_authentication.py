from pathlib import Path

import pytest

from kfp_operator.errors import Retryable
from kfp_operator.providers.kubeflow.authentication import KEPT, identity_of
from kfp_operator.providers.kubeflow.parameters import Authentication
from tests.unit.providers.kubeflow.arrange import FakeClock, MemorySecrets

HEADER = Authentication.model_validate(
    {"header": {"name": "Authorization", "prefix": "Bearer ", "secretKeyRef": {"name": "kfp", "key": "token"}}}
)


async def test_nobody_sends_nothing() -> None:
    identity = identity_of(Authentication(), None, "mlops", FakeClock())
    assert await identity.headers() == {}
    assert not await identity.renew()


async def test_a_token_file_is_read_for_each_request_since_it_rotates(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first-token\n")
    identity = identity_of(Authentication(token_file=str(file)), None, "mlops", FakeClock())
    assert await identity.headers() == {"Authorization": "Bearer first-token"}
    file.write_text("second-token\n")
    assert await identity.headers() == {"Authorization": "Bearer second-token"}
    assert not await identity.renew()
    file.write_text("third-token\n")
    assert await identity.renew()


@pytest.mark.parametrize(
    ("content", "told"), [(None, "No such file"), (b"", "is empty"), (b"a\nb", "line breaks"), (b"x" * 70000, "no token")]
)
async def test_a_token_file_that_cannot_be_used_is_named_with_its_field(content: bytes | None, told: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    identity = identity_of(Authentication(token_file=str(file)), None, "mlops", FakeClock())
    with pytest.raises(Retryable, match=told) as caught:
        await identity.headers()
    assert str(caught.value).startswith(f"spec.parameters.authentication.tokenFile: {file}")


async def test_a_secret_is_read_once_a_minute_and_when_it_is_refused() -> None:
    clock, secrets = FakeClock(), MemorySecrets({("kfp", "token"): b"first-value\n"})
    identity = identity_of(HEADER, secrets, "mlops", clock)
    for _ in range(3):
        assert await identity.headers() == {"Authorization": "Bearer first-value"}
    assert secrets.reads == 1
    secrets.values["kfp", "token"] = b"second-value"
    assert await identity.renew()
    assert await identity.headers() == {"Authorization": "Bearer second-value"}
    assert not await identity.renew()
    clock.passed += KEPT + 1
    secrets.values["kfp", "token"] = b"third-value"
    assert await identity.headers() == {"Authorization": "Bearer third-value"}


async def test_a_missing_secret_may_yet_be_created() -> None:
    with pytest.raises(Retryable, match="key token of Secret mlops/kfp: there is no Secret kfp") as caught:
        await identity_of(HEADER, MemorySecrets({}), "mlops", FakeClock()).headers()
    assert caught.value.reason == "SecretNotFound"
    with pytest.raises(Retryable, match="no access to Secrets"):
        await identity_of(HEADER, None, "mlops", FakeClock()).headers()


async def test_what_is_secret_is_taken_out_of_texts() -> None:
    identity = identity_of(HEADER, MemorySecrets({("kfp", "token"): b"very-secret"}), "mlops", FakeClock())
    await identity.headers()
    assert identity.hide("TokenReview of very-secret failed") == "TokenReview of *** failed"
