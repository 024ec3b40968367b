//! Strict JSON: a duplicate member, at any depth, is an error.
//!
//! RFC 8259 leaves to each reader which of two equal members it sees. Here the signer and everybody who reads the
//! same bytes must agree, so such a text has no meaning at all; of a set of things each may stand for itself, and then
//! the one has none ([`Object::parse_marking`]). The rest (UTF-8, numbers, one value, a depth of at most 127) is
//! serde_json's.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// Above this many members duplicates are found by sorting, so that no text makes comparing them slow.
const COMPARE_ALL: usize = 16;

/// A JSON value that borrows from its text where it can.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number; integers above 2^53 lose precision.
    Number(f64),
    /// A string, unescaped.
    String(Cow<'a, str>),
    /// An array.
    List(Vec<Self>),
    /// An object.
    Object(Object<'a>),
    /// An object in which a member is repeated, with all of them: [`Object::parse_marking`] alone makes one.
    Ambiguous(Object<'a>),
}

/// A JSON object without duplicate members, in the order of its text.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

impl<'a> Json<'a> {
    /// The text of a string.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether a member is repeated in it, at any depth.
    pub(super) fn is_ambiguous(&self) -> bool {
        match self {
            Self::Ambiguous(_) => true,
            Self::List(values) => values.iter().any(Self::is_ambiguous),
            Self::Object(object) => object.iter().any(|(_, value)| value.is_ambiguous()),
            Self::Null | Self::Bool(_) | Self::Number(_) | Self::String(_) => false,
        }
    }

    /// The object, if it is one.
    pub(super) const fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }
}

impl<'a> Object<'a> {
    /// Reads a text that is one object and nothing else.
    ///
    /// # Errors
    /// serde_json's, with line and column; it quotes no value of the text.
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, serde_json::Error> {
        Self::read(text, JsonReader { marks: false, depth: 0 })
    }

    /// Reads a text that is one object and nothing else; within it an object in which a member is repeated is
    /// [`Json::Ambiguous`], and no error.
    ///
    /// # Errors
    /// serde_json's, with line and column; it quotes no value of the text.
    pub(super) fn parse_marking(text: &'a [u8]) -> Result<Self, serde_json::Error> {
        Self::read(text, JsonReader { marks: true, depth: 0 })
    }

    fn read(text: &'a [u8], reader: JsonReader) -> Result<Self, serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(text);
        let value = reader.deserialize(&mut deserializer)?;
        deserializer.end()?;
        match value {
            Json::Object(object) => Ok(object),
            _ => Err(serde_json::Error::custom("expected an object")),
        }
    }

    /// The member of exactly this name.
    pub(super) fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.0.iter().find(|(member, _)| member == name).map(|(_, value)| value)
    }

    /// The members, in the order of the text.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Json<'a>)> {
        self.0.iter().map(|(name, value)| (&**name, value))
    }

    fn duplicate(&self) -> bool {
        let mut names: Vec<&str> = self.0.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        names.windows(2).any(|pair| matches!(pair, [one, other] if one == other))
    }
}

// === reading ===

/// Reads one value.
#[derive(Clone, Copy)]
struct JsonReader {
    /// Below the outermost value an object with a repeated member is marked.
    marks: bool,
    /// How deep the value lies; serde_json bounds it.
    depth: u8,
}

impl JsonReader {
    const fn may_mark(self) -> bool {
        self.marks && self.depth > 0
    }

    const fn inside(self) -> Self {
        Self { depth: self.depth.saturating_add(1), ..self }
    }
}

