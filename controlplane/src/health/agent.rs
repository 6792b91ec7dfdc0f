//! What a backend's own agent says of it: HAProxy's agent-check protocol.
//!
//! A TCP connection to the agent's port is answered with one line of ASCII. Its words are separated by blanks or
//! commas; what a line does not mention stays as it was.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::model::Agent;
use config::words::ServiceKey;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{self, Instant, MissedTickBehavior, timeout};

use super::{Event, MAX_PROBES, Target, offset};

/// Bytes of a line at most; what follows is not read.
const MAX_LINE_LEN: u64 = 512;
/// The largest share, in percent.
const MAX_PERCENT: u16 = 256;

/// What one line says; `None` is not mentioned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// `NN%`: share of the configured weight.
    pub percent: Option<u16>,
    /// `drain`, `maint`: it wants no new flows; `ready`: it does.
    pub aside: Option<bool>,
    /// `down`, `fail`, `stopped`: it cannot serve; `up`: it can.
    pub down: Option<bool>,
    /// Words that have no meaning here.
    pub unknown: Vec<String>,
}

impl Report {
    /// What a line says. Words may be in any case; of two that contradict each other the later counts.
    pub fn of(line: &str) -> Self {
        let mut report = Self::default();
        for word in line.split([' ', '\t', ',']).filter(|word| !word.is_empty()) {
            let percent = word.strip_suffix('%').and_then(|number| number.parse().ok());
            match word.to_ascii_lowercase().as_str() {
                "ready" => report.aside = Some(false),
                "drain" | "maint" => report.aside = Some(true),
                "up" => report.down = Some(false),
                "down" | "fail" | "stopped" => report.down = Some(true),
                _ => match percent.filter(|percent| *percent <= MAX_PERCENT) {
                    Some(percent) => report.percent = Some(percent),
                    None => report.unknown.push(word.escape_debug().to_string()),
                },
            }
        }
        report
    }
}

/// Owner of all that ask agents; dropping it stops them.
#[derive(Debug)]
pub struct Agents {
    events: mpsc::Sender<Event>,
    questions: Arc<Semaphore>,
    /// By service, so that a change of one leaves those of all others alone. The task ends with its place.
    running: HashMap<ServiceKey, HashMap<SocketAddr, (Agent, JoinSet<()>)>>,
}

impl Agents {
    /// Asks nobody yet; will send what it is told to `events`, and waits while that is full.
    pub fn new(events: mpsc::Sender<Event>) -> Self {
        Self { events, questions: Arc::new(Semaphore::new(MAX_PROBES)), running: HashMap::new() }
    }

    /// Asks exactly the agents `wanted` from now on. Must be called within a tokio runtime.
    pub fn set(&mut self, wanted: impl Iterator<Item = (Target, Agent)>) {
        let mut before = std::mem::take(&mut self.running);
        for (target, agent) in wanted {
            let known = before.get_mut(&target.service).and_then(|of| of.remove(&target.backend));
            self.resume(target, agent, known);
        }
    }

    /// The same of one service; all others run on.
    pub fn set_service(&mut self, service: ServiceKey, wanted: impl Iterator<Item = (Target, Agent)>) {
        let mut before = self.running.remove(&service).unwrap_or_default();
        for (target, agent) in wanted {
            let known = before.remove(&target.backend);
            self.resume(target, agent, known);
        }
    }

    fn resume(&mut self, target: Target, agent: Agent, known: Option<(Agent, JoinSet<()>)>) {
        let running = known.filter(|(its, _)| *its == agent).unwrap_or_else(|| {
            let mut task = JoinSet::new();
            task.spawn(watch(target, agent, self.events.clone(), self.questions.clone()));
            (agent, task)
        });
        self.running.entry(target.service).or_default().insert(target.backend, running);
    }
}

/// Asks one agent again and again, until nobody wants to know.
async fn watch(target: Target, agent: Agent, events: mpsc::Sender<Event>, questions: Arc<Semaphore>) {
    let interval = Duration::from_millis(agent.interval_ms.max(1).into());
    let mut ticks = time::interval_at(Instant::now() + offset(target, interval), interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        let said = {
            let Ok(_permit) = questions.acquire().await else { return };
            ask(agent, target.backend).await
        };
        if events.send(Event::Agent { target, said }).await.is_err() {
            return;
        }
    }
}

/// Asks one agent once; says why not if it gives no answer.
async fn ask(agent: Agent, target: SocketAddr) -> Result<Report, String> {
    let address = SocketAddr::new(target.ip(), agent.port);
    match timeout(Duration::from_millis(agent.timeout_ms.into()), line_of(address)).await {
        Ok(Ok(Some(line))) => Ok(Report::of(&line)),
        Ok(Ok(None)) => Err("no line of ASCII".to_owned()),
        Ok(Err(error)) => Err(error.kind().to_string()),
        Err(_) => Err(format!("timed out after {} ms", agent.timeout_ms)),
    }
}

