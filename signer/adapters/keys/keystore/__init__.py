"""The key backend ``keystore:``: Web3 Secret Storage files."""
