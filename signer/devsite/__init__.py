"""What ``signer demo`` starts: the service, a simulated card API, an embedded Valkey and fresh keys, as processes."""
