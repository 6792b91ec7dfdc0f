//! Blocking client of the control socket, for the command line and for tools.
//!
//! One call at a time; every wait has an end.

use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::api::{ApiError, MAX_LINE_LEN, Request};
use crate::server::MAX_ANSWER_LEN;

/// Time for connecting, and for each call from its first byte to the last one of its answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no daemon at the socket.
    #[error(
        "cannot reach trutinad at {path}; {source}; start it, or name its socket by --socket or TRUTINA_SOCKET"
    )]
    Unreachable {
        /// Path of the socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket's owner and mode keep this user out.
    #[error("no access to {path}; only its owner and its group may talk to trutinad; run as one of them")]
    Denied {
        /// Path of the socket.
        path: PathBuf,
    },
    /// The daemon refused the call.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The daemon took the call and gave no answer in time.
    #[error("no answer in {} s; trutinad is busy or stuck; try again, then look at its log", .0.as_secs())]
    Timeout(Duration),
    /// The connection broke.
    #[error("the connection broke; {0}; see whether trutinad still runs")]
    Io(io::Error),
    /// The answer is not what this client understands.
    #[error("the answer makes no sense; {0}; use trutina and trutinad of the same version")]
    Protocol(String),
}

/// One connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    timeout: Duration,
    last_id: u64,
}

#[derive(Serialize)]
struct Envelope<'a> {
    jsonrpc: &'static str,
    id: u64,
    #[serde(flatten)]
    request: &'a Request,
}

#[derive(Deserialize)]
struct Answer {
    id: Value,
    #[serde(default)]
    result: Value,
    error: Option<ApiError>,
}

