"""Why a server's certificate is not trusted: one sentence for each kind, for Redis and for the card API."""

from __future__ import annotations

import ssl
from typing import Final

_UNKNOWN_ISSUER: Final = "is of an unknown issuer: add its CA to {ca}"
_OTHER_NAME: Final = "is for another name: name the server in {url} as its certificate does"
_PROBLEMS: Final = {
    9: "is not valid yet: check this machine's clock, or issue it again",
    10: "has expired, or its CA's: check this machine's clock, or renew it",
    18: _UNKNOWN_ISSUER,
    19: _UNKNOWN_ISSUER,
    20: _UNKNOWN_ISSUER,
    21: _UNKNOWN_ISSUER,
    62: _OTHER_NAME,
    64: _OTHER_NAME,
}
"""By OpenSSL's ``X509_V_ERR_…``."""


def certificate_problem(error: ssl.SSLCertVerificationError, *, ca: str, url: str) -> str:
    """Return what is wrong with a certificate, and what to do; ``ca`` and ``url`` name what has to be changed."""
    problem = _PROBLEMS.get(error.verify_code)
    if problem is None:
        return f"its certificate is not trusted ({error.verify_message})"
    return f"its certificate {problem.format(ca=ca, url=url)}"
