//! Rows for spreadsheets (RFC 4180), whose programs run what they take for a formula.

use super::one_line;

/// What makes a formula of a cell that begins with it; in full width too, which some programs take for the same.
const FORMULA: [char; 8] = ['=', '+', '-', '@', '＝', '＋', '－', '＠'];

/// A table: the headings, and rows of as many cells. Lines end as RFC 4180 says.
pub(super) fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut out = line(&headings.map(str::to_owned));
    rows.into_iter().for_each(|row| out.push_str(&line(&row)));
    out
}

fn line(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|text| cell(text)).collect();
    cells.join(",") + "\r\n"
}

/// Control characters are written as escapes, so that a cell is one line.
fn cell(text: &str) -> String {
    let mut text = one_line(text);
    if text.starts_with(FORMULA) {
        text.insert(0, '\'');
    }
    if text.contains(['"', ',']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_no_formula() {
        for (text, expected) in [
            ("", ""),
            ("team-a", "team-a"),
            ("a, b", "\"a, b\""),
            ("say \"x\"", "\"say \"\"x\"\"\""),
            ("=HYPERLINK(\"http://x\",1)", "\"'=HYPERLINK(\"\"http://x\"\",1)\""),
            ("+1", "'+1"),
            ("-1+2", "'-1+2"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("＝1", "'＝1"),
            ("\t=1", "\\t=1"),
            ("\r=1\n=2", "\\r=1\\n=2"),
            ("a=1", "a=1"),
        ] {
            assert_eq!(cell(text), expected);
        }
        let rows = [["1".to_owned(), "=2".to_owned()]];
        assert_eq!(table(["a", "b"], rows), "a,b\r\n1,'=2\r\n");
    }
}
