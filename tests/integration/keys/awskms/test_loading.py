"""Which keys ``awskms:`` finds in AWS KMS, what it says of those that are none, and what a reload changes."""

from __future__ import annotations

import asyncio
import json

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from signer.adapters.keys.awskms.backend import AwsKmsBackend
from signer.adapters.keys.backend import KeyBackendError, LoadedKeys
from signer.adapters.keys.ring import LoadedKeyRing
from signer.domain.ethereum import self_test_message
from tests.integration.keys.awskms.conftest import Opener
from tests.support.kms_server import REGION, KmsEndpoint, KmsServer
from tests.support.messages import to_base64

ACCOUNT = "123456789012"


async def load(backend: AwsKmsBackend) -> LoadedKeys:
    """Load once."""
    return await backend.load(lambda _done, _total: None)


async def failure(backend: AwsKmsBackend) -> str:
    """Return the text of the error of a load."""
    with pytest.raises(KeyBackendError) as failed:
        await load(backend)
    return str(failed.value)


@pytest.mark.parametrize("form", ["{id}", "arn:aws:kms:{region}:{account}:key/{id}"])
async def test_key_is_found_by_name(server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, form: str) -> None:
    """By its id and by its ARN; the key's URI shows id and region, and no account."""
    key_id = server.new_key()
    loaded = await load(open_backend(endpoint.uri(form.format(id=key_id, region=REGION, account=ACCOUNT))))
    assert [key.address for key in loaded.keys] == [server.owner(key_id)]
    assert [key.uri for key in loaded.keys] == [f"awskms:{key_id}?region={REGION}"]
    assert loaded.failures == {}


@pytest.mark.parametrize("form", ["{alias}", "arn:aws:kms:{region}:{account}:{alias}"])
async def test_key_is_found_by_alias(server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, form: str) -> None:
    """By the alias and by its ARN."""
    key_id = server.new_key()
    alias = server.new_alias(key_id)
    backend = open_backend(endpoint.uri(form.format(alias=alias, region=REGION, account=ACCOUNT)))
    loaded = await load(backend)
    assert [key.address for key in loaded.keys] == [server.owner(key_id)]
    assert backend.uri == f"awskms:{alias}?region={REGION}"


async def test_keys_are_found_by_tag(server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, tag: str) -> None:
    """All secp256k1 signing keys with the tag, and no other keys."""
    wanted = [server.new_key(tag) for _ in range(3)]
    server.new_key()
    server.new_key(tag + "-other")
    server.new_key(tag, spec="ECC_NIST_P256")
    server.new_key(tag, spec="SYMMETRIC_DEFAULT", usage="ENCRYPT_DECRYPT")
    server.client.schedule_key_deletion(KeyId=server.new_key(tag), PendingWindowInDays=7)
    seen: list[tuple[int, int]] = []
    backend = open_backend(endpoint.uri(f"?tag=Purpose%3D{tag}"))
    loaded = await backend.load(lambda done, total: seen.append((done, total)))
    assert {key.address for key in loaded.keys} == {server.owner(key_id) for key_id in wanted}
    assert loaded.failures == {}
    assert seen == [(done, 6) for done in range(7)]
    assert backend.uri == f"awskms:?tag=Purpose%3D{tag}&region={REGION}"


async def test_all_pages_of_lists_are_read(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, tag: str
) -> None:
    """Of keys and of tags: each page is asked for with the marker of the one before."""
    first, second = server.new_key(), server.new_key(tag)
    arn = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/"
    keys = [
        {"Keys": [{"KeyId": each, "KeyArn": arn + each}], "Truncated": True, "NextMarker": each}
        for each in (first, second)
    ]
    for page in (*keys, {"Keys": [], "Truncated": False}):
        endpoint.respond(json.dumps(page), times=1, operation="ListKeys")
    endpoint.respond(
        json.dumps({"Tags": [], "Truncated": True, "NextMarker": "more"}), times=1, operation="ListResourceTags"
    )
    loaded = await load(open_backend(endpoint.uri(f"?tag=Purpose%3D{tag}", max_concurrency="1")))
    assert [key.address for key in loaded.keys] == [server.owner(second)]
    assert [request.get("Marker") for request in endpoint.requests("ListKeys")] == [None, first, second]
    tags_of = [(request["KeyId"], request.get("Marker")) for request in endpoint.requests("ListResourceTags")]
    assert tags_of == [(arn + first, None), (arn + first, "more"), (arn + second, None)]


async def test_disabled_tagged_key_is_a_failure(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, tag: str
) -> None:
    """It should sign and cannot: it is named, with its state; the others load."""
    good, disabled = server.new_key(tag), server.new_key(tag)
    server.client.disable_key(KeyId=disabled)
    loaded = await load(open_backend(endpoint.uri(f"?tag=Purpose%3D{tag}")))
    assert [key.address for key in loaded.keys] == [server.owner(good)]
    assert list(loaded.failures) == [f"awskms:{disabled}?region={REGION}"]
    assert "state Disabled" in str(loaded.failures)


