"""The key backend ``hd:``: keys derived from one BIP-39 seed (BIP-32). ``backend`` is its entry point."""
