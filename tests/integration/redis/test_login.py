"""Why a login fails: the server refuses it, over TCP and a Unix socket, or the password file is unusable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from signer.adapters.redis_client.opening import open_redis
from signer.adapters.redis_client.settings import RedisSettings
from signer.domain.errors import Unavailable
from tests.support.servers import RedisServer, valkey

PASSWORD = "a password of the tests"


@pytest.fixture(scope="module")
def guarded() -> Iterator[RedisServer]:
    """A server that requires a password."""
    with valkey() as server:
        server.command("CONFIG", "SET", "requirepass", PASSWORD)
        yield server


async def _refusal(url: str, **files: Path) -> Unavailable:
    redis = await open_redis(RedisSettings.model_validate({"url": url, **files}))
    try:
        with pytest.raises(Unavailable) as refused:
            await redis.command("PING")
    finally:
        await redis.close()
    return refused.value


@pytest.mark.parametrize("kind", ["url", "tcp_url"])
async def test_wrong_password_is_an_authentication_failure(kind: str, guarded: RedisServer, tmp_path: Path) -> None:
    """Over a Unix socket redis-py wraps what the server responds."""
    (tmp_path / "password").write_text("another")
    error = await _refusal(getattr(guarded, kind), password_file=tmp_path / "password")
    assert (error.cause, error.detail) == (
        "authentication",
        "The store refused the user or the password; check the user's name and the password file.",
    )


@pytest.mark.parametrize("kind", ["url", "tcp_url"])
async def test_right_password_is_accepted(kind: str, guarded: RedisServer, tmp_path: Path) -> None:
    """The line end behind it does not count."""
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    redis = await open_redis(RedisSettings(url=getattr(guarded, kind), password_file=tmp_path / "password"))
    assert await redis.command("PING")
    await redis.close()


UNUSABLE: Final[dict[bytes | None, str]] = {
    b"": "is empty: write the secret into it.",
    b"\n": "is empty: write the secret into it.",
    b"pass\xffword": "is not UTF-8 text: save it as UTF-8.",
    "word".encode("utf-16"): "is UTF-16 text: save it as UTF-8.",
    None: "cannot be read (Is a directory): name a file that the signer's user can read.",
}


@pytest.mark.parametrize("content", UNUSABLE, ids=["empty", "line-end", "latin-1", "utf-16", "directory"])
@pytest.mark.parametrize("kind", ["url", "tcp_url"])
async def test_error_names_password_file_that_cannot_be_used(
    kind: str, content: bytes | None, guarded: RedisServer, tmp_path: Path
) -> None:
    """Nothing was sent, so the server refused nothing."""
    file = tmp_path if content is None else tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    error = await _refusal(getattr(guarded, kind), password_file=file)
    assert (error.cause, error.detail) == ("authentication", f"redis.password_file {UNUSABLE[content]}")


async def test_error_names_password_file_of_the_sentinels(tmp_path: Path) -> None:
    """They have their own setting."""
    with valkey() as server:
        url = f"redis+sentinel://127.0.0.1:{server.port}/name"
        error = await _refusal(url, sentinel_password_file=tmp_path)
    assert error.cause == "authentication"
    assert error.detail.startswith("redis.sentinel_password_file cannot be read (Is a directory): ")
