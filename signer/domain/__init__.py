"""The rules: what a challenge is, when it may be signed, and which states its record has. No I/O, no clock."""