async def test_tag_without_keys_is_a_failure(endpoint: KmsEndpoint, open_backend: Opener, tag: str) -> None:
    """A mistyped tag does not give an empty ring silently."""
    backend = open_backend(endpoint.uri(f"?tag=Purpose%3D{tag}"))
    loaded = await load(backend)
    assert loaded.keys == []
    assert "has the tag" in loaded.failures[backend.uri]


async def test_keys_with_unreadable_tags_are_ignored(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, tag: str
) -> None:
    """A role for tagged keys only is denied the other keys' tags; that is not an error."""
    server.new_key(tag)
    endpoint.fail("AccessDeniedException", operation="ListResourceTags")
    loaded = await load(open_backend(endpoint.uri(f"?tag=Purpose%3D{tag}")))
    assert loaded.keys == []
    assert "no visible secp256k1 signing key" in str(loaded.failures)


@pytest.mark.parametrize(
    ("spec", "usage", "reason"),
    [
        ("ECC_NIST_P256", "SIGN_VERIFY", "for SIGN_VERIFY with ECC_NIST_P256"),
        ("RSA_2048", "SIGN_VERIFY", "for SIGN_VERIFY with RSA_2048"),
        ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT", "for ENCRYPT_DECRYPT with SYMMETRIC_DEFAULT"),
    ],
)
async def test_key_of_another_kind_is_refused(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, spec: str, usage: str, reason: str
) -> None:
    """The failure names the kind."""
    alias = server.new_alias(server.new_key(spec=spec, usage=usage))
    loaded = await load(open_backend(endpoint.uri(alias)))
    assert loaded.keys == []
    assert reason in loaded.failures[f"awskms:{alias}?region={REGION}"]


@pytest.mark.parametrize("state", ["Disabled", "PendingDeletion"])
async def test_key_that_is_not_enabled_is_refused(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, state: str
) -> None:
    """The failure names the state."""
    key_id = server.new_key()
    if state == "Disabled":
        server.client.disable_key(KeyId=key_id)
    else:
        server.client.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=7)
    loaded = await load(open_backend(endpoint.uri(key_id)))
    assert loaded.keys == []
    assert f"state {state}" in str(loaded.failures)


@pytest.mark.parametrize("wanted", ["00000000-0000-4000-8000-000000000000", "alias/nobody"])
async def test_missing_key_is_a_failure(endpoint: KmsEndpoint, open_backend: Opener, wanted: str) -> None:
    """The failure says that key or region may be wrong."""
    loaded = await load(open_backend(endpoint.uri(wanted)))
    assert loaded.keys == []
    assert "no such key or alias" in loaded.failures[f"awskms:{wanted}?region={REGION}"]


@pytest.mark.parametrize("operation", ["DescribeKey", "GetPublicKey"])
async def test_denied_key_is_a_failure(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, operation: str
) -> None:
    """The failure says what to allow, and shows no role, account or ARN."""
    endpoint.fail("AccessDeniedException", operation=operation)
    loaded = await load(open_backend(endpoint.uri(server.new_key())))
    assert "kms:GetPublicKey" in str(loaded.failures)
    assert "111122223333" not in str(loaded.failures)
    assert endpoint.count(operation) == 1


P256 = generate_private_key(SECP256R1()).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
OFF_CURVE = P256[:-64] + bytes(64)


@pytest.mark.parametrize("spki", [b"", b"AAA", OFF_CURVE, P256], ids=["nothing", "garbage", "off-curve", "P-256"])
async def test_other_public_key_is_refused(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, spki: bytes
) -> None:
    """A response that is not a SubjectPublicKeyInfo of the curve gives no owner."""
    endpoint.respond(json.dumps({"PublicKey": to_base64(spki)}), operation="GetPublicKey")
    loaded = await load(open_backend(endpoint.uri(server.new_key())))
    assert "no secp256k1 public key" in str(loaded.failures)


async def test_alias_is_resolved_again_at_next_load(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener
) -> None:
    """The loaded key does not change when the alias is moved; the next load follows it."""
    first, second = server.new_key(), server.new_key()
    alias = server.new_alias(first)
    ring = LoadedKeyRing([open_backend(endpoint.uri(alias))])
    await ring.load()
    server.client.update_alias(AliasName=alias, TargetKeyId=second)
    await ring.keys()[0].sign(self_test_message())
    report = await ring.reload()
    assert (report.added, report.removed) == ((server.owner(second),), (server.owner(first),))
    await ring.keys()[0].sign(self_test_message())


async def test_reload_fetches_state_but_not_public_key(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, tag: str
) -> None:
    """A key that was disabled meanwhile is a failure, with the reason."""
    stays, goes = server.new_key(tag), server.new_key(tag)
    backend = open_backend(endpoint.uri(f"?tag=Purpose%3D{tag}"))
    first = await load(backend)
    server.client.disable_key(KeyId=goes)
    second = await load(backend)
    assert [key.address for key in second.keys] == [server.owner(stays)]
    assert second.keys[0] in first.keys
    assert "state Disabled" in str(second.failures)
    assert endpoint.count("GetPublicKey") == 2
    assert endpoint.count("DescribeKey") == 4