/// The line that an agent sends; it ends with its connection at the latest.
async fn line_of(address: SocketAddr) -> std::io::Result<Option<String>> {
    let stream = TcpStream::connect(address).await?;
    // No question leaves a port of ours in TIME_WAIT.
    stream.set_zero_linger()?;
    let (mut line, mut stream) = (Vec::new(), stream.take(MAX_LINE_LEN));
    while !line.contains(&b'\n') && stream.read_buf(&mut line).await? > 0 {}
    let end = line.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(line.len());
    line.truncate(end);
    Ok(String::from_utf8(line).ok().filter(|line| line.is_ascii() && !line.trim().is_empty()))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    fn says(percent: Option<u16>, aside: Option<bool>, down: Option<bool>, unknown: &[&str]) -> Report {
        Report { percent, aside, down, unknown: unknown.iter().map(|it| (*it).to_owned()).collect() }
    }

    #[test]
    fn words_mean_what_they_do_in_haproxy() {
        for (line, report) in [
            ("75%", says(Some(75), None, None, &[])),
            ("up ready 100%", says(Some(100), Some(false), Some(false), &[])),
            ("UP,READY,,256%", says(Some(256), Some(false), Some(false), &[])),
            ("drain", says(None, Some(true), None, &[])),
            ("maint 0%", says(Some(0), Some(true), None, &[])),
            ("down", says(None, None, Some(true), &[])),
            ("fail#disk full", says(None, None, None, &["fail#disk", "full"])),
            ("stopped\tfail", says(None, None, Some(true), &[])),
            ("drain ready", says(None, Some(false), None, &[])),
            ("257% -1% % maxconn:30", says(None, None, None, &["257%", "-1%", "%", "maxconn:30"])),
            ("\u{1b}[1m", says(None, None, None, &["\\u{1b}[1m"])),
            ("", says(None, None, None, &[])),
        ] {
            assert_eq!(Report::of(line), report, "{line:?}");
        }
    }

    /// An agent that sends these bytes to all that connect, and whether it then hangs up.
    async fn agent(bytes: &'static [u8], hangs_up: bool) -> (Agent, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(bytes).await;
                open.extend((!hangs_up).then_some(stream));
            }
        });
        (Agent { port: address.port(), interval_ms: 20, timeout_ms: 10_000 }, "127.0.0.1:1".parse().unwrap())
    }

    #[tokio::test]
    async fn a_line_ends_with_its_end_or_its_connection() {
        let half = says(Some(50), None, None, &[]);
        for (bytes, hangs_up, said) in [
            (&b"50%\n"[..], false, Ok(half.clone())),
            (b"50%\r\ndown\n", true, Ok(half.clone())),
            (b"50%", true, Ok(half)),
            (b"", true, Err("no line of ASCII".to_owned())),
            (b"\n", true, Err("no line of ASCII".to_owned())),
            (b"50%\xff\n", true, Err("no line of ASCII".to_owned())),
        ] {
            let (agent, target) = agent(bytes, hangs_up).await;
            assert_eq!(ask(agent, target).await, said, "{bytes:?}");
        }
        let (stalls, target) = agent(b"50%", false).await;
        let said = ask(Agent { timeout_ms: 50, ..stalls }, target).await;
        assert_eq!(said, Err("timed out after 50 ms".to_owned()));
        let endless = agent(&[b'x'; 4096], false).await;
        assert_eq!(ask(endless.0, endless.1).await.unwrap().unknown[0].len(), MAX_LINE_LEN as usize);
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let said = ask(Agent { port: gone.port(), ..stalls }, target).await;
        assert_eq!(said, Err("connection refused".to_owned()));
    }

    #[tokio::test]
    async fn agents_are_asked_until_they_are_not_wanted() {
        let (sender, mut events) = mpsc::channel(8);
        let (agent, backend) = agent(b"drain 10%\n", true).await;
        let target = Target { service: "tcp:192.0.2.1:80".parse().unwrap(), backend };
        let mut agents = Agents::new(sender);
        agents.set([(target, agent)].into_iter());
        for _ in 0..3 {
            let said = Ok(says(Some(10), Some(true), None, &[]));
            assert_eq!(events.recv().await, Some(Event::Agent { target, said }));
        }
        agents.set_service(target.service, std::iter::empty());
        drop(agents);
        time::timeout(Duration::from_secs(5), async { while events.recv().await.is_some() {} })
            .await
            .expect("its tasks ended with it");
    }
}
