"""``awskms:`` secp256k1 keys in AWS KMS, by name or by tag; the private keys never leave it.

::

    awskms:arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab
    awskms:1234abcd-12ab-34cd-56ef-1234567890ab?region=eu-west-1
    awskms:alias/challenge-signer
    awskms:?tag=Purpose%3Dchallenge-signer&max_concurrency=20

* Credentials are found by the SDK's own chain (environment, web identity, container, instance); none is a setting here.
  The endpoint is AWS's own or the URI's: the SDK's ``AWS_ENDPOINT_URL`` is not listened to.
* A key is ``ECC_SECG_P256K1``, for ``SIGN_VERIFY``, and ``Enabled``; that is looked at in every load. Its public key
  is fetched once and kept by the key's ARN, for it never changes.
* An alias is pinned to the key that it meant at the load; the next load follows it. What is signed with is the ARN.
* With a tag, the keys are all secp256k1 signing keys that have it. Keys of other kinds, those that are scheduled for
  deletion, and those whose tags the signer may not read are none of them.
* What the network or the service does in a load is the whole backend's error, so that a reload takes no key away for
  it. What a key is, is the key's own failure.
* A signature is ``Sign`` of the digest (``MessageType=DIGEST``); bounds, deadlines and repetitions are
  ``_remote_calls``'s, and the SDK has none of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from signer.adapters.keys.awskms.client import Answer, KmsClient, Operation, kms_client
from signer.adapters.keys.awskms.errors import explain
from signer.adapters.keys.awskms.uri import KmsLocation, KmsTag, shown_uri
from signer.adapters.keys.backend import BackendResources, KeyBackendError, LoadedKeys, Progress
from signer.adapters.keys.key_uri import KeyUri
from signer.adapters.keys.remote_calls import RemoteCalls, RemoteFailure, Repetition, Trouble
from signer.domain.ethereum import Eip191Message, address_of_public_key

SERVICE: Final = "AWS KMS"
SIGN_TIMEOUT: Final = 4.0
"""The deadline of one signature, in seconds: below the ring's own, so that what is known of the reason is said."""
LOAD_TIMEOUT: Final = 10.0
"""The deadline of each call in a load, in seconds; finding credentials is in the first of them."""

_KEY_SPEC: Final = "ECC_SECG_P256K1"
_KEY_USAGE: Final = "SIGN_VERIFY"
_ALGORITHM: Final = "ECDSA_SHA_256"
_KEYS_A_PAGE: Final = 1000
_STATES_OF_DELETION: Final = frozenset({"PendingDeletion", "PendingReplicaDeletion"})


class AwsKmsKey:
    """A ``BackendKey`` in AWS KMS."""

    __slots__ = ("_arn", "_calls", "_kms", "address", "uri")

    address: str
    uri: str

    def __init__(self, kms: KmsClient, calls: RemoteCalls, arn: str, address: str, uri: str) -> None:
        """Take a key that was found good.

        Args:
            kms: the open client.
            calls: the way to it.
            arn: the key's, not an alias's.
            address: EIP-55.
            uri: fit for a log line.
        """
        self._kms = kms
        self._calls = calls
        self._arn = arn
        self.address = address
        self.uri = uri

    async def sign(self, message: Eip191Message) -> bytes:
        """Have the digest signed; DER, of which half are high-s."""
        request = partial(
            self._kms.sign,
            KeyId=self._arn,
            Message=message.digest,
            MessageType="DIGEST",
            SigningAlgorithm=_ALGORITHM,
        )
        try:
            answer = await self._calls.run(request)
        except RemoteFailure as failure:
            raise failure.as_unavailable() from failure
        return bytes(answer.get("Signature", b""))  # the finisher refuses what is none

    def __repr__(self) -> str:
        return f"AwsKmsKey(address={self.address!r}, uri={self.uri!r})"


@dataclass(frozen=True, slots=True)
class _Refused:
    """Why a key is none that can sign.

    Attributes:
        reason: to go behind its name.
        by_choice: whether somebody may well want it like that: with a tag, it is left out without a word.
    """

    reason: str
    by_choice: bool


