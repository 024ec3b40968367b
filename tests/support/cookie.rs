//! The signed client-IP cookie, made and read a second time, from contract section 6 alone.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// A key of the keys file.
pub(crate) struct CookieKey {
    /// Its id.
    pub(crate) id: &'static str,
    secret: [u8; 32],
}

impl CookieKey {
    /// A key with a fixed secret that is this byte over and over.
    pub(crate) const fn new(id: &'static str, byte: u8) -> Self {
        Self { id, secret: [byte; 32] }
    }

    /// Its line in the keys file.
    pub(crate) fn line(&self) -> String {
        format!("{}:{}\n", self.id, self.secret_base64())
    }

    /// Its secret as the keys file has it.
    pub(crate) fn secret_base64(&self) -> String {
        STANDARD.encode(self.secret)
    }

    /// The cookie's value, for a cookie of this name. `expiry`: seconds since 1970.
    pub(crate) fn sign(&self, cookie: &str, address: &str, expiry: i64) -> String {
        let text = format!("v1.{}.{expiry}.{}", URL_SAFE_NO_PAD.encode(address), self.id);
        format!("{text}.{}", self.mac(cookie, &text))
    }

    /// `Client_Ip=<value>` that expires in five minutes.
    pub(crate) fn pair(&self, address: &str) -> String {
        format!("Client_Ip={}", self.sign("Client_Ip", address, super::now() + 300))
    }

    /// Reads a value that must be this key's: the address and the expiry.
    pub(crate) fn open(&self, cookie: &str, value: &str) -> (String, i64) {
        let parts: Vec<&str> = value.split('.').collect();
        assert_eq!(parts.len(), 5, "`{value}`");
        let (text, mac) = value.rsplit_once('.').expect("five parts");
        assert_eq!((parts[0], parts[3], mac), ("v1", self.id, self.mac(cookie, text).as_str()), "`{value}`");
        let address = URL_SAFE_NO_PAD.decode(parts[1]).expect("base64url without padding");
        (
            String::from_utf8(address).expect("an address in its text form"),
            parts[2].parse().expect("an expiry"),
        )
    }

    fn mac(&self, cookie: &str, text: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
        URL_SAFE_NO_PAD.encode(hmac::sign(&key, format!("{cookie}={text}").as_bytes()))
    }
}
