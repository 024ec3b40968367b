//! What a token says, read under the rules of the issuer that signed it.

use super::algorithm::AlgorithmSet;
use super::json::{Json, Object};
use crate::reason::Reason;
use crate::text::is_guid;
use hashbrown::HashSet;
use std::borrow::Cow;
use std::fmt;

/// The latest time that counts: 9999-12-31T23:59:59Z, in Unix seconds.
pub(super) const MAX_TIME: f64 = 253_402_300_799.0;
/// The longest leeway that a policy may give an issuer, in seconds.
pub const MAX_LEEWAY: u64 = 300;
/// The most groups of a token.
pub const MAX_GROUPS: usize = 2000;
/// The longest name of a group, in bytes.
pub const MAX_GROUP_LEN: usize = 1024;

/// Where in a token something is: a claim's name, or, where it begins with `/`, a JSON Pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ClaimPath {
    /// A claim of exactly this name; dots and slashes within it mean nothing.
    Name(Box<str>),
    /// The unescaped segments of a JSON Pointer, at least one.
    Pointer(Box<[Box<str>]>),
}

/// Why a text is no claim path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidClaimPath {
    /// Nothing, or a pointer with an empty segment.
    Empty,
    /// A `~` in a pointer that is neither `~0` nor `~1`.
    Escape,
}

impl fmt::Display for InvalidClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "is empty or has an empty segment",
            Self::Escape => "holds a `~` that is neither `~0` nor `~1`",
        })
    }
}

impl std::error::Error for InvalidClaimPath {}

impl ClaimPath {
    /// Parses `groups`, `https://example.org/roles` or `/realm_access/roles`.
    ///
    /// # Errors
    /// [`InvalidClaimPath`], which says what is wrong.
    pub fn parse(text: &str) -> Result<Self, InvalidClaimPath> {
        let Some(pointer) = text.strip_prefix('/') else {
            return if text.is_empty() { Err(InvalidClaimPath::Empty) } else { Ok(Self::Name(text.into())) };
        };
        pointer.split('/').map(segment).collect::<Result<_, _>>().map(Self::Pointer)
    }

    /// The claim that it lies in.
    fn claim(&self) -> &str {
        match self {
            Self::Name(name) => name,
            Self::Pointer(segments) => segments.first().map_or("", |first| first),
        }
    }

    pub(super) fn find<'a, 'b>(&self, claims: &'b Object<'a>) -> Option<&'b Json<'a>> {
        let inside = match self {
            Self::Name(_) => &[],
            Self::Pointer(segments) => segments.get(1..)?,
        };
        inside.iter().try_fold(claims.get(self.claim())?, |value, segment| match value {
            Json::Object(object) => object.get(segment),
            // RFC 6901 section 4: an index is written without leading zeros.
            Json::List(list) if segment.len() == 1 || !segment.starts_with(['0', '+']) => {
                list.get(segment.parse::<usize>().ok()?)
            }
            _ => None,
        })
    }
}

/// As a policy writes it.
impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Pointer(segments) => segments
                .iter()
                .try_for_each(|segment| write!(f, "/{}", segment.replace('~', "~0").replace('/', "~1"))),
        }
    }
}

fn segment(text: &str) -> Result<Box<str>, InvalidClaimPath> {
    if text.is_empty() {
        return Err(InvalidClaimPath::Empty);
    }
    // Behind every `~` must stand a 0 or a 1; `~01` is `~1`, so `~0` is replaced last.
    if text.split('~').skip(1).any(|behind| !behind.starts_with(['0', '1'])) {
        return Err(InvalidClaimPath::Escape);
    }
    Ok(text.replace("~1", "/").replace("~0", "~").into())
}

/// How a claim holds groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GroupsFormat {
    /// An array of strings; or one string that is one group, since some issuers write a list only for several.
    #[default]
    List,
    /// One string, groups separated by blanks, as in `scope`.
    Space,
    /// One string, groups separated by commas; blanks around a group are not its own.
    Comma,
    /// The names of an object's members, as in Zitadel's roles. What is `false` or `null` is not held.
    Keys,
    /// One string that is one group.
    String,
}

