"""The key backend ``pkcs11:``: keys in a PKCS#11 token. ``backend`` is its entry point."""