async def test_reload_keeps_keys_that_the_signer_may_not_see_any_more(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, tag: str
) -> None:
    """A policy that was changed by mistake removes no key, whether it was found by tag, id or alias."""
    key_id = server.new_key(tag)
    for name in (f"?tag=Purpose%3D{tag}", key_id, server.new_alias(key_id)):
        ring = LoadedKeyRing([open_backend(endpoint.uri(name))])
        await ring.load()
        for operation in ("ListResourceTags", "DescribeKey"):
            endpoint.fail("AccessDeniedException", operation=operation)
        await ring.reload()
        report = await ring.reload()
        assert (report.removed, report.kept) == ((), (server.owner(key_id),)), name
        assert "denies the signer this KMS key" in str(report.failed)
        endpoint.recover()
        await ring.reload()
        report = await ring.reload()
        assert (report.unchanged, report.kept, report.failed) == ((server.owner(key_id),), (), {}), name


async def test_load_fails_when_kms_is_down(server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener) -> None:
    """No server listens: the backend as a whole cannot be used."""
    backend = open_backend(endpoint.uri(server.new_key()))
    endpoint.close()
    assert "cannot be reached" in await failure(backend)


@pytest.mark.parametrize(
    ("code", "status", "reason", "asked"),
    [
        ("ThrottlingException", 400, "throttling", 4),
        ("KMSInternalException", 500, "KMSInternalException (HTTP 500)", 4),
        ("ExpiredTokenException", 400, "have expired", 1),
        ("UnrecognizedClientException", 400, "does not accept the signer's credentials", 1),
    ],
)
async def test_service_failure_fails_the_backend(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, code: str, status: int, reason: str, asked: int
) -> None:
    """Transient failures are retried first; others fail at once."""
    endpoint.fail(code, status, operation="DescribeKey")
    backend = open_backend(endpoint.uri(server.new_key()))
    assert reason in await failure(backend)
    assert endpoint.count("DescribeKey") == asked


async def test_transient_failure_during_load_is_retried(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, tag: str
) -> None:
    """All keys load despite throttling and broken connections."""
    wanted = [server.new_key(tag) for _ in range(3)]
    endpoint.fail("ThrottlingException", times=2, operation="ListResourceTags")
    endpoint.fail("DependencyTimeoutException", 503, times=2, operation="DescribeKey")
    endpoint.cut(times=1, operation="GetPublicKey")
    loaded = await load(open_backend(endpoint.uri(f"?tag=Purpose%3D{tag}")))
    assert {key.address for key in loaded.keys} == {server.owner(key_id) for key_id in wanted}


async def test_hanging_load_ends_at_deadline(server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener) -> None:
    """The deadline is that of each call."""
    endpoint.hang()
    backend = open_backend(endpoint.uri(server.new_key()), load_timeout=2)
    assert "did not respond within 2 s" in await failure(backend)


async def test_service_failure_while_reading_tags_fails_the_backend(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, tag: str
) -> None:
    """Throttled for ever is not the same as denied: no key is left out for it."""
    server.new_key(tag)
    endpoint.fail("ThrottlingException", operation="ListResourceTags")
    assert "throttling" in await failure(open_backend(endpoint.uri(f"?tag=Purpose%3D{tag}")))


async def test_load_fails_when_credentials_are_not_found_in_time(
    endpoint: KmsEndpoint, open_backend: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A credentials service that hangs does not block the start."""

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    async with await asyncio.start_server(hang, "127.0.0.1", 0) as service:
        port = service.sockets[0].getsockname()[1]
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{port}/")
        backend = open_backend(endpoint.uri("alias/a"), load_timeout=1)
        assert "credentials were not found in time" in await failure(backend)


async def test_load_fails_without_credentials(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK's chain finds nothing, and the error says so."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    assert "no AWS credentials" in await failure(open_backend(endpoint.uri(server.new_key())))


async def test_load_fails_without_region(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the URI nor the SDK's settings have a region."""
    wanted = f"awskms:{server.new_key()}?endpoint_url={endpoint.url}"
    loaded = await load(open_backend(wanted))
    assert loaded.keys[0].uri.endswith(f"?region={REGION}")
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert "no AWS region is set" in await failure(open_backend(wanted))


async def test_load_fails_with_unknown_profile(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error of the SDK is converted; after a correction the next load works."""
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    backend = open_backend(endpoint.uri(server.new_key()))
    assert "profile" in await failure(backend)
    monkeypatch.delenv("AWS_PROFILE")
    assert len((await load(backend)).keys) == 1


async def test_endpoint_setting_of_sdk_is_ignored(
    server: KmsServer, endpoint: KmsEndpoint, open_backend: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment variable cannot redirect the signer to another KMS."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_KMS", "http://127.0.0.1:9")
    assert len((await load(open_backend(endpoint.uri(server.new_key())))).keys) == 1