class AwsKmsBackend:
    """A ``KeyBackend`` over AWS KMS."""

    def __init__(
        self,
        location: KmsLocation,
        *,
        sign_timeout: float = SIGN_TIMEOUT,
        load_timeout: float = LOAD_TIMEOUT,
        repetition: Repetition | None = None,
    ) -> None:
        """Name the place; nothing is opened before ``load``.

        Args:
            location: which keys, and how to get there.
            sign_timeout: the deadline of one signature, in seconds.
            load_timeout: the deadline of each call in a load, in seconds.
            repetition: how often, and after which pauses, a call is repeated.
        """
        self._location = location
        self._load_timeout = load_timeout
        self._calls = RemoteCalls(
            SERVICE,
            explain,
            concurrency=location.max_concurrency,
            timeout=sign_timeout,
            repetition=repetition,
        )
        self._open_client = AsyncExitStack()
        self._client: KmsClient | None = None
        self._region = location.region
        self._keys: dict[str, AwsKmsKey] = {}

    @property
    def uri(self) -> str:
        """Which keys are meant, and where; without the account."""
        return self._location.uri

    async def load(self, progress: Progress) -> LoadedKeys:
        """See ``KeyBackend.load``."""
        try:
            kms = await self._opened()
            wanted = self._location.wanted
            names = [wanted] if isinstance(wanted, str) else await self._tagged(kms, wanted)
            progress(0, len(names))
            keys: dict[str, AwsKmsKey] = {}
            failures: dict[str, str] = {}
            done = 0

            async def inspect(name: str) -> None:
                nonlocal done
                try:
                    arn, result = await self._inspect(kms, name)
                except RemoteFailure as failure:
                    if failure.trouble is not Trouble.KEY:
                        raise
                    arn, result = name, _Refused(failure.reason, by_choice=False)
                if isinstance(result, AwsKmsKey):
                    keys[arn] = result
                elif isinstance(wanted, str) or not result.by_choice:
                    failures[self._shown(name)] = result.reason
                done += 1
                progress(done, len(names))

            await self._calls.for_each(names, inspect)
        except RemoteFailure as failure:
            raise KeyBackendError(f"the key backend {self.uri} cannot be used: {failure.reason}") from failure
        if not keys and not failures:
            failures[self.uri] = (
                "no secp256k1 signing key in this account and region has the tag, as far as can be seen"
            )
        self._keys = keys
        return LoadedKeys([keys[arn] for arn in sorted(keys)], failures)

    async def close(self) -> None:
        """Close the client and its connections."""
        self._keys = {}
        self._client = None
        await self._open_client.aclose()

    async def _opened(self) -> KmsClient:
        """Open the client, or give the one that is open."""
        if self._client is None:
            opening = kms_client(self._location, self._load_timeout)
            self._client = await self._open_client.enter_async_context(opening)
            self._region = self._client.meta.region_name
        return self._client

    async def _tagged(self, kms: KmsClient, tag: KmsTag) -> list[str]:
        """Name the keys that have a tag, of whatever kind."""
        tagged: list[str] = []

        async def look(arn: str) -> None:
            try:
                pages = [page["Tags"] async for page in self._pages(kms.list_resource_tags, KeyId=arn)]
            except RemoteFailure as failure:
                if failure.trouble is not Trouble.KEY:
                    raise
                return  # a role that may use the tagged keys only may not see the others
            if any({"TagKey": tag.name, "TagValue": tag.value} in tags for tags in pages):
                tagged.append(arn)

        every = [key["KeyArn"] async for page in self._pages(kms.list_keys, Limit=_KEYS_A_PAGE) for key in page["Keys"]]
        await self._calls.for_each(every, look)
        return tagged

    async def _pages(self, operation: Operation, **request: object) -> AsyncIterator[Answer]:
        while True:
            page = await self._calls.run(partial(operation, **request), timeout=self._load_timeout)
            yield page
            if not page.get("Truncated"):
                return
            request["Marker"] = page["NextMarker"]

    async def _inspect(self, kms: KmsClient, name: str) -> tuple[str, AwsKmsKey | _Refused]:
        """Look at one key.

        Returns:
            Its ARN; and the key, or why it is none.

        Raises:
            RemoteFailure: AWS says no, or nothing.
        """
        described = await self._calls.run(partial(kms.describe_key, KeyId=name), timeout=self._load_timeout)
        metadata = described["KeyMetadata"]
        arn: str = metadata["Arn"]
        spec, usage, state = (str(metadata.get(field)) for field in ("KeySpec", "KeyUsage", "KeyState"))
        if (spec, usage) != (_KEY_SPEC, _KEY_USAGE):
            reason = f"is a KMS key for {usage} with {spec}: it has to be one for {_KEY_USAGE} with {_KEY_SPEC}"
            return arn, _Refused(reason, by_choice=True)
        if state != "Enabled":
            reason = f"is a KMS key in the state {state}: enable it, or take it out"
            return arn, _Refused(reason, by_choice=state in _STATES_OF_DELETION)
        known = self._keys.get(arn)
        if known is not None:
            return arn, known
        answer = await self._calls.run(partial(kms.get_public_key, KeyId=arn), timeout=self._load_timeout)
        address = _address(answer["PublicKey"])
        if address is None:
            return arn, _Refused("has no secp256k1 public key: what AWS KMS gave is none", by_choice=False)
        return arn, AwsKmsKey(kms, self._calls, arn, address, self._shown(arn))

    def _shown(self, name: str) -> str:
        """Name a key for log lines: without the account."""
        resource = name.rpartition(":")[2].removeprefix("key/")
        return shown_uri(resource, self._region)


def open_awskms(uri: KeyUri, resources: BackendResources) -> AwsKmsBackend:  # noqa: ARG001 - nothing here takes threads
    """Make the backend of an ``awskms:`` URI.

    Raises:
        KeyUriInvalid: a part of it is missing, unknown or not what it should be.
    """
    return AwsKmsBackend(KmsLocation.parse(uri))


def _address(spki: bytes) -> str | None:
    """Give the owner of a SubjectPublicKeyInfo (RFC 5480), DER; ``None`` where it is of another kind."""
    try:
        public_key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm):
        return None
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not isinstance(public_key.curve, ec.SECP256K1):
        return None
    return address_of_public_key(public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
