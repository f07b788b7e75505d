//! Who may speak to the daemon, decided before anything else is looked at (§3.1).
//!
//! Pure: a request's head in, admitted or a problem out. The order of the checks is part of the
//! contract: a web page that guesses the port learns nothing about tokens. It reads no body, logs
//! nothing, and no token ever leaves it.

use super::reply::Problem;
use claudemesh_base::http::Transport;
use hyper::header::{
    self, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, ORIGIN,
};
use hyper::{Method, Uri};
use std::fmt;
use std::time::Duration;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The least time between two log lines about tokens in queries.
pub(crate) const TOKEN_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// The code of the refusal that is worth a line in the log.
pub(crate) const TOKEN_IN_QUERY: &str = "token_in_query";

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const HEALTH_PATH: &str = "/v1/health";

/// A request as far as the guard looks at it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestHead<'a> {
    /// The way it came in.
    pub(crate) transport: Transport,
    /// Its method.
    pub(crate) method: &'a Method,
    /// Its target, as sent.
    pub(crate) target: &'a Uri,
    /// Its headers.
    pub(crate) headers: &'a HeaderMap,
}

/// What the guard holds a request against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GuardPolicy<'a> {
    /// The token that is good.
    pub(crate) token: &'a AcceptedToken,
    /// `GET /v1/health` needs no token (`--public-health`).
    pub(crate) public_health: bool,
}

/// A request that may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Admitted {
    /// Whether a body follows.
    pub(crate) has_body: bool,
}

/// Lets a request in or says why not, in the order of §3.1.
///
/// # Errors
/// The first check that fails, as the problem to answer with.
pub(crate) fn admit(head: RequestHead<'_>, policy: GuardPolicy<'_>) -> Result<Admitted, Problem> {
    check_query(head.target)?;
    check_host(head)?;
    check_origin(head.headers)?;
    if head.method == Method::OPTIONS {
        let detail = "OPTIONS is refused: this interface is not for web pages";
        return Err(Problem::forbidden("forbidden_method", detail));
    }
    check_bearer(head, policy)?;
    let has_body = has_body(head.headers);
    if has_body {
        check_content_type(head.headers)?;
    }
    Ok(Admitted { has_body })
}

fn check_query(target: &Uri) -> Result<(), Problem> {
    let names = target.query().unwrap_or_default().split('&');
    let mut names = names.map(|pair| pair.split('=').next().unwrap_or_default());
    if names.any(|name| percent_decoded(name) == b"token") {
        let detail = "a token in the query ends up in logs: send it as `Authorization: Bearer`";
        return Err(Problem::bad_request(TOKEN_IN_QUERY, detail));
    }
    Ok(())
}

fn check_host(head: RequestHead<'_>) -> Result<(), Problem> {
    let invalid = |detail: &str| Err(Problem::bad_request("invalid_host", detail));
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return invalid("the request has two `Host` headers: send one");
    }
    if head.target.authority().is_some_and(|authority| !is_loopback(authority.as_str())) {
        return invalid("the request target names another host: send only the path");
    }
    if host.is_some_and(|host| !host.to_str().is_ok_and(is_loopback)) {
        let detail = "`Host` must be localhost, 127.0.0.1 or [::1]";
        return Err(Problem::forbidden("forbidden_host", detail));
    }
    Ok(())
}

/// `localhost`, `127.0.0.1` or `[::1]`, with any port.
fn is_loopback(authority: &str) -> bool {
    let bare = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            if port.is_empty() || port.len() > 5 {
                return false;
            }
            host
        }
        _ => authority,
    };
    bare.eq_ignore_ascii_case("localhost") || bare == "127.0.0.1" || bare == "[::1]"
}

fn check_origin(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse = |name: &str| {
        let detail = format!("requests from web pages are refused: remove the `{name}` header");
        Err(Problem::forbidden("forbidden_origin", detail))
    };
    if headers.contains_key(ORIGIN) {
        return refuse("Origin");
    }
    if headers.get_all(SEC_FETCH_SITE).iter().any(|site| site != "none") {
        return refuse("Sec-Fetch-Site");
    }
    Ok(())
}

fn check_bearer(head: RequestHead<'_>, policy: GuardPolicy<'_>) -> Result<(), Problem> {
    let is_health = head.method == Method::GET && head.target.path() == HEALTH_PATH;
    if matches!(head.transport, Transport::Unix { .. }) || (policy.public_health && is_health) {
        return Ok(());
    }
    let mut values = head.headers.get_all(AUTHORIZATION).iter();
    let Some(token) = values.next().and_then(bearer) else {
        let detail = "send the contents of ~/.claudemesh/daemon/local-token as \
                      `Authorization: Bearer <token>`";
        return Err(Problem::unauthorized("missing_bearer_token", detail));
    };
    if values.next().is_some() || !policy.token.accepts(token) {
        let detail = "this is not the token in ~/.claudemesh/daemon/local-token: read it again";
        return Err(Problem::unauthorized("invalid_bearer_token", detail));
    }
    Ok(())
}

fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token.as_bytes())
}

/// By its headers, as RFC 9112 §6.3 has it; the codec has refused those that contradict.
fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0")
}

fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let is_json = |value: &HeaderValue| {
        let essence = value.to_str().ok().and_then(|value| value.split(';').next());
        essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
    };
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    if types.next().is_none_or(is_json) && types.next().is_none() {
        Ok(())
    } else {
        Err(Problem::unsupported_media_type())
    }
}

/// Malformed escapes stay as they are.
fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        let escape = escape.filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if let Some(byte) = escape.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            decoded.push(byte);
            at += 3;
        } else {
            decoded.push(bytes[at]);
            at += 1;
        }
    }
    decoded
}

/// The local token. Never shown, wiped when dropped.
pub(crate) struct AcceptedToken(Zeroizing<String>);

impl AcceptedToken {
    /// `token` without the newline of its file. An empty one opens nothing.
    pub(crate) fn new(token: impl Into<String>) -> Self {
        Self(Zeroizing::new(token.into()))
    }

    /// Whether `presented` is the token. The time it takes depends on lengths alone.
    fn accepts(&self, presented: &[u8]) -> bool {
        !self.0.is_empty() && bool::from(self.0.as_bytes().ct_eq(presented))
    }
}

impl fmt::Debug for AcceptedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalToken(..)")
    }
}

/// Decides which tokens in queries are logged: one a minute, the others are counted.
#[derive(Debug, Default)]
pub(crate) struct TokenLog {
    logged_at: Option<Duration>,
    suppressed: u64,
}

impl TokenLog {
    /// One more was seen: `Some(how many went unlogged since)` if a line is due.
    pub(crate) fn seen(&mut self, now: Duration) -> Option<u64> {
        if self.logged_at.is_some_and(|at| now < at + TOKEN_LOG_INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.logged_at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

#[cfg(test)]
mod tests;
