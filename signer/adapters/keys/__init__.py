"""Where the keys live, and how every signature is finished before anyone sees it.

::

    registry   a key URI's scheme picks the backend: one table
    ring       the port ``KeyRing``: all keys of all backends
    ├── finished_key    the port ``SigningKey``: one key, finished, within its deadline
    ├── keystores       keystore:  Web3 Secret Storage V3 files
    │     ├── _keystore_passwords    where their passwords are
    │     ├── _web3_secret_storage   the file format
    │     └── _local_key             a key in this process's memory
    ├── backend         what a backend is: ``KeyBackend``, ``BackendKey``, their errors
    │     └── opening_pool           the threads that open keys, bounded by cores and by memory
    ├── key_uri         the form of a key URI
    └── _ecdsa          the one finisher: low-s, parity, owner
          └── secp256k1             recovery by libsecp256k1, and the proof that it is there

A new backend is one file with a factory ``(KeyUri, BackendResources) -> KeyBackend``, one line in
``registry.BACKEND_FOR_SCHEME``, one optional extra, one page in ``docs/keys/`` and one row in
``tests/contract/key_backends/rows.py``. Backends do not know each other; what two of them need stands in a module of
its own below them.
"""
