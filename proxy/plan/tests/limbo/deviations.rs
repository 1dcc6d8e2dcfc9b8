//! Cases of x509-limbo whose expected result we do not give, by root cause. In each group that lets a chain pass, what is
//! let pass cannot make a peer into somebody whom the operator's roots have not vouched for.

/// Ours alone to know: a cause, and the cases that it explains.
pub const DEVIATIONS: &[(&str, &[&str])] = &[
    (
        "an identifier of a key (AKI, SKI) is a hint for building paths, which are built by names and proven by \
         signatures: webpki does not read it, whatever its form",
        &[
            "rfc5280::aki::critical-aki",
            "rfc5280::aki::leaf-missing-aki",
            "rfc5280::aki::intermediate-missing-aki",
            "rfc5280::aki::cross-signed-root-missing-aki",
            "rfc5280::ski::critical-ski",
            "rfc5280::ski::intermediate-missing-ski",
        ],
    ),
    (
        "a root is a name, a key and a time that the operator trusts (RFC 5280 6.1.1 d): its own extensions, which bind \
         issuers of roots, are not read",
        &[
            "rfc5280::ski::root-missing-ski",
            "rfc5280::unknown-critical-extension-root",
            "rfc5280::root-missing-basic-constraints",
            "rfc5280::root-non-critical-basic-constraints",
            "rfc5280::root-inconsistent-ca-extensions",
            "webpki::aki::root-with-aki-missing-keyidentifier",
            "webpki::aki::root-with-aki-authoritycertissuer",
            "webpki::aki::root-with-aki-authoritycertserialnumber",
            "webpki::aki::root-with-aki-all-fields",
            "webpki::aki::root-with-aki-ski-mismatch",
            "webpki::eku::root-has-eku",
            "webpki::forbidden-rsa-not-divisible-by-8-in-root",
        ],
    ),
    (
        "the list is the root's own, and the operator gave both: whether the root's key usage names lists is one of the \
         extensions that are not read (of an intermediate it is); the certificate is not on the list",
        &["crl::issuer-missing-crlsign"],
    ),
    (
        "the number of a list orders lists that are fetched; ours are files, of which the operator gives the newest",
        &["crl::crlnumber-missing", "crl::crlnumber-critical"],
    ),
    (
        "the extension is obeyed although its form is not what RFC 5280 demands of issuers: a constraint that is not \
         marked critical constrains all the same, and a leading dot in one means what every implementation takes it for",
        &["rfc5280::nc::permitted-dns-match-noncritical", "rfc5280::nc::invalid-dnsname-leading-period"],
    ),
    (
        "the constraints say nothing, and nothing is what they do",
        &[
            "webpki::nc::intermediate-permitted-excluded-subtrees-both-null",
            "webpki::nc::intermediate-permitted-excluded-subtrees-both-empty-sequences",
        ],
    ),
    (
        "a leaf can sign nothing, since basic constraints are demanded of every issuer: what it says about what it might \
         sign is idle",
        &[
            "rfc5280::nc::not-allowed-in-ee-noncritical",
            "rfc5280::nc::not-allowed-in-ee-critical",
            "rfc5280::leaf-ku-keycertsign",
        ],
    ),
    (
        "certificate policies are not processed: no policy is asked for, so that constraints on them decide nothing",
        &["rfc5280::pc::ica-noncritical-pc"],
    ),
    (
        "names are compared in the subject alternative names alone: whether that extension is marked critical, and \
         whether an issuer's subject is empty, changes no comparison",
        &[
            "rfc5280::san::noncritical-with-empty-subject",
            "webpki::san::san-critical-with-nonempty-subject",
            "rfc5280::ca-empty-subject",
        ],
    ),
    (
        "names of hosts with an underscore are in use (in container networks), and match only themselves",
        &["rfc5280::san::underscore-dns"],
    ),
    (
        "a serial number serves to find a certificate on a list, byte by byte, whatever its length or value",
        &["rfc5280::serial::too-long", "rfc5280::serial::zero"],
    ),
    (
        "where to ask about a certificate online is not read: nothing is fetched during a handshake",
        &["webpki::malformed-aia"],
    ),
    (
        "a rule of the CA/Browser Forum about the length of keys in bytes; the key is longer than the least that is \
         accepted (2048 bits)",
        &["webpki::forbidden-rsa-key-not-divisible-by-8-in-leaf"],
    ),
    (
        "the common name is not looked at, so that nothing it says can mislead",
        &[
            "webpki::cn::ipv4-hex-mismatch",
            "webpki::cn::ipv4-leading-zeros-mismatch",
            "webpki::cn::ipv6-uppercase-mismatch",
            "webpki::cn::ipv6-uncompressed-mismatch",
            "webpki::cn::ipv6-non-rfc5952-mismatch",
            "webpki::cn::punycode-not-in-san",
            "webpki::cn::utf8-vs-punycode-mismatch",
            "webpki::cn::not-in-san",
            "webpki::cn::case-mismatch",
        ],
    ),
    (
        "private authorities issue without an extended key usage or with further ones: where it is there the right one \
         must be in it; it is demanded of SVIDs alone",
        &["webpki::eku::ee-anyeku", "webpki::eku::ee-critical-eku", "webpki::eku::ee-without-eku"],
    ),
    (
        "the list of public suffixes is the business of browsers and of public authorities",
        &[
            "webpki::san::public-suffix-multi-label-wildcard-san",
            "webpki::san::public-suffix-private-namespace-wildcard-san",
        ],
    ),
    (
        "the longest chain cannot be configured: it is six intermediates, webpki's bound",
        &["pathlen::max-chain-depth-0-exhausted", "pathlen::max-chain-depth-1-exhausted"],
    ),
    (
        "stricter than expected: a certificate of an authority is no peer's (as X509-SVID 4.1 demands, too)",
        &["pathlen::validation-ignores-pathlen-in-leaf", "rfc5280::ca-as-leaf"],
    ),
    (
        "stricter than expected: webpki makes no exception for intermediates that name themselves as their issuer; path \
         lengths and name constraints apply to them as to others",
        &["pathlen::self-issued-certs-pathlen", "rfc5280::nc::permitted-self-issued"],
    ),
    (
        "stricter than expected: names of directories and mailboxes are not compared, so that a chain whose constraints \
         permit some of them permits none",
        &[
            "rfc5280::nc::permitted-dn-match",
            "rfc5280::nc::nc-permits-email-exact",
            "rfc5280::nc::nc-permits-email-domain",
            "rfc5280::nc::nc-permits-email-literal-asterisk-exact-match",
            "rfc5280::nc::nc-permits-email-literal-double-asterisk",
            "rfc5280::nc::nc-permits-email-literal-mid-asterisk",
        ],
    ),
];

/// Cases with a key that no handshake can be made with: our TLS library cannot sign with it, nor can that of a peer which
/// keeps to the same algorithms. All of them are expected to be refused.
pub const UNUSABLE: &[&str] =
    &["webpki::forbidden-p192-leaf", "webpki::forbidden-dsa-leaf", "webpki::forbidden-weak-rsa-in-leaf"];
