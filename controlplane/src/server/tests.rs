//! The server over real sockets, with a stub for the control thread.

use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;
use tokio::task::{self, JoinHandle};

use super::*;
use crate::api::Done;
use crate::client::{Client, ClientError};

/// A served socket in a directory of its own.
struct Rig {
    _dir: TempDir,
    path: PathBuf,
    serving: JoinHandle<()>,
}

/// A connection that reads and writes plain lines.
struct Wire {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl Rig {
    /// Serves a stub that answers `flow.list` with a text of `limit` bytes, never answers `drops`, and
    /// answers any other call with the request itself.
    fn new() -> Self {
        let (rig, mut calls) = Self::with_calls();
        tokio::spawn(async move {
            let mut unanswered = Vec::new();
            while let Some(call) = calls.recv().await {
                match call.request {
                    Request::FlowList { limit } => drop(call.reply.send(Ok(Value::from("x".repeat(limit))))),
                    Request::Drops => unanswered.push(call),
                    request => drop(call.reply.send(Ok(serde_json::to_value(request).unwrap()))),
                }
            }
        });
        rig
    }

    fn with_calls() -> (Self, mpsc::Receiver<Call>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (calls, receiver) = mpsc::channel(8);
        let serving = tokio::spawn(serve(bind(&path).unwrap(), calls));
        (Self { _dir: dir, path, serving }, receiver)
    }

    async fn connect(&self) -> Wire {
        let (reader, writer) = UnixStream::connect(&self.path).await.unwrap().into_split();
        Wire { reader: BufReader::new(reader), writer }
    }
}

impl Wire {
    async fn send(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).await.unwrap();
    }

    /// The next line as JSON; null at the end of the connection.
    async fn receive(&mut self) -> Value {
        let mut line = String::new();
        match self.reader.read_line(&mut line).await {
            Ok(0) | Err(_) => Value::Null,
            Ok(_) => serde_json::from_str(&line).unwrap(),
        }
    }

    async fn ask(&mut self, line: &str) -> Value {
        self.send(line).await;
        self.send("\n").await;
        self.receive().await
    }
}

const STATUS: &str = r#"{"jsonrpc":"2.0","id":1,"method":"status"}"#;