impl Client {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] or [`ClientError::Denied`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        Self::connect_within(path, TIMEOUT)
    }

    fn connect_within(path: &Path, timeout: Duration) -> Result<Self, ClientError> {
        let connect = || -> io::Result<UnixStream> {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            // Linux bounds the wait for a place in the backlog by the timeout for sending.
            socket.set_write_timeout(Some(timeout))?;
            socket.connect(&SockAddr::unix(path)?)?;
            Ok(UnixStream::from(OwnedFd::from(socket)))
        };
        match connect() {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream), timeout, last_id: 0 }),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                Err(ClientError::Denied { path: path.to_owned() })
            }
            Err(source) => Err(ClientError::Unreachable { path: path.to_owned(), source }),
        }
    }

    /// Makes a call and waits for its result.
    ///
    /// # Errors
    /// [`ClientError::Api`] if the daemon refuses; every other error leaves the connection unusable.
    pub fn call<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T, ClientError> {
        self.last_id += 1;
        let id = self.last_id;
        let mut line = serde_json::to_vec(&Envelope { jsonrpc: "2.0", id, request })
            .map_err(|error| ClientError::Protocol(error.to_string()))?;
        line.push(b'\n');
        if line.len() > MAX_LINE_LEN {
            return Err(ClientError::Protocol(format!("a call has at most {MAX_LINE_LEN} bytes")));
        }
        let deadline = Instant::now() + self.timeout;
        let sent = self.stream.get_mut().write_all(&line);
        // A daemon that closes the connection unread has said why before.
        let answer = match (sent, self.read_line(deadline)) {
            (Err(error), Err(_)) => return Err(self.failed(error)),
            (_, answer) => answer?,
        };
        let answer: Answer =
            serde_json::from_slice(&answer).map_err(|error| ClientError::Protocol(error.to_string()))?;
        match answer {
            // An error without an id concerns the connection, and so this call, too.
            Answer { id: found, error: Some(error), .. } if found.is_null() || found == id => {
                Err(error.into())
            }
            Answer { id: found, result, error: None } if found == id => {
                serde_json::from_value(result).map_err(|error| ClientError::Protocol(error.to_string()))
            }
            Answer { id: found, .. } => {
                Err(ClientError::Protocol(format!("call {id} got the answer to {found}")))
            }
        }
    }

    fn read_line(&mut self, deadline: Instant) -> Result<Vec<u8>, ClientError> {
        let mut line = Vec::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ClientError::Timeout(self.timeout));
            }
            self.stream.get_ref().set_read_timeout(Some(left)).map_err(ClientError::Io)?;
            let chunk = match self.stream.fill_buf() {
                Ok([]) => return Err(ClientError::Io(ErrorKind::UnexpectedEof.into())),
                Ok(chunk) => chunk,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(error)),
            };
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let len = end.unwrap_or(chunk.len());
            line.extend_from_slice(&chunk[..len]);
            self.stream.consume(end.map_or(len, |end| end + 1));
            if end.is_some() {
                return Ok(line);
            }
            if line.len() > MAX_ANSWER_LEN {
                return Err(ClientError::Protocol(format!("an answer has at most {MAX_ANSWER_LEN} bytes")));
            }
        }
    }

    /// Tells a timeout of the socket, which the kernel reports as `WouldBlock`, from a broken connection.
    fn failed(&self, error: io::Error) -> ClientError {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => ClientError::Timeout(self.timeout),
            _ => ClientError::Io(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;
    use crate::api::Done;

    /// Calls a server that reads one line and answers with the bytes given, then closes.
    fn call_one(answer: impl Into<Vec<u8>>) -> Result<Done, ClientError> {
        let answer = answer.into();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            stream.write_all(&answer).unwrap();
            line
        });
        let result = Client::connect(&path).unwrap().call(&Request::FlowList { limit: 5 });
        let line = server.join().unwrap();
        assert_eq!(
            line,
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"flow.list\",\"params\":{\"limit\":5}}\n"
        );
        result
    }

    #[test]
    fn answers_are_understood_or_refused() {
        let done = call_one(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"generation\":7}}\n").unwrap();
        assert_eq!(done, Done { generation: 7 });
        for id in ["1", "null"] {
            let text = format!("{{\"id\":{id},\"error\":{{\"code\":-32002,\"message\":\"none\"}}}}\n");
            let error = call_one(text).unwrap_err();
            assert!(matches!(&error, ClientError::Api(error) if error.code == -32002), "{error}");
        }
        for junk in
            ["junk\n", "{}\n", "{\"id\":2,\"result\":{\"generation\":7}}\n", "{\"id\":1,\"result\":{}}\n"]
        {
            let error = call_one(junk).unwrap_err();
            assert!(matches!(error, ClientError::Protocol(_)), "{junk}: {error}");
        }
    }

    #[test]
    fn an_answer_cut_short_is_a_broken_connection() {
        for cut in ["", "{\"id\":1,\"result\":{\"generation\":7}}"] {
            let error = call_one(cut).unwrap_err();
            assert!(matches!(error, ClientError::Io(_)), "{error}");
        }
    }

    #[test]
    fn a_parting_word_is_heard_though_the_call_was_never_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mut client = Client::connect(&path).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"{\"id\":null,\"error\":{\"code\":-32001,\"message\":\"full\"}}\n").unwrap();
        drop(stream);
        let error = client.call::<Done>(&Request::Stop).unwrap_err();
        assert!(matches!(&error, ClientError::Api(error) if error.message == "full"), "{error}");
    }

    #[test]
    fn a_silent_daemon_times_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mut client = Client::connect_within(&path, Duration::from_millis(50)).unwrap();
        let error = client.call::<Done>(&Request::Status).unwrap_err();
        assert!(matches!(error, ClientError::Timeout(_)), "{error}");
        let (mut stream, _) = listener.accept().unwrap();
        assert!(stream.read(&mut [0; 1]).unwrap() > 0);
    }

    #[test]
    fn no_socket_and_a_stale_one_are_unreachable() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let no_socket = Client::connect(&path).unwrap_err();
        drop(UnixListener::bind(&path).unwrap());
        let stale = Client::connect(&path).unwrap_err();
        for error in [no_socket, stale] {
            assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
            assert!(error.to_string().contains("; start it, or name its socket"));
        }
    }
}
