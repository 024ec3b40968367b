use super::model::{NAME, as_go_reads, others};
use super::*;
use proptest::prelude::*;

fn removed(lines: &str) -> String {
    match remove(lines.as_bytes(), NAME) {
        Remaining::Unchanged => "(unchanged)".into(),
        Remaining::Nothing => "(nothing)".into(),
        Remaining::Rewritten(line) => String::from_utf8(line).unwrap(),
    }
}

fn stamped(lines: &str) -> String {
    String::from_utf8(stamp(lines.as_bytes(), NAME, "V")).unwrap()
}

#[test]
fn finds_one_cookie_of_exactly_the_name() {
    for (lines, value) in [
        ("Client_Ip=a", "a"),
        ("x=1; Client_Ip=a; y=2", "a"),
        ("x=1;Client_Ip=a;y=2", "a"),
        ("x=1\nClient_Ip=a\ny=2", "a"),
        (" \t Client_Ip \t=a \t", "a"),
        ("\rClient_Ip\r=a\r", "a"),
        ("Client_Ip=\"a\"", "a"),
        ("Client_Ip=a=b", "a=b"),
        ("client_ip=b; Client_Ip=a; CLIENT_IP=c", "a"),
        ("Client_Ip2=b; xClient_Ip=c; Client_Ip=a; Client=d", "a"),
        ("x=\"1;Client_Ip=a\"", "a\""),
    ] {
        assert_eq!(find(lines.as_bytes(), NAME), Found::One(value.as_bytes()), "{lines:?}");
    }
    for lines in [
        "",
        ";",
        "\n",
        "x=1",
        "Client-Ip=a",
        "Client_Ip2=a",
        "Client_Ip x=a",
        "x=Client_Ip=a",
        "x=1, Client_Ip=a",
        "=Client_Ip=a",
        "=Client_Ip",
        "\"Client_Ip\"=a",
    ] {
        assert_eq!(find(lines.as_bytes(), NAME), Found::None, "{lines:?}");
    }
    for lines in ["client_ip=a", "x=1;CLIENT_IP", "client_ip=a; Client_Ip2=b\nCLIENT_iP = c"] {
        assert_eq!(find(lines.as_bytes(), NAME), Found::Similar, "{lines:?}");
    }
    for lines in [
        "Client_Ip=a; Client_Ip=a",
        "Client_Ip=a; client_ip=b; Client_Ip=c",
        "Client_Ip=a; Client_Ip=b; Client_Ip=c",
        "Client_Ip=a\nClient_Ip=b",
        "x=1; Client_Ip=a\ny=2; Client_Ip =b",
        "Client_Ip; Client_Ip=a",
        "Client_Ip=; Client_Ip=a",
        "x=\"1;Client_Ip=a\"; Client_Ip=b",
    ] {
        assert_eq!(find(lines.as_bytes(), NAME), Found::Many, "{lines:?}");
    }
}

#[test]
fn removes_every_letter_case_and_nothing_else() {
    for (lines, rest) in [
        ("x=1", "(unchanged)"),
        ("", "(unchanged)"),
        ("x=1\ny=2", "(unchanged)"),
        ("x=Client_Ip=a; =Client_Ip; Client_Ip2=b", "(unchanged)"),
        ("x=1, Client_Ip=a", "(unchanged)"),
        ("Client_Ip=a", "(nothing)"),
        ("Client_Ip", "(nothing)"),
        ("; CLIENT_IP=a ;\n client_ip ; ", "(nothing)"),
        ("Client_Ip=a; x=1", "x=1"),
        ("x=1; Client_Ip=a", "x=1"),
        ("x=1; cLIENT_iP\t=a; y=2", "x=1; y=2"),
        ("x=1;client_ip=a;y=2", "x=1;y=2"),
        ("x=1; \rClient_Ip=a;  y=2 ; z=\" \";", "x=1;  y=2 ; z=\" \""),
        ("x=1\nClient_Ip=a\ny=2", "x=1; y=2"),
        ("x=1; client_ip=b\nClient_Ip=a; y=2; Client_Ip=c", "x=1; y=2"),
        ("x=\"1;;2\"; Client_Ip=a", "x=\"1;;2\""),
        ("x=\"1;Client_Ip=a\"; y=2", "x=\"1; y=2"),
        ("=1; Client_Ip=a; y", "=1; y"),
    ] {
        assert_eq!(removed(lines), rest, "{lines:?}");
    }
}

