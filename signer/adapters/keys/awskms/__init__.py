"""The key backend ``awskms:``: keys in AWS KMS."""
