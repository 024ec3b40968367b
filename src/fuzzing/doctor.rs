//! Configurations of nginx, as doctor reads them.

use crate::doctor::files::Nowhere;
use crate::doctor::nginx::{Body, Directive};
use crate::doctor::{Configuration, Place, examine, read};
use crate::text::is_hidden;

/// Any bytes as a configuration: findings with their places, or why it is none. What was read says the same when it is
/// written again, and as `nginx -T` prints it.
pub(super) fn nginx(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let configuration = match read("nginx.conf", &text, &Nowhere) {
        Ok(configuration) => configuration,
        Err(error) => {
            let shown = error.to_string();
            assert!(error.line >= 1 && !shown.ends_with('.'), "{shown}");
            return false;
        }
    };
    let lines = text.matches('\n').count() + 1;
    for finding in examine(&configuration, &Nowhere) {
        let Place { line, .. } = finding.place;
        assert!(line >= 1 && usize::try_from(line).unwrap() <= lines, "{finding}");
        let shown = finding.to_string();
        assert_eq!(shown.lines().count(), 2, "{shown:?}");
        assert!(!shown.contains(|c: char| is_hidden(c) && c != '\n'), "{shown:?}");
        assert!(!finding.message.ends_with('.') && !finding.help.ends_with('.'), "{shown}");
    }
    let mut again = String::new();
    write(&configuration.directives, &mut again);
    let written = read("nginx.conf", &again, &Nowhere).expect("what was read can be written");
    assert_eq!(plain(&configuration), plain(&written));
    // A text of several lines may hold what `nginx -T` prints before a file: of that its output cannot be read.
    let header = "# configuration file ";
    if !configuration.is_dump && configuration.missing.is_empty() && !again.contains(header) {
        let dump = format!("# configuration file nginx.conf:\n{again}\n");
        let dumped = read("-", &dump, &Nowhere).expect("what nginx prints can be read");
        assert_eq!(plain(&configuration), plain(&dumped));
    }
    !configuration.directives.is_empty()
}

fn write(directives: &[Directive], to: &mut String) {
    for directive in directives {
        for word in std::iter::once(&directive.name).chain(&directive.arguments) {
            to.push('"');
            to.push_str(&word.replace('\\', "\\\\").replace('"', "\\\""));
            to.push_str("\" ");
        }
        match &directive.body {
            Body::None => to.push(';'),
            Body::Block(block) => {
                to.push('{');
                write(block, to);
                to.push('}');
            }
            Body::Lua(code, _) => to.extend(["{", code, "}"]),
        }
    }
}

/// Everything but the places.
fn plain(configuration: &Configuration) -> Vec<String> {
    let mut found = Vec::new();
    fn walk(directives: &[Directive], found: &mut Vec<String>) {
        for Directive { name, arguments, body, .. } in directives {
            found.push(format!("{name:?} {arguments:?}"));
            match body {
                Body::None => {}
                Body::Block(block) => {
                    found.push("{".to_owned());
                    walk(block, found);
                    found.push("}".to_owned());
                }
                Body::Lua(code, _) => found.push(code.clone()),
            }
        }
    }
    walk(&configuration.directives, &mut found);
    found
}
