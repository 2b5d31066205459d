"""HTTP Message Signatures (RFC 9421) on the requests to the card API, and the P-384 request key that makes them."""
