mod server;

use self::server::{Authority, Connection, Server, answer, json};
use super::url::Address;
use super::words::quoted;
use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::{self, sleep};
use std::time::Instant;

const KEYS: &str = r#"{"keys": [{"kty": "oct", "k": "AAAA"}]}"#;

/// Short enough for a test, long enough for a busy machine.
const SHORT: Limits = Limits {
    connect: Duration::from_millis(700),
    request: Duration::from_millis(1500),
    total: Duration::from_millis(2500),
};

fn endpoint(jwks_url: &str) -> Endpoint {
    Endpoint { issuer: "https://idp.test".into(), jwks_url: Some(jwks_url.into()), authorities: None }
}

fn discovery(issuer: &str) -> Endpoint {
    Endpoint { issuer: issuer.into(), jwks_url: None, authorities: None }
}

/// Fetches `path` from a server without TLS that answers so.
fn ask(handler: impl Fn(&str, &mut dyn Connection) + Send + Sync + 'static) -> Result<Vec<u8>, String> {
    let server = Server::start(None, handler);
    endpoint(&format!("http://127.0.0.1:{}/keys", server.port))
        .fetch_within(SHORT)
        .map_err(|error| error.to_string())
}

/// The error of an answer, without the address it begins with.
fn refused(handler: impl Fn(&str, &mut dyn Connection) + Send + Sync + 'static) -> String {
    let error = ask(handler).unwrap_err();
    assert!(error.contains("`http://127.0.0.1:"), "{error}");
    let (_, why) = error.split_once("/keys`").unwrap_or_else(|| panic!("{error}"));
    why.trim_start_matches([':', ' ']).to_owned()
}

fn with_type(content_type: &'static str) -> Result<Vec<u8>, String> {
    ask(move |_, connection| {
        answer(connection, "200 OK", &format!("Content-Type: {content_type}\r\n"), KEYS.as_bytes());
    })
}

#[test]
fn addresses_are_https_or_this_machine() {
    for good in [
        "https://idp.example.org/keys",
        "https://idp.example.org",
        "https://idp.example.org:8443/keys?tenant=a",
        "HTTPS://IDP.example.org/keys",
        "https://192.0.2.1/keys",
        "https://[2001:db8::1]:8443/keys",
        "http://localhost:8080/keys",
        "http://LOCALHOST/keys",
        "http://127.0.0.1:8080/keys",
        "http://127.8.9.10/keys",
        "http://[::1]:8080/keys",
    ] {
        assert_eq!(check_url(good), Ok(()), "{good}");
    }
    for (bad, why) in [
        ("", "is not an https URL"),
        ("idp.example.org", "is not an https URL"),
        ("//idp.example.org/keys", "is not an https URL"),
        ("/keys", "is not an https URL"),
        ("ftp://idp.example.org/keys", "is not an https URL"),
        ("file:///etc/passwd", "is not an https URL"),
        ("https://", "is not an https URL"),
        ("https:///keys", "is not an https URL"),
        ("https://idp.example.org/a b", "is not an https URL"),
        ("https://idp.example.org/\r\nX-Injected: 1", "is not an https URL"),
        ("https://idp.example.org/keys\0", "is not an https URL"),
        (" https://idp.example.org/keys", "is not an https URL"),
        ("https://größe.example.org/", "is not an https URL"),
        ("https://idp.example.org/keys#a", "has a fragment"),
        ("https://user@idp.example.org/keys", "holds a user name or password"),
        ("https://user:password@idp.example.org/keys", "holds a user name or password"),
        ("http://127.0.0.1@idp.example.org/keys", "holds a user name or password"),
        ("https://:443/keys", "has no host"),
        ("https://idp.example.org:0/", "has no valid port"),
        ("https://idp.example.org:/", "has no valid port"),
        ("https://idp.example.org:70000/", "has no valid port"),
        ("http://idp.example.org/keys", "is plain http to another machine: only https is safe there"),
        ("http://localhost.example.org/", "is plain http to another machine: only https is safe there"),
        ("http://127.0.0.1.example.org/", "is plain http to another machine: only https is safe there"),
        ("http://127.1/", "is plain http to another machine: only https is safe there"),
        ("http://0.0.0.0/", "is plain http to another machine: only https is safe there"),
        ("http://10.0.0.1/", "is plain http to another machine: only https is safe there"),
        ("http://[2001:db8::1]/", "is plain http to another machine: only https is safe there"),
        ("http://[::ffff:127.0.0.1]/", "is plain http to another machine: only https is safe there"),
    ] {
        assert_eq!(check_url(bad).map_err(|error| error.to_string()), Err(why.to_owned()), "{bad}");
    }
}

