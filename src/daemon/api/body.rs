//! The body of a request, read and refused in one place: a problem names the field.

use super::Request;
use super::bodies::{BodyError, RequestBody};
use super::reply::Problem;

/// Reads the body of a request.
pub(super) async fn read_body<T: RequestBody>(request: &mut Request) -> Result<T, Problem> {
    let bytes = request.body_bytes().await.map_err(|error| {
        tracing::error!(%error, "a body that had arrived could not be read");
        Problem::internal()
    })?;
    T::parse(&bytes).map_err(|error| refuse(&error))
}

fn refuse(error: &BodyError) -> Problem {
    let code = match error {
        BodyError::NotJson(_) => "invalid_json",
        BodyError::NotAnObject(_) => "expected_json_object",
        BodyError::Missing { field, .. } => match *field {
            "to" => "missing_to",
            "message" => "missing_message",
            "ids" => "missing_ids",
            "before" => "missing_before",
            _ => "missing_id",
        },
        BodyError::Wrong { field, .. } => code_of(field),
    };
    Problem::bad_request(code, error.to_string())
}

/// The code of a problem with the value of `field`.
pub(super) fn code_of(field: &str) -> &'static str {
    match field {
        "to" => "invalid_to",
        "message" => "invalid_message",
        "priority" => "invalid_priority",
        "mentions" => "invalid_mentions",
        "reply_to_id" => "invalid_reply_to_id",
        "client_message_id" | "new_client_message_id" => "invalid_client_message_id",
        _ => "invalid_parameter",
    }
}

/// A field of a body whose value cannot be used.
pub(super) fn bad(field: &str, expected: &str) -> Problem {
    Problem::bad_request(code_of(field), format!("`{field}` must be {expected}"))
}
