"""``signer keys``: create, list and check keys. No secret is ever an argument."""
