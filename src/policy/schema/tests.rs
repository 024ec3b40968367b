//! The schema against every document of these tests: what is accepted is valid, and what is refused for a single value
//! is not.

use super::*;
use crate::policy::diagnostic::{Problems, Severity};
use crate::policy::node;
use crate::policy::tests::{HEAD, accepted, outcome};

fn document(text: &str) -> Option<Value> {
    let mut problems = Problems::of("p.yaml");
    let root = node::parse(text.as_bytes(), &mut problems)?;
    // The tree is all that a schema can see.
    (!problems.any_error()).then(|| root.to_json())
}

fn validator() -> jsonschema::Validator {
    jsonschema::draft7::new(&policy()).unwrap()
}

#[test]
fn every_key_that_is_read_is_described() {
    fn complete(schema: &Value, path: &str) {
        match schema {
            Value::Object(fields) => {
                for (key, value) in fields {
                    assert!(!value.is_null(), "{path}.{key}");
                    complete(value, &format!("{path}.{key}"));
                }
                for (key, value) in fields.get("properties").and_then(Value::as_object).into_iter().flatten()
                {
                    let is_own = fields.contains_key("additionalProperties");
                    assert!(!is_own || value.get("description").is_some(), "{path}.{key}");
                }
            }
            Value::Array(items) => items.iter().for_each(|item| complete(item, path)),
            _ => {}
        }
    }
    complete(&policy(), "");
    complete(&owner(), "");
}

#[test]
fn accepted_documents_are_valid() {
    let validator = validator();
    let mut texts = accepted::documents();
    let examples =
        ["nginx/examples/policy.yaml", "nginx/examples/minimal-policy.yaml", "tests/data/cli/policy.yaml"];
    for path in examples {
        texts.push(std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap());
    }
    assert!(texts.len() > 30);
    for text in texts {
        let json = document(&text).unwrap_or_else(|| panic!("{text}"));
        let told: Vec<_> =
            validator.iter_errors(&json).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert_eq!(told, [""; 0], "{text}");
    }
}

/// Errors about one value, which the schema must find as well; the others need two values, or are about the text.
fn is_about_one_value(message: &str) -> bool {
    let starts = [
        "unknown key",
        "unknown value",
        "unknown scope",
        "unknown source",
        "unknown or refused",
        "unknown version",
        "missing key",
        "expected a",
    ];
    let ends = [
        "is no tenant that the backends accept",
        "is no decision and no reason",
        "is no method and path",
        "exclude each other",
        "cannot name a group",
    ];
    let about_files = message.contains("the issuer has no host");
    !about_files
        && (starts.iter().any(|start| message.starts_with(start))
            || ends.iter().any(|end| message.ends_with(end))
            || message == "the list is empty"
            || message.contains("is not supported by this version"))
}

#[test]
fn documents_refused_for_one_value_are_not() {
    let validator = validator();
    let (mut refused, mut single) = (0, 0);
    for case in include_str!("../../../tests/data/policy_errors.txt").split_terminator("=====\n") {
        let (tail, _) = case.split_once("-----\n").unwrap();
        let text = match tail.strip_prefix("!\n") {
            Some(whole) => whole.to_owned(),
            None => format!("{HEAD}{tail}"),
        };
        let Some(json) = document(&text) else { continue };
        let problems = outcome(&text).diagnostics;
        let one = problems
            .iter()
            .find(|problem| problem.severity == Severity::Error && is_about_one_value(&problem.message));
        if let Some(problem) = one {
            refused += 1;
            assert!(!validator.is_valid(&json), "valid, though {problem}\n{text}");
        }
    }
    assert!(refused > 40, "{refused}");
    // Every single key that no table has, and every value of another type, in the place of a good one.
    let whole = document(&accepted::documents()[0]).unwrap();
    assert!(validator.is_valid(&whole));
    for pointer in paths(&whole, "") {
        let mut broken = whole.clone();
        let Some(value) = broken.pointer_mut(&pointer) else { continue };
        let written_out = pointer.contains("/claims");
        if let Value::Object(fields) = value {
            let own_keys = ["/group_names", "/networks", "/authorizations"].contains(&&*pointer);
            if own_keys || written_out {
                continue;
            }
            fields.insert("colour".to_owned(), json!("red"));
        } else {
            *value = json!({"not": 5});
        }
        single += 1;
        assert!(!validator.is_valid(&broken), "{pointer}");
    }
    assert!(single > 60, "{single}");
}

fn paths(value: &Value, path: &str) -> Vec<String> {
    let mut found = vec![path.to_owned()];
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            found.extend(paths(value, &format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))));
        }),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(number, value)| found.extend(paths(value, &format!("{path}/{number}")))),
        _ => {}
    }
    found
}

#[test]
fn the_shipped_schema_is_this_one() {
    let shipped = include_str!("../../../nginx/policy.schema.json");
    let shipped: Value = serde_json::from_str(shipped).unwrap();
    assert_eq!(shipped, policy(), "run: tenantauth schema > nginx/policy.schema.json");
}

#[test]
fn owners_documents_are_valid_as_far_as_they_are_good() {
    let validator = jsonschema::draft7::new(&owner()).unwrap();
    let page = include_str!("../../../docs/owners.md");
    let (mut good, mut refused) = (0, 0);
    for block in page.split("```yaml\n").skip(1).map(|rest| rest.split("```\n").next().unwrap()) {
        let Some(json) = document(block) else { panic!("{block}") };
        // The platform's document, and what an owner may not say, hold keys that no owner's document has.
        let fits = !["issuers:", "group_names:"].iter().any(|key| block.contains(key));
        assert_eq!(validator.is_valid(&json), fits, "{block}");
        if fits { good += 1 } else { refused += 1 }
    }
    assert!(good >= 4 && refused >= 2, "{good} {refused}");
    for (broken, is_good) in [
        ("{}\n", true),
        ("version: 1\n", true),
        ("version: 2\n", false),
        ("grants: [{ groups: [a] }]\n", false),
        ("restrictions: [{ networks: [office], colour: red }]\n", false),
        ("tests: [{ name: x }]\n", false),
    ] {
        assert_eq!(validator.is_valid(&document(broken).unwrap()), is_good, "{broken}");
    }
    let shipped: Value = serde_json::from_str(include_str!("../../../nginx/owner.schema.json")).unwrap();
    assert_eq!(shipped, owner(), "run: tenantauth schema --owner > nginx/owner.schema.json");
}
