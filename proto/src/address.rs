//! Where an aggregator is, and whether what goes there may go in the clear.
//!
//! Owns which addresses are good, so that the probe, `uptimectl` and programs judge them alike.
//! Reads them as the transport does. Refuses to resolve names: of those only `localhost` is taken
//! for this host.

use std::net::IpAddr;

use http::Uri;

/// How an address is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In plaintext.
    Http,
    /// Over TLS.
    Https,
}

/// Where plaintext may be spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Plaintext {
    /// Within this host: 127.0.0.0/8, `::1` and `localhost`.
    #[default]
    Loopback,
    /// Anywhere: someone said so in words that cannot be overlooked.
    Anywhere,
}

/// Why nobody is asked there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressFault {
    /// It is no address.
    #[error("it is not https://HOST:PORT, nor http://HOST:PORT on this host")]
    Malformed,
    /// It leaves this host in plaintext.
    #[error(
        "it is plaintext to another host: whoever is on the way reads and forges everything, \
         tokens too"
    )]
    Plaintext,
}

/// How this address is spoken to.
///
/// # Errors
/// Why it is not.
pub fn scheme(address: &str, plaintext: Plaintext) -> Result<Scheme, AddressFault> {
    let uri: Uri = address.parse().map_err(|_| AddressFault::Malformed)?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or(AddressFault::Malformed)?;
    match uri.scheme_str() {
        Some("https") => Ok(Scheme::Https),
        Some("http") if plaintext == Plaintext::Anywhere || is_loopback(host) => Ok(Scheme::Http),
        Some("http") => Err(AddressFault::Plaintext),
        _ => Err(AddressFault::Malformed),
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plaintext_stays_on_this_host_unless_it_may_go_anywhere() {
        for address in [
            "http://127.0.0.1:7640",
            "http://127.8.9.10",
            "http://[::1]:7640",
            "http://localhost:7640",
            "HTTP://LocalHost:7640",
            "http://someone@localhost",
        ] {
            assert_eq!(scheme(address, Plaintext::Loopback), Ok(Scheme::Http), "{address}");
        }
        for address in [
            "http://10.0.0.1:7640",
            "http://0.0.0.0:7640",
            "http://[::]:7640",
            "http://[::ffff:127.0.0.1]:7640",
            "http://aggregator.example:7640",
            // What begins like this host is another.
            "http://localhost.example:7640",
            "http://127.0.0.1.example:7640",
            "http://127.0.0.1@aggregator.example:7640",
            "http://localhost:7640@aggregator.example",
            "http://[2001:db8::1]:7640",
        ] {
            let fault = Err(AddressFault::Plaintext);
            assert_eq!(scheme(address, Plaintext::Loopback), fault, "{address}");
            assert_eq!(scheme(address, Plaintext::Anywhere), Ok(Scheme::Http), "{address}");
        }
        for address in ["https://aggregator.example:7640", "https://10.0.0.1", "https://[::1]:1"] {
            assert_eq!(scheme(address, Plaintext::Loopback), Ok(Scheme::Https), "{address}");
        }
        for address in [
            "",
            "http://",
            "http:///",
            "https://:7640",
            "127.0.0.1:7640",
            "localhost",
            "ftp://localhost:1",
            "unix:/run/x",
            "unix:///run/x",
            "/run/x",
            "http://a b",
        ] {
            let fault = Err(AddressFault::Malformed);
            assert_eq!(scheme(address, Plaintext::Anywhere), fault, "{address}");
        }
    }
}
