"""Pure rules: what a challenge is, when it may be signed, and what may happen to it. No I/O, no clock."""
