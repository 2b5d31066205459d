"""Loads a token, forks, signs in both processes, and prints what happens. A test runs it with the token's URI."""

from __future__ import annotations

import asyncio
import os
import sys

from signer.adapters.keys.backend import KeyBackendError, LoadedKeys
from signer.adapters.keys.key_uri import KeyUri
from signer.adapters.keys.pkcs11.backend import Pkcs11Backend, create_pkcs11_backend
from signer.domain.errors import Unavailable
from signer.domain.ethereum import self_test_message
from tests.support.fakes.keys import backend_resources


def say(word: str) -> None:
    """Print a line for the test."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def load(uri: str) -> tuple[Pkcs11Backend, LoadedKeys]:
    """Open the token."""
    backend = create_pkcs11_backend(KeyUri.parse(uri), backend_resources())
    return backend, await backend.load(lambda _done, _total: None)


async def open_and_sign(uri: str) -> None:
    """Open the token, sign and close it."""
    backend, loaded = await load(uri)
    await loaded.keys[0].sign(self_test_message())
    await backend.close()
    say("signed")


async def use_parents_token(backend: Pkcs11Backend, loaded: LoadedKeys) -> None:
    """Print "refused" if the parent's key does not sign here, and again if its backend does not load."""
    try:
        await loaded.keys[0].sign(self_test_message())
    except Unavailable:
        say("refused")
    try:
        await backend.load(lambda _done, _total: None)
    except KeyBackendError:
        say("refused")


def main(uri: str) -> None:
    """Load in the parent, fork, and sign in both processes."""
    loop = asyncio.new_event_loop()
    backend, loaded = loop.run_until_complete(load(uri))
    child = os.fork()
    if not child:
        asyncio.run(use_parents_token(backend, loaded))
        asyncio.run(open_and_sign(uri))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    say(f"child:{status}")
    loop.run_until_complete(loaded.keys[0].sign(self_test_message()))
    say("signed")
    loop.run_until_complete(backend.close())
    loop.close()


if __name__ == "__main__":
    main(sys.argv[1])
