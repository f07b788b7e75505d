//! Answers: JSON for what went well, RFC 9457 problems for what did not (§3.2).
//!
//! With `http` and `broker` the only room that names status codes. It decides nothing: callers
//! choose the constructor, and the constructor fixes code, title and headers.

use claudemesh_base::http::{self, Body};
use hyper::ext::ReasonPhrase;
use hyper::header::{self, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::Serialize;
use serde_json::{Map, Value};

/// RFC 9457: the problem has no more to say than its status and its `error`.
const TYPE: &str = "about:blank";
/// RFC 3986's unreserved characters stay as they are.
const NON_ALPHANUMERIC_OR_MARK: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PROBLEM_JSON: &str = "application/problem+json";
const JSON: &str = "application/json";
/// Seconds a refused caller should wait: the bound is what is in flight, and that changes fast.
const RETRY_AFTER_SECONDS: &str = "1";

/// What a route answers.
pub(crate) type Answer = Result<tide::Response, Problem>;

/// Something that did not go well, as the caller will read it.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The HTTP status code.
    pub(crate) status: u16,
    /// The stable code callers branch on.
    pub(crate) error: &'static str,
    /// The HTTP phrase.
    pub(crate) title: &'static str,
    /// What a person should do about it.
    pub(crate) detail: String,
    /// Further members of the body.
    pub(crate) extra: Map<String, Value>,
    /// Headers that belong to the status: `Allow`, `Retry-After`, `WWW-Authenticate`.
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Problem {
    fn new(status: u16, error: &'static str, detail: impl Into<String>) -> Self {
        let (extra, headers) = (Map::new(), Vec::new());
        Self { status, error, title: phrase(status), detail: detail.into(), extra, headers }
    }

    /// Adds a member to the body.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(name.to_owned(), value.into());
        self
    }

    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// 400; `detail` names the field and what was expected of it.
    pub(crate) fn bad_request(error: &'static str, detail: impl Into<String>) -> Self {
        Self::new(400, error, detail)
    }

    /// 400 for a header value outside visible ASCII.
    pub(crate) fn invalid_header(name: &str) -> Self {
        let detail = format!("header `{name}` holds bytes that are not ASCII: percent-encode them");
        Self::bad_request("invalid_header", detail)
    }

    /// 401, with the challenge RFC 9110 asks for.
    pub(crate) fn unauthorized(error: &'static str, detail: impl Into<String>) -> Self {
        Self::new(401, error, detail).header("www-authenticate", "Bearer")
    }

    /// 403.
    pub(crate) fn forbidden(error: &'static str, detail: impl Into<String>) -> Self {
        Self::new(403, error, detail)
    }

    /// 404 for something named in the request.
    pub(crate) fn not_found(error: &'static str, detail: impl Into<String>) -> Self {
        Self::new(404, error, detail)
    }

    /// 404 for a path that is no route.
    pub(crate) fn unknown_route(path: &str) -> Self {
        let detail = format!("{path} is no route: see GET /v1/version for what this daemon serves");
        Self::new(404, "not_found", detail)
    }

    /// 405 with `Allow`.
    pub(crate) fn method_not_allowed(path: &str, allowed: &[&str]) -> Self {
        let allowed = allowed.join(", ");
        Self::new(405, "method_not_allowed", format!("{path} takes {allowed}"))
            .header("allow", allowed)
    }

    /// 408: the request did not arrive in time.
    pub(crate) fn request_timeout() -> Self {
        Self::new(408, "request_timeout", "the request did not arrive in time: send it again")
    }

    /// 409.
    pub(crate) fn conflict(error: &'static str, detail: impl Into<String>) -> Self {
        Self::new(409, error, detail)
    }

    /// 413; `detail` says what was too large, `limit_bytes` what would fit.
    pub(crate) fn payload_too_large(detail: impl Into<String>, limit_bytes: usize) -> Self {
        Self::new(413, "payload_too_large", detail).with("limit_bytes", limit_bytes)
    }

    /// 415.
    pub(crate) fn unsupported_media_type() -> Self {
        let detail = "the body must be JSON: send `Content-Type: application/json` or none";
        Self::new(415, "unsupported_media_type", detail)
    }

    /// 429: too many requests in flight.
    pub(crate) fn daemon_busy(in_flight_max: usize) -> Self {
        let detail = format!("{in_flight_max} requests are in flight: try again in a second");
        Self::new(429, "daemon_busy", detail).header("retry-after", RETRY_AFTER_SECONDS)
    }

    /// 429: too many event streams.
    pub(crate) fn too_many_streams(streams_max: usize) -> Self {
        let detail = format!("{streams_max} event streams are open: close one and try again");
        Self::new(429, "too_many_streams", detail).header("retry-after", RETRY_AFTER_SECONDS)
    }

    /// 500: a defect; the cause is in the log and nowhere else.
    pub(crate) fn internal() -> Self {
        Self::new(
            500,
            "internal",
            "the daemon failed: its log says why (~/.claudemesh/daemon/daemon.log unless it was started with another directory)",
        )
    }

    /// 503: not now, and the daemon knows why.
    pub(crate) fn unavailable(error: &'static str, detail: impl Into<String>) -> Self {
        Self::new(503, error, detail)
    }

    /// 507.
    pub(crate) fn insufficient_storage(detail: impl Into<String>) -> Self {
        Self::new(507, "insufficient_storage", detail)
    }

    /// The problem's body: the members of RFC 9457, then `error`, then the extra ones, which
    /// cannot replace them. Written in this order, because people read it.
    pub(crate) fn to_json(&self) -> String {
        let own: [(&str, Value); 5] = [
            ("type", TYPE.into()),
            ("title", self.title.into()),
            ("status", self.status.into()),
            ("detail", self.detail.as_str().into()),
            ("error", self.error.into()),
        ];
        let is_extra = |name: &str| own.iter().all(|(taken, _)| *taken != name);
        let extra = self.extra.iter().filter(|(name, _)| is_extra(name));
        let members = own.iter().map(|(name, value)| (*name, value));
        let members = members.chain(extra.map(|(name, value)| (name.as_str(), value)));
        let members: Vec<_> =
            members.map(|(name, value)| format!("{}:{value}", Value::from(name))).collect();
        format!("{{{}}}", members.join(","))
    }
}

