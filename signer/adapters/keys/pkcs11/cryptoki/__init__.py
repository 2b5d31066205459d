"""The C interface of PKCS #11: calls, structures and constants."""
