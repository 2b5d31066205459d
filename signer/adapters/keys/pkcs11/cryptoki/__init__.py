"""The C interface of a PKCS#11 library: its functions (``library``), its structures and its constants."""
