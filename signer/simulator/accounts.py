"""CAIP-10 accounts on EVM chains.

The simulator has its own parser, with ``eth_utils`` for EIP-55: it shares none with the signer that it tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from eth_utils.address import is_checksum_address, to_checksum_address

_CAIP10_EVM = re.compile(r"eip155:(0|[1-9][0-9]{0,31}):(0x[0-9a-fA-F]{40})", re.ASCII)


class AccountError(ValueError):
    """The text is not a CAIP-10 account on an EVM chain."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account on a chain.

    Attributes:
        chain: the EIP-155 chain id.
        address: the address in its EIP-55 form.
    """

    chain: int
    address: str

    def __str__(self) -> str:
        """Return the CAIP-10 form."""
        return f"eip155:{self.chain}:{self.address}"


def parse_account(text: str) -> Account:
    """Parse ``eip155:<chain>:<0x address>``; a mixed-case address must be in its EIP-55 form.

    Raises:
        AccountError: it is anything else.
    """
    match = _CAIP10_EVM.fullmatch(text)
    if match is None:
        raise AccountError("not an eip155 CAIP-10 account")
    chain, address = match.groups()
    digits = address[2:]
    if digits not in (digits.lower(), digits.upper()) and not is_checksum_address(address):
        raise AccountError("the address fails EIP-55")
    return Account(chain=int(chain), address=to_checksum_address(address))
