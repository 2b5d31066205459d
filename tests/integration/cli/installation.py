"""What ``signer doctor`` is run against: files with keys and secrets, a real Valkey and the simulated card API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from click.testing import CliRunner, Result

from signer.adapters.keys.keystore.backend import write_keystore
from signer.adapters.request_signing.local_key import load_request_key, write_request_key
from signer.bootstrap.doctor.findings import OWN_CAUSES
from signer.cli.main import main
from signer.observability.metric_table import CARD_API_CAUSES, KEY_CAUSES, STORE_CAUSES
from signer.simulator.app import RunningSimulator, serving
from signer.simulator.settings import SimulatorSettings
from tests.support.servers import RedisServer, free_port

SECRET_KEY: Final = bytes.fromhex("4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318")
PASSWORD: Final = "a password of the keystores"
API_SECRET: Final = "c0ffee-secret-of-the-tests"
SECRETS: Final = (PASSWORD, API_SECRET, SECRET_KEY.hex(), "a password of redis")

CAUSES: Final = {*STORE_CAUSES, *CARD_API_CAUSES, *KEY_CAUSES, *OWN_CAUSES}
ANY: Final = CAUSES | {""}


@dataclass(slots=True)
class Installation:
    """The parts, and the settings that name them; a test changes ``settings`` before it runs the command."""

    folder: Path
    simulator: RunningSimulator
    settings: dict[str, dict[str, Any]]
    owner: str

    @property
    def config_file(self) -> Path:
        """The file with the settings."""
        file = self.folder / "signer.toml"
        lines = [f"[[callers]]\nname = 'wallet'\ntoken_sha256 = '{'ab' * 32}'"]
        for name, section in self.settings.items():
            lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in section.items())]
        file.write_text("\n".join(lines))
        file.chmod(0o600)
        return file

    async def run(self, *options: str) -> Result:
        """Run ``signer doctor``; no output may show a secret."""
        command = ["doctor", "--config", str(self.config_file), *options]
        result = await asyncio.to_thread(CliRunner().invoke, main, command)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert not any(secret in result.output for secret in SECRETS)
        return result

    async def findings(self, status: int) -> dict[str, dict[str, str]]:
        """Return each finding by its part and check; the last one of a check that has several."""
        result = await self.run("--json")
        checks = json.loads(result.stdout)["checks"]
        unexplained = [each for each in checks if each["cause"] not in (CAUSES if each["result"] == "failed" else ANY)]
        assert unexplained == []
        assert result.exit_code == status, [each for each in checks if each["result"] == "failed"]
        return {f"{each['part']} {each['check']}": each for each in checks}


@asynccontextmanager
async def installed(folder: Path, redis: RedisServer) -> AsyncIterator[Installation]:
    """Write the files and run the card API."""
    owner, public = _write_files(folder)
    simulated = SimulatorSettings(api_key="an-api-key", api_secret=API_SECRET, signing_keys={"registered": public})
    async with serving(simulated) as simulator:
        settings: dict[str, dict[str, Any]] = {
            "http": {"port": free_port()},
            "policy": {"domains": [simulated.domain]},
            "redis": {"url": redis.tcp_url},
            "card_api": {
                "base_url": simulator.base_url,
                "api_key_file": str(folder / "api-key"),
                "api_secret_file": str(folder / "api-secret"),
                "signing_key_file": str(folder / "request-key.pem"),
                "signing_key_id": "registered",
            },
            "keys": {"uris": [f"keystore:{folder / 'keystores'}?password_file={folder / 'password'}"]},
        }
        yield Installation(folder, simulator, settings, owner)


def _write_files(folder: Path) -> tuple[str, str]:
    """Write keys and secrets; return the owner's address and the public key of the request key."""
    write_request_key(folder / "request-key.pem")
    texts = {"api-key": "an-api-key", "api-secret": API_SECRET, "password": PASSWORD}
    for name, text in texts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    (folder / "keystores").mkdir()
    keystore = write_keystore(folder / "keystores", SECRET_KEY, PASSWORD.encode(), work=2)
    return keystore.stem, load_request_key(folder / "request-key.pem", "registered").public_pem.decode()


def assert_failed(found: dict[str, str], result: str, text: str, action: str, cause: str | None = None) -> None:
    """Check one finding."""
    assert cause is None or found["cause"] == cause, found
    assert (found["result"], text in found["found"], action.lower() in found["action"].lower()) == (
        result,
        True,
        True,
    ), found
