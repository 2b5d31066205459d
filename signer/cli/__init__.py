"""The command line: ``signer <command>``."""
