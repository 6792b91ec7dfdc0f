//! JSON-RPC 2.0: bytes of a line → calls, and results → text of a line.
//!
//! Pure. Refuses what it does not know: members of the envelope as well as of the parameters, since a
//! misspelt one would otherwise be a setting silently not made.

use std::fmt;

use serde::Deserialize as _;
use serde::de::value::MapDeserializer;
use serde_json::{Map, Value};

use crate::api::{ApiError, Request, code};

/// Calls in one batch; a line has room for enough of them to keep the appliance busy for minutes.
pub const MAX_BATCH: usize = 256;

/// What one line says.
#[derive(Debug, PartialEq)]
pub enum Message {
    /// One call, answered by an object.
    Single(Box<Entry>),
    /// An array of calls, answered by an array (JSON-RPC 2.0, section 6).
    Batch(Vec<Entry>),
}

/// One call of a line.
#[derive(Debug, PartialEq)]
pub struct Entry {
    /// What the answer must carry; `None` for a notification, which gets no answer.
    pub id: Option<Value>,
    /// What is asked, or why it can not be.
    pub request: Result<Request, ApiError>,
}

impl Entry {
    fn refused(id: Value, code: i32, message: impl Into<String>) -> Self {
        Self { id: Some(id), request: Err(ApiError { code, message: message.into() }) }
    }
}

/// Reads one line, with or without its newline.
pub fn parse(line: &[u8]) -> Message {
    let refused = |code, why: String| Message::Single(Box::new(Entry::refused(Value::Null, code, why)));
    match serde_json::from_slice(line) {
        Ok(Value::Array(calls)) if calls.is_empty() => {
            refused(code::INVALID_REQUEST, "the batch is empty".to_owned())
        }
        Ok(Value::Array(calls)) if calls.len() > MAX_BATCH => refused(
            code::LIMIT,
            format!("batch too long; it has at most {MAX_BATCH} calls; split it into several"),
        ),
        Ok(Value::Array(calls)) => Message::Batch(calls.into_iter().map(entry).collect()),
        Ok(call) => Message::Single(Box::new(entry(call))),
        Err(error) => {
            refused(code::PARSE_ERROR, format!("the line is not JSON; {error}; send one message a line"))
        }
    }
}

fn entry(call: Value) -> Entry {
    let Value::Object(mut members) = call else {
        return Entry::refused(Value::Null, code::INVALID_REQUEST, "a call is an object");
    };
    let id = members.remove("id");
    if let Some(Value::Bool(_) | Value::Array(_) | Value::Object(_)) = id {
        return Entry::refused(Value::Null, code::INVALID_REQUEST, "`id` is a string, a number or null");
    }
    match envelope(members) {
        Ok((method, params)) => Entry { id, request: decode(method, params) },
        Err(message) => Entry::refused(id.unwrap_or(Value::Null), code::INVALID_REQUEST, message),
    }
}

/// Takes method and parameters out of a call whose id has been taken out.
fn envelope(mut members: Map<String, Value>) -> Result<(String, Option<Value>), String> {
    if members.remove("jsonrpc") != Some(Value::from("2.0")) {
        return Err("`jsonrpc` must be \"2.0\"".to_owned());
    }
    let Some(Value::String(method)) = members.remove("method") else {
        return Err("`method` must be there, a string".to_owned());
    };
    let params = members.remove("params");
    match members.keys().next() {
        Some(unknown) => {
            Err(format!("unknown member `{unknown}`; a call has jsonrpc, id, method and params"))
        }
        None => Ok((method, params)),
    }
}

fn decode(method: String, params: Option<Value>) -> Result<Request, ApiError> {
    if !is_method(&method) {
        let message = format!("there is no method `{method}`");
        return Err(ApiError { code: code::METHOD_NOT_FOUND, message });
    }
    let mut call = Map::from_iter([("method".to_owned(), Value::String(method))]);
    // Methods without parameters may be called with none, null, {} or [].
    let empty = match &params {
        None | Some(Value::Null) => true,
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(members)) => members.is_empty(),
        Some(_) => false,
    };
    if empty && let Ok(request) = Request::deserialize(Value::Object(call.clone())) {
        return Ok(request);
    }
    if let Some(params) = params {
        call.insert("params".to_owned(), params);
    }
    serde_path_to_error::deserialize(Value::Object(call))
        .map_err(|error| ApiError { code: code::INVALID_PARAMS, message: error.to_string() })
}