impl From<Problem> for hyper::Response<Body> {
    fn from(problem: Problem) -> Self {
        let mut response = Self::new(http::full(problem.to_json()));
        *response.status_mut() = hyper_status(problem.status);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        for (name, value) in problem.headers {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

/// An id as one segment of a path, percent-encoded.
pub(crate) fn encode_segment(id: &str) -> String {
    utf8_percent_encode(id, NON_ALPHANUMERIC_OR_MARK).to_string()
}

/// The id in the path of a request, decoded; `None` if it is not UTF-8.
pub(super) fn id_of(request: &super::Request) -> Option<String> {
    // tide hands path parameters over as they came.
    let id = percent_decode_str(request.param("id").ok()?).decode_utf8();
    id.ok().map(Into::into)
}

/// 200 with `body` as JSON.
pub(crate) fn ok(body: &impl Serialize) -> tide::Response {
    json_response(200, body)
}

/// 202 with `body` as JSON and where to ask what became of it.
pub(crate) fn accepted(body: &impl Serialize, location: &str) -> tide::Response {
    let mut response = json_response(202, body);
    response.insert_header("location", location);
    response
}

/// 200 with a body that is not JSON.
pub(crate) fn ok_text(content_type: &str, body: String) -> tide::Response {
    respond(200, content_type, body)
}

fn json_response(status: u16, body: &impl Serialize) -> tide::Response {
    match serde_json::to_string(body) {
        Ok(text) => respond(status, JSON, text),
        Err(error) => {
            tracing::error!(%error, "an answer could not be written as JSON");
            let problem = Problem::internal();
            respond(problem.status, PROBLEM_JSON, problem.to_json())
        }
    }
}

fn respond(status: u16, content_type: &str, body: String) -> tide::Response {
    let status =
        tide::StatusCode::try_from(status).unwrap_or(tide::StatusCode::InternalServerError);
    let mut response = tide::Response::new(status);
    response.set_body(body);
    response.insert_header("content-type", content_type);
    response
}

/// Gives 413 the phrase RFC 9110 has for it; the codec knows an older one.
pub(super) fn set_phrase(response: &mut hyper::Response<Body>) {
    if response.status() == hyper::StatusCode::PAYLOAD_TOO_LARGE {
        let phrase = ReasonPhrase::from_static(b"Content Too Large");
        response.extensions_mut().insert(phrase);
    }
}

pub(super) fn hyper_status(status: u16) -> hyper::StatusCode {
    hyper::StatusCode::from_u16(status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR)
}

const fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        507 => "Insufficient Storage",
        _ => "Internal Server Error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_carries_the_rfc_members_and_the_stable_code() {
        let problem = Problem::payload_too_large("too long", 65_536).with("status", "mine");
        let expected = concat!(
            r#"{"type":"about:blank","title":"Content Too Large","status":413,"#,
            r#""detail":"too long","error":"payload_too_large","limit_bytes":65536}"#,
        );
        assert_eq!(problem.to_json(), expected);
    }

    #[test]
    fn a_problem_keeps_its_status_and_its_headers() {
        let problem = Problem::method_not_allowed("/v1/inbox", &["GET", "DELETE"]);
        let response = hyper::Response::<Body>::from(problem);
        assert_eq!(response.status().as_u16(), 405);
        assert_eq!(response.headers()["allow"], "GET, DELETE");
        assert_eq!(response.headers()["content-type"], PROBLEM_JSON);
    }

    #[test]
    fn callers_over_a_bound_learn_when_to_come_back() {
        for problem in [Problem::daemon_busy(512), Problem::too_many_streams(32)] {
            assert_eq!(problem.headers, [("retry-after", "1".to_owned())]);
        }
    }
}