impl GroupsFormat {
    /// Every format.
    pub const ALL: [Self; 5] = [Self::List, Self::Space, Self::Comma, Self::Keys, Self::String];

    /// The format as a policy writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Space => "space",
            Self::Comma => "comma",
            Self::Keys => "keys",
            Self::String => "string",
        }
    }

    /// The format of exactly this name in a policy.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// Whether a claim has this shape and every group in it a name.
    pub(super) fn fits(self, claim: &Json<'_>) -> bool {
        let mut names = Vec::new();
        self.read(claim, &mut names).is_some() && names.iter().all(|name| !name.is_empty())
    }

    /// Appends the groups that a claim holds, each as it is written; `None` where it has another shape. A name is not
    /// looked at, so one may be empty.
    fn read<'b>(self, claim: &'b Json<'_>, names: &mut Vec<&'b str>) -> Option<()> {
        match (self, claim) {
            // Never split: what separates names elsewhere may be part of one here.
            (Self::List | Self::String, Json::String(name)) => names.push(name),
            (Self::List, Json::List(list)) => {
                for value in list {
                    names.push(value.as_str()?);
                }
            }
            (Self::Space, Json::String(line)) => names.extend(line.split_ascii_whitespace()),
            (Self::Comma, Json::String(line)) => {
                names.extend(line.split(',').map(str::trim_ascii).filter(|name| !name.is_empty()));
            }
            (Self::Keys, Json::Object(object)) => {
                for (name, value) in object.iter() {
                    match value {
                        Json::Object(_) | Json::List(_) | Json::Bool(true) => names.push(name),
                        Json::Bool(false) | Json::Null => {}
                        // 0 and "" might mean either.
                        _ => return None,
                    }
                }
            }
            _ => return None,
        }
        Some(())
    }
}

/// What a policy says of one issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerRules {
    /// Compared exactly with `iss`.
    pub issuer: Box<str>,
    /// At least one of them must be in `aud`.
    pub audiences: Vec<Box<str>>,
    /// The algorithms its tokens may be signed with.
    pub algorithms: AlgorithmSet,
    /// Where its groups are: in any of these, and in all of them that are there.
    pub groups_claim: Box<[ClaimPath]>,
    /// How they are written in each.
    pub groups_format: GroupsFormat,
    /// The claim that audit records show as the user; proves nothing.
    pub user_claim: Box<str>,
    /// How far its clock may be off, in seconds; at most [`MAX_LEEWAY`].
    pub leeway: u64,
}

/// Whom a token speaks for, and until when.
///
/// The texts of `subject`, `object_id`, `user` and `token_id` are not empty and hold no control characters, so they
/// can be written into headers and records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `sub`.
    pub subject: Option<Box<str>>,
    /// `oid`, the stable id of Entra's principals.
    pub object_id: Option<Box<str>>,
    /// What the issuer's `user_claim` says, where that is a string: for people to read, never to decide by.
    pub user: Option<Box<str>>,
    /// `uti` or `jti`.
    pub token_id: Option<Box<str>>,
    /// From this time on (Unix seconds, without leeway) the token has expired; [`u64::MAX`] for a sample without
    /// `exp`.
    pub expires: u64,
    /// Before this time (Unix seconds, without leeway) the token is not valid: the later of `nbf` and `iat`.
    pub not_before: Option<u64>,
    /// The groups as the token writes them, not empty, in its order.
    pub groups: Vec<Box<str>>,
}

impl Identity {
    /// Compares the clock (Unix seconds) with the token's times, `leeway` seconds to its benefit.
    ///
    /// # Errors
    /// [`Reason::TokenExpired`] from `exp` on, [`Reason::TokenNotYetValid`] before `nbf` and `iat`.
    pub fn check_times(&self, leeway: u64, now: u64) -> Result<(), Reason> {
        if now >= self.expires.saturating_add(leeway) {
            return Err(Reason::TokenExpired);
        }
        if self.not_before.is_some_and(|from| from > now.saturating_add(leeway)) {
            return Err(Reason::TokenNotYetValid);
        }
        Ok(())
    }
}

/// Claims that were read but are not proven: good for choosing an issuer and for trying out a policy.
#[derive(Debug)]
pub struct Claims<'a>(pub(super) Object<'a>);

