//! The file of the control socket: made without a moment of wider access, taken away at the end.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net as std_net;
use std::path::{Path, PathBuf};
use std::process;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

/// Owner and group may talk to the appliance, others not.
const MODE: u32 = 0o660;

/// Connections the kernel holds until they are accepted.
const BACKLOG: i32 = 128;

/// Why the control socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A living process has it.
    #[error(
        "cannot open control socket {path}; another process answers on it; \
         stop that process, or set another `socket` in [control]"
    )]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// A file, a directory or a link stands in its place.
    #[error(
        "cannot open control socket {path}; what stands there is not a socket; \
         remove it, or set another `socket` in [control]"
    )]
    NotASocket {
        /// Where.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error(
        "cannot open control socket {path}; {source}; \
         make its directory and the right to write there, or set another `socket` in [control]"
    )]
    Io {
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The control socket, listening. Dropping it removes its file, if that is still the one it made.
#[derive(Debug)]
pub struct Listener {
    // Dropped first: while the socket is open its inode number can not belong to another file.
    _file: SocketFile,
    socket: UnixListener,
}

impl Listener {
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.socket.accept().await.map(|(stream, _)| stream)
    }
}

/// Opens the control socket at `path` with mode 0660, in place of one that no living process has.
///
/// Must be called within a tokio runtime.
///
/// # Errors
/// If something else stands there, a living process answers, or the kernel refuses.
pub fn bind(path: &Path) -> Result<Listener, BindError> {
    let fail = |source| BindError::Io { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NotASocket { path: path.to_owned() });
        }
        Ok(_) if is_answered(path).map_err(fail)? => {
            return Err(BindError::InUse { path: path.to_owned() });
        }
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(fail(error)),
        Ok(_) | Err(_) => {}
    }
    open(path).map_err(fail)
}

/// Whether a living process listens on a socket. Never waits: a full backlog is an answer, too.
fn is_answered(path: &Path) -> io::Result<bool> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            ErrorKind::WouldBlock => Ok(true),
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => Ok(false),
            _ => Err(error),
        },
    }
}

/// Makes the socket under another name and moves it into place when it listens, so that nobody finds a
/// socket that refuses, and a dead one is replaced in one step.
fn open(path: &Path) -> io::Result<Listener> {
    // The name on the way is shorter than most, so the length of the final one is what counts.
    SockAddr::unix(path)?;
    let temporary = path.with_file_name(format!(".{}", process::id()));
    // Only an earlier process with our id can have left one.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (socket, mut file) = make(&temporary)?;
    fs::set_permissions(&temporary, Permissions::from_mode(MODE))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    file.rename(path)?;
    let socket = UnixListener::from_std(std_net::UnixListener::from(OwnedFd::from(socket)))?;
    Ok(Listener { _file: file, socket })
}

/// Binds a socket whose file has mode 0660 less the umask from its first moment: Linux takes the mode
/// of the file from the unbound socket, which spares us to change the umask of the whole process.
fn make(path: &Path) -> io::Result<(Socket, SocketFile)> {
    let unbound = File::from(OwnedFd::from(Socket::new(Domain::UNIX, Type::STREAM, None)?));
    unbound.set_permissions(Permissions::from_mode(MODE))?;
    let socket = Socket::from(OwnedFd::from(unbound));
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::at(path)?;
    Ok((socket, file))
}

/// A socket's file, removed on drop unless another one has taken its place.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }

    fn rename(&mut self, to: &Path) -> io::Result<()> {
        fs::rename(&self.path, to)?;
        self.path = to.to_owned();
        Ok(())
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (self.device, self.inode));
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "control socket: its file stays behind");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn the_file_is_never_wider_than_it_should_be() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let (_socket, _file) = make(&path).unwrap();
        assert_eq!(mode(&path) & !MODE, 0, "{:o}", mode(&path));
    }

    #[tokio::test]
    async fn bind_makes_one_file_with_the_right_mode_and_takes_it_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = bind(&path).unwrap();
        assert_eq!(mode(&path), MODE);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        drop(listener);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        drop(std_net::UnixListener::bind(&path).unwrap());
        let _listener = bind(&path).unwrap();
        assert!(is_answered(&path).unwrap());
    }

    #[tokio::test]
    async fn a_living_socket_is_left_alone_even_with_a_full_backlog() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        socket.listen(0).unwrap();
        let before = fs::symlink_metadata(&path).unwrap().ino();
        for _ in 0..3 {
            let error = bind(&path).unwrap_err();
            assert!(matches!(error, BindError::InUse { .. }), "{error}");
        }
        assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), before);
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (file, directory, link) = (dir.path().join("f"), dir.path().join("d"), dir.path().join("l"));
        fs::write(&file, "precious").unwrap();
        fs::create_dir(&directory).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [&file, &directory, &link] {
            let error = bind(path).unwrap_err();
            assert!(matches!(error, BindError::NotASocket { .. }), "{error}");
            assert!(error.to_string().contains("; what stands there is not a socket; "));
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_missing_directory_and_a_path_too_long_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().join("none/s"), dir.path().join("x".repeat(120))] {
            let error = bind(&path).unwrap_err();
            assert!(matches!(error, BindError::Io { .. }), "{error}");
        }
    }

    #[tokio::test]
    async fn a_successor_keeps_its_socket_when_we_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let ours = bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _theirs = std_net::UnixListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
    }
}
