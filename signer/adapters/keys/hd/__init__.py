"""The key backend ``hd:``: keys derived from one seed (BIP-39, BIP-32)."""