#[tokio::test]
async fn a_malformed_line_is_answered_and_the_next_one_served() {
    let mut wire = Rig::new().connect().await;
    for (line, code) in [
        ("", code::PARSE_ERROR),
        ("junk", code::PARSE_ERROR),
        ("\u{0}\u{1}", code::PARSE_ERROR),
        ("[]", code::INVALID_REQUEST),
        ("{}", code::INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":1,"method":"none"}"#, code::METHOD_NOT_FOUND),
    ] {
        assert_eq!(wire.ask(line).await["error"]["code"], code, "{line}");
    }
    assert_eq!(wire.ask(STATUS).await, json!({"jsonrpc": "2.0", "id": 1, "result": {"method": "status"}}));
}

#[tokio::test]
async fn bytes_that_are_no_text_are_a_parse_error() {
    let mut wire = Rig::new().connect().await;
    wire.writer.write_all(b"{\"\xff\xfe\":1}\n").await.unwrap();
    assert_eq!(wire.receive().await["error"]["code"], code::PARSE_ERROR);
}

#[tokio::test]
async fn the_longest_line_is_served_and_a_longer_one_ends_the_connection() {
    let rig = Rig::new();
    let mut wire = rig.connect().await;
    let padding = " ".repeat(MAX_LINE_LEN - STATUS.len() - 1);
    assert_eq!(wire.ask(&format!("{STATUS}{padding}")).await["id"], 1);
    // The server stops reading, so the rest of the line may not find a taker.
    let huge = "x".repeat(2 * MAX_LINE_LEN);
    let _ = wire.writer.write_all(huge.as_bytes()).await;
    assert_eq!(wire.receive().await["error"]["code"], code::LIMIT);
    assert_eq!(wire.receive().await, Value::Null);
    assert_eq!(rig.connect().await.ask(STATUS).await["id"], 1);
}

#[tokio::test]
async fn a_batch_is_answered_by_one_array_without_the_notifications() {
    let mut wire = Rig::new().connect().await;
    let answers = wire
        .ask(r#"[{"jsonrpc":"2.0","id":"a","method":"stats"},{"jsonrpc":"2.0","method":"stats"},7,{"jsonrpc":"2.0","id":null,"method":"stop"}]"#)
        .await;
    let ids: Vec<_> = answers.as_array().unwrap().iter().map(|answer| &answer["id"]).collect();
    assert_eq!(ids, [&json!("a"), &Value::Null, &Value::Null]);
    assert_eq!(answers[1]["error"]["code"], code::INVALID_REQUEST);
    assert_eq!(answers[2]["result"]["method"], "stop");
}

#[tokio::test]
async fn notifications_are_executed_and_not_answered() {
    let (rig, mut calls) = Rig::with_calls();
    let mut wire = rig.connect().await;
    wire.send("{\"jsonrpc\":\"2.0\",\"method\":\"reload\"}\n[{\"jsonrpc\":\"2.0\",\"method\":\"stop\"}]\n")
        .await;
    wire.send(STATUS).await;
    wire.send("\n").await;
    for request in [Request::Reload, Request::Stop, Request::Status] {
        let call = calls.recv().await.unwrap();
        assert_eq!(call.request, request);
        call.reply.send(Ok(Value::from("done"))).unwrap();
    }
    assert_eq!(wire.receive().await["id"], 1);
}

#[tokio::test]
async fn a_call_says_who_made_it() {
    let (rig, mut calls) = Rig::with_calls();
    let mut wire = rig.connect().await;
    wire.send(&format!("{STATUS}\n")).await;
    let peer = calls.recv().await.unwrap().peer;
    assert_eq!(peer.pid, Some(std::process::id().cast_signed()));
    assert_eq!(wire.receive().await["error"]["code"], code::UNAVAILABLE);
}

#[tokio::test]
async fn half_a_line_before_the_end_is_ignored_and_whole_ones_are_answered() {
    let mut wire = Rig::new().connect().await;
    wire.send(&format!("{STATUS}\n{STATUS}")).await;
    wire.writer.shutdown().await.unwrap();
    assert_eq!(wire.receive().await["id"], 1);
    assert_eq!(wire.receive().await, Value::Null);
}

#[tokio::test]
async fn a_call_that_waits_holds_up_nobody_else() {
    let rig = Rig::new();
    let mut waiting = rig.connect().await;
    waiting.send("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"drops\"}\n").await;
    assert_eq!(rig.connect().await.ask(STATUS).await["id"], 1);
}

#[tokio::test]
async fn one_connection_too_many_is_told_and_closed() {
    let rig = Rig::new();
    let mut wires = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut wire = rig.connect().await;
        assert_eq!(wire.ask(STATUS).await["id"], 1);
        wires.push(wire);
    }
    let mut extra = rig.connect().await;
    assert_eq!(extra.receive().await["error"]["code"], code::LIMIT);
    assert_eq!(extra.receive().await, Value::Null);
    wires.truncate(MAX_CONNECTIONS / 2);
    // The server learns of the closed ones when it next reads from them.
    for _ in 0..100 {
        let mut wire = rig.connect().await;
        let _ = wire.writer.write_all(format!("{STATUS}\n").as_bytes()).await;
        if wire.receive().await["id"] == 1 {
            return;
        }
        time::sleep(Duration::from_millis(10)).await;
    }
    panic!("closed connections still count");
}

#[tokio::test]
async fn a_slow_reader_is_cut() {
    let mut wire = Rig::new().connect().await;
    let ask = r#"{"jsonrpc":"2.0","id":1,"method":"flow.list","params":{"limit":9000000}}"#;
    wire.send(&format!("{ask}\n")).await;
    time::sleep(WRITE_TIMEOUT + Duration::from_secs(1)).await;
    let mut got = Vec::new();
    // Cut while data waits, the kernel may report a reset after it.
    let _ = wire.reader.read_to_end(&mut got).await;
    assert!(!got.is_empty() && got.len() < 9_000_000, "{}", got.len());
}

#[tokio::test]
async fn answers_have_a_limit_alone_and_in_a_batch() {
    let mut wire = Rig::new().connect().await;
    let ask =
        |limit| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"flow.list","params":{{"limit":{limit}}}}}"#);
    assert_eq!(wire.ask(&ask(MAX_ANSWER_LEN)).await["error"]["code"], code::LIMIT);
    let most = MAX_ANSWER_LEN - 1000;
    let answers = wire.ask(&format!("[{},{},{STATUS}]", ask(most), ask(most))).await;
    assert_eq!(answers[0]["result"].as_str().unwrap().len(), most);
    assert_eq!(answers[1]["error"]["code"], code::LIMIT);
    assert_eq!(answers[2]["result"]["method"], "status");
}

#[tokio::test]
async fn stopping_gives_the_last_answer_and_takes_the_socket_away() {
    let (rig, mut calls) = Rig::with_calls();
    let mut idle = rig.connect().await;
    let mut wire = rig.connect().await;
    wire.send(&format!("{STATUS}\n")).await;
    let call = calls.recv().await.unwrap();
    call.reply.send(Ok(Value::from("bye"))).unwrap();
    drop(calls);
    rig.serving.await.unwrap();
    assert!(!rig.path.exists());
    assert_eq!(wire.receive().await["result"], "bye");
    assert_eq!(idle.receive().await, Value::Null);
}

#[tokio::test]
async fn the_client_speaks_the_same_protocol() {
    let (rig, mut calls) = Rig::with_calls();
    let path = rig.path.clone();
    let client = task::spawn_blocking(move || {
        let mut client = Client::connect(&path).unwrap();
        let done: Done = client.call(&Request::Reload).unwrap();
        assert_eq!(done.generation, 9);
        client.call::<Done>(&Request::FlowList { limit: 3 }).unwrap_err()
    });
    let call = calls.recv().await.unwrap();
    assert_eq!(call.request, Request::Reload);
    call.reply.send(Ok(json!({"generation": 9}))).unwrap();
    let call = calls.recv().await.unwrap();
    assert_eq!(call.request, Request::FlowList { limit: 3 });
    let error = ApiError { code: code::NOT_FOUND, message: "none".to_owned() };
    call.reply.send(Err(error.clone())).unwrap();
    assert!(matches!(client.await.unwrap(), ClientError::Api(found) if found == error));
}
