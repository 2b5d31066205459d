"""``signer doctor``: checks each part of an installation from outside in.

``examination`` runs the parts at once; each of the other modules checks one of them and fills in a ``findings.Report``.
"""
