"""Key backends: they hold the owners' keys, and every signature is verified before it leaves this package.

The objects, from the vendor to the use case::

    BackendKey       one key of a backend; ``sign`` returns the vendor's form, raw or DER, perhaps high-s
      InMemoryKey    keystore:  the private key is in this process
      HdKey          hd:        the private key is derived from a seed for each signature
      Pkcs11Key      pkcs11:    the private key is in a token
      AwsKmsKey      awskms:    the private key is in AWS KMS
    KeyBackend       loads all BackendKeys that one key URI names
    VerifiedKey      the port ``SigningKey``: one BackendKey, with a deadline and a check of every signature
    LoadedKeyRing    the ports ``KeyRing`` and ``KeyReloader``: the VerifiedKeys of all backends

Modules::

    registry, key_uri            from a key URI to its backend
    settings                     the section ``[keys]``
    backend                      the protocols above and their errors
    ring, verified_key           the implementations of the ports
    many_keys                    steps of work on 100,000 keys that do not stop the event loop
    finisher, secp256k1          low-s, recovery id, comparison with the owner
    file_watch                   notices changed key files
    keystore/, hd/, pkcs11/, awskms/                                           the backends
    encrypted_json, in_memory_key, opening_pool, remote_calls                  shared by backends

To add a backend, see "Adding a backend" in ``docs/keys/README.md``. Backends do not import each other.
"""
