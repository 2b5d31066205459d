"""``awskms:`` secp256k1 keys in AWS KMS, by name or by tag. The private keys never leave KMS.

::

    awskms:arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab
    awskms:1234abcd-12ab-34cd-56ef-1234567890ab?region=eu-west-1
    awskms:alias/challenge-signer
    awskms:?tag=Purpose%3Dchallenge-signer&max_concurrency=20

* The SDK's own chain finds the credentials (environment, web identity, container, instance). The endpoint is AWS's or
  the URI's: ``AWS_ENDPOINT_URL`` is ignored.
* A key must be ``ECC_SECG_P256K1``, ``SIGN_VERIFY`` and ``Enabled``; every load checks that. Its public key is fetched
  once, because it never changes.
* An alias is resolved at each load; between loads the resolved ARN signs.
* A tag selects all secp256k1 signing keys that have it. Keys of other kinds, keys scheduled for deletion, and keys
  whose tags the signer may not read are ignored.
* A failure of the network or the service during a load is an error of the whole backend. A key's own state is that
  key's failure. So a reload removes no key because of either; a key that lost its tag is removed.
* A signature is ``Sign`` of the digest (``MessageType=DIGEST``). ``remote_calls`` limits, times out and retries.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from signer.adapters.keys.awskms.client import KmsClient, KmsResponse, Operation, kms_client
from signer.adapters.keys.awskms.errors import classify
from signer.adapters.keys.awskms.health import PROBE_EVERY, KmsHealth
from signer.adapters.keys.awskms.uri import KmsLocation, KmsTag, display_uri
from signer.adapters.keys.backend import BackendResources, KeyBackendError, LoadedKeys, Progress
from signer.adapters.keys.key_uri import KeyUri
from signer.adapters.keys.remote_calls import BACKOFF, FailureKind, RemoteCalls, RemoteFailure
from signer.application.backoff import Backoff
from signer.application.outage import Outage
from signer.application.ports import KeyFailure
from signer.domain.ethereum import Eip191Message, address_of_public_key

SERVICE: Final = "AWS KMS"
SIGN_TIMEOUT: Final = 4.0
"""The deadline of one signature, in seconds: shorter than ``keys.sign_timeout``, so that the error names the reason."""
LOAD_TIMEOUT: Final = 10.0
"""The deadline of each call during a load, in seconds; the first one includes finding credentials."""

_KEY_SPEC: Final = "ECC_SECG_P256K1"
_KEY_USAGE: Final = "SIGN_VERIFY"
_ALGORITHM: Final = "ECDSA_SHA_256"
_PAGE_SIZE: Final = 1000
_STATES_OF_DELETION: Final = frozenset({"PendingDeletion", "PendingReplicaDeletion"})


@dataclass(frozen=True, slots=True, eq=False)
class AwsKmsKey:
    """A ``BackendKey`` in AWS KMS; ``_arn`` is the key's, not an alias's."""

    address: str
    uri: str
    _kms: KmsClient = field(repr=False)
    _calls: RemoteCalls = field(repr=False)
    _arn: str = field(repr=False)
    _health: KmsHealth = field(repr=False)
    signs_at_once: ClassVar[bool] = False

    async def sign(self, message: Eip191Message) -> bytes:
        """Return a DER signature, half of which are high-s."""
        request = partial(
            self._kms.sign,
            KeyId=self._arn,
            Message=message.digest,
            MessageType="DIGEST",
            SigningAlgorithm=_ALGORITHM,
        )
        try:
            response = await self._calls.run(request)
        except RemoteFailure as failure:
            self._health.failed(self, failure)
            raise failure.as_unavailable() from failure
        self._health.succeeded(self)
        return bytes(response.get("Signature", b""))  # the finisher refuses an empty one


@dataclass(frozen=True, slots=True)
class _UnusableKey:
    """A KMS key that cannot sign.

    Attributes:
        reason: follows the key's URI.
        cause: one stable word for it.
        is_intended: whether the key's owner may want this state: such a key is ignored if it was found by tag.
    """

    reason: str
    is_intended: bool
    cause: str = "error"


class AwsKmsBackend:
    """A ``KeyBackend`` over AWS KMS."""

    def __init__(
        self,
        location: KmsLocation,
        *,
        sign_timeout: float = SIGN_TIMEOUT,
        load_timeout: float = LOAD_TIMEOUT,
        backoff: Backoff = BACKOFF,
        outage_of: Callable[[str], Outage] = lambda _uri: Outage(),
        probe_every: float = PROBE_EVERY,
    ) -> None:
        """Create the backend; nothing is opened before ``load``. Timeouts are in seconds, for each call."""
        self._health = KmsHealth(location.uri, outage_of, probe_every=probe_every)
        self._location = location
        self._load_timeout = load_timeout
        self._calls = RemoteCalls(
            SERVICE,
            classify,
            concurrency=location.max_concurrency,
            timeout=sign_timeout,
            backoff=backoff,
        )
        self._open_client = AsyncExitStack()
        self._client: KmsClient | None = None
        self._region = location.region
        self._keys: dict[str, AwsKmsKey] = {}

    @property
    def uri(self) -> str:
        """The location for log lines, without the AWS account."""
        return self._location.uri

    async def load(self, progress: Progress) -> LoadedKeys:
        """See ``KeyBackend.load``."""
        try:
            keys, failures = await self._load(progress)
        except RemoteFailure as failure:
            raise KeyBackendError(
                f"the key backend {self.uri} cannot be used: {failure.reason}", failure.cause
            ) from failure
        self._keys = {arn: key for arn, key in self._keys.items() if key.uri in failures} | keys
        self._health.loaded({key.uri for key in keys.values()} | failures.keys())
        return LoadedKeys([keys[arn] for arn in sorted(keys)], failures)

    async def close(self) -> None:
        """End the probes, and close the client and its connections."""
        await self._health.close()
        self._keys = {}
        self._client = None
        await self._open_client.aclose()

    async def _load(self, progress: Progress) -> tuple[dict[str, AwsKmsKey], dict[str, str]]:
        kms = await self._opened()
        selector = self._location.selector
        names = [selector] if isinstance(selector, str) else await self._tagged_keys(kms, selector)
        progress(0, len(names))
        keys: dict[str, AwsKmsKey] = {}
        failures: dict[str, str] = {}
        done = 0

        async def inspect(name: str) -> None:
            nonlocal done
            try:
                arn, result = await self._inspect(kms, name)
            except RemoteFailure as failure:
                if failure.kind is not FailureKind.KEY:
                    raise
                arn, result = name, _UnusableKey(failure.reason, is_intended=False, cause=failure.cause)
            if isinstance(result, AwsKmsKey):
                keys[arn] = result
            elif isinstance(selector, str) or not result.is_intended:
                failures[self._uri_of_failed(name)] = KeyFailure(result.reason, result.cause)
            done += 1
            progress(done, len(names))

        await self._calls.for_each(names, inspect)
        if not keys and not failures:
            failures[self.uri] = "no visible secp256k1 signing key in this account and region has the tag"
        return keys, failures

    async def _opened(self) -> KmsClient:
        """Return the client, opened if necessary."""
        if self._client is None:
            opening = kms_client(self._location, self._load_timeout)
            self._client = await self._open_client.enter_async_context(opening)
            self._region = self._client.meta.region_name
        return self._client

    async def _tagged_keys(self, kms: KmsClient, tag: KmsTag) -> list[str]:
        """Return the ARNs of all keys with a tag, of any kind."""
        tagged: list[str] = []

        async def read_tags(arn: str) -> None:
            try:
                pages = [page["Tags"] async for page in self._pages(kms.list_resource_tags, KeyId=arn)]
            except RemoteFailure as failure:
                if failure.kind is not FailureKind.KEY:
                    raise
                if arn not in self._keys:
                    return  # a role for tagged keys may not see the other keys
                pages = [[{"TagKey": tag.name, "TagValue": tag.value}]]
            if any({"TagKey": tag.name, "TagValue": tag.value} in tags for tags in pages):
                tagged.append(arn)

        every = [key["KeyArn"] async for page in self._pages(kms.list_keys, Limit=_PAGE_SIZE) for key in page["Keys"]]
        await self._calls.for_each(every, read_tags)
        return tagged

    async def _pages(self, operation: Operation, **request: object) -> AsyncIterator[KmsResponse]:
        while True:
            page = await self._calls.run(partial(operation, **request), timeout=self._load_timeout)
            yield page
            if not page.get("Truncated"):
                return
            request["Marker"] = page["NextMarker"]

    async def _inspect(self, kms: KmsClient, name: str) -> tuple[str, AwsKmsKey | _UnusableKey]:
        """Check one key and fetch its public key.

        Returns:
            Its ARN; and the key, or why it cannot sign.

        Raises:
            RemoteFailure: AWS refuses the call, or does not respond.
        """
        described = await self._calls.run(partial(kms.describe_key, KeyId=name), timeout=self._load_timeout)
        metadata = described["KeyMetadata"]
        arn: str = metadata["Arn"]
        spec, usage, state = (str(metadata.get(field)) for field in ("KeySpec", "KeyUsage", "KeyState"))
        if (spec, usage) != (_KEY_SPEC, _KEY_USAGE):
            reason = f"is a KMS key for {usage} with {spec}: it must be for {_KEY_USAGE} with {_KEY_SPEC}"
            return arn, _UnusableKey(reason, is_intended=True)
        if state != "Enabled":
            reason = f"is a KMS key in the state {state}: enable it, or remove it from the settings"
            return arn, _UnusableKey(reason, is_intended=state in _STATES_OF_DELETION)
        known = self._keys.get(arn)
        if known is not None:
            return arn, known
        response = await self._calls.run(partial(kms.get_public_key, KeyId=arn), timeout=self._load_timeout)
        address = _address(response["PublicKey"])
        if address is None:
            return arn, _UnusableKey("has no secp256k1 public key at AWS KMS", is_intended=False)
        return arn, AwsKmsKey(address, self._display(arn), kms, self._calls, arn, self._health)

    def _uri_of_failed(self, name: str) -> str:
        """Return the URI of a failed key. A URI that names one key means the key that it named at the last load."""
        if isinstance(self._location.selector, str):
            return next((key.uri for key in self._keys.values()), self._display(name))
        return self._display(name)

    def _display(self, name: str) -> str:
        """Return a key's location for log lines, without the AWS account."""
        resource = name.rpartition(":")[2].removeprefix("key/")
        return display_uri(resource, self._region)


def create_awskms_backend(uri: KeyUri, resources: BackendResources) -> AwsKmsBackend:
    """Create the backend of an ``awskms:`` URI.

    Raises:
        KeyUriInvalid: a part of it is missing, unknown or invalid.
    """
    location = KmsLocation.parse(uri)
    return AwsKmsBackend(location, outage_of=resources.outage_of)


def _address(spki: bytes) -> str | None:
    """Return the owner of a SubjectPublicKeyInfo (RFC 5480, DER), or ``None`` if it is not a secp256k1 key's."""
    try:
        public_key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, ec.SECP256K1):
        return None
    return address_of_public_key(public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