#[test]
fn redirects_stay_on_the_server() {
    let from = Address::parse("https://idp.test:8443/a/keys?b").unwrap();
    for (location, to) in [
        ("/other", "https://idp.test:8443/other"),
        ("/other?c#d", "https://idp.test:8443/other?c"),
        ("https://idp.test:8443/x", "https://idp.test:8443/x"),
        ("https://IDP.test:8443/x", "https://IDP.test:8443/x"),
        ("//idp.test:8443/x", "https://idp.test:8443/x"),
    ] {
        assert_eq!(from.redirected(location).unwrap().uri(), to, "{location}");
    }
    for (location, why) in [
        ("https://idp.test/x", "is another server"),
        ("https://other.test:8443/x", "is another server"),
        ("https://idp.test.:8443/x", "is another server"),
        ("//other.test/x", "is another server"),
        ("http://idp.test:8443/x", "is plain http to another machine: only https is safe there"),
        ("http://127.0.0.1:8443/x", "is another server"),
        ("https://127.0.0.1:8443/x", "is another server"),
        ("https://[::1]:8443/x", "is another server"),
        ("//localhost:8443/x", "is another server"),
        ("https://a@idp.test:8443/x", "holds a user name or password"),
        ("", "is not an https URL"),
        ("keys", "is not an https URL"),
        ("file:///etc/passwd", "is not an https URL"),
    ] {
        assert_eq!(from.redirected(location).unwrap_err().to_string(), why, "{location}");
    }
    let from = Address::parse("https://idp.test/keys").unwrap();
    assert!(from.redirected("https://idp.test:443/x").is_ok());
}

#[test]
fn a_key_set_arrives_as_it_was_sent() {
    let server = Server::start(None, |path, connection| {
        assert_eq!(path, "/keys?tenant=a");
        json(connection, KEYS);
    });
    for host in ["127.0.0.1", "localhost"] {
        let keys = endpoint(&format!("http://{host}:{}/keys?tenant=a", server.port)).fetch();
        assert_eq!(keys.as_deref(), Ok(KEYS.as_bytes()));
    }
    let head = server.heads().remove(0).to_ascii_lowercase();
    assert!(head.starts_with("get /keys?tenant=a http/1.1\r\n"), "{head}");
    assert!(
        head.contains(&format!("\r\nuser-agent: tenantauth/{}\r\n", env!("CARGO_PKG_VERSION"))),
        "{head}"
    );
    for absent in ["accept-encoding", "cookie", "authorization"] {
        assert!(!head.contains(absent), "{head}");
    }
}

#[test]
fn a_chunked_and_an_unmeasured_body_are_read() {
    let chunked = ask(|_, connection| {
        let _ = connection.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
              4\r\n{\"ke\r\n9\r\nys\": [] }\r\n0\r\n\r\n",
        );
    });
    assert_eq!(chunked.as_deref(), Ok(&b"{\"keys\": [] }"[..]));
    let until_closed = ask(|_, connection| {
        let _ =
            connection.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"keys\": []}");
    });
    assert_eq!(until_closed.as_deref(), Ok(&b"{\"keys\": []}"[..]));
}

