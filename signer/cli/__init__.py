"""What a person types: ``signer <command>``."""
