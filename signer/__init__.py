"""The challenge signer: one Sign-In-with-Ethereum challenge, understood, signed once, delivered."""
