use super::*;

fn read(text: &str) -> Result<serde_json::Value, Vec<String>> {
    let mut problems = Problems::of("p.yaml");
    let node = parse(text.as_bytes(), &mut problems);
    if problems.any_error() {
        return Err(problems.into_sorted().iter().map(ToString::to_string).collect());
    }
    Ok(node.unwrap().to_json())
}

fn first_problem(text: &str) -> String {
    read(text).unwrap_err().remove(0)
}

#[test]
fn reads_yaml_and_json_alike() {
    let yaml = "version: 1\nlist: [a, \"*:read\"]\nmap: { k: true, n: ~ }\n";
    let json = "{\"map\": {\"n\": null, \"k\": true}, \"version\": 1, \"list\": [\"a\",\n\t\"*:read\"]}";
    assert_eq!(read(yaml).unwrap(), read(json).unwrap());
    assert_eq!(read("{\"a\": \"\\ud83d\\ude00 \\\\ud83d\"}").unwrap()["a"], "😀 \\ud83d");
    assert_eq!(read("\u{feff}a: b\n").unwrap()["a"], "b");
}

#[test]
fn plain_scalars_follow_the_core_schema() {
    let values =
        read("v: [1, -2.5, 1e3, 0x1f, 7d, 1.2.3.4, yes, no, on, 'true', 0f3c9a1e-1, .5, 2027-01-31]\n");
    let values = values.unwrap();
    assert_eq!(
        values["v"].to_string(),
        r#"[1,-2.5,1000.0,"0x1f","7d","1.2.3.4","yes","no","on","true","0f3c9a1e-1",".5","2027-01-31"]"#
    );
}

#[test]
fn what_two_readers_could_read_differently_is_an_error() {
    let expect = |text: &str, wanted: &str| {
        let found = first_problem(text);
        assert!(found.starts_with(wanted), "{text:?}: {found}");
    };
    expect(
        "a: 1\nb:\n  c: 1\n  c: 2\n",
        "p.yaml:4:3: b.c: duplicate key `c`\n  help: it stands first in line 3",
    );
    expect("{\"a\": 1, \"a\": 2}", "p.yaml:1:10: a: duplicate key `a`");
    expect("a: &x 1\n", "p.yaml:1:7: a: YAML anchors are not supported");
    expect("a: !!str 1\n", "p.yaml:1:10: a: YAML tags are not supported");
    expect("<<: {a: 1}\n", "p.yaml:1:1: <<: YAML merge keys are not supported");
    expect("a: 1\n---\nb: 1\n", "p.yaml:2:1: a second document begins here");
    expect("a: 1\nb: 2", "p.yaml:2:5: the document does not end in a newline: it may be truncated");
    expect("a: [1,\n", "p.yaml:2:1: a[1]: not valid YAML");
    expect("{\"a\": 1", "p.yaml:2:1: not valid YAML");
    expect("", "p.yaml:1:1: the document is empty");
    expect("# nothing\n", "p.yaml:1:1: the document is empty");
    expect("? [a]\n: b\n", "p.yaml:1:3: expected a string as key, found a list");
    expect("a:\n\t- b\n", "p.yaml:2:2: a: not valid YAML");
}

#[test]
fn a_bare_star_says_quote_it() {
    assert_eq!(
        first_problem("scopes: [*:read]\n"),
        "p.yaml:1:10: scopes[0]: `*:read` is read as a YAML alias, which is not supported\n  help: quote it: \"*:read\""
    );
    assert!(first_problem("t: [a, *]\n").ends_with("help: quote it: \"*\""));
    assert!(first_problem("t: *\n").contains("quote it: \"*\""));
    assert!(first_problem("t:\n  - *-prod\n").starts_with("p.yaml:2:5: t[0]: `*-prod`"));
}

#[test]
fn hostile_documents_are_refused_quickly() {
    assert!(first_problem(&"[".repeat(40)).contains("nested deeper"));
    assert!(first_problem(&"[".repeat(100_000)).starts_with("p.yaml:1:"));
    assert!(first_problem("b: 1\nä: \0\n").starts_with("p.yaml:2:4: the document holds a NUL"));
    let mut problems = Problems::of("p.yaml");
    assert!(parse(b"a: b\n\xc3\xa4: \xff\n", &mut problems).is_none());
    assert!(
        problems.into_sorted()[0].to_string().starts_with("p.yaml:2:4: the document is not valid UTF-8\n")
    );
}
