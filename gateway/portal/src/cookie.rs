//! Cookies. All of ours are `__Host-` cookies (RFC 6265bis, 4.1.3.2): no other host and no plain HTTP can set
//! them, so that nobody plants one.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use portcullis_control::Browser;

/// Names the browser whose login from outside of the tunnel is half-way.
pub(crate) const LOGIN: &str = "__Host-portcullis-login";
/// Names the browser that has opened a session from outside of the tunnel.
pub(crate) const SESSION: &str = "__Host-portcullis-session";
/// Names the browser that is on the way to a provider.
pub(crate) const VISITOR: &str = "__Host-portcullis-visitor";

/// The browser that presents this cookie. `None` where it presents several: whose they are is not known.
pub(crate) fn browser(headers: &HeaderMap, name: &str) -> Option<Browser> {
    let lines = headers.get_all(header::COOKIE).into_iter();
    let pairs = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let mut values = pairs.filter(|(key, _)| *key == name);
    let (_, value) = values.next()?;
    match values.next() {
        None => Browser::presenting(value),
        Some(_) => None,
    }
}

/// Gives the browser its cookie, for so many seconds. The visitor's is `Lax`, because providers send the
/// browser back to us; all else is asked for by our own pages alone.
pub(crate) fn give(browser: &Browser, name: &str, seconds: u64) -> (HeaderName, HeaderValue) {
    set(name, browser.cookie().expose(), seconds)
}

/// Takes it back.
pub(crate) fn take(name: &str) -> (HeaderName, HeaderValue) {
    set(name, "", 0)
}

fn set(name: &str, value: &str, seconds: u64) -> (HeaderName, HeaderValue) {
    let sites = if name == VISITOR { "Lax" } else { "Strict" };
    let text =
        format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite={sites}; Max-Age={seconds}");
    // Base64url and our own words: always a header value.
    let value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
    (header::SET_COOKIE, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[String]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::COOKIE, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    #[test]
    fn a_browser_is_known_by_the_one_cookie_that_it_was_given() {
        let given = Browser::new().unwrap();
        let value = given.cookie().expose();
        let (name, set) = give(&given, VISITOR, 60);
        assert_eq!(name, header::SET_COOKIE);
        let set = set.to_str().unwrap();
        for flag in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
            assert!(set.contains(flag), "{set}");
        }
        assert!(set.starts_with("__Host-") && !set.contains("Domain"));
        for strict in [
            give(&given, LOGIN, 60),
            give(&given, SESSION, 60),
            take(SESSION),
        ] {
            assert!(strict.1.to_str().unwrap().contains("; SameSite=Strict"));
        }
        let pair = format!("{VISITOR}={value}");
        let found = |lines: &[String]| {
            let found = browser(&headers(lines), VISITOR);
            found.map(|browser| browser.cookie().expose().to_owned())
        };
        assert_eq!(
            found(&[format!("a=b; {pair}; c=d")]).as_deref(),
            Some(value)
        );
        assert_eq!(found(&["a=b".into(), pair.clone()]).as_deref(), Some(value));
        assert_eq!(found(&[format!("{pair}; {pair}")]), None);
        assert_eq!(found(&[pair.clone(), pair.clone()]), None);
        assert_eq!(found(&[format!("{VISITOR}=x")]), None);
        assert_eq!(found(&[format!("x{pair}")]), None);
        assert_eq!(found(&[]), None);
    }
}
