//! Every class of error that the document format promises: its place, path, message and help, to the letter.
//!
//! `tests/data/policy_errors.txt` holds documents and what is said about them: the document, `-----`, the problems, `=====`. Behind a
//! first line `!` stands a whole document; any other is completed by [`HEAD`] and so begins with line 7.

use super::*;

#[test]
fn every_error_is_told_with_its_place_and_help() {
    let cases = include_str!("../../../tests/data/policy_errors.txt");
    let mut wrong = String::new();
    for case in cases.split_terminator("=====\n") {
        let (document, expected) = case.split_once("-----\n").unwrap();
        let text = match document.strip_prefix("!\n") {
            Some(whole) => whole.to_owned(),
            None => format!("{HEAD}{document}"),
        };
        let found = outcome(&text).diagnostics;
        let told: String = problems(&text).iter().map(|problem| format!("{problem}\n")).collect();
        if told != expected {
            wrong += &format!("{document}-----\n{told}=====\n");
        }
        assert!(found.iter().any(crate::policy::diagnostic::Diagnostic::is_error), "no error in {document}");
        for problem in found {
            assert!(problem.help.is_some(), "no help for {problem}");
            assert!(!problem.message.ends_with('.'), "{problem}");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