#[test]
fn stamps_the_only_line_with_the_last_cookie() {
    for (lines, line) in [
        ("", "Client_Ip=V"),
        (" ; ", "Client_Ip=V"),
        ("Client_Ip=spoof", "Client_Ip=V"),
        ("x=1", "x=1; Client_Ip=V"),
        ("x=1;", "x=1; Client_Ip=V"),
        ("client_ip=spoof; x=1\ny=\"2\"; Client_Ip", "x=1; y=\"2\"; Client_Ip=V"),
        ("x=\"1;Client_Ip=spoof\"", "x=\"1; Client_Ip=V"),
    ] {
        assert_eq!(stamped(lines), line, "{lines:?}");
    }
}

#[test]
fn knows_names_and_several_lines() {
    for good in ["Client_Ip", "a", "!#$%&'*+-.^_`|~09"] {
        assert!(is_name(good), "{good}");
    }
    for bad in ["", "a b", "a=", "a;", "a\"", "a,", "é", "a\t", "(a)", "a/b", "a:b"] {
        assert!(!is_name(bad), "{bad}");
    }
    assert!(has_several_lines(b"a=1\nb=2"));
    assert!(!has_several_lines(b"a=1; b=2"));
}

/// The points of the module's page where Go reads something else, one by one.
mod where_go_differs {
    use super::*;

    fn in_go(lines: &str) -> Vec<String> {
        as_go_reads(lines.as_bytes())
            .into_iter()
            .filter(|(name, _)| name == NAME.as_bytes())
            .map(|(_, value)| String::from_utf8(value).unwrap())
            .collect()
    }

    #[test]
    fn a_name_that_is_no_token_is_another_name() {
        for lines in
            ["Client_Ip\x0b=a", "\u{a0}Client_Ip=a", "\"Client_Ip\"=a", "Client_Ip x=a", "\0Client_Ip=a"]
        {
            assert_eq!(in_go(lines), [""; 0], "{lines:?}");
            assert_eq!(find(lines.as_bytes(), NAME), Found::None, "{lines:?}");
        }
    }

    #[test]
    fn what_old_go_trimmed_more_stays_before_the_stamped_cookie() {
        assert_eq!(stamped("\x0bClient_Ip=spoof"), "\x0bClient_Ip=spoof; Client_Ip=V");
        // What such a Grafana could send on at worst.
        assert_eq!(find(b"Client_Ip=spoof; Client_Ip=V", NAME), Found::Many);
    }

    #[test]
    fn blanks_before_the_equals_sign_hide_no_cookie() {
        for lines in ["Client_Ip =a", "Client_Ip\t=a", "Client_Ip \t =a"] {
            assert_eq!(in_go(lines), ["a"], "{lines:?}");
            assert_eq!(find(lines.as_bytes(), NAME), Found::One(b"a"), "{lines:?}");
            assert_eq!(removed(lines), "(nothing)", "{lines:?}");
        }
    }

    #[test]
    fn a_cookie_without_equals_sign_counts() {
        for lines in ["Client_Ip", " Client_Ip ", "Client_Ip="] {
            assert_eq!(in_go(lines), [""], "{lines:?}");
            assert_eq!(find(lines.as_bytes(), NAME), Found::One(b""), "{lines:?}");
        }
    }

    #[test]
    fn a_value_that_go_drops_counts() {
        for bad in ["\"", "a\"", "\"a", "\"\"a\"\"", "a\\", "a\x01", "a\x7f", "\u{e9}"] {
            let lines = format!("Client_Ip={bad}; Client_Ip=a");
            assert_eq!(in_go(&lines), ["a"], "{lines:?}");
            assert_eq!(find(lines.as_bytes(), NAME), Found::Many, "{lines:?}");
            let alone = format!("Client_Ip={bad}");
            let Found::One(value) = find(alone.as_bytes(), NAME) else { panic!("{alone:?}") };
            assert!(crate::client_ip::ClientIp::parse(value).is_err(), "{alone:?}");
        }
    }

    #[test]
    fn one_pair_of_quotes_is_removed() {
        for (lines, value) in [
            ("Client_Ip=\"a\"", "a"),
            ("Client_Ip=\"\"", ""),
            ("Client_Ip=\" a\"", " a"),
            ("Client_Ip= \"a", " \"a"),
            ("Client_Ip=\"\"a\"\"", "\"a\""),
            ("Client_Ip=\"", "\""),
        ] {
            assert_eq!(find(lines.as_bytes(), NAME), Found::One(value.as_bytes()), "{lines:?}");
        }
    }

    #[test]
    fn quotes_protect_no_semicolon() {
        let lines = "x=\"1;Client_Ip=a;y=2\"";
        assert_eq!(in_go(lines), ["a"]);
        assert_eq!(find(lines.as_bytes(), NAME), Found::One(b"a"));
        assert_eq!(removed(lines), "x=\"1;y=2\"");
    }

