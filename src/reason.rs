//! Why a request was decided as it was: the closed, stable list of reasons, with what each tells the client.

use std::fmt;

macro_rules! reasons {
    ($($variant:ident $name:literal $sentence:literal;)*) => {
        /// The one reason of a decision. Stable names: dashboards, alerts and policy tests refer to them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[expect(missing_docs, reason = "each variant has its sentence in the table below")]
        pub enum Reason { $($variant),* }

        impl Reason {
            /// Every reason, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The reason as headers, records, metrics and policy tests write it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// A plain sentence for the person whose request was denied. Holds nothing of token, key or policy.
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$variant => $sentence),* }
            }
        }
    };
}

// The three sentences of auth.lua that users and their scripts know are kept to the letter.
reasons! {
    Granted "granted" "allowed";
    TokenMissing "token_missing" "403 Forbidden: cannot find JWT token";
    TokenDuplicate "token_duplicate" "403 Forbidden: more than one token was sent";
    TokenMalformed "token_malformed" "403 Forbidden: the token is malformed";
    TokenUnsupported "token_unsupported" "403 Forbidden: the token is of a kind that is not accepted";
    TokenKeyUnknown "token_key_unknown" "403 Forbidden: the token was signed with an unknown key";
    TokenSignature "token_signature" "403 Forbidden: the signature of the token is wrong";
    TokenExpired "token_expired" "403 Forbidden: the token has expired, sign in again";
    TokenNotYetValid "token_not_yet_valid" "403 Forbidden: the token is not valid yet";
    TokenIssuer "token_issuer" "403 Forbidden: the token comes from an unknown issuer";
    TokenAudience "token_audience" "403 Forbidden: the token was issued for another application";
    TokenRevoked "token_revoked" "403 Forbidden: the token has been revoked";
    TokenUnknown "token_unknown" "403 Forbidden: the service token is unknown";
    ServiceAttended "service_attended" "403 Forbidden: a service token may not be used on behalf of a person";
    GroupsMissing "groups_missing" "403 Forbidden: the token carries no groups";
    GroupsOverage "groups_overage" "403 Forbidden: the token lists too many groups to carry them";
    GroupsMalformed "groups_malformed" "403 Forbidden: the groups in the token are malformed";
    TenantMissing "tenant_missing" "403 Forbidden: no tenant was named in X-Scope-OrgID";
    TenantDuplicate "tenant_duplicate" "403 Forbidden: X-Scope-OrgID was sent more than once";
    TenantMalformed "tenant_malformed" "403 Forbidden: X-Scope-OrgID names no valid tenant for this request";
    TenantForbidden "tenant_forbidden" "403 Forbidden: not allowed to access this tenant";
    ScopeForbidden "scope_forbidden" "403 Forbidden: not allowed to do this on this tenant";
    RouteUnknown "route_unknown" "403 Forbidden: this path is not served through the gateway";
    PathAmbiguous "path_ambiguous" "403 Forbidden: the path can be read in more than one way";
    HeadersTruncated "headers_truncated" "403 Forbidden: too many request headers";
    IpMissing "ip_missing" "403 Forbidden: the client address is not known";
    IpDuplicate "ip_duplicate" "403 Forbidden: more than one client address was sent";
    IpMalformed "ip_malformed" "403 Forbidden: the client address is malformed";
    IpSignature "ip_signature" "403 Forbidden: the signature of the client address is wrong";
    IpExpired "ip_expired" "403 Forbidden: the client address is out of date, reload the page";
    IpForbidden "ip_forbidden" "403 Forbidden: ip not allowed";
    PolicyUnavailable "policy_unavailable" "503 Service Unavailable: no usable policy is loaded";
    KeysUnavailable "keys_unavailable" "503 Service Unavailable: the keys of the token issuer are not available";
    InternalError "internal_error" "503 Service Unavailable: the request could not be decided";
}

impl Reason {
    /// The reason of exactly this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|reason| reason.name() == name)
    }

    /// Whether a denial for this reason may be about one of the tenants: its token was verified.
    pub const fn is_about_tenants(self) -> bool {
        matches!(
            self,
            Self::TenantForbidden
                | Self::ScopeForbidden
                | Self::IpMissing
                | Self::IpDuplicate
                | Self::IpMalformed
                | Self::IpSignature
                | Self::IpExpired
                | Self::IpForbidden
        )
    }

    /// The HTTP status of a denial for this reason: 503 where it is the gateway's fault, since agents drop data on 403
    /// and retry on 503.
    pub const fn status(self) -> u16 {
        match self {
            Self::PolicyUnavailable | Self::KeysUnavailable | Self::InternalError => 503,
            _ => 403,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_statuses_match_their_sentences() {
        for (number, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, number);
            assert_eq!(Reason::from_name(reason.name()), Some(*reason));
            if *reason != Reason::Granted {
                assert!(reason.sentence().starts_with(&reason.status().to_string()), "{reason}");
            }
        }
    }

    #[test]
    fn the_sentences_of_auth_lua_are_kept() {
        assert_eq!(Reason::TokenMissing.sentence(), "403 Forbidden: cannot find JWT token");
        assert_eq!(Reason::TenantForbidden.sentence(), "403 Forbidden: not allowed to access this tenant");
        assert_eq!(Reason::IpForbidden.sentence(), "403 Forbidden: ip not allowed");
    }
}
