//! The host port: tap devices by which the appliance's own kernel uses the interfaces.
//!
//! DPDK takes NICs away from the kernel. A tap gives one interface back to it, untagged, with the interface's
//! MAC address, own addresses and routes: what the kernel sends there is given to a worker, and frames for own
//! addresses that no service takes are written to it. So ping, ssh, curl, health checks and routing daemons
//! work, and it ends with the process: closing a tap removes it.
//!
//! Questions of ARP and ND for own addresses never reach the kernel: the control thread answers them, with the
//! same MAC address. Answers do reach it. The kernel cannot reach the VIPs of its own appliance by its taps:
//! nobody answers when it asks for them, and frames that it sends to the own MAC address are dropped.

mod kernel;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use config::model::Config;
use config::words::MacAddr;
#[cfg(test)]
use tokio::net::UnixDatagram;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time;
use tun_rs::{AsyncDevice, DeviceBuilder, Layer};

pub use kernel::{HostError, Plan};
use kernel::{HostRoute, Kernel};

/// Frames of the kernel that wait for the control thread at most; further ones wait in their taps' own queues.
const WAITING: usize = 256;
/// Bytes of the longest frame that a tap takes or gives.
const FRAME_LEN: usize = 16 << 10;
/// Time after which a tap that cannot be read, because somebody set it down, is tried again.
const READ_PAUSE: Duration = Duration::from_secs(5);

/// A frame that the kernel sends.
#[derive(Debug, PartialEq, Eq)]
pub struct Sent {
    /// Number of the interface whose tap it came by.
    pub interface: usize,
    /// Its bytes, Ethernet header included.
    pub bytes: Vec<u8>,
}

/// Where frames of one interface go to the kernel and come from it.
enum Tap {
    Device(AsyncDevice),
    /// Plays one.
    #[cfg(test)]
    Socket(UnixDatagram),
}

impl Tap {
    async fn read(&self, frame: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Device(device) => device.recv(frame).await,
            #[cfg(test)]
            Self::Socket(socket) => socket.recv(frame).await,
        }
    }

    fn try_write(&self, frame: &[u8]) -> io::Result<usize> {
        match self {
            Self::Device(device) => device.try_send(frame),
            #[cfg(test)]
            Self::Socket(socket) => socket.try_send(frame),
        }
    }
}

/// The taps of all interfaces that have one. Dropping it removes them.
pub struct Host {
    /// By interface number.
    taps: HashMap<usize, Arc<Tap>>,
    frames: mpsc::Receiver<Sent>,
    routes: watch::Sender<Vec<HostRoute>>,
    /// Names of the taps by interface number.
    names: HashMap<usize, String>,
    _tasks: JoinSet<()>,
}

impl Host {
    /// Makes the taps that a configuration asks for, on ports with these Ethernet addresses. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// [`HostError`] if one of them cannot be made or set up.
    pub async fn open(config: &Config, macs: &[MacAddr]) -> Result<Self, HostError> {
        let plans = kernel::plans(config, macs);
        let mut tasks = JoinSet::new();
        let (sender, frames) = mpsc::channel(WAITING);
        let (routes, changed_routes) = watch::channel(Vec::new());
        let (mut taps, mut names) = (HashMap::new(), HashMap::new());
        if !plans.is_empty() {
            let mut kernel = Kernel::connect(&mut tasks)?;
            for plan in &plans {
                let device = open_tap(plan)?;
                kernel.set_up(&device, plan).await?;
                let tap = Arc::new(Tap::Device(device));
                tasks.spawn(read(Arc::clone(&tap), plan.interface, sender.clone()));
                taps.insert(plan.interface, tap);
                names.insert(plan.interface, plan.name.clone());
            }
            tasks.spawn(kernel.follow(changed_routes));
        }
        let host = Self { taps, frames, routes, names, _tasks: tasks };
        host.set_routes(config);
        Ok(host)
    }

    /// Has the kernel use the static routes of a configuration that lead through interfaces with a tap, and no
    /// other static routes there. It happens later; what fails is logged.
    pub fn set_routes(&self, config: &Config) {
        let routes = kernel::routes(config, &self.names);
        self.routes.send_if_modified(|current| std::mem::replace(current, routes) != *current);
    }

    /// Whether an interface has a tap.
    pub fn has(&self, interface: usize) -> bool {
        self.taps.contains_key(&interface)
    }

    /// Gives a frame without VLAN tags to the kernel; false if it takes none now, or there is no tap.
    #[must_use]
    pub fn give(&self, interface: usize, frame: &[u8]) -> bool {
        self.taps.get(&interface).is_some_and(|tap| tap.try_write(frame).is_ok())
    }

    /// The next frame that the kernel sends; `None` if there is no tap.
    pub async fn next(&mut self) -> Option<Sent> {
        self.frames.recv().await
    }

    /// The next frame that the kernel has sent already, if there is one.
    pub fn try_next(&mut self) -> Option<Sent> {
        self.frames.try_recv().ok()
    }
}

/// Opens a tap, which is down and has no address yet.
fn open_tap(plan: &Plan) -> Result<AsyncDevice, HostError> {
    let builder = DeviceBuilder::new().name(&plan.name).layer(Layer::L2).inherit_enable_state();
    builder.build_async().map_err(|source| plan.not_opened(source))
}

/// Reads what the kernel sends, until nobody wants it any more. While nobody takes the frames, none are read,
/// and the kernel sees a slow link.
async fn read(tap: Arc<Tap>, interface: usize, to: mpsc::Sender<Sent>) {
    let mut buffer = vec![0; FRAME_LEN];
    loop {
        let Ok(place) = to.reserve().await else { return };
        match tap.read(&mut buffer).await {
            Ok(len) => place.send(Sent { interface, bytes: buffer[..len].to_vec() }),
            Err(error) => {
                tracing::warn!(interface, %error, "host port: no frame can be read");
                time::sleep(READ_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
