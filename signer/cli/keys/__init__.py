"""``signer keys``: make keys, look at them, check them. No secret is ever an argument."""