    #[test]
    fn blanks_behind_the_equals_sign_belong_to_the_value() {
        assert_eq!(in_go("Client_Ip= a"), [" a"]);
        assert_eq!(find(b"Client_Ip= a", NAME), Found::One(b" a"));
        assert!(crate::client_ip::ClientIp::parse(b" 203.0.113.7").is_err());
    }

    #[test]
    fn any_number_of_cookies_is_read() {
        let lines = format!("{}Client_Ip=a", "x=1; ".repeat(3000));
        assert_eq!(find(lines.as_bytes(), NAME), Found::One(b"a"));
        assert_eq!(removed(&lines).matches("x=1").count(), 3000);
    }

    #[test]
    fn commas_separate_nothing() {
        assert_eq!(in_go("x=1,Client_Ip=a"), [""; 0]);
        assert_eq!(find(b"x=1,Client_Ip=a", NAME), Found::None);
        assert_eq!(find(b"Client_Ip=a,Client_Ip=b", NAME), Found::One(b"a,Client_Ip=b"));
    }
}

/// The search goes by blocks: a name may begin at every place of one, and end in the next.
#[test]
fn a_cookie_is_found_wherever_it_stands() {
    for before in 0..200 {
        for (padding, between) in [("x", ";"), (";", ""), (" ", ""), ("\r", "\n")] {
            let lines = format!("{}{between}cLient_Ip=a;Client_Ip = b", padding.repeat(before));
            let expected = Found::One(&b" b"[..]);
            assert_eq!(find(lines.as_bytes(), NAME), expected, "{before} of {padding:?}");
            let rest = removed(&lines);
            assert_eq!(rest.trim_matches('x'), if padding == "x" && before > 0 { "" } else { "(nothing)" });
        }
    }
}

/// Lines made of what matters to a parser of cookies, with arbitrary bytes between.
fn lines() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(vec![
            &b"Client_Ip"[..], b"client_ip", b"CLIENT_IP", b"Client_Ip=", b"Client_Ip2", b"=", b";", b"; ", b" ",
            b"\t", b"\r", b"\n", b"\"", b"\\", b",", b"a", b"b=c", b"\x0b", b"\xc2\xa0", b"\0",
        ])
        .prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 0..4),
    ];
    proptest::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn a_stamped_line_has_exactly_one_such_cookie_in_go(lines in lines()) {
        let line = stamp(&lines, NAME, "v1.abc");
        prop_assert!(!line.contains(&b'\n'));
        let cookies = as_go_reads(&line);
        let such = cookies.iter().filter(|(name, _)| name.eq_ignore_ascii_case(NAME.as_bytes())).count();
        prop_assert_eq!(such, 1);
        let (name, value) = cookies.last().unwrap();
        prop_assert_eq!((&name[..], &value[..]), (NAME.as_bytes(), &b"v1.abc"[..]));
        prop_assert_eq!(find(&line, NAME), Found::One(b"v1.abc"));
        // The others, as Go reads them and byte for byte.
        let mut before = as_go_reads(&lines);
        before.retain(|(name, _)| !name.eq_ignore_ascii_case(NAME.as_bytes()));
        prop_assert_eq!(&cookies[..cookies.len() - 1], &before[..]);
        prop_assert_eq!(others(&line), others(&lines));
    }

    #[test]
    fn removal_leaves_the_others_byte_for_byte(lines in lines()) {
        match remove(&lines, NAME) {
            Remaining::Unchanged => {
                let case_blind = |(name, _): &(Vec<u8>, Vec<u8>)| name.eq_ignore_ascii_case(NAME.as_bytes());
                prop_assert!(!as_go_reads(&lines).iter().any(case_blind));
                prop_assert_eq!(find(&lines, NAME), Found::None);
            }
            Remaining::Nothing => {
                prop_assert!(others(&lines).is_empty());
                prop_assert!(find(&lines, NAME) != Found::None);
            }
            Remaining::Rewritten(line) => {
                prop_assert!(!others(&lines).is_empty());
                prop_assert_eq!(others(&line), others(&lines));
                prop_assert_eq!(remove(&line, NAME), Remaining::Unchanged);
            }
        }
    }

    #[test]
    fn what_go_finds_is_found(lines in lines()) {
        let in_go: Vec<Vec<u8>> = as_go_reads(&lines)
            .into_iter()
            .filter_map(|(name, value)| (name == NAME.as_bytes()).then_some(value))
            .collect();
        match find(&lines, NAME) {
            Found::None | Found::Similar => prop_assert!(in_go.is_empty()),
            // Go may have dropped it for its value; it never found another value.
            Found::One(value) => prop_assert!(in_go.is_empty() || in_go == [value]),
            Found::Many => {}
        }
    }
}
