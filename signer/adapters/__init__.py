"""The outside world, one library each, behind the ports of ``signer.application.ports``."""