#[test]
fn the_content_type_is_json_by_any_name() {
    for good in [
        "application/json",
        "application/jwk-set+json",
        "Application/JSON; charset=UTF-8",
        "application/json;charset=utf-8",
        "application/vnd.example+json",
    ] {
        assert_eq!(with_type(good).as_deref(), Ok(KEYS.as_bytes()), "{good}");
    }
    for bad in [
        "text/html",
        "text/plain",
        "application/octet-stream",
        "application/jsonp",
        "+json",
        "/+json",
        "json",
    ] {
        let error = with_type(bad).unwrap_err();
        assert!(error.ends_with(&format!("the content type is `{bad}`, not JSON")), "{error}");
    }
    let none = refused(|_, connection| answer(connection, "200 OK", "", KEYS.as_bytes()));
    assert_eq!(none, "there is no content type");
    let packed = refused(|_, connection| {
        answer(
            connection,
            "200 OK",
            "Content-Type: application/json\r\nContent-Encoding: gzip\r\n",
            b"\x1f\x8b",
        );
    });
    assert_eq!(packed, "the content encoding is `gzip`");
}

#[test]
fn a_document_that_is_no_key_set_is_refused() {
    for (document, why) in [
        ("<html>", "is no key set: expected value"),
        ("", "is no key set: EOF"),
        ("[]", "is no key set: "),
        ("{}", "is no key set: missing field `keys`"),
        (r#"{"keys": {}}"#, "is no key set: invalid type"),
        (r#"{"keys": [], "keys": []}"#, "is no key set: duplicate field `keys`"),
        (r#"{"keys": []} {}"#, "is no key set: trailing characters"),
        (r#"{"keys": [1, 2"#, "is no key set: EOF"),
    ] {
        let error = refused(move |_, connection| json(connection, document));
        assert!(error.starts_with(why), "{document}: {error}");
    }
}

#[test]
fn only_status_200_counts() {
    for status in
        ["404 Not Found", "500 Internal Server Error", "204 No Content", "203 Yes", "206 Partial", "304 Same"]
    {
        let error = refused(move |_, connection| {
            answer(
                connection,
                status,
                "Content-Type: application/json\r\n",
                if status.starts_with('3') { b"" } else { KEYS.as_bytes() },
            );
        });
        assert_eq!(error, format!("the status is {}, not 200", status.split(' ').next().unwrap()));
    }
    let garbage = refused(|_, connection| drop(connection.write_all(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")));
    assert!(garbage.starts_with("the answer is not HTTP: "), "{garbage}");
    let nothing = refused(|_, _| {});
    assert_eq!(nothing, "the connection ended early");
}

#[test]
fn three_redirects_are_followed_on_the_server() {
    let redirect = |connection: &mut dyn Connection, to: &str| {
        answer(connection, "302 Found", &format!("Location: {to}\r\n"), b"");
    };
    let three = ask(move |path, connection| match path {
        "/keys" => redirect(connection, "/1"),
        "/1" => redirect(connection, "/2"),
        "/2" => redirect(connection, "/3"),
        _ => json(connection, KEYS),
    });
    assert_eq!(three.as_deref(), Ok(KEYS.as_bytes()));
    let endless = refused(move |_, connection| redirect(connection, "/keys"));
    assert_eq!(endless, "it redirects more than 3 times");
    let other = refused(move |_, connection| redirect(connection, "https://other.test/keys"));
    assert_eq!(other, "it redirects to `https://other.test/keys`, which is another server");
    let nowhere = refused(|_, connection| answer(connection, "302 Found", "", b""));
    assert_eq!(nowhere, "it redirects without saying where");

    // Not only refused: never asked.
    let elsewhere = Server::start(None, |_, connection| json(connection, KEYS));
    let port = elsewhere.port;
    let other = refused(move |_, connection| redirect(connection, &format!("http://127.0.0.1:{port}/keys")));
    assert!(other.ends_with("which is another server"), "{other}");
    assert!(elsewhere.heads().is_empty());
}

#[test]
fn an_answer_has_an_end() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n";
    let mebibyte = "the answer is larger than 1048576 bytes";
    let endless = refused(|_, connection| {
        let _ = connection.write_all(HEAD);
        while connection.write_all(&[b' '; 4096]).is_ok() {}
    });
    assert_eq!(endless, mebibyte);
    let announced = refused(|_, connection| {
        let _ = connection.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1048577\r\n\r\n",
        );
        sleep(Duration::from_secs(5));
    });
    assert_eq!(announced, mebibyte);
    let filled = |size: usize| format!("{KEYS}{}", " ".repeat(size - KEYS.len()));
    let most = filled(1 << 20);
    let expected = most.clone();
    assert_eq!(ask(move |_, connection| json(connection, &most)), Ok(expected.into_bytes()));
    let more = filled((1 << 20) + 1);
    assert_eq!(refused(move |_, connection| json(connection, &more)), mebibyte);

    let headers = refused(|_, connection| {
        let _ = connection.write_all(b"HTTP/1.1 200 OK\r\n");
        while connection
            .write_all(b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n")
            .is_ok()
        {}
    });
    assert!(headers.contains("header"), "{headers}");
}

#[test]
fn an_answer_has_a_time() {
    let timed = |what: &str, seconds: f64, fetch: &dyn Fn() -> Result<Vec<u8>, String>| {
        let began = Instant::now();
        let error = fetch().unwrap_err();
        assert!(began.elapsed().as_secs_f64() < seconds, "{what} took {:?}: {error}", began.elapsed());
        error
    };
    let drip = timed("a drip", 2.4, &|| {
        ask(|_, connection| {
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n");
            while connection.write_all(b" ").and_then(|()| connection.flush()).is_ok() {
                sleep(Duration::from_millis(100));
            }
        })
    });
    assert!(drip.ends_with("no complete answer in time"), "{drip}");
    let head = timed("a dripping head", 2.4, &|| {
        ask(|_, connection| {
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\nX: ");
            while connection.write_all(b"x").and_then(|()| connection.flush()).is_ok() {
                sleep(Duration::from_millis(100));
            }
        })
    });
    assert!(head.ends_with("no complete answer in time"), "{head}");
    let silent = timed("a silent server", 2.4, &|| ask(|_, _| sleep(Duration::from_secs(6))));
    assert!(silent.ends_with("no complete answer in time"), "{silent}");
    let port = Server::silent();
    let tls = timed("a silent handshake", 1.6, &|| {
        endpoint(&format!("https://127.0.0.1:{port}/keys"))
            .fetch_within(SHORT)
            .map_err(|error| error.to_string())
    });
    assert!(tls.ends_with("no connection in time"), "{tls}");
    // Each answer within its own time, all of them not.
    let all = timed("redirects", 3.4, &|| {
        ask(|_, connection| {
            sleep(Duration::from_millis(900));
            answer(connection, "302 Found", "Location: /keys\r\n", b"");
        })
    });
    assert!(all.ends_with("in time") || all.ends_with("no time is left"), "{all}");
}

#[test]
fn a_server_that_is_not_there_is_named() {
    // Bound and dropped: nobody listens there.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = endpoint(&format!("http://127.0.0.1:{port}/keys")).fetch().unwrap_err().to_string();
    assert_eq!(error, format!("cannot fetch `http://127.0.0.1:{port}/keys`: connection refused"));
    let error = endpoint("https://no-such-host.invalid/keys").fetch_within(SHORT).unwrap_err().to_string();
    assert!(error.starts_with("cannot fetch `https://no-such-host.invalid/keys`: "), "{error}");
}

/// A server without TLS whose metadata are these; `@PORT@` is its own port.
fn provider(metadata: &str) -> Server {
    let metadata = metadata.to_owned();
    Server::start_knowing_its_port(None, |port| {
        let metadata = metadata.replace("@PORT@", &port.to_string());
        move |path: &str, connection: &mut dyn Connection| {
            if path.ends_with("/.well-known/openid-configuration") {
                json(connection, &metadata);
            } else {
                json(connection, KEYS);
            }
        }
    })
}

#[test]
fn discovery_asks_the_issuer() {
    for (issuer, asked) in [
        ("", "/.well-known/openid-configuration"),
        ("/", "/.well-known/openid-configuration"),
        ("/realms/a", "/realms/a/.well-known/openid-configuration"),
        ("/realms/a/", "/realms/a/.well-known/openid-configuration"),
    ] {
        let server = provider(&format!(
            r#"{{"issuer": "http://127.0.0.1:@PORT@{issuer}", "jwks_uri": "http://localhost:@PORT@/keys", "x": [1]}}"#
        ));
        let issuer = format!("http://127.0.0.1:{}{issuer}", server.port);
        assert_eq!(discovery(&issuer).fetch().as_deref(), Ok(KEYS.as_bytes()), "{issuer}");
        let paths: Vec<_> =
            server.heads().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect();
        assert_eq!(paths, [asked, "/keys"]);
    }
}

#[test]
fn metadata_of_another_issuer_or_with_a_bad_address_are_refused() {
    let own = "http://127.0.0.1:@PORT@";
    for (metadata, why) in [
        (
            r#"{"issuer": "https://other.test", "jwks_uri": "OWN/keys"}"#,
            "is about the issuer `https://other.test`, not",
        ),
        (r#"{"issuer": "OWN/", "jwks_uri": "OWN/keys"}"#, "is about the issuer"),
        (
            r#"{"issuer": "OWN", "jwks_uri": "http://idp.test/keys"}"#,
            "has a `jwks_uri` that is plain http to another machine",
        ),
        (
            r#"{"issuer": "OWN", "jwks_uri": "file:///etc/passwd"}"#,
            "has a `jwks_uri` that is not an https URL: `file:///etc/passwd`",
        ),
        (r#"{"issuer": "OWN", "jwks_uri": ""}"#, "has a `jwks_uri` that is not an https URL"),
        (r#"{"issuer": "OWN", "jwks_uri": null}"#, "is no OpenID metadata: invalid type"),
        (r#"{"issuer": "OWN"}"#, "is no OpenID metadata: missing field `jwks_uri`"),
        (r#"{"jwks_uri": "OWN/keys"}"#, "is no OpenID metadata: missing field `issuer`"),
        (
            r#"{"issuer": "OWN", "issuer": "OWN", "jwks_uri": "OWN/keys"}"#,
            "is no OpenID metadata: duplicate field",
        ),
        (r#"[]"#, "is no OpenID metadata"),
        (r#"{"keys": []}"#, "is no OpenID metadata: missing field `issuer`"),
    ] {
        let server = provider(&metadata.replace("OWN", own));
        let error = discovery(&format!("http://127.0.0.1:{}", server.port)).fetch().unwrap_err().to_string();
        assert!(error.contains(why), "{metadata}: {error}");
        assert!(error.contains("/.well-known/openid-configuration`"), "{error}");
        assert_eq!(server.heads().len(), 1, "nothing else is asked");
    }
    let error = discovery("https://idp.test/?a=b").fetch().unwrap_err().to_string();
    assert!(error.contains("has a query"), "{error}");
}

#[test]
fn no_issuer_far_away_makes_this_machine_ask_itself() {
    let loopback = ["127.0.0.1", "127.9.9.9:9200", "localhost:8080", "LOCALHOST", "[::1]:8443"]
        .map(|host| format!("{host}/keys"));
    for target in &loopback {
        let why = |issuer: &str, scheme: &str| {
            let checked = check_discovered(issuer, &format!("{scheme}://{target}"));
            checked.err().map_or(String::new(), |why| why.to_string())
        };
        assert_eq!(why("https://idp.test", "http"), "is no https URL", "{target}");
        assert_eq!(why("https://idp.test/realms/a", "https"), "is this machine, which the issuer is not");
        assert_eq!(why("https://127.0.0.1", "http"), "is no https URL", "{target}");
        // An issuer on this machine may name it.
        assert_eq!([why("http://127.0.0.1:8080", "http"), why("https://localhost", "https")], ["", ""]);
    }
    assert_eq!(check_discovered("https://idp.test", "https://keys.idp.test/keys"), Ok(()));
    assert_eq!(check_discovered("http://127.0.0.1:8080", "https://idp.test/keys"), Ok(()));
}

#[test]
fn tls_trusts_the_given_authority_and_no_other() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let fetch = |host: &str, server: &Server, authority: Option<&Authority>| {
        let mut endpoint = endpoint(&format!("https://{host}:{}/keys", server.port));
        endpoint.authorities = authority.map(|authority| Authorities::from_pem(authority.pem()).unwrap());
        endpoint.fetch().map_err(|error| error.to_string().split_once("`: ").unwrap().1.to_owned())
    };
    let start = |name: &str, expired| {
        Server::start(Some(ours.serve(name, expired)), |_, connection| json(connection, KEYS))
    };

    let good = start("localhost", false);
    assert_eq!(fetch("localhost", &good, Some(&ours)).as_deref(), Ok(KEYS.as_bytes()));
    assert_eq!(
        fetch("127.0.0.1", &good, Some(&ours)).unwrap_err(),
        "the server's certificate is for another name"
    );
    let untrusted = "the server's certificate is not from an authority that is trusted";
    assert_eq!(fetch("localhost", &good, Some(&theirs)).unwrap_err(), untrusted);
    assert_eq!(fetch("localhost", &good, None).unwrap_err(), untrusted);

    let address = start("127.0.0.1", false);
    assert_eq!(fetch("127.0.0.1", &address, Some(&ours)).as_deref(), Ok(KEYS.as_bytes()));
    let expired = start("localhost", true);
    assert_eq!(
        fetch("localhost", &expired, Some(&ours)).unwrap_err(),
        "the server's certificate has expired"
    );
    // Nothing was asked of a server that could not prove who it is.
    assert!(expired.heads().is_empty());

    // What a server without TLS says to a greeting that it does not understand.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut endpoint = endpoint(&format!("https://{}/keys", listener.local_addr().unwrap()));
    endpoint.authorities = Authorities::from_pem(ours.pem()).ok();
    let plain = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        // Open until the client leaves, or it might see a reset instead of the answer.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let error = endpoint.fetch().unwrap_err().to_string();
    assert!(error.contains("`: TLS: "), "{error}");
    plain.join().unwrap();
}

#[test]
fn authorities_are_certificates_that_can_be_read() {
    let (one, two) = (Authority::new(), Authority::new());
    let both = [
        b"# a comment
",
        one.pem(),
        b"
",
        two.pem(),
    ]
    .concat();
    for (why, text) in [
        (InvalidAuthorities::Empty, "holds no certificate"),
        (InvalidAuthorities::Certificate(2), "holds a certificate that cannot be read, number 2"),
        (InvalidAuthorities::NotPem, "is not a PEM file"),
    ] {
        assert_eq!(why.to_string(), text);
    }
    let read = Authorities::from_pem(&both).unwrap();
    assert_eq!(format!("{read:?}"), "Authorities(2)");
    assert_eq!(read, Authorities::from_pem(&both).unwrap());
    assert_ne!(read, Authorities::from_pem(one.pem()).unwrap());

    for nothing in [
        "",
        "hello",
        "-----BEGIN PRIVATE KEY-----
AAAA
-----END PRIVATE KEY-----
",
    ] {
        assert_eq!(Authorities::from_pem(nothing.as_bytes()), Err(InvalidAuthorities::Empty));
    }
    let broken = "-----BEGIN CERTIFICATE-----
AAAA
-----END CERTIFICATE-----
";
    assert_eq!(
        Authorities::from_pem(&[one.pem(), broken.as_bytes()].concat()),
        Err(InvalidAuthorities::Certificate(2))
    );
    for cut in [
        "-----BEGIN CERTIFICATE-----
AAAA
",
        "-----BEGIN CERTIFICATE-----
!
-----END CERTIFICATE-----
",
    ] {
        assert_eq!(Authorities::from_pem(cut.as_bytes()), Err(InvalidAuthorities::NotPem), "{cut}");
    }
}

#[test]
fn foreign_text_stays_on_its_line() {
    assert_eq!(quoted("a\n\u{1b}[2J"), "`a\\n\\u{1b}[2J`");
    assert_eq!(quoted(&"x".repeat(300)), format!("`{}` ...", "x".repeat(200)));
}
