"""RFC 3986's authority and URI, in a challenge's domain, URI and resources. Each row is a subtest."""

from __future__ import annotations

import pytest

from signer.domain.errors import ErrorCode
from tests.support.messages import Message
from tests.unit.domain.verdicts import accepted, refused

DOMAINS = [
    *("api.example.org", "localhost", "a", "-", "~", "a..b", "xn--bcher-kva.example", "!$&'()*+,;="),
    *("127.0.0.1", "256.256.256.256", "1.2.3.4.5", "010.0.00.000"),
    *("a:", "a:80", "a:080", "a:99999999", ":", ":80"),
    *("@", "@a", "a@", "a@b", "a:b@c", "a:b:c@d", ":@a", "a@b:1", "%40@a", "a%3Ab"),
    *("%41", "a%20b", "%00", "%0a", "%ff"),
    *("[::]", "[::1]", "[::1]:80", "[1::]", "[::ffff:1.2.3.4]", "[1:2:3:4:5:6:7:8]", "[1:2:3:4:5:6:1.2.3.4]"),
    *("[1:2:3:4:5:6:7::]", "[::2:3:4:5:6:7:8]", "[1::3:4:5:6:7:8]", "[1:2::4:5:6:7:8]", "[1:2:3::5:6:7:8]"),
    *("[1:2:3:4::6:7:8]", "[1:2:3:4:5::7:8]", "[1:2:3:4:5:6::8]", "[1:2:3:4:5::1.2.3.4]", "[aBcD::EF01]"),
    *("[v1.a]", "[V1.a]", "[vF.:]", "[v1a.!$&'()*+,;=:]", "a@[::1]:443"),
]


def test_rfc3986_3_2_authority_is_accepted_as_domain(subtests: pytest.Subtests) -> None:
    """Also as the authority of a URI."""
    for domain in DOMAINS:
        with subtests.test(domain=domain):
            challenge = accepted(Message(domain=domain, uri=f"https://{domain}/a"))
            assert (challenge.domain, challenge.uri_authority) == (domain, domain)


NO_DOMAINS = [
    *("", "a/b", "a?b", "a#b", "a\\b", '"a"', "<a>", "{a}", "a|b", "a^b", "a`b"),
    *("%", "%4", "%zz", "a%", "%4g", "a@b@c", "a:8a", "a:b", "a:1:2", "a@b:1:2", ":a"),
    *("[", "]", "[]", "[::1", "::1]", "a[b]", "[::1]a", "a[::1]", "[::1]:a", "[::1][::1]", "[[::1]]"),
    *("[:]", "[:::]", "[1:2:3:4:5:6:7]", "[1:2:3:4:5:6:7:8:9]", "[1::2::3]", "[12345::]", "[g::]", "[::1%25eth0]"),
    *("[1:2:3:4:5:6:7:8::]", "[::1:2:3:4:5:6:7:8]", "[1:2:3:4:5:6:7::8]", "[1:2:3:4:5:6::7:8]"),
    *("[1:2:3:4:5:6:7:1.2.3.4]", "[1:2:3:4:5:6::1.2.3.4]", "[::1.2.3.256]", "[::1.2.3]", "[::01.2.3.4]"),
    *("[1.2.3.4]", "[::1.2.3.4:1]", "[v.a]", "[v1.]", "[v1]", "[vg.a]", "[v1.a@]", "[v1.%41]", "%5B::1%5D"),
]


def test_rfc3986_3_2_domain_refused(subtests: pytest.Subtests) -> None:
    """Invalid authorities, and the empty one."""
    for domain in NO_DOMAINS:
        with subtests.test(domain=domain):
            assert refused(Message(domain=domain)) == (ErrorCode.DOMAIN_MALFORMED, "domain")


def test_rfc3986_3_2_authority_of_uri_refused(subtests: pytest.Subtests) -> None:
    """Invalid authorities; those with ``/``, ``?`` or ``#`` are left out, because these end the authority."""
    for authority in NO_DOMAINS:
        if authority and not set("/?#") & set(authority):
            with subtests.test(authority=authority):
                assert refused(Message(uri=f"https://{authority}")) == (ErrorCode.URI_MALFORMED, "uri")


@pytest.mark.parametrize(
    ("uri", "scheme", "authority"),
    [
        ("https://api.example.org", "https", "api.example.org"),
        ("https://api.example.org/", "https", "api.example.org"),
        ("https://api.example.org?a", "https", "api.example.org"),
        ("https://api.example.org#a", "https", "api.example.org"),
        ("https://a@b:1/c//d/../e;f=g?h=i/?#j/?", "https", "a@b:1"),
        ("HTTPS://a", "HTTPS", "a"),
        ("https://", "https", ""),
        ("https:///a", "https", ""),
        ("https:", "https", None),
        ("https:a", "https", None),
        ("https:/a", "https", None),
        ("https:/", "https", None),
        ("https:a//b", "https", None),
        ("https:/a//b", "https", None),
        ("a+1-.:", "a+1-.", None),
        ("urn:a:b::", "urn", None),
        ("a::", "a", None),
        ("a:@", "a", None),
        ("a:%00%fF", "a", None),
        ("a:?", "a", None),
        ("a:#", "a", None),
        ("a:?#", "a", None),
        ("a:b?c?d#e?f", "a", None),
        ("a://b:", "a", "b:"),
        ("a://@", "a", "@"),
        ("a://@:", "a", "@:"),
        ("a://b//", "a", "b"),
    ],
)
def test_rfc3986_uri_is_parsed(uri: str, scheme: str, authority: str | None) -> None:
    """The scheme is kept as written; the authority can be absent or empty."""
    challenge = accepted(Message(uri=uri))
    assert (challenge.uri, challenge.uri_scheme, challenge.uri_authority) == (uri, scheme, authority)


NO_URIS = [
    *("", "a", "/a", "//a", "?a", "#a", ":", ":a", "1a:b", "-:a", "a_b:c", "a b:c", " a:", "a: ", "a:b c"),
    *("a:%", "a:%4", "a:%4g", "a:\\", 'a:"', "a:<", "a:>", "a:^", "a:`", "a:{", "a:|", "a:}", "a:[", "a:]"),
    *("a:?[", "a:#[", "a:#a#b", "a://b@c@d", "a://b:c", "a://[::1]b", "a://[::1", "a://b[", "https//a"),
]


def test_rfc3986_uri_refused(subtests: pytest.Subtests) -> None:
    """Invalid URIs and relative references are refused, as the URI and as a resource."""
    for uri in NO_URIS:
        with subtests.test(uri=uri):
            assert refused(Message(uri=uri)) == (ErrorCode.URI_MALFORMED, "uri")
            assert refused(Message(resources=("a:", uri))) == (ErrorCode.RESOURCES_MALFORMED, "resources")
            assert refused(Message(resources=(uri, "a:"))) == (ErrorCode.RESOURCES_MALFORMED, "resources")