impl<'de> DeserializeSeed<'de> for JsonReader {
    type Value = Json<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for JsonReader {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "whatever is compared lies below 2^53")]
    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Json::Number(value as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "whatever is compared lies below 2^53")]
    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Json::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Json::Number(value))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Json::String(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Json::String(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = values.next_element_seed(self.inside())? {
            list.push(value);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut object = Object::default();
        let mut repeated = false;
        while let Some(name) = members.next_key_seed(Name)? {
            repeated |= object.0.len() < COMPARE_ALL && object.get(&name).is_some();
            if repeated && !self.may_mark() {
                return Err(A::Error::custom("duplicate member"));
            }
            object.0.push((name, members.next_value_seed(self.inside())?));
        }
        if repeated || (object.0.len() > COMPARE_ALL && object.duplicate()) {
            return if self.may_mark() {
                Ok(Json::Ambiguous(object))
            } else {
                Err(A::Error::custom("duplicate member"))
            };
        }
        Ok(Json::Object(object))
    }
}

/// A member's name: borrowed unless it holds an escape.
struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Name {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reads(text: &str) -> bool {
        Object::parse(text.as_bytes()).is_ok()
    }

    #[test]
    fn reads_every_kind_of_value() {
        let text = br#"{"a":[null,true,-1,1.5,"x","\u00e9\n"],"\u0062":{"c":{}}}"#;
        let object = Object::parse(text).unwrap();
        assert_eq!(
            object.get("a"),
            Some(&Json::List(vec![
                Json::Null,
                Json::Bool(true),
                Json::Number(-1.0),
                Json::Number(1.5),
                Json::String("x".into()),
                Json::String("é\n".into()),
            ]))
        );
        assert!(object.get("b").and_then(Json::as_object).and_then(|b| b.get("c")).is_some());
        assert!(object.get("c").is_none());
    }

    #[test]
    fn duplicates_are_errors_at_any_depth_and_however_written() {
        for text in [
            r#"{"a":1,"a":1}"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"a":{"b":1,"b":2}}"#,
            r#"{"a":[0,[{"b":1,"c":2,"b":2}]]}"#,
            r#"{"":1,"":1}"#,
        ] {
            assert!(!reads(text), "{text}");
        }
        assert!(reads(r#"{"a":{"a":{"a":1}},"A":1}"#));
    }

    #[test]
    fn an_object_with_duplicates_is_marked_where_it_stands() {
        fn of(text: &str) -> Result<Object<'_>, serde_json::Error> {
            Object::parse_marking(text.as_bytes())
        }
        for text in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":2}"#, "[]", "{", "{} {}"] {
            assert!(of(text).is_err(), "{text}");
        }
        let many: Vec<String> = (0..40).map(|number| format!("\"m{}\":0", number % 39)).collect();
        let text = format!(
            r#"{{"good":[{{"a":1}}],"bad":[{{"b":1,"b":2}},{{"b":1}}],"deep":{{"a":[{{"c":[{{"d":1,"d":1}}]}}]}},"many":{{{}}}}}"#,
            many.join(",")
        );
        let object = of(&text).unwrap();
        let ambiguous = |name: &str| object.get(name).unwrap().is_ambiguous();
        assert_eq!(["good", "bad", "deep", "many"].map(ambiguous), [false, true, true, true]);
        let Some(Json::List(bad)) = object.get("bad") else { panic!() };
        assert!(matches!(&bad[0], Json::Ambiguous(_)) && !bad[1].is_ambiguous());
        assert!(!reads(&text), "elsewhere it is an error");
    }

    #[test]
    fn duplicates_are_found_among_many_members() {
        for count in [15, 16, 17, 18, 40, 1000] {
            let members: Vec<String> = (0..count).map(|n| format!("\"m{n}\":{n}")).collect();
            assert!(reads(&format!("{{{}}}", members.join(","))), "{count}");
            for again in [0, count / 2, count - 1] {
                let text = format!("{{{},\"m{again}\":0}}", members.join(","));
                assert!(!reads(&text), "{count} and m{again} again");
            }
        }
    }

    #[test]
    fn only_one_object_in_utf_8_is_read() {
        for text in [
            "",
            "null",
            "[]",
            "\"a\"",
            "{} {}",
            "{}x",
            "{\"a\":1,}",
            "{'a':1}",
            "{\"a\":01}",
            "{\"a\":+1}",
            "{\"a\":NaN}",
            "{\"a\":1e999}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\n\"}",
            "{\"a\":\"\0\"}",
            "\u{feff}{}",
            "{}\0",
            "{/**/}",
        ] {
            assert!(!reads(text), "{text:?}");
        }
        assert!(Object::parse(b"{\"a\":\"\xff\"}").is_err());
        assert!(reads(" {} \n"));
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(reads(&nested(100)));
        assert!(!reads(&nested(200)));
        assert!(!reads(&format!("{{\"a\":{}", "[".repeat(30_000))));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Object::parse(&text);
        }

        #[test]
        fn agrees_with_serde_json_on_what_is_json(text in r#"\{("[ab]":([0-9]{1,3}|"x"|\[\]|\{\}|null),?){0,4}\}"#) {
            let lax: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(&text);
            match Object::parse(text.as_bytes()) {
                Ok(object) => prop_assert_eq!(lax.unwrap().len(), object.iter().count()),
                // What is refused beyond serde_json has a name twice.
                Err(_) => prop_assert!(lax.is_err() || lax.unwrap().len() < text.matches("\":").count()),
            }
        }
    }
}
