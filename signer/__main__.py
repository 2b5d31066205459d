"""``python -m signer``: the command line."""

from signer.cli.main import main

if __name__ == "__main__":
    main(prog_name="signer")