impl<'a> Claims<'a> {
    /// Reads claims: one JSON object, without duplicate members at any depth.
    ///
    /// # Errors
    /// [`Reason::TokenMalformed`].
    pub fn parse(json: &'a [u8]) -> Result<Self, Reason> {
        Object::parse(json).map(Self).map_err(|_| Reason::TokenMalformed)
    }

    /// `iss`, where it is present.
    ///
    /// # Errors
    /// [`Reason::TokenMalformed`] where it is not a string.
    pub fn issuer(&self) -> Result<Option<&str>, Reason> {
        text(&self.0, "iss")
    }

    /// Whom they are about, for records alone: what can be shown, whatever else is wrong. Without groups and times.
    #[cold]
    pub(super) fn shown(&self, rules: &IssuerRules) -> Identity {
        let claims = &self.0;
        Identity {
            subject: label(claims, "sub"),
            object_id: label(claims, "oid"),
            user: label(claims, &rules.user_claim),
            token_id: label(claims, "uti").or_else(|| label(claims, "jti")),
            expires: 0,
            not_before: None,
            groups: Vec::new(),
        }
    }
}

/// Whether claims came in a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// They did: everything that is required of a token is required.
    Token,
    /// They were written for `explain` or a policy's test: `exp`, `aud`, `sub` and `oid` may be left out. What is
    /// there is read as in a token.
    Sample,
}

/// Reads claims under an issuer's rules, at `now` (Unix seconds). `iss` is not compared: it has chosen the rules. But
/// where it names a tenant of Entra ID and the token has a `tid`, the two must be the same.
///
/// # Errors
/// In this order [`Reason::TokenMalformed`], [`Reason::TokenIssuer`], [`Reason::TokenExpired`], [`Reason::TokenNotYetValid`],
/// [`Reason::TokenAudience`], and [`Reason::GroupsOverage`], [`Reason::GroupsMissing`] or
/// [`Reason::GroupsMalformed`].
pub fn read_claims(
    claims: &Claims<'_>,
    rules: &IssuerRules,
    origin: Origin,
    now: u64,
) -> Result<Identity, Reason> {
    let claims = &claims.0;
    let subject = identifier(claims, "sub")?;
    let object_id = identifier(claims, "oid")?;
    let expires = time(claims, "exp", f64::floor)?;
    let not_before = time(claims, "nbf", f64::ceil)?.max(time(claims, "iat", f64::ceil)?);
    let audiences = audiences(claims)?;
    if origin == Origin::Token && (expires.is_none() || subject.or(object_id).is_none()) {
        return Err(Reason::TokenMalformed);
    }
    if !is_of_tenant(claims, &rules.issuer) {
        return Err(Reason::TokenIssuer);
    }
    let mut identity = Identity {
        subject: subject.map(Box::from),
        object_id: object_id.map(Box::from),
        user: label(claims, &rules.user_claim),
        token_id: label(claims, "uti").or_else(|| label(claims, "jti")),
        expires: expires.unwrap_or(u64::MAX),
        not_before,
        groups: Vec::new(),
    };
    identity.check_times(rules.leeway, now)?;
    let ours = |audience: &str| rules.audiences.iter().any(|own| **own == *audience);
    let addressed = match audiences {
        None => origin == Origin::Sample,
        Some(Audiences::One(audience)) => ours(audience),
        Some(Audiences::Many(list)) => list.iter().filter_map(Json::as_str).any(ours),
    };
    if !addressed {
        return Err(Reason::TokenAudience);
    }
    identity.groups = groups(claims, rules)?;
    Ok(identity)
}

/// Whether `tid`, where there is one, is the tenant in the issuer's URL, where that names one (Entra ID's claims
/// validation: the issuer contains exactly the token's tenant).
pub(super) fn is_of_tenant(claims: &Object<'_>, issuer: &str) -> bool {
    match (claims.get("tid"), issuer.split('/').skip(3).find(|segment| is_guid(segment))) {
        (Some(claimed), Some(tenant)) => {
            claimed.as_str().is_some_and(|claimed| claimed.eq_ignore_ascii_case(tenant))
        }
        _ => true,
    }
}

