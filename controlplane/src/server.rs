//! Control socket: JSON-RPC 2.0 over a Unix stream socket, one message a line.
//!
//! A thin shell around `rpc`: it moves lines, hands each call to the control thread through a channel and
//! writes the answers in the order of the calls. Every size and number is bounded, and no peer, however slow
//! or hostile, makes another one or the control thread wait.

mod rpc;
mod socket;
#[cfg(test)]
mod tests;

use std::io::{self, Write as _};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time;

use crate::api::{ApiError, MAX_LINE_LEN, Request, code};
use rpc::{Entry, Message};
pub use socket::{BindError, Listener, bind};

/// An answer, or the answers of a batch together, are at most this long, in bytes.
pub const MAX_ANSWER_LEN: usize = 64 << 20;

/// Connections served at the same time.
pub const MAX_CONNECTIONS: usize = 64;

/// A peer that does not take an answer in this time is cut.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for answers on their way when the appliance stops.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Pause after a failed accept: it fails for want of descriptors, and at once again if tried at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A call on its way to the control thread.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Where the answer goes; dropped, it tells the caller that the appliance is stopping.
    pub reply: oneshot::Sender<Result<Value, ApiError>>,
    /// Who asks.
    pub peer: Peer,
}

/// The process at the other end, as the kernel knew it when it connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
    /// Its process id, where it has one in our namespace.
    pub pid: Option<i32>,
}

/// Serves the socket until the receiver of `calls` is closed or dropped.
///
/// Then the socket disappears at once, and answers already given still get a second to be written.
pub async fn serve(listener: Listener, calls: mpsc::Sender<Call>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(stream) if connections.len() < MAX_CONNECTIONS => {
                    connections.spawn(converse(stream, calls.clone()));
                }
                Ok(stream) => refuse(stream),
                Err(error) => {
                    tracing::warn!(%error, "control socket: accept failed");
                    time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = calls.closed() => break,
        }
    }
    drop(listener);
    let _ = time::timeout(LAST_ANSWERS, async { while connections.join_next().await.is_some() {} }).await;
}

/// Tells one connection too many why it is closed.
fn refuse(stream: UnixStream) {
    let error = ApiError {
        code: code::LIMIT,
        message: format!("too many connections; {MAX_CONNECTIONS} are open already; close one and try again"),
    };
    let mut line = rpc::answer(Value::Null, Err(error));
    line.push('\n');
    // The send buffer of a new connection is empty, so this neither waits nor writes half a line.
    let _ = stream.into_std().and_then(|mut stream| stream.write_all(line.as_bytes()));
}

/// Serves one connection until it ends; what went wrong on the way concerns only its peer.
async fn converse(stream: UnixStream, calls: mpsc::Sender<Call>) {
    if let Err(error) = answer_lines(stream, &calls).await {
        tracing::debug!(%error, "control socket: connection cut");
    }
}

async fn answer_lines(stream: UnixStream, calls: &mpsc::Sender<Call>) -> io::Result<()> {
    let credentials = stream.peer_cred()?;
    let peer = Peer { uid: credentials.uid(), gid: credentials.gid(), pid: credentials.pid() };
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let line = tokio::select! {
            line = read_line(&mut reader) => line?,
            () = calls.closed() => return Ok(()),
        };
        match line {
            Line::Whole(line) => {
                if let Some(answer) = answer_message(rpc::parse(&line), calls, peer).await {
                    write_line(&mut writer, answer).await?;
                }
            }
            Line::TooLong => return write_line(&mut writer, rpc::answer(Value::Null, Err(too_long()))).await,
            Line::End => return Ok(()),
        }
    }
}

enum Line {
    /// A line with its newline.
    Whole(Vec<u8>),
    /// More than [`MAX_LINE_LEN`] bytes without a newline among them.
    TooLong,
    /// The peer sends no more; half a line before the end is no message.
    End,
}

async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> io::Result<Line> {
    // A new buffer for each line: one long line must not pin its memory for the life of the connection.
    let mut line = Vec::new();
    reader.take(MAX_LINE_LEN as u64).read_until(b'\n', &mut line).await?;
    Ok(match line.last() {
        Some(b'\n') => Line::Whole(line),
        _ if line.len() == MAX_LINE_LEN => Line::TooLong,
        _ => Line::End,
    })
}

async fn write_line(writer: &mut OwnedWriteHalf, mut line: String) -> io::Result<()> {
    line.push('\n');
    time::timeout(WRITE_TIMEOUT, writer.write_all(line.as_bytes())).await?
}

async fn answer_message(message: Message, calls: &mpsc::Sender<Call>, peer: Peer) -> Option<String> {
    match message {
        Message::Single(entry) => answer_entry(*entry, calls, peer, MAX_ANSWER_LEN).await,
        Message::Batch(entries) => {
            let mut answers = String::from("[");
            for entry in entries {
                let room = MAX_ANSWER_LEN.saturating_sub(answers.len());
                if let Some(answer) = answer_entry(entry, calls, peer, room).await {
                    if answers.len() > 1 {
                        answers.push(',');
                    }
                    answers.push_str(&answer);
                }
            }
            answers.push(']');
            (answers != "[]").then_some(answers)
        }
    }
}

/// Executes one entry; `None` if it is a notification, which is never answered.
async fn answer_entry(entry: Entry, calls: &mpsc::Sender<Call>, peer: Peer, room: usize) -> Option<String> {
    let result = match entry.request {
        Ok(request) => ask(request, calls, peer).await,
        Err(error) => Err(error),
    };
    let id = entry.id?;
    let answer = rpc::answer(id.clone(), result);
    Some(if answer.len() <= room { answer } else { rpc::answer(id, Err(answer_too_long())) })
}

/// Puts a request to the control thread and waits for its answer.
async fn ask(request: Request, calls: &mpsc::Sender<Call>, peer: Peer) -> Result<Value, ApiError> {
    let (reply, answer) = oneshot::channel();
    calls.send(Call { request, reply, peer }).await.map_err(|_| stopping())?;
    answer.await.unwrap_or_else(|_| Err(stopping()))
}

fn stopping() -> ApiError {
    ApiError {
        code: code::UNAVAILABLE,
        message: "no answer; trutinad is stopping; try again when it runs".to_owned(),
    }
}

fn too_long() -> ApiError {
    ApiError {
        code: code::LIMIT,
        message: format!("line too long; a message has at most {MAX_LINE_LEN} bytes; split it into several"),
    }
}

fn answer_too_long() -> ApiError {
    ApiError {
        code: code::LIMIT,
        message: format!("answer too long; it has at most {MAX_ANSWER_LEN} bytes; ask for less at a time"),
    }
}
