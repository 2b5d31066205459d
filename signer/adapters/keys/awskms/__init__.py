"""The key backend ``awskms:``: keys in AWS KMS. ``backend`` is its entry point."""