/// Whether `method` is the name of a [`Request`].
///
/// Asks serde, so that the names stand in one place only: a name that it does not know is an unknown
/// variant, and every other complaint is about the parameters that are missing here.
fn is_method(method: &str) -> bool {
    let call = MapDeserializer::new([("method", method)].into_iter());
    !matches!(Request::deserialize(call), Err(Complaint::UnknownVariant))
}

/// What serde has against a call, told apart by kind.
#[derive(Debug)]
enum Complaint {
    UnknownVariant,
    Other,
}

impl serde::de::Error for Complaint {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Other
    }

    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Self {
        Self::UnknownVariant
    }
}

impl std::error::Error for Complaint {}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The answer to the call with this id, without a newline.
pub fn answer(id: Value, result: Result<Value, ApiError>) -> String {
    let (member, value) = match result {
        Ok(value) => ("result", value),
        Err(ApiError { code, message }) => ("error", serde_json::json!({ "code": code, "message": message })),
    };
    // Built by hand because `json!` would copy the value, and a list of flows is large.
    let members =
        [("jsonrpc".to_owned(), Value::from("2.0")), ("id".to_owned(), id), (member.to_owned(), value)];
    Value::Object(Map::from_iter(members)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn single(line: &str) -> Entry {
        match parse(line.as_bytes()) {
            Message::Single(entry) => *entry,
            Message::Batch(_) => panic!("{line} is no batch"),
        }
    }

    fn refusal(line: &str) -> (Option<Value>, i32, String) {
        let entry = single(line);
        let error = entry.request.expect_err(line);
        (entry.id, error.code, error.message)
    }

    #[test]
    fn ids_are_kept_as_they_are() {
        for (text, id) in [("1", Value::from(1)), ("\"a\"", Value::from("a")), ("null", Value::Null)] {
            let entry = single(&format!(r#"{{"jsonrpc":"2.0","method":"status","id":{text}}}"#));
            assert_eq!(entry, Entry { id: Some(id), request: Ok(Request::Status) });
        }
        let notification = single(r#"{"jsonrpc":"2.0","method":"reload"}"#);
        assert_eq!(notification, Entry { id: None, request: Ok(Request::Reload) });
    }

    #[test]
    fn methods_without_parameters_take_every_kind_of_nothing() {
        for params in ["", r#","params":null"#, r#","params":{}"#, r#","params":[]"#] {
            let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"stop"{params}}}"#);
            assert_eq!(single(&line).request, Ok(Request::Stop), "{line}");
        }
    }

    #[test]
    fn parameters_go_by_name() {
        let call = |params| {
            single(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"backend.set","params":{params}}}"#)).request
        };
        let want = Request::BackendSet {
            service: "tcp:192.0.2.1:80".parse().unwrap(),
            address: "198.51.100.7:8000".parse().unwrap(),
            weight: Some(4),
            admin: None,
        };
        let named = r#"{"service":"tcp:192.0.2.1:80","address":"198.51.100.7:8000","weight":4}"#;
        assert_eq!(call(named), Ok(want));
        let positional = r#"["tcp:192.0.2.1:80","198.51.100.7:8000",4]"#;
        assert_eq!(call(positional).unwrap_err().code, code::INVALID_PARAMS);
    }

    #[test]
    fn broken_calls_are_told_apart() {
        let cases: &[(&str, i32, &str)] = &[
            ("", code::PARSE_ERROR, "EOF"),
            ("{", code::PARSE_ERROR, "EOF"),
            ("\u{1}", code::PARSE_ERROR, "expected value"),
            ("[]", code::INVALID_REQUEST, "empty"),
            ("7", code::INVALID_REQUEST, "object"),
            ("{}", code::INVALID_REQUEST, "jsonrpc"),
            (r#"{"jsonrpc":"1.0","method":"status"}"#, code::INVALID_REQUEST, "jsonrpc"),
            (r#"{"jsonrpc":"2.0"}"#, code::INVALID_REQUEST, "method"),
            (r#"{"jsonrpc":"2.0","method":7}"#, code::INVALID_REQUEST, "method"),
            (r#"{"jsonrpc":"2.0","method":"status","id":{}}"#, code::INVALID_REQUEST, "id"),
            (r#"{"jsonrpc":"2.0","method":"status","param":{}}"#, code::INVALID_REQUEST, "`param`"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"statsu"}"#, code::METHOD_NOT_FOUND, "`statsu`"),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"status","params":{"a":1}}"#,
                code::INVALID_PARAMS,
                "params",
            ),
            (r#"{"jsonrpc":"2.0","id":1,"method":"flow.list"}"#, code::INVALID_PARAMS, "params"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"flow.list","params":{}}"#, code::INVALID_PARAMS, "limit"),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"flow.list","params":{"limit":-1}}"#,
                code::INVALID_PARAMS,
                "params.limit",
            ),
        ];
        for (line, code, word) in cases {
            let (_, found, message) = refusal(line);
            assert!(found == *code && message.contains(word), "{line}: {found} {message}");
        }
    }

    #[test]
    fn unknown_parameters_are_refused_at_every_depth() {
        let service = r#"{"name":"web","key":"tcp:192.0.2.1:80","scheduler":"rr","check":null,"backends":[],"wieght":1}"#;
        let backend = r#"{"service":"tcp:192.0.2.1:80","backend":{"address":"198.51.100.7:80","mode":"nat","weight":1,"wieght":1}}"#;
        let limit = r#"{"limit":1,"wieght":1}"#;
        for (method, params) in [("service.add", service), ("backend.add", backend), ("flow.list", limit)] {
            let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{params}}}"#);
            let (id, code, message) = refusal(&line);
            assert_eq!((id, code), (Some(Value::from(1)), code::INVALID_PARAMS));
            assert!(message.contains("unknown field `wieght`"), "{message}");
        }
    }

    #[test]
    fn an_id_is_found_in_an_invalid_request() {
        assert_eq!(refusal(r#"{"id":"x","method":"status"}"#).0, Some(Value::from("x")));
        assert_eq!(refusal(r#"{"method":"status"}"#).0, Some(Value::Null));
    }

    #[test]
    fn a_broken_notification_is_not_answered() {
        for method in ["no.such", "flow.list"] {
            let entry = single(&format!(r#"{{"jsonrpc":"2.0","method":"{method}"}}"#));
            assert!(entry.id.is_none() && entry.request.is_err());
        }
    }

    #[test]
    fn batches_are_bounded() {
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"stats"}"#;
        let batch = |calls| format!("[{}]", vec![call; calls].join(","));
        assert!(
            matches!(parse(batch(MAX_BATCH).as_bytes()), Message::Batch(entries) if entries.len() == MAX_BATCH)
        );
        assert_eq!(refusal(&batch(MAX_BATCH + 1)).1, code::LIMIT);
    }

    #[test]
    fn every_truncated_line_is_refused() {
        let line = br#"{"jsonrpc":"2.0","id":1,"method":"flow.list","params":{"limit":5}}"#;
        for len in 0..line.len() {
            let Message::Single(entry) = parse(&line[..len]) else { panic!("{len}") };
            assert_eq!(entry.request.unwrap_err().code, code::PARSE_ERROR, "{len}");
        }
    }

    #[test]
    fn deep_nesting_is_a_parse_error() {
        let line = "[".repeat(100_000);
        assert_eq!(refusal(&line).1, code::PARSE_ERROR);
    }

    #[test]
    fn answers_are_one_line_of_the_protocol() {
        assert_eq!(
            answer(Value::from(7), Ok(Value::from("a\nb"))),
            r#"{"id":7,"jsonrpc":"2.0","result":"a\nb"}"#
        );
        let error = ApiError { code: code::NOT_FOUND, message: "none".to_owned() };
        assert_eq!(
            answer(Value::Null, Err(error)),
            r#"{"error":{"code":-32002,"message":"none"},"id":null,"jsonrpc":"2.0"}"#
        );
    }
}
