//! The real `trutinad`, as a process of its own.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use controlplane::client::Client;

use super::memory;
use super::site::Site;
use crate::bound::bound;

/// Time for a large configuration to be read, compiled and published.
const START: Duration = Duration::from_secs(60);

/// A running daemon; it is killed when this goes.
pub struct Daemon {
    process: Child,
    socket: PathBuf,
}

impl Daemon {
    /// Starts the `trutinad` that was built beside this program.
    ///
    /// # Errors
    /// There is none, or it does not start.
    pub fn start(site: &Site) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name("trutinad");
        if !program.exists() {
            return Err(format!("there is no {}; build it, by `make build`", program.display()));
        }
        let mut command = bound(Command::new(&program).arg("--config").arg(site.file()));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().map_err(|error| format!("cannot run {command:?}; {error}"))?;
        Ok(Self { process, socket: site.socket().to_owned() })
    }

    /// Connects when it is ready.
    ///
    /// # Errors
    /// It is not ready in time.
    pub fn connect(&self) -> Result<Client, String> {
        let begun = Instant::now();
        loop {
            match Client::connect(&self.socket) {
                Ok(mut client) => {
                    // The socket is there before the devices are; the first answer tells that all is.
                    let status = client.call::<serde_json::Value>(&controlplane::api::Request::Status);
                    return status.map(|_| client).map_err(|error| error.to_string());
                }
                Err(error) if begun.elapsed() > START => return Err(error.to_string()),
                Err(_) => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Memory it has now.
    ///
    /// # Errors
    /// It is gone.
    pub fn memory(&self) -> Result<memory::Resident, String> {
        memory::of(self.process.id())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
