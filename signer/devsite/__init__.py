"""The local site of ``signer demo``: the service, a simulated card API and an embedded Valkey, with new keys."""