fn text<'b>(claims: &'b Object<'_>, name: &str) -> Result<Option<&'b str>, Reason> {
    claims.get(name).map(|value| value.as_str().ok_or(Reason::TokenMalformed)).transpose()
}

/// A claim that principals are told apart by.
fn identifier<'b>(claims: &'b Object<'_>, name: &str) -> Result<Option<&'b str>, Reason> {
    match text(claims, name)? {
        Some(id) if !is_clean(id) => Err(Reason::TokenMalformed),
        id => Ok(id),
    }
}

/// A claim that is only shown: dropped where it cannot be.
fn label(claims: &Object<'_>, name: &str) -> Option<Box<str>> {
    claims.get(name)?.as_str().filter(|text| is_clean(text)).map(Box::from)
}

/// Whether the text can stand in a header: a line break in a name that a user chose would end it.
pub(super) fn is_clean(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(char::is_control)
}

/// A NumericDate (RFC 7519 section 2), whose fractions are rounded to the token's disadvantage.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range has been checked")]
fn time(claims: &Object<'_>, name: &str, round: fn(f64) -> f64) -> Result<Option<u64>, Reason> {
    match claims.get(name) {
        None => Ok(None),
        Some(Json::Number(seconds)) if (0.0..=MAX_TIME).contains(seconds) => Ok(Some(round(*seconds) as u64)),
        Some(_) => Err(Reason::TokenMalformed),
    }
}

enum Audiences<'b> {
    One(&'b str),
    Many(&'b [Json<'b>]),
}

fn audiences<'b>(claims: &'b Object<'b>) -> Result<Option<Audiences<'b>>, Reason> {
    match claims.get("aud") {
        None => Ok(None),
        Some(Json::String(audience)) => Ok(Some(Audiences::One(audience))),
        Some(Json::List(list)) if list.iter().all(|value| value.as_str().is_some()) => {
            Ok(Some(Audiences::Many(list)))
        }
        Some(_) => Err(Reason::TokenMalformed),
    }
}

/// The groups of all claims that hold any, each once where several places can name it.
pub(super) fn groups(claims: &Object<'_>, rules: &IssuerRules) -> Result<Vec<Box<str>>, Reason> {
    // A claim that is `null` is absent.
    let found = |path: &ClaimPath| path.find(claims).filter(|claim| **claim != Json::Null);
    // Entra leaves out a list that is too long and says where it could be had; in its documentation the claim is then
    // a string that names that source, and no group. Without that list the other claims do not hold all groups.
    let is_elsewhere =
        |path: &ClaimPath| !matches!(found(path), Some(Json::List(_))) && is_elsewhere(claims, path.claim());
    if rules.groups_claim.iter().any(is_elsewhere) {
        return Err(Reason::GroupsOverage);
    }
    let (mut names, mut any) = (Vec::new(), false);
    for claim in rules.groups_claim.iter().filter_map(found) {
        any = true;
        rules.groups_format.read(claim, &mut names).ok_or(Reason::GroupsMalformed)?;
        if names.len() > MAX_GROUPS {
            return Err(Reason::GroupsMalformed);
        }
    }
    if !any {
        return Err(Reason::GroupsMissing);
    }
    let usable = |name: &&str| !name.is_empty() && name.len() <= MAX_GROUP_LEN;
    if !names.iter().all(usable) {
        return Err(Reason::GroupsMalformed);
    }
    if rules.groups_claim.len() > 1 || rules.groups_format != GroupsFormat::List {
        let mut seen = HashSet::with_capacity(names.len());
        names.retain(|name| seen.insert(*name));
    }
    Ok(names.into_iter().map(Box::from).collect())
}

/// Whether the token says that its groups are to be had elsewhere: a distributed claim (OpenID Connect Core section
/// 5.6.2), or Entra's `hasgroups`.
fn is_elsewhere(claims: &Object<'_>, claim: &str) -> bool {
    let distributed = claims.get("_claim_names").and_then(Json::as_object);
    let hinted = match claims.get("hasgroups") {
        Some(Json::Bool(hint)) => *hint,
        Some(Json::String(hint)) => *hint == Cow::Borrowed("true"),
        _ => false,
    };
    hinted || distributed.is_some_and(|names| names.get(claim).is_some())
}

#[cfg(test)]
mod tests;
