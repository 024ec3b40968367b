//! The README in two languages.

use super::{blocks, repository};
use std::fs;

/// The Japanese README says the same: its blocks and its links are those of the English one, in their order.
#[test]
fn the_readmes_are_one() {
    let of = |page: &str| -> Vec<(String, String)> {
        let page = format!("{}:", repository(page).display());
        let own = blocks().into_iter().filter(|block| block.place.starts_with(&page));
        own.map(|block| (block.language, block.text)).collect()
    };
    let english = of("README.md");
    assert!(english.len() >= 6);
    assert_eq!(of("README.ja.md"), english);
    let shape = |page: &str| -> (Vec<usize>, Vec<String>) {
        let text = fs::read_to_string(repository(page)).unwrap();
        let mut open = false;
        let (mut headings, mut links) = (Vec::new(), Vec::new());
        for line in text.lines() {
            open ^= line.starts_with("```");
            if !open && line.starts_with('#') {
                headings.push(line.bytes().take_while(|byte| *byte == b'#').count());
            }
        }
        for rest in text.split("](").skip(1) {
            links.push(rest.split(')').next().unwrap().to_owned());
        }
        links.retain(|link| !link.starts_with("README"));
        links.sort();
        (headings, links)
    };
    assert_eq!(shape("README.ja.md"), shape("README.md"));
    for (page, other) in [("README.md", "README.ja.md"), ("README.ja.md", "README.md")] {
        let text = fs::read_to_string(repository(page)).unwrap();
        assert!(text.contains(&format!("]({other})")), "{page}");
    }
}
